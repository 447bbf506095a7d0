#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
#
# Builds the kernels and the tests if needed, and runs the soak test on the release kernel and on
# the debug kernel.
#
#   in:  SOAK_SECONDS (600) for each kernel, SOAK_SEED (of all programs; the time),
#        SOAK_PROCESSES (6), FLAVOUR (only this kernel), GPUS (2: devices on PCI), and the
#        input of kernel.sh and vm.sh
#   out: the output of the soak test, also in $PRODUCTS/soak.log; the console is in
#        $PRODUCTS/soak.console.log. Exit 1 if it has found a bug on either kernel.

set -euo pipefail
here=$(dirname "$0")
flavours=${FLAVOUR:-release debug}
[[ ${GPUS:-0} != 0 ]] || export COHERENT=${COHERENT:-2}
export NUMA=${NUMA:-2} LOG=${LOG:-soak}
# shellcheck source=scripts/lib.sh
. "$here/lib.sh"

seconds=${SOAK_SECONDS:-600} seed=${SOAK_SEED:-$(date +%s)}
products=${PRODUCTS%-*}
# The last round ends when all memory is compared and freed, and the debug kernel boots slowly.
limit=$((seconds + seconds / 2 + 900))
failed=''

# soak FLAVOUR
soak() {
	local log=$products-$1/soak.log status=0

	export FLAVOUR=$1
	"$here/kernel.sh" || return 1
	say "$1: soaking for $seconds s, seed $seed"
	TIMEOUT=${TIMEOUT:-$((limit + 300))} "$here/vm.sh" tests only=hmm_ref_soak.sh \
		limit="$limit" SOAK_SECONDS="$seconds" SOAK_SEED="$seed" \
		SOAK_PROCESSES="${SOAK_PROCESSES:-6}" | tee "$log" || status=$?
	if ((status)) || grep -q '^not ok' "$log" || ! grep -q '^ok' "$log" ||
		! grep -q '^@end hmm_ref_soak.sh 0' "$log"; then
		say "FAILED: see $log"
		return 1
	fi
}

for flavour in $flavours; do
	soak "$flavour" || failed=1
done
[[ ! $failed ]] || exit 1
echo "nothing lost: $seconds s on each of $flavours, seed $seed" | keep soak >&2
