// SPDX-License-Identifier: GPL-2.0-only
/*
 * The system takes memory back: the storage of idle blocks by the shrinker, and the
 * memory of a process that dies by the OOM reaper, whose notifications may not sleep.
 *
 * Stands for: storage that is freed under pages in use; a page whose storage came anew
 * and shows what somebody else left; a reaper that the driver holds up.
 */
#include <sys/ptrace.h>

#include "hmm_ref_utils.h"

#define SLAB_CACHES	"/proc/sys/vm/drop_caches"
#define BLOCKS		3UL
#define RACE_MS		2000

FIXTURE(reclaim)
{
	struct leak_check leak;
	unsigned long npages;
	int fd;
	char *mem;
};

FIXTURE_SETUP(reclaim)
{
	if (access(SLAB_CACHES, W_OK))
		SKIP(return, "no " SLAB_CACHES);
	leak_check_begin(_metadata, &self->leak);
	self->fd = test_open(0);
	self->npages = BLOCKS * block_pages();
	self->mem = test_map_blocks(BLOCKS);
	fill_pages(self->mem, self->npages, 1);
}

FIXTURE_TEARDOWN_PARENT(reclaim)
{
	leak_check_end(_metadata, &self->leak);
}

static int shrink(void)
{
	return write_file(SLAB_CACHES, "2");
}

static long storage(int fd)
{
	struct hmm_ref_stats stats;
	int rc = _test_stats(fd, &stats);

	return rc ? rc : (long)stats.out_storage_pages;
}

/* Idle blocks lose their storage, and get new one that shows nothing old. */
TEST_F(reclaim, idle_storage_goes)
{
	long npages = self->npages;
	long before;

	test_to_device(self->fd, self->mem, npages);
	before = storage(self->fd);
	ASSERT_LE(npages, before);
	test_to_system(self->fd, self->mem, npages);
	ASSERT_EQ(0, shrink());
	EXPECT_GE(before - npages, storage(self->fd));
	test_cpu_data(self->mem, npages, 1);

	test_to_device(self->fd, self->mem, npages);
	EXPECT_LE(npages, storage(self->fd));
	test_dev_data(self->fd, self->mem, npages, 1);
	audit_check(_metadata, self->fd);
}

/* Holes get storage that others have used: the device sees zeros. */
TEST_F(reclaim, new_storage_is_clear)
{
	unsigned long npages = self->npages, i;
	char *holes = test_map_blocks(BLOCKS);
	char *buf = test_map_pages(1);

	test_to_device(self->fd, self->mem, npages);
	test_to_system(self->fd, self->mem, npages);
	ASSERT_EQ(0, shrink());
	test_to_device(self->fd, holes, npages);
	for (i = 0; i < npages; i += 61) {
		test_read(self->fd, holes + i * page_size(), page_size(), buf);
		ASSERT_TRUE(page_is_zero(buf)) TH_LOG("page %lu", i);
	}
}

/* A block with one page in use keeps its storage. */
TEST_F(reclaim, used_storage_stays)
{
	unsigned long npages = self->npages, i;

	test_to_device(self->fd, self->mem, npages);
	for (i = 0; i < BLOCKS; i++)
		ASSERT_EQ(0, munmap(self->mem + i * block_size() + page_size(),
				    block_size() - page_size()));
	ASSERT_EQ(0, shrink());
	EXPECT_LE(npages, storage(self->fd));
	for (i = 0; i < BLOCKS; i++) {
		char *buf = test_map_pages(1);

		test_read(self->fd, self->mem + i * block_size(), page_size(), buf);
		ASSERT_TRUE(page_holds(buf, 1, i * block_pages()));
	}
	audit_check(_metadata, self->fd);
}

static int shrink_for_long(void *arg)
{
	unsigned long *stop = arg;

	while (!counter_get(stop)) {
		if (!CHECK(!shrink()))
			return 1;
	}
	return 0;
}

/* The shrinker against migrations that want the same blocks. */
TEST_F(reclaim, while_migrating)
{
	unsigned long npages = self->npages;
	struct worker shrinker;
	unsigned long long end = now_ms() + RACE_MS;
	unsigned long stop = 0;
	long met = 0;

	ASSERT_EQ(0, worker_start(&shrinker, shrink_for_long, &stop));
	while (now_ms() < end || (!met && now_ms() < end + MEET_MS)) {
		test_to_device(self->fd, self->mem, npages);
		test_dev_data(self->fd, self->mem, npages, 1);
		test_to_system(self->fd, self->mem, npages);
		met += storage(self->fd) < (long)npages;
		test_cpu_data(self->mem, npages, 1);
	}
	counter_set(&stop, 1);
	EXPECT_EQ(0, worker_wait(&shrinker));
	EXPECT_LT(0, met);
}

/* ---- reaper ---------------------------------------------------------------------- */

#ifndef SYS_process_mrelease
#define SYS_process_mrelease	448
#endif

/* Has pages on the device and a device mapping of them, and dies under its tracer. */
static int die_slowly(void *arg)
{
	unsigned long npages = 2 * block_pages();
	struct hmm_ref_migrate cmd;
	int fd = hmm_ref_open(0);
	char *mem = map_blocks(2);

	if (!CHECK(fd >= 0) || !CHECK(mem != MAP_FAILED))
		return 1;
	fill_pages(mem, npages, 2);
	if (!CHECK(!_test_migrate_all(fd, HMM_REF_TO_DEVICE, mem, npages, &cmd)) ||
	    !CHECK(!dev_bad_pages(fd, mem, npages, 2)) ||
	    !CHECK(!ptrace(PTRACE_TRACEME, 0, NULL, NULL)) ||
	    !CHECK(!raise(SIGSTOP)))
		return 1;
	return 0;
}

static int wait_stopped(pid_t pid)
{
	int status;

	if (waitpid(pid, &status, 0) != pid)
		return -errno;
	return WIFSTOPPED(status) ? 0 : -ECHILD;
}

/*
 * The child stops on its way out, with its memory still there. What the reaper does to
 * it then takes the device's pages, too.
 */
TEST_F(reclaim, reaped)
{
	unsigned long in_use = self->leak.in_use[0];
	struct hmm_ref_stats stats;
	int pidfd, tries;
	pid_t pid;

	pid = child_start(die_slowly, NULL);
	ASSERT_LT(0, pid);
	ASSERT_EQ(0, wait_stopped(pid));
	ASSERT_EQ(0, ptrace(PTRACE_SETOPTIONS, pid, NULL,
			    PTRACE_O_TRACEEXIT | PTRACE_O_EXITKILL));
	ASSERT_EQ(0, ptrace(PTRACE_CONT, pid, NULL, NULL));
	ASSERT_EQ(0, wait_stopped(pid));
	test_stats(self->fd, &stats);
	ASSERT_EQ(in_use + 2 * block_pages(), stats.out_pages_in_use);

	pidfd = syscall(SYS_pidfd_open, pid, 0);
	ASSERT_LE(0, pidfd);
	for (tries = 0; tries < 100; tries++) {
		if (!syscall(SYS_process_mrelease, pidfd, 0))
			break;
		ASSERT_EQ(EAGAIN, errno);
		usleep(10000);
	}
	EXPECT_EQ(0, leak_wait(self->fd, in_use, &stats));
	audit_check(_metadata, self->fd);
	ASSERT_EQ(0, ptrace(PTRACE_CONT, pid, NULL, NULL));
	EXPECT_EQ(0, child_wait(pid, 10000));
}

int main(int argc, char **argv)
{
	return hmm_ref_test_main(argc, argv);
}
