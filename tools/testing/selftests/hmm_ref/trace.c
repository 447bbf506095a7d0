// SPDX-License-Identifier: GPL-2.0-only
/*
 * Tracepoints and fdinfo: the events match the operations, in their order, with the counts that the
 * commands return.
 *
 * Uses its own instance of tracefs, and mounts tracefs if necessary.
 *
 * Covers: an event that is recorded after the page has another owner; counters that drift; names
 * that tools cannot resolve.
 */
#include "hmm_ref_trace.h"

#define PAGES		24UL
#define FAIL_RETRY	"/sys/kernel/debug/hmm_ref/fail_retry/"
#define HUGE_ORDER	9

static struct trace_log trace_log;

FIXTURE(trace)
{
	struct leak_check leak;
	char instance[64];
	int fd;
	char *mem;
};

static const char *make_instance(char *instance, size_t size)
{
	const char *why_not = trace_unavailable();

	if (why_not)
		return why_not;
	snprintf(instance, size, TRACEFS "instances/hmm_ref_test_%d", getpid());
	return mkdir(instance, 0700) ? "no instances in tracefs" : NULL;
}

FIXTURE_SETUP(trace)
{
	const char *why_not = make_instance(self->instance, sizeof(self->instance));

	leak_check_begin(_metadata, &self->leak);
	if (why_not) {
		self->instance[0] = '\0';
		SKIP(return, "%s", why_not);
	}
	self->fd = test_open(0);
	self->mem = test_map_pages(PAGES);
	fill_pages(self->mem, PAGES, 1);
}

FIXTURE_TEARDOWN_PARENT(trace)
{
	if (self->instance[0]) {
		trace_write(self->instance, "events/hmm_ref/enable", "0");
		EXPECT_EQ(0, rmdir(self->instance));
	}
	leak_check_end(_metadata, &self->leak);
}

#define test_trace_start()	ASSERT_EQ(0, trace_start(self->instance))
#define test_trace_stop()	ASSERT_EQ(0, trace_stop(self->instance, &trace_log))

/* Finds an event. Sets @at to its index. */
#define test_event(at, from, name, key, value)					\
	do {									\
		(at) = log_find(&trace_log, from, name, key, (long)(value));	\
		ASSERT_GT(trace_log.nr, at) {					\
			TH_LOG("no %s with " key "=%#lx from %u on", name,	\
			       (long)(value), from);				\
			log_print(&trace_log);					\
		}								\
	} while (0)

#define number(at, key)		event_number(&trace_log.events[at], key)
#define says(at, word)		event_says(&trace_log.events[at], word)

/* ---- formats --------------------------------------------------------------------- */

static const char *const names[] = {
	"page_handout", "page_free", "block_state", "chunk_add", "chunk_remove",
	"migrate_begin", "migrate_end", "cpu_fault", "device_fault", "invalidate",
	"evict", "retry",
};

/* Checks that fields follow each other and that each is printed. Returns their number, or -1. */
static int parse_format(char *format)
{
	char *print = strstr(format, "print fmt: ");
	unsigned int offset, size, end = 0;
	char *line = format, name[64], use[80];
	int fields = 0;

	/* A name that is left in the format is known only to the kernel. */
	if (!print || strstr(print, "HMM_REF_") || strstr(print, "MMU_NOTIFY_") ||
	    strstr(print, "VM_FAULT_"))
		return -1;
	while ((line = strstr(line, "\tfield:")) && line < print) {
		char *semi = strchr(line, ';');
		char *last = semi;

		while (last && last[-1] != ' ')
			last--;
		if (!last || sscanf(last, "%63[^;[]", name) != 1 ||
		    sscanf(semi, "; offset:%u; size:%u;", &offset, &size) != 2)
			return -1;
		snprintf(use, sizeof(use), "REC->%s", name);
		if (offset < end || !size)
			return -1;
		if (strncmp(name, "common_", 7) && !strstr(print, use))
			return -1;
		end = offset + size;
		fields++;
		line = semi;
	}
	return fields;
}

