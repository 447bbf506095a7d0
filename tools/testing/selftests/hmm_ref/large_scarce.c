// SPDX-License-Identifier: GPL-2.0-only
/*
 * Large folios when no large page can be allocated, on the device or in system memory.
 *
 * Covers: a CPU fault on a huge page that is repeated forever, or at each touch, because no huge
 * page is free; a fault on a part that unlocks a page which is not locked; an eviction that needs a
 * huge page; a hole that is filled in part.
 */
#include <sys/uio.h>

#include "hmm_ref_large.h"

#define FAIL_LARGE	"/sys/kernel/debug/hmm_ref/fail_large/"
#define FAIL_HANDOUT	"/sys/kernel/debug/hmm_ref/fail_handout/"
#define FAIL_PAGE	"/sys/kernel/debug/hmm_ref/fail_page/"

/* From now on, no large page can be allocated. */
#define test_no_large_from_now()	ASSERT_EQ(0, attr_arm(FAIL_LARGE, 0, -1))

FIXTURE(scarce)
{
	struct leak_check leak;
	unsigned long pages;
	int fd;
	char *mem;
};

FIXTURE_SETUP(scarce)
{
	const char *why_not;

	if (access(FAIL_LARGE "probability", F_OK))
		SKIP(return, "no " FAIL_LARGE ": CONFIG_FAULT_INJECTION_DEBUG_FS");
	leak_check_begin(_metadata, &self->leak);
	self->fd = test_open(0);
	self->pages = block_pages();
	self->mem = test_map_blocks(1);
	why_not = map_huge(self->fd, self->mem);
	if (why_not)
		SKIP(return, "%s", why_not);
}

FIXTURE_TEARDOWN_PARENT(scarce)
{
	if (access(FAIL_LARGE "probability", F_OK))
		return;
	EXPECT_EQ(0, attr_disarm(FAIL_LARGE));
	EXPECT_EQ(0, attr_disarm(FAIL_HANDOUT));
	EXPECT_EQ(0, attr_disarm(FAIL_PAGE));
	device_bind(0);
	leak_check_end(_metadata, &self->leak);
}

/* Makes the memory a huge page again. Returns false when none can be allocated. */
static bool refill(int fd, char *mem)
{
	return !madvise(mem, block_size(), MADV_DONTNEED) && !map_huge(fd, mem);
}

/* The huge page stays in system memory: it is not split because the device lacks free blocks. */
TEST_F(scarce, to_device)
{
	struct hmm_ref_migrate cmd;

	test_no_large_from_now();
	test_err_migrate(ENOMEM, self->fd, HMM_REF_TO_DEVICE, self->mem, block_size(), &cmd);
	EXPECT_EQ(self->pages, cmd.out_skipped);
	test_block(HMM_REF_PAGE_SYSTEM, HUGE_ORDER);
	test_dev_data(self->fd, self->mem, self->pages, 1);
	test_cpu_data(self->mem, self->pages, 1);
}

TEST_F(scarce, for_a_hole)
{
	ASSERT_EQ(0, madvise(self->mem, block_size(), MADV_DONTNEED));
	test_no_large_from_now();
	test_one_migrate(HMM_REF_TO_DEVICE);
	test_block(HMM_REF_PAGE_DEVICE, 0);
	ASSERT_TRUE(page_is_zero(self->mem + 5 * page_size()));
}

/*
 * The pages of a hole are in two blocks. The first time, the second block fails, as if reserved
 * pages had been retired, and no page is filled. The second time, all pages are filled.
 */
TEST_F(scarce, too_few_for_a_hole)
{
	char *mem = test_map_pages(1);
	struct hmm_ref_audit audit;

	close(self->fd);
	ASSERT_EQ(0, device_unbind(0));
	ASSERT_EQ(0, device_bind(0));
	self->fd = test_open(0);
	fill_pages(mem, 1, 1);
	test_to_device(self->fd, mem, 1);
	ASSERT_EQ(0, madvise(self->mem, block_size(), MADV_DONTNEED));
	test_no_large_from_now();
	ASSERT_EQ(0, attr_arm(FAIL_HANDOUT, 1, 1));
	test_one_migrate(HMM_REF_TO_DEVICE);
	test_block(HMM_REF_PAGE_DEVICE, 0);
	for (unsigned long i = 0; i < self->pages; i++)
		ASSERT_TRUE(page_is_zero(self->mem + i * page_size()));
	test_audit(self->fd, &audit);
	ASSERT_EQ(0, audit.out_violations);
	test_cpu_data(mem, 1, 1);
}

