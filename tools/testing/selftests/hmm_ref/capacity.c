// SPDX-License-Identifier: GPL-2.0-only
/*
 * More pages than the device holds: the oldest are evicted, and no data is lost.
 *
 * Needs a device that is not too large (module parameter capacity), since the tests fill all of it
 * and as much system memory.
 *
 * Covers: eviction that forgets pages which it could not migrate; a device that stays full because
 * pages are not freed; two processes that evict each other.
 */
#include "hmm_ref_utils.h"

FIXTURE(capacity)
{
	struct leak_check leak;
	int fd;
	unsigned int nr;	/* of the smallest device */
	unsigned long npages;	/* pages of that device */
};

FIXTURE_SETUP(capacity)
{
	leak_check_begin(_metadata, &self->leak);
	self->npages = test_smallest_device(&self->leak, &self->nr);
	if (!self->npages)
		SKIP(return, "no device of at most %lu MiB (module parameter capacity)",
		     CAPACITY_MAX >> 20);
	self->fd = test_open(self->nr);
}

FIXTURE_TEARDOWN_PARENT(capacity)
{
	leak_check_end(_metadata, &self->leak);
}

/* One part at a time. Each part fits, all of them together do not. */
TEST_F(capacity, half_as_much_again)
{
	unsigned long npages = self->npages + self->npages / 2;
	unsigned long piece = block_pages() / 2 + 1, i, n;
	char *mem = test_map_pages(npages);
	struct hmm_ref_stats before, after;

	test_stats(self->fd, &before);
	fill_pages(mem, npages, 1);
	for (i = 0; i < npages; i += n) {
		n = npages - i < piece ? npages - i : piece;
		test_to_device(self->fd, mem + i * page_size(), n);
		test_stats(self->fd, &after);
		ASSERT_GE(self->npages, after.out_pages_in_use);
		ASSERT_GE(self->npages + after.out_pages_retired, after.out_pages_total);
		ASSERT_GE(after.out_pages_total, after.out_storage_pages);
	}
	EXPECT_LE(npages - self->npages, after.out_evicted - before.out_evicted);
	test_dev_data(self->fd, mem, npages, 1);
	test_cpu_data(mem, npages, 1);
}

/* One command migrates the whole range, and its counts are correct. */
TEST_F(capacity, by_one_command)
{
	unsigned long npages = self->npages + self->npages / 4;
	char *mem = test_map_pages(npages);
	struct hmm_ref_migrate cmd;

	fill_pages(mem, npages, 1);
	test_migrate(self->fd, HMM_REF_TO_DEVICE, mem, npages * page_size(), &cmd);
	ASSERT_EQ(npages, cmd.out_migrated + cmd.out_already + cmd.out_skipped);
	ASSERT_LT(0, cmd.out_migrated);
	ASSERT_GE(npages, cmd.out_migrated);
	test_cpu_data(mem, npages, 1);
}

/* The device writes, then the pages are evicted: system memory has the device's last writes. */
TEST_F(capacity, device_writes_survive)
{
	unsigned long npages = block_pages() + 13;
	char *mine = test_map_pages(npages);
	char *other = test_map_pages(self->npages);
	unsigned long i, n;

	fill_pages(mine, npages, 1);
	test_to_device(self->fd, mine, npages);
	ASSERT_EQ(0, dev_fill_pages(self->fd, mine, npages, 2));
	for (i = 0; i < self->npages; i += n) {
		n = self->npages - i < block_pages() ? self->npages - i : block_pages();
		test_to_device(self->fd, other + i * page_size(), n);
	}
	ASSERT_LT(0, pages_at(self->fd, mine, npages, HMM_REF_PAGE_SYSTEM));
	test_dev_data(self->fd, mine, npages, 2);
	test_cpu_data(mine, npages, 2);
}

/* ---- competition ----------------------------------------------------------------- */

struct competitor {
	unsigned int nr;
	unsigned long npages;
	unsigned int seed;
};

