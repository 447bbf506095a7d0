/*
 * Pages that are on the device, shared after fork() or made read-only and writable again
 * by mprotect(): a write by the device succeeds, and the child does not see it.
 */
static void hmm_write_shared(struct __test_metadata *_metadata, int fd,
			     struct hmm_buffer *buffer, unsigned long npages,
			     unsigned int page_size, bool by_fork)
{
	int go[2], status, ret, bad = 0;
	unsigned long i;
	pid_t pid = 0;
	char byte;

	hmm_fill(buffer->ptr, npages, page_size, 1000);
	ret = hmm_migrate_sys_to_dev(fd, buffer, npages);
	ASSERT_EQ(ret, 0);

	if (by_fork) {
		ASSERT_EQ(pipe(go), 0);
		pid = fork();
		ASSERT_NE(pid, -1);
		if (!pid) {
			close(go[1]);
			if (read(go[0], &byte, 1) != 1)
				_exit(2);
			for (i = 0; i < npages; i++)
				bad |= *(int *)(buffer->ptr + i * page_size) !=
				       (int)(1000 + i);
			_exit(bad);
		}
	} else {
		ASSERT_EQ(mprotect(buffer->ptr, npages * page_size, PROT_READ), 0);
		ASSERT_EQ(mprotect(buffer->ptr, npages * page_size,
				   PROT_READ | PROT_WRITE), 0);
	}

	hmm_fill(buffer->mirror, npages, page_size, 5000);
	ret = hmm_dmirror_cmd(fd, HMM_DMIRROR_WRITE, buffer, npages);
	EXPECT_EQ(ret, 0);

	if (by_fork) {
		ASSERT_EQ(write(go[1], "x", 1), 1);
		ASSERT_EQ(waitpid(pid, &status, 0), pid);
		EXPECT_TRUE(WIFEXITED(status));
		EXPECT_EQ(WEXITSTATUS(status), 0);
		close(go[0]);
		close(go[1]);
	}
	for (i = 0; !ret && i < npages; i++)
		ASSERT_EQ(*(int *)(buffer->ptr + i * page_size), 5000 + i);
}

static void hmm_write_shared_run(struct __test_metadata *_metadata, int fd,
				 unsigned int page_size, bool huge, bool by_fork)
{
	unsigned long size = huge ? read_pmd_pagesize() : 16 * page_size;
	struct hmm_buffer *buffer;
	void *base = NULL;

	if (huge)
		buffer = hmm_huge_buffer(size, &base);
	else
		buffer = hmm_buffer_alloc(size, size, PROT_READ | PROT_WRITE,
					  MAP_PRIVATE | MAP_ANONYMOUS, -1);
	ASSERT_NE(buffer, NULL);
	hmm_write_shared(_metadata, fd, buffer, size / page_size, page_size, by_fork);
	if (huge)
		buffer->ptr = base;
	hmm_buffer_free(buffer);
}

TEST_F(hmm, dev_write_after_fork)
{
	hmm_write_shared_run(_metadata, self->fd, self->page_size, false, true);
}

TEST_F(hmm, dev_write_after_mprotect)
{
	hmm_write_shared_run(_metadata, self->fd, self->page_size, false, false);
}

TEST_F(hmm, dev_write_huge_after_fork)
{
	hmm_write_shared_run(_metadata, self->fd, self->page_size, true, true);
}

TEST_F(hmm, dev_write_huge_after_mprotect)
{
	hmm_write_shared_run(_metadata, self->fd, self->page_size, true, false);
}
