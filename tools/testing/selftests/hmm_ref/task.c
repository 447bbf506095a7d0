// SPDX-License-Identifier: GPL-2.0-only
/*
 * The kernel acts on a task at any time: it writes the CPU number to the task's rseq area when the
 * task is scheduled, and a cgroup freezes the task. At that time the area is on the device, or
 * being migrated, and the task is in a command or in a CPU fault.
 *
 * Covers: a fault in the return to user space that cannot be handled; a task that cannot be frozen,
 * or that loses pages meanwhile.
 */
#include <sys/rseq.h>

#include "hmm_ref_huge.h"
#include "hmm_ref_old.h"

/* ---- rseq ------------------------------------------------------------------------ */

FIXTURE(rseq)
{
	struct leak_check leak;
	struct thread {
		unsigned long done;
		unsigned long switches;
		unsigned long cleared;
		unsigned long rounds;
		struct rseq_cs *cs;
		unsigned int cpus[2];
	} thread;
	pthread_attr_t attr;
	char *stack;
	size_t size;
	int fd;
};

FIXTURE_VARIANT(rseq)
{
	bool large;
};

FIXTURE_VARIANT_ADD(rseq, small) { .large = false };
FIXTURE_VARIANT_ADD(rseq, large) { .large = true };

/* The C library puts the area beside the thread's own data, at the end of the stack. */
FIXTURE_SETUP(rseq)
{
	if (!__rseq_size)
		SKIP(return, "no rseq (CONFIG_RSEQ), or the C library leaves it alone");
	leak_check_begin(_metadata, &self->leak);
	self->fd = test_open(0);
	self->stack = map_variant(self->fd, variant->large);
	if (!self->stack)
		SKIP(return, "no huge page can be allocated");
	self->size = variant_pages(variant->large) * page_size();
	ASSERT_EQ(0, pthread_attr_init(&self->attr));
	ASSERT_EQ(0, pthread_attr_setstack(&self->attr, self->stack, self->size));
}

FIXTURE_TEARDOWN_PARENT(rseq)
{
	leak_check_end(_metadata, &self->leak);
}

/* When it is scheduled on another CPU, it finds that CPU's number in its area. */
static void *switch_main(void *arg)
{
	struct rseq *area = (void *)((char *)__builtin_thread_pointer() + __rseq_offset);
	struct thread *thread = arg;
	static const uint32_t signature[2] = { RSEQ_SIG };
	struct rseq_cs cs = {
		.start_ip = 1, .post_commit_offset = 1,
		/* The signature is before it. Kernels before 7.0 check it in any case. */
		.abort_ip = (unsigned long)&signature[1],
	};
	unsigned long round;
	unsigned int cpu;

	for (round = 0; round < thread->rounds; round++) {
		/*
		 * A critical section that the thread is not in: the kernel reads the pointer, and
		 * clears it, when the thread is preempted in user space.
		 */
		__atomic_store_n(&area->rseq_cs, (unsigned long)&cs, __ATOMIC_RELEASE);
		run_on_cpu(round);
		cpu = __atomic_load_n(&area->cpu_id, __ATOMIC_ACQUIRE);
		if (!CHECK(cpu == thread->cpus[round & 1]) ||
		    !CHECK(cpu == __atomic_load_n(&area->cpu_id_start, __ATOMIC_ACQUIRE)))
			break;
		thread->cleared += !__atomic_load_n(&area->rseq_cs, __ATOMIC_ACQUIRE);
		counter_add(&thread->switches, 1);
		usleep(200);
	}
	counter_set(&thread->done, 1);
	return (void *)(long)(round < thread->rounds);
}

static void first_cpus(unsigned int *cpus)
{
	int i;

	for (i = 0; i < 2; i++) {
		run_on_cpu(i);
		cpus[i] = sched_getcpu();
	}
}

/* All memory of the thread is on the device, or being migrated, each time it is scheduled. */
TEST_F(rseq, on_the_device)
{
	unsigned long long deadline = now_ms() + MEET_MS;
	unsigned long migrated = 0, faults;
	struct thread *thread = &self->thread;
	struct hmm_ref_stats before, after;
	struct hmm_ref_migrate cmd;
	pthread_t id;
	void *failed;
	int rc = 0;

	thread->rounds = variant->large ? 60 : 300;
	first_cpus(thread->cpus);
	test_stats(self->fd, &before);
	ASSERT_EQ(0, pthread_create(&id, &self->attr, switch_main, thread));
	while (!rc && !counter_get(&thread->done) && now_ms() < deadline) {
		rc = _test_migrate(self->fd, HMM_REF_TO_DEVICE, self->stack, self->size, &cmd);
		migrated += cmd.out_migrated;
	}
	ASSERT_EQ(0, rc);
	ASSERT_EQ(1, counter_get(&thread->done));
	ASSERT_EQ(0, pthread_join(id, &failed));
	ASSERT_EQ(NULL, failed);
	test_stats(self->fd, &after);
	faults = after.out_cpu_faults - before.out_cpu_faults;
	TH_LOG("%lu switches, %lu pages migrated, %lu CPU faults, %lu sections forgotten",
	       thread->switches, migrated, faults, thread->cleared);
	EXPECT_LT(0, migrated);
	EXPECT_LT(0, faults);
}

/* ---- freezer --------------------------------------------------------------------- */