TEST_F(trace, formats)
{
	static char text[16384];
	struct dirent *entry;
	char path[128];
	unsigned int i, found = 0;
	DIR *dir;

	for (i = 0; i < ARRAY_SIZE(names); i++) {
		snprintf(path, sizeof(path), "events/hmm_ref/hmm_ref_%s/enable", names[i]);
		ASSERT_EQ(0, trace_write(self->instance, path, "1"));
		snprintf(path, sizeof(path), "%s/events/hmm_ref/hmm_ref_%s/enable",
			 self->instance, names[i]);
		ASSERT_LT(0, read_file(path, text, sizeof(text)));
		EXPECT_EQ('1', text[0]);
		snprintf(path, sizeof(path), "%s/events/hmm_ref/hmm_ref_%s/format",
			 self->instance, names[i]);
		ASSERT_LT(0, read_file(path, text, sizeof(text)));
		/* Four fields that are common to all events, the device, and at least one more. */
		EXPECT_LT(5, parse_format(text)) {
			TH_LOG("%s: %s", names[i], text);
		}
	}
	snprintf(path, sizeof(path), "%s/events/hmm_ref", self->instance);
	dir = opendir(path);
	ASSERT_NE(NULL, dir);
	while ((entry = readdir(dir)))
		found += !strncmp(entry->d_name, "hmm_ref_", strlen("hmm_ref_"));
	closedir(dir);
	EXPECT_EQ(ARRAY_SIZE(names), found);
}

/* ---- life of a page -------------------------------------------------------------- */

TEST_F(trace, life_of_a_page)
{
	unsigned int begin, handout, end, access, zap, fault, free;
	struct hmm_ref_migrate cmd;
	long addr = (long)self->mem;
	char word[8];
	long dpfn;

	test_trace_start();
	test_migrate(self->fd, HMM_REF_TO_DEVICE, self->mem, page_size(), &cmd);
	test_read(self->fd, self->mem, sizeof(word), word);
	touch_read(self->mem);
	test_trace_stop();
	ASSERT_EQ(1, cmd.out_migrated);

	test_event(begin, 0, "migrate_begin", "addr", addr);
	EXPECT_TRUE(says(begin, "TO_DEVICE"));
	EXPECT_EQ(1, number(begin, "npages"));
	test_event(handout, begin, "page_handout", "order", 0);
	dpfn = number(handout, "dpfn");
	EXPECT_LE(0, dpfn);
	EXPECT_EQ(0, number(handout, "dev"));
	EXPECT_EQ(getpid(), number(handout, "owner"));
	test_event(end, handout, "migrate_end", "addr", addr);
	EXPECT_LT(0, number(end, "ns"));
	test_event(access, end, "device_fault", "start", addr);
	EXPECT_EQ(addr + page_size(), number(access, "end"));
	EXPECT_EQ(0, number(access, "write"));
	EXPECT_EQ(0, number(access, "rc"));
	for (zap = access + 1; zap < trace_log.nr; zap++)
		if (!strcmp(trace_log.events[zap].name, "invalidate") &&
		    number(zap, "start") <= addr && number(zap, "end") > addr)
			break;
	ASSERT_GT(trace_log.nr, zap);
	EXPECT_TRUE(says(zap, "MIGRATE"));
	EXPECT_EQ(getpid(), number(zap, "owner"));
	test_event(fault, zap, "cpu_fault", "addr", addr);
	EXPECT_EQ(dpfn, number(fault, "dpfn"));
	EXPECT_EQ(0, number(fault, "order"));
	EXPECT_EQ(1, number(fault, "moved"));
	EXPECT_TRUE(says(fault, "result=DONE"));
	test_event(free, fault, "page_free", "dpfn", dpfn);
	EXPECT_EQ(0, number(free, "order"));
	EXPECT_EQ(getpid(), number(free, "owner"));
	EXPECT_EQ(1, log_count(&trace_log, "page_handout"));
	EXPECT_EQ(1, log_count(&trace_log, "page_free"));
}

