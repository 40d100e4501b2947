//! What waits for the journal thread. Bounded in bytes; when it is full its callers wait, which is the back-pressure that the
//! disk puts on the shards.

use std::{
    mem,
    sync::{Condvar, Mutex, PoisonError},
    thread::{self, ThreadId},
};

use rialto_protocol::ids::LaneId;

use super::{format::ENTRY_HEADER_BYTES, locked};
use crate::journal::{AppendError, Claim, Entry, JournalError};

/// Called once with what became of a call.
pub(super) type Done<T, E> = Box<dyn FnOnce(Result<T, E>) + Send>;

/// A call that the journal thread has to answer.
pub(super) enum Command {
    Append {
        entries: Vec<Entry>,
        bytes: usize,
        done: Done<(), AppendError>,
    },
    Claim {
        lanes: Vec<LaneId>,
        done: Done<Vec<Claim>, JournalError>,
    },
    Seal {
        done: Done<u64, JournalError>,
    },
}

impl Command {
    pub(super) fn append(entries: Vec<Entry>, done: Done<(), AppendError>) -> Self {
        let bytes = entries
            .iter()
            .map(|entry| entry.records.len() + ENTRY_HEADER_BYTES as usize)
            .sum();
        Self::Append {
            entries,
            bytes,
            done,
        }
    }

    /// Bytes that it holds in the queue.
    pub(super) fn bytes(&self) -> usize {
        match self {
            Self::Append { bytes, .. } => *bytes,
            Self::Claim { .. } | Self::Seal { .. } => 0,
        }
    }

    /// Answers that the log takes nothing any more.
    pub(super) fn fail(self, reason: &str) {
        let failed = || JournalError::Io {
            what: "the journal".to_owned(),
            cause: reason.to_owned(),
        };
        match self {
            Self::Append { done, .. } => done(Err(AppendError::Poisoned(reason.to_owned()))),
            Self::Claim { done, .. } => done(Err(failed())),
            Self::Seal { done } => done(Err(failed())),
        }
    }
}

/// The queue before the journal thread.
pub(super) struct Queue {
    state: Mutex<State>,
    filled: Condvar,
    drained: Condvar,
    bytes_max: usize,
}

#[derive(Default)]
struct State {
    waiting: Vec<Command>,
    /// Of what waits and of what the journal thread has taken and not finished.
    bytes: usize,
    /// The journal thread, when it sleeps: a bell that nobody hears costs a system call.
    sleeping: bool,
    reader: Option<ThreadId>,
    closed: bool,
}

impl Queue {
    pub(super) fn new(bytes_max: usize) -> Self {
        Self {
            state: Mutex::default(),
            filled: Condvar::new(),
            drained: Condvar::new(),
            bytes_max,
        }
    }

    /// Adds a call, waiting for room; gives it back when the queue is closed. The journal thread itself never waits.
    pub(super) fn push(&self, command: Command) -> Result<(), Command> {
        let bytes = command.bytes();
        let mut state = locked(&self.state);
        while state.bytes > 0
            && state.bytes + bytes > self.bytes_max
            && !state.closed
            && state.reader != Some(thread::current().id())
        {
            state = self
                .drained
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
        if state.closed {
            return Err(command);
        }
        state.bytes += bytes;
        state.waiting.push(command);
        let wake = mem::take(&mut state.sleeping);
        drop(state);
        if wake {
            self.filled.notify_one();
        }
        Ok(())
    }

    /// Takes all that waits, waiting for something, and gives `finished` bytes free. False: closed and empty.
    pub(super) fn take(&self, taken: &mut Vec<Command>, finished: usize) -> bool {
        let mut state = locked(&self.state);
        state.reader = Some(thread::current().id());
        state.bytes -= finished;
        if finished > 0 {
            self.drained.notify_all();
        }
        while state.waiting.is_empty() && !state.closed {
            state.sleeping = true;
            state = self
                .filled
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
        mem::swap(taken, &mut state.waiting);
        !taken.is_empty()
    }

    /// Takes nothing any more; what waits can still be taken.
    pub(super) fn close(&self) {
        locked(&self.state).closed = true;
        self.filled.notify_all();
        self.drained.notify_all();
    }
}
