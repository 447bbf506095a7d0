// SPDX-License-Identifier: GPL-2.0-only
/*
 * Moving data: to the device and to system memory, for the MIGRATE command.
 *
 * migrate_fault.c moves it for the CPU, migrate_evict.c for room, by the same
 * steps (migrate_common.c) and rules.
 *
 * A migration handles one window, at most a block, with four steps of the core
 * around ours:
 *
 *   look                          at the VMA, and at what is on the device already
 *   migrate_vma_setup()           unmaps and locks the source pages; its notifier
 *                                 zaps them from every device page table first
 *   reserve                       as many device pages as that takes: all, or none and
 *                                 begin again after room was made, which may evict
 *   hand out, queue copies        source pages cannot change; an error here can
 *                                 still be undone
 *   wait for the copies           their error, too
 *   migrate_vma_pages()           commits page by page, and may refuse
 *   migrate_vma_finalize()        maps what won, unlocks and puts both sides
 *
 * Rules:
 * - mmap_lock is held for read from VMA lookup to finalize.
 * - While setup has pages locked nothing waits for room, nor for an invalidation to end as
 *   hmm_range_fault() does: a task that invalidates may wait for these pages. So a window is
 *   looked at before setup, and room is made with no lock held.
 * - What is resident, or cannot move, reserves and evicts nothing.
 * - The first error ends the command.
 * - An entry is moved when its dst is set. Whatever goes wrong, an entry's dst is abandoned
 *   and cleared, and both last steps are done all the same: to skip migrate_vma_pages()
 *   would leave migration entries that point to pages without data.
 * - What happened is in src after migrate_vma_pages(), not in cpages.
 * - A hole has no page: it is cleared on the way to the device, and is none on the way back.
 * - Large folios stay whole. On the way to the device they wait for a block, and stay
 *   where they are if there is none. On the way back, where the system has no large page,
 *   setup comes again and splits them. A large hole is filled with all of its pages or with
 *   none.
 * - Nothing is mapped for the device here. DONTNEED does not wait for page locks, so a page
 *   that has just arrived may be on its way out; range_fault.c maps, under the sequence.
 */
#include <linux/fs.h>
#include <linux/hugetlb_inline.h>
#include <linux/pagemap.h>
#include <linux/sched.h>
#include <linux/sched/mm.h>
#include <linux/sched/signal.h>
#include <linux/userfaultfd_k.h>

#include "migrate.h"
#include "trace.h"

/* Passes over a window in which someone else held pages locked. */
#define MIGRATE_TRIES	3

/* How often room is made for a window that wants more each time. */
#define MIGRATE_ROUNDS	4

/* One pass over one window. */
struct pass {
	unsigned long start;
	unsigned long end;	/* cut to what can be handled at once */
	struct hmm_ref_move move;
	int rc;
	unsigned long wanted;	/* upper bound of the pages that may move */
	bool tried;		/* setup has run: the window counts as handled */
	bool starved;		/* no room could be made */
	unsigned int rounds;	/* times that room was made */
	bool blind;		/* hmm_range_fault() does not look into the VMA */
	bool large;		/* keep large folios whole */
	bool exact;		/* room is short: look at all pages */
	unsigned long moved;
	unsigned long refused;	/* pages of a kind that does not move */
};

static void init_pass(struct hmm_ref_client *client, struct pass *pass,
		      unsigned long start, unsigned long end, bool large)
{
	*pass = (struct pass){
		.start = start,
		.end = end,
		.large = large && end - start == PMD_SIZE &&
			 hmm_ref_has_large(&client->dev->dm),
	};
}

/* ---- looking ----------------------------------------------------------- */

static unsigned long peek(struct hmm_ref_client *client, unsigned long start,
			  unsigned long end)
{
	return hmm_ref_mirror_peek(&client->mirror, start, end, client->window.dst);
}

