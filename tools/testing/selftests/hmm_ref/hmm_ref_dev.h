/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Access to /dev/hmm_ref*: one wrapper per ioctl, data patterns, time. Nothing here needs the test
 * harness, so that programs which are not tests can use it.
 *
 * The wrappers are called _test_x() and return 0 or -errno. They fill the struct with 0xcc before
 * the call, so that an output which the kernel does not write is detected. Members that the first
 * version of a struct did not have are 0, as the uapi requires: an older kernel may not know them.
 *
 * Every word of the data is different, so that a page at the wrong place, an old page, a page of
 * another process and a partial copy are all detected.
 */
#ifndef _HMM_REF_DEV_H
#define _HMM_REF_DEV_H

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>

#include "hmm_ref.h"
#include "hmm_ref_bus.h"

/* How long a test repeats a best-effort operation before it fails. */
#define PATIENCE_MS		10000

/* Sizes of the device, set by hmm_ref_probe(). All files of a program share them. */
struct hmm_ref_info hmm_ref_dev_info __attribute__((common));

static inline unsigned long page_size(void)
{
	return hmm_ref_dev_info.out_page_size;
}

static inline unsigned long block_size(void)
{
	return hmm_ref_dev_info.out_block_size;
}

static inline unsigned long block_pages(void)
{
	return block_size() / page_size();
}

/* True if large folios stay whole on the device. Older kernels only migrate single pages. */
static inline bool keeps_large(void)
{
	return hmm_ref_dev_info.out_folio_size > page_size();
}

/* True if the kernel has all fixes of patches/core. */
static inline bool core_is_fixed(void)
{
	return hmm_ref_dev_info.out_features & HMM_REF_FEATURE_CORE_FIXED;
}

static inline unsigned long long now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000000000ULL + ts.tv_nsec;
}

static inline unsigned long long now_ms(void)
{
	return now_ns() / 1000000;
}

/* xorshift: the same seed gives the same numbers everywhere. */
static inline unsigned int random_next(unsigned int *state)
{
	*state ^= *state << 13;
	*state ^= *state >> 17;
	*state ^= *state << 5;
	return *state;
}

static inline unsigned int random_seed(const char *variable)
{
	const char *value = getenv(variable);
	unsigned int seed = value ? strtoul(value, NULL, 0) : now_ns();

	return seed ? seed : 1;
}

static inline unsigned long env_number(const char *variable, unsigned long value)
{
	const char *text = getenv(variable);

	return text && *text ? strtoul(text, NULL, 0) : value;
}

static inline int hmm_ref_open(unsigned int nr)
{
	char path[32];
	int fd;

	snprintf(path, sizeof(path), "/dev/hmm_ref%u", nr);
	fd = open(path, O_RDWR | O_CLOEXEC);
	return fd < 0 ? -errno : fd;
}

static inline unsigned int hmm_ref_count(void)
{
	unsigned int nr;
	char path[32];

	for (nr = 0; nr < HMM_REF_MAX_DEVICES; nr++) {
		snprintf(path, sizeof(path), "/dev/hmm_ref%u", nr);
		if (access(path, F_OK))
			break;
	}
	return nr;
}

static inline int _test_ioctl(int fd, unsigned long request, void *arg)
{
	return ioctl(fd, request, arg) ? -errno : 0;
}

static inline int _test_info(int fd, struct hmm_ref_info *cmd)
{
	memset(cmd, 0, sizeof(*cmd));
	memset(cmd, 0xcc, offsetof(struct hmm_ref_info, out_folio_size));
	cmd->size = sizeof(*cmd);
	cmd->flags = 0;
	return _test_ioctl(fd, HMM_REF_IOC_INFO, cmd);
}

