// SPDX-License-Identifier: GPL-2.0-only
/*
 * A large folio has to leave the device, and no large page is to be had for it.
 *
 * Then it must be split, and drivers have no function for that. migrate_vma_setup()
 * splits what it is not asked to keep whole, but it needs a VMA, and nobody else may
 * have a reference to the folio. So this cannot be done
 *
 *   in a CPU fault       the fault itself has a reference. A worker does it: it takes a
 *                        reference to the mm and migrates the PMD, while the fault
 *                        returns and comes again until it finds single pages. The fault
 *                        cannot wait for the worker: it holds mmap_lock, and a writer may
 *                        queue between the two. It lets go of the lock if it may; who
 *                        touches memory of another process by ptrace() may not, and
 *                        then goes on until there is no writer, or a signal
 *   by page numbers      migrate_device_pages() has no VMA. Eviction looks for one
 *                        in the folio's rmap, and migrates there
 *
 * The rmap is the core's, and exports no function. find_mapping() relies on what the
 * core itself relies on: as long as a folio is mapped, its anon_vma is there; and to
 * hold the rwsem of the root keeps both and the VMAs as they are.
 */
#include <linux/delay.h>
#include <linux/migrate.h>
#include <linux/rmap.h>
#include <linux/sched/mm.h>
#include <linux/sched/signal.h>

#include "hmm_ref.h"

/* How often the worker tries, at a millisecond each, before the fault asks again. */
#define WORK_TRIES	100

/* Where a folio may be mapped: @start to @end in @mm, which is referenced. */
struct mapping {
	struct mm_struct *mm;
	unsigned long start;
	unsigned long end;
};

/* Migrate as single pages. Return: pages moved. */
static unsigned long move_small(struct hmm_ref_device *dev,
				const struct mapping *at,
				struct hmm_ref_window *window,
				enum hmm_ref_cause cause)
{
	struct migrate_vma args = { .src = window->src, .dst = window->dst };
	unsigned long moved = 0;

	if (mmap_read_lock_killable(at->mm))
		return 0;
	args.vma = vma_lookup(at->mm, at->start);
	if (args.vma) {
		args.start = at->start;
		args.end = min(at->end, args.vma->vm_end);
		hmm_ref_vma_to_system(&dev->dm, &args, false, cause, &moved);
	}
	mmap_read_unlock(at->mm);
	return moved;
}

/* ---- for a CPU fault --------------------------------------------------- */

static void small_work(struct work_struct *work)
{
	struct hmm_ref_small *small = container_of(work, struct hmm_ref_small, work);
	struct hmm_ref_device *dev = container_of(small, struct hmm_ref_device, small);
	struct mapping at = {
		.mm = small->mm,
		.start = small->addr,
		.end = small->addr + PMD_SIZE,
	};
	unsigned int tries = 0;
	unsigned long moved;

	/* The fault that comes again holds the folio's lock, but not all the time. */
	for (;;) {
		moved = move_small(dev, &at, &small->window, HMM_REF_BY_FAULT);
		if (moved || ++tries == WORK_TRIES)
			break;
		fsleep(1000);
	}
	hmm_ref_count(dev->counters, fault_pages, moved);
	spin_lock(&small->lock);
	small->mm = NULL;
	spin_unlock(&small->lock);
	mmput(at.mm);
}

/**
 * hmm_ref_small_later() - have the worker migrate a PMD as single pages
 * @dev: device
 * @mm: that maps a large folio of the device there
 * @addr: start of the PMD
 *
 * Does nothing while the worker is busy: the fault asks again.
 *
 * Context: a CPU fault in @mm.
 */
void hmm_ref_small_later(struct hmm_ref_device *dev, struct mm_struct *mm,
			 unsigned long addr)
{
	struct hmm_ref_small *small = &dev->small;

	spin_lock(&small->lock);
	if (!small->mm && mmget_not_zero(mm)) {
		small->mm = mm;
		small->addr = addr;
		queue_work(system_dfl_wq, &small->work);
	}
	spin_unlock(&small->lock);
}

/**
 * hmm_ref_small_pending() - is the worker at it?
 * @dev: device
 * @mm: that maps a large folio of the device there
 * @addr: start of the PMD
 *
 * Return: true while it is. The less a fault does meanwhile, the sooner it is done.
 */
