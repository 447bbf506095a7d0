// SPDX-License-Identifier: GPL-2.0-only
/*
 * Chunks: device memory that is added on demand.
 *
 * Coherent memory is one chunk, the region that the device was given. It exists
 * from the start, and no other chunk is ever added.
 *
 * A device with private memory starts without chunks. A migration that finds
 * too few free pages adds one: memory of the device, and struct pages for it.
 * Under memory pressure unused chunks are freed (shrink.c).
 *
 * A chunk has users while any of its pages is handed out or any of its blocks
 * is reserved; a task that looks at it is a user as well. A handout chooses a
 * block under RCU. If the chunk has no users, the handout either becomes its
 * first user or finds that it is no longer live, both under dm->lock. Bad pages
 * outlive their chunk: otherwise the next chunk in its place would hand them
 * out again.
 */
#include <linux/dma-mapping.h>
#include <linux/ioport.h>
#include <linux/log2.h>
#include <linux/slab.h>

#include "devmem.h"
#include "fail.h"
#include "sanity.h"
#include "trace.h"

/* ---- users of a chunk -------------------------------------------------- */

/**
 * hmm_ref_chunk_use() - add a user to a chunk
 * @chunk: chunk that is live
 *
 * Context: hmm_ref_devmem::lock is held.
 */
void hmm_ref_chunk_use(struct hmm_ref_chunk *chunk)
{
	lockdep_assert_held(&chunk->dm->lock);
	if (chunk->users++)
		return;
	list_del_init(&chunk->idle);
	chunk->dm->nr_idle -= hmm_ref_chunk_pages(chunk);
}

/**
 * hmm_ref_chunk_unuse() - drop a user of a chunk
 * @chunk: chunk
 *
 * A chunk without users may be freed as soon as the lock is released.
 *
 * Context: hmm_ref_devmem::lock is held.
 */
void hmm_ref_chunk_unuse(struct hmm_ref_chunk *chunk)
{
	lockdep_assert_held(&chunk->dm->lock);
	if (--chunk->users)
		return;
	list_add_tail(&chunk->idle, &chunk->dm->idle);
	chunk->dm->nr_idle += hmm_ref_chunk_pages(chunk);
}

/**
 * hmm_ref_chunk_put() - stop using a chunk that was looked up
 * @chunk: result of hmm_ref_devmem_next_chunk(), or chunk of a looked-up block
 */
void hmm_ref_chunk_put(struct hmm_ref_chunk *chunk)
{
	struct hmm_ref_devmem *dm = chunk->dm;
	unsigned long flags;

	spin_lock_irqsave(&dm->lock, flags);
	hmm_ref_chunk_unuse(chunk);
	spin_unlock_irqrestore(&dm->lock, flags);
}

/* Called under RCU. Return: false if the chunk is not live. */
static bool chunk_get(struct hmm_ref_chunk *chunk)
{
	struct hmm_ref_devmem *dm = chunk->dm;
	unsigned long flags;
	bool got;

	spin_lock_irqsave(&dm->lock, flags);
	got = chunk->live;
	if (got)
		hmm_ref_chunk_use(chunk);
	spin_unlock_irqrestore(&dm->lock, flags);
	return got;
}

/**
 * hmm_ref_devmem_next_chunk() - iterate over all chunks
 * @dm: device memory
 * @index: position, 0 for the first call; updated for the next one
 *
 * Return: a chunk, which stays until hmm_ref_chunk_put(); NULL at the end.
 */
struct hmm_ref_chunk *hmm_ref_devmem_next_chunk(struct hmm_ref_devmem *dm,
						unsigned long *index)
{
	struct hmm_ref_chunk *chunk;

	rcu_read_lock();
	xa_for_each_start(&dm->chunks, *index, chunk, *index) {
		if (chunk_get(chunk))
			break;
	}
	rcu_read_unlock();
	++*index;
	return chunk;
}

/**
 * hmm_ref_devmem_get_block() - find the block of a page and keep it
 * @dm: device memory
 * @dpfn: device page number
 *
 * Return: the block, which stays until hmm_ref_chunk_put() of its chunk; NULL
 * if the device has no such page now.
 */
