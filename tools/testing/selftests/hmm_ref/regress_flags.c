// SPDX-License-Identifier: GPL-2.0-only
/*
 * A device page does not inherit page flags from its last user.
 *
 * Active pages that are discarded on the device leave "active" in the device pages. Pages that two
 * processes have mlocked are still "unevictable" when they migrate. With both flags at once, the
 * core hit a BUG on the way to system memory (CONFIG_DEBUG_VM).
 *
 * Pages of ordinary memory are "swapbacked". Memory that may be dropped, and must not be written to
 * swap, was written there after it had been in such a device page. "mlocked" is counted when it is
 * set, but munlock() does not find pages that are on the device.
 */
#include "hmm_ref_utils.h"
#include "hmm_ref_swap.h"

#define PAGES	256UL

#ifndef MAP_DROPPABLE
#define MAP_DROPPABLE	0x08
#endif

FIXTURE(flags)
{
	struct leak_check leak;
	int fd;
};

FIXTURE_SETUP(flags)
{
	leak_check_begin(_metadata, &self->leak);
	self->fd = test_open(0);
}

FIXTURE_TEARDOWN_PARENT(flags)
{
	leak_check_end(_metadata, &self->leak);
}

/* Reading a page from outside counts as use, and a page that is used again becomes active. */
static int activate(char *mem, unsigned long npages)
{
	char *copy = map_pages(npages);
	struct iovec to = { copy, npages * page_size() };
	struct iovec from = { mem, npages * page_size() };
	int i;

	for (i = 0; i < 3; i++) {
		if (process_vm_readv(getpid(), &to, 1, &from, 1, 0) != (ssize_t)to.iov_len)
			return -errno;
	}
	return munmap(copy, npages * page_size());
}

struct locker {
	char *mem;
	int locked;
	int done;
};

static int locker_main(void *arg)
{
	struct locker *locker = arg;

	if (!CHECK(!mlock(locker->mem, PAGES * page_size())))
		return 1;
	event_post(locker->locked);
	return !CHECK(event_wait(locker->done));
}

TEST_F(flags, locked_twice_after_active)
{
	struct locker locker = { .locked = event_new(), .done = event_new() };
	struct hmm_ref_migrate cmd;
	char *mem = test_map_pages(PAGES);
	unsigned long moved = 0;
	pid_t pid;
	int i;

	fill_pages(mem, PAGES, 1);
	ASSERT_EQ(0, activate(mem, PAGES));
	test_to_device(self->fd, mem, PAGES);
	ASSERT_EQ(0, munmap(mem, PAGES * page_size()));

	locker.mem = test_map_pages(PAGES);
	fill_pages(locker.mem, PAGES, 2);
	/* Locking writable memory would give each process its own pages. */
	ASSERT_EQ(0, mprotect(locker.mem, PAGES * page_size(), PROT_READ));
	pid = child_start(locker_main, &locker);
	ASSERT_LT(0, pid);
	ASSERT_TRUE(event_wait(locker.locked));
	ASSERT_EQ(0, mlock(locker.mem, PAGES * page_size()));
	for (i = 0; i < 10; i++) {
		test_migrate(self->fd, HMM_REF_TO_DEVICE, locker.mem,
			     PAGES * page_size(), &cmd);
		moved += cmd.out_migrated;
	}
	EXPECT_LT(0, moved);
	test_cpu_data(locker.mem, PAGES, 2);
	event_post(locker.done);
	ASSERT_EQ(0, child_wait(pid, PATIENCE_MS));
	test_cpu_data(locker.mem, PAGES, 2);
}

/* ---- memory that must not be swapped --------------------------------------------- */

/* Returns a number in kB from a file of /proc, or -1. */
static long proc_kb(const char *path, const char *name)
{
	char text[8192], *line;

	if (read_file(path, text, sizeof(text)) < 0)
		return -1;
	line = strstr(text, name);
	return line ? strtol(line + strlen(name), NULL, 10) : -1;
}

#define swapped_kb()	proc_kb("/proc/self/status", "VmSwap:")

/* Leaves the flags of ordinary memory in the pages that the device allocates next. */
static void __use_device_pages(struct __test_metadata *_metadata, int fd)
{
	char *mem = test_map_pages(2 * PAGES);

	fill_pages(mem, 2 * PAGES, 1);
	test_to_device(fd, mem, 2 * PAGES);
	ASSERT_EQ(0, munmap(mem, 2 * PAGES * page_size()));
}

/*
 * Migrates the memory both ways and reclaims it: dropped pages read as zeros, and no page is in
 * swap.
 */
