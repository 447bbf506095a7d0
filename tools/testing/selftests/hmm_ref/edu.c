// SPDX-License-Identifier: GPL-2.0-only
/*
 * Pages that a device copies by itself, with DMA addresses that an IOMMU resolves: QEMU's edu
 * device, for which hmm_ref_edu.sh loads a driver. The engines of all other devices in these tests
 * run on a CPU.
 *
 * Covers: an address that the device cannot reach; memory that stays mapped for the device after
 * its last use. The IOMMU blocks an access to unmapped memory and logs it. The log line is a
 * failure unless the test announces it: see scripts/tripwire.sh.
 */
#include <sys/sysinfo.h>

#include "hmm_ref_utils.h"

#define DMA_LIMIT	(1ULL << 28)	/* end of the addresses that edu can reach */

FIXTURE(edu)
{
	struct leak_check leak;
	unsigned int nr;
	int fd;
	char *page;
};

struct transfer {
	char way[4];
	unsigned long long dma;
	unsigned long long phys;
};

FIXTURE_SETUP(edu)
{
	if (!getenv("HMM_REF_EDU"))
		SKIP(return, "no number of a device: hmm_ref_edu.sh");
	leak_check_begin(_metadata, &self->leak);
	self->nr = env_number("HMM_REF_EDU", 0);
	self->fd = test_open(self->nr);
	self->page = test_map_pages(1);
	fill_pages(self->page, 1, 1);
}

FIXTURE_TEARDOWN_PARENT(edu)
{
	leak_check_end(_metadata, &self->leak);
}

static const char *edu_file(unsigned int nr, const char *name)
{
	static char path[200];

	snprintf(path, sizeof(path), "%s/%s/%s", bus_devices[nr].driver, bus_devices[nr].name,
		 name);
	return path;
}

static struct transfer __test_last_transfer(struct __test_metadata *_metadata, unsigned int nr)
{
	struct transfer last;
	char text[128];
	int found;

	ASSERT_LT(0, read_file(edu_file(nr, "last_transfer"), text, sizeof(text)));
	found = sscanf(text, "%3s %llx %llx", last.way, &last.dma, &last.phys);
	ASSERT_EQ(3, found) {
		TH_LOG("%s", text);
	}
	return last;
}

#define test_last_transfer(nr)	__test_last_transfer(_metadata, nr)

/* ---- data ------------------------------------------------------------------ */

/* Access in place would need bounce buffers, because edu has so few address lines. */
TEST_F(edu, no_access_in_place)
{
	char byte = 0;

	EXPECT_EQ(-EOPNOTSUPP, _test_read(self->fd, self->page, 1, &byte));
	EXPECT_EQ(-EOPNOTSUPP, _test_write(self->fd, self->page, 1, &byte));
	test_cpu_data(self->page, 1, 1);
}

TEST_F(edu, trip)
{
	test_to_device(self->fd, self->page, 1);
	ASSERT_STREQ("in", test_last_transfer(self->nr).way);
	test_pages_at(self->fd, self->page, 1, HMM_REF_PAGE_DEVICE, 1);
	test_dev_data(self->fd, self->page, 1, 1);
	ASSERT_EQ(0, dev_fill_pages(self->fd, self->page, 1, 2));
	test_to_system(self->fd, self->page, 1);
	ASSERT_STREQ("out", test_last_transfer(self->nr).way);
	test_pages_at(self->fd, self->page, 1, HMM_REF_PAGE_SYSTEM, 1);
	test_cpu_data(self->page, 1, 2);
}

TEST_F(edu, cpu_faults)
{
	char *mem = test_map_pages(3);

	fill_pages(mem, 3, 3);
	test_to_device(self->fd, mem, 3);
	test_pages_at(self->fd, mem, 3, HMM_REF_PAGE_DEVICE, 3);
	test_cpu_data(mem, 3, 3);
	ASSERT_STREQ("out", test_last_transfer(self->nr).way);
}

TEST_F(edu, hole)
{
	char *mem = test_map_pages(1);

	/* The page that fills the hole must have held data before. */
	test_to_device(self->fd, self->page, 1);
	test_to_system(self->fd, self->page, 1);
	test_to_device(self->fd, mem, 1);
	test_pages_at(self->fd, mem, 1, HMM_REF_PAGE_DEVICE, 1);
	ASSERT_TRUE(page_is_zero(mem));
}

