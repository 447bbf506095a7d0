#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
#
# Tests vm.sh: every way in which a guest can go wrong must fail the run.
#
#   in:  $PRODUCTS
#   out: TAP, as tap.sh reads it; exit 1 when a test failed

set -euo pipefail
here=$(dirname "$0")
# shellcheck source=scripts/lib.sh
. "$here/lib.sh"

number=0 status=0

# expect STATUS TIMEOUT HOW WHAT: run the job vmtest
expect() {
	local got=0 said

	said=$(TIMEOUT=$2 "$here/vm.sh" vmtest how="$3" 2>&1) || got=$?
	number=$((number + 1))
	if ((got == $1)); then
		echo "ok $number $4"
	else
		status=1
		printf '%s\n' "$said"
		echo "not ok $number $4: status $got, not $1"
	fi
}

echo "@begin vm-selftest"
echo "1..8"
expect 0 300 pass "a job that succeeds is a success"
expect 1 300 fail "a job that fails is a failure"
expect 10 8 hang "a guest that hangs is a timeout"
expect 11 300 panic "a panic is reported"
expect 12 300 silent "a guest that powers off early is a failure"
expect 12 300 fake "a closing line of another run is not taken"
expect 13 300 warn "a WARNING trips the wire"
expect 13 300 quiet "a BUG trips the wire when the console is silenced"
echo "@end vm-selftest $status"
exit $status
