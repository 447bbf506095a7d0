// SPDX-License-Identifier: GPL-2.0-only
/*
 * SNAPSHOT of ranges with more than present pages: hugetlb, whose non-present entries also have a
 * page frame number; ranges that change during the walk; and the reason for a page that it does not
 * find.
 *
 * Covers: a struct page made from an entry that has none, from a hole or from a swap entry; states
 * within one window that are from two different times.
 *
 * HMM_REF_SECONDS is how long each race lasts (default 2).
 */
#include <glob.h>

#include <linux/mempolicy.h>

#include "hmm_ref_uffd.h"
#include "hmm_ref_utils.h"

#define NODES		2
#define HUGE		4	/* huge pages of a node */

static unsigned long long race_end(void)
{
	return now_ms() + 1000 * env_number("HMM_REF_SECONDS", 2);
}

/* Reads the states of a block with one SNAPSHOT. Returns -EBUSY when they keep changing. */
static int look(int fd, const void *mem, struct hmm_ref_page_state *states)
{
	struct hmm_ref_snapshot cmd;
	int rc;

	memset(states, 0xcc, block_pages() * sizeof(*states));
	rc = _test_snapshot(fd, mem, block_size(), states, &cmd);
	return rc ? rc : cmd.out_pages == block_pages() ? 0 : -EPROTO;
}

/*
 * Returns how many pages of a block differ from the first one in @where, @order or CPU permissions.
 */
static unsigned long odd_ones(const struct hmm_ref_page_state *states)
{
	unsigned long i, odd = 0;

	for (i = 1; i < block_pages(); i++)
		odd += states[i].where != states[0].where ||
		       states[i].order != states[0].order ||
		       (states[i].flags ^ states[0].flags) & HMM_REF_PAGE_WRITE;
	return odd;
}

/* Maps memory of a PCI device, which has no struct pages. Returns NULL if there is no device. */
static char *map_io(void)
{
	char *mem = MAP_FAILED;
	glob_t bars;
	size_t i;
	int fd;

	if (glob("/sys/bus/pci/devices/*/resource[0-5]", 0, NULL, &bars))
		return NULL;
	for (i = 0; mem == MAP_FAILED && i < bars.gl_pathc; i++) {
		fd = open(bars.gl_pathv[i], O_RDONLY | O_CLOEXEC);
		if (fd < 0)
			continue;
		mem = mmap(NULL, page_size(), PROT_READ, MAP_SHARED, fd, 0);
		close(fd);
	}
	globfree(&bars);
	return mem == MAP_FAILED ? NULL : mem;
}

/* ---- hugetlb --------------------------------------------------------------------- */

FIXTURE(hugetlb)
{
	struct leak_check leak;
	struct hmm_ref_page_state *states;
	unsigned int nodes;
	char old[NODES][16];
	char *mem;
	int fd;
};

static void pool_path(char *path, size_t size, unsigned int node)
{
	snprintf(path, size,
		 "/sys/devices/system/node/node%u/hugepages/hugepages-%lukB/nr_hugepages",
		 node, block_size() / 1024);
}

/* Returns how many nodes have as many huge pages as the tests need. */
static unsigned int fill_pools(char old[NODES][16])
{
	char path[128], text[16];
	unsigned int node;

	for (node = 0; node < NODES; node++) {
		pool_path(path, sizeof(path), node);
		if (read_file(path, old[node], sizeof(old[node])) < 0)
			break;
		snprintf(text, sizeof(text), "%u", HUGE);
		write_file(path, text);
		if (read_file(path, text, sizeof(text)) < 0 || atoi(text) < HUGE)
			break;
	}
	return node;
}

FIXTURE_SETUP(hugetlb)
{
	self->nodes = fill_pools(self->old);
	if (!self->nodes)
		SKIP(return, "no huge pages of a block (CONFIG_HUGETLBFS)");
	leak_check_begin(_metadata, &self->leak);
	self->fd = test_open(0);
	self->states = calloc(block_pages(), sizeof(*self->states));
	ASSERT_NE(NULL, self->states);
	self->mem = __test_map(_metadata, mmap(NULL, 2 * block_size(), PROT_READ | PROT_WRITE,
					       MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB,
					       -1, 0));
	/* With the first page, there is a page table for the second one. */
	fill_pages(self->mem, block_pages(), 1);
}

FIXTURE_TEARDOWN_PARENT(hugetlb)
{
	char path[128];
	unsigned int node;

	for (node = 0; node < self->nodes; node++) {
		pool_path(path, sizeof(path), node);
		write_file(path, self->old[node]);
	}
	leak_check_end(_metadata, &self->leak);
}

