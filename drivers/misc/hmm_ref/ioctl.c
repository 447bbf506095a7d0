// SPDX-License-Identifier: GPL-2.0-only
/*
 * The native user interface: one table, one dispatcher.
 *
 * The dispatcher makes the checks that all commands share, in this order: the
 * command is known, the device is present, the size is valid, flags and
 * reserved members are 0, the address space is the right one, the range is
 * sound, the members that only this command has are valid, the struct can be
 * written. So a handler starts with a valid command; only the mappings in the
 * range are not checked. Outputs go back to the user whatever the handler
 * returns.
 *
 * A new command is a struct in the uapi header, a handler, and a line in the
 * table.
 */
#include <linux/fs.h>
#include <linux/sched.h>
#include <linux/stddef.h>
#include <linux/uaccess.h>

#include "ioctl.h"

/* ---- handlers ---------------------------------------------------------- */

static u64 features(const struct hmm_ref_device *dev)
{
	u64 features = HMM_REF_FEATURE_PEERS;

	if (HMM_REF_LARGE_IS_SAFE)
		features |= HMM_REF_FEATURE_LARGE_SAFE;
	if (hmm_ref_has_large(&dev->dm))
		features |= HMM_REF_FEATURE_LARGE;
	if (dev->dm.type == MEMORY_DEVICE_PRIVATE)
		features |= HMM_REF_FEATURE_ELASTIC;
	if (dev->has_dmirror)
		features |= HMM_REF_FEATURE_OLD_INTERFACE;
	if (IS_ENABLED(CONFIG_FAULT_INJECTION_DEBUG_FS))
		features |= HMM_REF_FEATURE_FAIL;
	if (IS_ENABLED(CONFIG_HMM_REF_SANITY))
		features |= HMM_REF_FEATURE_SANITY;
	if (HMM_REF_CORE_IS_FIXED)
		features |= HMM_REF_FEATURE_CORE_FIXED;
	return features;
}

static int cmd_info(struct hmm_ref_client *client, union hmm_ref_cmd *cmd)
{
	const struct hmm_ref_devmem *dm = &client->dev->dm;

	cmd->info.out_page_size = PAGE_SIZE;
	cmd->info.out_memory_type = dm->type == MEMORY_DEVICE_COHERENT ?
				    HMM_REF_MEMORY_COHERENT :
				    HMM_REF_MEMORY_PRIVATE;
	cmd->info.out_block_size = PMD_SIZE;
	cmd->info.out_chunk_size = (u64)PAGE_SIZE << dm->chunk_shift;
	cmd->info.out_capacity = (u64)dm->capacity << PAGE_SHIFT;
	cmd->info.out_folio_size = hmm_ref_has_large(dm) ? PMD_SIZE : PAGE_SIZE;
	cmd->info.out_features = features(client->dev);
	return 0;
}

static bool migrate_is_valid(const union hmm_ref_cmd *cmd)
{
	return cmd->migrate.direction == HMM_REF_TO_DEVICE ||
	       (cmd->migrate.direction == HMM_REF_TO_SYSTEM &&
		!cmd->migrate.flags);
}

static int cmd_migrate(struct hmm_ref_client *client, union hmm_ref_cmd *cmd)
{
	struct hmm_ref_migrate *migrate = &cmd->migrate;
	struct hmm_ref_migration m = {
		.start = migrate->addr,
		.end = migrate->addr + migrate->length,
		.way = migrate->direction == HMM_REF_TO_DEVICE ?
		       HMM_REF_SYS_TO_DEV : HMM_REF_DEV_TO_SYS,
		.flags = HMM_REF_KEEP_LARGE | HMM_REF_FROM_PEERS,
	};
	unsigned long done;
	int rc, map_rc;

	rc = hmm_ref_migrate_range(client, &m);
	migrate->out_migrated = m.tally.moved;
	migrate->out_already = m.tally.already;
	migrate->out_skipped = m.tally.skipped;
	done = m.tally.moved + m.tally.already + m.tally.skipped;
	if (!(migrate->flags & HMM_REF_MIGRATE_MAP) || !done ||
	    (rc && rc != -EINTR))
		return rc;
	map_rc = hmm_ref_mirror_map(&client->mirror, m.start,
				    done << PAGE_SHIFT);
	/* The pages have moved. Device faults will map the others. */
	if (map_rc == -EINTR || map_rc == -ERESTARTSYS)
		return rc;
	return rc ?: map_rc;
}

