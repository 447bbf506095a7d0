/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The simulated GPU: its memory and its copy engine. What hardware would be.
 */
#ifndef _HMM_REF_GPU_H
#define _HMM_REF_GPU_H

#include <linux/types.h>

struct hmm_ref_hw;

struct hmm_ref_hw *hmm_ref_gpu_create(int node, phys_addr_t coherent_base);
void hmm_ref_gpu_destroy(struct hmm_ref_hw *hw);

#endif /* _HMM_REF_GPU_H */
