//! What the connections of a thread share, and how each of them comes about and comes back.

use std::cell::{Cell, OnceCell};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rialto_protocol::ids::{DeviceId, UserId};
use tokio::sync::watch;

use super::interval::Tally;
use super::schedule::Ends;
use super::ticker::Ticker;
use super::{RunError, Shared, Stage};
use crate::wire::connection::{Connection, Identity, Scratch};
use crate::wire::dial::Dialer;
use crate::wire::lost::Lost;

/// Wait between two attempts to open a connection: a load test comes back sooner than a crowd of phones would.
const AGAIN: Duration = Duration::from_millis(50);

/// The surroundings of a connection.
pub(super) struct Local {
    pub(super) shared: Arc<Shared>,
    pub(super) dialer: Dialer,
    pub(super) scratch: Scratch,
    pub(super) tally: Tally,
    pub(super) ticker: Ticker,
    /// Of the load's phases, once it is known when they begin.
    pub(super) ends: OnceCell<Ends>,
    /// When nothing more will be due, once that is known.
    pub(super) over_us: Cell<u64>,
}

/// A user on a device, who comes back as the same.
pub(super) struct Person {
    /// Number among all connections: what address it comes from.
    pub(super) number: usize,
    pub(super) identity: Identity,
}

impl Local {
    /// The phases of the load begin at this time.
    pub(super) fn begin(&self, start_us: u64) {
        let ends = Ends::of(&self.shared.phases, start_us);
        self.over_us.set(ends.over_us());
        self.ends.get_or_init(|| ends);
    }

    /// Wakes all publishers when the load is over, by its phases or because it is stopped: those that wait for answers look from
    /// then on whether any come.
    pub(super) async fn over(&self, mut stage: watch::Receiver<Stage>) {
        let clock = self.shared.clock;
        let by_phases = async {
            while clock.now_us() < self.over_us.get() {
                tokio::time::sleep(clock.until(self.over_us.get())).await;
            }
        };
        tokio::select! {
            () = by_phases => {}
            stopped = stage.wait_for(|stage| matches!(stage, Stage::Stop { .. })) => {
                if let Ok(Stage::Stop { over_us, .. }) = stopped.as_deref() {
                    self.over_us.set(self.over_us.get().min(*over_us));
                }
            }
        }
        self.ticker.wake_all();
    }

    /// Place of the phase in which something was due at this time.
    #[inline]
    pub(super) fn phase_of(&self, due_us: u64) -> usize {
        self.ends.get().map_or(0, |ends| ends.phase_of(due_us))
    }

    /// Somebody with a device of his own.
    pub(super) fn person(&self, number: usize, user: UserId) -> Result<Person, RunError> {
        let identity = Identity {
            token: self.shared.tokens.of(user),
            device: DeviceId::v4(random()?),
        };
        Ok(Person { number, identity })
    }

    /// A connection of his, as soon as there is one; fails when the broker refuses for good, or patience has run out.
    pub(super) async fn connect(&self, person: &Person) -> Result<Connection, RunError> {
        let begun = Instant::now();
        loop {
            let opening =
                Connection::open(&self.dialer, &self.scratch, person.number, &person.identity);
            let lost = match Box::pin(opening).await {
                Ok(connection) => {
                    self.tally.current().connected += 1;
                    return Ok(connection);
                }
                Err(lost) => lost,
            };
            if lost.is_for_good() || begun.elapsed() > self.shared.spec.patience {
                return Err(RunError::Connect(lost));
            }
            let asked = Duration::from_millis(lost.retry_after_ms().into());
            tokio::time::sleep(AGAIN.max(asked)).await;
        }
    }

    /// A connection again, after one was lost.
    pub(super) async fn reconnect(
        &self,
        person: &Person,
        lost: Lost,
    ) -> Result<Connection, RunError> {
        if lost.is_for_good() {
            return Err(RunError::Connect(lost));
        }
        // What the connection rests on may have been refused for now, such as a subscription.
        tokio::time::sleep(Duration::from_millis(lost.retry_after_ms().into())).await;
        let connection = self.connect(person).await?;
        self.tally.current().reconnects += 1;
        Ok(connection)
    }
}

/// Random bytes of the system.
pub(super) fn random<const N: usize>() -> Result<[u8; N], RunError> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|error| RunError::System(error.to_string()))?;
    Ok(bytes)
}

#[cfg(test)]
impl Local {
    /// The surroundings of connections that do not come about.
    pub(super) async fn unconnected(spec: super::Spec) -> std::rc::Rc<Self> {
        let target = "tcp://127.0.0.1:1".parse().unwrap();
        let roots = rialto_sdk::Roots::InsecureLoopbackOnly;
        let dialer = Dialer::new(&target, &roots).await.unwrap();
        let tokens = crate::tokens::Tokens::Development;
        let shared = Arc::new(Shared::new(target, tokens, roots, spec, 0));
        std::rc::Rc::new(Self {
            dialer,
            scratch: Scratch::new(),
            tally: Tally::default(),
            ticker: Ticker::new(shared.clock, 0).unwrap(),
            ends: OnceCell::new(),
            over_us: Cell::new(u64::MAX),
            shared,
        })
    }
}
