#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
#
# Runs the tests of edu.c on a device with real DMA: QEMU's edu, which scripts/vm.sh adds to the
# guest when GPUS is set. Loads the driver for it, and unloads it.
#
# Prints TAP. Exit status 0, 1 when a test failed, 4 when all tests were skipped.

here=$(dirname "$0")

skip_all() {
	echo "TAP version 13"
	echo "1..0 # SKIP $1"
	exit 4
}

# The folders of these devices on the bus.
devices() {
	for folder in /sys/bus/pci/devices/*; do
		! grep -q 0x1234 "$folder/vendor" 2>/dev/null || grep -l 0x11e8 "$folder/device"
	done
}

[ "$(id -u)" = 0 ] || skip_all "run as root"
[ -e /sys/module/hmm_ref ] || skip_all "no hmm_ref"
[ -n "$(devices)" ] || skip_all "no device edu: make test-pci"
find "/lib/modules/$(uname -r)" -name 'hmm_ref_edu.ko*' 2>/dev/null | grep -q . ||
	skip_all "no hmm_ref_edu (CONFIG_HMM_REF_EDU)"
for device in $(devices); do
	grep -q DMA "${device%/*}/iommu_group/type" 2>/dev/null ||
		skip_all "no IOMMU that translates for the device"
done
number=0
while [ -e /dev/hmm_ref$number ]; do
	number=$((number + 1))
done
modprobe hmm_ref_edu number=$number
if ! [ -c /dev/hmm_ref$number ]; then
	printf 'TAP version 13\n1..1\nnot ok 1 it has a device\n'
	exit 1
fi
HMM_REF_EDU=$number "$here/edu" "$@"
status=$?
rmmod hmm_ref_edu && [ ! -e /dev/hmm_ref$number ] || status=1
exit $status
