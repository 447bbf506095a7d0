/*
 * Pages that KSM has merged.
 */

#define HMM_KSM_PAGES	64

/*
 * Have ksmd look at all memory until so many pages of this process are merged, and then rest:
 * while it looks at a page it has a reference, and the page does not migrate anyway.
 */
static bool hmm_ksm_merge(long npages)
{
	int tries;

	for (tries = 0; tries < 10 && ksm_get_self_merging_pages() < npages; tries++)
		if (ksm_start())
			return false;
	write_sysfs("/sys/kernel/mm/ksm/run", 0);
	return ksm_get_self_merging_pages() >= npages;
}

/* The number of pages of the buffer that are on the device, or -errno. */
static int hmm_ksm_on_device(int fd, struct hmm_buffer *buffer, int npages)
{
	unsigned char *m = buffer->mirror;
	int i, n = 0, ret;

	ret = hmm_dmirror_cmd(fd, HMM_DMIRROR_SNAPSHOT, buffer, npages);
	if (ret)
		return ret;
	for (i = 0; i < npages; i++)
		n += m[i] != HMM_DMIRROR_PROT_ERROR && m[i] >= HMM_DMIRROR_PROT_DEV_PRIVATE_LOCAL;
	return n;
}

static struct hmm_buffer *hmm_ksm_buffer(unsigned long size)
{
	struct hmm_buffer *buffer;

	buffer = hmm_buffer_alloc(size, size, PROT_READ | PROT_WRITE,
				  MAP_PRIVATE | MAP_ANONYMOUS, -1);
	if (buffer)
		memset(buffer->ptr, 0x5a, size);
	return buffer;
}

static bool hmm_ksm_intact(struct hmm_buffer *buffer)
{
	unsigned char *p = buffer->ptr;
	unsigned long i;

	for (i = 0; i < buffer->size; i++)
		if (p[i] != 0x5a)
			return false;
	return true;
}

/*
 * A page that KSM has merged is not migrated. ksmd compares pages of others with it.
 */
TEST_F_TIMEOUT(hmm, ksm_merged_stays, 60)
{
	unsigned long size = HMM_KSM_PAGES << self->page_shift;
	struct hmm_buffer *buffer, *others;

	if (ksm_get_self_merging_pages() < 0)
		SKIP(return, "no KSM");
	buffer = hmm_ksm_buffer(size);
	ASSERT_NE(buffer, NULL);
	ASSERT_EQ(madvise(buffer->ptr, size, MADV_MERGEABLE), 0);
	if (!hmm_ksm_merge(HMM_KSM_PAGES))
		SKIP(return, "KSM does not merge");

	hmm_migrate_sys_to_dev(self->fd, buffer, HMM_KSM_PAGES);
	EXPECT_EQ(hmm_ksm_on_device(self->fd, buffer, HMM_KSM_PAGES), 0);

	others = hmm_ksm_buffer(size);
	ASSERT_NE(others, NULL);
	ASSERT_EQ(madvise(others->ptr, size, MADV_MERGEABLE), 0);
	ASSERT_EQ(ksm_start(), 0);
	ASSERT_TRUE(hmm_ksm_intact(buffer));
	ASSERT_TRUE(hmm_ksm_intact(others));
	ksm_stop();
	hmm_buffer_free(others);
	hmm_buffer_free(buffer);
}

/*
 * A child has KSM merge what it shares with its parent. One of these pages becomes the merged
 * page, also in the parent, whose mapping KSM does not know.
 */
TEST_F_TIMEOUT(hmm, ksm_merged_by_child, 60)
{
	unsigned long size = HMM_KSM_PAGES << self->page_shift;
	struct hmm_buffer *buffer;
	int merged[2], done[2];
	char c = 'x';
	pid_t pid;

	if (ksm_get_self_merging_pages() < 0)
		SKIP(return, "no KSM");
	buffer = hmm_ksm_buffer(size);
	ASSERT_NE(buffer, NULL);
	ASSERT_EQ(pipe(merged), 0);
	ASSERT_EQ(pipe(done), 0);
	pid = fork();
	ASSERT_GE(pid, 0);
	if (!pid) {
		close(done[1]);
		if (madvise(buffer->ptr, size, MADV_MERGEABLE) || !hmm_ksm_merge(HMM_KSM_PAGES))
			c = 's';
		/* Until the parent is done or dead. */
		if (write(merged[1], &c, 1) != 1 || read(done[0], &c, 1) < 0)
			_exit(1);
		_exit(0);
	}
	close(merged[1]);
	ASSERT_EQ(read(merged[0], &c, 1), 1);
	if (c == 's')
		SKIP(return, "KSM does not merge");

	hmm_migrate_sys_to_dev(self->fd, buffer, HMM_KSM_PAGES);
	/* An entry that was lost has this never end. */
	ASSERT_TRUE(hmm_ksm_intact(buffer));
	close(done[1]);
	ASSERT_EQ(waitpid(pid, NULL, 0), pid);
	ksm_stop();
	hmm_buffer_free(buffer);
}
