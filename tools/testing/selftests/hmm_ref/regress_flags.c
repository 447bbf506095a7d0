// SPDX-License-Identifier: GPL-2.0-only
/*
 * A device page does not inherit from its last user: what that one has left in the
 * page's flags must be gone.
 *
 * Active pages that are discarded on the device leave "active" in its pages. Pages that
 * two processes have locked in memory are still "unevictable" when they get there.
 * To both at once, on the way back, the core said BUG (CONFIG_DEBUG_VM).
 */
#include "hmm_ref_utils.h"

#define PAGES	256UL

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

/* Looking at a page from outside counts as use, and what is used again is active. */
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
	/* To lock memory that can be written would give each its own pages. */
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

int main(int argc, char **argv)
{
	return hmm_ref_test_main(argc, argv);
}
