/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Operations that are made to fail: what fail_nth, fail_probe and fail_classes share.
 *
 * A round is: job_prepare(), arm, job_run(), disarm, job_run() once more, job_verify(),
 * job_settle(). Only job_run() runs with failures armed, and it touches nothing that was
 * not touched before. Nothing here asserts; errors are -errno or a message of CHECK().
 */
#ifndef _HMM_REF_FAIL_H
#define _HMM_REF_FAIL_H

#include "hmm_ref_old.h"
#include "hmm_ref_utils.h"

#define DEBUGFS		"/sys/kernel/debug/"
#define FAIL_DIR	DEBUGFS "hmm_ref/"
#define DRIVER		"/sys/bus/platform/drivers/hmm_ref/"
#define KMEMLEAK	DEBUGFS "kmemleak"

/* ---- fail-nth ------------------------------------------------------------------- */

static const char *const fail_classes[] = {
	"fail_chunk", "fail_storage", "fail_handout", "fail_large",
	"fail_copy", "fail_page", "fail_map", "fail_retry",
};

/* Where a function of the kernel begins and ends. Return: whether it is known. */
static inline bool kernel_function(const char *name, unsigned long *start, unsigned long *end)
{
	FILE *symbols = fopen("/proc/kallsyms", "re");
	unsigned long addr;
	char symbol[256];

	*start = 0;
	*end = 0;
	while (symbols && fscanf(symbols, "%lx %*c %255[^\n]", &addr, symbol) == 2) {
		if (!strcmp(symbol, name))
			*start = addr;
		else if (*start && addr > *start && (!*end || addr < *end))
			*end = addr;
	}
	if (symbols)
		fclose(symbols);
	return *start && *end;
}

/* What @class can fail does not, in a function of the kernel and in what it calls. */
static inline int fail_spare(const char *class, const char *function)
{
	unsigned long start, end;
	char path[128], text[24];
	int rc;

	if (!kernel_function(function, &start, &end))
		return 0;
	snprintf(path, sizeof(path), DEBUGFS "%s/reject-start", class);
	snprintf(text, sizeof(text), "%#lx", start);
	rc = write_file(path, text);
	snprintf(path, sizeof(path), DEBUGFS "%s/reject-end", class);
	snprintf(text, sizeof(text), "%#lx", end);
	return rc ? rc : write_file(path, text);
}

/*
 * All steps may fail, and say nothing of it. But for add_pages(), with which
 * memremap_pages() begins: on x86 it warns when it has no memory.
 */
static inline int fail_setup(void)
{
	char path[128];
	unsigned int i;
	int rc;

	rc = write_file(DEBUGFS "failslab/ignore-gfp-wait", "N");
	rc = rc ? rc : write_file(DEBUGFS "failslab/verbose", "0");
	rc = rc ? rc : write_file(DEBUGFS "fail_page_alloc/ignore-gfp-wait", "N");
	rc = rc ? rc : write_file(DEBUGFS "fail_page_alloc/ignore-gfp-highmem", "N");
	rc = rc ? rc : write_file(DEBUGFS "fail_page_alloc/min-order", "0");
	rc = rc ? rc : write_file(DEBUGFS "fail_page_alloc/verbose", "0");
	rc = rc ? rc : fail_spare("failslab", "add_pages");
	rc = rc ? rc : fail_spare("fail_page_alloc", "add_pages");
	for (i = 0; !rc && i < ARRAY_SIZE(fail_classes); i++) {
		snprintf(path, sizeof(path), FAIL_DIR "%s/verbose", fail_classes[i]);
		rc = write_file(path, "0");
	}
	return rc;
}

/* This thread's file. */
static inline int fail_nth_open(void)
{
	char path[64];

	snprintf(path, sizeof(path), "/proc/self/task/%ld/fail-nth", syscall(SYS_gettid));
	return open(path, O_RDWR | O_CLOEXEC);
}

/* Fail the @nth step from now, 0: none. */
static inline int fail_nth_arm(int file, int nth)
{
	char text[16];
	int len = snprintf(text, sizeof(text), "%d", nth);

	return pwrite(file, text, len, 0) == len ? 0 : -errno;
}

/* Disarm. Return: how many steps were still to come, 0 when one has failed. */
static inline int fail_nth_end(int file)
{
	char text[16] = {};
	int left = pread(file, text, sizeof(text) - 1, 0) > 0 ? atoi(text) : -errno;
	int rc = fail_nth_arm(file, 0);

	return rc ? rc : left;
}

/* ---- leaks ---------------------------------------------------------------------- */

