// SPDX-License-Identifier: GPL-2.0-only
/*
 * The output of the benchmark: a line per figure as soon as it is known, the ratios at the end, and
 * the same as CSV and JSON.
 *
 * A figure that could not be measured has the reason in place of its values: -errno of the
 * operation.
 */
#include <sys/utsname.h>

#include "bench.h"

struct output out;

static const char *size_text(size_t size, char *text, size_t n)
{
	if (size >= 1UL << 30 && !(size & ((1UL << 30) - 1)))
		snprintf(text, n, "%zuG", size >> 30);
	else if (size >= 1UL << 20 && !(size & ((1UL << 20) - 1)))
		snprintf(text, n, "%zuM", size >> 20);
	else
		snprintf(text, n, "%zuK", size >> 10);
	return text;
}

static double gigabytes_per_second(const struct figure *figure)
{
	return page_size() / figure->stats.median;
}

/* The meaning of an error in this program. */
static const char *reason(int rc)
{
	switch (rc) {
	case -EPROTO:
		return "pages are not where they must be";
	case -EILSEQ:
		return "wrong data";
	case -ECHILD:
		return "a worker has died";
	default:
		return strerror(-rc);
	}
}

/* ---- the table ------------------------------------------------------------------- */

static void print_name(FILE *to, const struct figure *figure)
{
	char size[32];

	fprintf(to, "%-11s %-18s %-3s %-9s %5s %2u %2u", sources[figure->source].name,
		operations[figure->op].name, kind_names[figure->kind],
		fill_names[figure->fill], size_text(figure->size, size, sizeof(size)),
		figure->threads, figure->processes);
}

void print_head(FILE *to)
{
	fprintf(to, "%-11s %-18s %-3s %-9s %5s %2s %2s %4s %9s %9s %5s %9s %9s %9s %7s\n",
		"source", "operation", "", "filled", "size", "t", "p", "reps", "median", "mean",
		"+-%", "p5", "p95", "min", "GB/s");
	fprintf(to, "%-61s%s per page\n", "", out.unit);
}

/* The rate means nothing when instructions are counted. */
static void print_rate(FILE *to, const struct figure *figure, const char *none)
{
	if (strcmp(out.unit, "ns"))
		fprintf(to, "%s", none);
	else
		fprintf(to, "%.3f", gigabytes_per_second(figure));
}

void print_figure(FILE *to, const struct figure *figure)
{
	const struct stats *s = &figure->stats;

	print_name(to, figure);
	if (figure->rc) {
		fprintf(to, "      %s\n", reason(figure->rc));
		return;
	}
	fprintf(to, " %4u %9.1f %9.1f %5.1f %9.1f %9.1f %9.1f  ", s->count, s->median, s->mean,
		s->confidence, s->p5, s->p95, s->min);
	print_rate(to, figure, "     -");
	fprintf(to, "%s\n", figure->dropped ? "  some repetitions left out" : "");
	if (figure->hist)
		fprintf(to, "%-47s latency: p50 %.0f, p90 %.0f, p99 %.0f, p99.9 %.0f %s\n", "",
			hist_quantile(figure->hist, 0.5), hist_quantile(figure->hist, 0.9),
			hist_quantile(figure->hist, 0.99), hist_quantile(figure->hist, 0.999),
			out.unit);
}

/* Rewrites the current line of a terminal. */
void progress_show(const struct figure *figure, unsigned int count)
{
	if (!out.tty)
		return;
	fprintf(stderr, "\r\033[K");
	print_name(stderr, figure);
	fprintf(stderr, " %4u", count);
	fflush(stderr);
}

void progress_clear(void)
{
	if (out.tty)
		fprintf(stderr, "\r\033[K");
}

/* ---- ratios ---------------------------------------------------------------------- */

static bool same_row(const struct figure *a, const struct figure *b)
{
	return a->op == b->op && a->kind == b->kind && a->fill == b->fill &&
	       a->size == b->size && a->threads == b->threads && a->processes == b->processes;
}

static const struct figure *find_figure(const struct figure *figures, unsigned int n,
					const struct figure *row, enum source source)
{
	unsigned int i;

	for (i = 0; i < n; i++)
		if (!figures[i].rc && figures[i].source == source && same_row(&figures[i], row))
			return &figures[i];
	return NULL;
}

/* The floor has no mapping, so to_device_map is compared with its to_device. */
static const struct figure *find_floor(const struct figure *figures, unsigned int n,
				       const struct figure *row)
{
	struct figure base = *row;

	if (base.op == OP_TO_DEVICE_MAP)
		base.op = OP_TO_DEVICE;
	return find_figure(figures, n, &base, SRC_FLOOR);
}

