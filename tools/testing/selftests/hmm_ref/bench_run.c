// SPDX-License-Identifier: GPL-2.0-only
/*
 * The workers of the benchmark: processes with threads, each with a job of its own.
 *
 * The controller sets a command, increments the phase and sleeps until all workers are done. A
 * worker runs the phases one after the other. Before a timed run the workers meet, so that they
 * begin at the same time. Each measures its own time: a repetition lasts from the first begin to
 * the last end.
 *
 * All of this state is in shared memory, with futexes. The controller wakes up every second to
 * check whether a process has died.
 */
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <linux/futex.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "bench.h"

struct team *team;

struct worker_arg {
	const struct task *task;
	unsigned int index;
};

static pid_t team_pids[MAX_WORKERS];

/* ---- waiting --------------------------------------------------------------------- */

static void futex_wait(unsigned int *word, unsigned int value, unsigned int seconds)
{
	struct timespec time = { .tv_sec = seconds };

	syscall(__NR_futex, word, FUTEX_WAIT, value, &time, NULL, 0);
}

static void futex_wake(unsigned int *word)
{
	syscall(__NR_futex, word, FUTEX_WAKE, INT_MAX, NULL, NULL, 0);
}

static unsigned int team_get(const unsigned int *word)
{
	return __atomic_load_n(word, __ATOMIC_ACQUIRE);
}

/* All workers are awake. There may be more of them than CPUs, so the CPU is yielded. */
static void team_meet(void)
{
	__atomic_add_fetch(&team->met, 1, __ATOMIC_ACQ_REL);
	while (team_get(&team->met) < team->nworkers)
		sched_yield();
}

/* ---- a worker -------------------------------------------------------------------- */

/* Returns the CPUs of a node, or all CPUs for -1. */
void node_cpus(int node, cpu_set_t *cpus)
{
	unsigned int first, last;
	char path[80], comma;
	FILE *file;

	sched_getaffinity(0, sizeof(*cpus), cpus);
	snprintf(path, sizeof(path), "/sys/devices/system/node/node%d/cpulist", node);
	file = node < 0 ? NULL : fopen(path, "r");
	if (!file)
		return;
	CPU_ZERO(cpus);
	while (fscanf(file, "%u", &first) == 1) {
		last = first;
		if (fscanf(file, "-%u", &last) < 0)
			break;
		for (; first <= last && first < CPU_SETSIZE; first++)
			CPU_SET(first, cpus);
		if (fscanf(file, "%c", &comma) != 1)
			break;
	}
	fclose(file);
}

/* Gives each worker its own CPU, if there are enough. */
static int pin(unsigned int index, const cpu_set_t *cpus)
{
	unsigned int n = CPU_COUNT(cpus);
	unsigned int cpu;
	cpu_set_t one;

	if (!n)
		return -ENODEV;
	n = index % n;
	for (cpu = 0; cpu < CPU_SETSIZE; cpu++) {
		if (CPU_ISSET(cpu, cpus) && !n--)
			break;
	}
	CPU_ZERO(&one);
	CPU_SET(cpu, &one);
	return sched_setaffinity(0, sizeof(one), &one) ? -errno : 0;
}

static int worker_run(struct job *job, struct worker_state *state, bool latency)
{
	int rc;

	job->hist = latency ? &state->hist : NULL;
	team_meet();
	state->start = now_ns();
	rc = job_run(job);
	state->end = now_ns();
	return rc;
}

static int worker_command(struct job *job, struct worker_state *state, enum command command)
{
	switch (command) {
	case CMD_PREPARE:
		return job_prepare(job);
	case CMD_RUN:
		return worker_run(job, state, false);
	case CMD_LATENCY:
		return worker_run(job, state, true);
	case CMD_CHECK:
		return job_check(job);
	default:
		return 0;
	}
}

