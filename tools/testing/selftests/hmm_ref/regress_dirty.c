// SPDX-License-Identifier: GPL-2.0-only
/*
 * Data of the device stays when another process gives up its share of the page.
 *
 * No CPU has written to such a page, so no PTE is dirty. Unless the core (patches/core/0047) or the
 * driver marks the folio dirty, it returns as a clean folio. After fork(), the child's MADV_FREE
 * then makes it a folio that may be dropped, and reclaim drops it: the parent finds zeros.
 */
#include "hmm_ref_utils.h"
#include "hmm_ref_swap.h"

#define PAGES	256UL
#define SEED	7

enum way { TOUCH, COMMAND, EVICT };

FIXTURE(dirty)
{
	struct leak_check leak;
	int fd;
};

FIXTURE_VARIANT(dirty)
{
	enum way way;
};

FIXTURE_VARIANT_ADD(dirty, touch) { .way = TOUCH };
FIXTURE_VARIANT_ADD(dirty, command) { .way = COMMAND };
FIXTURE_VARIANT_ADD(dirty, evict) { .way = EVICT };

FIXTURE_SETUP(dirty)
{
	leak_check_begin(_metadata, &self->leak);
	self->fd = test_open(0);
}

FIXTURE_TEARDOWN_PARENT(dirty)
{
	leak_check_end(_metadata, &self->leak);
}

static int give_up(void *mem)
{
	return madvise(mem, PAGES * page_size(), MADV_FREE) ? -errno : 0;
}

/* The pages were holes when they migrated, so all of their data is from the device. */
TEST_F(dirty, child_frees_its_share)
{
	char *mem = test_map_pages(PAGES);
	struct hmm_ref_evict evict;
	unsigned long i;

	ASSERT_EQ(0, madvise(mem, PAGES * page_size(), MADV_NOHUGEPAGE));
	test_to_device(self->fd, mem, PAGES);
	ASSERT_EQ(0, dev_fill_pages(self->fd, mem, PAGES, SEED));

	switch (variant->way) {
	case TOUCH:
		for (i = 0; i < PAGES; i++)
			ASSERT_TRUE(page_holds(mem + i * page_size(), SEED, i));
		break;
	case COMMAND:
		test_to_system(self->fd, mem, PAGES);
		break;
	case EVICT:
		ASSERT_EQ(0, _test_evict(self->fd, mem, PAGES * page_size(), &evict));
		break;
	}

	ASSERT_EQ(0, child_run(give_up, mem));
	ASSERT_EQ(0, page_out(mem, PAGES * page_size()));
	test_cpu_data(mem, PAGES, SEED);
	ASSERT_EQ(0, munmap(mem, PAGES * page_size()));
}

int main(int argc, char **argv)
{
	return hmm_ref_test_main(argc, argv);
}
