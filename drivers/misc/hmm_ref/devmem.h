/* SPDX-License-Identifier: GPL-2.0-only */
/* Device pages: how many there are, their states and their owners. */
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
 * enum hmm_ref_cause - reasons for moving data off the device
 * @HMM_REF_BY_COMMAND: a command asks for it
 * @HMM_REF_BY_FAULT: the CPU has touched the page or a neighbour
 * @HMM_REF_BY_EVICTION: the room is needed, or the device is removed or sleeps
 * @HMM_REF_BY_PEER: a command moves it to another device, perhaps through
 *	system memory
 * @HMM_REF_CAUSES: number of causes
 */
enum hmm_ref_cause {
	HMM_REF_BY_COMMAND,
	HMM_REF_BY_FAULT,
	HMM_REF_BY_EVICTION,
	HMM_REF_BY_PEER,
	HMM_REF_CAUSES,
};

/**
 * struct hmm_ref_owner - the client that a device page was handed out for
 * @refs: one for the client while its file is open, one per page handed out;
 *	taken and dropped in batches, which a kref does not support
 * @opener: process that opened the file, shown in fdinfo and traces
 * @to_device: pages that its commands have moved to the device
 * @departed: pages handed out for it that have left the device, by cause
 * @device_faults: device faults of its mirror
 * @invalidations: invalidations of its mirror
 * @retries: retries of its mirror
 *
 * For accounting only. It deliberately has no path to a file, mm or VMA.
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
 * hmm_ref_owner_pages() - number of pages handed out for an owner
 * @owner: owner of a client
 *
 * Return: pages.
 */
static inline unsigned int
hmm_ref_owner_pages(const struct hmm_ref_owner *owner)
{
	return refcount_read(&owner->refs) - 1;
}

struct hmm_ref_owner *hmm_ref_owner_create(void);
void hmm_ref_owner_put(struct hmm_ref_owner *owner, unsigned int nr);

/**
 * enum hmm_ref_block_state - availability of a block
 * @HMM_REF_BLOCK_WHOLE: all pages are free
 * @HMM_REF_BLOCK_PARTIAL: some pages are free
 * @HMM_REF_BLOCK_FULL: no page is free
 * @HMM_REF_BLOCK_RESERVED: reserved for a large folio
 */
enum hmm_ref_block_state {
	HMM_REF_BLOCK_WHOLE,
	HMM_REF_BLOCK_PARTIAL,
	HMM_REF_BLOCK_FULL,
	HMM_REF_BLOCK_RESERVED,
};

/**
 * struct hmm_ref_block - PMD_SIZE of device memory
 * @lock: covers @free, @bad, @lost and the counts; @lost is also read without
 *	it
 * @nr_free: pages on the free map
 * @nr_used: pages handed out and not yet returned
 * @nr_retired: bad pages, neither free nor used
 * @reserved: the block is reserved for a large folio, and no page of it is used
 * @state: state of the block when its list was last chosen
 * @avail: link in one of the lists hmm_ref_devmem::avail; unlinked while the
 *	block is full or reserved, and after the removal of the chunk
 * @lru: link in hmm_ref_devmem::lru while pages are used; the most recently
 *	filled block is last
 * @chunk: chunk of the block
 * @free: free map: a set bit is a page that can be handed out
 * @bad: pages to retire instead of freeing
 * @lost: bad pages that were used when they failed
 *
 * hmm_ref_devmem::lock covers @reserved, @state, @avail and @lru. Updating them
 * after a change of the counts takes both locks. @nr_free is lowered with both
 * locks held, so a whole block stays whole under either lock.
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

/* Overhead per device page, besides struct page: less than a byte. */
static_assert(sizeof(struct hmm_ref_block) < HMM_REF_BLOCK_PAGES);

