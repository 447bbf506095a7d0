// SPDX-License-Identifier: GPL-2.0-only
/*
 * Coherent devices: memory that the device and the CPU both access in place.
 *
 * Covers: a second mapping of the coherent region when it is full; page counts that go wrong
 * because the last reference is dropped in an interrupt; pages that a long-term pin would keep on
 * the device.
 *
 * Needs the module's parameter coherent=ADDRESS and memory reserved there.
 */
#include <fcntl.h>
#include <sys/uio.h>

#include "hmm_ref_old.h"
#include "hmm_ref_utils.h"

#define PAGES	32UL

FIXTURE(coherent)
{
	struct leak_check leak;
	struct hmm_ref_info info;
	unsigned int nr;
	int fd;
	char *mem;
};

/* Opens the first coherent device. Returns its file, or -ENODEV. */
static int open_coherent(unsigned int *nr, struct hmm_ref_info *info)
{
	unsigned int count = hmm_ref_count();
	int fd;

	for (*nr = 0; *nr < count; (*nr)++) {
		fd = hmm_ref_open(*nr);
		if (fd < 0)
			continue;
		if (!_test_info(fd, info) &&
		    info->out_memory_type == HMM_REF_MEMORY_COHERENT)
			return fd;
		close(fd);
	}
	return -ENODEV;
}

FIXTURE_SETUP(coherent)
{
	leak_check_begin(_metadata, &self->leak);
	self->fd = open_coherent(&self->nr, &self->info);
	if (self->fd < 0)
		SKIP(return, "no coherent device (module parameter coherent)");
	self->mem = test_map_pages(PAGES);
	fill_pages(self->mem, PAGES, 1);
}

FIXTURE_TEARDOWN_PARENT(coherent)
{
	if (self->fd < 0)
		return;
	leak_check_end(_metadata, &self->leak);
}

/* Pages move only by migration: all are still on the device. */
#define test_still_there() \
	test_pages_at(self->fd, self->mem, PAGES, HMM_REF_PAGE_DEVICE, PAGES)

TEST_F(coherent, both_access_in_place)
{
	struct hmm_ref_stats before, after;

	test_to_device(self->fd, self->mem, PAGES);
	test_stats(self->fd, &before);
	ASSERT_EQ(PAGES, before.out_pages_client);
	test_cpu_data(self->mem, PAGES, 1);
	test_dev_data(self->fd, self->mem, PAGES, 1);
	fill_pages(self->mem, PAGES, 2);
	test_dev_data(self->fd, self->mem, PAGES, 2);
	ASSERT_EQ(0, dev_fill_pages(self->fd, self->mem, PAGES, 3));
	test_cpu_data(self->mem, PAGES, 3);
	test_still_there();
	test_stats(self->fd, &after);
	ASSERT_EQ(before.out_cpu_faults, after.out_cpu_faults);

	test_to_system(self->fd, self->mem, PAGES);
	test_cpu_data(self->mem, PAGES, 3);
	test_stats(self->fd, &after);
	ASSERT_EQ(0, after.out_pages_client);
}

TEST_F(coherent, holes)
{
	ASSERT_EQ(0, dev_fill_pages(self->fd, self->mem, PAGES, 4));
	test_to_device(self->fd, self->mem, PAGES);
	ASSERT_EQ(0, madvise(self->mem, PAGES * page_size(), MADV_DONTNEED));
	test_to_device(self->fd, self->mem, PAGES);
	for (unsigned long i = 0; i < PAGES; i++)
		ASSERT_TRUE(page_is_zero(self->mem + i * page_size()));
	test_still_there();
}

/* Order 0 only: the core splits huge pages that migrate. */
TEST_F(coherent, huge_page)
{
	unsigned long n = block_pages();
	char *mem = test_map_blocks(1);

	madvise(mem, block_size(), MADV_HUGEPAGE);
	fill_pages(mem, n, 5);
	test_to_device(self->fd, mem, n);
	test_dev_data(self->fd, mem, n, 5);
	test_cpu_data(mem, n, 5);
	test_pages_at(self->fd, mem, n, HMM_REF_PAGE_DEVICE, n);
	test_to_system(self->fd, mem, n);
	test_cpu_data(mem, n, 5);
}

