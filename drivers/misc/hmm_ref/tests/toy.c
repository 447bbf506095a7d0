// SPDX-License-Identifier: GPL-2.0-only
/*
 * A driver for another device, which links the core and the engines that
 * hmm_ref exports. It is a complete example.
 *
 * The device is 64 MiB of kernel memory. Programs use it like any other device
 * of hmm_ref, by its number.
 */
#include <linux/device.h>
#include <linux/dma-mapping.h>
#include <linux/module.h>
#include <linux/sizes.h>
#include <linux/vmalloc.h>

#include "../gpu/gpu.h"
#include "../hmm_ref.h"

static unsigned int number = 7;
module_param(number, uint, 0444);
MODULE_PARM_DESC(number, "device number: /dev/hmm_refNUMBER (default 7)");

static struct toy {
	struct hmm_ref_gpu gpu;
	struct device *parent;
	struct hmm_ref_device *dev;
	void *memory;
} toy;

static int toy_vram_alloc(struct hmm_ref_hw *hw, unsigned long dpfn,
			  unsigned long nr)
{
	return 0;
}

static void toy_vram_free(struct hmm_ref_hw *hw, unsigned long dpfn,
			  unsigned long nr)
{
}

static struct iosys_map toy_vram(struct hmm_ref_gpu *gpu, unsigned long dpfn)
{
	void *page = toy.memory + (dpfn << PAGE_SHIFT);

	return (struct iosys_map)IOSYS_MAP_INIT_VADDR(page);
}

static const struct hmm_ref_hw_ops toy_ops = {
	.vram_alloc = toy_vram_alloc,
	.vram_free = toy_vram_free,
	.move = hmm_ref_gpu_move,
	.atomic = hmm_ref_gpu_atomic,
	.flush = hmm_ref_gpu_flush,
	.submit = hmm_ref_gpu_submit,
	.help = hmm_ref_gpu_help,
	.reset = hmm_ref_gpu_reset,
};

static int __init toy_init(void)
{
	struct hmm_ref_device_params params = hmm_ref_device_params;
	int rc;

	toy.memory = vmalloc(SZ_64M);
	if (!toy.memory)
		return -ENOMEM;
	toy.parent = root_device_register("hmm_ref_toy");
	if (IS_ERR(toy.parent)) {
		rc = PTR_ERR(toy.parent);
		goto err_memory;
	}
	toy.gpu.vram = toy_vram;
	rc = dma_coerce_mask_and_coherent(toy.parent, DMA_BIT_MASK(64)) ?:
	     hmm_ref_gpu_init(&toy.gpu, &toy_ops, toy.parent, NUMA_NO_NODE);
	if (rc)
		goto err_parent;
	params.hw = &toy.gpu.hw;
	params.id = number;
	params.index = UINT_MAX;
	params.capacity = SZ_64M;
	toy.dev = hmm_ref_device_add(toy.parent, &params);
	if (!IS_ERR(toy.dev))
		return 0;
	rc = PTR_ERR(toy.dev);
	hmm_ref_gpu_exit(&toy.gpu);
err_parent:
	root_device_unregister(toy.parent);
err_memory:
	vfree(toy.memory);
	return rc;
}

static void __exit toy_exit(void)
{
	hmm_ref_device_remove(toy.dev);
	hmm_ref_gpu_exit(&toy.gpu);
	root_device_unregister(toy.parent);
	vfree(toy.memory);
}

module_init(toy_init);
module_exit(toy_exit);

MODULE_DESCRIPTION("Example of a driver that links hmm_ref");
MODULE_LICENSE("GPL");
MODULE_IMPORT_NS("HMM_REF");
