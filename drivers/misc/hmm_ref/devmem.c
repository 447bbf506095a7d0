// SPDX-License-Identifier: GPL-2.0-only
/*
 * Device pages: handout, ownership and freeing.
 *
 * The four rules of an idle-start driver:
 *
 * 1. A page on the free map has reference count 0, no lock, no mapping and no
 *    owner, and is not part of a folio. Chunks are created in this state.
 * 2. Handout takes the first reference: it takes the page off the free map
 *    under the lock, sets the owner, and calls zone_device_folio_init(), which
 *    clears the flags of the last user and sets the count to 1.
 * 3. A page returns to the free map only in folio_free, which the core calls
 *    after the count has dropped to 0 and memcg and mapping have been cleared.
 *    Publishing the page on the free map is the last step, because another CPU
 *    may take the page immediately.
 * 4. A page that was handed out but not used returns the same way: unlock, put.
 *
 * Each block has a free map, which is a bitmap. It detects double frees, it
 * lets pages that are neighbours in user space become neighbours on the device,
 * and nothing needs to be merged: a block is whole again when its last page has
 * returned.
 *
 * Between leaving the free map and zone_device_folio_init(), which may sleep, a
 * page has count 0 and is not free. It counts as used, so teardown waits for
 * it.
 *
 * A migration reserves its pages first (reserve.c), so handout never runs out
 * of pages halfway.
 *
 * PFN arithmetic is confined to this file, the inline functions of devmem.h,
 * and chunk.c. Large folios are in devmem_large.c.
 */
#include <linux/pagemap.h>
#include <linux/pid.h>
#include <linux/sched.h>
#include <linux/slab.h>

#include "devmem.h"
#include "fail.h"
#include "sanity.h"
#include "trace.h"

/* ---- owners ------------------------------------------------------------ */

/**
 * hmm_ref_owner_create() - create an owner for the current process
 *
 * Return: the owner with one reference, or NULL.
 */
struct hmm_ref_owner *hmm_ref_owner_create(void)
{
	struct hmm_ref_owner *owner = kzalloc_obj(*owner, GFP_KERNEL_ACCOUNT);

	if (!owner)
		return NULL;
	refcount_set(&owner->refs, 1);
	owner->opener = get_pid(task_tgid(current));
	return owner;
}
EXPORT_SYMBOL_IF_KUNIT(hmm_ref_owner_create);

static inline void owner_put(struct hmm_ref_owner *owner, unsigned int nr)
{
	if (refcount_sub_and_test(nr, &owner->refs)) {
		put_pid(owner->opener);
		kfree(owner);
	}
}

/**
 * hmm_ref_owner_put() - drop references to an owner
 * @owner: owner
 * @nr: number of references
 *
 * Context: any.
 */
void hmm_ref_owner_put(struct hmm_ref_owner *owner, unsigned int nr)
{
	owner_put(owner, nr);
}
EXPORT_SYMBOL_IF_KUNIT(hmm_ref_owner_put);

/* ---- translation ------------------------------------------------------- */

/**
 * hmm_ref_block_dpfn() - device page number of a block's first page
 * @block: block
 *
 * Return: device page number.
 */
unsigned long hmm_ref_block_dpfn(const struct hmm_ref_block *block)
{
	const struct hmm_ref_chunk *chunk = block->chunk;

	return chunk->first_dpfn +
	       ((block - chunk->blocks) << HMM_REF_BLOCK_ORDER);
}

/**
 * hmm_ref_block_pfn() - page frame number of a block's first page
 * @block: block
 *
 * Return: page frame number.
 */
unsigned long hmm_ref_block_pfn(const struct hmm_ref_block *block)
{
	const struct hmm_ref_chunk *chunk = block->chunk;

	return hmm_ref_chunk_pfn(chunk) +
	       (hmm_ref_block_dpfn(block) - chunk->first_dpfn);
}

/**
 * hmm_ref_devmem_block() - find the block of a page
 * @dm: device memory
 * @dpfn: device page number
 *
 * Context: an RCU read-side critical section, unless a page of the block is
 * used.
 * Return: the block, or NULL if the device has no such page now.
 */
