/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Helpers that need the test harness: asserting forms of the wrappers in hmm_ref_dev.h, and the
 * leak check. Only one file of a program may include this, because the harness defines global
 * symbols.
 *
 * Three layers: _test_x() returns 0 or -errno, test_x() asserts success, test_err_x(errno, ...)
 * asserts that errno. Only a test's own process may assert. See hmm_ref_process.h for its children
 * and threads.
 *
 * Every fixture is a leak test. Its teardown runs in the parent, after the test's process has
 * exited. It requires an AUDIT without violations, and no more pages in use than before the test.
 *
 * All waits have a timeout: use the wait functions here and in hmm_ref_process.h.
 */
#ifndef _HMM_REF_UTILS_H
#define _HMM_REF_UTILS_H

#include <sys/stat.h>
#include <sys/uio.h>

#include "kselftest_harness.h"
#include "hmm_ref_dev.h"
#include "hmm_ref_file.h"
#include "hmm_ref_kernel.h"
#include "hmm_ref_process.h"

/*
 * Seconds until the harness ends a test. The debug kernel, emulated on a busy host, takes a minute
 * where other kernels take a second, so the harness's 30 seconds are too short.
 */
#undef TEST_TIMEOUT_DEFAULT
#define TEST_TIMEOUT_DEFAULT	300

/* Repeats a command that the freezer has ended as a signal does. */
#define UNINTERRUPTED(command) ({			\
	long _rc;					\
							\
	do {						\
		_rc = (command);			\
	} while (_rc == -EINTR);			\
	_rc;						\
})

/* ---- asserting forms ------------------------------------------------------- */

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

/* Every page of the range migrates in the end. */
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

/* Data as the CPU and as the device see it, and places of pages. */
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

/* The test fails without this memory. */
static inline void *__test_map(struct __test_metadata *_metadata, void *mem)
{
	ASSERT_NE(MAP_FAILED, mem);
	return mem;
}

#define test_map_pages(npages)	__test_map(_metadata, map_pages(npages))
#define test_map_blocks(n)	__test_map(_metadata, map_blocks(n))

/* Memory that all processes forked from here share. */
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

/* Makes the driver's predictor expect, on this CPU, sequential faults. */
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

/* ---- devices that can be filled -------------------------------------------- */

#define CAPACITY_MAX	(256UL << 20)

/* Finds the smallest device. Returns its pages that are not retired, or 0 if it is too large. */
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

/* Skips the program, with a reason, if there is no device. */
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
