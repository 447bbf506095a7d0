// SPDX-License-Identifier: GPL-2.0-only
/*
 * Module, platform devices, character devices: who is there, and how it goes.
 *
 * The module makes a platform device per simulated device and a driver for them, so
 * unbind and bind in sysfs stand for hot unplug. Going is the hard part, and its
 * order matters:
 *
 *   stop              nothing is handed out any more
 *   gone              operations that begin now fail with -ENODEV ...
 *   synchronize_srcu  ... and those under way have ended
 *   zap the mirrors   the device accesses nothing any more
 *   evict             processes get their data back to system memory
 *   memunmap, free    the struct pages go
 *
 * There is no way to go on with pages left: processes would lose their data. No lock is
 * held while it waits. Open files keep struct hmm_ref_device, and their notifiers, until
 * they are closed; the module stays for as long.
 *
 * A system that sleeps takes the power from a device's memory, so suspend does as much of
 * this as processes that are frozen need: stop, zap, evict. It may fail, as the system
 * can stay awake. The device wakes up empty.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/fs.h>
#include <linux/module.h>
#include <linux/platform_device.h>
#include <linux/pm.h>
#include <linux/sizes.h>
#include <linux/slab.h>

#include "fault_around.h"
#include "gpu/gpu.h"
#include "hmm_ref.h"

#define MAX_DEVICES	8
#define MAX_REGIONS	4
#define MAX_CHUNK_SIZE	(64ULL * SZ_1G)		/* its blocks are one allocation */
#define MAX_CAPACITY	(4ULL * SZ_1T)		/* an owner has a reference per page */

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

static const struct kernel_param_ops param_size_ops = {
	.set = param_set_size,
	.get = param_get_size,
};

static unsigned int ndevices = 2;
module_param(ndevices, uint, 0444);
MODULE_PARM_DESC(ndevices, "number of devices (default 2)");

static u64 capacity;
module_param_cb(capacity, &param_size_ops, &capacity, 0444);
MODULE_PARM_DESC(capacity, "memory of each device, a multiple of PMD_SIZE (default 1G)");

static u64 chunk_size;
module_param_cb(chunk_size, &param_size_ops, &chunk_size, 0444);
MODULE_PARM_DESC(chunk_size, "memory added at a time, a power of two (default 128M)");

static bool large = HMM_REF_LARGE_IS_SAFE;
module_param(large, bool, 0444);
MODULE_PARM_DESC(large, "keep large folios whole on private devices (default Y where the core can do it)");

static unsigned int fault_around = HMM_REF_FAULT_AROUND_MAX;
module_param(fault_around, uint, 0444);
MODULE_PARM_DESC(fault_around, "pages that a CPU fault brings back at the most (default 16)");

static unsigned long long coherent[MAX_REGIONS];
static unsigned int nregions;
module_param_array(coherent, ullong, &nregions, 0444);
MODULE_PARM_DESC(coherent, "addresses of reserved memory for coherent devices, which follow the others");

static u64 coherent_size;
module_param_cb(coherent_size, &param_size_ops, &coherent_size, 0444);
MODULE_PARM_DESC(coherent_size, "size of each of these windows, a multiple of PMD_SIZE (default 256M)");

static int check_regions(void)
{
	unsigned int i;

	if (!coherent_size)
		coherent_size = round_up((u64)SZ_256M, PMD_SIZE);
	if (!IS_ALIGNED(coherent_size, PMD_SIZE) || coherent_size > MAX_CHUNK_SIZE) {
		pr_err("coherent_size must be a multiple of %lu, at most %llu\n",
		       PMD_SIZE, MAX_CHUNK_SIZE);
		return -EINVAL;
	}
	for (i = 0; i < nregions; i++) {
		if (!coherent[i] || !IS_ALIGNED(coherent[i], PMD_SIZE)) {
			pr_err("coherent: addresses must be multiples of %lu\n",
			       PMD_SIZE);
			return -EINVAL;
		}
	}
	return 0;
}