struct hmm_ref_block *hmm_ref_devmem_block(struct hmm_ref_devmem *dm,
					   unsigned long dpfn)
{
	struct hmm_ref_chunk *chunk =
		xa_load(&dm->chunks, dpfn >> dm->chunk_shift);
	unsigned long index;

	if (!chunk)
		return NULL;
	index = (dpfn - chunk->first_dpfn) >> HMM_REF_BLOCK_ORDER;
	return index < chunk->nr_blocks ? &chunk->blocks[index] : NULL;
}

/* ---- blocks ------------------------------------------------------------ */

static enum hmm_ref_block_state block_state(const struct hmm_ref_block *block)
{
	if (block->reserved)
		return HMM_REF_BLOCK_RESERVED;
	if (!block->nr_free)
		return HMM_REF_BLOCK_FULL;
	return block->nr_free < HMM_REF_BLOCK_PAGES ? HMM_REF_BLOCK_PARTIAL :
						      HMM_REF_BLOCK_WHOLE;
}

/**
 * hmm_ref_block_enlist() - move a block to the lists that match its counts
 * @block: block
 *
 * Context: the block's lock and hmm_ref_devmem::lock are held.
 */
void hmm_ref_block_enlist(struct hmm_ref_block *block)
{
	enum hmm_ref_block_state state = block_state(block);
	struct hmm_ref_devmem *dm = block->chunk->dm;

	lockdep_assert_held(&block->lock);
	lockdep_assert_held(&dm->lock);
	if (state != block->state)
		trace_hmm_ref_block_state(block, state);
	block->state = state;
	switch (state) {
	case HMM_REF_BLOCK_WHOLE:
	case HMM_REF_BLOCK_PARTIAL:
		list_move(&block->avail, &dm->avail[ilog2(block->nr_free)]);
		break;
	case HMM_REF_BLOCK_FULL:
	case HMM_REF_BLOCK_RESERVED:
		list_del_init(&block->avail);
		break;
	}
	if (!block->nr_used && !list_empty(&block->lru)) {
		list_del_init(&block->lru);
		hmm_ref_chunk_unuse(block->chunk);
	}
}

/**
 * hmm_ref_block_fill() - make a block the most recently filled one
 * @block: block that now has more used pages
 *
 * Context: hmm_ref_devmem::lock is held.
 */
void hmm_ref_block_fill(struct hmm_ref_block *block)
{
	if (list_empty(&block->lru))
		hmm_ref_chunk_use(block->chunk);
	list_move_tail(&block->lru, &block->chunk->dm->lru);
}

/*
 * Claim up to @nr free pages of a block: they count as used instead of
 * reserved. The block may have been reserved, or removed with its chunk, since
 * it was chosen. Return: the number of pages; 0 for such a block and on a
 * stopped device.
 */
static unsigned long block_claim(struct hmm_ref_block *block,
				 struct hmm_ref_room *room, unsigned long nr)
{
	struct hmm_ref_devmem *dm = block->chunk->dm;

	lockdep_assert_held(&block->lock);
	spin_lock(&dm->lock);
	nr = min(nr, block->nr_free);
	if (dm->stopped || !block->chunk->live || block->reserved)
		nr = 0;
	if (nr) {
		block->nr_free -= nr;
		block->nr_used += nr;
		room->nr -= nr;
		dm->reserved -= nr;
		atomic_long_add(nr, &dm->used);
		hmm_ref_block_enlist(block);
		hmm_ref_block_fill(block);
	}
	spin_unlock(&dm->lock);
	return nr;
}

/* Take up to @nr pages off the free map of a block. */
static unsigned long block_take(struct hmm_ref_block *block,
				struct hmm_ref_room *room,
				struct folio **folios, unsigned long nr)
{
	struct page *first = pfn_to_page(hmm_ref_block_pfn(block));
	unsigned int start = 0, end;
	unsigned long got = 0;
	unsigned long flags;

	spin_lock_irqsave(&block->lock, flags);
	nr = block_claim(block, room, nr);
	for_each_set_bitrange(start, end, block->free, HMM_REF_BLOCK_PAGES) {
		end = min(end, start + (nr - got));
		hmm_ref_verify_idle(block, start, end - start);
		bitmap_clear(block->free, start, end - start);
		while (start < end)
			folios[got++] = (struct folio *)(first + start++);
		if (got == nr)
			break;
	}
	hmm_ref_verify_block(block);
	spin_unlock_irqrestore(&block->lock, flags);
	return got;
}

