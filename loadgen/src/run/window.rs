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

    /// It is sent again. What was surely not appended becomes another draft, which says in its body that it comes late.
    pub(super) fn again(&mut self, client_id: impl FnOnce() -> ClientId) {
        self.state = State::UnderWay;
        if !self.unsure {
            self.refusals = (self.refusals + 1).min(REFUSALS_MAX);
            self.client_id = client_id();
        }
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
                sent.again(|| other);
            }
            assert_eq!(
                (sent.refusals, sent.client_id, sent.state),
                (refusals, client_id, State::UnderWay)
            );
        }
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
