// SPDX-License-Identifier: GPL-2.0-only
/*
 * Exclusive access to memory that reclaim and KSM work on.
 *
 * Covers: data that the device wrote and that reclaim drops as clean, or discards after MADV_FREE;
 * a page that KSM has merged, written for all processes that share it; an entry of a large folio
 * that is not present and is taken for a present one.
 */
#include "hmm_ref_utils.h"
#include "hmm_ref_huge.h"
#include "hmm_ref_swap.h"

#define PAGES	16UL
#define KSM	"/sys/kernel/mm/ksm/"

FIXTURE(swap)
{
	struct leak_check leak;
	int swap;	/* result of swap_begin() */
	int fd;
	char *mem;
};

FIXTURE_SETUP(swap)
{
	self->swap = swap_begin();
	if (self->swap < 0)
		SKIP(return, "no swap, and no " SWAP_DEVICE " to make some (CONFIG_BLK_DEV_RAM)");
	leak_check_begin(_metadata, &self->leak);
	/* Pages that are in another CPU's batch for the LRU lists are not paged out. */
	run_on_cpu(0);
	self->fd = test_open(0);
	self->mem = test_map_pages(PAGES);
	fill_pages(self->mem, PAGES, 1);
}

FIXTURE_TEARDOWN_PARENT(swap)
{
	if (self->swap < 0)
		return;
	leak_check_end(_metadata, &self->leak);
	if (self->swap)
		EXPECT_EQ(0, swap_end());
	reclaim_end();
}

/* Pages out until the whole range is swapped out. */
#define test_page_out() do { \
	unsigned long long _deadline = now_ms() + PATIENCE_MS; \
\
	do { \
		ASSERT_EQ(0, page_out(self->mem, PAGES * page_size())); \
	} while (pages_at(self->fd, self->mem, PAGES, HMM_REF_PAGE_NONE) != PAGES && \
		 now_ms() < _deadline); \
	test_pages_at(self->fd, self->mem, PAGES, HMM_REF_PAGE_NONE, PAGES); \
} while (0)

/* Pages are swapped in, written only by the device, and swapped out again. */
TEST_F(swap, in_and_out)
{
	unsigned int seed;

	for (seed = 1; seed < 4; seed++) {
		test_page_out();
		test_exclusive(self->fd, self->mem, PAGES);
		test_dev_data(self->fd, self->mem, PAGES, seed);
		ASSERT_EQ(0, dev_fill_pages(self->fd, self->mem, PAGES, seed + 1));
		test_held(self->fd, self->mem, PAGES, PAGES);
		for (unsigned long i = 0; i < PAGES; i++)
			touch_read(self->mem + i * page_size());
	}
	test_page_out();
	test_cpu_data(self->mem, PAGES, 4);
}

/* Pages that could be discarded are kept once the device has written them. */
TEST_F(swap, free_then_write)
{
	/* MADV_FREE skips pages that are in another CPU's batch for the LRU lists. */
	run_on_cpu(0);
	self->mem = test_map_pages(PAGES);
	fill_pages(self->mem, PAGES, 1);
	ASSERT_EQ(0, madvise(self->mem, PAGES * page_size(), MADV_FREE));
	test_exclusive(self->fd, self->mem, PAGES);
	ASSERT_EQ(0, dev_fill_pages(self->fd, self->mem, PAGES, 2));
	for (unsigned long i = 0; i < PAGES; i++)
		touch_read(self->mem + i * page_size());
	test_page_out();
	test_cpu_data(self->mem, PAGES, 2);
}

/* Reclaim may take exclusive pages or leave them. It loses no data. */
TEST_F(swap, reclaim)
{
	unsigned long long deadline = now_ms() + PATIENCE_MS;
	long left = PAGES;

	/* Only pages that are allocated from now on are charged to the group. */
	if (reclaim_begin())
		SKIP(return, "no memory.reclaim: cgroup2 with its memory controller");
	self->mem = test_map_pages(PAGES);
	fill_pages(self->mem, PAGES, 1);
	test_exclusive(self->fd, self->mem, PAGES);
	ASSERT_EQ(0, dev_fill_pages(self->fd, self->mem, PAGES, 2));
	do {
		reclaim_some();
		left = pages_flagged(self->fd, self->mem, PAGES,
				     HMM_REF_PAGE_EXCLUSIVE);
	} while (left > 0 && now_ms() < deadline);
	TH_LOG("%ld of %lu pages left exclusive", left, PAGES);
	ASSERT_LE(0, left);
	test_cpu_data(self->mem, PAGES, 2);
}

