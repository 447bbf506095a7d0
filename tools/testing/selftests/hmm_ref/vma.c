// SPDX-License-Identifier: GPL-2.0-only
/*
 * Changes of a mapping while its pages are on the device: protection, unmapping, moving, advice,
 * locking. Afterwards the CPU and the device get the right data or the right error.
 *
 * Covers: entries of the device page table that a change of protection drops, and that are then
 * filled with device pages that the CPU cannot copy from; pages that are looked up by address or in
 * a list of ranges, which mremap and partial unmapping make wrong; a device that writes to memory
 * that the process may only read; pages that cannot be migrated back because their mapping has
 * changed.
 */
#include "hmm_ref_utils.h"

#define PAGES	54UL
#define THIRD	(PAGES / 3)

FIXTURE(vma)
{
	struct leak_check leak;
	int fd;
	char *mem;	/* three thirds; the tests change the middle one */
	char *middle;
	char *last;
	unsigned long size;	/* of a third */
};

FIXTURE_SETUP(vma)
{
	leak_check_begin(_metadata, &self->leak);
	self->fd = test_open(0);
	self->mem = test_map_pages(PAGES);
	self->size = THIRD * page_size();
	self->middle = self->mem + self->size;
	self->last = self->middle + self->size;
	fill_pages(self->mem, PAGES, 1);
	test_to_device(self->fd, self->mem, PAGES);
	test_dev_data(self->fd, self->mem, PAGES, 1);
}

FIXTURE_TEARDOWN_PARENT(vma)
{
	leak_check_end(_metadata, &self->leak);
}

#define test_third(mem, seed, first) \
	ASSERT_EQ(0, bad_pages_from(mem, THIRD, seed, first))

/* Checks the thirds that were not changed. */
#define test_the_others() do { \
	test_dev_data(self->fd, self->mem, THIRD, 1); \
	test_third(self->mem, 1, 0); \
	test_third(self->last, 1, 2 * THIRD); \
} while (0)

/* Returns whether an access at @addr gets SIGSEGV. */
struct touch {
	char *addr;
	bool write;
};

static int touch_main(void *arg)
{
	struct touch *touch = arg;

	if (touch->write)
		touch_write(touch->addr, 1);
	else
		touch_read(touch->addr);
	return 0;
}

static bool segfaults(char *addr, bool write)
{
	struct touch touch = { .addr = addr, .write = write };

	return child_run(touch_main, &touch) == CHILD_SIGNAL + SIGSEGV;
}

/* ---- protection ---------------------------------------------------------------- */

TEST_F(vma, mprotect_read)
{
	char word[8] = "notmine";

	ASSERT_EQ(0, mprotect(self->middle, self->size, PROT_READ));
	test_pages_at(self->fd, self->middle, THIRD, HMM_REF_PAGE_DEVICE, THIRD);
	test_read(self->fd, self->middle, sizeof(word), word);
	test_err_write(EPERM, self->fd, self->middle, sizeof(word), word);
	test_err_write(EPERM, self->fd, self->middle + self->size - 1, 1, word);
	ASSERT_TRUE(segfaults(self->middle, true));
	test_third(self->middle, 1, THIRD);
	test_err_write(EPERM, self->fd, self->middle, sizeof(word), word);
	test_the_others();
}

/* A write that begins in writable memory and continues into read-only memory. */
TEST_F(vma, write_into_read_only)
{
	char *buf = test_map_pages(PAGES);
	struct hmm_ref_access cmd;

	fill_pages(buf, PAGES, 2);
	ASSERT_EQ(0, mprotect(self->middle, self->size, PROT_READ));
	ASSERT_EQ(-EPERM, _test_access(self->fd, HMM_REF_IOC_WRITE, self->mem,
				       PAGES * page_size(), buf, &cmd));
	ASSERT_EQ(self->size, cmd.out_bytes);
	test_third(self->mem, 2, 0);
	test_third(self->middle, 1, THIRD);
	test_third(self->last, 1, 2 * THIRD);
}

