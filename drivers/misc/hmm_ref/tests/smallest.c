// SPDX-License-Identifier: GPL-2.0-only
/*
 * The smallest driver for device-private memory: read this file first.
 *
 * A migration has four steps, and migrate_window() shows them on one screen:
 *
 *   migrate_vma_setup()     lock and unmap the source pages
 *   fill()                  the driver's own: a locked page for each source
 *                           page, and the copies
 *   migrate_vma_pages()     commit page by page
 *   migrate_vma_finalize()  map the result, unlock and put both sides
 *
 * MIGRATE calls it in both directions, and CPU faults call it, too. The rest of
 * this file creates device pages (make_pages()), hands them out (take(),
 * fill_device()) and takes them back (floor_folio_free()). It follows the
 * idle-start rules of devmem.c:
 *
 * - A free page has reference count 0. It is on one of two stacks, of single
 *   pages and of blocks, linked by zone_device_data. Half of the memory is
 *   blocks, so single pages never break up a block. When the core splits a
 *   block, its parts stay single pages.
 * - zone_device_folio_init() takes the first reference, when a page is handed
 *   out, and makes it a folio of the given order, whatever it was before.
 * - A page returns by folio_free and by nothing else. The core frees private
 *   pages in process context, so a plain spinlock suffices.
 *
 * The device is /dev/hmm_ref_floor, with one command, HMM_REF_IOC_MIGRATE. The
 * benchmark hmm_ref_bench compares other drivers with it: every driver needs
 * each instruction in this file. The driver has no other use, because it lacks
 * these parts:
 *
 *   no page table of the device, and no notifier    mirror.c, range_fault.c
 *   no owner of a page                              devmem.c
 *   no reservation, so a full device stops in the
 *   middle; no eviction, no second try              reserve.c, migrate_evict.c,
 *                                                   migrate_cmd.c
 *   a large page that cannot be allocated fails
 *   the CPU fault                                   migrate_fault.c
 *   a failed copy of the device goes unnoticed      job.c, migrate.c
 *   no sleep, no removal while a page is used       sleep.c, device.c
 *
 * The module has a reference while a page is used, so it cannot be unloaded
 * then. The return of the last page drops that reference while folio_free still
 * runs, but memunmap_pages() waits for the core's reference to the pagemap,
 * which the core drops later.
 *
 * Output counts: migrated is the pages that moved, skipped is the pages that
 * setup collected and that did not move, already is the rest. The driver does
 * not check for pages that KSM has merged (compat/setup.c).
 */
#include <linux/dma-fence.h>
#include <linux/dma-mapping.h>
#include <linux/fs.h>
#include <linux/highmem.h>
#include <linux/ioport.h>
#include <linux/memremap.h>
#include <linux/migrate.h>
#include <linux/miscdevice.h>
#include <linux/module.h>
#include <linux/pagemap.h>
#include <linux/sched.h>
#include <linux/slab.h>
#include <linux/uaccess.h>
#include <linux/vmalloc.h>

#include <uapi/hmm_ref.h>

#define PMD_PAGES	(PMD_SIZE >> PAGE_SHIFT)
#define GFP_LARGE	(GFP_TRANSHUGE | __GFP_NORETRY | __GFP_NOWARN)

static char *size = "64M";
module_param(size, charp, 0444);
MODULE_PARM_DESC(size,
		 "memory, half single pages and half blocks (default 64M)");

static struct {
	spinlock_t lock;	/* covers both stacks and used */
	void *pages;		/* stack of single pages */
	void *blocks;		/* stack of blocks: their first pages */
	unsigned long used;	/* pages handed out */
	struct dev_pagemap pagemap;
	struct resource *region; /* addresses that only name device pages */
	char *storage;		/* stands for the memory on the card */
	struct device *device;	/* system memory is mapped for its DMA */
	u64 context;		/* fence context */
	atomic64_t seqno;	/* number of the last fence */
} dev = {
	.lock = __SPIN_LOCK_UNLOCKED(dev.lock),
};

