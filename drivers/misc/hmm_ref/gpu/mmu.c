// SPDX-License-Identifier: GPL-2.0-only
/*
 * The simulated MMU, which caches page table entries in a TLB.
 *
 * An access holds gpu->accesses for reading from the translation to its end. A
 * flush takes it for writing: it waits for accesses under way, and the next one
 * reads the page table.
 */
#include <linux/export.h>
#include <linux/rcupdate.h>
#include <linux/string.h>

#include "gpu.h"

/**
 * hmm_ref_gpu_mmu_init() - set up the MMU
 * @gpu: GPU
 */
void hmm_ref_gpu_mmu_init(struct hmm_ref_gpu *gpu)
{
	rwlock_init(&gpu->accesses);
	spin_lock_init(&gpu->tlb_lock);
	memset(gpu->tlb, 0, sizeof(gpu->tlb));
	spin_lock_init(&gpu->link_lock);
}

static bool allows(hmm_ref_pte_t pte, enum hmm_ref_gpu_access access)
{
	switch (access) {
	case HMM_REF_GPU_LOAD:
		return pte & HMM_REF_PTE_VALID;
	case HMM_REF_GPU_STORE:
		return pte & HMM_REF_PTE_VALID && pte & HMM_REF_PTE_WRITE;
	default:
		return hmm_ref_pte_allows_atomics(pte);
	}
}

/**
 * hmm_ref_gpu_translate() - find an entry that allows an access
 * @gpu: GPU
 * @space: address space
 * @addr: address
 * @access: kind of access
 * @nr: in: maximum number of pages; out: number of pages starting at @addr that
 *	are contiguous in GPU memory and allow the access as well
 *
 * A cached entry that does not allow the access is read again: granting more
 * rights needs no flush.
 *
 * Context: hmm_ref_gpu::accesses held for reading, as long as the entry is
 * used.
 * Return: the entry, or 0.
 */
hmm_ref_pte_t hmm_ref_gpu_translate(struct hmm_ref_gpu *gpu,
				    struct hmm_ref_space *space,
				    unsigned long addr,
				    enum hmm_ref_gpu_access access,
				    unsigned int *nr)
{
	unsigned long page = addr >> PAGE_SHIFT;
	struct hmm_ref_translation *slot = &gpu->tlb[page % HMM_REF_TLB_SIZE];
	unsigned int most = *nr;
	hmm_ref_pte_t pte = 0;

	/* Most misses are detected without the lock. */
	if (READ_ONCE(slot->page) == page) {
		spin_lock(&gpu->tlb_lock);
		if (slot->page == page && slot->space == space) {
			pte = slot->pte;
			*nr = min(slot->nr, most);
		}
		spin_unlock(&gpu->tlb_lock);
	}
	if (allows(pte, access))
		return pte;
	*nr = min(most, HMM_REF_TLB_REACH);
	rcu_read_lock();
	pte = space->walk(space, addr, nr);
	rcu_read_unlock();
	if (!allows(pte, access))
		return 0;
	spin_lock(&gpu->tlb_lock);
	slot->space = space;
	WRITE_ONCE(slot->page, page);
	slot->nr = *nr;
	slot->pte = pte;
	spin_unlock(&gpu->tlb_lock);
	return pte;
}

/**
 * hmm_ref_gpu_flush() - implementation of hmm_ref_hw_ops::flush
 * @hw: hardware of a struct hmm_ref_gpu
 * @space: address space
 * @start: page address
 * @end: page address, exclusive
 */
void hmm_ref_gpu_flush(struct hmm_ref_hw *hw, struct hmm_ref_space *space,
		       unsigned long start, unsigned long end)
{
	struct hmm_ref_gpu *gpu = hmm_ref_to_gpu(hw);
	unsigned int i;

	write_lock(&gpu->accesses);
	for (i = 0; i < HMM_REF_TLB_SIZE; i++) {
		struct hmm_ref_translation *slot = &gpu->tlb[i];

		if (slot->space == space &&
		    slot->page + slot->nr > start >> PAGE_SHIFT &&
		    slot->page < end >> PAGE_SHIFT)
			*slot = (struct hmm_ref_translation){};
	}
	write_unlock(&gpu->accesses);
}
EXPORT_SYMBOL_NS_GPL(hmm_ref_gpu_flush, "HMM_REF");
