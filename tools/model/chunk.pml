// SPDX-License-Identifier: GPL-2.0-only
/*
 * The life of a chunk, for the model checker spin: the task that adds it, and the work item that
 * the shrinker queues, against handouts, last puts, and tasks that inspect a block. As in
 * devmem.pml, one statement of the code is one step here, and d_step joins statements that are
 * atomic in the code.
 *
 * There are two chunks of a page each: A, which can be removed, and one that stays. So either chunk
 * can fulfil a reservation, and the page of A may be promised, or not.
 *
 * Controls: each of the other macros adds one mistake that a driver could have, and spin must find
 * it. model.rst has the steps to each error.
 */

#define TASKS	2

#ifndef ROUNDS
#define ROUNDS	2
#endif

/* struct hmm_ref_chunk and its block, A */
#ifdef PUBLISHED_LATE
byte users;
bool live = true;
#else
byte users = 1;
bool live;
#endif
bool free_a = true;	/* the free map */
byte block_lock;	/* the process that holds it */
bool listed;		/* on one of hmm_ref_devmem::avail */
byte pagemap_refs;

/* struct hmm_ref_devmem */
byte dm_lock;
byte reserved;
byte used;
byte nr_pages = 1;
bool free_other = true;
bool found;		/* in hmm_ref_devmem::chunks */

/* Processes that RCU waits for: in a section of it, or with interrupts off. */
bool rcu[TASKS + 2];

/* Ghosts. */
bool unmapped;		/* the struct pages are gone */
bool freed;		/* and so is struct hmm_ref_chunk */

hidden byte freed_chunk_touched;
hidden byte page_of_gone_chunk;
hidden byte promise_broken;
hidden byte chunk_in_use;

#define MUST(cond, mistake)	assert((cond) || mistake)
#define CHUNK			MUST(!freed, freed_chunk_touched)
#define PAGE			MUST(!unmapped, page_of_gone_chunk)
#define AVAILABLE		(nr_pages - reserved - used)

inline lock_block()
{
	atomic { block_lock == 0 -> CHUNK; block_lock = _pid }
}

inline unlock_block()
{
	d_step { CHUNK; block_lock = 0 }
}

inline lock_dm()
{
	atomic { dm_lock == 0 -> dm_lock = _pid }
}

inline unlock_dm()
{
	dm_lock = 0
}

inline rcu_read_lock()
{
	rcu[_pid] = true
}

inline rcu_read_unlock()
{
	rcu[_pid] = false
}

/* hmm_ref_devmem_reserve() of one page */
inline reserve()
{
	d_step {
		dm_lock == 0 ->
		room = AVAILABLE > 0;
		reserved = reserved + room
	}
}

/* next_block(): 1 is that of A, 2 the other, 0 none */
inline next_block()
{
	atomic {
		dm_lock == 0 ->
		if
		:: listed && free_a -> block = 1
		:: free_other -> block = 2
		:: !(listed && free_a) && !free_other -> block = 0
		fi
	}
}

/* block_take() and block_claim(), with the counts of hmm_ref_block_fill() */
inline block_take()
{
	lock_block();
	lock_dm();
	taken = free_a;
#ifndef NOT_LIVE
	d_step { CHUNK; taken = taken && live };
#endif
	if
	:: taken ->
		d_step { CHUNK; free_a = false; reserved--; used++ };
#ifndef USERS_OF_NO_PAGES
		d_step { CHUNK; users++ };
#endif
	:: else
	fi;
	unlock_dm();
	unlock_block()
}

inline take_other()
{
	d_step {
		dm_lock == 0 ->
		taken = free_other;
		free_other = false;
		reserved = reserved - taken;
		used = used + taken
	}
}

/* hmm_ref_devmem_handout(). A reservation always finds a page. */
inline handout()
{
	taken = false;
	do
	:: taken -> break
	:: else ->
#ifndef NO_READER
		rcu_read_lock();
#endif
		next_block();
		MUST(block != 0, promise_broken);
		if
		:: block == 1 -> block_take()
		:: block == 2 -> take_other()
		fi;
#ifndef NO_READER
		rcu_read_unlock()
#endif
	od
	/* zone_device_folio_init() */
	if
	:: block == 1 -> d_step { PAGE; CHUNK; pagemap_refs++ }
	:: else
	fi
}

/* hmm_ref_devmem_folio_free() and the core behind it */
inline last_put()
{
	if
	:: block == 1 ->
		PAGE;
		rcu_read_lock();	/* interrupts are off */
		lock_block();
		d_step { CHUNK; free_a = true };
#ifndef USERS_OF_NO_PAGES
#ifdef USERS_UNLOCKED
		count = users;
		users = count - 1;
#else
		lock_dm();
		d_step { CHUNK; MUST(users > 0, chunk_in_use); users-- };
		unlock_dm();
#endif
#endif
		used--;
		unlock_block();
		rcu_read_unlock();
		d_step { PAGE; pagemap_refs-- }
	:: else -> d_step { free_other = true; used-- }
	fi
}

proctype task()
{
	byte round, block, count;
	bool room, taken;

	for (round : 1 .. ROUNDS) {
		if
		:: reserve();
		   if
		   :: room -> handout(); last_put()
		   :: else
		   fi
		/* hmm_ref_devmem_get_block(), a look as eviction has, hmm_ref_chunk_put() */
		:: rcu_read_lock();
		   if
		   :: found ->
			lock_dm();
			d_step {
				CHUNK;
				taken = live;
#ifndef LOOK_WITHOUT_USE
				users = users + taken
#endif
			};
			unlock_dm()
		   :: else -> taken = false
		   fi;
		   rcu_read_unlock();
		   if
		   :: taken ->
			CHUNK;
			PAGE;
#ifndef LOOK_WITHOUT_USE
			lock_dm();
			d_step { CHUNK; MUST(users > 0, chunk_in_use); users-- };
			unlock_dm()
#endif
		   :: else
		   fi
		fi;
		taken = false;
		room = false;
		block = 0
	}
}

/* hmm_ref_devmem_add_chunk(), from xa_store() on */
proctype add()
{
	found = true;
	/* chunk_publish() */
	d_step {
		dm_lock == 0 ->
		nr_pages++;
		listed = true;
#ifdef PUBLISHED_LATE
		users = 0
#else
		live = true;
		MUST(users > 0, chunk_in_use);
		users--
#endif
	}
}

/* reclaim_work(), once */
proctype reclaim()
{
	byte i;

	/* take_idle() */
	atomic {
#ifdef PROMISED
		dm_lock == 0 && listed && users == 0 ->
#else
		dm_lock == 0 && listed && users == 0 && AVAILABLE > 0 ->
#endif
		live = false;
		listed = false;
		nr_pages--;
		MUST(reserved + used <= nr_pages, promise_broken)
	};
	/* memunmap_pages() */
#ifndef NO_PAGEMAP_WAIT
	pagemap_refs == 0;
#endif
	d_step { MUST(free_a, chunk_in_use); unmapped = true };
	found = false;
	/* synchronize_rcu() */
#ifndef NO_SYNCHRONIZE
	for (i : 1 .. TASKS) {
		!rcu[i]
	};
#endif
	freed = true
}

init
{
	atomic {
		run task();
		run task();
		run reclaim();
		run add()
	};
	/* The work item may find a user, or a promise, to the end. */
	(_nr_pr == 1 || _nr_pr == 2)
}
