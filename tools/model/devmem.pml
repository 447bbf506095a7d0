// SPDX-License-Identifier: GPL-2.0-only
/*
 * The life of a device page, for the model checker spin.
 *
 * Two CPUs run operations of users and of the core while a third process removes the
 * device or suspends it. One statement of the code is one step here, and what the CPU
 * reads, changes and writes back is two, so a lock that is missing is noticed. d_step
 * joins what is atomic in the code (atomic instructions, what a page table lock covers)
 * and adds ghosts, which no code sees, to the step that they describe.
 * Documentation/misc-devices/hmm_ref/model.rst has the table of functions and labels,
 * what is left out, and what is proved.
 *
 * Three pages: 0 and 1 are a block, which may be a large folio, 2 is another block. The
 * search begins in each of the states of init, where the device is at rest.
 *
 *   ROUNDS		operations of each CPU
 *   CPUS		1 or 2
 *   REMOVE_LAST	removal begins when the CPUs have ended, not at any time
 *   PATIENT		removal sleeps until a page has no reference but those of page tables
 *
 * Controls: with another macro defined, the model has one mistake that a driver or a core
 * could have, and spin must find it. model.rst says how each goes wrong.
 */

#define NPAGES	3
#define NBLOCKS	2
#define BLOCK(p)	((p) / 2)
#define BIT(p)		((p) == 1 -> 2 : 1)

#ifndef ROUNDS
#define ROUNDS	1
#endif
#ifndef CPUS
#define CPUS	2
#endif

/* struct page */
byte ref[NPAGES];	/* page_ref_count() */
byte locked[NPAGES];	/* PG_locked: by which process */
byte mapping[NPAGES];	/* 0, one of two anon_vmas, or TAIL_MAPPING */
byte owner[NPAGES];	/* zone_device_data: 0, OWNED or LARGE_MAPCOUNT */
bool head;		/* PG_head of page 0 */
bool tail;		/* compound_head of page 1 leads to page 0 */

#define TAIL_MAPPING	3
#define OWNED		1
/* _large_mapcount of a folio lies where page 1 has its zone_device_data. */
#define LARGE_MAPCOUNT	2

/* struct hmm_ref_block, hmm_ref_devmem, hmm_ref_device, dev_pagemap, hmm_ref_owner */
byte free[NBLOCKS];	/* the free map, a bit per page */
byte nr_used[NBLOCKS];
byte block_lock[NBLOCKS];	/* held by which process */
byte committed;
bool stopped;
bool gone;
byte unplug;		/* readers of this SRCU */
byte pagemap_refs;
byte owner_refs;	/* pages' references */

/* Page tables of all processes: how many map a page, as large for a large folio */
byte mapped[NPAGES];

/* Ghosts. */
byte keep[NPAGES];	/* the process that alone may store to the page */
byte promised;		/* pages that are reserved and not yet handed out */
bool chunk_freed;
bool asleep;		/* memory has no power */
bool ended;		/* remove() */
byte cpus_done;

#define PAGE_FOLIO(p)	((p) == 1 && tail -> 0 : (p))
#define NR(f)		((f) == 0 && head -> 2 : 1)
#define BITS(f, n)	((n) == 2 -> 3 : BIT(f))
#define IS_FREE(p)	(free[BLOCK(p)] & BIT(p))
#define NR_FREE(b)	((free[b] & 1) + (free[b] >> 1))
/* A _large_mapcount that is not initialised yet was NULL. It counts from -1. */
#define FOLIO_MAPPED(f)	((f) == 0 && head && owner[1] != LARGE_MAPCOUNT || mapped[f] > 0)

/* Rule 1 of devmem.c. */
#define IDLE(p)		(ref[p] == 0 && locked[p] == 0 && mapping[p] == 0 && owner[p] == 0 && \
			 !((p) == 0 && head) && !((p) == 1 && tail))

