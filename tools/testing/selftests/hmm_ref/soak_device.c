// SPDX-License-Identifier: GPL-2.0-only
/*
 * The soak test's operations on devices. Each returns 0 or an error that is allowed.
 */
#include "hmm_ref_old.h"
#include "soak.h"

static __thread int files[HMM_REF_MAX_DEVICES];		/* fd + 1; 0: not open */

/* ---- files ----------------------------------------------------------------------- */

static void close_file(unsigned int nr)
{
	if (files[nr])
		close(files[nr] - 1);
	files[nr] = 0;
}

/**
 * soak_close_files() - close this thread's files
 */
void soak_close_files(void)
{
	unsigned int i;

	for (i = 0; i < HMM_REF_MAX_DEVICES; i++)
		close_file(i);
}

/**
 * soak_open() - get this thread's file of a device
 * @op: operation that needs the file
 *
 * Return: the file, or -1 when the device is unbound.
 */
int soak_open(const struct soak_op *op)
{
	unsigned int nr = op->device % soak->devices;
	int fd;

	if (files[nr])
		return files[nr] - 1;
	fd = hmm_ref_open(nr);
	if (fd < 0 && fd != -ENOENT && fd != -ENODEV && fd != -ENXIO && fd != -EINTR)
		soak_fail(SOAK_ERROR, "open of device %u: %d", nr, fd);
	if (fd < 0)
		return -1;
	files[nr] = fd + 1;
	return fd;
}

static int do_reopen(const struct soak_op *op)
{
	close_file(op->device % soak->devices);
	return soak_open(op) < 0 ? -ENXIO : 0;
}

/* ---- errors ---------------------------------------------------------------------- */

/**
 * soak_checked() - check that the error of a command or system call is allowed
 * @op: operation
 * @rc: 0 or -errno
 * @column: column of the table of modes
 * @always: MAY_* bits of errors that are possible without a mode
 *
 * The second thread works on memory that its main thread may have unmapped.
 *
 * Return: @rc.
 */
int soak_checked(const struct soak_op *op, int rc, enum soak_column column, unsigned int always)
{
	unsigned int bit = soak_bit_of(rc);

	/* As a CPU access gets SIGBUS. */
	if (soak_any_lost())
		always |= MAY_EFAULT | MAY_EIO;
	if (rc == -ENODEV)
		close_file(op->device % soak->devices);
	if (!rc || rc == -ENODEV || rc == -EBUSY || rc == -EINTR || bit & always ||
	    (soak_is_mover && rc == -EFAULT))
		return rc;
	if (!(bit & soak_modes_may(column)))
		soak_fail(SOAK_ERROR, "%s: %d, and nothing was made to fail",
			  soak_kind_name(op->kind), rc);
	soak_note_injected();
	return rc;
}

/* As soak_checked(), for an access, which has to fail where the protection does not allow it. */
static int checked_access(const struct soak_op *op, const struct soak_place *at, size_t n, int rc,
			  unsigned char bits)
{
	bool may = soak_may(at->region, at->off, n, bits);

	if (soak_is_mover)
		return soak_checked(op, rc, SOAK_BY_ACCESS, MAY_EFAULT);
	if (!rc && !may)
		soak_fail(SOAK_ERROR, "%s of %p + %zu went past the protection",
			  soak_kind_name(op->kind), at->region->base + at->off, n);
	if (!may && (rc == -EFAULT || rc == -EPERM))
		return rc;
	return soak_checked(op, rc, SOAK_BY_ACCESS, 0);
}

/* ---- the device ------------------------------------------------------------------ */

static int do_migrate(const struct soak_op *op)
{
	unsigned int what = op->variant % 5;
	struct hmm_ref_migrate cmd;
	int fd = soak_open(op), rc;
	struct soak_place at;

	if (fd < 0)
		return -ENXIO;
	soak_find_place(op, &at);
	rc = _test_migrate_flags(fd, what ? 0 : HMM_REF_MIGRATE_MAP,
				 what < 3 ? HMM_REF_TO_DEVICE : HMM_REF_TO_SYSTEM, at.addr,
				 at.npages * PAGE, &cmd);
	if (!rc && cmd.out_migrated + cmd.out_already + cmd.out_skipped != at.npages)
		soak_fail(SOAK_ERROR, "MIGRATE of %lu pages: %llu + %llu + %llu", at.npages,
			  cmd.out_migrated, cmd.out_already, cmd.out_skipped);
	/* The device may be full. */
	return soak_checked(op, rc, SOAK_BY_MIGRATE, what < 3 ? MAY_ENOMEM : 0);
}

/*
 * Returns the number of bytes processed, also by a command that failed. A refused command has
 * processed none.
 */
static size_t bytes_done(const struct hmm_ref_access *cmd, size_t bytes, int rc)
{
	if (cmd->out_bytes <= bytes && (rc || cmd->out_bytes == bytes))
		return cmd->out_bytes;
	if (!rc)
		soak_fail(SOAK_ERROR, "access of %zu bytes: %llu", bytes, cmd->out_bytes);
	return 0;
}

static int do_read(const struct soak_op *op)
{
	struct hmm_ref_access cmd;
	int fd = soak_open(op), rc;
	struct soak_place at;
	size_t done;

	if (fd < 0)
		return -ENXIO;
	soak_find_place(op, &at);
	rc = _test_access(fd, HMM_REF_IOC_READ, at.region->base + at.off, at.bytes, soak_scratch,
			  &cmd);
	done = bytes_done(&cmd, at.bytes, rc);
	if (!soak_is_mover)
		soak_check(at.region, at.off, soak_scratch, done, "READ");
	return checked_access(op, &at, at.bytes, rc, MAY_READ);
}

