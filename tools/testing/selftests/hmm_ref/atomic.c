// SPDX-License-Identifier: GPL-2.0-only
/*
 * Atomic operations of the device: their results, in each kind of memory, and that no count is lost
 * while CPUs and devices add to the same word.
 *
 * Covers: atomics on memory that other processes map, too; exclusive access whose loss another
 * mirror or the CPU does not notice; a fault that is retried forever, or given up, while two sides
 * contend for a page; device pages that an atomic operation migrates to system memory.
 *
 * HMM_REF_SECONDS is how long each contention lasts (default 2).
 */
#include "hmm_ref_utils.h"

#define PAGES	4UL

#define ADD		HMM_REF_ATOMIC_ADD
#define EXCHANGE	HMM_REF_ATOMIC_EXCHANGE
#define COMPARE		HMM_REF_ATOMIC_COMPARE_EXCHANGE

FIXTURE(atomic)
{
	struct leak_check leak;
	int fd;
	char *mem;
	unsigned long size;
};

FIXTURE_SETUP(atomic)
{
	leak_check_begin(_metadata, &self->leak);
	self->fd = test_open(0);
	self->mem = test_map_pages(PAGES);
	self->size = PAGES * page_size();
	fill_pages(self->mem, PAGES, 1);
}

FIXTURE_TEARDOWN_PARENT(atomic)
{
	leak_check_end(_metadata, &self->leak);
}

/* One operation that succeeds, and the old value that it returns. */
#define test_atomic(fd, op, addr, length, operand, compare, old) do { \
	struct hmm_ref_atomic _cmd; \
\
	ASSERT_EQ(0, _test_atomic(fd, op, addr, length, operand, compare, &_cmd)); \
	ASSERT_EQ((unsigned long long)(old), _cmd.out_old); \
} while (0)

#define test_err_atomic(err, fd, op, addr, length, operand, compare) do { \
	struct hmm_ref_atomic _cmd; \
\
	ASSERT_EQ(-(err), _test_atomic(fd, op, addr, length, operand, compare, &_cmd)); \
} while (0)

/* ---- values ---------------------------------------------------------------------- */

#define MARK	0xa5a5a5a5U

/* Every operation on a 32-bit word. Its neighbours do not change. */
static void __test_ops_32(struct __test_metadata *_metadata, int fd, __u32 *word)
{
	word[-1] = MARK;
	word[0] = 5;
	word[1] = MARK;
	test_atomic(fd, ADD, word, 4, 7, 0, 5);
	test_atomic(fd, ADD, word, 4, (__u32)-13, 0, 12);
	test_atomic(fd, ADD, word, 4, 1, 0, (__u32)-1);
	test_atomic(fd, EXCHANGE, word, 4, 0xfeedbeef, 0, 0);
	test_atomic(fd, COMPARE, word, 4, 1, 2, 0xfeedbeef);
	test_atomic(fd, COMPARE, word, 4, 1, 0xfeedbeef, 0xfeedbeef);
	test_atomic(fd, COMPARE, word, 4, 3, 0, 1);
	ASSERT_EQ(1, word[0]);
	ASSERT_EQ(MARK, word[-1]);
	ASSERT_EQ(MARK, word[1]);
}

static void __test_ops_64(struct __test_metadata *_metadata, int fd, __u64 *word)
{
	const __u64 big = 0x0123456789abcdefULL;

	word[-1] = MARK;
	word[0] = 5;
	word[1] = MARK;
	test_atomic(fd, ADD, word, 8, big, 0, 5);
	test_atomic(fd, ADD, word, 8, -big - 6, 0, big + 5);
	test_atomic(fd, ADD, word, 8, 1, 0, -1ULL);
	test_atomic(fd, EXCHANGE, word, 8, big, 0, 0);
	/* Only the lower half is equal. */
	test_atomic(fd, COMPARE, word, 8, 1, (__u32)big, big);
	test_atomic(fd, COMPARE, word, 8, big << 8, big, big);
	ASSERT_EQ(big << 8, word[0]);
	ASSERT_EQ(MARK, word[-1]);
	ASSERT_EQ(MARK, word[1]);
}

