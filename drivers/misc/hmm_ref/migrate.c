// SPDX-License-Identifier: GPL-2.0-only
/*
 * Moving data: to the device, to system memory, for a CPU fault, for eviction.
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
#include <linux/delay.h>
#include <linux/migrate.h>
#include <linux/pagemap.h>
#include <linux/rmap.h>
#include <linux/sched/mm.h>
#include <linux/sched/signal.h>

#include "hmm_ref.h"

/* Passes over a window in which someone else held pages locked. */
#define MIGRATE_TRIES	3

/* What one pass over a window has done. */
struct pass {
	bool tried;		/* setup has run: the window counts as handled */
	bool starved;		/* the device could not make room */
	unsigned long moved;
	unsigned long refused;	/* pages of a kind that does not move */
};

/* ---- windows ------------------------------------------------------------- */

/**
 * hmm_ref_window_init() - allocate the arrays of a window
 * @window: to set up
 *
 * Return: 0 or -ENOMEM.
 */
int hmm_ref_window_init(struct hmm_ref_window *window)
{
	mutex_init(&window->lock);
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

/* ---- steps shared by all directions --------------------------------------- */

/* The destination of an entry is not to be used: give it back, move nothing. */
static void abandon_dst(unsigned long *dst)
{
	struct page *page = migrate_pfn_to_page(*dst);

	if (page) {
		unlock_page(page);
		put_page(page);
	}
	*dst = 0;
}

static void abandon_all(unsigned long *dst, unsigned long npages)
{
	unsigned long i;

	for (i = 0; i < npages; i++)
		abandon_dst(&dst[i]);
}

/* After migrate_*_pages(): how many entries have moved. */
static unsigned long count_moved(const unsigned long *src,
				 const unsigned long *dst, unsigned long npages)
{
	unsigned long moved = 0;
	unsigned long i;

	for (i = 0; i < npages; i++)
		moved += dst[i] && (src[i] & MIGRATE_PFN_MIGRATE);
	return moved;
}

static bool src_is_page(unsigned long src)
{
	return (src & MIGRATE_PFN_VALID) && (src & MIGRATE_PFN_MIGRATE);
}

/* Only a neighbour that costs nothing to bring is worth it. */
#define GFP_NEIGHBOUR	((GFP_HIGHUSER_MOVABLE & ~__GFP_RECLAIM) | __GFP_NOWARN)

/*
 * Give one device page of @src a system page and queue its copy. @vma may be NULL
 * when the address is not known.
 */
static int fill_system_page(struct hmm_ref_job *job, unsigned long src,
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

/* ---- to the device --------------------------------------------------------- */

/* Holes and anonymous pages move; the core would refuse others late and at a cost. */
static bool wants_device(unsigned long src)
{
	struct page *page = migrate_pfn_to_page(src);

	if (!(src & MIGRATE_PFN_MIGRATE))
		return false;
	return !page || folio_test_anon(page_folio(page));
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
		abandon_all(args->dst, args->npages);
	return rc;
}

static int pass_to_device(struct hmm_ref_client *client, struct migrate_vma *args,
			  long *reserved, struct pass *pass)
{
	unsigned long handed_out;
	unsigned long i;
	int rc;

	args->flags = MIGRATE_VMA_SELECT_SYSTEM;
	rc = migrate_vma_setup(args);
	if (rc)
		return rc;
	pass->tried = true;
	rc = fill_device(client, args, *reserved, &handed_out);
	*reserved -= handed_out;
	for (i = 0; i < args->npages; i++)
		pass->refused += src_is_page(args->src[i]) &&
				 !wants_device(args->src[i]);
	migrate_vma_pages(args);
	pass->moved = count_moved(args->src, args->dst, args->npages);
	migrate_vma_finalize(args);
	return rc;
}

/* ---- to system memory -------------------------------------------------------- */

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
		if (src_is_page(args->src[i]))
			rc = fill_system_page(&job, args->src[i], &args->dst[i],
					      GFP_HIGHUSER_MOVABLE, args->vma,
					      args->start + i * PAGE_SIZE);
	}
	copy_rc = hmm_ref_engine_wait(&job);
	if (copy_rc) {
		abandon_all(args->dst, args->npages);
		rc = copy_rc;
	}
	migrate_vma_pages(args);
	pass->moved = count_moved(args->src, args->dst, args->npages);
	migrate_vma_finalize(args);
	return rc;
}

/* ---- eviction ------------------------------------------------------------------ */

/* One pass over a block. Return: pages that left it. */
static unsigned long evict_pass(struct hmm_ref_device *dev,
				struct hmm_ref_block *block)
{
	struct hmm_ref_window *window = &dev->evict_window;
	struct hmm_ref_job job;
	unsigned long moved;
	unsigned long i;