/* Arrays for a PMD. An open file has one; a PMD fault allocates its own. */
struct window {
	struct mutex lock;	/* covers the arrays */
	unsigned long src[PMD_PAGES];
	unsigned long dst[PMD_PAGES];
};

/* ---- device memory ----------------------------------------------------- */

static unsigned long first_pfn(void)
{
	return PHYS_PFN(dev.pagemap.range.start);
}

/* The memory behind a device page. No CPU can access the page's own address. */
static void *storage_of(const struct page *dev_page)
{
	unsigned long index = page_to_pfn(dev_page) - first_pfn();

	return dev.storage + (index << PAGE_SHIFT);
}

static void push(void **stack, struct page *dev_page)
{
	dev_page->zone_device_data = *stack;
	*stack = dev_page;
}

/*
 * Take up to @nr entries off a stack, each of @pages pages; @nr is not 0. Their
 * reference count is still 0, and only the caller knows about them. Return: the
 * first entry, linked as on the stack, or NULL.
 */
static struct page *take(void **stack, unsigned long nr, unsigned long pages)
{
	void **link = stack;
	unsigned long got;
	void *first;

	spin_lock(&dev.lock);
	first = *stack;
	for (got = 0; got < nr && *link; got++)
		link = &((struct page *)*link)->zone_device_data;
	*stack = *link;
	*link = NULL;
	if (got && !dev.used)
		__module_get(THIS_MODULE);
	dev.used += got * pages;
	spin_unlock(&dev.lock);
	return first;
}

/*
 * folio_free: the count has become 0, and the core no longer uses the data. The
 * push is the last access to the page: another CPU may hand it out immediately.
 * The caller may hold a page table lock, so this function does not sleep.
 */
static void floor_folio_free(struct folio *folio)
{
	unsigned long nr = folio_nr_pages(folio);
	struct page *page = folio_page(folio, 0);
	unsigned long i;

	/* Migration only adds flags, and these two together are a BUG. */
	__folio_clear_active(folio);
	__folio_clear_unevictable(folio);
	spin_lock(&dev.lock);
	if (nr == PMD_PAGES) {
		push(&dev.blocks, page);
	} else {
		for (i = 0; i < nr; i++)
			push(&dev.pages, page + i);
	}
	dev.used -= nr;
	if (!dev.used)
		module_put(THIS_MODULE);
	spin_unlock(&dev.lock);
}

/* ---- migration --------------------------------------------------------- */

static bool is_page(unsigned long src)
{
	return (src & MIGRATE_PFN_VALID) && (src & MIGRATE_PFN_MIGRATE);
}

static unsigned long nr_pages(unsigned long src)
{
	return src & MIGRATE_PFN_COMPOUND ? PMD_PAGES : 1;
}

/*
 * A fence per batch, as for a device that copies asynchronously. Here the CPU
 * copies synchronously; the fence exists only because a driver for hardware
 * pays its cost, too.
 */
struct batch {
	struct dma_fence fence;
	spinlock_t lock;	/* fence */
};

static const char *fence_name(struct dma_fence *fence)
{
	return "hmm_ref_floor";
}

static const struct dma_fence_ops fence_ops = {
	.get_driver_name = fence_name,
	.get_timeline_name = fence_name,
};

/* GFP_NOIO: folios are locked, and reclaim may wait for them. */
static struct batch *begin_batch(void)
{
	struct batch *batch = kmalloc_obj(*batch, GFP_NOIO);

	if (batch) {
		spin_lock_init(&batch->lock);
		dma_fence_init(&batch->fence, &fence_ops, &batch->lock,
			       dev.context, atomic64_inc_return(&dev.seqno));
	}
	return batch;
}

static void end_batch(struct batch *batch)
{
	dma_fence_signal(&batch->fence);
	dma_fence_wait_timeout(&batch->fence, false, MAX_SCHEDULE_TIMEOUT);
	dma_fence_put(&batch->fence);
}

