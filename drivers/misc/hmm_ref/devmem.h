/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Device pages: their number, their state, their owners.
 */
#ifndef _HMM_REF_DEVMEM_H
#define _HMM_REF_DEVMEM_H

#include <linux/atomic.h>
#include <linux/bitmap.h>
#include <linux/list.h>
#include <linux/memremap.h>
#include <linux/mutex.h>
#include <linux/refcount.h>
#include <linux/shrinker.h>
#include <linux/spinlock.h>
#include <linux/srcu.h>
#include <linux/workqueue.h>
#include <linux/xarray.h>

#include "hw.h"

/**
 * enum hmm_ref_cause - why data leaves the device
 * @HMM_REF_BY_COMMAND: a command asks for it
 * @HMM_REF_BY_FAULT: the CPU has touched the page, or a neighbour
 * @HMM_REF_BY_EVICTION: others need the room, or the device goes
 * @HMM_REF_BY_PEER: a command brings it to another device, perhaps by way of system memory
 * @HMM_REF_CAUSES: how many there are
 */
enum hmm_ref_cause {
	HMM_REF_BY_COMMAND,
	HMM_REF_BY_FAULT,
	HMM_REF_BY_EVICTION,
	HMM_REF_BY_PEER,
	HMM_REF_CAUSES,
};

/**
 * struct hmm_ref_owner - the open file that a device page was handed out for
 * @refs: one for the client while its file is open, one per page handed out;
 *	taken and dropped by the batch, which a kref cannot do
 * @opener: process that opened the file, shown in fdinfo and traces
 * @to_device: pages that its commands have moved to the device
 * @departed: pages handed out for it that have left the device, by cause
 * @device_faults: of its mirror, as are the next two
 * @invalidations: of its mirror
 * @retries: of its mirror
 *
 * For accounting only. It deliberately leads to no file, mm or VMA.
 */
struct hmm_ref_owner {
	refcount_t refs;
	struct pid *opener;
	atomic_long_t to_device;
	atomic_long_t departed[HMM_REF_CAUSES];
	atomic_long_t device_faults;
	atomic_long_t invalidations;
	atomic_long_t retries;
};

/**
 * hmm_ref_owner_pages() - how many pages are handed out for an owner
 * @owner: of a client
 *
 * Return: pages.
 */
static inline unsigned int hmm_ref_owner_pages(const struct hmm_ref_owner *owner)
{
	return refcount_read(&owner->refs) - 1;
}

struct hmm_ref_owner *hmm_ref_owner_create(void);
void hmm_ref_owner_put(struct hmm_ref_owner *owner, unsigned int nr);

/**
 * enum hmm_ref_block_state - what can be had of a block
 * @HMM_REF_BLOCK_WHOLE: all of its pages
 * @HMM_REF_BLOCK_PARTIAL: some of its pages
 * @HMM_REF_BLOCK_FULL: nothing, no page is free
 * @HMM_REF_BLOCK_RESERVED: nothing, it is promised to a large folio
 */
enum hmm_ref_block_state {
	HMM_REF_BLOCK_WHOLE,
	HMM_REF_BLOCK_PARTIAL,
	HMM_REF_BLOCK_FULL,
	HMM_REF_BLOCK_RESERVED,
};

/**
 * struct hmm_ref_block - PMD_SIZE of device memory
 * @lock: covers @free, @bad, @lost and the counts; @lost is also read without it
 * @nr_free: pages on the free map
 * @nr_used: pages handed out and not yet back
 * @nr_retired: bad pages, neither free nor used
 * @reserved: promised as a whole, so none of its pages is used
 * @state: as of the last change that asked for other lists
 * @avail: on one of hmm_ref_devmem::avail; on none when full or reserved, or when the chunk
 *	is gone
 * @lru: on hmm_ref_devmem::lru while pages are used; tail is the last filled
 * @chunk: that the block is in
 * @free: the free map: set bits are pages that can be handed out
 * @bad: pages to retire instead of freeing
 * @lost: those of them that have lost their data while they were used
 *
 * hmm_ref_devmem::lock covers @reserved, @state, @avail and @lru. Both locks are held where
 * these follow a change of the counts. With both locks held @nr_free is lowered, so under either
 * one a block that is whole stays so.
 */
