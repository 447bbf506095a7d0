#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
#
# Runs the kernel's own tests of mm/ on the kernel without patches/core and on the one with them.
#
#   in:  the table below; the kernels that kernel.sh has built (FLAVOUR, with CORE_PATCHES=0 and
#        =1); TEST (only this program of the table)
#   out: a line per program on stdout, and per test that fails; its last line "N passed, N failed,
#        N skipped". The logs are in build/mm-tests. Exit 1 when a test failed.
#        "PASSED FAILED SKIPPED" is added as a line to the file $1, if given.
#
# A test that fails on both kernels says nothing about the patches: it is named, and counts as
# skipped (tap-compare.sh). A kernel with the patches that complains (tripwire.sh), hangs or panics is a
# failure.

set -euo pipefail
here=$(dirname "$0")
counts=${1:-}
# shellcheck source=scripts/lib.sh
. "$here/lib.sh"

[[ $KERNEL == 7.* && ! $KSRC ]] || die "patches/core is for Debian's 7.3: no KSRC, no other KERNEL"
TEST=${TEST:-}
# Pages move between nodes, and tests of migration have a thread less than there are CPUs.
export NUMA=2 COHERENT=0 SMP=${SMP:-4}
LIMIT=900

# Command, and the patches that change functions which it runs through; "none" where there is none:
# most patches change functions that only drivers call. rmap, related to 0041, needs CONFIG_SYSVIPC.
TABLE='cow                                0001 to 0003, 0017, 0041: fork, zap and unmap
ksm_functional_tests               none: pages as those of 0004 and 0042
ksm_tests -H -s 16                 none
ksm_tests -M -p 10                 none
ksm_tests -N -m 0                  none
ksm_tests -N -m 1                  none
ksm_tests -P -s 16                 none
ksm_tests -U                       none
ksm_tests -Z -p 10 -z 0            none
ksm_tests -Z -p 10 -z 1            none
madv_populate                      0016, 0017: soft-dirty
memory-failure                     0007
migration                          0001 to 0003, 0041: migration entries
mkdirty                            0017: soft-dirty
mlock2-tests                       none: pages as those of 0005 and 0009
mremap_dontunmap                   0002, 0003: entries that move
mremap_test                        0002, 0003: entries that move
pagemap_ioctl                      0015
soft-dirty                         0016, 0017
split_huge_page_test               0002, 0003
transhuge-stress -d 20             0001 to 0003
uffd-stress anon 20 16             0035
uffd-unit-tests -f move            0035, 0036
uffd-unit-tests -f poison          0017: markers in page tables
uffd-unit-tests -f wp-fork         0015, 0017
uffd-unit-tests -f wp-unpopulated  0015: markers in page tables
uffd-wp-mremap                     0002, 0015, 0017'

work=$ROOT/build/mm-tests
declare -A products=(
	[without]=$ROOT/build/$KERNEL-plain-$FLAVOUR
	[with]=$ROOT/build/$KERNEL-$FLAVOUR
)

commands() {
	awk -v only="$TEST" '!only || $1 == only { sub(/  .*/, ""); print }' <<<"$TABLE"
}

# --- the guest --------------------------------------------------------------------

# One set of programs for both kernels. The list of libraries in the folder may be older than their
# installation.
build_programs() {
	local build tree folder

	build=$(cat "${products[with]}/build")
	tree=$(readlink -f "$build/source")
	folder=$tree/tools/testing/selftests/mm
	rm -f "$folder"/local_config.*
	slow_harness "$tree/tools/testing/selftests" "$work/include"
	# shellcheck disable=SC2046 # names of programs
	make -C "$folder" -j"$(nproc)" OUTPUT="$work/programs" \
		KHDR_INCLUDES="-isystem $build/usr/include" USERLDFLAGS=-static \
		EXTRA_CFLAGS="-I$work/include" \
		$(commands | sed "s,[ ].*,,; s,^,$work/programs/," | sort -u)
}

# The guest gets only these programs.
prepare() {
	local dir=$work/$1

	mkdir -p "$dir/selftests"
	cp "${products[$1]}"/{bzImage,kernel.release,hmm_ref.ko} "$dir"
	find "$work/programs" -type f -perm -u+x -exec cp {} "$dir/selftests" \;
	commands >"$dir/selftests/mm-tests.list"
	: >"$dir/selftests.list"
}

# boot WITHOUT-OR-WITH: sets complaint, which is empty when only tests have failed.
boot() {
	local status=0

	say "the kernel $1 patches/core"
	HMM_REF_PRODUCTS=$work/$1 TIMEOUT=${TIMEOUT:-4800} "$here/vm.sh" mm-tests limit=$LIMIT \
		proc_mem.force_override=always >"$work/$1.log" 2>"$work/$1.vm" </dev/null || status=$?
	complaint=''
	((!status)) || complaint=$(grep -m 1 '^FAILED' "$work/$1.vm") || complaint="status $status"
}

"$here/packages.sh" mm-tests
[[ $(commands) ]] || die "TEST=$TEST: no such program in $0"
for which in without with; do
	[[ -e ${products[$which]}/build ]] ||
		die "there is no kernel in ${products[$which]}: make mm-tests"
done
rm -rf "$work"
mkdir -p "$work/programs"
(
	lock_cache
	build_programs >"$work/build.log" 2>&1 || {
		tail -n 30 "$work/build.log" >&2
		die "the tests of mm/ do not build, see $work/build.log"
	}
)
for which in without with; do
	prepare $which
	boot $which
	[[ $which == with || ! $complaint ]] || say "without patches/core: $complaint"
done
"$here/tap-compare.sh" "$work/without.log" "$work/with.log" >"$work/table"
read -r passed failed skipped < <(tail -n 1 "$work/table")
sed '$d' "$work/table"
if [[ $complaint ]]; then
	sed '/^FAILED/q' "$work/with.vm" >&2
	echo "  FAIL  the kernel with patches/core: $complaint"
	failed=$((failed + 1))
fi
((passed + failed)) || failed=1
[[ ! $counts ]] || echo "$passed $failed $skipped" >>"$counts"
echo
echo "$passed passed, $failed failed, $skipped skipped" |
	if [[ ${TEST:-} ]]; then cat; else keep mm-tests; fi
((failed == 0)) || exit 1
