//! One shard: a thread with a runtime of its own around one state machine of the core.
//!
//! Nothing here decides; `engine` holds what the thread's tasks share, `pump` carries out what the core put out.

pub(crate) mod answers;
pub(crate) mod appends;
pub(crate) mod bell;
pub(crate) mod complaints;
pub(crate) mod engine;
pub(crate) mod figures;
pub(crate) mod kept;
pub(crate) mod link;
pub(crate) mod loads;
pub mod lookup;
pub(crate) mod mailbox;
pub(crate) mod outgoing;
pub(crate) mod pump;
pub(crate) mod quota;
pub(crate) mod tokens;
pub(crate) mod turns;

use std::{
    future::poll_fn,
    io,
    net::{TcpListener, UdpSocket},
    panic::{AssertUnwindSafe, catch_unwind},
    rc::Rc,
    sync::Arc,
    task::Poll,
    thread,
    time::Duration,
};

use core_affinity::CoreId;
use rialto_core::{
    Shard,
    io::{Input, LaneClaim, OutboxItem},
    topology::{ShardId, Topology},
};
use rialto_storage::journal::{Claim, JournalError};
use rustls::ServerConfig;
use tokio::{
    runtime::{Builder, LocalOptions, LocalRuntime},
    sync::{mpsc, oneshot},
    task::AbortHandle,
};

use self::{
    engine::{Engine, Node},
    figures::ShardFigures,
};
use crate::{
    fate::StopReason,
    transport::{quic, tcp, tls},
};

/// How long QUIC connections may take to part, past the close timeout.
const QUIC_FAREWELL: Duration = Duration::from_millis(500);

/// Of so many tasks that a shard polls, one was woken by another thread, if any waits: storage has answered it. tokio's own 31
/// would have reads wait for 31 connections each.
const OTHERS_EVERY: u32 = 2;

/// What a shard can be told from outside.
#[derive(Debug)]
pub(crate) enum Control {
    /// Take no connections any more, and tell clients to go, over so many milliseconds.
    Drain { window_ms: u32 },
    /// End the sessions with tokens of keys that are not trusted any more.
    EndUntrusted,
    /// Read nothing any more.
    StopReading,
    /// How do you do?
    Figures(oneshot::Sender<ShardFigures>),
    /// Close all connections and end.
    End,
}

/// The sockets of one shard.
pub(crate) struct Listeners {
    pub(crate) tcp: Option<TcpListener>,
    pub(crate) tls: Option<(TcpListener, Arc<ServerConfig>)>,
    pub(crate) quic: Option<(UdpSocket, quic::Shared)>,
}

