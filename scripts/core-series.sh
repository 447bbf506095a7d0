#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
#
# Writes patches/core as series to post, each in a folder of its own: with three lines of context,
# numbered, without markers. A series of several patches has a cover letter. The last series ends
# with a patch that adds the reproducers to hmm-tests.c.
#
#   in:  the folder to write to ($1), default build/series/core; Debian's tree, as source.sh
#        provides it; patches/core, patches/core/groups (which patches are one series)
#   out: the folder: 01-huge-memory/0000-cover-letter.patch and so on; on stdout what checkpatch
#        --strict has to say, and what fails in 0038-test_hmm.sh. Exit 1 when that is anything,
#        or a patch does not apply
#
# Each series is made on Debian's tree and on the series that groups names as "after", and on
# nothing else. Then all of them are applied, one after the other, which has to give the same files
# as patches/core.
#
# Reproducers that need a module of their own are not posted: patches/core/tests/list says which.

set -euo pipefail
here=$(dirname "$0")
# shellcheck source=scripts/lib.sh
. "$here/lib.sh"

out=${1:-$ROOT/build/series/core}
core=$ROOT/patches/core
groups=$core/groups
program=tools/testing/selftests/mm/hmm-tests.c
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

in_work() { git -C "$work" "$@"; }

# --- the groups -----------------------------------------------------------------

# All names, in order.
series_names() { sed -n 's/^series //p' "$groups"; }

# of SERIES WORD: what the line WORD of it says, or its lines
of() {
	awk -v name="$1" -v word="$2" '
		$1 == "series" { mine = $2 == name }
		mine && $1 == word && sub("^" word " ?", "")' "$groups"
}

patch_file() { echo "$core/$1"-*.patch; }

# Each patch of patches/core is in one series, and "Needs:" is kept.
check_groups() {
	local name number needed before earlier

	diff <(for name in $(series_names); do of "$name" patches; done | tr ' ' '\n' | sort) \
		<(cd "$core" && printf '%.4s\n' *.patch | sort) >&2 ||
		die "$groups does not have each patch once"
	for name in $(series_names); do
		before=$(for earlier in $(of "$name" after) "$name"; do of "$earlier" patches; done)
		for number in $(of "$name" patches); do
			while IFS= read -r needed; do
				[[ " ${before//$'\n'/ } " == *" $needed "* ]] ||
					die "$groups: $number needs $needed, which is not in $name or before it"
			done < <(sed -n 's/^Needs: //p' "$(patch_file "$number")")
		done
	done
}

# --- the series, as commits -----------------------------------------------------

# Only the files that the patches touch.
begin() {
	local file

	git init -q -b tree "$work"
	in_work config user.name "$(header From | sed 's/ <.*//')"
	in_work config user.email "$(header From | sed 's/.*<//; s/>//')"
	for file in $(sed -nE 's,^--- a/([^\t]*).*,\1,p' "$core"/*.patch) $program; do
		[[ -e $tree/$file ]] || continue
		mkdir -p "$work/$(dirname "$file")"
		cp "$tree/$file" "$work/$file"
	done
	in_work add -A
	in_work commit -q -m "$(basename "$tree")"
}

# header NAME [PATCH]: of a patch, default the first
header() {
	local patches=("$core"/*.patch)

	sed -n "s/^$1: //p;/^$/q" "${2:-${patches[0]}}"
}

# The text between the header and "---".
text() { sed '1,/^$/d; /^---$/,$d' "$1"; }

commit_patch() {
	patch -d "$work" -p1 -F0 -s -f --no-backup-if-mismatch <"$1" >&2 ||
		die "${1##*/} does not apply to $(in_work symbolic-ref --short HEAD)"
	in_work add -A
	{ header Subject "$1" | sed 's/^\[PATCH\] //' && echo && text "$1"; } |
		in_work commit -q --author="$(header From "$1")" --date="$(header Date "$1")" -F -
}

# Reproducers, but those whose tests need a module that only this repository has.
posted() {
	local file

	for file in "$core"/tests/[0-9]*.c; do
		grep -E '^[0-9]+ hmm_raw ' "$core/tests/list" | sed -E 's/^\S+ \S+ (\S*\.)?(\S+) .*/(\2)/' |
			grep -F -f - "$file" >/dev/null || echo "$file"
	done
}

commit_tests() {
	local files

	mapfile -t files < <(posted)
	"$here/core-tests.sh" "$tree" "${files[@]}" >"$work/$program"
	in_work add -A
	in_work commit -q -F - <<-END
		selftests/mm: hmm-tests: add tests of bugs with device memory

		Add a test for each bug of device private memory, and of what tracks
		writes to it, that test_hmm or no device at all is enough to show. Each
		test fails, hangs, or ends in an oops without the patch that fixes its
		bug.

		Three tests race with a migration between two NUMA nodes. Where such a
		race is not met within 15 seconds the test is skipped with "not met".

		Signed-off-by: $(header From)
	END
}

# commit_series NAME: on a branch of that name, with what it has to come after
commit_series() {
	local name number

	in_work checkout -q -b "$1" tree
	for name in $(of "$1" after); do
		in_work cherry-pick "tree..$name" >/dev/null 2>&1 ||
			die "$groups: $1 cannot come after $name"
	done
	in_work tag "before-$1"
	for number in $(of "$1" patches); do
		commit_patch "$(patch_file "$number")"
	done
	[[ $1 != "$last" ]] || commit_tests
}