/* The mapping is writable again. The pages may be in either place then. */
TEST_F(vma, mprotect_read_and_back)
{
	int i;

	for (i = 0; i < 10; i++) {
		ASSERT_EQ(0, mprotect(self->mem, PAGES * page_size(), PROT_READ));
		test_dev_data(self->fd, self->mem, PAGES, i + 1);
		ASSERT_EQ(0, mprotect(self->mem, PAGES * page_size(),
				      PROT_READ | PROT_WRITE));
		test_dev_data(self->fd, self->mem, PAGES, i + 1);
		ASSERT_EQ(0, dev_fill_pages(self->fd, self->mem, PAGES, i + 2));
		if (i & 1)
			test_to_device(self->fd, self->mem, PAGES);
	}
	test_cpu_data(self->mem, PAGES, 11);
}

TEST_F(vma, mprotect_none)
{
	char word[8] = "poison";

	ASSERT_EQ(0, mprotect(self->middle, self->size, PROT_NONE));
	test_err_read(EFAULT, self->fd, self->middle, sizeof(word), word);
	ASSERT_STREQ("poison", word);
	test_err_write(EFAULT, self->fd, self->middle, sizeof(word), word);
	ASSERT_TRUE(segfaults(self->middle, false));
	test_the_others();

	ASSERT_EQ(0, mprotect(self->middle, self->size, PROT_READ | PROT_WRITE));
	ASSERT_EQ(0, bad_pages_from(self->middle, 1, 1, THIRD));
	test_third(self->middle, 1, THIRD);
}

/* Waits until no page of the process is on the device. */
static int all_back(int fd, const char *mem, unsigned long npages)
{
	unsigned long long deadline = now_ms() + PATIENCE_MS;
	struct hmm_ref_migrate cmd;
	struct hmm_ref_stats stats;
	int rc;

	do {
		rc = _test_migrate(fd, HMM_REF_TO_SYSTEM, mem, npages * page_size(), &cmd);
		rc = rc ? rc : _test_stats(fd, &stats);
	} while (!rc && stats.out_pages_client && now_ms() < deadline);
	return rc ? rc : stats.out_pages_client ? -ETIMEDOUT : 0;
}

/*
 * Pages that the process cannot access at the moment migrate to system memory, too, and stay there.
 */
TEST_F(vma, mprotect_none_and_migrate)
{
	struct hmm_ref_migrate cmd;
	int i;

	ASSERT_EQ(0, mprotect(self->middle, self->size, PROT_NONE));
	for (i = 0; i < 2; i++) {
		ASSERT_EQ(0, all_back(self->fd, self->mem, PAGES));
		test_to_device(self->fd, self->mem, THIRD);
		test_to_device(self->fd, self->last, THIRD);
		test_migrate(self->fd, HMM_REF_TO_DEVICE, self->mem, PAGES * page_size(), &cmd);
		EXPECT_EQ(0, cmd.out_migrated);
		EXPECT_EQ(2 * THIRD, cmd.out_already);
		EXPECT_EQ(THIRD, cmd.out_skipped);
	}
	ASSERT_EQ(0, mprotect(self->middle, self->size, PROT_READ | PROT_WRITE));
	test_cpu_data(self->mem, PAGES, 1);
}

/* ---- unmapping ----------------------------------------------------------------- */

TEST_F(vma, munmap_middle)
{
	struct hmm_ref_stats before, after;
	char word[8];

	test_stats(self->fd, &before);
	ASSERT_EQ(0, munmap(self->middle, self->size));
	test_stats(self->fd, &after);
	EXPECT_EQ(THIRD, before.out_pages_in_use - after.out_pages_in_use);
	test_err_read(EFAULT, self->fd, self->middle, sizeof(word), word);
	test_the_others();
}

TEST_F(vma, munmap_all)
{
	char word[8];

	ASSERT_EQ(0, munmap(self->mem, PAGES * page_size()));
	test_err_read(EFAULT, self->fd, self->mem, sizeof(word), word);
	test_err_write(EFAULT, self->fd, self->mem, sizeof(word), word);
}

