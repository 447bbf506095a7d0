#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
#
# Runs the tests of fail_nth that need a small device of two chunks: each step of a migration
# fails while the device is full.
#
#   HMM_REF_KO          the module, where modprobe does not find it
#   HMM_REF_FAIL_EVERY  after which steps more failures follow: each one (1), each 16th (16);
#                       without it all tests are skipped, since they take many minutes
#
# Prints the TAP of fail_nth. Exit status 0, 1 when a test failed, 4 when all tests
# were skipped.

here=$(cd "$(dirname "$0")" && pwd)

# shellcheck source=tools/testing/selftests/hmm_ref/hmm_ref_module.sh
. "$here/hmm_ref_module.sh"

[ "$(id -u)" = 0 ] || skip_all "run as root"
[ -x "$here/fail_nth" ] || skip_all "no $here/fail_nth: build the selftests"
[ -w /proc/self/fail-nth ] || skip_all "no fail-nth: CONFIG_FAULT_INJECTION"
[ -n "$HMM_REF_FAIL_EVERY" ] ||
	skip_all "takes many minutes: HMM_REF_FAIL_EVERY=1, as make test-all has it"
module_begin

# shellcheck disable=SC2086 # words; the last one counts
rmmod hmm_ref && load $params capacity=4M chunk_size=2M || exit 1
"$here/fail_nth" -v full_to_device -v full_to_device_holes -v full_to_device_large \
	-v full_chunk_to_device -v full_to_system -v full_cpu_read
