#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
#
# Shows that patches/core fixes its bugs: runs each reproducer in a boot of its own, on the kernel
# without the patches and on the one with them.
#
#   in:  patches/core/tests: list (read its top), the reproducers; the kernels that kernel.sh has
#        built (FLAVOUR, with CORE_PATCHES=0 and =1); BUG (only these, numbers of patches or names
#        of tests, separated by spaces)
#   out: a table on stdout: patch, test, result without the patches, result with them; its last
#        line "N passed, N failed, N skipped". The logs are in build/core-bugs/logs. Exit 1 when
#        something failed. "PASSED FAILED SKIPPED" is added as a line to the file $1, if given.
#
# A test passes if the bug shows without the patches, by the sign that the list names, and if with
# them neither the program nor the kernel's log reports a problem. A race gets three boots on each
# kernel; if it does not occur on the kernel without the patches, that is a failure. A patch without
# a reproducer counts as skipped, and so does a patch that core-patches.sh has left out.

set -euo pipefail
here=$(dirname "$0")
counts=${1:-}
# shellcheck source=scripts/lib.sh
. "$here/lib.sh"

[[ $KERNEL == 7.* && ! $KSRC ]] || die "patches/core is for Debian's 7.3: no KSRC, no other KERNEL"
BUG=${BUG:-}
# The races are between two nodes.
export NUMA=2 COHERENT=0
RACE_BOOTS=3

tests=$ROOT/patches/core/tests
work=$ROOT/build/core-bugs
declare -A products=(
	[without]=$ROOT/build/$KERNEL-plain-$FLAVOUR
	[with]=$ROOT/build/$KERNEL-$FLAVOUR
)

patch_file() { echo "$ROOT/patches/core/$1"-*.patch; }

subject() { sed -n 's/^Subject: \[PATCH\] //p' "$(patch_file "$1")"; }

lines() { grep -v '^#\|^$' "$tests/list"; }

# --- the guest --------------------------------------------------------------------

# One program for both kernels, of the one with the patches, which has the flags of its test_hmm.
build_program() {
	local build tree

	build=$(cat "${products[with]}/build")
	tree=$(readlink -f "$build/source")
	"$here/core-tests.sh" "$tree" >"$work/hmm-bugs.c"
	make -C "$tree/tools/testing/selftests/mm" OUTPUT="$work" VPATH="$work" \
		TEST_GEN_FILES="$work/hmm-bugs" KHDR_INCLUDES="-isystem $build/usr/include" \
		USERCFLAGS="-I$tree/tools/testing/selftests/mm" USERLDFLAGS=-static "$work/hmm-bugs"
}

# Patches to lib/test_hmm.c and to nothing else.
test_hmm_patches() {
	local patch

	for patch in "$ROOT"/patches/core/*.patch; do
		sed -n 's,^+++ b/,,p' "$patch" | grep -qv '^lib/test_hmm' || echo "$patch"
	done
}

# hmm_raw, and test_hmm as it is with its patches.
build_modules() {
	local patch

	mkdir "$dir/modules"
	cp "$tests/hmm_raw.c" "$tree"/lib/test_hmm{.c,_uapi.h} "$dir/modules"
	if [[ $which == without ]]; then
		for patch in $(test_hmm_patches); do
			patch -s -F0 -p2 -d "$dir/modules" <"$patch" || return 1
		done
	fi
	mv "$dir/modules/test_hmm.c" "$dir/modules/test_hmm_new.c"
	echo 'obj-m := hmm_raw.o test_hmm_new.o' >"$dir/modules/Kbuild"
	make -C "$build" M="$dir/modules" modules
}

# The guest gets only these programs: that is quicker.
prepare() {
	local which=$1 dir=$work/$1 build tree program

	build=$(cat "${products[$1]}/build" 2>/dev/null) ||
		die "there is no kernel in ${products[$1]}: make core-bugs"
	tree=$(readlink -f "$build/source")
	mkdir -p "$dir/selftests"
	if ! { build_program && build_modules; } >"$work/build.log" 2>&1; then
		tail -n 30 "$work/build.log" >&2
		die "the reproducers do not build, see $work/build.log"
	fi
	cp "${products[$1]}"/{bzImage,kernel.release} "$dir"
	cp "${products[$1]}"/{hmm_ref,test_hmm}.ko "$dir"/modules/*.ko "$dir"
	cp "$work/hmm-bugs" "$dir/selftests"
	for program in $(lines | sed -nE 's/^\S+ \S+ (\S+):\S+ .*/\1/p' | sort -u); do
		cp "${products[$1]}/selftests/$program" "$dir/selftests"
	done
	: >"$dir/selftests.list"
}

# --- one boot -------------------------------------------------------------------

