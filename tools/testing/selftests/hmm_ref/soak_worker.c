// SPDX-License-Identifier: GPL-2.0-only
/*
 * The soak test's workers. A worker is a process that runs a program of random operations until the
 * supervisor stops or kills it, or it execs and becomes a new worker. Its main thread is the only
 * one that changes data. A second thread migrates pages. There may be a child, which runs a short
 * program on its copy of the memory.
 *
 * Each operation returns 0 or an error that is allowed. Any other result ends the run. -ENXIO is
 * returned by an operation that could not be tried. An error is allowed if it is always possible,
 * or if the protection of the memory or a hostile mode explains it.
 */
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>

#include "soak.h"

__thread bool soak_is_mover;

static unsigned int worker_nr;
static pid_t child;
static pthread_t mover;
static unsigned int mover_stops;

/* ---- processes ------------------------------------------------------------------- */

static void run_program(unsigned int length);

static void stop_mover(void)
{
	__atomic_store_n(&mover_stops, 1, __ATOMIC_RELEASE);
	pthread_join(mover, NULL);
}

static void enter(struct soak_slot *slot, uint32_t stream)
{
	soak_self = slot;
	slot->stream = stream;
	slot->index = 0;
	slot->pid = getpid();
	soak_beat();
	__atomic_store_n(&slot->active, 1, __ATOMIC_RELEASE);
}

/* A child that failed has recorded why. */
static void reap_child(void)
{
	int status;

	if (!child)
		return;
	while (waitpid(child, &status, 0) != child)
		if (errno != EINTR)
			soak_fail(SOAK_ERROR, "waitpid %d: errno %d", child, errno);
	child = 0;
	__atomic_store_n(&soak_self[1].active, 0, __ATOMIC_RELEASE);
	if (status)
		soak_fail(SOAK_ERROR, "a child ended with status %#x", status);
}

/* Runs another operation, at the same place, with other data. */
static void run_as(const struct soak_op *op, enum soak_kind kind, uint64_t more)
{
	struct soak_op other = *op;

	other.kind = kind;
	other.value += more;
	soak_beat();
	soak_modes_begin();
	if (kind == SOAK_WRITE)
		soak_device_op(&other);
	else
		soak_memory_op(&other);
}

/* The child works on its copy, and compares a part of it, or all of it if a fault was injected. */
static void child_main(uint32_t stream, const struct soak_op *op)
{
	unsigned int i;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	enter(soak_self + 1, stream);
	child = 0;
	soak_close_files();
	for (i = 0; i < SOAK_REGIONS; i++)
		soak_note_state(&soak_regions[i], 0, soak_regions[i].npages, LOCKED, 0);
	run_program(op->value % 40);
	run_as(op, SOAK_TOUCH, 0);
	soak_verify(1 + op->variant % 4);
	if (soak_self->pending)
		soak_verify_at_last();
	_exit(0);
}

static int do_fork(const struct soak_op *op)
{
	uint32_t stream = stream_of(soak_self->stream, soak_self->index, 1);
	int error;

	/* Only workers have a slot for a child. */
	if ((soak_self - soak->slots) % SLOTS_OF_WORKER)
		return -ENXIO;
	reap_child();
	run_as(op, SOAK_WRITE, 0);
	child = fork();
	if (!child)
		child_main(stream, op);
	error = errno;
	/* Mappings of the device are not inherited. */
	run_as(op, SOAK_WRITE, 1);
	if (child > 0)
		return 0;
	/*
	 * The core does not wait for the lock of a folio with an exclusive entry: fork() fails with
	 * ENOMEM.
	 */
	child = 0;
	if (error != ENOMEM)
		soak_fail(SOAK_ERROR, "fork: errno %d", error);
	return -ENOMEM;
}

