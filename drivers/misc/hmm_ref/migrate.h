/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Moving data: one migration, how it is filled, and what begins one. Only these files, migrate*.c,
 * know MIGRATE_PFN_*.
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
 * struct hmm_ref_scratch - the arrays of one migration at a time
 * @src: migrate_vma's source entries, HMM_REF_BLOCK_PAGES of them
 * @dst: its destination entries
 * @folios: device pages handed out for it
 * @ring: descriptors of its copies
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
 * @owner: what the pages of this client point at, referenced
 * @mirror: of its mm
 * @migrate_lock: covers @scratch; killable
 * @scratch: for its migrations
 * @node: on hmm_ref_device::clients
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
 * struct hmm_ref_move - a migration
 * @args: for the core: vma, start, end, src, dst, flags and fault_page are the caller's to set;
 *	without a VMA src, npages, and dst, all zeros
 * @first_pfn: without a VMA: the page frame number of the first of npages device pages
 * @dm: device memory that the pages go to, or leave for system memory
 * @peer: device memory that they leave for @dm, of another device; or NULL
 * @fill: gives the entries of args.src that are to move a locked page in args.dst each, and adds
 *	a copy to @job for it. What it leaves without one stays. Returns 0, or an errno that
 *	hmm_ref_migrate() returns at its end. Waits for nothing but memory, and, to the device,
 *	not for that either
 * @ring: memory for the descriptors of the copies
 * @ring_size: how many fit
 * @cause: why pages leave the device
 * @job: the copies, from fill to wait
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
 * hmm_ref_move_init() - begin to describe a migration
 * @move: to set up
 * @dm: device memory
 * @scratch: its arrays, as long as @move is used
 */
static inline void hmm_ref_move_init(struct hmm_ref_move *move, struct hmm_ref_devmem *dm,
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
 * hmm_ref_select() - which pages of a device setup is to collect
 * @dm: device memory
 *
 * Return: flag for struct migrate_vma, for pages of its pgmap_owner.
 */
static inline unsigned long hmm_ref_select(const struct hmm_ref_devmem *dm)
{
	return dm->type == MEMORY_DEVICE_COHERENT ? MIGRATE_VMA_SELECT_DEVICE_COHERENT :
						    MIGRATE_VMA_SELECT_DEVICE_PRIVATE;
}

/**
 * hmm_ref_move_from() - say where pages are that are to move to the device
 * @move: set up, with the flags that are for either
 * @peer: memory of another device, which the device reaches; or NULL for system memory
 */
static inline void hmm_ref_move_from(struct hmm_ref_move *move, struct hmm_ref_devmem *peer)
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
 * @owner: of the pages on the device
 * @room: reserved for it; what is handed out comes off, what is missing is added if it is free
 * @folios: scratch memory, HMM_REF_BLOCK_PAGES of them
 * @all: nothing moves unless there is room for all
 * @need: out: pages that it takes
 * @whole: out: these are better off as one large folio
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
 * enum hmm_ref_way - which way pages of a range move
 * @HMM_REF_SYS_TO_DEV: to the device
 * @HMM_REF_DEV_TO_SYS: to system memory
 *
 * Filters of traces use the values.
 */
enum hmm_ref_way {
	HMM_REF_SYS_TO_DEV = 1,
	HMM_REF_DEV_TO_SYS = 2,
};

/**
 * struct hmm_ref_tally - what became of the pages of a range
 * @moved: pages, filled holes included
 * @already: that needed no move
 * @skipped: that could not be moved
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
 * @way: where its pages are to go
 * @flags: HMM_REF_KEEP_LARGE to keep large folios whole, as far as possible; HMM_REF_FROM_PEERS to
 *	take pages of other devices, too, to the device
 * @tally: out: what became of them, from @start on, also on error
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
int hmm_ref_fill_page(struct hmm_ref_move *move, unsigned long i, unsigned long index, gfp_t gfp);

/* migrate_cmd.c */
int hmm_ref_migrate_range(struct hmm_ref_client *client, struct hmm_ref_migration *m);

/* migrate_evict.c */
unsigned long hmm_ref_evict_run(struct hmm_ref_device *dev, unsigned long pfn,
				unsigned long npages, unsigned long *tried);
int hmm_ref_evict_some(struct hmm_ref_device *dev, bool scattered);
int hmm_ref_make_room(struct hmm_ref_client *client, struct hmm_ref_room *room,
		      unsigned long nr, bool whole);
bool hmm_ref_evict_all(struct hmm_ref_device *dev, unsigned long timeout);
int hmm_ref_evict_client(struct hmm_ref_client *client, struct hmm_ref_tally *tally);
int hmm_ref_evict_range(struct hmm_ref_client *client, unsigned long start,
			unsigned long end, struct hmm_ref_tally *tally);

/* migrate_fault.c */
vm_fault_t hmm_ref_migrate_to_ram(struct vm_fault *vmf);
int hmm_ref_fault_init(void);
void hmm_ref_fault_exit(void);

#endif /* _HMM_REF_MIGRATE_H */
