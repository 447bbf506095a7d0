// SPDX-License-Identifier: GPL-2.0-only
/*
 * The device page table and a range that changes during a device fault.
 *
 * A device fault looks up the process's pages and then puts them into the device page table. Pages
 * that are invalidated between these two steps must not be entered: no later invalidation would
 * remove them, and the device would use a page that has been freed.
 *
 * One thread changes the pages and then leaves them alone. Another one lets the device read them
 * all the time. A read that begins and ends between two changes has to see the last value in every
 * page. After a fault at the wrong time, it does not.
 *
 * Covers: an entry made without a check for an invalidation; the driver's own migrations that do
 * not count as invalidations; two opens of one device, of which the second is not notified.
 *
 * Device faults that found the range changed, and were retried, prove that the two sides have met.
 *
 * HMM_REF_SECONDS is how long each variant lasts (default 2).
 */
#include "hmm_ref_huge.h"

#define PAGES	16UL

enum change { DISCARD, MIGRATE, MIGRATE_AND_TOUCH, REMAP };

struct stage {
	int fd, fd2;		/* of the reader and of the changer */
	char *mem;
	unsigned long distance;	/* bytes between two pages that are written */
	bool large;
	unsigned long whole;	/* changes that found a huge page */
	unsigned long stop;
	unsigned long seq;	/* odd during a change */
	unsigned long value;	/* value of every page while seq is even */
	unsigned long checked;	/* last seq at which a read was right */
	unsigned long reads;	/* reads that no change overlapped */
	unsigned long faults;
};

static unsigned long *word_of(struct stage *stage, unsigned long page)
{
	return (unsigned long *)(stage->mem + page * stage->distance);
}

static int cpu_writes(struct stage *stage, unsigned long value)
{
	unsigned long i;

	for (i = 0; i < PAGES; i++)
		counter_set(word_of(stage, i), value);
	return 0;
}

FIXTURE(stale)
{
	struct leak_check leak;
	struct stage stage;
};

FIXTURE_VARIANT(stale)
{
	enum change change;
	bool shared_file;	/* the changer uses the reader's file */
	bool large;		/* a huge page */
};

FIXTURE_VARIANT_ADD(stale, discard) { .change = DISCARD };
FIXTURE_VARIANT_ADD(stale, migrate) { .change = MIGRATE };
FIXTURE_VARIANT_ADD(stale, migrate_one_file) { .change = MIGRATE, .shared_file = true };
FIXTURE_VARIANT_ADD(stale, migrate_and_touch) { .change = MIGRATE_AND_TOUCH };
FIXTURE_VARIANT_ADD(stale, remap) { .change = REMAP };
FIXTURE_VARIANT_ADD(stale, large_discard) { .change = DISCARD, .large = true };
FIXTURE_VARIANT_ADD(stale, large_migrate) { .change = MIGRATE, .large = true };
FIXTURE_VARIANT_ADD(stale, large_migrate_and_touch) { .change = MIGRATE_AND_TOUCH,
						      .large = true };

FIXTURE_SETUP(stale)
{
	leak_check_begin(_metadata, &self->leak);
	self->stage.fd = test_open(0);
	self->stage.fd2 = variant->shared_file ? self->stage.fd : test_open(0);
	self->stage.distance = page_size();
	self->stage.large = variant->large;
	if (variant->large) {
		if (!keeps_large())
			SKIP(return, "this kernel splits what goes to a device");
		self->stage.distance = block_size() / PAGES;
		self->stage.mem = map_variant(self->stage.fd, true);
		if (!self->stage.mem)
			SKIP(return, "no huge page can be allocated");
	} else {
		self->stage.mem = test_map_pages(PAGES);
	}
	cpu_writes(&self->stage, 0);
}

FIXTURE_TEARDOWN_PARENT(stale)
{
	leak_check_end(_metadata, &self->leak);
}

/* Returns the number of bytes from the first word to the last. */
static unsigned long span(const struct stage *stage)
{
	return (PAGES - 1) * stage->distance + sizeof(long);
}

static bool all_are(const struct stage *stage, const char *buf, unsigned long value)
{
	unsigned long i, word;

	for (i = 0; i < PAGES; i++) {
		memcpy(&word, buf + i * stage->distance, sizeof(word));
		if (word == value)
			continue;
		fprintf(stderr, "# page %lu: the device reads %lu, and it is %lu\n",
			i, word, value);
		return false;
	}
	return true;
}

