/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The seam between the core and a device. Only the core knows about mm. A
 * device knows its bus, its memory and its engines, but neither struct
 * hmm_ref_devmem nor the layers above it.
 *
 * A driver for other hardware embeds a struct hmm_ref_hw and implements its
 * ops. gpu/ does so for a simulated GPU.
 *
 * Copies are made in batches (struct hmm_ref_job): begin, add copies, submit,
 * wait. All copies of a batch are either to the device or from it. The other
 * side is system memory, or the memory of a peer: another device that this one
 * can reach and copy from. The caller provides the array of descriptors, and
 * each descriptor has its own result. Between submit and the return of the
 * wait, the pages of a batch belong to the device: do not use, unlock or free
 * them, and do not trust the destinations. The core maps system memory for DMA
 * before it passes the address to the device, and unmaps it after the fence has
 * signalled.
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
 * enum hmm_ref_copy_op - operation of a copy engine
 * @HMM_REF_COPY_IN: copy from system memory to the device
 * @HMM_REF_COPY_OUT: copy from the device to system memory
 * @HMM_REF_COPY_ZERO: clear device memory
 * @HMM_REF_COPY_PEER: copy from a peer to the device
 */
enum hmm_ref_copy_op {
	HMM_REF_COPY_IN,
	HMM_REF_COPY_OUT,
	HMM_REF_COPY_ZERO,
	HMM_REF_COPY_PEER,
};

/**
 * struct hmm_ref_copy - descriptor of a copy
 * @op: operation
 * @nr: pages, contiguous on both sides
 * @rc: out: 0, or the errno of this copy; its destination then holds no data
 * @dpfn: device page number of the first page, in one block
 * @addr: DMA address of the other side, if any; for a peer, the address in its
 *	memory, in one block
 * @sys_page: first system page of the other side, or NULL; not for use by the
 *	device
 *
 * Kept small because a CPU fault has an array of them on its stack.
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
 * @dm: device memory of one side; not for use by the device
 * @peer: device memory of the other side, or NULL for system memory; not for
 *	use by the device
 * @peer_hw: hardware of @peer
 * @ring: descriptors, in memory that the caller keeps until the wait returns
 * @size: number of descriptors that fit
 * @nr: number of descriptors
 * @rc: 0, or the errno of a batch that was not submitted
 * @fence: signals when the device has released the pages
 * @section: use of the device, from submit to wait; see hmm_ref_hw_enter()
 * @peer_section: use of the peer, if there is one
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
 * @walk: read the entry of a page address, and the number of similar entries
 *	that follow, like hmm_ref_pgtable_lookup_run(). Real hardware reads the
 *	page table in memory itself. Context: an RCU read-side critical section.
 *	Return: the entry, 0 if nothing is mapped
 *
 * A device may cache entries until a flush.
 */
struct hmm_ref_space {
	hmm_ref_pte_t (*walk)(struct hmm_ref_space *space, unsigned long addr,
			      unsigned int *nr);
};

/**
 * enum hmm_ref_word_op - operation on a word
 * @HMM_REF_WORD_ADD: add the operand
 * @HMM_REF_WORD_EXCHANGE: store the operand
 * @HMM_REF_WORD_COMPARE_EXCHANGE: store the operand if the word equals the
 *	comparand
 */
enum hmm_ref_word_op {
	HMM_REF_WORD_ADD,
	HMM_REF_WORD_EXCHANGE,
	HMM_REF_WORD_COMPARE_EXCHANGE,
};

/**
 * struct hmm_ref_word - an atomic operation
 * @op: operation
 * @len: size of the word in bytes, 4 or 8
 * @operand: operand
 * @compare: comparand of a compare and exchange
 * @old: out: previous value of the word
 */
struct hmm_ref_word {
	enum hmm_ref_word_op op;
	unsigned int len;
	u64 operand;
	u64 compare;
	u64 old;
};

/**
 * struct hmm_ref_hw_ops - operations of a device
 * @vram_alloc: provide memory for @nr device pages starting at @dpfn, with
 *	undefined content. Context: may sleep and enter reclaim. Return: 0,
 *	-ENOMEM or -ENODEV
 * @vram_free: free the memory that one call of @vram_alloc has provided. None
 *	of its pages is used, and no batch is under way. Context: may sleep
 * @move: load @len bytes to @iter, or store them from @iter if that is a
 *	source. A naturally aligned word is transferred by one load or store if
 *	@iter is kernel memory. Drivers for hardware that runs jobs on user
 *	addresses omit access.c and this op. Context: page faults are not
 *	served. Return: bytes moved; fewer than @len if user memory is not
 *	present or not reachable, and the caller then passes kernel memory; also
 *	fewer if one of the following errors occurs after the first bytes.
 *	-EFAULT if no entry allows the access, a device fault; -EIO if the
 *	address in the entry is not mapped; -ENODEV if the device is lost, and
 *	the bytes in @iter are not data
 * @atomic: perform an atomic operation on a naturally aligned word. In system
 *	memory, the device has exclusive access to the page. Context: same as
 *	@move. Return: 0, -EFAULT, -EIO or -ENODEV
 * @flush: drop cached entries of the pages from @start to @end, exclusive. When
 *	it returns, no access that used such an entry is under way. Context: the
 *	lock of the range is held, possibly in reclaim or atomic context; waits
 *	only for accesses
 * @reaches: test whether the device can copy from the memory of a peer. The
 *	peer stays until the fence of such a batch has signalled. NULL for a
 *	device that can reach no other; data then moves through system memory.
 *	Context: any. Return: true if it can
 * @submit: queue a batch. Context: folio locks and mmap_lock are held, possibly
 *	in reclaim; does not wait for tasks that need these. Return: a fence
 *	that signals after the rc of each descriptor is set, with the error of
 *	one that failed: -EIO (the memory cannot be read, or the peer is lost),
 *	-EFAULT (the address is not mapped), -ETIMEDOUT (reset), -ENODEV; or,
 *	without having started, an ERR_PTR(): -EAGAIN or -ENOMEM (no room for
 *	descriptors now), -ENODEV (the device is lost)
 * @help: run the batch of a fence if the device has not started it, for a task
 *	that waits; NULL for hardware
 * @reset: stop the device and abort its current batch. The fence of that batch
 *	signals only then, with -ETIMEDOUT; other batches may succeed. Context:
 *	same as @submit; sleeps for a bounded time
 */
