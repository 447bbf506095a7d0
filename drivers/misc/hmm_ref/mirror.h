/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Mirrors: the part of a process's memory that the device maps.
 */
#ifndef _HMM_REF_MIRROR_H
#define _HMM_REF_MIRROR_H

#include <linux/atomic.h>
#include <linux/hmm-dma.h>
#include <linux/mmu_notifier.h>
#include <linux/mutex.h>
#include <linux/workqueue.h>
#include <linux/xarray.h>

#include "counters.h"
#include "devmem.h"
#include "hw.h"
#include "pgtable.h"

struct hmm_range;

/**
 * struct hmm_ref_mirror - the device's view of one mm
 * @mm: address space, kept by @anchor
 * @anchor: notifier inserted at open: inserting the first notifier of an mm
 *	takes mmap_lock for writing; inserting those of ranges later does not
 * @dm: device memory
 * @counters: counters of the device
 * @owner: owner of the client, for its counters
 * @gone: flag of a device that is gone: operations end early
 * @space: address space, as the hardware sees it
 * @ranges: struct hmm_ref_range by addr >> PMD_SHIFT
 * @idle: work that frees idle ranges
 * @spare: buffers that no operation uses, see hmm_ref_mirror_get_buffer()
 */
struct hmm_ref_mirror {
	struct mm_struct *mm;
	struct mmu_interval_notifier anchor;
	struct hmm_ref_devmem *dm;
	struct hmm_ref_counters __percpu *counters;
	struct hmm_ref_owner *owner;
	const bool *gone;
	struct hmm_ref_space space;
	struct xarray ranges;
	struct delayed_work idle;
	void *spare[2];
};

/**
 * struct hmm_ref_range - the part of a mirror that one PMD covers
 * @notifier: notifier of the PMD
 * @mirror: mirror, which outlives the range
 * @start: address of the first page
 * @users: one for the mirror, one per operation; 0 when the range is being
 *	freed
 * @used: end of the last operation, in jiffies
 * @lock: covers the entries of @pt, and @dma
 * @pt: device page table
 * @dma: DMA mappings of the system memory that @pt maps, page by page or as a
 *	whole; all zeros before the first
 * @rcu: frees the range
 */
struct hmm_ref_range {
	struct mmu_interval_notifier notifier;
	struct hmm_ref_mirror *mirror;
	unsigned long start;
	atomic_t users;
	unsigned long used;
	struct mutex lock;		/* page table entries, DMA */
	struct hmm_ref_pgtable pt;
	struct hmm_dma_map dma;
	struct rcu_head rcu;
};

/**
 * enum hmm_ref_at - state of a page address in a process
 * @HMM_REF_AT_ABSENT: no page that can be accessed without a fault
 * @HMM_REF_AT_TRAPPED: a page, not known which: NUMA balancing or a userfaultfd
 *	traps the next access
 * @HMM_REF_AT_SYSTEM: a page of system memory, the huge zero page included
 * @HMM_REF_AT_ZERO: the zero page of the base page size
 * @HMM_REF_AT_DEVICE: a page of this device
 * @HMM_REF_AT_REMOTE: a page of another device that the CPU can access
 * @HMM_REF_AT_UNMAPPED: no mapping
 * @HMM_REF_AT_UNREADABLE: a mapping without read permission, which is not
 *	inspected
 * @HMM_REF_AT_SPECIAL: memory without pages that a device can access
 */
enum hmm_ref_at {
	HMM_REF_AT_ABSENT,
	HMM_REF_AT_TRAPPED,
	HMM_REF_AT_SYSTEM,
	HMM_REF_AT_ZERO,
	HMM_REF_AT_DEVICE,
	HMM_REF_AT_REMOTE,
	HMM_REF_AT_UNMAPPED,
	HMM_REF_AT_UNREADABLE,
	HMM_REF_AT_SPECIAL,
};

/**
 * struct hmm_ref_seen - result of a snapshot for a page address
 * @at: one of enum hmm_ref_at; SYSTEM for a page that is exclusive to the
 *	device
 * @order: log2 of the number of pages that the CPU's entry maps
 * @writable: the CPU's entry is writable
 * @pte: HMM_REF_PTE_* bits of the device's entry, 0 if there is none
 */
struct hmm_ref_seen {
	u8 at;
	u8 order;
	bool writable;
	u8 pte;
};

/**
 * hmm_ref_seen_alike() - count equal results in a row
 * @seen: results of a snapshot
 * @nr: number of results, not 0
 *
 * Return: number of results that equal the first, including it.
 */
static inline unsigned long hmm_ref_seen_alike(const struct hmm_ref_seen *seen,
					       unsigned long nr)
{
	unsigned long alike = 1;

	while (alike < nr && !memcmp(&seen[alike], seen, sizeof(*seen)))
		alike++;
	return alike;
}

