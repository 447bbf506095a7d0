// SPDX-License-Identifier: GPL-2.0-only
/*
 * Sockets: data that is sent from memory on the device and received into memory on the device, and
 * a file of the device that is passed to another process.
 *
 * Covers: data copied from, or to, a page that is no longer mapped; a file that works on the memory
 * of the process that received it; pages that live as long as the file instead of the process.
 */
#include <sys/socket.h>

#include "hmm_ref_huge.h"

FIXTURE(socket)
{
	struct leak_check leak;
	unsigned long npages;
	size_t size;
	char *mem;
	int pair[2];
	int fd;
};

FIXTURE_VARIANT(socket)
{
	bool large;
};

FIXTURE_VARIANT_ADD(socket, small) { .large = false };
FIXTURE_VARIANT_ADD(socket, large) { .large = true };

FIXTURE_SETUP(socket)
{
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, self->pair))
		SKIP(return, "no AF_UNIX (CONFIG_UNIX)");
	leak_check_begin(_metadata, &self->leak);
	self->fd = test_open(0);
	self->npages = variant_pages(variant->large);
	self->size = self->npages * page_size();
	self->mem = map_variant(self->fd, variant->large);
	if (!self->mem)
		SKIP(return, "no huge page can be allocated");
	test_to_device(self->fd, self->mem, self->npages);
}

FIXTURE_TEARDOWN_PARENT(socket)
{
	leak_check_end(_metadata, &self->leak);
}

/* ---- data ------------------------------------------------------------------------ */

struct sender {
	int socket;
	char *mem;
	size_t size;
	unsigned long rounds;
};

static int send_main(void *arg)
{
	struct sender *sender = arg;
	unsigned long round;
	ssize_t sent;
	size_t at;

	for (round = 0; round < sender->rounds; round++) {
		for (at = 0; at < sender->size; at += sent) {
			sent = send(sender->socket, sender->mem + at, sender->size - at,
				    MSG_NOSIGNAL);
			if (!CHECK(sent > 0))
				return 1;
		}
	}
	return 0;
}

static int receive(int socket, char *mem, size_t size)
{
	struct pollfd pollfd = { .fd = socket, .events = POLLIN };
	ssize_t got;
	size_t at;

	for (at = 0; at < size; at += got) {
		if (poll(&pollfd, 1, PATIENCE_MS) != 1)
			return -ETIMEDOUT;
		got = recv(socket, mem + at, size - at, 0);
		if (got <= 0)
			return got ? -errno : -EPIPE;
	}
	return 0;
}

/*
 * Data is sent from device memory and received into device memory, while both are migrated to the
 * device.
 */
TEST_F(socket, send_and_receive)
{
	const unsigned long rounds = variant->large ? 4 : 30;
	char *there = map_variant(self->fd, variant->large);
	struct pusher pushers[2] = {
		{ .fd = self->fd, .mem = self->mem, .size = self->size },
		{ .fd = self->fd, .mem = there, .size = self->size },
	};
	struct sender sender = { .mem = self->mem, .size = self->size, .rounds = rounds };
	struct worker workers[3];
	unsigned long round;
	int i, rc = 0;

	ASSERT_NE(NULL, there);
	sender.socket = self->pair[0];
	for (i = 0; i < 2; i++)
		ASSERT_EQ(0, worker_start(&workers[i], keep_pushing, &pushers[i]));
	ASSERT_EQ(0, worker_start(&workers[2], send_main, &sender));
	for (round = 0; !rc && round < rounds; round++) {
		memset(there, 0, self->size);
		rc = receive(self->pair[1], there, self->size);
		if (!rc && bad_pages(there, self->npages, 1))
			rc = -EBADMSG;
	}
	/* The sender ends when the socket is closed. */
	close(self->pair[1]);
	for (i = 0; i < 2; i++) {
		counter_set(&pushers[i].stop, 1);
		EXPECT_EQ(0, worker_wait(&workers[i]));
	}
	ASSERT_EQ(0, rc);
	ASSERT_EQ(0, worker_wait(&workers[2]));
	EXPECT_LT(0, pushers[0].migrated);
	EXPECT_LT(0, pushers[1].migrated);
	TH_LOG("%lu pages migrated where they are sent, %lu where they are received",
	       pushers[0].migrated, pushers[1].migrated);
}

/* ---- a file that is passed on ---------------------------------------------------- */

union rights {
	struct cmsghdr header;
	char space[CMSG_SPACE(sizeof(int))];
};

static struct msghdr message_of(struct iovec *iov, union rights *rights)
{
	memset(rights, 0, sizeof(*rights));
	return (struct msghdr) {
		.msg_iov = iov, .msg_iovlen = 1,
		.msg_control = rights, .msg_controllen = sizeof(*rights),
	};
}

static int send_file(int socket, int fd)
{
	struct iovec iov = { "f", 1 };
	union rights rights;
	struct msghdr message = message_of(&iov, &rights);

	rights.header.cmsg_level = SOL_SOCKET;
	rights.header.cmsg_type = SCM_RIGHTS;
	rights.header.cmsg_len = CMSG_LEN(sizeof(int));
	memcpy(CMSG_DATA(&rights.header), &fd, sizeof(fd));
	return sendmsg(socket, &message, MSG_NOSIGNAL) == 1 ? 0 : -errno;
}

