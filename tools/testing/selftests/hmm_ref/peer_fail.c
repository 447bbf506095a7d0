// SPDX-License-Identifier: GPL-2.0-only
/*
 * Migrations from one device to another that fail: a copy fails, the device is full, the copy
 * engine hangs while the source is removed. The page stays where it is, or in system memory, half
 * way. The counts are right, and the next attempt succeeds.
 *
 * Covers: a copy that fails and is counted as migrated; pages that leave a device for another one
 * that is full; a removal that waits for the engine of another device.
 *
 * Needs a kernel with fault injection in debugfs, as the debug flavour has.
 */
#include "hmm_ref_utils.h"
#include "hmm_ref_fail.h"
#include "hmm_ref_peer_test.h"
#include "hmm_ref_trace.h"

#define FAIL_COPY	"/sys/kernel/debug/hmm_ref/fail_copy/"
#define FAIL_ONE_COPY	"/sys/kernel/debug/hmm_ref/fail_one_copy/"
#define FAIL_DMA	"/sys/kernel/debug/hmm_ref/fail_dma/"
#define FAIL_HANDOUT	"/sys/kernel/debug/hmm_ref/fail_handout/"
#define FAIL_HANG	"/sys/kernel/debug/hmm_ref/fail_hang/"
#define FAIL_PAGE	"/sys/kernel/debug/hmm_ref/fail_page/"
#define FAIL_LOST	"/sys/kernel/debug/hmm_ref/fail_lost/"

static const char *const armed[] = {
	FAIL_COPY, FAIL_ONE_COPY, FAIL_DMA, FAIL_HANDOUT, FAIL_HANG, FAIL_PAGE,
	FAIL_LOST,
};

/* From now on evictions cannot allocate a page of system memory, or can again. */
static int evictions_fail(bool fail)
{
	unsigned long start = 0, end = ~0UL;
	char text[24];
	int rc;

	if (fail && !kernel_function("hmm_ref_evict_run\t[hmm_ref]", &start, &end))
		return -ENOENT;
	snprintf(text, sizeof(text), "%#lx", start);
	rc = write_file(FAIL_PAGE "require-start", text);
	snprintf(text, sizeof(text), "%#lx", end);
	rc = rc ? rc : write_file(FAIL_PAGE "require-end", text);
	if (!rc)
		rc = fail ? attr_arm(FAIL_PAGE, 0, -1) : attr_disarm(FAIL_PAGE);
	return rc;
}

FIXTURE_SETUP(peer)
{
	const char *why_not;

	if (access(FAIL_COPY "probability", F_OK))
		SKIP(return, "no " FAIL_COPY ": CONFIG_FAULT_INJECTION_DEBUG_FS");
	why_not = test_peers_begin();
	if (why_not)
		SKIP(return, "%s", why_not);
	test_takes_all(self->peers.from, self->mem, PAGES);
}

FIXTURE_TEARDOWN_PARENT(peer)
{
	unsigned int i;

	if (access(FAIL_COPY "probability", F_OK))
		return;
	for (i = 0; i < ARRAY_SIZE(armed); i++)
		EXPECT_EQ(0, attr_disarm(armed[i]));
	EXPECT_EQ(0, evictions_fail(false));
	test_peers_end(_metadata, self);
}

/* ---- steps that fail ------------------------------------------------------------- */

/* Nothing has migrated, and the next attempt succeeds. */
static void __test_unmoved(struct __test_metadata *_metadata, struct peers *peers, char *mem,
			   unsigned int seed)
{
	struct hmm_ref_stats stats;

	EXPECT_EQ(0, fdinfo_number(peers->to, "pages"));
	EXPECT_EQ(0, fdinfo_number(peers->to, "to-device"));
	EXPECT_EQ(PAGES, fdinfo_number(peers->from, "pages"));
	EXPECT_EQ(0, fdinfo_number(peers->from, "to-peers"));
	test_pages_at(peers->from, mem, PAGES, HMM_REF_PAGE_DEVICE, PAGES);
	test_stats(peers->to, &stats);
	EXPECT_EQ(0, stats.out_pages_reserved);
	test_dev_data(peers->from, mem, PAGES, seed);
	test_takes_all(peers->to, mem, PAGES);
	test_dev_data(peers->to, mem, PAGES, seed);
}

#define test_unmoved(seed) \
	__test_unmoved(_metadata, &self->peers, self->mem, seed)

TEST_F(peer, copy_fails)
{
	struct hmm_ref_migrate cmd;

	ASSERT_EQ(0, attr_arm(FAIL_COPY, 0, 1));
	test_err_migrate(EIO, self->peers.to, HMM_REF_TO_DEVICE, self->mem, PAGES * page_size(),
			 &cmd);
	EXPECT_EQ(0, cmd.out_migrated);
	EXPECT_EQ(PAGES, cmd.out_skipped);
	test_unmoved(1);
}

