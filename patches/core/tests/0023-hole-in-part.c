/* A driver may fill only a part of the hole of a huge page. */
TEST_F(hmm, migrate_part_of_huge_hole)
{
	unsigned long size = read_pmd_pagesize();
	unsigned long npages = size >> self->page_shift;
	struct hmm_buffer *buffer;
	unsigned long i;
	unsigned char *m;
	int *ptr;

	if (hmm_is_coherent_type(variant->device_number))
		SKIP(return, "only private pages are large");
	buffer = hmm_buffer_alloc(2 * size, 2 * size, PROT_READ | PROT_WRITE,
				  MAP_PRIVATE | MAP_ANONYMOUS, -1);
	ASSERT_NE(buffer, NULL);
	buffer->ptr = (void *)ALIGN((uintptr_t)buffer->ptr, size);
	ASSERT_EQ(madvise(buffer->ptr, size, MADV_HUGEPAGE), 0);

	if (hmm_dmirror_cmd(self->fd, HMM_DMIRROR_FLAGS, buffer,
			    HMM_DMIRROR_FLAG_FAIL_ALLOC | HMM_DMIRROR_FLAG_FAIL_SMALL))
		SKIP(return, "not met: the driver fills all or nothing");
	/* The device reads only what it has. */
	ASSERT_EQ(hmm_migrate_sys_to_dev(self->fd, buffer, npages), -ENOENT);

	ASSERT_EQ(hmm_dmirror_cmd(self->fd, HMM_DMIRROR_SNAPSHOT, buffer, npages), 0);
	m = buffer->mirror;
	for (i = 0; i < npages; i += 2) {
		ASSERT_EQ(m[i], HMM_DMIRROR_PROT_DEV_PRIVATE_LOCAL | HMM_DMIRROR_PROT_WRITE);
		ASSERT_EQ(m[i + 1], HMM_DMIRROR_PROT_NONE);
	}
	for (i = 0, ptr = buffer->ptr; i < size / sizeof(*ptr); i++) {
		ASSERT_EQ(ptr[i], 0);
	}
}
