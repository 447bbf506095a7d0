// SPDX-License-Identifier: GPL-2.0-only
/*
 * How many pages does a CPU fault bring back?
 *
 * A fault costs much more than a page that comes along with it, and a page that comes along
 * and is not wanted costs its copy, and another one when the device wants it again. What
 * will be wanted is not known, so this goes by what was:
 *
 *   a fault right beside what a recent one    a stream goes on, up or down: it gets twice
 *   has brought                               as much
 *   a fault inside of what a recent one has   the page did not move: as much as before
 *   brought
 *   another                                   a new stream: it begins with half as much as
 *                                             the one before; each that goes on raises
 *                                             that again
 *
 * So sequential access soon has the most that the knob allows, several streams at a time
 * do not disturb one another, and random access ends with single pages. Groups are powers
 * of two, naturally aligned.
 *
 * The memory of it belongs to a CPU, as most threads stay on theirs for longer than a
 * fault takes: nothing is shared, and nothing to be locked. All of it are hints. A thread that
 * comes from another CPU, or a stream that was forgotten, begins anew.
 */
#include <linux/align.h>
#include <linux/log2.h>
#include <linux/minmax.h>
#include <linux/percpu.h>
#include <linux/unroll.h>

#include "fault_around.h"
#include "hmm_ref.h"

/* A new stream begins with at most this. */
#define START_ORDER	2

/* Return: a stream that goes on at @page, or has been there; or NULL. */
static struct hmm_ref_stream *find_stream(struct hmm_ref_around *around, unsigned long page)
{
	unsigned int i;

	unrolled_full
	for (i = 0; i < HMM_REF_STREAMS; i++) {
		if (around->streams[i].next - page <= around->streams[i].span)
			return &around->streams[i];
	}
	return NULL;
}

static bool goes_on(const struct hmm_ref_stream *stream, unsigned long page)
{
	return page == stream->next || page == stream->next - stream->span;
}

/* The @age-th of the ring. */
static struct hmm_ref_stream *stream_of_age(struct hmm_ref_around *around, unsigned int age)
{
	return &around->streams[(around->latest + age) % HMM_REF_STREAMS];
}

/* Forget the oldest. Return: what the new one begins with. */
static unsigned int begin_stream(struct hmm_ref_around *around)
{
	unsigned int order = START_ORDER - around->caution;

	around->latest = (around->latest - 1) % HMM_REF_STREAMS;
	around->caution += around->caution < START_ORDER;
	return order;
}

/* Make it the latest. Return: what it goes on with. */
static unsigned int continue_stream(struct hmm_ref_around *around, struct hmm_ref_stream *stream,
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

static unsigned int order_around(struct hmm_ref_around *around, unsigned long page,
				 unsigned int most)
{
	struct hmm_ref_stream *stream = find_stream(around, page);
	unsigned int order;

	order = stream ? continue_stream(around, stream, page) : begin_stream(around);
	order = min(order, most);
	*stream_of_age(around, 0) = (struct hmm_ref_stream){
		.next = ALIGN(page + 1, BIT(order)),
		.span = BIT(order) + 1,
	};
	return order;
}

/**
 * hmm_ref_fault_around() - how large is the group of pages that a fault brings back?
 * @dev: device
 * @addr: that the CPU touches
 *
 * Context: process context; does not sleep.
 * Return: pages, a power of two.
 */
unsigned long hmm_ref_fault_around(struct hmm_ref_device *dev, unsigned long addr)
{
	u32 most = clamp(READ_ONCE(dev->fault_around), 1, HMM_REF_FAULT_AROUND_MAX);
	unsigned int order;

	order = order_around(get_cpu_ptr(dev->around), addr >> PAGE_SHIFT, ilog2(most));
	put_cpu_ptr(dev->around);
	return BIT(order);
}
