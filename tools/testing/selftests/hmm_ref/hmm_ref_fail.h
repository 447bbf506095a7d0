/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Failing steps, for the programs fail_*: fail-nth, fault attributes, detection of leaks. Errors
 * are -errno.
 */
#ifndef _HMM_REF_FAIL_H
#define _HMM_REF_FAIL_H

#include <sys/syscall.h>

#include "hmm_ref_dev.h"
#include "hmm_ref_kernel.h"

#define DEBUGFS		"/sys/kernel/debug/"
#define FAIL_DIR	DEBUGFS "hmm_ref/"
#define KMEMLEAK	DEBUGFS "kmemleak"

/* ---- fail-nth ------------------------------------------------------------------- */

static const char *const fail_classes[] = {
	"fail_chunk", "fail_vram", "fail_handout", "fail_large",
	"fail_queue", "fail_dma", "fail_copy", "fail_one_copy", "fail_hang",
	"fail_page", "fail_map", "fail_retry",
};

/* Finds the first and last address of a kernel function. Returns whether it was found. */
static inline bool kernel_function(const char *name, unsigned long *start, unsigned long *end)
{
	FILE *symbols = fopen("/proc/kallsyms", "re");
	unsigned long addr;
	char symbol[256];

	*start = 0;
	*end = 0;
	while (symbols && fscanf(symbols, "%lx %*c %255[^\n]", &addr, symbol) == 2) {
		if (!strcmp(symbol, name))
			*start = addr;
		else if (*start && addr > *start && (!*end || addr < *end))
			*end = addr;
	}
	if (symbols)
		fclose(symbols);
	return *start && *end;
}

/* Exempts a kernel function, and the functions that it calls, from the failures of @class. */
static inline int fail_spare(const char *class, const char *function)
{
	unsigned long start, end;
	char path[128], text[24];
	int rc;

	if (!kernel_function(function, &start, &end))
		return 0;
	snprintf(path, sizeof(path), DEBUGFS "%s/reject-start", class);
	snprintf(text, sizeof(text), "%#lx", start);
	rc = write_file(path, text);
	snprintf(path, sizeof(path), DEBUGFS "%s/reject-end", class);
	snprintf(text, sizeof(text), "%#lx", end);
	return rc ? rc : write_file(path, text);
}

/*
 * Makes all steps able to fail, without a message for each. The exception is add_pages(), which
 * memremap_pages() calls first: on x86 it warns when it has no memory.
 */
static inline int fail_setup(void)
{
	char path[128];
	unsigned int i;
	int rc;

	/* An engine that hangs is reset soon. */
	rc = write_file(COPY_TIMEOUT, "100");
	rc = rc ? rc : write_file(DEBUGFS "failslab/ignore-gfp-wait", "N");
	rc = rc ? rc : write_file(DEBUGFS "failslab/verbose", "0");
	rc = rc ? rc : write_file(DEBUGFS "fail_page_alloc/ignore-gfp-wait", "N");
	rc = rc ? rc : write_file(DEBUGFS "fail_page_alloc/ignore-gfp-highmem", "N");
	rc = rc ? rc : write_file(DEBUGFS "fail_page_alloc/min-order", "0");
	rc = rc ? rc : write_file(DEBUGFS "fail_page_alloc/verbose", "0");
	rc = rc ? rc : fail_spare("failslab", "add_pages");
	rc = rc ? rc : fail_spare("fail_page_alloc", "add_pages");
	for (i = 0; !rc && i < ARRAY_SIZE(fail_classes); i++) {
		snprintf(path, sizeof(path), FAIL_DIR "%s/verbose", fail_classes[i]);
		rc = write_file(path, "0");
	}
	return rc;
}

/*
 * After the step that fail-nth makes fail, the next @times steps of each class fail, too. While
 * fail-nth counts, the kernel ignores the attributes. Slab and page allocations fail only for tasks
 * with make-it-fail. Copies do not fail unless @copy is set: the driver recovers from one failed
 * copy, and not from two. A @times of 0 disarms all classes.
 */
static inline int fail_more(int times, bool copy)
{
	static const char *const kernel_classes[] = { "failslab", "fail_page_alloc" };
	char path[64];
	unsigned int i;
	int rc = 0;

	for (i = 0; !rc && i < ARRAY_SIZE(kernel_classes); i++) {
		/* Without the filter, allocations of all tasks would fail. */
		snprintf(path, sizeof(path), DEBUGFS "%s/", kernel_classes[i]);
		rc = attr_disarm(path);
		snprintf(path, sizeof(path), DEBUGFS "%s/task-filter", kernel_classes[i]);
		rc = rc ? rc : write_file(path, times ? "Y" : "N");
		snprintf(path, sizeof(path), DEBUGFS "%s/", kernel_classes[i]);
		if (!rc && times)
			rc = attr_arm(path, 0, times);
	}
	for (i = 0; !rc && i < ARRAY_SIZE(fail_classes); i++) {
		if (times && !copy && (strstr(fail_classes[i], "copy") ||
				       !strcmp(fail_classes[i], "fail_hang")))
			continue;
		snprintf(path, sizeof(path), FAIL_DIR "%s/", fail_classes[i]);
		rc = times ? attr_arm(path, 0, times) : attr_disarm(path);
	}
	return rc;
}

/* Opens the file of this thread. */
static inline int fail_nth_open(void)
{
	char path[64];

	snprintf(path, sizeof(path), "/proc/self/task/%ld/fail-nth", syscall(SYS_gettid));
	return open(path, O_RDWR | O_CLOEXEC);
}

/* Makes the @nth step from now on fail; 0: none. */
static inline int fail_nth_arm(int file, int nth)
{
	char text[16];
	int len = snprintf(text, sizeof(text), "%d", nth);

	return pwrite(file, text, len, 0) == len ? 0 : -errno;
}

/* Disarms. Returns how many steps were left before the failure, 0 if a step has failed. */
static inline int fail_nth_end(int file)
{
	char text[16] = {};
	int left = pread(file, text, sizeof(text) - 1, 0) > 0 ? atoi(text) : -errno;
	int rc = fail_nth_arm(file, 0);

	return rc ? rc : left;
}

/* ---- leaks ---------------------------------------------------------------------- */

/*
 * Looks for leaks of this program with kmemleak: an object counts if two scans have found no
 * pointer to it and it is older than 5 s. Returns the number of leaks, 0 where there is no
 * kmemleak, or -errno. kmemleak turns itself off when it runs out of memory.
 */
static inline int fail_leaks(const char *program)
{
	size_t size = 1 << 20;
	char comm[40], *text, *at;
	int found = 0, rc;

	if (access(KMEMLEAK, F_OK))
		return 0;
	rc = write_file(KMEMLEAK, "scan");
	sleep(6);
	rc = rc ? rc : write_file(KMEMLEAK, "scan");
	if (rc)
		return rc;
	text = malloc(size);
	if (!text || read_file(KMEMLEAK, text, size) < 0) {
		free(text);
		return -ENOMEM;
	}
	snprintf(comm, sizeof(comm), "comm \"%.15s\"", program);
	for (at = strstr(text, comm); at; at = strstr(at + 1, comm)) {
		if (!found++)
			fprintf(stderr, "# kmemleak: %.600s\n", at);
	}
	free(text);
	return found;
}

#endif /* _HMM_REF_FAIL_H */