/* What spin says when an assertion fails ends in the name of what went wrong. */
hidden byte freed_chunk_touched;
hidden byte page_of_another;
hidden byte page_not_idle;
hidden byte page_without_owner;
hidden byte reference_lost;
hidden byte lock_of_another;
hidden byte wrong_folio;
hidden byte mapping_not_stable;
hidden byte promise_broken;
hidden byte counts_differ;
hidden byte taken_without_power;

#define MUST(cond, mistake)	assert((cond) || mistake)
#define ALIVE			MUST(!chunk_freed, freed_chunk_touched)
#define STORE(p)		ALIVE; MUST(keep[p] == _pid, page_of_another)
#define ALL_IDLE(f, n)		MUST(IDLE(f) && (n == 1 || IDLE(1)), page_not_idle)

inline lock_block(b)
{
	atomic { block_lock[b] == 0 -> ALIVE; block_lock[b] = _pid }
}

inline unlock_block(b)
{
	d_step { ALIVE; MUST(block_lock[b] == _pid, lock_of_another); block_lock[b] = 0 }
}

/* ---- chunk.c, devmem.c, devmem_large.c --------------------------------- */

/* try_reserve(), under hmm_ref_devmem::lock. Storage: all pages have it. */
inline reserve(n)
{
	d_step {
		reserved = !stopped && committed + n <= NPAGES;
		if
		:: reserved -> committed = committed + n; promised = promised + n
		:: else
		fi
	}
}

inline unreserve(n)
{
	d_step { committed = committed - n; promised = promised - n }
}

/* block_take() and take_whole(): n pages from p on off the free map. */
inline take(p, n)
{
#ifdef STOP_UNLOCKED
	taken = !stopped;
#endif
#ifndef TAKE_UNLOCKED
	lock_block(BLOCK(p));
#endif
#ifndef STOP_UNLOCKED
	taken = !stopped;
#endif
	d_step { ALIVE; word = free[BLOCK(p)] };
	if
	:: taken && (word & BITS(p, n)) == BITS(p, n) ->
		d_step {
			MUST(!asleep, taken_without_power);
			MUST(keep[p] == 0 && (n == 1 || keep[1] == 0), page_of_another);
			ALL_IDLE(p, n);	/* hmm_ref_verify_idle() */
			free[BLOCK(p)] = word & ~BITS(p, n);
			promised = promised - n;
			keep[p] = _pid;
			keep[1] = (n == 2 -> _pid : keep[1])
		};
		word = nr_used[BLOCK(p)];
		nr_used[BLOCK(p)] = word + n
	:: else -> taken = false
	fi;
	word = 0;
#ifndef TAKE_UNLOCKED
	unlock_block(BLOCK(p))
#endif
}

/* The only way to the free map. After it, another process may own the page. */
inline block_publish(f, n)
{
#ifndef PUBLISH_UNLOCKED
	lock_block(BLOCK(f));
#endif
#ifdef UNCOMMIT_FIRST
	committed = committed - n;
#endif
	word = free[BLOCK(f)];
	d_step {
		STORE(f);
		ALL_IDLE(f, n);	/* hmm_ref_verify_idle() */
		MUST((word & BITS(f, n)) == 0, counts_differ);
		free[BLOCK(f)] = word | BITS(f, n);
		keep[f] = 0;
		keep[1] = (n == 2 -> 0 : keep[1])
	};
	word = nr_used[BLOCK(f)];
	nr_used[BLOCK(f)] = word - n;
	word = 0;
#ifndef UNCOMMIT_FIRST
	committed = committed - n;
#endif
#ifndef PUBLISH_UNLOCKED
	unlock_block(BLOCK(f))
#endif
}

/* hmm_ref_devmem_dissolve() */
inline dissolve()
{
	d_step { STORE(0); head = false };
	d_step { STORE(1); tail = false };
	d_step { STORE(1); mapping[1] = 0; owner[1] = 0 }
}

inline clear_owner(f)
{
	d_step { STORE(f); owner[f] = 0 }
}

