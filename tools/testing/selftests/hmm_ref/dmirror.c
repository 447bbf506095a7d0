// SPDX-License-Identifier: GPL-2.0-only
/*
 * The old interface, /dev/hmm_dmirror*, where the kernel's own tests of it (mm/hmm-tests) do not
 * look.
 *
 * All fixtures except the last one also run on test_hmm, which some of them crash: see
 * Documentation/misc-devices/hmm_ref/test_hmm.rst.
 *
 * Covers: device pages that the CPU reads directly; files that evict each other's pages; a device
 * write after fork that fails or reaches the child; a page count that overflows to one page;
 * outputs that are lost when a command fails.
 */
#include <limits.h>

#include <linux/userfaultfd.h>

#include "hmm_ref_old.h"
#include "hmm_ref_utils.h"

#define PAGES		16UL
#define THP_SIZE	"/sys/kernel/mm/transparent_hugepage/hpage_pmd_size"

/* ---- the interface --------------------------------------------------------------- */

#define FAIL_LARGE	1
#define AT_PRIVATE	0x20	/* bits of SNAPSHOT: where the page is, and on which device */
#define AT_MASK		0xf0
#define BY_PMD		0x04
#define NOT_WRITTEN	0xccccccccccccccccULL
#define UNKNOWN		31	/* a number without a command */

/* The command must process all of the pages. */
static int dm_all(int fd, unsigned int nr, const void *addr, unsigned long npages,
		  const void *buf)
{
	struct old_cmd cmd;
	int rc = old_command(fd, nr, addr, npages, buf, &cmd);

	return rc ? rc : cmd.out_pages == npages ? 0 : -EPROTO;
}

/* Counts the pages that are on the device. */
static long dm_pages_there(int fd, const void *mem, unsigned long npages)
{
	unsigned char bytes[PAGES] = {};
	unsigned long i;
	long found = 0;
	int rc;

	if (npages > PAGES)
		return -E2BIG;
	rc = dm_all(fd, OLD_SNAPSHOT, mem, npages, bytes);
	for (i = 0; i < npages; i++)
		found += (bytes[i] & AT_MASK) == AT_PRIVATE;
	return rc ? rc : found;
}

/* Counts the pages in which the device sees wrong data. */
static long dm_bad_pages(int fd, const void *mem, unsigned long npages,
			 unsigned int seed)
{
	char *buf = calloc(npages, page_size());
	long bad = -ENOMEM;

	if (buf)
		bad = dm_all(fd, OLD_READ, mem, npages, buf);
	if (!bad)
		bad = bad_pages(buf, npages, seed);
	free(buf);
	return bad;
}

/* ---- fixture --------------------------------------------------------------------- */

FIXTURE(dmirror)
{
	struct leak_check leak;
	bool hmm_ref;
	int fd;
	char *mem;
	char *buf;
};

FIXTURE_SETUP(dmirror)
{
	leak_check_begin(_metadata, &self->leak);
	self->hmm_ref = self->leak.devices;
	self->fd = old_open(0);
	ASSERT_LE(0, self->fd);
	self->mem = test_map_pages(PAGES);
	self->buf = test_map_pages(PAGES);
	fill_pages(self->mem, PAGES, 1);
}

FIXTURE_TEARDOWN_PARENT(dmirror)
{
	leak_check_end(_metadata, &self->leak);
}

#define test_to_device_old(fd, mem, npages) \
	ASSERT_EQ(0, dm_all(fd, OLD_TO_DEVICE, mem, npages, self->buf))
#define test_there(fd, mem, npages, expected) \
	ASSERT_EQ((long)(expected), dm_pages_there(fd, mem, npages))

/* ---- the interface itself -------------------------------------------------------- */

