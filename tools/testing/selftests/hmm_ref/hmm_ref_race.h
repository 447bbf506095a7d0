/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Common parts of the races: PAGES pages that are written, threads that migrate them, retries while
 * the device returns EBUSY, and the proof that the sides have met.
 *
 * The pages are side by side, or spread over a huge page, which migrates as a whole.
 *
 * Every writer owns a word of each page, which no other side writes, and knows its expected value.
 *
 * The proof: the migrating thread sets a flag during a migration. The other sides check it before
 * and after each step. Steps that overlap with a migration are counted in race::met, and a race
 * without any is a failure. A command migrates all pages in one batch of the driver: a step that
 * overlaps with it has met that page.
 *
 * HMM_REF_SECONDS is how long each race lasts (default 2).
 */
#ifndef _HMM_REF_RACE_H
#define _HMM_REF_RACE_H

#include "hmm_ref_huge.h"

#ifndef PAGES
#define PAGES	16UL
#endif

struct race {
	int fd, fd2;		/* two opens of the device */
	char *mem;
	unsigned long npages;	/* PAGES of them are written */
	unsigned long ms;	/* duration; 0: HMM_REF_SECONDS */
	unsigned long pause_us;	/* between two migrations */
	unsigned long stop;
	unsigned long running;	/* migrations under way */
	unsigned long begun;	/* migrations that have begun */
	unsigned long migrated;	/* pages that have migrated */
	unsigned long whole;	/* huge pages that were still whole after a migration */
	unsigned long rounds;	/* rounds of the other sides */
	unsigned long met;	/* steps of the other sides during a migration */
	unsigned long busy;	/* EBUSY returned by the device */
};

/*
 * Maps memory with the data of seed 1: a few pages, or a huge page. Returns why there is none, or
 * NULL.
 */
static inline const char *race_map(struct race *race, bool large)
{
	race->npages = large ? block_pages() : PAGES;
	if (!large) {
		race->mem = map_pages(PAGES);
		if (race->mem == MAP_FAILED)
			return "no memory";
		fill_pages(race->mem, PAGES, 1);
		return NULL;
	}
	if (!keeps_large())
		return "this kernel splits what goes to a device";
	race->mem = map_variant(race->fd, true);
	return race->mem ? NULL : "no huge page can be allocated";
}

static inline bool is_large(const struct race *race)
{
	return race->npages > PAGES;
}

/* Index of one of the PAGES pages. Their distances are all the same. */
static inline unsigned long index_of(const struct race *race, unsigned long page)
{
	return page * (race->npages / PAGES);
}

static inline char *page_of(const struct race *race, unsigned long page)
{
	return race->mem + index_of(race, page) * page_size();
}

static inline unsigned long *word_of(struct race *race, unsigned long page,
				     unsigned long owner)
{
	return (unsigned long *)page_of(race, page) + owner * 64 + 1;
}

static inline void race_clear_words(struct race *race, unsigned long owner)
{
	unsigned long i;

	for (i = 0; i < PAGES; i++)
		*word_of(race, i, owner) = 0;
}

/* Called before a step of another side. The result is for race_met(), after the step. */
static inline unsigned long race_look(struct race *race)
{
	return counter_get(&race->running) ? 0 : counter_get(&race->begun) + 1;
}

static inline void race_met(struct race *race, unsigned long look)
{
	if (!look || counter_get(&race->begun) != look - 1)
		counter_add(&race->met, 1);
}

/* ---- migration ----------------------------------------------------------- */

static inline int migrate_to(struct race *race, int fd, unsigned int direction,
			     unsigned long first, unsigned long npages)
{
	struct hmm_ref_migrate cmd;
	int rc;

	counter_add(&race->running, 1);
	counter_add(&race->begun, 1);
	rc = _test_migrate(fd, direction, race->mem + first * page_size(),
			   npages * page_size(), &cmd);
	counter_add(&race->running, -1UL);
	if (!CHECK(!rc) ||
	    !CHECK(cmd.out_migrated + cmd.out_already + cmd.out_skipped == npages))
		return 1;
	counter_add(&race->migrated, cmd.out_migrated);
	if (is_large(race) && order_at(fd, race->mem) == HUGE_ORDER)
		counter_add(&race->whole, 1);
	if (race->pause_us)
		usleep(race->pause_us);
	return 0;
}

