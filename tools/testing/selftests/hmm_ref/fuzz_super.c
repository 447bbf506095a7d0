// SPDX-License-Identifier: GPL-2.0-only
/*
 * The fuzzer's supervisor: how it watches the kernel and the devices, the settings that it changes,
 * and the rates at which operations have to succeed.
 */
#include "fuzz.h"
#include "hmm_ref_kernel.h"

#define MAX_RETIRED	64

struct supervisor super;

/* ---- the kernel's log, the devices ----------------------------------------------- */

/* As scripts/tripwire.sh, but early enough to print the last operations. */
void watch_kernel(void)
{
	static const char *const splats[] = {
		"WARNING: ", "BUG: ", "KASAN: ", "UBSAN: ", "INFO: possible", "INFO: task ",
		"Oops", "Bad page", "refcount_t: ", "corruption", "suspicious RCU",
		"page_table_check", "Bad rss-counter", "soft lockup", "suspected memory leak",
	};
	char text[2048];
	unsigned int i;
	ssize_t n;

	while ((n = read(super.kmsg, text, sizeof(text) - 1)) > 0 || errno == EPIPE) {
		if (n < 0)
			continue;
		text[n] = '\0';
		/* Logged for an access to poisoned memory. */
		if (strstr(text, "due to hardware memory corruption fault"))
			continue;
		for (i = 0; i < ARRAY_SIZE(splats); i++)
			if (strstr(text, splats[i]))
				fuzz_complain("kernel: %.200s", strchr(text, ';') + 1);
	}
}

/* Logs where each task sleeps, and the tasks that run. */
void show_tasks(void)
{
	write_file("/proc/sysrq-trigger", "t");
	write_file("/proc/sysrq-trigger", "l");
}

static void add_stats(struct hmm_ref_stats *was, const struct hmm_ref_stats *now)
{
	static const struct hmm_ref_stats none;

	if (now->out_invalidations < was->out_invalidations)
		*was = none;	/* it has been bound again */
	super.to_device += now->out_to_device - was->out_to_device;
	super.to_system += now->out_to_system - was->out_to_system;
	super.cpu_faults += now->out_cpu_faults - was->out_cpu_faults;
	super.evicted += now->out_evicted - was->out_evicted;
	super.exclusive += now->out_exclusive - was->out_exclusive;
	super.device_faults += now->out_device_faults - was->out_device_faults;
	*was = *now;
}

/* A device that is unbound at the moment is skipped. */
void look_at_devices(bool audit_too)
{
	struct hmm_ref_audit audit;
	struct hmm_ref_stats stats;
	unsigned int i;
	int fd;

	for (i = 0; i < shared->devices; i++) {
		fd = hmm_ref_open(i);
		if (fd < 0)
			continue;
		if (!_test_stats(fd, &stats))
			add_stats(&super.last[i], &stats);
		if (audit_too && !_test_audit(fd, &audit) &&
		    (audit.out_violations || audit.out_total != audit.out_free +
		     audit.out_in_use + audit.out_retired))
			fuzz_complain("device %u: %llu violations", i, audit.out_violations);
		close(fd);
	}
}

/* ---- settings -------------------------------------------------------------------- */

static void write_number(const char *path, unsigned long number)
{
	char text[24];

	snprintf(text, sizeof(text), "%lu", number);
	write_file(path, text);
}

/*
 * For a moment the workers have less memory than they use: memory.high makes them reclaim and wait,
 * without killing them.
 */
void squeeze(bool on)
{
	char text[24];
	unsigned long used;

	if (!shared->memcg || on == !!super.squeeze_until)
		return;
	if (!on) {
		write_file(CGROUP "memory.high", "max");
		super.squeeze_until = 0;
		return;
	}
	if (read_file(CGROUP "memory.current", text, sizeof(text)) < 0)
		return;
	used = strtoul(text, NULL, 0);
	snprintf(text, sizeof(text), "%lu", used / 4 * (1 + below(&super.random, 4)));
	write_file(CGROUP "memory.high", text);
	super.squeeze_until = now_ms() + below(&super.random, 500);
	super.squeezes++;
}

