// SPDX-License-Identifier: GPL-2.0-only
/*
 * The copy engine. It copies between the memory of a GPU and system memory, for
 * which it has only DMA addresses. It resolves each address at the moment of
 * the access, as an IOMMU does; an unmapped address is a DMA fault. It also
 * copies from the memory of another GPU, if the two are connected.
 *
 * mock: real hardware has engines of its own. By default, this engine leaves
 * its work to the task that waits, which saves a context switch. Parameters and
 * fault attributes make it hostile, as far as the contract of hw.h allows:
 *
 *   late       submit fills the destinations with a pattern, and another task
 *              makes the copies
 *   reordered  the last copy of a batch runs first, and batches overtake
 *              others
 *   slow       each batch takes a while
 *   fail_copy, fail_one_copy
 *              a batch, or one copy of it, fails; its destination keeps the
 *              pattern
 *   fail_hang  the engine does not complete a batch until it is reset
 *   fail_lost  the GPU is lost, with all data in its memory
 *
 * Sanity mode turns late and reordered on. The engine is a fence signalling
 * critical section: it allocates nothing, and takes no lock that a waiting task
 * may hold.
 */
#include <linux/delay.h>
#include <linux/module.h>
#include <linux/slab.h>

#include "gpu.h"
#include "iommu.h"
#include "../fail.h"

#define NOT_YET_COPIED	0xd7	/* pattern of a late engine */

static bool late_engine = IS_ENABLED(CONFIG_HMM_REF_SANITY);
module_param(late_engine, bool, 0644);
MODULE_PARM_DESC(late_engine,
		 "copy in another task (default Y in sanity mode)");

static bool reordered_engine = IS_ENABLED(CONFIG_HMM_REF_SANITY);
module_param(reordered_engine, bool, 0644);
MODULE_PARM_DESC(reordered_engine,
		 "copy in another order (default Y in sanity mode)");

static unsigned int slow_engine;
module_param(slow_engine, uint, 0644);
MODULE_PARM_DESC(slow_engine,
		 "minimum microseconds per batch of copies (default 0)");

/**
 * struct batch - copies that were submitted
 * @fence: signals when they are complete; its release frees the batch
 * @lock: lock of the fence
 * @node: link in hmm_ref_gpu::queue
 * @peer: GPU that they copy from, or NULL
 * @ring: descriptors, which the engine may use until the fence signals
 * @nr: number of descriptors
 * @is_queued: the engine runs it, not the task that waits
 * @hangs: the engine never completes it; only a reset does
 */
struct batch {
	struct dma_fence fence;
	spinlock_t lock;	/* fence */
	struct list_head node;
	struct hmm_ref_gpu *peer;
	struct hmm_ref_copy *ring;
	unsigned int nr;
	bool is_queued;
	bool hangs;
};

static const char *driver_name(struct dma_fence *fence)
{
	return "hmm_ref";
}

static const char *timeline_name(struct dma_fence *fence)
{
	return "copy engine";
}

static const struct dma_fence_ops batch_fence_ops = {
	.get_driver_name = driver_name,
	.get_timeline_name = timeline_name,
};

/* ---- copies ------------------------------------------------------------ */

/* GPU memory, as mapped by the CPU. */
struct vram {
	void *mem;
	bool is_iomem;
};

static void fill_vram(struct vram vram, int value, size_t len)
{
	if (vram.is_iomem)
		memset_io((void __iomem __force *)vram.mem, value, len);
	else
		memset(vram.mem, value, len);
}

static void copy_page_io(enum hmm_ref_copy_op op, void *vram, void *sys)
{
	void __iomem *io = (void __iomem __force *)vram;

	if (op == HMM_REF_COPY_OUT)
		memcpy_fromio(sys, io, PAGE_SIZE);
	else
		memcpy_toio(io, sys, PAGE_SIZE);
}

static __always_inline void copy_page_sys(enum hmm_ref_copy_op op,
					  struct vram vram, void *sys)
{
	if (unlikely(vram.is_iomem))
		copy_page_io(op, vram.mem, sys);
	else if (op == HMM_REF_COPY_OUT)
		copy_page(sys, vram.mem);
	else
		copy_page(vram.mem, sys);
}