/*
 * What cannot be read cannot be looked at, and is of no use for the device. A shared mapping
 * has no anonymous pages. Where a userfaultfd wants to know of each access all pages stay,
 * since hmm_range_fault() does not tell of that once they are on the device. What is on the
 * device already needs no room; most windows have all of their pages there or none, so the
 * first page tells whether to look at the others.
 */
static void look_to_device(struct hmm_ref_client *client, struct pass *pass)
{
	struct migrate_vma *args = &pass->move.args;
	vm_flags_t flags = args->vma->vm_flags;

	pass->large &= hmm_ref_takes_large(&client->dev->dm);
	if (flags & VM_SPECIAL || is_vm_hugetlb_page(args->vma) || vma_is_dax(args->vma))
		return; /* for setup to refuse */
	if (!(flags & VM_READ) || flags & VM_MAYSHARE || userfaultfd_rwp(args->vma)) {
		pass->refused = pass->wanted;
		pass->wanted = 0;
		return;
	}
	if (pass->exact || peek(client, args->start, args->start + PAGE_SIZE))
		pass->wanted -= peek(client, args->start, args->end);
}

/*
 * Look up the VMA, and what of it may move. This waits for those who invalidate, and
 * UFFDIO_MOVE, one of them, for pages that setup has locked.
 */
static int look_pass(struct hmm_ref_client *client, u32 direction, struct pass *pass)
{
	struct migrate_vma *args = &pass->move.args;

	args->start = pass->start;
	args->vma = vma_lookup(client->mirror.notifier.mm, pass->start);
	if (!args->vma)
		return -EFAULT;
	args->end = min(pass->end, args->vma->vm_end);
	pass->blind = !(args->vma->vm_flags & VM_READ);
	pass->refused = 0;
	pass->wanted = (args->end - args->start) >> PAGE_SHIFT;
	if (direction == HMM_REF_TO_DEVICE)
		look_to_device(client, pass);
	pass->end = args->end;
	pass->large &= args->end - args->start == PMD_SIZE;
	return 0;
}

/* ---- a pass ------------------------------------------------------------ */

/* All that happens to a window that was looked at, from setup to finalize. */
static int move_to_device(struct hmm_ref_client *client, struct pass *pass,
			  struct hmm_ref_room *room)
{
	struct hmm_ref_move *move = &pass->move;
	int rc;

	rc = hmm_ref_to_device_begin(client, move, &client->window, pass->large, room,
				     !pass->starved);
	if (rc)
		return rc;
	pass->moved += hmm_ref_to_device_end(client, move);
	pass->refused = move->refused;
	return move->rc;
}

/* The same the other way. What cannot stay whole is begun again, as single pages. */
static int move_to_system(struct hmm_ref_client *client, struct pass *pass)
{
	unsigned long moved;
	int rc;

	rc = hmm_ref_to_system(&client->dev->dm, &pass->move, &client->window,
			       pass->large, HMM_REF_BY_COMMAND, &moved);
	pass->moved += moved;
	return rc;
}

/*
 * Look at a window, and move what there is room for. Return: 0, -ENOSPC when there is not
 * enough, -EAGAIN when the device has to grow first, or an errno of the uapi.
 */
static int move_pass(struct hmm_ref_client *client, u32 direction, struct pass *pass,
		     struct hmm_ref_room *room, bool may_grow)
{
	struct hmm_ref_devmem *dm = &client->dev->dm;
	struct mm_struct *mm = client->mirror.notifier.mm;
	int rc;

	if (mmap_read_lock_killable(mm))
		return -EINTR;
	rc = look_pass(client, direction, pass);
	if (rc)
		goto out;
	if (direction == HMM_REF_TO_SYSTEM)
		rc = move_to_system(client, pass);
	else if (may_grow && pass->wanted &&
		 hmm_ref_devmem_may_grow(dm, pass->wanted, pass->large))
		rc = -EAGAIN;
	else if (pass->wanted)
		rc = move_to_device(client, pass, room);
	pass->tried = rc != -EINVAL && rc != -EAGAIN;
out:
	mmap_read_unlock(mm);
	return rc;
}

