// SPDX-License-Identifier: GPL-2.0-only
/*
 * The soak test's model: the memory of a worker, and what has to be in it.
 *
 * A worker has two regions, at the same addresses in all processes: whole blocks, where huge pages
 * can be, and a smaller one that begins and ends off a block. Its shadow is a copy of what they
 * have to hold, byte for byte, in memory that neither a device nor KSM nor swap is told of. Only
 * the worker's main thread changes data; all others move it. A child has a copy of both.
 *
 * A page that was freed by MADV_FREE holds its data or zeros until it is written: the one case in
 * which the model does not know.
 */
#include "hmm_ref_copy.h"
#include "soak.h"

#define ARENA		0x200000000000UL
#define MEGA(n)		((void *)(ARENA + ((unsigned long)(n) << 20)))
#define MOST_REPORTED	5U
#define TOUCHES		100000U		/* after that even the most unkind mode must be over */

struct soak_region soak_regions[SOAK_REGIONS] = {
	{ MEGA(2), 2 * 512, MEGA(64), MEGA(96) },
	{ MEGA(33), 128, MEGA(80), MEGA(97) },
};

/**
 * soak_find_place() - what an operation works on
 * @op: operation
 * @at: set; as much of what it names as there is
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

/* ---- the CPU ----------------------------------------------------------------------- */

static void on_fault(int sig, siginfo_t *info, void *context)
{
	end_copy(sig);
	soak_fail(SOAK_ERROR, "signal %d at %p", sig, info->si_addr);
}

/* Losses before the process, or those that it was forked from, had any pages. */
static unsigned int losses_before;

/**
 * soak_any_lost() - whether pages of this process may have been on a device that was lost
 */
bool soak_any_lost(void)
{
	return soak_losses() != losses_before;
}

/* What was on a lost device is gone. The page is mapped anew. Return: false when that cannot be. */
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
 * soak_cpu_copy() - a CPU copies bytes, of which one side is in a region
 * @to: where to
 * @from: where from
 * @n: bytes
 *
 * A copy that was made to fail is tried again: the data is not lost, unless the device is. Then
 * the page holds zeros, and the shadow, too.
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

/* ---- what it has to hold ----------------------------------------------------------- */

/**
 * soak_may() - do all pages have these bits?
 * @region: of the pages
 * @off: first byte
 * @n: bytes
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
 * soak_note_state() - pages may be used otherwise
 * @region: of the pages
 * @page: first one
 * @npages: how many
 * @clear: bits that they have not any more
 * @set: bits that they have
 */
void soak_note_state(struct soak_region *region, unsigned long page, unsigned long npages,
		     unsigned char clear, unsigned char set)
{
	for (; npages--; page++)
		region->state[page] = (region->state[page] & ~clear) | set;
}

/**
 * soak_note_zero() - pages hold zeros
 * @region: of the pages
 * @page: first one
 * @npages: how many
 */
void soak_note_zero(struct soak_region *region, unsigned long page, unsigned long npages)
{
	memset(region->shadow + page * PAGE, 0, npages * PAGE);
	soak_note_state(region, page, npages, FREED, 0);
}

/**
 * soak_note_moved() - mremap() has moved pages
 * @region: of the pages
 * @to: first page where they are
 * @from: first page where they were
 * @npages: how many; the two do not overlap
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

/* Which pages are wrong, and what is mapped there now. A hole has the entry of the zero page. */
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

/* Says what is wrong, and ends the process. */
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
 * soak_check() - compare what was seen with what has to be there
 * @region: where
 * @off: first byte
 * @seen: what was read
 * @n: bytes
 * @by: which way
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

/* The first write to a page that was freed says whether its data had gone. */
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
 * soak_note_written() - bytes were written, by a CPU or a device
 * @region: where
 * @off: first byte
 * @from: the bytes
 * @n: how many
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
 * soak_note_injected() - an operation has met a fault that was injected
 *
 * It counts as survived when all memory was found right after it.
 */
void soak_note_injected(void)
{
	__atomic_add_fetch(&soak_self->injected, 1, __ATOMIC_RELAXED);
	__atomic_add_fetch(&soak_self->pending, 1, __ATOMIC_RELAXED);
}

/**
 * soak_verify() - compare memory with its shadow, by CPU
 * @every: 1: all of it; n: every nth page
 *
 * What may not be read is left out.
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
 * soak_verify_at_last() - compare all, also what could not be read until now
 *
 * What is injected meanwhile has to be survived, too.
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

/* ---- mapping ----------------------------------------------------------------------- */

static void map_plain(void *addr, size_t n)
{
	if (mmap(addr, n, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED,
		 -1, 0) == MAP_FAILED)
		soak_fail(SOAK_ERROR, "mmap of %p + %zu: errno %d", addr, n, errno);
}

/**
 * soak_map() - map pages anew: they hold zeros
 * @region: of the pages
 * @page: first one
 * @npages: how many
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
