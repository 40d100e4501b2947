//! What is measured: the same for Rialto and every peer.

use anyhow::bail;
use serde::Serialize;

/// Bytes of a message.
pub(crate) const MESSAGE_BYTES: usize = 100;
/// Conversations, streams or subjects among which published messages are spread.
pub(crate) const CONVERSATIONS: usize = 1000;

/// Events in the finished log that catch-up reads.
pub(crate) const HISTORY: usize = 1_000_000;

/// One load.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(crate) enum Load {
    /// Messages are published and acknowledged; nobody reads.
    Publish {
        /// Connections, each a publisher.
        connections: usize,
        /// Messages of a connection that wait for acknowledgement.
        in_flight: usize,
    },
    /// One publisher, whose every message goes to all readers.
    FanOut {
        /// Connections that read.
        readers: usize,
    },
    /// One reader reads what was published before, from the beginning.
    CatchUp,
}

/// Which figure decides, and in which direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(crate) enum Figure {
    /// Messages a second; more is better.
    PerSecond,
    /// The median latency; less is better.
    P50,
}

/// A load with its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Case {
    /// As `--only` names it.
    pub(crate) name: &'static str,
    /// As tables name it.
    pub(crate) title: &'static str,
    /// What is done.
    pub(crate) load: Load,
    /// What decides.
    pub(crate) figure: Figure,
}

const fn publish(
    name: &'static str,
    title: &'static str,
    connections: usize,
    in_flight: usize,
) -> Case {
    Case {
        name,
        title,
        load: Load::Publish {
            connections,
            in_flight,
        },
        figure: Figure::PerSecond,
    }
}

const fn fan_out(name: &'static str, title: &'static str, readers: usize) -> Case {
    Case {
        name,
        title,
        load: Load::FanOut { readers },
        figure: Figure::PerSecond,
    }
}

/// Every case, in the order of the table.
pub(crate) const CASES: &[Case] = &[
    publish(
        "durable-100x1",
        "publishes/s, 100 connections, 1 in flight each",
        100,
        1,
    ),
    publish(
        "durable-100x16",
        "publishes/s, 100 connections, 16 in flight each",
        100,
        16,
    ),
    publish(
        "durable-100x64",
        "publishes/s, 100 connections, 64 in flight each",
        100,
        64,
    ),
    publish(
        "durable-1x500",
        "publishes/s, one connection, 500 in flight",
        1,
        500,
    ),
    Case {
        figure: Figure::P50,
        ..publish("latency-1x1", "p50, one connection, 1 in flight", 1, 1)
    },
    fan_out("fan-out-1", "deliveries/s, 1 publisher → 1 reader", 1),
    fan_out(
        "fan-out-100",
        "deliveries/s, 1 publisher → 100 readers",
        100,
    ),
    fan_out(
        "fan-out-1000",
        "deliveries/s, 1 publisher → 1,000 readers",
        1000,
    ),
    Case {
        name: "catch-up",
        title: "events/s, one reader reads a finished log from its beginning",
        load: Load::CatchUp,
        figure: Figure::PerSecond,
    },
];

/// The cases whose names begin with one of `prefixes`; all when there are none.
///
/// # Errors
/// When a prefix fits no case.
pub(crate) fn chosen(prefixes: &[String]) -> anyhow::Result<Vec<Case>> {
    for prefix in prefixes {
        if !CASES.iter().any(|case| case.name.starts_with(&**prefix)) {
            let names: Vec<_> = CASES.iter().map(|case| case.name).collect();
            bail!(
                "--only {prefix}: no case begins so; there are {}",
                names.join(", ")
            );
        }
    }
    let fits = |case: &Case| {
        prefixes.is_empty()
            || prefixes
                .iter()
                .any(|prefix| case.name.starts_with(&**prefix))
    };
    Ok(CASES.iter().copied().filter(fits).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_chooses_all_cases_that_begin_with_it() {
        let names = |prefixes: &[&str]| -> Vec<&str> {
            let prefixes: Vec<_> = prefixes.iter().map(ToString::to_string).collect();
            let cases = chosen(&prefixes).unwrap();
            cases.iter().map(|case| case.name).collect()
        };
        assert_eq!(names(&[]).len(), CASES.len());
        assert_eq!(names(&["fan-out-100", "latency"]).len(), 3);
        assert_eq!(names(&["durable-1x"]), ["durable-1x500"]);
    }

    #[test]
    fn an_unknown_case_is_answered_with_the_names() {
        let error = chosen(&["fanout".to_owned()]).unwrap_err().to_string();
        assert!(error.contains("fanout") && error.contains("fan-out-1000"));
    }
}
