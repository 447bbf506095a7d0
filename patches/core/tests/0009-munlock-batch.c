/* What munlock has taken off the pages, by /proc/vmstat; or -1. */
static long hmm_munlock_events(void)
{
	char line[128];
	long number = -1;
	FILE *file;

	file = fopen("/proc/vmstat", "r");
	if (!file)
		return -1;
	while (fgets(line, sizeof(line), file)) {
		if (sscanf(line, "unevictable_pgs_munlocked %ld", &number) == 1)
			break;
	}
	fclose(file);
	return number;
}

#define HMM_MUNLOCK_WAIT_MS	25000

static int hmm_munlock_run_on(int cpu)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	return sched_setaffinity(0, sizeof(set), &set);
}

/*
 * Map the page of @buffer in a child, too, and have the child unmap it while it is locked in
 * the child's memory. That leaves a reference in a batch of the child's CPU. The child then
 * waits until the parent ends, but not for ever, and drops the reference. Return: true if it
 * is still there.
 */
static bool hmm_munlock_elsewhere(struct hmm_buffer *buffer)
{
	struct pollfd wait = { .events = POLLIN };
	long events = -1;
	int ready[2], done[2];
	pid_t pid;

	if (sysconf(_SC_NPROCESSORS_ONLN) < 2 || hmm_munlock_run_on(0) ||
	    pipe(ready) || pipe(done))
		return false;
	pid = fork();
	if (pid < 0)
		return false;
	if (!pid) {
		close(done[1]);
		if (!hmm_munlock_run_on(1) &&
		    !mlock2(buffer->ptr, buffer->size, MLOCK_ONFAULT)) {
			events = hmm_munlock_events();
			if (madvise(buffer->ptr, buffer->size, MADV_DONTNEED_LOCKED))
				events = -1;
		}
		wait.fd = done[0];
		if (write(ready[1], &events, sizeof(events)) == sizeof(events))
			poll(&wait, 1, HMM_MUNLOCK_WAIT_MS);
		/* This drains the batch. */
		munlock(buffer->ptr, buffer->size);
		_exit(0);
	}
	close(ready[1]);
	close(done[0]);
	/* Something may have emptied the batch meanwhile, such as khugepaged. */
	return read(ready[0], &events, sizeof(events)) == sizeof(events) && events >= 0 &&
	       hmm_munlock_events() == events;
}

static struct hmm_buffer *hmm_munlock_buffer(unsigned long size)
{
	struct hmm_buffer *buffer;

	buffer = hmm_buffer_alloc(size, size, PROT_READ | PROT_WRITE,
				  MAP_PRIVATE | MAP_ANONYMOUS, -1);
	if (buffer && mlock(buffer->ptr, size))
		return NULL;
	if (buffer)
		memset(buffer->ptr, 1, size);
	return buffer;
}

static bool hmm_munlock_on_device(int fd, struct hmm_buffer *buffer)
{
	unsigned char *m = buffer->mirror;

	return !hmm_dmirror_cmd(fd, HMM_DMIRROR_SNAPSHOT, buffer, 1) &&
	       m[0] != HMM_DMIRROR_PROT_ERROR && m[0] >= HMM_DMIRROR_PROT_DEV_PRIVATE_LOCAL;
}

/* A reference in the batch of an idle CPU does not keep a page on the device. */
TEST_F(hmm, munlock_batch_to_sys)
{
	struct hmm_buffer *buffer = hmm_munlock_buffer(self->page_size);

	ASSERT_NE(buffer, NULL);
	ASSERT_EQ(hmm_migrate_sys_to_dev(self->fd, buffer, 1), 0);
	ASSERT_TRUE(hmm_munlock_on_device(self->fd, buffer));
	if (!hmm_munlock_elsewhere(buffer))
		SKIP(return, "not met: no reference is left in a batch of another CPU");
	hmm_migrate_dev_to_sys(self->fd, buffer, 1);
	ASSERT_FALSE(hmm_munlock_on_device(self->fd, buffer));
	ASSERT_EQ(*(char *)buffer->ptr, 1);
}

/* Nor does it keep a CPU in a fault. */
TEST_F_TIMEOUT(hmm, munlock_batch_fault, 20)
{
	struct hmm_buffer *buffer = hmm_munlock_buffer(self->page_size);

	if (hmm_is_coherent_type(variant->device_number))
		SKIP(return, "CPUs do not fault on coherent memory");
	ASSERT_NE(buffer, NULL);
	ASSERT_EQ(hmm_migrate_sys_to_dev(self->fd, buffer, 1), 0);
	ASSERT_TRUE(hmm_munlock_on_device(self->fd, buffer));
	if (!hmm_munlock_elsewhere(buffer))
		SKIP(return, "not met: no reference is left in a batch of another CPU");
	ASSERT_EQ(*(char *)buffer->ptr, 1);
}

/* Nor does it keep a page in system memory. */
TEST_F(hmm, munlock_batch_to_dev)
{
	struct hmm_buffer *buffer = hmm_munlock_buffer(self->page_size);

	ASSERT_NE(buffer, NULL);
	if (!hmm_munlock_elsewhere(buffer))
		SKIP(return, "not met: no reference is left in a batch of another CPU");
	hmm_migrate_sys_to_dev(self->fd, buffer, 1);
	ASSERT_TRUE(hmm_munlock_on_device(self->fd, buffer));
	ASSERT_EQ(*(char *)buffer->ptr, 1);
}

/* Nor does it keep the driver from releasing its memory, when no task maps the page. */
TEST_F_TIMEOUT(hmm, munlock_batch_release, 60)
{
	struct hmm_buffer *buffer = hmm_munlock_buffer(self->page_size);
	struct timespec begin, end;

	ASSERT_NE(buffer, NULL);
	ASSERT_EQ(hmm_migrate_sys_to_dev(self->fd, buffer, 1), 0);
	ASSERT_TRUE(hmm_munlock_on_device(self->fd, buffer));
	if (!hmm_munlock_elsewhere(buffer))
		SKIP(return, "not met: no reference is left in a batch of another CPU");
	/* Or the parent's own CPU would keep a reference, too. */
	ASSERT_EQ(munlock(buffer->ptr, self->page_size), 0);
	ASSERT_EQ(munmap(buffer->ptr, self->page_size), 0);
	clock_gettime(CLOCK_MONOTONIC, &begin);
	ASSERT_EQ(hmm_dmirror_cmd(self->fd, HMM_DMIRROR_RELEASE, buffer, 1), 0);
	clock_gettime(CLOCK_MONOTONIC, &end);
	ASSERT_LT(end.tv_sec - begin.tv_sec, HMM_MUNLOCK_WAIT_MS / 1000 / 2);
}
