// SPDX-License-Identifier: GPL-2.0-only
/*
 * Moving data: to the device and to system memory, for the MIGRATE command.
 *
 * migrate_fault.c moves it for the CPU, migrate_evict.c for room, migrate_small.c where
 * large pages are short. All share the steps of migrate_common.c and follow the rules
 * below.
 *
 * A migration handles one window, at most a block, with four steps of the core
 * around ours:
 *
 *   reserve device pages             no lock held; may evict
 *   migrate_vma_setup()              unmaps and locks the source pages; its notifier
 *                                    zaps them from every device page table first
 *   hand out, queue copies, wait     source pages cannot change; an error here can
 *                                    still be undone
 *   migrate_vma_pages()              commits page by page, and may refuse
 *   migrate_vma_finalize()           maps what won, unlocks and puts both sides
 *
 * Rules:
 * - mmap_lock is held for read from VMA lookup to finalize.
 * - An entry is moved when its dst is set. Whatever goes wrong, an entry's dst is
 *   abandoned and cleared, and both last steps are done all the same: to skip
 *   migrate_vma_pages() would leave migration entries that point to pages without
 *   data.
 * - What happened is in src after migrate_vma_pages(), not in cpages.
 * - A hole has no page: it is cleared on the way to the device and does not
 *   exist on the way back.
 * - Large folios stay whole where a large page can be had; where not, setup comes again
 *   and splits them. A large hole is filled with all of its pages or with none.
 * - Nothing is mapped for the device here. DONTNEED does not wait for page locks,
 *   so a page that has just arrived may be on its way out again; mirror.c maps,
 *   under the notifier's sequence.
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

/* What one pass over a window has done. */
struct pass {
	bool tried;		/* setup has run: the window counts as handled */
	bool starved;		/* the device could not make room */
	bool blind;		/* hmm_range_fault() does not look into the VMA */
	bool large;		/* keep large folios whole */
	unsigned long moved;
	unsigned long refused;	/* pages of a kind that does not move */
};

/* ---- to the device ----------------------------------------------------- */

/*
 * Holes and anonymous pages move; the core would refuse others late and at a cost. Merged
 * ones it would not refuse: see cut_at_merged().
 */
static inline bool wants_device(unsigned long src)
{
	struct page *page = migrate_pfn_to_page(src);

	if (!(src & MIGRATE_PFN_MIGRATE))
		return false;
	return !page || (folio_test_anon(page_folio(page)) &&
			 !folio_test_ksm(page_folio(page)));
}

static void queue_copy(struct hmm_ref_job *job, struct page *dev_page,
		       struct page *sys_page, unsigned long nr)
{
	unsigned long dpfn = hmm_ref_page_dpfn(dev_page);

	if (sys_page)
		hmm_ref_engine_copy_in(job, dpfn, sys_page, nr);
	else
		hmm_ref_engine_clear(job, dpfn, nr);
}

/* Fill one large entry with a large folio. Return: pages handed out for it. */
static unsigned long fill_large(struct hmm_ref_client *client,
				struct migrate_vma *args, struct hmm_ref_job *job)
{
	struct page *sys_page = migrate_pfn_to_page(args->src[0]);
	struct folio *folio;

	if (!sys_page && (args->vma->vm_flags & VM_NOHUGEPAGE))
		return 0;
	if (xchg(&client->fail_large, false) || hmm_ref_fail(HMM_REF_FAIL_LARGE))
		return 0;
	folio = hmm_ref_devmem_handout_large(&client->dev->dm, client->owner);
	if (!folio)
		return 0;
	queue_copy(job, folio_page(folio, 0), sys_page, HMM_REF_BLOCK_PAGES);
	args->dst[0] = migrate_pfn(folio_pfn(folio)) | MIGRATE_PFN_COMPOUND;
	return HMM_REF_BLOCK_PAGES;
}

/* Single pages for a large hole, all or none. Return: pages handed out for it. */
static unsigned long fill_hole(struct hmm_ref_client *client,
			       struct migrate_vma *args, struct hmm_ref_job *job)
{
	struct page **dev_pages = client->window.dev_pages;
	unsigned long got;
	unsigned long i;

