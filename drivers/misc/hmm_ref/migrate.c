// SPDX-License-Identifier: GPL-2.0-only
/*
 * The migration primitive: hmm_ref_migrate() performs all steps, in order.
 *
 * The MIGRATE command moves pages in both directions and between devices
 * (migrate_cmd.c). CPU faults (migrate_fault.c) and eviction (migrate_evict.c)
 * move pages to system memory. These callers differ in the pages that they
 * select and in how they fill the destinations.
 *
 * Rules:
 * - mmap_lock is held for read from VMA lookup to finalize. Eviction selects
 *   device pages by number: it has no VMA and takes no mmap_lock.
 * - Source pages are locked from setup to finalize. In between, never wait for
 *   room, or for an invalidation to end, as hmm_range_fault() does: the
 *   invalidating task may be waiting for these pages.
 * - Between submit and the return of the wait, the pages belong to the device.
 * - An entry moves if its dst is set. On any failure, abandon and clear the
 *   dst, but still perform the last two steps: skipping migrate_vma_pages()
 *   would leave migration entries that point to pages without data.
 * - After migrate_vma_pages(), src shows which pages have moved; cpages does
 *   not.
 * - A migration maps nothing for the device. MADV_DONTNEED does not wait for
 *   page locks, so a page that has just arrived may be about to be freed. Only
 *   range_fault.c maps pages, after checking the sequence.
 *
 * Entries: src stands for one page or, with MIGRATE_PFN_COMPOUND, for a large
 * folio or a hole of that size; the entries that follow are 0. Its dst is one
 * large folio, also with MIGRATE_PFN_COMPOUND, or single pages in that entry
 * and the following ones: for a hole, or when eviction lets the core split a
 * folio.
 */
#include <linux/pagemap.h>

#include "migrate.h"

/* ---- scratch memory ---------------------------------------------------- */

/**
 * hmm_ref_scratch_init() - allocate the arrays for a window
 * @scratch: scratch memory to set up
 *
 * Return: 0 or -ENOMEM.
 */
int hmm_ref_scratch_init(struct hmm_ref_scratch *scratch)
{
	scratch->src = kvcalloc(HMM_REF_BLOCK_PAGES, sizeof(*scratch->src),
				GFP_KERNEL_ACCOUNT);
	scratch->dst = kvcalloc(HMM_REF_BLOCK_PAGES, sizeof(*scratch->dst),
				GFP_KERNEL_ACCOUNT);
	scratch->folios = kvcalloc(HMM_REF_BLOCK_PAGES,
				   sizeof(*scratch->folios),
				   GFP_KERNEL_ACCOUNT);
	scratch->ring = kvcalloc(HMM_REF_BLOCK_PAGES, sizeof(*scratch->ring),
				 GFP_KERNEL_ACCOUNT);
	if (scratch->src && scratch->dst && scratch->folios && scratch->ring)
		return 0;
	hmm_ref_scratch_exit(scratch);
	return -ENOMEM;
}

/**
 * hmm_ref_scratch_exit() - free the arrays for a window
 * @scratch: scratch memory
 */
void hmm_ref_scratch_exit(struct hmm_ref_scratch *scratch)
{
	kvfree(scratch->src);
	kvfree(scratch->dst);
	kvfree(scratch->folios);
	kvfree(scratch->ring);
}

/* ---- entries ----------------------------------------------------------- */

/*
 * Free destinations, so that their pages do not move. Rule 4 of devmem.c for
 * device pages; system pages are freed the same way.
 */
static void abandon(unsigned long *dst, unsigned long npages)
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

/*
 * Data that was copied out of bad memory is not valid. Its page stays where it
 * is; the next touch by the CPU reports the loss (migrate_fault.c). Return: 0;
 * or -E2BIG if a large folio stays although some of its pages can still move.
 */
static int abandon_lost(struct hmm_ref_move *move)
{
	struct hmm_ref_devmem *source = move->peer ?: move->dm;
	const unsigned long *src = move->args.src;
	unsigned long *dst = move->args.dst;
	unsigned long dpfn = 0, first = 0, end = 0;
	unsigned long i;
	int rc = 0;

	if (!READ_ONCE(source->any_lost))
		return 0;
	for (i = 0; i < move->args.npages; i++) {
		struct page *page = migrate_pfn_to_page(src[i]);

		/* A large folio may have several destinations. */
		if (page) {
			first = i;
			end = hmm_ref_owns(source, page) ?
			      i + hmm_ref_src_pages(src[i]) : 0;
			dpfn = end ? hmm_ref_page_dpfn(page) : 0;
		}
		if (!dst[i] || i >= end ||
		    !hmm_ref_devmem_any_lost(source, dpfn + (i - first),
					     hmm_ref_src_pages(dst[i])))
			continue;
		if (dst[i] & MIGRATE_PFN_COMPOUND)
			rc = -E2BIG;
		abandon(&dst[i], 1);
	}
	return rc;
}

