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
 * the function that takes it out of the xarray forgets it.
 *
 * Zapping a part of a leaf zaps all of it; zapping PTEs is exact to the page.
 *
 * Invariant: but for room between prepare and the map or trim that follows it, a table has
 * a valid entry, and a leaf is one. So memory is bounded by what is mapped: at most
 * one table for a PMD of which the CPU, too, maps a page.
 */
#include <linux/slab.h>

#include "pgtable.h"
#include "fail.h"

/**
 * struct pt_table - entries of one PMD
 * @nr_valid: how many are valid
 * @pte: what hardware would read, HMM_REF_BLOCK_PAGES of them: the count is not for it,
 *	and beside it would double the allocation
 */
struct pt_table {
	unsigned int nr_valid;
	hmm_ref_pte_t *pte;
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

/* The same for a caller that writes, and needs the room. */
static void *room_of(struct hmm_ref_pgtable *pt, unsigned long addr)
{
	if (!pt->last)
		forget(pt);
	return table_of(pt, addr);
}

static struct pt_table *table_alloc(void)
{
	struct pt_table *table = kzalloc_obj(*table, GFP_KERNEL_ACCOUNT);

	if (!table)
		return NULL;
	table->pte = kcalloc(HMM_REF_BLOCK_PAGES, sizeof(*table->pte), GFP_KERNEL_ACCOUNT);
	if (table->pte)
		return table;
	kfree(table);
	return NULL;
}

static void table_free(struct pt_table *table)
{
	if (!table || xa_is_value(table))
		return;
	kfree(table->pte);
	kfree(table);
}

/* Take a table, or a leaf, out of the upper level. */
static void drop(struct hmm_ref_pgtable *pt, unsigned long index)
{
	forget(pt);
	table_free(xa_erase(&pt->tables, index));
}

static void table_set(struct pt_table *table, unsigned long index, hmm_ref_pte_t pte)
{
	table->nr_valid -= table->pte[index] & HMM_REF_PTE_VALID;
	table->nr_valid += pte & HMM_REF_PTE_VALID;
	table->pte[index] = pte;
}

static bool maps_nothing(const struct pt_table *table)
{
	if (xa_is_value(table))
		return !(xa_to_value(table) & HMM_REF_PTE_VALID);
	return !table->nr_valid;
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
 * @pt: that is not used any more
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
 * Room for a leaf is one that maps nothing. Whoever does not map there after all calls
 * hmm_ref_pgtable_trim().
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
		room = table_alloc();
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
 * @pte: entry that is valid
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
		drop(pt, table_index(addr));
		return false;
	}
	table_set(table, pte_index_of(addr), pte);
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
 * hmm_ref_pgtable_look() - entries of a PMD, to read
 * @pt: page table
 * @addr: any address in the PMD
 *
 * Context: the lock of the entries, as long as they are read.
 * Return: the entries, for hmm_ref_pte_at().
 */
struct hmm_ref_ptes hmm_ref_pgtable_look(struct hmm_ref_pgtable *pt, unsigned long addr)
{
	struct pt_table *table = table_of(pt, addr);

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
 * Context: the lock of the entries.
 * Return: the entry, 0 when nothing is mapped.
 */
hmm_ref_pte_t hmm_ref_pgtable_lookup(struct hmm_ref_pgtable *pt,
				     unsigned long addr)
{
	struct hmm_ref_ptes ptes = hmm_ref_pgtable_look(pt, addr);

	return hmm_ref_pte_at(&ptes, addr);
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
	unsigned long index, i;

	if (start >= end)
		return;
	xa_for_each_range(&pt->tables, index, table, table_index(start),
			  table_index(end - 1)) {
		unsigned long base = index << PMD_SHIFT;
		unsigned long from = max(start, base);
		unsigned long last = min(end - 1, base + PMD_SIZE - 1);

		if (xa_is_value(table) ||
		    (from == base && last == base + PMD_SIZE - 1)) {
			drop(pt, index);
			continue;
		}
		for (i = pte_index_of(from); i <= pte_index_of(last); i++)
			table_set(table, i, 0);
		if (maps_nothing(table))
			drop(pt, index);
	}
}
EXPORT_SYMBOL_IF_KUNIT(hmm_ref_pgtable_zap);

/**
 * hmm_ref_pgtable_trim() - free room that nothing was mapped in
 * @pt: page table
 * @addr: any address in the PMD
 *
 * Context: the lock of the entries; does not allocate.
 */
void hmm_ref_pgtable_trim(struct hmm_ref_pgtable *pt, unsigned long addr)
{
	struct pt_table *table = room_of(pt, addr);

	if (table && maps_nothing(table))
		drop(pt, table_index(addr));
}
EXPORT_SYMBOL_IF_KUNIT(hmm_ref_pgtable_trim);

#ifdef CONFIG_HMM_REF_SANITY
/**
 * hmm_ref_pgtable_is_trimmed() - is there no room that nothing is mapped in?
 * @pt: page table that no entry is being written of
 *
 * Context: the lock of the entries.
 * Return: whether the invariant holds.
 */
bool hmm_ref_pgtable_is_trimmed(struct hmm_ref_pgtable *pt)
{
	struct pt_table *table;
	unsigned long index;

	xa_for_each(&pt->tables, index, table) {
		if (maps_nothing(table))
			return false;
	}
	return true;
}
#endif
