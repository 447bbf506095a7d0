// SPDX-License-Identifier: GPL-2.0-only
/*
 * hmm_range_fault() reports some pages wrongly, and faults more pages than it
 * has to.
 *
 * It reports:
 *
 * - a device-private PMD with page numbers that start at the PMD, even if the
 *   range starts within it; another device's PMD as an error
 * - a hugetlb entry without a page as a number
 * - memory of memfd_secret() like any other. Not even the kernel can access
 *   that
 * - a device-private page as writable although a userfaultfd write-protects it:
 *   PAGEMAP_SCAN leaves the entry writable, and hmm_range_fault() does not look
 *   at the bit that it sets
 * - a read-only device-private page of the owner as writable
 *
 * If one page is missing it faults all that follow. A fault brings pages of the
 * owner to system memory.
 */
#include <linux/highmem.h>
#include <linux/uaccess.h>
#include <linux/userfaultfd_k.h>

#include "../mirror.h"

#ifdef HMM_REF_COMPAT_RANGE_FAULT

static void correct_numbers(const struct hmm_range *range)
{
	const unsigned long mask = HMM_REF_BLOCK_PAGES - 1;
	unsigned long *hmm_pfn = range->hmm_pfns;
	unsigned long addr;

	for (addr = range->start; addr < range->end;
	     addr += PAGE_SIZE, hmm_pfn++) {
		if (hmm_pfn_to_map_order(*hmm_pfn) < HMM_REF_BLOCK_ORDER)
			continue;
		if (*hmm_pfn & HMM_PFN_VALID)
			*hmm_pfn = (*hmm_pfn & ~mask) |
				   (addr >> PAGE_SHIFT & mask);
		else if (!(*hmm_pfn & HMM_PFN_ERROR))
			*hmm_pfn = 0;
	}
}

/*
 * In a mapping with pages, an error is another device's huge page. Report none,
 * as for a small page.
 */
static void clear_errors(const struct hmm_range *range)
{
	VMA_ITERATOR(vmi, range->notifier->mm, range->start);
	struct vm_area_struct *vma;
	unsigned long addr, end;

	for_each_vma_range(vmi, vma, range->end) {
		if (!(vma->vm_flags & VM_READ) ||
		    vma->vm_flags & (VM_IO | VM_PFNMAP | VM_MIXEDMAP))
			continue;
		end = min(range->end, vma->vm_end);
		for (addr = max(range->start, vma->vm_start); addr < end;
		     addr += PAGE_SIZE) {
			unsigned long i = (addr - range->start) >> PAGE_SHIFT;

			if (range->hmm_pfns[i] & HMM_PFN_ERROR)
				range->hmm_pfns[i] = 0;
		}
	}
}

static bool is_secret(unsigned long hmm_pfn)
{
	bool secret;
	void *mem;
	u8 probe;

	if (!(hmm_pfn & HMM_PFN_VALID) ||
	    is_device_private_page(hmm_pfn_to_page(hmm_pfn)))
		return false;
	mem = kmap_local_page(hmm_pfn_to_page(hmm_pfn));
	secret = copy_from_kernel_nofault(&probe, mem, 1);
	kunmap_local(mem);
	return secret;
}

static void hide_secrets(const struct hmm_range *range)
{
	unsigned long nr = (range->end - range->start) >> PAGE_SHIFT;
	unsigned long i;

	for (i = 0; i < nr; i++) {
		if (is_secret(range->hmm_pfns[i]))
			range->hmm_pfns[i] = HMM_PFN_ERROR;
	}
}

static void clear_write(struct hmm_range *range,
			const struct vm_area_struct *vma)
{
	unsigned long addr = max(range->start, vma->vm_start);
	unsigned long end = min(range->end, vma->vm_end);
	unsigned long *hmm_pfn =
		&range->hmm_pfns[(addr - range->start) >> PAGE_SHIFT];

	for (; addr < end; addr += PAGE_SIZE, hmm_pfn++) {
		if (*hmm_pfn & HMM_PFN_VALID &&
		    is_device_private_page(hmm_pfn_to_page(*hmm_pfn)))
			*hmm_pfn &= ~HMM_PFN_WRITE;
	}
}

/*
 * In a mapping that a userfaultfd write-protects, treat device-private pages as
 * read-only: a device write then faults like a CPU write, in system memory.
 * Entries of present pages are correct. A VMA that is registered later needs no
 * care: protecting its pages invalidates them.
 */
