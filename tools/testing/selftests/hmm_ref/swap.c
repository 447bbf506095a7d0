// SPDX-License-Identifier: GPL-2.0-only
/*
 * Swap and memory cgroups with pages on the device: pages that are swapped out, pages in the swap
 * cache, and reclaim of pages that it cannot have.
 *
 * Covers: the entry of a device page taken for a swap entry; a page that returns from the device,
 * or that the device has written, and is dropped as clean although swap has older data; a page of
 * the swap cache that does not migrate; device memory that its owner's cgroup is not charged for.
 */
#include "hmm_ref_utils.h"
#include "hmm_ref_swap.h"

#define PAGES		64UL
#define HALF		(PAGES / 2)

FIXTURE(swap)
{
	struct leak_check leak;
	char *mem;
	size_t size;
	int fd;
};

FIXTURE_SETUP(swap)
{
	int rc;

	leak_check_begin(_metadata, &self->leak);
	rc = swap_begin();
	if (rc < 0)
		SKIP(return, "no swap space: %s (CONFIG_SWAP, CONFIG_BLK_DEV_RAM)",
		     strerror(-rc));
	self->fd = test_open(0);
	self->size = PAGES * page_size();
	self->mem = test_map_pages(PAGES);
	fill_pages(self->mem, PAGES, 1);
}

FIXTURE_TEARDOWN_PARENT(swap)
{
	/* Returns EINVAL if there is no swap area of the test. */
	swap_end();
	leak_check_end(_metadata, &self->leak);
}

/* Swaps out until none of the pages is mapped. They may still be in the swap cache. */
static int swap_out(int fd, char *mem, unsigned long npages)
{
	unsigned long long deadline = now_ms() + PATIENCE_MS;
	int rc;

	do {
		rc = page_out(mem, npages * page_size());
		if (rc)
			return rc;
		if (pages_at(fd, mem, npages, HMM_REF_PAGE_NONE) == (long)npages)
			return 0;
		usleep(1000);
	} while (now_ms() < deadline);
	return -ETIMEDOUT;
}

#define test_swap_out(mem, npages) \
	ASSERT_EQ(0, swap_out(self->fd, mem, npages))

/* Pages that are swapped out stay there, and are counted. */
TEST_F(swap, swapped_pages_are_skipped)
{
	struct hmm_ref_migrate cmd;

	test_swap_out(self->mem, PAGES);
	test_migrate(self->fd, HMM_REF_TO_DEVICE, self->mem, self->size, &cmd);
	EXPECT_EQ(0, cmd.out_migrated + cmd.out_already);
	EXPECT_EQ(PAGES, cmd.out_skipped);
	test_cpu_data(self->mem, PAGES, 1);
}

TEST_F(swap, device_swaps_in)
{
	test_swap_out(self->mem, PAGES);
	test_dev_data(self->fd, self->mem, PAGES, 1);
	test_to_device(self->fd, self->mem, PAGES);
	test_dev_data(self->fd, self->mem, PAGES, 1);
	test_cpu_data(self->mem, PAGES, 1);

	test_swap_out(self->mem, PAGES);
	ASSERT_EQ(0, dev_fill_pages(self->fd, self->mem, PAGES, 2));
	test_cpu_data(self->mem, PAGES, 2);
	test_swap_out(self->mem, PAGES);
	test_cpu_data(self->mem, PAGES, 2);
}

/*
 * A page that was read from swap is clean, and swap still has its data. A later write must not be
 * lost when the page is dropped. Here the page migrates to the device for the write.
 */
TEST_F(swap, swap_cache_migrates)
{
	int i;

	for (i = 1; i < 6; i++) {
		test_swap_out(self->mem, PAGES);
		test_cpu_data(self->mem, PAGES, i);
		test_to_device(self->fd, self->mem, PAGES);
		ASSERT_EQ(0, dev_fill_pages(self->fd, self->mem, PAGES, i + 1));
		if (i & 1)
			test_to_system(self->fd, self->mem, PAGES);
		else
			touch_read(self->mem);
		test_to_system(self->fd, self->mem, PAGES);
		test_swap_out(self->mem, PAGES);
		test_cpu_data(self->mem, PAGES, i + 1);
	}
}

