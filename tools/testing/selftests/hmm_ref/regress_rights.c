// SPDX-License-Identifier: GPL-2.0-only
/*
 * Permissions of a device access, its effects before it is refused, and the information that it
 * exposes.
 *
 * The device wrote to shadow stacks, which only calls and returns may write. EXCLUSIVE and ATOMIC
 * wrote to a shared mapping, which allocated memory for a hole of the file, before they refused
 * shared mappings. A word could be seen half written. fdinfo showed the opener's number of the
 * initial pid namespace to readers in any other namespace.
 */
#include <sys/mount.h>

#include "hmm_ref_utils.h"

#ifndef PKEY_DISABLE_ACCESS
#define PKEY_DISABLE_ACCESS	1
#define PKEY_DISABLE_WRITE	2
#endif
#ifndef __NR_map_shadow_stack
#define __NR_map_shadow_stack	453
#endif
#ifndef SHADOW_STACK_SET_TOKEN
#define SHADOW_STACK_SET_TOKEN	1
#endif

#define PAGES	4

FIXTURE(rights)
{
	struct leak_check leak;
	int fd;
	char *mem;
};

FIXTURE_SETUP(rights)
{
	leak_check_begin(_metadata, &self->leak);
	self->fd = test_open(0);
	self->mem = test_map_pages(PAGES);
	fill_pages(self->mem, PAGES, 1);
}

FIXTURE_TEARDOWN_PARENT(rights)
{
	leak_check_end(_metadata, &self->leak);
}

/* ---- protection keys ------------------------------------------------------------- */

static int touch(void *mem)
{
	touch_read(mem);
	return 0;
}

/*
 * A key protects against accesses of the CPU that runs the process. A device has no such register.
 */
TEST_F(rights, protection_keys)
{
	unsigned long size = PAGES * page_size();
	struct hmm_ref_atomic atomic;
	char *mem = self->mem;
	int key;

	key = syscall(__NR_pkey_alloc, 0, PKEY_DISABLE_ACCESS);
	if (key < 0)
		SKIP(return, "no protection keys");
	ASSERT_EQ(0, madvise(mem + page_size(), page_size(), MADV_DONTNEED));
	ASSERT_EQ(0, syscall(__NR_pkey_mprotect, mem, size, PROT_READ | PROT_WRITE, key));
	ASSERT_EQ(CHILD_SIGNAL + SIGSEGV, child_run(touch, mem));

	/* Pages that are mapped, and pages that the device has to fault in. */
	test_dev_data(self->fd, mem, 1, 1);
	ASSERT_EQ(0, dev_fill_pages(self->fd, mem, PAGES, 2));
	test_to_device(self->fd, mem, PAGES);
	test_dev_data(self->fd, mem, PAGES, 2);

	/* A page returns only for a CPU with permission to access it. */
	ASSERT_EQ(CHILD_SIGNAL + SIGSEGV, child_run(touch, mem));
	test_pages_at(self->fd, mem, PAGES, HMM_REF_PAGE_DEVICE, PAGES);
	/* The CPU accesses the buffer, so the key protects it. */
	test_err_read(EFAULT, self->fd, mem, 8, mem + 64);
	test_to_system(self->fd, mem, PAGES);
	test_exclusive(self->fd, mem, 1);
	ASSERT_EQ(0, _test_atomic(self->fd, HMM_REF_ATOMIC_ADD, mem, 8, 0, 0, &atomic));
	EXPECT_EQ(pattern_word(2, 0, 0), atomic.out_old);
	ASSERT_EQ(0, syscall(__NR_pkey_mprotect, mem, size, PROT_READ | PROT_WRITE, 0));
	test_cpu_data(mem, PAGES, 2);
	syscall(__NR_pkey_free, key);
}

/* ---- shadow stacks --------------------------------------------------------------- */

