/*
 * Appended to tools/testing/selftests/hmm_ref/large.c: it needs a driver that brings the
 * neighbours of a fault along, also of a folio that is large (fault_range()), and fail_page.
 * The first page of the folio stays on the device, as there is no memory for it, and its lock
 * has to be free after that.
 */
#ifndef FAIL_PAGE
#define FAIL_PAGE	"/sys/kernel/debug/hmm_ref/fail_page/"
#endif

TEST_F(scarce, neighbour_of_a_split_fault)
{
	unsigned long half = self->pages / 2;

	test_one_migrate(HMM_REF_TO_DEVICE);
	ASSERT_EQ(0, munmap(self->mem + half * page_size(), half * page_size()));
	ASSERT_EQ(0, attr_arm(FAIL_PAGE, 0, 1));
	touch_read(self->mem + page_size());
	ASSERT_EQ(0, attr_disarm(FAIL_PAGE));
	test_cpu_data(self->mem, half, 1);
}

