/*
 * UFFDIO_MOVE of what is on the device: not supported. A huge page there is no hole, and
 * the error is that of small pages.
 */
static int hmm_move(int uffd, void *dst, void *src, unsigned long len, __s64 *moved)
{
	struct uffdio_move move = {
		.dst = (unsigned long)dst,
		.src = (unsigned long)src,
		.len = len,
	};
	int ret = ioctl(uffd, UFFDIO_MOVE, &move) ? -errno : 0;

	*moved = move.move;
	return ret;
}

static void hmm_move_run(struct __test_metadata *_metadata, int fd,
			 unsigned int page_size, bool huge)
{
	struct uffdio_api api = { .api = UFFD_API, .features = UFFD_FEATURE_MOVE };
	struct uffdio_register reg = { .mode = UFFDIO_REGISTER_MODE_MISSING };
	unsigned long size = read_pmd_pagesize();
	unsigned long npages = size / page_size, i;
	struct hmm_buffer *buffer, *target;
	void *base, *target_base;
	__s64 moved;
	int uffd;

	buffer = hmm_huge_buffer(size, &base);
	target = hmm_huge_buffer(size, &target_base);
	ASSERT_NE(buffer, NULL);
	ASSERT_NE(target, NULL);
	uffd = syscall(__NR_userfaultfd, O_CLOEXEC | O_NONBLOCK);
	if (uffd < 0 || ioctl(uffd, UFFDIO_API, &api))
		SKIP(return, "no UFFDIO_MOVE");
	reg.range.start = (unsigned long)target->ptr;
	reg.range.len = size;
	ASSERT_EQ(ioctl(uffd, UFFDIO_REGISTER, &reg), 0);
	if (!huge)
		ASSERT_EQ(madvise(buffer->ptr, size, MADV_NOHUGEPAGE), 0);

	EXPECT_EQ(hmm_move(uffd, target->ptr, buffer->ptr, size, &moved), -ENOENT);
	hmm_fill(buffer->ptr, npages, page_size, 1);
	ASSERT_EQ(hmm_migrate_sys_to_dev(fd, buffer, npages), 0);
	ASSERT_EQ(buffer->cpages, npages);
	EXPECT_EQ(hmm_move(uffd, target->ptr, buffer->ptr, size, &moved), -EFAULT);
	EXPECT_EQ(hmm_move(uffd, target->ptr, buffer->ptr, page_size, &moved), -EFAULT);

	/* A touch brings it back. Then it moves. */
	for (i = 0; i < npages; i++)
		ASSERT_EQ(*(volatile int *)(buffer->ptr + i * page_size), 1 + i);
	EXPECT_EQ(hmm_move(uffd, target->ptr, buffer->ptr, size, &moved), 0);
	for (i = 0; i < npages; i++)
		ASSERT_EQ(*(int *)(target->ptr + i * page_size), 1 + i);
	close(uffd);
	buffer->ptr = base;
	target->ptr = target_base;
	hmm_buffer_free(buffer);
	hmm_buffer_free(target);
}

TEST_F(hmm, move_of_small_device_pages)
{
	if (hmm_is_coherent_type(variant->device_number))
		SKIP(return, "coherent memory is present");
	hmm_move_run(_metadata, self->fd, self->page_size, false);
}

TEST_F(hmm, move_of_huge_device_page)
{
	if (hmm_is_coherent_type(variant->device_number))
		SKIP(return, "coherent memory is present");
	hmm_move_run(_metadata, self->fd, self->page_size, true);
}
