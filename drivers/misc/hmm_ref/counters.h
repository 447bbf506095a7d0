/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What a device counts since probe.
 */
#ifndef _HMM_REF_COUNTERS_H
#define _HMM_REF_COUNTERS_H

#include <linux/percpu.h>
#include <linux/types.h>

/* Totals since probe, in the units that struct hmm_ref_stats gives. */
struct hmm_ref_counters {
	u64 to_device;
	u64 to_system;
	u64 cpu_faults;
	u64 fault_pages;
	u64 evicted;
	u64 device_faults;
	u64 invalidations;
	u64 retries;
	u64 cow_breaks;
	u64 exclusive;
};

#define hmm_ref_count(counters, what, n)	this_cpu_add((counters)->what, n)

#endif /* _HMM_REF_COUNTERS_H */
