// SPDX-License-Identifier: GPL-2.0-only
/*
 * A driver for another device, which links what hmm_ref exports: all that it takes.
 *
 * The device is 64 MiB of kernel memory. It can be used as any other of hmm_ref, by its number.
 */
#include <linux/device.h>
#include <linux/highmem.h>
#include <linux/iosys-map.h>
#include <linux/module.h>
#include <linux/sizes.h>
#include <linux/vmalloc.h>

#include "../gpu/gpu.h"
#include "../hmm_ref.h"

static unsigned int number = 7;
module_param(number, uint, 0444);
MODULE_PARM_DESC(number, "of the device: /dev/hmm_refNUMBER (default 7)");

static struct toy {
	struct hmm_ref_hw hw;
	struct device *parent;
	struct hmm_ref_device *dev;
	void *memory;
} toy;

static int toy_vram_alloc(struct hmm_ref_hw *hw, unsigned long dpfn, unsigned long nr)
{
	return 0;
}

static void toy_vram_free(struct hmm_ref_hw *hw, unsigned long dpfn, unsigned long nr)
{
}

static struct iosys_map vram_map(const struct hmm_ref_place *place)
{
	struct iosys_map map = {};

	if (place->vram)
		iosys_map_set_vaddr(&map, toy.memory + (place->number << PAGE_SHIFT));
	return map;
}

static unsigned int toy_move(struct hmm_ref_hw *hw, const struct hmm_ref_place *place,
			     const struct hmm_ref_buffer *buf, unsigned int len, bool write)
{
	struct iosys_map vram = vram_map(place);

	return hmm_ref_lsu_move(&vram, place, buf, len, write);
}

static void toy_atomic(struct hmm_ref_hw *hw, const struct hmm_ref_place *place,
		       struct hmm_ref_word *word)
{
	struct iosys_map vram = vram_map(place);

	hmm_ref_lsu_atomic(&vram, place, word);
}

static int toy_submit(struct hmm_ref_hw *hw, const struct hmm_ref_job *job)
{
	return 0;
}

static void toy_copy(const struct hmm_ref_copy *copy, unsigned int i)
{
	void *mem = toy.memory + ((copy->dpfn + i) << PAGE_SHIFT);

	if (copy->op == HMM_REF_COPY_ZERO)
		clear_page(mem);
	else if (copy->op == HMM_REF_COPY_IN)
		memcpy_from_page(mem, copy->sys_page + i, 0, PAGE_SIZE);
	else
		memcpy_to_page(copy->sys_page + i, 0, mem, PAGE_SIZE);
}

static int toy_wait(struct hmm_ref_hw *hw, const struct hmm_ref_job *job)
{
	unsigned int c, i;

	for (c = 0; c < job->nr; c++)
		for (i = 0; i < job->ring[c].nr; i++)
			toy_copy(&job->ring[c], i);
	return 0;
}

static const struct hmm_ref_hw_ops toy_ops = {
	.vram_alloc = toy_vram_alloc,
	.vram_free = toy_vram_free,
	.move = toy_move,
	.atomic = toy_atomic,
	.submit = toy_submit,
	.wait = toy_wait,
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
	toy.hw = (struct hmm_ref_hw){ .ops = &toy_ops, .node = NUMA_NO_NODE };
	params.hw = &toy.hw;
	params.id = number;
	params.index = UINT_MAX;
	params.capacity = SZ_64M;
	toy.dev = hmm_ref_device_add(toy.parent, &params);
	if (!IS_ERR(toy.dev))
		return 0;
	rc = PTR_ERR(toy.dev);
	root_device_unregister(toy.parent);
err_memory:
	vfree(toy.memory);
	return rc;
}

static void __exit toy_exit(void)
{
	hmm_ref_device_remove(toy.dev);
	root_device_unregister(toy.parent);
	vfree(toy.memory);
}

module_init(toy_init);
module_exit(toy_exit);

MODULE_DESCRIPTION("Example of a driver that links hmm_ref");
MODULE_LICENSE("GPL");
MODULE_IMPORT_NS("HMM_REF");
