/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Processes that use a device while it exists, and open it again when it is back. Their pages must
 * have the right data whenever the device is removed.
 */
#ifndef _HMM_REF_LOAD_H
#define _HMM_REF_LOAD_H

#include "hmm_ref_utils.h"

#define LOADS	3

struct load {
	pid_t pids[LOADS];
	unsigned int nr;	/* number of the device */
	/* Shared with the processes. */
	unsigned long stop;
	unsigned long rounds;	/* completed rounds of all processes */
	unsigned long outages;	/* how often a process has found the device gone */
};

static inline bool load_is_gone(int rc)
{
	return rc == -ENODEV || rc == -ENOENT || rc == -ENXIO;
}

/* Uses the device once. Returns 0, or -ENODEV when the device has been removed. */
static inline int load_use_once(int fd, char *mem, unsigned long npages, unsigned long *seed)
{
	struct hmm_ref_migrate cmd;
	int rc;

	rc = _test_migrate(fd, HMM_REF_TO_DEVICE, mem, npages * page_size(), &cmd);
	if (rc)
		return rc;
	rc = dev_fill_pages(fd, mem, npages, *seed + 1);
	if (rc) /* some pages have the new data, others the old data */
		fill_pages(mem, npages, *seed + 1);
	++*seed;
	return rc;
}

static inline int load_main(void *arg)
{
	struct load *load = arg;
	unsigned long npages = block_pages(), seed = 1;
	char *mem = map_blocks(1);
	int fd = -ENODEV, rc;

	if (!CHECK(mem != MAP_FAILED))
		return 1;
	fill_pages(mem, npages, seed);
	while (!counter_get(&load->stop)) {
		if (fd < 0) {
			fd = hmm_ref_open(load->nr);
			if (fd < 0 && !CHECK(load_is_gone(fd)))
				return 1;
			usleep(fd < 0 ? 10000 : 0);
			continue;
		}
		rc = load_use_once(fd, mem, npages, &seed);
		if (rc) {
			if (!CHECK(rc == -ENODEV))
				return 1;
			close(fd);
			fd = -ENODEV;
		}
		if (!CHECK(!bad_pages(mem, npages, seed)))
			return 1;
		counter_add(rc ? &load->outages : &load->rounds, 1);
	}
	return 0;
}

static inline struct load *__test_load_start(struct __test_metadata *_metadata, unsigned int nr)
{
	struct load *load = test_map_shared(page_size());
	int i;

	load->nr = nr;
	for (i = 0; i < LOADS; i++) {
		load->pids[i] = child_start(load_main, load);
		ASSERT_LT(0, load->pids[i]);
	}
	return load;
}

#define test_load_start(nr)	__test_load_start(_metadata, nr)

static inline bool load_counts(unsigned long *counter, unsigned long more_than)
{
	unsigned long long end = now_ms() + MEET_MS;

	while (counter_get(counter) <= more_than && now_ms() < end)
		usleep(10000);
	return counter_get(counter) > more_than;
}

/* Waits for a round that begins after this call to complete, for at most MEET_MS. */
static inline bool load_goes_on(struct load *load)
{
	return load_counts(&load->rounds, counter_get(&load->rounds) + LOADS);
}

/* Also printed in between, since the test may be killed by its timeout. */
static inline void __test_load_log(struct __test_metadata *_metadata, struct load *load,
				   unsigned long rounds)
{
	TH_LOG("%lu rounds, %lu of the load, which found it gone %lu times", rounds,
	       counter_get(&load->rounds), counter_get(&load->outages));
}

#define test_load_log(load, rounds)	__test_load_log(_metadata, load, rounds)

/* Stops the processes. Returns how many of them have found an error. */
static inline int load_stop(struct load *load)
{
	int i, failed = 0;

	counter_set(&load->stop, 1);
	for (i = 0; i < LOADS; i++)
		failed += child_wait(load->pids[i], MEET_MS) != 0;
	return failed;
}

#endif /* _HMM_REF_LOAD_H */