/* Here the device writes to the page in system memory. */
TEST_F(swap, device_write_survives)
{
	int i;

	for (i = 1; i < 6; i++) {
		test_swap_out(self->mem, PAGES);
		test_cpu_data(self->mem, PAGES, i);
		ASSERT_EQ(0, dev_fill_pages(self->fd, self->mem, PAGES, i + 1));
		test_swap_out(self->mem, PAGES);
		test_dev_data(self->fd, self->mem, PAGES, i + 1);
	}
	test_cpu_data(self->mem, PAGES, i);
}

/* Reclaim takes system pages, and ignores pages on the device. */
TEST_F(swap, page_out_leaves_the_device_alone)
{
	unsigned long i;

	for (i = 0; i < PAGES; i += 2)
		test_to_device(self->fd, self->mem + i * page_size(), 1);
	for (i = 1; i < PAGES; i += 2)
		test_swap_out(self->mem + i * page_size(), 1);
	ASSERT_EQ(0, madvise(self->mem, self->size, MADV_PAGEOUT));
	ASSERT_EQ(0, madvise(self->mem, self->size, MADV_COLD));
	test_pages_at(self->fd, self->mem, PAGES, HMM_REF_PAGE_DEVICE, HALF);
	test_pages_at(self->fd, self->mem, PAGES, HMM_REF_PAGE_NONE, HALF);
	test_dev_data(self->fd, self->mem, PAGES, 1);
	test_cpu_data(self->mem, PAGES, 1);
}

/* swapoff() walks all entries that are not present, and ignores those of the device. */
TEST_F(swap, swapoff_leaves_the_device_alone)
{
	test_to_device(self->fd, self->mem, HALF);
	test_swap_out(self->mem + self->size / 2, HALF);
	if (swapoff(SWAP_DEVICE))
		SKIP(return, "swap space of the system");
	test_pages_at(self->fd, self->mem, PAGES, HMM_REF_PAGE_DEVICE, HALF);
	test_pages_at(self->fd, self->mem, PAGES, HMM_REF_PAGE_SYSTEM, HALF);
	test_dev_data(self->fd, self->mem, PAGES, 1);
	test_cpu_data(self->mem, PAGES, 1);
}

struct family {
	int ready, go;
	char *mem;
};

static int reads_when_told(void *arg)
{
	struct family *family = arg;

	event_post(family->ready);
	return !CHECK(event_wait(family->go)) ||
	       !CHECK(!bad_pages(family->mem, PAGES, 1));
}

/* Pages that are swapped out and shared with a child. The parent's pages migrate to the device. */
TEST_F(swap, fork)
{
	struct family family = { event_new(), event_new(), self->mem };
	struct hmm_ref_migrate cmd;
	pid_t pid;

	test_to_device(self->fd, self->mem, HALF);
	test_swap_out(self->mem + self->size / 2, HALF);
	pid = child_start(reads_when_told, &family);
	ASSERT_TRUE(event_wait(family.ready));
	test_dev_data(self->fd, self->mem, PAGES, 1);
	test_migrate(self->fd, HMM_REF_TO_DEVICE, self->mem, self->size, &cmd);
	ASSERT_EQ(0, dev_fill_pages(self->fd, self->mem, PAGES, 2));
	event_post(family.go);
	ASSERT_EQ(0, child_wait(pid, PATIENCE_MS));
	test_dev_data(self->fd, self->mem, PAGES, 2);
	test_cpu_data(self->mem, PAGES, 2);
}

/* ---- memory cgroups ------------------------------------------------------------- */

