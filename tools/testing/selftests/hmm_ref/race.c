// SPDX-License-Identifier: GPL-2.0-only
/*
 * Migration, and all other accesses, at the same time. Every writer owns words that no other side
 * writes, and knows their expected values, so that a lost or late write is detected at once.
 * Counters prove that the two sides have met.
 *
 * Covers: a device mapping that stays valid while the page is copied (writes go to the old page); a
 * stale entry of the device page table, because the driver's own migration did not change the
 * sequence; an entry made after migration without a check for an invalidation (MADV_DONTNEED does
 * not wait for the page lock), which leads to freed device memory.
 */
#include "hmm_ref_writers.h"

FIXTURE(race)
{
	struct leak_check leak;
	struct race race;
	struct hmm_ref_stats before;
};

FIXTURE_VARIANT(race)
{
	bool large;
};

FIXTURE_VARIANT_ADD(race, small) { .large = false };
FIXTURE_VARIANT_ADD(race, large) { .large = true };

FIXTURE_SETUP(race)
{
	const char *why_not;

	leak_check_begin(_metadata, &self->leak);
	why_not = test_race_open(&self->race, variant->large);
	if (why_not)
		SKIP(return, "%s", why_not);
	test_stats(self->race.fd, &self->before);
}

FIXTURE_TEARDOWN_PARENT(race)
{
	leak_check_end(_metadata, &self->leak);
}

/* ---- the races ------------------------------------------------------------------- */

TEST_F_TIMEOUT(race, cpu_writers, 300)
{
	struct writer writers[2];
	struct worker workers[3];
	struct hmm_ref_stats after;
	int i;

	for (i = 0; i < 2; i++) {
		writer_init(&writers[i], &self->race, i + 1, -1);
		ASSERT_EQ(0, worker_start(&workers[i], cpu_writer, &writers[i]));
	}
	ASSERT_EQ(0, worker_start(&workers[2], migrate_main, &self->race));
	run_race(_metadata, &self->race, workers, 3);
	test_stats(self->race.fd, &after);
	EXPECT_LT(self->before.out_cpu_faults, after.out_cpu_faults);
	check_writers(_metadata, &self->race, writers, 2);
}

TEST_F_TIMEOUT(race, device_writer, 300)
{
	struct writer writers[2];
	struct worker workers[3];
	struct hmm_ref_stats after;

	writer_init(&writers[0], &self->race, 1, self->race.fd2);
	writer_init(&writers[1], &self->race, 2, self->race.fd);
	ASSERT_EQ(0, worker_start(&workers[0], device_writer, &writers[0]));
	ASSERT_EQ(0, worker_start(&workers[1], device_writer, &writers[1]));
	ASSERT_EQ(0, worker_start(&workers[2], migrate_main, &self->race));
	run_race(_metadata, &self->race, workers, 3);
	test_stats(self->race.fd, &after);
	EXPECT_LT(self->before.out_device_faults, after.out_device_faults);
	check_writers(_metadata, &self->race, writers, 2);
}

/* CPU, device and migration use the same pages. */
TEST_F_TIMEOUT(race, cpu_and_device_writers, 300)
{
	struct writer writers[2];
	struct worker workers[3];
	struct hmm_ref_stats after;

	writer_init(&writers[0], &self->race, 1, self->race.fd2);
	writer_init(&writers[1], &self->race, 2, -1);
	ASSERT_EQ(0, worker_start(&workers[0], device_writer, &writers[0]));
	ASSERT_EQ(0, worker_start(&workers[1], cpu_writer, &writers[1]));
	ASSERT_EQ(0, worker_start(&workers[2], push_main, &self->race));
	run_race(_metadata, &self->race, workers, 3);
	test_stats(self->race.fd, &after);
	EXPECT_LT(self->before.out_cpu_faults, after.out_cpu_faults);
	EXPECT_LT(self->before.out_device_faults, after.out_device_faults);
	check_writers(_metadata, &self->race, writers, 2);
}

