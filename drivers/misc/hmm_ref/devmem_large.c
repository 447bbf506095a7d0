// SPDX-License-Identifier: GPL-2.0-only
/*
 * Device pages as PMD folios.
 *
 * A whole block is handed out as one folio: naturally aligned, contiguous on
 * the device, one entry in every page table. Large folios add to the rules of
 * devmem.c:
 *
 * - Only single pages are on the free map. folio_free dissolves a large folio,
 *   since the core leaves it compound, and pages of the block may next be
 *   handed out one by one.
 * - A large folio holds one owner reference per page, so a split needs no
 *   accounting: it runs with interrupts off and cannot fail. The new folio
 *   points at the owner of the old one.
 * - The parts of a split folio return one by one. The last one makes the block
 *   whole again; nothing is merged.
 */
#include <linux/pagemap.h>

#include "devmem.h"
#include "sanity.h"
#include "trace.h"

/*
 * Take all pages of the reserved block off the free map. Whether or not that
 * succeeds, the reservation ends.
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
 * @room: reservation with a block, which is taken off it
 * @owner: owner of the folio; gets a reference per page
 *
 * Like hmm_ref_devmem_handout(), for all pages of the block together.
 *
 * Context: may sleep; locks the folio.
 * Return: the folio, locked and with one reference; NULL if the device is
 * stopped, or if a page of the block was retired after the block was reserved.
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
	smp_wmb(); /* a referenced page has an owner: pairs with the audit */
	zone_device_folio_init((struct folio *)page, &block->chunk->pagemap,
			       HMM_REF_BLOCK_ORDER);
	hmm_ref_verify_handed_out(block->chunk, page_folio(page));
	trace_hmm_ref_page_handout(page_folio(page));
	return page_folio(page);
}
EXPORT_SYMBOL_IF_KUNIT(hmm_ref_devmem_handout_large);

/**
 * hmm_ref_devmem_dissolve() - split a large folio that is being freed
 * @folio: large folio without references
 *
 * Leaves single pages as rule 1 requires. Fields of struct folio that lie in
 * the second to fourth page overlap the mapping and the owner of those pages,
 * so these are cleared.
 *
 * Context: that of folio_free.
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

		/* Replaces compound_head: a lockless reader sees either. */
		WRITE_ONCE(tail->pgmap, pagemap);
		tail->mapping = NULL;
		tail->page.zone_device_data = NULL;
	}
}

/**
 * hmm_ref_devmem_folio_split() - the pagemap's folio_split callback
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
