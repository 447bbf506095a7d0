// SPDX-License-Identifier: GPL-2.0-only
/*
 * Eviction on kernels with bugs in migrate_device_range().
 *
 * An unmapped page does not keep its anon_vma alive: if its processes exit
 * before migrate_device_finalize(), that function uses freed memory
 * (regress_evict). migrate_device_range() also reads the order of a folio that
 * is not locked, collects pages after another migration has moved their data,
 * and cannot split. A VMA that maps the page keeps the anon_vma alive. So this
 * file uses the rmap to find the VMAs that map a page, and migrates the page in
 * one of them, as a command does. The locks of the page and of the mm are only
 * tried.
 *
 * The rmap exports no function for this. find_mapping() relies on the same
 * rules as the core: while a folio is mapped it has an anon_vma, and the rwsem
 * of the root keeps both and the VMAs unchanged.
 */
#include <linux/cpu.h>
#include <linux/rmap.h>
#include <linux/sched/mm.h>
#include <linux/workqueue.h>

#include "../hmm_ref.h"

#ifdef HMM_REF_COMPAT_EVICT

/* ---- where pages are mapped -------------------------------------------- */

/*
 * A mapping that pages may have: @start to @end in @mm, which is referenced.
 * @npages is the number of pages from the first one requested up to @end.
 */
struct mapping {
	struct mm_struct *mm;
	unsigned long start;
	unsigned long end;
	unsigned long npages;
};

/* Lock a mapped folio, and take a reference. Return: NULL for any other. */
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
 * Count pages, up to @max, that are as contiguous in memory as on the device,
 * so that they can move at once. Return: 0 if the first one is not mapped, or
 * busy.
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

/* Find where a VMA may map pages [@first, @end). Return: false if nowhere. */
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

/* Search the VMAs of a tree, skipping the first @skip matches. */
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

/* Find a mapping of @nr pages, after @skip others. The folio lock keeps it. */
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
 * A page of coherent memory may be exclusive to another device. Its entry is
 * then not present, and setup does not collect it until a CPU touches it. This
 * touches the whole range, and waits neither for a file nor for a userfaultfd.
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
 * Move the pages of @page to @page + @*nr that one VMA maps. Return: pages
 * moved. If any did, @nr is set to the number of pages that were tried.
 */
static unsigned long evict_pages(struct hmm_ref_device *dev, struct page *page,
				 unsigned long *nr)
{
	unsigned long moved = 0;
	unsigned int skip;
	struct mapping at;

	/* Every fork adds a VMA that may map the pages; try each. */
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
 * munlock leaves a reference to a single page in a batch of the CPU that it ran
 * on, and an idle CPU keeps it forever. The function that drains all CPUs is
 * not exported, but each migration first drains its own CPU.
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

static unsigned long drained = INITIAL_JIFFIES; /* time of the last drain */

/**
 * hmm_ref_evict_run() - move a run of device pages to system memory
 * @dev: device; its evict_lock is held
 * @pfn: page frame number of the first page
 * @npages: number of pages, in one block
 * @tried: incremented by the number of pages that were in use
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
	/* Not for each of the many runs of a pass. */
	if (!moved && time_after(jiffies, READ_ONCE(drained))) {
		drain_cpus();
		WRITE_ONCE(drained, jiffies);
	}
	return moved;
}

#endif /* HMM_REF_COMPAT_EVICT */
