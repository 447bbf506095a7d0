// SPDX-License-Identifier: GPL-2.0-only
/*
 * Files are closed, and processes exit, crash or are killed, while their pages are on the device or
 * being migrated. Other processes lose no data, and the device gets every page back.
 *
 * Covers: a device page that refers to its file after the file was closed (a CPU fault or a core
 * dump then uses freed memory); a close that evicts pages of other processes; pages that are never
 * freed; a command that cannot be killed.
 *
 * HMM_REF_ROUNDS scales the stress test (default 100), HMM_REF_SEED repeats it.
 */
#include <linux/elf.h>
#include <sys/resource.h>

#include "hmm_ref_utils.h"

#define PAGES	64UL

FIXTURE(lifetime)
{
	struct leak_check leak;
	int fd;
	char *mem;
};

FIXTURE_SETUP(lifetime)
{
	leak_check_begin(_metadata, &self->leak);
	self->fd = test_open(0);
	self->mem = test_map_pages(PAGES);
	fill_pages(self->mem, PAGES, 1);
	test_to_device(self->fd, self->mem, PAGES);
}

FIXTURE_TEARDOWN_PARENT(lifetime)
{
	leak_check_end(_metadata, &self->leak);
}

TEST_F(lifetime, close_then_read)
{
	close(self->fd);
	test_cpu_data(self->mem, PAGES, 1);
}

TEST_F(lifetime, close_then_write)
{
	close(self->fd);
	fill_pages(self->mem, PAGES, 2);
	test_cpu_data(self->mem, PAGES, 2);
}

/* The pages stay on the device, and the next open can use them. */
TEST_F(lifetime, close_and_reopen)
{
	struct hmm_ref_stats stats;
	int i;

	for (i = 0; i < 10; i++) {
		ASSERT_EQ(0, close(self->fd));
		self->fd = test_open(0);
		test_dev_data(self->fd, self->mem, PAGES, i + 1);
		ASSERT_EQ(0, dev_fill_pages(self->fd, self->mem, PAGES, i + 2));
		test_stats(self->fd, &stats);
		EXPECT_EQ(0, stats.out_pages_client);
	}
	test_to_system(self->fd, self->mem, PAGES);
	test_cpu_data(self->mem, PAGES, 11);
}

static int read_all(void *arg)
{
	return !CHECK(!bad_pages(arg, PAGES, 1));
}

TEST_F(lifetime, close_then_fork)
{
	close(self->fd);
	ASSERT_EQ(0, child_run(read_all, self->mem));
	test_cpu_data(self->mem, PAGES, 1);
}

/* Unmapping frees pages while the file is open. */
TEST_F(lifetime, unmap_frees_pages)
{
	struct hmm_ref_stats before, after;

	test_stats(self->fd, &before);
	EXPECT_EQ(PAGES, before.out_pages_client);
	ASSERT_EQ(0, munmap(self->mem, PAGES / 2 * page_size()));
	test_stats(self->fd, &after);
	EXPECT_EQ(PAGES / 2, after.out_pages_client);
	EXPECT_EQ(PAGES / 2, before.out_pages_in_use - after.out_pages_in_use);
	ASSERT_EQ(0, munmap(self->mem + PAGES / 2 * page_size(), PAGES / 2 * page_size()));
	test_stats(self->fd, &after);
	EXPECT_EQ(0, after.out_pages_client);
}

/* Closing one file does not affect the pages of another. */
TEST_F(lifetime, close_is_no_eviction)
{
	struct hmm_ref_stats before, after;
	int other = test_open(0);

	test_stats(self->fd, &before);
	close(other);
	test_stats(self->fd, &after);
	EXPECT_EQ(before.out_pages_in_use, after.out_pages_in_use);
	test_pages_at(self->fd, self->mem, PAGES, HMM_REF_PAGE_DEVICE, PAGES);
}

struct neighbour {
	int ready, go;
};

/* Another process with pages on the device, until it is told to exit. */
static int neighbour_main(void *arg)
{
	struct neighbour *n = arg;
	struct hmm_ref_migrate cmd;
	char *mem = map_pages(PAGES);
	int fd = hmm_ref_open(0);

	fill_pages(mem, PAGES, 2);
	if (!CHECK(!_test_migrate_all(fd, HMM_REF_TO_DEVICE, mem, PAGES, &cmd)))
		return 1;
	event_post(n->ready);
	return !CHECK(event_wait(n->go)) ||
	       !CHECK(pages_at(fd, mem, PAGES, HMM_REF_PAGE_DEVICE) == (long)PAGES) ||
	       !CHECK(!dev_bad_pages(fd, mem, PAGES, 2)) ||
	       !CHECK(!bad_pages(mem, PAGES, 2));
}

