/* SPDX-License-Identifier: GPL-2.0-only */
/* Fault-around: the number of pages that a CPU fault moves back. */
#ifndef _HMM_REF_FAULT_AROUND_H
#define _HMM_REF_FAULT_AROUND_H

#include <linux/types.h>

struct hmm_ref_device;

/* Maximum number of pages: their arrays are on the stack. */
#define HMM_REF_FAULT_AROUND_MAX	16

#define HMM_REF_STREAMS	8

/**
 * struct hmm_ref_stream - sequential accesses of a process
 * @next: number of the page after the group that the last fault has brought
 *	back
 * @span: pages of the group, and the one before it
 */
struct hmm_ref_stream {
	unsigned long next;
	unsigned long span;
};

/**
 * struct hmm_ref_around - recent faults of a CPU
 * @streams: ring of recent streams, from the latest to the oldest
 * @latest: index of the latest stream
 * @caution: recent new streams, minus those that continued
 */
struct hmm_ref_around {
	struct hmm_ref_stream streams[HMM_REF_STREAMS];
	unsigned int latest;
	unsigned int caution;
};

unsigned long hmm_ref_fault_around(struct hmm_ref_device *dev,
				   unsigned long addr);

#endif /* _HMM_REF_FAULT_AROUND_H */
