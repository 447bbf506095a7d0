// SPDX-License-Identifier: GPL-2.0-only
/*
 * One class of steps fails every time, for as long as the operation runs: no device memory, a
 * broken engine, no system memory, a range that is never stable. The operation ends, with the error
 * that the table in Documentation/misc-devices/hmm_ref/fault-injection.rst lists, or succeeds by
 * other means. Afterwards, without failures, it succeeds, and the data is right throughout.
 *
 * Covers: a loop that does not end because a step fails every time; an error that the operation
 * does not document; a fallback that needs the very memory that cannot be allocated.
 *
 * Needs a kernel with fault injection in debugfs, as the debug flavour has.
 */
#include "hmm_ref_utils.h"
#include "fail_job.h"
#include "hmm_ref_old.h"

#define FAILSLAB	DEBUGFS "failslab/"

FIXTURE(always)
{
	struct leak_check leak;
	struct job job;
	char attr[64];
};

FIXTURE_VARIANT(always)
{
	const char *class;
	int (*run)(struct job *job);
	enum job_state state;
	bool large, fresh;
	bool cpu;		/* touches the page by CPU, in a child that may get a signal */
	bool old;		/* needs the old interface */
	int rc;			/* result of the ioctl, or of child_run() */
};

FIXTURE_VARIANT_ADD(always, chunk_to_device) {
	.class = "chunk", .fresh = true, .run = run_to_device, .rc = -ENOMEM,
};

FIXTURE_VARIANT_ADD(always, chunk_read) {
	.class = "chunk", .fresh = true, .run = run_read,
};

FIXTURE_VARIANT_ADD(always, vram_to_device) {
	.class = "vram", .fresh = true, .run = run_to_device, .rc = -ENOMEM,
};

/* Migration is best effort: skipped pages are counted, and are not an error. */
FIXTURE_VARIANT_ADD(always, handout_to_device) {
	.class = "handout", .run = run_to_device,
};

FIXTURE_VARIANT_ADD(always, handout_holes) {
	.class = "handout", .state = HOLES, .run = run_to_device,
};

FIXTURE_VARIANT_ADD(always, handout_old_to_device) {
	.class = "handout", .run = run_old_to_device, .rc = -ENOENT,
	.old = true,
};

/* A folio is not split for lack of a free block on the device: it stays. */
FIXTURE_VARIANT_ADD(always, large_to_device) {
	.class = "large", .large = true, .run = run_to_device, .rc = -ENOMEM,
};

FIXTURE_VARIANT_ADD(always, large_hole) {
	.class = "large", .large = true, .state = HOLES, .run = run_to_device,
};

FIXTURE_VARIANT_ADD(always, large_to_system) {
	.class = "large", .large = true, .state = ON_DEVICE, .run = run_to_system,
};

FIXTURE_VARIANT_ADD(always, large_cpu) {
	.class = "large", .large = true, .state = ON_DEVICE, .run = run_touch,
	.cpu = true,
};

FIXTURE_VARIANT_ADD(always, large_file_read) {
	.class = "large", .large = true, .state = ON_DEVICE, .run = run_file_read,
};

/* The engine has no room in its queue. The page is not at fault, so no task is killed. */
FIXTURE_VARIANT_ADD(always, queue_to_device) {
	.class = "queue", .run = run_to_device, .rc = -EAGAIN,
};

FIXTURE_VARIANT_ADD(always, queue_holes) {
	.class = "queue", .state = HOLES, .run = run_to_device, .rc = -EAGAIN,
};

FIXTURE_VARIANT_ADD(always, queue_large) {
	.class = "queue", .large = true, .run = run_to_device, .rc = -EAGAIN,
};

FIXTURE_VARIANT_ADD(always, queue_to_system) {
	.class = "queue", .state = ON_DEVICE, .run = run_to_system, .rc = -EAGAIN,
};

FIXTURE_VARIANT_ADD(always, queue_large_to_system) {
	.class = "queue", .large = true, .state = ON_DEVICE, .run = run_to_system,
	.rc = -EAGAIN,
};

FIXTURE_VARIANT_ADD(always, queue_write_shared) {
	.class = "queue", .state = SHARED, .run = run_write, .rc = -ENOMEM,
};

FIXTURE_VARIANT_ADD(always, queue_cpu) {
	.class = "queue", .state = ON_DEVICE, .run = run_touch, .cpu = true,
	.rc = CHILD_SIGNAL + SIGALRM,
};

FIXTURE_VARIANT_ADD(always, queue_large_cpu) {
	.class = "queue", .large = true, .state = ON_DEVICE, .run = run_touch, .cpu = true,
	.rc = CHILD_SIGNAL + SIGALRM,
};

FIXTURE_VARIANT_ADD(always, queue_file_read) {
	.class = "queue", .state = ON_DEVICE, .run = run_file_read, .rc = -EFAULT,
};

