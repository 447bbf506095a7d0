// SPDX-License-Identifier: GPL-2.0-only
/*
 * Probe and removal of a device, independent of its bus.
 *
 * Removal is the hard part, and its order matters:
 *
 *   gone, stop        new operations fail with -ENODEV, and no more pages
 *                     are handed out
 *   evict             processes get their data back, in system memory
 *   end the hardware  no task uses it any longer (hmm_ref_hw_enter())
 *   zap the mirrors   the device no longer maps anything, not for DMA either
 *   memunmap, free    the struct pages are freed
 *
 * The bus waits for all steps but the last, so they end in bounded time,
 * whatever happens. A page that does not leave for HMM_REF_GIVE_UP, because it
 * is in use or the device does not work, is lost: a CPU touch raises SIGBUS.
 * Its struct page stays until the last process has unmapped it, and an
 * operation that waits for user space may continue to wait. A worker does the
 * last step once neither is left, and the module stays until then. Open files
 * keep struct hmm_ref_device, and the notifiers of their mirrors, until they
 * are closed.
 *
 * System sleep is in sleep.c.
 */
#include <linux/delay.h>
#include <linux/dma-mapping.h>
#include <linux/fs.h>
#include <linux/module.h>
#include <linux/slab.h>
#include <linux/xarray.h>

#include "fault_around.h"
#include "hmm_ref.h"

/* ---- files ------------------------------------------------------------- */

static int hmm_ref_open(struct inode *inode, struct file *file)
{
	struct hmm_ref_client *client;

	client = hmm_ref_client_open(hmm_ref_node_device(inode));
	if (IS_ERR(client))
		return PTR_ERR(client);
	file->private_data = client;
	return 0;
}

static int hmm_ref_release(struct inode *inode, struct file *file)
{
	hmm_ref_client_close(file->private_data);
	return 0;
}

static void hmm_ref_show_fdinfo(struct seq_file *m, struct file *file)
{
	hmm_ref_client_show_fdinfo(m, file->private_data);
}

static const struct file_operations hmm_ref_fops = {
	.owner = THIS_MODULE,
	.open = hmm_ref_open,
	.release = hmm_ref_release,
	.unlocked_ioctl = hmm_ref_ioctl,
	.compat_ioctl = compat_ptr_ioctl,
	.show_fdinfo = hmm_ref_show_fdinfo,
};

/* ---- references -------------------------------------------------------- */

static void device_release(struct kref *ref)
{
	struct hmm_ref_device *dev =
		container_of(ref, struct hmm_ref_device, ref);

	cleanup_srcu_struct(&dev->unplug);
	free_percpu(dev->around);
	free_percpu(dev->counters);
	kfree(dev);
}

/**
 * hmm_ref_device_put() - drop a reference
 * @dev: device
 */
void hmm_ref_device_put(struct hmm_ref_device *dev)
{
	kref_put(&dev->ref, device_release);
}

/* ---- all devices -------------------------------------------------------- */

static DEFINE_XARRAY_ALLOC1(devices);

/**
 * hmm_ref_device_next() - find a bound device
 * @index: 0 for the first; advanced to the device that is found
 *
 * Before a caller uses more than the struct, it enters the SRCU section
 * hmm_ref_device::unplug and checks hmm_ref_device::gone.
 *
 * Return: the device, referenced; or NULL if there are no more.
 */
struct hmm_ref_device *hmm_ref_device_next(unsigned long *index)
{
	struct hmm_ref_device *dev;

	xa_lock(&devices);
	dev = xa_find_after(&devices, index, ULONG_MAX, XA_PRESENT);
	if (dev)
		kref_get(&dev->ref);
	xa_unlock(&devices);
	return dev;
}

/* ---- probe and removal -------------------------------------------------- */

