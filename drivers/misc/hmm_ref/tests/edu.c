// SPDX-License-Identifier: GPL-2.0-only
/*
 * A device with real DMA: QEMU's edu, which reads and writes system memory
 * behind the IOMMU of the machine, with 28-bit addresses.
 *
 * The only memory of the device is a buffer of one page, which holds data in
 * transit. Kernel memory that stays mapped for the device serves as its VRAM.
 * Copying half a page takes one transfer into the buffer and one out of it, of
 * 100 ms each, so a test should move only a few pages.
 *
 * The device does not notice when the IOMMU blocks a transfer. Two files in
 * sysfs let tests check for this:
 *
 *   last_transfer  the last page of system memory copied: "in" or "out", the
 *                  DMA address, and the physical address to which the IOMMU
 *                  translated it
 *   repeat         write to it to repeat half of that transfer, with the DMA
 *                  address that the core has since unmapped
 *
 * edu cannot load and store; the engines of gpu/ do that.
 */
#include <linux/dma-mapping.h>
#include <linux/io-64-nonatomic-lo-hi.h>
#include <linux/iommu.h>
#include <linux/module.h>
#include <linux/pci.h>
#include <linux/slab.h>

#include "../gpu/gpu.h"
#include "../hmm_ref.h"

#define VENDOR_QEMU	0x1234
#define DEVICE_EDU	0x11e8

#define EDU_IRQ_STATUS	0x24
#define EDU_IRQ_ACK	0x64
#define EDU_SOURCE	0x80
#define EDU_TARGET	0x88
#define EDU_COUNT	0x90
#define EDU_COMMAND	0x98
#define EDU_RUN		BIT(0)
#define EDU_TO_MEMORY	BIT(1)
#define EDU_INTERRUPT	BIT(2)

/* DMA address of the buffer. A transfer that fills it may abort QEMU. */
#define EDU_BUFFER	0x40000
#define EDU_LENGTH	(PAGE_SIZE / 2)

#define EDU_DMA_BITS	28

static unsigned int number = 7;
module_param(number, uint, 0444);
MODULE_PARM_DESC(number, "device number: /dev/hmm_refNUMBER (default 7)");

/**
 * struct transfer - a copy of one page of system memory
 * @op: direction
 * @addr: DMA address
 * @phys: physical address to which @addr was mapped
 */
struct transfer {
	enum hmm_ref_copy_op op;
	dma_addr_t addr;
	phys_addr_t phys;
};

/**
 * struct edu - one device
 * @gpu: base object, for the core and for loads and stores
 * @domain: IOMMU domain
 * @regs: registers
 * @vram: memory of the device, PMD_SIZE bytes
 * @vram_addr: DMA address of @vram
 * @workqueue: ordered, because the device does one thing at a time
 * @engine: work that runs the batches on @queue
 * @repeat: work that repeats @last
 * @lock: covers @queue
 * @queue: batches
 * @idle: woken when a transfer may have ended
 * @resets: number of resets
 * @last: last transfer, used by @workqueue only
 */
struct edu {
	struct hmm_ref_gpu gpu;
	struct iommu_domain *domain;
	void __iomem *regs;
	void *vram;
	dma_addr_t vram_addr;
	struct workqueue_struct *workqueue;
	struct work_struct engine;
	struct work_struct repeat;
	spinlock_t lock;	/* queue */
	struct list_head queue;
	wait_queue_head_t idle;
	unsigned int resets;
	struct transfer last;
};

/**
 * struct batch - copies that are queued
 * @fence: signals when they are done; its release frees the batch
 * @lock: lock of the fence
 * @node: entry in edu::queue
 * @ring: descriptors, which return to the core when the fence signals
 * @nr: number of descriptors
 */
struct batch {
	struct dma_fence fence;
	spinlock_t lock;	/* fence */
	struct list_head node;
	struct hmm_ref_copy *ring;
	unsigned int nr;
};

static struct edu *to_edu(struct hmm_ref_hw *hw)
{
	return container_of(hmm_ref_to_gpu(hw), struct edu, gpu);
}

/* ---- VRAM -------------------------------------------------------------- */

static int edu_vram_alloc(struct hmm_ref_hw *hw, unsigned long dpfn,
			  unsigned long nr)
{
	return dpfn + nr > PMD_SIZE >> PAGE_SHIFT ? -ENOMEM : 0;
}

static void edu_vram_free(struct hmm_ref_hw *hw, unsigned long dpfn,
			  unsigned long nr)
{
}

