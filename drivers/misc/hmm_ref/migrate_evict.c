// SPDX-License-Identifier: GPL-2.0-only
/*
 * Eviction: moving data to system memory without a process that asks for it.
 *
 * The device knows what is to leave, block by block. migrate_device_range() takes its pages,
 * whatever maps them, needs neither VMA nor mmap_lock, and only tries the lock of a page. So
 * one pass proves nothing. Eviction for room takes what it gets and turns to the next
 * block; eviction before the device goes, or sleeps, repeats until no page is used.
 */
#include <linux/delay.h>
#include <linux/mm.h>
#include <linux/sched/signal.h>

#include "hmm_ref.h"
#include "trace.h"

/* Blocks that are tried before the caller has to wait. */
#define EVICT_TRIES	4

/* ---- pages side by side on the device --------------------------------- */

/* Include all of a large folio that the range has a part of. It is in one block. */
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
	return hmm_ref_devmem_any_lost(dm, hmm_ref_folio_dpfn(hmm_ref_src_folio(src)),
				       hmm_ref_src_pages(src));
}

/**
 * struct eviction - a migration of device pages that are side by side
 * @move: the migration
 * @whole: a large folio stays whole where it can
 * @tried: out: pages that were in use
 */
struct eviction {
	struct hmm_ref_move move;
	bool whole;
	unsigned long tried;
};

/*
 * A folio that does not move whole, where no large page can be had or the data of a page is lost,
 * is split by the core: those of its pages move that have a destination. Where system memory is
 * short it ends, with what it has.
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
 * hmm_ref_evict_run() - move pages side by side on the device to system memory
 * @dev: device, whose evict_lock is held
 * @pfn: page frame number of the first page
 * @npages: of them, in one block
 * @tried: pages that were found in use are added to it
 *
 * All of a large folio moves that has a page of them.
 *
 * Context: may sleep and enter reclaim; no folio lock held.
 * Return: pages moved.
 */
unsigned long __weak hmm_ref_evict_run(struct hmm_ref_device *dev, unsigned long pfn,
				       unsigned long npages, unsigned long *tried)
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
	/* What cannot be copied in one piece may be in several; not by an engine that is dead. */
	if (rc && rc != -ETIMEDOUT && rc != -ENODEV && eviction.whole) {
		eviction.whole = false;
		memset(move->args.dst, 0, move->args.npages * sizeof(*move->args.dst));
		hmm_ref_migrate(move);
		moved += move->moved;
	}
	hmm_ref_count(dev->counters, evicted, moved);
	return moved;
}

/* ---- eviction for room, or of all -------------------------------------- */

/* One pass over a block, which is put then. Return: pages moved. */
static unsigned long evict_pass(struct hmm_ref_device *dev, struct hmm_ref_block *block)
{
	unsigned long tried = 0, moved;
	u64 begin = 0;

	if (trace_hmm_ref_evict_enabled())
		begin = ktime_get_ns();
	moved = hmm_ref_evict_run(dev, hmm_ref_block_pfn(block), HMM_REF_BLOCK_PAGES, &tried);
	trace_hmm_ref_evict(block, tried, moved, false, begin);
	hmm_ref_chunk_put(block->chunk);
	return moved;
}

/**
 * hmm_ref_evict_some() - evict from one block
 * @dev: device
 * @scattered: for the sake of a block that is whole: the one with the fewest pages is the
 *	first choice; else the least recently filled
 *
 * Context: may sleep and enter reclaim; no folio lock and no mmap_lock held.
 * Return: 0 when pages have left, -ENOSPC when none can at the moment, -EINTR.
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

/* Evict until the reservation is complete. The device's patience begins anew with each page. */
static int evict_for(struct hmm_ref_client *client, struct hmm_ref_room *room,
		     unsigned long nr, bool whole, unsigned long called)
{
	struct hmm_ref_device *dev = client->dev;
	struct hmm_ref_devmem *dm = &dev->dm;
	unsigned long begin = called;
	unsigned long had;
	int rc;

	if (time_before(begin, dev->last_room))
		begin = dev->last_room;
	for (;;) {
		had = room->nr;
		rc = hmm_ref_devmem_reserve(dm, room, nr, whole);
		if (rc != -ENOSPC)
			return rc;
		rc = hmm_ref_evict_some(dev, whole && hmm_ref_devmem_available(dm) >=
					     HMM_REF_BLOCK_PAGES);
		if (rc == -EINTR)
			return rc;
		if (!rc || room->nr > had)
			begin = jiffies;
		dev->last_room = begin;
		if (rc && time_after(jiffies, begin + HMM_REF_PATIENCE))
			return -ENOSPC;
		if (rc)
			schedule_timeout_killable(1);
		rc = hmm_ref_mirror_insist(&client->mirror, called, MAX_JIFFY_OFFSET);
		if (rc)
			return rc;
	}
}

/**
 * hmm_ref_make_room() - reserve pages of a device that is full
 * @client: that needs them
 * @room: reservation, given up before the wait
 * @nr: single pages that it is to have
 * @whole: a block instead, for a large folio
 *
 * One task at a time evicts, and what comes free is its own until it has enough; the
 * others queue, first come, first served. Pages that others have reserved and not yet
 * filled cannot be evicted, only waited for. No task that queues has reserved any.
 *
 * Context: may sleep and enter reclaim; no folio lock and no mmap_lock held.
 * Return: 0; or, with as many single pages in @room as there are, -ENOSPC when no page has come
 * free for some time, -ENOMEM when the system has no memory to stand for device memory,
 * -ENODEV or -EINTR.
 */
