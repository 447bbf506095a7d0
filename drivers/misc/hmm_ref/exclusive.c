// SPDX-License-Identifier: GPL-2.0-only
/*
 * Exclusive access: atomics of a device on system memory, over a link without
 * them.
 *
 * make_device_exclusive() replaces the CPU's entry by one that is not present.
 * The page stays where it is, and only the device maps it, with
 * HMM_REF_PTE_EXCLUSIVE. A CPU touch, fork() or another device takes it back:
 * the core invalidates, which zaps the device's entry, and then restores the
 * CPU's.
 *
 *   fault                     as for a device write: bring the page in, copy it
 *                             if it is shared, find all errors
 *   read the sequence         from here on the page must not change ...
 *   make_device_exclusive()   ... except by this. invalidate() recognises the
 *                             event by its owner, this mirror; all other
 *                             mirrors must obey it. Returns with the folio
 *                             locked, so no CPU can take the page back yet
 *   map                       under range->lock, if the sequence is unchanged
 *   unlock the folio          other tasks may take the page
 *
 * The folio lock does not replace the check of the sequence: MADV_DONTNEED
 * clears the entry without that lock, and the device would map a freed page.
 *
 * Each attempt needs the fault, not only the first. After a failed attempt the
 * CPU's entry is exclusive to a device that does not map it.
 * make_device_exclusive() would first take that back, by an event that changes
 * the sequence, and so fail forever.
 *
 * A page that the device maps writable in its own memory is used in place:
 * atomics work there. make_device_exclusive() would bring it to system memory;
 * or, if the memory is coherent, return it where it is. That happens when a
 * migration comes between the fault and the call: the next fault maps the page
 * as the device's own.
 *
 * Under contention the access follows the mapping immediately, and is retried.
 */
#include <linux/hugetlb_inline.h>
#include <linux/mm.h>
#include <linux/pagemap.h>
#include <linux/rmap.h>

#include "fail.h"
#include "mirror.h"
#include "sanity.h"
#include "trace.h"

static bool page_is_ready(struct hmm_ref_range *range, unsigned long addr)
{
	hmm_ref_pte_t pte;

	mutex_lock(&range->lock);
	pte = hmm_ref_pgtable_lookup(&range->pt, addr);
	mutex_unlock(&range->lock);
	return hmm_ref_pte_allows_atomics(pte);
}

/*
 * True if pages of a mapping can become exclusive. Without this check the write
 * fault before make_device_exclusive() would allocate blocks of a file and copy
 * huge pages, only for the command to fail. Return: 0 or -errno.
 */
static int check_vma(const struct vm_area_struct *vma)
{
	if (!vma || !(vma->vm_flags & VM_READ) ||
	    vma->vm_flags & (VM_IO | VM_PFNMAP))
		return -EFAULT;
	if (vma->vm_flags & VM_SHARED || is_vm_hugetlb_page(vma))
		return -EINVAL;
	return hmm_ref_vma_may_write(vma) ? 0 : -EPERM;
}

/**
 * hmm_ref_range_check_exclusive() - check that pages can become exclusive
 * @range: range of the current process, or of an mm that the caller keeps alive
 * @addr: page address in a mapping
 * @end: reduced to the end of the mapping, if that is lower
 *
 * Called before hmm_ref_range_make_ready(), which starts with a fault.
 *
 * Context: takes mmap_lock.
 * Return: 0 or -errno.
 */
int hmm_ref_range_check_exclusive(struct hmm_ref_range *range,
				  unsigned long addr, unsigned long *end)
{
	struct mm_struct *mm = range->mirror->mm;
	struct vm_area_struct *vma;
	int rc;

	if (mmap_read_lock_killable(mm))
		return -EINTR;
	vma = vma_lookup(mm, addr);
	rc = check_vma(vma);
	if (!rc)
		*end = min(*end, vma->vm_end);
	mmap_read_unlock(mm);
	return rc;
}

