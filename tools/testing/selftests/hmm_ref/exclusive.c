// SPDX-License-Identifier: GPL-2.0-only
/*
 * Exclusive access: which side has it, what takes it back, and that the data is right while the
 * mapping changes.
 *
 * Covers: an entry that is stored although the range was invalidated meanwhile, and leads to freed
 * memory; an invalidation that a client takes for its own, so that a second file of the process
 * keeps its mapping; an invalidation that includes the page behind the range; a retry that cannot
 * succeed after the first attempt has failed.
 *
 * HMM_REF_SECONDS is how long the race lasts (default 2).
 */

#include "hmm_ref_utils.h"

#define PAGES	16UL

FIXTURE(exclusive)
{
	struct leak_check leak;
	int fd;
	char *mem;
	unsigned long size;
};

FIXTURE_SETUP(exclusive)
{
	leak_check_begin(_metadata, &self->leak);
	self->fd = test_open(0);
	self->mem = test_map_pages(PAGES);
	self->size = PAGES * page_size();
	fill_pages(self->mem, PAGES, 1);
}

FIXTURE_TEARDOWN_PARENT(exclusive)
{
	leak_check_end(_metadata, &self->leak);
}

/* Fails at the first page, with no page done. */
#define test_refused(err, mem) do { \
	struct hmm_ref_exclusive _cmd; \
\
	ASSERT_EQ(-(err), _test_exclusive(self->fd, mem, page_size(), &_cmd)); \
	ASSERT_EQ(0, _cmd.out_pages); \
} while (0)

/* ---- acquiring and losing access ------------------------------------------------- */

TEST_F(exclusive, snapshot)
{
	struct hmm_ref_page_state states[PAGES];
	struct hmm_ref_stats before, after;
	struct hmm_ref_snapshot cmd;
	unsigned int i;

	test_held(self->fd, self->mem, PAGES, 0);
	test_stats(self->fd, &before);
	test_exclusive(self->fd, self->mem, PAGES);
	test_stats(self->fd, &after);
	ASSERT_EQ(before.out_exclusive + PAGES, after.out_exclusive);
	test_snapshot(self->fd, self->mem, self->size, states, &cmd);
	for (i = 0; i < PAGES; i++) {
		/* The CPU's entry allows neither writing nor reading. */
		ASSERT_EQ(HMM_REF_PAGE_SYSTEM, states[i].where);
		ASSERT_EQ(HMM_REF_PAGE_EXCLUSIVE | HMM_REF_PAGE_MAPPED |
			  HMM_REF_PAGE_DEV_WRITE, states[i].flags);
	}
	/* A second time has no further effect. */
	test_exclusive(self->fd, self->mem, PAGES);
	test_stats(self->fd, &before);
	ASSERT_EQ(after.out_exclusive, before.out_exclusive);
	test_cpu_data(self->mem, PAGES, 1);
	test_held(self->fd, self->mem, PAGES, 0);
}

TEST_F(exclusive, holes)
{
	ASSERT_EQ(0, madvise(self->mem, self->size, MADV_DONTNEED));
	touch_read(self->mem);
	test_exclusive(self->fd, self->mem, PAGES);
	test_held(self->fd, self->mem, PAGES, PAGES);
	ASSERT_EQ(0, dev_fill_pages(self->fd, self->mem, PAGES, 2));
	test_held(self->fd, self->mem, PAGES, PAGES);
	test_cpu_data(self->mem, PAGES, 2);
}

/* The CPU takes back the page that it touches, and no other. */
TEST_F(exclusive, cpu_takes_back)
{
	static const unsigned long touched[] = { 0, 7, 8, PAGES - 1 };
	unsigned int i, write;

	for (write = 0; write < 2; write++) {
		for (i = 0; i < ARRAY_SIZE(touched); i++) {
			char *page = self->mem + touched[i] * page_size();

			test_exclusive(self->fd, self->mem, PAGES);
			if (write)
				touch_write(page, *(char *)page);
			else
				touch_read(page);
			test_held(self->fd, self->mem, PAGES, PAGES - 1);
			test_held(self->fd, page, 1, 0);
		}
	}
	test_dev_data(self->fd, self->mem, PAGES, 1);
	test_cpu_data(self->mem, PAGES, 1);
}

