//! A connection's place in the shard, which its task holds: when it may read, and that it is gone.

use std::rc::Rc;

use rialto_core::io::Input;

use super::Engine;
use crate::{
    admission::Permit,
    shard::{
        figures::{Carrier, Stage},
        link::Link,
        turns::Turn,
    },
};

/// A connection's place in the shard; when it is dropped, by a panic too, the core learns that the connection is gone.
pub(crate) struct Registration {
    pub(super) engine: Rc<Engine>,
    pub(super) link: Rc<Link>,
    pub(super) carrier: Carrier,
    pub(super) _permit: Permit,
}

impl Registration {
    pub(crate) fn engine(&self) -> &Rc<Engine> {
        &self.engine
    }

    pub(crate) fn link(&self) -> &Link {
        &self.link
    }

    /// Puts the connection behind all others that have more to say and have had less; its bell rings when it is its turn again.
    pub(crate) fn wait_for_turn(&self) {
        self.engine.turns.wait(&self.link, self.link.expected());
        self.engine.turn.ring();
    }

    /// The turn of the connection, which is polled; `None`: it waits for it, and its bell rings when it has come.
    pub(crate) fn begin_turn(&self) -> Option<Turn> {
        let turn = self.engine.turns.begin(&self.link);
        if turn.is_none() {
            self.engine.turn.ring();
        }
        turn
    }

    /// Whether the connection waits for its turn.
    pub(crate) fn waits_for_turn(&self) -> bool {
        self.link.waits_for_turn()
    }

    /// Whether the connection, whose client is gone, may leave; if not, its bell rings when it may.
    pub(crate) fn leave(&self) -> bool {
        let leaves = self.engine.turns.leave(&self.link);
        if !leaves {
            self.engine.turn.ring();
        }
        leaves
    }

    /// Whether the connection may read now; if not, its bell rings when it may.
    pub(crate) fn may_read(&self) -> bool {
        if self.engine.stalled.get() {
            if !self.link.waits_for_shard().replace(true) {
                self.engine.waiting.borrow_mut().push(Rc::clone(&self.link));
            }
            return false;
        }
        if !self.link.is_paused() {
            let paused = !self.engine.core.borrow().may_read(self.link.id());
            self.link.set_paused(paused);
        }
        !self.link.is_paused()
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.engine.shed(Stage::Connection, "panic");
        }
        self.engine.turns.forget(&self.link);
        let conn = self.link.id();
        let mut links = self.engine.links.borrow_mut();
        links.try_remove(conn.index as usize);
        let emptied = links.is_empty();
        drop(links);
        self.engine.figures.borrow_mut().open[self.carrier as usize] -= 1;
        self.engine.handle(Input::Closed { conn });
        self.engine.remember(&self.link);
        self.link.let_go();
        if emptied {
            self.engine.emptied.ring();
        }
    }
}
