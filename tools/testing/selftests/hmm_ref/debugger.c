// SPDX-License-Identifier: GPL-2.0-only
/*
 * A debugger reads memory that its target has on the device. The fault is in the target's mm and
 * holds its mmap_lock, which ptrace() and /proc/PID/mem do not drop to retry. The debugger gets the
 * data or an error, and the target gets its lock, whatever state the device is in.
 *
 * Covers: a CPU fault that returns 0 for want of memory and leaves the page where it is. The fault
 * is repeated with the lock held. A thread that waits to write the lock blocks new readers, so that
 * the target hangs until the debugger is killed.
 */
#include <sys/ptrace.h>
#include <sys/uio.h>
#include <sys/wait.h>

#include "hmm_ref_utils.h"

#define SLOW_ENGINE	"/sys/module/hmm_ref/parameters/slow_engine"
#define FAIL_DIR	"/sys/kernel/debug/hmm_ref/"
#define FAIL_PAGE	FAIL_DIR "fail_page/"
#define FAIL_HANG	FAIL_DIR "fail_hang/"
#define FAIL_LARGE	FAIL_DIR "fail_large/"
#define ROUNDS		3UL	/* rounds that the target must complete */
#define BUSY_BLOCKS	2UL

enum way {
	BY_MEM_FILE,
	BY_PROCESS_VM,
	BY_PTRACE,
};

/* Shared by the three processes. */
struct scene {
	enum way way;
	char *mem;		/* address in the target */
	unsigned long npages;
	int advice;
	bool moves;		/* the target migrates its pages back and forth */
	pid_t target;
	unsigned long ready, stop;
	unsigned long detach;	/* the debugger ends before the target */
	unsigned long rounds;	/* rounds that the target has completed */
	unsigned long reads;	/* reads that the debugger has completed */
	unsigned long good;	/* reads that returned data */
};

/* ---- the target ------------------------------------------------------------------ */

/* Uses the pages on the device or migrates them, and takes the lock for writing all the time. */
static int target_round(struct scene *scene, int fd)
{
	struct hmm_ref_evict evict;
	struct hmm_ref_migrate cmd;
	size_t size = BUSY_BLOCKS * block_size();
	char *busy = mmap(NULL, size, PROT_READ | PROT_WRITE,
			  MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);

	if (!CHECK(busy != MAP_FAILED) || !CHECK(!munmap(busy, size)))
		return 1;
	if (!scene->moves)
		return 0;
	return !CHECK(!UNINTERRUPTED(_test_migrate(fd, HMM_REF_TO_DEVICE, scene->mem,
						   scene->npages * page_size(), &cmd))) ||
	       !CHECK(!UNINTERRUPTED(_test_evict(fd, scene->mem, scene->npages * page_size(),
						 &evict)));
}

static int target_main(void *arg)
{
	struct scene *scene = arg;
	struct hmm_ref_migrate cmd;
	int fd = hmm_ref_open(0);

	if (!CHECK(fd >= 0) ||
	    !CHECK(!madvise(scene->mem, scene->npages * page_size(), scene->advice)))
		return 1;
	fill_pages(scene->mem, scene->npages, 1);
	if (!CHECK(!_test_migrate_all(fd, HMM_REF_TO_DEVICE, scene->mem, scene->npages, &cmd)))
		return 1;
	counter_set(&scene->ready, 1);
	while (!counter_get(&scene->stop)) {
		if (target_round(scene, fd))
			return 1;
		counter_add(&scene->rounds, 1);
	}
	return !CHECK(!bad_pages(scene->mem, scene->npages, 1));
}

/* ---- the debugger ---------------------------------------------------------------- */

static int peek(pid_t pid, const char *addr, char *buf)
{
	unsigned long i;

	for (i = 0; i < page_size(); i += sizeof(long)) {
		errno = 0;
		*(long *)(buf + i) = ptrace(PTRACE_PEEKDATA, pid, addr + i, NULL);
		if (errno)
			return -errno;
	}
	return 0;
}

static int read_page(struct scene *scene, int mem_fd, unsigned long i, char *buf)
{
	char *addr = scene->mem + i * page_size();
	struct iovec to = { buf, page_size() }, from = { addr, page_size() };
	ssize_t len;

	switch (scene->way) {
	case BY_MEM_FILE:
		len = pread(mem_fd, buf, page_size(), (unsigned long)addr);
		break;
	case BY_PROCESS_VM:
		len = process_vm_readv(scene->target, &to, 1, &from, 1, 0);
		break;
	default:
		return peek(scene->target, addr, buf);
	}
	return len == (ssize_t)page_size() ? 0 : len < 0 ? -errno : -EIO;
}

/* A read may fail, but it never returns other data. */
static int read_and_check(struct scene *scene, int mem_fd, unsigned long i, char *buf)
{
	int rc = read_page(scene, mem_fd, i, buf);

	counter_add(&scene->reads, 1);
	if (rc)
		return !CHECK(rc == -EIO || rc == -EFAULT || rc == -ENOMEM);
	counter_add(&scene->good, 1);
	return !CHECK(page_holds(buf, 1, i));
}

/* The target is stopped for each page. */
static int stop_and_check(struct scene *scene, unsigned long i, char *buf)
{
	int status, rc;

	if (!CHECK(!ptrace(PTRACE_SEIZE, scene->target, NULL, NULL)) ||
	    !CHECK(!ptrace(PTRACE_INTERRUPT, scene->target, NULL, NULL)) ||
	    !CHECK(waitpid(scene->target, &status, __WALL) == scene->target))
		return 1;
	rc = read_and_check(scene, -1, i, buf);
	if (rc || !CHECK(!ptrace(PTRACE_DETACH, scene->target, NULL, NULL)))
		return 1;
	/* Without a pause, the next stop often comes before the target runs at all. */
	usleep(1000);
	return 0;
}

