// SPDX-License-Identifier: GPL-2.0-only
/*
 * The system takes memory back: unused chunks, through the shrinker, and the memory of a dying
 * process, through the OOM reaper, whose notifications may not sleep.
 *
 * Covers: memory that is freed under used pages; a page in a new chunk that shows old data; a page
 * that is allocated from a chunk that is being freed; a shrinker that reports progress without
 * freeing memory; a reaper that the driver blocks.
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

static long memory(int fd)
{
	struct hmm_ref_stats stats;
	int rc = _test_stats(fd, &stats);

	return rc ? rc : (long)stats.out_storage_pages;
}

/*
 * The shrinker only queues the work, which takes a moment. Returns the pages that the device still
 * has.
 */
static long shrink_all(int fd)
{
	unsigned long long end = now_ms() + PATIENCE_MS;

	while (memory(fd) > 0 && now_ms() < end) {
		if (shrink())
			return -1;
		usleep(1000);
	}
	return memory(fd);
}

/* Idle chunks are freed with their struct pages, and are allocated again. */
TEST_F(reclaim, idle_chunks_are_freed)
{
	unsigned long memmap = vm_counter("nr_memmap");
	long npages = self->npages;

	test_to_device(self->fd, self->mem, npages);
	ASSERT_LE(npages, memory(self->fd));
	if (memmap)
		EXPECT_LE(memmap, vm_counter("nr_memmap"));
	memmap = vm_counter("nr_memmap");
	test_to_system(self->fd, self->mem, npages);
	EXPECT_EQ(0, shrink_all(self->fd));
	if (memmap)
		EXPECT_GT(memmap, vm_counter("nr_memmap"));
	test_cpu_data(self->mem, npages, 1);

	test_to_device(self->fd, self->mem, npages);
	EXPECT_LE(npages, memory(self->fd));
	test_dev_data(self->fd, self->mem, npages, 1);
	audit_check(_metadata, self->fd);
}

/* Holes get memory that has been used before: the device sees zeros. */
TEST_F(reclaim, new_memory_is_clear)
{
	unsigned long npages = self->npages, i;
	char *holes = test_map_blocks(BLOCKS);
	char *buf = test_map_pages(1);

	test_to_device(self->fd, self->mem, npages);
	test_to_system(self->fd, self->mem, npages);
	EXPECT_EQ(0, shrink_all(self->fd));
	test_to_device(self->fd, holes, npages);
	for (i = 0; i < npages; i += 61) {
		test_read(self->fd, holes + i * page_size(), page_size(), buf);
		ASSERT_TRUE(page_is_zero(buf)) TH_LOG("page %lu", i);
	}
}

/*
 * A chunk with one used page stays, even if that is the rest of a large folio. When the chunks of
 * the other device are gone, the shrinker has queued this one, too.
 */
TEST_F(reclaim, used_chunk_stays)
{
	unsigned long npages = self->npages, i;
	char *buf = test_map_pages(1);
	char *other = test_map_pages(8);
	int fd = test_open(1);

	fill_pages(other, 8, 2);
	test_to_device(self->fd, self->mem, npages);
	test_to_device(fd, other, 8);
	for (i = 0; i < BLOCKS; i++)
		ASSERT_EQ(0, munmap(self->mem + i * block_size() + page_size(),
				    block_size() - page_size()));
	test_to_system(fd, other, 8);
	EXPECT_EQ(0, shrink_all(fd));
	EXPECT_LE(npages, memory(self->fd));
	for (i = 0; i < BLOCKS; i++) {
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

/* The shrinker runs while migrations allocate from the same chunk. */
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
		test_cpu_data(self->mem, npages, 1);
		met += memory(self->fd) < (long)npages;
	}
	counter_set(&stop, 1);
	EXPECT_EQ(0, worker_wait(&shrinker));
	EXPECT_LT(0, met);
}

/* ---- reaper ---------------------------------------------------------------------- */

#ifndef SYS_process_mrelease
#define SYS_process_mrelease	448
#endif

/* Has pages on the device and a device mapping of them, and exits under its tracer. */
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
 * The child stops during its exit, with its memory still mapped. The reaper then unmaps the
 * device's pages, too.
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
