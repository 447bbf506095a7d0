/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The simulated GPU: its memory and its engines.
 *
 * The engines work for any device with memory that the CPU can map, also on
 * PCI.
 */
#ifndef _HMM_REF_GPU_H
#define _HMM_REF_GPU_H

#include <linux/dma-fence.h>
#include <linux/iosys-map.h>
#include <linux/list.h>
#include <linux/spinlock.h>
#include <linux/wait.h>
#include <linux/workqueue.h>

#include "../hw.h"

#define HMM_REF_TLB_SIZE	64
/* Maximum pages of a translation. A flush waits for an access to all. */
#define HMM_REF_TLB_REACH	16U

/**
 * struct hmm_ref_translation - an entry of the TLB
 * @space: address space
 * @page: address >> PAGE_SHIFT
 * @nr: pages that it translates, starting at @page; more than one only if
 *	contiguous in GPU memory
 * @pte: page table entry; 0 for a free slot
 */
struct hmm_ref_translation {
	struct hmm_ref_space *space;
	unsigned long page;
	unsigned int nr;
	hmm_ref_pte_t pte;
};

/**
 * struct hmm_ref_gpu - one GPU
 * @hw: the core's view of it
 * @vram: look up a page of its memory, which the caller keeps in use. A block
 *	is contiguous
 * @is_present: test whether the device is still present; NULL if it always is
 * @workqueue: runs @engine
 * @engine: takes batches off @queue
 * @lock: covers @queue and @turn
 * @queue: batches that the engine has not started
 * @turn: number of batches that a reordered engine has started
 * @lost: the GPU no longer responds
 * @resets: number of resets
 * @reset: woken by a reset
 * @accesses: held for reading by each load, store and atomic; for writing to
 *	wait for them
 * @tlb_lock: covers @tlb
 * @tlb: cached translations, by page
 * @link_lock: serialises stores and atomics to system memory
 * @context: context of its fences
 * @seqno: sequence number of the last fence
 */
struct hmm_ref_gpu {
	struct hmm_ref_hw hw;
	struct iosys_map (*vram)(struct hmm_ref_gpu *gpu, unsigned long dpfn);
	bool (*is_present)(struct hmm_ref_gpu *gpu);
	struct workqueue_struct *workqueue;
	struct work_struct engine;
	spinlock_t lock;	/* queue, turn */
	struct list_head queue;
	unsigned int turn;
	bool lost;
	unsigned int resets;
	wait_queue_head_t reset;
	rwlock_t accesses;
	spinlock_t tlb_lock;	/* tlb */
	struct hmm_ref_translation tlb[HMM_REF_TLB_SIZE];
	spinlock_t link_lock;	/* words of system memory */
	u64 context;
	atomic64_t seqno;
};

/* A missing device answers reads with garbage, so test this after the read. */
static inline bool hmm_ref_gpu_is_lost(struct hmm_ref_gpu *gpu)
{
	return READ_ONCE(gpu->lost) ||
	       (gpu->is_present && !gpu->is_present(gpu));
}

static inline struct hmm_ref_gpu *hmm_ref_to_gpu(struct hmm_ref_hw *hw)
{
	return container_of(hw, struct hmm_ref_gpu, hw);
}

/* ---- engine.c: copies -------------------------------------------------- */

int hmm_ref_gpu_init(struct hmm_ref_gpu *gpu, const struct hmm_ref_hw_ops *ops,
		     struct device *dev, int node);
void hmm_ref_gpu_exit(struct hmm_ref_gpu *gpu);
struct dma_fence *hmm_ref_gpu_submit(struct hmm_ref_hw *hw,
				     const struct hmm_ref_job *job);
void hmm_ref_gpu_help(struct hmm_ref_hw *hw, struct dma_fence *fence);
void hmm_ref_gpu_reset(struct hmm_ref_hw *hw);

/* ---- mmu.c: translations ----------------------------------------------- */

enum hmm_ref_gpu_access {
	HMM_REF_GPU_LOAD,
	HMM_REF_GPU_STORE,
	HMM_REF_GPU_ATOMIC
};

void hmm_ref_gpu_mmu_init(struct hmm_ref_gpu *gpu);
hmm_ref_pte_t hmm_ref_gpu_translate(struct hmm_ref_gpu *gpu,
				    struct hmm_ref_space *space,
				    unsigned long addr,
				    enum hmm_ref_gpu_access access,
				    unsigned int *nr);
void hmm_ref_gpu_flush(struct hmm_ref_hw *hw, struct hmm_ref_space *space,
		       unsigned long start, unsigned long end);

/* ---- lsu.c: loads and stores ------------------------------------------- */

int hmm_ref_gpu_move(struct hmm_ref_hw *hw, struct hmm_ref_space *space,
		     unsigned long addr, struct iov_iter *iter,
		     unsigned int len);
int hmm_ref_gpu_atomic(struct hmm_ref_hw *hw, struct hmm_ref_space *space,
		       unsigned long addr, struct hmm_ref_word *word);

/* ---- vram.c: a fully simulated GPU ------------------------------------- */

struct hmm_ref_hw *hmm_ref_gpu_create(struct device *dev, int node,
				      phys_addr_t coherent_base);
void hmm_ref_gpu_destroy(struct hmm_ref_hw *hw);

#endif /* _HMM_REF_GPU_H */
