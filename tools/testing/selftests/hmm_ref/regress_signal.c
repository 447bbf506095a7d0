// SPDX-License-Identifier: GPL-2.0-only
/*
 * Long commands and signals.
 *
 * A command over a range of terabytes ignored all signals except fatal ones: no handler ran, no
 * timer fired, and the system could not be suspended. An empty range took as long as a full one.
 *
 * Any signal ends a command at the end of a window. The pages before are counted, so a program that
 * continues with the rest completes, however often it is interrupted.
 */
#include <sys/time.h>

#include "hmm_ref_utils.h"

#define BLOCKS		16UL
#define HUGE_RANGE	(1UL << 44)
#define GIB		(1UL << 30)
#define PASSES		100

static unsigned long signals;

static void on_signal(int signal)
{
	counter_add(&signals, 1);
}

/* Installs a handler that interrupts system calls. */
static void handle(int signal, int flags)
{
	struct sigaction action = { .sa_handler = on_signal, .sa_flags = flags };

	sigaction(signal, &action, NULL);
}

static void timer_set(unsigned long first_us, unsigned long every_us)
{
	struct itimerval timer = {
		.it_value = { first_us / 1000000, first_us % 1000000 },
		.it_interval = { every_us / 1000000, every_us % 1000000 },
	};

	setitimer(ITIMER_REAL, &timer, NULL);
}

