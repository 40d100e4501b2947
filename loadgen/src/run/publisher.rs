//! One connection that publishes: each message a request of its own, pipelined.

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use rialto_protocol::frame::FrameKind;
use rialto_protocol::ids::{ClientId, ConversationId};
use rialto_protocol::v1;
use rialto_sdk::ClientIds;
use tokio::sync::watch;

use super::body::Mark;
use super::choice::Choice;
use super::clock::micros;
use super::entrance;
use super::ledger::{Account, fingerprint};
use super::local::{Local, Person, random};
use super::numbers::Numbers;
use super::patience::Patience;
use super::plan::publisher_user;
use super::schedule::{Now, Pacing};
use super::window::{Sent, State, Window};
use super::{RunError, Stage};
use crate::wire::connection::{Arrived, Connection, PING, decode, unexpected};
use crate::wire::lost::Lost;
use crate::wire::{publish, walk};

/// Bytes that may wait to be written before more is made: what a socket takes at once.
const UNWRITTEN_MAX: usize = 1 << 20;
/// Wait after a refusal that gives no advice.
const PAUSE_MIN: Duration = Duration::from_millis(10);
/// Refusals in words that a publisher keeps.
const PROBLEMS_MAX: usize = 3;

/// A publisher, before and while it publishes.
pub(super) struct Publisher {
    local: Rc<Local>,
    person: Person,
    /// Among all publishers of the run.
    index: u32,
    /// Its place at the thread's ticker.
    place: usize,
    ids: ClientIds,
    opens: Vec<(usize, ClientId)>,
    joins: Vec<(usize, ClientId)>,
    outlets: Vec<Outlet>,
    choice: Choice,
    window: Window,
    paused_until_us: u64,
    acknowledged_us: u64,
    /// With acknowledgements, once nothing more will be due.
    patience: Patience,
    pub(super) problems: Vec<String>,
}

/// A conversation that it writes to.
struct Outlet {
    id: ConversationId,
    conversation: usize,
    numbers: u64,
    refused: Numbers,
    unanswered: Numbers,
    repeated: BTreeMap<u64, u64>,
    seq_max: u64,
    digest: u64,
}

impl Outlet {
    /// The account tells of a message whose body does not change that it may stand later.
    #[inline]
    fn late(&mut self, sent: &Sent, duplicate: bool) {
        if let Some(behind) = sent.stands_behind(duplicate) {
            self.repeated.insert(sent.number, behind);
        }
    }
}

/// What to wait for.
enum Wait {
    /// A time, or an answer.
    Until(u64),
    /// An answer, or the end of the load.
    Answer,
    /// Nothing more: all is sent and answered, or given up.
    Nothing,
}

impl Publisher {
    /// Number `index` of the run, at this place among the thread's.
    pub(super) fn new(local: &Rc<Local>, index: usize, place: usize) -> Result<Self, RunError> {
        let (plan, clock) = (&local.shared.plan, local.shared.clock);
        let mut ids = ClientIds::new(random()?);
        let now_ms = clock.unix_ms(clock.now_us());
        let duties = plan.duties(index);
        let mut named = |places: Vec<usize>| {
            let name = |place| (place, ids.next(now_ms));
            places.into_iter().map(name).collect::<Vec<_>>()
        };
        let (opens, joins) = (named(duties.opens), named(duties.joins));
        let (outlets, choice) = plan.outlets(index);
        let outlet = |conversation| Outlet {
            id: plan.id(conversation),
            conversation,
            numbers: 0,
            refused: Numbers::default(),
            unanswered: Numbers::default(),
            repeated: BTreeMap::new(),
            seq_max: 0,
            digest: 0,
        };
        Ok(Self {
            person: local.person(index, publisher_user(index))?,
            local: local.clone(),
            index: u32::try_from(index).unwrap_or(u32::MAX),
            place,
            ids,
            opens,
            joins,
            outlets: outlets.into_iter().map(outlet).collect(),
            choice,
            window: Window::default(),
            paused_until_us: 0,
            acknowledged_us: 0,
            patience: Patience::new(local.shared.spec.settle),
            problems: Vec::new(),
        })
    }