struct hmm_ref_block {
	spinlock_t lock;		/* free map */
	unsigned int nr_free;
	unsigned int nr_used;
	unsigned int nr_retired;
	bool reserved;
	enum hmm_ref_block_state state;
	struct list_head avail;
	struct list_head lru;
	struct hmm_ref_chunk *chunk;
	DECLARE_BITMAP(free, HMM_REF_BLOCK_PAGES);
	DECLARE_BITMAP(bad, HMM_REF_BLOCK_PAGES);
	DECLARE_BITMAP(lost, HMM_REF_BLOCK_PAGES);
};

/* All that a device page costs, beside struct page: less than a byte. */
static_assert(sizeof(struct hmm_ref_block) < HMM_REF_BLOCK_PAGES);

/**
 * struct hmm_ref_chunk - one dev_pagemap, its blocks, and the memory of the device for them
 * @dm: device memory that it belongs to
 * @users: blocks with used pages, blocks that are reserved, and tasks that look at it; covered by
 *	hmm_ref_devmem::lock, as are the next two
 * @live: from when it is complete until it is about to be freed; else nothing of it is handed out
 * @idle: on hmm_ref_devmem::idle while @users is 0
 * @first_dpfn: device page number of its first page
 * @dpfn_offset: what a page's device page number is more than its page frame number
 * @nr_blocks: elements of @blocks; the last chunk may be cut by the capacity
 * @blocks: constant array
 * @region: address space taken for the struct pages
 * @has_vram: the device has memory for it; covered by hmm_ref_devmem::grow_lock
 * @pagemap: what the core knows of it; ends in a flexible array, so last
 */
struct hmm_ref_chunk {
	struct hmm_ref_devmem *dm;
	unsigned int users;
	bool live;
	struct list_head idle;
	unsigned long first_dpfn;
	unsigned long dpfn_offset;
	unsigned int nr_blocks;
	struct hmm_ref_block *blocks;
	struct resource *region;
	bool has_vram;
	struct dev_pagemap pagemap;
};

/**
 * enum hmm_ref_stop - is anything handed out?
 * @HMM_REF_NOT_STOPPED: yes
 * @HMM_REF_STOPPED_TO_SLEEP: not now: it is as if the device was full
 * @HMM_REF_STOPPED_FOR_GOOD: never again: the device goes, or is lost
 */
enum hmm_ref_stop {
	HMM_REF_NOT_STOPPED,
	HMM_REF_STOPPED_TO_SLEEP,
	HMM_REF_STOPPED_FOR_GOOD,
};

/**
 * struct hmm_ref_devmem - the memory of one device
 * @id: number of the device, for traces
 * @pgmap_owner: tells our device pages from others'
 * @type: MEMORY_DEVICE_PRIVATE or MEMORY_DEVICE_COHERENT
 * @large: large folios stay whole
 * @coherent_base: physical address of coherent memory
 * @ops: pagemap callbacks, folio_free among them
 * @hw: the device
 * @hw_users: SRCU: @hw is being used; see hmm_ref_hw_enter()
 * @hw_gone: it is not used any more; set once
 * @capacity: largest number of pages
 * @chunk_shift: log2 of the pages in a chunk
 * @chunks: chunks by dpfn >> @chunk_shift; changes under @grow_lock, and is read under RCU
 * @bad: by dpfn: pages that were reported bad while they had no chunk
 * @grow_lock: serialises the addition and removal of chunks
 * @room_lock: held by the one task that waits for room; others queue here, in order
 * @nr_waiting: that task, and the tasks that queue behind it
 * @lock: covers the rest
 * @stopped: when set nothing is handed out; see hmm_ref_devmem_stop()
 * @any_lost: there may be pages that have lost their data; never unset
 * @lost: the device is: nothing in its memory can be read; never unset
 * @retired: bad pages that are neither free nor used
 * @nr_flawed: blocks with a bad page, which are never whole again
 * @reserved: pages promised and not handed out; with @used and @retired at most @nr_pages, so
 *	every reservation finds a free page
 * @used: pages handed out and not yet back; grows under @lock only
 * @nr_pages: pages in all chunks
 * @avail: blocks with free pages, by log2 of how many are free: the last list has the blocks
 *	that are whole
 * @lru: blocks with used pages, the least recently filled first
 * @idle: chunks without users, which can be freed
 * @nr_idle: their pages
 * @shrinker: has idle chunks freed
 * @reclaim: frees them
 */