struct hmm_ref_hw_ops {
	int (*vram_alloc)(struct hmm_ref_hw *hw, unsigned long dpfn,
			  unsigned long nr);
	void (*vram_free)(struct hmm_ref_hw *hw, unsigned long dpfn,
			  unsigned long nr);
	int (*move)(struct hmm_ref_hw *hw, struct hmm_ref_space *space,
		    unsigned long addr, struct iov_iter *iter,
		    unsigned int len);
	int (*atomic)(struct hmm_ref_hw *hw, struct hmm_ref_space *space,
		      unsigned long addr, struct hmm_ref_word *word);
	void (*flush)(struct hmm_ref_hw *hw, struct hmm_ref_space *space,
		      unsigned long start, unsigned long end);
	bool (*reaches)(struct hmm_ref_hw *hw, struct hmm_ref_hw *peer);
	struct dma_fence *(*submit)(struct hmm_ref_hw *hw,
				    const struct hmm_ref_job *job);
	void (*help)(struct hmm_ref_hw *hw, struct dma_fence *fence);
	void (*reset)(struct hmm_ref_hw *hw);
};

/**
 * struct hmm_ref_hw - a device, as the core sees it
 * @ops: operations
 * @dev: device for DMA mappings of system memory
 * @node: nearest NUMA node, or NUMA_NO_NODE
 * @mapped: counts of the mappings of each DMA page by direction, in sanity mode
 *
 * Embedded in the device's own structure, which outlives the struct
 * hmm_ref_devmem that uses it.
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
 * @ops: operations
 * @dev: device for DMA mappings, with its DMA mask set
 * @node: nearest NUMA node, or NUMA_NO_NODE
 */
static inline void hmm_ref_hw_init(struct hmm_ref_hw *hw,
				   const struct hmm_ref_hw_ops *ops,
				   struct device *dev, int node)
{
	*hw = (struct hmm_ref_hw){ .ops = ops, .dev = dev, .node = node };
#ifdef CONFIG_HMM_REF_SANITY
	xa_init(&hw->mapped);
#endif
}

/**
 * hmm_ref_hw_bounces() - test whether DMA of a device uses bounce buffers
 * @dev: device
 *
 * Memory that stays mapped must not be bounced: data that the device writes
 * would reach the page only when it is unmapped. Bounce buffers limit the size
 * of a mapping, which is what this tests.
 *
 * Return: true if it does: its DMA mask is too small, the guest's memory is
 * encrypted, or swiotlb=force is set.
 */
static inline bool hmm_ref_hw_bounces(struct device *dev)
{
	return dma_max_mapping_size(dev) < SIZE_MAX;
}

/**
 * hmm_ref_job_begin() - start a batch of copies
 * @job: batch to set up
 * @dm: device memory of one side
 * @ring: memory for the descriptors, which the caller keeps until the wait
 *	returns
 * @size: number of descriptors that fit
 */
static inline void hmm_ref_job_begin(struct hmm_ref_job *job,
				     struct hmm_ref_devmem *dm,
				     struct hmm_ref_copy *ring,
				     unsigned int size)
{
	/* Hot path of CPU faults: fields that submit sets are not cleared. */
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
 * @op: operation
 * @dpfn: device page number of the first page
 * @sys_page: first page of system memory, or NULL to clear
 * @nr: pages, contiguous on both sides and in one block
 *
 * Neither side changes until the wait has returned. Adding more copies than fit
 * is a bug; the batch then fails without writing past the array.
 */
static inline void hmm_ref_job_copy(struct hmm_ref_job *job,
				    enum hmm_ref_copy_op op, unsigned long dpfn,
				    struct page *sys_page, unsigned int nr)
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
 * @dpfn: device page number of the first page
 * @peer_dpfn: device page number of the first page on the peer
 * @nr: pages, contiguous on both sides and in one block of each
 *
 * Neither side changes until the wait has returned.
 */
static inline void hmm_ref_job_copy_peer(struct hmm_ref_job *job,
					 unsigned long dpfn,
					 unsigned long peer_dpfn,
					 unsigned int nr)
{
	dma_addr_t addr = (dma_addr_t)peer_dpfn << PAGE_SHIFT;

	hmm_ref_job_copy(job, HMM_REF_COPY_PEER, dpfn, NULL, nr);
	if (!job->rc)
		job->ring[job->nr - 1].addr = addr;
}

void hmm_ref_job_submit(struct hmm_ref_job *job);
int hmm_ref_job_wait(struct hmm_ref_job *job);

#endif /* _HMM_REF_HW_H */
