//! Lanes: what a conversation decides becomes a record of its lane's open entry; entries go to the journal in order, and
//! what rests on them waits until they are durable.

use std::collections::{BTreeMap, VecDeque};

use bytes::{Bytes, BytesMut};
use rialto_protocol::{
    error::ErrorCode,
    event::EventHead,
    ids::{ConversationId, Cursor, Epoch, LaneId, Position, Seq, UserId},
    record::{self, Table},
};
use smallvec::SmallVec;

use crate::{
    config::CoreConfig,
    effects::Effects,
    io::{AppendFailure, Entry, LaneClaim, Now, Output},
    message::Receipted,
    topology::ShardId,
};

use super::{
    entry::{Built, LogEnd, Outgoing, Spare, Touched, Waiting},
    outbox::{ItemId, Notices, Outbox},
};

/// Room that an entry's buffer keeps for the next one.
const OPEN_KEPT_BYTES: usize = 16 << 10;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Serving,
    /// An append failed and nothing was kept: nothing is taken until all that is on its way has come back.
    Failing,
    /// For good.
    Lost,
}

/// One lane of this owner.
#[derive(Debug)]
pub(super) struct Lane {
    id: LaneId,
    epoch: Epoch,
    time_ms: u64,
    durable: Position,
    closed_tail: Position,
    open: BytesMut,
    touched: Vec<Touched>,
    outgoing: Vec<Outgoing>,
    receipts: Vec<(ShardId, Receipted)>,
    closed: VecDeque<Built>,
    in_flight: VecDeque<Built>,
    waiting: BTreeMap<Position, Vec<Waiting>>,
    state: State,
    /// It stands in the list of those to be flushed.
    is_dirty: bool,
    /// What has still to be passed on to inboxes.
    pub(super) outbox: Outbox,
}

impl Lane {
    fn new(claim: LaneClaim) -> Self {
        Self {
            id: claim.lane,
            epoch: claim.epoch,
            time_ms: claim.time_ms,
            durable: claim.tail,
            closed_tail: claim.tail,
            open: BytesMut::new(),
            touched: Vec::new(),
            outgoing: Vec::new(),
            receipts: Vec::new(),
            closed: VecDeque::new(),
            in_flight: VecDeque::new(),
            waiting: BTreeMap::new(),
            state: State::Serving,
            is_dirty: false,
            outbox: Outbox::new(claim.outbox),
        }
    }

    /// Position of the entry that is being filled.
    pub(super) fn open_position(&self) -> Position {
        self.closed_tail.next()
    }

    /// Journal time of the entry that is being filled.
    pub(super) fn time_ms(&self) -> u64 {
        self.time_ms
    }

    pub(super) fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// Makes the open entry ready for the records of one decision, which belong together: a full one is closed first. Gives the
    /// bytes of that.
    fn begin(&mut self, now: Now, entry_bytes_max: usize, spare: &mut Spare) -> usize {
        let closed = if self.open.len() >= entry_bytes_max {
            self.close(spare)
        } else {
            0
        };
        if self.open.is_empty() {
            self.time_ms = self.time_ms.max(now.unix_ms);
        }
        closed
    }

    /// Adds the next event of a conversation. `touch` is where the conversation's last event stands, and is moved on.
    pub(super) fn event(
        &mut self,
        conversation: ConversationId,
        touch: &mut Option<(Position, usize)>,
        head: &EventHead,
        encode: impl FnOnce(&mut BytesMut),
    ) {
        let range = record::put_event(&mut self.open, &conversation, encode);
        let end = LogEnd {
            cursor: Cursor {
                epoch: head.epoch,
                seq: head.seq,
            },
            ordinal: head.ordinal,
            time_ms: head.time_ms,
        };
        let position = self.open_position();
        match *touch {
            Some((known, index)) if known == position => {
                let touched = &mut self.touched[index];
                touched.end = end;
                touched.events.push(range);
            }
            _ => {
                *touch = Some((position, self.touched.len()));
                let events = SmallVec::from_iter([range]);
                self.touched.push(Touched {
                    conversation,
                    first: head.seq,
                    end,
                    events,
                    ended: SmallVec::new(),
                });
            }
        }
    }