struct hmm_ref_devmem {
	unsigned int id;
	void *pgmap_owner;
	enum memory_type type;
	bool large;
	phys_addr_t coherent_base;
	const struct dev_pagemap_ops *ops;
	struct hmm_ref_hw *hw;
	struct srcu_struct hw_users;
	bool hw_gone;
	unsigned long capacity;
	unsigned int chunk_shift;
	struct xarray chunks;
	struct xarray bad;
	struct mutex grow_lock;		/* chunks */
	struct mutex room_lock;		/* turn to make room */
	atomic_t nr_waiting;
	spinlock_t lock;		/* lists and reservations */
	enum hmm_ref_stop stopped;
	bool any_lost;
	bool lost;
	unsigned long retired;
	unsigned long nr_flawed;
	unsigned long reserved;
	atomic_long_t used;
	unsigned long nr_pages;
	struct list_head avail[HMM_REF_BLOCK_ORDER + 1];
	struct list_head lru;
	struct list_head idle;
	unsigned long nr_idle;
	struct shrinker *shrinker;
	struct work_struct reclaim;
};

/**
 * hmm_ref_hw_enter() - begin to use the device
 * @dm: device memory
 * @section: out: for hmm_ref_hw_exit()
 *
 * Between the two the device stays. What is done there waits for the device, and for locks under
 * which it is used, but for no user space: removal waits for the end.
 *
 * Return: false when the device is gone.
 */
static inline bool hmm_ref_hw_enter(struct hmm_ref_devmem *dm, int *section)
{
	*section = srcu_read_lock(&dm->hw_users);
	if (likely(!READ_ONCE(dm->hw_gone)))
		return true;
	srcu_read_unlock(&dm->hw_users, *section);
	return false;
}

/**
 * hmm_ref_hw_exit() - end the use of the device
 * @dm: device memory
 * @section: what hmm_ref_hw_enter() has set
 */
static inline void hmm_ref_hw_exit(struct hmm_ref_devmem *dm, int section)
{
	srcu_read_unlock(&dm->hw_users, section);
}

/**
 * struct hmm_ref_devmem_params - what hmm_ref_devmem_init() needs to know
 * @hw: the device, which outlives the memory
 * @ops: pagemap callbacks
 * @large: keep large folios whole, where the core can
 * @coherent_base: physical address of memory that the CPU can access; 0 for private memory
 * @capacity: bytes, a multiple of PMD_SIZE
 * @chunk_size: bytes that private memory grows by, a power of two and at least
 *	PMD_SIZE
 * @id: number of the device
 * @name: for the shrinker
 */
struct hmm_ref_devmem_params {
	struct hmm_ref_hw *hw;
	const struct dev_pagemap_ops *ops;
	bool large;
	phys_addr_t coherent_base;
	u64 capacity;
	u64 chunk_size;
	unsigned int id;
	const char *name;
};

/**
 * struct hmm_ref_room - device pages that are reserved for a migration
 * @nr: single pages
 * @block: block for a large folio; or NULL
 */
struct hmm_ref_room {
	unsigned long nr;
	struct hmm_ref_block *block;
};

