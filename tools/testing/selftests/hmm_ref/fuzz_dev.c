// SPDX-License-Identifier: GPL-2.0-only
/*
 * The fuzzer's operations on devices, by the native and the old interface. Each returns 0, or an
 * error that is allowed here. Any other result ends in fuzz_fail().
 *
 * Checks of every native command: the error is documented; the inputs have not changed; the counts
 * of a successful migration add up; a successful access has processed all bytes. In owned regions
 * also: the data, the old value of an atomic operation, and that EFAULT and EPERM are returned if
 * and only if the protection requires it.
 */
#include "fuzz.h"
#include "hmm_ref_old.h"

/* ---- open files ------------------------------------------------------------------ */

/* Shared by the threads, which open and close files that others use. */
unsigned int files[FILES];

unsigned int file_swap(unsigned int slot, unsigned int file)
{
	return __atomic_exchange_n(&files[slot % FILES], file, __ATOMIC_ACQ_REL);
}

/* Finds the first file of a kind at or after a slot. Returns 0 if there is none. */
unsigned int file_find(unsigned int slot, unsigned int old)
{
	unsigned int i, file;

	for (i = 0; i < FILES; i++) {
		file = __atomic_load_n(&files[(slot + i) % FILES], __ATOMIC_ACQUIRE);
		if (file && (file & FILE_OLD) == old)
			return file;
	}
	return 0;
}

int file_fd(unsigned int file)
{
	return (file & FILE_FD) - 1;
}

/*
 * A thread may use an fd that another one has just closed. By then it must not belong to a file of
 * the other kind, so each kind has its own range of numbers.
 */
int own_number(int fd, bool old)
{
	int number = fcntl(fd, F_DUPFD_CLOEXEC, old ? 512 : 256);

	close(fd);
	return number;
}

int do_open(const struct op *op)
{
	unsigned int nr = op->variant % (shared->devices + shared->old_devices);
	bool old = nr >= shared->devices;
	char path[32];
	unsigned int was;
	int fd;

	snprintf(path, sizeof(path), "/dev/%s%u", old ? "hmm_dmirror" : "hmm_ref",
		 old ? nr - shared->devices : nr);
	fd = open(path, O_RDWR | O_CLOEXEC);
	if (fd < 0) {
		if (errno != ENOENT && errno != ENODEV && errno != ENXIO &&
		    errno != ENOMEM && errno != EINTR)
			fuzz_fail("open %s: errno %d", path, errno);
		return -errno;
	}
	fd = own_number(fd, old);
	if (fd < 0)
		return -errno;
	was = file_swap(op->slot, (fd + 1) | (old ? FILE_OLD : 0));
	if (was)
		close(file_fd(was));
	return 0;
}

int do_close(const struct op *op)
{
	unsigned int was = file_swap(op->slot, 0);

	return was && !close(file_fd(was)) ? 0 : -EBADF;
}

/* ---- places ---------------------------------------------------------------------- */

/* Memory with code, data, stack and model: it may be migrated but not changed. */
static char *anywhere(const struct op *op)
{
	switch (op->value % 4) {
	case 0:
		return (char *)&files;
	case 1:
		return (char *)op;
	case 2:
		return (char *)&verify_all;
	default:
		return (char *)MEGA(64) + op->page * PAGE;
	}
}

/* With @change the operation may write the pages or drop them. */
void find_place(const struct op *op, bool change, unsigned long limit, struct place *at)
{
	unsigned int i = op->region;

	memset(at, 0, sizeof(*at));
	if (i == 15 && !change && shared_get(wild)) {
		at->addr = (char *)((unsigned long)anywhere(op) & ~(PAGE - 1));
		at->npages = op->npages < limit ? op->npages : limit;
		at->bytes = PAGE;
		return;
	}
	at->region = &regions[i < 7 ? R_BIG : i < 10 ? R_FORKED : i < 13 ? R_CHAOS :
			      i < 14 ? R_HUGE : R_SHARED];
	if (change && at->region->shadow && !owner)
		at->region = &regions[R_CHAOS];
	at->page = op->page % at->region->npages;
	at->npages = at->region->npages - at->page;
	if (at->npages > op->npages)
		at->npages = op->npages;
	if (at->npages > limit)
		at->npages = limit;
	at->addr = at->region->base + at->page * PAGE;
	at->off = at->page * PAGE + op->offset;
	at->bytes = at->region->npages * PAGE - at->off;
	if (at->bytes > op->bytes)
		at->bytes = op->bytes;
}

bool place_is_owned(const struct place *at)
{
	return at->region && is_owned(at->region);
}

