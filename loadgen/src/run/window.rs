//! Messages of a publisher that are on their way: found by request id, sent again on a new connection.

use std::collections::VecDeque;

use rialto_protocol::ids::ClientId;
use rialto_protocol::v1;

/// Request ids go round from 1 to this; the largest number is that of Ping.
const REQUEST_IDS: u64 = u32::MAX as u64 - 1;

/// A message, as far as it cannot be made anew.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sent {
    pub(super) due_us: u64,
    /// Its number among the publisher's messages to its conversation.
    pub(super) number: u64,
    /// Place of the conversation among the publisher's.
    pub(super) outlet: u32,
    pub(super) body_bytes: u32,
    pub(super) client_id: ClientId,
    pub(super) refusals: u8,
    /// An attempt may have appended it: it has to stay the same draft.
    pub(super) unsure: bool,
    /// How often it was sent again as it was.
    pub(super) repeats: u8,
    /// The greatest number that its conversation had from the publisher when it was last sent again as it was.
    pub(super) repeated_at: u64,
    pub(super) state: State,
}

/// How far a message has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// Sent, not answered.
    UnderWay,
    /// Refused for now; to be sent again.
    Refused,
    /// Acknowledged, or refused for good.
    Done,
}

/// Of refusals that a body tells.
const REFUSALS_MAX: u8 = 63;

impl Sent {
    /// It was refused for now.
    pub(super) fn refuse(&mut self, retry: v1::Retry) {
        self.state = State::Refused;
        self.unsure |= retry != v1::Retry::Safe;
    }

    /// It is sent again, when its conversation has messages up to this number. What was surely not appended becomes another
    /// draft, which says in its body that it comes late.
    pub(super) fn again(&mut self, number: u64, client_id: impl FnOnce() -> ClientId) {
        if self.unsure {
            self.repeat(number);
        } else {
            self.state = State::UnderWay;
            self.refusals = (self.refusals + 1).min(REFUSALS_MAX);
            self.client_id = client_id();
        }
    }

    /// It is sent again as it was, when its conversation has messages up to this number.
    pub(super) fn repeat(&mut self, number: u64) {
        self.state = State::UnderWay;
        self.unsure = true;
        self.repeats = self.repeats.saturating_add(1);
        self.repeated_at = number;
    }

    /// Up to which number it may stand behind later ones, though its body does not say so; none: it has to be in its place.
    ///
    /// What was appended by the first attempt is, and a receipt that says `duplicate` is of an earlier attempt. One that does
    /// not is of the last: the first did not come through, or was refused and the word of it lost, while what was sent behind
    /// it was taken.
    pub(super) fn stands_behind(&self, duplicate: bool) -> Option<u64> {
        let in_place = self.repeats == 0 || self.repeats == 1 && duplicate;
        (!in_place).then_some(self.repeated_at)
    }
}

/// Messages in the order of their request ids.
#[derive(Debug, Default)]
pub(super) struct Window {
    sent: VecDeque<Sent>,
    /// Messages before the first of `sent`.
    before: u64,
    open: usize,
    frame_bytes: usize,
}

impl Window {
    /// Takes a message in; its request id.
    pub(super) fn push(&mut self, sent: Sent) -> u32 {
        let request_id = request_id(self.before + self.sent.len() as u64);
        self.open += 1;
        self.frame_bytes += crate::wire::publish::frame_bytes(sent.body_bytes as usize);
        self.sent.push_back(sent);
        request_id
    }

    /// The message with this request id, if it is not done with.
    #[inline]
    pub(super) fn find(&mut self, request_id: u32) -> Option<&mut Sent> {
        let place = u64::from(request_id).checked_sub(1)?;
        if place >= REQUEST_IDS {
            return None;
        }
        let place = (place + REQUEST_IDS - self.before % REQUEST_IDS) % REQUEST_IDS;
        let sent = self.sent.get_mut(usize::try_from(place).ok()?)?;
        (sent.state != State::Done).then_some(sent)
    }

    /// A message found before is done with.
    #[inline]
    pub(super) fn close(&mut self, body_bytes: u32) {
        self.open -= 1;
        self.frame_bytes -= crate::wire::publish::frame_bytes(body_bytes as usize);
        while self
            .sent
            .front()
            .is_some_and(|sent| sent.state == State::Done)
        {
            self.sent.pop_front();
            self.before += 1;
        }
    }

