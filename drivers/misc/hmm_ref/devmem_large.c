// SPDX-License-Identifier: GPL-2.0-only
/*
 * Device pages as PMD folios.
 *
 * A whole free block is handed out as one folio: naturally aligned, contiguous on the
 * device, one entry in every page table. What large folios add to the rules of
 * devmem.c:
 *
 * - On the free map there are only single pages. folio_free takes a large folio
 *   apart, since the core leaves it compound, and the next owner of a page of the
 *   block may get it alone.
 * - The owner is referenced once per page. So a split, which the core does with
 *   interrupts off and which cannot fail, has nothing to count: a new folio points
 *   at the owner of the old one.
 * - Parts of a folio that was split come back one by one. The block is whole again
 *   with the last of them; nothing is merged.
 */
#include <linux/pagemap.h>

#include "devmem.h"
#include "sanity.h"
#include "trace.h"

/*
 * Take all pages of the block that is reserved off the free map. Whether that succeeds or
 * not, the block is no longer reserved.
 */
static struct hmm_ref_block *take_reserved(struct hmm_ref_devmem *dm,
					   struct hmm_ref_room *room)
{
	struct hmm_ref_block *block = room->block;
	unsigned long flags;
	bool taken;

	spin_lock_irqsave(&block->lock, flags);
	spin_lock(&dm->lock);
	taken = !dm->stopped && block->nr_free == HMM_REF_BLOCK_PAGES;
	block->reserved = false;
	room->block = NULL;
	dm->reserved -= HMM_REF_BLOCK_PAGES;
	if (taken) {
		bitmap_zero(block->free, HMM_REF_BLOCK_PAGES);
		block->nr_free = 0;
		block->nr_used = HMM_REF_BLOCK_PAGES;
		atomic_long_add(HMM_REF_BLOCK_PAGES, &dm->used);
	}
	hmm_ref_block_enlist(block);
	if (taken)
		hmm_ref_block_fill(block);
	hmm_ref_chunk_unuse(block->chunk);
	hmm_ref_verify_block(block);
	spin_unlock(&dm->lock);
	spin_unlock_irqrestore(&block->lock, flags);
	return taken ? block : NULL;
}

/**
 * hmm_ref_devmem_handout_large() - hand out a block as one folio
 * @dm: device memory
 * @room: with a block, which comes off
 * @owner: that it is for; gets a reference per page
 *
 * As hmm_ref_devmem_handout() for all pages of the block at once.
 *
 * Context: may sleep; locks the folio.
 * Return: the folio, locked and with one reference; NULL when the device is going or when
 * a page of the block was retired since it was reserved.
 */
struct folio *hmm_ref_devmem_handout_large(struct hmm_ref_devmem *dm,
					   struct hmm_ref_room *room,
					   struct hmm_ref_owner *owner)
{
	struct hmm_ref_block *block = take_reserved(dm, room);
	struct page *page;

	if (!block)
		return NULL;
	page = pfn_to_page(hmm_ref_block_pfn(block));
	hmm_ref_verify_idle(block, 0, HMM_REF_BLOCK_PAGES);
	refcount_add(HMM_REF_BLOCK_PAGES, &owner->refs);
	page->zone_device_data = owner;
	smp_wmb(); /* a page that has a reference has an owner: pairs with the audit */
	zone_device_folio_init((struct folio *)page, &block->chunk->pagemap,
			       HMM_REF_BLOCK_ORDER);
	hmm_ref_verify_handed_out(block->chunk, page_folio(page));
	trace_hmm_ref_page_handout(page_folio(page));
	return page_folio(page);
}
EXPORT_SYMBOL_IF_KUNIT(hmm_ref_devmem_handout_large);

/**
 * hmm_ref_devmem_dissolve() - take a folio that is being freed apart
 * @folio: large folio without references
 *
 * Leaves single pages as rule 1 wants them. The members of the folio that lie in its
 * second to fourth page leave values where a page has its mapping and its owner.
 *
 * Context: folio_free's.
 */
void hmm_ref_devmem_dissolve(struct folio *folio)
{
	struct dev_pagemap *pagemap = folio->pgmap;
	unsigned long nr = folio_nr_pages(folio);
	unsigned long i;

	folio_reset_order(folio);
	ClearPageHead(folio_page(folio, 0));
	for (i = 1; i < nr; i++) {
		struct folio *tail = (struct folio *)folio_page(folio, i);

		/* Takes the place of the head: a look without a lock sees either. */
		WRITE_ONCE(tail->pgmap, pagemap);
		tail->mapping = NULL;
		tail->page.zone_device_data = NULL;
	}
}

/**
 * hmm_ref_devmem_folio_split() - the pagemap's folio_split
 * @head: folio that is being split
 * @tail: new folio made of some of its pages; NULL at the end
 *
 * Context: interrupts off, both folios frozen.
 */
void hmm_ref_devmem_folio_split(struct folio *head, struct folio *tail)
{
	if (!tail)
		return;
	tail->pgmap = head->pgmap;
	tail->page.zone_device_data = head->page.zone_device_data;
}
