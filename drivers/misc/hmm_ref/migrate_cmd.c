// SPDX-License-Identifier: GPL-2.0-only
/*
 * The MIGRATE command: moves a range of a process, window by window, in either
 * direction.
 *
 * A window is at most a block. For each one:
 *
 *   look       at the VMA, and at the pages that are on the device already
 *   migrate    by hmm_ref_migrate(), which determines how many device pages are
 *              needed, and reserves all of them or fails with -ENOSPC
 *   make room  without locks, since that may evict; then start over
 *   peers      move pages from other devices: directly if this device can
 *              reach the other one, otherwise through system memory
 *   retry      for pages that other tasks had locked, a few times
 *   count      the pages by outcome
 *
 * Rules:
 * - Pages that are resident or cannot move reserve and evict nothing.
 * - Looking comes before setup, because it waits for invalidating tasks. One of
 *   them, UFFDIO_MOVE, waits for pages that setup has locked.
 * - If no more room can be made, as many pages move as fit.
 * - A peer is used in an SRCU section of its own hmm_ref_device::unplug. Two
 *   devices may take pages of each other, so no lock of a peer is taken except
 *   page locks, which are only tried. A page moves through system memory only
 *   once room for it is reserved.
 * - The first error ends the command. So does any signal, between two windows.
 */
#include <linux/dax.h>
#include <linux/hugetlb_inline.h>
#include <linux/pagemap.h>
#include <linux/sched.h>
#include <linux/sched/mm.h>
#include <linux/sched/signal.h>
#include <linux/userfaultfd_k.h>

#include "hmm_ref.h"
#include "trace.h"

/* Passes over a window while other tasks hold its pages locked. */
#define MIGRATE_TRIES	3

/* Attempts to make room for a window, as its need may grow each time. */
#define MIGRATE_ROUNDS	4

/**
 * enum room_state - knowledge about the room for a window
 * @ROOM_ASSUMED: assumed to suffice, as for most windows
 * @ROOM_SOUGHT: all pages were looked at, and the device has grown or evicted
 *	to make room for those that need it
 * @ROOM_NONE: no more room can be made
 */
enum room_state {
	ROOM_ASSUMED,
	ROOM_SOUGHT,
	ROOM_NONE,
};

/**
 * enum window_state - result of a pass over a window
 * @WINDOW_UNTOUCHED: nothing was done: no VMA, or one that does not migrate, or
 *	the device has to grow first
 * @WINDOW_HANDLED: its pages have moved or cannot
 */
enum window_state {
	WINDOW_UNTOUCHED,
	WINDOW_HANDLED,
};

/**
 * struct window - addresses that are migrated at a time
 * @range: range to look up resident pages in, or NULL
 * @peer: device that pages come from, with its unplug section entered; or NULL
 *	for system memory
 * @start: user address
 * @end: user address; the look cuts it to the VMA
 * @vm_flags: flags of the VMA
 * @select: MIGRATE_VMA_SELECT_COMPOUND to move a large folio without splitting
 *	it, or 0
 * @wanted: upper bound of the pages that may move, found by the look
 * @room_state: knowledge about the room
 * @rounds: number of times that room was made
 * @room: reservation
 * @need: pages that the migration needs, found by setup
 * @whole: whether it needs them as one large folio, found by setup
 * @state: result of the last pass
 * @moved: pages that have moved
 * @refused: pages of a kind that does not move
 */
struct window {
	struct hmm_ref_range *range;
	struct hmm_ref_device *peer;
	unsigned long start;
	unsigned long end;
	vm_flags_t vm_flags;
	unsigned long select;
	unsigned long wanted;
	enum room_state room_state;
	unsigned int rounds;
	struct hmm_ref_room room;
	unsigned long need;
	bool whole;
	enum window_state state;
	unsigned long moved;
	unsigned long refused;
};

static unsigned long window_pages(const struct window *w)
{
	return (w->end - w->start) >> PAGE_SHIFT;
}

/* ---- looking ----------------------------------------------------------- */

static unsigned long peek(struct hmm_ref_client *client, const struct window *w,
			  struct hmm_ref_device *dev, unsigned long end)
{
	if (!w->range)
		return 0;
	return hmm_ref_range_peek(&dev->dm, w->range, w->start, end,
				  client->scratch.dst);
}