static void *worker_main(void *data)
{
	const struct worker_arg *arg = data;
	const struct figure *figure = arg->task->figure;
	struct worker_state *state = &team->workers[arg->index];
	unsigned int phase = 0;
	struct job job = {
		.source = figure->source, .op = figure->op, .fill = figure->fill,
		.verify = arg->task->verify, .seed = 1000 * (arg->index + 1),
		.nodes = { arg->task->nodes[0], arg->task->nodes[1] },
	};
	enum command command;
	int broken;

	broken = pin(arg->index, &arg->task->cpus);
	if (!broken)
		broken = job_init(&job, figure->size, figure->kind, arg->task->mem_node);
	do {
		while (team_get(&team->phase) == phase)
			futex_wait(&team->phase, phase, 1);
		phase++;
		/* As soon as the last worker is done, the controller may set the next command. */
		command = team->command;
		state->rc = broken ? broken : worker_command(&job, state, command);
		/* The other workers wait for it. */
		if (broken && (command == CMD_RUN || command == CMD_LATENCY))
			team_meet();
		if (command == CMD_QUIT && !broken)
			job_exit(&job);
		if (__atomic_add_fetch(&team->done, 1, __ATOMIC_ACQ_REL) == team->nworkers)
			futex_wake(&team->done);
	} while (command != CMD_QUIT);
	return NULL;
}

static void process_main(const struct task *task, unsigned int process)
{
	unsigned int threads = task->figure->threads, i;
	struct worker_arg args[MAX_WORKERS];
	pthread_t others[MAX_WORKERS];

	signal(SIGINT, SIG_IGN);
	for (i = 0; i < threads; i++) {
		args[i].task = task;
		args[i].index = process * threads + i;
		if (i && pthread_create(&others[i], NULL, worker_main, &args[i]))
			_exit(1);
	}
	worker_main(&args[0]);
	for (i = 1; i < threads; i++)
		pthread_join(others[i], NULL);
	_exit(0);
}

/* ---- the controller -------------------------------------------------------------- */

int team_alloc(void)
{
	team = mmap(NULL, sizeof(*team), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS,
		    -1, 0);
	return team == MAP_FAILED ? -errno : 0;
}

/*
 * A process begins on the CPU that it stays on. A CPU that it has left would have to flush its TLB,
 * too.
 */
int team_start(const struct task *task)
{
	cpu_set_t before;
	unsigned int i;
	int rc = 0;

	memset(team, 0, sizeof(*team));
	memset(team_pids, 0, sizeof(team_pids));
	team->nworkers = task->figure->threads * task->figure->processes;
	sched_getaffinity(0, sizeof(before), &before);
	for (i = 0; i < task->figure->processes && !rc; i++) {
		pin(i * task->figure->threads, &task->cpus);
		team_pids[i] = fork();
		if (!team_pids[i])
			process_main(task, i);
		if (team_pids[i] < 0)
			rc = -errno;
	}
	sched_setaffinity(0, sizeof(before), &before);
	return rc;
}

/* A process that ends without being told to has crashed. */
static bool team_is_alive(void)
{
	unsigned int i;

	for (i = 0; i < MAX_WORKERS; i++) {
		if (team_pids[i] > 0 && waitpid(team_pids[i], NULL, WNOHANG) == team_pids[i]) {
			team_pids[i] = 0;
			return false;
		}
	}
	return true;
}

/* True if all processes have been started. */
bool team_is_whole(unsigned int processes)
{
	unsigned int i;

	for (i = 0; i < processes; i++)
		if (team_pids[i] <= 0)
			return false;
	return true;
}

/* Runs a command in all workers. Returns the first error. */
int team_do(enum command command)
{
	unsigned int i, done;

	team->command = command;
	team->done = 0;
	team->met = 0;
	__atomic_add_fetch(&team->phase, 1, __ATOMIC_ACQ_REL);
	futex_wake(&team->phase);
	while ((done = team_get(&team->done)) < team->nworkers) {
		futex_wait(&team->done, done, 1);
		if (command != CMD_QUIT && team_get(&team->done) == done && !team_is_alive())
			return -ECHILD;
	}
	for (i = 0; i < team->nworkers; i++) {
		if (team->workers[i].rc)
			return team->workers[i].rc;
	}
	return 0;
}

/* Returns how long the last run took, in ns. */
double team_time(void)
{
	unsigned long long start = ~0ULL, end = 0;
	unsigned int i;

	for (i = 0; i < team->nworkers; i++) {
		const struct worker_state *state = &team->workers[i];

		start = state->start < start ? state->start : start;
		end = state->end > end ? state->end : end;
	}
	return end - start;
}

void team_stop(bool healthy)
{
	unsigned int i;

	if (healthy)
		team_do(CMD_QUIT);
	for (i = 0; i < MAX_WORKERS; i++) {
		if (team_pids[i] <= 0)
			continue;
		if (!healthy)
			kill(team_pids[i], SIGKILL);
		waitpid(team_pids[i], NULL, 0);
	}
}
