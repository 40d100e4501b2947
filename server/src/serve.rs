//! `rialto serve`: wires store, keys, certificate and broker, and stays until the broker ends.

use std::{
    io,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use rialto_broker::{
    Authenticator, Broker, BrokerConfig, StartError, StopError, StopReason,
    auth::{DevelopmentTokens, KeyFile, LoopbackOnly, Reload},
};
use rialto_storage::{
    embedded::{DirectoryLock, EmbeddedOptions, EmbeddedStore},
    journal::Journal as _,
};

use crate::{
    addresses,
    banner::Banner,
    config::{Config, LogFormat},
    files,
    identity::{self, Identity},
    keys,
    limits::{self, OpenFiles},
    logging, scheduling,
    signals::{Asked, Signals},
    terminal,
};

/// How often the key set is looked at, milliseconds: a key that was taken out is refused after this at the latest.
const KEYS_CHECK_MS: u64 = 2_000;
/// Fewer open files than this are worth a word: each connection takes one.
const OPEN_FILES_ENOUGH: u64 = 10_000;

/// Runs a broker until it is asked to stop.
///
/// # Errors
/// When it cannot start, or had to end by itself. The text says what to do.
pub fn run(config: &Config) -> anyhow::Result<()> {
    logging::start(&config.log)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("the runtime cannot be started")?;
    runtime.block_on(serve(config))
}

async fn serve(config: &Config) -> anyhow::Result<()> {
    let started = Instant::now();
    // From here on signals are ours.
    let signals = Signals::listen().context("signals cannot be listened to")?;
    let mut stops = Stops {
        signals,
        asked: false,
        data: &config.data_dir,
    };
    let files = limits::raise_open_files();
    report_open_files(files);
    make_data_directory(&config.data_dir)?;
    let lock = DirectoryLock::take(&config.data_dir)?;
    // Of one that was killed.
    addresses::remove(&config.data_dir);
    // What may be wrong is said before the data is opened, which may take long after a kill.
    let (keys, identity, development) = open_keys(config)?;
    let preparation = Broker::prepare(broker_config(config, &identity, files))
        .map_err(|error| cannot_start(&error))?;
    let options = EmbeddedOptions {
        on_thread: Some(scheduling::arrange),
        ..config.storage.clone()
    };
    let opened = stops.during("the data is open", || {
        EmbeddedStore::open_locked(lock, options)
    });
    let store = opened.await??;
    if store.lanes() != config.storage.lanes {
        tracing::warn!(
            lanes = store.lanes(),
            configured = config.storage.lanes,
            "the data directory keeps the lanes that it was made with: storage.lanes changes nothing of it"
        );
    }
    if stops.asked {
        return close(store, &mut stops, "stopped before it served").await;
    }
    let development_tokens = development.is_some();
    let authenticator: Arc<dyn Authenticator> = match development {
        Some(proof) => Arc::new(DevelopmentTokens::before(Arc::clone(&keys), proof)),
        None => keys.clone(),
    };
    let served = Arc::new(store.clone());
    let start = stops.during("it serves", || preparation.start(served, authenticator));
    let broker = start.await?.map_err(|error| cannot_start(&error))?;
    announce(config, &broker, &identity, development_tokens)?;
    tracing::info!(
        elapsed_ms = elapsed_ms(started),
        pid = std::process::id(),
        "serving"
    );
    let reason = if stops.asked {
        None
    } else {
        watch(&broker, &keys, &mut stops.signals).await
    };
    let stopped = match reason {
        None => stop(config, broker, &mut stops).await,
        Some(reason) => Err(reason.into()),
    };
    addresses::remove(&config.data_dir);
    match stopped {
        Ok(()) => {}
        Err(StopError::CannotGoOn(reason)) => end(&reason),
        Err(error @ StopError::NotSettled(_)) => {
            return Err(error)
                .context("nothing is lost, the next start makes them from the journal");
        }
    }
    close(store, &mut stops, "stopped").await
}

async fn close(store: EmbeddedStore, stops: &mut Stops<'_>, last: &str) -> anyhow::Result<()> {
    stops.during("the data is closed", || store.close()).await?;
    tracing::info!("{last}");
    Ok(())
}

/// Whether the process was asked to stop, which it is in order once, and at once from then on.
struct Stops<'a> {
    signals: Signals,
    asked: bool,
    data: &'a Path,
}

impl Stops<'_> {
    /// Does what blocks on a thread of its own, so that signals are heard meanwhile.
    async fn during<T: Send + 'static>(
        &mut self,
        until: &str,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> anyhow::Result<T> {
        let mut work = tokio::task::spawn_blocking(work);
        loop {
            tokio::select! {
                biased;
                () = asked_to_stop(&mut self.signals) => {
                    if self.asked {
                        self.at_once();
                    }
                    self.asked = true;
                    tracing::info!("stopping once {until}; a second signal stops at once");
                }
                done = &mut work => return done.context("a thread of the start or the end"),
            }
        }
    }

    fn at_once(&self) -> ! {
        addresses::remove(self.data);
        tracing::warn!("stopping at once; what was acknowledged is on disk");
        std::process::exit(1);
    }
}

