/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What the tests of hmm_ref share beyond hmm_ref_dev.h: asserting forms of the
 * wrappers, children and threads with a checked result, and the leak check.
 *
 * Three layers: _test_x() returns 0 or -errno, test_x() asserts success,
 * test_err_x(errno, ...) asserts that errno. Only a test's own process may
 * assert. Children and threads use CHECK() and return 0 or 1; whoever starts them
 * asserts the result.
 *
 * Every fixture is a leak test: its teardown runs in the parent after the test's
 * process has gone with all its memory and files, and demands an AUDIT without
 * violations and as few pages in use as before the test.
 *
 * Nothing waits for ever: use the wait functions here.
 */
#ifndef _HMM_REF_UTILS_H
#define _HMM_REF_UTILS_H

#include <poll.h>
#include <stddef.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/utsname.h>
#include <sys/wait.h>

#include "kselftest_harness.h"
#include "hmm_ref_dev.h"
#include "hmm_ref_file.h"

/*
 * Seconds until the harness ends a test. The debug kernel on a busy host, emulated, takes a minute
 * for what takes a second elsewhere; the harness's own 30 would fail a test for that.
 */
#undef TEST_TIMEOUT_DEFAULT
#define TEST_TIMEOUT_DEFAULT	300

/* Until those who race have met, at the latest: on a busy host that may take its time. */
#define MEET_MS			120000

/* The freezer ends a command as a signal does: begin again. */
#define UNINTERRUPTED(command) ({			\
	long _rc;					\
							\
	do {						\
		_rc = (command);			\
	} while (_rc == -EINTR);			\
	_rc;						\
})

/* ---- asserting forms ------------------------------------------------------ */

#define test_info(fd, cmd)	ASSERT_EQ(0, _test_info(fd, cmd))
#define test_stats(fd, cmd)	ASSERT_EQ(0, _test_stats(fd, cmd))
#define test_audit(fd, cmd)	ASSERT_EQ(0, _test_audit(fd, cmd))

#define test_migrate(fd, direction, addr, length, cmd) \
	ASSERT_EQ(0, _test_migrate(fd, direction, addr, length, cmd))
#define test_err_migrate(err, fd, direction, addr, length, cmd) \
	ASSERT_EQ(-(err), _test_migrate(fd, direction, addr, length, cmd))

#define test_read(fd, addr, length, buf) \
	ASSERT_EQ(0, _test_read(fd, addr, length, buf))
#define test_err_read(err, fd, addr, length, buf) \
	ASSERT_EQ(-(err), _test_read(fd, addr, length, buf))
#define test_write(fd, addr, length, buf) \
	ASSERT_EQ(0, _test_write(fd, addr, length, buf))
#define test_err_write(err, fd, addr, length, buf) \
	ASSERT_EQ(-(err), _test_write(fd, addr, length, buf))

#define test_snapshot(fd, addr, length, states, cmd) \
	ASSERT_EQ(0, _test_snapshot(fd, addr, length, states, cmd))

/* Every page of the range gets there, in the end. */
static inline void __test_migrate_all(struct __test_metadata *_metadata, int fd,
				      unsigned int direction, const void *addr,
				      unsigned long npages)
{
	struct hmm_ref_migrate cmd;

	ASSERT_EQ(0, _test_migrate_all(fd, direction, addr, npages, &cmd)) {
		TH_LOG("%lu pages: %llu migrated, %llu already, %llu skipped",
		       npages, cmd.out_migrated, cmd.out_already,
		       cmd.out_skipped);
	}
}

#define test_to_device(fd, addr, npages) \
	__test_migrate_all(_metadata, fd, HMM_REF_TO_DEVICE, addr, npages)
#define test_to_system(fd, addr, npages) \
	__test_migrate_all(_metadata, fd, HMM_REF_TO_SYSTEM, addr, npages)

/* Data as the CPU and as the device see it; where the pages are. */
#define test_cpu_data(addr, npages, seed) \
	ASSERT_EQ(0, bad_pages(addr, npages, seed))
