/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Older kernels get the names of the newest one here and nowhere else. A driver
 * that is merged leaves this file out.
 */
#ifndef _HMM_REF_COMPAT_H
#define _HMM_REF_COMPAT_H

#endif /* _HMM_REF_COMPAT_H */
