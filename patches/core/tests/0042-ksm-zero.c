/*
 * KSM maps the zero page in place of pages of zeros, and counts them. A page that goes to
 * the device from there is no such page any more.
 */
TEST_F_TIMEOUT(hmm, ksm_zero_pages_count, 60)
{
	unsigned long npages = HMM_KSM_PAGES;
	unsigned long size = npages << self->page_shift;
	struct hmm_buffer *buffer;
	long before;
	int tries;

	before = ksm_get_self_zero_pages();
	if (before < 0 || ksm_use_zero_pages())
		SKIP(return, "no zero pages of KSM");
	buffer = hmm_buffer_alloc(size, size, PROT_READ | PROT_WRITE,
				  MAP_PRIVATE | MAP_ANONYMOUS, -1);
	ASSERT_NE(buffer, NULL);
	memset(buffer->ptr, 0, size);
	ASSERT_EQ(madvise(buffer->ptr, size, MADV_MERGEABLE), 0);
	for (tries = 0; tries < 10 && ksm_get_self_zero_pages() < before + npages; tries++)
		ASSERT_EQ(ksm_start(), 0);
	write_sysfs("/sys/kernel/mm/ksm/run", 0);
	if (ksm_get_self_zero_pages() < before + (long)npages)
		SKIP(return, "KSM does not merge");

	ASSERT_EQ(hmm_migrate_sys_to_dev(self->fd, buffer, npages), 0);
	EXPECT_EQ(hmm_ksm_on_device(self->fd, buffer, npages), npages);
	EXPECT_EQ(ksm_get_self_zero_pages(), before);
	hmm_buffer_free(buffer);
	EXPECT_EQ(ksm_get_self_zero_pages(), before);
}
