#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
#
# Looks for everything by which a kernel says that it went wrong.
#
#   in:  the log of a console ($1)
#   out: exit 0 when there is nothing; 1 with the first splat on stderr when there is

set -euo pipefail

SPLAT='WARNING: |BUG[: ]|kernel BUG at|Oops|Kernel panic|general protection
KASAN: |UBSAN: |KFENCE: |KCSAN: |ODEBUG: |refcount_t: |list_(add|del) corruption
INFO: (possible|suspicious|trying to register|task .* blocked|rcu.* stall)
possible (circular|recursive|irq) lock|inconsistent lock state|suspicious RCU usage
[Bb]ad page|Bad rss-counter|page_table_check|Unable to handle|unable to handle
rcu:.* (detected|self-detected).* stall|rcu.* kthread (starved|timer wakeup)
watchdog: .*lockup|hung_task:|workqueue lockup|unreferenced object|suspected memory leak'

log=$1
first=$(grep -nE -m 1 "${SPLAT//$'\n'/|}" "$log" | cut -d: -f 1) || exit 0
[[ $first ]] || exit 0

echo "tripwire: $(grep -cE "${SPLAT//$'\n'/|}" "$log") suspicious lines, the first at $log:$first" >&2
sed -n "$((first > 5 ? first - 5 : 1)),$((first + 60))p" "$log" | sed 's/^/  | /' >&2
exit 1
