#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
#
# Writes the page of results: all figures of this repository that change from run to run.
#
#   in:  build/results, where each run leaves its figures (keep() of lib.sh); results-notes.rst,
#        figures that were measured by hand
#   out: Documentation/misc-devices/hmm_ref/results.rst
#
# A section keeps its old text when its run has left nothing in this clone: a page that is made
# after one run does not lose the figures of the others.

set -euo pipefail
here=$(dirname "$0")
# shellcheck source=scripts/lib.sh
. "$here/lib.sh"

results=$ROOT/build/results
page=$ROOT/Documentation/misc-devices/hmm_ref/results.rst
# Instructions of the copy of a page in emulation: the floor less a floor that copies nothing.
COPY=540

heading() { printf '\n%s\n%s\n\n' "$1" "${1//?/$2}"; }

literal() { sed 's/^\(.\)/\t\1/'; }

# run_of NAME: the commit, day, kernel and machine of a run.
run_of() { printf 'Run: %s.\n\n' "$(head -n 1 "$results/$1")"; }

figures_of() { tail -n +2 "$results/$1"; }

# old SECTION: the text of the section on the page as it is.
old() {
	[[ ! -e $page ]] || awk -v section="$1" '
		$0 == ".. section: " section { mine = 1; next }
		/^\.\. section: / { mine = 0 }
		mine' "$page"
}

# section NAME HEADING COMMAND TEXT [FUNCTION]: the figures that COMMAND has left, below TEXT.
# FUNCTION of this script prints them, default plain.
section() {
	local name=$1 title=$2 command=$3 text=$4 print=${5:-plain} was

	printf '\n.. section: %s\n' "$name"
	if [[ -s $results/$name ]]; then
		heading "$title" =
		printf '%s\n\n' "$text" | fmt -w 80
		run_of "$name"
		"$print" "$name"
		return
	fi
	was=$(old "$name")
	if [[ $was == *'Run: '* ]]; then
		printf '%s\n' "$was"
		return
	fi
	heading "$title" =
	printf '%s\n\n' "$text" | fmt -w 80
	# shellcheck disable=SC2016 # backquotes of reStructuredText
	printf 'No figures yet: ``%s`` leaves them.\n' "$command"
}

plain() {
	printf '::\n\n'
	figures_of "$1" | literal
}

# table SIZE FIELD FORMAT: a row per operation and kind of page, a column per driver.
table() {
	awk -v size="$1" -v field="$2" -v format="$3" -F, '
		$5 == size && $4 == "populated" && $6 == 1 && $7 == 1 && $field != "" {
			row = sprintf("%-19s %s", $2, $3)
			if (!(row in seen))
				rows[++n] = row
			seen[row]
			value[row, $1] = sprintf(format, $field)
		}
		END {
			m = split("hmm_ref hmm_ref-old test_hmm floor system", columns, " ")
			printf "%-23s", "operation, pages"
			for (j = 1; j <= m; j++)
				printf " %11s", columns[j]
			print ""
			for (i = 1; i <= n; i++) {
				printf "%-23s", rows[i]
				for (j = 1; j <= m; j++)
					printf " %11s", value[rows[i], columns[j]]
				print ""
			}
		}' | sed 's/ *$//' | literal
}

# batches FIELD FORMAT: a row per size of the range, 4K pages.
batches() {
	awk -v field="$1" -v format="$2" -F, '
		$3 == "4k" && $4 == "populated" && $6 == 1 && $7 == 1 && $field != "" &&
		$1 ~ /^(hmm_ref|floor)$/ && $2 ~ /^(to_device|to_system|fault_seq)$/ {
			value[$5 + 0, $2, $1] = sprintf(format, $field)
			sizes[$5 + 0]
		}
		END {
			printf "%-6s %12s %9s %12s %9s %12s %9s\n", "", "to_device", "floor", "to_system",
				"floor", "fault_seq", "floor"
			m = split("to_device to_system fault_seq", op, " ")
			for (size = 4096; size <= 1073741824; size *= 2) {
				if (!(size in sizes))
					continue
				printf "%-6s", size < 1048576 ? size / 1024 "K" : size / 1048576 "M"
				for (i = 1; i <= m; i++)
					printf " %12s %9s", value[size, op[i], "hmm_ref"],
						value[size, op[i], "floor"]
				print ""
			}
		}' | sed 's/ *$//' | literal
}