TEST_F(rights, shadow_stack)
{
	unsigned long word = 0, forged = 0x1234;
	struct hmm_ref_atomic atomic;
	struct hmm_ref_exclusive cmd;
	void *stack;

	stack = (void *)syscall(__NR_map_shadow_stack, 0, page_size(),
				SHADOW_STACK_SET_TOKEN);
	if (stack == MAP_FAILED)
		SKIP(return, "no shadow stacks here");
	test_err_write(EPERM, self->fd, stack, sizeof(forged), &forged);
	ASSERT_EQ(-EPERM, _test_exclusive(self->fd, stack, page_size(), &cmd));
	ASSERT_EQ(-EPERM, _test_atomic(self->fd, HMM_REF_ATOMIC_ADD, stack, 8, 1, 0,
				       &atomic));
	test_read(self->fd, stack + page_size() - 8, sizeof(word), &word);
	EXPECT_EQ((unsigned long)stack + page_size() - 8, word & ~7UL);
}

/* ---- EXCLUSIVE checks before it writes ------------------------------------------- */

static long blocks_of(int file)
{
	struct stat st;

	return fstat(file, &st) ? -errno : st.st_blocks;
}

static void __test_refused(struct __test_metadata *_metadata, int fd, void *mem, int err)
{
	struct hmm_ref_stats before, after;
	struct hmm_ref_exclusive cmd;
	struct hmm_ref_atomic atomic;

	test_stats(fd, &before);
	ASSERT_EQ(-err, _test_exclusive(fd, mem, PAGES * page_size(), &cmd));
	EXPECT_EQ(0, cmd.out_pages);
	ASSERT_EQ(-err, _test_atomic(fd, HMM_REF_ATOMIC_ADD, mem, 8, 1, 0, &atomic));
	EXPECT_EQ(0, atomic.out_faults);
	test_stats(fd, &after);
	EXPECT_EQ(before.out_device_faults, after.out_device_faults);
}

#define test_refused(mem, err)	__test_refused(_metadata, self->fd, mem, err)

TEST_F(rights, holes_of_a_shared_file)
{
	int file = memfd_create("hmm_ref", MFD_CLOEXEC);
	unsigned char present[PAGES] = {};
	unsigned int i;
	void *mem;

	ASSERT_LE(0, file);
	ASSERT_EQ(0, ftruncate(file, PAGES * page_size()));
	mem = __test_map(_metadata, mmap(NULL, PAGES * page_size(), PROT_READ | PROT_WRITE,
					 MAP_SHARED, file, 0));
	test_refused(mem, EINVAL);
	EXPECT_EQ(0, blocks_of(file));
	ASSERT_EQ(0, mincore(mem, PAGES * page_size(), present));
	for (i = 0; i < PAGES; i++)
		EXPECT_EQ(0, present[i]);
}

/* The first page of the range is valid and counted. The second one is not touched. */
TEST_F(rights, anonymous_then_shared)
{
	int file = memfd_create("hmm_ref", MFD_CLOEXEC);
	struct hmm_ref_exclusive cmd;

	ASSERT_LE(0, file);
	ASSERT_EQ(0, ftruncate(file, page_size()));
	__test_map(_metadata, mmap(self->mem + page_size(), page_size(),
				   PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, file, 0));
	ASSERT_EQ(-EINVAL, _test_exclusive(self->fd, self->mem, PAGES * page_size(), &cmd));
	EXPECT_EQ(1, cmd.out_pages);
	EXPECT_EQ(0, blocks_of(file));
	test_held(self->fd, self->mem, 1, 1);
	test_cpu_data(self->mem, 1, 1);
}

TEST_F(rights, read_only)
{
	ASSERT_EQ(0, mprotect(self->mem, PAGES * page_size(), PROT_READ));
	test_refused(self->mem, EPERM);
	ASSERT_EQ(0, mprotect(self->mem, PAGES * page_size(), PROT_NONE));
	test_refused(self->mem, EFAULT);
	ASSERT_EQ(0, mprotect(self->mem, PAGES * page_size(), PROT_READ));
	test_cpu_data(self->mem, PAGES, 1);
	ASSERT_EQ(0, munmap(self->mem, PAGES * page_size()));
	test_refused(self->mem, EFAULT);
}

#define NR_HUGEPAGES	"/proc/sys/vm/nr_hugepages"

