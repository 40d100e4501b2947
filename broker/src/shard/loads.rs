//! Reads of storage: how many are under way, and which wait because there are enough or storage was too busy for them, in rounds:
//! in each one of every user's, oldest first, so that who asks for much waits longer, and others do not wait for him.
//!
//! All shards share storage's queue, which knows no users: no more of a shard are there than its threads need to have something
//! to do. Whom it refuses waits here: as each read of the shard ends two are tried, so that as many are under way again as
//! storage takes; when none is, one is tried in a while.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    rc::Rc,
};

use rialto_core::{
    counts::Counts,
    io::{Answer, Input, Query, Ticket},
};
use rialto_protocol::ids::UserId;

use super::{
    engine::Engine,
    lookup::{self, LookupError},
};

/// Under way at most: what storage's threads read of memory in a long round of the shard.
const UNDER_WAY_MAX: usize = 128;
/// Tried as one has ended: the one that has its place, and one more in case that there is room again.
const TRIED_PER_ENDED: usize = 2;
/// After this long one is tried while none is under way, microseconds: as long as storage's threads take for some reads.
const TRIED_AFTER_US: u64 = 1_000;

/// See the module.
#[derive(Default)]
pub(crate) struct Loads {
    /// Given to the next one.
    number: Cell<u64>,
    under_way: Cell<usize>,
    /// By round and number.
    waiting: RefCell<BTreeMap<(u64, u64), Load>>,
    /// The round that those are of which are tried now.
    round: Cell<u64>,
    /// Of each user, under way and waiting.
    by_user: RefCell<Counts<UserId>>,
    /// Of those that wait, how many are to be tried now.
    due: Cell<usize>,
    /// When one is tried if none is under way, monotonic microseconds.
    due_us: Cell<u64>,
}

/// A read that the core has asked for.
#[derive(Debug)]
pub(crate) struct Load {
    /// Its place among all of the shard: its round, and its number.
    place: (u64, u64),
    ticket: Ticket,
    user: UserId,
    query: Query,
}

/// What is to be done about a new one.
#[derive(Debug)]
pub(crate) enum Admitted {
    /// It is to be tried.
    Now(Load),
    /// It waits behind others.
    Later,
    /// There are too many.
    Refused,
}

impl Loads {
    /// Takes in a new one. There are `count_max` at most: more than all that the core lets wait for a read, since those whose
    /// clients are gone are read all the same, and count with nobody.
    pub(crate) fn admit(
        &self,
        ticket: Ticket,
        user: UserId,
        query: Query,
        count_max: usize,
    ) -> Admitted {
        let mut waiting = self.waiting.borrow_mut();
        if self.under_way.get() + waiting.len() >= count_max {
            return Admitted::Refused;
        }
        let number = self.number.replace(self.number.get() + 1);
        let before_it = self.by_user.borrow_mut().add(user);
        let load = Load {
            place: (self.round.get() + u64::from(before_it), number),
            ticket,
            user,
            query,
        };
        if waiting.is_empty() && self.under_way.get() < UNDER_WAY_MAX {
            self.under_way.set(self.under_way.get() + 1);
            return Admitted::Now(load);
        }
        waiting.insert(load.place, load);
        Admitted::Later
    }

    /// Takes in that one has ended.
    fn end(&self, user: UserId) {
        self.under_way.set(self.under_way.get() - 1);
        self.by_user.borrow_mut().remove(&user);
        if self.are_waiting() {
            let room = UNDER_WAY_MAX - self.under_way.get();
            self.due.set(room.min(self.due.get() + TRIED_PER_ENDED));
        }
    }

    /// Takes in that storage was too busy for one: it has its place again among those that wait.
    fn put_back(&self, load: Load, mono_us: u64) {
        self.under_way.set(self.under_way.get() - 1);
        self.due_us.set(mono_us + TRIED_AFTER_US);
        self.waiting.borrow_mut().insert(load.place, load);
    }

    pub(crate) fn are_waiting(&self) -> bool {
        !self.waiting.borrow().is_empty()
    }

    /// When one of those that wait is to be tried whatever happens, monotonic microseconds; `None`: as one ends.
    pub(crate) fn due_us(&self) -> Option<u64> {
        (self.are_waiting() && self.under_way.get() == 0).then(|| self.due_us.get())
    }

    /// The next of those that wait, if one is to be tried now.
    pub(crate) fn next(&self, mono_us: u64) -> Option<Load> {
        let is_due = self.due_us().is_some_and(|due_us| mono_us >= due_us);
        let due = self.due.get();
        if due == 0 && !is_due {
            return None;
        }
        let Some((_, load)) = self.waiting.borrow_mut().pop_first() else {
            self.due.set(0);
            return None;
        };
        self.due.set(due.saturating_sub(1));
        self.under_way.set(self.under_way.get() + 1);
        self.round.set(self.round.get().max(load.place.0));
        Some(load)
    }
}

