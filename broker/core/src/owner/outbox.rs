//! Outboxes: what an event causes elsewhere is passed on after the event is durable, under an id derived from it, until the
//! inbox has it. A crash resumes; dedupe makes it once. When each is sent: [`super::retries`].
//!
//! Notices may arrive in another order than they were sent in, because one that was refused is sent again. The user's list
//! shows the newest all the same: one that a later notice of the same conversation has followed does not change the list, and is
//! not told of any more.

use std::collections::{BTreeMap, VecDeque};

use ahash::RandomState;
use bytes::Bytes;
use prost::Message as _;
use rialto_protocol::{
    error::ErrorCode,
    ids::{ClientId, ConversationId, DeviceId, LaneId, Position, UserId},
    limits, v1,
};

use crate::{
    counts::Counts,
    effects::Effects,
    io::{Now, OutboxItem},
    message::{Message, ToOwner},
};

use super::{
    desk::Desk,
    entry::{Built, Outgoing},
};

/// Notices of a shard that inboxes do not have yet; past it nothing is done that makes more.
const NOTICES_MAX: usize = 100_000;
/// What one of them takes at most, about, and what of the shard's budget they may take together, beside it.
const NOTICE_BYTES: usize = 512;
const BUDGET_PART: usize = 4;
/// One part of so many is what one user may have caused of them: whoever makes many leaves room for the others.
const USER_PART: usize = 16;
/// How long "passed on" may wait for another entry to be written along with.
const WRITE_DONE_US: u64 = 10_000_000;

/// How many notices a shard with such a budget may have on their way: as many at least as two of the largest conversations begin with.
pub(super) fn notices_max(shard_bytes_max: usize) -> usize {
    const LEAST: usize = 2 * (limits::MEMBERS_PER_CREATE_MAX + 1);
    (shard_bytes_max / BUDGET_PART / NOTICE_BYTES).clamp(LEAST, NOTICES_MAX)
}

/// Position of an outbox record's entry, and its number there.
pub(super) type ItemId = (Position, u16);

/// What one lane has still to pass on.
#[derive(Debug)]
pub(super) struct Outbox {
    /// What has been sent.
    pending: BTreeMap<ItemId, Pending>,
    /// What has not, by rising position.
    unsent: VecDeque<Unsent>,
    /// The newest of those that change a user's list, by user and conversation.
    listings: BTreeMap<(UserId, ConversationId), ItemId>,
    /// Position of the newest entry that had outbox records.
    newest: Position,
    /// What the journal knows to be done.
    written: Position,
}

/// What is left of a durable entry that is to be sent for the first time.
#[derive(Debug)]
struct Unsent {
    position: Position,
    time_ms: u64,
    outgoing: std::vec::IntoIter<Outgoing>,
}

#[derive(Debug)]
struct Pending {
    time_ms: u64,
    user: UserId,
    notice: Bytes,
    account: UserId,
    /// The conversation whose place in the user's list it changes.
    listed: Option<ConversationId>,
    /// Has to be sent again.
    refused: bool,
    /// A later one says how the conversation stands.
    is_outdated: bool,
}

/// How many notices inboxes do not have yet, durable or not, and on whose account.
#[derive(Debug)]
pub(super) struct Notices {
    count: usize,
    by_account: Counts<UserId>,
}

impl Notices {
    /// So many from before the start, of which nobody knows any more who caused them.
    pub(super) fn new(count: usize, hasher: RandomState) -> Self {
        Self {
            count,
            by_account: Counts::with_hasher(hasher),
        }
    }

    /// One more. The system's account has no limit, and is not kept.
    pub(super) fn add(&mut self, account: UserId) {
        self.count += 1;
        if account != UserId::SYSTEM {
            self.by_account.add(account);
        }
    }

    /// One less.
    pub(super) fn remove(&mut self, account: UserId) {
        self.count -= 1;
        self.by_account.remove(&account);
    }

