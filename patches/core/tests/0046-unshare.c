#include <sys/uio.h>

#ifndef MADV_PAGEOUT
#define MADV_PAGEOUT	21
#endif

/* A child gives up its share of the pages, which is no business of its parent's. */
static int hmm_free_in_child(void *ptr, unsigned long size)
{
	int status;
	pid_t pid;

	pid = fork();
	if (!pid)
		_exit(!!madvise(ptr, size, MADV_FREE));
	if (pid < 0 || waitpid(pid, &status, 0) != pid)
		return -1;
	return status;
}

/* How many pages that hold numbers from @first on do not? The pages are reclaimed before. */
static unsigned long hmm_lost_by_reclaim(void *ptr, unsigned long npages,
					 unsigned long page_size, int first)
{
	unsigned long i, lost = 0;

	madvise(ptr, npages * page_size, MADV_PAGEOUT);
	for (i = 0; i < npages; i++)
		lost += *(int *)(ptr + i * page_size) != first + (int)i;
	return lost;
}

/*
 * To pin shared pages for reading makes copies of them, which no entry calls dirty. They are
 * the only ones all the same: not even a child's MADV_FREE may have them dropped.
 */
TEST(unshared_copy_is_kept)
{
	unsigned long page_size = sysconf(_SC_PAGE_SIZE);
	unsigned long npages = 256, size = npages * page_size;
	struct iovec to, from;
	char byte = 0;
	int wake[2];
	void *ptr;
	pid_t pid;

	ptr = mmap(NULL, 2 * size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	ASSERT_NE(ptr, MAP_FAILED);
	ASSERT_EQ(madvise(ptr, 2 * size, MADV_NOHUGEPAGE), 0);
	hmm_fill(ptr, npages, page_size, 1);

	ASSERT_EQ(pipe(wake), 0);
	pid = fork();
	if (!pid)
		_exit(read(wake[0], &byte, 1) != 1);
	ASSERT_GT(pid, 0);
	from = (struct iovec){ ptr, size };
	to = (struct iovec){ ptr + size, size };
	EXPECT_EQ(process_vm_readv(getpid(), &to, 1, &from, 1, 0), (ssize_t)size);
	ASSERT_EQ(write(wake[1], &byte, 1), 1);
	ASSERT_EQ(waitpid(pid, NULL, 0), pid);

	ASSERT_EQ(hmm_free_in_child(ptr, size), 0);
	EXPECT_EQ(hmm_lost_by_reclaim(ptr, npages, page_size, 1), 0);
	munmap(ptr, 2 * size);
}