/* Checks data that was read from the place in any way. */
void check_data(const struct place *at, size_t off, const char *seen, size_t n, const char *who)
{
	if (place_is_owned(at))
		check_seen(at->region, off, seen, n, who);
	else if (holds_ids(at->region))
		check_ids(seen, n, at->addr);
}

/* Returns the bytes to write there. */
const char *data_for(const struct place *at, const struct op *op, size_t n)
{
	if (!place_is_owned(at))
		return IDS;
	make_data(data, n, op->value);
	return data;
}

/* ---- native ---------------------------------------------------------------------- */

static bool is_documented(int rc)
{
	switch (-rc) {
	case 0: case ENOTTY: case E2BIG: case EOPNOTSUPP: case EINVAL: case EOVERFLOW:
	case EFAULT: case EPERM: case EBADF: case ENODEV: case ENOMEM: case EBUSY:
	case EINTR:
		return true;
	case EIO:
		return may_fail() || shared->poison;
	default:
		return false;
	}
}

int checked(int rc, const char *what)
{
	if (!is_documented(rc))
		fuzz_fail("%s: undocumented %d", what, rc);
	return rc;
}

int do_migrate(const struct op *op)
{
	unsigned int what = op->variant % 5, file = file_find(op->slot, 0);
	struct hmm_ref_migrate cmd;
	struct place at;
	int rc;

	if (!file)
		return -ENXIO;
	find_place(op, false, -1UL, &at);
	rc = checked(_test_migrate_flags(file_fd(file), what ? 0 : HMM_REF_MIGRATE_MAP,
					 what < 3 ? HMM_REF_TO_DEVICE : HMM_REF_TO_SYSTEM,
					 at.addr, at.npages * PAGE, &cmd), "MIGRATE");
	if (!rc && cmd.out_migrated + cmd.out_already + cmd.out_skipped != at.npages)
		fuzz_fail("MIGRATE of %lu pages: %llu + %llu + %llu", at.npages,
			  cmd.out_migrated, cmd.out_already, cmd.out_skipped);
	if (place_is_owned(&at) && (rc == -EFAULT || rc == -EINVAL))
		fuzz_fail("MIGRATE of mapped anonymous memory: %d", rc);
	if (place_is_owned(&at) && what < 3 && rc != -EBADF && rc != -ENODEV) {
		__atomic_add_fetch(&shared->asked, at.npages, __ATOMIC_RELAXED);
		__atomic_add_fetch(&shared->moved, rc ? 0 : cmd.out_migrated + cmd.out_already,
				   __ATOMIC_RELAXED);
	}
	return rc;
}

/* Only the protection, or an injected failure, may make a device access fail. */
static void check_access(const struct place *at, int rc, size_t n, unsigned char bits)
{
	bool good = rc != -EFAULT && rc != -EPERM;

	if (rc == -EINVAL)
		fuzz_fail("access to %p + %zu: EINVAL", at->region->base + at->off, n);
	if (may(at->region, at->off, n, bits) ? !good && !may_fail() : !rc)
		fuzz_fail("access to %p + %zu: %d against the protection",
			  at->region->base + at->off, n, rc);
}

static int do_access(const struct op *op, bool write)
{
	unsigned int file = file_find(op->slot, 0);
	struct hmm_ref_access cmd;
	const char *buf = scratch;
	struct place at;
	int rc;

	if (!file)
		return -ENXIO;
	find_place(op, write, SMALL_PAGES, &at);
	if (write)
		buf = data_for(&at, op, at.bytes);
	rc = checked(_test_access(file_fd(file), write ? HMM_REF_IOC_WRITE :
				  HMM_REF_IOC_READ, at.region ? at.region->base + at.off :
				  at.addr, at.bytes, buf, &cmd), write ? "WRITE" : "READ");
	if (rc == -EBADF || (rc == -ENODEV && cmd.out_bytes == 0xccccccccccccccccULL))
		return rc;
	if (rc ? cmd.out_bytes > at.bytes : cmd.out_bytes != at.bytes)
		fuzz_fail("access: %d, %llu bytes of %zu", rc, cmd.out_bytes, at.bytes);
	if (!write)
		check_data(&at, at.off, scratch, cmd.out_bytes, "READ");
	else if (place_is_owned(&at))
		note_written(at.region, at.off, buf, cmd.out_bytes);
	if (place_is_owned(&at))
		check_access(&at, rc, at.bytes, write ? MAY_READ | MAY_WRITE : MAY_READ);
	return rc;
}

int do_read(const struct op *op)
{
	return do_access(op, false);
}

int do_write(const struct op *op)
{
	return do_access(op, true);
}