/* Take bad pages off the free map for good. */
static void block_retire(struct hmm_ref_block *block)
{
	struct hmm_ref_devmem *dm = block->chunk->dm;
	unsigned int bit;

	lockdep_assert_held(&block->lock);
	lockdep_assert_held(&dm->lock);
	for_each_set_bit(bit, block->bad, HMM_REF_BLOCK_PAGES) {
		if (!__test_and_clear_bit(bit, block->free))
			continue;
		block->nr_free--;
		block->nr_retired++;
		dm->retired++;
	}
	hmm_ref_block_enlist(block);
}

/* A bad page is retired now if it is free, otherwise when it returns. */
static void block_mark_bad(struct hmm_ref_block *block, unsigned int bit)
{
	block->chunk->dm->nr_flawed +=
		bitmap_empty(block->bad, HMM_REF_BLOCK_PAGES);
	__set_bit(bit, block->bad);
	block_retire(block);
}

static inline bool any_set(const unsigned long *bitmap, unsigned int bit,
			   unsigned int nr)
{
	if (nr == 1)
		return test_bit(bit, bitmap);
	return find_next_bit(bitmap, bit + nr, bit) < bit + nr;
}

/* True if returning @nr pages moves a block to another list. */
static inline bool changes_list(const struct hmm_ref_block *block,
				unsigned int nr)
{
	if (nr > 1 || block->nr_used == 1)
		return true;
	return !block->nr_free || is_power_of_2(block->nr_free + 1);
}

/*
 * Publish the pages of one folio: the only way to the free map. Releasing the
 * lock makes them visible to other CPUs.
 */
static __always_inline void block_publish(struct hmm_ref_block *block,
					  unsigned int bit, unsigned int nr)
{
	struct hmm_ref_devmem *dm = block->chunk->dm;
	unsigned long flags;
	bool enlist;
	bool bad;

	hmm_ref_verify_idle(block, bit, nr);
	spin_lock_irqsave(&block->lock, flags);
	if (WARN_ON_ONCE(any_set(block->free, bit, nr))) {
		spin_unlock_irqrestore(&block->lock, flags);
		return;
	}
	bad = any_set(block->bad, bit, nr);
	enlist = bad || changes_list(block, nr);
	bitmap_set(block->free, bit, nr);
	block->nr_free += nr;
	block->nr_used -= nr;
	if (enlist) {
		spin_lock(&dm->lock);
		if (bad)
			block_retire(block);
		else
			hmm_ref_block_enlist(block);
		spin_unlock(&dm->lock);
	}
	hmm_ref_verify_block(block);
	/* From here on these pages can be reserved, so they must be free. */
	atomic_long_sub(nr, &dm->used);
	spin_unlock_irqrestore(&block->lock, flags);
}

/* ---- handout and free -------------------------------------------------- */

/* Choose the fullest block with a free page, so that others become whole. */
static struct hmm_ref_block *next_block(struct hmm_ref_devmem *dm)
{
	struct hmm_ref_block *block = NULL;
	unsigned long flags;
	unsigned int i;

	spin_lock_irqsave(&dm->lock, flags);
	for (i = 0; !dm->stopped && !block && i < ARRAY_SIZE(dm->avail); i++)
		block = list_first_entry_or_null(&dm->avail[i],
						 struct hmm_ref_block, avail);
	spin_unlock_irqrestore(&dm->lock, flags);
	return block;
}

/*
 * Give pages that were taken off the free map their owner and first reference.
 * The chunk's own pagemap is passed, because the pointer in the page is stale
 * if the page was the tail of a folio.
 */
static void init_pages(struct hmm_ref_chunk *chunk, struct hmm_ref_owner *owner,
		       struct folio **folios, unsigned long nr)
{
	unsigned long i;

	refcount_add(nr, &owner->refs);
	for (i = 0; i < nr; i++) {
		struct folio *folio = folios[i];

		folio->page.zone_device_data = owner;
		/* A referenced page has an owner: pairs with the audit. */
		smp_wmb();
		zone_device_folio_init(folio, &chunk->pagemap, 0);
		hmm_ref_verify_handed_out(chunk, folio);
	}
	if (!trace_hmm_ref_page_handout_enabled())
		return;
	for (i = 0; i < nr; i++)
		trace_hmm_ref_page_handout(folios[i]);
}

