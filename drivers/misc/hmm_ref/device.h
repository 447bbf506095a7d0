/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Devices: their state, their probe and removal, and their buses.
 */
#ifndef _HMM_REF_DEVICE_H
#define _HMM_REF_DEVICE_H

#include <linux/cdev.h>
#include <linux/completion.h>
#include <linux/device.h>
#include <linux/kref.h>
#include <linux/list.h>
#include <linux/mutex.h>
#include <linux/notifier.h>
#include <linux/percpu.h>
#include <linux/sizes.h>
#include <linux/srcu.h>
#include <linux/workqueue.h>

#include "counters.h"
#include "devmem.h"
#include "migrate.h"

struct dentry;
struct hmm_ref_around;

/* ---- node.c: character devices ----------------------------------------- */

struct file_operations;
struct hmm_ref_device;
struct inode;

/**
 * struct hmm_ref_node - a character device
 * @device: device in sysfs; each open file holds a reference
 * @cdev: character device
 * @dev: device that it belongs to, referenced
 */
struct hmm_ref_node {
	struct device device;
	struct cdev cdev;
	struct hmm_ref_device *dev;
};

int hmm_ref_node_add(struct hmm_ref_node *node, struct hmm_ref_device *dev,
		     struct device *parent, const char *name,
		     const struct file_operations *fops);
void hmm_ref_node_remove(struct hmm_ref_node *node);
struct hmm_ref_device *hmm_ref_node_device(struct inode *inode);
int hmm_ref_node_init(void);
void hmm_ref_node_exit(void);

/* ---- device.c: devices ------------------------------------------------- */

/**
 * struct hmm_ref_device - one /dev/hmm_refN
 * @ref: one for the bound driver, one per character device, one per open file
 * @index: key by which other devices find this one while it is bound; 0 before
 * @name: name of the character device and of the debugfs folder
 * @unplug: SRCU section of an operation, which runs to its end if it finds
 *	@gone unset
 * @gone: unbound; set once, read under @unplug
 * @unplug_rcu: callback for the end of the last operation
 * @unused: completed when the last operation has ended
 * @finish: frees the remains of a device when its last page is free
 * @keeps_module: @finish holds a reference to the module
 * @fault_around: maximum number of pages that a CPU fault moves back; a knob
 * @around: predictor of how many these should be
 * @dm: device memory
 * @counters: totals
 * @evict_lock: covers @evict_scratch; killable
 * @evict_scratch: scratch memory of eviction
 * @last_room: when a page last came free for a task that waits for room, in
 *	jiffies; covered by hmm_ref_devmem::room_lock
 * @clients_lock: covers @clients
 * @clients: clients, one per open file
 * @node: character device
 * @dmirror: character device of the old interface, if @has_dmirror
 * @has_dmirror: the device has the old interface
 * @debugfs: debugfs folder
 * @sleep: entry in the PM notifier chain; KUnit calls it, too
 */
struct hmm_ref_device {
	struct kref ref;
	u32 index;
	char name[16];
	struct srcu_struct unplug;
	bool gone;
	struct rcu_head unplug_rcu;
	struct completion unused;
	struct delayed_work finish;
	bool keeps_module;
	u32 fault_around;
	struct hmm_ref_around __percpu *around;
	struct hmm_ref_devmem dm;
	struct hmm_ref_counters __percpu *counters;
	struct mutex evict_lock;	/* evict_scratch */
	struct hmm_ref_scratch evict_scratch;
	unsigned long last_room;
	struct mutex clients_lock;	/* list of clients */
	struct list_head clients;
	struct hmm_ref_node node;
	struct hmm_ref_node dmirror;
	bool has_dmirror;
	struct dentry *debugfs;
	struct notifier_block sleep;
};

/**
 * struct hmm_ref_device_params - properties of a device
 * @hw: hardware, which outlives the device
 * @id: number of the device
 * @index: number among the devices with the same kind of memory
 * @large: keep large folios whole, where the core can
 * @fault_around: maximum number of pages that a CPU fault moves back
 * @coherent_base: physical address of memory that the CPU can access; 0 for
 *	private memory
 * @capacity: bytes, a multiple of PMD_SIZE
 * @chunk_size: bytes by which private memory grows
 */
struct hmm_ref_device_params {
	struct hmm_ref_hw *hw;
	unsigned int id;
	unsigned int index;
	bool large;
	unsigned int fault_around;
	phys_addr_t coherent_base;
	u64 capacity;
	u64 chunk_size;
};

extern struct workqueue_struct *hmm_ref_workqueue;
extern const struct dev_pagemap_ops hmm_ref_pagemap_ops;

struct hmm_ref_device *
hmm_ref_device_add(struct device *parent,
		   const struct hmm_ref_device_params *params);
void hmm_ref_device_remove(struct hmm_ref_device *dev);
void hmm_ref_device_put(struct hmm_ref_device *dev);
struct hmm_ref_device *hmm_ref_device_next(unsigned long *index);
void hmm_ref_devices_finish(void);

/* ---- sleep.c: system sleep ---------------------------------------------- */

extern const struct dev_pm_ops hmm_ref_pm_ops;

int hmm_ref_sleep_init(struct hmm_ref_device *dev);
void hmm_ref_sleep_exit(struct hmm_ref_device *dev);

/* ---- main.c, gpu/sim.c: the module, and simulated devices --------------- */

/* The blocks of a chunk are one allocation. */
#define HMM_REF_MAX_CHUNK_SIZE	(64ULL * SZ_1G)

struct kernel_param_ops;

/* module parameters */
extern struct hmm_ref_device_params hmm_ref_device_params;
extern const struct kernel_param_ops hmm_ref_param_size_ops;

int hmm_ref_sim_init(void);
void hmm_ref_sim_exit(void);
void hmm_ref_sim_number_others(struct hmm_ref_device_params *params,
			       unsigned int index);

/* ---- pci.c: devices on PCI --------------------------------------------- */

#ifdef CONFIG_PCI
int hmm_ref_pci_init(void);
void hmm_ref_pci_exit(void);
#else
static inline int hmm_ref_pci_init(void)
{
	return 0;
}

static inline void hmm_ref_pci_exit(void)
{
}
#endif

/* ---- tests/dmirror.c, debugfs.c: test interfaces of a device ------------ */

#ifdef CONFIG_HMM_REF_DMIRROR
int hmm_ref_dmirror_check(void);
int hmm_ref_dmirror_add(struct hmm_ref_device *dev, unsigned int index);
void hmm_ref_dmirror_remove(struct hmm_ref_device *dev);
#else
static inline int hmm_ref_dmirror_check(void)
{
	return 0;
}

static inline int hmm_ref_dmirror_add(struct hmm_ref_device *dev,
				      unsigned int index)
{
	return 0;
}

static inline void hmm_ref_dmirror_remove(struct hmm_ref_device *dev)
{
}
#endif

void hmm_ref_debugfs_init(void);
void hmm_ref_debugfs_exit(void);
void hmm_ref_debugfs_add(struct hmm_ref_device *dev);
void hmm_ref_debugfs_remove(struct hmm_ref_device *dev);

#endif /* _HMM_REF_DEVICE_H */