static long free_huge_pages(void)
{
	char text[4096], *line;

	if (read_file("/proc/meminfo", text, sizeof(text)) < 0)
		return -errno;
	line = strstr(text, "HugePages_Free:");
	return line ? strtol(strchr(line, ':') + 1, NULL, 10) : -ENOENT;
}

TEST_F(rights, holes_of_hugetlb)
{
	long before;
	void *mem;

	if (write_file(NR_HUGEPAGES, "2"))
		SKIP(return, "no hugetlb");
	mem = mmap(NULL, block_size(), PROT_READ | PROT_WRITE,
		   MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB, -1, 0);
	before = free_huge_pages();
	if (mem == MAP_FAILED || before < 1) {
		write_file(NR_HUGEPAGES, "0");
		SKIP(return, "no huge page");
	}
	test_refused(mem, EINVAL);
	EXPECT_EQ(before, free_huge_pages());
	munmap(mem, block_size());
	write_file(NR_HUGEPAGES, "0");
}

/* ---- a word is one load or store ------------------------------------------------- */

struct word {
	void *at;
	unsigned int size;
	unsigned long stop;
	unsigned long torn;
	unsigned long last;
	unsigned long changes;	/* seen by the other side, which so ran meanwhile */
};

static void word_store(const struct word *word, unsigned long value)
{
	switch (word->size) {
	case 8:
		__atomic_store_n((__u64 *)word->at, value, __ATOMIC_RELAXED);
		break;
	case 4:
		__atomic_store_n((__u32 *)word->at, value, __ATOMIC_RELAXED);
		break;
	case 2:
		__atomic_store_n((__u16 *)word->at, value, __ATOMIC_RELAXED);
		break;
	}
}

static unsigned long word_load(const struct word *word)
{
	switch (word->size) {
	case 8:
		return __atomic_load_n((__u64 *)word->at, __ATOMIC_RELAXED);
	case 4:
		return __atomic_load_n((__u32 *)word->at, __ATOMIC_RELAXED);
	default:
		return __atomic_load_n((__u16 *)word->at, __ATOMIC_RELAXED);
	}
}

static void word_check(struct word *word, unsigned long value)
{
	unsigned long ones = ~0UL >> (64 - 8 * word->size);

	if (value && value != ones)
		word->torn++;
	if (value != word->last)
		counter_add(&word->changes, 1);
	word->last = value;
}

static int cpu_stores(void *arg)
{
	struct word *word = arg;
	unsigned long value = 0;

	run_on_cpu(1);
	while (!counter_get(&word->stop)) {
		word_store(word, value);
		value = ~value;
	}
	return 0;
}

static int cpu_loads(void *arg)
{
	struct word *word = arg;

	run_on_cpu(1);
	while (!counter_get(&word->stop))
		word_check(word, word_load(word));
	return 0;
}

FIXTURE(word)
{
	struct leak_check leak;
	int fd;
	char *mem;
	char *buf;
};

FIXTURE_VARIANT(word)
{
	unsigned int size;
};

FIXTURE_VARIANT_ADD(word, two) { .size = 2 };
FIXTURE_VARIANT_ADD(word, four) { .size = 4 };
FIXTURE_VARIANT_ADD(word, eight) { .size = 8 };

FIXTURE_SETUP(word)
{
	leak_check_begin(_metadata, &self->leak);
	self->fd = test_open(0);
	self->mem = test_map_pages(1);
	self->buf = test_map_pages(1);
	memset(self->mem, 0, page_size());
	memset(self->buf, 0, page_size());
	run_on_cpu(0);
}

FIXTURE_TEARDOWN_PARENT(word)
{
	leak_check_end(_metadata, &self->leak);
}

#define CHANGES	2000

TEST_F(word, device_loads)
{
	struct word word = { .at = self->mem + 8, .size = variant->size };
	unsigned long long end = now_ms() + MEET_MS;
	struct worker worker;

	ASSERT_EQ(0, worker_start(&worker, cpu_stores, &word));
	while (word.changes < CHANGES && now_ms() < end) {
		unsigned long value = 0;

		test_read(self->fd, word.at, word.size, &value);
		word_check(&word, value);
	}
	counter_set(&word.stop, 1);
	ASSERT_EQ(0, worker_wait(&worker));
	EXPECT_EQ(0, word.torn);
	ASSERT_LT(0, word.changes);
}