/* hmm_ref_devmem_folio_free() */
inline folio_free(f, n)
{
#ifndef NO_DISSOLVE
	if
	:: n == 2 -> dissolve()
	:: else
	fi;
#endif
#ifndef PUBLISH_FIRST
	clear_owner(f);
#endif
#ifdef LEAKED_OWNER
	owner_refs--;
#else
	owner_refs = owner_refs - n;
#endif
	block_publish(f, n);
#ifdef PUBLISH_FIRST
	clear_owner(f);
#endif
}

/* ---- the core ---------------------------------------------------------- */

/* folio_put() and free_zone_device_folio(). The last reference is the only one. */
inline folio_put(f)
{
	d_step {
		ALIVE;
		MUST(ref[f] > 0, reference_lost);
		ref[f]--;
		last = (ref[f] == 0);
		if
		:: last ->
			nr = NR(f);
			keep[f] = _pid;
			keep[1] = (nr == 2 -> _pid : keep[1])
		:: else
		fi
	};
	if
	:: last ->
		d_step {
			STORE(f);
			mapping[f] = 0;
			/* hmm_ref_verify_last_put() */
			MUST(ref[f] == 0, reference_lost);
			MUST(owner[f] == OWNED, page_without_owner)
		};
		folio_free(f, nr);
#ifdef CORE_2022
		d_step { STORE(f); ref[f] = 1 };
#endif
		d_step { ALIVE; pagemap_refs = pagemap_refs - nr; nr = 0; last = false }
	:: else
	fi
}

inline folio_trylock(f)
{
	atomic { locked[f] == 0 -> ALIVE; locked[f] = _pid }
}

inline folio_unlock(f)
{
	d_step {
		ALIVE;
		MUST(locked[f] == _pid && ref[f] > 0, lock_of_another);
		locked[f] = 0
	}
}

/* One page of the loop in zone_device_page_init() */
inline reset_page(p)
{
	d_step {
		STORE(p);
		MUST(ref[p] == 0, page_not_idle);
		locked[p] = 0;
		mapping[p] = 0;
		if
		:: p == 0 -> head = false
		:: p == 1 -> tail = false
		:: else
		fi
	}
}

/* From the count on, any walker of page frame numbers can get a reference. */
inline zone_device_page_init(p, n)
{
	reset_page(p);
	if
	:: n == 2 -> reset_page(1)
	:: else
	fi;
	d_step { ALIVE; pagemap_refs = pagemap_refs + n };
	d_step { STORE(p); ref[p] = 1; keep[p] = 0 };
#ifndef HANDOUT_UNLOCKED
	folio_trylock(p);	/* lock_page(), which waits */
#endif
	if
	:: n == 2 ->
		/* prep_compound_page(). __SetPageHead() writes all of the flags back. */
		word = locked[0];
		d_step { head = true; locked[0] = word; word = 0 };
		d_step { STORE(1); mapping[1] = TAIL_MAPPING };
		d_step { STORE(1); tail = true };
		d_step { STORE(1); owner[1] = LARGE_MAPCOUNT; keep[1] = 0 }
	:: else
	fi
}

/* ---- operations -------------------------------------------------------- */

/* hmm_ref_devmem_handout(), _handout_large(), and what becomes of the page (rule 4). */
inline handout(p, n)
{
	reserve(n);
	if
	:: reserved ->
		reserved = false;
		take(p, n);
		if
		:: taken ->
			taken = false;
			/* init_pages() */
			owner_refs = owner_refs + n;
#ifndef OWNER_LATE
			d_step { STORE(p); owner[p] = OWNED };
#endif
			zone_device_page_init(p, n);
#ifdef OWNER_LATE
			owner[p] = OWNED;
#endif
			if
			:: true ->
				/* migrate_vma_pages(), migrate_vma_finalize() */
				d_step { ALIVE; mapping[p] = 1 };
				d_step { ALIVE; mapped[p]++; ref[p]++; got = true }
			:: true	/* abandoned */
			fi;
#ifndef HANDOUT_UNLOCKED
			folio_unlock(p);
#endif
#ifdef DIRECT_PUSH
			if
			:: got -> folio_put(p)
			:: else ->
				d_step {
					ref[p] = 0;
					keep[p] = _pid;
					keep[1] = (n == 2 -> _pid : keep[1])
				};
				folio_free(p, n)
			fi;
#else
			folio_put(p);
#endif
			got = false
		:: else -> unreserve(n)
		fi
	:: else
	fi
}

