// SPDX-License-Identifier: GPL-2.0-only
/*
 * Reclaim by generations (CONFIG_LRU_GEN), and by active and inactive lists, of pages that migrate
 * from the device, to the device, and that are on the device.
 *
 * Covers: a page that reclaim does not find after its migration to system memory; a device page
 * that is treated as if it were on an LRU list; a page that is swapped out during its migration.
 *
 * HMM_REF_MS is how long each race lasts (default 1000).
 */
#include "hmm_ref_utils.h"
#include "hmm_ref_huge.h"
#include "hmm_ref_swap.h"

#define GENERATIONS	"/sys/kernel/mm/lru_gen/enabled"

FIXTURE(lru)
{
	struct leak_check leak;
	char saved[16];
	unsigned long npages;
	size_t size;
	char *mem;
	int fd;
};

FIXTURE_VARIANT(lru)
{
	const char *generations;
	bool large;
};

FIXTURE_VARIANT_ADD(lru, generations_small) { .generations = "y" };
FIXTURE_VARIANT_ADD(lru, generations_large) { .generations = "y", .large = true };
FIXTURE_VARIANT_ADD(lru, lists_small) { .generations = "n" };
FIXTURE_VARIANT_ADD(lru, lists_large) { .generations = "n", .large = true };

FIXTURE_SETUP(lru)
{
	int rc;

	if (read_file(GENERATIONS, self->saved, sizeof(self->saved)) < 0)
		SKIP(return, "no " GENERATIONS " (CONFIG_LRU_GEN)");
	leak_check_begin(_metadata, &self->leak);
	rc = swap_begin();
	if (rc < 0)
		SKIP(return, "no swap space: %s (CONFIG_SWAP, CONFIG_BLK_DEV_RAM)",
		     strerror(-rc));
	rc = reclaim_begin();
	if (rc)
		SKIP(return, "no memory.reclaim: %s (CONFIG_MEMCG)", strerror(-rc));
	ASSERT_EQ(0, write_file(GENERATIONS, variant->generations));
	self->fd = test_open(0);
	self->npages = variant_pages(variant->large);
	self->size = self->npages * page_size();
	self->mem = map_variant(self->fd, variant->large);
	if (!self->mem)
		SKIP(return, "no huge page can be allocated");
}

FIXTURE_TEARDOWN_PARENT(lru)
{
	if (*self->saved)
		write_file(GENERATIONS, self->saved);
	swap_end();
	reclaim_end();
	leak_check_end(_metadata, &self->leak);
}

/* Reclaims until the process has no page of the range. */
static int all_out(int fd, char *mem, unsigned long npages, int (*reclaim)(char *, size_t))
{
	unsigned long long deadline = now_ms() + PATIENCE_MS;
	int rc;

	do {
		rc = reclaim(mem, npages * page_size());
		if (rc)
			return rc;
		if (pages_at(fd, mem, npages, HMM_REF_PAGE_NONE) == (long)npages)
			return 0;
		usleep(1000);
	} while (now_ms() < deadline);
	return -ETIMEDOUT;
}

static int reclaim_group(char *mem, size_t size)
{
	reclaim_some();
	return 0;
}

/* Reclaim finds all pages, however they have returned. */
static void __test_round(struct __test_metadata *_metadata, int fd, char *mem,
			 unsigned long npages, unsigned int round,
			 int (*reclaim)(char *, size_t))
{
	test_to_device(fd, mem, npages);
	ASSERT_EQ(0, dev_fill_pages(fd, mem, npages, round));
	/* Pages on the device stay there. */
	ASSERT_EQ(0, reclaim(mem, npages * page_size()));
	test_pages_at(fd, mem, npages, HMM_REF_PAGE_DEVICE, npages);
	if (round & 1)
		test_to_system(fd, mem, npages);
	else
		test_cpu_data(mem, npages, round);
	ASSERT_EQ(0, all_out(fd, mem, npages, reclaim));
	if (round & 2)
		test_dev_data(fd, mem, npages, round);
	test_cpu_data(mem, npages, round);
}

TEST_F(lru, page_out)
{
	unsigned int round;

	for (round = 1; round < 5; round++)
		__test_round(_metadata, self->fd, self->mem, self->npages, round, page_out);
}

TEST_F(lru, reclaim)
{
	unsigned int round;

	for (round = 1; round < 5; round++)
		__test_round(_metadata, self->fd, self->mem, self->npages, round,
			     reclaim_group);
}

struct reclaimer {
	char *mem;
	size_t size;
	unsigned long stop;
	unsigned long rounds;
};

static int reclaim_main(void *arg)
{
	struct reclaimer *r = arg;

	while (!counter_get(&r->stop)) {
		if (r->rounds & 1)
			reclaim_some();
		else if (!CHECK(!madvise(r->mem, r->size, MADV_PAGEOUT)))
			return 1;
		counter_add(&r->rounds, 1);
	}
	return 0;
}

/* Reclaim runs all the time while pages migrate in both directions. */
TEST_F(lru, race)
{
	unsigned long long end = now_ms() + env_number("HMM_REF_MS", 1000);
	struct reclaimer reclaimer = { .mem = self->mem, .size = self->size };
	unsigned long long deadline = end + MEET_MS;
	unsigned long migrated = 0, out = 0;
	struct hmm_ref_migrate cmd;
	struct worker worker;
	unsigned int seed = 1;
	int rc = 0;

	ASSERT_EQ(0, worker_start(&worker, reclaim_main, &reclaimer));
	while (!rc && now_ms() < deadline &&
	       (now_ms() < end || seed < 4 || !migrated || !out)) {
		rc = _test_migrate(self->fd, HMM_REF_TO_DEVICE, self->mem, self->size, &cmd);
		migrated += cmd.out_migrated;
		rc = rc ? rc : dev_bad_pages(self->fd, self->mem, self->npages, seed);
		rc = rc ? rc : dev_fill_pages(self->fd, self->mem, self->npages, ++seed);
		rc = rc ? rc : bad_pages(self->mem, self->npages, seed);
		usleep(1000);
		out += pages_at(self->fd, self->mem, self->npages, HMM_REF_PAGE_NONE) > 0;
	}
	counter_set(&reclaimer.stop, 1);
	EXPECT_EQ(0, worker_wait(&worker));
	ASSERT_EQ(0, rc);
	TH_LOG("%u rounds, %lu of reclaim, %lu pages migrated, %lu times some were out",
	       seed - 1, reclaimer.rounds, migrated, out);
	EXPECT_LT(0, migrated);
	EXPECT_LT(0, out);
}

int main(int argc, char **argv)
{
	return hmm_ref_test_main(argc, argv);
}
