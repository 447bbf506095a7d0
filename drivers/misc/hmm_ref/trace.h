/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Tracepoints: the life of a page and the work of the device, for trace-cmd,
 * perf and bpftrace. How to read them:
 * Documentation/misc-devices/hmm_ref/tracing.rst.
 *
 * - TP_fast_assign() collects all values from objects that the caller has, so a
 *   disabled event costs an untaken branch and no arguments.
 * - Events read no object that may have another owner by then. Events of a page
 *   come while it belongs to the caller: after its first reference, before it
 *   is published.
 * - Values are user addresses and device page numbers, not kernel pointers or
 *   strings. Each event identifies its device (dev) by number.
 * - Symbolic values are enums, which user space can resolve too.
 */
#ifndef _HMM_REF_TRACE_VALUES
#define _HMM_REF_TRACE_VALUES

#include <linux/mm_types.h>

/**
 * enum hmm_ref_retry - operation that is retried
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
 * enum hmm_ref_fault_result - outcome of a CPU fault, exported to trace tools
 * @HMM_REF_FAULT_DONE: the CPU retries the access
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

#endif /* _HMM_REF_TRACE_VALUES */

#undef TRACE_SYSTEM
#define TRACE_SYSTEM hmm_ref

#if !defined(_HMM_REF_TRACE_H) || defined(TRACE_HEADER_MULTI_READ)
#define _HMM_REF_TRACE_H

#include <linux/ktime.h>
#include <linux/mmu_notifier.h>
#include <linux/tracepoint.h>

#include "hmm_ref.h"

TRACE_DEFINE_ENUM(HMM_REF_BLOCK_WHOLE);
TRACE_DEFINE_ENUM(HMM_REF_BLOCK_PARTIAL);
TRACE_DEFINE_ENUM(HMM_REF_BLOCK_FULL);
TRACE_DEFINE_ENUM(HMM_REF_BLOCK_RESERVED);
TRACE_DEFINE_ENUM(HMM_REF_SYS_TO_DEV);
TRACE_DEFINE_ENUM(HMM_REF_DEV_TO_SYS);
TRACE_DEFINE_ENUM(HMM_REF_RETRY_MIGRATE);
TRACE_DEFINE_ENUM(HMM_REF_RETRY_FAULT);
TRACE_DEFINE_ENUM(HMM_REF_RETRY_EXCLUSIVE);
TRACE_DEFINE_ENUM(HMM_REF_FAULT_DONE);
TRACE_DEFINE_ENUM(HMM_REF_FAULT_OOM);
TRACE_DEFINE_ENUM(HMM_REF_FAULT_SIGBUS);
TRACE_DEFINE_ENUM(HMM_REF_FAULT_HWPOISON);
TRACE_DEFINE_ENUM(HMM_REF_FAULT_RETRY);
TRACE_DEFINE_ENUM(MMU_NOTIFY_UNMAP);
TRACE_DEFINE_ENUM(MMU_NOTIFY_CLEAR);
TRACE_DEFINE_ENUM(MMU_NOTIFY_PROTECTION_VMA);
TRACE_DEFINE_ENUM(MMU_NOTIFY_PROTECTION_PAGE);
TRACE_DEFINE_ENUM(MMU_NOTIFY_SOFT_DIRTY);
TRACE_DEFINE_ENUM(MMU_NOTIFY_RELEASE);
TRACE_DEFINE_ENUM(MMU_NOTIFY_MIGRATE);
TRACE_DEFINE_ENUM(MMU_NOTIFY_EXCLUSIVE);

#define show_block_state(state)					\
	__print_symbolic(state,					\
			 { HMM_REF_BLOCK_WHOLE, "WHOLE" },	\
			 { HMM_REF_BLOCK_PARTIAL, "PARTIAL" },	\
			 { HMM_REF_BLOCK_FULL, "FULL" },	\
			 { HMM_REF_BLOCK_RESERVED, "RESERVED" })

#define show_direction(way)					\
	__print_symbolic(way,					\
			 { HMM_REF_SYS_TO_DEV, "TO_DEVICE" },	\
			 { HMM_REF_DEV_TO_SYS, "TO_SYSTEM" })

#define show_retry(loop)					\
	__print_symbolic(loop,					\
			 { HMM_REF_RETRY_MIGRATE, "MIGRATE" },	\
			 { HMM_REF_RETRY_FAULT, "FAULT" },	\
			 { HMM_REF_RETRY_EXCLUSIVE, "EXCLUSIVE" })

