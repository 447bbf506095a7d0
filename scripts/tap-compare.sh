#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
#
# Compares the TAP of the same programs on two kernels.
#
#   in:  two files, each as tap.sh reads it on stdin: of the kernel without the patches ($1), and of
#        the one with them ($2)
#   out: on stdout a line per program, and one per test with an unexpected result; as the last
#        line "PASSED FAILED SKIPPED"
#
# A test that fails on both kernels says nothing about the patches: it is named, and counts as
# skipped. So does one that both skip. One that fails, is skipped or is missing only with the patches
# is a failure. tap.sh judges the tests of one kernel alone.

set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"

# "PROGRAM|NUMBER|OUTCOME|NAME" for each test. A program without TAP is one test, number 0, and so is
# a failing status without a failing test.
results() {
	awk '
		function result(number, outcome, name) {
			printf "%s|%d|%s|%s\n", program, number, outcome, name
			seen[number] = 1
			reported++
			failed += outcome == "fail"
		}
		function end(status,    number) {
			for (number = 1; number <= plan; number++)
				if (!(number in seen))
					result(number, "fail", "has not reported")
			if (status == 137)
				result(0, "fail", "does not end within its limit")
			else if (status != 0 && status != 4 && !failed)
				result(0, "fail", "status " status)
			else if (!reported)
				result(0, status == 4 ? "skip" : "pass", "as a whole")
			program = ""
		}
		{ sub(/\r$/, "") }
		/^@begin / {
			if (program != "")
				end("none")
			program = substr($0, 8)
			plan = failed = reported = 0
			split("", seen)
		}
		/^@end / { end($NF) }
		/^1\.\.[0-9]+/ { plan = substr($1, 4) + 0 }
		/^(not )?ok [0-9]+/ {
			outcome = $1 == "not" ? "fail" : /# *(SKIP|skip)/ ? "skip" : "pass"
			number = $1 == "not" ? $3 : $2
			name = $0
			sub(/^(not )?ok [0-9]+ *-? */, "", name)
			gsub(/\|/, "/", name)
			result(number, outcome, name)
		}
		END {
			if (program != "")
				end("none")
		}' "$1"
}

awk -F '|' '
	function end() {
		if (program == "")
			return
		printf "  %s  %s: %d passed, %d failed, %d skipped\n%s", f ? "FAIL" : "pass", \
			program, p, f, s, text
		passed += p
		failed += f
		skipped += s
	}
	function note(what) { text = text sprintf("        %s: %s %s\n", what, $2, $4) }
	side == "without" { before[$1 "|" $2] = $3; next }
	$1 != program {
		end()
		program = $1
		p = f = s = 0
		text = ""
	}
	{
		was = before[$1 "|" $2]
		delete before[$1 "|" $2]
	}
	$3 == "pass" { p++ }
	$3 == "fail" && was == "fail" { s++; note("fails without the patches, too") }
	$3 == "fail" && was != "fail" { f++; note("fails only with the patches") }
	$3 == "skip" && was == "pass" { f++; note("is skipped only with the patches") }
	$3 == "skip" && was != "pass" { s++ }
	END {
		end()
		for (key in before)
			if (before[key] == "pass") {
				split(key, part, "|")
				printf "  FAIL  %s: test %s is missing with the patches\n", \
					part[1], part[2]
				failed++
			}
		print passed + 0, failed + 0, skipped + 0
	}' side=without <(results "$1") side=with <(results "$2")