/* mock: real hardware would use a link between the two GPUs, or the bus. */
static void copy_from_peer(struct hmm_ref_gpu *peer,
			   const struct hmm_ref_copy *copy, struct vram vram)
{
	struct iosys_map source = peer->vram(peer, copy->addr >> PAGE_SHIFT);

	memcpy(vram.mem, source.vaddr, copy->nr * PAGE_SIZE);
}

/* Return: true if an address is not mapped. */
static __always_inline bool run_copy(struct hmm_ref_hw *hw,
				     struct iommu_domain *domain,
				     struct hmm_ref_gpu *peer,
				     const struct hmm_ref_copy *copy,
				     struct vram vram)
{
	enum dma_data_direction direction =
		copy->op == HMM_REF_COPY_IN ? DMA_TO_DEVICE : DMA_FROM_DEVICE;
	unsigned int i;

	if (copy->op == HMM_REF_COPY_ZERO) {
		fill_vram(vram, 0, copy->nr * PAGE_SIZE);
		return false;
	}
	if (copy->op == HMM_REF_COPY_PEER) {
		copy_from_peer(peer, copy, vram);
		return false;
	}
	for (i = 0; i < copy->nr; i++, vram.mem += PAGE_SIZE) {
		void *sys = hmm_ref_gpu_map_addr(hw, domain,
						 copy->addr + i * PAGE_SIZE,
						 direction);

		if (!sys)
			return true;
		copy_page_sys(copy->op, vram, sys);
		kunmap_local(sys);
	}
	return false;
}

static bool poison_copy(struct hmm_ref_hw *hw, struct iommu_domain *domain,
			struct hmm_ref_gpu *peer,
			const struct hmm_ref_copy *copy, struct vram vram)
{
	dma_addr_t addr = copy->addr;
	unsigned int i;

	if (copy->op != HMM_REF_COPY_OUT) {
		fill_vram(vram, NOT_YET_COPIED, copy->nr * PAGE_SIZE);
		return false;
	}
	for (i = 0; i < copy->nr; i++, addr += PAGE_SIZE) {
		void *sys = hmm_ref_gpu_map_addr(hw, domain, addr,
						 DMA_FROM_DEVICE);

		if (!sys)
			return true;
		memset(sys, NOT_YET_COPIED, PAGE_SIZE);
		kunmap_local(sys);
	}
	return false;
}

/*
 * Call @fn for each copy, in reverse order if @reverse. Most copies are in the
 * same block as the one before, so its address is cached. Return: 0, or the
 * errno of a copy that failed.
 */
static __always_inline int
do_copies(struct hmm_ref_gpu *gpu, struct hmm_ref_gpu *peer,
	  struct hmm_ref_copy *ring, unsigned int nr, bool reverse,
	  bool (*fn)(struct hmm_ref_hw *hw, struct iommu_domain *domain,
		     struct hmm_ref_gpu *peer, const struct hmm_ref_copy *copy,
		     struct vram vram))
{
	struct iommu_domain *domain = iommu_get_domain_for_dev(gpu->hw.dev);
	struct hmm_ref_copy *copy = reverse ? ring + nr - 1 : ring;
	unsigned long first = LONG_MAX;
	struct vram block = {};
	int rc = 0;

	for (; nr; nr--, copy += reverse ? -1 : 1) {
		struct vram vram;

		if (copy->dpfn - first >= HMM_REF_BLOCK_PAGES) {
			struct iosys_map map;

			first = ALIGN_DOWN(copy->dpfn, HMM_REF_BLOCK_PAGES);
			map = gpu->vram(gpu, first);
			block = (struct vram){ map.vaddr, map.is_iomem };
		}
		vram.mem = block.mem + ((copy->dpfn - first) << PAGE_SHIFT);
		vram.is_iomem = block.is_iomem;
		if (likely(!fn(&gpu->hw, domain, peer, copy, vram)))
			continue;
		rc = -EFAULT;
		copy->rc = rc;
	}
	return rc;
}

static int fail_all(struct batch *batch, int rc)
{
	unsigned int i;

	for (i = 0; i < batch->nr; i++)
		batch->ring[i].rc = rc;
	return rc;
}

