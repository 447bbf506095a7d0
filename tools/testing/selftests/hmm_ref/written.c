// SPDX-License-Identifier: GPL-2.0-only
/*
 * Detection of writes by a userfaultfd that write-protects, and by PAGEMAP_SCAN. A write by the CPU
 * or by the device, to a page on the device, in system memory, or missing, is detected.
 *
 * Covers: a snapshot of a virtual machine, or a checkpoint of a process, that misses device writes;
 * protection of a hole that a migration drops.
 */
#include <linux/fs.h>

#include "hmm_ref_uffd.h"
#include "hmm_ref_utils.h"

#define SMALL		16UL	/* pages of the variant without huge pages */

static int protect(int uffd, char *mem, size_t size, bool on)
{
	struct uffdio_writeprotect wp = {
		.range = { .start = (unsigned long)mem, .len = size },
		.mode = on ? UFFDIO_WRITEPROTECT_MODE_WP : 0,
	};

	return ioctl(uffd, UFFDIO_WRITEPROTECT, &wp) ? -errno : 0;
}

/* Opens the first coherent device, or the first device. Returns a file, or -errno. */
static int open_device(bool coherent)
{
	struct hmm_ref_info info;
	unsigned int i, type = coherent ? HMM_REF_MEMORY_COHERENT : HMM_REF_MEMORY_PRIVATE;
	int fd;

	for (i = 0; i < hmm_ref_count(); i++) {
		fd = hmm_ref_open(i);
		if (fd >= 0 && !_test_info(fd, &info) && info.out_memory_type == type)
			return fd;
		close(fd);
	}
	return -ENODEV;
}

/* ---- holes and zero pages under a userfaultfd ------------------------------------ */

enum kind { UNPOPULATED, ZERO, HUGE_ZERO };

FIXTURE(hole)
{
	struct leak_check leak;
	struct worker worker;
	char *mem;
	unsigned long npages;
	size_t size;
	int uffd;
	int fd;
	unsigned long stop;
	unsigned long told;
};

FIXTURE_VARIANT(hole)
{
	enum kind kind;
	bool coherent;
	bool by_device;		/* the device writes */
};

FIXTURE_VARIANT_ADD(hole, none_cpu) { .kind = UNPOPULATED };
FIXTURE_VARIANT_ADD(hole, none_device) { .kind = UNPOPULATED, .by_device = true };
FIXTURE_VARIANT_ADD(hole, zero_cpu) { .kind = ZERO };
FIXTURE_VARIANT_ADD(hole, zero_device) { .kind = ZERO, .by_device = true };
FIXTURE_VARIANT_ADD(hole, huge_zero_cpu) { .kind = HUGE_ZERO };
FIXTURE_VARIANT_ADD(hole, huge_zero_device) { .kind = HUGE_ZERO, .by_device = true };
FIXTURE_VARIANT_ADD(hole, coherent_zero_cpu) { .kind = ZERO, .coherent = true };
FIXTURE_VARIANT_ADD(hole, coherent_zero_device) {
	.kind = ZERO, .coherent = true, .by_device = true,
};

FIXTURE_VARIANT_ADD(hole, coherent_huge_cpu) { .kind = HUGE_ZERO, .coherent = true };

FIXTURE_SETUP(hole)
{
	bool huge = variant->kind == HUGE_ZERO;

	self->fd = open_device(variant->coherent);
	if (self->fd < 0)
		SKIP(return, "no device with such memory");
	leak_check_begin(_metadata, &self->leak);
	self->npages = huge ? block_pages() : SMALL;
	self->size = self->npages * page_size();
	self->mem = test_map_blocks(1);
	if (madvise(self->mem, block_size(), huge ? MADV_HUGEPAGE : MADV_NOHUGEPAGE) && huge)
		SKIP(return, "no transparent huge pages");
	self->uffd = uffd_watch(self->mem, self->size,
				UFFD_FEATURE_PAGEFAULT_FLAG_WP | UFFD_FEATURE_WP_UNPOPULATED,
				UFFDIO_REGISTER_MODE_WP);
	if (self->uffd < 0)
		SKIP(return, "no write protection by userfaultfd");
}

FIXTURE_TEARDOWN_PARENT(hole)
{
	leak_check_end(_metadata, &self->leak);
}