/*
 * PTEs map a huge page, and one of its pages is exclusive to the device. Reclaim unmaps entries of
 * a large folio as a batch, and the entry that is not present must not be the first of it.
 */
TEST_F(swap, reclaim_of_a_huge_page)
{
	unsigned long last = block_pages() - 1;
	char *mem;

	if (kernel_before(6, 15))
		SKIP(return, "before 6.15 a large folio has one page that becomes exclusive");
	if (reclaim_begin())
		SKIP(return, "no memory.reclaim: cgroup2 with its memory controller");
	mem = map_variant(self->fd, true);
	if (!mem)
		SKIP(return, "no huge page can be allocated");
	ASSERT_EQ(0, madvise(mem + last * page_size(), page_size(), MADV_DONTNEED));
	test_exclusive(self->fd, mem + 3 * page_size(), 1);
	for (unsigned int i = 0; i < 5; i++)
		reclaim_some();
	test_cpu_data(mem, last, 1);
}

/* ---- KSM ------------------------------------------------------------------------- */

FIXTURE(ksm)
{
	struct leak_check leak;
	int fd;
};

FIXTURE_SETUP(ksm)
{
	if (access(KSM "run", W_OK))
		SKIP(return, "no " KSM "run: CONFIG_KSM");
	leak_check_begin(_metadata, &self->leak);
	self->fd = test_open(0);
}

FIXTURE_TEARDOWN_PARENT(ksm)
{
	if (access(KSM "run", W_OK))
		return;
	EXPECT_EQ(0, write_file(KSM "run", "0"));
	leak_check_end(_metadata, &self->leak);
}

static long ksm_merged(void)
{
	char shared[32], sharing[32];

	if (read_file(KSM "pages_shared", shared, sizeof(shared)) < 0 ||
	    read_file(KSM "pages_sharing", sharing, sizeof(sharing)) < 0)
		return -1;
	return atol(shared) + atol(sharing);
}

/* The process gets its own copy of a merged page. The pages that it was merged with stay. */
TEST_F(ksm, merged_page)
{
	unsigned long long deadline = now_ms() + 4 * PATIENCE_MS;
	long total = 2 * PAGES, before, held;
	unsigned long size = PAGES * page_size();
	char *mem;

	before = ksm_merged();
	mem = test_map_pages(2 * PAGES);
	fill_pages(mem, PAGES, 1);
	fill_pages(mem + size, PAGES, 1);
	ASSERT_EQ(0, madvise(mem, 2 * size, MADV_MERGEABLE));
	ASSERT_EQ(0, write_file(KSM "pages_to_scan", "2000"));
	ASSERT_EQ(0, write_file(KSM "sleep_millisecs", "10"));
	ASSERT_EQ(0, write_file(KSM "run", "1"));
	while (ksm_merged() < before + total && now_ms() < deadline)
		usleep(10000);
	EXPECT_LE(before + total, ksm_merged());
	deadline = now_ms() + PATIENCE_MS;
	/*
	 * ksmd invalidates a page before it checks for an entry that is present. If it found the
	 * page before that became exclusive, it ends the exclusive access.
	 */
	do {
		test_exclusive(self->fd, mem, PAGES);
		ASSERT_EQ(0, dev_fill_pages(self->fd, mem, PAGES, 2));
		/* Time for ksmd to scan the pages. */
		usleep(200000);
		held = pages_flagged(self->fd, mem, PAGES, HMM_REF_PAGE_EXCLUSIVE);
	} while (held >= 0 && held < (long)PAGES && now_ms() < deadline);
	EXPECT_EQ((long)PAGES, held);
	test_cpu_data(mem + size, PAGES, 1);
	test_cpu_data(mem, PAGES, 2);
}

int main(int argc, char **argv)
{
	return hmm_ref_test_main(argc, argv);
}
