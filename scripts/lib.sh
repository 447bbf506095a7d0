# shellcheck shell=bash
# SPDX-License-Identifier: GPL-2.0-only
#
# Sourced by every script here: where things are, messages, progress, the lock.
#
#   in:  XDG_CACHE_HOME, KERNEL (7.3, 6.12), KSRC (a kernel tree), CORE_PATCHES (0: without
#        the fixes of patches/core), DMIRROR (n: without the interface of test_hmm), COMPAT
#        (n: without the driver's folder compat), FLAVOUR (release, debug, kcsan, lockstat),
#        HMM_REF_PRODUCTS (a folder, for mutants.sh)
#   out: ROOT (the clone), CACHE (sources and builds, shared by all clones),
#        PRODUCTS (the input of vm.sh: in the clone, one folder per kernel and flavour)

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
CACHE=${XDG_CACHE_HOME:-$HOME/.cache}/hmm_ref
KERNEL=${KERNEL:-7.3}
KSRC=${KSRC:-}
CORE_PATCHES=${CORE_PATCHES:-1}
DMIRROR=${DMIRROR:-y}
COMPAT=${COMPAT:-y}
FLAVOUR=${FLAVOUR:-release}
VARIANT=''
[[ $KSRC || $KERNEL != 7.* || $CORE_PATCHES != 0 ]] || VARIANT+=-plain
[[ $DMIRROR != n ]] || VARIANT+=-no-dmirror
[[ $COMPAT != n ]] || VARIANT+=-no-compat
# shellcheck disable=SC2034 # for the scripts that source this
PRODUCTS=${HMM_REF_PRODUCTS:-$ROOT/build/${KSRC:+ksrc-}$(basename "${KSRC:-$KERNEL}")$VARIANT-$FLAVOUR}

# The kernel's make must not see the variables of the make that called us.
unset MAKEFLAGS MFLAGS GNUMAKEFLAGS MAKEOVERRIDES MAKELEVEL
export LC_ALL=C PYTHONDONTWRITEBYTECODE=1

set -E
trap 'say "error: ${0##*/} stopped at line $LINENO"' ERR

say() { printf '%s\n' "$*" >&2; }
die() { say "error: $*"; exit 2; }

case $FLAVOUR in
release | debug | kcsan | lockstat) ;;
*) die "FLAVOUR=$FLAVOUR: must be release, debug, kcsan or lockstat" ;;
esac
[[ $CORE_PATCHES == [01] ]] || die "CORE_PATCHES=$CORE_PATCHES: must be 0 or 1"
[[ $DMIRROR == [yn] ]] || die "DMIRROR=$DMIRROR: must be y or n"
[[ $COMPAT == [yn] ]] || die "COMPAT=$COMPAT: must be y or n"

as_root() {
	if ((EUID)); then sudo "$@"; else "$@"; fi
}

# progress LABEL TOTAL: one line on stdin is one file done; show how far that is. A
# terminal gets one line that is overwritten, a log one line every 10 s. TOTAL 0:
# not known, show the count.
progress() {
	local label=$1 total=$2 count=0 next=0 text='' last=''

	while IFS= read -r _; do
		count=$((count + 1))
		if ((total)); then
			text="$((count < total ? count * 100 / total : 99))%"
		else
			text="$count files"
		fi
		if [[ -t 2 ]]; then
			[[ $text == "$last" ]] || printf '\r%s: %s ' "$label" "$text" >&2
			last=$text
		elif ((SECONDS >= next)); then
			say "$label: $text"
			next=$((SECONDS + 10))
		fi
	done
	[[ ! $last ]] || printf '\r' >&2
	((count == 0)) || say "$label: done, $count files"
}

# One run at a time works in the cache. Released when the script ends.
lock_cache() {
	mkdir -p "$CACHE"
	exec 9>"$CACHE/lock"
	flock -n 9 && return
	say "waiting for another run that is working in $CACHE"
	flock 9
}

# The commit that the driver and its tests are of; with a "+" if they have changed since.
commit() {
	git -C "$ROOT" describe --always 2>/dev/null || { echo unknown && return; }
	git -C "$ROOT" diff --quiet HEAD -- drivers include tools patches || echo +
}

# keep NAME: passes stdin on, and leaves a copy in build/results for results.sh, below a line with
# the commit, the day, the kernel and the machine of the run.
keep() {
	local file=$ROOT/build/results/$1

	mkdir -p "$ROOT/build/results"
	printf 'commit %s, %s, kernel %s, %s CPUs, %s\n' "$(commit | tr -d '\n')" "$(date -u +%F)" \
		"$(basename "${KSRC:-$KERNEL}")" "$(nproc)" \
		"$([[ -w /dev/kvm ]] && grep -qE '^flags.* (vmx|svm)' /proc/cpuinfo && echo KVM || echo 'no KVM')" >"$file"
	tee -a "$file"
}

# slow_harness SELFTESTS TO: a copy of the kernel's header for tests, to be found before that one.
# The harness gives a test 30 s, or its own limit. That is for hardware: a guest that is emulated
# beside another one gets ten times as long.
slow_harness() {
	mkdir -p "$2"
	sed -e 's/^\(#define TEST_TIMEOUT_DEFAULT\) 30$/\1 300/' \
		-e '/^#define TEST_F_TIMEOUT(/,/^$/s/, timeout)$/, 10 * (timeout))/' \
		"$1/kselftest_harness.h" >"$2/kselftest_harness.h"
}
