#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
#
# Writes the driver as a series to post: by layer, then the selftests, then the documentation, as
# it applies to a kernel's tree.
#
#   in:  the folder to write to ($1), default build/series/driver; the kernel's tree, as source.sh
#        provides it; patches/driver (list: what is in which patch; lines: what existing files of
#        the kernel get; cover); BUILD=1: also build each patch
#   out: the folder: 0000-cover-letter.patch and so on; on stdout what checkpatch --strict has to
#        say, and with BUILD=1 what the compiler has, with W=1, after each patch. Exit 1 when that
#        is anything, or the lists do not fit the files
#
# Posted is what a driver for today's kernel has: without compat/, and with its header beside it
# instead of in include/uapi. BUILD=1 needs the kernel that kernel.sh has built (FLAVOUR).
#
# The sign-off is that of patches/core. The person that posts a series signs it off, and says in the
# cover letter which parts a tool has written (Documentation/process/generated-content.rst).

set -euo pipefail
here=$(dirname "$0")
# shellcheck source=scripts/lib.sh
. "$here/lib.sh"

out=${1:-$ROOT/build/series/driver}
lists=$ROOT/patches/driver
driver=drivers/misc/hmm_ref
tests=tools/testing/selftests/hmm_ref
docs=Documentation/misc-devices/hmm_ref
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
posted=$work/posted
series=$work/series
mkdir "$posted" "$series"

in_series() { git -C "$series" "$@"; }

