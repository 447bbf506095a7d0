// SPDX-License-Identifier: GPL-2.0-only
/*
 * Migration in both directions by ioctl: which pages migrate, which stay, which counts are
 * returned, and that no byte changes.
 *
 * Covers: counts that are wrong for a part of the range; copies to the wrong place when a range is
 * not a whole window; device pages accessed through a second file or a second device; a page that
 * cannot migrate and is lost instead of skipped.
 */
#include "hmm_ref_utils.h"

/* ---- round trips ------------------------------------------------------------ */

FIXTURE(trip)
{
	struct leak_check leak;
	int fd;
	char *mem;
	unsigned long npages;
};

FIXTURE_VARIANT(trip)
{
	unsigned long npages;	/* 0: as many as @bytes are */
	unsigned long bytes;
	long offset;		/* pages from the start of a block, or from its end if negative */
	bool two_vmas;
	bool huge;		/* use huge pages */
};

FIXTURE_VARIANT_ADD(trip, one_page) { .npages = 1 };
FIXTURE_VARIANT_ADD(trip, odd_offset) { .npages = 13, .offset = 3 };
FIXTURE_VARIANT_ADD(trip, across_blocks) { .npages = 32, .offset = -11 };
FIXTURE_VARIANT_ADD(trip, two_vmas) { .npages = 32, .offset = -11, .two_vmas = true };
FIXTURE_VARIANT_ADD(trip, large) { .bytes = 8 << 20, .offset = 1 };
FIXTURE_VARIANT_ADD(trip, huge_page) { .huge = true };
FIXTURE_VARIANT_ADD(trip, part_of_huge_page) { .npages = 21, .offset = 5, .huge = true };

FIXTURE_SETUP(trip)
{
	struct hmm_ref_page_state state;
	struct hmm_ref_snapshot cmd;
	unsigned long nblocks;
	char *blocks;

	leak_check_begin(_metadata, &self->leak);
	self->fd = test_open(0);
	self->npages = variant->npages ? variant->npages :
		       variant->bytes ? variant->bytes / page_size() : block_pages();
	nblocks = self->npages / block_pages() + 2;
	blocks = test_map_blocks(nblocks);
	self->mem = blocks + variant->offset * (long)page_size();
	if (variant->offset < 0)
		self->mem += block_size();

	if (variant->huge) {
		ASSERT_EQ(0, madvise(blocks, block_size(), MADV_HUGEPAGE));
		fill_pages(blocks, 1, 9);
		test_snapshot(self->fd, blocks, page_size(), &state, &cmd);
		if (!state.order)
			SKIP(return, "no transparent huge page can be allocated");
	}
	if (variant->two_vmas)
		ASSERT_EQ(0, madvise(blocks + block_size(), block_size(), MADV_DONTDUMP));
	fill_pages(self->mem, self->npages, 1);
}

FIXTURE_TEARDOWN_PARENT(trip)
{
	leak_check_end(_metadata, &self->leak);
}

TEST_F(trip, by_ioctl)
{
	struct hmm_ref_stats before, there, back;

	test_stats(self->fd, &before);
	test_to_device(self->fd, self->mem, self->npages);
	test_stats(self->fd, &there);
	test_pages_at(self->fd, self->mem, self->npages, HMM_REF_PAGE_DEVICE,
		      self->npages);
	EXPECT_LE(self->npages, there.out_to_device - before.out_to_device);
	EXPECT_LE(self->npages, there.out_pages_in_use - before.out_pages_in_use);
	EXPECT_EQ(self->npages, there.out_pages_client);

	test_to_system(self->fd, self->mem, self->npages);
	test_stats(self->fd, &back);
	test_pages_at(self->fd, self->mem, self->npages, HMM_REF_PAGE_SYSTEM,
		      self->npages);
	EXPECT_EQ(self->npages, back.out_to_system - there.out_to_system);
	EXPECT_EQ(there.out_cpu_faults, back.out_cpu_faults);
	EXPECT_EQ(before.out_pages_in_use, back.out_pages_in_use);
	EXPECT_EQ(0, back.out_pages_client);
	test_cpu_data(self->mem, self->npages, 1);
}

