// SPDX-License-Identifier: GPL-2.0-only
/*
 * Holes and zero pages become cleared pages on the device. They never show old data, of this
 * process or of another one.
 *
 * Covers: device memory that is not cleared for a hole, so that data which MADV_DONTNEED dropped
 * reappears; a fault that copies into a hole during migration to system memory; data of another
 * process in a page that is allocated again.
 */
#include "hmm_ref_utils.h"

#define PAGES	32UL

FIXTURE(holes)
{
	struct leak_check leak;
	int fd;
	char *mem;
};

FIXTURE_SETUP(holes)
{
	leak_check_begin(_metadata, &self->leak);
	self->fd = test_open(0);
	self->mem = test_map_pages(PAGES);
}

FIXTURE_TEARDOWN_PARENT(holes)
{
	leak_check_end(_metadata, &self->leak);
}

/* The device and the CPU both read zeros. */
static void __test_zero(struct __test_metadata *_metadata, int fd, char *mem,
			unsigned long npages)
{
	char *buf = malloc(page_size());
	unsigned long i;

	ASSERT_NE(NULL, buf);
	for (i = 0; i < npages; i++) {
		memset(buf, 0xcc, page_size());
		test_read(fd, mem + i * page_size(), page_size(), buf);
		ASSERT_TRUE(page_is_zero(buf));
	}
	for (i = 0; i < npages; i++)
		ASSERT_TRUE(page_is_zero(mem + i * page_size()));
	free(buf);
}

#define test_zero(mem, npages)	__test_zero(_metadata, self->fd, mem, npages)

static void touch_zero_pages(char *mem, unsigned long first, unsigned long step)
{
	unsigned long i;

	for (i = first; i < PAGES; i += step)
		touch_read(mem + i * page_size());
}

TEST_F(holes, become_device_pages)
{
	test_to_device(self->fd, self->mem, PAGES);
	test_pages_at(self->fd, self->mem, PAGES, HMM_REF_PAGE_DEVICE, PAGES);
	test_zero(self->mem, PAGES);
}

TEST_F(holes, zero_pages_become_device_pages)
{
	touch_zero_pages(self->mem, 0, 1);
	test_pages_at(self->fd, self->mem, PAGES, HMM_REF_PAGE_ZERO, PAGES);
	test_to_device(self->fd, self->mem, PAGES);
	test_pages_at(self->fd, self->mem, PAGES, HMM_REF_PAGE_DEVICE, PAGES);
	test_zero(self->mem, PAGES);
}

/* Holes, zero pages and data in turns. */
TEST_F(holes, mixed)
{
	unsigned long i;

	touch_zero_pages(self->mem, 1, 3);
	for (i = 2; i < PAGES; i += 3)
		fill_pages_from(self->mem + i * page_size(), 1, 1, i);
	test_to_device(self->fd, self->mem, PAGES);
	test_pages_at(self->fd, self->mem, PAGES, HMM_REF_PAGE_DEVICE, PAGES);
	for (i = 0; i < PAGES; i++) {
		char *page = self->mem + i * page_size();

		ASSERT_TRUE(i % 3 == 2 ? page_holds(page, 1, i) : page_is_zero(page));
	}
}

/* Either side can write a new page at once. */
TEST_F(holes, are_writable)
{
	test_to_device(self->fd, self->mem, PAGES);
	ASSERT_EQ(0, dev_fill_pages(self->fd, self->mem, PAGES, 1));
	test_cpu_data(self->mem, PAGES, 1);
	ASSERT_EQ(0, madvise(self->mem, PAGES * page_size(), MADV_DONTNEED));
	test_to_device(self->fd, self->mem, PAGES);
	fill_pages(self->mem, PAGES, 2);
	test_dev_data(self->fd, self->mem, PAGES, 2);
}

/* The device can write the page immediately, without copying or moving it. */
TEST_F(holes, need_no_copy)
{
	struct hmm_ref_page_state states[PAGES];
	struct hmm_ref_stats before, after;
	struct hmm_ref_snapshot cmd;
	unsigned long i;

	test_to_device(self->fd, self->mem, PAGES);
	test_snapshot(self->fd, self->mem, PAGES * page_size(), states, &cmd);
	for (i = 0; i < PAGES; i++)
		ASSERT_EQ(HMM_REF_PAGE_WRITE, states[i].flags & HMM_REF_PAGE_WRITE);
	test_stats(self->fd, &before);
	ASSERT_EQ(0, dev_fill_pages(self->fd, self->mem, PAGES, 1));
	test_stats(self->fd, &after);
	EXPECT_EQ(before.out_cow_breaks, after.out_cow_breaks);
	test_pages_at(self->fd, self->mem, PAGES, HMM_REF_PAGE_DEVICE, PAGES);
	test_cpu_data(self->mem, PAGES, 1);
}

