// SPDX-License-Identifier: GPL-2.0-only
/*
 * The fuzzer's programs, and the log of their operations. Streams are explained in
 * hmm_ref_stream.h: the stream of a thread is made of the seed, the worker, its generation and the
 * thread. Two runs of a seed differ only in the interleaving, and in when a process is killed.
 *
 * Each thread has a slot in shared memory with its last results. The name of the thread, which a
 * splat shows as "Comm:", is "STREAM#INDEX" of the operation under way.
 *
 * The first failed check is kept: fuzz_fail() records it and ends the process, and the supervisor
 * then prints the log of all slots.
 */
#include <stdarg.h>
#include <sys/prctl.h>

#include "fuzz.h"

/* ---- operations --------------------------------------------------------------- */

const struct kind_info kinds[KINDS] = {
	[OP_OPEN] = { "open", 40 },
	[OP_CLOSE] = { "close", 12 },
	[OP_MIGRATE] = { "migrate", 170 },
	[OP_READ] = { "read", 70 },
	[OP_WRITE] = { "write", 70 },
	[OP_SNAPSHOT] = { "snapshot", 25 },
	[OP_LOOK] = { "look", 15 },
	[OP_EXCLUSIVE] = { "exclusive", 35 },
	[OP_ATOMIC] = { "atomic", 50 },
	[OP_BAD_NATIVE] = { "bad_native", 40 },
	[OP_OLD] = { "old", 70 },
	[OP_BAD_OLD] = { "bad_old", 20 },
	[OP_CPU_READ] = { "cpu_read", 80 },
	[OP_CPU_WRITE] = { "cpu_write", 90 },
	[OP_REMOTE] = { "remote", 15 },
	[OP_MADVISE] = { "madvise", 70 },
	[OP_MAP] = { "map", 20 },
	[OP_UNMAP] = { "unmap", 15 },
	[OP_MREMAP] = { "mremap", 20 },
	[OP_MPROTECT] = { "mprotect", 20 },
	[OP_MLOCK] = { "mlock", 12 },
	[OP_UFFD] = { "uffd", 50 },
	[OP_PLACE] = { "place", 25 },
	[OP_PIN] = { "pin", 30 },
	[OP_PASS] = { "pass", 12 },
	[OP_CLONE] = { "clone", 5 },
	[OP_FORK] = { "fork", 8 },
	[OP_JOIN] = { "join", 5 },
	[OP_VERIFY] = { "verify", 3 },
	[OP_DIE] = { "die", 1 },
};

static enum kind draw_kind(uint64_t *state)
{
	unsigned int sum = 0, at;
	unsigned int i;

	for (i = 0; i < KINDS; i++)
		sum += kinds[i].weight;
	at = below(state, sum);
	for (i = 0; at >= kinds[i].weight; i++)
		at -= kinds[i].weight;
	return i;
}

void op_generate(uint32_t stream, unsigned int index, struct op *op)
{
	uint64_t state = operation_state(stream, index);

	op->kind = draw_kind(&state);
	op->region = below(&state, 16);
	op->slot = below(&state, 256);
	op->variant = below(&state, 65536);
	op->page = below(&state, 4096);
	op->npages = 1 + below(&state, 1 << below(&state, 8));
	op->offset = below(&state, 4096);
	op->bytes = 1 + below(&state, 1 << below(&state, 17));
	op->value = draw(&state);
	/* Whole blocks, since only these can be huge pages. */
	if (!below(&state, 12)) {
		op->page &= ~511U;
		op->npages = 512;
	}
}

void op_print(uint32_t stream, unsigned int index)
{
	struct op op;

	op_generate(stream, index, &op);
	printf("%08x#%u %s region %u page %u+%u slot %u variant %u offset %u+%u value %#llx",
	       stream, index, kinds[op.kind].name, op.region, op.page, op.npages,
	       op.slot, op.variant, op.offset, op.bytes, (unsigned long long)op.value);
}

/* ---- failures ----------------------------------------------------------------- */

struct fuzz_shared *shared;
__thread struct fuzz_slot *self;

/* Also used by the supervisor, which has no slot. */
void fuzz_complain(const char *format, ...)
{
	unsigned int none = 0;
	char text[300];
	va_list args;

	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	if (!__atomic_compare_exchange_n(&shared->failed, &none, 1, false,
					 __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE))
		return;
	if (self)
		snprintf(shared->why, sizeof(shared->why), "%08x#%u pid %d: %s",
			 self->stream, self->index, getpid(), text);
	else
		snprintf(shared->why, sizeof(shared->why), "%s", text);
	shared_set(failed, 2);
}

/* ---- the log ------------------------------------------------------------------ */

void log_begin(unsigned int index)
{
	char name[16];

	self->index = index;
	snprintf(name, sizeof(name), "%08x#%u", self->stream, index % 1000000);
	prctl(PR_SET_NAME, name);
}

void log_end(enum kind kind, int rc)
{
	unsigned int at = self->index % RING;

	self->ring[at].index = self->index;
	self->ring[at].rc = rc;
	self->ring[at].ms = now_ms();
	if (rc == -ENXIO)	/* it could not be tried */
		return;
	__atomic_add_fetch(rc ? &shared->refused[kind] : &shared->done[kind], 1,
			   __ATOMIC_RELAXED);
	if (rc == -EBUSY || rc == -ENOMEM || rc == -EAGAIN)
		__atomic_add_fetch(&shared->busy[kind], 1, __ATOMIC_RELAXED);
}

/* The oldest first, and the operation under way last. */
void log_dump(const struct fuzz_slot *slot)
{
	uint64_t now = now_ms();
	unsigned int i;

	if (!slot->stream)
		return;
	printf("# stream %08x pid %d%s\n", slot->stream, slot->pid,
	       slot->active ? "" : ", ended");
	for (i = slot->index > RING ? slot->index - RING : 0; i < slot->index; i++) {
		if (slot->ring[i % RING].index != i)
			continue;
		printf("#   ");
		op_print(slot->stream, i);
		printf(" = %d, %llu ms ago\n", slot->ring[i % RING].rc,
		       (unsigned long long)(now - slot->ring[i % RING].ms));
	}
	printf("#   ");
	op_print(slot->stream, slot->index);
	printf(" <- here\n");
}
