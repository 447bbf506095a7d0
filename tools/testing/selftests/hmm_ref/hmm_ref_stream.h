/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Random numbers of the fuzzer and of the soak test.
 *
 * A stream is the program of one thread: a 32-bit number, made of the seed or of another
 * stream. Operation i of a stream is a function of these two numbers alone, never of what
 * happened before, so a stream can be run again and be listed without running it.
 */
#ifndef _HMM_REF_STREAM_H
#define _HMM_REF_STREAM_H

#include <stdint.h>

static inline uint64_t mix(uint64_t x)
{
	x += 0x9e3779b97f4a7c15ULL;
	x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ULL;
	x = (x ^ (x >> 27)) * 0x94d049bb133111ebULL;
	return x ^ (x >> 31);
}

static inline uint64_t draw(uint64_t *state)
{
	return mix((*state)++);
}

static inline unsigned int below(uint64_t *state, unsigned int limit)
{
	return (draw(state) >> 32) % limit;
}

/* The state from which the numbers of an operation are drawn. */
static inline uint64_t operation_state(uint32_t stream, unsigned int index)
{
	return mix((uint64_t)stream << 32 | index);
}

/* A stream made of the seed or of another stream, and of two more numbers. */
static inline uint32_t stream_of(uint64_t from, unsigned int a, unsigned int b)
{
	return mix(mix(from) ^ ((uint64_t)a << 32 | b));
}

#endif /* _HMM_REF_STREAM_H */
