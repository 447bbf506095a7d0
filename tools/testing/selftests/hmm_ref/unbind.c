// SPDX-License-Identifier: GPL-2.0-only
/*
 * The device is unbound (sysfs) while it has pages of running processes. Open files get ENODEV, no
 * process loses data, and the device can be bound again.
 *
 * Uses the last device, so that a failure leaves the others usable.
 *
 * Covers: an eviction that skips pages which it could not lock, and a remove that then waits
 * forever; pages allocated during the removal, or a device that is removed while it is used; device
 * memory used after it was unmapped.
 */
#include <linux/userfaultfd.h>

#include "hmm_ref_load.h"
#include "hmm_ref_utils.h"

#define PAGES		64UL
#define ROUNDS		10

FIXTURE(unbind)
{
	struct leak_check leak;
	unsigned int nr;
	int fd;
	char *mem;
};

FIXTURE_SETUP(unbind)
{
	if (!device_can_unbind(0))
		SKIP(return, "the device cannot be unbound");
	leak_check_begin(_metadata, &self->leak);
	self->fd = open_private(self->leak.devices, &self->nr);
	ASSERT_LE(0, self->fd);
	self->mem = test_map_pages(PAGES);
	fill_pages(self->mem, PAGES, 1);
	test_to_device(self->fd, self->mem, PAGES);
	test_dev_data(self->fd, self->mem, PAGES, 1);
}

FIXTURE_TEARDOWN_PARENT(unbind)
{
	/* The next test needs the device, whatever this one has done. */
	if (hmm_ref_count() < self->leak.devices)
		device_bind(self->nr);
	leak_check_end(_metadata, &self->leak);
}

static void __test_gone(struct __test_metadata *_metadata, int fd, char *mem)
{
	struct hmm_ref_page_state states[PAGES];
	struct hmm_ref_snapshot snapshot;
	struct hmm_ref_migrate migrate;
	struct hmm_ref_stats stats;
	struct hmm_ref_audit audit;
	struct hmm_ref_info info;
	char word[8] = "notmine";

	EXPECT_EQ(-ENODEV, _test_info(fd, &info));
	EXPECT_EQ(-ENODEV, _test_stats(fd, &stats));
	EXPECT_EQ(-ENODEV, _test_audit(fd, &audit));
	EXPECT_EQ(-ENODEV, _test_migrate(fd, HMM_REF_TO_DEVICE, mem,
					 PAGES * page_size(), &migrate));
	EXPECT_EQ(-ENODEV, _test_migrate(fd, HMM_REF_TO_SYSTEM, mem,
					 PAGES * page_size(), &migrate));
	EXPECT_EQ(-ENODEV, _test_read(fd, mem, sizeof(word), word));
	EXPECT_EQ(-ENODEV, _test_write(fd, mem, sizeof(word), word));
	EXPECT_EQ(-ENODEV, _test_snapshot(fd, mem, PAGES * page_size(), states,
					  &snapshot));
	EXPECT_STREQ("notmine", word);
}

#define test_gone(fd)	__test_gone(_metadata, fd, self->mem)

/* After it is bound again, the device works as before. */
static int __test_rebind(struct __test_metadata *_metadata,
			 unsigned int nr, char *mem, bool alone)
{
	struct hmm_ref_stats stats;
	int fd;

	ASSERT_EQ(0, device_bind(nr));
	fd = test_open(nr);
	test_stats(fd, &stats);
	if (alone) {
		EXPECT_EQ(0, stats.out_pages_in_use);
		EXPECT_EQ(0, stats.out_to_device);
	}
	fill_pages(mem, PAGES, 1);
	test_to_device(fd, mem, PAGES);
	test_dev_data(fd, mem, PAGES, 1);
	return fd;
}

#define test_rebind() \
	(self->fd = __test_rebind(_metadata, self->nr, self->mem, true))
#define test_rebind_beside_others() \
	(self->fd = __test_rebind(_metadata, self->nr, self->mem, false))

TEST_F(unbind, file_open)
{
	int i, old;

	for (i = 0; i < ROUNDS; i++) {
		ASSERT_EQ(0, device_unbind(self->nr));
		test_gone(self->fd);
		EXPECT_EQ(-ENOENT, hmm_ref_open(self->nr));
		test_cpu_data(self->mem, PAGES, 1);
		old = self->fd;
		test_rebind();
		/* The old file stays dead. */
		test_gone(old);
		ASSERT_EQ(0, close(old));
	}
}

