// SPDX-License-Identifier: GPL-2.0-only
/*
 * The device's page table: two levels, as simple hardware has.
 *
 * The upper level is an xarray by PMD index, the lower one a table of PTEs. The
 * code knows no mm and has no lock of its own: the caller's lock covers the
 * entries. That lock is taken in reclaim, so entries are only written under it:
 * tables are made before it is taken (prepare), and what has vanished by the time
 * that it is held makes map() fail, which the caller answers by starting again.
 *
 * Zapping a whole table frees it, so memory is bounded by what is mapped.
 */
#include <linux/slab.h>

#include "hmm_ref.h"

struct pt_table {
	hmm_ref_pte_t pte[HMM_REF_BLOCK_PAGES];
};

static unsigned long table_index(unsigned long addr)
{
	return addr >> PMD_SHIFT;
}

static unsigned long pte_index_of(unsigned long addr)
{
	return (addr & ~PMD_MASK) >> PAGE_SHIFT;
}

/**
 * hmm_ref_pgtable_init() - set up an empty page table
 * @pt: to set up
 */
void hmm_ref_pgtable_init(struct hmm_ref_pgtable *pt)
{
	xa_init(&pt->tables);
}

/**
 * hmm_ref_pgtable_destroy() - free all of a page table
 * @pt: that nobody uses any more
 */
void hmm_ref_pgtable_destroy(struct hmm_ref_pgtable *pt)
{
	struct pt_table *table;
	unsigned long index;

	xa_for_each(&pt->tables, index, table)
		kfree(table);
	xa_destroy(&pt->tables);
}

/**
 * hmm_ref_pgtable_prepare() - make the table that an address needs
 * @pt: page table
 * @addr: any address in the PMD
 *
 * Context: may sleep and enter reclaim; not under the lock of the entries.
 * Return: 0 or -ENOMEM.
 */
int hmm_ref_pgtable_prepare(struct hmm_ref_pgtable *pt, unsigned long addr)
{
	struct pt_table *table;
	int rc;

	if (xa_load(&pt->tables, table_index(addr)))
		return 0;
	table = kzalloc_obj(*table, GFP_KERNEL_ACCOUNT);
	if (!table)
		return -ENOMEM;
	rc = xa_insert(&pt->tables, table_index(addr), table, GFP_KERNEL_ACCOUNT);
	if (rc)
		kfree(table);
	return rc == -EBUSY ? 0 : rc;
}

/**
 * hmm_ref_pgtable_map() - write an entry
 * @pt: page table
 * @addr: page address
 * @pte: entry
 *
 * Context: the lock of the entries; does not allocate.
 * Return: false when there is no table: prepare and try again.
 */
bool hmm_ref_pgtable_map(struct hmm_ref_pgtable *pt, unsigned long addr,
			 hmm_ref_pte_t pte)
{
	struct pt_table *table = xa_load(&pt->tables, table_index(addr));

	if (!table)
		return false;
	table->pte[pte_index_of(addr)] = pte;
	return true;
}

/**
 * hmm_ref_pgtable_lookup() - read an entry
 * @pt: page table
 * @addr: page address
 *
 * Context: the lock of the entries.
 * Return: the entry, 0 when nothing is mapped.
 */
hmm_ref_pte_t hmm_ref_pgtable_lookup(struct hmm_ref_pgtable *pt,
				     unsigned long addr)
{
	struct pt_table *table = xa_load(&pt->tables, table_index(addr));

	return table ? table->pte[pte_index_of(addr)] : 0;
}

/**
 * hmm_ref_pgtable_zap() - unmap a range, exact to the page
 * @pt: page table
 * @start: page address
 * @end: page address, exclusive; ULONG_MAX for everything
 *
 * Context: the lock of the entries; does not allocate.
 */
void hmm_ref_pgtable_zap(struct hmm_ref_pgtable *pt, unsigned long start,
			 unsigned long end)
{
	struct pt_table *table;
	unsigned long index;

	if (start >= end)
		return;
	xa_for_each_range(&pt->tables, index, table, table_index(start),
			  table_index(end - 1)) {
		unsigned long base = index << PMD_SHIFT;
		unsigned long from = max(start, base);
		unsigned long last = min(end - 1, base + PMD_SIZE - 1);

		if (from == base && last == base + PMD_SIZE - 1) {
			xa_erase(&pt->tables, index);
			kfree(table);
		} else {
			memset(&table->pte[pte_index_of(from)], 0,
			       (pte_index_of(last) - pte_index_of(from) + 1) *
			       sizeof(hmm_ref_pte_t));
		}
	}
}
