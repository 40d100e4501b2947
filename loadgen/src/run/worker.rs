//! One thread of the load: a runtime of its own, its connections, and its way through the stages.

use std::cell::{Cell, OnceCell};
use std::rc::Rc;
use std::sync::Arc;

use futures_util::stream::{self, FuturesUnordered, StreamExt, TryStreamExt};
use rialto_protocol::frame::FrameKind;
use rialto_protocol::v1;
use tokio::runtime::Builder;
use tokio::sync::watch;
use tokio::task::{JoinError, JoinHandle, LocalSet};

use super::crew::{Done, Reports};
use super::interval::Tally;
use super::local::{Local, Person};
use super::plan::idle_user;
use super::publisher::Publisher;
use super::reader::Reader;
use super::ticker::Ticker;
use super::{IDLE_SUBSCRIPTIONS, RunError, Shared, Stage};
use crate::checker::Violations;
use crate::wire::connection::{Connection, Scratch, unexpected};
use crate::wire::dial::Dialer;

/// Connections that come about at the same time.
const OPENING_MAX: usize = 64;

/// What a thread is to carry.
pub(super) struct Task {
    pub(super) shared: Arc<Shared>,
    pub(super) stage: watch::Receiver<Stage>,
    /// Publishers by index.
    pub(super) publishers: Vec<usize>,
    /// Readers by index.
    pub(super) readers: Vec<usize>,
    /// Connections that do nothing, by index.
    pub(super) idle: Vec<usize>,
    pub(super) tally: Tally,
    pub(super) reports: Reports,
}

/// Says that its thread has panicked: the coordinator would wait for ever for what that had to say.
struct Witness(Reports);

impl Drop for Witness {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let error = RunError::System("a thread of the load panicked".into());
            let _ = self.0.send(Err(error));
        }
    }
}

/// Runs a thread to its end; what becomes of it is reported.
pub(super) fn run(task: Task) {
    let reports = task.reports.clone();
    let _witness = Witness(reports.clone());
    let result = Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| RunError::System(error.to_string()));
    let result = result.and_then(|runtime| LocalSet::new().block_on(&runtime, stages(task)));
    // Nobody listens any more when another thread has failed.
    let _ = reports.send(result.map(Done::Judged));
}

async fn stages(mut task: Task) -> Result<Violations, RunError> {
    let local = Rc::new(Local {
        dialer: Dialer::new(&task.shared.target, &task.shared.roots).await?,
        scratch: Scratch::new(),
        tally: task.tally.clone(),
        ticker: Ticker::new(task.shared.clock, task.publishers.len())
            .map_err(|error| RunError::System(format!("no timer: {error}")))?,
        shared: task.shared.clone(),
        ends: OnceCell::new(),
        over_us: Cell::new(u64::MAX),
    });
    let publishers = open(&local, &task.publishers).await?;
    task.next(Stage::JOIN).await?;
    let publishers: Vec<(Publisher, Connection)> = stream::iter(publishers)
        .map(|(publisher, mut connection)| async move {
            publisher.join(&mut connection).await?;
            Ok::<_, RunError>((publisher, connection))
        })
        .buffer_unordered(OPENING_MAX)
        .try_collect()
        .await?;
    // From here on they answer for themselves, and are kept alive while others connect.
    let mut publishing: FuturesUnordered<JoinHandle<_>> = publishers
        .into_iter()
        .map(|(publisher, connection)| {
            tokio::task::spawn_local(publisher.publish(connection, task.stage.clone()))
        })
        .collect();
    task.next(Stage::FOLLOW).await?;
    let readers = follow(&local, &task.readers).await?;
    let mut reading: FuturesUnordered<JoinHandle<_>> = readers
        .into_iter()
        .map(|(reader, connection)| {
            tokio::task::spawn_local(reader.read(connection, task.stage.clone()))
        })
        .collect();
    let idle = idle(&local, &task.idle).await?;
    task.next(Stage::LOAD).await?;
    let start_us = task.stage.borrow().load_start_us();
    local.begin(start_us.unwrap_or_default());
    let ticking = local.clone();
    let ticker = tokio::task::spawn_local(async move { ticking.ticker.run().await });
    let ending = local.clone();
    let stage = task.stage.clone();
    let over = tokio::task::spawn_local(async move { ending.over(stage).await });
    let reports = task.reports.clone();
    let published = async {
        let (mut accounts, mut problems) = (Vec::new(), Vec::new());
        while let Some(published) = publishing.next().await {
            let published = published.map_err(|error| failed(&error))??;
            accounts.extend(published.accounts);
            problems.extend(published.problems);
        }
        ticker.abort();
        over.abort();
        let _ = reports.send(Ok(Done::Published(accounts, problems)));
        Ok::<(), RunError>(())
    };
    let judged = async {
        let mut violations = Violations::default();
        while let Some(judged) = reading.next().await {
            violations.add(&judged.map_err(|error| failed(&error))??);
        }
        Ok(violations)
    };
    // A reader that is lost for good ends a load that nobody would judge.
    let ((), violations) = tokio::try_join!(published, judged)?;
    // With no reader there is nothing to wait for, but everybody ends together.
    task.reach(Stage::DRAIN).await?;
    idle.iter().for_each(JoinHandle::abort);
    Ok(violations)
}