TEST_F(scarce, to_system)
{
	test_one_migrate(HMM_REF_TO_DEVICE);
	test_no_large_from_now();
	test_one_migrate(HMM_REF_TO_SYSTEM);
	test_block(HMM_REF_PAGE_SYSTEM, 0);
	test_cpu_data(self->mem, self->pages, 1);
}

/* A child maps the same folio: it stays whole, or is split for both processes. */
struct sharer {
	char *mem;
	int go;
};

static int look_then_write(void *arg)
{
	struct sharer *sharer = arg;

	if (!CHECK(event_wait(sharer->go)) || !CHECK(!bad_pages(sharer->mem, block_pages(), 1)))
		return 1;
	fill_pages(sharer->mem, block_pages(), 2);
	return !CHECK(!bad_pages(sharer->mem, block_pages(), 2));
}

static void __test_shared(struct __test_metadata *_metadata, int fd, char *mem,
			  unsigned int direction)
{
	struct sharer sharer = { .mem = mem, .go = event_new() };
	pid_t pid = child_start(look_then_write, &sharer);
	struct hmm_ref_migrate cmd;

	ASSERT_EQ(0, attr_arm(FAIL_LARGE, 0, -1));
	ASSERT_EQ(direction == HMM_REF_TO_DEVICE ? -ENOMEM : 0,
		  _test_migrate(fd, direction, mem, block_size(), &cmd));
	event_post(sharer.go);
	ASSERT_EQ(0, child_wait(pid, PATIENCE_MS));
	test_cpu_data(mem, block_pages(), 1);
}

TEST_F(scarce, to_device_shared)
{
	__test_shared(_metadata, self->fd, self->mem, HMM_REF_TO_DEVICE);
}

TEST_F(scarce, to_system_shared)
{
	test_one_migrate(HMM_REF_TO_DEVICE);
	__test_shared(_metadata, self->fd, self->mem, HMM_REF_TO_SYSTEM);
}

/* Another thread drops the pages and faults in new ones meanwhile. */
static int discard_all(void *arg)
{
	struct sharer *sharer = arg;

	while (!__atomic_load_n(&sharer->go, __ATOMIC_RELAXED)) {
		if (!CHECK(!madvise(sharer->mem, block_size(), MADV_DONTNEED)))
			return 1;
		sharer->mem[block_size() / 2] = 1;
		usleep(500);
	}
	return 0;
}

TEST_F(scarce, to_device_while_discarded)
{
	unsigned long long end = now_ms() + 1000 * env_number("HMM_REF_SECONDS", 3);
	struct sharer sharer = { .mem = self->mem };
	unsigned long there = 0, rounds;
	struct hmm_ref_migrate cmd;
	struct worker worker;

	ASSERT_EQ(0, worker_start(&worker, discard_all, &sharer));
	for (rounds = 0; now_ms() < end; rounds++) {
		test_migrate(self->fd, HMM_REF_TO_DEVICE, self->mem, block_size(), &cmd);
		there += cmd.out_migrated;
	}
	__atomic_store_n(&sharer.go, 1, __ATOMIC_RELAXED);
	ASSERT_EQ(0, worker_wait(&worker));
	TH_LOG("%lu rounds, %lu pages", rounds, there);
	EXPECT_LT(0, there);
	fill_pages(self->mem, self->pages, 1);
	test_dev_data(self->fd, self->mem, self->pages, 1);
	test_to_system(self->fd, self->mem, self->pages);
	test_cpu_data(self->mem, self->pages, 1);
}

TEST_F(scarce, for_cpu_fault)
{
	test_one_migrate(HMM_REF_TO_DEVICE);
	test_no_large_from_now();
	touch_read(self->mem + 77 * page_size());
	test_cpu_data(self->mem, self->pages, 1);
}

