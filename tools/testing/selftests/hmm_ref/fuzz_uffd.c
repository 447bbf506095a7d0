// SPDX-License-Identifier: GPL-2.0-only
/*
 * The fuzzer's userfaultfd. Each process has one, and a thread that serves it: a missing page
 * becomes zeros, as the model expects without userfaultfd. A write to a protected page is let
 * through and recorded.
 *
 * The model knows which pages of the owned regions are write-protected (GUARDED). A write to one of
 * them, by the CPU or by a device, for which the thread has had no event, has bypassed userfaultfd.
 */
#include <pthread.h>
#include <linux/userfaultfd.h>
#include <sys/syscall.h>

#include "fuzz.h"

static int uffd = -1;

static struct uffdio_range uffd_range(const void *addr, size_t size)
{
	return (struct uffdio_range){ (unsigned long)addr, size };
}

/* ---- the thread that serves it --------------------------------------------------- */

/* A fault that cannot be served: the block is unregistered. */
static void uffd_give_up(char *addr)
{
	char *block = (char *)((unsigned long)addr & ~(BLOCK - 1));
	struct uffdio_range range = uffd_range(block, BLOCK);

	ioctl(uffd, UFFDIO_UNREGISTER, &range);
	ioctl(uffd, UFFDIO_WAKE, &range);
}

/*
 * Unlike UFFDIO_COPY, UFFDIO_ZEROPAGE does not fill a hole that is write-protected. UFFDIO_COPY
 * with MODE_WP fills it with a protected page.
 */
static int uffd_fill(char *addr)
{
	static const char zeros[PAGE];
	struct uffdio_zeropage zero = { .range = uffd_range(addr, PAGE) };
	struct uffdio_copy copy = {
		.dst = (unsigned long)addr,
		.src = (unsigned long)zeros,
		.len = PAGE,
		.mode = UFFDIO_COPY_MODE_WP,
	};

	if (!ioctl(uffd, UFFDIO_ZEROPAGE, &zero))
		return 0;
	if (errno == EEXIST && !ioctl(uffd, UFFDIO_COPY, &copy))
		return 0;
	/*
	 * EEXIST: two threads have waited for the page. ENOENT or, if the range is not registered
	 * for write protection, EINVAL: the mapping has changed since.
	 */
	if (errno != EEXIST && errno != ENOENT && errno != EINVAL)
		return -errno;
	return ioctl(uffd, UFFDIO_WAKE, &zero.range) ? -errno : 0;
}

static int uffd_let_through(char *addr)
{
	struct uffdio_writeprotect wp = { .range = uffd_range(addr, PAGE) };
	unsigned int i;

	for (i = 0; i < REGIONS; i++)
		if (addr >= regions[i].base && regions[i].asked &&
		    addr < regions[i].base + regions[i].npages * PAGE)
			__atomic_store_n(&regions[i].asked[(addr - regions[i].base) / PAGE], 1,
					 __ATOMIC_SEQ_CST);
	if (!ioctl(uffd, UFFDIO_WRITEPROTECT, &wp))
		return 0;
	if (errno != ENOENT)
		return -errno;
	return ioctl(uffd, UFFDIO_WAKE, &wp.range) ? -errno : 0;
}

static void *uffd_main(void *arg)
{
	struct uffd_msg msg;
	unsigned int tries;
	char *addr;
	bool wp;
	int rc;

	/* Runs until the process ends, since the final check of its memory may fault, too. */
	for (;;) {
		if (read(uffd, &msg, sizeof(msg)) != sizeof(msg) ||
		    msg.event != UFFD_EVENT_PAGEFAULT)
			continue;
		addr = (char *)(msg.arg.pagefault.address & ~(PAGE - 1));
		wp = msg.arg.pagefault.flags & UFFD_PAGEFAULT_FLAG_WP;
		rc = -EAGAIN;
		for (tries = 0; rc && tries < 100; tries++)
			rc = wp ? uffd_let_through(addr) : uffd_fill(addr);
		if (!rc)
			continue;
		/*
		 * hugetlb and shared memory cannot be served. They are registered only in the chaos
		 * region.
		 */
		if (addr >= regions[R_CHAOS].base && addr < regions[R_CHAOS].base +
		    regions[R_CHAOS].npages * PAGE)
			uffd_give_up(addr);
		else
			fuzz_fail("userfaultfd, %s %p: %d", wp ? "protected" : "missing", addr,
				  rc);
	}
	return NULL;
}

/* Every process needs its own: an inherited userfaultfd belongs to the parent's memory. */
void uffd_begin(void)
{
	struct uffdio_api api = {
		.api = UFFD_API,
		.features = UFFD_FEATURE_PAGEFAULT_FLAG_WP | UFFD_FEATURE_WP_UNPOPULATED,
	};
	pthread_t thread;
	unsigned int i;

	if (uffd >= 0)
		close(uffd);
	for (i = 0; i < REGIONS; i++)
		note_guard(&regions[i], 0, regions[i].npages, false);
	uffd = syscall(__NR_userfaultfd, O_CLOEXEC);
	if (uffd < 0)
		return;
	if (ioctl(uffd, UFFDIO_API, &api) || pthread_create(&thread, NULL, uffd_main, NULL)) {
		close(uffd);
		uffd = -1;
	}
}