/**
 * hmm_ref_vma_may_write() - test whether a device may write to a mapping
 * @vma: mapping, with mmap_lock held
 *
 * A device may write where the process may write, except to a shadow stack.
 * Only call and return instructions of the CPU write there, but its entries,
 * VM_WRITE and hmm_range_fault() all say that it is writable. The device may
 * read its pages, as get_user_pages() may without FOLL_FORCE. The result holds
 * for the life of a VMA: when one replaces another, the notifier is called.
 *
 * Return: true if the device may write.
 */
static inline bool hmm_ref_vma_may_write(const struct vm_area_struct *vma)
{
	return (vma->vm_flags & (VM_WRITE | VM_SHADOW_STACK)) == VM_WRITE;
}

/* mirror.c */
int hmm_ref_mirror_init(struct hmm_ref_mirror *mirror, struct mm_struct *mm,
			struct hmm_ref_devmem *dm,
			struct hmm_ref_counters __percpu *counters,
			struct hmm_ref_owner *owner, const bool *gone);
void hmm_ref_mirror_exit(struct hmm_ref_mirror *mirror);
void hmm_ref_mirror_zap_all(struct hmm_ref_mirror *mirror);
struct hmm_ref_range *hmm_ref_range_get(struct hmm_ref_mirror *mirror,
					unsigned long addr);
void hmm_ref_range_put(struct hmm_ref_range *range);
struct hmm_ref_range *
hmm_ref_range_get_to_look(struct hmm_ref_mirror *mirror, unsigned long addr,
			  struct hmm_ref_range *temporary);
void hmm_ref_range_put_to_look(struct hmm_ref_range *range,
			       struct hmm_ref_range *temporary);
bool hmm_ref_range_is_current(struct hmm_ref_range *range,
			      const struct hmm_ref_range *temporary);
int hmm_ref_mirror_interrupted(struct hmm_ref_mirror *mirror);
int hmm_ref_mirror_insist(struct hmm_ref_mirror *mirror, unsigned long began,
			  unsigned long patience);
typedef int (*hmm_ref_attempt_t)(struct hmm_ref_range *range, void *arg);
int hmm_ref_range_retry(struct hmm_ref_range *range, unsigned long patience,
			hmm_ref_attempt_t attempt, void *arg);
void *hmm_ref_mirror_get_buffer(struct hmm_ref_mirror *mirror);
void hmm_ref_mirror_put_buffer(struct hmm_ref_mirror *mirror, void *buffer);

/* range_map.c */
int hmm_ref_range_prepare(struct hmm_ref_range *range, bool leaf, bool dma);
bool hmm_ref_range_is_ready(struct hmm_ref_range *range, bool leaf, bool dma);
int hmm_ref_range_map(struct hmm_ref_range *range, unsigned long addr,
		      struct page *page, u64 bits, bool leaf);
void hmm_ref_range_zap(struct hmm_ref_range *range, unsigned long start,
		       unsigned long end);
void hmm_ref_range_trim(struct hmm_ref_range *range);
void hmm_ref_range_unmap_all(struct hmm_ref_range *range);

/* range_fault.c */
void hmm_ref_range_walk_begin(struct hmm_ref_range *range,
			      struct hmm_range *walk);
int hmm_ref_range_walk(struct hmm_ref_range *range, struct hmm_range *walk);
int hmm_ref_range_walk_locked(struct hmm_ref_range *range,
			      struct hmm_range *walk);
int hmm_ref_range_fault(struct hmm_ref_range *range, unsigned long start,
			unsigned long end, bool write, unsigned long patience);
unsigned long hmm_ref_range_before_exclusive(struct hmm_ref_range *range,
					     unsigned long start,
					     unsigned long end);
int hmm_ref_mirror_map(struct hmm_ref_mirror *mirror, unsigned long start,
		       unsigned long length);

/* exclusive.c */
int hmm_ref_range_check_exclusive(struct hmm_ref_range *range,
				  unsigned long addr, unsigned long *end);
int hmm_ref_range_make_ready(struct hmm_ref_range *range, unsigned long addr);
int hmm_ref_mirror_exclusive(struct hmm_ref_mirror *mirror, unsigned long start,
			     unsigned long end, unsigned long *done);

/* snapshot.c */
typedef int (*hmm_ref_report_t)(void *arg, struct hmm_ref_seen *seen,
				unsigned long nr);
int hmm_ref_mirror_look(struct hmm_ref_mirror *mirror, unsigned long start,
			unsigned long end, hmm_ref_report_t report, void *arg);
int hmm_ref_mirror_resident(struct hmm_ref_mirror *mirror, unsigned long start,
			    unsigned long end, unsigned long *pfns,
			    unsigned long *resident);
unsigned long hmm_ref_range_peek(struct hmm_ref_devmem *dm,
				 struct hmm_ref_range *range,
				 unsigned long start, unsigned long end,
				 unsigned long *pfns);

/* absent.c */
unsigned long hmm_ref_next_present(const struct vm_area_struct *vma,
				   unsigned long addr, unsigned long end);
int hmm_ref_mirror_next_present(struct hmm_ref_mirror *mirror,
				unsigned long addr, unsigned long end,
				vm_flags_t flags, unsigned long *next);

#endif /* _HMM_REF_MIRROR_H */
