// SPDX-License-Identifier: GPL-2.0-only
/*
 * The old user interface: /dev/hmm_dmirror0 to 3, for programs written for
 * test_hmm.
 *
 * Devices 0 and 1 are the first two private devices, 2 and 3 the first two
 * coherent ones. This file implements nothing: it translates a command to the
 * functions that the native interface calls, and their results to the results
 * that the programs expect. The interfaces differ:
 *
 * - A file acts on the mm that opened it, no matter which process uses it; the
 *   buffer is the caller's. The functions called do not use current->mm, and
 *   the mm is kept alive around each command.
 * - A range is given in pages. An invalid range, or one with parts that are not
 *   readable when pages are to move, is refused as a whole: -EINVAL.
 * - Migration to the device fails with -ENOENT unless the whole range gets
 *   there. Migration and exclusive access return the data to the caller, as the
 *   device reads it.
 * - A snapshot has a byte per page.
 * - A fault of the old device covered the rest of the request. A fault of this
 *   driver covers as much of a window as succeeds, so a command reports the
 *   largest number of faults of any single page. This is the same number,
 *   unless another task interferes.
 *
 * Outputs are written even if a command fails.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/fs.h>
#include <linux/module.h>
#include <linux/overflow.h>
#include <linux/platform_device.h>
#include <linux/sched.h>
#include <linux/sched/mm.h>
#include <linux/slab.h>
#include <linux/uaccess.h>

#include <uapi/hmm_ref.h>

#include "../hmm_ref.h"
#include "../ioctl.h"

/* ---- the interface ----------------------------------------------------- */

/*
 * addr:       address of the first page of the range
 * buf:        user pointer: data, or the bytes of a snapshot
 * npages:     pages of the range; flags to set for FLAGS
 * out_pages:  pages done, counted from addr
 * out_faults: device faults
 */
struct dmirror_cmd {
	__u64 addr;
	__u64 buf;
	__u64 npages;
	__u64 out_pages;
	__u64 out_faults;
};

#define DMIRROR_IOC(nr)		_IOWR('H', nr, struct dmirror_cmd)

enum {
	DMIRROR_READ			= 0x00,
	DMIRROR_WRITE			= 0x01,
	DMIRROR_TO_DEVICE		= 0x02,
	DMIRROR_TO_SYSTEM		= 0x03,
	DMIRROR_SNAPSHOT		= 0x04,
	DMIRROR_EXCLUSIVE		= 0x05,
	DMIRROR_CHECK_EXCLUSIVE		= 0x06,
	DMIRROR_RELEASE			= 0x07,
	DMIRROR_FLAGS			= 0x08,
	DMIRROR_READ_UNLOCKED		= 0x09,
};

#define DMIRROR_FLAG_FAIL_LARGE	BIT_ULL(0) /* fail one large allocation */

/* A byte of a snapshot: location of the page, plus bits. */
enum {
	DMIRROR_AT_NOTHING		= 0x00, /* or in system memory */
	DMIRROR_AT_ZERO			= 0x10,
	DMIRROR_AT_PRIVATE		= 0x20,
	DMIRROR_AT_COHERENT		= 0x40,
	DMIRROR_AT_COHERENT_REMOTE	= 0x50,
	DMIRROR_AT_ERROR		= 0xff, /* without bits */
};

#define DMIRROR_BIT_READ	BIT(0)
#define DMIRROR_BIT_WRITE	BIT(1)
#define DMIRROR_BIT_PMD		BIT(2)
#define DMIRROR_BIT_PUD		BIT(3)

/**
 * struct dmirror_file - an open file
 * @client: client of the file
 * @fail_large: allocations of large pages fail in the next migration
 */
struct dmirror_file {
	struct hmm_ref_client *client;
	bool fail_large;
};

/* ---- access ------------------------------------------------------------ */