/* Closing the file of a client with pages evicts none, not even its own. */
TEST_F(lifetime, close_leaves_all_pages)
{
	struct neighbour n = { event_new(), event_new() };
	struct hmm_ref_stats before, after;
	char *mem = test_map_pages(PAGES);
	pid_t pid;
	int other;

	/* Forked first; otherwise the child would keep the other file open. */
	pid = child_start(neighbour_main, &n);
	ASSERT_TRUE(event_wait(n.ready));
	other = test_open(0);
	fill_pages(mem, PAGES, 3);
	test_to_device(other, mem, PAGES);
	test_stats(self->fd, &before);
	EXPECT_EQ(PAGES, before.out_pages_client);
	EXPECT_LE(3 * PAGES, before.out_pages_in_use);
	ASSERT_EQ(0, close(other));
	test_stats(self->fd, &after);
	EXPECT_EQ(before.out_pages_in_use, after.out_pages_in_use);
	EXPECT_EQ(PAGES, after.out_pages_client);
	test_pages_at(self->fd, self->mem, PAGES, HMM_REF_PAGE_DEVICE, PAGES);
	test_pages_at(self->fd, mem, PAGES, HMM_REF_PAGE_DEVICE, PAGES);
	event_post(n.go);
	ASSERT_EQ(0, child_wait(pid, PATIENCE_MS));
	test_cpu_data(mem, PAGES, 3);
}

static int migrate_and_exit(void *arg)
{
	struct hmm_ref_migrate cmd;
	char *mem = map_pages(PAGES);
	int fd = hmm_ref_open(0);

	(void)arg;
	fill_pages(mem, PAGES, 2);
	return !CHECK(!_test_migrate_all(fd, HMM_REF_TO_DEVICE, mem, PAGES, &cmd));
}

TEST_F(lifetime, exit_frees_pages)
{
	struct hmm_ref_stats before, after;
	int i;

	test_stats(self->fd, &before);
	for (i = 0; i < 10; i++)
		ASSERT_EQ(0, child_run(migrate_and_exit, NULL));
	ASSERT_EQ(0, leak_wait(self->fd, before.out_pages_in_use, &after));
	EXPECT_EQ(before.out_pages_in_use, after.out_pages_in_use);
	test_dev_data(self->fd, self->mem, PAGES, 1);
}

#define OPENS	200

TEST_F(lifetime, many_opens)
{
	unsigned int seed = 12345;
	int fds[OPENS];
	int i, j;

	for (i = 0; i < OPENS; i++)
		fds[i] = test_open(0);
	for (i = 0; i < OPENS; i++) {
		j = random_next(&seed) % OPENS;
		if (fds[j] < 0)
			continue;
		test_to_device(fds[j], self->mem, PAGES);
		test_dev_data(fds[j], self->mem, PAGES, 1);
		touch_read(self->mem + i % PAGES * page_size());
		close(fds[j]);
		fds[j] = -1;
	}
	for (i = 0; i < OPENS; i++)
		if (fds[i] >= 0)
			close(fds[i]);
	test_cpu_data(self->mem, PAGES, 1);
}

/* ---- close and CPU faults ------------------------------------------------------ */

struct toucher {
	char *mem;
	unsigned long stop;
	unsigned long passes;
};

static int touch_main(void *arg)
{
	struct toucher *toucher = arg;

	while (!counter_get(&toucher->stop)) {
		if (bad_pages(toucher->mem, PAGES, 1))
			return 1;
		counter_add(&toucher->passes, 1);
	}
	return 0;
}

TEST_F(lifetime, close_while_faulting)
{
	struct toucher toucher = { .mem = self->mem };
	struct hmm_ref_migrate cmd;
	struct worker worker;
	int i;

	ASSERT_EQ(0, worker_start(&worker, touch_main, &toucher));
	for (i = 0; i < 200; i++) {
		test_migrate(self->fd, HMM_REF_TO_DEVICE, self->mem,
			     PAGES * page_size(), &cmd);
		ASSERT_EQ(0, close(self->fd));
		self->fd = test_open(0);
		usleep(500);	/* now and then a command has to complete */
	}
	counter_set(&toucher.stop, 1);
	ASSERT_EQ(0, worker_wait(&worker));
	ASSERT_LT(0, toucher.passes);
}

