//! Load from the real SDK, over whatever happens to the broker, and its judgement.
//!
//! A campaign runs through **eras**: in each of them devices talk in a few fresh conversations and readers follow; at its end
//! everything is acknowledged, read again from the first event on, and judged. So the work of judging does not grow with the
//! length of a campaign. The clients live on from era to era.

mod archive;
mod dial;
mod founding;
mod judge;
mod later;
mod ledger;
mod newcomers;
mod publisher;
mod reader;
mod steady;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use rialto_loadgen::checker::Reading;
use rialto_protocol::ids::{ConversationId, Seq, UserId};
use rialto_protocol::v1;
use rialto_sdk::{Client, Content, Create};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::findings::{Figures, Findings};
use crate::patience::Patience;
use crate::random::Dice;
pub use archive::Reread;
use archive::{Archived, print};
use dial::{connect, dial, user};
use founding::{found, keep_founding};
pub use judge::Turns;
pub(crate) use later::{Heard, Later, Speaker};
use ledger::Ledger;
pub use newcomers::{Came, Newcomers};
pub use publisher::Pace;
use publisher::Publisher;
use reader::Follower;
pub(crate) use reader::{Read, read};
pub use steady::{Measured, Phase, Steady};

/// Long enough that what comes before them is in other sectors.
const LAST_WORDS_BYTES: usize = 2_000;
/// Devices of one user.
const DEVICES: usize = 2;

/// How much load.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Endpoints such as `tcp://127.0.0.1:7000`; clients are spread over them.
    pub endpoints: Vec<String>,
    /// Devices that talk.
    pub publishers: usize,
    /// How hard.
    pub pace: Pace,
    /// Readers of each era that follow from its beginning.
    pub readers: usize,
    /// Conversations that an era begins with.
    pub conversations: usize,
    /// Whether each author's own order is judged.
    pub turns: Turns,
    /// How long answers may be missing while the broker serves.
    pub patience: Duration,
    /// For how long a log may be refused for now when it is read again.
    pub refused_max: Duration,
    /// Whether more is said later in logs that were judged: it takes the memory of all that was sent.
    pub goes_on: bool,
}

impl Plan {
    /// A usual one.
    #[must_use]
    pub const fn new(endpoints: Vec<String>, patience: Duration) -> Self {
        Self {
            endpoints,
            publishers: 12,
            pace: Pace {
                window: 8,
                pause_ms_max: 8,
                large_per_mille: 1,
            },
            readers: 3,
            conversations: 6,
            turns: Turns::Count,
            patience,
            refused_max: patience,
            goes_on: false,
        }
    }
}

/// All clients of a campaign.
#[derive(Debug)]
pub struct Town {
    plan: Plan,
    dice: Dice,
    keeper: Client,
    devices: Vec<(UserId, Client)>,
    eras: usize,
    archive: Vec<Archived>,
    /// What all eras found.
    pub findings: Findings,
    /// What all eras did.
    pub figures: Figures,
}

/// A part of a campaign that is judged as a whole.
#[derive(Debug)]
pub struct Era {
    name: String,
    ledger: Arc<Ledger>,
    stop: watch::Sender<bool>,
    talkers: Vec<JoinHandle<()>>,
    founder: JoinHandle<()>,
    followers: Arc<Vec<Follower>>,
}

impl Era {
    /// Waits until so many more messages are acknowledged; says whether that happened in time.
    pub async fn acknowledges(&self, more: u64, patience: Duration) -> bool {
        let from = self.ledger.acknowledged_count();
        let mut patience = Patience::of(patience);
        while self.ledger.acknowledged_count() < from + more {
            if !patience.wait().await {
                return false;
            }
        }
        true
    }

    /// Acknowledgements so far.
    #[must_use]
    pub fn acknowledged(&self) -> u64 {
        self.ledger.acknowledged_count()
    }

    /// The latest time that an acknowledgement has told, milliseconds since 1970.
    #[must_use]
    pub fn newest_ms(&self) -> u64 {
        self.ledger.newest_ms()
    }

    /// Refusals so far that are to be tried again.
    #[must_use]
    pub fn refused(&self) -> u64 {
        self.ledger.pages().figures.of("refused for now")
    }
}

/// Waits until a client has all its answers; else what is wrong, by its kind and in words.
async fn ended(task: JoinHandle<()>, left: &mut Patience) -> Result<(), (&'static str, String)> {
    let abort = task.abort_handle();
    match left.with(task).await {
        Some(Ok(())) => Ok(()),
        // Nobody judges what it would have sent and heard.
        Some(Err(error)) => Err(("a client broke off", error.to_string())),
        None => {
            abort.abort();
            let words = "a client had no answer in time while the broker served";
            Err(("unanswered", words.to_owned()))
        }
    }
}