/*
 * What this program's rounds have leaked, as kmemleak sees it: an object counts when two
 * scans have not found a pointer to it and it is older than 5 s. Return: how many, 0 where
 * there is no kmemleak, -errno; it turns itself off when it runs out of memory.
 */
static inline int fail_leaks(const char *program)
{
	size_t size = 1 << 20;
	char comm[40], *text, *at;
	int found = 0, rc;

	if (access(KMEMLEAK, F_OK))
		return 0;
	rc = write_file(KMEMLEAK, "scan");
	sleep(6);
	rc = rc ? rc : write_file(KMEMLEAK, "scan");
	if (rc)
		return rc;
	text = malloc(size);
	if (!text || read_file(KMEMLEAK, text, size) < 0) {
		free(text);
		return -ENOMEM;
	}
	snprintf(comm, sizeof(comm), "comm \"%.15s\"", program);
	for (at = strstr(text, comm); at; at = strstr(at + 1, comm)) {
		if (!found++)
			fprintf(stderr, "# kmemleak: %.600s\n", at);
	}
	free(text);
	return found;
}

/* ---- jobs ----------------------------------------------------------------------- */

#define SMALL_PAGES	4UL

enum job_state {
	ON_SYSTEM,
	ON_DEVICE,
	HOLES,
	SHARED,		/* on the device, and a child has it, too */
};

struct job {
	int (*run)(struct job *job);
	enum job_state state;
	bool large;		/* one huge page instead of SMALL_PAGES */
	bool fresh;		/* bind the device anew: no chunks, no storage */
	bool coherent;
	unsigned int device;
	unsigned int seed;	/* of the data that is expected in the end */
	unsigned long pages;
	unsigned long long in_use;	/* pages of the device, before */
	unsigned long long added;	/* by atomics, to the first word */
	char *mem;
	char *buf;
	int file;		/* a file whose first page has the data, too */
	int fd, old_fd;
	int gate;		/* closed, it lets the child go */
	pid_t child;
};

/* Return: the first device of that kind, or -ENODEV. */
static inline int find_device(bool coherent)
{
	unsigned int type = coherent ? HMM_REF_MEMORY_COHERENT : HMM_REF_MEMORY_PRIVATE;
	unsigned int nr, devices = hmm_ref_count();

	for (nr = 0; nr < devices; nr++) {
		struct hmm_ref_info info = {};
		int fd = hmm_ref_open(nr);

		if (fd < 0)
			continue;
		_test_info(fd, &info);
		close(fd);
		if (info.out_memory_type == type)
			return nr;
	}
	return -ENODEV;
}

static inline int device_attach(const char *file, unsigned int nr)
{
	char name[24];

	snprintf(name, sizeof(name), "hmm_ref.%u", nr);
	return write_file(file, name);
}

static inline int old_ioctl(struct job *job, unsigned int nr)
{
	struct old_cmd cmd;

	return old_command(job->old_fd, nr, job->mem, nr == OLD_FLAGS ? 0 : job->pages,
			   job->buf, &cmd);
}

static inline int run_old_read(struct job *job) { return old_ioctl(job, OLD_READ); }
static inline int run_old_write(struct job *job) { return old_ioctl(job, OLD_WRITE); }
static inline int run_old_to_device(struct job *job)
{
	return old_ioctl(job, OLD_TO_DEVICE);
}

static inline int run_old_to_system(struct job *job)
{
	return old_ioctl(job, OLD_TO_SYSTEM);
}

static inline int run_old_snapshot(struct job *job)
{
	return old_ioctl(job, OLD_SNAPSHOT);
}

static inline int run_old_exclusive(struct job *job)
{
	return old_ioctl(job, OLD_EXCLUSIVE);
}

static inline int run_old_check(struct job *job)
{
	return old_ioctl(job, OLD_CHECK_EXCLUSIVE);
}

static inline int run_old_release(struct job *job) { return old_ioctl(job, OLD_RELEASE); }
static inline int run_old_flags(struct job *job) { return old_ioctl(job, OLD_FLAGS); }

static inline int run_old_mmap(struct job *job)
{
	void *mem = mmap(NULL, 2 * page_size(), PROT_READ, MAP_PRIVATE, job->old_fd, 0);

	if (mem == MAP_FAILED)
		return -errno;
	munmap(mem, 2 * page_size());
	return 0;
}

static inline int run_open(struct job *job)
{
	int fd = hmm_ref_open(job->device);

	if (fd >= 0)
		close(fd);
	return fd < 0 ? fd : 0;
}

