// SPDX-License-Identifier: GPL-2.0-only
/*
 * Memory failure on the device, reported as by the machine (debugfs, hwpoison).
 *
 * A free page is retired, and nothing is lost. The data of a used page is lost: the report fails, a
 * CPU access gets SIGBUS, a device access EIO, and neither ever gets other data. Neighbours are not
 * affected, and the page is retired when it is unmapped.
 *
 * Covers: a driver that reports "recovered" for a used page, and later copies the remains of its
 * data to system memory as if they were good.
 *
 * The effect of a real machine check on the task that causes it is not tested here.
 */
#include <setjmp.h>

#include "hmm_ref_utils.h"

#define HWPOISON	"/sys/kernel/debug/hwpoison/corrupt-pfn"

#define BAD		5UL	/* page of the block */

/* ---- reports and signals --------------------------------------------------------- */

static sigjmp_buf no_data;
static siginfo_t told;

static void on_sigbus(int sig, siginfo_t *info, void *context)
{
	told = *info;
	siglongjmp(no_data, 1);
}

/* Returns 0, or -errno of the report. */
static int corrupt(unsigned long pfn)
{
	char text[32];

	snprintf(text, sizeof(text), "%#lx", pfn);
	return write_file(HWPOISON, text);
}

/* True if an access at @addr raises SIGBUS. Also checks the address in the signal. */
static bool is_lost(const char *addr)
{
	struct sigaction action = { .sa_sigaction = on_sigbus, .sa_flags = SA_SIGINFO };
	bool lost = true;

	sigaction(SIGBUS, &action, NULL);
	if (!sigsetjmp(no_data, 1)) {
		touch_read(addr);
		lost = false;
	}
	signal(SIGBUS, SIG_DFL);
	return lost && CHECK(told.si_code == BUS_MCEERR_AR) &&
	       CHECK((unsigned long)told.si_addr / page_size() ==
		     (unsigned long)addr / page_size());
}

static bool have_hwpoison(void)
{
	if (!access(HWPOISON, W_OK))
		return true;
	/* In an initramfs, debugfs may not be mounted. */
	syscall(SYS_mount, "debugfs", "/sys/kernel/debug", "debugfs", 0, NULL);
	return !access(HWPOISON, W_OK);
}

/* ---- private memory -------------------------------------------------------------- */

FIXTURE(failure)
{
	struct leak_check leak;
	int fd;
	char *mem, *bad;
	unsigned long npages;
	struct hmm_ref_stats before;
};

FIXTURE_VARIANT(failure)
{
	int advice;
};

FIXTURE_VARIANT_ADD(failure, small) { .advice = MADV_NOHUGEPAGE };
FIXTURE_VARIANT_ADD(failure, huge) { .advice = MADV_HUGEPAGE };

FIXTURE_SETUP(failure)
{
	if (!have_hwpoison())
		SKIP(return, "no " HWPOISON " (CONFIG_HWPOISON_INJECT)");
	leak_check_begin(_metadata, &self->leak);
	self->fd = test_open(0);
	self->npages = block_pages();
	self->mem = test_map_blocks(1);
	self->bad = self->mem + BAD * page_size();
	ASSERT_EQ(0, madvise(self->mem, block_size(), variant->advice));
	fill_pages(self->mem, self->npages, 1);
	test_to_device(self->fd, self->mem, self->npages);
	test_stats(self->fd, &self->before);
}

FIXTURE_TEARDOWN_PARENT(failure)
{
	if (hmm_ref_count() < self->leak.devices)
		EXPECT_EQ(0, device_bind(0));
	leak_check_end(_metadata, &self->leak);
}

#define test_retired(n) do {							\
	struct hmm_ref_stats stats;						\
										\
	test_stats(self->fd, &stats);						\
	ASSERT_EQ(self->before.out_pages_retired + (n), stats.out_pages_retired); \
} while (0)

/* The used device page at @addr fails. */
static void __test_fails(struct __test_metadata *_metadata, const char *addr)
{
	unsigned long pfn = pfn_of(addr);

	ASSERT_NE(0, pfn);
	ASSERT_EQ(-EBUSY, corrupt(pfn));
}

