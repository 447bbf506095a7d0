// SPDX-License-Identifier: GPL-2.0-only
/*
 * Other users of pages that are on the device: another process, a debugger, a disk that does DMA, a
 * driver that pins them for long, readers of /proc. Each of them gets the data, and all sides see
 * what they write.
 *
 * Covers: a fault through another process's mm that is taken for one of the process which owns the
 * device file; a pinned page that is migrated during the DMA; a device page that is passed to a
 * user which needs system memory.
 *
 * HMM_REF_SECONDS is how long the race lasts (default 2).
 */
#include <sys/ptrace.h>

#include "hmm_ref_utils.h"

#define PAGES	32UL

struct peer {
	char *mem;
	int ready, go;		/* events */
};

FIXTURE(reach)
{
	struct leak_check leak;
	struct peer peer;
	char *mem;
	char *copy;
	size_t size;
	int fd;
};

FIXTURE_SETUP(reach)
{
	leak_check_begin(_metadata, &self->leak);
	self->fd = test_open(0);
	self->size = PAGES * page_size();
	self->mem = test_map_pages(PAGES);
	self->copy = test_map_pages(PAGES);
	fill_pages(self->mem, PAGES, 1);
	test_to_device(self->fd, self->mem, PAGES);
	self->peer.mem = self->mem;
	self->peer.ready = event_new();
	self->peer.go = event_new();
}

FIXTURE_TEARDOWN_PARENT(reach)
{
	leak_check_end(_metadata, &self->leak);
}

/* ---- another process ----------------------------------------------------------- */

/* Has data of its own on the device, and checks what the other process wrote there. */
static int peer_main(void *arg)
{
	struct peer *peer = arg;
	struct hmm_ref_migrate cmd;
	int fd = hmm_ref_open(0);

	fill_pages(peer->mem, PAGES, 2);
	if (!CHECK(!_test_migrate_all(fd, HMM_REF_TO_DEVICE, peer->mem, PAGES, &cmd)) ||
	    !CHECK(!dev_bad_pages(fd, peer->mem, PAGES, 2)))
		return 1;
	event_post(peer->ready);
	if (!CHECK(event_wait(peer->go)) ||
	    !CHECK(!dev_bad_pages(fd, peer->mem, PAGES, 3)))
		return 1;
	return !CHECK(!bad_pages(peer->mem, PAGES, 3));
}

static pid_t __peer_start(struct __test_metadata *_metadata, struct peer *peer)
{
	pid_t pid = child_start(peer_main, peer);

	ASSERT_LT(0, pid);
	ASSERT_TRUE(event_wait(peer->ready));
	return pid;
}

#define peer_start()	__peer_start(_metadata, &self->peer)

static void __peer_end(struct __test_metadata *_metadata, struct peer *peer, int fd,
		       pid_t pid)
{
	event_post(peer->go);
	ASSERT_EQ(0, child_wait(pid, PATIENCE_MS));
	/* At the same address, this process has other memory. */
	test_dev_data(fd, peer->mem, PAGES, 1);
	test_cpu_data(peer->mem, PAGES, 1);
}

#define peer_end(pid)	__peer_end(_metadata, &self->peer, self->fd, pid)

TEST_F(reach, process_vm)
{
	struct iovec here = { .iov_base = self->copy, .iov_len = self->size };
	struct iovec there = { .iov_base = self->mem, .iov_len = self->size };
	pid_t pid = peer_start();

	if (process_vm_readv(pid, &here, 1, &there, 1, 0) < 0) {
		child_kill(pid);
		SKIP(return, "process_vm_readv: %s (CONFIG_CROSS_MEMORY_ATTACH)",
		     strerror(errno));
	}
	test_cpu_data(self->copy, PAGES, 2);
	fill_pages(self->copy, PAGES, 3);
	ASSERT_EQ(self->size, process_vm_writev(pid, &here, 1, &there, 1, 0));
	peer_end(pid);
}

TEST_F(reach, proc_pid_mem)
{
	pid_t pid = peer_start();
	char path[32];
	int file;

	snprintf(path, sizeof(path), "/proc/%d/mem", pid);
	file = open(path, O_RDWR | O_CLOEXEC);
	ASSERT_LE(0, file);
	ASSERT_EQ(self->size, pread(file, self->copy, self->size, (off_t)self->mem));
	test_cpu_data(self->copy, PAGES, 2);
	fill_pages(self->copy, PAGES, 3);
	ASSERT_EQ(self->size, pwrite(file, self->copy, self->size, (off_t)self->mem));
	peer_end(pid);
}