TEST_F(atomic, system_memory)
{
	ASSERT_EQ(0, madvise(self->mem + page_size(), page_size(), MADV_DONTNEED));
	__test_ops_32(_metadata, self->fd, (__u32 *)self->mem + 1);
	__test_ops_32(_metadata, self->fd, (__u32 *)(self->mem + page_size()) - 2);
	__test_ops_64(_metadata, self->fd, (__u64 *)(self->mem + page_size()) + 2);
	test_atomic(self->fd, ADD, self->mem + 2 * page_size(), 8, 0, 0,
		    pattern_word(1, 2, 0));
	test_held(self->fd, self->mem, PAGES, 1);
	ASSERT_EQ(0, bad_pages_from(self->mem + 2 * page_size(), 2, 1, 2));
}

/* In device memory the operation is done in place, without exclusive access. */
TEST_F(atomic, device_memory)
{
	struct hmm_ref_stats before, after;
	struct hmm_ref_atomic cmd;
	unsigned int i;

	test_stats(self->fd, &before);
	for (i = 0; i < 3; i++) {
		test_to_device(self->fd, self->mem, PAGES);
		test_atomic(self->fd, ADD, self->mem + page_size(), 8, i, 0,
			    pattern_word(1, 1, 0));
		test_atomic(self->fd, ADD, self->mem + page_size(), 8, -(__u64)i, 0,
			    pattern_word(1, 1, 0) + i);
		ASSERT_EQ(0, _test_atomic(self->fd, ADD, self->mem, 4, 0, 0, &cmd));
		ASSERT_EQ(1, cmd.out_faults);
		ASSERT_EQ(0, _test_atomic(self->fd, ADD, self->mem, 4, 0, 0, &cmd));
		ASSERT_EQ(0, cmd.out_faults);
		test_pages_at(self->fd, self->mem, PAGES, HMM_REF_PAGE_DEVICE, PAGES);
		test_cpu_data(self->mem, PAGES, 1);
	}
	test_stats(self->fd, &after);
	ASSERT_EQ(before.out_exclusive, after.out_exclusive);
	ASSERT_EQ(before.out_cow_breaks, after.out_cow_breaks);
	test_to_device(self->fd, self->mem, PAGES);
	__test_ops_32(_metadata, self->fd, (__u32 *)self->mem + 1);
	test_to_device(self->fd, self->mem, PAGES);
	__test_ops_64(_metadata, self->fd, (__u64 *)self->mem + 1);
}

/* Exclusive access is acquired once and kept. */
TEST_F(atomic, faults_are_counted)
{
	struct hmm_ref_atomic cmd;

	ASSERT_EQ(0, _test_atomic(self->fd, ADD, self->mem, 8, 0, 0, &cmd));
	ASSERT_LE(1, cmd.out_faults);
	ASSERT_EQ(0, _test_atomic(self->fd, ADD, self->mem, 8, 0, 0, &cmd));
	ASSERT_EQ(0, cmd.out_faults);
	touch_read(self->mem);
	ASSERT_EQ(0, _test_atomic(self->fd, ADD, self->mem, 8, 0, 0, &cmd));
	ASSERT_LE(1, cmd.out_faults);
	/* Write permission in the device page table is not enough. */
	ASSERT_EQ(0, dev_fill_pages(self->fd, self->mem, PAGES, 1));
	test_held(self->fd, self->mem + page_size(), PAGES - 1, 0);
	ASSERT_EQ(0, _test_atomic(self->fd, ADD, self->mem + page_size(), 8, 0, 0, &cmd));
	ASSERT_LE(1, cmd.out_faults);
	test_cpu_data(self->mem, PAGES, 1);
}

/* ---- what is refused ------------------------------------------------------------- */