#define test_fails(addr)	__test_fails(_metadata, addr)

static void __test_neighbours(struct __test_metadata *_metadata, char *mem,
			      unsigned long npages)
{
	test_cpu_data(mem, BAD, 1);
	ASSERT_EQ(0, bad_pages_from(mem + (BAD + 1) * page_size(), npages - BAD - 1, 1,
				    BAD + 1));
}

TEST_F(failure, touched_by_cpu)
{
	test_fails(self->bad);
	test_retired(0);
	ASSERT_TRUE(is_lost(self->bad));
	__test_neighbours(_metadata, self->mem, self->npages);
	/* The page stays lost. */
	ASSERT_TRUE(is_lost(self->bad));
	test_pages_at(self->fd, self->mem, self->npages, HMM_REF_PAGE_DEVICE, 1);
	ASSERT_EQ(0, munmap(self->mem, block_size()));
	test_retired(1);
}

TEST_F(failure, neighbours_touched_first)
{
	test_fails(self->bad);
	__test_neighbours(_metadata, self->mem, self->npages);
	ASSERT_TRUE(is_lost(self->bad));
}

TEST_F(failure, touched_by_kernel)
{
	char byte;
	struct iovec to = { &byte, 1 }, from = { self->bad, 1 };
	int fds[2];

	test_fails(self->bad);
	EXPECT_EQ(-1, process_vm_readv(getpid(), &to, 1, &from, 1, 0));
	EXPECT_EQ(EFAULT, errno);
	ASSERT_EQ(0, pipe(fds));
	EXPECT_EQ(-1, write(fds[1], self->bad, 1));
	EXPECT_EQ(EFAULT, errno);
}

/* Earlier entries of the device do not give it access. */
TEST_F(failure, accessed_by_device)
{
	struct hmm_ref_atomic atomic;
	char *buf = test_map_pages(2);
	unsigned long i;

	test_dev_data(self->fd, self->mem, self->npages, 1);
	test_fails(self->bad);
	test_err_read(EIO, self->fd, self->bad, page_size(), buf);
	test_err_write(EIO, self->fd, self->bad, page_size(), buf);
	ASSERT_EQ(-EIO, _test_atomic(self->fd, HMM_REF_ATOMIC_ADD, self->bad, 8, 1, 0,
				     &atomic));
	for (i = 0; i < self->npages; i++) {
		if (i == BAD)
			continue;
		test_read(self->fd, self->mem + i * page_size(), page_size(), buf);
		ASSERT_TRUE(page_holds(buf, 1, i));
	}
	/* The read ends at the lost page. */
	test_err_read(EIO, self->fd, self->bad - page_size(), 2 * page_size(), buf);
	ASSERT_TRUE(page_holds(buf, 1, BAD - 1));
	test_pages_at(self->fd, self->mem, self->npages, HMM_REF_PAGE_DEVICE, self->npages);
	ASSERT_TRUE(is_lost(self->bad));
}

/* A device write needs a copy first, because the CPU may not write the page, either. */
TEST_F(failure, written_when_read_only)
{
	char *buf = test_map_pages(1);

	ASSERT_EQ(0, mprotect(self->mem, block_size(), PROT_READ));
	ASSERT_EQ(0, mprotect(self->mem, block_size(), PROT_READ | PROT_WRITE));
	test_fails(self->bad);
	test_err_write(EIO, self->fd, self->bad, page_size(), buf);
	test_pages_at(self->fd, self->bad, 1, HMM_REF_PAGE_DEVICE, 1);
	__test_neighbours(_metadata, self->mem, self->npages);
	ASSERT_TRUE(is_lost(self->bad));
}

TEST_F(failure, moved_by_command)
{
	struct hmm_ref_migrate cmd;

	test_fails(self->bad);
	test_migrate(self->fd, HMM_REF_TO_SYSTEM, self->mem, block_size(), &cmd);
	EXPECT_EQ(1, cmd.out_skipped);
	EXPECT_EQ(self->npages - 1, cmd.out_migrated);
	test_pages_at(self->fd, self->mem, self->npages, HMM_REF_PAGE_DEVICE, 1);
	__test_neighbours(_metadata, self->mem, self->npages);
	ASSERT_TRUE(is_lost(self->bad));
}

