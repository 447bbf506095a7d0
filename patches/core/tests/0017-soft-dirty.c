/* Soft-dirty of a page on the device survives mprotect() and fork(). */
HMM_SOFT_DIRTY_TEST(soft_dirty_mprotect, false, HMM_MPROTECT, false)
HMM_SOFT_DIRTY_TEST(soft_dirty_huge_mprotect, true, HMM_MPROTECT, false)
HMM_SOFT_DIRTY_TEST(soft_dirty_fork, false, HMM_FORK, false)
HMM_SOFT_DIRTY_TEST(soft_dirty_huge_fork, true, HMM_FORK, false)