	got = hmm_ref_devmem_handout(&client->dev->dm, client->owner, dev_pages,
				     HMM_REF_BLOCK_PAGES);
	for (i = 0; i < got; i++) {
		queue_copy(job, dev_pages[i], NULL, 1);
		args->dst[i] = migrate_pfn(page_to_pfn(dev_pages[i]));
	}
	if (got < HMM_REF_BLOCK_PAGES)
		hmm_ref_abandon_all(args->dst, got);
	return got;
}

/*
 * How many entries want a page, at the most? In an anonymous mapping all that setup got,
 * unless KSM has just merged one.
 */
static unsigned long count_wanted(const struct migrate_vma *args)
{
	unsigned long wanted = 0;
	unsigned long i;

	if (vma_is_anonymous(args->vma))
		return args->cpages;
	for (i = 0; i < args->npages; i++)
		wanted += wants_device(args->src[i]);
	return wanted;
}

/* Single pages for up to @reserved of the entries. Return: pages handed out. */
static unsigned long fill_single(struct hmm_ref_client *client,
				 struct migrate_vma *args, struct hmm_ref_job *job,
				 unsigned long reserved, struct pass *pass)
{
	struct page **dev_pages = client->window.dev_pages;
	unsigned long next = 0;
	unsigned long got;
	unsigned long i;

	got = hmm_ref_devmem_handout(&client->dev->dm, client->owner, dev_pages,
				     min(count_wanted(args), reserved));
	for (i = 0; i < args->npages; i++) {
		if (!wants_device(args->src[i])) {
			pass->refused += hmm_ref_src_is_page(args->src[i]);
			continue;
		}
		if (next == got)
			break;
		queue_copy(job, dev_pages[next], migrate_pfn_to_page(args->src[i]), 1);
		args->dst[i] = migrate_pfn(page_to_pfn(dev_pages[next++]));
	}
	for (i = next; i < got; i++) {
		unlock_page(dev_pages[i]);
		put_page(dev_pages[i]);
	}
	return got;
}

/*
 * Hand out device pages for the entries that setup has collected, and fill them. What
 * is handed out comes off @reserved. A large entry fills the whole window. Return: 0,
 * -EIO, or -EAGAIN when there is no large folio for it.
 */
static int fill_device(struct hmm_ref_client *client, struct migrate_vma *args,
		       long *reserved, struct pass *pass)
{
	struct hmm_ref_job job;
	unsigned long src = args->src[0];
	unsigned long got = 0;
	int rc = 0;

	hmm_ref_engine_begin(&client->dev->dm.engine, &job);
	if (!(src & MIGRATE_PFN_COMPOUND)) {
		got = fill_single(client, args, &job, *reserved, pass);
	} else if (wants_device(src)) {
		got = fill_large(client, args, &job);
		if (!got && hmm_ref_src_is_page(src))
			rc = -EAGAIN;
		else if (!got)
			got = fill_hole(client, args, &job);
	} else if (hmm_ref_src_is_page(src)) {
		pass->refused += HMM_REF_BLOCK_PAGES;
	}
	*reserved -= got;
	if (hmm_ref_engine_wait(&job)) {
		hmm_ref_abandon_all(args->dst, args->npages);
		rc = -EIO;
	}
	return rc;
}

static int move_to_device(struct hmm_ref_client *client, struct migrate_vma *args,
			  long *reserved, struct pass *pass)
{
	unsigned long i;
	int rc;

	rc = migrate_vma_setup(args);
	if (rc)
		return rc;
	pass->tried = true;
	rc = fill_device(client, args, reserved, pass);
	migrate_vma_pages(args);
	for (i = 0; i < args->npages; i++)
		pass->moved += hmm_ref_moved(args->src[i], args->dst[i]);
	atomic_long_add(pass->moved, &client->owner->to_device);
	migrate_vma_finalize(args);
	return rc;
}

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