/**
 * struct hmm_ref_chunk - one dev_pagemap with its blocks and its device memory
 * @dm: device memory that the chunk is part of
 * @users: number of blocks with used pages, reserved blocks, and tasks that
 *	look at the chunk; covered by hmm_ref_devmem::lock, like @live and @idle
 * @live: pages can be handed out: set when the chunk is complete, cleared
 *	before its removal
 * @idle: link in hmm_ref_devmem::idle while @users is 0
 * @first_dpfn: device page number of the first page
 * @dpfn_offset: difference between device page numbers and page frame numbers
 * @nr_blocks: elements of @blocks; fewer in the last chunk if the capacity cuts
 *	it
 * @blocks: array, constant
 * @region: physical address space of the struct pages
 * @has_vram: the device has memory for the chunk; covered by
 *	hmm_ref_devmem::grow_lock
 * @pagemap: the core's view of the chunk; ends in a flexible array, so last
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
 * enum hmm_ref_stop - state of handout
 * @HMM_REF_NOT_STOPPED: pages are handed out
 * @HMM_REF_STOPPED_TO_SLEEP: stopped for now: migrations see a full device
 * @HMM_REF_STOPPED_FOR_GOOD: stopped forever: the device is being removed, or
 *	is lost
 */
enum hmm_ref_stop {
	HMM_REF_NOT_STOPPED,
	HMM_REF_STOPPED_TO_SLEEP,
	HMM_REF_STOPPED_FOR_GOOD,
};

/**
 * struct hmm_ref_devmem - the memory of one device
 * @id: number of the device, for traces
 * @pgmap_owner: distinguishes pages of this device from those of others
 * @type: MEMORY_DEVICE_PRIVATE or MEMORY_DEVICE_COHERENT
 * @large: large folios are supported
 * @coherent_base: physical address of coherent memory
 * @ops: pagemap callbacks, folio_free among them
 * @hw: hardware
 * @hw_users: SRCU sections in which @hw is used; see hmm_ref_hw_enter()
 * @hw_gone: @hw must no longer be used; set once
 * @capacity: largest number of pages
 * @chunk_shift: log2 of the pages in a chunk
 * @chunks: chunks by dpfn >> @chunk_shift; changed under @grow_lock, read under
 *	RCU
 * @bad: pages that were reported bad while they had no chunk, by dpfn
 * @grow_lock: serialises the addition and removal of chunks
 * @room_lock: held by the one task that makes room; other tasks queue for it
 * @nr_waiting: number of tasks that hold @room_lock or queue for it
 * @lock: covers the members from @stopped to @nr_idle
 * @stopped: state of handout; see hmm_ref_devmem_stop()
 * @any_lost: some page may have lost its data; never cleared
 * @lost: the device is lost and its memory cannot be read; never cleared
 * @retired: bad pages that are neither free nor used
 * @nr_flawed: blocks with a bad page, which never become whole again
 * @reserved: pages reserved and not yet handed out
 * @used: pages handed out and not yet returned; grows under @lock only
 * @nr_pages: pages in all chunks
 * @avail: blocks with free pages, by log2 of their number: the last list holds
 *	the whole blocks
 * @lru: blocks with used pages, the least recently filled first
 * @idle: chunks without users, which can be freed
 * @nr_idle: pages in idle chunks
 * @shrinker: queues @reclaim under memory pressure
 * @reclaim: frees idle chunks
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
	struct mutex room_lock;		/* one task makes room */
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
 * hmm_ref_hw_enter() - begin to use the hardware
 * @dm: device memory
 * @section: out: argument for hmm_ref_hw_exit()
 *
 * Removal does not end the hardware before hmm_ref_hw_exit(). In between, the
 * task may wait for the hardware and for locks that other tasks hold while they
 * use it, but not for user space, because removal waits for the task.
 *
 * Return: false if the hardware is gone.
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
 * hmm_ref_hw_exit() - end the use of the hardware
 * @dm: device memory
 * @section: set by hmm_ref_hw_enter()
 */
static inline void hmm_ref_hw_exit(struct hmm_ref_devmem *dm, int section)
{
	srcu_read_unlock(&dm->hw_users, section);
}

/**
 * struct hmm_ref_devmem_params - parameters of hmm_ref_devmem_init()
 * @hw: hardware, which outlives the memory
 * @ops: pagemap callbacks
 * @large: support large folios, if the core does
 * @coherent_base: physical address of memory that the CPU can access; 0 for
 *	private memory
 * @capacity: bytes, a multiple of PMD_SIZE
 * @chunk_size: bytes that private memory grows by, a power of two and at least
 *	PMD_SIZE
 * @id: number of the device
 * @name: name of the shrinker
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
 * @block: block for a large folio, or NULL
 */
