// SPDX-License-Identifier: GPL-2.0-only
/*
 * Pages that KSM has merged do not migrate to the device.
 *
 * If the core migrated them, its stable tree would refer to a device page, which ksmd compares with
 * the next candidate through the direct map, and oopses. A CPU fault on one would collect the same
 * page several times and never succeed. If the rmap of a merged page does not know the mapping that
 * migrates, a migration entry is left behind.
 */
#include <linux/userfaultfd.h>

#include "hmm_ref_utils.h"

#define PAGES		64UL
#define KSM		"/sys/kernel/mm/ksm/"

static long ksm_number(const char *name)
{
	char path[64], text[32];

	snprintf(path, sizeof(path), KSM "%s", name);
	return read_file(path, text, sizeof(text)) < 0 ? -1 : atol(text);
}

FIXTURE(ksm)
{
	struct leak_check leak;
	int fd;
};

/* Pages that KSM has merged: those that are kept, and those that were replaced. */
static long merged(void)
{
	return ksm_number("pages_shared") + ksm_number("pages_sharing");
}

FIXTURE_SETUP(ksm)
{
	if (access(KSM "run", W_OK))
		SKIP(return, "no " KSM "run: CONFIG_KSM");
	leak_check_begin(_metadata, &self->leak);
	self->fd = test_open(0);
	/* Pages of processes that have exited are still in ksmd's counts. */
	ASSERT_EQ(0, write_file(KSM "run", "2"));
	ASSERT_EQ(0, merged());
	ASSERT_EQ(0, write_file(KSM "pages_to_scan", "2000"));
	ASSERT_EQ(0, write_file(KSM "sleep_millisecs", "10"));
	ASSERT_EQ(0, write_file(KSM "run", "1"));
}

FIXTURE_TEARDOWN_PARENT(ksm)
{
	if (access(KSM "run", W_OK))
		return;
	EXPECT_EQ(0, write_file(KSM "run", "0"));
	leak_check_end(_metadata, &self->leak);
}

/* Maps identical pages. When this returns, @total pages have been merged in all. */
static char *__map_merged(struct __test_metadata *_metadata, long total)
{
	unsigned long long deadline = now_ms() + 4 * PATIENCE_MS;
	char *mem = test_map_pages(PAGES);

	memset(mem, 0x5a, PAGES * page_size());
	ASSERT_EQ(0, madvise(mem, PAGES * page_size(), MADV_MERGEABLE));
	while (merged() < total && now_ms() < deadline)
		usleep(10000);
	ASSERT_LE(total, merged());
	return mem;
}

static bool same(const char *mem, int value)
{
	unsigned long i;

	for (i = 0; i < PAGES * page_size(); i++)
		if (mem[i] != value)
			return false;
	return true;
}

TEST_F(ksm, merged_pages_stay)
{
	char *mem = __map_merged(_metadata, PAGES);
	struct hmm_ref_migrate cmd;

	test_migrate(self->fd, HMM_REF_TO_DEVICE, mem, PAGES * page_size(), &cmd);
	EXPECT_EQ(0, cmd.out_migrated);
	EXPECT_EQ(PAGES, cmd.out_skipped);
	/* ksmd compares the next pages with those in its tree. */
	__map_merged(_metadata, 2 * PAGES);
	EXPECT_TRUE(same(mem, 0x5a));
}

/*
 * All pages differ. Without the fix they stay, because they may be merged at any moment. A kernel
 * that lacks other fixes may have this one.
 */
TEST_F(ksm, mergeable_pages)
{
	char *mem = test_map_pages(PAGES);
	struct hmm_ref_migrate cmd;

	fill_pages(mem, PAGES, 1);
	ASSERT_EQ(0, madvise(mem, PAGES * page_size(), MADV_MERGEABLE));
	test_migrate(self->fd, HMM_REF_TO_DEVICE, mem, PAGES * page_size(), &cmd);
	if (core_is_fixed() || cmd.out_migrated)
		EXPECT_EQ(PAGES, cmd.out_migrated);
	EXPECT_EQ(PAGES, cmd.out_migrated + cmd.out_skipped);
	test_cpu_data(mem, PAGES, 1);
}