TEST_F(reach, ptrace)
{
	unsigned long words = self->size / sizeof(long), i;
	unsigned long *copy = (unsigned long *)self->copy;
	pid_t pid = peer_start();
	char *addr = self->mem;
	int status;

	ASSERT_EQ(0, ptrace(PTRACE_ATTACH, pid, NULL, NULL));
	ASSERT_EQ(pid, waitpid(pid, &status, __WALL));
	for (i = 0; i < words; i++) {
		errno = 0;
		copy[i] = ptrace(PTRACE_PEEKDATA, pid, addr + i * sizeof(long), NULL);
		ASSERT_EQ(0, errno);
	}
	test_cpu_data(self->copy, PAGES, 2);
	fill_pages(self->copy, PAGES, 3);
	for (i = 0; i < words; i++)
		ASSERT_EQ(0, ptrace(PTRACE_POKEDATA, pid, addr + i * sizeof(long),
				    copy[i]));
	ASSERT_EQ(0, ptrace(PTRACE_DETACH, pid, NULL, NULL));
	peer_end(pid);
}

/* ---- readers of /proc ---------------------------------------------------------- */

static bool read_through(const char *path)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	char buf[4096];
	ssize_t got;

	if (fd < 0)
		return errno == ENOENT;
	do {
		got = read(fd, buf, sizeof(buf));
	} while (got > 0);
	close(fd);
	return !got;
}

TEST_F(reach, proc_files)
{
	static const char *const path[] = {
		"/proc/self/smaps", "/proc/self/smaps_rollup", "/proc/self/numa_maps",
		"/proc/self/maps", "/proc/self/status", "/proc/self/statm",
	};
	unsigned char *resident = (unsigned char *)self->copy;
	unsigned long entry[PAGES];
	unsigned int i;
	int file;

	for (i = 0; i < ARRAY_SIZE(path); i++)
		EXPECT_TRUE(read_through(path[i]));
	file = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	if (file >= 0)
		EXPECT_EQ(sizeof(entry), pread(file, entry, sizeof(entry), (unsigned long)
					       self->mem / page_size() * sizeof(long)));
	EXPECT_EQ(0, mincore(self->mem, self->size, resident));
	/* 4: clear the soft-dirty bits. */
	EXPECT_EQ(0, write_file("/proc/self/clear_refs", "4"));
	EXPECT_EQ(0, write_file("/proc/self/clear_refs", "1"));
	test_pages_at(self->fd, self->mem, PAGES, HMM_REF_PAGE_DEVICE, PAGES);
	test_dev_data(self->fd, self->mem, PAGES, 1);
	ASSERT_EQ(0, dev_fill_pages(self->fd, self->mem, PAGES, 2));
	test_cpu_data(self->mem, PAGES, 2);
}

/* ---- DMA ----------------------------------------------------------------------- */

static int open_disk(void)
{
	return open(DISK, O_RDWR | O_DIRECT | O_CLOEXEC);
}

/* The disk reads the memory, and writes it. */
TEST_F(reach, direct_io)
{
	int disk = open_disk();

	if (disk < 0)
		SKIP(return, "no " DISK " (CONFIG_BLK_DEV_RAM)");
	ASSERT_EQ(self->size, pwrite(disk, self->mem, self->size, DISK_START));
	ASSERT_EQ(self->size, pread(disk, self->copy, self->size, DISK_START));
	test_cpu_data(self->copy, PAGES, 1);

	fill_pages(self->copy, PAGES, 2);
	ASSERT_EQ(self->size, pwrite(disk, self->copy, self->size, DISK_START));
	test_to_device(self->fd, self->mem, PAGES);
	ASSERT_EQ(self->size, pread(disk, self->mem, self->size, DISK_START));
	test_dev_data(self->fd, self->mem, PAGES, 2);
	test_cpu_data(self->mem, PAGES, 2);
}

/* The disk gets the data of the device, wherever the device wrote it. */
TEST_F(reach, direct_io_of_device_writes)
{
	int disk = open_disk();
	int i;

	if (disk < 0)
		SKIP(return, "no " DISK " (CONFIG_BLK_DEV_RAM)");
	for (i = 2; i < 12; i++) {
		if (i & 1)
			test_to_device(self->fd, self->mem, PAGES);
		ASSERT_EQ(0, dev_fill_pages(self->fd, self->mem, PAGES, i));
		ASSERT_EQ(self->size, pwrite(disk, self->mem, self->size, DISK_START));
		memset(self->copy, 0xcc, self->size);
		ASSERT_EQ(self->size, pread(disk, self->copy, self->size, DISK_START));
		test_cpu_data(self->copy, PAGES, i);
	}
}

