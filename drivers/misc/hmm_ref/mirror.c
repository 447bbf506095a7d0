// SPDX-License-Identifier: GPL-2.0-only
/*
 * The device's view of a process: its ranges, the protocol, and the notifier. range_fault.c has
 * the other half, a device fault.
 *
 * A mirror is made of ranges, a PMD each, with a notifier and a part of the page table of its own.
 * So faults of different ranges run side by side, and a process that changes other mappings does
 * not make them retry. A range is made by the first operation that maps, and ends when it has
 * mapped nothing for a second. An operation that only looks where there is none has one of its own.
 *
 * Device mappings hold no page references. What keeps them right is the protocol
 * of struct mmu_interval_notifier:
 *
 *   the core, before it changes     invalidate(): under range->lock set the
 *   CPU mappings                    sequence and zap the device's
 *   a device fault                  read the sequence; look what the CPU maps;
 *                                   fault in what is missing and look again; take
 *                                   range->lock; map only if the sequence is
 *                                   still the same, else start again
 *
 * Invariant: while range->lock is held, what the device page table maps is what
 * the CPU page table maps, with no more rights, or what an exclusive entry there keeps
 * for the device (exclusive.c). The device accesses what an entry maps without the lock: a zap
 * ends with a flush, which waits for such accesses (range_map.c).
 *
 * invalidate() filters one event, see own_exclusive(), and not our own migrations:
 * migrate_vma_setup() thus zaps the device before data moves, in both directions,
 * and the device then faults and waits for the migration to end. To skip that event by
 * owner would be right only for the mirror that migrates, and only where it zaps by
 * itself.
 *
 * The lock is taken in reclaim. Nothing allocates under it; lockdep is told so when
 * a range is made rather than by luck.
 */
#include <linux/sched/mm.h>
#include <linux/sched/signal.h>
#include <linux/slab.h>

#include "fail.h"
#include "mirror.h"
#include "sanity.h"
#include "trace.h"

/* A range that maps nothing ends when no operation has used it for so long. */
#define IDLE	HZ

static void watch_idle(struct hmm_ref_range *range)
{
	if (hmm_ref_pgtable_is_empty(&range->pt))
		queue_delayed_work(system_dfl_wq, &range->mirror->idle, IDLE);
}

/*
 * The event by which make_device_exclusive() takes the CPU's entry away for this very
 * mirror. The page stays where it is and the device's rights grow, so what it maps
 * already is right. The sequence must stay, or the mirror could never map the page.
 *
 * Another mirror's event has another owner: this mirror is one of those that lose
 * the page. What ends exclusive access comes without an owner.
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
	/* The mm is dead: no operation uses it. */
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

/* Tell lockdep that reclaim takes the lock, before an allocation under it can. */
static void prime_lockdep(struct hmm_ref_range *range)
{
	if (!IS_ENABLED(CONFIG_LOCKDEP))
		return;
	fs_reclaim_acquire(GFP_KERNEL);
	mutex_lock(&range->lock);
	mutex_unlock(&range->lock);
	fs_reclaim_release(GFP_KERNEL);
}

/* Context: waits for invalidations under way. The mm may be dead. */
static void range_end(struct hmm_ref_range *range)
{
	mmu_interval_notifier_remove(&range->notifier);
	hmm_ref_verify_trimmed(range);
	hmm_ref_range_unmap_all(range);
	kfree_rcu(range, rcu);
}

/* Return: 0, or an errno of the core. */
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

/* Return: 0, -ENOMEM, or -EBUSY when another task was first, or one is about to go. */
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

/* Return: the next range from @index on that is not about to go, referenced; or NULL. */
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
 * hmm_ref_range_get() - the range of an address
 * @mirror: of the current process, or of an mm that the caller keeps alive
 * @addr: address
 *
 * Context: may sleep, and enter reclaim; without mmap_lock.
 * Return: the range, for hmm_ref_range_put(), or an ERR_PTR(): -ENOMEM.
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
		/* What is about to go needs a CPU for that. */
		if (rc)
			schedule_timeout_uninterruptible(1);
	}
}

/**
 * hmm_ref_range_put() - end the use of a range
 * @range: range
 */
void hmm_ref_range_put(struct hmm_ref_range *range)
{
	WRITE_ONCE(range->used, jiffies);
	watch_idle(range);
	atomic_dec(&range->users);
}

/**
 * hmm_ref_range_get_to_look() - a range for an address that nothing will be mapped at
 * @mirror: of the current process, or of an mm that the caller keeps alive
 * @addr: address
 * @temporary: memory for a range, if the mirror has none there: a look makes none that stays
 *
 * Context: may sleep; without mmap_lock.
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
 * hmm_ref_range_put_to_look() - end the use of such a range
 * @range: range
 * @temporary: the same memory
 *
 * Context: waits for invalidations under way.
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
 * hmm_ref_range_is_current() - whether a range has all that the device maps there
 * @range: range to look
 * @temporary: the same memory
 *
 * Return: false when the mirror has got a range since.
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
 * Take a range out of its mirror if nothing uses it but the caller. Return: whether that was done:
 * no operation finds it any more.
 */
static bool range_take(struct hmm_ref_range *range)
{
	struct hmm_ref_mirror *mirror = range->mirror;
	bool taken;

	/* To map something takes the lock, and to be a user. */
	mutex_lock(&range->lock);
	taken = hmm_ref_pgtable_is_empty(&range->pt) &&
		atomic_cmpxchg(&range->users, 2, 0) == 2;
	mutex_unlock(&range->lock);
	if (taken)
		xa_erase(&mirror->ranges, range->start >> PMD_SHIFT);
	return taken;
}

/* End ranges that have mapped nothing for long, and come again for those that do so now. */
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

/* What hardware would read in memory. The range stays for the RCU read-side critical section. */
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
	/* The core stops for any signal, and for the freezer's, which is none to a process. */
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
 * hmm_ref_mirror_exit() - stop to mirror
 * @mirror: that no operation uses any more
 *
 * Context: waits for invalidations under way. The mm may be dead.
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
 * hmm_ref_mirror_zap_all() - unmap everything from the device
 * @mirror: mirror
 *
 * No sequence is moved: a device fault that is under way may map pages again. Where there is none
 * the mirror does not use the device any more.
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
	/* A range that was about to end was not found, and has DMA to unmap. */
	cancel_delayed_work_sync(&mirror->idle);
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
 * hmm_ref_range_retry() - try until nothing has changed meanwhile
 * @range: range
 * @patience: how long it may take, in jiffies
 * @attempt: reads the sequence, looks, and acts under hmm_ref_range::lock if the sequence is
 *	the same; returns -EBUSY to be called again
 * @arg: for @attempt
 *
 * The one loop of this kind: device faults, snapshots and exclusive access differ in @attempt.
 *
 * Context: that of @attempt, which is called at least once. Reschedules.
 * Return: what @attempt has returned; -EBUSY when the patience is over, -EINTR or -ENODEV, as
 * hmm_ref_mirror_insist().
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
