/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The seam: what the core asks of a device. The core is all that knows of mm; a device knows its
 * bus, its memory and its engines, and nothing of struct hmm_ref_devmem and what is above.
 *
 * A driver for other hardware embeds a struct hmm_ref_hw and fills in its ops. gpu/ does so for
 * a GPU that is simulated.
 *
 * Copies are made in batches, struct hmm_ref_job: begin, any number of copies, all to the device
 * or all from it, submit, wait. The other side is system memory; or a peer, another device with
 * memory that this one reaches, and copies from. The descriptors are in an array of the caller,
 * which says how many fit. Between submit and the return of wait the pages of a batch belong to
 * the device: none is used, unlocked or freed, and the destinations hold nothing. The core maps
 * system memory for DMA before the device learns the address, and unmaps it after the fence. Each
 * descriptor has a result of its own.
 */
#ifndef _HMM_REF_HW_H
#define _HMM_REF_HW_H

#include <linux/bug.h>
#include <linux/dma-mapping.h>
#include <linux/xarray.h>

#include "base.h"
#include "pgtable.h"

struct device;
struct dma_fence;
struct hmm_ref_devmem;
struct hmm_ref_hw;
struct hmm_ref_job;
struct iov_iter;
struct page;

/**
 * enum hmm_ref_copy_op - what a copy engine can do
 * @HMM_REF_COPY_IN: copy from system memory to the device
 * @HMM_REF_COPY_OUT: copy from the device to system memory
 * @HMM_REF_COPY_ZERO: zero memory of the device
 * @HMM_REF_COPY_PEER: copy from another device, which this one reaches, to the device
 */
enum hmm_ref_copy_op {
	HMM_REF_COPY_IN,
	HMM_REF_COPY_OUT,
	HMM_REF_COPY_ZERO,
	HMM_REF_COPY_PEER,
};

/**
 * struct hmm_ref_copy - one descriptor
 * @op: what to do
 * @nr: pages, contiguous on both sides
 * @rc: out: 0, or the errno of this copy: its destination holds no data
 * @dpfn: device memory, in one block
 * @addr: DMA address of the other side, if there is one; of a peer the address in its memory, in
 *	one block
 * @sys_page: the first of the other side's pages, of system memory; or NULL. Not for the device to
 *	use
 *
 * Small, as a CPU fault has an array of them on its stack.
 */
struct hmm_ref_copy {
	enum hmm_ref_copy_op op;
	unsigned short nr;
	short rc;
	unsigned long dpfn;
	dma_addr_t addr;
	struct page *sys_page;
};

/**
 * struct hmm_ref_job - a batch of copies
 * @dm: device memory on the one side of them; not for the device to use
 * @peer: device memory on the other side, or NULL for system memory; not for the device to use
 * @peer_hw: its device
 * @ring: descriptors; memory of the caller, which stays until wait has returned
 * @size: how many fit
 * @nr: how many were added
 * @rc: 0, or the errno that the batch has failed with before it was submitted, or when
 * @fence: signals when the device has let go of the pages
 * @section: from submit to wait the device is used; see hmm_ref_hw_enter()
 * @peer_section: and the peer, if there is one
 *
 * Lives on the stack of the task that waits.
 */
struct hmm_ref_job {
	struct hmm_ref_devmem *dm;
	struct hmm_ref_devmem *peer;
	struct hmm_ref_hw *peer_hw;
	struct hmm_ref_copy *ring;
	unsigned int size;
	unsigned int nr;
	int rc;
	struct dma_fence *fence;
	int section;
	int peer_section;
};

/**
 * struct hmm_ref_space - an address space, as the device sees it
 * @walk: read the entry of a page address, and how far those after it go on like it: as
 *	hmm_ref_pgtable_lookup_run(). Hardware does so by itself, in memory. Context: an RCU
 *	read-side critical section. Return: the entry, 0 when nothing is mapped
 *
 * A device may keep what it has read until a flush.
 */
struct hmm_ref_space {
	hmm_ref_pte_t (*walk)(struct hmm_ref_space *space, unsigned long addr, unsigned int *nr);
};