/**
 * hmm_ref_transfer_begin() - set up the user's side of a READ or WRITE
 * @transfer: transfer with its range set
 * @write: the device stores
 * @user: memory of the current process, as long as the range
 *
 * Return: 0 or -EFAULT.
 */
int hmm_ref_transfer_begin(struct hmm_ref_transfer *transfer, bool write,
			   void __user *user)
{
	size_t length = transfer->end - transfer->addr;

	if (!access_ok(user, length))
		return -EFAULT;
	iov_iter_ubuf(&transfer->iter, write ? ITER_SOURCE : ITER_DEST, user,
		      length);
	return 0;
}

static int access(struct hmm_ref_client *client, struct hmm_ref_access *cmd,
		  bool write)
{
	struct hmm_ref_transfer transfer = {
		.addr = cmd->addr,
		.end = cmd->addr + cmd->length,
	};
	int rc = hmm_ref_transfer_begin(&transfer, write,
					u64_to_user_ptr(cmd->buf));

	if (!rc)
		rc = hmm_ref_client_access(client, &transfer);
	cmd->out_bytes = transfer.bytes;
	cmd->out_faults = transfer.faults;
	return rc;
}

static int cmd_read(struct hmm_ref_client *client, union hmm_ref_cmd *cmd)
{
	return access(client, &cmd->access, false);
}

static int cmd_write(struct hmm_ref_client *client, union hmm_ref_cmd *cmd)
{
	return access(client, &cmd->access, true);
}

static struct hmm_ref_page_state page_state(const struct hmm_ref_seen *seen)
{
	static const struct hmm_ref_page_state found[] = {
		[HMM_REF_AT_ABSENT] = {
			HMM_REF_PAGE_NONE, .why = HMM_REF_WHY_ABSENT,
		},
		[HMM_REF_AT_TRAPPED] = {
			HMM_REF_PAGE_NONE, .why = HMM_REF_WHY_TRAPPED,
		},
		[HMM_REF_AT_SYSTEM] = { HMM_REF_PAGE_SYSTEM },
		[HMM_REF_AT_ZERO] = { HMM_REF_PAGE_ZERO },
		[HMM_REF_AT_DEVICE] = { HMM_REF_PAGE_DEVICE },
		[HMM_REF_AT_REMOTE] = { HMM_REF_PAGE_REMOTE },
		[HMM_REF_AT_UNMAPPED] = {
			HMM_REF_PAGE_ERROR, .why = HMM_REF_WHY_UNMAPPED,
		},
		[HMM_REF_AT_UNREADABLE] = {
			HMM_REF_PAGE_ERROR, .why = HMM_REF_WHY_UNREADABLE,
		},
		[HMM_REF_AT_SPECIAL] = {
			HMM_REF_PAGE_ERROR, .why = HMM_REF_WHY_SPECIAL,
		},
	};
	struct hmm_ref_page_state state = found[seen->at];

	state.order = seen->order;
	if (seen->writable)
		state.flags |= HMM_REF_PAGE_WRITE;
	if (seen->pte & HMM_REF_PTE_VALID)
		state.flags |= HMM_REF_PAGE_MAPPED;
	if (seen->pte & HMM_REF_PTE_WRITE)
		state.flags |= HMM_REF_PAGE_DEV_WRITE;
	if (seen->pte & HMM_REF_PTE_EXCLUSIVE)
		state.flags |= HMM_REF_PAGE_EXCLUSIVE;
	return state;
}