/*
 * Unreadable mappings cannot be looked at, and the device has no use for them.
 * A shared mapping has no anonymous pages. A userfaultfd in RWP mode must see
 * each access, so all pages stay: hmm_range_fault() does not report accesses to
 * pages on the device.
 *
 * Pages already on the device need no room. Usually, either all pages of a
 * window are on the device or none, so the first page decides whether to check
 * the rest.
 */
static void look_to_device(struct hmm_ref_client *client, struct window *w,
			   struct vm_area_struct *vma)
{
	if (!hmm_ref_takes_large(&client->dev->dm))
		w->select = 0;
	if (w->vm_flags & VM_SPECIAL || is_vm_hugetlb_page(vma) ||
	    vma_is_dax(vma))
		return; /* setup refuses these */
	if (!(w->vm_flags & VM_READ) || w->vm_flags & VM_MAYSHARE ||
	    userfaultfd_rwp(vma)) {
		w->refused = w->wanted;
		w->wanted = 0;
		return;
	}
	if (w->peer)
		w->wanted = peek(client, w, w->peer, w->end);
	else if (w->room_state != ROOM_ASSUMED ||
		 peek(client, w, client->dev, w->start + PAGE_SIZE))
		w->wanted -= peek(client, w, client->dev, w->end);
}

/* Look up the VMA and the pages that may move. Return: the VMA, or NULL. */
static struct vm_area_struct *look(struct hmm_ref_client *client,
				   enum hmm_ref_way way, struct window *w)
{
	struct vm_area_struct *vma = vma_lookup(client->mirror.mm, w->start);

	if (!vma)
		return NULL;
	w->end = min(w->end, vma->vm_end);
	w->vm_flags = vma->vm_flags;
	w->refused = 0;
	w->wanted = window_pages(w);
	if (w->end - w->start < PMD_SIZE)
		w->select = 0;
	if (way == HMM_REF_SYS_TO_DEV)
		look_to_device(client, w, vma);
	return vma;
}

/* ---- moving ------------------------------------------------------------ */

static void move_init(struct hmm_ref_move *move, struct hmm_ref_device *dev,
		      struct hmm_ref_client *client, const struct window *w,
		      struct vm_area_struct *vma)
{
	hmm_ref_move_init(move, &dev->dm, &client->scratch);
	move->args.vma = vma;
	move->args.start = w->start;
	move->args.end = w->end;
	move->args.flags = w->select;
}

/*
 * Move pages from a peer that is reached or, without one, from system memory.
 * Return: same as move_to_device().
 */
static int move_from(struct hmm_ref_client *client, struct window *w,
		     struct vm_area_struct *vma, struct hmm_ref_device *peer)
{
	struct hmm_ref_to_device to = {
		.owner = client->owner,
		.room = &w->room,
		.folios = client->scratch.folios,
		.all = w->room_state != ROOM_NONE,
	};
	int rc;

	move_init(&to.move, client->dev, client, w, vma);
	hmm_ref_move_from(&to.move, peer ? &peer->dm : NULL);
	to.move.fill = hmm_ref_fill_device;
	rc = hmm_ref_migrate(&to.move);
	if (rc == -EINVAL)
		return rc;
	atomic_long_add(to.move.moved, &client->owner->to_device);
	if (peer)
		hmm_ref_count(peer->counters, to_peers, to.move.moved);
	w->need = to.need;
	w->whole = to.whole;
	w->refused = to.refused;
	w->moved += to.move.moved;
	w->state = WINDOW_HANDLED;
	return rc;
}

/* It is not known whether the peer has a large folio: assume one if it may. */
static int reserve_for_peer(struct hmm_ref_client *client, struct window *w)
{
	w->need = w->wanted;
	w->whole = w->select && w->wanted == HMM_REF_BLOCK_PAGES &&
		   hmm_ref_has_large(&w->peer->dm);
	return hmm_ref_devmem_try_reserve(&client->dev->dm, &w->room, w->need,
					  w->whole);
}

/*
 * Pages that cannot continue to the device stay in system memory. Return: as
 * move_to_device(); -EIO if the peer is lost.
 */
static int move_by_system(struct hmm_ref_client *client, struct window *w,
			  struct vm_area_struct *vma)
{
	struct hmm_ref_move out;
	int rc, in_rc;

	rc = reserve_for_peer(client, w);
	if (rc)
		return rc;
	move_init(&out, w->peer, client, w, vma);
	out.cause = HMM_REF_BY_PEER;
	rc = hmm_ref_to_system(&out);
	if (rc == -EINVAL)
		return rc;
	hmm_ref_count(w->peer->counters, to_peers, out.moved);
	in_rc = move_from(client, w, vma, NULL);
	if (rc == -ENODEV)
		return -EIO;
	return rc ?: in_rc;
}

