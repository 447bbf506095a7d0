#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
#
# Sourced by tests that load the module with their own parameters.
#
#   HMM_REF_KO      the module, where modprobe does not find it

KSFT_SKIP=4

skip_all() {
	echo "1..0 # SKIP $*"
	exit $KSFT_SKIP
}

loaded() { [ -d /sys/module/hmm_ref ]; }

load() {
	if [ -n "$HMM_REF_KO" ]; then
		insmod "$HMM_REF_KO" "$@"
	else
		modprobe hmm_ref "$@"
	fi || return 1
	for _ in 1 2 3 4 5 6 7 8 9 10; do
		[ -c /dev/hmm_ref0 ] && return 0
		sleep 1
	done
	echo "# the module is loaded and /dev/hmm_ref0 does not appear"
	return 1
}

# Print the parameters of the loaded module.
parameters() {
	for file in /sys/module/hmm_ref/parameters/*; do
		value=$(cat "$file" 2>/dev/null)
		[ -z "$value" ] || printf '%s=%s ' "$(basename "$file")" "$value"
	done
}

# shellcheck disable=SC2317 # called by trap
module_end() {
	! loaded || rmmod hmm_ref
	# shellcheck disable=SC2086 # words
	[ -z "$was_loaded" ] || load $params
}

# Load the module, set params to the parameters that it had, and restore these at exit.
module_begin() {
	was_loaded=
	params=
	if loaded; then
		[ -e /sys/module/hmm_ref/initstate ] || skip_all "hmm_ref is built in"
		was_loaded=1
		params=$(parameters)
	fi
	trap module_end EXIT
	[ -n "$was_loaded" ] || load ||
		skip_all "cannot load hmm_ref by modprobe; set HMM_REF_KO to the path of hmm_ref.ko"
}