/*
 * Fill a device page, or a whole block, from system memory. For a hole, clear
 * the page: the memory still has the data of its last user.
 */
static bool copy_in(struct page *dev_page, struct page *sys_page,
		    unsigned long nr)
{
	void *to = storage_of(dev_page);
	dma_addr_t addr;
	unsigned long i;

	if (!sys_page) {
		memset(to, 0, nr << PAGE_SHIFT);
		return true;
	}
	addr = dma_map_page(dev.device, sys_page, 0, nr << PAGE_SHIFT,
			    DMA_TO_DEVICE);
	if (dma_mapping_error(dev.device, addr))
		return false;
	for (i = 0; i < nr; i++) {
		void *from = kmap_local_page(sys_page + i);

		copy_page(to + (i << PAGE_SHIFT), from);
		kunmap_local(from);
	}
	dma_unmap_page(dev.device, addr, nr << PAGE_SHIFT, DMA_TO_DEVICE);
	return true;
}

/* The same, from the device to system memory. A device has no holes. */
static bool copy_out(struct page *sys_page, const struct page *dev_page,
		     unsigned long nr)
{
	void *from = storage_of(dev_page);
	dma_addr_t addr;
	unsigned long i;

	addr = dma_map_page(dev.device, sys_page, 0, nr << PAGE_SHIFT,
			    DMA_FROM_DEVICE);
	if (dma_mapping_error(dev.device, addr))
		return false;
	for (i = 0; i < nr; i++) {
		void *to = kmap_local_page(sys_page + i);

		copy_page(to, from + (i << PAGE_SHIFT));
		kunmap_local(to);
	}
	dma_unmap_page(dev.device, addr, nr << PAGE_SHIFT, DMA_FROM_DEVICE);
	return true;
}

/*
 * Provide a device page for each entry that moves. MIGRATE_PFN_MIGRATE without
 * MIGRATE_PFN_VALID is a hole, which also moves. If dst stays 0, the page stays
 * in place, so an error needs no rollback.
 *
 * After a failed copy, the device page already has a reference. It returns the
 * usual way, by unlock and put, never directly to the stack. Return: 0, or
 * -ENOMEM if the device has too few pages of the kind.
 */
static int fill_device(struct migrate_vma *args)
{
	unsigned long compound = args->src[0] & MIGRATE_PFN_COMPOUND;
	unsigned int order = compound ? PMD_ORDER : 0;
	struct page *dev_page, *next;
	unsigned long i;

	if (!args->cpages)
		return 0;
	next = order ? take(&dev.blocks, 1, PMD_PAGES) :
		       take(&dev.pages, args->cpages, 1);
	for (i = 0; i < args->npages && next; i++) {
		if (!(args->src[i] & MIGRATE_PFN_MIGRATE))
			continue;
		dev_page = next;
		next = dev_page->zone_device_data;
		/* Count 0 -> 1, locked, a reference to the pagemap per page. */
		zone_device_folio_init((struct folio *)dev_page, &dev.pagemap,
				       order);
		if (copy_in(dev_page, migrate_pfn_to_page(args->src[i]),
			    1UL << order)) {
			args->dst[i] = migrate_pfn(page_to_pfn(dev_page)) |
				       compound;
		} else {
			unlock_page(dev_page);
			put_page(dev_page);
		}
	}
	for (; i < args->npages; i++) {
		if (args->src[i] & MIGRATE_PFN_MIGRATE)
			return -ENOMEM;
	}
	return 0;
}

/*
 * Provide a system page for each entry that is a page. Leave holes alone: the
 * process has discarded these pages, and a copy would restore their data.
 * Return: 0, or -ENOMEM; then the page that failed and all pages after it stay
 * on the device.
 */
