// SPDX-License-Identifier: GPL-2.0-only
/*
 * The options of hmm_ref_bench, and their checks. A bad option ends the program with status 2.
 */
#include <ctype.h>
#include <getopt.h>
#include <stdarg.h>

#include "bench.h"

#define MAX_REPETITIONS	100000U

struct options options = {
	.all_sources = true,
	.sources = (1 << NR_SOURCES) - 1,
	.operations = (1 << NR_OPERATIONS) - 1,
	.kinds = (1 << NR_KINDS) - 1,
	.fills = 1 << FILL_POPULATED,
	.sizes = { { 16UL << 20 }, 1 },
	.threads = { { 1 }, 1 },
	.processes = { { 1 }, 1 },
	.cpu_node = -1,
	.mem_node = -1,
	.warmup = 2,
	.repetitions = 50,
	.confidence = 2,
	.seconds = 10,
	.params = "",
};

static void print_usage(FILE *to)
{
	unsigned int i;

	fprintf(to,
		"usage: hmm_ref_bench [options]; lists are separated by commas\n"
		"  -d LIST     sources (default: all that can be had):\n             ");
	for (i = 0; i < NR_SOURCES; i++)
		fprintf(to, " %s", sources[i].name);
	fprintf(to, "\n  -o LIST     operations (default: all):");
	for (i = 0; i < NR_OPERATIONS; i++)
		fprintf(to, "%s %s", i % 5 ? "" : "\n             ", operations[i].name);
	fprintf(to,
		"\n"
		"  -k LIST     kinds of pages: 4k thp (default: both)\n"
		"  -f LIST     how memory is filled: populated hole zero (default: populated)\n"
		"  -s LIST     sizes of a worker's range, 4K to 1G (default: 16M)\n"
		"  -t LIST     numbers of threads (default: 1)\n"
		"  -p LIST     numbers of processes (default: 1)\n"
		"  -N CPU,MEM  NUMA nodes of the CPUs and of the memory\n"
		"  -m PARAMS   parameters of the module hmm_ref, as \"capacity=2G large=0\"\n"
		"  -W COUNT    repetitions to warm up (default: 2)\n"
		"  -c PERCENT  until the 95 %% confidence interval is that narrow (default: 2)\n"
		"  -r COUNT    or after so many repetitions (default: 50)\n"
		"  -T SECONDS  or after that time, for each figure (default: 10)\n"
		"  -V          compare every byte\n"
		"  -O FORMAT   table, csv or json (default: table)\n"
		"  -w PREFIX   write PREFIX.csv, PREFIX.json and PREFIX.hist.csv, too\n"
		"  -i          the clock counts instructions: say so\n"
		"  -h          this\n");
}

static void bad_option(const char *format, ...)
{
	va_list args;

	va_start(args, format);
	fprintf(stderr, "hmm_ref_bench: ");
	vfprintf(stderr, format, args);
	fprintf(stderr, "; see hmm_ref_bench -h\n");
	va_end(args);
	exit(2);
}

/* Makes a mask of the names in a list. @name returns the name of an index. */
static unsigned int parse_names(char option, char *text, unsigned int n,
				const char *(*name)(unsigned int i))
{
	unsigned int mask = 0, i;
	char *word;

	for (word = strtok(text, ","); word; word = strtok(NULL, ",")) {
		for (i = 0; i < n && strcmp(word, name(i)); i++)
			;
		if (i == n)
			bad_option("-%c: there is no \"%s\"", option, word);
		mask |= 1U << i;
	}
	if (!mask)
		bad_option("-%c: the list is empty", option);
	return mask;
}

static const char *source_name(unsigned int i)
{
	return sources[i].name;
}

static const char *operation_name(unsigned int i)
{
	return operations[i].name;
}

static const char *kind_name(unsigned int i)
{
	return kind_names[i];
}

static const char *fill_name(unsigned int i)
{
	return fill_names[i];
}

static const char *format_name(unsigned int i)
{
	static const char *const names[] = { "table", "csv", "json" };

	return names[i];
}

static unsigned long parse_size(const char *text, char **end)
{
	static const char units[] = "KMG";
	unsigned long value = strtoul(text, end, 10);
	const char *unit = **end ? strchr(units, toupper((unsigned char)**end)) : NULL;

	if (!unit)
		return value;
	(*end)++;
	return value << 10 * (unit - units + 1);
}

