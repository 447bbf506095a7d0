#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
#
# Lays this clone over a kernel tree: real folders with links to the clone's files,
# and one line each in drivers/misc/Kconfig and drivers/misc/Makefile.
#
#   in:  the kernel tree ($1), the folders with its builds ($2...); COMPAT
#   out: the tree with the driver, its header, selftests and documentation in it.
#        When the links pointed to another clone before, or the driver's folder compat was or
#        was not there, the objects made from it are removed from the builds: make goes by
#        dates and would keep them.

set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"

FOLDERS='drivers/misc/hmm_ref tools/testing/selftests/hmm_ref
	Documentation/misc-devices/hmm_ref'
HEADER=include/uapi/hmm_ref.h

tree=$1
shift

sources() {
	find "$1" -type f ! -name '*.o' ! -name '*.a' ! -name '*.ko' ! -name '*.mod' \
		! -name '*.mod.c' ! -name '.*' ! -name modules.order ! -name Module.symvers |
		if [[ $COMPAT == n ]]; then grep -v '^drivers/misc/hmm_ref/compat/'; else cat; fi
}

link_folders() {
	local folder file

	for folder in $FOLDERS; do
		rm -rf "${tree:?}/$folder"
		while IFS= read -r file; do
			mkdir -p "$tree/$(dirname "$file")"
			ln -s "$ROOT/$file" "$tree/$file"
		done < <(cd "$ROOT" && sources "$folder")
	done
	ln -sf "$ROOT/$HEADER" "$tree/$HEADER"
}

add_lines() {
	grep -q hmm_ref "$tree/drivers/misc/Kconfig" ||
		sed -i '/^endmenu/i source "drivers/misc/hmm_ref/Kconfig"' "$tree/drivers/misc/Kconfig"
	# shellcheck disable=SC2016 # for make to expand
	grep -q hmm_ref "$tree/drivers/misc/Makefile" ||
		sed -i '$a obj-$(CONFIG_HMM_REF)\t\t+= hmm_ref/' "$tree/drivers/misc/Makefile"
}

drop_stale_objects() {
	local build linked="$ROOT compat=$COMPAT"

	[[ $(cat "$tree/.hmm_ref_clone" 2>/dev/null) != "$linked" ]] || return 0
	for build in "$@"; do
		rm -rf "$build/drivers/misc/hmm_ref" "$build/selftests"
	done
	echo "$linked" >"$tree/.hmm_ref_clone"
}

link_folders
add_lines
drop_stale_objects "$@"
