// SPDX-License-Identifier: GPL-2.0-only
/*
 * Bad address ranges and bad buffers: the documented errno at once, no allocation of a size that
 * the caller selects, no change beyond the returned counts, and right counts for the pages before
 * the error.
 *
 * There is a variant for each command that takes a range.
 *
 * Covers: a page count that overflows when it is shifted, so that 2^52 + 1 pages pass as one;
 * memory allocated by a size from user space; outputs that are lost because the struct is not
 * copied back on error; an error that is retried forever.
 */
#include "hmm_ref_utils.h"

#define PAGES	50UL
#define HALF	(PAGES / 2)

/* "At once", on a debug kernel in an emulator. */
#define AT_ONCE_MS	5000

enum what { TO_DEVICE, TO_SYSTEM, READ, WRITE, SNAPSHOT, EXCLUSIVE };

FIXTURE(range)
{
	struct leak_check leak;
	struct hmm_ref_stats before;
	int fd;
	char *mem;	/* PAGES of data, then as many unmapped pages */
	char *buf;	/* as large */
};

FIXTURE_VARIANT(range)
{
	enum what what;
	bool aligned;	/* requires whole pages */
};

FIXTURE_VARIANT_ADD(range, to_device) { .what = TO_DEVICE, .aligned = true };
FIXTURE_VARIANT_ADD(range, to_system) { .what = TO_SYSTEM, .aligned = true };
FIXTURE_VARIANT_ADD(range, read) { .what = READ };
FIXTURE_VARIANT_ADD(range, write) { .what = WRITE };
FIXTURE_VARIANT_ADD(range, snapshot) { .what = SNAPSHOT, .aligned = true };
FIXTURE_VARIANT_ADD(range, exclusive) { .what = EXCLUSIVE, .aligned = true };

FIXTURE_SETUP(range)
{
	leak_check_begin(_metadata, &self->leak);
	self->fd = test_open(0);
	self->mem = test_map_pages(2 * PAGES);
	ASSERT_EQ(0, munmap(self->mem + PAGES * page_size(), PAGES * page_size()));
	self->buf = test_map_pages(2 * PAGES);
	fill_pages(self->mem, PAGES, 1);
	fill_pages(self->buf, 2 * PAGES, 1);
	test_stats(self->fd, &self->before);
}

FIXTURE_TEARDOWN_PARENT(range)
{
	leak_check_end(_metadata, &self->leak);
}

/* Outputs of a command, in pages. */
struct result {
	int rc;
	bool refused;	/* the outputs have not changed */
	unsigned long long done;
	unsigned long long skipped;
};

#define POISON		0xccccccccccccccccULL

static struct result run_at(int fd, enum what what, unsigned long addr,
			    unsigned long length, void *buf)
{
	struct hmm_ref_migrate migrate;
	struct hmm_ref_snapshot snapshot;
	struct hmm_ref_exclusive exclusive;
	struct hmm_ref_access access;
	struct result result = {};

	switch (what) {
	case TO_DEVICE:
	case TO_SYSTEM:
		result.rc = _test_migrate(fd, what == TO_DEVICE ?
					  HMM_REF_TO_DEVICE : HMM_REF_TO_SYSTEM,
					  (void *)addr, length, &migrate);
		result.done = migrate.out_migrated + migrate.out_already;
		result.skipped = migrate.out_skipped;
		result.refused = migrate.out_migrated == POISON &&
				 migrate.out_already == POISON &&
				 migrate.out_skipped == POISON;
		break;
	case READ:
	case WRITE:
		result.rc = _test_access(fd, what == READ ?
					 HMM_REF_IOC_READ : HMM_REF_IOC_WRITE,
					 (void *)addr, length, buf, &access);
		result.done = access.out_bytes / page_size();
		result.refused = access.out_bytes == POISON &&
				 access.out_faults == POISON;
		break;
	case SNAPSHOT:
		result.rc = _test_snapshot(fd, (void *)addr, length, buf,
					   &snapshot);
		result.done = snapshot.out_pages;
		result.refused = snapshot.out_pages == POISON;
		break;
	case EXCLUSIVE:
		result.rc = _test_exclusive(fd, (void *)addr, length, &exclusive);
		result.done = exclusive.out_pages;
		result.refused = exclusive.out_pages == POISON;
		break;
	}
	return result;
}

