// SPDX-License-Identifier: GPL-2.0-only
/*
 * READ and WRITE of the device, and the page states that SNAPSHOT returns: any alignment, pages in
 * system memory and on the device, buffers that are themselves on the device.
 *
 * Covers: the struct page of device memory copied as if the CPU could access it; a device write
 * that is lost because its page was never marked dirty; a copy to user space that faults under a
 * lock of the driver.
 */
#include "hmm_ref_utils.h"
#include "hmm_ref_swap.h"

#define PAGES	16UL

FIXTURE(access)
{
	struct leak_check leak;
	int fd;
	char *mem;
	char *shadow;	/* expected content of mem */
	char *buf;
};

FIXTURE_VARIANT(access)
{
	int mix;	/* 0: all in system memory, 1: all on the device, 2: every other */
};

FIXTURE_VARIANT_ADD(access, system) { .mix = 0 };
FIXTURE_VARIANT_ADD(access, device) { .mix = 1 };
FIXTURE_VARIANT_ADD(access, mixed) { .mix = 2 };

FIXTURE_SETUP(access)
{
	leak_check_begin(_metadata, &self->leak);
	self->fd = test_open(0);
	self->mem = test_map_pages(PAGES);
	self->shadow = test_map_pages(PAGES);
	self->buf = test_map_pages(PAGES);
	fill_pages(self->mem, PAGES, 1);
	fill_pages(self->shadow, PAGES, 1);
}

FIXTURE_TEARDOWN_PARENT(access)
{
	leak_check_end(_metadata, &self->leak);
}

static void place(struct __test_metadata *_metadata, int fd, char *mem, int mix)
{
	unsigned long i;

	for (i = 0; mix && i < PAGES; i += mix)
		test_to_device(fd, mem + i * page_size(), 1);
}

#define test_place()	place(_metadata, self->fd, self->mem, variant->mix)

#define SPANS	9

static void spans(unsigned long *offset, unsigned long *length)
{
	const unsigned long o[SPANS] = {
		0, 1, 7, page_size() - 1, page_size() - 3, page_size() + 5,
		2 * page_size() + 4, 3 * page_size(), 9,
	};
	const unsigned long l[SPANS] = {
		1, 2, 8, 2, page_size(), page_size() + 1, 3 * page_size() - 1,
		2 * page_size(), 12 * page_size() + 13,
	};

	memcpy(offset, o, sizeof(o));
	memcpy(length, l, sizeof(l));
}

TEST_F(access, read_any_span)
{
	unsigned long offset[SPANS], length[SPANS];
	unsigned int i;

	spans(offset, length);
	test_place();
	for (i = 0; i < SPANS; i++) {
		memset(self->buf, 0xcc, PAGES * page_size());
		test_read(self->fd, self->mem + offset[i], length[i], self->buf + 1);
		ASSERT_EQ(0, memcmp(self->buf + 1, self->shadow + offset[i], length[i]));
		ASSERT_EQ((char)0xcc, self->buf[0]);
		ASSERT_EQ((char)0xcc, self->buf[1 + length[i]]);
	}
	ASSERT_EQ(0, memcmp(self->mem, self->shadow, PAGES * page_size()));
}

TEST_F(access, write_any_span)
{
	unsigned long offset[SPANS], length[SPANS];
	unsigned int i;

	spans(offset, length);
	for (i = 0; i < SPANS; i++) {
		test_place();
		memset(self->buf, 'a' + i, length[i]);
		memset(self->shadow + offset[i], 'a' + i, length[i]);
		test_write(self->fd, self->mem + offset[i], length[i], self->buf);
		memset(self->buf, 0xcc, PAGES * page_size());
		test_read(self->fd, self->mem, PAGES * page_size(), self->buf);
		ASSERT_EQ(0, memcmp(self->buf, self->shadow, PAGES * page_size()));
	}
	ASSERT_EQ(0, memcmp(self->mem, self->shadow, PAGES * page_size()));
}

/* An access does not migrate pages. */
TEST_F(access, pages_stay)
{
	long expected;

	test_place();
	expected = variant->mix ? PAGES / variant->mix : 0;
	test_dev_data(self->fd, self->mem, PAGES, 1);
	ASSERT_EQ(0, dev_fill_pages(self->fd, self->mem, PAGES, 2));
	test_pages_at(self->fd, self->mem, PAGES, HMM_REF_PAGE_DEVICE, expected);
	test_pages_at(self->fd, self->mem, PAGES, HMM_REF_PAGE_SYSTEM,
		      PAGES - expected);
}

