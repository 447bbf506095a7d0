#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
#
# Checks the models of a device page's life and of a chunk's end (tools/model) with spin: it visits
# the whole state space, and has to find the error of each control, a model with a mistake.
#
#   in:  tools/model/devmem.pml and chunk.pml; TRAIL, a control: print the steps that lead to its
#        error and nothing else
#   out: TAP, as tap.sh reads it; exit 1 when a test failed
#
# The controls run beside the proofs: two processes, of at most 2 GiB each.

set -euo pipefail

CONTROLS=(CORE_2022 PUBLISH_FIRST DIRECT_PUSH OWNER_LATE NO_DISSOLVE FLAGS_LEFT
	LEAKED_OWNER SPLIT_FORGETS TAKE_UNLOCKED PUBLISH_UNLOCKED COMPARE_UNLOCKED
	COUNT_LATE UNCOUNT_FIRST CLAIM_RESERVED HANDOUT_UNLOCKED EVICT_UNLOCKED
	EVICT_MOVED STOP_UNLOCKED SET_UNLOCKED NO_SRCU NO_WAIT)
CHUNK_CONTROLS=(PUBLISHED_LATE NOT_LIVE USERS_OF_NO_PAGES NO_READER USERS_UNLOCKED LOOK_WITHOUT_USE
	PROMISED NO_PAGEMAP_WAIT NO_SYNCHRONIZE)
PROOFS=(safe twice ends chunk)

# This is set up first: a death must not look like a stage that was left out. A signal leaves
# status 0.
work='' lane='' complete=''
finish() {
	local status=$?

	[[ $complete ]] || status=$((status ? status : 1))
	[[ ! $lane ]] || kill "$lane" 2>/dev/null || true
	[[ ! $work ]] || rm -rf "$work"
	[[ ${TRAIL:-} ]] || echo "@end model $status"
}
trap finish EXIT
if [[ ! ${TRAIL:-} ]]; then
	echo "@begin model"
	echo "1..$((${#PROOFS[@]} + ${#CONTROLS[@]} + ${#CHUNK_CONTROLS[@]}))"
fi

here=$(dirname "$0")
# shellcheck source=scripts/lib.sh
. "$here/lib.sh"

MODELS=$ROOT/tools/model
DEPTH=100000
SAFETY='-DSAFETY -DNOCLAIM'
# The message of spin for each control: the intended mistake, and no other.
declare -A ERROR=(
	[CORE_2022]='page_of_another'
	[PUBLISH_FIRST]='page_not_idle'
	[DIRECT_PUSH]='invalid end state'
	[OWNER_LATE]='page_without_owner'
	[NO_DISSOLVE]='page_not_idle'
	[FLAGS_LEFT]='page_not_clean'
	[LEAKED_OWNER]='reference_lost'
	[SPLIT_FORGETS]='page_without_owner'
	[TAKE_UNLOCKED]='counts_differ'
	[PUBLISH_UNLOCKED]='counts_differ'
	[COMPARE_UNLOCKED]='promise_broken'
	[COUNT_LATE]='promise_broken'
	[UNCOUNT_FIRST]='promise_broken'
	[CLAIM_RESERVED]='promise_broken'
	[HANDOUT_UNLOCKED]='page_not_idle'
	[EVICT_UNLOCKED]='mapping_not_stable'
	[EVICT_MOVED]='mapping_not_stable'
	[STOP_UNLOCKED]='page_escaped'
	[SET_UNLOCKED]='page_escaped'
	[NO_SRCU]='freed_chunk_touched'
	[NO_WAIT]='freed_chunk_touched'
	[PUBLISHED_LATE]='freed_chunk_touched'
	[NOT_LIVE]='page_of_gone_chunk'
	[USERS_OF_NO_PAGES]='chunk_in_use'
	[NO_READER]='freed_chunk_touched'
	[USERS_UNLOCKED]='freed_chunk_touched'
	[LOOK_WITHOUT_USE]='freed_chunk_touched'
	[PROMISED]='promise_broken'
	[NO_PAGEMAP_WAIT]='page_of_gone_chunk'
	[NO_SYNCHRONIZE]='freed_chunk_touched'
)

number=0 status=0

# model NAME: the file that a proof or a control is of
model() {
	[[ " chunk ${CHUNK_CONTROLS[*]} " == *" $1 "* ]] && echo chunk.pml || echo devmem.pml
}

