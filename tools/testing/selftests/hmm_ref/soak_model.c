// SPDX-License-Identifier: GPL-2.0-only
/*
 * The soak test's model: the memory of a worker, and its expected content.
 *
 * A worker has two regions, at the same addresses in all processes: whole blocks, where huge pages
 * are possible, and a smaller region that begins and ends off a block. The shadow is a copy of
 * their expected content, byte for byte, in memory that is used by no device, KSM or swap. Only the
 * worker's main thread changes data, all other threads and processes migrate it. A child has a copy
 * of both.
 *
 * A page that was freed by MADV_FREE has its data or zeros until it is written: the only case in
 * which the model does not know the content.
 */
#include "hmm_ref_copy.h"
#include "soak.h"

#define ARENA		0x200000000000UL
#define MEGA(n)		((void *)(ARENA + ((unsigned long)(n) << 20)))
#define MOST_REPORTED	5U
#define TOUCHES		100000U		/* more than any mode makes fail */

struct soak_region soak_regions[SOAK_REGIONS] = {
	{ MEGA(2), 2 * 512, MEGA(64), MEGA(96) },
	{ MEGA(33), 128, MEGA(80), MEGA(97) },
};

/**
 * soak_find_place() - find the pages and bytes of an operation
 * @op: the operation
 * @at: set to the part of its range that is in the region
 */
void soak_find_place(const struct soak_op *op, struct soak_place *at)
{
	struct soak_region *region = &soak_regions[op->region];
	size_t left;

	at->region = region;
	at->page = op->page % region->npages;
	at->npages = region->npages - at->page;
	if (at->npages > op->npages)
		at->npages = op->npages;
	at->addr = region->base + at->page * PAGE;
	at->off = at->page * PAGE + op->offset;
	left = region->npages * PAGE - at->off;
	at->bytes = left < op->bytes ? left : op->bytes;
}

/* ---- the CPU --------------------------------------------------------------------- */

static void on_fault(int sig, siginfo_t *info, void *context)
{
	end_copy(sig);
	soak_fail(SOAK_ERROR, "signal %d at %p", sig, info->si_addr);
}

/* Losses before this process, or its ancestors, had any pages. */
static unsigned int losses_before;

/**
 * soak_any_lost() - test whether pages of this process may have been on a lost device
 */
bool soak_any_lost(void)
{
	return soak_losses() != losses_before;
}

/*
 * Maps a new page instead of one that was on a lost device. Returns false when that is no
 * explanation.
 */
static bool replace_lost(const char *addr)
{
	struct soak_region *region;

	for (region = soak_regions; region < soak_regions + SOAK_REGIONS; region++) {
		unsigned long page = (addr - region->base) / PAGE;

		if (addr < region->base || page >= region->npages)
			continue;
		if (!soak_any_lost())
			return false;
		soak_map(region, page, 1);
		__atomic_add_fetch(&soak_self->lost_pages, 1, __ATOMIC_RELAXED);
		return true;
	}
	return false;
}

/**
 * soak_cpu_copy() - copy bytes from or to a region by CPU
 * @to: destination
 * @from: source
 * @n: number of bytes
 *
 * A copy that an injected fault has ended is repeated: no data is lost, unless the device is
 * lost. Then the page and its shadow are zero.
 *
 * Return: 0, or SIGSEGV.
 */
int soak_cpu_copy(void *to, const void *from, size_t n)
{
	unsigned int tries;
	int sig;

	for (tries = 0; tries < TOUCHES; tries++) {
		soak_modes_begin();
		sig = try_copy(to, from, n);
		if (sig != SIGBUS)
			return sig;
		if (!(soak_modes_may(SOAK_BY_CPU) & MAY_SIGBUS)) {
			if (!replace_lost(from) && !replace_lost(to))
				soak_fail(SOAK_ERROR,
					  "SIGBUS at %p or %p, and nothing was made to fail",
					  from, to);
			continue;
		}
		if (!tries)
			soak_note_injected();
		soak_beat();
		usleep(100);
	}
	soak_fail(SOAK_ERROR, "SIGBUS at %p or %p, each time", from, to);
}

/* ---- expected content ------------------------------------------------------------ */

/**
 * soak_may() - test whether all pages have these bits
 * @region: region of the pages
 * @off: first byte
 * @n: number of bytes
 * @bits: MAY_READ, MAY_WRITE, FREED, LOCKED
 */
bool soak_may(const struct soak_region *region, size_t off, size_t n, unsigned char bits)
{
	size_t page;

	for (page = off / PAGE; page * PAGE < off + n; page++)
		if ((region->state[page] & bits) != bits)
			return false;
	return true;
}