/* Compares the result of SNAPSHOT for a page with the model. */
static bool state_is_good(const struct place *at, unsigned long page,
			  const struct hmm_ref_page_state *state)
{
	bool write = state->flags & (HMM_REF_PAGE_WRITE | HMM_REF_PAGE_DEV_WRITE);
	const char *shadow;
	unsigned char may;

	if (state->where > HMM_REF_PAGE_REMOTE || state->why > HMM_REF_WHY_SPECIAL ||
	    state->flags > 15 || state->order > 18)
		return false;
	if (state->where == HMM_REF_PAGE_NONE ? state->why > HMM_REF_WHY_TRAPPED :
	    state->where == HMM_REF_PAGE_ERROR ? state->why < HMM_REF_WHY_UNMAPPED :
						 state->why)
		return false;
	if (!(state->flags & HMM_REF_PAGE_MAPPED) && (state->flags & HMM_REF_PAGE_DEV_WRITE))
		return false;
	if (!place_is_owned(at))
		return true;
	may = at->region->state[page];
	shadow = at->region->shadow + page * PAGE;
	/* A page is an error to a device if and only if it is not readable. */
	if (may & MAY_READ ? state->where == HMM_REF_PAGE_ERROR :
			     state->why != HMM_REF_WHY_UNREADABLE)
		return false;
	if (write && !(may & MAY_WRITE))
		return false;
	/* The zero page has no data. */
	return state->where != HMM_REF_PAGE_ZERO || (may & DROPPED) || all_zero(shadow, PAGE);
}

static void check_state(const struct place *at, unsigned long page,
			const struct hmm_ref_page_state *state)
{
	if (!state_is_good(at, page, state))
		fuzz_fail("SNAPSHOT: page %lu is where %u why %u flags %u order %u, may %d",
			  page, state->where, state->why, state->flags, state->order,
			  place_is_owned(at) ? at->region->state[page] : 0);
}

int do_snapshot(const struct op *op)
{
	unsigned int file = file_find(op->slot, 0);
	struct hmm_ref_page_state *states = (void *)scratch;
	struct hmm_ref_snapshot cmd;
	struct place at;
	unsigned long i;
	int rc;

	if (!file)
		return -ENXIO;
	find_place(op, false, SMALL_PAGES * PAGE / sizeof(*states), &at);
	rc = checked(_test_snapshot(file_fd(file), at.addr, at.npages * PAGE, states,
				    &cmd), "SNAPSHOT");
	if (rc)
		return rc;
	if (cmd.out_pages != at.npages)
		fuzz_fail("SNAPSHOT: %llu pages of %lu", cmd.out_pages, at.npages);
	for (i = 0; i < at.npages; i++)
		check_state(&at, at.page + i, &states[i]);
	return 0;
}

static int read_some_file(const char *path)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	int rc;

	if (fd < 0)
		return -errno;
	rc = read(fd, scratch, SMALL_PAGES * PAGE) < 0 ? -errno : 0;
	close(fd);
	return rc;
}

/* Reads the state of the device, and files in which the kernel shows a process. */
int do_look(const struct op *op)
{
	static const char *const paths[] = {
		"/proc/self/smaps", "/proc/self/pagemap", "/proc/self/numa_maps",
		"/sys/kernel/debug/hmm_ref/hmm_ref0/audit",
		"/sys/kernel/debug/hmm_ref/hmm_ref1/stats",
	};
	unsigned int file = file_find(op->slot, 0);
	struct hmm_ref_audit audit;
	struct hmm_ref_stats stats;
	struct hmm_ref_info info;
	char path[48];
	int rc;

	if (!file)
		return -ENXIO;
	switch (op->variant % 6) {
	case 0:
		return checked(_test_info(file_fd(file), &info), "INFO");
	case 1:
		return checked(_test_stats(file_fd(file), &stats), "STATS");
	case 2:
		rc = checked(_test_audit(file_fd(file), &audit), "AUDIT");
		if (!rc && (audit.out_violations || audit.out_total !=
			    audit.out_free + audit.out_in_use + audit.out_retired))
			fuzz_fail("AUDIT: %llu violations, %llu in all, %llu free, %llu in use",
				  audit.out_violations, audit.out_total,
				  audit.out_free, audit.out_in_use);
		return rc;
	case 3:
		snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", file_fd(file));
		return read_some_file(path);
	default:
		return read_some_file(paths[op->value % ARRAY_SIZE(paths)]);
	}
}

int do_exclusive(const struct op *op)
{
	unsigned int file = file_find(op->slot, 0);
	struct hmm_ref_exclusive cmd;
	struct place at;
	int rc;

	if (!file)
		return -ENXIO;
	find_place(op, true, 512, &at);
	rc = checked(_test_exclusive(file_fd(file), at.addr, at.npages * PAGE, &cmd),
		     "EXCLUSIVE");
	if (!rc && cmd.out_pages != at.npages)
		fuzz_fail("EXCLUSIVE: %llu pages of %lu", cmd.out_pages, at.npages);
	at.off = at.page * PAGE;
	if (place_is_owned(&at) && rc != -EBADF)
		check_access(&at, rc, at.npages * PAGE, MAY_READ | MAY_WRITE);
	return rc;
}