/* Checks that SNAPSHOT reports no page in the huge page. */
static void __test_nothing_at(struct __test_metadata *_metadata, int fd, const char *mem,
			      struct hmm_ref_page_state *states)
{
	unsigned long i;

	ASSERT_EQ(0, look(fd, mem, states));
	for (i = 0; i < block_pages(); i++) {
		ASSERT_EQ(HMM_REF_PAGE_NONE, states[i].where) {
			TH_LOG("page %lu", i);
		}
		ASSERT_EQ(0, states[i].flags);
		ASSERT_EQ(0, states[i].order);
	}
}

#define test_nothing_at(mem) __test_nothing_at(_metadata, self->fd, mem, self->states)

TEST_F(hugetlb, hole_beside_a_page)
{
	struct hmm_ref_migrate cmd;
	unsigned long i;

	ASSERT_EQ(0, look(self->fd, self->mem, self->states));
	for (i = 0; i < block_pages(); i++)
		ASSERT_EQ(HMM_REF_PAGE_SYSTEM, self->states[i].where);
	test_nothing_at(self->mem + block_size());
	test_err_migrate(EINVAL, self->fd, HMM_REF_TO_DEVICE, self->mem, 2 * block_size(),
			 &cmd);
	test_dev_data(self->fd, self->mem, block_pages(), 1);
	test_nothing_at(self->mem + block_size());
}

static void go_on(int sig)
{
}

/* Memory failure: the kernel unmaps the page and sends the process a signal. */
TEST_F(hugetlb, poisoned)
{
	char word[8];

	ASSERT_NE(SIG_ERR, signal(SIGBUS, go_on));
	fill_pages(self->mem + block_size(), 1, 2);
	if (madvise(self->mem + block_size(), block_size(), MADV_HWPOISON))
		SKIP(return, "no MADV_HWPOISON: %s", strerror(errno));
	test_nothing_at(self->mem + block_size());
	test_err_read(EFAULT, self->fd, self->mem + block_size(), sizeof(word), word);
	test_nothing_at(self->mem + block_size());
	test_dev_data(self->fd, self->mem, block_pages(), 1);
}

TEST_F(hugetlb, write_protected_hole)
{
	struct uffdio_writeprotect wp = {
		.range = { .start = (unsigned long)self->mem + block_size(),
			   .len = block_size() },
		.mode = UFFDIO_WRITEPROTECT_MODE_WP,
	};
	int uffd = uffd_watch(self->mem + block_size(), block_size(),
			      UFFD_FEATURE_PAGEFAULT_FLAG_WP | UFFD_FEATURE_WP_UNPOPULATED |
			      UFFD_FEATURE_WP_HUGETLBFS_SHMEM, UFFDIO_REGISTER_MODE_WP);

	if (uffd < 0)
		SKIP(return, "no write protection of hugetlb: %s", strerror(-uffd));
	ASSERT_EQ(0, ioctl(uffd, UFFDIO_WRITEPROTECT, &wp));
	test_nothing_at(self->mem + block_size());
}

TEST_F(hugetlb, poisoned_hole)
{
	struct uffdio_poison poison = {
		.range = { .start = (unsigned long)self->mem + block_size(),
			   .len = block_size() },
	};
	char word[8];
	int uffd = uffd_watch(self->mem + block_size(), block_size(), UFFD_FEATURE_POISON,
			      UFFDIO_REGISTER_MODE_MISSING);

	if (uffd < 0)
		SKIP(return, "no UFFDIO_POISON: %s", strerror(-uffd));
	ASSERT_EQ(0, ioctl(uffd, UFFDIO_POISON, &poison));
	test_nothing_at(self->mem + block_size());
	test_err_read(EFAULT, self->fd, self->mem + block_size(), sizeof(word), word);
	test_nothing_at(self->mem + block_size());
}

struct mover {
	char *mem;
	bool by_policy;
	unsigned long stop;
	unsigned long moved;
};

/* Returns the node that the huge page is on afterwards, or -errno. */
static int move_to(const struct mover *mover, int node)
{
	unsigned long nodes = 1UL << node;
	void *page = mover->mem;
	int status = -EINVAL;

	if (mover->by_policy &&
	    syscall(__NR_mbind, mover->mem, block_size(), MPOL_BIND, &nodes,
		    8 * sizeof(nodes), MPOL_MF_MOVE) && errno != EIO)
		return -errno;
	if (syscall(__NR_move_pages, 0, 1UL, &page, mover->by_policy ? NULL : &node, &status,
		    MPOL_MF_MOVE) < 0)
		return -errno;
	return status;
}

