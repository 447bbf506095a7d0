// SPDX-License-Identifier: GPL-2.0-only
/*
 * The soak test's hostile modes, in which the device is late, slow, or failing.
 *
 * The supervisor turns modes on and off at random. Workers find the possible faults by the epochs:
 * the epoch of a mode is odd while the mode is on, and has changed if it was on meanwhile. The
 * epoch is odd before the first step can fail, and until the last one has failed, so a failure that
 * no mode explains is a bug.
 */
#include "soak.h"

#define PARAMETERS	"/sys/module/hmm_ref/parameters/"
#define ATTRIBUTES	"/sys/kernel/debug/hmm_ref/"
#define OPERATIONS	100U	/* a mode ends after so many operations, if its time is over */

/**
 * struct mode - a parameter of the module, or a fault attribute
 * @name: name of the file or folder
 * @values: values of the parameter, separated by spaces
 * @times: largest number of steps that the attribute makes fail
 * @ms: longest time that the mode is on
 * @may: errors of a fault, for each column
 */
struct mode {
	const char *name;
	const char *values;
	unsigned int times;
	unsigned int ms;
	unsigned int may[4];
};

#define COPY_FAILS(rc) \
	{ rc, MAY_EFAULT, MAY_SIGBUS, MAY_EFAULT }

/*
 * As in the tables of fault-injection.rst. The columns are MIGRATE and EVICT; READ, WRITE, ATOMIC
 * and EXCLUSIVE; the CPU; a system call that accesses memory.
 *
 * No mode may lose data, except the last: a device that is lost returns -ENODEV, and accesses to
 * its pages get SIGBUS until they are unmapped. The model takes a page for lost, and maps a new
 * one, if an access gets SIGBUS and no other mode explains it.
 */
static const struct mode modes[] = {
	{ "late_engine", "Y N", 0, 3000 },
	{ "reordered_engine", "Y N", 0, 3000 },
	{ "slow_engine", "50 500 3000", 0, 1500 },
	{ "fail_chunk", NULL, 100, 1000, { MAY_ENOMEM } },
	{ "fail_vram", NULL, 100, 1000, { MAY_ENOMEM } },
	{ "fail_handout", NULL, 1000, 1000 },
	{ "fail_large", NULL, 1000, 2000 },
	{ "fail_queue", NULL, 1000, 1000, { MAY_EAGAIN, MAY_ENOMEM, 0, MAY_EFAULT } },
	{ "fail_dma", NULL, 1000, 1000, { MAY_EAGAIN, MAY_ENOMEM, 0, MAY_EFAULT } },
	{ "fail_copy", NULL, 200, 1000, COPY_FAILS(MAY_EIO) },
	{ "fail_one_copy", NULL, 200, 1000, COPY_FAILS(MAY_EIO) },
	{ "fail_hang", NULL, 3, 1000, COPY_FAILS(MAY_ETIMEDOUT) },
	{ "fail_page", NULL, 1000, 1000, { MAY_ENOMEM, MAY_ENOMEM, 0, MAY_EFAULT } },
	{ "fail_map", NULL, 1000, 1000, { 0, MAY_ENOMEM } },
	{ "fail_retry", NULL, 1000, 1000 },
	{ "fail_lost", NULL, 1, 500 },
};

#define LOST	(ARRAY_SIZE(modes) - 1)

/* State of the supervisor. */
static struct {
	char was[24];		/* old value of the parameter */
	bool here;		/* the kernel has the mode */
	unsigned long long until;	/* 0: off */
	unsigned long long at_last;	/* end on a slow machine */
	uint64_t enough;		/* number of operations after which it may end */
	unsigned int budget;
	uint64_t failed;	/* failed steps */
	uint64_t taken;		/* losses that soak_modes_take_loss() has returned */
} state[ARRAY_SIZE(modes)];

static char copy_timeout_was[24];

/* ---- workers --------------------------------------------------------------------- */

/* Epochs at the begin of the operation. */
static __thread unsigned int epochs[ARRAY_SIZE(modes)];

/**
 * soak_modes_begin() - record the epochs at the begin of an operation or of another attempt
 */
void soak_modes_begin(void)
{
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(modes); i++)
		epochs[i] = soak_get(epochs[i]);
}

/**
 * soak_modes_may() - get the errors that are possible since soak_modes_begin()
 * @column: what meets the fault
 *
 * Return: MAY_* bits.
 */
unsigned int soak_modes_may(enum soak_column column)
{
	unsigned int i, may = 0;

	for (i = 0; i < ARRAY_SIZE(modes); i++)
		if (epochs[i] & 1 || soak_get(epochs[i]) != epochs[i])
			may |= modes[i].may[column];
	return may;
}

/**
 * soak_losses() - get the number of times that a device may have been lost
 *
 * A device may have been lost between two calls that return different numbers.
 */
unsigned int soak_losses(void)
{
	return (soak_get(epochs[LOST]) + 1) / 2;
}

/**
 * soak_bit_of() - get the bit of an error
 * @rc: -errno
 *
 * Return: MAY_* bit, 0 for an error that no mode causes.
 */
unsigned int soak_bit_of(int rc)
{
	switch (-rc) {
	case EIO:
		return MAY_EIO;
	case EAGAIN:
		return MAY_EAGAIN;
	case ETIMEDOUT:
		return MAY_ETIMEDOUT;
	case ENOMEM:
		return MAY_ENOMEM;
	case EFAULT:
		return MAY_EFAULT;
	default:
		return 0;
	}
}

/* ---- the supervisor -------------------------------------------------------------- */

