// SPDX-License-Identifier: GPL-2.0-only
/*
 * How much device memory there is: chunks, storage, reservations.
 *
 * Coherent memory is one chunk, the window that it was given. It is all there from
 * the start, and there is never a second.
 *
 * A device with private memory starts with nothing. Memory grows in two steps, both
 * when a migration reserves: a chunk adds struct pages, and a block of it gets storage
 * from the engine. Storage of blocks that nobody uses goes back when the system asks
 * for it (shrinker); chunks stay until the device goes.
 *
 * A reservation is a count, not a set of pages:
 *
 *   committed (used + reserved)  <=  backed (pages with storage, not retired)
 *
 * so who has reserved finds a free page. The sum is raised under dm->lock, where
 * it is compared; folio_free lowers it after the page can be found. Retiring pages
 * may break the promise, and handout then comes short. Reserving never evicts: when
 * nothing can be added it returns less, and the caller evicts (migrate.c).
 */
#include <linux/ioport.h>
#include <linux/log2.h>
#include <linux/sched.h>
#include <linux/slab.h>

#include "hmm_ref.h"
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

/* Address space for a chunk: the window of coherent memory, or some that is unused. */
static struct resource *chunk_region(struct hmm_ref_devmem *dm, u64 size)
{
	struct resource *region;

	if (dm->type == MEMORY_DEVICE_PRIVATE)
		return request_free_mem_region(&iomem_resource, size, "hmm_ref");
	region = request_mem_region(dm->window, size, "hmm_ref");
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
	       memremap_pages(&chunk->pagemap, dm->engine.node);
	if (IS_ERR(addr)) {
		rc = PTR_ERR(addr);
		goto err_release;
	}
	if (dm->type == MEMORY_DEVICE_COHERENT)
		hmm_ref_engine_set_window(&dm->engine, addr);
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

	xa_for_each(&dm->chunks, index, chunk) {
		hmm_ref_verify_chunk(chunk);
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
	rc = hmm_ref_engine_back(&dm->engine, hmm_ref_block_dpfn(block));
	if (rc) {
		give_bare(dm, block);
		return rc;
	}
	spin_lock_irq(&block->lock);
	spin_lock(&dm->lock);
	block->backed = true;
	dm->backed += block->nr_free;
	hmm_ref_block_enlist(block);
	spin_unlock(&dm->lock);
	hmm_ref_verify_block(block);
	spin_unlock_irq(&block->lock);
	return 0;
}

/* ---- reservations ------------------------------------------------------ */

static long try_reserve(struct hmm_ref_devmem *dm, unsigned long nr)
{
	long left;
	long got;

	spin_lock_irq(&dm->lock);
	left = dm->backed - atomic_long_read(&dm->committed);
	if (dm->stopped)
		got = -ENODEV;
	else
		got = clamp_t(long, left, 0, nr);
	if (got > 0) {
		atomic_long_add(got, &dm->committed);
		hmm_ref_verify_promise(dm);
	}
	spin_unlock_irq(&dm->lock);
	return got;
}

/**
 * hmm_ref_devmem_reserve() - promise pages to a migration
 * @dm: device memory
 * @nr: pages wanted
 *
 * Adds storage and chunks as far as the capacity allows. Does not evict.
 *
 * Context: may sleep and enter reclaim; no folio lock held, so that nothing waits
 * for the memory behind a half-done migration.
 * Return: pages reserved, @nr or less when there are no more; else -ENOSPC (full),
 * -ENOMEM (no system memory to stand for device memory), -ENODEV or -EINTR.
 */
long hmm_ref_devmem_reserve(struct hmm_ref_devmem *dm, unsigned long nr)
{
	long got = try_reserve(dm, nr);
	long more;
	int rc;

	while (got >= 0 && got < nr) {
		if (mutex_lock_killable(&dm->grow_lock))
			return got ?: -EINTR;
		more = try_reserve(dm, nr - got);
		rc = more ? 0 : grow(dm);
		mutex_unlock(&dm->grow_lock);
		if (rc || more < 0)
			return got ?: (rc ?: more);
		got += more;
	}
	return got;
}
EXPORT_SYMBOL_IF_KUNIT(hmm_ref_devmem_reserve);

/**
 * hmm_ref_devmem_unreserve() - return what is left of a reservation
 * @dm: device memory
 * @nr: pages
 */
void hmm_ref_devmem_unreserve(struct hmm_ref_devmem *dm, unsigned long nr)
{
	atomic_long_sub(nr, &dm->committed);
}
EXPORT_SYMBOL_IF_KUNIT(hmm_ref_devmem_unreserve);

/**
 * hmm_ref_devmem_want_whole() - see to it that there is a whole free block
 * @dm: device memory
 *
 * For a migration that has reserved and would like a large folio. Free pages may be
 * spread over many blocks; if the capacity allows it, one more gets storage.
 *
 * Context: as hmm_ref_devmem_reserve().
 */
void hmm_ref_devmem_want_whole(struct hmm_ref_devmem *dm)
{
	if (!list_empty(&dm->whole) || mutex_lock_killable(&dm->grow_lock))
		return;
	if (list_empty(&dm->whole))
		grow(dm);
	mutex_unlock(&dm->grow_lock);
}
EXPORT_SYMBOL_IF_KUNIT(hmm_ref_devmem_want_whole);

/* ---- shrinker ---------------------------------------------------------- */

/* Take the storage of one block without used pages, if it is not promised. */
static bool shrink_one(struct hmm_ref_devmem *dm)
{
	struct hmm_ref_block *block;
	bool idle;
	long left;

	spin_lock_irq(&dm->lock);
	block = list_last_entry_or_null(&dm->whole, struct hmm_ref_block, avail);
	spin_unlock_irq(&dm->lock);
	if (!block)
		return false;

	spin_lock_irq(&block->lock);
	spin_lock(&dm->lock);
	left = dm->backed - atomic_long_read(&dm->committed);
	idle = block->backed && block->nr_free == HMM_REF_BLOCK_PAGES &&
	       left >= (long)block->nr_free;
	if (idle) {
		block->backed = false;
		dm->backed -= block->nr_free;
		list_del_init(&block->avail);
		hmm_ref_block_enlist(block);
	}
	spin_unlock(&dm->lock);
	hmm_ref_verify_block(block);
	spin_unlock_irq(&block->lock);
	if (!idle)
		return false;
	hmm_ref_engine_unback(&dm->engine, hmm_ref_block_dpfn(block));
	give_bare(dm, block);
	return true;
}

static unsigned long shrink_count(struct shrinker *shrinker,
				  struct shrink_control *sc)
{
	struct hmm_ref_devmem *dm = shrinker->private_data;
	long left = READ_ONCE(dm->backed) - atomic_long_read(&dm->committed);

