// SPDX-License-Identifier: GPL-2.0-only
/*
 * Memory is discarded while a huge page in it is split for a migration.
 *
 * migrate_vma_setup() drops the page table lock for the split. If the table was freed meanwhile, it
 * started with the range again, behind the entries that it had already written, and wrote beyond
 * the end of the driver's arrays. KASAN detects it.
 */
#include "hmm_ref_huge.h"

FIXTURE(discard)
{
	struct leak_check leak;
	int fd;
	char *mem;
};

FIXTURE_SETUP(discard)
{
	leak_check_begin(_metadata, &self->leak);
	self->fd = test_open(0);
	self->mem = map_variant(self->fd, true);
	if (!self->mem)
		SKIP(return, "no huge page can be allocated");
}

FIXTURE_TEARDOWN_PARENT(discard)
{
	leak_check_end(_metadata, &self->leak);
}

/* Discards the whole block, a little after it is told to. */
struct discarder {
	char *mem;
	unsigned long round;	/* incremented to start it */
	unsigned long done;
	unsigned long delay;
	unsigned long stop;
};

static int discard_in_time(void *arg)
{
	struct discarder *d = arg;
	unsigned long round = 0, n;

	while (!counter_get(&d->stop)) {
		if (counter_get(&d->round) == round)
			continue;
		round = counter_get(&d->round);
		for (n = counter_get(&d->delay); n; n--)
			counter_get(&d->round);
		if (!CHECK(!madvise(d->mem, block_size(), MADV_DONTNEED)))
			return 1;
		counter_set(&d->done, round);
	}
	return 0;
}

/* The huge page has lost its first page before the migration, so that PTEs map it. */
TEST_F(discard, while_split)
{
	unsigned long long end = now_ms() + 1000 * env_number("HMM_REF_SECONDS", 2);
	unsigned int random = random_seed("HMM_REF_SEED");
	struct discarder discarder = { .mem = self->mem };
	unsigned long rounds = 0, moved = 0;
	struct hmm_ref_migrate cmd;
	struct worker worker;

	ASSERT_EQ(0, worker_start(&worker, discard_in_time, &discarder));
	do {
		fill_pages(self->mem, block_pages(), 1);
		ASSERT_EQ(0, madvise(self->mem, page_size(), MADV_DONTNEED));
		counter_set(&discarder.delay, random_next(&random) % 20000);
		counter_set(&discarder.round, ++rounds);
		test_migrate(self->fd, HMM_REF_TO_DEVICE, self->mem, block_size(), &cmd);
		moved += cmd.out_migrated;
		while (counter_get(&discarder.done) != rounds)
			sched_yield();
		ASSERT_TRUE(page_is_zero(self->mem + 7 * page_size()));
	} while (now_ms() < end);
	counter_set(&discarder.stop, 1);
	ASSERT_EQ(0, worker_wait(&worker));
	TH_LOG("%lu rounds, %lu pages moved", rounds, moved);
	EXPECT_LT(0, moved);
}

int main(int argc, char **argv)
{
	return hmm_ref_test_main(argc, argv);
}
