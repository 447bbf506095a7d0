// SPDX-License-Identifier: GPL-2.0-only
/*
 * A fuzzer without dependencies: see fuzzing.rst.
 *
 *   fuzz [SEED [SECONDS]]		run; SEED 0 is the time
 *   fuzz list STREAM FROM COUNT	print operations of a program
 *
 * FUZZ_POISON=N: up to N pages are poisoned (fuzz_poison.c). FUZZ_GUARD=0: writes that bypass
 * userfaultfd are not detected.
 *
 * This file is the supervisor. It starts workers, replaces those that end, sends them
 * signals and kills them. It changes settings of the kernel and of the driver, and unbinds and
 * binds devices. Every few seconds it pauses all workers, audits the devices, and runs the steps
 * that need a pause. It watches the kernel's log and the progress of each worker. When a check
 * fails it prints the log of operations and exits with 1.
 */
#include <sys/socket.h>

#include "hmm_ref_old.h"
#include "hmm_ref_swap.h"
#include "fuzz.h"

#define TICK_US		20000
#define PAUSE_MS	5000		/* time between two pauses */
#define MORE_MS		60000		/* extra time on a slow machine */
#define STUCK_MS	120000

/* ---- workers --------------------------------------------------------------------- */

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

/*
 * The children of the worker are now children of this process. When this returns, they have freed
 * their memory.
 */
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

/* Waits until all workers have ended or, with @parked, are asleep. */
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
		/* A worker that has just been forked is not active yet. */
		for (i = 0; i < WORKERS && parked; i++)
			waiting |= super.workers[i] &&
				   shared->slots[i * SLOTS_OF_WORKER].pid != super.workers[i];
		usleep(2000);
	}
}

/* ---- unbind ---------------------------------------------------------------------- */

static void start_unbind(unsigned int pause_us)
{
	unsigned int nr = below(&super.random, shared->devices);
	int rc;

	fflush(stdout);
	super.unbind_since = now_ms();
	super.unbinds++;
	super.unbinder = fork();
	if (super.unbinder)
		return;
	setpgid(0, 0);
	rc = device_unbind(nr);
	if (rc)
		fuzz_fail("unbind %u: %d", nr, rc);
	usleep(pause_us);
	rc = device_bind(nr);
	if (rc)
		fuzz_fail("bind %u: %d", nr, rc);
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

/* ---- pauses ---------------------------------------------------------------------- */

static void evict_by_old_device(void)
{
	unsigned int nr = below(&super.random, shared->old_devices);
	int fd = old_open(nr), rc;

	if (fd < 0)
		return;
	rc = old_release(fd);
	/* A page that has failed stays until its process unmaps it. */
	if (rc && (rc != -EBUSY || !super.poisoned))
		fuzz_complain("RELEASE of hmm_dmirror%u in a pause: %d", nr, rc);
	close(fd);
}

static void pause_all(void)
{
	inject(false);
	squeeze(false);
	watch_unbind(true);
	shared_set(pause, shared->pause + 1);
	wait_workers(true);
	look_at_devices(true);
	super.pauses++;
	if (!shared->failed && shared->old_devices && !below(&super.random, 4)) {
		evict_by_old_device();
		look_at_devices(true);
	}
	poison_some();
	shared_set(pause, shared->pause + 1);
	super.next_pause = now_ms() + PAUSE_MS;
}

/* ---- the run --------------------------------------------------------------------- */

static void tick(bool second_half)
{
	unsigned int nr = below(&super.random, WORKERS);

	reap_workers(true);
	watch_kernel();
	watch_progress();
	watch_unbind(false);
	if (now_ms() > super.next_pause)
		pause_all();
	if (now_ms() > super.inject_until)
		inject(false);
	if (now_ms() > super.squeeze_until)
		squeeze(false);
	if (!below(&super.random, 10))
		turn_a_knob();
	if (!below(&super.random, 150))
		kill_worker(nr);
	if (!below(&super.random, 25))
		look_at_devices(!below(&super.random, 4));
	if (!below(&super.random, 5) && super.workers[nr])
		kill(super.workers[nr], SIGUSR1);
	if (!below(&super.random, 150) && !super.unbinder)
		start_unbind(below(&super.random, 300000));
	if (second_half && !below(&super.random, 100) && !access(FAIL_COPY "probability", F_OK))
		inject(true);
}

/* A process that has its stack or code on a device must have ended before copies begin to fail. */
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
	return super.to_device && super.cpu_faults && super.device_faults && super.evicted;
}

/* A slow machine gets more time to do everything that the run requires. */
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
	squeeze(false);
	watch_unbind(true);
	shared_set(stop, 1);
	wait_workers(false);
}

