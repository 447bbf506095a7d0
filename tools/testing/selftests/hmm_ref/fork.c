// SPDX-License-Identifier: GPL-2.0-only
/*
 * fork() with pages on the device: parent and child share them copy-on-write, and neither sees
 * writes of the other, by CPU or by device. A child may outlive the parent that migrated the pages.
 *
 * Covers: a device write through a page that is shared after fork (hmm_range_fault() reports the
 * device's own read-only page as success); a device page that refers to the file or the mm of a
 * parent that has exited; entries of the device page table that fork drops, and that are then
 * filled with pages that the CPU cannot copy from.
 */
#include <spawn.h>

#include "hmm_ref_utils.h"

#define PAGES	32UL

struct family {
	int fd;
	char *mem;
	unsigned int seed;	/* seed of the data that the child expects */
	int ready, go;		/* events */
	int depth;
};

FIXTURE(fork)
{
	struct leak_check leak;
	struct family family;
	int fd;
	char *mem;
};

FIXTURE_VARIANT(fork)
{
	bool system;	/* the pages are in system memory at fork */
};

FIXTURE_VARIANT_ADD(fork, on_device) { .system = false };
FIXTURE_VARIANT_ADD(fork, in_system) { .system = true };

FIXTURE_SETUP(fork)
{
	leak_check_begin(_metadata, &self->leak);
	self->fd = test_open(0);
	self->mem = test_map_pages(PAGES);
	fill_pages(self->mem, PAGES, 1);
	if (!variant->system)
		test_to_device(self->fd, self->mem, PAGES);
	self->family.fd = self->fd;
	self->family.mem = self->mem;
	self->family.seed = 1;
	self->family.ready = event_new();
	self->family.go = event_new();
}

FIXTURE_TEARDOWN_PARENT(fork)
{
	leak_check_end(_metadata, &self->leak);
}

static int child_reads(void *arg)
{
	struct family *family = arg;

	return !CHECK(!bad_pages(family->mem, PAGES, family->seed));
}

TEST_F(fork, child_reads)
{
	ASSERT_EQ(0, child_run(child_reads, &self->family));
	test_dev_data(self->fd, self->mem, PAGES, 1);
	test_cpu_data(self->mem, PAGES, 1);
}

/* The child reports that it has started, and reads when it is told to. */
static int child_waits_and_reads(void *arg)
{
	struct family *family = arg;

	event_post(family->ready);
	if (!CHECK(event_wait(family->go)))
		return 1;
	return child_reads(family);
}

TEST_F(fork, parent_reads_first)
{
	pid_t pid = child_start(child_waits_and_reads, &self->family);

	ASSERT_TRUE(event_wait(self->family.ready));
	test_cpu_data(self->mem, PAGES, 1);
	event_post(self->family.go);
	ASSERT_EQ(0, child_wait(pid, PATIENCE_MS));
	test_dev_data(self->fd, self->mem, PAGES, 1);
}

/* After fork, the parent's device can still read the parent's pages. */
TEST_F(fork, device_reads_after_fork)
{
	pid_t pid = child_start(child_waits_and_reads, &self->family);

	ASSERT_TRUE(event_wait(self->family.ready));
	test_dev_data(self->fd, self->mem, PAGES, 1);
	test_dev_data(self->fd, self->mem, PAGES, 1);
	event_post(self->family.go);
	ASSERT_EQ(0, child_wait(pid, PATIENCE_MS));
	test_dev_data(self->fd, self->mem, PAGES, 1);
	test_cpu_data(self->mem, PAGES, 1);
}

/* The device writes for the parent: the child must not see it. */
TEST_F(fork, device_write_stays_with_parent)
{
	pid_t pid = child_start(child_waits_and_reads, &self->family);
	struct hmm_ref_stats before, after;

	ASSERT_TRUE(event_wait(self->family.ready));
	test_stats(self->fd, &before);
	ASSERT_EQ(0, dev_fill_pages(self->fd, self->mem, PAGES, 2));
	test_stats(self->fd, &after);
	test_dev_data(self->fd, self->mem, PAGES, 2);
	event_post(self->family.go);
	ASSERT_EQ(0, child_wait(pid, PATIENCE_MS));
	test_dev_data(self->fd, self->mem, PAGES, 2);
	test_cpu_data(self->mem, PAGES, 2);
	if (!variant->system)
		EXPECT_LT(before.out_cow_breaks, after.out_cow_breaks);
}

/* The device has the pages mapped writable before the fork, and writes after it. */
TEST_F(fork, device_mapping_is_dropped)
{
	pid_t pid;

	ASSERT_EQ(0, dev_fill_pages(self->fd, self->mem, PAGES, 3));
	self->family.seed = 3;
	pid = child_start(child_waits_and_reads, &self->family);
	ASSERT_TRUE(event_wait(self->family.ready));
	ASSERT_EQ(0, dev_fill_pages(self->fd, self->mem, PAGES, 2));
	event_post(self->family.go);
	ASSERT_EQ(0, child_wait(pid, PATIENCE_MS));
	test_cpu_data(self->mem, PAGES, 2);
}