    /// After the event that was just added the user may not read on.
    pub(super) fn end_reader(
        &mut self,
        touch: Option<(Position, usize)>,
        user: UserId,
        seq: Seq,
        code: ErrorCode,
    ) {
        if let Some((_, index)) = touch {
            self.touched[index].ended.push((user, seq, code));
        }
    }

    pub(super) fn row(
        &mut self,
        conversation: &ConversationId,
        table: Table,
        key: &[u8],
        value: &[u8],
    ) {
        record::put_row(&mut self.open, conversation, table, key, value);
    }

    /// Adds something to be passed on to a user's inbox once the entry is durable.
    fn notify(&mut self, account: UserId, user: UserId, notice: Bytes) {
        record::put_outbox(&mut self.open, &user, &notice);
        // An entry is closed long before it holds that many.
        let index = u16::try_from(self.outgoing.len()).unwrap_or(u16::MAX);
        self.outgoing.push(Outgoing {
            index,
            user,
            notice,
            account,
        });
    }

    /// Gives the bytes of the entry.
    fn close(&mut self, spare: &mut Spare) -> usize {
        if let Some(through) = self.outbox.write_done() {
            record::put_outbox_done(&mut self.open, through);
        }
        let bytes = self.open.len();
        if bytes == 0 {
            return 0;
        }
        self.closed_tail = self.closed_tail.next();
        self.closed.push_back(Built {
            position: self.closed_tail,
            time_ms: self.time_ms,
            // The buffer stays with the lane, so that it does not grow anew from nothing with every entry.
            records: spare.records(&self.open),
            touched: std::mem::replace(&mut self.touched, spare.touched.pop().unwrap_or_default()),
            outgoing: std::mem::take(&mut self.outgoing),
            receipts: std::mem::replace(
                &mut self.receipts,
                spare.receipts.pop().unwrap_or_default(),
            ),
        });
        self.open.clear();
        if self.open.capacity() > OPEN_KEPT_BYTES {
            self.open = BytesMut::new();
        }
        bytes
    }

    fn wait(&mut self, position: Position, waiting: Waiting) {
        self.waiting.entry(position).or_default().push(waiting);
    }
}

/// All lanes of this owner.
#[derive(Debug)]
pub(super) struct Lanes {
    lanes: Vec<Option<Lane>>,
    entry_bytes_max: usize,
    in_flight_max: usize,
    /// Lanes with something to flush; each once.
    dirty: Vec<LaneId>,
    /// Lanes that are to be [`Self::reset`].
    failed: Vec<LaneId>,
    /// What all of them have to pass on, durable or not.
    notices: Notices,
    /// Bytes of closed entries and of messages that wait for the disk, be the clients that they are for gone or not.
    bytes: usize,
    bytes_max: usize,
    spare: Spare,
}

impl Lanes {
    pub(super) fn new(lanes: u16, config: &CoreConfig, claims: Vec<LaneClaim>) -> Self {
        let mut table: Vec<Option<Lane>> = (0..lanes).map(|_| None).collect();
        for claim in claims {
            let index = usize::from(claim.lane.0);
            table[index] = Some(Lane::new(claim));
        }
        let known = table.iter().flatten();
        let notices = known.map(|lane| lane.outbox.len()).sum();
        Self {
            lanes: table,
            notices: Notices::new(notices, config.hasher()),
            bytes: 0,
            bytes_max: config.shard_bytes_max,
            entry_bytes_max: config.entry_bytes_max,
            in_flight_max: config.entries_in_flight_max,
            dirty: Vec::new(),
            failed: Vec::new(),
            spare: Spare::default(),
        }
    }

