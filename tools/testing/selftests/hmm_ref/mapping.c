// SPDX-License-Identifier: GPL-2.0-only
/*
 * Device access to memory that is not anonymous: shared memory, files, the page cache of a disk,
 * hugetlb. The device accesses it in place, with the semantics of a shared or private mapping, and
 * pages that cannot migrate stay.
 *
 * Covers: a device write to a file's page that is never written back, because the page was not
 * marked dirty; a device that still uses a page after a hole was punched in the file; an access
 * beyond the end of a file that is retried forever; a private mapping that writes to the file.
 */
#include <linux/fs.h>

#include "hmm_ref_utils.h"

#define PAGES		32UL
#define HUGEPAGES	"/proc/sys/vm/nr_hugepages"

enum kind { ANON, MEMFD, RAMDISK, HUGETLB };

struct mapping {
	int file;
	char *mem;
	char *alias;		/* second mapping of the file; NULL for ANON */
	size_t size;		/* of both mappings */
	char old[32];		/* original number of huge pages */
};

FIXTURE(mapping)
{
	struct leak_check leak;
	struct mapping m;
	char *mem;
	int fd;
};

FIXTURE_VARIANT(mapping)
{
	enum kind kind;
	bool shared;
};

FIXTURE_VARIANT_ADD(mapping, shared_anon) { .kind = ANON, .shared = true };
FIXTURE_VARIANT_ADD(mapping, shared_memfd) { .kind = MEMFD, .shared = true };
FIXTURE_VARIANT_ADD(mapping, shared_disk) { .kind = RAMDISK, .shared = true };
FIXTURE_VARIANT_ADD(mapping, shared_hugetlb) { .kind = HUGETLB, .shared = true };
FIXTURE_VARIANT_ADD(mapping, private_memfd) { .kind = MEMFD };
FIXTURE_VARIANT_ADD(mapping, private_disk) { .kind = RAMDISK };
FIXTURE_VARIANT_ADD(mapping, private_hugetlb) { .kind = HUGETLB };

static int open_kind(enum kind what)
{
	switch (what) {
	case MEMFD:
		return memfd_create("hmm_ref", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	case HUGETLB:
		return memfd_create("hmm_ref", MFD_CLOEXEC | MFD_HUGETLB);
	case RAMDISK:
		return open(DISK, O_RDWR | O_CLOEXEC);
	default:
		return -1;
	}
}

/* Other users of the disk expect zeros at its start. */
static int clear_disk(void)
{
	char *page = calloc(1, page_size());
	int disk = open(DISK, O_WRONLY | O_CLOEXEC);
	int rc = 0;

	if (disk >= 0 && pwrite(disk, page, page_size(), 0) != page_size())
		rc = -errno;
	close(disk);
	free(page);
	return rc;
}

static int map_kind(struct mapping *m, enum kind what, bool shared)
{
	int flags = shared ? MAP_SHARED : MAP_PRIVATE;

	m->size = what == HUGETLB ? block_size() : PAGES * page_size();
	m->file = open_kind(what);
	if (what == ANON)
		flags |= MAP_ANONYMOUS;
	else if (m->file < 0 || (what != RAMDISK && ftruncate(m->file, m->size)))
		return -errno;
	m->mem = mmap(NULL, m->size, PROT_READ | PROT_WRITE, flags, m->file, 0);
	if (m->mem == MAP_FAILED)
		return -errno;
	if (what == ANON)
		return 0;
	m->alias = mmap(NULL, m->size, PROT_READ | PROT_WRITE, MAP_SHARED, m->file, 0);
	return m->alias == MAP_FAILED ? -errno : 0;
}

FIXTURE_SETUP(mapping)
{
	int rc;

	leak_check_begin(_metadata, &self->leak);
	self->fd = test_open(0);
	if (variant->kind == HUGETLB &&
	    (read_file(HUGEPAGES, self->m.old, sizeof(self->m.old)) < 0 ||
	     write_file(HUGEPAGES, "4")))
		SKIP(return, "no hugetlb (CONFIG_HUGETLBFS)");
	rc = map_kind(&self->m, variant->kind, variant->shared);
	if (rc == -ENOMEM && variant->kind == HUGETLB)
		SKIP(return, "no huge pages can be allocated");
	if (rc == -ENOENT)
		SKIP(return, "no " DISK " (CONFIG_BLK_DEV_RAM)");
	ASSERT_EQ(0, rc);
	self->mem = self->m.mem;
	if (self->m.alias)
		fill_pages(self->m.alias, PAGES, 1);
	else
		fill_pages(self->mem, PAGES, 1);
}

FIXTURE_TEARDOWN_PARENT(mapping)
{
	if (self->m.old[0])
		EXPECT_EQ(0, write_file(HUGEPAGES, self->m.old));
	EXPECT_EQ(0, clear_disk());
	leak_check_end(_metadata, &self->leak);
}

/* Checks the file's content, if there is a file: data of the device, or the original data. */
#define test_alias(written) do { \
	if (self->m.alias) \
		test_cpu_data(self->m.alias, PAGES, variant->shared ? written : 1); \
} while (0)

