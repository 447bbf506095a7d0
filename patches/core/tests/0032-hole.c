/*
 * A device access to a range with one hole at its start: the other pages are on the
 * device, and stay there.
 */
static void hmm_hole_run(struct __test_metadata *_metadata, int fd,
			 unsigned int page_size, bool write)
{
	unsigned long npages = 32, size = npages * page_size, i, left = 0;
	struct hmm_buffer *buffer;
	unsigned char *prot;
	void *mem;

	buffer = hmm_buffer_alloc(size, size, PROT_READ | PROT_WRITE,
				  MAP_PRIVATE | MAP_ANONYMOUS, -1);
	ASSERT_NE(buffer, NULL);
	mem = buffer->ptr;
	hmm_fill(mem, npages, page_size, 1);
	ASSERT_EQ(hmm_migrate_sys_to_dev(fd, buffer, npages), 0);
	ASSERT_EQ(buffer->cpages, npages);
	for (i = 0; i < 4; i++)
		ASSERT_EQ(madvise(mem + i * page_size, page_size, MADV_DONTNEED), 0);

	if (write) {
		hmm_fill(buffer->mirror, npages, page_size, 7);
		ASSERT_EQ(hmm_dmirror_cmd(fd, HMM_DMIRROR_WRITE, buffer, npages), 0);
	} else {
		ASSERT_EQ(hmm_dmirror_cmd(fd, HMM_DMIRROR_READ, buffer, npages), 0);
		for (i = 0; i < npages; i++)
			EXPECT_EQ(*(int *)(buffer->mirror + i * page_size),
				  i < 4 ? 0 : 1 + i);
	}

	ASSERT_EQ(hmm_dmirror_cmd(fd, HMM_DMIRROR_SNAPSHOT, buffer, npages), 0);
	prot = buffer->mirror;
	for (i = 0; i < npages; i++)
		left += (prot[i] & HMM_DMIRROR_PROT_DEV_PRIVATE_REMOTE) ==
			HMM_DMIRROR_PROT_DEV_PRIVATE_LOCAL;
	EXPECT_EQ(left, npages - 4);

	for (i = 0; i < npages; i++)
		EXPECT_EQ(*(int *)(mem + i * page_size),
			  write ? 7 + i : i < 4 ? 0 : 1 + i);
	hmm_buffer_free(buffer);
}

TEST_F(hmm, read_of_hole_leaves_neighbours)
{
	if (hmm_is_coherent_type(variant->device_number))
		SKIP(return, "a CPU maps coherent memory, and does not fault");
	hmm_hole_run(_metadata, self->fd, self->page_size, false);
}

TEST_F(hmm, write_of_hole_leaves_neighbours)
{
	if (hmm_is_coherent_type(variant->device_number))
		SKIP(return, "a CPU maps coherent memory, and does not fault");
	hmm_hole_run(_metadata, self->fd, self->page_size, true);
}

/* Holes and present pages in turn: each hole is filled. */
TEST_F(hmm, read_of_holes_in_turn)
{
	unsigned long npages = 64, size = npages * self->page_size, i;
	struct hmm_buffer *buffer;

	buffer = hmm_buffer_alloc(size, size, PROT_READ | PROT_WRITE,
				  MAP_PRIVATE | MAP_ANONYMOUS, -1);
	ASSERT_NE(buffer, NULL);
	for (i = 1; i < npages; i += 1 + i % 3)
		*(int *)(buffer->ptr + i * self->page_size) = i;
	memset(buffer->mirror, 0xff, size);
	ASSERT_EQ(hmm_dmirror_cmd(self->fd, HMM_DMIRROR_READ, buffer, npages), 0);
	for (i = 0; i < npages; i++)
		EXPECT_EQ(*(int *)(buffer->mirror + i * self->page_size),
			  *(int *)(buffer->ptr + i * self->page_size));
	hmm_buffer_free(buffer);
}
