// SPDX-License-Identifier: GPL-2.0-only
/*
 * userfaultfd on memory that is on the device or being migrated. Missing pages belong to the
 * handler, write-protected pages stay protected through migration in both directions, and a device
 * fault raises the same events as a CPU fault.
 *
 * Covers: pages that are filled in without a userfaultfd event; a device that writes to a
 * write-protected page; protection that is lost in a migration; a device fault that waits for user
 * space with locks held.
 */
#include <linux/userfaultfd.h>

#include "hmm_ref_utils.h"

#define PAGES	32UL

struct handler {
	int uffd;
	char *mem;
	char *page;		/* content of missing pages */
	int fd;			/* device file to fetch the content from, or 0 */
	char *origin;		/* address of that content */
	unsigned long stop;
	unsigned long missing;
	unsigned long protected;
};

FIXTURE(uffd)
{
	struct leak_check leak;
	struct handler handler;
	struct worker worker;
	char *mem;
	size_t size;
	int fd;
};

static int open_uffd(unsigned long long features)
{
	struct uffdio_api api = { .api = UFFD_API, .features = features };
	int uffd = syscall(__NR_userfaultfd, O_CLOEXEC | O_NONBLOCK);

	if (uffd >= 0 && ioctl(uffd, UFFDIO_API, &api)) {
		close(uffd);
		return -1;
	}
	return uffd;
}

FIXTURE_SETUP(uffd)
{
	int uffd = open_uffd(UFFD_FEATURE_PAGEFAULT_FLAG_WP);

	if (uffd < 0)
		SKIP(return, "no userfaultfd (CONFIG_USERFAULTFD)");
	leak_check_begin(_metadata, &self->leak);
	self->fd = test_open(0);
	self->size = PAGES * page_size();
	self->mem = test_map_pages(PAGES);
	self->handler.uffd = uffd;
	self->handler.mem = self->mem;
	self->handler.page = test_map_pages(1);
	fill_pages(self->handler.page, 1, 5);
}

FIXTURE_TEARDOWN_PARENT(uffd)
{
	leak_check_end(_metadata, &self->leak);
}

static int watch(int uffd, char *mem, unsigned long mode)
{
	struct uffdio_register range = {
		.range.start = (unsigned long)mem,
		.range.len = PAGES * page_size(),
		.mode = mode,
	};

	return ioctl(uffd, UFFDIO_REGISTER, &range) ? -errno : 0;
}

static int protect(int uffd, char *mem, unsigned long npages, bool on)
{
	struct uffdio_writeprotect wp = {
		.range.start = (unsigned long)mem,
		.range.len = npages * page_size(),
		.mode = on ? UFFDIO_WRITEPROTECT_MODE_WP : 0,
	};

	return ioctl(uffd, UFFDIO_WRITEPROTECT, &wp) ? -errno : 0;
}