/* A page that is in the device page table causes no more device faults. */
TEST_F(access, faults_once)
{
	struct hmm_ref_access cmd;
	int i;

	test_place();
	ASSERT_EQ(0, _test_access(self->fd, HMM_REF_IOC_READ, self->mem,
				  PAGES * page_size(), self->buf, &cmd));
	ASSERT_LT(0, cmd.out_faults);
	for (i = 0; i < 100; i++) {
		ASSERT_EQ(0, _test_access(self->fd, HMM_REF_IOC_READ, self->mem,
					  PAGES * page_size(), self->buf, &cmd));
		if (!cmd.out_faults)
			break;
	}
	ASSERT_EQ(0, cmd.out_faults);
}

/* To fill the buffer, the CPU has to bring it back from the device. */
TEST_F(access, buffer_on_device)
{
	int i;

	for (i = 0; i < 10; i++) {
		test_place();
		fill_pages(self->buf, PAGES, 50);
		test_to_device(self->fd, self->buf, PAGES);
		test_read(self->fd, self->mem, PAGES * page_size(), self->buf);
		test_cpu_data(self->buf, PAGES, i + 1);

		fill_pages(self->buf, PAGES, i + 2);
		test_to_device(self->fd, self->buf, PAGES);
		test_write(self->fd, self->mem, PAGES * page_size(), self->buf);
		test_dev_data(self->fd, self->mem, PAGES, i + 2);
	}
	test_cpu_data(self->mem, PAGES, 11);
}

/* Memory that is copied onto itself by the device does not change. */
TEST_F(access, buffer_is_the_range)
{
	test_place();
	test_read(self->fd, self->mem, PAGES * page_size(), self->mem);
	test_cpu_data(self->mem, PAGES, 1);
	test_place();
	test_write(self->fd, self->mem, PAGES * page_size(), self->mem);
	test_cpu_data(self->mem, PAGES, 1);
}

/* A range that is longer than any window of the driver, across blocks. */
TEST_F(access, long_range)
{
	unsigned long npages = block_pages() / 2 + 37;
	char *mem = (char *)test_map_blocks(2) + block_size() - 19 * page_size();
	char *buf = test_map_pages(npages);
	unsigned long i;

	fill_pages(mem, npages, 1);
	for (i = 0; variant->mix && i < npages; i += 64 * variant->mix)
		test_to_device(self->fd, mem + i * page_size(),
			       npages - i < 64 ? npages - i : 64);
	test_read(self->fd, mem, npages * page_size(), buf);
	test_cpu_data(buf, npages, 1);
	fill_pages(buf, npages, 2);
	test_write(self->fd, mem + 3, npages * page_size() - 11, buf + 3);
	ASSERT_EQ(0, memcmp(mem + 3, buf + 3, npages * page_size() - 11));
	ASSERT_TRUE(page_holds(mem + page_size(), 2, 1));
}

/* ---- SNAPSHOT --------------------------------------------------------------- */

FIXTURE(snapshot)
{
	struct leak_check leak;
	int fd;
	char *mem;
	struct hmm_ref_page_state *states;
};

FIXTURE_SETUP(snapshot)
{
	leak_check_begin(_metadata, &self->leak);
	self->fd = test_open(0);
	self->mem = test_map_pages(PAGES);
	self->states = test_map_pages(1);
}

FIXTURE_TEARDOWN_PARENT(snapshot)
{
	leak_check_end(_metadata, &self->leak);
}

