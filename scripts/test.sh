#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
#
# Builds the kernels and the tests if needed, and runs all tests, in stages: those of the scripts,
# the model, those of vm.sh, then the selftests and the kernel's hmm-tests, on the release and on
# the debug kernel.
#
#   in:  FLAVOUR (only this one) or FLAVOURS (these, default "release debug"; with "-plain"
#        behind it without patches/core, with "-no-dmirror" the driver without the old
#        interface, with "-no-compat" without its folder compat, with "-pci" on devices on PCI),
#        TEST (only this program, or hmm-tests, or model), TIMEOUT, FUZZ_SECONDS
#        and SEED (1) of the fuzzer, ALL (1: nothing is left for make test-all), CORE_TESTS (1:
#        those of patches/core, too), and the input of kernel.sh and vm.sh
#   out: a summary on stdout, with a table of the stages; its last line "N passed, N failed[,
#        N skipped]"; exit 1 when a test failed
#
# The stages are listed before the first one runs. A stage that does not run, dies, or leaves no
# count is a failure, whatever else passes. Those that boot a kernel run last, two at a time where
# there are two CPUs, since most tests are one task. Their lines begin with the kernel.

set -euo pipefail
here=$(dirname "$0")
flavours=${FLAVOUR:-${FLAVOURS:-release debug}}
core_patches=${CORE_PATCHES:-1} dmirror=${DMIRROR:-y} compat=${COMPAT:-y} coherent=${COHERENT:-2}
FLAVOUR=release
export COHERENT=$coherent NUMA=${NUMA:-2} GPUS=0 FLAVOUR
# shellcheck source=scripts/lib.sh
. "$here/lib.sh"

work=$(mktemp -d)
counts=$work/counts
planned=() workers=()
declare -A built=()
queued_names=() queued_kernels=() queued_commands=()

# --- the stages -----------------------------------------------------------------

tap() { "$@" | "$here/tap.sh" "$counts"; }

build() {
	"$here/kernel.sh" || return 1
	built[$1]=1
	echo "0 0 0" >>"$counts"
}

has_kernel() { [[ ${built[$1]:-} ]] || { say "there is no $1 kernel"; return 1; }; }

# Tests that are slow on the debug kernel and find more on the release kernel; room and capacity run
# on the small devices of hmm_ref.sh. fail_probe does at random the work of fail_nth.
LATER=room,capacity,lru,swap,page_tables,task,atomic,fail_probe

