//! The TLS certificate is replaced under load: connections that stand live on, new ones see the new certificate, and a key that
//! does not fit its certificate changes nothing.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use rialto_loadgen::tokens::Tokens;
use rialto_protocol::ids::UserId;
use rialto_sdk::{Client, ConnectionState, Roots};
use rustix::process::Signal;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use super::stage::Stage;

/// A certificate and its key, in PEM.
struct Pair {
    certificate: String,
    key: String,
}

impl Pair {
    fn make() -> anyhow::Result<Self> {
        let names = ["localhost", "127.0.0.1"].map(str::to_owned);
        let made = rcgen::generate_simple_self_signed(names).context("a certificate")?;
        Ok(Self {
            certificate: made.cert.pem(),
            key: made.signing_key.serialize_pem(),
        })
    }
}

/// Where the broker reads them.
struct Files {
    certificate: PathBuf,
    key: PathBuf,
}

impl Files {
    fn write(&self, certificate: &Pair, key: &Pair) -> anyhow::Result<()> {
        fs::write(&self.certificate, &certificate.certificate)?;
        fs::write(&self.key, &key.key)?;
        Ok(())
    }
}

pub(super) async fn run(stage: &mut Stage) -> anyhow::Result<()> {
    let files = Files {
        certificate: stage.path("certificate.pem"),
        key: stage.path("key.pem"),
    };
    let mut old = Pair::make()?;
    files.write(&old, &old)?;
    stage.launch.settings.extend([
        format!("tls.certificate={}", files.certificate.display()),
        format!("tls.key={}", files.key.display()),
    ]);
    let broker = stage.start().await?;
    let mut town = stage.town(stage.plan()).await?;
    let mut era = town.begin().await?;
    while let Some(round) = stage.next_round() {
        let mut standing = Vec::new();
        for endpoint in endpoints(stage) {
            let client = connect(&endpoint, &old).await;
            standing.push(client.with_context(|| format!("{endpoint} with its certificate"))?);
        }
        let new = Pair::make()?;
        if stage.dice.chance(300) {
            files.write(&old, &new)?;
            broker.signal(Signal::HUP);
            stage.figures.add("keys that do not fit", 1);
            let pause = stage.dice.millis(50, 200);
            sleep(pause).await;
            for endpoint in endpoints(stage) {
                if let Err(error) = connect(&endpoint, &old).await {
                    let words = format!("{endpoint}: after a key that does not fit: {error:#}");
                    stage.findings.add("no connection", words);
                }
            }
        }
        files.write(&new, &new)?;
        broker.signal(Signal::HUP);
        stage.figures.add("replacements", 1);
        for endpoint in endpoints(stage) {
            sees(stage, &endpoint, &old, &new).await;
        }
        for Probe {
            client, session, ..
        } in &standing
        {
            if client.state().borrow().clone() != *session {
                let words = format!("{session:?} did not outlive a new certificate");
                stage.findings.add("connection lost", words);
            }
        }
        old = new;
        stage.expect_progress(&era, "after a new certificate").await;
        era = stage.end_round(round, &mut town, era).await?;
    }
    stage.close(town, era).await?;
    drop(broker);
    Ok(())
}

fn endpoints(stage: &Stage) -> [String; 2] {
    let ports = stage.launch.ports;
    [
        format!("tls://127.0.0.1:{}", ports.tls),
        format!("quic://127.0.0.1:{}", ports.quic),
    ]
}

/// New connections have to see the new certificate soon, and the old one no more.
async fn sees(stage: &mut Stage, endpoint: &str, old: &Pair, new: &Pair) {
    let until = Instant::now() + stage.patience();
    while let Err(error) = connect(endpoint, new).await {
        if Instant::now() > until {
            let words = format!("{endpoint}: the new certificate is not shown: {error:#}");
            stage.findings.add("old certificate", words);
            return;
        }
        sleep(Duration::from_millis(10)).await;
    }
    if connect(endpoint, old).await.is_ok() {
        let words = format!("{endpoint}: the old certificate is shown again");
        stage.findings.add("old certificate", words);
    }
    stage.figures.add("connections that saw the new one", 1);
}

/// A connection that ends when it is dropped.
struct Probe {
    client: Client,
    session: ConnectionState,
    events: JoinHandle<()>,
}

impl Drop for Probe {
    fn drop(&mut self) {
        self.events.abort();
    }
}

async fn connect(endpoint: &str, roots: &Pair) -> anyhow::Result<Probe> {
    let (client, mut events) = Box::pin(
        Client::builder()
            .endpoint(endpoint)
            .roots(Roots::Pem(roots.certificate.clone().into_bytes()))
            .token(Tokens::Development.of(UserId::from_name("probe")))
            .connect(),
    )
    .await?;
    let events = tokio::spawn(async move { while events.next().await.is_some() {} });
    let session = client.state().borrow().clone();
    Ok(Probe {
        client,
        session,
        events,
    })
}
