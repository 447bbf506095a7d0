/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * How many neighbours a CPU fault brings along.
 */
#ifndef _HMM_REF_FAULT_AROUND_H
#define _HMM_REF_FAULT_AROUND_H

#include <linux/types.h>

struct hmm_ref_device;

/* Most pages that one CPU fault brings back: the arrays are on the stack. */
#define HMM_REF_FAULT_AROUND_MAX	16

#define HMM_REF_STREAMS	8

/**
 * struct hmm_ref_stream - a process that goes through its memory
 * @next: number of the page after the group that the last fault has brought
 * @span: pages of the group, and the one before it
 */
struct hmm_ref_stream {
	unsigned long next;
	unsigned long span;
};

/**
 * struct hmm_ref_around - what a CPU remembers of its faults
 * @streams: a ring of the recent ones, from the latest to the oldest
 * @latest: index of the first of them
 * @caution: new streams lately, less those that went on
 */
struct hmm_ref_around {
	struct hmm_ref_stream streams[HMM_REF_STREAMS];
	unsigned int latest;
	unsigned int caution;
};

unsigned long hmm_ref_fault_around(struct hmm_ref_device *dev, unsigned long addr);

#endif /* _HMM_REF_FAULT_AROUND_H */
