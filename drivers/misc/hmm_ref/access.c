// SPDX-License-Identifier: GPL-2.0-only
/*
 * The device works on a process's memory: READ, WRITE and ATOMIC.
 *
 * mock: hardware has engines for that, and a link that takes them to memory.
 *
 * Each page is accessed through the device page table, under mirror->lock: what an entry
 * maps stays as long as that is held. Zapping on hardware waits for the accesses under
 * way, too. Where no entry allows the access the device faults, and tries again.
 *
 * Under mirror->lock the user's buffer must not fault: a CPU fault may migrate, which
 * takes the lock. So the copy is made with page faults disabled, and where the buffer is
 * not present it goes by way of hmm_ref_client::bounce.
 */
#include <linux/delay.h>
#include <linux/highmem.h>
#include <linux/iosys-map.h>
#include <linux/mm.h>
#include <linux/uaccess.h>

#include <uapi/hmm_ref.h>

#include "hmm_ref.h"

#define ROUND_TRIP_NS	1000	/* of a device access to system memory */

/* The byte at @addr, which an entry maps. mock: hardware would use its DMA address. */
static struct iosys_map map_byte(struct hmm_ref_mirror *mirror, hmm_ref_pte_t pte,
				 unsigned long addr)
{
	unsigned long number = hmm_ref_pte_number(pte);
	struct hmm_ref_hw *hw = mirror->dm->hw;
	struct iosys_map mem;

	lockdep_assert_held(&mirror->lock);
	if (pte & HMM_REF_PTE_DEVICE)
		mem = hw->ops->vram_map(hw, number);
	else
		iosys_map_set_vaddr(&mem, kmap_local_pfn(number));
	iosys_map_incr(&mem, offset_in_page(addr));
	return mem;
}

static void unmap_byte(hmm_ref_pte_t pte, const struct iosys_map *mem)
{
	if (!(pte & HMM_REF_PTE_DEVICE))
		kunmap_local(mem->vaddr);
}

/* ---- loads and stores -------------------------------------------------- */

/**
 * struct buffer - where the device's loads go and its stores come from
 * @user: memory of the current process
 * @bounce: kernel memory to be used instead; or NULL
 */
struct buffer {
	void __user *user;
	void *bounce;
};

/* A word at its own multiple is one load or store, as it is for the CPU. */
#define access_word(mem, bounce, write, type)					\
	do {									\
		type *word = (bounce);						\
										\
		if (write)							\
			iosys_map_wr(mem, 0, type, *word);			\
		else								\
			*word = iosys_map_rd(mem, 0, type);			\
	} while (0)

static void access_words(struct iosys_map *mem, void *bounce, unsigned int len, bool write)
{
	unsigned long addr = (unsigned long)mem->vaddr;

	if (len == 8 && IS_ALIGNED(addr, 8))
		access_word(mem, bounce, write, u64);
	else if (len == 4 && IS_ALIGNED(addr, 4))
		access_word(mem, bounce, write, u32);
	else if (len == 2 && IS_ALIGNED(addr, 2))
		access_word(mem, bounce, write, u16);
	else if (write)
		iosys_map_memcpy_to(mem, 0, bounce, len);
	else
		iosys_map_memcpy_from(bounce, mem, 0, len);
}

/* Stores to memory behind a bus, which has no atomic operations of its own. */
static DEFINE_SPINLOCK(bus_lock);

static void bounce_access(struct iosys_map *mem, void *bounce, unsigned int len, bool write)
{
	bool exclude = write && mem->is_iomem;

	if (exclude)
		spin_lock(&bus_lock);
	access_words(mem, bounce, len, write);
	if (exclude) {
		wmb(); /* the mapping may combine writes, and is not ordered by a lock */
		spin_unlock(&bus_lock);
	}
}

/*
 * A page fault on the user's side may end up here again, so it is not served but ends the
 * copy. Memory behind a bus goes by way of the bounce buffer. Return: bytes copied.
 */
