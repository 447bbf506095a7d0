#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
#
# Tests tap-compare.sh: counts what it makes of two logs. No VM, a second.
#
#   in:  nothing
#   out: TAP, as tap.sh reads it; exit 1 when a test failed

set -euo pipefail
here=$(dirname "$0")
number=0 status=0

# expect "PASSED FAILED SKIPPED" WHAT WITHOUT WITH: logs with \n for the ends of lines
expect() {
	local said

	said=$(bash "$here/tap-compare.sh" <(printf '%b' "$3") <(printf '%b' "$4") 2>&1) || true
	number=$((number + 1))
	if [[ $(tail -n 1 <<<"$said") == "$1" ]]; then
		echo "ok $number $2"
	else
		status=1
		printf '%s\n' "$said" | sed 's/^/# /'
		echo "not ok $number $2: not '$1'"
	fi
}

good='@begin p\n1..2\nok 1 a\nok 2 b\n@end p 0\n'
bad='@begin p\n1..2\nok 1 a\nnot ok 2 b\n@end p 1\n'
skips='@begin p\n1..2\nok 1 a\nok 2 b # SKIP c\n@end p 4\n'
plain='@begin q -x 1\nhello\n@end q -x 1 0\n'

echo "@begin tap-compare-selftest"
echo "1..18"
expect "2 0 0" "two tests that pass" "$good" "$good"
expect "1 1 0" "one fails with the patches" "$good" "$bad"
expect "2 0 0" "one fails without them" "$bad" "$good"
expect "1 0 1" "one fails on both" "$bad" "$bad"
expect "1 1 0" "one is skipped with the patches" "$good" "$skips"
expect "1 0 1" "one is skipped on both" "$skips" "$skips"
expect "1 0 1" "one fails without and is skipped with them" "$bad" "$skips"
expect "1 1 0" "one is skipped without and fails with them" "$skips" "$bad"
expect "1 1 0" "one does not report" "$good" '@begin p\n1..2\nok 1 a\n@end p 0\n'
expect "1 1 0" "one was not announced" "$good" '@begin p\n1..1\nok 1 a\n@end p 0\n'
expect "1 0 0" "a program without TAP" "$plain" "$plain"
expect "0 1 0" "it fails" "$plain" "${plain/%0?n/1\\n}"
expect "0 0 1" "it is skipped on both" "${plain/%0?n/4\\n}" "${plain/%0?n/4\\n}"
expect "2 1 0" "the status alone is a failure" "$good" "${good/%0?n/137\\n}"
expect "2 1 0" "a program does not end" "$good" "${good%@end*}"
expect "2 1 0" "a program is missing" "$good$plain" "$good"
expect "0 2 0" "nothing has run with the patches" "$good" ''
expect "2 0 0" "nothing has run without them" '' "$good"
echo "@end tap-compare-selftest $status"
exit $status
