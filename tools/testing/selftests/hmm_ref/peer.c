// SPDX-License-Identifier: GPL-2.0-only
/*
 * Migration from one device to another: MIGRATE moves pages of both kinds of memory, directly or
 * through system memory. The data is right, a huge page stays whole, each device counts its own
 * pages, and the source may be removed meanwhile. peer_fail.c has migrations that fail.
 *
 * Covers: a device that still uses its translation of a page which another device has taken; pages
 * that two owners count, or that no owner counts; a source that is removed during a copy from it.
 */
#include "hmm_ref_peer_test.h"
#include "hmm_ref_trace.h"

#define SLOW_ENGINE	"/sys/module/hmm_ref/parameters/slow_engine"

FIXTURE_VARIANT_ADD(peer, coherent_to_coherent)
{
	.from = HMM_REF_MEMORY_COHERENT, .to = HMM_REF_MEMORY_COHERENT,
};

FIXTURE_SETUP(peer)
{
	const char *why_not = test_peers_begin();

	if (why_not)
		SKIP(return, "%s", why_not);
}

FIXTURE_TEARDOWN_PARENT(peer)
{
	write_file(SLOW_ENGINE, "0");
	test_peers_end(_metadata, self);
}

TEST_F(peer, both_ways)
{
	unsigned int round;

	test_takes_all(self->peers.from, self->mem, PAGES);
	for (round = 1; round < 10; round += 2) {
		test_takes_all(self->peers.to, self->mem, PAGES);
		test_at_to(PAGES);
		test_pages_at(self->peers.from, self->mem, PAGES, seen_elsewhere(variant->to),
			      PAGES);
		test_dev_data(self->peers.to, self->mem, PAGES, round);
		ASSERT_EQ(0, dev_fill_pages(self->peers.to, self->mem, PAGES, round + 1));

		test_takes_all(self->peers.from, self->mem, PAGES);
		test_at_from(PAGES);
		test_pages_at(self->peers.to, self->mem, PAGES, seen_elsewhere(variant->from),
			      PAGES);
		test_dev_data(self->peers.from, self->mem, PAGES, round + 1);
		ASSERT_EQ(0, dev_fill_pages(self->peers.from, self->mem, PAGES, round + 2));
	}
	test_cpu_data(self->mem, PAGES, round);
}

/* ---- counts ---------------------------------------------------------------------- */

/* Returns the anonymous memory of the process, in kilobytes. */
static long anonymous_kb(void)
{
	char text[4096], *line;

	if (read_file("/proc/self/status", text, sizeof(text)) < 0)
		return -1;
	line = strstr(text, "RssAnon:");
	return line ? atol(line + strlen("RssAnon:")) : -1;
}

/* A page leaves one device and arrives at the other, and each device counts it once. */
TEST_F(peer, counts)
{
	struct hmm_ref_stats from[2], to[2];
	long kb;

	test_takes_all(self->peers.from, self->mem, PAGES);
	test_stats(self->peers.from, &from[0]);
	test_stats(self->peers.to, &to[0]);
	kb = anonymous_kb();
	ASSERT_LT(0, kb);
	test_takes_all(self->peers.to, self->mem, PAGES);
	/* Pages of the stack may be faulted in or freed. */
	ASSERT_GT((long)(PAGES * page_size() / 2048), labs(anonymous_kb() - kb));
	test_stats(self->peers.from, &from[1]);
	test_stats(self->peers.to, &to[1]);

	EXPECT_EQ(from[0].out_pages_in_use - PAGES, from[1].out_pages_in_use);
	EXPECT_EQ(from[0].out_pages_client - PAGES, from[1].out_pages_client);
	EXPECT_EQ(from[0].out_to_peers + PAGES, from[1].out_to_peers);
	EXPECT_EQ(from[0].out_to_system, from[1].out_to_system);
	EXPECT_EQ(from[0].out_evicted, from[1].out_evicted);
	EXPECT_EQ(from[0].out_cpu_faults, from[1].out_cpu_faults);
	EXPECT_EQ(to[0].out_pages_in_use + PAGES, to[1].out_pages_in_use);
	EXPECT_EQ(to[0].out_pages_client + PAGES, to[1].out_pages_client);
	EXPECT_EQ(to[0].out_to_device + PAGES, to[1].out_to_device);
	EXPECT_EQ(to[0].out_to_peers, to[1].out_to_peers);
	EXPECT_EQ(0, to[1].out_pages_reserved);
	EXPECT_EQ(0, fdinfo_number(self->peers.from, "pages"));
	EXPECT_EQ(PAGES, fdinfo_number(self->peers.from, "to-device"));
	EXPECT_EQ(PAGES, fdinfo_number(self->peers.from, "to-peers"));
	EXPECT_EQ(0, fdinfo_number(self->peers.from, "to-system"));
	EXPECT_EQ(PAGES, fdinfo_number(self->peers.to, "pages"));
	EXPECT_EQ(PAGES, fdinfo_number(self->peers.to, "to-device"));
	EXPECT_EQ(0, fdinfo_number(self->peers.to, "to-peers"));
}

