// SPDX-License-Identifier: GPL-2.0-only
/*
 * I/O that the kernel performs on memory of a process for AIO and io_uring, including fixed
 * buffers. The memory is on the device, or being migrated, or pinned; pinned memory has to stay.
 *
 * Covers: a pinned page that is migrated during the I/O; pins that keep pages off the device after
 * the I/O has ended.
 *
 * HMM_REF_MS is how long each race lasts (default 500).
 */
#include <linux/aio_abi.h>
#include <linux/io_uring.h>

#include "hmm_ref_huge.h"

FIXTURE(io)
{
	struct leak_check leak;
	unsigned long npages;
	size_t size;
	char *mem;
	char *copy;
	int fd;
};

FIXTURE_VARIANT(io)
{
	bool large;
};

FIXTURE_VARIANT_ADD(io, small) { .large = false };
FIXTURE_VARIANT_ADD(io, large) { .large = true };

FIXTURE_SETUP(io)
{
	leak_check_begin(_metadata, &self->leak);
	self->fd = test_open(0);
	self->npages = variant_pages(variant->large);
	self->size = self->npages * page_size();
	self->copy = test_map_blocks(1);
	self->mem = map_variant(self->fd, variant->large);
	if (!self->mem)
		SKIP(return, "no huge page can be allocated");
	test_to_device(self->fd, self->mem, self->npages);
}

FIXTURE_TEARDOWN_PARENT(io)
{
	leak_check_end(_metadata, &self->leak);
}

/* ---- methods of I/O -------------------------------------------------------------- */

struct ring {
	int fd;
	unsigned int *sq_tail, *sq_mask, *sq_array;
	unsigned int *cq_head, *cq_tail, *cq_mask;
	struct io_uring_sqe *sqes;
	struct io_uring_cqe *cqes;
	void *rings;
};

struct disk {
	int fd;
	aio_context_t aio;
	struct ring ring;
};

static int ring_begin(struct ring *ring)
{
	struct io_uring_params p = {};
	char *rings;

	ring->fd = syscall(__NR_io_uring_setup, 4, &p);
	if (ring->fd < 0)
		return -errno;
	/* One mapping has had both rings since Linux 5.4. */
	rings = mmap(NULL, p.cq_off.cqes + p.cq_entries * sizeof(*ring->cqes) +
		     p.sq_entries * sizeof(int), PROT_READ | PROT_WRITE,
		     MAP_SHARED | MAP_POPULATE, ring->fd, IORING_OFF_SQ_RING);
	ring->sqes = mmap(NULL, p.sq_entries * sizeof(*ring->sqes), PROT_READ | PROT_WRITE,
			  MAP_SHARED | MAP_POPULATE, ring->fd, IORING_OFF_SQES);
	if (rings == MAP_FAILED || ring->sqes == MAP_FAILED)
		return -errno;
	ring->rings = rings;
	ring->sq_tail = (void *)(rings + p.sq_off.tail);
	ring->sq_mask = (void *)(rings + p.sq_off.ring_mask);
	ring->sq_array = (void *)(rings + p.sq_off.array);
	ring->cq_head = (void *)(rings + p.cq_off.head);
	ring->cq_tail = (void *)(rings + p.cq_off.tail);
	ring->cq_mask = (void *)(rings + p.cq_off.ring_mask);
	ring->cqes = (void *)(rings + p.cq_off.cqes);
	return 0;
}

/* Runs one operation and returns its result. */
static int ring_do(struct ring *ring, const struct io_uring_sqe *sqe)
{
	unsigned int tail = *ring->sq_tail, head = *ring->cq_head;
	unsigned int at = tail & *ring->sq_mask;
	int rc;

	ring->sqes[at] = *sqe;
	ring->sq_array[at] = at;
	__atomic_store_n(ring->sq_tail, tail + 1, __ATOMIC_RELEASE);
	if (syscall(__NR_io_uring_enter, ring->fd, 1, 1, IORING_ENTER_GETEVENTS, NULL, 0) != 1)
		return -errno;
	if (__atomic_load_n(ring->cq_tail, __ATOMIC_ACQUIRE) == head)
		return -EPROTO;
	rc = ring->cqes[head & *ring->cq_mask].res;
	__atomic_store_n(ring->cq_head, head + 1, __ATOMIC_RELEASE);
	return rc;
}