    /// Messages that are not done with.
    pub(super) const fn open(&self) -> usize {
        self.open
    }

    /// Bytes of their frames.
    pub(super) const fn frame_bytes(&self) -> usize {
        self.frame_bytes
    }

    /// Those in a state, oldest first, with their request ids.
    pub(super) fn in_state(&mut self, state: State) -> impl Iterator<Item = (u32, &mut Sent)> {
        let before = self.before;
        self.sent
            .iter_mut()
            .zip(before..)
            .filter(move |(sent, _)| sent.state == state)
            .map(|(sent, place)| (request_id(place), sent))
    }
}

const fn request_id(place: u64) -> u32 {
    // Below 2^32.
    #[allow(clippy::cast_possible_truncation)]
    let id = (place % REQUEST_IDS + 1) as u32;
    id
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(number: u64) -> Sent {
        Sent {
            due_us: 0,
            number,
            outlet: 0,
            body_bytes: 100,
            client_id: ClientId::v7(1, [0; 10]),
            refusals: 0,
            unsure: false,
            repeats: 0,
            repeated_at: 0,
            state: State::UnderWay,
        }
    }

    #[test]
    fn messages_are_found_by_their_request_ids_past_the_end_of_the_numbers() {
        let mut window = Window {
            before: REQUEST_IDS - 2,
            ..Window::default()
        };
        let ids: Vec<u32> = (0..5).map(|number| window.push(sent(number))).collect();
        assert_eq!(ids, [u32::MAX - 2, u32::MAX - 1, 1, 2, 3]);
        for (id, number) in ids.iter().zip(0..) {
            assert_eq!(window.find(*id).unwrap().number, number);
        }
        for id in [0, 4, 5, u32::MAX, u32::MAX - 3] {
            assert!(window.find(id).is_none(), "{id}");
        }
    }

    #[test]
    fn only_what_was_surely_not_appended_becomes_another_draft() {
        let first = sent(1);
        let other = ClientId::v7(2, [0; 10]);
        for (retries, refusals, client_id) in [
            (vec![v1::Retry::Safe], 1, other),
            (vec![v1::Retry::Safe, v1::Retry::Safe], 2, other),
            (vec![v1::Retry::MaybeDuplicate], 0, first.client_id),
            // The second refusal tells nothing of the first attempt.
            (
                vec![v1::Retry::MaybeDuplicate, v1::Retry::Safe],
                0,
                first.client_id,
            ),
            (vec![v1::Retry::Safe, v1::Retry::MaybeDuplicate], 1, other),
        ] {
            let mut sent = first;
            for retry in retries {
                sent.refuse(retry);
                assert_eq!(sent.state, State::Refused);
                sent.again(9, || other);
            }
            assert_eq!(
                (sent.refusals, sent.client_id, sent.state),
                (refusals, client_id, State::UnderWay)
            );
        }
    }

    #[test]
    fn only_what_an_attempt_behind_the_first_appended_may_stand_later() {
        let mut message = sent(3);
        let behind = |sent: &Sent| [true, false].map(|duplicate| sent.stands_behind(duplicate));
        assert_eq!(behind(&message), [None, None]);
        // Another draft says by itself that it is late.
        message.refuse(v1::Retry::Safe);
        message.again(5, || ClientId::v7(2, [0; 10]));
        assert_eq!(behind(&message), [None, None]);
        message.repeat(7);
        assert_eq!(behind(&message), [None, Some(7)]);
        message.refuse(v1::Retry::MaybeDuplicate);
        message.again(9, || ClientId::v7(3, [0; 10]));
        assert_eq!(behind(&message), [Some(9), Some(9)]);
    }

    #[test]
    fn what_is_done_is_forgotten_in_any_order() {
        let mut window = Window::default();
        let ids: Vec<u32> = (0..4).map(|number| window.push(sent(number))).collect();
        for place in [2, 0, 3, 1] {
            let found = window.find(ids[place]).unwrap();
            found.state = State::Done;
            window.close(100);
            assert!(window.find(ids[place]).is_none());
        }
        assert_eq!(
            (window.open(), window.frame_bytes(), window.sent.len()),
            (0, 0, 0)
        );
        assert_eq!(window.push(sent(4)), 5);
    }
}
