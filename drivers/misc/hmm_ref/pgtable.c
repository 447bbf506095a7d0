// SPDX-License-Identifier: GPL-2.0-only
/*
 * The device's page table: two levels, as simple hardware has.
 *
 * The upper level consists of the ranges of a mirror, one per PMD. This file is
 * the lower level, the table of one PMD: either a leaf entry, stored as an
 * xarray value, that maps all of it, or a table of PTEs. The code knows no mm
 * and has no lock of its own. The caller's lock covers the entries, and nothing
 * is allocated under it: memory for entries is allocated before (prepare). If
 * that has vanished once the lock is held, is_ready() says so, and the caller
 * starts again.
 *
 * Zapping a part of a leaf zaps all of it; zapping PTEs is exact to the page. A
 * leaf never overwrites a table, nor a table a leaf: the caller zaps first,
 * because the device may be using the old entries.
 *
 * The device reads entries without the lock, in an RCU read-side critical
 * section. An entry that it has read stays valid until the flush that follows
 * the zap, see range_map.c.
 *
 * Invariant: apart from memory between prepare and the next map or trim, a
 * table has a valid entry, and a leaf is valid. So mapped memory bounds the
 * size of the page table: at most one table for each PMD in which the CPU maps
 * a page, too.
 */
#include <linux/rcupdate.h>
#include <linux/slab.h>
#include <linux/xarray.h>

#include "pgtable.h"
#include "fail.h"

/**
 * struct pt_table - entries of one PMD
 * @rcu: frees the table, which the device may be reading
 * @nr_valid: number of valid entries
 * @pte: HMM_REF_BLOCK_PAGES entries, read by the hardware; allocated
 *	separately, as with @nr_valid the size would round up to twice that
 */
struct pt_table {
	struct rcu_head rcu;
	unsigned int nr_valid;
	hmm_ref_pte_t *pte;
};

static unsigned long pte_index_of(unsigned long addr)
{
	return (addr & ~PMD_MASK) >> PAGE_SHIFT;
}

static struct pt_table *table_alloc(void)
{
	struct pt_table *table = kzalloc_obj(*table, GFP_KERNEL_ACCOUNT);

	if (!table)
		return NULL;
	table->pte = kcalloc(HMM_REF_BLOCK_PAGES, sizeof(*table->pte),
			     GFP_KERNEL_ACCOUNT);
	if (table->pte)
		return table;
	kfree(table);
	return NULL;
}

static void table_free(struct rcu_head *rcu)
{
	struct pt_table *table = container_of(rcu, struct pt_table, rcu);

	kfree(table->pte);
	kfree(table);
}

static void table_put(struct pt_table *table)
{
	if (table && !xa_is_value(table))
		call_rcu(&table->rcu, table_free);
}

/* A concurrent prepare sees the old table or none. */
static void drop(struct hmm_ref_pgtable *pt)
{
	table_put(xchg(&pt->table, NULL));
}

static void table_set(struct pt_table *table, unsigned long index,
		      hmm_ref_pte_t pte)
{
	table->nr_valid -= table->pte[index] & HMM_REF_PTE_VALID;
	table->nr_valid += pte & HMM_REF_PTE_VALID;
	WRITE_ONCE(table->pte[index], pte);
}

static bool maps_nothing(const struct pt_table *table)
{
	if (xa_is_value(table))
		return !(xa_to_value(table) & HMM_REF_PTE_VALID);
	return !table->nr_valid;
}

/**
 * hmm_ref_pgtable_destroy() - free a page table
 * @pt: page table, unused from now on
 */
void hmm_ref_pgtable_destroy(struct hmm_ref_pgtable *pt)
{
	drop(pt);
}
EXPORT_SYMBOL_IF_KUNIT(hmm_ref_pgtable_destroy);

/**
 * hmm_ref_pgtable_prepare() - allocate memory for entries
 * @pt: page table
 * @leaf: for a leaf
 *
 * For a leaf, stores one that maps nothing. A caller that then does not map
 * calls hmm_ref_pgtable_trim().
 *
 * Context: may sleep and enter reclaim; not under the lock of the entries.
 * Return: 0 or -ENOMEM.
 */
int hmm_ref_pgtable_prepare(struct hmm_ref_pgtable *pt, bool leaf)
{
	void *room = xa_mk_value(0);

	if (hmm_ref_fail(HMM_REF_FAIL_MAP))
		return -ENOMEM;
	if (!hmm_ref_pgtable_is_empty(pt))
		return 0;
	if (!leaf)
		room = table_alloc();
	if (!room)
		return -ENOMEM;
	hmm_ref_slow(HMM_REF_SLOW_ROOM);
	if (cmpxchg(&pt->table, NULL, room))
		table_put(room);
	return 0;
}
EXPORT_SYMBOL_IF_KUNIT(hmm_ref_pgtable_prepare);

/**
 * hmm_ref_pgtable_is_ready() - test whether memory for an entry is prepared
 * @pt: page table
 * @leaf: for a leaf
 *
 * Context: the lock of the entries; the result holds until it is dropped or
 * entries are zapped.
 * Return: true if an entry can be written. If not, there is no memory, or
 * memory of the other kind: zap, prepare, and try again.
 */
bool hmm_ref_pgtable_is_ready(struct hmm_ref_pgtable *pt, bool leaf)
{
	const struct pt_table *table = READ_ONCE(pt->table);

	return table && xa_is_value(table) == leaf;
}
EXPORT_SYMBOL_IF_KUNIT(hmm_ref_pgtable_is_ready);