FIXTURE_VARIANT_ADD(always, queue_old_release) {
	.class = "queue", .state = ON_DEVICE, .run = run_old_release, .rc = -EBUSY,
	.old = true,
};

/* No DMA address can be mapped: as above. */
FIXTURE_VARIANT_ADD(always, dma_to_device) {
	.class = "dma", .run = run_to_device, .rc = -EAGAIN,
};

FIXTURE_VARIANT_ADD(always, dma_large) {
	.class = "dma", .large = true, .run = run_to_device, .rc = -EAGAIN,
};

FIXTURE_VARIANT_ADD(always, dma_to_system) {
	.class = "dma", .state = ON_DEVICE, .run = run_to_system, .rc = -EAGAIN,
};

FIXTURE_VARIANT_ADD(always, dma_cpu) {
	.class = "dma", .state = ON_DEVICE, .run = run_touch, .cpu = true,
	.rc = CHILD_SIGNAL + SIGALRM,
};

FIXTURE_VARIANT_ADD(always, dma_large_cpu) {
	.class = "dma", .large = true, .state = ON_DEVICE, .run = run_touch, .cpu = true,
	.rc = CHILD_SIGNAL + SIGALRM,
};

FIXTURE_VARIANT_ADD(always, dma_read) {
	.class = "dma", .run = run_read, .rc = -ENOMEM,
};

FIXTURE_VARIANT_ADD(always, dma_large_read) {
	.class = "dma", .large = true, .run = run_read, .rc = -ENOMEM,
};

FIXTURE_VARIANT_ADD(always, dma_write) {
	.class = "dma", .run = run_write, .rc = -ENOMEM,
};

/* Device memory needs no DMA address. */
FIXTURE_VARIANT_ADD(always, dma_write_on_device) {
	.class = "dma", .state = ON_DEVICE, .run = run_write,
};

FIXTURE_VARIANT_ADD(always, copy_to_device) {
	.class = "copy", .run = run_to_device, .rc = -EIO,
};

FIXTURE_VARIANT_ADD(always, copy_holes) {
	.class = "copy", .state = HOLES, .run = run_to_device, .rc = -EIO,
};

FIXTURE_VARIANT_ADD(always, copy_large) {
	.class = "copy", .large = true, .run = run_to_device, .rc = -EIO,
};

FIXTURE_VARIANT_ADD(always, copy_to_system) {
	.class = "copy", .state = ON_DEVICE, .run = run_to_system, .rc = -EIO,
};

FIXTURE_VARIANT_ADD(always, copy_read) {
	.class = "copy", .state = ON_DEVICE, .run = run_read,
};

FIXTURE_VARIANT_ADD(always, copy_write) {
	.class = "copy", .state = ON_DEVICE, .run = run_write,
};

FIXTURE_VARIANT_ADD(always, copy_write_shared) {
	.class = "copy", .state = SHARED, .run = run_write, .rc = -EFAULT,
};

FIXTURE_VARIANT_ADD(always, copy_cpu) {
	.class = "copy", .state = ON_DEVICE, .run = run_touch, .cpu = true,
	.rc = CHILD_SIGNAL + SIGBUS,
};

FIXTURE_VARIANT_ADD(always, copy_file_read) {
	.class = "copy", .state = ON_DEVICE, .run = run_file_read, .rc = -EFAULT,
};

/* One copy of each batch fails. */
FIXTURE_VARIANT_ADD(always, one_copy_to_device) {
	.class = "one_copy", .run = run_to_device, .rc = -EIO,
};

FIXTURE_VARIANT_ADD(always, one_copy_large) {
	.class = "one_copy", .large = true, .run = run_to_device, .rc = -EIO,
};

FIXTURE_VARIANT_ADD(always, one_copy_to_system) {
	.class = "one_copy", .state = ON_DEVICE, .run = run_to_system, .rc = -EIO,
};

/* The engine hangs in each batch and is reset each time. */
FIXTURE_VARIANT_ADD(always, hang_to_device) {
	.class = "hang", .run = run_to_device, .rc = -ETIMEDOUT,
};

FIXTURE_VARIANT_ADD(always, hang_large) {
	.class = "hang", .large = true, .run = run_to_device, .rc = -ETIMEDOUT,
};

FIXTURE_VARIANT_ADD(always, hang_to_system) {
	.class = "hang", .state = ON_DEVICE, .run = run_to_system, .rc = -ETIMEDOUT,
};

FIXTURE_VARIANT_ADD(always, hang_cpu) {
	.class = "hang", .state = ON_DEVICE, .run = run_touch, .cpu = true,
	.rc = CHILD_SIGNAL + SIGBUS,
};

FIXTURE_VARIANT_ADD(always, page_to_device) { .class = "page", .run = run_to_device };

