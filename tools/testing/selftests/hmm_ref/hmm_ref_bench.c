// SPDX-License-Identifier: GPL-2.0-only
/*
 * Not a test: the cost per page of a driver for device memory, compared with other drivers and with
 * the lowest possible cost. See benchmarking.rst.
 *
 *   hmm_ref_bench -h
 *
 * This file measures one figure after the other. A figure is a combination of the listed options: a
 * source, an operation, a kind of page, a way to fill memory, a size, a number of threads and of
 * processes. Repetitions end when the confidence interval of the mean is narrow enough, or when the
 * time is up.
 *
 * Exit status: 0, even if some figures could not be measured (the output says so); 1 if there was
 * nothing to measure or a file could not be written; 2 for bad options; 130 when interrupted.
 */
#include <signal.h>
#include <stdarg.h>

#include "bench.h"

#define MAX_DROPPED	10
#define MIN_REPETITIONS	5U
#define FLOOR_MIN	(64UL << 20)

static struct figure *figures;
static unsigned int nfigures;
static int interrupted;

static bool is_interrupted(void)
{
	return __atomic_load_n(&interrupted, __ATOMIC_RELAXED);
}

/* ---- which figures --------------------------------------------------------------- */

static unsigned long most(const struct list *list)
{
	unsigned long value = 0;
	unsigned int i;

	for (i = 0; i < list->count; i++)
		value = list->value[i] > value ? list->value[i] : value;
	return value;
}

/* The largest total of all workers' ranges, in whole blocks. */
static unsigned long most_bytes(void)
{
	unsigned long size = most(&options.sizes);

	size = (size + block_size() - 1) / block_size() * block_size();
	return size * most(&options.threads) * most(&options.processes);
}

static void note(const char *format, ...)
{
	va_list args;

	progress_clear();
	va_start(args, format);
	fprintf(stderr, "hmm_ref_bench: ");
	vfprintf(stderr, format, args);
	fprintf(stderr, "\n");
	va_end(args);
}

/* Loads the module of a source. Returns whether the source can be measured. */
static bool source_ready(enum source source)
{
	char params[512];

	if (source == SRC_SYSTEM)
		return true;
	if (source == SRC_FLOOR)
		snprintf(params, sizeof(params), "size=%lu",
			 2 * most_bytes() > FLOOR_MIN ? 2 * most_bytes() : FLOOR_MIN);
	else
		snprintf(params, sizeof(params), "%s",
			 source == SRC_TEST_HMM ? "" : options.params);
	if (source_load(source, params))
		return true;
	note("%s: no %s: module %s cannot be loaded, or another driver is in use",
	     sources[source].name, sources[source].device, sources[source].module);
	return false;
}

/* True if the combination is possible. Other combinations are left out silently. */
static bool is_wanted(const struct figure *figure)
{
	const struct operation_info *op = &operations[figure->op];
	unsigned int workers = figure->threads * figure->processes;

	return (options.operations & (1U << figure->op)) &&
	       (options.kinds & (1U << figure->kind)) && (options.fills & (1U << figure->fill)) &&
	       (op->on & ON(figure->source)) && workers <= MAX_WORKERS &&
	       (figure->kind != KIND_THP || figure->size % block_size() == 0) &&
	       (figure->fill == FILL_POPULATED || op->fills) && (!op->alone || workers == 1);
}

/* ---- measuring ------------------------------------------------------------------- */

static void on_interrupt(int signal)
{
	(void)signal;
	__atomic_store_n(&interrupted, 1, __ATOMIC_RELAXED);
}

/* Runs one repetition. Returns 0 or -errno. @time is set in ns per page. */
static int repeat(const struct figure *figure, enum command command, double *time)
{
	unsigned long pages = figure->size / page_size() * figure->threads * figure->processes;
	int rc;

	rc = team_do(CMD_PREPARE);
	if (rc)
		return rc;
	rc = team_do(command);
	if (rc)
		return rc;
	*time = team_time() / pages;
	return team_do(CMD_CHECK);
}

/* As repeat(). Repeats it when a page could not be moved because another task held a reference. */
static int repeat_until_good(struct figure *figure, enum command command, double *time)
{
	int rc;

	do {
		rc = repeat(figure, command, time);
	} while (rc == -EPROTO && ++figure->dropped <= MAX_DROPPED && !is_interrupted());
	return rc;
}

static bool is_enough(const struct figure *figure, unsigned long long begin)
{
	unsigned int count = figure->stats.count;

	if (is_interrupted() || count >= options.repetitions ||
	    now_ns() - begin > options.seconds * 1e9)
		return true;
	return count >= MIN_REPETITIONS && figure->stats.confidence <= options.confidence;
}

static int sample(struct figure *figure)
{
	double *samples = malloc(options.repetitions * sizeof(*samples));
	unsigned long long begin;
	unsigned int i, n = 0;
	double warm;
	int rc = samples ? 0 : -ENOMEM;

	for (i = 0; !rc && i < options.warmup && !is_interrupted(); i++)
		rc = repeat_until_good(figure, CMD_RUN, &warm);
	begin = now_ns();
	while (!rc && !is_enough(figure, begin)) {
		progress_show(figure, n);
		rc = repeat_until_good(figure, CMD_RUN, &samples[n]);
		if (!rc)
			stats_make(&figure->stats, samples, ++n);
	}
	free(samples);
	return rc ? rc : n ? 0 : -EINTR;
}

