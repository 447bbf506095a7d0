// SPDX-License-Identifier: GPL-2.0-only
/*
 * Eviction: moving data to system memory without a process that asks for it.
 *
 * The device knows what is to leave, block by block, and the rmap knows who maps it:
 * find_mapping() looks up one mapping, and there the pages migrate as for any command,
 * whoever else maps them. The lock of a page and mmap_lock are only tried, so one pass
 * proves nothing. Eviction for room takes what it gets and turns to the next block;
 * eviction before the device goes, or sleeps, repeats until no page is used.
 *
 * The core has migrate_device_range() and migrate_device_pfns(), which need neither VMA
 * nor mmap_lock. But nothing keeps the anon_vma of a page then, while it has no mapping:
 * when its processes end before finalize does, finalize uses memory that was freed
 * (regress_evict). A VMA that maps the page keeps it.
 *
 * The rmap exports no function. find_mapping() relies on what the core itself relies on:
 * as long as a folio is mapped its anon_vma is there, and to hold the rwsem of the root
 * keeps both and the VMAs as they are.
 */
#include <linux/cpu.h>
#include <linux/delay.h>
#include <linux/rmap.h>
#include <linux/sched/mm.h>
#include <linux/workqueue.h>

#include "migrate.h"
#include "trace.h"