static void *map_huge(unsigned long size, int prot)
{
	return mmap(NULL, size, prot, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
}

static unsigned long counted(const struct hmm_ref_migrate *cmd)
{
	return cmd->out_migrated + cmd->out_already + cmd->out_skipped;
}

/* ---- commands on a part of a range ------------------------------------------ */

/* A part of a range: @done pages of @npages. Functions on it return 0 or -errno. */
struct part {
	int fd;
	char *mem;
	unsigned long npages;
	unsigned long done;
	void *buf;	/* for @npages */
};

static char *part_addr(const struct part *part)
{
	return part->mem + part->done * page_size();
}

static unsigned long part_length(const struct part *part)
{
	return (part->npages - part->done) * page_size();
}

static int do_migrate(struct part *part, unsigned int direction, unsigned int flags)
{
	struct hmm_ref_migrate cmd;
	int rc = _test_migrate_flags(part->fd, flags, direction, part_addr(part),
				     part_length(part), &cmd);

	part->done += counted(&cmd);
	return rc;
}

static int do_to_device(struct part *part)
{
	return do_migrate(part, HMM_REF_TO_DEVICE, 0);
}

static int do_to_device_and_map(struct part *part)
{
	return do_migrate(part, HMM_REF_TO_DEVICE, HMM_REF_MIGRATE_MAP);
}

static int do_to_system(struct part *part)
{
	return do_migrate(part, HMM_REF_TO_SYSTEM, 0);
}

static int do_access(struct part *part, unsigned long request)
{
	struct hmm_ref_access cmd;
	int rc = _test_access(part->fd, request, part_addr(part), part_length(part),
			      part->buf + part->done * page_size(), &cmd);

	part->done += cmd.out_bytes / page_size();
	return rc;
}

static int do_read(struct part *part)
{
	return do_access(part, HMM_REF_IOC_READ);
}

static int do_write(struct part *part)
{
	return do_access(part, HMM_REF_IOC_WRITE);
}

static int do_exclusive(struct part *part)
{
	struct hmm_ref_exclusive cmd;
	int rc = _test_exclusive(part->fd, part_addr(part), part_length(part), &cmd);

	part->done += cmd.out_pages;
	return rc;
}

static int do_snapshot(struct part *part)
{
	struct hmm_ref_page_state *states = part->buf;
	struct hmm_ref_snapshot cmd;
	int rc = _test_snapshot(part->fd, part_addr(part), part_length(part),
				states + part->done, &cmd);

	part->done += cmd.out_pages;
	return rc;
}

/* ---- every command under a timer -------------------------------------------- */

FIXTURE(signal)
{
	struct leak_check leak;
	struct part part;
};

FIXTURE_VARIANT(signal)
{
	int (*fn)(struct part *part);
	bool from_device;
};

FIXTURE_VARIANT_ADD(signal, to_device) { .fn = do_to_device };
FIXTURE_VARIANT_ADD(signal, to_device_and_map) { .fn = do_to_device_and_map };
FIXTURE_VARIANT_ADD(signal, to_system) { .fn = do_to_system, .from_device = true };
FIXTURE_VARIANT_ADD(signal, read) { .fn = do_read };
FIXTURE_VARIANT_ADD(signal, write) { .fn = do_write, .from_device = true };
FIXTURE_VARIANT_ADD(signal, snapshot) { .fn = do_snapshot };
FIXTURE_VARIANT_ADD(signal, exclusive) { .fn = do_exclusive };

FIXTURE_SETUP(signal)
{
	leak_check_begin(_metadata, &self->leak);
	self->part.fd = test_open(0);
	self->part.npages = BLOCKS * block_pages();
	self->part.mem = test_map_blocks(BLOCKS);
	self->part.buf = test_map_blocks(BLOCKS);
	fill_pages(self->part.mem, self->part.npages, 1);
	fill_pages(self->part.buf, self->part.npages, 1);
	handle(SIGALRM, 0);
}

FIXTURE_TEARDOWN_PARENT(signal)
{
	leak_check_end(_metadata, &self->leak);
}

/*
 * Each call processes a window, or, if that takes longer, as much as a tenth of a second allows. On
 * a busy host that may be nothing.
 */
static bool call_is_right(struct part *part, int (*fn)(struct part *part),
			  unsigned long *interrupted)
{
	unsigned long at = part->done, rest = part->npages - at;
	unsigned long window = block_pages() - at % block_pages();
	unsigned long long start = now_ms();
	int rc = fn(part);
	unsigned long long took = now_ms() - start;
	unsigned long did = part->done - at;

	if (!rc)
		return CHECK(did == rest);
	*interrupted += 1;
	return CHECK(rc == -EINTR) && CHECK(did < rest) &&
	       CHECK(did >= window || took >= 90);
}

/*
 * The whole range, with a call for each signal. Several signal rates are tried, until a signal hits
 * a command.
 */
TEST_F(signal, continues_with_the_rest)
{
	struct part *part = &self->part;
	unsigned long interrupted = 0;
	unsigned int pass;

	for (pass = 0; pass < PASSES && !interrupted; pass++) {
		if (variant->from_device)
			test_to_device(part->fd, part->mem, part->npages);
		else
			test_to_system(part->fd, part->mem, part->npages);
		part->done = 0;
		timer_set(1000 >> pass % 5, 1000 >> pass % 5);
		while (part->done < part->npages)
			ASSERT_TRUE(call_is_right(part, variant->fn, &interrupted));
		timer_set(0, 0);
	}
	test_cpu_data(part->mem, part->npages, 1);
	if (!interrupted)
		SKIP(return, "no signal came in the middle of %u passes", pass);
	ASSERT_LT(0, signals);
	TH_LOG("interrupted %lu times in pass %u", interrupted, pass);
}

/* ---- more than a window ----------------------------------------------------- */

FIXTURE(huge)
{
	struct leak_check leak;
	int fd;
};

FIXTURE_SETUP(huge)
{
	leak_check_begin(_metadata, &self->leak);
	self->fd = test_open(0);
}

FIXTURE_TEARDOWN_PARENT(huge)
{
	leak_check_end(_metadata, &self->leak);
}

/* Nothing can migrate from an empty range: that returns quickly. */
TEST_F(huge, empty_is_quick)
{
	char *mem = map_huge(HUGE_RANGE, PROT_READ | PROT_WRITE);
	struct hmm_ref_migrate cmd;

	if (mem == MAP_FAILED)
		SKIP(return, "cannot map 16 TiB");
	test_migrate(self->fd, HMM_REF_TO_SYSTEM, mem, HUGE_RANGE, &cmd);
	EXPECT_EQ(HUGE_RANGE / page_size(), cmd.out_already);
	EXPECT_EQ(0, cmd.out_migrated);
	EXPECT_EQ(0, cmd.out_skipped);
}

/* The same holds for unmapped memory, which EVICT accepts, too. */
TEST_F(huge, unmapped_is_quick)
{
	char *mem = map_huge(HUGE_RANGE, PROT_READ | PROT_WRITE);
	struct hmm_ref_evict cmd;
	char *last = mem + HUGE_RANGE - page_size();

	if (mem == MAP_FAILED)
		SKIP(return, "cannot map 16 TiB");
	fill_pages(last, 1, 1);
	test_to_device(self->fd, last, 1);
	ASSERT_EQ(0, munmap(mem, HUGE_RANGE - page_size()));
	ASSERT_EQ(0, _test_evict(self->fd, mem, HUGE_RANGE, &cmd));
	EXPECT_EQ(HUGE_RANGE / page_size() - 1, cmd.out_already);
	EXPECT_EQ(1, cmd.out_evicted);
	test_cpu_data(last, 1, 1);
}

/* A few pages in the range are found, at any address. */
TEST_F(huge, pages_are_found)
{
	const unsigned long last = HUGE_RANGE - page_size();
	const unsigned long at[] = {
		0, block_size() - page_size(), block_size(), GIB - page_size(), GIB,
		5 * GIB + 7 * page_size(), 512 * GIB - page_size(), 512 * GIB + block_size(),
		3 * 512 * GIB + 5 * GIB, last,
	};
	struct hmm_ref_migrate cmd;
	unsigned int i;
	char *mem;

	mem = map_huge(HUGE_RANGE, PROT_READ | PROT_WRITE);
	if (mem == MAP_FAILED)
		SKIP(return, "cannot map 16 TiB");
	/* Single pages, not whole blocks. */
	ASSERT_EQ(0, madvise(mem, HUGE_RANGE, MADV_NOHUGEPAGE));
	/* A part of the range is a mapping of its own. */
	ASSERT_EQ(0, mprotect(mem + 700 * GIB, page_size(), PROT_READ));
	for (i = 0; i < ARRAY_SIZE(at); i++) {
		fill_pages(mem + at[i], 1, i + 1);
		test_to_device(self->fd, mem + at[i], 1);
	}
	test_migrate(self->fd, HMM_REF_TO_SYSTEM, mem, HUGE_RANGE, &cmd);
	EXPECT_EQ(HUGE_RANGE / page_size() - ARRAY_SIZE(at), cmd.out_already);
	EXPECT_EQ(ARRAY_SIZE(at), cmd.out_migrated + cmd.out_skipped);
	for (i = 0; i < ARRAY_SIZE(at); i++)
		test_to_system(self->fd, mem + at[i], 1);
	for (i = 0; i < ARRAY_SIZE(at); i++)
		ASSERT_TRUE(page_holds(mem + at[i], i + 1, 0));
}

/* SNAPSHOT skips holes, and only holes. */
TEST_F(huge, snapshot)
{
	const unsigned long size = 4 * GIB, npages = size / page_size();
	const unsigned long at[] = { 0, block_pages() + 3, GIB / page_size() + 7, npages - 1 };
	struct hmm_ref_page_state *states = test_map_pages(npages * sizeof(*states) /
							   page_size());
	struct hmm_ref_snapshot cmd;
	unsigned long i, found = 0;
	char *mem;

	mem = map_huge(size, PROT_READ | PROT_WRITE);
	if (mem == MAP_FAILED)
		SKIP(return, "cannot map 4 GiB");
	ASSERT_EQ(0, madvise(mem, size, MADV_NOHUGEPAGE));
	for (i = 0; i < ARRAY_SIZE(at); i++)
		touch_write(mem + at[i] * page_size(), 1);
	/* Unreadable and unmapped memory: neither is a hole. */
	ASSERT_EQ(0, mprotect(mem + 2 * GIB, block_size(), PROT_NONE));
	ASSERT_EQ(0, munmap(mem + 3 * GIB, block_size()));
	memset(states, 0xcc, npages * sizeof(*states));
	test_snapshot(self->fd, mem, size, states, &cmd);
	ASSERT_EQ(npages, cmd.out_pages);
	for (i = 0; i < ARRAY_SIZE(at); i++)
		EXPECT_EQ(HMM_REF_PAGE_SYSTEM, states[at[i]].where);
	for (i = 0; i < block_pages(); i++) {
		ASSERT_EQ(HMM_REF_PAGE_ERROR, states[2 * GIB / page_size() + i].where);
		ASSERT_EQ(HMM_REF_PAGE_ERROR, states[3 * GIB / page_size() + i].where);
	}
	for (i = 0; i < npages; i++)
		found += states[i].where != states[1].where;
	EXPECT_EQ(ARRAY_SIZE(at) + 2 * block_pages(), found);
}

/* The device does not fill holes of a file, so they are skipped. */
TEST_F(huge, holes_of_a_file)
{
	int file = memfd_create("hmm_ref", MFD_CLOEXEC);
	struct hmm_ref_migrate cmd;
	char *mem;

	ASSERT_LE(0, file);
	ASSERT_EQ(0, ftruncate(file, HUGE_RANGE / 16));
	mem = mmap(NULL, HUGE_RANGE / 16, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_NORESERVE,
		   file, 0);
	if (mem == MAP_FAILED)
		SKIP(return, "cannot map 1 TiB");
	fill_pages(mem + 5 * GIB, 1, 1);	/* a private copy, which migrates */
	test_migrate(self->fd, HMM_REF_TO_DEVICE, mem, HUGE_RANGE / 16, &cmd);
	EXPECT_EQ(HUGE_RANGE / 16 / page_size() - 1, cmd.out_skipped);
	EXPECT_EQ(1, cmd.out_migrated);
	test_cpu_data(mem + 5 * GIB, 1, 1);
}

/*
 * Pages that cannot be read stay, window by window, which takes hours. The handler of the alarm
 * runs, and the counts are those of whole windows.
 */
TEST_F(huge, handler_runs)
{
	char *mem = map_huge(HUGE_RANGE, PROT_NONE);
	struct hmm_ref_migrate cmd;
	unsigned long end;

	if (mem == MAP_FAILED)
		SKIP(return, "cannot map 16 TiB");
	handle(SIGALRM, SA_RESTART);	/* no restart: the command has made progress */
	timer_set(100000, 0);
	test_err_migrate(EINTR, self->fd, HMM_REF_TO_DEVICE, mem, HUGE_RANGE, &cmd);
	EXPECT_EQ(1, signals);
	EXPECT_LT(0, cmd.out_skipped);
	EXPECT_EQ(cmd.out_skipped, counted(&cmd));
	end = (unsigned long)mem + cmd.out_skipped * page_size();
	EXPECT_EQ(0, end % block_size());
}

struct busy {
	int fd;
	char *mem;
	unsigned long started;
};

/* Keeps the file busy until this thread gets its own signal. */
static int keep_busy(void *arg)
{
	struct busy *busy = arg;
	struct hmm_ref_migrate cmd;
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGALRM);
	pthread_sigmask(SIG_BLOCK, &set, NULL);
	counter_set(&busy->started, 1);
	return !CHECK(_test_migrate(busy->fd, HMM_REF_TO_DEVICE, busy->mem, HUGE_RANGE,
				    &cmd) == -EINTR);
}