without_copy() {
	awk -v copy="$COPY" -F, '
		$1 ~ /^(hmm_ref|floor)$/ && $2 ~ /^to_(device|system)$/ && $5 == 16777216 &&
		$4 == "populated" && $6 == 1 && $7 == 1 && $11 != "" { value[$1, $2, $3] = $11 - copy }
		END {
			printf "%-20s %9s %9s %9s\n", "", "4K", "THP", "4K / THP"
			m = split("hmm_ref floor", who, " ")
			k = split("to_device to_system", op, " ")
			for (i = 1; i <= m; i++)
				for (j = 1; j <= k; j++) {
					a = value[who[i], op[j], "4k"]
					b = value[who[i], op[j], "thp"]
					printf "%-20s %9.0f %9.0f %9s\n", who[i] " " op[j], a, b,
						(b > 0) ? sprintf("%.0f", a / b) : "-"
				}
		}' | literal
}

# shellcheck disable=SC2016 # backquotes of reStructuredText
print_insn() {
	printf 'Ranges of 16 MiB, one thread::\n\n'
	figures_of "$1" | table 16777216 11 %.0f
	printf '\nBy the size of the range, in 4K pages. 4K is one page, the others are batches::\n\n'
	figures_of "$1" | batches 11 %.0f
	printf '\nLess the copy, %s instructions for a page::\n\n' "$COPY"
	figures_of "$1" | without_copy
	if [[ -s $results/targets ]]; then
		printf '\nThe targets (``bench_targets``)::\n\n'
		figures_of targets | sed '/^$/d; s/ *$//' | literal
	fi
}

print_time() {
	printf 'Nanoseconds per page, 16 MiB, one thread::\n\n'
	figures_of "$1" | table 16777216 11 %.0f
	printf '\nBy the size of the range, in 4K pages::\n\n'
	figures_of "$1" | batches 11 %.0f
}

# shellcheck disable=SC2016 # backquotes of reStructuredText
write() {
	echo '.. SPDX-License-Identifier: GPL-2.0-only'
	echo '.. Written by scripts/results.sh: do not edit. Notes are in scripts/results-notes.rst.'
	printf '\n=======\nResults\n=======\n\n'
	cat <<-'END'
		The figures of this documentation that change: times, counts, seeds, commits.
		``scripts/results.sh`` writes this page from the files that each run leaves in
		``build/results``. Each section names the commit, the day, the kernel and the machine
		of its run; two sections may be of different commits.
	END
	section bench-insn "Instructions per page" "make bench-insn" \
		"Instructions of one CPU per page of 4 KiB, whatever the size of the folio (:doc:\`benchmarking\`)." \
		print_insn
	section bench "Time per page" "make bench" \
		"In emulation, only the ratios of one run have a meaning (:doc:\`benchmarking\`)." \
		print_time
	section test "make test" "make test" "The stages, and how long each takes."
	section test-all "make test-all" "make test-all" "The same for all kernels."
	section core-bugs "make core-bugs" "make core-bugs" "Reproducers of the bugs that \`\`patches/core\`\` fixes."
	section mm-tests "make mm-tests" "make mm-tests" "The kernel's own tests of mm/, with \`\`patches/core\`\` and without."
	section mutants "make mutants" "make mutants" "Wrong drivers and scripts that a test has found (:doc:\`regressions\`)."
	section model "make model" "make model" "States that each proof has visited (:doc:\`model\`)."
	section coverage "make coverage" "make coverage" "Lines and branches of the driver that the tests run (:doc:\`testing\`)."
	section fuzz "make fuzz" "make fuzz" "The last run of the fuzzer (:doc:\`fuzzing\`)."
	section soak "make soak" "make soak" "The last run of the soak test (:doc:\`testing\`)."
	printf '\n.. section: notes\n\n'
	cat "$here/results-notes.rst"
}

text=$(write)
printf '%s\n' "$text" | cat -s >"$page"
say "wrote ${page#"$PWD/"}"