TEST_F(atomic, bad_members)
{
	static const unsigned int bad_op[] = { 0, 4, 5, 1U << 31, ~0U };
	static const unsigned long bad_length[] = {
		0, 1, 2, 3, 5, 7, 12, 16, 4096, 1UL << 32, (1UL << 32) + 4, 1UL << 63,
	};
	struct hmm_ref_stats before, after;
	unsigned int i;

	test_stats(self->fd, &before);
	for (i = 0; i < ARRAY_SIZE(bad_op); i++)
		test_err_atomic(EINVAL, self->fd, bad_op[i], self->mem, 8, 1, 0);
	for (i = 0; i < ARRAY_SIZE(bad_length); i++) {
		struct hmm_ref_atomic cmd;
		int rc = _test_atomic(self->fd, ADD, self->mem, bad_length[i], 1, 0, &cmd);

		/* An invalid length may also make an invalid range. */
		ASSERT_TRUE(rc == -EINVAL || (bad_length[i] >> 62 && rc == -EFAULT));
	}
	for (i = 1; i < 8; i++) {
		test_err_atomic(EINVAL, self->fd, ADD, self->mem + i, 8, 1, 0);
		if (i != 4)
			test_err_atomic(EINVAL, self->fd, ADD, self->mem + i, 4, 1, 0);
	}
	test_err_atomic(EINVAL, self->fd, ADD, self->mem + page_size() - 4, 8, 1, 0);
	test_err_atomic(EINVAL, self->fd, ADD, self->mem, 4, 1ULL << 32, 0);
	test_err_atomic(EINVAL, self->fd, COMPARE, self->mem, 4, 1, 1ULL << 32);
	test_err_atomic(EINVAL, self->fd, ADD, self->mem, 8, 1, 1);
	test_err_atomic(EINVAL, self->fd, EXCHANGE, self->mem, 8, 1, 1);
	test_stats(self->fd, &after);
	ASSERT_EQ(before.out_device_faults, after.out_device_faults);
	test_cpu_data(self->mem, PAGES, 1);
}

TEST_F(atomic, bad_address)
{
	test_err_atomic(EOVERFLOW, self->fd, ADD, (void *)-8UL, 8, 1, 0);
	test_err_atomic(EFAULT, self->fd, ADD, (void *)-16UL, 8, 1, 0);
	test_err_atomic(EFAULT, self->fd, ADD, (void *)(1UL << 63), 8, 1, 0);
	test_err_atomic(EFAULT, self->fd, ADD, NULL, 8, 1, 0);
	ASSERT_EQ(0, munmap(self->mem, page_size()));
	test_err_atomic(EFAULT, self->fd, ADD, self->mem, 8, 1, 0);
}

TEST_F(atomic, protection)
{
	char *page = self->mem;

	for (page = self->mem; page < self->mem + 2 * page_size(); page += page_size()) {
		ASSERT_EQ(0, mprotect(page, page_size(), PROT_READ));
		test_err_atomic(EPERM, self->fd, ADD, page, 8, 1, 0);
		/* Even if the operation would store nothing. */
		test_err_atomic(EPERM, self->fd, COMPARE, page, 8, 1, 0);
		ASSERT_EQ(0, mprotect(page, page_size(), PROT_NONE));
		test_err_atomic(EFAULT, self->fd, ADD, page, 8, 1, 0);
		ASSERT_EQ(0, mprotect(page, page_size(), PROT_READ | PROT_WRITE));
		test_to_device(self->fd, page + page_size(), 1);
	}
	test_cpu_data(self->mem, PAGES, 1);
}

TEST_F(atomic, file_mapping)
{
	unsigned long *word = test_map_shared(page_size());
	int memfd = memfd_create("atomic", MFD_CLOEXEC);
	char *mem;

	*word = 1;
	test_err_atomic(EINVAL, self->fd, ADD, word, 8, 1, 0);
	ASSERT_EQ(1, *word);

	ASSERT_LE(0, memfd);
	ASSERT_EQ(self->size, write(memfd, self->mem, self->size));
	mem = __test_map(_metadata, mmap(NULL, self->size, PROT_READ | PROT_WRITE,
					 MAP_PRIVATE, memfd, 0));
	test_atomic(self->fd, ADD, mem, 8, 1, 0, pattern_word(1, 0, 0));
	ASSERT_EQ(pattern_word(1, 0, 0) + 1, *(unsigned long *)mem);
	ASSERT_EQ(self->size, pread(memfd, mem, self->size, 0));
	test_cpu_data(mem, PAGES, 1);
}

/* ---- fork ------------------------------------------------------------------------ */

struct child {
	int go;
	char *mem;
};

static int unchanged_main(void *arg)
{
	struct child *child = arg;

	return !CHECK(event_wait(child->go)) || !CHECK(!bad_pages(child->mem, PAGES, 1));
}