#define test_watch(mode) \
	ASSERT_EQ(0, watch(self->handler.uffd, self->mem, UFFDIO_REGISTER_MODE_ ## mode))
#define test_protect(npages) \
	ASSERT_EQ(0, protect(self->handler.uffd, self->mem, npages, true))

/* Has the device read the content of the page, and runs other commands. */
static int fetch(struct handler *h)
{
	struct hmm_ref_page_state state;
	struct hmm_ref_snapshot snapshot;
	struct hmm_ref_atomic atomic;
	struct hmm_ref_migrate migrate;

	return _test_read(h->fd, h->origin, page_size(), h->page) ||
	       _test_write(h->fd, h->origin, page_size(), h->page) ||
	       _test_atomic(h->fd, HMM_REF_ATOMIC_ADD, h->origin, 8, 0, 0, &atomic) ||
	       _test_snapshot(h->fd, h->origin, page_size(), &state, &snapshot) ||
	       _test_migrate_all(h->fd, HMM_REF_TO_SYSTEM, h->origin, 1, &migrate) ||
	       _test_migrate_all(h->fd, HMM_REF_TO_DEVICE, h->origin, 1, &migrate) ||
	       _test_make_exclusive(h->fd, h->origin, 1);
}

static int handle(struct handler *h, const struct uffd_msg *msg)
{
	unsigned long page = msg->arg.pagefault.address & ~(page_size() - 1);
	struct uffdio_copy copy = {
		.src = (unsigned long)h->page,
		.dst = page,
		.len = page_size(),
	};

	if (msg->arg.pagefault.flags & UFFD_PAGEFAULT_FLAG_WP) {
		counter_add(&h->protected, 1);
		return protect(h->uffd, (char *)page, 1, false);
	}
	counter_add(&h->missing, 1);
	if (h->fd && fetch(h))
		return -EIO;
	/* Two threads may have waited for the same page. */
	return ioctl(h->uffd, UFFDIO_COPY, &copy) && errno != EEXIST ? -errno : 0;
}

static int handler_main(void *arg)
{
	struct handler *h = arg;
	struct pollfd pollfd = { .fd = h->uffd, .events = POLLIN };
	struct uffd_msg msg;
	int rc;

	while (!counter_get(&h->stop)) {
		if (poll(&pollfd, 1, 100) != 1 ||
		    read(h->uffd, &msg, sizeof(msg)) != sizeof(msg))
			continue;
		do {
			rc = handle(h, &msg);
		} while (rc == -EAGAIN);
		if (!CHECK(!rc))
			return 1;
	}
	return 0;
}

#define test_handler_start() \
	ASSERT_EQ(0, worker_start(&self->worker, handler_main, &self->handler))

#define test_handler_end() do { \
	counter_set(&self->handler.stop, 1); \
	ASSERT_EQ(0, worker_wait(&self->worker)); \
} while (0)

/* ---- missing --------------------------------------------------------------------- */

/* Missing pages belong to the handler: migration must not fill them. */
TEST_F(uffd, is_not_bypassed)
{
	struct hmm_ref_migrate cmd;

	test_watch(MISSING);
	test_migrate(self->fd, HMM_REF_TO_DEVICE, self->mem, self->size, &cmd);
	EXPECT_EQ(0, cmd.out_migrated + cmd.out_already);
	EXPECT_EQ(PAGES, cmd.out_skipped);
	test_pages_at(self->fd, self->mem, PAGES, HMM_REF_PAGE_NONE, PAGES);
}

/* A device fault raises an event for the handler, as a CPU fault does. */
TEST_F(uffd, serves_the_device)
{
	char *buf = test_map_pages(PAGES);
	unsigned long i;

	test_watch(MISSING);
	test_handler_start();
	test_read(self->fd, self->mem, self->size, buf);
	for (i = 0; i < PAGES; i++)
		ASSERT_TRUE(page_holds(buf + i * page_size(), 5, 0));
	test_to_device(self->fd, self->mem, PAGES);
	for (i = 0; i < PAGES; i++)
		ASSERT_TRUE(page_holds(self->mem + i * page_size(), 5, 0));
	test_handler_end();
	EXPECT_EQ(PAGES, self->handler.missing);
}

TEST_F(uffd, serves_a_device_write)
{
	test_watch(MISSING);
	test_handler_start();
	ASSERT_EQ(0, dev_fill_pages(self->fd, self->mem, PAGES, 2));
	test_handler_end();
	EXPECT_EQ(PAGES, self->handler.missing);
	test_cpu_data(self->mem, PAGES, 2);
}

/*
 * The handler uses the file that raised the fault: in a device fault, and in a fault of a command's
 * buffer. The waiting command must not hold a lock that the handler's commands need.
 */
TEST_F_TIMEOUT(uffd, handler_uses_the_same_file, 20)
{
	size_t half = self->size / 2;
	char *buf = test_map_pages(PAGES);
	unsigned long i;

	self->handler.fd = self->fd;
	self->handler.origin = test_map_pages(1);
	fill_pages(self->handler.origin, 1, 7);
	test_to_device(self->fd, self->handler.origin, 1);
	test_watch(MISSING);
	test_handler_start();
	test_read(self->fd, self->mem, half, buf);
	for (i = 0; i < PAGES / 2; i++)
		ASSERT_TRUE(page_holds(buf + i * page_size(), 7, 0));
	fill_pages(buf, PAGES / 2, 2);
	test_to_device(self->fd, buf, PAGES / 2);
	test_read(self->fd, buf, half, self->mem + half);
	test_handler_end();
	EXPECT_EQ(PAGES, self->handler.missing);
	test_cpu_data(self->mem + half, PAGES / 2, 2);
}

/* A page on the device is not missing until it is discarded. */
TEST_F(uffd, device_pages_are_not_missing)
{
	unsigned long i;

	fill_pages(self->mem, PAGES, 1);
	test_to_device(self->fd, self->mem, PAGES);
	test_watch(MISSING);
	test_handler_start();
	test_cpu_data(self->mem, PAGES, 1);
	test_to_device(self->fd, self->mem, PAGES);
	EXPECT_EQ(0, counter_get(&self->handler.missing));
	ASSERT_EQ(0, madvise(self->mem, self->size / 2, MADV_DONTNEED));
	for (i = 0; i < PAGES / 2; i++)
		ASSERT_TRUE(page_holds(self->mem + i * page_size(), 5, 0));
	ASSERT_EQ(0, bad_pages_from(self->mem + self->size / 2, PAGES / 2, 1, PAGES / 2));
	test_handler_end();
	EXPECT_EQ(PAGES / 2, self->handler.missing);
}

/* UFFDIO_COPY to an address that has a page already. */
TEST_F(uffd, copy_onto_device_pages)
{
	struct uffdio_copy copy = {
		.src = (unsigned long)self->handler.page,
		.dst = (unsigned long)self->mem,
		.len = page_size(),
	};

	fill_pages(self->mem, PAGES, 1);
	test_to_device(self->fd, self->mem, PAGES);
	test_watch(MISSING);
	ASSERT_EQ(-1, ioctl(self->handler.uffd, UFFDIO_COPY, &copy));
	ASSERT_EQ(EEXIST, errno);
	test_pages_at(self->fd, self->mem, PAGES, HMM_REF_PAGE_DEVICE, PAGES);
	test_cpu_data(self->mem, PAGES, 1);
}

/* The pages are moved, or the move is refused: all data is in one of the two places. */
TEST_F(uffd, move_of_device_pages)
{
	char *from = test_map_pages(PAGES);
	struct uffdio_move move = {
		.dst = (unsigned long)self->mem,
		.src = (unsigned long)from,
		.len = self->size,
		.mode = UFFDIO_MOVE_MODE_ALLOW_SRC_HOLES,
	};
	int uffd = open_uffd(UFFD_FEATURE_MOVE);
	unsigned long moved = 0;

	if (uffd < 0)
		SKIP(return, "no UFFDIO_MOVE");
	fill_pages(from, PAGES, 1);
	ASSERT_EQ(0, watch(uffd, self->mem, UFFDIO_REGISTER_MODE_MISSING));
	test_to_device(self->fd, from, PAGES);
	test_dev_data(self->fd, from, PAGES, 1);
	if (!ioctl(uffd, UFFDIO_MOVE, &move))
		moved = PAGES;
	else if (move.move > 0)
		moved = move.move / page_size();
	close(uffd);
	TH_LOG("%lu pages moved", moved);
	ASSERT_EQ(0, bad_pages(self->mem, moved, 1));
	ASSERT_EQ(0, bad_pages_from(from + moved * page_size(), PAGES - moved, 1, moved));
	ASSERT_EQ(0, dev_fill_pages(self->fd, from, PAGES, 2));
	ASSERT_EQ(0, bad_pages(self->mem, moved, 1));
	test_cpu_data(from, PAGES, 2);
}

/* ---- write-protected ------------------------------------------------------------- */

FIXTURE(protect)
{
	struct leak_check leak;
	struct handler handler;
	struct worker worker;
	char *mem;
	size_t size;
	int fd;
};

FIXTURE_VARIANT(protect)
{
	bool first;		/* protected before the migration; otherwise after it */
	bool back;		/* and migrated back */
	bool by_device;		/* the device writes */
};

FIXTURE_VARIANT_ADD(protect, then_migrate_cpu) { .first = true };
FIXTURE_VARIANT_ADD(protect, then_migrate_device) { .first = true, .by_device = true };
FIXTURE_VARIANT_ADD(protect, then_trip_cpu) { .first = true, .back = true };
FIXTURE_VARIANT_ADD(protect, then_trip_device) { .first = true, .back = true,
						 .by_device = true };
FIXTURE_VARIANT_ADD(protect, on_device_cpu) { .by_device = false };
FIXTURE_VARIANT_ADD(protect, on_device_device) { .by_device = true };
FIXTURE_VARIANT_ADD(protect, on_device_back_cpu) { .back = true };
FIXTURE_VARIANT_ADD(protect, on_device_back_device) { .back = true, .by_device = true };

FIXTURE_SETUP(protect)
{
	int uffd = open_uffd(UFFD_FEATURE_PAGEFAULT_FLAG_WP);

	if (uffd < 0)
		SKIP(return, "no userfaultfd (CONFIG_USERFAULTFD)");
	leak_check_begin(_metadata, &self->leak);
	self->fd = test_open(0);
	self->size = PAGES * page_size();
	self->mem = test_map_pages(PAGES);
	fill_pages(self->mem, PAGES, 1);
	self->handler.uffd = uffd;
	if (watch(uffd, self->mem, UFFDIO_REGISTER_MODE_WP))
		SKIP(return, "no userfaultfd write protection here");
	/* The device had the pages mapped writable before. */
	ASSERT_EQ(0, dev_fill_pages(self->fd, self->mem, PAGES, 1));
	if (variant->first)
		test_protect(PAGES);
	test_to_device(self->fd, self->mem, PAGES);
	if (!variant->first) {
		ASSERT_EQ(0, dev_fill_pages(self->fd, self->mem, PAGES, 1));
		test_protect(PAGES);
	}
	if (variant->back)
		test_to_system(self->fd, self->mem, PAGES);
	test_handler_start();
}

FIXTURE_TEARDOWN_PARENT(protect)
{
	leak_check_end(_metadata, &self->leak);
}

/* A read raises no event. The first write to each page raises one, and later writes raise none. */
TEST_F(protect, asks_before_a_write)
{
	int round, rc = 0;

	test_dev_data(self->fd, self->mem, PAGES, 1);
	if (!variant->by_device)
		test_cpu_data(self->mem, PAGES, 1);
	EXPECT_EQ(0, counter_get(&self->handler.protected));
	for (round = 2; round < 4; round++) {
		if (variant->by_device)
			rc = dev_fill_pages(self->fd, self->mem, PAGES, round);
		else
			fill_pages(self->mem, PAGES, round);
		ASSERT_EQ(0, rc);
		EXPECT_EQ(PAGES, counter_get(&self->handler.protected));
	}
	test_to_device(self->fd, self->mem, PAGES);
	test_handler_end();
	test_dev_data(self->fd, self->mem, PAGES, 3);
	test_cpu_data(self->mem, PAGES, 3);
}

int main(int argc, char **argv)
{
	return hmm_ref_test_main(argc, argv);
}