TEST_F(dmirror, more_pages_than_fit)
{
	const unsigned int all[] = { OLD_READ, OLD_WRITE, OLD_TO_DEVICE, OLD_TO_SYSTEM,
				     OLD_SNAPSHOT };
	unsigned long limit = ULONG_MAX / page_size() + 1;
	const unsigned long npages[] = { limit + 1, limit, limit - 1, ULONG_MAX, 0 };
	struct old_cmd cmd;
	unsigned int i, j;

	for (i = 0; i < ARRAY_SIZE(all); i++) {
		for (j = 0; j < ARRAY_SIZE(npages); j++) {
			EXPECT_EQ(-EINVAL, old_command(self->fd, all[i], self->mem,
						       npages[j], self->buf, &cmd)) {
				TH_LOG("command %u, %lu pages", all[i], npages[j]);
			}
		}
	}
	test_there(self->fd, self->mem, PAGES, 0);
	test_cpu_data(self->mem, PAGES, 1);
	ASSERT_TRUE(page_is_zero(self->buf));
}

TEST_F(dmirror, unknown_command)
{
	struct old_cmd cmd;
	int rc = old_command(self->fd, UNKNOWN, self->mem, 1, self->buf, &cmd);

	if (!self->hmm_ref && rc == -EINVAL)
		return;
	ASSERT_EQ(-ENOTTY, rc);
	ASSERT_EQ(-ENOTTY, _test_ioctl(self->fd, _IO('H', OLD_READ), &cmd));
	ASSERT_EQ(-ENOTTY, _test_ioctl(self->fd, _IOWR('h', OLD_READ, struct old_cmd), &cmd));
}

TEST_F(dmirror, counts_of_a_read_that_fails)
{
	struct old_cmd cmd;

	ASSERT_EQ(0, mprotect(self->mem + 3 * page_size(), page_size(), PROT_NONE));
	ASSERT_EQ(-EFAULT, old_command(self->fd, OLD_READ, self->mem, PAGES, self->buf, &cmd));
	ASSERT_NE(NOT_WRITTEN, cmd.out_pages);
	ASSERT_EQ(3, cmd.out_pages);
	ASSERT_EQ(0, bad_pages(self->buf, 3, 1));
}

TEST_F(dmirror, counts_of_a_migration_that_fails)
{
	int other = old_open(1);
	struct old_cmd cmd;

	ASSERT_LE(0, other);
	test_to_device_old(other, self->mem + 3 * page_size(), 1);
	ASSERT_EQ(-ENOENT, old_command(self->fd, OLD_TO_DEVICE, self->mem, PAGES, self->buf, &cmd));
	ASSERT_EQ(PAGES - 1, cmd.out_pages);
	test_cpu_data(self->mem, PAGES, 1);
}

/* EXCLUSIVE also returns the data of the pages. */
TEST_F(dmirror, exclusive_returns_data)
{
	ASSERT_EQ(0, dm_all(self->fd, OLD_EXCLUSIVE, self->mem, PAGES, self->buf));
	ASSERT_EQ(0, bad_pages(self->buf, PAGES, 1));
}

TEST_F(dmirror, bad_range_moves_nothing)
{
	struct old_cmd cmd;

	ASSERT_EQ(0, mprotect(self->mem + 8 * page_size(), page_size(), PROT_NONE));
	ASSERT_EQ(-EINVAL, old_command(self->fd, OLD_TO_DEVICE, self->mem, PAGES, self->buf, &cmd));
	ASSERT_EQ(0, munmap(self->mem + 8 * page_size(), page_size()));
	ASSERT_EQ(-EINVAL, old_command(self->fd, OLD_TO_DEVICE, self->mem, PAGES, self->buf, &cmd));
	test_there(self->fd, self->mem, 8, 0);
}

