// SPDX-License-Identifier: GPL-2.0-only
/*
 * A huge page on the device is split in every way, at its first, a middle and its last page, and
 * migrates to system memory in every way. Each variant is a way to split and a place, each test a
 * way to migrate. FORK: a child unmaps the page, and the parent keeps the folio whole. WRITE: the
 * device writes to the page for the parent. On a kernel that splits every page that migrates to a
 * device, the data still has to be right.
 *
 * Covers: parts of a large folio that are looked up by its head; a wrong page that is copied; split
 * folios that are freed twice, or never; a device page table that still maps pages which were
 * unmapped; a migration that needs the folio whole.
 */
#include "hmm_ref_huge.h"

#define FAIL_LARGE	"/sys/kernel/debug/hmm_ref/fail_large/"
#define HUGE_ORDER	9

enum cut { NOTHING, MUNMAP, MPROTECT, MREMAP, FORK, WRITE, DONTNEED };
enum place { FIRST, MIDDLE, LAST };

struct split {
	enum cut cut;
	unsigned long page;	/* page that is cut out */
	unsigned long pages;	/* pages of the folio */
	int fd;
	char *mem;
	char *elsewhere;	/* where MREMAP moves the page */
	pid_t child;		/* child of FORK and WRITE */
	int ready, go;
};

FIXTURE(split)
{
	struct leak_check leak;
	struct split s;
};

FIXTURE_VARIANT(split)
{
	enum cut cut;
	enum place place;
};

FIXTURE_VARIANT_ADD(split, nothing) { .cut = NOTHING, .place = FIRST };
FIXTURE_VARIANT_ADD(split, munmap_first) { .cut = MUNMAP, .place = FIRST };
FIXTURE_VARIANT_ADD(split, munmap_middle) { .cut = MUNMAP, .place = MIDDLE };
FIXTURE_VARIANT_ADD(split, munmap_last) { .cut = MUNMAP, .place = LAST };
FIXTURE_VARIANT_ADD(split, mprotect_first) { .cut = MPROTECT, .place = FIRST };
FIXTURE_VARIANT_ADD(split, mprotect_middle) { .cut = MPROTECT, .place = MIDDLE };
FIXTURE_VARIANT_ADD(split, mprotect_last) { .cut = MPROTECT, .place = LAST };
FIXTURE_VARIANT_ADD(split, mremap_first) { .cut = MREMAP, .place = FIRST };
FIXTURE_VARIANT_ADD(split, mremap_middle) { .cut = MREMAP, .place = MIDDLE };
FIXTURE_VARIANT_ADD(split, mremap_last) { .cut = MREMAP, .place = LAST };
FIXTURE_VARIANT_ADD(split, fork_first) { .cut = FORK, .place = FIRST };
FIXTURE_VARIANT_ADD(split, fork_middle) { .cut = FORK, .place = MIDDLE };
FIXTURE_VARIANT_ADD(split, fork_last) { .cut = FORK, .place = LAST };
FIXTURE_VARIANT_ADD(split, write_first) { .cut = WRITE, .place = FIRST };
FIXTURE_VARIANT_ADD(split, write_middle) { .cut = WRITE, .place = MIDDLE };
FIXTURE_VARIANT_ADD(split, write_last) { .cut = WRITE, .place = LAST };
FIXTURE_VARIANT_ADD(split, dontneed_first) { .cut = DONTNEED, .place = FIRST };
FIXTURE_VARIANT_ADD(split, dontneed_middle) { .cut = DONTNEED, .place = MIDDLE };
FIXTURE_VARIANT_ADD(split, dontneed_last) { .cut = DONTNEED, .place = LAST };

static char *page_at(struct split *s, unsigned long page)
{
	return s->mem + page * page_size();
}

/* ---- to the device --------------------------------------------------------------- */

/* Returns false when no huge page can be allocated. */
static bool split_begin(struct __test_metadata *_metadata, struct split *s,
			enum cut cut, enum place place)
{
	struct hmm_ref_migrate cmd;

