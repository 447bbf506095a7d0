// SPDX-License-Identifier: GPL-2.0-only
/*
 * Soft-dirty: pages that were written since the bits were cleared through /proc/PID/clear_refs, as
 * checkpointing needs it. The bit migrates with its page, and writes by the CPU and by the device
 * set it.
 *
 * Covers: a migration that drops the bit, so that a checkpoint misses a page; a device that still
 * writes through a mapping from before clear_refs.
 */
#include "hmm_ref_huge.h"

#define FORGET		"4"
#define SOFT_DIRTY	(1UL << 55)

enum writer { BY_CPU, BY_DEVICE };

FIXTURE(softdirty)
{
	struct leak_check leak;
	unsigned long npages;
	char *mem;
	int fd;
};

FIXTURE_VARIANT(softdirty)
{
	bool large;
	enum writer writer;
};

FIXTURE_VARIANT_ADD(softdirty, small_cpu) { .writer = BY_CPU };
FIXTURE_VARIANT_ADD(softdirty, small_device) { .writer = BY_DEVICE };
FIXTURE_VARIANT_ADD(softdirty, large_cpu) { .large = true, .writer = BY_CPU };
FIXTURE_VARIANT_ADD(softdirty, large_device) { .large = true, .writer = BY_DEVICE };

/* Returns a page's entry of pagemap, 0 if there is none. */
static unsigned long entry_of(const char *addr)
{
	static int file = -1;
	unsigned long entry;

	if (file < 0)
		file = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	return pread(file, &entry, sizeof(entry), (unsigned long)addr / page_size() *
		     sizeof(entry)) == sizeof(entry) ? entry : 0;
}

static bool is_dirty(const char *addr)
{
	return entry_of(addr) & SOFT_DIRTY;
}

static unsigned long count_dirty(const char *mem, unsigned long npages)
{
	unsigned long i, dirty = 0;

	for (i = 0; i < npages; i++)
		dirty += is_dirty(mem + i * page_size());
	return dirty;
}

/* True if this kernel, on this machine, supports the bit. */
static bool works(char *mem)
{
	touch_write(mem, touch_read(mem));
	return is_dirty(mem) && !write_file("/proc/self/clear_refs", FORGET) &&
	       !is_dirty(mem);
}

FIXTURE_SETUP(softdirty)
{
	char *probe = test_map_pages(1);

	if (!works(probe))
		SKIP(return, "no soft-dirty bit (CONFIG_MEM_SOFT_DIRTY)");
	leak_check_begin(_metadata, &self->leak);
	self->fd = test_open(0);
	self->npages = variant_pages(variant->large);
	self->mem = map_variant(self->fd, variant->large);
	if (!self->mem)
		SKIP(return, "no huge page can be allocated");
}

FIXTURE_TEARDOWN_PARENT(softdirty)
{
	leak_check_end(_metadata, &self->leak);
}

#define test_forget() ASSERT_EQ(0, write_file("/proc/self/clear_refs", FORGET))

/* Writes every other page, with the data that it has. */
static void __test_write_half(struct __test_metadata *_metadata, int fd, char *mem,
			      unsigned long npages, enum writer writer)
{
	unsigned long i, word;

	for (i = 0; i < npages; i += 2) {
		char *at = mem + i * page_size();

		word = pattern_word(1, i, 0);
		if (writer == BY_CPU)
			touch_write(at, (char)word);
		else
			test_write(fd, at, sizeof(word), &word);
	}
}

#define test_write_half() \
	__test_write_half(_metadata, self->fd, self->mem, self->npages, variant->writer)

/* A huge page has one bit while it is whole. */
static void __test_half_dirty(struct __test_metadata *_metadata, char *mem,
			      unsigned long npages, bool large)
{
	unsigned long i;

	for (i = 0; i < npages; i += 2) {
		ASSERT_TRUE(is_dirty(mem + i * page_size())) {
			TH_LOG("page %lu was written", i);
		}
	}
	if (!large)
		ASSERT_EQ(npages / 2, count_dirty(mem, npages));
}

#define test_half_dirty() \
	__test_half_dirty(_metadata, self->mem, self->npages, variant->large)

