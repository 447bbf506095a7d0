// SPDX-License-Identifier: GPL-2.0-only
/*
 * Allocation on a full device: only pages that migrate need room, and tasks that wait for room get
 * it in turn.
 *
 * Needs a device that is not too large (module parameter capacity), since the tests fill all of it.
 *
 * Covers: pages that are evicted for a range that is on the device already, or that cannot migrate;
 * huge pages that are split for want of a block that could be freed; a command that starves because
 * other tasks take the pages that were evicted for it; a process that is killed to make room.
 */
#include "hmm_ref_utils.h"

#define HUGE_ORDER	9

FIXTURE(room)
{
	struct leak_check leak;
	int fd;
	unsigned int nr;	/* of the smallest device */
	unsigned long npages;	/* pages of that device */
	bool large;		/* the device keeps huge pages whole */
	char *mem;		/* as large as the device */
};

FIXTURE_VARIANT(room)
{
	int advice;
};

FIXTURE_VARIANT_ADD(room, small) { .advice = MADV_NOHUGEPAGE };
FIXTURE_VARIANT_ADD(room, huge) { .advice = MADV_HUGEPAGE };

FIXTURE_SETUP(room)
{
	struct hmm_ref_info info;

	leak_check_begin(_metadata, &self->leak);
	self->npages = test_smallest_device(&self->leak, &self->nr);
	if (!self->npages)
		SKIP(return, "no device of at most %lu MiB (module parameter capacity)",
		     CAPACITY_MAX >> 20);
	if (self->npages % block_pages())
		SKIP(return, "a device with bad pages");
	self->fd = test_open(self->nr);
	test_info(self->fd, &info);
	self->large = info.out_folio_size > page_size();
	self->mem = test_map_blocks(self->npages / block_pages());
	ASSERT_EQ(0, madvise(self->mem, self->npages * page_size(), variant->advice));
}

FIXTURE_TEARDOWN_PARENT(room)
{
	leak_check_end(_metadata, &self->leak);
}

#define thp_splits()	vm_counter("thp_split_page")

static unsigned long long __test_evicted(struct __test_metadata *_metadata, int fd)
{
	struct hmm_ref_stats stats;

	test_stats(fd, &stats);
	return stats.out_evicted;
}

#define test_evicted()	__test_evicted(_metadata, self->fd)

/* Migrates window by window. Returns the sums of the counts. */
static struct hmm_ref_migrate __test_by_window(struct __test_metadata *_metadata, int fd,
					       char *mem, unsigned long npages)
{
	struct hmm_ref_migrate cmd, sum = {};
	unsigned long i, n;

	for (i = 0; i < npages; i += n) {
		n = npages - i < block_pages() ? npages - i : block_pages();
		test_migrate(fd, HMM_REF_TO_DEVICE, mem + i * page_size(), n * page_size(),
			     &cmd);
		sum.out_migrated += cmd.out_migrated;
		sum.out_already += cmd.out_already;
		sum.out_skipped += cmd.out_skipped;
	}
	return sum;
}

/* Fills the device with pages of the test. */
static void __test_fill(struct __test_metadata *_metadata, int fd, char *mem,
			unsigned long npages)
{
	struct hmm_ref_stats stats;

	fill_pages(mem, npages, 1);
	__test_by_window(_metadata, fd, mem, npages);
	test_stats(fd, &stats);
	ASSERT_EQ(npages, stats.out_pages_in_use);
}

#define test_fill()	__test_fill(_metadata, self->fd, self->mem, self->npages)

/* ---- resident pages -------------------------------------------------------------- */

TEST_F(room, resident_again)
{
	unsigned long long evicted;
	struct hmm_ref_migrate sum;
	long splits;

	test_fill();
	evicted = test_evicted();
	splits = thp_splits();
	sum = __test_by_window(_metadata, self->fd, self->mem, self->npages);
	EXPECT_EQ(0, sum.out_migrated);
	EXPECT_EQ(self->npages, sum.out_already);
	test_migrate(self->fd, HMM_REF_TO_DEVICE, self->mem, self->npages * page_size(), &sum);
	EXPECT_EQ(0, sum.out_migrated);
	EXPECT_EQ(self->npages, sum.out_already);
	EXPECT_EQ(evicted, test_evicted());
	EXPECT_EQ(splits, thp_splits());
	test_dev_data(self->fd, self->mem, self->npages, 1);
}