struct hmm_ref_block *hmm_ref_devmem_get_block(struct hmm_ref_devmem *dm,
					       unsigned long dpfn)
{
	struct hmm_ref_block *block;

	rcu_read_lock();
	block = hmm_ref_devmem_block(dm, dpfn);
	if (block && !chunk_get(block->chunk))
		block = NULL;
	rcu_read_unlock();
	return block;
}

/**
 * hmm_ref_devmem_get_bad() - find the block of a bad page, or record the page
 * @dm: device memory
 * @dpfn: device page number
 * @rc: out: 0, -EINVAL if the device has no such page, or -ENOMEM
 *
 * A page without a block is recorded, and retired when its chunk is added.
 *
 * Context: process context; may sleep.
 * Return: same as hmm_ref_devmem_get_block().
 */
struct hmm_ref_block *hmm_ref_devmem_get_bad(struct hmm_ref_devmem *dm,
					     unsigned long dpfn, int *rc)
{
	struct hmm_ref_block *block = hmm_ref_devmem_get_block(dm, dpfn);

	*rc = 0;
	if (block)
		return block;
	if (dpfn >= dm->capacity) {
		*rc = -EINVAL;
		return NULL;
	}
	/* Excludes the addition of a chunk. */
	mutex_lock(&dm->grow_lock);
	block = hmm_ref_devmem_get_block(dm, dpfn);
	if (!block)
		*rc = xa_err(xa_store(&dm->bad, dpfn, xa_mk_value(0),
				      GFP_KERNEL));
	mutex_unlock(&dm->grow_lock);
	return block;
}

/* ---- chunks ------------------------------------------------------------ */

/**
 * hmm_ref_chunk_free() - free a chunk that was removed
 * @chunk: chunk that no task can find
 */
