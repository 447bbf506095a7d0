// SPDX-License-Identifier: GPL-2.0-only
/*
 * A device on PCI: its memory is a BAR. QEMU's ivshmem-plain has one, of any size, and little else.
 *
 * The memory is private all the same: the struct pages are for addresses that nothing decodes, not
 * for those of the BAR, so that no CPU maps it but by this driver, with ioremap_wc().
 *
 * ivshmem is for others, too. So nothing binds to it unless the module's parameter pci asks for it.
 *
 * A device that disappears without notice takes its pages along: processes that touch them are
 * killed, and removal waits until none is left.
 *
 * The device has no engine. The CPU copies, at the wait, by the accessors of I/O memory.
 */
#include <linux/highmem.h>
#include <linux/idr.h>
#include <linux/io.h>
#include <linux/iosys-map.h>
#include <linux/module.h>
#include <linux/pci.h>

#include "fail.h"
#include "gpu/gpu.h"
#include "hmm_ref.h"
#include "hw.h"

#define VRAM_BAR	2
#define DEVICE_IVSHMEM	0x1110

static bool pci;
module_param(pci, bool, 0444);
MODULE_PARM_DESC(pci, "use the memory of ivshmem devices (default N)");

/**
 * struct pci_gpu - one device
 * @hw: what the core sees of it
 * @pdev: on the bus
 * @vram: its memory
 * @size: bytes of that
 * @index: number of the device among those on PCI
 */
struct pci_gpu {
	struct hmm_ref_hw hw;
	struct pci_dev *pdev;
	void __iomem *vram;
	u64 size;
	int index;
};

static DEFINE_IDA(indices);

/* ---- hardware ---------------------------------------------------------- */

static void __iomem *vram_addr(struct hmm_ref_hw *hw, unsigned long dpfn)
{
	return container_of(hw, struct pci_gpu, hw)->vram + (dpfn << PAGE_SHIFT);
}

/* It is all there from the start. */
static int pci_vram_alloc(struct hmm_ref_hw *hw, unsigned long dpfn, unsigned long nr)
{
	struct pci_gpu *gpu = container_of(hw, struct pci_gpu, hw);

	if (hmm_ref_fail(HMM_REF_FAIL_VRAM) || dpfn + nr > gpu->size >> PAGE_SHIFT)
		return -ENOMEM;
	return 0;
}

static void pci_vram_free(struct hmm_ref_hw *hw, unsigned long dpfn, unsigned long nr)
{
}

static struct iosys_map vram_map(struct hmm_ref_hw *hw, const struct hmm_ref_place *place)
{
	struct iosys_map map = {};

	if (place->vram)
		iosys_map_set_vaddr_iomem(&map, vram_addr(hw, place->number));
	return map;
}

static unsigned int pci_move(struct hmm_ref_hw *hw, const struct hmm_ref_place *place,
			     const struct hmm_ref_buffer *buf, unsigned int len, bool write)
{
	struct iosys_map vram = vram_map(hw, place);

	return hmm_ref_lsu_move(&vram, place, buf, len, write);
}

static void pci_atomic(struct hmm_ref_hw *hw, const struct hmm_ref_place *place,
		       struct hmm_ref_word *word)
{
	struct iosys_map vram = vram_map(hw, place);

	hmm_ref_lsu_atomic(&vram, place, word);
}

static int pci_submit(struct hmm_ref_hw *hw, const struct hmm_ref_job *job)
{
	return 0;
}

static void copy_page_io(enum hmm_ref_copy_op op, void __iomem *mem, struct page *sys_page)
{
	void *sys = kmap_local_page(sys_page);

	if (op == HMM_REF_COPY_OUT)
		memcpy_fromio(sys, mem, PAGE_SIZE);
	else
		memcpy_toio(mem, sys, PAGE_SIZE);
	kunmap_local(sys);
}

static void run_copy(struct hmm_ref_hw *hw, const struct hmm_ref_copy *copy)
{
	void __iomem *mem = vram_addr(hw, copy->dpfn);
	unsigned int i;

	if (copy->op == HMM_REF_COPY_ZERO) {
		memset_io(mem, 0, copy->nr * PAGE_SIZE);
		return;
	}
	for (i = 0; i < copy->nr; i++)
		copy_page_io(copy->op, mem + i * PAGE_SIZE, copy->sys_page + i);
}

