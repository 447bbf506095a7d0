// SPDX-License-Identifier: GPL-2.0-only
/*
 * The device's page table of one PMD, compared with a naive model: an array of
 * entries, and the kind of memory that is prepared.
 *
 * The model implements the contract in pgtable.c, return values included:
 * zapping a part of a leaf zaps all of it, zapping PTEs is exact to the page, a
 * table is freed with its last entry, and memory of one kind is not ready for
 * the other.
 */
#include <linux/xarray.h>

#include "tests.h"

#define NR_PAGES	HMM_REF_BLOCK_PAGES

/* A LEAF may map nothing. */
enum room { NONE, TABLE, LEAF };

/**
 * struct model - a page table and its expected state
 * @pt: page table under test
 * @base: address of the first page
 * @room: kind of memory prepared in @pt
 * @pte: entries by page, 0 for none
 * @rnd: random state
 */
struct model {
	struct hmm_ref_pgtable pt;
	unsigned long base;
	enum room room;
	hmm_ref_pte_t pte[NR_PAGES];
	struct rnd_state rnd;
};

static unsigned long addr_of(const struct model *m, unsigned int page)
{
	return m->base + ((unsigned long)page << PAGE_SHIFT);
}

static unsigned int below(struct model *m, unsigned int n)
{
	return hmm_ref_test_below(&m->rnd, n);
}

static void clear_all(struct model *m, enum room room)
{
	memset(m->pte, 0, sizeof(m->pte));
	m->room = room;
}

static bool maps_nothing(const struct model *m)
{
	return !memchr_inv(m->pte, 0, sizeof(m->pte));
}

/* ---- each function, called and compared -------------------------------- */

static void do_prepare(struct kunit *test, struct model *m, bool leaf)
{
	KUNIT_EXPECT_EQ(test, hmm_ref_pgtable_prepare(&m->pt, leaf), 0);
	if (m->room == NONE)
		m->room = leaf ? LEAF : TABLE;
}

static void do_map(struct kunit *test, struct model *m, unsigned int page,
		   hmm_ref_pte_t pte)
{
	KUNIT_EXPECT_EQ_MSG(test, hmm_ref_pgtable_is_ready(&m->pt, false),
			    m->room == TABLE, "page %u, room %d", page,
			    m->room);
	if (m->room != TABLE)
		return;
	hmm_ref_pgtable_map(&m->pt, addr_of(m, page), pte);
	m->pte[page] = pte;
}

static void do_map_leaf(struct kunit *test, struct model *m, hmm_ref_pte_t pte)
{
	unsigned int i;

	KUNIT_EXPECT_EQ_MSG(test, hmm_ref_pgtable_is_ready(&m->pt, true),
			    m->room == LEAF, "leaf, room %d", m->room);
	if (m->room != LEAF)
		return;
	hmm_ref_pgtable_map_leaf(&m->pt, pte);
	for (i = 0; i < NR_PAGES; i++)
		m->pte[i] = hmm_ref_pte(hmm_ref_pte_number(pte) + i,
					pte & HMM_REF_PTE_BITS);
}

static void do_trim(struct model *m)
{
	hmm_ref_pgtable_trim(&m->pt);
	if (maps_nothing(m))
		m->room = NONE;
}

/* Zap pages from @from to @to, exclusive. */
static void do_zap(struct model *m, unsigned int from, unsigned int to)
{
	unsigned int page;

	hmm_ref_pgtable_zap(&m->pt, addr_of(m, from), addr_of(m, to));
	if (from >= to)
		return;
	if (m->room == LEAF)
		clear_all(m, NONE);
	for (page = from; page < to; page++)
		m->pte[page] = 0;
	if (maps_nothing(m))
		m->room = NONE;
}

static void compare_pages(struct kunit *test, struct model *m,
			  unsigned int from, unsigned int to)
{
	unsigned int page;

	for (page = from; page < to; page++) {
		hmm_ref_pte_t pte =
			hmm_ref_pgtable_lookup(&m->pt, addr_of(m, page));

		if (pte == m->pte[page])
			continue;
		KUNIT_FAIL(test, "page %u is %#llx, must be %#llx", page, pte,
			   m->pte[page]);
		return;
	}
}

static unsigned int run_of(const struct model *m, unsigned int page,
			   unsigned int most)
{
	hmm_ref_pte_t pte = m->pte[page];
	unsigned long dpfn = hmm_ref_pte_number(pte);
	u64 bits = pte & HMM_REF_PTE_BITS;
	unsigned int nr;

	if (!(pte & HMM_REF_PTE_DEVICE))
		return 1;
	most = min3(most, NR_PAGES - page, NR_PAGES - dpfn % NR_PAGES);
	for (nr = 1; nr < most; nr++) {
		if (m->pte[page + nr] != hmm_ref_pte(dpfn + nr, bits))
			break;
	}
	return nr;
}