/**
 * soak_note_state() - record a new state of pages
 * @region: region of the pages
 * @page: first page
 * @npages: number of pages
 * @clear: bits to clear
 * @set: bits to set
 */
void soak_note_state(struct soak_region *region, unsigned long page, unsigned long npages,
		     unsigned char clear, unsigned char set)
{
	for (; npages--; page++)
		region->state[page] = (region->state[page] & ~clear) | set;
}

/**
 * soak_note_zero() - record that pages are zero
 * @region: region of the pages
 * @page: first page
 * @npages: number of pages
 */
void soak_note_zero(struct soak_region *region, unsigned long page, unsigned long npages)
{
	memset(region->shadow + page * PAGE, 0, npages * PAGE);
	soak_note_state(region, page, npages, FREED, 0);
}

/**
 * soak_note_moved() - record that mremap() has moved pages
 * @region: region of the pages
 * @to: first page of the destination
 * @from: first page of the source, which does not overlap with the destination
 * @npages: number of pages
 */
void soak_note_moved(struct soak_region *region, unsigned long to, unsigned long from,
		     unsigned long npages)
{
	memcpy(region->shadow + to * PAGE, region->shadow + from * PAGE, npages * PAGE);
	memcpy(region->state + to, region->state + from, npages);
}

static bool all_zero(const char *mem, size_t n)
{
	return !mem[0] && !memcmp(mem, mem + 1, n - 1);
}

static unsigned long pfn_at(const void *addr)
{
	int fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	uint64_t entry = 0;

	if (fd >= 0 && pread(fd, &entry, 8, (unsigned long)addr / PAGE * 8) != 8)
		entry = 0;
	close(fd);
	return entry & ((1ULL << 55) - 1);
}

