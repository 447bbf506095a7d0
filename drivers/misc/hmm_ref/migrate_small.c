// SPDX-License-Identifier: GPL-2.0-only
/*
 * A CPU fault on a large folio for which no large page is to be had.
 *
 * Then the folio must be split, and drivers have no function for that. The steps of
 * migrate_vma split where nobody else has a reference to the folio; but the fault has
 * one. So a worker takes a reference to the mm and migrates the PMD as single pages,
 * while the fault returns and comes again until it finds these. The fault cannot wait for
 * the worker: it holds mmap_lock, and a writer may queue between the two. It lets go of
 * the lock if it may; who touches memory of another process by ptrace() may not, and then
 * goes on until there is no writer, or a signal.
 */
#include <linux/delay.h>
#include <linux/sched/mm.h>

#include "migrate.h"

/* How often the worker tries, at a millisecond each, before the fault asks again. */
#define WORK_TRIES	100

/* Migrate the PMD as single pages. Return: pages moved. */
static unsigned long move_small(struct hmm_ref_small *small, struct hmm_ref_devmem *dm)
{
	struct hmm_ref_move move = {};
	struct migrate_vma *args = &move.args;
	unsigned long moved = 0;

	mmap_read_lock(small->mm);
	args->vma = vma_lookup(small->mm, small->addr);
	if (args->vma) {
		args->start = small->addr;
		args->end = min(small->addr + PMD_SIZE, args->vma->vm_end);
		hmm_ref_to_system(dm, &move, &small->window, false, HMM_REF_BY_FAULT, &moved);
	}
	mmap_read_unlock(small->mm);
	return moved;
}

static void small_work(struct work_struct *work)
{
	struct hmm_ref_small *small = container_of(work, struct hmm_ref_small, work);
	struct hmm_ref_device *dev = container_of(small, struct hmm_ref_device, small);
	struct mm_struct *mm = small->mm;
	unsigned int tries = 0;
	unsigned long moved;

	/* The fault that comes again holds the folio's lock, but not all the time. */
	for (;;) {
		moved = move_small(small, &dev->dm);
		if (moved || ++tries == WORK_TRIES)
			break;
		fsleep(1000);
	}
	hmm_ref_count(dev->counters, fault_pages, moved);
	spin_lock(&small->lock);
	small->mm = NULL;
	spin_unlock(&small->lock);
	mmput(mm);
}

/**
 * hmm_ref_small_later() - have the worker migrate a PMD as single pages
 * @dev: device
 * @mm: that maps a large folio of the device there
 * @addr: start of the PMD
 *
 * Does nothing while the worker is busy: the fault asks again.
 *
 * Context: a CPU fault in @mm.
 */
void hmm_ref_small_later(struct hmm_ref_device *dev, struct mm_struct *mm,
			 unsigned long addr)
{
	struct hmm_ref_small *small = &dev->small;

	spin_lock(&small->lock);
	if (!small->mm && mmget_not_zero(mm)) {
		small->mm = mm;
		small->addr = addr;
		queue_work(system_dfl_wq, &small->work);
	}
	spin_unlock(&small->lock);
}

/**
 * hmm_ref_small_pending() - is the worker at it?
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
	pending = small->mm == mm && small->addr == addr;
	spin_unlock(&small->lock);
	return pending;
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
