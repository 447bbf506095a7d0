#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
#
# Measures the driver on the running machine and packs the figures into one file, to send.
#
#   bench-here.sh [FILE.tar.gz]
#
#   in:  the module hmm_ref, loaded; HMM_REF_BENCH, the program, if neither this folder nor the
#        repository's build/ has it and it cannot be compiled; BENCH_OPTIONS, more options of
#        hmm_ref_bench, for every run
#   out: the tables on stdout; in the archive the CSV and JSON files of each run, its table,
#        and "machine": CPUs, memory, nodes, kernel, parameters. No names of hosts or users.
#        Exit 4 if the module is not loaded, 1 if a run fails

set -e
here=$(cd "$(dirname "$0")" && pwd)
root=$here/../../../..
release=$(uname -r)
out=${1:-hmm_ref-bench-$release-$(date -u +%Y%m%d-%H%M).tar.gz}
case $out in
/*) ;;
*) out=$PWD/$out ;;
esac

refuse() {
	echo "bench-here.sh: $*" >&2
	exit 4
}

[ "$(id -u)" = 0 ] || refuse "must be root, to open the devices and to load modules"
[ -d /sys/module/hmm_ref ] || refuse "the module hmm_ref is not loaded: modprobe hmm_ref, or" \
	"make modules and insmod drivers/misc/hmm_ref/hmm_ref.ko"
[ -c /dev/hmm_ref0 ] || refuse "hmm_ref is loaded, and there is no /dev/hmm_ref0: see dmesg"

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir "$work/results"

# The program: as installed, as make kernel has built it, or compiled now.
bench=${HMM_REF_BENCH:-}
for file in "$here/hmm_ref_bench" "$root"/build/*/selftests/hmm_ref_bench; do
	[ -n "$bench" ] || [ ! -x "$file" ] || bench=$file
done
if [ -z "$bench" ]; then
	bench=$work/hmm_ref_bench
	set -- "$here/hmm_ref_bench.c"
	for file in "$here"/bench_*.c; do
		[ ! -e "$file" ] || set -- "$@" "$file"
	done
	cc -O2 -D_GNU_SOURCE -iquote "$root/include/uapi" -o "$bench" "$@" -lpthread ||
		refuse "cannot compile hmm_ref_bench: set HMM_REF_BENCH to its path"
fi

# The benchmark loads a module for each driver that it compares. Where modprobe does not find
# them, an open file keeps the one that is loaded, and that one is measured alone.
sources=
if ! modprobe -n hmm_ref >/dev/null 2>&1; then
	echo "bench-here.sh: modprobe does not find hmm_ref: no figures of other drivers" >&2
	sources="-d hmm_ref,system"
	exec 7</dev/hmm_ref0
fi

machine() {
	uname -srvm
	grep -q '^flags.* hypervisor' /proc/cpuinfo && echo "a virtual machine"
	lscpu 2>/dev/null || grep -m1 'model name' /proc/cpuinfo
	grep -E '^(MemTotal|MemAvailable|Hugepagesize)' /proc/meminfo
	for file in /sys/kernel/mm/transparent_hugepage/enabled \
		/sys/devices/system/node/online /proc/loadavg \
		/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor \
		/sys/devices/system/cpu/smt/active /sys/module/hmm_ref/parameters/*; do
		[ ! -r "$file" ] || echo "$file: $(cat "$file")"
	done
}

# 1, 2, 4 ... threads, as many as there are CPUs and at most 16.
threads() {
	n=1 list=1
	while n=$((n * 2)) && [ $n -le "$(nproc)" ] && [ $n -le 16 ]; do
		list=$list,$n
	done
	echo $list
}

# run NAME OPTIONS...
run() {
	name=$1
	shift
	# shellcheck disable=SC2086 # words
	"$bench" $sources -r 20 -T 2 -w "$work/results/$name" "$@" ${BENCH_OPTIONS:-} \
		</dev/null >"$work/results/$name.txt" || { cat "$work/results/$name.txt"; exit 1; }
	cat "$work/results/$name.txt"
}

machine >"$work/results/machine"
cat "$work/results/machine"
run sizes -o to_device,to_system,fault_seq,fault_random,dev_read,memcpy,move_pages \
	-s 4K,64K,1M,2M,16M,64M
run threads -o to_device,to_system,fault_random,dev_read -s 16M -t "$(threads)"
run others -o to_device_map,dev_write,dev_read_cold,snapshot,exclusive,atomic -s 16M
tar -C "$work/results" -czf "$out" .
echo "the figures are in $out"