/**
 * struct hmm_ref_findings - what an audit finds, in pages
 * @total: of the device
 * @free: on the free map
 * @in_use: handed out, @pending included
 * @pending: taken off the free map and not yet initialised, or on their way back
 * @retired: bad pages that are neither free nor used
 * @bad_ref: violations: free with a reference count other than 0
 * @bad_lock: violations: free and locked
 * @bad_map: violations: free and mapped
 * @bad_owner: violations: free with an owner, or used without
 * @bad_both: violations: free and bad
 * @bad_count: violations, in blocks: counts that differ from the free map, or do not add up
 * @violations: all of them
 */
struct hmm_ref_findings {
	unsigned long total;
	unsigned long free;
	unsigned long in_use;
	unsigned long pending;
	unsigned long retired;
	unsigned long bad_ref;
	unsigned long bad_lock;
	unsigned long bad_map;
	unsigned long bad_owner;
	unsigned long bad_both;
	unsigned long bad_count;
	unsigned long violations;
};

/**
 * struct hmm_ref_usage - how much device memory there is, in pages
 * @total: in all chunks
 * @used: handed out and not yet back
 * @reserved: promised and not handed out
 * @retired: bad pages that are neither free nor used
 * @chunks: how many chunks that is
 */
struct hmm_ref_usage {
	unsigned long total;
	unsigned long used;
	unsigned long reserved;
	unsigned long retired;
	unsigned long chunks;
};

/* shrink.c */
int hmm_ref_devmem_shrink_init(struct hmm_ref_devmem *dm, const char *name);
void hmm_ref_devmem_shrink_exit(struct hmm_ref_devmem *dm);

/* chunk.c */
int hmm_ref_devmem_init(struct hmm_ref_devmem *dm,
			const struct hmm_ref_devmem_params *params);
void hmm_ref_devmem_exit(struct hmm_ref_devmem *dm);
void hmm_ref_devmem_stop(struct hmm_ref_devmem *dm, enum hmm_ref_stop why);
void hmm_ref_devmem_lose_all(struct hmm_ref_devmem *dm);
void hmm_ref_devmem_end_hw(struct hmm_ref_devmem *dm);
void hmm_ref_devmem_settle(struct hmm_ref_devmem *dm);
void hmm_ref_devmem_restart(struct hmm_ref_devmem *dm);
int hmm_ref_devmem_add_chunk(struct hmm_ref_devmem *dm);
void hmm_ref_chunk_publish(struct hmm_ref_chunk *chunk);
void hmm_ref_chunk_remove(struct hmm_ref_chunk *chunk);
void hmm_ref_chunk_free(struct hmm_ref_chunk *chunk);
void hmm_ref_chunk_use(struct hmm_ref_chunk *chunk);
void hmm_ref_chunk_unuse(struct hmm_ref_chunk *chunk);
void hmm_ref_chunk_put(struct hmm_ref_chunk *chunk);
struct hmm_ref_chunk *hmm_ref_devmem_next_chunk(struct hmm_ref_devmem *dm,
						unsigned long *index);
struct hmm_ref_block *hmm_ref_devmem_get_block(struct hmm_ref_devmem *dm,
					       unsigned long dpfn);
struct hmm_ref_block *hmm_ref_devmem_get_bad(struct hmm_ref_devmem *dm, unsigned long dpfn,
					     int *rc);

/* reserve.c */
int hmm_ref_devmem_try_reserve(struct hmm_ref_devmem *dm, struct hmm_ref_room *room,
			       unsigned long nr, bool whole);
int hmm_ref_devmem_reserve(struct hmm_ref_devmem *dm, struct hmm_ref_room *room,
			   unsigned long nr, bool whole);
void hmm_ref_devmem_unreserve(struct hmm_ref_devmem *dm, struct hmm_ref_room *room);
unsigned long hmm_ref_devmem_available(struct hmm_ref_devmem *dm);
bool hmm_ref_devmem_may_grow(struct hmm_ref_devmem *dm, unsigned long nr, bool whole);
void hmm_ref_devmem_grow(struct hmm_ref_devmem *dm, unsigned long nr, bool whole);

/* devmem.c */
unsigned long hmm_ref_devmem_handout(struct hmm_ref_devmem *dm, struct hmm_ref_room *room,
				     struct hmm_ref_owner *owner,
				     struct folio **folios, unsigned long nr);
