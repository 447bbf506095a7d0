// SPDX-License-Identifier: GPL-2.0-only
/*
 * NUMA policies and page moves with pages on the device: mbind(), move_pages() and
 * migrate_pages() leave them alone, and what comes home comes to the node that the
 * policy asks for.
 *
 * Needs two nodes; in the test VM, NUMA=2.
 *
 * Stands for: pages that come home wherever there is room, whatever the process has
 * asked for; a move between nodes that takes a device page for a system page.
 *
 * HMM_REF_SECONDS is how long the race lasts (default 2).
 */
#include <linux/mempolicy.h>

#include "hmm_ref_utils.h"

#define PAGES	32UL
#define NODES	2

FIXTURE(numa)
{
	struct leak_check leak;
	char *mem;
	size_t size;
	int fd;
};

/* Two nodes with memory? */
static bool have_nodes(void)
{
	char text[64];

	return read_file("/sys/devices/system/node/has_memory", text, sizeof(text)) > 0 &&
	       (strstr(text, "0-") || strstr(text, "0,1"));
}

FIXTURE_SETUP(numa)
{
	if (!have_nodes())
		SKIP(return, "needs two NUMA nodes with memory (scripts/vm.sh: NUMA=2)");
	leak_check_begin(_metadata, &self->leak);
	self->fd = test_open(0);
	self->size = PAGES * page_size();
	self->mem = test_map_pages(PAGES);
	fill_pages(self->mem, PAGES, 1);
}

FIXTURE_TEARDOWN_PARENT(numa)
{
	leak_check_end(_metadata, &self->leak);
}

static int bind_to(char *mem, size_t size, unsigned int node, unsigned int flags)
{
	unsigned long nodes = 1UL << node;

	return syscall(__NR_mbind, mem, size, MPOL_BIND, &nodes, 8 * sizeof(nodes),
		       flags) ? -errno : 0;
}

/* Where the pages are: a node, or -errno. With @nodes, moves them there first. */
static int move(char *mem, const int *nodes, int *status)
{
	void *pages[PAGES];
	unsigned long i;

	for (i = 0; i < PAGES; i++) {
		pages[i] = mem + i * page_size();
		status[i] = 0xcc;
	}
	return syscall(__NR_move_pages, 0, PAGES, pages, nodes, status, MPOL_MF_MOVE) < 0 ?
	       -errno : 0;
}

static void __test_on_node(struct __test_metadata *_metadata, char *mem, int node)
{
	int status[PAGES];
	unsigned long i;

	ASSERT_EQ(0, move(mem, NULL, status));
	for (i = 0; i < PAGES; i++)
		ASSERT_EQ(node, status[i]);
}

#define test_on_node(node)	__test_on_node(_metadata, self->mem, node)

/* Home is where the policy says, by fault, by command, for the device's writes. */
TEST_F(numa, comes_home_by_policy)
{
	int round;

	for (round = 0; round < 8; round++) {
		int node = round / 2 % NODES;

		test_to_device(self->fd, self->mem, PAGES);
		ASSERT_EQ(0, bind_to(self->mem, self->size, node, 0));
		if (round & 1)
			test_to_system(self->fd, self->mem, PAGES);
		test_cpu_data(self->mem, PAGES, 1);
		test_on_node(node);
	}
}

/* Asked to move pages that are on the device, mbind() moves none of them. */
TEST_F(numa, mbind_move)
{
	int node, rc;

	for (node = 0; node < NODES; node++) {
		test_to_device(self->fd, self->mem, PAGES);
		rc = bind_to(self->mem, self->size, node, MPOL_MF_MOVE);
		ASSERT_TRUE(!rc || rc == -EIO);
		test_pages_at(self->fd, self->mem, PAGES, HMM_REF_PAGE_DEVICE, PAGES);
		rc = bind_to(self->mem, self->size, node, MPOL_MF_MOVE | MPOL_MF_STRICT);
		ASSERT_TRUE(!rc || rc == -EIO);
		test_dev_data(self->fd, self->mem, PAGES, 1);
		test_cpu_data(self->mem, PAGES, 1);
		test_on_node(node);
	}
}

