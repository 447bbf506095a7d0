// SPDX-License-Identifier: GPL-2.0-only
/*
 * Loads, stores and atomics of the device: READ, WRITE and ATOMIC.
 *
 * The device accesses each page through its page table, without a lock of the
 * driver. The page that an entry maps stays until the access ends: a zap is
 * followed by a flush, which waits for it (range_map.c). If no entry allows the
 * access, the device faults and then retries.
 *
 * An access must not wait for a page fault on the user's buffer: a CPU fault
 * may migrate, and the flush would wait for the access. So the device moves
 * bytes with page faults disabled. Where the buffer is not present, it goes
 * through a bounce buffer.
 */
#include <linux/mm.h>
#include <linux/uio.h>

#include "hmm_ref.h"

/* ---- loads and stores -------------------------------------------------- */

/* Return: same as hmm_ref_hw_ops::move; -ENODEV if the device is gone. */
static int move(struct hmm_ref_mirror *mirror, unsigned long addr,
		struct iov_iter *iter, unsigned int len)
{
	struct hmm_ref_devmem *dm = mirror->dm;
	int section, rc;

	if (!hmm_ref_hw_enter(dm, &section))
		return -ENODEV;
	rc = dm->hw->ops->move(dm->hw, &mirror->space, addr, iter, len);
	if (rc == -ENODEV)
		hmm_ref_devmem_lose_all(dm);
	hmm_ref_hw_exit(dm, section);
	return rc;
}

/* State of a READ or WRITE command. */
struct access {
	struct hmm_ref_mirror *mirror;
	struct hmm_ref_range *range;	/* range of the current address */
	struct hmm_ref_transfer *transfer;
	void *bounce;
	unsigned long ahead;	/* most bytes that a fault maps */
	unsigned long began;	/* start of work on @range, in jiffies */
};

/*
 * Access bytes, faulting as often as the first page requires. Each fault also
 * maps the rest of the request, up to @access->ahead bytes. If that fails,
 * because a later page is bad or the range keeps changing, fault for one page
 * only, and map less ahead next time.
 *
 * Return: bytes done, 0 if the buffer is not present, or an errno.
 */
static int access_some(struct access *access, unsigned long addr,
		       struct iov_iter *iter, unsigned int len)
{
	bool write = iov_iter_rw(iter) == ITER_SOURCE;
	struct hmm_ref_transfer *transfer = access->transfer;
	struct hmm_ref_range *range = access->range;
	struct hmm_ref_mirror *mirror = range->mirror;
	unsigned long page = addr & PAGE_MASK;
	unsigned long began = jiffies;
	u64 served = 0;
	int fault_rc = 0;
	int rc;

