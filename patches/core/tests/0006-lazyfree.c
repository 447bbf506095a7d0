/* The part of the mapping at @ptr that MADV_FREE has marked and that is still clean, in kB. */
static long hmm_lazyfree_kb(void *ptr)
{
	unsigned long start, end;
	bool here = false;
	char line[256];
	long kb = -1;
	FILE *file;

	file = fopen("/proc/self/smaps", "r");
	if (!file)
		return -1;
	while (fgets(line, sizeof(line), file)) {
		if (sscanf(line, "%lx-%lx ", &start, &end) == 2)
			here = start <= (unsigned long)ptr && (unsigned long)ptr < end;
		else if (here && sscanf(line, "LazyFree: %ld kB", &kb) == 1)
			break;
	}
	fclose(file);
	return kb;
}

/*
 * Flags that the last user of a device page has left do not get into other pages: memory that
 * is freed lazily has to stay that when it has been to the device and back.
 */
TEST_F(hmm, lazyfree_after_others)
{
	unsigned long npages = 256;
	unsigned long size = npages << self->page_shift;
	struct hmm_buffer *buffer;
	unsigned long i;
	int sum = 0;
	long kb;

	/* Ordinary memory, then memory that is freed lazily, in the same device pages. */
	buffer = hmm_buffer_alloc(2 * size, 2 * size, PROT_READ | PROT_WRITE,
				  MAP_PRIVATE | MAP_ANONYMOUS, -1);
	ASSERT_NE(buffer, NULL);
	ASSERT_EQ(madvise(buffer->ptr, 2 * size, MADV_NOHUGEPAGE), 0);
	memset(buffer->ptr, 1, 2 * size);
	ASSERT_EQ(hmm_migrate_sys_to_dev(self->fd, buffer, 2 * npages), 0);
	hmm_buffer_free(buffer);

	buffer = hmm_buffer_alloc(size, size, PROT_READ | PROT_WRITE,
				  MAP_PRIVATE | MAP_ANONYMOUS, -1);
	ASSERT_NE(buffer, NULL);
	ASSERT_EQ(madvise(buffer->ptr, size, MADV_NOHUGEPAGE), 0);
	memset(buffer->ptr, 1, size);
	ASSERT_EQ(madvise(buffer->ptr, size, MADV_FREE), 0);
	/* A device that may write there has the pages dirty. */
	ASSERT_EQ(mprotect(buffer->ptr, size, PROT_READ), 0);
	ASSERT_EQ(hmm_migrate_sys_to_dev(self->fd, buffer, npages), 0);
	ASSERT_EQ(hmm_migrate_dev_to_sys(self->fd, buffer, npages), 0);
	for (i = 0; i < npages; i++)
		sum += ((char *)buffer->ptr)[i << self->page_shift];
	/* Reclaim may have freed some. */
	if (sum < (int)npages / 2)
		SKIP(return, "not met: the pages were freed");
	kb = hmm_lazyfree_kb(buffer->ptr);
	ASSERT_GE(kb, (long)(size / 1024 / 4));
	hmm_buffer_free(buffer);
}