static void __test_is_dropped(struct __test_metadata *_metadata, int fd, char *mem)
{
	unsigned long dropped = 0, i;

	test_to_device(fd, mem, PAGES);
	for (i = 0; i < PAGES; i++)
		touch_read(mem + i * page_size());
	test_pages_at(fd, mem, PAGES, HMM_REF_PAGE_DEVICE, 0);
	ASSERT_EQ(0, page_out(mem, PAGES * page_size()));
	EXPECT_EQ(0, swapped_kb());
	for (i = 0; i < PAGES; i++)
		dropped += page_is_zero(mem + i * page_size());
	EXPECT_LT(0, dropped);
}

FIXTURE(swap)
{
	struct leak_check leak;
	int added;
	int fd;
};

FIXTURE_SETUP(swap)
{
	char *mem;

	self->added = swap_begin();
	if (self->added < 0)
		SKIP(return, "no swap, and " SWAP_DEVICE ": %s", strerror(-self->added));
	leak_check_begin(_metadata, &self->leak);
	self->fd = test_open(0);
	/* Shows that ordinary memory is swapped. */
	mem = test_map_pages(PAGES);
	fill_pages(mem, PAGES, 1);
	ASSERT_EQ(0, page_out(mem, PAGES * page_size()));
	ASSERT_LT(0, swapped_kb());
	ASSERT_EQ(0, munmap(mem, PAGES * page_size()));
	ASSERT_EQ(0, swapped_kb());
	__use_device_pages(_metadata, self->fd);
}

FIXTURE_TEARDOWN_PARENT(swap)
{
	leak_check_end(_metadata, &self->leak);
	if (self->added == 1)
		EXPECT_EQ(0, swap_end());
}

TEST_F(swap, droppable)
{
	char *mem = mmap(NULL, PAGES * page_size(), PROT_READ | PROT_WRITE,
			 MAP_DROPPABLE | MAP_ANONYMOUS, -1, 0);

	if (mem == MAP_FAILED && (errno == EINVAL || errno == EOPNOTSUPP))
		SKIP(return, "no MAP_DROPPABLE (before 6.11)");
	ASSERT_NE(MAP_FAILED, mem);
	fill_pages(mem, PAGES, 2);
	__test_is_dropped(_metadata, self->fd, mem);
}

/*
 * A page that the device may write is dirty from then on (patches/core/0047), so the mapping is
 * read-only.
 */
TEST_F(swap, lazily_freed)
{
	char *mem = test_map_pages(PAGES);

	fill_pages(mem, PAGES, 2);
	ASSERT_EQ(0, madvise(mem, PAGES * page_size(), MADV_FREE));
	ASSERT_EQ(0, mprotect(mem, PAGES * page_size(), PROT_READ));
	__test_is_dropped(_metadata, self->fd, mem);
}

/* ---- counts of locked memory ----------------------------------------------------- */

/*
 * Waits for the counts that CPUs have not yet added. A CPU may still hold pages that it has
 * unlocked.
 */
static long locked_kb(void)
{
	write_file("/proc/sys/vm/stat_refresh", "1");
	return proc_kb("/proc/meminfo", "Mlocked:");
}

static void __test_count_stays(struct __test_metadata *_metadata, int fd, int advice)
{
	unsigned long npages = block_pages(), size = block_size(), i;
	char *base = test_map_blocks(1);
	long slack = size / 1024 / 4;
	long before, diff;
	char *mem;
	int round;

	/* Some pages stay locked, so that a count which is too low is detected. */
	ASSERT_EQ(0, mlock(base, size));
	before = locked_kb();
	ASSERT_LE((long)(size / 1024), before);
	for (round = 0; round < 4; round++) {
		mem = test_map_blocks(1);
		ASSERT_EQ(0, madvise(mem, size, advice));
		ASSERT_EQ(0, mlock(mem, size));
		fill_pages(mem, npages, round);
		test_to_device(fd, mem, npages);
		ASSERT_EQ(0, munlock(mem, size));
		if (round % 2)
			for (i = 0; i < npages; i++)
				touch_read(mem + i * page_size());
		ASSERT_EQ(0, munmap(mem, size));
	}
	diff = locked_kb() - before;
	EXPECT_GT(slack, diff);
	EXPECT_LT(-slack, diff);
}

TEST_F(flags, unlocked_on_the_device)
{
	__test_count_stays(_metadata, self->fd, MADV_NOHUGEPAGE);
}

TEST_F(flags, unlocked_on_the_device_huge)
{
	__test_count_stays(_metadata, self->fd, MADV_HUGEPAGE);
}

int main(int argc, char **argv)
{
	return hmm_ref_test_main(argc, argv);
}