/* A page that was written is private again, and migrates as any other. */
TEST_F(ksm, written_pages_migrate)
{
	char *mem = __map_merged(_metadata, PAGES);

	memset(mem, 0x5a, PAGES * page_size());
	ASSERT_EQ(0, madvise(mem, PAGES * page_size(), MADV_UNMERGEABLE));
	test_to_device(self->fd, mem, PAGES);
	EXPECT_TRUE(same(mem, 0x5a));
}

struct family {
	int merged, done;
	char *mem;
};

/* Has KSM merge the pages that the child has from its parent. */
static int merges(void *arg)
{
	unsigned long long deadline = now_ms() + 2 * PATIENCE_MS;
	struct family *family = arg;
	bool good;

	if (!CHECK(!madvise(family->mem, PAGES * page_size(), MADV_MERGEABLE)))
		return 1;
	while (merged() < (long)PAGES && now_ms() < deadline)
		usleep(10000);
	good = CHECK(merged() >= (long)PAGES);
	event_post(family->merged);
	good &= CHECK(event_wait(family->done));
	return !CHECK(same(family->mem, 0x5a)) || !good;
}

/* The parent's mapping is not mergeable. It has a merged page that no rmap walk finds. */
TEST_F(ksm, merged_by_a_child)
{
	struct family family = { .merged = event_new(), .done = event_new() };
	struct hmm_ref_migrate cmd;
	pid_t child;

	family.mem = test_map_pages(PAGES);
	memset(family.mem, 0x5a, PAGES * page_size());
	child = child_start(merges, &family);
	EXPECT_TRUE(event_wait(family.merged));
	/* A written page is private again: some pages are, others are not. */
	family.mem[(PAGES - 1) * page_size()] = 0x5a;
	test_migrate(self->fd, HMM_REF_TO_DEVICE, family.mem, PAGES * page_size(), &cmd);
	EXPECT_TRUE(same(family.mem, 0x5a));
	event_post(family.done);
	EXPECT_EQ(0, child_wait(child, PATIENCE_MS));
	EXPECT_LT(0, cmd.out_migrated);
}

#ifdef UFFDIO_RWPROTECT

/* Protects the range from all accesses. Returns the userfaultfd, or -errno. */
static int protect(char *mem, size_t size)
{
	struct uffdio_api api = { .api = UFFD_API, .features = UFFD_FEATURE_RWP };
	struct uffdio_register range = {
		.range = { .start = (unsigned long)mem, .len = size },
		.mode = UFFDIO_REGISTER_MODE_RWP,
	};
	struct uffdio_rwprotect rwp = {
		.range = { .start = (unsigned long)mem, .len = size },
		.mode = UFFDIO_RWPROTECT_MODE_RWP,
	};
	int fd = syscall(__NR_userfaultfd, O_CLOEXEC | O_NONBLOCK);

	if (fd < 0)
		return -errno;
	if (!ioctl(fd, UFFDIO_API, &api) && !ioctl(fd, UFFDIO_REGISTER, &range) &&
	    !ioctl(fd, UFFDIO_RWPROTECT, &rwp))
		return fd;
	close(fd);
	return -errno;
}

/* As above, with a userfaultfd event for each access: all pages stay. */
TEST_F(ksm, merged_by_a_child_and_protected)
{
	struct family family = { .merged = event_new(), .done = event_new() };
	struct hmm_ref_migrate cmd;
	pid_t child;
	int uffd;

	family.mem = test_map_pages(PAGES);
	memset(family.mem, 0x5a, PAGES * page_size());
	child = child_start(merges, &family);
	EXPECT_TRUE(event_wait(family.merged));
	uffd = protect(family.mem, PAGES * page_size());
	if (uffd < 0) {
		event_post(family.done);
		EXPECT_EQ(0, child_wait(child, PATIENCE_MS));
		SKIP(return, "no protection by userfaultfd: %s", strerror(-uffd));
	}
	test_migrate(self->fd, HMM_REF_TO_DEVICE, family.mem, PAGES * page_size(), &cmd);
	EXPECT_EQ(PAGES, cmd.out_skipped);
	/* Closing it ends the protection. */
	close(uffd);
	/* ksmd compares the next pages with those in its tree. */
	__map_merged(_metadata, 2 * PAGES);
	EXPECT_TRUE(same(family.mem, 0x5a));
	event_post(family.done);
	EXPECT_EQ(0, child_wait(child, PATIENCE_MS));
}

#endif /* UFFDIO_RWPROTECT */

int main(int argc, char **argv)
{
	return hmm_ref_test_main(argc, argv);
}