impl Drop for Era {
    fn drop(&mut self) {
        for task in &self.talkers {
            task.abort();
        }
        self.founder.abort();
    }
}

impl Town {
    /// Connects everybody.
    ///
    /// # Errors
    /// When the broker does not let them in.
    pub async fn settle(plan: Plan, dice: &Dice) -> anyhow::Result<Self> {
        let dice = dice.of(1);
        let keeper = connect(&plan, 0, user("keeper")).await?;
        let mut devices = Vec::with_capacity(plan.publishers);
        for number in 0..plan.publishers {
            let speaker = user(&format!("speaker {}", number / DEVICES));
            devices.push((speaker, connect(&plan, number, speaker).await?));
        }
        Ok(Self {
            plan,
            dice,
            keeper,
            devices,
            eras: 0,
            archive: Vec::new(),
            findings: Findings::default(),
            figures: Figures::default(),
        })
    }

    /// Founds conversations, lets readers follow them and everybody talk.
    ///
    /// # Errors
    /// When the broker refuses for good, or for longer than anybody waits.
    pub async fn begin(&mut self) -> anyhow::Result<Era> {
        let mut patience = Patience::of(4 * self.plan.patience);
        let era = patience.with(self.set_out()).await;
        era.context("the broker lets nobody begin")?
    }

    async fn set_out(&mut self) -> anyhow::Result<Era> {
        self.eras += 1;
        let name = format!("era {}", self.eras);
        let dice = self.dice.of(self.eras as u64);
        let ledger = Arc::new(Ledger::default());
        let members: Vec<UserId> = self.devices.iter().map(|(user, _)| *user).collect();
        let mut conversations = Vec::new();
        for number in 0..self.plan.conversations {
            conversations.push(found(&self.keeper, &ledger, &name, number, &members).await?);
        }
        let mut followers = Vec::new();
        for number in 0..self.plan.readers {
            let reader = format!("live reader {number} of {name}");
            let (client, events) = dial(&self.plan, number, user("keeper")).await?;
            let follower = Follower::start(reader, client, events, ledger.clone());
            follower.follow(&conversations).await;
            followers.push(follower);
        }
        let followers = Arc::new(followers);
        let (stop, stopped) = watch::channel(false);
        let talkers = self
            .devices
            .iter()
            .enumerate()
            .map(|(number, (user, client))| {
                let publisher = Publisher {
                    number,
                    user: *user,
                    client: client.clone(),
                    ledger: ledger.clone(),
                    dice: dice.of(number as u64),
                    pace: self.plan.pace,
                };
                tokio::spawn(publisher.run(stopped.clone()))
            })
            .collect();
        let founder = tokio::spawn(keep_founding(
            self.keeper.clone(),
            ledger.clone(),
            name.clone(),
            members,
            followers.clone(),
            self.plan.conversations,
            stopped,
        ));
        Ok(Era {
            name,
            ledger,
            stop,
            talkers,
            founder,
            followers,
        })
    }

    /// Lets everybody finish, reads everything from its first event on, and judges it.
    ///
    /// # Errors
    /// When a log cannot be read at all.
    pub async fn end(&mut self, mut era: Era) -> anyhow::Result<()> {
        era.stop.send_replace(true);
        let patience = self.plan.patience;
        let mut findings = Findings::default();
        let mut left = Patience::of(patience);
        for task in era.talkers.drain(..).chain([std::mem::replace(
            &mut era.founder,
            tokio::spawn(std::future::ready(())),
        )]) {
            if let Err((kind, words)) = ended(task, &mut left).await {
                findings.add(kind, format!("{}: {words}", era.name));
            }
        }
        let reading = self.read_and_judge(&era, &mut findings);
        if Patience::of(4 * patience).with(reading).await.is_none() {
            findings.add(
                "unanswered",
                format!("{}: its logs could not be read in time", era.name),
            );
        }
        let pages = std::mem::take(&mut *era.ledger.pages());
        self.findings.merge(pages.findings);
        self.findings.merge(findings);
        self.figures.merge(&pages.figures);
        Ok(())
    }