struct pusher {
	int fd;
	char *mem;
	unsigned long stop;
	unsigned long migrated;
	unsigned long skipped;
};

static int push_main(void *arg)
{
	struct pusher *p = arg;
	struct hmm_ref_migrate cmd;

	while (!counter_get(&p->stop)) {
		if (!CHECK(!_test_migrate(p->fd, HMM_REF_TO_DEVICE, p->mem,
					  PAGES * page_size(), &cmd)))
			return 1;
		counter_add(&p->migrated, cmd.out_migrated);
		counter_add(&p->skipped, cmd.out_skipped);
	}
	return 0;
}

/*
 * Pages are migrated to the device all the time while the disk fills them. Pinned pages stay where
 * the disk writes the data. Other pages are migrated to system memory before it starts.
 */
TEST_F(reach, direct_io_race)
{
	unsigned long long end = now_ms() + 1000 * env_number("HMM_REF_SECONDS", 2);
	unsigned long long deadline = end + MEET_MS;
	struct pusher pusher = { .fd = self->fd, .mem = self->mem };
	int disk = open_disk(), rc = 0;
	struct worker worker;
	unsigned long i;

	if (disk < 0)
		SKIP(return, "no " DISK " (CONFIG_BLK_DEV_RAM)");
	for (i = 0; i < 2; i++) {
		fill_pages(self->copy, PAGES, i + 1);
		ASSERT_EQ(self->size, pwrite(disk, self->copy, self->size,
					     DISK_START + i * self->size));
	}
	ASSERT_EQ(0, worker_start(&worker, push_main, &pusher));
	for (i = 0; !rc && now_ms() < deadline &&
	     (now_ms() < end || counter_get(&pusher.migrated) <= PAGES); i++) {
		off_t start = DISK_START + (i & 1) * self->size;

		if (pread(disk, self->mem, self->size, start) != self->size)
			rc = errno;
		else if (bad_pages(self->mem, PAGES, (i & 1) + 1))
			rc = -1;
	}
	counter_set(&pusher.stop, 1);
	ASSERT_EQ(0, worker_wait(&worker));
	ASSERT_EQ(0, rc);
	EXPECT_LT(PAGES, pusher.migrated);
	TH_LOG("%lu reads, %lu pages migrated, %lu skipped", i, pusher.migrated,
	       pusher.skipped);
}

/* ---- long-term pins ------------------------------------------------------------ */

/* The kernel's gup_test has this file in debugfs for its own tests. */
#define GUP_TEST	"/sys/kernel/debug/gup_test"

struct longterm_pin {
	__u64 addr;
	__u64 size;
	__u32 flags;
};

#define PIN_WRITE	1
#define PIN_START	_IOW('g', 7, struct longterm_pin)
#define PIN_STOP	_IO('g', 8)
#define PIN_READ	_IOW('g', 9, __u64)

/* The pinned pages are system pages and stay, and the device writes to them. */
TEST_F(reach, longterm_pin)
{
	struct longterm_pin pin = {
		.addr = (unsigned long)self->mem,
		.size = self->size,
		.flags = PIN_WRITE,
	};
	__u64 copy = (unsigned long)self->copy;
	struct hmm_ref_migrate cmd;
	int gup = open(GUP_TEST, O_RDWR | O_CLOEXEC);

	if (gup < 0)
		SKIP(return, "no " GUP_TEST " (CONFIG_GUP_TEST)");
	ASSERT_EQ(0, ioctl(gup, PIN_START, &pin));
	test_pages_at(self->fd, self->mem, PAGES, HMM_REF_PAGE_SYSTEM, PAGES);
	test_migrate(self->fd, HMM_REF_TO_DEVICE, self->mem, self->size, &cmd);
	EXPECT_EQ(PAGES, cmd.out_skipped);
	ASSERT_EQ(0, dev_fill_pages(self->fd, self->mem, PAGES, 2));
	ASSERT_EQ(0, ioctl(gup, PIN_READ, &copy));
	test_cpu_data(self->copy, PAGES, 2);
	ASSERT_EQ(0, ioctl(gup, PIN_STOP));
	test_to_device(self->fd, self->mem, PAGES);
	test_cpu_data(self->mem, PAGES, 2);
}

int main(int argc, char **argv)
{
	return hmm_ref_test_main(argc, argv);
}
