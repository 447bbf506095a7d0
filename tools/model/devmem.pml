// SPDX-License-Identifier: GPL-2.0-only
/*
 * The life of a device page, for the model checker spin.
 *
 * Two CPUs run operations of users and of the core while a third process removes the
 * device or suspends it. One statement of the code is one step here. A value that the CPU
 * reads, changes and writes back takes two steps, so the model finds a missing lock. d_step
 * joins statements that are atomic in the code (atomic instructions, statements under a
 * page table lock, or under hmm_ref_devmem::lock if it covers no more than these). It also
 * adds ghosts, which no code sees, to the step that they describe.
 * Documentation/misc-devices/hmm_ref/model.rst has the table of functions and labels, the
 * parts that are left out, and the claims.
 *
 * There are three pages: 0 and 1 are a block, which may be a large folio, 2 is another
 * block. The search starts in each of the states of init, where the device is at rest.
 *
 *   ROUNDS		operations of each CPU
 *   CPUS		1 or 2
 *   REMOVE_LAST	removal begins after the CPUs have ended, not at any time
 *   PATIENT		removal sleeps until a page has only references of page tables
 *
 * Controls: each of the other macros adds one mistake that a driver or a core could have,
 * and spin must find it. model.rst has the steps to each error.
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
byte locked[NPAGES];	/* PG_locked: the process that holds it */
byte mapping[NPAGES];	/* 0, one of two anon_vmas, or TAIL_MAPPING */
byte owner[NPAGES];	/* zone_device_data: 0, OWNED or LARGE_MAPCOUNT */
bool flags[NPAGES];	/* flags that the data leaves */
bool head;		/* PG_head of page 0 */
bool tail;		/* compound_head of page 1 leads to page 0 */

#define TAIL_MAPPING	3
#define OWNED		1
/* _large_mapcount of a folio lies where page 1 has its zone_device_data. */
#define LARGE_MAPCOUNT	2

/* struct hmm_ref_block, hmm_ref_devmem, hmm_ref_device, dev_pagemap, hmm_ref_owner */
byte free[NBLOCKS];	/* the free map, a bit per page */
byte nr_free[NBLOCKS];
byte nr_used[NBLOCKS];
byte block_lock[NBLOCKS];	/* the process that holds it */
bool block_reserved;	/* block 0 is reserved */
bool whole;		/* block 0 is on the list of whole blocks */
byte dm_lock;		/* hmm_ref_devmem::lock: the process that holds it */
byte reserved;
byte used;
bool stopped;
bool gone;
byte unplug;		/* readers of this SRCU */
byte pagemap_refs;
byte owner_refs;	/* pages' references */

/* Page tables of all processes: how many map a page, as large for a large folio */
byte mapped[NPAGES];

/* Ghosts. */
byte keep[NPAGES];	/* the only process that may store to the page */
bool chunk_freed;
bool asleep;		/* memory has no power */
bool ended;		/* remove() */
byte cpus_done;

#define PAGE_FOLIO(p)	((p) == 1 && tail -> 0 : (p))
#define NR(f)		((f) == 0 && head -> 2 : 1)
#define BITS(f, n)	((n) == 2 -> 3 : BIT(f))
#define IS_FREE(p)	(free[BLOCK(p)] & BIT(p))
#define NR_PAGES(b)	((b) == 0 -> 2 : 1)
#define NR_FREE(b)	((free[b] & 1) + (free[b] >> 1))
#define IS_RESERVED(b)	((b) == 0 && block_reserved)
/* A _large_mapcount that is not initialised yet was NULL. It counts from -1. */
#define FOLIO_MAPPED(f)	((f) == 0 && head && owner[1] != LARGE_MAPCOUNT || mapped[f] > 0)

/* Rule 1 of devmem.c. */
#define IDLE(p)		(ref[p] == 0 && locked[p] == 0 && mapping[p] == 0 && owner[p] == 0 && \
			 !((p) == 0 && head) && !((p) == 1 && tail))

/* The message of spin for a failed assertion ends with the name of the mistake. */
hidden byte freed_chunk_touched;
hidden byte page_of_another;
hidden byte page_not_idle;
hidden byte page_not_clean;
hidden byte page_without_owner;
hidden byte reference_lost;
hidden byte lock_of_another;
hidden byte wrong_folio;
hidden byte mapping_not_stable;
hidden byte promise_broken;
hidden byte counts_differ;
hidden byte page_escaped;

