// SPDX-License-Identifier: GPL-2.0-only
/*
 * The steps that all migrations share. migrate_cmd.c has their order and its rules.
 *
 * An entry of src stands for one page or, with MIGRATE_PFN_COMPOUND, for a large folio
 * (or a hole as large); the entries behind it are then 0. Its dst is one large folio,
 * with MIGRATE_PFN_COMPOUND, too; or, for a hole, single pages in the entries from there on.
 */
#include <linux/pagemap.h>

#include "migrate.h"

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
	window->folios = kvcalloc(HMM_REF_BLOCK_PAGES, sizeof(*window->folios),
				  GFP_KERNEL_ACCOUNT);
	window->ring = kvcalloc(HMM_REF_BLOCK_PAGES, sizeof(*window->ring),
				GFP_KERNEL_ACCOUNT);
	if (window->src && window->dst && window->folios && window->ring)
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
	kvfree(window->folios);
	kvfree(window->ring);
}

/* ---- entries ----------------------------------------------------------- */

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

/**
 * hmm_ref_abandon_lost() - leave behind what was lost
 * @dm: device memory that pages leave
 * @src: source entries, with copies that are complete
 * @dst: destination entries; cleared where they are left
 * @npages: of each
 *
 * What was copied out of bad memory is not the data. Its page stays where it is, for the
 * next touch by the CPU to find out (migrate_fault.c).
 *
 * Return: 0, or -EAGAIN when that leaves a large folio behind, of which single pages could
 * still move.
 */
int hmm_ref_abandon_lost(struct hmm_ref_devmem *dm, const unsigned long *src,
			 unsigned long *dst, unsigned long npages)
{
	unsigned long dpfn = 0, first = 0, end = 0;
	unsigned long i;
	int rc = 0;

	if (!READ_ONCE(dm->any_lost))
		return 0;
	for (i = 0; i < npages; i++) {
		struct page *page = migrate_pfn_to_page(src[i]);

		/* Single pages for a large folio are in the entries from there on. */
		if (page) {
			first = i;
			end = hmm_ref_owns(dm, page) ? i + hmm_ref_src_pages(src[i]) : 0;
			dpfn = end ? hmm_ref_page_dpfn(page) : 0;
		}
		if (!dst[i] || i >= end ||
		    !hmm_ref_devmem_any_lost(dm, dpfn + (i - first),
					     hmm_ref_src_pages(dst[i])))
			continue;
		if (dst[i] & MIGRATE_PFN_COMPOUND)
			rc = -EAGAIN;
		hmm_ref_abandon_all(&dst[i], 1);
	}
	return rc;
}

static void count_left(struct hmm_ref_owner *owner, unsigned long nr,
		       enum hmm_ref_cause cause)
{
	if (owner)
		atomic_long_add(nr, &owner->left[cause]);
}

/**
 * hmm_ref_left() - after migrate_*_pages(): how many pages have left the device?
 * @src: source entries, device pages
 * @dst: destination entries
 * @npages: of each
 * @cause: why, for the pages' owners to count
 *
 * Return: pages.
 */
unsigned long hmm_ref_left(const unsigned long *src, const unsigned long *dst,
			   unsigned long npages, enum hmm_ref_cause cause)
{
	struct hmm_ref_owner *last = NULL;
	unsigned long left = 0, of_last = 0;
	unsigned long i;

	for (i = 0; i < npages; i++) {
		unsigned long nr = hmm_ref_src_pages(src[i]);
		struct hmm_ref_owner *owner;

		if (!hmm_ref_moved(src[i]))
			continue;
		owner = migrate_pfn_to_page(src[i])->zone_device_data;
		if (owner != last) {
			count_left(last, of_last, cause);
			last = owner;
			of_last = 0;
		}
		of_last += nr;
		left += nr;
	}
	count_left(last, of_last, cause);
	return left;
}

/**
 * hmm_ref_move_commit() - wait for the copies, and let the core commit what is good
 * @move: of which setup has run; an error of the engine becomes its rc
 *
 * All of it is retracted after such an error. Where memory of the device has failed, that
 * is what stays, and rc is -EAGAIN for a large folio.
 */
void hmm_ref_move_commit(struct hmm_ref_move *move)
{
	if (hmm_ref_engine_wait(&move->job)) {
		move->rc = -EIO;
		hmm_ref_abandon_all(move->args.dst, move->args.npages);
	} else if (hmm_ref_abandon_lost(move->args.pgmap_owner, move->args.src,
					move->args.dst, move->args.npages)) {
		move->rc = -EAGAIN;
	}
	migrate_vma_pages(&move->args);
}
