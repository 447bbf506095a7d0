// SPDX-License-Identifier: GPL-2.0-only
/*
 * Mappings of a range: entries of the page table, DMA addresses, translations.
 *
 *   map   map the page for DMA; write the entry, with the DMA address
 *   zap   clear the entry; flush: no access with the old translation is under
 *         way, and none begins; unmap the page from DMA
 *
 * With this order, the device never has an address that is not mapped.
 * Everything happens under range->lock, so memory for entries and for DMA is
 * allocated beforehand (prepare). If it is gone once the lock is held, the
 * caller starts again.
 *
 * A table of PTEs maps pages for DMA one by one, a leaf maps all of them
 * together. The device's own pages are not mapped for DMA.
 */
#include <linux/dma-mapping.h>
#include <linux/hmm.h>
#include <linux/hmm-dma.h>
#include <linux/pci-p2pdma.h>

#include "fail.h"
#include "mirror.h"
#include "sanity.h"

/* ---- DMA --------------------------------------------------------------- */

static size_t entry_size(bool leaf)
{
	return leaf ? PMD_SIZE : PAGE_SIZE;
}

static unsigned int entry_pages(const struct hmm_ref_range *range)
{
	return range->dma.dma_entry_size >> PAGE_SHIFT;
}

/* Return: 0, -ENOMEM, or -EOPNOTSUPP if DMA would use bounce buffers. */
static int prepare_dma(struct hmm_ref_range *range, bool leaf)
{
	struct device *dev = range->mirror->dm->hw->dev;
	struct hmm_dma_map map = {};
	int rc;

	if (READ_ONCE(range->dma.dma_entry_size) == entry_size(leaf))
		return 0;
	if (hmm_ref_hw_bounces(dev))
		return -EOPNOTSUPP;
	rc = hmm_dma_map_alloc(dev, &map, HMM_REF_BLOCK_PAGES,
			       entry_size(leaf));
	if (rc)
		return rc;
	mutex_lock(&range->lock);
	if (range->dma.dma_entry_size != map.dma_entry_size) {
		hmm_ref_range_zap(range, range->start, range->start + PMD_SIZE);
		swap(range->dma, map);
	}
	mutex_unlock(&range->lock);
	if (map.dma_entry_size)
		hmm_dma_map_free(dev, &map);
	return 0;
}

/*
 * Return: the DMA address, which does not change while the page is mapped; or
 * DMA_MAPPING_ERROR.
 */
static dma_addr_t map_dma(struct hmm_ref_range *range, unsigned int index,
			  unsigned long pfn)
{
	unsigned long *entry = &range->dma.pfn_list[index];
	struct hmm_ref_hw *hw = range->mirror->dm->hw;
	struct pci_p2pdma_map_state state = {};
	bool is_new = !(*entry & HMM_PFN_DMA_MAPPED);
	dma_addr_t addr;

	if (is_new) {
		if (hmm_ref_fail(HMM_REF_FAIL_DMA))
			return DMA_MAPPING_ERROR;
		*entry = pfn | HMM_PFN_VALID;
	}
	addr = hmm_dma_map_pfn(hw->dev, &range->dma, index, &state);
	if (addr == DMA_MAPPING_ERROR || !is_new)
		return addr;
	if (!hmm_ref_note_mapping(hw, addr, entry_pages(range),
				  DMA_BIDIRECTIONAL))
		return addr;
	hmm_dma_unmap_pfn(hw->dev, &range->dma, index);
	return DMA_MAPPING_ERROR;
}

/* Mapping a mapped page again returns its address. */
static dma_addr_t mapped_addr(struct hmm_ref_range *range, unsigned int index)
{
	struct pci_p2pdma_map_state state = {};

	return hmm_dma_map_pfn(range->mirror->dm->hw->dev, &range->dma, index,
			       &state);
}

static void unmap_dma(struct hmm_ref_range *range, unsigned int first,
		      unsigned int end)
{
	struct hmm_ref_hw *hw = range->mirror->dm->hw;
	unsigned int i;

	for (i = first; i < end; i++) {
		if (!(range->dma.pfn_list[i] & HMM_PFN_DMA_MAPPED))
			continue;
		if (IS_ENABLED(CONFIG_HMM_REF_SANITY))
			hmm_ref_forget_mapping(hw, mapped_addr(range, i),
					       entry_pages(range),
					       DMA_BIDIRECTIONAL);
		hmm_dma_unmap_pfn(hw->dev, &range->dma, i);
	}
}

/* ---- entries ----------------------------------------------------------- */

/**
 * hmm_ref_range_prepare() - allocate memory for entries
 * @range: range
 * @leaf: for one entry that maps the whole range
 * @dma: for pages of system memory
 *
 * A caller that then does not map calls hmm_ref_range_trim().
 *
 * Context: may sleep and enter reclaim; takes hmm_ref_range::lock.
 * Return: 0, -ENOMEM, -ENODEV if the device is gone, or -EOPNOTSUPP if DMA
 * would use bounce buffers.
 */
