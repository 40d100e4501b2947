//! The operations port: HTTP for operators and their tools, on a thread of its own, so that it answers when shards do not.
//!
//! | path | answer |
//! | --- | --- |
//! | `/metrics` | [`METRICS`] in OpenMetrics text |
//! | `/health/live` | 200 while every shard answers |
//! | `/health/ready` | 200 while clients are served; 503 while starting, draining or poisoned |
//! | `/status` | [`Status`] as JSON |

mod http;
mod metrics;
mod shared;
mod status;

use std::{
    io,
    net::TcpListener,
    sync::{Arc, OnceLock},
    thread,
    time::Duration,
};

use tokio::sync::oneshot;

pub use metrics::{METRICS, sheds};
pub(crate) use shared::{Phase, Shared};
pub use status::{ConnectionCounts, JournalFigures, Status, StatusAddresses};

/// How often the certificate's files are looked at.
const WATCH_EVERY: Duration = Duration::from_secs(3);

/// What there is to tell, once the broker has its store.
type Known = Arc<OnceLock<Arc<Shared>>>;

/// The thread.
#[derive(Debug)]
pub(crate) struct Handle {
    known: Known,
    /// Dropped, it ends the thread.
    stop: oneshot::Sender<()>,
    ended: oneshot::Receiver<()>,
}

impl Handle {
    /// From now on the port has more to tell than that a broker starts; once.
    pub(crate) fn tell(&self, shared: Arc<Shared>) {
        let _ = self.known.set(shared);
    }

    /// Ends the thread and waits for it.
    pub(crate) async fn stop(self) {
        drop(self.stop);
        let _ = self.ended.await;
    }
}

/// Starts the thread: it serves the port, if there is one, and watches the certificate's files.
pub(crate) fn start(listener: Option<TcpListener>) -> io::Result<Handle> {
    let known = Known::default();
    let told = Arc::clone(&known);
    let (stop, stopped) = oneshot::channel();
    let (end, ended) = oneshot::channel();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    thread::Builder::new()
        .name("rialto-ops".to_owned())
        .spawn(move || {
            runtime.block_on(async {
                if let Some(listener) = listener {
                    match tokio::net::TcpListener::from_std(listener) {
                        Ok(listener) => {
                            drop(tokio::spawn(http::serve(listener, Arc::clone(&told))));
                        }
                        Err(error) => {
                            tracing::error!(%error, "the operations port cannot be served");
                        }
                    }
                }
                tokio::spawn(watch_certificates(told));
                let _ = stopped.await;
            });
            drop(runtime);
            let _ = end.send(());
        })?;
    Ok(Handle { known, stop, ended })
}

async fn watch_certificates(told: Known) {
    loop {
        tokio::time::sleep(WATCH_EVERY).await;
        let Some(certificates) = told.get().and_then(|shared| shared.certificates()) else {
            continue;
        };
        match certificates.look() {
            None => {}
            Some(Ok(())) => tracing::info!("the certificate was replaced"),
            // Half of the pair may have been written so far.
            Some(Err(error)) => {
                tracing::warn!(%error, "the certificate's files changed, and cannot be used; the one before stays");
            }
        }
    }
}