static int child_writes(void *arg)
{
	if (!CHECK(!bad_pages(arg, PAGES, 1)))
		return 1;
	fill_pages(arg, PAGES, 6);
	return !CHECK(!bad_pages(arg, PAGES, 6));
}

TEST_F(coherent, fork)
{
	test_to_device(self->fd, self->mem, PAGES);
	ASSERT_EQ(0, child_run(child_writes, self->mem));
	test_cpu_data(self->mem, PAGES, 1);
	test_dev_data(self->fd, self->mem, PAGES, 1);
	ASSERT_EQ(0, dev_fill_pages(self->fd, self->mem, PAGES, 7));
	test_cpu_data(self->mem, PAGES, 7);
}

/* Other devices, private and coherent, see the pages as remote, and do not move them. */
TEST_F(coherent, another_device)
{
	struct hmm_ref_migrate cmd;
	unsigned int nr;
	int other;

	for (nr = 0; nr < self->leak.devices; nr++) {
		if (nr == self->nr)
			continue;
		other = test_open(nr);
		fill_pages(self->mem, PAGES, 1);
		test_to_device(self->fd, self->mem, PAGES);
		test_pages_at(other, self->mem, PAGES, HMM_REF_PAGE_REMOTE, PAGES);
		test_migrate(other, HMM_REF_TO_SYSTEM, self->mem, PAGES * page_size(),
			     &cmd);
		ASSERT_EQ(PAGES, cmd.out_already);
		test_dev_data(other, self->mem, PAGES, 1);
		ASSERT_EQ(0, dev_fill_pages(other, self->mem, PAGES, 8));
		test_cpu_data(self->mem, PAGES, 8);
		test_still_there();
		close(other);
	}
}

TEST_F(coherent, unbind)
{
	test_to_device(self->fd, self->mem, PAGES);
	close(self->fd);
	ASSERT_EQ(0, device_unbind(self->nr));
	test_cpu_data(self->mem, PAGES, 1);
	ASSERT_EQ(0, device_bind(self->nr));
	self->fd = test_open(self->nr);
	test_to_device(self->fd, self->mem, PAGES);
	test_dev_data(self->fd, self->mem, PAGES, 1);
}

/* With more data than the device holds, the oldest pages are evicted and no data is lost. */
TEST_F(coherent, half_as_much_again)
{
	unsigned long nblocks = self->info.out_capacity / block_size();
	unsigned long n = (nblocks + nblocks / 2) * block_pages();
	struct hmm_ref_stats stats;
	char *mem;

	mem = test_map_blocks(nblocks + nblocks / 2);
	fill_pages(mem, n, 9);
	for (unsigned long i = 0; i < n; i += block_pages())
		test_to_device(self->fd, mem + i * page_size(), block_pages());
	test_stats(self->fd, &stats);
	ASSERT_EQ(1, stats.out_chunks);
	ASSERT_LE(stats.out_pages_in_use,
		  self->info.out_capacity / page_size());
	test_cpu_data(mem, n, 9);
	test_dev_data(self->fd, mem, n, 9);
}

/* A direct read or write drops its references when it completes. */
TEST_F(coherent, direct_io)
{
	unsigned long size = PAGES * page_size();
	int disk = open(DISK, O_RDWR | O_DIRECT);

	if (disk < 0)
		SKIP(return, "no " DISK " (CONFIG_BLK_DEV_RAM)");
	test_to_device(self->fd, self->mem, PAGES);
	ASSERT_EQ(size, pwrite(disk, self->mem, size, DISK_START));
	fill_pages(self->mem, PAGES, 2);
	ASSERT_EQ(size, pread(disk, self->mem, size, DISK_START));
	test_cpu_data(self->mem, PAGES, 1);
	test_still_there();
	test_to_system(self->fd, self->mem, PAGES);
	close(disk);
}

