//! Metrics: one table of names, what they mean, and where they are read. docs/OPERATIONS.md is checked against it.

use std::{collections::BTreeMap, fmt};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet, text::encode},
    metrics::MetricType,
    registry::Registry,
};
use rialto_core::counters::{Counters, Shed};

use super::shared::Figures;
use crate::shard::figures::{Carrier, ShellFigures};

/// What a metric shows.
enum Samples {
    /// A number.
    One(u64),
    /// A number with a fraction.
    Fraction(f64),
    /// A number for each set of labels.
    Labelled(Vec<(Vec<(&'static str, &'static str)>, u64)>),
}

macro_rules! metrics {
    ($($name:literal $help:literal = $read:expr;)+) => {
        /// Every metric: its name and what it tells. Names that end in `_total` are counters since the start, others gauges.
        pub const METRICS: &[(&str, &str)] = &[$(($name, $help)),+];

        /// How each is read, in the same order.
        const READ: &[fn(&Figures) -> Samples] = &[$($read),+];
    };
}

metrics! {
    "rialto_accept_errors_total" "Connections that could not be accepted for want of descriptors or memory." = |f| f.shell(|s| s.accept_errors);
    "rialto_append_failures_total" "Appends that the journal refused or could not make durable." = |f| f.shell(|s| s.append_failures);
    "rialto_build_info" "Always 1; the label tells the version." = |_| Samples::Labelled(vec![(vec![("version", env!("CARGO_PKG_VERSION"))], 1)]);
    "rialto_bytes_queued_total" "Bytes of frames queued for connections." = |f| f.core(|c| c.bytes_out);
    "rialto_bytes_received_total" "Bytes of frames read from connections." = |f| f.shell(|s| s.bytes_in);
    "rialto_connections" "Open connections by transport, after their handshake." = |f| f.by_carrier(|s| s.open);
    "rialto_connections_open" "Open connections of the node, handshakes included; the limit counts these." = |f| Samples::One(f.open_connections as u64);
    "rialto_connections_opened_total" "Connections whose handshake was done, by transport." = |f| f.by_carrier(|s| s.opened);
    "rialto_conversations" "Conversations in memory." = |f| f.core(|c| c.conversations);
    "rialto_events_appended_total" "Events appended and durable." = |f| f.core(|c| c.events_appended);
    "rialto_events_delivered_total" "Events queued for readers, catch-up included." = |f| f.core(|c| c.events_delivered);
    "rialto_forward_stalls_total" "Times a shard stopped reading because another shard's mailbox was full." = |f| f.shell(|s| s.stalls);
    "rialto_forwarded_total" "Messages from one shard to another." = |f| f.core(|c| c.forwarded);
    "rialto_frames_queued_total" "Frames queued for connections." = |f| f.core(|c| c.frames_out);
    "rialto_frames_received_total" "Frames read from connections." = |f| f.core(|c| c.frames_in);
    "rialto_inputs_parked" "Requests that wait for a read of storage." = |f| f.core(|c| c.parked);
    "rialto_journal_bytes_total" "Bytes appended to the journal." = |f| Samples::One(f.journal.bytes);
    "rialto_journal_entries_total" "Entries appended to the journal." = |f| Samples::One(f.journal.entries);
    "rialto_journal_groups_total" "Groups of entries written to the journal, each with one sync." = |f| Samples::One(f.journal.groups);
    "rialto_journal_outbox_segments" "Segments that the views hold and that stay because they or one before them hold a notice that its inbox has not taken." = |f| Samples::One(f.journal.outbox_segments);
    "rialto_journal_poisoned" "1 when nothing can be appended any more: the process has to be started again." = |f| Samples::One(f.journal.poisoned.into());
    "rialto_journal_segments" "Segments on disk, recycled ones included." = |f| Samples::One(f.journal.segments);
    "rialto_journal_slowed_total" "Times appends were slowed because the views lagged." = |f| Samples::One(f.journal.slowed);
    "rialto_journal_sync_seconds_total" "Time that the journal's syncs took." = |f| Samples::Fraction(seconds(f.journal.sync_us));
    "rialto_journal_views_lag_bytes" "Durable bytes that the views do not hold yet." = |f| Samples::One(f.journal.views_lag_bytes);
    "rialto_journal_views_lag_segments" "Segments that the views do not hold yet." = |f| Samples::One(f.journal.views_lag_segments);
    "rialto_load_failures_total" "Reads of storage that failed. Those that it was too busy for are tried again and do not count." = |f| f.shell(|s| s.load_failures);
    "rialto_loads_total" "Reads asked of storage." = |f| f.core(|c| c.loads);
    "rialto_publish_duplicates_total" "Messages answered from an earlier append of the same client_id." = |f| f.core(|c| c.duplicates);
    "rialto_quic_retries_total" "QUIC clients that were asked to prove their address first." = |f| f.shell(|s| s.retries);
    "rialto_readers_fallen_behind_total" "Times a reader was switched from live to reading from the log." = |f| f.core(|c| c.readers_fallen_behind);
    "rialto_sessions" "Authenticated sessions." = |f| f.core(|c| c.sessions);
    "rialto_shards" "Threads that own conversations and connections." = |f| Samples::One(f.shards.len() as u64);
    "rialto_shed_total" "Drops and refusals by queue and reason." = |f| f.shed_samples();
    "rialto_subscriptions" "Subscriptions of all sessions." = |f| f.core(|c| c.subscriptions);
    "rialto_tls_certificate_not_after_seconds" "When the certificate of TLS and QUIC ends, seconds since 1970; not there without one." = |f| f.certificate();
    "rialto_uptime_seconds" "Time since the start." = |f| Samples::Fraction(f.uptime.as_secs_f64());
}

