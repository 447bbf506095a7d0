// SPDX-License-Identifier: GPL-2.0-only
/*
 * Two devices take pages from each other while both are in use: two mirrors of one device and one
 * of the other, all of the same mm, and the CPU. Every writer knows the expected values of its
 * words.
 *
 * Covers: a write through a translation of the device that the page has left, which reaches other
 * memory; a copy that begins before the translation of the other device is gone; two devices that
 * wait for each other; two tasks that repeatedly take pages from each other.
 */
#include "hmm_ref_writers.h"
#include "hmm_ref_peer.h"

/* A write brings a page back to system memory, so the writers leave time for migrations. */
#define REST		8

FIXTURE(race_peer)
{
	struct leak_check leak;
	struct peers peers;
	int to2;		/* second open of peers.to */
	struct race race;
	struct hmm_ref_stats from;
	struct hmm_ref_stats to;
};

FIXTURE_VARIANT(race_peer)
{
	unsigned int from;
	unsigned int to;
	bool large;
};

FIXTURE_VARIANT_ADD(race_peer, small)
{
	.from = HMM_REF_MEMORY_PRIVATE, .to = HMM_REF_MEMORY_PRIVATE,
};

FIXTURE_VARIANT_ADD(race_peer, large)
{
	.from = HMM_REF_MEMORY_PRIVATE, .to = HMM_REF_MEMORY_PRIVATE, .large = true,
};

FIXTURE_VARIANT_ADD(race_peer, coherent)
{
	.from = HMM_REF_MEMORY_COHERENT, .to = HMM_REF_MEMORY_PRIVATE,
};

FIXTURE_SETUP(race_peer)
{
	const char *why_not;

	leak_check_begin(_metadata, &self->leak);
	why_not = peers_open(&self->peers, variant->from, variant->to);
	if (why_not)
		SKIP(return, "%s", why_not);
	self->race.fd = self->peers.from;
	self->race.fd2 = test_open(self->peers.from_nr);
	self->to2 = test_open(self->peers.to_nr);
	why_not = race_map(&self->race, variant->large);
	if (why_not)
		SKIP(return, "%s", why_not);
	if (variant->large)
		test_whole(&self->race);
	test_stats(self->peers.from, &self->from);
	test_stats(self->peers.to, &self->to);
}

FIXTURE_TEARDOWN_PARENT(race_peer)
{
	leak_check_end(_metadata, &self->leak);
}

/* Returns how many pages have left a device for another one since @since. */
static unsigned long long left_for_peers(int fd, const struct hmm_ref_stats *since)
{
	struct hmm_ref_stats now;

	return _test_stats(fd, &now) ? 0 : now.out_to_peers - since->out_to_peers;
}

/* Waits until pages have migrated in both directions, which takes time on a slow machine. */
static void __test_go_over(struct __test_metadata *_metadata, const struct peers *peers,
			   const struct hmm_ref_stats *from, const struct hmm_ref_stats *to)
{
	unsigned long long deadline = now_ms() + MEET_MS;
	unsigned long long over, back;

	do {
		usleep(1000);
		over = left_for_peers(peers->from, from);
		back = left_for_peers(peers->to, to);
	} while ((!over || !back) && now_ms() < deadline);
	EXPECT_LT(0, over);
	EXPECT_LT(0, back);
	TH_LOG("%llu pages went over, %llu came back", over, back);
}

#define test_go_over() \
	__test_go_over(_metadata, &self->peers, &self->from, &self->to)

/* ---- one thread migrates, four write ------------------------------------------ */

struct tour {
	struct race *race;
	int to;
};

/* Migrates from device to device, and sometimes through system memory. */
static int tour_main(void *arg)
{
	struct tour *tour = arg;
	struct race *race = tour->race;
	unsigned int round;

	for (round = 0; !counter_get(&race->stop); round++) {
		int fd = round & 1 ? tour->to : race->fd;

		if (migrate_to(race, fd, HMM_REF_TO_DEVICE, 0, race->npages))
			return 1;
		if (round % 5 == 4 &&
		    migrate_to(race, fd, HMM_REF_TO_SYSTEM, 0, race->npages))
			return 1;
	}
	return 0;
}

TEST_F_TIMEOUT(race_peer, three_mirrors_and_the_cpu, 300)
{
	struct tour tour = { .race = &self->race, .to = self->peers.to };
	int fds[4] = { self->race.fd, self->race.fd2, self->peers.to, -1 };
	struct writer writers[4];
	struct worker workers[5];
	unsigned int i;

	for (i = 0; i < 4; i++) {
		writer_init(&writers[i], &self->race, i + 1, fds[i]);
		writers[i].rest = REST + i;
		ASSERT_EQ(0, worker_start(&workers[i], fds[i] < 0 ? cpu_writer : device_writer,
					  &writers[i]));
	}
	ASSERT_EQ(0, worker_start(&workers[4], tour_main, &tour));
	test_go_over();
	run_race(_metadata, &self->race, workers, 5);
	test_go_over();
	check_writers(_metadata, &self->race, writers, 4);
}

/* ---- mirrors that map at once ------------------------------------------------- */

struct reader {
	struct race *race;
	int fd;
};

/* Maps the pages again as soon as possible after they were unmapped. */
static int keep_reading(void *arg)
{
	struct reader *reader = arg;
	struct race *race = reader->race;
	unsigned long i, word;

	while (!counter_get(&race->stop)) {
		for (i = 0; i < PAGES; i++)
			if (!CHECK(!patiently(race, reader->fd, false, word_of(race, i, 1),
					      sizeof(word), &word)))
				return 1;
		counter_add(&race->rounds, 1);
	}
	return 0;
}

