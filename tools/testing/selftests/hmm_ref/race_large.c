// SPDX-License-Identifier: GPL-2.0-only
/*
 * Races on a huge page. Each variant is a set of threads that migrate it, use it and split it, all
 * at the same time.
 *
 * The middle of the block, CUT, is discarded, mapped over, moved away and protected: it holds its
 * data or zeros. In the rest, some pages (SPOTS) have words that one writer owns each, and all
 * other words never change. A thread makes the block a huge page again whenever it can, so that the
 * threads do not soon race on small pages.
 *
 * Covers: a folio that is split while it is copied; a fault on a part of a folio that other threads
 * split or collapse; a part that is unmapped during the copy of the whole; a page of a folio that
 * is looked up by the entry of another page.
 *
 * HMM_REF_MS is how long each variant lasts (default 600).
 */
#define PAGES	block_pages()

#include "hmm_ref_race.h"
#include "hmm_ref_huge.h"
#include "hmm_ref_old.h"

#define CUT		200UL
#define CUT_PAGES	32UL

/* The ends of the block, both sides of the cut, and some pages in between. */
static const unsigned long spots[] = { 0, 1, 77, CUT - 1, CUT + CUT_PAGES, 300, 510, 511 };

#define SPOTS		ARRAY_SIZE(spots)

enum {
	MOVE = 1, MOVE_PARTS = 2, PUSH = 4, EVICT = 8,
	CPU_WRITE = 0x10, DEVICE_WRITE = 0x20, DEVICE_READ = 0x40, FORK = 0x80,
	DISCARD = 0x100, MAP_OVER = 0x200, REMAP = 0x400, PROTECT = 0x800,
};

#define ACTORS		13	/* the actors below, and the one that renews the huge page */

struct stage {
	struct race race;
	int old;
	char *elsewhere;	/* as large as the cut */
	unsigned long hold;	/* other threads stop while the huge page is renewed */
	unsigned long whole;	/* huge pages seen on the device */
	unsigned long renewed, tried;
	unsigned long children;
	unsigned long values[2][SPOTS];	/* last values that the CPU and the device have written */
};

FIXTURE(large)
{
	struct leak_check leak;
	struct stage stage;
};

FIXTURE_VARIANT(large)
{
	unsigned int actors;
};

FIXTURE_VARIANT_ADD(large, writers) { MOVE | CPU_WRITE | DEVICE_WRITE };
FIXTURE_VARIANT_ADD(large, evict) { PUSH | EVICT | CPU_WRITE | DEVICE_WRITE | DEVICE_READ };
FIXTURE_VARIANT_ADD(large, split) { MOVE | MOVE_PARTS | CPU_WRITE | DEVICE_READ };
FIXTURE_VARIANT_ADD(large, fault_on_parts) { PUSH | MOVE_PARTS | CPU_WRITE | DEVICE_WRITE };
FIXTURE_VARIANT_ADD(large, discard) { MOVE | DISCARD | CPU_WRITE | DEVICE_READ };
FIXTURE_VARIANT_ADD(large, discard_evict) { PUSH | DISCARD | EVICT | CPU_WRITE | DEVICE_READ };
FIXTURE_VARIANT_ADD(large, map_over) { MOVE | MAP_OVER | CPU_WRITE | DEVICE_READ };
FIXTURE_VARIANT_ADD(large, remap) { MOVE | REMAP | CPU_WRITE | DEVICE_READ };
FIXTURE_VARIANT_ADD(large, protect) { MOVE | PROTECT | CPU_WRITE | DEVICE_READ };
FIXTURE_VARIANT_ADD(large, fork) { MOVE | FORK | CPU_WRITE | DEVICE_WRITE };
FIXTURE_VARIANT_ADD(large, fork_evict) { PUSH | FORK | EVICT | DEVICE_READ };
FIXTURE_VARIANT_ADD(large, all) {
	MOVE | MOVE_PARTS | EVICT | CPU_WRITE | DEVICE_WRITE | DISCARD | FORK
};

FIXTURE_SETUP(large)
{
	struct stage *stage = &self->stage;

	leak_check_begin(_metadata, &self->leak);
	stage->race.fd = test_open(0);
	stage->race.fd2 = test_open(0);
	stage->old = old_open(0);
	if ((variant->actors & EVICT) && stage->old < 0)
		SKIP(return, "no /dev/hmm_dmirror0, which evicts");
	stage->race.mem = map_variant(stage->race.fd, true);
	stage->race.npages = PAGES;
	if (!stage->race.mem)
		SKIP(return, "no huge page can be allocated");
	stage->elsewhere = test_map_pages(CUT_PAGES);
	stage->race.pause_us = 300;
	stage->race.ms = env_number("HMM_REF_MS", 600);
}

