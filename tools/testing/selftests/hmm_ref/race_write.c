// SPDX-License-Identifier: GPL-2.0-only
/*
 * Writes during migration in both directions, while pages are discarded, or shared with a child. No
 * write is lost, and no discarded page comes back.
 *
 * Covers: a write to the old page after it was copied; a page that is mapped for the device after
 * it was discarded; a copy that is installed although the page was discarded meanwhile; a device
 * that writes to a page which fork() has just shared.
 */
#include "hmm_ref_race.h"

FIXTURE(discard)
{
	struct leak_check leak;
	struct race race;
	struct hmm_ref_stats before;
};

FIXTURE_VARIANT(discard)
{
	bool by_device;		/* the device writes, otherwise the CPU */
	bool other_file;	/* through another file than that of the migration */
	bool apart;		/* another thread discards */
	bool large;		/* a huge page, which is discarded as a whole */
};

FIXTURE_VARIANT_ADD(discard, cpu) { .by_device = false };
FIXTURE_VARIANT_ADD(discard, device) { .by_device = true };
FIXTURE_VARIANT_ADD(discard, other_file) { .by_device = true, .other_file = true };
FIXTURE_VARIANT_ADD(discard, cpu_apart) { .apart = true };
FIXTURE_VARIANT_ADD(discard, device_apart) { .by_device = true, .apart = true };
FIXTURE_VARIANT_ADD(discard, other_file_apart) { .by_device = true, .other_file = true,
						 .apart = true };
FIXTURE_VARIANT_ADD(discard, large_cpu) { .large = true };
FIXTURE_VARIANT_ADD(discard, large_device) { .large = true, .by_device = true };
FIXTURE_VARIANT_ADD(discard, large_cpu_apart) { .large = true, .apart = true };
FIXTURE_VARIANT_ADD(discard, large_device_apart) { .large = true, .by_device = true,
						   .apart = true };

FIXTURE_SETUP(discard)
{
	const char *why_not;

	leak_check_begin(_metadata, &self->leak);
	why_not = test_race_open(&self->race, variant->large);
	if (why_not)
		SKIP(return, "%s", why_not);
	race_clear_words(&self->race, 1);
	/* A migration waits for pages of the other CPU, and makes other tasks wait. */
	self->race.pause_us = 500;
	test_stats(self->race.fd, &self->before);
}

FIXTURE_TEARDOWN_PARENT(discard)
{
	leak_check_end(_metadata, &self->leak);
}

/* ---- writers --------------------------------------------------------------------- */

struct writer {
	struct race *race;
	unsigned long owner;
	int fd;			/* file of the device; -1: the CPU writes */
	bool discards;		/* the writer itself discards */
	unsigned long *discarding;	/* odd while another thread discards */
	unsigned long value[PAGES];
};

static int put(struct writer *w, unsigned long page, unsigned long value)
{
	unsigned long *word = word_of(w->race, page, w->owner);
	unsigned long look = race_look(w->race);

	if (w->fd >= 0)
		return patiently(w->race, w->fd, true, word, sizeof(value), &value);
	counter_set(word, value);
	race_met(w->race, look);
	return 0;
}

static int get(struct writer *w, unsigned long page, bool by_device,
	       unsigned long *value)
{
	unsigned long *word = word_of(w->race, page, w->owner);
	unsigned long look = race_look(w->race);

	if (by_device && w->fd >= 0)
		return patiently(w->race, w->fd, false, word, sizeof(*value), value);
	*value = counter_get(word);
	race_met(w->race, look);
	return 0;
}

/* A huge page is discarded as a whole: if it has lost a page, it does not migrate as a whole. */
static int discard_page(struct race *race, unsigned long page)
{
	bool large = is_large(race);
	unsigned long look = race_look(race);
	int rc = madvise(large ? race->mem : page_of(race, page),
			 (large ? race->npages : 1) * page_size(), MADV_DONTNEED);

	race_met(race, look);
	return rc;
}

/* Seldom enough that a huge page has time to migrate. */
static bool is_discarded(const struct writer *w, unsigned long page, unsigned long round)
{
	if (is_large(w->race))
		return page == PAGES - 1 && round % 3 == 0;
	return (round + page) % 3 == 0;
}

/* The writer itself has discarded the page, and with it its own words. */
static void forget(struct writer *w, unsigned long page)
{
	if (is_large(w->race))
		memset(w->value, 0, sizeof(w->value));
	else
		w->value[page] = 0;
}

