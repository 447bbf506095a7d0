/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Memory of the small and of the large variant of a test: a few pages, or a block that one huge
 * page maps.
 */
#ifndef _HMM_REF_HUGE_H
#define _HMM_REF_HUGE_H

#include "hmm_ref_utils.h"

#define SMALL_PAGES	32UL
#define HUGE_ORDER	9

static inline unsigned long variant_pages(bool large)
{
	return large ? block_pages() : SMALL_PAGES;
}

/* Returns the order of the CPU's entry that maps @mem. */
static inline unsigned int order_at(int fd, const void *mem)
{
	struct hmm_ref_page_state state;
	struct hmm_ref_snapshot cmd;

	return _test_snapshot(fd, mem, page_size(), &state, &cmd) ? ~0U : state.order;
}

/* Maps memory with the data of seed 1. Returns NULL if no huge page can be allocated. */
static inline char *map_variant(int fd, bool large)
{
	char *mem = large ? map_blocks(1) : map_pages(SMALL_PAGES);

	if (mem == MAP_FAILED)
		return NULL;
	if (large && madvise(mem, block_size(), MADV_HUGEPAGE))
		return NULL;
	fill_pages(mem, variant_pages(large), 1);
	return large && order_at(fd, mem) != HUGE_ORDER ? NULL : mem;
}

/* Puts the data of @seed in a huge page again, after a test has split it. */
static inline int renew_variant(char *mem, bool large, unsigned int seed)
{
	if (large && madvise(mem, block_size(), MADV_DONTNEED))
		return -errno;
	fill_pages(mem, variant_pages(large), seed);
	return 0;
}

/* A thread that migrates memory to the device all the time. */
struct pusher {
	int fd;
	char *mem;
	size_t size;
	unsigned long stop;
	unsigned long migrated;
	unsigned long skipped;
};

static inline int keep_pushing(void *arg)
{
	struct pusher *p = arg;
	struct hmm_ref_migrate cmd;

	while (!counter_get(&p->stop)) {
		if (!CHECK(!_test_migrate(p->fd, HMM_REF_TO_DEVICE, p->mem, p->size, &cmd)))
			return 1;
		counter_add(&p->migrated, cmd.out_migrated);
		counter_add(&p->skipped, cmd.out_skipped);
	}
	return 0;
}

#endif /* _HMM_REF_HUGE_H */
