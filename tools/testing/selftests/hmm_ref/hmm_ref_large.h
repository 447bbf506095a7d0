/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * One huge page, and where it is.
 */
#ifndef _HMM_REF_LARGE_H
#define _HMM_REF_LARGE_H

#include "hmm_ref_utils.h"

#define HUGE_ORDER	9

/* Maps one huge page. Returns why there is none, or NULL. */
static inline const char *map_huge(int fd, char *mem)
{
	struct hmm_ref_page_state state;
	struct hmm_ref_snapshot cmd;
	struct hmm_ref_info info;

	if (_test_info(fd, &info) || info.out_memory_type != HMM_REF_MEMORY_PRIVATE)
		return "not a private device";
	if (!keeps_large())
		return "this kernel splits what goes to a device";
	if (madvise(mem, block_size(), MADV_HUGEPAGE))
		return "no transparent huge pages";
	fill_pages(mem, block_pages(), 1);
	if (_test_snapshot(fd, mem, page_size(), &state, &cmd) ||
	    state.order != HUGE_ORDER)
		return "no huge page can be allocated";
	return NULL;
}

/* Checks that each page of the block is at @where, and that entries of @order map it. */
static inline void __test_block(struct __test_metadata *_metadata, int fd, char *mem,
				unsigned int where, unsigned int order)
{
	struct hmm_ref_page_state *states = calloc(block_pages(), sizeof(*states));
	struct hmm_ref_snapshot cmd;
	unsigned long i;

	ASSERT_NE(NULL, states);
	test_snapshot(fd, mem, block_size(), states, &cmd);
	for (i = 0; i < block_pages(); i++) {
		ASSERT_EQ(where, states[i].where) {
			TH_LOG("page %lu", i);
		}
		ASSERT_EQ(order, states[i].order) {
			TH_LOG("page %lu", i);
		}
	}
	free(states);
}

#define test_block(where, order) \
	__test_block(_metadata, self->fd, self->mem, where, order)

static inline void __test_one_migrate(struct __test_metadata *_metadata, int fd, char *mem,
				      unsigned int direction)
{
	struct hmm_ref_migrate cmd;

	test_migrate(fd, direction, mem, block_size(), &cmd);
	ASSERT_EQ(block_pages(), cmd.out_migrated);
	ASSERT_EQ(0, cmd.out_already);
	ASSERT_EQ(0, cmd.out_skipped);
}

#define test_one_migrate(direction) \
	__test_one_migrate(_metadata, self->fd, self->mem, direction)

#endif /* _HMM_REF_LARGE_H */