/* One fault is enough, at any address in the huge page. */
TEST_F(scarce, for_cpu_fault_at_once)
{
	const unsigned long pages[] = { 0, 77, self->pages - 1 };
	struct hmm_ref_stats before, after;
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(pages); i++) {
		if (!refill(self->fd, self->mem))
			SKIP(return, "no huge page can be allocated");
		test_one_migrate(HMM_REF_TO_DEVICE);
		test_block(HMM_REF_PAGE_DEVICE, HUGE_ORDER);
		test_no_large_from_now();
		test_stats(self->fd, &before);
		touch_read(self->mem + pages[i] * page_size());
		test_stats(self->fd, &after);
		EXPECT_EQ(1, after.out_cpu_faults - before.out_cpu_faults);
		EXPECT_LE(1, after.out_fault_pages - before.out_fault_pages);
		test_cpu_data(self->mem, self->pages, 1);
		ASSERT_EQ(0, attr_disarm(FAIL_LARGE));
	}
}

/* A child maps the folio by a PMD of its own, which has to be split as well. */
TEST_F(scarce, for_cpu_fault_of_a_shared_folio)
{
	struct sharer sharer = { .mem = self->mem, .go = event_new() };
	pid_t pid;

	test_one_migrate(HMM_REF_TO_DEVICE);
	pid = child_start(look_then_write, &sharer);
	test_no_large_from_now();
	touch_read(self->mem + 77 * page_size());
	event_post(sharer.go);
	ASSERT_EQ(0, child_wait(pid, PATIENCE_MS));
	test_cpu_data(self->mem, self->pages, 1);
}

/*
 * A fault on a part migrates its neighbours, except the first page of the folio, for which there is
 * no memory. That page is not left locked.
 */
TEST_F(scarce, neighbour_of_a_split_fault)
{
	unsigned long half = self->pages / 2;
	struct hmm_ref_stats before, after;

	test_go_through_memory(self->fd);
	test_one_migrate(HMM_REF_TO_DEVICE);
	ASSERT_EQ(0, munmap(self->mem + half * page_size(), half * page_size()));
	test_stats(self->fd, &before);
	ASSERT_EQ(0, attr_arm(FAIL_PAGE, 0, 1));
	touch_read(self->mem + page_size());
	ASSERT_EQ(0, attr_disarm(FAIL_PAGE));
	test_stats(self->fd, &after);
	EXPECT_EQ(1, after.out_cpu_faults - before.out_cpu_faults);
	EXPECT_LT(1, after.out_fault_pages - before.out_fault_pages);
	EXPECT_EQ(1, pages_at(self->fd, self->mem, 2, HMM_REF_PAGE_DEVICE));
	test_cpu_data(self->mem, half, 1);
}

/* Many threads touch the folio at the same time. Each holds the folio's lock at some time. */
static int touch_all(void *arg)
{
	char *mem = arg;
	unsigned long i;

	for (i = 0; i < block_pages(); i++)
		touch_read(mem + i * page_size());
	return 0;
}

TEST_F(scarce, for_many_cpu_faults)
{
	struct worker workers[8];
	unsigned int i, round;

	for (round = 0; round < 5; round++) {
		if (!refill(self->fd, self->mem))
			SKIP(return, "no huge page can be allocated");
		test_to_device(self->fd, self->mem, self->pages);
		test_no_large_from_now();
		for (i = 0; i < ARRAY_SIZE(workers); i++)
			ASSERT_EQ(0, worker_start(&workers[i], touch_all, self->mem));
		for (i = 0; i < ARRAY_SIZE(workers); i++)
			ASSERT_EQ(0, worker_wait(&workers[i]));
		ASSERT_EQ(0, attr_disarm(FAIL_LARGE));
		test_cpu_data(self->mem, self->pages, 1);
	}
}

/*
 * Many huge pages at the same time, each touched by a thread of its own: all of them migrate to
 * system memory.
 */
TEST_F(scarce, for_many_huge_pages)
{
	struct worker workers[8];
	unsigned long nr = ARRAY_SIZE(workers), i;
	char *mem = test_map_blocks(nr);

	ASSERT_EQ(0, madvise(mem, nr * block_size(), MADV_HUGEPAGE));
	fill_pages(mem, nr * block_pages(), 1);
	test_to_device(self->fd, mem, nr * block_pages());
	test_no_large_from_now();
	for (i = 0; i < nr; i++)
		ASSERT_EQ(0, worker_start(&workers[i], touch_all, mem + i * block_size()));
	for (i = 0; i < nr; i++)
		ASSERT_EQ(0, worker_wait(&workers[i]));
	test_cpu_data(mem, nr * block_pages(), 1);
}

