// SPDX-License-Identifier: GPL-2.0-only
/*
 * VRAM of a fully simulated GPU.
 *
 * It consists of pieces of PMD_SIZE: kernel memory, or parts of a region that
 * the CPU can access too. A piece stays as long as any of its pages can be
 * used, so an access can look it up without a lock.
 *
 * Handout does not clear pages. A page keeps the data of its last owner until
 * the caller clears it or copies to it.
 */
#include <linux/gfp.h>
#include <linux/io.h>
#include <linux/module.h>
#include <linux/slab.h>
#include <linux/vmalloc.h>
#include <linux/xarray.h>

#include "gpu.h"
#include "../fail.h"

/* Opportunistic: do not reclaim. */
#define GFP_LARGE_VRAM	((GFP_KERNEL | __GFP_NOWARN) & ~__GFP_DIRECT_RECLAIM)

/**
 * struct sim_gpu - one simulated GPU
 * @gpu: the GPU and its engines
 * @pieces: kernel addresses of the pieces, by dpfn >> HMM_REF_BLOCK_ORDER
 * @coherent_base: physical address of memory that the CPU can access too; 0 for
 *	a GPU with private memory
 */
struct sim_gpu {
	struct hmm_ref_gpu gpu;
	struct xarray pieces;
	phys_addr_t coherent_base;
};

static struct sim_gpu *to_sim(struct hmm_ref_hw *hw)
{
	return container_of(hmm_ref_to_gpu(hw), struct sim_gpu, gpu);
}

/* ---- VRAM -------------------------------------------------------------- */

/* mock: real hardware has memory on board. Large pages are cheaper. */
static void *alloc_piece(struct sim_gpu *gpu, unsigned long index)
{
	const gfp_t gfp = GFP_KERNEL | __GFP_RETRY_MAYFAIL | __GFP_NOWARN;
	struct page *page = NULL;

	if (hmm_ref_fail(HMM_REF_FAIL_VRAM))
		return NULL;
	if (gpu->coherent_base)
		return memremap(gpu->coherent_base + index * PMD_SIZE, PMD_SIZE,
				MEMREMAP_WB);
	if (HMM_REF_BLOCK_ORDER <= MAX_PAGE_ORDER)
		page = alloc_pages_node(gpu->gpu.hw.node, GFP_LARGE_VRAM,
					HMM_REF_BLOCK_ORDER);
	return page ? page_address(page) :
		      vmalloc_huge_node(PMD_SIZE, gfp, gpu->gpu.hw.node);
}

static void free_piece(struct sim_gpu *gpu, void *piece)
{
	if (gpu->coherent_base)
		memunmap(piece);
	else if (is_vmalloc_addr(piece))
		vfree(piece);
	else
		free_pages((unsigned long)piece, HMM_REF_BLOCK_ORDER);
}

static void free_pieces(struct sim_gpu *gpu, unsigned long first,
			unsigned long end)
{
	for (; first < end; first++)
		free_piece(gpu, xa_erase(&gpu->pieces, first));
}

static int sim_vram_alloc(struct hmm_ref_hw *hw, unsigned long dpfn,
			  unsigned long nr)
{
	unsigned long first = dpfn >> HMM_REF_BLOCK_ORDER;
	unsigned long end = (dpfn + nr) >> HMM_REF_BLOCK_ORDER;
	struct sim_gpu *gpu = to_sim(hw);
	unsigned long index;

	for (index = first; index < end; index++) {
		void *piece = alloc_piece(gpu, index);

		if (!piece)
			break;
		if (xa_insert(&gpu->pieces, index, piece, GFP_KERNEL)) {
			free_piece(gpu, piece);
			break;
		}
	}
	if (index == end)
		return 0;
	free_pieces(gpu, first, index);
	return -ENOMEM;
}

static void sim_vram_free(struct hmm_ref_hw *hw, unsigned long dpfn,
			  unsigned long nr)
{
	free_pieces(to_sim(hw), dpfn >> HMM_REF_BLOCK_ORDER,
		    (dpfn + nr) >> HMM_REF_BLOCK_ORDER);
}

static struct iosys_map sim_vram(struct hmm_ref_gpu *gpu, unsigned long dpfn)
{
	unsigned long offset = (dpfn & (HMM_REF_BLOCK_PAGES - 1)) << PAGE_SHIFT;
	struct sim_gpu *sim = to_sim(&gpu->hw);
	void *piece = xa_load(&sim->pieces, dpfn >> HMM_REF_BLOCK_ORDER);

	return (struct iosys_map)IOSYS_MAP_INIT_VADDR(piece + offset);
}

/* mock: real hardware reaches some of its peers by a link or the bus. */
static bool sim_reaches(struct hmm_ref_hw *hw, struct hmm_ref_hw *peer)
{
	return peer->ops == hw->ops;
}

static const struct hmm_ref_hw_ops sim_ops = {
	.vram_alloc = sim_vram_alloc,
	.vram_free = sim_vram_free,
	.move = hmm_ref_gpu_move,
	.atomic = hmm_ref_gpu_atomic,
	.flush = hmm_ref_gpu_flush,
	.reaches = sim_reaches,
	.submit = hmm_ref_gpu_submit,
	.help = hmm_ref_gpu_help,
	.reset = hmm_ref_gpu_reset,
};

/* ---- setup and teardown ------------------------------------------------ */

/**
 * hmm_ref_gpu_create() - create a simulated GPU
 * @dev: device for DMA mappings; NULL for a GPU that copies nothing
 * @node: nearest NUMA node, or NUMA_NO_NODE
 * @coherent_base: physical address of memory that the CPU can access too, or 0
 *
 * Return: the core's view of it, or NULL.
 */
struct hmm_ref_hw *hmm_ref_gpu_create(struct device *dev, int node,
				      phys_addr_t coherent_base)
{
	struct sim_gpu *gpu = kzalloc_obj(*gpu, GFP_KERNEL);

	if (!gpu)
		return NULL;
	gpu->gpu.vram = sim_vram;
	gpu->coherent_base = coherent_base;
	xa_init(&gpu->pieces);
	if (!hmm_ref_gpu_init(&gpu->gpu, &sim_ops, dev, node))
		return &gpu->gpu.hw;
	kfree(gpu);
	return NULL;
}
EXPORT_SYMBOL_IF_KUNIT(hmm_ref_gpu_create);

/**
 * hmm_ref_gpu_destroy() - free a simulated GPU
 * @hw: result of hmm_ref_gpu_create(), with no VRAM allocated
 */
void hmm_ref_gpu_destroy(struct hmm_ref_hw *hw)
{
	struct sim_gpu *gpu = to_sim(hw);

	hmm_ref_gpu_exit(&gpu->gpu);
	xa_destroy(&gpu->pieces);
	kfree(gpu);
}
EXPORT_SYMBOL_IF_KUNIT(hmm_ref_gpu_destroy);
