// SPDX-License-Identifier: GPL-2.0-only
/*
 * Migration and UFFDIO_MOVE, which waits for a migration entry inside of an invalidation:
 * move_pages_ptes() calls migration_entry_wait() between the two halves of the notifier. A driver
 * that has pages locked, as after migrate_vma_setup(), and waits for the invalidation to end, as
 * hmm_range_fault() does in mmu_interval_read_begin(), deadlocks with it, and neither task can be
 * killed. Found by a review.
 *
 * The task that may hang is a child, so that the test can fail.
 */
#include <linux/userfaultfd.h>

#include "hmm_ref_utils.h"

#ifdef UFFDIO_MOVE

FIXTURE(move)
{
	struct leak_check leak;
	struct shared {
		unsigned long stop;
		unsigned long moves;
		unsigned long rounds;
		int uffd;
		char *from, *to;
	} *shared;
};

FIXTURE_SETUP(move)
{
	leak_check_begin(_metadata, &self->leak);
	self->shared = test_map_shared(page_size());
}

FIXTURE_TEARDOWN(move)
{
	leak_check_end(_metadata, &self->leak);
}

/* Opens a userfaultfd that moves pages to @mem. Returns it, or -errno. */
static int open_uffd(void *mem)
{
	struct uffdio_api api = { .api = UFFD_API, .features = UFFD_FEATURE_MOVE };
	struct uffdio_register range = {
		.range = { .start = (unsigned long)mem, .len = block_size() },
		.mode = UFFDIO_REGISTER_MODE_MISSING,
	};
	int fd = syscall(__NR_userfaultfd, O_CLOEXEC | O_NONBLOCK);

	if (fd < 0)
		return -errno;
	if (!ioctl(fd, UFFDIO_API, &api) && !ioctl(fd, UFFDIO_REGISTER, &range))
		return fd;
	close(fd);
	return -EOPNOTSUPP;
}

/* Moves the pages of a window away, one by one. */
static int take_away(void *arg)
{
	struct shared *shared = arg;
	unsigned long i;

	run_on_cpu(1);
	for (i = 0; !counter_get(&shared->stop); i = (i + 1) % block_pages()) {
		struct uffdio_move move = {
			.dst = (unsigned long)shared->to + i * page_size(),
			.src = (unsigned long)shared->from + i * page_size(),
			.len = page_size(),
		};

		/* Most pages are on the device, or have already been moved. */
		if (ioctl(shared->uffd, UFFDIO_MOVE, &move))
			continue;
		counter_add(&shared->moves, 1);
		madvise(shared->to + i * page_size(), page_size(), MADV_DONTNEED);
	}
	return 0;
}

/* Migrates a window in both directions. */
static int migrate(void *arg)
{
	unsigned long long end = now_ms() + 3000 * env_number("HMM_REF_SECONDS", 2);
	struct shared *shared = arg;
	struct hmm_ref_migrate cmd;
	struct worker worker;
	int fd;

	run_on_cpu(0);
	fd = hmm_ref_open(0);
	shared->from = map_blocks(1);
	shared->to = map_blocks(1);
	if (!CHECK(fd >= 0) || !CHECK(shared->from && shared->to))
		return 1;
	shared->uffd = open_uffd(shared->to);
	if (shared->uffd < 0)
		return KSFT_SKIP;
	madvise(shared->from, block_size(), MADV_NOHUGEPAGE);
	madvise(shared->to, block_size(), MADV_NOHUGEPAGE);
	if (!CHECK(!worker_start(&worker, take_away, shared)))
		return 1;
	while (now_ms() < end || shared->rounds < 10) {
		memset(shared->from, 1, block_size());
		if (!CHECK(!_test_migrate(fd, HMM_REF_TO_DEVICE, shared->from,
					  block_size(), &cmd)) ||
		    !CHECK(!_test_migrate(fd, HMM_REF_TO_SYSTEM, shared->from,
					  block_size(), &cmd)))
			break;
		counter_add(&shared->rounds, 1);
	}
	counter_set(&shared->stop, 1);
	return !CHECK(!worker_wait(&worker)) || !CHECK(shared->rounds >= 10);
}

TEST_F(move, while_pages_are_locked)
{
	int rc = child_run(migrate, self->shared);

	if (rc == KSFT_SKIP)
		SKIP(return, "no UFFDIO_MOVE");
	ASSERT_EQ(0, rc);
	TH_LOG("%lu rounds, %lu pages taken away", self->shared->rounds, self->shared->moves);
	EXPECT_LT(0, self->shared->moves);
}

#endif /* UFFDIO_MOVE */

int main(int argc, char **argv)
{
	return hmm_ref_test_main(argc, argv);
}
