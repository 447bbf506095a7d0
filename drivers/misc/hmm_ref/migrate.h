/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What the files migrate*.c share: the entries of migrate_vma, as nobody else knows
 * MIGRATE_PFN_*, and a migration between its halves.
 */
#ifndef _HMM_REF_MIGRATE_H
#define _HMM_REF_MIGRATE_H

#include <linux/migrate.h>

#include "hmm_ref.h"

/**
 * hmm_ref_src_is_page() - is there a page to move?
 * @src: source entry after setup
 *
 * Return: false for holes and for what setup did not get.
 */
static inline bool hmm_ref_src_is_page(unsigned long src)
{
	return (src & MIGRATE_PFN_VALID) && (src & MIGRATE_PFN_MIGRATE);
}

/**
 * hmm_ref_src_folio() - the folio of an entry
 * @src: source entry that has a page, which is the first of its folio
 *
 * Return: the folio.
 */
static inline struct folio *hmm_ref_src_folio(unsigned long src)
{
	return (struct folio *)migrate_pfn_to_page(src);
}

/**
 * hmm_ref_src_pages() - how much does an entry stand for?
 * @src: source entry
 *
 * Return: pages.
 */
static inline unsigned long hmm_ref_src_pages(unsigned long src)
{
	return src & MIGRATE_PFN_COMPOUND ? HMM_REF_BLOCK_PAGES : 1;
}

/**
 * hmm_ref_moved() - after migrate_*_pages(): has it moved?
 * @src: source entry; the core has cleared the flag of those without a destination
 *
 * Return: true for a page, or for all that the entry stands for.
 */
static inline bool hmm_ref_moved(unsigned long src)
{
	return src & MIGRATE_PFN_MIGRATE;
}

/**
 * struct hmm_ref_move - a migration, from before setup to finalize
 * @args: for the core; vma, start and end are the caller's to set
 * @job: its copies
 * @rc: what went wrong, if anything
 * @refused: pages of a kind that the device does not take
 * @need: to the device: pages that it takes
 * @whole: these are better off as one large folio
 *
 * Nothing but the copies happens between begin and end, which are under the same mmap_lock.
 */
struct hmm_ref_move {
	struct migrate_vma args;
	struct hmm_ref_job job;
	int rc;
	unsigned long refused;
	unsigned long need;
	bool whole;
};

/* migrate.c, migrate_system.c */
void hmm_ref_move_commit(struct hmm_ref_move *move);
int hmm_ref_to_system_begin(struct hmm_ref_devmem *dm, struct hmm_ref_move *move,
			    struct hmm_ref_window *window, bool large,
			    enum hmm_ref_cause cause);
unsigned long hmm_ref_to_system_end(struct hmm_ref_move *move,
				    enum hmm_ref_cause cause);
int hmm_ref_to_system(struct hmm_ref_devmem *dm, struct hmm_ref_move *move,
		      struct hmm_ref_window *window, bool large,
		      enum hmm_ref_cause cause, unsigned long *moved);

/* migrate_device.c */
int hmm_ref_to_device_begin(struct hmm_ref_client *client, struct hmm_ref_move *move,
			    struct hmm_ref_window *window, bool large,
			    struct hmm_ref_room *room, bool all);
unsigned long hmm_ref_to_device_end(struct hmm_ref_client *client,
				    struct hmm_ref_move *move);

#endif /* _HMM_REF_MIGRATE_H */