/* Overwrite the destination of a copy with the pattern. */
static int fail_one(struct hmm_ref_gpu *gpu, struct hmm_ref_copy *copy)
{
	do_copies(gpu, NULL, copy, 1, false, poison_copy);
	copy->rc = -EIO;
	return copy->rc;
}

static noinline void poison(struct hmm_ref_gpu *gpu, struct batch *batch)
{
	do_copies(gpu, batch->peer, batch->ring, batch->nr, false, poison_copy);
	wmb(); /* order write-combined stores, which a lock does not */
}

static int run(struct hmm_ref_gpu *gpu, struct batch *batch)
{
	int rc;

	if (hmm_ref_fail(HMM_REF_FAIL_COPY))
		return fail_all(batch, -EIO);
	if (hmm_ref_fail(HMM_REF_FAIL_LOST))
		WRITE_ONCE(gpu->lost, true);
	rc = do_copies(gpu, batch->peer, batch->ring, batch->nr,
		       READ_ONCE(reordered_engine), run_copy);
	if (hmm_ref_fail(HMM_REF_FAIL_ONE_COPY))
		rc = fail_one(gpu, &batch->ring[batch->nr / 2]);
	/* Order write-combined stores before signalling completion. */
	wmb();
	if (hmm_ref_gpu_is_lost(gpu))
		return fail_all(batch, -ENODEV);
	if (batch->peer && hmm_ref_gpu_is_lost(batch->peer))
		return fail_all(batch, -EIO);
	return rc;
}

static void complete_batch(struct batch *batch, int rc)
{
	if (rc)
		dma_fence_set_error(&batch->fence, rc);
	dma_fence_signal(&batch->fence);
}

/* ---- the engine -------------------------------------------------------- */

static struct batch *take(struct hmm_ref_gpu *gpu)
{
	struct batch *batch;

	spin_lock(&gpu->lock);
	/* No batch is overtaken forever. */
	if (list_empty(&gpu->queue))
		batch = NULL;
	else if (!READ_ONCE(reordered_engine) || gpu->turn++ % 4)
		batch = list_first_entry(&gpu->queue, struct batch, node);
	else
		batch = list_last_entry(&gpu->queue, struct batch, node);
	if (batch)
		list_del(&batch->node);
	spin_unlock(&gpu->lock);
	return batch;
}

/* Return: -ETIMEDOUT, after a reset. */
static int hang(struct hmm_ref_gpu *gpu, struct batch *batch)
{
	unsigned int resets = READ_ONCE(gpu->resets);

	wait_event(gpu->reset, READ_ONCE(gpu->resets) != resets);
	return fail_all(batch, -ETIMEDOUT);
}

static void run_engine(struct work_struct *work)
{
	struct hmm_ref_gpu *gpu =
		container_of(work, struct hmm_ref_gpu, engine);
	bool cookie = dma_fence_begin_signalling();
	struct batch *batch;

	while ((batch = take(gpu))) {
		unsigned int delay = READ_ONCE(slow_engine);

		if (delay)
			fsleep(delay);
		complete_batch(batch, batch->hangs ? hang(gpu, batch) :
						     run(gpu, batch));
		dma_fence_put(&batch->fence);
	}
	dma_fence_end_signalling(cookie);
}

/**
 * hmm_ref_gpu_submit() - implementation of hmm_ref_hw_ops::submit
 * @hw: hardware of a struct hmm_ref_gpu
 * @job: batch
 *
 * Return: its fence, or an ERR_PTR().
 */
struct dma_fence *hmm_ref_gpu_submit(struct hmm_ref_hw *hw,
				     const struct hmm_ref_job *job)
{
	struct batch *batch = kmalloc_obj(*batch, GFP_NOIO | __GFP_NOWARN);
	struct hmm_ref_gpu *gpu = hmm_ref_to_gpu(hw);
	bool late = READ_ONCE(late_engine);

	if (!batch)
		return ERR_PTR(-ENOMEM);
	spin_lock_init(&batch->lock);
	dma_fence_init(&batch->fence, &batch_fence_ops, &batch->lock,
		       gpu->context, atomic64_inc_return(&gpu->seqno));
	batch->peer = job->peer_hw ? hmm_ref_to_gpu(job->peer_hw) : NULL;
	batch->ring = job->ring;
	batch->nr = job->nr;
	batch->hangs = hmm_ref_fail(HMM_REF_FAIL_HANG);
	batch->is_queued = late || batch->hangs || READ_ONCE(slow_engine);
	if (!batch->is_queued)
		return &batch->fence;

	if (late)
		poison(gpu, batch);
	dma_fence_get(&batch->fence);
	spin_lock(&gpu->lock);
	if (READ_ONCE(reordered_engine))
		list_add(&batch->node, &gpu->queue);
	else
		list_add_tail(&batch->node, &gpu->queue);
	spin_unlock(&gpu->lock);
	queue_work(gpu->workqueue, &gpu->engine);
	return &batch->fence;
}
EXPORT_SYMBOL_NS_GPL(hmm_ref_gpu_submit, "HMM_REF");

