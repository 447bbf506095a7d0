// SPDX-License-Identifier: GPL-2.0-only
/*
 * The CPU touches pages that are on the device. Every kind of access gets the data, and writes of
 * either side are visible to the other.
 *
 * Covers: a fault that copies into a page that was not present; a fault that kills the process
 * because it could migrate only one page; a page that two threads fault at the same time, and only
 * one of them gets the right data.
 */
#include "hmm_ref_utils.h"

#define PAGES	64UL

FIXTURE(fault)
{
	struct leak_check leak;
	int fd;
	char *mem;
};

FIXTURE_SETUP(fault)
{
	leak_check_begin(_metadata, &self->leak);
	self->fd = test_open(0);
	self->mem = test_map_pages(PAGES);
	fill_pages(self->mem, PAGES, 1);
	test_to_device(self->fd, self->mem, PAGES);
}

FIXTURE_TEARDOWN_PARENT(fault)
{
	leak_check_end(_metadata, &self->leak);
}

/* ---- orders of access ------------------------------------------------------ */

FIXTURE(touch)
{
	struct leak_check leak;
	int fd;
	char *mem;
};

FIXTURE_VARIANT(touch)
{
	unsigned long first;
	unsigned long step;	/* coprime with PAGES, so that every page is touched */
	bool write;
};

FIXTURE_VARIANT_ADD(touch, read_up) { .step = 1 };
FIXTURE_VARIANT_ADD(touch, read_down) { .first = PAGES - 1, .step = PAGES - 1 };
FIXTURE_VARIANT_ADD(touch, read_jumping) { .first = 17, .step = 23 };
FIXTURE_VARIANT_ADD(touch, write_up) { .step = 1, .write = true };
FIXTURE_VARIANT_ADD(touch, write_down) { .first = PAGES - 1, .step = PAGES - 1,
					 .write = true };
FIXTURE_VARIANT_ADD(touch, write_jumping) { .first = 17, .step = 23, .write = true };

FIXTURE_SETUP(touch)
{
	leak_check_begin(_metadata, &self->leak);
	self->fd = test_open(0);
	self->mem = test_map_pages(PAGES);
	fill_pages(self->mem, PAGES, 1);
	test_to_device(self->fd, self->mem, PAGES);
}

FIXTURE_TEARDOWN_PARENT(touch)
{
	leak_check_end(_metadata, &self->leak);
}

/*
 * The touched page is in system memory with all its data. Other pages may have been migrated with
 * it.
 */
TEST_F(touch, one_by_one)
{
	unsigned long i, page = variant->first;
	long here, there;

	for (i = 0; i < PAGES; i++, page = (page + variant->step) % PAGES) {
		char *mem = self->mem + page * page_size();

		if (variant->write)
			fill_pages_from(mem, 1, 2, page);
		ASSERT_TRUE(page_holds(mem, variant->write ? 2 : 1, page));
		test_pages_at(self->fd, mem, 1, HMM_REF_PAGE_SYSTEM, 1);
	}
	here = pages_at(self->fd, self->mem, PAGES, HMM_REF_PAGE_SYSTEM);
	there = pages_at(self->fd, self->mem, PAGES, HMM_REF_PAGE_DEVICE);
	ASSERT_EQ(PAGES, here);
	ASSERT_EQ(0, there);
	test_cpu_data(self->mem, PAGES, variant->write ? 2 : 1);
}

TEST_F(touch, one_page_only)
{
	struct hmm_ref_stats before, after;
	char *mem = self->mem + variant->first * page_size();
	long here, there;

	test_stats(self->fd, &before);
	if (variant->write)
		touch_write(mem, pattern_word(1, variant->first, 0));
	else
		touch_read(mem);
	test_stats(self->fd, &after);
	EXPECT_EQ(1, after.out_cpu_faults - before.out_cpu_faults);
	here = pages_at(self->fd, self->mem, PAGES, HMM_REF_PAGE_SYSTEM);
	there = pages_at(self->fd, self->mem, PAGES, HMM_REF_PAGE_DEVICE);
	EXPECT_EQ(PAGES, here + there);
	EXPECT_EQ(here, after.out_fault_pages - before.out_fault_pages);
	test_pages_at(self->fd, mem, 1, HMM_REF_PAGE_SYSTEM, 1);
	test_dev_data(self->fd, self->mem, PAGES, 1);
	test_cpu_data(self->mem, PAGES, 1);
}

/* One byte is written. The rest of the page does not change. */
TEST_F(fault, partial_write)
{
	unsigned long i;

	for (i = 0; i < PAGES; i++)
		self->mem[i * page_size() + i * 61 % page_size()] ^= 0xff;
	for (i = 0; i < PAGES; i++)
		self->mem[i * page_size() + i * 61 % page_size()] ^= 0xff;
	test_cpu_data(self->mem, PAGES, 1);
}

/* ---- both sides write ------------------------------------------------------ */

