// SPDX-License-Identifier: GPL-2.0-only
/*
 * The soak test's history: the last operations on each page, which are printed if the page is
 * wrong.
 *
 * An operation is a function of its stream and its number, so only these are recorded. A child
 * begins with a copy of its parent's history. The two threads of a worker record without a lock, so
 * an entry may be lost when they do it at the same time.
 */
#include "soak.h"

#define KEPT	16U
#define PAGES	1024U		/* of a region, at most */

static struct {
	unsigned int count;
	struct {
		uint32_t stream;
		unsigned int index;
		int rc;
		bool done;
	} last[KEPT];
} history[SOAK_REGIONS][PAGES];

/* Finds the pages that an operation may have changed or moved, in whole pages or by bytes. */
static void find_pages(const struct soak_op *op, unsigned long *first, unsigned long *end)
{
	struct soak_place at;
	unsigned long by_bytes;

	soak_find_place(op, &at);
	by_bytes = (at.off + at.bytes + PAGE - 1) / PAGE;
	*first = at.page;
	*end = at.page + at.npages;
	if (by_bytes > *end)
		*end = by_bytes;
	if (op->kind == SOAK_FORK || op->kind == SOAK_RELEASE) {
		*first = 0;
		*end = at.region->npages;
	}
}

/**
 * soak_remember() - record the begin or the end of an operation
 * @stream: stream of the operation
 * @index: number of the operation in the stream
 * @op: the operation
 * @done: set at the end
 * @rc: result at the end
 */
void soak_remember(uint32_t stream, unsigned int index, const struct soak_op *op, bool done, int rc)
{
	unsigned long page, end;

	if (op->kind == SOAK_VERIFY || op->kind == SOAK_EXEC)
		return;
	for (find_pages(op, &page, &end); page < end && page < PAGES; page++) {
		unsigned int at = __atomic_fetch_add(&history[op->region][page].count, 1,
						     __ATOMIC_RELAXED) % KEPT;

		history[op->region][page].last[at].stream = stream;
		history[op->region][page].last[at].index = index;
		history[op->region][page].last[at].rc = rc;
		history[op->region][page].last[at].done = done;
	}
}

/**
 * soak_dump_page() - print the history of a page
 * @region: region of the page
 * @page: index of the page
 */
void soak_dump_page(const struct soak_region *region, unsigned long page)
{
	unsigned int nr = region - soak_regions, count, i;

	if (page >= PAGES)
		return;
	count = history[nr][page].count;
	for (i = count > KEPT ? count - KEPT : 0; i < count; i++) {
		unsigned int at = i % KEPT;

		soak_print_op(history[nr][page].last[at].stream,
			      history[nr][page].last[at].index);
		if (history[nr][page].last[at].done)
			printf(" = %d\n", history[nr][page].last[at].rc);
		else
			printf(" begins\n");
	}
	fflush(stdout);
}
