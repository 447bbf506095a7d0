#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
#
# Builds the kernel and the tests if needed, and runs the fuzzer for any time.
#
#   in:  FUZZ_SECONDS (1800), SEED (of the first round; the time), FLAVOUR (debug), and
#        the input of kernel.sh and vm.sh
#   out: the output of the fuzzer, also in $PRODUCTS/fuzz.log; the console is in
#        $PRODUCTS/tests.console.log. Exit 1 if the fuzzer has found a bug.

set -euo pipefail
here=$(dirname "$0")
export FLAVOUR=${FLAVOUR:-debug} COHERENT=${COHERENT:-2} NUMA=${NUMA:-2}
# shellcheck source=scripts/lib.sh
. "$here/lib.sh"

seconds=${FUZZ_SECONDS:-1800} seed=${SEED:-$(date +%s)}
# The module is reloaded between two rounds, and the debug kernel boots slowly.
limit=$((seconds + seconds / 2 + 300))
log=$PRODUCTS/fuzz.log status=0

"$here/kernel.sh"
say "fuzzing for $seconds s from seed $seed on"
TIMEOUT=${TIMEOUT:-$((limit + 300))} "$here/vm.sh" tests only=hmm_ref_fuzz.sh \
	limit="$limit" FUZZ_SECONDS="$seconds" FUZZ_SEED="$seed" | tee "$log" || status=$?
if ((status)) || grep -q '^not ok' "$log" || ! grep -q '^ok' "$log" ||
	! grep -q '^@end hmm_ref_fuzz.sh 0' "$log"; then
	say "FAILED: see $log"
	exit 1
fi
echo "$FLAVOUR: nothing found in $(grep -c '^ok' "$log") rounds, $seconds s from seed $seed on" |
	keep fuzz >&2
