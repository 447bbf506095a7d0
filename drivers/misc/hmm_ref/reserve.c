// SPDX-License-Identifier: GPL-2.0-only
/*
 * Reservation of device pages for migrations.
 *
 * A reservation of single pages is a count, not a set of pages:
 *
 *   used + reserved + retired  <=  pages in chunks
 *
 * so every reservation finds a free page. The sum grows, and chunks are
 * removed, only under dm->lock, where the sum is checked; folio_free lowers it
 * after the page is on the free map. For a large folio a whole block is
 * reserved: it counts with all of its pages, and leaves the lists. Retiring
 * reserved pages may break the invariant; handout then returns fewer pages.
 *
 * Before the system sleeps all pages leave the device. Reservations fail from
 * then on, and no task waits for room.
 *
 * Reserving never evicts. A migration that finds the device full queues for
 * dm->room_lock. Its holder alone makes room, and keeps each page that becomes
 * free until it has enough (migrate_evict.c). While a task waits, other tasks
 * cannot reserve free pages out of turn.
 */
#include <linux/list.h>
#include <linux/sched/signal.h>

#include "devmem.h"
#include "sanity.h"
#include "trace.h"

static int grow(struct hmm_ref_devmem *dm)
{
	int rc = hmm_ref_devmem_add_chunk(dm);

	/* No memory can be added, whatever the reason of the core. */
	return rc && rc != -ENOSPC ? -ENOMEM : rc;
}

/* True if fewer than @nr pages are free or, with @whole, no block. */
static bool is_short(struct hmm_ref_devmem *dm, unsigned long nr, bool whole)
{
	bool is;

	spin_lock_irq(&dm->lock);
	is = hmm_ref_devmem_free_pages(dm) < (long)nr ||
	     (whole &&
	      (list_empty(&dm->avail[HMM_REF_BLOCK_ORDER]) ||
	       hmm_ref_devmem_free_pages(dm) < (long)HMM_REF_BLOCK_PAGES));
	spin_unlock_irq(&dm->lock);
	return is;
}

/* Reserve free pages until @room has @nr single ones. Return: 0 or -ENOSPC. */
static int promise_pages(struct hmm_ref_devmem *dm, struct hmm_ref_room *room,
			 unsigned long nr)
{
	long more = (long)nr - (long)room->nr;

	more = clamp(hmm_ref_devmem_free_pages(dm), 0, max(more, 0));
	if (more) {
		room->nr += more;
		dm->reserved += more;
		hmm_ref_verify_promise(dm);
	}
	return room->nr < nr ? -ENOSPC : 0;
}

/* Reserve a block. Return: 0 or -ENOSPC. */
static int promise_block(struct hmm_ref_devmem *dm, struct hmm_ref_room *room)
{
	struct hmm_ref_block *block;

	if (room->block)
		return 0;
	block = list_first_entry_or_null(&dm->avail[HMM_REF_BLOCK_ORDER],
					 struct hmm_ref_block, avail);
	if (!block || hmm_ref_devmem_free_pages(dm) < (long)HMM_REF_BLOCK_PAGES)
		return -ENOSPC;
	room->block = block;
	hmm_ref_chunk_use(block->chunk);
	WRITE_ONCE(block->reserved, true);
	trace_hmm_ref_block_state(block, HMM_REF_BLOCK_RESERVED);
	block->state = HMM_REF_BLOCK_RESERVED;
	list_del_init(&block->avail);
	dm->reserved += HMM_REF_BLOCK_PAGES;
	hmm_ref_verify_promise(dm);
	return 0;
}

static int promise(struct hmm_ref_devmem *dm, struct hmm_ref_room *room,
		   unsigned long nr, bool whole)
{
	if (dm->stopped)
		return dm->stopped == HMM_REF_STOPPED_TO_SLEEP ? -ENOMEM :
								 -ENODEV;
	return whole ? promise_block(dm, room) : promise_pages(dm, room, nr);
}

static int promise_now(struct hmm_ref_devmem *dm, struct hmm_ref_room *room,
		       unsigned long nr, bool whole)
{
	int rc;

	spin_lock_irq(&dm->lock);
	rc = promise(dm, room, nr, whole);
	spin_unlock_irq(&dm->lock);
	return rc;
}

/**
 * hmm_ref_devmem_try_reserve() - reserve free pages, all or none
 * @dm: device memory
 * @room: reservation, which may hold some of the pages already
 * @nr: number of single pages that it is to hold
 * @whole: reserve a whole block for a large folio instead
 *
 * Context: any, including with folio locks held: does not sleep.
 * Return: 0; -ENOSPC if too few pages are free or other tasks wait for them;
 * -ENOMEM if the system is about to sleep; -ENODEV.
 */
