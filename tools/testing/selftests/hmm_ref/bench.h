/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The benchmark: declarations that its files share. See hmm_ref_bench.c.
 */
#ifndef _HMM_REF_BENCH_H
#define _HMM_REF_BENCH_H

#include <stdint.h>
#include <stdio.h>
#include <sched.h>

#include "hmm_ref_dev.h"

/* ---- Arithmetic: bench_stats.c ----------------------------------------------- */

#define HIST_STEPS	8U
#define HIST_BUCKETS	(62U * HIST_STEPS)

struct stats {
	double median, mean, p5, p95, min;
	double confidence;	/* half of the 95 % interval, in percent of the mean */
	unsigned int count;
};

struct histogram {
	uint64_t count[HIST_BUCKETS];
	uint64_t total;
};

void stats_make(struct stats *stats, double *samples, unsigned int n);
uint64_t hist_low(unsigned int bucket);
void hist_add(struct histogram *hist, uint64_t value);
void hist_merge(struct histogram *hist, const struct histogram *other);
double hist_quantile(const struct histogram *hist, double q);

/* ---- Drivers: bench_dev.c ---------------------------------------------------- */

enum source { SRC_HMM_REF, SRC_OLD, SRC_TEST_HMM, SRC_FLOOR, SRC_SYSTEM, NR_SOURCES };

struct source_info {
	const char *name;
	const char *module;
	const char *device;
	bool old;		/* has the old interface */
};

extern const struct source_info sources[NR_SOURCES];

void modules_save(void);
bool source_load(enum source source, const char *params);
void modules_restore(void);
int old_ioctl(int fd, unsigned int nr, void *mem, unsigned long npages, void *buf);
int source_open(enum source source);
int native_migrate(int fd, unsigned int direction, unsigned int flags, void *mem,
		   unsigned long npages);
int dev_to_device(enum source source, int fd, void *mem, unsigned long npages, void *buf);
int dev_to_system(enum source source, int fd, void *mem, unsigned long npages);
int dev_access(enum source source, int fd, bool write, void *mem, unsigned long npages, void *buf);
int dev_snapshot(enum source source, int fd, void *mem, unsigned long npages, void *buf);
int dev_exclusive(enum source source, int fd, void *mem, unsigned long npages, void *buf);

/* ---- Memory: bench_mem.c ----------------------------------------------------- */

#define MAX_NODES	64

enum kind { KIND_4K, KIND_THP, NR_KINDS };
enum fill { FILL_POPULATED, FILL_HOLE, FILL_ZERO, NR_FILLS };

struct range {
	char *mem;
	size_t size;
	unsigned long npages;
	enum kind kind;
	int pagemap;		/* open file */
};

/* Where the pages of a range are. */
struct whereabouts {
	unsigned long present;
	unsigned long away;	/* on the device or exclusive to it */
	unsigned long huge;	/* present pages that are part of a whole huge page */
};

extern const char *const kind_names[];
extern const char *const fill_names[];

void mem_probe(void);
int range_map(struct range *range, size_t size, enum kind kind, int node);
void range_unmap(struct range *range);
int range_fill(const struct range *range, enum fill fill, unsigned int seed, bool all);
bool range_is(const struct range *range, enum fill fill, unsigned int seed);
int range_where(const struct range *range, struct whereabouts *where);
unsigned int find_nodes(int nodes[2]);
long range_move(const struct range *range, int node, void **pages, int *nodes, int *status);

/* ---- Operations: bench_ops.c ------------------------------------------------- */

/* Masks of sources. */
#define ON(source)	(1U << (source))

enum operation {
	OP_TO_DEVICE, OP_TO_SYSTEM, OP_TO_DEVICE_MAP,
	OP_FAULT_SEQ, OP_FAULT_SEQ_WRITE, OP_FAULT_RANDOM, OP_FAULT_RANDOM_WRITE,
	OP_FAULT_STRIDE, OP_FAULT_STRIDE_WRITE,
	OP_DEV_READ, OP_DEV_WRITE, OP_DEV_READ_COLD, OP_SNAPSHOT, OP_EXCLUSIVE, OP_ATOMIC,
	OP_EVICT, OP_MEMCPY, OP_MOVE_PAGES, NR_OPERATIONS
};

