/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The entries of migrate_vma, for the files migrate*.c: nobody else knows MIGRATE_PFN_*.
 */
#ifndef _HMM_REF_MIGRATE_H
#define _HMM_REF_MIGRATE_H

#include <linux/migrate.h>

#include "hmm_ref.h"

/**
 * hmm_ref_src_is_page() - is there a page to move?
 * @src: source entry after setup
 *
 * Return: false for holes and for what setup did not get.
 */
static inline bool hmm_ref_src_is_page(unsigned long src)
{
	return (src & MIGRATE_PFN_VALID) && (src & MIGRATE_PFN_MIGRATE);
}

/**
 * hmm_ref_src_pages() - how much does an entry stand for?
 * @src: source entry
 *
 * Return: pages.
 */
static inline unsigned long hmm_ref_src_pages(unsigned long src)
{
	return src & MIGRATE_PFN_COMPOUND ? HMM_REF_BLOCK_PAGES : 1;
}

/**
 * hmm_ref_moved() - after migrate_*_pages(): how much has moved?
 * @src: source entry
 * @dst: destination entry
 *
 * Return: pages.
 */
static inline unsigned long hmm_ref_moved(unsigned long src, unsigned long dst)
{
	return dst && (src & MIGRATE_PFN_MIGRATE) ? hmm_ref_src_pages(src) : 0;
}

#endif /* _HMM_REF_MIGRATE_H */