static void wait_for_discard(const struct writer *w)
{
	unsigned long calls = counter_get(w->discarding);

	while (calls & 1 && counter_get(w->discarding) == calls)
		usleep(100);
}

static bool is_right(const struct writer *w, unsigned long page, unsigned long value)
{
	return value == w->value[page] || (!w->discards && !value);
}

/*
 * MADV_DONTNEED flushes the TLB at its end. A CPU may see the old page until MADV_DONTNEED returns,
 * when the device, which is notified first, already uses the new page.
 */
static bool look_at(struct writer *w, unsigned long page, bool by_device,
		    const char *when)
{
	unsigned long value;

	if (!CHECK(!get(w, page, by_device, &value)))
		return false;
	if (!is_right(w, page, value) && w->fd >= 0 && !by_device) {
		wait_for_discard(w);
		get(w, page, by_device, &value);
	}
	if (is_right(w, page, value))
		return true;
	fprintf(stderr, "# %s: page %lu is %lu, and not %lu\n", when, page, value,
		w->value[page]);
	return false;
}

/*
 * A page holds the last value, or zero if pages are discarded. An older value is a lost write, or a
 * page that came back.
 */
static int writer_page(struct writer *w, unsigned long page, unsigned long round)
{
	if (!CHECK(look_at(w, page, round & 1, "before the write")))
		return 1;
	w->value[page] = w->owner << 32 | round;
	if (!CHECK(!put(w, page, w->value[page])) ||
	    !CHECK(look_at(w, page, round & 2, "after the write")))
		return 1;
	if (!w->discards || !is_discarded(w, page, round))
		return 0;
	forget(w, page);
	return !CHECK(!discard_page(w->race, page)) ||
	       !CHECK(look_at(w, page, round & 2, "after it was discarded"));
}

static int writer_main(void *arg)
{
	struct writer *w = arg;
	unsigned long round, i;

	for (round = 1; !counter_get(&w->race->stop); round++) {
		for (i = 0; i < PAGES; i++)
			if (writer_page(w, i, round))
				return 1;
		counter_add(&w->race->rounds, 1);
	}
	return 0;
}

struct discarder {
	struct race *race;
	unsigned long calls;	/* calls begun plus calls ended: odd during a call */
};

static int discard_main(void *arg)
{
	struct discarder *d = arg;
	unsigned long page = 0;

	while (!counter_get(&d->race->stop)) {
		counter_add(&d->calls, 1);
		if (!CHECK(!discard_page(d->race, page)))
			return 1;
		counter_add(&d->calls, 1);
		page = (page + 5) % PAGES;
		usleep(200);
	}
	return 0;
}

TEST_F_TIMEOUT(discard, and_write, 300)
{
	struct race *race = &self->race;
	struct discarder discarder = { race };
	struct writer writer = {
		.race = race, .owner = 1, .discards = !variant->apart,
		.discarding = &discarder.calls,
		.fd = !variant->by_device ? -1 : variant->other_file ? race->fd2 : race->fd,
	};
	struct worker workers[3];
	struct hmm_ref_stats after;

	ASSERT_EQ(0, worker_start(&workers[0], writer_main, &writer));
	ASSERT_EQ(0, worker_start(&workers[1], migrate_main, race));
	if (variant->apart)
		ASSERT_EQ(0, worker_start(&workers[2], discard_main, &discarder));
	run_race(_metadata, race, workers, variant->apart ? 3 : 2);
	test_stats(race->fd, &after);
	if (variant->by_device)
		EXPECT_LT(self->before.out_device_faults, after.out_device_faults);
	TH_LOG("device faults %llu, of these repeated %llu",
	       after.out_device_faults - self->before.out_device_faults,
	       after.out_retries - self->before.out_retries);
}

/* ---- fork ------------------------------------------------------------------------ */

#define WRITERS	2

FIXTURE(share)
{
	struct leak_check leak;
	struct race race;
};

FIXTURE_VARIANT(share)
{
	bool large;
};

FIXTURE_VARIANT_ADD(share, small) { .large = false };
FIXTURE_VARIANT_ADD(share, large) { .large = true };

