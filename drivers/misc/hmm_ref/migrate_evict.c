// SPDX-License-Identifier: GPL-2.0-only
/*
 * Eviction: moving data to system memory without a process that asks for it.
 *
 * A block is emptied through migrate_device_range(), which finds the mappings of
 * its pages by rmap: no mm, no VMA and no mmap_lock are needed, and processes that
 * have forked, exited or moved their mappings are all the same to it. It only tries
 * the page locks, so one pass proves nothing. Eviction for room takes what it gets
 * and turns to the next block; eviction before the device goes repeats until no
 * page is used.
 *
 * A page that is off the free map but not yet initialised has no reference and is
 * passed over, like a free one.
 */
#include <linux/delay.h>
#include <linux/gfp.h>
#include <linux/migrate.h>
#include <linux/sched/signal.h>

#include "hmm_ref.h"

/* One pass over a block. Return: pages that left it. */
static unsigned long evict_pass(struct hmm_ref_device *dev,
				struct hmm_ref_block *block)
{
	struct hmm_ref_window *window = &dev->evict_window;
	struct hmm_ref_job job;
	unsigned long moved;
	unsigned long i;

	lockdep_assert_held(&dev->evict_lock);
	memset(window->src, 0, HMM_REF_BLOCK_PAGES * sizeof(*window->src));
	memset(window->dst, 0, HMM_REF_BLOCK_PAGES * sizeof(*window->dst));
	migrate_device_range(window->src, hmm_ref_block_pfn(block),
			     HMM_REF_BLOCK_PAGES);
	hmm_ref_engine_begin(&dev->dm.engine, &job);
	for (i = 0; i < HMM_REF_BLOCK_PAGES; i++) {
		if (hmm_ref_src_is_page(window->src[i]) &&
		    hmm_ref_fill_system_page(&job, window->src[i], &window->dst[i],
				     GFP_HIGHUSER_MOVABLE, NULL, 0))
			break;
	}
	if (hmm_ref_engine_wait(&job))
		hmm_ref_abandon_all(window->dst, HMM_REF_BLOCK_PAGES);
	migrate_device_pages(window->src, window->dst, HMM_REF_BLOCK_PAGES);
	moved = hmm_ref_count_moved(window->src, window->dst, HMM_REF_BLOCK_PAGES);
	migrate_device_finalize(window->src, window->dst, HMM_REF_BLOCK_PAGES);
	hmm_ref_count(dev->counters, evicted, moved);
	return moved;
}

/**
 * hmm_ref_evict_some() - make room on a full device
 * @dev: device
 *
 * Evicts from the least recently filled block that gives pages up.
 *
 * Context: may sleep and enter reclaim; no folio lock held.
 * Return: 0 when pages have left, -ENOSPC when none can for about a second, -EINTR.
 */
int hmm_ref_evict_some(struct hmm_ref_device *dev)
{
	unsigned long deadline = jiffies + HMM_REF_PATIENCE;
	struct hmm_ref_block *block;
	int rc = -ENOSPC;

	if (mutex_lock_killable(&dev->evict_lock))
		return -EINTR;
	do {
		block = hmm_ref_devmem_victim(&dev->dm);
		if (!block)
			break;
		if (evict_pass(dev, block)) {
			rc = 0;
			break;
		}
		if (fatal_signal_pending(current)) {
			rc = -EINTR;
			break;
		}
		cond_resched();
	} while (time_before(jiffies, deadline));
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