static u64 range_end(const struct dmirror_cmd *cmd)
{
	return cmd->addr + (cmd->npages << PAGE_SHIFT);
}

static int access_range(struct hmm_ref_client *client, struct dmirror_cmd *cmd,
			bool write)
{
	struct hmm_ref_transfer transfer = {
		.addr = cmd->addr,
		.end = range_end(cmd),
	};
	int rc = hmm_ref_transfer_begin(&transfer, write,
					u64_to_user_ptr(cmd->buf));

	if (!rc)
		rc = hmm_ref_client_access(client, &transfer);
	cmd->out_faults = transfer.most;
	cmd->out_pages = transfer.bytes >> PAGE_SHIFT;
	return rc;
}

/* Also READ_UNLOCKED: mmap_lock is not held while user space serves faults. */
static int cmd_read(struct dmirror_file *dmf, struct dmirror_cmd *cmd)
{
	return access_range(dmf->client, cmd, false);
}

static int cmd_write(struct dmirror_file *dmf, struct dmirror_cmd *cmd)
{
	return access_range(dmf->client, cmd, true);
}

static int cmd_exclusive(struct dmirror_file *dmf, struct dmirror_cmd *cmd)
{
	unsigned long done;
	int rc;

	rc = hmm_ref_mirror_exclusive(&dmf->client->mirror, cmd->addr,
				      range_end(cmd), &done);
	cmd->out_pages = done;
	/* The errnos of make_device_exclusive(). */
	if (rc == -EPERM)
		rc = -EFAULT;
	else if (rc == -EINVAL)
		rc = -EOPNOTSUPP;
	return rc ?: cmd_read(dmf, cmd);
}

/* ---- migration --------------------------------------------------------- */

static int check_readable(struct mm_struct *mm, u64 addr, u64 end)
{
	int rc = 0;

	if (mmap_read_lock_killable(mm))
		return -EINTR;
	while (!rc && addr < end) {
		struct vm_area_struct *vma = vma_lookup(mm, addr);

		if (vma && vma->vm_flags & VM_READ)
			addr = vma->vm_end;
		else
			rc = -EINVAL;
	}
	mmap_read_unlock(mm);
	return rc;
}

static int migrate_range(struct dmirror_file *dmf, struct dmirror_cmd *cmd,
			 struct hmm_ref_migration *m)
{
	struct hmm_ref_client *client = dmf->client;
	int rc;

	m->start = cmd->addr;
	m->end = range_end(cmd);
	rc = check_readable(client->mirror.mm, m->start, m->end);
	if (rc)
		return rc;
	m->flags = xchg(&dmf->fail_large, false) ? 0 : HMM_REF_KEEP_LARGE;
	rc = hmm_ref_migrate_range(client, m);
	return rc == -EFAULT ? -EINVAL : rc;
}

static int cmd_to_device(struct dmirror_file *dmf, struct dmirror_cmd *cmd)
{
	struct hmm_ref_migration m = { .way = HMM_REF_SYS_TO_DEV };
	int rc = migrate_range(dmf, cmd, &m);

	cmd->out_pages = m.tally.moved + m.tally.already;
	if (!rc && m.tally.skipped)
		rc = -ENOENT;
	if (rc)
		return rc;
	return cmd_read(dmf, cmd);
}

static int cmd_to_system(struct dmirror_file *dmf, struct dmirror_cmd *cmd)
{
	struct hmm_ref_migration m = { .way = HMM_REF_DEV_TO_SYS };
	int rc = migrate_range(dmf, cmd, &m);

	cmd->out_pages = m.tally.moved;
	return rc;
}