/* The device keeps its permission to read and write. */
TEST_F(exclusive, device_access)
{
	struct hmm_ref_access cmd;
	char *buf = test_map_pages(PAGES);

	test_exclusive(self->fd, self->mem, PAGES);
	ASSERT_EQ(0, _test_access(self->fd, HMM_REF_IOC_READ, self->mem, self->size,
				  buf, &cmd));
	ASSERT_EQ(0, cmd.out_faults);
	test_cpu_data(buf, PAGES, 1);
	fill_pages(buf, PAGES, 2);
	ASSERT_EQ(0, _test_access(self->fd, HMM_REF_IOC_WRITE, self->mem, self->size,
				  buf, &cmd));
	ASSERT_EQ(0, cmd.out_faults);
	test_held(self->fd, self->mem, PAGES, PAGES);
	test_cpu_data(self->mem, PAGES, 2);
}

/* A device fault maps ahead, but does not replace exclusive entries. */
TEST_F(exclusive, device_fault_nearby)
{
	char *middle = self->mem + 4 * page_size();

	test_exclusive(self->fd, middle, 2);
	test_dev_data(self->fd, self->mem, PAGES, 1);
	test_held(self->fd, self->mem, PAGES, 2);
	test_held(self->fd, middle, 2, 2);
	test_flagged(self->fd, self->mem, PAGES, HMM_REF_PAGE_MAPPED, PAGES);
}

/* Entries of another file of the process are dropped, and it can take the page over. */
TEST_F(exclusive, two_clients)
{
	int other = test_open(0);

	test_dev_data(other, self->mem, PAGES, 1);
	ASSERT_EQ(0, dev_fill_pages(other, self->mem, PAGES, 2));
	test_flagged(other, self->mem, PAGES, HMM_REF_PAGE_DEV_WRITE, PAGES);
	test_exclusive(self->fd, self->mem, PAGES);
	test_flagged(other, self->mem, PAGES, HMM_REF_PAGE_MAPPED, 0);
	test_pages_at(other, self->mem, PAGES, HMM_REF_PAGE_NONE, PAGES);

	test_exclusive(other, self->mem, PAGES / 2);
	test_held(other, self->mem, PAGES, PAGES / 2);
	test_held(self->fd, self->mem, PAGES, PAGES / 2);
	/* A plain read takes the page over, too. */
	test_dev_data(other, self->mem, PAGES, 2);
	test_held(self->fd, self->mem, PAGES, 0);
	test_cpu_data(self->mem, PAGES, 2);
}

TEST_F(exclusive, two_devices)
{
	int other;

	if (self->leak.devices < 2)
		SKIP(return, "needs two devices (ndevices=2)");
	other = test_open(1);
	ASSERT_EQ(0, dev_fill_pages(other, self->mem, PAGES, 2));
	test_exclusive(self->fd, self->mem, PAGES);
	test_flagged(other, self->mem, PAGES, HMM_REF_PAGE_MAPPED, 0);
	test_exclusive(other, self->mem, PAGES);
	test_held(self->fd, self->mem, PAGES, 0);
	ASSERT_EQ(0, dev_fill_pages(other, self->mem, PAGES, 3));
	test_dev_data(self->fd, self->mem, PAGES, 3);
	test_held(other, self->mem, PAGES, 0);
}

