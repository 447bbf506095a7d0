// SPDX-License-Identifier: GPL-2.0-only
/*
 * The device is lost, or does not work when it is removed. The data in its memory is lost: an
 * access gets SIGBUS. Everything else works: removal ends in bounded time, a successor works, and
 * struct pages stay until the last process has unmapped them.
 *
 * Covers: a removal that holds the lock of the bus and waits for pages that cannot be evicted;
 * struct pages that are freed while a process maps them; a driver that mistakes the reply of a
 * device that does not answer for data of a process.
 */
#include "hmm_ref_utils.h"

#define PAGES		64UL
#define FAIL_LOST	"/sys/kernel/debug/hmm_ref/fail_lost/"
#define FAIL_HANG	"/sys/kernel/debug/hmm_ref/fail_hang/"
#define REFCNT		"/sys/module/hmm_ref/refcnt"

/* Pages that a second thread evicts. */
struct lost_pages {
	char *mem;
	int fd;
	int rc;
};

FIXTURE(lost)
{
	struct leak_check leak;
	unsigned int nr;
	long references;
	char *mem;	/* on the device */
	char *other;	/* in system memory */
	int fd;
};

static long references(void)
{
	char text[32];

	return read_file(REFCNT, text, sizeof(text)) < 0 ? -1 : atol(text);
}

FIXTURE_SETUP(lost)
{
	unsigned long long deadline;

	if (attr_disarm(FAIL_LOST) || !device_can_unbind(0))
		SKIP(return, "no fail_lost (CONFIG_FAULT_INJECTION_DEBUG_FS)");
	leak_check_begin(_metadata, &self->leak);
	/* Pages of an earlier test may still be in use for a moment. */
	deadline = now_ms() + PATIENCE_MS;
	while (references() > 0 && now_ms() < deadline)
		usleep(100000);
	self->references = references();
	self->fd = open_private(self->leak.devices, &self->nr);
	ASSERT_LE(0, self->fd);
	self->mem = test_map_pages(PAGES);
	self->other = test_map_pages(PAGES);
	fill_pages(self->mem, PAGES, 1);
	fill_pages(self->other, PAGES, 2);
	test_to_device(self->fd, self->mem, PAGES);
}

FIXTURE_TEARDOWN_PARENT(lost)
{
	attr_disarm(FAIL_LOST);
	attr_disarm(FAIL_HANG);
	if (hmm_ref_count() < self->leak.devices)
		device_bind(self->nr);
	leak_check_end(_metadata, &self->leak);
}

static int touch(void *mem)
{
	return touch_read(mem);
}

static int write_to(void *mem)
{
	touch_write(mem, 1);
	return 0;
}

static void __test_lost(struct __test_metadata *_metadata, char *mem)
{
	EXPECT_EQ(CHILD_SIGNAL + SIGBUS, child_run(touch, mem));
	EXPECT_EQ(CHILD_SIGNAL + SIGBUS, child_run(write_to, mem + page_size()));
	EXPECT_EQ(CHILD_SIGNAL + SIGBUS, child_run(touch, mem + (PAGES - 1) * page_size()));
}

#define test_lost()	__test_lost(_metadata, self->mem)

/* The batch that detects the loss copies other pages, which stay where they are. */
static void __test_lose(struct __test_metadata *_metadata, int fd, char *other)
{
	struct hmm_ref_migrate cmd;

	ASSERT_EQ(0, attr_arm(FAIL_LOST, 0, 1));
	test_err_migrate(ENODEV, fd, HMM_REF_TO_DEVICE, other, PAGES * page_size(), &cmd);
	test_cpu_data(other, PAGES, 2);
}

#define test_lose()	__test_lose(_metadata, self->fd, self->other)

static int __test_rebind(struct __test_metadata *_metadata, unsigned int nr, char *other)
{
	int fd;

	ASSERT_EQ(0, device_unbind(nr));
	ASSERT_EQ(0, device_bind(nr));
	fd = test_open(nr);
	test_to_device(fd, other, PAGES);
	test_dev_data(fd, other, PAGES, 2);
	test_cpu_data(other, PAGES, 2);
	return fd;
}

/* Lost pages stay lost beside a successor that works, and are freed with their last mapping. */
static void __test_ends(struct __test_metadata *_metadata, char *mem, long before)
{
	unsigned long long deadline = now_ms() + PATIENCE_MS;

	EXPECT_LT(before, references());
	ASSERT_EQ(0, munmap(mem, PAGES * page_size()));
	while (references() > before && now_ms() < deadline)
		usleep(100000);
	EXPECT_EQ(before, references());
}

