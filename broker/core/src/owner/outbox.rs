//! Outboxes: what an event causes elsewhere is passed on after the event is durable, under an id derived from it, until the
//! inbox has it. A crash resumes; dedupe makes it once.

use std::collections::BTreeMap;

use bytes::Bytes;
use rialto_protocol::ids::{ClientId, ConversationId, DeviceId, LaneId, Position, UserId};

use crate::{
    effects::Effects,
    io::{Now, OutboxItem},
    message::{Message, ToOwner},
};

use super::{desk::Desk, entry::Built};

/// How long an item that could not be kept waits before it is sent again.
const RETRY_US: u64 = 1_000_000;
/// How long "passed on" may wait for another entry to be written along with.
const WRITE_DONE_US: u64 = 10_000_000;

/// Position of an outbox record's entry, and its number there.
pub(super) type ItemId = (Position, u16);

/// What one lane has still to pass on.
#[derive(Debug)]
pub(super) struct Outbox {
    pending: BTreeMap<ItemId, Pending>,
    /// Position of the newest entry that had outbox records.
    newest: Position,
    /// What the journal knows to be done.
    written: Position,
}

#[derive(Debug)]
struct Pending {
    time_ms: u64,
    user: UserId,
    notice: Bytes,
    /// Has to be sent again.
    refused: bool,
}

impl Outbox {
    pub(super) fn new(items: Vec<OutboxItem>) -> Self {
        let mut outbox = Self {
            pending: BTreeMap::new(),
            newest: Position(0),
            written: Position(0),
        };
        for item in items {
            outbox.newest = outbox.newest.max(item.position);
            let pending = Pending {
                time_ms: item.time_ms,
                user: item.user,
                notice: item.notice,
                refused: false,
            };
            outbox.pending.insert((item.position, item.index), pending);
        }
        outbox
    }

    fn done_through(&self) -> Position {
        match self.pending.keys().next() {
            Some((position, _)) => Position(position.0.saturating_sub(1)),
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
    /// Sends what was left over from before the start.
    pub(super) fn resume_outboxes(&mut self, fx: &mut Effects) {
        let mut all = Vec::new();
        for (id, lane) in self.lanes.iter_mut() {
            for (item, pending) in &lane.outbox.pending {
                all.push((
                    id,
                    *item,
                    pending.time_ms,
                    pending.user,
                    pending.notice.clone(),
                ));
            }
        }
        for (lane, item, time_ms, user, notice) in all {
            self.send_notice(lane, item, time_ms, user, notice, fx);
        }
    }

    /// Passes on what a durable entry causes.
    pub(super) fn pass_on(&mut self, lane: LaneId, entry: &Built, fx: &mut Effects) {
        for (index, user, notice) in &entry.outgoing {
            let item = (entry.position, *index);
            let outbox = &mut self.lanes.get_mut(lane).outbox;
            outbox.newest = entry.position;
            let pending = Pending {
                time_ms: entry.time_ms,
                user: *user,
                notice: notice.clone(),
                refused: false,
            };
            outbox.pending.insert(item, pending);
            self.send_notice(lane, item, entry.time_ms, *user, notice.clone(), fx);
        }
    }

    fn send_notice(
        &self,
        lane: LaneId,
        item: ItemId,
        time_ms: u64,
        user: UserId,
        notice: Bytes,
        fx: &mut Effects,
    ) {
        let client_id = client_id_of(time_ms, item);
        let shard = self.topology.shard_of(&ConversationId::of_inbox(user));
        let message = ToOwner::Notify {
            from: self.id,
            lane,
            item,
            client_id,
            user,
            notice,
        };
        fx.send(shard, Message::ToOwner(message));
    }

    /// An inbox has an item, or could not keep it now.
    pub(super) fn passed_on(&mut self, now: Now, lane: LaneId, item: ItemId, kept: bool) {
        let outbox = &mut self.lanes.get_mut(lane).outbox;
        let wait = if kept {
            outbox.pending.remove(&item);
            WRITE_DONE_US
        } else {
            if let Some(pending) = outbox.pending.get_mut(&item) {
                pending.refused = true;
            }
            RETRY_US
        };
        let due = now.mono_us + wait;
        self.outbox_retry_us = Some(self.outbox_retry_us.map_or(due, |known| known.min(due)));
    }

    /// Sends refused items again, and writes down what is done where nothing else is written.
    pub(super) fn retry_outboxes(&mut self, now: Now, fx: &mut Effects) {
        if self.outbox_retry_us.is_none_or(|due| due > now.mono_us) {
            return;
        }
        self.outbox_retry_us = None;
        let mut again = Vec::new();
        let mut quiet = Vec::new();
        for (id, lane) in self.lanes.iter_mut() {
            for (item, pending) in lane
                .outbox
                .pending
                .iter_mut()
                .filter(|(_, pending)| pending.refused)
            {
                pending.refused = false;
                again.push((
                    id,
                    *item,
                    pending.time_ms,
                    pending.user,
                    pending.notice.clone(),
                ));
            }
            if lane.outbox.has_to_write() {
                quiet.push(id);
            }
        }
        for (lane, item, time_ms, user, notice) in again {
            self.send_notice(lane, item, time_ms, user, notice, fx);
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
        outbox.pending.remove(&(Position(4), 0));
        assert_eq!(outbox.write_done(), None);
        outbox.pending.remove(&(Position(4), 1));
        assert_eq!(outbox.write_done(), Some(Position(8)));
        outbox.pending.clear();
        assert_eq!(outbox.write_done(), Some(Position(9)));
    }
}
