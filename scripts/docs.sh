#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
#
# Builds the documentation as HTML, by the kernel's own build.
#
#   in:  the kernel's tree, as source.sh provides it
#   out: build/docs; the warnings of Sphinx about the driver's pages, on stdout. Exit 1 if
#        there is one

set -euo pipefail
here=$(dirname "$0")
# shellcheck source=scripts/lib.sh
. "$here/lib.sh"

out=$ROOT/build/docs
pages=Documentation/misc-devices/hmm_ref

"$here/packages.sh" docs
lock_cache
tree=$("$here/source.sh")
"$here/overlay.sh" "$tree" "$CACHE/build/$(basename "$tree")"-{release,debug,kcsan,lockstat}-*
mkdir -p "$out"
say "building the documentation"
make -C "$tree" O="$out" SPHINXDIRS="${pages#*/}" htmldocs >"$out/log" 2>&1 || {
	tail -n 30 "$out/log" >&2
	die "the documentation does not build, see $out/log"
}
if grep -E "$pages.*(WARNING|ERROR|CRITICAL)" "$out/log"; then
	die "Sphinx has something to say, see $out/log"
fi
find "$out" -path "*${pages#*/}*" -name index.html -printf 'the first page is %p\n'
