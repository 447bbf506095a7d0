#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
#
# Builds the kernels and the tests if needed, and runs all tests, in stages: those of the scripts,
# the model, those of vm.sh, then the selftests and the kernel's hmm-tests, on the release and on
# the debug kernel.
#
#   in:  FLAVOUR (only this one) or FLAVOURS (these, default "release debug"; with "-plain"
#        behind it without patches/core, with "-no-dmirror" the driver without the old
#        interface, with "-no-compat" without its folder compat, with "-pci" on devices on PCI,
#        with "-long" only programs that get more rounds), TEST (only this program, or
#        hmm-tests, or model), TIMEOUT, FUZZ_SECONDS
#        and SEED (1) of the fuzzer, REST (1: what "make test" leaves out, and the other
#        kernels), UNTIL (of REST: seconds from its beginning, after which no stage should
#        run), and the input of kernel.sh and vm.sh
#   out: a summary on stdout, with a table of the stages; its last line "N passed, N failed[,
#        N skipped]"; exit 1 when a test failed
#
# The stages are listed before the first one runs. A stage that does not run, dies, or leaves no
# count is a failure, whatever else passes, unless UNTIL leaves no time for it: such a stage is
# named in the table. Those that boot a kernel run last, two at a time where there are two CPUs,
# since most tests are one task. Their lines begin with the kernel.

set -euo pipefail
here=$(dirname "$0")
rest=${REST:-0} until=${UNTIL:-0}
kernels='release debug'
# In this order, as far as the time goes.
((!rest)) || kernels='debug release-pci kcsan release-plain debug-pci release-no-compat
	debug-no-dmirror release-long debug-long debug-pci-long'
flavours=${FLAVOUR:-${FLAVOURS:-$kernels}}
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

# Programs that are left for REST on the debug kernel: they are slow there and find more on the
# release kernel, or they are exhaustive, and "make test" has a shorter relative (of fail_nth:
# fail and fail_classes; of race_write: race). room and capacity run on the small devices of
# hmm_ref.sh. From uapi on, they compare results, which the release kernel does as well.
LATER=room,capacity,lru,swap,page_tables,task,atomic,fail_probe,fail_nth,large_split,large_scarce
LATER+=,regress_signal,debugger,windows,suspend,lifetime,peer,stale,hmm_ref.sh,hmm_ref_soak.sh
LATER+=,race_write,race_large,race_peer,peer_fail
LATER+=,uapi,range,access,snapshot,mapping,vma,fault_around,softdirty,kernel_io,socket,numa
LATER+=,trace,written

# Programs that REST runs once more for longer, on the kernels with "-long" behind their names.
LONGER=unbind,hotplug,hmm_ref_kunit.sh,hmm_ref_fuzz.sh,hmm_ref_soak.sh,hmm_ref_fail.sh