/* ---- killed -------------------------------------------------------------------- */

static int migrate_for_ever(void *arg)
{
	unsigned long *rounds = arg;
	char *mem = map_pages(PAGES);
	struct hmm_ref_migrate cmd;
	int fd = hmm_ref_open(0);

	fill_pages(mem, PAGES, 3);
	for (;;) {
		if (!CHECK(!_test_migrate(fd, HMM_REF_TO_DEVICE, mem,
					  PAGES * page_size(), &cmd)) ||
		    !CHECK(!_test_migrate(fd, HMM_REF_TO_SYSTEM, mem,
					  PAGES * page_size(), &cmd)))
			return 1;
		counter_add(rounds, 1);
	}
}

TEST_F(lifetime, killed_while_migrating)
{
	unsigned long *rounds = test_map_shared(page_size());
	unsigned long long deadline;
	pid_t pid;
	int i;

	for (i = 0; i < 30; i++) {
		counter_set(rounds, 0);
		pid = child_start(migrate_for_ever, rounds);
		ASSERT_LT(0, pid);
		deadline = now_ms() + PATIENCE_MS;
		while (counter_get(rounds) < i % 5 + 1 && now_ms() < deadline)
			sched_yield();
		usleep(i * 37);
		ASSERT_EQ(CHILD_SIGNAL + SIGKILL, child_kill(pid));
		ASSERT_LT(0, counter_get(rounds));
	}
	test_dev_data(self->fd, self->mem, PAGES, 1);
}

