/*
 * PAGEMAP_SCAN with PM_SCAN_WP_MATCHING of pages on the device: what is only read
 * afterwards was not written, what the device writes was.
 */
static int hmm_track(void *mem, unsigned long size)
{
	struct uffdio_api api = {
		.api = UFFD_API,
		.features = UFFD_FEATURE_WP_ASYNC | UFFD_FEATURE_WP_UNPOPULATED,
	};
	struct uffdio_register reg = {
		.range = { .start = (unsigned long)mem, .len = size },
		.mode = UFFDIO_REGISTER_MODE_WP,
	};
	int uffd = syscall(__NR_userfaultfd, O_CLOEXEC | O_NONBLOCK | UFFD_USER_MODE_ONLY);

	if (uffd < 0)
		return -1;
	if (ioctl(uffd, UFFDIO_API, &api) || ioctl(uffd, UFFDIO_REGISTER, &reg)) {
		close(uffd);
		return -1;
	}
	return uffd;
}

/* How many pages were written since the last call? They are protected again. */
static long hmm_written(int pagemap, void *mem, unsigned long size)
{
	struct page_region regions[64];
	struct pm_scan_arg arg = {
		.size = sizeof(arg),
		.flags = PM_SCAN_WP_MATCHING | PM_SCAN_CHECK_WPASYNC,
		.start = (unsigned long)mem,
		.end = (unsigned long)mem + size,
		.vec = (unsigned long)regions,
		.vec_len = 64,
		.category_mask = PAGE_IS_WRITTEN,
		.return_mask = PAGE_IS_WRITTEN,
	};
	long i, found, pages = 0;

	found = ioctl(pagemap, PAGEMAP_SCAN, &arg);
	if (found < 0)
		return -errno;
	for (i = 0; i < found; i++)
		pages += (regions[i].end - regions[i].start) / getpagesize();
	return pages;
}

enum hmm_toucher { HMM_CPU_READS, HMM_CPU_WRITES, HMM_DEVICE_WRITES, HMM_NONE };

static void hmm_scan_run(struct __test_metadata *_metadata, int fd,
			 unsigned int page_size, bool huge, enum hmm_toucher toucher)
{
	unsigned long size = huge ? read_pmd_pagesize() : 16 * page_size;
	unsigned long npages = size / page_size, i;
	struct hmm_buffer *buffer;
	void *base = NULL, *mem;
	int uffd, pagemap, ret;
	volatile int sink;

	if (huge)
		buffer = hmm_huge_buffer(size, &base);
	else
		buffer = hmm_buffer_alloc(size, size, PROT_READ | PROT_WRITE,
					  MAP_PRIVATE | MAP_ANONYMOUS, -1);
	ASSERT_NE(buffer, NULL);
	mem = buffer->ptr;
	hmm_fill(mem, npages, page_size, 1000);
	pagemap = open("/proc/self/pagemap", O_RDONLY);
	ASSERT_GE(pagemap, 0);
	uffd = hmm_track(mem, size);
	if (uffd < 0)
		SKIP(return, "no asynchronous write protection");

	ret = hmm_migrate_sys_to_dev(fd, buffer, npages);
	ASSERT_EQ(ret, 0);
	ASSERT_EQ(hmm_written(pagemap, mem, size), npages);

	switch (toucher) {
	case HMM_CPU_READS:
		for (i = 0; i < npages; i++)
			sink = *(volatile int *)(mem + i * page_size);
		(void)sink;
		EXPECT_EQ(hmm_written(pagemap, mem, size), 0);
		break;
	case HMM_CPU_WRITES:
		*(volatile int *)(mem + page_size) = 1;
		EXPECT_GT(hmm_written(pagemap, mem, size), 0);
		break;
	case HMM_DEVICE_WRITES:
		hmm_fill(buffer->mirror, 1, page_size, 5000);
		buffer->ptr = mem + page_size;
		ret = hmm_dmirror_cmd(fd, HMM_DMIRROR_WRITE, buffer, 1);
		ASSERT_EQ(ret, 0);
		EXPECT_GT(hmm_written(pagemap, mem, size), 0);
		ASSERT_EQ(*(int *)(mem + page_size), 5000);
		break;
	case HMM_NONE:
		EXPECT_EQ(hmm_written(pagemap, mem, size), 0);
		break;
	}
	for (i = 0; i < npages; i++)
		if (i != 1 || toucher == HMM_CPU_READS || toucher == HMM_NONE)
			ASSERT_EQ(*(int *)(mem + i * page_size), 1000 + i);
	close(uffd);
	close(pagemap);
	if (huge)
		buffer->ptr = base;
	else
		buffer->ptr = mem;
	hmm_buffer_free(buffer);
}

#define HMM_SCAN_TEST(name, huge, toucher)					\
TEST_F(hmm, name)								\
{										\
	hmm_scan_run(_metadata, self->fd, self->page_size, huge, toucher);	\
}

HMM_SCAN_TEST(scan_untouched, false, HMM_NONE)
HMM_SCAN_TEST(scan_cpu_reads, false, HMM_CPU_READS)
HMM_SCAN_TEST(scan_cpu_writes, false, HMM_CPU_WRITES)
HMM_SCAN_TEST(scan_huge_untouched, true, HMM_NONE)
HMM_SCAN_TEST(scan_huge_cpu_reads, true, HMM_CPU_READS)
HMM_SCAN_TEST(scan_huge_cpu_writes, true, HMM_CPU_WRITES)
/* With lib/test_hmm.c these need it to map the backing page of its own device pages. */
HMM_SCAN_TEST(scan_device_writes, false, HMM_DEVICE_WRITES)
HMM_SCAN_TEST(scan_huge_device_writes, true, HMM_DEVICE_WRITES)