static const char *file_of(unsigned int nr, const char *name)
{
	static char path[128];

	if (modes[nr].values)
		snprintf(path, sizeof(path), PARAMETERS "%s", modes[nr].name);
	else
		snprintf(path, sizeof(path), ATTRIBUTES "%s/%s", modes[nr].name, name);
	return path;
}

static void set(unsigned int nr, const char *name, const char *value)
{
	int rc = write_file(file_of(nr, name), value);

	if (rc)
		soak_complain(SOAK_ERROR, "%s: errno %d", file_of(nr, name), -rc);
}

static void set_number(unsigned int nr, const char *name, unsigned int value)
{
	char text[16];

	snprintf(text, sizeof(text), "%u", value);
	set(nr, name, text);
}

static unsigned int get_number(unsigned int nr, const char *name)
{
	char text[16];

	return read_file(file_of(nr, name), text, sizeof(text)) < 0 ? 0 :
	       strtoul(text, NULL, 0);
}

static void choose_value(unsigned int nr, uint64_t *random)
{
	char values[32], *word, *rest = values, *chosen = NULL;
	unsigned int n = 0;

	snprintf(values, sizeof(values), "%s", modes[nr].values);
	while ((word = strsep(&rest, " ")))
		if (!below(random, ++n))
			chosen = word;
	set(nr, NULL, chosen);
}

static void turn_on(unsigned int nr, uint64_t operations, uint64_t *random)
{
	static const unsigned int chances[] = { 2, 10, 30, 100 };

	soak_set(epochs[nr], soak->epochs[nr] + 1);
	state[nr].until = now_ms() + 1 + below(random, modes[nr].ms);
	state[nr].at_last = state[nr].until + 10000;
	state[nr].enough = operations + below(random, OPERATIONS);
	if (modes[nr].values) {
		choose_value(nr, random);
		return;
	}
	state[nr].budget = 1 + below(random, modes[nr].times);
	set_number(nr, "times", state[nr].budget);
	set_number(nr, "probability", chances[below(random, ARRAY_SIZE(chances))]);
}

static void turn_off(unsigned int nr)
{
	if (modes[nr].values) {
		set(nr, NULL, state[nr].was);
	} else {
		set(nr, "probability", "0");
		state[nr].failed += state[nr].budget - get_number(nr, "times");
	}
	state[nr].until = 0;
	soak_set(epochs[nr], soak->epochs[nr] + 1);
}

/**
 * soak_modes_setup() - find the modes that the kernel has
 *
 * Return: 0 or -errno.
 */
int soak_modes_setup(void)
{
	unsigned int i;
	char *end;

	for (i = 0; i < ARRAY_SIZE(modes); i++) {
		state[i].here = !access(file_of(i, "probability"), W_OK);
		if (!state[i].here)
			continue;
		if (!modes[i].values) {
			set(i, "verbose", "0");
			set(i, "interval", "1");
			set(i, "space", "0");
			continue;
		}
		if (read_file(file_of(i, NULL), state[i].was, sizeof(state[i].was)) < 0)
			return -EIO;
		end = strchr(state[i].was, '\n');
		if (end)
			*end = '\0';
	}
	/* An engine that hangs is reset soon. A slow engine is waited for. */
	if (read_file(COPY_TIMEOUT, copy_timeout_was, sizeof(copy_timeout_was)) < 0)
		return -EIO;
	return write_file(COPY_TIMEOUT, "200");
}

static bool is_over(unsigned int nr, uint64_t operations)
{
	return state[nr].until && now_ms() >= state[nr].until &&
	       (operations >= state[nr].enough || now_ms() >= state[nr].at_last);
}

/**
 * soak_modes_tick() - end expired modes, and sometimes begin another one
 * @operations: number of operations so far
 * @random: state of the supervisor's random numbers
 */
void soak_modes_tick(uint64_t operations, uint64_t *random)
{
	unsigned int i, nr = below(random, ARRAY_SIZE(modes));

	for (i = 0; i < ARRAY_SIZE(modes); i++)
		if (is_over(i, operations))
			turn_off(i);
	if (!below(random, 12) && state[nr].here && !state[nr].until)
		turn_on(nr, operations, random);
}

/**
 * soak_modes_take_loss() - test whether a device was lost since the last call
 *
 * It is not known which device. Context: supervisor.
 */
bool soak_modes_take_loss(void)
{
	bool lost = state[LOST].failed != state[LOST].taken;

	state[LOST].taken = state[LOST].failed;
	return lost;
}

/**
 * soak_modes_calm() - end all modes
 */
void soak_modes_calm(void)
{
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(modes); i++)
		if (state[i].until)
			turn_off(i);
}

/**
 * soak_modes_restore() - restore the parameters of the module
 */
void soak_modes_restore(void)
{
	soak_modes_calm();
	write_file(COPY_TIMEOUT, copy_timeout_was);
}

/**
 * soak_modes_report() - print the steps that were made to fail
 *
 * Return: number of steps that have failed, 0 also where none can fail.
 */
uint64_t soak_modes_report(void)
{
	uint64_t all = 0;
	unsigned int i;

	printf("# steps made to fail:");
	for (i = 0; i < ARRAY_SIZE(modes); i++) {
		all += state[i].failed;
		if (!modes[i].values && state[i].here)
			printf(" %s %llu", modes[i].name, (unsigned long long)state[i].failed);
		else if (modes[i].values)
			printf(" %s %u times", modes[i].name, soak->epochs[i] / 2);
	}
	printf("\n");
	return all;
}