# Seconds for one program and for all of them, with room for a host that is busy: the debug
# kernel has taken 24 minutes, and 40. A test that hangs gets 300. PART is "1/2" or "2/2": every
# other program.
selftests() {
	local one=600 all=1200 fuzz=10 later='' chunk='' part=${2:-}

	# Struct pages are dear with checks.
	[[ $FLAVOUR == release ]] || one=1800 all=4200 fuzz=60 chunk=16M
	# 200 rounds of unbind, and 50 of hot unplug.
	[[ $FLAVOUR == release || ${ALL:-0} != 1 ]] || one=3600 all=8400
	[[ $FLAVOUR != debug || ${ALL:-0} == 1 || ${TEST:-} ]] || later=$LATER
	fuzz=${FUZZ_SECONDS:-$fuzz}
	has_kernel "$1" || return 1
	LOG=tests-$1${part:+-${part%/*}} TIMEOUT=${TIMEOUT:-$((all + 2 * fuzz))} tap "$here/vm.sh" tests \
		limit=$((one + 2 * fuzz)) ${part:+part="$part"} ${chunk:+chunk="$chunk"} \
		FUZZ_SECONDS="$fuzz" FUZZ_SEED="${SEED:-1}" ${TEST:+only="$TEST"} \
		${later:+later="$later"} \
		${HMM_REF_FAIL_EVERY:+HMM_REF_FAIL_EVERY="$HMM_REF_FAIL_EVERY"} \
		${HMM_REF_HOTPLUG_ROUNDS:+HMM_REF_HOTPLUG_ROUNDS="$HMM_REF_HOTPLUG_ROUNDS"} \
		${HMM_REF_UNBIND_ROUNDS:+HMM_REF_UNBIND_ROUNDS="$HMM_REF_UNBIND_ROUNDS"}
}

hmm_tests() {
	local limit=500

	[[ $FLAVOUR == release ]] || limit=1200
	has_kernel "$1" || return 1
	LOG=hmm-tests-$1 TIMEOUT=${TIMEOUT:-$((limit + 60))} tap "$here/hmm-tests.sh" limit=$limit
}

vm_selftest() {
	has_kernel "$1" || return 1
	tap "$here/vm-selftest.sh"
}

# core_tests SCRIPT: its last line is not that of this run.
core_tests() {
	CORE_PATCHES=0 "$here/kernel.sh" && "$here/kernel.sh" || return 1
	"$here/$1.sh" "$counts" | sed 's/^./  &/'
}

# Sets the input of kernel.sh and vm.sh.
use() {
	export FLAVOUR=${1%%-*} CORE_PATCHES=$core_patches DMIRROR=$dmirror COMPAT=$compat
	export GPUS=0 COHERENT=$coherent
	case $1 in
	*-plain) CORE_PATCHES=0 ;;
	*-no-dmirror) DMIRROR=n ;;
	*-no-compat) COMPAT=n ;;
	*-pci) GPUS=2 COHERENT=0 ;;
	esac
}

# each SERIAL BOOT: call SERIAL for each stage, with its name and its command; or BOOT, with its
# name, the kernel and the command, for those that boot a kernel which is built by then.
each() {
	local do=$1 boot=$2 test=${TEST:-} kernel script part

	if [[ ! $test ]]; then
		for script in tap tap-compare tripwire core-patches test; do
			$do "tests of $script.sh" tap "$here/$script-selftest.sh"
		done
	fi
	[[ ${test:-model} != model ]] || $do "the model of a device page's life" tap "$here/model.sh"
	[[ $test != model ]] || return 0
	for kernel in $flavours; do
		# Only this kernel has patches to leave out.
		[[ $kernel != *-plain || $KERNEL$KSRC == 7.* && $core_patches != 0 ]] || continue
		use "$kernel"
		$do "build of the $kernel kernel" build "$kernel"
		[[ $kernel != release || $test ]] ||
			$do "tests of the VM runner" vm_selftest "$kernel"
		if [[ $test && $test != hmm-tests ]]; then
			$boot "selftests on the $kernel kernel" "$kernel" selftests "$kernel"
		elif [[ ! $test ]]; then
			for part in 1/2 2/2; do
				$boot "selftests on the $kernel kernel, $part" "$kernel" \
					selftests "$kernel" $part
			done
		fi
		[[ ${test:-hmm-tests} != hmm-tests || $DMIRROR == n ]] ||
			$boot "hmm-tests on the $kernel kernel" "$kernel" hmm_tests "$kernel"
	done
	[[ $do == announce ]] || work_off
	if [[ ${CORE_TESTS:-0} == 1 && ! $test && $KERNEL$KSRC == 7.* && $core_patches != 0 ]]; then
		use release
		$do "bugs of the core" core_tests core-bugs
		$do "tests of mm/" core_tests mm-tests
	fi
}

announce() { planned+=("$1"); }

enqueue() {
	queued_names+=("$1")
	queued_kernels+=("$2")
	queued_commands+=("${*:3}")
}

sum() { awk '{ p += $1; f += $2; s += $3 } END { print p + 0, f + 0, s + 0 }' "$counts"; }

# run NAME COMMAND...: a status other than 0 fails the stage, unless one of its tests has. What it
# comes to is left in a file of that name.
run() {
	local name=$1 begin=$SECONDS status=0 passed failed skipped

	shift
	echo "$name"
	: >"$counts"
	"$@" || status=$?
	[[ -s $counts ]] || status=${status/#0/255}
	read -r passed failed skipped < <(sum)
	if ((status && !failed)); then
		echo "  FAIL  $name: status $status"
		failed=1
	fi
	echo "$((SECONDS - begin)) $passed $failed $skipped" >"$work/${name//\//-}"
}

# --- two guests at a time -------------------------------------------------------

# The next stage of the queue that no worker has taken.
take() {
	(
		flock 8
		next=$(cat "$work/next")
		echo $((next + 1)) >"$work/next"
		echo "$next"
	) 8>"$work/lock"
}

worker() {
	local i

	counts=$work/counts.$1
	while i=$(take) && ((i < ${#queued_names[@]})); do
		use "${queued_kernels[i]}"
		# shellcheck disable=SC2086 # words
		run "${queued_names[i]}" ${queued_commands[i]} 2>&1 |
			sed -u "s/^/${queued_kernels[i]}: /"
	done
}

work_off() {
	local i

	echo 0 >"$work/next"
	for ((i = 0; i < 2 && i < $(nproc) && i < ${#queued_names[@]}; i++)); do
		worker $i &
		workers+=($!)
	done
	wait
	workers=()
}

# --- the summary ----------------------------------------------------------------

kill_tree() {
	local child

	for child in $(pgrep -P "$1"); do
		kill_tree "$child"
	done
	kill "$1" 2>/dev/null || true
}

end_workers() {
	local pid

	for pid in "${workers[@]}"; do
		kill_tree "$pid"
	done
	wait
}

# For results.sh, unless only a part of the stages was asked for.
keep_whole() {
	if [[ ${TEST:-} ]]; then
		cat
	elif [[ ${ALL:-0} == 1 ]]; then
		keep test-all
	else
		keep test
	fi
}

# The table, and the last line; also when the run ends early.
summary() {
	local name file status=0

	end_workers
	for name in "${planned[@]}"; do
		file=$work/${name//\//-}
		echo "$(cat "$file" 2>/dev/null || echo '0 0 1 0 DID NOT RUN:') $name"
	done >"$work/table"
	awk -v total="$SECONDS" '
		BEGIN { printf "\n  %7s  %6s  %6s  %7s  %s\n", "seconds", "passed", "failed", "skipped", "stage" }
		{
			name = $5
			for (i = 6; i <= NF; i++)
				name = name " " $i
			printf "  %7d  %6d  %6d  %7d  %s\n", $1, $2, $3, $4, name
			passed += $2; failed += $3; skipped += $4
		}
		END {
			printf "  %7d  %6d  %6d  %7d  %s\n\n", total, passed, failed, skipped, "in all"
			if (passed + failed == 0)
				failed = 1
			printf "%d passed, %d failed", passed, failed
			if (skipped)
				printf ", %d skipped", skipped
			print ""
			exit failed > 0
		}' "$work/table" | keep_whole || status=1
	rm -rf "$work"
	((!status)) || exit 1
}

each announce announce
[[ ${TEST:-} == model || ${planned[*]} == *"build of"* ]] ||
	die "FLAVOURS=$flavours: no such kernel of $(basename "${KSRC:-$KERNEL}")"
trap summary EXIT
trap 'exit 130' INT TERM HUP
each run enqueue
