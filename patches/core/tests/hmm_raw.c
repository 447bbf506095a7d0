// SPDX-License-Identifier: GPL-2.0-only
/*
 * /dev/hmm_raw: what hmm_range_fault() reports of the caller's memory, word for word.
 *
 * pread() of 8 * N bytes at offset ADDR gives the elements of hmm_pfns for N pages
 * from ADDR on. Nothing is faulted in.
 */
#include <linux/fs.h>
#include <linux/hmm.h>
#include <linux/miscdevice.h>
#include <linux/mm.h>
#include <linux/mmu_notifier.h>
#include <linux/module.h>
#include <linux/slab.h>
#include <linux/uaccess.h>

static bool raw_invalidate(struct mmu_interval_notifier *notifier,
			   const struct mmu_notifier_range *range, unsigned long seq)
{
	mmu_interval_set_seq(notifier, seq);
	return true;
}

static const struct mmu_interval_notifier_ops raw_notifier_ops = {
	.invalidate = raw_invalidate,
};

static ssize_t raw_read(struct file *file, char __user *buf, size_t size, loff_t *pos)
{
	unsigned long npages = size / sizeof(unsigned long);
	struct mmu_interval_notifier notifier = {};
	struct hmm_range range = {
		.notifier = &notifier,
		.start = *pos & PAGE_MASK,
		.end = (*pos & PAGE_MASK) + npages * PAGE_SIZE,
	};
	ssize_t rc;

	if (!npages || npages > 4096)
		return -EINVAL;
	range.hmm_pfns = kvcalloc(npages, sizeof(*range.hmm_pfns), GFP_KERNEL);
	if (!range.hmm_pfns)
		return -ENOMEM;
	rc = mmu_interval_notifier_insert(&notifier, current->mm, range.start,
					  npages * PAGE_SIZE, &raw_notifier_ops);
	if (rc)
		goto free;
	do {
		memset(range.hmm_pfns, 0, npages * sizeof(*range.hmm_pfns));
		range.notifier_seq = mmu_interval_read_begin(&notifier);
		mmap_read_lock(current->mm);
		rc = hmm_range_fault(&range);
		mmap_read_unlock(current->mm);
	} while (rc == -EBUSY && !fatal_signal_pending(current));
	mmu_interval_notifier_remove(&notifier);
	if (!rc)
		rc = copy_to_user(buf, range.hmm_pfns, npages * sizeof(*range.hmm_pfns)) ?
			-EFAULT : npages * sizeof(*range.hmm_pfns);
free:
	kvfree(range.hmm_pfns);
	return rc;
}

static const struct file_operations raw_fops = {
	.owner = THIS_MODULE,
	.read = raw_read,
	.llseek = default_llseek,
};

static struct miscdevice raw_device = {
	.minor = MISC_DYNAMIC_MINOR,
	.name = "hmm_raw",
	.fops = &raw_fops,
};
module_misc_device(raw_device);

MODULE_DESCRIPTION("What hmm_range_fault() reports");
MODULE_LICENSE("GPL");
