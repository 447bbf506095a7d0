#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
#
# Runs "make test", and then the stages that it leaves out, in a fixed order.
#
#   in:  UNTIL (seconds from the beginning, after which no stage should run; without it all run),
#        and what test.sh reads
#   out: what both print; the last line is the sum, "N passed, N failed[, N skipped]". A stage for
#        which there is no time is named in the second table, and is no failure. Exit 1 when
#        something failed

set -euo pipefail
here=$(dirname "$0")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
status=0

# The last one of a run, also where make says something after it.
total() { grep -aE '^[0-9]+ passed, [0-9]+ failed(, [0-9]+ skipped)?$' "$1" | tail -n 1; }

"${MAKE:-make}" --no-print-directory -C "$here/.." test 2>&1 | tee "$work/test" || status=1
until=0
[[ ! ${UNTIL:-} ]] || until=$((UNTIL > SECONDS ? UNTIL - SECONDS : 1))
REST=1 UNTIL=$until "$here/test.sh" 2>&1 | tee "$work/rest" || status=1

for part in test rest; do
	total "$work/$part" || echo "0 passed, 1 failed"
done | awk -v status="$status" '
	{ passed += $1; failed += $3; skipped += $5 }
	END {
		if (status && !failed)
			failed = 1
		printf "\n%d passed, %d failed", passed, failed
		if (skipped)
			printf ", %d skipped", skipped
		print ""
		exit failed > 0
	}'
