// SPDX-License-Identifier: GPL-2.0-only
/*
 * How much device memory there is: chunks, storage, reservations.
 *
 * Coherent memory is one chunk, the region that it was given. It is all there from
 * the start, and there is never a second.
 *
 * A device with private memory starts with nothing. Memory grows in two steps, both
 * when a migration reserves: a chunk adds struct pages, and a block of it gets storage
 * from the engine. Storage of blocks that nobody uses goes back when the system asks
 * for it (shrinker); chunks stay until the device goes.
 *
 * A reservation of single pages is a count, not a set of pages:
 *
 *   used + reserved  <=  backed (pages with storage, not retired)
 *
 * so every reservation finds a free page. The sum is raised under dm->lock, where
 * it is compared; folio_free lowers it after the page can be found. For a large folio a
 * block that is whole is reserved: it is counted the same way, and leaves the lists.
 * Retiring pages may break the promise, and handout then comes short.
 *
 * Reserving never evicts. A migration that finds the device full waits for its turn at
 * dm->room_lock; then it alone makes room, and whatever comes free is its own until it
 * has enough (migrate_evict.c). As long as any task waits, nothing is reserved out of turn.
 */
#include <linux/ioport.h>
#include <linux/log2.h>
#include <linux/sched/signal.h>
#include <linux/slab.h>

#include "devmem.h"
#include "fail.h"
#include "sanity.h"
#include "trace.h"

/* ---- chunks ------------------------------------------------------------ */

static void chunk_free(struct hmm_ref_chunk *chunk)
{
	if (!chunk)
		return;
	if (chunk->region)
		release_mem_region(chunk->region->start,
				   resource_size(chunk->region));
	kvfree(chunk->blocks);
	kfree(chunk);
}

static struct hmm_ref_chunk *chunk_alloc(struct hmm_ref_devmem *dm,
					 unsigned long nr_pages)
{
	struct hmm_ref_chunk *chunk = kzalloc_obj(*chunk, GFP_KERNEL);
	unsigned int i;

	if (!chunk)
		return NULL;
	chunk->dm = dm;
	chunk->first_dpfn = dm->nr_pages;
	chunk->nr_blocks = nr_pages >> HMM_REF_BLOCK_ORDER;
	chunk->blocks = kvcalloc(chunk->nr_blocks, sizeof(*chunk->blocks),
				 GFP_KERNEL);
	if (!chunk->blocks) {
		chunk_free(chunk);
		return NULL;
	}
	for (i = 0; i < chunk->nr_blocks; i++) {
		struct hmm_ref_block *block = &chunk->blocks[i];

		spin_lock_init(&block->lock);
		INIT_LIST_HEAD(&block->avail);
		INIT_LIST_HEAD(&block->lru);
		block->chunk = chunk;
		block->nr_free = HMM_REF_BLOCK_PAGES;
		bitmap_fill(block->free, HMM_REF_BLOCK_PAGES);
	}
	return chunk;
}

/* Address space for a chunk: the region of coherent memory, or some that is unused. */
static struct resource *chunk_region(struct hmm_ref_devmem *dm, u64 size)
{
	struct resource *region;

	if (dm->type == MEMORY_DEVICE_PRIVATE)
		return request_free_mem_region(&iomem_resource, size, "hmm_ref");
	region = request_mem_region(dm->coherent_base, size, "hmm_ref");
	return region ?: ERR_PTR(-EBUSY);
}

