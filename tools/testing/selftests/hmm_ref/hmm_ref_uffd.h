/* SPDX-License-Identifier: GPL-2.0-only */
/* A userfaultfd for a range of memory. */
#ifndef _HMM_REF_UFFD_H
#define _HMM_REF_UFFD_H

#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <unistd.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>

#include <linux/userfaultfd.h>

/* Returns the userfaultfd, or -errno. */
static inline int uffd_watch(char *mem, size_t size, unsigned long long features,
			     unsigned long mode)
{
	struct uffdio_api api = { .api = UFFD_API, .features = features };
	struct uffdio_register range = {
		.range = { .start = (unsigned long)mem, .len = size },
		.mode = mode,
	};
	int uffd = syscall(__NR_userfaultfd, O_CLOEXEC | O_NONBLOCK);
	int rc;

	if (uffd >= 0 && !ioctl(uffd, UFFDIO_API, &api) &&
	    !ioctl(uffd, UFFDIO_REGISTER, &range))
		return uffd;
	rc = -errno;
	if (uffd >= 0)
		close(uffd);
	return rc;
}

#endif /* _HMM_REF_UFFD_H */
