//! What attackers share: where the broker is, how many they are, and what they have done. They run on a thread of their own, at
//! a lower priority than the broker and the clients that behave: they stand for machines of their own.

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
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
}

impl Tally {
    pub(super) fn add(count: &AtomicU64) {
        count.fetch_add(1, Ordering::Relaxed);
    }
}

/// See the module.
pub(super) struct Site {
    pub(super) ports: Ports,
    pub(super) connections: usize,
    pub(super) tally: Arc<Tally>,
    pub(super) opening: Semaphore,
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

    /// A client without limits, which has founded a public conversation.
    pub(super) async fn herald(&self) -> anyhow::Result<(Client, ConversationId)> {
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
    stop: oneshot::Sender<()>,
    thread: JoinHandle<()>,
    pub(super) tally: Arc<Tally>,
}

impl Assault {
    /// Begins it.
    pub(super) fn begin(attack: Attack, ports: Ports, connections: usize) -> anyhow::Result<Self> {
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
                    tally: theirs,
                    opening: Semaphore::new(OPENING_MAX),
                });
                tokio::select! {
                    _ = stopped => {}
                    () = attack.act(site) => {}
                }
            });
            drop(local);
            runtime.shutdown_timeout(Duration::from_secs(1));
        });
        Ok(Self {
            stop,
            thread: thread.context("the attackers' thread")?,
            tally,
        })
    }

    /// Ends it, with all its connections.
    pub(super) async fn end(self) -> anyhow::Result<Arc<Tally>> {
        let Self {
            stop,
            thread,
            tally,
        } = self;
        let _ = stop.send(());
        tokio::task::spawn_blocking(move || thread.join())
            .await?
            .map_err(|_| anyhow::anyhow!("the attackers panicked"))?;
        Ok(tally)
    }
}