static unsigned long parse_number(char option, const char *text, bool is_size, unsigned long least,
				  unsigned long most)
{
	unsigned long value;
	char *end;

	value = is_size ? parse_size(text, &end) : strtoul(text, &end, 10);
	if (!isdigit((unsigned char)*text) || *end)
		bad_option("-%c: \"%s\" is no %s", option, text, is_size ? "size" : "number");
	if (value < least || value > most)
		bad_option("-%c: %s is not between %lu and %lu", option, text, least, most);
	return value;
}

static void parse_numbers(char option, char *text, struct list *list, bool is_size,
			  unsigned long least, unsigned long most)
{
	char *word;

	list->count = 0;
	for (word = strtok(text, ","); word; word = strtok(NULL, ",")) {
		if (list->count == MAX_LIST)
			bad_option("-%c: more than %d values", option, MAX_LIST);
		list->value[list->count++] = parse_number(option, word, is_size, least, most);
	}
	if (!list->count)
		bad_option("-%c: the list is empty", option);
}

static double parse_fraction(char option, const char *text)
{
	char *end;
	double value = strtod(text, &end);

	if (end == text || *end || !(value > 0))
		bad_option("-%c: \"%s\" is no positive number", option, text);
	return value;
}

static void parse_sizes(char *text)
{
	unsigned int i;

	parse_numbers('s', text, &options.sizes, true, page_size(), 1UL << 30);
	for (i = 0; i < options.sizes.count; i++)
		if (options.sizes.value[i] % page_size())
			bad_option("-s: %lu is no multiple of the page size",
				   options.sizes.value[i]);
}

static void parse_nodes(char *text)
{
	struct list nodes;
	char path[80];
	unsigned int i;

	parse_numbers('N', text, &nodes, false, 0, MAX_NODES - 1);
	if (nodes.count != 2)
		bad_option("-N: needs two nodes");
	for (i = 0; i < 2; i++) {
		snprintf(path, sizeof(path), "/sys/devices/system/node/node%lu", nodes.value[i]);
		if (access(path, F_OK))
			bad_option("-N: there is no node %lu", nodes.value[i]);
	}
	options.cpu_node = nodes.value[0];
	options.mem_node = nodes.value[1];
}

/* The parameters become words of a shell command. */
static void parse_params(const char *text)
{
	const char *c;

	for (c = text; *c; c++)
		if (!isalnum((unsigned char)*c) && !strchr("_=,. ", *c))
			bad_option("-m: \"%s\" are no parameters of a module", text);
	options.params = text;
}

static void parse_option(int option)
{
	switch (option) {
	case 'd':
		options.sources = parse_names('d', optarg, NR_SOURCES, source_name);
		options.all_sources = false;
		break;
	case 'o':
		options.operations = parse_names('o', optarg, NR_OPERATIONS, operation_name);
		break;
	case 'k':
		options.kinds = parse_names('k', optarg, NR_KINDS, kind_name);
		break;
	case 'f':
		options.fills = parse_names('f', optarg, NR_FILLS, fill_name);
		break;
	case 's':
		parse_sizes(optarg);
		break;
	case 't':
		parse_numbers('t', optarg, &options.threads, false, 1, MAX_WORKERS);
		break;
	case 'p':
		parse_numbers('p', optarg, &options.processes, false, 1, MAX_WORKERS);
		break;
	case 'N':
		parse_nodes(optarg);
		break;
	case 'm':
		parse_params(optarg);
		break;
	case 'W':
		options.warmup = parse_number('W', optarg, false, 0, MAX_REPETITIONS);
		break;
	case 'c':
		options.confidence = parse_fraction('c', optarg);
		break;
	case 'r':
		options.repetitions = parse_number('r', optarg, false, 1, MAX_REPETITIONS);
		break;
	case 'T':
		options.seconds = parse_fraction('T', optarg);
		break;
	case 'V':
		options.verify = true;
		break;
	case 'O':
		options.format = __builtin_ctz(parse_names('O', optarg, 3, format_name));
		break;
	case 'w':
		options.prefix = optarg;
		break;
	case 'i':
		options.instructions = true;
		break;
	case 'h':
		print_usage(stdout);
		exit(0);
	default:
		exit(2);
	}
}

void parse_options(int argc, char **argv)
{
	int option;

	while ((option = getopt(argc, argv, "d:o:k:f:s:t:p:N:m:W:c:r:T:VO:w:ih")) != -1)
		parse_option(option);
	if (optind < argc)
		bad_option("\"%s\" is no option", argv[optind]);
}
