#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
#
# Loads and unloads the module: with pages of running processes on the devices, with a
# file open, beside test_hmm, and with a small device for the tests of eviction.
#
#   HMM_REF_KO      the module, where modprobe does not find it
#   HMM_REF_ROUNDS  how often it is loaded and unloaded (default 50; a fifth of the rounds
#                   with pages of a running process on the devices)
#
# Prints TAP. Exit status 0, 1 when a test failed, 4 when all tests were skipped.

here=$(cd "$(dirname "$0")" && pwd)
rounds=${HMM_REF_ROUNDS:-50}
number=0
status=0

# shellcheck source=tools/testing/selftests/hmm_ref/hmm_ref_module.sh
. "$here/hmm_ref_module.sh"

# result STATUS TEST [REASON]: 0 is a pass, 4 a skip
result() {
	number=$((number + 1))
	case $1 in
	0) echo "ok $number $2" ;;
	4) echo "ok $number $2 # SKIP $3" ;;
	*) echo "not ok $number $2"; status=1 ;;
	esac
}

# hold [--open]: a process with pages on the devices, which waits to be released
hold() {
	rm -f "$dir/in" "$dir/out"
	mkfifo "$dir/in" "$dir/out" || return 1
	"$here/hold_pages" "$@" <"$dir/in" >"$dir/out" &
	holder=$!
	exec 9>"$dir/in"
	answer=
	read -r answer <"$dir/out"
	[ "$answer" = ready ] && return 0
	echo "# hold_pages did not get its pages to the device"
	exec 9>&-
	wait "$holder"
	return 1
}

# The process compares its data and exits.
release() {
	echo go >&9
	exec 9>&-
	wait "$holder"
}

# Unload while a process has pages on the devices and no file.
unload_under_a_process() {
	hold || return 1
	if ! rmmod hmm_ref || loaded; then
		echo "# not unloaded"
		release
		return 1
	fi
	release
}

# Unload and load again before the process looks at its data.
reload_under_a_process() {
	hold || return 1
	# shellcheck disable=SC2086 # words
	if ! rmmod hmm_ref || ! load $params; then
		release
		return 1
	fi
	release
}

# An open file keeps the module.
refused_while_open() {
	hold --open || return 1
	if rmmod hmm_ref 2>/dev/null; then
		echo "# rmmod did not mind an open file"
		release
		return 1
	fi
	release
}

# So does an open file of the old interface.
refused_while_old_open() {
	[ -c /dev/hmm_dmirror0 ] || return 4
	exec 8<>/dev/hmm_dmirror0 || return 1
	rmmod hmm_ref 2>/dev/null
	exec 8>&-
	loaded || { echo "# rmmod did not mind an open file"; load; return 1; }
}

# Only one module can have the old interface. The second one is refused, or has none.
beside_test_hmm() {
	[ -c /dev/hmm_dmirror0 ] || return 4
	# In older kernels test_hmm leaks, which a leak detector would report for these tests.
	case $(uname -r) in
	[56].*) [ ! -e /sys/kernel/debug/kmemleak ] || return 4 ;;
	esac
	rmmod hmm_ref || return 1
	modprobe test_hmm 2>/dev/null || { load; return 4; }
	rc=0
	if load 2>/dev/null; then
		echo "# loaded while test_hmm has its devices"
		rc=1
	elif ! dmesg | grep -q 'hmm_ref: .*unload test_hmm'; then
		echo "# no word about why it does not load"
		rc=1
	elif ! load dmirror=0; then
		rc=1
	fi
	! loaded || rmmod hmm_ref || rc=1
	rmmod test_hmm || rc=1
	load || rc=1
	[ -c /dev/hmm_dmirror0 ] || rc=1
	return $rc
}

load_rounds() {
	for round in $(seq "$rounds"); do
		# shellcheck disable=SC2086 # words
		rmmod hmm_ref && load $params || { echo "# in round $round"; return 1; }
	done
}

reload_rounds() {
	for round in $(seq $((rounds / 5))); do
		reload_under_a_process || { echo "# in round $round"; return 1; }
	done
}

# Print the log after a given line.
said_after() { dmesg | sed -n "/$1/,\$p"; }

# Each parameter is refused: the module does not load, and logs why.
bad_parameters() {
	rmmod hmm_ref || return 1
	rc=0
	for parameter in ndevices=9 chunk_size=1 chunk_size=3M chunk_size=128G \
		capacity=1 capacity=65E capacity=words coherent=1 coherent=0 \
		coherent_size=1 coherent_size=128G; do
		mark="$$ tries $parameter"
		echo "$mark" >/dev/kmsg
		if load "$parameter" 2>/dev/null; then
			echo "# loaded with $parameter"
			rmmod hmm_ref
			rc=1
		elif ! said_after "$mark" | grep -q hmm_ref:; then
			echo "# no word about $parameter"
			rc=1
		fi
	done
	# shellcheck disable=SC2086 # words
	load $params || rc=1
	return $rc
}