static unsigned int access_mem(struct iosys_map *mem, const struct buffer *buf,
			       unsigned int len, bool write)
{
	unsigned long uncopied;

	if (buf->bounce) {
		bounce_access(mem, buf->bounce, len, write);
		return len;
	}
	if (mem->is_iomem)
		return 0;
	pagefault_disable();
	if (write)
		uncopied = __copy_from_user_inatomic(mem->vaddr, buf->user, len);
	else
		uncopied = __copy_to_user_inatomic(buf->user, mem->vaddr, len);
	pagefault_enable();
	return len - uncopied;
}

/* One READ or WRITE command on its way. */
struct access {
	struct hmm_ref_mirror *mirror;
	void *bounce;
	bool write;
	unsigned long end;	/* of the request */
	unsigned long ahead;	/* bytes that a fault maps at the most */
	unsigned long began;	/* with the window, in jiffies */
	u64 faults;
	u64 most;		/* faults served for one page, at the most */
};

/*
 * Access bytes of one page. Return: how many; 0 when the user's buffer is not present,
 * -EAGAIN for a device fault.
 */
static int try_access(struct hmm_ref_mirror *mirror, unsigned long addr,
		      const struct buffer *buf, unsigned int len, bool write)
{
	struct iosys_map mem;
	int rc = -EAGAIN;
	hmm_ref_pte_t pte;

	mutex_lock(&mirror->lock);
	pte = hmm_ref_pgtable_lookup(&mirror->pt, addr);
	if (pte & HMM_REF_PTE_VALID && (!write || pte & HMM_REF_PTE_WRITE)) {
		mem = map_byte(mirror, pte, addr);
		rc = access_mem(&mem, buf, len, write);
		unmap_byte(pte, &mem);
	}
	mutex_unlock(&mirror->lock);
	return rc;
}

/*
 * Access bytes of one page, with as many faults as it takes. A fault maps ahead:
 * what is left of the request, as far as @access->ahead. Where that does not work out,
 * because a page further on is bad or the range does not stay as it is, the page alone
 * has to do, and the next faults look less far. Return: bytes done, or an errno.
 */
static int access_page(struct access *access, unsigned long addr,
		       const struct buffer *buf, unsigned int len)
{
	struct hmm_ref_mirror *mirror = access->mirror;
	unsigned long page = addr & PAGE_MASK;
	unsigned long began = jiffies;
	u64 served = 0;
	int fault_rc = 0;
	int rc;

	for (;;) {
		unsigned long end = min3(PAGE_ALIGN(access->end),
					 ALIGN(page + 1, PMD_SIZE),
					 page + access->ahead);
		bool alone;

		rc = try_access(mirror, addr, buf, len, access->write);
		if (rc != -EAGAIN)
			return rc;
		rc = fault_rc ?: hmm_ref_mirror_insist(mirror, began,
						       HMM_REF_PATIENCE);
		if (rc)
			return rc;
		end = hmm_ref_mirror_before_exclusive(mirror, page + PAGE_SIZE, end);
		alone = end - page == PAGE_SIZE;
		access->faults++;
		fault_rc = hmm_ref_mirror_fault(mirror, page, end, access->write,
						alone ? HMM_REF_PATIENCE :
							HMM_REF_PATIENCE / 10);
		if (!fault_rc)
			access->most = max(access->most, ++served);
		if (fault_rc && !alone) {
			access->ahead = PAGE_SIZE;
			began = jiffies;
			fault_rc = 0;
		} else if (!fault_rc && access->ahead < PMD_SIZE) {
			access->ahead *= 2;
		}
	}
}

/*
 * The user's buffer is not present. Only without mirror->lock can it be made so: a CPU
 * fault there may migrate. Return: bytes done, or an errno.
 */
