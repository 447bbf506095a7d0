// SPDX-License-Identifier: GPL-2.0-only
/*
 * Eviction: moving data to system memory without a process that asks for it.
 *
 * A block is emptied through migrate_device_pfns(), which finds the mappings of its
 * pages by rmap: no mm, no VMA and no mmap_lock are needed, and processes that have
 * forked, exited or moved their mappings are all the same to it. It only tries the
 * page locks, so one pass proves nothing. Eviction for room takes what it gets and
 * turns to the next block; eviction before the device goes repeats until no page is
 * used. A large folio moves as one, or with the help of migrate_small.c.
 *
 * migrate_device_pfns() takes any page that has a reference, also one whose data has
 * just left and whose last reference somebody is about to drop. To migrate that once
 * more warns in mem_cgroup_migrate() and walks an anon_vma that may be gone. So only
 * mapped pages are chosen, and of what comes back locked only those are copied that
 * still hold their data (hmm_ref_mark_left()).
 */
#include <linux/delay.h>
#include <linux/gfp.h>
#include <linux/migrate.h>

#include "hmm_ref.h"
#include "trace.h"

/* Blocks that are tried before the caller has to wait. */
#define EVICT_TRIES	4

/*
 * Is a page mapped, at the moment? Return: the pages of its folio, or 0. The reference
 * keeps the folio from being split or taken apart while it is asked.
 */
static unsigned long mapped_pages(struct page *page)
{
	struct folio *folio = page_folio(page);
	unsigned long nr = 0;

	if (!folio_try_get(folio))
		return 0;
	if (folio == page_folio(page) && folio_mapped(folio))
		nr = folio_nr_pages(folio);
	folio_put(folio);
	return nr;
}

/*
 * The mapped pages of a block. A large folio fills it, and the core wants room for all of
 * its entries. Return: how many page frame numbers are in @src.
 */
static unsigned long evict_choose(struct hmm_ref_block *block, unsigned long *src)
{
	unsigned long pfn = hmm_ref_block_pfn(block);
	unsigned long end = pfn + HMM_REF_BLOCK_PAGES;
	unsigned long nr = 0;

	while (pfn < end) {
		unsigned long mapped = mapped_pages(pfn_to_page(pfn));
		unsigned long last = min(pfn + max(mapped, 1UL), end);

		for (; pfn < last; pfn++) {
			if (mapped)
				src[nr++] = pfn;
		}
	}
	return nr;
}

/* Locked by us now: a page with data, neither left nor abandoned? */
static bool holds_data(unsigned long src)
{
	struct folio *folio;

	if (!hmm_ref_src_is_page(src))
		return false;
	folio = page_folio(migrate_pfn_to_page(src));
	return folio_test_anon(folio) && folio_test_uptodate(folio);
}

/* One pass over a block. Return: pages that left it. */
static unsigned long evict_pass(struct hmm_ref_device *dev,
				struct hmm_ref_block *block)
{
	unsigned long *src = dev->evict_window.src;
	unsigned long *dst = dev->evict_window.dst;
	bool no_large = false;
	struct hmm_ref_job job;
	unsigned long left;
	unsigned long nr;
	unsigned long i;
	u64 begin = 0;

	lockdep_assert_held(&dev->evict_lock);
	if (trace_hmm_ref_evict_enabled())
		begin = ktime_get_ns();
	nr = evict_choose(block, src);
	memset(dst, 0, nr * sizeof(*dst));
	migrate_device_pfns(src, nr);
	hmm_ref_engine_begin(&dev->dm.engine, &job);
	for (i = 0; i < nr; i++) {
		if (!holds_data(src[i]) ||
		    !hmm_ref_fill_folio(&job, src[i], &dst[i],
					GFP_HIGHUSER_MOVABLE, NULL, 0))
			continue;
		no_large = src[i] & MIGRATE_PFN_COMPOUND;
		break;
	}
	if (hmm_ref_engine_wait(&job))
		hmm_ref_abandon_all(dst, nr);
	migrate_device_pages(src, dst, nr);
	left = hmm_ref_mark_left(src, dst, nr, HMM_REF_BY_EVICTION);
	migrate_device_finalize(src, dst, nr);
	if (no_large)
		left += hmm_ref_small_evict(dev, block, &dev->evict_window);
	hmm_ref_count(dev->counters, evicted, left);
	trace_hmm_ref_evict(block, nr, left, begin);
	return left;
}

/**
 * hmm_ref_evict_some() - make room on a full device
 * @dev: device
 *
 * Evicts from the least recently filled block that gives pages up.
 *
 * Context: may sleep and enter reclaim; no folio lock held.
 * Return: 0 when pages have left, -ENOSPC when none can at the moment, -EINTR.
 */
int hmm_ref_evict_some(struct hmm_ref_device *dev)
{
	struct hmm_ref_block *block;
	unsigned int tries = 0;
	int rc = -ENOSPC;

	if (mutex_lock_killable(&dev->evict_lock))
		return -EINTR;
	while (rc && tries++ < EVICT_TRIES) {
		block = hmm_ref_devmem_victim(&dev->dm);
		if (!block)
			break;
		if (evict_pass(dev, block))
			rc = 0;
	}
	mutex_unlock(&dev->evict_lock);
	return rc;
}

/**
 * hmm_ref_evict_all() - bring every page of a stopped device to system memory
 * @dev: device that hands out nothing any more
 *
 * Pages that someone holds locked, and faults in flight, take their time; a system
 * without memory, or an engine that fails, too. There is no way to go on without
 * them, as processes would lose their data. So this returns only when the device is
 * empty, and says what it waits for.
 */
void hmm_ref_evict_all(struct hmm_ref_device *dev)
{
	unsigned long report = jiffies + 10 * HZ;
	unsigned int delay_ms = 1;
	struct hmm_ref_block *block;
	unsigned long moved;

	while (hmm_ref_devmem_used(&dev->dm)) {
		mutex_lock(&dev->evict_lock);
		block = hmm_ref_devmem_victim(&dev->dm);
		moved = block ? evict_pass(dev, block) : 0;
		mutex_unlock(&dev->evict_lock);
		if (moved) {
			delay_ms = 1;
			cond_resched();
			continue;
		}
		msleep(delay_ms);
		delay_ms = min(delay_ms * 2, 100U);
		if (time_after(jiffies, report)) {
			pr_warn("%s: waiting for %lu pages to leave the device\n",
				dev->name, hmm_ref_devmem_used(&dev->dm));
			report = jiffies + 10 * HZ;
		}
	}
}
