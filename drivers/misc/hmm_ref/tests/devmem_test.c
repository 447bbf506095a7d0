// SPDX-License-Identifier: GPL-2.0-only
/*
 * Device memory: handout, return, reservation, retiring, growing and shrinking,
 * on a struct hmm_ref_devmem with real chunks.
 *
 * Tests of one property each, then random sequences, then concurrent ones.
 */
#include <linux/pagemap.h>
#include <linux/workqueue.h>

#include "devmem_model.h"

#define NR_WORKERS	4

static int reserve(struct dmt *f, struct hmm_ref_room *room, unsigned int nr)
{
	return hmm_ref_devmem_reserve(&f->dm, room, nr, false);
}

static int reserve_block(struct dmt *f, struct hmm_ref_room *room)
{
	return hmm_ref_devmem_reserve(&f->dm, room, 0, true);
}

static int try_reserve(struct dmt *f, struct hmm_ref_room *room,
		       unsigned int nr)
{
	return hmm_ref_devmem_try_reserve(&f->dm, room, nr, false);
}

/* ---- one property each ------------------------------------------------- */

/* Reservations stop at the capacity, and every page exists once. */
static void devmem_capacity(struct kunit *test)
{
	struct dmt *f = test->priv;

	dmt_reserve(test, f, DMT_PAGES + 1);
	KUNIT_EXPECT_EQ(test, f->room.nr, DMT_PAGES);
	dmt_reserve(test, f, 1);
	while (f->room.nr)
		dmt_handout(test, f, min(f->room.nr, DMT_BATCH));
	KUNIT_EXPECT_TRUE(test, bitmap_full(f->ours, DMT_PAGES));
	dmt_reserve(test, f, 1);
	dmt_compare(test, f);
	dmt_put_all(f);
	dmt_compare(test, f);
}

/* Memory is added in chunks, and only on demand. */
static void devmem_grow(struct kunit *test)
{
	struct dmt *f = test->priv;
	unsigned int block;

	KUNIT_EXPECT_EQ(test, dmt_usage(f).chunks, 0);
	for (block = 0; block < DMT_BLOCKS; block++) {
		struct hmm_ref_usage usage;

		dmt_reserve(test, f, 1);
		usage = dmt_usage(f);
		KUNIT_EXPECT_EQ(test, usage.chunks, block / 2 + 1);
		KUNIT_EXPECT_EQ(test, usage.total,
				min(round_up(block + 1, 2), DMT_BLOCKS) *
				HMM_REF_BLOCK_PAGES);
		dmt_reserve(test, f, HMM_REF_BLOCK_PAGES - 1);
		KUNIT_EXPECT_EQ(test, dmt_usage(f).total, usage.total);
	}
}

static unsigned long batch_dpfn(const struct dmt *f, unsigned int page)
{
	return hmm_ref_folio_dpfn(f->batch[page]);
}

/* A batch has the size requested, and uses neighbours while it finds any. */
static void devmem_batch(struct kunit *test)
{
	static const unsigned int batches[] = {
		0, 1, 2, HMM_REF_BLOCK_PAGES - 1, HMM_REF_BLOCK_PAGES,
		HMM_REF_BLOCK_PAGES + 1, DMT_BATCH,
	};
	struct dmt *f = test->priv;
	unsigned int i, page;

	for (i = 0; i < ARRAY_SIZE(batches); i++) {
		unsigned int nr = batches[i];

		memset(f->batch, 0, sizeof(f->batch));
		if (nr)
			dmt_reserve(test, f, nr);
		dmt_handout(test, f, nr);
		KUNIT_EXPECT_EQ(test, f->nr_held, nr);
		for (page = nr; page < DMT_BATCH; page++)
			KUNIT_EXPECT_NULL(test, f->batch[page]);
		for (page = 1; page < min(nr, HMM_REF_BLOCK_PAGES); page++)
			KUNIT_EXPECT_EQ(test, batch_dpfn(f, page),
					batch_dpfn(f, page - 1) + 1);
		dmt_put_all(f);
	}
}

