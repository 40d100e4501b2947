//! Where a campaign plays: a folder of its own, a broker on ports of its own, and what was found so far.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use tempfile::TempDir;
use tokio::sync::watch;

use super::{Campaign, CannotRun, Options, Outcome, Report};
use crate::broker::{Broker, Launch, Ports, Started};
use crate::findings::{Figures, Findings};
use crate::lives::{Lives, OwnEnd};
use crate::load::{Era, Plan, Town};
use crate::progress::Progress;
use crate::random::Dice;
use crate::shim::Shim;

/// How long answers may be missing while the broker serves: far beyond what any of them takes on a machine that is shared.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long a broker may take to start before it counts as hanging.
const START_MAX: Duration = Duration::from_secs(60);
/// The start that is aimed at (docs/PERFORMANCE.md); slower ones are counted.
const RESTART_BOUND: Duration = Duration::from_secs(2);
/// Small segments, so that sealing, views and recycling happen all the time.
const SEGMENT_BYTES: u32 = 1 << 20;
/// The planted mistake that is the disk's and not the broker's.
const LYING_DISK: &str = "lying-disk";
/// The variable by which a broker is told which mistake to make.
const PLANTED: &str = "RIALTO_PLANTED";
/// What a broker that makes mistakes says of itself.
const ON_PURPOSE: &str = "makes mistakes on purpose";
/// Rounds that are judged together.
const ERA_ROUNDS: u32 = 10;

/// See the module.
pub(super) struct Stage {
    campaign: Campaign,
    pub(super) options: Options,
    pub(super) progress: Progress,
    pub(super) dice: Dice,
    pub(super) launch: Launch,
    pub(super) figures: Figures,
    pub(super) findings: Findings,
    /// That have begun.
    rounds: u32,
    interrupted: watch::Receiver<bool>,
    shim: Option<Arc<Shim>>,
    folder: TempDir,
}

impl Stage {
    pub(super) fn set(
        campaign: Campaign,
        options: &Options,
        progress: Progress,
        interrupted: watch::Receiver<bool>,
    ) -> anyhow::Result<Self> {
        // By the path that the kernel has for it too: the shim knows an open file by that alone.
        let folder = options.scratch.canonicalize().and_then(|scratch| {
            tempfile::Builder::new()
                .prefix("rialto-faults-")
                .tempdir_in(scratch)
        });
        let folder =
            folder.with_context(|| format!("{} cannot be written", options.scratch.display()))?;
        let dice = Dice::new(options.seed);
        let launch = Launch {
            binary: options.binary.clone(),
            data: folder.path().join("data"),
            log: folder.path().join("broker.log"),
            // Not by the seed: two campaigns of the same seed may run at once.
            ports: Ports::free(&mut Dice::new(entropy(folder.path()))),
            settings: vec![format!("storage.segment_bytes={SEGMENT_BYTES}")],
            environment: BTreeMap::new(),
            start_max: START_MAX,
            lives: Lives::default(),
        };
        let mut stage = Self {
            campaign,
            options: options.clone(),
            progress,
            dice,
            launch,
            figures: Figures::default(),
            findings: Findings::default(),
            rounds: 0,
            interrupted,
            shim: None,
            folder,
        };
        stage.at("before the first round");
        stage.plant()?;
        Ok(stage)
    }

    /// Has the broker make the mistake that was asked for.
    fn plant(&mut self) -> anyhow::Result<()> {
        match self.options.planted.clone() {
            None => {}
            Some(mistake) if mistake == LYING_DISK => self.shim()?.lie_about_syncs()?,
            Some(mistake) => {
                let binary = &self.launch.binary;
                let mut version = Command::new(binary);
                version.arg("--version").env(PLANTED, &mistake);
                let output = version.output();
                let output = output.with_context(|| binary.display().to_string())?;
                // Of a broker that does not know it, it would be said that it is found: it would not start.
                ensure!(
                    output.status.success(),
                    "{} --version: {}",
                    binary.display(),
                    String::from_utf8_lossy(&output.stderr).trim()
                );
                // Of one that makes none, that none is found.
                ensure!(
                    String::from_utf8_lossy(&output.stdout).contains(ON_PURPOSE),
                    "{} makes no mistakes on purpose: name one that does with --rialto, as `make faults-planted` builds it",
                    binary.display()
                );
                let planted = (PLANTED.to_owned(), mistake.into());
                self.launch.environment.extend([planted]);
            }
        }
        Ok(())
    }

    /// What stands between libc and the brokers that start from now on, which keep their data where the launch says now.
    pub(super) fn shim(&mut self) -> anyhow::Result<Arc<Shim>> {
        let shim = match self.shim.take() {
            Some(shim) => shim,
            None => Arc::new(Shim::lay(self.folder.path())?),
        };
        let environment = shim.environment(&self.launch.data);
        self.launch.environment.extend(environment);
        self.shim = Some(Arc::clone(&shim));
        Ok(shim)
    }

    /// A path in the campaign's own folder.
    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Load over all three transports.
    pub(super) fn plan(&self) -> Plan {
        let Ports { tcp, tls, quic, .. } = self.launch.ports;
        Plan::new(
            vec![
                format!("tcp://127.0.0.1:{tcp}"),
                format!("tls://127.0.0.1:{tls}"),
                format!("quic://127.0.0.1:{quic}"),
            ],
            PATIENCE,
        )
    }

    /// Everybody, connected.
    pub(super) async fn town(&self, plan: Plan) -> anyhow::Result<Town> {
        Box::pin(Town::settle(plan, &self.dice)).await
    }