FIXTURE_TEARDOWN_PARENT(large)
{
	leak_check_end(_metadata, &self->leak);
}

static bool is_cut(unsigned long page)
{
	return page >= CUT && page < CUT + CUT_PAGES;
}

static char *page_at(struct stage *stage, unsigned long page)
{
	return stage->race.mem + page * page_size();
}

/* ---- migration ------------------------------------------------------------------- */

static void wait_while_held(struct stage *stage)
{
	while (counter_get(&stage->hold) && !counter_get(&stage->race.stop))
		usleep(100);
}

static bool is_whole(int fd, const char *mem)
{
	struct hmm_ref_page_state state;
	struct hmm_ref_snapshot cmd;

	return !_test_snapshot(fd, mem, page_size(), &state, &cmd) &&
	       state.where == HMM_REF_PAGE_DEVICE && state.order == HUGE_ORDER;
}

static int to_device(struct stage *stage)
{
	wait_while_held(stage);
	if (migrate_to(&stage->race, stage->race.fd, HMM_REF_TO_DEVICE, 0, PAGES))
		return 1;
	counter_add(&stage->whole, is_whole(stage->race.fd, stage->race.mem));
	return 0;
}

static int mover(void *arg)
{
	struct stage *stage = arg;

	while (!counter_get(&stage->race.stop))
		if (to_device(stage) || migrate_to(&stage->race, stage->race.fd,
						   HMM_REF_TO_SYSTEM, 0, PAGES))
			return 1;
	return 0;
}

static int pusher(void *arg)
{
	struct stage *stage = arg;

	while (!counter_get(&stage->race.stop))
		if (to_device(stage))
			return 1;
	return 0;
}

static int part_mover(void *arg)
{
	unsigned int random = random_seed("HMM_REF_SEED");
	struct stage *stage = arg;

	while (!counter_get(&stage->race.stop)) {
		unsigned long first = random_next(&random) % PAGES;
		unsigned long n = 1 + random_next(&random) % (PAGES - first);

		wait_while_held(stage);
		if (migrate_to(&stage->race, stage->race.fd2, random & 1 ? HMM_REF_TO_DEVICE :
			       HMM_REF_TO_SYSTEM, first, n < 40 ? n : 40))
			return 1;
	}
	return 0;
}

static int evicter(void *arg)
{
	struct stage *stage = arg;
	int rc;

	while (!counter_get(&stage->race.stop)) {
		rc = old_release(stage->old);
		if (!CHECK(!rc || rc == -EBUSY))
			return 1;
		usleep(1000);
	}
	return 0;
}

static int renewer(void *arg)
{
	struct stage *stage = arg;
	struct hmm_ref_migrate cmd;

	while (!counter_get(&stage->race.stop)) {
		usleep(10000);
		counter_set(&stage->hold, 1);
		if (!CHECK(!_test_migrate(stage->race.fd, HMM_REF_TO_SYSTEM, stage->race.mem,
					  block_size(), &cmd)))
			return 1;
		counter_add(&stage->tried, 1);
		if (!madvise(stage->race.mem, block_size(), 25 /* MADV_COLLAPSE */))
			counter_add(&stage->renewed, 1);
		counter_set(&stage->hold, 0);
	}
	return 0;
}

/* ---- accesses -------------------------------------------------------------------- */

static int cpu_writer(void *arg)
{
	struct stage *stage = arg;
	struct race *race = &stage->race;
	unsigned long i;

	while (!counter_get(&race->stop)) {
		for (i = 0; i < SPOTS; i++) {
			unsigned long *word = word_of(race, spots[i], 1);
			unsigned long look = race_look(race);

			if (!CHECK(counter_get(word) == stage->values[0][i]))
				return 1;
			counter_set(word, stage->values[0][i] + 1);
			counter_add(&stage->values[0][i], 1);
			race_met(race, look);
		}
		counter_add(&race->rounds, 1);
		usleep(200);
	}
	return 0;
}