/// Why a shard could not start.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ShardError {
    #[error("its lanes cannot be taken over: {0}")]
    Claim(#[from] JournalError),
    #[error("its thread or sockets cannot be set up: {0}")]
    Io(#[from] io::Error),
    #[error("it panicked")]
    Panicked,
}

/// What a shard starts with.
pub(crate) struct Seed {
    pub(crate) id: ShardId,
    pub(crate) topology: Topology,
    pub(crate) node: Node,
    pub(crate) listeners: Listeners,
    /// The processor that it stays on.
    pub(crate) core: Option<CoreId>,
}

/// A shard's thread.
#[derive(Debug)]
pub(crate) struct Handle {
    control: mpsc::UnboundedSender<Control>,
    ended: Option<oneshot::Receiver<()>>,
}

impl Handle {
    /// What the shard can be told by.
    pub(crate) fn control(&self) -> &mpsc::UnboundedSender<Control> {
        &self.control
    }

    /// Resolves when the thread has done its last work. `None` after the first call.
    pub(crate) fn take_ended(&mut self) -> Option<oneshot::Receiver<()>> {
        self.ended.take()
    }
}

/// Starts the thread. Whether the shard serves is told through `ready`, once.
pub(crate) fn start(
    seed: Seed,
    ready: std::sync::mpsc::Sender<Result<(), ShardError>>,
) -> io::Result<Handle> {
    let (control, orders) = mpsc::unbounded_channel();
    let (end, ended) = oneshot::channel();
    let (id, fate) = (seed.id, seed.node.fate.clone());
    thread::Builder::new()
        .name(format!("rialto-shard-{id}"))
        .spawn(move || {
            let refused = ready.clone();
            let outcome = catch_unwind(AssertUnwindSafe(|| run(seed, orders, ready)));
            match outcome {
                Ok(Ok(())) => {}
                Ok(Err(error)) => drop(refused.send(Err(error))),
                Err(_) => {
                    fate.report(StopReason::ShardPanicked(id));
                    drop(refused.send(Err(ShardError::Panicked)));
                }
            }
            let _ = end.send(());
        })?;
    Ok(Handle {
        control,
        ended: Some(ended),
    })
}

fn run(
    seed: Seed,
    orders: mpsc::UnboundedReceiver<Control>,
    ready: std::sync::mpsc::Sender<Result<(), ShardError>>,
) -> Result<(), ShardError> {
    if let Some(core) = seed.core
        && !core_affinity::set_for_current(core)
    {
        tracing::warn!(shard = %seed.id, processor = core.id, "the shard could not be pinned to its processor");
    }
    runtime()?.block_on(serve(seed, orders, ready))
}

fn runtime() -> io::Result<LocalRuntime> {
    Builder::new_current_thread()
        .enable_all()
        .global_queue_interval(OTHERS_EVERY)
        .build_local(LocalOptions::default())
}

async fn serve(
    seed: Seed,
    orders: mpsc::UnboundedReceiver<Control>,
    ready: std::sync::mpsc::Sender<Result<(), ShardError>>,
) -> Result<(), ShardError> {
    let Seed {
        id,
        topology,
        node,
        listeners,
        ..
    } = seed;
    let lanes = topology.lanes_of(id).collect();
    let claims = node
        .store
        .claim(lanes)
        .await?
        .into_iter()
        .map(lane_claim)
        .collect();
    let core = Shard::new(id, topology, Arc::new(node.config.core.clone()), claims);
    let engine = Engine::new(id, node, core);
    tokio::task::spawn_local(pump::run(Rc::clone(&engine)));
    let open = Open::listen(&engine, listeners, topology.shards)?;
    let _ = ready.send(Ok(()));
    drop(ready);
    obey(&engine, orders, open).await;
    Ok(())
}

/// Carries orders out until the shard is to end, or the process.
async fn obey(engine: &Rc<Engine>, mut orders: mpsc::UnboundedReceiver<Control>, mut open: Open) {
    let fate = engine.node().fate.clone();
    loop {
        let order = tokio::select! {
            order = orders.recv() => order,
            // A shard whose neighbour has panicked waits for answers that never come.
            () = panicked(&fate) => return,
        };
        match order {
            Some(Control::Drain { window_ms }) => {
                open.accept_no_more(engine);
                engine.handle(Input::Drain { window_ms });
            }
            Some(Control::StopReading) => {
                open.accept_no_more(engine);
                engine.stop_reading();
            }
            Some(Control::EndUntrusted) => engine.end_untrusted(),
            Some(Control::Figures(answer)) => drop(answer.send(engine.figures())),
            Some(Control::End) => break,
            // The broker was dropped, without waiting for anything.
            None => return,
        }
    }
    open.accept_no_more(engine);
    engine.close_all();
    let _ = tokio::time::timeout(engine.close_timeout(), emptied(engine)).await;
    // Closed connections make their users' "last seen".
    engine.write_seen().await;
    if let Some(endpoint) = open.endpoint {
        endpoint.close(quic::CLOSED, b"");
        let _ = tokio::time::timeout(QUIC_FAREWELL, endpoint.wait_idle()).await;
    }
}

async fn panicked(fate: &crate::fate::Fate) {
    if !matches!(fate.reported().await, StopReason::ShardPanicked(_)) {
        std::future::pending::<()>().await;
    }
}

/// Resolves when there is no connection, and the pump has had a turn since.
async fn emptied(engine: &Rc<Engine>) {
    poll_fn(|cx| {
        engine.emptied().listen(cx);
        if engine.open_count() == 0 {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    })
    .await;
    tokio::task::yield_now().await;
}

/// What accepts connections.
struct Open {
    accepting: Vec<AbortHandle>,
    endpoint: Option<quinn::Endpoint>,
}

impl Open {
    fn listen(engine: &Rc<Engine>, listeners: Listeners, shards: u16) -> io::Result<Self> {
        let mut open = Self {
            accepting: Vec::new(),
            endpoint: None,
        };
        if let Some(listener) = listeners.tcp {
            let listener = tokio::net::TcpListener::from_std(listener)?;
            open.spawn(engine, tcp::serve(Rc::clone(engine), listener));
        }
        if let Some((listener, config)) = listeners.tls {
            let listener = tokio::net::TcpListener::from_std(listener)?;
            open.spawn(engine, tls::serve(Rc::clone(engine), listener, config));
        }
        if let Some((socket, shared)) = listeners.quic {
            let listener = quic::Listener::new(socket, shared, engine.id(), shards)?;
            open.endpoint = Some(listener.endpoint().clone());
            // Never aborted: without a listener clients would wait for an answer until they gave up.
            let accept = listener.serve(Rc::clone(engine));
            tokio::task::spawn_local(guarded(Rc::clone(engine), accept));
        }
        Ok(open)
    }

    fn spawn(&mut self, engine: &Rc<Engine>, accept: impl Future<Output = ()> + 'static) {
        let accepting = tokio::task::spawn_local(guarded(Rc::clone(engine), accept));
        self.accepting.push(accepting.abort_handle());
    }

    fn accept_no_more(&mut self, engine: &Engine) {
        engine.refuse_connections();
        for accepting in self.accepting.drain(..) {
            accepting.abort();
        }
    }
}

/// A panic in accepting would leave a listener that nobody serves.
async fn guarded(engine: Rc<Engine>, accept: impl Future<Output = ()>) {
    let _guard = engine.node().fate.guard(engine.id());
    accept.await;
}

fn lane_claim(claim: Claim) -> LaneClaim {
    let outbox = claim.outbox.into_iter().map(|item| OutboxItem {
        position: item.position,
        index: item.index,
        time_ms: item.time_ms,
        user: item.user,
        notice: item.notice,
    });
    LaneClaim {
        lane: claim.lane,
        epoch: claim.epoch,
        tail: claim.tail,
        time_ms: claim.time_ms,
        outbox: outbox.collect(),
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[test]
    fn who_is_answered_by_another_thread_does_not_wait_for_all_that_is_busy() {
        const ANSWERS: usize = 100;
        let polls = Rc::new(Cell::new(0));
        runtime().unwrap().block_on(async {
            let counted = Rc::clone(&polls);
            let busy = tokio::task::spawn_local(poll_fn(move |cx| {
                counted.set(counted.get() + 1);
                cx.waker().wake_by_ref();
                Poll::<()>::Pending
            }));
            let (resolvers, answers): (Vec<_>, Vec<_>) = (0..ANSWERS)
                .map(|_| {
                    let (resolver, answer) = oneshot::channel::<()>();
                    (resolver, tokio::task::spawn_local(answer))
                })
                .unzip();
            tokio::task::yield_now().await;
            let answering = thread::spawn(|| {
                for resolver in resolvers {
                    resolver.send(()).unwrap();
                }
            });
            answering.join().unwrap();
            polls.set(0);
            for answer in answers {
                answer.await.unwrap().unwrap();
            }
            busy.abort();
        });
        assert!(polls.get() < 10 * ANSWERS, "{} polls", polls.get());
    }
}