/* The device writes a part of a page: the copy also has the rest. */
TEST_F(fork, device_writes_some_bytes)
{
	pid_t pid = child_start(child_waits_and_reads, &self->family);
	unsigned long i, word;

	ASSERT_TRUE(event_wait(self->family.ready));
	for (i = 0; i < PAGES; i++) {
		word = ~pattern_word(1, i, 9);
		test_write(self->fd, self->mem + i * page_size() + 9 * sizeof(word),
			   sizeof(word), &word);
	}
	event_post(self->family.go);
	ASSERT_EQ(0, child_wait(pid, PATIENCE_MS));
	for (i = 0; i < PAGES; i++) {
		unsigned long *words = (unsigned long *)(self->mem + i * page_size());

		ASSERT_EQ(~pattern_word(1, i, 9), words[9]);
		words[9] = ~words[9];
	}
	test_cpu_data(self->mem, PAGES, 1);
}

static int child_writes(void *arg)
{
	struct family *family = arg;

	if (child_reads(family))
		return 1;
	fill_pages(family->mem, PAGES, 7);
	event_post(family->ready);
	if (!CHECK(event_wait(family->go)))
		return 1;
	return !CHECK(!bad_pages(family->mem, PAGES, 7));
}

/* The child writes by CPU: the parent's device must not see it. */
TEST_F(fork, child_write_stays_with_child)
{
	pid_t pid = child_start(child_writes, &self->family);

	ASSERT_TRUE(event_wait(self->family.ready));
	test_dev_data(self->fd, self->mem, PAGES, 1);
	ASSERT_EQ(0, dev_fill_pages(self->fd, self->mem, PAGES, 2));
	event_post(self->family.go);
	ASSERT_EQ(0, child_wait(pid, PATIENCE_MS));
	test_cpu_data(self->mem, PAGES, 2);
}

TEST_F(fork, parent_cpu_write_stays_with_parent)
{
	pid_t pid = child_start(child_waits_and_reads, &self->family);

	ASSERT_TRUE(event_wait(self->family.ready));
	fill_pages(self->mem, PAGES, 2);
	test_to_device(self->fd, self->mem, PAGES);
	event_post(self->family.go);
	ASSERT_EQ(0, child_wait(pid, PATIENCE_MS));
	test_dev_data(self->fd, self->mem, PAGES, 2);
	test_cpu_data(self->mem, PAGES, 2);
}

/* Shared pages migrate for both processes, as far as they can be migrated. */
TEST_F(fork, parent_migrates_after_fork)
{
	pid_t pid = child_start(child_waits_and_reads, &self->family);
	struct hmm_ref_migrate cmd;
	int i;

	ASSERT_TRUE(event_wait(self->family.ready));
	for (i = 0; i < 10; i++) {
		test_migrate(self->fd, i & 1 ? HMM_REF_TO_DEVICE : HMM_REF_TO_SYSTEM,
			     self->mem, PAGES * page_size(), &cmd);
		EXPECT_EQ(PAGES, cmd.out_migrated + cmd.out_already + cmd.out_skipped);
		test_dev_data(self->fd, self->mem, PAGES, 1);
	}
	event_post(self->family.go);
	ASSERT_EQ(0, child_wait(pid, PATIENCE_MS));
	test_dev_data(self->fd, self->mem, PAGES, 1);
	test_cpu_data(self->mem, PAGES, 1);
}

/* A child that opens the device itself, on the same pages. */
static int child_with_device(void *arg)
{
	struct family *family = arg;
	struct hmm_ref_migrate cmd;
	int fd = hmm_ref_open(0);
	int i;

	if (!CHECK(fd >= 0))
		return 1;
	event_post(family->ready);
	for (i = 0; i < 10; i++) {
		if (!CHECK(!dev_bad_pages(fd, family->mem, PAGES, family->seed + i)) ||
		    !CHECK(!_test_migrate(fd, HMM_REF_TO_DEVICE, family->mem,
					  PAGES * page_size(), &cmd)) ||
		    !CHECK(!dev_fill_pages(fd, family->mem, PAGES, family->seed + i + 1)))
			return 1;
	}
	return !CHECK(!bad_pages(family->mem, PAGES, family->seed + 10));
}

TEST_F(fork, both_use_the_device)
{
	pid_t pid = child_start(child_with_device, &self->family);
	int i;

	ASSERT_TRUE(event_wait(self->family.ready));
	for (i = 0; i < 10; i++) {
		test_dev_data(self->fd, self->mem, PAGES, i ? 100 + i - 1 : 1);
		ASSERT_EQ(0, dev_fill_pages(self->fd, self->mem, PAGES, 100 + i));
	}
	ASSERT_EQ(0, child_wait(pid, 2 * PATIENCE_MS));
	test_cpu_data(self->mem, PAGES, 109);
}

