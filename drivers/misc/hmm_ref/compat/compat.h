/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Names that Linux 6.12 lacks, and workarounds for bugs of the core that
 * patches/core fixes. A driver for today's kernel deletes this folder.
 *
 * Each function of the core that has a bug is replaced by a function of this
 * folder that calls it, so the rest of the driver reads as if the core were
 * correct. The build of a kernel with patches/core creates
 * linux/hmm_ref_core.h, which says what is fixed.
 * Documentation/misc-devices/hmm_ref/core-traps.rst describes the bugs.
 */
#ifndef _HMM_REF_COMPAT_H
#define _HMM_REF_COMPAT_H

#include <linux/hmm.h>
#include <linux/memremap.h>
#include <linux/migrate.h>
#include <linux/version.h>
#include <kunit/visibility.h>

#if __has_include("linux/hmm_ref_core.h")
#include <linux/hmm_ref_core.h>
#endif

#if LINUX_VERSION_CODE < KERNEL_VERSION(7, 0, 0)
#include "linux-6.12.h"
#endif

/* Present in later stable releases of 6.12. */
#ifndef kzalloc_obj
#define kzalloc_obj(obj, gfp)	kzalloc(sizeof(obj), gfp)
#endif

/*
 * Large folios are safe if zap_huge_pmd() can tell a migration entry of a
 * device folio from a device private entry, and migrate_vma_setup() splits a
 * folio for a CPU fault.
 */
#if defined(HMM_REF_CORE_ZAPS_BY_ENTRY) && \
	defined(HMM_REF_CORE_FOLLOWS_FAULT_PAGE) && \
	defined(HMM_REF_CORE_SPLITS_FOR_FAULT)
#define HMM_REF_LARGE_IS_SAFE	true
#else
#define HMM_REF_LARGE_IS_SAFE	false
#endif

/* Includes bugs that no driver can work around; tests check for this. */
#if defined(HMM_REF_CORE_LEAVES_KSM) && \
	defined(HMM_REF_CORE_UNCOUNTS_MLOCKED) && \
	defined(HMM_REF_CORE_CLEARS_FLAGS) && \
	defined(HMM_REF_CORE_MEMORY_FAILURE) && \
	defined(HMM_REF_CORE_DRAINS_MLOCK) && \
	defined(HMM_REF_CORE_NUMBERS_PMD) && \
	defined(HMM_REF_CORE_FAULTS_READ_ONLY) && \
	defined(HMM_REF_CORE_HUGETLB_NO_PFN) && \
	defined(HMM_REF_CORE_SCAN_PROTECTS) && \
	defined(HMM_REF_CORE_CLEAR_REFS_PROTECTS) && \
	defined(HMM_REF_CORE_KEEPS_SOFT_DIRTY) && \
	defined(HMM_REF_CORE_ZERO_STAYS_PROTECTED) && \
	defined(HMM_REF_CORE_ZAPS_BY_ENTRY) && \
	defined(HMM_REF_CORE_FOLLOWS_FAULT_PAGE) && \
	defined(HMM_REF_CORE_SPLITS_FOR_FAULT) && \
	defined(HMM_REF_CORE_DEVICE_KEEPS_ANON_VMA) && \
	defined(HMM_REF_CORE_COLLECTS_LOCKED_FOLIOS) && \
	defined(HMM_REF_CORE_SKIPS_MOVED_FOLIOS) && \
	defined(HMM_REF_CORE_DEVICE_SPLITS) && \
	defined(HMM_REF_CORE_SPLITS_FOR_OTHERS) && \
	defined(HMM_REF_CORE_FAULTS_ONLY_MISSING) && \
	defined(HMM_REF_CORE_REFUSES_SECRETMEM) && \
	defined(HMM_REF_CORE_FOREIGN_PMD_IS_ABSENT) && \
	defined(HMM_REF_CORE_MOVE_WAITS_OUTSIDE) && \
	defined(HMM_REF_CORE_GOES_ON_AFTER_SPLIT) && \
	defined(HMM_REF_CORE_UNSHARES_DIRTY)