/*
 * Half of a window is on the device. The other half migrates, and pages of other memory are
 * evicted.
 */
TEST_F(room, half_resident)
{
	unsigned long half = block_pages() / 2;
	char *mine = test_map_pages(block_pages());
	char *other = self->mem + block_size();
	struct hmm_ref_migrate cmd;

	if (self->npages < 3 * block_pages())
		SKIP(return, "a device of less than three blocks");
	/* The resident half was filled first, so it is the next to be evicted. */
	fill_pages(mine, block_pages(), 2);
	test_to_device(self->fd, mine, half);
	__test_by_window(_metadata, self->fd, other, self->npages - block_pages());
	__test_by_window(_metadata, self->fd, self->mem, block_pages() - half);
	test_migrate(self->fd, HMM_REF_TO_DEVICE, mine, block_size(), &cmd);
	EXPECT_EQ(half, cmd.out_migrated);
	EXPECT_EQ(half, cmd.out_already);
	test_pages_at(self->fd, mine, block_pages(), HMM_REF_PAGE_DEVICE, block_pages());
	test_dev_data(self->fd, mine, block_pages(), 2);
}

/* ---- pages that cannot migrate --------------------------------------------------- */

static void __test_stays(struct __test_metadata *_metadata, int fd, char *mem,
			 unsigned long npages)
{
	unsigned long long evicted = __test_evicted(_metadata, fd);
	struct hmm_ref_migrate cmd;

	ASSERT_NE(MAP_FAILED, mem);
	test_migrate(fd, HMM_REF_TO_DEVICE, mem, npages * page_size(), &cmd);
	EXPECT_EQ(npages, cmd.out_skipped);
	EXPECT_EQ(evicted, __test_evicted(_metadata, fd));
}

#define test_stays(mem, n)	__test_stays(_metadata, self->fd, mem, n)

/*
 * Without a fix of the core, the driver leaves mergeable pages, because they may be merged at any
 * moment.
 */
static bool __test_mergeable_stay(struct __test_metadata *_metadata, int fd)
{
	char *mem = test_map_pages(1);
	struct hmm_ref_migrate cmd;

	memset(mem, 1, page_size());
	if (madvise(mem, page_size(), MADV_MERGEABLE))
		return false;
	test_migrate(fd, HMM_REF_TO_DEVICE, mem, page_size(), &cmd);
	ASSERT_EQ(0, munmap(mem, page_size()));
	return !cmd.out_migrated;
}

#define test_mergeable_stay()	__test_mergeable_stay(_metadata, self->fd)

/* The command looks at the VMA before it makes room, so none is made for these pages. */
TEST_F(room, no_room_for_unmovable_pages)
{
	bool mergeable_stay = test_mergeable_stay();
	unsigned long n = 2 * block_pages(), long_ago;
	char *mem = test_map_blocks(2);
	struct hmm_ref_migrate cmd;
	int file;

	test_fill();
	long_ago = test_evicted();
	memset(mem, 1, 2 * block_size());
	test_err_migrate(EFAULT, self->fd, HMM_REF_TO_DEVICE, (void *)page_size(), page_size(),
			 &cmd);
	EXPECT_EQ(long_ago, test_evicted());
	ASSERT_EQ(0, mprotect(mem, 2 * block_size(), PROT_NONE));
	test_stays(mem, n);
	ASSERT_EQ(0, mprotect(mem, 2 * block_size(), PROT_READ | PROT_WRITE));
	if (mergeable_stay && !madvise(mem, 2 * block_size(), MADV_MERGEABLE))
		test_stays(mem, n);
	test_stays(test_map_shared(2 * block_size()), n);

	file = open("/proc/self/exe", O_RDONLY);
	ASSERT_LE(0, file);
	mem = mmap(NULL, 4 * page_size(), PROT_READ, MAP_PRIVATE | MAP_POPULATE, file, 0);
	test_stays(mem, 4);
	close(file);
}

/*
 * Room is made for the pages that migrate, not for the whole window: a few pages are free, and that
 * is enough for the few that no other file has exclusive access to.
 */