static int access_bounce(struct access *access, unsigned long addr, void __user *user,
			 unsigned int len)
{
	struct buffer buf = { .bounce = access->bounce };
	int done;

	if (access->write)
		len -= copy_from_user(buf.bounce, user, len);
	if (!len)
		return -EFAULT;
	done = access_page(access, addr, &buf, len);
	if (done > 0 && !access->write)
		done -= copy_to_user(user, buf.bounce, done);
	return done ?: -EFAULT;
}

/* Any signal ends the command between two windows, and after a long time between pages. */
static int may_go_on(struct access *access, unsigned long addr)
{
	if (!IS_ALIGNED(addr, PMD_SIZE))
		return hmm_ref_mirror_insist(access->mirror, access->began, MAX_JIFFY_OFFSET);
	access->began = jiffies;
	return hmm_ref_mirror_interrupted(access->mirror);
}

/**
 * hmm_ref_client_access() - the READ and WRITE commands
 * @client: open file of the current process, or of an mm that the caller keeps alive
 * @op: which of them
 * @cmd: validated; the outputs are set, also on error
 * @most: set to how many device faults the page that needed the most has needed; or NULL
 *
 * Bytes go between the device and the user's buffer, which is the current process's,
 * without a detour where the buffer is present.
 *
 * Context: process context; takes mmap_lock.
 * Return: 0 or -errno.
 */
int hmm_ref_client_access(struct hmm_ref_client *client, enum hmm_ref_access_op op,
			  struct hmm_ref_access *cmd, u64 *most)
{
	struct hmm_ref_mirror *mirror = &client->mirror;
	void __user *user = u64_to_user_ptr(cmd->buf);
	struct access access = {
		.mirror = mirror,
		.bounce = client->bounce,
		.write = op == HMM_REF_STORE,
		.end = cmd->addr + cmd->length,
		.ahead = PMD_SIZE,
		.began = jiffies,
	};
	int rc;

	cmd->out_bytes = 0;
	cmd->out_faults = 0;
	if (!access_ok(user, cmd->length))
		return -EFAULT;
	rc = hmm_ref_mirror_begin(mirror);
	if (rc)
		return rc;
	while (!rc && cmd->out_bytes < cmd->length) {
		unsigned long addr = cmd->addr + cmd->out_bytes;
		struct buffer buf = { .user = user + cmd->out_bytes };
		unsigned int len = min(access.end - addr,
				       PAGE_SIZE - offset_in_page(addr));
		int done = 0;

		/* A word is one load or store; a copy to or from the user may go by bytes. */
		if (len > sizeof(u64))
			done = access_page(&access, addr, &buf, len);
		if (!done)
			done = access_bounce(&access, addr, buf.user, len);
		if (done < 0)
			rc = done;
		else
			cmd->out_bytes += done;
		if (!rc && cmd->out_bytes < cmd->length)
			rc = may_go_on(&access, cmd->addr + cmd->out_bytes);
	}
	cmd->out_faults = access.faults;
	if (most)
		*most = access.most;
	mutex_unlock(&mirror->access_lock);
	return rc;
}

/* ---- atomics ----------------------------------------------------------- */

/* What an operation makes of @old. Return: false when it stores nothing. */
static bool atomic_result(const struct hmm_ref_atomic *cmd, u64 old, u64 *new)
{
	switch (cmd->op) {
	case HMM_REF_ATOMIC_ADD:
		*new = old + cmd->operand;
		return true;
	case HMM_REF_ATOMIC_EXCHANGE:
		*new = cmd->operand;
		return true;
	default:
		*new = cmd->operand;
		return old == cmd->compare;
	}
}

static u64 load(struct iosys_map *mem, unsigned int len)
{
	return len == 4 ? iosys_map_rd(mem, 0, u32) : iosys_map_rd(mem, 0, u64);
}

static void store(struct iosys_map *mem, unsigned int len, u64 new)
{
	if (len == 4)
		iosys_map_wr(mem, 0, u32, new);
	else
		iosys_map_wr(mem, 0, u64, new);
}

