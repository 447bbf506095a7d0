// SPDX-License-Identifier: GPL-2.0-only
/*
 * Fault-around: the number of pages that a CPU fault moves back.
 *
 * A fault costs much more than an extra page. An extra page that is not needed
 * costs its copy, and another one when the device needs it again. Recent faults
 * predict which pages the CPU will touch:
 *
 *   a fault next to the group of a    a stream continues, up or down: twice as
 *   recent fault                      many pages
 *   a fault within such a group       the page did not move: as many pages as
 *                                     before
 *   any other fault                   a new stream: half as many pages as the
 *                                     previous new stream; each stream that
 *                                     continues raises that again
 *
 * So sequential access soon reaches the maximum that the knob allows, several
 * streams at a time do not disturb one another, and random access falls back to
 * single pages. Groups are powers of two, naturally aligned.
 *
 * The state is per CPU, as most threads stay on a CPU for longer than a fault
 * takes, and needs no lock. It is only a hint: after a thread moves to another
 * CPU, or a stream is forgotten, a new stream begins.
 */
#include <linux/align.h>
#include <linux/log2.h>
#include <linux/minmax.h>
#include <linux/percpu.h>
#include <linux/unroll.h>

#include "fault_around.h"
#include "hmm_ref.h"

/* Order of the first group of a stream, at most. */
#define START_ORDER	2

/* Return: the stream whose last group contains or adjoins @page, or NULL. */
static struct hmm_ref_stream *find_stream(struct hmm_ref_around *around,
					  unsigned long page)
{
	unsigned int i;

	unrolled_full
	for (i = 0; i < HMM_REF_STREAMS; i++)
		if (around->streams[i].next - page <= around->streams[i].span)
			return &around->streams[i];
	return NULL;
}

static bool goes_on(const struct hmm_ref_stream *stream, unsigned long page)
{
	return page == stream->next || page == stream->next - stream->span;
}

/* Return: the stream at position @age of the ring. */
static struct hmm_ref_stream *stream_of_age(struct hmm_ref_around *around,
					    unsigned int age)
{
	return &around->streams[(around->latest + age) % HMM_REF_STREAMS];
}

/* Forget the oldest stream. Return: the order of the new one's first group. */
static unsigned int begin_stream(struct hmm_ref_around *around)
{
	unsigned int order = START_ORDER - around->caution;

	around->latest = (around->latest - 1) % HMM_REF_STREAMS;
	around->caution += around->caution < START_ORDER;
	return order;
}

/* Make a stream the latest. Return: the order of its next group. */
static unsigned int continue_stream(struct hmm_ref_around *around,
				    struct hmm_ref_stream *stream,
				    unsigned long page)
{
	unsigned int index = stream - around->streams;
	unsigned int age = (index - around->latest) % HMM_REF_STREAMS;
	unsigned int order = ilog2(stream->span - 1);

	if (goes_on(stream, page)) {
		order++;
		around->caution -= !!around->caution;
	}
	for (; age; age--)
		*stream_of_age(around, age) = *stream_of_age(around, age - 1);
	return order;
}

static unsigned int order_around(struct hmm_ref_around *around,
				 unsigned long page, unsigned int most)
{
	struct hmm_ref_stream *stream = find_stream(around, page);
	unsigned int order;

	order = stream ? continue_stream(around, stream, page) :
			 begin_stream(around);
	order = min(order, most);
	*stream_of_age(around, 0) = (struct hmm_ref_stream){
		.next = ALIGN(page + 1, BIT(order)),
		.span = BIT(order) + 1,
	};
	return order;
}

/**
 * hmm_ref_fault_around() - number of pages that a fault moves back
 * @dev: device
 * @addr: address that the CPU touches
 *
 * Context: process context; does not sleep.
 * Return: pages, a power of two.
 */
unsigned long hmm_ref_fault_around(struct hmm_ref_device *dev,
				   unsigned long addr)
{
	u32 most = clamp(READ_ONCE(dev->fault_around), 1,
			 HMM_REF_FAULT_AROUND_MAX);
	unsigned int order;

	order = order_around(get_cpu_ptr(dev->around), addr >> PAGE_SHIFT,
			     ilog2(most));
	put_cpu_ptr(dev->around);
	return BIT(order);
}
