// SPDX-License-Identifier: GPL-2.0-only
/*
 * Mirrors: ranges, their notifiers, and the protocol that keeps the device page
 * table in step with the CPU's. range_fault.c has the device fault.
 *
 * A mirror consists of ranges of one PMD each. Each range has its own notifier
 * and page table, so faults in different ranges run in parallel, and changes to
 * other mappings do not make them retry. The first operation that maps pages in
 * a range creates it; a range that has mapped nothing for a second is freed. An
 * operation that only inspects a PMD without a range uses a temporary one.
 *
 * Device mappings hold no page references. The protocol of struct
 * mmu_interval_notifier keeps them valid:
 *
 *   the core, before it changes     invalidate(): under range->lock, set the
 *   CPU mappings                    sequence and zap the device's mappings
 *   a device fault                  read the sequence; look at CPU mappings;
 *                                   fault in missing pages and look again; take
 *                                   range->lock; map only if the sequence is
 *                                   unchanged, else start again
 *
 * Invariant: while range->lock is held, every page in the device page table is
 * either mapped by the CPU page table, with at least the same rights, or
 * reserved for the device by an exclusive entry there (exclusive.c). The device
 * accesses these pages without the lock, so a zap ends with a flush, which
 * waits for such accesses (range_map.c).
 *
 * invalidate() ignores only one event (see own_exclusive()), and in particular
 * no event of our own migrations. So migrate_vma_setup() zaps the device's
 * mappings before data moves, in both directions, and a device fault waits for
 * the migration to end. Only the mirror that migrates could skip that event, by
 * checking its owner, and only if it zapped its mappings itself.
 *
 * Reclaim takes range->lock, so nothing is allocated under it. lockdep is told
 * about this when a range is created.
 */
#include <linux/sched/mm.h>
#include <linux/sched/signal.h>
#include <linux/slab.h>

#include "fail.h"
#include "mirror.h"
#include "sanity.h"
#include "trace.h"

/* Time without a mapping or an operation after which a range is freed. */
#define IDLE	HZ

static void watch_idle(struct hmm_ref_range *range)
{
	if (hmm_ref_pgtable_is_empty(&range->pt))
		queue_delayed_work(system_dfl_wq, &range->mirror->idle, IDLE);
}

/*
 * The event of make_device_exclusive() on behalf of this mirror. The page stays
 * where it is and the device gains rights, so its present mappings are valid.
 * The sequence must not change, or the mirror could never map the page.
 *
 * The same event of another mirror has another owner, and takes the page from
 * this one. Events that end exclusive access have no owner.
 */
static bool own_exclusive(const struct hmm_ref_mirror *mirror,
			  const struct mmu_notifier_range *event)
{
	return event->event == MMU_NOTIFY_EXCLUSIVE && event->owner == mirror;
}

static bool range_invalidate(struct mmu_interval_notifier *notifier,
			     const struct mmu_notifier_range *event,
			     unsigned long cur_seq)
{
	struct hmm_ref_range *range =
		container_of(notifier, struct hmm_ref_range, notifier);
	struct hmm_ref_mirror *mirror = range->mirror;

	if (own_exclusive(mirror, event))
		return true;
	if (mmu_notifier_range_blockable(event))
		mutex_lock(&range->lock);
	else if (!mutex_trylock(&range->lock))
		return false;
	/* The mm is dead, so no operation uses it. */
	if (event->event == MMU_NOTIFY_RELEASE)
		hmm_ref_verify_trimmed(range);
	mmu_interval_set_seq(notifier, cur_seq);
	hmm_ref_range_zap(range, max(event->start, range->start),
			  min(event->end, range->start + PMD_SIZE));
	trace_hmm_ref_invalidate(mirror, event, cur_seq);
	mutex_unlock(&range->lock);
	hmm_ref_count(mirror->counters, invalidations, 1);
	atomic_long_inc(&mirror->owner->invalidations);
	watch_idle(range);
	return true;
}

static const struct mmu_interval_notifier_ops range_notifier_ops = {
	.invalidate = range_invalidate,
};

/* ---- ranges ------------------------------------------------------------ */

/* Tell lockdep now that reclaim takes the lock. */
static void prime_lockdep(struct hmm_ref_range *range)
{
	if (!IS_ENABLED(CONFIG_LOCKDEP))
		return;
	fs_reclaim_acquire(GFP_KERNEL);
	mutex_lock(&range->lock);
	mutex_unlock(&range->lock);
	fs_reclaim_release(GFP_KERNEL);
}

