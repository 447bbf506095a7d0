// SPDX-License-Identifier: GPL-2.0-only
/*
 * The device caches translations of its page table. A translation that has become wrong is not used
 * once the change is complete, and one of another process is never used.
 *
 * Covers: a page table that is zapped without a flush, or flushed before it is zapped; a DMA
 * mapping that is removed while the device may still access the page; an access that fails because
 * the device has cached a read-only translation.
 */
#include <sys/mman.h>
#include <sys/wait.h>

#include "hmm_ref_utils.h"

#define RACE_MS		3000

FIXTURE(translations)
{
	struct leak_check leak;
	char *mem;
	int fd;
};

FIXTURE_VARIANT(translations)
{
	bool on_device;
};

FIXTURE_VARIANT_ADD(translations, system) { .on_device = false };
FIXTURE_VARIANT_ADD(translations, device) { .on_device = true };

FIXTURE_SETUP(translations)
{
	leak_check_begin(_metadata, &self->leak);
	self->fd = test_open(0);
	self->mem = test_map_pages(1);
}

FIXTURE_TEARDOWN_PARENT(translations)
{
	leak_check_end(_metadata, &self->leak);
}

/* The CPU stores a value, and the device reads it, so that it has a translation. */
static void fill_and_read(struct __test_metadata *_metadata, int fd, char *mem, char value,
			  bool on_device)
{
	char byte;

	mem[0] = value;
	if (on_device)
		test_to_device(fd, mem, 1);
	test_read(fd, mem, 1, &byte);
	ASSERT_EQ(value, byte);
}

TEST_F(translations, end_with_the_page)
{
	char value;

	for (value = 1; value < 10; value++) {
		fill_and_read(_metadata, self->fd, self->mem, value, variant->on_device);
		ASSERT_EQ(0, madvise(self->mem, page_size(), MADV_DONTNEED));
	}
}

TEST_F(translations, end_with_the_mapping)
{
	char byte = 1;

	fill_and_read(_metadata, self->fd, self->mem, 1, variant->on_device);
	ASSERT_EQ(0, munmap(self->mem, page_size()));
	EXPECT_EQ(-EFAULT, _test_read(self->fd, self->mem, 1, &byte));
	ASSERT_EQ(self->mem, mmap(self->mem, page_size(), PROT_READ | PROT_WRITE,
				  MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0));
}

TEST_F(translations, follow_the_page)
{
	char value, byte;

	for (value = 1; value < 10; value++) {
		fill_and_read(_metadata, self->fd, self->mem, value, variant->on_device);
		byte = value + 100;
		test_write(self->fd, self->mem, 1, &byte);
		if (!variant->on_device)
			test_to_device(self->fd, self->mem, 1);
		test_read(self->fd, self->mem, 1, &byte);
		ASSERT_EQ(value + 100, byte);
		/* The CPU fault migrates the page back. */
		ASSERT_EQ(value + 100, self->mem[0]);
	}
}

TEST_F(translations, lose_write_permission)
{
	char byte = 2;

	fill_and_read(_metadata, self->fd, self->mem, 1, variant->on_device);
	test_write(self->fd, self->mem, 1, &byte);
	ASSERT_EQ(0, mprotect(self->mem, page_size(), PROT_READ));
	byte = 3;
	EXPECT_GT(0, _test_write(self->fd, self->mem, 1, &byte));
	EXPECT_EQ(2, self->mem[0]);
}

static int do_nothing(void *arg)
{
	return 0;
}

/* After fork() the page is read-only. It becomes writable again without an invalidation. */
TEST_F(translations, gain_write_permission)
{
	char byte;

	fill_and_read(_metadata, self->fd, self->mem, 1, variant->on_device);
	ASSERT_EQ(0, child_run(do_nothing, NULL));
	test_read(self->fd, self->mem, 1, &byte);
	ASSERT_EQ(1, byte);
	byte = 2;
	test_write(self->fd, self->mem, 1, &byte);
	EXPECT_EQ(2, self->mem[0]);
}

