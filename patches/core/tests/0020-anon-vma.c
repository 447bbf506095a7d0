#define HMM_EXIT_BULK_MB	64

struct hmm_exit_shared {
	int ready;		/* the child's page is on the device */
	int evicted;		/* the eviction has ended */
};

/* TAINT_BAD_PAGE, which KASAN sets; or -1. */
static int hmm_exit_tainted(void)
{
	FILE *file = fopen("/proc/sys/kernel/tainted", "r");
	unsigned long taint;
	int ret = -1;

	if (!file)
		return -1;
	if (fscanf(file, "%lu", &taint) == 1)
		ret = !!(taint & (1 << 5));
	fclose(file);
	return ret;
}

static bool hmm_exit_has_kasan(void)
{
	FILE *file = fopen("/proc/kallsyms", "r");
	bool found = false;
	char line[256];

	if (!file)
		return false;
	while (!found && fgets(line, sizeof(line), file))
		found = strstr(line, " kasan_report\n");
	fclose(file);
	return found;
}

/*
 * Move a page to the device, in a VMA with an anon_vma of its own, and exit as soon as it
 * has a migration entry. Return: 0 if that was so.
 */
static int hmm_exit_child(int device_number, struct hmm_exit_shared *shared)
{
	unsigned long size = sysconf(_SC_PAGE_SIZE);
	int fd = hmm_open(device_number);
	int pagemap = open("/proc/self/pagemap", O_RDONLY);
	struct hmm_buffer *buffer;
	uint64_t first, entry;
	off_t offset;

	buffer = hmm_buffer_alloc(3 * size, size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1);
	if (fd < 0 || pagemap < 0 || !buffer)
		return 1;
	buffer->ptr += size;
	if (mprotect(buffer->ptr, size, PROT_READ | PROT_WRITE))
		return 1;
	memset(buffer->ptr, 1, size);
	if (hmm_migrate_sys_to_dev(fd, buffer, 1) || buffer->cpages != 1)
		return 1;
	offset = (uintptr_t)buffer->ptr / size * sizeof(entry);
	if (pread(pagemap, &first, sizeof(first), offset) != sizeof(first))
		return 1;
	__atomic_store_n(&shared->ready, 1, __ATOMIC_RELEASE);
	do {
		if (pread(pagemap, &entry, sizeof(entry), offset) != sizeof(entry))
			return 1;
	} while (entry == first);
	/* Present: the eviction has ended already. */
	return entry >> 63 ? 2 : 0;
}

struct hmm_exit_evict {
	struct hmm_exit_shared *shared;
	int fd;
};

/* To close a file evicts all pages of the device, of test_hmm at least. */
static void *hmm_exit_evict(void *arg)
{
	struct hmm_exit_evict *evict = arg;

	close(evict->fd);
	__atomic_store_n(&evict->shared->evicted, 1, __ATOMIC_RELEASE);
	return NULL;
}

/*
 * A process that exits while its pages are evicted leaves migration entries of theirs to
 * nobody, and takes the anon_vma with it if eviction does not keep it.
 */
TEST_F_TIMEOUT(hmm, evict_of_exiting_process, 300)
{
	unsigned long npages = HMM_EXIT_BULK_MB * ONEMEG / self->page_size;
	unsigned long size = npages << self->page_shift;
	struct hmm_exit_shared *shared;
	struct hmm_exit_evict evict;
	struct hmm_buffer *buffer;
	int met = 0, status, ret, i;
	pthread_t thread;
	pid_t pid;

	if (!access("/sys/module/hmm_ref", F_OK))
		SKIP(return, "only test_hmm evicts when a file is closed");
	if (!hmm_exit_has_kasan())
		SKIP(return, "not seen without KASAN");
	if (hmm_exit_tainted())
		SKIP(return, "tainted already");
	shared = mmap(NULL, self->page_size, PROT_READ | PROT_WRITE,
		      MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	ASSERT_NE(shared, MAP_FAILED);
	buffer = hmm_buffer_alloc(size, size, PROT_READ | PROT_WRITE,
				  MAP_PRIVATE | MAP_ANONYMOUS, -1);
	ASSERT_NE(buffer, NULL);
	ASSERT_EQ(madvise(buffer->ptr, size, MADV_NOHUGEPAGE), 0);

	for (i = 0; i < 3 && !hmm_exit_tainted(); i++) {
		memset(buffer->ptr, 1, size);
		memset(shared, 0, sizeof(*shared));
		evict.shared = shared;
		evict.fd = hmm_open(variant->device_number);
		ASSERT_GE(evict.fd, 0);
		/* All are moved, but test_hmm may have lost one out of its own table. */
		ret = hmm_migrate_sys_to_dev(self->fd, buffer, npages);
		ASSERT_TRUE(!ret || ret == -ENOENT);

		/* With the parent's files, so that its exit does not close one. */
		pid = syscall(__NR_clone, CLONE_FILES | SIGCHLD, NULL, NULL, NULL, NULL);
		ASSERT_GE(pid, 0);
		if (!pid)
			_exit(hmm_exit_child(variant->device_number, shared));
		while (!__atomic_load_n(&shared->ready, __ATOMIC_ACQUIRE) &&
		       !waitpid(pid, &status, WNOHANG))
			hmm_nanosleep(1000000);
		ASSERT_EQ(pthread_create(&thread, NULL, hmm_exit_evict, &evict), 0);
		ASSERT_EQ(waitpid(pid, &status, 0), pid);
		ASSERT_TRUE(WIFEXITED(status));
		ASSERT_NE(WEXITSTATUS(status), 1);
		met += !__atomic_load_n(&shared->evicted, __ATOMIC_ACQUIRE) &&
		       !WEXITSTATUS(status);
		pthread_join(thread, NULL);
		ASSERT_EQ(*(char *)buffer->ptr, 1);
		ASSERT_EQ(*(char *)(buffer->ptr + size - 1), 1);
	}
	ASSERT_EQ(hmm_exit_tainted(), 0);
	if (!met)
		SKIP(return, "not met: no process ended during an eviction");
	TH_LOG("met %d of %d times", met, i);
	hmm_buffer_free(buffer);
	munmap(shared, self->page_size);
}
