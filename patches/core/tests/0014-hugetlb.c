/*
 * hmm_range_fault() gives no page number for an entry of hugetlb that maps no page.
 * Needs the module hmm_raw (hmm_raw.c): the commands of /dev/hmm_dmirror* do not show
 * the number.
 */
static void hmm_expect_no_number(struct __test_metadata *_metadata, int raw, void *mem,
				 unsigned long npages)
{
	uint64_t *pfns = calloc(npages, sizeof(*pfns));
	unsigned long i, bad = 0;

	ASSERT_NE(pfns, NULL);
	ASSERT_EQ(pread(raw, pfns, npages * sizeof(*pfns), (uintptr_t)mem),
		  npages * sizeof(*pfns));
	for (i = 0; i < npages; i++) {
		ASSERT_EQ(pfns[i] >> 63, 0);
		bad += pfns[i] != 0;
	}
	EXPECT_EQ(bad, 0) {
		TH_LOG("element 1 is %llx", (unsigned long long)pfns[1]);
	}
	free(pfns);
}

static void hmm_ignore(int sig)
{
}

TEST(hugetlb_without_page)
{
	unsigned long size = default_huge_page_size();
	unsigned long npages = size / getpagesize();
	int raw = open("/dev/hmm_raw", O_RDONLY);
	struct uffdio_api api = {
		.api = UFFD_API,
		.features = UFFD_FEATURE_PAGEFAULT_FLAG_WP |
			    UFFD_FEATURE_WP_HUGETLBFS_SHMEM,
	};
	struct uffdio_register reg = { .mode = UFFDIO_REGISTER_MODE_WP };
	struct uffdio_writeprotect wp = { .mode = UFFDIO_WRITEPROTECT_MODE_WP };
	uint64_t pfn;
	char *mem;
	int uffd;

	if (raw < 0)
		SKIP(return, "no /dev/hmm_raw");
	mem = mmap(NULL, size, PROT_READ | PROT_WRITE,
		   MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB, -1, 0);
	if (mem == MAP_FAILED)
		SKIP(return, "no huge page");

	/* A page is reported, with its number. */
	mem[0] = 1;
	ASSERT_EQ(pread(raw, &pfn, sizeof(pfn), (uintptr_t)mem), sizeof(pfn));
	ASSERT_EQ(pfn >> 63, 1);

	/* A hole in a page table that exists. */
	ASSERT_EQ(madvise(mem, size, MADV_DONTNEED), 0);
	hmm_expect_no_number(_metadata, raw, mem, npages);

	/* The same, write-protected: a marker. */
	uffd = syscall(__NR_userfaultfd, O_CLOEXEC | O_NONBLOCK);
	reg.range.start = wp.range.start = (unsigned long)mem;
	reg.range.len = wp.range.len = size;
	if (uffd >= 0 && !ioctl(uffd, UFFDIO_API, &api) &&
	    !ioctl(uffd, UFFDIO_REGISTER, &reg) && !ioctl(uffd, UFFDIO_WRITEPROTECT, &wp))
		hmm_expect_no_number(_metadata, raw, mem, npages);
	close(uffd);

	/* Memory that has failed. */
	mem[0] = 1;
	signal(SIGBUS, hmm_ignore);
	if (!madvise(mem, getpagesize(), MADV_HWPOISON))
		hmm_expect_no_number(_metadata, raw, mem, npages);
	munmap(mem, size);
	close(raw);
}
