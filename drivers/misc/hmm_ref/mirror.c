// SPDX-License-Identifier: GPL-2.0-only
/*
 * The device's view of a process: the protocol, and the notifier. range_fault.c has the other
 * half, a device fault.
 *
 * Device mappings hold no page references. What keeps them right is the protocol
 * of struct mmu_interval_notifier:
 *
 *   the core, before it changes     invalidate(): under mirror->lock set the
 *   CPU mappings                    sequence and zap the device's
 *   a device fault                  read the sequence; look what the CPU maps;
 *                                   fault in what is missing and look again; take
 *                                   mirror->lock; map only if the sequence is
 *                                   still the same, else start again
 *
 * Invariant: while mirror->lock is held, what the device page table maps is what
 * the CPU page table maps, with no more rights, or what an exclusive entry there keeps
 * for the device (exclusive.c). Who uses an entry (access.c) holds the lock meanwhile.
 *
 * invalidate() filters one event, see own_exclusive(), and not our own migrations:
 * migrate_vma_setup() thus zaps the device before data moves, in both directions,
 * and the device then faults and waits for the migration to end. To skip that event by
 * owner would be right only for the mirror that migrates, and only where it zaps by
 * itself.
 *
 * The lock is taken in reclaim. Nothing allocates under it; lockdep is told so when
 * a mirror is made rather than by luck.
 */
#include <linux/sched/mm.h>
#include <linux/sched/signal.h>
#include <linux/slab.h>

#include "fail.h"
#include "mirror.h"
#include "sanity.h"
#include "trace.h"

/*
 * The event by which make_device_exclusive() takes the CPU's entry away for this very
 * mirror. The page stays where it is and the device's rights grow, so what it maps
 * already is right. The sequence must stay, or the mirror could never map the page.
 *
 * Another mirror's event has another owner: this mirror is one of those that lose
 * the page. What ends exclusive access comes without an owner.
 */
static bool own_exclusive(const struct hmm_ref_mirror *mirror,
			  const struct mmu_notifier_range *range)
{
	return range->event == MMU_NOTIFY_EXCLUSIVE && range->owner == mirror;
}

static bool mirror_invalidate(struct mmu_interval_notifier *notifier,
			      const struct mmu_notifier_range *range,
			      unsigned long cur_seq)
{
	struct hmm_ref_mirror *mirror = container_of(notifier, struct hmm_ref_mirror,
						     notifier);

	if (own_exclusive(mirror, range))
		return true;
	if (mmu_notifier_range_blockable(range))
		mutex_lock(&mirror->lock);
	else if (!mutex_trylock(&mirror->lock))
		return false;
	/* The mm is dead: no operation uses it. */
	if (range->event == MMU_NOTIFY_RELEASE)
		hmm_ref_verify_trimmed(mirror);
	mmu_interval_set_seq(notifier, cur_seq);
	hmm_ref_pgtable_zap(&mirror->pt, range->start, range->end);
	trace_hmm_ref_invalidate(mirror, range, cur_seq);
	mutex_unlock(&mirror->lock);
	hmm_ref_count(mirror->counters, invalidations, 1);
	atomic_long_inc(&mirror->owner->invalidations);
	return true;
}

static const struct mmu_interval_notifier_ops mirror_notifier_ops = {
	.invalidate = mirror_invalidate,
};

/* Tell lockdep that reclaim takes the lock, before an allocation under it can. */
static void mirror_prime_lockdep(struct hmm_ref_mirror *mirror)
{
	if (!IS_ENABLED(CONFIG_LOCKDEP))
		return;
	fs_reclaim_acquire(GFP_KERNEL);
	mutex_lock(&mirror->lock);
	mutex_unlock(&mirror->lock);
	fs_reclaim_release(GFP_KERNEL);
}

static void *alloc_buffer(void)
{
	static_assert(HMM_REF_BLOCK_PAGES * sizeof(unsigned long) >= PAGE_SIZE);
	return kvcalloc(HMM_REF_BLOCK_PAGES, sizeof(unsigned long), GFP_KERNEL_ACCOUNT);
}

static void free_buffers(struct hmm_ref_mirror *mirror)
{
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(mirror->spare); i++)
		kvfree(mirror->spare[i]);
}

/**
 * hmm_ref_mirror_init() - start to mirror an address space
 * @mirror: to set up
 * @mm: of the current process
 * @dm: memory of the device
 * @counters: of the device
 * @owner: counts for the client; stays as long as the mirror
 * @gone: the device's flag
 *
 * Context: takes mmap_lock for writing.
 * Return: 0 or a negative errno.
 */
int hmm_ref_mirror_init(struct hmm_ref_mirror *mirror, struct mm_struct *mm,
			struct hmm_ref_devmem *dm,
			struct hmm_ref_counters __percpu *counters,
			struct hmm_ref_owner *owner, const bool *gone)
{
	unsigned int i;
	int rc = -ENOMEM;

	mirror->dm = dm;
	mirror->counters = counters;
	mirror->owner = owner;
	mirror->gone = gone;
	mutex_init(&mirror->lock);
	hmm_ref_pgtable_init(&mirror->pt);
	mirror_prime_lockdep(mirror);

