// SPDX-License-Identifier: GPL-2.0-only
/*
 * Where pages go that move to the device: device pages for the entries that setup has collected,
 * and the copies.
 *
 * What setup has collected says how many device pages it takes. They are reserved at once,
 * or not at all: nothing can wait once setup has locked the source pages. Then all is
 * undone, the caller makes room, and begins again. A caller that can make no more room has
 * as many moved as there is: the entries behind the last one have no dst, and stay.
 *
 * A large folio waits for a block, and stays where it is if there is none. A large hole is
 * filled with all of its pages or with none.
 *
 * Pages of another device move the same way, if this one reaches them. Setup collects the holes
 * between them as well, which are left to the migration of system memory.
 */
#include "fail.h"
#include "migrate.h"

/* Holes and anonymous pages move; the core would refuse others late and at a cost. */
static inline bool wants_device(const struct hmm_ref_to_device *to, unsigned long src)
{
	struct page *page = migrate_pfn_to_page(src);

	if (!(src & MIGRATE_PFN_MIGRATE))
		return false;
	return page ? folio_test_anon(page_folio(page)) : !to->move.peer;
}

/* Is every entry that setup has collected one that wants a page? */
static inline bool all_want_device(const struct hmm_ref_to_device *to)
{
	return vma_is_anonymous(to->move.args.vma) && !to->move.peer;
}

/* A hole has no page: it is cleared. */
static inline void add_copy(struct hmm_ref_job *job, const struct folio *folio,
			    struct page *page, unsigned long nr)
{
	unsigned long dpfn = hmm_ref_folio_dpfn(folio);

	if (job->peer)
		hmm_ref_job_copy_peer(job, dpfn, hmm_ref_page_dpfn(page), nr);
	else
		hmm_ref_job_copy(job, page ? HMM_REF_COPY_IN : HMM_REF_COPY_ZERO, dpfn, page, nr);
}

/* Rule 4 of devmem.c, for pages that no copy has been added for. */
static void put_unused(struct folio **folios, unsigned long nr)
{
	for (; nr; nr--, folios++) {
		folio_unlock(*folios);
		folio_put(*folios);
	}
}

/* How many entries want a page? An anonymous VMA has no pages of another kind. */
static unsigned long count_wanted(const struct hmm_ref_to_device *to)
{
	const struct migrate_vma *args = &to->move.args;
	unsigned long wanted = 0;
	unsigned long i;

	if (all_want_device(to))
		return args->cpages;
	for (i = 0; i < args->npages; i++)
		wanted += wants_device(to, args->src[i]);
	return wanted;
}

/* What does it take to move all that setup has collected? */
static void plan(struct hmm_ref_to_device *to)
{
	const struct migrate_vma *args = &to->move.args;
	unsigned long src = args->src[0];

	to->whole = false;
	to->refused = 0;
	if (!(src & MIGRATE_PFN_COMPOUND)) {
		to->need = count_wanted(to);
	} else if (wants_device(to, src)) {
		to->need = HMM_REF_BLOCK_PAGES;
		/* As the CPU would fill a hole. (Whether it may at all, a module cannot ask.) */
		to->whole = hmm_ref_src_is_page(src) ||
			    !vma_thp_disabled(args->vma, args->vma->vm_flags, false);
	} else {
		to->need = 0;
		to->refused = migrate_pfn_to_page(src) ? HMM_REF_BLOCK_PAGES : 0;
	}
}

/* Reserve what is planned. A hole can do with single pages, a folio is not split. */
static int reserve_plan(struct hmm_ref_to_device *to)
{
	struct hmm_ref_devmem *dm = to->move.dm;
	int rc;

	if (!to->need)
		return 0;
	rc = hmm_ref_devmem_try_reserve(dm, to->room, to->need, to->whole);
	if (rc == -ENOSPC && to->whole && !hmm_ref_src_is_page(to->move.args.src[0]))
		rc = hmm_ref_devmem_try_reserve(dm, to->room, to->need, false);
	return rc;
}

