/* A page is written after clear_refs, and is not soft-dirty. */
TEST(clear_refs_while_migrating)
{
	unsigned long size = HMM_RACE_PAGES * getpagesize(), rounds = 0, dirty = HMM_RACE_PAGES;
	struct hmm_mover mover = { .step = getpagesize(), .npages = HMM_RACE_PAGES };
	time_t end = hmm_seconds() + HMM_RACE_SECONDS;
	pthread_t thread;
	int pagemap;

	mover.mem = mmap(NULL, size, PROT_READ | PROT_WRITE,
			 MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	ASSERT_NE(mover.mem, MAP_FAILED);
	madvise(mover.mem, size, MADV_NOHUGEPAGE);
	pagemap = open("/proc/self/pagemap", O_RDONLY);
	hmm_race_fill(&mover, 1);
	if (hmm_forget() || hmm_soft_dirty(pagemap, mover.mem))
		SKIP(return, "no soft-dirty bit");
	ASSERT_EQ(pthread_create(&thread, NULL, hmm_move_main, &mover), 0);
	while (dirty == HMM_RACE_PAGES && hmm_seconds() < end) {
		hmm_race_fill(&mover, 1);
		ASSERT_EQ(hmm_forget(), 0);
		hmm_race_fill(&mover, 2);
		dirty = hmm_count_soft_dirty(pagemap, mover.mem, HMM_RACE_PAGES);
		rounds++;
	}
	__atomic_store_n(&mover.stop, 1, __ATOMIC_RELEASE);
	pthread_join(thread, NULL);
	TH_LOG("%lu rounds, %lu moves", rounds, mover.moved);
	if (!mover.moved)
		SKIP(return, "pages do not move: one node");
	ASSERT_EQ(dirty, HMM_RACE_PAGES) {
		TH_LOG("written pages are not soft-dirty");
	}
	SKIP(return, "not met");
}
