/* SPDX-License-Identifier: GPL-2.0-only WITH Linux-syscall-note */
/*
 * hmm_ref: reference driver for device-private memory, user space interface.
 */
#ifndef _UAPI_HMM_REF_H
#define _UAPI_HMM_REF_H

#include <linux/ioctl.h>
#include <linux/types.h>

/**
 * DOC: hmm_ref ioctl conventions
 *
 * Every ioctl takes one struct. User space sets its first member, ``size``, to
 * the sizeof() of the struct that it was compiled with. The command number does
 * not encode the size, so structs can grow. ``flags`` and ``__reserved``
 * members must be 0, apart from documented bits. The kernel writes the
 * ``out_*`` members, also when it returns an error, so that partial progress is
 * always reported.
 *
 * Zero the whole struct before filling it in. A kernel ignores the ``out_*``
 * members that it knows on input. Any member that it does not know, ``out_*``
 * included, must be 0, or the ioctl fails with E2BIG; the kernel leaves it 0. A
 * program that is compiled with a newer header therefore works on an older
 * kernel, unless it asks for something new. ENOTTY shows which commands a
 * kernel lacks, and ``out_features`` of INFO shows its other features.
 *
 * Errors that are found before the command starts change nothing, not even the
 * struct: ENOTTY, E2BIG, EOPNOTSUPP, EINVAL for a member, EOVERFLOW, EBADF,
 * ENODEV, and EFAULT for a struct that cannot be read or a range outside of
 * user space.
 *
 * An open file mirrors the address space of the process that opened it.
 * Commands with an address range are refused in any other address space. An
 * address range is [addr, addr + length): ``addr`` is a user virtual address
 * and ``length`` is in bytes. All counts are in pages of the base page size,
 * whatever the size of the folios.
 *
 * The errors have the same meaning for all commands:
 *
 * - ENOTTY: the command is unknown.
 * - E2BIG: the struct is larger than the kernel knows and the extra bytes are
 *   not zero, or it is larger than a page.
 * - EOPNOTSUPP: an unknown flag is set or a reserved member is not 0.
 * - EINVAL: a member has a bad value: ``size`` is less than that of the first
 *   version of the struct, the length is 0, the range is not aligned as
 *   required, the direction or operation is unknown. Or the mapping is of a
 *   kind that the command never works on (MIGRATE: hugetlb, DAX and mappings of
 *   device files; EXCLUSIVE and ATOMIC: shared mappings and hugetlb).
 * - EOVERFLOW: addr + length wraps around.
 * - EFAULT: the range is outside of user space, not mapped, or memory of a kind
 *   that a device cannot access; or a pointer could not be read or written. The
 *   kernel checks before the command starts that the struct can be written. If
 *   that has changed when the command ends, its results are lost.
 * - EPERM: a device write to memory that the process may not write, or to a
 *   shadow stack. EXCLUSIVE and ATOMIC count as writes.
 * - EBADF: the file belongs to another address space.
 * - ENODEV: the device is gone (unbound). Only close() works. A running command
 *   ends with this error, and its outputs are valid.
 * - ENOMEM: no memory for the operation, in the system or on the device; or the
 *   system is about to sleep, and no page may move to the device.
 * - EBUSY: the range kept changing for longer than the driver retries (about 3
 *   seconds for a page).
 * - EINTR: a signal ended the command, after it had finished at least one
 *   window (at most a block) or run for a tenth of a second. The counts are
 *   valid: call again with the rest of the range. A command that was still
 *   waiting for that of another thread restarts by itself if SA_RESTART is set.
 * - EAGAIN: the device cannot queue copies now. The counts are valid: call
 *   again with the rest of the range.
 * - EIO: the copy engine failed, and the data of the page stays where it was;
 *   or device memory failed, and the data of the page is lost.
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
 * @HMM_REF_FEATURE_LARGE: large folios stay whole on this device;
 *	out_folio_size is their size
 * @HMM_REF_FEATURE_LARGE_SAFE: the kernel does not free a large folio that is
 *	still in use when it is unmapped on its way back from the device
 * @HMM_REF_FEATURE_ELASTIC: device memory is added on demand, and given back
 *	when the system is short of memory
 * @HMM_REF_FEATURE_OLD_INTERFACE: the device also has a node for programs
 *	written for test_hmm
 * @HMM_REF_FEATURE_FAIL: debugfs can make steps fail
 * @HMM_REF_FEATURE_SANITY: the driver checks its invariants at every step
 * @HMM_REF_FEATURE_CORE_FIXED: the kernel has all fixes of the core that the
 *	driver knows of
 * @HMM_REF_FEATURE_PEERS: MIGRATE also moves pages of other devices of the
 *	driver
 *
 * Bits that the kernel does not know are 0. New bits are only added for
 * features that older programs do not rely on.
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
 * @out_capacity: maximum bytes of device memory
 * @out_folio_size: bytes of the largest folio that stays whole on the device;
 *	the page size if all device folios are single pages
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
 * @HMM_REF_MEMORY_PRIVATE: the CPU cannot access it; a CPU fault brings the
 *	page back to system memory
 * @HMM_REF_MEMORY_COHERENT: the CPU accesses it like system memory; a page
 *	stays until it is migrated
 */
