// SPDX-License-Identifier: GPL-2.0-only
/*
 * Batches of copies: the core's part around the ops of the device. See hw.h.
 *
 *   submit   map system memory for DMA, and pass the descriptors to the device;
 *            from here on the hardware stays, and so does a peer
 *   wait     until the fence signals; after a timeout, reset the device, which
 *            makes the fence signal; unmap
 *
 * Only tasks in ioctls, CPU faults and workers wait; notifiers and shrinkers do
 * not.
 */
#include <linux/dma-fence.h>
#include <linux/dma-mapping.h>
#include <linux/module.h>

#include "devmem.h"
#include "fail.h"
#include "sanity.h"

/* Long, so that a device that is only slow is never reset. */
static unsigned int copy_timeout = 60000;
module_param(copy_timeout, uint, 0644);
MODULE_PARM_DESC(copy_timeout,
		 "timeout of a batch of copies, in ms (default 60000)");

/* All copies of a batch have the same direction. */
static enum dma_data_direction direction(const struct hmm_ref_job *job)
{
	return job->ring[0].op == HMM_REF_COPY_OUT ? DMA_FROM_DEVICE :
						     DMA_TO_DEVICE;
}

/* Unmap the first @nr copies. */
static __always_inline void unmap(const struct hmm_ref_job *job,
				  unsigned int nr)
{
	const struct hmm_ref_copy *copy, *end = job->ring + nr;
	enum dma_data_direction dir = direction(job);
	struct hmm_ref_hw *hw = job->dm->hw;
	struct device *dev = hw->dev;

	for (copy = job->ring; copy < end; copy++) {
		if (!copy->sys_page)
			continue;
		hmm_ref_forget_mapping(hw, copy->addr, copy->nr, dir);
		dma_unmap_page(dev, copy->addr, copy->nr * PAGE_SIZE, dir);
	}
}

/* Return: 0; or -EAGAIN, with nothing mapped, if DMA addresses are short. */
static int map(const struct hmm_ref_job *job)
{
	struct hmm_ref_copy *copy, *end = job->ring + job->nr;
	enum dma_data_direction dir = direction(job);
	struct hmm_ref_hw *hw = job->dm->hw;
	struct device *dev = hw->dev;

	if (hmm_ref_fail(HMM_REF_FAIL_DMA))
		return -EAGAIN;
	for (copy = job->ring; copy < end; copy++) {
		if (!copy->sys_page)
			continue;
		copy->addr = dma_map_page(dev, copy->sys_page, 0,
					  copy->nr * PAGE_SIZE, dir);
		if (dma_mapping_error(dev, copy->addr))
			goto err_unmap;
		if (hmm_ref_note_mapping(hw, copy->addr, copy->nr, dir)) {
			dma_unmap_page(dev, copy->addr, copy->nr * PAGE_SIZE,
				       dir);
			goto err_unmap;
		}
	}
	return 0;

err_unmap:
	unmap(job, copy - job->ring);
	return -EAGAIN;
}

/* Use the device and the peer. Return: 0, -ENODEV, or -EIO if that is gone. */
static int enter(struct hmm_ref_job *job)
{
	if (!hmm_ref_hw_enter(job->dm, &job->section))
		return -ENODEV;
	if (!job->peer || hmm_ref_hw_enter(job->peer, &job->peer_section))
		return 0;
	hmm_ref_hw_exit(job->dm, job->section);
	return -EIO;
}

static void leave(struct hmm_ref_job *job)
{
	if (job->peer)
		hmm_ref_hw_exit(job->peer, job->peer_section);
	hmm_ref_hw_exit(job->dm, job->section);
}

/**
 * hmm_ref_job_submit() - pass a batch to the device
 * @job: batch; no more copies may be added
 *
 * hmm_ref_job_wait() returns the result.
 *
 * Context: same as hmm_ref_hw_ops::submit.
 */
void hmm_ref_job_submit(struct hmm_ref_job *job)
{
	struct hmm_ref_hw *hw = job->dm->hw;

	if (!job->nr || job->rc)
		return;
	job->rc = enter(job);
	if (job->rc)
		return;
	job->peer_hw = job->peer ? job->peer->hw : NULL;
	hmm_ref_verify_job(job);
	job->rc = hmm_ref_fail(HMM_REF_FAIL_QUEUE) ? -EAGAIN : map(job);
	if (job->rc)
		goto err_leave;
	job->fence = hw->ops->submit(hw, job);
	if (!IS_ERR(job->fence))
		return;
	job->rc = PTR_ERR(job->fence);
	unmap(job, job->nr);
	if (job->rc == -ENODEV)
		hmm_ref_devmem_lose_all(job->dm);
err_leave:
	leave(job);
}

static bool goes(const struct hmm_ref_devmem *dm)
{
	return READ_ONCE(dm->stopped) == HMM_REF_STOPPED_FOR_GOOD;
}

/*
 * Return: the time at which a batch that began at @began has timed out. A
 * device that is being removed gets little time.
 */
static unsigned long deadline(const struct hmm_ref_job *job,
			      unsigned long began)
{
	unsigned long patience =
		max(1UL, msecs_to_jiffies(READ_ONCE(copy_timeout)));

	if (goes(job->dm) || (job->peer && goes(job->peer)))
		patience = min(patience, HMM_REF_LAST_PATIENCE);
	return began + patience;
}

/* Wait until the device has released the pages. */
static void wait_for_device(const struct hmm_ref_job *job)
{
	struct dma_fence *fence = job->fence;
	struct hmm_ref_hw *hw = job->dm->hw;
	unsigned long began = jiffies;

	if (hw->ops->help)
		hw->ops->help(hw, fence);
	while (!dma_fence_is_signaled(fence)) {
		unsigned long left = deadline(job, began) - jiffies;

		if ((long)left > 0) {
			dma_fence_wait_timeout(fence, false, min(left, HZ));
			continue;
		}
		/* An earlier batch may have hung: restart the timeout. */
		dev_warn(hw->dev, "copies hang, the device is reset\n");
		hw->ops->reset(hw);
		began = jiffies;
		dma_fence_wait_timeout(fence, false, 1);
	}
}

/**
 * hmm_ref_job_wait() - wait until a batch is complete
 * @job: batch that was submitted; the rc of each descriptor is set
 *
 * Context: same as hmm_ref_hw_ops::submit; sleeps for a bounded time.
 * Return: 0; or the errno of a copy that failed: then the descriptors tell
 * which destinations hold data.
 */
int hmm_ref_job_wait(struct hmm_ref_job *job)
{
	unsigned int i;
	int rc;

	if (!job->nr)
		return job->rc;
	if (job->rc) {
		for (i = 0; i < job->nr; i++)
			job->ring[i].rc = job->rc;
		return job->rc;
	}
	hmm_ref_verify_job(job);
	wait_for_device(job);
	hmm_ref_verify_job(job);
	rc = dma_fence_get_status(job->fence);
	unmap(job, job->nr);
	dma_fence_put(job->fence);
	if (rc == -ENODEV)
		hmm_ref_devmem_lose_all(job->dm);
	leave(job);
	return min(rc, 0);
}
