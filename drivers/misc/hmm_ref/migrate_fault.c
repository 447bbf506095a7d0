// SPDX-License-Identifier: GPL-2.0-only
/*
 * CPU faults on device pages.
 *
 * The core calls migrate_to_ram() with mmap_lock held for read, and with
 * vmf->page locked and referenced. Passing it as fault_page tells the migration
 * to expect both; otherwise the page would never move. One fault also moves
 * back a few neighbours (fault_around.c) if that costs nothing, with arrays on
 * the stack.
 *
 * A large folio is mapped in one of two ways:
 *
 *   by a PMD   vmf->pte is NULL. The entire folio is migrated, with arrays
 *              from a mempool. If no large page can be allocated, or its data
 *              cannot be read in one piece, it is handled as if mapped by PTEs
 *   by PTEs    setup splits it, and leaves the lock and reference of the fault
 *              with vmf->page
 *
 * The callback returns:
 *
 *   0                  also if the page did not move because it is in use
 *                      elsewhere: the CPU retries the access
 *   VM_FAULT_RETRY     the same, with mmap_lock dropped
 *   VM_FAULT_OOM       no memory for the page itself, twice. User space retries
 *                      the access. The kernel does not when it accesses user
 *                      memory, and returns -EFAULT; hence the second attempt
 *   VM_FAULT_SIGBUS    the data cannot be read, not even alone, or the device
 *                      is lost. Other data is never returned instead
 *   VM_FAULT_HWPOISON  the memory of the page has failed, and its data is lost
 */
#include <linux/gfp.h>
#include <linux/mempool.h>
#include <linux/mmap_lock.h>

#include "fault_around.h"
#include "hmm_ref.h"
#include "trace.h"

/* Neighbours are opportunistic: never reclaim for them. */
#define GFP_NEIGHBOUR	((GFP_HIGHUSER_MOVABLE & ~__GFP_RECLAIM) | __GFP_NOWARN)

/* Arrays for a PMD. */
struct cpu_fault_arrays {
	unsigned long src[HMM_REF_BLOCK_PAGES];
	unsigned long dst[HMM_REF_BLOCK_PAGES];
};

/* Arrays in reserve: faults that cannot allocate any wait for one of these. */
#define CPU_FAULT_ARRAYS	4

static mempool_t *cpu_fault_arrays;

/**
 * hmm_ref_fault_init() - allocate the mempool of CPU faults
 *
 * Return: 0 or -ENOMEM.
 */
int hmm_ref_fault_init(void)
{
	cpu_fault_arrays =
		mempool_create_kmalloc_pool(CPU_FAULT_ARRAYS,
					    sizeof(struct cpu_fault_arrays));
	return cpu_fault_arrays ? 0 : -ENOMEM;
}

/**
 * hmm_ref_fault_exit() - free the mempool of CPU faults
 */
void hmm_ref_fault_exit(void)
{
	mempool_destroy(cpu_fault_arrays);
}

/* ---- single pages ------------------------------------------------------ */

/**
 * struct cpu_fault - a migration for a CPU fault
 * @move: the migration
 * @index: entry of the page that the CPU has touched
 */
struct cpu_fault {
	struct hmm_ref_move move;
	unsigned long index;
};

static struct cpu_fault cpu_fault_at(struct hmm_ref_device *dev,
				     struct vm_fault *vmf)
{
	return (struct cpu_fault){
		.move = {
			.args = {
				.vma = vmf->vma,
				.pgmap_owner = dev->dm.pgmap_owner,
				.flags = MIGRATE_VMA_SELECT_DEVICE_PRIVATE,
				.fault_page = vmf->page,
			},
			.dm = &dev->dm,
			.cause = HMM_REF_BY_FAULT,
		},
	};
}

/* Select the pages around a fault: naturally aligned, and within the VMA. */
static void set_range(struct cpu_fault *fault, unsigned long addr,
		      unsigned long npages)
{
	struct migrate_vma *args = &fault->move.args;
	unsigned long size = npages << PAGE_SHIFT;

	args->start = max(ALIGN_DOWN(addr, size), args->vma->vm_start);
	args->end = min(ALIGN_DOWN(addr, size) + size, args->vma->vm_end);
	fault->index = (addr - args->start) >> PAGE_SHIFT;
}

/*
 * The faulting page may enter reclaim for memory, its neighbours may not.
 * Return: 0, or -ENOMEM if the faulting page got none.
 */
static int fill_around(struct hmm_ref_move *move)
{
	unsigned long index = container_of(move, struct cpu_fault, move)->index;
	unsigned long i;
	int rc = 0;

	for (i = 0; i < move->args.npages; i++) {
		gfp_t gfp = i == index ? GFP_HIGHUSER_MOVABLE : GFP_NEIGHBOUR;

		if (!hmm_ref_src_is_page(move->args.src[i]))
			continue;
		if (hmm_ref_fill_folio(move, i, gfp) && i == index)
			rc = -ENOMEM;
	}
	return rc;
}

/*
 * System memory, or room for copies on the device, is short: retry the fault
 * once. Not for remote accesses: hmm_range_fault() does not mark its second
 * attempt, and would loop. After that user space faults again anyway, as when
 * the core is out of memory.
 */
static vm_fault_t out_of_room(struct vm_fault *vmf)
{
	if (!fault_flag_allow_retry_first(vmf->flags) ||
	    vmf->flags & FAULT_FLAG_REMOTE)
		return VM_FAULT_OOM;
	if (!(vmf->flags & FAULT_FLAG_RETRY_NOWAIT))
		mmap_read_unlock(vmf->vma->vm_mm);
	return VM_FAULT_RETRY;
}

