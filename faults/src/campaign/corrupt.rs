//! Damaged files: in each file of a data directory that was written under load, at its head, in its middle and at its tail, a
//! bit is flipped, a sector is zero, or the rest is missing. The broker may refuse to start and say why, or serve each conversation
//! as it was or refuse it with an error in its log; it may not serve anything else.
//!
//! Where it serves, more is said in what could be read. That is acknowledged, or refused because of storage with an error in the log;
//! what was acknowledged stands behind what was there, under the next numbers. In some rounds, and in all in which the journal was
//! damaged, the broker is killed then and started once more: that still holds, and numbers go on.
//!
//! What the journal's last write brought is no evidence: a torn write looks the same. So after everything that is
//! judged something is written that is not.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use rialto_protocol::ids::{ConversationId, UserId};
use tokio::time::sleep;

use super::stage::Stage;
use crate::broker::{Broker, Started};
use crate::findings::Findings;
use crate::lives::OwnEnd;
use crate::load::{Heard, Later, Pace, Plan, Reread, Speaker, Town};
use crate::patience::Patience;

const SECTOR_BYTES: u64 = 512;
/// Load before the damage.
const LIFE: Duration = Duration::from_millis(2_500);
/// How long the last words have to come to rest.
const REST: Duration = Duration::from_millis(400);
/// For how long a broker whose data is damaged may refuse a log for now, before that is its answer.
const REFUSED_MAX: Duration = Duration::from_secs(5);
/// Damaged directories that are kept, of rounds in which something was found.
const KEPT_MAX: u32 = 5;
/// Messages that are said in each conversation that could be read.
const LATER: usize = 3;
/// Of 1,000 rounds, how many have a second start, beside those in which a file in this folder was damaged.
const SECOND_START: u64 = 100;
const JOURNAL: &str = "journal";
/// What stands before an error in the broker's log.
const ERROR: &str = "ERROR";
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
        let case = Case {
            what: format!(
                "round {number}: {damage:?} at the {place:?} of {}",
                file.display()
            ),
            of_journal: file.starts_with(JOURNAL),
            // In every round, so that one decides nothing for another.
            drawn: stage.dice.chance(SECOND_START),
        };
        stage.at(&case.what);
        let found = stage.found();
        if spoil(&stage.launch.data.join(&file), place, damage)? {
            judge(stage, &mut town, &case).await?;
        } else {
            stage.figures.add("files that it leaves as they were", 1);
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
    plan.goes_on = true;
    plan
}

/// A damage, and what follows it.
struct Case {
    /// In words.
    what: String,
    /// A file of the journal was damaged.
    of_journal: bool,
    /// It has a second start by the dice.
    drawn: bool,
}

async fn judge(stage: &mut Stage, town: &mut Town, case: &Case) -> anyhow::Result<()> {
    stage.figures.add("damages", 1);
    let mut broker = match stage.try_start().await? {
        Started::Serving(broker, _) => broker,
        Started::Ended(_) => return Ok(()),
        Started::Hung => {
            hung(stage, case);
            return Ok(());
        }
    };
    let mut later = Vec::new();
    let Some(reread) = read_back(stage, town, &mut broker, &later, case).await else {
        return Ok(());
    };
    let figure = if reread.refused.is_empty() {
        "served and right"
    } else {
        "served, some reads refused with an error in the log"
    };
    stage.figures.add(figure, 1);
    let logs = &reread.same;
    let serves = say_later(stage, town.keeper(), &mut broker, logs, &mut later, case).await
        && read_back(stage, town, &mut broker, &later, case)
            .await
            .is_some();
    // Of a broker that ended only another start tells what became of what it acknowledged.
    if serves && !case.drawn && !case.of_journal {
        return Ok(());
    }
    broker.kill();
    start_again(stage, town, logs, &mut later, serves, case).await
}

fn hung(stage: &mut Stage, case: &Case) {
    let words = format!("{}: it neither served nor ended", case.what);
    stage.findings.add("hung", words);
}

/// A second start: what was acknowledged before is there, and numbers go on. A journal that was good enough to be written to is so
/// still; damaged views may end each start.
async fn start_again(
    stage: &mut Stage,
    town: &mut Town,
    logs: &[ConversationId],
    later: &mut Vec<Later>,
    served: bool,
    case: &Case,
) -> anyhow::Result<()> {
    stage.figures.add("second starts", 1);
    let mut broker = match stage.try_start().await? {
        Started::Serving(broker, _) => broker,
        Started::Ended(ending) => {
            if served && case.of_journal {
                let words = format!("{}: {}", case.what, ending.words());
                stage.findings.add("served once and not again", words);
            }
            stage.figures.add("second starts that were refused", 1);
            return Ok(());
        }
        Started::Hung => {
            hung(stage, case);
            return Ok(());
        }
    };
    if say_later(stage, town.keeper(), &mut broker, logs, later, case).await {
        read_back(stage, town, &mut broker, later, case).await;
    }
    Ok(())
}

