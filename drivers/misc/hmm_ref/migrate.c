// SPDX-License-Identifier: GPL-2.0-only
/*
 * Moving data: to the device and to system memory, for the MIGRATE command.
 *
 * migrate_fault.c moves it for the CPU, migrate_evict.c for room, migrate_small.c where
 * large pages are short, by the same steps (migrate_common.c) and rules.
 *
 * A migration handles one window, at most a block, with four steps of the core
 * around ours:
 *
 *   reserve device pages             no lock held; may evict
 *   migrate_vma_setup()              unmaps and locks the source pages; its notifier
 *                                    zaps them from every device page table first
 *   hand out, queue copies           source pages cannot change; an error here can
 *                                    still be undone
 *   wait for the copies              their error, too
 *   migrate_vma_pages()              commits page by page, and may refuse
 *   migrate_vma_finalize()           maps what won, unlocks and puts both sides
 *
 * Rules:
 * - mmap_lock is held for read from VMA lookup to finalize.
 * - While setup has pages locked nothing waits for room, nor for an invalidation to end as
 *   hmm_range_fault() does: who invalidates may wait for these pages. So a window is
 *   reserved for, and looked at, before setup.
 * - The first error ends the command.
 * - An entry is moved when its dst is set. Whatever goes wrong, an entry's dst is abandoned
 *   and cleared, and both last steps are done all the same: to skip migrate_vma_pages()
 *   would leave migration entries that point to pages without data.
 * - What happened is in src after migrate_vma_pages(), not in cpages.
 * - A hole has no page: it is cleared on the way to the device, and is none on the way back.
 * - Large folios stay whole where a large page can be had; where not, setup comes again
 *   and splits them. A large hole is filled with all of its pages or with none.
 * - Nothing is mapped for the device here. DONTNEED does not wait for page locks, so a page
 *   that has just arrived may be on its way out; mirror.c maps, under the sequence.
 */
#include <linux/fs.h>
#include <linux/hugetlb_inline.h>
#include <linux/pagemap.h>
#include <linux/sched.h>
#include <linux/sched/mm.h>
#include <linux/sched/signal.h>

#include "migrate.h"
#include "trace.h"

/* Passes over a window in which someone else held pages locked. */
#define MIGRATE_TRIES	3

/* One pass over one window. */
struct pass {
	unsigned long start;
	unsigned long end;	/* cut to what can be handled at once */
	struct hmm_ref_move move;
	long reserved;
	int rc;
	bool tried;		/* setup has run: the window counts as handled */
	bool starved;		/* the device could not make room */
	bool blind;		/* hmm_range_fault() does not look into the VMA */
	bool large;		/* keep large folios whole */
	bool stays;		/* nothing of it may move */
	unsigned long moved;
	unsigned long refused;	/* pages of a kind that does not move */
};

/*
 * Pages that KSM has merged stay, and all of a mapping where it may merge them. The core
 * cannot cope with them on a device (ksmd goes on to read them), and not even with
 * trying: setup replaces the entries that it finds, and KSM's rmap does not find
 * all of them again to restore them. Not those that ksmd has forgotten since, and not
 * those of a parent whose child has its copies merged. So setup must not see them: the
 * window is cut where they begin, and where they end.
 *
 * What cannot be read cannot be looked at, and is of no use for the device.
 */
static int cut_at_merged(struct hmm_ref_client *client, struct migrate_vma *args,
			 bool *stays)
{
	vm_flags_t flags = args->vma->vm_flags;
	long npages;

	*stays = false;
	if (flags & VM_SPECIAL || is_vm_hugetlb_page(args->vma) || vma_is_dax(args->vma))
		return 0; /* for setup to refuse */
	*stays = !(flags & VM_READ) || flags & VM_MERGEABLE;
	if (*stays)
		return 0;
	npages = hmm_ref_mirror_merged(&client->mirror, args->start, args->end, args->dst,
				       stays);
	if (npages < 0)
		return npages;
	args->end = args->start + npages * PAGE_SIZE;
	return 0;
}

/* ---- a pass ------------------------------------------------------------ */

/*
 * Reserve device pages for a window, evicting others if need be. Pages that are on
 * the device already need none; they are only looked for when it is full.
 *
 * What others have reserved and not yet filled cannot be evicted, only waited for.
 * Nothing is held meanwhile, so two that wait for each other's pages both get there.
 * Return: pages reserved, fewer than needed if that is all there is after some time,
 * or an errno.
 */
