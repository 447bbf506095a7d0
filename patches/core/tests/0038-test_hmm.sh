#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
#
# test_hmm.sh ($1) returns what hmm-tests has returned, with stubs in place of what it calls.
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cp "$1" "$dir/test_hmm.sh"
printf '#!/bin/sh\nexit 0\n' >"$dir/modinfo"
printf '#!/bin/sh\ncase "$*" in -r*) exit 0;; esac; echo "$*" >>%s/loaded; exit "${LOAD:-0}"\n' "$dir" >"$dir/modprobe"
printf '#!/bin/sh\nexit "${TESTS:-0}"\n' >"$dir/hmm-tests"
chmod +x "$dir"/{modinfo,modprobe,hmm-tests}
export PATH=$dir:$PATH
failed=0
expect() {
	local want=$1 rc=0

	shift
	env "$@" >"$dir/out" 2>&1 || rc=$?
	[[ $rc == "$want" ]] && echo "ok $*" && return
	echo "not ok $*: $rc, not $want"
	failed=1
}
expect 0 TESTS=0 bash "$dir/test_hmm.sh" smoke
expect 1 TESTS=1 bash "$dir/test_hmm.sh" smoke
expect 4 TESTS=4 bash "$dir/test_hmm.sh" smoke
expect 1 TESTS=1 bash "$dir/test_hmm.sh" smoke 0x100000000 0x140000000
expect 0 TESTS=0 bash "$dir/test_hmm.sh" smoke 0x100000000 0x140000000
expect 1 LOAD=1 bash "$dir/test_hmm.sh" smoke
expect 1 LOAD=1 bash "$dir/test_hmm.sh" smoke 0x100000000 0x140000000
expect 1 TESTS=0 bash "$dir/test_hmm.sh" smoke 0x100000000
expect 1 TESTS=0 bash "$dir/test_hmm.sh" nonsense
expect 0 TESTS=0 bash "$dir/test_hmm.sh"
exit $failed