/* One large page cannot be allocated, the next one can. A flag of 0 cancels the failure. */
TEST_F(dmirror, flags)
{
	static const struct {
		int before;
		bool pmd;
	} steps[] = {
		{ -1, true }, { FAIL_LARGE, false }, { -1, true }, { FAIL_LARGE, false },
		{ FAIL_LARGE, true },
	};
	unsigned long size, i;
	unsigned char byte;
	struct old_cmd cmd;
	char text[32];
	char *mem;

	if (read_file(THP_SIZE, text, sizeof(text)) < 0)
		SKIP(return, "no huge pages");
	size = strtoul(text, NULL, 0);
	mem = test_map_pages(2 * size / page_size());
	mem = (char *)(((unsigned long)mem + size - 1) & ~(size - 1));
	self->buf = test_map_pages(size / page_size());
	for (i = 0; i < ARRAY_SIZE(steps); i++) {
		ASSERT_EQ(0, madvise(mem, size, MADV_DONTNEED));
		ASSERT_EQ(0, madvise(mem, size, MADV_HUGEPAGE));
		fill_pages(mem, size / page_size(), 1);
		if (steps[i].before >= 0)
			ASSERT_EQ(0, old_command(self->fd, OLD_FLAGS, mem, steps[i].before,
						 NULL, &cmd));
		if (i == ARRAY_SIZE(steps) - 1)
			ASSERT_EQ(0, old_command(self->fd, OLD_FLAGS, mem, 0, NULL, &cmd));
		test_to_device_old(self->fd, mem, size / page_size());
		test_there(self->fd, mem, 1, 1);
		ASSERT_EQ(0, dm_all(self->fd, OLD_SNAPSHOT, mem, 1, &byte));
		if (!keeps_large() && !(byte & BY_PMD))
			SKIP(return, "this kernel has no large device pages");
		ASSERT_EQ(steps[i].pmd, !!(byte & BY_PMD));
		test_cpu_data(mem, size / page_size(), 1);
	}
}

#ifdef UFFDIO_RWPROTECT

/* A page that cannot be accessed without a userfaultfd event has no permissions and no place. */
TEST_F(dmirror, snapshot_of_a_page_without_permissions)
{
	struct uffdio_api api = { .api = UFFD_API, .features = UFFD_FEATURE_RWP };
	struct uffdio_register range = {
		.range = { .start = (unsigned long)self->mem, .len = page_size() },
		.mode = UFFDIO_REGISTER_MODE_RWP,
	};
	struct uffdio_rwprotect rwp = {
		.range = range.range, .mode = UFFDIO_RWPROTECT_MODE_RWP,
	};
	int uffd = syscall(__NR_userfaultfd, O_CLOEXEC | O_NONBLOCK);
	unsigned char bytes[2];

	if (uffd < 0 || ioctl(uffd, UFFDIO_API, &api) || ioctl(uffd, UFFDIO_REGISTER, &range) ||
	    ioctl(uffd, UFFDIO_RWPROTECT, &rwp))
		SKIP(return, "no protection by userfaultfd: %s", strerror(errno));
	ASSERT_EQ(0, dm_all(self->fd, OLD_SNAPSHOT, self->mem, 2, bytes));
	EXPECT_EQ(0, bytes[0]);
	EXPECT_NE(0, bytes[1]);
}

#endif /* UFFDIO_RWPROTECT */

/* ---- visible data ---------------------------------------------------------------- */

/* The flag applies to the next migration, whether or not that needs a large page. */
TEST_F(dmirror, flag_of_a_small_migration)
{
	unsigned long size, npages;
	unsigned char byte;
	struct old_cmd cmd;
	char text[32];
	char *mem;

	if (!self->hmm_ref || !keeps_large() || read_file(THP_SIZE, text, sizeof(text)) < 0)
		SKIP(return, "no large device pages");
	size = strtoul(text, NULL, 0);
	npages = size / page_size();
	mem = test_map_blocks(1);
	self->buf = test_map_pages(npages);
	ASSERT_EQ(0, madvise(mem, size, MADV_HUGEPAGE));
	fill_pages(mem, npages, 1);
	ASSERT_EQ(0, old_command(self->fd, OLD_FLAGS, mem, FAIL_LARGE, NULL, &cmd));
	test_to_device_old(self->fd, self->mem, 1);
	test_to_device_old(self->fd, mem, npages);
	ASSERT_EQ(0, dm_all(self->fd, OLD_SNAPSHOT, mem, 1, &byte));
	EXPECT_TRUE(byte & BY_PMD);
}

