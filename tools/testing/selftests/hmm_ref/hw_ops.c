// SPDX-License-Identifier: GPL-2.0-only
/*
 * The tests call each operation that a device provides for the core (struct hmm_ref_hw_ops),
 * whatever kind of device 0 is: a probe at the device's function counts the calls that a command
 * causes.
 *
 * Covers: an operation that no test of a port has ever called.
 */
#include <sys/mman.h>

#include "hmm_ref_bus.h"
#include "hmm_ref_peer.h"
#include "hmm_ref_trace.h"

#define FAIL_HANG	"/sys/kernel/debug/hmm_ref/fail_hang/"
#define PROBES		TRACEFS "kprobe_events"
#define EVENTS		TRACEFS "events/hmm_ref_ops/"

/*
 * For each event, the function on a simulated device and on PCI, or NULL if there is no such
 * operation.
 */
static const struct {
	const char *event;
	const char *simulated;
	const char *pci;
} ops[] = {
	{ "vram_alloc", "sim_vram_alloc", "pci_vram_alloc" },
	{ "vram_free", "sim_vram_free", "pci_vram_free" },
	{ "move", "hmm_ref_gpu_move", "hmm_ref_gpu_move" },
	{ "atomic", "hmm_ref_gpu_atomic", "hmm_ref_gpu_atomic" },
	{ "flush", "hmm_ref_gpu_flush", "hmm_ref_gpu_flush" },
	{ "reaches", "sim_reaches", NULL },
	{ "submit", "hmm_ref_gpu_submit", "hmm_ref_gpu_submit" },
	{ "help", "hmm_ref_gpu_help", "hmm_ref_gpu_help" },
	{ "reset", "hmm_ref_gpu_reset", "hmm_ref_gpu_reset" },
};

static char trace_text[1 << 20];

static const char *function_of(unsigned int i)
{
	return is_simulated(0) ? ops[i].simulated : ops[i].pci;
}

/* Appends to the file, unlike write_file(). */
static int add_probe(const char *event, const char *function)
{
	char line[160];
	ssize_t done;
	int fd = open(PROBES, O_WRONLY | O_APPEND | O_CLOEXEC);

	if (fd < 0)
		return -errno;
	snprintf(line, sizeof(line), "p:hmm_ref_ops/%s hmm_ref:%s\n", event, function);
	done = write(fd, line, strlen(line));
	done = done < 0 ? -errno : 0;
	close(fd);
	return done;
}

static int empty_file(const char *path)
{
	int fd = open(path, O_WRONLY | O_TRUNC | O_CLOEXEC);

	return fd < 0 ? -errno : close(fd);
}

static int remove_probes(void)
{
	write_file(EVENTS "enable", "0");
	return empty_file(PROBES);
}

FIXTURE(hw_ops)
{
	struct leak_check leak;
	char *mem;
	int fd;
};

FIXTURE_SETUP(hw_ops)
{
	const char *why = trace_unavailable();
	unsigned int i;

	if (why)
		SKIP(return, "%s", why);
	if (access(PROBES, W_OK))
		SKIP(return, "no kprobe events (CONFIG_KPROBE_EVENTS)");
	bus_devices_find();
	leak_check_begin(_metadata, &self->leak);
	ASSERT_EQ(0, remove_probes());
	for (i = 0; i < ARRAY_SIZE(ops); i++) {
		if (function_of(i))
			ASSERT_EQ(0, add_probe(ops[i].event, function_of(i)))
				TH_LOG("%s", function_of(i));
	}
	ASSERT_EQ(0, empty_file(TRACEFS "trace"));
	ASSERT_EQ(0, write_file(EVENTS "enable", "1"));
	self->fd = test_open(0);
	self->mem = test_map_pages(1);
	touch_write(self->mem, 1);
}

FIXTURE_TEARDOWN_PARENT(hw_ops)
{
	EXPECT_EQ(0, remove_probes());
	leak_check_end(_metadata, &self->leak);
}