#define show_result(result)					\
	__print_symbolic(result,				\
			 { HMM_REF_FAULT_DONE, "DONE" },	\
			 { HMM_REF_FAULT_OOM, "OOM" },		\
			 { HMM_REF_FAULT_SIGBUS, "SIGBUS" },	\
			 { HMM_REF_FAULT_RETRY, "RETRY" })

#define show_notify(event)						\
	__print_symbolic(event,						\
			 { MMU_NOTIFY_UNMAP, "UNMAP" },			\
			 { MMU_NOTIFY_CLEAR, "CLEAR" },			\
			 { MMU_NOTIFY_PROTECTION_VMA, "PROTECTION_VMA" },	\
			 { MMU_NOTIFY_PROTECTION_PAGE, "PROTECTION_PAGE" },	\
			 { MMU_NOTIFY_SOFT_DIRTY, "SOFT_DIRTY" },	\
			 { MMU_NOTIFY_RELEASE, "RELEASE" },		\
			 { MMU_NOTIFY_MIGRATE, "MIGRATE" },		\
			 { MMU_NOTIFY_EXCLUSIVE, "EXCLUSIVE" })

/* ---- device pages ------------------------------------------------------ */

/* The folio belongs to the caller: it has its owner, and is not split. */
DECLARE_EVENT_CLASS(hmm_ref_page,
	TP_PROTO(struct folio *folio),
	TP_ARGS(folio),
	TP_STRUCT__entry(
		__field(unsigned int, dev)
		__field(unsigned int, order)
		__field(unsigned long, dpfn)
		__field(pid_t, owner)
	),
	TP_fast_assign(
		struct page *page = folio_page(folio, 0);
		const struct hmm_ref_devmem *dm = page_pgmap(page)->owner;
		const struct hmm_ref_owner *owner = page->zone_device_data;

		__entry->dev = dm->id;
		__entry->order = folio_order(folio);
		__entry->dpfn = hmm_ref_page_dpfn(page);
		__entry->owner = pid_nr(owner->opener);
	),
	TP_printk("dev=%u dpfn=%#lx order=%u owner=%d", __entry->dev,
		  __entry->dpfn, __entry->order, __entry->owner)
);

DEFINE_EVENT(hmm_ref_page, hmm_ref_page_handout,
	TP_PROTO(struct folio *folio),
	TP_ARGS(folio)
);

DEFINE_EVENT(hmm_ref_page, hmm_ref_page_free,
	TP_PROTO(struct folio *folio),
	TP_ARGS(folio)
);

TRACE_EVENT(hmm_ref_block_state,
	TP_PROTO(const struct hmm_ref_block *block,
		 enum hmm_ref_block_state to),
	TP_ARGS(block, to),
	TP_STRUCT__entry(
		__field(unsigned int, dev)
		__field(unsigned int, from)
		__field(unsigned int, to)
		__field(unsigned int, used)
		__field(unsigned long, dpfn)
	),
	TP_fast_assign(
		__entry->dev = block->chunk->dm->id;
		__entry->from = block->state;
		__entry->to = to;
		__entry->used = block->nr_used;
		__entry->dpfn = hmm_ref_block_dpfn(block);
	),
	TP_printk("dev=%u dpfn=%#lx from=%s to=%s used=%u", __entry->dev,
		  __entry->dpfn, show_block_state(__entry->from),
		  show_block_state(__entry->to), __entry->used)
);

DECLARE_EVENT_CLASS(hmm_ref_chunk,
	TP_PROTO(const struct hmm_ref_chunk *chunk),
	TP_ARGS(chunk),
	TP_STRUCT__entry(
		__field(unsigned int, dev)
		__field(unsigned long, dpfn)
		__field(unsigned long, npages)
		__field(unsigned long, pfn)
	),
	TP_fast_assign(
		__entry->dev = chunk->dm->id;
		__entry->dpfn = chunk->first_dpfn;
		__entry->npages = chunk->nr_blocks * HMM_REF_BLOCK_PAGES;
		__entry->pfn = hmm_ref_chunk_pfn(chunk);
	),
	TP_printk("dev=%u dpfn=%#lx npages=%lu pfn=%#lx", __entry->dev,
		  __entry->dpfn, __entry->npages, __entry->pfn)
);

