#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
#
# Runs the benchmark in the VM: hmm_ref, test_hmm, the floor, and the system without a device.
#
#   in:  $1 "insn": on one CPU whose clock counts instructions; or "lockstat", on the kernel
#        of that flavour: two threads, then two processes; BENCH_SIZES (of a worker's
#        memory), BENCH_OPTIONS (more options of hmm_ref_bench, for every run);
#        $PRODUCTS, as kernel.sh left it; the input of vm.sh; bench_targets
#   out: tables on stdout; CSV, JSON and plots in build/bench or build/bench-insn; with
#        "insn" the targets and the ratios, with "lockstat" the contended locks. Exit
#        status 0 also when targets are missed: this is no test.

set -euo pipefail
here=$(dirname "$0")
# shellcheck source=scripts/lib.sh
. "$here/lib.sh"

what=${1:-}
out=$ROOT/build/bench${what:+-$what}
targets=$ROOT/tools/testing/selftests/hmm_ref/bench_targets

# The runs, a line of options each; the targets are compared with the last one. In emulation
# times are only accurate to some percent.
runs() {
	local some='to_device,to_system,fault_seq,fault_random,dev_read,memcpy,move_pages'
	local quick='-r 20 -c 5 -T 1'

	if [[ $what == insn ]]; then
		[[ ${BENCH_SIZES:-} ]] || echo "-i -d hmm_ref,floor -o to_device,to_system,fault_seq" \
			"-k 4k -s 4K,64K,2M -r 8 ${BENCH_OPTIONS:-}"
		echo "-i -s ${BENCH_SIZES:-16M} -r 8 ${BENCH_OPTIONS:-}"
		return
	fi
	if [[ $what == lockstat ]]; then
		some=to_device_map,to_system,fault_seq,fault_random,dev_read,dev_write,exclusive
		echo "-d hmm_ref -o $some -s ${BENCH_SIZES:-16M} -T 3 -t 2 ${BENCH_OPTIONS:-}"
		echo "-d hmm_ref -o $some -s ${BENCH_SIZES:-16M} -T 3 -p 2 ${BENCH_OPTIONS:-}"
		return
	fi
	echo "$quick -o $some -s ${BENCH_SIZES:-4K,64K,1M,2M,16M,64M} ${BENCH_OPTIONS:-}"
	echo "$quick -o to_device,to_system,fault_random,dev_read -s 16M -t 1,2 ${BENCH_OPTIONS:-}"
	echo "$quick -o dev_write,dev_read_cold,snapshot,exclusive,atomic,evict -s 16M ${BENCH_OPTIONS:-}"
}

# Extracts the archive of results from the output of the guest; passes all else on.
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

# The contended locks, the most contended first, and a mark for those of the driver.
contended() {
	local ours run

	ours=$(sed -nE 's/.*(mutex_init|spin_lock_init)\((&[^)]*)\).*/\2/p' \
		"$ROOT"/drivers/misc/hmm_ref/*.c)
	for run in "$out"/[0-9].lock_stat; do
		printf '\n%9s %12s %12s  %s\n' waits 'in all, us' taken "in run $(basename "$run" .lock_stat)"
		awk -v ours="$ours" '
			BEGIN {
				n = split(ours, names, "\n")
				for (i = 1; i <= n; i++)
					is_ours[names[i]] = 1
			}
			match($0, /: +[0-9]+ +[0-9]+ +[0-9.]+ /) {
				name = substr($0, 1, RSTART - 1)
				sub(/^ +/, "", name)
				split(substr($0, RSTART + 1), v, " ")
				is_driver = name in is_ours
				if (v[2] > 0 || is_driver)
					printf "%9d %12.0f %12d  %s%s\n", v[2], v[5], v[8], name,
						is_driver ? " (the driver)" : ""
			}' "$run" | sort -rn | awk 'NR <= 12 || /the driver/'
	done
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
[[ $what != insn ]] || compare | tee "$out/targets" | keep targets
cat "$out"/[0-9].csv | keep "bench${what:+-$what}" >/dev/null
[[ $what != lockstat ]] || contended | tee "$out/contended"
"$here/bench-plot.sh" "$out"
say "figures and plots are in ${out#"$PWD/"}"