/* Pages in many blocks, which no process touches: all of them have to be evicted. */
TEST_F_TIMEOUT(unbind, many_blocks, 120)
{
	unsigned long npages = 5 * block_pages() + 3;
	char *mem = test_map_pages(npages);

	fill_pages(mem, npages, 2);
	test_to_device(self->fd, mem, npages);
	ASSERT_EQ(0, device_unbind(self->nr));
	/* Pages that are left behind are lost, and an access gets SIGBUS. */
	test_cpu_data(mem, npages, 2);
	test_cpu_data(self->mem, PAGES, 1);
	test_rebind();
}

TEST_F(unbind, file_closed)
{
	int i;

	for (i = 0; i < ROUNDS; i++) {
		ASSERT_EQ(0, close(self->fd));
		ASSERT_EQ(0, device_unbind(self->nr));
		test_cpu_data(self->mem, PAGES, 1);
		test_rebind();
	}
}

/* ---- while the device is in use -------------------------------------------------- */

struct victim {
	int fd;
	char *mem;
	unsigned long stop;
	unsigned long rounds;
	int ready, go;		/* events */
};

/* Unbinds the device while @work uses it; @work counts rounds, and ends when it is gone. */
static void __test_unbind_beside(struct __test_metadata *_metadata, unsigned int nr,
				 struct victim *v, int (*work)(void *))
{
	struct worker worker;
	int i, old;

	for (i = 0; i < ROUNDS; i++) {
		v->rounds = 0;
		ASSERT_EQ(0, worker_start(&worker, work, v));
		while (!counter_get(&v->rounds))
			sched_yield();
		ASSERT_EQ(0, device_unbind(nr));
		ASSERT_EQ(0, worker_wait(&worker));
		test_cpu_data(v->mem, PAGES, 1);
		old = v->fd;
		v->fd = __test_rebind(_metadata, nr, v->mem, true);
		close(old);
	}
}

/* Migrates until the device is gone. */
static int migrate_main(void *arg)
{
	struct victim *v = arg;
	struct hmm_ref_migrate cmd;
	int rc;

	do {
		rc = _test_migrate(v->fd, HMM_REF_TO_DEVICE, v->mem,
				   PAGES * page_size(), &cmd);
		if (!rc)
			counter_add(&v->rounds, 1);
		if (!CHECK(!bad_pages(v->mem, PAGES, 1)))
			return 1;
	} while (!rc);
	return !CHECK(rc == -ENODEV);
}

TEST_F(unbind, while_migrating)
{
	struct victim v = { .fd = self->fd, .mem = self->mem };

	__test_unbind_beside(_metadata, self->nr, &v, migrate_main);
}

/* The device reads and writes until it is gone. */
static int access_main(void *arg)
{
	struct victim *v = arg;
	unsigned long *word = (unsigned long *)v->mem;
	unsigned long value = word[0];
	int rc;

	for (;;) {
		rc = _test_write(v->fd, word, sizeof(value), &value);
		if (rc)
			return !CHECK(rc == -ENODEV);
		rc = dev_bad_pages(v->fd, v->mem, PAGES, 1);
		if (rc)
			return !CHECK(rc == -ENODEV);
		counter_add(&v->rounds, 1);
	}
}

TEST_F(unbind, while_accessing)
{
	struct victim v = { .fd = self->fd, .mem = self->mem };

	__test_unbind_beside(_metadata, self->nr, &v, access_main);
}

/* An access that waits for a page, which only the test can provide. */
struct stuck {
	int fd;
	int uffd;
	char *mem;
	int rc;
};

static int stuck_main(void *arg)
{
	struct stuck *stuck = arg;
	char word[8];

	stuck->rc = _test_read(stuck->fd, stuck->mem, sizeof(word), word);
	return 0;
}

static int stuck_watch(struct stuck *stuck)
{
	struct uffdio_api api = { .api = UFFD_API };
	struct uffdio_register range = {
		.range.start = (unsigned long)stuck->mem,
		.range.len = page_size(),
		.mode = UFFDIO_REGISTER_MODE_MISSING,
	};

	stuck->uffd = syscall(__NR_userfaultfd, O_CLOEXEC | O_NONBLOCK);
	if (stuck->uffd < 0 || ioctl(stuck->uffd, UFFDIO_API, &api))
		return -errno;
	return ioctl(stuck->uffd, UFFDIO_REGISTER, &range) ? -errno : 0;
}