#define MUST(cond, mistake)	assert((cond) || mistake)
#define ALIVE			MUST(!chunk_freed, freed_chunk_touched)
#define STORE(p)		ALIVE; MUST(keep[p] == _pid, page_of_another)
#define ALL_IDLE(f, n)		MUST(IDLE(f) && (n == 1 || IDLE(1)), page_not_idle)
/* hmm_ref_verify_block(). Without the block's lock it would see half of a change. */
#if defined(TAKE_UNLOCKED) || defined(PUBLISH_UNLOCKED)
#define COUNTS_AGREE(b)		skip
#else
#define COUNTS_AGREE(b)		MUST(nr_free[b] == NR_FREE(b) && \
				     nr_free[b] + nr_used[b] == NR_PAGES(b), counts_differ)
#endif

inline lock_block(b)
{
	atomic { block_lock[b] == 0 -> ALIVE; block_lock[b] = _pid }
}

inline unlock_block(b)
{
	d_step { ALIVE; MUST(block_lock[b] == _pid, lock_of_another); block_lock[b] = 0 }
}

inline lock_dm()
{
	atomic { dm_lock == 0 -> dm_lock = _pid }
}

inline unlock_dm()
{
	dm_lock = 0
}

/* Guards a step that contains all statements under the lock. */
#define DM_LOCK_FREE	(dm_lock == 0)

/* ---- chunk.c, devmem.c, devmem_large.c --------------------------------- */

/* hmm_ref_block_enlist(): only the list of whole blocks */
inline enlist(b)
{
	whole = (b == 0 -> nr_free[0] == 2 && !block_reserved : whole)
}

/* hmm_ref_devmem_free_pages(). All pages have storage. */
inline look_for_room(n)
{
	room = !stopped && reserved + used + n <= NPAGES && (n == 1 || whole)
}

/* promise(): a single page, or block 0 for a large folio */
inline reserve(n)
{
#ifdef COMPARE_UNLOCKED
	look_for_room(n);
#endif
	d_step {
		DM_LOCK_FREE ->
#ifndef COMPARE_UNLOCKED
		look_for_room(n);
#endif
		if
		:: room ->
			block_reserved = block_reserved || n == 2;
			whole = whole && n == 1;
			reserved = reserved + n
		:: else
		fi
	}
}

/* hmm_ref_devmem_unreserve() */
inline unreserve(n)
{
	if
	:: room && n == 2 ->
		lock_block(0);
		d_step {
			DM_LOCK_FREE ->
			block_reserved = false;
			reserved = reserved - 2;
			enlist(0);
			COUNTS_AGREE(0)
		};
		unlock_block(0)
	:: room && n == 1 -> d_step { DM_LOCK_FREE -> reserved-- }
	:: else
	fi;
	room = false
}

/* The pages are counted under the lock under which the flag is read. */
inline lock_dm_and_look()
{
#ifdef STOP_UNLOCKED
	taken = !stopped;
	lock_dm()
#else
	lock_dm();
	taken = !stopped
#endif
}

/* block_claim(), for the page that block_take() tries */
inline block_claim(p)
{
	lock_dm_and_look();
#ifndef CLAIM_RESERVED
	taken = taken && !IS_RESERVED(BLOCK(p));
#endif
	taken = taken && IS_FREE(p);
	if
	:: taken ->
		word = nr_free[BLOCK(p)];
		nr_free[BLOCK(p)] = word - 1;
		word = nr_used[BLOCK(p)];
		nr_used[BLOCK(p)] = word + 1;
		word = 0;
		d_step {
			room = false;
			reserved--;
#ifndef COUNT_LATE
			used++;
#endif
			enlist(BLOCK(p))
		}
	:: else
	fi;
	unlock_dm();
#ifdef COUNT_LATE
	used = used + taken
#endif
}

/* next_block() and block_take() */
inline block_take(p)
{
	d_step { DM_LOCK_FREE -> taken = !stopped && !IS_RESERVED(BLOCK(p)) };
	if
	:: taken ->
#ifndef TAKE_UNLOCKED
		lock_block(BLOCK(p));
#endif
		block_claim(p);
		if
		:: taken ->
			word = free[BLOCK(p)];
			d_step {
				ALIVE;
				MUST(!asleep, page_escaped);
				MUST(keep[p] == 0, page_of_another);
				ALL_IDLE(p, 1);	/* hmm_ref_verify_idle() */
				free[BLOCK(p)] = word & ~BIT(p);
				keep[p] = _pid;
				word = 0;
				COUNTS_AGREE(BLOCK(p))
			}
		:: else
		fi;
#ifndef TAKE_UNLOCKED
		unlock_block(BLOCK(p))
#endif
	:: else
	fi
}

/* take_reserved(): block 0 */
inline take_reserved()
{
#ifndef TAKE_UNLOCKED
	lock_block(0);
#endif
	lock_dm_and_look();
	d_step {
		MUST(!taken || nr_free[0] == 2, promise_broken);
		block_reserved = false;
		room = false;
		reserved = reserved - 2
	};
	if
	:: taken ->
		d_step {
			ALIVE;
			MUST(!asleep, page_escaped);
			MUST(keep[0] == 0 && keep[1] == 0, page_of_another);
			free[0] = 0;
			keep[0] = _pid;
			keep[1] = _pid
		};
		nr_free[0] = 0;
		nr_used[0] = 2;
		used = used + 2
	:: else
	fi;
	d_step { enlist(0); COUNTS_AGREE(0) };
	unlock_dm();
#ifndef TAKE_UNLOCKED
	unlock_block(0)
#endif
}

