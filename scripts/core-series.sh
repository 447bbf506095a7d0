#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
#
# Writes patches/core as a series to post: with three lines of context, numbered, without markers,
# with a cover letter, and with a last patch that adds the reproducers to hmm-tests.c.
#
#   in:  the folder to write to ($1), default build/core-series; Debian's tree, as source.sh
#        provides it; patches/core
#   out: the folder: 0000-cover-letter.patch and so on; on stdout what checkpatch --strict has to
#        say, and what fails in 0038-test_hmm.sh. Exit 1 when that is anything, or a patch does
#        not apply
#
# Reproducers that need a module of their own are not posted: patches/core/tests/list says which.

set -euo pipefail
here=$(dirname "$0")
# shellcheck source=scripts/lib.sh
. "$here/lib.sh"

out=${1:-$ROOT/build/core-series}
core=$ROOT/patches/core
program=tools/testing/selftests/mm/hmm-tests.c
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

in_work() { git -C "$work" "$@"; }

# --- the series, as commits -----------------------------------------------------

# Only the files that the series touches.
begin() {
	local file

	git init -q "$work"
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
		die "${1##*/} does not apply to $(basename "$tree")"
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

		Add a test for each bug that this series fixes, as far as test_hmm, or
		no device at all, is enough to show it. Each fails, hangs, or ends in an
		oops without the patch that fixes it.

		Three tests race with a migration between two NUMA nodes. Where such a
		race is not met within 15 seconds the test is skipped with "not met".

		Signed-off-by: $(header From)
	END
}

# --- the series, as mails -------------------------------------------------------

letter() {
	cat <<-'END'
		Device private memory, and what tracks writes to it, has these bugs.
		Most can be met with lib/test_hmm.c and the tests that the last patch
		adds.

		The patches of mm/huge_memory are for huge pages that are on a device:
		memory is freed while it is in use, MADV_DONTNEED does nothing, and
		there is a false warning.

		Those of mm/migrate_device and mm/memremap are for pages that KSM has
		merged, for what a freed device page leaves behind (flags, the count of
		mlocked pages), for references that munlock leaves in the batch of an
		idle CPU, and for zero pages that userfaultfd has write-protected.

		More of them are for drivers that evict by device pages, with
		migrate_device_range(): an anon_vma that was freed is used, pages are
		passed over, and a huge page cannot leave as small pages.

		Those of mm/hmm are for what hmm_range_fault() reports: the pages of a
		part of a huge page, a page that may only be read for a request to
		write, hugetlb entries without a page, secret memory, and another
		device's huge page; and for one hole, which empties the device of all
		that is behind it. The patch of drm/amdkfd has to come before the one
		about requests to write. It and the patch of drm/nouveau are compiled
		only.

		Those of fs/proc/task_mmu are for PAGEMAP_SCAN and soft-dirty of entries
		that are not present, which includes migration entries of ordinary
		memory.

		One of them is for any driver: two threads, of which one discards
		memory that the other migrates, have migrate_vma_setup() write beyond
		the end of the driver's arrays. Two let a driver answer a CPU fault of
		a huge page for which the system has none. The patch of mm/userfaultfd
		is for a driver that waits for an invalidation to end; that of mm/rmap for
		reclaim that meets a page to which a device has exclusive access.

		The patches of lib/test_hmm are what the tests need. The two that add
		tracepoints fix nothing: they show what such drivers do.
	END
}

write_series() {
	local first cover

	rm -rf "$out"
	mkdir -p "$out"
	out=$(cd "$out" && pwd)
	first=$(in_work rev-list --max-parents=0 HEAD)
	in_work format-patch -q -U3 --numbered --cover-letter --no-signature -o "$out" "$first..HEAD"
	cover=$out/0000-cover-letter.patch
	{
		sed -n '1,/^$/{ s/\*\*\* SUBJECT HERE \*\*\*/mm: fixes of device private memory/; p }' "$cover"
		letter
		echo
		sed '1,/BLURB HERE/{ /BLURB HERE/!d; d }' "$cover" | sed '1{ /^$/d }'
	} >"$work/cover"
	mv "$work/cover" "$cover"
}

# What does not apply to the tests: they touch memory for its own sake, make functions by macros
# as the harness does, whose assertions are two statements, and have no BIT(). A tracepoint has
# its members in lines of their own.
checkpatch() {
	local patch ignore

	for patch in "$out"/*.patch; do
		ignore=FILE_PATH_CHANGES
		case $patch in
		*-cover-letter.patch) continue ;;
		*-selftests-mm-*) ignore+=,VOLATILE,COMPLEX_MACRO,BIT_MACRO,BRACES ;;
		*tracepoint*) ignore+=,OPEN_ENDED_LINE,PARENTHESIS_ALIGNMENT ;;
		esac
		(cd "$work" && perl "$tree/scripts/checkpatch.pl" --root="$tree" --strict --terse \
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
begin
for patch in "$core"/*.patch; do
	commit_patch "$patch"
done
commit_tests
write_series
said=$(checkpatch)
failed=$(script_test)
say "$(find "$out" -name '*.patch' | wc -l) mails are in $out"
if [[ $said ]]; then
	printf 'checkpatch --strict:\n%s\n' "$said"
fi
if [[ $failed ]]; then
	printf '0038-test_hmm.sh:\n%s\n' "$failed"
fi
[[ ! $said && ! $failed ]] || exit 1