# search NAME MODEL-OPTIONS PAN-OPTIONS COMPILER-OPTIONS: the output of spin is $work/NAME.said
search() {
	(
		mkdir "$work/$1" && cd "$work/$1"
		# shellcheck disable=SC2086 # words
		spin -a $2 "$MODELS/$(model "$1")" && gcc -w -DMEMLIM=2000 -DCOLLAPSE $4 -o pan pan.c &&
			./pan -m$DEPTH $3
	) >"$work/$1.said" 2>&1 || true
}

# result NAME BAD TEXT
result() {
	number=$((number + 1))
	if (($2)); then
		status=1
		cat "$work/$1.said"
		echo "not ok $number $3"
	else
		echo "ok $number $3"
	fi
}

# proof NAME TEXT: after its search
proof() {
	local said bad=0

	said=$(cat "$work/$1.said")
	[[ $said == *'errors: 0'* && $said != *'not completed'* &&
		$said != *'max search depth'* ]] || bad=1
	echo "# all of $(awk '/states, stored/ { print $1; exit }' <<<"$said") states" |
		tee -a "$work/states"
	result "$1" $bad "$2"
}

# Removal is under way at any time in these, and comes last in the others.
options() {
	[[ $(model "$1") != chunk.pml ]] || { echo "-D$1"; return; }
	case $1 in
	STOP_UNLOCKED | SET_UNLOCKED | NO_SRCU | NO_WAIT) echo "-D$1" ;;
	*) echo "-D$1 -DREMOVE_LAST" ;;
	esac
}

search_controls() {
	local name

	for name in "${CONTROLS[@]}" "${CHUNK_CONTROLS[@]}"; do
		search "$name" "$(options "$name")" "-w20" "-O0 $SAFETY"
	done
}

control() {
	local bad=0 error

	error=$(sed -n 's/^pan:1: //p' "$work/$1.said")
	[[ $error == *"${ERROR[$1]}"* ]] || bad=1
	result "$1" $bad "control $1 is found: ${ERROR[$1]}"
}

trail() {
	local model

	[[ ${ERROR[$TRAIL]:-} ]] ||
		die "TRAIL=$TRAIL: must be one of ${CONTROLS[*]} ${CHUNK_CONTROLS[*]}"
	model=$(model "$TRAIL")
	# The shortest trail.
	search "$TRAIL" "$(options "$TRAIL")" "-w20 -i" "-O2 $SAFETY -DREACH"
	cd "$work/$TRAIL"
	cp "$MODELS/$model" .
	# shellcheck disable=SC2046 # words
	spin $(options "$TRAIL") -t -p -k "$model.trail" "$model" >steps 2>&1
	sed -n 's/^ *[0-9]*:\tproc *\([0-9]*\) (\([a-z]*\):[0-9]*) '"$model"':\([0-9]*\) (state [0-9]*)\t\+\(\[.*\)/\2 \1\tline \3\t\4/p' steps |
		grep -v '^init\|^monitor\|\[\(IF\|else\|assert.*\|\.(goto)\|sub-sequence\)\]'
	# The first error that was found may be another one than the shortest.
	grep 'failed assertion' steps || grep '^pan:1:' "../$TRAIL.said"
}

"$here/packages.sh"
work=$(mktemp -d)
if [[ ${TRAIL:-} ]]; then
	trail
	exit
fi
search_controls &
lane=$!

search safe "" "-w24" "-O2 $SAFETY"
proof safe "no rule is broken: an operation per CPU, removal at any time"
search twice "-DROUNDS=2 -DREMOVE_LAST" "-w24" "-O2 $SAFETY"
proof twice "no rule is broken: two operations per CPU, then removal"
# One CPU only, since the time of this search grows faster.
search ends "-DCPUS=1 -DROUNDS=2 -DPATIENT" "-a -f -w22" "-O2 -DNFAIR=5"
proof ends "removal ends, if every process gets to run"
search chunk "-DROUNDS=3" "-w22" "-O2 $SAFETY"
proof chunk "no rule is broken: three operations per task, and a chunk comes and goes at any time"

wait "$lane"
lane=''
for name in "${CONTROLS[@]}" "${CHUNK_CONTROLS[@]}"; do
	control "$name"
done
complete=1
paste -d ' ' <(printf '%s:\n' "${PROOFS[@]}") <(sed 's/.*of //' "$work/states") | keep model >/dev/null
exit $status
