/* SPDX-License-Identifier: GPL-2.0-only WITH Linux-syscall-note */
/*
 * hmm_ref: reference driver for device-private memory, userspace interface.
 */
#ifndef _UAPI_HMM_REF_H
#define _UAPI_HMM_REF_H

#include <linux/ioctl.h>
#include <linux/types.h>

/**
 * DOC: hmm_ref ioctl conventions
 *
 * Every ioctl takes one struct. Its first member, ``size``, is set by user space
 * to the sizeof() the structure that it was compiled with; the command number does not
 * encode it, so structs can grow. ``flags`` and ``__reserved`` members must be 0
 * unless a bit is documented. Members called ``out_*`` are written by the kernel;
 * they are written also when an error is returned, so partial progress is always
 * reported.
 *
 * Zero the whole struct before filling it in. What a kernel does not know must be 0,
 * or it answers E2BIG: that goes for members that were added to the struct since, out_*
 * among them. Of those that it knows, it ignores what out_* are on input. A program
 * that is compiled with a newer header thus works on an older kernel, unless it asks for
 * something new; and members that the kernel does not know stay 0. Which commands a
 * kernel knows is seen by ENOTTY, and what else it can by INFO's out_features.
 *
 * The exceptions are the errors found
 * before the command starts (ENOTTY, E2BIG, EOPNOTSUPP, EINVAL for a member,
 * EOVERFLOW, EBADF, ENODEV, and an EFAULT for a structure that cannot be read or
 * for a range that is not in user space): these change nothing, the structure
 * included.
 *
 * An open file mirrors the address space of the process that opened it. The
 * commands that take an address range are refused in any other address space.
 * An address range is [addr, addr + length): ``addr`` a user virtual address and
 * ``length`` in bytes. All counts are in pages of the base page size, whatever
 * the size of the folios that were moved.
 *
 * The meaning of the errors is the same for all commands:
 *
 *  - ENOTTY: the command is not known.
 *  - E2BIG: the structure is larger than the kernel knows and the extra bytes are
 *    not zero, or it is larger than a page.
 *  - EOPNOTSUPP: an unknown flag is set or a reserved member is not 0.
 *  - EINVAL: a member has a bad value: ``size`` shorter than the first version of
 *    the struct, a length of 0, an unaligned range where alignment is required,
 *    an unknown direction or operation; or a mapping that the command is never
 *    possible in (MIGRATE: hugetlb, DAX, or a device's mmap; EXCLUSIVE and ATOMIC:
 *    shared mappings and hugetlb).
 *  - EOVERFLOW: addr + length wraps around.
 *  - EFAULT: the range is outside of user space, not mapped, or of a kind that
 *    a device cannot access; or a pointer could not be read or written. That the struct
 *    can be written is found out before the command starts. If it cannot be any more
 *    when the command has ended, what that has done cannot be told.
 *  - EPERM: a device write to memory that the process may not write, or to a shadow
 *    stack; EXCLUSIVE and ATOMIC count as writes.
 *  - EBADF: the file belongs to another address space.
 *  - ENODEV: the device is gone (unbound). The file only can be closed. A command
 *    that was under way then ends with it, and its outputs are true.
 *  - ENOMEM: no memory for the operation, in the system or on the device; or nothing may come
 *    to the device, as the system is about to sleep.
 *  - EBUSY: the range kept changing for longer than the driver waits (about 3 s
 *    for a page).
 *  - EINTR: a signal ended the command, after at least a window of a block's size or a
 *    tenth of a second. The counts are true: call again with the rest of the range. A
 *    command that has done nothing, as it waits for another thread's, starts again by
 *    itself where SA_RESTART asks for that.
 *  - EAGAIN: the device has no room for copies now. The counts are true: call again with the
 *    rest of the range.
 *  - EIO: the copy engine failed, and the data of the page is where it was; or memory of
 *    the device has failed, and the data of the page is lost.
 */

#define HMM_REF_IOC_TYPE	0xB9

enum {
	HMM_REF_CMD_INFO	= 0x00,
	HMM_REF_CMD_MIGRATE	= 0x01,
	HMM_REF_CMD_READ	= 0x02,
	HMM_REF_CMD_WRITE	= 0x03,
	HMM_REF_CMD_SNAPSHOT	= 0x04,
	HMM_REF_CMD_STATS	= 0x05,
	HMM_REF_CMD_AUDIT	= 0x06,
	HMM_REF_CMD_EXCLUSIVE	= 0x07,
	HMM_REF_CMD_ATOMIC	= 0x08,
	HMM_REF_CMD_EVICT	= 0x09,
	HMM_REF_CMD_EVICT_ALL	= 0x0a,
};

