// SPDX-License-Identifier: GPL-2.0-only
/*
 * The signalling section of the engine: lockdep objects if the engine does
 * anything that a task waiting for the fence may hold up.
 *
 * Covers: an engine that allocates memory, so that reclaim may wait for a fence
 * that waits for reclaim; an engine that takes a lock held by the task that
 * waits. A test rarely triggers either deadlock, but lockdep finds both on the
 * first try.
 *
 * The test uses the section of the real engine, which calls a function of the
 * test there. That function only reports an allocation or a lock to lockdep, so
 * the deadlock cannot happen.
 *
 * Lockdep turns itself off with its first report. The test silences the report
 * and turns lockdep on again. All other CPUs are stopped during that time:
 * otherwise lockdep would miss locks that they take and release, and would have
 * a wrong state for these locks from then on.
 */
#include <linux/debug_locks.h>
#include <linux/dma-fence.h>
#include <linux/mutex.h>
#include <linux/sched/mm.h>
#include <linux/smp.h>
#include <kunit/device.h>

#include "tests.h"
#include "../gpu/gpu.h"

#ifdef CONFIG_PROVE_LOCKING

static DEFINE_MUTEX(waiters_lock);
static DEFINE_MUTEX(engines_lock);

struct fence_case {
	const char *name;
	void (*step)(void);
	bool objects;
};

/**
 * struct fence_test - an engine and the step in its section
 * @gpu: GPU with the engine
 * @memory: a page, which is all memory of the GPU
 * @step: step that the engine takes next, or NULL
 * @met: the engine has taken the step, in its own task
 * @objects: lockdep has objected to the step
 */
struct fence_test {
	struct hmm_ref_gpu gpu;
	void *memory;
	void (*step)(void);
	bool met;
	bool objects;
};

/* ---- steps ------------------------------------------------------------- */

static void allocate(void)
{
	fs_reclaim_acquire(GFP_KERNEL);
	fs_reclaim_release(GFP_KERNEL);
}

static void allocate_without_reclaim(void)
{
	fs_reclaim_acquire(GFP_NOWAIT);
	fs_reclaim_release(GFP_NOWAIT);
}

static void take_waiters_lock(void)
{
	might_lock(&waiters_lock);
}

static void take_engines_lock(void)
{
	might_lock(&engines_lock);
}

static const struct fence_case fence_cases_section[] = {
	{ "allocates", allocate, true },
	{ "allocates_without_reclaim", allocate_without_reclaim, false },
	{ "takes_waiters_lock", take_waiters_lock, true },
	{ "takes_own_lock", take_engines_lock, false },
};

KUNIT_ARRAY_PARAM_DESC(fence_section, fence_cases_section, name);

/* ---- lockdep ----------------------------------------------------------- */

/* Shared with the other CPUs while they are stopped. */
struct standstill {
	atomic_t cpus;
	bool over;
};

static void stand_still(void *arg)
{
	struct standstill *standstill = arg;

	atomic_inc(&standstill->cpus);
	while (!READ_ONCE(standstill->over))
		cpu_relax();
	atomic_dec(&standstill->cpus);
}

/* Return: true if lockdep is on and objects to a step of this task. */
static bool lockdep_objects(void (*step)(void))
{
	struct standstill standstill = { .cpus = ATOMIC_INIT(0) };
	bool objects, was_on;

	preempt_disable();
	smp_call_function(stand_still, &standstill, false);
	while (atomic_read(&standstill.cpus) < num_online_cpus() - 1)
		cpu_relax();
	local_irq_disable();
	was_on = debug_locks;
	debug_locks_silent = 1;
	step();
	objects = was_on && !debug_locks;
	debug_locks = was_on;
	debug_locks_silent = 0;
	local_irq_enable();
	WRITE_ONCE(standstill.over, true);
	while (atomic_read(&standstill.cpus))
		cpu_relax();
	preempt_enable();
	return objects;
}

/* ---- the engine -------------------------------------------------------- */

static struct iosys_map fence_vram(struct hmm_ref_gpu *gpu, unsigned long dpfn)
{
	struct fence_test *priv = container_of(gpu, struct fence_test, gpu);

	return (struct iosys_map)IOSYS_MAP_INIT_VADDR(priv->memory);
}

