//! What the shard keeps of a connection, between its task and the pump: frames that wait to be written, and whether it may
//! read.

use std::{
    cell::{Cell, RefCell, RefMut},
    collections::VecDeque,
    io::IoSlice,
};

use bytes::{Buf, Bytes};
use rialto_core::io::ConnId;
use rialto_protocol::planted::{self, Mistake};

use super::bell::Bell;
use crate::{
    admission::{Stranger, UserPermit},
    transport::quic::CatchUps,
};

/// A connection as the pump sees it.
pub(crate) struct Link {
    id: ConnId,
    bell: Bell,
    outbox: RefCell<Outbox>,
    paused: Cell<bool>,
    closing: Cell<bool>,
    waits_for_shard: Cell<bool>,
    /// Frames that wait until it is called, as one of a crowd.
    unhurried: Cell<usize>,
    /// It waits for its turn, which is expected to take so much; 0: it does not wait.
    waits_for: Cell<usize>,
    /// Where it waits.
    place: Cell<(u64, u64)>,
    /// What the last turn took, or half of what was expected before.
    expected: Cell<usize>,
    /// Its turn has come, and it has not begun it.
    called: Cell<bool>,
    /// What its turns have taken.
    had: Cell<u64>,
    leave: Cell<Leave>,
    who: RefCell<Who>,
    /// What QUIC has beside the main stream.
    catch_ups: Option<Box<CatchUps>>,
}

/// How far a connection is with leaving.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Leave {
    Stays,
    Waits,
    MayGo,
}

/// Whose connection it is, as far as limits go.
enum Who {
    /// It has not shown it yet.
    Stranger(#[expect(dead_code, reason = "counts while it lives")] Stranger),
    /// One of a user's; `None`: of one without a limit.
    Known(Option<UserPermit>),
}

impl Link {
    pub(crate) fn new(id: ConnId, catch_ups: Option<CatchUps>, stranger: Stranger) -> Self {
        Self {
            id,
            bell: Bell::default(),
            outbox: RefCell::default(),
            paused: Cell::new(false),
            closing: Cell::new(false),
            waits_for_shard: Cell::new(false),
            unhurried: Cell::new(0),
            waits_for: Cell::new(0),
            place: Cell::default(),
            expected: Cell::new(0),
            called: Cell::new(false),
            had: Cell::new(0),
            leave: Cell::new(Leave::Stays),
            who: RefCell::new(Who::Stranger(stranger)),
            catch_ups: catch_ups.map(Box::new),
        }
    }

    /// Who it is has been shown; the first time, room is asked for. Whether there is any.
    pub(crate) fn identify(&self, admit: impl FnOnce() -> Option<Option<UserPermit>>) -> bool {
        let mut who = self.who.borrow_mut();
        if matches!(*who, Who::Stranger(_)) {
            let Some(permit) = admit() else {
                return false;
            };
            *who = Who::Known(permit);
        }
        true
    }

    /// The user's permit, for as long as it is to count beyond the connection.
    pub(crate) fn take_permit(&self) -> Option<UserPermit> {
        match &mut *self.who.borrow_mut() {
            Who::Stranger(_) => None,
            Who::Known(permit) => permit.take(),
        }
    }

    /// The connection is gone: it counts nowhere and keeps nothing any more, whoever still has it in a list.
    pub(crate) fn let_go(&self) {
        *self.who.borrow_mut() = Who::Known(None);
        *self.outbox.borrow_mut() = Outbox::default();
    }

    pub(crate) fn id(&self) -> ConnId {
        self.id
    }

    /// Rings when there is something to write, or something about reading or closing has changed.
    pub(crate) fn bell(&self) -> &Bell {
        &self.bell
    }

    /// Frames that wait for the main stream. Not to be held while the core is called.
    pub(crate) fn outbox(&self) -> RefMut<'_, Outbox> {
        self.outbox.borrow_mut()
    }

    pub(crate) fn catch_ups(&self) -> Option<&CatchUps> {
        self.catch_ups.as_deref()
    }

    /// Queues a frame on the main stream.
    pub(crate) fn push(&self, frame: Bytes) {
        self.outbox.borrow_mut().push(frame);
        self.call_to_write();
    }

    fn call_to_write(&self) {
        if !planted::strikes(Mistake::LostWakeUp) {
            self.bell.ring();
        }
    }

    /// Queues a frame that others may go before; whether the connection now waits to be called.
    pub(crate) fn push_unhurried(&self, frame: Bytes) -> bool {
        self.outbox.borrow_mut().push(frame);
        self.unhurried.replace(self.unhurried.get() + 1) == 0
    }

    /// Its turn to write, after [`Self::push_unhurried`]; how often that was.
    pub(crate) fn call_unhurried(&self) -> usize {
        self.call_to_write();
        self.unhurried.take()
    }

    /// Notes that it waits for another turn, which takes so much; whether that is new.
    pub(crate) fn wait_for_turn(&self, work: usize) -> bool {
        self.waits_for.replace(work.max(1)) == 0
    }

    /// Whether it waits for another turn.
    pub(crate) fn waits_for_turn(&self) -> bool {
        self.waits_for.get() > 0
    }

    /// Where it waits, or waited last.
    pub(crate) fn place(&self) -> &Cell<(u64, u64)> {
        &self.place
    }

    /// Its turn; what it is expected to take.
    pub(crate) fn call_eager(&self) -> usize {
        self.called.set(true);
        self.bell.ring();
        self.waits_for.take()
    }

