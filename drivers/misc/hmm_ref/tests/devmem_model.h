/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Device memory beside a model of it: what devmem_test.c works with.
 */
#ifndef _HMM_REF_DEVMEM_MODEL_H
#define _HMM_REF_DEVMEM_MODEL_H

#include "tests.h"

#define DMT_BLOCKS	7	/* the last of the chunks of 2 is cut */
#define DMT_PAGES	(DMT_BLOCKS * HMM_REF_BLOCK_PAGES)
#define DMT_OWNERS	3
#define DMT_BATCH	(3 * HMM_REF_BLOCK_PAGES)

/* One page or large folio that we have. */
struct held {
	struct page *page;
	unsigned int owner;
};

/**
 * struct dmt - device memory and what it should be like
 * @dm: under test
 * @owners: users of the pages
 * @nr_owned: pages that each of them has
 * @ours: by dpfn: handed out to us
 * @bad: by dpfn: reported bad; never handed out again
 * @nr_ours: bits in @ours
 * @room: single pages promised and not yet handed out
 * @broken: a page was reported bad since, so promises may not hold
 * @held: what we have, in no order
 * @nr_held: elements of it
 * @batch: for one call of handout
 * @rnd: chance
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