/// Every queue and reason that `rialto_shed_total` can have.
pub fn sheds() -> impl Iterator<Item = (&'static str, &'static str)> {
    let core = rialto_core::counters::SHED.iter();
    core.chain(crate::shard::figures::SHED).copied()
}

/// All metrics in OpenMetrics text.
pub(super) fn text(figures: Figures) -> Result<String, fmt::Error> {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Table(figures)));
    let mut text = String::new();
    encode(&mut text, &registry)?;
    Ok(text)
}

impl Figures {
    fn core(&self, read: fn(&Counters) -> u64) -> Samples {
        Samples::One(self.shards.iter().map(|shard| read(&shard.core)).sum())
    }

    fn shell(&self, read: fn(&ShellFigures) -> u64) -> Samples {
        Samples::One(self.shards.iter().map(|shard| read(&shard.shell)).sum())
    }

    fn by_carrier(&self, read: fn(&ShellFigures) -> [u64; 3]) -> Samples {
        let sample = |(carrier, name): (Carrier, &'static str)| {
            let count = self
                .shards
                .iter()
                .map(|shard| read(&shard.shell)[carrier as usize])
                .sum();
            (vec![("transport", name)], count)
        };
        Samples::Labelled(Carrier::ALL.into_iter().map(sample).collect())
    }

    fn certificate(&self) -> Samples {
        self.certificate_ends_s
            .map_or(Samples::Labelled(Vec::new()), Samples::One)
    }

    /// Drops and refusals of all shards, core and shell.
    pub(super) fn shed(&self) -> BTreeMap<Shed, u64> {
        let mut sums = BTreeMap::new();
        for (shed, count) in self
            .shards
            .iter()
            .flat_map(|shard| shard.core.shed.iter().chain(&shard.shell.shed))
        {
            *sums.entry(*shed).or_default() += count;
        }
        sums
    }

    fn shed_samples(&self) -> Samples {
        let sample = |(shed, count): (Shed, u64)| {
            (vec![("queue", shed.queue), ("reason", shed.reason)], count)
        };
        Samples::Labelled(self.shed().into_iter().map(sample).collect())
    }
}