/* The child has its own page at the same address. The parent does not write to either page. */
TEST_F(translations, of_two_processes)
{
	int status, i;
	pid_t child;
	char byte;

	fill_and_read(_metadata, self->fd, self->mem, 1, variant->on_device);
	child = fork();
	ASSERT_LE(0, child);
	if (!child) {
		int fd = hmm_ref_open(0);

		for (i = 0; i < 100; i++) {
			self->mem[0] = 2;
			if (fd < 0 || _test_read(fd, self->mem, 1, &byte) || byte != 2)
				_exit(1);
		}
		_exit(0);
	}
	for (i = 0; i < 100; i++) {
		test_read(self->fd, self->mem, 1, &byte);
		ASSERT_EQ(1, byte);
	}
	ASSERT_EQ(child, waitpid(child, &status, 0));
	EXPECT_EQ(0, status);
	byte = 3;
	test_write(self->fd, self->mem, 1, &byte);
	EXPECT_EQ(3, self->mem[0]);
}

/* A translation may cover several pages. It ends with each of them. */
TEST_F(translations, of_several_pages)
{
	const unsigned long npages = 16, size = npages * page_size();
	char *mem = test_map_pages(npages), *seen = test_map_pages(npages);
	unsigned long page, i;

	for (page = 0; page < npages; page++) {
		fill_pages(mem, npages, 1);
		if (variant->on_device)
			test_to_device(self->fd, mem, npages);
		test_read(self->fd, mem, size, seen);
		ASSERT_EQ(0, madvise(mem + page * page_size(), page_size(), MADV_DONTNEED));
		test_read(self->fd, mem, size, seen);
		for (i = 0; i < npages; i++)
			ASSERT_TRUE(i == page ? page_is_zero(seen + i * page_size()) :
						page_holds(seen + i * page_size(), 1, i));
	}
}

/* The permissions of one page do not apply to the next one. */
TEST_F(translations, of_several_permissions)
{
	const unsigned long npages = 16, size = npages * page_size();
	char *mem = test_map_pages(npages), *data = test_map_pages(npages);
	struct hmm_ref_access cmd;
	unsigned long page;

	for (page = 1; page < npages; page++) {
		fill_pages(mem, npages, 1);
		if (variant->on_device)
			test_to_device(self->fd, mem, npages);
		ASSERT_EQ(0, mprotect(mem + page * page_size(), page_size(), PROT_READ));
		test_read(self->fd, mem, size, data);
		fill_pages(data, npages, 2);
		EXPECT_GT(0, _test_access(self->fd, HMM_REF_IOC_WRITE, mem, size, data, &cmd));
		EXPECT_EQ(page * page_size(), cmd.out_bytes);
		test_cpu_data(mem, page, 2);
		ASSERT_TRUE(page_holds(mem + page * page_size(), 1, page));
		ASSERT_EQ(0, mprotect(mem, size, PROT_READ | PROT_WRITE));
	}
}

/* ---- pages that are freed during accesses ------------------------------------- */

struct accesses {
	char *mem;
	unsigned long done;
	unsigned long stop;
	int fd;
};

static int access_all_the_time(void *arg)
{
	struct accesses *accesses = arg;
	char byte;

	while (!counter_get(&accesses->stop)) {
		if (!CHECK(!_test_read(accesses->fd, accesses->mem, 1, &byte)) ||
		    !CHECK(!_test_write(accesses->fd, accesses->mem, 1, &byte)))
			return 1;
		counter_add(&accesses->done, 1);
	}
	return 0;
}

/* A wrong access shows in the kernel's log. */
TEST_F_TIMEOUT(translations, freed_during_accesses, 180)
{
	struct accesses accesses = { .mem = self->mem, .fd = self->fd };
	unsigned long long end = now_ms() + RACE_MS;
	unsigned long long give_up = end + MEET_MS;
	unsigned long done, met = 0;
	struct worker worker;

	ASSERT_EQ(0, worker_start(&worker, access_all_the_time, &accesses));
	while (now_ms() < end || (!met && now_ms() < give_up)) {
		done = counter_get(&accesses.done);
		ASSERT_EQ(0, madvise(self->mem, page_size(), MADV_DONTNEED));
		if (variant->on_device)
			test_to_device(self->fd, self->mem, 1);
		met += counter_get(&accesses.done) != done;
	}
	counter_set(&accesses.stop, 1);
	EXPECT_EQ(0, worker_wait(&worker));
	TH_LOG("%lu pages went beside %lu accesses", met, accesses.done);
	if (!met)
		SKIP(return, "no access beside one");
}

int main(int argc, char **argv)
{
	return hmm_ref_test_main(argc, argv);
}
