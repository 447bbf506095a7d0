// SPDX-License-Identifier: GPL-2.0-only
/*
 * A device on PCI is unplugged, and plugged in again, by the machine: a request of ACPI, that the
 * driver has to answer by letting go of the device, whatever processes have there.
 *
 * Stands for: a removal that is known from unbind only; pages that are lost with the device, or
 * kept from leaving it; a device that does not come again under its number.
 *
 * Needs QEMU, and a way to it: scripts/vm.sh with GPUS passes on what is written to the file
 * $HMM_REF_QMP in lines that begin with $nonce.
 */
#include "hmm_ref_load.h"
#include "hmm_ref_utils.h"

#define NR	0U
#define BLOCKS	3UL

FIXTURE(hotplug)
{
	struct leak_check leak;
	struct load *load;
	unsigned long npages;
	char *mem;
};

/* A command of QMP and its arguments. */
static int request(const char *command, const char *arguments)
{
	const char *path = getenv("HMM_REF_QMP"), *nonce = getenv("nonce");
	FILE *file = path && nonce ? fopen(path, "we") : NULL;

	if (!file)
		return -ENOENT;
	fprintf(file, "\n%s qmp {\"execute\":\"%s\",\"arguments\":{%s}}\n", nonce, command,
		arguments);
	return fclose(file) ? -errno : 0;
}

static int unplug(void)
{
	return request("device_del", "\"id\":\"gpu0\"");
}

static unsigned int plugged;	/* times */

#define BACKEND	"\"qom-type\":\"memory-backend-ram\",\"id\":\"again%u\",\"size\":%llu,\"share\":true"
#define DEVICE	"\"driver\":\"ivshmem-plain\",\"id\":\"gpu0\",\"bus\":\"port0\",\"memdev\":\"again%u\""

/* QEMU 7.2 does not take the same memory again, nor give it back by itself. */
static int plug(void)
{
	unsigned long long size = hmm_ref_dev_info.out_capacity;
	char arguments[200];
	int rc;

	snprintf(arguments, sizeof(arguments), BACKEND, plugged + 1, size);
	rc = request("object-add", arguments);
	snprintf(arguments, sizeof(arguments), DEVICE, plugged + 1);
	rc = rc ? rc : request("device_add", arguments);
	if (rc || !plugged)
		return rc;
	snprintf(arguments, sizeof(arguments), "\"id\":\"again%u\"", plugged);
	return request("object-del", arguments);
}

/* Asks for it until it is so: QEMU may not be done with the last request. */
static int wait_for(int (*ask)(void), bool there)
{
	unsigned long long end = now_ms() + MEET_MS, next = 0;
	int rc, fd;

	while (now_ms() < end) {
		if (now_ms() >= next) {
			rc = ask();
			if (rc)
				return rc;
			next = now_ms() + 5000;
		}
		fd = hmm_ref_open(NR);
		if (fd >= 0)
			close(fd);
		if (there ? fd >= 0 : fd < 0)
			return 0;
		usleep(10000);
	}
	return -ETIMEDOUT;
}

FIXTURE_SETUP(hotplug)
{
	if (!getenv("HMM_REF_QMP"))
		SKIP(return, "nothing to unplug: make test-pci");
	leak_check_begin(_metadata, &self->leak);
	self->load = test_load_start(NR);
	self->npages = BLOCKS * block_pages();
	self->mem = test_map_blocks(BLOCKS);
	madvise(self->mem, block_size(), MADV_HUGEPAGE);
}

FIXTURE_TEARDOWN_PARENT(hotplug)
{
	if (self->leak.devices)
		leak_check_end(_metadata, &self->leak);
}

struct child {
	char *mem;
	unsigned long npages, seed;
	unsigned long *go;
};

/* Shares the pages, looks at them when the device is gone. */
static int look_later(void *arg)
{
	struct child *child = arg;

	while (!counter_get(child->go))
		usleep(1000);
	return !CHECK(!bad_pages(child->mem, child->npages, child->seed));
}

TEST_F_TIMEOUT(hotplug, under_load, 7200)
{
	unsigned long rounds = env_number("HMM_REF_HOTPLUG_ROUNDS", 3), outages, i;
	unsigned long *go = test_map_shared(page_size());
	struct hmm_ref_migrate cmd;
	struct child child = { .mem = self->mem, .npages = self->npages, .go = go };
	pid_t pid;
	int fd;

	for (i = 0; i < rounds; i++) {
		ASSERT_TRUE(load_goes_on(self->load)) TH_LOG("round %lu", i);
		child.seed = 2 * i + 2;
		fill_pages(self->mem, self->npages, child.seed);
		fd = test_open(NR);
		ASSERT_EQ(0, _test_migrate_all(fd, HMM_REF_TO_DEVICE, self->mem, self->npages,
					       &cmd));
		ASSERT_EQ(0, dev_fill_pages(fd, self->mem, block_pages(), child.seed));
		counter_set(go, 0);
		pid = child_start(look_later, &child);
		outages = counter_get(&self->load->outages);
		ASSERT_EQ(0, wait_for(unplug, false)) TH_LOG("round %lu", i);
		EXPECT_EQ(-ENODEV, _test_migrate(fd, HMM_REF_TO_DEVICE, self->mem, page_size(),
						 &cmd));
		test_cpu_data(self->mem, self->npages, child.seed);
		counter_set(go, 1);
		EXPECT_EQ(0, child_wait(pid, MEET_MS));
		close(fd);
		EXPECT_TRUE(load_counts(&self->load->outages, outages));
		ASSERT_EQ(0, wait_for(plug, true)) TH_LOG("round %lu", i);
		plugged++;
		if (i % 10 == 0)
			test_load_log(self->load, i + 1);
	}
	EXPECT_TRUE(load_goes_on(self->load));
	EXPECT_EQ(0, load_stop(self->load));
	test_load_log(self->load, rounds);
}

int main(int argc, char **argv)
{
	return hmm_ref_test_main(argc, argv);
}
