// SPDX-License-Identifier: GPL-2.0-only
/*
 * AUDIT and STATS agree, and their counts add up, at rest and while pages are allocated and freed.
 * debugfs shows the same. A page that is reported as bad is retired and never allocated again.
 *
 * Covers: counters that drift (one count per huge page, or per attempt); an audit that reports
 * violations where there are none, while other tasks allocate and free pages.
 */
#include "hmm_ref_utils.h"

#define PAGES		64UL
#define DEBUGFS		"/sys/kernel/debug/hmm_ref/hmm_ref0/"

FIXTURE(audit)
{
	struct leak_check leak;
	int fd;
	char *mem;
};

FIXTURE_SETUP(audit)
{
	leak_check_begin(_metadata, &self->leak);
	self->fd = test_open(0);
	self->mem = test_map_pages(PAGES);
	fill_pages(self->mem, PAGES, 1);
}

FIXTURE_TEARDOWN_PARENT(audit)
{
	leak_check_end(_metadata, &self->leak);
}

static void __test_sound(struct __test_metadata *_metadata, int fd)
{
	struct hmm_ref_audit a;

	test_audit(fd, &a);
	EXPECT_EQ(a.out_total, a.out_free + a.out_in_use + a.out_retired);
	EXPECT_GE(a.out_in_use, a.out_pending);
	EXPECT_EQ(a.out_violations, a.out_bad_ref + a.out_bad_lock + a.out_bad_map +
				    a.out_bad_owner + a.out_bad_both + a.out_bad_count);
	EXPECT_EQ(0, a.out_violations) {
		TH_LOG("ref %llu lock %llu map %llu owner %llu both %llu count %llu",
		       a.out_bad_ref, a.out_bad_lock, a.out_bad_map, a.out_bad_owner,
		       a.out_bad_both, a.out_bad_count);
	}
}

#define test_sound()	__test_sound(_metadata, self->fd)

/* With no other task at work, both are exact and equal. */
static void __test_agree(struct __test_metadata *_metadata, int fd)
{
	struct hmm_ref_stats stats;
	struct hmm_ref_audit audit;

	test_stats(fd, &stats);
	test_audit(fd, &audit);
	EXPECT_EQ(stats.out_pages_total, audit.out_total);
	EXPECT_EQ(stats.out_pages_in_use, audit.out_in_use);
	EXPECT_EQ(stats.out_pages_retired, audit.out_retired);
	EXPECT_EQ(0, audit.out_pending);
	EXPECT_LE(audit.out_in_use, stats.out_storage_pages);
	EXPECT_LE(stats.out_pages_client, stats.out_pages_in_use);
	EXPECT_EQ(0, stats.out_pages_reserved);
}

#define test_agree()	__test_agree(_metadata, self->fd)

TEST_F(audit, agrees_with_stats)
{
	struct hmm_ref_audit before, after;

	test_to_device(self->fd, self->mem, PAGES);
	test_agree();
	test_sound();
	test_audit(self->fd, &before);
	ASSERT_EQ(0, munmap(self->mem, PAGES / 2 * page_size()));
	test_audit(self->fd, &after);
	EXPECT_EQ(PAGES / 2, before.out_in_use - after.out_in_use);
	EXPECT_EQ(PAGES / 2, after.out_free - before.out_free);
	test_agree();
	test_sound();
}

/* Each operation changes its own counters and no others. */
TEST_F(audit, counters)
{
	struct hmm_ref_stats s0, s1;

	test_stats(self->fd, &s0);
	test_to_device(self->fd, self->mem, PAGES);
	test_to_system(self->fd, self->mem, PAGES / 2);
	test_dev_data(self->fd, self->mem, PAGES, 1);
	touch_write(self->mem + (PAGES - 1) * page_size(), 0);
	test_stats(self->fd, &s1);

	EXPECT_EQ(PAGES, s1.out_to_device - s0.out_to_device);
	EXPECT_EQ(PAGES / 2, s1.out_to_system - s0.out_to_system);
	EXPECT_EQ(1, s1.out_cpu_faults - s0.out_cpu_faults);
	EXPECT_LE(1, s1.out_fault_pages - s0.out_fault_pages);
	EXPECT_EQ(0, s1.out_evicted - s0.out_evicted);
	EXPECT_LT(0, s1.out_device_faults - s0.out_device_faults);
	EXPECT_LT(0, s1.out_invalidations - s0.out_invalidations);
	EXPECT_EQ(s1.out_pages_client, PAGES - PAGES / 2 -
		  (s1.out_fault_pages - s0.out_fault_pages));
}

/* ---- while other tasks run ------------------------------------------------------- */

static int busy_main(void *arg)
{
	unsigned long *stop = arg;
	char *mem = map_pages(PAGES);
	struct hmm_ref_migrate cmd;
	int fd = hmm_ref_open(0);

	fill_pages(mem, PAGES, 2);
	while (!counter_get(stop)) {
		if (!CHECK(!_test_migrate(fd, HMM_REF_TO_DEVICE, mem,
					  PAGES * page_size(), &cmd)) ||
		    !CHECK(!bad_pages(mem, PAGES / 2, 2)))
			return 1;
		madvise(mem + PAGES / 2 * page_size(), PAGES / 4 * page_size(),
			MADV_DONTNEED);
		counter_add(&stop[1], 1);
	}
	return 0;
}

