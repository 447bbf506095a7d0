#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
#
# Tests the tests: breaks the driver, or a script, by one patch at a time, and checks that the test
# which the patch names fails as the patch says.
#
#   in:  tools/mutants/*.patch, or only MUTANT (names, separated by spaces); the kernels
#        that kernel.sh has built; TIMEOUT (300 seconds for a test of the driver as it is)
#   out: a line per mutant on stdout, the last line "N killed, N survived"; exit 1 when
#        one survived, failed in another way, or could not be tried. The last logs are in
#        build/mutants.
#        With the argument "check" it builds nothing, and prints the patches that do not
#        apply or lack a line below.
#
# A patch begins with a sentence about the mistake, and these lines; the last two are optional:
#
#   Id: NAME              as in the documentation, regressions.rst
#   Killed-by: PROGRAM.FIXTURE.TEST FLAVOUR [KERNEL PARAMETER]...
#   Killed-by: PROGRAM.sh[:REGEX] FLAVOUR [KERNEL PARAMETER]...
#                         of a script, that only those results count which match
#   Kills-by-splat: REGEX the complaint of the kernel, or of guest/init
#   Kills-by-hang: WHY    the test does not end
#
# FLAVOUR is release or debug, or host for a self-test in scripts/, which needs no VM. With the
# parameter gpus=2 the devices are on PCI.
#
# A mutant is killed when a test of that name reports "not ok"; or, if the patch says so, when the
# kernel's log has a splat that matches, or the test does not end. Any other result, such as another
# splat or a host that is too slow, is no kill. The unchanged driver runs the same tests first and
# has to pass them; a mutant gets 8 times as long as that took, and a minute.

set -euo pipefail
here=$(dirname "$0")
# shellcheck source=scripts/lib.sh
. "$here/lib.sh"

LIMIT=${TIMEOUT:-300} MUTANT=${MUTANT:-}
export COHERENT=${COHERENT:-2} NUMA=${NUMA:-2}

COPIED=(Makefile drivers/misc/hmm_ref include/uapi/hmm_ref.h)
KILLED_BY='^[a-z_-]+(\.sh(:[^ ]+)?|(\.[a-z0-9_]+){2,3}) (release|debug|host)( |$)'
declare -A took=()

# --- patches --------------------------------------------------------------------

patches() {
	local name

	for name in ${MUTANT:-$(cd "$ROOT/tools/mutants" && echo *.patch)}; do
		echo "$ROOT/tools/mutants/${name%.patch}.patch"
	done
}

header() { sed -n "s/^$1: //p" "$2"; }

# Reads the lines of the patch: sets test, splat, hang, and in where the flavour and the parameters.
read_patch() {
	read -r test where < <(header Killed-by "$1")
	flavour=${where%% *}
	splat=$(header Kills-by-splat "$1")
	hang=$(header Kills-by-hang "$1")
}

apply() { patch -d "$1" -p1 -F0 -s -f "${@:2}" >/dev/null; }

check() {
	local patch status

	for patch in $(patches); do
		grep -q '^Id: .' "$patch" || echo "${patch##*/}: no Id"
		header Killed-by "$patch" | grep -qE "$KILLED_BY" ||
			echo "${patch##*/}: does not say by what it is killed"
		status=0
		header Kills-by-splat "$patch" | grep -Ef - /dev/null || status=$?
		((status < 2)) || echo "${patch##*/}: Kills-by-splat is no regular expression"
		apply "$ROOT" --dry-run <"$patch" || echo "${patch##*/}: does not apply"
	done
}

# --- one run --------------------------------------------------------------------

# The needs of a flavour: a kernel and a copy of the driver, or a copy of the scripts.
prepare() {
	local products=${PRODUCTS%-*}-$1

	dir=$work/$1
	log=$dir/log console=$dir/products/mutant.console.log
	[[ ! -e $dir ]] || return 0
	mkdir -p "$dir"/{driver,products}
	if [[ $1 == host ]]; then
		cp -r "$ROOT/scripts" "$dir/driver"
		return
	fi
	[[ -e $products/build ]] || die "there is no kernel in $products: FLAVOUR=$1 make kernel"
	rsync -a --exclude='*.cpio' --exclude='*.log' "$products/" "$dir/products"
	mv "$dir/products/selftests" "$dir"
	(cd "$ROOT" && rsync -aR --exclude='*.[ao]' --exclude='*.ko' --exclude='.*' \
		--exclude='*.mod*' "${COPIED[@]}" "$dir/driver")
}