/* One of the pages stays, and no other. */
TEST_F(peer, one_copy_fails)
{
	struct hmm_ref_migrate cmd;

	ASSERT_EQ(0, attr_arm(FAIL_ONE_COPY, 0, 1));
	test_err_migrate(EIO, self->peers.to, HMM_REF_TO_DEVICE, self->mem, PAGES * page_size(),
			 &cmd);
	EXPECT_EQ(PAGES - 1, cmd.out_migrated);
	EXPECT_EQ(1, cmd.out_skipped);
	test_at_to(PAGES - 1);
	test_at_from(1);
	EXPECT_EQ(PAGES - 1, fdinfo_number(self->peers.to, "to-device"));
	EXPECT_EQ(PAGES - 1, fdinfo_number(self->peers.from, "to-peers"));
	test_to_device(self->peers.to, self->mem, PAGES);
	test_dev_data(self->peers.to, self->mem, PAGES, 1);
}

/*
 * The second of two copies through system memory fails: the page stays in system memory, and is not
 * lost.
 */
TEST_F(peer, second_copy_fails)
{
	struct hmm_ref_migrate cmd;

	if (self->peers.direct)
		SKIP(return, "these devices copy directly");
	ASSERT_EQ(0, attr_arm(FAIL_COPY, 1, 1));
	test_err_migrate(EIO, self->peers.to, HMM_REF_TO_DEVICE, self->mem, PAGES * page_size(),
			 &cmd);
	EXPECT_EQ(0, cmd.out_migrated);
	EXPECT_EQ(PAGES, cmd.out_skipped);
	test_pages_at(self->peers.to, self->mem, PAGES, HMM_REF_PAGE_SYSTEM, PAGES);
	EXPECT_EQ(PAGES, fdinfo_number(self->peers.from, "to-peers"));
	EXPECT_EQ(0, fdinfo_number(self->peers.to, "to-device"));
	test_cpu_data(self->mem, PAGES, 1);
	test_takes_all(self->peers.to, self->mem, PAGES);
	test_dev_data(self->peers.to, self->mem, PAGES, 1);
}

TEST_F(peer, no_room_for_copies)
{
	struct hmm_ref_migrate cmd;

	ASSERT_EQ(0, attr_arm(FAIL_DMA, 0, 1));
	test_err_migrate(EAGAIN, self->peers.to, HMM_REF_TO_DEVICE, self->mem,
			 PAGES * page_size(), &cmd);
	EXPECT_EQ(0, cmd.out_migrated);
	test_unmoved(1);
}

TEST_F(peer, copy_of_a_huge_page_fails)
{
	struct hmm_ref_migrate cmd;
	char *mem;

	if (variant->from != HMM_REF_MEMORY_PRIVATE || variant->to != HMM_REF_MEMORY_PRIVATE ||
	    !self->peers.direct || !keeps_large())
		SKIP(return, "no huge page would be copied directly");
	mem = map_variant(self->peers.from, true);
	if (!mem)
		SKIP(return, "no huge page can be allocated");
	test_takes_all(self->peers.from, mem, block_pages());
	ASSERT_EQ(0, attr_arm(FAIL_ONE_COPY, 0, 1));
	test_err_migrate(EIO, self->peers.to, HMM_REF_TO_DEVICE, mem, block_size(), &cmd);
	EXPECT_EQ(0, cmd.out_migrated);
	ASSERT_EQ(HUGE_ORDER, order_at(self->peers.from, mem));
	EXPECT_EQ(0, fdinfo_number(self->peers.from, "to-peers"));
	test_takes_all(self->peers.to, mem, block_pages());
	ASSERT_EQ(HUGE_ORDER, order_at(self->peers.to, mem));
	test_dev_data(self->peers.to, mem, block_pages(), 1);
}

/* No page can be allocated on the device: the pages stay on the other device. */
TEST_F(peer, no_page_is_allocated)
{
	struct hmm_ref_migrate cmd;

	if (!self->peers.direct)
		SKIP(return, "these devices copy through system memory");
	ASSERT_EQ(0, attr_arm(FAIL_HANDOUT, 0, -1));
	test_migrate(self->peers.to, HMM_REF_TO_DEVICE, self->mem, PAGES * page_size(), &cmd);
	EXPECT_EQ(0, cmd.out_migrated);
	EXPECT_EQ(PAGES, cmd.out_skipped);
	ASSERT_EQ(0, attr_disarm(FAIL_HANDOUT));
	test_unmoved(1);
}

/* ---- no room --------------------------------------------------------------------- */

