// SPDX-License-Identifier: GPL-2.0-only
/*
 * The fuzzer's invalid commands. Their addresses are those of memory that may be written: the chaos
 * region, a buffer, or unmapped addresses.
 */
#include "fuzz.h"
#include "hmm_ref_old.h"

/*
 * Numbers for addresses and lengths. As an address, none of them is memory that may be overwritten.
 */
static uint64_t bad_number(uint64_t value)
{
	static const uint64_t numbers[] = {
		0, 1, 7, PAGE - 1, PAGE, PAGE + 1, BLOCK - PAGE, 1ULL << 30, 1ULL << 40,
		MEGA(14), MEGA(22), MEGA(22) + 1, (1ULL << 47) - PAGE, 1ULL << 47,
		0xffff800000000000ULL, -PAGE, -1ULL, 1ULL << 52, 1ULL << 63, 0x7fffffff,
	};

	return numbers[value % ARRAY_SIZE(numbers)];
}

/* The struct may end at the end of the mapping, be read-only, or not be mapped. */
static void *bad_pointer(const struct op *op, const void *cmd, size_t size)
{
	char *at = scratch;

	switch (op->slot % 8) {
	case 0:
		return (void *)bad_number(op->value >> 8);
	case 1:
		return IDS + op->offset;
	case 2:
		/* The mapping ends after the buffers. */
		at = data + SMALL_PAGES * PAGE - 1 - op->offset % size;
		size = data + SMALL_PAGES * PAGE - at;
		break;
	}
	memcpy(at, cmd, size);
	return at;
}

static const struct {
	unsigned long request;
	size_t size;
	unsigned int numbers;	/* index of the first 64-bit input */
} natives[] = {
	{ HMM_REF_IOC_INFO, sizeof(struct hmm_ref_info), 1 },
	{ HMM_REF_IOC_MIGRATE, sizeof(struct hmm_ref_migrate), 2 },
	{ HMM_REF_IOC_READ, sizeof(struct hmm_ref_access), 1 },
	{ HMM_REF_IOC_WRITE, sizeof(struct hmm_ref_access), 1 },
	{ HMM_REF_IOC_SNAPSHOT, sizeof(struct hmm_ref_snapshot), 1 },
	{ HMM_REF_IOC_STATS, sizeof(struct hmm_ref_stats), 1 },
	{ HMM_REF_IOC_AUDIT, sizeof(struct hmm_ref_audit), 1 },
	{ HMM_REF_IOC_EXCLUSIVE, sizeof(struct hmm_ref_exclusive), 1 },
	{ HMM_REF_IOC_ATOMIC, sizeof(struct hmm_ref_atomic), 2 },
	{ HMM_REF_IOC_EVICT, sizeof(struct hmm_ref_evict), 1 },
	{ HMM_REF_IOC_EVICT_ALL, sizeof(struct hmm_ref_evict_all), 1 },
};

int do_bad_native(const struct op *op)
{
	static const uint32_t sizes[] = { 0, 4, 8, 4096, 4097, 0x7fffffff, 0xffffffff };
	unsigned int nr = op->variant % ARRAY_SIZE(natives), how = op->value % 16;
	unsigned int file = file_find(op->slot, 0);
	unsigned long request = natives[nr].request;
	union {
		uint32_t halves[64];
		uint64_t words[32];
	} cmd;
	unsigned int first = natives[nr].numbers;
	char *chaos = regions[R_CHAOS].base;
	void *arg;
	int rc;

	if (!file)
		return -ENXIO;
	memset(&cmd, 0, sizeof(cmd));
	cmd.halves[0] = natives[nr].size;
	cmd.halves[2] = first == 2 ? 1 + op->offset % 3 : 0;
	cmd.words[first] = (unsigned long)(request == HMM_REF_IOC_ATOMIC ? scratch :
					   chaos + op->page % CHAOS_PAGES * PAGE);
	cmd.words[first + 1] = request == HMM_REF_IOC_ATOMIC ? 8 : op->npages * PAGE;
	if (first == 1)
		cmd.words[3] = (unsigned long)(request == HMM_REF_IOC_WRITE ? IDS : scratch);
	if (how & 1)
		cmd.words[first + op->offset % 3] = bad_number(op->bytes);
	if (how == 2)
		cmd.halves[0] = sizes[op->bytes % ARRAY_SIZE(sizes)];
	if (how == 4)
		cmd.halves[0] += 1 + op->bytes % 64;
	/* One half of an address is not changed: the result may be an address of the model. */
	if (how == 6)
		cmd.halves[1 + op->bytes % (2 * first - 1)] = op->value >> 32;
	if (how == 8)
		request = _IOC(_IOC_READ, HMM_REF_IOC_TYPE, op->bytes & 255, op->npages & 255);
	if (how == 10)
		request += ARRAY_SIZE(natives);
	arg = bad_pointer(op, &cmd, natives[nr].size + 64);
	rc = checked(_test_ioctl(file_fd(file), request, arg), "a bad command");
	if (rc == -ENOTTY || rc == -E2BIG || rc == -EOPNOTSUPP || rc == -EOVERFLOW)
		if (arg == scratch && memcmp(arg, &cmd, natives[nr].size))
			fuzz_fail("%d has changed the struct", rc);
	return rc;
}

int do_bad_old(const struct op *op)
{
	unsigned int nr = op->variant % (OLD_COMMANDS + 1);
	unsigned int file = file_find(op->slot, FILE_OLD);
	struct old_cmd cmd = { .npages = op->npages };
	int rc;

	if (!file || (file & FILE_FOREIGN) || nr == OLD_RELEASE)
		return -ENXIO;
	cmd.addr = (unsigned long)regions[R_CHAOS].base + op->page % CHAOS_PAGES * PAGE;
	cmd.buf = (unsigned long)(nr == OLD_WRITE ? IDS : scratch);
	if (op->value & 1)
		cmd.addr = bad_number(op->value >> 8);
	if (op->value & 2)
		cmd.buf = nr == OLD_WRITE ? (unsigned long)NOWHERE : bad_number(op->value >> 16);
	/* That command writes nothing, so it would walk the whole address space. */
	if (op->value & 4 && nr != OLD_CHECK_EXCLUSIVE)
		cmd.npages = bad_number(op->value >> 24);
	rc = _test_ioctl(file_fd(file), op->value & 8 ? OLD_IOC(nr) ^ (1 << (8 + op->bytes % 24)) :
			 OLD_IOC(nr), bad_pointer(op, &cmd, sizeof(cmd)));
	if (!is_documented_old(rc))
		fuzz_fail("bad old command %u: %d", nr, rc);
	return rc;
}