void hmm_ref_chunk_free(struct hmm_ref_chunk *chunk)
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
					 unsigned long first_dpfn,
					 unsigned long nr_pages)
{
	struct hmm_ref_chunk *chunk = kzalloc_obj(*chunk, GFP_KERNEL);
	unsigned int i;

	if (!chunk)
		return NULL;
	chunk->dm = dm;
	chunk->users = 1; /* dropped on publication, unless coherent */
	INIT_LIST_HEAD(&chunk->idle);
	chunk->first_dpfn = first_dpfn;
	chunk->nr_blocks = nr_pages >> HMM_REF_BLOCK_ORDER;
	chunk->blocks = kvcalloc(chunk->nr_blocks, sizeof(*chunk->blocks),
				 GFP_KERNEL);
	if (!chunk->blocks) {
		hmm_ref_chunk_free(chunk);
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

/* Find address space: the region of coherent memory, or an unused one. */
static struct resource *chunk_region(struct hmm_ref_devmem *dm, u64 size)
{
	struct resource *region;

	if (dm->type == MEMORY_DEVICE_PRIVATE)
		return request_free_mem_region(&iomem_resource, size,
					       "hmm_ref");
	region = request_mem_region(dm->coherent_base, size, "hmm_ref");
	return region ?: ERR_PTR(-EBUSY);
}

/* Create the struct pages of a chunk, which the core leaves idle. */
static int chunk_map(struct hmm_ref_chunk *chunk)
{
	struct hmm_ref_devmem *dm = chunk->dm;
	struct dev_pagemap *pagemap = &chunk->pagemap;
	void *addr;

	pagemap->type = dm->type;
	pagemap->range.start = chunk->region->start;
	pagemap->range.end = chunk->region->end;
	pagemap->nr_range = 1;
	pagemap->ops = dm->ops;
	pagemap->owner = dm->pgmap_owner;
	addr = hmm_ref_fail(HMM_REF_FAIL_CHUNK) ? ERR_PTR(-ENOMEM) :
	       memremap_pages(pagemap, dm->hw->node);
	return PTR_ERR_OR_ZERO(addr);
}

/* Retire pages that are known to be bad before any page is handed out. */
static void chunk_retire_bad(struct hmm_ref_chunk *chunk)
{
	unsigned long last = chunk->first_dpfn + hmm_ref_chunk_pages(chunk) - 1;
	struct hmm_ref_devmem *dm = chunk->dm;
	unsigned long dpfn;
	void *entry;

	xa_for_each_range(&dm->bad, dpfn, entry, chunk->first_dpfn, last) {
		unsigned long offset = dpfn - chunk->first_dpfn;
		struct hmm_ref_block *block =
			&chunk->blocks[offset >> HMM_REF_BLOCK_ORDER];
		unsigned int bit = offset & (HMM_REF_BLOCK_PAGES - 1);

		__set_bit(bit, block->bad);
		__clear_bit(bit, block->free);
		block->nr_free--;
		block->nr_retired++;
		xa_erase(&dm->bad, dpfn);
	}
}

static void block_enlist_first(struct hmm_ref_block *block)
{
	struct hmm_ref_devmem *dm = block->chunk->dm;

	dm->retired += block->nr_retired;
	dm->nr_flawed += !!block->nr_retired;
	block->state = block->nr_retired ? HMM_REF_BLOCK_PARTIAL :
					   HMM_REF_BLOCK_WHOLE;
	if (block->nr_free)
		list_add_tail(&block->avail, &dm->avail[ilog2(block->nr_free)]);
	else
		block->state = HMM_REF_BLOCK_FULL;
}

/**
 * hmm_ref_chunk_publish() - let the blocks of a chunk be handed out
 * @chunk: new chunk, or one that is not removed after all
 *
 * Context: hmm_ref_devmem::grow_lock is held.
 */
void hmm_ref_chunk_publish(struct hmm_ref_chunk *chunk)
{
	struct hmm_ref_devmem *dm = chunk->dm;
	unsigned int i;

	spin_lock_irq(&dm->lock);
	dm->nr_pages += hmm_ref_chunk_pages(chunk);
	for (i = 0; i < chunk->nr_blocks; i++)
		block_enlist_first(&chunk->blocks[i]);
	chunk->live = true;
	if (dm->type == MEMORY_DEVICE_PRIVATE)
		hmm_ref_chunk_unuse(chunk);
	spin_unlock_irq(&dm->lock);
}

/**
 * hmm_ref_devmem_add_chunk() - add a chunk
 * @dm: device memory
 *
 * Context: hmm_ref_devmem::grow_lock is held; may sleep and enter reclaim.
 * Return: 0; -ENOSPC if the capacity is used up; -EBUSY if the region of
 * coherent memory is in use; or another errno of the core or the device.
 */
int hmm_ref_devmem_add_chunk(struct hmm_ref_devmem *dm)
{
	unsigned long last = (dm->capacity - 1) >> dm->chunk_shift;
	const struct hmm_ref_hw_ops *ops;
	unsigned long first_dpfn, nr_pages;
	struct hmm_ref_chunk *chunk;
	struct resource *region;
	int section, rc;
	u32 index;

	lockdep_assert_held(&dm->grow_lock);
	rc = xa_alloc(&dm->chunks, &index, NULL, XA_LIMIT(0, last), GFP_KERNEL);
	if (rc)
		return rc == -EBUSY ? -ENOSPC : rc;
	first_dpfn = (unsigned long)index << dm->chunk_shift;
	nr_pages = min(1UL << dm->chunk_shift, dm->capacity - first_dpfn);
	rc = -ENOMEM;
	chunk = chunk_alloc(dm, first_dpfn, nr_pages);
	if (!chunk)
		goto err_index;
	region = chunk_region(dm, (u64)nr_pages << PAGE_SHIFT);
	rc = PTR_ERR_OR_ZERO(region);
	if (rc)
		goto err_free;
	chunk->region = region;
	chunk->dpfn_offset = first_dpfn - PHYS_PFN(region->start);
	rc = -ENODEV;
	if (!hmm_ref_hw_enter(dm, &section))
		goto err_free;
	ops = dm->hw->ops;
	rc = ops->vram_alloc(dm->hw, first_dpfn, nr_pages);
	if (rc)
		goto err_exit;
	rc = chunk_map(chunk);
	if (rc)
		goto err_vram;
	chunk->has_vram = true;
	hmm_ref_hw_exit(dm, section);
	hmm_ref_verify_chunk(chunk);
	trace_hmm_ref_chunk_add(chunk);
	xa_store(&dm->chunks, index, chunk, GFP_KERNEL);
	chunk_retire_bad(chunk);
	hmm_ref_chunk_publish(chunk);
	return 0;

err_vram:
	ops->vram_free(dm->hw, first_dpfn, nr_pages);
err_exit:
	hmm_ref_hw_exit(dm, section);
err_free:
	hmm_ref_chunk_free(chunk);
err_index:
	xa_erase(&dm->chunks, index);
	return rc;
}

/* Does nothing if the hardware is gone. */
static void chunk_free_vram(struct hmm_ref_chunk *chunk)
{
	struct hmm_ref_hw *hw = chunk->dm->hw;

	if (chunk->has_vram)
		hw->ops->vram_free(hw, chunk->first_dpfn,
				   hmm_ref_chunk_pages(chunk));
	chunk->has_vram = false;
}

/**
 * hmm_ref_chunk_remove() - free the struct pages and device memory of a chunk
 * @chunk: chunk that is not live and has no used pages; stays allocated
 *
 * memunmap_pages() waits until the core has dropped its references: to the last
 * page, which happens just after folio_free, and to the pagemap.
 * memory_failure() holds one to the pagemap while it calls the driver, which
 * may take grow_lock; so grow_lock is not held here. The chunk keeps its index
 * until the end, so that no other chunk reuses its dpfns.
 *
 * Context: may sleep; takes hmm_ref_devmem::grow_lock.
 */
void hmm_ref_chunk_remove(struct hmm_ref_chunk *chunk)
{
	struct hmm_ref_devmem *dm = chunk->dm;

	hmm_ref_verify_chunk(chunk);
	trace_hmm_ref_chunk_remove(chunk);
	memunmap_pages(&chunk->pagemap);
	mutex_lock(&dm->grow_lock);
	chunk_free_vram(chunk);
	xa_erase(&dm->chunks, chunk->first_dpfn >> dm->chunk_shift);
	mutex_unlock(&dm->grow_lock);
}

/* ---- setup and teardown of device memory ------------------------------- */

static void free_chunks(struct hmm_ref_devmem *dm)
{
	struct hmm_ref_chunk *chunk;
	unsigned long index;

	xa_for_each(&dm->chunks, index, chunk) {
		hmm_ref_chunk_remove(chunk);
		hmm_ref_chunk_free(chunk);
	}
	xa_destroy(&dm->chunks);
	xa_destroy(&dm->bad);
}

static int add_region(struct hmm_ref_devmem *dm)
{
	int rc;

	mutex_lock(&dm->grow_lock);
	rc = hmm_ref_devmem_add_chunk(dm);
	mutex_unlock(&dm->grow_lock);
	return rc;
}

/**
 * hmm_ref_devmem_init() - set up the memory of a device, with no page used
 * @dm: memory to set up; its address is the pgmap owner
 * @params: parameters
 *
 * Return: 0; -ENOMEM; or -EBUSY if the region of coherent memory is in use or
 * is ordinary memory.
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
	/* A large page does not fit in a bounce buffer. */
	dm->large = params->large &&
		    (!dm->hw->dev ||
		     dma_max_mapping_size(dm->hw->dev) >= PMD_SIZE);
	dm->coherent_base = params->coherent_base;
	dm->ops = params->ops;
	dm->capacity = params->capacity >> PAGE_SHIFT;
	dm->chunk_shift = ilog2(chunk_size) - PAGE_SHIFT;
	xa_init_flags(&dm->chunks, XA_FLAGS_ALLOC);
	xa_init(&dm->bad);
	mutex_init(&dm->grow_lock);
	mutex_init(&dm->room_lock);
	spin_lock_init(&dm->lock);
	for (i = 0; i < ARRAY_SIZE(dm->avail); i++)
		INIT_LIST_HEAD(&dm->avail[i]);
	INIT_LIST_HEAD(&dm->lru);
	INIT_LIST_HEAD(&dm->idle);

	rc = init_srcu_struct(&dm->hw_users);
	if (rc)
		return rc;
	rc = coherent ? add_region(dm) : 0;
	if (rc)
		goto err_srcu;
	rc = hmm_ref_devmem_shrink_init(dm, params->name);
	if (rc)
		goto err_chunks;
	return 0;

err_chunks:
	free_chunks(dm);
err_srcu:
	cleanup_srcu_struct(&dm->hw_users);
	return rc;
}
EXPORT_SYMBOL_IF_KUNIT(hmm_ref_devmem_init);

/**
 * hmm_ref_devmem_stop() - stop handout
 * @dm: device memory
 * @why: HMM_REF_STOPPED_TO_SLEEP, until hmm_ref_devmem_restart(), or
 *	HMM_REF_STOPPED_FOR_GOOD
 *
 * Pages that were handed out stay valid. hmm_ref_devmem_used() does not miss
 * any of them after this, since handout tests the flag and counts the page
 * under the same lock.
 */
void hmm_ref_devmem_stop(struct hmm_ref_devmem *dm, enum hmm_ref_stop why)
{
	spin_lock_irq(&dm->lock);
	WRITE_ONCE(dm->stopped, max(dm->stopped, why));
	spin_unlock_irq(&dm->lock);
}
EXPORT_SYMBOL_IF_KUNIT(hmm_ref_devmem_stop);

/**
 * hmm_ref_devmem_lose_all() - declare a device and the data of its pages lost
 * @dm: device memory
 *
 * A CPU access to one of its pages raises SIGBUS from now on.
 *
 * Context: any but interrupts.
 */
void hmm_ref_devmem_lose_all(struct hmm_ref_devmem *dm)
{
	unsigned long flags;

	spin_lock_irqsave(&dm->lock, flags);
	WRITE_ONCE(dm->lost, true);
	WRITE_ONCE(dm->stopped, HMM_REF_STOPPED_FOR_GOOD);
	spin_unlock_irqrestore(&dm->lock, flags);
}

/**
 * hmm_ref_devmem_end_hw() - end all use of the hardware
 * @dm: stopped device memory
 *
 * Pages that are still used lose their data. The caller zaps the mirrors later.
 *
 * Context: sleeps until no task uses the hardware.
 */
void hmm_ref_devmem_end_hw(struct hmm_ref_devmem *dm)
{
	struct hmm_ref_chunk *chunk;
	unsigned long index;

	WRITE_ONCE(dm->hw_gone, true);
	synchronize_srcu(&dm->hw_users);
	mutex_lock(&dm->grow_lock);
	xa_for_each(&dm->chunks, index, chunk)
		chunk_free_vram(chunk);
	mutex_unlock(&dm->grow_lock);
}

/**
 * hmm_ref_devmem_settle() - wait until no task uses the hardware
 * @dm: stopped device memory with no page used and nothing mapped by the device
 *
 * Context: sleeps for as long as a batch of copies takes.
 */
void hmm_ref_devmem_settle(struct hmm_ref_devmem *dm)
{
	synchronize_srcu(&dm->hw_users);
}

/**
 * hmm_ref_devmem_restart() - resume handout
 * @dm: device memory; stays stopped if it was stopped for good
 */
void hmm_ref_devmem_restart(struct hmm_ref_devmem *dm)
{
	spin_lock_irq(&dm->lock);
	if (dm->stopped == HMM_REF_STOPPED_TO_SLEEP)
		WRITE_ONCE(dm->stopped, HMM_REF_NOT_STOPPED);
	spin_unlock_irq(&dm->lock);
}
EXPORT_SYMBOL_IF_KUNIT(hmm_ref_devmem_restart);

/**
 * hmm_ref_devmem_exit() - free the memory of a device
 * @dm: stopped device memory with no page used
 *
 * Context: may sleep.
 */
void hmm_ref_devmem_exit(struct hmm_ref_devmem *dm)
{
	hmm_ref_devmem_shrink_exit(dm);
	free_chunks(dm);
	cleanup_srcu_struct(&dm->hw_users);
}
EXPORT_SYMBOL_IF_KUNIT(hmm_ref_devmem_exit);
