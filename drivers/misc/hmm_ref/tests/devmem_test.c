// SPDX-License-Identifier: GPL-2.0-only
/*
 * Device memory: handout, return, reservations, retiring, growing and shrinking, on a
 * struct hmm_ref_devmem of its own with real chunks.
 *
 * The model is a bit per device page for "we have it" and one for "reported bad". From
 * these follows what is left, and so what every call must return. A page that comes
 * twice, a bad page that comes at all, one in the wrong state or that does not come back
 * shows at once; the audit compares the driver's own accounts with the model's.
 */
#include <linux/pagemap.h>
#include <linux/sizes.h>

#include "tests.h"

#define NR_BLOCKS	7	/* the last of the chunks of 2 is cut */
#define NR_PAGES	(NR_BLOCKS * HMM_REF_BLOCK_PAGES)
#define NR_OWNERS	3
#define NR_BATCH	(3 * HMM_REF_BLOCK_PAGES)
#define NR_WORKERS	4

/* One page or large folio that we have. */
struct held {
	struct page *page;
	unsigned int owner;
};

/**
 * struct fixture - device memory and what it should be like
 * @dm: under test
 * @owners: users of the pages
 * @nr_owned: pages that each of them has
 * @ours: by dpfn: handed out to us
 * @bad: by dpfn: reported bad; never handed out again
 * @nr_ours: bits in @ours
 * @reserved: pages promised and not yet handed out
 * @broken: a page was reported bad since, so promises may not hold
 * @held: what we have, in no order
 * @nr_held: elements of it
 * @batch: for one call of handout
 * @rnd: chance
 */
struct fixture {
	struct hmm_ref_devmem dm;
	struct hmm_ref_owner *owners[NR_OWNERS];
	unsigned int nr_owned[NR_OWNERS];
	DECLARE_BITMAP(ours, NR_PAGES);
	DECLARE_BITMAP(bad, NR_PAGES);
	unsigned int nr_ours;
	unsigned int reserved;
	bool broken;
	struct held held[NR_PAGES];
	unsigned int nr_held;
	struct page *batch[NR_BATCH];
	struct rnd_state rnd;
};

static unsigned int below(struct fixture *f, unsigned int n)
{
	return hmm_ref_test_below(&f->rnd, n);
}

static bool has_large(const struct fixture *f)
{
	return hmm_ref_has_large(&f->dm);
}

/* ---- the model --------------------------------------------------------- */

/* Bad pages that we have are retired when they come back. */
static unsigned int nr_retired(const struct fixture *f)
{
	return bitmap_weight(f->bad, NR_PAGES) -
	       bitmap_weight_and(f->bad, f->ours, NR_PAGES);
}

/* Pages that can still be reserved. */
static long nr_left(const struct fixture *f)
{
	return (long)NR_PAGES - nr_retired(f) - f->nr_ours - f->reserved;
}

/* A block from which a large folio can come. */
static bool any_whole(const struct fixture *f)
{
	unsigned int first;

	for (first = 0; first < NR_PAGES; first += HMM_REF_BLOCK_PAGES) {
		unsigned int end = first + HMM_REF_BLOCK_PAGES;

		if (find_next_bit(f->ours, end, first) == end &&
		    find_next_bit(f->bad, end, first) == end)
			return true;
	}
	return false;
}

/* What was handed out: is it what it has to be, and was it ours to have? */
static void hold(struct kunit *test, struct fixture *f, struct page *page,
		 unsigned int owner, unsigned int nr)
{
	unsigned long dpfn = hmm_ref_page_dpfn(page);
	unsigned int i;

	f->held[f->nr_held++] = (struct held){ page, owner };
	f->nr_owned[owner] += nr;
	KUNIT_EXPECT_TRUE(test, PageLocked(page));
	KUNIT_EXPECT_EQ(test, page_ref_count(page), 1);
	KUNIT_EXPECT_EQ(test, folio_nr_pages(page_folio(page)), nr);
	KUNIT_EXPECT_PTR_EQ(test, page->zone_device_data, (void *)f->owners[owner]);
	KUNIT_EXPECT_TRUE(test, hmm_ref_owns(&f->dm, page));
	KUNIT_ASSERT_LE(test, dpfn + nr, NR_PAGES);
	for (i = 0; i < nr; i++) {
		if (test_and_set_bit(dpfn + i, f->ours))
			KUNIT_FAIL(test, "page %lu was handed out twice", dpfn + i);
		if (test_bit(dpfn + i, f->bad))
			KUNIT_FAIL(test, "page %lu is bad and was handed out", dpfn + i);
	}
	f->nr_ours += nr;
}

