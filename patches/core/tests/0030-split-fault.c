/*
 * A CPU fault of a page of a device folio that PTEs map: one fault brings it back, at
 * the first, a middle and the last page.
 */
#include <sys/resource.h>

static long hmm_faults(void)
{
	struct rusage usage;

	getrusage(RUSAGE_SELF, &usage);
	return usage.ru_minflt + usage.ru_majflt;
}

TEST_F(hmm, split_fault_moves_at_once)
{
	unsigned long size = read_pmd_pagesize();
	unsigned long npages = size / self->page_size, i, j;
	unsigned long touched[] = { 1, npages / 2 - 1, npages / 3, 0 };
	struct hmm_buffer *buffer;
	long before, faults;
	void *base, *mem;

	if (hmm_is_coherent_type(variant->device_number))
		SKIP(return, "a CPU maps coherent memory, and does not fault");
	for (j = 0; j < ARRAY_SIZE(touched); j++) {
		volatile int *word;
		int value;

		buffer = hmm_huge_buffer(size, &base);
		ASSERT_NE(buffer, NULL);
		mem = buffer->ptr;
		hmm_fill(mem, npages, self->page_size, 1);
		ASSERT_EQ(hmm_migrate_sys_to_dev(self->fd, buffer, npages), 0);
		ASSERT_EQ(buffer->cpages, npages);

		/* Splits the PMD. The folio stays large. */
		ASSERT_EQ(munmap(mem + size / 2, size / 2), 0);

		word = mem + touched[j] * self->page_size;
		hmm_faults();
		before = hmm_faults();
		value = *word;
		faults = hmm_faults() - before;
		EXPECT_EQ(value, 1 + touched[j]);
		EXPECT_EQ(faults, 1);

		for (i = 0; i < npages / 2; i++)
			EXPECT_EQ(*(int *)(mem + i * self->page_size), 1 + i);
		buffer->ptr = base;
		hmm_buffer_free(buffer);
	}
}