void hmm_ref_devmem_folio_free(struct folio *folio);

/* devmem_large.c */
#ifdef CONFIG_ARCH_HAS_PMD_SOFTLEAVES
struct folio *hmm_ref_devmem_handout_large(struct hmm_ref_devmem *dm,
					   struct hmm_ref_room *room,
					   struct hmm_ref_owner *owner);
void hmm_ref_devmem_dissolve(struct folio *folio);
void hmm_ref_devmem_folio_split(struct folio *head, struct folio *tail);
#else
static inline struct folio *
hmm_ref_devmem_handout_large(struct hmm_ref_devmem *dm, struct hmm_ref_room *room,
			     struct hmm_ref_owner *owner)
{
	return NULL;
}

static inline void hmm_ref_devmem_dissolve(struct folio *folio)
{
}
#endif

struct hmm_ref_block *hmm_ref_devmem_victim(struct hmm_ref_devmem *dm);
struct hmm_ref_block *hmm_ref_devmem_emptiest(struct hmm_ref_devmem *dm);
void hmm_ref_devmem_touch(struct hmm_ref_devmem *dm, struct hmm_ref_block *block);
int hmm_ref_devmem_retire(struct hmm_ref_devmem *dm, unsigned long dpfn);
int hmm_ref_devmem_lose(struct hmm_ref_devmem *dm, unsigned long dpfn);
bool hmm_ref_devmem_find_lost(struct hmm_ref_devmem *dm, unsigned long dpfn, unsigned int nr);

/**
 * hmm_ref_devmem_any_lost() - was the data of a page lost?
 * @dm: device memory
 * @dpfn: device page number of a page that is used
 * @nr: pages from there on, in one block
 *
 * Context: any. What is read from a page counts if this says no after it was read.
 * Return: true when the data of one of them was.
 */
static inline bool hmm_ref_devmem_any_lost(struct hmm_ref_devmem *dm, unsigned long dpfn,
					   unsigned int nr)
{
	return unlikely(READ_ONCE(dm->any_lost)) && hmm_ref_devmem_find_lost(dm, dpfn, nr);
}

/* audit.c */
int hmm_ref_devmem_audit(struct hmm_ref_devmem *dm, struct hmm_ref_findings *found);
void hmm_ref_devmem_usage(struct hmm_ref_devmem *dm, struct hmm_ref_usage *usage);

unsigned long hmm_ref_block_dpfn(const struct hmm_ref_block *block);
unsigned long hmm_ref_block_pfn(const struct hmm_ref_block *block);
void hmm_ref_block_enlist(struct hmm_ref_block *block);
void hmm_ref_block_fill(struct hmm_ref_block *block);
struct hmm_ref_block *hmm_ref_devmem_block(struct hmm_ref_devmem *dm,
					   unsigned long dpfn);

/**
 * hmm_ref_devmem_used() - how many pages are used
 * @dm: device memory
 *
 * Return: pages. Exact for a device that is stopped: no used page escapes the count.
 */
static inline unsigned long hmm_ref_devmem_used(struct hmm_ref_devmem *dm)
{
	return atomic_long_read(&dm->used);
}

/**
 * hmm_ref_devmem_free_pages() - how many pages can be reserved
 * @dm: device memory; its lock is held
 *
 * Return: pages; negative where pages were retired that are promised.
 */
static inline long hmm_ref_devmem_free_pages(const struct hmm_ref_devmem *dm)
{
	lockdep_assert_held(&dm->lock);
	return (long)(dm->nr_pages - dm->retired - dm->reserved) - atomic_long_read(&dm->used);
}

static inline unsigned long hmm_ref_chunk_pages(const struct hmm_ref_chunk *chunk)
{
	return (unsigned long)chunk->nr_blocks << HMM_REF_BLOCK_ORDER;
}

static inline unsigned long hmm_ref_chunk_pfn(const struct hmm_ref_chunk *chunk)
{
	return PHYS_PFN(chunk->pagemap.range.start);
}