/**
 * hmm_ref_pgtable_map() - write a PTE
 * @pt: page table that is ready for it
 * @addr: page address
 * @pte: valid entry
 *
 * Context: the lock of the entries.
 */
void hmm_ref_pgtable_map(struct hmm_ref_pgtable *pt, unsigned long addr,
			 hmm_ref_pte_t pte)
{
	table_set(pt->table, pte_index_of(addr), pte);
}
EXPORT_SYMBOL_IF_KUNIT(hmm_ref_pgtable_map);

/**
 * hmm_ref_pgtable_map_leaf() - write a leaf
 * @pt: page table that is ready for it
 * @pte: entry of the first page of the PMD
 *
 * Context: the lock of the entries.
 */
void hmm_ref_pgtable_map_leaf(struct hmm_ref_pgtable *pt, hmm_ref_pte_t pte)
{
	WRITE_ONCE(pt->table, xa_mk_value(pte));
}
EXPORT_SYMBOL_IF_KUNIT(hmm_ref_pgtable_map_leaf);

/**
 * hmm_ref_pgtable_look() - get the entries of a page table for reading
 * @pt: page table
 *
 * Context: the lock of the entries, or RCU, while they are read.
 * Return: the entries, for hmm_ref_pte_at().
 */
struct hmm_ref_ptes hmm_ref_pgtable_look(struct hmm_ref_pgtable *pt)
{
	struct pt_table *table = READ_ONCE(pt->table);

	if (!table)
		return (struct hmm_ref_ptes){};
	if (xa_is_value(table))
		return (struct hmm_ref_ptes){ .leaf = xa_to_value(table) };
	return (struct hmm_ref_ptes){ .pte = table->pte };
}

/**
 * hmm_ref_pgtable_lookup() - read an entry
 * @pt: page table
 * @addr: page address
 *
 * Context: the lock of the entries, or RCU.
 * Return: the entry, 0 if nothing is mapped.
 */
hmm_ref_pte_t hmm_ref_pgtable_lookup(struct hmm_ref_pgtable *pt,
				     unsigned long addr)
{
	struct hmm_ref_ptes ptes = hmm_ref_pgtable_look(pt);

	return hmm_ref_pte_at(&ptes, addr);
}
EXPORT_SYMBOL_IF_KUNIT(hmm_ref_pgtable_lookup);

/**
 * hmm_ref_pgtable_lookup_run() - read an entry and the length of its run
 * @pt: page table
 * @addr: page address
 * @nr: in: maximum number of pages to look up; out: number of pages starting at
 *	@addr that are contiguous in one block of device memory and have the
 *	same rights; 1 if the page is not on the device
 *
 * Context: the lock of the entries, or RCU.
 * Return: the entry of @addr, 0 if nothing is mapped.
 */
hmm_ref_pte_t hmm_ref_pgtable_lookup_run(struct hmm_ref_pgtable *pt,
					 unsigned long addr, unsigned int *nr)
{
	struct hmm_ref_ptes ptes = hmm_ref_pgtable_look(pt);
	hmm_ref_pte_t pte = hmm_ref_pte_at(&ptes, addr), next = pte;
	unsigned int most = *nr;

	for (*nr = 1; *nr < most && pte & HMM_REF_PTE_DEVICE; ++*nr) {
		addr += PAGE_SIZE;
		next += BIT_ULL(HMM_REF_PTE_SHIFT);
		if (IS_ALIGNED(addr, PMD_SIZE) ||
		    IS_ALIGNED(hmm_ref_pte_number(next), HMM_REF_BLOCK_PAGES) ||
		    hmm_ref_pte_at(&ptes, addr) != next)
			break;
	}
	return pte;
}
EXPORT_SYMBOL_IF_KUNIT(hmm_ref_pgtable_lookup_run);

/**
 * hmm_ref_pgtable_zap() - unmap pages, or the leaf that maps them
 * @pt: page table
 * @start: page address
 * @end: page address in the same PMD, or its end; exclusive
 *
 * Context: the lock of the entries.
 */
void hmm_ref_pgtable_zap(struct hmm_ref_pgtable *pt, unsigned long start,
			 unsigned long end)
{
	struct pt_table *table = READ_ONCE(pt->table);
	unsigned long i;

	if (!table || start >= end)
		return;
	if (!xa_is_value(table) && end - start < PMD_SIZE) {
		for (i = pte_index_of(start); i <= pte_index_of(end - 1); i++)
			table_set(table, i, 0);
		if (!maps_nothing(table))
			return;
	}
	drop(pt);
}
EXPORT_SYMBOL_IF_KUNIT(hmm_ref_pgtable_zap);

/**
 * hmm_ref_pgtable_trim() - free prepared memory that was not used
 * @pt: page table
 *
 * Context: the lock of the entries.
 */
void hmm_ref_pgtable_trim(struct hmm_ref_pgtable *pt)
{
	struct pt_table *table = READ_ONCE(pt->table);

	if (table && maps_nothing(table))
		drop(pt);
}
EXPORT_SYMBOL_IF_KUNIT(hmm_ref_pgtable_trim);

#ifdef CONFIG_HMM_REF_SANITY
/**
 * hmm_ref_pgtable_is_trimmed() - test whether the invariant holds
 * @pt: page table with no map under way
 *
 * Context: the lock of the entries.
 * Return: true if there is no table without a valid entry.
 */
bool hmm_ref_pgtable_is_trimmed(struct hmm_ref_pgtable *pt)
{
	return !pt->table || !maps_nothing(pt->table);
}
#endif