TEST_F(room, few_pages_of_a_window)
{
	char *mem = test_map_blocks(2);
	unsigned long long evicted;
	struct hmm_ref_migrate cmd;
	long few, i;
	int other;

	if (variant->advice == MADV_HUGEPAGE)
		SKIP(return, "a huge page is freed as a whole");
	other = test_open(self->nr);
	ASSERT_EQ(0, madvise(mem, 2 * block_size(), MADV_NOHUGEPAGE));
	memset(mem, 1, 2 * block_size());
	test_exclusive(other, mem, 2 * block_pages());
	for (i = 0; i < 16; i++)
		touch_write(mem + i * block_size() / 8, 2);
	few = pages_at(self->fd, mem, 2 * block_pages(), HMM_REF_PAGE_SYSTEM);
	ASSERT_LE(16, few);
	ASSERT_GT(block_pages(), few);
	test_fill();
	ASSERT_EQ(0, madvise(self->mem, few * page_size(), MADV_DONTNEED));
	evicted = test_evicted();
	test_migrate(self->fd, HMM_REF_TO_DEVICE, mem, 2 * block_size(), &cmd);
	EXPECT_EQ(few, cmd.out_migrated);
	EXPECT_EQ(evicted, test_evicted());
}

/* ---- turns ----------------------------------------------------------------------- */

struct rival {
	unsigned int nr;
	char *mem;
	unsigned long npages, piece;
	unsigned long *stop, *rounds;
};

/* Migrates its memory to the device, part by part, and always finds the device full. */
static int compete(void *arg)
{
	struct rival *rival = arg;
	int fd = hmm_ref_open(rival->nr);
	struct hmm_ref_migrate cmd;
	unsigned long i;

	if (!CHECK(fd >= 0))
		return 1;
	memset(rival->mem, 1, rival->npages * page_size());
	for (i = 0; !counter_get(rival->stop); i += rival->piece) {
		char *at = rival->mem + i % rival->npages * page_size();
		int rc = _test_migrate(fd, HMM_REF_TO_DEVICE, at, rival->piece * page_size(),
				       &cmd);

		if (!CHECK(!rc))
			return 1;
		counter_add(rival->rounds, 1);
		/* Migrates the memory back to system memory for the next round. */
		if (rival->piece == 1)
			touch_write(at, 1);
	}
	return 0;
}

/* One task that needs whole blocks makes progress beside four that need single pages. */
TEST_F(room, many_small_rivals)
{
	unsigned long long deadline;
	unsigned long *counters = test_map_shared(page_size());
	struct rival rivals[5];
	pid_t pids[5];
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(rivals); i++) {
		rivals[i] = (struct rival){
			.nr = self->nr,
			.npages = i ? block_pages() : self->npages + 2 * block_pages(),
			.piece = i ? 1 : block_pages(),
			.stop = counters,
			.rounds = counters + 1 + i,
		};
		rivals[i].mem = test_map_blocks(rivals[i].npages / block_pages());
		ASSERT_EQ(0, madvise(rivals[i].mem, rivals[i].npages * page_size(),
				     variant->advice));
	}
	for (i = 0; i < ARRAY_SIZE(rivals); i++) {
		pids[i] = child_start(compete, &rivals[i]);
		ASSERT_LT(0, pids[i]);
	}
	/* Until each has completed its rounds, on a host of any speed. */
	deadline = now_ms() + MEET_MS;
	for (i = 0; i < ARRAY_SIZE(rivals); i++)
		while (counter_get(rivals[i].rounds) < 2 * self->npages / block_pages() &&
		       now_ms() < deadline)
			usleep(10000);
	counter_set(counters, 1);
	for (i = 0; i < ARRAY_SIZE(rivals); i++) {
		EXPECT_EQ(0, child_wait(pids[i], 6 * PATIENCE_MS));
		EXPECT_LT(0, counter_get(rivals[i].rounds));
	}
	TH_LOG("%lu blocks; %lu, %lu, %lu and %lu pages", counters[1], counters[2],
	       counters[3], counters[4], counters[5]);
}

/* ---- huge pages ------------------------------------------------------------------ */

