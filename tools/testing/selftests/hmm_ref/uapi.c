// SPDX-License-Identifier: GPL-2.0-only
/*
 * The checks of every ioctl before it does its work: struct size, flags, reserved members,
 * pointers, and the address space.
 *
 * The fixture has a variant for each ioctl, so that none is left out. Bad address ranges are tested
 * in range.c.
 *
 * Covers: commands of a file that act on another process's memory, or on the memory of a process
 * that has exited (a forked child's pages end up in the parent's device page table; an ioctl
 * retries forever because the mm is dead); outputs that are lost when an error is returned.
 */
#include "hmm_ref_utils.h"

#define PAGES	4

union any_cmd {
	__u32 size;
	struct hmm_ref_info info;
	struct hmm_ref_migrate migrate;
	struct hmm_ref_access access;
	struct hmm_ref_snapshot snapshot;
	struct hmm_ref_stats stats;
	struct hmm_ref_audit audit;
	struct hmm_ref_exclusive exclusive;
	struct hmm_ref_atomic atomic;
	struct hmm_ref_evict evict;
	struct hmm_ref_evict_all evict_all;
};

FIXTURE(ioctl)
{
	struct leak_check leak;
	struct hmm_ref_stats before;
	int fd;
	char *mem;	/* PAGES of data */
	char *buf;	/* PAGES for outputs */
	char *cmd;	/* two pages for the struct; the second one is zero */
};

FIXTURE_VARIANT(ioctl)
{
	unsigned long request;
	unsigned int size;
	unsigned int grown;	/* bytes added since the first version */
	unsigned int outs;	/* offset of the first output */
	unsigned int flags;	/* flags that exist */
	bool any_mm;
};

FIXTURE_VARIANT_ADD(ioctl, info)
{
	.request = HMM_REF_IOC_INFO,
	.size = sizeof(struct hmm_ref_info),
	.grown = sizeof(struct hmm_ref_info) -
		 offsetof(struct hmm_ref_info, out_folio_size),
	.outs = offsetof(struct hmm_ref_info, out_page_size),
	.any_mm = true,
};

FIXTURE_VARIANT_ADD(ioctl, migrate)
{
	.request = HMM_REF_IOC_MIGRATE,
	.size = sizeof(struct hmm_ref_migrate),
	.flags = HMM_REF_MIGRATE_MAP,
	.outs = offsetof(struct hmm_ref_migrate, out_migrated),
};

FIXTURE_VARIANT_ADD(ioctl, read)
{
	.request = HMM_REF_IOC_READ,
	.size = sizeof(struct hmm_ref_access),
	.outs = offsetof(struct hmm_ref_access, out_bytes),
};

FIXTURE_VARIANT_ADD(ioctl, write)
{
	.request = HMM_REF_IOC_WRITE,
	.size = sizeof(struct hmm_ref_access),
	.outs = offsetof(struct hmm_ref_access, out_bytes),
};

FIXTURE_VARIANT_ADD(ioctl, snapshot)
{
	.request = HMM_REF_IOC_SNAPSHOT,
	.size = sizeof(struct hmm_ref_snapshot),
	.outs = offsetof(struct hmm_ref_snapshot, out_pages),
};

FIXTURE_VARIANT_ADD(ioctl, stats)
{
	.request = HMM_REF_IOC_STATS,
	.size = sizeof(struct hmm_ref_stats),
	.grown = sizeof(struct hmm_ref_stats) -
		 offsetof(struct hmm_ref_stats, out_exclusive),
	.outs = offsetof(struct hmm_ref_stats, out_pages_total),
	.any_mm = true,
};

FIXTURE_VARIANT_ADD(ioctl, audit)
{
	.request = HMM_REF_IOC_AUDIT,
	.size = sizeof(struct hmm_ref_audit),
	.outs = offsetof(struct hmm_ref_audit, out_total),
	.any_mm = true,
};

FIXTURE_VARIANT_ADD(ioctl, exclusive)
{
	.request = HMM_REF_IOC_EXCLUSIVE,
	.size = sizeof(struct hmm_ref_exclusive),
	.outs = offsetof(struct hmm_ref_exclusive, out_pages),
};

FIXTURE_VARIANT_ADD(ioctl, atomic)
{
	.request = HMM_REF_IOC_ATOMIC,
	.size = sizeof(struct hmm_ref_atomic),
	.outs = offsetof(struct hmm_ref_atomic, out_old),
};