TEST_F(fault, device_write_seen_by_cpu)
{
	ASSERT_EQ(0, dev_fill_pages(self->fd, self->mem, PAGES, 2));
	test_cpu_data(self->mem, PAGES, 2);
	fill_pages(self->mem, PAGES, 3);
	test_dev_data(self->fd, self->mem, PAGES, 3);
}

/* CPU and device increment a word in turns, wherever it is at the time. */
TEST_F(fault, taking_turns)
{
	unsigned long *word = (unsigned long *)(self->mem + 3 * page_size()) + 5;
	unsigned long expected = 0, seen;
	int i;

	counter_set(word, 0);
	for (i = 0; i < 300; i++) {
		if (i % 7 == 0)
			test_to_device(self->fd, self->mem, PAGES);
		if (i % 11 == 0)
			test_to_system(self->fd, self->mem, PAGES);
		if (i % 3)
			counter_add(word, 1);
		test_read(self->fd, word, sizeof(seen), &seen);
		ASSERT_EQ(expected + !!(i % 3), seen);
		seen++;
		test_write(self->fd, word, sizeof(seen), &seen);
		expected = seen;
	}
	ASSERT_EQ(expected, counter_get(word));
}

/* Each side repeatedly writes its half of every page. */
TEST_F(fault, halves_of_a_page)
{
	unsigned long half = page_size() / 2, i;
	char *buf = test_map_pages(1);
	int round;

	for (round = 0; round < 20; round++) {
		if (round % 3 == 0)
			test_to_device(self->fd, self->mem, PAGES);
		for (i = 0; i < PAGES; i += 5) {
			char *page = self->mem + i * page_size();

			memset(buf, 0x40 + round, half);
			test_write(self->fd, page + half, half, buf);
			memset(page, round, half);
			memset(buf, 0xcc, page_size());
			test_read(self->fd, page, page_size(), buf);
			ASSERT_EQ(round, buf[0]);
			ASSERT_EQ(round, buf[half - 1]);
			ASSERT_EQ(0x40 + round, buf[half]);
			ASSERT_EQ(0x40 + round, page[2 * half - 1]);
		}
	}
}

/* ---- threads --------------------------------------------------------------- */

#define THREADS	4

struct crowd {
	char *mem;
	unsigned long *turn;	/* round that may start */
	unsigned long done;
	int nr;
	bool write;
};

#define CROWD_ROUNDS	25

static int crowd_main(void *arg)
{
	struct crowd *crowd = arg;
	unsigned long round, i;

	for (round = 1; round <= CROWD_ROUNDS; round++) {
		while (counter_get(crowd->turn) < round)
			sched_yield();
		for (i = 0; i < PAGES; i++) {
			unsigned long *word = (unsigned long *)(crowd->mem + i * page_size());

			if (crowd->write)
				counter_add(&word[crowd->nr * 8], 1);
			else if (!CHECK(word[1] == pattern_word(1, i, 1)))
				return 1;
		}
		counter_set(&crowd->done, round);
	}
	return 0;
}

static void run_crowd(struct __test_metadata *_metadata, int fd, char *mem,
		      bool write)
{
	struct crowd crowd[THREADS] = {};
	struct worker worker[THREADS];
	unsigned long long deadline;
	unsigned long turn = 0;
	int round, i;

	for (i = 0; i < THREADS; i++) {
		crowd[i].mem = mem;
		crowd[i].turn = &turn;
		crowd[i].nr = i;
		crowd[i].write = write;
		ASSERT_EQ(0, worker_start(&worker[i], crowd_main, &crowd[i]));
	}
	for (round = 1; round <= CROWD_ROUNDS; round++) {
		test_to_device(fd, mem, PAGES);
		counter_set(&turn, round);
		deadline = now_ms() + PATIENCE_MS;
		for (i = 0; i < THREADS; i++)
			while (counter_get(&crowd[i].done) < round && now_ms() < deadline)
				sched_yield();
		ASSERT_GT(deadline, now_ms());
	}
	for (i = 0; i < THREADS; i++)
		ASSERT_EQ(0, worker_wait(&worker[i]));
}

TEST_F(fault, threads_read_the_same_pages)
{
	run_crowd(_metadata, self->fd, self->mem, false);
	test_cpu_data(self->mem, PAGES, 1);
}

TEST_F(fault, threads_write_the_same_pages)
{
	unsigned long i;
	int nr;

	for (i = 0; i < PAGES; i++)
		memset(self->mem + i * page_size(), 0, page_size());
	run_crowd(_metadata, self->fd, self->mem, true);
	for (i = 0; i < PAGES; i++) {
		unsigned long *word = (unsigned long *)(self->mem + i * page_size());

		for (nr = 0; nr < THREADS; nr++)
			ASSERT_EQ(CROWD_ROUNDS, word[nr * 8]);
	}
}

/* ---- accesses by the kernel ------------------------------------------------ */