/*
 * Room is short: count what of the window is on the device, and have eviction turn to others
 * first. Return: 0, -EINTR or -EFAULT.
 */
static int look_closer(struct hmm_ref_client *client, struct pass *pass)
{
	struct mm_struct *mm = client->mirror.notifier.mm;
	int rc;

	if (mmap_read_lock_killable(mm))
		return -EINTR;
	pass->exact = true;
	rc = look_pass(client, HMM_REF_TO_DEVICE, pass);
	mmap_read_unlock(mm);
	return rc;
}

/* Make room for what setup has found. Return: 0, also when no more can be made, or an errno. */
static int make_room(struct hmm_ref_client *client, struct pass *pass,
		     struct hmm_ref_room *room)
{
	int rc;

	rc = hmm_ref_make_room(client, room, pass->move.need, pass->move.whole);
	pass->starved = rc || ++pass->rounds == MIGRATE_ROUNDS;
	return rc == -ENOSPC || rc == -ENOMEM ? 0 : rc;
}

/*
 * One pass over a window. To know what it takes is to have begun, so where there is too
 * little room a pass is begun again after some was made, and finds, perhaps, that it takes
 * more. Where no more room can be made, as much moves as there is.
 */
static void do_pass(struct hmm_ref_client *client, u32 direction, struct pass *pass)
{
	struct hmm_ref_devmem *dm = &client->dev->dm;
	struct hmm_ref_room room = {};
	bool may_grow = true;
	int short_of, rc;

	for (;;) {
		rc = move_pass(client, direction, pass, &room, may_grow);
		if (rc != -EAGAIN && (rc != -ENOSPC || pass->starved))
			break;
		short_of = rc;
		rc = pass->exact ? 0 : look_closer(client, pass);
		if (!rc && short_of == -ENOSPC)
			rc = make_room(client, pass, &room);
		else if (!rc)
			hmm_ref_devmem_grow(dm, pass->wanted, pass->large);
		if (rc)
			break;
		may_grow &= short_of == -ENOSPC;
	}
	hmm_ref_devmem_unreserve(dm, &room);
	pass->rc = rc == -ENOSPC ? 0 : rc;
}

/* ---- the MIGRATE command ----------------------------------------------- */

/* How many pages up to @end are not where they were asked to go? */
static unsigned long count_skipped(struct hmm_ref_client *client, u32 direction,
				   const struct pass *pass, unsigned long end,
				   unsigned long moved)
{
	unsigned long nr = (end - pass->start) >> PAGE_SHIFT;
	unsigned long resident;

	if (pass->blind || hmm_ref_mirror_resident(&client->mirror, pass->start, end,
						   client->window.dst, &resident))
		return nr - min(moved, nr);
	return direction == HMM_REF_TO_DEVICE ? nr - resident : resident;
}

/*
 * What follows the first pass over a window: try again what others hold locked, but not
 * for long, and count. Later passes may find less to handle, but what the first one had
 * counts.
 */
static int settle_window(struct hmm_ref_client *client, struct hmm_ref_migrate *cmd,
			 bool large, struct pass *pass)
{
	unsigned long start = pass->start, end = pass->end;
	unsigned long nr = (end - start) >> PAGE_SHIFT;
	unsigned long moved = pass->moved;
	unsigned long skipped = 0;
	bool looked_at = pass->tried;
	unsigned int tries = 1;

	while (pass->tried && (tries > 1 || moved < nr)) {
		skipped = count_skipped(client, cmd->direction, pass, end, moved);
		if (pass->rc || pass->starved || skipped <= pass->refused ||
		    tries == MIGRATE_TRIES)
			break;
		trace_hmm_ref_retry(&client->dev->dm, HMM_REF_RETRY_MIGRATE, start,
				    tries);
		tries++;
		init_pass(client, pass, start, end, large);
		do_pass(client, cmd->direction, pass);
		moved += pass->moved;
	}
	if (!looked_at)
		return pass->rc;
	/* A page that was evicted between two tries has moved twice. */
	moved = min(moved, nr - skipped);
	cmd->out_migrated += moved;
	cmd->out_skipped += skipped;
	cmd->out_already += nr - moved - skipped;
	if (!pass->rc && skipped && pass->starved)
		return -ENOMEM;
	return pass->rc;
}

