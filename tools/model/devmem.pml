// SPDX-License-Identifier: GPL-2.0-only
/*
 * The life of a device page, for the model checker spin.
 *
 * Two CPUs hand out pages, map them, share them, split a large folio, discard or
 * abandon them, while a third process removes the device. What is one statement here
 * is one atomic step; between two of them anything may happen on the others.
 *
 * Modelled as in the code, with its names: block_take(), take_whole(), init_pages(),
 * block_publish(), hmm_ref_devmem_folio_free(), _dissolve(), _folio_split() of the
 * driver; hmm_ref_devmem_stop(), _used() and the order of hmm_ref_remove();
 * zone_device_page_init(), folio_put(), free_zone_device_folio() and
 * memunmap_pages() of the core; speculative references by page frame number, as
 * migrate_device_pfns() takes them.
 *
 * Left out: data and copies, reservations and storage, device mappings, retired
 * pages. Lists of blocks are any choice. Three pages: 0 and 1 are a block, which may be
 * a large folio, 2 is another. Each CPU does ROUNDS operations.
 *
 * Proved: one owner at a time (take() and the ghost keep[]); no store to a page after
 * it was published (STORE); what rule 1 says of the free map, at any time (monitor);
 * every page comes back, and no reference to page, pagemap or owner is lost (the end of
 * remove); nothing touches a chunk that is freed (ALIVE); remove ends (a blocked
 * process is an invalid end state, and the claim removed).
 *
 * Controls: with one of these defined the model is wrong as a driver or a core could
 * be, and spin must find it.
 *
 *   CORE_2022	the core stores count 1 after folio_free, as before v6.1
 *   PUBLISH_FIRST	the driver clears the owner after it has published the page
 *   DIRECT_PUSH	an unused page goes to the free map without its reference put
 *   STOP_UNLOCKED	the stop flag is read before the block's lock is taken
 *   NO_WAIT	the chunk is freed when all pages are back, pagemap references or not
 *   SPLIT_FORGETS	the split callback does not pass the owner on
 */

#define NPAGES	3
#define NBLOCKS	2
#define BLOCK(p)	((p) / 2)

#ifndef ROUNDS
#define ROUNDS	2
#endif

/* struct page */
byte ref[NPAGES];	/* page_ref_count() */
bool locked[NPAGES];
bool mapping[NPAGES];
byte owner[NPAGES];	/* zone_device_data: the process, 0 is nobody */
bool compound;		/* pages 0 and 1 are a folio */

/* struct hmm_ref_block, hmm_ref_devmem, dev_pagemap, hmm_ref_owner */
bool free[NPAGES];
byte nr_used[NBLOCKS];
byte block_lock[NBLOCKS];	/* who holds it */
bool stopped;
byte pagemap_refs;
byte owner_refs;

/* page tables of all processes: how many map a page (as large, for a compound one) */
byte mapped[NPAGES];

/* Ghosts, which no code sees. */
byte keep[NPAGES];	/* who alone may store to the page */
bool chunk_freed;
bool gone;		/* remove has ended */

#define NR(p)		(compound && (p) == 0 -> 2 : 1)
#define IS_TAIL(p)	(compound && (p) == 1)
#define ALIVE		assert(!chunk_freed)
#define STORE(p)	assert(!chunk_freed && keep[p] == _pid)

inline lock_block(b)
{
	atomic { block_lock[b] == 0 -> block_lock[b] = _pid }
}

inline unlock_block(b)
{
	block_lock[b] = 0
}

/* ---- devmem.c ---------------------------------------------------------- */

/* Off the free map, under the block's lock. */
inline take(p)
{
	d_step {
		ALIVE;
		assert(keep[p] == 0 && owner[p] == 0 && ref[p] == 0);
		free[p] = false;
		keep[p] = _pid;
		nr_used[BLOCK(p)]++
	}
}

/* Publishing: the only way to the free map. After it, the page is somebody else's. */
inline block_publish(p, nr)
{
	lock_block(BLOCK(p));
	d_step {
		STORE(p);
		assert(!free[p]);
		keep[p] = 0;
		free[p] = true;
		nr_used[BLOCK(p)] = nr_used[BLOCK(p)] - nr;
		if
		:: nr == 2 ->
			STORE(1);
			assert(!free[1]);
			keep[1] = 0;
			free[1] = true
		:: else
		fi
	};
	unlock_block(BLOCK(p))
}

