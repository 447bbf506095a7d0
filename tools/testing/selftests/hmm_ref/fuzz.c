// SPDX-License-Identifier: GPL-2.0-only
/*
 * A fuzzer that needs nothing but the machine: see fuzzing.rst.
 *
 *   fuzz [SEED [SECONDS]]		run; SEED 0 is the time
 *   fuzz list STREAM FROM COUNT	print a part of a program
 *
 * This file is the supervisor. It starts workers, replaces those that end, sends them
 * signals and kills them; turns the knobs; takes devices away and gives them back. Every
 * few seconds it has all of them pause, audits the devices, and does what cannot be
 * done while others run. It watches the kernel's log and that everybody gets on. When
 * anything is wrong it prints the log of operations and exits with 1.
 *
 * Where devices keep large folios, two things never overlap, because of a race in the
 * core (large-folios.rst): somebody drops a PMD, and its folio comes back from the
 * device. So there is no eviction and no unbind but in pauses, processes have one
 * thread, and no child shares memory that a PMD could map.
 */
#include "hmm_ref_fuzz_worker.h"
#include "hmm_ref_swap.h"

#define DRIVER		"/sys/bus/platform/drivers/hmm_ref/"
#define FAIL_COPY	"/sys/kernel/debug/hmm_ref/fail_copy/"
#define FAIL_LARGE	"/sys/kernel/debug/hmm_ref/fail_large/"
#define TICK_US		20000
#define PAUSE_MS	5000		/* between two pauses */
#define MORE_MS		60000		/* for a slow machine */
#define STUCK_MS	120000
#define MAX_RETIRED	64

static struct {
	struct rng rng;
	pid_t workers[WORKERS];
	unsigned int generations[WORKERS];
	struct {
		unsigned int index;
		uint32_t stream;
		uint64_t since;
	} seen[SLOTS];
	pid_t unbinder;
	uint64_t unbind_since;
	uint64_t next_pause, inject_until;
	unsigned int retired, pauses, kills, unbinds;
	struct hmm_ref_stats last[HMM_REF_MAX_DEVICES];
	uint64_t to_device, to_system, cpu_faults, evicted, exclusive, device_faults, home;
	int kmsg;
	int swap;
} super;

/* ---- what the kernel says ---------------------------------------------------------- */

/* As scripts/tripwire.sh, but soon enough to print what has just been done. */
static void watch_kernel(void)
{
	static const char *const splats[] = {
		"WARNING: ", "BUG: ", "KASAN: ", "UBSAN: ", "INFO: possible", "INFO: task ",
		"Oops", "Bad page", "refcount_t: ", "corruption", "suspicious RCU",
		"page_table_check", "Bad rss-counter", "soft lockup", "suspected memory leak",
	};
	char text[2048];
	unsigned int i;
	ssize_t n;

	while ((n = read(super.kmsg, text, sizeof(text) - 1)) > 0 || errno == EPIPE) {
		if (n < 0)
			continue;
		text[n] = '\0';
		for (i = 0; i < ARRAY_SIZE(splats); i++)
			if (strstr(text, splats[i]))
				fuzz_complain("kernel: %.200s", strchr(text, ';') + 1);
	}
}

/* Who sleeps where, and what runs. */
static void show_tasks(void)
{
	write_file("/proc/sysrq-trigger", "w");
	write_file("/proc/sysrq-trigger", "l");
}

static void add_stats(struct hmm_ref_stats *was, const struct hmm_ref_stats *now)
{
	static const struct hmm_ref_stats none;

	if (now->out_invalidations < was->out_invalidations)
		*was = none;	/* it was bound again */
	super.to_device += now->out_to_device - was->out_to_device;
	super.to_system += now->out_to_system - was->out_to_system;
	super.cpu_faults += now->out_cpu_faults - was->out_cpu_faults;
	super.evicted += now->out_evicted - was->out_evicted;
	super.exclusive += now->out_exclusive - was->out_exclusive;
	super.device_faults += now->out_device_faults - was->out_device_faults;
	*was = *now;
}