/* munmap(), MADV_DONTNEED, exit: the page table's reference is put. */
inline zap(p)
{
	if
	:: d_step { mapped[p] > 0 -> ALIVE; mapped[p]-- };
	   folio_put(p)
	:: else
	fi
}

/* fork(): a second page table maps the page, and holds a reference. */
inline share(p)
{
	if
	:: d_step { mapped[p] == 1 -> ALIVE; mapped[p]++; ref[p]++ }
	:: else
	fi
}

/*
 * A write fault on a page that one process maps after others did: the core gives it the
 * anon_vma of this process, under the page's lock. Coherent memory only.
 */
inline reuse(p)
{
	if
	:: atomic { mapped[p] == 1 -> ALIVE; ref[p]++ };
	   if
	   :: folio_trylock(p);
	      if
	      :: mapped[p] == 1 && ref[p] == 2 -> mapping[p] = 3 - mapping[p]
	      :: else
	      fi;
	      folio_unlock(p)
	   :: else
	   fi;
	   folio_put(p)
	:: else
	fi
}

/*
 * The core splits a large folio that a page table entry leads to. It is not mapped
 * meanwhile, and the count is frozen at 0. Processes may discard their part before it is
 * mapped again.
 */
inline split()
{
	if
	:: atomic { head && mapped[0] > 0 -> ALIVE; ref[0]++ };
	   folio_trylock(0);	/* folio_lock(), which waits */
	   if
	   :: d_step { head && ref[0] == mapped[0] + 1 && mapped[0] > 0 ->
			count = mapped[0]; mapped[0] = 0; ref[0] = 1 };
	      /* __folio_freeze_and_split_unmapped() */
	      if
	      :: d_step { ref[0] == 1 -> ref[0] = 0; keep[0] = _pid; keep[1] = _pid };
		 d_step { STORE(1); locked[1] = _pid; mapping[1] = mapping[0] };
		 d_step { STORE(1); tail = false };
		 d_step { STORE(0); head = false };
#ifndef SPLIT_FORGETS
		 /* hmm_ref_devmem_folio_split() */
		 d_step { STORE(1); owner[1] = owner[0] };
#endif
		 d_step { STORE(1); ref[1] = 1; keep[1] = 0 };
		 d_step { STORE(0); ref[0] = 1; keep[0] = 0 };
		 /* remap_page() */
		 if
		 :: d_step { mapped[0] = count; ref[0] = ref[0] + count };
		    d_step { mapped[1] = count; ref[1] = ref[1] + count }
		 :: true
		 fi;
		 folio_unlock(1);
		 folio_put(1)
	      :: else ->
		 d_step { mapped[0] = count; ref[0] = ref[0] + count }
	      fi;
	      count = 0
	   :: else
	   fi;
	   folio_unlock(0);
	   folio_put(0)
	:: else
	fi
}

/* ---- migrate_evict.c --------------------------------------------------- */

/* Get and lock the folio of any page, if it is mapped; f is this folio. */
inline grab_mapped(p)
{
	d_step { ALIVE; f = PAGE_FOLIO(p); got = false };
	if
	:: d_step { ref[f] > 0 -> ref[f]++ };
#ifdef EVICT_UNLOCKED
	   got = (f == PAGE_FOLIO(p));
	   got = got && FOLIO_MAPPED(f);
#else
	   if
	   :: folio_trylock(f);
#ifdef NO_RECHECK
	      got = true;
#else
	      got = (f == PAGE_FOLIO(p));
#endif
	      got = got && FOLIO_MAPPED(f);
	      if
	      :: !got -> folio_unlock(f)
	      :: else
	      fi
	   :: else
	   fi;
#endif
	   if
	   :: !got -> folio_put(f)
	   :: else
	   fi
	:: else
	fi
}