/**
 * enum hmm_ref_word_op - what becomes of a word
 * @HMM_REF_WORD_ADD: the operand is added
 * @HMM_REF_WORD_EXCHANGE: the operand takes its place
 * @HMM_REF_WORD_COMPARE_EXCHANGE: the same, if the word is that to compare
 */
enum hmm_ref_word_op {
	HMM_REF_WORD_ADD,
	HMM_REF_WORD_EXCHANGE,
	HMM_REF_WORD_COMPARE_EXCHANGE,
};

/**
 * struct hmm_ref_word - an atomic operation
 * @op: what to do
 * @len: bytes, 4 or 8
 * @operand: of @op
 * @compare: of a compare and exchange
 * @old: set to what the word was before
 */
struct hmm_ref_word {
	enum hmm_ref_word_op op;
	unsigned int len;
	u64 operand;
	u64 compare;
	u64 old;
};

/**
 * struct hmm_ref_hw_ops - what a device can do
 * @vram_alloc: provide the memory of the device pages from @dpfn on, with undefined content.
 *	Context: may sleep, and enter reclaim. Return: 0, or -ENOMEM, -ENODEV
 * @vram_free: give back what @vram_alloc has provided, as a whole. No page of it is used, and no
 *	batch is under way. Context: may sleep
 * @move: load @len bytes to @iter, or store them from there if that is a source. A word of the
 *	kernel's memory at a multiple of its size is one load or store, as it is for a CPU.
 *	A driver of hardware with jobs that name addresses leaves out access.c, and this. Context:
 *	no page fault is served. Return: bytes moved; less than @len where memory of a user is not
 *	present, or cannot be reached: then it takes the kernel's; less, too, where one of the
 *	following ends it further on. -EFAULT when no entry allows it, a device fault; -EIO when the
 *	entry has an address that is not mapped; -ENODEV when the device is lost, and what @iter got
 *	is no data
 * @atomic: do an atomic operation on a word at a multiple of its size. In system memory the device
 *	has exclusive access to the page. Context: as @move. Return: 0, -EFAULT, -EIO or -ENODEV
 * @flush: forget the entries of pages from @start to before @end. Context: called with the lock
 *	of the range, in reclaim, and where nothing may sleep: waits for nothing but accesses. When
 *	it returns none goes on that has begun with such an entry
 * @reaches: can copies come from the memory of another device, a peer? It stays until the fence of
 *	such a batch has signalled. NULL for a device that reaches none: then data goes by way of
 *	system memory. Context: any. Return: true when they can
 * @submit: queue a batch. Context: folio locks and mmap_lock are held, and some of the tasks are in
 *	reclaim: waits for nothing that they may hold. Return: a fence, which signals after the rc
 *	of each descriptor is set, with the error of one of those that failed: -EIO (memory that
 *	cannot be read, or the peer is lost), -EFAULT (an address that is not mapped), -ETIMEDOUT
 *	(reset), -ENODEV; or an ERR_PTR(), and the device has not begun: -EAGAIN, -ENOMEM (no
 *	room for descriptors now), -ENODEV (the device is lost)
 * @help: do for a task that waits for a fence what the device has not begun; NULL for hardware
 * @reset: stop the device, whatever it does. Only then the fence of what it was at signals, with
 *	-ETIMEDOUT; others may succeed. Context: as @submit; sleeps for a bounded time
 */
struct hmm_ref_hw_ops {
	int (*vram_alloc)(struct hmm_ref_hw *hw, unsigned long dpfn, unsigned long nr);
	void (*vram_free)(struct hmm_ref_hw *hw, unsigned long dpfn, unsigned long nr);
	int (*move)(struct hmm_ref_hw *hw, struct hmm_ref_space *space, unsigned long addr,
		    struct iov_iter *iter, unsigned int len);
	int (*atomic)(struct hmm_ref_hw *hw, struct hmm_ref_space *space, unsigned long addr,
		      struct hmm_ref_word *word);
	void (*flush)(struct hmm_ref_hw *hw, struct hmm_ref_space *space, unsigned long start,
		      unsigned long end);
	bool (*reaches)(struct hmm_ref_hw *hw, struct hmm_ref_hw *peer);
	struct dma_fence *(*submit)(struct hmm_ref_hw *hw, const struct hmm_ref_job *job);
	void (*help)(struct hmm_ref_hw *hw, struct dma_fence *fence);
	void (*reset)(struct hmm_ref_hw *hw);
};