fn failed(error: &JoinError) -> RunError {
    RunError::System(format!("a task failed: {error}"))
}

async fn open(
    local: &Rc<Local>,
    indices: &[usize],
) -> Result<Vec<(Publisher, Connection)>, RunError> {
    // In order, because each has its place at the ticker.
    stream::iter(indices.iter().enumerate())
        .map(|(place, index)| async move {
            let publisher = Publisher::new(local, *index, place)?;
            let connection = publisher.open().await?;
            Ok((publisher, connection))
        })
        .buffered(OPENING_MAX)
        .try_collect()
        .await
}

async fn follow(
    local: &Rc<Local>,
    indices: &[usize],
) -> Result<Vec<(Reader, Connection)>, RunError> {
    stream::iter(indices)
        .map(|index| async move {
            let mut reader = Reader::new(local, *index)?;
            let connection = reader.follow().await?;
            Ok((reader, connection))
        })
        .buffer_unordered(OPENING_MAX)
        .try_collect()
        .await
}

/// Connections that are there, and subscribed to a few conversations, and say nothing but Ping.
async fn idle(local: &Rc<Local>, indices: &[usize]) -> Result<Vec<JoinHandle<()>>, RunError> {
    let spec = &local.shared.spec;
    stream::iter(indices)
        .map(|index| async move {
            let number = spec.publishers + spec.readers + index;
            let person = local.person(number, idle_user(*index))?;
            let connection = linger(local, &person).await?;
            Ok(tokio::task::spawn_local(stay(
                local.clone(),
                person,
                connection,
            )))
        })
        .buffer_unordered(OPENING_MAX)
        .try_collect()
        .await
}

async fn stay(local: Rc<Local>, person: Person, mut connection: Connection) {
    loop {
        let lost = connection.keep().await;
        let again = if lost.is_for_good() {
            Err(RunError::Connect(lost))
        } else {
            linger(&local, &person).await
        };
        let mut tally = local.tally.current();
        match again {
            Ok(again) => {
                tally.reconnects += 1;
                connection = again;
            }
            Err(_) => {
                tally.failed += 1;
                return;
            }
        }
    }
}

/// Connects, and follows a few conversations.
async fn linger(local: &Local, person: &Person) -> Result<Connection, RunError> {
    let plan = &local.shared.plan;
    let subscribe = v1::Subscribe {
        subscriptions: (0..plan.conversations().min(IDLE_SUBSCRIPTIONS))
            .map(|place| v1::Subscription {
                conversation: plan.id(place).to_proto(),
                cursor: None,
            })
            .collect(),
    };
    let mut connection = local.connect(person).await?;
    loop {
        connection.put(FrameKind::Subscribe, 1, &subscribe);
        let subscribed = connection.until(|frame| match frame.kind {
            FrameKind::Subscribed => Ok(true),
            FrameKind::Deliver => Ok(false),
            _ => Err(unexpected(frame)),
        });
        match subscribed.await {
            Ok(()) => return Ok(connection),
            Err(lost) => connection = local.reconnect(person, lost).await?,
        }
    }
}

impl Task {
    /// Says that this thread has done its part, and waits for a stage.
    async fn next(&mut self, stage: u8) -> Result<(), RunError> {
        let _ = self.reports.send(Ok(Done::Stage));
        self.reach(stage).await
    }

    async fn reach(&mut self, stage: u8) -> Result<(), RunError> {
        let reached = self.stage.wait_for(|now| now.order() >= stage).await;
        reached
            .map(drop)
            .map_err(|_| RunError::System("the coordinator is gone".into()))
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::mpsc;

    use super::*;

    #[test]
    fn a_thread_that_panics_is_heard_of_and_one_that_ends_is_not() {
        for panics in [true, false] {
            let (reports, mut heard) = mpsc::unbounded_channel();
            let thread = std::thread::spawn(move || {
                let _witness = Witness(reports);
                assert!(!panics, "a planted mistake");
            });
            assert_eq!(thread.join().is_err(), panics);
            let said = heard.try_recv();
            let told = matches!(said, Ok(Err(RunError::System(_))));
            assert_eq!(told, panics, "{said:?}");
        }
    }
}
