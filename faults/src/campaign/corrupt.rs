//! Damaged files: in each file of a data directory that was written under load, at its head, in its middle and at its tail, a
//! bit is flipped, a sector is zero, or the rest is missing. The broker may refuse to start and say why, or serve each conversation
//! as it was or refuse it with an error in its log; it may not serve anything else.
//!
//! What the journal's last write brought is no evidence: a torn write looks the same. So after everything that is
//! judged something is written that is not.

use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use tokio::time::sleep;

use super::stage::Stage;
use crate::broker::Started;
use crate::findings::Findings;
use crate::lives::OwnEnd;
use crate::load::{Pace, Plan, Reread, Town};

const SECTOR_BYTES: u64 = 512;
/// Load before the damage.
const LIFE: Duration = Duration::from_millis(2_500);
/// How long the last words have to come to rest.
const REST: Duration = Duration::from_millis(400);
/// For how long a broker whose data is damaged may refuse a log for now, before that is its answer.
const REFUSED_MAX: Duration = Duration::from_secs(5);
/// Damaged directories that are kept, of rounds in which something was found.
const KEPT_MAX: u32 = 5;
/// Files that are not data.
const NOT_DATA: [&str; 2] = ["LOCK", "addresses.json"];

#[derive(Clone, Copy, Debug)]
enum Place {
    Head,
    Middle,
    Tail,
}

#[derive(Clone, Copy, Debug)]
enum Damage {
    BitFlipped,
    SectorZeroed,
    CutOff,
}

pub(super) async fn run(stage: &mut Stage) -> anyhow::Result<()> {
    let broker = stage.start().await?;
    let mut town = stage.town(busy(stage.plan())).await?;
    let era = town.begin().await?;
    sleep(LIFE).await;
    town.end(era).await?;
    stage.note(&mut town);
    town.say_last_words().await?;
    sleep(REST).await;
    broker.kill();
    let pristine = stage.path("pristine");
    fs::rename(&stage.launch.data, &pristine)?;
    stage.judge_own_ends(OwnEnd::HasToSayWhy);
    let mut cases = Vec::new();
    for file in files(&pristine)? {
        for place in [Place::Head, Place::Middle, Place::Tail] {
            for damage in [Damage::BitFlipped, Damage::SectorZeroed, Damage::CutOff] {
                cases.push((file.clone(), place, damage));
            }
        }
    }
    stage.figures.add("ways to damage", cases.len() as u64);
    stage.dice.shuffle(&mut cases);
    stage.expect(cases.len());
    let mut cases = cases.into_iter();
    let mut kept = 0;
    while let (Some(round), Some((file, place, damage))) = (stage.next_round(), cases.next()) {
        copy(&pristine, &stage.launch.data)?;
        let number = round + 1;
        let what = format!(
            "round {number}: {damage:?} at the {place:?} of {}",
            file.display()
        );
        stage.at(&what);
        let found = stage.found();
        if spoil(&stage.launch.data.join(&file), place, damage)? {
            judge(stage, &town, &what).await?;
        } else {
            stage.figures.add("files too short for it", 1);
        }
        if stage.found() > found && kept < KEPT_MAX {
            let damaged = stage.path(&format!("damaged-{number}"));
            fs::rename(&stage.launch.data, damaged)?;
            kept += 1;
        } else {
            fs::remove_dir_all(&stage.launch.data)?;
        }
        stage.progress.step(round + 1);
    }
    Ok(())
}

fn busy(mut plan: Plan) -> Plan {
    plan.pace = Pace {
        window: 16,
        pause_ms_max: 2,
        large_per_mille: 60,
    };
    plan.conversations = 4;
    plan.refused_max = REFUSED_MAX;
    plan
}

async fn judge(stage: &mut Stage, town: &Town, what: &str) -> anyhow::Result<()> {
    stage.figures.add("damages", 1);
    let mut broker = match stage.try_start().await? {
        Started::Serving(broker, _) => broker,
        Started::Ended(_) => return Ok(()),
        Started::Hung => {
            stage
                .findings
                .add("hung", format!("{what}: it neither served nor ended"));
            return Ok(());
        }
    };
    let mut reread = Reread::default();
    tokio::select! {
        biased;
        () = town.reread(&mut reread) => {}
        // Nobody answers any more.
        _ = broker.wait(Duration::MAX) => {}
    }
    let ended = broker.ended().is_some();
    if ended {
        reread.refused.clear();
        reread.unanswered.clear();
    }
    let findings = judge_reread(&reread, &broker.log(), what);
    if findings.is_clean() && !ended {
        let figure = if reread.refused.is_empty() {
            "served and right"
        } else {
            "served, some reads refused with an error in the log"
        };
        stage.figures.add(figure, 1);
    }
    stage.findings.merge(findings);
    Ok(())
}

