#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
#
# Reads every file with the kernel's own tools: checkpatch --strict, gcc with W=1,
# sparse, kernel-doc; and shellcheck for the scripts. Also checks that the patches in
# tools/mutants still apply, that the functions exist that the documentation names, that the
# porting guide has a line for each file of the driver, that a device is short, and that comments
# and pages avoid some words (words.sh).
#
#   in:  the kernel that kernel.sh has built (KERNEL or KSRC, FLAVOUR)
#   out: their complaints; exit 1 if there is one beside the known exceptions

set -euo pipefail
here=$(dirname "$0")
# shellcheck source=scripts/lib.sh
. "$here/lib.sh"

failed=0
"$here/packages.sh" check
[[ -e $PRODUCTS/build ]] || die "there is no kernel in $PRODUCTS: make kernel"
build=$(cat "$PRODUCTS/build")
tree=$(readlink -f "$build/source")
lock_cache

# report NAME COMMAND...: complain if the command prints anything.
report() {
	local name=$1 found

	shift
	found=$("$@")
	if [[ $found ]]; then
		printf '%s:\n%s\n' "$name" "$found"
		failed=1
	else
		echo "$name: nothing"
	fi
}

# What does not apply: names and macros of the kernel's own style (trace.h is laid out as all
# of TRACE_EVENT are; the uapi and programs have no BIT()); an argument that names a
# struct or a member; unrolled_full, which is taken for a function; and compat/, which mainline
# leaves out. checkpatch leaves a cache of names where it is run.
checkpatch() {
	local file ignore cwd

	cwd=$(mktemp -d)
	for file in drivers/misc/hmm_ref/{,compat/,gpu/,tests/}*.[ch] include/uapi/hmm_ref.h \
		tools/testing/selftests/hmm_ref/*.[ch]; do
		ignore=MACRO_ARG_REUSE,MACRO_ARG_PRECEDENCE
		case $file in
		*/compat/*) ignore+=,LINUX_VERSION_CODE,CONSTANT_COMPARISON,MACRO_ARG_UNUSED ;;
		drivers/*/trace.h) ignore+=,PARENTHESIS_ALIGNMENT,OPEN_ENDED_LINE ;;
		drivers/*/devmem_model.c) ignore+=,CAMELCASE ;;
		drivers/*/fault_around.c) ignore+=,OPEN_BRACE ;;
		include/* | tools/*) ignore+=,BIT_MACRO ;;
		esac
		(cd "$cwd" && perl "$tree/scripts/checkpatch.pl" --root="$tree" --strict --terse \
			--no-summary --ignore "$ignore" -f "$ROOT/$file") || true
	done
	rm -rf "$cwd"
}

# All of the driver anew, with further arguments for make.
rebuild() {
	local modules=("$PRODUCTS"/hmm_ref*.ko)

	rm -f "$build"/drivers/misc/hmm_ref/{,compat/,gpu/,tests/}*.o
	make -C "$tree" O="$build" -j"$(nproc)" "$@" CONFIG_HMM_REF_KUNIT_TEST=m \
		CONFIG_HMM_REF_FLOOR=m CONFIG_HMM_REF_TOY=m CONFIG_HMM_REF_EDU=m \
		"${modules[@]/#*\//drivers/misc/hmm_ref/}" 2>&1 |
		grep -E 'hmm_ref.*(warning|error)|(warning|error).*hmm_ref' || true
}

# sparse 0.6.4 cannot evaluate what every module's parameters expand to.
run_sparse() {
	local files

	files=$(cd drivers/misc/hmm_ref && grep -rlE '^(module_param|MODULE_)' --include='*.c' . |
		sed 's|.*/||; s|\.c$||' | paste -sd '|')
	rebuild C=2 CHECK="$ROOT/scripts/sparse.sh" |
		grep -vE "/($files)\.c:.*bad constant expression" || true
}

kernel_doc() {
	local tool=$tree/tools/docs/kernel-doc

	[[ -x $tool ]] || tool=$tree/scripts/kernel-doc
	"$tool" -none -Wall drivers/misc/hmm_ref/{,compat/,gpu/,tests/}*.[ch] include/uapi/hmm_ref.h 2>&1 || true
}

# Functions that the documentation names, and that neither we nor the kernel have.
doc_names() {
	local names

	names=$(grep -ohE '[a-z_][a-z_0-9]+\(\)' README.md Documentation/misc-devices/hmm_ref/*.rst |
		tr -d '()' | sort -u)
	comm -23 <(echo "$names") <(grep -rohwF "$names" drivers include tools \
		"$tree"/{include,mm,kernel,fs,lib} "$tree"/drivers/gpu/drm/{*.c,xe,nouveau} \
		"$tree"/drivers/gpu/drm/amd/{amdgpu,amdkfd} | sort -u) | sed 's/$/() does not exist/'
}

# Files of the driver without a line in the table of the porting guide, and lines without a file.
doc_files() {
	local guide=Documentation/misc-devices/hmm_ref/porting.rst

	comm -3 --output-delimiter=$'\t' \
		<(sed -n '/^The files$/,$s/^   ``\([^`]*\)`` | .*/\1/p' "$guide" | sort) \
		<(cd drivers/misc/hmm_ref && find . -type f ! -name '*.mod.c' \
			\( -name '*.[ch]' -o -name Kconfig -o -name Makefile -o -name .kunitconfig \) \
			-printf '%P\n' | sort) |
		sed "s|^\t\(.*\)|\1 is not in $guide|; t; s|\$| in $guide does not exist|"
}

# What a device adds to the core: see porting.rst, The files.
device_lines() {
	local file lines

	for file in pci.c gpu/vram.c tests/toy.c tests/edu.c; do
		lines=$(wc -l <"drivers/misc/hmm_ref/$file")
		if ((lines < 700)); then
			say "$file: $lines lines"
		else
			echo "$file: $lines lines, more than 700"
		fi
	done
}

# What depends on a version, or on a fix of the core, is in compat/, which may be deleted.
outside_compat() {
	grep -rnE 'LINUX_VERSION_CODE|KERNEL_VERSION|HMM_REF_CORE_|HMM_REF_COMPAT_' \
		--include='*.[ch]' drivers/misc/hmm_ref |
		grep -vE '/compat/|HMM_REF_CORE_IS_FIXED' || true
}

# Files, user pointers and structs of the uapi belong to the user interface.
interface_in_core() {
	grep -nE 'uapi/hmm_ref\.h|linux/(fs|uaccess)\.h|copy_(from|to)_user|__user' \
		drivers/misc/hmm_ref/*.[ch] |
		grep -vE '/(main|device|node|ioctl|access|stats|debugfs|dmirror|client)\.[ch]:' || true
}

# Prose: how often the words are used that a native speaker would not choose.
words() {
	scripts/words.sh || true
}

shell_check() {
	shellcheck -x -e SC2317 scripts/*.sh scripts/guest/* .ci/run 2>&1 || true
}

cd "$ROOT"
report "checkpatch --strict" checkpatch
report "W=1" rebuild W=1
report "sparse" run_sparse
report "kernel-doc" kernel_doc
report "functions in the documentation" doc_names
report "files in the porting guide" doc_files
report "lines of a device" device_lines
report "versions and fixes outside of compat/" outside_compat
report "user interface in the core" interface_in_core
report "words in comments and documentation" words
report "mutants" scripts/mutants.sh check
report "shellcheck" shell_check
exit "$failed"
