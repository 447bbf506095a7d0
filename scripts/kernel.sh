#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
#
# Builds a kernel with the driver in it, the driver, and the selftests. Products that are up
# to date are kept: after a change of the driver only the driver is built.
#
#   in:  KERNEL or KSRC, CORE_PATCHES, DMIRROR, FLAVOUR; configs/*.config
#   out: $PRODUCTS: bzImage, kernel.release, *.ko, selftests/, selftests.list, build (the folder
#        where it was built)

set -euo pipefail
here=$(dirname "$0")
# shellcheck source=scripts/lib.sh
. "$here/lib.sh"

# Without these there is no driver; others may be missing in older kernels.
ESSENTIAL='^CONFIG_(DEVICE_PRIVATE|ZONE_DEVICE|HMM_REF)='

fragments() {
	echo "$ROOT/configs/base.config"
	! grep -q '^VERSION = 6$' "$tree/Makefile" || echo "$ROOT/configs/older.config"
	[[ $FLAVOUR == release ]] || echo "$ROOT/configs/$FLAVOUR.config"
}

hash_of() { cat "$@" | md5sum | cut -c 1-8; }

kmake() { make -C "$tree" O="$build" -j"$(nproc)" "$@"; }

# Lines that kbuild and lib.mk print for each file that they make.
FILE_DONE='^  \(CC\|AS\|LD\|AR\|HOSTCC\|HOSTLD\|HDRINST\) '

# run_logged LABEL TOTAL COMMAND...: show the progress, and the end of the log after a failure.
run_logged() {
	local label=$1 total=$2

	shift 2
	if ! "$@" 2>&1 | tee "$build/log" | sed -un "/$FILE_DONE/p" | progress "$label" "$total"; then
		grep -E -A8 'error|ERROR|undefined reference|\*\*\*' "$build/log" | head -n 80 >&2 || true
		die "$label failed, the whole log is $build/log"
	fi
	grep -A8 'hmm_ref.* warning: ' "$build/log" >&2 || true
}

# --- configuration --------------------------------------------------------------

# Requested options that are not in .config as requested.
unmet() {
	grep -hE '^(CONFIG_|# CONFIG_.* is not set)' "${FRAGMENTS[@]}" | while IFS= read -r line; do
		case $line in
		'#'*) ! grep -q "^$(awk '{ print $2 }' <<<"$line")=" "$build/.config" || echo "$line" ;;
		*) grep -qxF "$line" "$build/.config" || echo "$line" ;;
		esac
	done
}

configure() {
	local lacking

	say "configuring $name"
	(
		cd "$build" && kmake tinyconfig &&
			"$tree/scripts/kconfig/merge_config.sh" -m .config "${FRAGMENTS[@]}" &&
			kmake olddefconfig
	) >"$build/log" 2>&1 || {
		tail -n 30 "$build/log" >&2
		die "configuration failed"
	}
	lacking=$(unmet)
	if grep -E "$ESSENTIAL" <<<"$lacking" >&2; then
		die "the configuration does not get these options"
	fi
	[[ ! $lacking ]] || say "not in this kernel:" "$(paste -sd ' ' <<<"$lacking")"
}

# --- kernel, driver, selftests ----------------------------------------------------

# Needed when the configuration or a source outside the driver may have changed.
build_kernel() {
	local total spare=()

	# Only the driver is watched for data races: the core has some that are meant, and
	# a sampling detector finds more where it looks at less.
	[[ $FLAVOUR != kcsan ]] || spare=(KCSAN_SANITIZE=n)
	run_logged "checking the configuration" 0 kmake olddefconfig
	total=$(cat "$CACHE/files-$FLAVOUR" 2>/dev/null || echo 1400)
	[[ ! -e $build/arch/x86/boot/bzImage ]] || total=0
	run_logged "building $name" "$total" kmake "${spare[@]}" bzImage modules
	((total == 0)) || grep -c "$FILE_DONE" "$build/log" >"$CACHE/files-$FLAVOUR"
	[[ ! -e $CORE_STAMP ]] || cp "$CORE_STAMP" "$build/core_stamp"
}

