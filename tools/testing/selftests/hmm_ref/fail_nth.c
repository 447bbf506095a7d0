// SPDX-License-Identifier: GPL-2.0-only
/*
 * Every step of an operation that can fail, fails once: the first, then the second, and so on until
 * the operation runs out of steps. Steps are the kernel's allocations, of slab objects and of
 * pages, and the driver's own classes (fail.c in its folder). Whichever step fails, the error is
 * documented for the operation, the state of the device is valid, the next attempt succeeds at
 * once, the data is right, and nothing leaks.
 *
 * The kernel counts the steps of this task only (/proc/self/task/.../fail-nth), so neither their
 * order nor their number need to be known. A test prints the number of steps. A test that finds no
 * step has tested nothing, and fails, unless it is marked as having none.
 *
 * Covers: memory for the device page table that could not be allocated, without an error; a pointer
 * that is used although the allocation failed; an open that fails and leaks; a system call that
 * returns EFAULT because its buffer was on a device and memory was short for a moment.
 *
 * Needs a kernel with failslab, fail_page_alloc and their debugfs, as the debug flavour has.
 */
#include "hmm_ref_utils.h"
#include "fail_job.h"
#include "hmm_ref_old.h"

#define NTH_MAX		5000

struct sweeper {
	int nth;		/* open file */
	int make_it_fail;
	const int *expected;	/* errors of the variant */
};

FIXTURE(nth)
{
	struct leak_check leak;
	struct job job;
	struct sweeper sweeper;
};

FIXTURE_VARIANT(nth)
{
	const char *name;
	int (*run)(struct job *job);
	enum job_state state;
	bool large, fresh, coherent;
	enum job_room room;
	bool more;		/* repeat with several failures at a time */
	bool none;		/* has no step that can fail */
	int errors[3];		/* errors that the operation may return */
};

FIXTURE_VARIANT_ADD(nth, open) {
	.name = "open", .run = run_open, .errors = { ENOMEM },
};

FIXTURE_VARIANT_ADD(nth, close) { .name = "close", .run = run_close };

FIXTURE_VARIANT_ADD(nth, info) { .name = "info", .run = run_info, .none = true };

FIXTURE_VARIANT_ADD(nth, stats) { .name = "stats", .run = run_stats, .none = true };

FIXTURE_VARIANT_ADD(nth, audit) { .name = "audit", .run = run_audit, .none = true };

FIXTURE_VARIANT_ADD(nth, snapshot) { .name = "snapshot", .run = run_snapshot };

FIXTURE_VARIANT_ADD(nth, snapshot_device) {
	.name = "snapshot_device", .run = run_snapshot, .state = ON_DEVICE,
};

FIXTURE_VARIANT_ADD(nth, to_device) {
	.name = "to_device", .run = run_to_device, .more = true, .errors = { ENOMEM, EIO, EAGAIN },
};

FIXTURE_VARIANT_ADD(nth, to_device_map) {
	.name = "to_device_map", .run = run_to_device_map, .errors = { ENOMEM, EIO, EAGAIN },
};

FIXTURE_VARIANT_ADD(nth, to_device_again) {
	.name = "to_device_again", .run = run_to_device, .state = ON_DEVICE,
};

FIXTURE_VARIANT_ADD(nth, to_device_holes) {
	.name = "to_device_holes", .run = run_to_device, .state = HOLES,
	.errors = { ENOMEM, EIO, EAGAIN },
};

FIXTURE_VARIANT_ADD(nth, to_device_large) {
	.name = "to_device_large", .run = run_to_device, .large = true, .more = true,
	.errors = { ENOMEM, EIO, EAGAIN },
};

FIXTURE_VARIANT_ADD(nth, to_device_large_hole) {
	.name = "to_device_large_hole", .run = run_to_device, .state = HOLES,
	.large = true, .errors = { ENOMEM, EIO, EAGAIN },
};

FIXTURE_VARIANT_ADD(nth, to_device_first) {
	.name = "to_device_first", .run = run_to_device, .fresh = true, .more = true,
	.errors = { ENOMEM, EIO, EAGAIN },
};

