#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
#
# Runs the soak test on devices that are smaller than the memory of its processes, so that they
# are always full.
#
#   SOAK_SECONDS, SOAK_SEED, SOAK_PROCESSES     see soak.c
#   HMM_REF_KO      the module, where modprobe does not find it
#
# Prints TAP. Exit status 0, 1 when a test failed, 4 when all tests were skipped.

here=$(cd "$(dirname "$0")" && pwd)

# shellcheck source=tools/testing/selftests/hmm_ref/hmm_ref_module.sh
. "$here/hmm_ref_module.sh"

[ "$(id -u)" = 0 ] || skip_all "run as root"
[ -x "$here/soak" ] || skip_all "no $here/soak: build the selftests"
module_begin
rmmod hmm_ref || skip_all "hmm_ref is in use"
# shellcheck disable=SC2086 # words; the last one counts
load $params capacity=6M chunk_size=2M coherent_size=4M ||
	skip_all "cannot load hmm_ref with small devices"
"$here/soak"