FIXTURE_VARIANT_ADD(ioctl, evict)
{
	.request = HMM_REF_IOC_EVICT,
	.size = sizeof(struct hmm_ref_evict),
	.outs = offsetof(struct hmm_ref_evict, out_evicted),
};

FIXTURE_VARIANT_ADD(ioctl, evict_all)
{
	.request = HMM_REF_IOC_EVICT_ALL,
	.size = sizeof(struct hmm_ref_evict_all),
	.outs = offsetof(struct hmm_ref_evict_all, out_evicted),
	.any_mm = true,
};

/* Makes a struct that the ioctl accepts. WRITE and ATOMIC write the existing data. */
static void fill_cmd(union any_cmd *cmd, unsigned long request, unsigned int size,
		     const void *mem, const void *buf)
{
	unsigned long addr = (unsigned long)mem;
	unsigned long length = PAGES * page_size();

	memset(cmd, 0, size);
	cmd->size = size;
	switch (request) {
	case HMM_REF_IOC_MIGRATE:
		cmd->migrate.direction = HMM_REF_TO_DEVICE;
		cmd->migrate.addr = addr;
		cmd->migrate.length = length;
		break;
	case HMM_REF_IOC_READ:
	case HMM_REF_IOC_WRITE:
		cmd->access.addr = addr;
		cmd->access.length = length;
		cmd->access.buf = (unsigned long)buf;
		break;
	case HMM_REF_IOC_SNAPSHOT:
		cmd->snapshot.addr = addr;
		cmd->snapshot.length = length;
		cmd->snapshot.buf = (unsigned long)buf;
		break;
	case HMM_REF_IOC_EXCLUSIVE:
		cmd->exclusive.addr = addr;
		cmd->exclusive.length = length;
		break;
	case HMM_REF_IOC_ATOMIC:
		cmd->atomic.op = HMM_REF_ATOMIC_ADD;
		cmd->atomic.addr = addr;
		cmd->atomic.length = 8;
		break;
	case HMM_REF_IOC_EVICT:
		cmd->evict.addr = addr;
		cmd->evict.length = length;
		break;
	}
}

#define FILL_CMD(cmd) \
	fill_cmd((union any_cmd *)(cmd), variant->request, variant->size, \
		 self->mem, self->buf)

FIXTURE_SETUP(ioctl)
{
	leak_check_begin(_metadata, &self->leak);
	self->fd = test_open(0);
	self->mem = test_map_pages(PAGES);
	self->buf = test_map_pages(PAGES);
	self->cmd = test_map_pages(2);
	fill_pages(self->mem, PAGES, 1);
	fill_pages(self->buf, PAGES, 1);
	test_stats(self->fd, &self->before);
}

FIXTURE_TEARDOWN_PARENT(ioctl)
{
	leak_check_end(_metadata, &self->leak);
}

/* A refused command has migrated and written nothing. */
static void __test_refused(struct __test_metadata *_metadata, int fd,
			   const struct hmm_ref_stats *before,
			   unsigned long request, void *cmd, int err)
{
	struct hmm_ref_stats stats;
	union any_cmd copy;

	memcpy(&copy, cmd, sizeof(copy));
	ASSERT_EQ(-err, _test_ioctl(fd, request, cmd));
	EXPECT_EQ(0, memcmp(&copy, cmd, sizeof(copy)));

	test_stats(fd, &stats);
	EXPECT_EQ(before->out_pages_in_use, stats.out_pages_in_use);
	EXPECT_EQ(before->out_to_device, stats.out_to_device);
	EXPECT_EQ(before->out_device_faults, stats.out_device_faults);
}

#define test_refused(cmd, err) do { \
	__test_refused(_metadata, self->fd, &self->before, variant->request, cmd, err); \
	test_cpu_data(self->mem, PAGES, 1); \
	test_cpu_data(self->buf, PAGES, 1); \
} while (0)

