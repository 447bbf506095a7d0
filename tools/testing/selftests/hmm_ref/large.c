// SPDX-License-Identifier: GPL-2.0-only
/*
 * Large folios: a huge page migrates in both directions as a whole, and is used in parts.
 *
 * Covers: a device access to the middle of a huge page that returns its beginning; counts of folios
 * instead of pages; a fault on a part that unlocks a page which is not locked.
 */
#include "hmm_ref_large.h"

#define RETIRE		"/sys/kernel/debug/hmm_ref/hmm_ref0/retire"

FIXTURE(large)
{
	struct leak_check leak;
	unsigned long pages;
	int fd;
	char *mem;
};

FIXTURE_SETUP(large)
{
	const char *why_not;

	leak_check_begin(_metadata, &self->leak);
	self->fd = test_open(0);
	self->pages = block_pages();
	self->mem = test_map_blocks(1);
	why_not = map_huge(self->fd, self->mem);
	if (why_not)
		SKIP(return, "%s", why_not);
}

FIXTURE_TEARDOWN_PARENT(large)
{
	/* Binding the device again makes retired pages usable. */
	device_unbind(0);
	device_bind(0);
	leak_check_end(_metadata, &self->leak);
}

TEST_F(large, both_ways)
{
	struct hmm_ref_stats before, after;

	test_stats(self->fd, &before);
	test_one_migrate(HMM_REF_TO_DEVICE);
	test_block(HMM_REF_PAGE_DEVICE, HUGE_ORDER);
	test_stats(self->fd, &after);
	ASSERT_EQ(self->pages, after.out_pages_in_use - before.out_pages_in_use);
	ASSERT_EQ(self->pages, after.out_pages_client);
	ASSERT_EQ(self->pages, after.out_to_device - before.out_to_device);
	test_dev_data(self->fd, self->mem, self->pages, 1);
	ASSERT_EQ(0, dev_fill_pages(self->fd, self->mem, self->pages, 2));
	test_block(HMM_REF_PAGE_DEVICE, HUGE_ORDER);
	test_one_migrate(HMM_REF_TO_SYSTEM);
	test_block(HMM_REF_PAGE_SYSTEM, HUGE_ORDER);
	test_cpu_data(self->mem, self->pages, 2);
}

TEST_F(large, cpu_fault)
{
	struct hmm_ref_stats before, after;

	test_one_migrate(HMM_REF_TO_DEVICE);
	test_stats(self->fd, &before);
	touch_read(self->mem + 300 * page_size());
	test_stats(self->fd, &after);
	test_block(HMM_REF_PAGE_SYSTEM, HUGE_ORDER);
	test_cpu_data(self->mem, self->pages, 1);
	ASSERT_EQ(self->pages, after.out_fault_pages - before.out_fault_pages);
}

/* Each page by a command of its own, so that each fault starts in the middle of the huge page. */
static void __test_each_page(struct __test_metadata *_metadata, int fd, char *mem)
{
	char *buf = malloc(page_size());
	unsigned long i;

	ASSERT_NE(NULL, buf);
	for (i = block_pages(); i--; ) {
		test_read(fd, mem + i * page_size(), page_size(), buf);
		ASSERT_TRUE(page_holds(buf, 1, i));
		/* Zap the entries of the device. */
		if (i % 8 == 0) {
			ASSERT_EQ(0, mprotect(mem, block_size(), PROT_READ));
			ASSERT_EQ(0, mprotect(mem, block_size(),
					      PROT_READ | PROT_WRITE));
		}
	}
	free(buf);
}

TEST_F(large, device_reads_each_page)
{
	__test_each_page(_metadata, self->fd, self->mem);
	test_one_migrate(HMM_REF_TO_DEVICE);
	__test_each_page(_metadata, self->fd, self->mem);
}

TEST_F(large, hole)
{
	ASSERT_EQ(0, madvise(self->mem, block_size(), MADV_DONTNEED));
	test_one_migrate(HMM_REF_TO_DEVICE);
	test_block(HMM_REF_PAGE_DEVICE, HUGE_ORDER);
	ASSERT_TRUE(page_is_zero(self->mem));
	ASSERT_TRUE(page_is_zero(self->mem + block_size() - page_size()));
	test_block(HMM_REF_PAGE_SYSTEM, HUGE_ORDER);
}