inline release_mapped()
{
#ifndef EVICT_UNLOCKED
	folio_unlock(f);
#endif
	folio_put(f)
}

/* find_mapping(): the folio's lock keeps its mapping. */
inline find_mapping(p)
{
	grab_mapped(p);
	if
	:: got ->
		word = mapping[f];
		d_step {
			MUST(f == PAGE_FOLIO(p), wrong_folio);
			MUST(mapping[f] == word && (word == 1 || word == 2), mapping_not_stable);
			word = 0;
			got = false
		};
		release_mapped()
	:: else
	fi;
	f = 0
}

/*
 * hmm_ref_to_system() of what one page table maps: collect, unmap from all page tables,
 * finalize. A CPU fault does this, too. A folio that has other references stays.
 */
inline to_system(p)
{
	if
	:: atomic { mapped[p] > 0 -> ALIVE; ref[p]++ };
	   if
	   :: folio_trylock(p);
	      do
	      :: d_step { mapped[p] > 0 -> mapped[p]--; ref[p]--; count++ }
	      :: else -> break
	      od;
	      if
	      /* hmm_ref_owner_count_left() */
	      :: d_step { ref[p] == 1 ->
			MUST(owner[p] == OWNED, page_without_owner); count = 0 }
	      :: else
	      :: count = 0	/* discarded meanwhile */
	      fi;
	      do
	      :: d_step { count > 0 -> mapped[p]++; ref[p]++; count-- }
	      :: else -> break
	      od;
	      folio_unlock(p)
	   :: else
	   fi;
	   folio_put(p)
	:: else
	fi
}

/* ---- audit.c ----------------------------------------------------------- */

/* audit_block(), for one of its pages */
inline audit(p)
{
	lock_block(BLOCK(p));
	if
	:: IS_FREE(p) -> MUST(IDLE(p), page_not_idle)
	:: else ->
		/* audit_used_page() */
		f = PAGE_FOLIO(p);
		if
		:: ref[f] > 0 ->
			if
			:: owner[f] == 0 -> MUST(ref[f] == 0, page_without_owner)
			:: else
			fi
		:: else
		fi;
		f = 0
	fi;
	MUST(NR_FREE(BLOCK(p)) + nr_used[BLOCK(p)] == (BLOCK(p) == 0 -> 2 : 1), counts_differ);
	unlock_block(BLOCK(p))
}

/* ---- processes --------------------------------------------------------- */

/* Operations on page 2 show only what a second block is for: counts and reservations. */
inline choose(op)
{
	if
	:: op = 0 :: op = 1 :: op = 2 :: op = 3 :: op = 4 :: op = 5 :: op = 6 :: op = 7
	:: op = 8 :: op = 9 :: op = 10 :: op = 11 :: op = 12 :: op = 13 :: op = 14 :: op = 15
	fi
}

proctype cpu(byte op)
{
	byte round, f, nr, word, count;
	bool last, reserved, taken, got;

	for (round : 1 .. ROUNDS) {
		if
		:: op <= 7 ->
			/* An operation that finds the device not gone runs to its end. */
			if
			:: atomic { !gone -> unplug++ };
			   if
			   :: op < 3 -> handout(op, 1)
			   :: op == 3 -> handout(0, 2)
			   :: op == 4 || op == 5 -> audit(op - 4)
			   :: op == 6 || op == 7 -> find_mapping(op - 6)
			   fi;
			   unplug--
			:: else
			fi
		:: op == 8 || op == 9 -> to_system(op - 8)
		:: op >= 10 && op <= 12 -> zap(op - 10)
		:: op == 13 -> share(0)
		:: op == 14 -> reuse(0)
		:: op == 15 -> split()
		fi;
		if
		:: round < ROUNDS -> choose(op)
		:: else -> op = 0
		fi
	};
#ifdef REMOVE_LAST
	cpus_done++
#endif
}

/* hmm_ref_devmem_used(): block by block, each under its lock. */
inline count_used()
{
	used = 0;
	lock_block(0); used = used + nr_used[0]; unlock_block(0);
	lock_block(1); used = used + nr_used[1]; unlock_block(1)
}