static void hide_untold_writes(struct hmm_range *range)
{
	VMA_ITERATOR(vmi, range->notifier->mm, range->start);
	struct vm_area_struct *vma;

	for_each_vma_range(vmi, vma, range->end) {
		if (userfaultfd_wp(vma))
			clear_write(range, vma);
	}
}

/* Return: 0, or -EBUSY if the range has changed. */
static int hide_wrong_pfns(struct hmm_range *range)
{
	struct hmm_ref_range *of_mirror =
		container_of(range->notifier, struct hmm_ref_range, notifier);
	int rc = 0;

	/* No page can go while none can be invalidated. */
	mutex_lock(&of_mirror->lock);
	if (mmu_interval_read_retry(range->notifier, range->notifier_seq)) {
		rc = -EBUSY;
	} else {
		hide_secrets(range);
		hide_untold_writes(range);
	}
	mutex_unlock(&of_mirror->lock);
	return rc;
}

/**
 * hmm_ref_compat_range_fault() - hmm_range_fault() with corrected results
 * @range: as for hmm_range_fault(), with the notifier of a mirror's range
 *
 * Context: mmap_lock held; takes hmm_ref_range::lock.
 * Return: same as hmm_range_fault().
 */
int hmm_ref_compat_range_fault(struct hmm_range *range)
{
	int rc = (hmm_range_fault)(range);

	if (rc)
		return rc;
	correct_numbers(range);
	clear_errors(range);
	return hide_wrong_pfns(range);
}

/* Look at the range without faults. Return: 0, -EBUSY, -EINTR, or -EFAULT. */
static int look(struct hmm_range *range)
{
	struct mm_struct *mm = range->notifier->mm;
	unsigned long nr = (range->end - range->start) >> PAGE_SHIFT;
	struct hmm_range seen = *range;
	unsigned long i;
	int rc;

	seen.default_flags = 0;
	seen.notifier_seq = mmu_interval_read_begin(range->notifier);
	if (mmap_read_lock_killable(mm))
		return -EINTR;
	rc = hmm_ref_compat_range_fault(&seen);
	mmap_read_unlock(mm);
	for (i = 0; !rc && i < nr; i++) {
		if (seen.hmm_pfns[i] & HMM_PFN_ERROR)
			rc = -EFAULT;
	}
	return rc;
}

static bool is_missing(const struct hmm_range *range, unsigned long i)
{
	unsigned long needed = HMM_PFN_VALID;

	if (range->default_flags & HMM_PFN_REQ_WRITE)
		needed |= HMM_PFN_WRITE;
	return (range->hmm_pfns[i] & needed) != needed;
}

/*
 * Fault in a run of missing pages. Read-only pages of the owner come to system
 * memory. Secret memory that is faulted in is an error at the next look.
 */
static int dev_fault_run(const struct hmm_range *range, unsigned long first,
			 unsigned long last, unsigned long timeout)
{
	struct hmm_range run = *range;

	run.start = range->start + first * PAGE_SIZE;
	run.end = range->start + last * PAGE_SIZE;
	run.hmm_pfns = range->hmm_pfns + first;
	if (range->default_flags & HMM_PFN_REQ_WRITE)
		run.dev_private_owner = NULL;
	memset(run.hmm_pfns, 0, (last - first) * sizeof(*run.hmm_pfns));
	return (hmm_range_fault_unlocked_timeout)(&run, timeout);
}

/**
 * hmm_ref_compat_range_fault_unlocked() - fault in missing pages only
 * @range: as for hmm_range_fault_unlocked_timeout(); the PFNs must not be used
 * @timeout: as for hmm_range_fault_unlocked_timeout()
 *
 * Context: takes mmap_lock.
 * Return: same as hmm_range_fault_unlocked_timeout(), or -EINTR.
 */
int hmm_ref_compat_range_fault_unlocked(struct hmm_range *range,
					unsigned long timeout)
{
	unsigned long nr = (range->end - range->start) >> PAGE_SHIFT;
	unsigned long deadline = jiffies + timeout;
	unsigned long first, last;
	int rc = look(range);

	for (first = 0; !rc && first < nr; first = last + 1) {
		for (last = first; last < nr; last++) {
			if (!is_missing(range, last))
				break;
		}
		if (last == first)
			continue;
		if (time_after(jiffies, deadline))
			rc = -EBUSY;
		else
			rc = dev_fault_run(range, first, last, timeout);
	}
	return rc;
}

#endif /* HMM_REF_COMPAT_RANGE_FAULT */
