/* A driver may evict a large folio to small pages, without any VMA. */
TEST_F(hmm, evict_large_to_small)
{
	unsigned long size = read_pmd_pagesize();
	unsigned long npages = size >> self->page_shift;
	struct hmm_buffer *buffer;
	int wake[2], status, fd;
	unsigned long i;
	unsigned char *m;
	char byte = 0;
	pid_t pid;
	int *ptr;

	if (!access("/sys/module/hmm_ref", F_OK))
		SKIP(return, "only test_hmm evicts when a file is closed");
	if (hmm_is_coherent_type(variant->device_number))
		SKIP(return, "only private pages are large");
	buffer = hmm_buffer_alloc(2 * size, 2 * size, PROT_READ | PROT_WRITE,
				  MAP_PRIVATE | MAP_ANONYMOUS, -1);
	ASSERT_NE(buffer, NULL);
	buffer->ptr = (void *)ALIGN((uintptr_t)buffer->ptr, size);
	ASSERT_EQ(madvise(buffer->ptr, size, MADV_HUGEPAGE), 0);
	for (i = 0, ptr = buffer->ptr; i < size / sizeof(*ptr); i++)
		ptr[i] = i;
	ASSERT_EQ(hmm_migrate_sys_to_dev(self->fd, buffer, npages), 0);
	ASSERT_EQ(hmm_dmirror_cmd(self->fd, HMM_DMIRROR_SNAPSHOT, buffer, npages), 0);
	m = buffer->mirror;
	if (!(m[0] & HMM_DMIRROR_PROT_PMD))
		SKIP(return, "not met: no huge page on the device");

	/* A child has it, too. */
	ASSERT_EQ(pipe(wake), 0);
	pid = fork();
	ASSERT_GE(pid, 0);
	if (!pid) {
		close(wake[1]);
		if (read(wake[0], &byte, 1) != 1)
			_exit(2);
		for (i = 0; i < size / sizeof(*ptr); i++)
			if (ptr[i] != i)
				_exit(1);
		_exit(0);
	}

	fd = hmm_open(variant->device_number);
	ASSERT_GE(fd, 0);
	ASSERT_EQ(hmm_dmirror_cmd(fd, HMM_DMIRROR_FLAGS, buffer,
				  HMM_DMIRROR_FLAG_FAIL_ALLOC), 0);
	ASSERT_EQ(close(fd), 0);
	ASSERT_EQ(hmm_dmirror_cmd(self->fd, HMM_DMIRROR_SNAPSHOT, buffer, npages), 0);
	for (i = 0; i < npages; i++) {
		ASSERT_LT(m[i] & 0xf0, HMM_DMIRROR_PROT_DEV_PRIVATE_LOCAL);
		ASSERT_EQ(m[i] & HMM_DMIRROR_PROT_PMD, 0);
	}
	ASSERT_EQ(write(wake[1], &byte, 1), 1);
	ASSERT_EQ(waitpid(pid, &status, 0), pid);
	ASSERT_EQ(status, 0);
	for (i = 0; i < size / sizeof(*ptr); i++) {
		ASSERT_EQ(ptr[i], i);
	}
}