/* Compare the accounts of the driver with ours. */
static void compare(struct kunit *test, struct fixture *f)
{
	struct hmm_ref_audit audit = { .size = sizeof(audit) };
	unsigned int i;

	hmm_ref_devmem_audit(&f->dm, &audit);
	KUNIT_EXPECT_EQ(test, audit.out_violations, 0);
	KUNIT_EXPECT_EQ(test, audit.out_pending, 0);
	KUNIT_EXPECT_EQ(test, audit.out_in_use, f->nr_ours);
	KUNIT_EXPECT_EQ(test, audit.out_retired, nr_retired(f));
	KUNIT_EXPECT_EQ(test, audit.out_free + audit.out_in_use + audit.out_retired,
			audit.out_total);
	KUNIT_EXPECT_EQ(test, hmm_ref_devmem_used(&f->dm), f->nr_ours);
	KUNIT_EXPECT_EQ(test, atomic_long_read(&f->dm.committed), f->nr_ours + f->reserved);
	for (i = 0; i < NR_OWNERS; i++)
		KUNIT_EXPECT_EQ(test, refcount_read(&f->owners[i]->refs),
				1 + f->nr_owned[i]);
}

/* ---- each function, done and compared ---------------------------------- */

static void do_reserve(struct kunit *test, struct fixture *f, unsigned int nr)
{
	long left = nr_left(f);
	long got = hmm_ref_devmem_reserve(&f->dm, nr);

	KUNIT_EXPECT_EQ_MSG(test, got, left > 0 ? min(left, (long)nr) : -ENOSPC,
			    "%u asked for, %ld left", nr, left);
	if (got > 0)
		f->reserved += got;
}

static void do_unreserve(struct fixture *f, unsigned int nr)
{
	hmm_ref_devmem_unreserve(&f->dm, nr);
	f->reserved -= nr;
	if (!f->reserved)
		f->broken = false;
}

/* Hand out @nr of the pages that are reserved. */
static void do_handout(struct kunit *test, struct fixture *f, unsigned int nr)
{
	unsigned int owner = below(f, NR_OWNERS);
	unsigned int got, i;

	got = hmm_ref_devmem_handout(&f->dm, f->owners[owner], f->batch, nr);
	KUNIT_ASSERT_LE(test, got, nr);
	f->reserved -= got;
	for (i = 0; i < got; i++)
		hold(test, f, f->batch[i], owner, 1);
	if (got < nr) {
		KUNIT_EXPECT_TRUE_MSG(test, f->broken, "%u pages of %u", got, nr);
		do_unreserve(f, f->reserved);
	}
}

/* The same for a whole block. Return: whether there was one. */
static bool do_large(struct kunit *test, struct fixture *f)
{
	unsigned int owner = below(f, NR_OWNERS);
	bool possible = any_whole(f);
	struct folio *folio;

	hmm_ref_devmem_want_whole(&f->dm);
	folio = hmm_ref_devmem_handout_large(&f->dm, f->owners[owner]);
	if (folio) {
		f->reserved -= HMM_REF_BLOCK_PAGES;
		hold(test, f, folio_page(folio, 0), owner, HMM_REF_BLOCK_PAGES);
	}
	/* The one block that is asked for may be one with bad pages. */
	if (!folio && bitmap_empty(f->bad, NR_PAGES))
		KUNIT_EXPECT_FALSE(test, possible);
	return folio;
}

static void do_put(struct fixture *f, unsigned int index)
{
	struct held held = f->held[index];
	struct folio *folio = page_folio(held.page);
	unsigned int nr = folio_nr_pages(folio);

	f->held[index] = f->held[--f->nr_held];
	bitmap_clear(f->ours, hmm_ref_page_dpfn(held.page), nr);
	f->nr_ours -= nr;
	f->nr_owned[held.owner] -= nr;
	folio_unlock(folio);
	folio_put(folio);
}

static void put_all(struct fixture *f)
{
	while (f->nr_held)
		do_put(f, below(f, f->nr_held));
}

