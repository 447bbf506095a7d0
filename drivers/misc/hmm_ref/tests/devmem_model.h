/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Device memory and a model of it, for devmem_test.c.
 */
#ifndef _HMM_REF_DEVMEM_MODEL_H
#define _HMM_REF_DEVMEM_MODEL_H

#include "tests.h"

#define DMT_BLOCKS	7	/* chunks of 2; the last one is cut short */
#define DMT_PAGES	(DMT_BLOCKS * HMM_REF_BLOCK_PAGES)
#define DMT_OWNERS	3
#define DMT_BATCH	(3 * HMM_REF_BLOCK_PAGES)

/* A page or large folio that the test holds. */
struct held {
	struct page *page;
	unsigned int owner;
};

/**
 * struct dmt - device memory and its expected state
 * @dm: device memory under test
 * @owners: owners of the pages
 * @nr_owned: number of pages of each owner
 * @ours: bitmap by dpfn of pages handed out to the test
 * @bad: bitmap by dpfn of pages reported bad, never handed out again
 * @nr_ours: number of bits in @ours
 * @room: single pages promised and not yet handed out
 * @broken: a page was reported bad since the promise, which may not be kept
 * @held: pages and folios that the test holds, in no order
 * @nr_held: number of elements of @held
 * @batch: result of one handout
 * @rnd: random state
 */
struct dmt {
	struct hmm_ref_devmem dm;
	struct hmm_ref_owner *owners[DMT_OWNERS];
	unsigned int nr_owned[DMT_OWNERS];
	DECLARE_BITMAP(ours, DMT_PAGES);
	DECLARE_BITMAP(bad, DMT_PAGES);
	unsigned int nr_ours;
	struct hmm_ref_room room;
	bool broken;
	struct held held[DMT_PAGES];
	unsigned int nr_held;
	struct folio *batch[DMT_BATCH];
	struct rnd_state rnd;
};

static inline unsigned int dmt_below(struct dmt *f, unsigned int n)
{
	return hmm_ref_test_below(&f->rnd, n);
}

static inline bool dmt_has_large(const struct dmt *f)
{
	return hmm_ref_has_large(&f->dm);
}

int dmt_init(struct kunit *test);
void dmt_exit(struct kunit *test);

void dmt_reserve(struct kunit *test, struct dmt *f, unsigned int nr);
void dmt_unreserve(struct dmt *f, unsigned int nr);
void dmt_handout(struct kunit *test, struct dmt *f, unsigned int nr);
bool dmt_large(struct kunit *test, struct dmt *f);
void dmt_take_all(struct kunit *test, struct dmt *f);
void dmt_put(struct dmt *f, unsigned int index);
void dmt_put_all(struct dmt *f);
void dmt_split(struct dmt *f, unsigned int index);
void dmt_retire(struct kunit *test, struct dmt *f, unsigned long dpfn);
void dmt_lose(struct kunit *test, struct dmt *f, unsigned long dpfn);
void dmt_shrink(struct kunit *test, struct dmt *f);
struct hmm_ref_usage dmt_usage(struct dmt *f);
void dmt_compare(struct kunit *test, struct dmt *f);

#endif /* _HMM_REF_DEVMEM_MODEL_H */
