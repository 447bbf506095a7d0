// SPDX-License-Identifier: GPL-2.0-only
/*
 * The fuzzer's processes. A worker is a process with up to three threads, each of which may have a
 * child. All of them are one process group. They run until their programs end, they are killed, or
 * the run is over. During a pause no operation is under way: children have exited, threads sleep.
 */
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>

#include "fuzz.h"

static pid_t children[THREADS];		/* children of this process, one per thread */
static __thread unsigned int thread_nr;
static unsigned int worker_nr;
static void run_program(unsigned int length);
static int run_op(const struct op *op);

/* ---- children -------------------------------------------------------------------- */

/* A child that failed has recorded why. */
static void reap_child(unsigned int nr, bool kill_it)
{
	pid_t pid = children[nr];
	int status;

	if (!pid)
		return;
	children[nr] = 0;
	if (kill_it)
		kill(pid, SIGKILL);
	while (waitpid(pid, &status, 0) != pid)
		if (errno != EINTR)
			fuzz_fail("waitpid %d: errno %d", pid, errno);
	shared->slots[worker_nr * SLOTS_OF_WORKER + THREADS + nr].active = 0;
	if (WIFSIGNALED(status) ? WTERMSIG(status) != SIGKILL : WEXITSTATUS(status))
		fuzz_fail("child %d ended with status %#x", pid, status);
}

static void enter(struct fuzz_slot *slot, uint32_t stream)
{
	self = slot;
	slot->stream = stream;
	slot->index = 0;
	slot->parked = 0;
	slot->pid = getpid();
	__atomic_store_n(&slot->active, 1, __ATOMIC_RELEASE);
}

static void open_mem(void)
{
	if (mem_fd >= 0)
		close(mem_fd);
	mem_fd = open("/proc/self/mem", O_RDWR | O_CLOEXEC);
	if (mem_fd < 0)
		fuzz_fail("/proc/self/mem: errno %d", errno);
}

/* The native interface refuses files of the parent. The old one acts on the parent. */
static void inherit_files(void)
{
	unsigned int i;

	for (i = 0; i < FILES; i++) {
		if (files[i])
			files[i] |= FILE_FOREIGN;
	}
}

static void child_main(struct fuzz_slot *slot, uint32_t stream, const struct op *op)
{
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	enter(slot, stream);
	memset(children, 0, sizeof(children));
	open_mem();
	inherit_files();
	uffd_begin();
	run_program(10 + op->value % 60);
	_exit(0);
}

static int do_fork(const struct op *op)
{
	unsigned int nr = worker_nr * SLOTS_OF_WORKER + THREADS + thread_nr;
	uint32_t stream = stream_of(self->stream, self->index, 1);
	pid_t pid;

	if (self != &shared->slots[nr - THREADS])
		return -ENXIO;
	reap_child(thread_nr, op->variant & 1);
	pid = fork();
	if (!pid)
		child_main(&shared->slots[nr], stream, op);
	if (pid < 0)
		return -errno;
	children[thread_nr] = pid;
	return 0;
}

static int do_join(const struct op *op)
{
	reap_child(thread_nr, op->variant & 1);
	return 0;
}

/* Operations for a process that shares its parent's memory but not its files. */
static bool is_for_clone(enum kind kind)
{
	return kind >= OP_MIGRATE && kind <= OP_MLOCK && kind != OP_OLD && kind != OP_BAD_OLD;
}

static int clone_main(void *arg)
{
	const struct op *op = arg;
	struct op other;
	unsigned int i;

	/* The userfaultfd has no server once the parent is gone. */
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	for (i = 0; i < 1 + op->value % 16; i++) {
		op_generate(stream_of(self->stream, self->index, 4), i, &other);
		if (is_for_clone(other.kind))
			run_op(&other);
	}
	return 0;
}

/* A process that shares the memory. Its parent waits, so the child can use this stack. */
static int do_clone(const struct op *op)
{
	char stack[65536], *top = stack + sizeof(stack);
	int status;
	pid_t pid;

	top -= (unsigned long)top % 64;
	pid = clone(clone_main, top, CLONE_VM | CLONE_VFORK | SIGCHLD,
		    (void *)op);
	if (pid < 0)
		return -errno;
	while (waitpid(pid, &status, 0) != pid)
		if (errno != EINTR)
			fuzz_fail("waitpid %d: errno %d", pid, errno);
	if (WIFSIGNALED(status) ? WTERMSIG(status) != SIGKILL : WEXITSTATUS(status))
		fuzz_fail("clone %d ended with status %#x", pid, status);
	return 0;
}

/* Ends the whole process, whatever its threads are doing. */
static int do_die(const struct op *op)
{
	char *const args[] = { "fuzz", "nothing", NULL };

	switch (op->variant % 4) {
	case 0:
		signal(SIGUSR1, SIG_IGN);
		execv("/proc/self/exe", args);
		fuzz_fail("exec: errno %d", errno);
	case 1:
		_exit(0);
	default:
		kill(getpid(), SIGKILL);
	}
	return 0;
}