/* A pipe holds references to the pages, so they stay on the device until it is closed. */
TEST_F(coherent, pinned_by_a_pipe)
{
	struct iovec iov = { self->mem, 4 * page_size() };
	char *buf = malloc(4 * page_size());
	struct hmm_ref_migrate cmd;
	int pipes[2];

	ASSERT_NE(NULL, buf);
	ASSERT_EQ(0, pipe(pipes));
	test_to_device(self->fd, self->mem, PAGES);
	ASSERT_EQ(4 * page_size(), vmsplice(pipes[1], &iov, 1, 0));
	test_migrate(self->fd, HMM_REF_TO_SYSTEM, self->mem, PAGES * page_size(), &cmd);
	ASSERT_EQ(PAGES - 4, cmd.out_migrated);
	ASSERT_EQ(4, cmd.out_skipped);
	ASSERT_EQ(4 * page_size(), read(pipes[0], buf, 4 * page_size()));
	ASSERT_EQ(0, memcmp(buf, self->mem, 4 * page_size()));
	close(pipes[0]);
	close(pipes[1]);
	test_to_system(self->fd, self->mem, PAGES);
	test_cpu_data(self->mem, PAGES, 1);
	free(buf);
}

/*
 * The system does not sleep then, since the pages would lose their data. Other devices lose
 * nothing.
 */
TEST_F(coherent, awake_for_a_pipe)
{
	struct iovec iov = { self->mem, page_size() };
	char *buf = malloc(page_size());
	char *other = test_map_pages(PAGES);
	int pipes[2], fd = hmm_ref_open(0);

	if (!can_sleep())
		SKIP(return, "no /sys/power/pm_test (CONFIG_SUSPEND, CONFIG_PM_DEBUG)");
	ASSERT_NE(NULL, buf);
	ASSERT_EQ(0, pipe(pipes));
	test_to_device(self->fd, self->mem, PAGES);
	ASSERT_EQ(page_size(), vmsplice(pipes[1], &iov, 1, 0));
	ASSERT_LE(0, fd);
	fill_pages(other, PAGES, 2);
	ASSERT_EQ(-EBUSY, system_sleep());
	test_pages_at(self->fd, self->mem, PAGES, HMM_REF_PAGE_DEVICE, 1);
	/* Devices that were suspended before the one that refused take pages again. */
	test_to_device(fd, other, PAGES);
	test_dev_data(fd, other, PAGES, 2);
	close(fd);
	test_dev_data(self->fd, self->mem, PAGES, 1);
	test_to_device(self->fd, self->mem, PAGES);
	ASSERT_EQ(page_size(), read(pipes[0], buf, page_size()));
	ASSERT_EQ(0, memcmp(buf, self->mem, page_size()));
	ASSERT_EQ(0, system_sleep());
	test_cpu_data(self->mem, PAGES, 1);
	close(pipes[0]);
	close(pipes[1]);
	free(buf);
}

static int read_later(void *arg)
{
	char *buf = malloc(page_size());
	int *pipes = arg;

	sleep(1);
	return !CHECK(buf) || !CHECK(read(pipes[0], buf, page_size()) == (ssize_t)page_size());
}

/* If a process drops its references, the system sleeps: processes run until all pages have left. */
TEST_F(coherent, asleep_with_a_reader)
{
	struct iovec iov = { self->mem, page_size() };
	int pipes[2];
	pid_t pid;

	if (!can_sleep())
		SKIP(return, "no /sys/power/pm_test (CONFIG_SUSPEND, CONFIG_PM_DEBUG)");
	ASSERT_EQ(0, pipe(pipes));
	test_to_device(self->fd, self->mem, PAGES);
	ASSERT_EQ(page_size(), vmsplice(pipes[1], &iov, 1, 0));
	pid = child_start(read_later, pipes);
	ASSERT_LT(0, pid);
	ASSERT_EQ(0, system_sleep());
	ASSERT_EQ(0, child_wait(pid, MEET_MS));
	test_cpu_data(self->mem, PAGES, 1);
	close(pipes[0]);
	close(pipes[1]);
}