#define CGROUPS		"/sys/fs/cgroup/"
#define GROUP		CGROUPS "hmm_ref/"
#define GROUP_MAX	(8UL << 20)

static long group_number(const char *name)
{
	char path[64], text[32];

	snprintf(path, sizeof(path), GROUP "%s", name);
	return read_file(path, text, sizeof(text)) < 0 ? -1 : atol(text);
}

FIXTURE(memcg)
{
	FIXTURE_DATA(swap) swap;
	unsigned long npages;
};

FIXTURE_SETUP(memcg)
{
	char text[32];
	int rc;

	leak_check_begin(_metadata, &self->swap.leak);
	if (write_file(CGROUPS "cgroup.subtree_control", "+memory") ||
	    (mkdir(GROUP, 0755) && errno != EEXIST))
		SKIP(return, "no memory controller in " CGROUPS " (CONFIG_MEMCG)");
	rc = swap_begin();
	if (rc < 0)
		SKIP(return, "no swap space: %s (CONFIG_SWAP, CONFIG_BLK_DEV_RAM)",
		     strerror(-rc));
	self->swap.fd = test_open(0);
	self->npages = GROUP_MAX / page_size();
	snprintf(text, sizeof(text), "%lu", GROUP_MAX);
	ASSERT_EQ(0, write_file(GROUP "memory.max", text));
}

FIXTURE_TEARDOWN_PARENT(memcg)
{
	/* Returns EINVAL if there is no swap area of the test. */
	swap_end();
	leak_check_end(_metadata, &self->swap.leak);
	rmdir(GROUP);
}

/* In the group: half more than its limit, a quarter of that on the device. */
static int overcommit(void *arg)
{
	unsigned long allowed = *(unsigned long *)arg;
	unsigned long npages = allowed / 2 * 3;
	unsigned long ndev = allowed / 4;
	struct hmm_ref_migrate cmd;
	long before, after, there;
	char *mem = map_pages(npages);
	int fd = hmm_ref_open(0);

	if (!CHECK(!write_file(GROUP "cgroup.procs", "0")) || !CHECK(fd >= 0) ||
	    !CHECK(mem != MAP_FAILED))
		return 1;
	fill_pages(mem, ndev, 1);
	before = group_number("memory.current");
	if (!CHECK(!_test_migrate_all(fd, HMM_REF_TO_DEVICE, mem, ndev, &cmd)))
		return 1;
	/* The pages have migrated and were not freed, so they are still charged. */
	after = group_number("memory.current");
	if (!CHECK(after >= (long)(ndev * page_size())) ||
	    !CHECK(after < before + (long)(ndev * page_size() / 2)))
		return 1;
	fill_pages_from(mem + ndev * page_size(), npages - ndev, 1, ndev);
	there = pages_at(fd, mem, npages, HMM_REF_PAGE_DEVICE);
	write_file(GROUP "memory.reclaim", "4M");
	if (!CHECK(there == (long)ndev) ||
	    !CHECK(there == pages_at(fd, mem, npages, HMM_REF_PAGE_DEVICE)) ||
	    !CHECK(pages_at(fd, mem, npages, HMM_REF_PAGE_NONE) > 0))
		return 1;
	return !CHECK(!dev_bad_pages(fd, mem, npages, 1)) ||
	       !CHECK(!dev_fill_pages(fd, mem, npages, 2)) ||
	       !CHECK(!bad_pages(mem, npages, 2));
}

TEST_F(memcg, above_the_limit)
{
	pid_t pid = child_start(overcommit, &self->npages);

	ASSERT_LT(0, pid);
	ASSERT_EQ(0, child_wait(pid, 15 * PATIENCE_MS));
	/* The memory was uncharged when the process exited. */
	ASSERT_GT((long)(GROUP_MAX / 4), group_number("memory.current"));
}

int main(int argc, char **argv)
{
	return hmm_ref_test_main(argc, argv);
}