/* Pages that parent and child share: in system memory, exclusive and not, and on the device. */
TEST_F(atomic, shared_after_fork)
{
	struct child child = { .go = event_new(), .mem = self->mem };
	unsigned long i;
	pid_t pid;

	test_to_device(self->fd, self->mem, PAGES / 2);
	test_atomic(self->fd, ADD, self->mem + (PAGES - 1) * page_size(), 8, 0, 0,
		    pattern_word(1, PAGES - 1, 0));
	pid = child_start(unchanged_main, &child);
	ASSERT_LT(0, pid);
	for (i = 0; i < PAGES; i++)
		test_atomic(self->fd, ADD, self->mem + i * page_size(), 8, 1, 0,
			    pattern_word(1, i, 0));
	event_post(child.go);
	ASSERT_EQ(0, child_wait(pid, PATIENCE_MS));
	for (i = 0; i < PAGES; i++)
		ASSERT_EQ(pattern_word(1, i, 0) + 1,
			  *(unsigned long *)(self->mem + i * page_size()));
}

/* ---- contention ------------------------------------------------------------------ */

struct contention {
	unsigned long stop;
	char *page;		/* has the word in which all sides count */
	unsigned int length;
	unsigned long migrated;
};

struct counting {
	struct contention *contention;
	int fd;
	unsigned int cpu;
	unsigned long count;
	unsigned long faults;
	unsigned long busy;
	struct worker worker;
};

static int cpu_main(void *arg)
{
	struct counting *c = arg;
	void *page = c->contention->page;

	run_on_cpu(c->cpu);
	while (!counter_get(&c->contention->stop)) {
		if (c->contention->length == 4)
			__atomic_fetch_add((__u32 *)page, 1, __ATOMIC_SEQ_CST);
		else
			__atomic_fetch_add((__u64 *)page, 1, __ATOMIC_SEQ_CST);
		counter_add(&c->count, 1);
	}
	return 0;
}

static int device_main(void *arg)
{
	struct counting *c = arg;
	struct hmm_ref_atomic cmd;
	int rc;

	run_on_cpu(c->cpu);
	while (!counter_get(&c->contention->stop)) {
		rc = _test_atomic(c->fd, ADD, c->contention->page, c->contention->length,
				  1, 0, &cmd);
		counter_add(&c->faults, cmd.out_faults);
		if (!rc)
			counter_add(&c->count, 1);
		else if (rc == -EBUSY)
			c->busy++;
		else
			return !CHECK(!"ATOMIC failed");
	}
	return 0;
}

/* As count_main(), by compare and exchange, as a lock would do it. */
static int compare_main(void *arg)
{
	struct counting *c = arg;
	struct hmm_ref_atomic cmd;
	unsigned long long value = 0;
	int rc;

	run_on_cpu(c->cpu);
	while (!counter_get(&c->contention->stop)) {
		rc = _test_atomic(c->fd, COMPARE, c->contention->page,
				  c->contention->length, value + 1, value, &cmd);
		counter_add(&c->faults, cmd.out_faults);
		if (!rc && cmd.out_old == value)
			counter_add(&c->count, 1);
		else if (rc == -EBUSY)
			c->busy++;
		else if (!CHECK(!rc))
			return 1;
		value = cmd.out_old;
	}
	return 0;
}

static void count_start(struct __test_metadata *_metadata, struct counting *c,
			struct contention *contention, int (*fn)(void *arg), int fd)
{
	static unsigned int nr;

	c->contention = contention;
	c->fd = fd;
	c->cpu = nr++;
	ASSERT_EQ(0, worker_start(&c->worker, fn, c));
}

#define ENOUGH	10UL

/* Every side has counted, and every device has lost the page many times. */
static bool have_met(struct counting *c, unsigned int n, bool in_device_memory)
{
	unsigned int i;

	for (i = 0; i < n; i++) {
		if (counter_get(&c[i].count) < ENOUGH)
			return false;
		if (c[i].fd >= 0 && !in_device_memory &&
		    counter_get(&c[i].faults) < ENOUGH)
			return false;
	}
	return true;
}

/* All sides have counted, at the same time, and no count is lost. */
static void count_end(struct __test_metadata *_metadata,
		      struct contention *contention, struct counting *c,
		      unsigned int n, bool in_device_memory)
{
	unsigned long long end = now_ms() + 1000 * env_number("HMM_REF_SECONDS", 2);
	unsigned long long deadline = end + MEET_MS;
	unsigned long sum = 0, value;
	unsigned int i;

	while (now_ms() < end || (!have_met(c, n, in_device_memory) &&
				  now_ms() < deadline))
		usleep(10000);
	counter_set(&contention->stop, 1);
	for (i = 0; i < n; i++)
		ASSERT_EQ(0, worker_wait(&c[i].worker));
	value = contention->length == 4 ? *(__u32 *)contention->page :
					  *(__u64 *)contention->page;
	for (i = 0; i < n; i++) {
		TH_LOG("%u: %lu times, %lu faults, EBUSY %lu times", i, c[i].count,
		       c[i].faults, c[i].busy);
		sum += c[i].count;
	}
	EXPECT_EQ(sum, value);
	EXPECT_TRUE(have_met(c, n, in_device_memory));
}