/**
 * enum hmm_ref_features - bits of out_features of INFO
 * @HMM_REF_FEATURE_LARGE: large folios stay whole on this device; out_folio_size tells
 *	how large
 * @HMM_REF_FEATURE_LARGE_SAFE: the kernel does not free a large folio that is in use when
 *	it is unmapped on its way back from the device
 * @HMM_REF_FEATURE_ELASTIC: device memory is added when it is needed, and given back when the
 *	system is short of memory
 * @HMM_REF_FEATURE_OLD_INTERFACE: the device also has a node for programs that were
 *	written for test_hmm
 * @HMM_REF_FEATURE_FAIL: steps can be made to fail, by debugfs
 * @HMM_REF_FEATURE_SANITY: the driver checks its rules as it goes
 * @HMM_REF_FEATURE_CORE_FIXED: the kernel has all fixes of the core that the driver knows of
 * @HMM_REF_FEATURE_PEERS: MIGRATE takes pages of other devices of the driver
 *
 * What is not known is 0: new bits are for what programs did not count on before.
 */
enum hmm_ref_features {
	HMM_REF_FEATURE_LARGE		= 1 << 0,
	HMM_REF_FEATURE_LARGE_SAFE	= 1 << 1,
	HMM_REF_FEATURE_ELASTIC		= 1 << 2,
	HMM_REF_FEATURE_OLD_INTERFACE	= 1 << 3,
	HMM_REF_FEATURE_FAIL		= 1 << 4,
	HMM_REF_FEATURE_SANITY		= 1 << 5,
	HMM_REF_FEATURE_CORE_FIXED	= 1 << 6,
	HMM_REF_FEATURE_PEERS		= 1 << 7,
};

/**
 * struct hmm_ref_info - ioctl(HMM_REF_IOC_INFO)
 * @size: sizeof(struct hmm_ref_info)
 * @flags: must be 0
 * @out_page_size: base page size in bytes, the unit of all counts
 * @out_memory_type: one of enum hmm_ref_memory_type
 * @out_block_size: bytes in a block, the unit of eviction
 * @out_chunk_size: bytes that the device adds at a time (one dev_pagemap)
 * @out_capacity: bytes of device memory at the most
 * @out_folio_size: bytes of the largest folio that stays whole on the device; the page
 *	size where there are only single pages
 * @out_features: HMM_REF_FEATURE_* bits, of the kernel and of the device
 *
 * Constants of the device. Allowed from any address space.
 */
struct hmm_ref_info {
	__u32 size;
	__u32 flags;
	__u32 out_page_size;
	__u32 out_memory_type;
	__aligned_u64 out_block_size;
	__aligned_u64 out_chunk_size;
	__aligned_u64 out_capacity;
	__aligned_u64 out_folio_size;
	__aligned_u64 out_features;
};

#define HMM_REF_IOC_INFO _IO(HMM_REF_IOC_TYPE, HMM_REF_CMD_INFO)

/**
 * enum hmm_ref_memory_type - kind of device memory
 * @HMM_REF_MEMORY_PRIVATE: the CPU cannot access it; a CPU touch brings the page
 *	back to system memory
 * @HMM_REF_MEMORY_COHERENT: the CPU accesses it like its own; a page stays until it
 *	is migrated
 */
enum hmm_ref_memory_type {
	HMM_REF_MEMORY_PRIVATE = 1,
	HMM_REF_MEMORY_COHERENT = 2,
};

/**
 * enum hmm_ref_direction - where MIGRATE moves pages
 * @HMM_REF_TO_DEVICE: to the device: from system memory, and from other devices of the driver
 * @HMM_REF_TO_SYSTEM: from the device to system memory
 */
enum hmm_ref_direction {
	HMM_REF_TO_DEVICE = 1,
	HMM_REF_TO_SYSTEM = 2,
};

/**
 * define HMM_REF_MIGRATE_MAP - flag of MIGRATE to the device: map, too
 *
 * Then maps for the device what the CPU maps in the range, on the device or not, as READ
 * would, but without faulting anything in: what keeps changing, or is not there, stays
 * unmapped until the device accesses it.
 */
#define HMM_REF_MIGRATE_MAP	(1U << 0)