enum hmm_ref_memory_type {
	HMM_REF_MEMORY_PRIVATE = 1,
	HMM_REF_MEMORY_COHERENT = 2,
};

/**
 * enum hmm_ref_direction - direction of MIGRATE
 * @HMM_REF_TO_DEVICE: to the device, from system memory and from other devices
 *	of the driver
 * @HMM_REF_TO_SYSTEM: from the device to system memory
 */
enum hmm_ref_direction {
	HMM_REF_TO_DEVICE = 1,
	HMM_REF_TO_SYSTEM = 2,
};

/**
 * define HMM_REF_MIGRATE_MAP - flag of MIGRATE to the device: also map
 *
 * After the migration, map for the device all pages of the range that the CPU
 * maps, on the device or not, as READ would, but without faulting any in. Pages
 * that are absent or keep changing stay unmapped until the device accesses
 * them.
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
 *	TO_SYSTEM, not on this device (holes included)
 * @out_skipped: pages that could not be moved: shared file pages; pages that
 *	KSM has merged or may merge (MADV_MERGEABLE); pinned or swapped-out
 *	pages; pages that a device has exclusive access to; pages of another
 *	driver's device; holes that a userfaultfd waits for or may have
 *	write-protected, the zero page included; pages that trap the next
 *	access; pages in use elsewhere at each attempt; TO_DEVICE, all pages of
 *	a mapping without read permission; TO_SYSTEM, all pages of this device
 *	that did not move
 *
 * Migration is best effort: success means that every page was tried. The three
 * counts then add up to the pages of the range. After an error they add up to
 * the pages that were tried before it, counted from @addr.
 *
 * To the device, a hole in an anonymous mapping and the zero page become a
 * cleared device page. File and shmem pages stay; a private copy of a file page
 * moves. A page of another device of this driver moves like a page of system
 * memory; a huge page stays huge if both devices have huge pages. Simulated
 * devices copy directly from each other, and if that fails the page stays where
 * it was. Other devices copy through system memory, after room is reserved on
 * the target; a page that cannot move on from there stays there. Pages that
 * left a device in either way are in out_to_peers of its STATS.
 *
 * When the device is full, the least recently filled blocks are evicted, if
 * that makes room for the pages that move. If no block of the device can be
 * freed for a huge page, it stays where it is, and the error is ENOMEM.
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
 * @buf: user pointer: READ stores the bytes there, WRITE takes them from there
 * @out_bytes: bytes transferred, counted from @addr
 * @out_faults: device page faults taken
 *
 * The device accesses the process's memory through the device page table.
 * Unmapped pages are faulted in, as real hardware would do: pages on the device
 * are accessed there, others in system memory. A write to a device page that
 * the CPU may not write at the moment (shared after fork, or just made writable
 * by mprotect) first moves it to system memory, as a private copy if it is
 * shared. So does a write to device-private memory in a mapping that a
 * userfaultfd has registered to write-protect. Nothing else migrates. The CPU
 * accesses @buf. An access of 1, 2, 4 or 8 bytes at a multiple of its length is
 * a single load or store.
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
 * enum hmm_ref_page_where - location of a page
 * @HMM_REF_PAGE_NONE: no page that can be accessed without a fault; see enum
 *	hmm_ref_page_why
 * @HMM_REF_PAGE_SYSTEM: in system memory, the huge zero page included
 * @HMM_REF_PAGE_ZERO: the zero page of the base page size
 * @HMM_REF_PAGE_DEVICE: in this device's memory
 * @HMM_REF_PAGE_ERROR: not mapped, or memory that a device cannot access; see
 *	enum hmm_ref_page_why
 * @HMM_REF_PAGE_REMOTE: in memory of another device that the CPU can access
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
 * enum hmm_ref_page_why - reason that SNAPSHOT finds no page
 * @HMM_REF_WHY_ABSENT: with PAGE_NONE: a hole; a page that is swapped out, on
 *	its way to or from a device or another node, in private memory of
 *	another device, exclusive to another device or file, or poisoned; or a
 *	marker of userfaultfd or of a guard region; hugetlb included. Without a
 *	fault, the kernel does not reveal which of these it is
 * @HMM_REF_WHY_TRAPPED: with PAGE_NONE: a page, not known which: NUMA balancing
 *	or a userfaultfd traps the next access
 * @HMM_REF_WHY_UNMAPPED: with PAGE_ERROR: no mapping
 * @HMM_REF_WHY_UNREADABLE: with PAGE_ERROR: a mapping without read permission,
 *	which is not inspected
 * @HMM_REF_WHY_SPECIAL: with PAGE_ERROR: memory without pages that a device
 *	could access: that of another driver, or of memfd_secret()
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

/*
 * The CPU's entry is writable. Never set for device-private memory in a mapping
 * that a userfaultfd may write-protect.
 */