static int stuck_release(struct stuck *stuck)
{
	struct uffdio_zeropage zero = {
		.range.start = (unsigned long)stuck->mem,
		.range.len = page_size(),
	};

	return ioctl(stuck->uffd, UFFDIO_ZEROPAGE, &zero) ? -errno : 0;
}

/* Unbind does not wait for user space. The waiting command finds the device gone afterwards. */
TEST_F_TIMEOUT(unbind, during_a_waiting_fault, 120)
{
	struct stuck stuck = { .fd = self->fd, .mem = test_map_pages(1) };
	struct pollfd pollfd = { .events = POLLIN };
	struct worker reader;
	int fd = self->fd;

	if (stuck_watch(&stuck))
		SKIP(return, "no userfaultfd (CONFIG_USERFAULTFD)");
	ASSERT_EQ(0, worker_start(&reader, stuck_main, &stuck));
	pollfd.fd = stuck.uffd;
	ASSERT_EQ(1, poll(&pollfd, 1, PATIENCE_MS));
	ASSERT_EQ(0, device_unbind(self->nr));
	test_cpu_data(self->mem, PAGES, 1);
	test_rebind();
	ASSERT_EQ(0, stuck_release(&stuck));
	ASSERT_EQ(0, worker_wait(&reader));
	EXPECT_EQ(-ENODEV, stuck.rc);
	test_dev_data(self->fd, self->mem, PAGES, 1);
	close(stuck.uffd);
	close(fd);
	close(self->fd);
}

/*
 * Memory for the device page table is allocated while the device is removed, for longer than the
 * removal waits for a command. It is not used for a device that is gone: pages that are unmapped
 * later would be flushed there.
 */
TEST_F_TIMEOUT(unbind, beside_a_slow_allocation, 300)
{
	struct stuck reads = { .fd = self->fd };
	unsigned long long began, took = 0;
	struct worker reader;
	int i, old;

	if (access(SLOW_ROOM, W_OK))
		SKIP(return, "no slow_room (CONFIG_FAULT_INJECTION_DEBUG_FS)");
	/* A read that ends early did not reach the allocation before the device was gone. */
	for (i = 0; i < ROUNDS && took < 15000; i++) {
		reads.mem = test_map_blocks(1);
		touch_write(reads.mem, 1);
		ASSERT_EQ(0, write_file(SLOW_ROOM, "20000"));
		began = now_ms();
		ASSERT_EQ(0, worker_start(&reader, stuck_main, &reads));
		usleep(500 * 1000);
		ASSERT_EQ(0, write_file(SLOW_ROOM, "0"));
		ASSERT_EQ(0, device_unbind(self->nr));
		ASSERT_EQ(0, worker_wait(&reader));
		took = now_ms() - began;
		ASSERT_EQ(0, munmap(reads.mem, block_size()));
		old = self->fd;
		test_rebind();
		close(old);
		reads.fd = self->fd;
	}
	if (took < 15000)
		SKIP(return, "the allocation has not begun in time");
}

/*
 * A range that maps nothing is freed while the device is removed. The removal waits for that, since
 * the range holds memory for DMA addresses of the device.
 */
TEST_F_TIMEOUT(unbind, beside_an_idle_range, 300)
{
	unsigned long long began, took = 0;
	char *mem, word[8];
	int i, old;

	if (access(SLOW_IDLE, W_OK))
		SKIP(return, "no slow_idle (CONFIG_FAULT_INJECTION_DEBUG_FS)");
	/* A removal that does not take long did not find the range being freed. */
	for (i = 0; i < ROUNDS && took < 2000; i++) {
		mem = test_map_blocks(1);
		touch_write(mem, 1);
		ASSERT_EQ(0, _test_read(self->fd, mem, sizeof(word), word));
		ASSERT_EQ(0, write_file(SLOW_IDLE, "6000"));
		ASSERT_EQ(0, munmap(mem, block_size()));
		/* The driver frees a range after a second without use. */
		usleep(2500 * 1000);
		ASSERT_EQ(0, write_file(SLOW_IDLE, "0"));
		began = now_ms();
		ASSERT_EQ(0, device_unbind(self->nr));
		took = now_ms() - began;
		old = self->fd;
		test_rebind();
		close(old);
	}
	if (took < 2000)
		SKIP(return, "no range was being freed in time");
}

