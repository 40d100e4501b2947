//! Lanes of the memory store: the conditional insert, what waits to become durable, and what a crash leaves.

use std::collections::VecDeque;

use rialto_protocol::{
    ids::{Epoch, LaneId, Position},
    record::Record,
};

use super::{
    AppendId, Durability,
    tables::{Tables, parse},
};
use crate::{
    journal::{AppendError, Claim, ENTRY_BYTES_MAX, Entry, JournalStatus, OutboxItem},
    promise::Resolver,
};

pub(super) type Outcome = Result<(), AppendError>;

#[derive(Clone, Debug, Default)]
struct Lane {
    epoch: Epoch,
    /// Of the last durable entry.
    tail: Position,
    time_ms: u64,
    /// Of the last entry that was accepted; ahead of the tail while appends wait.
    accepted: Position,
    accepted_time_ms: u64,
    outbox: Vec<OutboxItem>,
}

/// One append that is not durable yet.
struct Waiting {
    id: AppendId,
    entries: Vec<Entry>,
    outcome: Outcome,
    resolver: Option<Resolver<Outcome>>,
}

pub(super) struct State {
    lanes: Vec<Lane>,
    waiting: VecDeque<Waiting>,
    /// Entries of appends that failed by poison: a crash may find that they were kept after all.
    limbo: Vec<Entry>,
    next_append: u64,
    pub(super) durability: Durability,
    pub(super) full: bool,
    pub(super) closed: bool,
    poison: Option<String>,
    pub(super) tables: Tables,
    status: JournalStatus,
}

impl State {
    pub(super) fn new(lanes: u16) -> Self {
        Self {
            lanes: vec![Lane::default(); usize::from(lanes)],
            waiting: VecDeque::new(),
            limbo: Vec::new(),
            next_append: 0,
            durability: Durability::AtOnce,
            full: false,
            closed: false,
            poison: None,
            tables: Tables::default(),
            status: JournalStatus::default(),
        }
    }

    pub(super) fn lanes(&self) -> u16 {
        u16::try_from(self.lanes.len()).unwrap_or(u16::MAX)
    }

    pub(super) fn status(&self) -> JournalStatus {
        JournalStatus {
            poisoned: self.poison.is_some(),
            ..self.status
        }
    }

    /// Raises the lane's epoch. What its former owner has in flight meets the fence and is refused.
    pub(super) fn claim(&mut self, id: LaneId) -> Option<Claim> {
        for waiting in &mut self.waiting {
            let before = waiting.entries.len();
            waiting.entries.retain(|entry| entry.lane != id);
            if waiting.entries.len() < before && waiting.outcome.is_ok() {
                waiting.outcome = Err(AppendError::Fenced { lane: id });
            }
        }
        let lane = self.lanes.get_mut(usize::from(id.0))?;
        lane.epoch = lane.epoch.next();
        lane.accepted = lane.tail;
        lane.accepted_time_ms = lane.time_ms;
        Some(Claim {
            lane: id,
            epoch: lane.epoch,
            tail: lane.tail,
            time_ms: lane.time_ms,
            outbox: lane.outbox.clone(),
        })
    }

    /// Accepts the entries of one call, all or none.
    pub(super) fn append(
        &mut self,
        entries: Vec<Entry>,
        resolver: Option<Resolver<Outcome>>,
    ) -> Result<AppendId, (AppendError, Option<Resolver<Outcome>>)> {
        if let Err(error) = self.check(&entries) {
            return Err((error, resolver));
        }
        for entry in &entries {
            let lane = &mut self.lanes[usize::from(entry.lane.0)];
            lane.accepted = entry.position;
            lane.accepted_time_ms = entry.time_ms;
        }
        self.next_append += 1;
        let id = AppendId(self.next_append);
        self.waiting.push_back(Waiting {
            id,
            entries,
            outcome: Ok(()),
            resolver,
        });
        if self.durability == Durability::AtOnce {
            while self.step().is_some() {}
        }
        Ok(id)
    }