/**
 * struct hmm_ref_migrate - ioctl(HMM_REF_IOC_MIGRATE)
 * @size: sizeof(struct hmm_ref_migrate)
 * @flags: 0 or HMM_REF_MIGRATE_MAP, which is only valid with TO_DEVICE
 * @direction: one of enum hmm_ref_direction
 * @__reserved: must be 0
 * @addr: start of the range, page aligned
 * @length: bytes, a multiple of the page size, not 0
 * @out_migrated: pages moved by this call, filled holes included
 * @out_already: pages that needed no move: TO_DEVICE, already on this device;
 *	TO_SYSTEM, not on this device (holes too)
 * @out_skipped: pages that could not be moved: shared file pages, pages that KSM
 *	has merged or may merge (MADV_MERGEABLE), pinned or swapped-out pages,
 *	pages that a device has exclusive access to, pages of another driver's device,
 *	holes that userfaultfd waits for or may have write-protected, the zero page
 *	too, pages that the next access of traps, pages in use by someone else each time
 *	they were tried; TO_DEVICE, all pages of a mapping without read permission;
 *	TO_SYSTEM, all of those that did not move
 *
 * Migration is best effort: success means that every page was tried. On success
 * the three counts add up to the pages of the range; after an error they add
 * up to the pages looked at before it, counted from @addr.
 *
 * To the device, a hole in an anonymous mapping and the zero page become a cleared
 * device page. File and shmem pages stay; a private copy of a file page moves.
 * A page of another device of this driver moves as one in system memory does; a huge page stays
 * one, if both devices have huge pages. Simulated devices copy directly from each other. All others
 * copy by way of system memory, with room reserved before: a page that cannot go on from there
 * stays there. Where a direct copy fails, the page stays on the other device. Pages that have left
 * a device so are in its out_to_peers of STATS.
 *
 * When the device is full the least recently filled blocks are evicted, as far as
 * that makes room for what moves. A huge page stays where it is, and the error is ENOMEM,
 * when no block of the device can be made free for it.
 */
struct hmm_ref_migrate {
	__u32 size;
	__u32 flags;
	__u32 direction;
	__u32 __reserved;
	__aligned_u64 addr;
	__aligned_u64 length;
	__aligned_u64 out_migrated;
	__aligned_u64 out_already;
	__aligned_u64 out_skipped;
};

#define HMM_REF_IOC_MIGRATE _IO(HMM_REF_IOC_TYPE, HMM_REF_CMD_MIGRATE)

/**
 * struct hmm_ref_access - ioctl(HMM_REF_IOC_READ) and ioctl(HMM_REF_IOC_WRITE)
 * @size: sizeof(struct hmm_ref_access)
 * @flags: must be 0
 * @addr: first byte that the device accesses, any alignment
 * @length: bytes, not 0
 * @buf: user pointer: READ stores the bytes here, WRITE takes them from here
 * @out_bytes: bytes transferred, counted from @addr
 * @out_faults: device page faults taken for it
 *
 * The device accesses the process's memory through the device page table. What
 * is not mapped there is faulted in as hardware would do: pages on the device
 * are accessed on the device, others in system memory. A write to a device page
 * that the CPU may not write at the moment (shared after fork, or just made
 * writable by mprotect) moves it to system memory first, as a private copy if it
 * is shared. So does a write to private memory in a mapping that a userfaultfd has
 * registered to write-protect. Nothing else migrates. @buf is accessed by the CPU. An
 * access of 1, 2, 4 or 8 bytes at a multiple of its length is a single load or store.
 */
struct hmm_ref_access {
	__u32 size;
	__u32 flags;
	__aligned_u64 addr;
	__aligned_u64 length;
	__aligned_u64 buf;
	__aligned_u64 out_bytes;
	__aligned_u64 out_faults;
};

#define HMM_REF_IOC_READ _IO(HMM_REF_IOC_TYPE, HMM_REF_CMD_READ)
#define HMM_REF_IOC_WRITE _IO(HMM_REF_IOC_TYPE, HMM_REF_CMD_WRITE)

/**
 * enum hmm_ref_page_where - where a page is
 * @HMM_REF_PAGE_NONE: no page that can be accessed without a fault; see
 *	enum hmm_ref_page_why
 * @HMM_REF_PAGE_SYSTEM: in system memory, the huge zero page included
 * @HMM_REF_PAGE_ZERO: the zero page of the base page size
 * @HMM_REF_PAGE_DEVICE: in this device's memory
 * @HMM_REF_PAGE_ERROR: not mapped, or memory that a device cannot access; see
 *	enum hmm_ref_page_why
 * @HMM_REF_PAGE_REMOTE: in another device's memory that the CPU can access
 */
