// SPDX-License-Identifier: GPL-2.0-only
/*
 * The CPU touches a device page.
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
 *   VM_FAULT_SIGBUS the data cannot be read, even alone, or the device is lost; never other data
 *                   instead
 *   VM_FAULT_HWPOISON
 *                   the same, as the memory of this page has failed
 */
#include <linux/gfp.h>
#include <linux/mempool.h>
#include <linux/mmap_lock.h>

#include "fault_around.h"
#include "hmm_ref.h"
#include "trace.h"

/* Only a neighbour that costs nothing to bring is worth it. */
#define GFP_NEIGHBOUR	((GFP_HIGHUSER_MOVABLE & ~__GFP_RECLAIM) | __GFP_NOWARN)

/* The arrays for a PMD. */
struct cpu_fault_arrays {
	unsigned long src[HMM_REF_BLOCK_PAGES];
	unsigned long dst[HMM_REF_BLOCK_PAGES];
};

/* Faults that find no memory for their arrays wait for those that have some. */
#define CPU_FAULT_ARRAYS	4

static mempool_t *cpu_fault_arrays;

/**
 * hmm_ref_fault_init() - allocate what CPU faults share
 *
 * Return: 0 or -ENOMEM.
 */
int hmm_ref_fault_init(void)
{
	cpu_fault_arrays = mempool_create_kmalloc_pool(CPU_FAULT_ARRAYS,
						       sizeof(struct cpu_fault_arrays));
	return cpu_fault_arrays ? 0 : -ENOMEM;
}

/**
 * hmm_ref_fault_exit() - free what CPU faults share
 */
void hmm_ref_fault_exit(void)
{
	mempool_destroy(cpu_fault_arrays);
}

/* ---- single pages ------------------------------------------------------ */

/**
 * struct cpu_fault - a migration for the CPU
 * @move: the migration
 * @index: entry of the page that the CPU has touched
 */
struct cpu_fault {
	struct hmm_ref_move move;
	unsigned long index;
};

static struct cpu_fault cpu_fault_at(struct hmm_ref_device *dev, struct vm_fault *vmf)
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

/* The pages around a fault that may come along: naturally aligned, in the VMA. */
static void set_range(struct cpu_fault *fault, unsigned long addr, unsigned long npages)
{
	struct migrate_vma *args = &fault->move.args;
	unsigned long size = npages << PAGE_SHIFT;

	args->start = max(ALIGN_DOWN(addr, size), args->vma->vm_start);
	args->end = min(ALIGN_DOWN(addr, size) + size, args->vma->vm_end);
	fault->index = (addr - args->start) >> PAGE_SHIFT;
}

/*
 * The faulting page gets memory whatever it takes, others if it is at hand. Return: 0, or -ENOMEM
 * when the faulting page found none.
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
 * No memory, or no room for copies on the device: another fault may find some. Once, and for a
 * task that accesses memory of its own: hmm_range_fault() does not tell the second time from the
 * first, and would not end. After that user space faults again all the same, as for the core's
 * own want of memory.
 */
static vm_fault_t out_of_room(struct vm_fault *vmf)
{
	if (!fault_flag_allow_retry_first(vmf->flags) || vmf->flags & FAULT_FLAG_REMOTE)
		return VM_FAULT_OOM;
	if (!(vmf->flags & FAULT_FLAG_RETRY_NOWAIT))
		mmap_read_unlock(vmf->vma->vm_mm);
	return VM_FAULT_RETRY;
}

/* Return: as hmm_ref_migrate(). */
static __always_inline int migrate_around(struct hmm_ref_device *dev, struct vm_fault *vmf,
					  unsigned long npages, unsigned long *src,
					  unsigned long *dst, struct hmm_ref_copy *ring,
					  unsigned long *moved)
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

/* Most faults at random addresses bring one page, and need not clear arrays for more. */
static noinline int migrate_one(struct hmm_ref_device *dev, struct vm_fault *vmf,
				unsigned long *moved)
{
	struct hmm_ref_copy copy;
	unsigned long src = 0;
	unsigned long dst = 0;

	return migrate_around(dev, vmf, 1, &src, &dst, &copy, moved);
}

static noinline int migrate_some(struct hmm_ref_device *dev, struct vm_fault *vmf,
				 unsigned long npages, unsigned long *moved)
{
	unsigned long src[HMM_REF_FAULT_AROUND_MAX] = {};
	unsigned long dst[HMM_REF_FAULT_AROUND_MAX] = {};
	struct hmm_ref_copy ring[HMM_REF_FAULT_AROUND_MAX];

	return migrate_around(dev, vmf, npages, src, dst, ring, moved);
}

static vm_fault_t cpu_fault_pte(struct hmm_ref_device *dev, struct vm_fault *vmf,
				unsigned long *moved)
{
	unsigned long npages = hmm_ref_fault_around(dev, vmf->address);
	int rc;

	if (npages > 1)
		rc = migrate_some(dev, vmf, npages, moved);
	else
		rc = migrate_one(dev, vmf, moved);
	/* A neighbour may be to blame, or the engine fails once. */
	if (rc && rc != -ENOMEM && rc != -EINVAL)
		rc = migrate_one(dev, vmf, moved);
	if (rc == -ENOMEM || rc == -EAGAIN)
		return out_of_room(vmf);
	return rc ? VM_FAULT_SIGBUS : 0;
}

/* ---- a PMD ------------------------------------------------------------- */

/* Return: 0, also when the folio is not whole any more; -ENOMEM when there is no large page. */
static int fill_whole(struct hmm_ref_move *move)
{
	unsigned long src = move->args.src[0];

	if (!hmm_ref_src_is_page(src) || !(src & MIGRATE_PFN_COMPOUND))
		return 0;
	return hmm_ref_fill_folio(move, 0, 0);
}

/* What does not move whole is moved page by page, which shows, too, which one is bad. */
static vm_fault_t cpu_fault_pmd(struct hmm_ref_device *dev, struct vm_fault *vmf,
				unsigned long *moved)
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
 * hmm_ref_migrate_to_ram() - the pagemap's migrate_to_ram
 * @vmf: fault at an entry of a device page, @vmf->page, which is locked
 *
 * The core keeps its reference to the page until this returns.
 *
 * Context: mmap_lock held for read.
 * Return: as above.
 */
vm_fault_t hmm_ref_migrate_to_ram(struct vm_fault *vmf)
{
	struct hmm_ref_devmem *dm = page_pgmap(vmf->page)->owner;
	struct hmm_ref_device *dev = container_of(dm, struct hmm_ref_device, dm);
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
