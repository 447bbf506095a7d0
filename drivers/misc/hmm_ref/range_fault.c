// SPDX-License-Identifier: GPL-2.0-only
/*
 * The device fault: look at the CPU's mappings, fault in missing pages, and map
 * the pages for the device. mirror.c describes the protocol.
 *
 * The device may write to a page only if the CPU's entry is writable; a page
 * that fork() has made read-only is copied first. A page is marked dirty when
 * it is mapped for writing, not when the device writes to it. That is enough,
 * because the device's entry is zapped before the CPU's entry is cleaned.
 */
#include <linux/hmm.h>
#include <linux/pagemap.h>
#include <linux/sched/mm.h>

#include "fail.h"
#include "mirror.h"
#include "sanity.h"
#include "trace.h"

static unsigned long range_pages(const struct hmm_range *walk)
{
	return (walk->end - walk->start) >> PAGE_SHIFT;
}

/* Whatever the entries say, a device must not write to a shadow stack. */
static void hide_shadow_stacks(struct mm_struct *mm,
			       const struct hmm_range *walk)
{
	VMA_ITERATOR(vmi, mm, walk->start);
	struct vm_area_struct *vma;
	unsigned long addr, end;

	for_each_vma_range(vmi, vma, walk->end) {
		if (hmm_ref_vma_may_write(vma))
			continue;
		end = min(walk->end, vma->vm_end);
		for (addr = max(walk->start, vma->vm_start); addr < end;
		     addr += PAGE_SIZE)
			walk->hmm_pfns[(addr - walk->start) >> PAGE_SHIFT] &=
				~HMM_PFN_WRITE;
	}
}

/* hmm_range_fault() would allow it. Return: 0, -EPERM or -EINTR. */
static int refuse_shadow_stacks(struct mm_struct *mm, unsigned long start,
				unsigned long end)
{
	VMA_ITERATOR(vmi, mm, start);
	struct vm_area_struct *vma;
	int rc = 0;

	if (mmap_read_lock_killable(mm))
		return -EINTR;
	for_each_vma_range(vmi, vma, end) {
		if (vma->vm_flags & VM_SHADOW_STACK)
			rc = -EPERM;
	}
	mmap_read_unlock(mm);
	return rc;
}

/**
 * hmm_ref_range_walk_begin() - prepare for hmm_range_fault() without faults
 * @range: range of an mm that is alive
 * @walk: walk to prepare: its array is cleared and its sequence set
 *
 * hmm_range_fault() keeps some bits of the array, so it must start from zeros.
 *
 * Context: waits for running invalidations, so best called without mmap_lock.
 */
void hmm_ref_range_walk_begin(struct hmm_ref_range *range,
			      struct hmm_range *walk)
{
	memset(walk->hmm_pfns, 0, range_pages(walk) * sizeof(*walk->hmm_pfns));
	walk->notifier_seq = mmu_interval_read_begin(&range->notifier);
}

/**
 * hmm_ref_range_walk_locked() - look at the CPU's mappings, with mmap_lock held
 * @range: range of an mm that is alive
 * @walk: prepared walk
 *
 * Context: mmap_lock held; takes hmm_ref_range::lock.
 * Return: 0, or -EBUSY if the range has changed.
 */
int hmm_ref_range_walk_locked(struct hmm_ref_range *range,
			      struct hmm_range *walk)
{
	int rc = hmm_range_fault(walk);

	if (!rc)
		hide_shadow_stacks(range->mirror->mm, walk);
	return rc;
}

/**
 * hmm_ref_range_walk() - look at the CPU's mappings
 * @range: range of an mm that is alive
 * @walk: walk with its array set
 *
 * Context: takes mmap_lock.
 * Return: 0, -EINTR, or -EBUSY if the range has changed.
 */
int hmm_ref_range_walk(struct hmm_ref_range *range, struct hmm_range *walk)
{
	struct mm_struct *mm = range->mirror->mm;
	int rc;

	hmm_ref_range_walk_begin(range, walk);
	if (mmap_read_lock_killable(mm))
		return -EINTR;
	rc = hmm_ref_range_walk_locked(range, walk);
	mmap_read_unlock(mm);
	return rc;
}

static bool suffices(unsigned long hmm_pfn, bool write)
{
	return hmm_pfn & HMM_PFN_VALID && (!write || hmm_pfn & HMM_PFN_WRITE);
}