#define RUN(addr, length) \
	run_at(self->fd, variant->what, (unsigned long)(addr), length, self->buf)

static void __test_nothing_moved(struct __test_metadata *_metadata, int fd,
				 const struct hmm_ref_stats *before)
{
	struct hmm_ref_stats stats;

	test_stats(fd, &stats);
	EXPECT_EQ(before->out_pages_in_use, stats.out_pages_in_use);
	EXPECT_EQ(before->out_to_device, stats.out_to_device);
}

#define test_nothing_changed() do { \
	__test_nothing_moved(_metadata, self->fd, &self->before); \
	test_cpu_data(self->mem, PAGES, 1); \
	test_cpu_data(self->buf, 2 * PAGES, 1); \
} while (0)

TEST_F(range, length_0)
{
	EXPECT_EQ(-EINVAL, RUN(self->mem, 0).rc);
	test_nothing_changed();
}

TEST_F(range, unaligned)
{
	if (!variant->aligned)
		return;
	EXPECT_EQ(-EINVAL, RUN(self->mem + 1, page_size()).rc);
	EXPECT_EQ(-EINVAL, RUN(self->mem + page_size() / 2, page_size()).rc);
	EXPECT_EQ(-EINVAL, RUN(self->mem, page_size() - 1).rc);
	EXPECT_EQ(-EINVAL, RUN(self->mem, 1).rc);
	EXPECT_EQ(-EINVAL, RUN(self->mem, page_size() + 8).rc);
	test_nothing_changed();
}

TEST_F(range, overflow)
{
	unsigned long mask = ~(page_size() - 1);

	EXPECT_EQ(-EOVERFLOW, RUN(mask, 2 * page_size()).rc);
	EXPECT_EQ(-EOVERFLOW, RUN(self->mem, ~0UL & mask).rc);
	EXPECT_EQ(-EOVERFLOW, RUN(self->mem, -(unsigned long)self->mem +
						 page_size()).rc);
	test_nothing_changed();
}

TEST_F(range, kernel_address)
{
	static const unsigned long addr[] = {
		1UL << 63, 0xffff888000000000UL, 0xffffffff81000000UL,
	};
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(addr); i++) {
		EXPECT_EQ(-EFAULT, RUN(addr[i], page_size()).rc) {
			TH_LOG("at %#lx", addr[i]);
		}
	}
	test_nothing_changed();
}

/* SNAPSHOT succeeds, because it has a state for an unmapped page. */
TEST_F(range, unmapped)
{
	struct hmm_ref_page_state *states = (void *)self->buf;
	char *hole = self->mem + PAGES * page_size();
	struct result result = RUN(hole, HALF * page_size());
	unsigned int i;

	if (variant->what == SNAPSHOT) {
		ASSERT_EQ(0, result.rc);
		ASSERT_EQ(HALF, result.done);
		for (i = 0; i < HALF; i++)
			ASSERT_EQ(HMM_REF_PAGE_ERROR, states[i].where);
		return;
	}
	ASSERT_EQ(-EFAULT, result.rc);
	ASSERT_EQ(0, result.done + result.skipped);
	test_nothing_changed();
}

/* The first half is processed and counted exactly. */
TEST_F(range, half_unmapped)
{
	struct result result;

	if (variant->what == SNAPSHOT)
		return;
	if (variant->what == TO_SYSTEM)
		test_to_device(self->fd, self->mem, PAGES);
	result = RUN(self->mem + HALF * page_size(), PAGES * page_size());
	ASSERT_EQ(-EFAULT, result.rc);
	ASSERT_EQ(HALF, result.done + result.skipped);
	switch (variant->what) {
	case TO_DEVICE:
		test_pages_at(self->fd, self->mem + HALF * page_size(), HALF,
			      HMM_REF_PAGE_DEVICE, HALF - result.skipped);
		break;
	case READ:
		ASSERT_EQ(0, bad_pages_from(self->buf, HALF, 1, HALF));
		break;
	case EXCLUSIVE:
		ASSERT_EQ(HALF, pages_flagged(self->fd, self->mem + HALF * page_size(),
					      HALF, HMM_REF_PAGE_EXCLUSIVE));
		break;
	case WRITE:
		ASSERT_EQ(0, bad_pages_from(self->mem, HALF, 1, 0));
		ASSERT_EQ(0, bad_pages_from(self->mem + HALF * page_size(), HALF, 1, 0));
		return;
	default:
		break;
	}
	test_cpu_data(self->mem, PAGES, 1);
}