/* The errors are those of make_device_exclusive(). */
TEST_F(dmirror, exclusive_refused)
{
	struct old_cmd cmd;
	char *mem = test_map_shared(page_size());

	EXPECT_EQ(-EOPNOTSUPP, old_command(self->fd, OLD_EXCLUSIVE, mem, 1, self->buf, &cmd));
	ASSERT_EQ(0, mprotect(self->mem, page_size(), PROT_READ));
	EXPECT_EQ(-EFAULT, old_command(self->fd, OLD_EXCLUSIVE, self->mem, 1, self->buf,
				       &cmd));
}

TEST_F(dmirror, second_file_reads)
{
	int second = old_open(0);

	ASSERT_LE(0, second);
	test_to_device_old(self->fd, self->mem, PAGES);
	ASSERT_EQ(0, dm_bad_pages(second, self->mem, PAGES, 1));
	test_there(second, self->mem, PAGES, PAGES);
}

TEST_F(dmirror, read_after_mprotect)
{
	test_to_device_old(self->fd, self->mem, PAGES);
	ASSERT_EQ(0, mprotect(self->mem, PAGES * page_size(), PROT_READ));
	ASSERT_EQ(0, dm_bad_pages(self->fd, self->mem, PAGES, 1));
}

TEST_F(dmirror, read_after_dontneed)
{
	unsigned int i;

	test_to_device_old(self->fd, self->mem, PAGES);
	ASSERT_EQ(0, madvise(self->mem, 4 * page_size(), MADV_DONTNEED));
	for (i = 0; i < 4; i++)
		touch_read(self->mem + i * page_size());
	ASSERT_EQ(0, dm_all(self->fd, OLD_READ, self->mem, PAGES, self->buf));
	ASSERT_TRUE(page_is_zero(self->buf));
	ASSERT_EQ(0, bad_pages_from(self->buf + 4 * page_size(), PAGES - 4, 1, 4));
}

/* A child that waits for permission to look at its copy of the memory. */
struct child {
	char *mem;
	unsigned int seed;
	int go;
};

static int child_looks(void *arg)
{
	struct child *child = arg;

	return !CHECK(event_wait(child->go)) ||
	       !CHECK(!bad_pages(child->mem, PAGES, child->seed));
}

TEST_F(dmirror, read_after_fork)
{
	struct child child = { self->mem, 1, event_new() };
	pid_t pid;

	test_to_device_old(self->fd, self->mem, PAGES);
	pid = child_start(child_looks, &child);
	ASSERT_LT(0, pid);
	EXPECT_EQ(0, dm_bad_pages(self->fd, self->mem, PAGES, 1));
	event_post(child.go);
	ASSERT_EQ(0, child_wait(pid, PATIENCE_MS));
}

TEST_F(dmirror, write_after_fork)
{
	struct child child = { self->mem, 1, event_new() };
	pid_t pid;

	test_to_device_old(self->fd, self->mem, PAGES);
	pid = child_start(child_looks, &child);
	ASSERT_LT(0, pid);
	/* The device then has a read-only entry. */
	EXPECT_EQ(0, dm_bad_pages(self->fd, self->mem, PAGES, 1));
	fill_pages(self->buf, PAGES, 2);
	EXPECT_EQ(0, dm_all(self->fd, OLD_WRITE, self->mem, PAGES, self->buf));
	event_post(child.go);
	ASSERT_EQ(0, child_wait(pid, PATIENCE_MS));
	test_cpu_data(self->mem, PAGES, 2);
}

TEST_F(dmirror, close_leaves_other_pages)
{
	int second = old_open(0);

	ASSERT_LE(0, second);
	test_to_device_old(self->fd, self->mem, PAGES / 2);
	test_to_device_old(second, self->mem + PAGES / 2 * page_size(), PAGES / 2);
	ASSERT_EQ(0, close(second));
	test_there(self->fd, self->mem, PAGES, PAGES);
	test_cpu_data(self->mem, PAGES, 1);
}

