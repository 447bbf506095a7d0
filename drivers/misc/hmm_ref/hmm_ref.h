/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * hmm_ref: reference driver for device-private memory. This header is the map.
 *
 * Files, callers above callees; calls only go down:
 *
 *   main.c, ioctl.c, dmirror.c, debugfs.c
 *                                 devices, the user's requests
 *   client.c                      open files
 *   migrate_cmd.c, migrate_fault.c (fault_around.c), migrate_evict.c
 *                                 who moves data, and when
 *   migrate.c, migrate_device.c, migrate_system.c
 *                                 how it moves
 *   access.c, exclusive.c, snapshot.c, range_fault.c, mirror.c, absent.c
 *                                 seeing a process's memory
 *   devmem*.c        pgtable.c    device pages        | the device's page table
 *   chunk.c, audit.c              how many, in what state
 *   engine.c                      what hardware would do
 *
 * and sanity.c, which checks the rules for all of them, fail.c, by which tests have
 * any of their steps fail, and trace.h, by which people watch them.
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
 *   block       PMD_SIZE of device memory: unit of storage, eviction, recombination
 *   chunk       what one dev_pagemap adds: an array of blocks
 *   window      at most a block's worth of user addresses, handled at a time
 *   device      as a verb's subject: the (simulated) hardware
 *
 * Lifetimes
 *
 *   object          made by          kept by                         freed after
 *   hmm_ref_device  probe            bound driver, open files        last of these
 *   hmm_ref_client  open             the file                        release
 *   hmm_ref_owner   open             the client, each page handed    last page is
 *                                    out for it                      free
 *   hmm_ref_chunk   reserve, slowly  the device                      memunmap_pages()
 *   storage         reserve, slowly  its block                       block idle: shrinker;
 *                                                                    unbind
 *
 * A device page points at its owner and at nothing else: the file, the mm and
 * the VMA of the process that brought it here may all be gone while a forked
 * child still maps it.
 *
 * Lock order, outermost first
 *
 *   hmm_ref_device::unplug (SRCU) an operation runs; remove() waits for it
 *   hmm_ref_client::migrate_lock  one migration per client; mirror::access_lock is
 *                                 its equal for device accesses, never both
 *   hmm_ref_devmem::room_lock     one task makes room
 *   hmm_ref_device::evict_lock    one eviction per device
 *   hmm_ref_devmem::grow_lock     one grower
 *   mm->mmap_lock                 read, VMA lookup to finalize
 *   folio locks, PTL              the core's
 *   hmm_ref_mirror::lock          page table of the device; taken in reclaim, so
 *                                 nothing is allocated under it
 *   hmm_ref_block::lock           free map; irqsave, taken by folio_free
 *   hmm_ref_devmem::lock          lists of blocks, reservations; irqsave, leaf
 *
 * hmm_ref_device::clients_lock is taken alone around hmm_ref_mirror::lock.
 */
#ifndef _HMM_REF_H
#define _HMM_REF_H

#include <linux/bitmap.h>
#include <linux/bits.h>
#include <linux/kref.h>
#include <linux/list.h>
#include <linux/memremap.h>
#include <linux/miscdevice.h>
#include <linux/mm.h>
#include <linux/mmu_notifier.h>
#include <linux/mutex.h>
#include <linux/percpu.h>
#include <linux/refcount.h>
#include <linux/shrinker.h>
#include <linux/spinlock.h>
#include <linux/srcu.h>
#include <linux/wait.h>
#include <linux/workqueue.h>
#include <linux/xarray.h>

#include <uapi/hmm_ref.h>

/* Older kernels, and bugs of the core: a driver for today's kernel deletes that folder. */
#if __has_include("compat/compat.h")
#include "compat/compat.h"
#else
#include <kunit/visibility.h>
#define HMM_REF_LARGE_IS_SAFE		true
#define HMM_REF_CORE_IS_FIXED		true
#define hmm_ref_pagemap_folio_free	hmm_ref_devmem_folio_free
#define hmm_ref_folio_pgmap(folio)	((folio)->pgmap)
#endif

struct dentry;
struct hmm_range;
struct migrate_vma;
struct hmm_ref_client;
struct hmm_ref_device;

/* A block is what one PMD maps, so a PMD folio is exactly one block. */
#define HMM_REF_BLOCK_ORDER	(PMD_SHIFT - PAGE_SHIFT)
#define HMM_REF_BLOCK_PAGES	BIT(HMM_REF_BLOCK_ORDER)

/* How long an operation insists on a range that keeps changing, in jiffies. */
#define HMM_REF_PATIENCE	(3 * HZ)

/* How long it does so with a signal pending that is not fatal. */
#define HMM_REF_SIGNAL_PATIENCE	(HZ / 10)

/* Most pages that one CPU fault brings back: the arrays are on the stack. */
#define HMM_REF_FAULT_AROUND_MAX	16

/* ---- fail.c: failing on purpose ---------------------------------------- */

/**
 * enum hmm_ref_fail_class - steps that tests can have fail
 * @HMM_REF_FAIL_CHUNK: making the struct pages of a chunk
 * @HMM_REF_FAIL_STORAGE: storage for a block of private memory
 * @HMM_REF_FAIL_HANDOUT: handing out single device pages; those before it are out
 * @HMM_REF_FAIL_LARGE: a large page, on the device or in the system
 * @HMM_REF_FAIL_COPY: a batch of the copy engine
 * @HMM_REF_FAIL_PAGE: a page of system memory, large or not
 * @HMM_REF_FAIL_MAP: room in the device page table
 * @HMM_REF_FAIL_RETRY: a range that has not changed counts as changed
 * @HMM_REF_FAIL_CLASSES: how many there are
 */