TEST_F(snapshot, page_states)
{
	struct hmm_ref_page_state *s = self->states;
	struct hmm_ref_snapshot cmd;

	/* 0: hole, 1: zero page, 2: system memory, 3: device, 4: unmapped */
	touch_read(self->mem + 1 * page_size());
	touch_write(self->mem + 2 * page_size(), 1);
	touch_write(self->mem + 3 * page_size(), 1);
	test_to_device(self->fd, self->mem + 3 * page_size(), 1);
	ASSERT_EQ(0, munmap(self->mem + 4 * page_size(), page_size()));
	memset(s, 0xcc, 6 * sizeof(*s));
	test_snapshot(self->fd, self->mem, 5 * page_size(), s, &cmd);

	EXPECT_EQ(5, cmd.out_pages);
	EXPECT_EQ(HMM_REF_PAGE_NONE, s[0].where);
	EXPECT_EQ(HMM_REF_PAGE_ZERO, s[1].where);
	EXPECT_EQ(0, s[1].flags & HMM_REF_PAGE_WRITE);
	EXPECT_EQ(HMM_REF_PAGE_SYSTEM, s[2].where);
	EXPECT_EQ(HMM_REF_PAGE_WRITE, s[2].flags & HMM_REF_PAGE_WRITE);
	EXPECT_EQ(HMM_REF_PAGE_DEVICE, s[3].where);
	EXPECT_EQ(HMM_REF_PAGE_WRITE, s[3].flags & HMM_REF_PAGE_WRITE);
	EXPECT_EQ(HMM_REF_PAGE_ERROR, s[4].where);
	EXPECT_EQ(0xcc, s[5].where);
	EXPECT_EQ(HMM_REF_WHY_ABSENT, s[0].why);
	EXPECT_EQ(0, s[1].why | s[2].why | s[3].why);
	EXPECT_EQ(HMM_REF_WHY_UNMAPPED, s[4].why);
}

/* SNAPSHOT does not fault pages in. */
TEST_F(snapshot, changes_nothing)
{
	test_pages_at(self->fd, self->mem, PAGES, HMM_REF_PAGE_NONE, PAGES);
	test_pages_at(self->fd, self->mem, PAGES, HMM_REF_PAGE_NONE, PAGES);
	fill_pages(self->mem, PAGES, 1);
	test_to_device(self->fd, self->mem, PAGES);
	test_pages_at(self->fd, self->mem, PAGES, HMM_REF_PAGE_DEVICE, PAGES);
	test_pages_at(self->fd, self->mem, PAGES, HMM_REF_PAGE_DEVICE, PAGES);
	test_cpu_data(self->mem, PAGES, 1);
}

static bool has_flags(int fd, const char *addr, unsigned int flags)
{
	struct hmm_ref_page_state state;
	struct hmm_ref_snapshot cmd;

	return !_test_snapshot(fd, addr, page_size(), &state, &cmd) &&
	       (state.flags & flags) == flags;
}

TEST_F(snapshot, device_page_table)
{
	const unsigned int both = HMM_REF_PAGE_MAPPED | HMM_REF_PAGE_DEV_WRITE;
	char word[8] = "seven__";
	int i;

	for (i = 0; i < 2; i++) {
		fill_pages(self->mem, PAGES, 1);
		if (i)
			test_to_device(self->fd, self->mem, PAGES);
		EXPECT_FALSE(has_flags(self->fd, self->mem, HMM_REF_PAGE_MAPPED));
		test_read(self->fd, self->mem, sizeof(word), word);
		EXPECT_TRUE(has_flags(self->fd, self->mem, HMM_REF_PAGE_MAPPED));
		test_write(self->fd, self->mem, sizeof(word), word);
		EXPECT_TRUE(has_flags(self->fd, self->mem, both));
		ASSERT_EQ(0, madvise(self->mem, PAGES * page_size(), MADV_DONTNEED));
		EXPECT_FALSE(has_flags(self->fd, self->mem, HMM_REF_PAGE_MAPPED));
	}
}

/* An invalidation drops the pages that it covers, and no others. */
TEST_F(snapshot, invalidation_is_exact)
{
	unsigned long i;

	fill_pages(self->mem, PAGES, 1);
	test_dev_data(self->fd, self->mem, PAGES, 1);
	for (i = 0; i < PAGES; i++)
		EXPECT_TRUE(has_flags(self->fd, self->mem + i * page_size(),
				      HMM_REF_PAGE_MAPPED));
	ASSERT_EQ(0, madvise(self->mem + 4 * page_size(), 4 * page_size(),
			     MADV_DONTNEED));
	for (i = 0; i < PAGES; i++)
		EXPECT_EQ(i < 4 || i >= 8,
			  has_flags(self->fd, self->mem + i * page_size(),
				    HMM_REF_PAGE_MAPPED));
}