TEST_F(vma, map_over)
{
	ASSERT_EQ(self->middle, mmap(self->middle, self->size, PROT_READ | PROT_WRITE,
				     MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0));
	test_pages_at(self->fd, self->middle, THIRD, HMM_REF_PAGE_NONE, THIRD);
	ASSERT_EQ(0, dev_fill_pages(self->fd, self->middle, THIRD, 2));
	test_to_device(self->fd, self->middle, THIRD);
	test_third(self->middle, 2, 0);
	test_the_others();
}

TEST_F(vma, map_file_over)
{
	ASSERT_EQ(self->middle, mmap(self->middle, self->size, PROT_READ | PROT_WRITE,
				     MAP_SHARED | MAP_ANONYMOUS | MAP_FIXED, -1, 0));
	ASSERT_EQ(0, dev_fill_pages(self->fd, self->middle, THIRD, 2));
	test_third(self->middle, 2, 0);
	test_the_others();
}

/* ---- moving -------------------------------------------------------------------- */

TEST_F(vma, mremap_to_elsewhere)
{
	char *there = test_map_pages(THIRD);
	char word[8];

	ASSERT_EQ(there, mremap(self->middle, self->size, self->size,
				MREMAP_MAYMOVE | MREMAP_FIXED, there));
	test_pages_at(self->fd, there, THIRD, HMM_REF_PAGE_DEVICE, THIRD);
	test_err_read(EFAULT, self->fd, self->middle, sizeof(word), word);
	ASSERT_EQ(0, dev_fill_pages(self->fd, there, THIRD / 2, 2));
	ASSERT_EQ(0, bad_pages(there, THIRD / 2, 2));
	ASSERT_EQ(0, bad_pages_from(there + self->size / 2, THIRD / 2, 1,
				    THIRD + THIRD / 2));
	test_the_others();
}

/* The mapping is moved, and the CPU is the first to access it. */
TEST_F(vma, mremap_then_cpu)
{
	char *there = test_map_pages(THIRD);

	ASSERT_EQ(there, mremap(self->middle, self->size, self->size,
				MREMAP_MAYMOVE | MREMAP_FIXED, there));
	test_third(there, 1, THIRD);
	test_to_device(self->fd, there, THIRD);
	ASSERT_EQ(self->middle, mremap(there, self->size, self->size,
				       MREMAP_MAYMOVE | MREMAP_FIXED, self->middle));
	test_dev_data(self->fd, self->mem, PAGES, 1);
	test_cpu_data(self->mem, PAGES, 1);
}

TEST_F(vma, mremap_grows)
{
	unsigned long npages = PAGES + block_pages();
	char *mem;

	mem = mremap(self->mem, PAGES * page_size(), npages * page_size(), MREMAP_MAYMOVE);
	ASSERT_NE(MAP_FAILED, mem);
	test_dev_data(self->fd, mem, PAGES, 1);
	ASSERT_EQ(0, dev_fill_pages(self->fd, mem, npages, 2));
	test_to_device(self->fd, mem, npages);
	test_cpu_data(mem, npages, 2);
}

TEST_F(vma, mremap_shrinks)
{
	char word[8];

	ASSERT_EQ(self->mem, mremap(self->mem, PAGES * page_size(), self->size, 0));
	test_err_read(EFAULT, self->fd, self->middle, sizeof(word), word);
	test_dev_data(self->fd, self->mem, THIRD, 1);
	test_third(self->mem, 1, 0);
}

/* The old address stays mapped, and empty. */
TEST_F(vma, mremap_dontunmap)
{
	char *there = mremap(self->middle, self->size, self->size,
			     MREMAP_MAYMOVE | MREMAP_DONTUNMAP, NULL);

	if (there == MAP_FAILED && errno == EINVAL)
		SKIP(return, "no MREMAP_DONTUNMAP");
	ASSERT_NE(MAP_FAILED, there);
	test_pages_at(self->fd, self->middle, THIRD, HMM_REF_PAGE_NONE, THIRD);
	ASSERT_EQ(0, dev_fill_pages(self->fd, self->middle, THIRD, 2));
	test_third(there, 1, THIRD);
	test_third(self->middle, 2, 0);
	test_the_others();
}