/* Context: waits for running invalidations. The mm may be dead. */
static void range_end(struct hmm_ref_range *range)
{
	mmu_interval_notifier_remove(&range->notifier);
	hmm_ref_verify_trimmed(range);
	hmm_ref_range_unmap_all(range);
	kfree_rcu(range, rcu);
}

/* Return: 0 or a negative errno. */
static int range_init(struct hmm_ref_range *range,
		      struct hmm_ref_mirror *mirror, unsigned long index)
{
	*range = (struct hmm_ref_range){
		.mirror = mirror,
		.start = index << PMD_SHIFT,
		.used = jiffies,
		.users = ATOMIC_INIT(1),
	};
	mutex_init(&range->lock);
	prime_lockdep(range);
	return mmu_interval_notifier_insert(&range->notifier, mirror->mm,
					    range->start, PMD_SIZE,
					    &range_notifier_ops);
}

/* Return: 0; -ENOMEM; -EBUSY if another range is there, maybe being freed. */
static int range_add(struct hmm_ref_mirror *mirror, unsigned long index)
{
	struct hmm_ref_range *range = kmalloc_obj(*range, GFP_KERNEL_ACCOUNT);
	int rc;

	if (!range)
		return -ENOMEM;
	rc = range_init(range, mirror, index);
	if (rc) {
		kfree(range);
		return rc;
	}
	rc = xa_insert(&mirror->ranges, index, range, GFP_KERNEL_ACCOUNT);
	if (rc)
		range_end(range);
	return rc;
}

/*
 * Return: the first range from @index to @last that is not being freed, with a
 * reference, and @index set to it; or NULL.
 */
static struct hmm_ref_range *range_find(struct hmm_ref_mirror *mirror,
					unsigned long *index,
					unsigned long last)
{
	struct hmm_ref_range *range;

	rcu_read_lock();
	xa_for_each_range(&mirror->ranges, *index, range, *index, last) {
		if (atomic_inc_not_zero(&range->users))
			break;
	}
	rcu_read_unlock();
	return range;
}

/**
 * hmm_ref_range_get() - find or create the range of an address
 * @mirror: mirror of the current process, or of an mm that the caller keeps
 *	alive
 * @addr: address
 *
 * Context: may sleep and enter reclaim; mmap_lock is not held.
 * Return: the range, referenced, or an ERR_PTR(): -ENOMEM.
 */
struct hmm_ref_range *hmm_ref_range_get(struct hmm_ref_mirror *mirror,
					unsigned long addr)
{
	unsigned long index = addr >> PMD_SHIFT;
	struct hmm_ref_range *range;
	int rc;

	for (;;) {
		range = range_find(mirror, &index, index);
		if (range)
			return range;
		index = addr >> PMD_SHIFT;
		rc = range_add(mirror, index);
		if (rc && rc != -EBUSY)
			return ERR_PTR(rc);
		/* Let the task that frees the range run. */
		if (rc)
			schedule_timeout_uninterruptible(1);
	}
}

/**
 * hmm_ref_range_put() - drop a reference
 * @range: range
 */
void hmm_ref_range_put(struct hmm_ref_range *range)
{
	WRITE_ONCE(range->used, jiffies);
	watch_idle(range);
	atomic_dec(&range->users);
}

/**
 * hmm_ref_range_get_to_look() - get a range for an operation that maps nothing
 * @mirror: mirror of the current process, or of an mm that the caller keeps
 *	alive
 * @addr: address
 * @temporary: memory for a temporary range, used if the mirror has none there
 *
 * Context: may sleep; mmap_lock is not held.
 * Return: the range, for hmm_ref_range_put_to_look(), or an ERR_PTR().
 */
struct hmm_ref_range *hmm_ref_range_get_to_look(struct hmm_ref_mirror *mirror,
						unsigned long addr,
						struct hmm_ref_range *temporary)
{
	unsigned long index = addr >> PMD_SHIFT;
	struct hmm_ref_range *range = range_find(mirror, &index, index);
	int rc;

	if (range)
		return range;
	rc = range_init(temporary, mirror, addr >> PMD_SHIFT);
	return rc ? ERR_PTR(rc) : temporary;
}

/**
 * hmm_ref_range_put_to_look() - release a range after a look
 * @range: range
 * @temporary: the same memory
 *
 * Context: waits for running invalidations.
 */