/* Blocks are whole again after their pages return, in any order. */
static void devmem_recombine(struct kunit *test)
{
	struct dmt *f = test->priv;
	unsigned int block;

	if (!dmt_has_large(f))
		kunit_skip(test, "no large folios on this kernel");
	hmm_ref_test_start(test, &f->rnd);
	dmt_take_all(test, f);
	dmt_put_all(f);
	for (block = 0; block < DMT_BLOCKS; block++)
		KUNIT_EXPECT_TRUE(test, dmt_large(test, f));
	KUNIT_EXPECT_FALSE(test, dmt_large(test, f));
	dmt_compare(test, f);
	/* Split when they return, so that each page is available alone. */
	dmt_put_all(f);
	dmt_take_all(test, f);
	dmt_compare(test, f);
}

/* A page in use prevents a large folio only in its own block. */
static void devmem_large_blocked(struct kunit *test)
{
	struct dmt *f = test->priv;
	unsigned int block, i;

	if (!dmt_has_large(f))
		kunit_skip(test, "no large folios on this kernel");
	dmt_take_all(test, f);
	/* Keep the first page of every other block. */
	for (i = f->nr_held; i--;) {
		unsigned long dpfn = hmm_ref_page_dpfn(f->held[i].page);

		if (dpfn % (2 * HMM_REF_BLOCK_PAGES))
			dmt_put(f, i);
	}
	KUNIT_EXPECT_EQ(test, f->nr_held, DIV_ROUND_UP(DMT_BLOCKS, 2));
	for (block = 0; block < DMT_BLOCKS / 2; block++)
		KUNIT_EXPECT_TRUE(test, dmt_large(test, f));
	KUNIT_EXPECT_FALSE(test, dmt_large(test, f));
	dmt_compare(test, f);
}

/* Single pages come from the fullest block, so that others become whole. */
static void devmem_fullest_first(struct kunit *test)
{
	struct dmt *f = test->priv;
	unsigned int i, bit;

	dmt_take_all(test, f);
	/* Free 1/8 of block 1, 1/4 of block 4, all but one page of block 2. */
	for (i = f->nr_held; i--;) {
		unsigned long dpfn = hmm_ref_page_dpfn(f->held[i].page);
		unsigned int block = dpfn / HMM_REF_BLOCK_PAGES;

		bit = dpfn % HMM_REF_BLOCK_PAGES;
		if ((block == 1 && bit < HMM_REF_BLOCK_PAGES / 8) ||
		    (block == 4 && bit < HMM_REF_BLOCK_PAGES / 4) ||
		    (block == 2 && bit))
			dmt_put(f, i);
	}
	dmt_reserve(test, f, HMM_REF_BLOCK_PAGES / 4);
	for (i = 0; i < HMM_REF_BLOCK_PAGES / 4; i++) {
		unsigned long dpfn;

		dmt_handout(test, f, 1);
		dpfn = hmm_ref_page_dpfn(f->held[f->nr_held - 1].page);
		KUNIT_EXPECT_EQ(test, dpfn / HMM_REF_BLOCK_PAGES,
				i < HMM_REF_BLOCK_PAGES / 8 ? 1 : 4);
	}
	dmt_compare(test, f);
}

/* No single page comes from a block that is promised to a large folio. */
static void devmem_block_promised(struct kunit *test)
{
	struct hmm_ref_room room = {};
	struct dmt *f = test->priv;
	struct folio *folio;

	if (!dmt_has_large(f))
		kunit_skip(test, "no large folios on this kernel");
	/* All blocks are whole; the promised one would be used next. */
	dmt_reserve(test, f, DMT_PAGES);
	dmt_unreserve(f, DMT_PAGES);
	KUNIT_ASSERT_EQ(test, reserve_block(f, &room), 0);
	KUNIT_EXPECT_EQ(test, reserve(f, &f->room, DMT_PAGES), -ENOSPC);
	KUNIT_EXPECT_EQ(test, f->room.nr, DMT_PAGES - HMM_REF_BLOCK_PAGES);
	while (f->room.nr)
		dmt_handout(test, f, min(f->room.nr, DMT_BATCH));
	dmt_shrink(test, f);
	folio = hmm_ref_devmem_handout_large(&f->dm, &room, f->owners[0]);
	KUNIT_ASSERT_NOT_NULL(test, folio);
	folio_unlock(folio);
	folio_put(folio);
	dmt_compare(test, f);
}

