// SPDX-License-Identifier: GPL-2.0-only
/*
 * The fuzzer's operations on memory: CPU accesses, and system calls that change mappings. As in
 * fuzz_dev.c, each returns 0 or an error that is allowed.
 *
 * In an owned region each operation has a known outcome, which the model follows. Pages in an
 * unknown state, because an operation failed half way, are mapped again. The chaos region is for
 * all other operations: several threads at a time, and all kinds of mappings.
 */
#include <signal.h>
#include <sys/uio.h>

#include "fuzz.h"

#ifndef MADV_COLD
#define MADV_COLD		20
#define MADV_PAGEOUT		21
#endif
#ifndef MADV_POPULATE_READ
#define MADV_POPULATE_READ	22
#define MADV_POPULATE_WRITE	23
#endif
#ifndef MADV_DONTNEED_LOCKED
#define MADV_DONTNEED_LOCKED	24
#endif
#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE		25
#endif
#ifndef MADV_GUARD_INSTALL
#define MADV_GUARD_INSTALL	102
#define MADV_GUARD_REMOVE	103
#endif

/* ---- CPU ------------------------------------------------------------------------- */

static void check_signal(const struct place *at, int sig, unsigned char bits)
{
	if (!place_is_owned(at))
		return;
	if (!sig != may(at->region, at->off, at->bytes, bits) &&
	    !(sig == SIGBUS && may_fail()))
		fuzz_fail("CPU access to %p + %zu: signal %d against the protection",
			  at->region->base + at->off, at->bytes, sig);
}

int do_cpu_read(const struct op *op)
{
	struct place at;
	int sig;

	find_place(op, false, SMALL_PAGES, &at);
	if (!at.region)
		return -ENXIO;
	sig = cpu_copy(scratch, at.region->base + at.off, at.bytes);
	check_signal(&at, sig, MAY_READ);
	if (!sig)
		check_data(&at, at.off, scratch, at.bytes, "CPU");
	return sig ? -EFAULT : 0;
}

/* GUP by the process itself, as ptrace() uses it. Returns the number of bytes written. */
static ssize_t write_by_gup(const struct op *op, char *to, const char *buf, size_t n)
{
	struct iovec local = { (char *)buf, n };
	struct iovec remote = { to, n };

	if (op->variant % 8 == 6)
		return process_vm_writev(getpid(), &local, 1, &remote, 1, 0);
	return pwrite(mem_fd, buf, n, (unsigned long)to);
}

int do_cpu_write(const struct op *op)
{
	const char *buf;
	struct place at;
	ssize_t done;
	char *to;
	int sig;

	find_place(op, true, SMALL_PAGES, &at);
	to = at.region->base + at.off;
	buf = data_for(&at, op, at.bytes);
	if (op->variant % 8 >= 6) {
		done = write_by_gup(op, to, buf, at.bytes);
		if (done > 0 && place_is_owned(&at))
			note_written(at.region, at.off, buf, done);
		return done == (ssize_t)at.bytes ? 0 : -EFAULT;
	}
	/* A copy within one page fails as a whole, so the model knows its outcome. */
	if (place_is_owned(&at) && at.bytes > PAGE - op->offset)
		at.bytes = PAGE - op->offset;
	sig = cpu_copy(to, buf, at.bytes);
	check_signal(&at, sig, MAY_READ | MAY_WRITE);
	if (!sig && place_is_owned(&at))
		note_written(at.region, at.off, buf, at.bytes);
	return sig ? -EFAULT : 0;
}

/* Reads memory of another process. */
int do_remote(const struct op *op)
{
	struct fuzz_slot *slot = &shared->slots[op->value % SLOTS];
	struct iovec local = { scratch, SMALL_PAGES * PAGE };
	struct iovec remote;
	struct place at;

	find_place(op, false, SMALL_PAGES, &at);
	if (!at.region || !slot->pid)
		return -ENXIO;
	remote.iov_base = at.region->base + at.off;
	remote.iov_len = at.bytes;
	return process_vm_readv(slot->pid, &local, 1, &remote, 1, 0) < 0 ? -errno : 0;
}

/* ---- mappings -------------------------------------------------------------------- */

