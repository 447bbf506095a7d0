#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
#
# Boots the kernel that kernel.sh made, has the guest do one job and reports how it ended.
#
#   in:  the job ($1, a file in guest/), further kernel parameters ($2...); $PRODUCTS;
#        SMP, MEM, NUMA (nodes), COHERENT (regions of 256 MiB), GPUS (devices on PCI, of 256 MiB,
#        instead of simulated ones, and one with DMA), LOG (name of the logs, default the job:
#        two guests of one kernel need two), ACCEL (kvm, tcg), ICOUNT (1: one CPU, and its clock
#        counts instructions), TIMEOUT (seconds until the guest is killed)
#   out: the output of the job on stdout, while it runs; the logs in $PRODUCTS.
#        Exit status: 0 the job succeeded, 1 it failed, 10 timeout, 11 panic, 12 the
#        guest stopped without its closing line, 13 the tripwire
#
# The console (ttyS0) and the output of the job (ttyS1) are two serial ports, so kernel
# messages do not tear the output. The result is the closing line with this run's
# nonce, and a console log without a splat: a guest that crashed or hangs has neither.

set -euo pipefail
here=$(dirname "$0")
# shellcheck source=scripts/lib.sh
. "$here/lib.sh"

SMP=${SMP:-2} MEM=${MEM:-4G} NUMA=${NUMA:-1} COHERENT=${COHERENT:-0} GPUS=${GPUS:-0}
ACCEL=${ACCEL:-} ICOUNT=${ICOUNT:-0} TIMEOUT=${TIMEOUT:-600}
[[ $ICOUNT == 0 ]] || SMP=1 ACCEL=icount

job=$1
shift
log=${LOG:-$job}
console=$PRODUCTS/$log.console.log
nonce=$(od -An -N8 -tx8 /dev/urandom | tr -d ' ')
closing='' qmp='' qmp_reader=''

# --- the machine ----------------------------------------------------------------

choose_accel() {
	# A /dev/kvm on a CPU without virtualisation opens, but runs no guest.
	if [[ ! $ACCEL ]]; then
		ACCEL=tcg
		! grep -qwE 'vmx|svm' /proc/cpuinfo || [[ ! -w /dev/kvm ]] || ACCEL=kvm
	fi
	# With five levels of page tables some boots of KASAN stop at an interrupt that comes
	# while the kernel patches pgtable_l5_enabled().
	case $ACCEL in
	kvm) QEMU+=(-accel kvm -cpu host) ;;
	tcg) QEMU+=(-accel "tcg,thread=multi" -cpu "max,la57=off") ;;
	# An instruction is 1 ns of the guest's time. Without these features of strings the
	# kernel copies by words, and each word counts.
	icount) QEMU+=(-accel "tcg,thread=single" -icount "shift=0,sleep=off"
		-cpu "max,la57=off,-erms,-fsrm") ;;
	*) die "ACCEL=$ACCEL: must be kvm or tcg" ;;
	esac
}

megabytes() {
	case $1 in
	*[Gg]) echo $((${1%?} * 1024)) ;;
	*[Mm]) echo "${1%?}" ;;
	*) echo "$1" ;;
	esac
}

# A socket per CPU: a cache that two nodes share makes the kernel complain.
add_nodes() {
	local node cpu cpus

	((NUMA > 1)) || return 0
	for ((node = 0; node < NUMA; node++)); do
		cpus=''
		for ((cpu = node; cpu < SMP; cpu += NUMA)); do
			cpus+=,cpus=$cpu
		done
		QEMU+=(-object "memory-backend-ram,id=m$node,size=$((mem / NUMA))M"
			-numa "node,nodeid=$node,memdev=m$node$cpus")
	done
}

# Regions that the kernel leaves alone, for the driver to use as coherent memory. The
# machine has its first 3 GiB below 4 GiB and the rest from there.
add_regions() {
	local region start coherent=''

	((COHERENT * 256 < mem - 3072 || COHERENT == 0)) ||
		die "COHERENT=$COHERENT regions need MEM of more than $((COHERENT * 256 + 3072))M"
	for ((region = 0; region < COHERENT; region++)); do
		start=$(((4 << 30) + (region << 28)))
		APPEND+=("memmap=256M\$$start")
		coherent+=${coherent:+,}$start
	done
	[[ ! $coherent ]] || APPEND+=("coherent=$coherent")
}

# Without PCI hotplug the ACPI tables are small: the debug kernel boots 7 s sooner.
add_gpus() {
	local gpu

	if ((GPUS == 0)); then
		QEMU+=(-global PIIX4_PM.acpi-root-pci-hotplug=off
			-global PIIX4_PM.acpi-pci-hotplug-with-bridge-support=off)
		return
	fi
	# Behind an IOMMU, which forgets an address as soon as it is unmapped.
	machine=q35
	QEMU+=(-device intel-iommu -device edu)
	for ((gpu = 0; gpu < GPUS; gpu++)); do
		QEMU+=(-object "memory-backend-ram,id=vram$gpu,size=256M,share=on"
			-device "pcie-root-port,id=port$gpu,chassis=$((gpu + 1)),slot=$((gpu + 1))"
			-device "ivshmem-plain,id=gpu$gpu,memdev=vram$gpu,bus=port$gpu")
	done
	APPEND+=("gpus=$GPUS" intel_iommu=on iommu.strict=1)
	# For the job to plug and unplug them.
	qmp=$PRODUCTS/$log.qmp
	rm -f "$qmp".{in,out}
	mkfifo "$qmp".{in,out}
	# Both ends, so that no open waits for QEMU.
	exec {qmp_in}<>"$qmp.in" {qmp_out}<>"$qmp.out"
	QEMU+=(-chardev "pipe,id=qmp,path=$qmp" -mon "chardev=qmp,mode=control")
}

