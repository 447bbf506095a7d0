// SPDX-License-Identifier: GPL-2.0-only
/*
 * The machine unplugs a PCI device and plugs it in again: by an ACPI request, which the driver
 * serves by releasing the device, whatever pages processes have on it; or without a request.
 *
 * Covers: a removal that differs from an unbind; pages that are lost with the device or cannot
 * leave it; a device that does not get its old number again; and, without a request, a driver that
 * mistakes the value which a bus returns for a missing device for data of a process.
 *
 * Needs QEMU, and a channel to it: scripts/vm.sh with GPUS forwards lines of the file $HMM_REF_QMP
 * that begin with $nonce.
 */
#include <setjmp.h>

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

/* Sends a QMP command with its arguments. */
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

static const char *gpu = "gpu0";	/* name of the device in QEMU */
static unsigned int plugged;	/* number of times it was plugged */

static int unplug(void)
{
	char arguments[40];

	snprintf(arguments, sizeof(arguments), "\"id\":\"%s\"", gpu);
	return request("device_del", arguments);
}

#define BACKEND	"\"qom-type\":\"memory-backend-ram\",\"id\":\"again%u\",\"size\":%llu,\"share\":true"
#define DEVICE	"\"driver\":\"ivshmem-plain\",\"id\":\"%s\",\"bus\":\"port0\",\"memdev\":\"again%u\""

/* QEMU 7.2 neither accepts the same memory object again, nor deletes it by itself. */
static int plug(void)
{
	unsigned long long size = hmm_ref_dev_info.out_capacity;
	char arguments[200];
	int rc;

	snprintf(arguments, sizeof(arguments), BACKEND, plugged + 1, size);
	rc = request("object-add", arguments);
	snprintf(arguments, sizeof(arguments), DEVICE, gpu, plugged + 1);
	rc = rc ? rc : request("device_add", arguments);
	if (rc || !plugged)
		return rc;
	snprintf(arguments, sizeof(arguments), "\"id\":\"again%u\"", plugged);
	return request("object-del", arguments);
}

/*
 * Repeats the request until the device is present, or gone: QEMU may still be busy with the last
 * one.
 */
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
	leak_check_end(_metadata, &self->leak);
}

struct child {
	char *mem;
	unsigned long npages, seed;
	unsigned long *go;
};

/* Shares the pages, and checks them when the device is gone. */
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

/* ---- without a request ----------------------------------------------------------- */

/* Runs last, because QEMU then knows the device by another name. */
FIXTURE(surprise)
{
	struct leak_check leak;
	unsigned long npages;
	char *mem, *other;
	int fd;
};

FIXTURE_SETUP(surprise)
{
	if (!getenv("HMM_REF_QMP"))
		SKIP(return, "nothing to unplug: make test-pci");
	leak_check_begin(_metadata, &self->leak);
	self->fd = test_open(NR);
	self->npages = block_pages();
	self->mem = test_map_blocks(1);
	self->other = test_map_blocks(1);
	fill_pages(self->mem, self->npages, 1);
	fill_pages(self->other, self->npages, 2);
	test_to_device(self->fd, self->mem, self->npages);
}

FIXTURE_TEARDOWN_PARENT(surprise)
{
	leak_check_end(_metadata, &self->leak);
}

#define RACERS	2

struct race {
	unsigned long rounds, lost;
};

static sigjmp_buf no_data;

static void on_sigbus(int sig)
{
	siglongjmp(no_data, 1);
}

/* Returns true when a page is lost. Clears @good when a page has other data. */
static bool touch_pages(char *mem, unsigned long npages, bool *good)
{
	unsigned long i;

	if (sigsetjmp(no_data, 1))
		return true;
	for (i = 0; *good && i < npages; i++)
		*good = CHECK(page_holds(mem + i * page_size(), 1, i));
	return false;
}