static inline int _test_migrate_flags(int fd, unsigned int flags, unsigned int direction,
				      const void *addr, unsigned long length,
				      struct hmm_ref_migrate *cmd)
{
	memset(cmd, 0xcc, sizeof(*cmd));
	cmd->size = sizeof(*cmd);
	cmd->flags = flags;
	cmd->direction = direction;
	cmd->__reserved = 0;
	cmd->addr = (unsigned long)addr;
	cmd->length = length;
	return _test_ioctl(fd, HMM_REF_IOC_MIGRATE, cmd);
}

static inline int _test_migrate(int fd, unsigned int direction, const void *addr,
				unsigned long length, struct hmm_ref_migrate *cmd)
{
	return _test_migrate_flags(fd, 0, direction, addr, length, cmd);
}

static inline int _test_access(int fd, unsigned long request, const void *addr,
			       unsigned long length, const void *buf,
			       struct hmm_ref_access *cmd)
{
	memset(cmd, 0xcc, sizeof(*cmd));
	cmd->size = sizeof(*cmd);
	cmd->flags = 0;
	cmd->addr = (unsigned long)addr;
	cmd->length = length;
	cmd->buf = (unsigned long)buf;
	return _test_ioctl(fd, request, cmd);
}

/* Forms without counts. They return -EPROTO if the counts are wrong. */
static inline int _test_read(int fd, const void *addr, unsigned long length,
			     void *buf)
{
	struct hmm_ref_access cmd;
	int rc = _test_access(fd, HMM_REF_IOC_READ, addr, length, buf, &cmd);

	return rc ? rc : cmd.out_bytes == length ? 0 : -EPROTO;
}

static inline int _test_write(int fd, void *addr, unsigned long length,
			      const void *buf)
{
	struct hmm_ref_access cmd;
	int rc = _test_access(fd, HMM_REF_IOC_WRITE, addr, length, buf, &cmd);

	return rc ? rc : cmd.out_bytes == length ? 0 : -EPROTO;
}

static inline int _test_snapshot(int fd, const void *addr, unsigned long length,
				 struct hmm_ref_page_state *states,
				 struct hmm_ref_snapshot *cmd)
{
	memset(cmd, 0xcc, sizeof(*cmd));
	cmd->size = sizeof(*cmd);
	cmd->flags = 0;
	cmd->addr = (unsigned long)addr;
	cmd->length = length;
	cmd->buf = (unsigned long)states;
	return _test_ioctl(fd, HMM_REF_IOC_SNAPSHOT, cmd);
}

static inline int _test_stats(int fd, struct hmm_ref_stats *cmd)
{
	memset(cmd, 0, sizeof(*cmd));
	memset(cmd, 0xcc, offsetof(struct hmm_ref_stats, out_exclusive));
	cmd->size = sizeof(*cmd);
	cmd->flags = 0;
	return _test_ioctl(fd, HMM_REF_IOC_STATS, cmd);
}

static inline int _test_audit(int fd, struct hmm_ref_audit *cmd)
{
	memset(cmd, 0xcc, sizeof(*cmd));
	cmd->size = sizeof(*cmd);
	cmd->flags = 0;
	return _test_ioctl(fd, HMM_REF_IOC_AUDIT, cmd);
}

static inline int _test_exclusive(int fd, const void *addr, unsigned long length,
				  struct hmm_ref_exclusive *cmd)
{
	memset(cmd, 0xcc, sizeof(*cmd));
	cmd->size = sizeof(*cmd);
	cmd->flags = 0;
	cmd->addr = (unsigned long)addr;
	cmd->length = length;
	return _test_ioctl(fd, HMM_REF_IOC_EXCLUSIVE, cmd);
}

/* Returns -EPROTO unless all pages become exclusive. */
static inline int _test_make_exclusive(int fd, const void *mem, unsigned long npages)
{
	struct hmm_ref_exclusive cmd;
	int rc = _test_exclusive(fd, mem, npages * page_size(), &cmd);

	return rc ? rc : cmd.out_pages == npages ? 0 : -EPROTO;
}