#define CGROUPS		"/sys/fs/cgroup/"
#define GROUP		CGROUPS "hmm_ref_freezer/"
#define ROUNDS		8

FIXTURE(freezer)
{
	struct leak_check leak;
	struct busy {
		struct shared {
			unsigned long ready, stop;
			unsigned long rounds;
		} *shared;
		unsigned long npages;
		char *mem;
	} busy;
	int fd;
};

FIXTURE_VARIANT(freezer)
{
	bool large;
};

FIXTURE_VARIANT_ADD(freezer, small) { .large = false };
FIXTURE_VARIANT_ADD(freezer, large) { .large = true };

FIXTURE_SETUP(freezer)
{
	if ((mkdir(GROUP, 0755) && errno != EEXIST) || access(GROUP "cgroup.freeze", W_OK))
		SKIP(return, "no " GROUP "cgroup.freeze (CONFIG_CGROUPS)");
	leak_check_begin(_metadata, &self->leak);
	self->fd = test_open(0);
	self->busy.shared = test_map_shared(sizeof(*self->busy.shared));
	self->busy.npages = variant_pages(variant->large);
	self->busy.mem = map_variant(self->fd, variant->large);
	if (!self->busy.mem)
		SKIP(return, "no huge page can be allocated");
}

FIXTURE_TEARDOWN_PARENT(freezer)
{
	write_file(GROUP "cgroup.freeze", "0");
	leak_check_end(_metadata, &self->leak);
	rmdir(GROUP);
}

/* Commands and CPU faults, one after the other. */
static int busy_main(void *arg)
{
	struct busy *busy = arg;
	size_t size = busy->npages * page_size();
	int fd = hmm_ref_open(0);
	struct hmm_ref_migrate cmd;
	unsigned int seed = 1;

	if (!CHECK(fd >= 0) || !CHECK(!write_file(GROUP "cgroup.procs", "0")))
		return 1;
	counter_set(&busy->shared->ready, 1);
	while (!counter_get(&busy->shared->stop)) {
		if (!CHECK(!UNINTERRUPTED(_test_migrate(fd, HMM_REF_TO_DEVICE, busy->mem, size,
							&cmd))) ||
		    !CHECK(!UNINTERRUPTED(dev_bad_pages(fd, busy->mem, busy->npages, seed))))
			return 1;
		seed++;
		if (!CHECK(!UNINTERRUPTED(dev_fill_pages(fd, busy->mem, busy->npages, seed))) ||
		    !CHECK(!bad_pages(busy->mem, busy->npages, seed)))
			return 1;
		counter_add(&busy->shared->rounds, 1);
	}
	return 0;
}

/* Waits until all tasks of the group are frozen, or all are thawed. */
static bool set_frozen(bool frozen)
{
	unsigned long long deadline = now_ms() + 3 * PATIENCE_MS;
	char text[64];

	if (write_file(GROUP "cgroup.freeze", frozen ? "1" : "0"))
		return false;
	do {
		if (read_file(GROUP "cgroup.events", text, sizeof(text)) > 0 &&
		    strstr(text, frozen ? "frozen 1" : "frozen 0"))
			return true;
		usleep(1000);
	} while (now_ms() < deadline);
	return false;
}

/* Pages may be evicted while the task is frozen. The task continues as before. */
TEST_F(freezer, while_in_use)
{
	struct shared *shared = self->busy.shared;
	unsigned long long deadline;
	unsigned long rounds, round;
	int old = old_open(0), rc;
	pid_t pid;

	pid = child_start(busy_main, &self->busy);
	ASSERT_LT(0, pid);
	for (deadline = now_ms() + PATIENCE_MS; !counter_get(&shared->ready); usleep(1000))
		ASSERT_GT(deadline, now_ms());
	for (round = 0; round < ROUNDS; round++) {
		usleep(5000 + 3000 * round);
		ASSERT_TRUE(set_frozen(true));
		rounds = counter_get(&shared->rounds);
		rc = old < 0 ? 0 : old_release(old);
		ASSERT_TRUE(!rc || rc == -EBUSY);
		usleep(20000);
		ASSERT_EQ(rounds, counter_get(&shared->rounds));
		ASSERT_TRUE(set_frozen(false));
		deadline = now_ms() + 3 * PATIENCE_MS;
		while (counter_get(&shared->rounds) == rounds && now_ms() < deadline)
			usleep(1000);
		ASSERT_LT(rounds, counter_get(&shared->rounds));
	}
	counter_set(&shared->stop, 1);
	ASSERT_EQ(0, child_wait(pid, 3 * PATIENCE_MS));
}

/* A frozen task can be killed, and its pages are freed. */
TEST_F(freezer, killed)
{
	struct hmm_ref_stats before, after;
	unsigned long long deadline = now_ms() + PATIENCE_MS;
	pid_t pid;

	test_stats(self->fd, &before);
	pid = child_start(busy_main, &self->busy);
	ASSERT_LT(0, pid);
	while (!counter_get(&self->busy.shared->rounds) && now_ms() < deadline)
		usleep(1000);
	ASSERT_TRUE(set_frozen(true));
	ASSERT_EQ(CHILD_SIGNAL + SIGKILL, child_kill(pid));
	ASSERT_EQ(0, leak_wait(self->fd, before.out_pages_in_use, &after));
	test_cpu_data(self->busy.mem, self->busy.npages, 1);
}

int main(int argc, char **argv)
{
	return hmm_ref_test_main(argc, argv);
}