static inline int migrate_main(void *arg)
{
	struct race *race = arg;
	unsigned long round;

	for (round = 0; !counter_get(&race->stop); round++)
		if (migrate_to(race, race->fd, round & 1 ? HMM_REF_TO_SYSTEM :
			       HMM_REF_TO_DEVICE, 0, race->npages))
			return 1;
	return 0;
}

/* The other sides bring the pages back to system memory. */
static inline int push_main(void *arg)
{
	struct race *race = arg;

	while (!counter_get(&race->stop))
		if (migrate_to(race, race->fd, HMM_REF_TO_DEVICE, 0, race->npages))
			return 1;
	return 0;
}

/* At least once, the huge page migrates to the device as a whole. */
static inline void __test_whole(struct __test_metadata *_metadata, struct race *race)
{
	ASSERT_EQ(0, migrate_to(race, race->fd, HMM_REF_TO_DEVICE, 0, race->npages));
	ASSERT_EQ(1, race->whole);
	race->migrated = 0;
	race->begun = 0;
}

#define test_whole(race)	__test_whole(_metadata, race)

/*
 * Opens device 0 twice and maps the memory of the race. Returns why the race cannot be run, or
 * NULL.
 */
static inline const char *__test_race_open(struct __test_metadata *_metadata, struct race *race,
					   bool large)
{
	const char *why_not;

	race->fd = test_open(0);
	race->fd2 = test_open(0);
	why_not = race_map(race, large);
	if (!why_not && large)
		test_whole(race);
	return why_not;
}

#define test_race_open(race, large)	__test_race_open(_metadata, race, large)

/* ---- device accesses ----------------------------------------------------- */

/* The device may return EBUSY for a range that changes all the time, but not forever. */
static inline int patiently(struct race *race, int fd, bool write, void *addr,
			    unsigned long length, void *buf)
{
	unsigned long long deadline = now_ms() + MEET_MS / 2;
	unsigned long look = race_look(race);
	int rc;

	do {
		rc = write ? _test_write(fd, addr, length, buf) :
			     _test_read(fd, addr, length, buf);
		if (rc == -EBUSY)
			counter_add(&race->busy, 1);
	} while (rc == -EBUSY && now_ms() < deadline);
	race_met(race, look);
	return rc;
}

/*
 * A device access that is longer than a word copies bytes (uapi.rst, "Atomicity"). If a CPU changes
 * a word from zero to @whole meanwhile, some of the bytes may be new and others old.
 */
static inline bool is_part_of(unsigned long word, unsigned long whole)
{
	unsigned long byte;

	for (byte = 0xff; byte; byte <<= 8) {
		if ((word & byte) && (word & byte) != (whole & byte))
			return false;
	}
	return true;
}

/* ---- the race ------------------------------------------------------------ */

/* Runs the workers, stops them, and checks that their steps have met migrations. */
static inline void run_race(struct __test_metadata *_metadata, struct race *race,
			    struct worker *workers, unsigned int n)
{
	unsigned long long end = now_ms() + (race->ms ? race->ms :
					     1000 * env_number("HMM_REF_SECONDS", 2));
	unsigned long long deadline = end + MEET_MS;
	unsigned int i;

	while (now_ms() < end || !counter_get(&race->rounds) ||
	       !counter_get(&race->migrated) || !counter_get(&race->met)) {
		if (now_ms() > deadline)
			break;
		usleep(10000);
	}
	counter_set(&race->stop, 1);
	for (i = 0; i < n; i++)
		EXPECT_EQ(0, worker_wait(&workers[i]));
	EXPECT_LT(0, race->rounds);
	EXPECT_LT(0, race->migrated);
	EXPECT_LT(0, race->met);
	if (is_large(race))
		TH_LOG("a huge page after %lu migrations of %lu", race->whole, race->begun);
	TH_LOG("%lu pages migrated, %lu rounds of the others, met %lu times, EBUSY %lu times",
	       race->migrated, race->rounds, race->met, race->busy);
}

#endif /* _HMM_REF_RACE_H */
