// SPDX-License-Identifier: GPL-2.0-only
/*
 * The soak test's programs: operations, and how they are printed. For streams, see
 * hmm_ref_stream.h: the same seed gives the same programs.
 */
#include "soak.h"

#define MEETING_PAGES	32U

__thread char soak_scratch[MOST_PAGES * PAGE];
__thread char soak_data[MOST_PAGES * PAGE];

static const struct {
	const char *name;
	unsigned int weight;
} kinds[SOAK_KINDS] = {
	[SOAK_TOUCH] = { "touch", 110 },
	[SOAK_STORE] = { "store", 120 },
	[SOAK_SAME] = { "same", 25 },
	[SOAK_GUP] = { "gup", 30 },
	[SOAK_MIGRATE] = { "migrate", 140 },
	[SOAK_READ] = { "read", 60 },
	[SOAK_WRITE] = { "write", 90 },
	[SOAK_ATOMIC] = { "atomic", 50 },
	[SOAK_EXCLUSIVE] = { "exclusive", 15 },
	[SOAK_EVICT] = { "evict", 25 },
	[SOAK_RELEASE] = { "release", 4 },
	[SOAK_REOPEN] = { "reopen", 5 },
	[SOAK_SNAPSHOT] = { "snapshot", 10 },
	[SOAK_DONTNEED] = { "dontneed", 20 },
	[SOAK_FREE] = { "free", 25 },
	[SOAK_HUGEPAGE] = { "hugepage", 20 },
	[SOAK_NOHUGEPAGE] = { "nohugepage", 5 },
	[SOAK_COLLAPSE] = { "collapse", 15 },
	[SOAK_PAGEOUT] = { "pageout", 30 },
	[SOAK_MERGEABLE] = { "mergeable", 10 },
	[SOAK_UNMERGEABLE] = { "unmergeable", 5 },
	[SOAK_SPLIT] = { "split", 10 },
	[SOAK_MLOCK] = { "mlock", 8 },
	[SOAK_MUNLOCK] = { "munlock", 12 },
	[SOAK_MPROTECT] = { "mprotect", 20 },
	[SOAK_MREMAP] = { "mremap", 15 },
	[SOAK_MUNMAP] = { "munmap", 12 },
	[SOAK_FORK] = { "fork", 10 },
	[SOAK_EXEC] = { "exec", 2 },
	[SOAK_VERIFY] = { "verify", 4 },
};

static enum soak_kind draw_kind(uint64_t *state)
{
	unsigned int sum = 0, at, i;

	for (i = 0; i < SOAK_KINDS; i++)
		sum += kinds[i].weight;
	at = below(state, sum);
	for (i = 0; at >= kinds[i].weight; i++)
		at -= kinds[i].weight;
	return i;
}

static bool drops(enum soak_kind kind)
{
	return kind == SOAK_DONTNEED || kind == SOAK_MREMAP || kind == SOAK_MUNMAP;
}

/**
 * soak_generate() - generate an operation
 * @stream: stream of the operation
 * @index: number of the operation in the stream
 * @op: set to the operation
 */
void soak_generate(uint32_t stream, unsigned int index, struct soak_op *op)
{
	uint64_t state = operation_state(stream, index);

	op->kind = draw_kind(&state);
	/* Some processes begin with one operation of each kind. */
	if (index < SOAK_KINDS && stream % 4 == 0)
		op->kind = (stream / 4 + index) % SOAK_KINDS;
	op->region = below(&state, 4) ? 0 : 1;
	op->device = below(&state, 256);
	op->variant = below(&state, 65536);
	op->page = below(&state, 4096);
	op->npages = 1 + below(&state, 1 << below(&state, 9));
	op->offset = below(&state, PAGE);
	op->bytes = 1 + below(&state, 1 << below(&state, 17));
	op->value = draw(&state);
	/*
	 * Half of the operations work on few pages. Some work on whole blocks, which may be huge
	 * pages.
	 */
	if (below(&state, 2))
		op->page %= MEETING_PAGES;
	if (!below(&state, 10)) {
		op->page &= ~511U;
		op->npages = 512;
	}
	/* Most operations that drop data drop few pages, so that not all data is dropped soon. */
	if (drops(op->kind) && below(&state, 4))
		op->npages = 1 + op->npages % 16;
}

/**
 * soak_make_data() - make data that shows which operation wrote it, in soak_data
 * @op: the operation
 * @n: number of bytes
 */
void soak_make_data(const struct soak_op *op, size_t n)
{
	uint64_t word = op->value;
	size_t i;

	for (i = 0; i + 8 <= n; i += 8, word += 0x100000001ULL)
		memcpy(soak_data + i, &word, 8);
	memcpy(soak_data + i, &word, n - i);
}

/**
 * soak_kind_name() - get the name of a kind of operation
 * @kind: the kind
 */
const char *soak_kind_name(enum soak_kind kind)
{
	return kinds[kind].name;
}

/**
 * soak_print_op() - print an operation, without a newline
 * @stream: stream of the operation
 * @index: number of the operation in the stream
 */
void soak_print_op(uint32_t stream, unsigned int index)
{
	struct soak_op op;

	soak_generate(stream, index, &op);
	printf("#   %08x#%u %s region %u page %u+%u device %u variant %u offset %u+%u value %#llx",
	       stream, index, kinds[op.kind].name, op.region, op.page, op.npages, op.device,
	       op.variant, op.offset, op.bytes, (unsigned long long)op.value);
}

/**
 * soak_dump() - print the last operations of a process
 * @slot: slot of the process
 */
void soak_dump(const struct soak_slot *slot)
{
	unsigned int i;

	if (!slot->pid)
		return;
	printf("# stream %08x pid %d%s\n", slot->stream, slot->pid,
	       slot->active ? "" : ", ended");
	for (i = slot->index > RING ? slot->index - RING : 0; i < slot->index; i++) {
		if (slot->ring[i % RING].index != i)
			continue;
		soak_print_op(slot->stream, i);
		printf(" = %d\n", slot->ring[i % RING].rc);
	}
	soak_print_op(slot->stream, slot->index);
	printf(" <- here\n");
}