	s->cut = cut;
	s->pages = block_pages();
	s->page = place == FIRST ? 0 : place == LAST ? s->pages - 1 : s->pages / 2 + 3;
	s->mem = test_map_blocks(1);
	s->elsewhere = test_map_pages(1);
	s->ready = event_new();
	s->go = event_new();
	if (madvise(s->mem, block_size(), MADV_HUGEPAGE))
		return false;
	fill_pages(s->mem, s->pages, 1);
	if (order_at(s->fd, s->mem) != HUGE_ORDER)
		return false;
	test_migrate(s->fd, HMM_REF_TO_DEVICE, s->mem, block_size(), &cmd);
	EXPECT_EQ(s->pages, cmd.out_migrated);
	EXPECT_EQ(keeps_large() ? HUGE_ORDER : 0, order_at(s->fd, s->mem));
	test_pages_at(s->fd, s->mem, s->pages, HMM_REF_PAGE_DEVICE, s->pages);
	/* The device maps the folio as a whole, too. */
	test_dev_data(s->fd, s->mem, s->pages, 1);
	return true;
}

FIXTURE_SETUP(split)
{
	leak_check_begin(_metadata, &self->leak);
	self->s.fd = test_open(0);
	if (!split_begin(_metadata, &self->s, variant->cut, variant->place))
		SKIP(return, "no huge page can be allocated");
}

FIXTURE_TEARDOWN_PARENT(split)
{
	if (access("/dev/hmm_ref0", F_OK))
		EXPECT_EQ(0, device_bind(0));
	leak_check_end(_metadata, &self->leak);
}

/* ---- split ----------------------------------------------------------------------- */

/* Keeps the data of fork(), whatever the parent does. FORK: except one page. */
static int child_main(void *arg)
{
	struct split *s = arg;
	unsigned long i;

	if (s->cut == FORK && !CHECK(!munmap(page_at(s, s->page), page_size())))
		return 1;
	event_post(s->ready);
	if (!CHECK(event_wait(s->go)))
		return 1;
	for (i = 0; i < s->pages; i++)
		if ((s->cut != FORK || i != s->page) &&
		    !CHECK(page_holds(page_at(s, i), 1, i)))
			return 1;
	return 0;
}

static void split_cut(struct __test_metadata *_metadata, struct split *s)
{
	char *buf = test_map_pages(1);
	char *at = page_at(s, s->page);

	switch (s->cut) {
	case NOTHING:
		break;
	case MUNMAP:
		ASSERT_EQ(0, munmap(at, page_size()));
		break;
	case MPROTECT:
		ASSERT_EQ(0, mprotect(at, page_size(), PROT_READ));
		test_err_write(EPERM, s->fd, at, 1, buf);
		break;
	case MREMAP:
		ASSERT_EQ(s->elsewhere, mremap(at, page_size(), page_size(), MREMAP_MAYMOVE |
					       MREMAP_FIXED, s->elsewhere));
		break;
	case FORK:
	case WRITE:
		s->child = child_start(child_main, s);
		ASSERT_LT(0, s->child);
		ASSERT_TRUE(event_wait(s->ready));
		if (s->cut == FORK)
			break;
		fill_pages_from(buf, 1, 2, s->page);
		test_write(s->fd, at, page_size(), buf);
		break;
	case DONTNEED:
		ASSERT_EQ(0, madvise(at, page_size(), MADV_DONTNEED));
		break;
	}
}

static bool is_mapped(const struct split *s, unsigned long page)
{
	return page != s->page || (s->cut != MUNMAP && s->cut != MREMAP);
}

static bool is_good(const struct split *s, const char *mem, unsigned long page)
{
	if (page != s->page)
		return page_holds(mem, 1, page);
	return s->cut == DONTNEED ? page_is_zero(mem) :
	       page_holds(mem, s->cut == WRITE ? 2 : 1, page);
}

