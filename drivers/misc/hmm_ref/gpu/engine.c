// SPDX-License-Identifier: GPL-2.0-only
/*
 * The device: its storage and its copy engine.
 *
 * This is the file that a driver for real hardware replaces. It stands for VRAM and
 * the DMA engine, both made from kernel memory. Only access.c, which stands for the
 * engines that load and store, knows that, too; all other files name device memory by
 * device page numbers (dpfn).
 *
 * Coherent memory is its own storage: the CPU has an address for it. Storage of private
 * memory is given to whole blocks. chunk.c backs a block before the first of its
 * pages is handed out and takes the storage away when none is used, so an
 * access to a used page always finds it, without a lock.
 *
 * Copies are batched in a job: begin, any number of copies, submit, wait. The copies are
 * descriptors in an array of the caller, which says how many fit. Between submit and the
 * return of wait the pages of a job belong to the engine: none is used, unlocked or freed,
 * and the destinations hold nothing. The result counts for the whole batch: after an
 * error no destination holds valid data.
 *
 * mock: the engine has no thread of its own. The waiter does the copies, so the wait needs
 * no memory, may be done with folios locked, and costs no switch of tasks. A late engine
 * (module parameter late_engine, on in sanity mode) is as hostile as the contract allows:
 * submit fills the destinations with a pattern, another task does the copies while the
 * waiter sleeps, and a batch that fails leaves the pattern. In sanity mode each copy also
 * looks whether its pages still are the job's (sanity.c).
 *
 * The content of a page that was not copied or cleared since it was handed out
 * is what its last owner left there. Whoever hands it out fills it.
 */
#include <linux/highmem.h>
#include <linux/module.h>
#include <linux/vmalloc.h>
#include <linux/workqueue.h>

#include "gpu.h"
#include "../fail.h"
#include "../sanity.h"

#define NOT_YET_COPIED	0xd7	/* what a late engine fills destinations with */

static bool late_engine = IS_ENABLED(CONFIG_HMM_REF_SANITY);
module_param(late_engine, bool, 0644);
MODULE_PARM_DESC(late_engine,
		 "copy in another task, not before the wait (default Y in sanity mode)");

/**
 * hmm_ref_engine_init() - set up an engine without storage
 * @engine: to set up
 * @node: NUMA node for the storage, or NUMA_NO_NODE
 *
 * Return: 0 or -ENOMEM.
 */
int hmm_ref_engine_init(struct hmm_ref_engine *engine, int node)
{
	engine->node = node;
	engine->map = NULL;
	xa_init(&engine->storage);
	atomic_long_set(&engine->nr_blocks, 0);
	/* mock: the DMA engine, when it is late */
	engine->queue = alloc_workqueue("hmm_ref_engine",
					WQ_UNBOUND | WQ_MEM_RECLAIM, 0);
	return engine->queue ? 0 : -ENOMEM;
}

/**
 * hmm_ref_engine_set_map() - name the storage of coherent memory
 * @engine: engine without storage
 * @map: kernel address of device page 0, the others follow
 *
 * All blocks have their storage from now on.
 */
void hmm_ref_engine_set_map(struct hmm_ref_engine *engine, void *map)
{
	engine->map = map;
}

/**
 * hmm_ref_engine_exit() - free what is left of the storage
 * @engine: unused from now on
 */
void hmm_ref_engine_exit(struct hmm_ref_engine *engine)
{
	unsigned long index;
	void *storage;

	destroy_workqueue(engine->queue);
	xa_for_each(&engine->storage, index, storage)
		vfree(storage);
	xa_destroy(&engine->storage);
}

/**
 * hmm_ref_engine_back() - give storage to a block
 * @engine: engine
 * @dpfn: first page of the block, which has no storage
 *
 * Context: may sleep; enters reclaim, but does not invoke the OOM killer for the
 * sake of a cache.
 * Return: 0 or -ENOMEM.
 */
int hmm_ref_engine_back(struct hmm_ref_engine *engine, unsigned long dpfn)
{
	const gfp_t gfp = GFP_KERNEL | __GFP_RETRY_MAYFAIL | __GFP_NOWARN;
	void *storage;
	int rc;

	if (engine->map) {
		atomic_long_inc(&engine->nr_blocks);
		return 0;
	}
	/* mock: real hardware has its memory on board */
	storage = hmm_ref_fail(HMM_REF_FAIL_STORAGE) ? NULL :
		  vmalloc_huge_node(PMD_SIZE, gfp, engine->node);
	if (!storage)
		return -ENOMEM;
	rc = xa_insert(&engine->storage, dpfn >> HMM_REF_BLOCK_ORDER, storage,
		       GFP_KERNEL);
	if (rc) {
		vfree(storage);
		return rc;
	}
	atomic_long_inc(&engine->nr_blocks);
	return 0;
}

/**
 * hmm_ref_engine_unback() - take the storage of a block away
 * @engine: engine
 * @dpfn: first page of the block, none of whose pages is used
 *
 * Context: may sleep; called from reclaim.
 */
