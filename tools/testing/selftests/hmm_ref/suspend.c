// SPDX-License-Identifier: GPL-2.0-only
/*
 * The system sleeps: device memory loses power, so every page has to be evicted before, and the
 * device is empty when it resumes.
 *
 * Covers: data that is lost with the power; a device that still uses its old mappings after resume;
 * a system that cannot sleep because of device pages; pages that are evicted only after processes
 * were frozen, when memory is hard to reclaim; pages that migrate to the device again before it
 * sleeps; a device that cannot be used after a failed sleep.
 *
 * The tests do all steps of a suspend for devices and processes, but the machine stays on
 * (/sys/power/pm_test). Devices that refuse to sleep are tested in coherent.c.
 */
#include "hmm_ref_utils.h"

#define BLOCKS		2UL
#define SLEEPS		5
#define MANY_BLOCKS	16UL
#define FEW_PAGES	8UL
#define SLOW_ENGINE	"/sys/module/hmm_ref/parameters/slow_engine"
#define FAIL_COPY	"/sys/kernel/debug/hmm_ref/fail_copy/"
#define FAIL_SLEEP	"/sys/kernel/debug/hmm_ref/fail_sleep/"

FIXTURE(suspend)
{
	struct leak_check leak;
	unsigned long npages;
	int fd;
	char *mem;
};

FIXTURE_SETUP(suspend)
{
	if (!can_sleep())
		SKIP(return, "no /sys/power/pm_test (CONFIG_SUSPEND, CONFIG_PM_DEBUG)");
	leak_check_begin(_metadata, &self->leak);
	self->fd = test_open(0);
	self->npages = BLOCKS * block_pages();
	self->mem = test_map_blocks(BLOCKS);
	fill_pages(self->mem, self->npages, 1);
}

FIXTURE_TEARDOWN_PARENT(suspend)
{
	write_file(SLOW_ENGINE, "0");
	attr_disarm(FAIL_COPY);
	attr_disarm(FAIL_SLEEP);
	leak_check_end(_metadata, &self->leak);
}

/* No page is on the device, and the device works as before. */
TEST_F(suspend, resumes_empty)
{
	unsigned long npages = self->npages;
	struct hmm_ref_stats stats;

	test_to_device(self->fd, self->mem, npages);
	ASSERT_EQ(0, system_sleep());
	test_stats(self->fd, &stats);
	EXPECT_EQ(0, stats.out_pages_in_use);
	test_pages_at(self->fd, self->mem, npages, HMM_REF_PAGE_SYSTEM, npages);
	test_cpu_data(self->mem, npages, 1);

	test_to_device(self->fd, self->mem, npages);
	test_dev_data(self->fd, self->mem, npages, 1);
	audit_check(_metadata, self->fd);
}

/* The device has to fault for the pages that it had mapped, or had exclusive access to. */
TEST_F(suspend, resumes_without_mappings)
{
	unsigned long npages = 8;

	test_dev_data(self->fd, self->mem, npages, 1);
	test_exclusive(self->fd, self->mem, 1);
	test_flagged(self->fd, self->mem, npages, HMM_REF_PAGE_MAPPED, npages);
	ASSERT_EQ(0, system_sleep());
	test_flagged(self->fd, self->mem, npages, HMM_REF_PAGE_MAPPED, 0);
	test_held(self->fd, self->mem, npages, 0);
	ASSERT_EQ(0, dev_fill_pages(self->fd, self->mem, npages, 2));
	test_cpu_data(self->mem, npages, 2);
}

/* All pages have been evicted when processes are about to be frozen. */
TEST_F(suspend, pages_are_evicted_first)
{
	unsigned long npages = self->npages;

	test_to_device(self->fd, self->mem, npages);
	ASSERT_EQ(0, system_sleep_to("freeze", "freezer"));
	test_pages_at(self->fd, self->mem, npages, HMM_REF_PAGE_SYSTEM, npages);
	test_cpu_data(self->mem, npages, 1);
	test_to_device(self->fd, self->mem, npages);
	test_dev_data(self->fd, self->mem, npages, 1);
}

/* Hibernation as far as the devices, with the memory that its image would need. */
TEST_F(suspend, hibernation)
{
	unsigned long npages = self->npages;
	char states[64] = "";

	if (read_file("/sys/power/state", states, sizeof(states)) < 0 || !strstr(states, "disk"))
		SKIP(return, "no hibernation (CONFIG_HIBERNATION)");
	test_to_device(self->fd, self->mem, npages);
	ASSERT_EQ(0, system_sleep_to("disk", "devices"));
	test_pages_at(self->fd, self->mem, npages, HMM_REF_PAGE_SYSTEM, npages);
	test_cpu_data(self->mem, npages, 1);
	test_to_device(self->fd, self->mem, npages);
	test_dev_data(self->fd, self->mem, npages, 1);
}

