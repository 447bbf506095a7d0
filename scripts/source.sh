#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
#
# Provides the kernel tree that the driver is laid into: Debian's source package,
# unpacked once into the cache, with the fixes of patches/core; or a copy of the user's own tree.
#
#   in:  KERNEL or KSRC, CORE_PATCHES (0: Debian's source as it is), the machine's apt
#        configuration
#   out: the path of the tree, on stdout. The name of the folder is the key under
#        which the builds are kept: the full Debian version, with "-core" where it is
#        patched, or the path of KSRC.
#   call it with the cache locked
#
# The user's tree is copied and never written to. Links to it would not do: the
# build runs scripts that write beside the file that a link points to.

set -euo pipefail
here=$(dirname "$0")
# shellcheck source=scripts/lib.sh
. "$here/lib.sh"

SOURCES=$CACHE/src
APT=$CACHE/apt

# The user _apt may not look into the cache.
APT_OPTIONS=()
((EUID)) || APT_OPTIONS+=(-o APT::Sandbox::User=root)

# The source of a kernel that is newer than the machine's release.
BACKPORTS=trixie-backports
KEYRING=/usr/share/keyrings/debian-archive-keyring.gpg

# --- apt: the machine's own suites first, then a private list ---------------------

candidate() {
	apt-cache "${APT_OPTIONS[@]}" policy "$1" |
		awk '$1 == "Candidate:" && $2 != "(none)" { print $2 }'
}

newest_of_series_7() {
	[[ $KERNEL == 7.* ]] || return 0
	apt-cache "${APT_OPTIONS[@]}" pkgnames linux-source-7. |
		sort -V | tail -n 1
}

# Where the machine gets its release from. Nothing before the first apt-get update.
own_mirror() {
	# shellcheck disable=SC2016 # for apt to expand
	apt-get indextargets --format '$(REPO_URI) $(RELEASE) $(COMPONENT)' 'Created-By: Packages' |
		awk -v release="$1" '
			$2 != release || $3 != "main" { next }
			!uri || $1 ~ /debian\/?$/ && uri !~ /debian\/?$/ { uri = $1 }
			END { print uri }'
}

# The machine's own entry for its release, with other suites: no mirror is named here.
private_sources() {
	local release uri

	# shellcheck source=/dev/null
	release=$(. /etc/os-release && echo "${VERSION_CODENAME:-none}")
	uri=$(own_mirror "$release")
	if [[ ! $uri ]]; then
		as_root apt-get -q update >&2 || true
		uri=$(own_mirror "$release")
	fi
	[[ $uri ]] || die "apt has no entry for the release '$release': give a tree, KSRC=/path/to/linux"
	printf 'deb [signed-by=%s] %s %s main\n' \
		"$KEYRING" "$uri" "$release" "$KEYRING" "$uri" "$BACKPORTS"
}

use_private_apt() {
	rm -rf "$APT"
	mkdir -p "$APT/lists/partial" "$APT/archives/partial"
	private_sources >"$APT/sources.list"
	APT_OPTIONS+=(
		-o "Dir::Etc::sourcelist=$APT/sources.list"
		-o Dir::Etc::sourceparts=/dev/null
		-o "Dir::State::Lists=$APT/lists"
		-o "Dir::Cache=$APT"
	)
	say "linux-source-$KERNEL is not in the suites of this machine: looking in $BACKPORTS"
	apt-get "${APT_OPTIONS[@]}" -q update >&2 || die "apt-get update failed"
}

choose_package() {
	local package=linux-source-$KERNEL

	if [[ ! $(candidate "$package") ]]; then
		use_private_apt
		if [[ ! $(candidate "$package") ]]; then
			package=$(newest_of_series_7)
			[[ $package ]] || die "there is no linux-source-$KERNEL"
			say "linux-source-$KERNEL is gone: taking $package"
		fi
	fi
	PACKAGE=$package
}

# --- Debian's tree --------------------------------------------------------------

download() {
	say "fetching $PACKAGE $(candidate "$PACKAGE")"
	(cd "$1" && apt-get "${APT_OPTIONS[@]}" -q download "$PACKAGE" >&2) ||
		die "apt-get could not download $PACKAGE"
}

unpack() {
	local deb=$1 to=$2

	# A kernel has about 100000 files and folders.
	dpkg-deb --fsys-tarfile "$deb" |
		tar -xO --wildcards './usr/src/linux-source-*.tar.xz' |
		tar -xJv -C "$to" --strip-components=1 |
		progress unpacking 103000
}

debian_tree() {
	local work deb tree

	if [[ -e $SOURCES/$KERNEL/Makefile ]]; then
		readlink -f "$SOURCES/$KERNEL"
		return
	fi
	have_apt
	mkdir -p "$SOURCES"
	rm -rf "$SOURCES"/.unpack.*
	work=$(mktemp -d "$SOURCES/.unpack.XXXXXX")
	choose_package
	download "$work"
	deb=$(echo "$work"/*.deb)
	tree=$SOURCES/$(basename "$deb" _all.deb)
	mkdir "$work/tree"
	unpack "$deb" "$work/tree"
	# Only a complete tree gets its name.
	rm -rf "$tree"
	mv "$work/tree" "$tree"
	ln -sfn "$(basename "$tree")" "$SOURCES/$KERNEL"
	rm -rf "$work" "$APT"
	echo "$tree"
}

have_apt() {
	command -v apt-get dpkg-deb >/dev/null ||
		die "fetching a kernel needs Debian's apt-get: give a tree, KSRC=/path/to/linux"
}

# --- the user's tree ------------------------------------------------------------

# Files that make up the source, without build products and without the files of the
# overlay.
list_sources() {
	if git -C "$KSRC" ls-files --error-unmatch Makefile >/dev/null 2>&1; then
		git -C "$KSRC" -c core.quotePath=false ls-files -co --exclude-standard
	elif [[ -e $KSRC/.config || -d $KSRC/include/config ]]; then
		die "$KSRC was built in place and is not a git checkout: run 'make mrproper' there"
	else
		(cd "$KSRC" && find . ! -type d ! -path './.git/*' -printf '%P\n')
	fi | grep -vE '(^|/)hmm_ref(/|\.h$)|^drivers/misc/(Kconfig|Makefile)$' | sort
}

user_tree() {
	local tree list file

	KSRC=$(cd "$KSRC" 2>/dev/null && pwd -P) || die "KSRC: no such folder"
	[[ -e $KSRC/Kbuild && -d $KSRC/mm ]] || die "KSRC=$KSRC is not a kernel tree"
	tree=$SOURCES/ksrc-$(basename "$KSRC")-$(md5sum <<<"$KSRC" | cut -c 1-8)
	list=$tree/.hmm_ref_files
	mkdir -p "$tree/drivers/misc"
	list_sources >"$list.new"
	if [[ -e $list ]]; then
		comm -23 "$list" "$list.new" | (cd "$tree" && xargs -r -d '\n' rm -f --)
	fi
	rsync -a --out-format=%n --ignore-missing-args --files-from="$list.new" \
		"$KSRC/" "$tree/" | progress "copying $KSRC" 0
	for file in drivers/misc/Kconfig drivers/misc/Makefile; do
		[[ $tree/$file -nt $KSRC/$file ]] || cp "$KSRC/$file" "$tree/$file"
	done
	mv "$list.new" "$list"
	echo "$tree"
}

if [[ $KSRC ]]; then
	user_tree
elif [[ $KERNEL == 7.* && $CORE_PATCHES != 0 ]]; then
	pristine=$(debian_tree)
	"$here/core-patches.sh" "$pristine"
else
	debian_tree
fi
