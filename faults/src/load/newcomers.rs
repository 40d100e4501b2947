//! Clients that come while others are there, and go again: how long it takes until they are let in.

use std::time::Duration;

use rialto_loadgen::latency::Latencies;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use super::Plan;
use super::dial::{connect, user};
use crate::patience::Patience;

/// From one that was let in to the next over the same endpoint.
const EVERY: Duration = Duration::from_millis(200);

/// One after the other over each of the plan's endpoints.
#[derive(Debug)]
pub struct Newcomers {
    patience: Duration,
    coming: Vec<(String, JoinHandle<anyhow::Result<Latencies>>)>,
    stop: watch::Sender<bool>,
}

/// Those who came over one endpoint.
#[derive(Debug)]
pub struct Came {
    /// Such as `tcp://127.0.0.1:7000`.
    pub endpoint: String,
    /// From the beginning of the first attempt to being welcome; or why somebody was not let in.
    pub waits: anyhow::Result<Latencies>,
}

impl Newcomers {
    /// They come until they are told to stop.
    #[must_use]
    pub fn begin(plan: &Plan) -> Self {
        let (stop, stopped) = watch::channel(false);
        let endpoints = plan.endpoints.iter().enumerate();
        let coming = endpoints.map(|(number, endpoint)| {
            let task = tokio::spawn(come(plan.clone(), number, stopped.clone()));
            (endpoint.clone(), task)
        });
        Self {
            patience: plan.patience,
            coming: coming.collect(),
            stop,
        }
    }

    /// No more come; those who wait are waited for.
    pub async fn end(self) -> Vec<Came> {
        self.stop.send_replace(true);
        let mut patience = Patience::of(self.patience);
        let mut all = Vec::new();
        for (endpoint, task) in self.coming {
            let abort = task.abort_handle();
            let waits = match patience.with(task).await {
                Some(Ok(waits)) => waits,
                Some(Err(error)) => Err(error.into()),
                None => {
                    abort.abort();
                    Err(anyhow::anyhow!("somebody was never let in"))
                }
            };
            all.push(Came { endpoint, waits });
        }
        all
    }
}

async fn come(
    plan: Plan,
    number: usize,
    stopped: watch::Receiver<bool>,
) -> anyhow::Result<Latencies> {
    let mut waits = Latencies::default();
    while !*stopped.borrow() {
        let begun = Instant::now();
        let client = connect(&plan, number, user("newcomer")).await?;
        let waited = begun.elapsed().as_micros();
        waits.record_us(u64::try_from(waited).unwrap_or(u64::MAX));
        client.close().await;
        sleep(EVERY).await;
    }
    Ok(waits)
}