/*
 * Take the CPU's entry away. Return: the page, with its folio locked and
 * referenced, or an ERR_PTR().
 */
static struct page *take_page(struct mm_struct *mm, unsigned long addr,
			      void *owner, struct folio **folio)
{
	struct vm_area_struct *vma;
	struct page *page;
	int rc;

	if (mmap_read_lock_killable(mm))
		return ERR_PTR(-EINTR);
	vma = vma_lookup(mm, addr);
	/* The mapping may have changed since the fault. */
	rc = check_vma(vma);
	page = rc ? ERR_PTR(rc) : make_device_exclusive(mm, addr, owner, folio);
	mmap_read_unlock(mm);
	return page;
}

/* Free prepared memory that is not used. */
static void trim(struct hmm_ref_range *range)
{
	mutex_lock(&range->lock);
	hmm_ref_range_trim(range);
	mutex_unlock(&range->lock);
}

/* Return: 0; -EBUSY if the page has changed since @seq; -ENOMEM or -ENODEV. */
static int map_taken(struct hmm_ref_range *range, unsigned long addr,
		     struct page *page, unsigned long seq)
{
	const u64 bits = HMM_REF_PTE_EXCLUSIVE | HMM_REF_PTE_WRITE;
	struct hmm_ref_devmem *dm = range->mirror->dm;
	int rc = -EBUSY;
	int section;

	if (!hmm_ref_hw_enter(dm, &section))
		return -ENODEV;
	mutex_lock(&range->lock);
	if (!hmm_ref_owns(dm, page) &&
	    !mmu_interval_read_retry(&range->notifier, seq) &&
	    !hmm_ref_fail(HMM_REF_FAIL_RETRY) &&
	    hmm_ref_range_is_ready(range, false, true))
		rc = hmm_ref_range_map(range, addr, page, bits, false);
	if (!rc) {
		/* The PTE that carried the dirty bit is gone. */
		folio_mark_dirty(page_folio(page));
		hmm_ref_verify_mapped(range, addr, addr + PAGE_SIZE);
		hmm_ref_count(range->mirror->counters, exclusive, 1);
	}
	hmm_ref_range_trim(range);
	mutex_unlock(&range->lock);
	hmm_ref_hw_exit(dm, section);
	return rc;
}

/*
 * One attempt on a page that has just been faulted in for writing. Return: 0;
 * -EBUSY if it has changed since, so fault again; -EFAULT if the core cannot
 * fault the page in, which includes a page that was taken away before the
 * sequence was read and needs the handler of a userfaultfd; or a final errno.
 */
static int map_exclusive(struct hmm_ref_range *range, unsigned long addr)
{
	struct folio *folio;
	struct page *page;
	unsigned long seq;
	int rc;

	rc = hmm_ref_range_prepare(range, false, true);
	if (rc)
		return rc;
	seq = mmu_interval_read_begin(&range->notifier);
	page = take_page(range->mirror->mm, addr, range->mirror, &folio);
	if (IS_ERR(page)) {
		trim(range);
		if (page == ERR_PTR(-EFAULT) &&
		    mmu_interval_check_retry(&range->notifier, seq))
			return -EBUSY;
		return PTR_ERR(page);
	}

	rc = map_taken(range, addr, page, seq);
	folio_unlock(folio);
	folio_put(folio);
	return rc;
}

struct exclusive {
	unsigned long addr;
	unsigned int retries;
	unsigned int refused;	/* consecutive -EFAULT of the core */
};

/*
 * One attempt: fault, and take the page if the fault is not enough. Return: 0,
 * -EBUSY, or an errno.
 */
