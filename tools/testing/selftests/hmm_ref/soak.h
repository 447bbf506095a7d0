/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The soak test: declarations that its files share. See soak.c.
 */
#ifndef _HMM_REF_SOAK_H
#define _HMM_REF_SOAK_H

#include <stdint.h>
#include <sys/types.h>

#include "kselftest.h"
#include "hmm_ref_dev.h"
#include "hmm_ref_file.h"
#include "hmm_ref_stream.h"

#define PAGE		4096UL
#define BLOCK		(512 * PAGE)
#define MAX_WORKERS	16U
#define SLOTS_OF_WORKER	2U		/* the worker and a child */
#define SLOTS		(MAX_WORKERS * SLOTS_OF_WORKER)
#define MAX_MODES	20U
#define RING		16U		/* operations that a slot records */
#define MOST_PAGES	64U		/* largest number of pages in one access */

/* ---- what all processes share ---------------------------------------------------- */

enum soak_kind {
	SOAK_TOUCH, SOAK_STORE, SOAK_SAME, SOAK_GUP, SOAK_MIGRATE, SOAK_READ, SOAK_WRITE,
	SOAK_ATOMIC, SOAK_EXCLUSIVE, SOAK_EVICT, SOAK_RELEASE, SOAK_REOPEN, SOAK_SNAPSHOT,
	SOAK_DONTNEED, SOAK_FREE, SOAK_HUGEPAGE, SOAK_NOHUGEPAGE, SOAK_COLLAPSE, SOAK_PAGEOUT,
	SOAK_MERGEABLE, SOAK_UNMERGEABLE, SOAK_SPLIT, SOAK_MLOCK, SOAK_MUNLOCK,
	SOAK_MPROTECT, SOAK_MREMAP, SOAK_MUNMAP, SOAK_FORK, SOAK_EXEC, SOAK_VERIFY,
	SOAK_KINDS
};

/* Kinds of failures. Each is a test. */
enum soak_failure { SOAK_NONE, SOAK_DATA, SOAK_ERROR, SOAK_STUCK, SOAK_LEAK };

/**
 * struct soak_slot - a process, or the last one that used the slot
 * @active: the process exists
 * @generation: number of processes in this slot so far
 * @stream: program of the process (hmm_ref_stream.h)
 * @index: operation under way
 * @beats: counter of progress
 * @injected: operations that met an injected fault
 * @pending: injected faults since all of the memory was last verified
 * @survived: injected faults before that
 * @verified: bytes compared with the shadow
 * @lost: bytes that were different
 * @lost_pages: pages that were on a device when it was lost by injection
 * @ring: results of the last operations
 */
struct soak_slot {
	pid_t pid;
	unsigned int active;
	unsigned int generation;
	uint32_t stream;
	unsigned int index;
	uint64_t beats;
	uint64_t injected, pending, survived;
	uint64_t verified, lost;
	uint64_t lost_pages;
	struct {
		unsigned int index;
		int rc;
	} ring[RING];
};

/**
 * struct soak_shared - shared state of all processes, in a memfd that survives exec
 * @seed: seed of all programs
 * @stop: workers compare their memory and end
 * @epochs: epoch of each mode, which is odd while the mode is on
 * @failed: first failure, enum soak_failure; @why is complete when @told is set
 */
struct soak_shared {
	uint64_t seed;
	unsigned int workers, devices;
	unsigned int core_fixed;	/* the kernel has the fixes of patches/core */
	unsigned int stop;
	unsigned int epochs[MAX_MODES];
	unsigned int failed, told;
	char why[400];
	uint64_t done[SOAK_KINDS];	/* operations that returned 0 */
	uint64_t refused[SOAK_KINDS];	/* operations that returned an error that is allowed */
	struct soak_slot slots[SLOTS];
};

extern struct soak_shared *soak;
extern __thread struct soak_slot *soak_self;

#define soak_get(member)	__atomic_load_n(&soak->member, __ATOMIC_ACQUIRE)
#define soak_set(member, to)	__atomic_store_n(&soak->member, to, __ATOMIC_RELEASE)

void soak_complain(enum soak_failure failure, const char *format, ...) __printf(2, 3);

/* For workers. Ends the process. */
#define soak_fail(failure, ...) do {			\
	soak_complain(failure, __VA_ARGS__);		\
	_exit(1);					\
} while (0)

void soak_beat(void);

/* ---- programs: soak_program.c ---------------------------------------------------- */

/**
 * struct soak_op - numbers of an operation, of which each kind uses some, modulo its limits
 * @page: first page
 * @offset: first byte in that page
 */
struct soak_op {
	enum soak_kind kind;
	unsigned int region, device, variant;
	unsigned int page, npages;
	unsigned int offset, bytes;
	uint64_t value;
};

void soak_generate(uint32_t stream, unsigned int index, struct soak_op *op);
/* Data that is read goes to soak_scratch. Data to write is in soak_data. */
extern __thread char soak_scratch[MOST_PAGES * PAGE];
extern __thread char soak_data[MOST_PAGES * PAGE];