static bool is_first_of_row(const struct figure *figures, unsigned int i)
{
	unsigned int j;

	for (j = 0; j < i; j++)
		if (same_row(&figures[j], &figures[i]))
			return false;
	return true;
}

void print_ratios(FILE *to, const struct figure *figures, unsigned int n)
{
	const struct figure *floor, *figure;
	unsigned int i, source;
	char size[32];

	fprintf(to, "\n%s per page (median), and how many times the floor\n", out.unit);
	fprintf(to, "%-18s %-3s %-9s %5s %2s %2s", "operation", "", "filled", "size", "t", "p");
	for (source = 0; source < NR_SOURCES; source++)
		fprintf(to, " %16s", sources[source].name);
	fprintf(to, "\n");
	for (i = 0; i < n; i++) {
		if (!is_first_of_row(figures, i))
			continue;
		figure = &figures[i];
		fprintf(to, "%-18s %-3s %-9s %5s %2u %2u", operations[figure->op].name,
			kind_names[figure->kind], fill_names[figure->fill],
			size_text(figure->size, size, sizeof(size)), figure->threads,
			figure->processes);
		floor = find_floor(figures, n, figure);
		for (source = 0; source < NR_SOURCES; source++) {
			figure = find_figure(figures, n, &figures[i], source);
			if (!figure)
				fprintf(to, " %16s", "-");
			else if (!floor)
				fprintf(to, " %9.1f       ", figure->stats.median);
			else
				fprintf(to, " %9.1f %6.3f", figure->stats.median,
					figure->stats.median / floor->stats.median);
		}
		fprintf(to, "\n");
	}
}

/* ---- files ----------------------------------------------------------------------- */

void print_csv(FILE *to, const struct figure *figures, unsigned int n)
{
	unsigned int i;

	fprintf(to, "source,operation,kind,filled,size,threads,processes,unit,repetitions,");
	fprintf(to, "dropped,median,mean,confidence,p5,p95,min,gbps,");
	fprintf(to, "lat_p50,lat_p90,lat_p99,lat_p999,error\n");
	for (i = 0; i < n; i++) {
		const struct figure *f = &figures[i];
		const struct stats *s = &f->stats;

		fprintf(to, "%s,%s,%s,%s,%zu,%u,%u,%s,", sources[f->source].name,
			operations[f->op].name, kind_names[f->kind], fill_names[f->fill],
			f->size, f->threads, f->processes, out.unit);
		if (f->rc) {
			fprintf(to, "0,%u,,,,,,,,,,,,%s\n", f->dropped, reason(f->rc));
			continue;
		}
		fprintf(to, "%u,%u,%.2f,%.2f,%.2f,%.2f,%.2f,%.2f,", s->count, f->dropped,
			s->median, s->mean, s->confidence, s->p5, s->p95, s->min);
		print_rate(to, f, "");
		if (f->hist)
			fprintf(to, ",%.0f,%.0f,%.0f,%.0f,\n", hist_quantile(f->hist, 0.5),
				hist_quantile(f->hist, 0.9), hist_quantile(f->hist, 0.99),
				hist_quantile(f->hist, 0.999));
		else
			fprintf(to, ",,,,,\n");
	}
}

/* Prints a JSON string. */
static void print_string(FILE *to, const char *text)
{
	fputc('"', to);
	for (; *text; text++) {
		if (*text == '"' || *text == '\\')
			fputc('\\', to);
		if ((unsigned char)*text >= ' ')
			fputc(*text, to);
	}
	fputc('"', to);
}

static void print_member(FILE *to, const char *name, const char *value)
{
	fprintf(to, "  \"%s\": ", name);
	print_string(to, value);
	fprintf(to, ",\n");
}

/* Finds the first line of a file that begins with @key, and the text after the colon. */
static void file_value(const char *path, const char *key, char *value, size_t size)
{
	char line[256];
	FILE *file = fopen(path, "r");

	snprintf(value, size, "unknown");
	if (!file)
		return;
	while (fgets(line, sizeof(line), file)) {
		char *colon = strchr(line, ':');

		if (strncmp(line, key, strlen(key)) || !colon)
			continue;
		line[strcspn(line, "\n")] = 0;
		snprintf(value, size, "%s", colon + 1 + strspn(colon + 1, " \t"));
		break;
	}
	fclose(file);
}

