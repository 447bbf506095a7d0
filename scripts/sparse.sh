#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
#
# Debian's sparse, for kernels that use operators which it does not know yet.
exec sparse -D__typeof_unqual__=__typeof__ "-D__has_include(header)=0" "$@"
