// SPDX-License-Identifier: GPL-2.0-only
/*
 * The fuzzer's model of data: the regions of a process, at fixed addresses, and their expected
 * content.
 *
 * Two regions belong to the main thread alone. It keeps a copy of their expected content, byte for
 * byte, and the state of each page: readable, writable, or dropped. The kernel may have replaced a
 * dropped page by zeros (MADV_FREE, or a MADV_DONTNEED that failed half way). Other threads, other
 * processes and the supervisor may migrate these pages, and only the main thread changes them.
 *
 * All threads write to the chaos region and to the hugetlb region, and write only bytes with the id
 * of the process. Any other byte except 0 is data of another process. A forked child has the id of
 * its parent. The shared region belongs to all processes.
 *
 * A child has a copy of regions and model.
 */
#include "hmm_ref_copy.h"
#include "fuzz.h"

static unsigned char asked_big[2 * 512];

/* Small regions neither begin nor end at a block boundary, so no huge page can be mapped there. */
struct region regions[REGIONS] = {
	[R_BIG] = { (char *)MEGA(2), 2 * 512, true, (char *)MEGA(64), (void *)MEGA(80),
		    asked_big },
	[R_FORKED] = { (char *)MEGA(33), 128, false, (char *)MEGA(72), (void *)MEGA(81) },
	[R_CHAOS] = { (char *)MEGA(16), CHAOS_PAGES, true },
	[R_HUGE] = { (char *)MEGA(24), 2 * 512, true },
	[R_SHARED] = { (char *)MEGA(37), SMALL_PAGES, false },
};

unsigned char own_id;
int mem_fd = -1;			/* /proc/self/mem */
__thread bool owner;		/* this thread owns the owned regions */
__thread char *scratch;		/* SMALL_PAGES */
__thread char *data;		/* SMALL_PAGES */
__thread unsigned int injected_before;

/* True if a copy may have failed during this operation. */
bool may_fail(void)
{
	unsigned int now = shared_get(injected);

	return (now & 1) || now != injected_before;
}

bool is_owned(const struct region *region)
{
	return region->shadow && owner;
}

/* ---- accesses that may fault ----------------------------------------------------- */

static void on_fault(int sig, siginfo_t *info, void *context)
{
	end_copy(sig);
	fuzz_fail("signal %d at %p", sig, info->si_addr);
}

/* A copy that an injected failure ended succeeds when it is repeated. */
int cpu_copy(void *to, const void *from, size_t n)
{
	unsigned int tries = 0;
	int sig;

	do {
		sig = try_copy(to, from, n);
	} while (sig == SIGBUS && may_fail() && ++tries < 1000);
	return sig;
}

/* Reads by GUP. Only for readable pages: /proc/self/mem may not override the protection. */
static void gup_read(void *to, const char *from, size_t n)
{
	unsigned int tries = 0;

	while (pread(mem_fd, to, n, (unsigned long)from) != (ssize_t)n) {
		if (!may_fail() || ++tries == 1000)
			fuzz_fail("/proc/self/mem at %p: errno %d", from, errno);
	}
}

/* ---- owned regions --------------------------------------------------------------- */

bool all_zero(const char *mem, size_t n)
{
	return !mem[0] && !memcmp(mem, mem + 1, n - 1);
}

static void report_difference(struct region *region, size_t off, const char *seen, size_t n,
			      const char *who)
{
	const char *want = region->shadow + off;
	size_t i = 0;

	while (seen[i] == want[i])
		i++;
	fuzz_fail("%s: %p is %02x, not %02x, byte %zu of %zu, page's state %d, own id %02x",
		  who, region->base + off + i, (unsigned char)seen[i],
		  (unsigned char)want[i], i, n, region->state[(off + i) / PAGE], own_id);
}

void note_zero(struct region *region, unsigned long page, unsigned long npages)
{
	for (; npages--; page++) {
		if (region->state[page] & WRITTEN)
			memset(region->shadow + page * PAGE, 0, PAGE);
		region->state[page] &= ~(WRITTEN | DROPPED | GUARDED);
	}
}