static int fill_system(struct migrate_vma *args)
{
	struct folio *folio;
	unsigned long i;

	for (i = 0; i < args->npages; i += nr_pages(args->src[i])) {
		unsigned long compound = args->src[i] & MIGRATE_PFN_COMPOUND;

		if (!is_page(args->src[i]))
			continue;
		folio = vma_alloc_folio(compound ? GFP_LARGE :
						   GFP_HIGHUSER_MOVABLE,
					compound ? PMD_ORDER : 0, args->vma,
					args->start + (i << PAGE_SHIFT));
		if (!folio)
			return -ENOMEM;
		if (!copy_out(folio_page(folio, 0),
			      migrate_pfn_to_page(args->src[i]),
			      nr_pages(args->src[i]))) {
			folio_put(folio);
			return -ENOMEM;
		}
		__folio_set_locked(folio);
		args->dst[i] = migrate_pfn(folio_pfn(folio)) | compound;
	}
	return 0;
}

/* The copies are complete on return. Return: same as the functions above. */
static int fill(struct migrate_vma *args, bool to_device)
{
	struct batch *batch = begin_batch();
	int rc;

	if (!batch)
		return -ENOMEM;
	rc = to_device ? fill_device(args) : fill_system(args);
	end_batch(batch);
	return rc;
}

/*
 * Select the pages to collect: those in system memory, or those on this device,
 * which pgmap_owner identifies. Large folios stay whole if the window covers a
 * whole PMD.
 */
static void select_pages(struct migrate_vma *args, bool to_device)
{
	args->pgmap_owner = &dev;
	args->flags = to_device ? MIGRATE_VMA_SELECT_SYSTEM :
				  MIGRATE_VMA_SELECT_DEVICE_PRIVATE;
	if (args->end - args->start == PMD_SIZE &&
	    !(to_device && args->vma->vm_flags & VM_NOHUGEPAGE))
		args->flags |= MIGRATE_VMA_SELECT_COMPOUND;
}

/*
 * Called between migrate_vma_pages(), which clears MIGRATE_PFN_MIGRATE in
 * entries that the core refused, and finalize, which drops the pages. cpages
 * cannot be used instead: it counts holes, and counts a large folio as 1.
 */
static void count(const struct migrate_vma *args, struct hmm_ref_migrate *cmd)
{
	unsigned long tried = 0, moved = 0;
	unsigned long i;

	for (i = 0; i < args->npages; i++) {
		if (!args->dst[i])
			continue;
		tried += nr_pages(args->src[i]);
		if (args->src[i] & MIGRATE_PFN_MIGRATE)
			moved += nr_pages(args->src[i]);
	}
	cmd->out_migrated += moved;
	cmd->out_skipped += tried - moved;
	cmd->out_already += args->npages - tried;
}

/*
 * Migrate a window of one VMA and at most one PMD. The caller holds mmap_lock
 * for read from the lookup of the VMA until this function returns.
 */
static int migrate_window(struct migrate_vma *args, bool to_device,
			  struct hmm_ref_migrate *cmd)
{
	int rc;

	select_pages(args, to_device);
	/*
	 * 1. The process and its devices lose their mappings, so the data
	 * cannot change. Setup leaves out pages that are pinned, or locked by
	 * another task. It sets both arrays for the whole window.
	 */
	rc = migrate_vma_setup(args);
	if (rc)
		return rc;
	/* 2. Fill the destinations with data. This can still be undone. */
	rc = fill(args, to_device);
	/*
	 * 3. Commit. From here on nothing can be undone. This step also runs
	 * after an error: without it, page table entries would map pages
	 * without data.
	 */
	migrate_vma_pages(args);
	if (cmd)
		count(args, cmd);
	/* 4. The process maps either the old page or the new one. */
	migrate_vma_finalize(args);
	return rc;
}

