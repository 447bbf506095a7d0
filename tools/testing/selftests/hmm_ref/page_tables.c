// SPDX-License-Identifier: GPL-2.0-only
/*
 * Memory of the device's page tables, and of the ranges that they belong to, is freed when nothing
 * is mapped there: a process that maps a page, has the device access it, and unmaps it, repeatedly
 * and at different addresses, uses no more kernel memory at the end than at the beginning.
 *
 * Covers: empty tables that stay until the file is closed, because each page was zapped by itself.
 * Reclaim does not free that memory.
 */
#include "hmm_ref_utils.h"

#define TURNS		1024UL
#define RANGE		128UL	/* minimum bytes, without its table */
#define CGROUP_ROOT	"/sys/fs/cgroup/"
#define CGROUP		CGROUP_ROOT "hmm_ref_page_tables/"

FIXTURE(page_tables)
{
	struct leak_check leak;
	char *base;
	int fd;
};

/* How the device gets the page, and how it loses it. */
FIXTURE_VARIANT(page_tables)
{
	bool write;
	bool exclusive;
	bool discard;		/* by madvise(), before the page is unmapped */
};

FIXTURE_VARIANT_ADD(page_tables, read_unmap) {};
FIXTURE_VARIANT_ADD(page_tables, write_discard) { .write = true, .discard = true };
FIXTURE_VARIANT_ADD(page_tables, exclusive_unmap) { .exclusive = true };

/* Returns the unreclaimable slab memory charged to the group, in bytes, or -errno. */
static long slab_bytes(void)
{
	char text[8192], *found;
	int rc = read_file(CGROUP "memory.stat", text, sizeof(text));

	if (rc < 0)
		return rc;
	found = strstr(text, "slab_unreclaimable ");
	return found ? atol(found + strlen("slab_unreclaimable ")) : -ENOENT;
}

FIXTURE_SETUP(page_tables)
{
	write_file(CGROUP_ROOT "cgroup.subtree_control", "+memory");
	if ((mkdir(CGROUP, 0755) && errno != EEXIST) ||
	    write_file(CGROUP "cgroup.procs", "0") || slab_bytes() < 0)
		SKIP(return, "no memory cgroup at " CGROUP_ROOT);
	leak_check_begin(_metadata, &self->leak);
	self->fd = test_open(0);
	self->base = test_map_blocks(TURNS);
	ASSERT_EQ(0, munmap(self->base, TURNS * block_size()));
}

FIXTURE_TEARDOWN_PARENT(page_tables)
{
	leak_check_end(_metadata, &self->leak);
	rmdir(CGROUP);
}

static int take_turn(int fd, bool write, bool exclusive, bool discard, char *addr)
{
	char byte = 1;
	int rc;

	if (mmap(addr, page_size(), PROT_READ | PROT_WRITE,
		 MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0) != addr)
		return -errno;
	if (exclusive)
		rc = _test_make_exclusive(fd, addr, 1);
	else
		rc = write ? _test_write(fd, addr, 1, &byte) : _test_read(fd, addr, 1, &byte);
	if (!rc && discard && madvise(addr, page_size(), MADV_DONTNEED))
		rc = -errno;
	if (munmap(addr, page_size()))
		rc = -errno;
	return rc;
}

/* Waits until memory has been freed, since RCU, for instance, frees it later. */
static long wait_for_slab(long most)
{
	unsigned long long deadline = now_ms() + PATIENCE_MS;
	long bytes;

	while ((bytes = slab_bytes()) > most && now_ms() < deadline)
		usleep(100000);
	return bytes;
}

TEST_F_TIMEOUT(page_tables, freed_with_their_last_page, 300)
{
	const long spare = TURNS * RANGE;
	long before, after;
	unsigned long i;

	/* Objects that are allocated with the first page may stay. */
	ASSERT_EQ(0, take_turn(self->fd, variant->write, variant->exclusive,
			       variant->discard, self->base));
	before = slab_bytes();
	for (i = 1; i < TURNS; i++) {
		ASSERT_EQ(0, take_turn(self->fd, variant->write, variant->exclusive,
				       variant->discard, self->base + i * block_size()));
	}
	after = wait_for_slab(before + spare);
	TH_LOG("%ld bytes before, %ld after", before, after);
	EXPECT_GE(before + spare, after);
}

/* ---- SNAPSHOT of a page in each block, without a mapping ----------------- */

#define LOOKS		4096UL

FIXTURE(looks)
{
	struct leak_check leak;
	char *base;
	int fd;
};

/* Returns the bytes charged to the group. The kernel charges 64 pages at a time. */
static long charged_bytes(void)
{
	char text[64];
	int rc = read_file(CGROUP "memory.current", text, sizeof(text));

	return rc < 0 ? rc : atol(text);
}

FIXTURE_SETUP(looks)
{
	unsigned long i;

	write_file(CGROUP_ROOT "cgroup.subtree_control", "+memory");
	if ((mkdir(CGROUP, 0755) && errno != EEXIST) ||
	    write_file(CGROUP "cgroup.procs", "0") || charged_bytes() < 0)
		SKIP(return, "no memory cgroup at " CGROUP_ROOT);
	leak_check_begin(_metadata, &self->leak);
	self->fd = test_open(0);
	self->base = test_map_blocks(LOOKS);
	ASSERT_EQ(0, madvise(self->base, LOOKS * block_size(), MADV_NOHUGEPAGE));
	for (i = 0; i < LOOKS; i++)
		self->base[i * block_size()] = 1;
}

FIXTURE_TEARDOWN_PARENT(looks)
{
	leak_check_end(_metadata, &self->leak);
	rmdir(CGROUP);
}

TEST_F(looks, allocate_nothing)
{
	struct hmm_ref_page_state state;
	struct hmm_ref_snapshot cmd;
	long before, most = 0;
	unsigned long i;

	before = charged_bytes();
	for (i = 0; i < LOOKS; i++) {
		test_snapshot(self->fd, self->base + i * block_size(), page_size(), &state, &cmd);
		/* Unused objects are freed after a second. */
		if (i % 64 == 63 && charged_bytes() > most)
			most = charged_bytes();
	}
	TH_LOG("%ld bytes before, %ld at most", before, most);
	EXPECT_GE(before + (long)(LOOKS * RANGE), most);
}

int main(int argc, char **argv)
{
	return hmm_ref_test_main(argc, argv);
}