/* ---- before processes are frozen ------------------------------------------------- */

static int go_to_sleep(void *unused)
{
	return !CHECK(!system_sleep());
}

static unsigned long __test_in_use(struct __test_metadata *_metadata, int fd)
{
	struct hmm_ref_stats stats;

	test_stats(fd, &stats);
	return stats.out_pages_in_use;
}

#define test_in_use()	__test_in_use(_metadata, self->fd)

/*
 * During the eviction no page migrates to the device: pages stay in system memory, and no task
 * waits for room.
 */
TEST_F_TIMEOUT(suspend, no_migration_to_device, 300)
{
	unsigned long npages = MANY_BLOCKS * block_pages(), in_use;
	char *other = test_map_pages(FEW_PAGES);
	char *mem = test_map_blocks(MANY_BLOCKS);
	struct hmm_ref_migrate cmd;
	pid_t pid;

	fill_pages(mem, npages, 2);
	fill_pages(other, FEW_PAGES, 3);
	test_to_device(self->fd, mem, npages);
	in_use = test_in_use();
	ASSERT_EQ(0, write_file(SLOW_ENGINE, "1000000"));
	pid = child_start(go_to_sleep, NULL);
	ASSERT_LT(0, pid);
	while (test_in_use() == in_use)
		usleep(1000);
	EXPECT_EQ(-ENOMEM, _test_migrate(self->fd, HMM_REF_TO_DEVICE, other,
					 FEW_PAGES * page_size(), &cmd));
	EXPECT_EQ(FEW_PAGES, cmd.out_skipped);
	EXPECT_LT(0, test_in_use());
	/* The CPU can access its pages, wherever they are. */
	test_cpu_data(other, FEW_PAGES, 3);
	EXPECT_TRUE(page_holds(mem + (npages - 1) * page_size(), 2, npages - 1));
	test_pages_at(self->fd, other, FEW_PAGES, HMM_REF_PAGE_SYSTEM, FEW_PAGES);
	ASSERT_EQ(0, write_file(SLOW_ENGINE, "0"));
	ASSERT_EQ(0, child_wait(pid, MEET_MS));
	EXPECT_EQ(0, test_in_use());
	test_cpu_data(mem, npages, 2);
	test_to_device(self->fd, other, FEW_PAGES);
	test_dev_data(self->fd, other, FEW_PAGES, 3);
}

/* The device gives up only when it makes no progress. */
TEST_F_TIMEOUT(suspend, slow_eviction, 300)
{
	unsigned long npages = MANY_BLOCKS * block_pages();
	char *mem = test_map_blocks(MANY_BLOCKS);

	fill_pages(mem, npages, 2);
	test_to_device(self->fd, mem, npages);
	ASSERT_EQ(0, write_file(SLOW_ENGINE, "1000000"));
	ASSERT_EQ(0, system_sleep());
	ASSERT_EQ(0, write_file(SLOW_ENGINE, "0"));
	EXPECT_EQ(0, test_in_use());
	test_cpu_data(mem, npages, 2);
}

/* ---- the system stays awake ------------------------------------------------------ */

/*
 * If a page cannot be evicted, the system stays awake, no data is lost, and the device continues.
 */
TEST_F_TIMEOUT(suspend, fails_for_a_page, 300)
{
	unsigned long npages = self->npages;
	char *other = test_map_pages(FEW_PAGES);

	if (attr_disarm(FAIL_COPY))
		SKIP(return, "no fail_copy (CONFIG_FAULT_INJECTION_DEBUG_FS)");
	fill_pages(other, FEW_PAGES, 3);
	test_to_device(self->fd, self->mem, npages);
	ASSERT_EQ(0, attr_arm(FAIL_COPY, 0, -1));
	EXPECT_EQ(-EBUSY, system_sleep());
	ASSERT_EQ(0, attr_disarm(FAIL_COPY));
	test_pages_at(self->fd, self->mem, npages, HMM_REF_PAGE_DEVICE, npages);
	test_to_device(self->fd, other, FEW_PAGES);
	test_dev_data(self->fd, other, FEW_PAGES, 3);
	test_dev_data(self->fd, self->mem, npages, 1);
	test_cpu_data(self->mem, npages, 1);
	ASSERT_EQ(0, system_sleep());
}

/*
 * Another device refuses to sleep: all pages have been evicted, and may migrate to the device
 * again.
 */
