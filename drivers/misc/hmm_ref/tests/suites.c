// SPDX-License-Identifier: GPL-2.0-only
/*
 * KUnit tests of the parts of hmm_ref that need no process, and of states that
 * no process can cause. They are a separate module, so that loading the driver
 * does not run them.
 *
 * Tests with a random sequence start from the parameter seed and print it. The
 * same seed and number of steps reproduce the sequence.
 */
#include <linux/module.h>

#include "tests.h"

static unsigned long long seed = 0x686d6d5f726566;
module_param(seed, ullong, 0444);
MODULE_PARM_DESC(seed,
		 "where random sequences start (a fixed number by default)");

static unsigned int steps = 3000;
module_param(steps, uint, 0444);
MODULE_PARM_DESC(steps, "length of random sequences (default 3000)");

/**
 * hmm_ref_test_start() - begin a random sequence
 * @test: test
 * @rnd: random state, set to the seed
 *
 * Return: number of steps to take.
 */
unsigned int hmm_ref_test_start(struct kunit *test, struct rnd_state *rnd)
{
	prandom_seed_state(rnd, seed);
	kunit_info(test,
		   "again with: hmm_ref_kunit.seed=%llu hmm_ref_kunit.steps=%u",
		   seed, steps);
	return steps;
}

kunit_test_suites(&hmm_ref_pgtable_suite, &hmm_ref_devmem_suite,
		  &hmm_ref_ioctl_suite, &hmm_ref_mirror_suite,
		  &hmm_ref_open_suite, &hmm_ref_fence_suite,
		  &hmm_ref_sleep_suite);

MODULE_DESCRIPTION("KUnit tests of hmm_ref");
MODULE_LICENSE("GPL");
MODULE_IMPORT_NS("EXPORTED_FOR_KUNIT_TESTING");
MODULE_IMPORT_NS("HMM_REF");
