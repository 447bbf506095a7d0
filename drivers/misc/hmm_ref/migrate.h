/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Migration: the primitive, its fill functions, and its callers. Only these
 * files, migrate*.c, use MIGRATE_PFN_*.
 */
#ifndef _HMM_REF_MIGRATE_H
#define _HMM_REF_MIGRATE_H

#include <linux/list.h>
#include <linux/migrate.h>
#include <linux/mutex.h>

#include "devmem.h"
#include "mirror.h"

struct vm_fault;
struct hmm_ref_device;

/**
 * struct hmm_ref_scratch - arrays for one migration at a time
 * @src: source entries of migrate_vma, HMM_REF_BLOCK_PAGES of them
 * @dst: destination entries
 * @folios: device pages handed out for the migration
 * @ring: descriptors of the copies
 */
struct hmm_ref_scratch {
	unsigned long *src;
	unsigned long *dst;
	struct folio **folios;
	struct hmm_ref_copy *ring;
};

/**
 * struct hmm_ref_client - a process that uses a device
 * @dev: device, referenced
 * @owner: owner of the device pages handed out for this client, referenced
 * @mirror: mirror of the mm of the process
 * @migrate_lock: covers @scratch
 * @scratch: arrays for its migrations
 * @node: link in hmm_ref_device::clients
 */
struct hmm_ref_client {
	struct hmm_ref_device *dev;
	struct hmm_ref_owner *owner;
	struct hmm_ref_mirror mirror;
	struct mutex migrate_lock;	/* scratch */
	struct hmm_ref_scratch scratch;
	struct list_head node;
};

/**
 * hmm_ref_src_is_page() - test whether an entry has a page to move
 * @src: source entry after setup
 *
 * Return: false for holes and for pages that setup could not isolate.
 */
static inline bool hmm_ref_src_is_page(unsigned long src)
{
	return (src & MIGRATE_PFN_VALID) && (src & MIGRATE_PFN_MIGRATE);
}

/**
 * hmm_ref_src_folio() - get the folio of an entry
 * @src: source entry for the first page of a folio
 *
 * Return: the folio.
 */
static inline struct folio *hmm_ref_src_folio(unsigned long src)
{
	return (struct folio *)migrate_pfn_to_page(src);
}

/**
 * hmm_ref_src_pages() - number of pages that an entry stands for
 * @src: source entry
 *
 * Return: pages.
 */
static inline unsigned long hmm_ref_src_pages(unsigned long src)
{
	return src & MIGRATE_PFN_COMPOUND ? HMM_REF_BLOCK_PAGES : 1;
}

/**
 * hmm_ref_moved() - test whether an entry has moved
 * @src: source entry after migrate_*_pages(), which clears the flag of entries
 *	without a destination
 *
 * Return: true if all pages of the entry have moved.
 */
static inline bool hmm_ref_moved(unsigned long src)
{
	return src & MIGRATE_PFN_MIGRATE;
}

/**
 * struct hmm_ref_move - a migration
 * @args: arguments for the core. The caller sets vma, start, end, src, dst,
 *	flags and fault_page; without a VMA it sets src, npages and a zeroed dst
 * @first_pfn: without a VMA: page frame number of the first of npages device
 *	pages
 * @dm: device memory that the pages go to, or leave for system memory
 * @peer: memory of another device that the pages leave for @dm, or NULL
 * @fill: stores a locked page in args.dst for each entry of args.src that is to
 *	move, and adds a copy to @job for it. Entries without a dst stay.
 *	Returns 0, or an errno that hmm_ref_migrate() returns at its end. May
 *	wait only for memory; a migration to the device does not even wait for
 *	that
 * @ring: memory for the descriptors of the copies
 * @ring_size: number of descriptors that fit
 * @cause: reason for moving pages off the device
 * @job: the copies, valid from fill to wait
 * @moved: out: pages that have moved
 */
struct hmm_ref_move {
	struct migrate_vma args;
	unsigned long first_pfn;
	struct hmm_ref_devmem *dm;
	struct hmm_ref_devmem *peer;
	int (*fill)(struct hmm_ref_move *move);
	struct hmm_ref_copy *ring;
	unsigned int ring_size;
	enum hmm_ref_cause cause;
	struct hmm_ref_job *job;
	unsigned long moved;
};

/**
 * hmm_ref_move_init() - set up a migration
 * @move: migration
 * @dm: device memory
 * @scratch: arrays, in use as long as @move is
 */
static inline void hmm_ref_move_init(struct hmm_ref_move *move,
				     struct hmm_ref_devmem *dm,
				     struct hmm_ref_scratch *scratch)
{
	*move = (struct hmm_ref_move){
		.args = {
			.src = scratch->src,
			.dst = scratch->dst,
			.pgmap_owner = dm->pgmap_owner,
		},
		.dm = dm,
		.ring = scratch->ring,
		.ring_size = HMM_REF_BLOCK_PAGES,
	};
}

/**
 * hmm_ref_select() - get the setup flag for pages of a device
 * @dm: device memory
 *
 * Return: flag for struct migrate_vma that selects pages of its pgmap_owner.
 */