static inline void fill_atomic(struct hmm_ref_atomic *cmd, unsigned int op,
			       const void *addr, unsigned long length,
			       unsigned long long operand, unsigned long long compare)
{
	memset(cmd, 0xcc, sizeof(*cmd));
	cmd->size = sizeof(*cmd);
	cmd->flags = 0;
	cmd->op = op;
	cmd->__reserved = 0;
	cmd->addr = (unsigned long)addr;
	cmd->length = length;
	cmd->operand = operand;
	cmd->compare = compare;
}

static inline int _test_atomic(int fd, unsigned int op, void *addr,
			       unsigned long length, unsigned long long operand,
			       unsigned long long compare, struct hmm_ref_atomic *cmd)
{
	fill_atomic(cmd, op, addr, length, operand, compare);
	return _test_ioctl(fd, HMM_REF_IOC_ATOMIC, cmd);
}

static inline int _test_evict(int fd, const void *addr, unsigned long length,
			      struct hmm_ref_evict *cmd)
{
	memset(cmd, 0xcc, sizeof(*cmd));
	cmd->size = sizeof(*cmd);
	cmd->flags = 0;
	cmd->addr = (unsigned long)addr;
	cmd->length = length;
	return _test_ioctl(fd, HMM_REF_IOC_EVICT, cmd);
}

/* Repeats until no page of the file is on the device. Returns 0, -errno, or -ETIMEDOUT. */
static inline int _test_evict_all(int fd)
{
	unsigned long long deadline = now_ms() + PATIENCE_MS;
	struct hmm_ref_evict_all cmd;
	int rc;

	for (;;) {
		memset(&cmd, 0xcc, sizeof(cmd));
		cmd.size = sizeof(cmd);
		cmd.flags = 0;
		rc = _test_ioctl(fd, HMM_REF_IOC_EVICT_ALL, &cmd);
		if (rc || !cmd.out_skipped)
			return rc;
		if (now_ms() > deadline)
			return -ETIMEDOUT;
		usleep(1000);
	}
}

/* Sets hmm_ref_dev_info. Returns 0, or -errno of opening device 0 or of INFO. */
static inline int hmm_ref_probe(void)
{
	int fd = hmm_ref_open(0);
	int rc;

	if (fd < 0)
		return fd;
	rc = _test_info(fd, &hmm_ref_dev_info);
	close(fd);
	return rc;
}

/*
 * Migrates until no page of the range is skipped, for at most PATIENCE_MS. @last has the counts of
 * the last call. Returns 0, -errno of the ioctl, -EPROTO when the counts do not add up, or
 * -ETIMEDOUT when pages are still skipped.
 */
static inline int _test_migrate_all(int fd, unsigned int direction,
				    const void *addr, unsigned long npages,
				    struct hmm_ref_migrate *last)
{
	unsigned long long deadline = now_ms() + PATIENCE_MS;
	int rc;

	for (;;) {
		rc = _test_migrate(fd, direction, addr, npages * page_size(), last);
		if (rc)
			return rc;
		if (last->out_migrated + last->out_already + last->out_skipped != npages)
			return -EPROTO;
		if (!last->out_skipped)
			return 0;
		if (now_ms() > deadline)
			return -ETIMEDOUT;
		usleep(1000);
	}
}

/* A process that has exited may free its pages and reservations a little later. */
static inline int leak_wait(int fd, unsigned long long in_use,
			    struct hmm_ref_stats *stats)
{
	unsigned long long deadline = now_ms() + PATIENCE_MS;
	int rc;

	do {
		rc = _test_stats(fd, stats);
		if (rc || (stats->out_pages_in_use <= in_use && !stats->out_pages_reserved))
			return rc;
		usleep(10000);
	} while (now_ms() < deadline);
	return -ETIMEDOUT;
}

/*
 * Opens the last device of private memory. While its pages are lost, or commands wait, a new device
 * can be bound all the same, unlike with coherent memory, whose address is fixed.
 */
