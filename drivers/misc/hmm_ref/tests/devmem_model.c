// SPDX-License-Identifier: GPL-2.0-only
/*
 * The model that device memory is tested against. The tests call each function
 * of the driver and compare its result with the model.
 *
 * The model has two bits per device page: "the test holds it" and "reported
 * bad". These bits determine the number of available pages, and with it the
 * result of every call. The tests immediately find a page that is handed out
 * twice, a bad page that is handed out at all, a page in the wrong state and a
 * page that does not return. The audit compares the driver's own counts with
 * the counts of the model.
 */
#include <linux/pagemap.h>

#include "../gpu/gpu.h"
#include "devmem_model.h"

/* ---- the model --------------------------------------------------------- */

/* Bad pages that the test holds are retired when they return. */
static unsigned int nr_retired(const struct dmt *f)
{
	return bitmap_weight(f->bad, DMT_PAGES) -
	       bitmap_weight_and(f->bad, f->ours, DMT_PAGES);
}

static bool has_chunk(const struct dmt *f, unsigned long dpfn)
{
	return xa_load((struct xarray *)&f->dm.chunks,
		       dpfn >> f->dm.chunk_shift);
}

/* Retired pages in chunks that exist. */
static unsigned int nr_retired_there(const struct dmt *f)
{
	unsigned int dpfn, nr = 0;

	for_each_set_bit(dpfn, f->bad, DMT_PAGES)
		nr += !test_bit(dpfn, f->ours) && has_chunk(f, dpfn);
	return nr;
}

/* Pages that can still be reserved. */
static long nr_available(const struct dmt *f)
{
	return (long)DMT_PAGES - nr_retired(f) - f->nr_ours - f->room.nr;
}

/* Blocks in chunks that exist, but that cannot become a large folio. */
static unsigned int nr_flawed(const struct dmt *f)
{
	unsigned int first, nr = 0;

	for (first = 0; first < DMT_PAGES; first += HMM_REF_BLOCK_PAGES) {
		unsigned int end = first + HMM_REF_BLOCK_PAGES;

		nr += has_chunk(f, first) &&
		      find_next_bit(f->bad, end, first) < end;
	}
	return nr;
}

/* True if a block can become a large folio. */
static bool any_whole(const struct dmt *f)
{
	unsigned int first;

	for (first = 0; first < DMT_PAGES; first += HMM_REF_BLOCK_PAGES) {
		unsigned int end = first + HMM_REF_BLOCK_PAGES;

		if (find_next_bit(f->ours, end, first) == end &&
		    find_next_bit(f->bad, end, first) == end)
			return true;
	}
	return false;
}

/* Check the state of a page that was handed out, and add it to the model. */
static void hold(struct kunit *test, struct dmt *f, struct page *page,
		 unsigned int owner, unsigned int nr)
{
	unsigned long dpfn = hmm_ref_page_dpfn(page);
	unsigned int i;

	f->held[f->nr_held++] = (struct held){ page, owner };
	f->nr_owned[owner] += nr;
	KUNIT_EXPECT_TRUE(test, PageLocked(page));
	KUNIT_EXPECT_EQ(test, page_ref_count(page), 1);
	KUNIT_EXPECT_EQ(test, folio_nr_pages(page_folio(page)), nr);
	KUNIT_EXPECT_PTR_EQ(test, page->zone_device_data,
			    (void *)f->owners[owner]);
	KUNIT_EXPECT_TRUE(test, hmm_ref_owns(&f->dm, page));
	KUNIT_ASSERT_LE(test, dpfn + nr, DMT_PAGES);
	for (i = 0; i < nr; i++) {
		if (test_and_set_bit(dpfn + i, f->ours))
			KUNIT_FAIL(test, "page %lu was handed out twice",
				   dpfn + i);
		if (test_bit(dpfn + i, f->bad))
			KUNIT_FAIL(test, "page %lu is bad and was handed out",
				   dpfn + i);
	}
	f->nr_ours += nr;
}