/* A device that is not there at the moment is not looked at. */
static void look_at_devices(bool audit_too)
{
	struct hmm_ref_audit audit;
	struct hmm_ref_stats stats;
	unsigned int i;
	int fd;

	for (i = 0; i < shared->devices; i++) {
		fd = hmm_ref_open(i);
		if (fd < 0)
			continue;
		if (!_test_stats(fd, &stats))
			add_stats(&super.last[i], &stats);
		if (audit_too && !_test_audit(fd, &audit) &&
		    (audit.out_violations || audit.out_total != audit.out_free +
		     audit.out_in_use + audit.out_retired))
			fuzz_complain("device %u: %llu violations", i, audit.out_violations);
		close(fd);
	}
}

/* ---- workers ----------------------------------------------------------------------- */

static void start_worker(unsigned int nr)
{
	pid_t pid;

	fflush(stdout);
	pid = fork();
	if (!pid)
		process_main(nr, super.generations[nr]);
	if (pid < 0) {
		fuzz_complain("fork: errno %d", errno);
		return;
	}
	setpgid(pid, pid);
	super.workers[nr] = pid;
	super.generations[nr]++;
}

/* Its children are ours now: when this returns they have given back their memory. */
static void end_group(unsigned int nr, pid_t group)
{
	uint64_t deadline = now_ms() + STUCK_MS;
	unsigned int i;
	pid_t pid;

	kill(-group, SIGKILL);
	do {
		pid = waitpid(-group, NULL, WNOHANG);
		if (!pid)
			usleep(1000);
		if (now_ms() > deadline) {
			fuzz_complain("a child of group %d does not die", group);
			break;
		}
	} while (pid >= 0);
	for (i = 0; i < SLOTS_OF_WORKER; i++)
		shared->slots[nr * SLOTS_OF_WORKER + i].active = 0;
}

static void reap_workers(bool replace)
{
	unsigned int i;
	int status;

	for (i = 0; i < WORKERS; i++) {
		pid_t pid = super.workers[i];

		if (pid && waitpid(pid, &status, WNOHANG) == pid) {
			super.workers[i] = 0;
			if (WIFSIGNALED(status) ? WTERMSIG(status) != SIGKILL :
						  WEXITSTATUS(status))
				fuzz_complain("worker %u, pid %d, ended with status %#x",
					      i, pid, status);
			end_group(i, pid);
		}
		if (!super.workers[i] && replace && !shared->failed)
			start_worker(i);
	}
}

static unsigned int count_workers(void)
{
	unsigned int i, n = 0;

	for (i = 0; i < WORKERS; i++)
		n += !!super.workers[i];
	return n;
}

static void kill_worker(unsigned int nr)
{
	if (super.workers[nr])
		kill(super.workers[nr], SIGKILL);
	super.kills++;
}

static void watch_progress(void)
{
	unsigned int i;

	for (i = 0; i < SLOTS; i++) {
		struct fuzz_slot *slot = &shared->slots[i];

		if (!slot->active || slot->parked || super.seen[i].index != slot->index ||
		    super.seen[i].stream != slot->stream) {
			super.seen[i].index = slot->index;
			super.seen[i].stream = slot->stream;
			super.seen[i].since = now_ms();
		} else if (now_ms() - super.seen[i].since > STUCK_MS) {
			show_tasks();
			fuzz_complain("%08x#%u, pid %d, does not get on", slot->stream,
				      slot->index, slot->pid);
		}
	}
}

/* Until all have ended or, when @parked, are asleep. */
static void wait_workers(bool parked)
{
	bool waiting = true;
	unsigned int i;

	while (waiting && !shared->failed) {
		reap_workers(false);
		watch_kernel();
		watch_progress();
		waiting = !parked && count_workers();
		for (i = 0; i < SLOTS && parked; i++)
			waiting |= shared->slots[i].active && !shared->slots[i].parked;
		/* A worker that has just been made is not active yet. */
		for (i = 0; i < WORKERS && parked; i++)
			waiting |= super.workers[i] &&
				   shared->slots[i * SLOTS_OF_WORKER].pid != super.workers[i];
		usleep(2000);
	}
}

/* ---- knobs ------------------------------------------------------------------------- */

static void write_number(const char *path, unsigned long number)
{
	char text[24];

	snprintf(text, sizeof(text), "%lu", number);
	write_file(path, text);
}