/*
 * The kernel faults for a system call, or for another device, while other threads change the
 * address space.
 */
struct mapper {
	int stop;
	unsigned long rounds;
};

static int map_and_unmap(void *arg)
{
	struct mapper *mapper = arg;

	while (!__atomic_load_n(&mapper->stop, __ATOMIC_RELAXED)) {
		void *mem = map_pages(1);

		if (!CHECK(mem != MAP_FAILED) || !CHECK(!munmap(mem, page_size())))
			return 1;
		counter_add(&mapper->rounds, 1);
	}
	return 0;
}

TEST_F(scarce, for_faults_in_the_kernel)
{
	struct mapper mapper = {};
	struct worker worker;
	char *buf = test_map_blocks(1);
	struct iovec to = { buf, block_size() }, from = { self->mem, block_size() };
	int other = hmm_ref_count() > 1 ? test_open(1) : -1;
	unsigned int round;

	ASSERT_EQ(0, worker_start(&worker, map_and_unmap, &mapper));
	for (round = 0; round < 12; round++) {
		if (!refill(self->fd, self->mem))
			SKIP(return, "no huge page can be allocated");
		test_to_device(self->fd, self->mem, self->pages);
		test_no_large_from_now();
		if (round % 2 && other >= 0) {
			test_read(other, self->mem, block_size(), buf);
		} else {
			ASSERT_EQ(block_size(), process_vm_readv(getpid(), &to, 1,
								 &from, 1, 0));
		}
		ASSERT_EQ(0, attr_disarm(FAIL_LARGE));
		ASSERT_EQ(0, bad_pages(buf, self->pages, 1));
	}
	__atomic_store_n(&mapper.stop, 1, __ATOMIC_RELAXED);
	ASSERT_EQ(0, worker_wait(&worker));
	ASSERT_LT(0, mapper.rounds);
	test_cpu_data(self->mem, self->pages, 1);
}

/* Two processes map the folio. */
static int read_all(void *arg)
{
	return !CHECK(!bad_pages(arg, block_pages(), 1));
}

TEST_F(scarce, for_cpu_fault_of_a_child)
{
	test_one_migrate(HMM_REF_TO_DEVICE);
	test_no_large_from_now();
	ASSERT_EQ(0, child_run(read_all, self->mem));
	test_cpu_data(self->mem, self->pages, 1);
}

TEST_F(scarce, for_eviction)
{
	test_one_migrate(HMM_REF_TO_DEVICE);
	test_no_large_from_now();
	close(self->fd);
	ASSERT_EQ(0, device_unbind(0));
	test_cpu_data(self->mem, self->pages, 1);
}

/* The process that migrated the folio has exited, and its mm is gone. */
struct orphan {
	char *mem;
	int ready;
	int go;
};

static int orphan_main(void *arg)
{
	struct orphan *orphan = arg;

	event_post(orphan->ready);
	if (!CHECK(event_wait(orphan->go)))
		return 1;
	return read_all(orphan->mem);
}

static int parent_main(void *arg)
{
	struct orphan *orphan = arg;
	int fd = hmm_ref_open(0);
	struct hmm_ref_migrate cmd;
	pid_t pid;

	if (!CHECK(fd >= 0))
		return 1;
	if (!CHECK(!_test_migrate(fd, HMM_REF_TO_DEVICE, orphan->mem, block_size(),
				  &cmd)))
		return 1;
	pid = fork();
	if (!pid)
		_exit(orphan_main(orphan));
	return !CHECK(pid > 0) || !CHECK(event_wait(orphan->ready));
}

TEST_F(scarce, for_eviction_of_an_orphan)
{
	struct orphan orphan = {
		.mem = self->mem,
		.ready = event_new(),
		.go = event_new(),
	};

	int status;

	ASSERT_EQ(0, prctl(PR_SET_CHILD_SUBREAPER, 1));
	ASSERT_EQ(0, child_run(parent_main, &orphan));
	munmap(self->mem, block_size());
	close(self->fd);
	test_no_large_from_now();
	ASSERT_EQ(0, device_unbind(0));
	event_post(orphan.go);
	ASSERT_LT(0, waitpid(-1, &status, 0));
	ASSERT_EQ(0, status);
}

int main(int argc, char **argv)
{
	return hmm_ref_test_main(argc, argv);
}
