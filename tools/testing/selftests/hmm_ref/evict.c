// SPDX-License-Identifier: GPL-2.0-only
/*
 * EVICT and EVICT_ALL evict the pages of the caller, and no others.
 */
#include <sys/time.h>

#include "hmm_ref_utils.h"

#define PAGES	64UL

FIXTURE(evict)
{
	struct leak_check leak;
	int fd;
	char *mem;
};

FIXTURE_VARIANT(evict)
{
	bool coherent;
};

FIXTURE_VARIANT_ADD(evict, private) { .coherent = false };
FIXTURE_VARIANT_ADD(evict, coherent) { .coherent = true };

static int open_device(bool coherent)
{
	__u32 type = coherent ? HMM_REF_MEMORY_COHERENT : HMM_REF_MEMORY_PRIVATE;
	struct hmm_ref_info info;
	unsigned int nr;
	int fd;

	for (nr = 0; nr < hmm_ref_count(); nr++) {
		fd = hmm_ref_open(nr);
		if (!_test_info(fd, &info) && info.out_memory_type == type)
			return fd;
		close(fd);
	}
	return -ENODEV;
}

FIXTURE_SETUP(evict)
{
	self->fd = open_device(variant->coherent);
	if (self->fd < 0)
		SKIP(return, "no such device");
	leak_check_begin(_metadata, &self->leak);
	self->mem = test_map_pages(PAGES);
	fill_pages(self->mem, PAGES, 1);
	test_to_device(self->fd, self->mem, PAGES);
}

FIXTURE_TEARDOWN_PARENT(evict)
{
	leak_check_end(_metadata, &self->leak);
}

static unsigned long counted(const struct hmm_ref_evict *cmd)
{
	return cmd->out_evicted + cmd->out_already + cmd->out_skipped;
}

/* Evicts until no page is left. */
static int evict_all_of(int fd, const void *mem, unsigned long npages)
{
	unsigned long long end = now_ms() + PATIENCE_MS;
	struct hmm_ref_evict cmd;
	int rc;

	do {
		rc = _test_evict(fd, mem, npages * page_size(), &cmd);
		if (rc || counted(&cmd) != npages)
			return rc ? rc : -EPROTO;
	} while (cmd.out_skipped && now_ms() < end);
	return cmd.out_skipped ? -ETIMEDOUT : 0;
}

/* The pages of the range are evicted, those beside it stay. */
TEST_F(evict, of_a_range)
{
	char *from = self->mem + 8 * page_size();
	struct hmm_ref_stats before, after;

	test_stats(self->fd, &before);
	ASSERT_EQ(0, evict_all_of(self->fd, from, 16));
	test_stats(self->fd, &after);
	EXPECT_EQ(before.out_evicted + 16, after.out_evicted);
	EXPECT_EQ(before.out_to_system, after.out_to_system);
	test_pages_at(self->fd, from, 16, HMM_REF_PAGE_DEVICE, 0);
	test_pages_at(self->fd, self->mem, PAGES, HMM_REF_PAGE_DEVICE, PAGES - 16);
	test_dev_data(self->fd, self->mem, PAGES, 1);
	test_cpu_data(self->mem, PAGES, 1);
}

/* Pages that are not on the device are counted, mapped or not. */
TEST_F(evict, of_nothing)
{
	struct hmm_ref_evict cmd;

	ASSERT_EQ(0, evict_all_of(self->fd, self->mem, PAGES));
	ASSERT_EQ(0, munmap(self->mem + page_size(), page_size()));
	ASSERT_EQ(0, _test_evict(self->fd, self->mem, PAGES * page_size(), &cmd));
	EXPECT_EQ(PAGES, cmd.out_already);
	EXPECT_EQ(PAGES, counted(&cmd));
}

