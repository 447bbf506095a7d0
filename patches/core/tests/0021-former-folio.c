/* Where a page is, in a device or not; or 0. Private pages have their number in the offset. */
static unsigned long hmm_former_pfn(void *ptr)
{
	int fd = open("/proc/self/pagemap", O_RDONLY);
	uint64_t entry = 0;

	if (fd < 0)
		return 0;
	if (pread(fd, &entry, sizeof(entry),
		  (uintptr_t)ptr / sysconf(_SC_PAGE_SIZE) * sizeof(entry)) != sizeof(entry))
		entry = 0;
	close(fd);
	entry &= (1ULL << 55) - 1;
	return entry >> 5;
}

/*
 * The first page of a large folio that was freed may look like one until it is used
 * again. Pages that were behind it are not skipped for that, when a device is evicted.
 */
TEST_F(hmm, evict_behind_former_folio)
{
	unsigned long size = read_pmd_pagesize();
	unsigned long npages = size >> self->page_shift;
	unsigned long large, pfn, i;
	struct hmm_buffer *buffer, *small;
	unsigned char *m;
	void *map;
	int fd;

	if (!access("/sys/module/hmm_ref", F_OK))
		SKIP(return, "only test_hmm evicts when a file is closed");
	if (hmm_is_coherent_type(variant->device_number))
		SKIP(return, "only private pages are large");
	buffer = hmm_buffer_alloc(2 * size, 2 * size, PROT_READ | PROT_WRITE,
				  MAP_PRIVATE | MAP_ANONYMOUS, -1);
	ASSERT_NE(buffer, NULL);
	map = (void *)ALIGN((uintptr_t)buffer->ptr, size);
	ASSERT_EQ(madvise(map, size, MADV_HUGEPAGE), 0);
	buffer->ptr = map;
	memset(map, 1, size);
	small = hmm_buffer_alloc(size / 2, size / 2, PROT_READ | PROT_WRITE,
				 MAP_PRIVATE | MAP_ANONYMOUS, -1);
	ASSERT_NE(small, NULL);
	ASSERT_EQ(madvise(small->ptr, size / 2, MADV_NOHUGEPAGE), 0);
	memset(small->ptr, 2, size / 2);

	/* An empty device, a large page there and back, and small ones in its place. */
	ASSERT_EQ(hmm_dmirror_cmd(self->fd, HMM_DMIRROR_RELEASE, buffer, 1), 0);
	ASSERT_EQ(hmm_migrate_sys_to_dev(self->fd, buffer, npages), 0);
	ASSERT_EQ(hmm_dmirror_cmd(self->fd, HMM_DMIRROR_SNAPSHOT, buffer, npages), 0);
	m = buffer->mirror;
	ASSERT_EQ(m[0] & HMM_DMIRROR_PROT_PMD, HMM_DMIRROR_PROT_PMD);
	large = hmm_former_pfn(map);
	ASSERT_EQ(hmm_migrate_dev_to_sys(self->fd, buffer, npages), 0);
	ASSERT_EQ(hmm_migrate_sys_to_dev(self->fd, small, npages / 2), 0);
	for (i = 0; i < npages / 2; i++) {
		pfn = hmm_former_pfn(small->ptr + (i << self->page_shift));
		if (pfn <= large + 1 || pfn >= large + npages)
			SKIP(return, "not met: not the pages of the former folio");
	}

	fd = hmm_open(variant->device_number);
	ASSERT_GE(fd, 0);
	ASSERT_EQ(close(fd), 0);
	ASSERT_EQ(hmm_dmirror_cmd(self->fd, HMM_DMIRROR_SNAPSHOT, small, npages / 2), 0);
	m = small->mirror;
	for (i = 0; i < npages / 2; i++) {
		ASSERT_LT(m[i] & 0xf0, HMM_DMIRROR_PROT_DEV_PRIVATE_LOCAL);
	}
	m = small->ptr;
	for (i = 0; i < size / 2; i++) {
		ASSERT_EQ(m[i], 2);
	}
	hmm_buffer_free(small);
}