inline clear_owner(p)
{
	d_step { STORE(p); owner[p] = 0 }
}

inline folio_free(p, nr)
{
	d_step { ALIVE; assert(owner[p] != 0 && ref[p] == 0) };
	d_step {
		/* hmm_ref_devmem_dissolve() */
		if
		:: nr == 2 -> STORE(1); compound = false
		:: else
		fi
	};
#ifdef PUBLISH_FIRST
	owner_refs = owner_refs - nr;
	block_publish(p, nr);
	clear_owner(p)
#else
	clear_owner(p);
	owner_refs = owner_refs - nr;
	block_publish(p, nr)
#endif
}

/* ---- the core ---------------------------------------------------------- */

/* The last reference makes its holder the only one who may touch the page. */
inline folio_put(p)
{
	d_step {
		ALIVE;
		assert(ref[p] > 0 && !free[p]);
		ref[p]--;
		last = (ref[p] == 0);
		nr = NR(p);
		if
		:: last ->
			keep[p] = _pid;
			if
			:: nr == 2 -> keep[1] = _pid
			:: else
			fi
		:: else
		fi
	};
	if
	:: last ->
		/* free_zone_device_folio() */
		d_step { STORE(p); mapping[p] = false };
		folio_free(p, nr);
#ifdef CORE_2022
		d_step { STORE(p); ref[p] = 1 };
#endif
		d_step { ALIVE; pagemap_refs = pagemap_refs - nr }
	:: else
	fi;
	last = false
}

/* A page that has a reference can be found by anybody who walks page frame numbers. */
inline zone_device_page_init(p, order2)
{
	d_step {
		STORE(p);
		mapping[p] = false;
		compound = (order2 -> true : compound)
	};
	d_step { ALIVE; pagemap_refs = pagemap_refs + (order2 -> 2 : 1) };
	d_step {
		STORE(p);
		assert(ref[p] == 0);
		ref[p] = 1;
		keep[p] = 0;
		keep[1] = (order2 -> 0 : keep[1])
	};
	atomic { !locked[p] -> locked[p] = true }
}

inline folio_unlock(p)
{
	d_step { ALIVE; assert(locked[p] && ref[p] > 0); locked[p] = false }
}

/* ---- what CPUs do ------------------------------------------------------ */

/*
 * A folio that was handed out. The page table that it is committed to gets a reference
 * of its own; committed or not, who migrates unlocks it and puts his (rule 4).
 */
inline use(p)
{
	if
	:: d_step { ALIVE; mapping[p] = true; mapped[p]++; ref[p]++ };
	   folio_unlock(p);
	   folio_put(p)
	:: folio_unlock(p);
#ifdef DIRECT_PUSH
	   d_step { keep[p] = _pid; nr = NR(p); keep[1] = (nr == 2 -> _pid : keep[1]); ref[p] = 0 };
	   folio_free(p, nr)
#else
	   folio_put(p)
#endif
	fi
}

inline handout(p)
{
	taken = false;
#ifdef STOP_UNLOCKED
	may = !stopped;
	lock_block(BLOCK(p));
#else
	lock_block(BLOCK(p));
	may = !stopped;
#endif
	if
	:: may && free[p] -> take(p); taken = true
	:: else
	fi;
	unlock_block(BLOCK(p));
	if
	:: taken ->
		/* init_pages() */
		owner_refs++;
		d_step { STORE(p); owner[p] = _pid };
		zone_device_page_init(p, false);
		use(p)
	:: else
	fi;
	taken = false; may = false
}

inline handout_large()
{
	taken = false;
	lock_block(0);
	if
	:: !stopped && free[0] && free[1] -> take(0); take(1); taken = true
	:: else
	fi;
	unlock_block(0);
	if
	:: taken ->
		owner_refs = owner_refs + 2;
		d_step { STORE(0); owner[0] = _pid };
		zone_device_page_init(0, true);
		use(0)
	:: else
	fi;
	taken = false
}

/* munmap(), MADV_DONTNEED, exit: the page table's reference is put. */
inline zap(p)
{
	if
	:: d_step { mapped[p] > 0 && !IS_TAIL(p) -> ALIVE; mapped[p]-- };
	   folio_put(p)
	:: else
	fi
}

/* fork(): a second page table maps the page, and holds a reference. */
inline share(p)
{
	if
	:: d_step { mapped[p] == 1 && ref[p] > 0 -> ALIVE; mapped[p]++; ref[p]++ }
	:: else
	fi
}