/* Basis of all other tests: without changes, the command succeeds and writes its outputs. */
TEST_F(ioctl, accepted)
{
	unsigned char *cmd = (unsigned char *)self->cmd;
	unsigned int i;

	FILL_CMD(cmd);
	memset(cmd + variant->outs, 0xcc, variant->size - variant->outs);
	ASSERT_EQ(0, _test_ioctl(self->fd, variant->request, cmd));

	for (i = variant->outs; i + 8 <= variant->size; i += 8) {
		EXPECT_NE(0, memcmp(cmd + i, "\xcc\xcc\xcc\xcc\xcc\xcc\xcc\xcc", 8)) {
			TH_LOG("output at offset %u was not written", i);
		}
	}
	for (i = variant->size; i < variant->size + 64; i++)
		ASSERT_EQ(0, cmd[i]);
}

#ifdef __x86_64__

#define NR_COMPAT_IOCTL	54

/* Calls the ioctl as a 32-bit program. @arg has to be below 4 GiB. */
static int compat_ioctl(int fd, unsigned long request, void *arg)
{
	int rc;

	asm volatile("int $0x80"
		     : "=a" (rc)
		     : "0" (NR_COMPAT_IOCTL), "b" (fd), "c" ((unsigned int)request), "d" (arg)
		     : "memory", "cc", "r8", "r9", "r10", "r11");
	return rc;
}

/* Ends by a signal on kernels without 32-bit system calls. */
static int try_compat(void *arg)
{
	return compat_ioctl(-1, 0, NULL) == -EBADF ? 0 : KSFT_SKIP;
}

TEST_F(ioctl, compat)
{
	unsigned char *cmd;
	unsigned int i;

	if (child_run(try_compat, NULL))
		SKIP(return, "no 32-bit system calls (CONFIG_IA32_EMULATION)");
	cmd = __test_map(_metadata, mmap(NULL, page_size(), PROT_READ | PROT_WRITE,
					 MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT, -1, 0));
	FILL_CMD(cmd);
	memset(cmd + variant->outs, 0xcc, variant->size - variant->outs);
	ASSERT_EQ(0, compat_ioctl(self->fd, variant->request, cmd));
	for (i = variant->outs; i + 8 <= variant->size; i += 8)
		EXPECT_NE(0, memcmp(cmd + i, "\xcc\xcc\xcc\xcc\xcc\xcc\xcc\xcc", 8));
	for (i = variant->size; i < variant->size + 64; i++)
		ASSERT_EQ(0, cmd[i]);
	((union any_cmd *)cmd)->size = 0;
	ASSERT_EQ(-EINVAL, compat_ioctl(self->fd, variant->request, cmd));
}

#endif

/* The kernel writes only out_* members. */
TEST_F(ioctl, inputs_stay)
{
	union any_cmd before;

	FILL_CMD(self->cmd);
	FILL_CMD(&before);
	ASSERT_EQ(0, _test_ioctl(self->fd, variant->request, self->cmd));
	ASSERT_EQ(0, memcmp(&before, self->cmd, variant->outs));
}

TEST_F(ioctl, short_struct)
{
	static const unsigned int cut[] = { 1, 4, 8 };
	union any_cmd *cmd = (union any_cmd *)self->cmd;
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(cut); i++) {
		FILL_CMD(cmd);
		cmd->size = variant->size - variant->grown - cut[i];
		test_refused(cmd, EINVAL);
	}
	FILL_CMD(cmd);
	cmd->size = 0;
	test_refused(cmd, EINVAL);
	cmd->size = sizeof(__u32);
	test_refused(cmd, EINVAL);
}

/* A program that was compiled with the first version gets the members of that version. */
TEST_F(ioctl, first_struct)
{
	unsigned int size = variant->size - variant->grown;
	char *tail = self->cmd + size;
	unsigned int i;

	FILL_CMD(self->cmd);
	((union any_cmd *)self->cmd)->size = size;
	memset(tail, 0xcc, 64);
	ASSERT_EQ(0, _test_ioctl(self->fd, variant->request, self->cmd));
	ASSERT_EQ(size, ((union any_cmd *)self->cmd)->size);
	for (i = 0; i < 64; i++)
		ASSERT_EQ((char)0xcc, tail[i]);
}

TEST_F(ioctl, grown_struct)
{
	union any_cmd *cmd = (union any_cmd *)self->cmd;

	FILL_CMD(cmd);
	cmd->size = variant->size + 64;
	ASSERT_EQ(0, _test_ioctl(self->fd, variant->request, cmd));
	ASSERT_EQ(variant->size + 64, cmd->size);
}

