/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Fault injection.
 */
#ifndef _HMM_REF_FAIL_H
#define _HMM_REF_FAIL_H

#include <linux/types.h>

struct dentry;

/**
 * enum hmm_ref_fail_class - classes of steps that fault injection can make fail
 * @HMM_REF_FAIL_CHUNK: creating the struct pages of a chunk
 * @HMM_REF_FAIL_VRAM: allocating memory of the device
 * @HMM_REF_FAIL_HANDOUT: handing out single device pages; pages handed out
 *	before are kept
 * @HMM_REF_FAIL_LARGE: allocating a large page, on the device or in the system
 * @HMM_REF_FAIL_QUEUE: queueing a batch of copies
 * @HMM_REF_FAIL_DMA: mapping system memory for DMA, for a batch of copies or
 *	for the device page table
 * @HMM_REF_FAIL_COPY: a batch of copies
 * @HMM_REF_FAIL_ONE_COPY: one copy of a batch
 * @HMM_REF_FAIL_HANG: no step: the copy engine hangs
 * @HMM_REF_FAIL_LOST: no step: the device is lost, until it is bound again
 * @HMM_REF_FAIL_PAGE: allocating a page of system memory, large or not
 * @HMM_REF_FAIL_MAP: allocating an entry of the device page table
 * @HMM_REF_FAIL_RETRY: the check of the sequence: an unchanged range counts as
 *	changed
 * @HMM_REF_FAIL_SLEEP: putting the device to sleep, after processes are frozen
 * @HMM_REF_FAIL_CLASSES: number of classes
 */
enum hmm_ref_fail_class {
	HMM_REF_FAIL_CHUNK,
	HMM_REF_FAIL_VRAM,
	HMM_REF_FAIL_HANDOUT,
	HMM_REF_FAIL_LARGE,
	HMM_REF_FAIL_QUEUE,
	HMM_REF_FAIL_DMA,
	HMM_REF_FAIL_COPY,
	HMM_REF_FAIL_ONE_COPY,
	HMM_REF_FAIL_HANG,
	HMM_REF_FAIL_LOST,
	HMM_REF_FAIL_PAGE,
	HMM_REF_FAIL_MAP,
	HMM_REF_FAIL_RETRY,
	HMM_REF_FAIL_SLEEP,
	HMM_REF_FAIL_CLASSES,
};

/**
 * enum hmm_ref_slow_step - steps that tests can have take long
 * @HMM_REF_SLOW_ROOM: making room in the device page table
 * @HMM_REF_SLOW_REPORT: a report that memory of the device has failed
 * @HMM_REF_SLOW_IDLE: freeing a range that maps nothing
 * @HMM_REF_SLOW_STEPS: how many there are
 */
enum hmm_ref_slow_step {
	HMM_REF_SLOW_ROOM,
	HMM_REF_SLOW_REPORT,
	HMM_REF_SLOW_IDLE,
	HMM_REF_SLOW_STEPS,
};

#ifdef CONFIG_FAULT_INJECTION
bool hmm_ref_fail(enum hmm_ref_fail_class class);
void hmm_ref_slow(enum hmm_ref_slow_step step);
#else
static inline bool hmm_ref_fail(enum hmm_ref_fail_class class)
{
	return false;
}

static inline void hmm_ref_slow(enum hmm_ref_slow_step step)
{
}
#endif

#ifdef CONFIG_FAULT_INJECTION_DEBUG_FS
void hmm_ref_fail_debugfs(struct dentry *parent);
#else
static inline void hmm_ref_fail_debugfs(struct dentry *parent)
{
}
#endif

#endif /* _HMM_REF_FAIL_H */