# The KUnit tests and the benchmark's floor are no part of the configuration, which is one for all
# kernels: the floor wants large folios.
build_driver() {
	local modules=(drivers/misc/hmm_ref/hmm_ref{,_kunit,_toy,_edu}.ko) old=()

	[[ $DMIRROR != n ]] || old=(CONFIG_HMM_REF_DMIRROR=)
	! grep -q '^CONFIG_ARCH_HAS_PMD_SOFTLEAVES=y' "$build/.config" ||
		modules+=(drivers/misc/hmm_ref/hmm_ref_floor.ko)
	run_logged "building the driver" 0 kmake CONFIG_HMM_REF_KUNIT_TEST=m CONFIG_HMM_REF_FLOOR=m \
		CONFIG_HMM_REF_TOY=m CONFIG_HMM_REF_EDU=m "${old[@]}" "${modules[@]}"
}

# Debian's tree changes with patches/core, the user's at any time.
tree_changed() {
	[[ $KSRC ]] || { [[ -e $CORE_STAMP ]] && ! cmp -s "$CORE_STAMP" "$build/core_stamp"; }
}

build() {
	local configuration

	configuration=$(hash_of "${FRAGMENTS[@]}" "$ROOT/drivers/misc/hmm_ref/Kconfig")
	if [[ $(cat "$build/stamp" 2>/dev/null) != "$configuration" ]]; then
		rm -f "$build/stamp"
		configure
		build_kernel
		echo "$configuration" >"$build/stamp"
	elif tree_changed; then
		build_kernel
	fi
	build_driver
}

# The dates of the programs say nothing about the headers that they include, so a
# newer header or Makefile means to build all of them.
build_selftests() {
	local out=$build/selftests folder=tools/testing/selftests/hmm_ref newer

	if [[ -e $out/list ]]; then
		newer=$(find -L "$tree/$folder" "$tree/include/uapi/hmm_ref.h" \
			"$tree"/tools/testing/selftests/kselftest*.h -type f -newer "$out/stamp")
		[[ $newer ]] || return 0
	fi
	rm -rf "$out"
	mkdir -p "$out/built"
	touch "$out/stamp"
	run_logged "installing the kernel's headers" 0 kmake headers
	run_logged "building the selftests" 0 smake all
	smake install INSTALL_PATH="$out/installed" >>"$build/log" 2>&1 ||
		die "installing the selftests failed, see $build/log"
	smake -s emit_tests COLLECTION=hmm_ref | sed -n 's/^hmm_ref://p' >"$out/list"
}

smake() {
	make -C "$tree/tools/testing/selftests/hmm_ref" -j"$(nproc)" OUTPUT="$build/selftests/built" \
		KHDR_INCLUDES="-isystem $build/usr/include" USERLDFLAGS=-static "$@"
}

# The other clones share the cache, so the products are copied out of it.
publish() {
	rm -rf "$PRODUCTS"
	mkdir -p "$PRODUCTS"
	echo "$build" >"$PRODUCTS/build"
	cp "$build/arch/x86/boot/bzImage" "$build/include/config/kernel.release" "$PRODUCTS"
	cp "$build"/drivers/misc/hmm_ref/hmm_ref*.ko "$PRODUCTS"
	cp "$build/lib/test_hmm.ko" "$PRODUCTS" 2>/dev/null || true
	cp -r "$build/selftests/installed" "$PRODUCTS/selftests"
	cp "$build/selftests/list" "$PRODUCTS/selftests.list"
}

"$here/packages.sh"
lock_cache
tree=$("$here/source.sh")
mapfile -t FRAGMENTS < <(fragments)
name="$(basename "$tree") $FLAVOUR"
CORE_STAMP=$tree/.hmm_ref_core_stamp
build=$CACHE/build/$(basename "$tree")-$FLAVOUR-$(hash_of "${FRAGMENTS[@]}")
mkdir -p "$build"
"$here/overlay.sh" "$tree" "$CACHE/build/$(basename "$tree")"-{release,debug,kcsan,lockstat}-*
build
build_selftests
publish
say "$name is in ${PRODUCTS#"$PWD/"}"
