#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
#
# Builds what is needed and runs all tests: the model, those of vm.sh, then the selftests
# and the kernel's hmm-tests, on the release and on the debug kernel.
#
#   in:  FLAVOUR (only this one) or FLAVOURS (these, default "release debug"), TEST (only
#        this program, or hmm-tests, or model), TIMEOUT, FUZZ_SECONDS and SEED (1) of
#        the fuzzer, and what kernel.sh and vm.sh read
#   out: a summary on stdout, its last line "N passed, N failed[, N skipped]";
#        exit 1 when something failed

set -euo pipefail
here=$(dirname "$0")
flavours=${FLAVOUR:-${FLAVOURS:-release debug}}
export COHERENT=${COHERENT:-2} NUMA=${NUMA:-2}
# shellcheck source=scripts/lib.sh
. "$here/lib.sh"

counts=$(mktemp)
trap 'rm -f "$counts"' EXIT

fail() {
	echo "  FAIL  $*"
	echo "0 1 0" >>"$counts"
}

# Seconds for one program and for all of them, with room for a host that is busy: the debug
# kernel takes 20 minutes of two idle CPUs, and has taken 40.
selftests() {
	local one=300 all=900 fuzz=10 status=0

	[[ $FLAVOUR == release ]] || one=900 all=3600 fuzz=60
	echo "selftests on the $FLAVOUR kernel"
	TIMEOUT=${TIMEOUT:-$all} "$here/vm.sh" tests limit=$one \
		FUZZ_SECONDS="${FUZZ_SECONDS:-$fuzz}" FUZZ_SEED="${SEED:-1}" ${TEST:+only="$TEST"} |
		"$here/tap.sh" "$counts" || status=${PIPESTATUS[0]}
	((status == 0)) || fail "$FLAVOUR kernel: the run failed, vm.sh status $status"
}

hmm_tests() {
	local limit=500 status=0

	[[ $FLAVOUR == release ]] || limit=1200
	echo "hmm-tests of the $FLAVOUR kernel"
	TIMEOUT=${TIMEOUT:-$((limit + 60))} "$here/hmm-tests.sh" limit=$limit |
		"$here/tap.sh" "$counts" || status=${PIPESTATUS[0]}
	((status == 0)) || fail "$FLAVOUR kernel: hmm-tests failed, vm.sh status $status"
}

model() {
	echo "the model of a device page's life"
	"$here/model.sh" | "$here/tap.sh" "$counts" || true
}

vm_selftest() {
	echo "tests of the VM runner"
	"$here/vm-selftest.sh" | "$here/tap.sh" "$counts" || true
}

[[ ${TEST:-model} != model ]] || model
[[ ${TEST:-} != model ]] || flavours=''
for FLAVOUR in $flavours; do
	export FLAVOUR
	if ! "$here/kernel.sh"; then
		fail "$FLAVOUR kernel: the build failed"
		continue
	fi
	[[ $FLAVOUR != release || ${TEST:-} ]] || vm_selftest
	[[ ${TEST:-} == hmm-tests ]] || selftests
	[[ ${TEST:-hmm-tests} != hmm-tests ]] || hmm_tests
done

awk '{ passed += $1; failed += $2; skipped += $3 }
	END {
		if (passed + failed == 0) { print "  FAIL  no test ran"; failed = 1 }
		printf "%d passed, %d failed", passed, failed
		if (skipped) printf ", %d skipped", skipped
		print ""
		exit (failed > 0)
	}' "$counts"
