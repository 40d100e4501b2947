//! What attackers share: where the broker is, how many they are, and what they have done. They run on a thread of their own, at
//! a lower priority than the broker and the clients that behave: they stand for machines of their own.

use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Context as _;
use rialto_loadgen::tokens::Tokens;
use rialto_protocol::ids::{ConversationId, UserId};
use rialto_sdk::{Client, Create, Roots};
use tokio::sync::{Semaphore, oneshot};
use tokio::task::LocalSet;

use super::attack::Attack;
use crate::broker::Ports;
use crate::random::Dice;

/// Connections that are being opened at a time: the broker's backlog is no target.
const OPENING_MAX: usize = 256;
/// Added to the priority of the attackers' thread.
const NICE: i32 = 10;

/// What attackers did.
#[derive(Debug, Default)]
pub(super) struct Tally {
    /// Connections that were opened.
    pub(super) opened: AtomicU64,
    /// Connections that the broker would not have, or ended.
    pub(super) turned_away: AtomicU64,
    /// Requests that were refused with advice when to come back.
    pub(super) advised: AtomicU64,
    /// Frames with events or with changes of presence that attackers were told.
    pub(super) told: AtomicU64,
    /// Frames that were compressed for them.
    pub(super) compressed: AtomicU64,
    /// Halves of handshakes that were held back and let go.
    pub(super) let_go: AtomicU64,
    /// Clients of a storm that were let in over TCP, and over QUIC.
    pub(super) in_over_tcp: AtomicU64,
    /// See [`Tally::in_over_tcp`].
    pub(super) in_over_quic: AtomicU64,
    /// Why they did not do what they were there for.
    pub(super) failed: OnceLock<String>,
}

impl Tally {
    pub(super) fn add(count: &AtomicU64) {
        count.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn of(count: &AtomicU64) -> u64 {
        count.load(Ordering::Relaxed)
    }

    /// They cannot go on; the first reason counts.
    pub(super) fn fail(&self, why: String) {
        let _ = self.failed.set(why);
    }
}

/// See the module.
pub(super) struct Site {
    pub(super) ports: Ports,
    pub(super) connections: usize,
    pub(super) tally: Arc<Tally>,
    pub(super) opening: Semaphore,
    /// What is left to chance follows from the campaign's seed.
    pub(super) dice: Dice,
}

impl Site {
    /// A task for each connection, by its number; never ends.
    pub(super) async fn each<F>(self: &Rc<Self>, act: impl Fn(Rc<Self>, usize) -> F)
    where
        F: Future<Output = ()> + 'static,
    {
        for number in 0..self.connections {
            tokio::task::spawn_local(act(self.clone(), number));
        }
        std::future::pending::<()>().await;
    }

    /// A client without limits, which has founded a public conversation; none: the attack cannot take place.
    pub(super) async fn herald(&self) -> Option<(Client, ConversationId)> {
        match self.call_herald().await {
            Ok(herald) => Some(herald),
            Err(error) => {
                self.tally.fail(format!("no herald: {error:#}"));
                None
            }
        }
    }

    async fn call_herald(&self) -> anyhow::Result<(Client, ConversationId)> {
        let endpoint = format!("tcp://127.0.0.1:{}", self.ports.tcp);
        let (client, mut events) = Box::pin(
            Client::builder()
                .endpoint(endpoint)
                .roots(Roots::InsecureLoopbackOnly)
                .token(Tokens::Development.of(UserId::from_name("herald")))
                .connect(),
        )
        .await?;
        tokio::spawn(async move { while events.next().await.is_some() {} });
        let square = client.create(Create::channel("square")).await?;
        Ok((client, square.conversation))
    }
}

/// An attack that goes on.
pub(super) struct Assault {
    attack: Attack,
    connections: usize,
    stop: oneshot::Sender<()>,
    thread: JoinHandle<()>,
    pub(super) tally: Arc<Tally>,
}

impl Assault {
    /// Begins it.
    pub(super) fn begin(
        attack: Attack,
        ports: Ports,
        connections: usize,
        dice: Dice,
    ) -> anyhow::Result<Self> {
        let (stop, stopped) = oneshot::channel();
        let tally = Arc::new(Tally::default());
        let theirs = tally.clone();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .context("the attackers' runtime")?;
        let thread = std::thread::Builder::new().name("attackers".into());
        let thread = thread.spawn(move || {
            // Without the right to, they compete as equals.
            let _ = rustix::process::nice(NICE);
            let local = LocalSet::new();
            local.block_on(&runtime, async move {
                let site = Rc::new(Site {
                    ports,
                    connections,
                    tally: theirs.clone(),
                    opening: Semaphore::new(OPENING_MAX),
                    dice,
                });
                tokio::select! {
                    _ = stopped => {}
                    () = attack.act(site) => theirs.fail("it ended by itself".to_owned()),
                }
            });
            drop(local);
            runtime.shutdown_timeout(Duration::from_secs(1));
        });
        Ok(Self {
            attack,
            connections,
            stop,
            thread: thread.context("the attackers' thread")?,
            tally,
        })
    }

    /// Why it is no attack, so far.
    pub(super) fn missing(&self) -> Option<String> {
        self.attack.missing(&self.tally, self.connections as u64)
    }

    /// Ends it, with all its connections.
    pub(super) async fn end(self) -> anyhow::Result<Arc<Tally>> {
        let Self {
            stop,
            thread,
            tally,
            ..
        } = self;
        let _ = stop.send(());
        tokio::task::spawn_blocking(move || thread.join())
            .await?
            .map_err(|_| anyhow::anyhow!("the attackers panicked"))?;
        Ok(tally)
    }
}

#[cfg(test)]
mod tests {
    use super::super::attack::ATTACKS;
    use super::*;
    use crate::patience::Patience;

    #[tokio::test]
    async fn an_attack_without_its_herald_says_that_it_did_not_take_place() {
        let hot = ATTACKS
            .into_iter()
            .find(|attack| attack.name == "hot conversation");
        let nobody = Ports::free(&mut Dice::new(std::process::id().into()));
        let assault = Assault::begin(hot.unwrap(), nobody, 1, Dice::new(1)).unwrap();
        let mut patience = Patience::of(Duration::from_secs(20));
        while assault.tally.failed.get().is_none() && patience.wait().await {}
        let tally = assault.end().await.unwrap();
        let why = tally.failed.get().unwrap();
        assert!(why.starts_with("no herald"), "{why}");
    }
}
