// SPDX-License-Identifier: GPL-2.0-only
/*
 * The soak test: processes run random operations on a device that fails, is slow, full, and is
 * unbound, and in the end every byte of every process has to be right.
 *
 *	soak		run, for SOAK_SECONDS
 *	soak worker NR	a worker that starts again by exec
 *
 *   SOAK_SECONDS	duration (default 10)
 *   SOAK_SEED		seed of all programs (default: the time)
 *   SOAK_PROCESSES	workers (default 6)
 *
 * This file is the supervisor. It runs rounds. In a round workers run their programs
 * (soak_worker.c), and it kills some of them, turns hostile modes on and off (soak_modes.c), and
 * unbinds devices and binds them again. At the end of the round it turns off all modes; each worker
 * compares all of its memory with the shadow copy (soak_model.c) and ends. Then no device may have
 * a page in use, and AUDIT no violation.
 *
 * A process is stuck if it makes no progress during time in which the supervisor itself runs: a
 * host that stops also stops the supervisor.
 */
#include <dirent.h>
#include <stdarg.h>

#include "hmm_ref_utils.h"
#include "hmm_ref_swap.h"
#include "soak.h"

#define SHARED_FD	100
#define TICK_US		20000
#define STUCK_MS	300000
#define MORE_ROUNDS	20U	/* for a slow machine, until all has happened */
#define LIVES		15U	/* operations of a worker before it may be killed */
#define ROUND		50U	/* operations per worker before a round may end */

struct soak_shared *soak;
__thread struct soak_slot *soak_self;

/* Settings of the kernel for the test, and their old values. */
static struct {
	const char *path, *value;
	char was[24];
} knobs[] = {
	{ "/sys/kernel/mm/ksm/run", "1" },
	{ "/sys/kernel/mm/ksm/sleep_millisecs", "20" },
	{ "/sys/kernel/mm/ksm/pages_to_scan", "500" },
	{ "/sys/kernel/mm/transparent_hugepage/khugepaged/scan_sleep_millisecs", "50" },
	{ "/sys/kernel/mm/transparent_hugepage/khugepaged/alloc_sleep_millisecs", "50" },
};

static struct {
	uint64_t random;
	pid_t workers[MAX_WORKERS];
	bool killed[MAX_WORKERS];
	pid_t unbinder;
	unsigned int to_rebind;		/* bit mask of devices; one of them is lost */
	struct {
		uint64_t beats;
		unsigned int ms;	/* since its last progress */
	} seen[SLOTS + 1];		/* the last element is the unbinder */
	unsigned long long last_tick;
	struct hmm_ref_stats last[HMM_REF_MAX_DEVICES];
	int swap;
} super;

struct soak_totals soak_totals;

/* Events of the kernel that the test counts. */
static struct {
	const char *counter;
	unsigned long before;
} events[] = {
	{ "pswpout", 0 }, { "pswpin", 0 }, { "pglazyfreed", 0 }, { "ksm_swpin_copy", 0 },
	{ "cow_ksm", 0 }, { "thp_collapse_alloc", 0 }, { "thp_split_page", 0 },
	{ "thp_split_pmd", 0 },
};

/**
 * soak_print_events() - print how often each event of the kernel has happened
 */
void soak_print_events(void)
{
	unsigned int i;

	printf("# the kernel's counters:");
	for (i = 0; i < ARRAY_SIZE(events); i++)
		printf(" %s %lu", events[i].counter,
		       vm_counter(events[i].counter) - events[i].before);
	printf("\n");
}

/* ---- failures -------------------------------------------------------------------- */

/**
 * soak_complain() - record the first failure
 * @failure: test that fails
 * @format: description
 */
void soak_complain(enum soak_failure failure, const char *format, ...)
{
	unsigned int none = SOAK_NONE;
	char text[300];
	va_list args;

	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	if (!__atomic_compare_exchange_n(&soak->failed, &none, failure, false, __ATOMIC_ACQ_REL,
					 __ATOMIC_ACQUIRE))
		return;
	if (soak_self)
		snprintf(soak->why, sizeof(soak->why), "%08x#%u pid %d: %s", soak_self->stream,
			 soak_self->index, getpid(), text);
	else
		snprintf(soak->why, sizeof(soak->why), "%s", text);
	soak_set(told, 1);
}

/**
 * soak_beat() - record progress of the current process
 */
void soak_beat(void)
{
	__atomic_store_n(&soak_self->beats, soak_self->beats + 1, __ATOMIC_RELAXED);
}

static void show_stack(pid_t pid)
{
	char path[64], text[4096];

	snprintf(path, sizeof(path), "/proc/%d/stack", pid);
	if (read_file(path, text, sizeof(text)) > 0)
		printf("# stack of %d:\n%s", pid, text);
}

