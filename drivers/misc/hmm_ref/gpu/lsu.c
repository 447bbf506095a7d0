// SPDX-License-Identifier: GPL-2.0-only
/*
 * mock: real hardware has engines that load and store, a link that takes them to system memory,
 * and atomics in its memory controller. Here the CPU does that for all devices, the ones with a
 * bus of their own, too: their ops tell where the memory is.
 */
#include <linux/delay.h>
#include <linux/export.h>
#include <linux/highmem.h>
#include <linux/iosys-map.h>
#include <linux/uaccess.h>

#include "gpu.h"
#include "../hw.h"

#define ROUND_TRIP_NS	1000	/* of a device access to system memory */

static struct iosys_map map_place(const struct iosys_map *vram,
				  const struct hmm_ref_place *place)
{
	struct iosys_map mem;

	if (place->vram)
		mem = *vram;
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

/* Return: bytes that were moved before a page of the user was not present. */
static unsigned int move_user(struct iosys_map *mem, void __user *user, unsigned int len,
			      bool write)
{
	unsigned long unmoved;

	if (mem->is_iomem)
		return 0;
	pagefault_disable();
	if (write)
		unmoved = __copy_from_user_inatomic(mem->vaddr, user, len);
	else
		unmoved = __copy_to_user_inatomic(user, mem->vaddr, len);
	pagefault_enable();
	return len - unmoved;
}

/**
 * hmm_ref_lsu_move() - hmm_ref_hw_ops::move for memory that the CPU can map
 * @vram: the page of the device's memory, if @place is in it
 * @place: what the device loads from, or stores to
 * @buf: the other side
 * @len: bytes
 * @write: store
 *
 * Return: bytes moved.
 */
unsigned int hmm_ref_lsu_move(const struct iosys_map *vram, const struct hmm_ref_place *place,
			      const struct hmm_ref_buffer *buf, unsigned int len, bool write)
{
	struct iosys_map mem = map_place(vram, place);

	if (buf->kernel)
		move_kernel(&mem, buf->kernel, len, write);
	else
		len = move_user(&mem, buf->user, len, write);
	unmap_place(&mem, place);
	return len;
}
EXPORT_SYMBOL_NS_GPL(hmm_ref_lsu_move, "HMM_REF");

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
 * hmm_ref_lsu_atomic() - hmm_ref_hw_ops::atomic for memory that the CPU can map
 * @vram: the page of the device's memory, if @place is in it
 * @place: where the word is
 * @word: what to do with it
 */
void hmm_ref_lsu_atomic(const struct iosys_map *vram, const struct hmm_ref_place *place,
			struct hmm_ref_word *word)
{
	struct iosys_map mem = map_place(vram, place);

	if (place->vram)
		atomic_vram(&mem, word);
	else
		atomic_sys(&mem, word);
	unmap_place(&mem, place);
}
EXPORT_SYMBOL_NS_GPL(hmm_ref_lsu_atomic, "HMM_REF");
