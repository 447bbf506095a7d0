// SPDX-License-Identifier: GPL-2.0-only
/*
 * The operations of the benchmark: initial state, operation, final state.
 *
 * A job is one worker's share: a range of memory and an open file. Per repetition:
 *
 *   job_prepare()	brings the range into the state that the operation starts from;
 *			does nothing if the last repetition has left it there
 *   job_run()		the operation alone, which the caller times
 *   job_check()	checks where the pages are; with verify set, compares
 *			every byte, which brings all pages to system memory
 *
 * All return 0 or -errno; -EPROTO is a wrong count, -EILSEQ a wrong byte.
 */
#include "bench.h"
#include "hmm_ref_old.h"

#define TOUCH_STRIDE	64UL	/* pages; more than a driver migrates around a fault */

#define ON_NATIVE	ON(SRC_HMM_REF)
#define ON_OLD		(ON(SRC_OLD) | ON(SRC_TEST_HMM))
#define ON_MIRRORS	(ON_NATIVE | ON_OLD)
#define ON_DEVICES	(ON_MIRRORS | ON(SRC_FLOOR))

/* ---- operations ---------------------------------------------------------------- */

static int run_to_device(struct job *job)
{
	return dev_to_device(job->source, job->fd, job->range.mem, job->range.npages, job->buf);
}

static int run_to_device_map(struct job *job)
{
	return native_migrate(job->fd, HMM_REF_TO_DEVICE, HMM_REF_MIGRATE_MAP, job->range.mem,
			      job->range.npages);
}

static int run_to_system(struct job *job)
{
	return dev_to_system(job->source, job->fd, job->range.mem, job->range.npages);
}

static char *touched_page(const struct job *job, unsigned long i)
{
	return job->range.mem + job->order[i] * page_size();
}

static int run_touch_read(struct job *job)
{
	unsigned long long start;
	unsigned long i;

	for (i = 0; !job->hist && i < job->range.npages; i++)
		touch_read(touched_page(job, i));
	for (; i < job->range.npages; i++) {
		start = now_ns();
		touch_read(touched_page(job, i));
		hist_add(job->hist, now_ns() - start);
	}
	return 0;
}

/* Writes the data that the page holds already. */
static void touch_write_word(const struct job *job, unsigned long i)
{
	__atomic_store_n((unsigned long *)touched_page(job, i),
			 pattern_word(job->seed, job->order[i], 0), __ATOMIC_RELAXED);
}

static int run_touch_write(struct job *job)
{
	unsigned long long start;
	unsigned long i;

	for (i = 0; !job->hist && i < job->range.npages; i++)
		touch_write_word(job, i);
	for (; i < job->range.npages; i++) {
		start = now_ns();
		touch_write_word(job, i);
		hist_add(job->hist, now_ns() - start);
	}
	return 0;
}

static int run_dev_read(struct job *job)
{
	return dev_access(job->source, job->fd, false, job->range.mem, job->range.npages,
			  job->buf);
}

static int run_dev_write(struct job *job)
{
	return dev_access(job->source, job->fd, true, job->range.mem, job->range.npages,
			  job->buf);
}

static int run_snapshot(struct job *job)
{
	return dev_snapshot(job->source, job->fd, job->range.mem, job->range.npages, job->buf);
}

static int run_exclusive(struct job *job)
{
	return dev_exclusive(job->source, job->fd, job->range.mem, job->range.npages, job->buf);
}

/* Adds 0 to the first word of each page. */
static int run_atomic(struct job *job)
{
	struct hmm_ref_atomic cmd = {
		.size = sizeof(cmd), .op = HMM_REF_ATOMIC_ADD, .length = 8,
		.addr = (unsigned long)job->range.mem,
	};
	unsigned long i;

	for (i = 0; i < job->range.npages; i++, cmd.addr += page_size())
		if (ioctl(job->fd, HMM_REF_IOC_ATOMIC, &cmd))
			return -errno;
	return 0;
}

static int run_evict(struct job *job)
{
	return old_ioctl(job->fd, OLD_RELEASE, job->range.mem, job->range.npages, NULL);
}

static int run_memcpy(struct job *job)
{
	memcpy(job->buf, job->range.mem, job->range.size);
	return 0;
}

static int run_move_pages(struct job *job)
{
	long there = range_move(&job->range, job->nodes[1], job->move_pages, job->move_nodes,
				job->move_status);

	return there < 0 ? there : there == (long)job->range.npages ? 0 : -EPROTO;
}