#ifdef CONFIG_ARCH_HAS_PMD_SOFTLEAVES
/* Split a large folio into pages, all ours, as the core does it. */
static void do_split(struct fixture *f, unsigned int index)
{
	struct held held = f->held[index];
	struct folio *folio = page_folio(held.page);
	unsigned int nr = folio_nr_pages(folio);
	unsigned int i;

	folio_reset_order(folio);
	for (i = 1; i < nr; i++) {
		struct page *tail = held.page + i;

		clear_compound_head(tail);
		tail->mapping = NULL;
		hmm_ref_pagemap_ops.folio_split(folio, (struct folio *)tail);
		__SetPageLocked(tail);
		set_page_count(tail, 1);
		f->held[f->nr_held++] = (struct held){ tail, held.owner };
	}
	ClearPageHead(held.page);
	hmm_ref_pagemap_ops.folio_split(folio, NULL);
}
#else
static void do_split(struct fixture *f, unsigned int index)
{
}
#endif

/* Report a page bad. Whether it is there depends on how far the memory has grown. */
static void do_retire(struct kunit *test, struct fixture *f, unsigned long dpfn)
{
	bool there = dpfn < READ_ONCE(f->dm.nr_pages);

	KUNIT_EXPECT_EQ_MSG(test, hmm_ref_devmem_retire(&f->dm, dpfn),
			    there ? 0 : -EINVAL, "page %lu", dpfn);
	if (!there)
		return;
	if (!test_bit(dpfn, f->ours) && f->reserved)
		f->broken = true;
	set_bit(dpfn, f->bad);
}

/* Take storage away, as reclaim does. */
static void do_shrink(struct kunit *test, struct fixture *f, unsigned long nr)
{
	struct shrink_control sc = { .gfp_mask = GFP_KERNEL, .nr_to_scan = nr };
	unsigned long freed = f->dm.shrinker->scan_objects(f->dm.shrinker, &sc);

	if (freed == SHRINK_STOP)
		return;
	KUNIT_EXPECT_EQ(test, freed % HMM_REF_BLOCK_PAGES, 0);
	KUNIT_EXPECT_LE(test, freed, round_up(nr, HMM_REF_BLOCK_PAGES));
}

static struct hmm_ref_stats stats_of(struct fixture *f)
{
	struct hmm_ref_stats stats = { .size = sizeof(stats) };

	hmm_ref_devmem_stats(&f->dm, &stats);
	return stats;
}

/* All that there is, in pages. */
static void take_all(struct kunit *test, struct fixture *f)
{
	do_reserve(test, f, NR_PAGES);
	while (f->reserved)
		do_handout(test, f, min(f->reserved, NR_BATCH));
}

/* ---- random sequences -------------------------------------------------- */

static const unsigned int sizes[] = {
	1, 2, 15, 16, 100, HMM_REF_BLOCK_PAGES - 1, HMM_REF_BLOCK_PAGES,
	HMM_REF_BLOCK_PAGES + 1, NR_BATCH, NR_PAGES, NR_PAGES + 1,
};

static void random_step(struct kunit *test, struct fixture *f)
{
	unsigned int index = f->nr_held ? below(f, f->nr_held) : 0;
	unsigned int nr = sizes[below(f, ARRAY_SIZE(sizes))];

	switch (below(f, 8)) {
	case 0:
		do_reserve(test, f, nr);
		break;
	case 1:
		do_unreserve(f, min(nr, f->reserved));
		break;
	case 2:
		if (has_large(f) && f->reserved >= HMM_REF_BLOCK_PAGES)
			do_large(test, f);
		break;
	case 3:
		if (f->nr_held && PageHead(f->held[index].page))
			do_split(f, index);
		break;
	case 4:
		do_shrink(test, f, nr);
		break;
	case 5: /* as much as came in one step */
		for (; nr && f->nr_held; nr--)
			do_put(f, below(f, f->nr_held));
		break;
	default:
		do_handout(test, f, min3(nr, f->reserved, NR_BATCH));
		break;
	}
}