    /// Those of an entry that is not kept.
    pub(super) fn remove_all(&mut self, outgoing: &[Outgoing]) {
        for outgoing in outgoing {
            self.remove(outgoing.account);
        }
    }

    /// All of them.
    pub(super) fn count(&self) -> usize {
        self.count
    }

    fn of(&self, account: UserId) -> usize {
        self.by_account.get(&account) as usize
    }
}

impl Outbox {
    pub(super) fn new(mut items: Vec<OutboxItem>) -> Self {
        items.sort_by_key(|item| (item.position, item.index));
        let mut outbox = Self {
            pending: BTreeMap::new(),
            unsent: VecDeque::new(),
            listings: BTreeMap::new(),
            newest: Position(0),
            written: Position(0),
        };
        for item in items {
            let outgoing = Outgoing {
                index: item.index,
                user: item.user,
                // It may wait for long, and is a slice of the entry that was read.
                notice: Bytes::copy_from_slice(&item.notice),
                account: UserId::SYSTEM,
            };
            outbox.insert(item.position, item.time_ms, &outgoing);
        }
        outbox
    }

    /// Takes in what a durable entry causes, the newest.
    fn add(&mut self, position: Position, time_ms: u64, outgoing: Vec<Outgoing>) {
        self.unsent.push_back(Unsent {
            position,
            time_ms,
            outgoing: outgoing.into_iter(),
        });
    }

    /// The oldest item that has not been sent, which is to be sent now.
    fn next_to_send(&mut self) -> Option<ItemId> {
        let unsent = self.unsent.front_mut()?;
        let (position, time_ms) = (unsent.position, unsent.time_ms);
        let outgoing = unsent.outgoing.next();
        if unsent.outgoing.as_slice().is_empty() {
            self.unsent.pop_front();
        }
        let outgoing = outgoing?;
        self.insert(position, time_ms, &outgoing);
        Some((position, outgoing.index))
    }

    /// Puts in the newest item.
    fn insert(&mut self, position: Position, time_ms: u64, outgoing: &Outgoing) {
        let Outgoing {
            index,
            user,
            ref notice,
            account,
        } = *outgoing;
        let item = (position, index);
        self.newest = self.newest.max(position);
        let listed = listed(notice);
        if let Some(conversation) = listed
            && let Some(former) = self.listings.insert((user, conversation), item)
            && let Some(former) = self.pending.get_mut(&former)
        {
            former.is_outdated = true;
        }
        let pending = Pending {
            time_ms,
            user,
            notice: notice.clone(),
            account,
            listed,
            refused: false,
            is_outdated: false,
        };
        self.pending.insert(item, pending);
    }

    /// An inbox has the item; on whose account it was, if it was waited for.
    pub(super) fn remove(&mut self, item: ItemId) -> Option<UserId> {
        let Pending {
            user,
            account,
            listed,
            ..
        } = self.pending.remove(&item)?;
        if let Some(conversation) = listed
            && self.listings.get(&(user, conversation)) == Some(&item)
        {
            self.listings.remove(&(user, conversation));
        }
        Some(account)
    }

    /// How many are to be passed on.
    pub(super) fn len(&self) -> usize {
        self.pending.len()
    }

    fn done_through(&self) -> Position {
        let pending = self.pending.keys().next().map(|(position, _)| *position);
        let unsent = self.unsent.front().map(|unsent| unsent.position);
        match pending.or(unsent) {
            Some(position) => Position(position.0.saturating_sub(1)),
            None => self.newest,
        }
    }

    /// The position to be written as done, if the journal does not know it yet; it is taken as written.
    pub(super) fn write_done(&mut self) -> Option<Position> {
        let through = self.done_through();
        (through > self.written).then(|| {
            self.written = through;
            through
        })
    }

    fn has_to_write(&self) -> bool {
        self.done_through() > self.written
    }