TEST_F(word, device_stores)
{
	struct word word = { .at = self->mem + 8, .size = variant->size };
	unsigned long long end = now_ms() + MEET_MS;
	struct worker worker;
	unsigned long i;

	ASSERT_EQ(0, worker_start(&worker, cpu_loads, &word));
	for (i = 0; counter_get(&word.changes) < CHANGES && now_ms() < end; i++) {
		unsigned long value = i % 2 ? ~0UL : 0;

		test_write(self->fd, word.at, word.size, &value);
	}
	counter_set(&word.stop, 1);
	ASSERT_EQ(0, worker_wait(&worker));
	EXPECT_EQ(0, word.torn);
	ASSERT_LT(0, word.changes);
}

/* ---- fdinfo ---------------------------------------------------------------------- */

#define PROC	"/tmp/hmm_ref_proc"

/* Reads the opener of a file as a process that uses the /proc at @proc sees it. */
static long opener_of(const char *proc, const char *pid, int fd)
{
	char path[96], text[1024], *line;
	int rc;

	snprintf(path, sizeof(path), "%s/%s/fdinfo/%d", proc, pid, fd);
	rc = read_file(path, text, sizeof(text));
	if (rc < 0)
		return rc;
	line = strstr(text, "hmm_ref-opener:");
	return line ? strtol(strchr(line, ':') + 1, NULL, 10) : -ENOENT;
}

struct inside {
	int outer;	/* opened outside of the namespace */
	int opened, gone;
	int fd;
};

/* Process 1 of a pid namespace with its own /proc. */
static int init_main(struct inside *inside)
{
	int fd = hmm_ref_open(0);

	if (mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) && errno != EINVAL)
		return 1;
	mkdir("/tmp", 01777);
	mkdir(PROC, 0755);
	if (!CHECK(fd >= 0) || !CHECK(!mount("proc", PROC, "proc", 0, NULL)))
		return 1;
	if (!CHECK(opener_of(PROC, "self", fd) == 1) ||
	    !CHECK(opener_of(PROC, "self", inside->outer) == 0))
		return 1;
	umount(PROC);
	inside->fd = fd;
	event_post(inside->opened);
	return !CHECK(event_wait(inside->gone));
}

static int namespace_main(void *arg)
{
	int status;
	pid_t pid;

	if (unshare(CLONE_NEWPID | CLONE_NEWNS))
		return KSFT_SKIP;
	pid = fork();
	if (!pid)
		_exit(init_main(arg));
	if (!CHECK(pid > 0) || !CHECK(waitpid(pid, &status, 0) == pid))
		return 1;
	return status != 0;
}

static long child_of(pid_t pid)
{
	char path[64], text[64];

	snprintf(path, sizeof(path), "/proc/%d/task/%d/children", pid, pid);
	return read_file(path, text, sizeof(text)) < 0 ? -errno : strtol(text, NULL, 10);
}

/* Each reader sees the number in the namespace of the /proc that it reads. */
TEST_F(rights, opener_in_a_pid_namespace)
{
	struct inside *inside = test_map_shared(page_size());
	char text[24];
	pid_t pid;
	long init;

	EXPECT_EQ(getpid(), opener_of("/proc", "self", self->fd));
	inside->outer = dup(self->fd);
	inside->opened = event_new();
	inside->gone = event_new();
	pid = child_start(namespace_main, inside);
	if (!event_wait(inside->opened)) {
		ASSERT_EQ(KSFT_SKIP, child_wait(pid, PATIENCE_MS));
		SKIP(return, "no pid namespaces (CONFIG_PID_NS)");
	}
	init = child_of(pid);
	if (init > 0) {
		snprintf(text, sizeof(text), "%ld", init);
		EXPECT_EQ(init, opener_of("/proc", text, inside->fd));
	}
	event_post(inside->gone);
	EXPECT_EQ(0, child_wait(pid, PATIENCE_MS));
}

int main(int argc, char **argv)
{
	return hmm_ref_test_main(argc, argv);
}
