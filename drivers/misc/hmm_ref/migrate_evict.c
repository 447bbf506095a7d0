// SPDX-License-Identifier: GPL-2.0-only
/*
 * Eviction: moves data to system memory independently of the processes that use
 * it.
 *
 * Pages are selected on the device side, block by block. migrate_device_range()
 * takes them no matter which processes map them, needs neither VMA nor
 * mmap_lock, and only tries page locks. So a single pass may leave pages
 * behind. Eviction for room accepts that and turns to the next block; eviction
 * before removal or sleep repeats until no page is used.
 */
#include <linux/delay.h>
#include <linux/mm.h>
#include <linux/sched/signal.h>

#include "hmm_ref.h"
#include "trace.h"

/* Blocks to try before the caller has to wait. */
#define EVICT_TRIES	4

/* ---- contiguous device pages ------------------------------------------- */

/* Extend a range to cover large folios at its ends. It stays in one block. */
static void widen(unsigned long *first, unsigned long *last)
{
	if (PageCompound(pfn_to_page(*first)))
		*first = ALIGN_DOWN(*first, HMM_REF_BLOCK_PAGES);
	if (PageCompound(pfn_to_page(*last - 1)))
		*last = ALIGN(*last, HMM_REF_BLOCK_PAGES);
}

/* A large folio of which only a part is mapped is not worth a large page. */
static bool is_partly_mapped(struct page *page)
{
	struct folio *folio = page_folio(page);
	bool partly;

	if (!folio_try_get(folio))
		return false;
	partly = folio_test_large(folio) && !folio_entire_mapcount(folio) &&
		 folio_mapcount(folio) < folio_nr_pages(folio);
	folio_put(folio);
	return partly;
}

static bool any_lost(struct hmm_ref_devmem *dm, unsigned long src)
{
	unsigned long dpfn = hmm_ref_folio_dpfn(hmm_ref_src_folio(src));

	return hmm_ref_devmem_any_lost(dm, dpfn, hmm_ref_src_pages(src));
}

/**
 * struct eviction - a migration of contiguous device pages
 * @move: the migration
 * @whole: try to move large folios in one piece
 * @tried: out: pages that were in use
 */
struct eviction {
	struct hmm_ref_move move;
	bool whole;
	unsigned long tried;
};

/*
 * A folio that cannot move in one piece, for lack of a large page or because it
 * has lost data, is split by the core; those of its pages move that have a
 * destination. When system memory runs out, the pages filled so far still move.
 */
static int fill_evicted(struct hmm_ref_move *move)
{
	struct eviction *eviction = container_of(move, struct eviction, move);
	gfp_t gfp = hmm_ref_system_gfp(move->dm, HMM_REF_BY_EVICTION);
	unsigned long i, k, nr;
	int rc = 0;

	for (i = 0; i < move->args.npages; i += nr) {
		unsigned long src = move->args.src[i];

		nr = hmm_ref_src_pages(src);
		if (!hmm_ref_src_is_page(src))
			continue;
		eviction->tried += nr;
		if (rc == -ENOMEM)
			continue;
		if (nr > 1 && eviction->whole && !any_lost(move->dm, src) &&
		    !hmm_ref_fill_folio(move, i, gfp))
			continue;
		for (k = 0; k < nr && rc != -ENOMEM; k++)
			rc = hmm_ref_fill_page(move, i, k, gfp);
	}
	return 0;
}

/**
 * hmm_ref_evict_run() - move contiguous device pages to system memory
 * @dev: device, with its evict_lock held
 * @pfn: page frame number of the first page
 * @npages: number of pages, in one block
 * @tried: incremented by the number of pages that were in use
 *
 * A large folio moves as a unit even if only a part of it is in the range.
 *
 * Context: may sleep and enter reclaim; no folio lock held.
 * Return: pages moved.
 */
