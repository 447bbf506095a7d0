/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Definitions for all layers: the unit of device memory, timeouts, and names
 * that not every kernel has.
 */
#ifndef _HMM_REF_BASE_H
#define _HMM_REF_BASE_H

#include <linux/bits.h>
#include <linux/mm.h>
#include <linux/types.h>

/* Older kernels and core bugs. A driver for today's kernel deletes compat/. */
#if __has_include("compat/compat.h")
#include "compat/compat.h"
#else
#include <kunit/visibility.h>
#define HMM_REF_LARGE_IS_SAFE		true
#define HMM_REF_CORE_IS_FIXED		true
#define hmm_ref_pagemap_folio_free	hmm_ref_devmem_folio_free
#define hmm_ref_folio_pgmap(folio)	((folio)->pgmap)
#endif

/* A block is mapped by one PMD, so a PMD folio is exactly one block. */
#define HMM_REF_BLOCK_ORDER	(PMD_SHIFT - PAGE_SHIFT)
#define HMM_REF_BLOCK_PAGES	BIT(HMM_REF_BLOCK_ORDER)

/* Time for which an operation retries on a range that keeps changing. */
#define HMM_REF_PATIENCE	(3 * HZ)

/* The same while a signal is pending that is not fatal. */
#define HMM_REF_SIGNAL_PATIENCE	(HZ / 10)

/* Time without progress after which pages are lost, or a system sleep fails. */
#define HMM_REF_GIVE_UP		(10UL * HZ)

/* Time for a batch of copies before a reset, while the device is removed. */
#define HMM_REF_LAST_PATIENCE	(2UL * HZ)

#endif /* _HMM_REF_BASE_H */
