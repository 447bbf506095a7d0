// SPDX-License-Identifier: GPL-2.0-only
/*
 * Commands over several windows. Whatever the windows have, and wherever they end, the whole range
 * migrates. When a window fails, the counts and the data are right.
 *
 * Covers: a window that continues after the one before it has failed, that is counted for another
 * one, or that ends too early or too late.
 */
#include "hmm_ref_utils.h"

#define BLOCKS		5UL
#define FAIL_COPY	"/sys/kernel/debug/hmm_ref/fail_copy/"

FIXTURE(windows)
{
	struct leak_check leak;
	int fd;
	char *mem;
	unsigned long npages;
};

FIXTURE_VARIANT(windows)
{
	int advice;
};

FIXTURE_VARIANT_ADD(windows, small) { .advice = MADV_NOHUGEPAGE };
FIXTURE_VARIANT_ADD(windows, huge) { .advice = MADV_HUGEPAGE };

FIXTURE_SETUP(windows)
{
	leak_check_begin(_metadata, &self->leak);
	self->fd = test_open(0);
	self->mem = test_map_blocks(BLOCKS);
	self->npages = BLOCKS * block_pages();
	ASSERT_EQ(0, madvise(self->mem, BLOCKS * block_size(), variant->advice));
}

FIXTURE_TEARDOWN_PARENT(windows)
{
	if (!access(FAIL_COPY "probability", F_OK))
		EXPECT_EQ(0, attr_disarm(FAIL_COPY));
	leak_check_end(_metadata, &self->leak);
}

/* All pages of the range migrate, and none beside it. */
static void go_and_return(struct __test_metadata *_metadata, int fd, char *blocks,
			  unsigned long npages, unsigned long first)
{
	char *mem = blocks + first * page_size();

	fill_pages(mem, npages, 1);
	test_to_device(fd, mem, npages);
	test_pages_at(fd, blocks, BLOCKS * block_pages(), HMM_REF_PAGE_DEVICE, npages);
	test_dev_data(fd, mem, npages, 1);
	test_to_system(fd, mem, npages);
	test_pages_at(fd, mem, npages, HMM_REF_PAGE_SYSTEM, npages);
	test_cpu_data(mem, npages, 1);
}

TEST_F(windows, whole)
{
	go_and_return(_metadata, self->fd, self->mem, 2 * block_pages(), 0);
	go_and_return(_metadata, self->fd, self->mem, BLOCKS * block_pages(), 0);
}

TEST_F(windows, begin_and_end_inside)
{
	go_and_return(_metadata, self->fd, self->mem, block_pages(), 7);
	go_and_return(_metadata, self->fd, self->mem, 2 * block_pages(), 7);
	go_and_return(_metadata, self->fd, self->mem, 3 * block_pages() + 5, block_pages() - 3);
}

TEST_F(windows, holes_and_pages)
{
	unsigned long i;

	for (i = 0; i < BLOCKS; i += 2)
		fill_pages_from(self->mem + i * block_size(), block_pages(), 1,
				i * block_pages());
	test_to_device(self->fd, self->mem, self->npages);
	test_to_system(self->fd, self->mem, self->npages);
	for (i = 0; i < self->npages; i++) {
		char *page = self->mem + i * page_size();

		ASSERT_TRUE(i / block_pages() % 2 ? page_is_zero(page) :
						    page_holds(page, 1, i));
	}
}

/* Windows end where mappings end. */
TEST_F(windows, mappings_end_in_windows)
{
	static const unsigned int cuts[] = { 1, 500, 512, 513, 1000, 1024, 1300 };
	unsigned int i;

	/* Where huge pages do not stay whole, those that are mapped in parts do not migrate. */
	if (variant->advice == MADV_HUGEPAGE && !keeps_large())
		SKIP(return, "this kernel does not move parts of a huge page");
	fill_pages(self->mem, self->npages, 1);
	for (i = 0; i < ARRAY_SIZE(cuts); i++)
		ASSERT_EQ(0, madvise(self->mem + cuts[i] * page_size(), page_size(),
				     i % 2 ? MADV_DONTDUMP : MADV_DONTFORK));
	test_to_device(self->fd, self->mem, self->npages);
	test_dev_data(self->fd, self->mem, self->npages, 1);
	test_to_system(self->fd, self->mem, self->npages);
	test_cpu_data(self->mem, self->npages, 1);
}

/* A page that stays in one window is counted, and all others migrate. */
TEST_F(windows, one_page_stays)
{
	struct hmm_ref_migrate cmd;
	unsigned long i;

	for (i = 0; i < 4; i++) {
		char *stays = test_map_blocks(4);

		fill_pages(stays, 4 * block_pages(), 1);
		ASSERT_EQ(0, mprotect(stays + i * block_size(), block_size(), PROT_NONE));
		test_migrate(self->fd, HMM_REF_TO_DEVICE, stays, 4 * block_size(), &cmd);
		EXPECT_EQ(block_pages(), cmd.out_skipped);
		EXPECT_EQ(0, cmd.out_already);
		EXPECT_EQ(3 * block_pages(), cmd.out_migrated);
		test_pages_at(self->fd, stays + i * block_size(), block_pages(),
			      HMM_REF_PAGE_DEVICE, 0);
		ASSERT_EQ(0, mprotect(stays + i * block_size(), block_size(),
				      PROT_READ | PROT_WRITE));
		test_cpu_data(stays, 4 * block_pages(), 1);
		munmap(stays, 4 * block_size());
	}
}

/*
 * The copies of one window fail. Those before it have migrated, and none behind it has. A huge page
 * that cannot be read is retried page by page.
 */
static void fail_window(struct __test_metadata *_metadata, int fd, char *mem,
			unsigned int direction, unsigned int bad, bool huge)
{
	unsigned int there = direction == HMM_REF_TO_DEVICE ? HMM_REF_PAGE_DEVICE :
							      HMM_REF_PAGE_SYSTEM;
	unsigned long before = bad * block_pages();
	struct hmm_ref_migrate cmd;

	ASSERT_EQ(0, attr_arm(FAIL_COPY, bad, huge && direction == HMM_REF_TO_SYSTEM ? 2 : 1));
	test_err_migrate(EIO, fd, direction, mem, BLOCKS * block_size(), &cmd);
	EXPECT_EQ(before, cmd.out_migrated);
	EXPECT_EQ(0, cmd.out_already);
	EXPECT_EQ(block_pages(), cmd.out_skipped);
	test_pages_at(fd, mem, BLOCKS * block_pages(), there, before);
}

TEST_F(windows, copies_fail)
{
	bool huge = variant->advice == MADV_HUGEPAGE &&
		    hmm_ref_dev_info.out_folio_size > page_size();
	unsigned int bad;

	if (access(FAIL_COPY "probability", F_OK))
		SKIP(return, "no " FAIL_COPY ": CONFIG_FAULT_INJECTION_DEBUG_FS");
	fill_pages(self->mem, self->npages, 1);
	for (bad = 0; bad < BLOCKS; bad++) {
		fail_window(_metadata, self->fd, self->mem, HMM_REF_TO_DEVICE, bad, huge);
		test_to_device(self->fd, self->mem, self->npages);
		fail_window(_metadata, self->fd, self->mem, HMM_REF_TO_SYSTEM, bad, huge);
		test_to_system(self->fd, self->mem, self->npages);
		test_cpu_data(self->mem, self->npages, 1);
	}
}

int main(int argc, char **argv)
{
	return hmm_ref_test_main(argc, argv);
}