    fn check(&self, entries: &[Entry]) -> Result<(), AppendError> {
        if let Some(reason) = &self.poison {
            return Err(AppendError::Poisoned(reason.clone()));
        }
        if self.full {
            return Err(AppendError::Full);
        }
        let refused = |reason: String| Err(AppendError::Refused(reason));
        let mut ahead: Vec<(LaneId, Position, u64)> = Vec::new();
        for entry in entries {
            let Some(lane) = self.lanes.get(usize::from(entry.lane.0)) else {
                return refused(format!("there is no lane {}", entry.lane));
            };
            if entry.epoch < lane.epoch {
                return Err(AppendError::Fenced { lane: entry.lane });
            }
            if entry.epoch > lane.epoch || lane.epoch == Epoch(0) {
                return refused(format!(
                    "epoch {} of lane {} was never claimed",
                    entry.epoch, entry.lane
                ));
            }
            let known = ahead.iter().rposition(|(lane, ..)| *lane == entry.lane);
            let (last, time_ms) = known.map_or((lane.accepted, lane.accepted_time_ms), |index| {
                (ahead[index].1, ahead[index].2)
            });
            if entry.position != last.next() {
                return refused(format!(
                    "position {} of lane {} does not follow {last}",
                    entry.position, entry.lane
                ));
            }
            if entry.time_ms < time_ms {
                return refused(format!(
                    "time of lane {} goes back from {time_ms} to {}",
                    entry.lane, entry.time_ms
                ));
            }
            if entry.records.len() > ENTRY_BYTES_MAX {
                return refused(format!(
                    "an entry of {} bytes is too large",
                    entry.records.len()
                ));
            }
            if let Err(reason) = parse(&entry.records) {
                return refused(reason);
            }
            ahead.push((entry.lane, entry.position, entry.time_ms));
        }
        Ok(())
    }

    /// Makes the oldest append that waits durable.
    pub(super) fn step(&mut self) -> Option<(AppendId, Outcome)> {
        let waiting = self.waiting.pop_front()?;
        self.status.groups += 1;
        for entry in &waiting.entries {
            self.status.entries += 1;
            self.status.bytes += entry.records.len() as u64;
            self.keep(entry);
        }
        if let Some(resolver) = waiting.resolver {
            resolver.resolve(waiting.outcome.clone());
        }
        Some((waiting.id, waiting.outcome))
    }

    pub(super) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    fn keep(&mut self, entry: &Entry) {
        let Some(lane) = self.lanes.get_mut(usize::from(entry.lane.0)) else {
            return;
        };
        lane.tail = entry.position;
        lane.time_ms = entry.time_ms;
        let mut index = 0;
        // Checked when the entry was accepted.
        for (record, head) in parse(&entry.records).unwrap_or_default() {
            match (record, head) {
                (
                    Record::Event {
                        conversation,
                        event,
                    },
                    Some(head),
                ) => {
                    self.tables.add_event(conversation, &head, event);
                }
                (
                    Record::Row {
                        conversation,
                        table,
                        key,
                        value,
                    },
                    _,
                ) => {
                    self.tables.set_row(conversation, table, key, value);
                }
                (Record::Outbox { user, notice }, _) => {
                    let (position, time_ms) = (entry.position, entry.time_ms);
                    lane.outbox.push(OutboxItem {
                        position,
                        index,
                        time_ms,
                        user,
                        notice,
                    });
                    index += 1;
                }
                (Record::OutboxDone { through }, _) => {
                    lane.outbox.retain(|item| item.position > through);
                }
                (Record::Event { .. }, None) => {}
            }
        }
    }

    /// Everything that waits fails, and so does every later append.
    pub(super) fn poison(&mut self, reason: &str) -> Vec<AppendId> {
        self.poison = Some(reason.to_owned());
        let mut failed = Vec::new();
        for waiting in self.waiting.drain(..) {
            failed.push(waiting.id);
            self.limbo.extend(waiting.entries);
            if let Some(resolver) = waiting.resolver {
                resolver.resolve(Err(AppendError::Poisoned(reason.to_owned())));
            }
        }
        failed
    }

    /// What lasts, with the first `kept` entries that were written but never acknowledged.
    pub(super) fn durable(&self, kept: usize) -> Self {
        let mut state = Self::new(self.lanes());
        state.lanes.clone_from(&self.lanes);
        state.tables = self.tables.clone();
        for entry in self
            .limbo
            .iter()
            .chain(self.waiting.iter().flat_map(|waiting| &waiting.entries))
            .take(kept)
        {
            state.keep(entry);
        }
        for lane in &mut state.lanes {
            lane.accepted = lane.tail;
            lane.accepted_time_ms = lane.time_ms;
        }
        state
    }
}