static int move_from_peer(struct hmm_ref_client *client, struct window *w,
			  struct vm_area_struct *vma)
{
	struct hmm_ref_hw *hw = client->dev->dm.hw;
	int rc;

	if (!hw->ops->reaches || !hw->ops->reaches(hw, w->peer->dm.hw))
		return move_by_system(client, w, vma);
	rc = move_from(client, w, vma, w->peer);
	if (rc != -E2BIG)
		return rc;
	/* If a large folio has lost data, its other pages move one by one. */
	w->select = 0;
	return move_from(client, w, vma, w->peer);
}

/* Return: 0; -EAGAIN if the device must grow first; -ENOSPC; or -errno. */
static int move_to_device(struct hmm_ref_client *client, struct window *w,
			  struct vm_area_struct *vma)
{
	if (!w->wanted) {
		w->state = WINDOW_HANDLED;
		return 0;
	}
	if (w->room_state == ROOM_ASSUMED &&
	    hmm_ref_devmem_may_grow(&client->dev->dm, w->wanted, w->select))
		return -EAGAIN;
	return w->peer ? move_from_peer(client, w, vma) :
			 move_from(client, w, vma, NULL);
}

static int move_to_system(struct hmm_ref_client *client, struct window *w,
			  struct vm_area_struct *vma)
{
	struct hmm_ref_move move;
	int rc;

	move_init(&move, client->dev, client, w, vma);
	move.cause = HMM_REF_BY_COMMAND;
	rc = hmm_ref_to_system(&move);
	if (rc == -EINVAL)
		return rc;
	w->moved += move.moved;
	w->state = WINDOW_HANDLED;
	return rc;
}

/*
 * Look at a window and move the pages that fit.
 * Return: same as move_to_device().
 */
static int move_window(struct hmm_ref_client *client, enum hmm_ref_way way,
		       struct window *w)
{
	struct mm_struct *mm = client->mirror.mm;
	struct vm_area_struct *vma;
	int rc;

	w->state = WINDOW_UNTOUCHED;
	if (mmap_read_lock_killable(mm))
		return -EINTR;
	vma = look(client, way, w);
	if (!vma)
		rc = -EFAULT;
	else if (way == HMM_REF_SYS_TO_DEV)
		rc = move_to_device(client, w, vma);
	else
		rc = move_to_system(client, w, vma);
	mmap_read_unlock(mm);
	return rc;
}

/* ---- making room ------------------------------------------------------- */

/*
 * Room is short: find out exactly how many pages of the window are on the
 * device, which also makes eviction prefer other blocks. Return: 0, -EINTR or
 * -EFAULT.
 */
static int look_closer(struct hmm_ref_client *client, struct window *w)
{
	struct mm_struct *mm = client->mirror.mm;
	int rc = 0;

	if (mmap_read_lock_killable(mm))
		return -EINTR;
	w->room_state = ROOM_SOUGHT;
	if (!look(client, HMM_REF_SYS_TO_DEV, w))
		rc = -EFAULT;
	mmap_read_unlock(mm);
	return rc;
}

/* Return: 0, -EINTR or -EFAULT. */
static int grow(struct hmm_ref_client *client, struct window *w)
{
	int rc = look_closer(client, w);

	if (!rc)
		hmm_ref_devmem_grow(&client->dev->dm, w->wanted, w->select);
	return rc;
}

/* Return: 0, also if no more room can be made, or -errno. */
static int make_room(struct hmm_ref_client *client, struct window *w)
{
	int rc = w->room_state == ROOM_ASSUMED ? look_closer(client, w) : 0;

	if (rc)
		return rc;
	rc = hmm_ref_make_room(client, &w->room, w->need, w->whole);
	if (rc || ++w->rounds == MIGRATE_ROUNDS)
		w->room_state = ROOM_NONE;
	return rc == -ENOSPC || rc == -ENOMEM ? 0 : rc;
}

/*
 * One pass over a window. If room is short, make some and start over; the
 * window may then need more. Return: 0 or -errno.
 */
static int fit_window(struct hmm_ref_client *client, enum hmm_ref_way way,
		      struct window *w)
{
	int rc;

