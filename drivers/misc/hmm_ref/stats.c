// SPDX-License-Identifier: GPL-2.0-only
/*
 * Statistics: of a device, for STATS and debugfs; of a client, for fdinfo.
 *
 * Each layer keeps its own counters: per CPU (counters.h), per owner
 * (devmem.h), or under a lock. This file only puts them together.
 */
#include <linux/fs.h>
#include <linux/pid.h>
#include <linux/proc_fs.h>
#include <linux/seq_file.h>

#include <uapi/hmm_ref.h>

#include "hmm_ref.h"

/**
 * hmm_ref_device_stats() - fill the result of the STATS command
 * @dev: device that is not gone
 * @stats: set, except the member of the client
 */
void hmm_ref_device_stats(struct hmm_ref_device *dev,
			  struct hmm_ref_stats *stats)
{
	struct hmm_ref_usage usage;
	int cpu;

	hmm_ref_devmem_usage(&dev->dm, &usage);
	*stats = (struct hmm_ref_stats){
		.size = stats->size,
		.out_pages_total = usage.total,
		.out_pages_in_use = usage.used,
		.out_pages_reserved = usage.reserved,
		.out_pages_retired = usage.retired,
		.out_storage_pages = usage.total,
		.out_chunks = usage.chunks,
	};
	for_each_possible_cpu(cpu) {
		const struct hmm_ref_counters *c =
			per_cpu_ptr(dev->counters, cpu);

		stats->out_to_device += READ_ONCE(c->to_device);
		stats->out_to_system += READ_ONCE(c->to_system);
		stats->out_to_peers += READ_ONCE(c->to_peers);
		stats->out_cpu_faults += READ_ONCE(c->cpu_faults);
		stats->out_fault_pages += READ_ONCE(c->fault_pages);
		stats->out_evicted += READ_ONCE(c->evicted);
		stats->out_device_faults += READ_ONCE(c->device_faults);
		stats->out_invalidations += READ_ONCE(c->invalidations);
		stats->out_retries += READ_ONCE(c->retries);
		stats->out_cow_breaks += READ_ONCE(c->cow_breaks);
		stats->out_exclusive += READ_ONCE(c->exclusive);
	}
}

static void show_count(struct seq_file *m, const char *key,
		       const atomic_long_t *count)
{
	seq_printf(m, "hmm_ref-%s:\t%lu\n", key,
		   (unsigned long)atomic_long_read(count));
}

/**
 * hmm_ref_client_show_fdinfo() - show the lines of a file in /proc/PID/fdinfo
 * @m: output
 * @client: client of the file
 */
void hmm_ref_client_show_fdinfo(struct seq_file *m,
				const struct hmm_ref_client *client)
{
	struct hmm_ref_owner *owner = client->owner;
	/* PIDs must be those of the reader: of the namespace of this /proc. */
	struct pid_namespace *reader = proc_pid_ns(file_inode(m->file)->i_sb);

	seq_printf(m, "hmm_ref-device:\t%s\n", client->dev->name);
	seq_printf(m, "hmm_ref-opener:\t%d\n",
		   pid_nr_ns(owner->opener, reader));
	seq_printf(m, "hmm_ref-pages:\t%u\n", hmm_ref_owner_pages(owner));
	show_count(m, "to-device", &owner->to_device);
	show_count(m, "to-system", &owner->departed[HMM_REF_BY_COMMAND]);
	show_count(m, "cpu-fault-pages", &owner->departed[HMM_REF_BY_FAULT]);
	show_count(m, "evicted", &owner->departed[HMM_REF_BY_EVICTION]);
	show_count(m, "to-peers", &owner->departed[HMM_REF_BY_PEER]);
	show_count(m, "device-faults", &owner->device_faults);
	show_count(m, "invalidations", &owner->invalidations);
	show_count(m, "retries", &owner->retries);
}
