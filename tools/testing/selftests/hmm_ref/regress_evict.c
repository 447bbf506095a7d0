// SPDX-License-Identifier: GPL-2.0-only
/*
 * Eviction, and whose pages they are.
 *
 * of_a_process_that_ends: while a page migrates it has no mapping, so nothing of it keeps
 * its anon_vma. An eviction that does not see to that (migrate_device_range() and
 * migrate_device_pfns() do not) has the core follow a freed pointer when it finishes. Found
 * by the fuzzer, as KASAN: slab-use-after-free in rmap_walk_anon(). It takes KASAN to see.
 *
 * The step is short. Whoever evicts has a low priority on a CPU that is busy, and is
 * interrupted at any place for longer than an anon_vma takes to be freed. It evicts by
 * RELEASE of the old interface, again and again.
 *
 * of_a_private_file: what is written to a private mapping of a file is anonymous memory, and
 * 7.3 numbers it by address, not by its place in the file. Looked for in the wrong place, such
 * pages never left: the device could not be unbound. Found by the fuzzer, too.
 */
#include <sys/resource.h>

#include "hmm_ref_old.h"
#include "hmm_ref_utils.h"

#define PAGES		250
#define VICTIMS		2	/* processes that make them */

FIXTURE(evict)
{
	struct leak_check leak;
	struct shared {
		unsigned long stop;
		unsigned long ended;	/* victims that had their pages on the device */
		unsigned long met;	/* of these, those that ended during an eviction */
		unsigned long running;
		int fd;			/* of the old interface */
	} *shared;
};

FIXTURE_SETUP(evict)
{
	self->shared = test_map_shared(page_size());
	self->shared->fd = old_open(0);
	if (self->shared->fd < 0)
		SKIP(return, "no /dev/hmm_dmirror0");
	leak_check_begin(_metadata, &self->leak);
}

FIXTURE_TEARDOWN(evict)
{
	leak_check_end(_metadata, &self->leak);
	close(self->shared->fd);
}

static int hog(void *arg)
{
	struct shared *shared = arg;

	run_on_cpu(1);
	while (!counter_get(&shared->stop))
		;
	return 0;
}

static int evict(void *arg)
{
	struct shared *shared = arg;
	int rc = 0;

	run_on_cpu(1);
	setpriority(PRIO_PROCESS, 0, 10);
	while (!counter_get(&shared->stop) && (!rc || rc == -EBUSY)) {
		counter_set(&shared->running, 1);
		rc = old_release(shared->fd);
		counter_set(&shared->running, 0);
		usleep(100);
	}
	return !CHECK(!rc || rc == -EBUSY);
}

static int victim(void *arg)
{
	struct shared *shared = arg;
	struct hmm_ref_migrate cmd;
	int fd = hmm_ref_open(0);
	char *mem = map_pages(PAGES);

	if (!CHECK(fd >= 0) || !CHECK(mem != MAP_FAILED))
		return 1;
	touch_write(mem, PAGES);
	/* Some are on their way back already. */
	if (!CHECK(!_test_migrate(fd, HMM_REF_TO_DEVICE, mem, PAGES * page_size(), &cmd)))
		return 1;
	usleep(rand() % 5000);
	counter_add(&shared->ended, 1);
	counter_add(&shared->met, counter_get(&shared->running));
	return 0;
}

static int make_victims(void *arg)
{
	struct shared *shared = arg;

	run_on_cpu(0);
	srand(getpid());
	while (!counter_get(&shared->stop)) {
		if (!CHECK(!child_wait(child_start(victim, arg), PATIENCE_MS)))
			return 1;
		rand();
	}
	return 0;
}

TEST_F_TIMEOUT(evict, of_a_process_that_ends, LONG_TEST)
{
	unsigned long long end = now_ms() + 1000 * env_number("HMM_REF_SECONDS", 5);
	struct shared *shared = self->shared;
	pid_t pids[2 + VICTIMS];
	unsigned int i;
	cpu_set_t cpus;

	if (sched_getaffinity(0, sizeof(cpus), &cpus) || CPU_COUNT(&cpus) < 2)
		SKIP(return, "needs two CPUs");
	pids[0] = child_start(hog, shared);
	pids[1] = child_start(evict, shared);
	for (i = 2; i < ARRAY_SIZE(pids); i++)
		pids[i] = child_start(make_victims, shared);
	while (now_ms() < end)
		usleep(10000);
	counter_set(&shared->stop, 1);
	for (i = 0; i < ARRAY_SIZE(pids); i++)
		EXPECT_EQ(0, child_wait(pids[i], 2 * PATIENCE_MS));
	TH_LOG("%lu processes, %lu of them ended during an eviction", shared->ended, shared->met);
	EXPECT_LT(0, shared->met);
}

TEST_F(evict, of_a_private_file)
{
	int file = memfd_create("private", MFD_CLOEXEC), fd = hmm_ref_open(0);
	const size_t size = 4 * page_size();
	struct hmm_ref_migrate cmd;
	struct hmm_ref_stats stats;
	char *mem;

	ASSERT_LE(0, fd);
	ASSERT_LE(0, file);
	ASSERT_EQ(0, ftruncate(file, 2 * size));
	mem = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE, file, size);
	ASSERT_NE(MAP_FAILED, mem);
	memset(mem, 0x5a, size);
	ASSERT_EQ(0, _test_migrate_all(fd, HMM_REF_TO_DEVICE, mem, 4, &cmd));
	ASSERT_EQ(0, _test_stats(fd, &stats));
	EXPECT_EQ(4, stats.out_pages_in_use);
	EXPECT_EQ(0, old_release(self->shared->fd));
	ASSERT_EQ(0, _test_stats(fd, &stats));
	EXPECT_EQ(0, stats.out_pages_in_use);
	EXPECT_EQ(0x5a, mem[0]);
	EXPECT_EQ(0x5a, mem[size - 1]);
	munmap(mem, size);
	close(file);
	close(fd);
}

/* As many VMAs as pages, side by side on the device. One pass has to be enough. */
TEST_F(evict, of_many_mappings)
{
	const unsigned long npages = 256;
	char *mem = test_map_pages(npages);
	struct hmm_ref_stats stats;
	int fd = test_open(0);
	unsigned long i;

	fill_pages(mem, npages, 1);
	test_to_device(fd, mem, npages);
	for (i = 0; i < npages; i += 2)
		ASSERT_EQ(0, mprotect(mem + i * page_size(), page_size(), PROT_READ));
	EXPECT_EQ(0, old_release(self->shared->fd));
	test_stats(fd, &stats);
	EXPECT_EQ(0, stats.out_pages_in_use);
	test_cpu_data(mem, npages, 1);
	munmap(mem, npages * page_size());
	close(fd);
}

int main(int argc, char **argv)
{
	return hmm_ref_test_main(argc, argv);
}