/* Checks that each file sees @value in every page. */
static int write_and_look(struct race *race, int to, const int *fds, unsigned long value)
{
	unsigned long i, seen;

	for (i = 0; i < PAGES; i++) {
		unsigned long *word = word_of(race, i, 1);

		if (!CHECK(!patiently(race, to, true, word, sizeof(value), &value)) ||
		    !CHECK(!patiently(race, fds[0], false, word, sizeof(seen), &seen)) ||
		    !CHECK(seen == value) ||
		    !CHECK(!patiently(race, fds[1], false, word, sizeof(seen), &seen)) ||
		    !CHECK(seen == value) || !CHECK(counter_get(word) == value))
			return 1;
	}
	return 0;
}

/*
 * A window is migrated in two passes: to system memory, and to the other device. Between them,
 * mirrors of both devices may map the pages. They must lose these entries in the second pass.
 */
TEST_F_TIMEOUT(race_peer, mapped_between_two_passes, 300)
{
	unsigned long long end = now_ms() + 1000 * env_number("HMM_REF_SECONDS", 2);
	unsigned long long deadline = end + MEET_MS;
	int fds[2] = { self->race.fd2, self->to2 };
	struct reader readers[2];
	struct worker workers[2];
	unsigned long round = 0;
	int i;

	for (i = 0; i < 2; i++) {
		readers[i] = (struct reader){ &self->race, fds[i] };
		ASSERT_EQ(0, worker_start(&workers[i], keep_reading, &readers[i]));
	}
	do {
		ASSERT_EQ(0, migrate_to(&self->race, self->race.fd, HMM_REF_TO_DEVICE, 0,
					self->race.npages));
		ASSERT_EQ(0, migrate_to(&self->race, self->peers.to, HMM_REF_TO_DEVICE, 0,
					self->race.npages));
		ASSERT_EQ(0, write_and_look(&self->race, self->peers.to, fds, ++round));
	} while (now_ms() < deadline &&
		 (now_ms() < end || !left_for_peers(self->peers.from, &self->from)));
	counter_set(&self->race.stop, 1);
	for (i = 0; i < 2; i++)
		EXPECT_EQ(0, worker_wait(&workers[i]));
	EXPECT_LT(0, left_for_peers(self->peers.from, &self->from));
	TH_LOG("%lu rounds, %llu pages went over", round,
	       left_for_peers(self->peers.from, &self->from));
}

/* ---- two threads migrate, each to its device ---------------------------------- */

static int push_to_peer(void *arg)
{
	struct tour *tour = arg;
	struct race *race = tour->race;

	while (!counter_get(&race->stop))
		if (migrate_to(race, tour->to, HMM_REF_TO_DEVICE, 0, race->npages))
			return 1;
	return 0;
}

TEST_F_TIMEOUT(race_peer, opposite_directions, 300)
{
	struct tour tour = { .race = &self->race, .to = self->peers.to };
	struct worker workers[3];
	struct writer writer;

	writer_init(&writer, &self->race, 1, -1);
	writer.rest = REST;
	ASSERT_EQ(0, worker_start(&workers[0], push_main, &self->race));
	ASSERT_EQ(0, worker_start(&workers[1], push_to_peer, &tour));
	ASSERT_EQ(0, worker_start(&workers[2], cpu_writer, &writer));
	test_go_over();
	run_race(_metadata, &self->race, workers, 3);
	test_go_over();
	check_writers(_metadata, &self->race, &writer, 1);
}

/* ---- two processes ------------------------------------------------------------ */

struct process {
	struct race *race;
	unsigned int nr;	/* number of the device */
	unsigned long *stop;	/* shared */
	unsigned long *moved;	/* shared */
};

/* Shares all of its pages with the other process, and migrates them to its own device. */
static int pull_shared(void *arg)
{
	struct process *process = arg;
	struct race *race = process->race;
	int fd = hmm_ref_open(process->nr);
	struct hmm_ref_migrate cmd;

	if (!CHECK(fd >= 0))
		return 1;
	while (!counter_get(process->stop)) {
		if (!CHECK(!_test_migrate(fd, HMM_REF_TO_DEVICE, race->mem,
					  race->npages * page_size(), &cmd)))
			return 1;
		counter_add(process->moved, cmd.out_migrated);
	}
	return !CHECK(!bad_pages(race->mem, race->npages, 1));
}

/* Pages that both processes map exist once, and each device takes them from the other. */
TEST_F_TIMEOUT(race_peer, two_processes, 300)
{
	unsigned long long end = now_ms() + 1000 * env_number("HMM_REF_SECONDS", 2);
	unsigned long *counters = test_map_shared(3 * sizeof(*counters));
	struct process processes[2] = {
		{ &self->race, self->peers.from_nr, &counters[0], &counters[1] },
		{ &self->race, self->peers.to_nr, &counters[0], &counters[2] },
	};
	pid_t pids[2];
	int i;

	for (i = 0; i < 2; i++) {
		pids[i] = child_start(pull_shared, &processes[i]);
		ASSERT_LT(0, pids[i]);
	}
	test_go_over();
	while (now_ms() < end)
		usleep(1000);
	counter_set(&counters[0], 1);
	for (i = 0; i < 2; i++)
		EXPECT_EQ(0, child_wait(pids[i], 9 * PATIENCE_MS));
	EXPECT_LT(0, counters[1]);
	EXPECT_LT(0, counters[2]);
	test_go_over();
	test_cpu_data(self->race.mem, self->race.npages, 1);
}

int main(int argc, char **argv)
{
	return hmm_ref_test_main(argc, argv);
}
