#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
#
# Counts words that make English hard to read, in comments and in the documentation. "A task
# who", "what is mapped" and "nobody" hide the subject of a sentence.
#
#   in:  $1 "table": also print the counts of each file; other arguments: count only these
#        files, as comments or pages of the driver
#   out: the groups above their limit; exit 1 if there is one. With "table", on stdout, words
#        and counts per 1000 words by file, the worst first, and by group
#
# Code, literals and names are no words: text between backquotes, literal blocks, and tokens
# with an underscore, a digit, a bracket, or a sign that kernel-doc gives a meaning.

set -euo pipefail
here=$(dirname "$0")
# shellcheck source=scripts/lib.sh
. "$here/lib.sh"

table=''
if [[ ${1:-} == table ]]; then
	table=1
	shift
fi

# The files, each after its group.
files() {
	if (($#)); then
		printf 'driver %s\n' "$@"
		return
	fi
	cd "$ROOT"
	printf 'driver %s\n' drivers/misc/hmm_ref/{,compat/,gpu/}*.[ch] drivers/misc/hmm_ref/Kconfig \
		include/uapi/hmm_ref.h
	printf 'docs %s\n' README.md Documentation/misc-devices/hmm_ref/*.rst
	printf 'tests %s\n' drivers/misc/hmm_ref/tests/*.[ch] \
		tools/testing/selftests/hmm_ref/*.{c,h,sh}
}

# Prints the prose of a file.
# shellcheck disable=SC2016 # backquotes
prose() {
	case $1 in
	*.rst)
		# A paragraph that ends with "::" is followed by a literal block, and a directive
		# is one itself, but for tables and notes.
		awk '
			{ match($0, /^[ \t]*/); indent = RLENGTH }
			literal && (!NF || indent > base) { next }
			{ literal = 0 }
			/^ *\.\. (code-block|kernel-doc|toctree|SPDX)/ { literal = 1; base = indent; next }
			/^ *:(header-rows|widths|maxdepth|class):/ { next }
			/::$/ && !/^ *\.\. / { literal = 1; base = indent }
			{ print }' "$1" | tr '\n' ' ' | sed 's/``[^`]*``/ /g; s/:doc:`[^`]*`/ /g'
		;;
	*.md)
		awk '/^```/ { fenced = !fenced; next } !fenced && !/^(    |\t)/' "$1" |
			tr '\n' ' ' | sed 's/`[^`]*`/ /g'
		;;
	*.sh)
		sed -nE '/SPDX|^#!|shellcheck/d; s/^[ \t]*# (.*)/\1/p; s/.*[;)}"a-z] # (.*)/\1/p' "$1"
		;;
	*/Kconfig)
		awk '/^\thelp/ { help = 1; next } /^[^\t ]/ { help = 0 } help || sub(/^ *# /, "")' "$1"
		;;
	*)
		awk '
			/SPDX-License/ { next }
			{
				line = $0
				while (line != "") {
					if (!comment) {
						if (!(at = index(line, "/*")))
							break
						line = substr(line, at + 2)
						comment = 1
					}
					at = index(line, "*/")
					print at ? substr(line, 1, at - 1) : line
					comment = !at
					line = at ? substr(line, at + 2) : ""
				}
			}' "$1" | sed -E 's/^[ \t]*\*+//'
		;;
	esac
}

count() {
	local group file

	while read -r group file; do
		prose "$file" | awk -v group="$group" -v file="${file#"$ROOT/"}" '
			{
				for (i = 1; i <= NF; i++) {
					word = tolower($i)
					gsub(/^[("\047*]+|[.,:;!?)"\047*]+$/, "", word)
					sub(/\047s$/, "", word)
					if (word !~ /^[a-z][a-z\047-]*$/)
						continue
					words++
					who += word ~ /^(who|whose|whom)$/
					what += word == "what"
					body += word ~ /^(nobody|somebody)$/
				}
			}
			END { printf "%s %d %d %d %d %s\n", group, words, who, what, body, file }'
	done
}

# by_file: the counts of each file per 1000 words, the worst first.
by_file() {
	printf '%7s %8s %8s %8s\n' words who what nobody
	awk '$2 {
		k = $2 / 1000
		printf "%.3f %7d %8.2f %8.2f %8.2f  %s\n", ($3 / 0.3 + $4 / 1.5 + $5 / 0.1) / k,
			$2, $3 / k, $4 / k, $5 / k, $6
	}' <<<"$1" | sort -k1,1nr | cut -d ' ' -f 2-
}

# above GROUP WORD COLUMN LIMIT: whether the group has the word more often than that.
above() {
	awk -v group="$1" -v word="$2" -v column="$3" -v limit="$4" '
		$1 == group { words += $2; n += $column }
		END {
			if (!words || 1000 * n / words <= limit)
				exit
			printf "%s: \"%s\" %.2f times in 1000 words, at most %.1f\n", group, word,
				1000 * n / words, limit
		}' <<<"$counts"
}

counts=$(files "$@" | count)
if [[ $table ]]; then
	by_file "$counts"
	by_file "$(awk '{
		for (i = 2; i <= 5; i++)
			sum[$1, i] += $i
		groups[$1]
	}
	END {
		for (g in groups)
			print g, sum[g, 2], sum[g, 3], sum[g, 4], sum[g, 5], g
	}' <<<"$counts")"
fi
found=$(for group in driver docs tests; do
	factor=1
	[[ $group != tests ]] || factor=2
	above "$group" who/whose/whom 3 "0.$((3 * factor))"
	above "$group" what 4 "$((15 * factor / 10)).$((15 * factor % 10))"
	above "$group" nobody/somebody 5 "0.$((1 * factor))"
done)
[[ $found ]] || exit 0
echo "$found"
exit 1