/* A large folio has one event instead of one for each page. */
TEST_F(trace, life_of_a_large_folio)
{
	unsigned int handout, fault, free;
	char *mem = test_map_blocks(1);
	struct hmm_ref_page_state state;
	struct hmm_ref_snapshot look;
	struct hmm_ref_migrate cmd;

	if (!keeps_large())
		SKIP(return, "this kernel splits what goes to a device");
	madvise(mem, block_size(), MADV_HUGEPAGE);
	fill_pages(mem, block_pages(), 1);
	test_snapshot(self->fd, mem, page_size(), &state, &look);
	if (state.order != HUGE_ORDER)
		SKIP(return, "no huge page can be allocated");

	test_trace_start();
	test_migrate(self->fd, HMM_REF_TO_DEVICE, mem, block_size(), &cmd);
	touch_read(mem + 5 * page_size());
	test_trace_stop();
	ASSERT_EQ(block_pages(), cmd.out_migrated);
	test_event(handout, 0, "page_handout", "order", HUGE_ORDER);
	test_event(fault, handout, "cpu_fault", "order", HUGE_ORDER);
	EXPECT_EQ(number(handout, "dpfn"), number(fault, "dpfn") & ~(block_pages() - 1));
	EXPECT_EQ(block_pages(), number(fault, "moved"));
	test_event(free, fault, "page_free", "order", HUGE_ORDER);
	EXPECT_EQ(number(handout, "dpfn"), number(free, "dpfn"));
	EXPECT_EQ(1, log_count(&trace_log, "page_free"));
}

/* ---- numbers --------------------------------------------------------------------- */

static void __test_counts(struct __test_metadata *_metadata, unsigned int *at,
			  const char *direction, const struct hmm_ref_migrate *cmd, int rc)
{
	test_event(*at, *at + 1, "migrate_end", "addr", cmd->addr);
	EXPECT_TRUE(says(*at, direction));
	EXPECT_EQ(cmd->length / page_size(), number(*at, "npages"));
	EXPECT_EQ(cmd->out_migrated, number(*at, "migrated"));
	EXPECT_EQ(cmd->out_already, number(*at, "already"));
	EXPECT_EQ(cmd->out_skipped, number(*at, "skipped"));
	EXPECT_EQ(rc, number(*at, "rc"));
}

/* Some pages are on the device already, some stay, some migrate, and one command fails. */
TEST_F(trace, counts_of_commands)
{
	struct hmm_ref_migrate there, mixed, back, failed;
	char *stays = self->mem + (PAGES - 3) * page_size();
	unsigned long length = PAGES * page_size();
	unsigned int at = -1U;

	ASSERT_EQ(stays, mmap(stays, 3 * page_size(), PROT_READ | PROT_WRITE,
			      MAP_SHARED | MAP_ANONYMOUS | MAP_FIXED, -1, 0));
	memset(stays, 1, 3 * page_size());
	test_trace_start();
	test_migrate(self->fd, HMM_REF_TO_DEVICE, self->mem, 4 * page_size(), &there);
	test_migrate(self->fd, HMM_REF_TO_DEVICE, self->mem, length, &mixed);
	test_migrate(self->fd, HMM_REF_TO_SYSTEM, self->mem, length, &back);
	ASSERT_EQ(0, munmap(stays, 3 * page_size()));
	test_err_migrate(EFAULT, self->fd, HMM_REF_TO_DEVICE, self->mem, length, &failed);
	test_trace_stop();

	EXPECT_EQ(4, mixed.out_already);
	EXPECT_EQ(3, mixed.out_skipped);
	EXPECT_EQ(PAGES - 3, back.out_migrated);
	__test_counts(_metadata, &at, "TO_DEVICE", &there, 0);
	__test_counts(_metadata, &at, "TO_DEVICE", &mixed, 0);
	__test_counts(_metadata, &at, "TO_SYSTEM", &back, 0);
	__test_counts(_metadata, &at, "TO_DEVICE", &failed, -EFAULT);
	EXPECT_EQ(4, log_count(&trace_log, "migrate_begin"));
	EXPECT_EQ(4, log_count(&trace_log, "migrate_end"));
	EXPECT_EQ(there.out_migrated + mixed.out_migrated + failed.out_migrated,
		  log_count(&trace_log, "page_handout"));
}

/*
 * Each touched page has an event with its address, and with the number of pages that were migrated.
 */
TEST_F(trace, faults_of_the_cpu)
{
	struct hmm_ref_stats before, after;
	unsigned int at, events = 0;
	unsigned long i;
	long moved = 0;

	test_to_device(self->fd, self->mem, PAGES);
	test_stats(self->fd, &before);
	test_trace_start();
	for (i = PAGES; i-- > 0;)
		touch_write(self->mem + i * page_size() + 17, 1);
	test_trace_stop();
	test_stats(self->fd, &after);

	for (at = 0; at < trace_log.nr; at++) {
		unsigned long addr = number(at, "addr");

		if (strcmp(trace_log.events[at].name, "cpu_fault"))
			continue;
		EXPECT_LE((unsigned long)self->mem, addr);
		EXPECT_GT((unsigned long)self->mem + PAGES * page_size(), addr);
		moved += number(at, "moved");
		events++;
	}
	test_event(at, 0, "cpu_fault", "addr", self->mem + (PAGES - 1) * page_size());
	EXPECT_EQ(after.out_cpu_faults - before.out_cpu_faults, events);
	EXPECT_EQ(after.out_fault_pages - before.out_fault_pages, moved);
	EXPECT_EQ(PAGES, moved);
	EXPECT_EQ(PAGES, log_count(&trace_log, "page_free"));
}