/* On a busy host, a range that all other threads change may be unstable for very long. */
static bool gave_up(int rc)
{
	return rc == -EBUSY;
}

static int write_spot(struct stage *stage, unsigned long i)
{
	struct race *race = &stage->race;
	unsigned long *word = word_of(race, spots[i], 2);
	unsigned long value;
	int rc;

	rc = patiently(race, race->fd2, false, word, sizeof(value), &value);
	if (gave_up(rc))
		return 0;
	if (!CHECK(!rc) || !CHECK(value == stage->values[1][i]))
		return 1;
	value++;
	rc = patiently(race, race->fd2, true, word, sizeof(value), &value);
	if (gave_up(rc))
		return 0;
	counter_add(&stage->values[1][i], !rc);
	counter_add(&race->rounds, !rc);
	return !CHECK(!rc);
}

static int device_writer(void *arg)
{
	struct stage *stage = arg;
	unsigned long i;

	for (i = 0; !counter_get(&stage->race.stop); i++)
		if (write_spot(stage, i % SPOTS))
			return 1;
	return 0;
}

/* A page has its data, except in the writers' words. In the cut it may be zero instead. */
static bool has_its_data(const unsigned long *words, unsigned long page,
			 bool (*or_else)(unsigned long word, unsigned long whole))
{
	unsigned long i, n = page_size() / sizeof(long);
	bool spot = false;

	for (i = 0; i < SPOTS; i++)
		spot |= spots[i] == page;
	for (i = 0; i < n; i++) {
		unsigned long whole = pattern_word(1, page, i);

		if (words[i] == whole || (is_cut(page) && or_else(words[i], whole)) ||
		    (spot && (i == 64 + 1 || i == 2 * 64 + 1)))
			continue;
		fprintf(stderr, "# page %lu word %lu is %#lx\n", page, i, words[i]);
		return false;
	}
	return true;
}

static bool is_zero(unsigned long word, unsigned long whole)
{
	return !word;
}

static bool page_is_good(const unsigned long *words, unsigned long page)
{
	return has_its_data(words, page, is_zero);
}

/* Reads the cut while a CPU fills it. */
static int device_reader(void *arg)
{
	unsigned int random = random_seed("HMM_REF_SEED");
	struct stage *stage = arg;
	struct race *race = &stage->race;
	unsigned long *buf = malloc(page_size());
	int rc = !CHECK(buf);

	while (!rc && !counter_get(&race->stop)) {
		unsigned long page = random_next(&random) % PAGES;

		rc = patiently(race, race->fd2, false, page_at(stage, page), page_size(), buf);
		if (gave_up(rc)) {
			rc = 0;
			continue;
		}
		rc = !CHECK(!rc) || !CHECK(has_its_data(buf, page, is_part_of));
		counter_add(&race->rounds, 1);
	}
	free(buf);
	return rc;
}

/* A child has the data of fork(). It writes to the block, or just exits. */
static int child_main(void *arg)
{
	struct stage *stage = arg;
	unsigned long seen[SPOTS], i;

	if (stage->children % 3 == 0)
		return 0;
	for (i = 0; i < SPOTS; i++)
		seen[i] = *word_of(&stage->race, spots[i], 2);
	for (i = 0; i < PAGES; i += 37)
		if (!CHECK(page_is_good((unsigned long *)page_at(stage, i), i)))
			return 1;
	for (i = 0; i < SPOTS; i++) {
		if (!CHECK(seen[i] == *word_of(&stage->race, spots[i], 2)))
			return 1;
		memset(page_at(stage, spots[i]), 0xff, page_size());
	}
	return 0;
}

static int forker(void *arg)
{
	struct stage *stage = arg;
	pid_t pid;

	while (!counter_get(&stage->race.stop)) {
		unsigned long look = race_look(&stage->race);

		pid = child_start(child_main, stage);
		if (!CHECK(pid > 0) || !CHECK(!child_wait(pid, 3 * PATIENCE_MS)))
			return 1;
		race_met(&stage->race, look);
		counter_add(&stage->children, 1);
		counter_add(&stage->race.rounds, 1);
		usleep(2000);
	}
	return 0;
}

/* ---- splits ---------------------------------------------------------------------- */

static int discard(struct stage *stage, char *cut, size_t size)
{
	unsigned long part = stage->race.rounds % 4 * size / 4;

	if (madvise(cut + part, size / 4, MADV_DONTNEED))
		return -errno;
	fill_pages_from(cut + part, 1, 1, CUT + part / page_size());
	return 0;
}

