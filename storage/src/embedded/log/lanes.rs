//! Where each lane ends, who may go on writing it, and the checks that an entry passes before it is written.

use rialto_protocol::ids::{Epoch, LaneId, Position};

use super::{outbox::Outbox, sealed::LaneTail};
use crate::journal::{AppendError, ENTRY_BYTES_MAX, Entry};

/// All lanes of the data set; the journal thread's own.
pub(super) struct Lanes {
    lanes: Vec<Lane>,
    /// Lanes as they were before the last call to `admit`, in the order in which it changed them.
    undo: Vec<(LaneId, Lane)>,
}

/// One lane.
#[derive(Clone, Copy, Default)]
struct Lane {
    /// The last entry that is durable.
    durable: End,
    /// The last entry that was let through; all of them are written before the next look from outside.
    admitted: End,
    /// Given out by the last claim; `None`: not claimed since the start.
    owner: Option<Epoch>,
    /// An entry was turned away because the disk was full, so that those sent behind it come at positions too high.
    full: bool,
}

/// An entry at which a lane ends; all zero: none.
#[derive(Clone, Copy, Default)]
struct End {
    position: Position,
    epoch: Epoch,
    time_ms: u64,
}

impl Lanes {
    /// The lanes as the views' checkpoint knows them. Tails of lanes that the data set does not have are left out.
    pub(super) fn new(count: u16, tails: &[LaneTail]) -> Self {
        let mut lanes = vec![Lane::default(); usize::from(count)];
        for tail in tails {
            if let Some(lane) = lanes.get_mut(usize::from(tail.lane.0)) {
                let LaneTail {
                    position,
                    epoch,
                    time_ms,
                    ..
                } = *tail;
                let end = End {
                    position,
                    epoch,
                    time_ms,
                };
                *lane = Lane {
                    durable: end,
                    admitted: end,
                    ..Lane::default()
                };
            }
        }
        Self {
            lanes,
            undo: Vec::new(),
        }
    }

    /// Position and time of the lane's last durable entry; `None`: there is no such lane.
    pub(super) fn end(&self, lane: LaneId) -> Option<(Position, u64)> {
        self.lanes
            .get(usize::from(lane.0))
            .map(|lane| (lane.durable.position, lane.durable.time_ms))
    }

    /// Journal time of the newest durable entry.
    pub(super) fn time_max(&self) -> u64 {
        self.lanes
            .iter()
            .map(|lane| lane.durable.time_ms)
            .max()
            .unwrap_or(0)
    }

    /// The greatest epoch of any entry or claim.
    pub(super) fn epoch_max(&self) -> Epoch {
        let epochs = self
            .lanes
            .iter()
            .map(|lane| lane.owner.unwrap_or_default().max(lane.admitted.epoch));
        epochs.max().unwrap_or_default()
    }

    /// Hands the lane to a new owner.
    pub(super) fn own(&mut self, lane: LaneId, epoch: Epoch) {
        if let Some(lane) = self.lanes.get_mut(usize::from(lane.0)) {
            lane.owner = Some(epoch);
            lane.full = false;
        }
    }

    /// Checks the entries of one call and moves the lanes on behind them; with an error nothing has moved.
    pub(super) fn admit(
        &mut self,
        entries: &[Entry],
        records_bytes_max: usize,
    ) -> Result<(), AppendError> {
        self.undo.clear();
        let admitted = entries
            .iter()
            .try_for_each(|entry| self.admit_one(entry, records_bytes_max));
        if admitted.is_err() {
            self.retreat();
        }
        admitted
    }

    fn admit_one(&mut self, entry: &Entry, records_bytes_max: usize) -> Result<(), AppendError> {
        let Entry {
            lane: number,
            epoch,
            position,
            time_ms,
            ref records,
        } = *entry;
        let refused = |why: String| Err(AppendError::Refused(format!("lane {number}: {why}")));
        let Some(lane) = self.lanes.get_mut(usize::from(number.0)) else {
            return refused("the data set has no such lane".to_owned());
        };
        match lane.owner {
            None => return refused("it has not been claimed".to_owned()),
            Some(owner) if epoch < owner => return Err(AppendError::Fenced { lane: number }),
            Some(owner) if epoch > owner => {
                return refused(format!("epoch {epoch}, claimed was {owner}"));
            }
            Some(_) => {}
        }
        let last = lane.admitted;
        if position != last.position.next() {
            if lane.full && position > last.position {
                return Err(AppendError::Full);
            }
            return refused(format!("position {position} after {}", last.position));
        }
        if time_ms < last.time_ms {
            return refused(format!("time {time_ms} after {}", last.time_ms));
        }
        let longest = records_bytes_max.min(ENTRY_BYTES_MAX);
        if records.len() > longest {
            return refused(format!("{} bytes, {longest} at most", records.len()));
        }
        self.undo.push((number, *lane));
        lane.admitted = End {
            position,
            epoch,
            time_ms,
        };
        // If one was turned away, it is this one: a gap behind it is the caller's mistake again.
        lane.full = false;
        Ok(())
    }

    fn retreat(&mut self) {
        while let Some((number, before)) = self.undo.pop() {
            if let Some(lane) = self.lanes.get_mut(usize::from(number.0)) {
                *lane = before;
            }
        }
    }

    /// Takes back the last call to [`Self::admit`], before anything was written: there is no room for its entries.
    pub(super) fn turn_away(&mut self, entries: &[Entry]) {
        self.retreat();
        for entry in entries {
            if let Some(lane) = self.lanes.get_mut(usize::from(entry.lane.0)) {
                lane.full = true;
            }
        }
    }

    /// An entry is durable.
    pub(super) fn written(&mut self, entry: &Entry) {
        if let Some(lane) = self.lanes.get_mut(usize::from(entry.lane.0)) {
            let Entry {
                epoch,
                position,
                time_ms,
                ..
            } = *entry;
            lane.durable = End {
                position,
                epoch,
                time_ms,
            };
        }
    }

    /// Moves a lane on behind an entry that is read back; the error says why it cannot be the next one.
    pub(super) fn replay(
        &mut self,
        number: LaneId,
        position: Position,
        epoch: Epoch,
        time_ms: u64,
    ) -> Result<(), String> {
        let Some(lane) = self.lanes.get_mut(usize::from(number.0)) else {
            return Err(format!(
                "an entry of lane {number}, which the data set does not have"
            ));
        };
        let last = lane.durable;
        if position != last.position.next() {
            return Err(format!(
                "lane {number} goes on at position {position} after {}",
                last.position
            ));
        }
        if epoch < last.epoch || time_ms < last.time_ms {
            return Err(format!(
                "lane {number} goes back in epoch or time at position {position}"
            ));
        }
        lane.durable = End {
            position,
            epoch,
            time_ms,
        };
        lane.admitted = lane.durable;
        Ok(())
    }

    /// Tails of the lanes that have an entry.
    pub(super) fn tails(&self, outbox: &Outbox) -> Vec<LaneTail> {
        let numbered = (0..).map(LaneId).zip(&self.lanes);
        let used = numbered.filter(|(_, lane)| lane.durable.position > Position(0));
        let tails = used.map(
            |(
                lane,
                &Lane {
                    durable:
                        End {
                            position,
                            epoch,
                            time_ms,
                        },
                    ..
                },
            )| {
                let outbox_done = outbox.done(lane);
                LaneTail {
                    lane,
                    position,
                    epoch,
                    time_ms,
                    outbox_done,
                }
            },
        );
        tails.collect()
    }
}