/* Add the struct pages of one more chunk; the core makes them idle. */
static int chunk_add(struct hmm_ref_devmem *dm)
{
	unsigned long nr_pages = min(1UL << dm->chunk_shift,
				     dm->capacity - dm->nr_pages);
	unsigned long index = dm->nr_pages >> dm->chunk_shift;
	struct hmm_ref_chunk *chunk;
	struct resource *region;
	unsigned long i;
	void *addr;
	int rc;

	lockdep_assert_held(&dm->grow_lock);
	chunk = chunk_alloc(dm, nr_pages);
	if (!chunk)
		return -ENOMEM;
	region = chunk_region(dm, (u64)nr_pages << PAGE_SHIFT);
	if (IS_ERR(region)) {
		rc = PTR_ERR(region);
		goto err_free;
	}
	chunk->region = region;
	chunk->dpfn_offset = chunk->first_dpfn - PHYS_PFN(region->start);
	rc = xa_reserve(&dm->chunks, index, GFP_KERNEL);
	if (rc)
		goto err_free;

	chunk->pagemap.type = dm->type;
	chunk->pagemap.range.start = region->start;
	chunk->pagemap.range.end = region->start + (nr_pages << PAGE_SHIFT) - 1;
	chunk->pagemap.nr_range = 1;
	chunk->pagemap.ops = dm->ops;
	chunk->pagemap.owner = dm->pgmap_owner;
	addr = hmm_ref_fail(HMM_REF_FAIL_CHUNK) ? ERR_PTR(-ENOMEM) :
	       memremap_pages(&chunk->pagemap, dm->hw->node);
	if (IS_ERR(addr)) {
		rc = PTR_ERR(addr);
		goto err_release;
	}
	hmm_ref_verify_chunk(chunk);
	trace_hmm_ref_chunk_add(chunk);

	xa_store(&dm->chunks, index, chunk, GFP_KERNEL);
	spin_lock_irq(&dm->lock);
	dm->nr_pages += nr_pages;
	for (i = 0; i < chunk->nr_blocks; i++)
		list_add_tail(&chunk->blocks[i].avail, &dm->bare);
	spin_unlock_irq(&dm->lock);
	return 0;

err_release:
	xa_release(&dm->chunks, index);
err_free:
	chunk_free(chunk);
	return rc;
}

static void free_chunks(struct hmm_ref_devmem *dm)
{
	struct hmm_ref_chunk *chunk;
	unsigned long index;
	unsigned int i;

	xa_for_each(&dm->chunks, index, chunk) {
		hmm_ref_verify_chunk(chunk);
		for (i = 0; i < chunk->nr_blocks; i++)
			if (chunk->blocks[i].backed)
				dm->hw->ops->vram_free(dm->hw, hmm_ref_block_dpfn(&chunk->blocks[i]),
						       HMM_REF_BLOCK_PAGES);
		trace_hmm_ref_chunk_remove(chunk);
		memunmap_pages(&chunk->pagemap);
		chunk_free(chunk);
	}
	xa_destroy(&dm->chunks);
}

/* ---- storage ----------------------------------------------------------- */

static struct hmm_ref_block *take_bare(struct hmm_ref_devmem *dm)
{
	struct hmm_ref_block *block;

	spin_lock_irq(&dm->lock);
	block = list_first_entry_or_null(&dm->bare, struct hmm_ref_block, avail);
	if (block)
		list_del_init(&block->avail);
	spin_unlock_irq(&dm->lock);
	return block;
}

static void give_bare(struct hmm_ref_devmem *dm, struct hmm_ref_block *block)
{
	spin_lock_irq(&dm->lock);
	list_add(&block->avail, &dm->bare);
	spin_unlock_irq(&dm->lock);
}

/* Give storage to one more block, and make a chunk of blocks if there is none. */
static int grow(struct hmm_ref_devmem *dm)
{
	struct hmm_ref_block *block;
	int rc;

	lockdep_assert_held(&dm->grow_lock);
	block = take_bare(dm);
	if (!block) {
		if (dm->nr_pages == dm->capacity)
			return -ENOSPC;
		/* Whatever the core's reason, there is no memory to be had. */
		if (chunk_add(dm))
			return -ENOMEM;
		block = take_bare(dm);
		if (!block)
			return -ENOSPC;
	}
	rc = dm->hw->ops->vram_alloc(dm->hw, hmm_ref_block_dpfn(block), HMM_REF_BLOCK_PAGES);
	if (rc) {
		give_bare(dm, block);
		return rc;
	}
	spin_lock_irq(&block->lock);
	spin_lock(&dm->lock);
	block->backed = true;
	dm->nr_storage++;
	dm->backed += block->nr_free;
	hmm_ref_block_enlist(block);
	spin_unlock(&dm->lock);
	hmm_ref_verify_block(block);
	spin_unlock_irq(&block->lock);
	return 0;
}

/* ---- reservations ------------------------------------------------------ */

static long nr_available(struct hmm_ref_devmem *dm)
{
	lockdep_assert_held(&dm->lock);
	return (long)dm->backed - (long)dm->reserved - atomic_long_read(&dm->used);
}

/* Are fewer pages free than that, or no block whole? */
static bool is_short(struct hmm_ref_devmem *dm, unsigned long nr, bool whole)
{
	bool is;

	spin_lock_irq(&dm->lock);
	is = nr_available(dm) < (long)nr ||
	     (whole && (list_empty(&dm->avail[HMM_REF_BLOCK_ORDER]) ||
			nr_available(dm) < (long)HMM_REF_BLOCK_PAGES));
	spin_unlock_irq(&dm->lock);
	return is;
}

