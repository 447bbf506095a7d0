/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What all layers need: the kernel as it should be, the unit of device memory, patience.
 */
#ifndef _HMM_REF_BASE_H
#define _HMM_REF_BASE_H

#include <linux/bits.h>
#include <linux/mm.h>
#include <linux/types.h>

/* Older kernels, and bugs of the core: a driver for today's kernel deletes that folder. */
#if __has_include("compat/compat.h")
#include "compat/compat.h"
#else
#include <kunit/visibility.h>
#define HMM_REF_LARGE_IS_SAFE		true
#define HMM_REF_CORE_IS_FIXED		true
#define hmm_ref_pagemap_folio_free	hmm_ref_devmem_folio_free
#define hmm_ref_folio_pgmap(folio)	((folio)->pgmap)
#endif

/* A block is what one PMD maps, so a PMD folio is exactly one block. */
#define HMM_REF_BLOCK_ORDER	(PMD_SHIFT - PAGE_SHIFT)
#define HMM_REF_BLOCK_PAGES	BIT(HMM_REF_BLOCK_ORDER)

/* How long an operation insists on a range that keeps changing, in jiffies. */
#define HMM_REF_PATIENCE	(3 * HZ)

/* How long it does so with a signal pending that is not fatal. */
#define HMM_REF_SIGNAL_PATIENCE	(HZ / 10)

/* Without progress for so long, pages are lost, or the system does not sleep. */
#define HMM_REF_GIVE_UP		(10UL * HZ)

/* How long a device that goes has for a batch of copies, before it is reset. */
#define HMM_REF_LAST_PATIENCE	(2UL * HZ)

#endif /* _HMM_REF_BASE_H */