const struct operation_info operations[NR_OPERATIONS] = {
	[OP_TO_DEVICE] = { "to_device", ON_DEVICES, IN_SYSTEM, ON_DEVICE, run_to_device,
			   .fills = true },
	[OP_TO_SYSTEM] = { "to_system", ON_DEVICES, ON_DEVICE, IN_SYSTEM, run_to_system },
	[OP_TO_DEVICE_MAP] = { "to_device_map", ON_NATIVE, IN_SYSTEM, ON_DEVICE_MAPPED,
			       run_to_device_map, .fills = true },
	[OP_FAULT_SEQ] = { "fault_seq", ON_DEVICES, ON_DEVICE, IN_SYSTEM, run_touch_read,
			   .touches = true },
	[OP_FAULT_SEQ_WRITE] = { "fault_seq_write", ON_DEVICES, ON_DEVICE, IN_SYSTEM,
				 run_touch_write, .touches = true },
	[OP_FAULT_RANDOM] = { "fault_random", ON_DEVICES, ON_DEVICE, IN_SYSTEM, run_touch_read,
			      .touches = true },
	[OP_FAULT_RANDOM_WRITE] = { "fault_random_write", ON_DEVICES, ON_DEVICE, IN_SYSTEM,
				    run_touch_write, .touches = true },
	[OP_FAULT_STRIDE] = { "fault_stride", ON_DEVICES, ON_DEVICE, IN_SYSTEM, run_touch_read,
			      .touches = true },
	[OP_FAULT_STRIDE_WRITE] = { "fault_stride_write", ON_DEVICES, ON_DEVICE, IN_SYSTEM,
				    run_touch_write, .touches = true },
	[OP_DEV_READ] = { "dev_read", ON_MIRRORS, ON_DEVICE_MAPPED, ON_DEVICE_MAPPED,
			  run_dev_read },
	[OP_DEV_WRITE] = { "dev_write", ON_MIRRORS, ON_DEVICE_MAPPED, ON_DEVICE_MAPPED,
			   run_dev_write },
	[OP_DEV_READ_COLD] = { "dev_read_cold", ON_MIRRORS, IN_SYSTEM, IN_SYSTEM, run_dev_read },
	[OP_SNAPSHOT] = { "snapshot", ON_MIRRORS, IN_SYSTEM, IN_SYSTEM, run_snapshot },
	[OP_EXCLUSIVE] = { "exclusive", ON_MIRRORS, IN_SYSTEM, IS_EXCLUSIVE, run_exclusive },
	[OP_ATOMIC] = { "atomic", ON_NATIVE, IS_EXCLUSIVE, IS_EXCLUSIVE, run_atomic },
	[OP_EVICT] = { "evict", ON_OLD, ON_DEVICE, IN_SYSTEM, run_evict, .alone = true },
	[OP_MEMCPY] = { "memcpy", ON(SRC_SYSTEM), IN_SYSTEM, IN_SYSTEM, run_memcpy },
	[OP_MOVE_PAGES] = { "move_pages", ON(SRC_SYSTEM), ON_NODE, ON_OTHER_NODE,
			    run_move_pages },
};

/* ---- a job --------------------------------------------------------------------- */

static void make_order(struct job *job)
{
	unsigned long n = job->range.npages, i, at = 0;
	unsigned int random = 1;

	for (i = 0; i < n; i++) {
		job->order[i] = i;
		if (job->op != OP_FAULT_STRIDE && job->op != OP_FAULT_STRIDE_WRITE)
			continue;
		job->order[i] = at;
		at += TOUCH_STRIDE;
		if (at >= n)
			at = at % TOUCH_STRIDE + 1;
	}
	if (job->op != OP_FAULT_RANDOM && job->op != OP_FAULT_RANDOM_WRITE)
		return;
	for (i = n - 1; i > 0; i--) {
		unsigned long other = random_next(&random) % (i + 1);
		uint32_t page = job->order[i];

		job->order[i] = job->order[other];
		job->order[other] = page;
	}
}

/* Touched, since the operation must not fault it in. */
static void *job_array(size_t n, size_t size)
{
	void *array = malloc(n * size);

	return array ? memset(array, 0, n * size) : NULL;
}