static int do_write(const struct soak_op *op)
{
	struct hmm_ref_access cmd;
	int fd = soak_open(op), rc;
	struct soak_place at;

	if (fd < 0)
		return -ENXIO;
	soak_find_place(op, &at);
	soak_make_data(op, at.bytes);
	rc = _test_access(fd, HMM_REF_IOC_WRITE, at.region->base + at.off, at.bytes, soak_data,
			  &cmd);
	soak_note_written(at.region, at.off, soak_data, bytes_done(&cmd, at.bytes, rc));
	return checked_access(op, &at, at.bytes, rc, MAY_READ | MAY_WRITE);
}

static int do_atomic(const struct soak_op *op)
{
	unsigned int kind = 1 + op->variant % 3, length = op->variant & 8 ? 4 : 8;
	uint64_t operand, compare = 0, want = 0, now;
	struct hmm_ref_atomic cmd;
	int fd = soak_open(op), rc;
	struct soak_place at;

	if (fd < 0)
		return -ENXIO;
	soak_find_place(op, &at);
	at.off &= ~7UL;
	memcpy(&want, at.region->shadow + at.off, length);
	operand = length == 8 ? op->value : (uint32_t)op->value;
	if (kind == HMM_REF_ATOMIC_COMPARE_EXCHANGE)
		compare = op->variant & 16 ? want : 0;
	rc = _test_atomic(fd, kind, at.region->base + at.off, length, operand, compare, &cmd);
	if (checked_access(op, &at, length, rc, MAY_READ | MAY_WRITE))
		return rc;
	if (cmd.out_old != want && (cmd.out_old || !(at.region->state[at.page] & FREED)))
		soak_fail(SOAK_DATA, "ATOMIC at %p: old value %#llx, not %#llx",
			  at.region->base + at.off, cmd.out_old, (unsigned long long)want);
	now = operand;
	if (kind == HMM_REF_ATOMIC_ADD)
		now = cmd.out_old + operand;
	else if (kind == HMM_REF_ATOMIC_COMPARE_EXCHANGE && cmd.out_old != compare)
		now = cmd.out_old;
	soak_note_written(at.region, at.off, (char *)&now, length);
	return 0;
}

static int do_exclusive(const struct soak_op *op)
{
	struct hmm_ref_exclusive cmd;
	int fd = soak_open(op), rc;
	struct soak_place at;

	if (fd < 0)
		return -ENXIO;
	soak_find_place(op, &at);
	at.off = at.page * PAGE;
	rc = _test_exclusive(fd, at.addr, at.npages * PAGE, &cmd);
	return checked_access(op, &at, at.npages * PAGE, rc, MAY_READ | MAY_WRITE);
}

static int do_evict(const struct soak_op *op)
{
	struct hmm_ref_evict cmd;
	int fd = soak_open(op), rc;
	struct soak_place at;

	if (fd < 0)
		return -ENXIO;
	soak_find_place(op, &at);
	rc = _test_evict(fd, at.addr, at.npages * PAGE, &cmd);
	if (!rc && cmd.out_evicted + cmd.out_already + cmd.out_skipped != at.npages)
		soak_fail(SOAK_ERROR, "EVICT of %lu pages: %llu + %llu + %llu", at.npages,
			  cmd.out_evicted, cmd.out_already, cmd.out_skipped);
	return soak_checked(op, rc, SOAK_BY_MIGRATE, 0);
}

/*
 * Evicts all pages of the file, or, by the old interface, of the device, with those of other
 * processes.
 */
static int do_release(const struct soak_op *op)
{
	struct hmm_ref_evict_all cmd = { .size = sizeof(cmd) };
	int fd, rc;

	if (op->variant & 1) {
		fd = old_open(op->device % soak->devices);
		if (fd < 0)
			return -ENXIO;
		rc = old_release(fd);
		close(fd);
		return rc;
	}
	fd = soak_open(op);
	if (fd < 0)
		return -ENXIO;
	rc = _test_ioctl(fd, HMM_REF_IOC_EVICT_ALL, &cmd);
	return soak_checked(op, rc, SOAK_BY_MIGRATE, 0);
}

static int do_snapshot(const struct soak_op *op)
{
	struct hmm_ref_page_state *states = (void *)soak_scratch;
	struct hmm_ref_snapshot cmd;
	int fd = soak_open(op), rc;
	struct soak_place at;

	if (fd < 0)
		return -ENXIO;
	soak_find_place(op, &at);
	rc = _test_snapshot(fd, at.addr, at.npages * PAGE, states, &cmd);
	if (!rc && cmd.out_pages != at.npages)
		soak_fail(SOAK_ERROR, "SNAPSHOT of %lu pages: %llu", at.npages, cmd.out_pages);
	return soak_checked(op, rc, SOAK_BY_ACCESS, 0);
}

/* ---- dispatch -------------------------------------------------------------------- */

/**
 * soak_device_op() - run an operation on a device
 * @op: the operation
 *
 * Return: 0, an error that is allowed, or -ENXIO when there is no device at the moment.
 */
int soak_device_op(const struct soak_op *op)
{
	switch (op->kind) {
	case SOAK_MIGRATE:
		return do_migrate(op);
	case SOAK_READ:
		return do_read(op);
	case SOAK_WRITE:
		return do_write(op);
	case SOAK_ATOMIC:
		return do_atomic(op);
	case SOAK_EXCLUSIVE:
		return do_exclusive(op);
	case SOAK_EVICT:
		return do_evict(op);
	case SOAK_RELEASE:
		return do_release(op);
	case SOAK_SNAPSHOT:
		return do_snapshot(op);
	case SOAK_REOPEN:
		return do_reopen(op);
	default:
		return -ENXIO;
	}
}