FIXTURE_VARIANT_ADD(nth, to_system) {
	.name = "to_system", .run = run_to_system, .state = ON_DEVICE, .more = true,
	.errors = { ENOMEM, EIO, EAGAIN },
};

FIXTURE_VARIANT_ADD(nth, to_system_large) {
	.name = "to_system_large", .run = run_to_system, .state = ON_DEVICE,
	.large = true, .errors = { ENOMEM, EIO, EAGAIN },
};

FIXTURE_VARIANT_ADD(nth, read) {
	.name = "read", .run = run_read, .more = true, .errors = { ENOMEM },
};

FIXTURE_VARIANT_ADD(nth, read_device) {
	.name = "read_device", .run = run_read, .state = ON_DEVICE,
	.more = true, .errors = { ENOMEM },
};

FIXTURE_VARIANT_ADD(nth, read_holes) {
	.name = "read_holes", .run = run_read, .state = HOLES, .more = true, .errors = { ENOMEM },
};

FIXTURE_VARIANT_ADD(nth, read_large) {
	.name = "read_large", .run = run_read, .state = ON_DEVICE, .large = true,
	.more = true, .errors = { ENOMEM },
};

FIXTURE_VARIANT_ADD(nth, write) {
	.name = "write", .run = run_write, .more = true, .errors = { ENOMEM },
};

FIXTURE_VARIANT_ADD(nth, write_device) {
	.name = "write_device", .run = run_write, .state = ON_DEVICE,
	.more = true, .errors = { ENOMEM },
};

FIXTURE_VARIANT_ADD(nth, write_holes) {
	.name = "write_holes", .run = run_write, .state = HOLES, .more = true, .errors = { ENOMEM },
};

FIXTURE_VARIANT_ADD(nth, write_shared) {
	.name = "write_shared", .run = run_write, .state = SHARED, .more = true,
	.errors = { ENOMEM },
};

FIXTURE_VARIANT_ADD(nth, exclusive) {
	.name = "exclusive", .run = run_exclusive, .more = true, .errors = { ENOMEM },
};

FIXTURE_VARIANT_ADD(nth, exclusive_device) {
	.name = "exclusive_device", .run = run_exclusive, .state = ON_DEVICE,
	.more = true, .errors = { ENOMEM },
};

FIXTURE_VARIANT_ADD(nth, exclusive_holes) {
	.name = "exclusive_holes", .run = run_exclusive, .state = HOLES,
	.more = true, .errors = { ENOMEM },
};

FIXTURE_VARIANT_ADD(nth, atomic) {
	.name = "atomic", .run = run_atomic, .errors = { ENOMEM },
};

FIXTURE_VARIANT_ADD(nth, atomic_device) {
	.name = "atomic_device", .run = run_atomic, .state = ON_DEVICE, .more = true,
	.errors = { ENOMEM },
};

/* The CPU touches the page: no error, and no signal. */
FIXTURE_VARIANT_ADD(nth, cpu_read) {
	.name = "cpu_read", .run = run_touch, .state = ON_DEVICE, .more = true,
};

FIXTURE_VARIANT_ADD(nth, cpu_write) {
	.name = "cpu_write", .run = run_touch_write, .state = ON_DEVICE,
};

FIXTURE_VARIANT_ADD(nth, cpu_read_large) {
	.name = "cpu_read_large", .run = run_touch, .state = ON_DEVICE, .large = true,
};

FIXTURE_VARIANT_ADD(nth, cpu_write_large) {
	.name = "cpu_write_large", .run = run_touch_write, .state = ON_DEVICE,
	.large = true,
};

/* The kernel accesses the page for the process: read() and write() of a file. */
FIXTURE_VARIANT_ADD(nth, file_read) {
	.name = "file_read", .run = run_file_read, .state = ON_DEVICE,
};

FIXTURE_VARIANT_ADD(nth, file_write) {
	.name = "file_write", .run = run_file_write, .state = ON_DEVICE,
};

