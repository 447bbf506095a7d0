#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
#
# Runs the fuzzer on two kinds of devices, in rounds: small ones that are always full,
# of single pages, where everything happens at once; and large ones with large folios,
# where some things must not (fuzzing.rst). Each round reloads the module.
#
#   FUZZ_SECONDS    for all of it (default 10)
#   FUZZ_SEED       of the first round (default: the time)
#   HMM_REF_KO      the module, where modprobe does not find it
#
# Prints TAP. Exit status 0, 1 when a test failed, 4 when nothing could be tested.

KSFT_SKIP=4
here=$(cd "$(dirname "$0")" && pwd)
seconds=${FUZZ_SECONDS:-10}
seed=$((${FUZZ_SEED:-$(date +%s)}))
most=120
number=0
status=0

skip_all() {
	echo "1..0 # SKIP $*"
	exit $KSFT_SKIP
}

loaded() { [ -d /sys/module/hmm_ref ]; }

load() {
	if [ -n "$HMM_REF_KO" ]; then
		insmod "$HMM_REF_KO" "$@"
	else
		modprobe hmm_ref "$@"
	fi || return 1
	for _ in 1 2 3 4 5 6 7 8 9 10; do
		[ -c /dev/hmm_ref0 ] && return 0
		sleep 1
	done
	echo "# the module is loaded and /dev/hmm_ref0 does not appear"
	return 1
}

# The parameters that it is loaded with now.
parameters() {
	for file in /sys/module/hmm_ref/parameters/*; do
		value=$(cat "$file" 2>/dev/null)
		[ -z "$value" ] || printf '%s=%s ' "$(basename "$file")" "$value"
	done
}

# round WHAT PARAMETERS...
round() {
	what=$1
	shift
	number=$((number + 1))
	case "$* $large" in
	*large=1*N)
		echo "ok $number $what # SKIP this kernel frees large folios in use: large=N"
		return
		;;
	esac
	echo "# modprobe hmm_ref $* && ./fuzz $seed $each"
	# shellcheck disable=SC2086 # words; the last one counts
	if rmmod hmm_ref && load $params "$@" && "$here/fuzz" "$seed" "$each"; then
		echo "ok $number $what, seed $seed"
	else
		echo "not ok $number $what, seed $seed"
		status=1
	fi
	seed=$((seed + 1))
}

# shellcheck disable=SC2317 # called by trap
cleanup() {
	! loaded || rmmod hmm_ref
	# shellcheck disable=SC2086 # words
	[ -z "$was_loaded" ] || load $params
}

echo "TAP version 13"
[ "$(id -u)" = 0 ] || skip_all "run as root"
[ -x "$here/fuzz" ] || skip_all "no $here/fuzz: build the selftests"
was_loaded=
params=
if loaded; then
	[ -e /sys/module/hmm_ref/initstate ] || skip_all "hmm_ref is built in"
	was_loaded=1
	params=$(parameters)
fi
trap cleanup EXIT
[ -n "$was_loaded" ] || load || skip_all "cannot load hmm_ref by modprobe; set HMM_REF_KO to the path of hmm_ref.ko"

# Where the core is not fixed the driver keeps no large folios, unless told to.
large=$(cat /sys/module/hmm_ref/parameters/large)
rounds=$(((seconds + 2 * most - 1) / (2 * most)))
each=$((seconds / 2 / rounds))
echo "1..$((2 * rounds))"
while [ "$rounds" -gt 0 ]; do
	round "full devices of single pages" large=0 capacity=6M chunk_size=2M
	[ $status = 0 ] || break
	round "devices with large folios" large=1 capacity=1G chunk_size=128M
	[ $status = 0 ] || break
	rounds=$((rounds - 1))
done
exit $status