void hmm_ref_range_put_to_look(struct hmm_ref_range *range,
			       struct hmm_ref_range *temporary)
{
	if (range == temporary)
		mmu_interval_notifier_remove(&range->notifier);
	else
		hmm_ref_range_put(range);
}

/**
 * hmm_ref_range_is_current() - test whether a range has all device mappings
 * @range: range of a look
 * @temporary: the same memory
 *
 * Return: false if @range is temporary and the mirror has a range there by now.
 */
bool hmm_ref_range_is_current(struct hmm_ref_range *range,
			      const struct hmm_ref_range *temporary)
{
	struct hmm_ref_range *other;
	bool alone;

	if (range != temporary)
		return true;
	rcu_read_lock();
	other = xa_load(&range->mirror->ranges, range->start >> PMD_SHIFT);
	alone = !other || !atomic_read(&other->users);
	rcu_read_unlock();
	return alone;
}

/*
 * Remove a range from its mirror, if it is empty and only the caller and the
 * mirror use it. Return: true if it was removed; no operation can find it any
 * more.
 */
static bool range_take(struct hmm_ref_range *range)
{
	struct hmm_ref_mirror *mirror = range->mirror;
	bool taken;

	/* Mapping a page needs the lock and a reference. */
	mutex_lock(&range->lock);
	taken = hmm_ref_pgtable_is_empty(&range->pt) &&
		atomic_cmpxchg(&range->users, 2, 0) == 2;
	mutex_unlock(&range->lock);
	if (taken)
		xa_erase(&mirror->ranges, range->start >> PMD_SHIFT);
	return taken;
}

/* Free idle ranges, and check again later if others map nothing. */
static void end_idle(struct work_struct *work)
{
	struct hmm_ref_mirror *mirror =
		container_of(work, struct hmm_ref_mirror, idle.work);
	struct hmm_ref_range *range;
	unsigned long index = 0;
	bool again = false;

	while ((range = range_find(mirror, &index, ULONG_MAX))) {
		bool idle = hmm_ref_pgtable_is_empty(&range->pt);

		if (idle &&
		    time_after(jiffies, READ_ONCE(range->used) + IDLE) &&
		    range_take(range)) {
			hmm_ref_slow(HMM_REF_SLOW_IDLE);
			range_end(range);
		} else {
			again |= idle;
			atomic_dec(&range->users);
		}
		index++;
		cond_resched();
	}
	if (again)
		queue_delayed_work(system_dfl_wq, &mirror->idle, IDLE);
}

/* ---- mirrors ----------------------------------------------------------- */

/*
 * The walk of the page table in memory, as hardware does it. RCU keeps the
 * range and its table.
 */
static hmm_ref_pte_t walk(struct hmm_ref_space *space, unsigned long addr,
			  unsigned int *nr)
{
	struct hmm_ref_mirror *mirror =
		container_of(space, struct hmm_ref_mirror, space);
	struct hmm_ref_range *range =
		xa_load(&mirror->ranges, addr >> PMD_SHIFT);

	return range ? hmm_ref_pgtable_lookup_run(&range->pt, addr, nr) : 0;
}

static bool ignore(struct mmu_interval_notifier *notifier,
		   const struct mmu_notifier_range *event,
		   unsigned long cur_seq)
{
	return true;
}

static const struct mmu_interval_notifier_ops anchor_ops = {
	.invalidate = ignore,
};

static void *alloc_buffer(void)
{
	static_assert(HMM_REF_BLOCK_PAGES * sizeof(unsigned long) >= PAGE_SIZE);
	return kvcalloc(HMM_REF_BLOCK_PAGES, sizeof(unsigned long),
			GFP_KERNEL_ACCOUNT);
}

static void free_buffers(struct hmm_ref_mirror *mirror)
{
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(mirror->spare); i++)
		kvfree(mirror->spare[i]);
}

/**
 * hmm_ref_mirror_init() - start to mirror an address space
 * @mirror: mirror to set up
 * @mm: mm of the current process
 * @dm: memory of the device
 * @counters: counters of the device
 * @owner: owner of the client, which outlives the mirror
 * @gone: flag of the device
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

	mirror->mm = mm;
	mirror->dm = dm;
	mirror->counters = counters;
	mirror->owner = owner;
	mirror->gone = gone;
	mirror->space.walk = walk;
	xa_init_flags(&mirror->ranges, XA_FLAGS_ACCOUNT);
	INIT_DELAYED_WORK(&mirror->idle, end_idle);
	for (i = 0; i < ARRAY_SIZE(mirror->spare); i++) {
		mirror->spare[i] = alloc_buffer();
		if (!mirror->spare[i])
			goto err_free;
	}
	rc = mmu_interval_notifier_insert(&mirror->anchor, mm, 0, PAGE_SIZE,
					  &anchor_ops);
	/*
	 * The core returns -EINTR for any pending signal, even for the fake one
	 * of the freezer, which user space must not see.
	 */
	if (rc == -EINTR)
		rc = -ERESTARTSYS;
	if (rc)
		goto err_free;
	return 0;

