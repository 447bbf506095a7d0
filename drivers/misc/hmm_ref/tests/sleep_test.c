// SPDX-License-Identifier: GPL-2.0-only
/*
 * System sleep of a device, step by step, including the steps of hibernation,
 * which not every kernel supports, and a .suspend that finds a page.
 *
 * Covers: a driver that handles only suspend; a driver that restarts in
 * PM_POST_*, which a notifier that failed does not receive; a driver that
 * assumes that its notifier has evicted all pages.
 *
 * The system does not sleep: the test makes its calls, for the first device.
 */
#include <linux/pagemap.h>
#include <linux/platform_device.h>
#include <linux/suspend.h>

#include "tests.h"

struct sleep_test {
	struct device *device;
	struct hmm_ref_device *dev;
	struct hmm_ref_owner *owner;
};

struct sleep_case {
	const char *name;
	unsigned long prepare, post;
};

static const struct sleep_case sleep_events[] = {
	{ "suspend", PM_SUSPEND_PREPARE, PM_POST_SUSPEND },
	{ "hibernation", PM_HIBERNATION_PREPARE, PM_POST_HIBERNATION },
	{ "restore", PM_RESTORE_PREPARE, PM_POST_RESTORE },
};

KUNIT_ARRAY_PARAM_DESC(sleep, sleep_events, name);

static int sleep_test_init(struct kunit *test)
{
	struct sleep_test *t = kunit_kzalloc(test, sizeof(*t), GFP_KERNEL);

	KUNIT_ASSERT_NOT_NULL(test, t);
	t->device =
		bus_find_device_by_name(&platform_bus_type, NULL, "hmm_ref.0");
	if (!t->device)
		kunit_skip(test, "no simulated device");
	t->dev = dev_get_drvdata(t->device);
	test->priv = t;
	t->owner = hmm_ref_owner_create();
	KUNIT_ASSERT_NOT_NULL(test, t->owner);
	return 0;
}

static void sleep_test_exit(struct kunit *test)
{
	struct sleep_test *t = test->priv;

	if (!t)
		return;
	if (t->owner)
		hmm_ref_owner_put(t->owner, 1);
	put_device(t->device);
}

/* Call the device's notifier. Return: 0 or its errno. */
static int tell(struct sleep_test *t, unsigned long event)
{
	struct notifier_block *sleep = &t->dev->sleep;

	return notifier_to_errno(sleep->notifier_call(sleep, event, NULL));
}

/* Return: 0, or the errno of a failed reservation. */
static int reserves(struct sleep_test *t)
{
	struct hmm_ref_room room = {};
	int rc = hmm_ref_devmem_try_reserve(&t->dev->dm, &room, 1, false);

	if (rc == -ENOSPC)
		rc = hmm_ref_devmem_reserve(&t->dev->dm, &room, 1, false);
	hmm_ref_devmem_unreserve(&t->dev->dm, &room);
	return rc;
}

/* A page that is not mapped anywhere cannot leave the device. */
static struct folio *take(struct kunit *test, struct sleep_test *t)
{
	struct hmm_ref_devmem *dm = &t->dev->dm;
	struct hmm_ref_room room = {};
	struct folio *folio;
	unsigned int nr;

	KUNIT_ASSERT_EQ(test, hmm_ref_devmem_reserve(dm, &room, 1, false), 0);
	nr = hmm_ref_devmem_handout(dm, &room, t->owner, &folio, 1);
	KUNIT_ASSERT_EQ(test, nr, 1);
	return folio;
}

static void give_back(struct folio *folio)
{
	folio_unlock(folio);
	folio_put(folio);
}

static int pm_op(struct sleep_test *t, int (*op)(struct device *device))
{
	return op ? op(t->device) : 0;
}

static void stops_and_restarts(struct kunit *test)
{
	const struct sleep_case *param = test->param_value;
	struct sleep_test *t = test->priv;
	unsigned int i;

	KUNIT_EXPECT_EQ(test, reserves(t), 0);
	KUNIT_EXPECT_EQ(test, tell(t, param->prepare), 0);
	KUNIT_EXPECT_EQ(test, reserves(t), -ENOMEM);
	/* Twice, as in hibernation: before the image, and after it. */
	for (i = 0; i < 2; i++) {
		KUNIT_EXPECT_EQ(test, pm_op(t, hmm_ref_pm_ops.suspend), 0);
		KUNIT_EXPECT_EQ(test, reserves(t), -ENOMEM);
		KUNIT_EXPECT_EQ(test, pm_op(t, hmm_ref_pm_ops.resume), 0);
		KUNIT_EXPECT_EQ(test, reserves(t), -ENOMEM);
	}
	KUNIT_EXPECT_EQ(test, tell(t, param->post), 0);
	KUNIT_EXPECT_EQ(test, reserves(t), 0);
}

/* PREPARE gives up and undoes the stop: a notifier that fails gets no POST. */
static void page_cannot_leave(struct kunit *test)
{
	const struct sleep_case *param = test->param_value;
	struct sleep_test *t = test->priv;
	struct folio *folio = take(test, t);

	KUNIT_EXPECT_EQ(test, tell(t, param->prepare), -EBUSY);
	KUNIT_EXPECT_EQ(test, reserves(t), 0);
	give_back(folio);
	KUNIT_EXPECT_EQ(test, tell(t, param->prepare), 0);
	KUNIT_EXPECT_EQ(test, tell(t, param->post), 0);
	KUNIT_EXPECT_EQ(test, reserves(t), 0);
}

/* As for a device that is bound after the notifiers were called. */
static void suspend_finds_a_page(struct kunit *test)
{
	struct sleep_test *t = test->priv;
	struct folio *folio;

	if (!hmm_ref_pm_ops.suspend)
		kunit_skip(test, "the kernel does not sleep (CONFIG_PM_SLEEP)");
	folio = take(test, t);
	KUNIT_EXPECT_EQ(test, hmm_ref_pm_ops.suspend(t->device), -EBUSY);
	KUNIT_EXPECT_EQ(test, reserves(t), -ENOMEM);
	KUNIT_EXPECT_EQ(test, tell(t, PM_POST_SUSPEND), 0);
	KUNIT_EXPECT_EQ(test, reserves(t), 0);
	give_back(folio);
}

static struct kunit_case sleep_cases[] = {
	KUNIT_CASE_PARAM(stops_and_restarts, sleep_gen_params),
	KUNIT_CASE_PARAM_ATTR(page_cannot_leave, sleep_gen_params,
			      { .speed = KUNIT_SPEED_SLOW }),
	KUNIT_CASE(suspend_finds_a_page),
	{}
};

struct kunit_suite hmm_ref_sleep_suite = {
	.name = "hmm_ref_sleep",
	.init = sleep_test_init,
	.exit = sleep_test_exit,
	.test_cases = sleep_cases,
};