/* Pages on the device stay there, unless it is another device. */
TEST_F(exclusive, device_pages)
{
	struct hmm_ref_migrate cmd;

	test_to_device(self->fd, self->mem, PAGES / 2);
	test_exclusive(self->fd, self->mem, PAGES);
	test_pages_at(self->fd, self->mem, PAGES, HMM_REF_PAGE_DEVICE, PAGES / 2);
	test_held(self->fd, self->mem, PAGES, PAGES / 2);
	/* Exclusive pages do not migrate. */
	test_migrate(self->fd, HMM_REF_TO_DEVICE, self->mem, self->size, &cmd);
	EXPECT_EQ(PAGES / 2, cmd.out_already);
	EXPECT_EQ(PAGES / 2, cmd.out_skipped);
	test_cpu_data(self->mem, PAGES, 1);
	if (self->leak.devices < 2)
		return;
	test_to_device(test_open(1), self->mem, PAGES);
	test_exclusive(self->fd, self->mem, PAGES);
	test_held(self->fd, self->mem, PAGES, PAGES);
	test_cpu_data(self->mem, PAGES, 1);
}

/* The first attempt splits the huge page and fails for that reason. The next one does not fail. */
TEST_F(exclusive, huge_page)
{
	char *mem = test_map_blocks(1);
	int tries = 3;

	ASSERT_EQ(0, madvise(mem, block_size(), MADV_HUGEPAGE));
	fill_pages(mem, block_pages(), 1);
	/* khugepaged may take some pages back (__collapse_huge_page_swapin()). */
	do {
		test_exclusive(self->fd, mem, block_pages());
	} while (pages_flagged(self->fd, mem, block_pages(), HMM_REF_PAGE_EXCLUSIVE) !=
		 (long)block_pages() && --tries);
	ASSERT_NE(0, tries);
	ASSERT_EQ(0, dev_fill_pages(self->fd, mem, block_pages(), 2));
	test_cpu_data(mem, block_pages(), 2);
}

/* ---- mappings that are refused --------------------------------------------------- */

TEST_F(exclusive, file_mappings)
{
	int memfd = memfd_create("exclusive", MFD_CLOEXEC);
	char *mem;

	ASSERT_LE(0, memfd);
	ASSERT_EQ(self->size, write(memfd, self->mem, self->size));
	mem = __test_map(_metadata, mmap(NULL, self->size, PROT_READ | PROT_WRITE,
					 MAP_SHARED, memfd, 0));
	test_refused(EINVAL, mem);
	test_refused(EINVAL, test_map_shared(page_size()));
	test_cpu_data(mem, PAGES, 1);

	/* A private mapping gets its own copies of the pages. */
	mem = __test_map(_metadata, mmap(NULL, self->size, PROT_READ | PROT_WRITE,
					 MAP_PRIVATE, memfd, 0));
	test_exclusive(self->fd, mem, PAGES);
	ASSERT_EQ(0, dev_fill_pages(self->fd, mem, PAGES, 2));
	test_held(self->fd, mem, PAGES, PAGES);
	test_cpu_data(mem, PAGES, 2);
	ASSERT_EQ(self->size, pread(memfd, mem, self->size, 0));
	test_cpu_data(mem, PAGES, 1);
}

TEST_F(exclusive, hugetlb)
{
	char old[32], *mem;

	if (read_file("/proc/sys/vm/nr_hugepages", old, sizeof(old)) < 0 ||
	    write_file("/proc/sys/vm/nr_hugepages", "2"))
		SKIP(return, "no hugetlb (CONFIG_HUGETLBFS)");
	mem = mmap(NULL, block_size(), PROT_READ | PROT_WRITE,
		   MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB, -1, 0);
	if (mem == MAP_FAILED) {
		write_file("/proc/sys/vm/nr_hugepages", old);
		SKIP(return, "no huge pages can be allocated");
	}
	fill_pages(mem, PAGES, 1);
	EXPECT_EQ(-EINVAL, _test_make_exclusive(self->fd, mem, 1));
	EXPECT_EQ(0, bad_pages(mem, PAGES, 1));
	munmap(mem, block_size());
	write_file("/proc/sys/vm/nr_hugepages", old);
}

TEST_F(exclusive, protection)
{
	ASSERT_EQ(0, mprotect(self->mem, self->size, PROT_READ));
	test_refused(EPERM, self->mem);
	ASSERT_EQ(0, mprotect(self->mem, self->size, PROT_NONE));
	test_refused(EFAULT, self->mem);
	ASSERT_EQ(0, mprotect(self->mem, self->size, PROT_READ));
	test_held(self->fd, self->mem, PAGES, 0);
	test_cpu_data(self->mem, PAGES, 1);
	ASSERT_EQ(0, munmap(self->mem, self->size));
	test_refused(EFAULT, self->mem);
}

