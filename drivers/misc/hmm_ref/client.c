// SPDX-License-Identifier: GPL-2.0-only
/*
 * Open files: the common part of the native and the old user interface.
 *
 * A client mirrors the mm that opened the file, until the file is closed. It
 * holds a reference to struct hmm_ref_device, but does not keep the device
 * bound: after unbind every operation fails. An operation enters the SRCU
 * section hmm_ref_device::unplug and then reads hmm_ref_device::gone. If that
 * is unset, the device stays until the section ends.
 */
#include <linux/overflow.h>
#include <linux/sched.h>
#include <linux/slab.h>
#include <linux/uaccess.h>

#include "hmm_ref.h"

/**
 * hmm_ref_client_open() - create a client for a file that is being opened
 * @dev: device, which may be unbound at any time
 *
 * Context: takes mmap_lock for writing; no lock of the driver is held.
 * Return: the client, or an ERR_PTR().
 */
struct hmm_ref_client *hmm_ref_client_open(struct hmm_ref_device *dev)
{
	struct hmm_ref_client *client;
	int rc = -ENOMEM;

	if (!current->mm)
		return ERR_PTR(-EINVAL);
	if (READ_ONCE(dev->gone))
		return ERR_PTR(-ENODEV);
	client = kzalloc_obj(*client, GFP_KERNEL_ACCOUNT);
	if (!client)
		return ERR_PTR(-ENOMEM);
	client->dev = dev;
	client->owner = hmm_ref_owner_create();
	if (!client->owner)
		goto err_free;
	mutex_init(&client->migrate_lock);
	rc = hmm_ref_scratch_init(&client->scratch);
	if (rc)
		goto err_owner;
	rc = hmm_ref_mirror_init(&client->mirror, current->mm, &dev->dm,
				 dev->counters, client->owner, &dev->gone);
	if (rc)
		goto err_scratch;

	kref_get(&dev->ref);
	mutex_lock(&dev->clients_lock);
	list_add(&client->node, &dev->clients);
	mutex_unlock(&dev->clients_lock);
	return client;

err_scratch:
	hmm_ref_scratch_exit(&client->scratch);
err_owner:
	hmm_ref_owner_put(client->owner, 1);
err_free:
	kfree(client);
	return ERR_PTR(rc);
}

/**
 * hmm_ref_client_close() - close a client
 * @client: client of a file that is released
 *
 * The client's pages stay on the device: processes that map them may still need
 * them.
 */
void hmm_ref_client_close(struct hmm_ref_client *client)
{
	struct hmm_ref_device *dev = client->dev;

	/* While the client is listed, removal of the device waits for this. */
	hmm_ref_mirror_zap_all(&client->mirror);
	mutex_lock(&dev->clients_lock);
	list_del(&client->node);
	mutex_unlock(&dev->clients_lock);
	hmm_ref_mirror_exit(&client->mirror);
	hmm_ref_scratch_exit(&client->scratch);
	hmm_ref_owner_put(client->owner, 1);
	kfree(client);
	hmm_ref_device_put(dev);
}

/**
 * hmm_ref_clients_zap() - unmap all memory of all clients from a device
 * @dev: device
 *
 * Context: may sleep. A later device fault maps pages again, unless it is
 * refused.
 */
void hmm_ref_clients_zap(struct hmm_ref_device *dev)
{
	struct hmm_ref_client *client;

	mutex_lock(&dev->clients_lock);
	list_for_each_entry(client, &dev->clients, node)
		hmm_ref_mirror_zap_all(&client->mirror);
	mutex_unlock(&dev->clients_lock);
}

/**
 * hmm_ref_check_range() - validate a range from user space
 * @addr: user address
 * @length: bytes
 * @align: required alignment of @addr and @length, in bytes
 *
 * Return: 0; or -EINVAL, -EOVERFLOW or -EFAULT, as in the uapi.
 */
int hmm_ref_check_range(u64 addr, u64 length, unsigned int align)
{
	u64 end;

	if (!length || !IS_ALIGNED(addr | length, align))
		return -EINVAL;
	if (check_add_overflow(addr, length, &end) || end > ULONG_MAX)
		return -EOVERFLOW;
	if (!access_ok((void __user *)(unsigned long)addr, length))
		return -EFAULT;
	return 0;
}
