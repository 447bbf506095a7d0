// SPDX-License-Identifier: GPL-2.0-only
/*
 * The simulated GPU: VRAM and the copy engine, made from kernel memory. It implements hw.h; a
 * driver for hardware replaces it.
 *
 * VRAM is in pieces of PMD_SIZE: kernel memory, or a region that the CPU can access, too. A piece
 * stays as long as any of its pages can be used, so an access finds it without a lock.
 *
 * mock: the engine has no thread of its own. The waiter does the copies, so the wait needs
 * no memory, may be done with folios locked, and costs no switch of tasks. A late engine
 * (module parameter late_engine, on in sanity mode) is as hostile as the contract allows:
 * submit fills the destinations with a pattern, another task does the copies while the
 * waiter sleeps, and a batch that fails leaves the pattern.
 *
 * The content of a page that was not copied or cleared since it was handed out
 * is what its last owner left there. The caller that has it handed out fills it.
 */
#include <linux/gfp.h>
#include <linux/highmem.h>
#include <linux/io.h>
#include <linux/iosys-map.h>
#include <linux/module.h>
#include <linux/slab.h>
#include <linux/vmalloc.h>
#include <linux/workqueue.h>
#include <linux/xarray.h>

#include "gpu.h"
#include "../fail.h"
#include "../hw.h"

/* Not worth any effort. */
#define GFP_LARGE_VRAM	((GFP_KERNEL | __GFP_NOWARN) & ~__GFP_DIRECT_RECLAIM)

#define NOT_YET_COPIED	0xd7	/* what a late engine fills destinations with */

static bool late_engine = IS_ENABLED(CONFIG_HMM_REF_SANITY);
module_param(late_engine, bool, 0644);
MODULE_PARM_DESC(late_engine,
		 "copy in another task, not before the wait (default Y in sanity mode)");

/**
 * struct hmm_ref_gpu - one simulated GPU
 * @hw: what the core sees of it
 * @vram: PMD_SIZE of memory by dpfn >> HMM_REF_BLOCK_ORDER, as the kernel maps it
 * @coherent_base: physical address of memory that the CPU can access, too; 0 for a GPU whose
 *	memory is its own
 * @queue: makes copies when the engine is late
 */
struct hmm_ref_gpu {
	struct hmm_ref_hw hw;
	struct xarray vram;
	phys_addr_t coherent_base;
	struct workqueue_struct *queue;
};

static struct hmm_ref_gpu *to_gpu(struct hmm_ref_hw *hw)
{
	return container_of(hw, struct hmm_ref_gpu, hw);
}

/* ---- VRAM -------------------------------------------------------------- */

/* mock: real hardware has its memory on board. Large pages are there as a rule, and cost less. */
static void *alloc_piece(struct hmm_ref_gpu *gpu, unsigned long index)
{
	const gfp_t gfp = GFP_KERNEL | __GFP_RETRY_MAYFAIL | __GFP_NOWARN;
	struct page *page = NULL;

	if (hmm_ref_fail(HMM_REF_FAIL_VRAM))
		return NULL;
	if (gpu->coherent_base)
		return memremap(gpu->coherent_base + index * PMD_SIZE, PMD_SIZE, MEMREMAP_WB);
	if (HMM_REF_BLOCK_ORDER <= MAX_PAGE_ORDER)
		page = alloc_pages_node(gpu->hw.node, GFP_LARGE_VRAM, HMM_REF_BLOCK_ORDER);
	return page ? page_address(page) : vmalloc_huge_node(PMD_SIZE, gfp, gpu->hw.node);
}

static void free_piece(struct hmm_ref_gpu *gpu, void *piece)
{
	if (gpu->coherent_base)
		memunmap(piece);
	else if (is_vmalloc_addr(piece))
		vfree(piece);
	else
		free_pages((unsigned long)piece, HMM_REF_BLOCK_ORDER);
}

