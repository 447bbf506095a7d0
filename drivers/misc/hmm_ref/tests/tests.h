/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Shared by the suites: random numbers that can be reproduced.
 */
#ifndef _HMM_REF_TESTS_H
#define _HMM_REF_TESTS_H

#include <linux/prandom.h>
#include <kunit/test.h>

#include "../hmm_ref.h"

extern struct kunit_suite hmm_ref_devmem_suite;
extern struct kunit_suite hmm_ref_fence_suite;
extern struct kunit_suite hmm_ref_ioctl_suite;
extern struct kunit_suite hmm_ref_mirror_suite;
extern struct kunit_suite hmm_ref_open_suite;
extern struct kunit_suite hmm_ref_pgtable_suite;
extern struct kunit_suite hmm_ref_sleep_suite;

unsigned int hmm_ref_test_start(struct kunit *test, struct rnd_state *rnd);

/* Return: a number from 0 to @n - 1; @n is not 0. */
static inline unsigned long hmm_ref_test_below(struct rnd_state *rnd,
					       unsigned long n)
{
	return prandom_u32_state(rnd) % n;
}

#endif /* _HMM_REF_TESTS_H */