enum hmm_ref_fail_class {
	HMM_REF_FAIL_CHUNK,
	HMM_REF_FAIL_STORAGE,
	HMM_REF_FAIL_HANDOUT,
	HMM_REF_FAIL_LARGE,
	HMM_REF_FAIL_COPY,
	HMM_REF_FAIL_PAGE,
	HMM_REF_FAIL_MAP,
	HMM_REF_FAIL_RETRY,
	HMM_REF_FAIL_CLASSES,
};

#ifdef CONFIG_FAULT_INJECTION
bool hmm_ref_fail(enum hmm_ref_fail_class class);
#else
static inline bool hmm_ref_fail(enum hmm_ref_fail_class class)
{
	return false;
}
#endif

#ifdef CONFIG_FAULT_INJECTION_DEBUG_FS
void hmm_ref_fail_debugfs(struct dentry *parent);
#else
static inline void hmm_ref_fail_debugfs(struct dentry *parent)
{
}
#endif

/* ---- main.c: counters -------------------------------------------------- */

/* Totals since probe, in the units that struct hmm_ref_stats gives. */
struct hmm_ref_counters {
	u64 to_device;
	u64 to_system;
	u64 cpu_faults;
	u64 fault_pages;
	u64 evicted;
	u64 device_faults;
	u64 invalidations;
	u64 retries;
	u64 cow_breaks;
	u64 exclusive;
};

#define hmm_ref_count(counters, what, n)	this_cpu_add((counters)->what, n)

/* ---- engine.c: what hardware would do ---------------------------------- */

/**
 * struct hmm_ref_engine - copy engine and storage of one device
 * @node: NUMA node that the storage is taken from
 * @storage: PMD_SIZE of kernel memory by dpfn >> HMM_REF_BLOCK_ORDER
 * @window: all of the storage, where the CPU can access it; else NULL
 * @nr_blocks: blocks that have storage
 * @queue: runs jobs when the engine is late
 */
struct hmm_ref_engine {
	int node;
	struct xarray storage;
	void *window;
	atomic_long_t nr_blocks;
	struct workqueue_struct *queue;
};

/**
 * enum hmm_ref_copy_op - what the copy engine can do
 * @HMM_REF_COPY_IN: copy from system memory to the device
 * @HMM_REF_COPY_OUT: copy from the device to system memory
 * @HMM_REF_COPY_ZERO: zero memory of the device
 */
enum hmm_ref_copy_op {
	HMM_REF_COPY_IN,
	HMM_REF_COPY_OUT,
	HMM_REF_COPY_ZERO,
};

/**
 * struct hmm_ref_copy - one descriptor of the copy engine
 * @op: what to do
 * @nr: pages
 * @dpfn: device memory, in one block
 * @sys_page: the first of the other side's pages, if there is one
 */
struct hmm_ref_copy {
	enum hmm_ref_copy_op op;
	unsigned int nr;
	unsigned long dpfn;
	struct page *sys_page;
};

/**
 * struct hmm_ref_job - a batch of copies on the engine
 * @engine: that runs it
 * @ring: descriptors of what is to be done; memory of the caller
 * @size: how many fit
 * @nr: how many were added
 * @late: the engine was late when the job was submitted
 * @rc: 0, or how the job will end
 * @work: runs the job, when the engine is late
 *
 * On the stack of who waits for it.
 */
struct hmm_ref_job {
	struct hmm_ref_engine *engine;
	struct hmm_ref_copy *ring;
	unsigned int size;
	unsigned int nr;
	bool late;
	int rc;
	struct work_struct work;
};

int hmm_ref_engine_init(struct hmm_ref_engine *engine, int node);
void hmm_ref_engine_exit(struct hmm_ref_engine *engine);
void hmm_ref_engine_set_window(struct hmm_ref_engine *engine, void *window);
int hmm_ref_engine_back(struct hmm_ref_engine *engine, unsigned long dpfn);
void hmm_ref_engine_unback(struct hmm_ref_engine *engine, unsigned long dpfn);

void hmm_ref_engine_begin(struct hmm_ref_engine *engine, struct hmm_ref_job *job,
			  struct hmm_ref_copy *ring, unsigned int size);
/**
 * hmm_ref_engine_copy() - add a copy to a batch
 * @job: batch
 * @op: which way
 * @dpfn: page on the device
 * @sys_page: page of system memory; NULL to clear. Neither side changes before the batch
 *	was waited for
 * @nr: pages, contiguous on both sides and in one block
 *
 * A caller that adds more than it has room for has a bug; then the batch fails, and nothing is
 * written where it should not be.
 */
static inline void hmm_ref_engine_copy(struct hmm_ref_job *job, enum hmm_ref_copy_op op,
				       unsigned long dpfn, struct page *sys_page,
				       unsigned int nr)
{
	if (WARN_ON_ONCE(job->nr == job->size)) {
		job->rc = -EIO;
		return;
	}
	/* mock: real hardware would have DMA addresses in it */
	job->ring[job->nr++] = (struct hmm_ref_copy){
		.op = op, .nr = nr, .dpfn = dpfn, .sys_page = sys_page };
}

void hmm_ref_engine_submit(struct hmm_ref_job *job);
int hmm_ref_engine_wait(struct hmm_ref_job *job);

/**
 * struct hmm_ref_buffer - where the device's loads go and its stores come from
 * @user: memory of the current process
 * @bounce: kernel memory to be used instead; or NULL
 */
struct hmm_ref_buffer {
	void __user *user;
	void *bounce;
};

unsigned int hmm_ref_engine_access_dev(struct hmm_ref_engine *engine,
				       unsigned long dpfn, unsigned int offset,
				       const struct hmm_ref_buffer *buf,
				       unsigned int len, bool write);
int hmm_ref_engine_access_sys(unsigned long pfn, unsigned int offset,
			      const struct hmm_ref_buffer *buf, unsigned int len,
			      bool write);
void hmm_ref_engine_atomic_dev(struct hmm_ref_engine *engine, unsigned long dpfn,
			       struct hmm_ref_atomic *atomic);
