/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The fuzzer's bad memory: in a pause, when no page moves, the supervisor has the kernel
 * told that pages of a worker's chaos region are bad, if they are on a device. From then
 * on each access to them may fail, which chaos always may; what must not happen is that
 * an access to them gets foreign data, or that another page suffers.
 *
 * FUZZ_POISON is how many pages a run may lose by that (0: none).
 */
#ifndef _HMM_REF_FUZZ_POISON_H
#define _HMM_REF_FUZZ_POISON_H

#include "hmm_ref_fuzz_model.h"
#include "hmm_ref_fuzz_super.h"

#define CORRUPT		"/sys/kernel/debug/hwpoison/corrupt-pfn"
#define PRESENT		0x8000000000000000ULL
#define SWAPPED		0x4000000000000000ULL
#define FRAME		0x007fffffffffffffULL

/* Is that the memory of a device? Its type of entry has no name in user space. */
static inline bool is_device_pfn(unsigned long pfn)
{
	FILE *file = fopen("/proc/iomem", "re");
	unsigned long start, end;
	bool found = false;
	char line[128];

	while (file && !found && fgets(line, sizeof(line), file))
		found = strstr(line, "hmm_ref") &&
			sscanf(line, " %lx-%lx", &start, &end) == 2 &&
			pfn >= start / PAGE && pfn <= end / PAGE;
	if (file)
		fclose(file);
	return found;
}

/* Return: the number of the device page at that address, or 0. */
static inline unsigned long device_pfn(int pagemap, const char *addr)
{
	unsigned long pfn;
	uint64_t entry;

	if (pread(pagemap, &entry, sizeof(entry), (unsigned long)addr / PAGE * sizeof(entry)) !=
	    sizeof(entry))
		return 0;
	pfn = entry & FRAME;
	if (!(entry & PRESENT))
		pfn = entry & SWAPPED ? pfn >> 5 : 0;
	return pfn && is_device_pfn(pfn) ? pfn : 0;
}

/* One page of that process, if there is one. */
static inline void poison_one(pid_t pid)
{
	unsigned long page = below(&super.rng, regions[R_CHAOS].npages), pfn = 0, i;
	char path[48];
	int pagemap, rc;

	snprintf(path, sizeof(path), "/proc/%d/pagemap", pid);
	pagemap = open(path, O_RDONLY | O_CLOEXEC);
	if (pagemap < 0)
		return;
	for (i = 0; !pfn && i < 64; i++)
		pfn = device_pfn(pagemap, regions[R_CHAOS].base +
				 (page + i) % regions[R_CHAOS].npages * PAGE);
	close(pagemap);
	if (!pfn)
		return;
	snprintf(path, sizeof(path), "%#lx", pfn);
	rc = write_file(CORRUPT, path);
	if (rc && rc != -EBUSY && rc != -EHWPOISON)
		fuzz_complain("%s to " CORRUPT ": %d", path, rc);
	super.poisoned++;
}

static inline void poison_some(void)
{
	unsigned int nr = below(&super.rng, WORKERS);

	if (super.poisoned < shared->poison && super.workers[nr] &&
	    !access(CORRUPT, W_OK))
		poison_one(super.workers[nr]);
}

#endif /* _HMM_REF_FUZZ_POISON_H */