unsigned long __weak hmm_ref_evict_run(struct hmm_ref_device *dev,
				       unsigned long pfn, unsigned long npages,
				       unsigned long *tried)
{
	unsigned long first = pfn, last = pfn + npages;
	struct eviction eviction = {};
	struct hmm_ref_move *move = &eviction.move;
	unsigned long moved;
	int rc;

	lockdep_assert_held(&dev->evict_lock);
	widen(&first, &last);
	if (WARN_ON_ONCE(last - first > HMM_REF_BLOCK_PAGES))
		return 0;
	eviction.whole = !is_partly_mapped(pfn_to_page(first));
	hmm_ref_move_init(move, &dev->dm, &dev->evict_scratch);
	move->first_pfn = first;
	move->args.npages = last - first;
	memset(move->args.dst, 0, move->args.npages * sizeof(*move->args.dst));
	move->fill = fill_evicted;
	move->cause = HMM_REF_BY_EVICTION;
	rc = hmm_ref_migrate(move);
	*tried += eviction.tried;
	moved = move->moved;
	/* Smaller copies may succeed, unless the engine is dead. */
	if (rc && rc != -ETIMEDOUT && rc != -ENODEV && eviction.whole) {
		eviction.whole = false;
		memset(move->args.dst, 0,
		       move->args.npages * sizeof(*move->args.dst));
		hmm_ref_migrate(move);
		moved += move->moved;
	}
	hmm_ref_count(dev->counters, evicted, moved);
	return moved;
}

/* ---- eviction for room, or of all pages -------------------------------- */

/* One pass over a block, which is then put. Return: pages moved. */
static unsigned long evict_pass(struct hmm_ref_device *dev,
				struct hmm_ref_block *block)
{
	unsigned long tried = 0, moved;
	u64 begin = 0;

	if (trace_hmm_ref_evict_enabled())
		begin = ktime_get_ns();
	moved = hmm_ref_evict_run(dev, hmm_ref_block_pfn(block),
				  HMM_REF_BLOCK_PAGES, &tried);
	trace_hmm_ref_evict(block, tried, moved, false, begin);
	hmm_ref_chunk_put(block->chunk);
	return moved;
}

/**
 * hmm_ref_evict_some() - evict from one block
 * @dev: device
 * @scattered: enough pages are free, but no block is whole: choose the block
 *	with the fewest used pages first, instead of the least recently filled
 *
 * Context: may sleep and enter reclaim; no folio lock and no mmap_lock held.
 * Return: 0 if pages have left, -ENOSPC if none can at the moment, -EINTR.
 */
int hmm_ref_evict_some(struct hmm_ref_device *dev, bool scattered)
{
	struct hmm_ref_block *block;
	unsigned int tries = 0;
	int rc = -ENOSPC;

	if (mutex_lock_killable(&dev->evict_lock))
		return -EINTR;
	while (rc && tries++ < EVICT_TRIES && !READ_ONCE(dev->dm.stopped)) {
		block = scattered ? hmm_ref_devmem_emptiest(&dev->dm) : NULL;
		scattered = false;
		if (!block)
			block = hmm_ref_devmem_victim(&dev->dm);
		if (!block)
			break;
		if (evict_pass(dev, block))
			rc = 0;
	}
	mutex_unlock(&dev->evict_lock);
	return rc;
}

/* Evict until all is reserved. Each page that is freed restarts the timeout. */
static int evict_for(struct hmm_ref_client *client, struct hmm_ref_room *room,
		     unsigned long nr, bool whole, unsigned long called)
{
	struct hmm_ref_device *dev = client->dev;
	struct hmm_ref_devmem *dm = &dev->dm;
	unsigned long begin = called;
	unsigned long had;
	bool scattered;
	int rc;

	if (time_before(begin, dev->last_room))
		begin = dev->last_room;
	for (;;) {
		had = room->nr;
		rc = hmm_ref_devmem_reserve(dm, room, nr, whole);
		if (rc != -ENOSPC)
			return rc;
		scattered = whole &&
			    hmm_ref_devmem_available(dm) >= HMM_REF_BLOCK_PAGES;
		rc = hmm_ref_evict_some(dev, scattered);
		if (rc == -EINTR)
			return rc;
		if (!rc || room->nr > had)
			begin = jiffies;
		dev->last_room = begin;
		if (rc && time_after(jiffies, begin + HMM_REF_PATIENCE))
			return -ENOSPC;
		if (rc)
			schedule_timeout_killable(1);
		rc = hmm_ref_mirror_insist(&client->mirror, called,
					   MAX_JIFFY_OFFSET);
		if (rc)
			return rc;
	}
}

