//! Appends under way: the entries of a turn go to the journal together, and come back lane by lane.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
};

use rialto_core::io::{AppendFailure, Entry, Input};
use rialto_protocol::ids::{LaneId, Position};
use rialto_storage::{
    Store, StoreFuture,
    journal::{self, AppendError},
};

use super::engine::Engine;
use crate::fate::StopReason;

/// Hands the entries to the journal. Calls take effect in their order.
pub(crate) fn start(store: &dyn Store, entries: Vec<Entry>) -> Appending {
    let places = entries
        .iter()
        .map(|entry| (entry.lane, entry.position))
        .collect();
    let entries = entries.into_iter().map(|entry| journal::Entry {
        lane: entry.lane,
        epoch: entry.epoch,
        position: entry.position,
        time_ms: entry.time_ms,
        records: entry.records,
    });
    Appending {
        places,
        append: store.append(entries.collect()),
    }
}

/// An append that is not durable yet.
pub(crate) struct Appending {
    places: Vec<(LaneId, Position)>,
    append: StoreFuture<(), AppendError>,
}

impl Future for Appending {
    type Output = Appended;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Appended> {
        let result = ready!(self.append.as_mut().poll(cx));
        Poll::Ready(Appended {
            places: std::mem::take(&mut self.places),
            result,
        })
    }
}

/// How an append ended.
pub(crate) struct Appended {
    places: Vec<(LaneId, Position)>,
    result: Result<(), AppendError>,
}

impl Appended {
    /// What the core is to be told; what cannot be gone on with is reported.
    pub(crate) fn into_inputs(self, engine: &Engine) -> Vec<Input> {
        let Err(error) = self.result else {
            return durable(self.places);
        };
        let complaints = engine.count_append_failure();
        let failure = match &error {
            AppendError::Poisoned(cause) => {
                engine
                    .node()
                    .fate
                    .report(StopReason::JournalPoisoned(cause.clone()));
                AppendFailure::Lost
            }
            // After a full disk the entries behind the first one stand at positions that were never reached.
            AppendError::Full | AppendError::NoSegment(_) | AppendError::Refused(_) => {
                if let Some(failures) = complaints.note() {
                    tracing::warn!(%error, failures, "nothing can be appended");
                }
                AppendFailure::NothingKept
            }
            AppendError::Fenced { .. } => {
                engine
                    .node()
                    .fate
                    .report(StopReason::JournalLost(error.to_string()));
                AppendFailure::Lost
            }
        };
        let failed = |(lane, position)| Input::AppendFailed {
            lane,
            position,
            failure,
        };
        self.places.into_iter().map(failed).collect()
    }
}

/// Once a lane, up to its last entry. Entries of a lane come in rising order.
fn durable(mut places: Vec<(LaneId, Position)>) -> Vec<Input> {
    places.sort_unstable();
    let last_of_each = places.chunk_by(|a, b| a.0 == b.0).filter_map(<[_]>::last);
    last_of_each
        .map(|&(lane, through)| Input::Appended { lane, through })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_lane_is_told_once_of_its_last_entry() {
        let places = [(2, 7), (1, 3), (2, 8), (1, 4)]
            .map(|(lane, position)| (LaneId(lane), Position(position)));
        let told: Vec<_> = durable(places.to_vec())
            .into_iter()
            .map(|input| match input {
                Input::Appended { lane, through } => (lane.0, through.0),
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(told, [(1, 4), (2, 8)]);
    }
}
