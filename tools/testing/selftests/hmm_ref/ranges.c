// SPDX-License-Identifier: GPL-2.0-only
/*
 * A mirror consists of ranges, each with a notifier of its own. Changes to other memory of the
 * process do not affect a device fault.
 *
 * Covers: a single notifier for the whole address space, so that threads which allocate and free
 * memory prevent all device faults from completing.
 */
#include <sys/mman.h>

#include "hmm_ref_utils.h"

#define PAGES		64UL
#define RACE_MS		5000

struct neighbour {
	char *mem;
	unsigned long unmaps;
	unsigned long stop;
};

FIXTURE(ranges)
{
	struct leak_check leak;
	struct neighbour neighbour;
	struct worker worker;
	char *mem;
	int fd;
};

FIXTURE_SETUP(ranges)
{
	char *blocks;

	leak_check_begin(_metadata, &self->leak);
	self->fd = test_open(0);
	blocks = test_map_blocks(2);
	/* A huge page that khugepaged makes meanwhile would be a change, too. */
	ASSERT_EQ(0, madvise(blocks, 2 * block_size(), MADV_NOHUGEPAGE));
	self->mem = blocks;
	self->neighbour.mem = blocks + block_size();
}

FIXTURE_TEARDOWN_PARENT(ranges)
{
	leak_check_end(_metadata, &self->leak);
}

static int unmap_and_map(void *arg)
{
	struct neighbour *neighbour = arg;

	while (!counter_get(&neighbour->stop)) {
		neighbour->mem[0] = 1;
		if (!CHECK(!munmap(neighbour->mem, page_size())) ||
		    !CHECK(mmap(neighbour->mem, page_size(), PROT_READ | PROT_WRITE,
				MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) != MAP_FAILED))
			return 1;
		counter_add(&neighbour->unmaps, 1);
	}
	return 0;
}

TEST_F_TIMEOUT(ranges, faults_during_unmaps, 180)
{
	char *buf = test_map_pages(PAGES);
	unsigned long long end = now_ms() + RACE_MS;
	unsigned long long give_up = end + MEET_MS;
	struct hmm_ref_stats before, after;
	unsigned long unmaps, met = 0;

	ASSERT_EQ(0, worker_start(&self->worker, unmap_and_map, &self->neighbour));
	ASSERT_EQ(0, _test_stats(self->fd, &before));
	while (now_ms() < end || (!met && now_ms() < give_up)) {
		fill_pages(self->mem, PAGES, 1);
		unmaps = counter_get(&self->neighbour.unmaps);
		test_read(self->fd, self->mem, PAGES * page_size(), buf);
		met += counter_get(&self->neighbour.unmaps) - unmaps;
		ASSERT_EQ(0, madvise(self->mem, PAGES * page_size(), MADV_DONTNEED));
	}
	ASSERT_EQ(0, _test_stats(self->fd, &after));
	counter_set(&self->neighbour.stop, 1);
	EXPECT_EQ(0, worker_wait(&self->worker));
	TH_LOG("%lu unmaps beside faults, %llu retries", met,
	       after.out_retries - before.out_retries);
	if (!met)
		SKIP(return, "no unmap beside a fault");
	EXPECT_EQ(before.out_retries, after.out_retries);
}

int main(int argc, char **argv)
{
	return hmm_ref_test_main(argc, argv);
}
