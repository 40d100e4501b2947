//! Clients that behave: each on a connection of its own, talking at a constant rate whatever the answers do, so that a slow
//! broker cannot slow its own measurement down. Latencies count from the moment at which a message was to be sent.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use futures_util::stream::{FuturesUnordered, StreamExt as _};
use rialto_loadgen::checker::{Fingerprint, Said};
use rialto_loadgen::latency::Latencies;
use rialto_protocol::ids::{ConversationId, Seq, UserId};
use rialto_protocol::v1;
use rialto_sdk::{Client, Content, PublishError, Retry};
use tokio::sync::{Mutex, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, sleep_until};

use super::dial::{connect, dial_as, user};
use super::founding::found;
use super::judge::{Turns, judge};
use super::ledger::{Ledger, Line, Words};
use super::reader::{self, Follower};
use super::{Plan, ended};
use crate::findings::{Figures, Findings};
use crate::patience::Patience;

/// Clients of one conversation.
const ROOM_CLIENTS: usize = 3;
/// Bytes of a message, about.
const BODY_BYTES: usize = 100;
/// Wait before something is sent again when the broker gave no advice.
const AGAIN: Duration = Duration::from_millis(20);

/// A stretch of time whose latencies are told apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Nothing else goes on.
    Quiet,
    /// Somebody attacks.
    Attacked,
    /// It is over.
    After,
}

impl Phase {
    const ALL: [Self; 3] = [Self::Quiet, Self::Attacked, Self::After];
}

/// What was measured of the messages of one phase.
#[derive(Clone, Debug, Default)]
pub struct Measured {
    /// From the moment at which a message was to be sent to its acknowledgement.
    pub acks: Latencies,
    /// … to its arrival at each of its readers.
    pub deliveries: Latencies,
    /// … to that at which its client came to send it. So much of both is the clients' own doing, or that of whoever has their
    /// processors.
    pub late: Latencies,
    /// The longest time in which nobody was acknowledged anything, microseconds: everybody stood still; and how far into the phase
    /// that ended.
    pub standstill_us: u64,
    /// See [`Measured::standstill_us`].
    pub standstill_at_us: u64,
}

/// Shared by all clients.
#[derive(Debug)]
struct Clock {
    begun: Instant,
    /// When each phase began; those that are to come: never.
    begins_us: [AtomicU64; Phase::ALL.len()],
    /// When anybody was acknowledged last; 0: never.
    acknowledged_us: AtomicU64,
    measured: [std::sync::Mutex<Measured>; Phase::ALL.len()],
}

impl Clock {
    /// Of a first phase that has begun.
    fn start() -> Self {
        Self {
            begun: Instant::now(),
            begins_us: [0, u64::MAX, u64::MAX].map(AtomicU64::new),
            acknowledged_us: AtomicU64::new(0),
            measured: Default::default(),
        }
    }

    /// From now on what is to be sent belongs to this phase.
    fn enter(&self, phase: Phase) {
        let now_us = self.since_us(Instant::now());
        self.begins_us[phase as usize].store(now_us, Ordering::Relaxed);
    }

    /// The phase of what was to be sent at this time, however late it is sent.
    fn phase_of(&self, intended_us: u64) -> usize {
        let has_begun = |begins_us: &AtomicU64| begins_us.load(Ordering::Relaxed) <= intended_us;
        self.begins_us.iter().rposition(has_begun).unwrap_or(0)
    }

    fn since_us(&self, then: Instant) -> u64 {
        u64::try_from(then.saturating_duration_since(self.begun).as_micros()).unwrap_or(0)
    }

    fn record(&self, phase: usize, record: impl FnOnce(&mut Measured)) {
        if let Some(measured) = self.measured.get(phase) {
            record(&mut measured.lock().unwrap_or_else(PoisonError::into_inner));
        }
    }

    /// Now, a message of this phase is acknowledged that was to be sent at this time.
    fn acknowledged(&self, phase: usize, intended_us: u64) {
        let now_us = self.since_us(Instant::now());
        let still_us = match self.acknowledged_us.swap(now_us, Ordering::Relaxed) {
            0 => 0,
            before_us => now_us.saturating_sub(before_us),
        };
        let begins_us = self.begins_us[phase].load(Ordering::Relaxed);
        self.record(phase, |measured| {
            measured.acks.record_us(now_us.saturating_sub(intended_us));
            if still_us > measured.standstill_us {
                measured.standstill_us = still_us;
                measured.standstill_at_us = now_us.saturating_sub(begins_us);
            }
        });
    }

    /// A message that has arrived somewhere.
    fn arrived(&self, event: &v1::Event) {
        let Some(v1::event::Content::Message(message)) = &event.content else {
            return;
        };
        let text = String::from_utf8_lossy(&message.body);
        let mut words = text.split(' ').map(str::parse::<u64>);
        if let (Some(Ok(phase)), Some(Ok(intended_us))) = (words.next(), words.next()) {
            let us = self.since_us(Instant::now()).saturating_sub(intended_us);
            let phase = usize::try_from(phase).unwrap_or(usize::MAX);
            self.record(phase, |measured| measured.deliveries.record_us(us));
        }
    }
}

