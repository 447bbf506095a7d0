static int hmm_shared_wrong(int *ptr, unsigned long size)
{
	unsigned long i;

	for (i = 0; i < size / sizeof(*ptr); i++)
		if (ptr[i] != i)
			return 1;
	return 0;
}

/*
 * A huge page that a child shares is migrated into small ones. The child must not be left
 * with an entry for a huge one.
 */
static void hmm_shared_split(struct __test_metadata *_metadata, int fd, bool to_sys)
{
	unsigned long size = read_pmd_pagesize();
	unsigned long npages = size / sysconf(_SC_PAGE_SIZE);
	struct hmm_buffer *buffer;
	int wake[2], status;
	unsigned long i;
	char byte = 0;
	pid_t pid;
	int *ptr;

	buffer = hmm_buffer_alloc(2 * size, 2 * size, PROT_READ | PROT_WRITE,
				  MAP_PRIVATE | MAP_ANONYMOUS, -1);
	ASSERT_NE(buffer, NULL);
	buffer->ptr = (void *)ALIGN((uintptr_t)buffer->ptr, size);
	ASSERT_EQ(madvise(buffer->ptr, size, MADV_HUGEPAGE), 0);
	for (i = 0, ptr = buffer->ptr; i < size / sizeof(*ptr); i++)
		ptr[i] = i;
	if (!check_huge_anon(buffer->ptr, size, 1, size))
		SKIP(return, "not met: no huge page");
	if (to_sys)
		ASSERT_EQ(hmm_migrate_sys_to_dev(fd, buffer, npages), 0);

	ASSERT_EQ(pipe(wake), 0);
	pid = fork();
	ASSERT_GE(pid, 0);
	if (!pid) {
		close(wake[1]);
		if (read(wake[0], &byte, 1) != 1)
			_exit(2);
		status = hmm_shared_wrong(ptr, size);
		/* To break COW shows what else is mapped in place of it. */
		for (i = 0; i < npages; i++)
			ptr[i * (size / npages / sizeof(*ptr))] = 0;
		_exit(status);
	}

	ASSERT_EQ(hmm_dmirror_cmd(fd, HMM_DMIRROR_FLAGS, buffer,
				  HMM_DMIRROR_FLAG_FAIL_ALLOC), 0);
	if (to_sys) {
		ASSERT_EQ(hmm_migrate_dev_to_sys(fd, buffer, npages), 0);
	} else {
		ASSERT_EQ(hmm_migrate_sys_to_dev(fd, buffer, npages), 0);
		ASSERT_EQ(buffer->cpages, npages);
	}
	ASSERT_EQ(write(wake[1], &byte, 1), 1);
	ASSERT_EQ(waitpid(pid, &status, 0), pid);
	ASSERT_EQ(status, 0);
	ASSERT_EQ(hmm_shared_wrong(ptr, size), 0);
}

TEST_F(hmm, migrate_shared_huge_to_small_dev)
{
	if (hmm_is_coherent_type(variant->device_number))
		SKIP(return, "only private pages are large");
	hmm_shared_split(_metadata, self->fd, false);
}

TEST_F(hmm, migrate_shared_huge_to_small_sys)
{
	if (hmm_is_coherent_type(variant->device_number))
		SKIP(return, "only private pages are large");
	hmm_shared_split(_metadata, self->fd, true);
}