/*
 * The core splits a folio that it has locked and that nobody but a page table has
 * references to. The mapping is gone meanwhile, and the count frozen at 0. The parts are
 * mapped again unless somebody discards them first.
 */
inline split()
{
	if
	:: atomic { compound && mapped[0] == 1 && ref[0] == 1 && !locked[0] ->
			ALIVE; locked[0] = true; ref[0] = 2 };
	   taken = false;
	   d_step {
		if
		:: compound && ref[0] == 2 && mapped[0] == 1 ->
			taken = true; mapped[0] = 0; ref[0] = 0;
			keep[0] = _pid; keep[1] = _pid
		:: else
		fi
	   };
	   if
	   :: taken ->
#ifndef SPLIT_FORGETS
		/* hmm_ref_devmem_folio_split() */
		d_step { STORE(1); owner[1] = owner[0] };
#endif
		d_step { STORE(1); compound = false; mapping[1] = true; locked[1] = true };
		d_step { STORE(1); ref[1] = 1; keep[1] = 0 };
		d_step { STORE(0); ref[0] = 1; keep[0] = 0 };
		if
		:: d_step { ALIVE; mapped[0] = 1; ref[0]++; mapped[1] = 1; ref[1]++ }
		:: true
		fi;
		folio_unlock(1);
		folio_put(1)
	   :: else
	   fi;
	   taken = false;
	   folio_unlock(0);
	   folio_put(0)
	:: else
	fi
}

proctype cpu()
{
	byte round, nr;
	bool last, taken, may;

	for (round : 1 .. ROUNDS) {
		if
		:: handout(0)
		:: handout(1)
		:: handout(2)
		:: handout_large()
		:: true -> zap(0)
		:: true -> zap(1)
		:: true -> zap(2)
		:: true -> share(0)
		:: true -> share(2)
		:: true -> split()
		fi
	}
}

/* ---- main.c: hmm_ref_remove(), with eviction --------------------------- */

/* A reference by page frame number; the lock; all mappings replaced, if that is all. */
inline evict(p)
{
	if
	:: atomic { ref[p] > 0 && mapped[p] > 0 -> ALIVE; ref[p]++ };
	   if
	   :: atomic { !locked[p] -> locked[p] = true };
	      d_step {
		count = 0;
		if
		:: !IS_TAIL(p) && ref[p] == mapped[p] + 1 ->
			count = mapped[p]; mapped[p] = 0
		:: else
		fi
	      };
	      do
	      :: count > 0 -> d_step { ALIVE; ref[p]--; count-- }
	      :: else -> break
	      od;
	      folio_unlock(p)
	   :: else
	   fi;
	   folio_put(p)
	:: else
	fi
}

/* hmm_ref_devmem_used(): block by block, each under its lock. */
inline count_used()
{
	used = 0;
	lock_block(0); used = used + nr_used[0]; unlock_block(0);
	lock_block(1); used = used + nr_used[1]; unlock_block(1)
}

proctype remove()
{
	byte nr, used, count, p;
	bool last;

	stopped = true;
	count_used();
	do
	:: used == 0 -> break
	:: else ->
		/* Nothing to evict, and nothing that comes back: wait. */
		(mapped[0] + mapped[1] + mapped[2] > 0 || nr_used[0] + nr_used[1] < used);
		evict(0);
		evict(1);
		evict(2);
		count_used()
	od;

	/* memunmap_pages() */
#ifdef NO_WAIT
	skip;
#else
	(pagemap_refs == 0);
#endif
	d_step {
		for (p : 0 .. NPAGES - 1) {
			assert(free[p] && ref[p] == 0 && !locked[p] && !mapping[p]);
			assert(owner[p] == 0 && keep[p] == 0 && mapped[p] == 0)
		};
		assert(owner_refs == 0);
		p = 0;
		chunk_freed = true
	};
	gone = true
}

/* Rule 1, looked at between any two steps. */
#define IDLE(p)	(!free[p] || (ref[p] == 0 && !locked[p] && !mapping[p] && owner[p] == 0))

active proctype monitor()
{
end:	atomic { !(IDLE(0) && IDLE(1) && IDLE(2)) -> assert(false) }
}

init
{
	byte p;

	atomic {
		for (p : 0 .. NPAGES - 1) {
			free[p] = true
		};
		run cpu();
		run cpu();
		run remove()
	}
}

ltl removed { <> gone }
