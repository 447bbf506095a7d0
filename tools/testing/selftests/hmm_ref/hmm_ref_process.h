/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Children and threads with checked results, and events and counters between them.
 * Nothing here needs the test harness.
 *
 * Children and threads use CHECK() and return 0 or 1. The process that starts them asserts
 * that result.
 */
#ifndef _HMM_REF_PROCESS_H
#define _HMM_REF_PROCESS_H

#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "hmm_ref_dev.h"

/* How long racing threads have to meet, at most. On a busy host that may take a while. */
#define MEET_MS			120000

/* ---- children and threads ------------------------------------------------- */

static inline bool check_failed(bool ok, const char *what, const char *file,
				int line)
{
	if (!ok)
		fprintf(stderr, "# %s:%d: pid %d: not true: %s (errno %d)\n",
			file, line, getpid(), what, errno);
	return ok;
}

/* For children and threads: prints a message and returns false when @cond is false. */
#define CHECK(cond)		check_failed(cond, #cond, __FILE__, __LINE__)

#define CHILD_SIGNAL		256	/* plus the signal that ended it */

/* Runs @fn in a child that does not outlive its parent. */
static inline pid_t child_start(int (*fn)(void *arg), void *arg)
{
	pid_t parent = getpid();
	pid_t pid = fork();

	if (pid)
		return pid;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != parent)
		_exit(1);
	_exit(fn(arg));
}

/*
 * Returns the exit status, CHILD_SIGNAL + signal, or -ETIMEDOUT for a child that had to be killed
 * because it did not exit by itself.
 */
static inline int child_wait(pid_t pid, int timeout_ms)
{
	struct pollfd pollfd = { .events = POLLIN };
	bool late;
	int status;

	pollfd.fd = syscall(__NR_pidfd_open, pid, 0);
	if (pollfd.fd < 0)
		return -errno;
	late = poll(&pollfd, 1, timeout_ms) != 1;
	close(pollfd.fd);
	if (late)
		kill(pid, SIGKILL);
	if (waitpid(pid, &status, 0) != pid)
		return -errno;
	if (late)
		return -ETIMEDOUT;
	return WIFEXITED(status) ? WEXITSTATUS(status) :
	       CHILD_SIGNAL + WTERMSIG(status);
}

static inline int child_run(int (*fn)(void *arg), void *arg)
{
	pid_t pid = child_start(fn, arg);

	return pid < 0 ? -errno : child_wait(pid, 9 * PATIENCE_MS);
}

static inline int child_kill(pid_t pid)
{
	kill(pid, SIGKILL);
	return child_wait(pid, PATIENCE_MS);
}

/* Events synchronize threads and processes, and order their accesses to memory. */
static inline int event_new(void)
{
	return eventfd(0, EFD_CLOEXEC | EFD_SEMAPHORE);
}

static inline void event_post(int event)
{
	unsigned long long one = 1;

	if (write(event, &one, sizeof(one)) != sizeof(one))
		perror("# eventfd write");
}

/* Returns whether the event was posted in time. */
static inline bool event_wait(int event)
{
	struct pollfd pollfd = { .fd = event, .events = POLLIN };
	unsigned long long one;

	return poll(&pollfd, 1, 2 * PATIENCE_MS) == 1 &&
	       read(event, &one, sizeof(one)) == sizeof(one);
}

/* Flags and counters that threads or processes share. */
static inline unsigned long counter_get(const unsigned long *counter)
{
	return __atomic_load_n(counter, __ATOMIC_ACQUIRE);
}

static inline void counter_set(unsigned long *counter, unsigned long value)
{
	__atomic_store_n(counter, value, __ATOMIC_RELEASE);
}

static inline unsigned long counter_add(unsigned long *counter, unsigned long n)
{
	return __atomic_add_fetch(counter, n, __ATOMIC_ACQ_REL);
}

/* A thread whose function returns 0 or 1. */
struct worker {
	pthread_t thread;
	int (*fn)(void *arg);
	void *arg;
	int rc;
	bool started;
};

static inline void *worker_main(void *arg)
{
	struct worker *worker = arg;

	worker->rc = worker->fn(worker->arg);
	return NULL;
}

static inline int worker_start(struct worker *worker, int (*fn)(void *arg),
			       void *arg)
{
	int rc;

	worker->fn = fn;
	worker->arg = arg;
	worker->rc = -1;
	rc = pthread_create(&worker->thread, NULL, worker_main, worker);
	worker->started = !rc;
	return -rc;
}

static inline int worker_wait(struct worker *worker)
{
	int rc = pthread_join(worker->thread, NULL);

	return rc ? -rc : worker->rc;
}

/*
 * Threads that must run at the same time are bound to two CPUs, if there are two, since the
 * scheduler may keep them on one CPU for long. @nr selects the CPU. The CPUs are those of the first
 * call: children and threads inherit the affinity of their parent.
 */
static inline void run_on_cpu(unsigned int nr)
{
	static cpu_set_t allowed;
	cpu_set_t one;
	int cpu;

	if (!CPU_COUNT(&allowed) && sched_getaffinity(0, sizeof(allowed), &allowed))
		return;
	nr %= CPU_COUNT(&allowed);
	for (cpu = 0; !CPU_ISSET(cpu, &allowed) || nr--; cpu++)
		;
	CPU_ZERO(&one);
	CPU_SET(cpu, &one);
	sched_setaffinity(0, sizeof(one), &one);
}

#endif /* _HMM_REF_PROCESS_H */