static void free_pieces(struct hmm_ref_gpu *gpu, unsigned long first, unsigned long end)
{
	for (; first < end; first++)
		free_piece(gpu, xa_erase(&gpu->vram, first));
}

static int gpu_vram_alloc(struct hmm_ref_hw *hw, unsigned long dpfn, unsigned long nr)
{
	unsigned long first = dpfn >> HMM_REF_BLOCK_ORDER;
	unsigned long end = (dpfn + nr) >> HMM_REF_BLOCK_ORDER;
	struct hmm_ref_gpu *gpu = to_gpu(hw);
	unsigned long index;

	for (index = first; index < end; index++) {
		void *piece = alloc_piece(gpu, index);

		if (!piece)
			break;
		if (xa_insert(&gpu->vram, index, piece, GFP_KERNEL)) {
			free_piece(gpu, piece);
			break;
		}
	}
	if (index == end)
		return 0;
	free_pieces(gpu, first, index);
	return -ENOMEM;
}

static void gpu_vram_free(struct hmm_ref_hw *hw, unsigned long dpfn, unsigned long nr)
{
	free_pieces(to_gpu(hw), dpfn >> HMM_REF_BLOCK_ORDER, (dpfn + nr) >> HMM_REF_BLOCK_ORDER);
}

static void *vram_addr(struct hmm_ref_gpu *gpu, unsigned long dpfn)
{
	void *piece = xa_load(&gpu->vram, dpfn >> HMM_REF_BLOCK_ORDER);

	return piece + ((dpfn & (HMM_REF_BLOCK_PAGES - 1)) << PAGE_SHIFT);
}

static struct iosys_map vram_map(struct hmm_ref_hw *hw, const struct hmm_ref_place *place)
{
	struct iosys_map map = {};

	if (place->vram)
		iosys_map_set_vaddr(&map, vram_addr(to_gpu(hw), place->number));
	return map;
}

static unsigned int gpu_move(struct hmm_ref_hw *hw, const struct hmm_ref_place *place,
			     const struct hmm_ref_buffer *buf, unsigned int len, bool write)
{
	struct iosys_map vram = vram_map(hw, place);

	return hmm_ref_lsu_move(&vram, place, buf, len, write);
}

static void gpu_atomic(struct hmm_ref_hw *hw, const struct hmm_ref_place *place,
		       struct hmm_ref_word *word)
{
	struct iosys_map vram = vram_map(hw, place);

	hmm_ref_lsu_atomic(&vram, place, word);
}

/* ---- copies ------------------------------------------------------------ */

static __always_inline void copy_one(enum hmm_ref_copy_op op, void *mem,
				     struct page *sys_page)
{
	void *sys = kmap_local_page(sys_page);

	if (op == HMM_REF_COPY_OUT)
		copy_page(sys, mem);
	else
		copy_page(mem, sys);
	kunmap_local(sys);
}

static inline void run_copy(const struct hmm_ref_copy *copy, void *mem)
{
	const enum hmm_ref_copy_op op = copy->op;
	struct page *sys_page = copy->sys_page;
	unsigned int nr = copy->nr;

	if (op == HMM_REF_COPY_ZERO) {
		memset(mem, 0, nr * PAGE_SIZE);
		return;
	}
	do {
		copy_one(op, mem, sys_page++);
		mem += PAGE_SIZE;
	} while (--nr);
}

static void poison_copy(const struct hmm_ref_copy *copy, void *mem)
{
	unsigned int i;

	if (copy->op != HMM_REF_COPY_OUT) {
		memset(mem, NOT_YET_COPIED, copy->nr * PAGE_SIZE);
		return;
	}
	for (i = 0; i < copy->nr; i++)
		memset_page(copy->sys_page + i, 0, NOT_YET_COPIED, PAGE_SIZE);
}

