#include <pthread.h>

/* Discards memory, a little after it is told to. */
struct hmm_discarder {
	void *mem;
	unsigned long size;
	unsigned long round;	/* counted up: do it */
	unsigned long done;
	unsigned long delay;
	int stop;
};

static void *hmm_discard(void *arg)
{
	struct hmm_discarder *d = arg;
	unsigned long round = 0, now, n;

	while (!__atomic_load_n(&d->stop, __ATOMIC_ACQUIRE)) {
		now = __atomic_load_n(&d->round, __ATOMIC_ACQUIRE);
		if (now == round)
			continue;
		round = now;
		for (n = d->delay; n; n--)
			__atomic_load_n(&d->stop, __ATOMIC_RELAXED);
		madvise(d->mem, d->size, MADV_DONTNEED);
		__atomic_store_n(&d->done, round, __ATOMIC_RELEASE);
	}
	return NULL;
}

/* TAINT_BAD_PAGE, by which KASAN marks a kernel that it has complained about. */
static int hmm_discard_complained(void)
{
	FILE *file = fopen("/proc/sys/kernel/tainted", "r");
	unsigned long taint = 0;

	if (!file)
		return -1;
	if (fscanf(file, "%lu", &taint) != 1)
		taint = 0;
	fclose(file);
	return !!(taint & (1 << 5));
}

/*
 * A huge page has lost its first page. While a migration splits what is left of it, another
 * thread discards all, and with CONFIG_PT_RECLAIM the page table goes. Entries are written
 * beyond the end of the driver's arrays, which KASAN sees.
 */
TEST_F_TIMEOUT(hmm, discard_while_split, 60)
{
	unsigned long size = read_pmd_pagesize();
	struct hmm_discarder discarder = { .size = size };
	struct hmm_buffer *buffer;
	pthread_t thread;
	time_t end;
	void *base;

	if (hmm_is_coherent_type(variant->device_number))
		SKIP(return, "the same for coherent memory");
	if (hmm_discard_complained())
		SKIP(return, "tainted already");
	buffer = hmm_huge_buffer(size, &base);
	ASSERT_NE(buffer, NULL);
	discarder.mem = buffer->ptr;
	ASSERT_EQ(pthread_create(&thread, NULL, hmm_discard, &discarder), 0);
	for (end = time(NULL) + 15; time(NULL) < end && !hmm_discard_complained();) {
		memset(buffer->ptr, 1, size);
		madvise(buffer->ptr, self->page_size, MADV_DONTNEED);
		discarder.delay = rand() % 20000;
		__atomic_fetch_add(&discarder.round, 1, __ATOMIC_RELEASE);
		hmm_dmirror_cmd(self->fd, HMM_DMIRROR_MIGRATE_TO_DEV, buffer,
				size >> self->page_shift);
		while (__atomic_load_n(&discarder.done, __ATOMIC_ACQUIRE) !=
		       discarder.round)
			sched_yield();
	}
	__atomic_store_n(&discarder.stop, 1, __ATOMIC_RELEASE);
	pthread_join(thread, NULL);
	EXPECT_EQ(hmm_discard_complained(), 0);
	if (!hmm_discard_complained())
		SKIP(return, "no complaint of KASAN: not met, or not there");
}
