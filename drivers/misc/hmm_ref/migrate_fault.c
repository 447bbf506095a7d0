// SPDX-License-Identifier: GPL-2.0-only
/*
 * The CPU touches a device page: the pagemap's callbacks.
 *
 * The core calls migrate_to_ram() with mmap_lock held for read, vmf->page locked
 * and with an extra reference on it. fault_page tells the migration of both;
 * without it the page would never move. Neighbours come along as far as that costs
 * nothing: one fault for a few pages (fault_around.c), with arrays on the stack.
 *
 * A large folio comes in two ways:
 *
 *   mapped by a PMD         vmf->pte is NULL. All of it is migrated, with arrays from a
 *                           mempool. Where there is no large page for it, or its data cannot
 *                           be read in one go, it is treated as one that is
 *   mapped by PTEs          setup splits it, and leaves the fault's lock and reference with
 *                           vmf->page
 *
 * What the callback may return:
 *
 *   0               also when the page did not move, because someone else has it:
 *                   the CPU touches it again
 *   VM_FAULT_RETRY  the same, and mmap_lock is dropped
 *   VM_FAULT_OOM    no memory for the page itself, twice, which is not the process's
 *                   fault: it touches it again. The kernel, which may touch it for the
 *                   process, does not, and says -EFAULT; hence the second time
 *   VM_FAULT_SIGBUS the data cannot be read, even alone; never other data instead
 *   VM_FAULT_HWPOISON
 *                   the same, as the memory of this page has failed
 *
 * memory_failure() tells of such a page. What the core makes of its result: 0 says that
 * nothing is lost, any error that data is, which kills a task that has just loaded it. But
 * never -EOPNOTSUPP: then the core looks for processes by a mapping that is none for
 * anonymous memory. No CPU has touched private memory: a process gets SIGBUS when it does,
 * and keeps the page until it unmaps it.
 */
#include <linux/gfp.h>
#include <linux/mempool.h>
#include <linux/mmap_lock.h>

#include "migrate.h"
#include "trace.h"

/* Only a neighbour that costs nothing to bring is worth it. */
#define GFP_NEIGHBOUR	((GFP_HIGHUSER_MOVABLE & ~__GFP_RECLAIM) | __GFP_NOWARN)

/* The arrays for a PMD. */
struct fault_window {
	unsigned long src[HMM_REF_BLOCK_PAGES];
	unsigned long dst[HMM_REF_BLOCK_PAGES];
};

/* Faults that find no memory for their arrays wait for those that have some. */
#define FAULT_WINDOWS	4

static mempool_t *fault_windows;

/**
 * hmm_ref_fault_init() - allocate what CPU faults share
 *
 * Return: 0 or -ENOMEM.
 */
int hmm_ref_fault_init(void)
{
	fault_windows = mempool_create_kmalloc_pool(FAULT_WINDOWS,
						    sizeof(struct fault_window));
	return fault_windows ? 0 : -ENOMEM;
}

/**
 * hmm_ref_fault_exit() - free what CPU faults share
 */
void hmm_ref_fault_exit(void)
{
	mempool_destroy(fault_windows);
}

/* ---- single pages ------------------------------------------------------ */

/* The pages around a fault that may come along: naturally aligned, in the VMA. */
static void fault_range(struct hmm_ref_device *dev, struct vm_fault *vmf,
			struct migrate_vma *args)
{
	unsigned long addr = vmf->address & PAGE_MASK;
	unsigned long size = hmm_ref_fault_around(dev, addr) << PAGE_SHIFT;

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
	struct hmm_ref_copy ring[HMM_REF_FAULT_AROUND_MAX];
	struct hmm_ref_job job;
	unsigned long i;
	int rc = 0;

	hmm_ref_engine_begin(&dev->dm.engine, &job, ring, ARRAY_SIZE(ring));
	for (i = first; i < last; i++) {
		gfp_t gfp = i == fault_index ? GFP_HIGHUSER_MOVABLE : GFP_NEIGHBOUR;
		unsigned long addr = args->start + i * PAGE_SIZE;

		if (!hmm_ref_src_is_page(args->src[i]))
			continue;
		if (hmm_ref_fill_folio(&job, args->src[i], &args->dst[i], gfp,
				       args->vma, addr) && i == fault_index)
			rc = -ENOMEM;
	}
	hmm_ref_engine_submit(&job);
	if (hmm_ref_engine_wait(&job)) {
		hmm_ref_abandon_all(args->dst, args->npages);
		return -EIO;
	}
	hmm_ref_abandon_lost(&dev->dm, args->src, args->dst, args->npages);
	return rc;
}

/*
 * No memory: another fault may find some. Once, and for a task that accesses memory of its
 * own: hmm_range_fault() does not tell the second time from the first, and would not end.
 */
static vm_fault_t no_memory(struct vm_fault *vmf)
{
	if (!fault_flag_allow_retry_first(vmf->flags) || vmf->flags & FAULT_FLAG_REMOTE)
		return VM_FAULT_OOM;
	if (!(vmf->flags & FAULT_FLAG_RETRY_NOWAIT))
		mmap_read_unlock(vmf->vma->vm_mm);
	return VM_FAULT_RETRY;
}

