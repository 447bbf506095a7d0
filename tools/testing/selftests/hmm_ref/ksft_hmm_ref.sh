#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
#
# The programs that take seconds, for a CI that runs the ksft_*.sh of a folder: loads the module
# unless it is there, runs them one after the other, and unloads it again. Arguments are ignored.
#
#   HMM_REF_KO      the module, where modprobe does not find it
#   HMM_REF_LIMIT   seconds per program (default 120)
#
# reclaim is not among them: it drops caches so often that the kernel's log has nothing else.
#
# Prints TAP: a line per program, with the program's own lines as comments. Exit status 0, 1 when
# a program failed, 4 when none could be run.

PROGRAMS='uapi uapi_file range migrate windows access fault fault_around fork holes vma ranges
exclusive written evict mapping reach uffd softdirty kernel_io socket audit large dmirror
trace regress_flags regress_ksm regress_mlock regress_evict regress_secretmem regress_discard
regress_dirty regress_unbind'

cd "$(dirname "$0")" || exit 1
# shellcheck source=tools/testing/selftests/hmm_ref/hmm_ref_module.sh
. ./hmm_ref_module.sh

echo "TAP version 13"
[ "$(id -u)" = 0 ] || skip_all "run as root"
if ! loaded; then
	# With test_hmm beside it the module does not load with the old interface.
	load 2>/dev/null || load dmirror=0 ||
		skip_all "cannot load hmm_ref by modprobe; set HMM_REF_KO to the path of hmm_ref.ko"
	trap 'rmmod hmm_ref' EXIT
fi

# shellcheck disable=SC2086 # words
set -- $PROGRAMS
echo "1..$#"
number=0
failed=0
passed=0
for program; do
	number=$((number + 1))
	if [ ! -x "$program" ]; then
		echo "ok $number $program # SKIP not built"
		continue
	fi
	output=$(timeout -s KILL "${HMM_REF_LIMIT:-120}" "./$program" 2>&1)
	status=$?
	printf '%s\n' "$output" | sed 's/^/# /'
	case $status in
	0) echo "ok $number $program" && passed=$((passed + 1)) ;;
	"$KSFT_SKIP") echo "ok $number $program # SKIP" ;;
	*) echo "not ok $number $program # exit status $status" && failed=$((failed + 1)) ;;
	esac
done
[ $failed = 0 ] || exit 1
[ $passed -gt 0 ] || exit "$KSFT_SKIP"
