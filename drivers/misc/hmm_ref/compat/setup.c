// SPDX-License-Identifier: GPL-2.0-only
/*
 * migrate_vma_setup() collects pages that it should leave, and writes past the
 * end of its arrays.
 *
 * Pages that KSM has merged: the core cannot handle them on a device (ksmd goes
 * on reading them), and not even an attempt to migrate them. Setup replaces the
 * entries that it finds, and the rmap walk of KSM does not find all of them
 * again to restore them: it misses entries that ksmd has dropped since, and
 * those of a parent after the copies of its child were merged. So setup is
 * called only for the pages between merged ones. In a mapping that KSM may
 * merge, all pages stay. One case remains: a page of another mapping that ksmd
 * merges, for a child, after the check.
 *
 * Holes and entries of the zero page in a mapping that a userfaultfd can
 * write-protect: once they are device pages, writes to them are not reported.
 *
 * Setup may split a folio that PTEs map, and find that the page table has gone
 * in the meantime. It then starts again but appends to the entries that it has:
 * up to twice as many, the new ones out of step. So it gets arrays of that
 * size, and the holes that it reports in this case are dropped. For a CPU fault
 * it splits nothing as long as folios on the device are single pages.
 */
#include <linux/ksm.h>
#include <linux/slab.h>
#include <linux/userfaultfd_k.h>

#include "../base.h"

#ifdef HMM_REF_COMPAT_SETUP

#ifdef HMM_REF_CORE_LEAVES_KSM
#define COLLECTS_MERGED	false
#else
#define COLLECTS_MERGED	IS_ENABLED(CONFIG_KSM)
#endif

/* Pages per call of get_user_pages_remote(). */
#define LOOK		16UL

/* Mark the pages of a range that KSM has merged. */
static void find_merged(struct vm_area_struct *vma, unsigned long start,
			unsigned long nr, unsigned long *merged)
{
	struct page *pages[LOOK];
	unsigned long i = 0;
	long got, k;

	while (i < nr) {
		got = get_user_pages_remote(vma->vm_mm, start + i * PAGE_SIZE,
					    min(LOOK, nr - i), FOLL_NOFAULT,
					    pages, NULL);
		if (got <= 0) {
			/* Only -EFAULT means that there is no page. */
			__assign_bit(i++, merged, got != -EFAULT);
			continue;
		}
		for (k = 0; k < got; k++) {
			__assign_bit(i++, merged,
				     folio_test_ksm(page_folio(pages[k])));
			put_page(pages[k]);
		}
	}
}

/* Entries out of step have no page, except for a large folio. */
static void drop_shifted(struct migrate_vma *args)
{
	unsigned long i;

	for (i = 0; i < args->npages; i++) {
		if (!(args->src[i] & MIGRATE_PFN_VALID))
			args->src[i] = 0;
		else if (args->src[i] & MIGRATE_PFN_COMPOUND)
			args->src[i] &= ~MIGRATE_PFN_MIGRATE;
	}
}

static unsigned long count_collected(const struct migrate_vma *args)
{
	unsigned long collected = 0;
	unsigned long i;

	for (i = 0; i < args->npages; i++)
		collected += !!(args->src[i] & MIGRATE_PFN_MIGRATE);
	return collected;
}

/* Return: same as migrate_vma_setup(), or -ENOMEM. */
static int setup_with_room(struct migrate_vma *args)
{
	unsigned long nr = (args->end - args->start) >> PAGE_SHIFT;
	struct migrate_vma run = *args;
	unsigned long *room;
	int rc;

	if (args->fault_page)
		return (migrate_vma_setup)(args);
	/* No process is killed for this memory, as for the pages themselves. */
	room = kvcalloc(4 * nr, sizeof(*room),
			GFP_KERNEL | __GFP_RETRY_MAYFAIL | __GFP_NOWARN);
	if (!room)
		return -ENOMEM;
	run.src = room;
	run.dst = room + 2 * nr;
	rc = (migrate_vma_setup)(&run);
	if (!rc) {
		if (run.npages > nr)
			drop_shifted(&run);
		memcpy(args->src, run.src, nr * sizeof(*room));
		memset(args->dst, 0, nr * sizeof(*room));
		args->npages = nr;
		args->cpages = count_collected(args);
	}
	kvfree(room);
	return rc;
}

/* Return: same as setup_with_room(). @args is complete in any case. */
static int setup_run(struct migrate_vma *args, unsigned long first,
		     unsigned long last)
{
	struct migrate_vma run = *args;
	int rc;

	run.start = args->start + first * PAGE_SIZE;
	run.end = args->start + last * PAGE_SIZE;
	run.src = args->src + first;
	run.dst = args->dst + first;
	rc = setup_with_room(&run);
	if (!rc)
		args->cpages += run.cpages;
	return rc;
}

static int setup_unmerged(struct migrate_vma *args)
{
	unsigned long nr = (args->end - args->start) >> PAGE_SHIFT;
	DECLARE_BITMAP(merged, HMM_REF_BLOCK_PAGES);
	unsigned int first, last;
	int rc;

	if (args->vma->vm_flags & VM_MERGEABLE)
		bitmap_fill(merged, nr);
	else
		find_merged(args->vma, args->start, nr, merged);
	if (bitmap_empty(merged, nr))
		return setup_with_room(args);
	args->cpages = 0;
	args->npages = nr;
	memset(args->src, 0, nr * sizeof(*args->src));
	memset(args->dst, 0, nr * sizeof(*args->dst));
	for_each_clear_bitrange(first, last, merged, nr) {
		rc = setup_run(args, first, last);
		/* Later runs can only lack memory: the checks are the same. */
		if (rc)
			return args->cpages ? 0 : rc;
	}
	return 0;
}

static void spare_protected(struct migrate_vma *args)
{
	unsigned long i;

	for (i = 0; i < args->npages; i++) {
		if (args->src[i] & MIGRATE_PFN_VALID ||
		    !(args->src[i] & MIGRATE_PFN_MIGRATE))
			continue;
		args->src[i] = 0;
		args->cpages--;
	}
}

/**
 * hmm_ref_compat_migrate_vma_setup() - migrate_vma_setup() with workarounds
 * @args: as for migrate_vma_setup()
 *
 * Context: same as migrate_vma_setup().
 * Return: same as migrate_vma_setup(), or -ENOMEM.
 */
int hmm_ref_compat_migrate_vma_setup(struct migrate_vma *args)
{
	bool to_device = args->flags & MIGRATE_VMA_SELECT_SYSTEM;
	int rc;

	if (to_device && COLLECTS_MERGED)
		rc = setup_unmerged(args);
	else
		rc = setup_with_room(args);
	if (!rc && to_device && userfaultfd_wp(args->vma))
		spare_protected(args);
	return rc;
}

#endif /* HMM_REF_COMPAT_SETUP */