/* In place: both structs have the same size. Runs of equal pages are common. */
static int report_states(void *arg, struct hmm_ref_seen *seen, unsigned long nr)
{
	struct hmm_ref_snapshot *cmd = arg;
	struct hmm_ref_page_state __user *buf = u64_to_user_ptr(cmd->buf);
	struct hmm_ref_page_state *states = (struct hmm_ref_page_state *)seen;
	unsigned long i = 0, end;

	static_assert(sizeof(*states) == sizeof(*seen));
	while (i < nr) {
		struct hmm_ref_page_state state = page_state(&seen[i]);

		end = i + hmm_ref_seen_alike(&seen[i], nr - i);
		while (i < end)
			states[i++] = state;
	}
	if (copy_to_user(buf + cmd->out_pages, states, nr * sizeof(*buf)))
		return -EFAULT;
	cmd->out_pages += nr;
	return 0;
}

static int cmd_snapshot(struct hmm_ref_client *client, union hmm_ref_cmd *cmd)
{
	struct hmm_ref_snapshot *snapshot = &cmd->snapshot;

	snapshot->out_pages = 0;
	return hmm_ref_mirror_look(&client->mirror, snapshot->addr,
				   snapshot->addr + snapshot->length,
				   report_states, snapshot);
}

static int cmd_stats(struct hmm_ref_client *client, union hmm_ref_cmd *cmd)
{
	hmm_ref_device_stats(client->dev, &cmd->stats);
	cmd->stats.out_pages_client = hmm_ref_owner_pages(client->owner);
	return 0;
}

static int cmd_audit(struct hmm_ref_client *client, union hmm_ref_cmd *cmd)
{
	struct hmm_ref_findings found;
	int rc = hmm_ref_devmem_audit(&client->dev->dm, &found);

	cmd->audit = (struct hmm_ref_audit){
		.size = cmd->audit.size,
		.out_total = found.total,
		.out_free = found.free,
		.out_in_use = found.in_use,
		.out_pending = found.pending,
		.out_retired = found.retired,
		.out_bad_ref = found.bad_ref,
		.out_bad_lock = found.bad_lock,
		.out_bad_map = found.bad_map,
		.out_bad_owner = found.bad_owner,
		.out_bad_both = found.bad_both,
		.out_bad_count = found.bad_count,
		.out_violations = found.violations,
	};
	return rc;
}

static int cmd_exclusive(struct hmm_ref_client *client, union hmm_ref_cmd *cmd)
{
	struct hmm_ref_exclusive *exclusive = &cmd->exclusive;
	unsigned long done;
	int rc;

	rc = hmm_ref_mirror_exclusive(&client->mirror, exclusive->addr,
				      exclusive->addr + exclusive->length,
				      &done);
	exclusive->out_pages = done;
	return rc;
}

static bool atomic_is_valid(const union hmm_ref_cmd *cmd)
{
	const struct hmm_ref_atomic *atomic = &cmd->atomic;

	if (atomic->length != 4 && atomic->length != 8)
		return false;
	if (!IS_ALIGNED(atomic->addr, atomic->length))
		return false;
	if (atomic->length == 4 &&
	    (atomic->operand | atomic->compare) > U32_MAX)
		return false;
	switch (atomic->op) {
	case HMM_REF_ATOMIC_ADD:
	case HMM_REF_ATOMIC_EXCHANGE:
		return !atomic->compare;
	case HMM_REF_ATOMIC_COMPARE_EXCHANGE:
		return true;
	default:
		return false;
	}
}