# The copy's header goes before the one in the kernel's tree, which changes hands. The KUnit
# tests have inline functions of the driver in them.
build() {
	[[ $flavour != host ]] || return 0
	(
		lock_cache
		make -s -C "$(cat "$dir/products/build")" M="$dir/driver" -j"$(nproc)" \
			CONFIG_HMM_REF_KUNIT_TEST=m \
			NOSTDINC_FLAGS="-I$dir/driver/include -nostdinc" modules
	) >"$dir/build.log" 2>&1 || return 1
	cp "$dir"/driver/drivers/misc/hmm_ref/hmm_ref{,_kunit}.ko "$dir/products"
}

# choose TEST...: the guest gets these, and only their programs: that is quicker.
choose() {
	local test

	rm -rf "$dir/products/selftests"
	mkdir "$dir/products/selftests"
	for test in "$@"; do
		case $test in
		*.sh*)
			cp -alf "$dir/selftests/." "$dir/products/selftests"
			echo "${test%:*}"
			;;
		*)
			cp -lf "$dir/selftests/${test%%.*}" "$dir/products/selftests"
			echo "${test%%.*} ${test##*.}"
			;;
		esac
	done >"$dir/products/selftests.list"
}

# run_here LIMIT SCRIPT...: as the guest's job mutant, on the host
run_here() {
	local script begin

	for script in "${@:2}"; do
		begin=$SECONDS
		timeout -k 5 "$1" "$dir/driver/scripts/${script%:*}" || true
		echo "@took ${script%:*} $((SECONDS - begin))"
	done
}

