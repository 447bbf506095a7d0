// SPDX-License-Identifier: GPL-2.0-only
/*
 * Filling a migration to the device: device pages for the entries that setup
 * has collected, and the copies.
 *
 * The entries determine how many device pages are needed. These are reserved
 * all at once or not at all, because nothing may wait once setup has locked the
 * source pages. If too few are free, the migration is undone, and the caller
 * makes room and starts over. A caller that can make no more room moves as many
 * pages as fit: the remaining entries get no dst and stay.
 *
 * A large folio needs a block, and stays where it is if there is none. A large
 * hole is filled with all of its pages or with none.
 *
 * Pages of another device that this one can reach move the same way. Setup also
 * collects the holes between them; these are left to the migration from system
 * memory.
 */
#include "fail.h"
#include "migrate.h"

/* Holes and anonymous pages move. The core would refuse others, but later. */
static inline bool wants_device(const struct hmm_ref_to_device *to,
				unsigned long src)
{
	struct page *page = migrate_pfn_to_page(src);

	if (!(src & MIGRATE_PFN_MIGRATE))
		return false;
	return page ? folio_test_anon(page_folio(page)) : !to->move.peer;
}

/* True if all collected entries need a device page. */
static inline bool all_want_device(const struct hmm_ref_to_device *to)
{
	return vma_is_anonymous(to->move.args.vma) && !to->move.peer;
}

/* A hole has no page: clear the destination. */
static inline void add_copy(struct hmm_ref_job *job, const struct folio *folio,
			    struct page *page, unsigned long nr)
{
	unsigned long dpfn = hmm_ref_folio_dpfn(folio);

	if (job->peer)
		hmm_ref_job_copy_peer(job, dpfn, hmm_ref_page_dpfn(page), nr);
	else
		hmm_ref_job_copy(job,
				 page ? HMM_REF_COPY_IN : HMM_REF_COPY_ZERO,
				 dpfn, page, nr);
}

/* Rule 4 of devmem.c, for pages without a copy. */
static void put_unused(struct folio **folios, unsigned long nr)
{
	for (; nr; nr--, folios++) {
		folio_unlock(*folios);
		folio_put(*folios);
	}
}

/* Count entries that need a page. An anonymous VMA has only such pages. */
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

/* Determine the device pages that the collected entries need. */
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
		/* As the CPU would, except for settings hidden from modules. */
		to->whole = hmm_ref_src_is_page(src) ||
			    !vma_thp_disabled(args->vma, args->vma->vm_flags,
					      false);
	} else {
		to->need = 0;
		to->refused = migrate_pfn_to_page(src) ?
			      HMM_REF_BLOCK_PAGES : 0;
	}
}

/* Reserve planned pages. A hole can use single ones; a folio is not split. */
static int reserve_plan(struct hmm_ref_to_device *to)
{
	struct hmm_ref_devmem *dm = to->move.dm;
	int rc;

	if (!to->need)
		return 0;
	rc = hmm_ref_devmem_try_reserve(dm, to->room, to->need, to->whole);
	if (rc == -ENOSPC && to->whole &&
	    !hmm_ref_src_is_page(to->move.args.src[0]))
		rc = hmm_ref_devmem_try_reserve(dm, to->room, to->need, false);
	return rc;
}

/* Fill a large entry with a large folio. Return: false without a block. */
static bool fill_large(struct hmm_ref_to_device *to)
{
	struct migrate_vma *args = &to->move.args;
	struct folio *folio;

	if (!to->room->block || hmm_ref_fail(HMM_REF_FAIL_LARGE))
		return false;
	folio = hmm_ref_devmem_handout_large(to->move.dm, to->room, to->owner);
	if (!folio)
		return false;
	add_copy(to->move.job, folio, migrate_pfn_to_page(args->src[0]),
		 HMM_REF_BLOCK_PAGES);
	args->dst[0] = migrate_pfn(folio_pfn(folio)) | MIGRATE_PFN_COMPOUND;
	return true;
}

/* Fill a large hole with single pages, all or none. Return: false for none. */
static bool fill_hole(struct hmm_ref_to_device *to)
{
	struct hmm_ref_devmem *dm = to->move.dm;
	struct folio **folios = to->folios;
	unsigned long got;
	unsigned long i;

	/* Pages of a block that did not become a folio are usable singly. */
	hmm_ref_devmem_unreserve(dm, to->room);
	if (hmm_ref_devmem_try_reserve(dm, to->room, HMM_REF_BLOCK_PAGES,
				       false))
		return false;
	got = hmm_ref_devmem_handout(dm, to->room, to->owner, folios,
				     HMM_REF_BLOCK_PAGES);
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

/* Fill entries with single pages, as far as these are reserved. */
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

	end = next + hmm_ref_devmem_handout(to->move.dm, to->room, to->owner,
					    next, min(to->need, to->room->nr));
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
 * hmm_ref_fill_device() - hand out device pages and add the copies
 * @move: part of a struct hmm_ref_to_device
 *
 * A large entry covers the entire window.
 *
 * Return: 0; or -ENOSPC if room is short, and nothing moves. @need and @whole
 * then tell the caller how much room to make before it starts over.
 */
int hmm_ref_fill_device(struct hmm_ref_move *move)
{
	struct hmm_ref_to_device *to =
		container_of(move, struct hmm_ref_to_device, move);
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
