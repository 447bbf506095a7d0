// SPDX-License-Identifier: GPL-2.0-only
/*
 * Promises of device pages to migrations.
 *
 * A reservation of single pages is a count, not a set of pages:
 *
 *   used + reserved + retired  <=  pages in chunks
 *
 * so every reservation finds a free page. The sum is raised, and a chunk taken away, under
 * dm->lock, where it is compared; folio_free lowers it after the page can be found. For a large
 * folio a block that is whole is reserved: it is counted the same way, and leaves the lists.
 * Retiring pages may break the promise, and handout then comes short.
 *
 * Before the system sleeps all pages have to leave, and none may come: nothing is reserved, and no
 * task waits for room.
 *
 * Reserving never evicts. A migration that finds the device full waits for its turn at
 * dm->room_lock; then it alone makes room, and whatever comes free is its own until it
 * has enough (migrate_evict.c). As long as any task waits, nothing is reserved out of turn.
 */
#include <linux/list.h>
#include <linux/sched/signal.h>

#include "devmem.h"
#include "sanity.h"
#include "trace.h"

/* Add a chunk. Return: 0, -ENOSPC or -ENOMEM. */
static int grow(struct hmm_ref_devmem *dm)
{
	int rc = hmm_ref_devmem_add_chunk(dm);

	/* Whatever the core's reason, there is no memory. */
	return rc && rc != -ENOSPC ? -ENOMEM : rc;
}

/* Are fewer pages free than that, or no block whole? */
static bool is_short(struct hmm_ref_devmem *dm, unsigned long nr, bool whole)
{
	bool is;

	spin_lock_irq(&dm->lock);
	is = hmm_ref_devmem_free_pages(dm) < (long)nr ||
	     (whole && (list_empty(&dm->avail[HMM_REF_BLOCK_ORDER]) ||
			hmm_ref_devmem_free_pages(dm) < (long)HMM_REF_BLOCK_PAGES));
	spin_unlock_irq(&dm->lock);
	return is;
}

/* Reserve what there is, up to @nr single pages in @room. Return: 0 or -ENOSPC. */
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
		return dm->stopped == HMM_REF_STOPPED_TO_SLEEP ? -ENOMEM : -ENODEV;
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
 * hmm_ref_devmem_try_reserve() - promise pages that are free, all or none
 * @dm: device memory
 * @room: reservation, which may have some of them already
 * @nr: single pages that it is to have
 * @whole: a block instead, for a large folio
 *
 * Context: any, folio locks included: does not sleep, and waits for nothing.
 * Return: 0; -ENOSPC when there are too few, or when others wait for them; -ENOMEM when the system
 * is about to sleep; -ENODEV.
 */
int hmm_ref_devmem_try_reserve(struct hmm_ref_devmem *dm, struct hmm_ref_room *room,
			       unsigned long nr, bool whole)
{
	int rc = -ENOSPC;

	if (whole ? !!room->block : room->nr >= nr)
		return 0;
	spin_lock_irq(&dm->lock);
	if (dm->stopped || (!atomic_read(&dm->nr_waiting) &&
			    (whole || hmm_ref_devmem_free_pages(dm) >= (long)(nr - room->nr))))
		rc = promise(dm, room, nr, whole);
	spin_unlock_irq(&dm->lock);
	return rc;
}
EXPORT_SYMBOL_IF_KUNIT(hmm_ref_devmem_try_reserve);

/**
 * hmm_ref_devmem_reserve() - promise pages to a migration
 * @dm: device memory
 * @room: reservation, which may have some of them already
 * @nr: single pages that it is to have
 * @whole: a block instead, for a large folio
 *
 * Adds chunks as far as the capacity allows. Does not evict.
 *
 * Context: may sleep and enter reclaim; no folio lock held, so that nothing waits
 * for the memory behind a half-done migration.
 * Return: 0; or, with as many single pages in @room as there are, -ENOSPC (the device is
 * full), -ENOMEM (no system memory to stand for device memory, or the system is about to sleep),
 * -ENODEV or -EINTR.
 */
int hmm_ref_devmem_reserve(struct hmm_ref_devmem *dm, struct hmm_ref_room *room,
			   unsigned long nr, bool whole)
{
	int rc, grown = 0;

	rc = promise_now(dm, room, nr, whole);
	while (rc == -ENOSPC && !grown) {
		if (fatal_signal_pending(current) || mutex_lock_killable(&dm->grow_lock))
			return -EINTR;
		grown = is_short(dm, whole ? 0 : nr - room->nr, whole) ? grow(dm) : 0;
		/* Under the same lock: a chunk without users may be freed at any time. */
		rc = promise_now(dm, room, nr, whole);
		mutex_unlock(&dm->grow_lock);
	}
	return rc == -ENOSPC ? grown : rc;
}
EXPORT_SYMBOL_IF_KUNIT(hmm_ref_devmem_reserve);

/**
 * hmm_ref_devmem_unreserve() - return what is left of a reservation
 * @dm: device memory
 * @room: emptied
 */
void hmm_ref_devmem_unreserve(struct hmm_ref_devmem *dm, struct hmm_ref_room *room)
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
 * hmm_ref_devmem_available() - how many pages can be reserved, as things are
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
 * hmm_ref_devmem_may_grow() - would a chunk help a migration?
 * @dm: device memory
 * @nr: single pages that it may need
 * @whole: it may need a block
 *
 * Return: true when that is not free, and the capacity not used up.
 */
bool hmm_ref_devmem_may_grow(struct hmm_ref_devmem *dm, unsigned long nr, bool whole)
{
	return READ_ONCE(dm->nr_pages) < dm->capacity && is_short(dm, nr, whole);
}

/**
 * hmm_ref_devmem_grow() - add chunks for a migration that is about to begin
 * @dm: device memory
 * @nr: single pages that it may need
 * @whole: it may need a block
 *
 * Reserves nothing, and is only tried: the migration finds out what it has got.
 *
 * Context: as hmm_ref_devmem_reserve().
 */
void hmm_ref_devmem_grow(struct hmm_ref_devmem *dm, unsigned long nr, bool whole)
{
	int rc = 0;

	while (!rc && !READ_ONCE(dm->stopped) && !fatal_signal_pending(current) &&
	       hmm_ref_devmem_may_grow(dm, nr, whole)) {
		if (mutex_lock_killable(&dm->grow_lock))
			return;
		if (is_short(dm, nr, whole))
			rc = grow(dm);
		mutex_unlock(&dm->grow_lock);
	}
}