# qmp COMMAND: QEMU's answers are in the log.
qmp() {
	((GPUS)) || return 0
	if [[ ! $qmp_reader ]]; then
		cat <&"$qmp_out" >"$qmp.log" &
		qmp_reader=$!
		echo '{"execute":"qmp_capabilities"}' >&"$qmp_in"
	fi
	echo "$1" >&"$qmp_in"
}

describe_machine() {
	mem=$(megabytes "$MEM")
	mem=$((mem / NUMA * NUMA))
	QEMU=(qemu-system-x86_64 -nodefaults -no-user-config -display none -no-reboot
		-smp "$SMP,sockets=$SMP" -m "${mem}M" -kernel "$PRODUCTS/bzImage" -initrd "$PRODUCTS/$log.cpio")
	APPEND=(console=ttyS0 panic=-1 "job=$job" "nonce=$nonce" "$@")
	choose_accel
	add_nodes
	add_regions
	machine=pc
	add_gpus
	QEMU+=(-machine "$machine")
}

# --- one run --------------------------------------------------------------------

# Passes the job's output on, and reads the marked lines with the empty line before
# them.
relay() {
	local line empty=''

	while IFS= read -r line || [[ $line ]]; do
		case $line in
		"$nonce "*) empty='' ;;
		*) printf '%s' "$empty" && empty='' ;;
		esac
		case $line in
		"$nonce booted") say "booted in $SECONDS s" ;;
		"$nonce exit "*) closing=${line##* } ;;
		"$nonce qmp "*) qmp "${line#"$nonce qmp "}" ;;
		"$nonce "*) printf '@%s\n' "${line#"$nonce "}" ;;
		'') empty=$'\n' ;;
		*) printf '%s\n' "$line" ;;
		esac
	done
}

run() {
	local pipe qemu

	# The console log is complete with ignore_loglevel. After an oops nothing can be
	# trusted: stop, with the splat printed. On a busy host the first ticks of the timer may
	# come too late for the check of the interrupt controller, which then panics.
	APPEND+=(oops=panic ignore_loglevel no_timer_check)
	pipe=$(mktemp -u "$PRODUCTS/pipe.XXXXXX")
	mkfifo "$pipe"
	say "booting $(cat "$PRODUCTS/kernel.release") $FLAVOUR: $SMP CPUs, $MEM, $ACCEL"
	SECONDS=0
	timeout --foreground -k 5 "$TIMEOUT" "${QEMU[@]}" -serial "file:$console" \
		-serial stdio -append "${APPEND[*]}" >"$pipe" </dev/null &
	qemu=$!
	# shellcheck disable=SC2064 # this run's process and pipe
	trap "rm -f '$pipe'; kill $qemu 2>/dev/null || true" EXIT
	trap 'exit 130' INT TERM HUP
	relay <"$pipe"
	qemu_status=0
	wait "$qemu" || qemu_status=$?
	[[ ! $qmp_reader ]] || kill "$qmp_reader" 2>/dev/null || true
	rm -f "$pipe"
	[[ ! $qmp ]] || rm -f "$qmp".{in,out}
	trap - EXIT
}

verdict() {
	local splat=0

	"$here/tripwire.sh" "$console" || splat=1
	if ((qemu_status == 124 || qemu_status == 137)); then
		say "FAILED: timeout: the guest was still running after $TIMEOUT s ($console)"
		return 10
	elif grep -q 'Kernel panic' "$console"; then
		say "FAILED: the guest's kernel panicked ($console)"
		return 11
	elif [[ ! $closing ]] || ((qemu_status)); then
		say "FAILED: the guest stopped without its closing line, qemu status $qemu_status ($console)"
		return 12
	elif ((splat)); then
		say "FAILED: the kernel complained, see above"
		return 13
	elif ((closing)); then
		say "FAILED: the job '$job' ended with status $closing"
		return 1
	fi
}

interactive() {
	say "booting $(cat "$PRODUCTS/kernel.release") $FLAVOUR: $SMP CPUs, $MEM, $ACCEL"
	"${QEMU[@]}" -serial mon:stdio -append "${APPEND[*]} quiet"
}

[[ -e $PRODUCTS/bzImage ]] || die "there is no kernel in $PRODUCTS: make kernel"
describe_machine "$@"
"$here/initramfs.sh" "$PRODUCTS/$log.cpio"
if [[ $job == shell ]]; then
	interactive
else
	run
	verdict || exit $?
fi