/* Every other page is on the device: the others move, and it says so of each. */
TEST_F(numa, move_pages)
{
	int nodes[PAGES], status[PAGES];
	unsigned long i;

	ASSERT_EQ(0, bind_to(self->mem, self->size, 0, MPOL_MF_MOVE));
	test_on_node(0);
	for (i = 0; i < PAGES; i += 2)
		test_to_device(self->fd, self->mem + i * page_size(), 1);
	for (i = 0; i < PAGES; i++)
		nodes[i] = 1;
	ASSERT_EQ(0, move(self->mem, nodes, status));
	for (i = 0; i < PAGES; i++)
		EXPECT_TRUE(i & 1 ? status[i] == 1 : status[i] < 0);
	test_pages_at(self->fd, self->mem, PAGES, HMM_REF_PAGE_DEVICE, PAGES / 2);
	test_dev_data(self->fd, self->mem, PAGES, 1);
	test_cpu_data(self->mem, PAGES, 1);
}

TEST_F(numa, migrate_pages)
{
	unsigned long from = 1, to = 2;
	long left;

	ASSERT_EQ(0, bind_to(self->mem, self->size, 0, MPOL_MF_MOVE));
	test_to_device(self->fd, self->mem, PAGES / 2);
	left = syscall(__NR_migrate_pages, 0, 8 * sizeof(from), &from, &to);
	ASSERT_LE(0, left);
	test_pages_at(self->fd, self->mem, PAGES, HMM_REF_PAGE_DEVICE, PAGES / 2);
	test_dev_data(self->fd, self->mem, PAGES, 1);
	test_cpu_data(self->mem, PAGES, 1);
}

struct mover {
	char *mem;
	unsigned long stop;
	unsigned long moved;
};

static int mover_main(void *arg)
{
	int nodes[PAGES], status[PAGES];
	struct mover *mover = arg;
	unsigned long i;
	int round = 0;

	while (!counter_get(&mover->stop)) {
		round++;
		for (i = 0; i < PAGES; i++)
			nodes[i] = round & 1;
		if (!CHECK(!move(mover->mem, nodes, status)))
			return 1;
		for (i = 0; i < PAGES; i++)
			counter_add(&mover->moved, status[i] == (round & 1));
	}
	return 0;
}

/* Between the nodes and the device at the same time. */
TEST_F_TIMEOUT(numa, move_pages_race, LONG_TEST)
{
	unsigned long long end = now_ms() + 1000 * env_number("HMM_REF_SECONDS", 2);
	struct mover mover = { .mem = self->mem };
	unsigned long migrated = 0, seed = 1;
	struct hmm_ref_migrate cmd;
	struct worker worker;
	int rc = 0;

	ASSERT_EQ(0, worker_start(&worker, mover_main, &mover));
	while (!rc && (now_ms() < end || !counter_get(&mover.moved) || !migrated)) {
		rc = _test_migrate(self->fd, HMM_REF_TO_DEVICE, self->mem, self->size, &cmd);
		migrated += cmd.out_migrated;
		rc = rc ? rc : dev_bad_pages(self->fd, self->mem, PAGES, seed);
		rc = rc ? rc : dev_fill_pages(self->fd, self->mem, PAGES, ++seed);
		rc = rc ? rc : bad_pages(self->mem, PAGES, seed);
	}
	counter_set(&mover.stop, 1);
	EXPECT_EQ(0, worker_wait(&worker));
	ASSERT_EQ(0, rc);
	EXPECT_LT(0, mover.moved);
	TH_LOG("%lu pages migrated, %lu moved between nodes", migrated, mover.moved);
}

int main(int argc, char **argv)
{
	return hmm_ref_test_main(argc, argv);
}