/* Another device takes all pages except the bad one. Those of a huge page migrate one by one. */
TEST_F(failure, taken_by_another_device)
{
	struct hmm_ref_migrate cmd;
	int other;

	if (hmm_ref_count() < 2)
		SKIP(return, "needs two devices (module parameter ndevices)");
	other = test_open(1);
	test_fails(self->bad);
	test_migrate(other, HMM_REF_TO_DEVICE, self->mem, block_size(), &cmd);
	EXPECT_EQ(1, cmd.out_skipped);
	EXPECT_EQ(self->npages - 1, cmd.out_migrated);
	test_pages_at(other, self->mem, self->npages, HMM_REF_PAGE_DEVICE, self->npages - 1);
	test_pages_at(self->fd, self->bad, 1, HMM_REF_PAGE_DEVICE, 1);
	ASSERT_TRUE(is_lost(self->bad));
	__test_neighbours(_metadata, self->mem, self->npages);
}

/* All pages except the bad one are evicted, those of a huge page one by one. */
TEST_F(failure, evicted)
{
	struct hmm_ref_evict cmd;

	test_fails(self->bad);
	ASSERT_EQ(0, _test_evict(self->fd, self->mem, block_size(), &cmd));
	EXPECT_EQ(1, cmd.out_skipped);
	EXPECT_EQ(self->npages - 1, cmd.out_evicted);
	test_pages_at(self->fd, self->mem, self->npages, HMM_REF_PAGE_DEVICE, 1);
	__test_neighbours(_metadata, self->mem, self->npages);
	ASSERT_TRUE(is_lost(self->bad));
}

TEST_F(failure, evicted_but_for_the_first)
{
	struct hmm_ref_evict cmd;

	test_fails(self->mem);
	ASSERT_EQ(0, _test_evict(self->fd, self->mem, block_size(), &cmd));
	EXPECT_EQ(1, cmd.out_skipped);
	EXPECT_EQ(self->npages - 1, cmd.out_evicted);
	ASSERT_EQ(0, bad_pages_from(self->mem + page_size(), self->npages - 1, 1, 1));
	ASSERT_TRUE(is_lost(self->mem));
}

static int child_looks(void *bad)
{
	char *mem = (char *)bad - BAD * page_size();

	return !CHECK(is_lost(bad)) || !CHECK(!bad_pages(mem, BAD, 1)) ||
	       !CHECK(is_lost(bad));
}

TEST_F(failure, touched_by_child)
{
	test_fails(self->bad);
	EXPECT_EQ(0, child_run(child_looks, self->bad));
	test_retired(0);
	ASSERT_TRUE(is_lost(self->bad));
}

/* Unbind waits a while for processes that map lost data, so this process must not map it. */
static int unbind(void *lost)
{
	return !CHECK(!munmap(lost, page_size())) ||
	       !CHECK(!device_unbind(0));
}

/* Unbind evicts all pages that can be read. */
TEST_F(failure, unbind)
{
	pid_t pid;

	if (!device_can_unbind(0))
		SKIP(return, "the device cannot be unbound");
	test_fails(self->bad);
	pid = child_start(unbind, self->bad);
	ASSERT_LT(0, pid);
	__test_neighbours(_metadata, self->mem, self->npages);
	ASSERT_TRUE(is_lost(self->bad));
	ASSERT_EQ(0, munmap(self->bad, page_size()));
	ASSERT_EQ(0, child_wait(pid, 4 * PATIENCE_MS));
	__test_neighbours(_metadata, self->mem, self->npages);
}

/* A retired page is not allocated again, even if the whole block is needed. */
TEST_F(failure, not_allocated_again)
{
	unsigned long pfn = pfn_of(self->bad);
	unsigned long i;

	test_fails(self->bad);
	ASSERT_EQ(0, munmap(self->mem, block_size()));
	test_retired(1);
	self->mem = test_map_blocks(2);
	fill_pages(self->mem, 2 * self->npages, 2);
	test_to_device(self->fd, self->mem, 2 * self->npages);
	for (i = 0; i < 2 * self->npages; i++)
		ASSERT_NE(pfn, pfn_of(self->mem + i * page_size()));
	test_dev_data(self->fd, self->mem, 2 * self->npages, 2);
}

