/* SPDX-License-Identifier: GPL-2.0-only */
/* Run-time checks of the driver's invariants. */
#ifndef _HMM_REF_SANITY_H
#define _HMM_REF_SANITY_H

#include <linux/dma-direction.h>
#include <linux/types.h>

struct folio;
struct hmm_ref_block;
struct hmm_ref_chunk;
struct hmm_ref_devmem;
struct hmm_ref_hw;
struct hmm_ref_job;
struct hmm_ref_range;

#ifdef CONFIG_HMM_REF_SANITY
void hmm_ref_verify_idle(const struct hmm_ref_block *block, unsigned int bit,
			 unsigned int nr);
void hmm_ref_verify_handed_out(const struct hmm_ref_chunk *chunk,
			       struct folio *folio);
void hmm_ref_verify_last_put(struct folio *folio);
void hmm_ref_verify_block(const struct hmm_ref_block *block);
void hmm_ref_verify_chunk(const struct hmm_ref_chunk *chunk);
void hmm_ref_verify_promise(const struct hmm_ref_devmem *dm);
void hmm_ref_verify_mapped(struct hmm_ref_range *range, unsigned long start,
			   unsigned long end);
void hmm_ref_verify_job(const struct hmm_ref_job *job);
void hmm_ref_verify_trimmed(struct hmm_ref_range *range);
int hmm_ref_note_mapping(struct hmm_ref_hw *hw, dma_addr_t addr,
			 unsigned int nr, enum dma_data_direction direction);
void hmm_ref_forget_mapping(struct hmm_ref_hw *hw, dma_addr_t addr,
			    unsigned int nr, enum dma_data_direction direction);
bool hmm_ref_is_mapped(struct hmm_ref_hw *hw, dma_addr_t addr,
		       enum dma_data_direction direction);
#else
static inline void hmm_ref_verify_idle(const struct hmm_ref_block *block,
				       unsigned int bit, unsigned int nr) {}
static inline void hmm_ref_verify_handed_out(const struct hmm_ref_chunk *chunk,
					     struct folio *folio) {}
static inline void hmm_ref_verify_last_put(struct folio *folio) {}
static inline void hmm_ref_verify_block(const struct hmm_ref_block *block) {}
static inline void hmm_ref_verify_chunk(const struct hmm_ref_chunk *chunk) {}
static inline void hmm_ref_verify_promise(const struct hmm_ref_devmem *dm) {}
static inline void hmm_ref_verify_mapped(struct hmm_ref_range *range,
					 unsigned long start,
					 unsigned long end) {}
static inline void hmm_ref_verify_job(const struct hmm_ref_job *job) {}
static inline void hmm_ref_verify_trimmed(struct hmm_ref_range *range) {}
static inline int hmm_ref_note_mapping(struct hmm_ref_hw *hw, dma_addr_t addr,
				       unsigned int nr,
				       enum dma_data_direction direction)
{
	return 0;
}

static inline void
hmm_ref_forget_mapping(struct hmm_ref_hw *hw, dma_addr_t addr, unsigned int nr,
		       enum dma_data_direction direction) {}
static inline bool hmm_ref_is_mapped(struct hmm_ref_hw *hw, dma_addr_t addr,
				     enum dma_data_direction direction)
{
	return true;
}
#endif

#endif /* _HMM_REF_SANITY_H */