static bool store_if_unchanged(void *mem, unsigned int len, u64 old, u64 new)
{
	if (len == 4)
		return cmpxchg((u32 *)mem, (u32)old, (u32)new) == (u32)old;
	return cmpxchg((u64 *)mem, old, new) == old;
}

/*
 * Atomic for all CPUs and devices, through any mirror. mock: real hardware has atomics in its
 * memory controller
 */
static void atomic_dev(struct iosys_map *mem, struct hmm_ref_atomic *cmd)
{
	u64 new;

	if (mem->is_iomem) {
		spin_lock(&bus_lock);
		cmd->out_old = load(mem, cmd->length);
		if (atomic_result(cmd, cmd->out_old, &new))
			store(mem, cmd->length, new);
		wmb(); /* as above */
		spin_unlock(&bus_lock);
		return;
	}
	do {
		cmd->out_old = load(mem, cmd->length);
	} while (atomic_result(cmd, cmd->out_old, &new) &&
		 !store_if_unchanged(mem->vaddr, cmd->length, cmd->out_old, new));
}

/* Nothing but the exclusive access makes it atomic. */
static void atomic_sys(struct iosys_map *mem, struct hmm_ref_atomic *cmd)
{
	u64 new;

	/* mock: a link without atomics: a load, a round trip, a store */
	cmd->out_old = load(mem, cmd->length);
	if (!atomic_result(cmd, cmd->out_old, &new))
		return;
	ndelay(ROUND_TRIP_NS);
	store(mem, cmd->length, new);
}

/* Return: false when the device has to fault first. */
static bool try_atomic(struct hmm_ref_mirror *mirror, struct hmm_ref_atomic *cmd)
{
	struct iosys_map mem;
	hmm_ref_pte_t pte;
	bool ready;

	mutex_lock(&mirror->lock);
	pte = hmm_ref_pgtable_lookup(&mirror->pt, cmd->addr);
	ready = hmm_ref_pte_allows_atomics(pte);
	if (ready) {
		mem = map_byte(mirror, pte, cmd->addr);
		if (pte & HMM_REF_PTE_DEVICE)
			atomic_dev(&mem, cmd);
		else
			atomic_sys(&mem, cmd);
		unmap_byte(pte, &mem);
	}
	mutex_unlock(&mirror->lock);
	return ready;
}

/* A device fault of an atomic operation. Return: 0 or -errno. */
static int ready_for_atomic(struct hmm_ref_mirror *mirror, struct hmm_ref_atomic *cmd)
{
	unsigned long page = cmd->addr & PAGE_MASK;
	unsigned long end = page + PAGE_SIZE;
	int rc;

	rc = hmm_ref_mirror_check_exclusive(mirror, page, &end);
	if (rc)
		return rc;
	cmd->out_faults++;
	return hmm_ref_mirror_make_ready(mirror, page);
}

/**
 * hmm_ref_client_atomic() - the ATOMIC command
 * @client: open file of the current process, or of an mm that the caller keeps alive
 * @cmd: validated; the outputs are set, also on error
 *
 * Context: process context; takes mmap_lock and folio locks.
 * Return: 0 or -errno.
 */
int hmm_ref_client_atomic(struct hmm_ref_client *client, struct hmm_ref_atomic *cmd)
{
	struct hmm_ref_mirror *mirror = &client->mirror;
	unsigned long began;
	int rc;

	cmd->out_old = 0;
	cmd->out_faults = 0;
	rc = hmm_ref_mirror_begin(mirror);
	if (rc)
		return rc;
	began = jiffies;
	while (!try_atomic(mirror, cmd)) {
		rc = hmm_ref_mirror_insist(mirror, began, HMM_REF_PATIENCE);
		if (!rc)
			rc = ready_for_atomic(mirror, cmd);
		if (rc)
			break;
	}
	mutex_unlock(&mirror->access_lock);
	return rc;
}