/* Pages behind a hole are not touched. */
TEST_F(range, hole_in_the_middle)
{
	unsigned long quarter = PAGES / 4;
	struct result result;

	if (variant->what != TO_DEVICE)
		return;
	ASSERT_EQ(0, munmap(self->mem + quarter * page_size(),
			    quarter * page_size()));
	result = RUN(self->mem, PAGES * page_size());
	ASSERT_EQ(-EFAULT, result.rc);
	ASSERT_EQ(quarter, result.done + result.skipped);
	test_pages_at(self->fd, self->mem + HALF * page_size(), HALF,
		      HMM_REF_PAGE_SYSTEM, HALF);
	test_cpu_data(self->mem, quarter, 1);
	ASSERT_EQ(0, bad_pages_from(self->mem + HALF * page_size(), HALF, 1, HALF));
}

/* A TiB from this address on is not mapped. */
#define LOW_ADDRESS	((void *)(1UL << 42))

/*
 * A range that ends in user space, far behind the mapped pages: an error at once, and only the
 * mapped pages are counted. SNAPSHOT would continue until its buffer is full, so the buffer is
 * small.
 */
TEST_F(range, huge)
{
	unsigned long long start = now_ms();
	char *buf = self->buf + PAGES * page_size();
	struct result result;
	char *mem;

	mem = mmap(LOW_ADDRESS, PAGES * page_size(), PROT_READ | PROT_WRITE,
		   MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (mem != LOW_ADDRESS)
		SKIP(return, "address taken");
	fill_pages(mem, PAGES, 1);
	ASSERT_EQ(0, munmap(buf, PAGES * page_size()));
	buf -= HALF * sizeof(struct hmm_ref_page_state);
	result = run_at(self->fd, variant->what, (unsigned long)mem, 1UL << 40,
			variant->what == SNAPSHOT ? buf : self->buf);
	EXPECT_EQ(-EFAULT, result.rc);
	EXPECT_FALSE(result.refused);
	EXPECT_GE(PAGES, result.done + result.skipped);
	ASSERT_GT(AT_ONCE_MS, now_ms() - start);
	test_cpu_data(mem, PAGES, 1);
}

/*
 * A range from user space to beyond its end, also with sizes that become small when they are
 * shifted: refused, so that mapped pages are not processed.
 */
TEST_F(range, into_the_kernel)
{
	unsigned long length[] = {
		1UL << 62,
		(1UL << 62) + page_size(),
		(1UL << 63) - (unsigned long)self->mem,
		(1UL << 63) - block_size(),
		-(unsigned long)self->mem - page_size(),
	};
	unsigned long long start = now_ms();
	struct result result;
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(length); i++) {
		result = RUN(self->mem, length[i]);
		EXPECT_EQ(-EFAULT, result.rc) {
			TH_LOG("length %#lx", length[i]);
		}
		EXPECT_TRUE(result.refused);
	}
	ASSERT_GT(AT_ONCE_MS, now_ms() - start);
	test_nothing_changed();
}

/* ---- the buffer ------------------------------------------------------------- */

TEST_F(range, bad_buffer)
{
	static const unsigned long buf[] = { 0, 1UL << 63, -4096UL };
	struct result result;
	unsigned int i;

	if (variant->what != READ && variant->what != WRITE &&
	    variant->what != SNAPSHOT)
		return;
	for (i = 0; i < ARRAY_SIZE(buf); i++) {
		result = run_at(self->fd, variant->what, (unsigned long)self->mem,
				PAGES * page_size(), (void *)buf[i]);
		EXPECT_EQ(-EFAULT, result.rc);
		EXPECT_EQ(0, result.done);
	}
	test_nothing_changed();
}

/*
 * Half of the buffer is mapped. The counts must be right: bytes counted by READ are in the buffer,
 * bytes counted by WRITE are in memory, and nothing is written beyond.
 */