FIXTURE_VARIANT_ADD(nth, file_read_large) {
	.name = "file_read_large", .run = run_file_read, .state = ON_DEVICE,
	.large = true,
};

FIXTURE_VARIANT_ADD(nth, old_read) {
	.name = "old_read", .run = run_old_read, .more = true, .errors = { ENOMEM },
};

FIXTURE_VARIANT_ADD(nth, old_write) {
	.name = "old_write", .run = run_old_write, .state = ON_DEVICE,
	.more = true, .errors = { ENOMEM },
};

/* ENOENT: not all pages were migrated. */
FIXTURE_VARIANT_ADD(nth, old_to_device) {
	.name = "old_to_device", .run = run_old_to_device, .errors = { ENOMEM, EIO, EAGAIN },
};

FIXTURE_VARIANT_ADD(nth, old_to_system) {
	.name = "old_to_system", .run = run_old_to_system, .state = ON_DEVICE,
	.errors = { ENOMEM, EIO, EAGAIN },
};

FIXTURE_VARIANT_ADD(nth, old_snapshot) {
	.name = "old_snapshot", .run = run_old_snapshot,
};

FIXTURE_VARIANT_ADD(nth, old_exclusive) {
	.name = "old_exclusive", .run = run_old_exclusive, .more = true, .errors = { ENOMEM },
};

FIXTURE_VARIANT_ADD(nth, old_check) { .name = "old_check", .run = run_old_check };

FIXTURE_VARIANT_ADD(nth, old_release) {
	.name = "old_release", .run = run_old_release, .state = ON_DEVICE,
};

FIXTURE_VARIANT_ADD(nth, old_flags) {
	.name = "old_flags", .run = run_old_flags, .none = true,
};

FIXTURE_VARIANT_ADD(nth, old_mmap) {
	.name = "old_mmap", .run = run_old_mmap, .errors = { ENOMEM },
};

FIXTURE_VARIANT_ADD(nth, coherent_to_device) {
	.name = "coherent_to_device", .run = run_to_device, .coherent = true,
	.errors = { ENOMEM, EIO, EAGAIN },
};

FIXTURE_VARIANT_ADD(nth, coherent_holes) {
	.name = "coherent_holes", .run = run_to_device, .state = HOLES,
	.coherent = true, .errors = { ENOMEM, EIO, EAGAIN },
};

FIXTURE_VARIANT_ADD(nth, coherent_to_system) {
	.name = "coherent_to_system", .run = run_to_system, .state = ON_DEVICE,
	.coherent = true, .errors = { ENOMEM, EIO, EAGAIN },
};

FIXTURE_VARIANT_ADD(nth, coherent_read) {
	.name = "coherent_read", .run = run_read, .state = ON_DEVICE, .coherent = true,
	.more = true, .errors = { ENOMEM },
};

FIXTURE_VARIANT_ADD(nth, coherent_atomic) {
	.name = "coherent_atomic", .run = run_atomic, .state = ON_DEVICE,
	.coherent = true, .errors = { ENOMEM },
};

FIXTURE_VARIANT_ADD(nth, coherent_write) {
	.name = "coherent_write", .run = run_write, .state = ON_DEVICE, .coherent = true,
	.more = true, .errors = { ENOMEM },
};

FIXTURE_VARIANT_ADD(nth, coherent_write_shared) {
	.name = "coherent_write_shared", .run = run_write, .state = SHARED,
	.coherent = true, .more = true, .errors = { ENOMEM },
};

FIXTURE_VARIANT_ADD(nth, coherent_exclusive) {
	.name = "coherent_exclusive", .run = run_exclusive, .coherent = true,
	.more = true, .errors = { ENOMEM },
};

FIXTURE_VARIANT_ADD(nth, coherent_exclusive_device) {
	.name = "coherent_exclusive_device", .run = run_exclusive, .state = ON_DEVICE,
	.coherent = true, .more = true, .errors = { ENOMEM },
};