	for (;;) {
		unsigned long end = min3(PAGE_ALIGN(transfer->end),
					 ALIGN(page + 1, PMD_SIZE),
					 page + access->ahead);
		bool alone;

		rc = move(mirror, addr, iter, len);
		if (rc != -EFAULT)
			return rc;
		rc = fault_rc ?: hmm_ref_mirror_insist(mirror, began,
						       HMM_REF_PATIENCE);
		if (rc)
			return rc;
		end = hmm_ref_range_before_exclusive(range, page + PAGE_SIZE,
						     end);
		alone = end - page == PAGE_SIZE;
		transfer->faults++;
		fault_rc = hmm_ref_range_fault(range, page, end, write,
					       alone ? HMM_REF_PATIENCE :
						       HMM_REF_PATIENCE / 10);
		if (!fault_rc)
			transfer->most = max(transfer->most, ++served);
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
 * Go through the bounce buffer, so that the user's buffer is faulted in while
 * no access is under way. Return: bytes done, or an errno.
 */
static int access_bounce(struct access *access, unsigned long addr,
			 unsigned int len)
{
	struct iov_iter *user = &access->transfer->iter;
	struct kvec kvec = { .iov_base = access->bounce, .iov_len = len };
	bool write = iov_iter_rw(user) == ITER_SOURCE;
	struct iov_iter iter;
	int done;

	if (write)
		len = copy_from_iter(access->bounce, len, user);
	if (!len)
		return -EFAULT;
	iov_iter_kvec(&iter, iov_iter_rw(user), &kvec, 1, len);
	done = access_some(access, addr, &iter, len);
	if (write && done < 0)
		iov_iter_revert(user, len);
	else if (!write && done > 0)
		done = copy_to_iter(access->bounce, done, user);
	return done ?: -EFAULT;
}

/*
 * Switch to the range of @addr. Any signal ends the command between two ranges,
 * and within a range once that has taken long.
 */
static int go_on(struct access *access, unsigned long addr)
{
	bool begins = !access->range;
	int rc;

	if (!begins && !IS_ALIGNED(addr, PMD_SIZE))
		return hmm_ref_mirror_insist(access->mirror, access->began,
					     MAX_JIFFY_OFFSET);
	rc = begins ? 0 : hmm_ref_mirror_interrupted(access->mirror);
	if (rc)
		return rc;
	if (!begins)
		hmm_ref_range_put(access->range);
	access->began = jiffies;
	access->range = hmm_ref_range_get(access->mirror, addr);
	return PTR_ERR_OR_ZERO(access->range);
}

/**
 * hmm_ref_client_access() - execute a READ or WRITE command
 * @client: client of the current process, or of an mm that the caller keeps
 *	alive
 * @transfer: bytes to move; the results are set, also on error
 *
 * Bytes go directly between the device and the buffer of the current process,
 * where that is present.
 *
 * Context: process context; takes mmap_lock.
 * Return: 0 or -errno.
 */
int hmm_ref_client_access(struct hmm_ref_client *client,
			  struct hmm_ref_transfer *transfer)
{
	struct hmm_ref_mirror *mirror = &client->mirror;
	unsigned long addr = transfer->addr;
	struct access access = {
		.mirror = mirror,
		.transfer = transfer,
		.ahead = PMD_SIZE,
	};
	int rc = 0;

	transfer->bytes = 0;
	transfer->faults = 0;
	transfer->most = 0;
	access.bounce = hmm_ref_mirror_get_buffer(mirror);
	if (!access.bounce)
		return -ENOMEM;
	while (addr < transfer->end) {
		unsigned int len =
			min(transfer->end, ALIGN(addr + 1, PMD_SIZE)) - addr;
		unsigned int in_page =
			min(len, PAGE_SIZE - offset_in_page(addr));
		int done = 0;

		rc = go_on(&access, addr);
		if (rc)
			break;
		/* A word is a single access; a direct copy may use bytes. */
		if (in_page > sizeof(u64))
			done = access_some(&access, addr, &transfer->iter, len);
		if (!done)
			done = access_bounce(&access, addr, in_page);
		if (done < 0) {
			rc = done;
			break;
		}
		transfer->bytes += done;
		addr += done;
	}
	if (!IS_ERR_OR_NULL(access.range))
		hmm_ref_range_put(access.range);
	hmm_ref_mirror_put_buffer(mirror, access.bounce);
	return rc;
}

/* ---- atomics ----------------------------------------------------------- */

/* Return: same as hmm_ref_hw_ops::atomic; -ENODEV if the device is gone. */
static int atomic(struct hmm_ref_mirror *mirror, unsigned long addr,
		  struct hmm_ref_word *word)
{
	struct hmm_ref_devmem *dm = mirror->dm;
	int section, rc;

	if (!hmm_ref_hw_enter(dm, &section))
		return -ENODEV;
	rc = dm->hw->ops->atomic(dm->hw, &mirror->space, addr, word);
	if (rc == -ENODEV)
		hmm_ref_devmem_lose_all(dm);
	hmm_ref_hw_exit(dm, section);
	return rc;
}

/* The device fault of an atomic operation. Return: 0 or -errno. */
static int ready_for_atomic(struct hmm_ref_range *range, unsigned long addr,
			    u64 *faults)
{
	unsigned long page = addr & PAGE_MASK;
	unsigned long end = page + PAGE_SIZE;
	int rc;

	rc = hmm_ref_range_check_exclusive(range, page, &end);
	if (rc)
		return rc;
	++*faults;
	return hmm_ref_range_make_ready(range, page);
}

/**
 * hmm_ref_client_atomic() - execute an ATOMIC command
 * @client: client of the current process, or of an mm that the caller keeps
 *	alive
 * @addr: address of the word, a multiple of its size
 * @word: operation and operands; the old value is set
 * @faults: set to the number of device faults, also on error
 *
 * Context: process context; takes mmap_lock and folio locks.
 * Return: 0 or -errno.
 */
int hmm_ref_client_atomic(struct hmm_ref_client *client, unsigned long addr,
			  struct hmm_ref_word *word, u64 *faults)
{
	struct hmm_ref_mirror *mirror = &client->mirror;
	struct hmm_ref_range *range = hmm_ref_range_get(mirror, addr);
	unsigned long began = jiffies;
	int rc;

	*faults = 0;
	if (IS_ERR(range))
		return PTR_ERR(range);
	for (;;) {
		rc = atomic(mirror, addr, word);
		if (rc != -EFAULT)
			break;
		rc = hmm_ref_mirror_insist(mirror, began, HMM_REF_PATIENCE);
		if (!rc)
			rc = ready_for_atomic(range, addr, faults);
		if (rc)
			break;
	}
	hmm_ref_range_put(range);
	return rc;
}
