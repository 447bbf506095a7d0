// SPDX-License-Identifier: GPL-2.0-only
/*
 * Snapshots: looking at a process's memory without faulting anything in.
 *
 * hmm_range_fault() without a fault request reports the CPU's mappings. Under
 * range->lock, with the sequence unchanged, the report and the device's
 * mappings form a consistent snapshot. It does not cover mappings without read
 * permission. Where it reports nothing there may be a hole, or a page that is
 * swapped out, on its way, or exclusive to another device: only reported errors
 * can be distinguished further, by the VMA.
 */
#include <linux/hmm.h>

#include "fail.h"
#include "mirror.h"

static unsigned long range_pages(const struct hmm_range *walk)
{
	return (walk->end - walk->start) >> PAGE_SHIFT;
}

/* An error has no page number: store the reason instead. */
static unsigned long explain_error(const struct vm_area_struct *vma,
				   unsigned long addr)
{
	if (!vma || addr < vma->vm_start)
		return HMM_PFN_ERROR | HMM_REF_AT_UNMAPPED;
	if (!(vma->vm_flags & (VM_READ | VM_IO | VM_PFNMAP | VM_MIXEDMAP)))
		return HMM_PFN_ERROR | HMM_REF_AT_UNREADABLE;
	return HMM_PFN_ERROR | HMM_REF_AT_SPECIAL;
}

static void explain_errors(struct mm_struct *mm, const struct hmm_range *walk)
{
	struct vm_area_struct *vma = NULL;
	unsigned long i;

	for (i = 0; i < range_pages(walk); i++) {
		unsigned long addr = walk->start + i * PAGE_SIZE;

		if (!(walk->hmm_pfns[i] & HMM_PFN_ERROR))
			continue;
		if (!vma || addr >= vma->vm_end)
			vma = find_vma(mm, addr);
		walk->hmm_pfns[i] = explain_error(vma, addr);
	}
}

/* Return: 0, -EINTR, or -EBUSY if the range has changed. */
static int walk_and_explain(struct hmm_ref_range *range, struct hmm_range *walk)
{
	struct mm_struct *mm = range->mirror->mm;
	int rc;

	hmm_ref_range_walk_begin(range, walk);
	if (mmap_read_lock_killable(mm))
		return -EINTR;
	rc = hmm_ref_range_walk_locked(range, walk);
	if (!rc)
		explain_errors(mm, walk);
	mmap_read_unlock(mm);
	return rc;
}

static int look_once(struct hmm_ref_range *range, void *arg)
{
	struct hmm_range *walk = arg;
	int rc;

	rc = walk_and_explain(range, walk);
	if (rc)
		return rc;
	mutex_lock(&range->lock);
	if (!mmu_interval_read_retry(&range->notifier, walk->notifier_seq) &&
	    !hmm_ref_fail(HMM_REF_FAIL_RETRY))
		return 0;
	mutex_unlock(&range->lock);
	return -EBUSY;
}

/*
 * Look at the CPU's mappings in a window. Return: 0 with range->lock held, and
 * the result holds until that is dropped; or an errno.
 */
static int look_locked(struct hmm_ref_range *range, struct hmm_range *walk)
{
	return hmm_ref_range_retry(range, HMM_REF_PATIENCE, look_once, walk);
}

/* Only HMM_PFN_VALID proves that the core reports a page. */
static inline struct page *seen_page(unsigned long hmm_pfn)
{
	return hmm_pfn & HMM_PFN_VALID ? hmm_pfn_to_page(hmm_pfn) : NULL;
}

/*
 * True if NUMA balancing or a userfaultfd traps the next access to a page.
 * Nothing but the number in its entry is known.
 */
static inline bool is_trapped(unsigned long hmm_pfn)
{
	return !(hmm_pfn & (HMM_PFN_VALID | HMM_PFN_ERROR)) &&
	       hmm_pfn & ~HMM_PFN_FLAGS;
}

/* The block of @dm that a page is in, or NULL. The caller keeps the page. */
static struct hmm_ref_block *block_of(struct hmm_ref_devmem *dm,
				      unsigned long hmm_pfn)
{
	struct page *page = seen_page(hmm_pfn);
	struct hmm_ref_chunk *chunk = page ? hmm_ref_own_chunk(dm, page) : NULL;

	if (!chunk)
		return NULL;
	return hmm_ref_devmem_block(dm, hmm_ref_chunk_dpfn(chunk, page));
}

