// SPDX-License-Identifier: GPL-2.0-only
/*
 * The fuzzer's operations with other users of memory: NUMA nodes; pins by a pipe, by direct I/O and
 * by io_uring; and files of a process in another worker, by SCM_RIGHTS.
 */
#include <linux/io_uring.h>
#include <linux/mempolicy.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>

#include "fuzz.h"

/* ---- nodes ----------------------------------------------------------------------- */

static int place_by_policy(const struct op *op, const struct place *at)
{
	static const int modes[] = {
		MPOL_DEFAULT, MPOL_PREFERRED, MPOL_BIND, MPOL_INTERLEAVE, MPOL_LOCAL,
	};
	int mode = modes[op->value % ARRAY_SIZE(modes)];
	unsigned long nodes = 1 + op->offset % 3;
	unsigned int flags = op->value & 64 ? MPOL_MF_MOVE_ALL : MPOL_MF_MOVE;

	if (mode == MPOL_DEFAULT || mode == MPOL_LOCAL)
		nodes = 0;
	if (op->value & 128)
		flags |= MPOL_MF_STRICT;
	return syscall(__NR_mbind, at->addr, at->npages * PAGE, mode, &nodes,
		       8 * sizeof(nodes), flags) ? -errno : 0;
}

static int place_pages(const struct op *op, const struct place *at)
{
	int flags = op->value & 64 ? MPOL_MF_MOVE_ALL : MPOL_MF_MOVE;
	int nodes[SMALL_PAGES], status[SMALL_PAGES];
	void *pages[SMALL_PAGES];
	unsigned long i;

	for (i = 0; i < at->npages; i++) {
		pages[i] = at->addr + i * PAGE;
		nodes[i] = (op->value >> i) & 1;
		status[i] = 0;
	}
	return syscall(__NR_move_pages, 0, at->npages, pages, op->value & 128 ? NULL : nodes,
		       status, flags) < 0 ? -errno : 0;
}

int do_place(const struct op *op)
{
	unsigned long from = 1 + (op->value & 1), to = 3 - from;
	struct place at;

	find_place(op, false, SMALL_PAGES, &at);
	if (!at.region || shared->nodes < 2)
		return -ENXIO;
	switch (op->variant % 8) {
	case 0:
		return syscall(__NR_migrate_pages, 0, 8 * sizeof(from), &from, &to) < 0 ?
		       -errno : 0;
	case 1:
	case 2:
	case 3:
		return place_by_policy(op, &at);
	default:
		return place_pages(op, &at);
	}
}

/* ---- pins ------------------------------------------------------------------------ */

/* Kept open by this process: the read end of a pipe, a ring. The value is fd + 1, or 0 for none. */
int held_pipe;
static int held_ring;

void release(int *held, int fd)
{
	int was = __atomic_exchange_n(held, fd + 1, __ATOMIC_ACQ_REL);

	if (was)
		close(was - 1);
}

/*
 * Readable memory must be read. Only an injected failure of the copy to system memory excuses an
 * error.
 */
static int check_pin(const struct place *at, int rc, const char *what)
{
	if (rc == -EFAULT && place_is_owned(at) && !may_fail() &&
	    may(at->region, at->off, at->bytes, MAY_READ))
		fuzz_fail("%s of %p + %zu: EFAULT", what, at->region->base + at->off,
			  at->bytes);
	return rc;
}

/* The pipe holds references to the pages. With @hold it stays open. */
static int pin_by_pipe(const struct place *at, bool hold)
{
	struct iovec vec = { at->region->base + at->off, at->bytes };
	ssize_t put, got;
	int ends[2];

	if (pipe2(ends, O_CLOEXEC | O_NONBLOCK))
		return -errno;
	put = vmsplice(ends[1], &vec, 1, SPLICE_F_NONBLOCK);
	put = put < 0 ? -errno : put;
	close(ends[1]);
	if (hold && put > 0) {
		release(&held_pipe, ends[0]);
		return 0;
	}
	got = put > 0 ? read(ends[0], scratch, put) : 0;
	close(ends[0]);
	if (put <= 0)
		return check_pin(at, put, "vmsplice");
	if (got != put)
		fuzz_fail("%zd of %zd bytes come out of a pipe", got, put);
	check_data(at, at->off, scratch, got, "vmsplice");
	return 0;
}

/* The RAM disk has a swap area and, behind it, a part for each slot. */
static off_t own_part(void)
{
	return (128UL << 20) + (self - shared->slots) * SMALL_PAGES * PAGE;
}

static int write_direct(const struct place *at, int disk)
{
	ssize_t put = pwrite(disk, at->addr, at->npages * PAGE, own_part());

	if (put < 0)
		return check_pin(at, -errno, "O_DIRECT");
	if (put && pread(disk, scratch, put, own_part()) != put)
		return -EIO;
	check_data(at, at->page * PAGE, scratch, put, "O_DIRECT");
	return 0;
}