/* Runs one more repetition, with the time of every touch. */
static int sample_latency(struct figure *figure)
{
	unsigned int i;
	double time;
	int rc;

	figure->hist = calloc(1, sizeof(*figure->hist));
	if (!figure->hist)
		return -ENOMEM;
	rc = repeat_until_good(figure, CMD_LATENCY, &time);
	for (i = 0; !rc && i < team->nworkers; i++)
		hist_merge(figure->hist, &team->workers[i].hist);
	if (rc) {
		free(figure->hist);
		figure->hist = NULL;
	}
	return rc;
}

static void measure(struct figure *figure)
{
	struct task task = {
		.figure = figure, .verify = options.verify, .mem_node = options.mem_node,
	};

	if (find_nodes(task.nodes) < 2 && figure->op == OP_MOVE_PAGES) {
		figure->rc = -ENXIO;
		return;
	}
	node_cpus(options.cpu_node, &task.cpus);
	progress_show(figure, 0);
	figure->rc = team_start(&task);
	if (!figure->rc)
		figure->rc = sample(figure);
	if (!figure->rc && operations[figure->op].touches && !is_interrupted())
		sample_latency(figure);
	team_stop(figure->rc != -ECHILD && team_is_whole(figure->processes));
	progress_clear();
}

static void measure_and_print(const struct figure *wanted)
{
	struct figure *figure;

	figures = realloc(figures, (nfigures + 1) * sizeof(*figures));
	if (!figures) {
		perror("hmm_ref_bench");
		exit(1);
	}
	figure = &figures[nfigures];
	*figure = *wanted;
	measure(figure);
	if (figure->rc == -EINTR && is_interrupted())
		return;
	if (figure->rc == -ENXIO && figure->op == OP_MOVE_PAGES) {
		note("move_pages needs two NUMA nodes with memory: left out");
		options.operations &= ~(1U << OP_MOVE_PAGES);
		return;
	}
	if (figure->rc == -EOPNOTSUPP && figure->op == OP_TO_DEVICE_MAP) {
		note("this driver does not map for the device as it migrates: left out");
		options.operations &= ~(1U << OP_TO_DEVICE_MAP);
		return;
	}
	nfigures++;
	if (options.format == FORMAT_TABLE) {
		print_figure(stdout, figure);
		fflush(stdout);
	}
}

/* Measures all sizes and numbers of workers. */
static void measure_sizes(struct figure *figure)
{
	unsigned int i, j, k;

	for (i = 0; i < options.sizes.count; i++) {
		figure->size = options.sizes.value[i];
		for (j = 0; j < options.processes.count; j++) {
			figure->processes = options.processes.value[j];
			for (k = 0; k < options.threads.count; k++) {
				figure->threads = options.threads.value[k];
				if (is_wanted(figure) && !is_interrupted())
					measure_and_print(figure);
			}
		}
	}
}

static void measure_source(enum source source)
{
	struct figure figure = { .source = source };
	unsigned int op, kind, fill;

	for (op = 0; op < NR_OPERATIONS; op++) {
		for (kind = 0; kind < NR_KINDS; kind++) {
			for (fill = 0; fill < NR_FILLS; fill++) {
				figure.op = op;
				figure.kind = kind;
				figure.fill = fill;
				measure_sizes(&figure);
			}
		}
	}
}

static bool source_has_work(enum source source)
{
	unsigned int op;

	for (op = 0; op < NR_OPERATIONS; op++)
		if ((options.operations & (1U << op)) && (operations[op].on & ON(source)))
			return true;
	return false;
}

static void measure_all(void)
{
	unsigned int source;

	for (source = 0; source < NR_SOURCES && !is_interrupted(); source++) {
		if (!(options.sources & ON(source)) || !source_has_work(source))
			continue;
		if (source_ready(source))
			measure_source(source);
	}
}

/* ---- report ---------------------------------------------------------------------- */

static int report(void)
{
	int rc = 0;

	if (options.format == FORMAT_TABLE)
		print_ratios(stdout, figures, nfigures);
	else if (options.format == FORMAT_CSV)
		print_csv(stdout, figures, nfigures);
	else
		print_json(stdout, figures, nfigures);
	fflush(stdout);
	if (!options.prefix)
		return 0;
	rc |= write_output(options.prefix, "csv", print_csv, figures, nfigures);
	rc |= write_output(options.prefix, "json", print_json, figures, nfigures);
	rc |= write_output(options.prefix, "hist.csv", print_histograms, figures, nfigures);
	return rc;
}

int main(int argc, char **argv)
{
	struct sigaction action = { .sa_handler = on_interrupt };
	int rc;

	mem_probe();
	parse_options(argc, argv);
	out.unit = options.instructions ? "insn" : "ns";
	out.params = options.params;
	out.tty = isatty(STDOUT_FILENO);
	if (geteuid()) {
		fprintf(stderr, "hmm_ref_bench: must be root, to load modules and open devices\n");
		return 1;
	}
	rc = team_alloc();
	if (rc) {
		fprintf(stderr, "hmm_ref_bench: %s\n", strerror(-rc));
		return 1;
	}
	sigaction(SIGINT, &action, NULL);
	sigaction(SIGTERM, &action, NULL);
	modules_save();
	if (options.format == FORMAT_TABLE)
		print_head(stdout);
	measure_all();
	modules_restore();
	if (!nfigures && !is_interrupted()) {
		fprintf(stderr, "hmm_ref_bench: nothing could be measured\n");
		return 1;
	}
	rc = report();
	return is_interrupted() ? 130 : rc ? 1 : 0;
}
