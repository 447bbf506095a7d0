/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Writers that run while pages migrate. Each owns a word of every page and knows its expected
 * value.
 */
#ifndef _HMM_REF_WRITERS_H
#define _HMM_REF_WRITERS_H

#include "hmm_ref_race.h"

struct writer {
	struct race *race;
	unsigned long owner;
	int fd;			/* file of the device writer */
	unsigned long rest;	/* migrations that begin between two of its rounds */
	unsigned long value[PAGES];
};

static inline void writer_rest(const struct writer *w)
{
	unsigned long begun = counter_get(&w->race->begun);

	while (counter_get(&w->race->begun) - begun < w->rest && !counter_get(&w->race->stop))
		usleep(50);
}

static inline int cpu_writer(void *arg)
{
	struct writer *w = arg;
	unsigned long i;

	while (!counter_get(&w->race->stop)) {
		for (i = 0; i < PAGES; i++) {
			unsigned long *word = word_of(w->race, i, w->owner);
			unsigned long look = race_look(w->race);

			if (!CHECK(counter_get(word) == w->value[i]))
				return 1;
			counter_set(word, ++w->value[i]);
			race_met(w->race, look);
		}
		counter_add(&w->race->rounds, 1);
		writer_rest(w);
	}
	return 0;
}

static inline int device_writer(void *arg)
{
	struct writer *w = arg;
	unsigned long i, value;

	while (!counter_get(&w->race->stop)) {
		for (i = 0; i < PAGES; i++) {
			unsigned long *word = word_of(w->race, i, w->owner);

			if (!CHECK(!patiently(w->race, w->fd, false, word, sizeof(value),
					      &value)) ||
			    !CHECK(value == w->value[i]))
				return 1;
			value = ++w->value[i];
			if (!CHECK(!patiently(w->race, w->fd, true, word, sizeof(value),
					      &value)))
				return 1;
		}
		counter_add(&w->race->rounds, 1);
		writer_rest(w);
	}
	return 0;
}

static inline void writer_init(struct writer *w, struct race *race, unsigned long owner,
			       int fd)
{
	unsigned long i;

	w->race = race;
	w->owner = owner;
	w->fd = fd;
	w->rest = 0;
	for (i = 0; i < PAGES; i++) {
		w->value[i] = owner << 32;
		*word_of(race, i, owner) = w->value[i];
	}
}

/* Checks that memory has the last write of every writer, and that all other bytes are unchanged. */
static inline void check_writers(struct __test_metadata *_metadata, struct race *race,
				 struct writer *writers, unsigned int n)
{
	unsigned long i, owner;
	unsigned int w;

	for (w = 0; w < n; w++) {
		owner = writers[w].owner;
		for (i = 0; i < PAGES; i++) {
			ASSERT_EQ(writers[w].value[i], *word_of(race, i, owner));
			*word_of(race, i, owner) = pattern_word(1, index_of(race, i),
								owner * 64 + 1);
		}
	}
	test_cpu_data(race->mem, race->npages, 1);
}

#endif /* _HMM_REF_WRITERS_H */