static void turn_a_knob(void)
{
	unsigned int nr = below(&super.rng, shared->devices);
	char path[64];

	switch (below(&super.rng, 6)) {
	case 0:
		write_file("/proc/sys/vm/drop_caches", "6");	/* 2, and silent */
		break;
	case 1:
		write_file("/proc/sys/vm/compact_memory", "1");
		break;
	case 2:
		if (super.retired++ >= MAX_RETIRED)
			break;
		snprintf(path, sizeof(path), "/sys/kernel/debug/hmm_ref/hmm_ref%u/retire", nr);
		write_number(path, below(&super.rng, 8192));
		break;
	default:
		snprintf(path, sizeof(path), "/sys/kernel/debug/hmm_ref/hmm_ref%u/fault_around",
			 nr);
		write_number(path, below(&super.rng, 20));
	}
}

/* The copy engine fails now and then, for a second. */
static void inject(bool on)
{
	if (on == (shared->injected & 1))
		return;
	if (on)
		shared_set(injected, shared->injected + 1);
	if (on ? attr_arm(FAIL_COPY, 0, -1) : attr_disarm(FAIL_COPY))
		fuzz_complain("fail_copy cannot be set");
	if (on)
		write_file(FAIL_COPY "probability", "5");
	else
		shared_set(injected, shared->injected + 1);
	super.inject_until = now_ms() + 1000;
}

/* ---- unbind ------------------------------------------------------------------------ */

static void start_unbind(unsigned int pause_us)
{
	char name[24];
	int rc;

	snprintf(name, sizeof(name), "hmm_ref.%u", below(&super.rng, shared->devices));
	fflush(stdout);
	super.unbind_since = now_ms();
	super.unbinds++;
	super.unbinder = fork();
	if (super.unbinder)
		return;
	setpgid(0, 0);
	rc = write_file(DRIVER "unbind", name);
	if (rc)
		fuzz_fail("unbind %s: %d", name, rc);
	usleep(pause_us);
	rc = write_file(DRIVER "bind", name);
	if (rc)
		fuzz_fail("bind %s: %d", name, rc);
	_exit(0);
}

static void watch_unbind(bool wait)
{
	while (super.unbinder && !shared->failed) {
		if (waitpid(super.unbinder, NULL, WNOHANG) == super.unbinder) {
			super.unbinder = 0;
			super.retired = 0;
			return;
		}
		if (now_ms() - super.unbind_since > STUCK_MS) {
			show_tasks();
			fuzz_complain("unbind does not end");
		}
		if (!wait)
			return;
		watch_kernel();
		usleep(10000);
	}
}

/* ---- pauses ------------------------------------------------------------------------ */

static void evict_by_old_device(void)
{
	unsigned int nr = below(&super.rng, shared->old_devices);
	int fd = old_open(nr), rc;

	if (fd < 0)
		return;
	rc = old_release(fd);
	if (rc)
		fuzz_complain("RELEASE of hmm_dmirror%u in a pause: %d", nr, rc);
	close(fd);
}

static void pause_all(void)
{
	inject(false);
	watch_unbind(true);
	shared_set(pause, shared->pause + 1);
	wait_workers(true);
	look_at_devices(true);
	super.pauses++;
	if (shared->large && !shared->failed) {
		unsigned int what = below(&super.rng, 4);

		if (what == 0 && shared->old_devices)
			evict_by_old_device();
		if (what == 1) {
			start_unbind(0);
			watch_unbind(true);
		}
		/* All the time or never: see fuzzing.rst. */
		if (!access(FAIL_LARGE "probability", F_OK) && what < 2)
			attr_arm(FAIL_LARGE, 0, -1);
		else if (!access(FAIL_LARGE "probability", F_OK))
			attr_disarm(FAIL_LARGE);
		look_at_devices(true);
	}
	shared_set(pause, shared->pause + 1);
	super.next_pause = now_ms() + PAUSE_MS;
}

/* ---- the run ----------------------------------------------------------------------- */

