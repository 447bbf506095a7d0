#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
#
# Tests tripwire.sh with logs that are whole and clean, that have a splat, or that are not whole.
# No VM, a second or two.
#
#   in:  nothing
#   out: TAP, as tap.sh reads it; exit 1 when a test failed

set -euo pipefail
here=$(dirname "$0")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
number=0 status=0

# A line per splat, as kernels print them.
SPLATS='WARNING: CPU: 0 PID: 1 at mm/memremap.c:1 memremap_pages+0x1/0x2
BUG: unable to handle page fault for address: 0000000000000008
kernel BUG at mm/huge_memory.c:1!
Oops: 0000 [#1] SMP
Kernel panic - not syncing: Fatal exception
general protection fault, probably for non-canonical address
BUG: KASAN: slab-use-after-free in hmm_ref_x+0x1/0x2
UBSAN: array-index-out-of-bounds in x.c:1:2
BUG: KCSAN: data-race in a / b
refcount_t: underflow; use-after-free.
list_add corruption. next->prev should be prev
INFO: task x:12 blocked for more than 60 seconds.
INFO: rcu_preempt self-detected stall on CPU
WARNING: possible circular locking dependency detected
INFO: lockdep is turned off.
turning off the locking correctness validator.
BUG: Bad page state in process x  pfn:12
page dumped because: VM_BUG_ON_PAGE(1)
BUG: Bad rss-counter state mm:1 type:MM_ANONPAGES val:-1
BUG: non-zero pgtables_bytes on freeing mm: 4096
mm/pgtable-generic.c:54: bad pmd 0000000012345678(8000000012345678)
mm/pgtable-generic.c:47: bad pud 0000000012345678(8000000012345678)
mm/pgtable-generic.c:40: bad p4d 0000000012345678(8000000012345678)
mm/pgtable-generic.c:33: bad pgd 0000000012345678(8000000012345678)
get_swap_device: Bad swap file entry 7fffffffffffffff
get_swap_device: Bad swap offset entry 3ffffffffffff
__swap_entry_free: Unused swap offset entry 1
rcu: INFO: rcu_sched detected stalls on CPUs/tasks:
watchdog: BUG: soft lockup - CPU#0 stuck for 26s!
unreferenced object 0xffff888000000000 (size 64):
kmemleak: 2 new suspected memory leaks (see /sys/kernel/debug/kmemleak)
kmemleak: Kernel memory leak detector disabled
kmemleak: Memory pool empty, consider increasing CONFIG_DEBUG_KMEMLEAK_MEM_POOL_SIZE
kmemleak: Cannot allocate a kmemleak_object structure
sysfs: cannot create duplicate filename '/devices/x'
debugfs: x already exists in hmm_ref
hmm_ref hmm_ref.0: DMA fault at 0x0000000001234000
DMAR: [DMA Write NO_PASID] Request device [01:00.0] fault addr 0x1234000
DMA-API: debugging out of memory - disabling
kobject (0): tried to init an initialized object, something is seriously wrong.
kobject_add_internal failed for x with -EEXIST, do not register it twice
x invoked oom-killer: gfp_mask=0x0, order=0, oom_score_adj=0
Out of memory: Killed process 12 (x) total-vm:1kB
Memory cgroup out of memory: Killed process 12 (x) total-vm:1kB'

# What looks like one, and is none.
HARMLESS='kobject: kobject_add_internal failed for misc (error: -12 parent: hmm_ref.0)
kmemleak: Cannot allocate a scan area, scanning the full object
kmemleak: Kernel memory leak detector initialized (mem pool available: 15000)
kmemleak: Automatic memory scanning thread started
FAULT_INJECTION: forcing a failure.
DMA-API: preallocated 65536 debug entries
DMA-API: cacheline tracking ENOMEM, dma-debug disabled
debugfs: loaded
Memory failure: 0x1234: recovery action for free page: Recovered
lockdep: 1234 classes
swap: added 262140k swap on /dev/ram0'

FIRST='[    0.000000] Linux version 7.3.4 (gcc) #1 SMP'
LAST='[   12.345678] hmm_ref guest: the end'

result() {
	number=$((number + 1))
	if (($1)); then
		status=1
		echo "not ok $number $2"
	else
		echo "ok $number $2"
	fi
}

# expect pass|fail WHAT ARGUMENTS...: tripwire.sh with these arguments
expect() {
	local bad=0

	timeout 20 bash "$here/tripwire.sh" "${@:3}" 2>"$work/said" || bad=$?
	# The reason is printed, and a status that is not 1 is no verdict.
	case $1 in
	pass) result "$bad" "$2" ;;
	fail) result $((bad != 1 || $(wc -l <"$work/said") == 0)) "$2" ;;
	esac
}

