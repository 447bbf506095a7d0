// SPDX-License-Identifier: GPL-2.0-only
/*
 * An open waits for the mmap_lock of its process, which another thread may hold
 * for a long time. Meanwhile another device can be opened, and even this device
 * can be removed.
 *
 * Covers: a device of the misc class, which opens its files with a lock held
 * that all misc devices share.
 *
 * The test holds mmap_lock as long as it needs, which no system call could
 * guarantee.
 */
#include <linux/completion.h>
#include <linux/delay.h>
#include <linux/file.h>
#include <linux/fs.h>
#include <linux/fs_struct.h>
#include <linux/kthread.h>
#include <linux/mman.h>
#include <linux/mm.h>
#include <linux/mmap_lock.h>
#include <linux/path.h>
#include <linux/platform_device.h>

#include "tests.h"

/* Only a test that fails waits that long. */
#define PATIENCE	(60 * HZ)

/**
 * struct step - one action, in a thread of its own
 * @mm: address space of the thread, or NULL
 * @path: path that it opens, or NULL
 * @device: device that it unbinds, if @path is NULL
 * @done: completed at the end of the thread
 * @ended: the test has waited for the end
 * @rc: result of the open
 */
struct step {
	struct mm_struct *mm;
	const char *path;
	struct device *device;
	struct completion done;
	bool ended;
	int rc;
};

/* Root of the loading process: kernel threads may see no file system. */
static struct path root;

static int save_root(struct kunit_suite *suite)
{
	get_fs_root(current->fs, &root);
	return 0;
}

static void forget_root(struct kunit_suite *suite)
{
	path_put(&root);
}

static int open_path(const char *path)
{
	struct file *file = file_open_root(&root, path, O_RDWR, 0);

	if (IS_ERR(file))
		return PTR_ERR(file);
	fput(file);
	return 0;
}

static int do_step(void *arg)
{
	struct step *step = arg;

	if (step->mm)
		kthread_use_mm(step->mm);
	if (step->path)
		step->rc = open_path(step->path);
	else
		device_release_driver(step->device);
	if (step->mm)
		kthread_unuse_mm(step->mm);
	kthread_complete_and_exit(&step->done, 0);
}

static void begin(struct kunit *test, struct step *step)
{
	init_completion(&step->done);
	if (IS_ERR(kthread_run(do_step, step, "hmm_ref_step"))) {
		KUNIT_FAIL(test, "no thread");
		complete(&step->done);
	}
}

static void expect_end(struct kunit *test, struct step *step)
{
	step->ended = wait_for_completion_timeout(&step->done, PATIENCE);
	KUNIT_EXPECT_TRUE(test, step->ended);
}

static void end(struct step *step)
{
	if (!step->ended)
		wait_for_completion(&step->done);
}

/* Begin an open of the first device, which waits until end_wait(). */
static void begin_wait(struct kunit *test, struct step *step)
{
	unsigned long give_up = jiffies + PATIENCE;

	/* This gives the test an address space. */
	KUNIT_ASSERT_NE(test, kunit_vm_mmap(test, NULL, 0, PAGE_SIZE, PROT_READ,
					    MAP_PRIVATE | MAP_ANONYMOUS, 0), 0);
	*step = (struct step){ .mm = current->mm, .path = "dev/hmm_ref0" };
	mmap_write_lock(step->mm);
	begin(test, step);
	while (!mmap_lock_is_contended(step->mm) &&
	       time_before(jiffies, give_up))
		msleep(20);
	KUNIT_EXPECT_TRUE(test, mmap_lock_is_contended(step->mm));
}

static void end_wait(struct step *step)
{
	mmap_write_unlock(step->mm);
	end(step);
}

/* Without an address space the open reaches the driver, and fails there. */
static void open_proceeds(struct kunit *test)
{
	struct step other = { .path = "dev/hmm_ref1" };
	struct step waits;

	begin_wait(test, &waits);
	begin(test, &other);
	expect_end(test, &other);
	KUNIT_EXPECT_FALSE(test, completion_done(&waits.done));
	end_wait(&waits);
	end(&other);
	KUNIT_EXPECT_EQ(test, waits.rc, 0);
	KUNIT_EXPECT_EQ(test, other.rc, -EINVAL);
}

/* The open then fails, or creates a file of a removed device. */
static void removal_proceeds(struct kunit *test)
{
	struct step removal = {
		.device = bus_find_device_by_name(&platform_bus_type, NULL,
						  "hmm_ref.0"),
	};
	struct step waits;

	if (!removal.device)
		kunit_skip(test, "no simulated device");
	begin_wait(test, &waits);
	begin(test, &removal);
	expect_end(test, &removal);
	KUNIT_EXPECT_FALSE(test, completion_done(&waits.done));
	end_wait(&waits);
	end(&removal);
	KUNIT_EXPECT_TRUE(test, waits.rc == 0 || waits.rc == -ENODEV);
	KUNIT_EXPECT_EQ(test, device_attach(removal.device), 1);
	put_device(removal.device);
}

static struct kunit_case open_cases[] = {
	KUNIT_CASE(open_proceeds),
	KUNIT_CASE(removal_proceeds),
	{}
};

struct kunit_suite hmm_ref_open_suite = {
	.name = "hmm_ref_open",
	.suite_init = save_root,
	.suite_exit = forget_root,
	.test_cases = open_cases,
};