/* Runs one operation on memory, which is buffer 0 of the ring if @fixed. Returns 0 or -errno. */
static int ring_io(struct disk *disk, bool fixed, bool write, char *mem, size_t size,
		   off_t at)
{
	struct io_uring_sqe sqe = {
		.opcode = fixed ? (write ? IORING_OP_WRITE_FIXED : IORING_OP_READ_FIXED) :
				  (write ? IORING_OP_WRITE : IORING_OP_READ),
		.fd = disk->fd,
		.off = at,
		.addr = (unsigned long)mem,
		.len = size,
	};
	int rc = ring_do(&disk->ring, &sqe);

	return rc < 0 ? rc : rc == (int)size ? 0 : -EPROTO;
}

static int ring_register(struct disk *disk, char *mem, size_t size)
{
	struct iovec buffer = { mem, size };

	return syscall(__NR_io_uring_register, disk->ring.fd, IORING_REGISTER_BUFFERS,
		       &buffer, 1) ? -errno : 0;
}

static int ring_unregister(struct disk *disk)
{
	return syscall(__NR_io_uring_register, disk->ring.fd, IORING_UNREGISTER_BUFFERS,
		       NULL, 0) ? -errno : 0;
}

static int aio(struct disk *disk, bool write, char *mem, size_t size, off_t at)
{
	struct iocb iocb = {
		.aio_lio_opcode = write ? IOCB_CMD_PWRITE : IOCB_CMD_PREAD,
		.aio_fildes = disk->fd,
		.aio_buf = (unsigned long)mem,
		.aio_nbytes = size,
		.aio_offset = at,
	};
	struct timespec patience = { .tv_sec = PATIENCE_MS / 1000 };
	struct iocb *list = &iocb;
	struct io_event event;

	if (syscall(__NR_io_submit, disk->aio, 1, &list) != 1)
		return -errno;
	if (syscall(__NR_io_getevents, disk->aio, 1, 1, &event, &patience) != 1)
		return -ETIMEDOUT;
	return event.res < 0 ? (int)event.res : event.res == (long)size ? 0 : -EPROTO;
}

enum how { AIO, URING, FIXED };

static int disk_io(struct disk *disk, enum how how, bool write, char *mem, size_t size,
		   off_t at)
{
	if (how == AIO)
		return aio(disk, write, mem, size, at);
	return ring_io(disk, how == FIXED, write, mem, size, at);
}

/* Returns why the disk cannot be used, or NULL. */
static const char *disk_begin(struct disk *disk, enum how how)
{
	memset(disk, 0, sizeof(*disk));
	disk->fd = open(DISK, O_RDWR | O_DIRECT | O_CLOEXEC);
	if (disk->fd < 0)
		return "no " DISK " (CONFIG_BLK_DEV_RAM)";
	if (how == AIO)
		return syscall(__NR_io_setup, 4, &disk->aio) ? "no AIO (CONFIG_AIO)" : NULL;
	return ring_begin(&disk->ring) ? "no io_uring (CONFIG_IO_URING)" : NULL;
}

/* ---- fixed buffers --------------------------------------------------------------- */

