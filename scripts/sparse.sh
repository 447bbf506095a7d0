#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
#
# Debian's sparse, for kernels that use operators that it does not know yet. The headers that
# the driver asks for are there: compat/, and what patches/core adds.
exec sparse -D__typeof_unqual__=__typeof__ "-D__has_include(header)=1" "$@"
