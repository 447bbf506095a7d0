/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Access to /dev/hmm_dmirror*, the interface of test_hmm. The commands are described in the
 * driver's dmirror.c.
 */
#ifndef _HMM_REF_OLD_H
#define _HMM_REF_OLD_H

#include "hmm_ref_dev.h"

struct old_cmd {
	__u64 addr;
	__u64 buf;
	__u64 npages;
	__u64 out_pages;
	__u64 out_faults;
};

enum {
	OLD_READ, OLD_WRITE, OLD_TO_DEVICE, OLD_TO_SYSTEM, OLD_SNAPSHOT, OLD_EXCLUSIVE,
	OLD_CHECK_EXCLUSIVE, OLD_RELEASE, OLD_FLAGS, OLD_READ_UNLOCKED, OLD_COMMANDS
};

#define OLD_IOC(nr)	_IOWR('H', nr, struct old_cmd)

/* Returns a file or -errno. */
static inline int old_open(unsigned int nr)
{
	char path[32];
	int fd;

	snprintf(path, sizeof(path), "/dev/hmm_dmirror%u", nr);
	fd = open(path, O_RDWR | O_CLOEXEC);
	return fd < 0 ? -errno : fd;
}

/* Returns 0 or -errno. */
static inline int old_command(int fd, unsigned int nr, const void *addr,
			      unsigned long npages, const void *buf, struct old_cmd *cmd)
{
	memset(cmd, 0xcc, sizeof(*cmd));
	cmd->addr = (unsigned long)addr;
	cmd->buf = (unsigned long)buf;
	cmd->npages = npages;
	return ioctl(fd, OLD_IOC(nr), cmd) ? -errno : 0;
}

/* Evicts all pages of the device. */
static inline int old_release(int fd)
{
	struct old_cmd cmd;

	return old_command(fd, OLD_RELEASE, NULL, 0, NULL, &cmd);
}

#endif /* _HMM_REF_OLD_H */