TEST_F(trip, by_cpu)
{
	struct hmm_ref_stats before, after;

	test_to_device(self->fd, self->mem, self->npages);
	test_stats(self->fd, &before);
	test_cpu_data(self->mem, self->npages, 1);
	test_stats(self->fd, &after);
	EXPECT_LT(before.out_cpu_faults, after.out_cpu_faults);
	EXPECT_EQ(self->npages, after.out_fault_pages - before.out_fault_pages);
	EXPECT_EQ(0, after.out_pages_client);
	test_pages_at(self->fd, self->mem, self->npages, HMM_REF_PAGE_SYSTEM,
		      self->npages);
}

/* The device reads and writes the pages where they are, without migrating them. */
TEST_F(trip, by_device)
{
	test_to_device(self->fd, self->mem, self->npages);
	test_dev_data(self->fd, self->mem, self->npages, 1);
	ASSERT_EQ(0, dev_fill_pages(self->fd, self->mem, self->npages, 2));
	test_dev_data(self->fd, self->mem, self->npages, 2);
	test_pages_at(self->fd, self->mem, self->npages, HMM_REF_PAGE_DEVICE,
		      self->npages);

	test_to_system(self->fd, self->mem, self->npages);
	test_dev_data(self->fd, self->mem, self->npages, 2);
	ASSERT_EQ(0, dev_fill_pages(self->fd, self->mem, self->npages, 3));
	test_pages_at(self->fd, self->mem, self->npages, HMM_REF_PAGE_SYSTEM,
		      self->npages);
	test_cpu_data(self->mem, self->npages, 3);
}

/*
 * The command that migrates the pages maps them, so no device fault follows. Other users of the
 * memory may cause it to be unmapped at any time, but not every time.
 */
TEST_F(trip, mapped_by_migrate)
{
	size_t size = self->npages * page_size();
	char *buf = test_map_pages(self->npages);
	struct hmm_ref_migrate cmd;
	struct hmm_ref_access read;
	int tries = 100;

	do {
		test_to_system(self->fd, self->mem, self->npages);
		ASSERT_EQ(0, _test_migrate_flags(self->fd, HMM_REF_MIGRATE_MAP,
						 HMM_REF_TO_DEVICE, self->mem, size, &cmd));
		EXPECT_EQ(self->npages, cmd.out_migrated + cmd.out_skipped);
		ASSERT_EQ(0, _test_access(self->fd, HMM_REF_IOC_READ, self->mem, size, buf,
					  &read));
		ASSERT_EQ(0, bad_pages(buf, self->npages, 1));
	} while ((read.out_faults || cmd.out_skipped) && --tries);
	EXPECT_EQ(0, read.out_faults);
	EXPECT_EQ(0, cmd.out_skipped);
	ASSERT_EQ(0, dev_fill_pages(self->fd, self->mem, self->npages, 2));
	test_cpu_data(self->mem, self->npages, 2);
}

TEST_F(trip, ten_times)
{
	int i;

	for (i = 0; i < 10; i++) {
		test_to_device(self->fd, self->mem, self->npages);
		if (i & 1)
			test_to_system(self->fd, self->mem, self->npages);
		test_cpu_data(self->mem, self->npages, i + 1);
		fill_pages(self->mem, self->npages, i + 2);
	}
}

/* ---- counts ----------------------------------------------------------------- */

#define PAGES	32UL

FIXTURE(migrate)
{
	struct leak_check leak;
	int fd;
	char *mem;
};

FIXTURE_SETUP(migrate)
{
	leak_check_begin(_metadata, &self->leak);
	self->fd = test_open(0);
	self->mem = test_map_pages(PAGES);
	fill_pages(self->mem, PAGES, 1);
}

FIXTURE_TEARDOWN_PARENT(migrate)
{
	leak_check_end(_metadata, &self->leak);
}

