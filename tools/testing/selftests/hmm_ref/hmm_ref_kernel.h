/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The kernel's version, log, counters, fault attributes and sleep. Nothing here needs the test
 * harness.
 */
#ifndef _HMM_REF_KERNEL_H
#define _HMM_REF_KERNEL_H

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/utsname.h>

#include "kselftest.h"
#include "hmm_ref_file.h"

/* True if the kernel is older than this version. A missing feature is no failure then. */
static inline bool kernel_before(unsigned int major, unsigned int minor)
{
	struct utsname kernel;
	char *rest;
	unsigned long is;

	if (uname(&kernel))
		return false;
	is = strtoul(kernel.release, &rest, 10);
	return is < major || (is == major && *rest && strtoul(rest + 1, NULL, 10) < minor);
}

/*
 * A disk for I/O. Its first page shows whether it is in use: a test restores that page, or other
 * tests find no swap space there (hmm_ref_swap.h).
 */
#define DISK		"/dev/ram0"
#define DISK_START	((off_t)1 << 20)

/* ---- counters and fault attributes ------------------------------------------ */

/* Opens the kernel's log at its end, to read and to write. */
static inline int log_open(void)
{
	int log = open("/dev/kmsg", O_RDWR | O_NONBLOCK | O_CLOEXEC);

	if (log >= 0)
		lseek(log, 0, SEEK_END);
	return log;
}

static inline bool log_write(int log, const char *text)
{
	return write(log, text, strlen(text)) == (ssize_t)strlen(text);
}

/* Reads the next record of the log. Returns false when there is none yet. */
static inline bool log_read(int log, char *record, size_t size)
{
	ssize_t len = read(log, record, size - 1);

	record[len > 0 ? len : 0] = '\0';
	/* EPIPE: older records have been overwritten. */
	return len > 0 || errno == EPIPE;
}

/* Returns a counter of /proc/vmstat, or 0 if there is none with that name. */
static inline unsigned long vm_counter(const char *name)
{
	char text[16384], *line = text;
	size_t len = strlen(name);

	if (read_file("/proc/vmstat", text, sizeof(text)) < 0)
		return 0;
	while (line && (strncmp(line, name, len) || line[len] != ' ')) {
		line = strchr(line, '\n');
		line = line ? line + 1 : NULL;
	}
	return line ? strtoul(line + len, NULL, 10) : 0;
}

/*
 * Sets a fault attribute: after @passed calls, the next @times calls fail (-1: all). The kernel
 * decrements space at each call, and fails the call that finds 1.
 */
static inline int attr_arm(const char *attr, int passed, int times)
{
	const struct { const char *name; int value; } settings[] = {
		{ "verbose", 0 }, { "interval", 1 }, { "space", passed + 1 },
		{ "times", times }, { "probability", 100 },
	};
	char path[128], value[16];
	unsigned int i;
	int rc = 0;

	for (i = 0; !rc && i < ARRAY_SIZE(settings); i++) {
		snprintf(path, sizeof(path), "%s%s", attr, settings[i].name);
		snprintf(value, sizeof(value), "%d", settings[i].value);
		rc = write_file(path, value);
	}
	return rc;
}

static inline int attr_disarm(const char *attr)
{
	char path[128];

	snprintf(path, sizeof(path), "%sprobability", attr);
	return write_file(path, "0");
}

/* ---- sleep ------------------------------------------------------------------ */

static inline bool can_sleep(void)
{
	return !access("/sys/power/pm_test", W_OK) && !access("/sys/power/state", W_OK);
}

/* Sleeps as far as @step of @state and wakes up at once. Returns 0, or the error of a device. */
static inline int system_sleep_to(const char *state, const char *step)
{
	int rc;

	write_file("/sys/module/suspend/parameters/pm_test_delay", "0");
	rc = write_file("/sys/power/pm_test", step);
	if (rc)
		return rc;
	rc = write_file("/sys/power/state", state);
	write_file("/sys/power/pm_test", "none");
	return rc;
}

/* Suspends and resumes all devices. */
static inline int system_sleep(void)
{
	return system_sleep_to("freeze", "devices");
}

#endif /* _HMM_REF_KERNEL_H */
