// SPDX-License-Identifier: GPL-2.0-only
/*
 * Filling a migration to system memory: system pages for the entries that setup
 * has collected, and the copies. Pages for which no memory can be allocated
 * stay on the device.
 *
 * Large folios are not split if large pages can be allocated. A folio never
 * gets single pages as destinations, though migrate_vma_pages() would split it:
 * the core splits it in the VMA that migrates, while another process may map
 * the folio as well, and another thread may have replaced it there. Instead,
 * the migration is repeated without MIGRATE_VMA_SELECT_COMPOUND, so that setup
 * splits it.
 */
#include <linux/gfp.h>
#include <linux/pagemap.h>

#include "fail.h"
#include "migrate.h"

/* Compact, but do not retry hard: a failure is never fatal. */
#define GFP_LARGE	(GFP_TRANSHUGE | __GFP_NORETRY | __GFP_NOWARN)

/*
 * Fill entry @i with a system folio, to be copied from the device pages
 * starting at @dpfn. Without a VMA the NUMA policy is not known. Return: 0 or
 * -ENOMEM.
 */
static __always_inline int fill(struct hmm_ref_move *move, unsigned long i,
				unsigned long dpfn, unsigned int order,
				gfp_t gfp)
{
	struct migrate_vma *args = &move->args;
	struct folio *folio;

	if (hmm_ref_fail(HMM_REF_FAIL_PAGE))
		return -ENOMEM;
	if (args->vma)
		folio = vma_alloc_folio(gfp, order, args->vma,
					args->start + i * PAGE_SIZE);
	else
		folio = __folio_alloc_node(gfp, order, numa_mem_id());
	if (!folio)
		return -ENOMEM;
	__folio_set_locked(folio); /* not visible to other tasks yet */
	hmm_ref_job_copy(move->job, HMM_REF_COPY_OUT, dpfn,
			 folio_page(folio, 0), 1U << order);
	args->dst[i] = migrate_pfn(folio_pfn(folio)) |
		       (order ? MIGRATE_PFN_COMPOUND : 0);
	return 0;
}

static __always_inline int fill_folio(struct hmm_ref_move *move,
				      unsigned long i, gfp_t gfp)
{
	unsigned long src = move->args.src[i];
	unsigned long dpfn = hmm_ref_folio_dpfn(hmm_ref_src_folio(src));
	unsigned int order = 0;

	if (src & MIGRATE_PFN_COMPOUND) {
		if (hmm_ref_fail(HMM_REF_FAIL_LARGE))
			return -ENOMEM;
		order = HMM_REF_BLOCK_ORDER;
		gfp = GFP_LARGE;
	}
	return fill(move, i, dpfn, order, gfp);
}

/**
 * hmm_ref_fill_folio() - fill an entry with a system folio and add the copy
 * @move: migration, after setup
 * @i: index of the entry
 * @gfp: flags for the allocation if the folio is a single page
 *
 * Return: 0 or -ENOMEM, with the entry's dst unchanged.
 */
int hmm_ref_fill_folio(struct hmm_ref_move *move, unsigned long i, gfp_t gfp)
{
	return fill_folio(move, i, gfp);
}

/**
 * hmm_ref_fill_page() - fill one page of a folio and add the copy
 * @move: migration, after setup
 * @i: index of the folio's entry
 * @index: index of the page in the folio
 * @gfp: flags for the allocation
 *
 * Return: 0, -ENOMEM, or -EIO if the data of the page is lost, with the page's
 * dst unchanged.
 */
int hmm_ref_fill_page(struct hmm_ref_move *move, unsigned long i,
		      unsigned long index, gfp_t gfp)
{
	struct folio *folio = hmm_ref_src_folio(move->args.src[i]);
	unsigned long dpfn = hmm_ref_folio_dpfn(folio) + index;

	if (hmm_ref_devmem_any_lost(move->dm, dpfn, 1))
		return -EIO;
	return fill(move, i + index, dpfn, 0, gfp);
}

/**
 * hmm_ref_system_gfp() - choose allocation flags for system pages
 * @dm: device memory that the pages leave
 * @cause: reason
 *
 * Removal has to move all pages. Other migrations may fail, even before a
 * sleep, since the system can stay awake; so they do not invoke the OOM killer.
 * Eviction is not confined to the cpuset of the task that evicts.
 *
 * Return: GFP flags.
 */
gfp_t hmm_ref_system_gfp(struct hmm_ref_devmem *dm, enum hmm_ref_cause cause)
{
	const gfp_t gfp = GFP_HIGHUSER_MOVABLE | __GFP_RETRY_MAYFAIL |
			  __GFP_NOWARN;

	if (cause == HMM_REF_BY_COMMAND || cause == HMM_REF_BY_PEER)
		return gfp;
	if (READ_ONCE(dm->stopped) == HMM_REF_STOPPED_FOR_GOOD)
		return GFP_HIGHUSER_MOVABLE;
	return gfp & ~__GFP_HARDWALL;
}

/* Return: 0, -ENOMEM without a page, -E2BIG without a large page. */
static int fill_system(struct hmm_ref_move *move)
{
	const gfp_t gfp = hmm_ref_system_gfp(move->dm, move->cause);
	const unsigned long *src = move->args.src;
	unsigned long i;
	int rc;

	for (i = 0; i < move->args.npages; i++) {
		if (!hmm_ref_src_is_page(src[i]))
			continue;
		rc = fill_folio(move, i, gfp);
		if (rc)
			return src[i] & MIGRATE_PFN_COMPOUND ? -E2BIG : rc;
	}
	return 0;
}

/**
 * hmm_ref_to_system() - move the device pages of a VMA to system memory
 * @move: migration with the VMA, the range and the cause; with
 *	MIGRATE_VMA_SELECT_COMPOUND in its flags, large folios are not split if
 *	large pages can be allocated
 *
 * Context: mmap_lock of the VMA's mm, for read.
 * Return: 0; -EINVAL for a VMA that does not migrate; -ENOMEM, or an errno of
 * struct hmm_ref_hw_ops, with @move->moved pages moved before.
 */
int hmm_ref_to_system(struct hmm_ref_move *move)
{
	unsigned long moved;
	int rc;

	move->fill = fill_system;
	move->args.flags |= hmm_ref_select(move->dm);
	rc = hmm_ref_migrate(move);
	if (rc != -E2BIG)
		return rc;
	moved = move->moved;
	move->args.flags &= ~MIGRATE_VMA_SELECT_COMPOUND;
	rc = hmm_ref_migrate(move);
	move->moved += moved;
	return rc;
}
