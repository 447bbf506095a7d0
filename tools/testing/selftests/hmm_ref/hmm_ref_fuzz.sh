#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
#
# Runs the fuzzer on two kinds of devices, in rounds: with single pages only, and with large
# folios where the kernel has them. Both are small, so that they are always full.
# Each round reloads the module.
#
#   FUZZ_SECONDS    duration of all rounds (default 10)
#   FUZZ_SEED       seed of the first round (default: the time)
#   FUZZ_POISON     pages that are poisoned in a round (default: none in two rounds, 8 in the next
#                   two, and so on)
#   HMM_REF_KO      the module, where modprobe does not find it
#
# Prints TAP. Exit status 0, 1 when a test failed, 4 when all tests were skipped.

here=$(cd "$(dirname "$0")" && pwd)
seconds=${FUZZ_SECONDS:-10}
seed=$((${FUZZ_SEED:-$(date +%s)}))
most=120
number=0
status=0

# shellcheck source=tools/testing/selftests/hmm_ref/hmm_ref_module.sh
. "$here/hmm_ref_module.sh"

# round TEST PARAMETERS...
round() {
	what=$1
	shift
	number=$((number + 1))
	case "$* $large" in
	*large=1*N)
		echo "ok $number $what # SKIP large=N, as this kernel has bugs with large folios"
		return
		;;
	esac
	poison=${FUZZ_POISON:-$(((number - 1) / 2 % 2 * 8))}
	echo "# modprobe hmm_ref $* && FUZZ_POISON=$poison ./fuzz $seed $each"
	# shellcheck disable=SC2086 # words; the last one counts
	if rmmod hmm_ref && load $params "$@" &&
		FUZZ_POISON=$poison "$here/fuzz" "$seed" "$each"; then
		echo "ok $number $what, seed $seed"
	else
		echo "not ok $number $what, seed $seed"
		status=1
	fi
	seed=$((seed + 1))
}

echo "TAP version 13"
[ "$(id -u)" = 0 ] || skip_all "run as root"
[ -x "$here/fuzz" ] || skip_all "no $here/fuzz: build the selftests"
module_begin

# Where the core is not fixed, the driver keeps large folios only if a parameter says so.
large=$(cat /sys/module/hmm_ref/parameters/large)
rounds=$(((seconds + 2 * most - 1) / (2 * most)))
each=$((seconds / 2 / rounds))
echo "1..$((2 * rounds))"
while [ "$rounds" -gt 0 ]; do
	round "full devices of single pages" large=0 capacity=6M chunk_size=2M
	[ $status = 0 ] || break
	round "devices with large folios" large=1 capacity=24M chunk_size=8M
	[ $status = 0 ] || break
	rounds=$((rounds - 1))
done
exit $status