# Does the order of groups work for a maintainer who takes all of it?
apply_all() {
	local name mails

	in_work checkout -q -b numbers tree
	for patch in "$core"/*.patch; do
		commit_patch "$patch"
	done
	commit_tests
	in_work checkout -q -b all tree
	for name in $(series_names); do
		mapfile -t mails < <(find "$out" -path "*/??-$name/*" ! -name 0000-cover-letter.patch | sort)
		in_work am -q -3 "${mails[@]}" >"$work.out" 2>&1 ||
			{ cat "$work.out" >&2; die "$name does not apply to the series before it"; }
	done
	in_work diff --exit-code numbers all >&2 || die "all series give other files than patches/core"
}

# --- the series, as mails -------------------------------------------------------

# The names of the tests for a patch, from the list that core-bugs.sh reads.
tests_of() {
	awk -v number="$1" '$1 == number && $2 ~ /^test_hmm/ { sub(/.*\./, "", $3); print $3 }' \
		"$core/tests/list" | paste -sd ' ' | fold -sw 60 | sed 's/^/  /; s/ *$//'
}

# Below "---", where git am does not take it: how to see the bug.
name_tests() {
	local number mails=("$1"/*.patch) mail tests

	[[ ${mails[0]} != *0000-cover-letter.patch ]] || mails=("${mails[@]:1}")
	for number in $2; do
		mail=${mails[0]}
		mails=("${mails[@]:1}")
		tests=$(tests_of "$number")
		[[ $tests ]] || continue
		printf 'Tests, added to hmm-tests.c by "%s":\n%s\n\n' "$(title "$last")" "$tests" \
			>"$work.out"
		sed -i "0,/^---\$/{ /^---\$/r $work.out
			}" "$mail"
	done
}

# The subject by which a series is found.
title() {
	of "$1" subject | grep . || header Subject "$(patch_file "$(of "$1" patches)")" | sed 's/^\[PATCH\] //'
}

write_cover() {
	local cover=$1/0000-cover-letter.patch name

	{
		sed -n "1,/^\$/{ s@\*\*\* SUBJECT HERE \*\*\*@$(of "$2" subject)@; p }" "$cover"
		of "$2" =
		[[ ! $(of "$2" after) ]] || printf '\nThis series applies on top of:\n'
		for name in $(of "$2" after); do
			printf '  %s\n' "$(title "$name")"
		done
		echo
		sed '1,/BLURB HERE/{ /BLURB HERE/!d; d }' "$cover" | sed '1{ /^$/d }'
	} >"$work.out"
	mv "$work.out" "$cover"
}

write_series() {
	local folder=$out/$2-$1 options=()

	(($(in_work rev-list --count "before-$1..$1") == 1)) || options=(--numbered --cover-letter)
	in_work format-patch -q -U3 --no-signature "${options[@]}" -o "$folder" "before-$1..$1"
	name_tests "$folder" "$(of "$1" patches)"
	((${#options[@]} == 0)) || write_cover "$folder" "$1"
}

# Without GIT_DIR, checkpatch would look for a repository around the kernel's source to check SPDX
# lines, and there is none.
#
# What does not apply to the tests: they touch memory for its own sake, make functions by macros
# as the harness does, whose assertions are two statements, and have no BIT(). A tracepoint has
# its members in lines of their own.
checkpatch() {
	local patch ignore

	for patch in "$out"/*/*.patch; do
		ignore=FILE_PATH_CHANGES
		case $patch in
		*-cover-letter.patch) continue ;;
		*-selftests-mm-*) ignore+=,VOLATILE,COMPLEX_MACRO,BIT_MACRO,BRACES ;;
		*tracepoint*) ignore+=,OPEN_ENDED_LINE,PARENTHESIS_ALIGNMENT ;;
		esac
		(cd "$work" && GIT_DIR=none perl "$tree/scripts/checkpatch.pl" --root="$tree" --strict --terse \
			--show-types --no-summary --ignore "$ignore" "$patch") || true
	done
}

# The test of a script. It needs no kernel.
script_test() {
	local test=$core/tests/0038-test_hmm.sh script=tools/testing/selftests/mm/test_hmm.sh

	"$test" "$work/$script" >"$work.out" || cat "$work.out"
	rm "$work.out"
}

"$here/packages.sh" check
lock_cache
tree=$(CORE_PATCHES=0 "$here/source.sh")
last=$(series_names | tail -n 1)
check_groups
begin
rm -rf "$out"
mkdir -p "$out"
out=$(cd "$out" && pwd)
number=0
for name in $(series_names); do
	number=$((number + 1))
	commit_series "$name"
	write_series "$name" "$(printf '%02d' "$number")"
done
apply_all
said=$(checkpatch)
failed=$(script_test)
say "$(find "$out" -name '*.patch' | wc -l) mails in $number series are in ${out#"$PWD/"}"
if [[ $said ]]; then
	printf 'checkpatch --strict:\n%s\n' "$said"
fi
if [[ $failed ]]; then
	printf '0038-test_hmm.sh:\n%s\n' "$failed"
fi
[[ ! $said && ! $failed ]] || exit 1
