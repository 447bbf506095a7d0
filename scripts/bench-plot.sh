#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
#
# Plots the results of the benchmark that the data allow.
#
#   in:  a folder ($1) with the CSV files that hmm_ref_bench has written
#   out: there, as PNG and SVG: throughput (by size), cost (per page, on top of the
#        floor's), latency (of CPU faults), threads (throughput by number of threads)

# shellcheck disable=SC2016 # the fields are awk's

set -euo pipefail
here=$(dirname "$0")
# shellcheck source=scripts/lib.sh
. "$here/lib.sh"

cd "$1"
data=$(mktemp -d)
trap 'rm -rf "$data"' EXIT
sources=(hmm_ref hmm_ref-old test_hmm floor system)
operations=(to_device to_system fault_seq fault_random dev_read)

# figures PROGRAM: rows of all runs, populated memory, without errors, through awk.
figures() {
	awk -F, 'FNR > 1 && $4 == "populated" && $11 != ""' [0-9].csv | awk -F, "$@"
}

# draw NAME WIDTH HEIGHT: gnuplot commands on stdin, once for each format.
draw() {
	local commands

	commands=$(cat)
	gnuplot <<<"set terminal pngcairo size $2,$3 noenhanced; set output '$1.png'
$commands"
	gnuplot <<<"set terminal svg size $2,$3 noenhanced background 'white'; set output '$1.svg'
$commands"
}

# lines X TITLE: a line for each source with data in its file NAME-SOURCE.
lines() {
	local name=$1 source list=''

	for source in "${sources[@]}"; do
		[[ ! -s $data/$name-$source ]] ||
			list+="${list:+, }'$data/$name-$source' with linespoints title '$source'"
	done
	[[ ! $list ]] || echo "plot $list"
}

# series NAME COLUMN FILTER: data files of column against GB/s, one per source.
series() {
	local source

	for source in "${sources[@]}"; do
		figures -v source="$source" -v column="$2" \
			"\$1 == source && \$17 != \"\" && $3 { print \$column, \$17 }" |
			sort -n -u -k 1,1 >"$data/$1-$source"
	done
}

by_size() {
	local op kind plots=''

	for kind in 4k thp; do
		for op in to_device to_system fault_random; do
			series "$op-$kind" 5 "\$2 == \"$op\" && \$3 == \"$kind\" && \$6 * \$7 == 1"
			plots+="set title '$op, $kind'
$(lines "$op-$kind")
"
		done
	done
	[[ $plots == *plot* ]] || return 0
	draw throughput 1500 800 <<<"set multiplot layout 2,3 title 'throughput by size'
set logscale x 2; set format x '%.0b %B'; set xlabel 'size'; set ylabel 'GB/s'
set yrange [0:]; set key top left; set grid
$plots
unset multiplot"
}

by_threads() {
	local op plots=''

	for op in to_device to_system fault_random dev_read; do
		series "$op" 6 "\$2 == \"$op\" && \$3 == \"4k\" && \$5 == 16777216 && \$7 == 1"
		plots+="set title '$op, 4k'
$(lines "$op")
"
	done
	[[ $plots == *plot* ]] || return 0
	draw threads 1200 800 <<<"set multiplot layout 2,2 title 'throughput by threads, 16M each'
set xlabel 'threads'; set ylabel 'GB/s'; set xtics 1; set yrange [0:]; set key top left; set grid
$plots
unset multiplot"
}

# Bars of the floor's cost, and on top the additional cost of each source.
by_cost() {
	local size unit

	size=$(figures '$1 == "floor" { print $5 }' | sort -n | uniq -c | sort -n | awk 'END { print $2 }')
	unit=$(figures 'NR == 1 { print $8 }')
	figures -v size="$size" -v operations="${operations[*]}" '
		$5 == size && $6 * $7 == 1 { value[$1, $2, $3] = $11 }
		END {
			n = split(operations, op, " ")
			split("4k thp", kind, " ")
			split("hmm_ref test_hmm", source, " ")
			for (i = 1; i <= n; i++)
				for (k = 1; k <= 2; k++)
					for (s = 1; s <= 2; s++) {
						all = value[source[s], op[i], kind[k]]
						floor = value["floor", op[i], kind[k]]
						if (all == "")
							continue
						if (floor > all)
							floor = all
						printf "\"%s %s %s\" %s %s\n", op[i], kind[k],
							source[s], floor + 0, all - floor
					}
		}' >"$data/cost"
	[[ -s $data/cost ]] || return 0
	draw cost 1200 700 <<<"set title 'cost of a page of 4 KiB, on top of the floor'
set style data histogram; set style histogram rowstacked; set style fill solid 0.8 border -1
set boxwidth 0.7; set xtics rotate by -40; set ylabel '$unit per page'; set yrange [0:]
set grid ytics; set bmargin 12; set rmargin 16
plot '$data/cost' using 2:xtic(1) title 'floor' lc rgb '#999999', \\
     '' using 3 title 'more than the floor' lc rgb '#4477aa'"
}

# Of the largest size, the share of each bucket of latencies.
by_latency() {
	local source list='' unit

	unit=$(figures 'NR == 1 { print $8 }')
	for source in "${sources[@]}"; do
		awk -F, -v source="$source" '
			FNR > 1 && $1 == source && $2 == "fault_random" && $3 == "4k" && $5 * $6 == 1 {
				if ($4 > size) { size = $4; total = 0; n = 0 }
				if ($4 == size) { low[++n] = $7; high[n] = $8; count[n] = $9; total += $9 }
			}
			END {
				for (i = 1; i <= n; i++)
					printf "%d 0\n%d %f\n%d 0\n", low[i], low[i],
						100 * count[i] / total, high[i]
			}' [0-9].hist.csv >"$data/latency-$source"
		[[ ! -s $data/latency-$source ]] ||
			list+="${list:+, }'$data/latency-$source' with steps lw 2 title '$source'"
	done
	[[ $list ]] || return 0
	draw latency 1000 600 <<<"set title 'latency of CPU faults, fault_random, 4k'
set logscale x; set xlabel '$unit'; set key top center; set ylabel 'percent of touches'; set yrange [0:]; set grid
plot $list"
}

by_size
by_threads
by_cost
by_latency