/* True if memory of one of these pages has failed. Only own pages count. */
static bool any_lost(struct hmm_ref_range *range, unsigned long hmm_pfn,
		     unsigned int nr)
{
	struct page *page = hmm_pfn_to_page(hmm_pfn);
	const struct hmm_ref_chunk *chunk;
	unsigned long dpfn;

	if (likely(!READ_ONCE(range->mirror->dm->any_lost)))
		return false;
	chunk = hmm_ref_own_chunk(range->mirror->dm, page);
	if (!chunk)
		return false;
	dpfn = ALIGN_DOWN(hmm_ref_chunk_dpfn(chunk, page), nr);
	return hmm_ref_devmem_any_lost(range->mirror->dm, dpfn, nr);
}

/*
 * Count own pages that a device write finds read-only: their data is about to
 * be copied. The lock keeps the pages from going away. Return: 0, or -EIO if
 * the data of one is lost.
 */
static int begin_cow_breaks(struct hmm_ref_range *range,
			    const struct hmm_range *walk)
{
	unsigned long i;
	int rc = 0;

	mutex_lock(&range->lock);
	if (mmu_interval_read_retry(&range->notifier, walk->notifier_seq))
		goto out;
	for (i = 0; i < range_pages(walk); i++) {
		unsigned long hmm_pfn = walk->hmm_pfns[i];

		if (!suffices(hmm_pfn, false) || suffices(hmm_pfn, true) ||
		    !hmm_ref_owns(range->mirror->dm, hmm_pfn_to_page(hmm_pfn)))
			continue;
		hmm_ref_count(range->mirror->counters, cow_breaks, 1);
		if (any_lost(range, hmm_pfn, 1))
			rc = -EIO;
	}
out:
	mutex_unlock(&range->lock);
	return rc;
}

/*
 * Fault in pages that are missing or read-only, from page @first of the range
 * on, as the CPU would: own pages that are shared after fork() are copied to
 * system memory. Return: 0 or an errno.
 */
static int dev_fault_from(struct hmm_ref_range *range,
			  const struct hmm_range *walk, unsigned long first,
			  bool write)
{
	struct hmm_range rest = {
		.notifier = &range->notifier,
		.start = walk->start + first * PAGE_SIZE,
		.end = walk->end,
		.hmm_pfns = walk->hmm_pfns + first,
		.dev_private_owner = walk->dev_private_owner,
		.default_flags = HMM_PFN_REQ_FAULT |
				 (write ? HMM_PFN_REQ_WRITE : 0),
	};
	int rc;

	if (write && VM_SHADOW_STACK) {
		rc = refuse_shadow_stacks(range->mirror->mm, rest.start,
					  rest.end);
		if (rc)
			return rc;
	}
	memset(rest.hmm_pfns, 0, range_pages(&rest) * sizeof(*rest.hmm_pfns));
	/* Only fatal signals end it: bound the time that others wait. */
	return hmm_range_fault_unlocked_timeout(&rest, HMM_REF_SIGNAL_PATIENCE);
}

/* Return: 0 if no page was missing, 1 if some were faulted in, or an errno. */
static int dev_fault_missing(struct hmm_ref_range *range,
			     const struct hmm_range *walk, bool write)
{
	unsigned long first = 0;
	int rc;

	while (first < range_pages(walk) &&
	       suffices(walk->hmm_pfns[first], write))
		first++;
	if (first == range_pages(walk))
		return 0;
	rc = write ? begin_cow_breaks(range, walk) : 0;
	if (!rc)
		rc = dev_fault_from(range, walk, first, write);
	return rc ? rc : 1;
}

/* True if the CPU maps the page by a PMD, so that the device can do the same. */
static bool is_leaf(struct hmm_ref_range *range, unsigned long hmm_pfn)
{
	return hmm_pfn_to_map_order(hmm_pfn) >= HMM_REF_BLOCK_ORDER &&
	       !any_lost(range, hmm_pfn, HMM_REF_BLOCK_PAGES);
}

/* Most folios are dirty already, and the test is cheaper. */
static void make_dirty(struct folio *folio)
{
	if (!folio_test_dirty(folio))
		folio_mark_dirty(folio);
}

/* Preparations that mapping the result of a walk needs. */
struct needs {
	bool leaf;
	bool dma;	/* some pages are not the device's own */
};

/* Context: hmm_ref_range::lock, with an unchanged sequence: the pages stay. */
static struct needs needs_of(struct hmm_ref_range *range,
			     const struct hmm_range *walk)
{
	struct needs needs = { .leaf = is_leaf(range, walk->hmm_pfns[0]) };
	unsigned long nr = needs.leaf ? 1 : range_pages(walk);
	unsigned long i;

	for (i = 0; i < nr && !needs.dma; i++)
		needs.dma = suffices(walk->hmm_pfns[i], false) &&
			    !hmm_ref_owns(range->mirror->dm,
					  hmm_pfn_to_page(walk->hmm_pfns[i]));
	return needs;
}