# Seconds for one program and for all of them, with room for a host that is busy. A test that
# hangs gets 300. PART is "1/2" or "2/2": every other program.
selftests() {
	local one=600 all=1200 fuzz=10 soak=10 later='' just='' chunk='' part=${2:-} rounds=()

	# Struct pages are dear with checks.
	[[ $FLAVOUR == release ]] || one=1800 all=4200 fuzz=60 chunk=16M
	# Random sequences of a third of their length, which the stages of REST have.
	((rest)) || rounds=(HMM_REF_KUNIT_PARAMS=steps=1000)
	case $rest-$1-${TEST:-} in
	0-debug-) later=$LATER fuzz=40 ;;
	1-debug-) just=$LATER ;;
	1-*-long-)
		just=$LONGER one=7200 all=16000 fuzz=300 soak=120
		rounds=(HMM_REF_FAIL_EVERY=1 HMM_REF_HOTPLUG_ROUNDS=50 HMM_REF_UNBIND_ROUNDS=200)
		;;
	esac
	fuzz=${FUZZ_SECONDS:-$fuzz}
	has_kernel "$1" || return 1
	LOG=tests-$1${part:+-${part%/*}} TIMEOUT=${TIMEOUT:-$((all + 2 * fuzz + 2 * soak))} \
		tap "$here/vm.sh" tests limit=$((one + 2 * fuzz + 2 * soak)) ${part:+part="$part"} \
		${chunk:+chunk="$chunk"} FUZZ_SECONDS="$fuzz" FUZZ_SEED="${SEED:-1}" \
		SOAK_SECONDS="${SOAK_SECONDS:-$soak}" ${TEST:+only="$TEST"} \
		${later:+later="$later"} ${just:+just="$just"} "${rounds[@]}"
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
	*-pci | *-pci-long) GPUS=2 COHERENT=0 ;;
	esac
}

# Minutes on two idle CPUs; in REST of all of a kernel's stages, with the build of one that is new.
about() {
	case $rest-$1 in
	?-*model*) echo 1 ;;
	0-*"build of"*) echo "1 to 6" ;;
	0-*"release kernel, "*) echo 3 ;;
	0-*"debug kernel, "*) echo 6 ;;
	0-hmm-tests*) echo 2 ;;
	1-debug) echo 17 ;;
	1-release-pci | 1-release-no-compat) echo 6 ;;
	1-kcsan) echo 26 ;;
	1-release-plain | 1-core-bugs) echo 20 ;;
	1-debug-pci | 1-debug-no-dmirror) echo 25 ;;
	1-release-long) echo 25 ;;
	1-debug-long | 1-debug-pci-long) echo 60 ;;
	1-mm-tests) echo 14 ;;
	esac
}

# Is there time for it, also on a host that takes two and a half times as long?
fits() {
	local minutes

	minutes=$(about "$1")
	((!until || SECONDS + ${minutes:-15} * 150 <= until))
}

# of_kernel KERNEL DO BOOT: its stages, as below.
of_kernel() {
	local kernel=$1 do=$2 boot=$3 test=${TEST:-} part

	use "$kernel"
	$do "build of the $kernel kernel" build "$kernel"
	[[ $kernel != release || $test ]] || ((rest)) ||
		$do "tests of the VM runner" vm_selftest "$kernel"
	if [[ $test && $test != hmm-tests ]]; then
		$boot "selftests on the $kernel kernel" "$kernel" selftests "$kernel"
	elif [[ ! $test ]]; then
		for part in 1/2 2/2; do
			$boot "selftests on the $kernel kernel, $part" "$kernel" \
				selftests "$kernel" $part
		done
	fi
	[[ ${test:-hmm-tests} != hmm-tests || $DMIRROR == n ]] || hmm_tests_are_elsewhere "$kernel" ||
		$boot "hmm-tests on the $kernel kernel" "$kernel" hmm_tests "$kernel"
}

# On the debug kernel they are left for REST. They take no longer on a "-long" kernel.
hmm_tests_are_elsewhere() {
	[[ $1 != *-long ]] || return 0
	[[ $rest-$1 == 0-debug && ! ${TEST:-} && $flavours == *' '* ]]
}

# of_core SCRIPT DO
of_core() {
	use release
	$2 "$1" core_tests "$1"
}

# each SERIAL BOOT: call SERIAL for each stage, with its name and its command; or BOOT, with its
# name, the kernel and the command, for those that boot a kernel which is built by then.
each() {
	local do=$1 boot=$2 test=${TEST:-} kernel script

	if [[ ! $test ]] && ((!rest)); then
		for script in tap tap-compare tripwire core-patches test; do
			$do "tests of $script.sh" tap "$here/$script-selftest.sh"
		done
	fi
	[[ ${test:-model} != model ]] || ((rest)) ||
		$do "the model of a device page's life" tap "$here/model.sh"
	[[ $test != model ]] || return 0
	for kernel in $flavours; do
		# Only this kernel has patches to leave out.
		[[ $kernel != *-plain || $KERNEL$KSRC == 7.* && $core_patches != 0 ]] || continue
		if [[ $do == run ]] && ((rest)) && ! fits "$kernel"; then
			of_kernel "$kernel" leave leave
			continue
		fi
		((!rest)) || [[ $do == announce || ! $(about "$kernel") ]] ||
			say "$kernel: about $(about "$kernel") minutes"
		of_kernel "$kernel" "$do" "$boot"
		[[ $do == announce ]] || ((!rest)) || work_off
	done
	[[ $do == announce ]] || work_off
	if ((rest)) && [[ ! $test && $KERNEL$KSRC == 7.* && $core_patches != 0 ]]; then
		for script in core-bugs mm-tests; do
			if [[ $do == run ]] && ! fits "$script"; then
				of_core "$script" leave
			else
				of_core "$script" "$do"
			fi
		done
	fi
}

announce() { planned+=("$1"); }

enqueue() {
	queued_names+=("$1")
	queued_kernels+=("$2")
	queued_commands+=("${*:3}")
}

sum() { awk '{ p += $1; f += $2; s += $3 } END { print p + 0, f + 0, s + 0 }' "$counts"; }

# leave NAME ...: there is no time for it.
leave() { echo "0 0 0 0 NO TIME:" >"$work/${1//\//-}"; }

# run NAME COMMAND...: a status other than 0 fails the stage, unless one of its tests has. What it
# comes to is left in a file of that name.
run() {
	local name=$1 begin=$SECONDS status=0 passed failed skipped minutes

	shift
	minutes=$(about "$name")
	echo "$name${minutes:+ (about $minutes min)}"
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
	workers=() queued_names=() queued_kernels=() queued_commands=()
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
			ran += $5 " " $6 != "NO TIME:"
		}
		END {
			printf "  %7d  %6d  %6d  %7d  %s\n\n", total, passed, failed, skipped, "in all"
			if (ran && passed + failed == 0)
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