TEST_F(snapshot, huge_page_order)
{
	struct hmm_ref_page_state *s;
	struct hmm_ref_snapshot cmd;
	char *mem = test_map_blocks(1);
	unsigned long i;

	ASSERT_EQ(0, madvise(mem, block_size(), MADV_HUGEPAGE));
	fill_pages(mem, block_pages(), 1);
	s = __test_map(_metadata, mmap(NULL, block_pages() * sizeof(*s),
				       PROT_READ | PROT_WRITE,
				       MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
	test_snapshot(self->fd, mem, block_size(), s, &cmd);
	if (!s[0].order)
		SKIP(return, "no transparent huge page can be allocated");
	for (i = 0; i < block_pages(); i++) {
		ASSERT_EQ(block_pages(), 1UL << s[i].order);
		ASSERT_EQ(HMM_REF_PAGE_SYSTEM, s[i].where);
	}
	ASSERT_EQ(0, mprotect(mem, page_size(), PROT_READ));
	test_snapshot(self->fd, mem, block_size(), s, &cmd);
	ASSERT_EQ(0, s[0].flags & HMM_REF_PAGE_WRITE);
	ASSERT_EQ(0, s[0].order);
	ASSERT_NE(0, s[1].flags & HMM_REF_PAGE_WRITE);
}

/* ---- device writes after MADV_FREE ------------------------------------------ */

/*
 * After MADV_FREE the kernel may drop pages until they are written again. Page 0 is left alone, the
 * device writes page 1, the CPU page 2.
 */
TEST_F(snapshot, write_to_lazily_freed_page)
{
	unsigned long long deadline = now_ms() + PATIENCE_MS;
	char *buf = test_map_pages(1);

	/* MADV_FREE skips pages that are in another CPU's batch for the LRU lists. */
	run_on_cpu(0);
	fill_pages(self->mem, 3, 1);
	ASSERT_EQ(0, madvise(self->mem, 3 * page_size(), MADV_FREE));
	fill_pages_from(buf, 1, 2, 1);
	test_write(self->fd, self->mem + page_size(), page_size(), buf);
	fill_pages_from(self->mem + 2 * page_size(), 1, 2, 2);
	do {
		int rc = page_out(self->mem, 3 * page_size());

		if (rc)
			SKIP(return, "MADV_PAGEOUT: %s", strerror(-rc));
	} while (!page_is_zero(self->mem) && now_ms() < deadline);
	ASSERT_TRUE(page_holds(self->mem + page_size(), 2, 1));
	ASSERT_TRUE(page_holds(self->mem + 2 * page_size(), 2, 2));
	if (!page_is_zero(self->mem))
		SKIP(return, "MADV_PAGEOUT does not take lazily freed pages here");
}

/* The device reads and writes a hole. The device pages around it stay on the device. */
TEST_F(snapshot, hole_among_device_pages)
{
	char *buf = test_map_pages(PAGES);

	fill_pages(self->mem, PAGES, 1);
	test_to_device(self->fd, self->mem, PAGES);
	ASSERT_EQ(0, madvise(self->mem, page_size(), MADV_DONTNEED));
	ASSERT_EQ(0, madvise(self->mem + 5 * page_size(), page_size(), MADV_DONTNEED));
	test_read(self->fd, self->mem, PAGES * page_size(), buf);
	ASSERT_TRUE(page_is_zero(buf));
	ASSERT_TRUE(page_is_zero(buf + 5 * page_size()));
	ASSERT_TRUE(page_holds(buf + 6 * page_size(), 1, 6));
	test_pages_at(self->fd, self->mem, PAGES, HMM_REF_PAGE_DEVICE, PAGES - 2);
	fill_pages(buf, PAGES, 2);
	test_write(self->fd, self->mem, PAGES * page_size(), buf);
	test_pages_at(self->fd, self->mem, PAGES, HMM_REF_PAGE_DEVICE, PAGES - 2);
	test_cpu_data(self->mem, PAGES, 2);
}

/* As above, for pages that were on the device at MADV_FREE. */
TEST_F(snapshot, write_after_lazy_free_on_device)
{
	char *buf = test_map_pages(PAGES);

	fill_pages(self->mem, PAGES, 1);
	test_to_device(self->fd, self->mem, PAGES);
	ASSERT_EQ(0, madvise(self->mem, PAGES * page_size(), MADV_FREE));
	fill_pages(buf, PAGES, 2);
	test_write(self->fd, self->mem, PAGES * page_size(), buf);
	madvise(self->mem, PAGES * page_size(), MADV_PAGEOUT);
	test_dev_data(self->fd, self->mem, PAGES, 2);
	test_to_system(self->fd, self->mem, PAGES);
	madvise(self->mem, PAGES * page_size(), MADV_PAGEOUT);
	test_cpu_data(self->mem, PAGES, 2);
}

int main(int argc, char **argv)
{
	return hmm_ref_test_main(argc, argv);
}