/**
 * hmm_ref_chunk_dpfn() - device page number of a page of a known chunk
 * @chunk: that the page is in
 * @dev_page: page of device memory
 *
 * Return: device page number.
 */
static inline unsigned long hmm_ref_chunk_dpfn(const struct hmm_ref_chunk *chunk,
					       const struct page *dev_page)
{
	return page_to_pfn(dev_page) + chunk->dpfn_offset;
}

/**
 * hmm_ref_page_chunk() - find a page's chunk
 * @dev_page: page of device memory that is handed out
 *
 * Return: the chunk, which stays as long as the page is used.
 */
static inline struct hmm_ref_chunk *hmm_ref_page_chunk(const struct page *dev_page)
{
	return container_of(page_pgmap(dev_page), struct hmm_ref_chunk, pagemap);
}

/**
 * hmm_ref_folio_chunk() - find a folio's chunk
 * @folio: of device memory, handed out
 *
 * Return: the chunk, which stays as long as the folio is used.
 */
static inline struct hmm_ref_chunk *hmm_ref_folio_chunk(const struct folio *folio)
{
	return container_of(hmm_ref_folio_pgmap(folio), struct hmm_ref_chunk, pagemap);
}

/**
 * hmm_ref_folio_dpfn() - device page number of a folio's first page
 * @folio: of device memory, handed out
 *
 * Return: device page number.
 */
static inline unsigned long hmm_ref_folio_dpfn(const struct folio *folio)
{
	return hmm_ref_chunk_dpfn(hmm_ref_folio_chunk(folio), &folio->page);
}

/**
 * hmm_ref_page_dpfn() - device page number of a page
 * @dev_page: page of device memory that is handed out
 *
 * Return: device page number.
 */
static inline unsigned long hmm_ref_page_dpfn(const struct page *dev_page)
{
	return hmm_ref_chunk_dpfn(hmm_ref_page_chunk(dev_page), dev_page);
}

/**
 * hmm_ref_own_chunk() - is a page of this device's memory, and where?
 * @dm: device memory
 * @page: any page that cannot be freed meanwhile
 *
 * Return: the chunk, or NULL when @page is none of @dm's.
 */
static inline struct hmm_ref_chunk *hmm_ref_own_chunk(const struct hmm_ref_devmem *dm,
						      const struct page *page)
{
	struct dev_pagemap *pagemap;

	if (!is_zone_device_page(page))
		return NULL;
	pagemap = page_pgmap(page);
	if (pagemap->owner != dm->pgmap_owner)
		return NULL;
	return container_of(pagemap, struct hmm_ref_chunk, pagemap);
}

/**
 * hmm_ref_owns() - is a page of this device's memory?
 * @dm: device memory
 * @page: any page that cannot be freed meanwhile
 *
 * Return: true when @page is one of @dm's.
 */
static inline bool hmm_ref_owns(const struct hmm_ref_devmem *dm, const struct page *page)
{
	return hmm_ref_own_chunk(dm, page);
}

/**
 * hmm_ref_has_large() - can pages be large folios?
 * @dm: device memory
 *
 * The core splits and moves large folios of private memory only.
 *
 * Return: true when they can.
 */
static inline bool hmm_ref_has_large(const struct hmm_ref_devmem *dm)
{
	return IS_ENABLED(CONFIG_ARCH_HAS_PMD_SOFTLEAVES) && dm->large &&
	       dm->type == MEMORY_DEVICE_PRIVATE;
}

/**
 * hmm_ref_takes_large() - can large folios stay whole on their way to the device?
 * @dm: device memory
 *
 * Return: true when they can: not necessarily now, but some time.
 */
static inline bool hmm_ref_takes_large(const struct hmm_ref_devmem *dm)
{
	return hmm_ref_has_large(dm) &&
	       READ_ONCE(dm->nr_flawed) < dm->capacity >> HMM_REF_BLOCK_ORDER;
}

#endif /* _HMM_REF_DEVMEM_H */