    /// Connects, and opens the conversations that are this publisher's.
    pub(super) async fn open(&self) -> Result<Connection, RunError> {
        let mut connection = self.local.connect(&self.person).await?;
        loop {
            let opened = entrance::open(&mut connection, &self.local.shared.plan, &self.opens);
            match opened.await {
                Ok(()) => return Ok(connection),
                Err(lost) => connection = self.local.reconnect(&self.person, lost).await?,
            }
        }
    }

    /// Enters what others opened.
    pub(super) async fn join(&self, connection: &mut Connection) -> Result<(), RunError> {
        loop {
            let joined = entrance::join(connection, &self.local.shared.plan, &self.joins);
            match joined.await {
                Ok(()) => return Ok(()),
                Err(lost) => *connection = self.local.reconnect(&self.person, lost).await?,
            }
        }
    }

    /// Waits for the load; publishes until its last phase has ended and everything is answered, or nothing has been acknowledged
    /// for too long.
    pub(super) async fn publish(
        mut self,
        mut connection: Connection,
        mut stage: watch::Receiver<Stage>,
    ) -> Result<Published, RunError> {
        let start_us = loop {
            let lost = tokio::select! {
                start = stage.wait_for(|stage| stage.load_start_us().is_some()) => {
                    let start = start.map_err(|_| RunError::System("the coordinator is gone".into()))?;
                    break start.load_start_us().unwrap_or_default();
                }
                lost = connection.keep() => lost,
            };
            connection = self.local.reconnect(&self.person, lost).await?;
        };
        let shared = &self.local.shared;
        let who = (self.index as usize, shared.spec.publishers);
        let mut pacing = Pacing::new(shared.phases.clone(), start_us, who, shared.spec.burst);
        loop {
            match poll_fn(|context| self.poll(&mut connection, &mut pacing, context)).await {
                Ok(()) => break,
                Err(lost) => {
                    connection = self.local.reconnect(&self.person, lost).await?;
                    self.send_again(&mut connection);
                }
            }
        }
        Ok(Published {
            accounts: self.accounts(),
            problems: self.problems,
        })
    }

    fn poll(
        &mut self,
        connection: &mut Connection,
        pacing: &mut Pacing,
        context: &mut Context<'_>,
    ) -> Poll<Result<(), Lost>> {
        loop {
            let read = connection.poll_frames(context, |frame| self.answer(frame))?;
            let wait = self.fill(connection, pacing);
            connection.poll_write(context)?;
            let until_us = match wait {
                Wait::Until(at_us) => Some(at_us),
                Wait::Answer => None,
                Wait::Nothing => return Poll::Ready(Ok(())),
            };
            if read.is_pending() {
                let ticker = &self.local.ticker;
                ticker.wake(self.place, until_us, context.waker())?;
                return Poll::Pending;
            }
        }
    }

    /// Sends all that can be sent.
    fn fill(&mut self, connection: &mut Connection, pacing: &mut Pacing) -> Wait {
        let now_us = self.local.shared.clock.now_us();
        let over_us = self.local.over_us.get();
        match self.send_due(connection, pacing, now_us) {
            Now::Wait(at_us) if now_us < over_us => Wait::Until(at_us),
            // That nothing comes is looked at when nothing more will be due.
            Now::Answer if now_us < over_us => Wait::Answer,
            Now::Wait(paused_until_us) => self.end(pacing, now_us, paused_until_us),
            _ => self.end(pacing, now_us, u64::MAX),
        }
    }

    /// Sends what is due, as far as it can be sent; what to wait for then.
    fn send_due(&mut self, connection: &mut Connection, pacing: &mut Pacing, now_us: u64) -> Now {
        if now_us < self.paused_until_us {
            return Now::Wait(self.paused_until_us);
        }
        if self.paused_until_us > 0 {
            self.paused_until_us = 0;
            self.send_refused(connection, now_us);
        }
        let (credit, over_us) = (connection.in_flight_bytes_max(), self.local.over_us.get());
        loop {
            if self.window.frame_bytes() >= credit || connection.unwritten() >= UNWRITTEN_MAX {
                return Now::Answer;
            }
            match pacing.next(now_us, self.window.open()) {
                Now::Send(due_us) if due_us < over_us => self.send(connection, due_us, now_us),
                Now::Wait(at_us) if at_us < over_us => return Now::Wait(at_us),
                Now::Answer => return Now::Answer,
                Now::Send(_) | Now::Wait(_) | Now::End => return Now::End,
            }
        }
    }

