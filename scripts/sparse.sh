#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
#
# Debian's sparse, for kernels that use an operator which it does not know yet.
exec sparse -D__typeof_unqual__=__typeof__ "$@"