/* ---- fdinfo ---------------------------------------------------------------------- */

/* Counts the invalidations of a page. The mirror of each file gets one. */
static unsigned int count_zaps(const void *page)
{
	unsigned int at, zaps = 0;

	for (at = 0; at < trace_log.nr; at++)
		zaps += !strcmp(trace_log.events[at].name, "invalidate") &&
			number(at, "start") <= (long)page &&
			number(at, "end") > (long)page;
	return zaps;
}

TEST_F(trace, fdinfo)
{
	struct hmm_ref_stats before, after;
	struct hmm_ref_migrate cmd;
	long zaps, other_zaps;
	int other;
	char word[8];

	EXPECT_EQ(getpid(), fdinfo_number(self->fd, "opener"));
	EXPECT_EQ(0, fdinfo_number(self->fd, "pages"));
	EXPECT_EQ(0, fdinfo_number(self->fd, "device-faults"));
	zaps = fdinfo_number(self->fd, "invalidations");
	test_stats(self->fd, &before);
	other = test_open(0);
	test_trace_start();
	test_migrate(self->fd, HMM_REF_TO_DEVICE, self->mem, PAGES * page_size(), &cmd);
	EXPECT_EQ(PAGES, fdinfo_number(self->fd, "pages"));
	test_read(self->fd, self->mem, sizeof(word), word);
	test_migrate(other, HMM_REF_TO_SYSTEM, self->mem, 3 * page_size(), &cmd);
	touch_read(self->mem + (PAGES - 1) * page_size());
	test_trace_stop();

	EXPECT_EQ(PAGES, fdinfo_number(self->fd, "to-device"));
	EXPECT_EQ(3, fdinfo_number(self->fd, "to-system"));
	EXPECT_LT(0, fdinfo_number(self->fd, "cpu-fault-pages"));
	EXPECT_EQ(0, fdinfo_number(self->fd, "evicted"));
	EXPECT_EQ(0, fdinfo_number(self->fd, "retries"));
	/* Every page that arrived has left again, or is on the device. */
	EXPECT_EQ(PAGES, fdinfo_number(self->fd, "pages") + 3 +
			 fdinfo_number(self->fd, "cpu-fault-pages"));
	EXPECT_EQ(log_count(&trace_log, "device_fault"),
		  fdinfo_number(self->fd, "device-faults"));
	EXPECT_LT(0, fdinfo_number(self->fd, "device-faults"));
	zaps = fdinfo_number(self->fd, "invalidations") - zaps;
	other_zaps = fdinfo_number(other, "invalidations");
	test_stats(self->fd, &after);
	EXPECT_LT(0, count_zaps(self->mem));
	/* A file is notified if it has a range there. The other file may have none. */
	EXPECT_LT(0, zaps);
	EXPECT_LE(count_zaps(self->mem), zaps + other_zaps);
	EXPECT_LE(zaps + other_zaps, after.out_invalidations - before.out_invalidations);
	/* The pages do not belong to the other file. */
	EXPECT_EQ(0, fdinfo_number(other, "to-system"));
	EXPECT_EQ(0, fdinfo_number(other, "cpu-fault-pages"));
}

static int touch_last(void *arg)
{
	return !CHECK(page_holds((char *)arg + (PAGES - 1) * page_size(), 1, PAGES - 1));
}

/*
 * A child's CPU faults count for the client that migrated the pages. Pages that it unmaps are not
 * counted.
 */
