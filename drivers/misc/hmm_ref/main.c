// SPDX-License-Identifier: GPL-2.0-only
/*
 * The module: parameters common to all devices, and the order of setup and
 * teardown.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/log2.h>
#include <linux/module.h>
#include <linux/sizes.h>

#include "fault_around.h"
#include "hmm_ref.h"

/* ---- module parameters ------------------------------------------------- */

/* Byte sizes, with the suffixes of memparse(). */
static int param_set_size(const char *val, const struct kernel_param *kp)
{
	char *end;
	u64 size = memparse(val, &end);

	if (end == val || (*end && *end != '\n'))
		return -EINVAL;
	*(u64 *)kp->arg = size;
	return 0;
}

static int param_get_size(char *buf, const struct kernel_param *kp)
{
	return sysfs_emit(buf, "%llu\n", *(u64 *)kp->arg);
}

const struct kernel_param_ops hmm_ref_param_size_ops = {
	.set = param_set_size,
	.get = param_get_size,
};

struct hmm_ref_device_params hmm_ref_device_params = {
	.large = HMM_REF_LARGE_IS_SAFE,
	.fault_around = HMM_REF_FAULT_AROUND_MAX,
};
EXPORT_SYMBOL_NS_GPL(hmm_ref_device_params, "HMM_REF");

module_param_cb(chunk_size, &hmm_ref_param_size_ops,
		&hmm_ref_device_params.chunk_size, 0444);
MODULE_PARM_DESC(chunk_size,
		 "memory added at a time, a power of two (default 128M)");

module_param_named(large, hmm_ref_device_params.large, bool, 0444);
MODULE_PARM_DESC(large,
		 "keep large folios whole on private devices (default Y if the core can)");

module_param_named(fault_around, hmm_ref_device_params.fault_around, uint,
		   0444);
MODULE_PARM_DESC(fault_around,
		 "most pages that a CPU fault brings back (default 16)");

static int check_params(void)
{
	u64 *chunk_size = &hmm_ref_device_params.chunk_size;

	/* 128M is what request_free_mem_region() rounds to on x86-64. */
	if (!*chunk_size)
		*chunk_size = max_t(u64, SZ_128M, PMD_SIZE);
	if (IS_ENABLED(CONFIG_ARCH_HAS_PMD_SOFTLEAVES) &&
	    !HMM_REF_LARGE_IS_SAFE)
		pr_warn("this kernel has bugs that large folios run into, large=%d\n",
			hmm_ref_device_params.large);
	if (!is_power_of_2(*chunk_size) || *chunk_size < PMD_SIZE ||
	    *chunk_size > HMM_REF_MAX_CHUNK_SIZE) {
		pr_err("chunk_size must be a power of two from %lu to %llu\n",
		       PMD_SIZE, HMM_REF_MAX_CHUNK_SIZE);
		return -EINVAL;
	}
	return 0;
}

/* ---- module ------------------------------------------------------------ */

/* Runs work that outlives a device. */
struct workqueue_struct *hmm_ref_workqueue;

static int __init hmm_ref_init(void)
{
	int rc = check_params();

	if (rc)
		return rc;
	rc = hmm_ref_dmirror_check();
	if (rc)
		return rc;
	hmm_ref_workqueue = alloc_workqueue("hmm_ref", WQ_UNBOUND, 0);
	if (!hmm_ref_workqueue)
		return -ENOMEM;
	rc = hmm_ref_fault_init();
	if (rc)
		goto err_workqueue;
	rc = hmm_ref_node_init();
	if (rc)
		goto err_fault;
	hmm_ref_debugfs_init();
	rc = hmm_ref_sim_init();
	if (rc)
		goto err_debugfs;
	rc = hmm_ref_pci_init();
	if (rc)
		goto err_sim;
	return 0;

err_sim:
	hmm_ref_sim_exit();
err_debugfs:
	/* Devices may have been added, and used. */
	hmm_ref_devices_finish();
	hmm_ref_debugfs_exit();
	hmm_ref_node_exit();
err_fault:
	hmm_ref_fault_exit();
err_workqueue:
	destroy_workqueue(hmm_ref_workqueue);
	rcu_barrier();
	return rc;
}

static void __exit hmm_ref_exit(void)
{
	hmm_ref_pci_exit();
	hmm_ref_sim_exit();
	hmm_ref_devices_finish();
	hmm_ref_debugfs_exit();
	hmm_ref_node_exit();
	hmm_ref_fault_exit();
	/* The work that put the last reference may still be returning. */
	destroy_workqueue(hmm_ref_workqueue);
	/* Page tables are freed by functions of the module. */
	rcu_barrier();
}

module_init(hmm_ref_init);
module_exit(hmm_ref_exit);

MODULE_DESCRIPTION("Reference driver for device-private memory");
MODULE_LICENSE("GPL");