/* ---- advice -------------------------------------------------------------------- */

TEST_F(vma, dontneed)
{
	unsigned long i;

	ASSERT_EQ(0, madvise(self->middle, self->size, MADV_DONTNEED));
	test_pages_at(self->fd, self->middle, THIRD, HMM_REF_PAGE_NONE, THIRD);
	for (i = 0; i < THIRD; i++)
		ASSERT_TRUE(page_is_zero(self->middle + i * page_size()));
	test_the_others();
}

/* A freed page has its data or zeros, until it is written. */
TEST_F(vma, free)
{
	unsigned long i;

	ASSERT_EQ(0, madvise(self->middle, self->size, MADV_FREE));
	for (i = 0; i < THIRD; i++) {
		char *page = self->middle + i * page_size();

		ASSERT_TRUE(page_is_zero(page) || page_holds(page, 1, THIRD + i));
	}
	fill_pages(self->middle, THIRD, 2);
	test_to_device(self->fd, self->middle, THIRD);
	test_dev_data(self->fd, self->middle, THIRD, 2);
	test_third(self->middle, 2, 0);
	test_the_others();
}

/*
 * Advice that inspects pages must not affect those on the device. Advice that populates for the CPU
 * brings them back. A third is too small to collapse.
 */
static const struct {
	int advice;
	int err;
	bool brings_back;
} harmless[] = {
	{ MADV_COLD }, { MADV_PAGEOUT }, { MADV_WILLNEED }, { MADV_DONTFORK },
	{ MADV_DOFORK }, { MADV_NOHUGEPAGE }, { MADV_HUGEPAGE }, { MADV_MERGEABLE },
	{ MADV_UNMERGEABLE }, { 25 /* MADV_COLLAPSE */, .err = EINVAL },
	{ MADV_POPULATE_READ, .brings_back = true },
	{ MADV_POPULATE_WRITE, .brings_back = true },
};

TEST_F(vma, other_advice)
{
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(harmless); i++) {
		test_to_device(self->fd, self->mem, PAGES);
		errno = 0;
		madvise(self->middle, self->size, harmless[i].advice);
		ASSERT_EQ(harmless[i].err, errno) {
			TH_LOG("advice %d", harmless[i].advice);
		}
		test_pages_at(self->fd, self->middle, THIRD, HMM_REF_PAGE_DEVICE,
			      harmless[i].brings_back ? 0 : THIRD);
		test_dev_data(self->fd, self->mem, PAGES, 1);
		test_cpu_data(self->mem, PAGES, 1);
		/* Mergeable pages stay in system memory: see regress_ksm.c. */
		madvise(self->middle, self->size, MADV_UNMERGEABLE);
	}
}

TEST_F(vma, dontfork)
{
	ASSERT_EQ(0, madvise(self->middle, self->size, MADV_DONTFORK));
	ASSERT_TRUE(segfaults(self->middle, false));
	test_third(self->middle, 1, THIRD);
	test_the_others();
}

static int wiped_child(void *arg)
{
	char *mem = arg;
	unsigned long i;

	for (i = THIRD; i < 2 * THIRD; i++)
		if (!CHECK(page_is_zero(mem + i * page_size())))
			return 1;
	return !CHECK(!bad_pages(mem, THIRD, 1));
}

TEST_F(vma, wipeonfork)
{
	ASSERT_EQ(0, madvise(self->middle, self->size, MADV_WIPEONFORK));
	ASSERT_EQ(0, child_run(wiped_child, self->mem));
	test_third(self->middle, 1, THIRD);
	test_the_others();
}

/* ---- locking ------------------------------------------------------------------- */

