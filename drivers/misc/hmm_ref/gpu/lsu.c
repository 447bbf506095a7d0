// SPDX-License-Identifier: GPL-2.0-only
/*
 * Loads, stores and atomics. mock: real hardware has engines for these, a link
 * to system memory, and atomics in its memory controller. Here the CPU does all
 * of this.
 */
#include <linux/delay.h>
#include <linux/export.h>
#include <linux/uio.h>

#include "gpu.h"
#include "iommu.h"

#define ROUND_TRIP_NS	1000	/* device access to system memory */

/**
 * struct target - memory that an access operates on
 * @mem: memory, as mapped by the CPU
 * @vram: @mem is memory of the GPU, not of the system
 */
struct target {
	struct iosys_map mem;
	bool vram;
};

/* Return: false, with a log message, if the entry's address is not mapped. */
static bool map_target(struct hmm_ref_gpu *gpu, hmm_ref_pte_t pte,
		       unsigned long addr, enum dma_data_direction direction,
		       struct target *target)
{
	struct iommu_domain *domain;
	dma_addr_t dma;
	void *sys;

	target->vram = pte & HMM_REF_PTE_DEVICE;
	if (target->vram) {
		target->mem = gpu->vram(gpu, hmm_ref_pte_number(pte));
	} else {
		domain = iommu_get_domain_for_dev(gpu->hw.dev);
		dma = (dma_addr_t)hmm_ref_pte_number(pte) << PAGE_SHIFT;
		sys = hmm_ref_gpu_map_addr(&gpu->hw, domain, dma, direction);
		if (!sys)
			return false;
		iosys_map_set_vaddr(&target->mem, sys);
	}
	iosys_map_incr(&target->mem, offset_in_page(addr));
	return true;
}

static void unmap_target(const struct target *target)
{
	if (!target->vram)
		kunmap_local(target->mem.vaddr);
}

/* ---- loads and stores -------------------------------------------------- */

/* A naturally aligned word takes one load or store, as on the CPU. */
#define move_word(mem, word_at, write, type)				\
	do {								\
		type *word = (word_at);					\
									\
		if (write)						\
			iosys_map_wr(mem, 0, type, *word);		\
		else							\
			*word = iosys_map_rd(mem, 0, type);		\
	} while (0)

static void move_bytes(struct iosys_map *mem, void *kernel, unsigned int len,
		       bool write)
{
	unsigned long addr = (unsigned long)mem->vaddr;

	if (len == 8 && IS_ALIGNED(addr, 8))
		move_word(mem, kernel, write, u64);
	else if (len == 4 && IS_ALIGNED(addr, 4))
		move_word(mem, kernel, write, u32);
	else if (len == 2 && IS_ALIGNED(addr, 2))
		move_word(mem, kernel, write, u16);
	else if (write)
		iosys_map_memcpy_to(mem, 0, kernel, len);
	else
		iosys_map_memcpy_from(kernel, mem, 0, len);
}

/*
 * A store must exclude atomics that are not a single operation: atomics in
 * system memory, and atomics behind a bus, which supports none.
 */
static bool excludes_atomics(const struct target *target)
{
	return target->mem.is_iomem || !target->vram;
}

static unsigned int move_kvec(struct iosys_map *mem, struct iov_iter *iter,
			      unsigned int len)
{
	const struct kvec *kvec = iter->kvec;

	move_bytes(mem, kvec->iov_base + iter->iov_offset, len,
		   iov_iter_rw(iter) == ITER_SOURCE);
	iov_iter_advance(iter, len);
	return len;
}

/* Stops at a user page that is not present. */
static unsigned int move_user(struct iosys_map *mem, struct iov_iter *iter,
			      unsigned int len)
{
	if (mem->is_iomem)
		return 0;
	pagefault_disable();
	if (iov_iter_rw(iter) == ITER_SOURCE)
		len = copy_from_iter(mem->vaddr, len, iter);
	else
		len = copy_to_iter(mem->vaddr, len, iter);
	pagefault_enable();
	return len;
}

static unsigned int move(struct hmm_ref_gpu *gpu, struct target *target,
			 struct iov_iter *iter, unsigned int len)
{
	bool exclude = iov_iter_rw(iter) == ITER_SOURCE &&
		       excludes_atomics(target);

	if (exclude)
		spin_lock(&gpu->link_lock);
	if (iov_iter_is_kvec(iter))
		len = move_kvec(&target->mem, iter, len);
	else
		len = move_user(&target->mem, iter, len);
	if (exclude) {
		wmb(); /* order write-combined stores, which a lock does not */
		spin_unlock(&gpu->link_lock);
	}
	return len;
}

/*
 * Move the bytes that one translation covers. If the device is lost, @iter does
 * not advance. Return: same as hmm_ref_gpu_move().
 */
static int move_some(struct hmm_ref_gpu *gpu, struct hmm_ref_space *space,
		     unsigned long addr, struct iov_iter *iter,
		     unsigned int len)
{
	unsigned int nr = DIV_ROUND_UP(offset_in_page(addr) + len, PAGE_SIZE);
	bool store = iov_iter_rw(iter) == ITER_SOURCE;
	struct target target;
	hmm_ref_pte_t pte;
	int rc = -EFAULT;

	read_lock(&gpu->accesses);
	pte = hmm_ref_gpu_translate(gpu, space, addr,
				    store ? HMM_REF_GPU_STORE :
					    HMM_REF_GPU_LOAD, &nr);
	if (!pte)
		goto out;
	len = min(len, nr * PAGE_SIZE - offset_in_page(addr));
	rc = -EIO;
	if (!map_target(gpu, pte, addr, store ? DMA_FROM_DEVICE : DMA_TO_DEVICE,
			&target))
		goto out;
	rc = move(gpu, &target, iter, len);
	unmap_target(&target);
	if (hmm_ref_gpu_is_lost(gpu)) {
		iov_iter_revert(iter, rc);
		rc = -ENODEV;
	}
out:
	read_unlock(&gpu->accesses);
	return rc;
}

