// SPDX-License-Identifier: GPL-2.0-only
/*
 * The core's tracepoints of migration by drivers, which patches/core adds. Their sums match the
 * counts that the driver's commands return.
 */
#include "hmm_ref_trace.h"

#define PAGES	24UL

FIXTURE(trace_core)
{
	char instance[64];
	int fd;
	char *mem;
};

/* Records only events of this thread. */
static int set_event(const char *instance, const char *event, bool on)
{
	char path[128], filter[32];
	int rc;

	snprintf(path, sizeof(path), "events/%s/filter", event);
	snprintf(filter, sizeof(filter), "common_pid == %ld", syscall(SYS_gettid));
	rc = trace_write(instance, path, filter);
	snprintf(path, sizeof(path), "events/%s/enable", event);
	return rc ? rc : trace_write(instance, path, on ? "1" : "0");
}

FIXTURE_SETUP(trace_core)
{
	const char *why_not = trace_unavailable();

	if (!why_not && access(TRACEFS "events/migrate_device", F_OK))
		why_not = "a core without these tracepoints (patches/core)";
	if (why_not)
		SKIP(return, "%s", why_not);
	snprintf(self->instance, sizeof(self->instance), TRACEFS "instances/hmm_ref_core_%d",
		 getpid());
	ASSERT_EQ(0, mkdir(self->instance, 0700));
	ASSERT_EQ(0, set_event(self->instance, "migrate_device", true));
	ASSERT_EQ(0, set_event(self->instance, "hmm", true));
	self->fd = test_open(0);
	self->mem = test_map_pages(PAGES);
	fill_pages(self->mem, PAGES, 1);
}

FIXTURE_TEARDOWN_PARENT(trace_core)
{
	if (!self->instance[0])
		return;
	trace_write(self->instance, "events/enable", "0");
	EXPECT_EQ(0, rmdir(self->instance));
}

/* Returns the trace so far, and clears it. */
static char *take_trace(const char *instance)
{
	static char text[1 << 18];
	char path[128];
	int fd;

	snprintf(path, sizeof(path), "%s/trace", instance);
	if (read_file(path, text, sizeof(text)) < 0)
		text[0] = '\0';
	fd = open(path, O_WRONLY | O_TRUNC | O_CLOEXEC);
	if (fd >= 0)
		close(fd);
	return text;
}

/* Returns the sum of a field over all events with that name, or -1 if there is none. */
static long sum_of(const char *text, const char *event, const char *key)
{
	char name[64], member[32];
	long sum = -1;

	snprintf(name, sizeof(name), ": %s: ", event);
	snprintf(member, sizeof(member), " %s=", key);
	while ((text = strstr(text, name))) {
		const char *at = strstr(text, member);

		text += strlen(name);
		if (at && at < text + strcspn(text, "\n"))
			sum = (sum < 0 ? 0 : sum) + strtol(at + strlen(member), NULL, 0);
	}
	return sum;
}

static const char *const steps[] = {
	"migrate_device_setup", "migrate_device_pages", "migrate_device_finalize",
};

TEST_F(trace_core, steps_of_a_migration)
{
	struct hmm_ref_migrate cmd;
	unsigned int i;
	char *text;

	take_trace(self->instance);
	test_migrate(self->fd, HMM_REF_TO_DEVICE, self->mem, PAGES * page_size(), &cmd);
	ASSERT_EQ(PAGES, cmd.out_migrated);
	text = take_trace(self->instance);
	for (i = 0; i < ARRAY_SIZE(steps); i++) {
		EXPECT_EQ(PAGES, sum_of(text, steps[i], "migrating")) {
			TH_LOG("%s in:\n%s", steps[i], text);
		}
		EXPECT_EQ(PAGES, sum_of(text, steps[i], "npages"));
		EXPECT_EQ(0, sum_of(text, steps[i], "huge"));
	}
}

/* Pages with other references are collected, and do not migrate. */
TEST_F(trace_core, skipped_pages)
{
	struct hmm_ref_migrate cmd;
	int pipes[2];
	struct iovec iov = { self->mem, 2 * page_size() };
	char *text;

	ASSERT_EQ(0, pipe(pipes));
	ASSERT_EQ(2 * page_size(), vmsplice(pipes[1], &iov, 1, 0));
	take_trace(self->instance);
	test_migrate(self->fd, HMM_REF_TO_DEVICE, self->mem, PAGES * page_size(), &cmd);
	text = take_trace(self->instance);
	EXPECT_EQ(PAGES - 2, cmd.out_migrated);
	/* Failed pages are retried when the other pages of the window have migrated. */
	EXPECT_EQ(PAGES - 2, sum_of(text, "migrate_device_finalize", "migrating")) {
		TH_LOG("%s", text);
	}
	EXPECT_LT(PAGES - 2, sum_of(text, "migrate_device_setup", "npages"));
}

/* Eviction has no VMA, if the core's functions for it are fixed. */
TEST_F(trace_core, eviction)
{
	struct hmm_ref_evict evict = { .size = sizeof(evict) };
	struct hmm_ref_migrate cmd;
	char *text;

	test_migrate(self->fd, HMM_REF_TO_DEVICE, self->mem, PAGES * page_size(), &cmd);
	ASSERT_EQ(PAGES, cmd.out_migrated);
	take_trace(self->instance);
	evict.addr = (unsigned long)self->mem;
	evict.length = PAGES * page_size();
	ASSERT_EQ(0, ioctl(self->fd, HMM_REF_IOC_EVICT, &evict));
	text = take_trace(self->instance);
	EXPECT_EQ(PAGES, sum_of(text, "migrate_device_finalize", "migrating")) {
		TH_LOG("%s", text);
	}
	if (core_is_fixed())
		EXPECT_EQ(0, sum_of(text, "migrate_device_finalize", "addr"));
}

TEST_F(trace_core, walks_of_a_device_fault)
{
	char byte = 0;
	char *text;

	take_trace(self->instance);
	test_write(self->fd, self->mem, 1, &byte);
	text = take_trace(self->instance);
	EXPECT_EQ(0, sum_of(text, "hmm_range_fault", "ret")) {
		TH_LOG("%s", text);
	}
	EXPECT_EQ(0, sum_of(text, "hmm_range_fault", "fault"));
	EXPECT_NE(NULL, strstr(text, "fault=0 write=0 ret=0"));

	/* A missing page is faulted in, for writing. */
	ASSERT_EQ(0, madvise(self->mem, page_size(), MADV_DONTNEED));
	test_write(self->fd, self->mem, 1, &byte);
	text = take_trace(self->instance);
	EXPECT_NE(NULL, strstr(text, "fault=1 write=1 ret=0")) {
		TH_LOG("%s", text);
	}
}

int main(int argc, char **argv)
{
	return hmm_ref_test_main(argc, argv);
}