enum hmm_ref_page_where {
	HMM_REF_PAGE_NONE = 0,
	HMM_REF_PAGE_SYSTEM = 1,
	HMM_REF_PAGE_ZERO = 2,
	HMM_REF_PAGE_DEVICE = 3,
	HMM_REF_PAGE_ERROR = 4,
	HMM_REF_PAGE_REMOTE = 5,
};

/**
 * enum hmm_ref_page_why - why SNAPSHOT finds no page
 * @HMM_REF_WHY_ABSENT: NONE: a hole, swapped out, on its way to or from a device or
 *	another node, private memory of another device, exclusive to another device or
 *	file, poisoned, or a marker of userfaultfd or of a guard region. Without a fault
 *	the kernel does not tell a device which of them; hugetlb included
 * @HMM_REF_WHY_TRAPPED: NONE: there is a page, but NUMA balancing or a userfaultfd
 *	wants to know of the next access. Which page is not known
 * @HMM_REF_WHY_UNMAPPED: ERROR: nothing is mapped
 * @HMM_REF_WHY_UNREADABLE: ERROR: a mapping without read permission, which is not
 *	looked into
 * @HMM_REF_WHY_SPECIAL: ERROR: memory without pages that a device could access: that of
 *	another driver, or of memfd_secret()
 *
 * 0 where there is a page.
 */
enum hmm_ref_page_why {
	HMM_REF_WHY_ABSENT = 0,
	HMM_REF_WHY_TRAPPED = 1,
	HMM_REF_WHY_UNMAPPED = 2,
	HMM_REF_WHY_UNREADABLE = 3,
	HMM_REF_WHY_SPECIAL = 4,
};

/* The CPU's entry is writable. Not set for private memory that a userfaultfd may protect. */
#define HMM_REF_PAGE_WRITE	(1 << 0)
#define HMM_REF_PAGE_MAPPED	(1 << 1) /* in the device page table */
#define HMM_REF_PAGE_DEV_WRITE	(1 << 2) /* and writable there */
#define HMM_REF_PAGE_EXCLUSIVE	(1 << 3) /* and made exclusive to the device */

/**
 * struct hmm_ref_page_state - what SNAPSHOT reports of one page
 * @where: one of enum hmm_ref_page_where
 * @flags: HMM_REF_PAGE_* bits
 * @order: the CPU maps the page by an entry of 2^order pages
 * @why: one of enum hmm_ref_page_why
 *
 * A page that is exclusive to this device, through this file, has SYSTEM and the flag.
 */
struct hmm_ref_page_state {
	__u8 where;
	__u8 flags;
	__u8 order;
	__u8 why;
};

/**
 * struct hmm_ref_snapshot - ioctl(HMM_REF_IOC_SNAPSHOT)
 * @size: sizeof(struct hmm_ref_snapshot)
 * @flags: must be 0
 * @addr: start of the range, page aligned
 * @length: bytes, a multiple of the page size, not 0
 * @buf: user pointer to an array of struct hmm_ref_page_state, one per page
 * @out_pages: array elements written, counted from @addr
 *
 * Looks at the range without faulting anything in. Each window of a block is
 * seen at one moment, the windows one after the other.
 */
struct hmm_ref_snapshot {
	__u32 size;
	__u32 flags;
	__aligned_u64 addr;
	__aligned_u64 length;
	__aligned_u64 buf;
	__aligned_u64 out_pages;
};

#define HMM_REF_IOC_SNAPSHOT _IO(HMM_REF_IOC_TYPE, HMM_REF_CMD_SNAPSHOT)

/**
 * struct hmm_ref_stats - ioctl(HMM_REF_IOC_STATS)
 * @size: sizeof(struct hmm_ref_stats)
 * @flags: must be 0
 * @out_pages_total: pages that the device has now (changes by chunks)
 * @out_pages_in_use: pages handed out and not yet given back
 * @out_pages_client: of these, the pages that this file's migrations took
 * @out_pages_retired: pages reported bad, never handed out again
 * @out_storage_pages: the same as @out_pages_total
 * @out_chunks: chunks that the device has now
 * @out_to_device: pages migrated to the device
 * @out_to_system: pages migrated to system memory by ioctl
 * @out_cpu_faults: CPU faults on pages of this device
 * @out_fault_pages: pages these faults brought back
 * @out_evicted: pages evicted
 * @out_device_faults: faults of the device on process memory
 * @out_invalidations: invalidations received from the core
 * @out_retries: device faults repeated because the range changed meanwhile
 * @out_cow_breaks: device writes that made a private copy first
 * @out_exclusive: pages of system memory made exclusive to the device
 * @out_pages_reserved: pages kept for migrations on their way, not yet handed out
 * @out_to_peers: pages that ioctls have taken to other devices, or to system memory on their way
 *	there
 *
 * Totals of the device since it was bound, but for @out_pages_client. Allowed
 * from any address space.
 */