static int map_over(struct stage *stage, char *cut, size_t size)
{
	if (mmap(cut, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED,
		 -1, 0) != cut)
		return -errno;
	/*
	 * The same flags as the rest of the block, so that the VMAs are merged and a huge page is
	 * possible.
	 */
	if (madvise(cut, size, MADV_HUGEPAGE))
		return -errno;
	fill_pages_from(cut, CUT_PAGES / 2, 1, CUT);
	return 0;
}

/* Both ranges stay mapped all the time. */
static int remap(struct stage *stage, char *cut, size_t size)
{
	const int flags = MREMAP_MAYMOVE | MREMAP_FIXED | MREMAP_DONTUNMAP;
	unsigned long i;

	if (mremap(cut, size, size, flags, stage->elsewhere) != stage->elsewhere)
		return -errno;
	for (i = 0; i < CUT_PAGES; i++)
		if (!page_is_good((void *)(stage->elsewhere + i * page_size()), CUT + i))
			return -EBADMSG;
	return mremap(stage->elsewhere, size, size, flags, cut) == cut ? 0 : -errno;
}

static int protect(struct stage *stage, char *cut, size_t size)
{
	unsigned long i;

	if (mprotect(cut, size, PROT_READ))
		return -errno;
	for (i = 0; i < CUT_PAGES; i += 5)
		if (!page_is_good((void *)(cut + i * page_size()), CUT + i))
			return -EBADMSG;
	return mprotect(cut, size, PROT_READ | PROT_WRITE) ? -errno : 0;
}

static int cut_loop(struct stage *stage, int (*fn)(struct stage *, char *, size_t))
{
	while (!counter_get(&stage->race.stop)) {
		unsigned long look;

		wait_while_held(stage);
		look = race_look(&stage->race);
		if (!CHECK(!fn(stage, page_at(stage, CUT), CUT_PAGES * page_size())))
			return 1;
		race_met(&stage->race, look);
		counter_add(&stage->race.rounds, 1);
		usleep(500);
	}
	return 0;
}

static int discarder(void *arg)
{
	return cut_loop(arg, discard);
}

static int mapper(void *arg)
{
	return cut_loop(arg, map_over);
}

static int remapper(void *arg)
{
	return cut_loop(arg, remap);
}

static int protector(void *arg)
{
	return cut_loop(arg, protect);
}

/* ---- the race -------------------------------------------------------------------- */

/* In the order of their bits. */
static int (*const actors[])(void *) = {
	mover, part_mover, pusher, evicter,
	cpu_writer, device_writer, device_reader, forker,
	discarder, mapper, remapper, protector,
};

TEST_F_TIMEOUT(large, race, 300)
{
	unsigned long long deadline = now_ms() + 3000;
	struct stage *stage = &self->stage;
	struct race *race = &stage->race;
	struct worker workers[ACTORS];
	unsigned long i, w;
	unsigned int n = 0;

	for (w = 0; w < 2; w++)
		for (i = 0; i < SPOTS; i++)
			*word_of(race, spots[i], w + 1) = 0;
	/* At the start the block is a large folio on the device. */
	test_to_device(race->fd, race->mem, PAGES);
	if (keeps_large())
		ASSERT_TRUE(is_whole(race->fd, race->mem));
	for (i = 0; i < ARRAY_SIZE(actors); i++)
		if (variant->actors & (1U << i))
			ASSERT_EQ(0, worker_start(&workers[n++], actors[i], stage));
	ASSERT_EQ(0, worker_start(&workers[n++], renewer, stage));
	/* With all other threads running, this may take several attempts. */
	while (!counter_get(&stage->renewed) && now_ms() < deadline)
		usleep(10000);
	run_race(_metadata, race, workers, n);
	TH_LOG("whole on the device %lu times, renewed %lu times of %lu, %lu children",
	       stage->whole, stage->renewed, stage->tried, stage->children);

	for (w = 0; w < 2; w++)
		for (i = 0; i < SPOTS; i++)
			EXPECT_EQ(stage->values[w][i], *word_of(race, spots[i], w + 1));
	for (i = 0; i < PAGES; i++)
		ASSERT_TRUE(page_is_good((unsigned long *)page_at(stage, i), i));
}

int main(int argc, char **argv)
{
	return hmm_ref_test_main(argc, argv);
}
