// SPDX-License-Identifier: GPL-2.0-only
/*
 * Loads, stores and atomics. mock: real hardware has engines for these, a link that takes them to
 * system memory, and atomics in its memory controller. Here the CPU does all that.
 */
#include <linux/delay.h>
#include <linux/export.h>
#include <linux/highmem.h>
#include <linux/uio.h>

#include "gpu.h"

#define ROUND_TRIP_NS	1000	/* of a device access to system memory */

static struct iosys_map map_place(struct hmm_ref_hw *hw, const struct hmm_ref_place *place)
{
	struct hmm_ref_gpu *gpu = hmm_ref_to_gpu(hw);
	struct iosys_map mem;

	if (place->vram)
		mem = gpu->vram(gpu, place->number);
	else
		iosys_map_set_vaddr(&mem, kmap_local_pfn(place->number));
	iosys_map_incr(&mem, place->offset);
	return mem;
}

static void unmap_place(const struct iosys_map *mem, const struct hmm_ref_place *place)
{
	if (!place->vram)
		kunmap_local(mem->vaddr);
}

/* ---- loads and stores -------------------------------------------------- */

/* A word at its own multiple is one load or store, as it is for the CPU. */
#define move_word(mem, word_at, write, type)					\
	do {									\
		type *word = (word_at);						\
										\
		if (write)							\
			iosys_map_wr(mem, 0, type, *word);			\
		else								\
			*word = iosys_map_rd(mem, 0, type);			\
	} while (0)

static void move_bytes(struct iosys_map *mem, void *kernel, unsigned int len, bool write)
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

/* Stores to memory behind a bus, which has no atomic operations of its own. */
static DEFINE_SPINLOCK(bus_lock);

static void move_kernel(struct iosys_map *mem, void *kernel, unsigned int len, bool write)
{
	bool exclude = write && mem->is_iomem;

	if (exclude)
		spin_lock(&bus_lock);
	move_bytes(mem, kernel, len, write);
	if (exclude) {
		wmb(); /* the mapping may combine writes, and is not ordered by a lock */
		spin_unlock(&bus_lock);
	}
}

static unsigned int move_kvec(struct iosys_map *mem, struct iov_iter *iter, unsigned int len)
{
	const struct kvec *kvec = iter->kvec;

	move_kernel(mem, kvec->iov_base + iter->iov_offset, len, iov_iter_rw(iter) == ITER_SOURCE);
	iov_iter_advance(iter, len);
	return len;
}

/* A page of the user that is not present ends it. */
static unsigned int move_user(struct iosys_map *mem, struct iov_iter *iter, unsigned int len)
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

/**
 * hmm_ref_gpu_move() - hmm_ref_hw_ops::move
 * @hw: of a struct hmm_ref_gpu
 * @place: what the device loads from, or stores to
 * @iter: the other side: memory of the user, or of the kernel in one piece
 * @len: bytes
 *
 * Return: bytes moved.
 */
unsigned int hmm_ref_gpu_move(struct hmm_ref_hw *hw, const struct hmm_ref_place *place,
			      struct iov_iter *iter, unsigned int len)
{
	struct iosys_map mem = map_place(hw, place);

	len = iov_iter_is_kvec(iter) ? move_kvec(&mem, iter, len) : move_user(&mem, iter, len);
	unmap_place(&mem, place);
	return len;
}
EXPORT_SYMBOL_NS_GPL(hmm_ref_gpu_move, "HMM_REF");

/* ---- atomics ----------------------------------------------------------- */

/* What an operation makes of @word->old. Return: false when it stores nothing. */
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
	word->old = word->len == 4 ? iosys_map_rd(mem, 0, u32) : iosys_map_rd(mem, 0, u64);
}

static void store(struct iosys_map *mem, const struct hmm_ref_word *word, u64 new)
{
	if (word->len == 4)
		iosys_map_wr(mem, 0, u32, new);
	else
		iosys_map_wr(mem, 0, u64, new);
}

static bool store_if_unchanged(void *mem, const struct hmm_ref_word *word, u64 new)
{
	if (word->len == 4)
		return cmpxchg((u32 *)mem, (u32)word->old, (u32)new) == (u32)word->old;
	return cmpxchg((u64 *)mem, word->old, new) == word->old;
}

/* Atomic for all CPUs and devices, through any mirror. */
static void atomic_vram(struct iosys_map *mem, struct hmm_ref_word *word)
{
	u64 new;

	if (mem->is_iomem) {
		spin_lock(&bus_lock);
		load(mem, word);
		if (result(word, &new))
			store(mem, word, new);
		wmb(); /* as above */
		spin_unlock(&bus_lock);
		return;
	}
	do {
		load(mem, word);
	} while (result(word, &new) && !store_if_unchanged(mem->vaddr, word, new));
}

/* A link without atomics: a load, a round trip, a store. Only exclusive access makes it atomic. */
static void atomic_sys(struct iosys_map *mem, struct hmm_ref_word *word)
{
	u64 new;

	load(mem, word);
	if (!result(word, &new))
		return;
	ndelay(ROUND_TRIP_NS);
	store(mem, word, new);
}

/**
 * hmm_ref_gpu_atomic() - hmm_ref_hw_ops::atomic
 * @hw: of a struct hmm_ref_gpu
 * @place: where the word is
 * @word: what to do with it
 */
void hmm_ref_gpu_atomic(struct hmm_ref_hw *hw, const struct hmm_ref_place *place,
			struct hmm_ref_word *word)
{
	struct iosys_map mem = map_place(hw, place);

	if (place->vram)
		atomic_vram(&mem, word);
	else
		atomic_sys(&mem, word);
	unmap_place(&mem, place);
}
EXPORT_SYMBOL_NS_GPL(hmm_ref_gpu_atomic, "HMM_REF");
