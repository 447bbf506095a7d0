/* What the tests below share. */
#include <linux/fs.h>
#include <sys/wait.h>

static struct hmm_buffer *hmm_huge_buffer(unsigned long size, void **base)
{
	struct hmm_buffer *buffer;

	buffer = hmm_buffer_alloc(2 * size, size, PROT_READ | PROT_WRITE,
				  MAP_PRIVATE | MAP_ANONYMOUS, -1);
	if (!buffer)
		return NULL;
	*base = buffer->ptr;
	buffer->ptr = (void *)ALIGN((uintptr_t)buffer->ptr, size);
	if (madvise(buffer->ptr, size, MADV_HUGEPAGE)) {
		buffer->ptr = *base;
		hmm_buffer_free(buffer);
		return NULL;
	}
	return buffer;
}

/* Every page is told apart by its first word. */
static void hmm_fill(void *mem, unsigned long npages, unsigned int page_size, int seed)
{
	unsigned long i;

	for (i = 0; i < npages; i++)
		*(int *)(mem + i * page_size) = seed + i;
}
