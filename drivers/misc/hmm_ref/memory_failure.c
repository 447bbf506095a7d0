// SPDX-License-Identifier: GPL-2.0-only
/*
 * Failure of device memory.
 *
 * The core acts on the result: after an error, it kills a task that has just
 * loaded the data; 0 says that no data is lost. -EOPNOTSUPP must not be
 * returned: the core would then look for processes by page->mapping as an
 * address_space, which it is not for anonymous memory. No CPU has loaded data
 * of private memory: a process gets SIGBUS when it touches the page
 * (migrate_fault.c), and keeps the page until it unmaps it.
 */
#include "fail.h"
#include "hmm_ref.h"

/**
 * hmm_ref_memory_failure() - the pagemap's memory_failure callback
 * @pagemap: pagemap of a chunk
 * @pfn: page frame number of the first page that has failed
 * @nr_pages: number of pages that have failed
 * @flags: unused
 *
 * Context: may sleep.
 * Return: 0 if no page was in use, otherwise -EBUSY.
 */
int hmm_ref_memory_failure(struct dev_pagemap *pagemap, unsigned long pfn,
			   unsigned long nr_pages, int flags)
{
	struct hmm_ref_chunk *chunk =
		container_of(pagemap, struct hmm_ref_chunk, pagemap);
	struct hmm_ref_device *dev =
		container_of(chunk->dm, struct hmm_ref_device, dm);
	unsigned long dpfn = pfn + chunk->dpfn_offset;
	int rc = 0;

	hmm_ref_slow(HMM_REF_SLOW_REPORT);
	for (; nr_pages; nr_pages--, dpfn++) {
		if (hmm_ref_devmem_lose(&dev->dm, dpfn) == -EBUSY)
			rc = -EBUSY;
	}
	/* Lost pages are not mapped again (range_fault.c). */
	if (rc)
		hmm_ref_clients_zap(dev);
	return rc;
}
