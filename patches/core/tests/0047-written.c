/*
 * What only a device has written is kept: no entry of the CPU's has ever been dirty. First it
 * fills holes, then pages that the process has said it does not need any more.
 */
TEST_F(hmm, written_by_device_is_kept)
{
	unsigned long npages = 256, size = npages << self->page_shift, i;
	struct hmm_buffer *buffer;
	int *ptr, round;

	buffer = hmm_buffer_alloc(size, size, PROT_READ | PROT_WRITE,
				  MAP_PRIVATE | MAP_ANONYMOUS, -1);
	ASSERT_NE(buffer, NULL);
	ASSERT_EQ(madvise(buffer->ptr, size, MADV_NOHUGEPAGE), 0);
	for (round = 0; round < 2; round++) {
		if (round)
			ASSERT_EQ(madvise(buffer->ptr, size, MADV_FREE), 0);
		ASSERT_EQ(hmm_migrate_sys_to_dev(self->fd, buffer, npages), 0);
		hmm_fill(buffer->mirror, npages, self->page_size, 1 + round);
		ASSERT_EQ(hmm_dmirror_cmd(self->fd, HMM_DMIRROR_WRITE, buffer, npages), 0);
		for (i = 0; i < npages; i++) {
			ptr = buffer->ptr + i * self->page_size;
			ASSERT_EQ(*ptr, 1 + round + (int)i);
		}
		ASSERT_EQ(hmm_free_in_child(buffer->ptr, size), 0);
		EXPECT_EQ(hmm_lost_by_reclaim(buffer->ptr, npages, self->page_size, 1 + round),
			  0);
	}
	hmm_buffer_free(buffer);
}