/* Advice that does not change data, for any region. */
static int do_advise(const struct op *op)
{
	static const int advices[] = {
		MADV_NORMAL, MADV_RANDOM, MADV_WILLNEED, MADV_HUGEPAGE, MADV_HUGEPAGE,
		MADV_NOHUGEPAGE, MADV_MERGEABLE, MADV_UNMERGEABLE, MADV_COLD, MADV_PAGEOUT,
		MADV_PAGEOUT, MADV_POPULATE_READ, MADV_POPULATE_WRITE, MADV_COLLAPSE,
		MADV_COLLAPSE,
	};
	int advice = advices[op->value % ARRAY_SIZE(advices)];
	struct place at;

	find_place(op, false, 512, &at);
	/* Only the regions of the model are known to be private. For KSM, see note_guard(). */
	if (!at.region || (at.region->asked && advice == MADV_MERGEABLE))
		return -ENXIO;
	return madvise(at.addr, at.npages * PAGE, advice) ? -errno : 0;
}

/* Advice that drops pages. After an error some pages may be dropped, and others not. */
static int do_drop(const struct op *op)
{
	static const int advices[] = {
		MADV_DONTNEED, MADV_DONTNEED, MADV_DONTNEED, MADV_FREE, MADV_FREE,
		MADV_DONTNEED_LOCKED,
	};
	int advice = advices[op->value % ARRAY_SIZE(advices)];
	struct place at;
	int rc;

	find_place(op, true, 512, &at);
	rc = madvise(at.addr, at.npages * PAGE, advice) ? -errno : 0;
	if (!place_is_owned(&at))
		return rc;
	if (rc || advice == MADV_FREE)
		note_dropped(at.region, at.page, at.npages);
	else
		note_zero(at.region, at.page, at.npages);
	return rc;
}

/* Advice that only the chaos region can take, because no model follows its effects. */
static int do_chaos_advise(const struct op *op)
{
	static const int advices[] = {
		MADV_REMOVE, MADV_KEEPONFORK, MADV_GUARD_INSTALL,
		MADV_GUARD_REMOVE, MADV_DONTFORK, MADV_DOFORK,
	};
	unsigned int nr = op->value % ARRAY_SIZE(advices);
	struct region *chaos = &regions[R_CHAOS];
	unsigned long page = op->page % chaos->npages, npages = op->npages;

	if (npages > chaos->npages - page)
		npages = chaos->npages - page;
	return madvise(chaos->base + page * PAGE, npages * PAGE, advices[nr]) ? -errno : 0;
}

int do_madvise(const struct op *op)
{
	if (op->variant % 16 < 9)
		return do_advise(op);
	return op->variant % 16 < 14 ? do_drop(op) : do_chaos_advise(op);
}

/* Maps a memfd, or a file of the old interface. */
static int map_file(const struct op *op, struct place *at, int flags)
{
	unsigned int file = file_find(op->slot, FILE_OLD);
	void *mem = MAP_FAILED;
	int rc = -ENXIO;
	int fd;

	if (op->value & 1) {
		if (file)
			mem = map_at(at->addr, at->npages * PAGE, PROT_READ | PROT_WRITE,
				     MAP_SHARED, file_fd(file));
		return mem == MAP_FAILED ? rc : 0;
	}
	fd = memfd_create("fuzz", MFD_CLOEXEC);
	if (fd < 0)
		return -errno;
	if (!ftruncate(fd, at->npages * PAGE / (1 + op->value % 4)))
		mem = map_at(at->addr, at->npages * PAGE, PROT_READ | PROT_WRITE, flags, fd);
	rc = mem == MAP_FAILED ? -errno : 0;
	close(fd);
	return rc;
}

