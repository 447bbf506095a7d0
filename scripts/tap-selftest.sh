#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
#
# Tests tap.sh: counts what it makes of good and of bad TAP. No VM, a second or two.
#
#   in:  nothing
#   out: TAP, as tap.sh reads it; exit 1 when a test failed

set -euo pipefail
here=$(dirname "$0")
tap=$here/tap.sh
counts=$(mktemp)
trap 'rm -f "$counts"' EXIT
number=0 status=0

# expect "PASSED FAILED SKIPPED" WHAT: tap.sh makes that of stdin
expect() {
	local said

	: >"$counts"
	said=$(timeout 20 bash "$tap" "$counts" 2>&1) || true
	number=$((number + 1))
	if [[ $(cat "$counts") == "$1" ]]; then
		echo "ok $number $2"
	else
		status=1
		printf '%s\n' "$said" | sed 's/^/# /'
		echo "not ok $number $2: counted '$(paste -sd , "$counts")', not '$1'"
	fi
}

# program STATUS LINE...: its output
program() {
	echo "@begin p"
	printf '%s\n' "${@:2}"
	echo "@end p $1"
}

echo "@begin tap-selftest"
echo "1..35"

# What is good.
expect "2 0 0" "two tests that pass" < <(program 0 'TAP version 13' 1..2 'ok 1 a' 'ok 2 b')
expect "1 0 1" "a skip" < <(program 0 1..2 'ok 1 a' 'ok 2 b # SKIP c')
expect "0 0 1" "a program that skips everything" < <(program 4 '1..0 # SKIP no device')
expect "2 0 0" "a plan with a comment" < <(program 0 '1..2 # two' 'ok 1' 'ok 2')
expect "2 0 0" "other output in between" < <(program 0 hello 1..2 'ok 1 a' '# ok' world 'ok 2 b')
expect "8 0 0" "numbers are decimal" < <(program 0 1..8 'ok 01' 'ok 02' 'ok 03' 'ok 04' \
	'ok 05' 'ok 06' 'ok 07' 'ok 08')
expect "2 0 0" "two programs" < <(program 0 1..1 'ok 1'; echo between; program 0 1..1 'ok 1')

# What fails.
expect "1 1 0" "a test that fails" < <(program 1 1..2 'ok 1 a' 'not ok 2 b')
expect "1 1 0" "a failure without a name" < <(program 1 1..2 'ok 1' 'not ok 2')
expect "1 1 0" "a failure with status 0" < <(program 0 1..2 'ok 1' 'not ok 2')
expect "1 1 0" "a failure that calls itself a skip" < <(program 0 1..2 'ok 1' 'not ok 2 # SKIP')
expect "1 1 0" "a program that fails, and no test" < <(program 1 1..1 'ok 1 a')
expect "1 1 0" "a program that is killed after its last test" < <(program 137 1..1 'ok 1 a')
expect "0 1 0" "no TAP at all" < <(program 0 hello)
expect "0 1 0" "no output at all" < <(program 0)
expect "0 1 0" "a skip of everything with status 0" < <(program 0 '1..0 # SKIP no device')

# Too few, too many.
expect "1 2 0" "tests that do not report" < <(program 137 1..3 'ok 1 a')
expect "1 2 0" "results without a plan" < <(program 0 'ok 1' 'ok 2'; program 0 1..1 'ok 1')
expect "1 2 0" "more results than announced" < <(program 0 1..1 'ok 1' 'ok 2' 'ok 3')
expect "1 4 0" "one result three times" < <(program 0 1..3 'ok 1' 'ok 1' 'ok 1')
expect "1 2 0" "a result that comes again as a failure" < <(program 1 1..2 'ok 1' 'not ok 1')
expect "0 2 0" "a result with the number 0" < <(program 0 1..1 'ok 0')
expect "1 1 0" "a second plan" < <(program 0 1..1 1..1 'ok 1')

# Lines that are nearly TAP, and what comes after them still counts.
expect "3 2 0" "a plan with other words" < <(program 0 1..1 '1..10 pages' 'ok 1'
	program 1 1..3 'ok 1' 'ok 2' 'not ok 3')
expect "0 2 0" "such a plan in place of one" < <(program 0 '1..1 page' 'ok 1')
expect "0 4 0" "a plan with a carriage return" < <(program 0 $'1..3\r' 'ok 1' 'ok 2' 'ok 3')
expect "1 1 0" "a result with a number that is none" < <(program 0 1..1 'ok 1' 'ok 1x')
expect "1 1 0" "a result without a number" < <(program 0 1..1 'ok 1' 'not ok')
expect "1 1 0" "a number that is too large" < <(program 0 1..1 'ok 1' 'not ok 18446744073709551617')

# Programs that do not end, or do not begin.
expect "1 1 0" "the output ends before the program" < <(echo '@begin p'; echo 1..1; echo 'ok 1')
expect "2 1 0" "the next program begins before" < <(echo '@begin q'; echo 1..1; echo 'ok 1'
	program 0 1..1 'ok 1')
expect "1 2 0" "the end of another program" < <(echo '@begin p'; echo 1..1; echo 'ok 1'
	echo '@end q 0')
expect "1 1 0" "a result outside of a program" < <(program 0 1..1 'ok 1'; echo 'not ok 2')
expect "0 1 0" "no program at all" </dev/null

# An expansion that fails ends all functions of bash, and not bash.
# shellcheck disable=SC2016 # for the copy to expand
sed 's/^skip() {/&\n\t: $((1x))/' "$here/tap.sh" >"$counts.sh"
trap 'rm -f "$counts" "$counts.sh"' EXIT
tap=$counts.sh
expect "0 1 0" "the summary itself dies" < <(program 0 1..2 'ok 1' 'ok 2 # SKIP x'
	program 0 1..1 'ok 1')
echo "@end tap-selftest $status"
exit $status