/**
 * struct hmm_ref_hw - a device, as the core sees it
 * @ops: what it can do
 * @dev: that system memory is mapped for
 * @node: NUMA node that it is near to, or NUMA_NO_NODE
 * @mapped: in sanity mode, how often pages of DMA addresses are mapped, and which way: a value
 *
 * Embedded in the device's own structure, which outlives the struct hmm_ref_devmem that uses it.
 */
struct hmm_ref_hw {
	const struct hmm_ref_hw_ops *ops;
	struct device *dev;
	int node;
#ifdef CONFIG_HMM_REF_SANITY
	struct xarray mapped;
#endif
};

/**
 * hmm_ref_hw_init() - set up a device
 * @hw: device
 * @ops: what it can do
 * @dev: that system memory is mapped for; its DMA mask is set
 * @node: NUMA node that it is near to, or NUMA_NO_NODE
 */
static inline void hmm_ref_hw_init(struct hmm_ref_hw *hw, const struct hmm_ref_hw_ops *ops,
				   struct device *dev, int node)
{
	*hw = (struct hmm_ref_hw){ .ops = ops, .dev = dev, .node = node };
#ifdef CONFIG_HMM_REF_SANITY
	xa_init(&hw->mapped);
#endif
}

/**
 * hmm_ref_hw_bounces() - whether DMA of a device goes by way of bounce buffers
 * @dev: device
 *
 * They are why the size of a mapping is limited. Memory that stays mapped must not be in one: what
 * the device writes would get to the page when it is unmapped.
 *
 * Return: true when it does, as for a mask that is too small, in a guest with encrypted memory, or
 * with swiotlb=force.
 */
static inline bool hmm_ref_hw_bounces(struct device *dev)
{
	return dma_max_mapping_size(dev) < SIZE_MAX;
}

/**
 * hmm_ref_job_begin() - start a batch of copies
 * @job: to set up
 * @dm: device memory on the one side of the copies
 * @ring: where the descriptors are written; stays until the wait has returned
 * @size: how many fit
 */
static inline void hmm_ref_job_begin(struct hmm_ref_job *job,
				     struct hmm_ref_devmem *dm,
				     struct hmm_ref_copy *ring, unsigned int size)
{
	/* A CPU fault of a page begins one, too: what submit sets is not cleared. */
	job->dm = dm;
	job->peer = NULL;
	job->ring = ring;
	job->size = size;
	job->nr = 0;
	job->rc = 0;
}

/**
 * hmm_ref_job_copy() - add a copy to a batch
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
static inline void hmm_ref_job_copy(struct hmm_ref_job *job, enum hmm_ref_copy_op op,
				    unsigned long dpfn, struct page *sys_page,
				    unsigned int nr)
{
	if (WARN_ON_ONCE(job->nr == job->size)) {
		job->rc = -EIO;
		return;
	}
	job->ring[job->nr++] = (struct hmm_ref_copy){
		.op = op, .nr = nr, .dpfn = dpfn, .sys_page = sys_page };
}

/**
 * hmm_ref_job_copy_peer() - add a copy from another device
 * @job: batch, with a peer
 * @dpfn: page on the device
 * @peer_dpfn: page on the peer. Neither side changes before the batch was waited for
 * @nr: pages, contiguous on both sides and in one block of each
 */
static inline void hmm_ref_job_copy_peer(struct hmm_ref_job *job, unsigned long dpfn,
					 unsigned long peer_dpfn, unsigned int nr)
{
	hmm_ref_job_copy(job, HMM_REF_COPY_PEER, dpfn, NULL, nr);
	if (!job->rc)
		job->ring[job->nr - 1].addr = (dma_addr_t)peer_dpfn << PAGE_SHIFT;
}

void hmm_ref_job_submit(struct hmm_ref_job *job);
int hmm_ref_job_wait(struct hmm_ref_job *job);

#endif /* _HMM_REF_HW_H */
