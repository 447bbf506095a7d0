/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The simulated GPU: its memory and its engines. What hardware would be.
 */
#ifndef _HMM_REF_GPU_H
#define _HMM_REF_GPU_H

#include <linux/types.h>

struct hmm_ref_buffer;
struct hmm_ref_hw;
struct hmm_ref_place;
struct hmm_ref_word;
struct iosys_map;

struct hmm_ref_hw *hmm_ref_gpu_create(int node, phys_addr_t coherent_base);
void hmm_ref_gpu_destroy(struct hmm_ref_hw *hw);

/* ---- lsu.c: loads and stores, of any device whose memory the CPU can map --- */

unsigned int hmm_ref_lsu_move(const struct iosys_map *vram, const struct hmm_ref_place *place,
			      const struct hmm_ref_buffer *buf, unsigned int len, bool write);
void hmm_ref_lsu_atomic(const struct iosys_map *vram, const struct hmm_ref_place *place,
			struct hmm_ref_word *word);

#endif /* _HMM_REF_GPU_H */