/* The caller has set source, op, fill, verify and nodes. Returns 0 or -errno. */
int job_init(struct job *job, size_t size, enum kind kind, int node)
{
	int rc;

	job->fd = source_open(job->source);
	if (job->fd < 0 && job->source != SRC_SYSTEM)
		return job->fd;
	rc = range_map(&job->range, size, kind, node);
	if (rc)
		return rc;
	job->buf = job_array(1, size);
	job->order = job_array(job->range.npages, sizeof(*job->order));
	job->move_pages = job_array(job->range.npages, sizeof(*job->move_pages));
	job->move_nodes = job_array(job->range.npages, sizeof(*job->move_nodes));
	job->move_status = job_array(job->range.npages, sizeof(*job->move_status));
	if (!job->buf || !job->order || !job->move_pages || !job->move_nodes ||
	    !job->move_status)
		return -ENOMEM;
	make_order(job);
	return 0;
}

void job_exit(struct job *job)
{
	range_unmap(&job->range);
	free(job->buf);
	free(job->order);
	free(job->move_pages);
	free(job->move_nodes);
	free(job->move_status);
	if (job->fd >= 0)
		close(job->fd);
}

/* Returns -EPROTO unless all pages are at @place. */
static int expect_place(const struct job *job, enum place place)
{
	unsigned long npages = job->range.npages;
	struct whereabouts where;
	int rc = range_where(&job->range, &where);

	if (rc)
		return rc;
	if (place == ON_DEVICE || place == ON_DEVICE_MAPPED || place == IS_EXCLUSIVE)
		return where.away == npages ? 0 : -EPROTO;
	if (job->fill != FILL_POPULATED)
		return where.away ? -EPROTO : 0;
	return where.present == npages ? 0 : -EPROTO;
}

/* True if the kernel has provided huge pages. */
static int expect_kind(const struct job *job)
{
	struct whereabouts where;
	int rc = range_where(&job->range, &where);

	if (rc || job->range.kind != KIND_THP || job->fill != FILL_POPULATED)
		return rc;
	return where.huge == job->range.npages ? 0 : -ENOMEM;
}

static int job_move(struct job *job, enum place place)
{
	long there;
	int rc;

	switch (place) {
	case IN_SYSTEM:
		return 0;
	case ON_DEVICE:
	case ON_DEVICE_MAPPED:
		rc = run_to_device(job);
		if (!rc && place == ON_DEVICE_MAPPED)
			rc = run_dev_read(job);
		if (!rc && place == ON_DEVICE_MAPPED)
			rc = run_dev_write(job);
		return rc;
	case IS_EXCLUSIVE:
		return run_exclusive(job);
	default:
		there = range_move(&job->range, job->nodes[0], job->move_pages,
				   job->move_nodes, job->move_status);
		return there < 0 ? there : there == (long)job->range.npages ? 0 : -EPROTO;
	}
}

int job_prepare(struct job *job)
{
	enum place from = operations[job->op].from;
	int rc;

	if (job->ready)
		return 0;
	job->seed++;
	rc = range_fill(&job->range, job->fill, job->seed, job->verify);
	rc = rc ? rc : expect_kind(job);
	rc = rc ? rc : job_move(job, from);
	rc = rc ? rc : expect_place(job, from);
	if (!rc && job->verify && job->op == OP_DEV_WRITE)
		fill_pages(job->buf, job->range.npages, ++job->seed);
	else if (!rc && job->op != OP_DEV_WRITE)
		memset(job->buf, 0, job->range.size);
	return rc;
}

int job_run(struct job *job)
{
	return operations[job->op].run(job);
}

/* Checks the data that the operation has copied to the buffer. */
static bool buf_is_right(const struct job *job)
{
	if (job->op != OP_DEV_READ && job->op != OP_DEV_READ_COLD && job->op != OP_MEMCPY)
		return true;
	return !bad_pages(job->buf, job->range.npages, job->seed);
}

int job_check(struct job *job)
{
	const struct operation_info *op = &operations[job->op];
	int rc;

	job->ready = false;
	rc = expect_place(job, op->to);
	if (rc)
		return rc;
	if (job->verify)
		return range_is(&job->range, job->fill, job->seed) && buf_is_right(job) ?
		       0 : -EILSEQ;
	/* A range that the device has mapped is no longer cold. */
	job->ready = op->from == op->to && job->op != OP_DEV_READ_COLD;
	return 0;
}
