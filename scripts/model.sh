#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
#
# Checks the model of a device page's life (tools/model) with spin: the whole state
# space, and that each control, a model that is wrong on purpose, is found to be wrong.
#
#   in:  tools/model/devmem.pml; TRAIL, a control: print the steps that lead to its
#        error and nothing else
#   out: TAP, as tap.sh reads it; exit 1 when a test failed

set -euo pipefail
here=$(dirname "$0")
# shellcheck source=scripts/lib.sh
. "$here/lib.sh"

MODEL=$ROOT/tools/model/devmem.pml
DEPTH=100000
CONTROLS=(CORE_2022 PUBLISH_FIRST DIRECT_PUSH STOP_UNLOCKED NO_WAIT SPLIT_FORGETS)
# What spin says of each: the error that is meant, and no other.
declare -A ERROR=(
	[CORE_2022]='assertion violated .*keep'
	[PUBLISH_FIRST]='assertion violated .*keep'
	[DIRECT_PUSH]='invalid end state'
	[STOP_UNLOCKED]='assertion violated .*chunk_freed'
	[NO_WAIT]='assertion violated .*chunk_freed'
	[SPLIT_FORGETS]='assertion violated .*owner'
)

number=0 status=0
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# search MODEL-OPTIONS PAN-OPTIONS COMPILER-OPTIONS: leaves what spin says in $said
search() {
	(
		cd "$work" && rm -f -- *
		# shellcheck disable=SC2086 # words
		spin -a $1 "$MODEL" && gcc -O2 -w -DMEMLIM=4096 -DCOLLAPSE $3 -o pan pan.c &&
			./pan -m$DEPTH $2
	) >"$work.out" 2>&1 || true
	said=$(cat "$work.out")
	rm -f "$work.out"
}

complete() {
	[[ $said == *'errors: 0'* && $said != *'not completed'* && $said != *'max search depth'* ]]
}

result() {
	number=$((number + 1))
	if (($1)); then
		status=1
		printf '%s\n' "$said"
		echo "not ok $number $2"
	else
		echo "ok $number $2"
	fi
}

states() { awk '/states, stored/ { print $1; exit }' <<<"$said"; }

safe() {
	local bad=0

	search "" "-w24" "-DSAFETY -DNOCLAIM"
	complete || bad=1
	echo "# all of $(states) states"
	result $bad "no rule is broken in any state"
}

# The time that this takes grows faster: one operation per CPU.
ends() {
	local bad=0

	search "-DROUNDS=1" "-a -f -w22" "-DNFAIR=5"
	complete || bad=1
	echo "# all of $(states) states"
	result $bad "remove ends, if every process gets to run"
}

control() {
	local bad=0

	search "-D$1" "-w24" "-DSAFETY -DNOCLAIM"
	grep -q "^pan:1: .*${ERROR[$1]}" <<<"$said" || bad=1
	result $bad "control $1 is found: $(sed -n 's/^pan:1: //p' <<<"$said")"
}

trail() {
	[[ ${ERROR[$TRAIL]:-} ]] || die "TRAIL=$TRAIL: must be one of ${CONTROLS[*]}"
	# The shortest that there is.
	search "-D$TRAIL -DROUNDS=1" "-w24 -i" "-DSAFETY -DNOCLAIM -DREACH"
	cp "$MODEL" "$work"
	(cd "$work" && spin -D"$TRAIL" -DROUNDS=1 -t -p -k devmem.pml.trail devmem.pml) |
		sed -n 's/^ *[0-9]*:\tproc *\([0-9]*\) (\([a-z]*\):[0-9]*) devmem.pml:\([0-9]*\) (state [0-9]*)\t*\(.*\)/\2 \1\tline \3\t\4/p' |
		grep -v '^init\|^monitor\|\[\(IF\|else\|assert.*\|\.(goto)\)\]\|\t$'
	grep '^pan:1:' <<<"$said"
}

if [[ ${TRAIL:-} ]]; then
	"$here/packages.sh"
	trail
	exit
fi
echo "@begin model"
"$here/packages.sh"
echo "1..$((2 + ${#CONTROLS[@]}))"
safe
ends
for name in "${CONTROLS[@]}"; do
	control "$name"
done
echo "@end model $status"
exit $status