/* Compare the counts of the driver with those of the model. */
void dmt_compare(struct kunit *test, struct dmt *f)
{
	struct hmm_ref_findings found;
	unsigned int i;

	hmm_ref_devmem_audit(&f->dm, &found);
	KUNIT_EXPECT_EQ(test, found.violations, 0);
	KUNIT_EXPECT_EQ(test, found.pending, 0);
	KUNIT_EXPECT_EQ(test, found.in_use, f->nr_ours);
	KUNIT_EXPECT_EQ(test, found.retired, nr_retired_there(f));
	KUNIT_EXPECT_EQ(test, found.free + found.in_use + found.retired,
			found.total);
	KUNIT_EXPECT_EQ(test, hmm_ref_devmem_used(&f->dm), f->nr_ours);
	KUNIT_EXPECT_EQ(test, f->dm.reserved, f->room.nr);
	KUNIT_EXPECT_EQ(test, f->dm.retired, nr_retired_there(f));
	KUNIT_EXPECT_EQ(test, f->dm.nr_flawed, nr_flawed(f));
	for (i = 0; i < DMT_OWNERS; i++)
		KUNIT_EXPECT_EQ(test, refcount_read(&f->owners[i]->refs),
				1 + f->nr_owned[i]);
}

/* ---- each function, called and compared -------------------------------- */

/* Reserve @nr more single pages. */
void dmt_reserve(struct kunit *test, struct dmt *f, unsigned int nr)
{
	unsigned long had = f->room.nr;
	long available = max(nr_available(f), 0);
	int rc = hmm_ref_devmem_reserve(&f->dm, &f->room, had + nr, false);

	KUNIT_EXPECT_EQ_MSG(test, rc, available < nr ? -ENOSPC : 0,
			    "%u asked for, %ld left", nr, available);
	KUNIT_EXPECT_EQ(test, f->room.nr, had + min(available, nr));
}

void dmt_unreserve(struct dmt *f, unsigned int nr)
{
	struct hmm_ref_room part = { .nr = nr };

	hmm_ref_devmem_unreserve(&f->dm, &part);
	f->room.nr -= nr;
	if (!f->room.nr)
		f->broken = false;
}

/* Hand out @nr of the reserved pages. */
void dmt_handout(struct kunit *test, struct dmt *f, unsigned int nr)
{
	unsigned int owner = dmt_below(f, DMT_OWNERS);
	unsigned long had = f->room.nr;
	unsigned int got, i;

	got = hmm_ref_devmem_handout(&f->dm, &f->room, f->owners[owner],
				     f->batch, nr);
	KUNIT_ASSERT_LE(test, got, nr);
	KUNIT_EXPECT_EQ(test, f->room.nr, had - got);
	for (i = 0; i < got; i++)
		hold(test, f, folio_page(f->batch[i], 0), owner, 1);
	if (got < nr) {
		KUNIT_EXPECT_TRUE_MSG(test, f->broken, "%u pages of %u", got,
				      nr);
		dmt_unreserve(f, f->room.nr);
	}
}

/*
 * Reserve and hand out a large folio. Return: true on success. While its block
 * is reserved, no other task can take the block.
 */
bool dmt_large(struct kunit *test, struct dmt *f)
{
	unsigned int owner = dmt_below(f, DMT_OWNERS);
	bool possible = any_whole(f) && nr_available(f) >= HMM_REF_BLOCK_PAGES;
	struct hmm_ref_room room = {};
	struct folio *folio;
	int rc;

	rc = hmm_ref_devmem_reserve(&f->dm, &room, 0, true);
	/* A newly added block may have bad pages. */
	if (bitmap_empty(f->bad, DMT_PAGES))
		KUNIT_EXPECT_EQ(test, rc, possible ? 0 : -ENOSPC);
	KUNIT_EXPECT_EQ(test, !room.block, !!rc);
	KUNIT_EXPECT_EQ(test, f->dm.reserved,
			f->room.nr + (rc ? 0 : HMM_REF_BLOCK_PAGES));
	if (rc)
		return false;
	dmt_shrink(test, f);
	if (!dmt_below(f, 4)) {
		hmm_ref_devmem_unreserve(&f->dm, &room);
		rc = hmm_ref_devmem_reserve(&f->dm, &room, 0, true);
		KUNIT_EXPECT_EQ(test, rc, 0);
		if (rc)
			return false;
	}
	folio = hmm_ref_devmem_handout_large(&f->dm, &room, f->owners[owner]);
	KUNIT_EXPECT_NULL(test, room.block);
	KUNIT_ASSERT_NOT_NULL(test, folio);
	hold(test, f, folio_page(folio, 0), owner, HMM_REF_BLOCK_PAGES);
	return true;
}

void dmt_put(struct dmt *f, unsigned int index)
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

void dmt_put_all(struct dmt *f)
{
	while (f->nr_held)
		dmt_put(f, dmt_below(f, f->nr_held));
}