#define HMM_REF_CORE_IS_FIXED	true
#else
#define HMM_REF_CORE_IS_FIXED	false
#endif

/* setup.c */
#if !defined(HMM_REF_CORE_LEAVES_KSM) || \
	!defined(HMM_REF_CORE_ZERO_STAYS_PROTECTED) || \
	!defined(HMM_REF_CORE_GOES_ON_AFTER_SPLIT)
#define HMM_REF_COMPAT_SETUP
int hmm_ref_compat_migrate_vma_setup(struct migrate_vma *args);
#define migrate_vma_setup(args)	hmm_ref_compat_migrate_vma_setup(args)
#endif

/* evict.c, which overrides a weak function of the driver */
#if !defined(HMM_REF_CORE_DEVICE_KEEPS_ANON_VMA) || \
	!defined(HMM_REF_CORE_COLLECTS_LOCKED_FOLIOS) || \
	!defined(HMM_REF_CORE_SKIPS_MOVED_FOLIOS) || \
	!defined(HMM_REF_CORE_DEVICE_SPLITS) || \
	!defined(HMM_REF_CORE_SPLITS_FOR_OTHERS) || \
	!defined(HMM_REF_CORE_DRAINS_MLOCK)
#define HMM_REF_COMPAT_EVICT
#endif

/* range_fault.c */
#if !defined(HMM_REF_CORE_NUMBERS_PMD) || \
	!defined(HMM_REF_CORE_HUGETLB_NO_PFN) || \
	!defined(HMM_REF_CORE_SCAN_PROTECTS) || \
	!defined(HMM_REF_CORE_FAULTS_READ_ONLY) || \
	!defined(HMM_REF_CORE_FAULTS_ONLY_MISSING) || \
	!defined(HMM_REF_CORE_REFUSES_SECRETMEM) || \
	!defined(HMM_REF_CORE_FOREIGN_PMD_IS_ABSENT)
#define HMM_REF_COMPAT_RANGE_FAULT
int hmm_ref_compat_range_fault(struct hmm_range *range);
#define hmm_range_fault(range)	hmm_ref_compat_range_fault(range)
int hmm_ref_compat_range_fault_unlocked(struct hmm_range *range,
					unsigned long timeout);
#define hmm_range_fault_unlocked_timeout(range, timeout) \
	hmm_ref_compat_range_fault_unlocked(range, timeout)
#endif

/* last_user.c */
#ifndef HMM_REF_CORE_CLEARS_FLAGS
void hmm_ref_compat_folio_init(struct folio *folio, struct dev_pagemap *pagemap,
			       unsigned int order);
#define zone_device_folio_init(folio, pagemap, order) \
	hmm_ref_compat_folio_init(folio, pagemap, order)
#endif
#ifndef HMM_REF_CORE_UNCOUNTS_MLOCKED
void hmm_ref_compat_folio_free(struct folio *folio);
#endif
#if LINUX_VERSION_CODE < KERNEL_VERSION(7, 0, 0)
#define hmm_ref_pagemap_folio_free	hmm_ref_compat_page_free
#elif !defined(HMM_REF_CORE_UNCOUNTS_MLOCKED)
#define hmm_ref_pagemap_folio_free	hmm_ref_compat_folio_free
#else
#define hmm_ref_pagemap_folio_free	hmm_ref_devmem_folio_free
#endif

/* A folio has no such member before 7.0. */
#if LINUX_VERSION_CODE < KERNEL_VERSION(7, 0, 0)
#define hmm_ref_folio_pgmap(folio)	((folio)->page.pgmap)
#else
#define hmm_ref_folio_pgmap(folio)	((folio)->pgmap)
#endif

#endif /* _HMM_REF_COMPAT_H */
