// SPDX-License-Identifier: GPL-2.0-only
/*
 * The steps of a migration to the device. migrate_cmd.c has their order and its rules.
 *
 * What setup has collected says how many device pages it takes. They are reserved at once,
 * or not at all: nothing can wait once setup has locked the source pages. Then all is
 * undone, the caller makes room, and begins again. A caller that can make no more room has
 * as many moved as there is: the entries behind the last one have no dst, and stay.
 */
#include "migrate.h"

/* Holes and anonymous pages move; the core would refuse others late and at a cost. */
static inline bool wants_device(unsigned long src)
{
	struct page *page = migrate_pfn_to_page(src);

	return src & MIGRATE_PFN_MIGRATE && (!page || folio_test_anon(page_folio(page)));
}

static inline void queue_copy(struct hmm_ref_job *job, const struct folio *folio,
			      struct page *sys_page, unsigned long nr)
{
	unsigned long dpfn = hmm_ref_folio_dpfn(folio);

	hmm_ref_engine_copy(job, sys_page ? HMM_REF_COPY_IN : HMM_REF_COPY_ZERO, dpfn,
			    sys_page, nr);
}

/* Rule 4 of devmem.c, for pages that no copy has been queued for. */
static void put_unused(struct folio **folios, unsigned long nr)
{
	for (; nr; nr--, folios++) {
		folio_unlock(*folios);
		folio_put(*folios);
	}
}

/* How many entries want a page? An anonymous VMA has no pages of another kind. */
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

/* What does it take to move all that setup has collected? */
static void plan(struct hmm_ref_move *move)
{
	struct migrate_vma *args = &move->args;
	unsigned long src = args->src[0];

	move->whole = false;
	move->refused = 0;
	if (!(src & MIGRATE_PFN_COMPOUND)) {
		move->need = count_wanted(args);
	} else if (wants_device(src)) {
		move->need = HMM_REF_BLOCK_PAGES;
		/* As the CPU would fill a hole. (Whether it may at all, a module cannot ask.) */
		move->whole = hmm_ref_src_is_page(src) ||
			      !vma_thp_disabled(args->vma, args->vma->vm_flags, false);
	} else {
		move->need = 0;
		move->refused = HMM_REF_BLOCK_PAGES;
	}
}

/* Reserve what is planned. A hole can do with single pages, a folio is not split. */
static int reserve_plan(struct hmm_ref_devmem *dm, struct hmm_ref_move *move,
			struct hmm_ref_room *room)
{
	int rc;

	if (!move->need)
		return 0;
	rc = hmm_ref_devmem_try_reserve(dm, room, move->need, move->whole);
	if (rc == -ENOSPC && move->whole && !hmm_ref_src_is_page(move->args.src[0]))
		rc = hmm_ref_devmem_try_reserve(dm, room, move->need, false);
	return rc;
}

/* Fill one large entry with a large folio. Return: false when there is none for it. */
static bool fill_large(struct hmm_ref_client *client, struct hmm_ref_move *move,
		       struct hmm_ref_room *room)
{
	struct page *sys_page = migrate_pfn_to_page(move->args.src[0]);
	struct folio *folio;

	if (!room->block || hmm_ref_fail(HMM_REF_FAIL_LARGE))
		return false;
	folio = hmm_ref_devmem_handout_large(&client->dev->dm, room, client->owner);
	if (!folio)
		return false;
	queue_copy(&move->job, folio, sys_page, HMM_REF_BLOCK_PAGES);
	move->args.dst[0] = migrate_pfn(folio_pfn(folio)) | MIGRATE_PFN_COMPOUND;
	return true;
}

/* Single pages for a large hole, all or none. Return: false for none. */
static bool fill_hole(struct hmm_ref_client *client, struct hmm_ref_move *move,
		      struct folio **folios, struct hmm_ref_room *room)
{
	struct hmm_ref_devmem *dm = &client->dev->dm;
	unsigned long got;
	unsigned long i;