int hmm_ref_make_room(struct hmm_ref_client *client, struct hmm_ref_room *room,
		      unsigned long nr, bool whole)
{
	struct hmm_ref_devmem *dm = &client->dev->dm;
	unsigned long called = jiffies;
	int rc;

	hmm_ref_devmem_unreserve(dm, room);
	atomic_inc(&dm->nr_waiting);
	/* A signal ends the wait, but not at once: see hmm_ref_mirror_insist(). */
	while ((rc = mutex_lock_interruptible(&dm->room_lock))) {
		rc = hmm_ref_mirror_insist(&client->mirror, called, MAX_JIFFY_OFFSET);
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
 * hmm_ref_evict_all() - bring every page of a stopped device to system memory
 * @dev: device that hands out nothing any more
 * @timeout: jiffies without progress until it gives up
 *
 * Pages that someone holds locked, and faults in flight, take their time; a system without memory,
 * or an engine that fails, too. Progress is whatever makes the pages fewer. A device that is lost
 * does not get empty. One that goes while it is about to sleep is left to removal.
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
		if (READ_ONCE(dev->gone) && dev->dm.stopped == HMM_REF_STOPPED_TO_SLEEP)
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

/* Passes over pages that their users hold locked. */
#define EVICT_PASSES	3

/* Is a page handed out for an owner? */
static bool is_owned(struct page *page, const struct hmm_ref_owner *owner)
{
	struct folio *folio = page_folio(page);
	bool owned;

	if (!folio_try_get(folio))
		return false;
	owned = folio == page_folio(page) && folio->page.zone_device_data == owner;
	folio_put(folio);
	return owned;
}

/*
 * May a command that holds evict_lock go on with another run? An engine that is dead takes its time
 * for each, and a removal waits for the lock. Return: as hmm_ref_mirror_insist().
 */
static int insist(struct hmm_ref_client *client, unsigned long began)
{
	return hmm_ref_mirror_insist(&client->mirror, began, MAX_JIFFY_OFFSET);
}

/* One pass over the pages of a block that an owner has, or a part of it. Return: pages moved. */
static unsigned long evict_owned(struct hmm_ref_client *client, struct hmm_ref_block *block)
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
		moved += hmm_ref_evict_run(dev, pfn + first, last - first, &tried);
	}
	if (tried)
		trace_hmm_ref_evict(block, tried, moved, true, begin);
	return moved;
}

/* One pass over a chunk. Return: 0 or -errno. */
static int evict_owned_chunk(struct hmm_ref_client *client, struct hmm_ref_chunk *chunk,
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
		/* The next call begins with the first block: this one must get on. */
		rc = moved ? hmm_ref_mirror_interrupted(&client->mirror) : 0;
		if (!rc && fatal_signal_pending(current))
			rc = -EINTR;
		if (!rc && READ_ONCE(dev->gone))
			rc = -ENODEV;
	}
	return rc;
}

/* One pass over all chunks. Return: 0 or -errno. */
static int evict_all_owned(struct hmm_ref_client *client, unsigned long *evicted)
{
	struct hmm_ref_chunk *chunk;
	unsigned long index = 0;
	int rc = 0;

	while (!rc && (chunk = hmm_ref_devmem_next_chunk(&client->dev->dm, &index))) {
		rc = evict_owned_chunk(client, chunk, evicted);
		hmm_ref_chunk_put(chunk);
	}
	return rc;
}

/**
 * hmm_ref_evict_client() - evict all pages that the migrations of a client have taken
 * @client: open file of any process
 * @tally: set, also on error
 *
 * Context: may sleep and enter reclaim.
 * Return: 0 or -errno.
 */
int hmm_ref_evict_client(struct hmm_ref_client *client, struct hmm_ref_tally *tally)
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
 * The pages with the first @nr numbers of @dpfns, in runs that end with their blocks. Pages
 * that have left may be other data's by now, which leaves, too, or gone. Adds to @moved.
 * Return: 0, -EINTR or -ENODEV.
 */
static int evict_these(struct hmm_ref_client *client, const unsigned long *dpfns,
		       unsigned long nr, unsigned long *moved)
{
	struct hmm_ref_device *dev = client->dev;
	unsigned long began = jiffies;
	unsigned long tried = 0;
	unsigned long i, run;
	int rc = 0;

	if (mutex_lock_killable(&dev->evict_lock))
		return -EINTR;
	for (i = 0; i < nr && !(rc = insist(client, began)); i += run) {
		struct hmm_ref_block *block = hmm_ref_devmem_get_block(&dev->dm, dpfns[i]);

		for (run = 1; i + run < nr && dpfns[i + run] == dpfns[i] + run; run++) {
			if (IS_ALIGNED(dpfns[i + run], HMM_REF_BLOCK_PAGES))
				break;
		}
		if (!block)
			continue;
		*moved += hmm_ref_evict_run(dev, hmm_ref_block_pfn(block) +
					    dpfns[i] % HMM_REF_BLOCK_PAGES, run, &tried);
		hmm_ref_chunk_put(block->chunk);
	}
	mutex_unlock(&dev->evict_lock);
	return rc;
}

static int evict_window(struct hmm_ref_client *client, unsigned long start,
			unsigned long end, unsigned long *pfns, struct hmm_ref_tally *tally)
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
		rc = hmm_ref_mirror_resident(mirror, start, end, pfns, &resident);
	}
	if (rc)
		return rc;
	/* Others of a large folio may have come along, and some pages may have come back. */
	moved = min(moved, before - min(before, resident));
	tally->moved += moved;
	tally->skipped += resident;
	tally->already += npages - moved - resident;
	return 0;
}

/**
 * hmm_ref_evict_range() - evict the pages of a range
 * @client: open file of the current process
 * @start: page address
 * @end: page address
 * @tally: set, for the pages from @start on, also on error
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
