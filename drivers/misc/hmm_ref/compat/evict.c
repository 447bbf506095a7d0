// SPDX-License-Identifier: GPL-2.0-only
/*
 * Eviction where migrate_device_range() is not sound.
 *
 * Nothing keeps the anon_vma of a page while it has no mapping: when its processes end before
 * migrate_device_finalize(), that uses memory that was freed (regress_evict). It also takes
 * the order of a folio that is not locked, pages whose data another migration has just
 * moved, and cannot split. A VMA that maps the page keeps its anon_vma. So the rmap tells which
 * VMAs map a page, and it migrates in one of them, as for any command. The locks of the page
 * and of the mm are only tried.
 *
 * The rmap exports no function. find_mapping() relies on what the core itself relies on:
 * as long as a folio is mapped its anon_vma is there, and to hold the rwsem of the root
 * keeps both and the VMAs as they are.
 */
#include <linux/cpu.h>
#include <linux/rmap.h>
#include <linux/sched/mm.h>
#include <linux/workqueue.h>

#include "../hmm_ref.h"

#ifdef HMM_REF_COMPAT_EVICT

/* ---- where pages are mapped -------------------------------------------- */

/*
 * Where pages may be mapped: @start to @end in @mm, which is referenced. That is the last
 * of @npages from the first one on that was asked for.
 */
struct mapping {
	struct mm_struct *mm;
	unsigned long start;
	unsigned long end;
	unsigned long npages;
};

/* Lock a folio that is mapped, and take a reference. Return: NULL for any other. */
static struct folio *grab_mapped(struct page *page)
{
	struct folio *folio = page_folio(page);

	if (!folio_try_get(folio))
		return NULL;
	if (folio_trylock(folio)) {
		if (folio == page_folio(page) && folio_mapped(folio))
			return folio;
		folio_unlock(folio);
	}
	folio_put(folio);
	return NULL;
}

static void release_mapped(struct folio *folio)
{
	folio_unlock(folio);
	folio_put(folio);
}

/*
 * How many pages, up to @max, stand side by side in memory as they do on the device?
 * They can be moved at once. Return: 0 when the first one is not mapped, or not now.
 */
static unsigned long neighbours(struct page *page, unsigned long max)
{
	struct folio *folio = grab_mapped(page);
	struct address_space *mapping;
	unsigned long nr, skip;
	bool next = true;
	pgoff_t index;

	if (!folio)
		return 0;
	mapping = folio->mapping;
	skip = folio_page_idx(folio, page);
	index = folio->index + skip;
	nr = folio_nr_pages(folio) - skip;
	release_mapped(folio);
	while (next && nr < max && (folio = grab_mapped(page + nr))) {
		next = folio->mapping == mapping && folio->index == index + nr;
		nr += next;
		release_mapped(folio);
	}
	return min(nr, max);
}

/* Where in a VMA may the pages [@first, @end) be mapped? Return: false for nowhere. */
static bool mapping_in_vma(struct vm_area_struct *vma, pgoff_t first,
			   pgoff_t end, struct mapping *at)
{
	pgoff_t base = vma_start_anon_pgoff(vma);

	end = min(end, base + vma_pages(vma));
	if (max(first, base) >= end)
		return false;
	at->npages = end - first;
	at->start = vma->vm_start + ((max(first, base) - base) << PAGE_SHIFT);
	at->end = vma->vm_start + ((end - base) << PAGE_SHIFT);
	at->mm = vma->vm_mm;
	return mmget_not_zero(at->mm);
}

/* The VMAs of a tree, but for the first @skip that will do. */
static bool mapping_in_tree(const struct anon_vma *anon_vma, pgoff_t first,
			    pgoff_t end, unsigned int skip, struct mapping *at)
{
	struct rb_node *node;

	for (node = rb_first_cached(&anon_vma->rb_root); node;
	     node = rb_next(node)) {
		struct anon_vma_chain *chain =
			rb_entry(node, struct anon_vma_chain, rb);

		if (!mapping_in_vma(chain->vma, first, end, at))
			continue;
		if (!skip--)
			return true;
		mmput_async(at->mm);
	}
	return false;
}

/* A mapping of @nr pages, but for the first @skip. The folio's lock keeps its mapping. */
static bool find_mapping(struct page *page, unsigned long nr, unsigned int skip,
			 struct mapping *at)
{
	struct folio *folio = grab_mapped(page);
	struct anon_vma *anon_vma, *root;
	bool found = false;
	pgoff_t first;

