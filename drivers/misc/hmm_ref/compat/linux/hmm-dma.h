/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * DMA mappings of ranges for kernels without linux/hmm-dma.h: page by page,
 * with a table of addresses. The compiler finds this file only if the kernel
 * has no such header.
 */
#ifndef _HMM_REF_COMPAT_LINUX_HMM_DMA_H
#define _HMM_REF_COMPAT_LINUX_HMM_DMA_H

#include <linux/dma-map-ops.h>
#include <linux/dma-mapping.h>
#include <linux/hmm.h>
#include <linux/mm.h>
#include <linux/slab.h>

/* hmm_range_fault() has another use for the bit, but not in this array. */
#define HMM_PFN_DMA_MAPPED	(1UL << (BITS_PER_LONG - 4))

struct hmm_dma_map {
	unsigned long *pfn_list;
	dma_addr_t *dma_list;
	size_t dma_entry_size;
};

static inline void hmm_dma_map_free(struct device *dev, struct hmm_dma_map *map)
{
	kvfree(map->pfn_list);
	kvfree(map->dma_list);
}

static inline int hmm_dma_map_alloc(struct device *dev, struct hmm_dma_map *map,
				    size_t nr_entries, size_t dma_entry_size)
{
	map->dma_entry_size = dma_entry_size;
	map->pfn_list =
		kvcalloc(nr_entries, sizeof(*map->pfn_list), GFP_KERNEL);
	map->dma_list =
		kvcalloc(nr_entries, sizeof(*map->dma_list), GFP_KERNEL);
	if (map->pfn_list && map->dma_list)
		return 0;
	hmm_dma_map_free(dev, map);
	return -ENOMEM;
}

static inline dma_addr_t
hmm_dma_map_pfn(struct device *dev, struct hmm_dma_map *map, size_t idx,
		struct pci_p2pdma_map_state *p2pdma_state)
{
	unsigned long *pfn = &map->pfn_list[idx];
	dma_addr_t addr;

	if (*pfn & HMM_PFN_DMA_MAPPED)
		return map->dma_list[idx];
	addr = dma_map_page_attrs(dev, hmm_pfn_to_page(*pfn), 0,
				  map->dma_entry_size, DMA_BIDIRECTIONAL,
				  DMA_ATTR_SKIP_CPU_SYNC);
	if (dma_mapping_error(dev, addr))
		return DMA_MAPPING_ERROR;
	map->dma_list[idx] = addr;
	*pfn |= HMM_PFN_DMA_MAPPED;
	return addr;
}

static inline bool hmm_dma_unmap_pfn(struct device *dev,
				     struct hmm_dma_map *map, size_t idx)
{
	if (!(map->pfn_list[idx] & HMM_PFN_DMA_MAPPED))
		return false;
	dma_unmap_page_attrs(dev, map->dma_list[idx], map->dma_entry_size,
			     DMA_BIDIRECTIONAL, DMA_ATTR_SKIP_CPU_SYNC);
	map->pfn_list[idx] &= ~HMM_PFN_DMA_MAPPED;
	return true;
}

#endif /* _HMM_REF_COMPAT_LINUX_HMM_DMA_H */