void hmm_ref_engine_unback(struct hmm_ref_engine *engine, unsigned long dpfn)
{
	if (!engine->map)
		vfree(xa_erase(&engine->storage, dpfn >> HMM_REF_BLOCK_ORDER));
	atomic_long_dec(&engine->nr_blocks);
}

/**
 * hmm_ref_engine_addr() - where the storage of a page is
 * @engine: engine
 * @dpfn: page in a block that has storage and keeps it meanwhile
 *
 * Return: kernel address. A block is contiguous.
 */
void *hmm_ref_engine_addr(struct hmm_ref_engine *engine, unsigned long dpfn)
{
	void *storage;

	if (engine->map)
		return engine->map + (dpfn << PAGE_SHIFT);
	storage = xa_load(&engine->storage, dpfn >> HMM_REF_BLOCK_ORDER);
	return storage + ((dpfn & (HMM_REF_BLOCK_PAGES - 1)) << PAGE_SHIFT);
}

/* ---- jobs -------------------------------------------------------------- */

/**
 * hmm_ref_engine_begin() - start a batch of copies
 * @engine: engine
 * @job: to set up
 * @ring: where the descriptors are written; stays until the wait has returned
 * @size: how many fit
 */
void hmm_ref_engine_begin(struct hmm_ref_engine *engine, struct hmm_ref_job *job,
			  struct hmm_ref_copy *ring, unsigned int size)
{
	*job = (struct hmm_ref_job){ .engine = engine, .ring = ring, .size = size };
}

static __always_inline void copy_one(enum hmm_ref_copy_op op, void *mem,
				     struct page *sys_page)
{
	void *sys = kmap_local_page(sys_page);

	if (op == HMM_REF_COPY_OUT)
		copy_page(sys, mem);
	else
		copy_page(mem, sys);
	kunmap_local(sys);
}

static inline void run_copy(const struct hmm_ref_copy *copy, void *mem)
{
	const enum hmm_ref_copy_op op = copy->op;
	struct page *sys_page = copy->sys_page;
	unsigned int nr = copy->nr;

	if (op == HMM_REF_COPY_ZERO) {
		memset(mem, 0, nr * PAGE_SIZE);
		return;
	}
	do {
		copy_one(op, mem, sys_page++);
		mem += PAGE_SIZE;
	} while (--nr);
}

static void poison_copy(const struct hmm_ref_copy *copy, void *mem)
{
	unsigned int i;

	if (copy->op != HMM_REF_COPY_OUT) {
		memset(mem, NOT_YET_COPIED, copy->nr * PAGE_SIZE);
		return;
	}
	for (i = 0; i < copy->nr; i++)
		memset_page(copy->sys_page + i, 0, NOT_YET_COPIED, PAGE_SIZE);
}

/* Most copies are in the block of the one before, whose address is known. */
static __always_inline void do_copies(struct hmm_ref_job *job,
				      void (*fn)(const struct hmm_ref_copy *copy,
						 void *mem))
{
	const struct hmm_ref_copy *copy = job->ring, *end = copy + job->nr;
	unsigned long first = LONG_MAX;
	void *base = NULL;

	for (; copy < end; copy++) {
		if (copy->dpfn - first >= HMM_REF_BLOCK_PAGES) {
			first = ALIGN_DOWN(copy->dpfn, HMM_REF_BLOCK_PAGES);
			base = hmm_ref_engine_addr(job->engine, first);
		}
		hmm_ref_verify_copy(job->engine, copy);
		fn(copy, base + ((copy->dpfn - first) << PAGE_SHIFT));
	}
}

static void run_job(struct hmm_ref_job *job)
{
	do_copies(job, run_copy);
}

static void engine_work(struct work_struct *work)
{
	run_job(container_of(work, struct hmm_ref_job, work));
}

/**
 * hmm_ref_engine_submit() - have the engine begin with what was added
 * @job: batch; nothing is added to it any more
 */
void hmm_ref_engine_submit(struct hmm_ref_job *job)
{
	/* mock: real hardware would have a doorbell rung, and use no CPU */
	if (job->nr && hmm_ref_fail(HMM_REF_FAIL_COPY))
		job->rc = -EIO;
	job->late = READ_ONCE(late_engine);
	if (job->late)
		do_copies(job, poison_copy);
}

/**
 * hmm_ref_engine_wait() - wait until a batch is complete
 * @job: batch that was submitted
 *
 * Return: 0, or -EIO when a copy failed: then no destination is valid.
 */
int hmm_ref_engine_wait(struct hmm_ref_job *job)
{
	/* mock: real hardware would signal a fence; its error counts, too */
	if (!job->nr || job->rc)
		return job->rc;
	if (!job->late) {
		run_job(job);
		return 0;
	}
	INIT_WORK_ONSTACK(&job->work, engine_work);
	queue_work(job->engine->queue, &job->work);
	flush_work(&job->work);
	destroy_work_on_stack(&job->work);
	return 0;
}