/* One window at a time, each in one VMA and one PMD. */
static int migrate_range(struct window *window, struct hmm_ref_migrate *cmd)
{
	struct migrate_vma args = { .src = window->src, .dst = window->dst };
	unsigned long last = cmd->addr + cmd->length;
	struct mm_struct *mm = current->mm;
	int rc = 0;

	mmap_read_lock(mm);
	for (args.start = cmd->addr; args.start < last && !rc;
	     args.start = args.end) {
		args.vma = vma_lookup(mm, args.start);
		if (!args.vma) {
			rc = -EFAULT;
			break;
		}
		args.end = min3(last, args.vma->vm_end,
				ALIGN(args.start + 1, PMD_SIZE));
		rc = migrate_window(&args, cmd->direction == HMM_REF_TO_DEVICE,
				    cmd);
	}
	mmap_read_unlock(mm);
	return rc;
}

/* ---- CPU faults -------------------------------------------------------- */

/* Do not kill a process when memory is short: SIGBUS is for other errors. */
static vm_fault_t fault_result(int rc)
{
	if (rc == -ENOMEM)
		return VM_FAULT_OOM;
	return rc ? VM_FAULT_SIGBUS : 0;
}

/* Migrate a PMD as a whole, or not at all. */
static vm_fault_t fault_pmd(struct vm_fault *vmf)
{
	struct window *window = kmalloc_obj(*window, GFP_KERNEL);
	struct migrate_vma args = {
		.vma = vmf->vma,
		.start = vmf->address & PMD_MASK,
		.end = (vmf->address & PMD_MASK) + PMD_SIZE,
		.fault_page = vmf->page,
	};
	int rc;

	if (!window)
		return VM_FAULT_OOM;
	args.src = window->src;
	args.dst = window->dst;
	rc = migrate_window(&args, false, NULL);
	kfree(window);
	return fault_result(rc);
}

/*
 * A CPU has touched a device page. The core holds mmap_lock, and has locked
 * vmf->page and taken a reference. fault_page tells setup about both: without
 * it, the page would look used and never move. Return 0 even if the page did
 * not move: the CPU then touches it again.
 */
static vm_fault_t migrate_to_ram(struct vm_fault *vmf)
{
	unsigned long src, dst;
	struct migrate_vma args = {
		.vma = vmf->vma,
		.src = &src,
		.dst = &dst,
		.start = vmf->address & PAGE_MASK,
		.end = (vmf->address & PAGE_MASK) + PAGE_SIZE,
		.fault_page = vmf->page,
	};

	if (!vmf->pte)
		return fault_pmd(vmf);
	return fault_result(migrate_window(&args, false, NULL));
}

static const struct dev_pagemap_ops pagemap_ops = {
	.folio_free = floor_folio_free,
	.migrate_to_ram = migrate_to_ram,
};

/* ---- the file ---------------------------------------------------------- */

static int check_cmd(const struct hmm_ref_migrate *cmd)
{
	if (cmd->flags || cmd->__reserved)
		return -EOPNOTSUPP;
	if (cmd->size != sizeof(*cmd) || !cmd->length ||
	    !PAGE_ALIGNED(cmd->addr | cmd->length) ||
	    (cmd->direction != HMM_REF_TO_DEVICE &&
	     cmd->direction != HMM_REF_TO_SYSTEM))
		return -EINVAL;
	return cmd->addr + cmd->length < cmd->addr ? -EOVERFLOW : 0;
}

static long floor_ioctl(struct file *file, unsigned int nr, unsigned long arg)
{
	struct window *window = file->private_data;
	void __user *ucmd = (void __user *)arg;
	struct hmm_ref_migrate cmd;
	int rc;

	if (nr != HMM_REF_IOC_MIGRATE)
		return -ENOTTY;
	if (copy_from_user(&cmd, ucmd, sizeof(cmd)))
		return -EFAULT;
	rc = check_cmd(&cmd);
	if (rc)
		return rc;
	cmd.out_migrated = 0;
	cmd.out_already = 0;
	cmd.out_skipped = 0;
	mutex_lock(&window->lock);
	rc = migrate_range(window, &cmd);
	mutex_unlock(&window->lock);
	return copy_to_user(ucmd, &cmd, sizeof(cmd)) ? -EFAULT : rc;
}

