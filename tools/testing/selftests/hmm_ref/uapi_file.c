// SPDX-License-Identifier: GPL-2.0-only
/*
 * The device file: users that may open it, information on the device and the kernel, and unknown
 * ioctls.
 *
 * Covers: a feature that is reported but does not work; a device that any user may open; the number
 * of an ioctl that is accepted for another one.
 */
#include "hmm_ref_utils.h"

FIXTURE(file)
{
	struct leak_check leak;
	int fd;
};

FIXTURE_SETUP(file)
{
	leak_check_begin(_metadata, &self->leak);
	self->fd = test_open(0);
}

FIXTURE_TEARDOWN_PARENT(file)
{
	leak_check_end(_metadata, &self->leak);
}

/* Features that are reported work. */
TEST_F(file, features)
{
	const struct { unsigned long long bit; bool expected; const char *what; } known[] = {
		{ HMM_REF_FEATURE_LARGE, keeps_large(), "large" },
		{ HMM_REF_FEATURE_ELASTIC,
		  hmm_ref_dev_info.out_memory_type == HMM_REF_MEMORY_PRIVATE, "elastic" },
		{ HMM_REF_FEATURE_OLD_INTERFACE, !access("/dev/hmm_dmirror0", F_OK), "old" },
		{ HMM_REF_FEATURE_PEERS, true, "peers" },
		{ HMM_REF_FEATURE_FAIL,
		  !access("/sys/kernel/debug/hmm_ref/fail_large", F_OK), "fail" },
	};
	unsigned long long left = HMM_REF_FEATURE_LARGE_SAFE | HMM_REF_FEATURE_SANITY |
				  HMM_REF_FEATURE_CORE_FIXED;
	struct hmm_ref_info info;
	unsigned int i;

	test_info(self->fd, &info);
	for (i = 0; i < ARRAY_SIZE(known); i++) {
		EXPECT_EQ(known[i].expected, !!(info.out_features & known[i].bit)) {
			TH_LOG("feature %s", known[i].what);
		}
		left |= known[i].bit;
	}
	EXPECT_EQ(0, info.out_features & ~left);
}

TEST_F(file, unknown_ioctl)
{
	struct hmm_ref_info cmd = { .size = sizeof(cmd) };
	unsigned int nr;

	for (nr = HMM_REF_CMD_EVICT_ALL + 1; nr < 256; nr++)
		ASSERT_EQ(-ENOTTY, _test_ioctl(self->fd,
					       _IO(HMM_REF_IOC_TYPE, nr), &cmd));
	/* A known number with another type, direction or size. */
	ASSERT_EQ(-ENOTTY, _test_ioctl(self->fd, _IO(HMM_REF_IOC_TYPE ^ 1, 0), &cmd));
	ASSERT_EQ(-ENOTTY, _test_ioctl(self->fd,
				       _IOWR(HMM_REF_IOC_TYPE, 0, struct hmm_ref_info),
				       &cmd));
	ASSERT_EQ(-ENOTTY, _test_ioctl(self->fd, _IOR(HMM_REF_IOC_TYPE, 5, int), &cmd));
}

TEST_F(file, info_is_consistent)
{
	struct hmm_ref_info info;

	test_info(self->fd, &info);
	EXPECT_EQ(sysconf(_SC_PAGESIZE), info.out_page_size);
	EXPECT_EQ(HMM_REF_MEMORY_PRIVATE, info.out_memory_type);
	EXPECT_LT(info.out_page_size, info.out_block_size);
	EXPECT_EQ(0, info.out_block_size & (info.out_block_size - 1));
	EXPECT_EQ(0, info.out_chunk_size % info.out_block_size);
	EXPECT_LT(0, info.out_chunk_size);
	EXPECT_LE(info.out_block_size, info.out_capacity);
	EXPECT_EQ(0, info.out_capacity % info.out_page_size);
	EXPECT_TRUE(info.out_folio_size == info.out_page_size ||
		    info.out_folio_size == info.out_block_size);
}

static int open_unprivileged(void *arg)
{
	if (!CHECK(!setgid(65534)) || !CHECK(!setuid(65534)))
		return 1;
	return !CHECK(hmm_ref_open(0) == -EACCES);
}

TEST_F(file, for_root_only)
{
	struct stat st;

	ASSERT_EQ(0, fstat(self->fd, &st));
	ASSERT_TRUE(S_ISCHR(st.st_mode));
	ASSERT_EQ(0600, st.st_mode & 07777);
	ASSERT_EQ(0, child_run(open_unprivileged, NULL));
}

int main(int argc, char **argv)
{
	return hmm_ref_test_main(argc, argv);
}
