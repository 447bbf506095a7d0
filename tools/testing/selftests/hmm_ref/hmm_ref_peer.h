/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Two devices, and memory that migrates from one to the other.
 */
#ifndef _HMM_REF_PEER_H
#define _HMM_REF_PEER_H

#include "hmm_ref_huge.h"

/**
 * struct peers - two devices
 * @from_nr: number of the first device
 * @to_nr: number of the second device
 * @from: file of the first device
 * @to: file of the second device
 * @direct: the second device copies from the first one, not through system memory
 */
struct peers {
	unsigned int from_nr;
	unsigned int to_nr;
	int from;
	int to;
	bool direct;
};

/* Opens the first device with memory of that type, from @nr on. Returns its file, or -ENODEV. */
static inline int open_type(unsigned int *nr, unsigned int type)
{
	struct hmm_ref_info info;
	unsigned int count;
	int fd;

	for (count = hmm_ref_count(); *nr < count; (*nr)++) {
		fd = hmm_ref_open(*nr);
		if (fd >= 0 && !_test_info(fd, &info) && info.out_memory_type == type)
			return fd;
		if (fd >= 0)
			close(fd);
	}
	return -ENODEV;
}

/* Simulated devices can copy from each other. */
static inline bool is_simulated(unsigned int nr)
{
	return strstr(bus_devices[nr].driver, "/bus/platform/");
}

/* Opens a device of each type, or two devices of the same type. Returns why that fails, or NULL. */
static inline const char *peers_open(struct peers *peers, unsigned int from, unsigned int to)
{
	peers->from_nr = 0;
	peers->from = open_type(&peers->from_nr, from);
	if (peers->from < 0)
		return "no device with memory of the first type";
	peers->to_nr = from == to ? peers->from_nr + 1 : 0;
	peers->to = open_type(&peers->to_nr, to);
	if (peers->to < 0)
		return "no other device with memory of the second type";
	peers->direct = is_simulated(peers->from_nr) && is_simulated(peers->to_nr);
	return NULL;
}

/*
 * Fills a device, except its bad pages, with the data of @seed. Returns the memory, and in @npages
 * its number of pages, which is 0 for a device that is too large.
 */
static inline char *__test_fill_device(struct __test_metadata *_metadata, int fd,
				       unsigned int seed, unsigned long *npages)
{
	unsigned long i, n, window = block_pages();
	struct hmm_ref_stats stats;
	struct hmm_ref_info info;
	char *mem;

	test_info(fd, &info);
	test_stats(fd, &stats);
	*npages = 0;
	if (info.out_capacity > CAPACITY_MAX)
		return NULL;
	n = info.out_capacity / page_size() - stats.out_pages_retired;
	mem = test_map_blocks(info.out_capacity / block_size());
	ASSERT_EQ(0, madvise(mem, info.out_capacity, MADV_NOHUGEPAGE));
	fill_pages(mem, n, seed);
	for (i = 0; i < n; i += window)
		test_to_device(fd, mem + i * page_size(), n - i < window ? n - i : window);
	*npages = n;
	return mem;
}

#define test_fill_device(fd, seed, npages) \
	__test_fill_device(_metadata, fd, seed, npages)

/* Where a device sees pages of another device with memory of @type. */
static inline unsigned int seen_elsewhere(unsigned int type)
{
	return type == HMM_REF_MEMORY_COHERENT ? HMM_REF_PAGE_REMOTE : HMM_REF_PAGE_NONE;
}

/* All pages migrate in one command. */
static inline void __test_takes_all(struct __test_metadata *_metadata, int fd, char *mem,
				    unsigned long npages)
{
	struct hmm_ref_migrate cmd;

	test_migrate(fd, HMM_REF_TO_DEVICE, mem, npages * page_size(), &cmd);
	ASSERT_EQ(npages, cmd.out_migrated);
	ASSERT_EQ(0, cmd.out_already);
	ASSERT_EQ(0, cmd.out_skipped);
}

#define test_takes_all(fd, mem, npages)	__test_takes_all(_metadata, fd, mem, npages)

#endif /* _HMM_REF_PEER_H */
