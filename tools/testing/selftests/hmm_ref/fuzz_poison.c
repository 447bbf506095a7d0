// SPDX-License-Identifier: GPL-2.0-only
/*
 * Memory failure in the fuzzer: during a pause, when no page moves, the supervisor marks pages of a
 * worker's chaos region as bad (hwpoison), if they are on a device. From then on each access to
 * them may fail, as any access to the chaos region may. An access must not get foreign data, and no
 * other page may be affected.
 *
 * FUZZ_POISON is the number of pages that a run may lose (0: none).
 */
#include "fuzz.h"

#define CORRUPT		"/sys/kernel/debug/hwpoison/corrupt-pfn"
#define PRESENT		0x8000000000000000ULL
#define SWAPPED		0x4000000000000000ULL
#define FRAME		0x007fffffffffffffULL

/* Page frame numbers of device memory, both inclusive. */
static struct {
	unsigned long first, last;
} device_memory[64];

/*
 * The swap type of device entries is not known to user space, so the resource ranges identify
 * device pages.
 */
static void find_device_memory(void)
{
	FILE *file = fopen("/proc/iomem", "re");
	unsigned long start, end;
	unsigned int i = 0;
	char line[128];

	memset(device_memory, 0, sizeof(device_memory));
	while (file && i < ARRAY_SIZE(device_memory) && fgets(line, sizeof(line), file)) {
		if (!strstr(line, "hmm_ref") || sscanf(line, " %lx-%lx", &start, &end) != 2)
			continue;
		device_memory[i].first = start / PAGE;
		device_memory[i++].last = end / PAGE;
	}
	if (file)
		fclose(file);
}

static bool is_device_pfn(unsigned long pfn)
{
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(device_memory); i++)
		if (pfn >= device_memory[i].first && pfn <= device_memory[i].last)
			return true;
	return false;
}

/* Returns the page frame number of a device page in a pagemap entry, or 0. */
static unsigned long device_pfn(uint64_t entry)
{
	unsigned long pfn = entry & FRAME;

	if (!(entry & PRESENT))
		pfn = entry & SWAPPED ? pfn >> 5 : 0;
	return pfn && is_device_pfn(pfn) ? pfn : 0;
}

/* Returns the page frame number of a device page in the chaos region of a process, or 0. */
static unsigned long find_page(pid_t pid)
{
	const struct region *chaos = &regions[R_CHAOS];
	static uint64_t entries[CHAOS_PAGES];
	unsigned long pfn = 0, first, i;
	char path[48];
	ssize_t n;
	int fd;

	snprintf(path, sizeof(path), "/proc/%d/pagemap", pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return 0;
	n = pread(fd, entries, sizeof(entries),
		  (unsigned long)chaos->base / PAGE * sizeof(entries[0]));
	close(fd);
	if (n != sizeof(entries))
		return 0;
	first = below(&super.random, CHAOS_PAGES);
	for (i = 0; !pfn && i < CHAOS_PAGES; i++)
		pfn = device_pfn(entries[(first + i) % CHAOS_PAGES]);
	return pfn;
}

/* Poisons one page of any worker, if there is one. */
void poison_some(void)
{
	unsigned int nr = below(&super.random, WORKERS), i;
	unsigned long pfn = 0;
	char text[24];
	int rc;

	if (super.poisoned == shared->poison || access(CORRUPT, W_OK))
		return;
	find_device_memory();
	for (i = 0; !pfn && i < WORKERS; i++, nr = (nr + 1) % WORKERS)
		if (super.workers[nr])
			pfn = find_page(super.workers[nr]);
	if (!pfn)
		return;
	snprintf(text, sizeof(text), "%#lx", pfn);
	rc = write_file(CORRUPT, text);
	if (rc && rc != -EBUSY && rc != -EHWPOISON)
		fuzz_complain("%s to " CORRUPT ": %d", text, rc);
	super.poisoned++;
}