/* No data is lost, and a second report has no further effect. */
TEST_F(failure, free_page)
{
	unsigned long pfn = pfn_of(self->bad);

	test_to_system(self->fd, self->mem, self->npages);
	ASSERT_EQ(0, corrupt(pfn));
	test_retired(1);
	ASSERT_EQ(0, corrupt(pfn));
	test_retired(1);
	test_cpu_data(self->mem, self->npages, 1);
}

static int report_main(void *arg)
{
	return corrupt(*(unsigned long *)arg);
}

/*
 * The chunk of the page is removed while the driver handles the report. The removal waits for the
 * report, which must not wait for the removal.
 */
TEST_F_TIMEOUT(failure, chunk_removed_meanwhile, 120)
{
	unsigned long pfn = pfn_of(self->bad);
	struct worker reporter;
	int i;

	if (access(SLOW_REPORT, W_OK))
		SKIP(return, "no slow_report (CONFIG_FAULT_INJECTION_DEBUG_FS)");
	ASSERT_EQ(0, munmap(self->mem, block_size()));
	ASSERT_EQ(0, write_file(SLOW_REPORT, "4000"));
	ASSERT_EQ(0, worker_start(&reporter, report_main, &pfn));
	usleep(500 * 1000);
	ASSERT_EQ(0, write_file(SLOW_REPORT, "0"));
	for (i = 0; i < 20; i++) {
		ASSERT_EQ(0, write_file("/proc/sys/vm/drop_caches", "2"));
		usleep(100 * 1000);
	}
	ASSERT_EQ(0, worker_wait(&reporter));
	/* The chunk is added again, with the page that has failed. */
	self->mem = test_map_blocks(1);
	fill_pages(self->mem, self->npages, 2);
	test_to_device(self->fd, self->mem, self->npages);
	test_retired(1);
	test_dev_data(self->fd, self->mem, self->npages, 2);
}

/* A used page is retired, and then reported once more. */
TEST_F(failure, reported_twice)
{
	unsigned long pfn = pfn_of(self->bad);

	test_fails(self->bad);
	test_fails(self->bad);
	ASSERT_EQ(0, munmap(self->mem, block_size()));
	test_retired(1);
	ASSERT_EQ(0, corrupt(pfn));
	test_retired(1);
}

/* ---- coherent memory ------------------------------------------------------------- */

FIXTURE(coherent)
{
	struct leak_check leak;
	int fd;
	char *mem, *bad;
	struct hmm_ref_stats before;
};

#define PAGES	16UL

FIXTURE_SETUP(coherent)
{
	struct hmm_ref_info info;
	unsigned int nr;

	if (!have_hwpoison())
		SKIP(return, "no " HWPOISON " (CONFIG_HWPOISON_INJECT)");
	leak_check_begin(_metadata, &self->leak);
	for (nr = 0; nr < hmm_ref_count(); nr++) {
		self->fd = test_open(nr);
		test_info(self->fd, &info);
		if (info.out_memory_type == HMM_REF_MEMORY_COHERENT)
			break;
		close(self->fd);
	}
	if (nr == hmm_ref_count())
		SKIP(return, "no coherent device (module parameter coherent)");
	self->mem = test_map_pages(PAGES);
	self->bad = self->mem + BAD * page_size();
	fill_pages(self->mem, PAGES, 1);
	test_to_device(self->fd, self->mem, PAGES);
	test_stats(self->fd, &self->before);
}

FIXTURE_TEARDOWN_PARENT(coherent)
{
	leak_check_end(_metadata, &self->leak);
}

