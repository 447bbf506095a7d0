// SPDX-License-Identifier: GPL-2.0-only
/*
 * hmm_range_fault() reports what is not so.
 *
 * Of a device-private PMD it numbers the pages from the start of the PMD, wherever the range
 * begins. Of a hugetlb entry without a page it reports the entry as a number. An entry of a
 * private page may be writable although a userfaultfd write-protects it: PAGEMAP_SCAN leaves
 * it so, and hmm_range_fault() does not look at the bit that it sets. And of a private page
 * of the owner that is read-only it says that it can be written to.
 */
#include <linux/userfaultfd_k.h>

#include "../hmm_ref.h"

#ifdef HMM_REF_COMPAT_RANGE_FAULT

static void correct_numbers(const struct hmm_range *range)
{
	const unsigned long index = HMM_REF_BLOCK_PAGES - 1;
	unsigned long *hmm_pfn = range->hmm_pfns;
	unsigned long addr;

	for (addr = range->start; addr < range->end; addr += PAGE_SIZE, hmm_pfn++) {
		if (hmm_pfn_to_map_order(*hmm_pfn) < HMM_REF_BLOCK_ORDER)
			continue;
		if (*hmm_pfn & HMM_PFN_VALID)
			*hmm_pfn = (*hmm_pfn & ~index) | (addr >> PAGE_SHIFT & index);
		else if (!(*hmm_pfn & HMM_PFN_ERROR))
			*hmm_pfn = 0;
	}
}

static void clear_write(struct hmm_range *range, const struct vm_area_struct *vma)
{
	unsigned long addr = max(range->start, vma->vm_start);
	unsigned long end = min(range->end, vma->vm_end);
	unsigned long *hmm_pfn = &range->hmm_pfns[(addr - range->start) >> PAGE_SHIFT];

	for (; addr < end; addr += PAGE_SIZE, hmm_pfn++) {
		if (*hmm_pfn & HMM_PFN_VALID &&
		    is_device_private_page(hmm_pfn_to_page(*hmm_pfn)))
			*hmm_pfn &= ~HMM_PFN_WRITE;
	}
}

/*
 * Where a userfaultfd write-protects, private pages count as read-only, and a device write has
 * them faulted as the CPU's would: it happens in system memory, which the fault brings them
 * to. Entries of present pages are right. A VMA that is registered later is no concern:
 * what protects its pages invalidates them.
 */
static int hide_untold_writes(struct hmm_range *range)
{
	struct hmm_ref_mirror *mirror = container_of(range->notifier, struct hmm_ref_mirror,
						     notifier);
	VMA_ITERATOR(vmi, range->notifier->mm, range->start);
	struct vm_area_struct *vma;
	int rc = 0;

	for_each_vma_range(vmi, vma, range->end) {
		if (!userfaultfd_wp(vma))
			continue;
		/* The pages stay as long as none can be invalidated. */
		mutex_lock(&mirror->lock);
		if (mmu_interval_read_retry(range->notifier, range->notifier_seq))
			rc = -EBUSY;
		else
			clear_write(range, vma);
		mutex_unlock(&mirror->lock);
	}
	return rc;
}

/**
 * hmm_ref_compat_range_fault() - hmm_range_fault() that reports what is so
 * @range: as for hmm_range_fault(), with the notifier of a mirror
 *
 * Context: mmap_lock held; takes hmm_ref_mirror::lock.
 * Return: as hmm_range_fault().
 */
int hmm_ref_compat_range_fault(struct hmm_range *range)
{
	int rc = (hmm_range_fault)(range);

	if (rc)
		return rc;
	correct_numbers(range);
	return hide_untold_writes(range);
}

#endif /* HMM_REF_COMPAT_RANGE_FAULT */

#ifndef HMM_REF_CORE_FAULTS_READ_ONLY

/**
 * hmm_ref_compat_range_fault_unlocked() - as hmm_range_fault_unlocked_timeout()
 * @range: as for that
 * @timeout: as for that
 *
 * With no owner named, private pages return to system memory, where those that are shared
 * after fork() are copied.
 *
 * Context: takes mmap_lock.
 * Return: as hmm_range_fault_unlocked_timeout().
 */
int hmm_ref_compat_range_fault_unlocked(struct hmm_range *range, unsigned long timeout)
{
	if (range->default_flags & HMM_PFN_REQ_WRITE)
		range->dev_private_owner = NULL;
	return (hmm_range_fault_unlocked_timeout)(range, timeout);
}

#endif /* HMM_REF_CORE_FAULTS_READ_ONLY */