/* Migration to system memory does not fill holes. */
TEST_F(holes, stay_holes_in_system)
{
	struct hmm_ref_migrate cmd;

	test_migrate(self->fd, HMM_REF_TO_SYSTEM, self->mem, PAGES * page_size(), &cmd);
	EXPECT_EQ(PAGES, cmd.out_already);
	test_pages_at(self->fd, self->mem, PAGES, HMM_REF_PAGE_NONE, PAGES);

	fill_pages(self->mem, PAGES, 1);
	test_to_device(self->fd, self->mem, PAGES);
	ASSERT_EQ(0, madvise(self->mem, PAGES / 2 * page_size(), MADV_DONTNEED));
	test_migrate(self->fd, HMM_REF_TO_SYSTEM, self->mem, PAGES * page_size(), &cmd);
	EXPECT_EQ(PAGES / 2, cmd.out_already);
	test_pages_at(self->fd, self->mem, PAGES / 2, HMM_REF_PAGE_NONE, PAGES / 2);
	test_zero(self->mem, PAGES / 2);
}

/* The device reads holes as zeros, and can write them. */
TEST_F(holes, device_access)
{
	test_zero(self->mem, PAGES / 2);
	ASSERT_EQ(0, dev_fill_pages(self->fd, self->mem, PAGES, 1));
	test_dev_data(self->fd, self->mem, PAGES, 1);
	test_cpu_data(self->mem, PAGES, 1);
}

/* ---- old data ------------------------------------------------------------------- */

/* Dropped data does not reappear, whichever device page is allocated next. */
TEST_F(holes, dontneed_then_migrate)
{
	unsigned long i;

	fill_pages(self->mem, PAGES, 1);
	test_to_device(self->fd, self->mem, PAGES);
	for (i = 0; i < PAGES; i += 3)
		ASSERT_EQ(0, madvise(self->mem + i * page_size(), page_size(),
				     MADV_DONTNEED));
	test_to_device(self->fd, self->mem, PAGES);
	for (i = 0; i < PAGES; i += 3)
		test_zero(self->mem + i * page_size(), 1);
	for (i = 0; i < PAGES; i++)
		if (i % 3)
			ASSERT_TRUE(page_holds(self->mem + i * page_size(), 1, i));
}

TEST_F(holes, dontneed_then_read)
{
	fill_pages(self->mem, PAGES, 1);
	test_to_device(self->fd, self->mem, PAGES);
	test_dev_data(self->fd, self->mem, PAGES, 1);
	ASSERT_EQ(0, madvise(self->mem, PAGES * page_size(), MADV_DONTNEED));
	test_zero(self->mem, PAGES);
}

/* The device wrote through a mapping. Dropping the page ends that mapping. */
TEST_F(holes, dontneed_then_device_write)
{
	fill_pages(self->mem, PAGES, 1);
	test_to_device(self->fd, self->mem, PAGES);
	ASSERT_EQ(0, dev_fill_pages(self->fd, self->mem, PAGES, 2));
	ASSERT_EQ(0, madvise(self->mem, PAGES * page_size(), MADV_DONTNEED));
	ASSERT_EQ(0, dev_fill_pages(self->fd, self->mem, 1, 3));
	test_cpu_data(self->mem, 1, 3);
	test_zero(self->mem + page_size(), PAGES - 1);
}

static int fill_device_and_exit(void *arg)
{
	unsigned long npages = 2 * block_pages() + 5;
	struct hmm_ref_migrate cmd;
	char *mem = map_pages(npages);
	int fd = hmm_ref_open(0);

	(void)arg;
	if (!CHECK(mem != MAP_FAILED) || !CHECK(fd >= 0))
		return 1;
	fill_pages(mem, npages, 77);
	return !CHECK(!_test_migrate_all(fd, HMM_REF_TO_DEVICE, mem, npages, &cmd));
}

/* The device pages were full of another process's data. */
TEST_F(holes, no_data_of_another_process)
{
	unsigned long npages = 2 * block_pages();
	char *mem = test_map_pages(npages);
	unsigned long i;

	ASSERT_EQ(0, child_run(fill_device_and_exit, NULL));
	test_to_device(self->fd, mem, npages);
	test_pages_at(self->fd, mem, npages, HMM_REF_PAGE_DEVICE, npages);
	for (i = 0; i < npages; i++)
		ASSERT_TRUE(page_is_zero(mem + i * page_size()));
}

/* Pages of this process, shifted so that no page gets its old device page. */
TEST_F(holes, no_old_data_of_its_own)
{
	int round;

	for (round = 0; round < 10; round++) {
		fill_pages(self->mem, PAGES, round + 1);
		test_to_device(self->fd, self->mem, PAGES);
		ASSERT_EQ(0, madvise(self->mem, PAGES * page_size(), MADV_DONTNEED));
		test_to_device(self->fd, self->mem + page_size() * round,
			       PAGES - round);
		test_to_device(self->fd, self->mem, PAGES);
		test_zero(self->mem, PAGES);
	}
}

int main(int argc, char **argv)
{
	return hmm_ref_test_main(argc, argv);
}
