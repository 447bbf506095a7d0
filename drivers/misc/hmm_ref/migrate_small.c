// SPDX-License-Identifier: GPL-2.0-only
/*
 * A CPU fault on a large folio for which the system has no large page.
 *
 * Then the folio must be split, and drivers have no function for that. The steps of
 * migrate_vma split where the folio has no other reference; but the fault has one. So a
 * worker takes a reference to the mm and migrates the PMD as single pages, while the fault
 * returns and comes again until it finds these. The fault cannot wait for the worker: it
 * holds mmap_lock, and a writer may queue between the two; and it holds the folio's lock
 * until it has returned. It lets go of mmap_lock if it may; an access to memory of another
 * process by ptrace() may not, and then goes on until there is no writer, or a signal.
 *
 * PMDs take turns. A fault waits while it is not the turn of its own: the worker needs no
 * lock that it holds.
 */
#include <linux/delay.h>
#include <linux/leafops.h>
#include <linux/sched/mm.h>
#include <linux/sched/signal.h>
#include <linux/slab.h>
#include <linux/wait.h>

#include "migrate.h"

/* How often the worker tries, at a millisecond each, before it is another PMD's turn. */
#define TURN_TRIES	10

/* Turns, before the fault has to ask again. */
#define WORK_TURNS	10

/**
 * struct request - a PMD that is to be migrated as single pages
 * @node: on hmm_ref_small::requests; the first one has its turn
 * @mm: referenced
 * @addr: start of the PMD
 * @turns: that it has had
 */
struct request {
	struct list_head node;
	struct mm_struct *mm;
	unsigned long addr;
	unsigned int turns;
};

/* Does the PMD still map a device page? With mmap_lock its table stays as long as the VMA. */
static bool maps_large(struct mm_struct *mm, unsigned long addr)
{
	pgd_t *pgd = pgd_offset(mm, addr);
	p4d_t *p4d;
	pud_t *pud;
	pmd_t pmd;

	if (pgd_none(*pgd))
		return false;
	p4d = p4d_offset(pgd, addr);
	if (p4d_none(*p4d))
		return false;
	pud = pud_offset(p4d, addr);
	if (pud_none(*pud) || pud_leaf(*pud))
		return false;
	pmd = pmdp_get_lockless(pmd_offset(pud, addr));
	return !pmd_none(pmd) && !pmd_present(pmd) &&
	       softleaf_is_device_private(softleaf_from_pmd(pmd));
}

/* Migrate the PMD as single pages. Return: false when others have it, or its mm, locked. */
static bool move_small(struct hmm_ref_small *small, struct hmm_ref_device *dev,
		       const struct request *request)
{
	struct hmm_ref_move move = {};
	struct migrate_vma *args = &move.args;
	unsigned long moved = 0;
	bool there = false;

	/* Others need not wait for a writer of this mm. */
	if (!mmap_read_trylock(request->mm))
		return false;
	args->vma = vma_lookup(request->mm, request->addr);
	if (args->vma)
		there = maps_large(request->mm, request->addr);
	if (there) {
		args->start = request->addr;
		args->end = min(request->addr + PMD_SIZE, args->vma->vm_end);
		hmm_ref_to_system(&dev->dm, &move, &small->window, false, HMM_REF_BY_FAULT,
				  &moved);
	}
	mmap_read_unlock(request->mm);
	hmm_ref_count(dev->counters, fault_pages, moved);
	return moved || !there;
}

/* The fault that comes again holds the folio's lock, but not all the time. */
static bool take_turn(struct hmm_ref_small *small, struct hmm_ref_device *dev,
		      const struct request *request)
{
	unsigned int tries = 0;

	while (!move_small(small, dev, request)) {
		if (++tries == TURN_TRIES)
			return false;
		fsleep(1000);
	}
	return true;
}

static struct request *first_request(struct hmm_ref_small *small)
{
	struct request *request;

	spin_lock(&small->lock);
	request = list_first_entry_or_null(&small->requests, struct request, node);
	spin_unlock(&small->lock);
	return request;
}

