/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The device: its storage and its copy engine. What hardware would do.
 */
#ifndef _HMM_REF_GPU_H
#define _HMM_REF_GPU_H

#include <linux/bug.h>
#include <linux/workqueue.h>
#include <linux/xarray.h>

#include "../base.h"

struct page;

/**
 * struct hmm_ref_engine - copy engine and storage of one device
 * @node: NUMA node that the storage is taken from
 * @storage: PMD_SIZE of kernel memory by dpfn >> HMM_REF_BLOCK_ORDER
 * @map: all of the storage, where the CPU can access it; else NULL
 * @nr_blocks: blocks that have storage
 * @queue: runs jobs when the engine is late
 */
struct hmm_ref_engine {
	int node;
	struct xarray storage;
	void *map;
	atomic_long_t nr_blocks;
	struct workqueue_struct *queue;
};

/**
 * enum hmm_ref_copy_op - what the copy engine can do
 * @HMM_REF_COPY_IN: copy from system memory to the device
 * @HMM_REF_COPY_OUT: copy from the device to system memory
 * @HMM_REF_COPY_ZERO: zero memory of the device
 */
enum hmm_ref_copy_op {
	HMM_REF_COPY_IN,
	HMM_REF_COPY_OUT,
	HMM_REF_COPY_ZERO,
};

/**
 * struct hmm_ref_copy - one descriptor of the copy engine
 * @op: what to do
 * @nr: pages
 * @dpfn: device memory, in one block
 * @sys_page: the first of the other side's pages, if there is one
 */
struct hmm_ref_copy {
	enum hmm_ref_copy_op op;
	unsigned int nr;
	unsigned long dpfn;
	struct page *sys_page;
};

/**
 * struct hmm_ref_job - a batch of copies on the engine
 * @engine: that runs it
 * @ring: descriptors of what is to be done; memory of the caller
 * @size: how many fit
 * @nr: how many were added
 * @late: the engine was late when the job was submitted
 * @rc: 0, or how the job will end
 * @work: runs the job, when the engine is late
 *
 * Lives on the stack of the waiter.
 */
struct hmm_ref_job {
	struct hmm_ref_engine *engine;
	struct hmm_ref_copy *ring;
	unsigned int size;
	unsigned int nr;
	bool late;
	int rc;
	struct work_struct work;
};

int hmm_ref_engine_init(struct hmm_ref_engine *engine, int node);
void hmm_ref_engine_exit(struct hmm_ref_engine *engine);
void hmm_ref_engine_set_map(struct hmm_ref_engine *engine, void *map);
int hmm_ref_engine_back(struct hmm_ref_engine *engine, unsigned long dpfn);
void hmm_ref_engine_unback(struct hmm_ref_engine *engine, unsigned long dpfn);
void *hmm_ref_engine_addr(struct hmm_ref_engine *engine, unsigned long dpfn);

void hmm_ref_engine_begin(struct hmm_ref_engine *engine, struct hmm_ref_job *job,
			  struct hmm_ref_copy *ring, unsigned int size);
/**
 * hmm_ref_engine_copy() - add a copy to a batch
 * @job: batch
 * @op: which way
 * @dpfn: page on the device
 * @sys_page: page of system memory; NULL to clear. Neither side changes before the batch
 *	was waited for
 * @nr: pages, contiguous on both sides and in one block
 *
 * A caller that adds more than it has room for has a bug; then the batch fails, and nothing is
 * written where it should not be.
 */
static inline void hmm_ref_engine_copy(struct hmm_ref_job *job, enum hmm_ref_copy_op op,
				       unsigned long dpfn, struct page *sys_page,
				       unsigned int nr)
{
	if (WARN_ON_ONCE(job->nr == job->size)) {
		job->rc = -EIO;
		return;
	}
	/* mock: real hardware would have DMA addresses in it */
	job->ring[job->nr++] = (struct hmm_ref_copy){
		.op = op, .nr = nr, .dpfn = dpfn, .sys_page = sys_page };
}

void hmm_ref_engine_submit(struct hmm_ref_job *job);
int hmm_ref_engine_wait(struct hmm_ref_job *job);

#endif /* _HMM_REF_GPU_H */
