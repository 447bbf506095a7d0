// SPDX-License-Identifier: GPL-2.0-only
/*
 * The steps of a migration to system memory. migrate_cmd.c has their order and its rules.
 *
 * A folio is not answered with single pages, though migrate_vma_pages() would split it: it
 * does so in the VMA that migrates, while another process may map the folio as well, and
 * another thread may have put something else there. Where a large page cannot be had, all
 * begins anew without MIGRATE_VMA_SELECT_COMPOUND, and setup splits.
 */
#include <linux/gfp.h>
#include <linux/pagemap.h>

#include "migrate.h"

/* The attempt is worth some compaction; nobody fails for want of a large page. */
#define GFP_LARGE	(GFP_TRANSHUGE | __GFP_NORETRY | __GFP_NOWARN)

static inline int fill(struct hmm_ref_job *job, unsigned long dpfn, unsigned int order,
		       unsigned long *dst, gfp_t gfp, struct vm_area_struct *vma,
		       unsigned long addr)
{
	struct folio *folio;

	if (hmm_ref_fail(HMM_REF_FAIL_PAGE))
		return -ENOMEM;
	folio = vma ? vma_alloc_folio(gfp, order, vma, addr) :
		      __folio_alloc_node(gfp, order, numa_mem_id());
	if (!folio)
		return -ENOMEM;
	__folio_set_locked(folio); /* not visible to others yet */
	hmm_ref_engine_copy(job, HMM_REF_COPY_OUT, dpfn, folio_page(folio, 0), 1U << order);
	*dst = migrate_pfn(folio_pfn(folio)) | (order ? MIGRATE_PFN_COMPOUND : 0);
	return 0;
}

static inline int fill_folio(struct hmm_ref_job *job, unsigned long src, unsigned long *dst,
			     gfp_t gfp, struct vm_area_struct *vma, unsigned long addr)
{
	unsigned long dpfn = hmm_ref_folio_dpfn(hmm_ref_src_folio(src));
	unsigned int order = 0;

	if (src & MIGRATE_PFN_COMPOUND) {
		if (hmm_ref_fail(HMM_REF_FAIL_LARGE))
			return -ENOMEM;
		order = HMM_REF_BLOCK_ORDER;
		gfp = GFP_LARGE;
	}
	return fill(job, dpfn, order, dst, gfp, vma, addr);
}

/**
 * hmm_ref_fill_folio() - give a device folio a system folio of its size, queue the copy
 * @job: batch that the copy joins
 * @src: source entry of the device folio
 * @dst: destination entry to set
 * @gfp: for the system page, if it is a single one
 * @vma: that maps it, for the NUMA policy; NULL when the caller does not know
 * @addr: user address in @vma
 *
 * Return: 0 or -ENOMEM, with @dst as it was.
 */
int hmm_ref_fill_folio(struct hmm_ref_job *job, unsigned long src,
		       unsigned long *dst, gfp_t gfp, struct vm_area_struct *vma,
		       unsigned long addr)
{
	return fill_folio(job, src, dst, gfp, vma, addr);
}

/**
 * hmm_ref_fill_page() - give one page of a device folio a system page, queue the copy
 * @dm: device memory
 * @job: batch that the copy joins
 * @src: source entry of the device folio
 * @index: of the page in the folio
 * @dst: destination entry to set
 * @gfp: for the system page
 *
 * Return: 0, -ENOMEM, or -EIO when the data of the page is lost, with @dst as it was.
 */
int hmm_ref_fill_page(struct hmm_ref_devmem *dm, struct hmm_ref_job *job, unsigned long src,
		      unsigned long index, unsigned long *dst, gfp_t gfp)
{
	unsigned long dpfn = hmm_ref_page_dpfn(migrate_pfn_to_page(src)) + index;

	if (hmm_ref_devmem_any_lost(dm, dpfn, 1))
		return -EIO;
	return fill(job, dpfn, 0, dst, gfp, NULL, 0);
}

/**
 * hmm_ref_system_gfp() - what system pages are worth
 * @dm: device memory that pages leave
 * @cause: why
 *
 * A device that goes needs them all. Other migrations can be done without: they do not kill a
 * process for it. Eviction does not look for memory where the task that evicts has to stay.
 *
 * Return: GFP flags.
 */
