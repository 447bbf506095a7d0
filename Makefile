# SPDX-License-Identifier: GPL-2.0-only
#
# hmm_ref: the commands of this repository. See README.md, or make help.

ifneq ($(KERNELRELEASE),)

# Called by a kernel's build with M=: the driver as an external module.
export CONFIG_HMM_REF := m
export CONFIG_HMM_REF_DMIRROR := y
subdir-ccflags-y += -I$(src)/include
obj-m += drivers/misc/hmm_ref/

else

KDIR ?= /lib/modules/$(shell uname -r)/build
CACHE = $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/hmm_ref

# Variables from the command line reach the scripts through the environment.
help:
	@sed -n 's/^## \?//p' $(firstword $(MAKEFILE_LIST))

## make run       boot the kernel, migrate a working set to the device and back, print figures
## make test      selftests on the release and the debug kernel
## make test-all  make test, and then what it leaves out: more on the debug kernel, on PCI, with the
##                detector of data races (KCSAN), without patches/core, of a driver without
##                compat/ or the old interface; core-bugs and mm-tests. UNTIL=seconds: as
##                far as the time goes
## make test-pci  the same selftests on two devices on PCI, on both kernels: part of make test-all
## make hmm-tests the kernel's own tests of HMM, unmodified, on both kernels: make test has those of
##                the release kernel
## make fuzz      the fuzzer for FUZZ_SECONDS=1800 on the debug kernel, from SEED= on
## make soak      processes do everything at random on a device that fails, for SOAK_SECONDS=600 on
##                each kernel, and every byte is compared; from SOAK_SEED= on
## make shell     an interactive guest with the driver loaded
## make kernel    only build: kernel, driver, selftests
## make mutants   break the driver and the scripts in every way of tools/mutants, and see the
##                test fail that is named there
## make check     checkpatch, W=1, sparse, kernel-doc, shellcheck
## make core-bugs  each bug that patches/core fixes: seen without the patches, gone with them
## make mm-tests  the kernel's own tests of mm/, without patches/core and with it
## make series    patches/core and the driver as mails to post, in build/series; BUILD=1 also builds
##                each patch of the driver
## make core-build  compile each patch of patches/core by itself, with W=1
## make coverage  which lines and branches of the driver the selftests run
## make bench     what operations cost, in time; plots and all figures in build/bench
## make bench-insn  the same in instructions, and next to the targets: build/bench-insn
## make lockstat  which locks two threads, then two processes, wait for in the benchmark
## make results   writes results.rst, the page of all figures, from what the runs have left in
##                build/results
## make docs      the documentation as HTML, in build/docs: by the kernel's own build, without a warning
## make model     check the model of a page's life; TRAIL=name prints a control's steps
## make modules   only the driver, for the running kernel or KDIR=/path/to/its/build
## make clean     remove what was built in this clone
## make distclean and the kernels in the cache, which all clones share
##
## Variables, on the command line or in the environment:
##   KERNEL=7.3        or 6.12: Debian's source package
##   KSRC=/path        a kernel tree of one's own instead; it is copied, not changed
##   CORE_PATCHES=0    without the fixes of patches/core
##   DMIRROR=n         without the interface of test_hmm
##   COMPAT=n          without the ways around bugs that patches/core fixes
##   FLAVOUR=release   or debug, kcsan, lockstat
##   TEST=name         make test, make mm-tests: only this program
##   MUTANT=names      make mutants: only these
##   BUG=names         make core-bugs: only these patches (0011), or tests
##   SMP=2 MEM=4G NUMA=1 COHERENT=0    CPUs, memory, nodes, windows of 256M
##   ACCEL=kvm|tcg     default: kvm where the CPU has it
##   BENCH_SIZES=4K,1G BENCH_OPTIONS="-o to_device -V"    of hmm_ref_bench
##   TIMEOUT=seconds   until the guest counts as hung

run: kernel
	@scripts/vm.sh run

test:
	@scripts/test.sh

test-all:
	@scripts/test-all.sh

test-pci:
	@FLAVOURS="release-pci debug-pci" scripts/test.sh

hmm-tests:
	@TEST=hmm-tests scripts/test.sh

fuzz:
	@scripts/fuzz.sh

soak:
	@scripts/soak.sh

shell: kernel
	@scripts/vm.sh shell

kernel:
	@scripts/kernel.sh

mutants:
	@FLAVOUR=release scripts/kernel.sh
	@FLAVOUR=debug scripts/kernel.sh
	@scripts/mutants.sh

core-bugs:
	@CORE_PATCHES=0 scripts/kernel.sh
	@CORE_PATCHES=1 scripts/kernel.sh
	@scripts/core-bugs.sh

mm-tests:
	@CORE_PATCHES=0 scripts/kernel.sh
	@CORE_PATCHES=1 scripts/kernel.sh
	@scripts/mm-tests.sh

series:
	@scripts/core-series.sh
	@scripts/driver-series.sh

core-build:
	@scripts/core-build.sh

check: kernel
	@scripts/check.sh

coverage:
	@scripts/coverage.sh

bench:
	@FLAVOUR=release scripts/kernel.sh
	@scripts/bench.sh

bench-insn:
	@FLAVOUR=release scripts/kernel.sh
	@scripts/bench.sh insn

lockstat:
	@FLAVOUR=lockstat scripts/kernel.sh
	@FLAVOUR=lockstat scripts/bench.sh lockstat

model:
	@scripts/model.sh

results:
	@scripts/results.sh

docs:
	@scripts/docs.sh

modules:
	@grep -qs '^CONFIG_DEVICE_PRIVATE=y' $(KDIR)/include/config/auto.conf || \
		{ echo 'error: $(KDIR): no kernel build, or one without CONFIG_DEVICE_PRIVATE'; exit 1; }
	$(MAKE) -C $(KDIR) M=$(CURDIR) modules

PRODUCTS = *.o *.a *.ko *.mod *.mod.c .*.cmd .module-common.* modules.order Module.symvers

clean:
	rm -rf build
	find drivers $(foreach p,$(PRODUCTS),-name '$p' -delete -o) -false
	rm -f $(PRODUCTS)

distclean: clean
	rm -rf $(CACHE)

.PHONY: help run test test-all test-pci hmm-tests fuzz soak shell kernel mutants check coverage model results docs modules
.PHONY: bench bench-insn lockstat core-bugs mm-tests series core-build clean distclean

endif