/* The only way to the free map. After it, another process may own the page. */
inline block_publish(f, n)
{
	ALL_IDLE(f, n);	/* hmm_ref_verify_idle() */
#ifndef PUBLISH_UNLOCKED
	lock_block(BLOCK(f));
#endif
#ifdef UNCOUNT_FIRST
	used = used - n;
#endif
	word = free[BLOCK(f)];
	d_step {
		STORE(f);
		MUST((word & BITS(f, n)) == 0, counts_differ);
		free[BLOCK(f)] = word | BITS(f, n);
		keep[f] = 0;
		keep[1] = (n == 2 -> 0 : keep[1])
	};
	word = nr_free[BLOCK(f)];
	nr_free[BLOCK(f)] = word + n;
	word = nr_used[BLOCK(f)];
	nr_used[BLOCK(f)] = word - n;
	word = 0;
	d_step { DM_LOCK_FREE -> enlist(BLOCK(f)); COUNTS_AGREE(BLOCK(f)) };
#ifndef UNCOUNT_FIRST
	used = used - n;
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

/* One page of the loop in zone_device_page_init(): no other process has its flags. */
inline reset_page(p)
{
	d_step {
		STORE(p);
		MUST(ref[p] == 0, page_not_idle);
		locked[p] = 0;
#ifndef FLAGS_LEFT
		flags[p] = false;
#endif
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
		/* PG_large_rmappable is a flag of the second page. */
		d_step { STORE(1); owner[1] = LARGE_MAPCOUNT; flags[1] = true; keep[1] = 0 }
	:: else
	fi
}

/* ---- operations -------------------------------------------------------- */

/* hmm_ref_devmem_handout(), _handout_large(), and the fate of the page (rule 4). */
inline handout(p, n)
{
	reserve(n);
	if
	:: room ->
		if
		:: n == 1 -> block_take(p)
		:: n == 2 -> take_reserved()
		:: true	/* nothing moves after all */
		fi;
		if
		:: taken ->
			taken = false;
			/* init_pages() */
			d_step { ALL_IDLE(p, n); owner_refs = owner_refs + n };
#ifndef OWNER_LATE
			d_step { STORE(p); owner[p] = OWNED };
#endif
			zone_device_page_init(p, n);
			d_step { ALIVE; MUST(!flags[p], page_not_clean) };
#ifdef OWNER_LATE
			owner[p] = OWNED;
#endif
			if
			:: true ->
				/* migrate_vma_pages(), migrate_vma_finalize() */
				d_step { ALIVE; mapping[p] = 1; flags[p] = true };
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
		:: else
		fi;
		unreserve(n)
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

/* ---- migrations to the system ------------------------------------------- */

/*
 * migrate_device_unmap() to _finalize(), of a locked folio with a reference: from all page
 * tables. A folio with other references stays.
 */
inline move_locked(p)
{
	do
	:: d_step { mapped[p] > 0 -> mapped[p]--; ref[p]--; count++ }
	:: else -> break
	od;
	if
	/* count_departed() */
	:: d_step { ref[p] == 1 -> MUST(owner[p] == OWNED, page_without_owner); count = 0 }
	:: else
	:: count = 0	/* discarded meanwhile */
	fi;
	do
	:: d_step { count > 0 -> mapped[p]++; ref[p]++; count-- }
	:: else -> break
	od;
	folio_unlock(p);
	folio_put(p)
}

/* hmm_ref_to_system() of the pages of one page table. A CPU fault does this, too. */
inline to_system(p)
{
	if
	:: atomic { mapped[p] > 0 -> ALIVE; ref[p]++ };
	   if
	   :: folio_trylock(p) -> move_locked(p)
	   :: else -> folio_put(p)
	   fi
	:: else
	fi
}

/* is_owned() */
inline is_owned(p)
{
	d_step { ALIVE; f = PAGE_FOLIO(p) };
	if
	:: d_step { ref[f] > 0 -> ref[f]++ };
	   d_step { MUST(f != PAGE_FOLIO(p) || owner[f] == OWNED, page_without_owner) };
	   folio_put(f)
	:: else
	fi;
	f = 0
}

/* hmm_ref_evict_run(), of a page; migrate_device_pfn_lock(): a tail has no count. */
inline evict(p)
{
	if
	:: d_step { ref[p] > 0 -> ALIVE; ref[p]++ };
#ifdef EVICT_UNLOCKED
	   got = true;
#else
	   if
	   :: folio_trylock(p) -> got = true
	   :: else
	   fi;
#endif
#ifndef EVICT_MOVED
	   if
	   :: got && !FOLIO_MAPPED(p) ->
		got = false;
#ifndef EVICT_UNLOCKED
		folio_unlock(p)
#endif
	   :: else
	   fi;
#endif
	   if
	   :: got ->
		/* folio_get_anon_vma() */
		word = mapping[p];
		d_step {
			MUST(p == PAGE_FOLIO(p), wrong_folio);
			MUST(mapping[p] == word && (word == 1 || word == 2), mapping_not_stable);
			word = 0;
			got = false
		};
#ifdef EVICT_UNLOCKED
		folio_put(p)
#else
		move_locked(p)
#endif
	   :: else -> folio_put(p)
	   fi
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
	COUNTS_AGREE(BLOCK(p));
	unlock_block(BLOCK(p))
}

/* ---- processes --------------------------------------------------------- */

/* Page 2 only serves counts and reservations of a second block, with few operations. */
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
	bool last, room, taken, got;

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
			   :: op == 6 || op == 7 -> is_owned(op - 6); evict(op - 6)
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

#ifdef PATIENT
#define EVICTABLE(p)	(mapped[p] > 0 && locked[p] == 0 && ref[p] == mapped[p])
#else
#define EVICTABLE(p)	(mapped[p] > 0)
#endif

inline stop()
{
#ifdef SET_UNLOCKED
	stopped = true
#else
	d_step { DM_LOCK_FREE -> stopped = true }
#endif
}

/* hmm_ref_device_remove(), and sleep_prepare(), which does not wait for operations to end. */
proctype remove()
{
	byte p, f, nr, word, count;
	bool last, got, suspend;

#ifdef REMOVE_LAST
	(cpus_done == CPUS);
#endif
	if
	:: stop(); suspend = true
	:: stop();
	   gone = true;
#ifndef NO_SRCU
	   (unplug == 0)
#endif
	fi;
	/* hmm_ref_evict_all(). It sleeps until there is a page to evict. */
	do
	/* hmm_ref_devmem_used() */
	:: d_step { used == 0 -> MUST(free[0] == 3 && free[1] == 1, page_escaped) } -> break
	:: EVICTABLE(0) || EVICTABLE(1) || EVICTABLE(2) ->
		for (p : 0 .. NPAGES - 1) {
			evict(p)
		};
		p = 0
	od;
	if
	:: suspend -> asleep = true
	:: else ->
		/* memunmap_pages() */
#ifndef NO_WAIT
		(pagemap_refs == 0);
#endif
		d_step {
			MUST(nr_free[0] == 2 && nr_used[0] == 0, counts_differ);
			MUST(nr_free[1] == 1 && nr_used[1] == 0, counts_differ);
			for (p : 0 .. NPAGES - 1) {
				MUST(IDLE(p) && keep[p] == 0 && mapped[p] == 0, page_not_idle)
			};
			MUST(owner_refs == 0, reference_lost);
			MUST(unplug > 0 || (used == 0 && reserved == 0), counts_differ);
			p = 0;
			chunk_freed = true	/* chunk_free() */
		}
	fi;
	ended = true
}

/* Checks between any two steps: rule 1, and that reservations are kept. */
#define RULE_1(p)	(!IS_FREE(p) || (IDLE(p) && keep[p] == 0))
#define RULE_1_OF_ALL	(RULE_1(0) && RULE_1(1) && RULE_1(2))
#define PROMISE_KEPT	(reserved <= NR_FREE(0) + NR_FREE(1) && (!block_reserved || free[0] == 3))

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
	nr_free[BLOCK(f)] = nr_free[BLOCK(f)] - n;
	nr_used[BLOCK(f)] = nr_used[BLOCK(f)] + n;
	used = used + n;
	pagemap_refs = pagemap_refs + n;
	owner_refs = owner_refs + n;
	owner[f] = OWNED;
	mapping[f] = 1;
	mapped[f] = maps;
	ref[f] = maps;
	flags[f] = true;
	if
	:: n == 2 ->
		head = true;
		tail = true;
		flags[1] = true;
		mapping[1] = TAIL_MAPPING;
		owner[1] = LARGE_MAPCOUNT
	:: else
	fi
}

init
{
	byte op1, op2;

	atomic {
		free[0] = 3;
		free[1] = 1;
		nr_free[0] = 2;
		nr_free[1] = 1;
		if
		:: true
		:: start(0, 1, 1); start(2, 1, 1)
		:: start(0, 1, 2)
		:: start(0, 1, 1); start(1, 1, 1)
		:: start(0, 2, 1)
		:: start(0, 2, 2)
		fi;
		enlist(0);
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