FIXTURE_SETUP(share)
{
	const char *why_not;

	leak_check_begin(_metadata, &self->leak);
	why_not = test_race_open(&self->race, variant->large);
	if (why_not)
		SKIP(return, "%s", why_not);
	race_clear_words(&self->race, 1);
	race_clear_words(&self->race, 2);
	/* A migration waits for pages of the other CPU, and makes other tasks wait. */
	self->race.pause_us = 500;
}

FIXTURE_TEARDOWN_PARENT(share)
{
	leak_check_end(_metadata, &self->leak);
}

/* Bounds for a child. The parent writes them on the shared page. */
struct bounds {
	unsigned long low[WRITERS][PAGES];
	unsigned long high[WRITERS][PAGES];
	unsigned long go;
};

struct snapshot {
	struct race *race;
	struct bounds *bounds;
};

/* A writer has reached at least @low before the fork, and at most @high after it. */
static int child_main(void *arg)
{
	struct snapshot *s = arg;
	unsigned long seen[WRITERS][PAGES], w, i;
	unsigned long long deadline = now_ms() + PATIENCE_MS;

	for (i = 0; i < PAGES; i++)
		for (w = 0; w < WRITERS; w++)
			seen[w][i] = counter_get(word_of(s->race, i, w + 1));
	while (!counter_get(&s->bounds->go) && now_ms() < deadline)
		usleep(1000);
	for (i = 0; i < PAGES; i++) {
		for (w = 0; w < WRITERS; w++) {
			unsigned long now = counter_get(word_of(s->race, i, w + 1));

			if (!CHECK(now == seen[w][i]) ||
			    !CHECK(now >= s->bounds->low[w][i]) ||
			    !CHECK(now <= s->bounds->high[w][i] + 1))
				return 1;
		}
	}
	return 0;
}

static void sample(struct writer *writers, unsigned long (*values)[PAGES])
{
	unsigned long w, i;

	for (w = 0; w < WRITERS; w++)
		for (i = 0; i < PAGES; i++)
			values[w][i] = counter_get(&writers[w].value[i]);
}

/* Writes single words, without checks that would slow it down. */
static int counting_main(void *arg)
{
	struct writer *w = arg;
	unsigned long i, value;

	while (!counter_get(&w->race->stop)) {
		for (i = 0; i < PAGES; i++) {
			if (!CHECK(!put(w, i, w->value[i] + 1)) ||
			    !CHECK(!get(w, i, true, &value)) ||
			    !CHECK(value == w->value[i] + 1))
				return 1;
			counter_add(&w->value[i], 1);
		}
		counter_add(&w->race->rounds, 1);
	}
	return 0;
}

/*
 * The CPU and the device increment counters while children are forked. A child has the counters of
 * its fork(), and they do not change. The parent loses no increment.
 */
TEST_F_TIMEOUT(share, fork_and_write, 300)
{
	unsigned long long end = now_ms() + 1000 * env_number("HMM_REF_SECONDS", 2);
	struct bounds *bounds = test_map_shared(sizeof(*bounds));
	struct snapshot snapshot = { &self->race, bounds };
	struct worker workers[WRITERS + 1];
	struct writer writers[WRITERS] = {
		{ .race = &self->race, .owner = 1, .fd = -1 },
		{ .race = &self->race, .owner = 2, .fd = self->race.fd2 },
	};
	unsigned long children, i, w;
	int rc = 0;
	pid_t pid;

	for (i = 0; i < WRITERS; i++)
		ASSERT_EQ(0, worker_start(&workers[i], counting_main, &writers[i]));
	ASSERT_EQ(0, worker_start(&workers[i], migrate_main, &self->race));
	for (children = 0; !rc && (children < 2 || now_ms() < end); children++) {
		counter_set(&bounds->go, 0);
		sample(writers, bounds->low);
		pid = child_start(child_main, &snapshot);
		sample(writers, bounds->high);
		usleep(2000);
		counter_set(&bounds->go, 1);
		rc = pid > 0 ? child_wait(pid, 2 * PATIENCE_MS) : -1;
	}
	EXPECT_EQ(0, rc);
	run_race(_metadata, &self->race, workers, WRITERS + 1);
	EXPECT_LT(1, children);
	TH_LOG("%lu children", children);
	for (w = 0; w < WRITERS; w++)
		for (i = 0; i < PAGES; i++)
			ASSERT_EQ(writers[w].value[i], *word_of(&self->race, i, w + 1));
}

int main(int argc, char **argv)
{
	return hmm_ref_test_main(argc, argv);
}
