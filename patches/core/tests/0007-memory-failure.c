#ifndef MADV_HWPOISON
#define MADV_HWPOISON	100
#endif

/* The page frame number of a page on a private device, or 0. */
static unsigned long hmm_poison_private_pfn(char *ptr)
{
	uint64_t entry;
	int fd;

	fd = open("/proc/self/pagemap", O_RDONLY);
	if (fd < 0)
		return 0;
	entry = pagemap_get_entry(fd, ptr);
	close(fd);
	/* In place of a number in swap. */
	return entry & (1ULL << 62) ? (entry & ((1ULL << 55) - 1)) >> 5 : 0;
}

/*
 * The memory of a page that is on a device fails, and the driver has no callback for that.
 * The kernel answers that it cannot help.
 */
TEST_F(hmm, memory_failure)
{
	struct hmm_buffer *buffer;
	unsigned long pfn;
	int fd, ret;
	char text[32];

	buffer = hmm_buffer_alloc(self->page_size, self->page_size, PROT_READ | PROT_WRITE,
				  MAP_PRIVATE | MAP_ANONYMOUS, -1);
	ASSERT_NE(buffer, NULL);
	memset(buffer->ptr, 1, self->page_size);
	ASSERT_EQ(hmm_migrate_sys_to_dev(self->fd, buffer, 1), 0);

	if (hmm_is_coherent_type(variant->device_number)) {
		ret = madvise(buffer->ptr, self->page_size, MADV_HWPOISON);
		if (ret && (errno == EPERM || errno == EINVAL))
			SKIP(return, "MADV_HWPOISON: %s", strerror(errno));
	} else {
		pfn = hmm_poison_private_pfn(buffer->ptr);
		if (!pfn)
			SKIP(return, "pagemap shows no page frame number");
		fd = open("/sys/kernel/debug/hwpoison/corrupt-pfn", O_WRONLY);
		if (fd < 0)
			SKIP(return, "no hwpoison in debugfs: %s", strerror(errno));
		sprintf(text, "%lu", pfn);
		ret = write(fd, text, strlen(text)) < 0 ? -1 : 0;
		ASSERT_EQ(close(fd), 0);
	}
	ASSERT_EQ(ret, -1);
	ASSERT_EQ(errno, ENXIO);
	ASSERT_EQ(*(char *)buffer->ptr, 1);
	hmm_buffer_free(buffer);
}