TEST_F(mapping, device_reads)
{
	test_dev_data(self->fd, self->mem, PAGES, 1);
	test_cpu_data(self->mem, PAGES, 1);
	test_dev_data(self->fd, self->mem, PAGES, 1);
}

TEST_F(mapping, device_writes)
{
	int i;

	for (i = 2; i < 5; i++) {
		ASSERT_EQ(0, dev_fill_pages(self->fd, self->mem, PAGES, i));
		test_cpu_data(self->mem, PAGES, i);
		test_dev_data(self->fd, self->mem, PAGES, i);
		test_alias(i);
	}
}

/* The device reads first, so that the write has to replace its entries. */
TEST_F(mapping, device_reads_then_writes)
{
	test_dev_data(self->fd, self->mem, PAGES, 1);
	ASSERT_EQ(0, dev_fill_pages(self->fd, self->mem, PAGES, 2));
	test_cpu_data(self->mem, PAGES, 2);
	test_alias(2);
	fill_pages(self->mem, PAGES, 3);
	test_dev_data(self->fd, self->mem, PAGES, 3);
	test_alias(3);
}

/* The device sees data that was written through the file or the other mapping. */
TEST_F(mapping, device_sees_the_file)
{
	test_dev_data(self->fd, self->mem, PAGES, 1);
	if (!self->m.alias)
		return;
	fill_pages(self->m.alias, PAGES, 2);
	test_dev_data(self->fd, self->mem, PAGES, 2);
	ASSERT_EQ(0, dev_fill_pages(self->fd, self->m.alias, PAGES, 3));
	test_dev_data(self->fd, self->mem, PAGES, 3);
	test_cpu_data(self->mem, PAGES, 3);
}

/* Shared pages and hugetlb pages stay. Private copies of a file's pages migrate. */
TEST_F(mapping, migrates_private_pages_only)
{
	unsigned long size = PAGES * page_size();
	struct hmm_ref_migrate cmd;

	fill_pages(self->mem, PAGES, 2);
	if (variant->kind == HUGETLB) {
		test_err_migrate(EINVAL, self->fd, HMM_REF_TO_DEVICE, self->mem, size, &cmd);
	} else if (variant->shared) {
		test_migrate(self->fd, HMM_REF_TO_DEVICE, self->mem, size, &cmd);
		EXPECT_EQ(PAGES, cmd.out_skipped);
	} else {
		test_to_device(self->fd, self->mem, PAGES);
	}
	test_dev_data(self->fd, self->mem, PAGES, 2);
	ASSERT_EQ(0, dev_fill_pages(self->fd, self->mem, PAGES, 3));
	test_cpu_data(self->mem, PAGES, 3);
	test_alias(3);
}

struct family {
	char *mem;
	int ready, go;
};

/* Checks the data of fork(), writes, and waits for the other process. */
static int child_main(void *arg)
{
	struct family *family = arg;

	if (!CHECK(!bad_pages(family->mem, PAGES, 1)))
		return 1;
	fill_pages(family->mem, PAGES, 2);
	event_post(family->ready);
	return !CHECK(event_wait(family->go));
}

TEST_F(mapping, fork)
{
	struct family family = { self->mem, event_new(), event_new() };
	pid_t pid;

	test_dev_data(self->fd, self->mem, PAGES, 1);
	pid = child_start(child_main, &family);
	ASSERT_TRUE(event_wait(family.ready));
	test_dev_data(self->fd, self->mem, PAGES, variant->shared ? 2 : 1);
	event_post(family.go);
	ASSERT_EQ(0, child_wait(pid, PATIENCE_MS));
	ASSERT_EQ(0, dev_fill_pages(self->fd, self->mem, PAGES, 3));
	test_cpu_data(self->mem, PAGES, 3);
	test_alias(3);
}

TEST_F(mapping, discard)
{
	ASSERT_EQ(0, dev_fill_pages(self->fd, self->mem, PAGES, 2));
	ASSERT_EQ(0, madvise(self->mem, self->m.size, MADV_DONTNEED));
	/* The file keeps the data, private pages lose it. */
	test_dev_data(self->fd, self->mem, PAGES, variant->shared ? 2 : 1);
	test_cpu_data(self->mem, PAGES, variant->shared ? 2 : 1);
}