	if (!folio)
		return false;
	first = folio->index + folio_page_idx(folio, page);
	rcu_read_lock();
	if (!folio_test_anon(folio) || !folio_mapped(folio))
		goto out;
	anon_vma = (void *)folio->mapping - FOLIO_MAPPING_ANON;
	root = READ_ONCE(anon_vma->root);
	if (!down_read_trylock(&root->rwsem))
		goto out;
	found = folio_mapped(folio) &&
		mapping_in_tree(anon_vma, first, first + nr, skip, at);
	up_read(&root->rwsem);
out:
	rcu_read_unlock();
	release_mapped(folio);
	return found;
}

/* ---- eviction in a VMA -------------------------------------------------- */

/*
 * A page of coherent memory may be exclusive to another device. Its entry is not present
 * then, and nothing of it is collected until a CPU touches it. This touches all of the
 * range, and waits neither for a file nor for a userfaultfd.
 */
static void end_exclusive(struct mm_struct *mm, unsigned long addr,
			  unsigned long end)
{
	for (; addr < end; addr += PAGE_SIZE)
		get_user_pages_remote(mm, addr, 1,
				      FOLL_FORCE | FOLL_DUMP | FOLL_NOWAIT,
				      NULL, NULL);
}

static unsigned long evict_mapping(struct hmm_ref_device *dev,
				   const struct mapping *at)
{
	struct hmm_ref_move move;
	struct migrate_vma *args = &move.args;

	if (!mmap_read_trylock(at->mm))
		return 0;
	hmm_ref_move_init(&move, &dev->dm, &dev->evict_scratch);
	args->vma = vma_lookup(at->mm, at->start);
	if (args->vma) {
		args->start = at->start;
		args->end = min(at->end, args->vma->vm_end);
		args->flags = MIGRATE_VMA_SELECT_COMPOUND;
		move.cause = HMM_REF_BY_EVICTION;
		hmm_ref_to_system(&move);
		if (!move.moved && dev->dm.type == MEMORY_DEVICE_COHERENT)
			end_exclusive(at->mm, at->start, args->end);
	}
	mmap_read_unlock(at->mm);
	return move.moved;
}

/*
 * Move what one VMA maps of the pages from @page to @page + @*nr. Return: pages moved; then
 * @nr is how many have had their chance.
 */
static unsigned long evict_pages(struct hmm_ref_device *dev, struct page *page,
				 unsigned long *nr)
{
	unsigned long moved = 0;
	unsigned int skip;
	struct mapping at;

	/* Each fork adds a VMA that may map them: as many tries as there are. */
	for (skip = 0; !moved && find_mapping(page, *nr, skip, &at); skip++) {
		moved = evict_mapping(dev, &at);
		mmput_async(at.mm);
		if (fatal_signal_pending(current) &&
		    !READ_ONCE(dev->dm.stopped))
			break;
		cond_resched();
	}
	if (moved)
		*nr = at.npages;
	return moved;
}

static void drain_cpu(struct work_struct *work)
{
	unsigned long none;

	migrate_device_range(&none, 0, 0);
}

/*
 * munlock leaves a reference to a single page with the CPU that did it, in a batch. A CPU
 * that has nothing to do keeps that for ever. What empties the batches of all CPUs is not
 * exported, but each migration begins with that of its own CPU.
 */
static void drain_cpus(void)
{
	struct work_struct work;
	int cpu;

	INIT_WORK_ONSTACK(&work, drain_cpu);
	cpus_read_lock();
	for_each_online_cpu(cpu) {
		queue_work_on(cpu, system_percpu_wq, &work);
		flush_work(&work);
	}
	cpus_read_unlock();
	destroy_work_on_stack(&work);
}

static unsigned long drained = INITIAL_JIFFIES; /* the last time */

/**
 * hmm_ref_evict_run() - move pages side by side on the device to system memory
 * @dev: device, whose evict_lock is held
 * @pfn: page frame number of the first page
 * @npages: of them, in one block
 * @tried: pages that were found in use are added to it
 *
 * Context: may sleep and enter reclaim; no folio lock and no mmap_lock held.
 * Return: pages moved.
 */
unsigned long hmm_ref_evict_run(struct hmm_ref_device *dev, unsigned long pfn,
				unsigned long npages, unsigned long *tried)
{
	unsigned long moved = 0;
	unsigned long i, nr;

	lockdep_assert_held(&dev->evict_lock);
	for (i = 0; i < npages; i += max(nr, 1UL)) {
		nr = neighbours(pfn_to_page(pfn + i), npages - i);
		if (nr)
			moved += evict_pages(dev, pfn_to_page(pfn + i), &nr);
		*tried += nr;
	}
	hmm_ref_count(dev->counters, evicted, moved);
	/* Once for the many runs of a pass. */
	if (!moved && time_after(jiffies, READ_ONCE(drained))) {
		drain_cpus();
		WRITE_ONCE(drained, jiffies);
	}
	return moved;
}

#endif /* HMM_REF_COMPAT_EVICT */
