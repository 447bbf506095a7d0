// SPDX-License-Identifier: GPL-2.0-only
/*
 * Steps that fail in the middle of a migration: a batch of the copy engine, or any page allocation.
 * Whichever step fails, the data is right, the counts are right, nothing leaks, and the next
 * attempt succeeds.
 *
 * Covers: entries filled before the failure that are finalized without having been committed, which
 * loses their data; a copy error that is ignored, so that user space sees stale memory; a failed
 * neighbour, or a short lack of memory, that kills a process which only touched its own page.
 *
 * Needs a kernel with fault injection in debugfs, as the debug flavour has.
 */
#include "hmm_ref_huge.h"

#define PAGES		32UL
#define SLOW_ENGINE	"/sys/module/hmm_ref/parameters/slow_engine"
#define FAIL_COPY	"/sys/kernel/debug/hmm_ref/fail_copy/"
#define FAIL_ONE_COPY	"/sys/kernel/debug/hmm_ref/fail_one_copy/"
#define FAIL_HANG	"/sys/kernel/debug/hmm_ref/fail_hang/"
#define FAIL_RETRY	"/sys/kernel/debug/hmm_ref/fail_retry/"
#define FAIL_HANDOUT	"/sys/kernel/debug/hmm_ref/fail_handout/"
#define FAIL_PAGE	"/sys/kernel/debug/fail_page_alloc/"

FIXTURE(fail)
{
	struct leak_check leak;
	int fd;
	char *mem;
};

FIXTURE_SETUP(fail)
{
	if (access(FAIL_COPY "probability", F_OK))
		SKIP(return, "no " FAIL_COPY ": CONFIG_FAULT_INJECTION_DEBUG_FS");
	leak_check_begin(_metadata, &self->leak);
	self->fd = test_open(0);
	/* One window, since a failure ends the command at the end of a window. */
	self->mem = test_map_blocks(1);
	fill_pages(self->mem, PAGES, 1);
}

FIXTURE_TEARDOWN_PARENT(fail)
{
	if (access(FAIL_COPY "probability", F_OK))
		return;
	EXPECT_EQ(0, attr_disarm(FAIL_COPY));
	EXPECT_EQ(0, attr_disarm(FAIL_ONE_COPY));
	EXPECT_EQ(0, attr_disarm(FAIL_HANG));
	EXPECT_EQ(0, attr_disarm(FAIL_RETRY));
	EXPECT_EQ(0, attr_disarm(FAIL_HANDOUT));
	EXPECT_EQ(0, write_file(COPY_TIMEOUT, COPY_TIMEOUT_DEFAULT));
	EXPECT_EQ(0, write_file(SLOW_ENGINE, "0"));
	if (!access(FAIL_PAGE "probability", F_OK))
		EXPECT_EQ(0, attr_disarm(FAIL_PAGE));
	leak_check_end(_metadata, &self->leak);
}

TEST_F(fail, copy_to_device)
{
	struct hmm_ref_migrate cmd;

	ASSERT_EQ(0, attr_arm(FAIL_COPY, 0, 1));
	test_err_migrate(EIO, self->fd, HMM_REF_TO_DEVICE, self->mem,
			 PAGES * page_size(), &cmd);
	EXPECT_EQ(0, cmd.out_migrated);
	test_pages_at(self->fd, self->mem, PAGES, HMM_REF_PAGE_SYSTEM, PAGES);
	test_cpu_data(self->mem, PAGES, 1);
	test_to_device(self->fd, self->mem, PAGES);
	test_dev_data(self->fd, self->mem, PAGES, 1);
}

TEST_F(fail, clear_of_a_hole)
{
	char *hole = test_map_blocks(1);
	struct hmm_ref_migrate cmd;

	ASSERT_EQ(0, attr_arm(FAIL_COPY, 0, 1));
	test_err_migrate(EIO, self->fd, HMM_REF_TO_DEVICE, hole,
			 PAGES * page_size(), &cmd);
	test_pages_at(self->fd, hole, PAGES, HMM_REF_PAGE_NONE, PAGES);
	EXPECT_TRUE(page_is_zero(hole));
}