/* The device is full and cannot evict: the pages stay on the other device. */
TEST_F(peer, full_and_cannot_evict)
{
	struct hmm_ref_migrate cmd;
	unsigned long n;
	char *mem;

	mem = test_fill_device(self->peers.to, 6, &n);
	if (!n)
		SKIP(return, "the device is too large to be filled");
	ASSERT_EQ(0, evictions_fail(true));
	test_err_migrate(ENOMEM, self->peers.to, HMM_REF_TO_DEVICE, self->mem,
			 PAGES * page_size(), &cmd);
	ASSERT_EQ(0, evictions_fail(false));
	EXPECT_EQ(0, cmd.out_migrated);
	EXPECT_EQ(PAGES, cmd.out_skipped);
	ASSERT_EQ(0, munmap(mem, n * page_size()));
	EXPECT_EQ(PAGES, fdinfo_number(self->peers.from, "pages"));
	EXPECT_EQ(0, fdinfo_number(self->peers.from, "to-peers"));
	test_at_from(PAGES);
	test_takes_all(self->peers.to, self->mem, PAGES);
	test_dev_data(self->peers.to, self->mem, PAGES, 1);
}

/* ---- the source is lost or removed ----------------------------------------------- */

/* The reply of a lost source is not used as data. The other device is not lost. */
TEST_F(peer, source_is_lost)
{
	char *other = test_map_pages(1);
	struct hmm_ref_migrate cmd;

	if (variant->from != HMM_REF_MEMORY_PRIVATE)
		SKIP(return, "the CPU reads coherent memory without the device");
	if (!device_can_unbind(self->peers.from_nr))
		SKIP(return, "the device cannot be unbound");
	fill_pages(other, 1, 3);
	ASSERT_EQ(0, attr_arm(FAIL_LOST, 0, 1));
	test_err_migrate(ENODEV, self->peers.from, HMM_REF_TO_DEVICE, other, page_size(), &cmd);
	test_err_migrate(EIO, self->peers.to, HMM_REF_TO_DEVICE, self->mem, PAGES * page_size(),
			 &cmd);
	EXPECT_EQ(0, cmd.out_migrated);
	EXPECT_EQ(PAGES, cmd.out_skipped);
	EXPECT_EQ(0, fdinfo_number(self->peers.from, "to-peers"));
	test_takes_all(self->peers.to, other, 1);
	test_dev_data(self->peers.to, other, 1, 3);
	ASSERT_EQ(0, munmap(self->mem, block_size()));
	ASSERT_EQ(0, device_unbind(self->peers.from_nr));
	ASSERT_EQ(0, device_bind(self->peers.from_nr));
}

struct pull {
	int fd;
	char *mem;
	int rc;
	unsigned long long migrated;
};

/* True if the attribute has failed as many steps as it was armed for. */
static bool attr_wait(const char *attr)
{
	unsigned long long deadline = now_ms() + MEET_MS;
	char path[128], text[16];

	snprintf(path, sizeof(path), "%stimes", attr);
	while (read_file(path, text, sizeof(text)) > 0 && atoi(text)) {
		if (now_ms() > deadline)
			return false;
		usleep(1000);
	}
	return true;
}

static int pull_main(void *arg)
{
	struct pull *pull = arg;
	struct hmm_ref_migrate cmd;

	pull->rc = _test_migrate(pull->fd, HMM_REF_TO_DEVICE, pull->mem, PAGES * page_size(),
				 &cmd);
	pull->migrated = cmd.out_migrated;
	return 0;
}

/*
 * The engine of the other device hangs in a copy from the source. Removal of the source does not
 * wait as long as other tasks would: it gets its pages back and evicts them.
 */
TEST_F(peer, source_removed_during_hung_copy)
{
	struct pull pull = { .fd = self->peers.to, .mem = self->mem };
	struct worker worker;

	if (!self->peers.direct)
		SKIP(return, "these devices copy through system memory");
	if (!device_can_unbind(self->peers.from_nr))
		SKIP(return, "the device cannot be unbound");
	ASSERT_EQ(0, attr_arm(FAIL_HANG, 0, 1));
	ASSERT_EQ(0, worker_start(&worker, pull_main, &pull));
	ASSERT_TRUE(attr_wait(FAIL_HANG));
	ASSERT_EQ(0, device_unbind(self->peers.from_nr));
	ASSERT_EQ(0, worker_wait(&worker));
	test_cpu_data(self->mem, PAGES, 1);
	EXPECT_EQ(-ETIMEDOUT, pull.rc);
	EXPECT_EQ(0, pull.migrated);
	ASSERT_EQ(0, device_bind(self->peers.from_nr));
}

int main(int argc, char **argv)
{
	return hmm_ref_test_main(argc, argv);
}