    /// When nothing more will be due: what is not acknowledged in time is given up, be it refused again and again, and with it
    /// what could not even be sent.
    fn end(&mut self, pacing: &mut Pacing, now_us: u64, paused_until_us: u64) -> Wait {
        if self.window.open() == 0 {
            return Wait::Nothing;
        }
        if self.patience.lasts(now_us, self.acknowledged_us) {
            return Wait::Until(self.patience.next_us().min(paused_until_us));
        }
        let mut count = 0;
        for state in [State::UnderWay, State::Refused] {
            for (_, sent) in self.window.in_state(state) {
                let outlet = &mut self.outlets[sent.outlet as usize];
                outlet.unanswered.insert(sent.number);
                outlet.late(sent, false);
                count += 1;
            }
        }
        let unsent = pacing.give_up(self.local.over_us.get());
        self.local.tally.current().failed += count + unsent;
        self.problem(|| {
            format!("{count} messages were not acknowledged, and {unsent} could not be sent")
        });
        Wait::Nothing
    }

    #[inline]
    fn send(&mut self, connection: &mut Connection, due_us: u64, now_us: u64) {
        let place = self.choice.next();
        let outlet = &mut self.outlets[place];
        outlet.numbers += 1;
        let shared = &self.local.shared;
        let body_bytes = shared.spec.size.pick(self.choice.random());
        let sent = Sent {
            due_us,
            number: outlet.numbers,
            outlet: u32::try_from(place).unwrap_or(u32::MAX),
            body_bytes: u32::try_from(body_bytes).unwrap_or(u32::MAX),
            client_id: self.ids.next(shared.clock.unix_ms(now_us)),
            refusals: 0,
            unsure: false,
            repeats: 0,
            repeated_at: 0,
            state: State::UnderWay,
        };
        if self.window.open() == 0 {
            self.acknowledged_us = now_us;
        }
        let request_id = self.window.push(sent);
        put(
            &self.local,
            self.index,
            outlet,
            connection,
            request_id,
            &sent,
        );
    }

    /// On a new connection: everything that is not answered, under the same client ids, oldest first.
    fn send_again(&mut self, connection: &mut Connection) {
        self.acknowledged_us = self.local.shared.clock.now_us();
        for (request_id, sent) in self.window.in_state(State::UnderWay) {
            let outlet = &self.outlets[sent.outlet as usize];
            sent.repeat(outlet.numbers);
            put(
                &self.local,
                self.index,
                outlet,
                connection,
                request_id,
                sent,
            );
        }
    }

    /// What was refused for now, once the broker may be asked again.
    fn send_refused(&mut self, connection: &mut Connection, now_us: u64) {
        for (request_id, sent) in self.window.in_state(State::Refused) {
            let outlet = &self.outlets[sent.outlet as usize];
            sent.again(outlet.numbers, || {
                self.ids.next(self.local.shared.clock.unix_ms(now_us))
            });
            put(
                &self.local,
                self.index,
                outlet,
                connection,
                request_id,
                sent,
            );
        }
    }

    fn answer(&mut self, frame: Arrived<'_>) -> Result<(), Lost> {
        let now_us = self.local.shared.clock.now_us();
        match frame.kind {
            FrameKind::Published => self.receipts(frame.body, now_us),
            FrameKind::Error if frame.request_id != PING => {
                self.refused(frame.request_id, &decode(frame.body)?, now_us);
                Ok(())
            }
            _ => Err(unexpected(frame)),
        }
    }

