// SPDX-License-Identifier: GPL-2.0-only
/*
 * Commands over several windows. Two of them are under way at once: one is copied beside
 * the caller, while the next one's pages are unmapped. Whatever is in them, and wherever
 * they end, all of it gets there; and when one fails, the counts and the data say so.
 *
 * Stands for: a window whose pages are mapped before its copies have ended; one that goes
 * on after the one before it has failed, or that nobody counts; device pages reserved for
 * a window that does not come.
 */
#include "hmm_ref_utils.h"

#define BLOCKS		5UL
#define FAIL_COPY	"/sys/kernel/debug/hmm_ref/fail_copy/"
#define OVERLAP		"/sys/module/hmm_ref/parameters/overlap"

FIXTURE(windows)
{
	struct leak_check leak;
	int fd;
	char *mem;
	unsigned long npages;
};

FIXTURE_VARIANT(windows)
{
	int advice;
	const char *overlap;
};

FIXTURE_VARIANT_ADD(windows, small) { .advice = MADV_NOHUGEPAGE, .overlap = "Y" };
FIXTURE_VARIANT_ADD(windows, huge) { .advice = MADV_HUGEPAGE, .overlap = "Y" };
FIXTURE_VARIANT_ADD(windows, small_alone) { .advice = MADV_NOHUGEPAGE, .overlap = "N" };

FIXTURE_SETUP(windows)
{
	leak_check_begin(_metadata, &self->leak);
	ASSERT_EQ(0, write_file(OVERLAP, variant->overlap));
	self->fd = test_open(0);
	self->mem = test_map_blocks(BLOCKS);
	self->npages = BLOCKS * block_pages();
	ASSERT_EQ(0, madvise(self->mem, BLOCKS * block_size(), variant->advice));
}

FIXTURE_TEARDOWN_PARENT(windows)
{
	EXPECT_EQ(0, write_file(OVERLAP, "Y"));
	if (!access(FAIL_COPY "probability", F_OK))
		EXPECT_EQ(0, attr_disarm(FAIL_COPY));
	leak_check_end(_metadata, &self->leak);
}

/* All pages of the range get there, and none beside it. */
static void go_and_return(struct __test_metadata *_metadata, int fd, char *blocks,
			  unsigned long npages, unsigned long first)
{
	char *mem = blocks + first * page_size();

	fill_pages(mem, npages, 1);
	test_to_device(fd, mem, npages);
	test_pages_at(fd, blocks, BLOCKS * block_pages(), HMM_REF_PAGE_DEVICE, npages);
	test_dev_data(fd, mem, npages, 1);
	test_to_system(fd, mem, npages);
	test_pages_at(fd, mem, npages, HMM_REF_PAGE_SYSTEM, npages);
	test_cpu_data(mem, npages, 1);
}

TEST_F(windows, whole)
{
	go_and_return(_metadata, self->fd, self->mem, 2 * block_pages(), 0);
	go_and_return(_metadata, self->fd, self->mem, BLOCKS * block_pages(), 0);
}

TEST_F(windows, begin_and_end_inside)
{
	go_and_return(_metadata, self->fd, self->mem, block_pages(), 7);
	go_and_return(_metadata, self->fd, self->mem, 2 * block_pages(), 7);
	go_and_return(_metadata, self->fd, self->mem, 3 * block_pages() + 5, block_pages() - 3);
}

/*
 * There is little to do beside the copies, and they are waited for soon: before the engine
 * has begun, or while it copies. The last page of the first window is the last one copied.
 */
TEST_F(windows, short_second_one)
{
	unsigned long long end = now_ms() + 1000 * env_number("HMM_REF_SECONDS", 2);
	unsigned int random = random_seed("HMM_REF_SEED");
	unsigned long last = block_pages() - 1;
	char *last_page = self->mem + last * page_size();

	do {
		unsigned long npages = block_pages() + 1 +
				       random_next(&random) % (block_pages() / 2);

		fill_pages(self->mem, npages, 1);
		test_to_device(self->fd, self->mem, npages);
		ASSERT_TRUE(page_holds(last_page, 1, last));
		test_to_device(self->fd, self->mem, npages);
		test_to_system(self->fd, self->mem, npages);
		ASSERT_TRUE(page_holds(last_page, 1, last));
		test_cpu_data(self->mem, npages, 1);
	} while (now_ms() < end);
}

TEST_F(windows, holes_and_pages)
{
	unsigned long i;

	for (i = 0; i < BLOCKS; i += 2)
		fill_pages_from(self->mem + i * block_size(), block_pages(), 1,
				i * block_pages());
	test_to_device(self->fd, self->mem, self->npages);
	test_to_system(self->fd, self->mem, self->npages);
	for (i = 0; i < self->npages; i++) {
		char *page = self->mem + i * page_size();

		ASSERT_TRUE(i / block_pages() % 2 ? page_is_zero(page) :
						    page_holds(page, 1, i));
	}
}

/* The first window is cut by the end of a mapping, or the second one is, or nothing. */
TEST_F(windows, mappings_end_anywhere)
{
	static const unsigned int cuts[] = { 1, 500, 512, 513, 1000, 1024, 1300 };
	unsigned int i;

	/* Where huge pages do not stay whole, those mapped in parts do not move. */
	if (variant->advice == MADV_HUGEPAGE && !keeps_large())
		SKIP(return, "this kernel does not move parts of a huge page");
	fill_pages(self->mem, self->npages, 1);
	for (i = 0; i < ARRAY_SIZE(cuts); i++)
		ASSERT_EQ(0, madvise(self->mem + cuts[i] * page_size(), page_size(),
				     i % 2 ? MADV_DONTDUMP : MADV_DONTFORK));
	test_to_device(self->fd, self->mem, self->npages);
	test_dev_data(self->fd, self->mem, self->npages, 1);
	test_to_system(self->fd, self->mem, self->npages);
	test_cpu_data(self->mem, self->npages, 1);
}

