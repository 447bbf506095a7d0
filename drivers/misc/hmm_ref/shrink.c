// SPDX-License-Identifier: GPL-2.0-only
/*
 * Freeing of unused chunks, whose struct pages occupy system memory.
 *
 * The shrinker only counts the chunks without users and queues a work item that
 * frees them, so reclaim never waits here.
 */
#include <linux/pfn.h>
#include <linux/rcupdate.h>
#include <linux/shrinker.h>

#include "devmem.h"
#include "sanity.h"

static unsigned long free_pages_of(const struct hmm_ref_chunk *chunk)
{
	unsigned long nr = 0;
	unsigned int i;

	for (i = 0; i < chunk->nr_blocks; i++)
		nr += chunk->blocks[i].nr_free;
	return nr;
}

static void block_delist(struct hmm_ref_block *block)
{
	struct hmm_ref_devmem *dm = block->chunk->dm;

	list_del_init(&block->avail);
	dm->retired -= block->nr_retired;
	dm->nr_flawed -= !!block->nr_retired;
}

/*
 * Choose a chunk to remove. It has no users, none of its pages is needed for a
 * reservation, and it is no longer live.
 */
static struct hmm_ref_chunk *delist_idle(struct hmm_ref_devmem *dm)
{
	struct hmm_ref_chunk *chunk;
	unsigned int i;

	spin_lock_irq(&dm->lock);
	chunk = list_first_entry_or_null(&dm->idle, struct hmm_ref_chunk, idle);
	/* Pages that become free belong to a task that waits for room. */
	if (chunk && !atomic_read(&dm->nr_waiting) &&
	    hmm_ref_devmem_free_pages(dm) >= (long)free_pages_of(chunk)) {
		chunk->live = false;
		hmm_ref_chunk_use(chunk);
		dm->nr_pages -= hmm_ref_chunk_pages(chunk);
		for (i = 0; i < chunk->nr_blocks; i++)
			block_delist(&chunk->blocks[i]);
		hmm_ref_verify_promise(dm);
	} else {
		chunk = NULL;
	}
	spin_unlock_irq(&dm->lock);
	return chunk;
}

/* Keep bad pages for the next chunk in this place. Return: 0 or -ENOMEM. */
static int chunk_remember_bad(struct hmm_ref_chunk *chunk)
{
	struct hmm_ref_devmem *dm = chunk->dm;
	unsigned long dpfn = chunk->first_dpfn;
	unsigned int i, bit;
	int rc = 0;

	for (i = 0; i < chunk->nr_blocks; i++, dpfn += HMM_REF_BLOCK_PAGES) {
		for_each_set_bit(bit, chunk->blocks[i].bad, HMM_REF_BLOCK_PAGES)
			if (!rc)
				rc = xa_err(xa_store(&dm->bad, dpfn + bit,
						     xa_mk_value(0),
						     GFP_KERNEL));
	}
	return rc;
}

/*
 * Take a chunk to remove, and record its bad pages. A task that reports another
 * bad page either still finds the chunk live, or waits for the lock.
 */
static struct hmm_ref_chunk *take_idle(struct hmm_ref_devmem *dm)
{
	struct hmm_ref_chunk *chunk;

	mutex_lock(&dm->grow_lock);
	chunk = delist_idle(dm);
	if (chunk && chunk_remember_bad(chunk)) {
		hmm_ref_chunk_publish(chunk);
		chunk = NULL;
	}
	mutex_unlock(&dm->grow_lock);
	return chunk;
}

static void reclaim_work(struct work_struct *work)
{
	struct hmm_ref_devmem *dm =
		container_of(work, struct hmm_ref_devmem, reclaim);
	struct hmm_ref_chunk *chunk, *next;
	LIST_HEAD(removed);

	while ((chunk = take_idle(dm))) {
		hmm_ref_chunk_remove(chunk);
		list_add(&chunk->idle, &removed);
	}
	if (list_empty(&removed))
		return;
	/* A task may just have found one, and not yet seen that it is gone. */
	synchronize_rcu();
	list_for_each_entry_safe(chunk, next, &removed, idle)
		hmm_ref_chunk_free(chunk);
}

/* Return: the system pages that hold the struct pages of idle chunks. */
static unsigned long shrink_count(struct shrinker *shrinker,
				  struct shrink_control *sc)
{
	struct hmm_ref_devmem *dm = shrinker->private_data;

	return PFN_UP(READ_ONCE(dm->nr_idle) * sizeof(struct page));
}

/* Do not sleep here: locks that memunmap_pages() takes may be held. */
static unsigned long shrink_scan(struct shrinker *shrinker,
				 struct shrink_control *sc)
{
	struct hmm_ref_devmem *dm = shrinker->private_data;

	queue_work(system_dfl_wq, &dm->reclaim);
	return SHRINK_STOP;
}

/**
 * hmm_ref_devmem_shrink_init() - register a shrinker for unused chunks
 * @dm: device memory
 * @name: name of the shrinker
 *
 * Return: 0 or -ENOMEM.
 */
int hmm_ref_devmem_shrink_init(struct hmm_ref_devmem *dm, const char *name)
{
	INIT_WORK(&dm->reclaim, reclaim_work);
	dm->shrinker = shrinker_alloc(0, "%s", name);
	if (!dm->shrinker)
		return -ENOMEM;
	dm->shrinker->count_objects = shrink_count;
	dm->shrinker->scan_objects = shrink_scan;
	dm->shrinker->private_data = dm;
	shrinker_register(dm->shrinker);
	return 0;
}

/**
 * hmm_ref_devmem_shrink_exit() - free the shrinker
 * @dm: device memory
 *
 * Context: may sleep.
 */
void hmm_ref_devmem_shrink_exit(struct hmm_ref_devmem *dm)
{
	shrinker_free(dm->shrinker);
	cancel_work_sync(&dm->reclaim);
}