static void __test_stays(struct __test_metadata *_metadata, int fd, char *mem)
{
	char *buf = test_map_pages(1);
	struct hmm_ref_migrate cmd;

	test_err_read(EIO, fd, mem + BAD * page_size(), page_size(), buf);
	test_migrate(fd, HMM_REF_TO_SYSTEM, mem, PAGES * page_size(), &cmd);
	EXPECT_EQ(1, cmd.out_skipped);
	test_pages_at(fd, mem, PAGES, HMM_REF_PAGE_DEVICE, 1);
	__test_neighbours(_metadata, mem, PAGES);
}

TEST_F(coherent, used_page)
{
	test_fails(self->bad);
	__test_stays(_metadata, self->fd, self->mem);
	test_retired(0);
	ASSERT_EQ(0, munmap(self->mem, PAGES * page_size()));
	test_retired(1);
}

/* The core holds a reference to the page, and acts as if this process had touched it. */
TEST_F(coherent, by_madvise)
{
	ASSERT_EQ(-1, madvise(self->bad, page_size(), MADV_HWPOISON));
	ASSERT_EQ(EBUSY, errno);
	__test_stays(_metadata, self->fd, self->mem);
}

/* Earlier entries of the device do not give it access. It keeps the entries of the neighbours. */
TEST_F(coherent, accessed_by_device)
{
	struct hmm_ref_atomic atomic;
	char *buf = test_map_pages(1);
	unsigned long i;

	test_dev_data(self->fd, self->mem, PAGES, 1);
	test_flagged(self->fd, self->bad, 1, HMM_REF_PAGE_MAPPED, 1);
	test_fails(self->bad);
	test_flagged(self->fd, self->bad, 1, HMM_REF_PAGE_MAPPED, 0);
	test_err_read(EIO, self->fd, self->bad, page_size(), buf);
	test_err_write(EIO, self->fd, self->bad, page_size(), buf);
	ASSERT_EQ(-EIO, _test_atomic(self->fd, HMM_REF_ATOMIC_ADD, self->bad, 8, 1, 0,
				     &atomic));
	for (i = 0; i < PAGES; i++) {
		if (i == BAD)
			continue;
		test_read(self->fd, self->mem + i * page_size(), page_size(), buf);
		ASSERT_TRUE(page_holds(buf, 1, i));
	}
}

TEST_F(coherent, evicted)
{
	struct hmm_ref_evict cmd;

	test_fails(self->bad);
	ASSERT_EQ(0, _test_evict(self->fd, self->mem, PAGES * page_size(), &cmd));
	EXPECT_EQ(1, cmd.out_skipped);
	EXPECT_EQ(PAGES - 1, cmd.out_evicted);
	test_pages_at(self->fd, self->mem, PAGES, HMM_REF_PAGE_DEVICE, 1);
	__test_neighbours(_metadata, self->mem, PAGES);
}

/* As for private memory. */
TEST_F(coherent, not_allocated_again)
{
	unsigned long npages = 2 * block_pages();
	unsigned long pfn = pfn_of(self->bad);
	unsigned long i;

	test_fails(self->bad);
	ASSERT_EQ(0, munmap(self->mem, PAGES * page_size()));
	test_retired(1);
	self->mem = test_map_blocks(2);
	fill_pages(self->mem, npages, 2);
	test_to_device(self->fd, self->mem, npages);
	for (i = 0; i < npages; i++)
		ASSERT_NE(pfn, pfn_of(self->mem + i * page_size()));
	test_cpu_data(self->mem, npages, 2);
}

/* A used page is retired, and then reported once more. */
TEST_F(coherent, reported_twice)
{
	unsigned long pfn = pfn_of(self->bad);

	test_fails(self->bad);
	test_fails(self->bad);
	ASSERT_EQ(0, munmap(self->mem, PAGES * page_size()));
	test_retired(1);
	ASSERT_EQ(0, corrupt(pfn));
	test_retired(1);
}

TEST_F(coherent, free_page)
{
	unsigned long pfn = pfn_of(self->bad);

	test_to_system(self->fd, self->mem, PAGES);
	ASSERT_EQ(0, corrupt(pfn));
	test_retired(1);
	test_cpu_data(self->mem, PAGES, 1);
}

int main(int argc, char **argv)
{
	return hmm_ref_test_main(argc, argv);
}
