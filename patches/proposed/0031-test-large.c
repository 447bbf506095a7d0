/*
 * Appended to tools/testing/selftests/hmm_ref/large.c, before main(): it needs a driver
 * that answers a CPU fault of a PMD with single pages itself, in the same fault.
 */
TEST_F(scarce, for_cpu_fault_at_once)
{
	const unsigned long pages[] = { 0, 77, block_pages() - 1 };
	struct hmm_ref_stats before, after;
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(pages); i++) {
		ASSERT_EQ(0, madvise(self->mem, block_size(), MADV_DONTNEED));
		fill_pages(self->mem, self->pages, 1);
		test_one_migrate(HMM_REF_TO_DEVICE);
		test_no_large_from_now();
		test_stats(self->fd, &before);
		touch_read(self->mem + pages[i] * page_size());
		test_stats(self->fd, &after);
		EXPECT_EQ(1, after.out_cpu_faults - before.out_cpu_faults);
		EXPECT_LE(1, after.out_fault_pages - before.out_fault_pages);
		test_cpu_data(self->mem, self->pages, 1);
		ASSERT_EQ(0, attr_disarm(FAIL_LARGE));
	}
}

/* A child maps the same folio by a PMD of its own. */
TEST_F(scarce, for_cpu_fault_of_a_shared_folio)
{
	struct sharer sharer = { .mem = self->mem, .go = event_new() };
	pid_t pid;

	test_one_migrate(HMM_REF_TO_DEVICE);
	pid = child_start(look_then_write, &sharer);
	test_no_large_from_now();
	touch_read(self->mem + 77 * page_size());
	event_post(sharer.go);
	ASSERT_EQ(0, child_wait(pid, PATIENCE_MS));
	test_cpu_data(self->mem, self->pages, 1);
}