struct hmm_ref_stats {
	__u32 size;
	__u32 flags;
	__aligned_u64 out_pages_total;
	__aligned_u64 out_pages_in_use;
	__aligned_u64 out_pages_client;
	__aligned_u64 out_pages_retired;
	__aligned_u64 out_storage_pages;
	__aligned_u64 out_chunks;
	__aligned_u64 out_to_device;
	__aligned_u64 out_to_system;
	__aligned_u64 out_cpu_faults;
	__aligned_u64 out_fault_pages;
	__aligned_u64 out_evicted;
	__aligned_u64 out_device_faults;
	__aligned_u64 out_invalidations;
	__aligned_u64 out_retries;
	__aligned_u64 out_cow_breaks;
	__aligned_u64 out_exclusive;
	__aligned_u64 out_pages_reserved;
	__aligned_u64 out_to_peers;
};

#define HMM_REF_IOC_STATS _IO(HMM_REF_IOC_TYPE, HMM_REF_CMD_STATS)

/**
 * struct hmm_ref_audit - ioctl(HMM_REF_IOC_AUDIT)
 * @size: sizeof(struct hmm_ref_audit)
 * @flags: must be 0
 * @out_total: pages of the device
 * @out_free: pages on the free map
 * @out_in_use: pages handed out, those in @out_pending included
 * @out_pending: pages taken off the free map and not yet initialised, or on their
 *	way back: reference count 0 and not free
 * @out_retired: pages reported bad
 * @out_bad_ref: violations: free page with a reference count other than 0
 * @out_bad_lock: violations: free page that is locked
 * @out_bad_map: violations: free page that is mapped or belongs to a mapping
 * @out_bad_owner: violations: free page with an owner, or used page without
 * @out_bad_both: violations: page both free and retired
 * @out_bad_count: violations: a block whose counts differ from its free map, or
 *	do not add up to its size
 * @out_violations: all of the violations; 0 on a sound driver
 *
 * Walks every page of the device, each block under its lock. Exact at any time:
 * concurrent use causes no violation. Allowed from any address space. When a signal ends
 * it (EINTR) the outputs are true of the pages that it has looked at; the next call starts
 * from the first page.
 */
struct hmm_ref_audit {
	__u32 size;
	__u32 flags;
	__aligned_u64 out_total;
	__aligned_u64 out_free;
	__aligned_u64 out_in_use;
	__aligned_u64 out_pending;
	__aligned_u64 out_retired;
	__aligned_u64 out_bad_ref;
	__aligned_u64 out_bad_lock;
	__aligned_u64 out_bad_map;
	__aligned_u64 out_bad_owner;
	__aligned_u64 out_bad_both;
	__aligned_u64 out_bad_count;
	__aligned_u64 out_violations;
};

#define HMM_REF_IOC_AUDIT _IO(HMM_REF_IOC_TYPE, HMM_REF_CMD_AUDIT)

/**
 * struct hmm_ref_exclusive - ioctl(HMM_REF_IOC_EXCLUSIVE)
 * @size: sizeof(struct hmm_ref_exclusive)
 * @flags: must be 0
 * @addr: start of the range, page aligned
 * @length: bytes, a multiple of the page size, not 0
 * @out_pages: pages that were made exclusive or needed not be, counted from @addr
 *
 * Gives the device exclusive access to pages of system memory: nobody else maps them,
 * until the next touch by a CPU, fork(), or an access by another device or through
 * another file takes the page back. Pages in the device's own memory stay there, as its
 * atomic operations work there anyway. What is missing is faulted in, for writing.
 *
 * For anonymous memory: private mappings, private copies of file pages included.
 * EINVAL in a shared mapping and for hugetlb. EPERM without write permission, EFAULT
 * where nothing is mapped or without read permission: as for WRITE. Stops at the first
 * page that fails. Kernels before 6.15 can do of a large folio no page but the first:
 * EBUSY.
 */
