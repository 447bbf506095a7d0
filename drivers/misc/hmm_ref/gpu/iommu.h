/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Access of the simulated GPU to system memory: by DMA addresses, each of which
 * is resolved at the moment of the access. mock: an IOMMU does that.
 */
#ifndef _HMM_REF_IOMMU_H
#define _HMM_REF_IOMMU_H

#include <linux/dma-direct.h>
#include <linux/highmem.h>
#include <linux/iommu.h>

#include "../hw.h"
#include "../sanity.h"

/**
 * hmm_ref_gpu_map_addr() - map the page at a DMA address
 * @hw: device
 * @domain: IOMMU domain of the device, or NULL
 * @addr: DMA address
 * @direction: DMA_TO_DEVICE for a read, DMA_FROM_DEVICE for a write
 *
 * Return: the memory, for kunmap_local(); or NULL if the address is not mapped
 * for that direction.
 */
static __always_inline void *
hmm_ref_gpu_map_addr(struct hmm_ref_hw *hw, struct iommu_domain *domain,
		     dma_addr_t addr, enum dma_data_direction direction)
{
	phys_addr_t phys = 0;

	if (domain)
		phys = iommu_iova_to_phys(domain, addr);
	else if (hmm_ref_is_mapped(hw, addr, direction))
		phys = dma_to_phys(hw->dev, addr);
	if (likely(phys))
		return kmap_local_pfn(PHYS_PFN(phys));
	dev_err(hw->dev, "DMA fault at %pad\n", &addr);
	return NULL;
}

#endif /* _HMM_REF_IOMMU_H */
