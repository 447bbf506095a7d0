// SPDX-License-Identifier: GPL-2.0-only
/*
 * The device is unbound although a task keeps it busy for as long as it likes.
 *
 * A command over a huge range did not check whether the device is gone, and unbind waited for its
 * end, unkillable. A command that waits for user space, behind a userfaultfd, also blocked the
 * unbind of other devices, because all devices shared one SRCU.
 */
#include <linux/userfaultfd.h>

#include "hmm_ref_utils.h"

#define HUGE_RANGE	(1UL << 44)

FIXTURE(busy)
{
	struct leak_check leak;
	unsigned long *started;
	unsigned int nr;
	pid_t pid;
};

FIXTURE_SETUP(busy)
{
	if (!device_can_unbind(0))
		SKIP(return, "the device cannot be unbound");
	leak_check_begin(_metadata, &self->leak);
	self->nr = self->leak.devices - 1;
	self->started = test_map_shared(page_size());
}

FIXTURE_TEARDOWN_PARENT(busy)
{
	if (hmm_ref_count() < self->leak.devices)
		EXPECT_EQ(0, device_bind(self->nr));
	leak_check_end(_metadata, &self->leak);
}

static int unbind(void *arg)
{
	unsigned int *nr = arg;

	return device_unbind(*nr) != 0;
}

struct client {
	unsigned int nr;
	unsigned long *started;
};

/* Hours of work: pages that cannot be read stay, window by window. */
static int looks_at_huge_range(void *arg)
{
	struct client *client = arg;
	struct hmm_ref_migrate cmd;
	int fd = hmm_ref_open(client->nr);
	void *mem;
	int rc;

	mem = mmap(NULL, HUGE_RANGE, PROT_NONE,
		   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (!CHECK(fd >= 0) || !CHECK(mem != MAP_FAILED))
		return 1;
	counter_set(client->started, 1);
	rc = _test_migrate(fd, HMM_REF_TO_DEVICE, mem, HUGE_RANGE, &cmd);
	return !CHECK(rc == -ENODEV) || !CHECK(!cmd.out_migrated);
}

/* Waits until it is killed, because no thread serves the fault. */
static int reads_without_a_server(void *arg)
{
	struct uffdio_api api = { .api = UFFD_API };
	struct uffdio_register reg = { .mode = UFFDIO_REGISTER_MODE_MISSING };
	struct client *client = arg;
	int fd = hmm_ref_open(client->nr);
	int uffd = syscall(__NR_userfaultfd, O_CLOEXEC);
	void *mem = map_pages(1);
	char byte;

	if (!CHECK(fd >= 0) || !CHECK(uffd >= 0) || !CHECK(mem != MAP_FAILED))
		return 1;
	reg.range.start = (unsigned long)mem;
	reg.range.len = page_size();
	if (!CHECK(!ioctl(uffd, UFFDIO_API, &api)) ||
	    !CHECK(!ioctl(uffd, UFFDIO_REGISTER, &reg)))
		return 1;
	counter_set(client->started, 1);
	_test_read(fd, mem, 1, &byte);
	return 0;
}

/* Waits in copy_from_user() of the command's struct, until it is killed. */
static int unread_command(void *arg)
{
	struct uffdio_api api = { .api = UFFD_API };
	struct uffdio_register reg = { .mode = UFFDIO_REGISTER_MODE_MISSING };
	struct client *client = arg;
	int fd = hmm_ref_open(client->nr);
	int uffd = syscall(__NR_userfaultfd, O_CLOEXEC);
	void *mem = map_pages(1);

	if (!CHECK(fd >= 0) || !CHECK(uffd >= 0) || !CHECK(mem != MAP_FAILED))
		return 1;
	reg.range.start = (unsigned long)mem;
	reg.range.len = page_size();
	if (!CHECK(!ioctl(uffd, UFFDIO_API, &api)) ||
	    !CHECK(!ioctl(uffd, UFFDIO_REGISTER, &reg)))
		return 1;
	counter_set(client->started, 1);
	_test_ioctl(fd, HMM_REF_IOC_STATS, mem);
	return 0;
}

static bool wait_started(unsigned long *started)
{
	unsigned long long deadline = now_ms() + PATIENCE_MS;

	while (!counter_get(started) && now_ms() < deadline)
		usleep(1000);
	usleep(100000);
	return counter_get(started);
}

TEST_F(busy, with_a_huge_range)
{
	struct client client = { self->nr, self->started };

	self->pid = child_start(looks_at_huge_range, &client);
	ASSERT_LT(0, self->pid);
	ASSERT_TRUE(wait_started(self->started));
	EXPECT_EQ(0, child_run(unbind, &self->nr));
	EXPECT_EQ(0, child_wait(self->pid, PATIENCE_MS));
}

TEST_F(busy, another_device)
{
	struct client client = { 0, self->started };

	if (!self->nr)
		SKIP(return, "needs two devices");
	if (access("/proc/sys/vm/unprivileged_userfaultfd", F_OK))
		SKIP(return, "no userfaultfd (CONFIG_USERFAULTFD)");
	self->pid = child_start(reads_without_a_server, &client);
	ASSERT_LT(0, self->pid);
	ASSERT_TRUE(wait_started(self->started));
	EXPECT_EQ(0, child_run(unbind, &self->nr));
	EXPECT_EQ(CHILD_SIGNAL + SIGKILL, child_kill(self->pid));
}

/* A command that has not read its struct does not keep the device. */
TEST_F(busy, with_an_unread_command)
{
	struct client client = { self->nr, self->started };

	if (access("/proc/sys/vm/unprivileged_userfaultfd", F_OK))
		SKIP(return, "no userfaultfd (CONFIG_USERFAULTFD)");
	self->pid = child_start(unread_command, &client);
	ASSERT_LT(0, self->pid);
	ASSERT_TRUE(wait_started(self->started));
	EXPECT_EQ(0, child_run(unbind, &self->nr));
	EXPECT_EQ(CHILD_SIGNAL + SIGKILL, child_kill(self->pid));
}

int main(int argc, char **argv)
{
	return hmm_ref_test_main(argc, argv);
}
