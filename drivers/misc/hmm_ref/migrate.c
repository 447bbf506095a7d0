// SPDX-License-Identifier: GPL-2.0-only
/*
 * Moving data: to the device and to system memory, for the MIGRATE command.
 *
 * migrate_fault.c moves it for the CPU, migrate_evict.c for room; both share the
 * steps here and follow the rules below.
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
 * - Nothing is mapped for the device here. DONTNEED does not wait for page locks,
 *   so a page that has just arrived may be on its way out again; mirror.c maps,
 *   under the notifier's sequence.
 */
#include <linux/migrate.h>
#include <linux/pagemap.h>
#include <linux/sched.h>
#include <linux/sched/mm.h>
#include <linux/sched/signal.h>

#include "hmm_ref.h"

/* Passes over a window in which someone else held pages locked. */
#define MIGRATE_TRIES	3

/* What one pass over a window has done. */
struct pass {
	bool tried;		/* setup has run: the window counts as handled */
	bool starved;		/* the device could not make room */
	bool blind;		/* hmm_range_fault() does not look into the VMA */
	unsigned long moved;
	unsigned long refused;	/* pages of a kind that does not move */
};

/* ---- windows ----------------------------------------------------------- */

/**
 * hmm_ref_window_init() - allocate the arrays of a window
 * @window: to set up
 *
 * Return: 0 or -ENOMEM.
 */
int hmm_ref_window_init(struct hmm_ref_window *window)
{
	window->src = kvcalloc(HMM_REF_BLOCK_PAGES, sizeof(*window->src),
			       GFP_KERNEL_ACCOUNT);
	window->dst = kvcalloc(HMM_REF_BLOCK_PAGES, sizeof(*window->dst),
			       GFP_KERNEL_ACCOUNT);
	window->dev_pages = kvcalloc(HMM_REF_BLOCK_PAGES,
				     sizeof(*window->dev_pages),
				     GFP_KERNEL_ACCOUNT);
	if (window->src && window->dst && window->dev_pages)
		return 0;
	hmm_ref_window_exit(window);
	return -ENOMEM;
}

/**
 * hmm_ref_window_exit() - free the arrays of a window
 * @window: unused from now on
 */
void hmm_ref_window_exit(struct hmm_ref_window *window)
{
	kvfree(window->src);
	kvfree(window->dst);
	kvfree(window->dev_pages);
}

/* ---- steps shared by all directions ------------------------------------ */

/**
 * hmm_ref_src_is_page() - is there a page to move?
 * @src: source entry after setup
 *
 * Return: false for holes and for what setup did not get.
 */
bool hmm_ref_src_is_page(unsigned long src)
{
	return (src & MIGRATE_PFN_VALID) && (src & MIGRATE_PFN_MIGRATE);
}

/**
 * hmm_ref_abandon_all() - give the destinations back, move nothing
 * @dst: destination entries; cleared
 * @npages: of them
 *
 * Rule 4 of devmem.c for device pages; system pages are freed the same way.
 */
void hmm_ref_abandon_all(unsigned long *dst, unsigned long npages)
{
	unsigned long i;

	for (i = 0; i < npages; i++) {
		struct page *page = migrate_pfn_to_page(dst[i]);

		if (page) {
			unlock_page(page);
			put_page(page);
		}
		dst[i] = 0;
	}
}

static bool has_moved(unsigned long src, unsigned long dst)
{
	return dst && (src & MIGRATE_PFN_MIGRATE);
}

/**
 * hmm_ref_mark_left() - after migrate_*_pages(): which pages have left the device?
 * @src: source entries, device pages
 * @dst: destination entries
 * @npages: of each
 *
 * The pages are marked as not up to date, under their locks: until finalize drops the
 * last reference, eviction may get hold of one and must see that the data is gone.
 *
 * Return: pages that have left.
 */
unsigned long hmm_ref_mark_left(const unsigned long *src,
				const unsigned long *dst, unsigned long npages)
{
	unsigned long left = 0;
	unsigned long i;

	for (i = 0; i < npages; i++) {
		if (!hmm_ref_src_is_page(src[i]) || !has_moved(src[i], dst[i]))
			continue;
		folio_clear_uptodate(page_folio(migrate_pfn_to_page(src[i])));
		left++;
	}
	return left;
}

