// SPDX-License-Identifier: GPL-2.0-only
/*
 * Eviction of pages in mappings that are unusual, or going away.
 *
 * of_a_process_that_ends: while a page migrates it has no mapping, so nothing keeps its anon_vma
 * alive. If the eviction does not (migrate_device_range() and migrate_device_pfns() do not), the
 * core follows a freed pointer when it finishes. Found by the fuzzer, as KASAN: slab-use-after-free
 * in rmap_walk_anon(). Only KASAN detects it.
 *
 * The step is short. The evicting task has a low priority on a busy CPU, so that it is interrupted
 * anywhere, for longer than the freeing of an anon_vma takes. It shares the table of files of the
 * exiting processes, and evicts all pages of each file, again and again.
 *
 * of_a_private_file: data written to a private file mapping is anonymous memory, and 7.3 indexes it
 * by address instead of by file offset. A lookup at the wrong index never found such pages: they
 * stayed on the device, which could not be unbound. Also found by the fuzzer.
 */
#include <sys/resource.h>

#include "hmm_ref_utils.h"

#define PAGES		250
#define VICTIMS		2	/* processes that have their pages evicted */

FIXTURE(evict)
{
	struct leak_check leak;
	struct shared {
		unsigned long stop;
		unsigned long ended;	/* victims that had their pages on the device */
		unsigned long met;	/* of these, those that ended during an eviction */
		unsigned long running;
		unsigned long fds[VICTIMS];	/* files of the current victims, or 0 */
	} *shared;
};

FIXTURE_SETUP(evict)
{
	self->shared = test_map_shared(page_size());
	leak_check_begin(_metadata, &self->leak);
}

FIXTURE_TEARDOWN(evict)
{
	leak_check_end(_metadata, &self->leak);
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
	struct hmm_ref_evict_all cmd = { .size = sizeof(cmd) };
	struct shared *shared = arg;
	unsigned int i = 0;
	int rc = 0;

	run_on_cpu(1);
	setpriority(PRIO_PROCESS, gettid(), 10);
	/* The file may have been closed. */
	while (!counter_get(&shared->stop) && (!rc || rc == -EBADF)) {
		int fd = counter_get(&shared->fds[i++ % VICTIMS]);

		if (fd) {
			counter_set(&shared->running, 1);
			rc = _test_ioctl(fd, HMM_REF_IOC_EVICT_ALL, &cmd);
			counter_set(&shared->running, 0);
		}
		usleep(100);
	}
	return !CHECK(!rc || rc == -EBADF);
}

struct maker {
	struct shared *shared;
	unsigned long *fd;	/* its element of fds */
};

static int victim(struct maker *maker)
{
	struct shared *shared = maker->shared;
	struct hmm_ref_migrate cmd;
	int fd = hmm_ref_open(0);
	char *mem = map_pages(PAGES);

	if (!CHECK(fd >= 0) || !CHECK(mem != MAP_FAILED))
		return 1;
	counter_set(maker->fd, fd);
	touch_write(mem, PAGES);
	/* Some pages may already have been evicted. */
	if (!CHECK(!_test_migrate(fd, HMM_REF_TO_DEVICE, mem, PAGES * page_size(), &cmd)))
		return 1;
	usleep(rand() % 5000);
	counter_add(&shared->ended, 1);
	counter_add(&shared->met, counter_get(&shared->running));
	return 0;
}

static int make_victims(void *arg)
{
	struct maker *maker = arg;
	unsigned long fd;
	int status;
	pid_t pid;

	run_on_cpu(0);
	while (!counter_get(&maker->shared->stop)) {
		pid = syscall(__NR_clone, CLONE_FILES | SIGCHLD, NULL, NULL, NULL, NULL);
		if (!pid)
			_exit(victim(maker));
		if (!CHECK(pid > 0) || !CHECK(waitpid(pid, &status, 0) == pid) ||
		    !CHECK(!status))
			return 1;
		/* The file belongs to a process that has exited. */
		fd = counter_get(maker->fd);
		counter_set(maker->fd, 0);
		close(fd);
	}
	return 0;
}

TEST_F(evict, of_a_process_that_ends)
{
	unsigned long long end = now_ms() + 1000 * env_number("HMM_REF_SECONDS", 5);
	struct shared *shared = self->shared;
	struct maker makers[VICTIMS];
	struct worker workers[1 + VICTIMS];
	unsigned int i;
	cpu_set_t cpus;
	pid_t pid;

	if (sched_getaffinity(0, sizeof(cpus), &cpus) || CPU_COUNT(&cpus) < 2)
		SKIP(return, "needs two CPUs");
	pid = child_start(hog, shared);
	ASSERT_EQ(0, worker_start(&workers[VICTIMS], evict, shared));
	for (i = 0; i < VICTIMS; i++) {
		makers[i].shared = shared;
		makers[i].fd = &shared->fds[i];
		ASSERT_EQ(0, worker_start(&workers[i], make_victims, &makers[i]));
	}
	while (now_ms() < end)
		usleep(10000);
	counter_set(&shared->stop, 1);
	for (i = 0; i < ARRAY_SIZE(workers); i++)
		EXPECT_EQ(0, worker_wait(&workers[i]));
	EXPECT_EQ(0, child_wait(pid, 2 * PATIENCE_MS));
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
	EXPECT_EQ(0, _test_evict_all(fd));
	ASSERT_EQ(0, _test_stats(fd, &stats));
	EXPECT_EQ(0, stats.out_pages_in_use);
	EXPECT_EQ(0x5a, mem[0]);
	EXPECT_EQ(0x5a, mem[size - 1]);
	munmap(mem, size);
	close(file);
	close(fd);
}

/* As many VMAs as pages, whose pages are neighbours on the device. One pass has to evict all. */
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
	EXPECT_EQ(0, _test_evict_all(fd));
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