static void run_random(struct kunit *test, unsigned int one_bad_in)
{
	struct fixture *f = test->priv;
	unsigned int steps = hmm_ref_test_start(test, &f->rnd);
	unsigned int i;

	for (i = 0; i < steps; i++) {
		random_step(test, f);
		if (one_bad_in && !below(f, one_bad_in))
			do_retire(test, f, below(f, NR_PAGES + HMM_REF_BLOCK_PAGES));
		if (i % 16 == 15)
			compare(test, f);
		/* One failure makes others. */
		KUNIT_ASSERT_EQ_MSG(test, READ_ONCE(test->status), KUNIT_SUCCESS,
				    "after step %u", i);
	}
	put_all(f);
	compare(test, f);
}

static void devmem_random(struct kunit *test)
{
	run_random(test, 0);
}

/* The same, with pages that go bad, until few blocks are whole. */
static void devmem_random_bad(struct kunit *test)
{
	run_random(test, 20);
}

/* ---- one property each ------------------------------------------------- */

/* Reservations go up to the capacity and no further, and every page exists once. */
static void devmem_capacity(struct kunit *test)
{
	struct fixture *f = test->priv;

	do_reserve(test, f, NR_PAGES + 1);
	KUNIT_EXPECT_EQ(test, f->reserved, NR_PAGES);
	do_reserve(test, f, 1);
	while (f->reserved)
		do_handout(test, f, min(f->reserved, NR_BATCH));
	KUNIT_EXPECT_TRUE(test, bitmap_full(f->ours, NR_PAGES));
	do_reserve(test, f, 1);
	compare(test, f);
	put_all(f);
	compare(test, f);
}

/* Memory comes in chunks, storage in blocks, both only when they are asked for. */
static void devmem_grow(struct kunit *test)
{
	struct fixture *f = test->priv;
	unsigned int block;

	KUNIT_EXPECT_EQ(test, stats_of(f).out_chunks, 0);
	KUNIT_EXPECT_EQ(test, stats_of(f).out_storage_pages, 0);
	for (block = 0; block < NR_BLOCKS; block++) {
		struct hmm_ref_stats stats;

		do_reserve(test, f, 1);
		stats = stats_of(f);
		KUNIT_EXPECT_EQ(test, stats.out_chunks, block / 2 + 1);
		KUNIT_EXPECT_EQ(test, stats.out_pages_total,
				min(round_up(block + 1, 2), NR_BLOCKS) *
				HMM_REF_BLOCK_PAGES);
		KUNIT_EXPECT_EQ(test, stats.out_storage_pages,
				(block + 1) * HMM_REF_BLOCK_PAGES);
		do_reserve(test, f, HMM_REF_BLOCK_PAGES - 1);
		KUNIT_EXPECT_EQ(test, stats_of(f).out_storage_pages,
				stats.out_storage_pages);
	}
}

/* A batch is as large as it was asked for, and neighbours while there are any. */
static void devmem_batch(struct kunit *test)
{
	static const unsigned int batches[] = {
		0, 1, 2, HMM_REF_BLOCK_PAGES - 1, HMM_REF_BLOCK_PAGES,
		HMM_REF_BLOCK_PAGES + 1, NR_BATCH,
	};
	struct fixture *f = test->priv;
	unsigned int i, page;

	for (i = 0; i < ARRAY_SIZE(batches); i++) {
		unsigned int nr = batches[i];

		memset(f->batch, 0, sizeof(f->batch));
		if (nr)
			do_reserve(test, f, nr);
		do_handout(test, f, nr);
		KUNIT_EXPECT_EQ(test, f->nr_held, nr);
		for (page = nr; page < NR_BATCH; page++)
			KUNIT_EXPECT_NULL(test, f->batch[page]);
		for (page = 1; page < min(nr, HMM_REF_BLOCK_PAGES); page++)
			KUNIT_EXPECT_EQ(test, hmm_ref_page_dpfn(f->batch[page]),
					hmm_ref_page_dpfn(f->batch[page - 1]) + 1);
		put_all(f);
	}
}

/* Whatever the order in which pages come back, blocks are whole again afterwards. */
static void devmem_recombine(struct kunit *test)
{
	struct fixture *f = test->priv;
	unsigned int block;

	if (!has_large(f))
		kunit_skip(test, "no large folios on this kernel");
	hmm_ref_test_start(test, &f->rnd);
	take_all(test, f);
	put_all(f);
	do_reserve(test, f, NR_PAGES);
	for (block = 0; block < NR_BLOCKS; block++)
		KUNIT_EXPECT_TRUE(test, do_large(test, f));
	KUNIT_EXPECT_FALSE(test, do_large(test, f));
	compare(test, f);
	/* Taken apart on their way back: each page is to be had alone. */
	put_all(f);
	take_all(test, f);
	compare(test, f);
}

