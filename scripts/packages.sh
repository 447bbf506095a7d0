#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
#
# Installs the packages that the build and the VM need and that are missing, through apt-get.
#
#   in:  the table below: Debian package, a command or file that it brings, its use; with
#        "bench", "check", "docs" or "mm-tests" ($1) also those that only that command needs
#   out: exit 0 when all are installed; 2 with the names and reasons when not

set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"

NEEDED='gcc              gcc                          compiles kernel, driver and tests
libc6-dev        /usr/include/stdlib.h         links the tests statically
make             make                         builds all of it
flex             flex                         kernel configuration
bison            bison                        kernel configuration
bc               bc                           kernel build: timeconst.h
perl             perl                         kernel build
python3          python3                      kernel build
libelf-dev       /usr/include/libelf.h        kernel build: objtool
xz-utils         xz                           unpacks the kernel source
patch            patch                        breaks the driver, for make mutants
rsync            rsync                        copies KSRC, installs the tests
kmod             depmod                       module list of the guest
cpio             cpio                         packs the initramfs
busybox-static   busybox                      user space of the guest
qemu-system-x86  qemu-system-x86_64           boots the guest
spin             spin                         checks the model'
case ${1:-} in
mm-tests)
	NEEDED+=$'\nlibnuma-dev      /usr/include/numa.h          tests of mm/: moves pages between nodes'
	NEEDED+=$'\nliburing-dev     /usr/include/liburing.h      tests of mm/: pins pages by io_uring'
	;;
docs)
	NEEDED+=$'\npython3-sphinx   sphinx-build                 builds the documentation'
	NEEDED+=$'\npython3-yaml     /usr/lib/python3/dist-packages/yaml kernel documentation'
	;;
bench) NEEDED+=$'\ngnuplot-nox      gnuplot                      draws the results of the benchmark' ;;
check)
	NEEDED+=$'\nsparse           sparse                       checks the driver'
	NEEDED+=$'\nshellcheck       shellcheck                   checks the scripts'
	;;
esac

have() {
	case $1 in
	/*) [[ -e $1 ]] ;;
	*) PATH=$PATH:/usr/sbin:/sbin command -v "$1" >/dev/null ;;
	esac
}

missing() {
	local package probe use

	while read -r package probe use; do
		have "$probe" || printf '%-16s %s\n' "$package" "$use"
	done <<<"$NEEDED"
}

# The output of apt-get is shown only when it fails.
install() {
	local log status=0

	say "installing:" "$@"
	log=$(mktemp)
	{
		as_root apt-get -qq update &&
			as_root env DEBIAN_FRONTEND=noninteractive \
				apt-get -qq install -y --no-install-recommends "$@"
	} >"$log" 2>&1 || status=1
	((status == 0)) || tail -n 20 "$log" >&2
	rm -f "$log"
	return $status
}

lacking=$(missing)
[[ $lacking ]] || exit 0

if have apt-get; then
	mapfile -t packages < <(awk '{ print $1 }' <<<"$lacking")
	install "${packages[@]}" || say "apt-get could not install all of them"
	lacking=$(missing)
fi
[[ ! $lacking ]] || die "these packages are missing, please install them:
$lacking"