/*
 * Map the pages that a walk has found. An unchanged sequence proves that the
 * CPU still maps all of them, and range->lock keeps them mapped, so no page
 * references are needed. The prepared room is used or freed.
 *
 * Return: 0, -EBUSY if the walk is stale, -ENOMEM if there is no room for DMA
 * addresses, -ENODEV, or -EIO if the memory of a page has failed; that page is
 * not mapped.
 */
static int map_range(struct hmm_ref_range *range, const struct hmm_range *walk,
		     struct needs needs)
{
	struct hmm_ref_devmem *dm = range->mirror->dm;
	struct hmm_ref_ptes ptes;
	unsigned long i, nr;
	int rc = -EBUSY;
	int section;

	if (!hmm_ref_hw_enter(dm, &section))
		return -ENODEV;
	mutex_lock(&range->lock);
	if (mmu_interval_read_retry(&range->notifier, walk->notifier_seq) ||
	    hmm_ref_fail(HMM_REF_FAIL_RETRY))
		goto out;
	/* Unless memory has failed, the same sequence has the same needs. */
	if (needs.leaf != is_leaf(range, walk->hmm_pfns[0]) ||
	    !hmm_ref_range_is_ready(range, needs.leaf, needs.dma))
		goto out;
	rc = 0;
	ptes = hmm_ref_pgtable_look(&range->pt);
	nr = needs.leaf ? 1 : range_pages(walk);
	for (i = 0; i < nr; i++) {
		unsigned long addr = walk->start + i * PAGE_SIZE;
		unsigned long hmm_pfn = walk->hmm_pfns[i];
		struct page *page = hmm_pfn_to_page(hmm_pfn);
		u64 bits;
		int map_rc;

		if (!suffices(hmm_pfn, false))
			continue;
		/* Exclusive access of other threads keeps the sequence. */
		if (hmm_ref_pte_at(&ptes, addr) & HMM_REF_PTE_EXCLUSIVE)
			continue;
		if (any_lost(range, hmm_pfn, 1)) {
			rc = -EIO;
			continue;
		}
		bits = hmm_pfn & HMM_PFN_WRITE ? HMM_REF_PTE_WRITE : 0;
		map_rc = hmm_ref_range_map(range, addr, page, bits, needs.leaf);
		if (map_rc) {
			rc = map_rc;
			break;
		}
		if (hmm_pfn & HMM_PFN_WRITE)
			make_dirty(page_folio(page));
	}
	hmm_ref_verify_mapped(range, walk->start, walk->end);
out:
	hmm_ref_range_trim(range);
	mutex_unlock(&range->lock);
	hmm_ref_hw_exit(dm, section);
	return rc;
}

/*
 * Prepare for the result of a walk, and map it. Return: same as map_range(), or
 * -EOPNOTSUPP.
 */
static int prepare_and_map(struct hmm_ref_range *range,
			   const struct hmm_range *walk)
{
	struct needs needs = {};
	bool stale;
	int rc;

	mutex_lock(&range->lock);
	stale = mmu_interval_read_retry(&range->notifier, walk->notifier_seq);
	if (!stale)
		needs = needs_of(range, walk);
	mutex_unlock(&range->lock);
	if (stale)
		return -EBUSY;
	rc = hmm_ref_range_prepare(range, needs.leaf, needs.dma);
	return rc ? rc : map_range(range, walk, needs);
}

struct dev_fault {
	struct hmm_range walk;
	bool write;
	unsigned int retries;
};

/*
 * One attempt. A fault on missing pages is followed by another attempt, for a
 * new look. Return: 0, -EBUSY to try again, or -errno.
 */
static int dev_fault_once(struct hmm_ref_range *range, void *arg)
{
	struct dev_fault *fault = arg;
	int rc;

	/* The core would fault on lost pages, and return another errno. */
	if (READ_ONCE(range->mirror->dm->lost))
		return -ENODEV;
	rc = hmm_ref_range_walk(range, &fault->walk);
	if (!rc)
		rc = dev_fault_missing(range, &fault->walk, fault->write);
	if (rc)
		return rc < 0 ? rc : -EBUSY;
	rc = prepare_and_map(range, &fault->walk);
	if (rc == -EBUSY) {
		hmm_ref_count(range->mirror->counters, retries, 1);
		atomic_long_inc(&range->mirror->owner->retries);
		trace_hmm_ref_retry(range->mirror->dm, HMM_REF_RETRY_FAULT,
				    fault->walk.start, ++fault->retries);
	}
	return rc;
}

/**
 * hmm_ref_range_fault() - handle a device fault
 * @range: range of the current process, or of an mm that the caller keeps alive
 * @start: page address
 * @end: page address in the same PMD, exclusive
 * @write: the device will write
 * @patience: how long to retry while the range keeps changing, in jiffies
 *
 * Maps the pages in the device page table. They may be zapped again before this
 * returns. Ends exclusive access to any of them, even by this mirror.
 *
 * Context: process context; takes mmap_lock.
 * Return: 0 or -errno.
 */