/* Prints the wrong pages, and their page frame numbers. A hole has the entry of the zero page. */
static void report_pages(const struct soak_region *region)
{
	unsigned long page, hole = 0, bad = 0;
	char seen[PAGE];
	char *zeros;

	zeros = mmap(NULL, PAGE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (zeros != MAP_FAILED && !touch_read(zeros))
		hole = pfn_at(zeros);
	for (page = 0; page < region->npages; page++) {
		char *addr = region->base + page * PAGE;

		if (!(region->state[page] & MAY_READ) || region->state[page] & FREED ||
		    soak_cpu_copy(seen, addr, PAGE) ||
		    !memcmp(seen, region->shadow + page * PAGE, PAGE))
			continue;
		if (bad++ >= MOST_REPORTED)
			continue;
		printf("# page %lu is wrong, state %u, pfn %#lx%s:\n", page,
		       region->state[page], pfn_at(addr),
		       pfn_at(addr) == hole ? ", zero page" : "");
		soak_dump_page(region, page);
	}
	printf("# %lu pages are wrong\n", bad);
	fflush(stdout);
}

/* Prints the difference and ends the process. */
static void report_lost(struct soak_region *region, size_t off, const char *seen, size_t n,
			const char *by)
{
	const char *want = region->shadow + off;
	size_t i, first = n, bytes = 0;

	for (i = 0; i < n; i++) {
		if (seen[i] == want[i])
			continue;
		bytes++;
		first = first == n ? i : first;
	}
	soak_self->lost += bytes;
	report_pages(region);
	soak_fail(SOAK_DATA, "%s: %zu of %zu bytes lost, %p is %02x %02x, not %02x %02x, state %u",
		  by, bytes, n, region->base + off + first, (unsigned char)seen[first],
		  (unsigned char)seen[first + 1 < n ? first + 1 : first],
		  (unsigned char)want[first],
		  (unsigned char)want[first + 1 < n ? first + 1 : first],
		  region->state[(off + first) / PAGE]);
}

/**
 * soak_check() - compare data that was read with the expected data
 * @region: region of the data
 * @off: first byte
 * @seen: data that was read
 * @n: number of bytes
 * @by: way of reading, for the message
 */
void soak_check(struct soak_region *region, size_t off, const char *seen, size_t n, const char *by)
{
	while (n) {
		size_t part = PAGE - off % PAGE < n ? PAGE - off % PAGE : n;
		unsigned long page = off / PAGE;

		if (memcmp(seen, region->shadow + off, part)) {
			if (!(region->state[page] & FREED) || !all_zero(seen, part))
				report_lost(region, off, seen, part, by);
			soak_note_zero(region, page, 1);
		}
		soak_self->verified += part;
		off += part;
		seen += part;
		n -= part;
	}
}

/* The first write to a freed page shows whether its data has been dropped. */
static void settle(struct soak_region *region, unsigned long page, size_t off, size_t n)
{
	char *shadow = region->shadow + page * PAGE;
	char written[PAGE], seen[PAGE];

	if (soak_cpu_copy(seen, region->base + page * PAGE, PAGE))
		soak_fail(SOAK_ERROR, "SIGSEGV at %p, just written", region->base + page * PAGE);
	region->state[page] &= ~FREED;
	if (memcmp(seen, shadow, PAGE)) {
		memcpy(written, shadow + off, n);
		memset(shadow, 0, PAGE);
		memcpy(shadow + off, written, n);
	}
	soak_check(region, page * PAGE, seen, PAGE, "after a write");
}

/**
 * soak_note_written() - record that a CPU or a device has written bytes
 * @region: region of the bytes
 * @off: first byte
 * @from: written data
 * @n: number of bytes
 */
void soak_note_written(struct soak_region *region, size_t off, const char *from, size_t n)
{
	while (n) {
		size_t part = PAGE - off % PAGE < n ? PAGE - off % PAGE : n;
		unsigned long page = off / PAGE;

		memcpy(region->shadow + off, from, part);
		if (region->state[page] & FREED)
			settle(region, page, off % PAGE, part);
		off += part;
		from += part;
		n -= part;
	}
}

/**
 * soak_note_injected() - record that an operation has met an injected fault
 *
 * The fault counts as survived when all memory has been verified after it.
 */
void soak_note_injected(void)
{
	__atomic_add_fetch(&soak_self->injected, 1, __ATOMIC_RELAXED);
	__atomic_add_fetch(&soak_self->pending, 1, __ATOMIC_RELAXED);
}

/**
 * soak_verify() - compare memory with its shadow, by CPU
 * @every: 1 for all pages, n for every nth page
 *
 * Pages that are not readable are skipped.
 */
void soak_verify(unsigned long every)
{
	uint64_t pending = __atomic_load_n(&soak_self->pending, __ATOMIC_RELAXED);
	bool all = every == 1;
	struct soak_region *region;
	unsigned long page;
	char seen[PAGE];

	for (region = soak_regions; region < soak_regions + SOAK_REGIONS; region++) {
		for (page = 0; page < region->npages; page += every) {
			if (!(region->state[page] & MAY_READ)) {
				all = false;
				continue;
			}
			if (soak_cpu_copy(seen, region->base + page * PAGE, PAGE))
				soak_fail(SOAK_ERROR, "SIGSEGV at %p, which may be read",
					  region->base + page * PAGE);
			soak_check(region, page * PAGE, seen, PAGE, "CPU");
			soak_beat();
		}
	}
	if (!all)
		return;
	soak_self->survived += pending;
	__atomic_sub_fetch(&soak_self->pending, pending, __ATOMIC_RELAXED);
}

/**
 * soak_verify_at_last() - compare all memory, with pages that were not readable before
 *
 * Faults that are injected meanwhile have to be survived, too.
 */
void soak_verify_at_last(void)
{
	struct soak_region *region;

	for (region = soak_regions; region < soak_regions + SOAK_REGIONS; region++) {
		if (mprotect(region->base, region->npages * PAGE, PROT_READ | PROT_WRITE))
			soak_fail(SOAK_ERROR, "mprotect %p: errno %d", region->base, errno);
		soak_note_state(region, 0, region->npages, 0, MAY_READ | MAY_WRITE);
	}
	do {
		soak_verify(1);
	} while (__atomic_load_n(&soak_self->pending, __ATOMIC_RELAXED));
}

/* ---- mapping --------------------------------------------------------------------- */

static void map_plain(void *addr, size_t n)
{
	if (mmap(addr, n, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED,
		 -1, 0) == MAP_FAILED)
		soak_fail(SOAK_ERROR, "mmap of %p + %zu: errno %d", addr, n, errno);
}

/**
 * soak_map() - map new pages, which are zero
 * @region: region of the pages
 * @page: first page
 * @npages: number of pages
 */
void soak_map(struct soak_region *region, unsigned long page, unsigned long npages)
{
	map_plain(region->base + page * PAGE, npages * PAGE);
	soak_note_zero(region, page, npages);
	soak_note_state(region, page, npages, LOCKED, MAY_READ | MAY_WRITE);
}

/**
 * soak_model_begin() - map the regions of a new process
 */
void soak_model_begin(void)
{
	unsigned int i;

	losses_before = soak_losses();
	catch_faults(on_fault);
	for (i = 0; i < SOAK_REGIONS; i++) {
		struct soak_region *region = &soak_regions[i];

		map_plain(region->shadow, region->npages * PAGE);
		map_plain(region->state, region->npages);
		map_plain(region->base, region->npages * PAGE);
		soak_note_state(region, 0, region->npages, 0, MAY_READ | MAY_WRITE);
	}
	madvise(soak_regions[0].base, soak_regions[0].npages * PAGE, MADV_HUGEPAGE);
}
