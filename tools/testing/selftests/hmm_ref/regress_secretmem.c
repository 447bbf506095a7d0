// SPDX-License-Identifier: GPL-2.0-only
/*
 * A device access to memfd_secret() memory fails.
 *
 * The core's hmm_range_fault() returned its pages like any others, but they are not in the kernel's
 * direct map: the access oopsed with the device page table locked.
 */
#include "hmm_ref_utils.h"

#ifndef __NR_memfd_secret
#define __NR_memfd_secret	447
#endif

FIXTURE(secretmem)
{
	struct leak_check leak;
	int fd;
	char *mem;
};

FIXTURE_SETUP(secretmem)
{
	int secret = syscall(__NR_memfd_secret, 0);

	if (secret < 0)
		SKIP(return, "no memfd_secret: CONFIG_SECRETMEM");
	leak_check_begin(_metadata, &self->leak);
	self->fd = test_open(0);
	ASSERT_EQ(0, ftruncate(secret, page_size()));
	self->mem = __test_map(_metadata, mmap(NULL, page_size(),
					       PROT_READ | PROT_WRITE, MAP_SHARED,
					       secret, 0));
	fill_pages(self->mem, 1, 1);
}

FIXTURE_TEARDOWN_PARENT(secretmem)
{
	leak_check_end(_metadata, &self->leak);
}

TEST_F(secretmem, device_access)
{
	char word[8] = "notmine";

	test_err_read(EFAULT, self->fd, self->mem, sizeof(word), word);
	EXPECT_STREQ("notmine", word);
	test_err_write(EFAULT, self->fd, self->mem, sizeof(word), word);
	test_cpu_data(self->mem, 1, 1);
}

TEST_F(secretmem, snapshot)
{
	struct hmm_ref_page_state state;
	struct hmm_ref_snapshot cmd;

	test_snapshot(self->fd, self->mem, page_size(), &state, &cmd);
	EXPECT_EQ(HMM_REF_PAGE_ERROR, state.where);
	EXPECT_EQ(HMM_REF_WHY_SPECIAL, state.why);
}

TEST_F(secretmem, does_not_migrate)
{
	struct hmm_ref_migrate cmd;
	int rc;

	/* Whatever the core returns for the mapping, the page stays. */
	rc = _test_migrate(self->fd, HMM_REF_TO_DEVICE, self->mem, page_size(), &cmd);
	EXPECT_TRUE(rc == -EINVAL || (!rc && !cmd.out_migrated));
	test_cpu_data(self->mem, 1, 1);
}

int main(int argc, char **argv)
{
	return hmm_ref_test_main(argc, argv);
}