const struct dev_pagemap_ops hmm_ref_pagemap_ops = {
	.folio_free = hmm_ref_pagemap_folio_free,
#ifdef CONFIG_ARCH_HAS_PMD_SOFTLEAVES
	.folio_split = hmm_ref_devmem_folio_split,
#endif
	.migrate_to_ram = hmm_ref_migrate_to_ram,
	.memory_failure = hmm_ref_memory_failure,
};
EXPORT_SYMBOL_IF_KUNIT(hmm_ref_pagemap_ops);

/* All operations that began before the device was gone have ended. */
static void operations_ended(struct rcu_head *rcu)
{
	struct hmm_ref_device *dev =
		container_of(rcu, struct hmm_ref_device, unplug_rcu);

	complete_all(&dev->unused);
}

/* From here on only the struct pages and the module are needed, no hardware. */
static void device_finish(struct hmm_ref_device *dev)
{
	hmm_ref_devmem_exit(&dev->dm);
	hmm_ref_scratch_exit(&dev->evict_scratch);
	hmm_ref_device_put(dev);
}

static bool device_is_unused(struct hmm_ref_device *dev)
{
	return completion_done(&dev->unused) && !hmm_ref_devmem_used(&dev->dm);
}

/* Number of removed devices that wait for their last page or operation. */
static atomic_t unfinished;

static void finish_later(struct work_struct *work)
{
	struct hmm_ref_device *dev =
		container_of(work, struct hmm_ref_device, finish.work);
	bool keeps_module = dev->keeps_module;

	if (!device_is_unused(dev)) {
		queue_delayed_work(hmm_ref_workqueue, &dev->finish, HZ);
		return;
	}
	pr_info("%s: its last pages are free\n", dev->name);
	device_finish(dev);
	atomic_dec(&unfinished);
	if (keeps_module)
		module_put(THIS_MODULE);
}

/**
 * hmm_ref_devices_finish() - wait until all removed devices are freed
 *
 * Context: module unload, after the last device is removed.
 */
void hmm_ref_devices_finish(void)
{
	while (atomic_read(&unfinished))
		msleep(20);
}

/* Only open files, and opens under way, still lead to the device. */
static void device_end(struct hmm_ref_device *dev)
{
	unsigned long began = jiffies;
	unsigned long left;

	hmm_ref_devmem_stop(&dev->dm, HMM_REF_STOPPED_FOR_GOOD);
	WRITE_ONCE(dev->gone, true);
	call_srcu(&dev->unplug, &dev->unplug_rcu, operations_ended);
	if (!hmm_ref_evict_all(dev, HMM_REF_GIVE_UP)) {
		pr_warn("%s: %lu pages are lost\n", dev->name,
			hmm_ref_devmem_used(&dev->dm));
		hmm_ref_devmem_lose_all(&dev->dm);
	}
	left = began + HMM_REF_GIVE_UP - jiffies;
	wait_for_completion_timeout(&dev->unused, (long)left > 0 ? left : 1);
	hmm_ref_devmem_end_hw(&dev->dm);
	hmm_ref_clients_zap(dev);
	if (device_is_unused(dev)) {
		device_finish(dev);
		return;
	}
	atomic_inc(&unfinished);
	/* Fails during module unload, which waits for the work instead. */
	dev->keeps_module = try_module_get(THIS_MODULE);
	queue_delayed_work(hmm_ref_workqueue, &dev->finish, HZ);
}

/**
 * hmm_ref_device_remove() - remove a device
 * @dev: device; its hardware is not used after this
 *
 * Context: may sleep until all pages have left the device, no page has left for
 * 10 seconds, or the device is lost. Does not wait for user space.
 */
void hmm_ref_device_remove(struct hmm_ref_device *dev)
{
	/* Set before the nodes go: user space sees their removal. */
	WRITE_ONCE(dev->gone, true);
	if (dev->index)
		xa_erase(&devices, dev->index);
	hmm_ref_sleep_exit(dev);
	hmm_ref_node_remove(&dev->node);
	hmm_ref_dmirror_remove(dev);
	hmm_ref_debugfs_remove(dev);
	device_end(dev);
}
EXPORT_SYMBOL_NS_GPL(hmm_ref_device_remove, "HMM_REF");

