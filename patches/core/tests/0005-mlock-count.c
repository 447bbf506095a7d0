/* A number from /proc/vmstat, with what the CPUs have not reported yet; or -1. */
static long hmm_mlock_vmstat(const char *name)
{
	char line[128];
	long number = -1;
	FILE *file;

	write_sysfs("/proc/sys/vm/stat_refresh", 1);
	file = fopen("/proc/vmstat", "r");
	if (!file)
		return -1;
	while (fgets(line, sizeof(line), file)) {
		if (!strncmp(line, name, strlen(name)) && line[strlen(name)] == ' ')
			number = atol(line + strlen(name));
	}
	fclose(file);
	return number;
}

/*
 * munlock() does not see pages that are on a device. They are no longer counted as mlocked
 * once they are free.
 */
TEST_F(hmm, mlock_count)
{
	unsigned long npages = 1024;
	unsigned long size = npages << self->page_shift;
	struct hmm_buffer *buffer;
	long before, after;
	int round;

	before = hmm_mlock_vmstat("nr_mlock");
	ASSERT_GE(before, 0);
	for (round = 0; round < 2; round++) {
		buffer = hmm_buffer_alloc(size, size, PROT_READ | PROT_WRITE,
					  MAP_PRIVATE | MAP_ANONYMOUS, -1);
		ASSERT_NE(buffer, NULL);
		ASSERT_EQ(madvise(buffer->ptr, size, MADV_NOHUGEPAGE), 0);
		if (mlock(buffer->ptr, size))
			SKIP(return, "mlock: %s", strerror(errno));
		memset(buffer->ptr, 1, size);
		ASSERT_EQ(hmm_migrate_sys_to_dev(self->fd, buffer, npages), 0);
		ASSERT_EQ(munlock(buffer->ptr, size), 0);
		hmm_buffer_free(buffer);
	}
	after = hmm_mlock_vmstat("nr_mlock");
	/* Each CPU may have a few in a batch. */
	ASSERT_LT(after - before, (long)npages / 2);
	ASSERT_GT(after - before, -(long)npages / 2);
}
