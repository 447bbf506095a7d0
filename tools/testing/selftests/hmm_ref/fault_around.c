// SPDX-License-Identifier: GPL-2.0-only
/*
 * The number of pages that a CPU fault migrates: many if a process accesses its memory
 * sequentially, few if it accesses it at random.
 *
 * Covers: one page per fault, which makes sequential access several times as expensive; neighbours
 * that are not accessed, each of which costs a copy in both directions. The tests count faults and
 * pages. The driver's predictor is per CPU, so the tests run on one CPU.
 */
#include "hmm_ref_utils.h"

#define MOST		16UL	/* largest number of pages per fault */
#define PAGES		(16 * MOST)
#define LEARNING	6UL	/* faults until a stream has the largest number */
#define KNOB		"/sys/kernel/debug/hmm_ref/hmm_ref0/fault_around"

FIXTURE(around)
{
	struct leak_check leak;
	char most[16];
	int fd;
	char *mem;
	unsigned long long faults, pages;	/* of the last touches */
};

FIXTURE_SETUP(around)
{
	leak_check_begin(_metadata, &self->leak);
	if (read_file(KNOB, self->most, sizeof(self->most)) < 0)
		SKIP(return, "no " KNOB);
	ASSERT_EQ(0, write_file(KNOB, "16"));
	run_on_cpu(0);
	self->fd = test_open(0);
	self->mem = test_map_blocks(2);
	ASSERT_EQ(0, madvise(self->mem, 2 * block_size(), MADV_NOHUGEPAGE));
	ASSERT_LE(2 * PAGES, block_pages());
	fill_pages(self->mem, 2 * block_pages(), 1);
	test_to_device(self->fd, self->mem, 2 * block_pages());
}

FIXTURE_TEARDOWN_PARENT(around)
{
	write_file(KNOB, self->most);
	leak_check_end(_metadata, &self->leak);
}

static void touch_page(void *mem, unsigned long page)
{
	touch_read((char *)mem + page * page_size());
}

/*
 * Touches pages that a function of the turn selects. self->faults and self->pages are the counts of
 * these touches.
 */
#define test_touches(turns, page) do { \
	struct hmm_ref_stats before, after; \
	const unsigned long last = turns; \
	unsigned long turn; \
	test_stats(self->fd, &before); \
	for (turn = 0; turn < last; turn++) \
		touch_page(self->mem, page); \
	test_stats(self->fd, &after); \
	self->faults = after.out_cpu_faults - before.out_cpu_faults; \
	self->pages = after.out_fault_pages - before.out_fault_pages; \
	TH_LOG("%lu touches: %llu faults, %llu pages", last, self->faults, self->pages); \
} while (0)

/* Each page is far from the one before, and in the middle of a group. */
#define jumping(turn)	((turn) * 5 % (2 * PAGES / MOST) * MOST + 7)

TEST_F(around, upwards)
{
	test_touches(PAGES, turn);
	EXPECT_LE(self->faults, PAGES / MOST + LEARNING);
	EXPECT_LE(PAGES, self->pages);
	test_cpu_data(self->mem, 2 * block_pages(), 1);
}

TEST_F(around, downwards)
{
	test_touches(PAGES, 2 * block_pages() - 1 - turn);
	EXPECT_LE(self->faults, PAGES / MOST + LEARNING);
	EXPECT_LE(PAGES, self->pages);
	test_cpu_data(self->mem, 2 * block_pages(), 1);
}

TEST_F(around, jumping)
{
	test_touches(2 * PAGES / MOST, jumping(turn));
	EXPECT_LE(2 * PAGES / MOST, self->faults);
	EXPECT_LE(self->pages, self->faults + 8);
	test_cpu_data(self->mem, 2 * block_pages(), 1);
}

/* A process that has accessed memory at random may access it sequentially next. */
TEST_F(around, upwards_again)
{
	test_touches(2 * PAGES / MOST, jumping(turn));
	test_touches(PAGES, block_pages() + turn);
	EXPECT_LE(self->faults, PAGES / MOST + LEARNING);
	test_cpu_data(self->mem, 2 * block_pages(), 1);
}

/* As in a copy from one array to another. */
TEST_F(around, two_arrays)
{
	test_touches(2 * PAGES, (turn & 1 ? block_pages() : 0) + turn / 2);
	EXPECT_LE(self->faults, 2 * (PAGES / MOST + LEARNING));
	test_cpu_data(self->mem, 2 * block_pages(), 1);
}

/* Random accesses in between do not end a stream: each fifth touch. */
TEST_F(around, upwards_and_jumping)
{
	unsigned long turns = 5 * 2 * PAGES / MOST, jumps = turns / 5;

	test_touches(turns, turn % 5 ? block_pages() + turn - turn / 5 - 1 :
				       jumping(turn / 5));
	EXPECT_LE(self->faults, jumps + (turns - jumps) / MOST + LEARNING);
	test_cpu_data(self->mem, 2 * block_pages(), 1);
}

TEST_F(around, not_at_all)
{
	ASSERT_EQ(0, write_file(KNOB, "1"));
	test_touches(PAGES, turn);
	EXPECT_LE(PAGES, self->faults);
	EXPECT_EQ(PAGES, self->pages);
}

int main(int argc, char **argv)
{
	return hmm_ref_test_main(argc, argv);
}
