// SPDX-License-Identifier: GPL-2.0-only
/*
 * A huge page migrates from the device while its mapping ends: a child exits, execs or unmaps it,
 * or a thread discards it.
 *
 * During the migration the PMD is a migration entry, and the entry's mapping and reference of the
 * folio have already been dropped. zap_huge_pmd() of a kernel without patches/core/0001 drops both
 * a second time. The folio is freed while the driver copies from it: "Bad rss-counter state", lost
 * data, endless CPU faults, AUDIT violations, kernel BUGs. It takes one or two rounds.
 *
 * Where the core has the bug, the driver does not keep large folios (module parameter large), and
 * the tests are skipped.
 *
 * HMM_REF_MS is how long each variant lasts (default 700).
 */
#include "hmm_ref_huge.h"
#include "hmm_ref_old.h"

#define LARGE		"/sys/module/hmm_ref/parameters/large"
#define EXEC_CHILD	"HMM_REF_ZAP_EXEC"
#define MET_ENOUGH	5

enum zap { EXIT, EXEC, MUNMAP, DONTNEED };
enum way { TOUCH, WRITE, COMMAND, EVICT };

/* State of a round, in memory that the child shares. */
struct round {
	unsigned long ready, go, zapping, zapped;
	unsigned int delay;
};

FIXTURE(zap)
{
	struct leak_check leak;
	struct round *round;
	int fd, old;
	char *mem;
};

FIXTURE_VARIANT(zap)
{
	enum zap zap;
	enum way way;
};

FIXTURE_VARIANT_ADD(zap, exit_touch) { .zap = EXIT, .way = TOUCH };
FIXTURE_VARIANT_ADD(zap, exit_write) { .zap = EXIT, .way = WRITE };
FIXTURE_VARIANT_ADD(zap, exit_command) { .zap = EXIT, .way = COMMAND };
FIXTURE_VARIANT_ADD(zap, exit_evict) { .zap = EXIT, .way = EVICT };
FIXTURE_VARIANT_ADD(zap, exec_touch) { .zap = EXEC, .way = TOUCH };
FIXTURE_VARIANT_ADD(zap, exec_command) { .zap = EXEC, .way = COMMAND };
FIXTURE_VARIANT_ADD(zap, munmap_touch) { .zap = MUNMAP, .way = TOUCH };
FIXTURE_VARIANT_ADD(zap, munmap_command) { .zap = MUNMAP, .way = COMMAND };
FIXTURE_VARIANT_ADD(zap, munmap_evict) { .zap = MUNMAP, .way = EVICT };
FIXTURE_VARIANT_ADD(zap, dontneed_touch) { .zap = DONTNEED, .way = TOUCH };
FIXTURE_VARIANT_ADD(zap, dontneed_command) { .zap = DONTNEED, .way = COMMAND };
FIXTURE_VARIANT_ADD(zap, dontneed_evict) { .zap = DONTNEED, .way = EVICT };

FIXTURE_SETUP(zap)
{
	char large[8] = "";

	read_file(LARGE, large, sizeof(large));
	if (*large != 'Y')
		SKIP(return, "large=N: this kernel has bugs that large folios run into");
	self->old = old_open(0);
	if (variant->way == EVICT && self->old < 0)
		SKIP(return, "no /dev/hmm_dmirror0, which evicts");
	leak_check_begin(_metadata, &self->leak);
	self->fd = test_open(0);
	if (!keeps_large())
		SKIP(return, "this kernel splits what goes to a device");
	self->mem = test_map_blocks(1);
	self->round = test_map_shared(sizeof(*self->round));
	if (madvise(self->mem, block_size(), MADV_HUGEPAGE))
		SKIP(return, "no transparent huge pages");
}

FIXTURE_TEARDOWN_PARENT(zap)
{
	leak_check_end(_metadata, &self->leak);
}

/* So that each side is first at some time. */
static void dawdle(unsigned int us)
{
	unsigned long long end = now_ns() + us * 1000ULL;

	while (now_ns() < end)
		;
}

/* ---- zap ----------------------------------------------------------------- */

struct zapper {
	struct round *round;
	char *mem;
	enum zap zap;
};

static int zap_main(void *arg)
{
	char *const argv[] = { "regress_zap", NULL };
	char *const envp[] = { EXEC_CHILD "=1", NULL };
	unsigned long long deadline = now_ms() + PATIENCE_MS;
	struct zapper *zapper = arg;
	struct round *round = zapper->round;
	int rc = 0;

	run_on_cpu(1);
	counter_set(&round->ready, 1);
	while (!counter_get(&round->go))
		if (!CHECK(now_ms() < deadline))
			return 1;
	dawdle(round->delay);
	counter_set(&round->zapping, 1);
	switch (zapper->zap) {
	case EXIT:
		return 0;
	case EXEC:
		execve("/proc/self/exe", argv, envp);
		return !CHECK(false);
	case MUNMAP:
		rc = munmap(zapper->mem, block_size());
		break;
	case DONTNEED:
		rc = madvise(zapper->mem, block_size(), MADV_DONTNEED);
		break;
	}
	counter_set(&round->zapped, 1);
	return !CHECK(!rc);
}

