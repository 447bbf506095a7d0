/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The fuzzer: declarations that its files share. See fuzz.c.
 */
#ifndef _HMM_REF_FUZZ_H
#define _HMM_REF_FUZZ_H

#include <stdint.h>
#include <stdio.h>
#include <sys/types.h>

#include "kselftest.h"
#include "hmm_ref_dev.h"
#include "hmm_ref_file.h"
#include "hmm_ref_stream.h"

/* ---- Programs and the log: fuzz_program.c ------------------------------------ */

#define WORKERS		4U
#define THREADS		3U		/* threads of a worker, with its main thread */
#define CHILDREN	3U		/* at most one per thread */
#define SLOTS_OF_WORKER	(THREADS + CHILDREN)
#define SLOTS		(WORKERS * SLOTS_OF_WORKER)
#define RING		48U

/* The cgroup of the workers, whose memory the supervisor limits. */
#define CGROUP		"/sys/fs/cgroup/hmm_ref_fuzz/"

enum kind {
	OP_OPEN, OP_CLOSE, OP_MIGRATE, OP_READ, OP_WRITE, OP_SNAPSHOT, OP_LOOK,
	OP_EXCLUSIVE, OP_ATOMIC, OP_BAD_NATIVE, OP_OLD, OP_BAD_OLD,
	OP_CPU_READ, OP_CPU_WRITE, OP_REMOTE, OP_MADVISE, OP_MAP, OP_UNMAP,
	OP_MREMAP, OP_MPROTECT, OP_MLOCK, OP_UFFD, OP_PLACE, OP_PIN, OP_PASS, OP_CLONE,
	OP_FORK, OP_JOIN, OP_VERIFY, OP_DIE,
	KINDS
};

/* Weights add up to about 1000. Death is rare, migration is frequent. */
struct kind_info {
	const char *name;
	unsigned int weight;
};

/* Each kind uses some of these numbers, modulo its own limits. */
struct op {
	enum kind kind;
	unsigned int region;	/* 0 to 15 */
	unsigned int slot;	/* index of an open file */
	unsigned int variant;
	unsigned int page;
	unsigned int npages;
	unsigned int offset;	/* bytes from the start of the page */
	unsigned int bytes;
	uint64_t value;
};

struct fuzz_slot {
	uint32_t stream;
	unsigned int index;		/* operation under way */
	unsigned int active;
	unsigned int parked;
	pid_t pid;
	struct {
		unsigned int index;
		int rc;
		uint64_t ms;
	} ring[RING];
};

struct fuzz_shared {
	uint64_t seed;
	unsigned int stop;
	unsigned int pause;		/* odd: all workers wait */
	unsigned int injected;		/* odd: the copy engine may fail */
	unsigned int large;		/* folios stay whole on the device */
	unsigned int wild;		/* stack and code may be on a device */
	unsigned int devices;
	unsigned int old_devices;
	unsigned int nodes;		/* nodes with memory, for mbind() etc. */
	unsigned int disk;		/* /dev/ram0 may be written */
	unsigned int guard;		/* detect writes that bypass userfaultfd */
	unsigned int poison;		/* pages that may be poisoned */
	unsigned int memcg;		/* the workers have their own cgroup */
	int sockets[2];			/* for files that one worker passes to another */
	unsigned int failed;
	char why[400];
	uint64_t done[KINDS];		/* operations that returned 0 */
	uint64_t refused[KINDS];	/* operations that returned an error that is allowed */
	uint64_t busy[KINDS];		/* refused for lack of memory, or by a busy page */
	uint64_t asked, moved;		/* pages of owned regions in MIGRATE to the device */
	struct fuzz_slot slots[SLOTS];
};

#define shared_get(member)	__atomic_load_n(&shared->member, __ATOMIC_ACQUIRE)
#define shared_set(member, to)	__atomic_store_n(&shared->member, to, __ATOMIC_RELEASE)

#define fuzz_fail(...) do {			\
	fuzz_complain(__VA_ARGS__);		\
	_exit(1);				\
} while (0)

extern const struct kind_info kinds[KINDS];
extern struct fuzz_shared *shared;
extern __thread struct fuzz_slot *self;

void op_generate(uint32_t stream, unsigned int index, struct op *op);
void op_print(uint32_t stream, unsigned int index);
void fuzz_complain(const char *format, ...) __printf(1, 2);
void log_begin(unsigned int index);
void log_end(enum kind kind, int rc);
void log_dump(const struct fuzz_slot *slot);

/* ---- The model: fuzz_model.c ------------------------------------------------- */

#define PAGE		4096UL
#define BLOCK		(512 * PAGE)
#define ARENA		0x200000000000UL
#define MEGA(n)		(ARENA + ((unsigned long)(n) << 20))
#define SMALL_PAGES	64UL		/* no data buffer is larger */
#define CHAOS_PAGES	(3 * 512)

enum { R_BIG, R_FORKED, R_CHAOS, R_HUGE, R_SHARED, REGIONS };

/* State of a page of an owned region. */
#define MAY_READ	1
#define MAY_WRITE	2
#define DROPPED		4
#define WRITTEN		8		/* otherwise zeros, in the shadow as well */
#define GUARDED		16		/* write-protected by userfaultfd */

struct region {
	char *base;
	unsigned long npages;
	bool large;		/* covers whole blocks */
	char *shadow;		/* owned regions only */
	unsigned char *state;
	unsigned char *asked;	/* set when userfaultfd has let a write through */
};

/* Each thread's buffers. Behind them nothing is mapped. */
#define BUFFERS_OF(n)	((char *)MEGA(40 + 2 * (n)))
#define IDS		((char *)MEGA(48))
#define NOWHERE		((char *)MEGA(14))