/*
 * Abandon the destinations of failed copies. The descriptors are in the order
 * of the entries. Return: 0; the errno of one of them; or -E2BIG as above.
 */
static int abandon_failed(struct hmm_ref_move *move)
{
	const struct hmm_ref_copy *copy = move->job->ring;
	const struct hmm_ref_copy *end = copy + move->job->nr;
	unsigned long *dst = move->args.dst;
	unsigned long i;
	int rc = 0;

	for (i = 0; i < move->args.npages; i++) {
		if (!dst[i])
			continue;
		if (copy == end) {
			rc = move->job->rc;
		} else if (copy->rc) {
			rc = copy->rc;
			if (rc == -EIO && copy->op == HMM_REF_COPY_OUT &&
			    dst[i] & MIGRATE_PFN_COMPOUND)
				rc = -E2BIG;
		}
		if (copy == end || copy->rc)
			abandon(&dst[i], 1);
		copy += copy < end;
	}
	/* A large hole is filled with all of its pages, or with none. */
	if (move->args.src[0] & MIGRATE_PFN_COMPOUND &&
	    !migrate_pfn_to_page(move->args.src[0]))
		abandon(dst, move->args.npages);
	return rc;
}

/* ---- counting ---------------------------------------------------------- */

/* After migrate_vma_pages(): count pages that are on the device now. */
static unsigned long count_arrived(const struct migrate_vma *args)
{
	unsigned long arrived = 0;
	unsigned long i;

	for (i = 0; i < args->npages; i++)
		arrived += hmm_ref_moved(args->src[i]);
	/* A large entry covers the window. */
	return arrived * hmm_ref_src_pages(args->src[0]);
}

static void count_for(struct hmm_ref_owner *owner, unsigned long nr,
		      enum hmm_ref_cause cause)
{
	if (owner)
		atomic_long_add(nr, &owner->departed[cause]);
}

/*
 * After migrate_*_pages(): count pages that have left the device, and add them
 * to the counts of their owners.
 */
static unsigned long count_departed(const struct migrate_vma *args,
				    enum hmm_ref_cause cause)
{
	struct hmm_ref_owner *last = NULL;
	unsigned long departed = 0, of_last = 0;
	unsigned long i;

	for (i = 0; i < args->npages; i++) {
		struct hmm_ref_owner *owner;
		unsigned long nr;

		if (!hmm_ref_moved(args->src[i]))
			continue;
		nr = hmm_ref_src_pages(args->src[i]);
		owner = migrate_pfn_to_page(args->src[i])->zone_device_data;
		if (owner != last) {
			count_for(last, of_last, cause);
			last = owner;
			of_last = 0;
		}
		of_last += nr;
		departed += nr;
	}
	count_for(last, of_last, cause);
	return departed;
}

/* ---- a migration ------------------------------------------------------- */

/**
 * hmm_ref_migrate() - move pages to a device, or to system memory
 * @move: migration; @move->moved is set
 *
 * Context: may sleep. With a VMA, mmap_lock of its mm is held for read;
 * otherwise no folio lock is held.
 * Return: 0; the error of @move->fill; the errno of a failed copy (its pages
 * stay); -E2BIG if a large folio stays but its pages may be readable one by
 * one; or, with nothing done, the error of setup, -EINVAL for a VMA that does
 * not migrate.
 */
int hmm_ref_migrate(struct hmm_ref_move *move)
{
	struct migrate_vma *args = &move->args;
	struct hmm_ref_job job;
	int rc;

	/* Unmap and lock sources. Pages in use lack MIGRATE_PFN_MIGRATE. */
	move->moved = 0;
	if (args->vma)
		rc = migrate_vma_setup(args);
	else
		rc = migrate_device_range(args->src, move->first_pfn,
					  args->npages);
	if (rc)
		return rc;

	/* Allocate locked destinations. Errors can still be undone. */
	hmm_ref_job_begin(&job, move->dm, move->ring, move->ring_size);
	job.peer = move->peer;
	move->job = &job;
	rc = move->fill(move);
	hmm_ref_job_submit(&job);

	/* Abandon destinations without data. */
	if (hmm_ref_job_wait(&job))
		rc = abandon_failed(move);
	if (abandon_lost(move))
		rc = -E2BIG;

	/* Commit page by page. A refusal clears MIGRATE_PFN_MIGRATE. */
	if (args->vma)
		migrate_vma_pages(args);
	else
		migrate_device_pages(args->src, args->dst, args->npages);

	/* Source pages lose their owners when they are put. */
	if (args->flags & MIGRATE_VMA_SELECT_SYSTEM)
		move->moved = count_arrived(args);
	else
		move->moved = count_departed(args, move->cause);

	/* Map pages that moved, restore others; unlock and put both sides. */
	if (args->vma)
		migrate_vma_finalize(args);
	else
		migrate_device_finalize(args->src, args->dst, args->npages);
	return rc;
}