/**
 * hmm_ref_fill_system_page() - give a device page a system page, queue the copy
 * @job: batch that the copy joins
 * @src: source entry of the device page
 * @dst: destination entry to set
 * @gfp: for the system page
 * @vma: that maps it, for the NUMA policy; NULL when not known
 * @addr: user address in @vma
 *
 * Return: 0 or -ENOMEM, with @dst as it was.
 */
int hmm_ref_fill_system_page(struct hmm_ref_job *job, unsigned long src,
			     unsigned long *dst, gfp_t gfp,
			     struct vm_area_struct *vma, unsigned long addr)
{
	struct folio *folio;

	folio = vma ? vma_alloc_folio(gfp, 0, vma, addr) : folio_alloc(gfp, 0);
	if (!folio)
		return -ENOMEM;
	folio_lock(folio);
	hmm_ref_engine_copy_out(job, folio_page(folio, 0),
				hmm_ref_page_dpfn(migrate_pfn_to_page(src)));
	*dst = migrate_pfn(folio_pfn(folio));
	return 0;
}

/* ---- to the device ----------------------------------------------------- */

/* Holes and anonymous pages move; the core would refuse others late and at a cost. */
static bool wants_device(unsigned long src)
{
	struct page *page = migrate_pfn_to_page(src);

	if (!(src & MIGRATE_PFN_MIGRATE))
		return false;
	return !page || folio_test_anon(page_folio(page));
}

/*
 * Where KSM may merge, pages stay. The core cannot cope with merged pages on a device
 * (ksmd goes on to read them), and not even with trying: ksmd forgets a mapping that
 * it finds to be a migration entry, and nobody finds that entry again to restore it.
 */
static bool vma_stays(const struct vm_area_struct *vma)
{
	return vma->vm_flags & VM_MERGEABLE;
}

/*
 * Hand out device pages for the entries that setup has collected, and fill them.
 * Entries beyond @reserved stay where they are.
 */
static int fill_device(struct hmm_ref_client *client, struct migrate_vma *args,
		       unsigned long reserved, unsigned long *handed_out)
{
	struct hmm_ref_devmem *dm = &client->dev->dm;
	struct page **dev_pages = client->window.dev_pages;
	unsigned long wanted = 0;
	unsigned long next = 0;
	struct hmm_ref_job job;
	unsigned long i;
	int rc;

	for (i = 0; i < args->npages; i++)
		wanted += wants_device(args->src[i]);
	*handed_out = hmm_ref_devmem_handout(dm, client->owner, dev_pages,
					     min(wanted, reserved));

	hmm_ref_engine_begin(&dm->engine, &job);
	for (i = 0; i < args->npages && next < *handed_out; i++) {
		struct page *sys_page = migrate_pfn_to_page(args->src[i]);
		unsigned long dpfn;

		if (!wants_device(args->src[i]))
			continue;
		dpfn = hmm_ref_page_dpfn(dev_pages[next]);
		if (sys_page)
			hmm_ref_engine_copy_in(&job, dpfn, sys_page);
		else
			hmm_ref_engine_clear(&job, dpfn);
		args->dst[i] = migrate_pfn(page_to_pfn(dev_pages[next++]));
	}
	rc = hmm_ref_engine_wait(&job);
	if (rc)
		hmm_ref_abandon_all(args->dst, args->npages);
	return rc;
}

static int pass_to_device(struct hmm_ref_client *client, struct migrate_vma *args,
			  long *reserved, struct pass *pass)
{
	unsigned long handed_out;
	unsigned long i;
	int rc;

	if (vma_stays(args->vma)) {
		pass->tried = true;
		pass->refused = (args->end - args->start) >> PAGE_SHIFT;
		return 0;
	}
	args->flags = MIGRATE_VMA_SELECT_SYSTEM;
	rc = migrate_vma_setup(args);
	if (rc)
		return rc;
	pass->tried = true;
	rc = fill_device(client, args, *reserved, &handed_out);
	*reserved -= handed_out;
	for (i = 0; i < args->npages; i++)
		pass->refused += hmm_ref_src_is_page(args->src[i]) &&
				 !wants_device(args->src[i]);
	migrate_vma_pages(args);
	for (i = 0; i < args->npages; i++)
		pass->moved += has_moved(args->src[i], args->dst[i]);
	migrate_vma_finalize(args);
	return rc;
}