void hmm_ref_engine_atomic_sys(unsigned long pfn, struct hmm_ref_atomic *atomic);

/* ---- devmem*.c, chunk.c, audit.c: device pages ------------------------- */

/**
 * enum hmm_ref_cause - why data leaves the device for system memory
 * @HMM_REF_BY_COMMAND: a command asks for it
 * @HMM_REF_BY_FAULT: the CPU has touched the page, or a neighbour
 * @HMM_REF_BY_EVICTION: others need the room, or the device goes
 * @HMM_REF_CAUSES: how many there are
 */
enum hmm_ref_cause {
	HMM_REF_BY_COMMAND,
	HMM_REF_BY_FAULT,
	HMM_REF_BY_EVICTION,
	HMM_REF_CAUSES,
};

/**
 * struct hmm_ref_owner - who a device page was handed out for
 * @refs: one for the client while its file is open, one per page handed out;
 *	taken and dropped by the batch, which a kref cannot do
 * @opener: process that opened the file, shown in fdinfo and traces
 * @to_device: pages that its commands have moved to the device
 * @departed: pages handed out for it whose data has left, by cause
 * @device_faults: of its mirror, as are the next two
 * @invalidations: of its mirror
 * @retries: of its mirror
 *
 * For accounting only. It deliberately leads to no file, mm or VMA.
 */
struct hmm_ref_owner {
	refcount_t refs;
	struct pid *opener;
	atomic_long_t to_device;
	atomic_long_t departed[HMM_REF_CAUSES];
	atomic_long_t device_faults;
	atomic_long_t invalidations;
	atomic_long_t retries;
};

struct hmm_ref_owner *hmm_ref_owner_create(void);
void hmm_ref_owner_put(struct hmm_ref_owner *owner, unsigned int nr);

/**
 * enum hmm_ref_block_state - what can be had of a block
 * @HMM_REF_BLOCK_BARE: nothing, it has no storage
 * @HMM_REF_BLOCK_WHOLE: all of its pages
 * @HMM_REF_BLOCK_PARTIAL: some of its pages
 * @HMM_REF_BLOCK_FULL: nothing, no page is free
 * @HMM_REF_BLOCK_RESERVED: nothing, it is promised to a large folio
 */
enum hmm_ref_block_state {
	HMM_REF_BLOCK_BARE,
	HMM_REF_BLOCK_WHOLE,
	HMM_REF_BLOCK_PARTIAL,
	HMM_REF_BLOCK_FULL,
	HMM_REF_BLOCK_RESERVED,
};

/**
 * struct hmm_ref_block - PMD_SIZE of device memory
 * @lock: covers @free, @bad, @lost and the counts; @lost is also read without it
 * @nr_free: pages on the free map
 * @nr_used: pages handed out and not yet back
 * @nr_retired: bad pages, neither free nor used
 * @backed: has storage; stays so while a page is used
 * @reserved: promised as a whole, so none of its pages is used
 * @state: as of the last change that asked for other lists
 * @avail: on hmm_ref_devmem::bare or one of ::avail; on none when full or reserved, and
 *	while storage is added or removed
 * @lru: on hmm_ref_devmem::lru while pages are used; tail is the last filled
 * @chunk: that the block is in
 * @free: the free map: set bits are pages that can be handed out
 * @bad: pages to retire instead of freeing
 * @lost: those of them whose data was lost while they were used
 *
 * hmm_ref_devmem::lock covers @reserved, @state, @avail and @lru. Both locks are held where
 * these follow a change of the counts, and to write @backed, which either lock covers. With
 * both locks held @nr_free is lowered, so under either one a block that is whole stays so.
 */
struct hmm_ref_block {
	spinlock_t lock;		/* free map */
	unsigned int nr_free;
	unsigned int nr_used;
	unsigned int nr_retired;
	bool backed;
	bool reserved;
	enum hmm_ref_block_state state;
	struct list_head avail;
	struct list_head lru;
	struct hmm_ref_chunk *chunk;
	DECLARE_BITMAP(free, HMM_REF_BLOCK_PAGES);
	DECLARE_BITMAP(bad, HMM_REF_BLOCK_PAGES);
	DECLARE_BITMAP(lost, HMM_REF_BLOCK_PAGES);
};

/* All that a device page costs, beside struct page and storage: less than a byte. */
static_assert(sizeof(struct hmm_ref_block) < HMM_REF_BLOCK_PAGES);

/**
 * struct hmm_ref_chunk - one dev_pagemap and its blocks
 * @dm: device memory that it belongs to
 * @first_dpfn: device page number of its first page
 * @dpfn_offset: what a page's device page number is more than its page frame number
 * @nr_blocks: elements of @blocks; the last chunk may be cut by the capacity
 * @blocks: constant array
 * @region: address space taken for the struct pages
 * @pagemap: what the core knows of it; ends in a flexible array, so last
 */
struct hmm_ref_chunk {
	struct hmm_ref_devmem *dm;
	unsigned long first_dpfn;
	unsigned long dpfn_offset;
	unsigned int nr_blocks;
	struct hmm_ref_block *blocks;
	struct resource *region;
	struct dev_pagemap pagemap;
};

