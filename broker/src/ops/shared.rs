//! What the broker's handle and the operations port know of a broker, and how they ask its shards.

use std::{
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicU8, Ordering},
    },
    time::Duration,
};

use rialto_core::topology::Topology;
use rialto_storage::journal::JournalStatus;
use tokio::sync::{mpsc, oneshot};

use crate::{
    Addresses,
    shard::{Control, engine::Node, figures::ShardFigures},
    transport::certificates::Certificates,
};

/// How long a shard may take to say how it does. A turn takes milliseconds at most.
const ANSWER_WITHIN: Duration = Duration::from_secs(1);

/// What a broker is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Phase {
    /// It takes its lanes over.
    Starting,
    /// It serves clients.
    Serving,
    /// It gives them away, or stops.
    Draining,
}

/// See the module.
pub(crate) struct Shared {
    node: Node,
    topology: Topology,
    addresses: Addresses,
    certificates: Option<Arc<Certificates>>,
    phase: AtomicU8,
    controls: OnceLock<Vec<mpsc::UnboundedSender<Control>>>,
    /// What each shard said last, for when one does not answer: a sum of counters must never go back.
    last: Mutex<Vec<ShardFigures>>,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Shared")
            .field("addresses", &self.addresses)
            .field("phase", &self.phase())
            .finish_non_exhaustive()
    }
}

/// How a broker does.
#[derive(Clone, Debug)]
pub(crate) struct Figures {
    /// By number.
    pub(crate) shards: Vec<ShardFigures>,
    /// Every shard has answered.
    pub(crate) complete: bool,
    pub(crate) journal: JournalStatus,
    pub(crate) uptime: Duration,
    /// Handshakes included.
    pub(crate) open_connections: usize,
    /// When the certificate ends, seconds since 1970, if there is one.
    pub(crate) certificate_ends_s: Option<u64>,
}

impl Shared {
    pub(crate) fn new(
        node: Node,
        topology: Topology,
        addresses: Addresses,
        certificates: Option<Arc<Certificates>>,
    ) -> Self {
        Self {
            last: Mutex::new(vec![ShardFigures::default(); usize::from(topology.shards)]),
            node,
            topology,
            addresses,
            certificates,
            phase: AtomicU8::new(Phase::Starting as u8),
            controls: OnceLock::new(),
        }
    }

    pub(crate) fn node(&self) -> &Node {
        &self.node
    }

    pub(crate) fn topology(&self) -> Topology {
        self.topology
    }

    pub(crate) fn addresses(&self) -> Addresses {
        self.addresses
    }

    pub(crate) fn certificates(&self) -> Option<&Arc<Certificates>> {
        self.certificates.as_ref()
    }

    pub(crate) fn open_connections(&self) -> usize {
        self.node.admission.open()
    }

    pub(crate) fn phase(&self) -> Phase {
        match self.phase.load(Ordering::Relaxed) {
            phase if phase == Phase::Starting as u8 => Phase::Starting,
            phase if phase == Phase::Serving as u8 => Phase::Serving,
            _ => Phase::Draining,
        }
    }

    pub(crate) fn set_phase(&self, phase: Phase) {
        self.phase.store(phase as u8, Ordering::Relaxed);
    }

    /// Whether clients are served.
    pub(crate) fn is_ready(&self) -> bool {
        self.phase() == Phase::Serving
            && self.node.fate.reason().is_none()
            && !self.node.store.status().poisoned
    }

    /// Tells how the shards are asked; once.
    pub(crate) fn set_controls(&self, controls: Vec<mpsc::UnboundedSender<Control>>) {
        let _ = self.controls.set(controls);
    }

    /// Asks every shard.
    pub(crate) async fn figures(&self) -> Figures {
        let controls = self.controls.get().map_or(&[][..], Vec::as_slice);
        let mut answers = Vec::new();
        for control in controls {
            let (answer, answered) = oneshot::channel();
            let _ = control.send(Control::Figures(answer));
            answers.push(answered);
        }
        let mut complete = !answers.is_empty();
        let end = tokio::time::Instant::now() + ANSWER_WITHIN;
        for (number, answer) in answers.into_iter().enumerate() {
            match tokio::time::timeout_at(end, answer).await {
                Ok(Ok(figures)) => {
                    self.last.lock().unwrap_or_else(PoisonError::into_inner)[number] = figures;
                }
                Ok(Err(_)) | Err(_) => complete = false,
            }
        }
        Figures {
            shards: self
                .last
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .clone(),
            complete,
            journal: self.node.store.status(),
            uptime: self.node.clock.uptime(),
            open_connections: self.open_connections(),
            certificate_ends_s: self
                .certificates()
                .and_then(|certificates| certificates.ends_s()),
        }
    }
}
