// SPDX-License-Identifier: GPL-2.0-only
/*
 * Fault injection, for tests: a fault attribute per class of steps.
 *
 * Each attribute is a folder in /sys/kernel/debug/hmm_ref/, common to all
 * devices. A step calls hmm_ref_fail() where the failure of the function that
 * it wraps would show, so the error path that follows is that of a real
 * failure. The attributes obey /proc/PID/fail-nth: a test that counts through
 * the allocations of an operation also counts through these steps. In addition,
 * some steps can be made to take long, as an allocation may, to test events
 * that happen during that time.
 *
 * Not built without CONFIG_FAULT_INJECTION. How each operation reacts is in
 * Documentation/misc-devices/hmm_ref/fault-injection.rst.
 */
#include <linux/debugfs.h>
#include <linux/fault-inject.h>
#include <linux/sched.h>

#include "fail.h"

static struct fault_attr fail_attrs[] = {
	[0 ... HMM_REF_FAIL_CLASSES - 1] = FAULT_ATTR_INITIALIZER,
};

/**
 * hmm_ref_fail() - decide whether a step fails
 * @class: class of the step
 *
 * Context: any that the step allows; counts for fail-nth in process context
 * only.
 * Return: true if the caller must act as if the step had failed.
 */
bool hmm_ref_fail(enum hmm_ref_fail_class class)
{
	return should_fail(&fail_attrs[class], 1);
}

static u32 slow_ms[HMM_REF_SLOW_STEPS];

/**
 * hmm_ref_slow() - a step that a test may have take long
 * @step: which
 *
 * Context: may sleep; a fatal signal ends it.
 */
void hmm_ref_slow(enum hmm_ref_slow_step step)
{
	unsigned int ms = READ_ONCE(slow_ms[step]);

	if (ms)
		schedule_timeout_killable(msecs_to_jiffies(ms));
}

#ifdef CONFIG_FAULT_INJECTION_DEBUG_FS
static const char *const fail_names[] = {
	[HMM_REF_FAIL_CHUNK] = "fail_chunk",
	[HMM_REF_FAIL_VRAM] = "fail_vram",
	[HMM_REF_FAIL_HANDOUT] = "fail_handout",
	[HMM_REF_FAIL_LARGE] = "fail_large",
	[HMM_REF_FAIL_QUEUE] = "fail_queue",
	[HMM_REF_FAIL_DMA] = "fail_dma",
	[HMM_REF_FAIL_COPY] = "fail_copy",
	[HMM_REF_FAIL_ONE_COPY] = "fail_one_copy",
	[HMM_REF_FAIL_HANG] = "fail_hang",
	[HMM_REF_FAIL_LOST] = "fail_lost",
	[HMM_REF_FAIL_PAGE] = "fail_page",
	[HMM_REF_FAIL_MAP] = "fail_map",
	[HMM_REF_FAIL_RETRY] = "fail_retry",
	[HMM_REF_FAIL_SLEEP] = "fail_sleep",
};

static const char *const slow_names[] = {
	[HMM_REF_SLOW_ROOM] = "slow_room",
	[HMM_REF_SLOW_REPORT] = "slow_report",
	[HMM_REF_SLOW_IDLE] = "slow_idle",
};

/**
 * hmm_ref_fail_debugfs() - create the folders of the classes, and the files of
 * the slow steps
 * @parent: the driver's folder
 */
void hmm_ref_fail_debugfs(struct dentry *parent)
{
	unsigned int i;

	BUILD_BUG_ON(ARRAY_SIZE(fail_names) != HMM_REF_FAIL_CLASSES);
	for (i = 0; i < HMM_REF_FAIL_CLASSES; i++)
		fault_create_debugfs_attr(fail_names[i], parent,
					  &fail_attrs[i]);
	BUILD_BUG_ON(ARRAY_SIZE(slow_names) != HMM_REF_SLOW_STEPS);
	for (i = 0; i < HMM_REF_SLOW_STEPS; i++)
		debugfs_create_u32(slow_names[i], 0600, parent, &slow_ms[i]);
}
#endif