static inline int open_private(unsigned int devices, unsigned int *nr)
{
	struct hmm_ref_info info;
	int fd;

	for (*nr = devices; (*nr)--; close(fd)) {
		fd = hmm_ref_open(*nr);
		if (fd < 0 || (!_test_info(fd, &info) &&
			       info.out_memory_type == HMM_REF_MEMORY_PRIVATE))
			return fd;
	}
	return -ENODEV;
}

/* A CPU access that the compiler neither drops nor moves. */
static inline char touch_read(const void *addr)
{
	return __atomic_load_n((const char *)addr, __ATOMIC_SEQ_CST);
}

static inline void touch_write(void *addr, char value)
{
	__atomic_store_n((char *)addr, value, __ATOMIC_SEQ_CST);
}

/* The word at @index of page @page in the data of @seed. */
static inline unsigned long pattern_word(unsigned int seed, unsigned long page,
					 unsigned long index)
{
	return (seed * 0x9e3779b97f4a7c15UL) ^ (page << 20) ^ (index + 1);
}

static inline void fill_pages_from(void *mem, unsigned long npages,
				   unsigned int seed, unsigned long first)
{
	unsigned long words = page_size() / sizeof(long);
	unsigned long *p = mem;
	unsigned long i, j;

	for (i = 0; i < npages; i++)
		for (j = 0; j < words; j++)
			*p++ = pattern_word(seed, first + i, j);
}

static inline void fill_pages(void *mem, unsigned long npages, unsigned int seed)
{
	fill_pages_from(mem, npages, seed, 0);
}

static inline bool page_holds(const void *mem, unsigned int seed,
			      unsigned long page)
{
	unsigned long words = page_size() / sizeof(long);
	const unsigned long *p = mem;
	unsigned long j;

	for (j = 0; j < words; j++)
		if (p[j] != pattern_word(seed, page, j))
			return false;
	return true;
}

/* Returns the PFN of a page of a private mapping, on a device or not, or 0. */
static inline unsigned long pfn_of(const void *addr)
{
	int fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	off_t offset = (unsigned long)addr / page_size() * 8;
	unsigned long long entry = 0;

	if (fd < 0)
		return 0;
	if (pread(fd, &entry, 8, offset) != 8)
		entry = 0;
	close(fd);
	if (entry & 1ULL << 63)
		return entry & ((1ULL << 55) - 1);
	/* A device private entry looks like a swap entry. The swap type is in its low bits. */
	return entry & 1ULL << 62 ? (entry & ((1ULL << 55) - 1)) >> 5 : 0;
}

static inline bool page_is_zero(const void *mem)
{
	unsigned long words = page_size() / sizeof(long);
	const unsigned long *p = mem;
	unsigned long j;

	for (j = 0; j < words; j++)
		if (p[j])
			return false;
	return true;
}

static inline void report_bad_page(const char *who, unsigned long page,
				   const void *mem, unsigned int seed)
{
	const unsigned long *p = mem;

	fprintf(stderr, "# %s: page %lu has %#lx %#lx, expected %#lx (seed %u)\n",
		who, page, p[0], p[1], pattern_word(seed, page, 0), seed);
}

/* Returns how many pages do not hold their expected data, as the CPU sees it. */
static inline long bad_pages_from(const void *mem, unsigned long npages,
				  unsigned int seed, unsigned long first)
{
	unsigned long i;
	long bad = 0;

	for (i = 0; i < npages; i++) {
		const void *page = (const char *)mem + i * page_size();

		if (page_holds(page, seed, first + i))
			continue;
		if (!bad++)
			report_bad_page("cpu", first + i, page, seed);
	}
	return bad;
}

static inline long bad_pages(const void *mem, unsigned long npages,
			     unsigned int seed)
{
	return bad_pages_from(mem, npages, seed, 0);
}

#define BOUNCE_PAGES	16UL