/* One of so many pages has to be above the limit. */
TEST_F(edu, above_the_limit)
{
	unsigned long npages = DMA_LIMIT / page_size() + 1, i;
	struct transfer last;
	struct sysinfo info;
	char *mem;

	ASSERT_EQ(0, sysinfo(&info));
	if ((unsigned long long)info.freeram * info.mem_unit < 2 * DMA_LIMIT)
		SKIP(return, "less than 512 MiB are free");
	mem = test_map_pages(npages);
	ASSERT_EQ(0, madvise(mem, npages * page_size(), MADV_NOHUGEPAGE));
	ASSERT_EQ(0, madvise(mem, npages * page_size(), MADV_POPULATE_WRITE));
	for (i = npages; i && pfn_of(mem + (i - 1) * page_size()) < DMA_LIMIT / page_size(); i--)
		;
	ASSERT_LT(0, i);
	mem += (i - 1) * page_size();
	fill_pages(mem, 1, 2);
	test_to_device(self->fd, mem, 1);
	last = test_last_transfer(self->nr);
	ASSERT_GT(DMA_LIMIT, last.dma);
	test_cpu_data(mem, 1, 2);
	if (last.phys < DMA_LIMIT)
		SKIP(return, "the page has moved meanwhile");
	printf("# figure: memory at %#llx is %#llx for the device, through the IOMMU\n", last.phys,
	       last.dma);
}

/* ---- after unmapping ------------------------------------------------------- */

/*
 * Starts another transfer of the device, which has to be a DMA fault. If @page is given, it holds
 * the data of @seed and keeps it; if it does not hold that data, the page has been reused and there
 * is no fault to wait for.
 */
static void __test_blocked(struct __test_metadata *_metadata, unsigned int nr,
			   const char *access, unsigned long long dma, const char *page,
			   unsigned int seed)
{
	const char *name = bus_devices[nr].name;
	unsigned long long end = now_ms() + MEET_MS;
	char expected[128], fault[128], record[2048];
	bool met = false, kept = true;
	int log = log_open(), rc;

	ASSERT_LE(0, log);
	snprintf(expected, sizeof(expected), "hmm_ref test: a DMA fault of %s at %#llx is expected",
		 name, dma);
	snprintf(fault, sizeof(fault), "[%s] fault addr %#llx ", name, dma);
	ASSERT_TRUE(log_write(log, expected));
	rc = write_file(edu_file(nr, "repeat"), "1");
	while (!rc && !met && kept && now_ms() < end) {
		if (!log_read(log, record, sizeof(record)))
			usleep(1000);
		met = strstr(record, fault) && strstr(record, access);
		kept = !page || page_holds(page, seed, 0);
	}
	EXPECT_TRUE(log_write(log, "hmm_ref test: no more DMA faults"));
	close(log);
	EXPECT_EQ(0, rc);
	EXPECT_TRUE(kept);
	EXPECT_TRUE(met);
}

#define test_blocked(nr, access, dma, page, seed) \
	__test_blocked(_metadata, nr, access, dma, page, seed)

/* The page is used for other data by then. */
TEST_F(edu, writes_after_unmap)
{
	unsigned long long phys;
	struct transfer last;

	test_to_device(self->fd, self->page, 1);
	test_to_system(self->fd, self->page, 1);
	last = test_last_transfer(self->nr);
	ASSERT_STREQ("out", last.way);
	fill_pages(self->page, 1, 2);
	test_blocked(self->nr, "DMA Write", last.dma, self->page, 2);
	phys = (unsigned long long)pfn_of(self->page) * page_size();
	/* The device still works. */
	test_to_device(self->fd, self->page, 1);
	test_cpu_data(self->page, 1, 2);
	if (phys != last.phys)
		SKIP(return, "the page has moved meanwhile");
}

TEST_F(edu, reads_after_unmap)
{
	struct transfer last;

	test_to_device(self->fd, self->page, 1);
	last = test_last_transfer(self->nr);
	ASSERT_STREQ("in", last.way);
	test_blocked(self->nr, "DMA Read", last.dma, NULL, 0);
	test_cpu_data(self->page, 1, 1);
}

int main(int argc, char **argv)
{
	return hmm_ref_test_main(argc, argv);
}