FIXTURE(contention)
{
	struct leak_check leak;
	struct contention contention;
	int fd;
};

FIXTURE_VARIANT(contention)
{
	unsigned int length;
};

FIXTURE_VARIANT_ADD(contention, u32) { .length = 4 };
FIXTURE_VARIANT_ADD(contention, u64) { .length = 8 };

FIXTURE_SETUP(contention)
{
	leak_check_begin(_metadata, &self->leak);
	self->fd = test_open(0);
	self->contention.page = test_map_pages(1);
	self->contention.length = variant->length;
	touch_write(self->contention.page, 0);
}

FIXTURE_TEARDOWN_PARENT(contention)
{
	leak_check_end(_metadata, &self->leak);
}

TEST_F(contention, cpu_and_device)
{
	struct counting c[2] = {};

	count_start(_metadata, &c[0], &self->contention, cpu_main, -1);
	count_start(_metadata, &c[1], &self->contention, device_main, self->fd);
	count_end(_metadata, &self->contention, c, 2, false);
}

TEST_F(contention, cpu_and_comparing_device)
{
	struct counting c[2] = {};

	count_start(_metadata, &c[0], &self->contention, cpu_main, -1);
	count_start(_metadata, &c[1], &self->contention, compare_main, self->fd);
	count_end(_metadata, &self->contention, c, 2, false);
}

TEST_F(contention, two_devices)
{
	struct counting c[2] = {};

	if (self->leak.devices < 2)
		SKIP(return, "needs two devices (ndevices=2)");
	count_start(_metadata, &c[0], &self->contention, device_main, self->fd);
	count_start(_metadata, &c[1], &self->contention, device_main, test_open(1));
	count_end(_metadata, &self->contention, c, 2, false);
}

TEST_F(contention, two_files)
{
	struct counting c[2] = {};

	count_start(_metadata, &c[0], &self->contention, device_main, self->fd);
	count_start(_metadata, &c[1], &self->contention, device_main, test_open(0));
	count_end(_metadata, &self->contention, c, 2, false);
}

/* In device memory, two files do not have to take the page from each other. */
TEST_F(contention, two_files_in_device_memory)
{
	struct counting c[2] = {};

	test_to_device(self->fd, self->contention.page, 1);
	count_start(_metadata, &c[0], &self->contention, device_main, self->fd);
	count_start(_metadata, &c[1], &self->contention, device_main, test_open(0));
	test_pages_at(self->fd, self->contention.page, 1, HMM_REF_PAGE_DEVICE, 1);
	count_end(_metadata, &self->contention, c, 2, true);
	EXPECT_GT(ENOUGH, c[0].faults + c[1].faults);
}

static int migrate_main(void *arg)
{
	struct contention *contention = arg;
	struct hmm_ref_migrate cmd;
	int fd = hmm_ref_open(0);

	while (!counter_get(&contention->stop)) {
		if (!CHECK(!_test_migrate(fd, HMM_REF_TO_DEVICE, contention->page,
					  page_size(), &cmd)))
			return 1;
		contention->migrated += cmd.out_migrated;
	}
	return 0;
}

/* A CPU and a device count while a third thread migrates the page. */
TEST_F(contention, migrating)
{
	struct counting c[2] = {};
	struct worker worker;

	count_start(_metadata, &c[0], &self->contention, cpu_main, -1);
	count_start(_metadata, &c[1], &self->contention, device_main, self->fd);
	ASSERT_EQ(0, worker_start(&worker, migrate_main, &self->contention));
	count_end(_metadata, &self->contention, c, 2, false);
	ASSERT_EQ(0, worker_wait(&worker));
	TH_LOG("%lu pages migrated", self->contention.migrated);
	EXPECT_LT(0, self->contention.migrated);
}

int main(int argc, char **argv)
{
	return hmm_ref_test_main(argc, argv);
}