/**
 * hmm_ref_mirror_resident() - find the pages of a window that are on the device
 * @mirror: mirror of the current process, or of an mm that the caller keeps
 *	alive
 * @start: page address
 * @end: page address in the same PMD, or its end; exclusive
 * @pfns: scratch memory, an element per page; set to the device page numbers of
 *	the pages on the device
 * @resident: set to the number of pages on the device
 *
 * A snapshot: pages may move before this returns.
 *
 * Context: takes mmap_lock.
 * Return: 0, -EINTR, -ENODEV, -ENOMEM or -EBUSY.
 */
int hmm_ref_mirror_resident(struct hmm_ref_mirror *mirror, unsigned long start,
			    unsigned long end, unsigned long *pfns,
			    unsigned long *resident)
{
	struct hmm_ref_range temporary;
	struct hmm_ref_range *range =
		hmm_ref_range_get_to_look(mirror, start, &temporary);
	struct hmm_range walk = {
		.start = start,
		.end = end,
		.hmm_pfns = pfns,
		.dev_private_owner = mirror->dm->pgmap_owner,
	};
	unsigned long i;
	int rc;

	*resident = 0;
	if (IS_ERR(range))
		return PTR_ERR(range);
	walk.notifier = &range->notifier;
	rc = look_locked(range, &walk);
	if (rc)
		goto out;
	for (i = 0; i < range_pages(&walk); i++) {
		struct page *page = seen_page(pfns[i]);

		if (page && hmm_ref_owns(mirror->dm, page))
			pfns[(*resident)++] = hmm_ref_page_dpfn(page);
	}
	mutex_unlock(&range->lock);
out:
	hmm_ref_range_put_to_look(range, &temporary);
	return rc;
}

/* Count pages on a device, and make its eviction prefer other blocks. */
static unsigned long spare_resident(struct hmm_ref_devmem *dm,
				    const struct hmm_range *walk)
{
	struct hmm_ref_block *last = NULL;
	unsigned long resident = 0;
	unsigned long i;

	for (i = 0; i < range_pages(walk); i++) {
		struct hmm_ref_block *block = block_of(dm, walk->hmm_pfns[i]);

		resident += !!block;
		if (block && block != last)
			hmm_ref_devmem_touch(dm, block);
		last = block;
	}
	return resident;
}

/**
 * hmm_ref_range_peek() - count pages that are on a device, by a single look
 * @dm: memory of the device, or of another one that stays during the call
 * @range: range of the current process, or of an mm that the caller keeps alive
 * @start: page address
 * @end: page address, at most a window after @start, and in the same VMA
 * @pfns: scratch memory, an element per page
 *
 * Does not retry: a task that changes the range may be waiting for mmap_lock.
 *
 * Context: mmap_lock held for read.
 * Return: number of pages; 0 if the range has changed.
 */
unsigned long hmm_ref_range_peek(struct hmm_ref_devmem *dm,
				 struct hmm_ref_range *range,
				 unsigned long start, unsigned long end,
				 unsigned long *pfns)
{
	struct hmm_range walk = {
		.notifier = &range->notifier,
		.start = start,
		.end = end,
		.hmm_pfns = pfns,
		.dev_private_owner = dm->pgmap_owner,
	};
	unsigned long resident = 0;

	hmm_ref_range_walk_begin(range, &walk);
	if (hmm_ref_range_walk_locked(range, &walk))
		return 0;
	/* The pages stay as long as none can be invalidated. */
	mutex_lock(&range->lock);
	if (!mmu_interval_read_retry(&range->notifier, walk.notifier_seq) &&
	    !hmm_ref_fail(HMM_REF_FAIL_RETRY))
		resident = spare_resident(dm, &walk);
	mutex_unlock(&range->lock);
	return resident;
}

static struct hmm_ref_seen see(const struct hmm_ref_mirror *mirror,
			       hmm_ref_pte_t pte, unsigned long hmm_pfn)
{
	struct hmm_ref_seen seen = { .pte = pte & HMM_REF_PTE_BITS };
	struct page *page = seen_page(hmm_pfn);

	if (hmm_pfn & HMM_PFN_ERROR)
		return (struct hmm_ref_seen){ .at = hmm_pfn & ~HMM_PFN_FLAGS };
	/* The page may have become exclusive since the CPU was looked at. */
	if (pte & HMM_REF_PTE_EXCLUSIVE) {
		seen.at = HMM_REF_AT_SYSTEM;
		return seen;
	}
	if (!page) {
		/* Only the device page table shows exclusive access. */
		if (pte & HMM_REF_PTE_VALID)
			seen.at = HMM_REF_AT_SYSTEM;
		else if (is_trapped(hmm_pfn))
			seen.at = HMM_REF_AT_TRAPPED;
		return seen;
	}

	if (!is_zone_device_page(page))
		seen.at = is_zero_pfn(page_to_pfn(page)) ? HMM_REF_AT_ZERO :
							   HMM_REF_AT_SYSTEM;
	else if (hmm_ref_owns(mirror->dm, page))
		seen.at = HMM_REF_AT_DEVICE;
	else if (is_device_coherent_page(page))
		seen.at = HMM_REF_AT_REMOTE;
	else
		seen.at = HMM_REF_AT_SYSTEM;
	seen.order = hmm_pfn_to_map_order(hmm_pfn);
	seen.writable = hmm_pfn & HMM_PFN_WRITE;
	return seen;
}