    fn receipts(&mut self, body: &[u8], now_us: u64) -> Result<(), Lost> {
        let mut refusals: Vec<(u32, &[u8])> = Vec::new();
        let tally = self.local.tally.clone();
        let mut tally = tally.current();
        let walked = walk::receipts(body, |receipt| {
            if let Some(error) = receipt.error {
                refusals.push((receipt.request_id, error));
                return;
            }
            let Some(sent) = self.window.find(receipt.request_id) else {
                return;
            };
            sent.state = State::Done;
            let sent = *sent;
            self.window.close(sent.body_bytes);
            self.acknowledged_us = now_us;
            let outlet = &mut self.outlets[sent.outlet as usize];
            outlet.seq_max = outlet.seq_max.max(receipt.seq);
            let print = fingerprint(receipt.seq, self.index, sent.number);
            outlet.digest = outlet.digest.wrapping_add(print);
            outlet.late(&sent, receipt.duplicate);
            let phase = self.local.phase_of(sent.due_us);
            tally.acknowledge(phase, now_us.saturating_sub(sent.due_us));
        });
        drop(tally);
        walked.map_err(|malformed| Lost::Protocol(malformed.to_string()))?;
        for (request_id, error) in refusals {
            self.refused(request_id, &decode(error)?, now_us);
        }
        Ok(())
    }

    /// A message was refused: for good, or until the broker may be asked again.
    fn refused(&mut self, request_id: u32, error: &v1::Error, now_us: u64) {
        let Some(sent) = self.window.find(request_id) else {
            return;
        };
        if error.retry() == v1::Retry::Never {
            sent.state = State::Done;
            let sent = *sent;
            self.window.close(sent.body_bytes);
            self.outlets[sent.outlet as usize]
                .refused
                .insert(sent.number);
            self.local.tally.current().failed += 1;
            self.problem(|| format!("refused with {} ({})", error.code, error.text));
            return;
        }
        sent.refuse(error.retry());
        self.local.tally.current().refused += 1;
        let asked = Duration::from_millis(error.retry_after_ms.into());
        let until_us = now_us + micros(asked.max(PAUSE_MIN));
        self.paused_until_us = self.paused_until_us.max(until_us);
    }

    fn problem(&mut self, words: impl FnOnce() -> String) {
        if self.problems.len() < PROBLEMS_MAX {
            self.problems.push(words());
        }
    }

    fn accounts(&mut self) -> Vec<Account> {
        let accounts = self.outlets.iter_mut().map(|outlet| Account {
            conversation: outlet.conversation,
            publisher: self.index,
            numbers: outlet.numbers,
            refused: std::mem::take(&mut outlet.refused),
            unanswered: std::mem::take(&mut outlet.unanswered),
            repeated: std::mem::take(&mut outlet.repeated),
            seq_max: outlet.seq_max,
            digest: outlet.digest,
        });
        accounts.collect()
    }
}

/// What a publisher leaves behind.
pub(super) struct Published {
    pub(super) accounts: Vec<Account>,
    pub(super) problems: Vec<String>,
}

#[inline]
fn put(
    local: &Local,
    publisher: u32,
    outlet: &Outlet,
    connection: &mut Connection,
    request_id: u32,
    sent: &Sent,
) {
    let bytes = sent.body_bytes as usize;
    let mark = Mark {
        due_us: sent.due_us,
        number: sent.number,
        publisher,
        refusals: sent.refusals,
    };
    let bodies = local.shared.bodies;
    publish::put(
        &mut connection.out,
        request_id,
        &outlet.id,
        &sent.client_id,
        bytes,
        |out| bodies.put(out, mark, outlet.conversation, bytes),
    );
}

#[cfg(test)]
mod tests {
    use prost::Message as _;
    use rialto_protocol::error::ErrorCode;

    use super::super::Spec;
    use super::super::schedule::{Pace, Phase, PhaseKind};
    use super::*;

    /// Sends so many messages to its first conversation; their request ids.
    fn under_way(publisher: &mut Publisher, messages: u64) -> Vec<u32> {
        let first = publisher.outlets[0].numbers + 1;
        publisher.outlets[0].numbers += messages;
        let numbers = first..first + messages;
        let sent = numbers.map(|number| Sent {
            due_us: 0,
            number,
            outlet: 0,
            body_bytes: 100,
            client_id: ClientId::v7(number, [0; 10]),
            refusals: 0,
            unsure: false,
            repeats: 0,
            repeated_at: 0,
            state: State::UnderWay,
        });
        sent.map(|sent| publisher.window.push(sent)).collect()
    }