static int pass_to_device(struct hmm_ref_client *client, struct migrate_vma *args,
			  long *reserved, struct pass *pass)
{
	bool stays;
	int rc;

	rc = cut_at_merged(client, args, &stays);
	if (rc)
		return rc;
	if (stays) {
		pass->tried = true;
		pass->refused = (args->end - args->start) >> PAGE_SHIFT;
		return 0;
	}
	args->pgmap_owner = client->dev->dm.pgmap_owner;
	args->flags = MIGRATE_VMA_SELECT_SYSTEM;
	if (pass->large && *reserved == HMM_REF_BLOCK_PAGES &&
	    args->end - args->start == PMD_SIZE)
		args->flags |= MIGRATE_VMA_SELECT_COMPOUND;
	rc = move_to_device(client, args, reserved, pass);
	if (rc != -EAGAIN)
		return rc;
	args->flags &= ~MIGRATE_VMA_SELECT_COMPOUND;
	return move_to_device(client, args, reserved, pass);
}

/* ---- to system memory -------------------------------------------------- */

static int pass_to_system(struct hmm_ref_client *client, struct migrate_vma *args,
			  struct pass *pass)
{
	bool large = pass->large && !xchg(&client->fail_large, false);
	int rc;

	rc = hmm_ref_vma_to_system(&client->dev->dm, args, large, HMM_REF_BY_COMMAND,
				   &pass->moved);
	pass->tried = rc != -EINVAL;
	return rc;
}

/* ---- the MIGRATE command ----------------------------------------------- */

/*
 * Reserve device pages for a window, evicting others if need be. Pages that are on
 * the device already need none; they are only looked for when it is full.
 *
 * What others have reserved and not yet filled cannot be evicted, only waited for.
 * Nothing is held meanwhile, so two that wait for each other's pages both get there.
 * Return: pages reserved, fewer than needed if that is all there is after some time,
 * or an errno.
 */
static long reserve_window(struct hmm_ref_client *client, unsigned long start,
			   unsigned long end, struct pass *pass)
{
	unsigned long deadline = jiffies + HMM_REF_PATIENCE;
	struct hmm_ref_devmem *dm = &client->dev->dm;
	unsigned long need = (end - start) >> PAGE_SHIFT;
	long got = hmm_ref_devmem_reserve(dm, need);
	long resident;
	int rc;

	if (got == need && pass->large)
		hmm_ref_devmem_want_whole(dm);
	if (got == need || (got < 0 && got != -ENOSPC))
		return got;
	resident = hmm_ref_mirror_resident(&client->mirror, start, end,
					   client->window.dst);
	if (resident > 0)
		need -= resident;
	while (got < (long)need && time_before(jiffies, deadline)) {
		if (got > 0)
			hmm_ref_devmem_unreserve(dm, got);
		rc = hmm_ref_evict_some(client->dev);
		if (rc == -ENOSPC)
			schedule_timeout_killable(1);
		if (rc == -EINTR || fatal_signal_pending(current))
			return -EINTR;
		got = hmm_ref_devmem_reserve(dm, need);
		if (got < 0 && got != -ENOSPC)
			return got;
	}
	got = max(got, 0L);
	pass->starved = got < need;
	return got;
}

/* One pass over [start, end), cut to what can be handled at once. */
static int migrate_pass(struct hmm_ref_client *client, u32 direction,
			unsigned long start, unsigned long *end,
			struct pass *pass)
{
	struct mm_struct *mm = client->mirror.notifier.mm;
	struct migrate_vma args = {
		.start = start,
		.src = client->window.src,
		.dst = client->window.dst,
	};
	long reserved = 0;
	int rc = -EFAULT;

	if (direction == HMM_REF_TO_DEVICE) {
		reserved = reserve_window(client, start, *end, pass);
		if (reserved < 0)
			return reserved;
	}
	if (mmap_read_lock_killable(mm)) {
		rc = -EINTR;
		goto out;
	}
	args.vma = vma_lookup(mm, start);
	if (args.vma) {
		args.end = min(*end, args.vma->vm_end);
		pass->large &= args.end - args.start == PMD_SIZE;
		pass->blind = !(args.vma->vm_flags & VM_READ);
		if (direction == HMM_REF_TO_DEVICE)
			rc = pass_to_device(client, &args, &reserved, pass);
		else
			rc = pass_to_system(client, &args, pass);
		*end = args.end;
	}
	mmap_read_unlock(mm);
out:
	hmm_ref_devmem_unreserve(&client->dev->dm, reserved);
	return rc;
}