/// Each log is what it was, or refused with an error in the broker's log.
fn judge_reread(reread: &Reread, log: &str, what: &str) -> Findings {
    let mut findings = Findings::default();
    let silent: &[String] = if log.contains("ERROR") {
        &[]
    } else {
        &reread.refused
    };
    for (kind, logs) in [
        ("served but wrong", &reread.other[..]),
        ("unanswered", &reread.unanswered),
        ("refused without a word", silent),
    ] {
        for words in logs {
            findings.add(kind, format!("{what}: {words}"));
        }
    }
    findings
}

/// Damages a file; false: it is too short for that.
fn spoil(path: &Path, place: Place, damage: Damage) -> anyhow::Result<bool> {
    let bytes = fs::read(path).with_context(|| path.display().to_string())?;
    // A segment is prepared with zeroes; its tail is where they begin.
    let used = bytes.iter().rposition(|byte| *byte != 0);
    let Some(last) = used.map(|last| last as u64) else {
        return Ok(false);
    };
    let at = match place {
        Place::Head => last.min(12),
        Place::Middle => last / 2,
        Place::Tail => last,
    };
    let file = File::options().read(true).write(true).open(path)?;
    match damage {
        Damage::BitFlipped => {
            let byte = bytes[usize::try_from(at)?] ^ 0x10;
            file.write_all_at(&[byte], at)?;
        }
        Damage::SectorZeroed => {
            let from = at / SECTOR_BYTES * SECTOR_BYTES;
            let most = usize::try_from((bytes.len() as u64 - from).min(SECTOR_BYTES))?;
            file.write_all_at(&vec![0; most], from)?;
        }
        Damage::CutOff => file.set_len(at)?,
    }
    Ok(true)
}

/// Every file below a folder, by its path in there.
fn files(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in fs::read_dir(&next)? {
            let path = entry?.path();
            let data = !NOT_DATA.iter().any(|name| path.ends_with(name));
            if path.is_dir() {
                folders.push(path);
            } else if data {
                found.push(path.strip_prefix(folder)?.to_owned());
            }
        }
    }
    found.sort();
    Ok(found)
}

fn copy(from: &Path, to: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let path = entry?.path();
        let target = to.join(path.file_name().unwrap_or_default());
        if path.is_dir() {
            copy(&path, &target)?;
        } else {
            fs::copy(&path, &target)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_that_is_refused_hides_nothing_of_the_others() {
        let words = |log: &str| vec![log.to_owned()];
        let reread = Reread {
            same: 1,
            other: words("room 1"),
            refused: words("room 0"),
            unanswered: words("room 2"),
        };
        let found = |log| {
            let findings = judge_reread(&reread, log, "a bit flipped");
            findings.violations.into_keys().collect::<Vec<_>>()
        };
        let wrong = ["served but wrong", "unanswered"];
        assert_eq!(found("ERROR of storage"), wrong);
        let silent = ["refused without a word", wrong[0], wrong[1]];
        assert_eq!(found("all is well"), silent);
    }

    #[test]
    fn each_damage_changes_the_file_where_it_says() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("segment");
        let mut whole = vec![7; 3_000];
        whole.resize(8_192, 0);
        let spoiled = |place, damage| {
            fs::write(&path, &whole).unwrap();
            assert!(spoil(&path, place, damage).unwrap());
            fs::read(&path).unwrap()
        };
        assert_eq!(spoiled(Place::Tail, Damage::BitFlipped)[2_999], 7 ^ 0x10);
        assert_eq!(spoiled(Place::Head, Damage::SectorZeroed)[..512], [0; 512]);
        assert_eq!(spoiled(Place::Middle, Damage::CutOff).len(), 1_499);
        fs::write(&path, [0; 100]).unwrap();
        assert!(!spoil(&path, Place::Head, Damage::BitFlipped).unwrap());
    }
}