static int compete(void *arg)
{
	struct competitor *c = arg;
	unsigned long piece = block_pages(), i, n;
	char *mem = map_pages(c->npages);
	struct hmm_ref_migrate cmd;
	int fd = hmm_ref_open(c->nr);
	int round, rc;

	if (!CHECK(fd >= 0) || !CHECK(mem != MAP_FAILED))
		return 1;
	fill_pages(mem, c->npages, c->seed);
	for (round = 0; round < 2; round++) {
		for (i = 0; i < c->npages; i += n) {
			n = c->npages - i < piece ? c->npages - i : piece;
			rc = _test_migrate(fd, HMM_REF_TO_DEVICE,
					   mem + i * page_size(), n * page_size(), &cmd);
			if (!CHECK(!rc))
				return 1;
		}
		if (!CHECK(!dev_bad_pages(fd, mem, c->npages, c->seed + round)) ||
		    !CHECK(!dev_fill_pages(fd, mem, c->npages, c->seed + round + 1)))
			return 1;
	}
	return !CHECK(!bad_pages(mem, c->npages, c->seed + 2));
}

/* Two processes use three quarters of the device each. */
TEST_F(capacity, two_processes)
{
	struct competitor competitor[2];
	pid_t pid[2];
	int i;

	for (i = 0; i < 2; i++) {
		competitor[i].nr = self->nr;
		competitor[i].npages = self->npages / 4 * 3;
		competitor[i].seed = 10 * (i + 1);
		pid[i] = child_start(compete, &competitor[i]);
		ASSERT_LT(0, pid[i]);
	}
	for (i = 0; i < 2; i++)
		EXPECT_EQ(0, child_wait(pid[i], 280000));
}

/* Migrates as many pages as the device has. Nearly all of the device is used then. */
static void __test_fill(struct __test_metadata *_metadata, int fd, char *mem,
			unsigned long npages)
{
	struct hmm_ref_stats stats;
	unsigned long i, n;

	for (i = 0; i < npages; i += n) {
		n = npages - i < block_pages() ? npages - i : block_pages();
		test_to_device(fd, mem + i * page_size(), n);
	}
	test_stats(fd, &stats);
	EXPECT_LE(npages - npages / 8, stats.out_pages_in_use);
}

#define test_fill(mem)	__test_fill(_metadata, self->fd, mem, self->npages)

/* Freed pages can be used again: full, empty, full. */
TEST_F(capacity, fill_it_three_times)
{
	struct hmm_ref_stats stats;
	char *mem;
	int round;

	for (round = 0; round < 3; round++) {
		mem = test_map_pages(self->npages);
		test_fill(mem);
		ASSERT_EQ(0, munmap(mem, self->npages * page_size()));
		ASSERT_EQ(0, leak_wait(self->fd, self->leak.in_use[self->nr], &stats));
	}
}

/*
 * A command that moves no page, because the pages are on the device already or never move, reserves
 * nothing in the end.
 */
TEST_F(capacity, nothing_stays_reserved)
{
	unsigned long npages = block_pages() / 2, several = 3 * block_pages(), i;
	char *shared = test_map_shared(several * page_size());
	char *there = test_map_pages(npages);
	struct hmm_ref_migrate cmd;

	memset(shared, 1, several * page_size());
	test_to_device(self->fd, there, npages);
	for (i = 0; i < 2 * self->npages; i += npages) {
		test_migrate(self->fd, HMM_REF_TO_DEVICE, there, npages * page_size(), &cmd);
		EXPECT_EQ(npages, cmd.out_already);
		test_migrate(self->fd, HMM_REF_TO_DEVICE, shared, several * page_size(), &cmd);
		EXPECT_EQ(several, cmd.out_skipped);
		test_err_migrate(EFAULT, self->fd, HMM_REF_TO_DEVICE, (void *)page_size(),
				 page_size(), &cmd);
	}
	ASSERT_EQ(0, munmap(there, npages * page_size()));
	test_fill(test_map_pages(self->npages));
}

int main(int argc, char **argv)
{
	return hmm_ref_test_main(argc, argv);
}
