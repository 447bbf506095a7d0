#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
#
# Packs the root file system of the guest: busybox, the modules, the selftests and
# the scripts in guest/.
#
#   in:  $PRODUCTS, as kernel.sh left it; scripts/guest/
#   out: the archive $1

set -euo pipefail
here=$(dirname "$0")
# shellcheck source=scripts/lib.sh
. "$here/lib.sh"

static_busybox() {
	local busybox

	busybox=$(command -v busybox) || die "busybox is missing (Debian: busybox-static)"
	! ldd "$busybox" >/dev/null 2>&1 ||
		die "$busybox is linked dynamically: install the static one (Debian: busybox-static)"
	echo "$busybox"
}

root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT

modules=$root/lib/modules/$(cat "$PRODUCTS/kernel.release")
mkdir -p "$root"/{bin,dev,proc,sys,tmp,tests} "$modules"
cp "$(static_busybox)" "$root/bin/busybox"
ln -s bin "$root/sbin"
cp -r "$here/guest" "$root/guest"
ln -s guest/init "$root/init"

cp "$PRODUCTS"/*.ko "$modules"
touch "$modules"/modules.{order,builtin,builtin.modinfo}
PATH=$PATH:/usr/sbin:/sbin depmod -b "$root" "$(basename "$modules")"

cp -r "$PRODUCTS/selftests/." "$root/tests"
cp "$PRODUCTS/selftests.list" "$root/tests.list"

(cd "$root" && find . | cpio --quiet -o -H newc -R 0:0) >"$1"