TEST_F(suspend, fails_for_another_device)
{
	unsigned long npages = self->npages;

	if (attr_disarm(FAIL_SLEEP))
		SKIP(return, "no fail_sleep (CONFIG_FAULT_INJECTION_DEBUG_FS)");
	test_to_device(self->fd, self->mem, npages);
	ASSERT_EQ(0, attr_arm(FAIL_SLEEP, 0, 1));
	EXPECT_EQ(-EBUSY, system_sleep());
	test_pages_at(self->fd, self->mem, npages, HMM_REF_PAGE_SYSTEM, npages);
	test_cpu_data(self->mem, npages, 1);
	test_to_device(self->fd, self->mem, npages);
	test_dev_data(self->fd, self->mem, npages, 1);
	ASSERT_EQ(0, system_sleep());
}

/* ---- under load ------------------------------------------------------------------ */

struct shared {
	unsigned long stop, rounds;
};

/* Runs until it is told to stop. It is frozen in between, at any point. */
static int use(void *arg)
{
	unsigned long npages = block_pages(), seed = 1;
	struct shared *shared = arg;
	int rc, fd = hmm_ref_open(0);
	char *mem = map_blocks(1);

	if (!CHECK(fd >= 0) || !CHECK(mem != MAP_FAILED))
		return 1;
	fill_pages(mem, npages, seed);
	while (!counter_get(&shared->stop)) {
		struct hmm_ref_migrate cmd;

		/* No page migrates to the device from the time when eviction begins. */
		rc = UNINTERRUPTED(_test_migrate(fd, HMM_REF_TO_DEVICE, mem,
						 npages * page_size(), &cmd));
		if (!CHECK(!rc || rc == -ENOMEM) ||
		    !CHECK(!UNINTERRUPTED(dev_bad_pages(fd, mem, npages, seed))))
			return 1;
		seed++;
		if (!CHECK(!UNINTERRUPTED(dev_fill_pages(fd, mem, npages, seed))) ||
		    !CHECK(!bad_pages(mem, npages, seed)))
			return 1;
		counter_add(&shared->rounds, 1);
	}
	return 0;
}

TEST_F(suspend, while_in_use)
{
	struct shared *shared = test_map_shared(page_size());
	unsigned long long end;
	unsigned long rounds;
	pid_t pids[2];
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(pids); i++)
		pids[i] = child_start(use, shared);
	for (i = 0; i < SLEEPS; i++) {
		rounds = counter_get(&shared->rounds);
		EXPECT_EQ(0, system_sleep());
		end = now_ms() + PATIENCE_MS;
		while (counter_get(&shared->rounds) < rounds + 2 && now_ms() < end)
			usleep(1000);
	}
	counter_set(&shared->stop, 1);
	for (i = 0; i < ARRAY_SIZE(pids); i++)
		EXPECT_EQ(0, child_wait(pids[i], PATIENCE_MS));
	EXPECT_LE(2 * SLEEPS, shared->rounds);
}

#define HUGE_RANGE	(1UL << 44)

/* A command that takes hours unless it is interrupted: pages that cannot be read stay. */
static int work_for_long(void *arg)
{
	struct shared *shared = arg;
	int fd = hmm_ref_open(0);
	char *mem = mmap(NULL, HUGE_RANGE, PROT_NONE,
			 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	struct hmm_ref_migrate cmd;
	int rc;

	if (!CHECK(fd >= 0) || !CHECK(mem != MAP_FAILED))
		return 1;
	while (!counter_get(&shared->stop)) {
		counter_add(&shared->rounds, 1);
		rc = _test_migrate(fd, HMM_REF_TO_DEVICE, mem, HUGE_RANGE, &cmd);
		if (!CHECK(rc == -EINTR) || !CHECK(cmd.out_skipped))
			return 1;
	}
	return 0;
}

/* The freezer ends the command like a signal, so it does not have to wait for it. */
TEST_F(suspend, while_a_long_command_runs)
{
	struct shared *shared = test_map_shared(page_size());
	unsigned long long end;
	unsigned int i;
	pid_t pid;

	pid = child_start(work_for_long, shared);
	for (i = 0; i < 2; i++) {
		end = now_ms() + PATIENCE_MS;
		while (counter_get(&shared->rounds) <= i && now_ms() < end)
			usleep(1000);
		usleep(100000);
		ASSERT_EQ(0, system_sleep());
	}
	counter_set(&shared->stop, 1);
	ASSERT_EQ(0, system_sleep());
	EXPECT_EQ(0, child_wait(pid, PATIENCE_MS));
	EXPECT_LE(2, shared->rounds);
}

int main(int argc, char **argv)
{
	return hmm_ref_test_main(argc, argv);
}