/* mlock() needs the pages in system memory. */
TEST_F(vma, mlock)
{
	ASSERT_EQ(0, mlock(self->middle, self->size));
	test_pages_at(self->fd, self->middle, THIRD, HMM_REF_PAGE_SYSTEM, THIRD);
	test_third(self->middle, 1, THIRD);
	test_the_others();
	ASSERT_EQ(0, munlock(self->middle, self->size));
	test_to_device(self->fd, self->mem, PAGES);
	test_cpu_data(self->mem, PAGES, 1);
}

/* Pages are locked when they are touched, and may be anywhere until then. */
TEST_F(vma, mlock_onfault)
{
	if (mlock2(self->middle, self->size, MLOCK_ONFAULT))
		SKIP(return, "mlock2: %s", strerror(errno));
	test_pages_at(self->fd, self->middle, THIRD, HMM_REF_PAGE_DEVICE, THIRD);
	test_dev_data(self->fd, self->mem, PAGES, 1);
	test_third(self->middle, 1, THIRD);
	ASSERT_EQ(0, dev_fill_pages(self->fd, self->mem, PAGES, 2));
	ASSERT_EQ(0, munlock(self->middle, self->size));
	test_to_device(self->fd, self->mem, PAGES);
	test_cpu_data(self->mem, PAGES, 2);
}

TEST_F(vma, mlockall)
{
	ASSERT_EQ(0, mlockall(MCL_CURRENT));
	test_cpu_data(self->mem, PAGES, 1);
	ASSERT_EQ(0, munlockall());
	test_to_device(self->fd, self->mem, PAGES);
	test_dev_data(self->fd, self->mem, PAGES, 1);
}

/* ---- huge pages ---------------------------------------------------------------- */

#define MADV_COLLAPSE_NR	25	/* MADV_COLLAPSE */

/* Collapsing a range that is partly on the device may succeed or fail. */
TEST_F(vma, collapse)
{
	unsigned long npages = block_pages();
	char *mem = test_map_blocks(1);
	unsigned long part, i;

	ASSERT_EQ(0, madvise(mem, block_size(), MADV_NOHUGEPAGE));
	fill_pages(mem, npages, 1);
	ASSERT_EQ(0, madvise(mem, block_size(), MADV_HUGEPAGE));
	for (part = 1; part <= npages; part *= 8) {
		for (i = 0; i < npages; i += npages / part)
			test_to_device(self->fd, mem + i * page_size(), 1);
		madvise(mem, block_size(), MADV_COLLAPSE_NR);
		test_dev_data(self->fd, mem, npages, part);
		ASSERT_EQ(0, dev_fill_pages(self->fd, mem, npages, part * 8));
		test_cpu_data(mem, npages, part * 8);
	}
	test_the_others();
}

/* ---- changes of a part of a huge page ------------------------------------------ */

TEST_F(vma, huge_page_in_parts)
{
	unsigned long npages = block_pages();
	char *mem = test_map_blocks(1);
	char *cut = mem + npages / 4 * page_size();
	unsigned long i;

	ASSERT_EQ(0, madvise(mem, block_size(), MADV_HUGEPAGE));
	fill_pages(mem, npages, 1);
	test_to_device(self->fd, mem, npages);
	ASSERT_EQ(0, mprotect(cut, 7 * page_size(), PROT_READ));
	test_dev_data(self->fd, mem, npages, 1);
	ASSERT_EQ(0, munmap(cut, 3 * page_size()));
	ASSERT_EQ(0, madvise(mem + 5 * page_size(), page_size(), MADV_DONTNEED));
	ASSERT_TRUE(page_is_zero(mem + 5 * page_size()));
	for (i = 0; i < npages; i++) {
		if (i == 5 || (i >= npages / 4 && i < npages / 4 + 3))
			continue;
		ASSERT_TRUE(page_holds(mem + i * page_size(), 1, i));
	}
}

int main(int argc, char **argv)
{
	return hmm_ref_test_main(argc, argv);
}