/*
 * Go over holes that need no look at each of their windows: nothing comes back from where
 * nothing is, and no hole of a file is filled. @addr is moved on. Return: 0 or -EINTR.
 */
static int skip_holes(struct hmm_ref_client *client, struct hmm_ref_migrate *cmd,
		      unsigned long *addr)
{
	bool to_device = cmd->direction == HMM_REF_TO_DEVICE;
	unsigned long last = cmd->addr + cmd->length;
	struct mm_struct *mm = client->mirror.notifier.mm;
	struct vm_area_struct *vma;
	unsigned long next = *addr;

	if (mmap_read_lock_killable(mm))
		return -EINTR;
	vma = vma_lookup(mm, next);
	if (vma && !vma_is_dax(vma) && !(to_device && vma_is_anonymous(vma)))
		next = hmm_ref_next_present(vma, next, min(last, vma->vm_end));
	mmap_read_unlock(mm);
	if (to_device)
		cmd->out_skipped += (next - *addr) >> PAGE_SHIFT;
	else
		cmd->out_already += (next - *addr) >> PAGE_SHIFT;
	*addr = next;
	return 0;
}

/* Migrate the window at @addr, which is moved on to what has not been handled. */
static int migrate_window(struct hmm_ref_client *client, struct hmm_ref_migrate *cmd,
			  bool large, unsigned long *addr)
{
	unsigned long last = cmd->addr + cmd->length;
	struct pass pass;

	if (*addr == last)
		return 0;
	init_pass(client, &pass, *addr, min(last, ALIGN(*addr + 1, PMD_SIZE)), large);
	do_pass(client, cmd->direction, &pass);
	*addr = pass.end;
	return settle_window(client, cmd, large, &pass);
}

/**
 * hmm_ref_migrate_range() - the MIGRATE command
 * @client: open file of the current process, or of an mm that the caller keeps alive
 * @cmd: validated but for what is mapped; the counts are set, also on error
 * @large: keep large folios whole, as far as possible
 *
 * Does at least one window. After that any signal ends it, with -EINTR.
 *
 * Context: process context; takes mmap_lock.
 * Return: 0 or an errno of the uapi; -ERESTARTSYS when nothing was done.
 */
int hmm_ref_migrate_range(struct hmm_ref_client *client, struct hmm_ref_migrate *cmd,
			  bool large)
{
	unsigned long addr = cmd->addr;
	unsigned long last = cmd->addr + cmd->length;
	u64 begin = 0;
	int rc = 0;

	cmd->out_migrated = 0;
	cmd->out_already = 0;
	cmd->out_skipped = 0;
	if (mutex_lock_interruptible(&client->migrate_lock))
		return -ERESTARTSYS;
	if (trace_hmm_ref_migrate_end_enabled())
		begin = ktime_get_ns();
	trace_hmm_ref_migrate_begin(client, cmd);
	while (addr < last && !rc) {
		rc = skip_holes(client, cmd, &addr);
		if (!rc)
			rc = migrate_window(client, cmd, large, &addr);
		if (!rc && addr < last)
			rc = hmm_ref_mirror_interrupted(&client->mirror);
	}
	trace_hmm_ref_migrate_end(client, cmd, rc, begin);
	mutex_unlock(&client->migrate_lock);
	if (cmd->direction == HMM_REF_TO_DEVICE)
		hmm_ref_count(client->dev->counters, to_device, cmd->out_migrated);
	else
		hmm_ref_count(client->dev->counters, to_system, cmd->out_migrated);
	return rc;
}