/* Compares bytes that were read from [off, off + n) of an owned region with the model. */
void check_seen(struct region *region, size_t off, const char *seen, size_t n, const char *who)
{
	while (n) {
		size_t part = PAGE - off % PAGE < n ? PAGE - off % PAGE : n;
		unsigned long page = off / PAGE;

		if (memcmp(seen, region->shadow + off, part)) {
			if (!(region->state[page] & DROPPED) || !all_zero(seen, part))
				report_difference(region, off, seen, part, who);
			note_zero(region, page, 1);
		}
		off += part;
		seen += part;
		n -= part;
	}
}

/* The first write to a dropped page shows whether the kernel has dropped it. */
static void settle(struct region *region, unsigned long page, size_t off, const char *from,
		   size_t n)
{
	char *shadow = region->shadow + page * PAGE;
	char seen[PAGE];

	gup_read(seen, region->base + page * PAGE, PAGE);
	if (memcmp(seen, shadow, PAGE)) {
		memset(shadow, 0, PAGE);
		memcpy(shadow + off, from, n);
	}
	region->state[page] &= ~DROPPED;
	check_seen(region, page * PAGE, seen, PAGE, "after a write");
}

/*
 * Sets whether writes have to ask userfaultfd first. Not for mergeable memory: KSM drops the
 * protection of the pages that it replaces.
 */
void note_guard(struct region *region, unsigned long page, unsigned long npages, bool on)
{
	if (!shared->guard)
		return;
	for (; region->asked && npages--; page++) {
		__atomic_store_n(&region->asked[page], 0, __ATOMIC_SEQ_CST);
		region->state[page] &= ~GUARDED;
		if (on && !(region->state[page] & DROPPED))
			region->state[page] |= GUARDED;
	}
}

/* Checks a write to the page that has succeeded. */
static void check_guard(struct region *region, unsigned long page)
{
	if (region->state[page] & GUARDED &&
	    !__atomic_load_n(&region->asked[page], __ATOMIC_SEQ_CST))
		fuzz_fail("a write to %p went past userfaultfd", region->base + page * PAGE);
	region->state[page] &= ~GUARDED;
}

/* Records that [off, off + n) of an owned region has been written. */
void note_written(struct region *region, size_t off, const char *from, size_t n)
{
	while (n) {
		size_t part = PAGE - off % PAGE < n ? PAGE - off % PAGE : n;
		unsigned long page = off / PAGE;

		memcpy(region->shadow + off, from, part);
		check_guard(region, page);
		region->state[page] |= WRITTEN;
		if (region->state[page] & DROPPED)
			settle(region, page, off % PAGE, from, part);
		off += part;
		from += part;
		n -= part;
	}
}

void note_protection(struct region *region, unsigned long page, unsigned long npages,
		     unsigned char bits)
{
	for (; npages--; page++)
		region->state[page] = (region->state[page] & ~(MAY_READ | MAY_WRITE)) | bits;
}

/* The content of pages has moved, and their protection has not. */
void note_content(struct region *region, unsigned long to, unsigned long from, unsigned long npages)
{
	for (; npages--; to++, from++) {
		note_zero(region, to, 1);
		if (region->state[from] & WRITTEN)
			memcpy(region->shadow + to * PAGE, region->shadow + from * PAGE, PAGE);
		region->state[to] |= region->state[from] & (WRITTEN | DROPPED);
	}
}

/* The mapping has moved, with content and protection. */
void note_moved(struct region *region, unsigned long to, unsigned long from, unsigned long npages)
{
	unsigned long i;

	note_content(region, to, from, npages);
	for (i = 0; i < npages; i++)
		note_protection(region, to + i, 1,
				region->state[from + i] & (MAY_READ | MAY_WRITE));
}

void note_dropped(struct region *region, unsigned long page, unsigned long npages)
{
	for (; npages--; page++)
		region->state[page] = (region->state[page] & ~GUARDED) | DROPPED;
}

/* True if all pages of [off, off + n) have these bits. */
bool may(struct region *region, size_t off, size_t n, unsigned char bits)
{
	size_t page;

	for (page = off / PAGE; page * PAGE < off + n; page++)
		if ((region->state[page] & bits) != bits)
			return false;
	return true;
}

/* Data that shows the owner and the time. */
void make_data(char *to, size_t n, uint64_t serial)
{
	uint64_t word = (uint64_t)own_id << 56 | (serial & 0xffffff) << 32;
	size_t i;

	for (i = 0; i + 8 <= n; i += 8, word++)
		memcpy(to + i, &word, 8);
	memset(to + i, own_id, n - i);
}

