// SPDX-License-Identifier: GPL-2.0-only
/*
 * debugfs: /sys/kernel/debug/hmm_ref/
 *
 *   fail_CLASS     fault attributes: steps of that class fail (fail.c; if the
 *                  kernel has CONFIG_FAULT_INJECTION_DEBUG_FS)
 *
 * and for each device, in hmm_refN/
 *
 *   audit          the result of the AUDIT command as text
 *   stats          the result of the STATS command as text
 *   retire         write a device page number to retire the page
 *   fault_around   maximum number of pages that a CPU fault moves back
 *
 * debugfs guarantees that no file is used after its removal, so no file checks
 * hmm_ref_device::gone.
 */
#include <linux/debugfs.h>
#include <linux/seq_file.h>

#include <uapi/hmm_ref.h>

#include "fail.h"
#include "hmm_ref.h"

static struct dentry *debugfs_root;

struct named_value {
	const char *name;
	u64 value;
};

static void show_values(struct seq_file *m, const struct named_value *values,
			unsigned int nr)
{
	unsigned int i;

	for (i = 0; i < nr; i++)
		seq_printf(m, "%s %llu\n", values[i].name, values[i].value);
}

static int audit_show(struct seq_file *m, void *unused)
{
	struct hmm_ref_device *dev = m->private;
	struct hmm_ref_findings found;
	int rc = hmm_ref_devmem_audit(&dev->dm, &found);

	if (rc)
		return rc;
	show_values(m, (struct named_value[]){
		{ "total", found.total },
		{ "free", found.free },
		{ "in_use", found.in_use },
		{ "pending", found.pending },
		{ "retired", found.retired },
		{ "bad_ref", found.bad_ref },
		{ "bad_lock", found.bad_lock },
		{ "bad_map", found.bad_map },
		{ "bad_owner", found.bad_owner },
		{ "bad_both", found.bad_both },
		{ "bad_count", found.bad_count },
		{ "violations", found.violations },
	}, 12);
	return 0;
}
DEFINE_SHOW_ATTRIBUTE(audit);

static int stats_show(struct seq_file *m, void *unused)
{
	struct hmm_ref_device *dev = m->private;
	struct hmm_ref_stats stats = {};

	hmm_ref_device_stats(dev, &stats);
	show_values(m, (struct named_value[]){
		{ "pages_total", stats.out_pages_total },
		{ "pages_in_use", stats.out_pages_in_use },
		{ "pages_retired", stats.out_pages_retired },
		{ "storage_pages", stats.out_storage_pages },
		{ "chunks", stats.out_chunks },
		{ "to_device", stats.out_to_device },
		{ "to_system", stats.out_to_system },
		{ "cpu_faults", stats.out_cpu_faults },
		{ "fault_pages", stats.out_fault_pages },
		{ "evicted", stats.out_evicted },
		{ "device_faults", stats.out_device_faults },
		{ "invalidations", stats.out_invalidations },
		{ "retries", stats.out_retries },
		{ "cow_breaks", stats.out_cow_breaks },
		{ "exclusive", stats.out_exclusive },
		{ "pages_reserved", stats.out_pages_reserved },
		{ "to_peers", stats.out_to_peers },
	}, 16);
	return 0;
}
DEFINE_SHOW_ATTRIBUTE(stats);

static int retire_set(void *data, u64 dpfn)
{
	struct hmm_ref_device *dev = data;

	if (dpfn > ULONG_MAX)
		return -EINVAL;
	return hmm_ref_devmem_retire(&dev->dm, dpfn);
}
DEFINE_DEBUGFS_ATTRIBUTE(retire_fops, NULL, retire_set, "%llu\n");

/**
 * hmm_ref_debugfs_init() - create the driver's folder
 *
 * debugfs may be missing or disabled; nothing depends on it.
 */
void hmm_ref_debugfs_init(void)
{
	debugfs_root = debugfs_create_dir("hmm_ref", NULL);
	hmm_ref_fail_debugfs(debugfs_root);
}

/**
 * hmm_ref_debugfs_exit() - remove the driver's folder
 */
void hmm_ref_debugfs_exit(void)
{
	debugfs_remove(debugfs_root);
}

/**
 * hmm_ref_debugfs_add() - create a device's files
 * @dev: device
 */
void hmm_ref_debugfs_add(struct hmm_ref_device *dev)
{
	dev->debugfs = debugfs_create_dir(dev->name, debugfs_root);
	debugfs_create_file("audit", 0400, dev->debugfs, dev, &audit_fops);
	debugfs_create_file("stats", 0400, dev->debugfs, dev, &stats_fops);
	debugfs_create_file("retire", 0200, dev->debugfs, dev, &retire_fops);
	debugfs_create_u32("fault_around", 0600, dev->debugfs,
			   &dev->fault_around);
}

/**
 * hmm_ref_debugfs_remove() - remove a device's files
 * @dev: device
 *
 * Context: waits for tasks that use them.
 */
void hmm_ref_debugfs_remove(struct hmm_ref_device *dev)
{
	debugfs_remove(dev->debugfs);
}