/* Execs this program: a new worker starts, which knows only its number. */
static int do_exec(const struct soak_op *op)
{
	char nr[16];
	char *const args[] = { "soak", "worker", nr, NULL };

	if ((soak_self - soak->slots) % SLOTS_OF_WORKER)
		return -ENXIO;
	reap_child();
	stop_mover();
	if (op->variant & 1 || soak_self->pending)
		soak_verify_at_last();
	snprintf(nr, sizeof(nr), "%u", worker_nr);
	__atomic_add_fetch(&soak->done[SOAK_EXEC], 1, __ATOMIC_RELAXED);
	execv("/proc/self/exe", args);
	soak_fail(SOAK_ERROR, "exec: errno %d", errno);
}

static int do_verify(const struct soak_op *op)
{
	soak_verify(op->variant % 4 ? 1 + op->variant % 8 : 1);
	return 0;
}

/* ---- programs -------------------------------------------------------------------- */

static int run_kind(const struct soak_op *op)
{
	switch (op->kind) {
	case SOAK_FORK:
		return do_fork(op);
	case SOAK_EXEC:
		return do_exec(op);
	case SOAK_VERIFY:
		return do_verify(op);
	case SOAK_MIGRATE ... SOAK_SNAPSHOT:
		return soak_device_op(op);
	default:
		return soak_memory_op(op);
	}
}

/* True for operations that change no data: they may run beside the main thread. */
static bool only_moves(enum soak_kind kind)
{
	switch (kind) {
	case SOAK_MIGRATE:
	case SOAK_READ:
	case SOAK_EVICT:
	case SOAK_RELEASE:
	case SOAK_REOPEN:
	case SOAK_SNAPSHOT:
	case SOAK_COLLAPSE:
	case SOAK_PAGEOUT:
	case SOAK_SPLIT:
		return true;
	default:
		return false;
	}
}

static void run_op(uint32_t stream, unsigned int index)
{
	struct soak_op op;
	int rc;

	soak_generate(stream, index, &op);
	if (soak_is_mover && !only_moves(op.kind))
		return;
	soak_modes_begin();
	soak_remember(stream, index, &op, false, 0);
	rc = run_kind(&op);
	soak_remember(stream, index, &op, true, rc);
	if (!soak_is_mover) {
		soak_self->ring[index % RING].index = index;
		soak_self->ring[index % RING].rc = rc;
	}
	if (rc != -ENXIO)
		__atomic_add_fetch(rc ? &soak->refused[op.kind] : &soak->done[op.kind], 1,
				   __ATOMIC_RELAXED);
	if (soak_is_mover)
		usleep(op.value % 4000);
}

static void run_program(unsigned int length)
{
	unsigned int i;

	for (i = 0; i < length && !soak_get(stop); i++) {
		soak_self->index = i;
		soak_beat();
		run_op(soak_self->stream, i);
	}
	soak_self->index = i;
	soak_beat();
}

static void *mover_main(void *arg)
{
	struct soak_slot *slot = arg;
	uint32_t stream = stream_of(slot->stream, 0, 2);
	unsigned int i;

	soak_self = slot;
	soak_is_mover = true;
	for (i = 0; !__atomic_load_n(&mover_stops, __ATOMIC_ACQUIRE); i++)
		run_op(stream, i);
	soak_close_files();
	return NULL;
}

/**
 * soak_worker_main() - run a worker
 * @nr: number of the worker
 *
 * Does not return.
 */
void soak_worker_main(unsigned int nr)
{
	struct soak_slot *slot = &soak->slots[nr * SLOTS_OF_WORKER];
	uint32_t stream = stream_of(soak->seed, nr, slot->generation);

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	worker_nr = nr;
	slot->generation++;
	enter(slot, stream);
	soak_model_begin();
	soak_fill(stream);
	if (pthread_create(&mover, NULL, mover_main, slot))
		soak_fail(SOAK_ERROR, "no thread");
	run_program(UINT_MAX);
	stop_mover();
	reap_child();
	soak_verify_at_last();
	_exit(0);
}