/* Registered pages are in system memory and stay there. The device writes to them in place. */
TEST_F(io, fixed_buffers)
{
	struct hmm_ref_migrate cmd;
	struct disk disk;
	const char *why_not = disk_begin(&disk, FIXED);

	if (why_not)
		SKIP(return, "%s", why_not);
	ASSERT_EQ(0, ring_register(&disk, self->mem, self->size));
	test_pages_at(self->fd, self->mem, self->npages, HMM_REF_PAGE_SYSTEM, self->npages);
	test_migrate(self->fd, HMM_REF_TO_DEVICE, self->mem, self->size, &cmd);
	ASSERT_EQ(self->npages, cmd.out_skipped);
	test_dev_data(self->fd, self->mem, self->npages, 1);

	/* The disk gets the data of the device, and the device reads the data of the disk. */
	ASSERT_EQ(0, dev_fill_pages(self->fd, self->mem, self->npages, 2));
	ASSERT_EQ(0, disk_io(&disk, FIXED, true, self->mem, self->size, DISK_START));
	ASSERT_EQ(self->size, pread(disk.fd, self->copy, self->size, DISK_START));
	test_cpu_data(self->copy, self->npages, 2);
	fill_pages(self->copy, self->npages, 3);
	ASSERT_EQ(self->size, pwrite(disk.fd, self->copy, self->size, DISK_START));
	ASSERT_EQ(0, disk_io(&disk, FIXED, false, self->mem, self->size, DISK_START));
	test_dev_data(self->fd, self->mem, self->npages, 3);

	ASSERT_EQ(0, ring_unregister(&disk));
	test_to_device(self->fd, self->mem, self->npages);
	test_dev_data(self->fd, self->mem, self->npages, 3);
	test_cpu_data(self->mem, self->npages, 3);
}

/* Half of a folio is pinned: the folio stays whole in system memory, or the other half migrates. */
TEST_F(io, fixed_half)
{
	unsigned long half = self->npages / 2;
	struct hmm_ref_migrate cmd;
	struct disk disk;
	const char *why_not = disk_begin(&disk, FIXED);

	if (why_not)
		SKIP(return, "%s", why_not);
	ASSERT_EQ(0, ring_register(&disk, self->mem, self->size / 2));
	test_migrate(self->fd, HMM_REF_TO_DEVICE, self->mem, self->size, &cmd);
	test_pages_at(self->fd, self->mem, half, HMM_REF_PAGE_SYSTEM, half);
	ASSERT_EQ(0, dev_fill_pages(self->fd, self->mem, self->npages, 2));
	ASSERT_EQ(0, disk_io(&disk, FIXED, true, self->mem, self->size / 2, DISK_START));
	ASSERT_EQ(self->size / 2, pread(disk.fd, self->copy, self->size / 2, DISK_START));
	test_cpu_data(self->copy, half, 2);
	test_cpu_data(self->mem, self->npages, 2);
	ASSERT_EQ(0, ring_unregister(&disk));
	test_to_device(self->fd, self->mem, self->npages);
	test_cpu_data(self->mem, self->npages, 2);
}

/* A ring that ends with its process drops its pins. */
static int exits_with_a_ring(void *arg)
{
	struct pusher *p = arg;
	int fd = hmm_ref_open(0);
	struct hmm_ref_migrate cmd;
	struct disk disk;

	if (disk_begin(&disk, FIXED))
		return KSFT_SKIP;
	return !CHECK(!_test_migrate(fd, HMM_REF_TO_DEVICE, p->mem, p->size, &cmd)) ||
	       !CHECK(!ring_register(&disk, p->mem, p->size)) ||
	       !CHECK(!bad_pages(p->mem, p->size / page_size(), 1));
}

TEST_F(io, fixed_buffers_of_a_child)
{
	struct pusher memory = { .mem = self->mem, .size = self->size };
	int rc = child_run(exits_with_a_ring, &memory);

	if (rc == KSFT_SKIP)
		SKIP(return, "no io_uring (CONFIG_IO_URING)");
	ASSERT_EQ(0, rc);
	test_to_device(self->fd, self->mem, self->npages);
	test_dev_data(self->fd, self->mem, self->npages, 1);
	test_cpu_data(self->mem, self->npages, 1);
}

/* The memory of the rings belongs to the kernel, so it stays. */
TEST_F(io, rings)
{
	char *rings[2];
	struct hmm_ref_migrate cmd;
	struct disk disk;
	const char *why_not;
	int i, rc;

	why_not = disk_begin(&disk, FIXED);
	if (why_not)
		SKIP(return, "%s", why_not);
	rings[0] = disk.ring.rings;
	why_not = disk_begin(&disk, AIO);
	if (why_not)
		SKIP(return, "%s", why_not);
	rings[1] = (char *)disk.aio;
	for (i = 0; i < 2; i++) {
		rc = _test_migrate(self->fd, HMM_REF_TO_DEVICE, rings[i], page_size(), &cmd);
		ASSERT_TRUE(rc == -EINVAL || (!rc && cmd.out_skipped == 1));
	}
}

