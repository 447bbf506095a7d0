// SPDX-License-Identifier: GPL-2.0-only
/*
 * A device page keeps the flags of its last user.
 *
 * The core only adds to them when the next data moves in. That data may then be
 * swapped although it must not be, because the last data was swapbacked; or the
 * page is both active and unevictable, which is a BUG. munlock() skips entries
 * that are not present, so a page may also be counted as mlocked forever.
 */
#include <linux/pagemap.h>
#include <linux/vmstat.h>

#include "../devmem.h"

#ifndef HMM_REF_CORE_CLEARS_FLAGS

/*
 * The page allocator clears these flags, too. PG_reserved, which the core sets
 * for all device memory, does not depend on the data. PG_locked on a free page
 * is a bug.
 */
#define FLAGS_OF_USER \
	(PAGE_FLAGS_CHECK_AT_PREP & ~(BIT(PG_reserved) | BIT(PG_locked)))

static unsigned long *flags_of(struct page *page)
{
#if LINUX_VERSION_CODE < KERNEL_VERSION(7, 0, 0)
	return &page->flags;
#else
	return &page->flags.f;
#endif
}

/**
 * hmm_ref_compat_folio_init() - zone_device_folio_init() that clears all flags
 * @folio: first of the pages that are handed out
 * @pagemap: pagemap of the pages
 * @order: order of the new folio
 *
 * Context: same as zone_device_folio_init().
 */
void hmm_ref_compat_folio_init(struct folio *folio, struct dev_pagemap *pagemap,
			       unsigned int order)
{
	unsigned long i;

	for (i = 0; i < 1UL << order; i++)
		*flags_of(folio_page(folio, i)) &= ~FLAGS_OF_USER;
	(zone_device_folio_init)(folio, pagemap, order);
}
EXPORT_SYMBOL_IF_KUNIT(hmm_ref_compat_folio_init);

#endif /* HMM_REF_CORE_CLEARS_FLAGS */

#ifndef HMM_REF_CORE_UNCOUNTS_MLOCKED

/**
 * hmm_ref_compat_folio_free() - folio_free that corrects NR_MLOCK
 * @folio: device folio without references
 *
 * Context: same as hmm_ref_devmem_folio_free().
 */
void hmm_ref_compat_folio_free(struct folio *folio)
{
	long nr = folio_nr_pages(folio);

	if (folio_test_clear_mlocked(folio)) {
		zone_stat_mod_folio(folio, NR_MLOCK, -nr);
		count_vm_events(UNEVICTABLE_PGCLEARED, nr);
	}
	hmm_ref_devmem_folio_free(folio);
}

#endif /* HMM_REF_CORE_UNCOUNTS_MLOCKED */