	for (i = 0; i < ARRAY_SIZE(mirror->spare); i++) {
		mirror->spare[i] = alloc_buffer();
		if (!mirror->spare[i])
			goto err_free;
	}
	rc = mmu_interval_notifier_insert(&mirror->notifier, mm, 0,
					  ULONG_MAX & PAGE_MASK,
					  &mirror_notifier_ops);
	/* The core stops for any signal, and for the freezer's, which is none to a process. */
	if (rc == -EINTR)
		rc = -ERESTARTSYS;
	if (rc)
		goto err_free;
	return 0;

err_free:
	free_buffers(mirror);
	hmm_ref_pgtable_destroy(&mirror->pt);
	return rc;
}

/**
 * hmm_ref_mirror_exit() - stop to mirror
 * @mirror: that no operation uses any more
 *
 * Context: waits for invalidations under way. The mm may be dead.
 */
void hmm_ref_mirror_exit(struct hmm_ref_mirror *mirror)
{
	mmu_interval_notifier_remove(&mirror->notifier);
	hmm_ref_verify_trimmed(mirror);
	hmm_ref_pgtable_destroy(&mirror->pt);
	free_buffers(mirror);
}

/**
 * hmm_ref_mirror_zap_all() - unmap everything from the device
 * @mirror: mirror that no operation uses any more, as no sequence is moved
 */
void hmm_ref_mirror_zap_all(struct hmm_ref_mirror *mirror)
{
	mutex_lock(&mirror->lock);
	hmm_ref_pgtable_zap(&mirror->pt, 0, ULONG_MAX);
	mutex_unlock(&mirror->lock);
}

/**
 * hmm_ref_mirror_interrupted() - has an operation to end between two windows?
 * @mirror: mirror
 *
 * Asked after a window, if there is another one, so that each call does one. Reschedules.
 *
 * Return: 0; -EINTR for any signal, and for the freezer, which pretends to send one;
 * -ENODEV when the device is gone.
 */
int hmm_ref_mirror_interrupted(struct hmm_ref_mirror *mirror)
{
	cond_resched();
	if (signal_pending(current))
		return -EINTR;
	return READ_ONCE(*mirror->gone) ? -ENODEV : 0;
}

/**
 * hmm_ref_mirror_insist() - may an operation go on within a window?
 * @mirror: mirror
 * @began: when the operation began with what it goes on with, in jiffies
 * @patience: how long it may take, in jiffies
 *
 * A fatal signal ends the operation at once. Any other one ends it only after
 * HMM_REF_SIGNAL_PATIENCE: signals that come faster than a window can be done must not
 * keep a process from getting any done. Reschedules.
 *
 * Return: 0, -EINTR, -ENODEV, or -EBUSY when the patience is over.
 */
int hmm_ref_mirror_insist(struct hmm_ref_mirror *mirror, unsigned long began,
			  unsigned long patience)
{
	cond_resched();
	if (fatal_signal_pending(current))
		return -EINTR;
	if (signal_pending(current) &&
	    time_after_eq(jiffies, began + HMM_REF_SIGNAL_PATIENCE))
		return -EINTR;
	if (READ_ONCE(*mirror->gone))
		return -ENODEV;
	return time_after_eq(jiffies, began + patience) ? -EBUSY : 0;
}

/**
 * hmm_ref_mirror_retry() - try until nothing has changed meanwhile
 * @mirror: mirror
 * @patience: how long it may take, in jiffies
 * @attempt: reads the sequence, looks, and acts under hmm_ref_mirror::lock if the sequence is
 *	the same; returns -EBUSY to be called again
 * @arg: for @attempt
 *
 * The one loop of this kind: device faults, snapshots and exclusive access differ in @attempt.
 *
 * Context: that of @attempt, which is called at least once. Reschedules.
 * Return: what @attempt has returned; -EBUSY when the patience is over, -EINTR or -ENODEV, as
 * hmm_ref_mirror_insist().
 */
int hmm_ref_mirror_retry(struct hmm_ref_mirror *mirror, unsigned long patience,
			 hmm_ref_attempt_t attempt, void *arg)
{
	unsigned long began = jiffies;
	int rc;

	do {
		rc = attempt(mirror, arg);
		if (rc != -EBUSY)
			return rc;
		rc = hmm_ref_mirror_insist(mirror, began, patience);
	} while (!rc);
	return rc;
}

/**
 * hmm_ref_mirror_get_buffer() - memory for one operation
 * @mirror: mirror
 *
 * As many bytes as a page has, and as many words as a window has pages: for hmm_range_fault()'s
 * array, or for bytes of a user. An operation that waits for user space keeps its buffer and no
 * lock, so that others go on: the one that it waits for may be the next.
 *
 * Return: the buffer, or NULL.
 */
void *hmm_ref_mirror_get_buffer(struct hmm_ref_mirror *mirror)
{
	unsigned int i;
	void *buffer;

	for (i = 0; i < ARRAY_SIZE(mirror->spare); i++) {
		buffer = xchg(&mirror->spare[i], NULL);
		if (buffer)
			return buffer;
	}
	return alloc_buffer();
}

/**
 * hmm_ref_mirror_put_buffer() - give back a buffer
 * @mirror: the same
 * @buffer: not to be used any more
 */
void hmm_ref_mirror_put_buffer(struct hmm_ref_mirror *mirror, void *buffer)
{
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(mirror->spare); i++) {
		if (!cmpxchg(&mirror->spare[i], NULL, buffer))
			return;
	}
	kvfree(buffer);
}
