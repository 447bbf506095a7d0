#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
#
# Tests core-patches.sh, on a tree of a few files and patches of its own. No VM, a second.
#
#   in:  nothing
#   out: TAP, as tap.sh reads it; exit 1 when a test failed

set -euo pipefail
here=$(dirname "$0")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
number=0 status=0 said=''
pristine=$work/debian tree=$work/debian-core patches=$work/patches/core
header=$tree/include/linux/hmm_ref_core.h

mkdir -p "$work/scripts" "$patches" "$pristine"/{mm,include/linux}
cp "$here"/{lib,core-patches}.sh "$work/scripts"
echo all: >"$pristine/Makefile"
printf '%s\n' one two three four five six seven >"$pristine/mm/a.c"
echo other >"$pristine/.hmm_ref_clone"

result() {
	number=$((number + 1))
	if (($1)); then
		status=1
		printf '# %s\n' "${said//$'\n'/$'\n# '}"
		echo "not ok $number $2"
	else
		echo "ok $number $2"
	fi
}

# holds WHAT COMMAND...
holds() {
	local bad=0

	"${@:2}" || bad=1
	result $bad "$1"
}

# Runs core-patches.sh; the last line must be the tree.
run() {
	said=$(bash "$work/scripts/core-patches.sh" "$pristine" 2>&1) &&
		[[ $(tail -n 1 <<<"$said") == "$tree" ]]
}

# patch_line NAME MARKER OLD NEW: a patch of one line of mm/a.c, with a line before and behind.
patch_line() {
	{
		printf 'Why.\n---\nMarker: %s\n\n' "$2"
		printf '%s\n' '--- a/mm/a.c' '+++ b/mm/a.c' '@@ -2,3 +2,3 @@' " ${5:-two}" "-$3" "+$4" " four"
	} >"$patches/$1.patch"
}

line() { sed -n "$1p" "$tree/mm/a.c"; }
is() { [[ $(line 3) == "$1" ]]; }
said_of() { grep -q "left out.*$1" <<<"$said"; }
marks() { [[ $(sed -n 's/^#define \(.*\) 1$/\1/p' "$header" | paste -sd ' ') == "$1" ]]; }
untouched() { [[ $(sed -n 3p "$pristine/mm/a.c") == three && ! -e $pristine/mm/new.c ]]; }

echo "@begin core-patches-selftest"
echo "1..27"
patch_line 1 HMM_REF_CORE_A three THREE
holds "a patch is applied" run
holds "the file is changed" is THREE
holds "its marker is defined" marks HMM_REF_CORE_A
holds "Debian's tree stays as it is" untouched
holds "the trees do not share what overlay.sh keeps" test ! -e "$tree/.hmm_ref_clone"

touch -d '1 hour ago' "$tree/mm/a.c" "$header"
before=$(stat -c '%Y %i' "$tree/mm/a.c" "$header")
run
holds "a second run changes nothing" test "$before" = "$(stat -c '%Y %i' "$tree/mm/a.c" "$header")"

echo >>"$patches/1.patch"
touch -d '1 hour ago' "$tree/mm/a.c"
before=$(stat -c '%Y %i' "$tree/mm/a.c")
run
holds "a patch that says the same" test "$before" = "$(stat -c '%Y %i' "$tree/mm/a.c")"

patch_line 2 HMM_REF_CORE_B THREE 3
run
holds "a patch on top of another" is 3
holds "both markers are defined" marks "HMM_REF_CORE_A HMM_REF_CORE_B"

patch_line 3 HMM_REF_CORE_C nothing something
holds "a patch that does not apply is no failure" run
holds "it is named" said_of 3.patch
holds "the others are not" eval '! said_of 1.patch && ! said_of 2.patch'
holds "its marker is not defined" marks "HMM_REF_CORE_A HMM_REF_CORE_B"
run
holds "it is named in every run" said_of 3.patch

# It would apply, but for what it needs: as what came before it, and what came with that.
patch_line 0004 HMM_REF_CORE_D THREE 3
patch_line 3-name HMM_REF_CORE_C nothing something
sed -i '/^Marker/a Needs: 3' "$patches/0004.patch"
rm "$patches"/{2,3}.patch
mv "$patches/0004.patch" "$patches/4-name.patch"
run
holds "a patch that needs one which is left out" is THREE
holds "it is named with what it needs" said_of '4-name.patch, it needs 3'
holds "its marker is not defined either" marks HMM_REF_CORE_A
patch_line 3-name HMM_REF_CORE_C five FIVE four
sed -i 's/^@@.*/@@ -4,3 +4,3 @@/; s/^ four$/ six/; 0,/^ six$/s/^ six$/ four/' "$patches/3-name.patch"
run
holds "a patch that needs one which is applied" is 3

# The same line between other lines.
rm "$patches"/*
patch_line 1 HMM_REF_CORE_A three THREE another
run
holds "a patch that only applies with fuzz is left out" is three
holds "it is named, too" said_of 1.patch
holds "no marker is left" marks ""

patch_line 1 HMM_REF_CORE_A three THREE
printf '%s\n' 'Marker: HMM_REF_CORE_NEW' '--- /dev/null' '+++ b/mm/new.c' '@@ -0,0 +1 @@' '+new' \
	>"$patches/2.patch"
run
holds "a patch that adds a file" test -e "$tree/mm/new.c"
rm "$patches/2.patch"
run
holds "the file goes with the patch" test ! -e "$tree/mm/new.c"

# Interrupted after the first of two patches: neither is applied twice.
patch_line 2 HMM_REF_CORE_B THREE 3
run
rm "$tree/.hmm_ref_core_stamp"
run
holds "a run after one that was interrupted" is 3
holds "names no patch" eval '! said_of patch'

rm "$patches"/*
run
holds "without patches the tree is Debian's" is three
holds "and Debian's is still as it was" untouched
echo "@end core-patches-selftest $status"
exit $status