# A device small enough to be filled: for the tests of capacity.c and room.c, which are skipped
# otherwise.
small_device() {
	# shellcheck disable=SC2086 # words
	rmmod hmm_ref && load $params "capacity=$1" "chunk_size=$2" || return 1
	"$here/capacity" >"$dir/log" 2>&1
	rc=$?
	sed 's/^/# /' "$dir/log"
	# A test that is skipped here never runs.
	[ $rc = 0 ] && ! grep -q SKIP "$dir/log" || return 1
	"$here/room" >"$dir/log" 2>&1
	rc=$?
	sed 's/^/# /' "$dir/log"
	return $rc
}

# Memory that loading with a parameter takes, in kB: the least of a few tries, since other
# processes use memory, too.
load_costs() {
	least=
	for _ in 1 2 3 4 5; do
		cost=$(load_cost "$1") || return 1
		[ -n "$least" ] && [ "$least" -le "$cost" ] || least=$cost
	done
	echo "$least"
}

load_cost() {
	! loaded || rmmod hmm_ref || return 1
	before=$(sed -n 's/^MemAvailable: *\([0-9]*\).*/\1/p' /proc/meminfo)
	# shellcheck disable=SC2086 # words
	load $params "$1" || return 1
	after=$(sed -n 's/^MemAvailable: *\([0-9]*\).*/\1/p' /proc/meminfo)
	echo $((before - after))
}

# The capacity is a limit and costs no memory. One bit per page would be 32 MiB. Half of that
# is tolerated for other memory that the kernel uses meanwhile.
large_capacity() {
	small=$(load_costs capacity=1G) && large=$(load_costs capacity=1T) || return 1
	echo "# loading takes $small kB with 1G, $large kB with 1T"
	[ "$large" -le $((small + 16384)) ] || return 1
	hold && release
}

memory() { sed -n 's/^storage_pages[: ]*//p' /sys/kernel/debug/hmm_ref/hmm_ref0/stats; }

# Memory is allocated with the first page. After the last page it is freed, some time after the
# system asks for it.
idle_device() {
	[ -r /sys/kernel/debug/hmm_ref/hmm_ref0/stats ] || return 4
	# shellcheck disable=SC2086 # words
	rmmod hmm_ref && load $params || return 1
	new=$(memory)
	hold || return 1
	used=$(memory)
	release || return 1
	tries=0
	while [ "$(memory)" != 0 ] && [ $tries -lt 100 ]; do
		echo 2 >/proc/sys/vm/drop_caches
		sleep 0.1
		tries=$((tries + 1))
	done
	idle=$(memory)
	echo "# pages of memory: loaded $new, used $used, idle $idle"
	[ "$new" = 0 ] && [ "$used" -gt 0 ] && [ "$idle" = 0 ]
}

# shellcheck disable=SC2317 # called by trap
cleanup() {
	exec 9>&-
	! loaded || rmmod hmm_ref
	# shellcheck disable=SC2086 # words
	[ -z "$was_loaded" ] || load $params
	rm -rf "$dir"
}

echo "TAP version 13"
[ "$(id -u)" = 0 ] || skip_all "run as root"
[ -x "$here/hold_pages" ] || skip_all "no $here/hold_pages: build the selftests"
was_loaded=
params=
if loaded; then
	[ -e /sys/module/hmm_ref/initstate ] || skip_all "hmm_ref is built in"
	was_loaded=1
	params=$(parameters)
fi
dir=$(mktemp -d) || skip_all "no folder for temporary files"
trap cleanup EXIT
if [ -n "$was_loaded" ]; then
	rmmod hmm_ref || skip_all "hmm_ref is in use"
fi
load || skip_all "cannot load hmm_ref by modprobe; set HMM_REF_KO to the path of hmm_ref.ko"

echo "1..11"
bad_parameters
result $? "bad parameters are refused"
refused_while_open
result $? "rmmod is refused while a file is open"
refused_while_old_open
result $? "rmmod is refused while a file of the old interface is open" "no /dev/hmm_dmirror0"
beside_test_hmm
result $? "one module at a time has the old interface" \
	"no old interface, or no test_hmm, or one that leaks"
unload_under_a_process
result $? "rmmod with pages of a living process on the device"
load
reload_rounds
result $? "reloaded under a living process, $((rounds / 5)) times"
load_rounds
result $? "unloaded and loaded, $rounds times"
large_capacity
result $? "a capacity of 1 TiB costs no more than one of 1 GiB"
idle_device
result $? "an idle device has no memory" "no debugfs"
small_device 16M 16M
result $? "eviction, device of 16 MiB"
small_device 6M 2M
result $? "eviction, device of 6 MiB in chunks"
exit $status