TEST_F(audit, no_false_alarm)
{
	unsigned long *shared = test_map_shared(page_size());
	unsigned long long deadline = now_ms() + 2000;
	unsigned long audits = 0;
	pid_t pid[3];
	int i;

	for (i = 0; i < 3; i++)
		pid[i] = child_start(busy_main, shared);
	while (now_ms() < deadline || !counter_get(&shared[1])) {
		ASSERT_GT(deadline + PATIENCE_MS, now_ms());
		test_sound();
		audits++;
	}
	counter_set(shared, 1);
	for (i = 0; i < 3; i++)
		ASSERT_EQ(0, child_wait(pid[i], 2 * PATIENCE_MS));
	TH_LOG("%lu audits, %lu rounds of the others", audits, shared[1]);
	test_agree();
}

/* ---- debugfs --------------------------------------------------------------------- */

static bool have_debugfs(void)
{
	if (!access(DEBUGFS "audit", R_OK))
		return true;
	/* In an initramfs, debugfs may not be mounted. */
	syscall(SYS_mount, "debugfs", "/sys/kernel/debug", "debugfs", 0, NULL);
	return !access(DEBUGFS "audit", R_OK);
}

TEST_F(audit, debugfs)
{
	char text[4096], *line;

	if (!have_debugfs())
		SKIP(return, "no " DEBUGFS " (CONFIG_DEBUG_FS)");
	test_to_device(self->fd, self->mem, PAGES);
	ASSERT_LT(0, read_file(DEBUGFS "audit", text, sizeof(text)));
	line = strstr(text, "violations");
	ASSERT_NE(NULL, line) TH_LOG("audit file: %s", text);
	line += strlen("violations ");
	ASSERT_NE(0, isdigit(*line));
	ASSERT_EQ(0, strtoul(line, NULL, 10));
}

static int retire(unsigned long dpfn)
{
	char text[32];

	snprintf(text, sizeof(text), "%lu", dpfn);
	return write_file(DEBUGFS "retire", text);
}

/* A free page is retired at once, unless it was retired before. */
TEST_F(audit, retire_free_page)
{
	struct hmm_ref_audit before, after;
	unsigned long dpfn, tries;

	if (!have_debugfs() || access(DEBUGFS "retire", W_OK))
		SKIP(return, "no " DEBUGFS "retire (CONFIG_DEBUG_FS)");
	test_to_device(self->fd, self->mem, PAGES);
	test_to_system(self->fd, self->mem, PAGES);
	test_audit(self->fd, &before);
	ASSERT_LT(0, before.out_free);
	dpfn = before.out_total;
	for (tries = 0; tries < PAGES; tries++) {
		ASSERT_EQ(0, retire(--dpfn));
		test_audit(self->fd, &after);
		if (after.out_retired != before.out_retired)
			break;
	}
	EXPECT_EQ(before.out_total, after.out_total);
	EXPECT_EQ(before.out_retired + 1, after.out_retired);
	EXPECT_EQ(before.out_free - 1, after.out_free);
	/* Retiring a page twice has no further effect. */
	ASSERT_EQ(0, retire(dpfn));
	test_audit(self->fd, &before);
	EXPECT_EQ(after.out_retired, before.out_retired);
	test_sound();
	test_agree();
}

/* For a page number that does not exist, retiring fails and retires nothing. */
TEST_F(audit, retire_nothing)
{
	struct hmm_ref_audit before, after;

	if (!have_debugfs() || access(DEBUGFS "retire", W_OK))
		SKIP(return, "no " DEBUGFS "retire (CONFIG_DEBUG_FS)");
	test_to_device(self->fd, self->mem, PAGES);
	test_audit(self->fd, &before);
	EXPECT_NE(0, retire(hmm_ref_dev_info.out_capacity / page_size()));
	EXPECT_NE(0, retire(~0UL));
	EXPECT_NE(0, retire(1UL << 52));
	test_audit(self->fd, &after);
	EXPECT_EQ(before.out_retired, after.out_retired);
	test_sound();
}

/* A used page is retired when it is freed. Its data is not harmed. */
TEST_F(audit, retire_used_pages)
{
	unsigned long npages = block_pages(), i;
	char *mem = test_map_pages(npages);
	struct hmm_ref_audit before, after;

	if (!have_debugfs() || access(DEBUGFS "retire", W_OK))
		SKIP(return, "no " DEBUGFS "retire (CONFIG_DEBUG_FS)");
	fill_pages(mem, npages, 3);
	test_to_device(self->fd, mem, npages);
	test_audit(self->fd, &before);

	/* A few page numbers, far apart: some pages are in use, some may be free. */
	for (i = 0; i < 4; i++)
		retire(i * (block_pages() / 4) + 3);
	test_sound();
	test_dev_data(self->fd, mem, npages, 3);
	ASSERT_EQ(0, munmap(mem, npages * page_size()));

	/* All four pages are free now, and so retired, unless they were retired before. */
	test_audit(self->fd, &after);
	EXPECT_LE(after.out_retired - before.out_retired, 4);
	EXPECT_LE(4, after.out_retired);
	test_sound();

	/* Retired pages are never allocated again, even when the device is full. */
	mem = test_map_pages(npages);
	test_to_device(self->fd, mem, npages);
	test_audit(self->fd, &before);
	EXPECT_EQ(after.out_retired, before.out_retired);
	EXPECT_EQ(npages, before.out_in_use - after.out_in_use);
	test_sound();
	test_agree();
}

int main(int argc, char **argv)
{
	return hmm_ref_test_main(argc, argv);
}
