/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * hmm_ref: a reference driver for device-private memory. This header is the
 * map.
 *
 * The layers, highest first, each after the header that declares its functions:
 *
 *   device.h    main.c, gpu/sim.c, pci.c    the module; devices on their buses
 *               device.c, sleep.c, node.c   probe, removal and system sleep of
 *                                           a device; its character devices
 *   hmm_ref.h   ioctl.c, debugfs.c, tests/dmirror.c
 *                                           user interfaces
 *               access.c                    loads, stores and atomics of the
 *                                           device on a process's memory
 *               stats.c                     the counters of all layers
 *               memory_failure.c            device memory that has failed
 *               client.c                    a process that uses a device
 *   migrate.h   migrate_cmd.c, migrate_fault.c, migrate_evict.c
 *                                           which pages move, and when
 *               migrate.c, migrate_device.c, migrate_system.c
 *                                           how a migration works
 *   mirror.h    exclusive.c                 exclusive access, for atomics
 *               snapshot.c                  where the pages of a process are
 *               range_fault.c, range_map.c, mirror.c, absent.c
 *                                           page faults of the device, and what
 *                                           it maps
 *   devmem.h    reserve.c                   pages promised to migrations
 *               chunk.c, shrink.c, audit.c  adding, removing and checking pages
 *               devmem.c, devmem_large.c    the life of a device page
 *   hw.h        job.c                       the seam: what the driver asks of
 *                                           the hardware
 *   gpu/gpu.h   gpu/engine.c, lsu.c, mmu.c, vram.c
 *                                           the hardware, simulated
 *   pgtable.h   pgtable.c                   the device's page table
 *   base.h      compat/                     older kernels, and bugs of the core
 *
 * Calls go down, or sideways within a layer. The exceptions: any layer may look
 * up or put a device (device.c), tests/dmirror.c adds character devices
 * (node.c), and job.c reports a lost device (chunk.c). The hardware walks the
 * page table by the callback hmm_ref_space::walk.
 *
 * The kernel enters the driver through files (device.c), ioctls (ioctl.c), CPU
 * faults on device pages (migrate_fault.c), changes of CPU mappings (mirror.c),
 * the last reference of a device page (devmem.c), reclaim (shrink.c), memory
 * failure (memory_failure.c), and system sleep (sleep.c).
 *
 * Only the files of device.h and hmm_ref.h know of struct file, user pointers
 * and the uapi. The layers below take addresses and structs of their own.
 *
 * Outside the layers: fault_around.c predicts which neighbours a CPU fault
 * moves back, sanity.c checks invariants, fail.c injects faults, and trace.h
 * defines the tracepoints.
 *
 * Vocabulary
 *
 *   sys_page    page of system memory
 *   dev_page    page of device memory (ZONE_DEVICE): private, which only the
 *               device can access, or coherent, which the CPU can also access
 *   large       of a folio: one block, mapped by one PMD. All other folios are
 *               single pages
 *   src_, dst_  the arrays of struct migrate_vma, nothing else
 *   addr        user virtual address; [start, end) with end exclusive
 *   dpfn        device page number: a page's address on the device, in pages
 *   block       PMD_SIZE of device memory: the unit of eviction, and of a large
 *               folio
 *   chunk       the array of blocks that one dev_pagemap adds
 *   range       PMD_SIZE of user addresses, aligned, with a notifier and a page
 *               table of their own
 *   window      the part of a range that a command works on at a time
 *   device      as the subject of a verb: the hardware, simulated or not
 *
 * Lifetimes
 *
 *   object          created by       pinned by              freed after
 *   hmm_ref_device  probe            bound driver, nodes,   the last of these
 *                                    open files
 *   hmm_ref_client  open             the file               release
 *   hmm_ref_owner   open             the client, pages      the last page is
 *                                    handed out for it      free
 *   hmm_ref_range   first use        entries, operations    a second without
 *                                                           either; release
 *   hmm_ref_chunk   a reservation    its users              the shrinker, or
 *                   that must grow                          unbind
 *                   the device
 *
 * A device page points to its owner and to nothing else: the file, the mm and
 * the VMA that it came from may all be gone while a forked child still maps it.
 *
 * Lock order, outermost first
 *
 *   hmm_ref_device::unplug (SRCU) an operation; removal waits for it. A peer's
 *                                 nests inside the device's and migrate_lock,
 *                                 see migrate_cmd.c
 *   hmm_ref_client::migrate_lock  one migration per client
 *   hmm_ref_devmem::room_lock     one task makes room
 *   hmm_ref_device::evict_lock    one eviction per device
 *   hmm_ref_devmem::grow_lock     one task adds or removes chunks
 *   mm->mmap_lock                 for read, from VMA lookup to finalize
 *   folio locks, PTL              the core's
 *   hmm_ref_range::lock           device page table of a range; taken in
 *                                 reclaim, so nothing is allocated under it
 *   hmm_ref_block::lock           free map; irqsave, folio_free takes it
 *   hmm_ref_devmem::lock          lists of blocks, reservations; irqsave, leaf
 *
 * hmm_ref_device::clients_lock nests outside hmm_ref_range::lock, and inside
 * nothing.
 */
#ifndef _HMM_REF_H
#define _HMM_REF_H

#include <linux/uio.h>

#include "device.h"
#include "migrate.h"
#include "mirror.h"

/* ---- client.c: a process that uses a device ------------------------------ */

struct hmm_ref_client *hmm_ref_client_open(struct hmm_ref_device *dev);
void hmm_ref_client_close(struct hmm_ref_client *client);
void hmm_ref_clients_zap(struct hmm_ref_device *dev);
int hmm_ref_check_range(u64 addr, u64 length, unsigned int align);

/* ---- access.c: loads, stores and atomics of the device ------------------- */

/**
 * struct hmm_ref_transfer - bytes of a process that the device loads or stores
 * @addr: first byte
 * @end: end of the range, exclusive
 * @iter: other side of the transfer, advanced by it; a source for stores
 * @bytes: out: bytes transferred
 * @faults: out: device faults taken
 * @most: out: largest number of device faults taken for any one page
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

/* ---- stats.c ------------------------------------------------------------- */

struct hmm_ref_stats;
struct seq_file;

void hmm_ref_device_stats(struct hmm_ref_device *dev,
			  struct hmm_ref_stats *stats);
void hmm_ref_client_show_fdinfo(struct seq_file *m,
				const struct hmm_ref_client *client);

/* ---- memory_failure.c ---------------------------------------------------- */

int hmm_ref_memory_failure(struct dev_pagemap *pagemap, unsigned long pfn,
			   unsigned long nr_pages, int flags);

/* ---- ioctl.c: the native user interface ---------------------------------- */

struct file;

long hmm_ref_ioctl(struct file *file, unsigned int number, unsigned long arg);

#endif /* _HMM_REF_H */