/* A range that is invalidated during each attempt still migrates. */
TEST_F(fail, unstable_range_migrates)
{
	struct hmm_ref_migrate cmd;

	ASSERT_EQ(0, attr_arm(FAIL_RETRY, 0, -1));
	test_migrate(self->fd, HMM_REF_TO_DEVICE, self->mem, PAGES * page_size(), &cmd);
	EXPECT_EQ(PAGES, cmd.out_migrated);
	ASSERT_EQ(0, attr_disarm(FAIL_RETRY));
	test_pages_at(self->fd, self->mem, PAGES, HMM_REF_PAGE_DEVICE, PAGES);
	test_dev_data(self->fd, self->mem, PAGES, 1);
}

/* Pages are reserved and none is allocated: the next pass gets them, and no reservation is left. */
TEST_F(fail, handout)
{
	struct hmm_ref_stats stats;

	ASSERT_EQ(0, attr_arm(FAIL_HANDOUT, 0, 1));
	test_to_device(self->fd, self->mem, PAGES);
	test_dev_data(self->fd, self->mem, PAGES, 1);
	test_stats(self->fd, &stats);
	ASSERT_EQ(0, stats.out_pages_reserved);
}

/*
 * The device page table gets room for entries that are not written. That room is freed. Sanity mode
 * checks for it when the file is closed, which is before the mapping is removed and frees
 * everything.
 */
TEST_F(fail, unstable_range_access)
{
	char *buf = test_map_pages(1);
	int fd = test_open(0);

	ASSERT_EQ(0, attr_arm(FAIL_RETRY, 0, -1));
	test_err_read(EBUSY, fd, self->mem, page_size(), buf);
	close(fd);
	ASSERT_EQ(0, attr_disarm(FAIL_RETRY));
	test_read(self->fd, self->mem, page_size(), buf);
	ASSERT_TRUE(page_holds(buf, 1, 0));
}

TEST_F(fail, copy_to_system)
{
	struct hmm_ref_migrate cmd;

	test_to_device(self->fd, self->mem, PAGES);
	ASSERT_EQ(0, attr_arm(FAIL_COPY, 0, 1));
	test_err_migrate(EIO, self->fd, HMM_REF_TO_SYSTEM, self->mem,
			 PAGES * page_size(), &cmd);
	EXPECT_EQ(0, cmd.out_migrated);
	EXPECT_EQ(PAGES, cmd.out_skipped);
	test_pages_at(self->fd, self->mem, PAGES, HMM_REF_PAGE_DEVICE, PAGES);
	test_dev_data(self->fd, self->mem, PAGES, 1);
	test_to_system(self->fd, self->mem, PAGES);
	test_cpu_data(self->mem, PAGES, 1);
}

/* ---- one copy of a batch --------------------------------------------------------- */

/* All pages but one migrate. That one does not change. */
TEST_F(fail, one_copy_to_device)
{
	struct hmm_ref_migrate cmd;

	ASSERT_EQ(0, attr_arm(FAIL_ONE_COPY, 0, 1));
	test_err_migrate(EIO, self->fd, HMM_REF_TO_DEVICE, self->mem,
			 PAGES * page_size(), &cmd);
	EXPECT_EQ(PAGES - 1, cmd.out_migrated);
	EXPECT_EQ(1, cmd.out_skipped);
	test_pages_at(self->fd, self->mem, PAGES, HMM_REF_PAGE_DEVICE, PAGES - 1);
	test_dev_data(self->fd, self->mem, PAGES, 1);
	test_to_device(self->fd, self->mem, PAGES);
	test_dev_data(self->fd, self->mem, PAGES, 1);
}

TEST_F(fail, one_copy_to_system)
{
	struct hmm_ref_migrate cmd;

	test_to_device(self->fd, self->mem, PAGES);
	ASSERT_EQ(0, attr_arm(FAIL_ONE_COPY, 0, 1));
	test_err_migrate(EIO, self->fd, HMM_REF_TO_SYSTEM, self->mem,
			 PAGES * page_size(), &cmd);
	EXPECT_EQ(PAGES - 1, cmd.out_migrated);
	EXPECT_EQ(1, cmd.out_skipped);
	test_pages_at(self->fd, self->mem, PAGES, HMM_REF_PAGE_DEVICE, 1);
	test_dev_data(self->fd, self->mem, PAGES, 1);
	test_cpu_data(self->mem, PAGES, 1);
}