/*
 * A thread discards memory of its own process. A child drops the mapping that it has from fork().
 */
struct other {
	struct worker worker;
	pid_t child;
};

static int other_start(struct other *other, struct zapper *zapper)
{
	if (zapper->zap == DONTNEED)
		return worker_start(&other->worker, zap_main, zapper);
	other->child = child_start(zap_main, zapper);
	return other->child < 0 ? -errno : 0;
}

static int other_wait(struct other *other, struct zapper *zapper)
{
	return zapper->zap == DONTNEED ? worker_wait(&other->worker) :
	       child_wait(other->child, PATIENCE_MS);
}

/* Returns true when the whole mapping is gone. */
static bool other_zaps(struct other *other, struct zapper *zapper)
{
	siginfo_t info = {};

	if (counter_get(&zapper->round->zapped))
		return false;
	if (zapper->zap == DONTNEED || zapper->zap == MUNMAP)
		return true;
	waitid(P_PID, other->child, &info, WEXITED | WNOHANG | WNOWAIT);
	return !info.si_pid;
}

/* ---- migration to system memory ------------------------------------------ */

static int bring_back(int fd, int old, char *mem, enum way way, unsigned long page)
{
	struct hmm_ref_migrate cmd;
	char *at = mem + page * page_size();
	int rc = 0;

	switch (way) {
	case TOUCH:
		touch_read(at);
		break;
	case WRITE:
		/* Writes the same byte: the write breaks copy-on-write and changes no data. */
		touch_write(at, (char)pattern_word(1, page, 0));
		break;
	case COMMAND:
		rc = _test_migrate(fd, HMM_REF_TO_SYSTEM, mem, block_size(), &cmd);
		break;
	case EVICT:
		rc = old_release(old);
		if (rc == -EBUSY)
			rc = 0;
		break;
	}
	return rc;
}

static void __test_zapped(struct __test_metadata *_metadata, char *mem)
{
	unsigned long i;

	for (i = 0; i < block_pages(); i++) {
		ASSERT_TRUE(page_is_zero(mem + i * page_size())) {
			TH_LOG("page %lu", i);
		}
	}
}

/*
 * In the end the parent has all of its data, and a task that has discarded memory has none: no
 * discarded page comes back, and no mapped page is freed.
 */
TEST_F(zap, during_migration)
{
	unsigned long long end = now_ms() + env_number("HMM_REF_MS", 700);
	unsigned long long deadline = end + MEET_MS;
	struct zapper zapper = { self->round, self->mem, variant->zap };
	unsigned int random = random_seed("HMM_REF_SEED");
	unsigned long rounds = 0, whole = 0, met = 0;
	unsigned long npages = block_pages();
	struct other other;
	bool early;

	run_on_cpu(0);
	for (; now_ms() < end || (met < MET_ENOUGH && now_ms() < deadline); rounds++) {
		memset(self->round, 0, sizeof(*self->round));
		self->round->delay = random_next(&random) % 500;
		ASSERT_EQ(0, madvise(self->mem, block_size(), MADV_DONTNEED));
		fill_pages(self->mem, npages, 1);
		test_to_device(self->fd, self->mem, npages);
		whole += order_at(self->fd, self->mem) == HUGE_ORDER;

		ASSERT_EQ(0, other_start(&other, &zapper));
		while (!counter_get(&self->round->ready) && now_ms() < deadline)
			sched_yield();
		counter_set(&self->round->go, 1);
		dawdle(random_next(&random) % 500);
		early = other_zaps(&other, &zapper);
		ASSERT_EQ(0, bring_back(self->fd, self->old, self->mem, variant->way,
					random_next(&random) % npages));
		met += early && counter_get(&self->round->zapping);
		ASSERT_EQ(0, other_wait(&other, &zapper));

		if (variant->zap == DONTNEED)
			__test_zapped(_metadata, self->mem);
		else
			test_cpu_data(self->mem, npages, 1);
	}
	TH_LOG("%lu rounds, %lu with a large folio, met %lu times", rounds, whole, met);
	ASSERT_LT(0, whole);
	if (met < MET_ENOUGH)
		SKIP(return, "the two sides did not meet");
}

int main(int argc, char **argv)
{
	if (getenv(EXEC_CHILD))
		return 0;
	return hmm_ref_test_main(argc, argv);
}
