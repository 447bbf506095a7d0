#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
#
# Copies this repository with the driver under another name: the beginning of a port.
#
#   in:  the name ($1: small letters, digits and underscores, 12 at most: the node of a device has
#        room for no more), a folder that is not there ($2),
#        IOC_TYPE (of the new driver's ioctls, 0xB9 by default)
#   out: the folder, in which each hmm_ref is that name, in paths, too; make test in it tests the
#        driver of that name. On stderr what is left to do
#
# Lines that go on below a parenthesis stay where they are: with a name of another length than 7
# checkpatch --strict finds their alignment wrong.

set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"

name=${1:-} folder=${2:-}
[[ $name =~ ^[a-z][a-z0-9_]{0,11}$ && $name != *hmm_ref* ]] || die "usage: rename.sh NAME FOLDER"
[[ $folder && ! -e $folder ]] || die "the folder must be a new one: $folder"

# What git has, and what it has not seen yet.
copy() {
	mkdir -p "$folder"
	(cd "$ROOT" && git ls-files -coz --exclude-standard | tar --null -T - -cf -) | tar -xf - -C "$folder"
}

# The deepest first, so that a folder is renamed after what is in it.
rename_paths() {
	find "$folder" -mindepth 1 -depth -name '*hmm_ref*' | while IFS= read -r path; do
		mv "$path" "${path%/*}/$(basename "${path//hmm_ref/$name}")"
	done
}

rename_words() {
	find "$folder" -type f -exec sed -i "s/hmm_ref/$name/g; s/HMM_REF/${name^^}/g" {} +
}

copy
rename_paths
rename_words
sed -i "s/\(#define ${name^^}_IOC_TYPE\s\+\).*/\1${IOC_TYPE:-0xB9}/" "$folder/include/uapi/$name.h"
[[ ${IOC_TYPE:-} ]] || say "set IOC_TYPE: the ioctls of $name have the numbers of hmm_ref's"
say "the old interface is /dev/hmm_dmirrorN still: leave out tests/dmirror.c, or load with dmirror=0"
