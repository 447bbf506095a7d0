// SPDX-License-Identifier: GPL-2.0-only
/*
 * Sanity mode (CONFIG_HMM_REF_SANITY): the driver's invariants as assertions.
 *
 * Code that changes the state of a page, a block, a chunk or a mirror calls the
 * verify function for it while it still holds the locks of the change. So a
 * mistake is reported where it is made, with the guilty function on the stack,
 * and not later, when a page turns up twice. The opening comments of devmem.c,
 * chunk.c and mirror.c state the invariants; each is one line here.
 *
 * The functions change nothing and take only hmm_ref_block::lock. Without the
 * option they are empty, and the driver behaves the same. audit.c checks all
 * pages on request.
 */
#include <linux/hmm.h>

#include "mirror.h"
#include "sanity.h"

#define sane(cond)	WARN_ON_ONCE(!(cond))

/* Rule 1 of devmem.c: the state of a page on the free map. */
static bool is_idle(struct page *page)
{
	return !page_ref_count(page) && !PageCompound(page) &&
	       !PageLocked(page) && !page->mapping && !page->zone_device_data;
}

/**
 * hmm_ref_verify_idle() - check pages on the free map, or about to enter it
 * @block: block
 * @bit: first page
 * @nr: pages
 *
 * Context: no other task can hand out the pages during the call.
 */
void hmm_ref_verify_idle(const struct hmm_ref_block *block, unsigned int bit,
			 unsigned int nr)
{
	struct page *page = pfn_to_page(hmm_ref_block_pfn(block) + bit);

	while (nr--)
		sane(is_idle(page++));
}

/* Flags of the last user, which the next one would inherit. */
static bool has_flags_of_user(const struct folio *folio)
{
	return folio_test_swapbacked(folio) || folio_test_dirty(folio) ||
	       folio_test_active(folio) || folio_test_unevictable(folio) ||
	       folio_test_mlocked(folio) || folio_test_referenced(folio) ||
	       folio_test_workingset(folio);
}

/**
 * hmm_ref_verify_handed_out() - check a folio that has just been handed out
 * @chunk: chunk of the folio
 * @folio: folio
 *
 * The count may be above 1: an eviction takes a reference to examine a page.
 *
 * Context: process context, before the folio is used.
 */
void hmm_ref_verify_handed_out(const struct hmm_ref_chunk *chunk,
			       struct folio *folio)
{
	struct page *page = folio_page(folio, 0);

	sane(folio_ref_count(folio) >= 1);
	sane(folio_test_locked(folio));
	sane(!folio_mapped(folio) && !page->mapping);
	sane(!has_flags_of_user(folio));
	sane(page->zone_device_data);
	sane(page_pgmap(page) == &chunk->pagemap);
	sane(IS_ALIGNED(hmm_ref_page_dpfn(page), folio_nr_pages(folio)));
}

/**
 * hmm_ref_verify_last_put() - check a folio that the core is freeing
 * @folio: folio
 *
 * Rule 3 of devmem.c: the core has cleared its state.
 *
 * Context: that of folio_free.
 */
void hmm_ref_verify_last_put(struct folio *folio)
{
	struct page *page = folio_page(folio, 0);

	sane(!folio_ref_count(folio));
	sane(!folio_test_locked(folio));
	sane(!folio_mapped(folio) && !page->mapping);
	sane(page->zone_device_data);
}

/**
 * hmm_ref_verify_block() - check counts, bitmaps and lists of a block
 * @block: block
 *
 * Context: the block's lock is held.
 */
void hmm_ref_verify_block(const struct hmm_ref_block *block)
{
	lockdep_assert_held(&block->lock);
	sane(block->nr_free == bitmap_weight(block->free, HMM_REF_BLOCK_PAGES));
	sane(block->nr_free + block->nr_used + block->nr_retired ==
	     HMM_REF_BLOCK_PAGES);
	sane(!bitmap_intersects(block->free, block->bad, HMM_REF_BLOCK_PAGES));
	sane(bitmap_subset(block->lost, block->bad, HMM_REF_BLOCK_PAGES));
	sane(list_empty(&block->lru) == !block->nr_used);
	sane(!block->nr_used || READ_ONCE(block->chunk->users));
	/* Marked and unlinked without the block's lock. */
	sane(list_empty(&block->avail) == !block->nr_free ||
	     READ_ONCE(block->reserved) || !READ_ONCE(block->chunk->live));
}

/**
 * hmm_ref_verify_chunk() - check a chunk that is added or removed
 * @chunk: chunk with no used page
 *
 * Context: process context, between memremap_pages() and memunmap_pages().
 */
