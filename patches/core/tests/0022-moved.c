struct hmm_moved_args {
	int device_number;
	int stop;
};

static void *hmm_moved_evict(void *arg)
{
	struct hmm_moved_args *args = arg;

	while (!__atomic_load_n(&args->stop, __ATOMIC_RELAXED))
		close(hmm_open(args->device_number));
	return NULL;
}

/* TAINT_WARN */
static int hmm_moved_warned(void)
{
	FILE *file = fopen("/proc/sys/kernel/tainted", "r");
	unsigned long taint = 0;

	if (!file)
		return -1;
	if (fscanf(file, "%lu", &taint) != 1)
		taint = 0;
	fclose(file);
	return !!(taint & (1 << 9));
}

/*
 * Two evictions, and a migration there: one may lock a page right after another has moved
 * its data. With CONFIG_DEBUG_VM and CONFIG_MEMCG the kernel complains about a page that is
 * not charged.
 */
TEST_F_TIMEOUT(hmm, evict_moved_page, 400)
{
	struct hmm_moved_args args = { .device_number = variant->device_number };
	unsigned long npages = 4096;
	unsigned long size = npages << self->page_shift;
	struct hmm_buffer *buffer;
	pthread_t threads[2];
	time_t end;
	int i;

	if (!access("/sys/module/hmm_ref", F_OK))
		SKIP(return, "only test_hmm evicts when a file is closed");
	if (hmm_moved_warned())
		SKIP(return, "tainted already");
	buffer = hmm_buffer_alloc(size, size, PROT_READ | PROT_WRITE,
				  MAP_PRIVATE | MAP_ANONYMOUS, -1);
	ASSERT_NE(buffer, NULL);
	ASSERT_EQ(madvise(buffer->ptr, size, MADV_NOHUGEPAGE), 0);
	memset(buffer->ptr, 1, size);
	for (i = 0; i < 2; i++) {
		ASSERT_EQ(pthread_create(&threads[i], NULL, hmm_moved_evict, &args), 0);
	}
	for (end = time(NULL) + 240; time(NULL) < end && !hmm_moved_warned();)
		hmm_dmirror_cmd(self->fd, HMM_DMIRROR_MIGRATE_TO_DEV, buffer, npages);
	__atomic_store_n(&args.stop, 1, __ATOMIC_RELAXED);
	for (i = 0; i < 2; i++)
		pthread_join(threads[i], NULL);
	ASSERT_EQ(hmm_moved_warned(), 0);
	for (i = 0; i < size; i++) {
		ASSERT_EQ(((char *)buffer->ptr)[i], 1);
	}
}
