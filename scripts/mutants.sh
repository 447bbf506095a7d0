#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
#
# Tests the tests: breaks the driver by one patch at a time, and sees that the test which
# the patch names does not pass.
#
#   in:  tools/mutants/*.patch, or only MUTANT (names, separated by spaces); the kernels
#        that kernel.sh has built; TIMEOUT (seconds until a test counts as hung)
#   out: a line per mutant on stdout, the last line "N killed, N survived"; exit 1 when
#        one survived or could not be tried. The last logs are in build/mutants.
#        With the argument "check" nothing is built: prints the patches that do not
#        apply, or do not say what they are.
#
# A patch begins with what it breaks, and these lines:
#
#   Id: NAME              as in the documentation, regressions.rst
#   Killed-by: PROGRAM.FIXTURE.TEST FLAVOUR [KERNEL PARAMETER]...
#
# Killed is: the test fails, the kernel complains, or the guest hangs. To know that this
# is the mutant's doing, the driver as it is runs the same tests first, within the same
# time, and has to pass them.

set -euo pipefail
here=$(dirname "$0")
# shellcheck source=scripts/lib.sh
. "$here/lib.sh"

LIMIT=${TIMEOUT:-40} MUTANT=${MUTANT:-}
export COHERENT=${COHERENT:-2} NUMA=${NUMA:-2}

COPIED=(Makefile drivers/misc/hmm_ref include/uapi/hmm_ref.h)
FAILED='^not ok\|^guest: \|^@end .* 137$'
KILLED_BY='^[a-z_]+(\.sh|(\.[a-z_]+){2,3}) (release|debug)( |$)'

# --- patches --------------------------------------------------------------------

patches() {
	local name

	for name in ${MUTANT:-$(cd "$ROOT/tools/mutants" && echo *.patch)}; do
		echo "$ROOT/tools/mutants/${name%.patch}.patch"
	done
}

# What the patch says: sets test, and in where the flavour and the parameters.
read_patch() {
	read -r test where < <(sed -n 's/^Killed-by: //p' "$1")
	flavour=${where%% *}
}

apply() { patch -d "$1" -p1 -F0 -s -f "${@:2}" >/dev/null; }

check() {
	local patch

	for patch in $(patches); do
		grep -q '^Id: .' "$patch" || echo "${patch##*/}: no Id"
		sed -n 's/^Killed-by: //p' "$patch" | grep -qE "$KILLED_BY" ||
			echo "${patch##*/}: does not say by what it is killed"
		apply "$ROOT" --dry-run <"$patch" || echo "${patch##*/}: does not apply"
	done
}

# --- one boot -------------------------------------------------------------------

# A kernel and a copy of the driver, for a flavour.
prepare() {
	local products=${PRODUCTS%-*}-$1

	dir=$work/$1
	[[ ! -e $dir ]] || return 0
	[[ -e $products/build ]] || die "there is no kernel in $products: FLAVOUR=$1 make kernel"
	mkdir -p "$dir"/{driver,products}
	rsync -a --exclude='*.cpio' --exclude='*.log' "$products/" "$dir/products"
	(cd "$ROOT" && rsync -aR --exclude='*.[ao]' --exclude='*.ko' --exclude='.*' \
		--exclude='*.mod*' "${COPIED[@]}" "$dir/driver")
}

# The copy's header goes before the one in the kernel's tree, which changes hands.
build() {
	(
		lock_cache
		make -s -C "$(cat "$dir/products/build")" M="$dir/driver" -j"$(nproc)" \
			NOSTDINC_FLAGS="-I$dir/driver/include -nostdinc" modules
	) >"$dir/build.log" 2>&1 || return 1
	cp "$dir/driver/drivers/misc/hmm_ref/hmm_ref.ko" "$dir/products"
}

# boot TEST...: run them, with the parameters of where. Who has failed need not finish.
boot() {
	local console=$dir/products/mutant.console.log vm status=0 test

	for test in "$@"; do
		case $test in
		*.sh) echo "$test" ;;
		*) echo "${test%%.*} ${test##*.}" ;;
		esac
	done >"$dir/products/selftests.list"
	rm -f "$console" "$dir/vm.log"
	touch "$console" "$dir/vm.log"
	# shellcheck disable=SC2086 # words
	FLAVOUR=$flavour HMM_REF_PRODUCTS=$dir/products TIMEOUT=$((LIMIT * $# + 60)) \
		"$here/vm.sh" mutant limit="$LIMIT" ${where#"$flavour"} >"$dir/vm.log" 2>&1 &
	vm=$!
	while kill -0 $vm 2>/dev/null; do
		if grep -q "$FAILED" "$dir/vm.log" || ! "$here/tripwire.sh" "$console" 2>/dev/null; then
			kill $vm 2>/dev/null || true
			break
		fi
		sleep 0.3
	done
	wait $vm || status=$?
	return $status
}

# Has the last boot run a test, in whatever variants?
ran() {
	local name=${1#*.}

	grep -qE "^ok [0-9]+ ${name%.*}(\.[a-z0-9_]+)*\.${name##*.}\r?$" "$dir/vm.log"
}

# In a line, what was wrong with the last boot.
reason() {
	local console=$dir/products/mutant.console.log splat

	splat=$("$here/tripwire.sh" "$console" 2>&1 | sed -n "1s|.*$console:||p" || true)
	if grep -q "$FAILED" "$dir/vm.log"; then
		grep -m 1 "$FAILED" "$dir/vm.log" | sed 's/^@end .*/it hangs/'
	elif [[ $splat ]]; then
		sed -n "${splat}p" "$console" | tr -d '\r' | sed 's/^\[[^]]*\] //'
	else
		tail -n 1 "$dir/vm.log"
	fi
}

# --- all of them ----------------------------------------------------------------

# The driver as it is, in one boot per set of parameters.
control() {
	local patch place tests

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
		if ! boot "${tests[@]}" || grep -q '^ok .* # SKIP' "$dir/vm.log"; then
			die "the driver as it is does not pass, see $dir/vm.log: $(reason)"
		fi
		for test in "${tests[@]}"; do
			[[ $test == *.sh ]] || ran "$test" || die "there is no test $test"
		done
		echo "the driver as it is passes ${#tests[@]} tests: $place"
	done < <(for patch in $(patches); do
		read_patch "$patch" && echo "$where"
	done | sort -u)
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
	elif boot "$test"; then
		verdict="SURVIVED $test $where"
		result=1
	elif ! grep -q '^@begin' "$dir/vm.log"; then
		verdict="does not load: $(reason)"
		result=2
	else
		verdict="killed by $test $flavour: $(reason)"
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
((counts[2] == 0)) || echo "${counts[2]} could not be tried"
echo "${counts[0]} killed, ${counts[1]} survived"
((counts[1] + counts[2] == 0)) || exit 1