static int there_and_back(void *arg)
{
	struct rival *rival = arg;
	int fd = hmm_ref_open(rival->nr);
	struct hmm_ref_migrate cmd;
	unsigned int i;

	if (!CHECK(fd >= 0))
		return 1;
	memset(rival->mem, 1, rival->npages * page_size());
	for (i = 0; i < 60; i++) {
		if (!CHECK(!_test_migrate(fd, HMM_REF_TO_DEVICE, rival->mem,
					  rival->npages * page_size(), &cmd)) ||
		    !CHECK(!_test_migrate(fd, HMM_REF_TO_SYSTEM, rival->mem,
					  rival->npages * page_size(), &cmd)))
			return 1;
		counter_add(rival->rounds, 1);
	}
	return 0;
}

/* Two processes take blocks from the same list: no huge page of either is split. */
TEST_F(room, huge_pages_of_two_processes)
{
	unsigned long *counters = test_map_shared(page_size());
	struct rival rivals[2];
	pid_t pids[2];
	unsigned int i;
	long splits;

	if (variant->advice != MADV_HUGEPAGE || !self->large)
		SKIP(return, "no huge pages");
	for (i = 0; i < 2; i++) {
		rivals[i] = (struct rival){ .nr = self->nr, .rounds = counters + i };
		rivals[i].npages = self->npages / block_pages() / 2 * block_pages();
		rivals[i].mem = test_map_blocks(rivals[i].npages / block_pages());
		ASSERT_EQ(0, madvise(rivals[i].mem, rivals[i].npages * page_size(),
				     MADV_HUGEPAGE));
	}
	splits = thp_splits();
	for (i = 0; i < 2; i++) {
		pids[i] = child_start(there_and_back, &rivals[i]);
		ASSERT_LT(0, pids[i]);
	}
	for (i = 0; i < 2; i++)
		EXPECT_EQ(0, child_wait(pids[i], 15 * PATIENCE_MS));
	EXPECT_EQ(splits, thp_splits());
}

/*
 * Half of the device is free, but no block is wholly free: a huge page gets a block all the same,
 * and stays whole.
 */
TEST_F(room, scattered)
{
	struct hmm_ref_page_state *states = calloc(block_pages(), sizeof(*states));
	char *mem = test_map_blocks(1);
	struct hmm_ref_snapshot snapshot;
	struct hmm_ref_migrate cmd;
	unsigned long i;
	long splits;

	if (variant->advice == MADV_HUGEPAGE || !self->large)
		SKIP(return, "it takes single pages, on a device that keeps huge ones");
	ASSERT_NE(NULL, states);
	test_fill();
	for (i = 0; i < self->npages; i += 2)
		ASSERT_EQ(0, madvise(self->mem + i * page_size(), page_size(), MADV_DONTNEED));
	ASSERT_EQ(0, madvise(mem, block_size(), MADV_HUGEPAGE));
	fill_pages(mem, block_pages(), 2);
	splits = thp_splits();
	test_migrate(self->fd, HMM_REF_TO_DEVICE, mem, block_size(), &cmd);
	EXPECT_EQ(block_pages(), cmd.out_migrated);
	EXPECT_EQ(splits, thp_splits());
	test_snapshot(self->fd, mem, block_size(), states, &snapshot);
	EXPECT_EQ(HMM_REF_PAGE_DEVICE, states[0].where);
	EXPECT_EQ(HUGE_ORDER, states[0].order);
	test_dev_data(self->fd, mem, block_pages(), 2);
	for (i = 1; i < self->npages; i += 2)
		ASSERT_TRUE(page_holds(self->mem + i * page_size(), 1, i));
}

/* A process that disables huge pages gets none for its holes. */
TEST_F(room, hole_of_a_process_without_thp)
{
	struct hmm_ref_page_state *states = calloc(block_pages(), sizeof(*states));
	struct hmm_ref_snapshot snapshot;
	struct hmm_ref_migrate cmd;

	if (variant->advice != MADV_HUGEPAGE)
		SKIP(return, "a mapping without huge pages anyway");
	ASSERT_NE(NULL, states);
	ASSERT_EQ(0, prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0));
	test_migrate(self->fd, HMM_REF_TO_DEVICE, self->mem, block_size(), &cmd);
	EXPECT_EQ(block_pages(), cmd.out_migrated);
	test_snapshot(self->fd, self->mem, block_size(), states, &snapshot);
	EXPECT_EQ(HMM_REF_PAGE_DEVICE, states[0].where);
	EXPECT_EQ(0, states[0].order);
	ASSERT_TRUE(page_is_zero(self->mem + page_size()));
}