TEST_F(lost, touched)
{
	char byte = 0;

	test_lose();
	test_lost();
	EXPECT_EQ(-ENODEV, _test_read(self->fd, self->mem, 1, &byte));
	EXPECT_EQ(-ENODEV, _test_write(self->fd, self->mem, 1, &byte));
	EXPECT_EQ(-ENODEV, _test_read(self->fd, self->other, 1, &byte));
	EXPECT_EQ(0, byte);
	test_cpu_data(self->other, PAGES, 2);
	close(self->fd);
	self->fd = __test_rebind(_metadata, self->nr, self->other);
	test_lost();
	close(self->fd);
	__test_ends(_metadata, self->mem, self->references);
}

/* The file stays open during the removal. */
TEST_F(lost, open_file)
{
	char byte;
	int fd;

	test_lose();
	fd = __test_rebind(_metadata, self->nr, self->other);
	EXPECT_EQ(-ENODEV, _test_read(self->fd, self->other, 1, &byte));
	test_lost();
	close(self->fd);
	close(fd);
	__test_ends(_metadata, self->mem, self->references);
}

/* A child has the pages, too, and keeps them longer. */
static int keep(void *arg)
{
	int *pipes = arg;
	char byte;

	return read(pipes[0], &byte, 1) != 1;
}

TEST_F(lost, shared_with_a_child)
{
	int pipes[2];
	pid_t child;

	ASSERT_EQ(0, pipe(pipes));
	child = child_start(keep, pipes);
	ASSERT_LT(0, child);
	test_lose();
	close(self->fd);
	self->fd = __test_rebind(_metadata, self->nr, self->other);
	close(self->fd);
	ASSERT_EQ(0, munmap(self->mem, PAGES * page_size()));
	EXPECT_LT(self->references, references());
	self->mem = test_map_pages(PAGES);
	ASSERT_EQ(1, write(pipes[1], "", 1));
	ASSERT_EQ(0, child_wait(child, PATIENCE_MS));
	/* The lost pages are no longer mapped. */
	ASSERT_EQ(0, munmap(self->mem, PAGES * page_size()));
	while (references() > self->references)
		usleep(100000);
}

/* Write access to a lost page does not lead to other data. */
TEST_F(lost, replaced)
{
	test_lose();
	close(self->fd);
	self->fd = __test_rebind(_metadata, self->nr, self->other);
	ASSERT_EQ(0, madvise(self->mem, PAGES * page_size(), MADV_DONTNEED));
	fill_pages(self->mem, PAGES, 3);
	test_to_device(self->fd, self->mem, PAGES);
	test_cpu_data(self->mem, PAGES, 3);
	close(self->fd);
}

/* The copy engine never completes a batch. */
TEST_F_TIMEOUT(lost, engine_is_dead, 120)
{
	ASSERT_EQ(0, attr_arm(FAIL_HANG, 0, -1));
	ASSERT_EQ(0, device_unbind(self->nr));
	ASSERT_EQ(0, attr_disarm(FAIL_HANG));
	test_lost();
	close(self->fd);
	ASSERT_EQ(0, device_bind(self->nr));
	self->fd = test_open(self->nr);
	test_to_device(self->fd, self->other, PAGES);
	test_cpu_data(self->other, PAGES, 2);
	close(self->fd);
	__test_ends(_metadata, self->mem, self->references);
}

static int evict_pages(void *arg)
{
	struct lost_pages *pages = arg;
	struct hmm_ref_evict cmd;

	pages->rc = _test_evict(pages->fd, pages->mem, PAGES * page_size(), &cmd);
	return 0;
}

/*
 * A command that evicts has a batch for each page, because no two neighbours in memory are
 * neighbours on the device. With a dead engine, it ends between two batches for a removal.
 */
TEST_F_TIMEOUT(lost, eviction_ends, 240)
{
	struct lost_pages pages = { .mem = self->other, .fd = self->fd };
	unsigned long long began;
	struct worker worker;
	unsigned long i;

	for (i = 0; i < PAGES; i += 2)
		test_to_device(self->fd, self->other + i * page_size(), 1);
	for (i = 1; i < PAGES; i += 2)
		test_to_device(self->fd, self->other + i * page_size(), 1);
	ASSERT_EQ(0, attr_arm(FAIL_HANG, 0, -1));
	ASSERT_EQ(0, worker_start(&worker, evict_pages, &pages));
	sleep(1);
	began = now_ms();
	ASSERT_EQ(0, device_unbind(self->nr));
	TH_LOG("removed after %llu ms", now_ms() - began);
	/* All pages would take four minutes. */
	EXPECT_GT(100000, now_ms() - began);
	ASSERT_EQ(0, attr_disarm(FAIL_HANG));
	ASSERT_EQ(0, worker_wait(&worker));
	EXPECT_EQ(-ENODEV, pages.rc);
	close(self->fd);
	ASSERT_EQ(0, munmap(self->other, PAGES * page_size()));
	self->other = test_map_pages(PAGES);
	ASSERT_EQ(0, device_bind(self->nr));
	__test_ends(_metadata, self->mem, self->references);
}

int main(int argc, char **argv)
{
	return hmm_ref_test_main(argc, argv);
}
