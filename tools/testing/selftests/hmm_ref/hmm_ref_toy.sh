#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
#
# A module that links the exported functions of hmm_ref: its device works as any other, and the
# module can be unloaded while processes have pages on the device.

here=$(dirname "$0")

skip_all() {
	echo "TAP version 13"
	echo "1..0 # SKIP $1"
	exit 4
}

status=0
result() {
	nr=$((nr + 1))
	if [ "$1" = 0 ]; then
		echo "ok $nr $2"
	else
		echo "not ok $nr $2"
		status=1
	fi
}

# Start a process that holds pages: it prints "ready", and exits with 0 if all data is right.
hold() {
	mkfifo "$dir/in" "$dir/out"
	"$here/hold_pages" <"$dir/in" >"$dir/out" 2>&1 &
	holder=$!
	exec 8>"$dir/in" 9<"$dir/out"
	read -r line <&9 && [ "$line" = ready ]
}

release() {
	echo >&8
	exec 8>&-
	wait $holder
}

[ "$(id -u)" = 0 ] || skip_all "run as root"
[ -e /sys/module/hmm_ref ] || skip_all "no hmm_ref"
number=0
while [ -e /dev/hmm_ref$number ]; do
	number=$((number + 1))
done
find "/lib/modules/$(uname -r)" -name 'hmm_ref_toy.ko*' 2>/dev/null | grep -q . ||
	skip_all "no hmm_ref_toy (CONFIG_HMM_REF_TOY)"
dir=$(mktemp -d)
nr=0
echo "TAP version 13"
echo "1..4"
modprobe hmm_ref_toy number=$number && [ -c /dev/hmm_ref$number ]
result $? "it has a device"
hold
result $? "a process moves pages there"
rmmod hmm_ref_toy && [ ! -e /dev/hmm_ref$number ]
result $? "the module goes with these pages"
release
result $? "the process has its data"
rm -rf "$dir"
exit $status
