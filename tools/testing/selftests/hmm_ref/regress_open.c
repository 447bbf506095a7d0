// SPDX-License-Identifier: GPL-2.0-only
/*
 * To open a device takes the mmap_lock of the process, which another thread may hold for long. That
 * open waits alone: others, and a removal, get by.
 *
 * Weak: only the first open of a process takes mmap_lock. What is seen to wait may be on its way
 * out of openat(), so that a lock which all devices share goes unnoticed.
 *
 * Stands for: a device of the misc class, which opens its files with a lock held that all
 * misc devices share.
 */
#include "hmm_ref_utils.h"

#define COPIED		(256UL << 20)	/* what a fork() has to copy the page tables of */

struct shared {
	unsigned long opens;		/* odd while one is under way */
	unsigned long stop;
	pid_t opener;
};

FIXTURE(regress_open)
{
	struct leak_check leak;
	struct shared *shared;
	pid_t pid;
};

static int open_for_long(void *arg)
{
	struct shared *shared = arg;
	int fd;

	shared->opener = syscall(SYS_gettid);
	while (!counter_get(&shared->stop)) {
		counter_add(&shared->opens, 1);
		fd = hmm_ref_open(0);
		counter_add(&shared->opens, 1);
		/* The test may be about to unbind it. */
		if (fd < 0 && fd != -ENODEV && fd != -ENXIO && fd != -ENOENT)
			return 1;
		if (fd >= 0)
			close(fd);
	}
	return 0;
}

/* One thread forks, and holds mmap_lock meanwhile, another opens. */
static int hold_mmap_lock(void *arg)
{
	struct shared *shared = arg;
	struct worker opener;
	char *mem;
	pid_t pid;

	mem = mmap(NULL, COPIED, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (!CHECK(mem != MAP_FAILED))
		return 1;
	madvise(mem, COPIED, MADV_NOHUGEPAGE);
	memset(mem, 1, COPIED);
	if (!CHECK(!worker_start(&opener, open_for_long, shared)))
		return 1;
	while (!counter_get(&shared->stop)) {
		pid = fork();
		if (!pid)
			_exit(0);
		if (!CHECK(pid > 0) || !CHECK(waitpid(pid, NULL, 0) == pid))
			return 1;
	}
	return worker_wait(&opener);
}

FIXTURE_SETUP(regress_open)
{
	leak_check_begin(_metadata, &self->leak);
	self->shared = test_map_shared(page_size());
	self->pid = child_start(hold_mmap_lock, self->shared);
	ASSERT_LT(0, self->pid);
}

FIXTURE_TEARDOWN_PARENT(regress_open)
{
	leak_check_end(_metadata, &self->leak);
}

/* Does the opener wait in an open, and in which? 0 when it does not. */
static unsigned long waits_in(const struct shared *shared, pid_t pid)
{
	unsigned long opens = counter_get(&shared->opens);
	char path[64], text[512], *state;

	if (!(opens & 1))
		return 0;
	snprintf(path, sizeof(path), "/proc/%d/task/%d/stat", pid, shared->opener);
	if (read_file(path, text, sizeof(text)) < 0)
		return 0;
	state = strrchr(text, ')');
	return state && state[2] == 'D' ? opens : 0;
}

/* An open that begins and ends while another one waits. */
TEST_F_TIMEOUT(regress_open, opens_beside, 180)
{
	unsigned long long end = now_ms() + MEET_MS;
	unsigned long opens;
	bool met = false;
	int fd;

	while (!met && now_ms() < end) {
		opens = waits_in(self->shared, self->pid);
		if (!opens)
			continue;
		fd = hmm_ref_open(1);
		ASSERT_LE(0, fd);
		close(fd);
		met = waits_in(self->shared, self->pid) == opens;
	}
	EXPECT_TRUE(met);
	counter_set(&self->shared->stop, 1);
	EXPECT_EQ(0, child_wait(self->pid, PATIENCE_MS));
}

/* A removal, of the very device that is being opened, too. */
TEST_F_TIMEOUT(regress_open, removed_beside, 180)
{
	unsigned long long end = now_ms() + MEET_MS;
	unsigned int nr = 0, met[2] = {};
	unsigned long opens;

	if (!device_can_unbind(0))
		SKIP(return, "the device cannot be unbound");
	while ((!met[0] || !met[1]) && now_ms() < end) {
		opens = waits_in(self->shared, self->pid);
		if (!opens)
			continue;
		nr = !met[0] ? 0 : 1;
		ASSERT_EQ(0, device_unbind(nr));
		met[nr] += waits_in(self->shared, self->pid) == opens;
		ASSERT_EQ(0, device_bind(nr));
	}
	EXPECT_LT(0, met[0]);
	EXPECT_LT(0, met[1]);
	counter_set(&self->shared->stop, 1);
	EXPECT_EQ(0, child_wait(self->pid, PATIENCE_MS));
}

int main(int argc, char **argv)
{
	return hmm_ref_test_main(argc, argv);
}
