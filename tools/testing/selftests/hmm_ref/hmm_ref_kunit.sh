#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
#
# Runs the KUnit tests of the driver, by loading their module, and prints their results.
#
#   HMM_REF_KUNIT_KO         the module, where modprobe does not find it
#   HMM_REF_KUNIT_PARAMS     module parameters: seed=N and steps=N of random sequences
#
# Prints TAP: a line per case of every suite. Exit status 0, 1 when a test failed, 4 when
# all tests were skipped.

KSFT_SKIP=4
results=/sys/kernel/debug/kunit

skip_all() {
	echo "1..0 # SKIP $*"
	exit $KSFT_SKIP
}

found() {
	[ -n "$HMM_REF_KUNIT_KO" ] ||
		[ -n "$(find "/lib/modules/$(uname -r)" -name 'hmm_ref_kunit.ko*' 2>/dev/null)" ]
}

load() {
	# shellcheck disable=SC2086 # words
	if [ -n "$HMM_REF_KUNIT_KO" ]; then
		insmod "$HMM_REF_KUNIT_KO" $HMM_REF_KUNIT_PARAMS
	else
		modprobe hmm_ref_kunit $HMM_REF_KUNIT_PARAMS
	fi
}

# Print the suites' results as one list. They are KTAP: cases are indented by four spaces,
# parameters of a case by more. A suite that ended early lacks cases of its plan.
as_tap() {
	awk '
		/^    1\.\./ { plan += substr($1, 4) }
		/^    # Subtest: / { suite = $3 }
		/^    (not )?ok / {
			sub(/^ +/, "")
			number++
			sub(/ok [0-9]+ /, "ok " number " " suite ".")
			lines = lines $0 "\n"
			failed += /^not/
			next
		}
		{ lines = lines "#" $0 "\n" }
		END {
			if (!plan) {
				plan = failed = 1
				lines = lines "not ok 1 no suite has reported\n"
			}
			printf "1..%d\n%s", plan, lines
			exit failed || number < plan
		}' "$results"/hmm_ref_*/results
}

echo "TAP version 13"
[ "$(id -u)" = 0 ] || skip_all "run as root"
found || skip_all "no hmm_ref_kunit: set CONFIG_HMM_REF_KUNIT_TEST=m, or HMM_REF_KUNIT_KO"
[ -d $results ] || skip_all "no $results: set CONFIG_KUNIT_DEBUGFS=y"
! [ -d /sys/module/hmm_ref_kunit ] || rmmod hmm_ref_kunit || skip_all "hmm_ref_kunit is built in"
load || { printf '1..1\nnot ok 1 the module does not load\n'; exit 1; }
as_tap
status=$?
rmmod hmm_ref_kunit || status=1
exit $status