	/* A block that has not become a folio counts as pages again. */
	hmm_ref_devmem_unreserve(dm, room);
	if (hmm_ref_devmem_try_reserve(dm, room, HMM_REF_BLOCK_PAGES, false))
		return false;
	got = hmm_ref_devmem_handout(dm, room, client->owner, folios, HMM_REF_BLOCK_PAGES);
	if (got < HMM_REF_BLOCK_PAGES) {
		put_unused(folios, got);
		return false;
	}
	for (i = 0; i < got; i++) {
		queue_copy(&move->job, folios[i], NULL, 1);
		move->args.dst[i] = migrate_pfn(folio_pfn(folios[i]));
	}
	return true;
}

/* Single pages for as many of the entries as there are. */
static void fill_single(struct hmm_ref_client *client, struct hmm_ref_move *move,
			struct folio **folios, struct hmm_ref_room *room)
{
	struct migrate_vma *args = &move->args;
	const bool all_anon = vma_is_anonymous(args->vma);
	const unsigned long npages = args->npages;
	const unsigned long *src = args->src;
	unsigned long *dst = args->dst;
	struct folio **end;
	unsigned long i;

	end = folios + hmm_ref_devmem_handout(&client->dev->dm, room, client->owner,
						 folios, min(move->need, room->nr));
	for (i = 0; i < npages; i++) {
		unsigned long entry = src[i];
		struct folio *folio;

		if (!(entry & MIGRATE_PFN_MIGRATE))
			continue;
		if (!all_anon && !wants_device(entry)) {
			move->refused++;
			continue;
		}
		if (folios == end)
			break;
		folio = *folios++;
		queue_copy(&move->job, folio, migrate_pfn_to_page(entry), 1);
		dst[i] = migrate_pfn(folio_pfn(folio));
	}
	put_unused(folios, end - folios);
}

/*
 * Hand out device pages for the entries that setup has collected, and fill them. A large
 * entry fills the whole window. Return: 0, or -ENOSPC when there is nothing for that.
 */
static int fill_device(struct hmm_ref_client *client, struct hmm_ref_move *move,
		       struct folio **folios, struct hmm_ref_room *room)
{
	unsigned long src = move->args.src[0];

	if (!(src & MIGRATE_PFN_COMPOUND)) {
		fill_single(client, move, folios, room);
		return 0;
	}
	if (!move->need || (move->whole && fill_large(client, move, room)))
		return 0;
	if (!hmm_ref_src_is_page(src) && fill_hole(client, move, folios, room))
		return 0;
	return -ENOSPC;
}

/**
 * hmm_ref_to_device_begin() - setup, device pages, and the copies under way
 * @client: whose pages they become
 * @move: with its VMA and range; all else of it is set here
 * @window: its scratch memory, until the end
 * @large: keep a large folio whole; else the core splits it in setup
 * @room: reserved for it; what is handed out comes off, what is missing is added if it is free
 * @all: have none moved unless there is room for all
 *
 * Context: mmap_lock of the VMA's mm, until hmm_ref_to_device_end().
 * Return: 0, then the end must follow; or -EINVAL for a VMA that does not migrate. @move->rc
 * is -ENOSPC, and nothing is going to move, when there is no room.
 */
int hmm_ref_to_device_begin(struct hmm_ref_client *client, struct hmm_ref_move *move,
			    struct hmm_ref_window *window, bool large,
			    struct hmm_ref_room *room, bool all)
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
	hmm_ref_engine_begin(&dm->engine, &move->job, window->ring,
			     HMM_REF_BLOCK_PAGES);
	plan(move);
	move->rc = all ? reserve_plan(dm, move, room) : 0;
	if (!move->rc)
		move->rc = fill_device(client, move, window->folios, room);
	hmm_ref_engine_submit(&move->job);
	return 0;
}

/**
 * hmm_ref_to_device_end() - the other half of hmm_ref_to_device_begin()
 * @client: the same
 * @move: begun; its rc is 0, -EIO, -ENOSPC or -ENODEV
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
		moved += hmm_ref_moved(args->src[i]);
	/* What is large is the whole window. */
	moved *= hmm_ref_src_pages(args->src[0]);
	atomic_long_add(moved, &client->owner->to_device);
	migrate_vma_finalize(args);
	return moved;
}
