// SPDX-License-Identifier: GPL-2.0-only
/*
 * Memory of the device has failed.
 *
 * What the core makes of the result: 0 says that nothing is lost, any error that data is, which
 * kills a task that has just loaded it. But never -EOPNOTSUPP: then the core looks for processes
 * by a mapping that is none for anonymous memory. No CPU has touched private memory: a process
 * gets SIGBUS when it does (migrate_fault.c), and keeps the page until it unmaps it.
 */
#include "fail.h"
#include "hmm_ref.h"

/**
 * hmm_ref_memory_failure() - the pagemap's memory_failure
 * @pagemap: of a chunk
 * @pfn: page frame number of the first page that has failed
 * @nr_pages: how many have
 * @flags: not used
 *
 * Context: may sleep.
 * Return: 0 when no page was in use, else -EBUSY.
 */
int hmm_ref_memory_failure(struct dev_pagemap *pagemap, unsigned long pfn,
			   unsigned long nr_pages, int flags)
{
	struct hmm_ref_chunk *chunk = container_of(pagemap, struct hmm_ref_chunk, pagemap);
	struct hmm_ref_device *dev = container_of(chunk->dm, struct hmm_ref_device, dm);
	unsigned long dpfn = pfn + chunk->dpfn_offset;
	int rc = 0;

	hmm_ref_slow(HMM_REF_SLOW_REPORT);
	for (; nr_pages; nr_pages--, dpfn++) {
		if (hmm_ref_devmem_lose(&dev->dm, dpfn) == -EBUSY)
			rc = -EBUSY;
	}
	/* What is lost is not mapped again (range_fault.c). */
	if (rc)
		hmm_ref_clients_zap(dev);
	return rc;
}