    /// What was written last may not have been kept.
    pub(super) fn forget_written(&mut self) {
        self.written = Position(0);
    }
}

/// The conversation whose place in the user's list a notice changes.
fn listed(notice: &Bytes) -> Option<ConversationId> {
    match v1::Notice::decode(notice.clone()).ok()?.notice? {
        v1::notice::Notice::Listing(listing) => {
            ConversationId::from_slice(&listing.conversation).ok()
        }
        v1::notice::Notice::Mentioned(_) => None,
    }
}

/// The device under which a lane passes on.
pub(super) fn device_of(lane: LaneId) -> DeviceId {
    let mut id = *b"rialto lane \0\0\0\0";
    id[14..].copy_from_slice(&lane.0.to_be_bytes());
    DeviceId::from_bytes(id)
}

/// The id under which an item arrives: rising along the lane.
fn client_id_of(time_ms: u64, (position, index): ItemId) -> ClientId {
    let mut entropy = [0; 10];
    entropy[3..8].copy_from_slice(&position.0.to_be_bytes()[3..]);
    entropy[8..].copy_from_slice(&index.to_be_bytes());
    ClientId::v7(time_ms, entropy)
}

impl Desk {
    /// Whether something may be done on a user's account that so many inboxes have to be told of. Who has nothing on the way
    /// may, however many they are, if there is room.
    pub(super) fn may_notify(
        &self,
        account: UserId,
        count: usize,
        fx: &mut Effects,
    ) -> Result<(), ErrorCode> {
        let notices = self.lanes.notices();
        let own = notices.of(account);
        let reason = if notices.count() + count > self.notices_max {
            "full"
        } else if own > 0 && own + count > self.notices_max / USER_PART {
            "user"
        } else {
            return Ok(());
        };
        fx.counters.shed("notices", reason);
        Err(ErrorCode::Overloaded)
    }

    /// Sends what was left over from before the start: the first of it at once.
    pub(super) fn resume_outboxes(&mut self, fx: &mut Effects) {
        for (id, lane) in self.lanes.iter_mut() {
            for (item, pending) in &mut lane.outbox.pending {
                pending.refused = true;
                self.retries.resume(id, *item);
            }
        }
        self.send_again(0, fx);
    }

    /// Passes on what a durable entry causes, as much of it as there is time for now.
    pub(super) fn pass_on(&mut self, now: Now, lane: LaneId, entry: &mut Built, fx: &mut Effects) {
        let outgoing = std::mem::take(&mut entry.outgoing);
        if outgoing.is_empty() {
            return;
        }
        self.retries.add(lane, outgoing.len());
        let outbox = &mut self.lanes.get_mut(lane).outbox;
        outbox.add(entry.position, entry.time_ms, outgoing);
        self.send_new(now, fx);
    }

    fn send_new(&mut self, now: Now, fx: &mut Effects) {
        while let Some(lane) = self.retries.next_to_send(now) {
            if let Some(item) = self.lanes.get_mut(lane).outbox.next_to_send() {
                self.send_notice(lane, item, fx);
            }
        }
    }

    fn send_notice(&mut self, lane: LaneId, item: ItemId, fx: &mut Effects) {
        let Some(pending) = self.lanes.get_mut(lane).outbox.pending.get_mut(&item) else {
            return;
        };
        pending.refused = false;
        let user = pending.user;
        let message = ToOwner::Notify {
            from: self.id,
            lane,
            item,
            client_id: client_id_of(pending.time_ms, item),
            user,
            notice: pending.notice.clone(),
            is_outdated: pending.is_outdated,
        };
        let shard = self.topology.shard_of(&ConversationId::of_inbox(user));
        fx.send(shard, Message::ToOwner(message));
    }