TEST_F(evict, in_a_large_hole)
{
	const unsigned long size = 1UL << 44;
	struct hmm_ref_evict cmd;
	char *mem;

	mem = mmap(NULL, size, PROT_READ | PROT_WRITE,
		   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (mem == MAP_FAILED)
		SKIP(return, "cannot map 16 TiB");
	fill_pages(mem + size / 2, 1, 2);
	test_to_device(self->fd, mem + size / 2, 1);
	ASSERT_EQ(0, _test_evict(self->fd, mem, size, &cmd));
	EXPECT_EQ(size / page_size(), counted(&cmd));
	EXPECT_EQ(1, cmd.out_evicted + cmd.out_skipped);
	test_pages_at(self->fd, self->mem, PAGES, HMM_REF_PAGE_DEVICE, PAGES);
	test_cpu_data(mem + size / 2, 1, 2);
}

/* EVICT_ALL acts on the pages of the file, not of the process. */
TEST_F(evict, of_a_file)
{
	int other = open_device(variant->coherent);
	char *mem = test_map_pages(PAGES);
	struct hmm_ref_stats stats;

	fill_pages(mem, PAGES, 2);
	test_to_device(other, mem, PAGES);
	ASSERT_EQ(0, _test_evict_all(self->fd));
	test_stats(self->fd, &stats);
	EXPECT_EQ(0, stats.out_pages_client);
	test_pages_at(self->fd, self->mem, PAGES, HMM_REF_PAGE_DEVICE, 0);
	test_pages_at(other, mem, PAGES, HMM_REF_PAGE_DEVICE, PAGES);
	test_cpu_data(self->mem, PAGES, 1);
	test_cpu_data(mem, PAGES, 2);
}

static void on_alarm(int signal)
{
}

/* Signals do not stop it before it reaches pages that are behind those of other clients. */
TEST_F(evict, under_a_timer)
{
	const unsigned long nblocks = 24;
	struct sigaction action = { .sa_handler = on_alarm };
	struct itimerval timer = { { 0, 1000 }, { 0, 1000 } }, none = {};
	struct hmm_ref_evict_all cmd = { .size = sizeof(cmd) };
	int other = open_device(variant->coherent);
	char *first = test_map_blocks(nblocks);
	char *mem = test_map_pages(PAGES);
	unsigned int calls = 0;
	int rc;

	madvise(first, nblocks * block_size(), MADV_NOHUGEPAGE);
	test_to_device(self->fd, first, nblocks * block_pages());
	fill_pages(mem, PAGES, 2);
	test_to_device(other, mem, PAGES);
	sigaction(SIGALRM, &action, NULL);
	setitimer(ITIMER_REAL, &timer, NULL);
	do {
		rc = _test_ioctl(other, HMM_REF_IOC_EVICT_ALL, &cmd);
		calls++;
	} while ((!rc || rc == -EINTR) && cmd.out_skipped && calls < 50);
	setitimer(ITIMER_REAL, &none, NULL);
	EXPECT_TRUE(!rc || rc == -EINTR);
	EXPECT_EQ(0, cmd.out_skipped) {
		TH_LOG("%u calls", calls);
	}
	test_cpu_data(mem, PAGES, 2);
}

static int evict_from_a_child(void *arg)
{
	struct hmm_ref_evict cmd;
	int fd = *(int *)arg;

	return !CHECK(_test_evict(fd, NULL, page_size(), &cmd) == -EBADF) ||
	       !CHECK(!_test_evict_all(fd));
}

/* A process that has the file evicts the pages, wherever they are mapped. */
TEST_F(evict, by_another_process)
{
	ASSERT_EQ(0, child_run(evict_from_a_child, &self->fd));
	test_pages_at(self->fd, self->mem, PAGES, HMM_REF_PAGE_DEVICE, 0);
	test_cpu_data(self->mem, PAGES, 1);
}

TEST_F(evict, of_a_large_folio)
{
	unsigned long npages = block_pages();
	char *mem = test_map_blocks(1);

	madvise(mem, block_size(), MADV_HUGEPAGE);
	fill_pages(mem, npages, 3);
	test_to_device(self->fd, mem, npages);
	ASSERT_EQ(0, evict_all_of(self->fd, mem, npages));
	test_pages_at(self->fd, mem, npages, HMM_REF_PAGE_DEVICE, 0);
	test_to_device(self->fd, mem, npages);
	ASSERT_EQ(0, _test_evict_all(self->fd));
	test_pages_at(self->fd, mem, npages, HMM_REF_PAGE_DEVICE, 0);
	test_cpu_data(mem, npages, 3);
}

/* The rest of the folio may be evicted, too. */
TEST_F(evict, of_a_part_of_a_large_folio)
{
	unsigned long npages = block_pages(), part = npages / 4;
	char *mem = test_map_blocks(1);
	char *from = mem + 2 * part * page_size();

	madvise(mem, block_size(), MADV_HUGEPAGE);
	fill_pages(mem, npages, 3);
	test_to_device(self->fd, mem, npages);
	ASSERT_EQ(0, evict_all_of(self->fd, from, part));
	test_pages_at(self->fd, from, part, HMM_REF_PAGE_DEVICE, 0);
	test_cpu_data(mem, npages, 3);
}

#define MANY	16UL

/* Finds a block of @mem that has another block right behind it on the device. */
static bool find_neighbours(const char *mem, unsigned long *first, unsigned long *second)
{
	for (*first = 0; *first < MANY; ++*first)
		for (*second = 0; *second < MANY; ++*second)
			if (pfn_of(mem + *second * block_size()) ==
			    pfn_of(mem + *first * block_size()) + block_pages())
				return true;
	return false;
}

/* The range covers one half each of two huge pages that are neighbours on the device. */
TEST_F(evict, of_two_halves)
{
	unsigned long npages = block_pages(), first, second;
	char *mem = test_map_blocks(MANY), *to = test_map_blocks(3);
	struct hmm_ref_evict cmd;

	madvise(mem, MANY * block_size(), MADV_HUGEPAGE);
	fill_pages(mem, MANY * npages, 3);
	test_to_device(self->fd, mem, MANY * npages);
	if (!find_neighbours(mem, &first, &second))
		SKIP(return, "no two huge pages side by side on the device");
	to += block_size() / 2;
	ASSERT_EQ(to, mremap(mem + first * block_size(), block_size(), block_size(),
			     MREMAP_MAYMOVE | MREMAP_FIXED, to));
	ASSERT_EQ(to + block_size(),
		  mremap(mem + second * block_size(), block_size(), block_size(),
			 MREMAP_MAYMOVE | MREMAP_FIXED, to + block_size()));
	ASSERT_EQ(0, _test_evict(self->fd, to + block_size() / 2, block_size(), &cmd));
	EXPECT_EQ(npages, cmd.out_evicted);
	EXPECT_EQ(0, cmd.out_skipped);
	EXPECT_EQ(0, bad_pages_from(to, npages, 3, first * npages));
	EXPECT_EQ(0, bad_pages_from(to + block_size(), npages, 3, second * npages));
}

/* Half of a huge page on the device was discarded and is in system memory now. */
TEST_F(evict, of_a_discarded_half)
{
	unsigned long npages = block_pages(), half = npages / 2;
	char *mem = test_map_blocks(1);
	struct hmm_ref_evict cmd;

	madvise(mem, block_size(), MADV_HUGEPAGE);
	fill_pages(mem, npages, 3);
	test_to_device(self->fd, mem, npages);
	ASSERT_EQ(0, madvise(mem, block_size() / 2, MADV_DONTNEED));
	fill_pages(mem, half, 3);
	ASSERT_EQ(0, _test_evict(self->fd, mem, block_size(), &cmd));
	EXPECT_EQ(half, cmd.out_evicted);
	EXPECT_EQ(half, cmd.out_already);
	test_cpu_data(mem, npages, 3);
}

int main(int argc, char **argv)
{
	return hmm_ref_test_main(argc, argv);
}