/* Reads a range for hours. The fatal signal ends the command at once. */
static int read_for_ever(void *arg)
{
	unsigned long size = 1UL << 40;
	int fd = hmm_ref_open(0);
	void *mem;

	mem = mmap(NULL, 2 * size, PROT_READ | PROT_WRITE,
		   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (mem == MAP_FAILED)
		return KSFT_SKIP;
	return !CHECK(!_test_read(fd, mem, size, (char *)mem + size));
}

/* The count of device faults shows that the command is under way. */
TEST_F(lifetime, killed_in_a_long_command)
{
	unsigned long long deadline = now_ms() + PATIENCE_MS;
	struct hmm_ref_stats before, after;
	pid_t pid;
	int rc;

	test_stats(self->fd, &before);
	pid = child_start(read_for_ever, NULL);
	ASSERT_LT(0, pid);
	do {
		usleep(1000);
		test_stats(self->fd, &after);
	} while (after.out_device_faults == before.out_device_faults && now_ms() < deadline);
	rc = child_kill(pid);
	if (rc == KSFT_SKIP)
		SKIP(return, "cannot map 2 TiB");
	ASSERT_LT(before.out_device_faults, after.out_device_faults);
	ASSERT_EQ(CHILD_SIGNAL + SIGKILL, rc);
}

/* ---- core dump ----------------------------------------------------------------- */

#define CORE_PATTERN	"/proc/sys/kernel/core_pattern"
#define CORE_FILE	"/tmp/hmm_ref_core"

static int crash(void *arg)
{
	struct rlimit limit = { .rlim_cur = RLIM_INFINITY, .rlim_max = RLIM_INFINITY };
	struct hmm_ref_migrate cmd;
	int fd = hmm_ref_open(0);

	fill_pages(arg, PAGES, 4);
	if (!CHECK(!setrlimit(RLIMIT_CORE, &limit)) ||
	    !CHECK(!_test_migrate_all(fd, HMM_REF_TO_DEVICE, arg, PAGES, &cmd)))
		return 1;
	close(fd);
	abort();
}

/* Returns the page of the core file that has the memory at @addr, or NULL. */
static char *core_data(char *core, size_t size, unsigned long addr)
{
	struct elf64_hdr *ehdr = (void *)core;
	struct elf64_phdr *phdr = (void *)(core + ehdr->e_phoff);
	size_t offset;
	int i;

	for (i = 0; i < ehdr->e_phnum; i++) {
		if (phdr[i].p_type != PT_LOAD || addr < phdr[i].p_vaddr ||
		    addr >= phdr[i].p_vaddr + phdr[i].p_filesz)
			continue;
		offset = phdr[i].p_offset + addr - phdr[i].p_vaddr;
		return offset + PAGES * page_size() <= size ? core + offset : NULL;
	}
	return NULL;
}

TEST_F(lifetime, core_dump)
{
	char pattern[256], *core, *data;
	struct stat st;
	int fd, rc;

	if (read_file(CORE_PATTERN, pattern, sizeof(pattern)) < 0 ||
	    write_file(CORE_PATTERN, CORE_FILE))
		SKIP(return, "cannot set " CORE_PATTERN " (CONFIG_COREDUMP)");
	mkdir("/tmp", 01777);
	unlink(CORE_FILE);
	rc = child_run(crash, self->mem);
	write_file(CORE_PATTERN, pattern);
	ASSERT_EQ(CHILD_SIGNAL + SIGABRT, rc);
	fd = open(CORE_FILE, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		SKIP(return, "the kernel wrote no core file (CONFIG_ELF_CORE, /tmp)");
	ASSERT_EQ(0, fstat(fd, &st));
	ASSERT_LT(sizeof(struct elf64_hdr), st.st_size);
	core = __test_map(_metadata, mmap(NULL, st.st_size, PROT_READ, MAP_PRIVATE, fd, 0));
	unlink(CORE_FILE);
	data = core_data(core, st.st_size, (unsigned long)self->mem);
	ASSERT_NE(NULL, data);
	test_cpu_data(data, PAGES, 4);
	test_cpu_data(self->mem, PAGES, 1);
}

/* ---- stress -------------------------------------------------------------------- */

#define TORTURERS	4

/* Runs random operations until it is killed, or finds wrong data. */
static int victim_main(unsigned int seed)
{
	char *mem = map_pages(PAGES);
	unsigned int data = seed;
	struct hmm_ref_migrate cmd;
	int fd = hmm_ref_open(0);
	int status;

	if (!CHECK(mem != MAP_FAILED) || !CHECK(fd >= 0))
		return 1;
	fill_pages(mem, PAGES, data);
	for (;;) {
		switch (random_next(&seed) % 6) {
		case 0:
			if (!CHECK(!bad_pages(mem, PAGES, data)))
				return 1;
			break;
		case 1:
			close(fd);
			fd = hmm_ref_open(0);
			break;
		case 2:
			if (!CHECK(!dev_fill_pages(fd, mem, PAGES, ++data)))
				return 1;
			break;
		case 3:
			if (!fork())
				_exit(!!bad_pages(mem, PAGES, data));
			break;
		default:
			if (!CHECK(!_test_migrate(fd, HMM_REF_TO_DEVICE, mem,
						  PAGES * page_size(), &cmd)))
				return 1;
		}
		while (waitpid(-1, &status, WNOHANG) > 0)
			if (!CHECK(!status))
				return 1;
	}
}

static int victim(void *arg)
{
	unsigned int *seed = arg;

	signal(SIGCHLD, SIG_DFL);
	return victim_main(*seed);
}

struct stress {
	unsigned int seed;
	unsigned long rounds;
};

/* One of the processes: starts victims, and kills each after a random time. */
static int stress_main(void *arg)
{
	struct stress *stress = arg;
	unsigned int seed = stress->seed;
	unsigned long i;
	pid_t pid;

	for (i = 0; i < stress->rounds; i++) {
		random_next(&seed);
		pid = child_start(victim, &seed);
		if (!CHECK(pid > 0))
			return 1;
		usleep(random_next(&seed) % 30000);
		if (!CHECK(child_kill(pid) == CHILD_SIGNAL + SIGKILL)) {
			fprintf(stderr, "# round %lu of %lu, seed %u\n", i,
				stress->rounds, stress->seed);
			return 1;
		}
	}
	return 0;
}

TEST_F_TIMEOUT(lifetime, stress, 600)
{
	unsigned long rounds = env_number("HMM_REF_ROUNDS", 100);
	unsigned int seed = random_seed("HMM_REF_SEED");
	struct stress stress[TORTURERS];
	pid_t pid[TORTURERS];
	int i;

	TH_LOG("%lu rounds, HMM_REF_SEED=%u", rounds, seed);
	for (i = 0; i < TORTURERS; i++) {
		stress[i].seed = seed + i ? seed + i : 1;
		stress[i].rounds = rounds;
		pid[i] = child_start(stress_main, &stress[i]);
		ASSERT_LT(0, pid[i]);
	}
	for (i = 0; i < TORTURERS; i++)
		EXPECT_EQ(0, child_wait(pid[i], 580000));
	test_dev_data(self->fd, self->mem, PAGES, 1);
	test_cpu_data(self->mem, PAGES, 1);
}

int main(int argc, char **argv)
{
	return hmm_ref_test_main(argc, argv);
}