/* RELEASE evicts all pages, and the device works on. */
TEST_F(dmirror, release)
{
	struct old_cmd cmd;
	int second = old_open(0);

	ASSERT_LE(0, second);
	test_to_device_old(self->fd, self->mem, PAGES / 2);
	test_to_device_old(second, self->mem + PAGES / 2 * page_size(), PAGES / 2);
	ASSERT_EQ(0, old_command(self->fd, OLD_RELEASE, self->mem, 1, NULL, &cmd));
	test_there(self->fd, self->mem, PAGES, 0);
	ASSERT_EQ(0, dm_bad_pages(second, self->mem, PAGES, 1));
	test_to_device_old(second, self->mem, PAGES);
	test_there(self->fd, self->mem, PAGES, PAGES);
	test_cpu_data(self->mem, PAGES, 1);
}

/* ---- files in other processes ---------------------------------------------------- */

struct heir {
	int fd;
	char *mem;
	char *buf;
	int go;
	int ready;
};

/* The child's own memory has other data: the file acts on the memory of the opener. */
static int child_uses_file(void *arg)
{
	struct heir *heir = arg;

	fill_pages(heir->mem, PAGES, 3);
	if (!CHECK(!dm_bad_pages(heir->fd, heir->mem, PAGES, 1)) ||
	    !CHECK(!dm_all(heir->fd, OLD_TO_DEVICE, heir->mem, PAGES, heir->buf)) ||
	    !CHECK(!bad_pages(heir->buf, PAGES, 1)) ||
	    !CHECK(dm_pages_there(heir->fd, heir->mem, PAGES) == PAGES))
		return 1;
	fill_pages(heir->buf, PAGES, 2);
	return !CHECK(!dm_all(heir->fd, OLD_WRITE, heir->mem, PAGES, heir->buf)) ||
	       !CHECK(!bad_pages(heir->mem, PAGES, 3));
}

TEST_F(dmirror, child_acts_on_opener)
{
	struct heir heir = { self->fd, self->mem, self->buf };

	ASSERT_EQ(0, child_run(child_uses_file, &heir));
	test_cpu_data(self->mem, PAGES, 2);
}

static int child_outlives_opener(void *arg)
{
	const unsigned int all[] = { OLD_READ, OLD_WRITE, OLD_TO_DEVICE, OLD_TO_SYSTEM,
				     OLD_SNAPSHOT };
	struct heir *heir = arg;
	struct old_cmd cmd;
	unsigned int i;

	prctl(PR_SET_PDEATHSIG, 0);
	event_post(heir->ready);
	if (!CHECK(event_wait(heir->go)))
		return 1;
	for (i = 0; i < ARRAY_SIZE(all); i++) {
		if (!CHECK(old_command(heir->fd, all[i], heir->mem, PAGES, heir->buf, &cmd) < 0))
			return 1;
	}
	counter_set((unsigned long *)heir->buf, 1);
	return 0;
}

static int opener(void *arg)
{
	struct heir *heir = arg;

	heir->fd = old_open(0);
	if (!CHECK(heir->fd >= 0) ||
	    !CHECK(!dm_all(heir->fd, OLD_TO_DEVICE, heir->mem, PAGES, heir->buf)))
		return 1;
	counter_set((unsigned long *)heir->buf, 0);
	return !CHECK(child_start(child_outlives_opener, heir) > 0) ||
	       !CHECK(event_wait(heir->ready));
}

TEST_F(dmirror, opener_is_gone)
{
	char *shared = test_map_shared(PAGES * page_size());
	struct heir heir = { -1, self->mem, shared, event_new(), event_new() };
	unsigned long long deadline;

	ASSERT_EQ(0, child_run(opener, &heir));
	event_post(heir.go);
	deadline = now_ms() + PATIENCE_MS;
	while (!counter_get((unsigned long *)shared) && now_ms() < deadline)
		usleep(1000);
	ASSERT_EQ(1, counter_get((unsigned long *)shared));
	test_cpu_data(self->mem, PAGES, 1);
}

/* ---- hmm_ref only ---------------------------------------------------------------- */

FIXTURE(dmirror_gone)
{
	struct leak_check leak;
	char *mem;
	char *buf;
	int fd;
};