int hmm_ref_range_fault(struct hmm_ref_range *range, unsigned long start,
			unsigned long end, bool write, unsigned long patience)
{
	struct hmm_ref_mirror *mirror = range->mirror;
	struct dev_fault fault = {
		.walk = {
			.notifier = &range->notifier,
			.start = start,
			.end = end,
			.hmm_pfns = hmm_ref_mirror_get_buffer(mirror),
			.dev_private_owner = mirror->dm->pgmap_owner,
		},
		.write = write,
	};
	int rc;

	if (!fault.walk.hmm_pfns)
		return -ENOMEM;
	rc = hmm_ref_range_retry(range, patience, dev_fault_once, &fault);
	hmm_ref_mirror_put_buffer(mirror, fault.walk.hmm_pfns);
	hmm_ref_count(mirror->counters, device_faults, 1);
	atomic_long_inc(&mirror->owner->device_faults);
	trace_hmm_ref_device_fault(mirror, start, end, write, rc);
	return rc;
}

static bool none_suffices(const struct hmm_range *walk)
{
	unsigned long i;

	for (i = 0; i < range_pages(walk); i++)
		if (suffices(walk->hmm_pfns[i], false))
			return false;
	return true;
}

/* Map the present pages. Return: 0, -EBUSY, -EINTR, -ENODEV or -ENOMEM. */
static int map_once(struct hmm_ref_range *range, void *arg)
{
	struct hmm_range *walk = arg;
	int rc;

	rc = hmm_ref_range_walk(range, walk);
	if (!rc && none_suffices(walk))
		return 0;
	if (!rc)
		rc = prepare_and_map(range, walk);
	/* Leave lost pages, and unmappable ones, to a device fault. */
	return rc == -EIO || rc == -EOPNOTSUPP ? 0 : rc;
}

/**
 * hmm_ref_mirror_map() - map for the device all pages that the CPU maps
 * @mirror: mirror of the current process, or of an mm that the caller keeps
 *	alive
 * @start: page address
 * @length: bytes, a multiple of the page size
 *
 * Faults nothing in. Pages that cannot be mapped now are left to a device
 * fault. At least one window is tried.
 *
 * Context: process context; takes mmap_lock.
 * Return: 0, -EINTR, -ENODEV or -ENOMEM.
 */
int hmm_ref_mirror_map(struct hmm_ref_mirror *mirror, unsigned long start,
		       unsigned long length)
{
	unsigned long last = start + length;
	struct hmm_range walk = {
		.start = start,
		.hmm_pfns = hmm_ref_mirror_get_buffer(mirror),
		.dev_private_owner = mirror->dm->pgmap_owner,
	};
	int rc = 0;

	if (!walk.hmm_pfns)
		return -ENOMEM;
	while (!rc && walk.start < last) {
		struct hmm_ref_range *range;

		rc = hmm_ref_mirror_next_present(mirror, walk.start, last, 0,
						 &walk.start);
		if (rc || walk.start == last)
			break;
		range = hmm_ref_range_get(mirror, walk.start);
		if (IS_ERR(range)) {
			rc = PTR_ERR(range);
			break;
		}
		walk.notifier = &range->notifier;
		walk.end = min(last, range->start + PMD_SIZE);
		rc = hmm_ref_range_retry(range, HMM_REF_PATIENCE / 10, map_once,
					 &walk);
		hmm_ref_range_put(range);
		walk.start = walk.end;
		if (rc == -EBUSY)
			rc = 0;
		if (!rc && walk.start < last)
			rc = hmm_ref_mirror_interrupted(mirror);
	}
	hmm_ref_mirror_put_buffer(mirror, walk.hmm_pfns);
	return rc;
}

/**
 * hmm_ref_range_before_exclusive() - find the first exclusive page
 * @range: range
 * @start: page address in it
 * @end: page address in it, or its end
 *
 * A fault on an exclusive page would end the exclusive access.
 *
 * Return: address of the first page with exclusive access, or @end.
 */
unsigned long hmm_ref_range_before_exclusive(struct hmm_ref_range *range,
					     unsigned long start,
					     unsigned long end)
{
	struct hmm_ref_ptes ptes;
	unsigned long addr;

	mutex_lock(&range->lock);
	ptes = hmm_ref_pgtable_look(&range->pt);
	for (addr = start; addr < end; addr += PAGE_SIZE) {
		if (hmm_ref_pte_at(&ptes, addr) & HMM_REF_PTE_EXCLUSIVE)
			break;
	}
	mutex_unlock(&range->lock);
	return addr;
}