#define test_dev_data(fd, addr, npages, seed) \
	ASSERT_EQ(0, dev_bad_pages(fd, addr, npages, seed))
#define test_pages_at(fd, addr, npages, where, expected) \
	ASSERT_EQ((long)(expected), pages_at(fd, addr, npages, where))

#define test_exclusive(fd, addr, npages) \
	ASSERT_EQ(0, _test_make_exclusive(fd, addr, npages))
#define test_flagged(fd, addr, npages, flags, expected) \
	ASSERT_EQ((long)(expected), pages_flagged(fd, addr, npages, flags))
#define test_held(fd, addr, npages, expected) \
	test_flagged(fd, addr, npages, HMM_REF_PAGE_EXCLUSIVE, expected)

/* Memory that the test cannot do without. */
static inline void *__test_map(struct __test_metadata *_metadata, void *mem)
{
	ASSERT_NE(MAP_FAILED, mem);
	return mem;
}

#define test_map_pages(npages)	__test_map(_metadata, map_pages(npages))
#define test_map_blocks(n)	__test_map(_metadata, map_blocks(n))

/* Memory that is the same in all processes forked from here. */
#define test_map_shared(size) \
	__test_map(_metadata, mmap(NULL, size, PROT_READ | PROT_WRITE, \
				   MAP_SHARED | MAP_ANONYMOUS, -1, 0))

static inline int __test_open(struct __test_metadata *_metadata, unsigned int nr)
{
	int fd = hmm_ref_open(nr);

	ASSERT_LE(0, fd);
	return fd;
}

#define test_open(nr)		__test_open(_metadata, nr)

/* ---- children and threads ------------------------------------------------- */

static inline bool check_failed(bool ok, const char *what, const char *file,
				int line)
{
	if (!ok)
		fprintf(stderr, "# %s:%d: pid %d: not true: %s (errno %d)\n",
			file, line, getpid(), what, errno);
	return ok;
}

/* For children and threads: false, with a message, when @cond does not hold. */
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
 * Returns the exit status, CHILD_SIGNAL + signal, or -ETIMEDOUT for a child that
 * had to be killed because it did not end by itself.
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

/* An event works between threads and between processes, with memory. */
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

/* True when the event came. */
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
 * Two threads that must meet run on two CPUs, if there are two: the scheduler may leave
 * them on one for long. @nr counts them. The CPUs are those of the first call: a child or
 * a thread inherits the one that its parent runs on.
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

/* Have the driver expect, on this CPU, that the next fault's neighbours will be wanted. */
static inline void __test_go_through_memory(struct __test_metadata *_metadata, int fd)
{
	const unsigned long npages = 64;
	char *mem = test_map_pages(npages);
	unsigned long i;

	run_on_cpu(0);
	fill_pages(mem, npages, 1);
	test_to_device(fd, mem, npages);
	for (i = 0; i < npages; i++)
		ASSERT_TRUE(page_holds(mem + i * page_size(), 1, i));
	ASSERT_EQ(0, munmap(mem, npages * page_size()));
}

#define test_go_through_memory(fd)	__test_go_through_memory(_metadata, fd)

/*
 * A disk to read from and write to. Its first page tells whether it is in use: a test leaves
 * it as it was, or another one finds no swap space there (hmm_ref_swap.h).
 */
#define DISK		"/dev/ram0"
#define DISK_START	((off_t)1 << 20)

/* ---- counters and fault attributes ------------------------------------------ */

/* The kernel's log from now on, to read and to write. */
static inline int log_open(void)
{
	int log = open("/dev/kmsg", O_RDWR | O_NONBLOCK | O_CLOEXEC);

	if (log >= 0)
		lseek(log, 0, SEEK_END);
	return log;
}

static inline bool log_write(int log, const char *text)
{
	return write(log, text, strlen(text)) == (ssize_t)strlen(text);
}

/* Takes the next record from the log. Returns false when there is none yet. */
static inline bool log_read(int log, char *record, size_t size)
{
	ssize_t len = read(log, record, size - 1);

	record[len > 0 ? len : 0] = '\0';
	/* EPIPE: the log has no room for what comes next. */
	return len > 0 || errno == EPIPE;
}

