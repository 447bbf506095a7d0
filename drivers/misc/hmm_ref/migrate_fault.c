// SPDX-License-Identifier: GPL-2.0-only
/*
 * The CPU touches a device page: the pagemap's callbacks.
 *
 * The core calls migrate_to_ram() with mmap_lock held for read, vmf->page locked
 * and with an extra reference on it. fault_page tells the migration of both;
 * without it the page would never move. Neighbours come along as far as that costs
 * nothing: one fault for a few pages, with arrays on the stack.
 *
 * What the callback may return:
 *
 *   0               also when the page did not move, because someone else has it:
 *                   the CPU touches it again
 *   VM_FAULT_OOM    no memory for the page itself, which is not the process's fault
 *   VM_FAULT_SIGBUS the data cannot be read, even alone; never other data instead
 */
#include <linux/gfp.h>
#include <linux/log2.h>
#include <linux/migrate.h>

#include "hmm_ref.h"

/* Only a neighbour that costs nothing to bring is worth it. */
#define GFP_NEIGHBOUR	((GFP_HIGHUSER_MOVABLE & ~__GFP_RECLAIM) | __GFP_NOWARN)

/* The pages around a fault that may come along: naturally aligned, in the VMA. */
static void fault_range(struct hmm_ref_device *dev, struct vm_fault *vmf,
			struct migrate_vma *args)
{
	unsigned long addr = vmf->address & PAGE_MASK;
	unsigned long pages = clamp(READ_ONCE(dev->fault_around), 1U,
				    (u32)HMM_REF_FAULT_AROUND_MAX);
	unsigned long size = rounddown_pow_of_two(pages) << PAGE_SHIFT;

	args->start = max(ALIGN_DOWN(addr, size), vmf->vma->vm_start);
	args->end = min(ALIGN_DOWN(addr, size) + size, vmf->vma->vm_end);
}

/*
 * Copy the entries [first, last) of what setup has collected: the faulting page
 * whatever it takes, others if memory is at hand. Return: 0, -ENOMEM when the
 * faulting page found no memory, -EIO when no copy is good.
 */
static int fault_copy(struct hmm_ref_device *dev, struct migrate_vma *args,
		      unsigned long first, unsigned long last,
		      unsigned long fault_index)
{
	struct hmm_ref_job job;
	unsigned long i;
	int rc = 0;

	hmm_ref_engine_begin(&dev->dm.engine, &job);
	for (i = first; i < last; i++) {
		gfp_t gfp = i == fault_index ? GFP_HIGHUSER_MOVABLE : GFP_NEIGHBOUR;
		unsigned long addr = args->start + i * PAGE_SIZE;

		if (!hmm_ref_src_is_page(args->src[i]))
			continue;
		if (hmm_ref_fill_system_page(&job, args->src[i], &args->dst[i],
					     gfp, args->vma, addr) &&
		    i == fault_index)
			rc = -ENOMEM;
	}
	if (hmm_ref_engine_wait(&job)) {
		hmm_ref_abandon_all(args->dst, args->npages);
		return -EIO;
	}
	return rc;
}

static vm_fault_t migrate_to_ram(struct vm_fault *vmf)
{
	struct hmm_ref_devmem *dm = page_pgmap(vmf->page)->owner;
	struct hmm_ref_device *dev = container_of(dm, struct hmm_ref_device, dm);
	unsigned long src[HMM_REF_FAULT_AROUND_MAX] = {};
	unsigned long dst[HMM_REF_FAULT_AROUND_MAX] = {};
	struct migrate_vma args = {
		.vma = vmf->vma,
		.src = src,
		.dst = dst,
		.pgmap_owner = dm->pgmap_owner,
		.flags = MIGRATE_VMA_SELECT_DEVICE_PRIVATE,
		.fault_page = vmf->page,
	};
	unsigned long index;
	int rc;

	fault_range(dev, vmf, &args);
	index = (vmf->address - args.start) >> PAGE_SHIFT;
	if (migrate_vma_setup(&args))
		return VM_FAULT_SIGBUS;
	rc = fault_copy(dev, &args, 0, args.npages, index);
	if (rc == -EIO) /* a neighbour may be to blame */
		rc = fault_copy(dev, &args, index, index + 1, index);
	migrate_vma_pages(&args);
	hmm_ref_count(dev->counters, cpu_faults, 1);
	hmm_ref_count(dev->counters, fault_pages,
		      hmm_ref_mark_left(src, dst, args.npages));
	migrate_vma_finalize(&args);
	if (rc == -ENOMEM)
		return VM_FAULT_OOM;
	return rc ? VM_FAULT_SIGBUS : 0;
}

const struct dev_pagemap_ops hmm_ref_pagemap_ops = {
	.folio_free = hmm_ref_pagemap_folio_free,
	.migrate_to_ram = migrate_to_ram,
	.memory_failure = hmm_ref_devmem_memory_failure,
};