/**
 * hmm_ref_make_room() - reserve pages of a device that is full
 * @client: client that needs them
 * @room: reservation, given up before the wait
 * @nr: number of single pages that it is to hold
 * @whole: reserve a whole block for a large folio instead
 *
 * One task at a time evicts, and keeps each page that becomes free until it has
 * enough; other tasks queue in order, and hold no reservation. Pages that are
 * reserved but not yet handed out cannot be evicted, so it waits for them.
 *
 * Context: may sleep and enter reclaim; no folio lock and no mmap_lock held.
 * Return: 0; or, with all free single pages in @room, -ENOSPC if no page has
 * become free for some time, -ENOMEM if there is too little system memory for a
 * chunk, -ENODEV or -EINTR.
 */
int hmm_ref_make_room(struct hmm_ref_client *client, struct hmm_ref_room *room,
		      unsigned long nr, bool whole)
{
	struct hmm_ref_devmem *dm = &client->dev->dm;
	unsigned long called = jiffies;
	int rc;

	hmm_ref_devmem_unreserve(dm, room);
	atomic_inc(&dm->nr_waiting);
	/* A signal ends the wait, with a delay: see hmm_ref_mirror_insist(). */
	while ((rc = mutex_lock_interruptible(&dm->room_lock))) {
		rc = hmm_ref_mirror_insist(&client->mirror, called,
					   MAX_JIFFY_OFFSET);
		if (rc)
			break;
		schedule_timeout_killable(1);
	}
	if (!rc) {
		rc = evict_for(client, room, nr, whole, called);
		mutex_unlock(&dm->room_lock);
	}
	atomic_dec(&dm->nr_waiting);
	return rc;
}

/**
 * hmm_ref_evict_all() - move all pages of a stopped device to system memory
 * @dev: stopped device
 * @timeout: jiffies without progress after which to give up
 *
 * Locked pages, faults in flight, a lack of memory or a failing engine may
 * delay this. Any decrease in the number of used pages is progress. Gives up at
 * once if the device is lost, or if it is removed while the system is about to
 * sleep: then the removal evicts.
 *
 * Return: whether the device is empty.
 */
bool hmm_ref_evict_all(struct hmm_ref_device *dev, unsigned long timeout)
{
	unsigned long used, fewest = ULONG_MAX;
	unsigned long end = jiffies + timeout;
	unsigned int delay_ms = 1;
	struct hmm_ref_block *block;
	unsigned long moved;

	while ((used = hmm_ref_devmem_used(&dev->dm))) {
		if (used < fewest) {
			fewest = used;
			end = jiffies + timeout;
			delay_ms = 1;
		}
		if (time_after(jiffies, end) || READ_ONCE(dev->dm.lost))
			return false;
		if (READ_ONCE(dev->gone) &&
		    dev->dm.stopped == HMM_REF_STOPPED_TO_SLEEP)
			return false;
		mutex_lock(&dev->evict_lock);
		block = hmm_ref_devmem_victim(&dev->dm);
		moved = block ? evict_pass(dev, block) : 0;
		mutex_unlock(&dev->evict_lock);
		if (moved) {
			cond_resched();
			continue;
		}
		msleep(delay_ms);
		delay_ms = min(delay_ms * 2, 100U);
	}
	return true;
}

/* ---- the EVICT commands ------------------------------------------------ */

/* Passes over pages that are locked. */
#define EVICT_PASSES	3