/* Fill one large entry with a large folio. Return: false when there is none for it. */
static bool fill_large(struct hmm_ref_to_device *to)
{
	struct migrate_vma *args = &to->move.args;
	struct folio *folio;

	if (!to->room->block || hmm_ref_fail(HMM_REF_FAIL_LARGE))
		return false;
	folio = hmm_ref_devmem_handout_large(to->move.dm, to->room, to->owner);
	if (!folio)
		return false;
	add_copy(to->move.job, folio, migrate_pfn_to_page(args->src[0]), HMM_REF_BLOCK_PAGES);
	args->dst[0] = migrate_pfn(folio_pfn(folio)) | MIGRATE_PFN_COMPOUND;
	return true;
}

/* Single pages for a large hole, all or none. Return: false for none. */
static bool fill_hole(struct hmm_ref_to_device *to)
{
	struct hmm_ref_devmem *dm = to->move.dm;
	struct folio **folios = to->folios;
	unsigned long got;
	unsigned long i;

	/* A block that has not become a folio counts as pages again. */
	hmm_ref_devmem_unreserve(dm, to->room);
	if (hmm_ref_devmem_try_reserve(dm, to->room, HMM_REF_BLOCK_PAGES, false))
		return false;
	got = hmm_ref_devmem_handout(dm, to->room, to->owner, folios, HMM_REF_BLOCK_PAGES);
	if (got < HMM_REF_BLOCK_PAGES) {
		put_unused(folios, got);
		return false;
	}
	for (i = 0; i < got; i++) {
		add_copy(to->move.job, folios[i], NULL, 1);
		to->move.args.dst[i] = migrate_pfn(folio_pfn(folios[i]));
	}
	return true;
}

/* Single pages for as many of the entries as there are. */
static void fill_single(struct hmm_ref_to_device *to)
{
	struct migrate_vma *args = &to->move.args;
	const bool all = all_want_device(to);
	const unsigned long npages = args->npages;
	const unsigned long *src = args->src;
	struct folio **next = to->folios;
	unsigned long *dst = args->dst;
	struct folio **end;
	unsigned long i;

	end = next + hmm_ref_devmem_handout(to->move.dm, to->room, to->owner, next,
					    min(to->need, to->room->nr));
	for (i = 0; i < npages; i++) {
		unsigned long entry = src[i];
		struct folio *folio;

		if (!(entry & MIGRATE_PFN_MIGRATE))
			continue;
		if (!all && !wants_device(to, entry)) {
			to->refused += !!migrate_pfn_to_page(entry);
			continue;
		}
		if (next == end)
			break;
		folio = *next++;
		add_copy(to->move.job, folio, migrate_pfn_to_page(entry), 1);
		dst[i] = migrate_pfn(folio_pfn(folio));
	}
	put_unused(next, end - next);
}

/**
 * hmm_ref_fill_device() - hand out device pages, and add the copies
 * @move: part of a struct hmm_ref_to_device
 *
 * A large entry fills the whole window.
 *
 * Return: 0; or -ENOSPC, and nothing moves, when there is too little room. To know what it takes
 * is to have begun: @need and @whole say how much room to make before it begins again.
 */
int hmm_ref_fill_device(struct hmm_ref_move *move)
{
	struct hmm_ref_to_device *to = container_of(move, struct hmm_ref_to_device, move);
	unsigned long src = move->args.src[0];
	int rc;

	plan(to);
	rc = to->all ? reserve_plan(to) : 0;
	if (rc)
		return rc;
	if (!(src & MIGRATE_PFN_COMPOUND)) {
		fill_single(to);
		return 0;
	}
	if (!to->need || (to->whole && fill_large(to)))
		return 0;
	return !hmm_ref_src_is_page(src) && fill_hole(to) ? 0 : -ENOSPC;
}