/* Shows all threads, and all tasks in the kernel's log. */
static void show_stuck(pid_t pid)
{
	char path[64];
	struct dirent *entry;
	DIR *tasks;

	snprintf(path, sizeof(path), "/proc/%d/task", pid);
	tasks = opendir(path);
	while (tasks && (entry = readdir(tasks)))
		if (isdigit(entry->d_name[0]))
			show_stack(atoi(entry->d_name));
	if (tasks)
		closedir(tasks);
	fflush(stdout);
	write_file("/proc/sysrq-trigger", "t");
}

/* ---- workers --------------------------------------------------------------------- */

static void start_worker(unsigned int nr)
{
	pid_t pid;

	fflush(stdout);
	pid = fork();
	if (!pid) {
		setpgid(0, 0);
		soak_worker_main(nr);
	}
	if (pid < 0) {
		soak_complain(SOAK_ERROR, "fork: errno %d", errno);
		return;
	}
	setpgid(pid, pid);
	super.workers[nr] = pid;
	super.killed[nr] = false;
}

/* Also ends its child, which is a child of this process now. */
static void end_group(unsigned int nr, pid_t group)
{
	struct soak_slot *slot = &soak->slots[nr * SLOTS_OF_WORKER];
	unsigned int i;

	kill(-group, SIGKILL);
	while (waitpid(-group, NULL, 0) > 0 || errno == EINTR)
		;
	for (i = 0; i < SLOTS_OF_WORKER; i++, slot++) {
		slot->active = 0;
		soak_totals.gone += slot->pending;
		slot->pending = 0;
	}
}

static unsigned int reap_workers(bool replace)
{
	unsigned int nr, left = 0;
	int status;
	pid_t pid;

	for (nr = 0; nr < soak->workers; nr++) {
		pid = super.workers[nr];
		if (pid && waitpid(pid, &status, WNOHANG) == pid) {
			super.workers[nr] = 0;
			if (super.killed[nr] && WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL)
				status = 0;
			if (status)
				soak_complain(SOAK_ERROR, "worker %u, pid %d: status %#x", nr,
					      pid, status);
			end_group(nr, pid);
		}
		if (!super.workers[nr] && replace && !soak_get(failed))
			start_worker(nr);
		left += !!super.workers[nr];
	}
	return left;
}

static void kill_worker(unsigned int nr)
{
	struct soak_slot *slot = &soak->slots[nr * SLOTS_OF_WORKER];

	if (!super.workers[nr] || slot->pid != super.workers[nr] || slot->index < LIVES)
		return;
	super.killed[nr] = true;
	kill(super.workers[nr], SIGKILL);
	soak_totals.kills++;
}

/* ---- unbind ---------------------------------------------------------------------- */

/* Injected faults may make bind fail: it is repeated then. */
static void unbind_and_bind(unsigned int nr, unsigned int pause_us)
{
	int rc = device_unbind(nr);

	if (rc)
		soak_fail(SOAK_ERROR, "unbind of device %u: %d", nr, rc);
	usleep(pause_us);
	while ((rc = device_bind(nr))) {
		if (rc != -ENOMEM && rc != -EBUSY)
			soak_fail(SOAK_ERROR, "bind of device %u: %d", nr, rc);
		usleep(10000);
	}
	_exit(0);
}

static void start_unbind(unsigned int nr, unsigned int pause_us)
{
	if (super.unbinder || !device_can_unbind(nr))
		return;
	fflush(stdout);
	super.unbinder = fork();
	if (!super.unbinder)
		unbind_and_bind(nr, pause_us);
	if (super.unbinder < 0)
		super.unbinder = 0;
	super.seen[SLOTS].ms = 0;
	soak_totals.unbinds++;
}

/* One of the devices is lost. Binding all of them makes it usable again. */
static void rebind_lost(void)
{
	unsigned int nr;

	if (soak_modes_take_loss()) {
		soak_totals.losses++;
		super.to_rebind = (1U << soak->devices) - 1;
	}
	if (!super.to_rebind || super.unbinder)
		return;
	nr = ffs(super.to_rebind) - 1;
	super.to_rebind &= ~(1U << nr);
	start_unbind(nr, 0);
}

static bool reap_unbinder(void)
{
	if (super.unbinder && waitpid(super.unbinder, NULL, WNOHANG) == super.unbinder)
		super.unbinder = 0;
	return !super.unbinder;
}

/* ---- progress -------------------------------------------------------------------- */

