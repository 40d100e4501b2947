//! Why a broker has to end before anybody asked it to.

use std::sync::Arc;

use rialto_core::topology::ShardId;
use rialto_storage::journal::JournalError;
use tokio::sync::watch;

/// What makes it impossible to go on; the process has to end with an error and be started again, which recovers.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StopReason {
    /// A write or sync of the journal failed. Nothing can be made durable any more.
    #[error("the journal is poisoned: {0}")]
    JournalPoisoned(String),
    /// Another broker has taken a lane over.
    #[error("the journal is lost to another owner: {0}")]
    JournalLost(String),
    /// A mistake of ours was found while a shard's state was being changed.
    #[error("shard {0} panicked")]
    ShardPanicked(ShardId),
}

/// Why a broker that was asked to stop did not stop in order. What was acknowledged is on disk.
#[derive(Debug, thiserror::Error)]
pub enum StopError {
    /// It could not go on even so long: what was accepted last may not have been answered.
    #[error(transparent)]
    CannotGoOn(#[from] StopReason),
    /// The views could not be written; the next start makes them from the journal.
    #[error("the views could not be written: {0}")]
    NotSettled(#[from] JournalError),
}

/// Where such a reason is reported and learnt. The first one counts.
#[derive(Clone, Debug)]
pub(crate) struct Fate {
    reason: Arc<watch::Sender<Option<StopReason>>>,
}

impl Fate {
    pub(crate) fn new() -> Self {
        Self {
            reason: Arc::new(watch::Sender::new(None)),
        }
    }

    /// Ends the broker, unless it has a reason already.
    pub(crate) fn report(&self, reason: StopReason) {
        self.reason.send_if_modified(|known| {
            if known.is_some() {
                return false;
            }
            tracing::error!(%reason, "the broker cannot go on");
            *known = Some(reason);
            true
        });
    }

    /// The reason, if there is one.
    pub(crate) fn reason(&self) -> Option<StopReason> {
        self.reason.borrow().clone()
    }

    /// Resolves once there is a reason.
    pub(crate) async fn reported(&self) -> StopReason {
        let mut reason = self.reason.subscribe();
        loop {
            if let Some(reason) = reason.borrow_and_update().clone() {
                return reason;
            }
            if reason.changed().await.is_err() {
                // Cannot be: `self` holds the sender.
                std::future::pending::<()>().await;
            }
        }
    }

    /// Reports the shard when it is dropped by a panic that began while it was held.
    pub(crate) fn guard(&self, shard: ShardId) -> PanicGuard<'_> {
        PanicGuard {
            fate: self,
            shard,
            panicked_before: std::thread::panicking(),
        }
    }
}

/// See [`Fate::guard`].
#[must_use]
pub(crate) struct PanicGuard<'a> {
    fate: &'a Fate,
    shard: ShardId,
    /// A connection that panicked is still taken out of the core while its task is unwound.
    panicked_before: bool,
}

impl Drop for PanicGuard<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() && !self.panicked_before {
            self.fate.report(StopReason::ShardPanicked(self.shard));
        }
    }
}
