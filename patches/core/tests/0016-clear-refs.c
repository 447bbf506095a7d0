/*
 * Soft-dirty, forgotten while the pages are on the device: what is written afterwards is
 * seen, by whoever writes, and nothing else.
 */
#define HMM_SOFT_DIRTY	(1ULL << 55)

static int hmm_forget(void)
{
	int fd = open("/proc/self/clear_refs", O_WRONLY), ret;

	if (fd < 0)
		return -1;
	ret = write(fd, "4", 1);
	close(fd);
	return ret == 1 ? 0 : -1;
}

static bool hmm_soft_dirty(int pagemap, void *addr)
{
	uint64_t entry;

	return pread(pagemap, &entry, sizeof(entry),
		     (uintptr_t)addr / getpagesize() * sizeof(entry)) == sizeof(entry) &&
	       entry & HMM_SOFT_DIRTY;
}

static unsigned long hmm_count_soft_dirty(int pagemap, void *mem, unsigned long npages)
{
	unsigned long i, n = 0;

	for (i = 0; i < npages; i++)
		n += hmm_soft_dirty(pagemap, mem + i * getpagesize());
	return n;
}

enum hmm_change { HMM_FORGET, HMM_MPROTECT, HMM_FORK };

static void hmm_soft_dirty_run(struct __test_metadata *_metadata, int fd,
			       unsigned int page_size, bool huge, enum hmm_change change,
			       bool by_device)
{
	unsigned long size = huge ? read_pmd_pagesize() : 16 * page_size;
	unsigned long npages = size / page_size, i;
	struct hmm_buffer *buffer;
	void *base = NULL, *mem;
	int pagemap, ret, status;
	pid_t pid;

	if (huge)
		buffer = hmm_huge_buffer(size, &base);
	else
		buffer = hmm_buffer_alloc(size, size, PROT_READ | PROT_WRITE,
					  MAP_PRIVATE | MAP_ANONYMOUS, -1);
	ASSERT_NE(buffer, NULL);
	mem = buffer->ptr;
	pagemap = open("/proc/self/pagemap", O_RDONLY);
	ASSERT_GE(pagemap, 0);
	hmm_fill(mem, npages, page_size, 1000);
	if (hmm_forget() || hmm_soft_dirty(pagemap, mem))
		SKIP(return, "no soft-dirty bit");
	/* Writable again, and so they are on the device. */
	hmm_fill(mem, npages, page_size, 1000);

	if (change == HMM_FORGET) {
		ret = hmm_migrate_sys_to_dev(fd, buffer, npages);
		ASSERT_EQ(ret, 0);
		ASSERT_EQ(hmm_forget(), 0);
		EXPECT_EQ(hmm_count_soft_dirty(pagemap, mem, npages), 0);
		if (by_device) {
			hmm_fill(buffer->mirror, 1, page_size, 5000);
			buffer->ptr = mem + page_size;
			ret = hmm_dmirror_cmd(fd, HMM_DMIRROR_WRITE, buffer, 1);
			ASSERT_EQ(ret, 0);
		} else {
			/* A read brings the page back with the rights of its entry. */
			ASSERT_EQ(*(volatile int *)(mem + page_size), 1001);
			*(volatile int *)(mem + page_size) = 5000;
		}
		EXPECT_TRUE(hmm_soft_dirty(pagemap, mem + page_size));
		ASSERT_EQ(*(int *)(mem + page_size), 5000);
		/* The others were not written; a huge page may count as a whole. */
		if (!huge)
			EXPECT_EQ(hmm_count_soft_dirty(pagemap, mem, npages), 1);
	} else {
		/* Their entries are rewritten while they are on the device. */
		ret = hmm_migrate_sys_to_dev(fd, buffer, npages);
		ASSERT_EQ(ret, 0);
		EXPECT_EQ(hmm_count_soft_dirty(pagemap, mem, npages), npages);
		if (change == HMM_MPROTECT) {
			ASSERT_EQ(mprotect(mem, size, PROT_READ), 0);
			EXPECT_EQ(hmm_count_soft_dirty(pagemap, mem, npages), npages);
			ASSERT_EQ(mprotect(mem, size, PROT_READ | PROT_WRITE), 0);
		} else {
			pid = fork();
			ASSERT_NE(pid, -1);
			if (!pid)
				_exit(0);
			ASSERT_EQ(waitpid(pid, &status, 0), pid);
			EXPECT_EQ(hmm_count_soft_dirty(pagemap, mem, npages), npages);
		}
		for (i = 0; i < npages; i++)
			ASSERT_EQ(*(volatile int *)(mem + i * page_size), 1000 + i);
		EXPECT_EQ(hmm_count_soft_dirty(pagemap, mem, npages), npages);
	}
	close(pagemap);
	buffer->ptr = huge ? base : mem;
	hmm_buffer_free(buffer);
}

#define HMM_SOFT_DIRTY_TEST(name, huge, change, by_device)			\
TEST_F(hmm, name)								\
{										\
	hmm_soft_dirty_run(_metadata, self->fd, self->page_size, huge, change,	\
			   by_device);						\
}

HMM_SOFT_DIRTY_TEST(soft_dirty_cpu, false, HMM_FORGET, false)
HMM_SOFT_DIRTY_TEST(soft_dirty_huge_cpu, true, HMM_FORGET, false)
HMM_SOFT_DIRTY_TEST(soft_dirty_device, false, HMM_FORGET, true)
HMM_SOFT_DIRTY_TEST(soft_dirty_huge_device, true, HMM_FORGET, true)
