// SPDX-License-Identifier: GPL-2.0-only
/*
 * The system sleeps, and takes the power from a device's memory: before that all pages leave the
 * device, which wakes up empty.
 *
 *   PM_*_PREPARE   stop: a migration to the device fails as if that was full, and the pages
 *                  stay where they are
 *                  evict, while all else works: system memory can be had, by way of the swap if
 *                  need be; processes run, and let go of what they hold; CPU faults are served
 *   .suspend       processes are frozen, and other devices sleep: check that no page is left; zap
 *                  the mirrors; wait until no task uses the device
 *   .resume        nothing
 *   PM_POST_*      hand out again
 *
 * A sleep may fail, as the system can stay awake: here, or in another driver, at any step.
 * PM_POST_* follows all the same. Only the notifier that fails does not get it: it undoes what it
 * has done. Hibernation calls .suspend and .resume twice, around the image; the pages are in it as
 * those of processes, and none is on the device from PREPARE to POST.
 */
#include <linux/notifier.h>
#include <linux/pm.h>
#include <linux/suspend.h>

#include "fail.h"
#include "hmm_ref.h"

/* Return: 0, or -EBUSY with the device as it was. */
static int sleep_prepare(struct hmm_ref_device *dev)
{
	hmm_ref_devmem_stop(&dev->dm, HMM_REF_STOPPED_TO_SLEEP);
	/* A device that is lost has nothing left to lose. */
	if (hmm_ref_evict_all(dev, HMM_REF_GIVE_UP) || READ_ONCE(dev->dm.lost))
		return 0;
	pr_err("%s: %lu pages do not leave the device\n", dev->name,
	       hmm_ref_devmem_used(&dev->dm));
	hmm_ref_devmem_restart(&dev->dm);
	return -EBUSY;
}

static int sleep_notify(struct notifier_block *nb, unsigned long event, void *unused)
{
	struct hmm_ref_device *dev = container_of(nb, struct hmm_ref_device, sleep);

	switch (event) {
	case PM_SUSPEND_PREPARE:
	case PM_HIBERNATION_PREPARE:
	case PM_RESTORE_PREPARE:
		return notifier_from_errno(sleep_prepare(dev));
	case PM_POST_SUSPEND:
	case PM_POST_HIBERNATION:
	case PM_POST_RESTORE:
		hmm_ref_devmem_restart(&dev->dm);
		return NOTIFY_OK;
	}
	return NOTIFY_DONE;
}

/* The device may have been bound after PREPARE, and not have been stopped. */
static int sleep_suspend(struct device *device)
{
	struct hmm_ref_device *dev = dev_get_drvdata(device);
	unsigned long used;

	if (hmm_ref_fail(HMM_REF_FAIL_SLEEP))
		return -EBUSY;
	hmm_ref_devmem_stop(&dev->dm, HMM_REF_STOPPED_TO_SLEEP);
	used = hmm_ref_devmem_used(&dev->dm);
	if (used && !READ_ONCE(dev->dm.lost)) {
		dev_err(device, "%lu pages are on the device\n", used);
		return -EBUSY;
	}
	hmm_ref_clients_zap(dev);
	hmm_ref_devmem_settle(&dev->dm);
	return 0;
}

const struct dev_pm_ops hmm_ref_pm_ops = {
	SYSTEM_SLEEP_PM_OPS(sleep_suspend, NULL)
};
EXPORT_SYMBOL_NS_GPL(hmm_ref_pm_ops, "HMM_REF");

/**
 * hmm_ref_sleep_init() - take part in the sleep of the system
 * @dev: device that is complete
 *
 * Context: waits for a sleep that begins, until no task is frozen yet or any more.
 * Return: 0 or a negative errno.
 */
int hmm_ref_sleep_init(struct hmm_ref_device *dev)
{
	dev->sleep.notifier_call = sleep_notify;
	return register_pm_notifier(&dev->sleep);
}

/**
 * hmm_ref_sleep_exit() - undo hmm_ref_sleep_init(), if that was done
 * @dev: device that is gone
 *
 * Context: as hmm_ref_sleep_init(). The device's own part in that sleep ends at once.
 */
void hmm_ref_sleep_exit(struct hmm_ref_device *dev)
{
	unregister_pm_notifier(&dev->sleep);
}