TEST_F(range, half_a_buffer)
{
	char *buf = self->buf + HALF * page_size();
	struct hmm_ref_access access;
	char *all;
	int rc;

	if (variant->what != READ && variant->what != WRITE)
		return;
	all = test_map_pages(PAGES);
	fill_pages(all, PAGES, 1);
	fill_pages_from(buf, HALF, 2, 0);
	ASSERT_EQ(0, mprotect(buf + HALF * page_size(), page_size(), PROT_NONE));
	rc = _test_access(self->fd, variant->what == READ ?
			  HMM_REF_IOC_READ : HMM_REF_IOC_WRITE,
			  self->mem, PAGES * page_size(), buf, &access);
	ASSERT_EQ(-EFAULT, rc);
	ASSERT_LT(0, access.out_bytes);
	ASSERT_GE(HALF * page_size(), access.out_bytes);
	if (variant->what == READ) {
		ASSERT_EQ(0, memcmp(buf, all, access.out_bytes));
		test_cpu_data(self->mem, PAGES, 1);
		return;
	}
	ASSERT_EQ(0, memcmp(self->mem, buf, access.out_bytes));
	ASSERT_EQ(0, memcmp(self->mem + access.out_bytes, all + access.out_bytes,
			    PAGES * page_size() - access.out_bytes));
}

/*
 * The buffer ends in the middle of a page's data, and its last page has not been faulted in:
 * exactly the bytes that fit are counted.
 */
TEST_F(range, end_of_a_fresh_buffer)
{
	char *buf = test_map_pages(2), *end = buf + page_size();
	struct hmm_ref_access access;

	if (variant->what != READ)
		return;
	ASSERT_EQ(0, mprotect(end, page_size(), PROT_NONE));
	ASSERT_EQ(-EFAULT, _test_access(self->fd, HMM_REF_IOC_READ, self->mem, page_size(),
					end - 100, &access));
	ASSERT_EQ(100, access.out_bytes);
	ASSERT_EQ(0, memcmp(end - 100, self->mem, 100));
}

/* For READ and SNAPSHOT, a read-only buffer is as bad as an unmapped one. */
TEST_F(range, readonly_buffer)
{
	struct result result;

	if (variant->what != READ && variant->what != SNAPSHOT)
		return;
	ASSERT_EQ(0, mprotect(self->buf, 2 * PAGES * page_size(), PROT_READ));
	result = RUN(self->mem, PAGES * page_size());
	EXPECT_EQ(-EFAULT, result.rc);
	EXPECT_EQ(0, result.done);
	test_nothing_changed();
}

/* ---- mappings that can never be migrated ------------------------------------ */

FIXTURE(special)
{
	struct leak_check leak;
	int fd;
};

FIXTURE_SETUP(special)
{
	leak_check_begin(_metadata, &self->leak);
	self->fd = test_open(0);
}

FIXTURE_TEARDOWN_PARENT(special)
{
	leak_check_end(_metadata, &self->leak);
}

TEST_F(special, bad_direction)
{
	static const unsigned int direction[] = { 0, 3, 4, ~0U, 1U << 31 };
	char *mem = test_map_pages(PAGES);
	struct hmm_ref_migrate cmd;
	unsigned int i;

	fill_pages(mem, PAGES, 1);
	for (i = 0; i < ARRAY_SIZE(direction); i++)
		test_err_migrate(EINVAL, self->fd, direction[i], mem, page_size(), &cmd);
	test_pages_at(self->fd, mem, PAGES, HMM_REF_PAGE_SYSTEM, PAGES);
	test_cpu_data(mem, PAGES, 1);
}

/* Maps two huge pages, or returns NULL. Reserves some if the system has none. */
static char *map_hugetlb(void)
{
	char *mem;

	if (write_file("/proc/sys/vm/nr_hugepages", "2"))
		return NULL;
	mem = mmap(NULL, 2 * block_size(), PROT_READ | PROT_WRITE,
		   MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB, -1, 0);
	return mem == MAP_FAILED ? NULL : mem;
}

