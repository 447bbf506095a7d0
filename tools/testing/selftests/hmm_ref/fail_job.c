// SPDX-License-Identifier: GPL-2.0-only
/*
 * Operations that are made to fail, for fail_nth, fail_probe and fail_classes.
 *
 * A round is: job_prepare(), arm, job_run(), disarm, job_run() once more, job_verify(),
 * job_settle(). Only job_run() runs with failures armed. It touches only memory and code that were
 * touched before. No function here asserts: functions return -errno, or print a message by CHECK().
 */
#include "fail_job.h"
#include "hmm_ref_old.h"
#include "hmm_ref_process.h"

/* Returns the number of the first device with that kind of memory, or -ENODEV. */
static int find_device(bool coherent)
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

static int old_ioctl(struct job *job, unsigned int nr)
{
	struct old_cmd cmd;

	return old_command(job->old_fd, nr, job->mem, nr == OLD_FLAGS ? 0 : job->pages,
			   job->buf, &cmd);
}

int run_old_read(struct job *job)
{
	return old_ioctl(job, OLD_READ);
}

int run_old_write(struct job *job)
{
	return old_ioctl(job, OLD_WRITE);
}

int run_old_to_device(struct job *job)
{
	return old_ioctl(job, OLD_TO_DEVICE);
}

int run_old_to_system(struct job *job)
{
	return old_ioctl(job, OLD_TO_SYSTEM);
}

int run_old_snapshot(struct job *job)
{
	return old_ioctl(job, OLD_SNAPSHOT);
}

int run_old_exclusive(struct job *job)
{
	return old_ioctl(job, OLD_EXCLUSIVE);
}

int run_old_check(struct job *job)
{
	return old_ioctl(job, OLD_CHECK_EXCLUSIVE);
}

int run_old_release(struct job *job)
{
	return old_ioctl(job, OLD_RELEASE);
}

int run_old_flags(struct job *job)
{
	return old_ioctl(job, OLD_FLAGS);
}

int run_old_mmap(struct job *job)
{
	void *mem = mmap(NULL, 2 * page_size(), PROT_READ, MAP_PRIVATE, job->old_fd, 0);

	if (mem == MAP_FAILED)
		return -errno;
	munmap(mem, 2 * page_size());
	return 0;
}

int run_open(struct job *job)
{
	int fd = hmm_ref_open(job->device);

	if (fd >= 0)
		close(fd);
	return fd < 0 ? fd : 0;
}

int run_close(struct job *job)
{
	int fd = job->fd;

	job->fd = -1;
	return fd < 0 || !close(fd) ? 0 : -errno;
}

int run_info(struct job *job)
{
	struct hmm_ref_info cmd;

	return _test_info(job->fd, &cmd);
}

int run_stats(struct job *job)
{
	struct hmm_ref_stats cmd;

	return _test_stats(job->fd, &cmd);
}

int run_audit(struct job *job)
{
	struct hmm_ref_audit cmd;

	return _test_audit(job->fd, &cmd);
}

static int run_migrate(struct job *job, unsigned int flags, unsigned int direction)
{
	struct hmm_ref_migrate cmd;
	int rc = _test_migrate_flags(job->fd, flags, direction, job->mem,
				     job->pages * page_size(), &cmd);
	unsigned long long sum = cmd.out_migrated + cmd.out_already + cmd.out_skipped;

	return (rc ? sum > job->pages : sum != job->pages) ? -EPROTO : rc;
}

int run_to_device(struct job *job)
{
	return run_migrate(job, 0, HMM_REF_TO_DEVICE);
}

int run_to_device_map(struct job *job)
{
	return run_migrate(job, HMM_REF_MIGRATE_MAP, HMM_REF_TO_DEVICE);
}

int run_to_system(struct job *job)
{
	return run_migrate(job, 0, HMM_REF_TO_SYSTEM);
}

int run_read(struct job *job)
{
	return _test_read(job->fd, job->mem, job->pages * page_size(), job->buf);
}

int run_write(struct job *job)
{
	return _test_write(job->fd, job->mem, job->pages * page_size(), job->buf);
}

int run_snapshot(struct job *job)
{
	struct hmm_ref_snapshot cmd;

	return _test_snapshot(job->fd, job->mem, job->pages * page_size(),
			      (struct hmm_ref_page_state *)job->buf, &cmd);
}

int run_exclusive(struct job *job)
{
	return _test_make_exclusive(job->fd, job->mem, job->pages);
}

/* The first few pages of a huge page, which is split for that: all of them would take minutes. */
int run_exclusive_few(struct job *job)
{
	return _test_make_exclusive(job->fd, job->mem, 4);
}

int run_atomic(struct job *job)
{
	struct hmm_ref_atomic cmd;
	int rc = _test_atomic(job->fd, HMM_REF_ATOMIC_ADD, job->mem, 8, 3, 0, &cmd);

	if (!rc)
		job->added += 3;
	return rc;
}

int run_touch(struct job *job)
{
	touch_read(job->mem);
	return 0;
}

