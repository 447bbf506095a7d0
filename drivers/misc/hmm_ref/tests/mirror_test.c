// SPDX-License-Identifier: GPL-2.0-only
/*
 * Device writes by type of mapping. Not every CPU has shadow stacks, so the
 * mapping is a fake.
 */
#include <linux/mm.h>

#include "tests.h"

struct mirror_case {
	const char *name;
	vm_flags_t flags;
	bool may_write;
};

static const struct mirror_case mirror_cases_write[] = {
	{ "nothing", VM_NONE, false },
	{ "read", VM_READ, false },
	{ "execute", VM_READ | VM_EXEC, false },
	{ "read_write", VM_READ | VM_WRITE, true },
	{ "may_write_only", VM_READ | VM_MAYREAD | VM_MAYWRITE, false },
	{ "shared", VM_READ | VM_WRITE | VM_SHARED, true },
	{ "shadow_stack", VM_READ | VM_WRITE | VM_SHADOW_STACK,
	  !VM_SHADOW_STACK },
};

KUNIT_ARRAY_PARAM_DESC(mirror_write, mirror_cases_write, name);

static void mirror_may_write(struct kunit *test)
{
	const struct mirror_case *c = test->param_value;
	struct vm_area_struct *vma =
		kunit_kzalloc(test, sizeof(*vma), GFP_KERNEL);

	KUNIT_ASSERT_NOT_NULL(test, vma);
	vm_flags_init(vma, c->flags);
	KUNIT_EXPECT_EQ(test, hmm_ref_vma_may_write(vma), c->may_write);
}

static struct kunit_case mirror_cases[] = {
	KUNIT_CASE_PARAM(mirror_may_write, mirror_write_gen_params),
	{}
};

struct kunit_suite hmm_ref_mirror_suite = {
	.name = "hmm_ref_mirror",
	.test_cases = mirror_cases,
};