/* The device's view. It migrates nothing, so it is checked first. */
static void split_check_device(struct __test_metadata *_metadata, struct split *s)
{
	char *buf = test_map_pages(1);
	unsigned long i;

	for (i = 0; i < s->pages; i++) {
		memset(buf, 0xcc, page_size());
		if (!is_mapped(s, i)) {
			test_err_read(EFAULT, s->fd, page_at(s, i), 1, buf);
			continue;
		}
		test_read(s->fd, page_at(s, i), page_size(), buf);
		ASSERT_TRUE(is_good(s, buf, i)) {
			report_bad_page("device", i, buf, 1);
		}
	}
	if (s->cut != MREMAP)
		return;
	test_read(s->fd, s->elsewhere, page_size(), buf);
	ASSERT_TRUE(page_holds(buf, 1, s->page));
}

/* ---- to system memory ------------------------------------------------------------ */

static int split_check_cpu(struct split *s)
{
	unsigned long i;

	for (i = 0; i < s->pages; i++) {
		if (!is_mapped(s, i) || is_good(s, page_at(s, i), i))
			continue;
		report_bad_page("cpu", i, page_at(s, i), 1);
		return 1;
	}
	return s->cut == MREMAP && !page_holds(s->elsewhere, 1, s->page);
}

static int check_cpu_main(void *arg)
{
	return split_check_cpu(arg);
}

/* All data is right and in system memory, and the child has seen its own data. */
static void split_end(struct __test_metadata *_metadata, struct split *s)
{
	ASSERT_EQ(0, split_check_cpu(s));
	if (s->child) {
		event_post(s->go);
		ASSERT_EQ(0, child_wait(s->child, PATIENCE_MS));
		ASSERT_EQ(0, split_check_cpu(s));
	}
}

/* Waits until the client has no pages. The task that has just migrated them may hold references. */
static void __test_client_empty(struct __test_metadata *_metadata, int fd)
{
	unsigned long long deadline = now_ms() + PATIENCE_MS;
	struct hmm_ref_stats stats;

	do {
		test_stats(fd, &stats);
	} while (stats.out_pages_client && now_ms() < deadline);
	EXPECT_EQ(0, stats.out_pages_client);
}

static void back_by_cpu(struct __test_metadata *_metadata, struct split *s)
{
	struct hmm_ref_stats before, after;

	test_stats(s->fd, &before);
	split_end(_metadata, s);
	test_stats(s->fd, &after);
	/*
	 * Counts pages, whatever folios they were in. For WRITE, the device write has migrated the
	 * shared page.
	 */
	if (s->cut != WRITE) {
		EXPECT_LT(before.out_cpu_faults, after.out_cpu_faults);
		EXPECT_LE(s->pages - 1, after.out_fault_pages - before.out_fault_pages);
	}
	EXPECT_GE(s->pages, after.out_fault_pages - before.out_fault_pages);
	__test_client_empty(_metadata, s->fd);
}

static void back_by_ioctl(struct __test_metadata *_metadata, struct split *s)
{
	struct hmm_ref_stats before, after;
	unsigned long behind = s->page + 1;

	test_stats(s->fd, &before);
	if (s->page)
		test_to_system(s->fd, s->mem, s->page);
	if (is_mapped(s, s->page))
		test_to_system(s->fd, page_at(s, s->page), 1);
	if (behind < s->pages)
		test_to_system(s->fd, page_at(s, behind), s->pages - behind);
	if (s->cut == MREMAP)
		test_to_system(s->fd, s->elsewhere, 1);
	test_stats(s->fd, &after);
	if (s->cut != WRITE)
		EXPECT_LE(s->pages - 1, after.out_to_system - before.out_to_system);
	EXPECT_GE(s->pages, after.out_to_system - before.out_to_system);
	EXPECT_EQ(before.out_cpu_faults, after.out_cpu_faults);
	__test_client_empty(_metadata, s->fd);
	split_end(_metadata, s);
}