static int cmd_atomic(struct hmm_ref_client *client, union hmm_ref_cmd *cmd)
{
	static const enum hmm_ref_word_op ops[] = {
		[HMM_REF_ATOMIC_ADD] = HMM_REF_WORD_ADD,
		[HMM_REF_ATOMIC_EXCHANGE] = HMM_REF_WORD_EXCHANGE,
		[HMM_REF_ATOMIC_COMPARE_EXCHANGE] =
			HMM_REF_WORD_COMPARE_EXCHANGE,
	};
	struct hmm_ref_atomic *atomic = &cmd->atomic;
	struct hmm_ref_word word = {
		.op = ops[atomic->op],
		.len = atomic->length,
		.operand = atomic->operand,
		.compare = atomic->compare,
	};
	u64 faults;
	int rc = hmm_ref_client_atomic(client, atomic->addr, &word, &faults);

	atomic->out_old = word.old;
	atomic->out_faults = faults;
	return rc;
}

static int cmd_evict(struct hmm_ref_client *client, union hmm_ref_cmd *cmd)
{
	struct hmm_ref_evict *evict = &cmd->evict;
	struct hmm_ref_tally tally;
	int rc;

	rc = hmm_ref_evict_range(client, evict->addr,
				 evict->addr + evict->length, &tally);
	evict->out_evicted = tally.moved;
	evict->out_already = tally.already;
	evict->out_skipped = tally.skipped;
	return rc;
}

static int cmd_evict_all(struct hmm_ref_client *client, union hmm_ref_cmd *cmd)
{
	struct hmm_ref_tally tally;
	int rc = hmm_ref_evict_client(client, &tally);

	cmd->evict_all.out_evicted = tally.moved;
	cmd->evict_all.out_skipped = tally.skipped;
	return rc;
}

/* ---- dispatcher -------------------------------------------------------- */

#define OP(_cmd, _struct, _last, ...)					\
	[HMM_REF_CMD_##_cmd] = {					\
		.size = sizeof(struct _struct) +			\
			BUILD_BUG_ON_ZERO(sizeof(union hmm_ref_cmd) <	\
					  sizeof(struct _struct)),	\
		.min_size = offsetofend(struct _struct, _last),		\
		__VA_ARGS__						\
	}

#define RANGE(_struct, _align)						\
	.range = offsetof(struct _struct, addr) +			\
		 BUILD_BUG_ON_ZERO(offsetof(struct _struct, length) !=	\
				   offsetof(struct _struct, addr) + 8),	\
	.align = (_align)

const struct hmm_ref_op hmm_ref_ops[HMM_REF_NR_CMDS] = {
	OP(INFO, hmm_ref_info, out_capacity, .handler = cmd_info),
	OP(MIGRATE, hmm_ref_migrate, out_skipped, .handler = cmd_migrate,
	   .is_valid = migrate_is_valid, .flags = HMM_REF_MIGRATE_MAP,
	   .reserved = offsetof(struct hmm_ref_migrate, __reserved),
	   RANGE(hmm_ref_migrate, PAGE_SIZE)),
	OP(READ, hmm_ref_access, out_faults, .handler = cmd_read,
	   RANGE(hmm_ref_access, 1)),
	OP(WRITE, hmm_ref_access, out_faults, .handler = cmd_write,
	   RANGE(hmm_ref_access, 1)),
	OP(SNAPSHOT, hmm_ref_snapshot, out_pages, .handler = cmd_snapshot,
	   RANGE(hmm_ref_snapshot, PAGE_SIZE)),
	OP(STATS, hmm_ref_stats, out_cow_breaks, .handler = cmd_stats),
	OP(AUDIT, hmm_ref_audit, out_violations, .handler = cmd_audit),
	OP(EXCLUSIVE, hmm_ref_exclusive, out_pages, .handler = cmd_exclusive,
	   RANGE(hmm_ref_exclusive, PAGE_SIZE)),
	OP(ATOMIC, hmm_ref_atomic, out_faults, .handler = cmd_atomic,
	   .is_valid = atomic_is_valid,
	   .reserved = offsetof(struct hmm_ref_atomic, __reserved),
	   RANGE(hmm_ref_atomic, 4)),
	OP(EVICT, hmm_ref_evict, out_skipped, .handler = cmd_evict,
	   RANGE(hmm_ref_evict, PAGE_SIZE)),
	OP(EVICT_ALL, hmm_ref_evict_all, out_skipped, .handler = cmd_evict_all),
};
EXPORT_SYMBOL_IF_KUNIT(hmm_ref_ops);