/* ---- changes of the mapping ------------------------------------------------------ */

TEST_F(exclusive, mprotect)
{
	char word[8] = "notmine";

	test_exclusive(self->fd, self->mem, PAGES);
	ASSERT_EQ(0, dev_fill_pages(self->fd, self->mem, PAGES, 2));
	ASSERT_EQ(0, mprotect(self->mem, self->size, PROT_READ));
	test_held(self->fd, self->mem, PAGES, 0);
	test_err_write(EPERM, self->fd, self->mem, sizeof(word), word);
	test_refused(EPERM, self->mem);
	test_cpu_data(self->mem, PAGES, 2);
	ASSERT_EQ(0, mprotect(self->mem, self->size, PROT_READ | PROT_WRITE));
	test_exclusive(self->fd, self->mem, PAGES);
	fill_pages(self->mem, PAGES, 3);
	test_dev_data(self->fd, self->mem, PAGES, 3);
}

TEST_F(exclusive, munmap_and_mremap)
{
	char *elsewhere = test_map_pages(PAGES);
	unsigned long half = self->size / 2;
	char word[8];

	test_exclusive(self->fd, self->mem, PAGES);
	ASSERT_EQ(0, dev_fill_pages(self->fd, self->mem, PAGES, 2));
	ASSERT_EQ(elsewhere + half,
		  mremap(self->mem + half, half, half, MREMAP_MAYMOVE | MREMAP_FIXED,
			 elsewhere + half));
	test_held(self->fd, self->mem, PAGES / 2, PAGES / 2);
	test_held(self->fd, elsewhere, PAGES, 0);
	test_err_read(EFAULT, self->fd, self->mem + half, sizeof(word), word);
	test_exclusive(self->fd, elsewhere + half, 1);
	ASSERT_EQ(0, bad_pages_from(elsewhere + half, PAGES / 2, 2, PAGES / 2));

	ASSERT_EQ(0, munmap(self->mem, page_size()));
	test_held(self->fd, self->mem, PAGES / 2, PAGES / 2 - 1);
	test_err_read(EFAULT, self->fd, self->mem, sizeof(word), word);
	ASSERT_EQ(0, bad_pages_from(self->mem + page_size(), PAGES / 2 - 1, 2, 1));
}

TEST_F(exclusive, dontneed)
{
	char *middle = self->mem + 4 * page_size();
	unsigned int i;

	test_exclusive(self->fd, self->mem, PAGES);
	ASSERT_EQ(0, madvise(middle, 2 * page_size(), MADV_DONTNEED));
	test_held(self->fd, self->mem, PAGES, PAGES - 2);
	for (i = 0; i < 2; i++)
		ASSERT_TRUE(page_is_zero(middle + i * page_size()));
	ASSERT_EQ(0, bad_pages(self->mem, 4, 1));
	ASSERT_EQ(0, bad_pages_from(self->mem + 6 * page_size(), PAGES - 6, 1, 6));
}

struct generation {
	int go;
	char *mem;
	unsigned int seed;
};

static int verify_generation(void *arg)
{
	struct generation *g = arg;

	return !CHECK(event_wait(g->go)) || !CHECK(!bad_pages(g->mem, PAGES, g->seed));
}

/* fork() takes the pages back. Afterwards parent and child have their own data. */
TEST_F(exclusive, fork)
{
	struct generation g = { .go = event_new(), .mem = self->mem, .seed = 2 };
	pid_t pid;

	test_exclusive(self->fd, self->mem, PAGES);
	ASSERT_EQ(0, dev_fill_pages(self->fd, self->mem, PAGES, 2));
	pid = child_start(verify_generation, &g);
	ASSERT_LT(0, pid);
	test_held(self->fd, self->mem, PAGES, 0);
	test_exclusive(self->fd, self->mem, PAGES);
	ASSERT_EQ(0, dev_fill_pages(self->fd, self->mem, PAGES, 3));
	event_post(g.go);
	ASSERT_EQ(0, child_wait(pid, PATIENCE_MS));
	test_cpu_data(self->mem, PAGES, 3);
}