DEFINE_EVENT(hmm_ref_chunk, hmm_ref_chunk_add,
	TP_PROTO(const struct hmm_ref_chunk *chunk),
	TP_ARGS(chunk)
);

DEFINE_EVENT(hmm_ref_chunk, hmm_ref_chunk_remove,
	TP_PROTO(const struct hmm_ref_chunk *chunk),
	TP_ARGS(chunk)
);

/* ---- moving data ------------------------------------------------------- */

TRACE_EVENT(hmm_ref_migrate_begin,
	TP_PROTO(const struct hmm_ref_client *client,
		 const struct hmm_ref_migration *m),
	TP_ARGS(client, m),
	TP_STRUCT__entry(
		__field(unsigned int, dev)
		__field(unsigned int, direction)
		__field(pid_t, owner)
		__field(unsigned long, addr)
		__field(unsigned long, npages)
	),
	TP_fast_assign(
		__entry->dev = client->dev->dm.id;
		__entry->direction = m->way;
		__entry->owner = pid_nr(client->owner->opener);
		__entry->addr = m->start;
		__entry->npages = (m->end - m->start) >> PAGE_SHIFT;
	),
	TP_printk("dev=%u %s owner=%d addr=%#lx npages=%lu", __entry->dev,
		  show_direction(__entry->direction), __entry->owner,
		  __entry->addr, __entry->npages)
);

/* @begin: start of the command in ns; 0 if it was not traced. */
TRACE_EVENT(hmm_ref_migrate_end,
	TP_PROTO(const struct hmm_ref_client *client,
		 const struct hmm_ref_migration *m, int rc, u64 begin),
	TP_ARGS(client, m, rc, begin),
	TP_STRUCT__entry(
		__field(unsigned int, dev)
		__field(unsigned int, direction)
		__field(pid_t, owner)
		__field(int, rc)
		__field(unsigned long, addr)
		__field(unsigned long, npages)
		__field(unsigned long, migrated)
		__field(unsigned long, already)
		__field(unsigned long, skipped)
		__field(u64, ns)
	),
	TP_fast_assign(
		__entry->dev = client->dev->dm.id;
		__entry->direction = m->way;
		__entry->owner = pid_nr(client->owner->opener);
		__entry->rc = rc;
		__entry->addr = m->start;
		__entry->npages = (m->end - m->start) >> PAGE_SHIFT;
		__entry->migrated = m->tally.moved;
		__entry->already = m->tally.already;
		__entry->skipped = m->tally.skipped;
		__entry->ns = begin ? ktime_get_ns() - begin : 0;
	),
	TP_printk("dev=%u %s owner=%d addr=%#lx npages=%lu migrated=%lu already=%lu skipped=%lu rc=%d ns=%llu",
		  __entry->dev, show_direction(__entry->direction),
		  __entry->owner, __entry->addr, __entry->npages,
		  __entry->migrated, __entry->already, __entry->skipped,
		  __entry->rc, __entry->ns)
);

/* The reference of the fault keeps the page, so its number is still valid. */
TRACE_EVENT(hmm_ref_cpu_fault,
	TP_PROTO(const struct hmm_ref_devmem *dm, const struct vm_fault *vmf,
		 unsigned long moved, vm_fault_t result),
	TP_ARGS(dm, vmf, moved, result),
	TP_STRUCT__entry(
		__field(unsigned int, dev)
		__field(unsigned int, order)
		__field(unsigned long, addr)
		__field(unsigned long, dpfn)
		__field(unsigned long, moved)
		__field(unsigned int, result)
	),
	TP_fast_assign(
		__entry->dev = dm->id;
		__entry->order = vmf->pte ? 0 : HMM_REF_BLOCK_ORDER;
		__entry->addr = vmf->address;
		__entry->dpfn = hmm_ref_page_dpfn(vmf->page);
		__entry->moved = moved;
		__entry->result = (__force unsigned int)result;
	),
	TP_printk("dev=%u addr=%#lx dpfn=%#lx order=%u moved=%lu result=%s",
		  __entry->dev, __entry->addr, __entry->dpfn, __entry->order,
		  __entry->moved, show_result(__entry->result))
);

