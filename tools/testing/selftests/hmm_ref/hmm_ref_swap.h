/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Swap space for tests: the system's, or for the time of a test an unused RAM disk.
 * And a cgroup of one's own to reclaim from.
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

/* More than the heading of the table. */
static inline bool swap_exists(void)
{
	char text[1024];
	char *line;

	if (read_file("/proc/swaps", text, sizeof(text)) < 0)
		return false;
	line = strchr(text, '\n');
	return line && line[1];
}

/* The header of a swap area, or zeros. Fails for a disk that holds anything else. */
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

/* Returns 0 when there is swap, 1 when there is and swap_end() has to be called. */
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
 * MADV_PAGEOUT takes pages off the LRU lists, after it has put there those that wait in
 * the batch of its own CPU. Others wait where they were faulted in, as long as that CPU
 * has nothing to do: so this asks on each.
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

/* Puts the process into a cgroup of its own. Returns 0 when it can be reclaimed from. */
static inline int reclaim_begin(void)
{
	if (write_file(RECLAIM_ROOT "cgroup.subtree_control", "+memory"))
		return -ENOENT;
	if (mkdir(RECLAIM_GROUP, 0755) && errno != EEXIST)
		return -errno;
	return write_file(RECLAIM_GROUP "cgroup.procs", "0") ? -ENOENT :
	       access(RECLAIM_GROUP "memory.reclaim", W_OK) ? -errno : 0;
}

/* As much as can be had: less than asked for is an error that does not matter. */
static inline void reclaim_some(void)
{
	write_file(RECLAIM_GROUP "memory.reclaim", "64M");
}

/* For the parent, when whoever was in the group has gone. */
static inline void reclaim_end(void)
{
	rmdir(RECLAIM_GROUP);
}

#endif /* _HMM_REF_SWAP_H */