gfp_t hmm_ref_system_gfp(struct hmm_ref_devmem *dm, enum hmm_ref_cause cause)
{
	const gfp_t gfp = GFP_HIGHUSER_MOVABLE | __GFP_RETRY_MAYFAIL | __GFP_NOWARN;

	if (cause == HMM_REF_BY_COMMAND)
		return gfp;
	if (READ_ONCE(dm->stopped))
		return GFP_HIGHUSER_MOVABLE;
	return gfp & ~__GFP_HARDWALL;
}

/**
 * hmm_ref_to_system_begin() - setup, system pages, and the copies under way
 * @dm: device memory
 * @move: with its VMA and range; all else of it is set here
 * @window: its scratch memory, until the end
 * @large: keep large folios whole; else the core splits them in setup
 * @cause: why
 *
 * Context: mmap_lock of the VMA's mm, until hmm_ref_to_system_end().
 * Return: 0, then the end must follow; or -EINVAL for a VMA that does not migrate.
 */
int hmm_ref_to_system_begin(struct hmm_ref_devmem *dm, struct hmm_ref_move *move,
			    struct hmm_ref_window *window, bool large,
			    enum hmm_ref_cause cause)
{
	struct migrate_vma *args = &move->args;
	gfp_t gfp = hmm_ref_system_gfp(dm, cause);
	unsigned long i;
	int rc;

	args->src = window->src;
	args->dst = window->dst;
	args->pgmap_owner = dm->pgmap_owner;
	args->flags = dm->type == MEMORY_DEVICE_COHERENT ?
		      MIGRATE_VMA_SELECT_DEVICE_COHERENT :
		      MIGRATE_VMA_SELECT_DEVICE_PRIVATE;
	if (large)
		args->flags |= MIGRATE_VMA_SELECT_COMPOUND;
	rc = migrate_vma_setup(args);
	if (rc)
		return rc;
	move->rc = 0;
	move->refused = 0;
	hmm_ref_engine_begin(&dm->engine, &move->job, window->ring,
			     HMM_REF_BLOCK_PAGES);
	for (i = 0; i < args->npages && !move->rc; i++) {
		unsigned long src = args->src[i];

		if (!hmm_ref_src_is_page(src))
			continue;
		move->rc = fill_folio(&move->job, src, &args->dst[i], gfp, args->vma,
				      args->start + i * PAGE_SIZE);
		if (move->rc && src & MIGRATE_PFN_COMPOUND)
			move->rc = -EAGAIN;
	}
	hmm_ref_engine_submit(&move->job);
	return 0;
}

/**
 * hmm_ref_to_system_end() - the other half of hmm_ref_to_system_begin()
 * @move: begun; its rc is 0, -ENOMEM, -EIO, or -EAGAIN when a large page cannot be had
 * @cause: why
 *
 * Return: pages moved.
 */
unsigned long hmm_ref_to_system_end(struct hmm_ref_move *move, enum hmm_ref_cause cause)
{
	struct migrate_vma *args = &move->args;
	unsigned long moved;

	hmm_ref_move_commit(move);
	moved = hmm_ref_left(args->src, args->dst, args->npages, cause);
	migrate_vma_finalize(args);
	return moved;
}

/**
 * hmm_ref_to_system() - move what a VMA has on the device to system memory
 * @dm: device memory
 * @move: with its VMA and range
 * @window: scratch memory
 * @large: keep large folios whole where large pages can be had
 * @cause: why
 * @moved: pages moved
 *
 * Context: mmap_lock of the VMA's mm.
 * Return: 0 when setup has run and nothing went wrong; -EINVAL for a VMA that does not
 * migrate; -ENOMEM or -EIO, with @moved pages moved before it.
 */
int hmm_ref_to_system(struct hmm_ref_devmem *dm, struct hmm_ref_move *move,
		      struct hmm_ref_window *window, bool large,
		      enum hmm_ref_cause cause, unsigned long *moved)
{
	int rc;

	*moved = 0;
	do {
		rc = hmm_ref_to_system_begin(dm, move, window, large, cause);
		if (rc)
			return rc;
		*moved += hmm_ref_to_system_end(move, cause);
		large = false;
	} while (move->rc == -EAGAIN);
	return move->rc;
}