FIXTURE_VARIANT_ADD(always, page_to_system) {
	.class = "page", .state = ON_DEVICE, .run = run_to_system, .rc = -ENOMEM,
};

FIXTURE_VARIANT_ADD(always, page_large) {
	.class = "page", .large = true, .state = ON_DEVICE, .run = run_to_system,
	.rc = -ENOMEM,
};

FIXTURE_VARIANT_ADD(always, page_write) {
	.class = "page", .state = ON_DEVICE, .run = run_write,
};

FIXTURE_VARIANT_ADD(always, page_write_shared) {
	.class = "page", .state = SHARED, .run = run_write, .rc = -ENOMEM,
};

/* The fault waits for memory until a signal ends it. */
FIXTURE_VARIANT_ADD(always, page_cpu) {
	.class = "page", .state = ON_DEVICE, .run = run_touch, .cpu = true,
	.rc = CHILD_SIGNAL + SIGALRM,
};

FIXTURE_VARIANT_ADD(always, page_file_read) {
	.class = "page", .state = ON_DEVICE, .run = run_file_read, .rc = -EFAULT,
};

FIXTURE_VARIANT_ADD(always, page_old_release) {
	.class = "page", .state = ON_DEVICE, .run = run_old_release, .rc = -EBUSY,
	.old = true,
};

FIXTURE_VARIANT_ADD(always, map_read) {
	.class = "map", .run = run_read, .rc = -ENOMEM,
};

FIXTURE_VARIANT_ADD(always, map_write_device) {
	.class = "map", .state = ON_DEVICE, .run = run_write, .rc = -ENOMEM,
};

FIXTURE_VARIANT_ADD(always, map_exclusive) {
	.class = "map", .run = run_exclusive, .rc = -ENOMEM,
};

FIXTURE_VARIANT_ADD(always, map_atomic) {
	.class = "map", .state = ON_DEVICE, .run = run_atomic, .rc = -ENOMEM,
};

FIXTURE_VARIANT_ADD(always, map_to_device) { .class = "map", .run = run_to_device };

FIXTURE_VARIANT_ADD(always, map_snapshot) { .class = "map", .run = run_snapshot };

FIXTURE_VARIANT_ADD(always, retry_read) {
	.class = "retry", .run = run_read, .rc = -EBUSY,
};

FIXTURE_VARIANT_ADD(always, retry_write) {
	.class = "retry", .state = ON_DEVICE, .run = run_write, .rc = -EBUSY,
};

FIXTURE_VARIANT_ADD(always, retry_snapshot) {
	.class = "retry", .run = run_snapshot, .rc = -EBUSY,
};

FIXTURE_VARIANT_ADD(always, retry_exclusive) {
	.class = "retry", .run = run_exclusive, .rc = -EBUSY,
};

FIXTURE_VARIANT_ADD(always, retry_atomic) {
	.class = "retry", .run = run_atomic, .rc = -EBUSY,
};

FIXTURE_VARIANT_ADD(always, retry_to_device) { .class = "retry", .run = run_to_device };

FIXTURE_VARIANT_ADD(always, retry_cpu) {
	.class = "retry", .state = ON_DEVICE, .run = run_touch, .cpu = true,
};

FIXTURE_SETUP(always)
{
	snprintf(self->attr, sizeof(self->attr), FAIL_DIR "fail_%s/", variant->class);
	if (access(self->attr, F_OK))
		SKIP(return, "no %s: CONFIG_FAULT_INJECTION_DEBUG_FS", self->attr);
	leak_check_begin(_metadata, &self->leak);
	if (!strcmp(variant->class, "hang"))
		ASSERT_EQ(0, write_file(COPY_TIMEOUT, "100"));
	self->job = (struct job) {
		.run = variant->run, .state = variant->state, .large = variant->large,
		.fresh = variant->fresh,
	};
	ASSERT_EQ(0, job_init(&self->job));
	if (variant->old && !(hmm_ref_dev_info.out_features & HMM_REF_FEATURE_OLD_INTERFACE))
		SKIP(return, "no old interface (CONFIG_HMM_REF_DMIRROR)");
	if (variant->large && !job_gets_large(&self->job))
		SKIP(return, "no huge page can be allocated");
	ASSERT_EQ(0, job_prepare(&self->job));
}

FIXTURE_TEARDOWN_PARENT(always)
{
	if (!self->attr[0] || access(self->attr, F_OK))
		return;
	EXPECT_EQ(0, attr_disarm(self->attr));
	EXPECT_EQ(0, write_file(COPY_TIMEOUT, COPY_TIMEOUT_DEFAULT));
	leak_check_end(_metadata, &self->leak);
}

static int run_in_child(void *arg)
{
	alarm(2);
	return job_run(arg) != 0;
}

