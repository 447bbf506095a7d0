// SPDX-License-Identifier: GPL-2.0-only
/*
 * NUMA policies and page moves with pages on the device: mbind(), move_pages() and migrate_pages()
 * ignore device pages, and pages that return to system memory are allocated by the policy. NUMA
 * balancing makes a page inaccessible to the CPU for a moment, to see which node uses it: migration
 * and the device handle that.
 *
 * Needs two nodes; in the test VM, NUMA=2.
 *
 * Covers: pages that return to any node with free memory, against the policy of the process; a move
 * between nodes that mistakes a device page for a system page; a driver that mistakes a page that
 * NUMA balancing made inaccessible for one that the process may not access.
 *
 * HMM_REF_SECONDS is how long the race lasts (default 2).
 */
#include <linux/mempolicy.h>

#include "hmm_ref_huge.h"

#define PAGES	32UL
#define NODES	2

FIXTURE(numa)
{
	struct leak_check leak;
	char *mem;
	size_t size;
	int fd;
};

/* True if two nodes have memory. */
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

/* Returns in @status the node of each page, or -errno. With @nodes, moves them there first. */
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

/* The policy selects the node, for CPU faults, for commands, and for device writes. */
TEST_F(numa, returns_by_policy)
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

/* mbind() does not move pages that are on the device. */
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

/* Every other page is on the device. The others are moved, and the status of each page is right. */
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