static inline int run_close(struct job *job)
{
	int fd = job->fd;

	job->fd = -1;
	return fd < 0 || !close(fd) ? 0 : -errno;
}

static inline int run_info(struct job *job)
{
	struct hmm_ref_info cmd;

	return _test_info(job->fd, &cmd);
}

static inline int run_stats(struct job *job)
{
	struct hmm_ref_stats cmd;

	return _test_stats(job->fd, &cmd);
}

static inline int run_audit(struct job *job)
{
	struct hmm_ref_audit cmd;

	return _test_audit(job->fd, &cmd);
}

static inline int run_migrate(struct job *job, unsigned int flags, unsigned int direction)
{
	struct hmm_ref_migrate cmd;
	int rc = _test_migrate_flags(job->fd, flags, direction, job->mem,
				     job->pages * page_size(), &cmd);
	unsigned long long sum = cmd.out_migrated + cmd.out_already + cmd.out_skipped;

	return (rc ? sum > job->pages : sum != job->pages) ? -EPROTO : rc;
}

static inline int run_to_device(struct job *job)
{
	return run_migrate(job, 0, HMM_REF_TO_DEVICE);
}

static inline int run_to_device_map(struct job *job)
{
	return run_migrate(job, HMM_REF_MIGRATE_MAP, HMM_REF_TO_DEVICE);
}

static inline int run_to_system(struct job *job)
{
	return run_migrate(job, 0, HMM_REF_TO_SYSTEM);
}

static inline int run_read(struct job *job)
{
	return _test_read(job->fd, job->mem, job->pages * page_size(), job->buf);
}

static inline int run_write(struct job *job)
{
	return _test_write(job->fd, job->mem, job->pages * page_size(), job->buf);
}

static inline int run_snapshot(struct job *job)
{
	struct hmm_ref_snapshot cmd;

	return _test_snapshot(job->fd, job->mem, job->pages * page_size(),
			      (struct hmm_ref_page_state *)job->buf, &cmd);
}

static inline int run_exclusive(struct job *job)
{
	return _test_make_exclusive(job->fd, job->mem, job->pages);
}

static inline int run_atomic(struct job *job)
{
	struct hmm_ref_atomic cmd;
	int rc = _test_atomic(job->fd, HMM_REF_ATOMIC_ADD, job->mem, 8, 3, 0, &cmd);

	if (!rc)
		job->added += 3;
	return rc;
}

static inline int run_touch(struct job *job)
{
	touch_read(job->mem);
	return 0;
}

/* Touches the second page, with what is there already. */
static inline int run_touch_write(struct job *job)
{
	unsigned long *word = (unsigned long *)(job->mem + page_size());

	__atomic_store_n(word, pattern_word(job->seed, 1, 0), __ATOMIC_SEQ_CST);
	return 0;
}

static inline int run_file_read(struct job *job)
{
	ssize_t got = pread(job->file, job->mem, page_size(), 0);

	return got == (ssize_t)page_size() ? 0 : got < 0 ? -errno : -EPROTO;
}

static inline int run_file_write(struct job *job)
{
	ssize_t got = pwrite(job->file, job->mem, page_size(), 0);

	return got == (ssize_t)page_size() ? 0 : got < 0 ? -errno : -EPROTO;
}

/* ---- rounds --------------------------------------------------------------------- */

/* Return: 0, -ENODEV when there is no such device, another -errno. */
static inline int job_init(struct job *job)
{
	struct hmm_ref_stats stats;
	int fd, nr;

	nr = find_device(job->coherent);
	if (nr < 0)
		return nr;
	job->device = nr;
	job->fd = -1;
	job->old_fd = -1;
	job->pages = job->large ? block_pages() : SMALL_PAGES;
	job->mem = map_blocks(1);
	job->buf = map_pages(job->pages);
	job->file = syscall(SYS_memfd_create, "fail", MFD_CLOEXEC);
	if (job->mem == MAP_FAILED || job->buf == MAP_FAILED || job->file < 0)
		return -ENOMEM;
	madvise(job->mem, block_size(), job->large ? MADV_HUGEPAGE : MADV_NOHUGEPAGE);
	fill_pages(job->buf, job->pages, 1);
	if (pwrite(job->file, job->buf, page_size(), 0) != (ssize_t)page_size())
		return -ENOSPC;
	fd = hmm_ref_open(job->device);
	if (fd < 0)
		return fd;
	nr = _test_stats(fd, &stats);
	job->in_use = stats.out_pages_in_use;
	close(fd);
	return nr;
}

/*
 * Another process that shares the pages, until it is let go: its data stays what it was.
 * The harness shares the fixture's memory between processes, so what is the
 * child's own must not be in the job.
 */