/// All of them.
#[derive(Debug)]
pub struct Steady {
    patience: Duration,
    keeper: Client,
    ledger: Arc<Ledger>,
    clock: Arc<Clock>,
    followers: Vec<Follower>,
    talkers: Vec<JoinHandle<()>>,
    stop: watch::Sender<bool>,
}

impl Drop for Steady {
    fn drop(&mut self) {
        for task in &self.talkers {
            task.abort();
        }
    }
}

impl Steady {
    /// Connects `clients` over the plan's endpoints in turn and has each say something every `interval`.
    ///
    /// # Errors
    /// When the broker does not let them in.
    pub async fn settle(plan: &Plan, clients: usize, interval: Duration) -> anyhow::Result<Self> {
        let keeper = connect(plan, 0, user("keeper")).await?;
        let ledger = Arc::new(Ledger::default());
        let clock = Arc::new(Clock::start());
        let (stop, stopped) = watch::channel(false);
        let mut steady = Self {
            patience: plan.patience,
            keeper,
            ledger,
            clock,
            followers: Vec::new(),
            talkers: Vec::new(),
            stop,
        };
        let names: Vec<UserId> = (0..clients)
            .map(|number| user(&format!("neighbour {number}")))
            .collect();
        for (room, members) in names.chunks(ROOM_CLIENTS).enumerate() {
            let ledger = &steady.ledger;
            let conversation = found(&steady.keeper, ledger, "street", room, members).await?;
            for (place, &member) in members.iter().enumerate() {
                let number = room * ROOM_CLIENTS + place;
                let offset = interval * u32::try_from(number)? / u32::try_from(clients)?;
                let client = steady.join(plan, number, member, conversation).await?;
                let talker = Talker {
                    number,
                    user: member,
                    client,
                    book: room,
                    conversation,
                    interval,
                    ledger: steady.ledger.clone(),
                    clock: steady.clock.clone(),
                    again: Mutex::default(),
                };
                let begin = Instant::now() + offset;
                let task = tokio::spawn(talker.talk(begin, stopped.clone()));
                steady.talkers.push(task);
            }
        }
        // While others were still coming it was not quiet.
        steady.clock.record(Phase::Quiet as usize, |measured| {
            *measured = Measured::default();
        });
        Ok(steady)
    }

    async fn join(
        &mut self,
        plan: &Plan,
        number: usize,
        member: UserId,
        conversation: ConversationId,
    ) -> anyhow::Result<Client> {
        let token = format!("dev:{member}");
        let (client, events) = dial_as(plan, number, token).await?;
        let clock = self.clock.clone();
        let follower = Follower::start_noting(
            format!("neighbour {number}"),
            client.clone(),
            events,
            self.ledger.clone(),
            move |event| clock.arrived(event),
        );
        follower.follow(&[conversation]).await;
        self.followers.push(follower);
        Ok(client)
    }

    /// From now on messages belong to this phase.
    pub fn enter(&self, phase: Phase) {
        self.clock.enter(phase);
    }

    /// Lets everybody finish, reads everything again and judges it. What was measured comes back, by phase.
    ///
    /// # Errors
    /// When a log cannot be read at all.
    pub async fn end(
        mut self,
        findings: &mut Findings,
        figures: &mut Figures,
    ) -> anyhow::Result<[Measured; 3]> {
        self.stop.send_replace(true);
        let mut left = Patience::of(self.patience);
        for task in self.talkers.drain(..) {
            if let Err((kind, words)) = ended(task, &mut left).await {
                findings.add(kind, format!("of those who behave, {words}"));
            }
        }
        let ids: Vec<ConversationId> = {
            let pages = self.ledger.pages();
            pages.books.iter().map(|book| book.conversation).collect()
        };
        let mut logs = HashMap::new();
        for id in ids {
            let log = Patience::of(self.patience)
                .with(reader::history(&self.keeper, id))
                .await
                .context("a log that was not read in time")??;
            logs.insert(id, log);
        }
        self.judge_all(&logs, findings, figures).await;
        for follower in self.followers.drain(..) {
            follower.close().await;
        }
        self.keeper.close().await;
        Ok(Phase::ALL.map(|phase| {
            let measured = &self.clock.measured[phase as usize];
            measured
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .clone()
        }))
    }

    async fn judge_all(
        &self,
        logs: &HashMap<ConversationId, Vec<v1::Event>>,
        findings: &mut Findings,
        figures: &mut Figures,
    ) {
        for (number, follower) in self.followers.iter().enumerate() {
            let room = self.ledger.pages().books[number / ROOM_CLIENTS].conversation;
            let head = logs[&room].last().map_or(Seq(0), |event| Seq(event.seq));
            let heads = [(room, head)].into();
            if !follower.has_read_to(&heads, self.patience).await {
                figures.add("readers left behind", 1);
            }
        }
        let mut pages = self.ledger.pages();
        for book in &pages.books {
            let log = &logs[&book.conversation];
            let readings = self
                .followers
                .iter()
                .filter_map(|follower| follower.reading(book.conversation))
                .collect();
            judge(book, log, readings, Turns::Count, findings);
        }
        let read: u64 = self.followers.iter().map(Follower::count).sum();
        pages.figures.add("events read", read);
        findings.merge(std::mem::take(&mut pages.findings));
        figures.merge(&std::mem::take(&mut pages.figures));
    }
}