void soak_make_data(const struct soak_op *op, size_t n);
const char *soak_kind_name(enum soak_kind kind);
void soak_print_op(uint32_t stream, unsigned int index);
void soak_dump(const struct soak_slot *slot);

/* ---- hostile modes: soak_modes.c ------------------------------------------------- */

/* Errors of an injected fault. */
#define MAY_EIO		(1 << 0)
#define MAY_EAGAIN	(1 << 1)
#define MAY_ETIMEDOUT	(1 << 2)
#define MAY_ENOMEM	(1 << 3)
#define MAY_EFAULT	(1 << 4)
#define MAY_SIGBUS	(1 << 5)

/* What meets the fault: a column of the table of modes. */
enum soak_column { SOAK_BY_MIGRATE, SOAK_BY_ACCESS, SOAK_BY_CPU, SOAK_BY_SYSCALL };

void soak_modes_begin(void);
unsigned int soak_modes_may(enum soak_column column);
unsigned int soak_bit_of(int rc);
unsigned int soak_losses(void);

int soak_modes_setup(void);
void soak_modes_tick(uint64_t operations, uint64_t *random);
bool soak_modes_take_loss(void);
void soak_modes_calm(void);
void soak_modes_restore(void);
uint64_t soak_modes_report(void);

/* ---- the model: soak_model.c ----------------------------------------------------- */

/* State of a page. */
#define MAY_READ	1
#define MAY_WRITE	2
#define FREED		4	/* has its data or zeros, until it is written */
#define LOCKED		8	/* in a mapping that is mlocked */

/**
 * struct soak_region - memory of a worker, and its expected content
 * @base: address, which is the same in all processes
 * @shadow: copy of the expected content, in memory that no device uses
 * @state: state of each page
 */
struct soak_region {
	char *base;
	unsigned long npages;
	char *shadow;
	unsigned char *state;
};

#define SOAK_REGIONS	2U

extern struct soak_region soak_regions[SOAK_REGIONS];

void soak_model_begin(void);
void soak_map(struct soak_region *region, unsigned long page, unsigned long npages);
int soak_cpu_copy(void *to, const void *from, size_t n);
bool soak_may(const struct soak_region *region, size_t off, size_t n, unsigned char bits);
void soak_check(struct soak_region *region, size_t off, const char *seen, size_t n,
		const char *by);
void soak_note_written(struct soak_region *region, size_t off, const char *from, size_t n);
void soak_note_zero(struct soak_region *region, unsigned long page, unsigned long npages);
void soak_note_state(struct soak_region *region, unsigned long page, unsigned long npages,
		     unsigned char clear, unsigned char set);
void soak_note_moved(struct soak_region *region, unsigned long to, unsigned long from,
		     unsigned long npages);
void soak_note_injected(void);
void soak_verify(unsigned long every);
void soak_verify_at_last(void);
bool soak_any_lost(void);

/**
 * struct soak_place - pages or bytes that an operation works on
 */
struct soak_place {
	struct soak_region *region;
	char *addr;
	unsigned long page, npages;
	size_t off, bytes;
};

void soak_find_place(const struct soak_op *op, struct soak_place *at);

/* ---- history of a page: soak_history.c ------------------------------------------- */

void soak_remember(uint32_t stream, unsigned int index, const struct soak_op *op, bool done,
		   int rc);
void soak_dump_page(const struct soak_region *region, unsigned long page);

/* ---- operations: soak_device.c, soak_memory.c ------------------------------------ */

int soak_device_op(const struct soak_op *op);
int soak_memory_op(const struct soak_op *op);
void soak_fill(uint32_t stream);
int soak_open(const struct soak_op *op);
void soak_close_files(void);
int soak_checked(const struct soak_op *op, int rc, enum soak_column column, unsigned int always);

/* ---- workers: soak_worker.c ------------------------------------------------------ */

extern __thread bool soak_is_mover;	/* this is the second thread */

void soak_worker_main(unsigned int nr);

/* ---- results: soak_report.c ------------------------------------------------------ */

/**
 * struct soak_totals - counters of the supervisor
 * @gone: injected faults of processes that were killed before they verified their memory
 * @samples: readings of the devices' statistics
 * @held: sum of the pages in use over all samples
 * @most: largest number of pages in use
 * @to_device: this and the following members are from the devices' statistics
 */
struct soak_totals {
	unsigned int rounds, kills, unbinds, losses, audits;
	uint64_t gone;
	uint64_t samples, held, most;
	uint64_t to_device, to_system, cpu_faults, device_faults, evicted, exclusive;
};

extern struct soak_totals soak_totals;

#define soak_sum_of(member)	soak_sum(offsetof(struct soak_slot, member))

uint64_t soak_sum(size_t offset);
uint64_t soak_operations(void);
const char *soak_not_done(void);
void soak_print_events(void);	/* in soak.c */
void soak_report_begin(void);
void soak_report(unsigned int seconds);

#endif /* _HMM_REF_SOAK_H */
