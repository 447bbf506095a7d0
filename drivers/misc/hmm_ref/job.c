// SPDX-License-Identifier: GPL-2.0-only
/*
 * Batches of copies: what the core does around the device's ops. See hw.h.
 */
#include "devmem.h"
#include "fail.h"
#include "sanity.h"

/**
 * hmm_ref_job_submit() - have the device begin with what was added
 * @job: batch; nothing is added to it any more. How it went is what the wait says
 *
 * Context: as hmm_ref_hw_ops::submit.
 */
void hmm_ref_job_submit(struct hmm_ref_job *job)
{
	struct hmm_ref_hw *hw = job->dm->hw;

	if (!job->nr || job->rc)
		return;
	hmm_ref_verify_job(job);
	job->rc = hmm_ref_fail(HMM_REF_FAIL_QUEUE) ? -EAGAIN : hw->ops->submit(hw, job);
}

/**
 * hmm_ref_job_wait() - wait until a batch is complete
 * @job: batch that was submitted
 *
 * Context: as hmm_ref_hw_ops::wait.
 * Return: 0, or an errno of submit or wait: then no destination is valid.
 */
int hmm_ref_job_wait(struct hmm_ref_job *job)
{
	struct hmm_ref_hw *hw = job->dm->hw;
	int rc;

	if (!job->nr || job->rc)
		return job->rc;
	hmm_ref_verify_job(job);
	rc = hw->ops->wait(hw, job);
	hmm_ref_verify_job(job);
	return rc;
}
