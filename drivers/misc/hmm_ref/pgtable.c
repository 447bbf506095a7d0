// SPDX-License-Identifier: GPL-2.0-only
/*
 * The device's page table: two levels, as simple hardware has.
 *
 * The upper level is an xarray by PMD index. What it holds is a leaf entry, an xarray
 * value, that maps the whole PMD; or a table of PTEs. The code knows no mm and has no
 * lock of its own: the caller's lock covers the entries. That lock is taken in reclaim,
 * so entries are only written under it: room for them is made before it is taken
 * (prepare), and what has vanished by the time that it is held makes map() fail, which
 * the caller answers by starting again.
 *
 * Who asks for a page mostly asks for its neighbour next, so the last answer of the upper
 * level is kept (hardware calls that a walk cache). The lock of the entries covers it, and
 * whoever takes that answer out of the xarray forgets it.
 *
 * Zapping a part of a leaf zaps all of it; zapping PTEs is exact to the page. Zapping a
 * whole table frees it, so memory is bounded by what is mapped.
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

static void forget(struct hmm_ref_pgtable *pt)
{
	pt->last_index = ULONG_MAX;
}

/*
 * What the upper level has for an address. That it has nothing may be out of date, since
 * prepare makes room without the lock; but then nothing is mapped there, either.
 */
static void *table_of(struct hmm_ref_pgtable *pt, unsigned long addr)
{
	unsigned long index = table_index(addr);

	if (pt->last_index != index) {
		pt->last = xa_load(&pt->tables, index);
		pt->last_index = index;
	}
	return pt->last;
}

/* The same for who writes, and needs the room. */
static void *room_of(struct hmm_ref_pgtable *pt, unsigned long addr)
{
	if (!pt->last)
		forget(pt);
	return table_of(pt, addr);
}

static void table_free(struct pt_table *table)
{
	if (!xa_is_value(table))
		kfree(table);
}

/**
 * hmm_ref_pgtable_init() - set up an empty page table
 * @pt: to set up
 */
void hmm_ref_pgtable_init(struct hmm_ref_pgtable *pt)
{
	xa_init_flags(&pt->tables, XA_FLAGS_ACCOUNT);
	forget(pt);
}
EXPORT_SYMBOL_IF_KUNIT(hmm_ref_pgtable_init);

/**
 * hmm_ref_pgtable_destroy() - free all of a page table
 * @pt: that nobody uses any more
 */
void hmm_ref_pgtable_destroy(struct hmm_ref_pgtable *pt)
{
	struct pt_table *table;
	unsigned long index;

	xa_for_each(&pt->tables, index, table)
		table_free(table);
	xa_destroy(&pt->tables);
}
EXPORT_SYMBOL_IF_KUNIT(hmm_ref_pgtable_destroy);

/**
 * hmm_ref_pgtable_prepare() - make room for an entry
 * @pt: page table
 * @addr: any address in the PMD
 * @leaf: for one that maps the PMD
 *
 * Room for a leaf is one that maps nothing.
 *
 * Context: may sleep and enter reclaim; not under the lock of the entries.
 * Return: 0 or -ENOMEM.
 */
int hmm_ref_pgtable_prepare(struct hmm_ref_pgtable *pt, unsigned long addr,
			    bool leaf)
{
	void *room = xa_mk_value(0);
	int rc;

	if (hmm_ref_fail(HMM_REF_FAIL_MAP))
		return -ENOMEM;
	if (xa_load(&pt->tables, table_index(addr)))
		return 0;
	if (!leaf)
		room = kzalloc_obj(struct pt_table, GFP_KERNEL_ACCOUNT);
	if (!room)
		return -ENOMEM;
	rc = xa_insert(&pt->tables, table_index(addr), room, GFP_KERNEL_ACCOUNT);
	if (rc)
		table_free(room);
	return rc == -EBUSY ? 0 : rc;
}
EXPORT_SYMBOL_IF_KUNIT(hmm_ref_pgtable_prepare);

/**
 * hmm_ref_pgtable_map() - write an entry
 * @pt: page table
 * @addr: page address
 * @pte: entry
 *
 * A leaf in the way is zapped.
 *
 * Context: the lock of the entries; does not allocate.
 * Return: false when there is no table: prepare and try again.
 */
bool hmm_ref_pgtable_map(struct hmm_ref_pgtable *pt, unsigned long addr,
			 hmm_ref_pte_t pte)
{
	struct pt_table *table = room_of(pt, addr);

	if (!table)
		return false;
	if (xa_is_value(table)) {
		forget(pt);
		xa_erase(&pt->tables, table_index(addr));
		return false;
	}
	table->pte[pte_index_of(addr)] = pte;
	return true;
}
EXPORT_SYMBOL_IF_KUNIT(hmm_ref_pgtable_map);

/**
 * hmm_ref_pgtable_map_leaf() - write an entry that maps a PMD
 * @pt: page table
 * @addr: any address in the PMD
 * @pte: entry for the PMD's first page
 *
 * A table in the way is freed.
 *
 * Context: the lock of the entries; does not allocate.
 * Return: false when there is no room: prepare and try again.
 */
bool hmm_ref_pgtable_map_leaf(struct hmm_ref_pgtable *pt, unsigned long addr,
			      hmm_ref_pte_t pte)
{
	struct pt_table *table = room_of(pt, addr);

	if (!table)
		return false;
	forget(pt);
	/* Replaces what is there, which takes no memory. */
	xa_store(&pt->tables, table_index(addr), xa_mk_value(pte), GFP_NOWAIT);
	table_free(table);
	return true;
}
EXPORT_SYMBOL_IF_KUNIT(hmm_ref_pgtable_map_leaf);

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
	struct pt_table *table = table_of(pt, addr);
	hmm_ref_pte_t leaf;

	if (!xa_is_value(table))
		return table ? table->pte[pte_index_of(addr)] : 0;
	leaf = xa_to_value(table);
	if (!(leaf & HMM_REF_PTE_VALID))
		return 0;
	return leaf + ((hmm_ref_pte_t)pte_index_of(addr) << HMM_REF_PTE_SHIFT);
}
EXPORT_SYMBOL_IF_KUNIT(hmm_ref_pgtable_lookup);

/**
 * hmm_ref_pgtable_zap() - unmap a range, and the rest of a leaf that it cuts
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

		if (xa_is_value(table) ||
		    (from == base && last == base + PMD_SIZE - 1)) {
			forget(pt);
			xa_erase(&pt->tables, index);
			table_free(table);
		} else {
			memset(&table->pte[pte_index_of(from)], 0,
			       (pte_index_of(last) - pte_index_of(from) + 1) *
			       sizeof(hmm_ref_pte_t));
		}
	}
}
EXPORT_SYMBOL_IF_KUNIT(hmm_ref_pgtable_zap);