/* Migrates in both directions until the device is gone. */
static int race_main(void *arg)
{
	unsigned long npages = block_pages();
	struct hmm_ref_migrate cmd;
	struct race *race = arg;
	int fd = hmm_ref_open(NR);
	char *mem = map_blocks(1);
	bool lost = false, good = true;
	int rc = 0;

	if (!CHECK(fd >= 0) || !CHECK(mem != MAP_FAILED))
		return 1;
	signal(SIGBUS, on_sigbus);
	madvise(mem, block_size(), MADV_NOHUGEPAGE);
	fill_pages(mem, npages, 1);
	while (good && !lost && !rc) {
		rc = _test_migrate(fd, HMM_REF_TO_DEVICE, mem, npages * page_size(), &cmd);
		lost = touch_pages(mem, npages, &good);
		counter_add(&race->rounds, 1);
	}
	if (lost)
		counter_add(&race->lost, 1);
	return !good || !CHECK(!rc || rc == -ENODEV);
}

#define PULL_OUT	"\"path\":\"/machine/peripheral/gpu0\",\"property\":\"realized\",\"value\":false"

/* QEMU removes the device from the bus without a notice to the guest. */
static int pull_out(void)
{
	return request("qom-set", PULL_OUT);
}

static int touch(void *mem)
{
	return touch_read(mem);
}

static void __test_gone(struct __test_metadata *_metadata, char *mem, unsigned long npages)
{
	EXPECT_EQ(CHILD_SIGNAL + SIGBUS, child_run(touch, mem));
	EXPECT_EQ(CHILD_SIGNAL + SIGBUS, child_run(touch, mem + (npages - 1) * page_size()));
}

#define test_gone()	__test_gone(_metadata, self->mem, self->npages)

/* Removes a device that does not answer, as an administrator would. */
static int remove_device(void *unused)
{
	unsigned long long begin = now_ms();
	char path[128];

	snprintf(path, sizeof(path), "/sys/bus/pci/devices/%s/remove", bus_devices[NR].name);
	if (!CHECK(!write_file(path, "1")))
		return 1;
	printf("# removed in %llu ms\n", now_ms() - begin);
	return 0;
}

TEST_F_TIMEOUT(surprise, while_in_use, 600)
{
	struct race *race = test_map_shared(page_size());
	unsigned long long end = now_ms() + MEET_MS;
	char *buf = test_map_pages(1);
	pid_t racers[RACERS];
	unsigned int i;

	for (i = 0; i < RACERS; i++)
		racers[i] = child_start(race_main, race);
	while (counter_get(&race->rounds) < 3 * RACERS && now_ms() < end)
		usleep(1000);
	ASSERT_EQ(0, pull_out());
	for (i = 0; i < RACERS; i++)
		EXPECT_EQ(0, child_wait(racers[i], MEET_MS));
	TH_LOG("%lu rounds, %lu of %u have lost pages", race->rounds, race->lost, RACERS);
	EXPECT_EQ(-ENODEV, _test_read(self->fd, self->other, page_size(), buf));
	EXPECT_EQ(-ENODEV, _test_read(self->fd, self->mem, page_size(), buf));
	test_gone();
	test_cpu_data(self->other, self->npages, 2);

	EXPECT_EQ(0, child_run(remove_device, NULL));
	EXPECT_GT(0, hmm_ref_open(NR));
	test_gone();
	close(self->fd);
	gpu = "gpu0-again";
	plugged = 100; /* not a name that the other test has used */
	ASSERT_EQ(0, wait_for(plug, true));
	self->fd = test_open(NR);
	test_to_device(self->fd, self->other, self->npages);
	test_dev_data(self->fd, self->other, self->npages, 2);
	test_gone();
	test_cpu_data(self->other, self->npages, 2);
	ASSERT_EQ(0, munmap(self->mem, block_size()));
	close(self->fd);
}

int main(int argc, char **argv)
{
	return hmm_ref_test_main(argc, argv);
}