/* True if a page was handed out for an owner. */
static bool is_owned(struct page *page, const struct hmm_ref_owner *owner)
{
	struct folio *folio = page_folio(page);
	bool owned;

	if (!folio_try_get(folio))
		return false;
	owned = folio == page_folio(page) &&
		folio->page.zone_device_data == owner;
	folio_put(folio);
	return owned;
}

/*
 * Checked before each run under evict_lock: a dead engine makes every run slow,
 * and a removal waits for the lock. Return: same as hmm_ref_mirror_insist().
 */
static int insist(struct hmm_ref_client *client, unsigned long began)
{
	return hmm_ref_mirror_insist(&client->mirror, began, MAX_JIFFY_OFFSET);
}

/* One pass over an owner's pages in a block; may stop. Return: pages moved. */
static unsigned long evict_owned(struct hmm_ref_client *client,
				 struct hmm_ref_block *block)
{
	const struct hmm_ref_owner *owner = client->owner;
	unsigned long pfn = hmm_ref_block_pfn(block);
	struct hmm_ref_device *dev = client->dev;
	unsigned long tried = 0, moved = 0;
	unsigned long began = jiffies;
	unsigned long first, last;
	u64 begin = 0;

	if (trace_hmm_ref_evict_enabled())
		begin = ktime_get_ns();
	for (first = 0; first < HMM_REF_BLOCK_PAGES; first = last + 1) {
		for (last = first; last < HMM_REF_BLOCK_PAGES; last++) {
			if (!is_owned(pfn_to_page(pfn + last), owner))
				break;
		}
		if (last == first)
			continue;
		if (insist(client, began))
			break;
		moved += hmm_ref_evict_run(dev, pfn + first, last - first,
					   &tried);
	}
	if (tried)
		trace_hmm_ref_evict(block, tried, moved, true, begin);
	return moved;
}

/* One pass over a chunk. Return: 0 or -errno. */
static int evict_owned_chunk(struct hmm_ref_client *client,
			     struct hmm_ref_chunk *chunk,
			     unsigned long *evicted)
{
	struct hmm_ref_device *dev = client->dev;
	unsigned long moved;
	unsigned int i;
	int rc = 0;

	for (i = 0; !rc && i < chunk->nr_blocks; i++) {
		if (!READ_ONCE(chunk->blocks[i].nr_used))
			continue;
		if (mutex_lock_killable(&dev->evict_lock))
			return -EINTR;
		moved = evict_owned(client, &chunk->blocks[i]);
		mutex_unlock(&dev->evict_lock);
		*evicted += moved;
		cond_resched();
		/* The next call restarts at the first block: progress first. */
		rc = moved ? hmm_ref_mirror_interrupted(&client->mirror) : 0;
		if (!rc && fatal_signal_pending(current))
			rc = -EINTR;
		if (!rc && READ_ONCE(dev->gone))
			rc = -ENODEV;
	}
	return rc;
}

/* One pass over all chunks. Return: 0 or -errno. */
static int evict_all_owned(struct hmm_ref_client *client,
			   unsigned long *evicted)
{
	struct hmm_ref_chunk *chunk;
	unsigned long index = 0;
	int rc = 0;

	while (!rc &&
	       (chunk = hmm_ref_devmem_next_chunk(&client->dev->dm, &index))) {
		rc = evict_owned_chunk(client, chunk, evicted);
		hmm_ref_chunk_put(chunk);
	}
	return rc;
}

/**
 * hmm_ref_evict_client() - evict the pages that were handed out for a client
 * @client: client of any process
 * @tally: outcome, also set on error
 *
 * Context: may sleep and enter reclaim.
 * Return: 0 or -errno.
 */
int hmm_ref_evict_client(struct hmm_ref_client *client,
			 struct hmm_ref_tally *tally)
{
	unsigned int pass;
	int rc = 0;

	*tally = (struct hmm_ref_tally){};
	for (pass = 0; !rc && pass < EVICT_PASSES; pass++) {
		rc = evict_all_owned(client, &tally->moved);
		if (!hmm_ref_owner_pages(client->owner))
			break;
	}
	tally->skipped = hmm_ref_owner_pages(client->owner);
	return tally->skipped ? rc : 0;
}