TEST_F(always, ends)
{
	struct job *job = &self->job;
	int rc;

	ASSERT_EQ(0, attr_arm(self->attr, 0, -1));
	rc = variant->cpu ? child_run(run_in_child, job) : job_run(job);
	ASSERT_EQ(0, attr_disarm(self->attr));
	/*
	 * In older kernels, hmm_range_fault() returns EFAULT for a fault that fails for lack of
	 * memory.
	 */
	if (rc == -EFAULT && variant->rc == -ENOMEM && kernel_before(7, 0))
		rc = -ENOMEM;
	EXPECT_EQ(variant->rc, rc);
	EXPECT_EQ(0, job_run(job));
	EXPECT_TRUE(job_verify(job));
	EXPECT_TRUE(job_settle(job));
}

/* Unbind continues until each page has been given memory and a successful copy. */
FIXTURE(leaves)
{
	struct leak_check leak;
	struct job job;
	char attr[64];
};

FIXTURE_VARIANT(leaves)
{
	const char *class;
};

FIXTURE_VARIANT_ADD(leaves, copy) { .class = "copy" };

FIXTURE_VARIANT_ADD(leaves, page) { .class = "page" };

FIXTURE_SETUP(leaves)
{
	snprintf(self->attr, sizeof(self->attr), FAIL_DIR "fail_%s/", variant->class);
	if (access(self->attr, F_OK))
		SKIP(return, "no %s: CONFIG_FAULT_INJECTION_DEBUG_FS", self->attr);
	leak_check_begin(_metadata, &self->leak);
	self->job = (struct job) { .run = run_touch, .state = ON_DEVICE };
	ASSERT_EQ(0, job_init(&self->job));
	ASSERT_EQ(0, job_prepare(&self->job));
}

FIXTURE_TEARDOWN_PARENT(leaves)
{
	if (!self->attr[0] || access(self->attr, F_OK))
		return;
	EXPECT_EQ(0, attr_disarm(self->attr));
	if (hmm_ref_count() < self->leak.devices)
		device_bind(self->job.device);
	leak_check_end(_metadata, &self->leak);
}

TEST_F(leaves, unbind_evicts_all)
{
	ASSERT_EQ(0, attr_arm(self->attr, 0, 20));
	ASSERT_EQ(0, device_unbind(self->job.device));
	ASSERT_EQ(0, attr_disarm(self->attr));
	EXPECT_TRUE(job_verify(&self->job));
	ASSERT_EQ(0, device_bind(self->job.device));
	EXPECT_TRUE(job_settle(&self->job));
}

/* ---- no memory at all ------------------------------------------------------------ */

FIXTURE(never)
{
	struct leak_check leak;
	int make_it_fail;	/* open file */
	char *mem;
	int fd;
};

FIXTURE_SETUP(never)
{
	if (write_file(FAILSLAB "task-filter", "Y") || fail_setup())
		SKIP(return, "no failslab: CONFIG_FAILSLAB, CONFIG_FAULT_INJECTION_DEBUG_FS");
	leak_check_begin(_metadata, &self->leak);
	self->fd = test_open(0);
	self->mem = test_map_pages(SMALL_PAGES);
	fill_pages(self->mem, SMALL_PAGES, 1);
	self->make_it_fail = open("/proc/self/make-it-fail", O_RDWR | O_CLOEXEC);
	ASSERT_LE(0, self->make_it_fail);
}

FIXTURE_TEARDOWN_PARENT(never)
{
	if (access(FAILSLAB "probability", F_OK))
		return;
	EXPECT_EQ(0, attr_disarm(FAILSLAB));
	EXPECT_EQ(0, write_file(FAILSLAB "task-filter", "N"));
	leak_check_end(_metadata, &self->leak);
}

/* No table can be allocated for the device page table: the error is immediate and correct. */
TEST_F(never, device_page_table)
{
	char byte = 0x5a, *first = self->mem;
	unsigned long long start;
	int read_rc, write_rc;

	ASSERT_EQ(0, attr_arm(FAILSLAB, 0, -1));
	start = now_ms();
	ASSERT_EQ(1, pwrite(self->make_it_fail, "1", 1, 0));
	read_rc = _test_read(self->fd, first, 1, &byte);
	write_rc = _test_write(self->fd, first, 1, &byte);
	ASSERT_EQ(1, pwrite(self->make_it_fail, "0", 1, 0));
	EXPECT_EQ(-ENOMEM, read_rc);
	EXPECT_EQ(-ENOMEM, write_rc);
	EXPECT_EQ(0x5a, byte);
	EXPECT_GT(2000, now_ms() - start);
	test_dev_data(self->fd, self->mem, SMALL_PAGES, 1);
	test_cpu_data(self->mem, SMALL_PAGES, 1);
}

int main(int argc, char **argv)
{
	return hmm_ref_test_main(argc, argv);
}