TEST_F(special, hugetlb)
{
	struct hmm_ref_migrate cmd;
	char old[32], *mem;
	char word[8];

	if (read_file("/proc/sys/vm/nr_hugepages", old, sizeof(old)) < 0)
		SKIP(return, "no hugetlb (CONFIG_HUGETLBFS)");
	mem = map_hugetlb();
	if (!mem) {
		write_file("/proc/sys/vm/nr_hugepages", old);
		SKIP(return, "no huge pages can be allocated");
	}
	fill_pages(mem, PAGES, 1);
	EXPECT_EQ(-EINVAL, _test_migrate(self->fd, HMM_REF_TO_DEVICE, mem,
					 block_size(), &cmd));
	EXPECT_EQ(0, cmd.out_migrated + cmd.out_already + cmd.out_skipped);
	EXPECT_EQ(-EINVAL, _test_migrate(self->fd, HMM_REF_TO_SYSTEM, mem,
					 block_size(), &cmd));
	/* The device maps the pages in place. */
	EXPECT_EQ(0, dev_bad_pages(self->fd, mem, PAGES, 1));
	EXPECT_EQ(0, _test_write(self->fd, mem + block_size() - sizeof(word), sizeof(word),
				 "written"));
	EXPECT_EQ(0, memcmp(mem + block_size() - sizeof(word), "written", sizeof(word)));
	EXPECT_EQ(0, bad_pages(mem, PAGES, 1));
	munmap(mem, 2 * block_size());
	write_file("/proc/sys/vm/nr_hugepages", old);
}

/* Finds the I/O mapping that every process has. */
static char *find_vvar(void)
{
	unsigned long start = 0;
	FILE *maps = fopen("/proc/self/maps", "re");
	char line[256];

	while (maps && fgets(line, sizeof(line), maps)) {
		if (strstr(line, "[vvar]")) {
			start = strtoul(line, NULL, 16);
			break;
		}
	}
	if (maps)
		fclose(maps);
	return (char *)start;
}

TEST_F(special, device_mmap)
{
	struct hmm_ref_migrate cmd;
	char *mem = find_vvar();
	char word[8] = {};
	int rc;

	if (!mem)
		SKIP(return, "no mapping of kind PFNMAP found ([vvar])");
	test_err_migrate(EINVAL, self->fd, HMM_REF_TO_DEVICE, mem, page_size(), &cmd);
	EXPECT_EQ(0, cmd.out_migrated + cmd.out_already + cmd.out_skipped);
	test_err_migrate(EINVAL, self->fd, HMM_REF_TO_SYSTEM, mem, page_size(), &cmd);
	test_err_read(EFAULT, self->fd, mem, sizeof(word), word);
	/* The mapping is also read-only. */
	rc = _test_write(self->fd, mem, sizeof(word), word);
	ASSERT_TRUE(rc == -EFAULT || rc == -EPERM);
}

/* Behind good memory, such a mapping ends the command at its start. */
TEST_F(special, hugetlb_behind_good_pages)
{
	char *mem = test_map_blocks(2), *huge;
	struct hmm_ref_migrate cmd;
	char old[32];

	if (read_file("/proc/sys/vm/nr_hugepages", old, sizeof(old)) < 0 ||
	    write_file("/proc/sys/vm/nr_hugepages", "2"))
		SKIP(return, "no hugetlb (CONFIG_HUGETLBFS)");
	huge = mmap(mem + block_size(), block_size(), PROT_READ | PROT_WRITE,
		    MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB | MAP_FIXED, -1, 0);
	if (huge == MAP_FAILED) {
		write_file("/proc/sys/vm/nr_hugepages", old);
		SKIP(return, "no huge pages can be allocated");
	}
	mem += block_size() - PAGES * page_size();
	fill_pages(mem, PAGES, 1);
	EXPECT_EQ(-EINVAL, _test_migrate(self->fd, HMM_REF_TO_DEVICE, mem,
					 PAGES * page_size() + block_size(), &cmd));
	EXPECT_EQ(PAGES, cmd.out_migrated + cmd.out_already + cmd.out_skipped);
	EXPECT_EQ(0, bad_pages(mem, PAGES, 1));
	munmap(huge, block_size());
	write_file("/proc/sys/vm/nr_hugepages", old);
}

int main(int argc, char **argv)
{
	return hmm_ref_test_main(argc, argv);
}