/*
 * Evict the pages with the first @nr numbers of @dpfns, in runs that end at
 * block boundaries. A page that has left since may hold other data, which is
 * evicted too, or may be gone. Adds to @moved. Return: 0, -EINTR or -ENODEV.
 */
static int evict_these(struct hmm_ref_client *client,
		       const unsigned long *dpfns, unsigned long nr,
		       unsigned long *moved)
{
	struct hmm_ref_device *dev = client->dev;
	unsigned long began = jiffies;
	unsigned long tried = 0;
	unsigned long i, run, pfn;
	int rc = 0;

	if (mutex_lock_killable(&dev->evict_lock))
		return -EINTR;
	for (i = 0; i < nr && !(rc = insist(client, began)); i += run) {
		struct hmm_ref_block *block =
			hmm_ref_devmem_get_block(&dev->dm, dpfns[i]);

		for (run = 1; i + run < nr && dpfns[i + run] == dpfns[i] + run;
		     run++) {
			if (IS_ALIGNED(dpfns[i + run], HMM_REF_BLOCK_PAGES))
				break;
		}
		if (!block)
			continue;
		pfn = hmm_ref_block_pfn(block) + dpfns[i] % HMM_REF_BLOCK_PAGES;
		*moved += hmm_ref_evict_run(dev, pfn, run, &tried);
		hmm_ref_chunk_put(block->chunk);
	}
	mutex_unlock(&dev->evict_lock);
	return rc;
}

static int evict_window(struct hmm_ref_client *client, unsigned long start,
			unsigned long end, unsigned long *pfns,
			struct hmm_ref_tally *tally)
{
	struct hmm_ref_mirror *mirror = &client->mirror;
	unsigned long npages = (end - start) >> PAGE_SHIFT;
	unsigned long before, resident, moved = 0;
	unsigned int pass;
	int rc;

	rc = hmm_ref_mirror_resident(mirror, start, end, pfns, &resident);
	before = resident;
	for (pass = 0; !rc && resident && pass < EVICT_PASSES; pass++) {
		rc = evict_these(client, pfns, resident, &moved);
		if (rc)
			break;
		rc = hmm_ref_mirror_resident(mirror, start, end, pfns,
					     &resident);
	}
	if (rc)
		return rc;
	/* Large folios may have moved more, and pages may be back. */
	moved = min(moved, before - min(before, resident));
	tally->moved += moved;
	tally->skipped += resident;
	tally->already += npages - moved - resident;
	return 0;
}

/**
 * hmm_ref_evict_range() - evict the pages of a range
 * @client: client of the current process
 * @start: page address
 * @end: page address, exclusive
 * @tally: outcome for the pages starting at @start, also set on error
 *
 * Context: process context; takes mmap_lock, may enter reclaim.
 * Return: 0 or -errno.
 */
int hmm_ref_evict_range(struct hmm_ref_client *client, unsigned long start,
			unsigned long end, struct hmm_ref_tally *tally)
{
	struct hmm_ref_mirror *mirror = &client->mirror;
	unsigned long *pfns = hmm_ref_mirror_get_buffer(mirror);
	int rc = 0;

	*tally = (struct hmm_ref_tally){};
	if (!pfns)
		return -ENOMEM;
	while (!rc && start < end) {
		unsigned long next;

		rc = hmm_ref_mirror_next_present(mirror, start, end, 0, &next);
		if (rc)
			break;
		tally->already += (next - start) >> PAGE_SHIFT;
		start = next;
		next = min(end, ALIGN(start + 1, PMD_SIZE));
		if (start < end)
			rc = evict_window(client, start, next, pfns, tally);
		start = next;
		if (!rc && start < end)
			rc = hmm_ref_mirror_interrupted(mirror);
	}
	hmm_ref_mirror_put_buffer(mirror, pfns);
	return rc;
}