/* Evict all pages of the device, of all processes. Other clients continue. */
static int cmd_release(struct dmirror_file *dmf, struct dmirror_cmd *cmd)
{
	unsigned long deadline = jiffies + HMM_REF_PATIENCE;
	struct hmm_ref_client *client = dmf->client;
	struct hmm_ref_device *dev = client->dev;
	int rc = 0;

	while (!rc && hmm_ref_devmem_used(&dev->dm)) {
		rc = hmm_ref_evict_some(dev, false);
		if (!rc) {
			deadline = jiffies + HMM_REF_PATIENCE;
		} else if (rc == -ENOSPC) {
			schedule_timeout_interruptible(1);
			rc = time_before(jiffies, deadline) ? 0 : -EBUSY;
		}
		if (!rc)
			rc = hmm_ref_mirror_interrupted(&client->mirror);
	}
	return rc;
}

static int cmd_flags(struct dmirror_file *dmf, struct dmirror_cmd *cmd)
{
	if (cmd->npages & ~DMIRROR_FLAG_FAIL_LARGE)
		return -EINVAL;
	WRITE_ONCE(dmf->fail_large, cmd->npages & DMIRROR_FLAG_FAIL_LARGE);
	return 0;
}

/* ---- looking ----------------------------------------------------------- */

struct snapshot {
	struct hmm_ref_client *client;
	struct dmirror_cmd *cmd;
};

static u8 state_byte(const struct hmm_ref_devmem *dm,
		     const struct hmm_ref_seen *seen)
{
	u8 byte = DMIRROR_AT_NOTHING;

	if (seen->pte & HMM_REF_PTE_EXCLUSIVE)
		return DMIRROR_AT_NOTHING; /* the CPU has no entry */
	switch (seen->at) {
	case HMM_REF_AT_UNMAPPED:
	case HMM_REF_AT_UNREADABLE:
	case HMM_REF_AT_SPECIAL:
		return DMIRROR_AT_ERROR;
	case HMM_REF_AT_ABSENT:
	case HMM_REF_AT_TRAPPED:
		return DMIRROR_AT_NOTHING;
	case HMM_REF_AT_ZERO:
		byte = DMIRROR_AT_ZERO;
		break;
	case HMM_REF_AT_DEVICE:
		byte = dm->type == MEMORY_DEVICE_COHERENT ?
			       DMIRROR_AT_COHERENT :
			       DMIRROR_AT_PRIVATE;
		break;
	case HMM_REF_AT_REMOTE:
		byte = DMIRROR_AT_COHERENT_REMOTE;
		break;
	}
	byte |= seen->writable ? DMIRROR_BIT_WRITE : DMIRROR_BIT_READ;
	if (seen->order == PMD_SHIFT - PAGE_SHIFT)
		byte |= DMIRROR_BIT_PMD;
	else if (seen->order == PUD_SHIFT - PAGE_SHIFT)
		byte |= DMIRROR_BIT_PUD;
	return byte;
}

/* In place: no byte overwrites an unread element. Runs are frequent. */
static int report_bytes(void *arg, struct hmm_ref_seen *seen, unsigned long nr)
{
	struct snapshot *snapshot = arg;
	struct dmirror_cmd *cmd = snapshot->cmd;
	const struct hmm_ref_devmem *dm = &snapshot->client->dev->dm;
	u8 *bytes = (u8 *)seen;
	unsigned long i, alike;

	for (i = 0; i < nr; i += alike) {
		u8 byte = state_byte(dm, &seen[i]);

		alike = hmm_ref_seen_alike(&seen[i], nr - i);
		memset(&bytes[i], byte, alike);
	}
	if (copy_to_user(u64_to_user_ptr(cmd->buf + cmd->out_pages), bytes, nr))
		return -EFAULT;
	cmd->out_pages += nr;
	return 0;
}

static int cmd_snapshot(struct dmirror_file *dmf, struct dmirror_cmd *cmd)
{
	struct snapshot snapshot = { dmf->client, cmd };

	return hmm_ref_mirror_look(&dmf->client->mirror, cmd->addr,
				   range_end(cmd), report_bytes, &snapshot);
}

