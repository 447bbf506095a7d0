#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
#
# Prints the kernel's hmm-tests.c with the reproducers of patches/core in it.
#
#   in:  the kernel's tree ($1); the reproducers ($2...), default all of patches/core/tests
#   out: the program's source, on stdout
#
# The includes of a reproducer are added after the system includes of hmm-tests.c, all else before
# its last line.

set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"

tests=$1/tools/testing/selftests/mm/hmm-tests.c
shift
(($#)) || set -- "$ROOT"/patches/core/tests/[0-9]*.c

[[ $(tail -n 1 "$tests") == TEST_HARNESS_MAIN ]] || die "$tests does not end as it did"
last_include=$(awk '/^#include <(lib|mm)\// { exit } /^#include </ { last = NR } END { print last }' "$tests")
head -n "$last_include" "$tests"
# Leaves out includes that are present already.
sed -n '/^#include /p' "$@" | sort -u | grep -vxFf <(grep '^#include ' "$tests") || true
sed "1,${last_include}d; \$d" "$tests" | cat -s
for file in "$@"; do
	sed '/^#include /d' "$file" | cat -s | sed '1{ /^$/d }'
	echo
done
echo TEST_HARNESS_MAIN