static void small_work(struct work_struct *work)
{
	struct hmm_ref_small *small = container_of(work, struct hmm_ref_small, work);
	struct hmm_ref_device *dev = container_of(small, struct hmm_ref_device, small);
	struct request *request;

	while ((request = first_request(small))) {
		bool done = take_turn(small, dev, request) || ++request->turns == WORK_TURNS;

		spin_lock(&small->lock);
		if (done)
			list_del(&request->node);
		else
			list_move_tail(&request->node, &small->requests);
		spin_unlock(&small->lock);
		wake_up_all(&small->turn);
		if (done) {
			mmput(request->mm);
			kfree(request);
		}
	}
}

static struct request *find_request(struct hmm_ref_small *small, struct mm_struct *mm,
				    unsigned long addr)
{
	struct request *request;

	lockdep_assert_held(&small->lock);
	list_for_each_entry(request, &small->requests, node)
		if (request->mm == mm && request->addr == addr)
			return request;
	return NULL;
}

/**
 * hmm_ref_small_later() - have the worker migrate a PMD as single pages
 * @dev: device
 * @mm: that maps a large folio of the device there
 * @addr: start of the PMD
 *
 * Does nothing where there is no memory to remember it: the fault asks again.
 *
 * Context: a CPU fault in @mm.
 */
void hmm_ref_small_later(struct hmm_ref_device *dev, struct mm_struct *mm,
			 unsigned long addr)
{
	struct request *request = kmalloc_obj(*request, GFP_KERNEL_ACCOUNT | __GFP_NOWARN);
	struct hmm_ref_small *small = &dev->small;

	if (!request)
		return;
	*request = (struct request){ .mm = mm, .addr = addr };
	spin_lock(&small->lock);
	if (!find_request(small, mm, addr) && mmget_not_zero(mm)) {
		list_add_tail(&request->node, &small->requests);
		queue_work(system_dfl_wq, &small->work);
		request = NULL;
	}
	spin_unlock(&small->lock);
	kfree(request);
}

/**
 * hmm_ref_small_pending() - has the worker been asked for a PMD?
 * @dev: device
 * @mm: that maps a large folio of the device there
 * @addr: start of the PMD
 *
 * Return: true while it is. The less a fault does meanwhile, the sooner it is done.
 */
bool hmm_ref_small_pending(struct hmm_ref_device *dev, struct mm_struct *mm,
			   unsigned long addr)
{
	struct hmm_ref_small *small = &dev->small;
	bool pending;

	spin_lock(&small->lock);
	pending = find_request(small, mm, addr);
	spin_unlock(&small->lock);
	return pending;
}

static bool is_others_turn(struct hmm_ref_small *small, struct mm_struct *mm,
			   unsigned long addr)
{
	struct request *request;
	bool is;

	spin_lock(&small->lock);
	request = find_request(small, mm, addr);
	is = request && !list_is_first(&request->node, &small->requests);
	spin_unlock(&small->lock);
	return is;
}

/**
 * hmm_ref_small_wait() - wait while it is the turn of other PMDs
 * @dev: device
 * @mm: that maps a large folio of the device there, and stays
 * @addr: start of the PMD
 *
 * Context: a CPU fault in @mm that has dropped mmap_lock; ends early when it is killed, and
 * after a moment, as there may be a large page by then.
 */
void hmm_ref_small_wait(struct hmm_ref_device *dev, struct mm_struct *mm,
			unsigned long addr)
{
	struct hmm_ref_small *small = &dev->small;

	wait_event_killable_timeout(small->turn, !is_others_turn(small, mm, addr), HZ / 10);
}

/**
 * hmm_ref_small_init() - set up the worker of a device
 * @dev: device
 *
 * Return: 0 or -ENOMEM.
 */
int hmm_ref_small_init(struct hmm_ref_device *dev)
{
	spin_lock_init(&dev->small.lock);
	INIT_LIST_HEAD(&dev->small.requests);
	init_waitqueue_head(&dev->small.turn);
	INIT_WORK(&dev->small.work, small_work);
	return hmm_ref_window_init(&dev->small.window);
}

/**
 * hmm_ref_small_exit() - stop the worker of a device
 * @dev: device without used pages
 *
 * Context: waits for it.
 */
void hmm_ref_small_exit(struct hmm_ref_device *dev)
{
	flush_work(&dev->small.work);
	hmm_ref_window_exit(&dev->small.window);
}