/* Return: a device that is not reachable yet, or an ERR_PTR(). */
static struct hmm_ref_device *
device_alloc(const struct hmm_ref_device_params *params)
{
	struct hmm_ref_device *dev = kzalloc_obj(*dev, GFP_KERNEL);
	int rc;

	if (!dev)
		return ERR_PTR(-ENOMEM);
	rc = init_srcu_struct(&dev->unplug);
	if (rc) {
		kfree(dev);
		return ERR_PTR(rc);
	}
	kref_init(&dev->ref);
	snprintf(dev->name, sizeof(dev->name), "hmm_ref%u", params->id);
	dev->fault_around = params->fault_around;
	mutex_init(&dev->evict_lock);
	dev->last_room = jiffies;
	init_completion(&dev->unused);
	INIT_DELAYED_WORK(&dev->finish, finish_later);
	mutex_init(&dev->clients_lock);
	INIT_LIST_HEAD(&dev->clients);
	dev->counters = alloc_percpu(struct hmm_ref_counters);
	dev->around = alloc_percpu(struct hmm_ref_around);
	if (dev->counters && dev->around)
		return dev;
	hmm_ref_device_put(dev);
	return ERR_PTR(-ENOMEM);
}

/**
 * hmm_ref_device_add() - create a device
 * @parent: device on the bus; its driver data is set to the new device
 * @params: properties
 *
 * Return: the device, or an ERR_PTR(): -EINVAL for an invalid capacity, -EBUSY
 * if the region of coherent memory is in use, or another negative errno.
 */
struct hmm_ref_device *
hmm_ref_device_add(struct device *parent,
		   const struct hmm_ref_device_params *params)
{
	struct hmm_ref_device *dev = device_alloc(params);
	struct hmm_ref_devmem_params memory = {
		.hw = params->hw,
		.ops = &hmm_ref_pagemap_ops,
		.large = params->large,
		.coherent_base = params->coherent_base,
		.capacity = params->capacity,
		.chunk_size = params->chunk_size,
		.id = params->id,
	};
	int rc;

	if (IS_ERR(dev))
		return dev;
	rc = -EINVAL;
	if (!params->capacity || !IS_ALIGNED(params->capacity, PMD_SIZE))
		goto err_put;
	memory.name = dev->name;
	rc = hmm_ref_scratch_init(&dev->evict_scratch);
	if (rc)
		goto err_put;
	rc = hmm_ref_devmem_init(&dev->dm, &memory);
	if (rc) {
		dev_err(parent, "no device memory: %d\n", rc);
		goto err_scratch;
	}
	if (hmm_ref_hw_bounces(params->hw->dev))
		dev_notice(parent,
			   "DMA may need bounce buffers: only copies can use them\n");
	rc = hmm_ref_node_add(&dev->node, dev, parent, dev->name,
			      &hmm_ref_fops);
	if (rc) {
		/* A process may have opened it nevertheless. */
		device_end(dev);
		return ERR_PTR(rc);
	}
	hmm_ref_debugfs_add(dev);
	dev_set_drvdata(parent, dev);
	rc = hmm_ref_dmirror_add(dev, params->index);
	if (!rc)
		rc = hmm_ref_sleep_init(dev);
	if (!rc)
		rc = xa_alloc(&devices, &dev->index, dev, xa_limit_31b,
			      GFP_KERNEL);
	if (!rc)
		return dev;
	/* A process may have opened it already. */
	hmm_ref_device_remove(dev);
	return ERR_PTR(rc);

err_scratch:
	hmm_ref_scratch_exit(&dev->evict_scratch);
err_put:
	hmm_ref_device_put(dev);
	return ERR_PTR(rc);
}
EXPORT_SYMBOL_NS_GPL(hmm_ref_device_add, "HMM_REF");