/* Calls since the setup. */
static unsigned int calls_of(const char *event)
{
	unsigned int nr = 0;
	char name[32], *at;

	snprintf(name, sizeof(name), ": %s: (", event);
	if (read_file(TRACEFS "trace", trace_text, sizeof(trace_text)) < 0)
		return 0;
	for (at = trace_text; (at = strstr(at, name)); at += strlen(name))
		nr++;
	return nr;
}

#define EXPECT_CALLED(event) do { \
	unsigned int _calls = calls_of(event); \
	EXPECT_LT(0, _calls); \
	ksft_print_msg("%s: %u calls\n", event, _calls); \
} while (0)

TEST_F(hw_ops, copies)
{
	test_to_device(self->fd, self->mem, 1);
	EXPECT_CALLED("submit");
	EXPECT_CALLED("help");
	EXPECT_EQ(1, touch_read(self->mem));
}

TEST_F(hw_ops, accesses)
{
	struct hmm_ref_atomic cmd;
	char byte;

	test_read(self->fd, self->mem, 1, &byte);
	EXPECT_EQ(1, byte);
	EXPECT_CALLED("move");
	EXPECT_EQ(0, _test_atomic(self->fd, HMM_REF_ATOMIC_ADD, self->mem, 8, 1, 0, &cmd));
	EXPECT_CALLED("atomic");
}

TEST_F(hw_ops, flush)
{
	char byte;

	test_read(self->fd, self->mem, 1, &byte);
	EXPECT_EQ(0, calls_of("flush"));
	ASSERT_EQ(0, munmap(self->mem, page_size()));
	EXPECT_CALLED("flush");
	ASSERT_EQ(self->mem, mmap(self->mem, page_size(), PROT_READ | PROT_WRITE,
				  MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0));
}

/* Adding a chunk allocates memory, and unbinding the device frees it. */
TEST_F(hw_ops, vram)
{
	if (!device_can_unbind(0))
		SKIP(return, "the device cannot be unbound");
	close(self->fd);
	ASSERT_EQ(0, device_unbind(0));
	ASSERT_EQ(0, device_bind(0));
	self->fd = test_open(0);
	test_to_device(self->fd, self->mem, 1);
	EXPECT_CALLED("vram_alloc");
	EXPECT_EQ(1, touch_read(self->mem));
	close(self->fd);
	ASSERT_EQ(0, device_unbind(0));
	EXPECT_CALLED("vram_free");
	ASSERT_EQ(0, device_bind(0));
	self->fd = test_open(0);
}

TEST_F(hw_ops, reset)
{
	struct hmm_ref_migrate cmd;
	char was[24];

	if (access(FAIL_HANG, F_OK))
		SKIP(return, "no fail_hang (CONFIG_FAULT_INJECTION_DEBUG_FS)");
	ASSERT_LT(0, read_file(COPY_TIMEOUT, was, sizeof(was)));
	ASSERT_EQ(0, write_file(COPY_TIMEOUT, "200"));
	ASSERT_EQ(0, attr_arm(FAIL_HANG, 0, 1));
	_test_migrate(self->fd, HMM_REF_TO_DEVICE, self->mem, page_size(),
		      &cmd);
	EXPECT_EQ(0, attr_disarm(FAIL_HANG));
	EXPECT_EQ(0, write_file(COPY_TIMEOUT, was));
	EXPECT_CALLED("reset");
	EXPECT_EQ(1, touch_read(self->mem));
}

/* Optional: a device without it gets the data of its peers through system memory. */
TEST_F(hw_ops, reaches)
{
	struct hmm_ref_migrate cmd;
	int peer;

	if (hmm_ref_count() < 2)
		SKIP(return, "needs two devices");
	peer = test_open(1);
	test_to_device(self->fd, self->mem, 1);
	EXPECT_EQ(0, _test_migrate(peer, HMM_REF_TO_DEVICE, self->mem, page_size(), &cmd));
	EXPECT_EQ(1, cmd.out_migrated);
	if (is_simulated(0))
		EXPECT_CALLED("reaches");
	EXPECT_EQ(1, touch_read(self->mem));
	close(peer);
}

int main(int argc, char **argv)
{
	return hmm_ref_test_main(argc, argv);
}