static inline int job_child(struct job *job, int gate)
{
	char byte;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (!CHECK(!read(gate, &byte, 1)))
		return 1;
	return !CHECK(!bad_pages(job->mem, job->pages, 1));
}

static inline int job_share(struct job *job)
{
	int gate[2];
	pid_t pid;

	if (pipe(gate))
		return -errno;
	pid = fork();
	if (!pid) {
		close(gate[1]);
		_exit(job_child(job, gate[0]));
	}
	if (pid < 0)
		return -errno;
	close(gate[0]);
	job->gate = gate[1];
	job->child = pid;
	return 0;
}

static inline int job_prepare(struct job *job)
{
	struct hmm_ref_migrate cmd;
	int rc;

	if (job->fresh) {
		rc = device_attach(DRIVER "unbind", job->device);
		rc = rc ? rc : device_attach(DRIVER "bind", job->device);
		if (rc)
			return rc;
	}
	job->seed = job->state == SHARED ? 2 : 1;
	job->added = 0;
	job->fd = hmm_ref_open(job->device);
	if (job->fd < 0)
		return job->fd;
	job->old_fd = old_open(job->device);
	fill_pages(job->buf, job->pages, job->seed);
	if (job->state == HOLES)
		return 0;
	fill_pages(job->mem, job->pages, 1);
	if (job->state == ON_SYSTEM)
		return 0;
	rc = _test_migrate_all(job->fd, HMM_REF_TO_DEVICE, job->mem, job->pages, &cmd);
	if (!rc && job->state == SHARED)
		rc = job_share(job);
	return rc;
}

static inline int job_run(struct job *job)
{
	return job->run(job);
}

static inline bool job_verify_zero(struct job *job)
{
	unsigned long i;

	for (i = 0; i < job->pages; i++) {
		if (!CHECK(page_is_zero(job->mem + i * page_size())))
			return false;
	}
	return true;
}

/* The data, and that of the child if there is one, as the CPU sees it. */
static inline bool job_verify(struct job *job)
{
	bool read = job->run == run_read || job->run == run_old_read;
	bool good;

	*(unsigned long long *)job->mem -= job->added;
	if (job->state == HOLES && job->run != run_write && job->run != run_old_write) {
		good = job_verify_zero(job);
		if (read)
			good &= CHECK(page_is_zero(job->buf));
	} else {
		good = CHECK(!bad_pages(job->mem, job->pages, job->seed));
		if (read)
			good &= CHECK(!bad_pages(job->buf, job->pages, job->seed));
	}
	if (job->child > 0) {
		close(job->gate);
		good &= CHECK(!child_wait(job->child, PATIENCE_MS));
		job->child = 0;
	}
	return good;
}

/* Nothing is left on the device, and it is sound. */
static inline bool job_settle(struct job *job)
{
	unsigned long long in_use = job->fresh ? 0 : job->in_use;
	struct hmm_ref_stats stats = {};
	struct hmm_ref_audit audit = {};
	bool good;
	int fd;

	if (job->fd >= 0)
		close(job->fd);
	if (job->old_fd >= 0)
		close(job->old_fd);
	job->fd = -1;
	job->old_fd = -1;
	if (!CHECK(!madvise(job->mem, block_size(), MADV_DONTNEED)))
		return false;
	fd = hmm_ref_open(job->device);
	if (!CHECK(fd >= 0))
		return false;
	good = CHECK(!leak_wait(fd, in_use, &stats)) && CHECK(!_test_audit(fd, &audit)) &&
	       CHECK(!audit.out_violations) &&
	       CHECK(audit.out_total == audit.out_free + audit.out_in_use +
					audit.out_retired) &&
	       CHECK(audit.out_total == stats.out_pages_total) &&
	       CHECK(stats.out_storage_pages <= stats.out_pages_total) &&
	       CHECK(!stats.out_pages_total == !stats.out_chunks);
	close(fd);
	return good;
}

/* Does memory come as a huge page? Before job_prepare(). */
static inline bool job_gets_large(struct job *job)
{
	struct hmm_ref_page_state state = {};
	struct hmm_ref_snapshot cmd;
	int fd = hmm_ref_open(job->device);

	fill_pages(job->mem, 1, 1);
	_test_snapshot(fd, job->mem, page_size(), &state, &cmd);
	close(fd);
	return keeps_large() && (1UL << state.order) == block_pages() &&
	       !madvise(job->mem, block_size(), MADV_DONTNEED);
}

#endif /* _HMM_REF_FAIL_H */