/**
 * struct hmm_ref_devmem - the memory of one device
 * @id: number of the device, for people who trace it
 * @pgmap_owner: tells our device pages from others'
 * @type: MEMORY_DEVICE_PRIVATE or MEMORY_DEVICE_COHERENT
 * @large: large folios stay whole
 * @window: physical address of coherent memory
 * @ops: pagemap callbacks, folio_free among them
 * @engine: the device's copy engine and storage
 * @capacity: pages at the most
 * @chunk_shift: log2 of the pages in a chunk
 * @chunks: chunks by dpfn >> @chunk_shift; grows under @grow_lock, only shrinks
 *	when the device goes
 * @grow_lock: serialises those who add chunks and storage
 * @room_lock: held by the one task that waits for room; others queue here, in order
 * @nr_waiting: that task, and the tasks that queue behind it
 * @lock: covers the rest
 * @stopped: nothing is handed out any more; see hmm_ref_devmem_stop()
 * @any_lost: there may be pages whose data was lost; never unset
 * @backed: pages that have storage and are not retired
 * @retired: bad pages that are neither free nor used
 * @nr_flawed: blocks with a bad page, which are never whole again
 * @reserved: pages promised and not handed out; with @used at most @backed, so every
 *	reservation finds a free page
 * @used: pages handed out and not yet back; grows under @lock only
 * @nr_pages: pages in all chunks
 * @bare: blocks without storage
 * @avail: blocks with storage and free pages, by log2 of how many are free: the last list
 *	has the blocks that are whole
 * @lru: blocks with used pages, the least recently filled first
 * @shrinker: takes back the storage of whole blocks
 */
struct hmm_ref_devmem {
	unsigned int id;
	void *pgmap_owner;
	enum memory_type type;
	bool large;
	phys_addr_t window;
	const struct dev_pagemap_ops *ops;
	struct hmm_ref_engine engine;
	unsigned long capacity;
	unsigned int chunk_shift;
	struct xarray chunks;
	struct mutex grow_lock;		/* chunks and storage */
	struct mutex room_lock;		/* turn to make room */
	atomic_t nr_waiting;
	spinlock_t lock;		/* lists and reservations */
	bool stopped;
	bool any_lost;
	unsigned long backed;
	unsigned long retired;
	unsigned long nr_flawed;
	unsigned long reserved;
	atomic_long_t used;
	unsigned long nr_pages;
	struct list_head bare;
	struct list_head avail[HMM_REF_BLOCK_ORDER + 1];
	struct list_head lru;
	struct shrinker *shrinker;
};

/**
 * struct hmm_ref_devmem_params - what hmm_ref_devmem_init() needs to know
 * @ops: pagemap callbacks
 * @node: NUMA node for struct pages and storage
 * @large: keep large folios whole, where the core can
 * @window: physical address of memory that the CPU can access; 0 for private memory
 * @capacity: bytes, a multiple of PMD_SIZE
 * @chunk_size: bytes that private memory grows by, a power of two and at least
 *	PMD_SIZE
 * @id: number of the device
 * @name: for the shrinker
 */
struct hmm_ref_devmem_params {
	const struct dev_pagemap_ops *ops;
	int node;
	bool large;
	phys_addr_t window;
	u64 capacity;
	u64 chunk_size;
	unsigned int id;
	const char *name;
};

/**
 * struct hmm_ref_room - device pages that are reserved for a migration
 * @nr: single pages
 * @block: block for a large folio; or NULL
 */
struct hmm_ref_room {
	unsigned long nr;
	struct hmm_ref_block *block;
};

/* chunk.c */
int hmm_ref_devmem_init(struct hmm_ref_devmem *dm,
			const struct hmm_ref_devmem_params *params);
void hmm_ref_devmem_exit(struct hmm_ref_devmem *dm);
void hmm_ref_devmem_stop(struct hmm_ref_devmem *dm);
void hmm_ref_devmem_restart(struct hmm_ref_devmem *dm);
int hmm_ref_devmem_try_reserve(struct hmm_ref_devmem *dm, struct hmm_ref_room *room,
			       unsigned long nr, bool whole);
int hmm_ref_devmem_reserve(struct hmm_ref_devmem *dm, struct hmm_ref_room *room,
			   unsigned long nr, bool whole);
void hmm_ref_devmem_unreserve(struct hmm_ref_devmem *dm, struct hmm_ref_room *room);
unsigned long hmm_ref_devmem_left(struct hmm_ref_devmem *dm);
bool hmm_ref_devmem_may_grow(struct hmm_ref_devmem *dm, unsigned long nr, bool whole);
void hmm_ref_devmem_grow(struct hmm_ref_devmem *dm, unsigned long nr, bool whole);

/* devmem.c */
unsigned long hmm_ref_devmem_handout(struct hmm_ref_devmem *dm, struct hmm_ref_room *room,
				     struct hmm_ref_owner *owner,
				     struct folio **folios, unsigned long nr);
void hmm_ref_devmem_folio_free(struct folio *folio);

/* devmem_large.c */
#ifdef CONFIG_ARCH_HAS_PMD_SOFTLEAVES
struct folio *hmm_ref_devmem_handout_large(struct hmm_ref_devmem *dm,
					   struct hmm_ref_room *room,
					   struct hmm_ref_owner *owner);
void hmm_ref_devmem_dissolve(struct folio *folio);
void hmm_ref_devmem_folio_split(struct folio *head, struct folio *tail);
#else
static inline struct folio *
hmm_ref_devmem_handout_large(struct hmm_ref_devmem *dm, struct hmm_ref_room *room,
			     struct hmm_ref_owner *owner)
{
	return NULL;
}

static inline void hmm_ref_devmem_dissolve(struct folio *folio)
{
}
#endif

struct hmm_ref_block *hmm_ref_devmem_victim(struct hmm_ref_devmem *dm);
struct hmm_ref_block *hmm_ref_devmem_emptiest(struct hmm_ref_devmem *dm);
void hmm_ref_devmem_touch(struct hmm_ref_devmem *dm, struct hmm_ref_block *block);
int hmm_ref_devmem_retire(struct hmm_ref_devmem *dm, unsigned long dpfn);
int hmm_ref_devmem_lose(struct hmm_ref_devmem *dm, unsigned long dpfn);
bool hmm_ref_devmem_any_lost(struct hmm_ref_devmem *dm, unsigned long dpfn,
			     unsigned int nr);

/* audit.c */
int hmm_ref_devmem_audit(struct hmm_ref_devmem *dm, struct hmm_ref_audit *audit);
void hmm_ref_devmem_stats(struct hmm_ref_devmem *dm, struct hmm_ref_stats *stats);