static void tick(bool second_half)
{
	unsigned int nr = below(&super.rng, WORKERS);

	reap_workers(true);
	watch_kernel();
	watch_progress();
	watch_unbind(false);
	if (now_ms() > super.next_pause)
		pause_all();
	if (now_ms() > super.inject_until)
		inject(false);
	if (!below(&super.rng, 10))
		turn_a_knob();
	if (!below(&super.rng, 150))
		kill_worker(nr);
	if (!below(&super.rng, 25))
		look_at_devices(!below(&super.rng, 4));
	if (!shared->large && !below(&super.rng, 5) && super.workers[nr])
		kill(super.workers[nr], SIGUSR1);
	if (!shared->large && !below(&super.rng, 150) && !super.unbinder)
		start_unbind(below(&super.rng, 300000));
	if (second_half && !below(&super.rng, 100) && !access(FAIL_COPY "probability", F_OK))
		inject(true);
}

/* Whoever has stack or code on a device must not live when copies begin to fail. */
static void tame(void)
{
	unsigned int i;

	if (!shared->wild)
		return;
	shared_set(wild, 0);
	shared_set(pause, shared->pause + 1);
	for (i = 0; i < WORKERS; i++)
		kill_worker(i);
	wait_workers(false);
	shared_set(pause, shared->pause + 1);
}

static bool has_done_its_job(void)
{
	return super.to_device && super.cpu_faults && super.device_faults &&
	       (shared->large || super.evicted);
}

/* A slow machine gets more time to come to what it is for. */
static void run(unsigned int seconds)
{
	uint64_t start = now_ms(), half = start + 500ULL * seconds;
	uint64_t end = start + 1000ULL * seconds;

	super.next_pause = start + PAUSE_MS;
	while (!shared->failed &&
	       (now_ms() < end || (now_ms() < end + MORE_MS && !has_done_its_job()))) {
		if (now_ms() > half)
			tame();
		tick(now_ms() > half);
		usleep(TICK_US);
	}
	inject(false);
	watch_unbind(true);
	shared_set(stop, 1);
	wait_workers(false);
}

/* A worker may have moved what it shares with this process since fork(). */
static void bring_home(int fd)
{
	FILE *maps = fopen("/proc/self/maps", "re");
	struct hmm_ref_migrate cmd;
	unsigned long start, end;
	char line[256], kind;

	while (maps && fgets(line, sizeof(line), maps)) {
		if (sscanf(line, "%lx-%lx %*3c%c", &start, &end, &kind) == 3 && kind == 'p' &&
		    !_test_migrate(fd, HMM_REF_TO_SYSTEM, (void *)start, end - start, &cmd))
			super.home += cmd.out_migrated;
	}
	if (maps)
		fclose(maps);
}

static void check_empty(void)
{
	struct hmm_ref_stats stats;
	unsigned int i, tries;
	int fd, rc;

	for (i = 0; i < shared->devices; i++) {
		fd = hmm_ref_open(i);
		rc = fd < 0 ? fd : -ETIMEDOUT;
		/*
		 * Of an mlocked page each CPU may keep a reference until it drains its batch,
		 * also a CPU that has put the last reference to an mm that eviction held.
		 */
		for (tries = 0; rc == -ETIMEDOUT && tries < 3; tries++) {
			write_file("/proc/sys/vm/compact_memory", "1");
			bring_home(fd);
			rc = leak_wait(fd, 0, &stats);
		}
		if (rc)
			fuzz_complain("device %u: %d, %llu pages in use by nobody", i, rc,
				      fd < 0 ? 0 : stats.out_pages_in_use);
		if (fd >= 0)
			close(fd);
	}
	look_at_devices(true);
	if (!has_done_its_job())
		fuzz_complain("it has not done what it is for");
}

/* Interrupts what can be interrupted. */
static void on_signal(int sig)
{
}