static int read_direct(const struct op *op, const struct place *at, int disk)
{
	const char *from = data_for(at, op, at->npages * PAGE);
	ssize_t got;

	memmove(data, from, at->npages * PAGE);
	if (pwrite(disk, data, at->npages * PAGE, own_part()) < (ssize_t)(at->npages * PAGE))
		return -EIO;
	got = pread(disk, at->addr, at->npages * PAGE, own_part());
	if (got > 0 && place_is_owned(at))
		note_written(at->region, at->page * PAGE, data, got);
	return got < 0 ? -errno : 0;
}

static int pin_by_disk(const struct op *op, struct place *at, bool write)
{
	int disk, rc;

	if (!shared->disk)
		return -ENXIO;
	disk = open("/dev/ram0", O_RDWR | O_DIRECT | O_CLOEXEC);
	if (disk < 0)
		return -errno;
	at->off = at->page * PAGE;
	at->bytes = at->npages * PAGE;
	rc = write ? read_direct(op, at, disk) : write_direct(at, disk);
	close(disk);
	return rc;
}

/* Fixed buffers are pinned until the ring is closed. */
static int pin_by_ring(const struct place *at)
{
	struct iovec vec = { at->region->base + at->off, at->bytes };
	struct io_uring_params params = {};
	int ring, rc;

	ring = syscall(__NR_io_uring_setup, 1, &params);
	if (ring < 0)
		return -ENXIO;
	rc = syscall(__NR_io_uring_register, ring, IORING_REGISTER_BUFFERS, &vec, 1) ?
	     -errno : 0;
	if (rc)
		close(ring);
	else
		release(&held_ring, ring);
	return rc;
}

int do_pin(const struct op *op)
{
	unsigned int what = op->variant % 8;
	bool write = what == 3 || what == 4;
	struct place at;

	find_place(op, write, 16, &at);
	if (!at.region)
		return -ENXIO;
	if (at.bytes > at.npages * PAGE - op->offset)
		at.bytes = at.npages * PAGE - op->offset;
	switch (what) {
	case 0:
		return pin_by_pipe(&at, false);
	case 1:
		return pin_by_pipe(&at, true);
	case 2:
	case 3:
	case 4:
		return pin_by_disk(op, &at, write);
	case 5:
		return pin_by_ring(&at);
	case 6:
		release(&held_ring, -1);
		return 0;
	default:
		release(&held_pipe, -1);
		return 0;
	}
}

/* ---- files of other workers ------------------------------------------------------ */

union passed {
	struct cmsghdr header;
	char space[CMSG_SPACE(sizeof(int))];
};

/* Sends a file to the worker that receives first. */
static int give_file(unsigned int file)
{
	struct iovec vec = { &file, sizeof(file) };
	union passed control = {};
	struct msghdr msg = {
		.msg_iov = &vec, .msg_iovlen = 1,
		.msg_control = &control, .msg_controllen = sizeof(control),
	};
	int fd = file_fd(file);

	control.header.cmsg_level = SOL_SOCKET;
	control.header.cmsg_type = SCM_RIGHTS;
	control.header.cmsg_len = CMSG_LEN(sizeof(int));
	memcpy(CMSG_DATA(&control.header), &fd, sizeof(fd));
	return sendmsg(shared->sockets[0], &msg, MSG_DONTWAIT) < 0 ? -errno : 0;
}

/* Returns the received fd, and its flags in @file, or -EAGAIN when there is none. */
static int take_file(unsigned int *file)
{
	struct iovec vec = { file, sizeof(*file) };
	union passed control = {};
	struct msghdr msg = {
		.msg_iov = &vec, .msg_iovlen = 1,
		.msg_control = &control, .msg_controllen = sizeof(control),
	};
	int fd;

	if (recvmsg(shared->sockets[1], &msg, MSG_DONTWAIT | MSG_CMSG_CLOEXEC) < 0)
		return -errno;
	if (control.header.cmsg_type != SCM_RIGHTS ||
	    msg.msg_controllen < CMSG_LEN(sizeof(int)))
		return -ENXIO;
	memcpy(&fd, CMSG_DATA(&control.header), sizeof(fd));
	return fd;
}

/* Mostly files of the old interface: these act on the memory of the opener. */
int do_pass(const struct op *op)
{
	unsigned int file, was;
	bool old;
	int fd;

	if (shared->sockets[0] < 0)
		return -ENXIO;
	if (op->variant & 1) {
		file = file_find(op->slot, op->variant & 14 ? FILE_OLD : 0);
		return file ? give_file(file) : -ENXIO;
	}
	fd = take_file(&file);
	if (fd < 0)
		return fd == -EAGAIN ? -ENXIO : fd;
	old = file & FILE_OLD;
	fd = own_number(fd, old);
	if (fd < 0)
		return -errno;
	was = file_swap(op->slot, (fd + 1) | FILE_FOREIGN | (old ? FILE_OLD : 0));
	if (was)
		close(file_fd(was));
	return 0;
}