/* Returns the file, or -errno. */
static int receive_file(int socket)
{
	struct pollfd pollfd = { .fd = socket, .events = POLLIN };
	char byte;
	struct iovec iov = { &byte, 1 };
	union rights rights;
	struct msghdr message = message_of(&iov, &rights);
	int fd = -1;

	if (poll(&pollfd, 1, PATIENCE_MS) != 1)
		return -ETIMEDOUT;
	if (recvmsg(socket, &message, MSG_CMSG_CLOEXEC) != 1)
		return -errno;
	memcpy(&fd, CMSG_DATA(&rights.header), sizeof(fd));
	return fd;
}

/* Commands without an address work in any process, all others only on the owner's memory. */
static int check_foreign_file(int fd, char *mem)
{
	struct hmm_ref_exclusive exclusive;
	struct hmm_ref_page_state state;
	struct hmm_ref_snapshot snapshot;
	struct hmm_ref_migrate migrate;
	struct hmm_ref_atomic atomic;
	struct hmm_ref_audit audit;
	struct hmm_ref_stats stats;
	struct hmm_ref_info info;
	unsigned long word = 0;

	return !CHECK(!_test_info(fd, &info)) || !CHECK(!_test_stats(fd, &stats)) ||
	       !CHECK(!_test_audit(fd, &audit)) || !CHECK(!audit.out_violations) ||
	       !CHECK(_test_migrate(fd, HMM_REF_TO_DEVICE, mem, page_size(), &migrate) ==
		      -EBADF) ||
	       !CHECK(_test_migrate(fd, HMM_REF_TO_SYSTEM, mem, page_size(), &migrate) ==
		      -EBADF) ||
	       !CHECK(_test_read(fd, mem, sizeof(word), &word) == -EBADF) ||
	       !CHECK(_test_write(fd, mem, sizeof(word), &word) == -EBADF) ||
	       !CHECK(_test_snapshot(fd, mem, page_size(), &state, &snapshot) == -EBADF) ||
	       !CHECK(_test_exclusive(fd, mem, page_size(), &exclusive) == -EBADF) ||
	       !CHECK(_test_atomic(fd, HMM_REF_ATOMIC_ADD, mem, 8, 1, 0, &atomic) == -EBADF);
}

struct receiver {
	int socket;
	char *mem;
	unsigned long npages;
};

static int receiver_main(void *arg)
{
	struct receiver *receiver = arg;
	int fd = receive_file(receiver->socket);

	return !CHECK(fd >= 0) || check_foreign_file(fd, receiver->mem) ||
	       !CHECK(!bad_pages(receiver->mem, receiver->npages, 1)) ||
	       check_foreign_file(fd, receiver->mem);
}

/* Another process, which shares the pages by fork(), uses the file. */
TEST_F(socket, file_is_passed_on)
{
	struct receiver receiver = { .mem = self->mem, .npages = self->npages };
	pid_t pid;

	receiver.socket = self->pair[1];
	pid = child_start(receiver_main, &receiver);
	ASSERT_LT(0, pid);
	ASSERT_EQ(0, send_file(self->pair[0], self->fd));
	test_dev_data(self->fd, self->mem, self->npages, 1);
	ASSERT_EQ(0, child_wait(pid, 2 * PATIENCE_MS));
	test_dev_data(self->fd, self->mem, self->npages, 1);
	test_cpu_data(self->mem, self->npages, 1);
}

/* Sends a file, with pages on the device, and exits. */
static int owner_main(void *arg)
{
	struct receiver *receiver = arg;
	struct hmm_ref_migrate cmd;
	int fd = hmm_ref_open(0);

	fill_pages(receiver->mem, receiver->npages, 2);
	return !CHECK(fd >= 0) ||
	       !CHECK(!_test_migrate_all(fd, HMM_REF_TO_DEVICE, receiver->mem,
					 receiver->npages, &cmd)) ||
	       !CHECK(!dev_bad_pages(fd, receiver->mem, receiver->npages, 2)) ||
	       !CHECK(!send_file(receiver->socket, fd));
}

/* The file outlives its process, in the socket and in this process. The pages do not. */
TEST_F(socket, file_outlives_its_owner)
{
	struct receiver receiver = { .mem = self->mem, .npages = self->npages };
	struct hmm_ref_stats before, after;
	int fd;

	receiver.socket = self->pair[0];
	test_to_system(self->fd, self->mem, self->npages);
	test_stats(self->fd, &before);
	ASSERT_EQ(0, child_run(owner_main, &receiver));
	ASSERT_EQ(0, leak_wait(self->fd, before.out_pages_in_use, &after));
	fd = receive_file(self->pair[1]);
	ASSERT_LE(0, fd);
	ASSERT_EQ(0, check_foreign_file(fd, self->mem));
	test_cpu_data(self->mem, self->npages, 1);
}

int main(int argc, char **argv)
{
	return hmm_ref_test_main(argc, argv);
}