/// Waits until a stop is asked for (none), or until there is a reason why the broker cannot go on.
async fn watch(broker: &Broker, keys: &KeyFile, signals: &mut Signals) -> Option<StopReason> {
    let mut look = tokio::time::interval(Duration::from_millis(KEYS_CHECK_MS));
    loop {
        tokio::select! {
            reason = broker.stopped() => return Some(reason),
            _ = look.tick() => reload_keys(broker, keys),
            asked = signals.next() => match asked {
                Asked::Reload => {
                    reload_keys(broker, keys);
                    reload_certificates(broker);
                }
                Asked::Stop => return None,
            },
        }
    }
}

/// Tells clients to go, waits until they have gone or the time is over, and ends. A second signal ends at once.
async fn stop(config: &Config, broker: Broker, stops: &mut Stops<'_>) -> Result<(), StopError> {
    stops.asked = true;
    let window = Duration::from_millis(config.broker.drain_ms.into());
    tracing::info!(
        drain_ms = config.broker.drain_ms,
        "stopping; a second signal stops at once"
    );
    let in_order = async {
        let left = tokio::select! {
            left = broker.drain(window) => left,
            reason = broker.stopped() => return Err(reason.into()),
        };
        if left > 0 {
            tracing::warn!(
                connections = left,
                "clients were still connected when the time to go was over"
            );
        }
        broker.stop().await
    };
    tokio::select! {
        stopped = in_order => stopped,
        () = asked_to_stop(&mut stops.signals) => stops.at_once(),
    }
}

async fn asked_to_stop(signals: &mut Signals) {
    while signals.next().await != Asked::Stop {}
}

/// Why there is no start, and what to do where an address is in the way: a listener has the name of its flag.
fn cannot_start(error: &StartError) -> anyhow::Error {
    let advice = match error {
        StartError::Listen { what, cause, .. } => {
            let why = match cause.kind() {
                io::ErrorKind::AddrInUse => "something listens there already: stop it, or ",
                io::ErrorKind::PermissionDenied => {
                    "ports below 1024 are for the privileged as a rule: "
                }
                _ => "",
            };
            format!("; {why}name another address with --{what}")
        }
        _ => String::new(),
    };
    anyhow::anyhow!("the broker cannot start: {error}{advice}")
}

/// Ends the process without touching the data any more: what was acknowledged is on disk, and the next start recovers.
fn end(reason: &StopReason) -> ! {
    tracing::error!(%reason, "ending, so that the next start recovers");
    terminal::tell(&format!(
        "{reason}. Everything that was acknowledged is on disk: start it again, which recovers."
    ));
    match reason {
        // A mistake of ours: leave a core dump for whoever looks for it.
        StopReason::ShardPanicked(_) => std::process::abort(),
        StopReason::JournalPoisoned(_) | StopReason::JournalLost(_) => std::process::exit(1),
    }
}

fn make_data_directory(data: &Path) -> anyhow::Result<()> {
    let open = files::make_data_directory(data)
        .and_then(|()| files::open_to_others(data))
        .map_err(|error| anyhow::anyhow!(cannot_write(data, &error)))?;
    if let Some(mode) = open {
        tracing::warn!(
            data = %data.display(),
            mode = format_args!("{mode:o}"),
            "everybody on this machine may look into the data directory and read what people said: run `chmod 700` on it"
        );
    }
    Ok(())
}

/// The key set, the certificate, and the proof for development tokens if they may be taken.
fn open_keys(config: &Config) -> anyhow::Result<(Arc<KeyFile>, Identity, Option<LoopbackOnly>)> {
    let path = match &config.auth.keys {
        Some(path) => path.clone(),
        None => {
            keys::open(&config.data_dir, None)?;
            keys::key_set_path(&config.data_dir)
        }
    };
    let keys = KeyFile::open(&path, config.auth.policy.clone()).map_err(|error| {
        anyhow::anyhow!("the key set {} cannot be used: {error}", path.display())
    })?;
    let identity = identity::open_or_make(&config.tls, &config.listen, &config.data_dir)?;
    let development =
        LoopbackOnly::of(config.listen.addresses()).filter(|_| config.auth.development_tokens);
    if development.is_some() {
        tracing::warn!(
            "development tokens are taken: whoever reaches a listener is who he says he is, and a service if he wants; where \
             something on this machine forwards connections from elsewhere, set auth.development_tokens to \"off\""
        );
    }
    Ok((Arc::new(keys), identity, development))
}