/**
 * hmm_ref_devmem_handout() - hand out reserved pages
 * @dm: device memory
 * @room: reservation; pages that are handed out are taken off it
 * @owner: owner of the pages; gets a reference per page
 * @folios: array to store the pages in, a folio per page
 * @nr: number of pages, at most the single pages in @room
 *
 * The pages are locked and have one reference. They hold the data of their last
 * owner: clear or overwrite it. A page that is not used after all is unlocked
 * and put (rule 4).
 *
 * Context: may sleep; locks pages, which are never locked for long.
 * Return: the number of pages handed out. Less than @nr if the device is
 * stopped, or if pages were retired after they were reserved.
 */
unsigned long hmm_ref_devmem_handout(struct hmm_ref_devmem *dm,
				     struct hmm_ref_room *room,
				     struct hmm_ref_owner *owner,
				     struct folio **folios, unsigned long nr)
{
	struct hmm_ref_block *block;
	struct hmm_ref_chunk *chunk;
	unsigned long done = 0;
	unsigned long got;

	while (done < nr) {
		rcu_read_lock();
		block = hmm_ref_fail(HMM_REF_FAIL_HANDOUT) ?
			NULL : next_block(dm);
		got = block ?
		      block_take(block, room, folios + done, nr - done) : 0;
		chunk = got ? block->chunk : NULL;
		rcu_read_unlock();
		if (!block)
			break;
		/* The chunk stays while these pages are used. */
		if (got)
			init_pages(chunk, owner, folios + done, got);
		done += got;
	}
	return done;
}
EXPORT_SYMBOL_IF_KUNIT(hmm_ref_devmem_handout);

/**
 * hmm_ref_devmem_folio_free() - the pagemap's folio_free callback
 * @folio: device folio without references
 *
 * Context: any, usually with page table locks held. Takes irqsave leaf locks,
 * does not sleep or allocate.
 */
void hmm_ref_devmem_folio_free(struct folio *folio)
{
	struct page *page = folio_page(folio, 0);
	struct hmm_ref_chunk *chunk = hmm_ref_folio_chunk(folio);
	unsigned long offset = folio_pfn(folio) - hmm_ref_chunk_pfn(chunk);
	struct hmm_ref_block *block =
		&chunk->blocks[offset >> HMM_REF_BLOCK_ORDER];
	struct hmm_ref_owner *owner = page->zone_device_data;
	unsigned int bit = offset & (HMM_REF_BLOCK_PAGES - 1);
	unsigned int nr;

	hmm_ref_verify_last_put(folio);
	trace_hmm_ref_page_free(folio);
	if (likely(!folio_test_large(folio))) {
		page->zone_device_data = NULL;
		owner_put(owner, 1);
		block_publish(block, bit, 1);
		return;
	}
	nr = folio_nr_pages(folio);
	hmm_ref_devmem_dissolve(folio);
	page->zone_device_data = NULL;
	owner_put(owner, nr);
	block_publish(block, bit, nr);
}

/* ---- eviction, bad pages ----------------------------------------------- */

/**
 * hmm_ref_devmem_victim() - choose a block to evict
 * @dm: device memory
 *
 * The block counts as the most recently filled one from now on, so that the
 * next call returns another.
 *
 * Return: the least recently filled block, which stays until
 * hmm_ref_chunk_put() of its chunk; NULL if no page is used.
 */
struct hmm_ref_block *hmm_ref_devmem_victim(struct hmm_ref_devmem *dm)
{
	struct hmm_ref_block *block;

	spin_lock_irq(&dm->lock);
	block = list_first_entry_or_null(&dm->lru, struct hmm_ref_block, lru);
	if (block) {
		list_move_tail(&block->lru, &dm->lru);
		hmm_ref_chunk_use(block->chunk);
	}
	spin_unlock_irq(&dm->lock);
	return block;
}

/**
 * hmm_ref_devmem_emptiest() - choose a block to evict until it is whole
 * @dm: device memory
 *
 * Return: among the blocks with free, used and no bad pages, the one with about
 * the fewest used pages, which stays until hmm_ref_chunk_put() of its chunk;
 * NULL if there is none.
 */
struct hmm_ref_block *hmm_ref_devmem_emptiest(struct hmm_ref_devmem *dm)
{
	struct hmm_ref_block *block, *found = NULL;
	unsigned int i = HMM_REF_BLOCK_ORDER;

