#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
#
# Looks for every message by which a kernel reports a problem, or the end of its own checks.
#
#   in:  the log of a console ($1); "--running" before it: the guest is still writing the log
#   out: exit 0 when nothing is wrong; 1 with the reason, and with the first splat, on stderr
#
# A log without its first line, or without the line that guest/init writes last, is not the
# log of a whole run, and whatever it leaves out may be a splat: that is a failure, too.
#
# A test that makes the OOM killer run on purpose says so in /dev/kmsg, before and after:
#
#   hmm_ref test: OOM kills are expected
#   hmm_ref test: no more OOM kills
#
# and one that has a device use an address which is not mapped:
#
#   hmm_ref test: a DMA fault of 0000:00:03.0 at 0xffff000 is expected
#   hmm_ref test: no more DMA faults
#
# That fault has to be reported in between, once.

set -euo pipefail

FIRST='Linux version '
LAST='hmm_ref guest: the end'
SPLAT='WARNING: |BUG[: ]|kernel BUG at|Oops|Kernel panic|general protection
KASAN: |UBSAN: |KFENCE: |KCSAN: |ODEBUG: |refcount_t: |list_(add|del) corruption
INFO: (possible|suspicious|trying to register|task .* blocked|rcu.* stall)
possible (circular|recursive|irq) lock|inconsistent lock state|suspicious RCU usage
lockdep is turned off|turning off the locking correctness
[Bb]ad page|page dumped because|Bad rss-counter|non-zero pgtables_bytes|page_table_check
[Bb]ad p[mu4g]d|(Bad|Unused) swap (file|offset) entry|get_swap_device: Bad
Unable to handle|unable to handle
rcu:.* (detected|self-detected).* stall|rcu.* kthread (starved|timer wakeup)
watchdog: .*lockup|hung_task:|workqueue lockup|unreferenced object|suspected memory leak
kmemleak: .*([Dd]isabled|Cannot allocate a kmemleak_object|pool empty|[Uu]nknown object|object by alias|exceeded)
cannot create duplicate filename|debugfs: .*already (exists|present)
DMA fault at|DMAR: .*[Ff]ault|DMA-API: (debugging out of memory|exceeded|.*device driver)
kobject.*(tried to (init|add)|failed for .* with -EEXIST|is not initialized)'
# "DMA-API: cacheline tracking ENOMEM" comes of allocations that are made to fail.
# A function in a call trace proves nothing: the reason of the trace is printed before it.
FRAME='^(\[[^]]*\])* +(\? )?[^ ]+\+0x[0-9a-f]+/0x[0-9a-f]+'
FAULT='a DMA fault of [0-9a-f:.]+ at 0x[0-9a-f]+ is expected'
OOM='invoked oom-killer|Out of memory|out of memory: Killed|Killed process'

running=''
[[ $1 != --running ]] || { running=1 && shift; }
log=$1

wrong() {
	echo "tripwire: $log: $*" >&2
	exit 1
}

# "COUNT FIRST BEGUN ENDED LINES": the splats, and whether the log is whole.
look() {
	first=$FIRST last=$LAST splat=${SPLAT//$'\n'/|} oom=$OOM frame=$FRAME fault=$FAULT awk '
		function wrong(line) {
			if (!count++)
				at = line
		}
		function fault_is_over() {
			if (fault && !faults)
				wrong(announced)
			fault = ""
		}
		index($0, ENVIRON["first"]) { begun = 1 }
		index($0, ENVIRON["last"]) { ended = 1 }
		/hmm_ref test: OOM kills are expected/ { expected = 1 }
		/hmm_ref test: no more OOM kills/ { expected = 0 }
		match($0, "hmm_ref test: " ENVIRON["fault"]) {
			fault_is_over()
			split(substr($0, RSTART, RLENGTH), word, " ")
			fault = "[" word[7] "] fault addr " word[9] " "
			faults = 0
			announced = NR
		}
		/hmm_ref test: no more DMA faults/ { fault_is_over() }
		fault && /DMAR: DRHD: handling fault status reg/ { next }
		fault && /DMAR: \[DMA / && index($0, fault) && !faults++ { next }
		$0 ~ ENVIRON["frame"] { next }
		$0 ~ ENVIRON["splat"] || !expected && $0 ~ ENVIRON["oom"] { wrong(NR) }
		END {
			if (ended && fault)
				wrong(announced)
			print count + 0, at + 0, begun + 0, ended + 0, NR
		}' "$log"
}

[[ -f $log && -r $log ]] || wrong "it cannot be read"
found=$(look) || wrong "it cannot be read"
read -r count at begun ended lines <<<"$found"
if ((count > 0)); then
	echo "tripwire: $count suspicious lines, the first at $log:$at" >&2
	sed -n "$((at > 5 ? at - 5 : 1)),$((at + 60))p" "$log" | sed 's/^/  | /' >&2
	exit 1
fi
[[ ! $running ]] || exit 0
((lines > 0)) || wrong "it is empty"
((begun)) || wrong "it has no line '$FIRST', so it does not begin at boot"
((ended)) || wrong "it has no line '$LAST', so it is not complete"