static int refuse_exclusive(void *arg, struct hmm_ref_seen *seen,
			    unsigned long nr)
{
	unsigned long i;

	for (i = 0; i < nr; i++) {
		if (seen[i].pte & HMM_REF_PTE_EXCLUSIVE)
			return -EPERM;
	}
	return 0;
}

/* Fail if the device still has exclusive access to any page. */
static int cmd_check_exclusive(struct dmirror_file *dmf,
			       struct dmirror_cmd *cmd)
{
	return hmm_ref_mirror_look(&dmf->client->mirror, cmd->addr,
				   range_end(cmd), refuse_exclusive, NULL);
}

/* ---- dispatcher -------------------------------------------------------- */

static const struct {
	int (*handler)(struct dmirror_file *dmf, struct dmirror_cmd *cmd);
	bool no_range;
} dmirror_ops[] = {
	[DMIRROR_READ] = { cmd_read },
	[DMIRROR_WRITE] = { cmd_write },
	[DMIRROR_TO_DEVICE] = { cmd_to_device },
	[DMIRROR_TO_SYSTEM] = { cmd_to_system },
	[DMIRROR_SNAPSHOT] = { cmd_snapshot },
	[DMIRROR_EXCLUSIVE] = { cmd_exclusive },
	[DMIRROR_CHECK_EXCLUSIVE] = { cmd_check_exclusive },
	[DMIRROR_RELEASE] = { cmd_release, .no_range = true },
	[DMIRROR_FLAGS] = { cmd_flags, .no_range = true },
	[DMIRROR_READ_UNLOCKED] = { cmd_read },
};

static int check_range(const struct dmirror_cmd *cmd)
{
	u64 length;
	int rc;

	if (check_shl_overflow(cmd->npages, PAGE_SHIFT, &length))
		return -EINVAL;
	rc = hmm_ref_check_range(cmd->addr, length, PAGE_SIZE);
	return rc == -EOVERFLOW ? -EINVAL : rc;
}

static long dispatch(struct dmirror_file *dmf, unsigned int nr,
		     void __user *ucmd)
{
	struct hmm_ref_client *client = dmf->client;
	struct mm_struct *mm = client->mirror.mm;
	struct dmirror_cmd cmd;
	int srcu_idx;
	long rc = 0;

	if (copy_from_user(&cmd, ucmd, sizeof(cmd)))
		return -EFAULT;
	cmd.out_pages = 0;
	cmd.out_faults = 0;
	if (!dmirror_ops[nr].no_range)
		rc = check_range(&cmd);
	if (!rc && !mmget_not_zero(mm))
		rc = -EFAULT;
	if (!rc) {
		srcu_idx = srcu_read_lock(&client->dev->unplug);
		if (READ_ONCE(client->dev->gone))
			rc = -ENODEV;
		else
			rc = dmirror_ops[nr].handler(dmf, &cmd);
		srcu_read_unlock(&client->dev->unplug, srcu_idx);
		mmput(mm);
	}
	if (copy_to_user(ucmd, &cmd, sizeof(cmd)))
		return -EFAULT;
	return rc;
}

static long dmirror_ioctl(struct file *file, unsigned int cmd,
			  unsigned long arg)
{
	unsigned int nr = _IOC_NR(cmd);

	if (nr >= ARRAY_SIZE(dmirror_ops) || cmd != DMIRROR_IOC(nr))
		return -ENOTTY;
	return dispatch(file->private_data, nr, (void __user *)arg);
}

/* ---- files ------------------------------------------------------------- */

static int dmirror_open(struct inode *inode, struct file *file)
{
	struct dmirror_file *dmf = kzalloc_obj(*dmf, GFP_KERNEL_ACCOUNT);

	if (!dmf)
		return -ENOMEM;
	dmf->client = hmm_ref_client_open(hmm_ref_node_device(inode));
	if (IS_ERR(dmf->client)) {
		int rc = PTR_ERR(dmf->client);

		kfree(dmf);
		return rc;
	}
	file->private_data = dmf;
	return 0;
}

