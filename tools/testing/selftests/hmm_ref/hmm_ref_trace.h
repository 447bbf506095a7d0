/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Trace events of the driver, read from a private instance of tracefs: other users of tracing are
 * not affected. Nothing here asserts.
 *
 * Only events of the calling thread are recorded. It stays on one CPU, so the events are in the
 * order in which they happened.
 */
#ifndef _HMM_REF_TRACE_H
#define _HMM_REF_TRACE_H

#include <dirent.h>
#include <sys/mount.h>

#include "hmm_ref_utils.h"

#define TRACEFS		"/sys/kernel/tracing/"
#define TRACE_LOG_SIZE	(4UL << 20)
#define TRACE_EVENTS	16384

struct trace_event {
	const char *name;	/* without "hmm_ref_" */
	const char *args;	/* "key=value key=value" */
};

struct trace_log {
	struct trace_event events[TRACE_EVENTS];
	unsigned int nr;
	char text[TRACE_LOG_SIZE];
};

/* ---- the instance --------------------------------------------------------------- */

/* Returns why tracing is not available, or NULL. */
static inline const char *trace_unavailable(void)
{
	if (!access(TRACEFS "events", F_OK))
		return NULL;
	if (mount("tracefs", TRACEFS, "tracefs", 0, NULL))
		return "no tracefs (CONFIG_TRACING)";
	return access(TRACEFS "events", F_OK) ? "no events (CONFIG_EVENT_TRACING)" : NULL;
}

static inline int trace_write(const char *instance, const char *name, const char *text)
{
	char path[192];

	snprintf(path, sizeof(path), "%s/%s", instance, name);
	return write_file(path, text);
}

/*
 * Starts with an empty buffer.
 *
 * The thread is selected by a filter instead of set_event_pid, which hooks into sched_waking and so
 * patches a static call that the other CPU executes. In QEMU before 8.1 that CPU may execute the
 * old code, which ends in "Oops: int3".
 */
static inline int trace_start(const char *instance)
{
	char path[128], filter[32];
	int fd, rc;

	run_on_cpu(0);
	snprintf(path, sizeof(path), "%s/trace", instance);
	fd = open(path, O_WRONLY | O_TRUNC | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	close(fd);
	snprintf(filter, sizeof(filter), "common_pid == %ld", syscall(SYS_gettid));
	rc = trace_write(instance, "events/hmm_ref/filter", filter);
	return rc ? rc : trace_write(instance, "events/hmm_ref/enable", "1");
}

/* ---- the log -------------------------------------------------------------------- */

/* "task-1 [000] ..... 1.2: hmm_ref_NAME: ARGS" */
static inline int log_line(struct trace_log *log, char *line)
{
	char *name = strstr(line, ": hmm_ref_");
	char *args = name ? strstr(name + 2, ": ") : NULL;

	if (!args || log->nr == TRACE_EVENTS)
		return -EPROTO;
	*args = '\0';
	log->events[log->nr].name = name + strlen(": hmm_ref_");
	log->events[log->nr].args = args + 2;
	log->nr++;
	return 0;
}

/* Stops tracing and reads the buffer. Returns 0 or -errno; -ENOSPC when events were lost. */
static inline int trace_stop(const char *instance, struct trace_log *log)
{
	unsigned int kept = 0, written = 0;
	char path[128], *line, *next;
	int rc;

	log->nr = 0;
	rc = trace_write(instance, "events/hmm_ref/enable", "0");
	if (rc)
		return rc;
	snprintf(path, sizeof(path), "%s/trace", instance);
	rc = read_file(path, log->text, sizeof(log->text));
	if (rc < 0)
		return rc;
	if (rc == sizeof(log->text) - 1)
		return -EFBIG;
	rc = 0;
	for (line = log->text; !rc && *line; line = next) {
		next = line + strcspn(line, "\n");
		if (*next)
			*next++ = '\0';
		if (*line != '#')
			rc = log_line(log, line);
		else
			sscanf(line, "# entries-in-buffer/entries-written: %u/%u",
			       &kept, &written);
	}
	if (!rc && (kept != written || kept != log->nr))
		rc = -ENOSPC;
	return rc;
}

/* Returns the text after "key=", or NULL. */
static inline const char *event_text(const struct trace_event *event, const char *key)
{
	size_t len = strlen(key);
	const char *at = event->args;

	while ((at = strstr(at, key))) {
		if ((at == event->args || at[-1] == ' ') && at[len] == '=')
			return at + len + 1;
		at += len;
	}
	return NULL;
}

/* Returns a number that no test expects if the key is missing. */
static inline long event_number(const struct trace_event *event, const char *key)
{
	const char *text = event_text(event, key);

	return text ? strtol(text, NULL, 0) : -0xbadL;
}

/* True if a word is among the arguments. */
static inline bool event_says(const struct trace_event *event, const char *word)
{
	size_t len = strlen(word);
	const char *at = event->args;

	while ((at = strstr(at, word))) {
		if ((at == event->args || at[-1] == ' ') && (!at[len] || at[len] == ' '))
			return true;
		at += len;
	}
	return false;
}

/*
 * Finds the first event at or after an index with this name and value of a key. Returns its index,
 * or the number of events if there is none.
 */
static inline unsigned int log_find(const struct trace_log *log, unsigned int from,
				    const char *name, const char *key, long value)
{
	unsigned int i;

	for (i = from; i < log->nr; i++)
		if (!strcmp(log->events[i].name, name) &&
		    event_number(&log->events[i], key) == value)
			break;
	return i;
}

static inline unsigned int log_count(const struct trace_log *log, const char *name)
{
	unsigned int i, nr = 0;

	for (i = 0; i < log->nr; i++)
		nr += !strcmp(log->events[i].name, name);
	return nr;
}

/* Printed to analyse a failure. */
static inline void log_print(const struct trace_log *log)
{
	unsigned int i;

	for (i = 0; i < log->nr && i < 60; i++)
		fprintf(stderr, "# %3u %s: %s\n", i, log->events[i].name,
			log->events[i].args);
}

/* ---- fdinfo --------------------------------------------------------------------- */

/* Returns the value of "hmm_ref-KEY:", or -errno. */
static inline long fdinfo_number(int fd, const char *key)
{
	char path[64], text[2048], name[64], *at;
	int rc;

	snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", fd);
	rc = read_file(path, text, sizeof(text));
	if (rc < 0)
		return rc;
	snprintf(name, sizeof(name), "\nhmm_ref-%s:\t", key);
	at = strstr(text, name);
	return at ? strtol(at + strlen(name), NULL, 10) : -ENOENT;
}

#endif /* _HMM_REF_TRACE_H */
