#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
#
# Runs the benchmark in the VM: hmm_ref, test_hmm, the floor, and the system itself.
#
#   in:  $1 "insn": on one CPU whose clock counts instructions; BENCH_SIZES (of a worker's
#        memory), BENCH_OPTIONS (more options of hmm_ref_bench, for every run);
#        $PRODUCTS, as kernel.sh left it; what vm.sh reads; bench_targets
#   out: tables on stdout; CSV, JSON and plots in build/bench or build/bench-insn; with
#        "insn" the targets and what they are missed by. Exit status 0 also when targets
#        are missed: this is no test.

set -euo pipefail
here=$(dirname "$0")
# shellcheck source=scripts/lib.sh
. "$here/lib.sh"

what=${1:-}
out=$ROOT/build/bench${what:+-$what}
targets=$ROOT/tools/testing/selftests/hmm_ref/bench_targets

# The runs, a line of options each. In emulation time is only good to some percent.
runs() {
	local some='to_device,to_system,fault_seq,fault_random,dev_read,memcpy,move_pages'
	local quick='-r 20 -c 5 -T 1'

	if [[ $what == insn ]]; then
		echo "-i -s ${BENCH_SIZES:-16M} -r 8 ${BENCH_OPTIONS:-}"
		return
	fi
	echo "$quick -o $some -s ${BENCH_SIZES:-4K,64K,1M,2M,16M,64M} ${BENCH_OPTIONS:-}"
	echo "$quick -o to_device,to_system,fault_random,dev_read -s 16M -t 1,2 ${BENCH_OPTIONS:-}"
	echo "$quick -o dev_write,dev_read_cold,snapshot,exclusive,atomic,evict -s 16M ${BENCH_OPTIONS:-}"
}

# The archive of results out of what the guest prints; the rest goes on.
run() {
	local line archive=''

	"$here/vm.sh" bench | while IFS= read -r line; do
		case $archive$line in
		'@begin results') archive=1 ;;
		'1@end results '*) archive='' ;;
		1*) printf '%s\n' "$line" >>"$out/results.base64" ;;
		*) printf '%s\n' "$line" ;;
		esac
	done
}

# Value and limit of each target, from the runs' CSV.
compare() {
	awk -v targets="$targets" -F, '
		FNR > 1 && $4 == "populated" && $6 == 1 && $7 == 1 && $11 != "" {
			value[$1 "/" $2 "/" $3] = $11
		}
		END {
			format = "%-26s %7s   %-25s %7s %6s %6s  %s\n"
			printf "\n" format, "figure", "insn", "reference", "insn", "ratio", "limit", ""
			while ((getline line <targets) > 0) {
				if (line ~ /^#/ || split(line, t, /[ \t]+/) < 3)
					continue
				if (!(t[1] in value) || !(t[3] in value)) {
					printf format, t[1], "", t[3], "", "", t[2], "not measured"
					continue
				}
				ratio = value[t[1]] / value[t[3]]
				verdict = ratio <= t[2] + 0 ? "met" : "MISSED"
				count[verdict]++
				printf format, t[1], sprintf("%.1f", value[t[1]]),
					t[3], sprintf("%.1f", value[t[3]]),
					sprintf("%.3f", ratio), t[2], verdict
			}
			printf "%d targets met, %d missed\n", count["met"], count["MISSED"]
		}' "$out"/[0-9].csv
}

"$here/packages.sh" bench
rm -rf "$out"
mkdir -p "$out"
runs >"$PRODUCTS/selftests/bench_runs"
export NUMA=${NUMA:-2} TIMEOUT=${TIMEOUT:-3600}
[[ $what != insn ]] || export ICOUNT=1
run
[[ -s $out/results.base64 ]] || die "the guest has printed no results"
base64 -d "$out/results.base64" | tar -C "$out" -xz
rm "$out/results.base64"
[[ $what != insn ]] || compare | tee "$out/targets"
"$here/bench-plot.sh" "$out"
say "figures and plots are in ${out#"$PWD/"}"