struct hmm_ref_room {
	unsigned long nr;
	struct hmm_ref_block *block;
};

/**
 * struct hmm_ref_findings - result of an audit, in pages
 * @total: pages of the device
 * @free: pages on the free map
 * @in_use: pages handed out, @pending included
 * @pending: pages taken off the free map and not yet initialised, or about to
 *	return
 * @retired: bad pages that are neither free nor used
 * @bad_ref: violations: free with a reference count other than 0
 * @bad_lock: violations: free and locked
 * @bad_map: violations: free and mapped
 * @bad_owner: violations: free with an owner, or used without
 * @bad_both: violations: free and bad
 * @bad_count: violations, in blocks: counts that differ from the free map, or
 *	do not add up
 * @violations: sum of all violations
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
 * struct hmm_ref_usage - amount of device memory by state, in pages
 * @total: pages in all chunks
 * @used: pages handed out and not yet returned
 * @reserved: pages reserved and not yet handed out
 * @retired: bad pages that are neither free nor used
 * @chunks: number of chunks
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
struct hmm_ref_block *hmm_ref_devmem_get_bad(struct hmm_ref_devmem *dm,
					     unsigned long dpfn, int *rc);

/* reserve.c */
int hmm_ref_devmem_try_reserve(struct hmm_ref_devmem *dm,
			       struct hmm_ref_room *room, unsigned long nr,
			       bool whole);
int hmm_ref_devmem_reserve(struct hmm_ref_devmem *dm, struct hmm_ref_room *room,
			   unsigned long nr, bool whole);
void hmm_ref_devmem_unreserve(struct hmm_ref_devmem *dm,
			      struct hmm_ref_room *room);
unsigned long hmm_ref_devmem_available(struct hmm_ref_devmem *dm);
bool hmm_ref_devmem_may_grow(struct hmm_ref_devmem *dm, unsigned long nr,
			     bool whole);
void hmm_ref_devmem_grow(struct hmm_ref_devmem *dm, unsigned long nr,
			 bool whole);