TEST_F(ioctl, grown_struct_garbage)
{
	union any_cmd *cmd = (union any_cmd *)self->cmd;
	char *tail = self->cmd + variant->size;

	FILL_CMD(cmd);
	cmd->size = variant->size + 64;
	tail[0] = 1;
	test_refused(cmd, E2BIG);
	tail[0] = 0;
	tail[63] = 1;
	test_refused(cmd, E2BIG);

	FILL_CMD(cmd);
	cmd->size = page_size() + 1;
	self->cmd[page_size()] = 1;
	test_refused(cmd, E2BIG);
}

/* For a size beyond a page, the kernel neither reads nor allocates that much memory. */
TEST_F(ioctl, huge_struct)
{
	union any_cmd *cmd = (union any_cmd *)self->cmd;
	unsigned long long start = now_ms();

	FILL_CMD(cmd);
	cmd->size = page_size() + 8;
	test_refused(cmd, E2BIG);
	cmd->size = ~0U;
	test_refused(cmd, E2BIG);
	ASSERT_GT(5000, now_ms() - start);
}

TEST_F(ioctl, unknown_flag)
{
	union any_cmd *cmd = (union any_cmd *)self->cmd;
	unsigned int bit;

	for (bit = 0; bit < 32; bit++) {
		if (variant->flags & 1U << bit)
			continue;
		FILL_CMD(cmd);
		cmd->info.flags = 1U << bit;
		test_refused(cmd, EOPNOTSUPP);
	}
}

TEST_F(ioctl, reserved_member)
{
	union any_cmd *cmd = (union any_cmd *)self->cmd;
	__u32 *reserved;

	if (variant->request == HMM_REF_IOC_MIGRATE)
		reserved = &cmd->migrate.__reserved;
	else if (variant->request == HMM_REF_IOC_ATOMIC)
		reserved = &cmd->atomic.__reserved;
	else
		return;
	FILL_CMD(cmd);
	*reserved = 1;
	test_refused(cmd, EOPNOTSUPP);
	*reserved = 1U << 31;
	test_refused(cmd, EOPNOTSUPP);
}

TEST_F(ioctl, bad_struct_pointer)
{
	union any_cmd *cmd = (union any_cmd *)self->cmd;
	struct hmm_ref_stats stats;
	char *end = self->cmd + page_size();

	ASSERT_EQ(-EFAULT, _test_ioctl(self->fd, variant->request, NULL));
	ASSERT_EQ(-EFAULT, _test_ioctl(self->fd, variant->request, (void *)-4096UL));
	ASSERT_EQ(-EFAULT, _test_ioctl(self->fd, variant->request, (void *)(1UL << 63)));

	/* The begin of the struct is mapped, its end is not. */
	FILL_CMD(cmd);
	memcpy(end - 8, cmd, 8);
	ASSERT_EQ(0, munmap(end, page_size()));
	ASSERT_EQ(-EFAULT, _test_ioctl(self->fd, variant->request, end - 8));
	ASSERT_EQ(-EFAULT, _test_ioctl(self->fd, variant->request, end - 2));

	test_stats(self->fd, &stats);
	ASSERT_EQ(self->before.out_pages_in_use, stats.out_pages_in_use);
	test_cpu_data(self->mem, PAGES, 1);
}

/* If outputs cannot be written, the command has no effect that they would report. */
TEST_F(ioctl, readonly_struct)
{
	FILL_CMD(self->cmd);
	ASSERT_EQ(0, mprotect(self->cmd, page_size(), PROT_READ));
	test_refused(self->cmd, EFAULT);
}

struct foreign {
	int fd;
	unsigned long request;
	unsigned int size;
	const char *mem;
	const char *buf;
	int expected;
	int opened, gone;	/* events */
};

static int foreign_ioctl(void *arg)
{
	struct foreign *foreign = arg;
	union any_cmd cmd;

	fill_cmd(&cmd, foreign->request, foreign->size, foreign->mem, foreign->buf);
	if (!CHECK(_test_ioctl(foreign->fd, foreign->request, &cmd) ==
		   foreign->expected))
		return 1;
	return !CHECK(!bad_pages(foreign->mem, PAGES, 1));
}

