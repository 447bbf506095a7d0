/* A snapshot by another device: its huge page is as absent as its small pages are. */
static void hmm_foreign_run(struct __test_metadata *_metadata, int fd0, int fd1,
			    unsigned int page_size, bool huge)
{
	unsigned long size = read_pmd_pagesize();
	unsigned long npages = size / page_size, i, bad = 0;
	struct hmm_buffer *buffer;
	unsigned char *prot;
	void *base;

	buffer = hmm_huge_buffer(size, &base);
	ASSERT_NE(buffer, NULL);
	if (!huge)
		ASSERT_EQ(madvise(buffer->ptr, size, MADV_NOHUGEPAGE), 0);
	hmm_fill(buffer->ptr, npages, page_size, 1);
	ASSERT_EQ(hmm_migrate_sys_to_dev(fd0, buffer, npages), 0);
	ASSERT_EQ(buffer->cpages, npages);

	ASSERT_EQ(hmm_dmirror_cmd(fd1, HMM_DMIRROR_SNAPSHOT, buffer, npages), 0);
	prot = buffer->mirror;
	for (i = 0; i < npages; i++)
		bad += prot[i] != HMM_DMIRROR_PROT_NONE;
	EXPECT_EQ(bad, 0) {
		TH_LOG("page 0 is 0x%x", prot[0]);
	}

	/* And a device access makes all of it valid. */
	ASSERT_EQ(hmm_dmirror_cmd(fd1, HMM_DMIRROR_READ, buffer, npages), 0);
	for (i = 0; i < npages; i++)
		ASSERT_EQ(*(int *)(buffer->mirror + i * page_size), 1 + i);
	buffer->ptr = base;
	hmm_buffer_free(buffer);
}

TEST_F(hmm2, snapshot_of_foreign_small_pages)
{
	if (hmm_is_coherent_type(variant->device_number0))
		SKIP(return, "a CPU maps coherent memory");
	hmm_foreign_run(_metadata, self->fd0, self->fd1, self->page_size, false);
}

TEST_F(hmm2, snapshot_of_foreign_huge_page)
{
	if (hmm_is_coherent_type(variant->device_number0))
		SKIP(return, "a CPU maps coherent memory");
	hmm_foreign_run(_metadata, self->fd0, self->fd1, self->page_size, true);
}