core_patches=("$ROOT"/patches/core/*.patch)
author=$(sed -n 's/^From: //p;/^$/q' "${core_patches[0]}")

# --- the files, as they are posted ----------------------------------------------

copy() {
	(
		cd "$ROOT"
		git ls-files -coz --exclude-standard "$driver" "$tests" "$docs" include/uapi/hmm_ref.h |
			tar --null --exclude="$driver/compat" -cf - -T -
	) | tar -xf - -C "$posted"
	mkdir "$posted/$driver/uapi"
	mv "$posted/include/uapi/hmm_ref.h" "$posted/$driver/uapi/"
	rm -r "$posted/include"
}

# Of the branches for older kernels, and for a core with bugs, the one that is left.
drop_compat() {
	(
		cd "$posted/$driver"
		# Such a line, with the comment above it.
		awk '
			/^#/ { held = held $0 "\n"; next }
			/^if.*KBUILD_EXTMOD/ { outside = 1 }
			!outside && !/compat/ { printf "%s%s\n", held, $0 }
			/^endif/ { outside = 0 }
			{ held = "" }' Makefile | cat -s | sed '${ /^$/d }' >Makefile.new
		mv Makefile.new Makefile
		sed -i -e '/^\/\* Older kernels/d' -e '/^#if __has_include("compat/,/^#endif/d' \
			-e 's,^#include <linux/bits.h>,#include <kunit/visibility.h>\n&,' base.h
		cat -s base.h >base.h.new
		mv base.h.new base.h
		sed -i -E 's,^( \*   base\.h +)compat/ .*,\1                     what all layers need,' hmm_ref.h
		sed -i -e '/^\tif (HMM_REF_\(LARGE_IS_SAFE\|CORE_IS_FIXED\))$/{ N; s/.*\n\t//; }' ioctl.c
		sed -i 's/HMM_REF_LARGE_IS_SAFE,$/true,/' main.c
		perl -0pi -e 's/\tif \([^;{}]*!HMM_REF_LARGE_IS_SAFE\)\n[^;]*;\n//' main.c
		sed -i 's/hmm_ref_folio_pgmap(folio)/folio->pgmap/' devmem.h
		sed -i 's/hmm_ref_pagemap_folio_free/hmm_ref_devmem_folio_free/' device.c
		sed -i '/__weak /{ s///; n; s/       //; }' migrate_evict.c
		sed -i 's, (compat/[a-z_]*\.c),,' tests/smallest.c
	)
}

move_header() {
	(
		cd "$posted"
		sed -i 's,^#include <uapi/hmm_ref.h>,#include "uapi/hmm_ref.h",' "$driver"/*.[ch]
		sed -i 's,^#include <uapi/hmm_ref.h>,#include "../uapi/hmm_ref.h",' "$driver"/tests/*.[ch]
		sed -i "s,/include/uapi\$,/$driver/uapi," "$tests/Makefile"
		sed -i "s,include/uapi/hmm_ref.h,$driver/uapi/hmm_ref.h," "$docs"/*.rst
	)
}

check_posted() {
	! (cd "$posted" && grep -rnE 'compat/|HMM_REF_CORE_IS|IS_SAFE|__weak|hmm_ref_(pagemap_folio|folio_pgmap)|[</]uapi/hmm_ref.h>' \
		"$driver" "$tests") >&2 || die "these lines are for this repository only: see drop_compat()"
}

# --- which file is in which patch ------------------------------------------------

nr_patches() { grep -c '^patch ' "$lists/list"; }

# of NUMBER WORD: the lines WORD of that patch
of() {
	awk -v number="$1" -v word="$2" '
		$1 == "patch" { nr++ }
		nr == number && $1 == word && sub("^" word " ?", "")' "$lists/list"
}

# $work/files: "NUMBER FILE" for each file that is posted, but for those that grow.
assign() {
	local file number found length patterns=() words pattern

	for number in $(seq "$(nr_patches)"); do
		patterns[number]=$(of "$number" files | paste -sd ' ')
	done
	while IFS= read -r file; do
		case $file in
		*/hmm_ref/Makefile | */hmm_ref/Kconfig) continue ;;
		esac
		found='' length=0
		for number in $(seq "$(nr_patches)"); do
			read -ra words <<<"${patterns[number]}"
			for pattern in "${words[@]}"; do
				# shellcheck disable=SC2053 # a pattern
				if [[ $file == $pattern ]] && ((${#pattern} > length)); then
					found=$number
					length=${#pattern}
				fi
			done
		done
		[[ $found ]] || die "patches/driver/list has no patch for $file"
		echo "$found $file"
	done < <(cd "$posted" && find . -type f -printf '%P\n' | sort) >"$work/files"
}

files_of() { sed -n "s/^$1 //p" "$work/files"; }

# --- files that grow --------------------------------------------------------------

# The objects whose source is there, and what they are objects of.
grow_makefile() {
	(
		cd "$series/$driver"
		awk '
			function is_there(object) {
				sub(/\.o$/, ".c", object)
				return system("test -e " object) == 0
			}
			/^#/ { held = held $0 "\n"; next }
			$2 ~ /^[:+]=$/ && $1 ~ /^hmm_ref[a-z_]*-/ {
				line = $1 " " $2
				some = 0
				for (i = 3; i <= NF; i++)
					if (is_there($i)) {
						line = line " " $i
						some = 1
					}
				if (some) {
					module = $1
					sub(/-.*/, "", module)
					has[module] = 1
					text[++nr] = held line
				}
				held = ""
				next
			}
			/^CFLAGS_/ {
				object = $1
				sub(/^CFLAGS_/, "", object)
				if (!is_there(object)) {
					held = ""
					next
				}
			}
			{ text[++nr] = held $0; held = "" }
			END {
				for (i = 1; i <= nr; i++) {
					count = split(text[i], word, /[ .]+/)
					if (text[i] ~ /^obj-/ && !has[word[count - 1]])
						continue
					print text[i]
				}
			}' "$posted/$driver/Makefile" | cat -s | sed '${ /^$/d }' >Makefile
	)
}

# The options that the Makefile asks for.
grow_kconfig() {
	awk -v makefile="$series/$driver/Makefile" '
		BEGIN {
			while ((getline line <makefile) > 0)
				while (match(line, /CONFIG_HMM_REF[A-Z_]*/)) {
					has[substr(line, RSTART + 7, RLENGTH - 7)] = 1
					line = substr(line, RSTART + RLENGTH)
				}
		}
		$1 == "config" { skip = !has[$2] }
		!skip' "$posted/$driver/Kconfig" | sed -e '${ /^$/d }' >"$series/$driver/Kconfig"
}

# A module that does nothing: what main.c begins and ends with.
begin_main() {
	[[ ! -e $series/$driver/main.c ]] || return 0
	{
		sed '/^ \*\/$/q' "$posted/$driver/main.c"
		printf '#include <linux/module.h>\n\n'
		sed -n '/^MODULE_\(DESCRIPTION\|LICENSE\)/p' "$posted/$driver/main.c"
	} >"$series/$driver/main.c"
}

# The programs whose source is there, and their headers.
grow_tests() {
	[[ -d $series/$tests ]] || return 0
	(
		cd "$series/$tests"
		awk '
			function is_there(name) {
				return system("test -e " name " || test -e " name ".c") == 0
			}
			/^\t/ && skip { skip = /\\$/; next }
			/^\$\(OUTPUT\)\// {
				name = $1
				sub(/^\$\(OUTPUT\)\//, "", name)
				sub(/:$/, "", name)
				skip = !is_there(name)
				if (skip) {
					skip = /\\$/
					held = ""
					next
				}
			}
			/^#/ { held = held $0 "\n"; next }
			/^(TEST_(GEN_)?(PROGS|FILES)|LOCAL_HDRS) / {
				line = $1 " " $2
				some = 0
				for (i = 3; i <= NF; i++)
					if (is_there($i)) {
						line = line " " $i
						some = 1
					}
				if (some)
					printf "%s%s\n", held, line
				held = ""
				next
			}
			{ printf "%s%s\n", held, $0; held = "" }' "$posted/$tests/Makefile" |
			cat -s | sed '${ /^$/d }' >Makefile
	)
}

# --- the series, as commits ---------------------------------------------------------

# put NAME: the lines of that name into their file
put() {
	local file

	file=$(awk -v name="$1" '$1 == name { print $2 }' "$lists/lines")
	[[ $file ]] || die "patches/driver/lines has no $1"
	awk -v name="$1" -v author="$author" '
		FNR == NR && !/^[#+]/ && NF {
			mine = $1 == name
			if (mine) {
				where = $3
				regex = $4
			}
		}
		FNR == NR {
			if (mine && sub(/^\+ ?/, "")) {
				sub(/@author@/, author)
				lines = lines $0 "\n"
			}
			next
		}
		!done && where != "end" && $0 ~ regex {
			done = 1
			printf "%s", where == "before" ? lines $0 "\n" : $0 "\n" lines
			next
		}
		{ print }
		END {
			if (where == "end")
				printf "%s", lines
			else if (!done)
				exit 1
		}' "$lists/lines" "$series/$file" >"$work/new" || die "there is no place for $1 in $file"
	mv "$work/new" "$series/$file"
}

# Only the files of the kernel that the series changes, without what overlay.sh put there.
begin() {
	local file

	git init -q "$series"
	in_series config user.name "${author% <*}"
	in_series config user.email "$(sed 's/.*<//; s/>//' <<<"$author")"
	while IFS= read -r file; do
		mkdir -p "$series/$(dirname "$file")"
		grep -v 'hmm_ref' "$tree/$file" >"$series/$file"
	done < <(awk '/^[A-Za-z]/ { print $2 }' "$lists/lines")
	in_series add -A
	in_series commit -q -m "$(basename "$tree")"
	in_series tag before
}

commit() {
	local file name

	mkdir -p "$series/$driver"
	while IFS= read -r file; do
		mkdir -p "$series/$(dirname "$file")"
		cp "$posted/$file" "$series/$file"
	done < <(files_of "$1")
	begin_main
	grow_makefile
	grow_kconfig
	grow_tests
	for name in $(of "$1" lines); do
		put "$name"
	done
	in_series add -A
	{ of "$1" patch && echo && of "$1" = && printf '\nSigned-off-by: %s\n' "$author"; } |
		in_series commit -q -F -
	in_series tag "patch-$1"
}

check_whole() {
	local folder

	for folder in "$driver" "$tests" "$docs"; do
		diff -r "$posted/$folder" "$series/$folder" >&2 || die "the patches do not add up to $folder"
	done
}

# --- the series, as mails -----------------------------------------------------------

lines_in() { (cd "$posted" && find "$@" -type f -exec cat {} + | wc -l); }

write_cover() {
	local cover=$out/0000-cover-letter.patch kunit

	kunit=$(lines_in "$driver/tests")
	{
		sed -n "1,/^\$/{ s@\*\*\* SUBJECT HERE \*\*\*@$(sed -n 's/^subject //p' "$lists/cover")@; p }" "$cover"
		sed -e '1,/^$/d' -e "s/@driver@/$(($(lines_in "$driver") - kunit))/" -e "s/@kunit@/$kunit/" \
			-e "s/@tests@/$(lines_in "$tests")/" -e "s/@docs@/$(lines_in "$docs")/" "$lists/cover"
		echo
		sed '1,/BLURB HERE/{ /BLURB HERE/!d; d }' "$cover" | sed '1{ /^$/d }'
	} >"$work/new"
	mv "$work/new" "$cover"
}

# Without GIT_DIR, checkpatch would look for a repository around the kernel's source to check SPDX
# lines, and there is none.
#
# What does not apply is the same as in check.sh, which reads the files one by one: an argument
# that names a struct or a member; the layout that all of TRACE_EVENT has; CamelCase of a model's
# names; BIT() in programs and their header; unrolled_full, which is taken for a function.
# MAINTAINERS has all paths from the first patch on.
checkpatch() {
	local patch ignore

	for patch in "$out"/*.patch; do
		ignore=FILE_PATH_CHANGES,MACRO_ARG_REUSE,MACRO_ARG_PRECEDENCE
		case $patch in
		*-cover-letter.patch) continue ;;
		*-migrate-pages.patch) ignore+=,OPEN_BRACE ;;
		*-add-device-pages.patch) ignore+=,PARENTHESIS_ALIGNMENT,OPEN_ENDED_LINE ;;
		*-KUnit-*) ignore+=,CAMELCASE ;;
		*-user-interface.patch | *-selftests-*) ignore+=,BIT_MACRO ;;
		esac
		(cd "$work" && GIT_DIR=none perl "$tree/scripts/checkpatch.pl" --root="$tree" --strict --terse \
			--show-types --no-summary --ignore "$ignore" "$patch") || true
	done
}

# --- BUILD=1 ------------------------------------------------------------------------

# The kernel that is there has all options of the driver, and a patch in the middle has not.
options() {
	local option

	for option in HMM_REF_DMIRROR HMM_REF_SANITY; do
		case " $* " in
		*" $option "*) printf '#undef CONFIG_%s\n#define CONFIG_%s 1\n' "$option" "$option" ;;
		*) printf '#undef CONFIG_%s\n' "$option" ;;
		esac
	done
}

# compile FOLDER OPTION...: a copy of the driver as it is now, with these options set to y
compile() {
	local folder=$work/$1 config=(CONFIG_HMM_REF=m) option

	shift
	mkdir -p "$folder"
	rsync -a --delete --exclude='*.o' --exclude='*.ko' --exclude='*.cmd' --exclude='*.mod*' \
		--exclude=Module.symvers --exclude=modules.order --exclude=options.h \
		"$series/$driver/" "$folder/"
	for option in HMM_REF_DMIRROR HMM_REF_SANITY; do
		case " $* " in
		*" $option "*) config+=("CONFIG_$option=y") ;;
		*) config+=("CONFIG_$option=") ;;
		esac
	done
	for option in KUNIT_TEST FLOOR TOY EDU; do
		if grep -q "^config HMM_REF_$option$" "$folder/Kconfig"; then
			config+=("CONFIG_HMM_REF_$option=m")
		else
			config+=("CONFIG_HMM_REF_$option=")
		fi
	done
	options "$@" >"$folder/options.new"
	if cmp -s "$folder/options.new" "$folder/options.h"; then
		rm "$folder/options.new"
	else
		mv "$folder/options.new" "$folder/options.h"
	fi
	make -s -C "$build" M="$folder" W=1 -j"$(nproc)" "${config[@]}" \
		KCFLAGS="-include $folder/options.h" modules 2>&1 |
		grep -v '^warning: the compiler differs\|^  The kernel was built\|^  You are using' || true
	[[ -e $folder/hmm_ref.ko ]] || echo "there is no hmm_ref.ko"
}

# Options with all that is in the Kconfig, and without the old interface but with all checks.
compile_driver() {
	local old=''

	! grep -q '^config HMM_REF_DMIRROR' "$series/$driver/Kconfig" || old=HMM_REF_DMIRROR
	# shellcheck disable=SC2086 # none or one
	compile plain $old
	compile checked HMM_REF_SANITY
}

compile_tests() {
	local folder=$series/$tests/..

	[[ -d $series/$tests ]] || return 0
	ln -sfn "$tree/scripts" "$series/scripts"
	ln -sf "$tree"/tools/testing/selftests/{lib.mk,*.h} "$folder/"
	rm -rf "$work/programs"
	mkdir "$work/programs"
	make -s -C "$series/$tests" -j"$(nproc)" OUTPUT="$work/programs" \
		KHDR_INCLUDES="-isystem $build/usr/include" all 2>&1 | grep -v '^  CC ' || true
	grep -v '^#' "$series/$tests/Makefile" | grep -oE '^TEST_GEN_PROGS .*' | tr ' ' '\n' |
		grep -v '[=]\|^TEST' | while IFS= read -r program; do
		[[ -e $work/programs/$program ]] || echo "there is no $program"
	done
}

# Does the driver's Kconfig parse? Options of others are not known here.
read_kconfig() {
	local conf=$build/scripts/kconfig/conf

	[[ -x $conf ]] || return 0
	(
		cd "$series"
		printf 'mainmenu "hmm_ref"\nsource "%s/Kconfig"\n' "$driver" >"$work/Kconfig"
		srctree=. KCONFIG_CONFIG=$work/config "$conf" --alldefconfig "$work/Kconfig" 2>&1 |
			grep -i 'error\|warning\|Kconfig:' || true
	)
}

build_each() {
	local number said=''

	for number in $(seq "$(nr_patches)"); do
		in_series checkout -q "patch-$number"
		say "building patch $number of $(nr_patches)"
		said=$(read_kconfig; compile_driver; compile_tests)
		if [[ $said ]]; then
			printf 'patch %s:\n%s\n' "$number" "$said"
		fi
	done
}

"$here/packages.sh" check
lock_cache
tree=$(CORE_PATCHES=0 "$here/source.sh")
if [[ ${BUILD:-} ]]; then
	[[ -e $PRODUCTS/build ]] || die "there is no kernel in $PRODUCTS: make kernel"
	build=$(cat "$PRODUCTS/build")
fi
copy
drop_compat
move_header
check_posted
assign
begin
for number in $(seq "$(nr_patches)"); do
	commit "$number"
done
check_whole
rm -rf "$out"
mkdir -p "$out"
out=$(cd "$out" && pwd)
in_series format-patch -q --numbered --cover-letter --no-signature -o "$out" before
write_cover
say "$(nr_patches) patches of the driver are in ${out#"$PWD/"}"
said=$(checkpatch)
if [[ $said ]]; then
	printf 'checkpatch --strict:\n%s\n' "$said"
fi
built=''
[[ ! ${BUILD:-} ]] || built=$(build_each)
if [[ $built ]]; then
	printf '%s\n' "$built"
fi
[[ ! $said && ! $built ]] || exit 1