/* Each third of the pages has a different source: a device, system memory, a hole. */
TEST_F(peer, mixture)
{
	const unsigned long third = PAGES / 3;
	struct hmm_ref_stats before, after;
	unsigned long i;

	ASSERT_EQ(0, madvise(self->mem + 2 * third * page_size(), third * page_size(),
			     MADV_DONTNEED));
	test_takes_all(self->peers.from, self->mem, third);
	test_stats(self->peers.from, &before);
	test_takes_all(self->peers.to, self->mem, 3 * third);
	test_stats(self->peers.from, &after);
	EXPECT_EQ(before.out_to_peers + third, after.out_to_peers);
	test_at_to(3 * third);
	test_dev_data(self->peers.to, self->mem, 2 * third, 1);
	for (i = 2 * third; i < 3 * third; i++)
		ASSERT_TRUE(page_is_zero(self->mem + i * page_size()));
}

/* Pages that another file has migrated also move, and change their owner. */
TEST_F(peer, of_another_file)
{
	int other = test_open(self->peers.from_nr);

	test_takes_all(other, self->mem, PAGES);
	EXPECT_EQ(PAGES, fdinfo_number(other, "pages"));
	test_takes_all(self->peers.to, self->mem, PAGES);
	EXPECT_EQ(0, fdinfo_number(other, "pages"));
	EXPECT_EQ(PAGES, fdinfo_number(other, "to-peers"));
	test_dev_data(self->peers.to, self->mem, PAGES, 1);
	close(other);
}

/* TO_SYSTEM migrates pages of its own device, and no others. */
TEST_F(peer, to_system_of_one_device)
{
	struct hmm_ref_migrate cmd;

	test_takes_all(self->peers.from, self->mem, PAGES);
	test_migrate(self->peers.to, HMM_REF_TO_SYSTEM, self->mem, PAGES * page_size(), &cmd);
	EXPECT_EQ(0, cmd.out_migrated);
	EXPECT_EQ(PAGES, cmd.out_already);
	test_at_from(PAGES);
}

/* ---- mirrors and processes ------------------------------------------------------- */

/* The first device loses its entries with the pages. It finds them again by a fault. */
TEST_F(peer, old_mirror)
{
	char *other = test_map_pages(PAGES);

	test_takes_all(self->peers.from, self->mem, PAGES);
	ASSERT_EQ(0, dev_fill_pages(self->peers.from, self->mem, PAGES, 2));
	test_flagged(self->peers.from, self->mem, PAGES, HMM_REF_PAGE_MAPPED, PAGES);
	test_takes_all(self->peers.to, self->mem, PAGES);
	test_flagged(self->peers.from, self->mem, PAGES, HMM_REF_PAGE_MAPPED, 0);

	/* Other memory gets the device pages that are free now. */
	fill_pages(other, PAGES, 7);
	test_takes_all(self->peers.from, other, PAGES);
	ASSERT_EQ(0, dev_fill_pages(self->peers.to, self->mem, PAGES, 3));
	test_dev_data(self->peers.from, self->mem, PAGES, 3);
	test_takes_all(self->peers.from, self->mem, PAGES);
	test_takes_all(self->peers.to, self->mem, PAGES);
	ASSERT_EQ(0, dev_fill_pages(self->peers.from, self->mem, PAGES, 4));
	test_dev_data(self->peers.to, self->mem, PAGES, 4);
	test_dev_data(self->peers.from, other, PAGES, 7);
	test_cpu_data(self->mem, PAGES, 4);
}

/* Entries of the second device for memory of the first one are dropped, too. */
TEST_F(peer, new_mirror)
{
	char *other = test_map_pages(PAGES);

	if (variant->from != HMM_REF_MEMORY_COHERENT)
		SKIP(return, "devices do not map private memory of each other");
	test_takes_all(self->peers.from, self->mem, PAGES);
	test_dev_data(self->peers.to, self->mem, PAGES, 1);
	test_flagged(self->peers.to, self->mem, PAGES, HMM_REF_PAGE_MAPPED, PAGES);
	test_takes_all(self->peers.to, self->mem, PAGES);
	test_flagged(self->peers.to, self->mem, PAGES, HMM_REF_PAGE_MAPPED, 0);
	fill_pages(other, PAGES, 7);
	test_takes_all(self->peers.from, other, PAGES);
	test_dev_data(self->peers.to, self->mem, PAGES, 1);
	test_dev_data(self->peers.from, other, PAGES, 7);
}