	do {
		rc = move_window(client, way, w);
		if (rc == -EAGAIN && w->state == WINDOW_UNTOUCHED)
			rc = grow(client, w);
		else if (rc == -ENOSPC && w->room_state != ROOM_NONE)
			rc = make_room(client, w);
		else
			break;
	} while (!rc);
	hmm_ref_devmem_unreserve(&client->dev->dm, &w->room);
	return rc == -ENOSPC ? 0 : rc;
}

/* ---- the MIGRATE command ----------------------------------------------- */

/* Count the pages of a window up to @end that are not where they should be. */
static unsigned long count_skipped(struct hmm_ref_client *client,
				   enum hmm_ref_way way, const struct window *w,
				   unsigned long end, unsigned long moved)
{
	unsigned long nr = (end - w->start) >> PAGE_SHIFT;
	unsigned long resident;

	/* Unreadable: hmm_range_fault() cannot look. */
	if (!(w->vm_flags & VM_READ) ||
	    hmm_ref_mirror_resident(&client->mirror, w->start, end,
				    client->scratch.dst, &resident))
		return nr - min(moved, nr);
	return way == HMM_REF_SYS_TO_DEV ? nr - resident : resident;
}

static struct window window_at(struct hmm_ref_client *client,
			       const struct hmm_ref_migration *m,
			       struct hmm_ref_range *range, unsigned long start,
			       unsigned long end)
{
	struct window w = { .range = range, .start = start, .end = end };

	if (m->flags & HMM_REF_KEEP_LARGE && end - start == PMD_SIZE &&
	    hmm_ref_has_large(&client->dev->dm))
		w.select = MIGRATE_VMA_SELECT_COMPOUND;
	return w;
}

/* ---- other devices ----------------------------------------------------- */

/* Move the pages of a window that are on one peer. Return: 0 or -errno. */
static int fit_peer(struct hmm_ref_client *client,
		    const struct hmm_ref_migration *m,
		    struct hmm_ref_device *peer, struct window *w)
{
	struct window its = window_at(client, m, w->range, w->start, w->end);
	int section = srcu_read_lock(&peer->unplug);
	int rc = 0;

	if (!READ_ONCE(peer->gone) && hmm_ref_devmem_used(&peer->dm)) {
		its.peer = peer;
		its.room_state = w->room_state == ROOM_NONE ? ROOM_NONE :
							      ROOM_ASSUMED;
		rc = fit_window(client, m->way, &its);
		w->moved += its.moved;
		if (its.room_state == ROOM_NONE)
			w->room_state = ROOM_NONE;
	}
	srcu_read_unlock(&peer->unplug, section);
	return rc;
}

static int fit_peers(struct hmm_ref_client *client,
		     const struct hmm_ref_migration *m, struct window *w)
{
	struct hmm_ref_device *peer;
	unsigned long index = 0;
	int rc = 0;

	while (!rc && (peer = hmm_ref_device_next(&index))) {
		if (peer != client->dev)
			rc = fit_peer(client, m, peer, w);
		hmm_ref_device_put(peer);
	}
	return rc;
}

/*
 * Complete a pass that ended with @rc. Pages up to @end that could move but did
 * not may be on other devices: move those, if the command asks for it. Set
 * @skipped to the number of pages that still have not moved. Return: @rc if it
 * is an error, otherwise 0 or the error of moving pages from the other devices.
 */
static int complete_window(struct hmm_ref_client *client,
			   const struct hmm_ref_migration *m, struct window *w,
			   unsigned long end, int rc, unsigned long *skipped)
{
	*skipped = count_skipped(client, m->way, w, end, w->moved);
	if (rc || m->way != HMM_REF_SYS_TO_DEV ||
	    !(m->flags & HMM_REF_FROM_PEERS) || *skipped <= w->refused)
		return rc;
	rc = fit_peers(client, m, w);
	*skipped = count_skipped(client, m->way, w, end, w->moved);
	return rc;
}

/* ---- windows ----------------------------------------------------------- */

/*
 * Migrate the window at @addr, and advance @addr past it. Pages that other
 * tasks hold locked are retried, but not for long. Later passes may see fewer
 * pages: the first one determines how many are counted.
 */
