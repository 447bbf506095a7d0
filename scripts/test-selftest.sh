#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
#
# Tests test.sh: with stand-ins for the scripts that it calls, each of which can go wrong.
# No VM and no kernel, a few seconds.
#
#   in:  nothing
#   out: TAP, as tap.sh reads it; exit 1 when a test failed

set -euo pipefail
here=$(dirname "$0")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
scripts=$work/scripts
number=0 status=0
unset FLAVOUR FLAVOURS TEST KERNEL KSRC CORE_PATCHES DMIRROR COMPAT TIMEOUT SEED FUZZ_SECONDS REST UNTIL

# Each stand-in reports one test, unless WRONG names it, and says what it has to go wrong with.
stand_ins() {
	local name

	mkdir "$scripts"
	cp "$here"/{lib,test,tap}.sh "$scripts"
	for name in tap-selftest tap-compare-selftest tripwire-selftest core-patches-selftest test-selftest model \
		vm-selftest vm hmm-tests; do
		cat >"$scripts/$name.sh" <<-'END'
			#!/bin/bash
			name=$(basename "$0" .sh) how=''
			echo "$name $1 $FLAVOUR $CORE_PATCHES $DMIRROR $COMPAT" >>"$(dirname "$0")/ran"
			[[ $WRONG != "$name "* ]] || how=${WRONG#* }
			[[ $how != dies ]] || exit 2
			[[ $how != silent ]] || exit 0
			printf '%s\n' "@begin $name" 1..1
			[[ $how != halfway ]] || exit 2
			[[ $how == fails ]] && echo 'not ok 1 x' || echo 'ok 1 x'
			[[ $how != fails ]] || { echo "@end $name 1"; exit 1; }
			echo "@end $name 0"
			[[ $how != status ]] || exit 13
			[[ $how != kills ]] || kill -TERM "$(cat "$(dirname "$0")/pid")"
		END
	done
	cat >"$scripts/kernel.sh" <<-'END'
		#!/bin/bash
		echo "kernel $FLAVOUR $CORE_PATCHES $DMIRROR $COMPAT" >>"$(dirname "$0")/ran"
		[[ $WRONG != "kernel $FLAVOUR" ]]
	END
	for name in core-bugs mm-tests; do
		cat >"$scripts/$name.sh" <<-'END'
			#!/bin/bash
			name=$(basename "$0" .sh)
			echo "$name $FLAVOUR $CORE_PATCHES $DMIRROR $COMPAT" >>"$(dirname "$0")/ran"
			[[ $WRONG != "$name dies" ]] || exit 2
			[[ $WRONG == "$name fails" ]] && echo 2 1 1 >>"$1" || echo 3 0 1 >>"$1"
			[[ $WRONG != "$name fails" ]]
		END
	done
	chmod +x "$scripts"/*.sh
}

# expect STATUS "LAST LINE" WHAT [VARIABLE=VALUE...]
expect() {
	local got=0 said

	rm -f "$scripts/ran"
	# shellcheck disable=SC2016 # for the inner shell
	said=$(env WRONG= "${@:4}" bash -c 'echo $$ >"$1/pid" && exec bash "$1/test.sh"' - \
		"$scripts" 2>&1) || got=$?
	result $((got != $1 || $(tail -n 1 <<<"$said" | grep -cxF "$2") != 1)) "$3" "$said"
}

# ran COUNT PATTERN WHAT: so often the last run has called that
ran() {
	result $(($(grep -cE "$2" "$scripts/ran") != $1)) "$3" "$(cat "$scripts/ran")"
}

result() {
	number=$((number + 1))
	if (($1)); then
		status=1
		printf '# %s\n' "${3//$'\n'/$'\n# '}"
		echo "not ok $number $2"
	else
		echo "ok $number $2"
	fi
}

echo "@begin test-selftest"
echo "1..50"
stand_ins

expect 0 "12 passed, 0 failed" "all is well"
ran 4 '^vm tests' "the selftests run on two kernels, in two parts"
expect 1 "11 passed, 1 failed" "a test that fails" WRONG='model fails'
for name in tap-selftest tap-compare-selftest tripwire-selftest core-patches-selftest \
	test-selftest model vm-selftest; do
	expect 1 "11 passed, 1 failed" "$name dies" WRONG="$name dies"
done
for how in dies silent halfway; do
	expect 1 "8 passed, 4 failed" "vm: $how" WRONG="vm $how"
	expect 1 "11 passed, 1 failed" "hmm-tests: $how" WRONG="hmm-tests $how"
done
expect 1 "12 passed, 4 failed" "vm passes, and a splat is found" WRONG='vm status'
expect 1 "12 passed, 1 failed" "hmm-tests passes, and a splat is found" WRONG='hmm-tests status'
expect 1 "11 passed, 1 failed" "the model says nothing" WRONG='model silent'
expect 1 "11 passed, 1 failed" "the model stops halfway" WRONG='model halfway'
expect 1 "8 passed, 5 failed" "the release kernel does not build" WRONG='kernel release'
expect 1 "10 passed, 3 failed" "the debug kernel does not build" WRONG='kernel debug'

# What is asked for.
expect 0 "1 passed, 0 failed" "only the model" TEST=model
expect 0 "2 passed, 0 failed" "only hmm-tests" TEST=hmm-tests
expect 0 "2 passed, 0 failed" "only one program" TEST=uapi
expect 0 "9 passed, 0 failed" "only the debug kernel" FLAVOUR=debug
expect 0 "9 passed, 0 failed" "the kernel without patches" FLAVOURS=release-plain
ran 2 '^vm tests release 0' "it is built without them"
expect 0 "8 passed, 0 failed" "the driver without the old interface" FLAVOURS=debug-no-dmirror
ran 2 '^vm tests debug 1 n' "it is built without it"
expect 0 "8 passed, 0 failed" "the same, asked for by its variable" FLAVOUR=debug DMIRROR=n
ran 2 '^vm tests debug 1 n' "it is built without it"
expect 0 "9 passed, 0 failed" "the driver without compat" FLAVOURS=release-no-compat
ran 2 '^vm tests release 1 y n' "it is built without it"
expect 0 "9 passed, 0 failed" "the same, asked for by its variable" FLAVOUR=debug COMPAT=n
ran 2 '^vm tests debug 1 y n' "it is built without it"
expect 0 "12 passed, 0 failed" "6.12 has no patches to leave out" \
	FLAVOURS="release debug release-plain" KERNEL=6.12
expect 2 "error: FLAVOURS=release-plain: no such kernel of 6.12" "nothing is left to test" \
	FLAVOURS=release-plain KERNEL=6.12

# What is left for later.
expect 0 "32 passed, 0 failed, 2 skipped" "the rest" REST=1
ran 14 '^kernel' "on ten kernels, and four times for patches/core"
ran 2 '^(core-bugs|mm-tests) release 1 y' "and the tests of patches/core"
ran 2 '^hmm-tests .*debug 1 y y' "hmm-tests on the debug kernel, once with PCI"
for name in core-bugs mm-tests; do
	expect 1 "31 passed, 1 failed, 2 skipped" "one of $name fails" REST=1 WRONG="$name fails"
	expect 1 "29 passed, 1 failed, 1 skipped" "$name dies" REST=1 WRONG="$name dies"
done
expect 0 "0 passed, 0 failed" "no time for any of it" REST=1 UNTIL=1
expect 0 "3 passed, 0 failed" "time for some of it" REST=1 UNTIL=1000 \
	FLAVOURS="debug release-no-compat"
expect 0 "6 passed, 0 failed" "6.12 has no patches to test" REST=1 KERNEL=6.12 \
	FLAVOURS="debug release"

# Five stages have passed, the other nine are named.
expect 1 "5 passed, 9 failed" "a run that is ended by a signal" WRONG='model kills'
echo "@end test-selftest $status"
exit $status
