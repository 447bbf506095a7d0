// SPDX-License-Identifier: GPL-2.0-only
/*
 * Every allocation of a command fails once: the first, then the second, and so on
 * until the command gets by. Each failure is an error with true counts, or something
 * that the driver did without; the data is right and the next try succeeds.
 *
 * The kernel counts for this task alone (/proc/self/task/.../fail-nth), so neither
 * the order nor the number of allocations need to be known.
 *
 * And one command without any memory at all.
 *
 * Stands for: memory for the device page table that could not be had, which nobody
 * was told; a pointer that is used although the allocation failed; an open that
 * leaks what it had when it failed.
 *
 * Needs a kernel with failslab and fail_page_alloc, as the debug flavour has.
 */
#include "hmm_ref_utils.h"

#define PAGES		24UL
#define NTH_MAX		2000
#define DEBUGFS		"/sys/kernel/debug/"

FIXTURE(nth)
{
	struct leak_check leak;
	int nth;		/* the open file */
	char *mem;
	char *buf;
	size_t size;
	int fd;
};

enum what { OPEN, TO_DEVICE, HOLES_TO_DEVICE, TO_SYSTEM, READ, WRITE };

FIXTURE_VARIANT(nth)
{
	enum what what;
	bool on_device;		/* where the pages are at first */
	bool silent;		/* the driver may do without, or try again */
};

FIXTURE_VARIANT_ADD(nth, open) { .what = OPEN };
FIXTURE_VARIANT_ADD(nth, to_device) { .what = TO_DEVICE, .silent = true };
FIXTURE_VARIANT_ADD(nth, holes_to_device) { .what = HOLES_TO_DEVICE, .silent = true };
FIXTURE_VARIANT_ADD(nth, to_system) { .what = TO_SYSTEM, .on_device = true };
FIXTURE_VARIANT_ADD(nth, read) { .what = READ, .silent = true };
FIXTURE_VARIANT_ADD(nth, write) { .what = WRITE, .silent = true };
FIXTURE_VARIANT_ADD(nth, read_device) { .what = READ, .on_device = true, .silent = true };
FIXTURE_VARIANT_ADD(nth, write_device) { .what = WRITE, .on_device = true,
					 .silent = true };

/* All allocations may fail, and say nothing of it. */
static int attr_setup(void)
{
	int rc = write_file(DEBUGFS "failslab/ignore-gfp-wait", "N");

	rc = rc ? rc : write_file(DEBUGFS "failslab/verbose", "0");
	rc = rc ? rc : write_file(DEBUGFS "fail_page_alloc/ignore-gfp-wait", "N");
	rc = rc ? rc : write_file(DEBUGFS "fail_page_alloc/ignore-gfp-highmem", "N");
	rc = rc ? rc : write_file(DEBUGFS "fail_page_alloc/min-order", "0");
	rc = rc ? rc : write_file(DEBUGFS "fail_page_alloc/verbose", "0");
	/* Of the driver itself, where it has it. */
	write_file(DEBUGFS "hmm_ref/fail_copy/verbose", "0");
	return rc;
}

FIXTURE_SETUP(nth)
{
	char path[64];

	snprintf(path, sizeof(path), "/proc/self/task/%ld/fail-nth", syscall(SYS_gettid));
	self->nth = open(path, O_RDWR | O_CLOEXEC);
	if (self->nth < 0 || attr_setup())
		SKIP(return, "no fail-nth: CONFIG_FAILSLAB, CONFIG_FAIL_PAGE_ALLOC");
	leak_check_begin(_metadata, &self->leak);
	self->fd = test_open(0);
	self->size = PAGES * page_size();
	self->mem = test_map_blocks(1);
	self->buf = test_map_pages(PAGES);
	/* Now, or copying to them would allocate, too. */
	fill_pages(self->buf, PAGES, 1);
}

FIXTURE_TEARDOWN_PARENT(nth)
{
	leak_check_end(_metadata, &self->leak);
}

/* Fail the @nth allocation from now, 0: none. */
static int fail_nth(int file, int nth)
{
	char text[16];
	int len = snprintf(text, sizeof(text), "%d", nth);

	return pwrite(file, text, len, 0) == len ? 0 : -errno;
}

/* How many are still to come: 0 when it has failed. */
static int fail_left(int file)
{
	char text[16] = {};

	return pread(file, text, sizeof(text) - 1, 0) > 0 ? atoi(text) : -errno;
}