/* Reserve what there is, up to @nr single pages in @room. Return: 0 or -ENOSPC. */
static int promise_pages(struct hmm_ref_devmem *dm, struct hmm_ref_room *room,
			 unsigned long nr)
{
	long more = (long)nr - (long)room->nr;

	more = clamp(nr_available(dm), 0, max(more, 0));
	if (more) {
		room->nr += more;
		dm->reserved += more;
		hmm_ref_verify_promise(dm);
	}
	return room->nr < nr ? -ENOSPC : 0;
}

/* Reserve a block. Return: 0 or -ENOSPC. */
static int promise_block(struct hmm_ref_devmem *dm, struct hmm_ref_room *room)
{
	struct hmm_ref_block *block;

	if (room->block)
		return 0;
	block = list_first_entry_or_null(&dm->avail[HMM_REF_BLOCK_ORDER],
					 struct hmm_ref_block, avail);
	if (!block || nr_available(dm) < (long)HMM_REF_BLOCK_PAGES)
		return -ENOSPC;
	room->block = block;
	WRITE_ONCE(block->reserved, true);
	trace_hmm_ref_block_state(block, HMM_REF_BLOCK_RESERVED);
	block->state = HMM_REF_BLOCK_RESERVED;
	list_del_init(&block->avail);
	dm->reserved += HMM_REF_BLOCK_PAGES;
	hmm_ref_verify_promise(dm);
	return 0;
}

static int promise(struct hmm_ref_devmem *dm, struct hmm_ref_room *room,
		   unsigned long nr, bool whole)
{
	if (dm->stopped)
		return -ENODEV;
	return whole ? promise_block(dm, room) : promise_pages(dm, room, nr);
}

/**
 * hmm_ref_devmem_try_reserve() - promise pages that are free, all or none
 * @dm: device memory
 * @room: reservation, which may have some of them already
 * @nr: single pages that it is to have
 * @whole: a block instead, for a large folio
 *
 * Context: any, folio locks included: does not sleep, and waits for nothing.
 * Return: 0; -ENOSPC when there are too few, or when others wait for them; -ENODEV.
 */
int hmm_ref_devmem_try_reserve(struct hmm_ref_devmem *dm, struct hmm_ref_room *room,
			       unsigned long nr, bool whole)
{
	int rc = -ENOSPC;

	if (whole ? !!room->block : room->nr >= nr)
		return 0;
	spin_lock_irq(&dm->lock);
	if (dm->stopped || (!atomic_read(&dm->nr_waiting) &&
			    (whole || nr_available(dm) >= (long)(nr - room->nr))))
		rc = promise(dm, room, nr, whole);
	spin_unlock_irq(&dm->lock);
	return rc;
}
EXPORT_SYMBOL_IF_KUNIT(hmm_ref_devmem_try_reserve);

/**
 * hmm_ref_devmem_reserve() - promise pages to a migration
 * @dm: device memory
 * @room: reservation, which may have some of them already
 * @nr: single pages that it is to have
 * @whole: a block instead, for a large folio
 *
 * Adds storage and chunks as far as the capacity allows. Does not evict.
 *
 * Context: may sleep and enter reclaim; no folio lock held, so that nothing waits
 * for the memory behind a half-done migration.
 * Return: 0; or, with as many single pages in @room as there are, -ENOSPC (the device is
 * full), -ENOMEM (no system memory to stand for device memory), -ENODEV or -EINTR.
 */
int hmm_ref_devmem_reserve(struct hmm_ref_devmem *dm, struct hmm_ref_room *room,
			   unsigned long nr, bool whole)
{
	int rc, grown = 0;

	for (;;) {
		spin_lock_irq(&dm->lock);
		rc = promise(dm, room, nr, whole);
		spin_unlock_irq(&dm->lock);
		if (rc != -ENOSPC || grown)
			return rc == -ENOSPC ? grown : rc;
		/* What it adds, the shrinker may take at once. */
		if (fatal_signal_pending(current) || mutex_lock_killable(&dm->grow_lock))
			return -EINTR;
		grown = is_short(dm, whole ? 0 : nr - room->nr, whole) ? grow(dm) : 0;
		mutex_unlock(&dm->grow_lock);
	}
}
EXPORT_SYMBOL_IF_KUNIT(hmm_ref_devmem_reserve);

