// SPDX-License-Identifier: GPL-2.0-only
/*
 * Audit of device memory, and usage counts.
 *
 * The audit compares the free maps with the struct pages, and both with the
 * counts. It checks one block at a time under its lock. Pages enter and leave
 * the free map under that lock, so the result is exact even while the device is
 * in use:
 *
 *   on the free map     count 0, unlocked, unmapped, no owner
 *   off it, count 0     pending: between free map and zone_device_folio_init(),
 *                       or on its way through folio_free; nothing is guaranteed
 *   off it, count > 0   used: has an owner, which is set before the count and
 *                       cleared after it
 *
 * In a large folio the first page has the count and the owner.
 */
#include <linux/sched/signal.h>

#include "devmem.h"

static void audit_free_page(struct page *page, struct hmm_ref_findings *found)
{
	found->bad_ref += page_ref_count(page) != 0;
	found->bad_lock += PageLocked(page);
	found->bad_map += !!page->mapping;
	found->bad_owner += !!page->zone_device_data;
}

/* Return: whether the page is certainly used. */
static bool audit_used_page(struct page *page, struct hmm_ref_findings *found)
{
	page = folio_page(page_folio(page), 0);
	if (!page_ref_count(page))
		return false;
	smp_rmb(); /* the owner is set before the count: pairs with handout */
	if (!READ_ONCE(page->zone_device_data)) {
		smp_rmb(); /* and cleared after it: pairs with the last put */
		found->bad_owner += page_ref_count(page) != 0;
	}
	return true;
}

static void audit_block(struct hmm_ref_block *block,
			struct hmm_ref_findings *found)
{
	struct page *page = pfn_to_page(hmm_ref_block_pfn(block));
	unsigned int nr_free = 0;
	unsigned int nr_held = 0;
	unsigned int bit;

	spin_lock_irq(&block->lock);
	for (bit = 0; bit < HMM_REF_BLOCK_PAGES; bit++, page++) {
		if (test_bit(bit, block->free)) {
			nr_free++;
			audit_free_page(page, found);
			found->bad_both += test_bit(bit, block->bad);
		} else {
			nr_held += audit_used_page(page, found);
		}
	}
	found->total += HMM_REF_BLOCK_PAGES;
	found->free += nr_free;
	found->retired += block->nr_retired;
	found->in_use += block->nr_used;
	found->pending += HMM_REF_BLOCK_PAGES - nr_free - nr_held -
			  block->nr_retired;
	found->bad_count += nr_free != block->nr_free;
	found->bad_count += nr_free + block->nr_used + block->nr_retired !=
				HMM_REF_BLOCK_PAGES;
	spin_unlock_irq(&block->lock);
}

/**
 * hmm_ref_devmem_audit() - check every page of a device
 * @dm: device memory
 * @found: out: the findings
 *
 * Context: may sleep; the device may be in use, but must not go away.
 * Return: 0, or -ERESTARTNOHAND if a signal came before all pages were checked.
 * The findings then cover the pages that were. The audit cannot be continued,
 * only restarted, as the core does unless the process has a handler for the
 * signal.
 */
int hmm_ref_devmem_audit(struct hmm_ref_devmem *dm,
			 struct hmm_ref_findings *found)
{
	struct hmm_ref_chunk *chunk;
	unsigned long index = 0;
	unsigned int i;
	int rc = 0;

	*found = (struct hmm_ref_findings){};
	while (!rc && (chunk = hmm_ref_devmem_next_chunk(dm, &index))) {
		for (i = 0; !rc && i < chunk->nr_blocks; i++) {
			if (found->total && signal_pending(current)) {
				rc = -ERESTARTNOHAND;
				break;
			}
			audit_block(&chunk->blocks[i], found);
			cond_resched();
		}
		hmm_ref_chunk_put(chunk);
	}
	found->violations = found->bad_ref + found->bad_lock + found->bad_map +
			    found->bad_owner + found->bad_both +
			    found->bad_count;
	return rc;
}
EXPORT_SYMBOL_IF_KUNIT(hmm_ref_devmem_audit);

/**
 * hmm_ref_devmem_usage() - get the amounts of device memory by state
 * @dm: device memory
 * @usage: out: the amounts
 *
 * Context: the device must not go away.
 */
void hmm_ref_devmem_usage(struct hmm_ref_devmem *dm,
			  struct hmm_ref_usage *usage)
{
	spin_lock_irq(&dm->lock);
	usage->total = dm->nr_pages;
	usage->used = hmm_ref_devmem_used(dm);
	usage->reserved = dm->reserved;
	usage->retired = dm->retired;
	usage->chunks = DIV_ROUND_UP(dm->nr_pages, 1UL << dm->chunk_shift);
	spin_unlock_irq(&dm->lock);
}
EXPORT_SYMBOL_IF_KUNIT(hmm_ref_devmem_usage);
