/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * A device on its bus and its driver, as sysfs shows them, for any bus.
 */
#ifndef _HMM_REF_BUS_H
#define _HMM_REF_BUS_H

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#define HMM_REF_MAX_DEVICES	8

/**
 * struct bus_device - a device as its bus knows it
 * @name: name of the device on the bus
 * @driver: folder of the driver in sysfs
 * @on_bus: whether it is on a bus: else it has no driver there, and cannot be
 *	unbound
 */
struct bus_device {
	char name[64];
	char driver[128];
	bool on_bus;
};

/*
 * Filled once, while all devices are bound: the number of an unbound device does not lead to its
 * bus. All files of a program share the array.
 */
struct bus_device bus_devices[HMM_REF_MAX_DEVICES] __attribute__((common));

static inline void bus_device_find(unsigned int nr)
{
	struct bus_device *device = &bus_devices[nr];
	char path[64], target[PATH_MAX];
	struct stat node;

	snprintf(path, sizeof(path), "/dev/hmm_ref%u", nr);
	if (stat(path, &node))
		return;
	snprintf(path, sizeof(path), "/sys/dev/char/%u:%u/device", major(node.st_rdev),
		 minor(node.st_rdev));
	if (!realpath(path, target))
		return;
	snprintf(device->name, sizeof(device->name), "%.63s", strrchr(target, '/') + 1);
	strcat(path, "/subsystem");
	device->on_bus = !access(path, F_OK);
	*strrchr(path, '/') = '\0';
	strcat(path, "/driver");
	if (realpath(path, target))
		snprintf(device->driver, sizeof(device->driver), "%.127s", target);
}

static inline void bus_devices_find(void)
{
	unsigned int nr;

	for (nr = 0; nr < HMM_REF_MAX_DEVICES; nr++)
		bus_device_find(nr);
}

/* A file in the driver's folder: bind or unbind. */
static inline const char *device_file(unsigned int nr, const char *name, char *path,
				      size_t size)
{
	snprintf(path, size, "%s/%s", bus_devices[nr].driver, name);
	return path;
}

static inline bool device_can_unbind(unsigned int nr)
{
	char path[160];

	return !access(device_file(nr, "unbind", path, sizeof(path)), W_OK);
}

static inline int device_attach(unsigned int nr, const char *file)
{
	const char *name = bus_devices[nr].name;
	size_t len = strlen(name);
	char path[160];
	ssize_t done;
	int fd;

	fd = open(device_file(nr, file, path, sizeof(path)), O_WRONLY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	done = write(fd, name, len);
	done = done < 0 ? -errno : done;
	close(fd);
	return done == (ssize_t)len ? 0 : done < 0 ? (int)done : -EIO;
}

static inline int device_unbind(unsigned int nr)
{
	return device_attach(nr, "unbind");
}

static inline int device_bind(unsigned int nr)
{
	return device_attach(nr, "bind");
}

#endif /* _HMM_REF_BUS_H */