TEST_F(fault, pipe)
{
	char *buf = test_map_pages(1);
	unsigned long i;
	int fds[2];

	ASSERT_EQ(0, pipe2(fds, O_CLOEXEC));
	for (i = 0; i < PAGES; i++) {
		char *page = self->mem + i * page_size();

		ASSERT_EQ(page_size(), write(fds[1], page, page_size()));
		fill_pages_from(buf, 1, 1, i);
		ASSERT_EQ(page_size(), read(fds[0], page, page_size()));
		ASSERT_TRUE(page_holds(page, 1, i));
	}
}

TEST_F(fault, file)
{
	int file = memfd_create("hmm_ref", MFD_CLOEXEC);
	size_t size = PAGES * page_size();
	char *copy = test_map_pages(PAGES);

	ASSERT_LE(0, file);
	ASSERT_EQ(size, pwrite(file, self->mem, size, 0));
	ASSERT_EQ(size, pread(file, copy, size, 0));
	test_cpu_data(copy, PAGES, 1);

	fill_pages(copy, PAGES, 2);
	ASSERT_EQ(size, pwrite(file, copy, size, 0));
	test_to_device(self->fd, self->mem, PAGES);
	ASSERT_EQ(size, pread(file, self->mem, size, 0));
	test_dev_data(self->fd, self->mem, PAGES, 2);
	test_cpu_data(self->mem, PAGES, 2);
}

TEST_F(fault, process_vm)
{
	struct iovec here, there;
	char *copy = test_map_pages(PAGES);

	here.iov_base = copy;
	there.iov_base = self->mem;
	here.iov_len = PAGES * page_size();
	there.iov_len = here.iov_len;
	if (process_vm_readv(getpid(), &here, 1, &there, 1, 0) < 0)
		SKIP(return, "process_vm_readv: %s (CONFIG_CROSS_MEMORY_ATTACH)",
		     strerror(errno));
	test_cpu_data(copy, PAGES, 1);

	fill_pages(copy, PAGES, 2);
	test_to_device(self->fd, self->mem, PAGES);
	ASSERT_EQ(here.iov_len, process_vm_writev(getpid(), &here, 1, &there, 1, 0));
	test_dev_data(self->fd, self->mem, PAGES, 2);
}

TEST_F(fault, proc_mem)
{
	size_t size = PAGES * page_size();
	char *copy = test_map_pages(PAGES);
	int file = open("/proc/self/mem", O_RDWR | O_CLOEXEC);

	ASSERT_LE(0, file);
	ASSERT_EQ(size, pread(file, copy, size, (unsigned long)self->mem));
	test_cpu_data(copy, PAGES, 1);
	fill_pages(copy, PAGES, 2);
	test_to_device(self->fd, self->mem, PAGES);
	ASSERT_EQ(size, pwrite(file, copy, size, (unsigned long)self->mem));
	test_dev_data(self->fd, self->mem, PAGES, 2);
	test_cpu_data(self->mem, PAGES, 2);
}

/* To pin a page, the kernel has to migrate it to system memory, where it then stays. */
TEST_F(fault, vmsplice)
{
	struct iovec iov = { .iov_base = self->mem, .iov_len = 4 * page_size() };
	struct hmm_ref_migrate cmd;
	char *copy = test_map_pages(4);
	int fds[2];

	ASSERT_EQ(0, pipe2(fds, O_CLOEXEC));
	if (vmsplice(fds[1], &iov, 1, 0) != iov.iov_len)
		SKIP(return, "vmsplice: %s", strerror(errno));
	test_pages_at(self->fd, self->mem, 4, HMM_REF_PAGE_SYSTEM, 4);
	test_migrate(self->fd, HMM_REF_TO_DEVICE, self->mem, 4 * page_size(), &cmd);
	EXPECT_EQ(4, cmd.out_skipped);
	ASSERT_EQ(4 * page_size(), read(fds[0], copy, 4 * page_size()));
	test_cpu_data(copy, 4, 1);
	test_cpu_data(self->mem, PAGES, 1);
}

/* The kernel looks a futex up by page, with and without a fault. */
TEST_F(fault, futex)
{
	unsigned int *word = (unsigned int *)self->mem;
	struct timespec soon = { .tv_nsec = 1000000 };

	*word = 7;
	test_to_device(self->fd, self->mem, PAGES);
	ASSERT_EQ(-1, syscall(SYS_futex, word, 0 /* FUTEX_WAIT */, 8, &soon, NULL, 0));
	ASSERT_EQ(EAGAIN, errno);
	test_to_device(self->fd, self->mem, PAGES);
	ASSERT_EQ(-1, syscall(SYS_futex, word, 0 /* FUTEX_WAIT */, 7, &soon, NULL, 0));
	ASSERT_EQ(ETIMEDOUT, errno);
	ASSERT_EQ(7, *word);
}

int main(int argc, char **argv)
{
	return hmm_ref_test_main(argc, argv);
}
