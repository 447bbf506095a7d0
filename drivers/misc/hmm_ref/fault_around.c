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
#include <linux/string.h>

#include "fault_around.h"
#include "hmm_ref.h"

/* A new stream begins with at most this. */
#define START_ORDER	2

/* Return: index of the stream that goes on at @page, or has been there; or one past the end. */
static unsigned int find_stream(const struct hmm_ref_around *around, unsigned long page)
{
	unsigned int i;

	for (i = 0; i < HMM_REF_STREAMS; i++)
		if (around->streams[i].next - page <= BIT(around->streams[i].order) + 1)
			break;
	return i;
}

static bool goes_on(const struct hmm_ref_stream *stream, unsigned long page)
{
	return page == stream->next || page == stream->next - BIT(stream->order) - 1;
}

static unsigned int order_around(struct hmm_ref_around *around, unsigned long page,
				 unsigned int most)
{
	unsigned int i = find_stream(around, page);
	struct hmm_ref_stream stream;

	if (i == HMM_REF_STREAMS) {
		stream.order = START_ORDER - around->caution;
		around->caution += around->caution < START_ORDER;
		i--;
	} else {
		stream = around->streams[i];
		if (goes_on(&stream, page)) {
			stream.order++;
			around->caution -= !!around->caution;
		}
	}
	stream.order = min(stream.order, most);
	stream.next = ALIGN(page + 1, BIT(stream.order));
	/* To the front: the last one is the one to forget. */
	memmove(&around->streams[1], &around->streams[0], i * sizeof(stream));
	around->streams[0] = stream;
	return stream.order;
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
