/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Seeing a process's memory: what the device maps of an mm.
 */
#ifndef _HMM_REF_MIRROR_H
#define _HMM_REF_MIRROR_H

#include <linux/mmu_notifier.h>
#include <linux/mutex.h>

#include "counters.h"
#include "devmem.h"
#include "pgtable.h"

struct hmm_range;

/**
 * struct hmm_ref_mirror - what the device sees of one mm
 * @notifier: covers the whole address space; @notifier.mm is the mm, kept by it
 * @dm: device memory: pages of it are mapped as such
 * @counters: of the device
 * @owner: of the client, counts for it
 * @gone: the device is: operations end early
 * @lock: covers @pt's entries; a device access holds it to its end, as hardware's
 *	TLB flush would wait for it
 * @pt: device page table
 * @spare: buffers that no operation uses now, see hmm_ref_mirror_get_buffer()
 */
struct hmm_ref_mirror {
	struct mmu_interval_notifier notifier;
	struct hmm_ref_devmem *dm;
	struct hmm_ref_counters __percpu *counters;
	struct hmm_ref_owner *owner;
	const bool *gone;
	struct mutex lock;		/* page table entries */
	struct hmm_ref_pgtable pt;
	void *spare[2];
};

/**
 * enum hmm_ref_at - what is at an address of a process
 * @HMM_REF_AT_ABSENT: no page that can be accessed without a fault
 * @HMM_REF_AT_TRAPPED: a page, not known which: NUMA balancing or a userfaultfd is told of
 *	the next access
 * @HMM_REF_AT_SYSTEM: a page of system memory, the huge zero page included
 * @HMM_REF_AT_ZERO: the zero page of the base page size
 * @HMM_REF_AT_DEVICE: a page of this device
 * @HMM_REF_AT_REMOTE: a page of another device that the CPU can access
 * @HMM_REF_AT_UNMAPPED: no mapping
 * @HMM_REF_AT_UNREADABLE: a mapping without read permission, which is not looked into
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
 * struct hmm_ref_seen - what a snapshot finds at a page address
 * @at: one of enum hmm_ref_at; SYSTEM for a page that is exclusive to the device
 * @order: the CPU maps the page by an entry of 2^order pages
 * @writable: by an entry that is writable
 * @pte: HMM_REF_PTE_* bits of the device's entry, 0 when it has none
 */
struct hmm_ref_seen {
	u8 at;
	u8 order;
	bool writable;
	u8 pte;
};

/**
 * hmm_ref_seen_alike() - how many pages in a row look the same?
 * @seen: pages
 * @nr: how many, not 0
 *
 * Return: pages, from the first one on.
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
 * hmm_ref_vma_may_write() - may a device write where the process may?
 * @vma: mapping, with mmap_lock held
 *
 * Not to a shadow stack, which a CPU writes by calls and returns only: its entries and
 * VM_WRITE say writable, and hmm_range_fault() reports that. Pages of it can be read, as
 * get_user_pages() does without FOLL_FORCE. VMAs do not change in this respect: when one
 * takes the place of another, the notifier tells.
 *
 * Return: true when it may.
 */
static inline bool hmm_ref_vma_may_write(const struct vm_area_struct *vma)
{
	return (vma->vm_flags & (VM_WRITE | VM_SHADOW_STACK)) == VM_WRITE;
}

int hmm_ref_mirror_init(struct hmm_ref_mirror *mirror, struct mm_struct *mm,
			struct hmm_ref_devmem *dm,
			struct hmm_ref_counters __percpu *counters,
			struct hmm_ref_owner *owner, const bool *gone);
void hmm_ref_mirror_exit(struct hmm_ref_mirror *mirror);
void hmm_ref_mirror_zap_all(struct hmm_ref_mirror *mirror);
int hmm_ref_mirror_fault(struct hmm_ref_mirror *mirror, unsigned long start,
			 unsigned long end, bool write, unsigned long patience);
int hmm_ref_mirror_map(struct hmm_ref_mirror *mirror, unsigned long start,
		       unsigned long length);
unsigned long hmm_ref_mirror_before_exclusive(struct hmm_ref_mirror *mirror,
					      unsigned long start, unsigned long end);
int hmm_ref_mirror_interrupted(struct hmm_ref_mirror *mirror);
int hmm_ref_mirror_insist(struct hmm_ref_mirror *mirror, unsigned long began,
			  unsigned long patience);
typedef int (*hmm_ref_attempt_t)(struct hmm_ref_mirror *mirror, void *arg);
int hmm_ref_mirror_retry(struct hmm_ref_mirror *mirror, unsigned long patience,
			 hmm_ref_attempt_t attempt, void *arg);
void *hmm_ref_mirror_get_buffer(struct hmm_ref_mirror *mirror);
void hmm_ref_mirror_put_buffer(struct hmm_ref_mirror *mirror, void *buffer);
void hmm_ref_mirror_walk_begin(struct hmm_ref_mirror *mirror, struct hmm_range *range);
int hmm_ref_mirror_walk(struct hmm_ref_mirror *mirror, struct hmm_range *range);
int hmm_ref_mirror_walk_locked(struct hmm_ref_mirror *mirror, struct hmm_range *range);

/* exclusive.c */
int hmm_ref_mirror_check_exclusive(struct hmm_ref_mirror *mirror, unsigned long addr,
				   unsigned long *end);
int hmm_ref_mirror_make_ready(struct hmm_ref_mirror *mirror, unsigned long addr);
int hmm_ref_mirror_exclusive(struct hmm_ref_mirror *mirror, unsigned long start,
			     unsigned long end, unsigned long *done);

/* snapshot.c */
typedef int (*hmm_ref_report_t)(void *arg, struct hmm_ref_seen *seen, unsigned long nr);
int hmm_ref_mirror_look(struct hmm_ref_mirror *mirror, unsigned long start,
			unsigned long end, hmm_ref_report_t report, void *arg);
int hmm_ref_mirror_resident(struct hmm_ref_mirror *mirror, unsigned long start,
			    unsigned long end, unsigned long *pfns,
			    unsigned long *resident);

unsigned long hmm_ref_mirror_peek(struct hmm_ref_mirror *mirror, unsigned long start,
				  unsigned long end, unsigned long *pfns);

/* absent.c */
unsigned long hmm_ref_next_present(const struct vm_area_struct *vma, unsigned long addr,
				   unsigned long end);
int hmm_ref_mirror_next_present(struct hmm_ref_mirror *mirror, unsigned long addr,
				unsigned long end, vm_flags_t flags, unsigned long *next);

#endif /* _HMM_REF_MIRROR_H */