static int pci_wait(struct hmm_ref_hw *hw, const struct hmm_ref_job *job)
{
	struct pci_gpu *gpu = container_of(hw, struct pci_gpu, hw);
	unsigned int i;

	if (hmm_ref_fail(HMM_REF_FAIL_COPY))
		return -EIO;
	for (i = 0; i < job->nr; i++)
		run_copy(hw, &job->ring[i]);
	/* What was written combined has to be there before others are told. */
	wmb();
	/* What a device that has disappeared answers is no data. */
	return pci_device_is_present(gpu->pdev) ? 0 : -ENODEV;
}

static const struct hmm_ref_hw_ops pci_ops = {
	.vram_alloc = pci_vram_alloc,
	.vram_free = pci_vram_free,
	.move = pci_move,
	.atomic = pci_atomic,
	.submit = pci_submit,
	.wait = pci_wait,
};

/* ---- driver ------------------------------------------------------------ */

static int map_vram(struct pci_dev *pdev, struct pci_gpu *gpu)
{
	int rc = pcim_enable_device(pdev);

	if (rc)
		return rc;
	rc = pcim_request_region(pdev, VRAM_BAR, pci_name(pdev));
	if (rc)
		return rc;
	gpu->size = ALIGN_DOWN(pci_resource_len(pdev, VRAM_BAR), PMD_SIZE);
	if (!gpu->size)
		return -ENODEV;
	gpu->vram = devm_ioremap_wc(&pdev->dev, pci_resource_start(pdev, VRAM_BAR), gpu->size);
	return gpu->vram ? 0 : -ENOMEM;
}

static int hmm_ref_pci_probe(struct pci_dev *pdev, const struct pci_device_id *id)
{
	struct hmm_ref_device_params params = hmm_ref_device_params;
	struct hmm_ref_device *dev;
	struct pci_gpu *gpu;
	int rc;

	gpu = devm_kzalloc(&pdev->dev, sizeof(*gpu), GFP_KERNEL);
	if (!gpu)
		return -ENOMEM;
	rc = map_vram(pdev, gpu);
	if (rc)
		return rc;
	gpu->index = ida_alloc(&indices, GFP_KERNEL);
	if (gpu->index < 0)
		return gpu->index;
	gpu->pdev = pdev;
	gpu->hw.ops = &pci_ops;
	gpu->hw.node = dev_to_node(&pdev->dev);
	params.hw = &gpu->hw;
	params.capacity = gpu->size;
	hmm_ref_sim_number_others(&params, gpu->index);
	dev = hmm_ref_device_add(&pdev->dev, &params);
	if (IS_ERR(dev))
		ida_free(&indices, gpu->index);
	return PTR_ERR_OR_ZERO(dev);
}

static void hmm_ref_pci_remove(struct pci_dev *pdev)
{
	struct hmm_ref_device *dev = pci_get_drvdata(pdev);
	struct pci_gpu *gpu = container_of(dev->dm.hw, struct pci_gpu, hw);

	hmm_ref_device_remove(dev);
	ida_free(&indices, gpu->index);
}

static const struct pci_device_id pci_ids[] = {
	{ PCI_DEVICE(PCI_VENDOR_ID_REDHAT_QUMRANET, DEVICE_IVSHMEM) },
	{}
};

static struct pci_driver hmm_ref_pci_driver = {
	.name = "hmm_ref",
	.id_table = pci_ids,
	.probe = hmm_ref_pci_probe,
	.remove = hmm_ref_pci_remove,
	.driver.pm = pm_sleep_ptr(&hmm_ref_pm_ops),
};

/**
 * hmm_ref_pci_init() - look for devices on PCI, if that is asked for
 *
 * Return: 0 or a negative errno.
 */
int __init hmm_ref_pci_init(void)
{
	return pci ? pci_register_driver(&hmm_ref_pci_driver) : 0;
}

/**
 * hmm_ref_pci_exit() - undo hmm_ref_pci_init()
 */
void hmm_ref_pci_exit(void)
{
	if (pci)
		pci_unregister_driver(&hmm_ref_pci_driver);
}
