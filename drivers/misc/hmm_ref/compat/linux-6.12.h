/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Names of today's kernel, for Linux 6.12. There, device folios are single
 * pages, folio_free is called page_free, and migrate_to_ram() is called without
 * the page lock. Documentation/misc-devices/hmm_ref/porting-reference.rst
 * says what that changes for users and for drivers.
 */
#ifndef _HMM_REF_COMPAT_LINUX_6_12_H
#define _HMM_REF_COMPAT_LINUX_6_12_H

#include <linux/gfp.h>
#include <linux/mmu_notifier.h>
#include <linux/module.h>
#include <linux/pagemap.h>
#include <linux/rmap.h>
#include <linux/sched/signal.h>
#include <linux/userfaultfd_k.h>
#include <linux/vmalloc.h>

/* Since 6.13 these take the namespace as a string. */
#undef MODULE_IMPORT_NS
#define MODULE_IMPORT_NS(ns)	MODULE_INFO(import_ns, ns)
#undef EXPORT_SYMBOL_NS_GPL
#define EXPORT_SYMBOL_NS_GPL(sym, ns)	__EXPORT_SYMBOL(sym, "GPL", ns)

static inline struct dev_pagemap *page_pgmap(const struct page *page)
{
	return page->pgmap;
}

static inline void zone_device_folio_init(struct folio *folio,
					  struct dev_pagemap *pgmap,
					  unsigned int order)
{
	zone_device_page_init(folio_page(folio, 0));
}

/* Large folios cannot be requested, so no entry is one. */
#define MIGRATE_VMA_SELECT_COMPOUND	0
#define MIGRATE_PFN_COMPOUND		0

#define unrolled_full

#define vma_thp_disabled(vma, vm_flags, collapse)	true

static inline struct folio *hmm_ref_vma_alloc_folio(gfp_t gfp, int order,
						    struct vm_area_struct *vma,
						    unsigned long addr)
{
	return vma_alloc_folio(gfp, order, vma, addr, false);
}

#undef vma_alloc_folio
#define vma_alloc_folio		hmm_ref_vma_alloc_folio

#define userfaultfd_rwp(vma)	false

#define system_percpu_wq	system_wq
#define system_dfl_wq		system_unbound_wq
#define WQ_PERCPU		0

#define FOLIO_MAPPING_ANON	PAGE_MAPPING_ANON
#define FOLIO_MAPPING_FLAGS	PAGE_MAPPING_FLAGS

static inline pgoff_t vma_start_anon_pgoff(const struct vm_area_struct *vma)
{
	return vma->vm_pgoff;
}

#define list_last_entry_or_null(head, type, member)	\
	(list_empty(head) ? NULL : list_last_entry(head, type, member))

#define vmalloc_huge_node(size, gfp, node)	vmalloc_huge(size, gfp)

/*
 * hmm_range_fault() cannot drop mmap_lock to wait for the handler of a
 * userfaultfd. So pages that need the handler are first faulted in by an
 * ordinary fault, one at a time. Return: 0 if no page needs it, -EBUSY to start
 * again, or an errno.
 */
static inline int hmm_ref_compat_ask(struct hmm_range *range, bool *unlocked)
{
	bool write = range->default_flags & HMM_PFN_REQ_WRITE;
	unsigned long needed = HMM_PFN_VALID | (write ? HMM_PFN_WRITE : 0);
	struct mm_struct *mm = range->notifier->mm;
	unsigned long addr = range->start;
	struct hmm_range look = *range;
	unsigned long pfn = needed;
	int rc = 0;

	look.hmm_pfns = &pfn;
	look.default_flags = 0;
	while (addr < range->end && (pfn & needed) == needed) {
		struct vm_area_struct *vma = vma_lookup(mm, addr);

		if (!vma)
			return 0;
		if (!userfaultfd_armed(vma)) {
			addr = vma->vm_end;
			continue;
		}
		look.start = addr;
		look.end = addr + PAGE_SIZE;
		rc = hmm_range_fault(&look);
		if (rc)
			return rc;
		addr += PAGE_SIZE;
	}
	if ((pfn & needed) == needed)
		return 0;
	rc = fixup_user_fault(mm, look.start, write ? FAULT_FLAG_WRITE : 0,
			      unlocked);
	if (rc)
		return rc == -EINTR ? -EINTR : -EFAULT;
	return -EBUSY;
}

static inline int hmm_range_fault_unlocked_timeout(struct hmm_range *range,
						   unsigned long timeout)
{
	struct mm_struct *mm = range->notifier->mm;
	unsigned long deadline = jiffies + timeout;
	int rc;

	do {
		bool unlocked = false;

		range->notifier_seq = mmu_interval_read_begin(range->notifier);
		if (mmap_read_lock_killable(mm))
			return -EINTR;
		rc = hmm_ref_compat_ask(range, &unlocked);
		if (!rc)
			rc = hmm_range_fault(range);
		mmap_read_unlock(mm);
		if (rc != -EBUSY)
			return rc;
		if (fatal_signal_pending(current))
			return -EINTR;
		if (unlocked)
			deadline = jiffies + timeout;
		cond_resched();
	} while (time_before(jiffies, deadline));
	return -EBUSY;
}

/* True if a page that has just been faulted in belongs to a large folio. */
static inline bool hmm_ref_compat_in_large(struct mm_struct *mm,
					   unsigned long addr)
{
	struct page *page;
	bool large;

	if (get_user_pages_remote(mm, addr, 1, FOLL_GET | FOLL_WRITE, &page,
				  NULL) != 1)
		return false;
	large = PageCompound(page);
	put_page(page);
	return large;
}

/* Setup of a migration splits a large folio. */
static inline void hmm_ref_compat_split(struct mm_struct *mm,
					unsigned long addr)
{
	unsigned long src = 0, dst = 0;
	struct migrate_vma args = {
		.vma = vma_lookup(mm, addr),
		.start = addr,
		.end = addr + PAGE_SIZE,
		.src = &src,
		.dst = &dst,
		.flags = MIGRATE_VMA_SELECT_SYSTEM,
	};

	if (migrate_vma_setup(&args))
		return;
	migrate_vma_pages(&args);
	migrate_vma_finalize(&args);
}

/*
 * The core refuses all but the first page of a large folio, so split it. That
 * event makes the caller start again. A folio that no PMD maps any more is not
 * split here: -EBUSY, as for a page that another task has locked.
 */
static inline struct page *make_device_exclusive(struct mm_struct *mm,
						 unsigned long addr,
						 void *owner,
						 struct folio **foliop)
{
	struct page *page = NULL;
	int rc;

	if (hmm_ref_compat_in_large(mm, addr)) {
		hmm_ref_compat_split(mm, addr);
		return ERR_PTR(-EBUSY);
	}
	rc = make_device_exclusive_range(mm, addr, addr + PAGE_SIZE, &page,
					 owner);
	if (rc < 0)
		return ERR_PTR(rc);
	if (!page)
		return ERR_PTR(-EBUSY);
	*foliop = page_folio(page);
	return page;
}

/* The callback of the pagemap takes a page. */
void hmm_ref_compat_folio_free(struct folio *folio);

static inline void hmm_ref_compat_page_free(struct page *page)
{
	hmm_ref_compat_folio_free(page_folio(page));
}

#define folio_free	page_free

#endif /* _HMM_REF_COMPAT_LINUX_6_12_H */