/*
 * Look at a window at one moment. Works in place: a result is never stored over
 * an element of hmm_range_fault()'s array that is still to be read.
 *
 * Return: 0; -EAGAIN if the mirror has gained a range in the meantime, with
 * mappings that the temporary one does not know about; or an errno.
 */
static int snapshot_once(struct hmm_ref_mirror *mirror, unsigned long start,
			 unsigned long end, unsigned long *pfns)
{
	struct hmm_ref_range temporary;
	struct hmm_ref_range *range =
		hmm_ref_range_get_to_look(mirror, start, &temporary);
	const unsigned long nr = (end - start) >> PAGE_SHIFT;
	struct hmm_ref_seen *seen = (struct hmm_ref_seen *)pfns;
	struct hmm_range walk = {
		.start = start,
		.end = end,
		.hmm_pfns = pfns,
		.dev_private_owner = mirror->dm->pgmap_owner,
	};
	struct hmm_ref_ptes ptes;
	unsigned long i;
	int rc;

	static_assert(sizeof(*seen) <= sizeof(*pfns));
	if (IS_ERR(range))
		return PTR_ERR(range);
	walk.notifier = &range->notifier;
	rc = look_locked(range, &walk);
	if (rc)
		goto out;
	ptes = hmm_ref_pgtable_look(&range->pt);
	for (i = 0; i < nr; i++)
		seen[i] = see(mirror,
			      hmm_ref_pte_at(&ptes, start + i * PAGE_SIZE),
			      pfns[i]);
	rc = hmm_ref_range_is_current(range, &temporary) ? 0 : -EAGAIN;
	mutex_unlock(&range->lock);
out:
	hmm_ref_range_put_to_look(range, &temporary);
	return rc;
}

/* A new range stays for longer than a look takes. Return: 0 or an errno. */
static int snapshot_window(struct hmm_ref_mirror *mirror, unsigned long start,
			   unsigned long end, unsigned long *pfns)
{
	int rc;

	do {
		rc = snapshot_once(mirror, start, end, pfns);
	} while (rc == -EAGAIN);
	return rc;
}

/**
 * hmm_ref_mirror_look() - take a snapshot of an address range
 * @mirror: mirror of the current process, or of an mm that the caller keeps
 *	alive
 * @start: page address
 * @end: page address, exclusive
 * @report: called for each window with an element per page, which it may
 *	overwrite; a result other than 0 ends the search
 * @arg: argument of @report
 *
 * Each window is consistent in itself; the windows are looked at one after the
 * other. Addresses without page tables are looked at together.
 *
 * Context: process context; takes mmap_lock. @report may sleep.
 * Return: 0, the result of @report, or -errno.
 */
int hmm_ref_mirror_look(struct hmm_ref_mirror *mirror, unsigned long start,
			unsigned long end, hmm_ref_report_t report, void *arg)
{
	unsigned long *pfns = hmm_ref_mirror_get_buffer(mirror);
	struct hmm_ref_seen *seen = (struct hmm_ref_seen *)pfns;
	unsigned long present = start;
	unsigned long addr = start;
	int rc = 0;

	if (!pfns)
		return -ENOMEM;
	while (!rc && addr < end) {
		unsigned long next = min(end, ALIGN(addr + 1, PMD_SIZE));
		unsigned long nr = (next - addr) >> PAGE_SHIFT;

		if (addr >= present)
			rc = hmm_ref_mirror_next_present(mirror, addr, end,
							 VM_READ, &present);
		if (!rc && next <= present)
			memset(seen, HMM_REF_AT_ABSENT, nr * sizeof(*seen));
		else if (!rc)
			rc = snapshot_window(mirror, addr, next, pfns);
		if (!rc)
			rc = report(arg, seen, nr);
		if (!rc && next < end)
			rc = hmm_ref_mirror_interrupted(mirror);
		addr = next;
	}
	hmm_ref_mirror_put_buffer(mirror, pfns);
	return rc;
}