static void set_up(void)
{
	struct sigaction action = { .sa_handler = on_signal };

	sigaction(SIGUSR1, &action, NULL);
	if (mmap(regions[R_SHARED].base, SMALL_PAGES * PAGE, PROT_READ | PROT_WRITE,
		 MAP_SHARED | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == MAP_FAILED)
		ksft_exit_fail_msg("no shared memory\n");
	shared->large = keeps_large();
	shared->wild = !shared->large;
	shared->devices = hmm_ref_count();
	while (shared->old_devices < 4) {
		char path[32];

		snprintf(path, sizeof(path), "/dev/hmm_dmirror%u", shared->old_devices);
		if (access(path, F_OK))
			break;
		shared->old_devices++;
	}
	prctl(PR_SET_CHILD_SUBREAPER, 1);
	super.kmsg = open("/dev/kmsg", O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	lseek(super.kmsg, 0, SEEK_END);
	super.rng.state = mix(shared->seed ^ 0x73757065);
	super.swap = swap_begin();
	write_file("/sys/kernel/mm/ksm/run", "1");
	write_file("/proc/sys/vm/nr_hugepages", "4");
}

static void clean_up(void)
{
	unsigned int i;

	for (i = 0; i < WORKERS; i++)
		if (super.workers[i])
			kill(-super.workers[i], SIGKILL);
	write_file("/proc/sys/vm/nr_hugepages", "0");
	write_file("/sys/kernel/mm/ksm/run", "2");
	if (super.swap == 1)
		swap_end();
	if (!access(FAIL_LARGE "probability", F_OK))
		attr_disarm(FAIL_LARGE);
}

static void report(unsigned int seconds)
{
	unsigned int i;

	printf("# operations that succeeded/were refused:");
	for (i = 0; i < KINDS; i++)
		printf(" %s %llu/%llu", kinds[i].name, (unsigned long long)shared->done[i],
		       (unsigned long long)shared->refused[i]);
	printf("\n# figure: pages to device %llu, back %llu, evicted %llu, exclusive %llu, ",
	       (unsigned long long)super.to_device, (unsigned long long)super.to_system,
	       (unsigned long long)super.evicted, (unsigned long long)super.exclusive);
	printf("the supervisor's %llu\n", (unsigned long long)super.home);
	printf("# figure: CPU faults %llu, device faults %llu; killed %u, unbound %u, pauses %u\n",
	       (unsigned long long)super.cpu_faults, (unsigned long long)super.device_faults,
	       super.kills, super.unbinds, super.pauses);
	if (shared->failed) {
		for (i = 0; i < SLOTS; i++)
			log_dump(&shared->slots[i]);
		printf("# %s\n", shared->why);
	}
	printf("fuzz: seed %#llx, %u s, %s folios: %s\n", (unsigned long long)shared->seed,
	       seconds, shared->large ? "large" : "small",
	       shared->failed ? "FAILED" : "nothing found");
	fflush(stdout);
}

static int supervise(uint64_t seed, unsigned int seconds)
{
	struct timespec ts;

	clock_gettime(CLOCK_REALTIME, &ts);
	shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE,
		      MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (shared == MAP_FAILED || hmm_ref_probe() || geteuid()) {
		printf("# run as root, with the module hmm_ref loaded\n");
		return KSFT_SKIP;
	}
	if (page_size() != PAGE || block_size() != BLOCK) {
		printf("# pages of 4 KiB only\n");
		return KSFT_SKIP;
	}
	shared->seed = seed ? seed : mix(ts.tv_sec * 1000000000ULL + ts.tv_nsec) >> 32;
	set_up();
	printf("fuzz: seed %#llx, %u s, %u devices, %u of the old interface, %s folios\n",
	       (unsigned long long)shared->seed, seconds, shared->devices,
	       shared->old_devices, shared->large ? "large" : "small");
	run(seconds);
	if (!shared->failed)
		check_empty();
	clean_up();
	report(seconds);
	return shared->failed ? KSFT_FAIL : KSFT_PASS;
}

static int list_program(char **args)
{
	uint32_t stream = strtoul(args[0], NULL, 16);
	unsigned int from = strtoul(args[1], NULL, 0), count = strtoul(args[2], NULL, 0);

	for (; count--; from++) {
		op_print(stream, from);
		printf("\n");
	}
	return 0;
}

int main(int argc, char **argv)
{
	if (argc == 2 && !strcmp(argv[1], "nothing"))
		return 0;
	if (argc == 5 && !strcmp(argv[1], "list"))
		return list_program(argv + 2);
	return supervise(argc > 1 ? strtoull(argv[1], NULL, 0) : 0,
			 argc > 2 ? strtoul(argv[2], NULL, 0) : 10);
}