struct shared {
	char *mem;
	int moved;	/* event */
	int written;	/* event */
};

/* Keeps the data of fork(), wherever the pages are. */
static int child_keeps_data(void *arg)
{
	struct shared *shared = arg;

	if (!CHECK(event_wait(shared->moved)) ||
	    !CHECK(event_wait(shared->written)) ||
	    !CHECK(!bad_pages(shared->mem, PAGES, 1)))
		return 1;
	fill_pages(shared->mem, PAGES, 9);
	return !CHECK(!bad_pages(shared->mem, PAGES, 9));
}

/*
 * Pages that are shared with a child migrate for both, and are copied when the other device writes.
 */
TEST_F(peer, shared_with_a_child)
{
	struct shared shared = {
		.mem = self->mem, .moved = event_new(), .written = event_new(),
	};
	pid_t pid;

	test_takes_all(self->peers.from, self->mem, PAGES);
	pid = child_start(child_keeps_data, &shared);
	ASSERT_LT(0, pid);
	test_takes_all(self->peers.to, self->mem, PAGES);
	test_at_to(PAGES);
	event_post(shared.moved);
	test_dev_data(self->peers.to, self->mem, PAGES, 1);
	ASSERT_EQ(0, dev_fill_pages(self->peers.to, self->mem, PAGES, 2));
	event_post(shared.written);
	ASSERT_EQ(0, child_wait(pid, 9 * PATIENCE_MS));
	test_dev_data(self->peers.to, self->mem, PAGES, 2);
	test_cpu_data(self->mem, PAGES, 2);
}

/* ---- huge pages ------------------------------------------------------------------ */

TEST_F(peer, huge_page)
{
	const bool both_private = variant->from == HMM_REF_MEMORY_PRIVATE &&
				  variant->to == HMM_REF_MEMORY_PRIVATE;
	unsigned long n = block_pages();
	char *mem;

	if (!both_private || !keeps_large())
		SKIP(return, "one of the devices has single pages only");
	mem = map_variant(self->peers.from, true);
	if (!mem)
		SKIP(return, "no huge page can be allocated");
	test_takes_all(self->peers.from, mem, n);
	ASSERT_EQ(HUGE_ORDER, order_at(self->peers.from, mem));
	test_takes_all(self->peers.to, mem, n);
	ASSERT_EQ(HUGE_ORDER, order_at(self->peers.to, mem));
	test_pages_at(self->peers.to, mem, n, HMM_REF_PAGE_DEVICE, n);
	test_dev_data(self->peers.to, mem, n, 1);
	ASSERT_EQ(0, dev_fill_pages(self->peers.to, mem, n, 2));
	test_takes_all(self->peers.from, mem, n);
	ASSERT_EQ(HUGE_ORDER, order_at(self->peers.from, mem));
	test_dev_data(self->peers.from, mem, n, 2);
	EXPECT_EQ(n, fdinfo_number(self->peers.from, "to-peers"));
	EXPECT_EQ(n, fdinfo_number(self->peers.to, "to-peers"));
	test_cpu_data(mem, n, 2);
}

/* From or to a device that has only single pages, the block migrates page by page. */
TEST_F(peer, block)
{
	unsigned long n = block_pages();
	char *mem = test_map_blocks(1);

	madvise(mem, block_size(), MADV_HUGEPAGE);
	fill_pages(mem, n, 5);
	test_to_device(self->peers.from, mem, n);
	test_to_device(self->peers.to, mem, n);
	test_pages_at(self->peers.to, mem, n, HMM_REF_PAGE_DEVICE, n);
	test_dev_data(self->peers.to, mem, n, 5);
	test_to_device(self->peers.from, mem, n);
	test_dev_data(self->peers.from, mem, n, 5);
	test_cpu_data(mem, n, 5);
}

/* ---- a device that is full ------------------------------------------------------- */