/* A worker may have migrated pages that it shares with this process since fork(). */
static void bring_back(int fd)
{
	FILE *maps = fopen("/proc/self/maps", "re");
	struct hmm_ref_migrate cmd;
	unsigned long start, end;
	char line[256], kind;

	while (maps && fgets(line, sizeof(line), maps)) {
		if (sscanf(line, "%lx-%lx %*3c%c", &start, &end, &kind) == 3 && kind == 'p' &&
		    !_test_migrate(fd, HMM_REF_TO_SYSTEM, (void *)start, end - start, &cmd))
			super.brought_back += cmd.out_migrated;
	}
	if (maps)
		fclose(maps);
}

static void check_empty(void)
{
	struct hmm_ref_stats stats;
	unsigned int i, tries;
	int fd, rc;

	/* This also closes files that no worker has received. */
	if (shared->sockets[0] >= 0) {
		close(shared->sockets[0]);
		close(shared->sockets[1]);
	}
	for (i = 0; i < shared->devices; i++) {
		fd = hmm_ref_open(i);
		rc = fd < 0 ? fd : -ETIMEDOUT;
		/*
		 * The batch of a CPU may hold a reference to an mlocked page until it is drained.
		 * So may the batch of a CPU that has put the last reference to an mm that eviction
		 * held.
		 */
		for (tries = 0; rc == -ETIMEDOUT && tries < 3; tries++) {
			write_file("/proc/sys/vm/compact_memory", "1");
			bring_back(fd);
			rc = leak_wait(fd, 0, &stats);
		}
		if (rc)
			fuzz_complain("device %u: %d, %llu pages still in use", i, rc,
				      fd < 0 ? 0 : stats.out_pages_in_use);
		if (fd >= 0)
			close(fd);
	}
	look_at_devices(true);
	if (!has_done_its_job())
		fuzz_complain("no migration, CPU fault, device fault or eviction has been seen");
	check_rates();
}

/* Only interrupts system calls. */
static void on_signal(int sig)
{
}

/* Features that a kernel or a machine may lack. */
static void set_up_others(void)
{
	char text[64];

	if (read_file("/sys/devices/system/node/has_memory", text, sizeof(text)) > 0)
		shared->nodes = strchr(text, '-') || strchr(text, ',') ? 2 : 1;
	if (socketpair(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0, shared->sockets))
		shared->sockets[0] = -1;
	if (!write_file("/sys/fs/cgroup/cgroup.subtree_control", "+memory") &&
	    (!mkdir(CGROUP, 0755) || errno == EEXIST))
		shared->memcg = 1;
}

static void set_up(void)
{
	struct sigaction action = { .sa_handler = on_signal };

	sigaction(SIGUSR1, &action, NULL);
	if (mmap(regions[R_SHARED].base, SMALL_PAGES * PAGE, PROT_READ | PROT_WRITE,
		 MAP_SHARED | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == MAP_FAILED)
		ksft_exit_fail_msg("no shared memory\n");
	shared->large = keeps_large();
	shared->wild = 1;
	shared->poison = env_number("FUZZ_POISON", 0);
	shared->guard = env_number("FUZZ_GUARD", 1);
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
	super.random = mix(shared->seed ^ 0x73757065);
	super.swap = swap_begin();
	shared->disk = super.swap == 1;
	write_file("/sys/kernel/mm/ksm/run", "1");
	write_file("/proc/sys/vm/nr_hugepages", "16");
	set_up_others();
}

static void clean_up(void)
{
	unsigned int i;

	for (i = 0; i < WORKERS; i++)
		if (super.workers[i])
			kill(-super.workers[i], SIGKILL);
	if (shared->memcg)
		rmdir(CGROUP);
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

	printf("# operations that succeeded/were refused/of these busy:");
	for (i = 0; i < KINDS; i++)
		printf(" %s %llu/%llu/%llu", kinds[i].name, (unsigned long long)shared->done[i],
		       (unsigned long long)shared->refused[i],
		       (unsigned long long)shared->busy[i]);
	printf("\n# figure: pages to device %llu, back %llu, evicted %llu, exclusive %llu, ",
	       (unsigned long long)super.to_device, (unsigned long long)super.to_system,
	       (unsigned long long)super.evicted, (unsigned long long)super.exclusive);
	printf("the supervisor's %llu\n", (unsigned long long)super.brought_back);
	printf("# figure: CPU faults %llu, device faults %llu; %llu pages of %llu got there\n",
	       (unsigned long long)super.cpu_faults, (unsigned long long)super.device_faults,
	       (unsigned long long)shared->moved, (unsigned long long)shared->asked);
	printf("# figure: killed %u, unbound %u, pauses %u, squeezed %u, poisoned %u\n",
	       super.kills, super.unbinds, super.pauses, super.squeezes, super.poisoned);
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
	bus_devices_find();
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