static void *vram_page(struct edu *edu, unsigned long dpfn)
{
	return edu->vram + (dpfn << PAGE_SHIFT);
}

static struct iosys_map edu_vram(struct hmm_ref_gpu *gpu, unsigned long dpfn)
{
	void *page = vram_page(to_edu(&gpu->hw), dpfn);

	return (struct iosys_map)IOSYS_MAP_INIT_VADDR(page);
}

/* ---- transfers --------------------------------------------------------- */

/* Registers of a removed device read as all ones. */
static bool is_running(struct edu *edu)
{
	u32 command = readl(edu->regs + EDU_COMMAND);

	return command & EDU_RUN && !PCI_POSSIBLE_ERROR(command);
}

static irqreturn_t edu_interrupt(int irq, void *data)
{
	struct edu *edu = data;
	u32 status = readl(edu->regs + EDU_IRQ_STATUS);

	if (!status)
		return IRQ_NONE;
	writel(status, edu->regs + EDU_IRQ_ACK);
	wake_up_all(&edu->idle);
	return IRQ_HANDLED;
}

/*
 * A late interrupt is harmless: the device tells whether it runs. A transfer
 * cannot be aborted, so a reset only ends the wait for a lost interrupt.
 *
 * Return: 0, -ETIMEDOUT after a reset, or -ENODEV.
 */
static int transfer(struct edu *edu, u64 source, u64 target, u32 direction)
{
	unsigned int resets = READ_ONCE(edu->resets);

	writeq(source, edu->regs + EDU_SOURCE);
	writeq(target, edu->regs + EDU_TARGET);
	writeq(EDU_LENGTH, edu->regs + EDU_COUNT);
	writel(EDU_RUN | EDU_INTERRUPT | direction, edu->regs + EDU_COMMAND);
	wait_event(edu->idle, !is_running(edu));
	if (PCI_POSSIBLE_ERROR(readl(edu->regs + EDU_COMMAND)))
		return -ENODEV;
	return READ_ONCE(edu->resets) == resets ? 0 : -ETIMEDOUT;
}

static int from_memory(struct edu *edu, dma_addr_t addr)
{
	return transfer(edu, addr, EDU_BUFFER, 0);
}

static int to_memory(struct edu *edu, dma_addr_t addr)
{
	return transfer(edu, EDU_BUFFER, addr, EDU_TO_MEMORY);
}

static int transfer_page(struct edu *edu, enum hmm_ref_copy_op op,
			 unsigned long dpfn, dma_addr_t addr)
{
	dma_addr_t vram = edu->vram_addr + (dpfn << PAGE_SHIFT);
	dma_addr_t source = op == HMM_REF_COPY_IN ? addr : vram;
	dma_addr_t target = op == HMM_REF_COPY_IN ? vram : addr;
	unsigned int offset;
	int rc = 0;

	edu->last.op = op;
	edu->last.addr = addr;
	edu->last.phys = iommu_iova_to_phys(edu->domain, addr);
	for (offset = 0; !rc && offset < PAGE_SIZE; offset += EDU_LENGTH)
		rc = from_memory(edu, source + offset) ?:
		     to_memory(edu, target + offset);
	return rc;
}

/* ---- the engine -------------------------------------------------------- */

static const char *driver_name(struct dma_fence *fence)
{
	return "hmm_ref_edu";
}

static const char *timeline_name(struct dma_fence *fence)
{
	return "edu";
}

static const struct dma_fence_ops batch_fence_ops = {
	.get_driver_name = driver_name,
	.get_timeline_name = timeline_name,
};

static int run_copy(struct edu *edu, const struct hmm_ref_copy *copy)
{
	unsigned int i;
	int rc = 0;

	/* edu does not support this. */
	if (copy->op == HMM_REF_COPY_ZERO)
		memset(vram_page(edu, copy->dpfn), 0, copy->nr * PAGE_SIZE);
	else
		for (i = 0; !rc && i < copy->nr; i++)
			rc = transfer_page(edu, copy->op, copy->dpfn + i,
					   copy->addr + i * PAGE_SIZE);
	return rc;
}

/* After a reset the remaining copies are not started. */
static void run_batch(struct edu *edu, struct batch *batch)
{
	unsigned int i;
	int rc = 0;

	for (i = 0; i < batch->nr; i++) {
		rc = rc ?: run_copy(edu, &batch->ring[i]);
		batch->ring[i].rc = rc;
	}
	if (rc)
		dma_fence_set_error(&batch->fence, rc);
	dma_fence_signal(&batch->fence);
}

