// SPDX-License-Identifier: GPL-2.0-only
/*
 * Every step of probe and of remove fails once, as in fail_nth. Both run in the context of the task
 * that writes to bind or unbind in sysfs.
 *
 * A bind either fails and leaves nothing behind, or succeeds, and the device works. The error is
 * ENOMEM, or EBUSY where the core does not distinguish the two. Without memory for the device node
 * or for the folder in debugfs, the core continues without it: bind succeeds, and the next unbind
 * must handle that. Remove cannot fail: a process that has pages on the device keeps its data.
 *
 * Covers: a device that is half registered after a failed probe; a remove that skips, or loses, a
 * page for which it found no memory.
 *
 * Needs a kernel with failslab, fail_page_alloc and their debugfs, as the debug flavour has.
 */
#include "hmm_ref_utils.h"
#include "fail_job.h"

#define NTH_MAX		5000

FIXTURE(probe)
{
	struct leak_check leak;
	struct job job;
	char node[24];
	int nth;		/* open file */
	int bind;
	int unbind;
};

FIXTURE_VARIANT(probe)
{
	bool coherent;
};

FIXTURE_VARIANT_ADD(probe, private) { .coherent = false };
FIXTURE_VARIANT_ADD(probe, coherent) { .coherent = true };

FIXTURE_SETUP(probe)
{
	char path[160];
	int rc;

	self->nth = fail_nth_open();
	if (self->nth < 0 || fail_setup())
		SKIP(return, "no fail-nth: CONFIG_FAILSLAB, CONFIG_FAIL_PAGE_ALLOC");
	leak_check_begin(_metadata, &self->leak);
	self->job = (struct job) { .run = run_touch, .coherent = variant->coherent };
	rc = job_init(&self->job);
	if (rc == -ENODEV)
		SKIP(return, "no coherent device (module parameter coherent)");
	ASSERT_EQ(0, rc);
	snprintf(self->node, sizeof(self->node), "/dev/hmm_ref%u", self->job.device);
	device_file(self->job.device, "bind", path, sizeof(path));
	self->bind = open(path, O_WRONLY | O_CLOEXEC);
	device_file(self->job.device, "unbind", path, sizeof(path));
	self->unbind = open(path, O_WRONLY | O_CLOEXEC);
	if (self->bind < 0 || self->unbind < 0)
		SKIP(return, "the device cannot be unbound");
}

FIXTURE_TEARDOWN_PARENT(probe)
{
	if (self->node[0] && access(self->node, F_OK))
		device_bind(self->job.device);
	leak_check_end(_metadata, &self->leak);
}

static int attach(int file, unsigned int nr)
{
	const char *name = bus_devices[nr].name;
	ssize_t len = strlen(name);

	return pwrite(file, name, len, 0) == len ? 0 : -errno;
}

static bool is_bound(unsigned int nr)
{
	char path[256];

	return !access(device_file(nr, bus_devices[nr].name, path, sizeof(path)), F_OK);
}

/* Migrates data to the device and back. */
static bool works(struct job *job)
{
	return CHECK(!job_prepare(job)) && CHECK(!run_to_device(job)) &&
	       job_verify(job) && job_settle(job);
}

TEST_F_TIMEOUT(probe, each_step_of_bind_fails, 600)
{
	int errors = 0, nodeless = 0, nth, left, rc;

	for (nth = 0; nth < NTH_MAX; nth++) {
		ASSERT_EQ(0, attach(self->unbind, self->job.device));
		ASSERT_EQ(0, fail_nth_arm(self->nth, nth));
		rc = attach(self->bind, self->job.device);
		left = fail_nth_end(self->nth);
		ASSERT_LE(0, left);
		ASSERT_TRUE(!rc || rc == -ENOMEM || rc == -EBUSY) {
			TH_LOG("point %d: %s", nth, strerror(-rc));
		}
		ASSERT_EQ(!rc, is_bound(self->job.device)) {
			TH_LOG("point %d: %s", nth, strerror(-rc));
		}
		errors += rc != 0;
		if (!rc && access(self->node, F_OK)) {
			nodeless++;
			ASSERT_EQ(0, attach(self->unbind, self->job.device));
			rc = -ENXIO;
		}
		if (rc)
			ASSERT_EQ(0, attach(self->bind, self->job.device));
		ASSERT_TRUE(works(&self->job)) {
			TH_LOG("after point %d", nth);
		}
		if (left > 0)
			break;
	}
	ASSERT_GT(NTH_MAX, nth);
	printf("# figure: bind, %s: %d points, %d of them errors, %d bound without a device node\n",
	       variant->coherent ? "coherent" : "private", nth - 1, errors, nodeless);
	fflush(stdout);
	EXPECT_LT(1, nth);
	EXPECT_LT(0, errors);
}

TEST_F_TIMEOUT(probe, each_step_of_unbind_fails, 600)
{
	struct job *job = &self->job;
	int refused = 0, nth, left, rc;

	for (nth = 0; nth < NTH_MAX; nth++) {
		job->state = ON_DEVICE;
		ASSERT_EQ(0, job_prepare(job));
		ASSERT_EQ(0, fail_nth_arm(self->nth, nth));
		rc = attach(self->unbind, self->job.device);
		left = fail_nth_end(self->nth);
		ASSERT_LE(0, left);
		/* sysfs allocates memory for the text that is written, before it calls unbind. */
		if (rc == -ENOMEM && is_bound(self->job.device)) {
			refused++;
			rc = attach(self->unbind, self->job.device);
		}
		ASSERT_EQ(0, rc);
		ASSERT_FALSE(is_bound(self->job.device));
		ASSERT_NE(0, access(self->node, F_OK));
		ASSERT_TRUE(job_verify(job)) {
			TH_LOG("after point %d", nth);
		}
		ASSERT_EQ(0, attach(self->bind, self->job.device));
		ASSERT_TRUE(job_settle(job));
		if (left > 0)
			break;
	}
	ASSERT_GT(NTH_MAX, nth);
	printf("# figure: unbind, %s: %d points\n",
	       variant->coherent ? "coherent" : "private", nth - 1);
	fflush(stdout);
	EXPECT_LT(1, nth);
	EXPECT_GE(1, refused);
}

/* Runs last: checks for leaks of all tests above. */
FIXTURE(after)
{
};

FIXTURE_SETUP(after)
{
	if (fail_setup())
		SKIP(return, "no fail-nth: CONFIG_FAILSLAB, CONFIG_FAIL_PAGE_ALLOC");
}

FIXTURE_TEARDOWN(after)
{
}

TEST_F(after, no_leaks)
{
	EXPECT_EQ(0, fail_leaks("fail_probe"));
}

int main(int argc, char **argv)
{
	return hmm_ref_test_main(argc, argv);
}