/* Written pages migrate in both directions, and are still soft-dirty. */
TEST_F(softdirty, stays_dirty)
{
	test_forget();
	test_write_half();
	test_half_dirty();
	test_to_device(self->fd, self->mem, self->npages);
	test_half_dirty();
	test_to_system(self->fd, self->mem, self->npages);
	test_half_dirty();
	test_cpu_data(self->mem, self->npages, 1);
}

/*
 * Pages that were not written migrate in both directions, and are still clean. A huge page may be
 * reported as written.
 */
TEST_F(softdirty, stays_clean)
{
	test_forget();
	test_to_device(self->fd, self->mem, self->npages);
	if (!variant->large)
		ASSERT_EQ(0, count_dirty(self->mem, self->npages));
	test_dev_data(self->fd, self->mem, self->npages, 1);
	test_cpu_data(self->mem, self->npages, 1);
	if (!variant->large)
		ASSERT_EQ(0, count_dirty(self->mem, self->npages));
}

/* Cleared in system memory, written on the device or during the migration from it. */
TEST_F(softdirty, cleared_before)
{
	test_forget();
	test_to_device(self->fd, self->mem, self->npages);
	test_write_half();
	test_half_dirty();
	test_cpu_data(self->mem, self->npages, 1);
	test_half_dirty();
}

/* Cleared in system memory that the device has mapped. */
TEST_F(softdirty, device_mapping_is_dropped)
{
	ASSERT_EQ(0, dev_fill_pages(self->fd, self->mem, self->npages, 1));
	test_forget();
	test_write_half();
	test_half_dirty();
	test_cpu_data(self->mem, self->npages, 1);
}

/*
 * Cleared on the device. Without the fix, clear_refs clears the bit in the entry of a small device
 * page and leaves the entry writable, so that neither a write by the device nor one by the CPU,
 * once the page has migrated back, is detected. A huge page keeps its bit. A driver cannot fix
 * that: the entry's permission returns with the page.
 */
TEST_F(softdirty, cleared_on_the_device)
{
	if (!core_is_fixed() && !variant->large)
		SKIP(return, "clear_refs of this kernel does not protect device pages");
	test_to_device(self->fd, self->mem, self->npages);
	if (variant->large && order_at(self->fd, self->mem) != HUGE_ORDER)
		SKIP(return, "large folios do not stay whole: as for small pages");
	test_forget();
	test_write_half();
	test_half_dirty();
	test_cpu_data(self->mem, self->npages, 1);
	test_half_dirty();
}

struct forgetter {
	unsigned long stop;
	unsigned long rounds;
};

static int forget_main(void *arg)
{
	struct forgetter *forgetter = arg;

	while (!counter_get(&forgetter->stop)) {
		if (!CHECK(!write_file("/proc/self/clear_refs", FORGET)))
			return 1;
		counter_add(&forgetter->rounds, 1);
	}
	return 0;
}

/* clear_refs runs all the time while pages migrate: no write is lost. */
TEST_F(softdirty, race)
{
	unsigned long long end = now_ms() + env_number("HMM_REF_MS", 500);
	unsigned long long deadline = end + MEET_MS;
	struct forgetter forgetter = {};
	unsigned int seed = 1;
	struct worker worker;
	int rc = 0;

	ASSERT_EQ(0, worker_start(&worker, forget_main, &forgetter));
	while (!rc && (now_ms() < end || seed < 3 || counter_get(&forgetter.rounds) < 10) &&
	       now_ms() < deadline) {
		struct hmm_ref_migrate cmd;

		rc = _test_migrate(self->fd, HMM_REF_TO_DEVICE, self->mem,
				   self->npages * page_size(), &cmd);
		if (!rc && variant->writer == BY_DEVICE)
			rc = dev_fill_pages(self->fd, self->mem, self->npages, ++seed);
		else if (!rc)
			fill_pages(self->mem, self->npages, ++seed);
		rc = rc ? rc : dev_bad_pages(self->fd, self->mem, self->npages, seed);
		rc = rc ? rc : bad_pages(self->mem, self->npages, seed);
	}
	counter_set(&forgetter.stop, 1);
	EXPECT_EQ(0, worker_wait(&worker));
	ASSERT_EQ(0, rc);
	EXPECT_LE(10, forgetter.rounds);
	EXPECT_LE(3, seed);
	TH_LOG("%u rounds, forgotten %lu times", seed - 1, forgetter.rounds);
}

int main(int argc, char **argv)
{
	return hmm_ref_test_main(argc, argv);
}