#[derive(Debug)]
struct Table(Figures);

impl Collector for Table {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        for ((name, help), read) in METRICS.iter().zip(READ) {
            // The encoder adds the suffix of counters itself, and the full stop of every help text.
            let help = help.trim_end_matches('.');
            let (base, kind) = match name.strip_suffix("_total") {
                Some(base) => (base, MetricType::Counter),
                None => (*name, MetricType::Gauge),
            };
            let mut metric = encoder.encode_descriptor(base, help, None, kind)?;
            match read(&self.0) {
                Samples::One(count) => encode_count(&mut metric, kind, count)?,
                Samples::Fraction(value) => encode_fraction(&mut metric, kind, value)?,
                Samples::Labelled(samples) => {
                    for (labels, count) in samples {
                        encode_count(&mut metric.encode_family(&labels)?, kind, count)?;
                    }
                }
            }
        }
        Ok(())
    }
}

fn encode_count(metric: &mut MetricEncoder<'_>, kind: MetricType, count: u64) -> fmt::Result {
    match kind {
        MetricType::Counter => metric.encode_counter::<NoLabelSet, u64, f64>(&count, None),
        _ => metric.encode_gauge(&i64::try_from(count).unwrap_or(i64::MAX)),
    }
}

fn encode_fraction(metric: &mut MetricEncoder<'_>, kind: MetricType, value: f64) -> fmt::Result {
    match kind {
        MetricType::Counter => metric.encode_counter::<NoLabelSet, f64, f64>(&value, None),
        _ => metric.encode_gauge(&value),
    }
}

fn seconds(microseconds: u64) -> f64 {
    std::time::Duration::from_micros(microseconds).as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shard::figures::{ShardFigures, Stage};
    use rialto_storage::journal::JournalStatus;

    fn figures() -> Figures {
        let mut shard = ShardFigures::default();
        shard.core.events_appended = 20;
        shard.core.shed("parked", "full");
        shard.shell.shed(Stage::Accept, "total");
        let journal = JournalStatus {
            sync_us: 1_500_000,
            ..JournalStatus::default()
        };
        let uptime = std::time::Duration::from_secs(3);
        Figures {
            shards: vec![shard.clone(), shard],
            complete: true,
            journal,
            uptime,
            open_connections: 4,
            certificate_ends_s: Some(2_000_000_000),
        }
    }

    #[test]
    fn every_metric_of_the_table_is_shown_under_its_name() {
        let text = text(figures()).unwrap();
        for (name, _) in METRICS {
            assert!(
                text.lines()
                    .any(|line| line.starts_with(&format!("{name} "))
                        || line.starts_with(&format!("{name}{{"))),
                "{name} is missing in\n{text}"
            );
        }
    }

    #[test]
    fn figures_of_all_shards_are_added_up() {
        let text = text(figures()).unwrap();
        for line in [
            "rialto_events_appended_total 40",
            "rialto_shed_total{queue=\"parked\",reason=\"full\"} 2",
            "rialto_shed_total{queue=\"accept\",reason=\"total\"} 2",
            "rialto_journal_sync_seconds_total 1.5",
            "rialto_connections_open 4",
            "rialto_tls_certificate_not_after_seconds 2000000000",
        ] {
            assert!(
                text.lines().any(|found| found == line),
                "{line} is missing in\n{text}"
            );
        }
    }

    #[test]
    fn a_broker_without_a_certificate_does_not_say_that_it_has_ended() {
        let mut figures = figures();
        figures.certificate_ends_s = None;
        let text = text(figures).unwrap();
        let line = "rialto_tls_certificate_not_after_seconds ";
        assert!(!text.lines().any(|found| found.starts_with(line)));
    }

    #[test]
    fn names_are_sorted_and_unique() {
        assert!(METRICS.windows(2).all(|pair| pair[0].0 < pair[1].0));
    }
}