/* Where the pages of a range are before or after an operation. */
enum place {
	IN_SYSTEM,
	ON_DEVICE,
	ON_DEVICE_MAPPED,	/* and mapped by the device */
	IS_EXCLUSIVE,
	ON_NODE,		/* the first of two NUMA nodes */
	ON_OTHER_NODE,
};

struct job;

struct operation_info {
	const char *name;
	unsigned int on;	/* sources that support the operation */
	enum place from, to;
	int (*run)(struct job *job);
	bool touches;		/* causes CPU faults, which are timed */
	bool fills;		/* also runs on holes and zero pages */
	bool alone;		/* concerns the whole device, so one worker runs it */
};

struct job {
	enum source source;
	enum operation op;
	enum fill fill;
	bool verify;		/* compare every byte */
	int fd;
	struct range range;
	char *buf;		/* as large as the range */
	uint32_t *order;	/* order in which pages are touched */
	void **move_pages;	/* arrays of move_pages() */
	int *move_nodes, *move_status;
	int nodes[2];
	unsigned int seed;	/* seed of the data that the range must hold */
	bool ready;		/* the range is in the state that the operation starts from */
	struct histogram *hist;	/* records the latency of each touch, or NULL */
};

extern const struct operation_info operations[NR_OPERATIONS];

int job_init(struct job *job, size_t size, enum kind kind, int node);
void job_exit(struct job *job);
int job_prepare(struct job *job);
int job_run(struct job *job);
int job_check(struct job *job);

/* ---- Workers: bench_run.c ---------------------------------------------------- */

#define MAX_WORKERS	64

enum command { CMD_PREPARE, CMD_RUN, CMD_LATENCY, CMD_CHECK, CMD_QUIT };

/* A row of the result. */
struct figure {
	enum source source;
	enum operation op;
	enum kind kind;
	enum fill fill;
	size_t size;		/* bytes of each worker's range */
	unsigned int threads, processes;
	struct stats stats;	/* ns per page */
	struct histogram *hist;
	unsigned int dropped;	/* repetitions that left some page in its place */
	int rc;
};

struct worker_state {
	unsigned long long start, end;
	int rc;
	struct histogram hist;
};

struct team {
	unsigned int phase;
	unsigned int done;
	unsigned int met;
	unsigned int nworkers;
	enum command command;
	struct worker_state workers[MAX_WORKERS];
};

/* Parameters that all workers of a figure share. */
struct task {
	const struct figure *figure;
	int nodes[2];
	cpu_set_t cpus;		/* CPUs that the workers may use */
	int mem_node;		/* -1: any */
	bool verify;
};

extern struct team *team;

void node_cpus(int node, cpu_set_t *cpus);
int team_alloc(void);
int team_start(const struct task *task);
bool team_is_whole(unsigned int processes);
int team_do(enum command command);
double team_time(void);
void team_stop(bool healthy);

/* ---- Output: bench_out.c ----------------------------------------------------- */

enum format { FORMAT_TABLE, FORMAT_CSV, FORMAT_JSON };

/* Properties of the whole output. */
struct output {
	const char *unit;	/* "ns" or "insn" */
	const char *params;	/* module parameters */
	bool tty;
};

extern struct output out;

void print_head(FILE *to);
void print_figure(FILE *to, const struct figure *figure);
void progress_show(const struct figure *figure, unsigned int count);
void progress_clear(void);
void print_ratios(FILE *to, const struct figure *figures, unsigned int n);
void print_csv(FILE *to, const struct figure *figures, unsigned int n);
void print_json(FILE *to, const struct figure *figures, unsigned int n);
void print_histograms(FILE *to, const struct figure *figures, unsigned int n);
int write_output(const char *prefix, const char *ending,
		 void (*print)(FILE *to, const struct figure *f, unsigned int n),
		 const struct figure *figures, unsigned int n);

/* ---- Options: bench_options.c ------------------------------------------------ */

#define MAX_LIST	16

struct list {
	unsigned long value[MAX_LIST];
	unsigned int count;
};

struct options {
	unsigned int sources, operations, kinds, fills;	/* masks */
	bool all_sources;	/* sources that are not available are no error */
	struct list sizes, threads, processes;
	int cpu_node, mem_node;
	unsigned int warmup, repetitions;
	double confidence, seconds;
	const char *prefix, *params;
	enum format format;
	bool verify, instructions;
};

extern struct options options;

void parse_options(int argc, char **argv);

#endif /* _HMM_REF_BENCH_H */