unsigned long hmm_ref_block_dpfn(const struct hmm_ref_block *block);
unsigned long hmm_ref_block_pfn(const struct hmm_ref_block *block);
void hmm_ref_block_enlist(struct hmm_ref_block *block);
struct hmm_ref_block *hmm_ref_devmem_block(struct hmm_ref_devmem *dm,
					   unsigned long dpfn);

/**
 * hmm_ref_devmem_used() - how many pages are used
 * @dm: device memory
 *
 * Return: pages. Exact for a device that is stopped: no used page escapes the count.
 */
static inline unsigned long hmm_ref_devmem_used(struct hmm_ref_devmem *dm)
{
	return atomic_long_read(&dm->used);
}

static inline unsigned long hmm_ref_chunk_pfn(const struct hmm_ref_chunk *chunk)
{
	return PHYS_PFN(chunk->pagemap.range.start);
}

/**
 * hmm_ref_chunk_dpfn() - device page number of a page whose chunk is known
 * @chunk: that the page is in
 * @dev_page: page of device memory
 *
 * Return: device page number.
 */
static inline unsigned long hmm_ref_chunk_dpfn(const struct hmm_ref_chunk *chunk,
					       const struct page *dev_page)
{
	return page_to_pfn(dev_page) + chunk->dpfn_offset;
}

/**
 * hmm_ref_page_chunk() - find a page's chunk
 * @dev_page: page of device memory that is handed out
 *
 * Return: the chunk, which stays as long as the device.
 */
static inline struct hmm_ref_chunk *hmm_ref_page_chunk(const struct page *dev_page)
{
	return container_of(page_pgmap(dev_page), struct hmm_ref_chunk, pagemap);
}

/**
 * hmm_ref_folio_chunk() - find a folio's chunk
 * @folio: of device memory, handed out
 *
 * Return: the chunk, which stays as long as the device.
 */
static inline struct hmm_ref_chunk *hmm_ref_folio_chunk(const struct folio *folio)
{
	return container_of(hmm_ref_folio_pgmap(folio), struct hmm_ref_chunk, pagemap);
}

/**
 * hmm_ref_folio_dpfn() - device page number of a folio's first page
 * @folio: of device memory, handed out
 *
 * Return: device page number.
 */
static inline unsigned long hmm_ref_folio_dpfn(const struct folio *folio)
{
	return hmm_ref_chunk_dpfn(hmm_ref_folio_chunk(folio), &folio->page);
}

/**
 * hmm_ref_page_dpfn() - device page number of a page
 * @dev_page: page of device memory that is handed out
 *
 * Return: device page number.
 */
static inline unsigned long hmm_ref_page_dpfn(const struct page *dev_page)
{
	return hmm_ref_chunk_dpfn(hmm_ref_page_chunk(dev_page), dev_page);
}

/**
 * hmm_ref_own_chunk() - is a page of this device's memory, and where?
 * @dm: device memory
 * @page: any page that cannot be freed meanwhile
 *
 * Return: the chunk, or NULL when @page is none of @dm's.
 */
static inline struct hmm_ref_chunk *hmm_ref_own_chunk(const struct hmm_ref_devmem *dm,
						      const struct page *page)
{
	struct dev_pagemap *pagemap;

	if (!is_zone_device_page(page))
		return NULL;
	pagemap = page_pgmap(page);
	if (pagemap->owner != dm->pgmap_owner)
		return NULL;
	return container_of(pagemap, struct hmm_ref_chunk, pagemap);
}

/**
 * hmm_ref_owns() - is a page of this device's memory?
 * @dm: device memory
 * @page: any page that cannot be freed meanwhile
 *
 * Return: true when @page is one of @dm's.
 */
static inline bool hmm_ref_owns(const struct hmm_ref_devmem *dm, const struct page *page)
{
	return hmm_ref_own_chunk(dm, page);
}

/**
 * hmm_ref_has_large() - can pages be large folios?
 * @dm: device memory
 *
 * The core splits and moves large folios of private memory only.
 *
 * Return: true when they can.
 */
static inline bool hmm_ref_has_large(const struct hmm_ref_devmem *dm)
{
	return IS_ENABLED(CONFIG_ARCH_HAS_PMD_SOFTLEAVES) && dm->large &&
	       dm->type == MEMORY_DEVICE_PRIVATE;
}

/**
 * hmm_ref_takes_large() - can large folios stay whole on their way to the device?
 * @dm: device memory
 *
 * Return: true when they can: not necessarily now, but some time.
 */
static inline bool hmm_ref_takes_large(const struct hmm_ref_devmem *dm)
{
	return hmm_ref_has_large(dm) &&
	       READ_ONCE(dm->nr_flawed) < dm->capacity >> HMM_REF_BLOCK_ORDER;
}

/* ---- pgtable.c: the device's page table -------------------------------- */

/*
 * An entry holds the page's number, on the device or in system memory, above the
 * bits that tell which and what the device may do.
 */
typedef u64 hmm_ref_pte_t;

#define HMM_REF_PTE_VALID	BIT_ULL(0)
#define HMM_REF_PTE_WRITE	BIT_ULL(1)
#define HMM_REF_PTE_DEVICE	BIT_ULL(2)	/* number is a dpfn, else a pfn */
#define HMM_REF_PTE_EXCLUSIVE	BIT_ULL(3)	/* nobody else maps the page */
#define HMM_REF_PTE_SHIFT	4

static inline hmm_ref_pte_t hmm_ref_pte(unsigned long number, u64 bits)
{
	return (u64)number << HMM_REF_PTE_SHIFT | bits | HMM_REF_PTE_VALID;
}

static inline unsigned long hmm_ref_pte_number(hmm_ref_pte_t pte)
{
	return pte >> HMM_REF_PTE_SHIFT;
}