/* ---- all methods ----------------------------------------------------------------- */

static void __test_there_and_back(struct __test_metadata *_metadata, int fd, char *mem,
				  unsigned long npages, char *copy, enum how how)
{
	size_t size = npages * page_size();
	unsigned int seed;
	struct disk disk;
	const char *why_not = disk_begin(&disk, how);

	if (why_not)
		SKIP(return, "%s", why_not);
	for (seed = 2; seed < 6; seed++) {
		ASSERT_EQ(0, dev_fill_pages(fd, mem, npages, seed));
		ASSERT_EQ(0, disk_io(&disk, how, true, mem, size, DISK_START));
		memset(copy, 0xcc, size);
		ASSERT_EQ(size, pread(disk.fd, copy, size, DISK_START));
		test_cpu_data(copy, npages, seed);

		fill_pages(copy, npages, seed + 10);
		ASSERT_EQ(size, pwrite(disk.fd, copy, size, DISK_START));
		test_to_device(fd, mem, npages);
		ASSERT_EQ(0, disk_io(&disk, how, false, mem, size, DISK_START));
		test_dev_data(fd, mem, npages, seed + 10);
		test_to_device(fd, mem, npages);
	}
	test_cpu_data(mem, npages, seed + 9);
}

TEST_F(io, aio)
{
	__test_there_and_back(_metadata, self->fd, self->mem, self->npages, self->copy, AIO);
}

TEST_F(io, uring)
{
	__test_there_and_back(_metadata, self->fd, self->mem, self->npages, self->copy, URING);
}

/* Reads once from the disk at @at. FIXED: the buffer is registered for this read only. */
static int read_once(struct disk *disk, enum how how, char *mem, size_t size, off_t at)
{
	int rc = how == FIXED ? ring_register(disk, mem, size) : 0;

	if (rc)
		return rc;
	rc = disk_io(disk, how, false, mem, size, at);
	if (how == FIXED && ring_unregister(disk))
		rc = -EPROTO;
	return rc;
}

/* Pages are migrated to the device all the time while the disk fills them. */
static void __test_race(struct __test_metadata *_metadata, int fd, char *mem,
			unsigned long npages, char *copy, enum how how)
{
	unsigned long long end = now_ms() + env_number("HMM_REF_MS", 500);
	unsigned long long deadline = end + MEET_MS;
	size_t size = npages * page_size();
	struct pusher pusher = { .fd = fd, .mem = mem, .size = size };
	struct worker worker;
	struct disk disk;
	const char *why_not;
	unsigned long i;
	int rc = 0;

	why_not = disk_begin(&disk, how);
	if (why_not)
		SKIP(return, "%s", why_not);
	for (i = 0; i < 2; i++) {
		fill_pages(copy, npages, i + 1);
		ASSERT_EQ(size, pwrite(disk.fd, copy, size, DISK_START + i * size));
	}
	ASSERT_EQ(0, worker_start(&worker, keep_pushing, &pusher));
	for (i = 0; !rc && now_ms() < deadline &&
	     (now_ms() < end || i < 4 || counter_get(&pusher.migrated) <= npages); i++) {
		rc = read_once(&disk, how, mem, size, DISK_START + (i & 1) * size);
		if (!rc && bad_pages(mem, npages, (i & 1) + 1))
			rc = -EBADMSG;
	}
	counter_set(&pusher.stop, 1);
	EXPECT_EQ(0, worker_wait(&worker));
	EXPECT_EQ(0, rc);
	EXPECT_LT(npages, pusher.migrated);
	TH_LOG("%lu reads, %lu pages migrated, %lu skipped", i, pusher.migrated,
	       pusher.skipped);
}

TEST_F(io, aio_race)
{
	__test_race(_metadata, self->fd, self->mem, self->npages, self->copy, AIO);
}

TEST_F(io, fixed_buffers_race)
{
	__test_race(_metadata, self->fd, self->mem, self->npages, self->copy, FIXED);
}

int main(int argc, char **argv)
{
	return hmm_ref_test_main(argc, argv);
}