/* Lets each write through, and counts it. */
static int listen_main(void *arg)
{
	struct _test_data_hole *self = arg;
	struct pollfd pollfd = { .fd = self->uffd, .events = POLLIN };
	struct uffd_msg msg;
	int rc;

	while (!counter_get(&self->stop)) {
		char *page;

		if (poll(&pollfd, 1, 100) != 1 ||
		    read(self->uffd, &msg, sizeof(msg)) != sizeof(msg))
			continue;
		page = (char *)(msg.arg.pagefault.address & ~(page_size() - 1));
		counter_add(&self->told, 1);
		do {
			rc = protect(self->uffd, page, page_size(), false);
		} while (rc == -EAGAIN);
		if (!CHECK(!rc))
			return 1;
	}
	return 0;
}

static int write_byte(int fd, char *addr, bool by_device)
{
	char one = 1;

	if (by_device)
		return _test_write(fd, addr, 1, &one);
	touch_write(addr, 1);
	return 0;
}

/* A write to a protected hole raises an event. */
TEST_F(hole, write_is_detected)
{
	unsigned long i, step = self->npages / SMALL, expected = 0;
	struct hmm_ref_migrate cmd;
	char byte;

	for (i = 0; variant->kind != UNPOPULATED && i < self->npages; i += step)
		touch_read(self->mem + i * page_size());
	/* READ has the device map the pages that are protected next. */
	if (variant->kind != UNPOPULATED)
		test_read(self->fd, self->mem, 1, &byte);
	ASSERT_EQ(0, protect(self->uffd, self->mem, self->size, true));
	test_migrate(self->fd, HMM_REF_TO_DEVICE, self->mem, self->size, &cmd);
	EXPECT_EQ(0, cmd.out_migrated);
	EXPECT_EQ(self->npages, cmd.out_skipped);
	ASSERT_EQ(0, worker_start(&self->worker, listen_main, self));
	for (i = 0; i < self->npages; i += step) {
		ASSERT_EQ(0, write_byte(self->fd, self->mem + i * page_size(),
					variant->by_device));
		EXPECT_EQ(++expected, counter_get(&self->told)) {
			TH_LOG("page %lu", i);
		}
	}
	counter_set(&self->stop, 1);
	ASSERT_EQ(0, worker_wait(&self->worker));
	for (i = 0; i < self->npages; i += step)
		ASSERT_EQ(1, touch_read(self->mem + i * page_size()));
}

/* ---- pages on the device --------------------------------------------------------- */

FIXTURE(tracked)
{
	struct leak_check leak;
	char *mem;
	unsigned long npages;
	size_t size;
	int pagemap;
	int uffd;
	int fd;
};

FIXTURE_VARIANT(tracked)
{
	bool coherent;
	bool large;
	bool first;		/* registered before the migration; otherwise after it */
	bool atomic;
};

FIXTURE_VARIANT_ADD(tracked, write) { .first = true };
FIXTURE_VARIANT_ADD(tracked, late_write) {};
FIXTURE_VARIANT_ADD(tracked, atomic) { .first = true, .atomic = true };
FIXTURE_VARIANT_ADD(tracked, large_write) { .first = true, .large = true };
FIXTURE_VARIANT_ADD(tracked, large_atomic) { .first = true, .large = true, .atomic = true };
FIXTURE_VARIANT_ADD(tracked, coherent_write) { .first = true, .coherent = true };
FIXTURE_VARIANT_ADD(tracked, coherent_late_write) { .coherent = true };
FIXTURE_VARIANT_ADD(tracked, coherent_atomic) {
	.first = true, .coherent = true, .atomic = true,
};

FIXTURE_SETUP(tracked)
{
	self->fd = open_device(variant->coherent);
	if (self->fd < 0)
		SKIP(return, "no device with such memory");
	leak_check_begin(_metadata, &self->leak);
	self->npages = variant->large ? block_pages() : SMALL;
	self->size = self->npages * page_size();
	self->mem = test_map_blocks(1);
	if (madvise(self->mem, block_size(), variant->large ? MADV_HUGEPAGE : MADV_NOHUGEPAGE) &&
	    variant->large)
		SKIP(return, "no transparent huge pages");
	self->pagemap = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	ASSERT_LE(0, self->pagemap);
	fill_pages(self->mem, self->npages, 1);
}