void hmm_ref_verify_chunk(const struct hmm_ref_chunk *chunk)
{
	unsigned int i, bit;

	sane(IS_ALIGNED(hmm_ref_chunk_pfn(chunk), HMM_REF_BLOCK_PAGES));
	sane(IS_ALIGNED(chunk->first_dpfn, HMM_REF_BLOCK_PAGES));
	for (i = 0; i < chunk->nr_blocks; i++) {
		struct hmm_ref_block *block = &chunk->blocks[i];

		spin_lock_irq(&block->lock);
		sane(!block->nr_used);
		hmm_ref_verify_block(block);
		for_each_set_bit(bit, block->free, HMM_REF_BLOCK_PAGES)
			hmm_ref_verify_idle(block, bit, 1);
		spin_unlock_irq(&block->lock);
		cond_resched();
	}
}

/**
 * hmm_ref_verify_promise() - check that free pages cover the reservations
 * @dm: device memory
 *
 * Context: hmm_ref_devmem::lock is held, right after a reservation.
 */
void hmm_ref_verify_promise(const struct hmm_ref_devmem *dm)
{
	lockdep_assert_held(&dm->lock);
	sane(atomic_long_read(&dm->used) >= 0);
	sane(dm->reserved + atomic_long_read(&dm->used) <=
	     dm->nr_pages - dm->retired);
	sane(dm->nr_pages <= dm->capacity);
}

static void verify_device_page(struct hmm_ref_devmem *dm, unsigned long dpfn)
{
	struct hmm_ref_block *block = hmm_ref_devmem_block(dm, dpfn);
	unsigned int bit = dpfn & (HMM_REF_BLOCK_PAGES - 1);
	unsigned long flags;

	sane(block);
	if (!block)
		return;
	spin_lock_irqsave(&block->lock, flags);
	sane(!test_bit(bit, block->free));
	spin_unlock_irqrestore(&block->lock, flags);
	sane(page_count(pfn_to_page(hmm_ref_block_pfn(block) + bit)));
}

static void verify_system_page(struct hmm_ref_range *range, unsigned long addr)
{
	unsigned long index = (addr - range->start) / range->dma.dma_entry_size;
	unsigned long entry = range->dma.pfn_list[index];
	unsigned long pfn = page_to_pfn(hmm_pfn_to_page(entry));

	pfn += (addr >> PAGE_SHIFT) &
	       ((range->dma.dma_entry_size >> PAGE_SHIFT) - 1);
	sane(entry & HMM_PFN_DMA_MAPPED);
	sane(pfn_valid(pfn));
	sane(page_count(pfn_to_page(pfn)));
	sane(!hmm_ref_owns(range->mirror->dm, pfn_to_page(pfn)));
}

/**
 * hmm_ref_verify_mapped() - check the pages that a device maps
 * @range: range
 * @start: page address
 * @end: page address, exclusive
 *
 * The CPU maps the same pages while the lock is held, so they are in use.
 *
 * Context: hmm_ref_range::lock is held, right after the entries were written.
 */
void hmm_ref_verify_mapped(struct hmm_ref_range *range, unsigned long start,
			   unsigned long end)
{
	struct hmm_ref_devmem *dm = range->mirror->dm;
	unsigned long addr;

	lockdep_assert_held(&range->lock);
	for (addr = start; addr < end; addr += PAGE_SIZE) {
		hmm_ref_pte_t pte = hmm_ref_pgtable_lookup(&range->pt, addr);
		unsigned long number = hmm_ref_pte_number(pte);

		if (!(pte & HMM_REF_PTE_VALID)) {
			sane(!pte);
		} else if (pte & HMM_REF_PTE_DEVICE) {
			sane(!(pte & HMM_REF_PTE_EXCLUSIVE));
			verify_device_page(dm, number);
		} else {
			verify_system_page(range, addr);
			sane(!(pte & HMM_REF_PTE_EXCLUSIVE) ||
			     pte & HMM_REF_PTE_WRITE);
		}
	}
}

/* A page of a migration is locked and referenced until its copy is complete. */
static bool is_the_jobs(struct page *page)
{
	return page_ref_count(compound_head(page)) &&
	       PageLocked(compound_head(page));
}

/* A destination belongs to no mapping before migrate_vma_pages(). */
static bool is_unused(struct page *page)
{
	return is_the_jobs(page) && !page_folio(page)->mapping;
}

/* Return: the first of @nr pages in one block, or NULL. */
static struct page *device_pages(struct hmm_ref_devmem *dm, unsigned long dpfn,
				 unsigned int nr)
{
	struct hmm_ref_block *block = hmm_ref_devmem_block(dm, dpfn);
	unsigned int bit = dpfn & (HMM_REF_BLOCK_PAGES - 1);

	sane(block && bit + nr <= HMM_REF_BLOCK_PAGES);
	return block ? pfn_to_page(hmm_ref_block_pfn(block) + bit) : NULL;
}