/* As bad_pages(), as the device sees it. Returns -errno if READ fails. */
static inline long dev_bad_pages(int fd, const void *mem, unsigned long npages,
				 unsigned int seed)
{
	char *buf = malloc(BOUNCE_PAGES * page_size());
	unsigned long i, n;
	long bad = 0;
	int rc;

	for (i = 0; buf && i < npages; i += n) {
		n = npages - i < BOUNCE_PAGES ? npages - i : BOUNCE_PAGES;
		memset(buf, 0xcc, n * page_size());
		rc = _test_read(fd, (const char *)mem + i * page_size(),
				n * page_size(), buf);
		if (rc) {
			free(buf);
			return rc;
		}
		bad += bad_pages_from(buf, n, seed, i);
	}
	free(buf);
	return buf ? bad : -ENOMEM;
}

/* The device writes the data of @seed. Returns 0 or -errno. */
static inline int dev_fill_pages(int fd, void *mem, unsigned long npages,
				 unsigned int seed)
{
	char *buf = malloc(BOUNCE_PAGES * page_size());
	unsigned long i, n;
	int rc = buf ? 0 : -ENOMEM;

	for (i = 0; !rc && i < npages; i += n) {
		n = npages - i < BOUNCE_PAGES ? npages - i : BOUNCE_PAGES;
		fill_pages_from(buf, n, seed, i);
		rc = _test_write(fd, (char *)mem + i * page_size(),
				 n * page_size(), buf);
	}
	free(buf);
	return rc;
}

/* Returns how many pages SNAPSHOT reports at @where, or -errno. */
static inline long pages_at(int fd, const void *mem, unsigned long npages,
			    enum hmm_ref_page_where where)
{
	struct hmm_ref_page_state *states = malloc(npages * sizeof(*states));
	struct hmm_ref_snapshot cmd;
	unsigned long i;
	long found = 0;
	int rc;

	if (!states)
		return -ENOMEM;
	memset(states, 0xcc, npages * sizeof(*states));
	rc = _test_snapshot(fd, mem, npages * page_size(), states, &cmd);
	if (!rc && cmd.out_pages != npages)
		rc = -EPROTO;
	for (i = 0; !rc && i < npages; i++)
		found += states[i].where == where;
	free(states);
	return rc ? rc : found;
}

/* Returns how many pages have all of @flags set, or -errno. */
static inline long pages_flagged(int fd, const void *mem, unsigned long npages,
				 unsigned int flags)
{
	struct hmm_ref_page_state *states = malloc(npages * sizeof(*states));
	struct hmm_ref_snapshot cmd;
	unsigned long i;
	long found = 0;
	int rc;

	if (!states)
		return -ENOMEM;
	memset(states, 0xcc, npages * sizeof(*states));
	rc = _test_snapshot(fd, mem, npages * page_size(), states, &cmd);
	if (!rc && cmd.out_pages != npages)
		rc = -EPROTO;
	for (i = 0; !rc && i < npages; i++)
		found += (states[i].flags & flags) == flags;
	free(states);
	return rc ? rc : found;
}

static inline void *map_pages(unsigned long npages)
{
	return mmap(NULL, npages * page_size(), PROT_READ | PROT_WRITE,
		    MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
}

/* Maps whole blocks, aligned so that huge pages are possible. */
static inline void *map_blocks(unsigned long nblocks)
{
	unsigned long mask = block_size() - 1;
	unsigned long base, addr;
	char *mem;

	mem = mmap(NULL, (nblocks + 1) * block_size(), PROT_READ | PROT_WRITE,
		   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (mem == MAP_FAILED)
		return mem;
	base = (unsigned long)mem;
	addr = (base + mask) & ~mask;
	if (addr > base)
		munmap(mem, addr - base);
	if (addr < base + block_size())
		munmap((void *)(addr + nblocks * block_size()),
		       base + block_size() - addr);
	return (void *)addr;
}

#endif /* _HMM_REF_DEV_H */