/// Reads and tells the core, unless storage is too busy.
pub(crate) async fn read(engine: Rc<Engine>, load: Load) {
    let _guard = engine.node().fate.guard(engine.id());
    let result = lookup::answer(engine.node().store.clone(), load.query.clone()).await;
    if result.as_ref().is_err_and(LookupError::is_busy) {
        let mono_us = engine.node().clock.now().mono_us;
        engine.loads().put_back(load, mono_us);
        // The pump has a timer to set.
        return engine.turn().ring();
    }
    // While it waits, its place among those under way is not given to another.
    engine.answer_turn().await;
    let _working = engine.turns().answers().working();
    engine.loads().end(load.user);
    tell(&engine, load.ticket, result);
}

/// Tells the core how a read ended.
pub(crate) fn tell(engine: &Engine, ticket: Ticket, result: Result<Answer, LookupError>) {
    let answer = match result {
        Ok(answer) => Some(answer),
        Err(error) => {
            engine.note_load_failure(&error);
            error.is_damage().then_some(Answer::Damaged)
        }
    };
    engine.handle(Input::Loaded { ticket, answer });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user() -> UserId {
        UserId::from_name("ann")
    }

    fn admit(loads: &Loads, ticket: u64) -> Option<Load> {
        admit_of(loads, user(), ticket)
    }

    fn admit_of(loads: &Loads, user: UserId, ticket: u64) -> Option<Load> {
        let query = Query::LastSeen { users: Vec::new() };
        match loads.admit(Ticket(ticket), user, query, 10) {
            Admitted::Now(load) => Some(load),
            Admitted::Later | Admitted::Refused => None,
        }
    }

    fn tried(loads: &Loads, mono_us: u64) -> Vec<Load> {
        std::iter::from_fn(|| loads.next(mono_us)).collect()
    }

    fn tickets(loads: &[Load]) -> Vec<u64> {
        loads.iter().map(|load| load.ticket.0).collect()
    }

    #[test]
    fn those_that_storage_refuses_keep_their_places_before_later_ones() {
        let loads = Loads::default();
        let begun: Vec<_> = (0..4).filter_map(|ticket| admit(&loads, ticket)).collect();
        assert_eq!(begun.len(), 4);
        let mut begun = begun.into_iter();
        let first = begun.next();
        // In whatever order they come back.
        begun.rev().for_each(|load| loads.put_back(load, 0));
        assert!(admit(&loads, 4).is_none());
        assert!(first.is_some() && tried(&loads, u64::MAX).is_empty());
        loads.end(user());
        let next = tried(&loads, 0);
        assert_eq!(tickets(&next), [1, 2]);
        next.into_iter().for_each(|load| loads.put_back(load, 0));
        assert_eq!(tickets(&tried(&loads, TRIED_AFTER_US)), [1]);
    }

    #[test]
    fn while_none_is_under_way_one_is_tried_in_a_while_and_then_more() {
        let loads = Loads::default();
        for load in (0..8)
            .filter_map(|ticket| admit(&loads, ticket))
            .collect::<Vec<_>>()
        {
            loads.put_back(load, 5);
        }
        assert_eq!(loads.due_us(), Some(5 + TRIED_AFTER_US));
        assert!(tried(&loads, 4 + TRIED_AFTER_US).is_empty());
        assert_eq!(tickets(&tried(&loads, 5 + TRIED_AFTER_US)), [0]);
        assert_eq!(loads.due_us(), None);
        loads.end(user());
        assert_eq!(tickets(&tried(&loads, 0)), [1, 2]);
        loads.end(user());
        loads.end(user());
        assert_eq!(tickets(&tried(&loads, 0)), [3, 4, 5, 6]);
    }

    #[test]
    fn one_who_reads_little_does_not_wait_for_one_who_reads_much() {
        let loads = Loads::default();
        let begun: Vec<_> = (0..5).filter_map(|ticket| admit(&loads, ticket)).collect();
        begun.into_iter().for_each(|load| loads.put_back(load, 0));
        let bob = UserId::from_name("bob");
        assert!(admit_of(&loads, bob, 5).is_none() && admit_of(&loads, bob, 6).is_none());
        let mut tried_in_order = Vec::new();
        for _ in 0..7 {
            let mut next = tried(&loads, TRIED_AFTER_US);
            tried_in_order.extend(tickets(&next));
            // Storage takes one at a time.
            let taken = next.remove(0);
            next.into_iter().for_each(|load| loads.put_back(load, 0));
            loads.end(taken.user);
        }
        tried_in_order.dedup();
        assert_eq!(tried_in_order, [0, 5, 1, 6, 2, 3, 4]);
        assert!(loads.by_user.borrow().is_empty());
    }

    #[test]
    fn there_is_an_end_to_those_that_wait() {
        let loads = Loads::default();
        let first = admit(&loads, 0).map(|load| loads.put_back(load, 0));
        assert!(first.is_some());
        let query = || Query::LastSeen { users: Vec::new() };
        for ticket in 1..10 {
            let admitted = loads.admit(Ticket(ticket), user(), query(), 10);
            assert!(matches!(admitted, Admitted::Later));
        }
        let admitted = loads.admit(Ticket(10), user(), query(), 10);
        assert!(matches!(admitted, Admitted::Refused));
    }
}