/* A page that is used makes its block useless for a large folio; only that one. */
static void devmem_large_blocked(struct kunit *test)
{
	struct fixture *f = test->priv;
	unsigned int block, i;

	if (!has_large(f))
		kunit_skip(test, "no large folios on this kernel");
	take_all(test, f);
	/* Keep the first page of every other block. */
	for (i = f->nr_held; i--;) {
		unsigned long dpfn = hmm_ref_page_dpfn(f->held[i].page);

		if (dpfn % (2 * HMM_REF_BLOCK_PAGES))
			do_put(f, i);
	}
	KUNIT_EXPECT_EQ(test, f->nr_held, DIV_ROUND_UP(NR_BLOCKS, 2));
	do_reserve(test, f, NR_PAGES);
	for (block = 0; block < NR_BLOCKS / 2; block++)
		KUNIT_EXPECT_TRUE(test, do_large(test, f));
	KUNIT_EXPECT_FALSE(test, do_large(test, f));
	compare(test, f);
}

/* The parts of a folio that was split come back one by one, the last makes it whole. */
static void devmem_split(struct kunit *test)
{
	struct fixture *f = test->priv;

	if (!has_large(f))
		kunit_skip(test, "no large folios on this kernel");
	hmm_ref_test_start(test, &f->rnd);
	do_reserve(test, f, NR_PAGES);
	while (do_large(test, f))
		do_split(f, f->nr_held - 1);
	KUNIT_EXPECT_EQ(test, f->nr_held, NR_PAGES);
	compare(test, f);
	while (f->nr_held > 1)
		do_put(f, below(f, f->nr_held));
	compare(test, f);
	do_reserve(test, f, NR_PAGES);
	while (do_large(test, f))
		;
	KUNIT_EXPECT_EQ(test, f->nr_held, 1 + NR_BLOCKS - 1);
	put_all(f);
	do_unreserve(f, f->reserved);
	compare(test, f);
}

/* Bad pages never come again: reported when free, when used, in a large folio, twice. */
static void devmem_retire(struct kunit *test)
{
	struct fixture *f = test->priv;
	unsigned int page;

	do_retire(test, f, 0); /* no chunk yet */
	do_reserve(test, f, 10);
	do_handout(test, f, 10);
	do_retire(test, f, hmm_ref_page_dpfn(f->batch[3]));
	do_retire(test, f, hmm_ref_page_dpfn(f->batch[3]));
	do_retire(test, f, HMM_REF_BLOCK_PAGES - 1);
	do_retire(test, f, HMM_REF_BLOCK_PAGES - 1);
	do_retire(test, f, HMM_REF_BLOCK_PAGES + 1); /* without storage */
	do_retire(test, f, 2 * HMM_REF_BLOCK_PAGES); /* no such chunk */
	compare(test, f);
	put_all(f);
	compare(test, f);
	take_all(test, f);
	KUNIT_EXPECT_EQ(test, f->nr_ours, NR_PAGES - 3);
	do_retire(test, f, NR_PAGES - 1);
	do_retire(test, f, NR_PAGES); /* past the end, in the chunk that is cut */
	do_retire(test, f, ULONG_MAX);
	put_all(f);
	compare(test, f);

	if (has_large(f)) {
		do_reserve(test, f, HMM_REF_BLOCK_PAGES);
		KUNIT_EXPECT_TRUE(test, do_large(test, f));
		do_retire(test, f, hmm_ref_page_dpfn(f->held[0].page) + 77);
		compare(test, f);
		put_all(f);
		compare(test, f);
	}
	for (page = 0; page < NR_PAGES; page++)
		do_retire(test, f, page);
	compare(test, f);
	do_reserve(test, f, 1); /* nothing is left */
}

/* A page goes bad after it was promised: one less is handed out, and none is made up. */
static void devmem_retire_promised(struct kunit *test)
{
	struct fixture *f = test->priv;

	do_reserve(test, f, NR_PAGES);
	do_retire(test, f, 5);
	do_retire(test, f, HMM_REF_BLOCK_PAGES);
	while (f->reserved)
		do_handout(test, f, min(f->reserved, NR_BATCH));
	KUNIT_EXPECT_EQ(test, f->nr_ours, NR_PAGES - 2);
	compare(test, f);
}