/* Called each time the engine has copied a batch. */
static bool fence_is_present(struct hmm_ref_gpu *gpu)
{
	struct fence_test *priv = container_of(gpu, struct fence_test, gpu);

	if (priv->step && current->flags & PF_WQ_WORKER) {
		priv->met = true;
		priv->objects = lockdep_objects(priv->step);
	}
	return true;
}

static const struct hmm_ref_hw_ops fence_ops = {
	.submit = hmm_ref_gpu_submit,
	.help = hmm_ref_gpu_help,
	.reset = hmm_ref_gpu_reset,
};

/* A batch that clears the page. */
static void run_batch(struct kunit *test, struct fence_test *priv)
{
	struct hmm_ref_copy ring[1];
	struct dma_fence *fence;
	struct hmm_ref_job job;

	hmm_ref_job_begin(&job, NULL, ring, ARRAY_SIZE(ring));
	hmm_ref_job_copy(&job, HMM_REF_COPY_ZERO, 0, NULL, 1);
	fence = hmm_ref_gpu_submit(&priv->gpu.hw, &job);
	KUNIT_ASSERT_NOT_ERR_OR_NULL(test, fence);
	hmm_ref_gpu_help(&priv->gpu.hw, fence);
	KUNIT_EXPECT_EQ(test, dma_fence_wait(fence, false), 0);
	KUNIT_EXPECT_EQ(test, dma_fence_get_status(fence), 1);
	dma_fence_put(fence);
}

static int fence_init(struct kunit *test)
{
	struct fence_test *priv =
		kunit_kzalloc(test, sizeof(*priv), GFP_KERNEL);
	struct device *dev = kunit_device_register(test, "hmm_ref_fence");
	int rc;

	KUNIT_ASSERT_NOT_NULL(test, priv);
	KUNIT_ASSERT_NOT_ERR_OR_NULL(test, dev);
	priv->memory = kunit_kzalloc(test, PAGE_SIZE, GFP_KERNEL);
	KUNIT_ASSERT_NOT_NULL(test, priv->memory);
	priv->gpu.vram = fence_vram;
	priv->gpu.is_present = fence_is_present;
	rc = hmm_ref_gpu_init(&priv->gpu, &fence_ops, dev, NUMA_NO_NODE);
	KUNIT_ASSERT_EQ(test, rc, 0);
	test->priv = priv;
	return 0;
}

static void fence_exit(struct kunit *test)
{
	struct fence_test *priv = test->priv;

	if (priv)
		hmm_ref_gpu_exit(&priv->gpu);
}

/* ---- the case ---------------------------------------------------------- */

static void fence_section(struct kunit *test)
{
	const struct fence_case *c = test->param_value;
	struct fence_test *priv = test->priv;

	KUNIT_ASSERT_TRUE_MSG(test, debug_locks,
			      "lockdep has turned itself off");
	/* Teach lockdep that a waiting task may hold this lock. */
	mutex_lock(&waiters_lock);
	run_batch(test, priv);
	mutex_unlock(&waiters_lock);
	priv->step = c->step;
	run_batch(test, priv);
	if (!priv->met)
		kunit_skip(test,
			   "the engine leaves its work to the task that waits");
	KUNIT_EXPECT_EQ(test, priv->objects, c->objects);
	KUNIT_EXPECT_TRUE_MSG(test, debug_locks,
			      "lockdep has turned itself off");
}

static struct kunit_case fence_cases[] = {
	KUNIT_CASE_PARAM(fence_section, fence_section_gen_params),
	{}
};

struct kunit_suite hmm_ref_fence_suite = {
	.name = "hmm_ref_fence",
	.init = fence_init,
	.exit = fence_exit,
	.test_cases = fence_cases,
};

#else /* !CONFIG_PROVE_LOCKING */

static void fence_section(struct kunit *test)
{
	kunit_skip(test, "needs CONFIG_PROVE_LOCKING");
}

static struct kunit_case fence_cases[] = {
	KUNIT_CASE(fence_section),
	{}
};

struct kunit_suite hmm_ref_fence_suite = {
	.name = "hmm_ref_fence",
	.test_cases = fence_cases,
};

#endif