    /// Reads one of an era's logs, as somebody does who has just come.
    ///
    /// # Errors
    /// When that is refused or not answered in time.
    pub async fn can_read(&self, era: &Era) -> anyhow::Result<()> {
        let first = era
            .ledger
            .pages()
            .books
            .first()
            .map(|book| book.conversation);
        let Some(conversation) = first else {
            return Ok(());
        };
        let read = reader::history(&self.keeper, conversation);
        let events = Patience::of(self.plan.patience)
            .with(read)
            .await
            .context("a page of history was not answered")??;
        anyhow::ensure!(
            !events.is_empty(),
            "a log that holds events was read as empty"
        );
        Ok(())
    }

    /// Founds a conversation that nobody judges, and says something there.
    ///
    /// # Errors
    /// When the broker refuses.
    pub async fn say_last_words(&self) -> anyhow::Result<()> {
        let created = self.keeper.create(Create::channel("last words")).await?;
        let words = "x".repeat(LAST_WORDS_BYTES);
        let conversation = created.conversation;
        self.keeper
            .publish(conversation, Content::text(words))
            .await?
            .await?;
        Ok(())
    }

    /// Ends all connections: a client that is only let go of would look for the next broker.
    pub async fn leave(self) {
        self.keeper.close().await;
        for (_, client) in &self.devices {
            client.close().await;
        }
    }

    async fn read_and_judge(&mut self, era: &Era, findings: &mut Findings) {
        let ids: Vec<ConversationId> = {
            let pages = era.ledger.pages();
            pages.books.iter().map(|book| book.conversation).collect()
        };
        let mut logs = HashMap::new();
        for &id in &ids {
            match reader::history(&self.keeper, id).await {
                Ok(log) => drop(logs.insert(id, log)),
                Err(error) => findings.add("unreadable", format!("{}: {id}: {error}", era.name)),
            }
        }
        let heads: HashMap<ConversationId, Seq> = logs
            .iter()
            .map(|(id, log)| (*id, log.last().map_or(Seq(0), |event| Seq(event.seq))))
            .collect();
        let mut followers: Vec<&Follower> = era.followers.iter().collect();
        let cold = match self.cold_reader(era, &ids).await {
            Ok(cold) => Some(cold),
            Err(error) => {
                findings.add("unreadable", format!("{}: {error:#}", era.name));
                None
            }
        };
        followers.extend(&cold);
        for follower in &followers {
            if !follower.has_read_to(&heads, self.plan.patience).await {
                // The checker says what is missing.
                era.ledger.pages().figures.add("readers left behind", 1);
            }
        }
        self.judge_all(era, &logs, &followers, findings);
        if let Some(cold) = cold {
            cold.close().await;
        }
    }

    fn judge_all(
        &mut self,
        era: &Era,
        logs: &HashMap<ConversationId, Vec<v1::Event>>,
        followers: &[&Follower],
        findings: &mut Findings,
    ) {
        let mut pages = era.ledger.pages();
        let read: u64 = followers.iter().map(|follower| follower.count()).sum();
        pages.figures.add("events read", read);
        let books = pages.books.len() as u64;
        pages.figures.add("conversations judged", books);
        for book in std::mem::take(&mut pages.books) {
            let Some(log) = logs.get(&book.conversation) else {
                continue;
            };
            let readings: Vec<Reading> = followers
                .iter()
                .filter_map(|follower| follower.reading(book.conversation))
                .collect();
            judge::judge(&book, log, readings, self.plan.turns, findings);
            self.archive.push(Archived {
                name: book.name.clone(),
                conversation: book.conversation,
                events: log.len(),
                print: print(log),
                book: self.plan.goes_on.then_some(book),
            });
        }
    }

    async fn cold_reader(&self, era: &Era, ids: &[ConversationId]) -> anyhow::Result<Follower> {
        let (client, events) = dial(&self.plan, self.eras, user("keeper")).await?;
        let name = format!("reader from the start of {}", era.name);
        let follower = Follower::start(name, client, events, era.ledger.clone());
        follower.follow(ids).await;
        Ok(follower)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_client_that_breaks_off_is_found_as_is_one_without_an_answer() {
        let mut left = Patience::of(Duration::from_secs(20));
        let well = tokio::spawn(std::future::ready(()));
        assert_eq!(ended(well, &mut left).await, Ok(()));
        let broken = tokio::spawn(async { panic!("a planted mistake") });
        let (kind, words) = ended(broken, &mut left).await.unwrap_err();
        assert_eq!(kind, "a client broke off", "{words}");
        let waiting = tokio::spawn(std::future::pending());
        let mut left = Patience::of(Duration::from_millis(20));
        let (kind, words) = ended(waiting, &mut left).await.unwrap_err();
        assert_eq!(kind, "unanswered", "{words}");
    }
}
