/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The device's page table.
 */
#ifndef _HMM_REF_PGTABLE_H
#define _HMM_REF_PGTABLE_H

#include "base.h"

/*
 * An entry holds the page's number, on the device or of its DMA address in system memory, above
 * the bits that tell which and what the device may do.
 */
typedef u64 hmm_ref_pte_t;

#define HMM_REF_PTE_VALID	BIT_ULL(0)
#define HMM_REF_PTE_WRITE	BIT_ULL(1)
#define HMM_REF_PTE_DEVICE	BIT_ULL(2)	/* number is a dpfn, else of a DMA page */
#define HMM_REF_PTE_EXCLUSIVE	BIT_ULL(3)	/* no CPU maps the page */
#define HMM_REF_PTE_SHIFT	4
#define HMM_REF_PTE_BITS	(BIT_ULL(HMM_REF_PTE_SHIFT) - 1)

static inline hmm_ref_pte_t hmm_ref_pte(unsigned long number, u64 bits)
{
	return (u64)number << HMM_REF_PTE_SHIFT | bits | HMM_REF_PTE_VALID;
}

static inline unsigned long hmm_ref_pte_number(hmm_ref_pte_t pte)
{
	return pte >> HMM_REF_PTE_SHIFT;
}

/**
 * hmm_ref_pte_allows_atomics() - can the device do atomics through an entry?
 * @pte: entry
 *
 * Return: true when it can.
 */
static inline bool hmm_ref_pte_allows_atomics(hmm_ref_pte_t pte)
{
	return pte & HMM_REF_PTE_EXCLUSIVE ||
	       (pte & HMM_REF_PTE_DEVICE && pte & HMM_REF_PTE_WRITE);
}

/**
 * struct hmm_ref_pgtable - what the device's page table has for one PMD
 * @table: a table of PTEs; a leaf entry as an xarray value; or NULL
 *
 * Entries are covered by the caller's lock; see pgtable.c. All zeros is a table that is empty.
 */
struct hmm_ref_pgtable {
	void *table;
};

/**
 * struct hmm_ref_ptes - what a PMD of the device page table has, see hmm_ref_pgtable_look()
 * @pte: its entries; NULL when all of it is mapped at once, or nothing
 * @leaf: then the entry that maps all of it, or one that is not valid
 */
struct hmm_ref_ptes {
	const hmm_ref_pte_t *pte;
	hmm_ref_pte_t leaf;
};

/**
 * hmm_ref_pte_at() - one of the entries of a PMD
 * @ptes: entries
 * @addr: page address in the PMD
 *
 * Return: the entry, 0 when nothing is mapped.
 */
static inline hmm_ref_pte_t hmm_ref_pte_at(const struct hmm_ref_ptes *ptes,
					   unsigned long addr)
{
	unsigned long index = (addr >> PAGE_SHIFT) & (HMM_REF_BLOCK_PAGES - 1);

	if (ptes->pte)
		return READ_ONCE(ptes->pte[index]);
	if (!(ptes->leaf & HMM_REF_PTE_VALID))
		return 0;
	return ptes->leaf + ((hmm_ref_pte_t)index << HMM_REF_PTE_SHIFT);
}

void hmm_ref_pgtable_destroy(struct hmm_ref_pgtable *pt);
int hmm_ref_pgtable_prepare(struct hmm_ref_pgtable *pt, bool leaf);
bool hmm_ref_pgtable_is_ready(struct hmm_ref_pgtable *pt, bool leaf);
void hmm_ref_pgtable_map(struct hmm_ref_pgtable *pt, unsigned long addr,
			 hmm_ref_pte_t pte);
void hmm_ref_pgtable_map_leaf(struct hmm_ref_pgtable *pt, hmm_ref_pte_t pte);
struct hmm_ref_ptes hmm_ref_pgtable_look(struct hmm_ref_pgtable *pt);
hmm_ref_pte_t hmm_ref_pgtable_lookup(struct hmm_ref_pgtable *pt,
				     unsigned long addr);
hmm_ref_pte_t hmm_ref_pgtable_lookup_run(struct hmm_ref_pgtable *pt,
					 unsigned long addr, unsigned int *nr);
void hmm_ref_pgtable_zap(struct hmm_ref_pgtable *pt, unsigned long start,
			 unsigned long end);
void hmm_ref_pgtable_trim(struct hmm_ref_pgtable *pt);
bool hmm_ref_pgtable_is_trimmed(struct hmm_ref_pgtable *pt);

/* Does it map nothing? Without the lock that may be out of date. */
static inline bool hmm_ref_pgtable_is_empty(const struct hmm_ref_pgtable *pt)
{
	return !READ_ONCE(pt->table);
}

#endif /* _HMM_REF_PGTABLE_H */