/* A counter of /proc/vmstat, 0 if there is none of that name. */
static inline unsigned long vm_counter(const char *name)
{
	char text[16384], *line = text;
	size_t len = strlen(name);

	if (read_file("/proc/vmstat", text, sizeof(text)) < 0)
		return 0;
	while (line && (strncmp(line, name, len) || line[len] != ' ')) {
		line = strchr(line, '\n');
		line = line ? line + 1 : NULL;
	}
	return line ? strtoul(line + len, NULL, 10) : 0;
}

/*
 * Fault attribute: fail once @passed calls have passed, @times times; -1 is for ever. The
 * kernel takes one off the space at each call, and fails the one that finds but one left.
 */
static inline int attr_arm(const char *attr, int passed, int times)
{
	const struct { const char *name; int value; } settings[] = {
		{ "verbose", 0 }, { "interval", 1 }, { "space", passed + 1 },
		{ "times", times }, { "probability", 100 },
	};
	char path[128], value[16];
	unsigned int i;
	int rc = 0;

	for (i = 0; !rc && i < ARRAY_SIZE(settings); i++) {
		snprintf(path, sizeof(path), "%s%s", attr, settings[i].name);
		snprintf(value, sizeof(value), "%d", settings[i].value);
		rc = write_file(path, value);
	}
	return rc;
}

static inline int attr_disarm(const char *attr)
{
	char path[128];

	snprintf(path, sizeof(path), "%sprobability", attr);
	return write_file(path, "0");
}

/* ---- sleep ----------------------------------------------------------------- */

static inline bool can_sleep(void)
{
	return !access("/sys/power/pm_test", W_OK) && !access("/sys/power/state", W_OK);
}

/* Go as far as @step of @state, and back at once. Returns 0 or what a device has returned. */
static inline int system_sleep_to(const char *state, const char *step)
{
	int rc;

	write_file("/sys/module/suspend/parameters/pm_test_delay", "0");
	rc = write_file("/sys/power/pm_test", step);
	if (rc)
		return rc;
	rc = write_file("/sys/power/state", state);
	write_file("/sys/power/pm_test", "none");
	return rc;
}

/* Suspend devices and resume them. */
static inline int system_sleep(void)
{
	return system_sleep_to("freeze", "devices");
}

/* ---- the leak check -------------------------------------------------------- */

struct leak_check {
	unsigned int devices;
	unsigned long long in_use[HMM_REF_MAX_DEVICES];
};

static inline void leak_check_begin(struct __test_metadata *_metadata,
				    struct leak_check *leak)
{
	struct hmm_ref_stats stats;
	unsigned int i;
	int fd;

	leak->devices = hmm_ref_count();
	for (i = 0; i < leak->devices; i++) {
		fd = test_open(i);
		test_stats(fd, &stats);
		close(fd);
		leak->in_use[i] = stats.out_pages_in_use;
	}
}

/* Is this a kernel older than that? What it cannot do is not a failure. */
static inline bool kernel_before(unsigned int major, unsigned int minor)
{
	struct utsname kernel;
	char *rest;
	unsigned long is;

	if (uname(&kernel))
		return false;
	is = strtoul(kernel.release, &rest, 10);
	return is < major || (is == major && *rest && strtoul(rest + 1, NULL, 10) < minor);
}

/* An exiting process may need a moment to give back its pages and reservations. */
static inline int leak_wait(int fd, unsigned long long in_use,
			    struct hmm_ref_stats *stats)
{
	unsigned long long deadline = now_ms() + PATIENCE_MS;
	int rc;

	do {
		rc = _test_stats(fd, stats);
		if (rc || (stats->out_pages_in_use <= in_use && !stats->out_pages_reserved))
			return rc;
		usleep(10000);
	} while (now_ms() < deadline);
	return -ETIMEDOUT;
}