err_free:
	free_buffers(mirror);
	return rc;
}

/**
 * hmm_ref_mirror_exit() - stop mirroring
 * @mirror: mirror that no operation uses
 *
 * Context: waits for running invalidations. The mm may be dead.
 */
void hmm_ref_mirror_exit(struct hmm_ref_mirror *mirror)
{
	struct hmm_ref_range *range;
	unsigned long index;

	disable_delayed_work_sync(&mirror->idle);
	xa_for_each(&mirror->ranges, index, range) {
		xa_erase(&mirror->ranges, index);
		range_end(range);
	}
	mmu_interval_notifier_remove(&mirror->anchor);
	free_buffers(mirror);
}

/**
 * hmm_ref_mirror_zap_all() - unmap all memory of a mirror from the device
 * @mirror: mirror
 *
 * The sequence does not change, so a concurrent device fault may map pages
 * again. If there is none, the mirror does not use the device after this.
 *
 * Context: may sleep.
 */
void hmm_ref_mirror_zap_all(struct hmm_ref_mirror *mirror)
{
	struct hmm_ref_range *range;
	unsigned long index = 0;

	while ((range = range_find(mirror, &index, ULONG_MAX))) {
		hmm_ref_range_unmap_all(range);
		hmm_ref_range_put(range);
		index++;
	}
	/* The loop skips ranges being freed, which may hold DMA mappings. */
	cancel_delayed_work_sync(&mirror->idle);
}

/**
 * hmm_ref_mirror_interrupted() - decide whether to stop before the next window
 * @mirror: mirror
 *
 * Called between windows only, so that each call finishes at least one.
 * Reschedules.
 *
 * Return: 0; -EINTR for any signal, and for the freezer, which fakes one; or
 * -ENODEV if the device is gone.
 */
int hmm_ref_mirror_interrupted(struct hmm_ref_mirror *mirror)
{
	cond_resched();
	if (signal_pending(current))
		return -EINTR;
	return READ_ONCE(*mirror->gone) ? -ENODEV : 0;
}

/**
 * hmm_ref_mirror_insist() - decide whether to continue within a window
 * @mirror: mirror
 * @began: start of the work on this window or page, in jiffies
 * @patience: how long it may take, in jiffies
 *
 * A fatal signal ends the operation immediately. Any other signal ends it only
 * after HMM_REF_SIGNAL_PATIENCE: a process that receives signals faster than a
 * window takes must still make progress. Reschedules.
 *
 * Return: 0, -EINTR, -ENODEV, or -EBUSY when @patience is over.
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
 * hmm_ref_range_retry() - repeat an attempt until the range is stable
 * @range: range
 * @patience: how long to retry, in jiffies
 * @attempt: reads the sequence, looks, and acts under hmm_ref_range::lock if
 *	the sequence is unchanged; returns -EBUSY to be called again
 * @arg: argument of @attempt
 *
 * Device faults, snapshots and exclusive access all retry here; they differ in
 * @attempt.
 *
 * Context: that of @attempt, which is called at least once. Reschedules.
 * Return: the result of @attempt, or an errno of hmm_ref_mirror_insist().
 */
int hmm_ref_range_retry(struct hmm_ref_range *range, unsigned long patience,
			hmm_ref_attempt_t attempt, void *arg)
{
	unsigned long began = jiffies;
	int rc;

	do {
		rc = attempt(range, arg);
		if (rc != -EBUSY)
			return rc;
		rc = hmm_ref_mirror_insist(range->mirror, began, patience);
	} while (!rc);
	return rc;
}

/**
 * hmm_ref_mirror_get_buffer() - get scratch memory for one operation
 * @mirror: mirror
 *
 * A buffer holds a page of bytes, or a word for each page of a range, as
 * hmm_range_fault() needs. Buffers are not shared under a lock: an operation
 * may wait for user space while it has one, and the operation that it waits for
 * needs one, too.
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
 * hmm_ref_mirror_put_buffer() - release a buffer
 * @mirror: mirror that the buffer is from
 * @buffer: buffer
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