/**
 * struct hmm_ref_pgtable - device page table of one address space
 * @tables: by addr >> PMD_SHIFT a table of PTEs, or a leaf entry as an xarray value
 * @last: what @tables had for @last_index when it was last asked
 * @last_index: ULONG_MAX when that is forgotten
 *
 * Entries are covered by the caller's lock; see pgtable.c.
 */
struct hmm_ref_pgtable {
	struct xarray tables;
	void *last;
	unsigned long last_index;
};

/**
 * struct hmm_ref_ptes - what a PMD of the device page table has, see hmm_ref_pgtable_look()
 * @pte: its entries; NULL when all of it is mapped at once, or nothing
 * @leaf: then the entry that maps all of it, or one that is not valid
 */
struct hmm_ref_ptes {
	const hmm_ref_pte_t *pte;
	hmm_ref_pte_t leaf;
};

/**
 * hmm_ref_pte_at() - one of the entries of a PMD
 * @ptes: entries
 * @addr: page address in the PMD
 *
 * Return: the entry, 0 when nothing is mapped.
 */
static inline hmm_ref_pte_t hmm_ref_pte_at(const struct hmm_ref_ptes *ptes,
					   unsigned long addr)
{
	unsigned long index = (addr >> PAGE_SHIFT) & (HMM_REF_BLOCK_PAGES - 1);

	if (ptes->pte)
		return ptes->pte[index];
	if (!(ptes->leaf & HMM_REF_PTE_VALID))
		return 0;
	return ptes->leaf + ((hmm_ref_pte_t)index << HMM_REF_PTE_SHIFT);
}

void hmm_ref_pgtable_init(struct hmm_ref_pgtable *pt);
void hmm_ref_pgtable_destroy(struct hmm_ref_pgtable *pt);
int hmm_ref_pgtable_prepare(struct hmm_ref_pgtable *pt, unsigned long addr,
			    bool leaf);
bool hmm_ref_pgtable_map(struct hmm_ref_pgtable *pt, unsigned long addr,
			 hmm_ref_pte_t pte);
bool hmm_ref_pgtable_map_leaf(struct hmm_ref_pgtable *pt, unsigned long addr,
			      hmm_ref_pte_t pte);
struct hmm_ref_ptes hmm_ref_pgtable_look(struct hmm_ref_pgtable *pt, unsigned long addr);
hmm_ref_pte_t hmm_ref_pgtable_lookup(struct hmm_ref_pgtable *pt,
				     unsigned long addr);
void hmm_ref_pgtable_zap(struct hmm_ref_pgtable *pt, unsigned long start,
			 unsigned long end);
void hmm_ref_pgtable_trim(struct hmm_ref_pgtable *pt, unsigned long addr);
bool hmm_ref_pgtable_is_trimmed(struct hmm_ref_pgtable *pt);

/* ---- mirror.c, range_fault.c, access.c, exclusive.c, snapshot.c: a process's memory ---- */

/**
 * struct hmm_ref_mirror - what the device sees of one mm
 * @notifier: covers the whole address space; @notifier.mm is the mm, kept by it
 * @dm: device memory: pages of it are mapped as such
 * @counters: of the device
 * @owner: of the client, counts for it
 * @gone: the device is: operations end early
 * @lock: covers @pt's entries; a device access holds it to its end, as hardware's
 *	TLB flush would wait for it
 * @pt: device page table
 * @access_lock: covers @pfns and @bounce; any signal ends the wait for it
 * @pfns: hmm_range_fault()'s array for one window
 * @bounce: HMM_REF_BOUNCE_SIZE bytes, for a user buffer that is not present and for the
 *	states of a window
 */
struct hmm_ref_mirror {
	struct mmu_interval_notifier notifier;
	struct hmm_ref_devmem *dm;
	struct hmm_ref_counters __percpu *counters;
	struct hmm_ref_owner *owner;
	const bool *gone;
	struct mutex lock;		/* page table entries */
	struct hmm_ref_pgtable pt;
	struct mutex access_lock;	/* scratch memory */
	unsigned long *pfns;
	void *bounce;
};

#define HMM_REF_BOUNCE_SIZE	PAGE_SIZE

/**
 * hmm_ref_vma_may_write() - may a device write where the process may?
 * @vma: mapping, with mmap_lock held
 *
 * Not to a shadow stack, which a CPU writes by calls and returns only: its entries and
 * VM_WRITE say writable, and hmm_range_fault() reports that. Pages of it can be read, as
 * get_user_pages() does without FOLL_FORCE. VMAs do not change in this respect: when one
 * takes the place of another, the notifier tells.
 *
 * Return: true when it may.
 */
static inline bool hmm_ref_vma_may_write(const struct vm_area_struct *vma)
{
	return (vma->vm_flags & (VM_WRITE | VM_SHADOW_STACK)) == VM_WRITE;
}

int hmm_ref_mirror_init(struct hmm_ref_mirror *mirror, struct mm_struct *mm,
			struct hmm_ref_devmem *dm,
			struct hmm_ref_counters __percpu *counters,
			struct hmm_ref_owner *owner, const bool *gone);
void hmm_ref_mirror_exit(struct hmm_ref_mirror *mirror);
void hmm_ref_mirror_zap_all(struct hmm_ref_mirror *mirror);
int hmm_ref_mirror_fault(struct hmm_ref_mirror *mirror, unsigned long start,
			 unsigned long end, bool write, unsigned long patience);
int hmm_ref_mirror_map(struct hmm_ref_mirror *mirror, unsigned long start,
		       unsigned long length);
unsigned long hmm_ref_mirror_before_exclusive(struct hmm_ref_mirror *mirror,
					      unsigned long start, unsigned long end);
int hmm_ref_mirror_interrupted(struct hmm_ref_mirror *mirror);
int hmm_ref_mirror_insist(struct hmm_ref_mirror *mirror, unsigned long began,
			  unsigned long patience);
