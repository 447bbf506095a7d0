/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Counters of a device since probe.
 */
#ifndef _HMM_REF_COUNTERS_H
#define _HMM_REF_COUNTERS_H

#include <linux/percpu.h>
#include <linux/types.h>

/**
 * struct hmm_ref_counters - totals since probe, a copy for each CPU
 * @to_device: pages that commands have moved to the device
 * @to_system: pages that commands have moved to system memory
 * @to_peers: pages that commands have moved to other devices, or to system
 *	memory on their way there
 * @cpu_faults: CPU faults on pages of the device
 * @fault_pages: pages that these faults have brought back
 * @evicted: pages evicted
 * @device_faults: page faults of the device
 * @invalidations: invalidations received from the core
 * @retries: attempts repeated because the range had changed
 * @cow_breaks: own pages that a device write has found shared or read-only
 * @exclusive: pages of system memory made exclusive to the device
 */
struct hmm_ref_counters {
	u64 to_device;
	u64 to_system;
	u64 to_peers;
	u64 cpu_faults;
	u64 fault_pages;
	u64 evicted;
	u64 device_faults;
	u64 invalidations;
	u64 retries;
	u64 cow_breaks;
	u64 exclusive;
};

#define hmm_ref_count(counters, what, n) this_cpu_add((counters)->what, n)

#endif /* _HMM_REF_COUNTERS_H */
