/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Operations that are made to fail: declarations. See fail_job.c.
 */
#ifndef _HMM_REF_FAIL_JOB_H
#define _HMM_REF_FAIL_JOB_H

#include "hmm_ref_fail.h"

/* ---- Jobs: fail_job.c -------------------------------------------------------- */

#define SMALL_PAGES	4UL

enum job_state {
	ON_SYSTEM,
	ON_DEVICE,
	HOLES,
	SHARED,		/* on the device, and shared with a child */
};

/* How much of the device is used by other pages. Without room, the job needs an eviction. */
enum job_room {
	ROOM_PLENTY,
	ROOM_FULL,
	ROOM_CHUNK_FULL,	/* a device of two chunks has one, which is full */
};

struct job {
	int (*run)(struct job *job);
	enum job_state state;
	bool large;		/* one huge page instead of SMALL_PAGES */
	bool fresh;		/* bind the device anew, so that it has no chunks */
	bool coherent;
	enum job_room room;
	unsigned int device;
	unsigned int seed;	/* seed of the data that is expected at the end */
	unsigned long pages;
	unsigned long long in_use;	/* pages in use on the device before */
	unsigned long long added;	/* sum that atomics have added to the first word */
	char *mem;
	char *buf;
	char *filler;		/* memory that fills the device */
	unsigned long filler_pages;
	int file;		/* a file with the same data in its first page */
	int fd, old_fd;
	int gate;		/* the child ends when this is closed */
	pid_t child;
};

int run_old_read(struct job *job);
int run_old_write(struct job *job);
int run_old_to_device(struct job *job);
int run_old_to_system(struct job *job);
int run_old_snapshot(struct job *job);
int run_old_exclusive(struct job *job);
int run_old_check(struct job *job);
int run_old_release(struct job *job);
int run_old_flags(struct job *job);
int run_old_mmap(struct job *job);
int run_open(struct job *job);
int run_close(struct job *job);
int run_info(struct job *job);
int run_stats(struct job *job);
int run_audit(struct job *job);
int run_to_device(struct job *job);
int run_to_device_map(struct job *job);
int run_to_system(struct job *job);
int run_read(struct job *job);
int run_write(struct job *job);
int run_snapshot(struct job *job);
int run_exclusive(struct job *job);
int run_exclusive_few(struct job *job);
int run_atomic(struct job *job);
int run_touch(struct job *job);
int run_touch_write(struct job *job);
int run_file_read(struct job *job);
int run_file_write(struct job *job);
bool job_verify_filler(struct job *job);
int job_init(struct job *job);
int job_prepare(struct job *job);
int job_run(struct job *job);
bool job_verify(struct job *job);
bool job_settle(struct job *job);
bool job_gets_large(struct job *job);

#endif /* _HMM_REF_FAIL_JOB_H */