static int migrate_window(struct hmm_ref_client *client,
			  struct hmm_ref_migration *m, unsigned long *addr,
			  bool readable)
{
	unsigned long start = *addr;
	unsigned long end = min(m->end, ALIGN(start + 1, PMD_SIZE));
	unsigned long handled = 0, moved, skipped = 0;
	struct hmm_ref_range temporary, *range = NULL;
	unsigned int tries = 1;
	struct window w;
	int rc;

	if (readable && m->way == HMM_REF_SYS_TO_DEV) {
		range = hmm_ref_range_get_to_look(&client->mirror, start,
						  &temporary);
		if (IS_ERR(range))
			return PTR_ERR(range);
	}
	w = window_at(client, m, range, start, end);
	rc = fit_window(client, m->way, &w);
	end = w.end;
	if (w.state == WINDOW_HANDLED)
		handled = window_pages(&w);
	if (w.moved < handled)
		rc = complete_window(client, m, &w, end, rc, &skipped);
	moved = w.moved;
	while (!rc && skipped > w.refused && w.room_state != ROOM_NONE &&
	       tries < MIGRATE_TRIES) {
		trace_hmm_ref_retry(&client->dev->dm, HMM_REF_RETRY_MIGRATE,
				    start, tries);
		tries++;
		w = window_at(client, m, range, start, end);
		w.moved = moved;
		rc = fit_window(client, m->way, &w);
		rc = complete_window(client, m, &w, end, rc, &skipped);
		moved = w.moved;
	}
	if (range)
		hmm_ref_range_put_to_look(range, &temporary);
	*addr = end;

	/* A page that was evicted between two passes has moved twice. */
	moved = min(moved, handled - skipped);
	m->tally.moved += moved;
	m->tally.skipped += skipped;
	m->tally.already += handled - moved - skipped;
	if (!rc && skipped && w.room_state == ROOM_NONE)
		return -ENOMEM;
	return rc;
}

/*
 * Skip holes that no window needs to look at: nothing moves to system memory
 * from a hole, and holes of files are not filled. Advances @addr, and sets
 * @readable to whether the mapping there is readable. Return: 0 or -EINTR.
 */
static int skip_holes(struct hmm_ref_client *client,
		      struct hmm_ref_migration *m, unsigned long *addr,
		      bool *readable)
{
	bool to_device = m->way == HMM_REF_SYS_TO_DEV;
	struct mm_struct *mm = client->mirror.mm;
	struct vm_area_struct *vma;
	unsigned long next = *addr;

	if (mmap_read_lock_killable(mm))
		return -EINTR;
	vma = vma_lookup(mm, next);
	*readable = vma && vma->vm_flags & VM_READ;
	if (vma && !vma_is_dax(vma) && !(to_device && vma_is_anonymous(vma)))
		next = hmm_ref_next_present(vma, next,
					    min(m->end, vma->vm_end));
	mmap_read_unlock(mm);
	if (to_device)
		m->tally.skipped += (next - *addr) >> PAGE_SHIFT;
	else
		m->tally.already += (next - *addr) >> PAGE_SHIFT;
	*addr = next;
	return 0;
}

/**
 * hmm_ref_migrate_range() - migrate a range of any size, window by window
 * @client: client of the current process, or of an mm that the caller keeps
 *	alive
 * @m: range; @m->tally is set
 *
 * Handles at least one window. After that any signal ends it with -EINTR.
 *
 * Context: process context; takes mmap_lock.
 * Return: 0 or -errno; -ERESTARTSYS if nothing was done.
 */
int hmm_ref_migrate_range(struct hmm_ref_client *client,
			  struct hmm_ref_migration *m)
{
	unsigned long addr = m->start;
	bool readable = false;
	u64 begin = 0;
	int rc = 0;

	m->tally = (struct hmm_ref_tally){};
	if (mutex_lock_interruptible(&client->migrate_lock))
		return -ERESTARTSYS;
	if (trace_hmm_ref_migrate_end_enabled())
		begin = ktime_get_ns();
	trace_hmm_ref_migrate_begin(client, m);
	while (addr < m->end && !rc) {
		rc = skip_holes(client, m, &addr, &readable);
		if (!rc && addr < m->end)
			rc = migrate_window(client, m, &addr, readable);
		if (!rc && addr < m->end)
			rc = hmm_ref_mirror_interrupted(&client->mirror);
	}
	trace_hmm_ref_migrate_end(client, m, rc, begin);
	mutex_unlock(&client->migrate_lock);
	if (m->way == HMM_REF_SYS_TO_DEV)
		hmm_ref_count(client->dev->counters, to_device, m->tally.moved);
	else
		hmm_ref_count(client->dev->counters, to_system, m->tally.moved);
	return rc;
}
