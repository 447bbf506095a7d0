// SPDX-License-Identifier: GPL-2.0-only
/*
 * A page of mlocked memory that was unmapped, and a CPU that is idle afterwards.
 *
 * munlock() keeps a reference to each single page in a batch of the CPU. The batch is drained when
 * that CPU next unmaps memory, or has 31 pages. Until then the device page is used without a
 * mapping, and unbind waited for it, as long as the CPU slept. Found by the fuzzer, as a page in
 * use after all processes had exited.
 */
#include "hmm_ref_utils.h"

#define KHUGEPAGED	"/sys/kernel/mm/transparent_hugepage/khugepaged/scan_sleep_millisecs"

FIXTURE(mlocked)
{
	struct leak_check leak;
	char pause[24];		/* original scan interval of khugepaged */
	unsigned int nr;
	unsigned long *state;
};

FIXTURE_SETUP(mlocked)
{
	cpu_set_t cpus;

	if (!device_can_unbind(0))
		SKIP(return, "the device cannot be unbound");
	if (sched_getaffinity(0, sizeof(cpus), &cpus) || CPU_COUNT(&cpus) < 2)
		SKIP(return, "needs two CPUs");
	leak_check_begin(_metadata, &self->leak);
	self->nr = 0;
	self->state = test_map_shared(page_size());
	/* khugepaged drains all batches before it scans. */
	if (read_file(KHUGEPAGED, self->pause, sizeof(self->pause)) > 0)
		ASSERT_EQ(0, write_file(KHUGEPAGED, "1000000"));
}

FIXTURE_TEARDOWN_PARENT(mlocked)
{
	if (hmm_ref_count() < self->leak.devices)
		EXPECT_EQ(0, device_bind(self->nr));
	if (self->pause[0])
		EXPECT_EQ(0, write_file(KHUGEPAGED, self->pause));
	leak_check_end(_metadata, &self->leak);
}

static int unbind(void *arg)
{
	unsigned int *nr = arg;

	return device_unbind(*nr) != 0;
}

struct client {
	unsigned int nr;
	unsigned long *state;
};

/* Leaves a page in the batch of its CPU, and sleeps until it is told to exit. */
static int drops_a_locked_page(void *arg)
{
	struct client *client = arg;
	struct hmm_ref_migrate cmd;
	int fd, rc;
	char *mem;

	run_on_cpu(1);
	fd = hmm_ref_open(client->nr);
	mem = map_pages(1);
	if (!CHECK(fd >= 0) || !CHECK(mem != MAP_FAILED) || !CHECK(!mlock(mem, page_size())))
		return 1;
	touch_write(mem, 1);
	rc = _test_migrate_all(fd, HMM_REF_TO_DEVICE, mem, 1, &cmd);
	if (!CHECK(!rc) || !CHECK(!madvise(mem, page_size(), MADV_DONTNEED_LOCKED)))
		return 1;
	close(fd);
	counter_set(client->state, 1);
	while (counter_get(client->state) == 1)
		usleep(10000);
	return 0;
}

TEST_F(mlocked, unbind_after_unmap)
{
	struct client client = { self->nr, self->state };
	pid_t pid, unbinder;
	int i;

	/* This process must not drain the batch of the other CPU. */
	run_on_cpu(0);
	pid = child_start(drops_a_locked_page, &client);
	ASSERT_LT(0, pid);
	for (i = 0; i < PATIENCE_MS / 10 && !counter_get(self->state); i++)
		usleep(10000);
	ASSERT_EQ(1, counter_get(self->state));
	unbinder = child_start(unbind, &self->nr);
	for (i = 0; i < PATIENCE_MS / 10 && waitpid(unbinder, NULL, WNOHANG) != unbinder; i++)
		usleep(10000);
	EXPECT_GT(PATIENCE_MS / 10, i);
	/* The child drains the batch when it exits. */
	counter_set(self->state, 2);
	EXPECT_EQ(0, child_wait(pid, PATIENCE_MS));
	if (i == PATIENCE_MS / 10)
		EXPECT_EQ(0, child_wait(unbinder, PATIENCE_MS));
}

int main(int argc, char **argv)
{
	return hmm_ref_test_main(argc, argv);
}