	lockdep_assert_held(&window->lock);
	memset(window->src, 0, HMM_REF_BLOCK_PAGES * sizeof(*window->src));
	memset(window->dst, 0, HMM_REF_BLOCK_PAGES * sizeof(*window->dst));
	migrate_device_range(window->src, hmm_ref_block_pfn(block),
			     HMM_REF_BLOCK_PAGES);
	hmm_ref_engine_begin(&dev->dm.engine, &job);
	for (i = 0; i < HMM_REF_BLOCK_PAGES; i++) {
		if (src_is_page(window->src[i]) &&
		    fill_system_page(&job, window->src[i], &window->dst[i],
				     GFP_HIGHUSER_MOVABLE, NULL, 0))
			break;
	}
	if (hmm_ref_engine_wait(&job))
		abandon_all(window->dst, HMM_REF_BLOCK_PAGES);
	migrate_device_pages(window->src, window->dst, HMM_REF_BLOCK_PAGES);
	moved = count_moved(window->src, window->dst, HMM_REF_BLOCK_PAGES);
	migrate_device_finalize(window->src, window->dst, HMM_REF_BLOCK_PAGES);
	hmm_ref_count(dev->counters, evicted, moved);
	return moved;
}

/*
 * Make room by evicting the least recently filled block that lets itself be
 * evicted. Return: 0 when there is room, -ENOSPC when nothing can leave.
 */
static int evict_some(struct hmm_ref_device *dev)
{
	unsigned long deadline = jiffies + HMM_REF_PATIENCE;
	struct hmm_ref_block *block;
	int rc = -ENOSPC;

	if (mutex_lock_killable(&dev->evict_window.lock))
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
	mutex_unlock(&dev->evict_window.lock);
	return rc;
}

/**
 * hmm_ref_evict_all() - bring every page of a stopped device to system memory
 * @dev: device that hands out nothing any more
 *
 * Pages that someone holds locked, and faults in flight, take their time; a system
 * without memory, too. There is no way to go on without them, as processes would
 * lose their data. So this returns only when the device is empty, and says what it
 * waits for.
 */