TEST_F(fork, child_unmaps)
{
	pid_t pid = fork();

	if (!pid)
		_exit(munmap(self->mem, PAGES * page_size()));
	ASSERT_EQ(0, child_wait(pid, PATIENCE_MS));
	test_dev_data(self->fd, self->mem, PAGES, 1);
	test_cpu_data(self->mem, PAGES, 1);
}

/* ---- generations --------------------------------------------------------- */

static int descend(void *arg)
{
	struct family *family = arg;
	unsigned long page = family->depth;

	if (!CHECK(!bad_pages_from(family->mem + page * page_size(), PAGES - page, 1, page)))
		return 1;
	if (page && !CHECK(page_holds(family->mem + (page - 1) * page_size(), 40, page - 1)))
		return 1;
	fill_pages_from(family->mem + page * page_size(), 1, 40, page);
	if (++family->depth == 6)
		return 0;
	return child_run(descend, family);
}

/* Each generation changes one page and passes the others on. */
TEST_F(fork, generations)
{
	ASSERT_EQ(0, child_run(descend, &self->family));
	test_dev_data(self->fd, self->mem, PAGES, 1);
	test_cpu_data(self->mem, PAGES, 1);
}

/* Reads only after the process that migrated the pages to the device has exited. */
static int orphan(struct family *family)
{
	event_post(family->ready);
	if (!CHECK(event_wait(family->go)))
		return 1;
	if (!CHECK(!bad_pages(family->mem, PAGES, 5)))
		return 1;
	fill_pages(family->mem, PAGES, 6);
	return !CHECK(!bad_pages(family->mem, PAGES, 6));
}

static int mortal_parent(void *arg)
{
	struct family *family = arg;
	int fd = hmm_ref_open(0);
	struct hmm_ref_migrate cmd;
	pid_t pid;

	fill_pages(family->mem, PAGES, 5);
	if (!CHECK(fd >= 0) ||
	    !CHECK(!_test_migrate_all(fd, HMM_REF_TO_DEVICE, family->mem, PAGES, &cmd)))
		return 1;
	pid = fork();
	if (!pid) {
		if (family->depth)
			close(fd);
		_exit(orphan(family));
	}
	return !CHECK(pid > 0) || !CHECK(event_wait(family->ready));
}

static void run_orphan(struct __test_metadata *_metadata, struct family *family,
		       bool close_file)
{
	int status;

	family->depth = close_file;
	ASSERT_EQ(0, prctl(PR_SET_CHILD_SUBREAPER, 1));
	ASSERT_EQ(0, child_run(mortal_parent, family));
	event_post(family->go);
	ASSERT_LT(0, waitpid(-1, &status, 0));
	ASSERT_EQ(0, status);
	test_cpu_data(family->mem, PAGES, 1);
}

/* The child keeps the parent's file open, or closes it: its data is the same either way. */
TEST_F(fork, parent_exits_first)
{
	run_orphan(_metadata, &self->family, false);
}

TEST_F(fork, parent_exits_first_file_closed)
{
	run_orphan(_metadata, &self->family, true);
}

/* The parent unmaps and maps new memory at the same address: the child keeps the old pages. */
TEST_F(fork, parent_reuses_the_address)
{
	pid_t pid = child_start(child_waits_and_reads, &self->family);

	ASSERT_TRUE(event_wait(self->family.ready));
	ASSERT_EQ(self->mem, mmap(self->mem, PAGES * page_size(), PROT_READ | PROT_WRITE,
				  MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0));
	fill_pages(self->mem, PAGES, 2);
	test_to_device(self->fd, self->mem, PAGES);
	event_post(self->family.go);
	ASSERT_EQ(0, child_wait(pid, PATIENCE_MS));
	test_dev_data(self->fd, self->mem, PAGES, 2);
	test_cpu_data(self->mem, PAGES, 2);
}

#define EXEC_CHILD	"HMM_REF_FORK_EXEC"

/* posix_spawn() runs the child as vfork() does, without its traps for compilers. */
TEST_F(fork, vfork_and_exec)
{
	char *const argv[] = { "fork", NULL };
	char *const envp[] = { EXEC_CHILD "=1", NULL };
	int i, status;
	pid_t pid;

	for (i = 0; i < 5; i++) {
		ASSERT_EQ(0, posix_spawn(&pid, "/proc/self/exe", NULL, NULL, argv, envp));
		test_dev_data(self->fd, self->mem, PAGES, 1);
		ASSERT_EQ(pid, waitpid(pid, &status, 0));
		ASSERT_EQ(0, status);
		test_to_device(self->fd, self->mem, PAGES);
	}
	test_cpu_data(self->mem, PAGES, 1);
}

int main(int argc, char **argv)
{
	if (getenv(EXEC_CHILD))
		return 0;
	return hmm_ref_test_main(argc, argv);
}