fn broker_config(config: &Config, identity: &Identity, files: OpenFiles) -> BrokerConfig {
    let defaults = BrokerConfig::default();
    BrokerConfig {
        shards: if config.broker.shards == 0 {
            defaults.shards
        } else {
            config.broker.shards
        },
        pin: config.broker.pin,
        core: config.limits.clone(),
        tcp: config.listen.tcp,
        tls: config.listen.tls,
        quic: config.listen.quic,
        ops: config.listen.ops,
        tls_identity: Some(identity.files()),
        connections_max: config.broker.connections_max,
        descriptors_max: files.for_connections(),
        connections_per_address_max: config.broker.connections_per_address_max,
        connections_per_user_max: config.broker.connections_per_user_max,
        handshakes_max: config.broker.handshakes_max,
        node_bytes_max: config.broker.node_bytes_max,
        ..defaults
    }
}

fn announce(
    config: &Config,
    broker: &Broker,
    identity: &Identity,
    development_tokens: bool,
) -> anyhow::Result<()> {
    let listening = broker.addresses();
    let file = addresses::Addresses {
        pid: std::process::id(),
        tcp: listening.tcp,
        tls: listening.tls,
        quic: listening.quic,
        ops: listening.ops,
    };
    addresses::write(&config.data_dir, &file)
        .map_err(|error| anyhow::anyhow!(cannot_write(&config.data_dir, &error)))?;
    if config.log.format == LogFormat::Human {
        let banner = Banner {
            addresses: &listening,
            data: &config.data_dir,
            self_signed: identity
                .self_signed
                .then_some(identity.certificate.as_path()),
            development_tokens,
            auth: &config.auth,
            directory: &std::env::current_dir().unwrap_or_default(),
            program: &std::env::current_exe().unwrap_or_else(|_| "rialto".into()),
        };
        // Whoever closed standard output does not want to read it.
        let _ = terminal::print(&banner.text());
    }
    Ok(())
}

fn reload_keys(broker: &Broker, keys: &KeyFile) {
    let path = keys.path().display();
    match keys.reload() {
        Ok(Reload::Unchanged) => {}
        Ok(Reload::Replaced { keys }) => {
            tracing::info!(%path, keys, "the key set was replaced");
            broker.end_untrusted();
        }
        Err(error) => {
            tracing::error!(%path, %error, "the key set cannot be used; the former one stays in force");
        }
    }
}

fn reload_certificates(broker: &Broker) {
    match broker.reload_certificates() {
        Ok(()) => tracing::info!("certificates were read again"),
        Err(error) => {
            tracing::error!(%error, "the certificate cannot be used; the former one stays in force");
        }
    }
}

fn report_open_files(files: OpenFiles) {
    match files {
        OpenFiles::AtMost(count) if count < OPEN_FILES_ENOUGH => {
            tracing::warn!(
                open_files_max = count,
                "few connections are possible; raise the hard limit (ulimit -Hn, LimitNOFILE=)"
            );
        }
        OpenFiles::NotRaised(count) => tracing::warn!(
            open_files_max = count,
            "the limit of open files could not be raised"
        ),
        OpenFiles::AtMost(_) | OpenFiles::Unlimited => {}
    }
}

fn cannot_write(data: &Path, error: &io::Error) -> String {
    format!(
        "the data directory {} cannot be written: {error}; {}",
        data.display(),
        files::advice(error)
    )
}

fn elapsed_ms(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn an_address_that_cannot_be_listened_on_comes_with_the_flag_that_names_another() {
        for kind in [
            io::ErrorKind::AddrInUse,
            io::ErrorKind::AddrNotAvailable,
            io::ErrorKind::PermissionDenied,
        ] {
            let said = cannot_start(&StartError::Listen {
                what: "ops",
                address: ([127, 0, 0, 1], 4410).into(),
                cause: kind.into(),
            });
            let said = said.to_string();
            for part in ["127.0.0.1:4410", "name another address with --ops"] {
                assert!(said.contains(part), "{part}: {said}");
            }
        }
    }

    #[tokio::test]
    async fn a_signal_is_heard_while_something_blocks() {
        let directory = tempfile::tempdir().unwrap();
        let mut stops = Stops {
            signals: Signals::listen().unwrap(),
            asked: false,
            data: directory.path(),
        };
        let mut others = Signals::listen().unwrap();
        let (go_on, told) = mpsc::channel();
        let blocked = stops.during("the test is over", move || {
            let process = rustix::process::getpid();
            rustix::process::kill_process(process, rustix::process::Signal::TERM).unwrap();
            told.recv().unwrap();
        });
        let heard = async {
            assert_eq!(others.next().await, Asked::Stop);
            go_on.send(()).unwrap();
        };
        let (done, ()) = tokio::join!(blocked, heard);
        done.unwrap();
        assert!(stops.asked);
    }
}