static int check_cmd(const struct hmm_ref_op *op, const struct mm_struct *mm,
		     const union hmm_ref_cmd *cmd)
{
	const u64 *range = (const void *)cmd + op->range;
	int rc;

	if (cmd->common.flags & ~op->flags)
		return -EOPNOTSUPP;
	if (op->reserved && *(const u32 *)((const void *)cmd + op->reserved))
		return -EOPNOTSUPP;
	if (op->range) {
		if (current->mm != mm)
			return -EBADF;
		rc = hmm_ref_check_range(range[0], range[1], op->align);
		if (rc)
			return rc;
	}
	return op->is_valid && !op->is_valid(cmd) ? -EINVAL : 0;
}

/**
 * hmm_ref_get_cmd() - read a command from user space and check it
 * @op: the command's line in the table
 * @mm: address space that a range must belong to
 * @ucmd: user pointer to the command's struct
 * @cmd: destination. Members that an older struct lacks are 0. The size is that
 *	given by the user, which may be larger than that of @op
 *
 * Context: the process that issued the command; may fault.
 * Return: 0 for a valid command, apart from the mappings in its range; or the
 * errno that the uapi defines, with nothing changed.
 */
int hmm_ref_get_cmd(const struct hmm_ref_op *op, const struct mm_struct *mm,
		    void __user *ucmd, union hmm_ref_cmd *cmd)
{
	u32 size;
	int rc;

	if (get_user(size, (u32 __user *)ucmd))
		return -EFAULT;
	if (size < op->min_size)
		return -EINVAL;
	if (size > PAGE_SIZE)
		return -E2BIG;
	rc = copy_struct_from_user(cmd, op->size, ucmd, size);
	if (rc)
		return rc;
	/* User space may have changed it since it was checked. */
	cmd->common.size = size;
	return check_cmd(op, mm, cmd);
}
EXPORT_SYMBOL_IF_KUNIT(hmm_ref_get_cmd);

/**
 * hmm_ref_ioctl() - the ioctl of a file
 * @file: open file
 * @number: command number
 * @arg: user pointer to the command's struct
 *
 * The struct is copied outside of the SRCU section that removal waits for. A
 * page of it that the handler of a userfaultfd has yet to deliver must not
 * delay removal.
 *
 * Return: 0 or -errno.
 */
long hmm_ref_ioctl(struct file *file, unsigned int number, unsigned long arg)
{
	struct hmm_ref_client *client = file->private_data;
	struct hmm_ref_device *dev = client->dev;
	void __user *ucmd = (void __user *)arg;
	unsigned int nr = _IOC_NR(number);
	const struct hmm_ref_op *op;
	union hmm_ref_cmd cmd;
	unsigned int size;
	int srcu_idx;
	int rc;

	if (nr >= ARRAY_SIZE(hmm_ref_ops) ||
	    number != _IO(HMM_REF_IOC_TYPE, nr))
		return -ENOTTY;
	op = &hmm_ref_ops[nr];
	if (READ_ONCE(dev->gone))
		return -ENODEV;
	rc = hmm_ref_get_cmd(op, client->mirror.mm, ucmd, &cmd);
	if (rc)
		return rc;
	/* Do nothing if its results could not be reported. */
	size = min(cmd.common.size, op->size);
	if (copy_to_user(ucmd, &cmd, size))
		return -EFAULT;

	/* A device that is not gone here stays until the handler returns. */
	srcu_idx = srcu_read_lock(&dev->unplug);
	rc = READ_ONCE(dev->gone) ? -ENODEV : op->handler(client, &cmd);
	srcu_read_unlock(&dev->unplug, srcu_idx);

	return copy_to_user(ucmd, &cmd, size) ? -EFAULT : rc;
}