/* Discards pages, sometimes all of them, and writes new ones. */
static int discard_main(void *arg)
{
	struct race *race = arg;
	unsigned long page = 0;

	while (!counter_get(&race->stop)) {
		char *mem = page_of(race, page);
		unsigned long look = race_look(race);

		if (!CHECK(page ? !madvise(mem, page_size(), MADV_DONTNEED) :
			   !madvise(mem, race->npages * page_size(), MADV_DONTNEED)))
			return 1;
		if (page & 1)
			fill_pages_from(mem, 1, 1, index_of(race, page));
		race_met(race, look);
		page = (page + 5) % PAGES;
		counter_add(&race->rounds, 1);
	}
	return 0;
}

/* Every byte is one that was written there, or zero. */
static int suspicious_reader(void *arg)
{
	struct race *race = arg;
	unsigned long words = page_size() / sizeof(long);
	unsigned long *buf = malloc(race->npages * page_size());
	unsigned long i, j, word;
	int rc = !CHECK(buf);

	while (!rc && !counter_get(&race->stop)) {
		memset(buf, 0xcc, race->npages * page_size());
		rc = !CHECK(!patiently(race, race->fd2, false, race->mem,
				       race->npages * page_size(), buf));
		for (i = 0; !rc && i < race->npages; i++) {
			for (j = 0; !rc && j < words; j++) {
				word = buf[i * words + j];
				rc = !CHECK(is_part_of(word, pattern_word(1, i, j)));
			}
		}
	}
	free(buf);
	return rc;
}

TEST_F_TIMEOUT(race, dontneed_and_device_read, 300)
{
	struct worker workers[3];

	ASSERT_EQ(0, worker_start(&workers[0], discard_main, &self->race));
	ASSERT_EQ(0, worker_start(&workers[1], suspicious_reader, &self->race));
	ASSERT_EQ(0, worker_start(&workers[2], migrate_main, &self->race));
	run_race(_metadata, &self->race, workers, 3);
}

/* Maps other memory over the range, and moves it away and back. */
static int remap_main(void *arg)
{
	struct race *race = arg;
	unsigned long npages = race->npages / 2;
	unsigned long half = npages * page_size();
	char *elsewhere = map_pages(npages);
	unsigned long round;

	for (round = 0; !counter_get(&race->stop); round++) {
		unsigned long look = race_look(race);

		if (round & 1) {
			if (!CHECK(mmap(race->mem, half, PROT_READ | PROT_WRITE,
					MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED,
					-1, 0) == race->mem))
				return 1;
			fill_pages(race->mem, npages, 1);
		} else {
			if (!CHECK(mremap(race->mem, half, half, MREMAP_MAYMOVE |
					  MREMAP_FIXED, elsewhere) == elsewhere) ||
			    !CHECK(!bad_pages(elsewhere, npages, 1)) ||
			    !CHECK(mremap(elsewhere, half, half, MREMAP_MAYMOVE |
					  MREMAP_FIXED, race->mem) == race->mem))
				return 1;
		}
		race_met(race, look);
		counter_add(&race->rounds, 1);
	}
	return 0;
}

/* A command may run at a moment when nothing is mapped. */
static int careful_migrate(void *arg)
{
	struct race *race = arg;
	struct hmm_ref_migrate cmd;
	unsigned long round;
	int rc;

	for (round = 0; !counter_get(&race->stop); round++) {
		counter_add(&race->running, 1);
		counter_add(&race->begun, 1);
		rc = _test_migrate(race->fd, round & 3 ? HMM_REF_TO_DEVICE :
				   HMM_REF_TO_SYSTEM, race->mem,
				   race->npages * page_size(), &cmd);
		counter_add(&race->running, -1UL);
		if (!CHECK(!rc || rc == -EFAULT))
			return 1;
		counter_add(&race->migrated, cmd.out_migrated);
	}
	return 0;
}