static int mover_main(void *arg)
{
	struct mover *mover = arg;
	int node = 0;

	run_on_cpu(1);
	while (!counter_get(&mover->stop)) {
		node = !node;
		counter_add(&mover->moved, move_to(mover, node) == node);
	}
	return 0;
}

/* A SNAPSHOT during a move finds all of the page, or nothing. */
static bool is_whole_or_nothing(const struct hmm_ref_page_state *states)
{
	bool is_page = states[0].where == HMM_REF_PAGE_SYSTEM;

	return !odd_ones(states) &&
	       (is_page || (states[0].where == HMM_REF_PAGE_NONE && !states[0].flags));
}

/*
 * The huge page moves between two nodes, by move_pages() and by policy, while the device looks at
 * it.
 */
TEST_F(hugetlb, moves_between_nodes)
{
	struct mover mover = { .mem = self->mem };
	unsigned long looks = 0, moved;
	struct hmm_ref_migrate cmd;
	unsigned long long end;
	struct worker worker;
	int round, rc = 0;

	if (self->nodes < NODES)
		SKIP(return, "needs two NUMA nodes with huge pages (scripts/vm.sh: NUMA=2)");
	run_on_cpu(0);
	for (round = 0; !rc && round < 2; round++) {
		moved = counter_get(&mover.moved);
		mover.by_policy = round;
		mover.stop = 0;
		ASSERT_EQ(0, worker_start(&worker, mover_main, &mover));
		end = race_end();
		while (!rc && (now_ms() < end || counter_get(&mover.moved) < moved + 3) &&
		       now_ms() < end + MEET_MS / 2) {
			rc = look(self->fd, self->mem, self->states);
			if (!rc && !CHECK(is_whole_or_nothing(self->states)))
				rc = -EPROTO;
			if (!rc && !(++looks % 16))
				rc = dev_bad_pages(self->fd, self->mem, 16, 1);
			if (!rc && _test_migrate(self->fd, HMM_REF_TO_DEVICE, self->mem,
						 block_size(), &cmd) != -EINVAL)
				rc = -EPROTO;
		}
		counter_set(&mover.stop, 1);
		EXPECT_EQ(0, worker_wait(&worker));
		EXPECT_LE(moved + 3, counter_get(&mover.moved));
	}
	ASSERT_EQ(0, rc);
	TH_LOG("%lu looks, %lu moves", looks, mover.moved);
	test_cpu_data(self->mem, block_pages(), 1);
}

/* ---- reasons for missing pages --------------------------------------------------- */

FIXTURE(why)
{
	struct leak_check leak;
	char *mem;
	int fd;
};

FIXTURE_SETUP(why)
{
	leak_check_begin(_metadata, &self->leak);
	self->fd = test_open(0);
	self->mem = test_map_blocks(1);
	fill_pages(self->mem, 4, 1);
}

FIXTURE_TEARDOWN_PARENT(why)
{
	leak_check_end(_metadata, &self->leak);
}

static void __test_why(struct __test_metadata *_metadata, int fd, const char *mem,
		       unsigned int where, unsigned int why)
{
	struct hmm_ref_page_state state;
	struct hmm_ref_snapshot cmd;

	memset(&state, 0xcc, sizeof(state));
	test_snapshot(fd, mem, page_size(), &state, &cmd);
	ASSERT_EQ(where, state.where) {
		TH_LOG("why %u, at %p", state.why, mem);
	}
	ASSERT_EQ(why, state.why);
	if (where == HMM_REF_PAGE_NONE || where == HMM_REF_PAGE_ERROR) {
		ASSERT_EQ(0, state.flags);
		ASSERT_EQ(0, state.order);
	}
}