static struct batch *take(struct edu *edu)
{
	struct batch *batch;

	spin_lock(&edu->lock);
	batch = list_first_entry_or_null(&edu->queue, struct batch, node);
	if (batch)
		list_del(&batch->node);
	spin_unlock(&edu->lock);
	return batch;
}

static void run_engine(struct work_struct *work)
{
	struct edu *edu = container_of(work, struct edu, engine);
	bool cookie = dma_fence_begin_signalling();
	struct batch *batch;

	while ((batch = take(edu))) {
		run_batch(edu, batch);
		dma_fence_put(&batch->fence);
	}
	dma_fence_end_signalling(cookie);
}

static struct dma_fence *edu_submit(struct hmm_ref_hw *hw,
				    const struct hmm_ref_job *job)
{
	struct batch *batch = kzalloc_obj(*batch, GFP_NOIO | __GFP_NOWARN);
	struct edu *edu = to_edu(hw);

	if (!batch)
		return ERR_PTR(-ENOMEM);
	spin_lock_init(&batch->lock);
	dma_fence_init(&batch->fence, &batch_fence_ops, &batch->lock,
		       edu->gpu.context, atomic64_inc_return(&edu->gpu.seqno));
	batch->ring = job->ring;
	batch->nr = job->nr;
	dma_fence_get(&batch->fence);
	spin_lock(&edu->lock);
	list_add_tail(&batch->node, &edu->queue);
	spin_unlock(&edu->lock);
	queue_work(edu->workqueue, &edu->engine);
	return &batch->fence;
}

static void edu_reset(struct hmm_ref_hw *hw)
{
	struct edu *edu = to_edu(hw);

	WRITE_ONCE(edu->resets, edu->resets + 1);
	wake_up_all(&edu->idle);
}

static const struct hmm_ref_hw_ops edu_ops = {
	.vram_alloc = edu_vram_alloc,
	.vram_free = edu_vram_free,
	.move = hmm_ref_gpu_move,
	.atomic = hmm_ref_gpu_atomic,
	.flush = hmm_ref_gpu_flush,
	.submit = edu_submit,
	.reset = edu_reset,
};

/* ---- sysfs ------------------------------------------------------------- */

static struct edu *device_to_edu(struct device *dev)
{
	struct hmm_ref_device *device = dev_get_drvdata(dev);

	return to_edu(device->dm.hw);
}

static void run_repeat(struct work_struct *work)
{
	struct edu *edu = container_of(work, struct edu, repeat);

	if (edu->last.op == HMM_REF_COPY_OUT)
		to_memory(edu, edu->last.addr);
	else
		from_memory(edu, edu->last.addr);
}

static ssize_t last_transfer_show(struct device *dev,
				  struct device_attribute *attr, char *buf)
{
	struct edu *edu = device_to_edu(dev);

	flush_workqueue(edu->workqueue);
	return sysfs_emit(buf, "%s %pad %pap\n",
			  edu->last.op == HMM_REF_COPY_OUT ? "out" : "in",
			  &edu->last.addr, &edu->last.phys);
}
static DEVICE_ATTR_ADMIN_RO(last_transfer);

static ssize_t repeat_store(struct device *dev, struct device_attribute *attr,
			    const char *buf, size_t count)
{
	struct edu *edu = device_to_edu(dev);

	queue_work(edu->workqueue, &edu->repeat);
	flush_work(&edu->repeat);
	return count;
}
static DEVICE_ATTR_WO(repeat);

static struct attribute *edu_attrs[] = {
	&dev_attr_last_transfer.attr,
	&dev_attr_repeat.attr,
	NULL
};
ATTRIBUTE_GROUPS(edu);

/* ---- driver ------------------------------------------------------------ */

/*
 * Without an IOMMU the kernel would bounce memory above 256 MiB, to buffers
 * that are below 4 GiB and may themselves be above 256 MiB.
 */
static int set_up_dma(struct pci_dev *pdev, struct edu *edu)
{
	struct device *dev = &pdev->dev;
	int rc;

	edu->domain = iommu_get_domain_for_dev(dev);
	if (!edu->domain || !(edu->domain->type & __IOMMU_DOMAIN_PAGING)) {
		dev_err(dev, "no IOMMU that translates\n");
		return -ENODEV;
	}
	rc = dma_set_mask_and_coherent(dev, DMA_BIT_MASK(EDU_DMA_BITS));
	if (rc)
		return rc;
	pci_set_master(pdev);
	edu->vram = dmam_alloc_coherent(dev, PMD_SIZE, &edu->vram_addr,
					GFP_KERNEL);
	return edu->vram ? 0 : -ENOMEM;
}