/**
 * hmm_ref_gpu_help() - implementation of hmm_ref_hw_ops::help
 * @hw: hardware of a struct hmm_ref_gpu
 * @fence: fence that hmm_ref_gpu_submit() has returned
 */
void hmm_ref_gpu_help(struct hmm_ref_hw *hw, struct dma_fence *fence)
{
	struct batch *batch = container_of(fence, struct batch, fence);

	if (!batch->is_queued)
		complete_batch(batch, run(hmm_ref_to_gpu(hw), batch));
}
EXPORT_SYMBOL_NS_GPL(hmm_ref_gpu_help, "HMM_REF");

/**
 * hmm_ref_gpu_reset() - implementation of hmm_ref_hw_ops::reset
 * @hw: hardware of a struct hmm_ref_gpu
 */
void hmm_ref_gpu_reset(struct hmm_ref_hw *hw)
{
	struct hmm_ref_gpu *gpu = hmm_ref_to_gpu(hw);

	WRITE_ONCE(gpu->resets, gpu->resets + 1);
	wake_up_all(&gpu->reset);
}
EXPORT_SYMBOL_NS_GPL(hmm_ref_gpu_reset, "HMM_REF");

/* ---- setup and teardown ------------------------------------------------ */

/**
 * hmm_ref_gpu_init() - set up a GPU
 * @gpu: GPU with vram and is_present set
 * @ops: operations of the device
 * @dev: device for DMA mappings, with its DMA mask set
 * @node: nearest NUMA node, or NUMA_NO_NODE
 *
 * Return: 0 or -ENOMEM.
 */
int hmm_ref_gpu_init(struct hmm_ref_gpu *gpu, const struct hmm_ref_hw_ops *ops,
		     struct device *dev, int node)
{
	hmm_ref_hw_init(&gpu->hw, ops, dev, node);
#if defined(CONFIG_ARCH_HAS_SYNC_DMA_FOR_DEVICE) || \
	defined(CONFIG_ARCH_HAS_SYNC_DMA_FOR_CPU)
	/* The engine is a CPU, and coherent with the caches. */
	if (dev)
		dev->dma_coherent = true;
#endif
	INIT_WORK(&gpu->engine, run_engine);
	spin_lock_init(&gpu->lock);
	INIT_LIST_HEAD(&gpu->queue);
	init_waitqueue_head(&gpu->reset);
	hmm_ref_gpu_mmu_init(gpu);
	gpu->turn = 0;
	gpu->lost = false;
	gpu->resets = 0;
	gpu->context = dma_fence_context_alloc(1);
	atomic64_set(&gpu->seqno, 0);
	/* Not freezable: tasks that are about to freeze wait for it. */
	gpu->workqueue = alloc_workqueue("hmm_ref_gpu",
					 WQ_UNBOUND | WQ_MEM_RECLAIM, 1);
	return gpu->workqueue ? 0 : -ENOMEM;
}
EXPORT_SYMBOL_NS_GPL(hmm_ref_gpu_init, "HMM_REF");

/**
 * hmm_ref_gpu_exit() - tear down a GPU
 * @gpu: GPU with no pending fence
 */
void hmm_ref_gpu_exit(struct hmm_ref_gpu *gpu)
{
	destroy_workqueue(gpu->workqueue);
#ifdef CONFIG_HMM_REF_SANITY
	WARN_ON(!xa_empty(&gpu->hw.mapped));
	xa_destroy(&gpu->hw.mapped);
#endif
}
EXPORT_SYMBOL_NS_GPL(hmm_ref_gpu_exit, "HMM_REF");