static inline void audit_check(struct __test_metadata *_metadata, int fd)
{
	struct hmm_ref_audit audit;

	EXPECT_EQ(0, _test_audit(fd, &audit));
	EXPECT_EQ(audit.out_total,
		  audit.out_free + audit.out_in_use + audit.out_retired);
	EXPECT_EQ(0, audit.out_violations) {
		TH_LOG("ref %llu lock %llu map %llu owner %llu both %llu count %llu",
		       audit.out_bad_ref, audit.out_bad_lock, audit.out_bad_map,
		       audit.out_bad_owner, audit.out_bad_both,
		       audit.out_bad_count);
	}
}

static inline void leak_check_end(struct __test_metadata *_metadata,
				  struct leak_check *leak)
{
	struct hmm_ref_stats stats;
	unsigned int i;
	int fd;

	for (i = 0; i < leak->devices; i++) {
		fd = test_open(i);
		EXPECT_EQ(0, leak_wait(fd, leak->in_use[i], &stats)) {
			TH_LOG("device %u: %llu pages in use, %llu before the test, %llu reserved",
			       i, stats.out_pages_in_use, leak->in_use[i],
			       stats.out_pages_reserved);
		}
		audit_check(_metadata, fd);
		close(fd);
	}
}

/*
 * Opens the last device of private memory. While pages of such a device are lost, or commands wait,
 * a successor can be bound all the same: coherent memory is at one place.
 */
static inline int open_private(unsigned int devices, unsigned int *nr)
{
	struct hmm_ref_info info;
	int fd;

	for (*nr = devices; (*nr)--; close(fd)) {
		fd = hmm_ref_open(*nr);
		if (fd < 0 || (!_test_info(fd, &info) &&
			       info.out_memory_type == HMM_REF_MEMORY_PRIVATE))
			return fd;
	}
	return -ENODEV;
}

/* ---- devices that can be filled ---------------------------------------------- */

#define CAPACITY_MAX	(256UL << 20)

/* Finds the smallest device. Returns its pages that are not retired, 0 if it is too large. */
static inline unsigned long __test_smallest_device(struct __test_metadata *_metadata,
						   const struct leak_check *leak,
						   unsigned int *smallest)
{
	unsigned long npages = CAPACITY_MAX / page_size() + 1;
	struct hmm_ref_stats stats;
	struct hmm_ref_info info;
	unsigned int nr;
	int fd;

	for (nr = 0; nr < leak->devices; nr++) {
		fd = test_open(nr);
		test_info(fd, &info);
		test_stats(fd, &stats);
		close(fd);
		if (info.out_capacity / page_size() < npages) {
			npages = info.out_capacity / page_size() - stats.out_pages_retired;
			*smallest = nr;
		}
	}
	return npages <= CAPACITY_MAX / page_size() ? npages : 0;
}

#define test_smallest_device(leak, smallest) \
	__test_smallest_device(_metadata, leak, smallest)

/* ---- main ------------------------------------------------------------------ */

/* No device, no test: say why and exit with KSFT_SKIP. */
static inline void hmm_ref_require(int argc, char **argv)
{
	int rc;

	if (argc > 1 && (!strcmp(argv[1], "-l") || !strcmp(argv[1], "-h")))
		return;
	bus_devices_find();
	rc = hmm_ref_probe();
	if (!rc && bus_devices[0].on_bus && !bus_devices[0].driver[0])
		ksft_exit_fail_msg("/dev/hmm_ref0 has no driver in sysfs\n");
	if (!rc)
		return;
	ksft_print_header();
	if (geteuid())
		ksft_exit_skip("run as root: /dev/hmm_ref0 is for root only\n");
	if (rc == -ENOENT || rc == -ENODEV || rc == -ENXIO)
		ksft_exit_skip("no /dev/hmm_ref0: load the module hmm_ref (CONFIG_HMM_REF)\n");
	ksft_exit_fail_msg("/dev/hmm_ref0: %s\n", strerror(-rc));
}

static inline int hmm_ref_test_main(int argc, char **argv)
{
	hmm_ref_require(argc, argv);
	return test_harness_run(argc, argv);
}

#endif /* _HMM_REF_UTILS_H */