bool hmm_ref_small_pending(struct hmm_ref_device *dev, struct mm_struct *mm,
			   unsigned long addr)
{
	struct hmm_ref_small *small = &dev->small;
	bool pending;

	spin_lock(&small->lock);
	pending = small->mm == mm && small->addr == addr;
	spin_unlock(&small->lock);
	return pending;
}

/**
 * hmm_ref_small_init() - set up the worker of a device
 * @dev: device
 *
 * Return: 0 or -ENOMEM.
 */
int hmm_ref_small_init(struct hmm_ref_device *dev)
{
	spin_lock_init(&dev->small.lock);
	INIT_WORK(&dev->small.work, small_work);
	return hmm_ref_window_init(&dev->small.window);
}

/**
 * hmm_ref_small_exit() - stop the worker of a device
 * @dev: device without used pages
 *
 * Context: waits for it.
 */
void hmm_ref_small_exit(struct hmm_ref_device *dev)
{
	flush_work(&dev->small.work);
	hmm_ref_window_exit(&dev->small.window);
}

/* ---- for eviction ------------------------------------------------------ */

/* Where in a VMA may pages of a folio be mapped? Return: false for nowhere. */
static bool mapping_in_vma(const struct folio *folio,
			   const struct vm_area_struct *vma, struct mapping *at)
{
	pgoff_t first = max(folio->index, vma->vm_pgoff);
	pgoff_t end = min(folio_next_index(folio), vma->vm_pgoff + vma_pages(vma));

	if (first >= end)
		return false;
	at->start = vma->vm_start + ((first - vma->vm_pgoff) << PAGE_SHIFT);
	at->end = vma->vm_start + ((end - vma->vm_pgoff) << PAGE_SHIFT);
	at->mm = vma->vm_mm;
	return mmget_not_zero(at->mm);
}

/* The VMAs of a tree, but for the first @skip that will do. */
static bool mapping_in_tree(const struct folio *folio, struct anon_vma *anon_vma,
			    unsigned int skip, struct mapping *at)
{
	struct rb_node *node;

	for (node = rb_first_cached(&anon_vma->rb_root); node; node = rb_next(node)) {
		struct anon_vma_chain *chain = rb_entry(node, struct anon_vma_chain, rb);

		if (!mapping_in_vma(folio, chain->vma, at))
			continue;
		if (!skip--)
			return true;
		mmput_async(at->mm);
	}
	return false;
}

static bool find_mapping(struct folio *folio, unsigned int skip, struct mapping *at)
{
	unsigned long mapping = (unsigned long)READ_ONCE(folio->mapping);
	struct anon_vma *anon_vma, *root;
	bool found = false;

	if ((mapping & FOLIO_MAPPING_FLAGS) != FOLIO_MAPPING_ANON)
		return false;
	rcu_read_lock();
	if (!folio_mapped(folio))
		goto out;
	anon_vma = (struct anon_vma *)(mapping - FOLIO_MAPPING_ANON);
	root = READ_ONCE(anon_vma->root);
	if (!down_read_trylock(&root->rwsem))
		goto out;
	found = folio_mapped(folio) && mapping_in_tree(folio, anon_vma, skip, at);
	up_read(&root->rwsem);
out:
	rcu_read_unlock();
	return found;
}

/**
 * hmm_ref_small_evict() - evict a large folio as single pages
 * @dev: device
 * @block: block that the folio is in
 * @window: scratch memory
 *
 * Context: takes mmap_lock of processes that map the folio; no folio lock held.
 * Return: pages that have left, 0 when there is no such folio or not now.
 */
unsigned long hmm_ref_small_evict(struct hmm_ref_device *dev,
				  struct hmm_ref_block *block,
				  struct hmm_ref_window *window)
{
	struct folio *folio = page_folio(pfn_to_page(hmm_ref_block_pfn(block)));
	unsigned long moved = 0;
	unsigned int skip;

	/* Each fork adds a VMA that may map it: as many tries as there are. */
	for (skip = 0; !moved && !fatal_signal_pending(current); skip++) {
		bool found = false;
		struct mapping at;

		if (!folio_try_get(folio))
			break;
		/* The lock keeps folio->mapping, and others from splitting it. */
		if (folio_trylock(folio)) {
			found = folio_test_large(folio) &&
				find_mapping(folio, skip, &at);
			folio_unlock(folio);
		}
		folio_put(folio);
		if (!found)
			break;
		moved = move_small(dev, &at, window, HMM_REF_BY_EVICTION);
		mmput_async(at.mm);
		cond_resched();
	}
	return moved;
}
