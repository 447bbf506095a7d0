// SPDX-License-Identifier: GPL-2.0-only
/*
 * Simulated devices: a platform device for each, and their driver. Unbind and
 * bind in sysfs stand for hot unplug and plug.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/dma-mapping.h>
#include <linux/module.h>
#include <linux/platform_device.h>
#include <linux/sizes.h>

#include "../hmm_ref.h"
#include "gpu.h"

#define MAX_DEVICES	8
#define MAX_REGIONS	4
#define MAX_CAPACITY	(4ULL * SZ_1T)	/* an owner has a reference per page */

/* ---- module parameters ------------------------------------------------- */

static unsigned int ndevices = 2;
module_param(ndevices, uint, 0444);
MODULE_PARM_DESC(ndevices, "number of devices (default 2)");

static u64 capacity;
module_param_cb(capacity, &hmm_ref_param_size_ops, &capacity, 0444);
MODULE_PARM_DESC(capacity,
		 "memory of each device, a multiple of PMD_SIZE (default 1G)");

static unsigned long long coherent[MAX_REGIONS];
static unsigned int nregions;
module_param_array(coherent, ullong, &nregions, 0444);
MODULE_PARM_DESC(coherent,
		 "addresses of reserved memory, one coherent device for each");

static u64 coherent_size;
module_param_cb(coherent_size, &hmm_ref_param_size_ops, &coherent_size, 0444);
MODULE_PARM_DESC(coherent_size,
		 "memory of each coherent device, a multiple of PMD_SIZE (default 256M)");

static int check_regions(void)
{
	unsigned int i;

	if (!coherent_size)
		coherent_size = round_up((u64)SZ_256M, PMD_SIZE);
	if (!IS_ALIGNED(coherent_size, PMD_SIZE) ||
	    coherent_size > HMM_REF_MAX_CHUNK_SIZE) {
		pr_err("coherent_size must be a multiple of %lu, at most %llu\n",
		       PMD_SIZE, HMM_REF_MAX_CHUNK_SIZE);
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
	if (!capacity)
		capacity = round_up((u64)SZ_1G, PMD_SIZE);
	if (ndevices > MAX_DEVICES) {
		pr_err("ndevices must be at most %d\n", MAX_DEVICES);
		return -EINVAL;
	}
	if (!IS_ALIGNED(capacity, PMD_SIZE) || capacity > MAX_CAPACITY) {
		pr_err("capacity must be a multiple of %lu, at most %llu\n",
		       PMD_SIZE, MAX_CAPACITY);
		return -EINVAL;
	}
	return check_regions();
}

/* ---- driver ------------------------------------------------------------ */

/* Platform data: memory of a coherent device; 0 for a private one. */
struct coherent_region {
	phys_addr_t start;
	u64 size;
};

static int sim_probe(struct platform_device *pdev)
{
	const struct coherent_region *region = dev_get_platdata(&pdev->dev);
	struct hmm_ref_device_params params = hmm_ref_device_params;
	struct hmm_ref_device *dev;
	int rc;

	params.id = pdev->id;
	params.index = region->start ? pdev->id - ndevices : pdev->id;
	params.coherent_base = region->start;
	params.capacity = region->start ? region->size : capacity;
	rc = dma_set_mask_and_coherent(&pdev->dev, DMA_BIT_MASK(64));
	if (rc)
		return rc;
	params.hw = hmm_ref_gpu_create(&pdev->dev, dev_to_node(&pdev->dev),
				       region->start);
	if (!params.hw)
		return -ENOMEM;
	dev = hmm_ref_device_add(&pdev->dev, &params);
	if (IS_ERR(dev))
		hmm_ref_gpu_destroy(params.hw);
	return PTR_ERR_OR_ZERO(dev);
}

static void sim_remove(struct platform_device *pdev)
{
	struct hmm_ref_device *dev = platform_get_drvdata(pdev);
	struct hmm_ref_hw *hw = dev->dm.hw;

	hmm_ref_device_remove(dev);
	hmm_ref_gpu_destroy(hw);
}

static struct platform_driver sim_driver = {
	.probe = sim_probe,
	.remove = sim_remove,
	.driver = {
		.name = "hmm_ref",
		.pm = pm_sleep_ptr(&hmm_ref_pm_ops),
	},
};

/* ---- devices ----------------------------------------------------------- */

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
		pdev = platform_device_register_data(NULL, "hmm_ref", i,
						     &region, sizeof(region));
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

/**
 * hmm_ref_sim_number_others() - number a device that is not simulated
 * @params: parameters of a device with private memory; id and index are set
 * @index: number of the device among those on its bus
 */
void hmm_ref_sim_number_others(struct hmm_ref_device_params *params,
			       unsigned int index)
{
	params->id = ndevices + nregions + index;
	params->index = ndevices + index;
}

/**
 * hmm_ref_sim_init() - create the simulated devices
 *
 * Return: 0; -EINVAL for invalid module parameters; or another negative errno.
 */
int __init hmm_ref_sim_init(void)
{
	int rc = check_params();

	if (rc)
		return rc;
	rc = platform_driver_register(&sim_driver);
	if (rc)
		return rc;
	rc = register_devices();
	if (rc)
		platform_driver_unregister(&sim_driver);
	return rc;
}

/**
 * hmm_ref_sim_exit() - remove the simulated devices
 */
void hmm_ref_sim_exit(void)
{
	unregister_devices();
	platform_driver_unregister(&sim_driver);
}