/*
 * Migrate one window and count. @end is moved back to the end of the VMA, or of a run
 * of merged pages, if that comes first. Pages that others hold locked are tried again,
 * but not for long.
 */
static int migrate_window(struct hmm_ref_client *client,
			  struct hmm_ref_migrate *cmd, unsigned long start,
			  unsigned long *end)
{
	bool to_device = cmd->direction == HMM_REF_TO_DEVICE;
	unsigned long nr = 0, skipped = 0, moved = 0;
	unsigned long handled;
	unsigned int tries = 0;
	struct pass pass;
	long resident;
	int rc;

	do {
		if (tries)
			trace_hmm_ref_retry(&client->dev->dm, HMM_REF_RETRY_MIGRATE,
					    start, tries);
		/* What does not move whole gets its last chance as single pages. */
		pass = (struct pass){
			.large = tries + 1 < MIGRATE_TRIES &&
				 *end - start == PMD_SIZE &&
				 hmm_ref_has_large(&client->dev->dm),
		};
		handled = *end;
		rc = migrate_pass(client, cmd->direction, start, &handled, &pass);
		if (!pass.tried)
			break;
		/* Later tries may find less to handle, but what the first had counts. */
		if (!tries)
			*end = handled;
		nr = (*end - start) >> PAGE_SHIFT;
		moved += pass.moved;
		skipped = 0;
		if (!tries && moved == nr)
			break;
		resident = hmm_ref_mirror_resident(&client->mirror, start, *end,
						   client->window.dst);
		if (resident < 0 || pass.blind)
			skipped = nr - min(moved, nr);
		else
			skipped = to_device ? nr - resident : resident;
	} while (!rc && !pass.starved && skipped > pass.refused &&
		 ++tries < MIGRATE_TRIES);

	if (!pass.tried && !moved)
		return rc;
	/* A page that was evicted between two tries has moved twice. */
	moved = min(moved, nr - skipped);
	cmd->out_migrated += moved;
	cmd->out_skipped += skipped;
	cmd->out_already += nr - moved - skipped;
	if (!rc && skipped && pass.starved)
		rc = -ENOMEM;
	return rc;
}

/**
 * hmm_ref_migrate_range() - the MIGRATE command
 * @client: open file of the current process, or of an mm that the caller keeps alive
 * @cmd: validated but for what is mapped; the counts are set, also on error
 *
 * Context: process context; takes mmap_lock.
 * Return: 0 or an errno of the uapi.
 */
int hmm_ref_migrate_range(struct hmm_ref_client *client, struct hmm_ref_migrate *cmd)
{
	unsigned long addr = cmd->addr;
	unsigned long last = cmd->addr + cmd->length;
	u64 begin = 0;
	int rc = 0;

	cmd->out_migrated = 0;
	cmd->out_already = 0;
	cmd->out_skipped = 0;
	if (mutex_lock_killable(&client->migrate_lock))
		return -EINTR;
	if (trace_hmm_ref_migrate_end_enabled())
		begin = ktime_get_ns();
	trace_hmm_ref_migrate_begin(client, cmd);
	while (addr < last && !rc) {
		unsigned long end = min(last, ALIGN(addr + 1, PMD_SIZE));

		rc = migrate_window(client, cmd, addr, &end);
		addr = end;
		if (!rc && fatal_signal_pending(current))
			rc = -EINTR;
		if (!rc && READ_ONCE(client->dev->gone))
			rc = -ENODEV;
		cond_resched();
	}
	trace_hmm_ref_migrate_end(client, cmd, rc, begin);
	mutex_unlock(&client->migrate_lock);
	if (cmd->direction == HMM_REF_TO_DEVICE)
		hmm_ref_count(client->dev->counters, to_device, cmd->out_migrated);
	else
		hmm_ref_count(client->dev->counters, to_system, cmd->out_migrated);
	return rc;
}
