/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The device's page table: its entries, and the table of one PMD.
 */
#ifndef _HMM_REF_PGTABLE_H
#define _HMM_REF_PGTABLE_H

#include "base.h"

/*
 * An entry holds a page number above the HMM_REF_PTE_* bits: a dpfn if
 * HMM_REF_PTE_DEVICE is set, else the number of a DMA page in system memory.
 */
typedef u64 hmm_ref_pte_t;

#define HMM_REF_PTE_VALID	BIT_ULL(0)
#define HMM_REF_PTE_WRITE	BIT_ULL(1)
#define HMM_REF_PTE_DEVICE	BIT_ULL(2)	/* page of the device */
#define HMM_REF_PTE_EXCLUSIVE	BIT_ULL(3)	/* not mapped by any CPU */
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
 * hmm_ref_pte_allows_atomics() - test whether an entry allows device atomics
 * @pte: entry
 *
 * Return: true if it does.
 */
static inline bool hmm_ref_pte_allows_atomics(hmm_ref_pte_t pte)
{
	return pte & HMM_REF_PTE_EXCLUSIVE ||
	       (pte & HMM_REF_PTE_DEVICE && pte & HMM_REF_PTE_WRITE);
}

/**
 * struct hmm_ref_pgtable - the device page table of one PMD
 * @table: a table of PTEs, a leaf entry as an xarray value, or NULL
 *
 * The caller's lock covers the entries, see pgtable.c. All zeros is an empty
 * table.
 */
struct hmm_ref_pgtable {
	void *table;
};

/**
 * struct hmm_ref_ptes - entries of one PMD, from hmm_ref_pgtable_look()
 * @pte: array of entries, or NULL
 * @leaf: if @pte is NULL, the entry that maps the whole PMD, which may be
 *	invalid
 */
struct hmm_ref_ptes {
	const hmm_ref_pte_t *pte;
	hmm_ref_pte_t leaf;
};

/**
 * hmm_ref_pte_at() - read one entry of a PMD
 * @ptes: entries
 * @addr: page address in the PMD
 *
 * Return: the entry, 0 if nothing is mapped.
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

/* True if nothing is mapped. The result may be stale without the lock. */
static inline bool hmm_ref_pgtable_is_empty(const struct hmm_ref_pgtable *pt)
{
	return !READ_ONCE(pt->table);
}

#endif /* _HMM_REF_PGTABLE_H */