/* ---- memory ---------------------------------------------------------------------- */

static long free_mib(void)
{
	static char text[8192];
	char *at;

	if (read_file("/proc/meminfo", text, sizeof(text)) < 0)
		return -1;
	at = strstr(text, "MemFree:");
	return at ? strtol(at + strlen("MemFree:"), NULL, 10) / 1024 : -1;
}

/* Returns the reserve of the system in MiB. Below it, the system selects a process to kill. */
static long reserve_mib(void)
{
	char text[32];

	if (read_file("/proc/sys/vm/min_free_kbytes", text, sizeof(text)) < 0)
		return -1;
	return strtol(text, NULL, 10) / 1024;
}

/* Uses all memory except a little, and is the first process to be killed for more. */
static int take_memory(void *arg)
{
	long leave = *(long *)arg;
	int ready = ((long *)arg)[1];

	prctl(PR_SET_NAME, "take_memory");
	if (!CHECK(!write_file("/proc/self/oom_score_adj", "1000")))
		return 1;
	while (free_mib() > leave) {
		bool most = free_mib() > leave + 64;
		char *mem = most ? map_blocks(8) : map_pages(64);

		if (!CHECK(mem != MAP_FAILED))
			return 1;
		if (most)
			madvise(mem, 8 * block_size(), MADV_HUGEPAGE);
		memset(mem, 1, most ? 8 * block_size() : 64 * page_size());
	}
	event_post(ready);
	for (;;)
		pause();
}

/* Returns how often this program has invoked the OOM killer. */
static unsigned int oom_invoked(int log)
{
	char record[2048], name[16], who[64];
	unsigned int own = 0;

	prctl(PR_GET_NAME, name);
	snprintf(who, sizeof(who), ";%s invoked oom-killer", name);
	while (log_read(log, record, sizeof(record)))
		own += !!strstr(record, who);
	return own;
}

/*
 * Room for a process with plenty of memory is made by evicting pages of another one, to a system
 * that is short of memory: the command fails, and invokes no OOM killer. Other tasks that are short
 * of memory may have the child killed.
 */
TEST_F(room, without_memory)
{
	long args[2] = { 0, event_new() };
	unsigned long size = self->npages * page_size();
	char *holes = test_map_blocks(self->npages / block_pages());
	char *cushion = test_map_pages(1024);
	int log = log_open();
	struct hmm_ref_migrate cmd;
	unsigned long long end;
	unsigned long i;
	bool early = false;
	pid_t pid;
	int rc = 0;

	ASSERT_LE(0, log);
	if (size < 32UL << 20)
		SKIP(return, "a device of less than 32 MiB");
	if (free_mib() > 8192)
		SKIP(return, "too much memory to take all of it");
	test_fill();
	ASSERT_EQ(0, madvise(holes, size, MADV_NOHUGEPAGE));
	memset(cushion, 1, 1024 * page_size());
	/* The page tables of the holes are the process's own, and may invoke the OOM killer. */
	for (i = 0; i < size; i += block_size())
		touch_write(holes + i, 1);
	/* The kernel's reserve may be larger than it reports. The child is killed then. */
	args[0] = reserve_mib() + 12;
	ASSERT_TRUE(log_write(log, "hmm_ref test: OOM kills are expected"));
	pid = child_start(take_memory, args);
	ASSERT_LT(0, pid);
	for (end = now_ms() + MEET_MS; !early && !event_wait(args[1]); ) {
		early = waitpid(pid, NULL, WNOHANG) == pid;
		ASSERT_GT(end, now_ms());
	}
	if (!early) {
		rc = _test_migrate(self->fd, HMM_REF_TO_DEVICE, holes, size, &cmd);
		munmap(cushion, 1024 * page_size());
		child_kill(pid);
	}
	ASSERT_TRUE(log_write(log, "hmm_ref test: no more OOM kills"));
	if (early)
		SKIP(return, "the system was out of memory too early");
	EXPECT_EQ(0, oom_invoked(log));
	EXPECT_TRUE(!rc || rc == -ENOMEM);
	TH_LOG("%d, %llu of %lu pages", rc, cmd.out_migrated, self->npages);
	test_cpu_data(self->mem, self->npages, 1);
}

int main(int argc, char **argv)
{
	return hmm_ref_test_main(argc, argv);
}
