// SPDX-License-Identifier: GPL-2.0-only
/*
 * Argument checks of the ioctls: every member of every struct, with valid and
 * invalid values.
 *
 * Each case runs for each command, so no command can be left out. commands[]
 * repeats the expected properties of a command, from the uapi header alone, so
 * that the table of the driver is tested. Each case starts with a struct that
 * is accepted, and then changes one thing.
 */
#include <linux/mm.h>
#include <linux/mman.h>
#include <linux/stddef.h>
#include <linux/uaccess.h>

#include "tests.h"
#include "../ioctl.h"

/* The first page is for the struct, the second for excess bytes. */
#define USER_SIZE	(2 * PAGE_SIZE)

/**
 * struct command - a command according to the uapi
 * @name: name in the report of the test
 * @op: line in the table of the driver
 * @size: size of its struct
 * @first_size: size of the first version of its struct
 * @outs: offset of the first output
 * @reserved: offset of the reserved member, 0 if there is none
 * @flags: mask of known flags
 * @range: offset of addr and length; 0 if any address space may use the command
 * @unit: unit of length and alignment of addr
 * @valid: a struct that is accepted, apart from addr, size and outputs
 */
struct command {
	const char *name;
	const struct hmm_ref_op *op;
	u32 size;
	u32 first_size;
	u32 outs;
	u32 reserved;
	u32 flags;
	u32 range;
	u32 unit;
	union hmm_ref_cmd valid;
};

