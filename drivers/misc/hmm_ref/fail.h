/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Failing on purpose: fault injection, for tests.
 */
#ifndef _HMM_REF_FAIL_H
#define _HMM_REF_FAIL_H

#include <linux/types.h>

struct dentry;

/**
 * enum hmm_ref_fail_class - steps that tests can have fail
 * @HMM_REF_FAIL_CHUNK: making the struct pages of a chunk
 * @HMM_REF_FAIL_VRAM: memory of the device
 * @HMM_REF_FAIL_HANDOUT: handing out single device pages; those before it are out
 * @HMM_REF_FAIL_LARGE: a large page, on the device or in the system
 * @HMM_REF_FAIL_QUEUE: queueing a batch of copies
 * @HMM_REF_FAIL_DMA: mapping system memory for DMA: for a batch of copies, or a page for the device
 * @HMM_REF_FAIL_COPY: a batch of copies
 * @HMM_REF_FAIL_ONE_COPY: one copy of a batch
 * @HMM_REF_FAIL_HANG: none: the copy engine does not end with a batch
 * @HMM_REF_FAIL_LOST: none: the device is lost, until it is bound again
 * @HMM_REF_FAIL_PAGE: a page of system memory, large or not
 * @HMM_REF_FAIL_MAP: room in the device page table
 * @HMM_REF_FAIL_RETRY: a range that has not changed counts as changed
 * @HMM_REF_FAIL_SLEEP: putting the device to sleep, when the processes are frozen
 * @HMM_REF_FAIL_CLASSES: how many there are
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
 * @HMM_REF_SLOW_STEPS: how many there are
 */
enum hmm_ref_slow_step {
	HMM_REF_SLOW_ROOM,
	HMM_REF_SLOW_REPORT,
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