/* The process does not notice that the device file is closed. */
TEST_F(exclusive, close)
{
	test_exclusive(self->fd, self->mem, PAGES);
	ASSERT_EQ(0, dev_fill_pages(self->fd, self->mem, PAGES, 2));
	ASSERT_EQ(0, close(self->fd));
	test_cpu_data(self->mem, PAGES / 2, 2);
	self->fd = test_open(0);
	test_exclusive(self->fd, self->mem, PAGES);
	test_cpu_data(self->mem, PAGES, 2);
}

/* ---- races with MADV_DONTNEED ---------------------------------------------------- */

#define RACE_PAGES	64UL

struct race {
	int fd;
	char *mem;
	unsigned long turn;	/* page that the device is about to get, plus one */
	unsigned long stop;
};

/* Discards each page at the moment when the device gets it. */
static int discard_main(void *arg)
{
	struct race *race = arg;
	unsigned int random = random_seed("HMM_REF_SEED");
	unsigned long seen = 0, turn, spin;

	run_on_cpu(1);
	while (!counter_get(&race->stop)) {
		turn = counter_get(&race->turn);
		if (turn == seen)
			continue;
		seen = turn;
		if (!turn)
			continue;
		for (spin = random_next(&random) % 4000; spin; spin--)
			__asm__ volatile("" ::: "memory");
		if (!CHECK(!madvise(race->mem + (turn - 1) * page_size(), page_size(),
				    MADV_DONTNEED)))
			return 1;
	}
	return 0;
}

/*
 * The device must not map a page that was discarded, whichever side was first: it reads the data
 * that the CPU writes afterwards.
 */
TEST_F(exclusive, dontneed_race)
{
	unsigned long long end = now_ms() + 1000 * env_number("HMM_REF_SECONDS", 2);
	unsigned long long deadline = end + MEET_MS;
	struct race race = { .fd = self->fd, .mem = test_map_pages(RACE_PAGES) };
	unsigned long i, rounds = 0, kept = 0, lost = 0;
	struct hmm_ref_stats before, after;
	struct worker worker;
	long held;

	test_stats(self->fd, &before);
	ASSERT_EQ(0, worker_start(&worker, discard_main, &race));
	run_on_cpu(0);
	do {
		fill_pages(race.mem, RACE_PAGES, 2 * rounds);
		for (i = 0; i < RACE_PAGES; i++) {
			counter_set(&race.turn, i + 1);
			ASSERT_EQ(0, _test_make_exclusive(self->fd,
							  race.mem + i * page_size(), 1));
		}
		/* The other side may be one page behind. */
		counter_set(&race.turn, 0);
		usleep(1000);
		held = pages_flagged(self->fd, race.mem, RACE_PAGES,
				     HMM_REF_PAGE_EXCLUSIVE);
		ASSERT_LE(0, held);
		kept += held;
		lost += RACE_PAGES - held;
		fill_pages(race.mem, RACE_PAGES, 2 * rounds + 1);
		test_dev_data(self->fd, race.mem, RACE_PAGES, 2 * rounds + 1);
		rounds++;
		test_stats(self->fd, &after);
	} while (now_ms() < end || ((!kept || !lost ||
		 after.out_retries == before.out_retries) && now_ms() < deadline));
	counter_set(&race.stop, 1);
	ASSERT_EQ(0, worker_wait(&worker));
	TH_LOG("%lu rounds: %lu pages kept, %lu lost, %llu attempts repeated", rounds,
	       kept, lost, after.out_retries - before.out_retries);
	EXPECT_LT(0, kept);
	EXPECT_LT(0, lost);
	EXPECT_LT(before.out_retries, after.out_retries);
}

int main(int argc, char **argv)
{
	return hmm_ref_test_main(argc, argv);
}