/// One that talks.
struct Talker {
    number: usize,
    user: UserId,
    client: Client,
    book: usize,
    conversation: ConversationId,
    interval: Duration,
    ledger: Arc<Ledger>,
    clock: Arc<Clock>,
    /// What was refused is sent again one by one: all at the advised moment would be a storm of its own.
    again: Mutex<()>,
}

impl Talker {
    /// Talks until it is told to stop, then waits for every answer.
    async fn talk(self, mut next: Instant, mut stop: watch::Receiver<bool>) {
        let mut under_way = FuturesUnordered::new();
        loop {
            tokio::select! {
                biased;
                _ = stop.changed() => break,
                Some(()) = under_way.next(), if !under_way.is_empty() => {}
                () = sleep_until(next) => {
                    under_way.push(self.say(next));
                    next += self.interval;
                }
            }
        }
        while under_way.next().await.is_some() {}
    }

    /// One message, sent again for as long as it is refused for now.
    async fn say(&self, intended: Instant) {
        let intended_us = self.clock.since_us(intended);
        let phase = self.clock.phase_of(intended_us);
        let late_us = self
            .clock
            .since_us(Instant::now())
            .saturating_sub(intended_us);
        self.clock
            .record(phase, |measured| measured.late.record_us(late_us));
        let mut body = format!("{phase} {intended_us} {} ", self.number);
        body.extend(std::iter::repeat_n(
            'x',
            BODY_BYTES.saturating_sub(body.len()),
        ));
        let said = Said {
            sender: self.user,
            body: Fingerprint::of(body.as_bytes()),
            reply_to: Box::default(),
        };
        let content = Content::text(body);
        let mut publishing = match self
            .client
            .publish(self.conversation, content.clone())
            .await
        {
            Ok(publishing) => publishing,
            Err(error) => return self.ledger.violation("not sent", error.to_string()),
        };
        let client_id = publishing.client_id();
        let place = self.ledger.sent(
            self.book,
            Line {
                client_id,
                author: self.number,
                words: Words::Said(said),
                receipt: None,
                in_turn: true,
                is_void: false,
            },
        );
        loop {
            match publishing.await {
                Ok(receipt) => {
                    self.clock.acknowledged(phase, intended_us);
                    return self.ledger.acknowledged(place, receipt);
                }
                Err(PublishError::Refused(error)) if error.retry() != Retry::Never => {
                    let advice = error.retry_after();
                    self.ledger.refused(place, advice.is_some());
                    let _turn = self.again.lock().await;
                    sleep(advice.unwrap_or(AGAIN)).await;
                }
                Err(error) => {
                    return self
                        .ledger
                        .violation("refused for good", format!("{client_id}: {error}"));
                }
            }
            let again = self
                .client
                .publish_again(client_id, self.conversation, content.clone());
            publishing = match again.await {
                Ok(publishing) => publishing,
                Err(error) => return self.ledger.violation("not sent", error.to_string()),
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everybody_stands_still_for_as_long_as_nobody_is_acknowledged() {
        let begun = Instant::now().checked_sub(Duration::from_millis(50));
        let clock = Clock {
            begun: begun.unwrap(),
            ..Clock::start()
        };
        let phase = Phase::Attacked as usize;
        let measured = || clock.measured[phase].lock().unwrap().clone();
        clock.acknowledged(phase, 0);
        assert_eq!(measured().standstill_us, 0, "nothing was before it");
        clock.acknowledged_us.store(20_000, Ordering::Relaxed);
        clock.acknowledged(phase, 10_000);
        let found = measured();
        assert!(found.standstill_us >= 30_000, "{}", found.standstill_us);
        let ms = found.acks.percentiles();
        assert!(found.acks.count() == 2 && ms.p50 >= 39.0, "{ms:?}");
    }

    #[test]
    fn what_is_sent_late_belongs_to_the_phase_that_it_was_to_be_sent_in() {
        let clock = Clock::start();
        let begins = |phase: Phase, at_us| {
            clock.begins_us[phase as usize].store(at_us, Ordering::Relaxed);
        };
        begins(Phase::Attacked, 1_000);
        assert_eq!(
            [0, 999, 1_000, 9_000].map(|us| clock.phase_of(us)),
            [0, 0, 1, 1]
        );
        begins(Phase::After, 5_000);
        assert_eq!([999, 4_999, 5_000].map(|us| clock.phase_of(us)), [0, 1, 2]);
        clock.enter(Phase::After);
        assert!(clock.phase_of(u64::MAX) == Phase::After as usize);
    }
}