TEST_F(trace, fdinfo_of_a_parent)
{
	long back;

	test_to_device(self->fd, self->mem, PAGES);
	ASSERT_EQ(0, child_run(touch_last, self->mem));
	back = fdinfo_number(self->fd, "cpu-fault-pages");
	EXPECT_LT(0, back);
	EXPECT_EQ(PAGES, pages_at(self->fd, self->mem, PAGES, HMM_REF_PAGE_DEVICE) + back);
	EXPECT_EQ(PAGES, fdinfo_number(self->fd, "pages") + back);
	ASSERT_EQ(0, munmap(self->mem, PAGES * page_size()));
	EXPECT_EQ(0, fdinfo_number(self->fd, "pages"));
	EXPECT_EQ(PAGES, fdinfo_number(self->fd, "to-device"));
	EXPECT_EQ(back, fdinfo_number(self->fd, "cpu-fault-pages"));
	EXPECT_EQ(0, fdinfo_number(self->fd, "to-system"));
	EXPECT_EQ(0, fdinfo_number(self->fd, "evicted"));
}

/* ---- retries --------------------------------------------------------------------- */

/* A pinned page stays: a migration is retried until that is certain. */
TEST_F(trace, retries_of_a_migration)
{
	struct iovec iov = { .iov_base = self->mem + page_size(), .iov_len = page_size() };
	struct hmm_ref_migrate cmd;
	unsigned int at;
	int fds[2];

	ASSERT_EQ(0, pipe2(fds, O_CLOEXEC));
	ASSERT_EQ(page_size(), vmsplice(fds[1], &iov, 1, 0));
	test_trace_start();
	test_migrate(self->fd, HMM_REF_TO_DEVICE, self->mem, 2 * page_size(), &cmd);
	test_trace_stop();
	ASSERT_EQ(1, cmd.out_skipped);
	test_event(at, 0, "retry", "attempt", 1);
	EXPECT_TRUE(says(at, "MIGRATE"));
	EXPECT_EQ((long)self->mem, number(at, "addr"));
	test_event(at, at, "retry", "attempt", 2);
	EXPECT_EQ(2, log_count(&trace_log, "retry"));
	EXPECT_EQ(0, fdinfo_number(self->fd, "retries"));
}

static void __test_retries(struct __test_metadata *_metadata, const char *loop, long addr)
{
	unsigned int at;

	test_event(at, 0, "retry", "attempt", 1);
	EXPECT_TRUE(says(at, loop));
	EXPECT_EQ(addr, number(at, "addr"));
	test_event(at, at, "retry", "attempt", 2);
	EXPECT_TRUE(says(at, loop));
	EXPECT_EQ(2, log_count(&trace_log, "retry"));
}

TEST_F(trace, retries_of_the_device)
{
	char word[8];
	int rc;

	if (access(FAIL_RETRY, F_OK))
		SKIP(return, "no " FAIL_RETRY " (CONFIG_FAULT_INJECTION_DEBUG_FS)");
	test_trace_start();
	ASSERT_EQ(0, attr_arm(FAIL_RETRY, 0, 2));
	rc = _test_read(self->fd, self->mem, sizeof(word), word);
	attr_disarm(FAIL_RETRY);
	test_trace_stop();
	ASSERT_EQ(0, rc);
	__test_retries(_metadata, "FAULT", (long)self->mem);
	EXPECT_EQ(2, fdinfo_number(self->fd, "retries"));

	test_trace_start();
	ASSERT_EQ(0, attr_arm(FAIL_RETRY, 0, 1));
	rc = _test_make_exclusive(self->fd, self->mem, 1);
	attr_disarm(FAIL_RETRY);
	test_trace_stop();
	ASSERT_EQ(0, rc);
	EXPECT_EQ(1, log_count(&trace_log, "retry"));
	EXPECT_LT(log_find(&trace_log, 0, "retry", "attempt", 1), trace_log.nr);
	EXPECT_EQ(3, fdinfo_number(self->fd, "retries"));
}

/* ---- eviction, bind and unbind --------------------------------------------------- */

TEST_F(trace, eviction_by_command)
{
	unsigned int at, free;

	test_to_device(self->fd, self->mem, PAGES);
	test_trace_start();
	ASSERT_EQ(0, _test_evict_all(self->fd));
	test_trace_stop();
	test_event(at, 0, "evict", "moved", PAGES);
	EXPECT_TRUE(says(at, "reason=COMMAND"));
	EXPECT_EQ(PAGES, number(at, "tried"));
	EXPECT_LT(0, number(at, "ns"));
	test_event(free, 0, "page_free", "owner", getpid());
	EXPECT_EQ(number(at, "dpfn"), number(free, "dpfn") & ~(block_pages() - 1));
	EXPECT_EQ(PAGES, log_count(&trace_log, "page_free"));
	EXPECT_EQ(PAGES, fdinfo_number(self->fd, "evicted"));
	EXPECT_EQ(0, fdinfo_number(self->fd, "pages"));
	test_cpu_data(self->mem, PAGES, 1);
}