#define test_why(mem, where, why) \
	__test_why(_metadata, self->fd, mem, HMM_REF_PAGE_ ## where, HMM_REF_WHY_ ## why)

TEST_F(why, by_the_mapping)
{
	char *io = map_io();

	test_why(self->mem, SYSTEM, ABSENT);
	test_why(self->mem + 4 * page_size(), NONE, ABSENT);
	ASSERT_EQ(0, mprotect(self->mem + page_size(), page_size(), PROT_NONE));
	test_why(self->mem + page_size(), ERROR, UNREADABLE);
	ASSERT_EQ(0, mprotect(self->mem + page_size(), page_size(), PROT_READ));
	test_why(self->mem + page_size(), SYSTEM, ABSENT);
	ASSERT_EQ(0, munmap(self->mem + 2 * page_size(), page_size()));
	test_why(self->mem + 2 * page_size(), ERROR, UNMAPPED);
	test_why(self->mem + 3 * page_size(), SYSTEM, ABSENT);
	if (io)
		test_why(io, ERROR, SPECIAL);
	else
		TH_LOG("no PCI device has memory to map");
}

TEST_F(why, exclusive)
{
	int other;

	test_exclusive(self->fd, self->mem, 1);
	test_why(self->mem, SYSTEM, ABSENT);
	other = test_open(0);
	close(self->fd);
	self->fd = other;
	test_why(self->mem, NONE, ABSENT);
}

/* A page that traps the next access is present, and SNAPSHOT reports no more than that. */
TEST_F(why, trapped)
{
#ifdef UFFDIO_RWPROTECT
	struct uffdio_rwprotect rwp = {
		.range = { .start = (unsigned long)self->mem, .len = 2 * page_size() },
		.mode = UFFDIO_RWPROTECT_MODE_RWP,
	};
	struct hmm_ref_migrate cmd;
	int uffd;

	uffd = uffd_watch(self->mem, 4 * page_size(), UFFD_FEATURE_RWP, UFFDIO_REGISTER_MODE_RWP);
	if (uffd < 0)
		SKIP(return, "no protection by userfaultfd: %s", strerror(-uffd));
	ASSERT_EQ(0, ioctl(uffd, UFFDIO_RWPROTECT, &rwp));
	test_why(self->mem, NONE, TRAPPED);
	test_why(self->mem + page_size(), NONE, TRAPPED);
	test_why(self->mem + 2 * page_size(), SYSTEM, ABSENT);
	test_migrate(self->fd, HMM_REF_TO_DEVICE, self->mem, 4 * page_size(), &cmd);
	EXPECT_EQ(0, cmd.out_migrated);
	EXPECT_EQ(4, cmd.out_skipped);
	close(uffd);
	test_why(self->mem, SYSTEM, ABSENT);
	test_cpu_data(self->mem, 4, 1);
#else
	SKIP(return, "no UFFDIO_RWPROTECT");
#endif
}

/* Private memory of another device is not reported, whatever the size of the page. */
TEST_F(why, on_another_device)
{
	struct hmm_ref_info info;
	unsigned long i;
	int other;

	if (hmm_ref_count() < 2)
		SKIP(return, "needs two devices (module parameter ndevices)");
	other = test_open(1);
	test_info(other, &info);
	if (info.out_memory_type != HMM_REF_MEMORY_PRIVATE)
		SKIP(return, "the other device is not private");
	test_to_device(other, self->mem, 2);
	for (i = 0; i < 2; i++)
		test_why(self->mem + i * page_size(), NONE, ABSENT);
	if (madvise(self->mem, block_size(), MADV_HUGEPAGE))
		SKIP(return, "no transparent huge pages");
	ASSERT_EQ(0, madvise(self->mem, block_size(), MADV_DONTNEED));
	fill_pages(self->mem, block_pages(), 1);
	test_to_device(other, self->mem, block_pages());
	for (i = 0; i < block_pages(); i++)
		test_why(self->mem + i * page_size(), NONE, ABSENT);
	test_cpu_data(self->mem, block_pages(), 1);
}

/* ---- consistency ----------------------------------------------------------------- */

FIXTURE(moment)
{
	struct leak_check leak;
	struct hmm_ref_page_state *states;
	struct changer {
		char *mem;
		int fd;
		unsigned long stop;
		unsigned long changes;
	} changer;
	struct worker worker;
	char *mem;
	int fd;
};

FIXTURE_SETUP(moment)
{
	leak_check_begin(_metadata, &self->leak);
	self->fd = test_open(0);
	self->mem = test_map_blocks(1);
	self->states = calloc(block_pages(), sizeof(*self->states));
	ASSERT_NE(NULL, self->states);
	self->changer.mem = self->mem;
	self->changer.fd = self->fd;
	run_on_cpu(0);
}

FIXTURE_TEARDOWN_PARENT(moment)
{
	leak_check_end(_metadata, &self->leak);
}

/*
 * Discards the first and the last page of the block with one call, and touches the last one, then
 * the first one. Discarding does not wait for mmap_lock, so it happens in the middle of a walk. (A
 * userfaultfd that protects the pages would hide a bug: the driver repeats the walk for it.)
 */
static int discard_and_touch(void *arg)
{
	struct changer *changer = arg;

	run_on_cpu(1);
	while (!counter_get(&changer->stop)) {
		touch_write(changer->mem + block_size() - page_size(), 1);
		touch_write(changer->mem, 1);
		if (!CHECK(!madvise(changer->mem, block_size(), MADV_DONTNEED)))
			return 1;
		counter_add(&changer->changes, 1);
	}
	return 0;
}

/*
 * The core does not notify that a page is added, so the last page may be seen without the first.
 * The other way round, the two states are from different times, because both pages are discarded
 * together.
 */
TEST_F(moment, discarded)
{
	const struct hmm_ref_page_state *first = self->states;
	const struct hmm_ref_page_state *last = first + block_pages() - 1;
	unsigned long long end;
	struct hmm_ref_snapshot cmd;
	unsigned long seen[2] = {};
	bool odd = false;
	int rc = 0;

	madvise(self->mem, block_size(), MADV_NOHUGEPAGE);
	ASSERT_EQ(0, worker_start(&self->worker, discard_and_touch, &self->changer));
	end = race_end();
	while (!rc && !odd && (now_ms() < end || !seen[0] || !seen[1]) &&
	       now_ms() < end + MEET_MS) {
		rc = _test_snapshot(self->fd, self->mem, block_size(), self->states, &cmd);
		if (!rc) {
			odd = first->where == HMM_REF_PAGE_SYSTEM &&
			      last->where == HMM_REF_PAGE_NONE;
			seen[last->where == HMM_REF_PAGE_SYSTEM]++;
		}
		rc = rc == -EBUSY ? 0 : rc;
	}
	counter_set(&self->changer.stop, 1);
	EXPECT_EQ(0, worker_wait(&self->worker));
	ASSERT_EQ(0, rc);
	ASSERT_FALSE(odd);
	if (!seen[0] || !seen[1])
		SKIP(return, "one of the two states did not hold for a look");
	TH_LOG("%lu looks, %lu changes", seen[0] + seen[1], self->changer.changes);
}

/* Migrates in both directions. Pages that are skipped migrate the next time. */
static int change_place(void *arg)
{
	struct changer *changer = arg;
	struct hmm_ref_migrate cmd;

	run_on_cpu(1);
	while (!counter_get(&changer->stop)) {
		if (!CHECK(!_test_migrate(changer->fd, HMM_REF_TO_DEVICE, changer->mem,
					  block_size(), &cmd)))
			return 1;
		counter_add(&changer->changes, cmd.out_migrated == block_pages());
		if (!CHECK(!_test_migrate(changer->fd, HMM_REF_TO_SYSTEM, changer->mem,
					  block_size(), &cmd)))
			return 1;
	}
	return 0;
}

/* All pages of a large folio are in the same place. */
TEST_F(moment, place_of_a_large_page)
{
	unsigned long large[HMM_REF_PAGE_REMOTE + 1] = {}, odd = 0;
	unsigned long long end;
	int rc = 0;

	if (!keeps_large())
		SKIP(return, "no large folios on this device");
	madvise(self->mem, block_size(), MADV_HUGEPAGE);
	fill_pages(self->mem, block_pages(), 1);
	ASSERT_EQ(0, worker_start(&self->worker, change_place, &self->changer));
	end = race_end();
	while (!rc && !odd && (now_ms() < end || !large[HMM_REF_PAGE_DEVICE] ||
			       !large[HMM_REF_PAGE_SYSTEM]) && now_ms() < end + MEET_MS / 2) {
		unsigned long i, whole = 0;

		rc = look(self->fd, self->mem, self->states);
		if (rc == -EBUSY) {
			rc = 0;
			continue;
		}
		for (i = 0; !rc && i < block_pages(); i++)
			whole += 1UL << self->states[i].order == block_pages();
		if (whole && self->states[0].where <= HMM_REF_PAGE_REMOTE)
			large[self->states[0].where]++;
		odd = whole ? odd_ones(self->states) : 0;
	}
	counter_set(&self->changer.stop, 1);
	EXPECT_EQ(0, worker_wait(&self->worker));
	ASSERT_EQ(0, rc);
	EXPECT_EQ(0, odd);
	test_cpu_data(self->mem, block_pages(), 1);
	if (!large[HMM_REF_PAGE_DEVICE] || !large[HMM_REF_PAGE_SYSTEM])
		SKIP(return, "the pages did not stay whole");
	TH_LOG("large in system %lu, on the device %lu, moves %lu",
	       large[HMM_REF_PAGE_SYSTEM], large[HMM_REF_PAGE_DEVICE], self->changer.changes);
}

int main(int argc, char **argv)
{
	return hmm_ref_test_main(argc, argv);
}
