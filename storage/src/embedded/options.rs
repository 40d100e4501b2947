//! How an embedded store is kept.

use super::{
    format::Fixed,
    log::LogOptions,
    threads::ThreadHook,
    views::SENT_KEEP_MS,
    worker::{StepHook, WorkerOptions},
};
use crate::journal::JournalError;

const DAY_MS: u64 = 24 * 3600 * 1000;

/// Choices of whoever runs the store. The first three count when a data directory is made and are ignored later.
#[derive(Clone, Debug)]
pub struct EmbeddedOptions {
    /// Lanes, 1 to 4096. They bound how many shards and brokers can share the work, for ever.
    pub lanes: u16,
    /// Width of a window of events, milliseconds: the grain of retention.
    pub events_window_ms: u64,
    /// Width of a window of sent ids, milliseconds.
    pub sent_window_ms: u64,
    /// Events are dropped, by whole windows, once they are older than this, milliseconds; `None`: kept for ever.
    pub retention_ms: Option<u64>,
    /// Bytes of a journal segment, 8 KiB to 1 GiB.
    pub segment_bytes: u32,
    /// Journal segments that the views hold are kept for rebuilding up to these bytes together, none where the disk is full …
    pub journal_keep_bytes: u64,
    /// … and up to this age, milliseconds.
    pub journal_keep_ms: u64,
    /// Bytes that may wait for the journal.
    pub journal_queue_bytes_max: usize,
    /// Above so many segments that the views lag behind, publishers are slowed.
    pub lag_segments_soft: usize,
    /// At so many they wait.
    pub lag_segments_hard: usize,
    /// Blocks of the views kept in memory, bytes.
    pub cache_bytes: u64,
    /// Threads that reads run on.
    pub reader_threads: usize,
    /// Reads that may wait for one of them; more are refused.
    pub reads_waiting_max: usize,
    /// Share of the time that a segment's way into the views takes of one core while it is not behind, percent, 1 to 100.
    pub views_duty_percent: u32,
    /// How often it is written when users were last seen, milliseconds.
    pub seen_flush_ms: u64,
    /// Called on each thread of the store as it starts.
    pub on_thread: Option<ThreadHook>,
    /// Lets tests end the views' thread in the middle of its work.
    #[doc(hidden)]
    pub on_step: Option<StepHook>,
}

impl Default for EmbeddedOptions {
    fn default() -> Self {
        let log = LogOptions::new(0, 128);
        Self {
            lanes: log.lanes,
            events_window_ms: 7 * DAY_MS,
            sent_window_ms: SENT_KEEP_MS,
            retention_ms: None,
            segment_bytes: log.segment_bytes,
            journal_keep_bytes: log.keep_bytes,
            journal_keep_ms: log.keep_ms,
            journal_queue_bytes_max: log.queue_bytes_max,
            lag_segments_soft: log.lag_segments_soft,
            lag_segments_hard: log.lag_segments_hard,
            cache_bytes: 32 << 20,
            reader_threads: 2,
            reads_waiting_max: 8192,
            views_duty_percent: 50,
            seen_flush_ms: 5000,
            on_thread: None,
            on_step: None,
        }
    }
}

impl EmbeddedOptions {
    pub(super) fn check(&self) -> Result<(), JournalError> {
        let wrong = |what: &str| {
            Err(JournalError::Format(format!(
                "option {what} is out of range"
            )))
        };
        if !(1..=4096).contains(&self.lanes) {
            return wrong("lanes (1 to 4096)");
        }
        if self.events_window_ms == 0 || self.sent_window_ms == 0 {
            return wrong("events_window_ms or sent_window_ms (at least 1)");
        }
        if self.reader_threads == 0 || self.reads_waiting_max == 0 {
            return wrong("reader_threads or reads_waiting_max (at least 1)");
        }
        if !(1..=100).contains(&self.views_duty_percent) {
            return wrong("views_duty_percent (1 to 100)");
        }
        Ok(())
    }

    pub(super) fn fixed(&self) -> Fixed {
        Fixed {
            lanes: self.lanes,
            events_window_ms: self.events_window_ms,
            sent_window_ms: self.sent_window_ms,
        }
    }

    pub(super) fn log(&self, data_set: u128, lanes: u16) -> LogOptions {
        LogOptions {
            segment_bytes: self.segment_bytes,
            queue_bytes_max: self.journal_queue_bytes_max,
            keep_bytes: self.journal_keep_bytes,
            keep_ms: self.journal_keep_ms,
            lag_segments_soft: self.lag_segments_soft,
            lag_segments_hard: self.lag_segments_hard,
            on_thread: self.on_thread,
            ..LogOptions::new(data_set, lanes)
        }
    }

    pub(super) fn into_worker(self) -> WorkerOptions {
        WorkerOptions {
            duty_percent: self.views_duty_percent,
            retention_ms: self.retention_ms,
            seen_flush_ms: self.seen_flush_ms,
            // What is in a segment that is not full cannot become too old.
            seal_ms: self.retention_ms.map(|_| DAY_MS),
            on_step: self.on_step,
        }
    }
}