#define HMM_REF_PAGE_WRITE	(1 << 0)
/* The device maps the page. */
#define HMM_REF_PAGE_MAPPED	(1 << 1)
/* The device's entry is writable. */
#define HMM_REF_PAGE_DEV_WRITE	(1 << 2)
/* The device has exclusive access. */
#define HMM_REF_PAGE_EXCLUSIVE	(1 << 3)

/**
 * struct hmm_ref_page_state - state of one page, as SNAPSHOT reports it
 * @where: one of enum hmm_ref_page_where
 * @flags: HMM_REF_PAGE_* bits
 * @order: log2 of the number of pages that the CPU's entry maps
 * @why: one of enum hmm_ref_page_why
 *
 * A page that is exclusive to this device, through this file, has
 * HMM_REF_PAGE_SYSTEM and HMM_REF_PAGE_EXCLUSIVE.
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
 * Looks at the range without faulting anything in. The states within a block
 * are those of one moment; blocks are looked at one after the other.
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
 * @out_pages_total: pages that the device has now; changes by whole chunks
 * @out_pages_in_use: pages handed out and not yet given back
 * @out_pages_client: pages among these that this file's migrations took
 * @out_pages_retired: pages reported bad, never handed out again
 * @out_storage_pages: the same as @out_pages_total
 * @out_chunks: chunks that the device has now
 * @out_to_device: pages migrated to the device
 * @out_to_system: pages migrated to system memory by ioctl
 * @out_cpu_faults: CPU faults on pages of this device
 * @out_fault_pages: pages that these faults brought back
 * @out_evicted: pages evicted
 * @out_device_faults: faults of the device on process memory
 * @out_invalidations: invalidations received from the core
 * @out_retries: device faults repeated because the range had changed
 * @out_cow_breaks: device writes that made a private copy first
 * @out_exclusive: pages of system memory made exclusive to the device
 * @out_pages_reserved: pages promised to migrations, not yet handed out
 * @out_to_peers: pages that ioctls moved to other devices, or to system memory
 *	on their way there
 *
 * Totals of the device since it was bound, except @out_pages_client. Allowed
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
 * @out_pending: pages taken off the free map and not yet initialised, or on
 *	their way back: reference count 0 and not free
 * @out_retired: pages reported bad
 * @out_bad_ref: violations: free page with a reference count other than 0
 * @out_bad_lock: violations: free page that is locked
 * @out_bad_map: violations: free page that is mapped or belongs to a mapping
 * @out_bad_owner: violations: free page with an owner, or used page without
 * @out_bad_both: violations: page both free and retired
 * @out_bad_count: violations: block with counts that differ from its free map,
 *	or do not add up to its size
 * @out_violations: sum of the violations; 0 if the driver is sound
 *
 * Walks every page of the device, each block under its lock. Exact at any time:
 * concurrent use causes no violation. Allowed from any address space. If a
 * signal ends the walk (EINTR), the outputs cover the pages walked so far; the
 * next call starts from the first page.
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
 * @out_pages: pages that are exclusive now or need not be, counted from @addr
 *
 * Gives the device exclusive access to pages of system memory: no other page
 * table maps them, until a CPU touch, fork(), or an access by another device or
 * through another file takes the page back. Pages in the device's own memory
 * stay there: its atomic operations work there anyway. Missing pages are
 * faulted in, for writing.
 *
 * For anonymous memory: private mappings, private copies of file pages
 * included. EINVAL in a shared mapping and for hugetlb. EPERM without write
 * permission, EFAULT where nothing is mapped or without read permission, as for
 * WRITE. Stops at the first page that fails. Before Linux 6.15 only the first
 * page of a large folio can be made exclusive; the others fail with EBUSY.
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
 * enum hmm_ref_atomic_op - operation of ATOMIC on the value in memory
 * @HMM_REF_ATOMIC_ADD: add the operand, modulo the width
 * @HMM_REF_ATOMIC_EXCHANGE: store the operand
 * @HMM_REF_ATOMIC_COMPARE_EXCHANGE: store the operand if the value equals
 *	@compare of struct hmm_ref_atomic
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
 * @addr: address of the value, a multiple of @length
 * @length: bytes of the value: 4 or 8
 * @operand: operand, of at most @length bytes
 * @compare: expected value, of at most @length bytes; 0 unless @op is
 *	HMM_REF_ATOMIC_COMPARE_EXCHANGE
 * @out_old: value before the operation; valid on success only
 * @out_faults: device page faults taken
 *
 * One operation of the device on the process's memory, in the byte order of the
 * CPU, atomic with respect to CPUs and all devices. A page in system memory is
 * made exclusive first, with the errors of EXCLUSIVE, even if the comparison
 * then fails and nothing is stored. When CPU and devices contend for the page
 * it bounces between them.
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
 * @out_already: pages that were not on this device, holes, and pages of a
 *	mapping without read permission, which is not inspected
 * @out_skipped: pages that are still on the device: pinned, or in use elsewhere
 *	at each attempt
 *
 * Makes the device evict the pages of a range as it does when it is full: by
 * their device page numbers, wherever processes map them. MIGRATE to the system
 * selects pages by the addresses of the process instead. A large folio may
 * leave as a whole even if only a part of it is in the range. Best effort; the
 * three counts add up like those of MIGRATE.
 *
 * Meant for tests: eviction affects only timing.
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
 * Like EVICT, but for all device pages that were handed out for this file
 * (out_pages_client of STATS), no matter which processes map them. Allowed from
 * any address space.
 */
struct hmm_ref_evict_all {
	__u32 size;
	__u32 flags;
	__aligned_u64 out_evicted;
	__aligned_u64 out_skipped;
};

#define HMM_REF_IOC_EVICT_ALL _IO(HMM_REF_IOC_TYPE, HMM_REF_CMD_EVICT_ALL)

#endif /* _UAPI_HMM_REF_H */