# boot WITHOUT-OR-WITH: sets status, passed, failed.
boot() {
	log=$work/logs/$patch-${test##*[.:]}.$1
	console=$log.console
	status=0
	: >"$work/counts"
	HMM_REF_PRODUCTS=$work/$1 TIMEOUT=$((limit + 60)) "$here/vm.sh" bug driver="$module" \
		program="$program" test="$name" limit="$limit" 2>"$log.vm" </dev/null |
		tee "$log" | "$here/tap.sh" "$work/counts" >"$log.tap" || status=$?
	mv -f "$work/$1/bug.console.log" "$console"
	read -r passed failed _ <"$work/counts" || failed=1
}

# The complaint of the kernel, from its first line on.
complaints() {
	local at

	at=$("$here/tripwire.sh" --running "$console" 2>&1 | sed -n "1s|.*$console:||p" || true)
	[[ ! $at ]] || sed -n "$at,\$p" "$console" | tr -d '\r' | sed 's/^\[[^]]*\] //'
}

# The message of the program, without its place and time.
said() {
	tr -d '\r' <"$log" | sed -nE 's/^# ([^ :]+:[0-9]+:[^:]+:)?//p'
	! grep -q "^@end .* 137" "$log" || echo "no end after $limit s"
}

# Of a boot in which something is wrong: sets outcome (seen, other), and line, which begins with
# what it is. The first word of the kernel is named, too, where the sign is one of the program.
wrong() {
	local what=wrong kernel program

	kernel=$(complaints) program=$(said)
	if grep -q 'Kernel panic' "$console"; then
		what=oops
	elif grep -qE 'Test terminated by timeout|^@end .* 137' "$log"; then
		what=hang
	fi
	outcome=seen
	if line=$(grep -m 1 -E -e "$sign" <<<"$kernel"); then
		[[ $what == oops ]] || what=complaint
		[[ $line == "${kernel%%$'\n'*}" ]] || line="${kernel%%$'\n'*}, then ${line# }"
	elif line=$(grep -m 1 -E -e "$sign" <<<"$program"); then
		[[ ! $kernel ]] || line+=", and ${kernel%%$'\n'*}"
	else
		outcome=other line=${kernel%%$'\n'*}
		[[ $line ]] || line=$(grep -m 1 'Expected\|terminated\|no end' <<<"$program") ||
			line=$(tail -n 1 "$log.vm")
		line="something else: $line"
	fi
	line="$what: $line"
}

# judge: of the last boot. Sets outcome (seen, other, passes, unmet, skips) and line.
judge() {
	local reason

	if ((status || failed)); then
		wrong
	elif ((passed)); then
		outcome=passes line=passes
	else
		reason=$(sed -n 's/\r$//; s/.*# SKIP *//p' "$log")
		outcome=skips line="skips: $reason"
		[[ $reason != 'not met'* ]] || outcome=unmet line=$reason
	fi
}

# observe WITHOUT-OR-WITH: a race until it is met. Sets outcome, line.
observe() {
	local boots=1 boot

	[[ $kind != race ]] || boots=$RACE_BOOTS
	for ((boot = 1; boot <= boots; boot++)); do
		boot "$1"
		judge
		case $outcome in
		unmet | passes) ;;
		*) break ;;
		esac
	done
	((boots == 1)) || line+=", $( ((boot > boots)) && echo "$boots boots" || echo "boot $boot")"
}

# --- the table ------------------------------------------------------------------

# row VERDICT TEXT
row() {
	totals[$1]=$((totals[$1] + 1))
	printf '  %s  %s\n' "$1" "$2"
}

# Runs the test that the line of the list names, on both kernels.
try() {
	local without verdict=pass begin=$SECONDS

	program=hmm-bugs name=$test
	case $test in
	*:*) program=${test%%:*} name=${test#*:} ;;
	*.*) ;;
	*) name=hmm.hmm_device_private.$test ;;
	esac
	observe without
	[[ $outcome == seen ]] || verdict=FAIL
	without=$line
	observe with
	case $kind-$outcome in
	*-passes | race-unmet) ;;
	*) verdict=FAIL ;;
	esac
	row "$verdict" "${test##*[.:]} on $module, $((SECONDS - begin)) s"
	printf '        without: %s\n        with:    %s\n' "$without" "$line"
}

left_out() {
	grep -qs "^$patch-" "$(readlink -f "$(cat "${products[with]}/build")/source")"/.hmm_ref_core_stamp.left_out
}

wanted() { [[ ! $BUG || " $BUG " == *" $patch "* || " $BUG " == *" ${test##*[.:]} "* ]]; }

table() {
	local last='' file

	while read -r patch module test kind limit sign; do
		wanted || continue
		[[ $patch == "$last" ]] || printf '%s  %s\n' "$patch" "$(subject "$patch")"
		last=$patch
		if [[ $module == - ]]; then
			row skip "no reproducer: $test $kind $limit $sign"
		elif left_out; then
			row skip "the patch is left out of this kernel: ${test##*[.:]}"
		else
			try
		fi
	done < <(lines)
	for file in "$ROOT"/patches/core/*.patch; do
		patch=${file##*/} patch=${patch%%-*} test=''
		! wanted || lines | grep "^$patch " >/dev/null ||
			row FAIL "$patch is not in the list: $(subject "$patch")"
	done
}

"$here/packages.sh"
rm -rf "$work"
mkdir -p "$work/logs"
(
	lock_cache
	prepare without
	prepare with
)
declare -A totals=([pass]=0 [FAIL]=0 [skip]=0)
table
((totals[pass] + totals[FAIL])) || die "BUG=$BUG: no such test in $tests/list"
[[ ! $counts ]] || echo "${totals[pass]} ${totals[FAIL]} ${totals[skip]}" >>"$counts"
echo
echo "${totals[pass]} passed, ${totals[FAIL]} failed, ${totals[skip]} skipped" |
	if [[ $BUG ]]; then cat; else keep core-bugs; fi
((totals[FAIL] == 0)) || exit 1