/* Writes the data that the second page already holds. */
int run_touch_write(struct job *job)
{
	unsigned long *word = (unsigned long *)(job->mem + page_size());

	__atomic_store_n(word, pattern_word(job->seed, 1, 0), __ATOMIC_SEQ_CST);
	return 0;
}

int run_file_read(struct job *job)
{
	ssize_t got = pread(job->file, job->mem, page_size(), 0);

	return got == (ssize_t)page_size() ? 0 : got < 0 ? -errno : -EPROTO;
}

int run_file_write(struct job *job)
{
	ssize_t got = pwrite(job->file, job->mem, page_size(), 0);

	return got == (ssize_t)page_size() ? 0 : got < 0 ? -errno : -EPROTO;
}

/* ---- rounds --------------------------------------------------------------------- */

#define FULL_MAX	(64UL << 20)	/* largest capacity that a test fills */

/* Returns 0, -ENODEV when the device is too large to be filled, or another -errno. */
static int job_init_filler(struct job *job, int fd)
{
	struct hmm_ref_stats stats;
	struct hmm_ref_info info;
	int rc = _test_info(fd, &info);

	if (!rc)
		rc = _test_stats(fd, &stats);
	if (rc)
		return rc;
	if (info.out_capacity > FULL_MAX)
		return -ENODEV;
	if (job->room == ROOM_CHUNK_FULL && info.out_chunk_size * 2 != info.out_capacity)
		return -ENODEV;
	/* Pages that other tests have retired cannot be filled. */
	job->filler_pages = (job->room == ROOM_FULL ? info.out_capacity :
			     info.out_chunk_size) / page_size() - stats.out_pages_retired;
	job->filler = map_pages(job->filler_pages);
	if (job->filler == MAP_FAILED)
		return -ENOMEM;
	madvise(job->filler, job->filler_pages * page_size(), MADV_NOHUGEPAGE);
	fill_pages(job->filler, job->filler_pages, 3);
	return 0;
}

/*
 * Migrates filler pages that have left the device back to it. Returns 0, -EPROTO when some cannot
 * be migrated, or another -errno.
 */
static int job_fill(struct job *job)
{
	struct hmm_ref_migrate cmd;
	unsigned long i, n;
	long there = 0;
	char *block;
	int rc = 0;

	for (i = 0; !rc && i < job->filler_pages; i += n) {
		block = job->filler + i * page_size();
		n = job->filler_pages - i;
		n = n < block_pages() ? n : block_pages();
		there = pages_at(job->fd, block, n, HMM_REF_PAGE_DEVICE);
		if (there != (long)n)
			rc = _test_migrate_all(job->fd, HMM_REF_TO_DEVICE, block, n, &cmd);
	}
	if (rc)
		return rc;
	there = pages_at(job->fd, job->filler, job->filler_pages, HMM_REF_PAGE_DEVICE);
	return there == (long)job->filler_pages ? 0 : -EPROTO;
}

/* True if the filler has its data, on the device or not. */
bool job_verify_filler(struct job *job)
{
	return job->room == ROOM_PLENTY ||
	       CHECK(!bad_pages_from(job->filler, job->filler_pages, 3, 0));
}

/* Returns 0, -ENODEV when there is no such device, or another -errno. */
int job_init(struct job *job)
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
	if (!nr && job->room != ROOM_PLENTY)
		nr = job_init_filler(job, fd);
	close(fd);
	return nr;
}

/*
 * A process that shares the pages until the gate is closed. Its data does not change. The harness
 * shares the fixture's memory between processes, so state of the child must not be in the job.
 */
static int job_child(struct job *job, int gate)
{
	char byte;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (!CHECK(!read(gate, &byte, 1)))
		return 1;
	return !CHECK(!bad_pages(job->mem, job->pages, 1));
}

static int job_share(struct job *job)
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

int job_prepare(struct job *job)
{
	struct hmm_ref_migrate cmd;
	int rc;

	if (job->fresh) {
		rc = device_unbind(job->device);
		rc = rc ? rc : device_bind(job->device);
		if (rc)
			return rc;
	}
	job->seed = job->state == SHARED ? 2 : 1;
	job->added = 0;
	job->fd = hmm_ref_open(job->device);
	if (job->fd < 0)
		return job->fd;
	job->old_fd = old_open(job->device);
	if (job->room != ROOM_PLENTY) {
		rc = job_fill(job);
		if (rc)
			return rc;
	}
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

int job_run(struct job *job)
{
	return job->run(job);
}

static bool job_verify_zero(struct job *job)
{
	unsigned long i;

	for (i = 0; i < job->pages; i++) {
		if (!CHECK(page_is_zero(job->mem + i * page_size())))
			return false;
	}
	return true;
}

/* Checks the data, and that of the child if there is one, as the CPU sees it. */
bool job_verify(struct job *job)
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

/* Checks that no page is left on the device and that its state is valid. */
bool job_settle(struct job *job)
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
	if (job->room != ROOM_PLENTY)
		in_use = pages_at(fd, job->filler, job->filler_pages, HMM_REF_PAGE_DEVICE);
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

/* True if memory is mapped by a huge page. Call it before job_prepare(). */
bool job_gets_large(struct job *job)
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
