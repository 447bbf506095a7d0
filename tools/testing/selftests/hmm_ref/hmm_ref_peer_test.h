/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The fixture of peer and peer_fail: two devices with memory of each type, and pages of the
 * process. Each program has its own setup and teardown.
 */
#ifndef _HMM_REF_PEER_TEST_H
#define _HMM_REF_PEER_TEST_H

#include "hmm_ref_peer.h"

#define PAGES		32UL

FIXTURE(peer)
{
	struct leak_check leak;
	struct peers peers;
	char *mem;
};

FIXTURE_VARIANT(peer)
{
	unsigned int from;
	unsigned int to;
};

FIXTURE_VARIANT_ADD(peer, private_to_private)
{
	.from = HMM_REF_MEMORY_PRIVATE, .to = HMM_REF_MEMORY_PRIVATE,
};

FIXTURE_VARIANT_ADD(peer, private_to_coherent)
{
	.from = HMM_REF_MEMORY_PRIVATE, .to = HMM_REF_MEMORY_COHERENT,
};

FIXTURE_VARIANT_ADD(peer, coherent_to_private)
{
	.from = HMM_REF_MEMORY_COHERENT, .to = HMM_REF_MEMORY_PRIVATE,
};

/* Opens the devices and maps the memory. Returns why the test cannot be run, or NULL. */
static inline const char *__test_peers_begin(struct __test_metadata *_metadata,
					     struct _test_data_peer *self,
					     const struct _fixture_variant_peer *variant)
{
	const char *why_not;

	leak_check_begin(_metadata, &self->leak);
	why_not = peers_open(&self->peers, variant->from, variant->to);
	if (why_not)
		return why_not;
	/* One window, since a failure ends the command at the end of a window. */
	self->mem = test_map_blocks(1);
	ASSERT_EQ(0, madvise(self->mem, block_size(), MADV_NOHUGEPAGE));
	fill_pages(self->mem, PAGES, 1);
	return NULL;
}

#define test_peers_begin()	__test_peers_begin(_metadata, self, variant)

/* Binds the source again if the test has removed it. */
static inline void test_peers_end(struct __test_metadata *_metadata,
				  struct _test_data_peer *self)
{
	if (hmm_ref_count() < self->leak.devices)
		device_bind(self->peers.from_nr);
	leak_check_end(_metadata, &self->leak);
}

#define test_at_from(npages)	\
	test_pages_at(self->peers.from, self->mem, PAGES, HMM_REF_PAGE_DEVICE, npages)
#define test_at_to(npages)	\
	test_pages_at(self->peers.to, self->mem, PAGES, HMM_REF_PAGE_DEVICE, npages)

#endif /* _HMM_REF_PEER_TEST_H */
