//! Clients that come while others are there, and go again: how long it takes until they are let in. They come from a thread of
//! their own, at the priority of everybody who behaves, so that neither their handshakes nor the making of their sockets holds those
//! up whose latencies are measured.

use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use futures_util::future::join_all;
use rialto_loadgen::latency::Latencies;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use super::Plan;
use super::dial::{connect, user};
use crate::patience::Patience;

/// From one that was let in to the next over the same endpoint.
const EVERY: Duration = Duration::from_millis(200);

/// One after the other over each of the plan's endpoints, one at least.
#[derive(Debug)]
pub struct Newcomers {
    stop: watch::Sender<bool>,
    thread: Option<JoinHandle<Vec<Came>>>,
}

/// Those who came over one endpoint.
#[derive(Debug)]
pub struct Came {
    /// Such as `tcp://127.0.0.1:7000`.
    pub endpoint: String,
    /// From the beginning of the first attempt to being welcome; or why somebody was not let in.
    pub waits: anyhow::Result<Latencies>,
}

impl Drop for Newcomers {
    fn drop(&mut self) {
        self.stop.send_replace(true);
    }
}

impl Newcomers {
    /// They come until they are told to stop.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn begin(plan: &Plan) -> anyhow::Result<Self> {
        let (stop, stopped) = watch::channel(false);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .context("the newcomers' runtime")?;
        let plan = plan.clone();
        let thread = std::thread::Builder::new().name("newcomers".into());
        let thread = thread.spawn(move || runtime.block_on(come_everywhere(&plan, &stopped)));
        Ok(Self {
            stop,
            thread: Some(thread.context("the newcomers' thread")?),
        })
    }

    /// No more come; those who wait are waited for.
    ///
    /// # Errors
    /// When their thread panicked.
    pub async fn end(mut self) -> anyhow::Result<Vec<Came>> {
        self.stop.send_replace(true);
        let Some(thread) = self.thread.take() else {
            return Ok(Vec::new());
        };
        tokio::task::spawn_blocking(move || thread.join())
            .await?
            .map_err(|_| anyhow!("the newcomers panicked"))
    }
}

async fn come_everywhere(plan: &Plan, stopped: &watch::Receiver<bool>) -> Vec<Came> {
    let endpoints = plan.endpoints.iter().enumerate();
    join_all(endpoints.map(|(number, endpoint)| async move {
        let waits = tokio::select! {
            biased;
            waits = come(plan, number, stopped) => waits,
            () = give_up(plan.patience, stopped.clone()) => Err(anyhow!("somebody was never let in")),
        };
        Came {
            endpoint: endpoint.clone(),
            waits,
        }
    }))
    .await
}

async fn come(
    plan: &Plan,
    number: usize,
    stopped: &watch::Receiver<bool>,
) -> anyhow::Result<Latencies> {
    let mut waits = Latencies::default();
    loop {
        let begun = Instant::now();
        let client = connect(plan, number, user("newcomer")).await?;
        waits.record(begun.elapsed());
        client.close().await;
        sleep(EVERY).await;
        if *stopped.borrow() {
            return Ok(waits);
        }
    }
}

/// Ends when the patience is over that begins once no more come.
async fn give_up(patience: Duration, mut stopped: watch::Receiver<bool>) {
    // Whoever has let go of them wants no more either.
    let _ = stopped.wait_for(|stopped| *stopped).await;
    let mut left = Patience::of(patience);
    while left.wait().await {}
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::Ports;
    use crate::random::Dice;

    #[tokio::test]
    async fn whoever_is_not_let_in_is_told_of() {
        let nobody = Ports::free(&mut Dice::new(std::process::id().into()));
        let endpoints = [nobody.tcp, nobody.tls].map(|port| format!("tcp://127.0.0.1:{port}"));
        let plan = Plan::new(endpoints.into(), Duration::from_millis(20));
        let newcomers = Newcomers::begin(&plan).unwrap();
        let came = newcomers.end().await.unwrap();
        assert_eq!(came.len(), 2);
        for Came { endpoint, waits } in came {
            assert!(plan.endpoints.contains(&endpoint) && waits.is_err());
        }
    }
}