int hmm_ref_mirror_begin(struct hmm_ref_mirror *mirror);
void hmm_ref_mirror_walk_begin(struct hmm_ref_mirror *mirror, struct hmm_range *range);
int hmm_ref_mirror_walk(struct hmm_ref_mirror *mirror, struct hmm_range *range);
int hmm_ref_mirror_walk_locked(struct hmm_ref_mirror *mirror, struct hmm_range *range);

/* access.c */
int hmm_ref_mirror_access(struct hmm_ref_mirror *mirror,
			  struct hmm_ref_access *cmd, bool write, u64 *most);

/* exclusive.c */
int hmm_ref_mirror_exclusive(struct hmm_ref_mirror *mirror,
			     struct hmm_ref_exclusive *cmd);
int hmm_ref_mirror_atomic(struct hmm_ref_mirror *mirror,
			  struct hmm_ref_atomic *cmd);

/* snapshot.c */
typedef int (*hmm_ref_seen_t)(void *arg, struct hmm_ref_page_state *states,
			      unsigned long nr);
int hmm_ref_mirror_look(struct hmm_ref_mirror *mirror, unsigned long start,
			unsigned long end, hmm_ref_seen_t seen, void *arg);
int hmm_ref_mirror_snapshot(struct hmm_ref_mirror *mirror,
			    struct hmm_ref_snapshot *cmd);
int hmm_ref_mirror_resident(struct hmm_ref_mirror *mirror, unsigned long start,
			    unsigned long end, unsigned long *pfns,
			    unsigned long *resident);

unsigned long hmm_ref_mirror_peek(struct hmm_ref_mirror *mirror, unsigned long start,
				  unsigned long end, unsigned long *pfns);

/* ---- migrate*.c: moving data ------------------------------------------- */

/**
 * struct hmm_ref_scratch - the arrays of one migration at a time
 * @src: migrate_vma's source entries, HMM_REF_BLOCK_PAGES of them
 * @dst: its destination entries
 * @folios: device pages handed out for it
 * @ring: descriptors of its copies
 */
struct hmm_ref_scratch {
	unsigned long *src;
	unsigned long *dst;
	struct folio **folios;
	struct hmm_ref_copy *ring;
};

/* absent.c */
unsigned long hmm_ref_next_present(const struct vm_area_struct *vma, unsigned long addr,
				   unsigned long end);
int hmm_ref_mirror_next_present(struct hmm_ref_mirror *mirror, unsigned long addr,
				unsigned long end, vm_flags_t flags, unsigned long *next);

/* migrate_cmd.c */
int hmm_ref_migrate_range(struct hmm_ref_client *client,
			  struct hmm_ref_migrate *cmd, bool large);

/* migrate.c */
int hmm_ref_scratch_init(struct hmm_ref_scratch *scratch);
void hmm_ref_scratch_exit(struct hmm_ref_scratch *scratch);

/* migrate_evict.c */
unsigned long hmm_ref_evict_run(struct hmm_ref_device *dev, unsigned long pfn,
				unsigned long npages, unsigned long *tried);
int hmm_ref_evict_some(struct hmm_ref_device *dev, bool scattered);
int hmm_ref_make_room(struct hmm_ref_client *client, struct hmm_ref_room *room,
		      unsigned long nr, bool whole);
bool hmm_ref_evict_all(struct hmm_ref_device *dev, unsigned long timeout);
int hmm_ref_evict_client(struct hmm_ref_client *client, struct hmm_ref_evict_all *cmd);
int hmm_ref_evict_range(struct hmm_ref_client *client, struct hmm_ref_evict *cmd);

/* migrate_fault.c */
extern const struct dev_pagemap_ops hmm_ref_pagemap_ops;
int hmm_ref_fault_init(void);
void hmm_ref_fault_exit(void);

/* ---- trace.h: what people watch ---------------------------------------- */

/**
 * enum hmm_ref_retry - what is tried again
 * @HMM_REF_RETRY_MIGRATE: a window in which pages have stayed behind
 * @HMM_REF_RETRY_FAULT: a device fault on a range that has changed
 * @HMM_REF_RETRY_EXCLUSIVE: exclusive access to a page that was taken back
 */
enum hmm_ref_retry {
	HMM_REF_RETRY_MIGRATE,
	HMM_REF_RETRY_FAULT,
	HMM_REF_RETRY_EXCLUSIVE,
};

/**
 * enum hmm_ref_fault_result - how a CPU fault ends; values that user space can resolve
 * @HMM_REF_FAULT_DONE: the CPU touches the page again
 * @HMM_REF_FAULT_OOM: as VM_FAULT_OOM
 * @HMM_REF_FAULT_SIGBUS: as VM_FAULT_SIGBUS
 * @HMM_REF_FAULT_HWPOISON: as VM_FAULT_HWPOISON
 * @HMM_REF_FAULT_RETRY: as VM_FAULT_RETRY
 */
enum hmm_ref_fault_result {
	HMM_REF_FAULT_DONE = 0,
	HMM_REF_FAULT_OOM = (__force int)VM_FAULT_OOM,
	HMM_REF_FAULT_SIGBUS = (__force int)VM_FAULT_SIGBUS,
	HMM_REF_FAULT_HWPOISON = (__force int)VM_FAULT_HWPOISON,
	HMM_REF_FAULT_RETRY = (__force int)VM_FAULT_RETRY,
};

/* ---- sanity.c: the rules, checked -------------------------------------- */

#ifdef CONFIG_HMM_REF_SANITY
void hmm_ref_verify_idle(const struct hmm_ref_block *block, unsigned int bit,
			 unsigned int nr);