/* Uses a file of its own. The migration may skip pages. */
static int migrate_there(void *arg)
{
	struct hmm_ref_migrate cmd;
	int fd = hmm_ref_open(0);
	char *mem;
	int rc;

	mem = mmap(NULL, page_size(), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (!CHECK(fd >= 0) || !CHECK(mem != MAP_FAILED))
		return 1;
	fill_pages(mem, 1, 3);
	rc = _test_migrate(fd, HMM_REF_TO_DEVICE, mem, page_size(), &cmd);
	close(fd);
	return !CHECK(!rc || rc == -ETIMEDOUT) || !CHECK(page_holds(mem, 3, 0));
}

/*
 * A huge page that cannot be copied at once is evicted page by page. A page that
 * cannot be copied at all stays.
 */
TEST_F(fail, evicted_in_pieces)
{
	char *mem = map_variant(self->fd, true);
	struct hmm_ref_evict cmd;

	if (!mem || !keeps_large())
		SKIP(return, "no huge pages on the device");
	test_to_device(self->fd, mem, block_pages());
	ASSERT_EQ(0, attr_arm(FAIL_ONE_COPY, 0, -1));
	ASSERT_EQ(0, _test_evict(self->fd, mem, block_size(), &cmd));
	ASSERT_EQ(0, attr_disarm(FAIL_ONE_COPY));
	EXPECT_LE(block_pages() / 2, cmd.out_evicted);
	test_cpu_data(mem, block_pages(), 1);
}

/* ---- an engine that hangs, or is slow -------------------------------------------- */

/* The engine is reset, the pages stay where they are, and the device works again. */
TEST_F(fail, engine_hangs)
{
	struct hmm_ref_migrate cmd;

	ASSERT_EQ(0, write_file(COPY_TIMEOUT, "100"));
	ASSERT_EQ(0, attr_arm(FAIL_HANG, 0, 1));
	test_err_migrate(ETIMEDOUT, self->fd, HMM_REF_TO_DEVICE, self->mem,
			 PAGES * page_size(), &cmd);
	EXPECT_EQ(0, cmd.out_migrated);
	test_to_device(self->fd, self->mem, PAGES);
	test_dev_data(self->fd, self->mem, PAGES, 1);
	ASSERT_EQ(0, attr_arm(FAIL_HANG, 0, 1));
	test_err_migrate(ETIMEDOUT, self->fd, HMM_REF_TO_SYSTEM, self->mem,
			 PAGES * page_size(), &cmd);
	test_pages_at(self->fd, self->mem, PAGES, HMM_REF_PAGE_DEVICE, PAGES);
	ASSERT_EQ(0, attr_arm(FAIL_HANG, 0, 1));
	test_cpu_data(self->mem, PAGES, 1);
}

/* Three tasks submit three batches that hang. Each reset ends one of them, in any order. */
TEST_F(fail, engine_hangs_again)
{
	struct worker workers[3];
	unsigned int i;

	ASSERT_EQ(0, write_file(COPY_TIMEOUT, "1000"));
	ASSERT_EQ(0, attr_arm(FAIL_HANG, 0, 3));
	for (i = 0; i < 3; i++) {
		ASSERT_EQ(0, worker_start(&workers[i], migrate_there, NULL));
		usleep(200000);
	}
	for (i = 0; i < 3; i++)
		ASSERT_EQ(0, worker_wait(&workers[i]));
	ASSERT_EQ(0, attr_disarm(FAIL_HANG));
}

/*
 * The engine takes longer than the waiters' timeout. No command ends before the engine is done with
 * its pages.
 */
TEST_F(fail, engine_is_slow)
{
	ASSERT_EQ(0, write_file(COPY_TIMEOUT, "10"));
	ASSERT_EQ(0, write_file(SLOW_ENGINE, "100000"));
	test_to_device(self->fd, self->mem, PAGES);
	test_dev_data(self->fd, self->mem, PAGES, 1);
	test_to_system(self->fd, self->mem, PAGES);
	test_cpu_data(self->mem, PAGES, 1);
}

/* ---- neighbours ------------------------------------------------------------------ */

/* The batch fails, and the copy of the page alone succeeds: the process notices nothing. */
TEST_F(fail, copy_of_a_neighbour)
{
	test_go_through_memory(self->fd);
	test_to_device(self->fd, self->mem, PAGES);
	ASSERT_EQ(0, attr_arm(FAIL_COPY, 0, 1));
	EXPECT_TRUE(page_holds(self->mem + page_size(), 1, 1));
	test_pages_at(self->fd, self->mem, PAGES, HMM_REF_PAGE_SYSTEM, 1);
	test_cpu_data(self->mem, PAGES, 1);
}

/* As above, without a neighbour: the mapping has one page. */
TEST_F(fail, copy_of_a_single_page)
{
	char *page = self->mem + page_size();

	ASSERT_EQ(0, madvise(page, page_size(), MADV_DONTFORK));
	test_to_device(self->fd, self->mem, PAGES);
	ASSERT_EQ(0, attr_arm(FAIL_COPY, 0, 1));
	EXPECT_TRUE(page_holds(page, 1, 1));
	test_pages_at(self->fd, page, 1, HMM_REF_PAGE_SYSTEM, 1);
	test_cpu_data(self->mem, PAGES, 1);
}

static int touch(void *arg)
{
	return __atomic_load_n((char *)arg, __ATOMIC_RELAXED) & 0;
}

/* The page cannot be copied: a task that touches it gets SIGBUS, and the data is kept. */
TEST_F(fail, copy_fails_forever)
{
	test_to_device(self->fd, self->mem, PAGES);
	ASSERT_EQ(0, attr_arm(FAIL_COPY, 0, -1));
	EXPECT_EQ(CHILD_SIGNAL + SIGBUS, child_run(touch, self->mem));
	ASSERT_EQ(0, attr_disarm(FAIL_COPY));
	test_pages_at(self->fd, self->mem, PAGES, HMM_REF_PAGE_DEVICE, PAGES);
	test_cpu_data(self->mem, PAGES, 1);
}

/* Fails one user allocation of this process: the one after @passed others. */
static int fail_page_after(int passed)
{
	int rc = write_file(FAIL_PAGE "task-filter", "Y");

	rc = rc ? rc : write_file(FAIL_PAGE "ignore-gfp-highmem", "N");
	rc = rc ? rc : write_file(FAIL_PAGE "ignore-gfp-wait", "N");
	rc = rc ? rc : write_file(FAIL_PAGE "min-order", "0");
	rc = rc ? rc : attr_arm(FAIL_PAGE, passed, 1);
	return rc ? rc : write_file("/proc/self/make-it-fail", "1");
}

static int fail_page_stop(void)
{
	int rc = write_file("/proc/self/make-it-fail", "0");

	return rc ? rc : attr_disarm(FAIL_PAGE);
}

/*
 * Fails the first page allocation of MIGRATE, then the second, and so on until none fails. Returns
 * the number that failed.
 */
static int sweep(struct __test_metadata *_metadata, int fd, char *mem,
		 unsigned int direction)
{
	unsigned int back = HMM_REF_TO_DEVICE + HMM_REF_TO_SYSTEM - direction;
	struct hmm_ref_migrate cmd;
	int failures = 0;
	int passed, rc;

	for (passed = 0; passed < 4 * (int)PAGES; passed++) {
		__test_migrate_all(_metadata, fd, back, mem, PAGES);
		ASSERT_EQ(0, fail_page_after(passed));
		rc = _test_migrate(fd, direction, mem, PAGES * page_size(), &cmd);
		ASSERT_EQ(0, fail_page_stop());
		ASSERT_TRUE(!rc || rc == -ENOMEM);
		ASSERT_LE(cmd.out_migrated + cmd.out_already + cmd.out_skipped, PAGES);
		failures += rc != 0;
		test_dev_data(fd, mem, PAGES, 1);
	}
	return failures;
}

TEST_F(fail, memory_to_system)
{
	int failures = sweep(_metadata, self->fd, self->mem, HMM_REF_TO_SYSTEM);

	/*
	 * Each page needs one allocation. The failed allocation may have had a fallback, as in the
	 * slab.
	 */
	EXPECT_LE((int)PAGES * 3 / 4, failures);
	test_cpu_data(self->mem, PAGES, 1);
}

TEST_F(fail, memory_to_device)
{
	sweep(_metadata, self->fd, self->mem, HMM_REF_TO_DEVICE);
	test_cpu_data(self->mem, PAGES, 1);
}

/* When memory is short for a moment, the fault is repeated, and the task gets no signal. */
TEST_F(fail, memory_for_cpu_fault)
{
	int passed;

	for (passed = 0; passed < (int)PAGES; passed++) {
		test_to_device(self->fd, self->mem, PAGES);
		ASSERT_EQ(0, fail_page_after(passed));
		__atomic_load_n(self->mem + passed * page_size(), __ATOMIC_RELAXED);
		ASSERT_EQ(0, fail_page_stop());
		test_cpu_data(self->mem, PAGES, 1);
	}
}

int main(int argc, char **argv)
{
	return hmm_ref_test_main(argc, argv);
}