/* ---- chaos and hugetlb ----------------------------------------------------------- */

bool holds_ids(const struct region *region)
{
	return region == &regions[R_CHAOS] || region == &regions[R_HUGE];
}

void check_ids(const char *seen, size_t n, const char *where)
{
	size_t i;

	for (i = 0; i < n; i++)
		if (seen[i] && (unsigned char)seen[i] != own_id)
			fuzz_fail("foreign data: %02x at %p + %zu of %zu, own id %02x",
				  (unsigned char)seen[i], where, i, n, own_id);
}

/* ---- mapping --------------------------------------------------------------------- */

void *map_at(void *addr, size_t n, int prot, int flags, int fd)
{
	return mmap(addr, n, prot, flags | MAP_FIXED, fd, 0);
}

/* Maps zeros. This may fail only over a hugetlb mapping of the chaos region. */
void map_fresh(struct region *region, unsigned long page, unsigned long npages, bool huge)
{
	char *addr = region->base + page * PAGE;

	if (map_at(addr, npages * PAGE, PROT_READ | PROT_WRITE,
		   MAP_PRIVATE | MAP_ANONYMOUS, -1) == MAP_FAILED) {
		if (region->shadow)
			fuzz_fail("mmap of %p + %lu pages: errno %d", addr, npages, errno);
		return;
	}
	if (huge)
		madvise(addr, npages * PAGE, MADV_HUGEPAGE);
	if (is_owned(region)) {
		note_zero(region, page, npages);
		note_protection(region, page, npages, MAY_READ | MAY_WRITE);
	}
}

/* Without huge pages, the region is not mapped. */
int map_huge(struct region *region)
{
	if (map_at(region->base, region->npages * PAGE, PROT_READ | PROT_WRITE,
		   MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB | MAP_NORESERVE,
		   -1) == MAP_FAILED)
		return -errno;
	return 0;
}

static void map_plain(void *addr, size_t n)
{
	if (map_at(addr, n, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
		   -1) == MAP_FAILED)
		fuzz_fail("mmap of %p + %zu: errno %d", addr, n, errno);
}

void map_process(void)
{
	unsigned int i;

	catch_faults(on_fault);
	for (i = 0; i < REGIONS; i++) {
		struct region *region = &regions[i];

		if (region->shadow) {
			map_plain(region->shadow, region->npages * PAGE);
			map_plain(region->state, PAGE);
		}
		if (i == R_HUGE)
			map_huge(region);
		else if (i != R_SHARED)
			map_fresh(region, 0, region->npages, region->large);
	}
	for (i = 0; i < THREADS; i++)
		map_plain(BUFFERS_OF(i), 2 * SMALL_PAGES * PAGE);
	map_plain(IDS, SMALL_PAGES * PAGE);
	memset(IDS, own_id, SMALL_PAGES * PAGE);
	mprotect(IDS, SMALL_PAGES * PAGE, PROT_READ);
}

/*
 * Compares all owned and readable pages with the model, and one in 32 of those that were never
 * written.
 */
void verify_all(void)
{
	unsigned long page;
	char seen[PAGE];
	unsigned int i;
	int sig;

	for (i = 0; i < REGIONS; i++) {
		struct region *region = &regions[i];

		for (page = 0; is_owned(region) && page < region->npages; page++) {
			if (!(region->state[page] & MAY_READ) ||
			    (!(region->state[page] & WRITTEN) && page % 32 != own_id % 32))
				continue;
			sig = cpu_copy(seen, region->base + page * PAGE, PAGE);
			if (sig)
				fuzz_fail("signal %d reading %p", sig,
					  region->base + page * PAGE);
			check_seen(region, page * PAGE, seen, PAGE, "verify");
		}
	}
}

/* The last comparison includes pages that were not readable before. */
void verify_at_last(void)
{
	unsigned int i;

	for (i = 0; i < REGIONS; i++) {
		struct region *region = &regions[i];

		if (!is_owned(region))
			continue;
		if (mprotect(region->base, region->npages * PAGE, PROT_READ | PROT_WRITE))
			fuzz_fail("mprotect %p: errno %d", region->base, errno);
		note_protection(region, 0, region->npages, MAY_READ | MAY_WRITE);
	}
	verify_all();
}