static int check_params(void)
{
	/* 128M is what request_free_mem_region() rounds to on x86-64. */
	if (!chunk_size)
		chunk_size = max_t(u64, SZ_128M, PMD_SIZE);
	if (!capacity)
		capacity = round_up((u64)SZ_1G, PMD_SIZE);
	if (!ndevices || ndevices > MAX_DEVICES) {
		pr_err("ndevices must be 1 to %d\n", MAX_DEVICES);
		return -EINVAL;
	}
	if (IS_ENABLED(CONFIG_ARCH_HAS_PMD_SOFTLEAVES) && !HMM_REF_LARGE_IS_SAFE)
		pr_warn("this kernel has bugs that large folios run into, large=%d\n", large);
	if (!is_power_of_2(chunk_size) || chunk_size < PMD_SIZE ||
	    chunk_size > MAX_CHUNK_SIZE) {
		pr_err("chunk_size must be a power of two from %lu to %llu\n",
		       PMD_SIZE, MAX_CHUNK_SIZE);
		return -EINVAL;
	}
	if (!IS_ALIGNED(capacity, PMD_SIZE) || capacity > MAX_CAPACITY) {
		pr_err("capacity must be a multiple of %lu, at most %llu\n",
		       PMD_SIZE, MAX_CAPACITY);
		return -EINVAL;
	}
	return check_regions();
}

/* Platform data: memory of a coherent device; a private one has no start. */
struct coherent_region {
	phys_addr_t start;
	u64 size;
};

/* ---- devices ----------------------------------------------------------- */

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

/* ---- platform driver --------------------------------------------------- */

const struct dev_pagemap_ops hmm_ref_pagemap_ops = {
	.folio_free = hmm_ref_pagemap_folio_free,
#ifdef CONFIG_ARCH_HAS_PMD_SOFTLEAVES
	.folio_split = hmm_ref_devmem_folio_split,
#endif
	.migrate_to_ram = hmm_ref_migrate_to_ram,
	.memory_failure = hmm_ref_memory_failure,
};
EXPORT_SYMBOL_IF_KUNIT(hmm_ref_pagemap_ops);

static void hmm_ref_remove(struct platform_device *pdev)
{
	struct hmm_ref_device *dev = platform_get_drvdata(pdev);

	hmm_ref_devmem_stop(&dev->dm);
	WRITE_ONCE(dev->gone, true);
	hmm_ref_node_remove(&dev->node);
	hmm_ref_dmirror_remove(dev);
	hmm_ref_debugfs_remove(dev);
	synchronize_srcu(&dev->unplug);
	hmm_ref_clients_zap(dev);
	while (!hmm_ref_evict_all(dev, 10 * HZ))
		dev_warn(&pdev->dev, "waiting for %lu pages to leave the device\n",
			 hmm_ref_devmem_used(&dev->dm));
	hmm_ref_devmem_exit(&dev->dm);
	hmm_ref_gpu_destroy(dev->dm.hw);
	hmm_ref_scratch_exit(&dev->evict_scratch);
	hmm_ref_device_put(dev);
}

static int hmm_ref_probe(struct platform_device *pdev)
{
	struct hmm_ref_device *dev = kzalloc_obj(*dev, GFP_KERNEL);
	const struct coherent_region *region = dev_get_platdata(&pdev->dev);
	struct hmm_ref_devmem_params params = {
		.ops = &hmm_ref_pagemap_ops,
		.large = large,
		.coherent_base = region->start,
		.capacity = region->start ? region->size : capacity,
		.chunk_size = chunk_size,
	};
	int rc;

	if (!dev)
		return -ENOMEM;
	rc = init_srcu_struct(&dev->unplug);
	if (rc) {
		kfree(dev);
		return rc;
	}
	rc = -ENOMEM;
	kref_init(&dev->ref);
	snprintf(dev->name, sizeof(dev->name), "hmm_ref%d", pdev->id);
	dev->fault_around = fault_around;
	params.id = pdev->id;
	params.name = dev->name;
	mutex_init(&dev->evict_lock);
	dev->last_room = jiffies;
	mutex_init(&dev->clients_lock);
	INIT_LIST_HEAD(&dev->clients);
	dev->counters = alloc_percpu(struct hmm_ref_counters);
	dev->around = alloc_percpu(struct hmm_ref_around);
	if (!dev->counters || !dev->around)
		goto err_put;
	rc = hmm_ref_scratch_init(&dev->evict_scratch);
	if (rc)
		goto err_put;
	rc = -ENOMEM;
	params.hw = hmm_ref_gpu_create(dev_to_node(&pdev->dev), region->start);
	if (!params.hw)
		goto err_scratch;
	rc = hmm_ref_devmem_init(&dev->dm, &params);
	if (rc) {
		dev_err(&pdev->dev, "no device memory: %d\n", rc);
		goto err_hw;
	}

	rc = hmm_ref_node_add(&dev->node, dev, &pdev->dev, dev->name, &hmm_ref_fops);
	if (rc)
		goto err_devmem;
	hmm_ref_debugfs_add(dev);
	platform_set_drvdata(pdev, dev);
	rc = hmm_ref_dmirror_add(dev, region->start ? pdev->id - ndevices : pdev->id);
	if (rc)
		hmm_ref_remove(pdev); /* somebody may have opened it already */
	return rc;

err_devmem:
	hmm_ref_devmem_exit(&dev->dm);
err_hw:
	hmm_ref_gpu_destroy(params.hw);
err_scratch:
	hmm_ref_scratch_exit(&dev->evict_scratch);
err_put:
	hmm_ref_device_put(dev);
	return rc;
}