/// Reads everything, and judges it; none: something was wrong, or the broker ended.
async fn read_back(
    stage: &mut Stage,
    town: &mut Town,
    broker: &mut Broker,
    later: &[Later],
    case: &Case,
) -> Option<Reread> {
    let mut reread = Reread::default();
    tokio::select! {
        biased;
        () = town.reread(later, &mut reread) => {}
        // Nobody answers any more.
        _ = broker.wait(Duration::MAX) => {}
    }
    let ended = broker.ended().is_some();
    if ended {
        reread.refused.clear();
        reread.unanswered.clear();
    }
    let findings = judge_reread(&reread, &broker.log(), &case.what);
    let clean = findings.is_clean();
    stage.findings.merge(findings);
    (clean && !ended).then_some(reread)
}

/// Says more in each of these logs; whether the broker serves still.
async fn say_later(
    stage: &mut Stage,
    user: UserId,
    broker: &mut Broker,
    logs: &[ConversationId],
    later: &mut Vec<Later>,
    case: &Case,
) -> bool {
    let (port, patience) = (stage.launch.ports.tcp, stage.patience());
    let mut heard = Heard::default();
    let saying = async {
        let mut speaker = Speaker::enter(port, user).await?;
        speaker.say(logs, LATER, later, &mut heard).await
    };
    let said = Patience::of(patience).with(saying).await;
    let ended = match said {
        // A broker that ends breaks its connections first.
        Some(Err(_)) => broker.wait(patience).await.is_some(),
        Some(Ok(())) | None => broker.ended().is_some(),
    };
    let said = said.unwrap_or_else(|| Err(io::ErrorKind::TimedOut.into()));
    let findings = judge_heard(&heard, said.err().filter(|_| !ended), &broker.log());
    stage.findings.merge(findings.at(&case.what));
    let figures = &mut stage.figures;
    figures.add("acknowledged after the damage", heard.acknowledged);
    let refused = heard.unavailable.len() as u64;
    figures.add(
        "refused after the damage, with an error in the log",
        refused,
    );
    !ended
}

/// Each message was acknowledged, or refused because of storage with an error in the broker's log. `unheard` is why not all answers
/// came from a broker that serves.
fn judge_heard(heard: &Heard, unheard: Option<io::Error>, log: &str) -> Findings {
    let mut findings = Findings::default();
    for words in &heard.refused {
        findings.add("refused for no reason", words);
    }
    if !log.contains(ERROR) {
        for words in &heard.unavailable {
            findings.add("refused without a word", words);
        }
    }
    if let Some(error) = unheard {
        let words = format!("{} messages: {error}", heard.unanswered);
        findings.add("unanswered", words);
    }
    findings
}

/// Each log is what it was, or refused with an error in the broker's log.
fn judge_reread(reread: &Reread, log: &str, what: &str) -> Findings {
    let mut findings = reread.wrong.clone().at(what);
    let silent: &[String] = if log.contains(ERROR) {
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

/// Damages a file; false: it is too short for that, or a sector of it is zero as it is.
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
            let before = &bytes[usize::try_from(from)?..][..most];
            if before.iter().all(|byte| *byte == 0) {
                return Ok(false);
            }
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
            other: words("room 1"),
            refused: words("room 0"),
            unanswered: words("room 2"),
            ..Reread::default()
        };
        let found = |log| {
            let findings = judge_reread(&reread, log, "a bit flipped");
            findings.violations.into_keys().collect::<Vec<_>>()
        };
        let wrong = ["served but wrong", "unanswered"];
        assert_eq!(found("ERROR of storage"), wrong);
        let silent = ["refused without a word", wrong[0], wrong[1]];
        assert_eq!(found("all is well"), silent);
        let later = Reread {
            wrong: lost(),
            ..Reread::default()
        };
        let findings = judge_reread(&later, "all is well", "a bit flipped");
        assert_eq!(findings.examples, ["a bit flipped: lost: message 7"]);
    }

    fn lost() -> Findings {
        let mut findings = Findings::default();
        findings.add("lost", "message 7");
        findings
    }

    #[test]
    fn what_is_said_later_is_acknowledged_or_refused_with_an_error_in_the_log() {
        let words = |log: &str| vec![log.to_owned()];
        let found = |heard: &Heard, unheard: Option<io::Error>, log| {
            let findings = judge_heard(heard, unheard, log);
            findings.violations.into_keys().collect::<Vec<_>>()
        };
        let mut heard = Heard {
            acknowledged: 2,
            unavailable: words("room 0"),
            ..Heard::default()
        };
        assert_eq!(found(&heard, None, "ERROR of storage"), [""; 0]);
        let silent = "refused without a word";
        assert_eq!(found(&heard, None, "all is well"), [silent]);
        heard.refused = words("room 1");
        let wrong = ["refused for no reason", silent];
        assert_eq!(found(&heard, None, "all is well"), wrong);
        let silence = Some(io::ErrorKind::TimedOut.into());
        assert_eq!(found(&Heard::default(), silence, ""), ["unanswered"]);
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
        let mut hollow = vec![0_u8; 4_001];
        hollow[4_000] = 7;
        fs::write(&path, &hollow).unwrap();
        assert!(!spoil(&path, Place::Middle, Damage::SectorZeroed).unwrap());
    }
}