/* Maps over existing pages. */
int do_map(const struct op *op)
{
	int flags = MAP_ANONYMOUS, prot = PROT_READ | PROT_WRITE;
	struct place at;
	void *mem;
	int rc = 0;

	find_place(op, true, 1024, &at);
	if (at.region == &regions[R_SHARED])
		return -ENXIO;
	if (at.region == &regions[R_HUGE])
		return map_huge(at.region);
	if (at.region != &regions[R_CHAOS] || op->value % 8 < 3) {
		map_fresh(at.region, at.page, at.npages, op->value & 16);
		return 0;
	}
	switch (op->value % 8) {
	case 3:
		rc = map_file(op, &at, MAP_PRIVATE);
		break;
	case 4:
		rc = map_file(op, &at, MAP_SHARED);
		break;
	default:
		flags |= op->value & 16 ? MAP_SHARED : MAP_PRIVATE;
		flags |= op->value & 32 ? MAP_POPULATE : 0;
		flags |= op->value % 8 == 5 ? MAP_LOCKED : 0;
		flags |= op->value % 8 == 6 ? MAP_HUGETLB : 0;
		flags |= op->value % 8 == 7 && !(flags & MAP_SHARED) ? MAP_GROWSDOWN : 0;
		prot &= op->value & 64 ? -1 : PROT_READ;
		if (flags & MAP_HUGETLB) {
			at.page &= ~511UL;
			at.addr = at.region->base + at.page * PAGE;
			at.npages = 512;
		}
		mem = map_at(at.addr, at.npages * PAGE, prot, flags, -1);
		rc = mem == MAP_FAILED ? -errno : 0;
	}
	return rc;
}

int do_unmap(const struct op *op)
{
	struct place at;

	find_place(op, true, 1024, &at);
	if (at.region == &regions[R_SHARED])
		return -ENXIO;
	if (munmap(at.addr, at.npages * PAGE))
		return -errno;
	if (place_is_owned(&at))
		map_fresh(at.region, at.page, at.npages, op->value & 1);
	return 0;
}

/* Moves pages from one place of a region to another. */
int do_mremap(const struct op *op)
{
	struct region *region;
	unsigned long to, n;
	struct place at;
	void *mem;
	int rc;

	find_place(op, true, 512, &at);
	region = at.region;
	if (region == &regions[R_SHARED])
		return -ENXIO;
	n = at.npages;
	to = op->value % (region->npages - n + 1);
	if (op->variant & 1)
		to = (to & ~511UL) | (at.page & 511);
	if (to + n > region->npages || (to < at.page + n && at.page < to + n))
		return -ENXIO;
	mem = mremap(at.addr, n * PAGE, n * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED,
		     region->base + to * PAGE);
	rc = mem == MAP_FAILED ? -errno : 0;
	if (!is_owned(region))
		return rc;
	if (rc)
		map_fresh(region, to, n, false);
	else
		note_moved(region, to, at.page, n);
	map_fresh(region, at.page, n, op->variant & 4);
	return rc;
}

int do_mprotect(const struct op *op)
{
	static const struct {
		int prot;
		unsigned char state;
	} prots[] = {
		{ PROT_READ | PROT_WRITE, MAY_READ | MAY_WRITE },
		{ PROT_READ | PROT_WRITE, MAY_READ | MAY_WRITE },
		{ PROT_READ, MAY_READ },
		{ PROT_NONE, 0 },
	};
	unsigned int nr = op->value % ARRAY_SIZE(prots);
	struct place at;

	find_place(op, true, 512, &at);
	if (at.region == &regions[R_SHARED])
		return -ENXIO;
	if (mprotect(at.addr, at.npages * PAGE, prots[nr].prot)) {
		if (place_is_owned(&at))
			fuzz_fail("mprotect %p + %lu pages: errno %d", at.addr, at.npages,
				  errno);
		return -errno;
	}
	if (place_is_owned(&at))
		note_protection(at.region, at.page, at.npages, prots[nr].state);
	return 0;
}

int do_mlock(const struct op *op)
{
	struct place at;
	int rc;

	find_place(op, false, 256, &at);
	if (!at.region)
		return -ENXIO;
	switch (op->variant % 4) {
	case 0:
		rc = mlock(at.addr, at.npages * PAGE);
		break;
	case 1:
		rc = mlock2(at.addr, at.npages * PAGE, MLOCK_ONFAULT);
		break;
	default:
		rc = munlock(at.addr, at.npages * PAGE);
	}
	return rc ? -errno : 0;
}

int do_verify(const struct op *op)
{
	struct region *chaos = &regions[R_CHAOS];
	unsigned long page;

	if (owner)
		verify_all();
	for (page = op->page % 64; page < chaos->npages; page += 64)
		if (!cpu_copy(scratch, chaos->base + page * PAGE, PAGE))
			check_ids(scratch, PAGE, chaos->base + page * PAGE);
	return 0;
}
