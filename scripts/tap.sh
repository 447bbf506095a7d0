#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
#
# Condenses the TAP of several programs to one line per program, and one per failure.
#
#   in:  on stdin "@begin NAME", the program's output, "@end NAME STATUS", and so on
#   out: the summary on stdout, with each line that begins with "# figure: ", and a line
#        per reason to skip; "PASSED FAILED SKIPPED" added as a line to the file $1
#
# A failure is: a test that fails, that was announced (1..N) and does not report, that reports
# twice, or that was not announced; a line that is nearly TAP; a program without TAP, one that
# does not end, or one that fails although none of its tests does; and no program at all.
# scripts/tap-selftest.sh has an example of each.

set -euo pipefail

counts=$1
name='' programs=0 all_passed=0 all_failed=0 all_skipped=0 finished=''

PLAN='^1\.\.([0-9]{1,6})( #.*)?$'
RESULT='^(not )?ok ([0-9]{1,6})( .*)?$'

# Not only "set -e" ends bash early: an expansion that fails leaves all functions.
finish() {
	if [[ ! $finished ]]; then
		echo "  FAIL  ${name:-tap.sh}: the summary stopped before its input ended"
		all_failed=$((all_failed + 1))
	fi
	echo "$all_passed $all_failed $all_skipped" >>"$counts"
	[[ $finished ]] || exit 1
}
trap finish EXIT

begin() {
	[[ ! $name ]] || end none
	name=$1 plan='' passed=0 failed=0 skipped=0 since=$SECONDS diagnostics=''
	seen=() skipped_tests=()
	programs=$((programs + 1))
	[[ ! -t 1 ]] || printf '  ...   %s\r' "$name"
}

complain() {
	failed=$((failed + $1))
	printf '  FAIL  %s: %s\n' "$name" "$2"
}

# Outside of a program there is nothing that a failure could count for.
stray() {
	all_failed=$((all_failed + 1))
	printf '  FAIL  outside of a program: %s\n' "$1"
}

set_plan() {
	if [[ $plan ]]; then
		complain 1 "a second plan: $1"
		return
	fi
	plan=$((10#${BASH_REMATCH[1]}))
	((plan > 0)) || diagnostics+=${1#*# SKIP }
}

# The line is in BASH_REMATCH.
result() {
	local line=$1 number=$((10#${BASH_REMATCH[2]}))

	if [[ ! $plan ]] || ((number < 1 || number > plan)); then
		complain 1 "not announced: $line"
	elif [[ ${seen[number]:-} ]]; then
		complain 1 "reported twice: $line"
	elif [[ $line == 'not ok'* ]]; then
		[[ ! $diagnostics ]] || printf '%s' "$diagnostics"
		complain 1 "$line"
	elif [[ $line == *'# SKIP'* ]]; then
		skip "${line#ok * }"
	else
		passed=$((passed + 1))
	fi
	seen[number]=1
	diagnostics=''
}

skip() {
	skipped=$((skipped + 1))
	skipped_tests+=("$1")
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

# Results that were announced and are missing.
missing() {
	local number n=0

	for ((number = 1; number <= ${plan:-0}; number++)); do
		[[ ${seen[number]:-} ]] || n=$((n + 1))
	done
	echo $n
}

# end STATUS: failures that the tests have not reported themselves
end() {
	local status=$1 lacking

	lacking=$(missing)
	if ((lacking > 0)); then
		printf '%s' "$diagnostics"
		complain "$lacking" "$lacking of $plan tests have not reported, status $status"
	elif [[ $plan == 0 && $status == 4 ]]; then
		skip "all # SKIP ${diagnostics//$'\n'/ }"
	elif ((passed + failed + skipped == 0)); then
		printf '%s' "$diagnostics"
		complain 1 "no test has reported, status $status"
	elif [[ $status != [04] && $failed == 0 ]]; then
		printf '%s' "$diagnostics"
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

# A line of a program.
tap() {
	local line=$1

	if [[ $line =~ $RESULT ]]; then
		result "$line"
	elif [[ $line =~ $PLAN ]]; then
		set_plan "$line"
	elif [[ $line == @('ok'|'ok '*|'not ok'*|'1..'*) ]]; then
		complain 1 "nearly TAP: $line"
	elif [[ $line == '# figure: '* ]]; then
		printf '        %s: %s\n' "$name" "${line#\# figure: }"
	elif [[ $line != 'TAP version'* ]]; then
		diagnostics+="        $line"$'\n'
	fi
}

summarise() {
	local line

	while IFS= read -r line || [[ $line ]]; do
		if [[ $line == '@begin '* ]]; then
			begin "${line#@begin }"
		elif [[ $name && $line == "@end $name "* ]]; then
			end "${line##* }"
		elif [[ $line == '@end '* || ! $name && $line =~ $RESULT ]]; then
			stray "$line"
		elif [[ $name ]]; then
			tap "$line"
		else
			printf '%s\n' "$line"
		fi
	done
	[[ ! $name ]] || end none
	((programs > 0)) || stray "no program has begun"
	finished=1
}

summarise
