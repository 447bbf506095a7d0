// SPDX-License-Identifier: GPL-2.0-only
/*
 * PCI devices with a BAR as their memory. QEMU's ivshmem-plain has one, of any
 * size, and little else.
 *
 * The memory is private nevertheless: the struct pages are for physical
 * addresses that nothing decodes, not for those of the BAR, so that only this
 * driver maps it, by ioremap_wc().
 *
 * ivshmem has other uses. So the driver is registered only if the module
 * parameter pci asks for it.
 *
 * If a device disappears without notice, a CPU access to its pages raises
 * SIGBUS.
 *
 * The device has no engine. It uses that of gpu/ with the I/O memory accessors.
 */
#include <linux/dma-mapping.h>
#include <linux/idr.h>
#include <linux/io.h>
#include <linux/module.h>
#include <linux/pci.h>

#include "fail.h"
#include "gpu/gpu.h"
#include "hmm_ref.h"

#define VRAM_BAR	2
#define DEVICE_IVSHMEM	0x1110

static bool pci;
module_param(pci, bool, 0444);
MODULE_PARM_DESC(pci, "use the memory of ivshmem devices (default N)");

/**
 * struct pci_gpu - one device
 * @gpu: the GPU and its engines
 * @pdev: device on the bus
 * @vram: its memory
 * @size: bytes of @vram
 * @index: number of the device among those on PCI
 */
struct pci_gpu {
	struct hmm_ref_gpu gpu;
	struct pci_dev *pdev;
	void __iomem *vram;
	u64 size;
	int index;
};

static DEFINE_IDA(indices);

/* ---- hardware ---------------------------------------------------------- */

static struct pci_gpu *to_pci_gpu(struct hmm_ref_hw *hw)
{
	return container_of(hmm_ref_to_gpu(hw), struct pci_gpu, gpu);
}

static struct iosys_map pci_vram(struct hmm_ref_gpu *gpu, unsigned long dpfn)
{
	void __iomem *vram = to_pci_gpu(&gpu->hw)->vram + (dpfn << PAGE_SHIFT);

	return (struct iosys_map)IOSYS_MAP_INIT_VADDR_IOMEM(vram);
}

/* All memory exists from the start. */
static int pci_vram_alloc(struct hmm_ref_hw *hw, unsigned long dpfn,
			  unsigned long nr)
{
	struct pci_gpu *gpu = to_pci_gpu(hw);

	if (hmm_ref_fail(HMM_REF_FAIL_VRAM) ||
	    dpfn + nr > gpu->size >> PAGE_SHIFT)
		return -ENOMEM;
	return 0;
}

static void pci_vram_free(struct hmm_ref_hw *hw, unsigned long dpfn,
			  unsigned long nr)
{
}

static bool pci_is_present(struct hmm_ref_gpu *gpu)
{
	return pci_device_is_present(to_pci_gpu(&gpu->hw)->pdev);
}

static const struct hmm_ref_hw_ops pci_ops = {
	.vram_alloc = pci_vram_alloc,
	.vram_free = pci_vram_free,
	.move = hmm_ref_gpu_move,
	.atomic = hmm_ref_gpu_atomic,
	.flush = hmm_ref_gpu_flush,
	.submit = hmm_ref_gpu_submit,
	.help = hmm_ref_gpu_help,
	.reset = hmm_ref_gpu_reset,
};

/* ---- driver ------------------------------------------------------------ */

static int map_vram(struct pci_dev *pdev, struct pci_gpu *gpu)
{
	int rc = pcim_enable_device(pdev);

	if (rc)
		return rc;
	rc = dma_set_mask_and_coherent(&pdev->dev, DMA_BIT_MASK(64));
	if (rc)
		return rc;
	pci_set_master(pdev);
	rc = pcim_request_region(pdev, VRAM_BAR, pci_name(pdev));
	if (rc)
		return rc;
	gpu->size = ALIGN_DOWN(pci_resource_len(pdev, VRAM_BAR), PMD_SIZE);
	if (!gpu->size)
		return -ENODEV;
	gpu->vram = devm_ioremap_wc(&pdev->dev,
				    pci_resource_start(pdev, VRAM_BAR),
				    gpu->size);
	return gpu->vram ? 0 : -ENOMEM;
}

static int hmm_ref_pci_probe(struct pci_dev *pdev,
			     const struct pci_device_id *id)
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
	gpu->gpu.vram = pci_vram;
	gpu->gpu.is_present = pci_is_present;
	rc = hmm_ref_gpu_init(&gpu->gpu, &pci_ops, &pdev->dev,
			      dev_to_node(&pdev->dev));
	if (rc)
		goto err_index;
	params.hw = &gpu->gpu.hw;
	params.capacity = gpu->size;
	hmm_ref_sim_number_others(&params, gpu->index);
	dev = hmm_ref_device_add(&pdev->dev, &params);
	if (!IS_ERR(dev))
		return 0;
	rc = PTR_ERR(dev);
	hmm_ref_gpu_exit(&gpu->gpu);
err_index:
	ida_free(&indices, gpu->index);
	return rc;
}

static void hmm_ref_pci_remove(struct pci_dev *pdev)
{
	struct hmm_ref_device *dev = pci_get_drvdata(pdev);
	struct pci_gpu *gpu = to_pci_gpu(dev->dm.hw);

	hmm_ref_device_remove(dev);
	hmm_ref_gpu_exit(&gpu->gpu);
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
 * hmm_ref_pci_init() - register the driver for PCI devices, if enabled
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