static int hmm_ref_resume(struct device *device)
{
	struct hmm_ref_device *dev = dev_get_drvdata(device);

	hmm_ref_devmem_restart(&dev->dm);
	return 0;
}

static int hmm_ref_suspend(struct device *device)
{
	struct hmm_ref_device *dev = dev_get_drvdata(device);

	hmm_ref_devmem_stop(&dev->dm);
	hmm_ref_clients_zap(dev);
	if (hmm_ref_evict_all(dev, 10 * HZ))
		return 0;
	dev_err(device, "%lu pages do not leave the device\n", hmm_ref_devmem_used(&dev->dm));
	hmm_ref_resume(device);
	return -EBUSY;
}

static DEFINE_SIMPLE_DEV_PM_OPS(hmm_ref_pm_ops, hmm_ref_suspend, hmm_ref_resume);

static struct platform_driver hmm_ref_driver = {
	.probe = hmm_ref_probe,
	.remove = hmm_ref_remove,
	.driver = {
		.name = "hmm_ref",
		.pm = pm_sleep_ptr(&hmm_ref_pm_ops),
	},
};

static struct platform_device *platform_devices[MAX_DEVICES + MAX_REGIONS];

static void unregister_devices(void)
{
	unsigned int i;

	for (i = 0; i < ndevices + nregions; i++)
		platform_device_unregister(platform_devices[i]);
}

static int __init register_devices(void)
{
	unsigned int i;
	int rc;

	for (i = 0; i < ndevices + nregions; i++) {
		struct coherent_region region = { .size = coherent_size };
		struct platform_device *pdev;

		if (i >= ndevices)
			region.start = coherent[i - ndevices];
		pdev = platform_device_register_data(NULL, "hmm_ref", i, &region,
						     sizeof(region));
		if (IS_ERR(pdev)) {
			rc = PTR_ERR(pdev);
			while (i--)
				platform_device_unregister(platform_devices[i]);
			return rc;
		}
		platform_devices[i] = pdev;
	}
	return 0;
}

static int __init hmm_ref_init(void)
{
	int rc = check_params();

	if (rc)
		return rc;
	rc = hmm_ref_dmirror_check();
	if (rc)
		return rc;
	rc = hmm_ref_fault_init();
	if (rc)
		return rc;
	rc = hmm_ref_node_init();
	if (rc)
		goto err_fault;
	hmm_ref_debugfs_init();
	rc = platform_driver_register(&hmm_ref_driver);
	if (rc)
		goto err_debugfs;
	rc = register_devices();
	if (rc)
		goto err_driver;
	return 0;

err_driver:
	platform_driver_unregister(&hmm_ref_driver);
err_debugfs:
	hmm_ref_debugfs_exit();
	hmm_ref_node_exit();
err_fault:
	hmm_ref_fault_exit();
	return rc;
}

static void __exit hmm_ref_exit(void)
{
	unregister_devices();
	platform_driver_unregister(&hmm_ref_driver);
	hmm_ref_debugfs_exit();
	hmm_ref_node_exit();
	hmm_ref_fault_exit();
}

module_init(hmm_ref_init);
module_exit(hmm_ref_exit);

MODULE_DESCRIPTION("Reference driver for device-private memory");
MODULE_LICENSE("GPL");
