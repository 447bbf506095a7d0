// SPDX-License-Identifier: GPL-2.0-only
/*
 * The report of the soak test: operations, events, figures, and test results.
 */
#include "soak.h"

/**
 * soak_sum() - add up a member of all slots
 * @offset: offset of the member, which is a uint64_t, in struct soak_slot
 */
uint64_t soak_sum(size_t offset)
{
	uint64_t all = 0;
	unsigned int i;

	for (i = 0; i < SLOTS; i++)
		all += *(uint64_t *)((char *)&soak->slots[i] + offset);
	return all;
}

/**
 * soak_operations() - get the number of operations so far, with refused ones
 */
uint64_t soak_operations(void)
{
	uint64_t all = 0;
	unsigned int i;

	for (i = 0; i < SOAK_KINDS; i++)
		all += soak->done[i] + soak->refused[i];
	return all;
}

/**
 * soak_not_done() - find a kind of operation or event that has not happened yet
 *
 * Return: its name, or NULL if all have happened.
 */
const char *soak_not_done(void)
{
	unsigned int i;

	for (i = 0; i < SOAK_KINDS; i++) {
		if (i == SOAK_SPLIT && access("/sys/kernel/debug/split_huge_pages", W_OK))
			continue;
		if (i == SOAK_FREE && !soak->core_fixed)
			continue;
		if (!soak->done[i])
			return soak_kind_name(i);
	}
	return !soak_totals.to_device ? "a page that went to a device" :
	       !soak_totals.cpu_faults ? "a CPU fault" :
	       !soak_totals.device_faults ? "a device fault" :
	       !soak_totals.evicted ? "an eviction" : !soak_totals.kills ? "a kill" :
	       !soak_totals.unbinds ? "an unbind" : NULL;
}

static void report_operations(void)
{
	unsigned int i;

	printf("# operations that succeeded/were refused:");
	for (i = 0; i < SOAK_KINDS; i++)
		printf(" %s %llu/%llu", soak_kind_name(i), (unsigned long long)soak->done[i],
		       (unsigned long long)soak->refused[i]);
	printf("\n# pages to device %llu, to system %llu, evicted %llu, exclusive %llu; ",
	       (unsigned long long)soak_totals.to_device, (unsigned long long)soak_totals.to_system,
	       (unsigned long long)soak_totals.evicted, (unsigned long long)soak_totals.exclusive);
	printf("CPU faults %llu, device faults %llu\n", (unsigned long long)soak_totals.cpu_faults,
	       (unsigned long long)soak_totals.device_faults);
	soak_print_events();
	for (i = 0; soak->failed && i < SLOTS; i++)
		soak_dump(&soak->slots[i]);
}

/* If a run has ended early, one test has failed, and the results of the others are unknown. */
static void report_test(enum soak_failure failure, const char *skip, const char *name)
{
	if (soak->failed == failure)
		ksft_test_result_fail("%s: %s\n", name, soak->why);
	else if (soak->failed)
		ksft_test_result_skip("%s: the run has ended early\n", name);
	else if (skip)
		ksft_test_result_skip("%s: not met: %s\n", name, skip);
	else
		ksft_test_result_pass("%s\n", name);
}

/**
 * soak_report_begin() - print the header of the results
 */
void soak_report_begin(void)
{
	ksft_print_header();
	ksft_set_plan(5);
}

/**
 * soak_report() - print the figures and the results of the tests
 * @seconds: requested duration of the run
 *
 * kselftest.h counts results separately in each file, so this file has all of them. Does not
 * return.
 */
void soak_report(unsigned int seconds)
{
	uint64_t steps, injected, survived;
	uint64_t held = soak_totals.held / (soak_totals.samples + !soak_totals.samples);
	const char *missing = soak_not_done();

	report_operations();
	steps = soak_modes_report();
	injected = soak_sum_of(injected);
	survived = soak_sum_of(survived);
	printf("# figure: %u rounds, %llu operations in %u s, seed %llu\n", soak_totals.rounds,
	       (unsigned long long)soak_operations(), seconds, (unsigned long long)soak->seed);
	printf("# figure: load held %llu MiB, at most %llu; killed %u, unbound %u, audits %u\n",
	       (unsigned long long)held >> 8, (unsigned long long)soak_totals.most >> 8,
	       soak_totals.kills, soak_totals.unbinds, soak_totals.audits);
	printf("# figure: %llu steps made to fail; operations that met it %llu, survived %llu, ",
	       (unsigned long long)steps, (unsigned long long)injected,
	       (unsigned long long)survived);
	printf("killed before it was known %llu\n", (unsigned long long)soak_totals.gone);
	printf("# figure: %u devices lost, and %llu pages that processes had there\n",
	       soak_totals.losses, (unsigned long long)soak_sum_of(lost_pages));
	printf("# figure: bytes verified %llu, bytes lost %llu\n",
	       (unsigned long long)soak_sum_of(verified), (unsigned long long)soak_sum_of(lost));
	report_test(SOAK_DATA, missing, "every byte is what was written");
	report_test(SOAK_ERROR, missing, "errors and signals are those that were provoked");
	report_test(SOAK_STUCK, missing, "every process gets on");
	report_test(SOAK_LEAK, missing, "devices are empty after each round");
	if (soak->failed)
		ksft_test_result_skip("injected faults are survived: the run has ended early\n");
	else if (!steps || !injected)
		ksft_test_result_skip("injected faults are survived: none was met\n");
	else
		ksft_test_result(injected == survived + soak_totals.gone,
				 "injected faults are survived\n");
	ksft_finished();
}