/* After a hole has been punched, the device sees zeros and writes to the new page. */
TEST_F(mapping, hole_in_the_file)
{
	char *buf = test_map_pages(1);
	unsigned long i;

	if (!self->m.alias || variant->kind == RAMDISK)
		return;
	test_dev_data(self->fd, self->mem, PAGES, 1);
	ASSERT_EQ(0, fallocate(self->m.file, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
			       0, self->m.size));
	for (i = 0; i < PAGES; i++) {
		memset(buf, 0xcc, page_size());
		test_read(self->fd, self->mem + i * page_size(), page_size(), buf);
		ASSERT_TRUE(page_is_zero(buf));
	}
	ASSERT_EQ(0, dev_fill_pages(self->fd, self->mem, PAGES, 2));
	test_cpu_data(self->mem, PAGES, 2);
	if (variant->shared)
		test_cpu_data(self->m.alias, PAGES, 2);
}

/* A read-only mapping. */
TEST_F(mapping, read_only)
{
	char word[8] = "notmine";

	ASSERT_EQ(0, mprotect(self->mem, self->m.size, PROT_READ));
	test_dev_data(self->fd, self->mem, PAGES, 1);
	test_err_write(EPERM, self->fd, self->mem, sizeof(word), word);
	test_cpu_data(self->mem, PAGES, 1);
}

/* ---- special files --------------------------------------------------------------- */

FIXTURE(file)
{
	struct leak_check leak;
	struct mapping m;
	int fd;
};

FIXTURE_SETUP(file)
{
	leak_check_begin(_metadata, &self->leak);
	self->fd = test_open(0);
	ASSERT_EQ(0, map_kind(&self->m, MEMFD, true));
	fill_pages(self->m.mem, PAGES, 1);
}

FIXTURE_TEARDOWN_PARENT(file)
{
	EXPECT_EQ(0, clear_disk());
	leak_check_end(_metadata, &self->leak);
}

/* An access beyond the end of the file fails at once. */
TEST_F(file, truncated)
{
	unsigned long half = self->m.size / 2;
	char *buf = test_map_pages(PAGES);
	struct hmm_ref_access cmd;
	unsigned long long start;

	test_dev_data(self->fd, self->m.mem, PAGES, 1);
	ASSERT_EQ(0, ftruncate(self->m.file, half));
	start = now_ms();
	ASSERT_EQ(-EFAULT, _test_access(self->fd, HMM_REF_IOC_READ, self->m.mem,
					self->m.size, buf, &cmd));
	EXPECT_EQ(half, cmd.out_bytes);
	ASSERT_EQ(-EFAULT, _test_access(self->fd, HMM_REF_IOC_WRITE, self->m.mem,
					self->m.size, buf, &cmd));
	EXPECT_EQ(half, cmd.out_bytes);
	EXPECT_GT(PATIENCE_MS / 2, now_ms() - start);
	ASSERT_EQ(0, ftruncate(self->m.file, self->m.size));
	test_dev_data(self->fd, self->m.mem, PAGES / 2, 1);
	test_read(self->fd, self->m.mem + half, page_size(), buf);
	EXPECT_TRUE(page_is_zero(buf));
}

/* A seal against writing also holds for the device. */
TEST_F(file, sealed)
{
	char word[8] = "notmine";
	char *mem;

	test_dev_data(self->fd, self->m.mem, PAGES, 1);
	ASSERT_EQ(0, munmap(self->m.alias, self->m.size));
	ASSERT_EQ(0, munmap(self->m.mem, self->m.size));
	ASSERT_EQ(0, fcntl(self->m.file, F_ADD_SEALS, F_SEAL_WRITE));
	mem = __test_map(_metadata, mmap(NULL, self->m.size, PROT_READ, MAP_SHARED,
					 self->m.file, 0));
	test_dev_data(self->fd, mem, PAGES, 1);
	test_err_write(EPERM, self->fd, mem, sizeof(word), word);
	test_cpu_data(mem, PAGES, 1);
}

/* The disk gets the data of the device, because the page was marked dirty. */
TEST_F(file, written_back)
{
	char *copy = test_map_pages(PAGES);
	struct mapping m = {};
	int disk = open(DISK, O_RDWR | O_DIRECT | O_CLOEXEC);
	int i;

	if (disk < 0)
		SKIP(return, "no " DISK " (CONFIG_BLK_DEV_RAM)");
	ASSERT_EQ(0, map_kind(&m, RAMDISK, true));
	for (i = 1; i < 5; i++) {
		ASSERT_EQ(0, dev_fill_pages(self->fd, m.mem, PAGES, i));
		ASSERT_EQ(0, fsync(m.file));
		ASSERT_EQ(m.size, pread(disk, copy, m.size, 0));
		test_cpu_data(copy, PAGES, i);
		/* The page is clean now. The CPU reads it, so that it is mapped. */
		test_cpu_data(m.mem, PAGES, i);
	}
}

int main(int argc, char **argv)
{
	return hmm_ref_test_main(argc, argv);
}