static int reader_main(void *arg)
{
	struct stage *stage = arg;
	char *buf = malloc(span(stage));
	unsigned long seq, value;
	struct hmm_ref_access cmd;
	int rc = !CHECK(buf);

	while (!rc && !counter_get(&stage->stop)) {
		seq = counter_get(&stage->seq);
		value = counter_get(&stage->value);
		rc = _test_access(stage->fd, HMM_REF_IOC_READ, stage->mem, span(stage), buf,
				  &cmd);
		stage->faults += cmd.out_faults;
		/* The range may change all the time, and be unmapped for a moment. */
		if ((rc == -EBUSY || rc == -EFAULT) &&
		    (seq & 1 || counter_get(&stage->seq) != seq))
			rc = 0;
		else if (!CHECK(!rc))
			break;
		if ((seq & 1) || counter_get(&stage->seq) != seq)
			continue;
		if (!CHECK(all_are(stage, buf, value)))
			rc = 1;
		counter_add(&stage->reads, 1);
		counter_set(&stage->checked, seq);
		while (counter_get(&stage->seq) == seq && !counter_get(&stage->stop))
			sched_yield();
	}
	free(buf);
	return rc != 0;
}

static int device_writes(struct stage *stage, unsigned long value)
{
	unsigned long long deadline = now_ms() + PATIENCE_MS;
	unsigned long i;
	int rc = 0;

	for (i = 0; i < PAGES && !rc; i++) {
		do {
			rc = _test_write(stage->fd2, word_of(stage, i), sizeof(value), &value);
		} while (rc == -EBUSY && now_ms() < deadline);
	}
	return rc;
}

static unsigned long count_retries(struct stage *stage)
{
	struct hmm_ref_stats stats;

	return _test_stats(stage->fd, &stats) ? 0 : stats.out_retries;
}

/* Waits long enough for the reader's fault to be in any step. */
static void dawdle(unsigned int *random)
{
	unsigned long n = random_next(random) % 3000;

	while (n--)
		counter_get(&n);
}

static int change(struct stage *stage, enum change how, unsigned long value,
		  unsigned int *random)
{
	struct hmm_ref_migrate cmd;
	unsigned long size = PAGES * stage->distance;
	int rc = 0;

	if (stage->large && order_at(stage->fd2, stage->mem) == HUGE_ORDER) {
		stage->whole++;
	} else if (stage->large) {
		if (madvise(stage->mem, size, MADV_DONTNEED))
			return -errno;
		cpu_writes(stage, value - 1);
	}
	switch (how) {
	case DISCARD:
		rc = madvise(stage->mem, size, MADV_DONTNEED);
		dawdle(random);
		rc |= madvise(stage->mem, size, MADV_DONTNEED);
		return rc ? rc : cpu_writes(stage, value);
	case REMAP:
		rc = mmap(stage->mem, size, PROT_READ | PROT_WRITE, MAP_PRIVATE |
			  MAP_ANONYMOUS | MAP_FIXED, -1, 0) == MAP_FAILED;
		dawdle(random);
		return rc ? rc : cpu_writes(stage, value);
	case MIGRATE:
		rc = _test_migrate(stage->fd2, value & 1 ? HMM_REF_TO_DEVICE :
				   HMM_REF_TO_SYSTEM, stage->mem, size, &cmd);
		dawdle(random);
		return rc ? rc : device_writes(stage, value);
	case MIGRATE_AND_TOUCH:
		rc = _test_migrate(stage->fd2, HMM_REF_TO_DEVICE, stage->mem, size, &cmd);
		dawdle(random);
		return rc ? rc : cpu_writes(stage, value);
	}
	return rc;
}

TEST_F(stale, mapping)
{
	unsigned long long end = now_ms() + 1000 * env_number("HMM_REF_SECONDS", 2);
	unsigned int random = random_seed("HMM_REF_SEED");
	unsigned long long meet = end + 6000, deadline;
	struct stage *stage = &self->stage;
	unsigned long retries = count_retries(stage);
	struct worker worker;
	unsigned long value;
	/*
	 * READ and WRITE of a file exclude each other, so with one file the two sides seldom meet.
	 */
	bool met = variant->shared_file;
	int rc = 0;

	ASSERT_EQ(0, worker_start(&worker, reader_main, stage));
	for (value = 1; !rc && (now_ms() < end || (!met && now_ms() < meet)); value++) {
		counter_add(&stage->seq, 1);
		rc = change(stage, variant->change, value, &random);
		counter_set(&stage->value, value);
		counter_add(&stage->seq, 1);
		deadline = now_ms() + PATIENCE_MS;
		while (!rc && counter_get(&stage->checked) != stage->seq) {
			if (now_ms() > deadline)
				rc = -ETIMEDOUT;
			sched_yield();
		}
		met |= count_retries(stage) != retries;
	}
	counter_set(&stage->stop, 1);
	/* Failures must not be reported as skipped. */
	ASSERT_EQ(0, worker_wait(&worker));
	ASSERT_EQ(0, rc);
	ASSERT_LT(0, stage->reads);
	ASSERT_LT(0, stage->faults);
	TH_LOG("%lu changes, %lu quiet reads, %lu device faults, of these repeated %lu", value,
	       stage->reads, stage->faults, count_retries(stage) - retries);
	if (variant->large) {
		TH_LOG("%lu changes of a huge page", stage->whole);
		ASSERT_LT(0, stage->whole);
	}
	if (!met)
		SKIP(return, "no fault of the device met a change");
}

int main(int argc, char **argv)
{
	return hmm_ref_test_main(argc, argv);
}