static int make_ready_once(struct hmm_ref_range *range, void *arg)
{
	struct exclusive *excl = arg;
	int rc;

	/* A fault would take the page from a thread that does the same. */
	if (page_is_ready(range, excl->addr))
		return 0;
	rc = hmm_ref_range_fault(range, excl->addr, excl->addr + PAGE_SIZE,
				 true, HMM_REF_PATIENCE);
	if (rc || page_is_ready(range, excl->addr))
		return rc;
	rc = map_exclusive(range, excl->addr);
	/* Refused twice in a row without a change: the fault does not help. */
	excl->refused = rc == -EFAULT ? excl->refused + 1 : 0;
	if (excl->refused > 1 || (rc != -EBUSY && rc != -EFAULT))
		return rc;
	hmm_ref_count(range->mirror->counters, retries, 1);
	atomic_long_inc(&range->mirror->owner->retries);
	trace_hmm_ref_retry(range->mirror->dm, HMM_REF_RETRY_EXCLUSIVE,
			    excl->addr, ++excl->retries);
	return -EBUSY;
}

/**
 * hmm_ref_range_make_ready() - make a page ready for atomics of the device
 * @range: range of the current process, or of an mm that the caller keeps alive
 * @addr: page address in it
 *
 * The page may be taken back before this returns.
 *
 * Context: process context; takes mmap_lock and folio locks.
 * Return: 0 or -errno.
 */
int hmm_ref_range_make_ready(struct hmm_ref_range *range, unsigned long addr)
{
	struct exclusive excl = { .addr = addr };

	return hmm_ref_range_retry(range, HMM_REF_PATIENCE, make_ready_once,
				   &excl);
}

/*
 * Fault in a whole window at once, which spares each page its own fault.
 * Return: the end of the pages faulted in: @start on failure, and then each
 * page finds its own error.
 */
static unsigned long dev_fault_ahead(struct hmm_ref_range *range,
				     unsigned long start, unsigned long end)
{
	int rc;

	end = hmm_ref_range_before_exclusive(range, start, end);
	if (end == start)
		return start;
	rc = hmm_ref_range_fault(range, start, end, true,
				 HMM_REF_PATIENCE / 10);
	return rc ? start : end;
}

/* Work on one window. Adds to @done. Return: 0 or -errno. */
static int exclusive_window(struct hmm_ref_range *range, unsigned long addr,
			    unsigned long end, unsigned long *done)
{
	unsigned long began = jiffies;
	unsigned long faulted = addr;
	unsigned long checked = addr;
	int rc = 0;

	while (!rc) {
		if (addr >= checked) {
			checked = end;
			rc = hmm_ref_range_check_exclusive(range, addr,
							   &checked);
			if (rc)
				break;
			faulted = dev_fault_ahead(range, addr, checked);
		}
		if (!page_is_ready(range, addr) &&
		    (addr >= faulted || map_exclusive(range, addr)))
			rc = hmm_ref_range_make_ready(range, addr);
		if (rc)
			break;
		++*done;
		addr += PAGE_SIZE;
		if (addr == end)
			break;
		rc = hmm_ref_mirror_insist(range->mirror, began,
					   MAX_JIFFY_OFFSET);
	}
	return rc;
}

/**
 * hmm_ref_mirror_exclusive() - give the device exclusive access to pages
 * @mirror: mirror of the current process, or of an mm that the caller keeps
 *	alive
 * @start: page address
 * @end: page address, exclusive
 * @done: set to the number of pages starting at @start that are now exclusive
 *	or need not be, also on error
 *
 * Context: process context; takes mmap_lock and folio locks.
 * Return: 0 or -errno.
 */
int hmm_ref_mirror_exclusive(struct hmm_ref_mirror *mirror, unsigned long start,
			     unsigned long end, unsigned long *done)
{
	int rc = 0;

	*done = 0;
	while (!rc && start < end) {
		struct hmm_ref_range *range = hmm_ref_range_get(mirror, start);
		unsigned long next;

		if (IS_ERR(range))
			return PTR_ERR(range);
		next = min(end, range->start + PMD_SIZE);
		rc = exclusive_window(range, start, next, done);
		hmm_ref_range_put(range);
		start = next;
		if (!rc && start < end)
			rc = hmm_ref_mirror_interrupted(mirror);
	}
	return rc;
}