TEST_F(large, huge_zero_page)
{
	ASSERT_EQ(0, madvise(self->mem, block_size(), MADV_DONTNEED));
	touch_read(self->mem);
	test_one_migrate(HMM_REF_TO_DEVICE);
	test_block(HMM_REF_PAGE_DEVICE, HUGE_ORDER);
	test_one_migrate(HMM_REF_TO_SYSTEM);
	ASSERT_TRUE(page_is_zero(self->mem + 17 * page_size()));
}

/* A part of the folio migrates: the core splits it, on either side. */
TEST_F(large, in_parts)
{
	test_one_migrate(HMM_REF_TO_DEVICE);
	test_to_system(self->fd, self->mem + 100 * page_size(), 10);
	test_pages_at(self->fd, self->mem, self->pages, HMM_REF_PAGE_DEVICE,
		      self->pages - 10);
	test_to_device(self->fd, self->mem, self->pages);
	test_block(HMM_REF_PAGE_DEVICE, 0);
	test_dev_data(self->fd, self->mem, self->pages, 1);
	test_one_migrate(HMM_REF_TO_SYSTEM);
	test_cpu_data(self->mem, self->pages, 1);
}

/* The CPU touches a page of a folio that PTEs map. */
TEST_F(large, cpu_fault_on_a_part)
{
	unsigned long left;

	test_one_migrate(HMM_REF_TO_DEVICE);
	ASSERT_EQ(0, munmap(self->mem, page_size()));
	touch_read(self->mem + 30 * page_size());
	left = pages_at(self->fd, self->mem + page_size(), self->pages - 1,
			HMM_REF_PAGE_DEVICE);
	ASSERT_GE(self->pages - 2, left);
	ASSERT_LE(self->pages / 2, left);
	ASSERT_EQ(0, bad_pages_from(self->mem + page_size(), self->pages - 1, 1, 1));
}

/*
 * As above, with the first page of the folio among the neighbours: the core mistook it for the page
 * that the fault has locked, and unlocked it.
 */
TEST_F(large, cpu_fault_near_the_head)
{
	struct hmm_ref_audit audit;

	test_go_through_memory(self->fd);
	test_one_migrate(HMM_REF_TO_DEVICE);
	ASSERT_EQ(0, munmap(self->mem + block_size() - page_size(), page_size()));
	touch_read(self->mem + page_size());
	test_cpu_data(self->mem, self->pages - 1, 1);
	test_audit(self->fd, &audit);
	ASSERT_EQ(0, audit.out_violations);
}

TEST_F(large, hole_without_thp)
{
	ASSERT_EQ(0, madvise(self->mem, block_size(), MADV_DONTNEED));
	ASSERT_EQ(0, madvise(self->mem, block_size(), MADV_NOHUGEPAGE));
	test_one_migrate(HMM_REF_TO_DEVICE);
	test_block(HMM_REF_PAGE_DEVICE, 0);
	ASSERT_TRUE(page_is_zero(self->mem + 9 * page_size()));
}

/* A page of each block is marked bad while the block is used as one folio. */
TEST_F(large, retired_page)
{
	struct hmm_ref_audit audit;
	struct hmm_ref_info info;
	unsigned long nblocks;
	char text[32];

	/* Start with a device without bad pages. */
	close(self->fd);
	ASSERT_EQ(0, device_unbind(0));
	ASSERT_EQ(0, device_bind(0));
	self->fd = test_open(0);
	test_one_migrate(HMM_REF_TO_DEVICE);
	test_audit(self->fd, &audit);
	nblocks = audit.out_total / self->pages;
	for (unsigned long i = 0; i < nblocks; i++) {
		snprintf(text, sizeof(text), "%lu", i * self->pages + 3);
		if (write_file(RETIRE, text))
			SKIP(return, "no debugfs");
	}
	test_audit(self->fd, &audit);
	ASSERT_EQ(nblocks - 1, audit.out_retired);
	touch_read(self->mem);
	test_audit(self->fd, &audit);
	ASSERT_EQ(0, audit.out_violations);
	ASSERT_EQ(nblocks, audit.out_retired);

	/* No block can be used as a whole now, unless another chunk can be added. */
	test_info(self->fd, &info);
	test_one_migrate(HMM_REF_TO_DEVICE);
	test_block(HMM_REF_PAGE_DEVICE,
		   info.out_capacity / page_size() > audit.out_total ? HUGE_ORDER : 0);
	test_cpu_data(self->mem, self->pages, 1);
}

int main(int argc, char **argv)
{
	return hmm_ref_test_main(argc, argv);
}