static vm_fault_t fault_pte(struct hmm_ref_device *dev, struct vm_fault *vmf,
			    unsigned long *moved)
{
	unsigned long src[HMM_REF_FAULT_AROUND_MAX] = {};
	unsigned long dst[HMM_REF_FAULT_AROUND_MAX] = {};
	struct migrate_vma args = {
		.vma = vmf->vma,
		.src = src,
		.dst = dst,
		.pgmap_owner = dev->dm.pgmap_owner,
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
	*moved += hmm_ref_left(src, dst, args.npages, HMM_REF_BY_FAULT);
	migrate_vma_finalize(&args);
	if (rc == -ENOMEM)
		return no_memory(vmf);
	return rc ? VM_FAULT_SIGBUS : 0;
}

/* ---- a PMD ------------------------------------------------------------- */

/*
 * Migrate the folio of a PMD. Return: 0, -ENOMEM or -EIO when the folio has to be split,
 * -EINVAL when the VMA does not migrate.
 */
static int fault_folio(struct hmm_ref_device *dev, struct migrate_vma *args,
		       unsigned long *moved)
{
	struct hmm_ref_copy copy;
	struct hmm_ref_job job;
	int rc = 0;

	if (migrate_vma_setup(args))
		return -EINVAL;
	hmm_ref_engine_begin(&dev->dm.engine, &job, &copy, 1);
	if (hmm_ref_src_is_page(args->src[0]) && (args->src[0] & MIGRATE_PFN_COMPOUND))
		rc = hmm_ref_fill_folio(&job, args->src[0], &args->dst[0], 0,
					args->vma, args->start);
	hmm_ref_engine_submit(&job);
	if (hmm_ref_engine_wait(&job)) {
		hmm_ref_abandon_all(args->dst, 1);
		rc = -EIO; /* page by page it will show which one is bad */
	} else if (hmm_ref_abandon_lost(&dev->dm, args->src, args->dst, args->npages)) {
		rc = -EIO;
	}
	migrate_vma_pages(args);
	*moved += hmm_ref_left(args->src, args->dst, args->npages, HMM_REF_BY_FAULT);
	migrate_vma_finalize(args);
	return rc;
}

static vm_fault_t fault_pmd(struct hmm_ref_device *dev, struct vm_fault *vmf,
			    unsigned long *moved)
{
	unsigned long addr = vmf->address & PMD_MASK;
	struct fault_window *window;
	struct migrate_vma args = {
		.vma = vmf->vma,
		.start = addr,
		.end = addr + PMD_SIZE,
		.pgmap_owner = dev->dm.pgmap_owner,
		.flags = MIGRATE_VMA_SELECT_DEVICE_PRIVATE |
			 MIGRATE_VMA_SELECT_COMPOUND,
		.fault_page = vmf->page,
	};
	int rc;

	window = mempool_alloc(fault_windows, GFP_KERNEL);
	memset(window, 0, sizeof(*window));
	args.src = window->src;
	args.dst = window->dst;
	rc = fault_folio(dev, &args, moved);
	mempool_free(window, fault_windows);
	if (rc == -EINVAL)
		return VM_FAULT_SIGBUS;
	return rc ? fault_pte(dev, vmf, moved) : 0;
}

/* ---- the callbacks ----------------------------------------------------- */

/* For a PMD the core passes the first page of the folio. */
static bool is_lost(struct hmm_ref_devmem *dm, const struct vm_fault *vmf)
{
	unsigned long dpfn = hmm_ref_page_dpfn(vmf->page);

	if (!vmf->pte)
		dpfn += (vmf->address & ~PMD_MASK) >> PAGE_SHIFT;
	return hmm_ref_devmem_any_lost(dm, dpfn, 1);
}

/* The core keeps its reference to vmf->page until this returns. */
static vm_fault_t migrate_to_ram(struct vm_fault *vmf)
{
	struct hmm_ref_devmem *dm = page_pgmap(vmf->page)->owner;
	struct hmm_ref_device *dev = container_of(dm, struct hmm_ref_device, dm);
	unsigned long moved = 0;
	vm_fault_t result;

	if (is_lost(dm, vmf))
		result = VM_FAULT_HWPOISON;
	else if (vmf->pte)
		result = fault_pte(dev, vmf, &moved);
	else
		result = fault_pmd(dev, vmf, &moved);
	hmm_ref_count(dev->counters, cpu_faults, 1);
	hmm_ref_count(dev->counters, fault_pages, moved);
	trace_hmm_ref_cpu_fault(dm, vmf, moved, result);
	return result;
}

static int pages_failed(struct dev_pagemap *pagemap, unsigned long pfn,
			unsigned long nr_pages, int flags)
{
	struct hmm_ref_chunk *chunk = container_of(pagemap, struct hmm_ref_chunk, pagemap);
	struct hmm_ref_device *dev = container_of(chunk->dm, struct hmm_ref_device, dm);
	unsigned long dpfn = pfn + chunk->dpfn_offset;
	int rc = 0;

	for (; nr_pages; nr_pages--, dpfn++) {
		if (hmm_ref_devmem_lose(&dev->dm, dpfn))
			rc = -EBUSY;
	}
	/* What is lost is not mapped again (range_fault.c). */
	if (rc)
		hmm_ref_clients_zap(dev);
	return rc;
}

const struct dev_pagemap_ops hmm_ref_pagemap_ops = {
	.folio_free = hmm_ref_pagemap_folio_free,
#ifdef CONFIG_ARCH_HAS_PMD_SOFTLEAVES
	.folio_split = hmm_ref_devmem_folio_split,
#endif
	.migrate_to_ram = migrate_to_ram,
	.memory_failure = pages_failed,
};
EXPORT_SYMBOL_IF_KUNIT(hmm_ref_pagemap_ops);