/* While a task waits for room, freed pages are reserved for that task. */
static void devmem_in_turn(struct kunit *test)
{
	struct hmm_ref_room waiting = {}, other = {};
	struct dmt *f = test->priv;
	struct hmm_ref_devmem *dm = &f->dm;
	unsigned int i;

	dmt_take_all(test, f);
	atomic_inc(&dm->nr_waiting);
	for (i = 0; i < 3; i++) {
		KUNIT_EXPECT_EQ(test, reserve(f, &waiting, 3), -ENOSPC);
		KUNIT_EXPECT_EQ(test, waiting.nr, i);
		dmt_put(f, 0);
		KUNIT_EXPECT_EQ(test, try_reserve(f, &other, 1), -ENOSPC);
	}
	KUNIT_EXPECT_EQ(test, reserve(f, &waiting, 3), 0);
	dmt_put(f, 0);
	KUNIT_EXPECT_EQ(test, try_reserve(f, &other, 1), -ENOSPC);
	atomic_dec(&dm->nr_waiting);
	KUNIT_EXPECT_EQ(test, try_reserve(f, &other, 1), 0);
	KUNIT_EXPECT_EQ(test, try_reserve(f, &other, 2), -ENOSPC);
	hmm_ref_devmem_unreserve(dm, &waiting);
	hmm_ref_devmem_unreserve(dm, &other);
	dmt_compare(test, f);
}

/* Pages of a split folio return one by one; the last makes the block whole. */
static void devmem_split(struct kunit *test)
{
	struct dmt *f = test->priv;

	if (!dmt_has_large(f))
		kunit_skip(test, "no large folios on this kernel");
	hmm_ref_test_start(test, &f->rnd);
	while (dmt_large(test, f))
		dmt_split(f, f->nr_held - 1);
	KUNIT_EXPECT_EQ(test, f->nr_held, DMT_PAGES);
	dmt_compare(test, f);
	while (f->nr_held > 1)
		dmt_put(f, dmt_below(f, f->nr_held));
	dmt_compare(test, f);
	while (dmt_large(test, f))
		;
	KUNIT_EXPECT_EQ(test, f->nr_held, 1 + DMT_BLOCKS - 1);
	dmt_put_all(f);
	dmt_compare(test, f);
}

/* Bad pages never return: free, used, in a large folio, reported twice. */
static void devmem_retire(struct kunit *test)
{
	struct dmt *f = test->priv;
	unsigned int page;

	dmt_retire(test, f, 2); /* no chunk yet */
	dmt_reserve(test, f, 10);
	dmt_handout(test, f, 10);
	dmt_retire(test, f, hmm_ref_folio_dpfn(f->batch[3]));
	dmt_retire(test, f, hmm_ref_folio_dpfn(f->batch[3]));
	dmt_retire(test, f, HMM_REF_BLOCK_PAGES - 1);
	dmt_retire(test, f, HMM_REF_BLOCK_PAGES - 1);
	dmt_retire(test, f, HMM_REF_BLOCK_PAGES + 1);
	dmt_retire(test, f, 2 * HMM_REF_BLOCK_PAGES); /* no such chunk */
	dmt_compare(test, f);
	dmt_put_all(f);
	dmt_compare(test, f);
	dmt_take_all(test, f);
	KUNIT_EXPECT_EQ(test, f->nr_ours, DMT_PAGES - 5);
	dmt_retire(test, f, DMT_PAGES - 1);
	dmt_retire(test, f, DMT_PAGES); /* past the end, in the last chunk */
	dmt_retire(test, f, ULONG_MAX);
	dmt_put_all(f);
	dmt_compare(test, f);

	if (dmt_has_large(f)) {
		KUNIT_EXPECT_TRUE(test, dmt_large(test, f));
		dmt_retire(test, f, hmm_ref_page_dpfn(f->held[0].page) + 77);
		dmt_compare(test, f);
		dmt_put_all(f);
		dmt_compare(test, f);
	}
	for (page = 0; page < DMT_PAGES; page++)
		dmt_retire(test, f, page);
	dmt_compare(test, f);
	dmt_reserve(test, f, 1); /* no page is available */
}