    /// Takes in what a turn took. One that took much now and then is expected to do so again.
    pub(crate) fn took(&self, work: usize) {
        self.expected.set(work.max(self.expected.get() / 2));
    }

    /// What its next turn is expected to take.
    pub(crate) fn expected(&self) -> usize {
        self.expected.get()
    }

    /// What its turns have taken, as [`super::turns`] counts it.
    pub(crate) fn had(&self) -> &Cell<u64> {
        &self.had
    }

    /// Whether its turn has come since it was asked last.
    pub(crate) fn was_called(&self) -> bool {
        self.called.take()
    }

    /// Notes that it waits to leave; whether that is new.
    pub(crate) fn wait_to_leave(&self) -> bool {
        let stays = self.leave.get() == Leave::Stays;
        if stays {
            self.leave.set(Leave::Waits);
        }
        stays
    }

    pub(crate) fn call_to_leave(&self) {
        self.leave.set(Leave::MayGo);
        self.bell.ring();
    }

    pub(crate) fn may_leave(&self) -> bool {
        self.leave.get() == Leave::MayGo
    }

    /// Whether the connection has used its byte credit up.
    pub(crate) fn is_paused(&self) -> bool {
        self.paused.get()
    }

    pub(crate) fn set_paused(&self, paused: bool) {
        self.paused.set(paused);
    }

    /// It has credit again.
    pub(crate) fn resume(&self) {
        self.paused.set(false);
        self.bell.ring();
    }

    /// Whether it is in the list of those that are told when the shard reads again.
    pub(crate) fn waits_for_shard(&self) -> &Cell<bool> {
        &self.waits_for_shard
    }

    /// Whether it is to end once everything queued is written.
    pub(crate) fn is_closing(&self) -> bool {
        self.closing.get()
    }

    /// Ends it once everything queued is written.
    pub(crate) fn close(&self) {
        self.closing.set(true);
        self.bell.ring();
    }
}

/// Whole frames, the first perhaps already sent in part.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    frames: VecDeque<Bytes>,
    /// What is left of them to be written.
    bytes: usize,
}

impl Outbox {
    pub(crate) fn push(&mut self, frame: Bytes) {
        self.bytes += frame.len();
        self.frames.push_back(frame);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    /// What is left to be written.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Fills the slices from the front and tells how many it filled.
    pub(crate) fn slices<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        let filled = slices.iter_mut().zip(&self.frames);
        filled
            .map(|(slice, frame)| *slice = IoSlice::new(frame))
            .count()
    }

    /// The frames from the front on, what is written of the first one not among it.
    pub(crate) fn frames(&self) -> impl Iterator<Item = &[u8]> {
        self.frames.iter().map(Bytes::as_ref)
    }

    /// The frame, if there is but one.
    pub(crate) fn only(&self) -> Option<&[u8]> {
        match self.frames.len() {
            1 => self.frames.front().map(|frame| &frame[..]),
            _ => None,
        }
    }

    /// Forgets so many bytes from the front, which were written.
    pub(crate) fn consume(&mut self, mut bytes: usize) {
        self.bytes -= bytes;
        while let Some(frame) = self.frames.front_mut() {
            if frame.len() > bytes {
                frame.advance(bytes);
                break;
            }
            bytes -= frame.len();
            self.frames.pop_front();
        }
        self.shrink();
    }

    /// Frames from the front, for a writer that takes its bytes out of them.
    pub(crate) fn front_chunks(&mut self) -> &mut [Bytes] {
        match self.frames.as_mut_slices() {
            ([], rest) => rest,
            (front, _) => front,
        }
    }

    /// Forgets what such a writer has emptied, so many bytes together.
    pub(crate) fn remove_written(&mut self, bytes: usize) {
        self.bytes -= bytes;
        while self.frames.front().is_some_and(Bytes::is_empty) {
            self.frames.pop_front();
        }
        self.shrink();
    }

    /// An idle connection keeps no queue in memory.
    fn shrink(&mut self) {
        if self.frames.is_empty() {
            self.frames = VecDeque::new();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outbox(frames: &[&'static [u8]]) -> Outbox {
        let mut outbox = Outbox::default();
        frames
            .iter()
            .for_each(|frame| outbox.push(Bytes::from_static(frame)));
        outbox
    }

    fn left(outbox: &Outbox) -> Vec<u8> {
        let mut slices = [IoSlice::new(&[]); 8];
        let count = outbox.slices(&mut slices);
        slices[..count]
            .iter()
            .flat_map(|slice| slice.to_vec())
            .collect()
    }

    #[test]
    fn a_write_may_end_anywhere() {
        for bytes in 0..=6 {
            let mut outbox = outbox(&[b"ab", b"cde", b"f"]);
            outbox.consume(bytes);
            assert_eq!(left(&outbox), b"abcdef"[bytes..]);
            assert_eq!(outbox.is_empty(), bytes == 6);
            assert_eq!(outbox.bytes(), 6 - bytes);
        }
    }

    #[test]
    fn frames_that_a_writer_emptied_are_gone_and_the_half_one_stays() {
        let mut outbox = outbox(&[b"ab", b"cde"]);
        let chunks = outbox.front_chunks();
        chunks[0].clear();
        chunks[1].advance(1);
        outbox.remove_written(3);
        assert_eq!(left(&outbox), b"de");
        assert_eq!(outbox.bytes(), 2);
    }
}
