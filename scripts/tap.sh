#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
#
# Condenses the TAP of several programs to one line per program, plus what failed.
#
#   in:  on stdin "@begin NAME", the program's output, "@end NAME STATUS", and so on
#   out: the summary on stdout, with each line that begins with "# figure: ", and a line
#        per reason to skip; "PASSED FAILED SKIPPED" added as a line to the file $1
#
# A test that was announced (1..N) and has not reported counts as failed. So does a
# program without TAP, or one that failed although none of its tests did.

set -euo pipefail

counts=$1
name='' all_passed=0 all_failed=0 all_skipped=0

begin() {
	name=$1 plan=0 passed=0 failed=0 skipped=0 since=$SECONDS diagnostics=''
	skipped_tests=()
	[[ ! -t 1 ]] || printf '  ...   %s\r' "$name"
}

complain() {
	failed=$((failed + $1))
	printf '  FAIL  %s: %s\n' "$name" "$2"
}

result() {
	case $1 in
	*'# SKIP'*)
		skipped=$((skipped + 1))
		skipped_tests+=("${1#*ok * }")
		;;
	'not ok'*)
		[[ ! $diagnostics ]] || printf '%s' "$diagnostics"
		complain 1 "$1"
		;;
	*) passed=$((passed + 1)) ;;
	esac
	diagnostics=''
}

# Of many tests that are skipped for one reason, the first is named.
show_skipped() {
	local -A tests=()
	local test reason n

	for test in "${skipped_tests[@]}"; do
		n=${tests["${test#*# SKIP}"]:-0}
		tests["${test#*# SKIP}"]=$((n + 1))
	done
	for test in "${skipped_tests[@]}"; do
		reason=${test#*# SKIP} n=${tests["${test#*# SKIP}"]}
		tests["$reason"]=0
		((n < 2)) || test="${test%# SKIP*}and $((n - 1)) more # SKIP$reason"
		((n == 0)) || printf '  skip  %s: %s\n' "$name" "$test"
	done
}

# end STATUS: what the tests have not said themselves
end() {
	local status=$1 missing=$((plan - passed - failed - skipped))

	if ((missing > 0)); then
		printf '%s' "$diagnostics"
		complain "$missing" "$missing of $plan tests have not reported, status $status"
	elif ((passed + failed + skipped == 0 && status == 4)); then
		result "ok 0 all # SKIP ${diagnostics//$'\n'/ }"
	elif ((passed + failed + skipped == 0)); then
		printf '%s' "$diagnostics"
		complain 1 "no test has reported, status $status"
	elif ((status != 0 && status != 4 && failed == 0)); then
		complain 1 "status $status, but no test has failed"
	fi
	show_skipped
	printf '  %s  %s: %d passed, %d failed, %d skipped, %d s\n' \
		"$( ((failed)) && echo FAIL || echo pass)" "$name" \
		"$passed" "$failed" "$skipped" $((SECONDS - since))
	all_passed=$((all_passed + passed))
	all_failed=$((all_failed + failed))
	all_skipped=$((all_skipped + skipped))
	name=''
}

while IFS= read -r line; do
	case $line in
	'@begin '*) begin "${line#@begin }" ;;
	'@end '*) end "${line##* }" ;;
	'TAP version'*) ;;
	'1..0'*) diagnostics+="${line#*# SKIP }" ;;
	'1..'*) plan=${line#1..} ;;
	'ok '* | 'not ok '*) result "$line" ;;
	'# figure: '*) printf '        %s: %s\n' "$name" "${line#\# figure: }" ;;
	*) if [[ $name ]]; then diagnostics+="        $line"$'\n'; else echo "$line"; fi ;;
	esac
done
[[ ! $name ]] || end "not known, it did not end"
echo "$all_passed $all_failed $all_skipped" >>"$counts"
