// SPDX-License-Identifier: GPL-2.0-only
/*
 * System sleep. It may cut the power of the device's memory, so all pages leave
 * the device first, and it wakes up empty.
 *
 *   PM_*_PREPARE   stop: migrations to the device fail as if it was full, and
 *                  their pages stay where they are;
 *                  then evict, while everything else works: system memory can
 *                  be allocated, by swapping if needed; processes run and
 *                  release their pages; CPU faults are served
 *   .suspend       processes are frozen, other devices sleep: check that no
 *                  page is used; zap the mirrors; wait until no task uses the
 *                  hardware
 *   .resume        nothing
 *   PM_POST_*      resume handout
 *
 * Any step may fail, here or in another driver, and the system stays awake.
 * PM_POST_* follows in any case, except to a notifier that fails, which undoes
 * its own work. Hibernation calls .suspend and .resume twice, around the image.
 * The image contains the pages as process memory, since none is on the device
 * between PREPARE and POST.
 */
#include <linux/notifier.h>
#include <linux/pm.h>
#include <linux/suspend.h>

#include "fail.h"
#include "hmm_ref.h"

/* Return: 0, or -EBUSY with the device back in use. */
static int sleep_prepare(struct hmm_ref_device *dev)
{
	hmm_ref_devmem_stop(&dev->dm, HMM_REF_STOPPED_TO_SLEEP);
	/* A lost device has no data to evict. */
	if (hmm_ref_evict_all(dev, HMM_REF_GIVE_UP) || READ_ONCE(dev->dm.lost))
		return 0;
	pr_err("%s: %lu pages do not leave the device\n", dev->name,
	       hmm_ref_devmem_used(&dev->dm));
	hmm_ref_devmem_restart(&dev->dm);
	return -EBUSY;
}

static int sleep_notify(struct notifier_block *nb, unsigned long event,
			void *unused)
{
	struct hmm_ref_device *dev =
		container_of(nb, struct hmm_ref_device, sleep);

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

/* Stops again, since the device may have been bound after PREPARE. */
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
 * hmm_ref_sleep_init() - take part in system sleep
 * @dev: device that is complete
 *
 * Context: waits while the notifiers of a system sleep run.
 * Return: 0 or a negative errno.
 */
int hmm_ref_sleep_init(struct hmm_ref_device *dev)
{
	dev->sleep.notifier_call = sleep_notify;
	return register_pm_notifier(&dev->sleep);
}

/**
 * hmm_ref_sleep_exit() - undo hmm_ref_sleep_init()
 * @dev: device that is gone, also if hmm_ref_sleep_init() has not run
 *
 * Context: same as hmm_ref_sleep_init(); ends an eviction of this device early.
 */
void hmm_ref_sleep_exit(struct hmm_ref_device *dev)
{
	unregister_pm_notifier(&dev->sleep);
}