/* Return: same as hmm_ref_migrate(). */
static __always_inline int
migrate_around(struct hmm_ref_device *dev, struct vm_fault *vmf,
	       unsigned long npages, unsigned long *src, unsigned long *dst,
	       struct hmm_ref_copy *ring, unsigned long *moved)
{
	struct cpu_fault fault = cpu_fault_at(dev, vmf);
	int rc;

	fault.move.args.src = src;
	fault.move.args.dst = dst;
	fault.move.ring = ring;
	fault.move.ring_size = npages;
	fault.move.fill = fill_around;
	set_range(&fault, vmf->address & PAGE_MASK, npages);
	rc = hmm_ref_migrate(&fault.move);
	*moved += fault.move.moved;
	return rc;
}

/* Most faults at random addresses move one page, and need no larger arrays. */
static noinline int migrate_one(struct hmm_ref_device *dev,
				struct vm_fault *vmf, unsigned long *moved)
{
	struct hmm_ref_copy copy;
	unsigned long src = 0;
	unsigned long dst = 0;

	return migrate_around(dev, vmf, 1, &src, &dst, &copy, moved);
}

static noinline int migrate_some(struct hmm_ref_device *dev,
				 struct vm_fault *vmf, unsigned long npages,
				 unsigned long *moved)
{
	unsigned long src[HMM_REF_FAULT_AROUND_MAX] = {};
	unsigned long dst[HMM_REF_FAULT_AROUND_MAX] = {};
	struct hmm_ref_copy ring[HMM_REF_FAULT_AROUND_MAX];

	return migrate_around(dev, vmf, npages, src, dst, ring, moved);
}

static vm_fault_t cpu_fault_pte(struct hmm_ref_device *dev,
				struct vm_fault *vmf, unsigned long *moved)
{
	unsigned long npages = hmm_ref_fault_around(dev, vmf->address);
	int rc;

	if (npages > 1)
		rc = migrate_some(dev, vmf, npages, moved);
	else
		rc = migrate_one(dev, vmf, moved);
	/* The error may come from a neighbour, or be transient. */
	if (rc && rc != -ENOMEM && rc != -EINVAL)
		rc = migrate_one(dev, vmf, moved);
	if (rc == -ENOMEM || rc == -EAGAIN)
		return out_of_room(vmf);
	return rc ? VM_FAULT_SIGBUS : 0;
}

/* ---- a PMD ------------------------------------------------------------- */

/* Return: 0, also if the folio has been split; -ENOMEM without a large page. */
static int fill_whole(struct hmm_ref_move *move)
{
	unsigned long src = move->args.src[0];

	if (!hmm_ref_src_is_page(src) || !(src & MIGRATE_PFN_COMPOUND))
		return 0;
	return hmm_ref_fill_folio(move, 0, 0);
}

/*
 * If the folio cannot move in one piece, its pages move, except for bad ones.
 */
static vm_fault_t cpu_fault_pmd(struct hmm_ref_device *dev,
				struct vm_fault *vmf, unsigned long *moved)
{
	struct cpu_fault fault = cpu_fault_at(dev, vmf);
	struct migrate_vma *args = &fault.move.args;
	struct cpu_fault_arrays *arrays;
	struct hmm_ref_copy copy;
	int rc;

	arrays = mempool_alloc(cpu_fault_arrays, GFP_KERNEL);
	memset(arrays, 0, sizeof(*arrays));
	args->src = arrays->src;
	args->dst = arrays->dst;
	args->start = vmf->address & PMD_MASK;
	args->end = args->start + PMD_SIZE;
	args->flags |= MIGRATE_VMA_SELECT_COMPOUND;
	fault.move.ring = &copy;
	fault.move.ring_size = 1;
	fault.move.fill = fill_whole;
	rc = hmm_ref_migrate(&fault.move);
	mempool_free(arrays, cpu_fault_arrays);
	*moved += fault.move.moved;
	if (rc == -EINVAL)
		return VM_FAULT_SIGBUS;
	return rc ? cpu_fault_pte(dev, vmf, moved) : 0;
}

/* ---- the callback ------------------------------------------------------ */

/* For a PMD the core passes the first page of the folio. */
static bool is_lost(struct hmm_ref_devmem *dm, const struct vm_fault *vmf)
{
	unsigned long dpfn;

	if (likely(!READ_ONCE(dm->any_lost)))
		return false;
	dpfn = hmm_ref_page_dpfn(vmf->page);
	if (!vmf->pte)
		dpfn += (vmf->address & ~PMD_MASK) >> PAGE_SHIFT;
	return hmm_ref_devmem_any_lost(dm, dpfn, 1);
}

/**
 * hmm_ref_migrate_to_ram() - the pagemap's migrate_to_ram callback
 * @vmf: fault on the device page @vmf->page, which is locked
 *
 * The core keeps its reference to the page until this returns.
 *
 * Context: mmap_lock held for read.
 * Return: as described above.
 */
vm_fault_t hmm_ref_migrate_to_ram(struct vm_fault *vmf)
{
	struct hmm_ref_devmem *dm = page_pgmap(vmf->page)->owner;
	struct hmm_ref_device *dev =
		container_of(dm, struct hmm_ref_device, dm);
	unsigned long moved = 0;
	vm_fault_t result;

	if (READ_ONCE(dm->lost))
		result = VM_FAULT_SIGBUS;
	else if (is_lost(dm, vmf))
		result = VM_FAULT_HWPOISON;
	else if (vmf->pte)
		result = cpu_fault_pte(dev, vmf, &moved);
	else
		result = cpu_fault_pmd(dev, vmf, &moved);
	hmm_ref_count(dev->counters, cpu_faults, 1);
	hmm_ref_count(dev->counters, fault_pages, moved);
	trace_hmm_ref_cpu_fault(dm, vmf, moved, result);
	return result;
}