/* Storage that is used or promised stays; all other goes, and comes again. */
static void devmem_shrink(struct kunit *test)
{
	struct fixture *f = test->priv;

	take_all(test, f);
	do_shrink(test, f, NR_PAGES);
	KUNIT_EXPECT_EQ(test, stats_of(f).out_storage_pages, NR_PAGES);
	put_all(f);
	do_reserve(test, f, HMM_REF_BLOCK_PAGES + 1);
	do_shrink(test, f, NR_PAGES);
	KUNIT_EXPECT_LE(test, stats_of(f).out_storage_pages, 2 * HMM_REF_BLOCK_PAGES);
	do_handout(test, f, HMM_REF_BLOCK_PAGES + 1);
	put_all(f);
	do_shrink(test, f, NR_PAGES);
	KUNIT_EXPECT_EQ(test, stats_of(f).out_storage_pages, 0);
	compare(test, f);
	take_all(test, f);
	compare(test, f);
}

/* After the stop nothing is handed out, reserved or not; what is out comes back. */
static void devmem_stopped(struct kunit *test)
{
	struct fixture *f = test->priv;
	struct hmm_ref_devmem *dm = &f->dm;

	do_reserve(test, f, 3 * HMM_REF_BLOCK_PAGES);
	do_handout(test, f, 10);
	hmm_ref_devmem_stop(dm);
	KUNIT_EXPECT_EQ(test, hmm_ref_devmem_reserve(dm, 1), -ENODEV);
	KUNIT_EXPECT_EQ(test, hmm_ref_devmem_handout(dm, f->owners[0], f->batch, 1), 0);
	if (has_large(f))
		KUNIT_EXPECT_NULL(test, hmm_ref_devmem_handout_large(dm, f->owners[0]));
	compare(test, f);
	put_all(f);
	compare(test, f);
}

/* ---- several at a time ------------------------------------------------- */

/* One of several that take and return at the same time. */
struct worker {
	struct work_struct work;
	struct fixture *f;
	unsigned int steps;
	struct rnd_state rnd;
	struct page *pages[64];
	unsigned int nr_twice;
	unsigned int nr_short;
};

static void worker_put(struct worker *w, struct page *page)
{
	struct folio *folio = page_folio(page);
	unsigned long dpfn = hmm_ref_page_dpfn(page);
	unsigned int nr = folio_nr_pages(folio);
	unsigned int i;

	for (i = 0; i < nr; i++)
		clear_bit(dpfn + i, w->f->ours);
	folio_unlock(folio);
	folio_put(folio);
}

static void worker_hold(struct worker *w, struct page *page)
{
	unsigned long dpfn = hmm_ref_page_dpfn(page);
	unsigned int nr = folio_nr_pages(page_folio(page));
	unsigned int i;

	for (i = 0; i < nr; i++)
		w->nr_twice += test_and_set_bit(dpfn + i, w->f->ours);
}

static void worker_step(struct worker *w)
{
	struct fixture *f = w->f;
	unsigned int want = 1 + hmm_ref_test_below(&w->rnd, ARRAY_SIZE(w->pages));
	long got;
	unsigned int i;

	got = hmm_ref_devmem_reserve(&f->dm, want);
	if (got <= 0)
		return;
	i = hmm_ref_devmem_handout(&f->dm, f->owners[0], w->pages, got);
	w->nr_short += got - i;
	for (got = i, i = 0; i < got; i++)
		worker_hold(w, w->pages[i]);
	cond_resched();
	for (i = 0; i < got; i++)
		worker_put(w, w->pages[i]);
}

static void worker_large_step(struct worker *w)
{
	struct fixture *f = w->f;
	struct folio *folio = NULL;
	long got;

	got = hmm_ref_devmem_reserve(&f->dm, HMM_REF_BLOCK_PAGES);
	if (got <= 0)
		return;
	if (got == HMM_REF_BLOCK_PAGES)
		folio = hmm_ref_devmem_handout_large(&f->dm, f->owners[0]);
	if (!folio) {
		hmm_ref_devmem_unreserve(&f->dm, got);
		return;
	}
	worker_hold(w, folio_page(folio, 0));
	cond_resched();
	worker_put(w, folio_page(folio, 0));
}