/**
 * hmm_ref_gpu_move() - implementation of hmm_ref_hw_ops::move
 * @hw: hardware of a struct hmm_ref_gpu
 * @space: address space
 * @addr: address that the device loads from or stores to
 * @iter: other side: user memory, or contiguous kernel memory
 * @len: bytes
 *
 * Return: bytes moved; or, if there are none, -EFAULT, -EIO or -ENODEV.
 */
int hmm_ref_gpu_move(struct hmm_ref_hw *hw, struct hmm_ref_space *space,
		     unsigned long addr, struct iov_iter *iter,
		     unsigned int len)
{
	struct hmm_ref_gpu *gpu = hmm_ref_to_gpu(hw);
	unsigned int done;
	int rc;

	for (done = 0; done < len; done += rc) {
		rc = move_some(gpu, space, addr + done, iter, len - done);
		if (rc <= 0)
			return done ?: rc;
	}
	return done;
}
EXPORT_SYMBOL_NS_GPL(hmm_ref_gpu_move, "HMM_REF");

/* ---- atomics ----------------------------------------------------------- */

/* Compute the new value of a word. Return: false if none is to be stored. */
static bool result(const struct hmm_ref_word *word, u64 *new)
{
	switch (word->op) {
	case HMM_REF_WORD_ADD:
		*new = word->old + word->operand;
		return true;
	case HMM_REF_WORD_EXCHANGE:
		*new = word->operand;
		return true;
	default:
		*new = word->operand;
		return word->old == word->compare;
	}
}

static void load(struct iosys_map *mem, struct hmm_ref_word *word)
{
	word->old = word->len == 4 ? iosys_map_rd(mem, 0, u32) :
				     iosys_map_rd(mem, 0, u64);
}

static void store(struct iosys_map *mem, const struct hmm_ref_word *word,
		  u64 new)
{
	if (word->len == 4)
		iosys_map_wr(mem, 0, u32, new);
	else
		iosys_map_wr(mem, 0, u64, new);
}

static bool store_if_unchanged(void *mem, const struct hmm_ref_word *word,
			       u64 new)
{
	if (word->len == 4)
		return cmpxchg((u32 *)mem, (u32)word->old, (u32)new) ==
		       (u32)word->old;
	return cmpxchg((u64 *)mem, word->old, new) == word->old;
}

/* Atomic with respect to all CPUs and devices. */
static void atomic_vram(struct hmm_ref_gpu *gpu, struct iosys_map *mem,
			struct hmm_ref_word *word)
{
	u64 new;

	if (mem->is_iomem) {
		spin_lock(&gpu->link_lock);
		load(mem, word);
		if (result(word, &new))
			store(mem, word, new);
		wmb(); /* as above */
		spin_unlock(&gpu->link_lock);
		return;
	}
	do {
		load(mem, word);
	} while (result(word, &new) &&
		 !store_if_unchanged(mem->vaddr, word, new));
}

/* A load, a round trip, a store: atomic only with exclusive access. */
static void atomic_sys(struct hmm_ref_gpu *gpu, struct iosys_map *mem,
		       struct hmm_ref_word *word)
{
	u64 new;

	spin_lock(&gpu->link_lock);
	load(mem, word);
	if (result(word, &new)) {
		ndelay(ROUND_TRIP_NS);
		store(mem, word, new);
	}
	spin_unlock(&gpu->link_lock);
}

/**
 * hmm_ref_gpu_atomic() - implementation of hmm_ref_hw_ops::atomic
 * @hw: hardware of a struct hmm_ref_gpu
 * @space: address space
 * @addr: address of the word
 * @word: operation
 *
 * Return: 0, -EFAULT, -EIO or -ENODEV.
 */
int hmm_ref_gpu_atomic(struct hmm_ref_hw *hw, struct hmm_ref_space *space,
		       unsigned long addr, struct hmm_ref_word *word)
{
	struct hmm_ref_gpu *gpu = hmm_ref_to_gpu(hw);
	struct target target;
	unsigned int nr = 1;
	hmm_ref_pte_t pte;
	int rc = -EFAULT;

	read_lock(&gpu->accesses);
	pte = hmm_ref_gpu_translate(gpu, space, addr, HMM_REF_GPU_ATOMIC, &nr);
	if (!pte)
		goto out;
	rc = -EIO;
	if (!map_target(gpu, pte, addr, DMA_BIDIRECTIONAL, &target))
		goto out;
	if (target.vram)
		atomic_vram(gpu, &target.mem, word);
	else
		atomic_sys(gpu, &target.mem, word);
	unmap_target(&target);
	rc = hmm_ref_gpu_is_lost(gpu) ? -ENODEV : 0;
out:
	read_unlock(&gpu->accesses);
	return rc;
}
EXPORT_SYMBOL_NS_GPL(hmm_ref_gpu_atomic, "HMM_REF");