/* Returns the value that an atomic operation stores. */
static uint64_t atomic_result(unsigned int kind, uint64_t was, uint64_t operand, uint64_t compare,
			      unsigned int length)
{
	uint64_t now = operand;

	if (kind == HMM_REF_ATOMIC_ADD)
		now = was + operand;
	else if (kind == HMM_REF_ATOMIC_COMPARE_EXCHANGE && was != compare)
		now = was;
	return length == 8 ? now : (uint32_t)now;
}

int do_atomic(const struct op *op)
{
	unsigned int kind = 1 + op->variant % 3, length = op->variant & 8 ? 4 : 8;
	unsigned int file = file_find(op->slot, 0);
	uint64_t operand, compare = 0, want = 0, now;
	struct hmm_ref_atomic cmd;
	struct place at;
	int rc;

	if (!file)
		return -ENXIO;
	find_place(op, true, 1, &at);
	at.off &= ~7UL;
	/* In other regions all bytes must stay ids. */
	memset(&operand, own_id, sizeof(operand));
	if (place_is_owned(&at)) {
		operand = op->value;
		memcpy(&want, at.region->shadow + at.off, length);
	} else if (kind == HMM_REF_ATOMIC_ADD) {
		operand = 0;
	}
	operand = length == 8 ? operand : (uint32_t)operand;
	if (kind == HMM_REF_ATOMIC_COMPARE_EXCHANGE)
		compare = op->variant & 16 ? want : 0;
	rc = checked(_test_atomic(file_fd(file), kind, at.region->base + at.off, length,
				  operand, compare, &cmd), "ATOMIC");
	if (!place_is_owned(&at) || rc == -EBADF)
		return rc;
	check_access(&at, rc, length, MAY_READ | MAY_WRITE);
	if (rc)
		return rc;
	if (cmd.out_old != want && (cmd.out_old ||
				    !(at.region->state[at.page] & DROPPED)))
		fuzz_fail("ATOMIC: old %#llx, not %#llx", cmd.out_old,
			  (unsigned long long)want);
	now = atomic_result(kind, cmd.out_old, operand, compare, length);
	note_written(at.region, at.off, (char *)&now, length);
	return 0;
}

/* ---- old ------------------------------------------------------------------------- */

bool is_documented_old(int rc)
{
	return rc == -ENOENT || is_documented(rc);
}

/* A file that the parent has opened acts on the parent, so it must not write. */
int do_old(const struct op *op)
{
	unsigned int nr = op->variant % OLD_COMMANDS, file = file_find(op->slot, FILE_OLD);
	struct old_cmd cmd;
	const char *buf = scratch;
	struct place at;
	bool copies;
	int rc;

	if (!file || ((file & FILE_FOREIGN) && (nr == OLD_WRITE || nr == OLD_EXCLUSIVE)) ||
	    (nr == OLD_RELEASE && op->value % 8))
		return -ENXIO;
	find_place(op, nr == OLD_WRITE || nr == OLD_EXCLUSIVE, SMALL_PAGES, &at);
	if (nr == OLD_WRITE)
		buf = data_for(&at, op, at.npages * PAGE);
	rc = old_command(file_fd(file), nr, at.addr,
			 nr == OLD_FLAGS ? op->value % 2 : at.npages, buf, &cmd);
	if (!is_documented_old(rc) || cmd.addr != (unsigned long)at.addr ||
	    cmd.buf != (unsigned long)buf)
		fuzz_fail("old command %u: %d", nr, rc);
	if (nr == OLD_FLAGS || nr == OLD_RELEASE || (file & FILE_FOREIGN) || rc == -EBADF)
		return rc;
	if (!rc && nr != OLD_CHECK_EXCLUSIVE && nr != OLD_TO_SYSTEM &&
	    cmd.out_pages != at.npages)
		fuzz_fail("old command %u: %llu pages of %lu", nr, cmd.out_pages, at.npages);
	if (!at.region)
		return rc;
	copies = nr == OLD_READ || nr == OLD_READ_UNLOCKED ||
		 (!rc && (nr == OLD_TO_DEVICE || nr == OLD_EXCLUSIVE));
	if (copies)
		check_data(&at, at.page * PAGE, scratch, cmd.out_pages * PAGE, "old");
	else if (nr == OLD_WRITE && place_is_owned(&at))
		note_written(at.region, at.page * PAGE, buf, cmd.out_pages * PAGE);
	return rc;
}