/* Pages move between the nodes and migrate to the device at the same time. */
TEST_F(numa, move_pages_race)
{
	unsigned long long end = now_ms() + 1000 * env_number("HMM_REF_SECONDS", 2);
	unsigned long long deadline = end + MEET_MS;
	struct mover mover = { .mem = self->mem };
	unsigned long migrated = 0, seed = 1;
	struct hmm_ref_migrate cmd;
	struct worker worker;
	int rc = 0;

	ASSERT_EQ(0, worker_start(&worker, mover_main, &mover));
	while (!rc && now_ms() < deadline &&
	       (now_ms() < end || !counter_get(&mover.moved) || !migrated)) {
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
	EXPECT_LT(0, migrated);
	TH_LOG("%lu pages migrated, %lu moved between nodes", migrated, mover.moved);
}

/* ---- NUMA balancing ------------------------------------------------------------- */

#define BALANCING	"/proc/sys/kernel/numa_balancing"
#define SCAN		"/sys/kernel/debug/sched/numa_balancing/"

/* Scan as fast as possible. By default a process is scanned once a second. */
static const struct { const char *name, *fast; } scan[] = {
	{ SCAN "scan_delay_ms", "1" },
	{ SCAN "scan_period_min_ms", "10" },
	{ SCAN "scan_period_max_ms", "20" },
};

FIXTURE(balancing)
{
	struct leak_check leak;
	char saved[ARRAY_SIZE(scan) + 1][16];
	unsigned long npages;
	char *mem;
	int fd;
};

FIXTURE_VARIANT(balancing)
{
	bool large;
};

FIXTURE_VARIANT_ADD(balancing, small) { .large = false };
FIXTURE_VARIANT_ADD(balancing, large) { .large = true };

static void set_and_save(const char *path, const char *value, char *saved)
{
	if (read_file(path, saved, 16) > 0)
		write_file(path, value);
}

static void restore(const char *path, const char *saved)
{
	if (*saved)
		write_file(path, saved);
}

FIXTURE_SETUP(balancing)
{
	unsigned int i;

	if (!have_nodes())
		SKIP(return, "needs two NUMA nodes with memory (scripts/vm.sh: NUMA=2)");
	if (access(BALANCING, W_OK))
		SKIP(return, "no " BALANCING " (CONFIG_NUMA_BALANCING)");
	leak_check_begin(_metadata, &self->leak);
	for (i = 0; i < ARRAY_SIZE(scan); i++)
		set_and_save(scan[i].name, scan[i].fast, self->saved[i]);
	set_and_save(BALANCING, "1", self->saved[i]);
	self->fd = test_open(0);
	self->npages = variant_pages(variant->large);
	self->mem = map_variant(self->fd, variant->large);
	if (!self->mem)
		SKIP(return, "no huge page can be allocated");
}

FIXTURE_TEARDOWN_PARENT(balancing)
{
	unsigned int i;

	if (!self->leak.devices)
		return;
	restore(BALANCING, self->saved[ARRAY_SIZE(scan)]);
	for (i = 0; i < ARRAY_SIZE(scan); i++)
		restore(scan[i].name, self->saved[i]);
	leak_check_end(_metadata, &self->leak);
}

/* A thread that works on the data, on one node and then on the other. */
struct wanderer {
	int fd;
	char *mem;
	unsigned long npages;
	unsigned long stop;
	unsigned long migrated;
	unsigned long rounds;
};

static int wander_main(void *arg)
{
	struct wanderer *w = arg;
	unsigned int seed = 1;

	while (!counter_get(&w->stop)) {
		run_on_cpu(w->rounds & 1);
		if (!CHECK(!bad_pages(w->mem, w->npages, seed)))
			return 1;
		fill_pages(w->mem, w->npages, ++seed);
		/* The device writes the data that the CPU would write next. */
		if (!CHECK(!dev_bad_pages(w->fd, w->mem, w->npages, seed)) ||
		    !CHECK(!dev_fill_pages(w->fd, w->mem, w->npages, ++seed)))
			return 1;
		counter_add(&w->rounds, 1);
	}
	return 0;
}

/*
 * Pages migrate in both directions while the scanner makes them inaccessible, and the faults that
 * follow move them between the nodes.
 */
TEST_F(balancing, race)
{
	unsigned long long end = now_ms() + 1000 * env_number("HMM_REF_SECONDS", 2);
	unsigned long long deadline = end + MEET_MS;
	unsigned long scanned = vm_counter("numa_pte_updates");
	unsigned long faults = vm_counter("numa_hint_faults");
	struct wanderer wanderer = {
		.fd = self->fd, .mem = self->mem, .npages = self->npages,
	};
	struct hmm_ref_migrate cmd;
	unsigned long round;
	struct worker worker;
	bool met = false;
	int rc = 0;

	ASSERT_EQ(0, worker_start(&worker, wander_main, &wanderer));
	for (round = 0; !rc && now_ms() < deadline && (now_ms() < end || !met); round++) {
		rc = _test_migrate(self->fd, round & 1 ? HMM_REF_TO_SYSTEM :
				   HMM_REF_TO_DEVICE, self->mem,
				   self->npages * page_size(), &cmd);
		wanderer.migrated += cmd.out_migrated;
		/* The pages are left alone for a while, so that the scanner finds some. */
		usleep(round & 1 ? 15000 : 1000);
		met = wanderer.migrated && counter_get(&wanderer.rounds) > 2 &&
		      vm_counter("numa_pte_updates") > scanned &&
		      vm_counter("numa_hint_faults") > faults;
	}
	counter_set(&wanderer.stop, 1);
	EXPECT_EQ(0, worker_wait(&worker));
	ASSERT_EQ(0, rc);
	TH_LOG("%lu rounds, %lu pages migrated, %lu entries scanned, %lu hinting faults",
	       wanderer.rounds, wanderer.migrated, vm_counter("numa_pte_updates") - scanned,
	       vm_counter("numa_hint_faults") - faults);
	if (!met && vm_counter("numa_pte_updates") == scanned)
		SKIP(return, "the scanner did not come by");
	EXPECT_TRUE(met);
}

/* Waits until the scanner has made the pages inaccessible, or as many others. */
static bool wait_for_scanner(unsigned long npages)
{
	unsigned long before = vm_counter("numa_pte_updates"), spin = 0;
	unsigned long long deadline = now_ms() + PATIENCE_MS / 4;

	do {
		/* The scanner runs only for tasks that use a CPU. */
		while (++spin % 1000000)
			;
		if (vm_counter("numa_pte_updates") >= before + npages)
			return true;
	} while (now_ms() < deadline);
	return false;
}

/* Pages migrate to the device and are read by it while the CPU has no access. */
TEST_F(balancing, without_access)
{
	unsigned int round, waited = 0;

	for (round = 0; round < 4; round++) {
		/* The scanner samples pages on nodes other than that of a process's only thread. */
		run_on_cpu(round);
		test_to_system(self->fd, self->mem, self->npages);
		run_on_cpu(round + 1);
		waited += wait_for_scanner(self->npages);
		if (round & 1)
			test_to_device(self->fd, self->mem, self->npages);
		test_dev_data(self->fd, self->mem, self->npages, 1 + round);
		ASSERT_EQ(0, dev_fill_pages(self->fd, self->mem, self->npages, 2 + round));
		test_cpu_data(self->mem, self->npages, 2 + round);
		test_to_device(self->fd, self->mem, self->npages);
	}
	test_cpu_data(self->mem, self->npages, 1 + round);
	TH_LOG("in %u of %u rounds", waited, round);
	if (!waited)
		SKIP(return, "the scanner did not come by");
}

int main(int argc, char **argv)
{
	return hmm_ref_test_main(argc, argv);
}