/**
 * hmm_ref_devmem_unreserve() - return what is left of a reservation
 * @dm: device memory
 * @room: emptied
 */
void hmm_ref_devmem_unreserve(struct hmm_ref_devmem *dm, struct hmm_ref_room *room)
{
	struct hmm_ref_block *block = room->block;

	if (block) {
		spin_lock_irq(&block->lock);
		spin_lock(&dm->lock);
		block->reserved = false;
		dm->reserved -= HMM_REF_BLOCK_PAGES;
		hmm_ref_block_enlist(block);
		hmm_ref_verify_block(block);
		spin_unlock(&dm->lock);
		spin_unlock_irq(&block->lock);
		room->block = NULL;
	}
	if (room->nr) {
		spin_lock_irq(&dm->lock);
		dm->reserved -= room->nr;
		spin_unlock_irq(&dm->lock);
		room->nr = 0;
	}
}
EXPORT_SYMBOL_IF_KUNIT(hmm_ref_devmem_unreserve);

/**
 * hmm_ref_devmem_available() - how many pages can be reserved, as things are
 * @dm: device memory
 *
 * Return: pages.
 */
unsigned long hmm_ref_devmem_available(struct hmm_ref_devmem *dm)
{
	long available;

	spin_lock_irq(&dm->lock);
	available = nr_available(dm);
	spin_unlock_irq(&dm->lock);
	return max(available, 0);
}

/**
 * hmm_ref_devmem_may_grow() - would storage help a migration?
 * @dm: device memory
 * @nr: single pages that it may need
 * @whole: it may need a block
 *
 * Return: true when that is not free, and the capacity not used up.
 */
bool hmm_ref_devmem_may_grow(struct hmm_ref_devmem *dm, unsigned long nr, bool whole)
{
	bool bare = READ_ONCE(dm->nr_pages) < dm->capacity || !list_empty(&dm->bare);

	return bare && is_short(dm, nr, whole);
}

/**
 * hmm_ref_devmem_grow() - add storage for a migration that is about to begin
 * @dm: device memory
 * @nr: single pages that it may need
 * @whole: it may need a block
 *
 * Reserves nothing, and is only tried: the migration finds out what it has got.
 *
 * Context: as hmm_ref_devmem_reserve().
 */
void hmm_ref_devmem_grow(struct hmm_ref_devmem *dm, unsigned long nr, bool whole)
{
	int rc = 0;

	while (!rc && hmm_ref_devmem_may_grow(dm, nr, whole)) {
		if (mutex_lock_killable(&dm->grow_lock))
			return;
		if (is_short(dm, nr, whole))
			rc = grow(dm);
		mutex_unlock(&dm->grow_lock);
	}
}

/* ---- shrinker ---------------------------------------------------------- */

/* Take the storage of one block without used pages, if it is not promised. */
static bool shrink_one(struct hmm_ref_devmem *dm)
{
	struct hmm_ref_block *block;
	bool idle;

	spin_lock_irq(&dm->lock);
	block = list_last_entry_or_null(&dm->avail[HMM_REF_BLOCK_ORDER],
					struct hmm_ref_block, avail);
	spin_unlock_irq(&dm->lock);
	if (!block)
		return false;

	spin_lock_irq(&block->lock);
	spin_lock(&dm->lock);
	idle = block->backed && !block->reserved &&
	       block->nr_free == HMM_REF_BLOCK_PAGES &&
	       nr_available(dm) >= (long)HMM_REF_BLOCK_PAGES;
	if (idle) {
		block->backed = false;
		dm->nr_storage--;
		dm->backed -= block->nr_free;
		list_del_init(&block->avail);
		hmm_ref_block_enlist(block);
	}
	spin_unlock(&dm->lock);
	hmm_ref_verify_block(block);
	spin_unlock_irq(&block->lock);
	if (!idle)
		return false;
	dm->hw->ops->vram_free(dm->hw, hmm_ref_block_dpfn(block), HMM_REF_BLOCK_PAGES);
	give_bare(dm, block);
	return true;
}

static unsigned long shrink_count(struct shrinker *shrinker,
				  struct shrink_control *sc)
{
	struct hmm_ref_devmem *dm = shrinker->private_data;
	unsigned long available = hmm_ref_devmem_available(dm);

	if (dm->type == MEMORY_DEVICE_COHERENT)
		return 0;
	return available < HMM_REF_BLOCK_PAGES ? 0 : available;
}