TEST_F_TIMEOUT(race, mremap_and_map_over, 300)
{
	struct worker workers[2];

	/*
	 * Started last, because a new stack could be mapped at an address that remap_main() leaves
	 * for a moment.
	 */
	ASSERT_EQ(0, worker_start(&workers[0], careful_migrate, &self->race));
	ASSERT_EQ(0, worker_start(&workers[1], remap_main, &self->race));
	run_race(_metadata, &self->race, workers, 2);
	test_dev_data(self->race.fd2, self->race.mem, self->race.npages, 1);
	test_cpu_data(self->race.mem, self->race.npages, 1);
}

struct generation {
	char *mem;
	unsigned long npages;
	unsigned int seed;
};

static int verify_generation(void *arg)
{
	struct generation *g = arg;

	return !CHECK(!bad_pages(g->mem, g->npages, g->seed));
}

/*
 * The child has the data of fork(), although the device writes the next generation for the parent
 * at once, and pages migrate all the time.
 */
TEST_F_TIMEOUT(race, fork, 300)
{
	unsigned long long end = now_ms() + 1000 * env_number("HMM_REF_SECONDS", 2);
	unsigned long long deadline = end + MEET_MS;
	struct generation g = {
		.mem = self->race.mem,
		.npages = self->race.npages,
		.seed = 1,
	};
	char *buf = test_map_pages(g.npages);
	struct worker worker;
	pid_t pid;

	self->race.pause_us = 500;	/* now and then a write has to complete */
	ASSERT_EQ(0, worker_start(&worker, migrate_main, &self->race));
	do {
		pid = child_start(verify_generation, &g);
		ASSERT_LT(0, pid);
		g.seed++;
		fill_pages(buf, g.npages, g.seed);
		ASSERT_EQ(0, patiently(&self->race, self->race.fd2, true, g.mem,
				       g.npages * page_size(), buf));
		ASSERT_EQ(0, child_wait(pid, 2 * PATIENCE_MS));
		self->race.rounds++;
	} while (now_ms() < deadline && (now_ms() < end || !self->race.met ||
					 !counter_get(&self->race.migrated)));
	counter_set(&self->race.stop, 1);
	ASSERT_EQ(0, worker_wait(&worker));
	test_cpu_data(g.mem, g.npages, g.seed);
	ASSERT_LT(0, self->race.migrated);
	ASSERT_LT(0, self->race.met);
	TH_LOG("%lu pages migrated, %lu children, met %lu times, EBUSY %lu times",
	       self->race.migrated, self->race.rounds, self->race.met, self->race.busy);
}

/* Two threads use one file, on ranges that overlap by half. */
struct half {
	struct race *race;
	unsigned long first;
	unsigned int direction;
};

static int half_main(void *arg)
{
	struct half *half = arg;
	struct race *race = half->race;
	unsigned long size = race->npages * page_size();
	char *buf = malloc(size);
	int rc = !CHECK(buf);

	while (!rc && !counter_get(&race->stop)) {
		rc = migrate_to(race, race->fd, half->direction, half->first,
				race->npages / 2) ||
		     !CHECK(!patiently(race, race->fd, false, race->mem, size, buf)) ||
		     !CHECK(!bad_pages(buf, race->npages, 1));
		counter_add(&race->rounds, 1);
	}
	free(buf);
	return rc;
}

TEST_F_TIMEOUT(race, two_threads_one_file, 300)
{
	struct half halves[2] = {
		{ .race = &self->race, .direction = HMM_REF_TO_DEVICE },
		{ .race = &self->race, .direction = HMM_REF_TO_SYSTEM,
		  .first = self->race.npages / 4 },
	};
	struct worker workers[2];
	int i;

	for (i = 0; i < 2; i++)
		ASSERT_EQ(0, worker_start(&workers[i], half_main, &halves[i]));
	run_race(_metadata, &self->race, workers, 2);
	test_cpu_data(self->race.mem, self->race.npages, 1);
}

int main(int argc, char **argv)
{
	return hmm_ref_test_main(argc, argv);
}
