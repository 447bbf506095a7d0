// SPDX-License-Identifier: GPL-2.0-only
/*
 * Statistics of the benchmark: summaries of repetitions and distributions of latencies.
 *
 * Repetitions are few, so the confidence interval uses Student's t. Latencies are many, so they are
 * counted in buckets: 8 per power of two, exact below 8.
 */
#include <stdlib.h>

#include "bench.h"

/* ---- repetitions ----------------------------------------------------------------- */

static int compare_doubles(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

/* libm is not linked. */
static double square_root(double x)
{
	double root = x > 1 ? x : 1;
	int i;

	for (i = 0; i < 200 && root * root - x > x / 1000000000; i++)
		root = (root + x / root) / 2;
	return root;
}

/* The 97.5 % quantile for this number of degrees of freedom. */
static double student_t(unsigned int degrees)
{
	static const double few[11] = {
		0, 12.71, 4.30, 3.18, 2.78, 2.57, 2.45, 2.36, 2.31, 2.26, 2.23,
	};

	if (degrees <= 10)
		return few[degrees];
	return 1.96 + 2.7 / degrees;
}

/* Interpolates linearly between two samples. */
static double quantile(const double *sorted, unsigned int n, double q)
{
	double at = q * (n - 1);
	unsigned int i = at;

	return i + 1 < n ? sorted[i] + (at - i) * (sorted[i + 1] - sorted[i]) : sorted[i];
}

/* Summarizes the samples, and sorts them. */
void stats_make(struct stats *stats, double *samples, unsigned int n)
{
	double sum = 0, squares = 0;
	unsigned int i;

	qsort(samples, n, sizeof(*samples), compare_doubles);
	for (i = 0; i < n; i++)
		sum += samples[i];
	stats->count = n;
	stats->mean = sum / n;
	for (i = 0; i < n; i++)
		squares += (samples[i] - stats->mean) * (samples[i] - stats->mean);
	stats->median = quantile(samples, n, 0.5);
	stats->p5 = quantile(samples, n, 0.05);
	stats->p95 = quantile(samples, n, 0.95);
	stats->min = samples[0];
	stats->confidence = 100;
	if (n > 1)
		stats->confidence = 100 * student_t(n - 1) *
				    square_root(squares / (n - 1) / n) / stats->mean;
}

/* ---- latencies ------------------------------------------------------------------- */

static unsigned int hist_bucket(uint64_t value)
{
	unsigned int power;

	if (value < HIST_STEPS)
		return value;
	power = 63 - __builtin_clzll(value);
	return (power - 2) * HIST_STEPS + (value >> (power - 3)) - HIST_STEPS;
}

/* The smallest value of a bucket. */
uint64_t hist_low(unsigned int bucket)
{
	if (bucket < HIST_STEPS)
		return bucket;
	return (uint64_t)(HIST_STEPS + bucket % HIST_STEPS) << (bucket / HIST_STEPS - 1);
}

void hist_add(struct histogram *hist, uint64_t value)
{
	hist->count[hist_bucket(value)]++;
	hist->total++;
}

void hist_merge(struct histogram *hist, const struct histogram *other)
{
	unsigned int i;

	for (i = 0; i < HIST_BUCKETS; i++)
		hist->count[i] += other->count[i];
	hist->total += other->total;
}

/* Returns the middle of the bucket that has the quantile. */
double hist_quantile(const struct histogram *hist, double q)
{
	uint64_t seen = 0;
	unsigned int i;

	for (i = 0; i + 1 < HIST_BUCKETS; i++) {
		seen += hist->count[i];
		if (seen && seen >= q * hist->total)
			break;
	}
	return (hist_low(i) + hist_low(i + 1)) / 2.0;
}
