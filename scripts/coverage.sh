#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
#
# Measures which lines and branches of the driver the selftests and hmm-tests run.
#
#   in:  the input of kernel.sh and vm.sh except for the flavour, which is debug: that kernel
#        can inject faults, and has gcov
#   out: a table per file on stdout; the annotated sources in build/coverage, and there
#        in "uncovered" each line that did not run
#
# Only the driver is rebuilt, as an external module with the compiler's counters.

set -euo pipefail
here=$(dirname "$0")
export FLAVOUR=debug COHERENT=${COHERENT:-2} NUMA=${NUMA:-2}
"$here/kernel.sh"
# shellcheck source=scripts/lib.sh
. "$here/lib.sh"

build=$(cat "$PRODUCTS/build")
out=$ROOT/build/coverage
counted=$out/module

build_module() {
	rm -rf "$out"
	mkdir -p "$counted"
	cp -r "$ROOT"/{Makefile,drivers,include} "$counted"
	make -C "$build" M="$counted" GCOV_PROFILE=y CONFIG_HMM_REF_SANITY=y modules >"$out/log" 2>&1 || {
		tail -n 30 "$out/log" >&2
		die "the driver does not build with counters, see $out/log"
	}
	cp "$counted/drivers/misc/hmm_ref/hmm_ref.ko" "$PRODUCTS"
}

# Extracts the archive of counters from the output of the guest; passes all else on.
run() {
	local line to=/dev/stdout

	export JOB=coverage TIMEOUT=${TIMEOUT:-3600}
	"$here/hmm-tests.sh" limit=900 | while IFS= read -r line; do
		case $line in
		'@begin counters') to=$out/counters.base64 ;;
		'@end counters '*) to=/dev/stdout ;;
		*) printf '%s\n' "$line" >>"$to" ;;
		esac
	done | "$here/tap.sh" "$out/counts"
}

# The annotated sources of gcov: "count:line:text", and branches after their line.
annotate() {
	local file

	base64 -d "$out/counters.base64" | tar -C "$counted/drivers/misc/hmm_ref" -xz
	# The objects name their sources as seen from here.
	(cd "$counted" && gcov -b -p drivers/misc/hmm_ref/*.gcda) >"$out/gcov.log" 2>&1 ||
		die "gcov failed, see $out/gcov.log"
	for file in "$counted"/drivers#misc#hmm_ref#*.gcov; do
		mv "$file" "$out/${file##*#}"
	done
}

table() {
	awk -v list="$out/uncovered" '
		function row(name, lines, ran, branches, taken) {
			printf "%-24s %6d %6.1f%% %8d %6.1f%%\n", name, lines,
				lines ? 100 * ran / lines : 100, branches,
				branches ? 100 * taken / branches : 100
		}
		function close_file() {
			if (name == "")
				return
			row(name, lines, ran, branches, taken)
			all_lines += lines; all_ran += ran
			all_branches += branches; all_taken += taken
			lines = ran = branches = taken = 0
		}
		BEGIN { printf "%-24s %6s %7s %8s %7s\n", "", "lines", "ran", "branches", "taken" }
		FNR == 1 { close_file(); name = FILENAME; sub(/.*\//, "", name); sub(/\.gcov$/, "", name) }
		/^branch / { branches++; if ($0 !~ /never executed|taken 0%/) taken++; next }
		/^(function|call|unconditional) / || /^ *-:/ { next }
		/^ *[#=]+:/ { lines++; split($0, part, ":"); print name ":" part[2] + 0 substr($0, index($0, part[2]) + length(part[2])) >list; next }
		/^ *[0-9]+\*?:/ { lines++; ran++ }
		END { close_file(); row("all", all_lines, all_ran, all_branches, all_taken) }' \
		"$out"/*.gcov
	[[ ! -e $out/uncovered ]] || say "$(wc -l <"$out/uncovered") lines that did not run are in ${out#"$PWD/"}/uncovered"
}

build_module
run || say "not all is well: the counters tell what ran, all the same"
[[ -s $out/counters.base64 ]] || die "the guest has printed no counters"
annotate
table | keep coverage