/* What stays in one window is counted, and stays alone. */
TEST_F(windows, one_that_stays)
{
	struct hmm_ref_migrate cmd;
	unsigned long i;

	for (i = 0; i < 4; i++) {
		char *stays = test_map_blocks(4);

		fill_pages(stays, 4 * block_pages(), 1);
		if (madvise(stays + i * block_size(), block_size(), MADV_MERGEABLE))
			SKIP(return, "no MADV_MERGEABLE: CONFIG_KSM");
		test_migrate(self->fd, HMM_REF_TO_DEVICE, stays, 4 * block_size(), &cmd);
		EXPECT_EQ(block_pages(), cmd.out_skipped);
		EXPECT_EQ(0, cmd.out_already);
		EXPECT_EQ(3 * block_pages(), cmd.out_migrated);
		test_pages_at(self->fd, stays + i * block_size(), block_pages(),
			      HMM_REF_PAGE_DEVICE, 0);
		test_cpu_data(stays, 4 * block_pages(), 1);
		munmap(stays, 4 * block_size());
	}
}

struct unmapper {
	char *mem;
	unsigned long go, delay_us;
};

static int unmap_later(void *arg)
{
	struct unmapper *unmapper = arg;

	run_on_cpu(1);
	while (!counter_get(&unmapper->go))
		;
	usleep(unmapper->delay_us);
	return munmap(unmapper->mem, block_size());
}

/* Keep the pages of a block where they are: a pipe that nobody reads refers to them. */
static void pin_block(struct __test_metadata *_metadata, char *mem, int pipefd[2])
{
	size_t got = 0;

	ASSERT_EQ(0, pipe(pipefd));
	ASSERT_LE((int)block_size(), fcntl(pipefd[1], F_SETPIPE_SZ,
					   (int)(block_pages() * page_size())));
	while (got < block_size()) {
		struct iovec iov = { mem + got, block_size() - got };
		ssize_t part = vmsplice(pipefd[1], &iov, 1, SPLICE_F_NONBLOCK);

		ASSERT_LT(0, part);
		got += part;
	}
}

/*
 * None of the first window moves, all of the second one does, and then the first one is
 * unmapped while it is tried again. What counts are the pages that were looked at.
 */
TEST_F(windows, first_one_goes_between_two_tries)
{
	unsigned long npages = 2 * block_pages();
	unsigned int i;

	run_on_cpu(0);
	for (i = 0; i < 40; i++) {
		struct unmapper unmapper = { .delay_us = 200 + i % 20 * 1500 };
		struct hmm_ref_migrate cmd;
		struct worker worker;
		int pipefd[2];
		int rc;

		unmapper.mem = test_map_blocks(2);
		ASSERT_EQ(0, madvise(unmapper.mem, 2 * block_size(), variant->advice));
		fill_pages(unmapper.mem, npages, 1);
		pin_block(_metadata, unmapper.mem, pipefd);
		ASSERT_EQ(0, worker_start(&worker, unmap_later, &unmapper));
		counter_set(&unmapper.go, 1);
		rc = _test_migrate(self->fd, HMM_REF_TO_DEVICE, unmapper.mem,
				   2 * block_size(), &cmd);
		ASSERT_EQ(0, worker_wait(&worker));
		ASSERT_TRUE(!rc || rc == -EFAULT);
		if (!rc || cmd.out_migrated >= block_pages())
			ASSERT_EQ(npages, cmd.out_migrated + cmd.out_already +
					  cmd.out_skipped);
		munmap(unmapper.mem + block_size(), block_size());
		close(pipefd[0]);
		close(pipefd[1]);
	}
}

/* The copies of one window fail: those before it have moved, and none behind it. */
static void fail_window(struct __test_metadata *_metadata, int fd, char *mem,
			unsigned int direction, unsigned int bad)
{
	unsigned int there = direction == HMM_REF_TO_DEVICE ? HMM_REF_PAGE_DEVICE :
							      HMM_REF_PAGE_SYSTEM;
	unsigned long before = bad * block_pages();
	struct hmm_ref_migrate cmd;

	ASSERT_EQ(0, attr_arm(FAIL_COPY, bad, 1));
	test_err_migrate(EIO, fd, direction, mem, BLOCKS * block_size(), &cmd);
	EXPECT_EQ(before, cmd.out_migrated);
	EXPECT_EQ(0, cmd.out_already);
	EXPECT_EQ(block_pages(), cmd.out_skipped);
	test_pages_at(fd, mem, BLOCKS * block_pages(), there, before);
}

TEST_F(windows, copies_fail)
{
	unsigned int bad;

	if (access(FAIL_COPY "probability", F_OK))
		SKIP(return, "no " FAIL_COPY ": CONFIG_FAULT_INJECTION_DEBUG_FS");
	fill_pages(self->mem, self->npages, 1);
	for (bad = 0; bad < BLOCKS; bad++) {
		fail_window(_metadata, self->fd, self->mem, HMM_REF_TO_DEVICE, bad);
		test_to_device(self->fd, self->mem, self->npages);
		fail_window(_metadata, self->fd, self->mem, HMM_REF_TO_SYSTEM, bad);
		test_to_system(self->fd, self->mem, self->npages);
		test_cpu_data(self->mem, self->npages, 1);
	}
}

int main(int argc, char **argv)
{
	return hmm_ref_test_main(argc, argv);
}