#ifdef PATIENT
#define EVICTABLE(p)	(mapped[p] > 0 && locked[p] == 0 && ref[p] == mapped[p])
#else
#define EVICTABLE(p)	(mapped[p] > 0)
#endif

/* hmm_ref_remove(), and hmm_ref_suspend(), which does not wait for operations to end. */
proctype remove()
{
	byte p, f, nr, word, count, used;
	bool last, got, suspend;

#ifdef REMOVE_LAST
	(cpus_done == CPUS);
#endif
	if
	:: suspend = true
	:: stopped = true;
	   gone = true;
#ifndef NO_SRCU
	   (unplug == 0)
#endif
	fi;
	stopped = true;
	/* hmm_ref_evict_all() */
	count_used();
	do
	:: used == 0 -> break
	:: else ->
		/* It sleeps until there is something to evict, or a page has come back. */
		(EVICTABLE(0) || EVICTABLE(1) || EVICTABLE(2) || nr_used[0] + nr_used[1] < used);
		for (p : 0 .. NPAGES - 1) {
			find_mapping(p);
			to_system(p)
		};
		p = 0;
		count_used()
	od;
	MUST(free[0] == 3 && free[1] == 1, counts_differ);
	if
	:: suspend -> asleep = true
	:: else ->
		/* memunmap_pages() */
#ifndef NO_WAIT
		(pagemap_refs == 0);
#endif
		d_step {
			for (p : 0 .. NPAGES - 1) {
				MUST(IDLE(p) && keep[p] == 0 && mapped[p] == 0, page_not_idle)
			};
			MUST(owner_refs == 0, reference_lost);
			MUST(unplug > 0 || (committed == 0 && promised == 0), counts_differ);
			p = 0;
			chunk_freed = true	/* chunk_free() */
		}
	fi;
	ended = true
}

/* Looked at between any two steps: rule 1, and that reservations are kept. */
#define RULE_1(p)	(!IS_FREE(p) || (IDLE(p) && keep[p] == 0))
#define RULE_1_OF_ALL	(RULE_1(0) && RULE_1(1) && RULE_1(2))
#define PROMISE_KEPT	(promised <= NR_FREE(0) + NR_FREE(1))

active proctype monitor()
{
end:	atomic {
		!(RULE_1_OF_ALL && PROMISE_KEPT) ->
			MUST(RULE_1_OF_ALL, page_not_idle);
			MUST(PROMISE_KEPT, promise_broken)
	}
}

/* A folio in use at the start */
inline start(f, n, maps)
{
	free[BLOCK(f)] = free[BLOCK(f)] & ~BITS(f, n);
	nr_used[BLOCK(f)] = nr_used[BLOCK(f)] + n;
	committed = committed + n;
	pagemap_refs = pagemap_refs + n;
	owner_refs = owner_refs + n;
	owner[f] = OWNED;
	mapping[f] = 1;
	mapped[f] = maps;
	ref[f] = maps;
	if
	:: n == 2 -> head = true; tail = true; mapping[1] = TAIL_MAPPING; owner[1] = LARGE_MAPCOUNT
	:: else
	fi
}

init
{
	byte op1, op2;

	atomic {
		free[0] = 3;
		free[1] = 1;
		if
		:: true
		:: start(0, 1, 1); start(2, 1, 1)
		:: start(0, 1, 2)
		:: start(0, 1, 1); start(1, 1, 1)
		:: start(0, 2, 1)
		:: start(0, 2, 2)
		fi;
		/* The CPUs are alike: each pair of operations once. */
		choose(op1);
		if
		:: CPUS == 2 -> choose(op2)
		:: else -> op2 = op1
		fi;
		run cpu((op1 < op2 -> op1 : op2));
		if
		:: CPUS == 2 -> run cpu((op1 < op2 -> op2 : op1))
		:: else
		fi;
		op1 = 0;
		op2 = 0;
		run remove()
	}
}

ltl removed { <> ended }