/*
 * A task that waits for the command of another thread, and has processed nothing, can be
 * interrupted, too.
 */
TEST_F(huge, waiting_for_another_thread)
{
	struct busy busy = { .fd = self->fd, .mem = map_huge(HUGE_RANGE, PROT_NONE) };
	char *mem = test_map_pages(1);
	struct hmm_ref_migrate cmd;
	struct worker worker;

	if (busy.mem == MAP_FAILED)
		SKIP(return, "cannot map 16 TiB");
	handle(SIGALRM, 0);
	handle(SIGUSR1, 0);
	ASSERT_EQ(0, worker_start(&worker, keep_busy, &busy));
	while (!counter_get(&busy.started))
		usleep(1000);
	usleep(100000);
	timer_set(100000, 100000);
	test_err_migrate(EINTR, self->fd, HMM_REF_TO_DEVICE, mem, page_size(), &cmd);
	EXPECT_EQ(0, counted(&cmd));
	timer_set(0, 0);
	ASSERT_EQ(0, pthread_kill(worker.thread, SIGUSR1));
	ASSERT_EQ(0, worker_wait(&worker));
	test_to_device(self->fd, mem, 1);
}

/* A GiB, with a signal each millisecond. */
TEST_F_TIMEOUT(huge, gib_under_a_timer, 600)
{
	unsigned long interrupted = 0;
	struct hmm_ref_info info;
	struct part part = { .fd = self->fd };

	test_info(self->fd, &info);
	if (info.out_capacity < GIB)
		SKIP(return, "the device is smaller than 1 GiB");
	part.npages = GIB / page_size();
	part.mem = test_map_blocks(GIB / block_size());
	handle(SIGALRM, 0);
	timer_set(1000, 1000);
	while (part.done < part.npages)
		ASSERT_TRUE(call_is_right(&part, do_to_device, &interrupted));
	timer_set(0, 0);
	EXPECT_LT(0, interrupted);
	TH_LOG("interrupted %lu times, %lu signals", interrupted, signals);
}

/*
 * An interrupted AUDIT cannot be continued. It returns the counts of the pages that it has checked,
 * and these add up.
 */
TEST_F(huge, audit)
{
	unsigned long npages = 64 * block_pages();
	char *mem = test_map_blocks(64);
	struct hmm_ref_audit audit;
	unsigned int i;
	int rc = 0;

	test_to_device(self->fd, mem, npages);
	handle(SIGALRM, 0);
	for (i = 0; i < 2000 && !rc; i++) {
		timer_set(300, 0);
		rc = _test_audit(self->fd, &audit);
		ASSERT_TRUE(!rc || rc == -EINTR);
		EXPECT_EQ(0, audit.out_violations);
	}
	timer_set(0, 0);
	if (!rc)
		SKIP(return, "an audit is quicker than a signal here");
	EXPECT_LT(0, audit.out_total);
	audit_check(_metadata, self->fd);
}

int main(int argc, char **argv)
{
	return hmm_ref_test_main(argc, argv);
}