/* A page goes bad after its reservation: the handout is one page short. */
static void devmem_retire_promised(struct kunit *test)
{
	struct dmt *f = test->priv;

	dmt_reserve(test, f, DMT_PAGES);
	dmt_retire(test, f, 5);
	dmt_retire(test, f, HMM_REF_BLOCK_PAGES);
	while (f->room.nr)
		dmt_handout(test, f, min(f->room.nr, DMT_BATCH));
	KUNIT_EXPECT_EQ(test, f->nr_ours, DMT_PAGES - 2);
	dmt_compare(test, f);
}

/* Failed memory, in use or not, is treated like a page reported bad. */
static void devmem_lose(struct kunit *test)
{
	struct dmt *f = test->priv;
	unsigned int page;

	dmt_reserve(test, f, DMT_PAGES);
	dmt_handout(test, f, 2 * HMM_REF_BLOCK_PAGES);
	dmt_unreserve(f, f->room.nr);
	for (page = 3; page < DMT_PAGES; page += HMM_REF_BLOCK_PAGES) {
		KUNIT_EXPECT_TRUE(test, hmm_ref_takes_large(&f->dm) ||
				  !dmt_has_large(f));
		dmt_lose(test, f, page);
		dmt_lose(test, f, page);
		dmt_compare(test, f);
	}
	KUNIT_EXPECT_FALSE(test, hmm_ref_takes_large(&f->dm));
	dmt_put_all(f);
	dmt_compare(test, f);
	dmt_lose(test, f, 3);
	dmt_compare(test, f);
}

/* Used and promised chunks stay; all others are removed and added again. */
static void devmem_shrink(struct kunit *test)
{
	struct dmt *f = test->priv;

	dmt_take_all(test, f);
	dmt_shrink(test, f);
	KUNIT_EXPECT_EQ(test, dmt_usage(f).total, DMT_PAGES);
	dmt_put_all(f);
	dmt_reserve(test, f, HMM_REF_BLOCK_PAGES + 1);
	dmt_shrink(test, f);
	KUNIT_EXPECT_LE(test, dmt_usage(f).total, 3 * HMM_REF_BLOCK_PAGES);
	dmt_handout(test, f, HMM_REF_BLOCK_PAGES + 1);
	dmt_put_all(f);
	dmt_shrink(test, f);
	KUNIT_EXPECT_EQ(test, dmt_usage(f).total, 0);
	dmt_compare(test, f);
	dmt_take_all(test, f);
	dmt_compare(test, f);
}

/* A used page keeps its chunk. A bad page does not, and stays bad. */
static void devmem_shrink_around(struct kunit *test)
{
	struct dmt *f = test->priv;
	unsigned int i;

	dmt_take_all(test, f);
	for (i = f->nr_held; i--;) {
		unsigned long dpfn = hmm_ref_page_dpfn(f->held[i].page);

		if (dpfn != 2 * HMM_REF_BLOCK_PAGES + 7)
			dmt_put(f, i);
	}
	dmt_retire(test, f, 5 * HMM_REF_BLOCK_PAGES);
	dmt_shrink(test, f);
	KUNIT_EXPECT_EQ(test, dmt_usage(f).total, 2 * HMM_REF_BLOCK_PAGES);
	dmt_compare(test, f);
	dmt_put_all(f);
	dmt_shrink(test, f);
	KUNIT_EXPECT_EQ(test, dmt_usage(f).total, 0);
	dmt_take_all(test, f);
	KUNIT_EXPECT_EQ(test, f->nr_ours, DMT_PAGES - 1);
	dmt_compare(test, f);
}