FIXTURE_TEARDOWN_PARENT(tracked)
{
	leak_check_end(_metadata, &self->leak);
}

static int track(char *mem, size_t size)
{
	return uffd_watch(mem, size, UFFD_FEATURE_WP_ASYNC | UFFD_FEATURE_WP_UNPOPULATED,
			  UFFDIO_REGISTER_MODE_WP);
}

/*
 * Returns how many pages were written since the last scan, and sets @written. Protects them again.
 */
static long scan(int pagemap, char *mem, unsigned long npages, unsigned char *written)
{
	struct page_region regions[64];
	struct pm_scan_arg arg = {
		.size = sizeof(arg),
		.flags = PM_SCAN_WP_MATCHING | PM_SCAN_CHECK_WPASYNC,
		.start = (unsigned long)mem,
		.end = (unsigned long)mem + npages * page_size(),
		.vec = (unsigned long)regions,
		.vec_len = ARRAY_SIZE(regions),
		.category_mask = PAGE_IS_WRITTEN,
		.return_mask = PAGE_IS_WRITTEN,
	};
	long found, i, pages = 0;
	unsigned long long addr;

	memset(written, 0, npages);
	found = ioctl(pagemap, PAGEMAP_SCAN, &arg);
	if (found < 0)
		return -errno;
	for (i = 0; i < found; i++) {
		for (addr = regions[i].start; addr < regions[i].end; addr += page_size()) {
			written[(addr - (unsigned long)mem) / page_size()] = 1;
			pages++;
		}
	}
	return pages;
}

/*
 * Without the fix, the core makes entries writable and protected at the same time, which a kernel
 * that checks its page tables warns about.
 */
static bool kernel_complains(void)
{
	FILE *symbols = fopen("/proc/kallsyms", "re");
	char line[512];
	bool found = false;

	while (symbols && !found && fgets(line, sizeof(line), symbols))
		found = strstr(line, " __page_table_check_ptes_set");
	if (symbols)
		fclose(symbols);
	return found && !core_is_fixed();
}

TEST_F(tracked, write_is_detected)
{
	unsigned char *written = malloc(self->npages);
	struct hmm_ref_atomic atomic;
	unsigned long i;
	int rc;

	if (!variant->coherent && !(variant->large && keeps_large()) && kernel_complains())
		SKIP(return, "PAGEMAP_SCAN of private pages gives a warning on this kernel");
	if (!variant->first)
		test_to_device(self->fd, self->mem, self->npages);
	self->uffd = track(self->mem, self->size);
	if (self->uffd < 0)
		SKIP(return, "no asynchronous write protection");
	if (variant->first)
		test_to_device(self->fd, self->mem, self->npages);
	/* The device had the pages mapped before. */
	test_dev_data(self->fd, self->mem, self->npages, 1);
	ASSERT_LE(0, scan(self->pagemap, self->mem, self->npages, written));
	test_dev_data(self->fd, self->mem, self->npages, 1);
	for (i = 1; i < SMALL; i += 2) {
		if (variant->atomic)
			rc = _test_atomic(self->fd, HMM_REF_ATOMIC_ADD,
					  self->mem + i * page_size(), 4, 1, 0, &atomic);
		else
			rc = write_byte(self->fd, self->mem + i * page_size(), true);
		ASSERT_EQ(0, rc);
	}
	ASSERT_LT(0, scan(self->pagemap, self->mem, self->npages, written));
	for (i = 1; i < SMALL; i += 2) {
		EXPECT_EQ(1, written[i]) {
			TH_LOG("page %lu", i);
		}
	}
	/* Second writes to pages that are in system memory now are detected, too. */
	ASSERT_LE(0, scan(self->pagemap, self->mem, self->npages, written));
	ASSERT_EQ(0, write_byte(self->fd, self->mem + page_size(), true));
	ASSERT_LT(0, scan(self->pagemap, self->mem, self->npages, written));
	EXPECT_EQ(1, written[1]);
}

int main(int argc, char **argv)
{
	return hmm_ref_test_main(argc, argv);
}
