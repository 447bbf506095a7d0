// SPDX-License-Identifier: GPL-2.0-only
/*
 * Character devices.
 *
 * The driver has a class of its own rather than misc devices. An open takes the
 * process's mmap_lock for writing, which may take long, and misc_open() calls
 * the driver with a lock held that all misc devices share. Here an open waits
 * alone.
 *
 * An open may race with removal. It may then create a file of a device that is
 * gone, a state that all files of a removed device are in.
 */
#include <linux/delay.h>
#include <linux/idr.h>
#include <linux/module.h>

#include "hmm_ref.h"

/* An unbound device keeps its minor numbers until its files are closed. */
#define MINORS	1024

static dev_t first;
static DEFINE_IDA(minors);

static char *node_path(const struct device *device, umode_t *mode)
{
	if (mode)
		*mode = 0600;
	return NULL;
}

static const struct class node_class = {
	.name = "hmm_ref",
	.devnode = node_path,
};

/* Called after the device is removed and its last file closed. */
static void node_release(struct device *device)
{
	struct hmm_ref_node *node =
		container_of(device, struct hmm_ref_node, device);

	ida_free(&minors, MINOR(device->devt));
	hmm_ref_device_put(node->dev);
}

/**
 * hmm_ref_node_add() - create a character device
 * @node: node to set up
 * @dev: device that it belongs to; the node takes a reference
 * @parent: device on the bus
 * @name: name in /dev
 * @fops: operations of its files
 *
 * Return: 0 or a negative errno.
 */
int hmm_ref_node_add(struct hmm_ref_node *node, struct hmm_ref_device *dev,
		     struct device *parent, const char *name,
		     const struct file_operations *fops)
{
	int minor = ida_alloc_max(&minors, MINORS - 1, GFP_KERNEL);
	int rc;

	if (minor < 0)
		return minor;
	kref_get(&dev->ref);
	node->dev = dev;
	device_initialize(&node->device);
	node->device.class = &node_class;
	node->device.parent = parent;
	node->device.release = node_release;
	node->device.devt = MKDEV(MAJOR(first), minor);
	cdev_init(&node->cdev, fops);
	node->cdev.owner = fops->owner;
	rc = dev_set_name(&node->device, "%s", name);
	if (!rc)
		rc = cdev_device_add(&node->cdev, &node->device);
	if (rc)
		put_device(&node->device);
	return rc;
}

/**
 * hmm_ref_node_remove() - remove a character device
 * @node: node; its files stay, and an open under way may create another one
 *
 * Context: may sleep; does not wait for user space.
 */
void hmm_ref_node_remove(struct hmm_ref_node *node)
{
	cdev_device_del(&node->cdev, &node->device);
	put_device(&node->device);
}

/**
 * hmm_ref_node_device() - the device that a file is opened on
 * @inode: inode that is being opened
 *
 * Return: the device, which stays until the file is closed.
 */
struct hmm_ref_device *hmm_ref_node_device(struct inode *inode)
{
	return container_of(inode->i_cdev, struct hmm_ref_node, cdev)->dev;
}

/**
 * hmm_ref_node_init() - prepare for character devices
 *
 * Return: 0 or a negative errno.
 */
int __init hmm_ref_node_init(void)
{
	int rc = alloc_chrdev_region(&first, 0, MINORS, "hmm_ref");

	if (rc)
		return rc;
	rc = class_register(&node_class);
	if (rc)
		unregister_chrdev_region(first, MINORS);
	return rc;
}

/**
 * hmm_ref_node_exit() - undo hmm_ref_node_init()
 */
void hmm_ref_node_exit(void)
{
	/* The core may defer the release of a device. */
	while (!ida_is_empty(&minors))
		msleep(20);
	class_unregister(&node_class);
	unregister_chrdev_region(first, MINORS);
}