FIXTURE_SETUP(dmirror_gone)
{
	if (!device_can_unbind(0))
		SKIP(return, "the device cannot be unbound");
	leak_check_begin(_metadata, &self->leak);
	self->fd = old_open(1);
	ASSERT_LE(0, self->fd);
	self->mem = test_map_pages(PAGES);
	self->buf = test_map_pages(PAGES);
	fill_pages(self->mem, PAGES, 1);
	test_to_device_old(self->fd, self->mem, PAGES);
}

FIXTURE_TEARDOWN_PARENT(dmirror_gone)
{
	if (access("/dev/hmm_ref1", F_OK))
		device_bind(1);
	leak_check_end(_metadata, &self->leak);
}

TEST_F(dmirror_gone, unbind)
{
	const unsigned int all[] = { OLD_READ, OLD_WRITE, OLD_TO_DEVICE, OLD_TO_SYSTEM,
				     OLD_SNAPSHOT,
				     OLD_RELEASE, OLD_FLAGS };
	struct old_cmd cmd;
	unsigned int i;
	int fd;

	ASSERT_EQ(0, device_unbind(1));
	EXPECT_EQ(-ENOENT, old_open(1));
	test_cpu_data(self->mem, PAGES, 1);
	ASSERT_EQ(0, device_bind(1));
	for (i = 0; i < ARRAY_SIZE(all); i++) {
		EXPECT_EQ(-ENODEV, old_command(self->fd, all[i], self->mem, 1, self->buf, &cmd)) {
			TH_LOG("command %u", all[i]);
		}
	}
	fd = old_open(1);
	ASSERT_LE(0, fd);
	test_to_device_old(fd, self->mem, PAGES);
	ASSERT_EQ(0, dm_bad_pages(fd, self->mem, PAGES, 1));
}

/* Migrates pages back and forth until the device is gone. */
static int until_gone(void *arg)
{
	struct heir *heir = arg;
	int rc;

	do {
		rc = dm_all(heir->fd, OLD_TO_DEVICE, heir->mem, PAGES, heir->buf);
		if (!rc)
			event_post(heir->go);
		if (!CHECK(!bad_pages(heir->mem, PAGES, 1)))
			return 1;
	} while (!rc);
	return !CHECK(rc == -ENODEV);
}

TEST_F(dmirror_gone, unbind_in_use)
{
	struct heir heir = { self->fd, self->mem, self->buf, event_new() };
	struct worker worker;

	ASSERT_EQ(0, worker_start(&worker, until_gone, &heir));
	ASSERT_TRUE(event_wait(heir.go));
	EXPECT_EQ(0, device_unbind(1));
	ASSERT_EQ(0, worker_wait(&worker));
	test_cpu_data(self->mem, PAGES, 1);
}

/* A mapping is populated at once, so its size is limited. */
TEST_F(dmirror_gone, mmap)
{
	const unsigned long size = 1UL << 40;
	char *mem;

	EXPECT_EQ(MAP_FAILED, mmap(NULL, size, PROT_READ, MAP_SHARED, self->fd, 0));
	EXPECT_EQ(EINVAL, errno);
	mem = mmap(NULL, PAGES * page_size(), PROT_READ | PROT_WRITE, MAP_SHARED,
		   self->fd, 0);
	ASSERT_NE(MAP_FAILED, mem);
	ASSERT_TRUE(page_is_zero(mem));
	fill_pages(mem, PAGES, 2);
	ASSERT_EQ(0, dm_bad_pages(self->fd, mem, PAGES, 2));
	ASSERT_EQ(0, device_unbind(1));
	test_cpu_data(mem, PAGES, 2);
}

/* The driver may be test_hmm, so the tests need no more than the page size. */
int main(int argc, char **argv)
{
	bool help = argc > 1 && (!strcmp(argv[1], "-l") || !strcmp(argv[1], "-h"));

	bus_devices_find();
	if (hmm_ref_probe())
		hmm_ref_dev_info.out_page_size = sysconf(_SC_PAGESIZE);
	if (!help && access("/dev/hmm_dmirror0", R_OK | W_OK)) {
		ksft_print_header();
		ksft_exit_skip("no /dev/hmm_dmirror0: load hmm_ref (CONFIG_HMM_REF_DMIRROR)\n");
	}
	return test_harness_run(argc, argv);
}
