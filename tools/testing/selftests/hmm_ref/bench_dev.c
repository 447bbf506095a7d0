// SPDX-License-Identifier: GPL-2.0-only
/*
 * The drivers that the benchmark compares: their modules, their devices, their commands.
 *
 * One module is loaded at a time, with the benchmark's own parameters. Modules that were loaded
 * before are loaded again at the end, with the parameters that they had. A driver that cannot be
 * unloaded, because it is built in, is used as it is.
 *
 * Commands return 0 or -errno, and -EPROTO when they have not processed the whole range. The old
 * interface does not return how many pages it has moved, so pagemap is read.
 */
#include <dirent.h>

#include "bench.h"
#include "hmm_ref_old.h"

const struct source_info sources[NR_SOURCES] = {
	[SRC_HMM_REF] = { "hmm_ref", "hmm_ref", "/dev/hmm_ref0" },
	[SRC_OLD] = { "hmm_ref-old", "hmm_ref", "/dev/hmm_dmirror0", true },
	[SRC_TEST_HMM] = { "test_hmm", "test_hmm", "/dev/hmm_dmirror0", true },
	[SRC_FLOOR] = { "floor", "hmm_ref_floor", "/dev/hmm_ref_floor" },
	[SRC_SYSTEM] = { "system" },
};

/* ---- modules --------------------------------------------------------------------- */

#define NR_MODULES	3

static struct {
	const char *name;
	bool before;		/* loaded before the benchmark began */
	bool ours;		/* loaded by the benchmark */
	char params[512];
} modules[NR_MODULES] = {
	{ "hmm_ref" }, { "test_hmm" }, { "hmm_ref_floor" },
};

static bool module_is_loaded(const char *name)
{
	char path[80];

	snprintf(path, sizeof(path), "/sys/module/%s", name);
	return !access(path, F_OK);
}

/* Adds "NAME=VALUE " if the parameter has a value. */
static void add_param(char *params, size_t size, const char *module, const char *name)
{
	char path[320], value[160];
	size_t used = strlen(params);
	FILE *file;

	snprintf(path, sizeof(path), "/sys/module/%s/parameters/%s", module, name);
	file = fopen(path, "r");
	if (!file)
		return;
	if (fgets(value, sizeof(value), file) && value[0] != '\n' && value[0] != '(') {
		value[strcspn(value, "\n")] = 0;
		snprintf(params + used, size - used, "%s=%s ", name, value);
	}
	fclose(file);
}

/* Records which modules are loaded, and their parameters. */
void modules_save(void)
{
	struct dirent *entry;
	unsigned int i;
	char path[80];
	DIR *folder;

	for (i = 0; i < NR_MODULES; i++) {
		modules[i].before = module_is_loaded(modules[i].name);
		snprintf(path, sizeof(path), "/sys/module/%s/parameters", modules[i].name);
		folder = opendir(path);
		if (!folder)
			continue;
		while ((entry = readdir(folder)))
			add_param(modules[i].params, sizeof(modules[i].params),
				  modules[i].name, entry->d_name);
		closedir(folder);
	}
}

static bool run_modprobe(const char *options, const char *name, const char *params)
{
	char command[800];

	snprintf(command, sizeof(command), "modprobe %s %s %s >/dev/null 2>&1", options, name,
		 params);
	return !system(command);
}

static bool module_unload(unsigned int i)
{
	int try;

	/* A file that has just been closed may keep the module for a moment. */
	for (try = 0; try < 20 && module_is_loaded(modules[i].name); try++) {
		if (run_modprobe("-r", modules[i].name, ""))
			break;
		usleep(100000);
	}
	modules[i].ours = false;
	return !module_is_loaded(modules[i].name);
}

/* Loads the module of a source, and no other. Returns whether its device exists. */
bool source_load(enum source source, const char *params)
{
	unsigned int i, own = 0;

	for (i = 0; i < NR_MODULES; i++) {
		if (!strcmp(modules[i].name, sources[source].module))
			own = i;
		else if (module_is_loaded(modules[i].name) && !module_unload(i))
			return false;
	}
	if (!modules[own].ours && (!module_is_loaded(modules[own].name) || module_unload(own)))
		modules[own].ours = run_modprobe("", modules[own].name, params);
	return !access(sources[source].device, R_OK | W_OK);
}

void modules_restore(void)
{
	unsigned int i;

	for (i = 0; i < NR_MODULES; i++)
		if (modules[i].ours && !module_unload(i))
			fprintf(stderr, "cannot unload %s\n", modules[i].name);
	for (i = 0; i < NR_MODULES; i++)
		if (modules[i].before && !module_is_loaded(modules[i].name) &&
		    !run_modprobe("", modules[i].name, modules[i].params))
			fprintf(stderr, "cannot load %s %s again\n", modules[i].name,
				modules[i].params);
}

/* ---- commands -------------------------------------------------------------------- */

int old_ioctl(int fd, unsigned int nr, void *mem, unsigned long npages, void *buf)
{
	struct old_cmd cmd;

	return old_command(fd, nr, mem, npages, buf, &cmd);
}

int source_open(enum source source)
{
	int fd;

	if (!sources[source].device)
		return -1;
	fd = open(sources[source].device, O_RDWR | O_CLOEXEC);
	return fd < 0 ? -errno : fd;
}

int native_migrate(int fd, unsigned int direction, unsigned int flags, void *mem,
		   unsigned long npages)
{
	struct hmm_ref_migrate cmd = {
		.size = sizeof(cmd), .flags = flags, .direction = direction,
		.addr = (unsigned long)mem, .length = npages * page_size(),
	};

	if (ioctl(fd, HMM_REF_IOC_MIGRATE, &cmd))
		return -errno;
	return cmd.out_migrated == npages ? 0 : -EPROTO;
}

/* The old interface copies all of the data back to @buf. */
int dev_to_device(enum source source, int fd, void *mem, unsigned long npages, void *buf)
{
	if (sources[source].old)
		return old_ioctl(fd, OLD_TO_DEVICE, mem, npages, buf);
	return native_migrate(fd, HMM_REF_TO_DEVICE, 0, mem, npages);
}

int dev_to_system(enum source source, int fd, void *mem, unsigned long npages)
{
	if (sources[source].old)
		return old_ioctl(fd, OLD_TO_SYSTEM, mem, npages, NULL);
	return native_migrate(fd, HMM_REF_TO_SYSTEM, 0, mem, npages);
}

int dev_access(enum source source, int fd, bool write, void *mem, unsigned long npages, void *buf)
{
	if (sources[source].old)
		return old_ioctl(fd, write ? OLD_WRITE : OLD_READ, mem, npages, buf);
	if (write)
		return _test_write(fd, mem, npages * page_size(), buf);
	return _test_read(fd, mem, npages * page_size(), buf);
}

int dev_snapshot(enum source source, int fd, void *mem, unsigned long npages, void *buf)
{
	struct hmm_ref_snapshot cmd;
	int rc;

	if (sources[source].old)
		return old_ioctl(fd, OLD_SNAPSHOT, mem, npages, buf);
	rc = _test_snapshot(fd, mem, npages * page_size(), buf, &cmd);
	return rc ? rc : cmd.out_pages == npages ? 0 : -EPROTO;
}

/* Here, too, the old interface copies all of the data back. */
int dev_exclusive(enum source source, int fd, void *mem, unsigned long npages, void *buf)
{
	if (sources[source].old)
		return old_ioctl(fd, OLD_EXCLUSIVE, mem, npages, buf);
	return _test_make_exclusive(fd, mem, npages);
}