TEST_F(migrate, already_there)
{
	struct hmm_ref_migrate cmd;

	test_migrate(self->fd, HMM_REF_TO_SYSTEM, self->mem, PAGES * page_size(), &cmd);
	EXPECT_EQ(0, cmd.out_migrated);
	EXPECT_EQ(PAGES, cmd.out_already);
	EXPECT_EQ(0, cmd.out_skipped);

	test_to_device(self->fd, self->mem, PAGES);
	test_migrate(self->fd, HMM_REF_TO_DEVICE, self->mem, PAGES * page_size(), &cmd);
	EXPECT_EQ(0, cmd.out_migrated);
	EXPECT_EQ(PAGES, cmd.out_already);
	EXPECT_EQ(0, cmd.out_skipped);
	test_cpu_data(self->mem, PAGES, 1);
}

/* MAP does not fault in pages that do not exist. */
TEST_F(migrate, map_does_not_fault)
{
	struct hmm_ref_page_state states[PAGES];
	struct hmm_ref_snapshot cmd;
	struct hmm_ref_migrate migrate;
	unsigned long i;
	char *mem;
	int file;

	file = memfd_create("file", MFD_CLOEXEC);
	ASSERT_LE(0, file);
	ASSERT_EQ(0, ftruncate(file, PAGES * page_size()));
	mem = mmap(NULL, PAGES * page_size(), PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
	ASSERT_NE(MAP_FAILED, mem);
	fill_pages(mem, PAGES / 2, 1);
	ASSERT_EQ(0, _test_migrate_flags(self->fd, HMM_REF_MIGRATE_MAP, HMM_REF_TO_DEVICE,
					 mem, PAGES * page_size(), &migrate));
	EXPECT_EQ(PAGES, migrate.out_skipped);
	test_snapshot(self->fd, mem, PAGES * page_size(), states, &cmd);
	for (i = 0; i < PAGES; i++) {
		EXPECT_EQ(i < PAGES / 2 ? HMM_REF_PAGE_SYSTEM : HMM_REF_PAGE_NONE,
			  states[i].where);
		EXPECT_EQ(i < PAGES / 2, !!(states[i].flags & HMM_REF_PAGE_MAPPED));
	}
	EXPECT_EQ(-EINVAL, _test_migrate_flags(self->fd, HMM_REF_MIGRATE_MAP,
					       HMM_REF_TO_SYSTEM, mem, page_size(),
					       &migrate));
	close(file);
}

static long slab_kib(void)
{
	char text[4096], *line;

	if (read_file("/proc/meminfo", text, sizeof(text)) < 0)
		return -1;
	line = strstr(text, "SUnreclaim:");
	return line ? atol(line + strlen("SUnreclaim:")) : -1;
}

/* MAP allocates no tables for missing pages, either: 2048 tables of a page would be 8 MiB. */
TEST_F(migrate, map_of_holes_allocates_nothing)
{
	size_t size = 2048 * block_size();
	struct hmm_ref_migrate cmd;
	long before;
	char *mem;

	mem = mmap(NULL, size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	ASSERT_NE(MAP_FAILED, mem);
	before = slab_kib();
	ASSERT_EQ(0, _test_migrate_flags(self->fd, HMM_REF_MIGRATE_MAP, HMM_REF_TO_DEVICE,
					 mem, size, &cmd));
	EXPECT_EQ(size / page_size(), cmd.out_skipped);
	EXPECT_GT(before + 4096, slab_kib());
	munmap(mem, size);
}

/* A mapping of pages that never migrate is refused, with any permissions. */
TEST_F(migrate, hugetlb_without_permissions)
{
	struct hmm_ref_migrate cmd;
	char *mem;

	mem = mmap(NULL, block_size(), PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB |
		   MAP_NORESERVE, -1, 0);
	if (mem == MAP_FAILED)
		SKIP(return, "no hugetlb: %s", strerror(errno));
	EXPECT_EQ(-EINVAL, _test_migrate(self->fd, HMM_REF_TO_DEVICE, mem, page_size(), &cmd));
	EXPECT_EQ(-EINVAL, _test_migrate(self->fd, HMM_REF_TO_SYSTEM, mem, page_size(), &cmd));
	munmap(mem, block_size());
}

TEST_F(migrate, some_already_there)
{
	struct hmm_ref_migrate cmd;
	unsigned long i;

	for (i = 0; i < PAGES; i += 2)
		test_to_device(self->fd, self->mem + i * page_size(), 1);
	test_migrate(self->fd, HMM_REF_TO_DEVICE, self->mem, PAGES * page_size(), &cmd);
	EXPECT_EQ(PAGES / 2, cmd.out_already);
	EXPECT_EQ(PAGES / 2, cmd.out_migrated + cmd.out_skipped);

	test_to_device(self->fd, self->mem, PAGES);
	test_to_system(self->fd, self->mem + page_size(), 1);
	test_migrate(self->fd, HMM_REF_TO_SYSTEM, self->mem, PAGES * page_size(), &cmd);
	EXPECT_EQ(1, cmd.out_already);
	EXPECT_EQ(PAGES - 1, cmd.out_migrated + cmd.out_skipped);
	test_cpu_data(self->mem, PAGES, 1);
}

/* A pipe holds a reference to one page: that page stays, the others migrate. */
TEST_F(migrate, pinned_page_is_skipped)
{
	struct iovec iov = {
		.iov_base = self->mem + 5 * page_size(),
		.iov_len = page_size(),
	};
	struct hmm_ref_migrate cmd;
	char *buf = test_map_pages(1);
	int fds[2];

	ASSERT_EQ(0, pipe2(fds, O_CLOEXEC));
	if (vmsplice(fds[1], &iov, 1, 0) != page_size())
		SKIP(return, "vmsplice: %s", strerror(errno));
	test_to_device(self->fd, self->mem, 5);
	test_to_device(self->fd, self->mem + 6 * page_size(), PAGES - 6);
	test_migrate(self->fd, HMM_REF_TO_DEVICE, self->mem, PAGES * page_size(), &cmd);
	EXPECT_EQ(1, cmd.out_skipped);
	EXPECT_EQ(PAGES - 1, cmd.out_already);
	test_pages_at(self->fd, iov.iov_base, 1, HMM_REF_PAGE_SYSTEM, 1);
	test_dev_data(self->fd, self->mem, PAGES, 1);

	ASSERT_EQ(page_size(), read(fds[0], buf, page_size()));
	ASSERT_TRUE(page_holds(buf, 1, 5));
	close(fds[0]);
	close(fds[1]);
	test_to_device(self->fd, self->mem, PAGES);
	test_cpu_data(self->mem, PAGES, 1);
}

/* ---- kinds of memory -------------------------------------------------------- */

static int make_file(unsigned long npages, unsigned int seed)
{
	int fd = memfd_create("hmm_ref", MFD_CLOEXEC);
	char *mem;

	if (fd < 0 || ftruncate(fd, npages * page_size()))
		return -1;
	mem = mmap(NULL, npages * page_size(), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (mem == MAP_FAILED)
		return -1;
	fill_pages(mem, npages, seed);
	munmap(mem, npages * page_size());
	return fd;
}

/* The copied pages of a private file mapping migrate, those of the file stay. */
TEST_F(migrate, private_file)
{
	int file = make_file(PAGES, 1);
	struct hmm_ref_migrate cmd;
	unsigned long i;
	char *mem;

	ASSERT_LE(0, file);
	mem = __test_map(_metadata, mmap(NULL, PAGES * page_size(),
					 PROT_READ | PROT_WRITE, MAP_PRIVATE, file, 0));
	test_cpu_data(mem, PAGES, 1);
	for (i = 0; i < PAGES; i += 2)
		fill_pages_from(mem + i * page_size(), 1, 2, i);

	for (i = 0; i < PAGES; i += 2)
		test_to_device(self->fd, mem + i * page_size(), 1);
	test_migrate(self->fd, HMM_REF_TO_DEVICE, mem, PAGES * page_size(), &cmd);
	EXPECT_EQ(0, cmd.out_migrated);
	EXPECT_EQ(PAGES / 2, cmd.out_already);
	EXPECT_EQ(PAGES / 2, cmd.out_skipped);
	test_pages_at(self->fd, mem, PAGES, HMM_REF_PAGE_DEVICE, PAGES / 2);
	for (i = 0; i < PAGES; i++)
		ASSERT_TRUE(page_holds(mem + i * page_size(), i & 1 ? 1 : 2, i));
}

/* The device writes to a page of the file: the process gets a copy, the file does not change. */
TEST_F(migrate, private_file_device_write)
{
	int file = make_file(PAGES, 1);
	char *mem, *shared;

	ASSERT_LE(0, file);
	mem = __test_map(_metadata, mmap(NULL, PAGES * page_size(),
					 PROT_READ | PROT_WRITE, MAP_PRIVATE, file, 0));
	shared = __test_map(_metadata, mmap(NULL, PAGES * page_size(),
					    PROT_READ, MAP_SHARED, file, 0));
	test_dev_data(self->fd, mem, PAGES, 1);
	ASSERT_EQ(0, dev_fill_pages(self->fd, mem, PAGES, 2));
	test_cpu_data(mem, PAGES, 2);
	test_cpu_data(shared, PAGES, 1);
	test_to_device(self->fd, mem, PAGES);
	test_dev_data(self->fd, mem, PAGES, 2);
	test_cpu_data(shared, PAGES, 1);
}

TEST_F(migrate, shared_memory)
{
	char *mem = test_map_shared(PAGES * page_size());
	struct hmm_ref_migrate cmd;

	fill_pages(mem, PAGES, 1);
	test_migrate(self->fd, HMM_REF_TO_DEVICE, mem, PAGES * page_size(), &cmd);
	EXPECT_EQ(0, cmd.out_migrated + cmd.out_already);
	EXPECT_EQ(PAGES, cmd.out_skipped);
	test_dev_data(self->fd, mem, PAGES, 1);
	ASSERT_EQ(0, dev_fill_pages(self->fd, mem, PAGES, 2));
	test_cpu_data(mem, PAGES, 2);
	test_migrate(self->fd, HMM_REF_TO_SYSTEM, mem, PAGES * page_size(), &cmd);
	EXPECT_EQ(PAGES, cmd.out_already);
}

TEST_F(migrate, read_only_mapping)
{
	char word[8] = "notmine";

	ASSERT_EQ(0, mprotect(self->mem, PAGES * page_size(), PROT_READ));
	test_to_device(self->fd, self->mem, PAGES);
	test_dev_data(self->fd, self->mem, PAGES, 1);
	test_err_write(EPERM, self->fd, self->mem, sizeof(word), word);
	test_dev_data(self->fd, self->mem, PAGES, 1);
	test_cpu_data(self->mem, PAGES, 1);
}

/* Locked memory migrates, too. */
TEST_F(migrate, locked_memory)
{
	int i;

	ASSERT_EQ(0, mlock(self->mem, PAGES * page_size()));
	for (i = 0; i < 5; i++) {
		test_to_device(self->fd, self->mem, PAGES);
		test_pages_at(self->fd, self->mem, PAGES, HMM_REF_PAGE_DEVICE, PAGES);
		test_dev_data(self->fd, self->mem, PAGES, 1);
		test_cpu_data(self->mem, PAGES, 1);
	}
	ASSERT_EQ(0, munlock(self->mem, PAGES * page_size()));
	test_to_device(self->fd, self->mem, PAGES);
	test_cpu_data(self->mem, PAGES, 1);
}

/* The stack migrates during an ioctl that has its struct on that stack. */
TEST_F(migrate, own_stack)
{
	unsigned long here = (unsigned long)__builtin_frame_address(0);
	struct hmm_ref_migrate cmd;
	int i;

	/* Pages that are shared with the parent since fork() would migrate for the parent, too. */
	memset(alloca(3 * page_size()), 0x5a, 3 * page_size());
	here &= ~(page_size() - 1);
	for (i = 0; i < 20; i++) {
		test_migrate(self->fd, HMM_REF_TO_DEVICE, (void *)(here - 2 * page_size()),
			     3 * page_size(), &cmd);
		EXPECT_EQ(3, cmd.out_migrated + cmd.out_already + cmd.out_skipped);
	}
}

/* ---- two opens, two devices ------------------------------------------------- */

/* Two opens of one device: pages belong to the device, not to the file. */
TEST_F(migrate, two_opens)
{
	int other = test_open(0);
	struct hmm_ref_migrate cmd;

	test_to_device(self->fd, self->mem, PAGES);
	test_dev_data(other, self->mem, PAGES, 1);
	test_pages_at(other, self->mem, PAGES, HMM_REF_PAGE_DEVICE, PAGES);
	ASSERT_EQ(0, dev_fill_pages(other, self->mem, PAGES, 2));
	test_dev_data(self->fd, self->mem, PAGES, 2);

	test_migrate(other, HMM_REF_TO_DEVICE, self->mem, PAGES * page_size(), &cmd);
	EXPECT_EQ(PAGES, cmd.out_already);
	test_to_system(other, self->mem, PAGES);
	test_pages_at(self->fd, self->mem, PAGES, HMM_REF_PAGE_SYSTEM, PAGES);
	test_dev_data(self->fd, self->mem, PAGES, 2);
	test_cpu_data(self->mem, PAGES, 2);
}

/* An entry of one file must not survive a migration by the other. */
TEST_F(migrate, two_opens_stale_mapping)
{
	int other = test_open(0);
	int i;

	for (i = 0; i < 20; i++) {
		ASSERT_EQ(0, dev_fill_pages(other, self->mem, PAGES, i + 2));
		test_to_device(self->fd, self->mem, PAGES);
		test_dev_data(other, self->mem, PAGES, i + 2);
		ASSERT_EQ(0, dev_fill_pages(other, self->mem, PAGES, i + 100));
		test_to_system(self->fd, self->mem, PAGES);
		test_dev_data(other, self->mem, PAGES, i + 100);
		test_cpu_data(self->mem, PAGES, i + 100);
	}
}

/* A page migrates from one device to another. Both see its data. */
TEST_F(migrate, two_devices)
{
	struct hmm_ref_migrate cmd;
	int other, i;

	if (hmm_ref_count() < 2)
		SKIP(return, "needs two devices (module parameter ndevices)");
	other = test_open(1);
	for (i = 0; i < 5; i++) {
		test_to_device(self->fd, self->mem, PAGES);
		test_pages_at(other, self->mem, PAGES, HMM_REF_PAGE_NONE, PAGES);
		test_migrate(other, HMM_REF_TO_DEVICE, self->mem,
			     PAGES * page_size(), &cmd);
		EXPECT_EQ(PAGES, cmd.out_migrated);
		test_pages_at(other, self->mem, PAGES, HMM_REF_PAGE_DEVICE, PAGES);
		test_pages_at(self->fd, self->mem, PAGES, HMM_REF_PAGE_DEVICE, 0);
		test_dev_data(other, self->mem, PAGES, i + 1);
		test_dev_data(self->fd, self->mem, PAGES, i + 1);
		ASSERT_EQ(0, dev_fill_pages(other, self->mem, PAGES, i + 2));
		test_dev_data(self->fd, self->mem, PAGES, i + 2);
		test_cpu_data(self->mem, PAGES, i + 2);
	}
}

/* A device accesses pages that are on another device. */
TEST_F(migrate, access_to_other_device)
{
	int other;

	if (hmm_ref_count() < 2)
		SKIP(return, "needs two devices (module parameter ndevices)");
	other = test_open(1);
	test_to_device(self->fd, self->mem, PAGES);
	test_dev_data(other, self->mem, PAGES, 1);
	test_to_device(self->fd, self->mem, PAGES);
	ASSERT_EQ(0, dev_fill_pages(other, self->mem, PAGES, 2));
	test_dev_data(self->fd, self->mem, PAGES, 2);
	test_cpu_data(self->mem, PAGES, 2);
}

int main(int argc, char **argv)
{
	return hmm_ref_test_main(argc, argv);
}