FIXTURE_VARIANT_ADD(nth, exclusive_large) {
	.name = "exclusive_large", .run = run_exclusive_few, .large = true,
	.more = true, .errors = { ENOMEM },
};

/*
 * The device is full, so eviction has to make room: on a coherent device, and on a private one if
 * it is small (hmm_ref_fail.sh).
 */
FIXTURE_VARIANT_ADD(nth, full_to_device) {
	.name = "full_to_device", .run = run_to_device, .room = ROOM_FULL,
	.more = true, .errors = { ENOMEM, EIO, EAGAIN },
};

FIXTURE_VARIANT_ADD(nth, full_to_device_holes) {
	.name = "full_to_device_holes", .run = run_to_device, .state = HOLES,
	.room = ROOM_FULL, .more = true, .errors = { ENOMEM, EIO, EAGAIN },
};

FIXTURE_VARIANT_ADD(nth, full_to_device_large) {
	.name = "full_to_device_large", .run = run_to_device, .large = true,
	.room = ROOM_FULL, .errors = { ENOMEM, EIO, EAGAIN },
};

FIXTURE_VARIANT_ADD(nth, full_chunk_to_device) {
	.name = "full_chunk_to_device", .run = run_to_device, .fresh = true,
	.room = ROOM_CHUNK_FULL, .more = true, .errors = { ENOMEM, EIO, EAGAIN },
};

FIXTURE_VARIANT_ADD(nth, full_to_system) {
	.name = "full_to_system", .run = run_to_system, .state = ON_DEVICE,
	.room = ROOM_FULL, .errors = { ENOMEM, EIO, EAGAIN },
};

FIXTURE_VARIANT_ADD(nth, full_cpu_read) {
	.name = "full_cpu_read", .run = run_touch, .state = ON_DEVICE, .room = ROOM_FULL,
};

FIXTURE_VARIANT_ADD(nth, full_coherent_to_device) {
	.name = "full_coherent_to_device", .run = run_to_device, .coherent = true,
	.room = ROOM_FULL, .more = true, .errors = { ENOMEM, EIO, EAGAIN },
};

FIXTURE_SETUP(nth)
{
	int rc;

	self->sweeper.nth = fail_nth_open();
	self->sweeper.make_it_fail = open("/proc/self/make-it-fail", O_RDWR | O_CLOEXEC);
	self->sweeper.expected = variant->errors;
	if (self->sweeper.nth < 0 || self->sweeper.make_it_fail < 0 || fail_setup())
		SKIP(return, "no fail-nth: CONFIG_FAILSLAB, CONFIG_FAIL_PAGE_ALLOC");
	/* Each round fills the device. */
	if (variant->room != ROOM_PLENTY && !getenv("HMM_REF_FAIL_EVERY"))
		SKIP(return, "takes many minutes: HMM_REF_FAIL_EVERY=1");
	leak_check_begin(_metadata, &self->leak);
	self->job = (struct job) {
		.run = variant->run, .state = variant->state, .large = variant->large,
		.fresh = variant->fresh, .coherent = variant->coherent,
		.room = variant->room,
	};
	rc = job_init(&self->job);
	if (rc == -ENODEV)
		SKIP(return, "no such device: coherent, or small (hmm_ref_fail.sh)");
	ASSERT_EQ(0, rc);
	if (strstr(variant->name, "old_")) {
		rc = old_open(self->job.device);
		if (rc < 0)
			SKIP(return, "no old interface (CONFIG_HMM_REF_DMIRROR)");
		close(rc);
	}
	if (variant->large && !job_gets_large(&self->job))
		SKIP(return, "no huge page can be allocated");
}

FIXTURE_TEARDOWN_PARENT(nth)
{
	if (!access(FAIL_DIR "fail_copy", F_OK))
		fail_more(0, true);
	leak_check_end(_metadata, &self->leak);
}

/*
 * Runs one round: the @nth step fails, and then @more steps of each class. Returns the number of
 * the @nth steps that were not reached.
 */