/* ---- the operation --------------------------------------------------------------- */

/* A range that is registered for more modes keeps them. */
static int uffd_register(const char *addr, unsigned long npages, bool missing)
{
	struct uffdio_register range = {
		.range = uffd_range(addr, npages * PAGE),
		.mode = UFFDIO_REGISTER_MODE_WP,
	};

	if (missing)
		range.mode |= UFFDIO_REGISTER_MODE_MISSING;
	return ioctl(uffd, UFFDIO_REGISTER, &range) ? -errno : 0;
}

static int uffd_unregister(const struct place *at)
{
	struct uffdio_range range = uffd_range(at->addr, at->npages * PAGE);

	if (place_is_owned(at))
		note_guard(at->region, at->page, at->npages, false);
	return ioctl(uffd, UFFDIO_UNREGISTER, &range) ? -errno : 0;
}

/* After an error, the protection of the pages is not known. */
static int uffd_protect(const struct place *at, bool on)
{
	struct uffdio_writeprotect wp = {
		.range = uffd_range(at->addr, at->npages * PAGE),
		.mode = on ? UFFDIO_WRITEPROTECT_MODE_WP : 0,
	};
	int rc;

	if (place_is_owned(at))
		note_guard(at->region, at->page, at->npages, false);
	rc = on ? uffd_register(at->addr, at->npages, false) : 0;
	if (!rc && ioctl(uffd, UFFDIO_WRITEPROTECT, &wp))
		rc = -errno;
	if (place_is_owned(at) && on && !rc)
		note_guard(at->region, at->page, at->npages, true);
	return rc;
}

/* Registers the range and drops its pages. After an error some pages may be gone. */
static int uffd_make_hole(struct region *region, unsigned long page, unsigned long npages)
{
	char *addr = region->base + page * PAGE;
	int rc = uffd_register(addr, npages, true);

	if (rc)
		return rc;
	rc = madvise(addr, npages * PAGE, MADV_DONTNEED) ? -errno : 0;
	if (!is_owned(region))
		return rc;
	if (rc)
		note_dropped(region, page, npages);
	else
		note_zero(region, page, npages);
	return rc;
}

/* Fills a hole, unless another fault has filled it before. */
static int uffd_copy(const struct op *op, const struct place *at)
{
	struct uffdio_copy copy = {
		.dst = (unsigned long)at->addr,
		.src = (unsigned long)data_for(at, op, at->npages * PAGE),
		.len = at->npages * PAGE,
	};
	int rc = uffd_make_hole(at->region, at->page, at->npages);

	if (rc)
		return rc;
	if (ioctl(uffd, UFFDIO_COPY, &copy) && copy.copy <= 0)
		return copy.copy ? copy.copy : -errno;
	if (place_is_owned(at))
		note_written(at->region, at->page * PAGE, (void *)copy.src, copy.copy);
	return copy.copy == (long long)copy.len ? 0 : -EAGAIN;
}

#ifdef UFFDIO_MOVE
static inline int uffd_move(const struct op *op, const struct place *at)
{
	struct region *region = at->region;
	unsigned long n = at->npages, to = op->value % (region->npages - n + 1);
	struct uffdio_move move = {
		.src = (unsigned long)at->addr,
		.len = n * PAGE,
		.mode = UFFDIO_MOVE_MODE_ALLOW_SRC_HOLES,
	};
	unsigned long done;
	int rc;

	if (op->variant & 8)
		to = (to & ~511UL) | (at->page & 511);
	if (to + n > region->npages || (to < at->page + n && at->page < to + n))
		return -ENXIO;
	move.dst = (unsigned long)(region->base + to * PAGE);
	rc = uffd_make_hole(region, to, n);
	if (rc)
		return rc;
	if (ioctl(uffd, UFFDIO_MOVE, &move) && move.move <= 0)
		return move.move ? move.move : -errno;
	done = move.move / PAGE;
	if (is_owned(region)) {
		note_content(region, to, at->page, done);
		note_zero(region, at->page, done);
	}
	return done == n ? 0 : -EAGAIN;
}
#else
static inline int uffd_move(const struct op *op, const struct place *at)
{
	return -ENXIO;
}
#endif

int do_uffd(const struct op *op)
{
	struct place at;

	find_place(op, true, SMALL_PAGES, &at);
	if (uffd < 0 || at.region == &regions[R_SHARED] || at.region == &regions[R_HUGE])
		return -ENXIO;
	switch (op->variant % 8) {
	case 0:
	case 1:
	case 2:
		return uffd_register(at.addr, at.npages, op->value & 7);
	case 3:
		return op->value & 1 ? uffd_unregister(&at) : uffd_protect(&at, false);
	case 4:
	case 5:
		return uffd_protect(&at, true);
	case 6:
		return uffd_copy(op, &at);
	default:
		return uffd_move(op, &at);
	}
}