static int debugger_main(void *arg)
{
	struct scene *scene = arg;
	char *buf = map_pages(1), path[64];
	unsigned long i = 0;
	int fd, rc = 0;

	snprintf(path, sizeof(path), "/proc/%d/mem", scene->target);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (!CHECK(buf != MAP_FAILED) || !CHECK(fd >= 0))
		return 1;
	while (!rc && !counter_get(&scene->detach)) {
		if (scene->way == BY_PTRACE)
			rc = stop_and_check(scene, i, buf);
		else
			rc = read_and_check(scene, fd, i, buf);
		i = (i + 1) % scene->npages;
	}
	return rc;
}

/* ---- both ------------------------------------------------------------------------ */

FIXTURE(debugger)
{
	struct leak_check leak;
	struct scene *scene;
};

FIXTURE_VARIANT(debugger)
{
	enum way way;
	int advice;
};

FIXTURE_VARIANT_ADD(debugger, mem) { BY_MEM_FILE, MADV_NOHUGEPAGE };
FIXTURE_VARIANT_ADD(debugger, mem_huge) { BY_MEM_FILE, MADV_HUGEPAGE };
FIXTURE_VARIANT_ADD(debugger, process_vm) { BY_PROCESS_VM, MADV_NOHUGEPAGE };
FIXTURE_VARIANT_ADD(debugger, ptrace) { BY_PTRACE, MADV_NOHUGEPAGE };

static void all_is_well(void)
{
	write_file(SLOW_ENGINE, "0");
	write_file(COPY_TIMEOUT, COPY_TIMEOUT_DEFAULT);
	attr_disarm(FAIL_PAGE);
	attr_disarm(FAIL_LARGE);
	attr_disarm(FAIL_HANG);
}

FIXTURE_SETUP(debugger)
{
	leak_check_begin(_metadata, &self->leak);
	self->scene = test_map_shared(page_size());
	self->scene->way = variant->way;
	self->scene->advice = variant->advice;
	self->scene->npages = block_pages();
	self->scene->mem = test_map_blocks(1);
}

FIXTURE_TEARDOWN_PARENT(debugger)
{
	all_is_well();
	leak_check_end(_metadata, &self->leak);
}

static bool reaches(unsigned long *counter, unsigned long enough)
{
	unsigned long long end = now_ms() + MEET_MS;

	while (counter_get(counter) < enough && now_ms() < end)
		usleep(1000);
	return counter_get(counter) >= enough;
}

static bool counts(unsigned long *counter)
{
	return reaches(counter, counter_get(counter) + ROUNDS);
}

static void __test_target(struct __test_metadata *_metadata, struct scene *scene)
{
	scene->target = child_start(target_main, scene);
	ASSERT_LT(0, scene->target);
	ASSERT_TRUE(reaches(&scene->ready, 1));
}

/* Both make progress at the same time, and the target has its data in the end. */
static void __test_both(struct __test_metadata *_metadata, struct scene *scene)
{
	pid_t debugger = child_start(debugger_main, scene);

	ASSERT_LT(0, debugger);
	EXPECT_TRUE(counts(&scene->reads) && counts(&scene->rounds) && counts(&scene->reads));
	counter_set(&scene->detach, 1);
	EXPECT_EQ(0, child_wait(debugger, MEET_MS));
	all_is_well();
	counter_set(&scene->stop, 1);
	EXPECT_EQ(0, child_wait(scene->target, MEET_MS));
}

#define test_target()	__test_target(_metadata, self->scene)
#define test_both()	__test_both(_metadata, self->scene)

/* No page can be migrated back, so none can be read. */
TEST_F_TIMEOUT(debugger, without_memory, 600)
{
	if (attr_disarm(FAIL_PAGE))
		SKIP(return, "no fail_page (CONFIG_FAULT_INJECTION_DEBUG_FS)");
	test_target();
	ASSERT_EQ(0, attr_arm(FAIL_PAGE, 0, -1));
	test_both();
	EXPECT_LT(0, self->scene->reads);
	EXPECT_EQ(0, self->scene->good);
}

/* Huge pages on the device are migrated back page by page. */
TEST_F_TIMEOUT(debugger, without_large_pages, 600)
{
	if (attr_disarm(FAIL_LARGE))
		SKIP(return, "no fail_large (CONFIG_FAULT_INJECTION_DEBUG_FS)");
	test_target();
	ASSERT_EQ(0, attr_arm(FAIL_LARGE, 0, -1));
	test_both();
	EXPECT_EQ(self->scene->reads, self->scene->good);
}

TEST_F_TIMEOUT(debugger, slow_engine, 600)
{
	test_target();
	ASSERT_EQ(0, write_file(SLOW_ENGINE, "100000"));
	test_both();
	EXPECT_EQ(self->scene->reads, self->scene->good);
}

/* Each copy ends with a reset of the device. */
TEST_F_TIMEOUT(debugger, engine_hangs, 600)
{
	if (attr_disarm(FAIL_HANG))
		SKIP(return, "no fail_hang (CONFIG_FAULT_INJECTION_DEBUG_FS)");
	test_target();
	ASSERT_EQ(0, write_file(COPY_TIMEOUT, "100"));
	ASSERT_EQ(0, attr_arm(FAIL_HANG, 0, -1));
	test_both();
	EXPECT_LT(0, self->scene->reads);
}

/* The pages are migrated in both directions all the time. */
TEST_F_TIMEOUT(debugger, eviction, 600)
{
	self->scene->moves = true;
	test_target();
	test_both();
	EXPECT_EQ(self->scene->reads, self->scene->good);
}

int main(int argc, char **argv)
{
	return hmm_ref_test_main(argc, argv);
}
