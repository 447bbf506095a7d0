/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * hmm_ref: reference driver for device-private memory. This header is the map.
 *
 * Layers, the highest first. Calls go down only.
 *
 *   device.h    main.c, gpu/sim.c, pci.c
 *                                    the module, and devices on their bus
 *               device.c, sleep.c, node.c
 *                                    a device: how it comes and goes, and sleeps, and its files
 *   hmm_ref.h   ioctl.c, tests/dmirror.c, debugfs.c
 *                                    requests of the user
 *               access.c             what the device does with a process's memory
 *               stats.c              what all layers have counted
 *               client.c             processes that use a device
 *               memory_failure.c     memory that fails under them
 *   migrate.h   migrate_cmd.c, migrate_fault.c, migrate_evict.c
 *                                    which pages move, and when
 *               migrate.c, migrate_device.c, migrate_system.c
 *                                    how pages move
 *   mirror.h    exclusive.c          what the device has to itself
 *               snapshot.c           what is where
 *               range_fault.c, range_map.c, absent.c, mirror.c
 *                                    how it gets to see it
 *   devmem.h    reserve.c            device pages that are promised
 *               chunk.c, audit.c     how many device pages there are, in what state
 *               devmem.c, devmem_large.c
 *                                    the life of a device page
 *   hw.h        job.c                what the core asks of a device
 *   gpu/gpu.h   gpu/engine.c, gpu/lsu.c, gpu/mmu.c, gpu/vram.c
 *                                    a device: what hardware would do
 *   pgtable.h   pgtable.c            the device's page table
 *   base.h      compat/              the kernel as it should be
 *
 * Files, user pointers and structs of the uapi end in the files of hmm_ref.h and device.h but for
 * memory_failure.c: what is below takes addresses and structs of its own.
 *
 * Beside them: fault_around.c predicts which neighbours a CPU fault should bring along, sanity.c
 * checks the rules, fail.c injects faults, trace.h has the tracepoints.
 *
 * Vocabulary
 *
 *   sys_page    page of system memory
 *   dev_page    page of device memory (ZONE_DEVICE): private, which only the device
 *               can access, or coherent, which the CPU can access as well
 *   large       a folio of one block, mapped by one PMD; all others are one page
 *   src_, dst_  the arrays of migrate_vma, nothing else
 *   addr        user virtual address; [start, end) with end exclusive
 *   dpfn        device page number: a page's address on the device, in pages
 *   block       PMD_SIZE of device memory: unit of eviction and recombination
 *   chunk       what one dev_pagemap adds: an array of blocks
 *   window      at most a block's worth of user addresses, handled at a time
 *   range       the block of user addresses that has a notifier and a page table
 *   device      as a verb's subject: the (simulated) hardware
 *
 * Lifetimes
 *
 *   object          made by          kept by                         freed after
 *   hmm_ref_device  probe            bound driver, open files        last of these
 *   hmm_ref_client  open             the file                        release
 *   hmm_ref_owner   open             the client, each page handed    last page is
 *                                    out for it                      free
 *   hmm_ref_range   first use        what it maps, operations        a second of neither;
 *                                                                    release
 *   hmm_ref_chunk   reserve, slowly  its users                       none left: shrinker;
 *                                                                    unbind
 *
 * A device page points at its owner and at nothing else: the file, the mm and
 * the VMA of the process that brought it here may all be gone while a forked
 * child still maps it.
 *
 * Lock order, outermost first
 *
 *   hmm_ref_device::unplug (SRCU) an operation runs; remove() waits for it. A peer's is inside
 *                                 that, and migrate_lock; see migrate_cmd.c
 *   hmm_ref_client::migrate_lock  one migration per client
 *   hmm_ref_devmem::room_lock     one task makes room
 *   hmm_ref_device::evict_lock    one eviction per device
 *   hmm_ref_devmem::grow_lock     one grower
 *   mm->mmap_lock                 read, VMA lookup to finalize
 *   folio locks, PTL              the core's
 *   hmm_ref_range::lock           page table of the device, a PMD of it; taken in reclaim, so
 *                                 nothing is allocated under it
 *   hmm_ref_block::lock           free map; irqsave, taken by folio_free
 *   hmm_ref_devmem::lock          lists of blocks, reservations; irqsave, leaf
 *
 * hmm_ref_device::clients_lock is taken alone around hmm_ref_range::lock.
 */
#ifndef _HMM_REF_H
#define _HMM_REF_H

#include <linux/uio.h>

#include "device.h"
#include "migrate.h"
#include "mirror.h"

/* ---- client.c: processes that use a device ------------------------------ */

struct hmm_ref_client *hmm_ref_client_open(struct hmm_ref_device *dev);
void hmm_ref_client_close(struct hmm_ref_client *client);
void hmm_ref_clients_zap(struct hmm_ref_device *dev);
int hmm_ref_check_range(u64 addr, u64 length, unsigned int align);

/* ---- access.c: what the device does with a process's memory ------------- */

/**
 * struct hmm_ref_transfer - bytes of a process that the device loads or stores
 * @addr: of the first one
 * @end: of the range
 * @iter: the other side, which moves on; a source when the device stores
 * @bytes: how many it was
 * @faults: device faults that it took
 * @most: device faults of the page that needed the most
 */
struct hmm_ref_transfer {
	unsigned long addr;
	unsigned long end;
	struct iov_iter iter;
	u64 bytes;
	u64 faults;
	u64 most;
};

int hmm_ref_client_access(struct hmm_ref_client *client,
			  struct hmm_ref_transfer *transfer);
int hmm_ref_client_atomic(struct hmm_ref_client *client, unsigned long addr,
			  struct hmm_ref_word *word, u64 *faults);

/* ---- stats.c ----------------------------------------------------------- */

struct hmm_ref_stats;
struct seq_file;

void hmm_ref_device_stats(struct hmm_ref_device *dev,
			  struct hmm_ref_stats *stats);
void hmm_ref_client_show_fdinfo(struct seq_file *m,
				const struct hmm_ref_client *client);

/* ---- memory_failure.c ---------------------------------------------------- */

int hmm_ref_memory_failure(struct dev_pagemap *pagemap, unsigned long pfn,
			   unsigned long nr_pages, int flags);

/* ---- ioctl.c: requests ------------------------------------------------- */

struct file;

long hmm_ref_ioctl(struct file *file, unsigned int number, unsigned long arg);

#endif /* _HMM_REF_H */