static void watch(unsigned int nr, pid_t pid, uint64_t beats, unsigned int ms)
{
	if (!pid || super.seen[nr].beats != beats) {
		super.seen[nr].beats = beats;
		super.seen[nr].ms = 0;
		return;
	}
	super.seen[nr].ms += ms;
	if (super.seen[nr].ms < STUCK_MS || soak_get(failed))
		return;
	soak_complain(SOAK_STUCK, "pid %d has done nothing for %u s", pid, STUCK_MS / 1000);
	show_stuck(pid);
}

/* While the supervisor itself did not run, little time is counted. */
static void watch_progress(void)
{
	unsigned long long now = now_ms(), since = now - super.last_tick;
	unsigned int ms = since < 1000 ? since : 1000, i;

	super.last_tick = now;
	for (i = 0; i < SLOTS; i++) {
		struct soak_slot *slot = &soak->slots[i];

		watch(i, slot->active ? slot->pid : 0,
		      __atomic_load_n(&slot->beats, __ATOMIC_RELAXED), ms);
	}
	watch(SLOTS, super.unbinder, 0, ms);
}

/* ---- devices --------------------------------------------------------------------- */

static void add_stats(struct hmm_ref_stats *was, const struct hmm_ref_stats *now)
{
	static const struct hmm_ref_stats none;

	if (now->out_invalidations < was->out_invalidations)
		*was = none;	/* it has been bound again */
	soak_totals.to_device += now->out_to_device - was->out_to_device;
	soak_totals.to_system += now->out_to_system - was->out_to_system;
	soak_totals.cpu_faults += now->out_cpu_faults - was->out_cpu_faults;
	soak_totals.device_faults += now->out_device_faults - was->out_device_faults;
	soak_totals.evicted += now->out_evicted - was->out_evicted;
	soak_totals.exclusive += now->out_exclusive - was->out_exclusive;
	*was = *now;
}

/* A device that is unbound at the moment is skipped. */
static void look_at_devices(void)
{
	struct hmm_ref_stats stats;
	uint64_t held = 0;
	unsigned int i;
	int fd;

	for (i = 0; i < soak->devices; i++) {
		fd = hmm_ref_open(i);
		if (fd < 0)
			continue;
		if (!_test_stats(fd, &stats)) {
			add_stats(&super.last[i], &stats);
			held += stats.out_pages_in_use;
		}
		close(fd);
	}
	soak_totals.samples++;
	soak_totals.held += held;
	soak_totals.most = held > soak_totals.most ? held : soak_totals.most;
}

static void audit_device(unsigned int nr)
{
	struct hmm_ref_audit audit;
	struct hmm_ref_stats stats;
	int fd = hmm_ref_open(nr);
	unsigned int tries;
	int rc;

	if (fd < 0) {
		soak_complain(SOAK_LEAK, "device %u does not open: %d", nr, fd);
		return;
	}
	rc = leak_wait(fd, 0, &stats);
	/* The batch of each CPU may hold a reference to an mlocked page until it is drained. */
	for (tries = 0; rc == -ETIMEDOUT && tries < 3; tries++) {
		write_file("/proc/sys/vm/compact_memory", "1");
		rc = leak_wait(fd, 0, &stats);
	}
	if (rc)
		soak_complain(SOAK_LEAK, "device %u: %d, %llu pages in use and %llu reserved",
			      nr, rc, stats.out_pages_in_use, stats.out_pages_reserved);
	rc = _test_audit(fd, &audit);
	if (rc || audit.out_violations || audit.out_in_use ||
	    audit.out_total != audit.out_free + audit.out_retired)
		soak_complain(SOAK_LEAK, "device %u: AUDIT %d, %llu violations, %llu in use", nr,
			      rc, audit.out_violations, audit.out_in_use);
	close(fd);
	soak_totals.audits++;
}

/* ---- rounds ---------------------------------------------------------------------- */

static void tick(void)
{
	reap_workers(true);
	reap_unbinder();
	watch_progress();
	soak_modes_tick(soak_operations(), &super.random);
	if (!below(&super.random, 10))
		look_at_devices();
	if (!below(&super.random, 100))
		kill_worker(below(&super.random, soak->workers));
	rebind_lost();
	if (!below(&super.random, 120))
		start_unbind(below(&super.random, soak->devices),
			     below(&super.random, 300000));
	usleep(TICK_US);
}

/* All workers compare their memory and end. */
static void end_round(void)
{
	unsigned int i;

	soak_modes_calm();
	soak_set(stop, 1);
	while (!soak_get(failed) &&
	       (reap_workers(false) | !reap_unbinder() || super.to_rebind)) {
		watch_progress();
		rebind_lost();
		usleep(TICK_US);
	}
	soak_set(stop, 0);
	for (i = 0; i < soak->devices && !soak_get(failed); i++)
		audit_device(i);
	look_at_devices();
}