/* The file is closed, the child reads all pages, and then this process does. */
static void back_after_close(struct __test_metadata *_metadata, struct split *s)
{
	ASSERT_EQ(0, close(s->fd));
	ASSERT_EQ(0, child_run(check_cpu_main, s));
	split_end(_metadata, s);
}

static void back_by_eviction(struct __test_metadata *_metadata, struct split *s)
{
	ASSERT_EQ(0, device_unbind(0));
	split_end(_metadata, s);
	ASSERT_EQ(0, device_bind(0));
}

/* The device reads pages in between, and they return in single pages. */
TEST_F(split, by_cpu)
{
	struct split *s = &self->s;

	split_cut(_metadata, s);
	split_check_device(_metadata, s);
	back_by_cpu(_metadata, s);
	if (s->page)
		test_to_device(s->fd, s->mem, s->page);
	if (s->page + 1 < s->pages)
		test_to_device(s->fd, page_at(s, s->page + 1), s->pages - s->page - 1);
	split_check_device(_metadata, s);
}

TEST_F(split, by_ioctl)
{
	split_cut(_metadata, &self->s);
	back_by_ioctl(_metadata, &self->s);
}

TEST_F(split, after_close)
{
	split_cut(_metadata, &self->s);
	back_after_close(_metadata, &self->s);
}

TEST_F(split, by_eviction)
{
	split_cut(_metadata, &self->s);
	back_by_eviction(_metadata, &self->s);
}

/* The folio is split and freed: the teardown checks that the device has all pages back. */
TEST_F(split, freed_by_exit)
{
	split_cut(_metadata, &self->s);
	if (self->s.child)
		ASSERT_EQ(CHILD_SIGNAL + SIGKILL, child_kill(self->s.child));
}

/* ---- without large pages --------------------------------------------------------- */

FIXTURE(scarce)
{
	struct leak_check leak;
};

FIXTURE_VARIANT(scarce)
{
	void (*back)(struct __test_metadata *_metadata, struct split *s);
};

FIXTURE_VARIANT_ADD(scarce, by_cpu) { .back = back_by_cpu };
FIXTURE_VARIANT_ADD(scarce, by_ioctl) { .back = back_by_ioctl };
FIXTURE_VARIANT_ADD(scarce, after_close) { .back = back_after_close };
FIXTURE_VARIANT_ADD(scarce, by_eviction) { .back = back_by_eviction };

FIXTURE_SETUP(scarce)
{
	if (access(FAIL_LARGE "probability", F_OK))
		SKIP(return, "no " FAIL_LARGE ": CONFIG_FAULT_INJECTION_DEBUG_FS");
	leak_check_begin(_metadata, &self->leak);
}

FIXTURE_TEARDOWN_PARENT(scarce)
{
	if (!access(FAIL_LARGE "probability", F_OK))
		EXPECT_EQ(0, attr_disarm(FAIL_LARGE));
	if (access("/dev/hmm_ref0", F_OK))
		EXPECT_EQ(0, device_bind(0));
	leak_check_end(_metadata, &self->leak);
}

/* Every way to split at every place. The rest of the folio has to return in single pages. */
TEST_F(scarce, to_system)
{
	unsigned int cut, place;

	for (cut = NOTHING; cut <= DONTNEED; cut++) {
		for (place = FIRST; place <= LAST; place++) {
			struct split s = { .fd = test_open(0) };

			ASSERT_EQ(0, attr_disarm(FAIL_LARGE));
			if (!split_begin(_metadata, &s, cut, place))
				SKIP(return, "no huge page can be allocated");
			ASSERT_EQ(0, attr_arm(FAIL_LARGE, 0, -1));
			split_cut(_metadata, &s);
			variant->back(_metadata, &s);
			close(s.fd);
			munmap(s.mem, block_size());
			munmap(s.elsewhere, page_size());
		}
	}
}

int main(int argc, char **argv)
{
	return hmm_ref_test_main(argc, argv);
}