struct hmm_ref_exclusive {
	__u32 size;
	__u32 flags;
	__aligned_u64 addr;
	__aligned_u64 length;
	__aligned_u64 out_pages;
};

#define HMM_REF_IOC_EXCLUSIVE _IO(HMM_REF_IOC_TYPE, HMM_REF_CMD_EXCLUSIVE)

/**
 * enum hmm_ref_atomic_op - what ATOMIC does with the value in memory
 * @HMM_REF_ATOMIC_ADD: add the operand, modulo the width
 * @HMM_REF_ATOMIC_EXCHANGE: store the operand
 * @HMM_REF_ATOMIC_COMPARE_EXCHANGE: store the operand if the value is that to compare
 *	with
 */
enum hmm_ref_atomic_op {
	HMM_REF_ATOMIC_ADD = 1,
	HMM_REF_ATOMIC_EXCHANGE = 2,
	HMM_REF_ATOMIC_COMPARE_EXCHANGE = 3,
};

/**
 * struct hmm_ref_atomic - ioctl(HMM_REF_IOC_ATOMIC)
 * @size: sizeof(struct hmm_ref_atomic)
 * @flags: must be 0
 * @op: one of enum hmm_ref_atomic_op
 * @__reserved: must be 0
 * @addr: of the value, a multiple of @length
 * @length: its bytes: 4 or 8
 * @operand: at most @length bytes
 * @compare: at most @length bytes; 0 but for COMPARE_EXCHANGE
 * @out_old: what the value was before; valid on success only
 * @out_faults: device page faults taken for it
 *
 * One operation of the device on the process's memory, in the byte order of the CPU,
 * atomic with respect to CPUs and all devices. A page in system memory is made exclusive
 * first, as EXCLUSIVE does, with the same errors; also for a comparison that then
 * stores nothing. CPU and devices may contend for the page: it goes to and fro.
 */
struct hmm_ref_atomic {
	__u32 size;
	__u32 flags;
	__u32 op;
	__u32 __reserved;
	__aligned_u64 addr;
	__aligned_u64 length;
	__aligned_u64 operand;
	__aligned_u64 compare;
	__aligned_u64 out_old;
	__aligned_u64 out_faults;
};

#define HMM_REF_IOC_ATOMIC _IO(HMM_REF_IOC_TYPE, HMM_REF_CMD_ATOMIC)

/**
 * struct hmm_ref_evict - ioctl(HMM_REF_IOC_EVICT)
 * @size: sizeof(struct hmm_ref_evict)
 * @flags: must be 0
 * @addr: start of the range, page aligned
 * @length: bytes, a multiple of the page size, not 0
 * @out_evicted: pages that have left the device
 * @out_already: pages that were not on this device, or where nothing is mapped, or in a
 *	mapping that cannot be read, which is not looked at
 * @out_skipped: pages that are still on it: in use by someone else each time they were
 *	tried, or pinned
 *
 * Has the device evict the pages of a range, as it does when it is full: page by page of
 * the device, wherever processes map them. MIGRATE to the system goes by the process's
 * addresses instead. A large folio may leave as a whole when the range has a part of it.
 * Best effort; the three counts add up as those of MIGRATE do.
 *
 * A test interface: nothing but time depends on eviction.
 */
struct hmm_ref_evict {
	__u32 size;
	__u32 flags;
	__aligned_u64 addr;
	__aligned_u64 length;
	__aligned_u64 out_evicted;
	__aligned_u64 out_already;
	__aligned_u64 out_skipped;
};

#define HMM_REF_IOC_EVICT _IO(HMM_REF_IOC_TYPE, HMM_REF_CMD_EVICT)

/**
 * struct hmm_ref_evict_all - ioctl(HMM_REF_IOC_EVICT_ALL)
 * @size: sizeof(struct hmm_ref_evict_all)
 * @flags: must be 0
 * @out_evicted: pages that have left the device
 * @out_skipped: pages that are still on it
 *
 * The same for all pages that this file's migrations have taken (out_pages_client of
 * STATS), whichever process maps them. Allowed from any address space.
 */
struct hmm_ref_evict_all {
	__u32 size;
	__u32 flags;
	__aligned_u64 out_evicted;
	__aligned_u64 out_skipped;
};

#define HMM_REF_IOC_EVICT_ALL _IO(HMM_REF_IOC_TYPE, HMM_REF_CMD_EVICT_ALL)

#endif /* _UAPI_HMM_REF_H */