    /// The lane, ready for one decision's records; it will be flushed.
    ///
    /// # Panics
    /// When the lane is not this owner's: messages are routed by the same map that lanes are claimed by.
    pub(super) fn begin(&mut self, lane: LaneId, now: Now) -> &mut Lane {
        let entry_bytes_max = self.entry_bytes_max;
        let known = own(&mut self.lanes, lane);
        if !known.is_dirty {
            known.is_dirty = true;
            self.dirty.push(lane);
        }
        self.bytes += known.begin(now, entry_bytes_max, &mut self.spare);
        known
    }

    pub(super) fn get_mut(&mut self, lane: LaneId) -> &mut Lane {
        own(&mut self.lanes, lane)
    }

    fn get(&self, lane: LaneId) -> &Lane {
        self.lanes[usize::from(lane.0)]
            .as_ref()
            .expect("a message for a lane of another shard")
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = (LaneId, &mut Lane)> {
        self.lanes.iter_mut().flatten().map(|lane| (lane.id, lane))
    }

    /// Adds something to be passed on to a user's inbox once the lane's open entry is durable.
    pub(super) fn notify(&mut self, lane: LaneId, account: UserId, user: UserId, notice: Bytes) {
        self.notices.add(account);
        self.get_mut(lane).notify(account, user, notice);
    }

    /// An inbox has an item.
    pub(super) fn passed_on(&mut self, lane: LaneId, item: ItemId) {
        if let Some(account) = self.get_mut(lane).outbox.remove(item) {
            self.notices.remove(account);
        }
    }

    /// What all lanes have to pass on.
    pub(super) fn notices(&self) -> &Notices {
        &self.notices
    }

    pub(super) fn durable_position(&self, lane: LaneId) -> Position {
        self.get(lane).durable
    }

    /// Whether as much waits for the disk as connections may hold: who has sent it may be gone.
    pub(super) fn are_full(&self) -> bool {
        self.bytes > self.bytes_max
    }

    /// Nothing can be appended, now or for good.
    pub(super) fn is_lost(&self, lane: LaneId) -> bool {
        self.get(lane).state != State::Serving
    }

    /// Keeps something back until the position is durable.
    pub(super) fn wait(&mut self, lane: LaneId, position: Position, waiting: Waiting) {
        self.bytes += waiting.bytes();
        self.get_mut(lane).wait(position, waiting);
    }

    /// Keeps a receipt back until the position is durable.
    pub(super) fn receipt(
        &mut self,
        lane: LaneId,
        position: Position,
        edge: ShardId,
        receipted: Receipted,
    ) {
        let lane = self.get_mut(lane);
        if position == lane.open_position() {
            lane.receipts.push((edge, receipted));
        } else {
            lane.wait(position, Waiting::Receipt(edge, receipted));
        }
    }

    /// Closes the open entries and hands out what may be on its way.
    pub(super) fn flush(&mut self, fx: &mut Effects) {
        let dirty = std::mem::take(&mut self.dirty);
        for id in dirty {
            let in_flight_max = self.in_flight_max;
            let lane = self.lanes[usize::from(id.0)]
                .as_mut()
                .expect("only own lanes become dirty");
            lane.is_dirty = false;
            if lane.state != State::Serving {
                continue;
            }
            // While the lane may not send more, its open entry goes on filling: batches grow with load.
            while lane.in_flight.len() < in_flight_max {
                if lane.closed.is_empty() {
                    self.bytes += lane.close(&mut self.spare);
                }
                let Some(built) = lane.closed.pop_front() else {
                    break;
                };
                fx.outputs.push(Output::Append(Entry {
                    lane: id,
                    epoch: lane.epoch,
                    position: built.position,
                    time_ms: built.time_ms,
                    records: built.records.clone(),
                }));
                lane.in_flight.push_back(built);
            }
            if !lane.closed.is_empty() || !lane.open.is_empty() {
                lane.is_dirty = true;
                self.dirty.push(id);
            }
        }
    }

    /// Entries up to `through` are durable; they come back in order.
    pub(super) fn durable(&mut self, lane: LaneId, through: Position) -> SmallVec<[Built; 1]> {
        let lane = own(&mut self.lanes, lane);
        if lane.state == State::Lost {
            return SmallVec::new();
        }
        let count = lane
            .in_flight
            .iter()
            .take_while(|built| built.position <= through)
            .count();
        lane.durable = lane.durable.max(through);
        let durable = lane.in_flight.drain(..count);
        durable
            .inspect(|built| self.bytes -= built.records.len())
            .collect()
    }

    /// An entry has been seen to: its lists may be used again.
    pub(super) fn take_back(&mut self, built: Built) {
        self.spare.take_back(built);
    }

    /// What waited for positions that are durable now.
    pub(super) fn released(&mut self, lane: LaneId) -> Vec<Waiting> {
        let lane = own(&mut self.lanes, lane);
        if lane.waiting.is_empty() {
            return Vec::new();
        }
        let later = lane.waiting.split_off(&lane.durable.next());
        let released = std::mem::replace(&mut lane.waiting, later);
        released
            .into_values()
            .flatten()
            .inspect(|waiting| self.bytes -= waiting.bytes())
            .collect()
    }

    /// An entry was not made durable.
    pub(super) fn failed(&mut self, lane: LaneId, position: Position, failure: AppendFailure) {
        let lane = own(&mut self.lanes, lane);
        if let Some(place) = lane
            .in_flight
            .iter()
            .position(|built| built.position == position)
            && let Some(built) = lane.in_flight.remove(place)
        {
            self.notices.remove_all(&built.outgoing);
            self.bytes -= built.records.len();
            for (edge, receipted) in built.receipts {
                lane.wait(position, Waiting::Receipt(edge, receipted));
            }
        }
        match (failure, lane.state) {
            (_, State::Lost) => {}
            (AppendFailure::Lost, _) => {
                lane.state = State::Lost;
                self.failed.push(lane.id);
            }
            (AppendFailure::NothingKept, _) => lane.state = State::Failing,
        }
    }

    /// Has the lane reset if an append failed and all that had been on its way with it has come back.
    pub(super) fn note_failing(&mut self, lane: LaneId) {
        let known = self.get(lane);
        if known.state == State::Failing && known.in_flight.is_empty() {
            self.failed.push(lane);
        }
    }

    /// The lanes that are to be [`Self::reset`], rising.
    pub(super) fn take_failed(&mut self) -> Vec<LaneId> {
        let mut failed = std::mem::take(&mut self.failed);
        failed.sort_unstable();
        failed.dedup();
        failed
    }

    /// Takes back all that is not durable; returns what waited for it.
    pub(super) fn reset(&mut self, lane: LaneId) -> Vec<Waiting> {
        let lane = own(&mut self.lanes, lane);
        lane.open.clear();
        lane.touched.clear();
        self.notices.remove_all(&std::mem::take(&mut lane.outgoing));
        let built = lane.in_flight.drain(..).chain(lane.closed.drain(..));
        let receipts = built
            .inspect(|built| {
                self.notices.remove_all(&built.outgoing);
                self.bytes -= built.records.len();
            })
            .flat_map(|built| built.receipts)
            .chain(lane.receipts.drain(..));
        let mut refused: Vec<Waiting> = receipts
            .map(|(edge, receipted)| Waiting::Receipt(edge, receipted))
            .collect();
        lane.closed_tail = lane.durable;
        lane.outbox.forget_written();
        if lane.state == State::Failing {
            lane.state = State::Serving;
        }
        let waiting = std::mem::take(&mut lane.waiting).into_values().flatten();
        refused.extend(waiting.inspect(|waiting| self.bytes -= waiting.bytes()));
        refused
    }

    pub(super) fn is_idle(&self) -> bool {
        let is_idle = |lane: &Lane| {
            lane.state == State::Lost
                || (lane.open.is_empty() && lane.closed.is_empty() && lane.in_flight.is_empty())
        };
        self.failed.is_empty() && self.lanes.iter().flatten().all(is_idle)
    }
}

/// One of this owner's.
fn own(lanes: &mut [Option<Lane>], lane: LaneId) -> &mut Lane {
    lanes[usize::from(lane.0)]
        .as_mut()
        .expect("a message for a lane of another shard")
}