    /// Starts a broker that has every reason to serve.
    pub(super) async fn start(&mut self) -> anyhow::Result<Broker> {
        let (broker, took) = match Broker::must_start(&self.launch).await {
            Ok(started) => started,
            Err(error) => {
                self.findings.add("did not start", format!("{error:#}"));
                return Err(error);
            }
        };
        if let Some(shim) = &self.shim
            && !shim.is_met()?
        {
            bail!(CannotRun(format!(
                "{} does not load the library that is put before libc: name a --scratch on a file system that is not mounted with \
                 noexec, and a broker that is linked to libc at its start",
                self.launch.binary.display()
            )));
        }
        self.figures.add("starts", 1);
        let took_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
        self.figures.add("start ms, sum", took_ms);
        self.figures.at_least("start ms, most", took_ms);
        if took > RESTART_BOUND {
            self.figures.add("starts above 2 s", 1);
        }
        Ok(broker)
    }

    /// Starts one that may refuse to.
    pub(super) async fn try_start(&mut self) -> anyhow::Result<Started> {
        self.figures.add("starts", 1);
        Broker::start(&self.launch).await
    }

    /// What an end is from now on that a broker brings about by itself; at first it is a violation.
    pub(super) fn judge_own_ends(&self, own_end: OwnEnd) {
        self.launch.lives.judge_own_ends(own_end);
    }

    /// What goes on from now on.
    pub(super) fn at(&self, what: &str) {
        self.progress.at(what);
        self.launch.lives.at(what);
    }

    /// How many violations were found so far.
    pub(super) fn found(&mut self) -> u64 {
        self.note_lives();
        self.findings.total()
    }

    /// How long answers may be missing while the broker serves.
    #[allow(clippy::unused_self)] // a question to the stage
    pub(super) const fn patience(&self) -> Duration {
        PATIENCE
    }

    /// The broker serves: somebody has to be acknowledged soon.
    pub(super) async fn expect_progress(&mut self, era: &Era, what: &str) {
        if !era.acknowledges(1, PATIENCE).await {
            self.findings.add(
                "stuck",
                format!(
                    "{what}: nothing was acknowledged for {} s",
                    PATIENCE.as_secs()
                ),
            );
        }
    }

    /// There is less to do than rounds were asked for.
    pub(super) fn expect(&mut self, rounds: usize) {
        let rounds = u32::try_from(rounds).unwrap_or(u32::MAX);
        self.options.rounds = self.options.rounds.min(rounds);
        self.progress.expect(self.options.rounds);
    }

    /// The number of the next round; none: those were all, or somebody wants it to end.
    pub(super) fn next_round(&mut self) -> Option<u32> {
        if self.rounds == self.options.rounds || *self.interrupted.borrow() {
            return None;
        }
        self.rounds += 1;
        self.launch.lives.at(format!("round {}", self.rounds));
        Some(self.rounds - 1)
    }

    /// Ends a round; now and then everything is judged and a new era begins.
    pub(super) async fn end_round(
        &mut self,
        round: u32,
        town: &mut Town,
        era: Era,
    ) -> anyhow::Result<Era> {
        self.progress.step(round + 1);
        if !(round + 1).is_multiple_of(ERA_ROUNDS) || round + 1 == self.options.rounds {
            return Ok(era);
        }
        town.end(era).await?;
        self.note(town);
        town.begin().await
    }

    /// The end of the load: judges the last era, and reads all others again.
    pub(super) async fn close(&mut self, mut town: Town, era: Era) -> anyhow::Result<()> {
        town.end(era).await?;
        town.read_all_again().await;
        self.note(&mut town);
        Ok(())
    }

    /// Takes over what the load found so far.
    pub(super) fn note(&mut self, town: &mut Town) {
        self.findings.merge(std::mem::take(&mut town.findings));
        self.figures.merge(&std::mem::take(&mut town.figures));
    }

    /// Takes over what was found of brokers' ends.
    fn note_lives(&mut self) {
        let (findings, figures) = self.launch.lives.take();
        self.findings.merge(findings);
        self.figures.merge(&figures);
    }

    pub(super) fn report(mut self, done: anyhow::Result<()>, took: Duration) -> Report {
        self.note_lives();
        let Self {
            campaign,
            options,
            figures,
            findings,
            rounds,
            folder,
            progress,
            ..
        } = self;
        progress.end();
        let done = done.map(|()| rounds);
        let mut report = Report::of(campaign, &options, took, done, figures, findings);
        if matches!(report.outcome, Outcome::Failed | Outcome::BrokeOff(_)) {
            // For whoever looks for the reason.
            report.kept = Some(folder.keep());
        }
        report
    }
}

fn entropy(folder: &Path) -> u64 {
    let name = folder.to_string_lossy();
    name.bytes().fold(0, |sum: u64, byte| {
        sum.wrapping_mul(31).wrapping_add(byte.into())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_campaign_plays_where_the_kernel_says_that_it_does() {
        let scratch = tempfile::tempdir().unwrap();
        let (folder, link) = (scratch.path().join("folder"), scratch.path().join("link"));
        std::fs::create_dir(&folder).unwrap();
        std::os::unix::fs::symlink(&folder, &link).unwrap();
        let options = Options {
            binary: PathBuf::new(),
            scratch: link,
            rounds: 1,
            seed: 1,
            short: true,
            planted: None,
            attack: None,
        };
        let progress = Progress::show("kill", 1);
        let (_, interrupted) = watch::channel(false);
        let stage = Stage::set(Campaign::Kill, &options, progress, interrupted).unwrap();
        let data = &stage.launch.data;
        assert!(data.starts_with(folder.canonicalize().unwrap()), "{data:?}");
    }
}