static int run(enum what what, int fd, char *mem, size_t size, char *buf)
{
	struct hmm_ref_migrate migrate;
	int rc;

	switch (what) {
	case OPEN:
		rc = hmm_ref_open(0);
		if (rc >= 0)
			close(rc);
		return rc < 0 ? rc : 0;
	case TO_DEVICE:
	case HOLES_TO_DEVICE:
		return _test_migrate(fd, HMM_REF_TO_DEVICE, mem, size, &migrate);
	case TO_SYSTEM:
		return _test_migrate(fd, HMM_REF_TO_SYSTEM, mem, size, &migrate);
	case READ:
		return _test_read(fd, mem, size, buf);
	case WRITE:
		return _test_write(fd, mem, size, buf);
	}
	return -EINVAL;
}

TEST_F_TIMEOUT(nth, each_allocation_fails, LONG_TEST)
{
	bool holes = variant->what == HOLES_TO_DEVICE;
	int failed = 0, nth, left, rc;

	for (nth = 1; nth < NTH_MAX; nth++) {
		/* From the start: no device page table, no pages of the device's. */
		ASSERT_EQ(0, madvise(self->mem, block_size(), MADV_DONTNEED));
		close(self->fd);
		self->fd = test_open(0);
		if (!holes)
			fill_pages(self->mem, PAGES, 1);
		fill_pages(self->buf, PAGES, 1);
		if (variant->on_device)
			test_to_device(self->fd, self->mem, PAGES);

		ASSERT_EQ(0, fail_nth(self->nth, nth));
		rc = run(variant->what, self->fd, self->mem, self->size, self->buf);
		left = fail_left(self->nth);
		ASSERT_EQ(0, fail_nth(self->nth, 0));
		ASSERT_LE(0, left);
		ASSERT_TRUE(!rc || rc == -ENOMEM || rc == -EIO) {
			TH_LOG("allocation %d: %s", nth, strerror(-rc));
		}
		failed += rc != 0;

		ASSERT_EQ(0, run(variant->what, self->fd, self->mem, self->size, self->buf));
		ASSERT_TRUE(holes ? page_is_zero(self->mem) :
				    !bad_pages(self->mem, PAGES, 1));
		if (left > 0)
			break;
	}
	ASSERT_GT(NTH_MAX, nth);
	ASSERT_LT(1, nth);
	if (!variant->silent)
		EXPECT_LT(0, failed);
	TH_LOG("%d allocations, %d of them were missed", nth - 1, failed);
}

/* ---- no memory at all ------------------------------------------------------------ */

#define FAILSLAB	DEBUGFS "failslab/"

FIXTURE(never)
{
	struct leak_check leak;
	int make_it_fail;	/* the open file */
	char *mem;
	int fd;
};

FIXTURE_SETUP(never)
{
	if (write_file(FAILSLAB "task-filter", "Y") || attr_setup())
		SKIP(return, "no failslab: CONFIG_FAILSLAB, CONFIG_FAULT_INJECTION_DEBUG_FS");
	leak_check_begin(_metadata, &self->leak);
	self->fd = test_open(0);
	self->mem = test_map_pages(PAGES);
	fill_pages(self->mem, PAGES, 1);
	self->make_it_fail = open("/proc/self/make-it-fail", O_RDWR | O_CLOEXEC);
	ASSERT_LE(0, self->make_it_fail);
}

FIXTURE_TEARDOWN_PARENT(never)
{
	if (access(FAILSLAB "probability", F_OK))
		return;
	EXPECT_EQ(0, attr_disarm(FAILSLAB));
	EXPECT_EQ(0, write_file(FAILSLAB "task-filter", "N"));
	leak_check_end(_metadata, &self->leak);
}

/* No table for the device page table: an error, at once, and not the wrong one. */
TEST_F(never, device_page_table)
{
	char byte = 0x5a, *first = self->mem;
	unsigned long long start;
	int read_rc, write_rc;

	ASSERT_EQ(0, attr_arm(FAILSLAB, 0, -1));
	start = now_ms();
	ASSERT_EQ(1, pwrite(self->make_it_fail, "1", 1, 0));
	read_rc = _test_read(self->fd, first, 1, &byte);
	write_rc = _test_write(self->fd, first, 1, &byte);
	ASSERT_EQ(1, pwrite(self->make_it_fail, "0", 1, 0));
	EXPECT_EQ(-ENOMEM, read_rc);
	EXPECT_EQ(-ENOMEM, write_rc);
	EXPECT_EQ(0x5a, byte);
	EXPECT_GT(2000, now_ms() - start);
	test_dev_data(self->fd, self->mem, PAGES, 1);
	test_cpu_data(self->mem, PAGES, 1);
}

int main(int argc, char **argv)
{
	return hmm_ref_test_main(argc, argv);
}
