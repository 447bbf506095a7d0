/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Small text files, as in sysfs and debugfs. Nothing here needs the test harness.
 */
#ifndef _HMM_REF_FILE_H
#define _HMM_REF_FILE_H

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

/* Milliseconds that a step takes at least. */
#define SLOW_ROOM		"/sys/kernel/debug/hmm_ref/slow_room"
#define SLOW_REPORT		"/sys/kernel/debug/hmm_ref/slow_report"
#define SLOW_IDLE		"/sys/kernel/debug/hmm_ref/slow_idle"

/* Timeout of a batch of copies, in milliseconds. */
#define COPY_TIMEOUT		"/sys/module/hmm_ref/parameters/copy_timeout"
#define COPY_TIMEOUT_DEFAULT	"60000"

static inline int write_file(const char *path, const char *text)
{
	ssize_t len = strlen(text);
	int fd = open(path, O_WRONLY | O_CLOEXEC);
	int rc = 0;

	if (fd < 0)
		return -errno;
	if (write(fd, text, len) != len)
		rc = -errno;
	close(fd);
	return rc;
}

/* Reads a text file that fits in @size. Returns its length or -errno. */
static inline int read_file(const char *path, char *text, size_t size)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	size_t len = 0;
	ssize_t got;

	if (fd < 0)
		return -errno;
	do {
		got = read(fd, text + len, size - 1 - len);
		if (got > 0)
			len += got;
	} while (got > 0);
	close(fd);
	text[len] = '\0';
	return got < 0 ? -errno : (int)len;
}

#endif /* _HMM_REF_FILE_H */
