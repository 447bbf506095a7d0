// SPDX-License-Identifier: GPL-2.0-only
/*
 * What a device does when the system sleeps, step by step: also the steps of a hibernation, which
 * not every kernel has, and a .suspend that finds a page.
 *
 * Stands for: a driver that takes part in suspend only; one that opens the gate in PM_POST_*, which
 * the notifier that fails does not get; one that trusts its notifier to have seen all pages.
 *
 * The system does not sleep here: the test calls what it would call, on the first device.
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

/* Return: the errno of the device's notifier. */
static int tell(struct sleep_test *t, unsigned long event)
{
	struct notifier_block *sleep = &t->dev->sleep;

	return notifier_to_errno(sleep->notifier_call(sleep, event, NULL));
}

/* Return: 0, or why nothing can be reserved. */
static int reserves(struct sleep_test *t)
{
	struct hmm_ref_room room = {};
	int rc = hmm_ref_devmem_try_reserve(&t->dev->dm, &room, 1, false);

	if (rc == -ENOSPC)
		rc = hmm_ref_devmem_reserve(&t->dev->dm, &room, 1, false);
	hmm_ref_devmem_unreserve(&t->dev->dm, &room);
	return rc;
}

/* A page that nothing maps: it cannot leave. */
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

static void stops_and_hands_out_again(struct kunit *test)
{
	const struct sleep_case *param = test->param_value;
	struct sleep_test *t = test->priv;
	unsigned int i;

	KUNIT_EXPECT_EQ(test, reserves(t), 0);
	KUNIT_EXPECT_EQ(test, tell(t, param->prepare), 0);
	KUNIT_EXPECT_EQ(test, reserves(t), -ENOMEM);
	/* Hibernation: before the image, and after it. */
	for (i = 0; i < 2; i++) {
		KUNIT_EXPECT_EQ(test, pm_op(t, hmm_ref_pm_ops.suspend), 0);
		KUNIT_EXPECT_EQ(test, reserves(t), -ENOMEM);
		KUNIT_EXPECT_EQ(test, pm_op(t, hmm_ref_pm_ops.resume), 0);
		KUNIT_EXPECT_EQ(test, reserves(t), -ENOMEM);
	}
	KUNIT_EXPECT_EQ(test, tell(t, param->post), 0);
	KUNIT_EXPECT_EQ(test, reserves(t), 0);
}

/* It gives up after a while, and the one that fails is not told that it is over. */
static void page_does_not_leave(struct kunit *test)
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

/* As on a device that is bound after the notifiers were called. */
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
	KUNIT_CASE_PARAM(stops_and_hands_out_again, sleep_gen_params),
	KUNIT_CASE_PARAM_ATTR(page_does_not_leave, sleep_gen_params,
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