/* After the stop no page is handed out, reserved or not; used pages return. */
static void devmem_stopped(struct kunit *test)
{
	struct dmt *f = test->priv;
	struct hmm_ref_devmem *dm = &f->dm;
	struct hmm_ref_owner *owner = f->owners[0];
	struct hmm_ref_room room = {}, other = {};
	struct folio *folio;
	unsigned int nr;

	dmt_reserve(test, f, 3 * HMM_REF_BLOCK_PAGES);
	dmt_handout(test, f, 10);
	if (dmt_has_large(f))
		KUNIT_ASSERT_EQ(test, reserve_block(f, &room), 0);
	hmm_ref_devmem_stop(dm, HMM_REF_STOPPED_FOR_GOOD);
	KUNIT_EXPECT_EQ(test, reserve(f, &other, 1), -ENODEV);
	KUNIT_EXPECT_EQ(test, reserve_block(f, &other), -ENODEV);
	KUNIT_EXPECT_EQ(test, try_reserve(f, &other, 1), -ENODEV);
	nr = hmm_ref_devmem_handout(dm, &f->room, owner, f->batch, 1);
	KUNIT_EXPECT_EQ(test, nr, 0);
	if (dmt_has_large(f)) {
		folio = hmm_ref_devmem_handout_large(dm, &room, owner);
		KUNIT_EXPECT_NULL(test, folio);
	}
	dmt_compare(test, f);
	dmt_put_all(f);
	dmt_compare(test, f);
}

/* ---- random sequences -------------------------------------------------- */

static const unsigned int sizes[] = {
	1, 2, 15, 16, 100, HMM_REF_BLOCK_PAGES - 1, HMM_REF_BLOCK_PAGES,
	HMM_REF_BLOCK_PAGES + 1, DMT_BATCH, DMT_PAGES, DMT_PAGES + 1,
};

static void random_step(struct kunit *test, struct dmt *f)
{
	unsigned int index = f->nr_held ? dmt_below(f, f->nr_held) : 0;
	unsigned int nr = sizes[dmt_below(f, ARRAY_SIZE(sizes))];

	switch (dmt_below(f, 8)) {
	case 0:
		dmt_reserve(test, f, nr);
		break;
	case 1:
		dmt_unreserve(f, min(nr, f->room.nr));
		break;
	case 2:
		if (dmt_has_large(f))
			dmt_large(test, f);
		break;
	case 3:
		if (f->nr_held && PageHead(f->held[index].page))
			dmt_split(f, index);
		break;
	case 4:
		dmt_shrink(test, f);
		break;
	case 5: /* as many as one step hands out */
		for (; nr && f->nr_held; nr--)
			dmt_put(f, dmt_below(f, f->nr_held));
		break;
	default:
		dmt_handout(test, f, min3(nr, f->room.nr, DMT_BATCH));
		break;
	}
}

/* The hung task detector watches the task that loads the module. */
#define RANDOM_TIME	(30 * HZ)

static void run_random(struct kunit *test, unsigned int one_bad_in)
{
	const unsigned int dpfns = DMT_PAGES + HMM_REF_BLOCK_PAGES;
	struct dmt *f = test->priv;
	unsigned int steps = hmm_ref_test_start(test, &f->rnd);
	unsigned long end = jiffies + RANDOM_TIME;
	unsigned int i;

	for (i = 0; i < steps; i++) {
		if (time_after(jiffies, end)) {
			kunit_info(test, "a slow machine: %u steps of %u", i,
				   steps);
			break;
		}
		random_step(test, f);
		if (one_bad_in && !dmt_below(f, one_bad_in))
			dmt_retire(test, f, dmt_below(f, dpfns));
		if (i % 16 == 15)
			dmt_compare(test, f);
		/* The first failure causes others. */
		KUNIT_ASSERT_EQ_MSG(test, READ_ONCE(test->status),
				    KUNIT_SUCCESS, "after step %u", i);
	}
	dmt_put_all(f);
	dmt_compare(test, f);
}

static void devmem_random(struct kunit *test)
{
	run_random(test, 0);
}

/* The same, with pages that go bad until few blocks are whole. */
static void devmem_random_bad(struct kunit *test)
{
	run_random(test, 20);
}