static void worker_run(struct work_struct *work)
{
	struct worker *w = container_of(work, struct worker, work);
	unsigned int i;

	for (i = 0; i < w->steps; i++) {
		if (has_large(w->f) && !hmm_ref_test_below(&w->rnd, 4))
			worker_large_step(w);
		else
			worker_step(w);
		cond_resched();
	}
}

/* No page is handed out twice, no promise broken, whoever else is at it. */
static void devmem_concurrent(struct kunit *test)
{
	struct fixture *f = test->priv;
	unsigned int steps = hmm_ref_test_start(test, &f->rnd) / 8;
	struct worker *workers;
	unsigned int i;

	workers = kunit_kcalloc(test, NR_WORKERS, sizeof(*workers), GFP_KERNEL);
	KUNIT_ASSERT_NOT_NULL(test, workers);
	for (i = 0; i < NR_WORKERS; i++) {
		struct worker *w = &workers[i];

		w->f = f;
		w->steps = steps;
		prandom_seed_state(&w->rnd, prandom_u32_state(&f->rnd));
		INIT_WORK(&w->work, worker_run);
		queue_work(system_unbound_wq, &w->work);
	}
	for (i = 0; i < steps; i++) {
		do_shrink(test, f, HMM_REF_BLOCK_PAGES);
		cond_resched();
	}
	for (i = 0; i < NR_WORKERS; i++) {
		flush_work(&workers[i].work);
		KUNIT_EXPECT_EQ(test, workers[i].nr_twice, 0);
		KUNIT_EXPECT_EQ(test, workers[i].nr_short, 0);
	}
	KUNIT_EXPECT_TRUE(test, bitmap_empty(f->ours, NR_PAGES));
	compare(test, f);
	take_all(test, f);
	compare(test, f);
}

/* ---- suite ------------------------------------------------------------- */

static void devmem_exit(struct kunit *test)
{
	struct fixture *f = test->priv;
	unsigned int i;

	if (!f)
		return;
	put_all(f);
	hmm_ref_devmem_unreserve(&f->dm, f->reserved);
	hmm_ref_devmem_stop(&f->dm);
	hmm_ref_devmem_exit(&f->dm);
	for (i = 0; i < NR_OWNERS; i++)
		hmm_ref_owner_put(f->owners[i], 1);
	kvfree(f);
}

static int devmem_init(struct kunit *test)
{
	const struct hmm_ref_devmem_params params = {
		.ops = &hmm_ref_pagemap_ops,
		.node = NUMA_NO_NODE,
		.large = true,
		.capacity = NR_BLOCKS * PMD_SIZE,
		.chunk_size = 2 * PMD_SIZE,
		.name = "hmm_ref_kunit",
	};
	struct fixture *f = kvzalloc(sizeof(*f), GFP_KERNEL);
	unsigned int i;
	int rc;

	if (!f)
		return -ENOMEM;
	for (i = 0; i < NR_OWNERS; i++) {
		f->owners[i] = hmm_ref_owner_create();
		if (!f->owners[i]) {
			rc = -ENOMEM;
			goto err;
		}
	}
	prandom_seed_state(&f->rnd, 1);
	rc = hmm_ref_devmem_init(&f->dm, &params);
	if (rc)
		goto err;
	test->priv = f;
	return 0;

err:
	while (i--)
		hmm_ref_owner_put(f->owners[i], 1);
	kvfree(f);
	return rc;
}

static struct kunit_case devmem_cases[] = {
	KUNIT_CASE(devmem_capacity),
	KUNIT_CASE(devmem_grow),
	KUNIT_CASE(devmem_batch),
	KUNIT_CASE(devmem_recombine),
	KUNIT_CASE(devmem_large_blocked),
	KUNIT_CASE(devmem_split),
	KUNIT_CASE(devmem_retire),
	KUNIT_CASE(devmem_retire_promised),
	KUNIT_CASE(devmem_shrink),
	KUNIT_CASE(devmem_stopped),
	KUNIT_CASE(devmem_random),
	KUNIT_CASE(devmem_random_bad),
	KUNIT_CASE(devmem_concurrent),
	{}
};

struct kunit_suite hmm_ref_devmem_suite = {
	.name = "hmm_ref_devmem",
	.init = devmem_init,
	.exit = devmem_exit,
	.test_cases = devmem_cases,
};