extern struct region regions[REGIONS];
extern unsigned char own_id;
extern int mem_fd;			/* /proc/self/mem */
extern __thread bool owner;		/* this thread owns the owned regions */
extern __thread char *scratch;		/* SMALL_PAGES */
extern __thread char *data;		/* SMALL_PAGES */
extern __thread unsigned int injected_before;

bool may_fail(void);
bool is_owned(const struct region *region);
int cpu_copy(void *to, const void *from, size_t n);
bool all_zero(const char *mem, size_t n);
void note_zero(struct region *region, unsigned long page, unsigned long npages);
void check_seen(struct region *region, size_t off, const char *seen, size_t n, const char *who);
void note_guard(struct region *region, unsigned long page, unsigned long npages, bool on);
void note_written(struct region *region, size_t off, const char *from, size_t n);
void note_protection(struct region *region, unsigned long page, unsigned long npages,
		     unsigned char bits);
void note_content(struct region *region, unsigned long to, unsigned long from,
		  unsigned long npages);
void note_moved(struct region *region, unsigned long to, unsigned long from, unsigned long npages);
void note_dropped(struct region *region, unsigned long page, unsigned long npages);
bool may(struct region *region, size_t off, size_t n, unsigned char bits);
void make_data(char *to, size_t n, uint64_t serial);
bool holds_ids(const struct region *region);
void check_ids(const char *seen, size_t n, const char *where);
void *map_at(void *addr, size_t n, int prot, int flags, int fd);
void map_fresh(struct region *region, unsigned long page, unsigned long npages, bool huge);
int map_huge(struct region *region);
void map_process(void);
void verify_all(void);
void verify_at_last(void);

/* ---- Operations on devices: fuzz_dev.c --------------------------------------- */

#define FILES		8U
#define FILE_OLD	0x10000
#define FILE_FOREIGN	0x20000		/* opened by the parent */
#define FILE_FD		0x0ffff		/* fd + 1 */

/* Pages and bytes that an operation works on. A region of NULL is other memory of the process. */
struct place {
	struct region *region;
	char *addr;
	unsigned long page;
	unsigned long npages;
	size_t off;
	size_t bytes;
};

extern unsigned int files[FILES];

unsigned int file_swap(unsigned int slot, unsigned int file);
unsigned int file_find(unsigned int slot, unsigned int old);
int file_fd(unsigned int file);
int own_number(int fd, bool old);
int do_open(const struct op *op);
int do_close(const struct op *op);
void find_place(const struct op *op, bool change, unsigned long limit, struct place *at);
bool place_is_owned(const struct place *at);
void check_data(const struct place *at, size_t off, const char *seen, size_t n, const char *who);
const char *data_for(const struct place *at, const struct op *op, size_t n);
int checked(int rc, const char *what);
int do_migrate(const struct op *op);
int do_read(const struct op *op);
int do_write(const struct op *op);
int do_snapshot(const struct op *op);
int do_look(const struct op *op);
int do_exclusive(const struct op *op);
int do_atomic(const struct op *op);
bool is_documented_old(int rc);
int do_old(const struct op *op);

/* ---- Bad commands: fuzz_bad.c ------------------------------------------------ */

int do_bad_native(const struct op *op);
int do_bad_old(const struct op *op);

/* ---- Operations on memory: fuzz_mm.c ----------------------------------------- */

int do_cpu_read(const struct op *op);
int do_cpu_write(const struct op *op);
int do_remote(const struct op *op);
int do_madvise(const struct op *op);
int do_map(const struct op *op);
int do_unmap(const struct op *op);
int do_mremap(const struct op *op);
int do_mprotect(const struct op *op);
int do_mlock(const struct op *op);
int do_verify(const struct op *op);

/* ---- Pins, nodes, files of others: fuzz_core.c ------------------------------- */

extern int held_pipe;

int do_place(const struct op *op);
void release(int *held, int fd);
int do_pin(const struct op *op);
int do_pass(const struct op *op);

/* ---- userfaultfd: fuzz_uffd.c ------------------------------------------------ */

void uffd_begin(void);
int do_uffd(const struct op *op);

/* ---- Workers: fuzz_worker.c -------------------------------------------------- */

void process_main(unsigned int nr, unsigned int generation);

/* ---- The supervisor: fuzz_super.c -------------------------------------------- */

#define FAIL_COPY	"/sys/kernel/debug/hmm_ref/fail_copy/"
#define FAIL_LARGE	"/sys/kernel/debug/hmm_ref/fail_large/"

struct supervisor {
	uint64_t random;
	pid_t workers[WORKERS];
	unsigned int generations[WORKERS];
	struct {
		unsigned int index;
		uint32_t stream;
		uint64_t since;
	} seen[SLOTS];
	pid_t unbinder;
	uint64_t unbind_since;
	uint64_t next_pause, inject_until, squeeze_until;
	unsigned int retired, pauses, kills, unbinds, squeezes, poisoned;
	struct hmm_ref_stats last[HMM_REF_MAX_DEVICES];
	uint64_t to_device, to_system, cpu_faults, evicted, exclusive, device_faults, brought_back;
	int kmsg;
	int swap;
};

extern struct supervisor super;

void watch_kernel(void);
void show_tasks(void);
void look_at_devices(bool audit_too);
void squeeze(bool on);
void turn_a_knob(void);
void inject(bool on);
void check_rates(void);

/* ---- Bad memory: fuzz_poison.c ----------------------------------------------- */

void poison_some(void);

#endif /* _HMM_REF_FUZZ_H */