/* A forked child has the file but another address space. */
TEST_F(ioctl, forked_child)
{
	struct foreign foreign = {
		.fd = self->fd,
		.request = variant->request,
		.size = variant->size,
		.mem = self->mem,
		.buf = self->buf,
		.expected = variant->any_mm ? 0 : -EBADF,
	};
	struct hmm_ref_stats stats;

	ASSERT_EQ(0, child_run(foreign_ioctl, &foreign));
	test_stats(self->fd, &stats);
	ASSERT_EQ(self->before.out_pages_in_use, stats.out_pages_in_use);
	test_cpu_data(self->mem, PAGES, 1);
	test_cpu_data(self->buf, PAGES, 1);
}

/* So has a child that got the file from a parent which has exited. */
static int orphan_main(struct foreign *foreign)
{
	if (!CHECK(event_wait(foreign->gone)))
		return 1;
	return foreign_ioctl(foreign);
}

static int parent_main(void *arg)
{
	struct foreign *foreign = arg;
	pid_t pid;

	foreign->fd = hmm_ref_open(0);
	if (!CHECK(foreign->fd >= 0))
		return 1;
	pid = fork();
	if (!pid)
		_exit(orphan_main(foreign));
	return !CHECK(pid > 0);
}

TEST_F(ioctl, opener_is_gone)
{
	struct foreign foreign = {
		.request = variant->request,
		.size = variant->size,
		.mem = self->mem,
		.buf = self->buf,
		.expected = variant->any_mm ? 0 : -EBADF,
		.gone = event_new(),
	};
	int status;

	ASSERT_EQ(0, prctl(PR_SET_CHILD_SUBREAPER, 1));
	ASSERT_EQ(0, child_run(parent_main, &foreign));
	event_post(foreign.gone);
	ASSERT_LT(0, waitpid(-1, &status, 0));
	ASSERT_EQ(0, status);
}

#define STACK_PAGES	16

/* vfork() and threads share the address space. */
TEST_F(ioctl, same_mm)
{
	struct foreign foreign = {
		.fd = self->fd,
		.request = variant->request,
		.size = variant->size,
		.mem = self->mem,
		.buf = self->buf,
	};
	char *stack = test_map_pages(STACK_PAGES);
	struct worker worker;
	int status;
	pid_t pid;

	ASSERT_EQ(0, worker_start(&worker, foreign_ioctl, &foreign));
	ASSERT_EQ(0, worker_wait(&worker));

	pid = clone(foreign_ioctl, stack + STACK_PAGES * page_size(),
		    CLONE_VM | CLONE_VFORK | SIGCHLD, &foreign);
	ASSERT_LT(0, pid);
	ASSERT_EQ(pid, waitpid(pid, &status, 0));
	ASSERT_EQ(0, status);
}

/* The file survives exec. The address space that it mirrors does not. */
#define EXEC_FD		"HMM_REF_UAPI_EXEC_FD"
#define EXEC_CMD	"HMM_REF_UAPI_EXEC_CMD"

static int exec_main(void)
{
	struct foreign foreign = {
		.fd = env_number(EXEC_FD, 0),
		.request = _IO(HMM_REF_IOC_TYPE, env_number(EXEC_CMD, 0) >> 16),
		.size = env_number(EXEC_CMD, 0) & 0xfff,
		.expected = env_number(EXEC_CMD, 0) & 0x8000 ? 0 : -EBADF,
		.mem = map_pages(PAGES),
		.buf = map_pages(PAGES),
	};

	fill_pages((void *)foreign.mem, PAGES, 1);
	fill_pages((void *)foreign.buf, PAGES, 1);
	return foreign_ioctl(&foreign);
}

static int exec_child(void *arg)
{
	char *const argv[] = { "uapi", NULL };

	execv("/proc/self/exe", argv);
	return !CHECK(!"execv");
}

TEST_F(ioctl, after_exec)
{
	char text[24];
	int fd = dup(self->fd);

	ASSERT_LT(0, fd);
	snprintf(text, sizeof(text), "%d", fd);
	setenv(EXEC_FD, text, 1);
	snprintf(text, sizeof(text), "%lu", _IOC_NR(variant->request) << 16 |
		 (variant->any_mm ? 0x8000UL : 0) | variant->size);
	setenv(EXEC_CMD, text, 1);
	ASSERT_EQ(0, child_run(exec_child, NULL));
}

int main(int argc, char **argv)
{
	if (getenv(EXEC_FD))
		return hmm_ref_probe() ? 1 : exec_main();
	return hmm_ref_test_main(argc, argv);
}