static int dmirror_release(struct inode *inode, struct file *file)
{
	struct dmirror_file *dmf = file->private_data;

	hmm_ref_client_close(dmf->client);
	kfree(dmf);
	return 0;
}

static void dmirror_show_fdinfo(struct seq_file *m, struct file *file)
{
	struct dmirror_file *dmf = file->private_data;

	hmm_ref_client_show_fdinfo(m, dmf->client);
}

/*
 * Map cleared pages in a mapping that is not anonymous, for snapshots. The
 * pages must exist before any access, so their number is limited.
 */
static int dmirror_mmap(struct file *file, struct vm_area_struct *vma)
{
	unsigned long addr;

	if (vma_pages(vma) > HMM_REF_BLOCK_PAGES)
		return -EINVAL;
	for (addr = vma->vm_start; addr < vma->vm_end; addr += PAGE_SIZE) {
		struct page *page = alloc_page(GFP_KERNEL_ACCOUNT | __GFP_ZERO);
		int rc;

		if (!page)
			return -ENOMEM;
		rc = vm_insert_page(vma, addr, page);
		put_page(page);
		if (rc)
			return rc;
	}
	return 0;
}

static const struct file_operations dmirror_fops = {
	.owner = THIS_MODULE,
	.open = dmirror_open,
	.release = dmirror_release,
	.unlocked_ioctl = dmirror_ioctl,
	.compat_ioctl = compat_ptr_ioctl,
	.mmap = dmirror_mmap,
	.show_fdinfo = dmirror_show_fdinfo,
};

/* ---- devices ----------------------------------------------------------- */

#define DEVICES_OF_A_KIND	2

static bool dmirror = true;
module_param(dmirror, bool, 0444);
MODULE_PARM_DESC(dmirror,
		 "also be /dev/hmm_dmirrorN, as test_hmm is (default Y)");

/*
 * The devices of test_hmm have no class, so the kernel would allow two devices
 * of one name, and /dev would show the older one. All devices are in one kset.
 */
static bool name_is_taken(const char *name)
{
	struct kobject *kobj = kset_find_obj(platform_bus.kobj.kset, name);

	if (!kobj)
		return false;
	kobject_put(kobj);
	pr_err("there is another /dev/%s: unload test_hmm, or load hmm_ref with dmirror=0\n",
	       name);
	return true;
}

/**
 * hmm_ref_dmirror_check() - check that the old device names are free
 *
 * Return: 0, or -EBUSY if another module has them.
 */
int hmm_ref_dmirror_check(void)
{
	return dmirror && name_is_taken("hmm_dmirror0") ? -EBUSY : 0;
}

/**
 * hmm_ref_dmirror_add() - create the old character device, if there is one
 * @dev: device that is ready for use
 * @index: number among the devices with the same kind of memory
 *
 * Return: 0 or a negative errno.
 */
int hmm_ref_dmirror_add(struct hmm_ref_device *dev, unsigned int index)
{
	bool coherent = dev->dm.type == MEMORY_DEVICE_COHERENT;
	char name[16];
	int rc;

	if (!dmirror || index >= DEVICES_OF_A_KIND)
		return 0;
	snprintf(name, sizeof(name), "hmm_dmirror%u",
		 index + (coherent ? DEVICES_OF_A_KIND : 0));
	if (name_is_taken(name))
		return -EBUSY;
	rc = hmm_ref_node_add(&dev->dmirror, dev, dev->node.device.parent, name,
			      &dmirror_fops);
	dev->has_dmirror = !rc;
	return rc;
}

/**
 * hmm_ref_dmirror_remove() - remove the old character device, if there is one
 * @dev: device that is gone
 */
void hmm_ref_dmirror_remove(struct hmm_ref_device *dev)
{
	if (dev->has_dmirror)
		hmm_ref_node_remove(&dev->dmirror);
}