# with LINE...: the path of a whole log with these lines
with() {
	printf '%s\n' "$FIRST" "$@" "$LAST" >"$work/log"
	echo "$work/log"
}

mapfile -t splats <<<"$SPLATS"
mapfile -t harmless <<<"$HARMLESS"
oom=("${splats[@]: -2}")
expected='[    1.000000] hmm_ref test: OOM kills are expected'
over='[    2.000000] hmm_ref test: no more OOM kills'
dma_expected='[    1.000000] hmm_ref test: a DMA fault of 0000:00:03.0 at 0xffff000 is expected'
dma_over='[    2.000000] hmm_ref test: no more DMA faults'
dma=('[    1.500000] DMAR: DRHD: handling fault status reg 2'
	'[    1.500000] DMAR: [DMA Write NO_PASID] Request device [0000:00:03.0] fault addr 0xffff000 [fault reason 0x05] PTE Write access is not set')
frames=('[    1.500000]  ? page_table_check_set+0x168/0x580'
	'[    1.500000][   T66]  __page_table_check_ptes_set+0x16a/0x3b0')

echo "@begin tripwire-selftest"
echo "1..$((${#splats[@]} + 27))"
for splat in "${splats[@]}"; do
	expect fail "$splat" "$(with "[    1.000000] $splat")"
done
expect pass "a log without a splat" "$(with "${harmless[@]}")"
expect fail "a splat in the last line but one" "$(with "${harmless[@]}" 'BUG: x')"

# Logs that are not whole.
expect fail "no such log" "$work/none"
expect fail "a folder" "$work"
: >"$work/log"
expect fail "an empty log" "$work/log"
printf '%s\n' "$FIRST" hello >"$work/log"
expect fail "a log without its end" "$work/log"
expect pass "the same, of a guest that runs" --running "$work/log"
printf '%s\n' hello "$LAST" >"$work/log"
expect fail "a log without its beginning" "$work/log"
printf '%s\n' "$FIRST" 'BUG: x' >"$work/log"
expect fail "a splat of a guest that runs" --running "$work/log"

# OOM kills that a test asks for.
expect pass "OOM kills that are announced" "$(with "$expected" "${oom[@]}" "$over")"
expect fail "OOM kills before they are announced" "$(with "${oom[@]}" "$expected" "$over")"
expect fail "OOM kills after the end of that" "$(with "$expected" "$over" "${oom[@]}")"
expect fail "another splat among OOM kills" "$(with "$expected" 'BUG: x' "$over")"
expect pass "a name of a function in their call trace" "$(with "$expected" "${oom[@]}" "${frames[@]}" "$over")"
expect fail "a splat that names a function" "$(with "$expected" "${frames[@]}" \
	'[    1.500000] WARNING: mm/page_table_check.c:100 at page_table_check_set+0x168/0x580' "$over")"

# A DMA fault that a test asks for.
expect pass "a DMA fault that is announced" "$(with "$dma_expected" "${dma[@]}" "$dma_over")"
expect fail "a DMA fault before it is announced" "$(with "${dma[@]}" "$dma_expected" "${dma[@]}" "$dma_over")"
expect fail "a DMA fault after the end of that" "$(with "$dma_expected" "${dma[@]}" "$dma_over" "${dma[@]}")"
expect fail "a DMA fault that is announced and does not come" "$(with "$dma_expected" "$dma_over")"
expect fail "a DMA fault that comes twice" "$(with "$dma_expected" "${dma[@]}" "${dma[@]}" "$dma_over")"
expect fail "a DMA fault at another address" "$(with "$dma_expected" "${dma[@]/0xffff000/0xfffe000}" "$dma_over")"
expect fail "a DMA fault of another device" "$(with "$dma_expected" "${dma[@]/03.0/04.0}" "$dma_over")"
expect fail "another splat next to a DMA fault" "$(with "$dma_expected" "${dma[@]}" 'BUG: x' "$dma_over")"
expect fail "a DMA fault that is expected to the end" "$(with "$dma_expected" "${dma[@]}")"
expect pass "two DMA faults that are announced" "$(with "$dma_expected" "${dma[@]}" "$dma_over" \
	"${dma_expected/0xffff000/0xfffe000}" "${dma[@]/0xffff000/0xfffe000}" "$dma_over")"
expect fail "the second of two that does not come" "$(with "$dma_expected" "${dma[@]}" "$dma_over" \
	"$dma_expected" "$dma_over")"
printf '%s\n' "$FIRST" "$dma_expected" >"$work/log"
expect pass "a DMA fault that a guest is about to have" --running "$work/log"
echo "@end tripwire-selftest $status"
exit $status