#ifdef CONFIG_ARCH_HAS_PMD_SOFTLEAVES
/* Split a large folio into pages that the test holds, as the core does. */
void dmt_split(struct dmt *f, unsigned int index)
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
void dmt_split(struct dmt *f, unsigned int index)
{
}
#endif

static void mark_bad(struct dmt *f, unsigned long dpfn)
{
	if (!test_bit(dpfn, f->ours) && f->room.nr)
		f->broken = true;
	set_bit(dpfn, f->bad);
}

/* Report a page bad, whether or not its chunk exists. */
void dmt_retire(struct kunit *test, struct dmt *f, unsigned long dpfn)
{
	bool exists = dpfn < DMT_PAGES;

	KUNIT_EXPECT_EQ_MSG(test, hmm_ref_devmem_retire(&f->dm, dpfn),
			    exists ? 0 : -EINVAL, "page %lu", dpfn);
	if (exists)
		mark_bad(f, dpfn);
}

/* The memory of an existing page fails. */
void dmt_lose(struct kunit *test, struct dmt *f, unsigned long dpfn)
{
	KUNIT_EXPECT_EQ_MSG(test, hmm_ref_devmem_lose(&f->dm, dpfn),
			    test_bit(dpfn, f->ours) ? -EBUSY : 0, "page %lu",
			    dpfn);
	mark_bad(f, dpfn);
}

/* Shrink device memory, as reclaim does. */
void dmt_shrink(struct kunit *test, struct dmt *f)
{
	struct shrink_control sc = {
		.gfp_mask = GFP_KERNEL,
		.nr_to_scan = LONG_MAX,
	};
	struct shrinker *shrinker = f->dm.shrinker;

	KUNIT_EXPECT_LE(test, shrinker->count_objects(shrinker, &sc),
			PFN_UP(DMT_PAGES * sizeof(struct page)));
	KUNIT_EXPECT_EQ(test, shrinker->scan_objects(shrinker, &sc),
			SHRINK_STOP);
	flush_work(&f->dm.reclaim);
}

struct hmm_ref_usage dmt_usage(struct dmt *f)
{
	struct hmm_ref_usage usage;

	hmm_ref_devmem_usage(&f->dm, &usage);
	return usage;
}

/* Hand out all pages as single pages. */
void dmt_take_all(struct kunit *test, struct dmt *f)
{
	dmt_reserve(test, f, DMT_PAGES);
	while (f->room.nr)
		dmt_handout(test, f, min(f->room.nr, DMT_BATCH));
}

/* ---- setup and teardown ------------------------------------------------ */

void dmt_exit(struct kunit *test)
{
	struct dmt *f = test->priv;
	unsigned int i;

	if (!f)
		return;
	dmt_put_all(f);
	hmm_ref_devmem_unreserve(&f->dm, &f->room);
	hmm_ref_devmem_stop(&f->dm, HMM_REF_STOPPED_FOR_GOOD);
	hmm_ref_devmem_exit(&f->dm);
	hmm_ref_gpu_destroy(f->dm.hw);
	for (i = 0; i < DMT_OWNERS; i++)
		hmm_ref_owner_put(f->owners[i], 1);
	kvfree(f);
}

int dmt_init(struct kunit *test)
{
	struct hmm_ref_devmem_params params = {
		.ops = &hmm_ref_pagemap_ops,
		.large = true,
		.capacity = DMT_BLOCKS * PMD_SIZE,
		.chunk_size = 2 * PMD_SIZE,
		.name = "hmm_ref_kunit",
	};
	struct dmt *f = kvzalloc(sizeof(*f), GFP_KERNEL);
	unsigned int i;
	int rc;

	if (!f)
		return -ENOMEM;
	for (i = 0; i < DMT_OWNERS; i++) {
		f->owners[i] = hmm_ref_owner_create();
		if (!f->owners[i]) {
			rc = -ENOMEM;
			goto err;
		}
	}
	prandom_seed_state(&f->rnd, 1);
	rc = -ENOMEM;
	params.hw = hmm_ref_gpu_create(NULL, NUMA_NO_NODE, 0);
	if (!params.hw)
		goto err;
	rc = hmm_ref_devmem_init(&f->dm, &params);
	if (rc)
		goto err_hw;
	test->priv = f;
	return 0;

err_hw:
	hmm_ref_gpu_destroy(params.hw);
err:
	while (i--)
		hmm_ref_owner_put(f->owners[i], 1);
	kvfree(f);
	return rc;
}