/* Most copies are in the block of the one before: its address is known. */
static __always_inline void do_copies(struct hmm_ref_gpu *gpu, const struct hmm_ref_job *job,
				      void (*fn)(const struct hmm_ref_copy *copy,
						 void *mem))
{
	const struct hmm_ref_copy *copy = job->ring, *end = copy + job->nr;
	unsigned long first = LONG_MAX;
	void *base = NULL;

	for (; copy < end; copy++) {
		if (copy->dpfn - first >= HMM_REF_BLOCK_PAGES) {
			first = ALIGN_DOWN(copy->dpfn, HMM_REF_BLOCK_PAGES);
			base = vram_addr(gpu, first);
		}
		fn(copy, base + ((copy->dpfn - first) << PAGE_SHIFT));
	}
}

/* mock: real hardware would have a doorbell rung, and use no CPU */
static int gpu_submit(struct hmm_ref_hw *hw, const struct hmm_ref_job *job)
{
	if (READ_ONCE(late_engine))
		do_copies(to_gpu(hw), job, poison_copy);
	return 0;
}

struct late_job {
	struct work_struct work;
	struct hmm_ref_gpu *gpu;
	const struct hmm_ref_job *job;
};

static void late_work(struct work_struct *work)
{
	struct late_job *late = container_of(work, struct late_job, work);

	do_copies(late->gpu, late->job, run_copy);
}

/* mock: real hardware would signal a fence; its error counts, too */
static int gpu_wait(struct hmm_ref_hw *hw, const struct hmm_ref_job *job)
{
	struct late_job late = { .gpu = to_gpu(hw), .job = job };

	if (hmm_ref_fail(HMM_REF_FAIL_COPY))
		return -EIO;
	if (!READ_ONCE(late_engine)) {
		do_copies(late.gpu, job, run_copy);
		return 0;
	}
	INIT_WORK_ONSTACK(&late.work, late_work);
	queue_work(late.gpu->queue, &late.work);
	flush_work(&late.work);
	destroy_work_on_stack(&late.work);
	return 0;
}

static const struct hmm_ref_hw_ops gpu_ops = {
	.vram_alloc = gpu_vram_alloc,
	.vram_free = gpu_vram_free,
	.move = gpu_move,
	.atomic = gpu_atomic,
	.submit = gpu_submit,
	.wait = gpu_wait,
};

/* ---- life -------------------------------------------------------------- */

/**
 * hmm_ref_gpu_create() - make a GPU
 * @node: NUMA node that it is near to, or NUMA_NO_NODE
 * @coherent_base: physical address of memory that the CPU can access, too; or 0
 *
 * Return: what the core sees of it, or NULL.
 */
struct hmm_ref_hw *hmm_ref_gpu_create(int node, phys_addr_t coherent_base)
{
	struct hmm_ref_gpu *gpu = kzalloc_obj(*gpu, GFP_KERNEL);

	if (!gpu)
		return NULL;
	gpu->hw.ops = &gpu_ops;
	gpu->hw.node = node;
	gpu->coherent_base = coherent_base;
	xa_init(&gpu->vram);
	gpu->queue = alloc_workqueue("hmm_ref_gpu", WQ_UNBOUND | WQ_MEM_RECLAIM, 0);
	if (!gpu->queue) {
		kfree(gpu);
		return NULL;
	}
	return &gpu->hw;
}
EXPORT_SYMBOL_IF_KUNIT(hmm_ref_gpu_create);

/**
 * hmm_ref_gpu_destroy() - free a GPU
 * @hw: what hmm_ref_gpu_create() has returned, without VRAM
 */
void hmm_ref_gpu_destroy(struct hmm_ref_hw *hw)
{
	struct hmm_ref_gpu *gpu = to_gpu(hw);

	destroy_workqueue(gpu->queue);
	xa_destroy(&gpu->vram);
	kfree(gpu);
}
EXPORT_SYMBOL_IF_KUNIT(hmm_ref_gpu_destroy);