static long reserve_window(struct hmm_ref_client *client, struct pass *pass)
{
	unsigned long began = jiffies;
	unsigned long deadline = began + HMM_REF_PATIENCE;
	struct hmm_ref_devmem *dm = &client->dev->dm;
	unsigned long need = (pass->end - pass->start) >> PAGE_SHIFT;
	long got = hmm_ref_devmem_reserve(dm, need);
	long resident;
	int rc;

	if (got == need && pass->large)
		hmm_ref_devmem_want_whole(dm);
	if (got == need || (got < 0 && got != -ENOSPC))
		return got;
	resident = hmm_ref_mirror_resident(&client->mirror, pass->start, pass->end,
					   client->window.dst);
	if (resident > 0)
		need -= resident;
	while (got < (long)need && time_before(jiffies, deadline)) {
		if (got > 0)
			hmm_ref_devmem_unreserve(dm, got);
		rc = hmm_ref_evict_some(client->dev);
		if (rc == -ENOSPC)
			schedule_timeout_killable(1);
		if (rc == -EINTR)
			return rc;
		rc = hmm_ref_mirror_insist(&client->mirror, began, MAX_JIFFY_OFFSET);
		if (rc)
			return rc;
		got = hmm_ref_devmem_reserve(dm, need);
		if (got < 0 && got != -ENOSPC)
			return got;
	}
	got = max(got, 0L);
	pass->starved = got < need;
	return got;
}

static void init_pass(struct hmm_ref_client *client, struct pass *pass,
		      unsigned long start, unsigned long end, bool large)
{
	*pass = (struct pass){
		.start = start,
		.end = end,
		.rc = -EFAULT,
		.large = large && end - start == PMD_SIZE &&
			 hmm_ref_has_large(&client->dev->dm),
	};
}

/*
 * Look up the VMA, and what of it may move. This waits for those who invalidate, and
 * UFFDIO_MOVE, one of them, for pages that setup has locked. Sets @pass->rc.
 */
static void look_pass(struct hmm_ref_client *client, u32 direction, struct pass *pass)
{
	struct migrate_vma *args = &pass->move.args;

	args->start = pass->start;
	args->src = client->window.src;
	args->dst = client->window.dst;
	args->vma = vma_lookup(client->mirror.notifier.mm, pass->start);
	if (!args->vma)
		return;
	args->end = min(pass->end, args->vma->vm_end);
	pass->rc = 0;
	pass->blind = !(args->vma->vm_flags & VM_READ);
	if (direction == HMM_REF_TO_DEVICE)
		pass->rc = cut_at_merged(client, args, &pass->stays);
	pass->end = args->end;
	pass->large &= args->end - args->start == PMD_SIZE;
}

/* All that happens to a window that was looked at, from setup to finalize. */
static int move_window(struct hmm_ref_client *client, u32 direction, struct pass *pass,
		       bool large)
{
	struct hmm_ref_move *move = &pass->move;
	int rc;

	if (direction == HMM_REF_TO_DEVICE) {
		large &= pass->reserved == HMM_REF_BLOCK_PAGES;
		rc = hmm_ref_to_device_begin(client, move, &client->window, large,
					     &pass->reserved);
		if (!rc)
			pass->moved += hmm_ref_to_device_end(client, move);
	} else {
		rc = hmm_ref_to_system_begin(&client->dev->dm, move, &client->window, large);
		if (!rc)
			pass->moved += hmm_ref_to_system_end(move, HMM_REF_BY_COMMAND);
	}
	if (rc)
		return rc;
	pass->refused = move->refused;
	return move->rc;
}

/* What cannot stay whole is begun again, as single pages. Sets @pass->rc. */
static void move_pass(struct hmm_ref_client *client, u32 direction, struct pass *pass)
{
	struct migrate_vma *args = &pass->move.args;
	if (pass->rc)
		return;
	if (pass->stays) {
		pass->tried = true;
		pass->refused = (args->end - args->start) >> PAGE_SHIFT;
		return;
	}
	pass->rc = move_window(client, direction, pass, pass->large);
	if (pass->rc == -EAGAIN)
		pass->rc = move_window(client, direction, pass, false);
	pass->tried = pass->rc != -EINVAL;
}

/* One pass over a window. */
static void do_pass(struct hmm_ref_client *client, u32 direction, struct pass *pass)
{
	struct mm_struct *mm = client->mirror.notifier.mm;

	if (direction == HMM_REF_TO_DEVICE) {
		pass->reserved = reserve_window(client, pass);
		if (pass->reserved < 0) {
			pass->rc = pass->reserved;
			return;
		}
	}
	if (mmap_read_lock_killable(mm)) {
		pass->rc = -EINTR;
	} else {
		look_pass(client, direction, pass);
		move_pass(client, direction, pass);
		mmap_read_unlock(mm);
	}
	hmm_ref_devmem_unreserve(&client->dev->dm, pass->reserved);
}

/* ---- the MIGRATE command ----------------------------------------------- */

/* How many pages up to @end are not where they were asked to go? */
static unsigned long count_skipped(struct hmm_ref_client *client, u32 direction,
				   const struct pass *pass, unsigned long end,
				   unsigned long moved)
{
	unsigned long nr = (end - pass->start) >> PAGE_SHIFT;
	long resident = hmm_ref_mirror_resident(&client->mirror, pass->start, end,
						client->window.dst);

	if (resident < 0 || pass->blind)
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
		/* What does not move whole gets its last chance as single pages. */
		tries++;
		init_pass(client, pass, start, end, large && tries < MIGRATE_TRIES);
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

/*
 * Migrate the window at @addr, which is moved on to what has not been handled: that is also
 * where a VMA or a run of merged pages ends.
 */
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