static void verify_copy(const struct hmm_ref_job *job,
			const struct hmm_ref_copy *copy)
{
	struct page *dev_page = device_pages(job->dm, copy->dpfn, copy->nr);
	struct page *page = copy->sys_page;

	if (copy->op == HMM_REF_COPY_PEER)
		page = device_pages(job->peer, copy->addr >> PAGE_SHIFT,
				    copy->nr);
	if (!dev_page || (copy->op == HMM_REF_COPY_PEER && !page))
		return;
	if (copy->op == HMM_REF_COPY_OUT) {
		sane(is_the_jobs(dev_page));
		sane(is_unused(page));
	} else {
		sane(is_unused(dev_page));
		sane(copy->op == HMM_REF_COPY_ZERO || is_the_jobs(page));
	}
}

/**
 * hmm_ref_verify_job() - check the pages of a batch of copies
 * @job: batch
 *
 * Reports pages that are used, unlocked or freed before the batch is complete.
 *
 * Context: before submit, and before and after the wait.
 */
void hmm_ref_verify_job(const struct hmm_ref_job *job)
{
	unsigned int i;

	for (i = 0; i < job->nr; i++)
		verify_copy(job, &job->ring[i]);
}

/**
 * hmm_ref_verify_trimmed() - check that no empty page table is kept
 * @range: range that no operation uses
 *
 * Context: takes no lock; no entry is written during the call.
 */
void hmm_ref_verify_trimmed(struct hmm_ref_range *range)
{
	sane(hmm_ref_pgtable_is_trimmed(&range->pt));
}

/*
 * Mappings of a page are counted by direction, in one word: 12 bits for each
 * single direction, since few copies share a page, and the rest for both
 * directions, since every range that reads the zero page maps it.
 */
static unsigned int shift_of(enum dma_data_direction direction)
{
	return direction == DMA_BIDIRECTIONAL ? 24 :
	       direction == DMA_TO_DEVICE ? 12 : 0;
}

static unsigned long mapped_once(enum dma_data_direction direction)
{
	return 1UL << shift_of(direction);
}

static unsigned long times_mapped(unsigned long count,
				  enum dma_data_direction direction)
{
	count >>= shift_of(direction);
	return direction == DMA_BIDIRECTIONAL ? count : count & GENMASK(11, 0);
}

/* Return: 0 or -ENOMEM. */
static int count_mapping(struct hmm_ref_hw *hw, unsigned long index,
			 long change)
{
	unsigned long flags, count;
	void *entry;

	xa_lock_irqsave(&hw->mapped, flags);
	entry = xa_load(&hw->mapped, index);
	count = (entry ? xa_to_value(entry) : 0) + change;
	entry = __xa_store(&hw->mapped, index,
			   count ? xa_mk_value(count) : NULL,
			   GFP_NOWAIT | __GFP_NOWARN);
	xa_unlock_irqrestore(&hw->mapped, flags);
	return xa_err(entry);
}

/**
 * hmm_ref_note_mapping() - record a DMA mapping
 * @hw: device
 * @addr: DMA address of the first page
 * @nr: pages
 * @direction: direction of the DMA
 *
 * Return: 0; or -ENOMEM, with none of the pages recorded.
 */
int hmm_ref_note_mapping(struct hmm_ref_hw *hw, dma_addr_t addr,
			 unsigned int nr, enum dma_data_direction direction)
{
	unsigned long first = addr >> PAGE_SHIFT;
	unsigned int i;

	for (i = 0; i < nr; i++) {
		if (!count_mapping(hw, first + i, mapped_once(direction)))
			continue;
		hmm_ref_forget_mapping(hw, addr, i, direction);
		return -ENOMEM;
	}
	return 0;
}

/**
 * hmm_ref_forget_mapping() - remove the record of a DMA mapping
 * @hw: device
 * @addr: DMA address of the first page
 * @nr: pages
 * @direction: direction of the DMA
 */
void hmm_ref_forget_mapping(struct hmm_ref_hw *hw, dma_addr_t addr,
			    unsigned int nr, enum dma_data_direction direction)
{
	unsigned long index = addr >> PAGE_SHIFT, end = index + nr;

	for (; index < end; index++) {
		sane(hmm_ref_is_mapped(hw, (dma_addr_t)index << PAGE_SHIFT,
				       direction));
		count_mapping(hw, index, -mapped_once(direction));
	}
}

/**
 * hmm_ref_is_mapped() - test whether a device may use a DMA address
 * @hw: device
 * @addr: address
 * @direction: direction of the DMA
 *
 * Return: true if it is mapped for that direction, or for both.
 */
bool hmm_ref_is_mapped(struct hmm_ref_hw *hw, dma_addr_t addr,
		       enum dma_data_direction direction)
{
	void *entry = xa_load(&hw->mapped, addr >> PAGE_SHIFT);

	return entry && (times_mapped(xa_to_value(entry), direction) ||
			 times_mapped(xa_to_value(entry), DMA_BIDIRECTIONAL));
}