void turn_a_knob(void)
{
	unsigned int nr = below(&super.random, shared->devices);
	char path[64];

	switch (below(&super.random, 8)) {
	case 0:
		write_file("/proc/sys/vm/drop_caches", "2");
		break;
	case 1:
		write_file("/proc/sys/vm/compact_memory", "1");
		break;
	case 2:
		if (super.retired++ >= MAX_RETIRED)
			break;
		snprintf(path, sizeof(path), "/sys/kernel/debug/hmm_ref/hmm_ref%u/retire", nr);
		write_number(path, below(&super.random, 8192));
		break;
	case 3:
		/* Some of the time no large page can be allocated. */
		if (access(FAIL_LARGE "probability", F_OK))
			break;
		if (below(&super.random, 3) || attr_arm(FAIL_LARGE, 0, -1))
			attr_disarm(FAIL_LARGE);
		break;
	case 4:
		squeeze(true);
		break;
	case 5:
		write_file("/proc/sys/vm/nr_hugepages", below(&super.random, 4) ? "16" : "8");
		break;
	default:
		snprintf(path, sizeof(path), "/sys/kernel/debug/hmm_ref/hmm_ref%u/fault_around",
			 nr);
		write_number(path, below(&super.random, 20));
	}
}

/* Makes some copies fail for a second. */
void inject(bool on)
{
	if (on == (shared->injected & 1))
		return;
	if (on)
		shared_set(injected, shared->injected + 1);
	if (on ? attr_arm(FAIL_COPY, 0, -1) : attr_disarm(FAIL_COPY))
		fuzz_complain("fail_copy cannot be set");
	if (on)
		write_file(FAIL_COPY "probability", "5");
	else
		shared_set(injected, shared->injected + 1);
	super.inject_until = now_ms() + 1000;
}

/* ---- rates ----------------------------------------------------------------------- */

#define ENOUGH		100	/* fewer operations of a kind are not judged */

/*
 * Of 100 operations of a kind that could be tried, at least good have to succeed, and at most busy
 * may fail for lack of memory or because a page is busy. The first bound is far below the rate of a
 * correct driver, where operations are refused for good reasons: holes, protection, a device that
 * is not bound, a file of another process.
 */
static const struct {
	unsigned char good, busy;
} rates[KINDS] = {
	[OP_OPEN] = { 60, 10 },
	[OP_MIGRATE] = { 45, 10 },
	[OP_READ] = { 50, 10 },
	[OP_WRITE] = { 40, 10 },
	[OP_SNAPSHOT] = { 50, 10 },
	[OP_LOOK] = { 70, 10 },
	[OP_EXCLUSIVE] = { 25, 10 },
	[OP_ATOMIC] = { 30, 10 },
	[OP_OLD] = { 45, 10 },
	[OP_CPU_READ] = { 70, 5 },
	[OP_CPU_WRITE] = { 60, 5 },
};

void check_rates(void)
{
	uint64_t good, busy, all;
	unsigned int i;

	for (i = 0; i < KINDS; i++) {
		good = shared->done[i];
		busy = shared->busy[i];
		all = good + shared->refused[i];
		if (!rates[i].busy || all < ENOUGH)
			continue;
		if (good * 100 < all * rates[i].good || busy * 100 > all * rates[i].busy)
			fuzz_complain("of %llu times %s, %llu succeeded and %llu found it busy",
				      (unsigned long long)all, kinds[i].name,
				      (unsigned long long)good, (unsigned long long)busy);
	}
	if (shared->asked > ENOUGH * 16 && shared->moved * 100 < shared->asked * 35)
		fuzz_complain("of %llu pages, %llu came to the device",
			      (unsigned long long)shared->asked,
			      (unsigned long long)shared->moved);
}
