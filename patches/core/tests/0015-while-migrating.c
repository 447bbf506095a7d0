/*
 * What is write-protected while it migrates: pages go to and fro between two nodes, no
 * device is needed. Met means failed; where it is not met in 15 s the test says so.
 */
#define HMM_RACE_PAGES	64
#define HMM_RACE_SECONDS 15

struct hmm_mover {
	char *mem;
	unsigned long step;	/* bytes from a page to the next */
	int npages;
	unsigned long moved;
	unsigned long stop;
};

static void *hmm_move_main(void *arg)
{
	struct hmm_mover *mover = arg;
	int nodes[HMM_RACE_PAGES], status[HMM_RACE_PAGES];
	void *pages[HMM_RACE_PAGES];
	int i, node = 0;

	while (!__atomic_load_n(&mover->stop, __ATOMIC_ACQUIRE)) {
		node = !node;
		for (i = 0; i < mover->npages; i++) {
			pages[i] = mover->mem + i * mover->step;
			nodes[i] = node;
			status[i] = -1;
		}
		if (!syscall(__NR_move_pages, 0, mover->npages, pages, nodes, status,
			     2 /* MPOL_MF_MOVE */) && status[0] == node)
			mover->moved++;
	}
	return NULL;
}

static time_t hmm_seconds(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec;
}

static void hmm_race_fill(struct hmm_mover *mover, int value)
{
	int i;

	for (i = 0; i < mover->npages; i++)
		*(volatile char *)(mover->mem + i * mover->step) = value;
}

/* PAGEMAP_SCAN says of pages that were not touched that they were written. */
static void hmm_scan_race(struct __test_metadata *_metadata, int npages,
			  unsigned long step, int flags)
{
	struct hmm_mover mover = { .step = step, .npages = npages };
	unsigned long size = npages * step, rounds = 0;
	time_t end = hmm_seconds() + HMM_RACE_SECONDS;
	pthread_t thread;
	int pagemap, uffd;
	long written = 0;

	mover.mem = mmap(NULL, size, PROT_READ | PROT_WRITE,
			 MAP_PRIVATE | MAP_ANONYMOUS | flags, -1, 0);
	if (mover.mem == MAP_FAILED)
		SKIP(return, "no huge page");
	if (!flags)
		madvise(mover.mem, size, MADV_NOHUGEPAGE);
	hmm_race_fill(&mover, 1);
	pagemap = open("/proc/self/pagemap", O_RDONLY);
	uffd = hmm_track(mover.mem, size);
	if (uffd < 0)
		SKIP(return, "no asynchronous write protection");
	ASSERT_EQ(pthread_create(&thread, NULL, hmm_move_main, &mover), 0);
	while (!written && hmm_seconds() < end) {
		hmm_race_fill(&mover, 1);
		hmm_nanosleep(hmm_random() % 3000000);
		written = hmm_written(pagemap, mover.mem, size);
		if (written < 0)
			break;
		hmm_nanosleep(1000000);
		written = hmm_written(pagemap, mover.mem, size);
		rounds++;
	}
	__atomic_store_n(&mover.stop, 1, __ATOMIC_RELEASE);
	pthread_join(thread, NULL);
	munmap(mover.mem, size);
	TH_LOG("%lu rounds, %lu moves", rounds, mover.moved);
	if (!mover.moved)
		SKIP(return, "pages do not move: one node");
	ASSERT_EQ(written, 0) {
		TH_LOG("untouched pages are called written");
	}
	SKIP(return, "not met");
}

TEST(scan_while_migrating)
{
	hmm_scan_race(_metadata, HMM_RACE_PAGES, getpagesize(), 0);
}

TEST(scan_while_hugetlb_migrates)
{
	hmm_scan_race(_metadata, 1, default_huge_page_size(), MAP_HUGETLB);
}
