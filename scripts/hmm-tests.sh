#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
#
# Builds the unmodified hmm-tests of the kernel's tree and runs it on hmm_ref.
#
#   in:  $PRODUCTS, as kernel.sh left it; further kernel parameters ($1...); JOB, one of
#        guest/ that runs it instead of hmm-tests; the input of vm.sh
#   out: TAP for tap.sh, on stdout; the exit status of vm.sh

set -euo pipefail
here=$(dirname "$0")
# shellcheck source=scripts/lib.sh
. "$here/lib.sh"

# Private and coherent devices: the tests skip where these are missing.
export COHERENT=2

# The folder's Makefile knows the sources of the program, which differ by kernel.
build() {
	local build tree out

	lock_cache
	build=$(cat "$PRODUCTS/build")
	tree=$(readlink -f "$build/source")
	out=$build/hmm-tests
	slow_harness "$tree/tools/testing/selftests" "$out/include"
	rm -f "$out/hmm-tests"
	make -C "$tree/tools/testing/selftests/mm" OUTPUT="$out" \
		KHDR_INCLUDES="-isystem $build/usr/include" USERLDFLAGS=-static \
		EXTRA_CFLAGS="-I$out/include" "$out/hmm-tests" >"$out/log" 2>&1 || {
		tail -n 30 "$out/log" >&2
		die "hmm-tests of $(basename "$tree") does not build, see $out/log"
	}
	cp "$out/hmm-tests" "$PRODUCTS/selftests"
}

# A benchmark is pointless on a kernel with checks, and exceeds its own limit of 120 s there, in
# emulation.
[[ $FLAVOUR == release ]] || set -- "$@" exclude=benchmark_thp_migration

[[ -e $PRODUCTS/build ]] || die "there is no kernel in $PRODUCTS: make kernel"
(build)
"$here/vm.sh" "${JOB:-hmm-tests}" "$@"