static unsigned long shrink_scan(struct shrinker *shrinker,
				 struct shrink_control *sc)
{
	struct hmm_ref_devmem *dm = shrinker->private_data;
	unsigned long freed = 0;

	while (freed < sc->nr_to_scan && shrink_one(dm))
		freed += HMM_REF_BLOCK_PAGES;
	return freed ?: SHRINK_STOP;
}

/* ---- life of the whole ------------------------------------------------- */

static int add_window(struct hmm_ref_devmem *dm)
{
	int rc;

	mutex_lock(&dm->grow_lock);
	rc = chunk_add(dm);
	mutex_unlock(&dm->grow_lock);
	return rc;
}

/**
 * hmm_ref_devmem_init() - set up the memory of a device, with no page used
 * @dm: to set up; its address is the pgmap owner
 * @params: what it is like
 *
 * Return: 0, -ENOMEM, or -EBUSY when the region of coherent memory is in use or
 * ordinary memory.
 */
int hmm_ref_devmem_init(struct hmm_ref_devmem *dm,
			const struct hmm_ref_devmem_params *params)
{
	bool coherent = params->coherent_base;
	u64 chunk_size = coherent ? roundup_pow_of_two(params->capacity) :
				    params->chunk_size;
	unsigned int i;
	int rc;

	dm->id = params->id;
	dm->hw = params->hw;
	dm->pgmap_owner = dm;
	dm->type = coherent ? MEMORY_DEVICE_COHERENT : MEMORY_DEVICE_PRIVATE;
	dm->large = params->large;
	dm->coherent_base = params->coherent_base;
	dm->ops = params->ops;
	dm->capacity = params->capacity >> PAGE_SHIFT;
	dm->chunk_shift = ilog2(chunk_size) - PAGE_SHIFT;
	xa_init(&dm->chunks);
	mutex_init(&dm->grow_lock);
	mutex_init(&dm->room_lock);
	spin_lock_init(&dm->lock);
	INIT_LIST_HEAD(&dm->bare);
	for (i = 0; i < ARRAY_SIZE(dm->avail); i++)
		INIT_LIST_HEAD(&dm->avail[i]);
	INIT_LIST_HEAD(&dm->lru);

	rc = coherent ? add_window(dm) : 0;
	if (rc)
		return rc;
	dm->shrinker = shrinker_alloc(0, "%s", params->name);
	if (!dm->shrinker) {
		rc = -ENOMEM;
		goto err_chunks;
	}
	dm->shrinker->count_objects = shrink_count;
	dm->shrinker->scan_objects = shrink_scan;
	dm->shrinker->private_data = dm;
	shrinker_register(dm->shrinker);
	return 0;

err_chunks:
	free_chunks(dm);
	return rc;
}
EXPORT_SYMBOL_IF_KUNIT(hmm_ref_devmem_init);

/**
 * hmm_ref_devmem_stop() - hand out nothing any more
 * @dm: device memory
 *
 * Pages that are out stay valid. After this, no used page escapes
 * hmm_ref_devmem_used(): the flag is read, and the page counted, under the same lock.
 */
void hmm_ref_devmem_stop(struct hmm_ref_devmem *dm)
{
	spin_lock_irq(&dm->lock);
	WRITE_ONCE(dm->stopped, true);
	spin_unlock_irq(&dm->lock);
}
EXPORT_SYMBOL_IF_KUNIT(hmm_ref_devmem_stop);

/**
 * hmm_ref_devmem_restart() - hand out again
 * @dm: stopped
 *
 * Idle blocks have lost their storage: a device that was emptied starts empty.
 */
void hmm_ref_devmem_restart(struct hmm_ref_devmem *dm)
{
	if (dm->type == MEMORY_DEVICE_PRIVATE)
		while (shrink_one(dm))
			;
	spin_lock_irq(&dm->lock);
	WRITE_ONCE(dm->stopped, false);
	spin_unlock_irq(&dm->lock);
}

/**
 * hmm_ref_devmem_exit() - free the memory of a device
 * @dm: stopped, with no page used
 *
 * Context: waits in memunmap_pages() until the core has let go of the last page,
 * which is a moment later than folio_free. Only then the chunk can be freed.
 */
void hmm_ref_devmem_exit(struct hmm_ref_devmem *dm)
{
	shrinker_free(dm->shrinker);
	free_chunks(dm);
}
EXPORT_SYMBOL_IF_KUNIT(hmm_ref_devmem_exit);
