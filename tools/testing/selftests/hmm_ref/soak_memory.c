// SPDX-License-Identifier: GPL-2.0-only
/*
 * The soak test's operations of the CPU, and those that change mappings. Each returns 0 or an error
 * that is allowed.
 */
#include <sys/uio.h>

#include "soak.h"

#ifndef MADV_PAGEOUT
#define MADV_PAGEOUT	21
#endif
#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE	25
#endif

#define SPLIT	"/sys/kernel/debug/split_huge_pages"

/* ---- the CPU --------------------------------------------------------------------- */

static int do_touch(const struct soak_op *op)
{
	struct soak_place at;
	size_t part;
	int sig;

	for (soak_find_place(op, &at); at.bytes; at.off += part, at.bytes -= part) {
		part = PAGE - at.off % PAGE < at.bytes ? PAGE - at.off % PAGE : at.bytes;
		sig = soak_cpu_copy(soak_scratch, at.region->base + at.off, part);
		if (!sig != soak_may(at.region, at.off, part, MAY_READ))
			soak_fail(SOAK_ERROR, "touch of %p: signal %d against the protection",
				  at.region->base + at.off, sig);
		if (sig)
			return -EFAULT;
		soak_check(at.region, at.off, soak_scratch, part, "CPU");
	}
	return 0;
}

/* Stores page by page, so that the model knows which pages were written when it fails. */
static int store_bytes(struct soak_place *at, const char *from)
{
	size_t part;
	int sig;

	for (; at->bytes; at->off += part, at->bytes -= part, from += part) {
		part = PAGE - at->off % PAGE < at->bytes ? PAGE - at->off % PAGE : at->bytes;
		sig = soak_cpu_copy(at->region->base + at->off, from, part);
		if (!sig != soak_may(at->region, at->off, part, MAY_READ | MAY_WRITE))
			soak_fail(SOAK_ERROR, "store to %p: signal %d against the protection",
				  at->region->base + at->off, sig);
		if (sig)
			return -EFAULT;
		soak_note_written(at->region, at->off, from, part);
	}
	return 0;
}

static int do_store(const struct soak_op *op)
{
	struct soak_place at;

	soak_find_place(op, &at);
	soak_make_data(op, at.bytes);
	return store_bytes(&at, soak_data);
}

/* Writes pages that are equal in all processes, for KSM. */
static int do_same(const struct soak_op *op)
{
	struct soak_place at;

	soak_find_place(op, &at);
	if (at.npages > MOST_PAGES)
		at.npages = MOST_PAGES;
	at.off = at.page * PAGE;
	at.bytes = at.npages * PAGE;
	memset(soak_data, op->value % 4, at.bytes);
	return store_bytes(&at, soak_data);
}

/* Access by GUP, for the process itself, so that it needs the same permissions. */
static int do_gup(const struct soak_op *op)
{
	bool write = op->variant & 1, may;
	struct iovec local, remote;
	struct soak_place at;
	ssize_t done;

	soak_find_place(op, &at);
	soak_make_data(op, at.bytes);
	local = (struct iovec){ write ? soak_data : soak_scratch, at.bytes };
	remote = (struct iovec){ at.region->base + at.off, at.bytes };
	done = write ? process_vm_writev(getpid(), &local, 1, &remote, 1, 0) :
		       process_vm_readv(getpid(), &local, 1, &remote, 1, 0);
	may = soak_may(at.region, at.off, at.bytes, write ? MAY_READ | MAY_WRITE : MAY_READ);
	if (done > 0 && write)
		soak_note_written(at.region, at.off, soak_data, done);
	else if (done > 0)
		soak_check(at.region, at.off, soak_scratch, done, "GUP");
	if (done == (ssize_t)at.bytes) {
		if (!may)
			soak_fail(SOAK_ERROR, "GUP of %p + %zu went past the protection",
				  at.region->base + at.off, at.bytes);
		return 0;
	}
	if (done < 0 && errno != EFAULT)
		soak_fail(SOAK_ERROR, "GUP of %p: errno %d", at.region->base + at.off, errno);
	return may ? soak_checked(op, -EFAULT, SOAK_BY_SYSCALL, 0) : -EFAULT;
}

