// SPDX-License-Identifier: GPL-2.0-only
/*
 * Skipping memory without page tables.
 *
 * A process may have mapped terabytes and touched little of it. Scanning such a
 * range window by window would take hours, so parts without page tables are
 * skipped. The core exports no page table walk, and hmm_range_fault() requires
 * an array with an element for each page. But the upper levels of a page table
 * can be read directly:
 *
 *   mmap_lock, for read      keeps the mapping, and with it the tables of all
 *                            levels down to PMDs, which are freed only after
 *                            the mapping
 *   entries are read once    they may be filled concurrently, as if the page
 *                            had been added after the read
 *
 * Tables of PTEs may be freed at any time and are not read. Neither are hugetlb
 * mappings, which may share a table of PMDs and give it up.
 */
#include <linux/hugetlb_inline.h>
#include <linux/mm.h>
#include <linux/pgtable.h>

#include "mirror.h"

/* Reach of one table of PUD entries: about 2^18 PMD entries at most. */
#define LOOK_AT_ONCE	(PUD_SIZE * PTRS_PER_PUD)

/**
 * hmm_ref_next_present() - skip addresses at which there can be no page
 * @vma: mapping
 * @addr: page address in it
 * @end: page address, in it or its end
 *
 * Context: mmap_lock held.
 * Return: the first address, not below @addr, at which there may be a page; or,
 * if there is none, @end or an earlier address to continue from. Equal to @addr
 * in mappings that have no pages of their own.
 */
unsigned long hmm_ref_next_present(const struct vm_area_struct *vma,
				   unsigned long addr, unsigned long end)
{
	struct mm_struct *mm = vma->vm_mm;

	mmap_assert_locked(mm);
	if (vma->vm_flags & VM_SPECIAL || is_vm_hugetlb_page(vma))
		return addr;
	if (end - addr > LOOK_AT_ONCE)
		end = addr + LOOK_AT_ONCE;
	while (addr < end) {
		pgd_t *pgd = pgd_offset(mm, addr);
		p4d_t *p4d;
		pud_t *pud, pudval;
		pmd_t *pmd;

		if (pgd_none(pgdp_get(pgd))) {
			addr = pgd_addr_end(addr, end);
			continue;
		}
		p4d = p4d_offset(pgd, addr);
		if (p4d_none(p4dp_get(p4d))) {
			addr = p4d_addr_end(addr, end);
			continue;
		}
		pud = pud_offset(p4d, addr);
		pudval = pudp_get(pud);
		if (pud_none(pudval)) {
			addr = pud_addr_end(addr, end);
			continue;
		}
		if (pud_leaf(pudval) || !pud_present(pudval))
			break;
		pmd = pmd_offset(pud, addr);
		if (!pmd_none(pmdp_get_lockless(pmd)))
			break;
		addr = pmd_addr_end(addr, end);
	}
	return addr;
}

/**
 * hmm_ref_mirror_next_present() - hmm_ref_next_present() for any address
 * @mirror: mirror of a live mm
 * @addr: page address
 * @end: page address
 * @flags: VM_* flags that a mapping must have for addresses in it to be
 *	skipped; if not 0, addresses without a mapping are not skipped either
 * @next: out: as the result of hmm_ref_next_present()
 *
 * Context: takes mmap_lock.
 * Return: 0 or -EINTR.
 */
int hmm_ref_mirror_next_present(struct hmm_ref_mirror *mirror,
				unsigned long addr, unsigned long end,
				vm_flags_t flags, unsigned long *next)
{
	struct mm_struct *mm = mirror->mm;
	struct vm_area_struct *vma;

	*next = addr;
	if (mmap_read_lock_killable(mm))
		return -EINTR;
	vma = find_vma(mm, addr);
	if (!vma || addr < vma->vm_start) {
		if (!flags)
			*next = vma ? min(end, vma->vm_start) : end;
	} else if ((vma->vm_flags & flags) == flags) {
		*next = hmm_ref_next_present(vma, addr, min(end, vma->vm_end));
	}
	mmap_read_unlock(mm);
	return 0;
}