	spin_lock_irq(&dm->lock);
	while (!found && i--) {
		list_for_each_entry(block, &dm->avail[i], avail) {
			if (!list_empty(&block->lru) &&
			    bitmap_empty(block->bad, HMM_REF_BLOCK_PAGES)) {
				found = block;
				hmm_ref_chunk_use(block->chunk);
				break;
			}
		}
	}
	spin_unlock_irq(&dm->lock);
	return found;
}

/**
 * hmm_ref_devmem_touch() - protect a block as if it had just been filled
 * @dm: device memory
 * @block: block
 */
void hmm_ref_devmem_touch(struct hmm_ref_devmem *dm,
			  struct hmm_ref_block *block)
{
	spin_lock_irq(&dm->lock);
	if (!list_empty(&block->lru))
		list_move_tail(&block->lru, &dm->lru);
	spin_unlock_irq(&dm->lock);
}

/**
 * hmm_ref_devmem_retire() - take a bad page out of circulation
 * @dm: device memory
 * @dpfn: device page number
 *
 * A free page leaves the free map now. A used page is retired when it returns.
 *
 * Context: process context; may sleep.
 * Return: 0, also if the page was retired before; -EINVAL if the device has no
 * such page; -ENOMEM if the page has no chunk and cannot be recorded.
 */
int hmm_ref_devmem_retire(struct hmm_ref_devmem *dm, unsigned long dpfn)
{
	unsigned int bit = dpfn & (HMM_REF_BLOCK_PAGES - 1);
	struct hmm_ref_block *block;
	unsigned long flags;
	int rc;

	block = hmm_ref_devmem_get_bad(dm, dpfn, &rc);
	if (!block)
		return rc;
	spin_lock_irqsave(&block->lock, flags);
	spin_lock(&dm->lock);
	block_mark_bad(block, bit);
	spin_unlock(&dm->lock);
	hmm_ref_verify_block(block);
	spin_unlock_irqrestore(&block->lock, flags);
	hmm_ref_chunk_put(block->chunk);
	return 0;
}
EXPORT_SYMBOL_IF_KUNIT(hmm_ref_devmem_retire);

/**
 * hmm_ref_devmem_lose() - handle the failure of a page's memory
 * @dm: device memory
 * @dpfn: device page number
 *
 * The page is retired. If it is used, its data is lost.
 *
 * Context: same as hmm_ref_devmem_retire().
 * Return: 0 if no data was lost, -EBUSY if data was lost; otherwise same as
 * hmm_ref_devmem_retire().
 */
int hmm_ref_devmem_lose(struct hmm_ref_devmem *dm, unsigned long dpfn)
{
	unsigned int bit = dpfn & (HMM_REF_BLOCK_PAGES - 1);
	struct hmm_ref_block *block;
	unsigned long flags;
	struct page *page;
	bool unused;
	int rc;

	/* A chunk that is being removed has no used pages. */
	block = hmm_ref_devmem_get_bad(dm, dpfn, &rc);
	if (!block)
		return rc;
	page = pfn_to_page(hmm_ref_block_pfn(block) + bit);
	spin_lock_irqsave(&block->lock, flags);
	spin_lock(&dm->lock);
	/* A page that was bad before is retired if it has no references. */
	unused = test_bit(bit, block->free) ||
		 (test_bit(bit, block->bad) && !page_count(page));
	block_mark_bad(block, bit);
	if (!unused) {
		set_bit(bit, block->lost);
		WRITE_ONCE(dm->any_lost, true);
	}
	spin_unlock(&dm->lock);
	hmm_ref_verify_block(block);
	spin_unlock_irqrestore(&block->lock, flags);
	hmm_ref_chunk_put(block->chunk);
	return unused ? 0 : -EBUSY;
}
EXPORT_SYMBOL_IF_KUNIT(hmm_ref_devmem_lose);

/**
 * hmm_ref_devmem_find_lost() - slow path of hmm_ref_devmem_any_lost()
 * @dm: device memory
 * @dpfn: device page number
 * @nr: pages
 *
 * Return: true if the data of one of them was lost.
 */
bool hmm_ref_devmem_find_lost(struct hmm_ref_devmem *dm, unsigned long dpfn,
			      unsigned int nr)
{
	return any_set(hmm_ref_devmem_block(dm, dpfn)->lost,
		       dpfn & (HMM_REF_BLOCK_PAGES - 1), nr);
}