/* The device evicts older pages for those of the other device, and no data is lost. */
TEST_F_TIMEOUT(peer, full, 300)
{
	struct hmm_ref_stats before, after;
	unsigned long n;
	char *mem;

	/* Pages of an earlier test may be freed only now: then there is some room already. */
	test_stats(self->peers.to, &before);
	mem = test_fill_device(self->peers.to, 6, &n);
	if (!n)
		SKIP(return, "the device is too large to be filled");
	test_takes_all(self->peers.from, self->mem, PAGES);
	test_to_device(self->peers.to, self->mem, PAGES);
	test_stats(self->peers.to, &after);
	EXPECT_LT(before.out_evicted, after.out_evicted);
	test_at_to(PAGES);
	EXPECT_EQ(0, fdinfo_number(self->peers.from, "pages"));
	test_dev_data(self->peers.to, self->mem, PAGES, 1);
	test_cpu_data(self->mem, PAGES, 1);
	test_cpu_data(mem, n, 6);
}

/* ---- removal of the source ------------------------------------------------------- */

struct taker {
	struct peers *peers;
	char *mem;
	unsigned long stop;
	unsigned long taken;
	unsigned long gone;
};

/* Migrates the pages back and forth, whether the other device exists or not. */
static int take_main(void *arg)
{
	struct taker *t = arg;
	struct hmm_ref_migrate cmd;
	int rc;

	while (!counter_get(&t->stop)) {
		if (!CHECK(!_test_migrate(t->peers->to, HMM_REF_TO_DEVICE, t->mem,
					  PAGES * page_size(), &cmd)))
			return 1;
		counter_add(&t->taken, cmd.out_migrated);
		rc = _test_migrate(t->peers->from, HMM_REF_TO_DEVICE, t->mem,
				   PAGES * page_size(), &cmd);
		counter_add(&t->gone, rc == -ENODEV);
		if (!CHECK(!rc || rc == -ENODEV))
			return 1;
	}
	return 0;
}

/* Long enough for a removal to give up its pages before the copy is done. */
#define VERY_SLOW_US	"14000000"

static int take_once(void *arg)
{
	struct taker *t = arg;
	struct hmm_ref_migrate cmd;
	int rc = _test_migrate(t->peers->to, HMM_REF_TO_DEVICE, t->mem, PAGES * page_size(), &cmd);

	t->taken = cmd.out_migrated;
	return !CHECK(!rc);
}

/* The memory of the source stays while the other device copies from it. */
TEST_F(peer, source_removed_during_copy)
{
	struct taker taker = { .peers = &self->peers, .mem = self->mem };
	struct worker worker;

	if (!self->peers.direct)
		SKIP(return, "these devices copy through system memory");
	if (variant->from != HMM_REF_MEMORY_PRIVATE)
		SKIP(return, "coherent memory is bound again when the last page has left only");
	if (!device_can_unbind(self->peers.from_nr))
		SKIP(return, "the device cannot be unbound");
	test_takes_all(self->peers.from, self->mem, PAGES);
	ASSERT_EQ(0, write_file(SLOW_ENGINE, VERY_SLOW_US));
	ASSERT_EQ(0, worker_start(&worker, take_once, &taker));
	usleep(300000);
	/* Copies of the removal itself are fast from now on. */
	ASSERT_EQ(0, write_file(SLOW_ENGINE, "0"));
	ASSERT_EQ(0, device_unbind(self->peers.from_nr));
	ASSERT_EQ(0, worker_wait(&worker));
	EXPECT_EQ(PAGES, taker.taken);
	ASSERT_EQ(0, device_bind(self->peers.from_nr));
	test_at_to(PAGES);
	test_dev_data(self->peers.to, self->mem, PAGES, 1);
	test_cpu_data(self->mem, PAGES, 1);
}

TEST_F(peer, source_removed)
{
	struct taker taker = { .peers = &self->peers, .mem = self->mem };
	struct worker worker;
	unsigned int round;

	if (!device_can_unbind(self->peers.from_nr))
		SKIP(return, "the device cannot be unbound");
	for (round = 0; round < 5; round++) {
		test_takes_all(self->peers.from, self->mem, PAGES);
		taker.stop = 0;
		taker.taken = 0;
		ASSERT_EQ(0, worker_start(&worker, take_main, &taker));
		while (!counter_get(&taker.taken))
			usleep(100);
		usleep(round * 1000);
		ASSERT_EQ(0, device_unbind(self->peers.from_nr));
		counter_set(&taker.stop, 1);
		ASSERT_EQ(0, worker_wait(&worker));
		test_cpu_data(self->mem, PAGES, 1);
		ASSERT_EQ(0, device_bind(self->peers.from_nr));
		close(self->peers.from);
		self->peers.from = test_open(self->peers.from_nr);
	}
}

int main(int argc, char **argv)
{
	return hmm_ref_test_main(argc, argv);
}