void hmm_ref_verify_handed_out(const struct hmm_ref_chunk *chunk, struct folio *folio);
void hmm_ref_verify_last_put(struct folio *folio);
void hmm_ref_verify_block(const struct hmm_ref_block *block);
void hmm_ref_verify_chunk(const struct hmm_ref_chunk *chunk);
void hmm_ref_verify_promise(const struct hmm_ref_devmem *dm);
void hmm_ref_verify_mapped(struct hmm_ref_mirror *mirror, unsigned long start,
			   unsigned long end);
void hmm_ref_verify_copy(const struct hmm_ref_engine *engine,
			 const struct hmm_ref_copy *copy);
void hmm_ref_verify_trimmed(struct hmm_ref_mirror *mirror);
#else
static inline void hmm_ref_verify_idle(const struct hmm_ref_block *block,
				       unsigned int bit, unsigned int nr) {}
static inline void hmm_ref_verify_handed_out(const struct hmm_ref_chunk *chunk,
					     struct folio *folio) {}
static inline void hmm_ref_verify_last_put(struct folio *folio) {}
static inline void hmm_ref_verify_block(const struct hmm_ref_block *block) {}
static inline void hmm_ref_verify_chunk(const struct hmm_ref_chunk *chunk) {}
static inline void hmm_ref_verify_promise(const struct hmm_ref_devmem *dm) {}
static inline void hmm_ref_verify_mapped(struct hmm_ref_mirror *mirror,
					 unsigned long start, unsigned long end) {}
static inline void hmm_ref_verify_copy(const struct hmm_ref_engine *engine,
				       const struct hmm_ref_copy *copy) {}
static inline void hmm_ref_verify_trimmed(struct hmm_ref_mirror *mirror) {}
#endif

/* ---- fault_around.c: neighbours ----------------------------------------- */

#define HMM_REF_STREAMS	8

/**
 * struct hmm_ref_stream - a process goes through its memory
 * @next: page number after what the last fault has brought
 * @order: that was 2^order pages
 */
struct hmm_ref_stream {
	unsigned long next;
	unsigned int order;
};

/**
 * struct hmm_ref_around - what a CPU remembers of its faults
 * @streams: the recent ones, the latest first
 * @caution: how often a new one has turned up lately, but for those that went on
 */
struct hmm_ref_around {
	struct hmm_ref_stream streams[HMM_REF_STREAMS];
	unsigned int caution;
};

unsigned long hmm_ref_fault_around(struct hmm_ref_device *dev, unsigned long addr);

/* ---- main.c: devices --------------------------------------------------- */

/**
 * struct hmm_ref_device - one /dev/hmm_refN
 * @ref: one for the bound driver, one per open file
 * @name: of the character device and the debugfs folder
 * @unplug: an operation that has found @gone unset runs to its end
 * @gone: unbound; set once, read under @unplug
 * @fault_around: pages that a CPU fault brings back at the most; knob
 * @around: how many these are, from experience
 * @dm: its memory
 * @counters: totals
 * @evict_lock: covers @evict_scratch; killable
 * @evict_scratch: scratch memory of eviction
 * @last_room: when a page has last come free for a task that waits, in jiffies; covered by
 *	hmm_ref_devmem::room_lock
 * @clients_lock: covers @clients
 * @clients: open files
 * @misc: character device
 * @dmirror: the same for the old interface; @dmirror_name is empty if there is none
 * @dmirror_name: of @dmirror
 * @debugfs: folder
 */
struct hmm_ref_device {
	struct kref ref;
	char name[16];
	struct srcu_struct unplug;
	bool gone;
	u32 fault_around;
	struct hmm_ref_around __percpu *around;
	struct hmm_ref_devmem dm;
	struct hmm_ref_counters __percpu *counters;
	struct mutex evict_lock;	/* evict_scratch */
	struct hmm_ref_scratch evict_scratch;
	unsigned long last_room;
	struct mutex clients_lock;	/* list of clients */
	struct list_head clients;
	struct miscdevice misc;
	struct miscdevice dmirror;
	char dmirror_name[16];
	struct dentry *debugfs;
};

/**
 * struct hmm_ref_client - one open file
 * @dev: device, referenced
 * @owner: what the pages of this client point at, referenced
 * @mirror: of the mm that opened the file
 * @migrate_lock: covers @scratch; killable
 * @scratch: for its migrations
 * @node: on hmm_ref_device::clients
 */
struct hmm_ref_client {
	struct hmm_ref_device *dev;
	struct hmm_ref_owner *owner;
	struct hmm_ref_mirror mirror;
	struct mutex migrate_lock;	/* scratch */
	struct hmm_ref_scratch scratch;
	struct list_head node;
};

void hmm_ref_device_stats(struct hmm_ref_device *dev, struct hmm_ref_stats *stats);

/* ---- client.c: open files ---------------------------------------------- */

struct file;
struct seq_file;

void hmm_ref_device_put(struct hmm_ref_device *dev);
struct hmm_ref_client *hmm_ref_client_open(struct hmm_ref_device *dev);
void hmm_ref_client_close(struct hmm_ref_client *client);
void hmm_ref_client_show_fdinfo(struct seq_file *m, const struct hmm_ref_client *client);
void hmm_ref_clients_zap(struct hmm_ref_device *dev);
int hmm_ref_check_range(u64 addr, u64 length, unsigned int align);

/* ---- ioctl.c, dmirror.c, debugfs.c ------------------------------------- */

long hmm_ref_ioctl(struct file *file, unsigned int cmd, unsigned long arg);

#ifdef CONFIG_HMM_REF_DMIRROR
int hmm_ref_dmirror_check(void);
int hmm_ref_dmirror_add(struct hmm_ref_device *dev, unsigned int index);
void hmm_ref_dmirror_remove(struct hmm_ref_device *dev);
#else
static inline int hmm_ref_dmirror_check(void)
{
	return 0;
}

static inline int hmm_ref_dmirror_add(struct hmm_ref_device *dev, unsigned int index)
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

#endif /* _HMM_REF_H */
