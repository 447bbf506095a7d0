/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Devices: what one is made of, how it comes and goes, and the buses that it is on.
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
 * @device: in sysfs; has a reference per file that is open
 * @cdev: for the files
 * @dev: that it is of, referenced
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
 * @index: by which other devices find it as long as it is bound; 0 before
 * @name: of the character device and the debugfs folder
 * @unplug: an operation that has found @gone unset runs to its end
 * @gone: unbound; set once, read under @unplug
 * @unplug_rcu: for the end of the operations
 * @unused: that has come
 * @finish: frees what is left when no page is used any more
 * @keeps_module: until then, by a reference
 * @fault_around: most pages that a CPU fault brings back; knob
 * @around: how many these are, from experience
 * @dm: its memory
 * @counters: totals
 * @evict_lock: covers @evict_scratch; killable
 * @evict_scratch: scratch memory of eviction
 * @last_room: when a page has last come free for a task that waits, in jiffies; covered by
 *	hmm_ref_devmem::room_lock
 * @clients_lock: covers @clients
 * @clients: open files
 * @node: character device
 * @dmirror: the same for the old interface, if @has_dmirror
 * @has_dmirror: it has one
 * @debugfs: folder
 * @sleep: in the PM notifier chain; called by KUnit, too
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
 * struct hmm_ref_device_params - what a device is like
 * @hw: hardware, which outlives the device
 * @id: number of the device
 * @index: its number among those of its kind of memory
 * @large: keep large folios whole, where the core can
 * @fault_around: pages that a CPU fault brings back at most
 * @coherent_base: physical address of memory that the CPU can access; 0 for private memory
 * @capacity: bytes, a multiple of PMD_SIZE
 * @chunk_size: bytes that private memory grows by
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

/* ---- sleep.c: the system sleeps ----------------------------------------- */

extern const struct dev_pm_ops hmm_ref_pm_ops;

int hmm_ref_sleep_init(struct hmm_ref_device *dev);
void hmm_ref_sleep_exit(struct hmm_ref_device *dev);

/* ---- main.c, gpu/sim.c: the module, and simulated devices --------------- */

#define HMM_REF_MAX_CHUNK_SIZE	(64ULL * SZ_1G)	/* its blocks are one allocation */

struct kernel_param_ops;

extern struct hmm_ref_device_params hmm_ref_device_params; /* module parameters */
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

/* ---- tests/dmirror.c, debugfs.c: what else a device has ----------------- */

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
