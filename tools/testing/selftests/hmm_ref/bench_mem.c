// SPDX-License-Identifier: GPL-2.0-only
/*
 * Memory of the benchmark: a range, its content, and where its pages are.
 *
 * A range starts at an address that a huge page could be mapped at. Filling drops all pages and
 * faults in new ones, so that each repetition begins with pages that the device never had.
 * /proc/self/pagemap tells where pages are, in the same way for all drivers: the entry of a page
 * that is on a device, or exclusive to one, looks like that of a page that is swapped out.
 */
#include <linux/mempolicy.h>
#include <sys/syscall.h>

#include "bench.h"

const char *const kind_names[] = { "4k", "thp" };
const char *const fill_names[] = { "populated", "hole", "zero" };

static unsigned long read_number(const char *path, unsigned long otherwise)
{
	FILE *file = fopen(path, "r");
	unsigned long value;

	if (!file)
		return otherwise;
	if (fscanf(file, "%lu", &value) != 1)
		value = otherwise;
	fclose(file);
	return value;
}

/* Finds the page sizes without asking a device. */
void mem_probe(void)
{
	hmm_ref_dev_info.out_page_size = sysconf(_SC_PAGESIZE);
	hmm_ref_dev_info.out_block_size =
		read_number("/sys/kernel/mm/transparent_hugepage/hpage_pmd_size", 2 << 20);
}

/* Binds memory to a node, unless that is -1. Returns 0 or -errno. */
static int mem_bind(void *mem, size_t size, int node)
{
	unsigned long nodes = 1UL << node;

	if (node < 0)
		return 0;
	return syscall(__NR_mbind, mem, size, MPOL_BIND, &nodes, 8 * sizeof(nodes),
		       MPOL_MF_MOVE) ? -errno : 0;
}

int range_map(struct range *range, size_t size, enum kind kind, int node)
{
	unsigned long nblocks = (size + block_size() - 1) / block_size();
	int rc;

	range->size = size;
	range->npages = size / page_size();
	range->kind = kind;
	range->pagemap = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	if (range->pagemap < 0)
		return -errno;
	range->mem = map_blocks(nblocks);
	if (range->mem == MAP_FAILED) {
		close(range->pagemap);
		return -ENOMEM;
	}
	if (madvise(range->mem, nblocks * block_size(),
		    kind == KIND_THP ? MADV_HUGEPAGE : MADV_NOHUGEPAGE))
		rc = -errno;
	else
		rc = mem_bind(range->mem, nblocks * block_size(), node);
	return rc;
}

void range_unmap(struct range *range)
{
	unsigned long nblocks = (range->size + block_size() - 1) / block_size();

	munmap(range->mem, nblocks * block_size());
	close(range->pagemap);
}

/* Without @all, only the first word of each page is written. */
int range_fill(const struct range *range, enum fill fill, unsigned int seed, bool all)
{
	unsigned long i;

	if (madvise(range->mem, range->size, MADV_DONTNEED))
		return -errno;
	for (i = 0; i < range->npages; i++) {
		char *page = range->mem + i * page_size();

		if (fill == FILL_ZERO)
			touch_read(page);
		else if (fill == FILL_POPULATED && all)
			fill_pages_from(page, 1, seed, i);
		else if (fill == FILL_POPULATED)
			*(unsigned long *)page = pattern_word(seed, i, 0);
	}
	return 0;
}

/*
 * True if every byte holds the data of @seed, or zero for a hole. Brings all
 * pages to system memory.
 */
bool range_is(const struct range *range, enum fill fill, unsigned int seed)
{
	unsigned long i;

	if (fill == FILL_POPULATED)
		return !bad_pages(range->mem, range->npages, seed);
	for (i = 0; i < range->npages; i++) {
		if (!page_is_zero(range->mem + i * page_size()))
			return false;
	}
	return true;
}

#define PAGEMAP_PRESENT	0x8000000000000000ULL
#define PAGEMAP_SWAP	0x4000000000000000ULL
#define PAGEMAP_PFN	0x007fffffffffffffULL

int range_where(const struct range *range, struct whereabouts *where)
{
	unsigned long in_block = block_pages();
	uint64_t entries[512];
	unsigned long i, j, n, run = 0;
	uint64_t next = 0;

	memset(where, 0, sizeof(*where));
	for (i = 0; i < range->npages; i += n) {
		n = range->npages - i < 512 ? range->npages - i : 512;
		if (pread(range->pagemap, entries, n * sizeof(*entries),
			  ((unsigned long)range->mem / page_size() + i) * sizeof(*entries)) !=
		    (ssize_t)(n * sizeof(*entries)))
			return -EIO;
		for (j = 0; j < n; j++) {
			uint64_t pfn = entries[j] & PAGEMAP_PFN;

			where->away += !(entries[j] & PAGEMAP_PRESENT) &&
				       (entries[j] & PAGEMAP_SWAP);
			if (!(entries[j] & PAGEMAP_PRESENT)) {
				run = 0;
				continue;
			}
			where->present++;
			run = run && pfn == next ? run + 1 : pfn % in_block == 0;
			next = pfn + 1;
			if (run == in_block) {
				where->huge += in_block;
				run = 0;
			}
		}
	}
	return 0;
}

/* Finds the first two nodes with memory. Returns how many there are. */
unsigned int find_nodes(int nodes[2])
{
	unsigned int node, found = 0;
	char path[80];

	for (node = 0; node < MAX_NODES && found < 2; node++) {
		snprintf(path, sizeof(path), "/sys/devices/system/node/node%u/meminfo", node);
		if (!access(path, R_OK))
			nodes[found++] = node;
	}
	return found;
}

/*
 * Moves all pages of a range to a node. move_pages() counts a huge page as one page. Returns how
 * many pages are on the node then, or -errno.
 */
long range_move(const struct range *range, int node, void **pages, int *nodes, int *status)
{
	unsigned long step = range->kind == KIND_THP ? block_pages() : 1;
	unsigned long i, n = range->npages / step;
	long there = 0;

	for (i = 0; i < n; i++) {
		pages[i] = range->mem + i * step * page_size();
		nodes[i] = node;
	}
	if (syscall(__NR_move_pages, 0, n, pages, nodes, status, MPOL_MF_MOVE) < 0)
		return -errno;
	for (i = 0; i < n; i++)
		there += status[i] == node ? step : 0;
	return there;
}