# start LIMIT TEST...: run them in the background, with the parameters of where.
start() {
	local limit=$1 gpus=0 windows=$COHERENT

	shift
	# New files: a run that was ended early may still write to the old ones.
	rm -f "$log" "$console"
	if [[ $flavour == host ]]; then
		touch "$log"
		run_here "$limit" "$@" >"$log" 2>&1 &
		return
	fi
	choose "$@"
	touch "$log" "$console"
	[[ " $where " != *" gpus=2 "* ]] || gpus=2 windows=0
	# shellcheck disable=SC2086 # words
	FLAVOUR=$flavour GPUS=$gpus COHERENT=$windows HMM_REF_PRODUCTS=$dir/products TIMEOUT=$((limit * $# + 120)) \
		"$here/vm.sh" mutant limit="$limit" ${where#"$flavour"} >"$log" 2>&1 &
}

# The lines that a test has reported, "ok" ($1) or "not ok", of the test that is named, in any
# variant that its name leaves open.
reported() {
	local name=${2#*.} line

	case $2 in
	*.sh:*) line="[0-9]+ .*${2#*:}" ;;
	*.sh) line="[0-9]+ " ;;
	*) line="[0-9]+ ${name%.*}(\.[a-z0-9_]+)*\.${name##*.}( |"$'\r'"?$)" ;;
	esac
	grep -aE "^$1 $line" "$log"
}

# A test that the harness, or the guest, has ended. "not ok" then says only that.
timed_out() { grep -aqE 'Test terminated by timeout|^@end .* 137$|FAILED: timeout' "$log"; }

# The complaint of the kernel, from its first line on, or of the guest.
complaints() {
	local at

	[[ $flavour != host ]] || return 0
	at=$("$here/tripwire.sh" --running "$console" 2>&1 | sed -n "1s|.*$console:||p" || true)
	[[ ! $at ]] || sed -n "$at,\$p" "$console" | tr -d '\r' | sed 's/^\[[^]]*\] //'
	sed -n '/^guest: /,/^@/p' "$log"
}

# In a line, how the test of the patch has failed; empty if it has not, or not yet.
killed() {
	local line

	if ! timed_out && line=$(reported 'not ok' "$test"); then
		echo "${line%%$'\n'*}"
	elif [[ $splat ]] && line=$(grep -m 1 -E "$splat" <<<"$(complaints)"); then
		echo "$line"
	elif [[ $hang ]] && timed_out; then
		echo "it hangs"
	fi
}

# In a line, any other failure of the last run.
otherwise() {
	local line

	if timed_out; then
		echo "it hangs"
	elif line=$(complaints) && [[ $line ]]; then
		echo "${line%%$'\n'*}"
	elif ! grep -a -m 1 '^not ok' "$log"; then
		tail -n 1 "$log"
	fi
}

# Waits for a run to end, or to be decided. Sets how.
await() {
	local run=$1

	while how=$(killed) && [[ ! $how ]] && kill -0 "$run" 2>/dev/null; do
		sleep 0.3
	done
	kill "$run" 2>/dev/null || true
	status=0
	wait "$run" || status=$?
	# The last message.
	[[ $how ]] || how=$(killed)
}

# --- all of them ----------------------------------------------------------------

# The driver as it is, in one boot per set of parameters; sets how long each test took.
control() {
	local patch place tests programs name seconds

	while read -r place; do
		tests=()
		for patch in $(patches); do
			read_patch "$patch"
			[[ $where != "$place" ]] || tests+=("$test")
		done
		mapfile -t tests < <(printf '%s\n' "${tests[@]}" | sort -u)
		where=$place flavour=${place%% *}
		prepare "$flavour"
		build || die "the driver does not build, see $dir/build.log"
		mapfile -t programs < <(printf '%s\n' "${tests[@]%:*}" | sort -u)
		start "$LIMIT" "${programs[@]}"
		wait $! || die "the driver as it is does not pass, see $log: $(otherwise)"
		! grep -q '^not ok' "$log" || die "the driver as it is does not pass, see $log"
		for test in "${tests[@]}"; do
			reported ok "$test" | grep -v '# SKIP' >/dev/null ||
				die "as it is, it skips $test, or there is no such test, see $log"
		done
		while read -r _ name seconds; do
			took["$place $name"]=$seconds
		done < <(grep '^@took ' "$log")
		echo "as it is, it passes ${#tests[@]} tests: $place"
	done < <(for patch in $(patches); do
		read_patch "$patch" && echo "$where"
	done | sort -u)
}

# The guest's list has the program and the name of the test, without the fixture.
taken() {
	case $test in
	*.sh*) echo "${took["$where ${test%:*}"]:-$LIMIT}" ;;
	*) echo "${took["$where ${test%%.*}.${test##*.}"]:-$LIMIT}" ;;
	esac
}

# Returns 0 when it is killed, 1 when it survives, 2 when it could not be tried.
mutant() {
	local patch=$1 result=0

	read_patch "$patch"
	prepare "$flavour"
	if ! apply "$dir/driver" --no-backup-if-mismatch <"$patch"; then
		verdict="does not apply"
		return 2
	fi
	if ! build; then
		verdict="does not build, see $dir/build.log"
		result=2
	else
		start $((60 + 8 * $(taken))) "$test"
		await $!
		if [[ $how ]]; then
			verdict="killed by $test $flavour: $how"
		elif reported ok "$test" >/dev/null && ((status == 0)); then
			verdict="SURVIVED $test $where"
			result=1
		else
			verdict="FAILED IN ANOTHER WAY than $test $where: $(otherwise)"
			result=2
		fi
	fi
	apply "$dir/driver" --reverse --no-backup-if-mismatch <"$patch"
	return $result
}

if [[ ${1:-} == check ]]; then
	check
	exit 0
fi
work=$ROOT/build/mutants
rm -rf "$work"
trap 'kill $(jobs -p) 2>/dev/null || true' EXIT
control
counts=(0 0 0)
for patch in $(patches); do
	result=0
	begin=$SECONDS
	mutant "$patch" || result=$?
	counts[result]=$((counts[result] + 1))
	echo "$(basename "$patch" .patch): $verdict, $((SECONDS - begin)) s"
done
((counts[2] == 0)) || echo "${counts[2]} failed in another way, or could not be tried"
echo "${counts[0]} killed, ${counts[1]} survived" |
	if [[ ${MUTANT:-} ]]; then cat; else keep mutants; fi
((counts[1] + counts[2] == 0)) || exit 1
