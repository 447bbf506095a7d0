/*
 * A device private huge page, read by the device from its middle on: the device
 * gets those pages, not the ones at the start of the PMD.
 *
 * Without lib/test_hmm mapping the backing page of its own device pages the read
 * ends in an oops; apply the fix of that first.
 */
TEST_F(hmm, huge_read_from_the_middle)
{
	const unsigned long skip = 37, count = 8;
	struct hmm_buffer *buffer;
	unsigned long npages, size, i;
	unsigned char *m;
	void *base, *mem;
	int ret;

	size = read_pmd_pagesize();
	npages = size >> self->page_shift;
	buffer = hmm_huge_buffer(size, &base);
	ASSERT_NE(buffer, NULL);
	mem = buffer->ptr;
	hmm_fill(mem, npages, self->page_size, 1000);

	ret = hmm_migrate_sys_to_dev(self->fd, buffer, npages);
	ASSERT_EQ(ret, 0);

	/* The device drops its mappings; the entry of the CPU stays. */
	ret = mprotect(mem, size, PROT_READ);
	ASSERT_EQ(ret, 0);
	ret = hmm_dmirror_cmd(self->fd, HMM_DMIRROR_SNAPSHOT, buffer, npages);
	ASSERT_EQ(ret, 0);
	m = buffer->mirror;
	if (m[0] != (HMM_DMIRROR_PROT_DEV_PRIVATE_LOCAL | HMM_DMIRROR_PROT_READ |
		     HMM_DMIRROR_PROT_PMD))
		SKIP(return, "the device does not keep the huge page whole");

	buffer->ptr = mem + skip * self->page_size;
	ret = hmm_dmirror_cmd(self->fd, HMM_DMIRROR_READ, buffer, count);
	ASSERT_EQ(ret, 0);
	for (i = 0; i < count; i++)
		EXPECT_EQ(*(int *)(buffer->mirror + i * self->page_size),
			  1000 + skip + i);

	buffer->ptr = base;
	hmm_buffer_free(buffer);
}