    /// An inbox has an item, or could not keep it now.
    pub(super) fn passed_on(&mut self, now: Now, lane: LaneId, item: ItemId, kept: bool) {
        if kept {
            self.lanes.passed_on(lane, item);
            self.retries
                .write_us
                .get_or_insert(now.mono_us + WRITE_DONE_US);
        } else if let Some(pending) = self.lanes.get_mut(lane).outbox.pending.get_mut(&item)
            && !pending.refused
        {
            pending.refused = true;
            self.retries.refuse(now, lane, item);
        }
    }

    /// Sends what there was no time for, and refused items again, some at a time, and writes down what is done where nothing else
    /// is written.
    pub(super) fn retry_outboxes(&mut self, now: Now, fx: &mut Effects) {
        self.send_new(now, fx);
        self.send_again(now.mono_us, fx);
        if self
            .retries
            .write_us
            .is_some_and(|due_us| due_us <= now.mono_us)
        {
            self.retries.write_us = None;
            self.write_down(now);
        }
    }

    fn send_again(&mut self, now_us: u64, fx: &mut Effects) {
        for (lane, item) in self.retries.take_due(now_us) {
            self.send_notice(lane, item, fx);
        }
    }

    fn write_down(&mut self, now: Now) {
        let mut quiet = Vec::new();
        for (id, lane) in self.lanes.iter_mut() {
            if lane.outbox.has_to_write() {
                quiet.push(id);
            }
        }
        for lane in quiet {
            if !self.lanes.is_lost(lane) {
                self.lanes.begin(lane, now);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notices_have_a_part_of_the_budget_where_it_is_small() {
        assert_eq!(notices_max(512 << 20), 100_000);
        assert_eq!(notices_max(8 << 20), 4_096);
        assert_eq!(notices_max(0), 1_002);
    }

    #[test]
    fn derived_ids_rise_along_a_lane() {
        let ids = [
            client_id_of(5, (Position(1), 0)),
            client_id_of(5, (Position(1), 1)),
            client_id_of(5, (Position(2), 0)),
            client_id_of(5, (Position(300), 0)),
            client_id_of(6, (Position(301), 0)),
        ];
        assert!(ids.windows(2).all(|pair| pair[0] < pair[1]));
        assert!(ids.iter().all(ClientId::is_v7));
    }

    #[test]
    fn what_was_left_over_does_not_keep_the_entry_that_it_was_read_from() {
        let entry = Bytes::from(vec![0; 1_000]);
        let item = OutboxItem {
            position: Position(4),
            index: 0,
            time_ms: 1,
            user: UserId::SYSTEM,
            notice: entry.slice(10..20),
        };
        let outbox = Outbox::new(vec![item]);
        assert_eq!(outbox.len(), 1);
        assert!(entry.is_unique(), "nothing of it is held");
    }

    #[test]
    fn done_stops_below_the_oldest_that_is_pending() {
        let item = |position, index| OutboxItem {
            position: Position(position),
            index,
            time_ms: 1,
            user: UserId::SYSTEM,
            notice: Bytes::new(),
        };
        let mut outbox = Outbox::new(vec![item(4, 0), item(4, 1), item(9, 0)]);
        assert_eq!(outbox.write_done(), Some(Position(3)));
        outbox.remove((Position(4), 0));
        assert_eq!(outbox.write_done(), None);
        outbox.remove((Position(4), 1));
        assert_eq!(outbox.write_done(), Some(Position(8)));
        let outgoing = |index| Outgoing {
            index,
            user: UserId::SYSTEM,
            notice: Bytes::new(),
            account: UserId::SYSTEM,
        };
        outbox.add(Position(12), 1, vec![outgoing(0), outgoing(1)]);
        outbox.pending.clear();
        assert_eq!(outbox.write_done(), Some(Position(11)));
        for index in 0..2 {
            assert_eq!(outbox.next_to_send(), Some((Position(12), index)));
            assert_eq!(outbox.write_done(), None, "it is sent, and not kept yet");
            outbox.remove((Position(12), index));
        }
        assert_eq!(outbox.write_done(), Some(Position(12)));
    }
}
