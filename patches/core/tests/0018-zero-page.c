/*
 * A zero page that a userfaultfd write-protects: a migration to the device does not
 * drop the protection, so the write after it is told.
 */
struct hmm_zero_writer {
	int uffd;
	unsigned long page_size;
	unsigned long told;
	unsigned long stop;
};

static void *hmm_zero_serve(void *arg)
{
	struct hmm_zero_writer *w = arg;
	struct pollfd pfd = { .fd = w->uffd, .events = POLLIN };
	struct uffdio_writeprotect wp = { .mode = 0 };
	struct uffd_msg msg;

	while (!__atomic_load_n(&w->stop, __ATOMIC_ACQUIRE)) {
		if (poll(&pfd, 1, 50) != 1 ||
		    read(w->uffd, &msg, sizeof(msg)) != sizeof(msg))
			continue;
		__atomic_add_fetch(&w->told, 1, __ATOMIC_ACQ_REL);
		wp.range.start = msg.arg.pagefault.address & ~(w->page_size - 1);
		wp.range.len = w->page_size;
		while (ioctl(w->uffd, UFFDIO_WRITEPROTECT, &wp) && errno == EAGAIN)
			;
	}
	return NULL;
}

static void hmm_zero_run(struct __test_metadata *_metadata, int fd,
			 unsigned int page_size, bool huge)
{
	unsigned long size = huge ? read_pmd_pagesize() : 16 * page_size;
	unsigned long npages = size / page_size, i, writes = 0;
	struct uffdio_api api = {
		.api = UFFD_API,
		.features = UFFD_FEATURE_PAGEFAULT_FLAG_WP,
	};
	struct hmm_zero_writer w = { .page_size = page_size };
	struct uffdio_writeprotect wp = {};
	struct uffdio_register reg = {};
	struct hmm_buffer *buffer;
	void *base = NULL, *mem;
	pthread_t thread;

	if (huge)
		buffer = hmm_huge_buffer(size, &base);
	else
		buffer = hmm_buffer_alloc(size, size, PROT_READ | PROT_WRITE,
					  MAP_PRIVATE | MAP_ANONYMOUS, -1);
	ASSERT_NE(buffer, NULL);
	mem = buffer->ptr;
	w.uffd = syscall(__NR_userfaultfd, O_CLOEXEC | O_NONBLOCK);
	if (w.uffd < 0 || ioctl(w.uffd, UFFDIO_API, &api))
		SKIP(return, "no userfaultfd");
	reg.range.start = (unsigned long)mem;
	reg.range.len = size;
	reg.mode = UFFDIO_REGISTER_MODE_WP;
	if (ioctl(w.uffd, UFFDIO_REGISTER, &reg))
		SKIP(return, "no write protection by userfaultfd");

	for (i = 0; i < npages; i++)
		ASSERT_EQ(*(volatile int *)(mem + i * page_size), 0);
	wp.range = reg.range;
	wp.mode = UFFDIO_WRITEPROTECT_MODE_WP;
	ASSERT_EQ(ioctl(w.uffd, UFFDIO_WRITEPROTECT, &wp), 0);

	/* Whether they move or stay is up to the kernel. */
	hmm_migrate_sys_to_dev(fd, buffer, npages);

	ASSERT_EQ(pthread_create(&thread, NULL, hmm_zero_serve, &w), 0);
	for (i = 0; i < npages; i += npages / 8) {
		*(volatile int *)(mem + i * page_size) = 1 + i;
		writes++;
		EXPECT_EQ(__atomic_load_n(&w.told, __ATOMIC_ACQUIRE), writes);
	}
	__atomic_store_n(&w.stop, 1, __ATOMIC_RELEASE);
	pthread_join(thread, NULL);
	for (i = 0; i < npages; i += npages / 8)
		ASSERT_EQ(*(volatile int *)(mem + i * page_size), 1 + i);
	close(w.uffd);
	buffer->ptr = huge ? base : mem;
	hmm_buffer_free(buffer);
}

TEST_F(hmm, migrate_protected_zero)
{
	hmm_zero_run(_metadata, self->fd, self->page_size, false);
}

TEST_F(hmm, migrate_protected_huge_zero)
{
	hmm_zero_run(_metadata, self->fd, self->page_size, true);
}