static void run_round(unsigned int ms)
{
	unsigned long long begin = now_ms();
	uint64_t before = soak_operations();
	const char *missing;

	super.last_tick = begin;
	while (!soak_get(failed) &&
	       (now_ms() < begin + ms || (now_ms() < begin + 10ULL * ms &&
					  soak_operations() - before < ROUND * soak->workers)))
		tick();
	end_round();
	soak_totals.rounds++;
	missing = soak_not_done();
	printf("# round %u: %llu operations, %llu faults met, %llu MiB compared%s%s\n",
	       soak_totals.rounds, (unsigned long long)(soak_operations() - before),
	       (unsigned long long)soak_sum_of(injected),
	       (unsigned long long)soak_sum_of(verified) >> 20,
	       missing ? ", still to come: " : "", missing ? missing : "");
	fflush(stdout);
}

static void run(unsigned int seconds)
{
	unsigned long long end = now_ms() + 1000ULL * seconds;
	unsigned int ms = seconds >= 60 ? 20000 : seconds > 4 ? 1000 * seconds / 2 : 2000;
	unsigned int more = 0;

	while (!soak_get(failed) &&
	       (now_ms() < end || (soak_not_done() && more++ < MORE_ROUNDS)))
		run_round(ms);
}

/* ---- before and after ------------------------------------------------------------ */

static void map_shared(void)
{
	soak = mmap(NULL, sizeof(*soak), PROT_READ | PROT_WRITE, MAP_SHARED, SHARED_FD, 0);
	if (soak == MAP_FAILED)
		ksft_exit_fail_msg("no shared memory: errno %d\n", errno);
}

static void make_shared(void)
{
	int fd = memfd_create("soak", 0);

	if (fd < 0 || ftruncate(fd, sizeof(*soak)) || dup2(fd, SHARED_FD) < 0)
		ksft_exit_fail_msg("no shared memory: errno %d\n", errno);
	close(fd);
	map_shared();
}

static void set_up(void)
{
	unsigned int i;
	int rc;

	make_shared();
	soak->seed = random_seed("SOAK_SEED");
	soak->workers = env_number("SOAK_PROCESSES", 6);
	if (!soak->workers || soak->workers > MAX_WORKERS)
		ksft_exit_fail_msg("SOAK_PROCESSES must be from 1 to %u\n", MAX_WORKERS);
	soak->devices = hmm_ref_count();
	soak->core_fixed = core_is_fixed();
	super.random = stream_of(soak->seed, 0, 3);
	prctl(PR_SET_CHILD_SUBREAPER, 1);
	for (i = 0; i < ARRAY_SIZE(events); i++)
		events[i].before = vm_counter(events[i].counter);
	super.swap = swap_begin();
	if (super.swap < 0)
		ksft_print_msg("no swap: %d\n", super.swap);
	for (i = 0; i < ARRAY_SIZE(knobs); i++) {
		if (read_file(knobs[i].path, knobs[i].was, sizeof(knobs[i].was)) > 0)
			write_file(knobs[i].path, knobs[i].value);
	}
	rc = soak_modes_setup();
	if (rc)
		ksft_exit_fail_msg("the module's parameters: %d\n", rc);
}

static void clean_up(void)
{
	unsigned long long deadline = now_ms() + PATIENCE_MS;
	unsigned int i;

	soak_modes_restore();
	for (i = 0; i < soak->workers; i++) {
		if (super.workers[i])
			kill(-super.workers[i], SIGKILL);
	}
	/* A process that is stuck does not exit. The module stays as it is then. */
	while (now_ms() < deadline && waitpid(-1, NULL, WNOHANG) >= 0)
		usleep(TICK_US);
	write_file(knobs[0].path, "2");		/* no page stays merged */
	for (i = 0; i < ARRAY_SIZE(knobs); i++)
		write_file(knobs[i].path, knobs[i].was);
	if (super.swap == 1 && !soak->failed)
		swap_end();
}

int main(int argc, char **argv)
{
	unsigned int seconds = env_number("SOAK_SECONDS", 10);

	if (argc == 3 && !strcmp(argv[1], "worker")) {
		map_shared();
		soak_worker_main(atoi(argv[2]));
	}
	hmm_ref_require(argc, argv);
	soak_report_begin();
	set_up();
	ksft_print_msg("seed %llu, %u processes, %u devices\n", (unsigned long long)soak->seed,
		       soak->workers, soak->devices);
	run(seconds);
	clean_up();
	soak_report(seconds);
}