/* ---- mappings -------------------------------------------------------------------- */

/* Advice that does not change data, and may be refused. */
static int do_advise(const struct soak_op *op)
{
	static const int advices[SOAK_KINDS] = {
		[SOAK_HUGEPAGE] = MADV_HUGEPAGE,
		[SOAK_NOHUGEPAGE] = MADV_NOHUGEPAGE,
		[SOAK_COLLAPSE] = MADV_COLLAPSE,
		[SOAK_PAGEOUT] = MADV_PAGEOUT,
		[SOAK_MERGEABLE] = MADV_MERGEABLE,
		[SOAK_UNMERGEABLE] = MADV_UNMERGEABLE,
	};
	struct soak_place at;

	soak_find_place(op, &at);
	return madvise(at.addr, at.npages * PAGE, advices[op->kind]) ? -errno : 0;
}

/*
 * Advice that drops data. It stops at the first page that is locked. Where the core has the bug of
 * patches/core/0046, a child's MADV_FREE also drops its parent's data.
 */
static int do_drop(const struct soak_op *op)
{
	bool lazily = op->kind == SOAK_FREE;
	unsigned long npages;
	struct soak_place at;
	int rc, want;

	if (lazily && !soak->core_fixed)
		return -ENXIO;
	soak_find_place(op, &at);
	for (npages = 0; npages < at.npages; npages++)
		if (at.region->state[at.page + npages] & LOCKED)
			break;
	want = npages < at.npages ? -EINVAL : 0;
	rc = madvise(at.addr, at.npages * PAGE, lazily ? MADV_FREE : MADV_DONTNEED) ? -errno : 0;
	if (rc != want)
		soak_fail(SOAK_ERROR, "%s of %p + %lu pages: %d, not %d",
			  soak_kind_name(op->kind), at.addr, at.npages, rc, want);
	if (lazily)
		soak_note_state(at.region, at.page, npages, 0, FREED);
	else
		soak_note_zero(at.region, at.page, npages);
	return rc;
}

static int do_split(const struct soak_op *op)
{
	struct soak_place at;
	char text[64];

	if (access(SPLIT, W_OK))
		return -ENXIO;
	soak_find_place(op, &at);
	snprintf(text, sizeof(text), "%d,%#lx,%#lx,0", getpid(), (unsigned long)at.addr,
		 (unsigned long)at.addr + at.npages * PAGE);
	return write_file(SPLIT, text);
}

/* The mapping is locked even if its pages could not be faulted in. */
static int do_mlock(const struct soak_op *op)
{
	struct soak_place at;
	int rc;

	soak_find_place(op, &at);
	if (op->kind == SOAK_MUNLOCK)
		rc = munlock(at.addr, at.npages * PAGE);
	else if (op->variant & 1)
		rc = mlock(at.addr, at.npages * PAGE);
	else
		rc = mlock2(at.addr, at.npages * PAGE, MLOCK_ONFAULT);
	rc = rc ? -errno : 0;
	if (op->kind == SOAK_MUNLOCK)
		soak_note_state(at.region, at.page, at.npages, LOCKED, 0);
	else
		soak_note_state(at.region, at.page, at.npages, 0, LOCKED);
	return rc;
}

static int do_mprotect(const struct soak_op *op)
{
	static const struct {
		int prot;
		unsigned char state;
	} prots[] = {
		{ PROT_READ | PROT_WRITE, MAY_READ | MAY_WRITE },
		{ PROT_READ | PROT_WRITE, MAY_READ | MAY_WRITE },
		{ PROT_READ | PROT_WRITE, MAY_READ | MAY_WRITE },
		{ PROT_READ | PROT_WRITE, MAY_READ | MAY_WRITE },
		{ PROT_READ, MAY_READ },
		{ PROT_NONE, 0 },
	};
	unsigned int nr = op->variant % ARRAY_SIZE(prots);
	struct soak_place at;

	soak_find_place(op, &at);
	if (mprotect(at.addr, at.npages * PAGE, prots[nr].prot))
		soak_fail(SOAK_ERROR, "mprotect %p + %lu pages: errno %d", at.addr, at.npages,
			  errno);
	soak_note_state(at.region, at.page, at.npages, MAY_READ | MAY_WRITE, prots[nr].state);
	return 0;
}

