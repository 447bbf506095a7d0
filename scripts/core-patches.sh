#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
#
# Provides Debian's kernel tree with the fixes of patches/core applied to it.
#
#   in:  Debian's tree as it was unpacked ($1), which stays as it is; patches/core/*.patch
#   out: the path of the patched tree, on stdout. A patch that does not apply is left out,
#        with a line on stderr that names it, and so is one whose line "Needs: NUMBER" names one
#        that is left out: it applies, but does not compile, or is wrong, by itself. The header
#        include/linux/hmm_ref_core.h in the tree defines the marker of each patch that is in.
#   call it with the cache locked
#
# The patched tree shares its files with Debian's (hard links). When the patches change, only files
# with other content are replaced, so that only their dependents are built again.

set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"

pristine=$1
tree=$pristine-core
touched=$tree/.hmm_ref_core_files
stamp=$tree/.hmm_ref_core_stamp
staging=$tree/.hmm_ref_core_new
header=$tree/include/linux/hmm_ref_core.h
shopt -s nullglob
patches=("$ROOT"/patches/core/*.patch)

# All files that a patch names, also one that it adds or removes.
files_of() { sed -nE 's,^(---|\+\+\+) [ab]/([^\t]*).*,\2,p' "$@"; }

# An interrupted run must not leave half a tree. The files that overlay.sh keeps there belong to
# each tree.
copy_tree() {
	rm -rf "$tree" "$tree.new"
	cp -al "$pristine" "$tree.new"
	rm -f "$tree.new/.hmm_ref_clone"
	mv "$tree.new" "$tree"
}

apply() { patch -d "$staging" -p1 -F0 -s -f --no-backup-if-mismatch "$@"; }

# The first of the patches that this one needs and that is left out.
lacks() {
	local number

	while IFS= read -r number; do
		[[ " ${left_out[*]}" != *" $number-"* ]] || { echo "$number" && return; }
	done < <(sed -n 's/^Needs: //p' "$1")
	return 1
}

# Of several patches to one file a later one may need an earlier one, so each is tried in turn.
apply_all() {
	local patch number left_out=()

	printf '/* Fixes of the core that this tree has. Made by scripts/core-patches.sh. */\n' \
		>"$header.new"
	for patch in "${patches[@]}"; do
		if number=$(lacks "$patch"); then
			left_out+=("${patch##*/}, it needs $number")
			continue
		elif ! apply --dry-run <"$patch" >/dev/null 2>&1; then
			left_out+=("${patch##*/}, it does not apply to $(basename "$pristine")")
			continue
		fi
		apply <"$patch" >/dev/null
		sed -n 's/^Marker: \(.*\)/#define \1 1/p' "$patch" >>"$header.new"
	done
	rm -f "$stamp.left_out"
	printf '%s\n' "${left_out[@]}" >"$stamp.left_out"
}

# Debian's files that the patches are for, or those of the last time were.
stage() {
	local file

	rm -rf "$staging"
	mkdir "$staging"
	while IFS= read -r file; do
		[[ -e $pristine/$file ]] || continue
		mkdir -p "$staging/$(dirname "$file")"
		cp "$pristine/$file" "$staging/$file"
	done <"$touched"
}

replace() {
	local file

	while IFS= read -r file; do
		! cmp -s "$staging/$file" "$tree/$file" || continue
		rm -f "$tree/$file"
		[[ -e $staging/$file ]] || continue
		mkdir -p "$tree/$(dirname "$file")"
		cp "$staging/$file" "$tree/$file"
	done <"$touched"
	rm -rf "$staging"
}

hash=$(cat "$0" "${patches[@]}" | md5sum)
if [[ $(cat "$stamp" 2>/dev/null) != "$hash" ]]; then
	[[ -e $tree/Makefile ]] || copy_tree
	rm -f "$stamp"
	# Written before anything is replaced, so that a run which is interrupted can be undone.
	{ cat "$touched" 2>/dev/null || true; ((${#patches[@]} == 0)) || files_of "${patches[@]}"; } |
		sort -u >"$touched.new"
	mv "$touched.new" "$touched"
	stage
	apply_all
	replace
	# Never into a file: a copy of the tree may share it.
	if cmp -s "$header.new" "$header"; then
		rm -f "$header.new"
	else
		mv -f "$header.new" "$header"
	fi
	echo "$hash" >"$stamp"
fi
while IFS= read -r patch; do
	[[ ! $patch ]] || say "left out: $patch"
done <"$stamp.left_out"
echo "$tree"