/* ---- to system memory -------------------------------------------------- */

static int pass_to_system(struct hmm_ref_client *client, struct migrate_vma *args,
			  struct pass *pass)
{
	struct hmm_ref_job job;
	unsigned long i;
	int copy_rc;
	int rc;

	args->flags = MIGRATE_VMA_SELECT_DEVICE_PRIVATE;
	rc = migrate_vma_setup(args);
	if (rc)
		return rc;
	pass->tried = true;
	hmm_ref_engine_begin(&client->dev->dm.engine, &job);
	for (i = 0; i < args->npages && !rc; i++) {
		unsigned long addr = args->start + i * PAGE_SIZE;

		if (hmm_ref_src_is_page(args->src[i]))
			rc = hmm_ref_fill_system_page(&job, args->src[i],
						      &args->dst[i],
						      GFP_HIGHUSER_MOVABLE,
						      args->vma, addr);
	}
	copy_rc = hmm_ref_engine_wait(&job);
	if (copy_rc) {
		hmm_ref_abandon_all(args->dst, args->npages);
		rc = copy_rc;
	}
	migrate_vma_pages(args);
	pass->moved = hmm_ref_mark_left(args->src, args->dst, args->npages);
	migrate_vma_finalize(args);
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

/* One pass over [start, end), cut to the VMA. */
static int migrate_pass(struct hmm_ref_client *client, u32 direction,
			unsigned long start, unsigned long *end,
			struct pass *pass)
{
	struct mm_struct *mm = client->mirror.notifier.mm;
	struct migrate_vma args = {
		.start = start,
		.src = client->window.src,
		.dst = client->window.dst,
		.pgmap_owner = client->dev->dm.pgmap_owner,
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
		*end = min(*end, args.vma->vm_end);
		args.end = *end;
		pass->blind = !(args.vma->vm_flags & VM_READ);
		if (direction == HMM_REF_TO_DEVICE)
			rc = pass_to_device(client, &args, &reserved, pass);
		else
			rc = pass_to_system(client, &args, pass);
	}
	mmap_read_unlock(mm);
out:
	hmm_ref_devmem_unreserve(&client->dev->dm, reserved);
	return rc;
}

/*
 * Migrate one window and count. @end is moved back to the end of the VMA if that
 * comes first. Pages that others hold locked are tried again, but not for long.
 */
static int migrate_window(struct hmm_ref_client *client,
			  struct hmm_ref_migrate *cmd, unsigned long start,
			  unsigned long *end)
{
	bool to_device = cmd->direction == HMM_REF_TO_DEVICE;
	unsigned long nr = 0, skipped = 0, moved = 0;
	unsigned int tries = 0;
	struct pass pass;
	long resident;
	int rc;

	do {
		pass = (struct pass){};
		rc = migrate_pass(client, cmd->direction, start, end, &pass);
		if (!pass.tried)
			break;
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
 * @client: open file of the current process
 * @cmd: validated but for what is mapped; the counts are set, also on error
 *
 * Context: process context of the mirrored mm; takes mmap_lock.
 * Return: 0 or an errno of the uapi.
 */
int hmm_ref_migrate_range(struct hmm_ref_client *client, struct hmm_ref_migrate *cmd)
{
	unsigned long addr = cmd->addr;
	unsigned long last = cmd->addr + cmd->length;
	int rc = 0;

	cmd->out_migrated = 0;
	cmd->out_already = 0;
	cmd->out_skipped = 0;
	if (mutex_lock_killable(&client->migrate_lock))
		return -EINTR;
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
	mutex_unlock(&client->migrate_lock);
	if (cmd->direction == HMM_REF_TO_DEVICE)
		hmm_ref_count(client->dev->counters, to_device, cmd->out_migrated);
	else
		hmm_ref_count(client->dev->counters, to_system, cmd->out_migrated);
	return rc;
}