static int set_up_interrupt(struct pci_dev *pdev, struct edu *edu)
{
	int rc = pci_alloc_irq_vectors(pdev, 1, 1, PCI_IRQ_ALL_TYPES);

	if (rc < 0)
		return rc;
	rc = request_irq(pci_irq_vector(pdev, 0), edu_interrupt, IRQF_SHARED,
			 "hmm_ref_edu", edu);
	if (rc)
		pci_free_irq_vectors(pdev);
	return rc;
}

static void end_interrupt(struct pci_dev *pdev, struct edu *edu)
{
	free_irq(pci_irq_vector(pdev, 0), edu);
	pci_free_irq_vectors(pdev);
}

static int edu_start(struct pci_dev *pdev, struct edu *edu)
{
	int rc;

	spin_lock_init(&edu->lock);
	INIT_LIST_HEAD(&edu->queue);
	init_waitqueue_head(&edu->idle);
	INIT_WORK(&edu->engine, run_engine);
	INIT_WORK(&edu->repeat, run_repeat);
	edu->gpu.vram = edu_vram;
	rc = hmm_ref_gpu_init(&edu->gpu, &edu_ops, &pdev->dev,
			      dev_to_node(&pdev->dev));
	if (rc)
		return rc;
	rc = -ENOMEM;
	edu->workqueue = alloc_ordered_workqueue("hmm_ref_edu", WQ_MEM_RECLAIM);
	if (!edu->workqueue)
		goto err_gpu;
	rc = set_up_interrupt(pdev, edu);
	if (!rc)
		return 0;
	destroy_workqueue(edu->workqueue);
err_gpu:
	hmm_ref_gpu_exit(&edu->gpu);
	return rc;
}

static void edu_stop(struct pci_dev *pdev, struct edu *edu)
{
	end_interrupt(pdev, edu);
	destroy_workqueue(edu->workqueue);
	hmm_ref_gpu_exit(&edu->gpu);
}

static int edu_probe(struct pci_dev *pdev, const struct pci_device_id *id)
{
	struct hmm_ref_device_params params = hmm_ref_device_params;
	struct hmm_ref_device *dev;
	struct edu *edu;
	int rc;

	edu = devm_kzalloc(&pdev->dev, sizeof(*edu), GFP_KERNEL);
	if (!edu)
		return -ENOMEM;
	rc = pcim_enable_device(pdev);
	if (rc)
		return rc;
	edu->regs = pcim_iomap_region(pdev, 0, pci_name(pdev));
	if (IS_ERR(edu->regs))
		return PTR_ERR(edu->regs);
	rc = set_up_dma(pdev, edu) ?: edu_start(pdev, edu);
	if (rc)
		return rc;
	params.hw = &edu->gpu.hw;
	params.id = number;
	params.index = UINT_MAX;
	params.capacity = PMD_SIZE;
	params.chunk_size = PMD_SIZE;
	dev = hmm_ref_device_add(&pdev->dev, &params);
	if (IS_ERR(dev))
		edu_stop(pdev, edu);
	return PTR_ERR_OR_ZERO(dev);
}

static void edu_remove(struct pci_dev *pdev)
{
	struct edu *edu = device_to_edu(&pdev->dev);

	hmm_ref_device_remove(pci_get_drvdata(pdev));
	edu_stop(pdev, edu);
}

/* No MODULE_DEVICE_TABLE(): only the test loads this module. */
static const struct pci_device_id edu_ids[] = {
	{ PCI_DEVICE(VENDOR_QEMU, DEVICE_EDU) },
	{}
};

static struct pci_driver edu_driver = {
	.name = "hmm_ref_edu",
	.id_table = edu_ids,
	.probe = edu_probe,
	.remove = edu_remove,
	.dev_groups = edu_groups,
	.driver.pm = pm_sleep_ptr(&hmm_ref_pm_ops),
};
module_pci_driver(edu_driver);

MODULE_DESCRIPTION("hmm_ref on QEMU's edu, a device with DMA");
MODULE_LICENSE("GPL");
MODULE_IMPORT_NS("HMM_REF");
