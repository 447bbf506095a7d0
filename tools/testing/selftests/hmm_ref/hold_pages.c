// SPDX-License-Identifier: GPL-2.0-only
/*
 * Not a test: a process with pages on the device, for hmm_ref.sh, which unloads the
 * module under it.
 *
 *   hold_pages [--open]
 *
 * Migrates some data to every device, closes the files (or not, with --open), prints
 * "ready", waits for a line on stdin, and checks the data. Exit status 0: all
 * data is right.
 */
#include "hmm_ref_dev.h"

#define PAGES	300UL

static bool migrate(unsigned int nr, char *mem, bool keep_open)
{
	struct hmm_ref_migrate cmd;
	int fd = hmm_ref_open(nr);
	int rc;

	if (fd < 0)
		return false;
	fill_pages(mem, PAGES, nr + 1);
	rc = _test_migrate_all(fd, HMM_REF_TO_DEVICE, mem, PAGES, &cmd);
	if (rc)
		fprintf(stderr, "# hold_pages: %s\n", strerror(-rc));
	if (!rc && pages_at(fd, mem, PAGES, HMM_REF_PAGE_DEVICE) != PAGES)
		rc = -EPROTO;
	if (!keep_open)
		close(fd);
	return !rc;
}

int main(int argc, char **argv)
{
	bool keep_open = argc > 1 && !strcmp(argv[1], "--open");
	unsigned int devices = hmm_ref_count();
	char *mem[HMM_REF_MAX_DEVICES];
	unsigned int nr;
	long bad = 0;

	if (!devices || hmm_ref_probe())
		return 1;
	for (nr = 0; nr < devices; nr++) {
		mem[nr] = map_pages(PAGES);
		if (mem[nr] == MAP_FAILED || !migrate(nr, mem[nr], keep_open))
			return 1;
	}
	puts("ready");
	fflush(stdout);
	getchar();
	for (nr = 0; nr < devices; nr++)
		bad += bad_pages(mem[nr], PAGES, nr + 1);
	return bad != 0;
}