/* devmem.c */
unsigned long hmm_ref_devmem_handout(struct hmm_ref_devmem *dm,
				     struct hmm_ref_room *room,
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
hmm_ref_devmem_handout_large(struct hmm_ref_devmem *dm,
			     struct hmm_ref_room *room,
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
void hmm_ref_devmem_touch(struct hmm_ref_devmem *dm,
			  struct hmm_ref_block *block);
int hmm_ref_devmem_retire(struct hmm_ref_devmem *dm, unsigned long dpfn);
int hmm_ref_devmem_lose(struct hmm_ref_devmem *dm, unsigned long dpfn);
bool hmm_ref_devmem_find_lost(struct hmm_ref_devmem *dm, unsigned long dpfn,
			      unsigned int nr);

/**
 * hmm_ref_devmem_any_lost() - test whether data of pages was lost
 * @dm: device memory
 * @dpfn: device page number of the first page, which is used
 * @nr: pages, in one block
 *
 * To trust data that was read from a page, call this after the read.
 *
 * Context: any.
 * Return: true if the data of one of them was lost.
 */
static inline bool hmm_ref_devmem_any_lost(struct hmm_ref_devmem *dm,
					   unsigned long dpfn, unsigned int nr)
{
	return unlikely(READ_ONCE(dm->any_lost)) &&
	       hmm_ref_devmem_find_lost(dm, dpfn, nr);
}

/* audit.c */
int hmm_ref_devmem_audit(struct hmm_ref_devmem *dm,
			 struct hmm_ref_findings *found);
void hmm_ref_devmem_usage(struct hmm_ref_devmem *dm,
			  struct hmm_ref_usage *usage);

unsigned long hmm_ref_block_dpfn(const struct hmm_ref_block *block);
unsigned long hmm_ref_block_pfn(const struct hmm_ref_block *block);
void hmm_ref_block_enlist(struct hmm_ref_block *block);
void hmm_ref_block_fill(struct hmm_ref_block *block);
struct hmm_ref_block *hmm_ref_devmem_block(struct hmm_ref_devmem *dm,
					   unsigned long dpfn);

/**
 * hmm_ref_devmem_used() - number of used pages
 * @dm: device memory
 *
 * Return: pages. Exact for a stopped device.
 */
static inline unsigned long hmm_ref_devmem_used(struct hmm_ref_devmem *dm)
{
	return atomic_long_read(&dm->used);
}

/**
 * hmm_ref_devmem_free_pages() - number of pages that can be reserved
 * @dm: device memory, with its lock held
 *
 * Return: pages; negative if reserved pages were retired.
 */
static inline long hmm_ref_devmem_free_pages(const struct hmm_ref_devmem *dm)
{
	lockdep_assert_held(&dm->lock);
	return (long)(dm->nr_pages - dm->retired - dm->reserved) -
	       atomic_long_read(&dm->used);
}

static inline unsigned long
hmm_ref_chunk_pages(const struct hmm_ref_chunk *chunk)
{
	return (unsigned long)chunk->nr_blocks << HMM_REF_BLOCK_ORDER;
}

static inline unsigned long hmm_ref_chunk_pfn(const struct hmm_ref_chunk *chunk)
{
	return PHYS_PFN(chunk->pagemap.range.start);
}

/**
 * hmm_ref_chunk_dpfn() - device page number of a page, given its chunk
 * @chunk: chunk of the page
 * @dev_page: page of device memory
 *
 * Return: device page number.
 */
static inline unsigned long
hmm_ref_chunk_dpfn(const struct hmm_ref_chunk *chunk,
		   const struct page *dev_page)
{
	return page_to_pfn(dev_page) + chunk->dpfn_offset;
}

/**
 * hmm_ref_page_chunk() - find the chunk of a page
 * @dev_page: page of device memory that is handed out
 *
 * Return: the chunk, which stays as long as the page is used.
 */
static inline struct hmm_ref_chunk *
hmm_ref_page_chunk(const struct page *dev_page)
{
	return container_of(page_pgmap(dev_page), struct hmm_ref_chunk,
			    pagemap);
}

/**
 * hmm_ref_folio_chunk() - find the chunk of a folio
 * @folio: folio of device memory that is handed out
 *
 * Return: the chunk, which stays as long as the folio is used.
 */
static inline struct hmm_ref_chunk *
hmm_ref_folio_chunk(const struct folio *folio)
{
	return container_of(hmm_ref_folio_pgmap(folio), struct hmm_ref_chunk,
			    pagemap);
}

/**
 * hmm_ref_folio_dpfn() - device page number of a folio's first page
 * @folio: folio of device memory that is handed out
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
 * hmm_ref_own_chunk() - find the chunk of a page if it belongs to a device
 * @dm: device memory
 * @page: any page that cannot be freed meanwhile
 *
 * Return: the chunk, or NULL if @page does not belong to @dm.
 */
static inline struct hmm_ref_chunk *
hmm_ref_own_chunk(const struct hmm_ref_devmem *dm, const struct page *page)
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
 * hmm_ref_owns() - test whether a page belongs to a device
 * @dm: device memory
 * @page: any page that cannot be freed meanwhile
 *
 * Return: true if @page belongs to @dm.
 */
static inline bool hmm_ref_owns(const struct hmm_ref_devmem *dm,
				const struct page *page)
{
	return hmm_ref_own_chunk(dm, page);
}

/**
 * hmm_ref_has_large() - test whether device pages can form large folios
 * @dm: device memory
 *
 * The core splits and moves large folios of private memory only.
 *
 * Return: true if they can.
 */
static inline bool hmm_ref_has_large(const struct hmm_ref_devmem *dm)
{
	return IS_ENABLED(CONFIG_ARCH_HAS_PMD_SOFTLEAVES) && dm->large &&
	       dm->type == MEMORY_DEVICE_PRIVATE;
}

/**
 * hmm_ref_takes_large() - test whether large folios can move to the device
 * @dm: device memory
 *
 * Return: true if a block can become whole, even if none is now.
 */
static inline bool hmm_ref_takes_large(const struct hmm_ref_devmem *dm)
{
	return hmm_ref_has_large(dm) &&
	       READ_ONCE(dm->nr_flawed) < dm->capacity >> HMM_REF_BLOCK_ORDER;
}

#endif /* _HMM_REF_DEVMEM_H */