/* Touches its pages all the time. */
static int touch_main(void *arg)
{
	struct victim *v = arg;

	while (!counter_get(&v->stop)) {
		if (!CHECK(!bad_pages(v->mem, PAGES, 1)))
			return 1;
		counter_add(&v->rounds, 1);
	}
	return 0;
}

TEST_F(unbind, while_touching)
{
	struct victim v = { .mem = self->mem };
	struct worker worker;
	int i, old;

	for (i = 0; i < ROUNDS; i++) {
		v.stop = 0;
		v.rounds = 0;
		ASSERT_EQ(0, worker_start(&worker, touch_main, &v));
		ASSERT_EQ(0, device_unbind(self->nr));
		while (!counter_get(&v.rounds))
			sched_yield();
		counter_set(&v.stop, 1);
		ASSERT_EQ(0, worker_wait(&worker));
		old = self->fd;
		test_rebind();
		close(old);
	}
}

/* A process that has the pages from its parent and no file. */
static int child_main(void *arg)
{
	struct victim *v = arg;

	close(v->fd);
	event_post(v->ready);
	return !CHECK(event_wait(v->go)) || !CHECK(!bad_pages(v->mem, PAGES, 1));
}

TEST_F(unbind, with_a_child)
{
	struct victim v = { .mem = self->mem, .ready = event_new(), .go = event_new() };
	pid_t pid;
	int i, old;

	for (i = 0; i < ROUNDS; i++) {
		v.fd = self->fd;
		pid = child_start(child_main, &v);
		ASSERT_LT(0, pid);
		ASSERT_TRUE(event_wait(v.ready));
		ASSERT_EQ(0, dev_fill_pages(self->fd, self->mem, PAGES / 2, 2));
		ASSERT_EQ(0, device_unbind(self->nr));
		event_post(v.go);
		ASSERT_EQ(0, child_wait(pid, PATIENCE_MS));
		ASSERT_EQ(0, bad_pages(self->mem, PAGES / 2, 2));
		ASSERT_EQ(0, bad_pages_from(self->mem + PAGES / 2 * page_size(),
					    PAGES / 2, 1, PAGES / 2));
		old = self->fd;
		test_rebind();
		close(old);
	}
}

/* A file that is closed after the device has been bound again. */
TEST_F(unbind, file_closed_after_bind)
{
	int old[ROUNDS], i;

	for (i = 0; i < ROUNDS; i++) {
		old[i] = self->fd;
		ASSERT_EQ(0, device_unbind(self->nr));
		test_rebind();
	}
	for (i = 0; i < ROUNDS; i++) {
		test_gone(old[i]);
		ASSERT_EQ(0, close(old[i]));
	}
	test_dev_data(self->fd, self->mem, PAGES, 1);
}

/*
 * Unbinds again and again, with pages of this process on the device, and beside processes that use
 * it. At least one of these has the device open at that time, since it has just used it, and finds
 * it gone.
 */
TEST_F_TIMEOUT(unbind, under_load, 7200)
{
	unsigned long rounds = env_number("HMM_REF_UNBIND_ROUNDS", 5), outages, i;
	struct load *load = test_load_start(self->nr);
	int old;

	for (i = 0; i < rounds; i++) {
		ASSERT_TRUE(load_goes_on(load)) TH_LOG("round %lu", i);
		outages = counter_get(&load->outages);
		ASSERT_EQ(0, device_unbind(self->nr)) TH_LOG("round %lu", i);
		test_cpu_data(self->mem, PAGES, 1);
		ASSERT_TRUE(load_counts(&load->outages, outages)) TH_LOG("round %lu", i);
		old = self->fd;
		test_rebind_beside_others();
		close(old);
		if (i % 10 == 0)
			test_load_log(load, i + 1);
	}
	EXPECT_TRUE(load_goes_on(load));
	EXPECT_EQ(0, load_stop(load));
	test_load_log(load, rounds);
}

int main(int argc, char **argv)
{
	return hmm_ref_test_main(argc, argv);
}
