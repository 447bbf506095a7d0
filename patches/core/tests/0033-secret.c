/* Memory of memfd_secret(): a device access fails, as get_user_pages() does. */
TEST_F(hmm, secret_memory_is_refused)
{
	unsigned long npages = 4, size = npages * self->page_size, i;
	struct hmm_buffer *buffer;
	unsigned char *prot;
	void *mirror;
	int secret;

	secret = syscall(__NR_memfd_secret, 0);
	if (secret < 0)
		SKIP(return, "no memfd_secret(): secretmem.enable, CONFIG_SECRETMEM");
	ASSERT_EQ(ftruncate(secret, size), 0);
	buffer = malloc(sizeof(*buffer));
	ASSERT_NE(buffer, NULL);
	memset(buffer, 0, sizeof(*buffer));
	buffer->fd = -1;
	buffer->size = size;
	mirror = malloc(size);
	ASSERT_NE(mirror, NULL);
	buffer->mirror = mirror;
	buffer->ptr = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, secret, 0);
	if (buffer->ptr == MAP_FAILED)
		SKIP(return, "no secret memory to be had: RLIMIT_MEMLOCK");
	hmm_fill(buffer->ptr, npages, self->page_size, 1);

	/* First, as an access where this is wrong ends in an oops. */
	ASSERT_EQ(hmm_dmirror_cmd(self->fd, HMM_DMIRROR_SNAPSHOT, buffer, npages), 0);
	prot = buffer->mirror;
	for (i = 0; i < npages; i++) {
		ASSERT_TRUE(prot[i] == HMM_DMIRROR_PROT_ERROR ||
			    prot[i] == HMM_DMIRROR_PROT_NONE) {
			TH_LOG("page %lu is 0x%x", i, prot[i]);
		}
	}

	EXPECT_EQ(hmm_dmirror_cmd(self->fd, HMM_DMIRROR_READ, buffer, npages), -EFAULT);
	EXPECT_EQ(hmm_dmirror_cmd(self->fd, HMM_DMIRROR_WRITE, buffer, npages), -EFAULT);
	for (i = 0; i < npages; i++)
		EXPECT_EQ(*(int *)(buffer->ptr + i * self->page_size), 1 + i);
	munmap(buffer->ptr, size);
	close(secret);
	free(mirror);
	free(buffer);
}