/* ---- concurrent use ---------------------------------------------------- */

/* One of several workers that take and return pages concurrently. */
struct worker {
	struct work_struct work;
	struct dmt *f;
	unsigned int steps;
	struct rnd_state rnd;
	struct folio *folios[64];
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
	struct dmt *f = w->f;
	unsigned int want =
		1 + hmm_ref_test_below(&w->rnd, ARRAY_SIZE(w->folios));
	struct hmm_ref_room room = {};
	unsigned long got;
	unsigned int i;

	hmm_ref_devmem_reserve(&f->dm, &room, want, false);
	got = room.nr;
	i = hmm_ref_devmem_handout(&f->dm, &room, f->owners[0], w->folios, got);
	w->nr_short += got - i;
	for (got = i, i = 0; i < got; i++)
		worker_hold(w, folio_page(w->folios[i], 0));
	cond_resched();
	for (i = 0; i < got; i++)
		worker_put(w, folio_page(w->folios[i], 0));
}

static void worker_large_step(struct worker *w)
{
	struct dmt *f = w->f;
	struct hmm_ref_room room = {};
	struct folio *folio;

	if (hmm_ref_devmem_reserve(&f->dm, &room, 0, true))
		return;
	/* The reserved block stays whole, whatever the other workers do. */
	folio = hmm_ref_devmem_handout_large(&f->dm, &room, f->owners[0]);
	w->nr_short += !folio;
	if (!folio)
		return;
	worker_hold(w, folio_page(folio, 0));
	cond_resched();
	worker_put(w, folio_page(folio, 0));
}

static void worker_run(struct work_struct *work)
{
	struct worker *w = container_of(work, struct worker, work);
	unsigned int i;

	for (i = 0; i < w->steps; i++) {
		if (dmt_has_large(w->f) && !hmm_ref_test_below(&w->rnd, 4))
			worker_large_step(w);
		else
			worker_step(w);
		cond_resched();
	}
}

/* Under concurrency no page is handed out twice, and no promise is broken. */
static void devmem_concurrent(struct kunit *test)
{
	struct dmt *f = test->priv;
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
		queue_work(system_dfl_wq, &w->work);
	}
	for (i = 0; i < steps; i++) {
		dmt_shrink(test, f);
		cond_resched();
	}
	for (i = 0; i < NR_WORKERS; i++) {
		flush_work(&workers[i].work);
		KUNIT_EXPECT_EQ(test, workers[i].nr_twice, 0);
		KUNIT_EXPECT_EQ(test, workers[i].nr_short, 0);
	}
	KUNIT_EXPECT_TRUE(test, bitmap_empty(f->ours, DMT_PAGES));
	dmt_compare(test, f);
	dmt_take_all(test, f);
	dmt_compare(test, f);
}

/* ---- suite ------------------------------------------------------------- */

static struct kunit_case devmem_cases[] = {
	KUNIT_CASE(devmem_capacity),
	KUNIT_CASE(devmem_grow),
	KUNIT_CASE(devmem_batch),
	KUNIT_CASE(devmem_recombine),
	KUNIT_CASE(devmem_large_blocked),
	KUNIT_CASE(devmem_fullest_first),
	KUNIT_CASE(devmem_block_promised),
	KUNIT_CASE(devmem_in_turn),
	KUNIT_CASE(devmem_split),
	KUNIT_CASE(devmem_retire),
	KUNIT_CASE(devmem_retire_promised),
	KUNIT_CASE(devmem_lose),
	KUNIT_CASE(devmem_shrink),
	KUNIT_CASE(devmem_shrink_around),
	KUNIT_CASE(devmem_stopped),
	KUNIT_CASE(devmem_random),
	KUNIT_CASE(devmem_random_bad),
	KUNIT_CASE(devmem_concurrent),
	{}
};

struct kunit_suite hmm_ref_devmem_suite = {
	.name = "hmm_ref_devmem",
	.init = dmt_init,
	.exit = dmt_exit,
	.test_cases = devmem_cases,
};
