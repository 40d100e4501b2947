//! NATS without JetStream: what is published goes to those who listen now, and is kept nowhere.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::bail;

use super::nats_bench::{Running, understand};
use super::{Measured, Peer, Promise, Run, Setting};
use crate::case::{Case, Load};
use crate::tools::{self, Nats, Tools};
use crate::warm_up;

/// A reader that is slow for a while is waited for, not cut off.
const CONFIGURATION: &str = "max_pending: 1GB\nwrite_deadline: \"60s\"\n";
/// How long the readers may take to subscribe, or to be gone.
const SUBSCRIBED_WITHIN: Duration = Duration::from_secs(30);

pub(super) struct NatsCore {
    nats: Nats,
    version: String,
}

impl NatsCore {
    pub(super) fn build(tools: &Tools) -> anyhow::Result<Self> {
        let nats = tools.nats()?;
        Ok(Self {
            version: tools::version(&nats.server)?,
            nats,
        })
    }
}

impl Peer for NatsCore {
    fn name(&self) -> &'static str {
        "nats"
    }

    fn title(&self) -> String {
        format!("NATS core {}", self.version)
    }

    fn promise(&self) -> Promise {
        Promise::Nothing
    }

    fn terms(&self) -> &'static str {
        "Nothing is stored, acknowledged or sent again. `max_pending` 1 GB and `write_deadline` 60 s, so that no reader is cut off. `nats bench sub` \
         has all readers in one process, `nats bench pub` publishes as fast as the server takes it; deliveries are counted from the first message \
         that any reader got to the last."
    }

    fn settings(&self, case: &Case) -> Vec<Setting> {
        if !matches!(case.load, Load::FanOut { .. }) {
            return Vec::new();
        }
        let one_processor_each = || Setting::named("GOMAXPROCS=1").environment("GOMAXPROCS", "1");
        let seldom_collected = one_processor_each()
            .and("GOGC=400")
            .environment("GOGC", "400");
        vec![
            seldom_collected,
            one_processor_each(),
            Setting::named("defaults"),
        ]
    }

    fn measure(&self, case: &Case, setting: &Setting, run: Run<'_>) -> anyhow::Result<Measured> {
        let Load::FanOut { readers } = case.load else {
            bail!("NATS core takes part in fan-out only");
        };
        let running = Running::start(&self.nats, CONFIGURATION, setting, run)?;
        let nobody = running.subscriptions()?;
        let first = (200_000 / readers) as u64;
        let measured = warm_up::then_measure(run.times(), (first, readers), |messages| {
            // The readers of the round before have to be gone, lest they count as those of this one.
            wait_for(&running, |subscriptions| subscriptions <= nobody)?;
            fan_out(&running, nobody, (readers, messages), run)
        })?;
        Ok(Measured {
            peak_bytes: running.server.peak_bytes(),
            ..measured
        })
    }
}

fn fan_out(
    running: &Running<'_>,
    nobody: u64,
    (readers, messages): (usize, u64),
    run: Run<'_>,
) -> anyhow::Result<Measured> {
    let messages = format!("--msgs={messages}");
    let clients = format!("--clients={readers}");
    let subscribe = ["sub", "room", &clients, &messages];
    let reading = running.bench("nats-bench-sub", run.folder, &subscribe)?;
    wait_for(running, |subscriptions| {
        subscriptions >= nobody + readers as u64
    })?;
    let publishing = running.bench("nats-bench-pub", run.folder, &["pub", "room", &messages])?;
    publishing.output(run.limit())?;
    understand(&reading.output(run.limit())?)
}

/// Waits until the number of subscriptions is as it should be.
fn wait_for(running: &Running<'_>, fits: impl Fn(u64) -> bool) -> anyhow::Result<()> {
    let begun = Instant::now();
    loop {
        let subscriptions = running.subscriptions()?;
        if fits(subscriptions) {
            return Ok(());
        }
        if begun.elapsed() > SUBSCRIBED_WITHIN {
            bail!("the readers of nats bench do not come or go: {subscriptions} subscriptions");
        }
        thread::sleep(Duration::from_millis(20));
    }
}