	if (dm->type == MEMORY_DEVICE_COHERENT)
		return 0;
	return left < (long)HMM_REF_BLOCK_PAGES ? 0 : left;
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
 * Return: 0, -ENOMEM, or -EBUSY when the window of coherent memory is in use or
 * ordinary memory.
 */
int hmm_ref_devmem_init(struct hmm_ref_devmem *dm,
			const struct hmm_ref_devmem_params *params)
{
	bool coherent = params->window;
	u64 chunk_size = coherent ? roundup_pow_of_two(params->capacity) :
				    params->chunk_size;
	int rc;

	dm->id = params->id;
	dm->pgmap_owner = dm;
	dm->type = coherent ? MEMORY_DEVICE_COHERENT : MEMORY_DEVICE_PRIVATE;
	dm->large = params->large;
	dm->window = params->window;
	dm->ops = params->ops;
	dm->capacity = params->capacity >> PAGE_SHIFT;
	dm->chunk_shift = ilog2(chunk_size) - PAGE_SHIFT;
	xa_init(&dm->chunks);
	mutex_init(&dm->grow_lock);
	spin_lock_init(&dm->lock);
	INIT_LIST_HEAD(&dm->bare);
	INIT_LIST_HEAD(&dm->whole);
	INIT_LIST_HEAD(&dm->partial);
	INIT_LIST_HEAD(&dm->lru);

	rc = hmm_ref_engine_init(&dm->engine, params->node);
	if (rc)
		return rc;
	rc = coherent ? add_window(dm) : 0;
	if (rc)
		goto err_engine;
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
err_engine:
	hmm_ref_engine_exit(&dm->engine);
	return rc;
}
EXPORT_SYMBOL_IF_KUNIT(hmm_ref_devmem_init);

/**
 * hmm_ref_devmem_stop() - hand out nothing any more
 * @dm: device memory
 *
 * Pages that are out stay valid. After this, no used page escapes
 * hmm_ref_devmem_used(): who reads the flag as unset does so under a block's lock,
 * and the count takes each of these locks.
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
	hmm_ref_engine_exit(&dm->engine);
}
EXPORT_SYMBOL_IF_KUNIT(hmm_ref_devmem_exit);