/* The CPU's entry of an exclusive page is not present, so migration by address does not find it. */
TEST_F(coherent, evicted_while_exclusive)
{
	struct hmm_ref_exclusive exclusive;
	struct hmm_ref_stats stats;
	int old = old_open(self->nr);
	int other;

	if (kernel_before(6, 15))
		SKIP(return, "before 6.15 exclusive pages have no rmap");
	if (old < 0)
		SKIP(return, "no /dev/hmm_dmirror%u", self->nr);
	other = hmm_ref_open(!self->nr);
	ASSERT_LE(0, other);
	test_to_device(self->fd, self->mem, PAGES);
	ASSERT_EQ(0, _test_exclusive(other, self->mem, PAGES * page_size(), &exclusive));
	EXPECT_EQ(PAGES, exclusive.out_pages);
	/* From now on the CPU cannot touch all of them, either. */
	ASSERT_EQ(0, mprotect(self->mem, PAGES / 2 * page_size(), PROT_NONE));
	EXPECT_EQ(0, old_release(old));
	test_stats(self->fd, &stats);
	EXPECT_EQ(0, stats.out_pages_in_use);
	ASSERT_EQ(0, mprotect(self->mem, PAGES / 2 * page_size(), PROT_READ));
	test_cpu_data(self->mem, PAGES, 1);
	close(other);
	close(old);
}

/* ---- races with migration -------------------------------------------------------- */

struct pull {
	int fd;
	char *mem;
	unsigned long turn;	/* rounds that have begun */
	unsigned long done;	/* rounds in which the pages were moved */
	unsigned long stop;
};

/* Migrates the pages to the device, once per round. */
static int pull_main(void *arg)
{
	struct pull *pull = arg;
	unsigned int random = random_seed("HMM_REF_SEED");
	struct hmm_ref_migrate cmd;
	unsigned long turn, spin;

	run_on_cpu(1);
	while (!counter_get(&pull->stop)) {
		turn = counter_get(&pull->turn);
		if (turn == counter_get(&pull->done))
			continue;
		for (spin = random_next(&random) % 40000; spin; spin--)
			__asm__ volatile("" ::: "memory");
		if (!CHECK(!_test_migrate(pull->fd, HMM_REF_TO_DEVICE, pull->mem,
					  PAGES * page_size(), &cmd)))
			return 1;
		counter_set(&pull->done, turn);
	}
	return 0;
}

/*
 * The core returns pages of a coherent device like pages of system memory. A page that moves to the
 * device between the fault and make_device_exclusive() is mapped as exclusive: the device page and
 * the page that the driver maps are the same.
 */
TEST_F(coherent, migrated_before_exclusive)
{
	unsigned long long end = now_ms() + 1000 * env_number("HMM_REF_SECONDS", 2);
	unsigned long long deadline = end + MEET_MS;
	struct pull pull = { .fd = test_open(self->nr), .mem = self->mem };
	struct hmm_ref_stats before, stats;
	struct hmm_ref_exclusive cmd;
	unsigned long moved = 0;
	struct worker worker;

	test_stats(self->fd, &before);
	ASSERT_EQ(0, worker_start(&worker, pull_main, &pull));
	run_on_cpu(0);
	do {
		test_to_system(self->fd, self->mem, PAGES);
		counter_add(&pull.turn, 1);
		ASSERT_EQ(0, _test_exclusive(self->fd, self->mem, PAGES * page_size(),
					     &cmd));
		while (counter_get(&pull.done) != pull.turn &&
		       now_ms() < deadline + PATIENCE_MS)
			usleep(100);
		ASSERT_EQ(pull.turn, counter_get(&pull.done));
		test_stats(self->fd, &stats);
		test_pages_at(self->fd, self->mem, PAGES, HMM_REF_PAGE_DEVICE,
			      stats.out_pages_in_use);
		moved += stats.out_pages_in_use;
		test_cpu_data(self->mem, PAGES, 1);
	} while (now_ms() < end || ((!moved || stats.out_retries == before.out_retries) &&
		 now_ms() < deadline));
	counter_set(&pull.stop, 1);
	ASSERT_EQ(0, worker_wait(&worker));
	TH_LOG("%lu rounds: %lu pages moved, %llu attempts repeated", pull.turn, moved,
	       stats.out_retries - before.out_retries);
	EXPECT_LT(0, moved);
	EXPECT_LT(before.out_retries, stats.out_retries);
}

int main(int argc, char **argv)
{
	return hmm_ref_test_main(argc, argv);
}