static void print_machine(FILE *to)
{
	char cpu[200], memory[80], cpus[16], clock[80] = "unknown";
	struct utsname kernel;
	FILE *file;

	uname(&kernel);
	file_value("/proc/cpuinfo", "model name", cpu, sizeof(cpu));
	file_value("/proc/meminfo", "MemTotal", memory, sizeof(memory));
	snprintf(cpus, sizeof(cpus), "%ld", sysconf(_SC_NPROCESSORS_ONLN));
	file = fopen("/sys/devices/system/clocksource/clocksource0/current_clocksource", "r");
	if (file && fgets(clock, sizeof(clock), file))
		clock[strcspn(clock, "\n")] = 0;
	if (file)
		fclose(file);
	print_member(to, "kernel", kernel.release);
	print_member(to, "version", kernel.version);
	print_member(to, "machine", kernel.machine);
	print_member(to, "cpu", cpu);
	print_member(to, "cpus", cpus);
	print_member(to, "memory", memory);
	print_member(to, "clocksource", clock);
	print_member(to, "parameters", out.params);
	print_member(to, "unit", out.unit);
}

static void print_values(FILE *to, const struct figure *figure)
{
	const struct stats *s = &figure->stats;

	fprintf(to, ",\n     \"repetitions\": %u, \"dropped\": %u, \"median\": %.2f, ",
		s->count, figure->dropped, s->median);
	fprintf(to, "\"mean\": %.2f, \"confidence\": %.2f, ", s->mean, s->confidence);
	fprintf(to, "\"p5\": %.2f, \"p95\": %.2f, \"min\": %.2f", s->p5, s->p95, s->min);
	if (!figure->hist)
		return;
	fprintf(to, ",\n     \"latency\": {\"p50\": %.0f, \"p90\": %.0f, ",
		hist_quantile(figure->hist, 0.5), hist_quantile(figure->hist, 0.9));
	fprintf(to, "\"p99\": %.0f, \"p99.9\": %.0f}", hist_quantile(figure->hist, 0.99),
		hist_quantile(figure->hist, 0.999));
}

void print_json(FILE *to, const struct figure *figures, unsigned int n)
{
	unsigned int i;

	fprintf(to, "{\n");
	print_machine(to);
	fprintf(to, "  \"page_size\": %lu,\n  \"figures\": [", page_size());
	for (i = 0; i < n; i++) {
		const struct figure *f = &figures[i];

		fprintf(to, "%s\n    {\"source\": \"%s\", \"operation\": \"%s\", ",
			i ? "," : "", sources[f->source].name, operations[f->op].name);
		fprintf(to, "\"kind\": \"%s\", \"filled\": \"%s\", \"size\": %zu, ",
			kind_names[f->kind], fill_names[f->fill], f->size);
		fprintf(to, "\"threads\": %u, \"processes\": %u", f->threads, f->processes);
		if (f->rc) {
			fprintf(to, ", \"error\": ");
			print_string(to, reason(f->rc));
		} else {
			print_values(to, f);
		}
		fprintf(to, "}");
	}
	fprintf(to, "\n  ]\n}\n");
}

void print_histograms(FILE *to, const struct figure *figures, unsigned int n)
{
	unsigned int i, bucket;

	fprintf(to, "source,operation,kind,size,threads,processes,low,high,count\n");
	for (i = 0; i < n; i++) {
		const struct figure *f = &figures[i];

		for (bucket = 0; f->hist && bucket + 1 < HIST_BUCKETS; bucket++) {
			if (f->hist->count[bucket])
				fprintf(to, "%s,%s,%s,%zu,%u,%u,%llu,%llu,%llu\n",
					sources[f->source].name, operations[f->op].name,
					kind_names[f->kind], f->size, f->threads, f->processes,
					(unsigned long long)hist_low(bucket),
					(unsigned long long)hist_low(bucket + 1),
					(unsigned long long)f->hist->count[bucket]);
		}
	}
}

/* Writes the file PREFIX.ENDING. Returns 0 or -errno. */
int write_output(const char *prefix, const char *ending,
		 void (*print)(FILE *to, const struct figure *f, unsigned int n),
		 const struct figure *figures, unsigned int n)
{
	char path[512];
	FILE *file;
	int rc;

	snprintf(path, sizeof(path), "%s.%s", prefix, ending);
	file = fopen(path, "w");
	if (!file) {
		rc = -errno;
	} else {
		print(file, figures, n);
		rc = ferror(file) ? -EIO : 0;
		if (fclose(file) && !rc)
			rc = -errno;
	}
	if (rc)
		fprintf(stderr, "hmm_ref_bench: %s: %s\n", path, strerror(-rc));
	return rc;
}
