/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Copies by the CPU that may end in SIGSEGV or SIGBUS. Only one file of a program may include this.
 */
#ifndef _HMM_REF_COPY_H
#define _HMM_REF_COPY_H

#include <setjmp.h>
#include <signal.h>
#include <stdbool.h>
#include <string.h>

static __thread sigjmp_buf copy_start;
static __thread int copy_under_way;

/* Installs a handler. The handler has to begin with end_copy(). */
static inline void catch_faults(void (*handler)(int sig, siginfo_t *info, void *context))
{
	struct sigaction fault = {
		.sa_sigaction = handler,
		.sa_flags = SA_SIGINFO | SA_NODEFER,
	};

	sigaction(SIGSEGV, &fault, NULL);
	sigaction(SIGBUS, &fault, NULL);
}

/* Ends the copy under way with this signal. Returns if there is none. */
static inline void end_copy(int sig)
{
	if (__atomic_load_n(&copy_under_way, __ATOMIC_RELAXED))
		siglongjmp(copy_start, sig);
}

/* Returns 0 or the signal. */
static inline int try_copy(void *to, const void *from, size_t n)
{
	int sig = sigsetjmp(copy_start, 0);

	if (!sig) {
		__atomic_store_n(&copy_under_way, 1, __ATOMIC_SEQ_CST);
		memcpy(to, from, n);
		__atomic_signal_fence(__ATOMIC_SEQ_CST);
	}
	__atomic_store_n(&copy_under_way, 0, __ATOMIC_SEQ_CST);
	return sig;
}

#endif /* _HMM_REF_COPY_H */