static void compare_run(struct kunit *test, struct model *m, unsigned int page)
{
	unsigned int most = 1 + below(m, NR_PAGES), nr = most;
	hmm_ref_pte_t pte;

	pte = hmm_ref_pgtable_lookup_run(&m->pt, addr_of(m, page), &nr);
	KUNIT_EXPECT_EQ(test, pte, m->pte[page]);
	KUNIT_EXPECT_EQ_MSG(test, nr, run_of(m, page, most),
			    "page %u, at most %u", page, most);
}

/* Also check that a table that maps nothing is freed. */
static void compare(struct kunit *test, struct model *m)
{
	compare_pages(test, m, 0, NR_PAGES);
	compare_run(test, m, below(m, NR_PAGES));
	KUNIT_EXPECT_EQ(test, !m->pt.table, m->room == NONE);
	KUNIT_EXPECT_EQ(test, xa_is_value(m->pt.table), m->room == LEAF);
}

/* ---- cases ------------------------------------------------------------- */

static hmm_ref_pte_t any_pte(struct model *m)
{
	u64 bits = below(m, HMM_REF_PTE_VALID << HMM_REF_PTE_SHIFT);

	return hmm_ref_pte(prandom_u32_state(&m->rnd), bits);
}

static void random_zap(struct model *m)
{
	unsigned int from = below(m, NR_PAGES);
	unsigned int to = below(m, NR_PAGES + 1);

	switch (below(m, 3)) {
	case 0: /* a few pages, or none */
		to = min(from + below(m, 20), NR_PAGES);
		break;
	case 1: /* up to an end of the table */
		if (below(m, 2))
			from = 0;
		else
			to = NR_PAGES;
		break;
	default: /* any range, even backwards */
		break;
	}
	do_zap(m, from, to);
}

static void random_step(struct kunit *test, struct model *m)
{
	unsigned int page = below(m, NR_PAGES);
	unsigned int nr;

	switch (below(m, 9)) {
	case 0:
	case 1:
		do_prepare(test, m, below(m, 2));
		break;
	case 4:
		do_trim(m);
		break;
	case 2:
		if (below(m, 4))
			do_prepare(test, m, true);
		do_map_leaf(test, m, any_pte(m));
		break;
	case 3:
		random_zap(m);
		break;
	default: /* many, so that zaps find entries */
		for (nr = below(m, 40); nr && page < NR_PAGES; nr--, page++)
			do_map(test, m, page, any_pte(m));
		break;
	}
}

/* Random steps, at both ends of user space and in between. */
static void pgtable_random(struct kunit *test)
{
	const unsigned long bases[] = {
		0, 16 * PMD_SIZE, (TASK_SIZE_MAX & PMD_MASK) - PMD_SIZE,
	};
	struct model *m = test->priv;
	unsigned int steps = hmm_ref_test_start(test, &m->rnd);
	unsigned int i;

	for (i = 0; i < steps; i++) {
		/* Leave no entries behind at the old base. */
		if (i % DIV_ROUND_UP(steps, ARRAY_SIZE(bases)) == 0) {
			do_zap(m, 0, NR_PAGES);
			m->base = bases[i * ARRAY_SIZE(bases) / steps];
		}
		random_step(test, m);
		if (i % 32 == 31)
			compare(test, m);
		/* The first failure causes others. */
		KUNIT_ASSERT_EQ_MSG(test, READ_ONCE(test->status),
				    KUNIT_SUCCESS, "after step %u", i);
	}
	compare(test, m);
}

/* Zap PTEs at and around the ends of the table, exactly to the page. */
static void pgtable_zap_ptes(struct kunit *test)
{
	static const unsigned int edges[] = {
		0, 1, 7, NR_PAGES - 1, NR_PAGES,
	};
	struct model *m = test->priv;
	unsigned int from, to, page;

	for (from = 0; from < ARRAY_SIZE(edges); from++) {
		for (to = from; to < ARRAY_SIZE(edges); to++) {
			do_prepare(test, m, false);
			for (page = 0; page < NR_PAGES; page++)
				do_map(test, m, page,
				       hmm_ref_pte(page, HMM_REF_PTE_DEVICE));
			do_zap(m, edges[from], edges[to]);
			compare(test, m);
		}
	}
}

/* Zapping any part of a leaf zaps all of it. */
static void pgtable_zap_leaf(struct kunit *test)
{
	static const unsigned int parts[][2] = {
		{ 0, 1 }, { NR_PAGES - 1, NR_PAGES }, { 7, 9 },
		{ 0, NR_PAGES - 1 }, { 1, NR_PAGES }, { 0, NR_PAGES }, { 7, 7 },
	};
	struct model *m = test->priv;
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(parts); i++) {
		do_prepare(test, m, true);
		do_map_leaf(test, m, hmm_ref_pte(1 << 20, HMM_REF_PTE_DEVICE));
		do_zap(m, parts[i][0], parts[i][1]);
		compare(test, m);
	}
}

