/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Swap space for tests: that of the system, or an unused RAM disk while the test runs. Also a
 * cgroup to reclaim from.
 */
#ifndef _HMM_REF_SWAP_H
#define _HMM_REF_SWAP_H

#include <sys/stat.h>
#include <sys/swap.h>

#include "hmm_ref_file.h"
#include "hmm_ref_kernel.h"
#include "hmm_ref_process.h"

#define SWAP_DEVICE	DISK
#define SWAP_PAGES	16384UL
#define SWAP_MAGIC	"SWAPSPACE2"

/* True if the table has more than its heading. */
static inline bool swap_exists(void)
{
	char text[1024];
	char *line;

	if (read_file("/proc/swaps", text, sizeof(text)) < 0)
		return false;
	line = strchr(text, '\n');
	return line && line[1];
}

/* Writes the header of a swap area, or zeros. Fails if the disk has other data. */
static inline int swap_header(bool make)
{
	static const __u32 info[2] = { 1, SWAP_PAGES - 1 };
	char *page = aligned_alloc(page_size(), page_size());
	char *magic = page + page_size() - strlen(SWAP_MAGIC);
	int fd = open(SWAP_DEVICE, O_RDWR | O_EXCL | O_CLOEXEC);
	int rc = -EIO;

	if (fd < 0)
		return -errno;
	if (page && pread(fd, page, page_size(), 0) == (ssize_t)page_size() &&
	    (page_is_zero(page) || !memcmp(magic, SWAP_MAGIC, strlen(SWAP_MAGIC)))) {
		memset(page, 0, page_size());
		if (make) {
			memcpy(page + 1024, info, sizeof(info));
			memcpy(magic, SWAP_MAGIC, strlen(SWAP_MAGIC));
		}
		rc = pwrite(fd, page, page_size(), 0) == (ssize_t)page_size() ? 0 : -EIO;
	}
	free(page);
	close(fd);
	return rc;
}

/* Returns 0 when there is swap space, or 1 when swap_end() has to be called for it. */
static inline int swap_begin(void)
{
	int rc;

	if (swap_exists())
		return 0;
	rc = swap_header(true);
	if (rc)
		return rc;
	return swapon(SWAP_DEVICE, 0) ? -errno : 1;
}

static inline int swap_end(void)
{
	return swapoff(SWAP_DEVICE) ? -errno : swap_header(false);
}

/*
 * MADV_PAGEOUT skips pages that are not on the LRU lists. It drains the batch of its own CPU first.
 * Pages in the batch of another CPU stay there while that CPU is idle, so this runs on each CPU.
 */
static inline int page_out(char *mem, size_t size)
{
	unsigned int nr, nr_cpus;
	cpu_set_t allowed;
	int rc = 0;

	if (sched_getaffinity(0, sizeof(allowed), &allowed))
		return -errno;
	nr_cpus = CPU_COUNT(&allowed);
	for (nr = 0; !rc && nr < nr_cpus; nr++) {
		run_on_cpu(nr);
		if (madvise(mem, size, MADV_PAGEOUT))
			rc = -errno;
		sched_setaffinity(0, sizeof(allowed), &allowed);
	}
	return rc;
}

#define RECLAIM_ROOT	"/sys/fs/cgroup/"
#define RECLAIM_GROUP	RECLAIM_ROOT "hmm_ref_reclaim/"

/* Moves the process to a cgroup of its own. Returns 0 when memory can be reclaimed from it. */
static inline int reclaim_begin(void)
{
	if (write_file(RECLAIM_ROOT "cgroup.subtree_control", "+memory"))
		return -ENOENT;
	if (mkdir(RECLAIM_GROUP, 0755) && errno != EEXIST)
		return -errno;
	return write_file(RECLAIM_GROUP "cgroup.procs", "0") ? -ENOENT :
	       access(RECLAIM_GROUP "memory.reclaim", W_OK) ? -errno : 0;
}

/* Reclaims as much as possible. An error means that it was less than requested. */
static inline void reclaim_some(void)
{
	write_file(RECLAIM_GROUP "memory.reclaim", "64M");
}

/* For the parent, when all processes of the group have exited. */
static inline void reclaim_end(void)
{
	rmdir(RECLAIM_GROUP);
}

#endif /* _HMM_REF_SWAP_H */