/* @begin: as above. */
TRACE_EVENT(hmm_ref_evict,
	TP_PROTO(const struct hmm_ref_block *block, unsigned long tried,
		 unsigned long moved, bool asked, u64 begin),
	TP_ARGS(block, tried, moved, asked, begin),
	TP_STRUCT__entry(
		__field(unsigned int, dev)
		__field(bool, stopped)
		__field(bool, asked)
		__field(unsigned long, dpfn)
		__field(unsigned long, tried)
		__field(unsigned long, moved)
		__field(u64, ns)
	),
	TP_fast_assign(
		const struct hmm_ref_devmem *dm = block->chunk->dm;

		__entry->dev = dm->id;
		__entry->stopped = READ_ONCE(dm->stopped);
		__entry->asked = asked;
		__entry->dpfn = hmm_ref_block_dpfn(block);
		__entry->tried = tried;
		__entry->moved = moved;
		__entry->ns = begin ? ktime_get_ns() - begin : 0;
	),
	TP_printk("dev=%u dpfn=%#lx reason=%s tried=%lu moved=%lu ns=%llu",
		  __entry->dev, __entry->dpfn,
		  __entry->asked ? "COMMAND" :
		  __entry->stopped ? "STOP" : "ROOM",
		  __entry->tried, __entry->moved, __entry->ns)
);

/* ---- seeing a process's memory ----------------------------------------- */

/* A fault of the device, which may have taken several attempts. */
TRACE_EVENT(hmm_ref_device_fault,
	TP_PROTO(const struct hmm_ref_mirror *mirror, unsigned long start,
		 unsigned long end, bool write, int rc),
	TP_ARGS(mirror, start, end, write, rc),
	TP_STRUCT__entry(
		__field(unsigned int, dev)
		__field(bool, write)
		__field(int, rc)
		__field(unsigned long, start)
		__field(unsigned long, end)
	),
	TP_fast_assign(
		__entry->dev = mirror->dm->id;
		__entry->write = write;
		__entry->rc = rc;
		__entry->start = start;
		__entry->end = end;
	),
	TP_printk("dev=%u start=%#lx end=%#lx write=%d rc=%d", __entry->dev,
		  __entry->start, __entry->end, __entry->write, __entry->rc)
);

/* Under the lock of the range, with the device's entries cleared. */
TRACE_EVENT(hmm_ref_invalidate,
	TP_PROTO(const struct hmm_ref_mirror *mirror,
		 const struct mmu_notifier_range *range, unsigned long seq),
	TP_ARGS(mirror, range, seq),
	TP_STRUCT__entry(
		__field(unsigned int, dev)
		__field(unsigned int, event)
		__field(pid_t, owner)
		__field(unsigned long, start)
		__field(unsigned long, end)
		__field(unsigned long, seq)
	),
	TP_fast_assign(
		__entry->dev = mirror->dm->id;
		__entry->event = range->event;
		__entry->owner = pid_nr(mirror->owner->opener);
		__entry->start = range->start;
		__entry->end = range->end;
		__entry->seq = seq;
	),
	TP_printk("dev=%u %s owner=%d start=%#lx end=%#lx seq=%lu",
		  __entry->dev, show_notify(__entry->event), __entry->owner,
		  __entry->start, __entry->end, __entry->seq)
);

/* @attempt: number of the attempt that failed, from 1. */
TRACE_EVENT(hmm_ref_retry,
	TP_PROTO(const struct hmm_ref_devmem *dm, enum hmm_ref_retry loop,
		 unsigned long addr, unsigned int attempt),
	TP_ARGS(dm, loop, addr, attempt),
	TP_STRUCT__entry(
		__field(unsigned int, dev)
		__field(unsigned int, loop)
		__field(unsigned long, addr)
		__field(unsigned int, attempt)
	),
	TP_fast_assign(
		__entry->dev = dm->id;
		__entry->loop = loop;
		__entry->addr = addr;
		__entry->attempt = attempt;
	),
	TP_printk("dev=%u %s addr=%#lx attempt=%u", __entry->dev,
		  show_retry(__entry->loop), __entry->addr, __entry->attempt)
);

#endif /* _HMM_REF_TRACE_H */

/* The Makefile adds this folder to the include path of trace.c. */
#undef TRACE_INCLUDE_PATH
#define TRACE_INCLUDE_PATH .
#undef TRACE_INCLUDE_FILE
#define TRACE_INCLUDE_FILE trace
#include <trace/define_trace.h>