static inline unsigned long hmm_ref_select(const struct hmm_ref_devmem *dm)
{
	return dm->type == MEMORY_DEVICE_COHERENT ?
	       MIGRATE_VMA_SELECT_DEVICE_COHERENT :
	       MIGRATE_VMA_SELECT_DEVICE_PRIVATE;
}

/**
 * hmm_ref_move_from() - set the source of a migration to the device
 * @move: migration that was set up, with the flags for either source
 * @peer: memory of another device, which the device can reach, or NULL for
 *	system memory
 */
static inline void hmm_ref_move_from(struct hmm_ref_move *move,
				     struct hmm_ref_devmem *peer)
{
	move->peer = peer;
	if (!peer) {
		move->args.flags |= MIGRATE_VMA_SELECT_SYSTEM;
		return;
	}
	move->args.pgmap_owner = peer->pgmap_owner;
	move->args.flags |= hmm_ref_select(peer);
	move->cause = HMM_REF_BY_PEER;
}

/**
 * struct hmm_ref_to_device - a migration to the device
 * @move: the migration; its fill is hmm_ref_fill_device()
 * @owner: owner of the pages on the device
 * @room: reservation; pages handed out are taken off it, missing ones are added
 *	if they are free
 * @folios: scratch memory for HMM_REF_BLOCK_PAGES folios
 * @all: move nothing unless all pages have room
 * @need: out: number of device pages needed
 * @whole: out: the pages are needed as one large folio
 * @refused: out: pages of a kind that the device does not take
 */
struct hmm_ref_to_device {
	struct hmm_ref_move move;
	struct hmm_ref_owner *owner;
	struct hmm_ref_room *room;
	struct folio **folios;
	bool all;
	unsigned long need;
	bool whole;
	unsigned long refused;
};

/**
 * enum hmm_ref_way - direction in which the pages of a range move
 * @HMM_REF_SYS_TO_DEV: to the device
 * @HMM_REF_DEV_TO_SYS: to system memory
 *
 * Trace filters rely on these values.
 */
enum hmm_ref_way {
	HMM_REF_SYS_TO_DEV = 1,
	HMM_REF_DEV_TO_SYS = 2,
};

/**
 * struct hmm_ref_tally - outcome for the pages of a range
 * @moved: pages that moved, filled holes included
 * @already: pages that needed no move
 * @skipped: pages that could not be moved
 */
struct hmm_ref_tally {
	unsigned long moved;
	unsigned long already;
	unsigned long skipped;
};

#define HMM_REF_KEEP_LARGE	BIT(0)
#define HMM_REF_FROM_PEERS	BIT(1)

/**
 * struct hmm_ref_migration - a range of a process to migrate
 * @start: page address
 * @end: page address, exclusive
 * @way: direction
 * @flags: HMM_REF_KEEP_LARGE to move large folios without splitting them, if
 *	possible; HMM_REF_FROM_PEERS to also move pages of other devices to the
 *	device
 * @tally: out: outcome for the pages starting at @start, also on error
 */
struct hmm_ref_migration {
	unsigned long start;
	unsigned long end;
	enum hmm_ref_way way;
	unsigned int flags;
	struct hmm_ref_tally tally;
};

/* migrate.c */
int hmm_ref_scratch_init(struct hmm_ref_scratch *scratch);
void hmm_ref_scratch_exit(struct hmm_ref_scratch *scratch);
int hmm_ref_migrate(struct hmm_ref_move *move);

/* migrate_device.c */
int hmm_ref_fill_device(struct hmm_ref_move *move);

/* migrate_system.c */
int hmm_ref_to_system(struct hmm_ref_move *move);
gfp_t hmm_ref_system_gfp(struct hmm_ref_devmem *dm, enum hmm_ref_cause cause);
int hmm_ref_fill_folio(struct hmm_ref_move *move, unsigned long i, gfp_t gfp);
int hmm_ref_fill_page(struct hmm_ref_move *move, unsigned long i,
		      unsigned long index, gfp_t gfp);

/* migrate_cmd.c */
int hmm_ref_migrate_range(struct hmm_ref_client *client,
			  struct hmm_ref_migration *m);

/* migrate_evict.c */
unsigned long hmm_ref_evict_run(struct hmm_ref_device *dev, unsigned long pfn,
				unsigned long npages, unsigned long *tried);
int hmm_ref_evict_some(struct hmm_ref_device *dev, bool scattered);
int hmm_ref_make_room(struct hmm_ref_client *client, struct hmm_ref_room *room,
		      unsigned long nr, bool whole);
bool hmm_ref_evict_all(struct hmm_ref_device *dev, unsigned long timeout);
int hmm_ref_evict_client(struct hmm_ref_client *client,
			 struct hmm_ref_tally *tally);
int hmm_ref_evict_range(struct hmm_ref_client *client, unsigned long start,
			unsigned long end, struct hmm_ref_tally *tally);

/* migrate_fault.c */
vm_fault_t hmm_ref_migrate_to_ram(struct vm_fault *vmf);
int hmm_ref_fault_init(void);
void hmm_ref_fault_exit(void);

#endif /* _HMM_REF_MIGRATE_H */
