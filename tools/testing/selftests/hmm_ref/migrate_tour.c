// SPDX-License-Identifier: GPL-2.0-only
/*
 * Not a test: the demonstration of "make run", with figures.
 *
 *   migrate_tour [MiB]
 *
 * Migrates a working set to the device and back by ioctl, then to the device again
 * and back by CPU faults, and compares every byte after every step. Prints pages, rate
 * and time per page of each step, the audit, and the driver's counters.
 *
 * Exit status 0: every byte was right and the audit found nothing.
 */
#include "hmm_ref_dev.h"

#define MIB			(1024 * 1024UL)
#define DEFAULT_MIB		256
#define PROGRESS_NS		5000000000ULL

struct tour {
	int fd;
	char *mem;
	char *buf;		/* as large as a piece */
	unsigned long npages;
	unsigned long piece;	/* pages of a command */
	unsigned int seed;	/* seed of the working set's current data */
	long bad;		/* bad pages */
};

struct step {
	const char *name;
	unsigned long long ns;
	unsigned long pages;
};

/* Reports the progress of a long step on stderr. */
static void progress(const char *what, unsigned long done, unsigned long all)
{
	static unsigned long long next;
	unsigned long long now = now_ns();

	if (!done || !next)
		next = now + PROGRESS_NS;
	if (now < next)
		return;
	fprintf(stderr, "  %s: %lu %%\n", what, done * 100 / all);
	next = now + PROGRESS_NS;
}

static void die(const char *what, int rc)
{
	fprintf(stderr, "migrate_tour: %s: %s\n", what, strerror(-rc));
	exit(1);
}

static unsigned long piece_at(const struct tour *t, unsigned long at)
{
	return t->npages - at < t->piece ? t->npages - at : t->piece;
}

static void *page_at(const struct tour *t, unsigned long at)
{
	return t->mem + at * page_size();
}

/* ---- steps ---------------------------------------------------------------- */

static struct step migrate(struct tour *t, const char *name, unsigned int direction)
{
	struct step step = { .name = name };
	struct hmm_ref_migrate cmd;
	unsigned long long start;
	unsigned long at, n;
	int rc;

	for (at = 0; at < t->npages; at += n) {
		n = piece_at(t, at);
		progress(name, at, t->npages);
		start = now_ns();
		rc = _test_migrate_all(t->fd, direction, page_at(t, at), n, &cmd);
		step.ns += now_ns() - start;
		if (rc)
			die(name, rc);
		step.pages += n;
	}
	return step;
}

static struct step touch(struct tour *t)
{
	struct step step = { .name = "to system, CPU faults" };
	unsigned long long start;
	unsigned long at, i, n;

	for (at = 0; at < t->npages; at += n) {
		n = piece_at(t, at);
		progress(step.name, at, t->npages);
		start = now_ns();
		for (i = 0; i < n; i++)
			touch_read(page_at(t, at + i));
		step.ns += now_ns() - start;
		step.pages += n;
	}
	return step;
}

/* The device reads all of the data, which is then compared. */
static struct step read_back(struct tour *t)
{
	struct step step = { .name = "device reads" };
	unsigned long long start;
	unsigned long at, n;
	int rc;

	for (at = 0; at < t->npages; at += n) {
		n = piece_at(t, at);
		progress(step.name, at, t->npages);
		memset(t->buf, 0xcc, n * page_size());
		start = now_ns();
		rc = _test_read(t->fd, page_at(t, at), n * page_size(), t->buf);
		step.ns += now_ns() - start;
		if (rc)
			die(step.name, rc);
		t->bad += bad_pages_from(t->buf, n, t->seed, at);
		step.pages += n;
	}
	return step;
}

/* The device writes new data to all pages. */
static struct step write_new(struct tour *t)
{
	struct step step = { .name = "device writes" };
	unsigned long long start;
	unsigned long at, n;
	int rc;

	t->seed++;
	for (at = 0; at < t->npages; at += n) {
		n = piece_at(t, at);
		progress(step.name, at, t->npages);
		fill_pages_from(t->buf, n, t->seed, at);
		start = now_ns();
		rc = _test_write(t->fd, page_at(t, at), n * page_size(), t->buf);
		step.ns += now_ns() - start;
		if (rc)
			die(step.name, rc);
		step.pages += n;
	}
	return step;
}