static int one_round(struct __test_metadata *_metadata, const struct sweeper *sweeper,
		     struct job *job, int nth, int more, int *errors)
{
	int left, rc;

	ASSERT_EQ(0, job_prepare(job));
	if (more) {
		ASSERT_EQ(0, fail_more(more, sweeper->expected[1] == EIO));
		ASSERT_EQ(1, pwrite(sweeper->make_it_fail, "1", 1, 0));
	}
	ASSERT_EQ(0, fail_nth_arm(sweeper->nth, nth));
	rc = job_run(job);
	left = fail_nth_end(sweeper->nth);
	if (more) {
		ASSERT_EQ(1, pwrite(sweeper->make_it_fail, "0", 1, 0));
		ASSERT_EQ(0, fail_more(0, true));
	}
	ASSERT_LE(0, left);
	/*
	 * In older kernels, hmm_range_fault() returns EFAULT for a fault that fails for lack of
	 * memory.
	 */
	if (rc == -EFAULT && kernel_before(7, 0))
		rc = -ENOMEM;
	/* A copy fails with either of two errors. */
	if (rc == -ETIMEDOUT)
		rc = -EIO;
	ASSERT_TRUE(!rc || -rc == sweeper->expected[0] ||
		    -rc == sweeper->expected[1] || -rc == sweeper->expected[2]) {
		TH_LOG("point %d, and then %d: %s", nth, more, strerror(-rc));
	}
	*errors += rc != 0;
	ASSERT_EQ(0, job_run(job)) {
		TH_LOG("after point %d, and then %d", nth, more);
	}
	ASSERT_TRUE(job_verify(job) && job_settle(job)) {
		TH_LOG("after point %d, and then %d: %s", nth, more, strerror(-rc));
	}
	return left;
}

/*
 * Fails the first step, then every @every-th one, until there is none. Returns the number of the
 * last step.
 */
static int sweep(struct __test_metadata *_metadata, const struct sweeper *sweeper,
		 struct job *job, int every, int more, int *errors)
{
	int nth;

	for (nth = 1; nth < NTH_MAX; nth += every) {
		if (one_round(_metadata, sweeper, job, nth, more, errors) > 0)
			break;
	}
	ASSERT_GT(NTH_MAX, nth);
	return nth - every;
}

TEST_F_TIMEOUT(nth, each_step_fails, 600)
{
	int points, errors = 0, more_errors = 0;

	/* First a round without failures, so that all code and data have been touched. */
	one_round(_metadata, &self->sweeper, &self->job, 0, 0, &errors);
	ASSERT_EQ(0, errors);
	points = sweep(_metadata, &self->sweeper, &self->job, 1, 0, &errors);
	if (variant->more)
		sweep(_metadata, &self->sweeper, &self->job,
		      env_number("HMM_REF_FAIL_EVERY", 16), 3, &more_errors);
	printf("# figure: %s: %d points, %d of them errors, %d with more failures%s\n",
	       variant->name, points, errors, more_errors,
	       variant->none ? " (known to have none)" : "");
	fflush(stdout);
	EXPECT_TRUE(job_verify_filler(&self->job));
	if (!variant->none)
		EXPECT_LT(0, points);
	/*
	 * If an error is possible, it has to occur, or a failure is hidden. READ, WRITE and
	 * EXCLUSIVE recover from a single failure.
	 */
	EXPECT_EQ(!!variant->errors[0], errors + more_errors > 0);
}

/* Runs last: checks for leaks of all tests above. */
FIXTURE(after)
{
};

FIXTURE_SETUP(after)
{
	if (fail_setup())
		SKIP(return, "no fail-nth: CONFIG_FAILSLAB, CONFIG_FAIL_PAGE_ALLOC");
}

FIXTURE_TEARDOWN(after)
{
}

TEST_F(after, no_leaks)
{
	EXPECT_EQ(0, fail_leaks("fail_nth"));
}

int main(int argc, char **argv)
{
	return hmm_ref_test_main(argc, argv);
}