/* Blocks that are tried before the caller has to wait. */
#define EVICT_TRIES	4

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
static bool mapping_in_tree(const struct anon_vma *anon_vma, pgoff_t first, pgoff_t end,
			    unsigned int skip, struct mapping *at)
{
	struct rb_node *node;

	for (node = rb_first_cached(&anon_vma->rb_root); node; node = rb_next(node)) {
		struct anon_vma_chain *chain = rb_entry(node, struct anon_vma_chain, rb);

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

/* ---- eviction ---------------------------------------------------------- */

/*
 * A page of coherent memory may be exclusive to another device. Its entry is not present
 * then, and nothing of it is collected until a CPU touches it. This touches all of the
 * range and waits for nobody: not for a file, nor for a userfaultfd.
 */
static void end_exclusive(struct mm_struct *mm, unsigned long addr, unsigned long end)
{
	for (; addr < end; addr += PAGE_SIZE)
		get_user_pages_remote(mm, addr, 1, FOLL_FORCE | FOLL_DUMP | FOLL_NOWAIT,
				      NULL, NULL);
}

static unsigned long evict_mapping(struct hmm_ref_device *dev, const struct mapping *at)
{
	struct hmm_ref_move move = {};
	struct migrate_vma *args = &move.args;
	unsigned long moved = 0;

	if (!mmap_read_trylock(at->mm))
		return 0;
	args->vma = vma_lookup(at->mm, at->start);
	if (args->vma) {
		args->start = at->start;
		args->end = min(at->end, args->vma->vm_end);
		hmm_ref_to_system(&dev->dm, &move, &dev->evict_window, true,
				  HMM_REF_BY_EVICTION, &moved);
		if (!moved && dev->dm.type == MEMORY_DEVICE_COHERENT)
			end_exclusive(at->mm, at->start, args->end);
	}
	mmap_read_unlock(at->mm);
	return moved;
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
		if (fatal_signal_pending(current) && !READ_ONCE(dev->dm.stopped))
			break;
		cond_resched();
	}
	if (moved)
		*nr = at.npages;
	return moved;
}

/* One pass over a block. Return: pages moved. */
static unsigned long evict_pass(struct hmm_ref_device *dev,
				struct hmm_ref_block *block)
{
	struct page *first = pfn_to_page(hmm_ref_block_pfn(block));
	unsigned long tried = 0, moved = 0;
	unsigned long i, nr;
	u64 begin = 0;

	lockdep_assert_held(&dev->evict_lock);
	if (trace_hmm_ref_evict_enabled())
		begin = ktime_get_ns();
	for (i = 0; i < HMM_REF_BLOCK_PAGES; i += max(nr, 1UL)) {
		nr = neighbours(first + i, HMM_REF_BLOCK_PAGES - i);
		if (nr)
			moved += evict_pages(dev, first + i, &nr);
		tried += nr;
	}
	hmm_ref_count(dev->counters, evicted, moved);
	trace_hmm_ref_evict(block, tried, moved, false, begin);
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

/**
 * hmm_ref_evict_some() - evict from one block
 * @dev: device
 * @scattered: for the sake of a block that is whole: the one with the fewest pages is the
 *	first choice; else the least recently filled
 *
 * Context: may sleep and enter reclaim; no folio lock and no mmap_lock held.
 * Return: 0 when pages have left, -ENOSPC when none can at the moment, -EINTR.
 */
int hmm_ref_evict_some(struct hmm_ref_device *dev, bool scattered)
{
	struct hmm_ref_block *block;
	unsigned int tries = 0;
	int rc = -ENOSPC;

	if (mutex_lock_killable(&dev->evict_lock))
		return -EINTR;
	while (rc && tries++ < EVICT_TRIES) {
		block = scattered ? hmm_ref_devmem_emptiest(&dev->dm) : NULL;
		scattered = false;
		if (!block)
			block = hmm_ref_devmem_victim(&dev->dm);
		if (!block)
			break;
		if (evict_pass(dev, block))
			rc = 0;
	}
	mutex_unlock(&dev->evict_lock);
	if (rc)
		drain_cpus();
	return rc;
}

/* Evict until the reservation is complete. The device's patience begins anew with each page. */
static int evict_for(struct hmm_ref_client *client, struct hmm_ref_room *room,
		     unsigned long nr, bool whole, unsigned long called)
{
	struct hmm_ref_device *dev = client->dev;
	struct hmm_ref_devmem *dm = &dev->dm;
	unsigned long begin = called;
	unsigned long had;
	int rc;

	if (time_before(begin, dev->last_room))
		begin = dev->last_room;
	for (;;) {
		had = room->nr;
		rc = hmm_ref_devmem_reserve(dm, room, nr, whole);
		if (rc != -ENOSPC)
			return rc;
		rc = hmm_ref_evict_some(dev, whole && hmm_ref_devmem_left(dm) >=
					     HMM_REF_BLOCK_PAGES);
		if (rc == -EINTR)
			return rc;
		if (!rc || room->nr > had)
			begin = jiffies;
		dev->last_room = begin;
		if (rc && time_after(jiffies, begin + HMM_REF_PATIENCE))
			return -ENOSPC;
		if (rc)
			schedule_timeout_killable(1);
		rc = hmm_ref_mirror_insist(&client->mirror, called, MAX_JIFFY_OFFSET);
		if (rc)
			return rc;
	}
}

/**
 * hmm_ref_make_room() - reserve pages of a device that is full
 * @client: that needs them
 * @room: reservation, given up before the wait
 * @nr: single pages that it is to have
 * @whole: a block instead, for a large folio
 *
 * One task at a time evicts, and what comes free is its own until it has enough; the
 * others queue, first come, first served. Pages that others have reserved and not yet
 * filled cannot be evicted, only waited for. No task that queues has reserved any.
 *
 * Context: may sleep and enter reclaim; no folio lock and no mmap_lock held.
 * Return: 0; or, with as many single pages in @room as there are, -ENOSPC when no page has come
 * free for some time, -ENOMEM when the system has no memory to stand for device memory,
 * -ENODEV or -EINTR.
 */
int hmm_ref_make_room(struct hmm_ref_client *client, struct hmm_ref_room *room,
		      unsigned long nr, bool whole)
{
	struct hmm_ref_devmem *dm = &client->dev->dm;
	unsigned long called = jiffies;
	int rc;

	hmm_ref_devmem_unreserve(dm, room);
	atomic_inc(&dm->nr_waiting);
	/* A signal ends the wait, but not at once: see hmm_ref_mirror_insist(). */
	while ((rc = mutex_lock_interruptible(&dm->room_lock))) {
		rc = hmm_ref_mirror_insist(&client->mirror, called, MAX_JIFFY_OFFSET);
		if (rc)
			break;
		schedule_timeout_killable(1);
	}
	if (!rc) {
		rc = evict_for(client, room, nr, whole, called);
		mutex_unlock(&dm->room_lock);
	}
	atomic_dec(&dm->nr_waiting);
	return rc;
}

/**
 * hmm_ref_evict_all() - bring every page of a stopped device to system memory
 * @dev: device that hands out nothing any more
 * @timeout: jiffies without progress until it gives up
 *
 * Pages that someone holds locked, and faults in flight, take their time; a system
 * without memory, or an engine that fails, too.
 *
 * Return: whether the device is empty.
 */
bool hmm_ref_evict_all(struct hmm_ref_device *dev, unsigned long timeout)
{
	unsigned long end = jiffies + timeout;
	unsigned int delay_ms = 1;
	struct hmm_ref_block *block;
	unsigned long moved;

	while (hmm_ref_devmem_used(&dev->dm)) {
		if (time_after(jiffies, end))
			return false;
		mutex_lock(&dev->evict_lock);
		block = hmm_ref_devmem_victim(&dev->dm);
		moved = block ? evict_pass(dev, block) : 0;
		mutex_unlock(&dev->evict_lock);
		if (moved) {
			end = jiffies + timeout;
			delay_ms = 1;
			cond_resched();
			continue;
		}
		drain_cpus();
		msleep(delay_ms);
		delay_ms = min(delay_ms * 2, 100U);
	}
	return true;
}

/* ---- the EVICT commands ------------------------------------------------ */

/* Passes over pages that their users hold locked, or that a CPU keeps in a batch. */
#define EVICT_PASSES	3

/* Is a page mapped, and handed out for an owner? */
static bool is_owned(struct page *page, const struct hmm_ref_owner *owner)
{
	struct folio *folio = grab_mapped(page);
	bool owned;

	if (!folio)
		return false;
	owned = folio->page.zone_device_data == owner;
	release_mapped(folio);
	return owned;
}

/* Pages side by side on the device. Return: pages moved. */
static unsigned long evict_run(struct hmm_ref_device *dev, unsigned long pfn,
			       unsigned long npages)
{
	unsigned long moved = 0;
	unsigned long i, nr;

	lockdep_assert_held(&dev->evict_lock);
	for (i = 0; i < npages; i += max(nr, 1UL)) {
		nr = neighbours(pfn_to_page(pfn + i), npages - i);
		if (nr)
			moved += evict_pages(dev, pfn_to_page(pfn + i), &nr);
	}
	hmm_ref_count(dev->counters, evicted, moved);
	return moved;
}

/* One pass over the pages of a block that an owner has. Return: pages moved. */
static unsigned long evict_owned(struct hmm_ref_device *dev, struct hmm_ref_block *block,
				 const struct hmm_ref_owner *owner)
{
	unsigned long pfn = hmm_ref_block_pfn(block);
	unsigned long tried = 0, moved = 0;
	unsigned long first, last;
	u64 begin = 0;

	if (trace_hmm_ref_evict_enabled())
		begin = ktime_get_ns();
	for (first = 0; first < HMM_REF_BLOCK_PAGES; first = last + 1) {
		for (last = first; last < HMM_REF_BLOCK_PAGES; last++) {
			if (!is_owned(pfn_to_page(pfn + last), owner))
				break;
		}
		if (last == first)
			continue;
		tried += last - first;
		moved += evict_run(dev, pfn + first, last - first);
	}
	if (tried)
		trace_hmm_ref_evict(block, tried, moved, true, begin);
	return moved;
}

/* One pass over all blocks. Return: 0 or an errno of the uapi. */
static int evict_all_owned(struct hmm_ref_client *client, u64 *evicted)
{
	struct hmm_ref_device *dev = client->dev;
	struct hmm_ref_chunk *chunk;
	unsigned long index, moved;
	unsigned int i;
	int rc;

	xa_for_each(&dev->dm.chunks, index, chunk) {
		for (i = 0; i < chunk->nr_blocks; i++) {
			if (!READ_ONCE(chunk->blocks[i].nr_used))
				continue;
			if (mutex_lock_killable(&dev->evict_lock))
				return -EINTR;
			moved = evict_owned(dev, &chunk->blocks[i], client->owner);
			mutex_unlock(&dev->evict_lock);
			*evicted += moved;
			cond_resched();
			/* The next call begins with the first block: this one must get on. */
			rc = moved ? hmm_ref_mirror_interrupted(&client->mirror) : 0;
			if (!rc && fatal_signal_pending(current))
				rc = -EINTR;
			if (!rc && READ_ONCE(dev->gone))
				rc = -ENODEV;
			if (rc)
				return rc;
		}
	}
	return 0;
}

/**
 * hmm_ref_evict_client() - the EVICT_ALL command
 * @client: open file of any process
 * @cmd: the outputs are set, also on error
 *
 * Context: may sleep and enter reclaim.
 * Return: 0 or an errno of the uapi.
 */
int hmm_ref_evict_client(struct hmm_ref_client *client, struct hmm_ref_evict_all *cmd)
{
	unsigned int pass;
	int rc = 0;

	cmd->out_evicted = 0;
	for (pass = 0; !rc && pass < EVICT_PASSES; pass++) {
		rc = evict_all_owned(client, &cmd->out_evicted);
		if (refcount_read(&client->owner->refs) == 1)
			break;
		drain_cpus();
	}
	cmd->out_skipped = refcount_read(&client->owner->refs) - 1;
	return cmd->out_skipped ? rc : 0;
}

/* The pages whose numbers are the first @nr of @pfns. Adds to @moved. Return: 0 or -EINTR. */
static int evict_these(struct hmm_ref_device *dev, const unsigned long *pfns,
		       unsigned long nr, unsigned long *moved)
{
	unsigned long i, run;

	if (mutex_lock_killable(&dev->evict_lock))
		return -EINTR;
	for (i = 0; i < nr; i += run) {
		for (run = 1; i + run < nr && pfns[i + run] == pfns[i] + run; run++)
			;
		*moved += evict_run(dev, pfns[i], run);
	}
	mutex_unlock(&dev->evict_lock);
	return 0;
}

static int evict_window(struct hmm_ref_client *client, struct hmm_ref_evict *cmd,
			unsigned long start, unsigned long end)
{
	struct hmm_ref_mirror *mirror = &client->mirror;
	unsigned long npages = (end - start) >> PAGE_SHIFT;
	unsigned long resident, moved = 0;
	unsigned int pass;
	int rc;

	rc = hmm_ref_mirror_resident(mirror, start, end, mirror->pfns, &resident);
	for (pass = 0; !rc && resident && pass < EVICT_PASSES; pass++) {
		rc = evict_these(client->dev, mirror->pfns, resident, &moved);
		if (rc)
			break;
		if (pass)
			drain_cpus();
		rc = hmm_ref_mirror_resident(mirror, start, end, mirror->pfns, &resident);
	}
	if (rc)
		return rc;
	/* What came back to the device meanwhile, and left again, has moved twice. */
	moved = min(moved, npages - resident);
	cmd->out_evicted += moved;
	cmd->out_skipped += resident;
	cmd->out_already += npages - moved - resident;
	return 0;
}

/**
 * hmm_ref_evict_range() - the EVICT command
 * @client: open file of the current process
 * @cmd: validated; the outputs are set, also on error
 *
 * Context: process context; takes mmap_lock, may enter reclaim.
 * Return: 0 or an errno of the uapi.
 */
int hmm_ref_evict_range(struct hmm_ref_client *client, struct hmm_ref_evict *cmd)
{
	struct hmm_ref_mirror *mirror = &client->mirror;
	unsigned long last = cmd->addr + cmd->length;
	unsigned long addr = cmd->addr;
	int rc;

	cmd->out_evicted = 0;
	cmd->out_already = 0;
	cmd->out_skipped = 0;
	rc = hmm_ref_mirror_begin(mirror);
	if (rc)
		return rc;
	while (!rc && addr < last) {
		unsigned long next;

		rc = hmm_ref_mirror_next_present(mirror, addr, last, 0, &next);
		if (rc)
			break;
		cmd->out_already += (next - addr) >> PAGE_SHIFT;
		addr = next;
		next = min(last, ALIGN(addr + 1, PMD_SIZE));
		if (addr < last)
			rc = evict_window(client, cmd, addr, next);
		addr = next;
		if (!rc && addr < last)
			rc = hmm_ref_mirror_interrupted(mirror);
	}
	mutex_unlock(&mirror->access_lock);
	return rc;
}