/* ---- programs -------------------------------------------------------------------- */

static int (*const executors[KINDS])(const struct op *op) = {
	[OP_OPEN] = do_open,
	[OP_CLOSE] = do_close,
	[OP_MIGRATE] = do_migrate,
	[OP_READ] = do_read,
	[OP_WRITE] = do_write,
	[OP_SNAPSHOT] = do_snapshot,
	[OP_LOOK] = do_look,
	[OP_EXCLUSIVE] = do_exclusive,
	[OP_ATOMIC] = do_atomic,
	[OP_BAD_NATIVE] = do_bad_native,
	[OP_OLD] = do_old,
	[OP_BAD_OLD] = do_bad_old,
	[OP_CPU_READ] = do_cpu_read,
	[OP_CPU_WRITE] = do_cpu_write,
	[OP_REMOTE] = do_remote,
	[OP_MADVISE] = do_madvise,
	[OP_MAP] = do_map,
	[OP_UNMAP] = do_unmap,
	[OP_MREMAP] = do_mremap,
	[OP_MPROTECT] = do_mprotect,
	[OP_MLOCK] = do_mlock,
	[OP_UFFD] = do_uffd,
	[OP_PLACE] = do_place,
	[OP_PIN] = do_pin,
	[OP_PASS] = do_pass,
	[OP_CLONE] = do_clone,
	[OP_FORK] = do_fork,
	[OP_JOIN] = do_join,
	[OP_VERIFY] = do_verify,
	[OP_DIE] = do_die,
};

static int run_op(const struct op *op)
{
	return executors[op->kind](op);
}

/* For a pause: no children, no pins, no operation under way. */
static void park(void)
{
	reap_child(thread_nr, true);
	release(&held_pipe, -1);
	__atomic_store_n(&self->parked, 1, __ATOMIC_RELEASE);
	while (shared_get(pause) & 1)
		usleep(2000);
	__atomic_store_n(&self->parked, 0, __ATOMIC_RELEASE);
	injected_before = shared_get(injected);
	if (owner)
		verify_all();
}

static void run_program(unsigned int length)
{
	bool child = self->pid != getpgrp();
	unsigned int i;
	struct op op;
	int rc;

	for (i = 0; i < length && !shared_get(stop); i++) {
		if (!child && (shared_get(pause) & 1))
			park();
		op_generate(self->stream, i, &op);
		log_begin(i);
		injected_before = shared_get(injected);
		rc = run_op(&op);
		log_end(op.kind, rc);
	}
	log_begin(i);
	injected_before = shared_get(injected);
	if (owner)
		verify_at_last();
	if (!child)
		reap_child(thread_nr, false);
}

static void *thread_main(void *arg)
{
	unsigned int nr = (unsigned long)arg;

	thread_nr = nr;
	scratch = BUFFERS_OF(nr);
	data = scratch + SMALL_PAGES * PAGE;
	run_program(400);
	__atomic_store_n(&self->active, 0, __ATOMIC_RELEASE);
	return NULL;
}

static void *side_main(void *arg)
{
	self = &shared->slots[worker_nr * SLOTS_OF_WORKER + (unsigned long)arg];
	return thread_main(arg);
}

/* Slots are active before the supervisor can look at them. */
static void start_threads(uint32_t stream, unsigned int n)
{
	struct fuzz_slot *main_slot = self;
	unsigned long i;
	pthread_t thread;

	for (i = 1; i <= n; i++) {
		enter(main_slot + i, stream_of(stream, i, 2));
		if (pthread_create(&thread, NULL, side_main, (void *)i))
			main_slot[i].active = 0;
	}
	self = main_slot;
}

/* A program that begins without a file would have little to do. */
static void open_some(uint32_t stream)
{
	struct op op = { .kind = OP_OPEN };

	for (op.slot = 0; op.slot < FILES / 2; op.slot++) {
		op.variant = stream_of(stream, op.slot, 3) % 65536;
		do_open(&op);
	}
}

/* Runs one generation of a worker. */
void process_main(unsigned int nr, unsigned int generation)
{
	uint32_t stream = stream_of(shared->seed, nr, generation);
	struct fuzz_slot *slot = &shared->slots[nr * SLOTS_OF_WORKER];

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	setpgid(0, 0);
	if (shared->memcg)
		write_file(CGROUP "cgroup.procs", "0");
	worker_nr = nr;
	own_id = 1 + (generation * WORKERS + nr) % 255;
	enter(slot, stream);
	owner = true;
	map_process();
	open_mem();
	uffd_begin();
	open_some(stream);
	scratch = BUFFERS_OF(0);
	data = scratch + SMALL_PAGES * PAGE;
	start_threads(stream, stream % THREADS);
	run_program(200 + stream % 1000);
	_exit(0);
}