static void fill(struct tour *t)
{
	unsigned long at, n;

	for (at = 0; at < t->npages; at += n) {
		n = piece_at(t, at);
		progress("filling", at, t->npages);
		fill_pages_from(page_at(t, at), n, t->seed, at);
	}
}

static void verify(struct tour *t)
{
	unsigned long at, n;

	for (at = 0; at < t->npages; at += n) {
		n = piece_at(t, at);
		progress("comparing", at, t->npages);
		t->bad += bad_pages_from(page_at(t, at), n, t->seed, at);
	}
}

/* ---- output --------------------------------------------------------------- */

static void print_step(struct step step)
{
	double bytes = (double)step.pages * page_size();

	printf("  %-24s %9lu %9.2f %9llu\n", step.name, step.pages,
	       bytes / (step.ns ? step.ns : 1), step.ns / step.pages);
}

static bool print_audit(int fd)
{
	struct hmm_ref_audit audit;
	int rc = _test_audit(fd, &audit);

	if (rc)
		die("AUDIT", rc);
	printf("\naudit: %llu pages = %llu free + %llu in use + %llu retired, %llu violations\n",
	       audit.out_total, audit.out_free, audit.out_in_use,
	       audit.out_retired, audit.out_violations);
	return !audit.out_violations &&
	       audit.out_total == audit.out_free + audit.out_in_use + audit.out_retired;
}

static void print_stats(int fd)
{
	struct hmm_ref_stats stats;
	int rc = _test_stats(fd, &stats);

	if (rc)
		die("STATS", rc);
	printf("stats: %llu CPU faults brought %llu pages, %llu device faults, ",
	       stats.out_cpu_faults, stats.out_fault_pages,
	       stats.out_device_faults);
	printf("%llu invalidations, %llu evicted\n", stats.out_invalidations,
	       stats.out_evicted);
}

/* ---- the tour ------------------------------------------------------------- */

static void prepare(struct tour *t, unsigned long mib)
{
	unsigned long size = mib * MIB;

	t->fd = hmm_ref_open(0);
	if (t->fd < 0)
		die("/dev/hmm_ref0 (is the module hmm_ref loaded?)", t->fd);
	if (!size || size > hmm_ref_dev_info.out_capacity)
		size = hmm_ref_dev_info.out_capacity;
	t->npages = size / page_size();
	t->piece = 4 * block_pages();
	t->seed = 1;
	t->mem = map_pages(t->npages);
	t->buf = map_pages(t->piece);
	if (t->mem == MAP_FAILED || t->buf == MAP_FAILED)
		die("memory", -errno);
}

static void go_round(struct tour *t)
{
	printf("hmm_ref0: %lu MiB, %lu pages of %lu KiB\n\n",
	       t->npages * page_size() / MIB, t->npages, page_size() / 1024);
	printf("  %-24s %9s %9s %9s\n", "direction", "pages", "GB/s", "ns/page");
	fflush(stdout);

	fill(t);
	print_step(migrate(t, "to device, ioctl", HMM_REF_TO_DEVICE));
	print_step(read_back(t));
	print_step(migrate(t, "to system, ioctl", HMM_REF_TO_SYSTEM));
	verify(t);
	print_step(migrate(t, "to device, again", HMM_REF_TO_DEVICE));
	print_step(write_new(t));
	read_back(t);
	print_step(touch(t));
	verify(t);
}

int main(int argc, char **argv)
{
	unsigned long mib = argc > 1 ? strtoul(argv[1], NULL, 0) : DEFAULT_MIB;
	struct tour tour = {};
	bool sound;
	int rc;

	rc = hmm_ref_probe();
	if (rc)
		die("/dev/hmm_ref0 (is the module hmm_ref loaded?)", rc);
	prepare(&tour, mib);
	go_round(&tour);
	munmap(tour.mem, tour.npages * page_size());
	sound = print_audit(tour.fd);
	print_stats(tour.fd);
	if (tour.bad)
		printf("data:  %ld pages WRONG\n", tour.bad);
	else
		printf("data:  every byte right after every step\n");
	return tour.bad || !sound;
}