int hmm_ref_devmem_try_reserve(struct hmm_ref_devmem *dm,
			       struct hmm_ref_room *room, unsigned long nr,
			       bool whole)
{
	int rc = -ENOSPC;

	if (whole ? !!room->block : room->nr >= nr)
		return 0;
	spin_lock_irq(&dm->lock);
	if (dm->stopped ||
	    (!atomic_read(&dm->nr_waiting) &&
	     (whole || hmm_ref_devmem_free_pages(dm) >= (long)(nr - room->nr))))
		rc = promise(dm, room, nr, whole);
	spin_unlock_irq(&dm->lock);
	return rc;
}
EXPORT_SYMBOL_IF_KUNIT(hmm_ref_devmem_try_reserve);

/**
 * hmm_ref_devmem_reserve() - reserve pages for a migration
 * @dm: device memory
 * @room: reservation, which may hold some of the pages already
 * @nr: number of single pages that it is to hold
 * @whole: reserve a whole block for a large folio instead
 *
 * Adds chunks as far as the capacity allows. Does not evict.
 *
 * Context: may sleep and enter reclaim. No folio lock is held, since reclaim
 * would wait for the half-done migration.
 * Return: 0; or, with all free single pages in @room, -ENOSPC if the device is
 * full, -ENOMEM if there is too little system memory for a chunk or the system
 * is about to sleep, -ENODEV or -EINTR.
 */
int hmm_ref_devmem_reserve(struct hmm_ref_devmem *dm, struct hmm_ref_room *room,
			   unsigned long nr, bool whole)
{
	int rc, grown = 0;

	rc = promise_now(dm, room, nr, whole);
	while (rc == -ENOSPC && !grown) {
		if (fatal_signal_pending(current) ||
		    mutex_lock_killable(&dm->grow_lock))
			return -EINTR;
		grown = is_short(dm, whole ? 0 : nr - room->nr, whole) ?
			grow(dm) : 0;
		/* Still locked: an unused chunk may be freed at any time. */
		rc = promise_now(dm, room, nr, whole);
		mutex_unlock(&dm->grow_lock);
	}
	return rc == -ENOSPC ? grown : rc;
}
EXPORT_SYMBOL_IF_KUNIT(hmm_ref_devmem_reserve);

/**
 * hmm_ref_devmem_unreserve() - cancel the unused part of a reservation
 * @dm: device memory
 * @room: reservation, empty on return
 */
void hmm_ref_devmem_unreserve(struct hmm_ref_devmem *dm,
			      struct hmm_ref_room *room)
{
	struct hmm_ref_block *block = room->block;

	if (block) {
		spin_lock_irq(&block->lock);
		spin_lock(&dm->lock);
		block->reserved = false;
		dm->reserved -= HMM_REF_BLOCK_PAGES;
		hmm_ref_block_enlist(block);
		hmm_ref_verify_block(block);
		hmm_ref_chunk_unuse(block->chunk);
		spin_unlock(&dm->lock);
		spin_unlock_irq(&block->lock);
		room->block = NULL;
	}
	if (room->nr) {
		spin_lock_irq(&dm->lock);
		dm->reserved -= room->nr;
		spin_unlock_irq(&dm->lock);
		room->nr = 0;
	}
}
EXPORT_SYMBOL_IF_KUNIT(hmm_ref_devmem_unreserve);

/**
 * hmm_ref_devmem_available() - number of pages that can be reserved now
 * @dm: device memory
 *
 * Return: pages.
 */
unsigned long hmm_ref_devmem_available(struct hmm_ref_devmem *dm)
{
	long available;

	spin_lock_irq(&dm->lock);
	available = hmm_ref_devmem_free_pages(dm);
	spin_unlock_irq(&dm->lock);
	return max(available, 0);
}

/**
 * hmm_ref_devmem_may_grow() - test whether a migration needs another chunk
 * @dm: device memory
 * @nr: number of single pages that it may need
 * @whole: it may need a whole block
 *
 * Return: true if these are not free and the capacity is not used up.
 */
bool hmm_ref_devmem_may_grow(struct hmm_ref_devmem *dm, unsigned long nr,
			     bool whole)
{
	return READ_ONCE(dm->nr_pages) < dm->capacity &&
	       is_short(dm, nr, whole);
}

/**
 * hmm_ref_devmem_grow() - add chunks for a migration that is about to begin
 * @dm: device memory
 * @nr: number of single pages that it may need
 * @whole: it may need a whole block
 *
 * Best effort: reserves nothing, and reports no failure. The migration finds
 * out when it reserves.
 *
 * Context: same as hmm_ref_devmem_reserve().
 */
void hmm_ref_devmem_grow(struct hmm_ref_devmem *dm, unsigned long nr,
			 bool whole)
{
	int rc = 0;

	while (!rc && !READ_ONCE(dm->stopped) &&
	       !fatal_signal_pending(current) &&
	       hmm_ref_devmem_may_grow(dm, nr, whole)) {
		if (mutex_lock_killable(&dm->grow_lock))
			return;
		if (is_short(dm, nr, whole))
			rc = grow(dm);
		mutex_unlock(&dm->grow_lock);
	}
}