static int floor_open(struct inode *inode, struct file *file)
{
	struct window *window = kmalloc_obj(*window, GFP_KERNEL);

	if (!window)
		return -ENOMEM;
	mutex_init(&window->lock);
	file->private_data = window;
	return 0;
}

static int floor_release(struct inode *inode, struct file *file)
{
	kfree(file->private_data);
	return 0;
}

static const struct file_operations floor_fops = {
	.owner = THIS_MODULE,
	.open = floor_open,
	.release = floor_release,
	.unlocked_ioctl = floor_ioctl,
};

static struct miscdevice floor_misc = {
	.minor = MISC_DYNAMIC_MINOR,
	.name = "hmm_ref_floor",
	.fops = &floor_fops,
	.mode = 0600,
};

/* ---- the module -------------------------------------------------------- */

/* The first half is single pages, the lowest on top; the rest is blocks. */
static void fill_stacks(unsigned long nr)
{
	unsigned long i;

	for (i = nr; i > nr / 2; i -= PMD_PAGES)
		push(&dev.blocks, pfn_to_page(first_pfn() + i - PMD_PAGES));
	for (; i; i--)
		push(&dev.pages, pfn_to_page(first_pfn() + i - 1));
}

/*
 * Create struct pages for the memory, at physical addresses that nothing
 * decodes. They start with reference count 0, so they can go on the stacks
 * immediately.
 */
static int make_pages(unsigned long bytes)
{
	void *addr;

	dev.region = request_free_mem_region(&iomem_resource, bytes,
					     "hmm_ref_floor");
	if (IS_ERR(dev.region))
		return PTR_ERR(dev.region);
	dev.pagemap.type = MEMORY_DEVICE_PRIVATE;
	dev.pagemap.range.start = dev.region->start;
	dev.pagemap.range.end = dev.region->start + bytes - 1;
	dev.pagemap.nr_range = 1;
	dev.pagemap.ops = &pagemap_ops;
	dev.pagemap.owner = &dev;
	addr = memremap_pages(&dev.pagemap, NUMA_NO_NODE);
	if (IS_ERR(addr)) {
		release_mem_region(dev.region->start,
				   resource_size(dev.region));
		return PTR_ERR(addr);
	}
	fill_stacks(bytes >> PAGE_SHIFT);
	return 0;
}

static void free_pages_all(void)
{
	memunmap_pages(&dev.pagemap);
	release_mem_region(dev.region->start, resource_size(dev.region));
}

static int __init floor_init(void)
{
	unsigned long bytes = round_up(memparse(size, NULL), 2 * PMD_SIZE);
	int rc;

	if (!bytes)
		return -EINVAL;
	dev.storage = vmalloc_huge(bytes, GFP_KERNEL);
	if (!dev.storage)
		return -ENOMEM;
	rc = make_pages(bytes);
	if (rc)
		goto err_storage;
	rc = misc_register(&floor_misc);
	if (rc)
		goto err_pages;
	dev.device = floor_misc.this_device;
	dev.context = dma_fence_context_alloc(1);
	rc = dma_coerce_mask_and_coherent(dev.device, DMA_BIT_MASK(64));
	if (rc)
		goto err_misc;
	return 0;

err_misc:
	misc_deregister(&floor_misc);
err_pages:
	free_pages_all();
err_storage:
	vfree(dev.storage);
	return rc;
}

static void __exit floor_exit(void)
{
	misc_deregister(&floor_misc);
	free_pages_all();
	vfree(dev.storage);
}

module_init(floor_init);
module_exit(floor_exit);

MODULE_DESCRIPTION("The smallest driver for device memory, for hmm_ref_bench");
MODULE_LICENSE("GPL");