/* Moves pages from one place of a region to another. After an error the state is unknown. */
static int do_mremap(const struct soak_op *op)
{
	unsigned long to;
	struct soak_place at;
	void *mem;
	int rc;

	soak_find_place(op, &at);
	to = op->value % (at.region->npages - at.npages + 1);
	if (op->variant & 1)
		to = (to & ~511UL) | (at.page & 511);
	if (to + at.npages > at.region->npages ||
	    (to < at.page + at.npages && at.page < to + at.npages))
		return -ENXIO;
	mem = mremap(at.addr, at.npages * PAGE, at.npages * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED,
		     at.region->base + to * PAGE);
	rc = mem == MAP_FAILED ? -errno : 0;
	if (rc)
		soak_map(at.region, to, at.npages);
	else
		soak_note_moved(at.region, to, at.page, at.npages);
	soak_map(at.region, at.page, at.npages);
	return rc;
}

/* Unmaps pages, with a device access meanwhile, and maps new ones. */
static int do_munmap(const struct soak_op *op)
{
	struct hmm_ref_access cmd;
	int fd = soak_open(op), rc;
	struct soak_place at;

	soak_find_place(op, &at);
	if (munmap(at.addr, at.npages * PAGE))
		soak_fail(SOAK_ERROR, "munmap of %p: errno %d", at.addr, errno);
	if (fd >= 0) {
		rc = _test_access(fd, HMM_REF_IOC_READ, at.addr, PAGE, soak_scratch, &cmd);
		if (!rc)
			soak_fail(SOAK_DATA, "READ of %p, which is unmapped", at.addr);
		soak_checked(op, rc, SOAK_BY_ACCESS, MAY_EFAULT);
	}
	soak_map(at.region, at.page, at.npages);
	if (op->variant & 1)
		madvise(at.addr, at.npages * PAGE, MADV_HUGEPAGE);
	return 0;
}

/**
 * soak_fill() - fill the regions of a new process with data
 * @stream: stream of the process
 */
void soak_fill(uint32_t stream)
{
	struct soak_op op = {};
	struct soak_place at;

	op.value = stream;
	op.npages = MOST_PAGES;
	for (op.region = 0; op.region < SOAK_REGIONS; op.region++) {
		for (op.page = 0; op.page < soak_regions[op.region].npages; op.page += MOST_PAGES) {
			soak_find_place(&op, &at);
			at.bytes = at.npages * PAGE;
			soak_make_data(&op, at.bytes);
			op.value += 0x1000000000001ULL;
			store_bytes(&at, soak_data);
		}
	}
}

/* ---- dispatch -------------------------------------------------------------------- */

/**
 * soak_memory_op() - run an operation of the CPU or on mappings
 * @op: the operation
 *
 * Return: 0, an error that is allowed, or -ENXIO when it could not be tried.
 */
int soak_memory_op(const struct soak_op *op)
{
	switch (op->kind) {
	case SOAK_TOUCH:
		return do_touch(op);
	case SOAK_STORE:
		return do_store(op);
	case SOAK_SAME:
		return do_same(op);
	case SOAK_GUP:
		return do_gup(op);
	case SOAK_DONTNEED:
	case SOAK_FREE:
		return do_drop(op);
	case SOAK_SPLIT:
		return do_split(op);
	case SOAK_MLOCK:
	case SOAK_MUNLOCK:
		return do_mlock(op);
	case SOAK_MPROTECT:
		return do_mprotect(op);
	case SOAK_MREMAP:
		return do_mremap(op);
	case SOAK_MUNMAP:
		return do_munmap(op);
	default:
		return do_advise(op);
	}
}