    /// Acknowledges requests, as appended now or before.
    fn acknowledge(publisher: &mut Publisher, receipts: &[(u32, bool)]) {
        let receipt = |(request_id, duplicate): &(u32, bool)| v1::Receipt {
            request_id: *request_id,
            duplicate: *duplicate,
            ..v1::Receipt::default()
        };
        let receipts = receipts.iter().map(receipt).collect();
        let body = v1::Published { receipts }.encode_to_vec();
        publisher.receipts(&body, 5).unwrap();
    }

    #[tokio::test]
    async fn the_account_names_what_was_refused_for_good() {
        let local = Local::unconnected(Spec::now().unwrap()).await;
        let mut publisher = Publisher::new(&local, 0, 0).unwrap();
        let codes = [
            ErrorCode::Overloaded,
            ErrorCode::StorageUnavailable,
            ErrorCode::NotAMember,
        ];
        let ids = under_way(&mut publisher, 3);
        for (id, code) in ids.into_iter().zip(codes) {
            publisher.refused(id, &code.to_proto(0), 5);
        }
        let waiting = publisher.window.in_state(State::Refused);
        let unsure: Vec<bool> = waiting.map(|(_, sent)| sent.unsure).collect();
        assert_eq!(unsure, [false, true]);
        let account = publisher.accounts().remove(0);
        assert_eq!(account.refused.iter().collect::<Vec<_>>(), [3]);
    }

    #[tokio::test]
    async fn what_is_refused_for_now_again_and_again_is_given_up() {
        let local = Local::unconnected(Spec::now().unwrap()).await;
        let mut publisher = Publisher::new(&local, 0, 0).unwrap();
        let ids = under_way(&mut publisher, 2);
        let rate = Pace::Rate { from: 1.0, to: 1.0 };
        let phase = Phase {
            name: "load".into(),
            kind: PhaseKind::Steady,
            pace: rate,
            duration: Duration::from_secs(3),
            measured: true,
        };
        let mut pacing = Pacing::new([phase].into(), 0, (0, 1), 1);
        let given_up = (4..100).map(|second| second * 1_000_000).find(|now_us| {
            let receipt = |request_id: &u32| v1::Receipt {
                request_id: *request_id,
                error: Some(ErrorCode::Overloaded.to_proto(1)),
                ..v1::Receipt::default()
            };
            let receipts = ids.iter().map(receipt).collect();
            let body = v1::Published { receipts }.encode_to_vec();
            publisher.receipts(&body, *now_us).unwrap();
            matches!(publisher.end(&mut pacing, *now_us, 0), Wait::Nothing)
        });
        assert!(given_up.is_some());
        assert_eq!(publisher.local.tally.current().failed, 2 + 3);
        assert_eq!(
            publisher.problems,
            ["2 messages were not acknowledged, and 3 could not be sent"]
        );
    }

    #[tokio::test]
    async fn the_account_names_what_may_have_been_refused_on_a_connection_that_was_lost() {
        let local = Local::unconnected(Spec::now().unwrap()).await;
        let mut publisher = Publisher::new(&local, 0, 0).unwrap();
        let ids = under_way(&mut publisher, 5);
        acknowledge(&mut publisher, &[(ids[0], false)]);
        let repeat = |publisher: &mut Publisher| {
            let number = publisher.outlets[0].numbers;
            let again = publisher.window.in_state(State::UnderWay);
            again.for_each(|(_, sent)| sent.repeat(number));
        };
        // The connection is lost; what was taken on it before is acknowledged as that, the third message is taken now.
        repeat(&mut publisher);
        under_way(&mut publisher, 1);
        acknowledge(&mut publisher, &[(ids[1], true), (ids[2], false)]);
        // It is lost again; nobody knows which attempt it was that came first.
        repeat(&mut publisher);
        acknowledge(&mut publisher, &[(ids[3], true)]);
        // The others are never answered, and may be there.
        let mut now_us = 0;
        let mut pacing = Pacing::new([].into(), 0, (0, 1), 1);
        while let Wait::Until(_) = publisher.end(&mut pacing, now_us, u64::MAX) {
            now_us += 1_000_000;
        }
        let account = publisher.accounts().remove(0);
        assert_eq!(
            account.repeated.into_iter().collect::<Vec<_>>(),
            [(3, 5), (4, 6), (5, 6), (6, 6)]
        );
        assert_eq!(account.unanswered.iter().collect::<Vec<_>>(), [5, 6]);
    }
}