/*
 * A run ends where the rights change, where pages are not contiguous, and at
 * the end of a block. A page of system memory is a run of its own.
 */
static void pgtable_run(struct kunit *test)
{
	struct model *m = test->priv;
	unsigned int page;

	do_prepare(test, m, false);
	for (page = 0; page < NR_PAGES; page++) {
		unsigned long number = page < 100 ? NR_PAGES - 50 + page :
						    3 * NR_PAGES + page;
		u64 bits = page >= 200 && page < 300 ? HMM_REF_PTE_WRITE : 0;

		bits |= page < 400 ? HMM_REF_PTE_DEVICE : 0;
		do_map(test, m, page, hmm_ref_pte(number, bits));
	}
	for (page = 0; page < NR_PAGES; page++)
		compare_run(test, m, page);
}

/* Before a zap, a table is not ready for a leaf, nor a leaf for a page. */
static void pgtable_replace(struct kunit *test)
{
	struct model *m = test->priv;

	do_map(test, m, 5, hmm_ref_pte(1, 0));
	do_map_leaf(test, m, hmm_ref_pte(2, 0));
	do_prepare(test, m, true);
	compare(test, m);
	do_map_leaf(test, m, hmm_ref_pte(512, HMM_REF_PTE_WRITE));
	compare(test, m);
	do_prepare(test, m, false);
	compare(test, m);
	do_map(test, m, 5, hmm_ref_pte(3, 0));
	compare(test, m);
	do_zap(m, 5, 6);
	do_prepare(test, m, false);
	do_map(test, m, 5, hmm_ref_pte(3, HMM_REF_PTE_EXCLUSIVE));
	compare(test, m);
	do_map_leaf(test, m, hmm_ref_pte(1024, 0));
	compare(test, m);
	do_zap(m, 0, NR_PAGES);
	do_prepare(test, m, true);
	do_map_leaf(test, m, hmm_ref_pte(1024, 0));
	compare(test, m);
}

/* A table is freed with its last entry; prepared memory is freed by trim. */
static void pgtable_last_entry(struct kunit *test)
{
	const unsigned int last = NR_PAGES - 1;
	struct model *m = test->priv;

	do_prepare(test, m, false);
	do_map(test, m, 0, hmm_ref_pte(1, 0));
	do_map(test, m, last, hmm_ref_pte(2, 0));
	/* Two writes make one entry. */
	do_map(test, m, last, hmm_ref_pte(3, HMM_REF_PTE_WRITE));
	do_trim(m);
	do_zap(m, 1, last);
	compare(test, m);
	do_zap(m, last, last + 1);
	compare(test, m);
	do_zap(m, 0, 1);
	compare(test, m);
	KUNIT_EXPECT_TRUE(test, hmm_ref_pgtable_is_empty(&m->pt));

	do_map(test, m, 0, hmm_ref_pte(1, 0));
	do_prepare(test, m, false);
	do_trim(m);
	KUNIT_EXPECT_TRUE(test, hmm_ref_pgtable_is_empty(&m->pt));
	do_prepare(test, m, true);
	do_trim(m);
	do_trim(m);
	KUNIT_EXPECT_TRUE(test, hmm_ref_pgtable_is_empty(&m->pt));
	do_prepare(test, m, true);
	do_map_leaf(test, m, hmm_ref_pte(512, 0));
	do_trim(m);
	compare(test, m);
}

static int pgtable_init(struct kunit *test)
{
	struct model *m = kvzalloc(sizeof(*m), GFP_KERNEL);

	if (!m)
		return -ENOMEM;
	m->base = 16 * PMD_SIZE;
	test->priv = m;
	return 0;
}

static void pgtable_exit(struct kunit *test)
{
	struct model *m = test->priv;

	if (!m)
		return;
	hmm_ref_pgtable_destroy(&m->pt);
	kvfree(m);
}

static struct kunit_case pgtable_cases[] = {
	KUNIT_CASE(pgtable_zap_ptes),
	KUNIT_CASE(pgtable_zap_leaf),
	KUNIT_CASE(pgtable_run),
	KUNIT_CASE(pgtable_replace),
	KUNIT_CASE(pgtable_last_entry),
	KUNIT_CASE(pgtable_random),
	{}
};

struct kunit_suite hmm_ref_pgtable_suite = {
	.name = "hmm_ref_pgtable",
	.init = pgtable_init,
	.exit = pgtable_exit,
	.test_cases = pgtable_cases,
};