int hmm_ref_range_prepare(struct hmm_ref_range *range, bool leaf, bool dma)
{
	struct hmm_ref_devmem *dm = range->mirror->dm;
	int section, rc;

	if (!hmm_ref_hw_enter(dm, &section))
		return -ENODEV;
	rc = dma ? prepare_dma(range, leaf) : 0;
	/* In the section, too: a zap flushes any table, even if it is empty. */
	if (!rc)
		rc = hmm_ref_pgtable_prepare(&range->pt, leaf);
	hmm_ref_hw_exit(dm, section);
	return rc;
}

/**
 * hmm_ref_range_is_ready() - test whether memory for entries is prepared
 * @range: range
 * @leaf: for one entry that maps the whole range
 * @dma: for pages of system memory
 *
 * Zaps entries of the other kind.
 *
 * Context: hmm_ref_range::lock; the result holds until it is dropped.
 * Return: true if entries can be written; if not, prepare again.
 */
bool hmm_ref_range_is_ready(struct hmm_ref_range *range, bool leaf, bool dma)
{
	if (hmm_ref_pgtable_is_ready(&range->pt, leaf))
		return !dma || range->dma.dma_entry_size == entry_size(leaf);
	hmm_ref_range_zap(range, range->start, range->start + PMD_SIZE);
	return false;
}

/**
 * hmm_ref_range_map() - map a page, or all of a range
 * @range: range that is ready for it
 * @addr: page address
 * @page: page at @addr, which stays until it is unmapped
 * @bits: HMM_REF_PTE_WRITE, HMM_REF_PTE_EXCLUSIVE
 * @leaf: map the whole range, the pages of which are contiguous
 *
 * Context: hmm_ref_range::lock, between hmm_ref_hw_enter() and
 * hmm_ref_hw_exit(); does not allocate.
 * Return: 0; or -ENOMEM if there is no room for DMA addresses.
 */
int hmm_ref_range_map(struct hmm_ref_range *range, unsigned long addr,
		      struct page *page, u64 bits, bool leaf)
{
	const struct hmm_ref_chunk *chunk =
		hmm_ref_own_chunk(range->mirror->dm, page);
	unsigned long index = (addr - range->start) >> PAGE_SHIFT;
	unsigned long skip = leaf ? index : 0;
	dma_addr_t dma;
	hmm_ref_pte_t pte;

	if (chunk) {
		pte = hmm_ref_pte(hmm_ref_chunk_dpfn(chunk, page) - skip,
				  bits | HMM_REF_PTE_DEVICE);
	} else {
		dma = map_dma(range, index - skip, page_to_pfn(page) - skip);
		if (dma == DMA_MAPPING_ERROR)
			return -ENOMEM;
		pte = hmm_ref_pte(dma >> PAGE_SHIFT, bits);
	}
	if (leaf)
		hmm_ref_pgtable_map_leaf(&range->pt, pte);
	else
		hmm_ref_pgtable_map(&range->pt, addr, pte);
	return 0;
}

/**
 * hmm_ref_range_zap() - unmap pages
 * @range: range
 * @start: page address
 * @end: page address in the range, or its end; exclusive
 *
 * A leaf is unmapped as a whole. After return the device does not access the
 * pages.
 *
 * Context: hmm_ref_range::lock, also where sleeping is not allowed; does not
 * allocate.
 */
void hmm_ref_range_zap(struct hmm_ref_range *range, unsigned long start,
		       unsigned long end)
{
	struct hmm_ref_mirror *mirror = range->mirror;
	struct hmm_ref_hw *hw = mirror->dm->hw;
	bool leaf = hmm_ref_pgtable_is_ready(&range->pt, true);
	unsigned int first = 0, last = 1;

	lockdep_assert_held(&range->lock);
	if (hmm_ref_pgtable_is_empty(&range->pt) || start >= end)
		return;
	if (leaf) {
		start = range->start;
		end = start + PMD_SIZE;
	} else {
		first = (start - range->start) >> PAGE_SHIFT;
		last = (end - range->start) >> PAGE_SHIFT;
	}
	hmm_ref_pgtable_zap(&range->pt, start, end);
	hw->ops->flush(hw, &mirror->space, start, end);
	if (range->dma.dma_entry_size == entry_size(leaf))
		unmap_dma(range, first, last);
}

/**
 * hmm_ref_range_trim() - free prepared memory that was not used
 * @range: range
 *
 * Context: hmm_ref_range::lock.
 */
void hmm_ref_range_trim(struct hmm_ref_range *range)
{
	hmm_ref_pgtable_trim(&range->pt);
}

/**
 * hmm_ref_range_unmap_all() - unmap all of a range, and free its tables
 * @range: range
 *
 * The range no longer needs the device.
 *
 * Context: may sleep; takes hmm_ref_range::lock.
 */
void hmm_ref_range_unmap_all(struct hmm_ref_range *range)
{
	mutex_lock(&range->lock);
	hmm_ref_range_zap(range, range->start, range->start + PMD_SIZE);
	hmm_ref_pgtable_destroy(&range->pt);
	if (range->dma.dma_entry_size)
		hmm_dma_map_free(range->mirror->dm->hw->dev, &range->dma);
	range->dma = (struct hmm_dma_map){};
	mutex_unlock(&range->lock);
}