FIXTURE(fresh)
{
	struct leak_check leak;
	char instance[64];
	unsigned int nr;
};

FIXTURE_SETUP(fresh)
{
	const char *why_not = make_instance(self->instance, sizeof(self->instance));

	leak_check_begin(_metadata, &self->leak);
	if (!why_not && !device_can_unbind(0))
		why_not = "the device cannot be unbound";
	if (why_not)
		SKIP(return, "%s", why_not);
	self->nr = self->leak.devices - 1;
	ASSERT_EQ(0, device_unbind(self->nr));
}

FIXTURE_TEARDOWN_PARENT(fresh)
{
	if (hmm_ref_count() < self->leak.devices)
		device_bind(self->nr);
	rmdir(self->instance);
	EXPECT_TRUE(access(self->instance, F_OK));
	leak_check_end(_metadata, &self->leak);
}

/* The block that the test uses goes through all of its states. */
static void __test_block(struct __test_metadata *_metadata, long dpfn)
{
	static const struct {
		const char *from, *to;
		long used;
	} steps[] = {
		{ "from=WHOLE", "to=FULL", 512 },
		{ "from=FULL", "to=PARTIAL", 511 },
		{ "from=PARTIAL", "to=WHOLE", 0 },
	};
	unsigned int i, at = -1U;

	for (i = 0; i < ARRAY_SIZE(steps); i++) {
		test_event(at, at + 1, "block_state", "dpfn", dpfn);
		EXPECT_TRUE(says(at, steps[i].from));
		EXPECT_TRUE(says(at, steps[i].to));
		EXPECT_EQ(steps[i].used, number(at, "used"));
	}
}

TEST_F(fresh, from_bind_to_unbind)
{
	unsigned int add, handout, remove, at;
	char *mem = test_map_blocks(1);
	struct hmm_ref_stats stats;
	struct hmm_ref_info info;
	long block, moved = 0;
	int fd;

	ASSERT_EQ(512, block_pages());
	madvise(mem, block_size(), MADV_NOHUGEPAGE);
	fill_pages(mem, block_pages(), 1);
	test_trace_start();
	ASSERT_EQ(0, device_bind(self->nr));
	fd = test_open(self->nr);
	test_to_device(fd, mem, block_pages());
	test_to_system(fd, mem, 1);
	test_info(fd, &info);
	test_stats(fd, &stats);
	ASSERT_EQ(0, device_unbind(self->nr));
	test_trace_stop();

	test_event(add, 0, "chunk_add", "dev", self->nr);
	EXPECT_EQ(0, number(add, "dpfn"));
	EXPECT_EQ(stats.out_pages_total, number(add, "npages"));
	EXPECT_EQ(stats.out_chunks, log_count(&trace_log, "chunk_add"));
	test_event(handout, add, "page_handout", "dev", self->nr);
	block = number(handout, "dpfn") & ~(block_pages() - 1);
	__test_block(_metadata, block);
	EXPECT_EQ(block_pages(), log_count(&trace_log, "page_handout"));
	EXPECT_EQ(block_pages(), log_count(&trace_log, "page_free"));

	for (at = 0; at < trace_log.nr; at++) {
		if (strcmp(trace_log.events[at].name, "evict"))
			continue;
		EXPECT_TRUE(says(at, "reason=STOP"));
		EXPECT_EQ(block, number(at, "dpfn"));
		moved += number(at, "moved");
	}
	EXPECT_EQ(block_pages() - 1, moved);
	EXPECT_EQ(block_pages() - 1, fdinfo_number(fd, "evicted"));
	EXPECT_EQ(1, fdinfo_number(fd, "to-system"));
	test_event(remove, handout, "chunk_remove", "dev", self->nr);
	EXPECT_EQ(number(add, "npages"), number(remove, "npages"));
	EXPECT_EQ(number(add, "pfn"), number(remove, "pfn"));
	EXPECT_EQ(trace_log.nr, log_find(&trace_log, remove, "page_free", "dev", self->nr));
	test_cpu_data(mem, block_pages(), 1);
}

int main(int argc, char **argv)
{
	return hmm_ref_test_main(argc, argv);
}
