// SPDX-License-Identifier: GPL-2.0-only
/*
 * The steps of a migration to the device. migrate.c has their order and its rules.
 *
 * Device pages come out of what the caller has reserved, since nothing can be evicted
 * once setup has locked the source pages. They may be fewer than there are entries: the
 * entries behind the last one have no dst, and stay.
 */
#include <linux/userfaultfd_k.h>

#include "migrate.h"

/*
 * Holes and anonymous pages move; the core would refuse others late and at a cost. Merged
 * ones it would not refuse: see cut_at_merged(). Nor does it look whether a hole, or the
 * zero page, is write-protected by a userfaultfd: with a page there, writes are not told.
 */
static inline bool wants_device(struct vm_area_struct *vma, unsigned long src)
{
	struct page *page = migrate_pfn_to_page(src);

	if (!(src & MIGRATE_PFN_MIGRATE))
		return false;
	return page ? hmm_ref_is_anon(page_folio(page)) : !userfaultfd_wp(vma);
}

static inline void queue_copy(struct hmm_ref_job *job, struct page *dev_page,
			      struct page *sys_page, unsigned long nr)
{
	unsigned long dpfn = hmm_ref_page_dpfn(dev_page);

	if (sys_page)
		hmm_ref_engine_copy_in(job, dpfn, sys_page, nr);
	else
		hmm_ref_engine_clear(job, dpfn, nr);
}

/* Rule 4 of devmem.c, for pages that no copy has been queued for. */
static void put_unused(struct page **dev_pages, unsigned long nr)
{
	for (; nr; nr--, dev_pages++) {
		unlock_page(*dev_pages);
		put_page(*dev_pages);
	}
}

/* Fill one large entry with a large folio. Return: pages handed out for it. */
static unsigned long fill_large(struct hmm_ref_client *client,
				struct migrate_vma *args, struct hmm_ref_job *job)
{
	struct page *sys_page = migrate_pfn_to_page(args->src[0]);
	struct folio *folio;

	if (!sys_page && (args->vma->vm_flags & VM_NOHUGEPAGE))
		return 0;
	if (hmm_ref_fail(HMM_REF_FAIL_LARGE))
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
			       struct migrate_vma *args, struct hmm_ref_job *job,
			       struct page **dev_pages)
{
	unsigned long got;
	unsigned long i;

	got = hmm_ref_devmem_handout(&client->dev->dm, client->owner, dev_pages,
				     HMM_REF_BLOCK_PAGES);
	if (got < HMM_REF_BLOCK_PAGES) {
		put_unused(dev_pages, got);
		return got;
	}
	for (i = 0; i < got; i++) {
		queue_copy(job, dev_pages[i], NULL, 1);
		args->dst[i] = migrate_pfn(page_to_pfn(dev_pages[i]));
	}
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

	if (vma_is_anonymous(args->vma) && !userfaultfd_wp(args->vma))
		return args->cpages;
	for (i = 0; i < args->npages; i++)
		wanted += wants_device(args->vma, args->src[i]);
	return wanted;
}

/* Single pages for up to @reserved of the entries. Return: pages handed out. */
static unsigned long fill_single(struct hmm_ref_client *client,
				 struct hmm_ref_move *move, struct page **dev_pages,
				 unsigned long reserved)
{
	struct migrate_vma *args = &move->args;
	const unsigned long *src = args->src;
	unsigned long npages = args->npages;
	unsigned long next = 0;
	unsigned long got;
	unsigned long i;

	got = hmm_ref_devmem_handout(&client->dev->dm, client->owner, dev_pages,
				     min(count_wanted(args), reserved));
	for (i = 0; i < npages; i++) {
		struct page *dev_page;

		if (!wants_device(args->vma, src[i])) {
			move->refused += hmm_ref_src_is_page(src[i]);
			continue;
		}
		if (next == got)
			break;
		dev_page = dev_pages[next++];
		queue_copy(&move->job, dev_page, migrate_pfn_to_page(src[i]), 1);
		args->dst[i] = migrate_pfn(page_to_pfn(dev_page));
	}
	put_unused(dev_pages + next, got - next);
	return got;
}

/*
 * Hand out device pages for the entries that setup has collected, and fill them. What
 * is handed out comes off @reserved. A large entry fills the whole window. Return: 0, or
 * -EAGAIN when there is no large folio for it.
 */
static int fill_device(struct hmm_ref_client *client, struct hmm_ref_move *move,
		       struct page **dev_pages, long *reserved)
{
	struct migrate_vma *args = &move->args;
	unsigned long src = args->src[0];
	unsigned long got = 0;
	int rc = 0;

	if (!(src & MIGRATE_PFN_COMPOUND)) {
		got = fill_single(client, move, dev_pages, *reserved);
	} else if (wants_device(args->vma, src)) {
		got = fill_large(client, args, &move->job);
		if (!got && hmm_ref_src_is_page(src))
			rc = -EAGAIN;
		else if (!got)
			got = fill_hole(client, args, &move->job, dev_pages);
	} else if (hmm_ref_src_is_page(src)) {
		move->refused = HMM_REF_BLOCK_PAGES;
	}
	*reserved -= got;
	return rc;
}

/**
 * hmm_ref_to_device_begin() - setup, device pages, and the copies under way
 * @client: whose pages they become
 * @move: with its VMA and range; all else of it is set here
 * @window: its scratch memory, until the end
 * @large: keep a large folio whole; else the core splits it in setup
 * @reserved: pages reserved for it; what is handed out comes off
 *
 * Context: mmap_lock of the VMA's mm, until hmm_ref_to_device_end().
 * Return: 0, then the end must follow; or -EINVAL for a VMA that does not migrate.
 */
int hmm_ref_to_device_begin(struct hmm_ref_client *client, struct hmm_ref_move *move,
			    struct hmm_ref_window *window, bool large, long *reserved)
{
	struct hmm_ref_devmem *dm = &client->dev->dm;
	int rc;

	move->args.src = window->src;
	move->args.dst = window->dst;
	move->args.pgmap_owner = dm->pgmap_owner;
	move->args.flags = MIGRATE_VMA_SELECT_SYSTEM;
	if (large)
		move->args.flags |= MIGRATE_VMA_SELECT_COMPOUND;
	rc = migrate_vma_setup(&move->args);
	if (rc)
		return rc;
	move->refused = 0;
	hmm_ref_engine_begin(&dm->engine, &move->job, window->ring,
			     HMM_REF_BLOCK_PAGES);
	move->rc = fill_device(client, move, window->dev_pages, reserved);
	hmm_ref_engine_submit(&move->job);
	return 0;
}

/**
 * hmm_ref_to_device_end() - the other half of hmm_ref_to_device_begin()
 * @client: the same
 * @move: begun; its rc is 0, -EIO, or -EAGAIN when there is no large page for it
 *
 * Return: pages moved.
 */
unsigned long hmm_ref_to_device_end(struct hmm_ref_client *client,
				    struct hmm_ref_move *move)
{
	struct migrate_vma *args = &move->args;
	unsigned long moved = 0;
	unsigned long i;

	hmm_ref_move_commit(move);
	for (i = 0; i < args->npages; i++)
		moved += hmm_ref_moved(args->src[i], args->dst[i]);
	/* What is large is the whole window. */
	moved *= hmm_ref_src_pages(args->src[0]);
	atomic_long_add(moved, &client->owner->to_device);
	migrate_vma_finalize(args);
	return moved;
}
