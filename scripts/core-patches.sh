#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
#
# Provides Debian's kernel tree with the fixes of patches/core applied to it.
#
#   in:  Debian's tree as it was unpacked ($1), which stays as it is; patches/core/*.patch
#   out: the path of the patched tree, on stdout. A patch that does not apply is left out,
#        with a line on stderr that names it. The header include/linux/hmm_ref_core.h
#        in the tree defines the marker of each patch that is in.
#   call it with the cache locked
#
# The patched tree shares its files with Debian's (hard links). When the patches change, the files
# that the old ones touched are restored first, so that only what depends on them is built again.

set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"

pristine=$1
tree=$pristine-core
touched=$tree/.hmm_ref_core_files
stamp=$tree/.hmm_ref_core_stamp
header=$tree/include/linux/hmm_ref_core.h
shopt -s nullglob
patches=("$ROOT"/patches/core/*.patch)

# All files that a patch names, also one that it adds or removes.
files_of() { sed -nE 's,^(---|\+\+\+) [ab]/([^\t]*).*,\2,p' "$@"; }

# Not half a tree when this is interrupted. What overlay.sh keeps there is each tree's own.
copy_tree() {
	rm -rf "$tree" "$tree.new"
	cp -al "$pristine" "$tree.new"
	rm -f "$tree.new/.hmm_ref_clone"
	mv "$tree.new" "$tree"
}

restore() {
	local file

	[[ -e $touched ]] || return 0
	while IFS= read -r file; do
		rm -f "$tree/$file"
		[[ ! -e $pristine/$file ]] || cp "$pristine/$file" "$tree/$file"
	done <"$touched"
}

apply() { patch -d "$tree" -p1 -F0 -s -f --no-backup-if-mismatch "$@"; }

# Of several patches to one file a later one may need an earlier one, so each is tried in turn.
# The list of files is written first, so that a run which is interrupted can be undone.
apply_all() {
	local patch left_out=()

	((${#patches[@]} == 0)) || files_of "${patches[@]}" | sort -u >"$touched"
	printf '/* Fixes of the core that this tree has. Made by scripts/core-patches.sh. */\n' \
		>"$header.new"
	for patch in "${patches[@]}"; do
		if ! apply --dry-run <"$patch" >/dev/null 2>&1; then
			left_out+=("${patch##*/}")
			continue
		fi
		apply <"$patch" >/dev/null
		sed -n 's/^Marker: \(.*\)/#define \1 1/p' "$patch" >>"$header.new"
	done
	printf '%s\n' "${left_out[@]}" >"$stamp.left_out"
}

hash=$(cat "$0" "${patches[@]}" | md5sum)
if [[ $(cat "$stamp" 2>/dev/null) != "$hash" ]]; then
	[[ -e $tree/Makefile ]] || copy_tree
	rm -f "$stamp"
	restore
	apply_all
	cmp -s "$header.new" "$header" || cp "$header.new" "$header"
	rm -f "$header.new"
	echo "$hash" >"$stamp"
fi
while IFS= read -r patch; do
	[[ ! $patch ]] || say "left out, it does not apply to $(basename "$pristine"): $patch"
done <"$stamp.left_out"
echo "$tree"