void hmm_ref_evict_all(struct hmm_ref_device *dev)
{
	unsigned long report = jiffies + 10 * HZ;
	unsigned int delay_ms = 1;
	struct hmm_ref_block *block;
	unsigned long moved;

	while (hmm_ref_devmem_used(&dev->dm)) {
		mutex_lock(&dev->evict_window.lock);
		block = hmm_ref_devmem_victim(&dev->dm);
		moved = block ? evict_pass(dev, block) : 0;
		mutex_unlock(&dev->evict_window.lock);
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

/* ---- the CPU touches a device page ------------------------------------------- */

/* The pages around a fault that may come along: naturally aligned, in the VMA. */
static void fault_range(struct hmm_ref_device *dev, struct vm_fault *vmf,
			struct migrate_vma *args)
{
	unsigned long addr = vmf->address & PAGE_MASK;
	unsigned long pages = clamp(READ_ONCE(dev->fault_around), 1U,
				    (u32)HMM_REF_FAULT_AROUND_MAX);
	unsigned long size = rounddown_pow_of_two(pages) << PAGE_SHIFT;

	args->start = max(ALIGN_DOWN(addr, size), vmf->vma->vm_start);
	args->end = min(ALIGN_DOWN(addr, size) + size, vmf->vma->vm_end);
}

/*
 * Copy the entries [first, last) of what setup has collected: the faulting page
 * whatever it takes, others if memory is at hand. Return: 0, -ENOMEM when the
 * faulting page found no memory, -EIO when no copy is good.
 */
static int fault_copy(struct hmm_ref_device *dev, struct migrate_vma *args,
		      unsigned long first, unsigned long last,
		      unsigned long fault_index)
{
	struct hmm_ref_job job;
	unsigned long i;
	int rc = 0;

	hmm_ref_engine_begin(&dev->dm.engine, &job);
	for (i = first; i < last; i++) {
		gfp_t gfp = i == fault_index ? GFP_HIGHUSER_MOVABLE : GFP_NEIGHBOUR;

		if (src_is_page(args->src[i]) &&
		    fill_system_page(&job, args->src[i], &args->dst[i], gfp,
				     args->vma, args->start + i * PAGE_SIZE) &&
		    i == fault_index)
			rc = -ENOMEM;
	}
	if (hmm_ref_engine_wait(&job)) {
		abandon_all(args->dst, args->npages);
		return -EIO;
	}
	return rc;
}

/*
 * The pagemap's migrate_to_ram. The core holds the lock of vmf->page and an extra
 * reference, which fault_page tells the migration. If the page is taken by someone
 * else in between there is nothing to do: the CPU touches it again.
 */
static vm_fault_t migrate_to_ram(struct vm_fault *vmf)
{
	struct hmm_ref_devmem *dm = page_pgmap(vmf->page)->owner;
	struct hmm_ref_device *dev = container_of(dm, struct hmm_ref_device, dm);
	unsigned long src[HMM_REF_FAULT_AROUND_MAX] = {};
	unsigned long dst[HMM_REF_FAULT_AROUND_MAX] = {};
	struct migrate_vma args = {
		.vma = vmf->vma,
		.src = src,
		.dst = dst,
		.pgmap_owner = dm->owner,
		.flags = MIGRATE_VMA_SELECT_DEVICE_PRIVATE,
		.fault_page = vmf->page,
	};
	unsigned long index;
	int rc;

	fault_range(dev, vmf, &args);
	index = (vmf->address - args.start) >> PAGE_SHIFT;
	if (migrate_vma_setup(&args))
		return VM_FAULT_SIGBUS;
	rc = fault_copy(dev, &args, 0, args.npages, index);
	if (rc == -EIO) /* a neighbour may be to blame */
		rc = fault_copy(dev, &args, index, index + 1, index);
	migrate_vma_pages(&args);
	hmm_ref_count(dev->counters, cpu_faults, 1);
	hmm_ref_count(dev->counters, fault_pages,
		      count_moved(src, dst, args.npages));
	migrate_vma_finalize(&args);
	if (rc == -ENOMEM)
		return VM_FAULT_OOM;
	/* The page's data cannot be had: SIGBUS, never other data. */
	return rc ? VM_FAULT_SIGBUS : 0;
}

const struct dev_pagemap_ops hmm_ref_pagemap_ops = {
	.folio_free = hmm_ref_pagemap_folio_free,
	.migrate_to_ram = migrate_to_ram,
	.memory_failure = hmm_ref_devmem_memory_failure,
};

/* ---- the MIGRATE command ------------------------------------------------------- */

/*
 * Reserve device pages for a window, evicting others if need be. Pages that are on
 * the device already need none; they are only looked for when it is full.
 * Return: pages reserved, or an errno when it is none though some are needed.
 */
static long reserve_window(struct hmm_ref_client *client, unsigned long start,
			   unsigned long end, struct pass *pass)
{
	struct hmm_ref_devmem *dm = &client->dev->dm;
	unsigned long need = (end - start) >> PAGE_SHIFT;
	long got = hmm_ref_devmem_reserve(dm, need);
	long more;
	int rc = 0;

	if (got == need || (got < 0 && got != -ENOSPC))
		return got;
	got = max(got, 0L);
	more = hmm_ref_mirror_resident(&client->mirror, start, end,
				       client->window.dst);
	if (more > 0)
		need -= more;
	while (got < need && !rc) {
		rc = evict_some(client->dev);
		if (rc)
			break;
		more = hmm_ref_devmem_reserve(dm, need - got);
		if (more > 0)
			got += more;
		else if (more != -ENOSPC)
			rc = more;
	}
	pass->starved = got < need;
	return got || rc == -ENOSPC ? got : rc;
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
		.pgmap_owner = client->dev->dm.owner,
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
		if (moved >= nr)
			break;
		resident = hmm_ref_mirror_resident(&client->mirror, start, *end,
						   client->window.dst);
		if (resident < 0)
			skipped = nr - moved;
		else
			skipped = to_device ? nr - resident : resident;
	} while (!rc && !pass.starved && skipped > pass.refused &&
		 ++tries < MIGRATE_TRIES);

	if (!pass.tried && !moved)
		return rc;
	moved = min(moved, nr);
	skipped = min(skipped, nr - moved);
	cmd->out_migrated += moved;
	cmd->out_skipped += skipped;
	cmd->out_already += nr - moved - skipped;
	if (!rc && skipped && pass.starved)
		rc = -ENOMEM;
	return rc;
}

/**
 * hmm_ref_migrate() - the MIGRATE command
 * @client: open file of the current process
 * @cmd: validated but for what is mapped; the counts are set, also on error
 *
 * Context: process context of the mirrored mm; takes mmap_lock.
 * Return: 0 or an errno of the uapi.
 */
int hmm_ref_migrate(struct hmm_ref_client *client, struct hmm_ref_migrate *cmd)
{
	unsigned long addr = cmd->addr;
	unsigned long last = cmd->addr + cmd->length;
	int rc = 0;

	cmd->out_migrated = 0;
	cmd->out_already = 0;
	cmd->out_skipped = 0;
	if (mutex_lock_killable(&client->window.lock))
		return -EINTR;
	while (addr < last && !rc) {
		unsigned long end = min(last, ALIGN(addr + 1, PMD_SIZE));

		rc = migrate_window(client, cmd, addr, &end);
		addr = end;
		if (!rc && fatal_signal_pending(current))
			rc = -EINTR;
		cond_resched();
	}
	mutex_unlock(&client->window.lock);
	if (cmd->direction == HMM_REF_TO_DEVICE)
		hmm_ref_count(client->dev->counters, to_device, cmd->out_migrated);
	else
		hmm_ref_count(client->dev->counters, to_system, cmd->out_migrated);
	return rc;
}