#define COMMAND(_cmd, _struct, _out, _last)				\
	.name = #_cmd,							\
	.op = &hmm_ref_ops[HMM_REF_CMD_##_cmd],				\
	.size = sizeof(struct _struct),					\
	.first_size = offsetofend(struct _struct, _last),		\
	.outs = offsetof(struct _struct, _out)

static const struct command commands[] = {
	{ COMMAND(INFO, hmm_ref_info, out_page_size, out_capacity) },
	{
		COMMAND(MIGRATE, hmm_ref_migrate, out_migrated, out_skipped),
		.reserved = offsetof(struct hmm_ref_migrate, __reserved),
		.flags = HMM_REF_MIGRATE_MAP,
		.range = offsetof(struct hmm_ref_migrate, addr),
		.unit = PAGE_SIZE,
		.valid.migrate = {
			.direction = HMM_REF_TO_DEVICE,
			.length = PAGE_SIZE,
		},
	}, {
		COMMAND(READ, hmm_ref_access, out_bytes, out_faults),
		.range = offsetof(struct hmm_ref_access, addr),
		.unit = 1,
		.valid.access = { .length = 1, .buf = U64_MAX },
	}, {
		COMMAND(WRITE, hmm_ref_access, out_bytes, out_faults),
		.range = offsetof(struct hmm_ref_access, addr),
		.unit = 1,
		.valid.access = { .length = 1, .buf = U64_MAX },
	}, {
		COMMAND(SNAPSHOT, hmm_ref_snapshot, out_pages, out_pages),
		.range = offsetof(struct hmm_ref_snapshot, addr),
		.unit = PAGE_SIZE,
		.valid.snapshot = { .length = PAGE_SIZE, .buf = U64_MAX },
	},
	{ COMMAND(STATS, hmm_ref_stats, out_pages_total, out_cow_breaks) },
	{ COMMAND(AUDIT, hmm_ref_audit, out_total, out_violations) },
	{
		COMMAND(EXCLUSIVE, hmm_ref_exclusive, out_pages, out_pages),
		.range = offsetof(struct hmm_ref_exclusive, addr),
		.unit = PAGE_SIZE,
		.valid.exclusive = { .length = PAGE_SIZE },
	}, {
		COMMAND(ATOMIC, hmm_ref_atomic, out_old, out_faults),
		.reserved = offsetof(struct hmm_ref_atomic, __reserved),
		.range = offsetof(struct hmm_ref_atomic, addr),
		.unit = 8,
		.valid.atomic = { .op = HMM_REF_ATOMIC_ADD, .length = 8,
				  .operand = U64_MAX },
	}, {
		COMMAND(EVICT, hmm_ref_evict, out_evicted, out_skipped),
		.range = offsetof(struct hmm_ref_evict, addr),
		.unit = PAGE_SIZE,
		.valid.evict = { .length = PAGE_SIZE },
	},
	{ COMMAND(EVICT_ALL, hmm_ref_evict_all, out_evicted, out_skipped) },
};

static_assert(ARRAY_SIZE(commands) == HMM_REF_NR_CMDS);

static void describe(const struct command *c, char *desc)
{
	strscpy(desc, c->name, KUNIT_PARAM_DESC_SIZE);
}

KUNIT_ARRAY_PARAM(command, commands, describe);

/**
 * struct fixture - a command and the memory that contains it
 * @cmd: command as passed by the user
 * @got: command as read by the driver
 * @user: address of USER_SIZE bytes, with an unmapped page after them
 * @mm: address space of the file
 */
struct fixture {
	union hmm_ref_cmd cmd;
	union hmm_ref_cmd got;
	unsigned long user;
	struct mm_struct *mm;
};

static u64 *addr_of(const struct command *c, union hmm_ref_cmd *cmd)
{
	return (void *)cmd + c->range;
}

static u64 *length_of(const struct command *c, union hmm_ref_cmd *cmd)
{
	return addr_of(c, cmd) + 1;
}

/* A struct that is accepted; the values of outputs must not matter. */
static void fill(struct fixture *f, const struct command *c)
{
	f->cmd = c->valid;
	f->cmd.common.size = c->size;
	memset((void *)&f->cmd + c->outs, 0xcc, c->size - c->outs);
	if (c->range)
		*addr_of(c, &f->cmd) = f->user;
}

static int get_at(struct fixture *f, const struct command *c,
		  unsigned long addr)
{
	/* Not 0, so that the test notices members that are not written. */
	memset(&f->got, 0xa5, sizeof(f->got));
	return hmm_ref_get_cmd(c->op, f->mm, (void __user *)addr, &f->got);
}

/* Put the struct at the start of user memory, followed by zeros, and get it. */
static int get(struct kunit *test, struct fixture *f, const struct command *c)
{
	void __user *user = (void __user *)f->user;

	KUNIT_ASSERT_EQ(test, clear_user(user, USER_SIZE), 0);
	KUNIT_ASSERT_EQ(test, copy_to_user(user, &f->cmd, c->size), 0);
	return get_at(f, c, f->user);
}

static void poke(struct kunit *test, struct fixture *f, u32 offset, u8 byte)
{
	KUNIT_ASSERT_EQ(test, put_user(byte, (u8 __user *)(f->user + offset)),
			0);
}

/* ---- cases ------------------------------------------------------------- */

/* All other cases start from this struct. */
static void ioctl_accepted(struct kunit *test)
{
	const struct command *c = test->param_value;
	struct fixture *f = test->priv;

	fill(f, c);
	KUNIT_EXPECT_EQ(test, get(test, f, c), 0);
	KUNIT_EXPECT_MEMEQ(test, &f->got, &f->cmd, c->size);
	KUNIT_EXPECT_NOT_NULL(test, c->op->handler);
}

/* Structs shorter than the first version. */
static void ioctl_short(struct kunit *test)
{
	const struct command *c = test->param_value;
	struct fixture *f = test->priv;

	fill(f, c);
	for (f->cmd.common.size = 0; f->cmd.common.size < c->first_size;
	     f->cmd.common.size++)
		KUNIT_EXPECT_EQ_MSG(test, get(test, f, c), -EINVAL, "size %u",
				    f->cmd.common.size);
}

/*
 * Structs between the first version and this one: missing members read as 0,
 * whatever the memory after the struct contains.
 */
static void ioctl_older(struct kunit *test)
{
	const struct command *c = test->param_value;
	struct fixture *f = test->priv;
	u32 size;

	fill(f, c);
	for (size = c->first_size; size <= c->size; size++) {
		f->cmd.common.size = size;
		KUNIT_EXPECT_EQ_MSG(test, get(test, f, c), 0, "size %u", size);
		KUNIT_EXPECT_MEMEQ(test, &f->got, &f->cmd, size);
		KUNIT_EXPECT_NULL(test, memchr_inv((void *)&f->got + size, 0,
						   c->size - size));
	}
}

/* Structs longer than this version, up to a page: valid if the rest is 0. */
static void ioctl_newer(struct kunit *test)
{
	const struct command *c = test->param_value;
	const u32 sizes[] = {
		c->size + 1, c->size + 7, c->size + 8, PAGE_SIZE,
	};
	struct fixture *f = test->priv;
	unsigned int i;
	u32 offset;

	fill(f, c);
	for (i = 0; i < ARRAY_SIZE(sizes); i++) {
		f->cmd.common.size = sizes[i];
		KUNIT_EXPECT_EQ_MSG(test, get(test, f, c), 0, "size %u",
				    sizes[i]);
		KUNIT_EXPECT_MEMEQ(test, &f->got, &f->cmd, c->size);
		/* Bytes past the end do not matter. */
		poke(test, f, sizes[i], 0xff);
		KUNIT_EXPECT_EQ_MSG(test, get_at(f, c, f->user), 0, "size %u",
				    sizes[i]);
		for (offset = c->size; offset < sizes[i]; offset++) {
			poke(test, f, offset, 1);
			KUNIT_ASSERT_EQ_MSG(test, get_at(f, c, f->user), -E2BIG,
					    "size %u, offset %u", sizes[i],
					    offset);
			poke(test, f, offset, 0);
		}
	}
}

/* Structs longer than a page are not even read. */
static void ioctl_huge(struct kunit *test)
{
	static const u32 sizes[] = {
		PAGE_SIZE + 1, 2 * PAGE_SIZE, S32_MAX, U32_MAX,
	};
	const struct command *c = test->param_value;
	struct fixture *f = test->priv;
	unsigned int i;

	fill(f, c);
	for (i = 0; i < ARRAY_SIZE(sizes); i++) {
		f->cmd.common.size = sizes[i];
		KUNIT_EXPECT_EQ_MSG(test, get(test, f, c), -E2BIG, "size %u",
				    sizes[i]);
	}
}

/* Known and unknown flags, reserved members. */
static void ioctl_flags(struct kunit *test)
{
	const struct command *c = test->param_value;
	struct fixture *f = test->priv;
	unsigned int bit;

	for (bit = 0; bit < 32; bit++) {
		fill(f, c);
		f->cmd.common.flags = BIT(bit);
		KUNIT_EXPECT_EQ_MSG(test, get(test, f, c),
				    c->flags & BIT(bit) ? 0 : -EOPNOTSUPP,
				    "bit %u", bit);
		if (!c->reserved)
			continue;
		fill(f, c);
		*(u32 *)((void *)&f->cmd + c->reserved) = BIT(bit);
		KUNIT_EXPECT_EQ_MSG(test, get(test, f, c), -EOPNOTSUPP,
				    "reserved bit %u", bit);
	}
}

/* Only commands with a range depend on the address space. */
static void ioctl_other_mm(struct kunit *test)
{
	const struct command *c = test->param_value;
	struct fixture *f = test->priv;

	fill(f, c);
	f->mm = NULL;
	KUNIT_EXPECT_EQ(test, get(test, f, c), c->range ? -EBADF : 0);
}

/* The struct is unreadable, as a whole or in part. */
static void ioctl_unreadable(struct kunit *test)
{
	const struct command *c = test->param_value;
	struct fixture *f = test->priv;
	unsigned long end = f->user + USER_SIZE;
	u32 readable;

	KUNIT_EXPECT_EQ(test, get_at(f, c, 0), -EFAULT);
	KUNIT_EXPECT_EQ(test, get_at(f, c, (unsigned long)&f->cmd), -EFAULT);
	KUNIT_EXPECT_EQ(test, get_at(f, c, ULONG_MAX - 3), -EFAULT);
	fill(f, c);
	for (readable = 0; readable <= c->size; readable += 4) {
		unsigned long addr = end - readable;
		unsigned long left;

		left = copy_to_user((void __user *)addr, &f->cmd, readable);
		KUNIT_ASSERT_EQ(test, left, 0);
		KUNIT_EXPECT_EQ_MSG(test, get_at(f, c, addr),
				    readable == c->size ? 0 : -EFAULT,
				    "%u bytes are readable", readable);
	}
}

static void try_range(struct kunit *test, u64 addr, u64 length, int rc)
{
	const struct command *c = test->param_value;
	struct fixture *f = test->priv;

	fill(f, c);
	*addr_of(c, &f->cmd) = addr;
	*length_of(c, &f->cmd) = length;
	KUNIT_EXPECT_EQ_MSG(test, get(test, f, c), rc,
			    "addr %#llx length %#llx", addr, length);
}

/* Ranges that are empty, unaligned, wrap around, or leave user space. */
static void ioctl_range(struct kunit *test)
{
	const struct command *c = test->param_value;
	struct fixture *f = test->priv;
	u64 user = f->user, unit = c->unit;
	u64 part;

	if (!c->range)
		kunit_skip(test, "takes no range");
	try_range(test, user, 0, -EINVAL);
	for (part = 1; part < unit; part <<= 1) {
		try_range(test, user + part, unit, -EINVAL);
		try_range(test, user, unit + part, -EINVAL);
		try_range(test, user + part, unit - part, -EINVAL);
	}
	try_range(test, -unit, unit, -EOVERFLOW);
	try_range(test, user, -user, -EOVERFLOW);
	try_range(test, user, -unit, -EOVERFLOW);
	try_range(test, -unit, -unit, -EOVERFLOW);
	try_range(test, -2 * unit, unit, -EFAULT);
	try_range(test, user, TASK_SIZE_MAX, -EFAULT);
	try_range(test, 0, -unit, -EFAULT);
	try_range(test, BIT_ULL(63), unit, -EFAULT);
	try_range(test, TASK_SIZE_MAX + PAGE_SIZE, unit, -EFAULT);
	try_range(test, TASK_SIZE_MAX - 2 * PAGE_SIZE, unit, 0);
	try_range(test, 0, unit, 0);
}

/* MIGRATE accepts two directions. */
static void ioctl_direction(struct kunit *test)
{
	const struct command *c = &commands[HMM_REF_CMD_MIGRATE];
	struct fixture *f = test->priv;
	unsigned int i;

	for (i = 0; i < 8 + 32; i++) {
		u32 direction = i < 8 ? i : BIT(i - 8);
		bool valid = direction == HMM_REF_TO_DEVICE ||
			     direction == HMM_REF_TO_SYSTEM;

		fill(f, c);
		f->cmd.migrate.direction = direction;
		KUNIT_EXPECT_EQ_MSG(test, get(test, f, c), valid ? 0 : -EINVAL,
				    "direction %#x", direction);
	}
}

static void try_atomic(struct kunit *test, const struct hmm_ref_atomic *atomic,
		       int rc)
{
	const struct command *c = &commands[HMM_REF_CMD_ATOMIC];
	struct fixture *f = test->priv;
	u64 addr = f->user + atomic->addr;

	fill(f, c);
	f->cmd.atomic.op = atomic->op;
	f->cmd.atomic.addr = addr;
	f->cmd.atomic.length = atomic->length;
	f->cmd.atomic.operand = atomic->operand;
	f->cmd.atomic.compare = atomic->compare;
	KUNIT_EXPECT_EQ_MSG(test, get(test, f, c), rc,
			    "op %u addr %#llx length %llu operand %#llx compare %#llx",
			    atomic->op, addr, atomic->length, atomic->operand,
			    atomic->compare);
}

/* Every operation, with values that fit its width and values that do not. */
static void ioctl_atomic_op(struct kunit *test)
{
	static const u32 ops[] = { 0, 1, 2, 3, 4, BIT(31), U32_MAX };
	static const u64 values[] = {
		0, 1, U32_MAX, BIT_ULL(32), BIT_ULL(63), U64_MAX
	};
	struct hmm_ref_atomic atomic = {};
	unsigned int i, j, k;

	for (i = 0; i < ARRAY_SIZE(ops) * 2; i++) {
		bool known = ops[i / 2] >= HMM_REF_ATOMIC_ADD &&
			     ops[i / 2] <= HMM_REF_ATOMIC_COMPARE_EXCHANGE;
		bool compares = ops[i / 2] == HMM_REF_ATOMIC_COMPARE_EXCHANGE;
		u64 max = i % 2 ? U64_MAX : U32_MAX;

		atomic.op = ops[i / 2];
		atomic.length = i % 2 ? 8 : 4;
		for (j = 0; j < ARRAY_SIZE(values); j++) {
			for (k = 0; k < ARRAY_SIZE(values); k++) {
				bool valid = known && values[j] <= max &&
					     values[k] <= max &&
					     (compares || !values[k]);

				atomic.operand = values[j];
				atomic.compare = values[k];
				try_atomic(test, &atomic, valid ? 0 : -EINVAL);
			}
		}
	}
}

/* Two widths, each at multiples of itself. */
static void ioctl_atomic_width(struct kunit *test)
{
	struct hmm_ref_atomic atomic = { .op = HMM_REF_ATOMIC_EXCHANGE };

	for (atomic.addr = 0; atomic.addr <= 8; atomic.addr++) {
		for (atomic.length = 0; atomic.length <= 32; atomic.length++) {
			bool known = atomic.length == 4 || atomic.length == 8;
			bool valid = known && atomic.addr % atomic.length == 0;

			try_atomic(test, &atomic, valid ? 0 : -EINVAL);
		}
	}
}

/* ---- suite ------------------------------------------------------------- */

static int ioctl_init(struct kunit *test)
{
	struct fixture *f = kunit_kzalloc(test, sizeof(*f), GFP_KERNEL);

	if (!f)
		return -ENOMEM;
	/* Also creates an address space, and frees it after the test. */
	f->user = kunit_vm_mmap(test, NULL, 0, USER_SIZE + PAGE_SIZE,
				PROT_READ | PROT_WRITE,
				MAP_PRIVATE | MAP_ANONYMOUS, 0);
	if (!f->user || IS_ERR_VALUE(f->user))
		return -ENOMEM;
	f->mm = current->mm;
	test->priv = f;
	return vm_munmap(f->user + USER_SIZE, PAGE_SIZE);
}

static struct kunit_case ioctl_cases[] = {
	KUNIT_CASE_PARAM(ioctl_accepted, command_gen_params),
	KUNIT_CASE_PARAM(ioctl_short, command_gen_params),
	KUNIT_CASE_PARAM(ioctl_older, command_gen_params),
	KUNIT_CASE_PARAM(ioctl_newer, command_gen_params),
	KUNIT_CASE_PARAM(ioctl_huge, command_gen_params),
	KUNIT_CASE_PARAM(ioctl_flags, command_gen_params),
	KUNIT_CASE_PARAM(ioctl_other_mm, command_gen_params),
	KUNIT_CASE_PARAM(ioctl_unreadable, command_gen_params),
	KUNIT_CASE_PARAM(ioctl_range, command_gen_params),
	KUNIT_CASE(ioctl_direction),
	KUNIT_CASE(ioctl_atomic_op),
	KUNIT_CASE(ioctl_atomic_width),
	{}
};

struct kunit_suite hmm_ref_ioctl_suite = {
	.name = "hmm_ref_ioctl",
	.init = ioctl_init,
	.test_cases = ioctl_cases,
};
