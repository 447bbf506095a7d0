#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
#
# Compiles each patch of patches/core by itself, on top of those before it: a series in which a
# patch in the middle does not compile cannot be bisected.
#
#   in:  Debian's tree, as source.sh provides it; patches/core
#   out: a line per patch on stdout; the last line is "N passed, N failed". The messages of the
#        compiler, with W=1, are in $CACHE/core-build/log. Exit 1 when a patch failed
#
# It compiles the sources that a patch changes, and those that include a changed header. The
# configuration enables all code that the patches change, nouveau and amdgpu included; the kernel is
# not booted. Debian's own code has warnings with W=1, so only new warnings count.

set -euo pipefail
here=$(dirname "$0")
# shellcheck source=scripts/lib.sh
. "$here/lib.sh"

work=$CACHE/core-build
tree=$work/tree
build=$work/build

# Headers that a patch changes are used here.
USERS='mm/migrate_device.o mm/migrate.o mm/memremap.o mm/hmm.o lib/test_hmm.o'

fragment() {
	cat "$ROOT/configs/base.config"
	cat <<-END
		CONFIG_PCI=y
		CONFIG_MODULES=y
		CONFIG_STAGING=y
		CONFIG_DRM=m
		CONFIG_DRM_NOUVEAU=m
		CONFIG_DRM_NOUVEAU_SVM=y
		CONFIG_DRM_AMDGPU=m
		CONFIG_HSA_AMD=y
		CONFIG_HSA_AMD_SVM=y
		CONFIG_TEST_HMM=m
	END
}

kmake() { make -C "$tree" O="$build" -j"$(nproc)" W=1 "$@"; }

# The tree shares its files with Debian's; patch replaces a file and does not write into it.
begin() {
	local option

	rm -rf "$work"
	mkdir -p "$build"
	cp -al "$1" "$tree"
	fragment >"$work/fragment"
	say "configuring"
	(
		cd "$build" && kmake tinyconfig &&
			"$tree/scripts/kconfig/merge_config.sh" -m .config "$work/fragment" &&
			kmake olddefconfig
	) >"$work/log" 2>&1 || die "configuration failed, see $work/log"
	for option in CONFIG_DRM_NOUVEAU_SVM CONFIG_HSA_AMD_SVM CONFIG_TEST_HMM; do
		grep -q "^$option=" "$build/.config" || die "$option cannot be set, see $build/.config"
	done
}

# The objects that a patch has compiled.
objects() {
	local file

	sed -nE 's,^\+\+\+ b/([^\t]*).*,\1,p' "$1" | while IFS= read -r file; do
		case $file in
		tools/* | MAINTAINERS) ;;
		*.c) echo "${file%.c}.o" ;;
		*.h) tr ' ' '\n' <<<"$USERS" ;;
		esac
	done | sort -u
}

# compile OBJECT...: $work/new gets the warnings that have not been seen before, without the lines
# that they are in.
compile() {
	kmake "$@" >"$work/out" 2>&1 || { cat "$work/out" >>"$work/log"; return 1; }
	{ grep 'warning: ' "$work/out" || true; } | sed -E 's/:[0-9]+:[0-9]+:/:/' | sort -u |
		comm -13 "$work/known" - >"$work/new"
	sort -u -o "$work/known" "$work/known" "$work/new"
}

# Return: 1 when it does not apply, does not compile, or has a new warning.
try() {
	local targets

	mapfile -t targets < <(objects "$1")
	patch -d "$tree" -p1 -F0 -s -f --no-backup-if-mismatch <"$1" >>"$work/log" || return 1
	((${#targets[@]})) || return 0
	compile "${targets[@]}" || return 1
	[[ ! -s $work/new ]] || { cat "$work/new"; return 1; }
}

# The same without any patch.
prepare() {
	local all

	mapfile -t all < <(for patch in "$ROOT"/patches/core/*.patch; do objects "$patch"; done |
		sort -u)
	: >"$work/known"
	say "compiling ${#all[@]} files without the patches"
	compile "${all[@]}" || die "they do not compile, see $work/log"
}

lock_cache
begin "$(CORE_PATCHES=0 "$here/source.sh")"
prepare
passed=0 failed=0
for patch in "$ROOT"/patches/core/*.patch; do
	if try "$patch"; then
		passed=$((passed + 1))
	else
		failed=$((failed + 1))
		echo "  FAIL  $(basename "$patch"), see $work/log"
	fi
done
echo "$passed passed, $failed failed"
((failed == 0)) || exit 1
