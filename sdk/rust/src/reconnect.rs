//! When to connect again, and where.

use std::time::Duration;

use rialto_protocol::v1;
use tokio::time::Instant;

use crate::client_id;
use crate::endpoint::{Endpoint, Transport};

/// Longest time for the answers of a connection that is to be left.
const LEAVE_PATIENCE: Duration = Duration::from_secs(2);
/// A connection that held this long starts the count of attempts anew.
const STABLE: Duration = Duration::from_secs(10);

/// How the client connects again: after a random time in `[0, min(max_ms, base_ms * 2^attempts)]` ("full jitter"), so that
/// the clients of a broker that went away do not come back all at once; that long after the time that a broker asked for which
/// refused the connection, and never later than `max_ms`. A broker that sends its clients away names a moment for it, which is
/// kept to; should the connection break before and the moment be further away than `max_ms`, it is a random time in
/// `[0, max_ms]` instead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReconnectPolicy {
    /// Longest wait before the first attempt, milliseconds. 250 by default.
    pub base_ms: u64,
    /// Longest wait before any attempt, milliseconds. 20,000 by default.
    pub max_ms: u64,
    /// Attempts in a row after which the client gives up and closes; none by default: it never does.
    pub attempts_max: Option<u32>,
}

impl Default for ReconnectPolicy {
    fn default() -> Self {
        Self {
            base_ms: 250,
            max_ms: 20_000,
            attempts_max: None,
        }
    }
}

impl ReconnectPolicy {
    /// Longest wait after so many attempts that failed.
    fn ceiling_ms(&self, failed: u32) -> u64 {
        let factor = 1_u64.checked_shl(failed.min(63)).unwrap_or(u64::MAX);
        self.base_ms.saturating_mul(factor).min(self.max_ms)
    }
}

/// Random in `[0, max_ms]`.
pub(crate) fn jitter(max_ms: u64) -> Duration {
    Duration::from_millis(random_up_to(max_ms))
}

/// Random in `[0, max]`.
fn random_up_to(max: u64) -> u64 {
    // Without randomness, the middle: late rather than all at once at the beginning.
    let random = client_id::random::<8>().map_or(u64::MAX / 2, u64::from_le_bytes);
    // The high half of the product of two 64-bit numbers is below the second.
    let scaled = (u128::from(random) * (u128::from(max) + 1)) >> 64;
    u64::try_from(scaled).unwrap_or(max)
}

/// What is known about the next connection.
#[derive(Debug)]
pub(crate) struct Reconnect {
    policy: ReconnectPolicy,
    endpoints: Vec<Endpoint>,
    /// Where the server ended a connection for good. Not to be tried until one has held somewhere else.
    shunned: Vec<Endpoint>,
    failed: u32,
    since: Option<Instant>,
    go_away: Option<GoAwayPlan>,
    /// What a server that refused the last connection asked for.
    advised: Duration,
}

#[derive(Debug)]
struct GoAwayPlan {
    at: Instant,
    endpoints: Vec<Endpoint>,
}

impl Reconnect {
    pub(crate) const fn new(policy: ReconnectPolicy, endpoints: Vec<Endpoint>) -> Self {
        Self {
            policy,
            endpoints,
            shunned: Vec::new(),
            failed: 0,
            since: None,
            go_away: None,
            advised: Duration::ZERO,
        }
    }

    /// The server has refused or ended the connection, and perhaps said when to come back: not much later than that, and no
    /// sooner. It cannot keep the client away for longer than the policy does.
    pub(crate) fn refused(&mut self, retry_after: Option<Duration>) {
        self.advised = retry_after.unwrap_or_default();
    }

    /// A connection is there.
    pub(crate) fn connected(&mut self, now: Instant) {
        self.since = Some(now);
        self.go_away = None;
    }

    /// The connection is gone. The first failure after a time of peace is no reason to hurry less.
    pub(crate) fn disconnected(&mut self, now: Instant) {
        if self.since.take().is_some_and(|since| now - since >= STABLE) {
            self.failed = 0;
            self.shunned.clear();
        }
    }

    /// The server there has ended a connection and would end the next one. Whether there is another endpoint to be tried.
    pub(crate) fn shun(&mut self, endpoint: Endpoint) -> bool {
        self.shunned.push(endpoint);
        let mut endpoints = self.endpoints.iter();
        endpoints.any(|endpoint| !self.shunned.contains(endpoint))
    }

    /// Notes that the server wants the client elsewhere, at a random moment of the window. When that is.
    pub(crate) fn go_away(&mut self, push: &v1::GoAway, now: Instant) -> Duration {
        let after = Duration::from_millis(push.reconnect_after_ms.into())
            + jitter(push.reconnect_window_ms.into());
        let plain_allowed = self
            .endpoints
            .iter()
            .any(|endpoint| endpoint.transport() == Transport::Tcp);
        let endpoints = push.endpoints.iter().filter_map(|text| text.parse().ok());
        // A server may not talk a client out of encryption.
        let endpoints = endpoints
            .filter(|endpoint: &Endpoint| plain_allowed || endpoint.transport() != Transport::Tcp);
        let mut endpoints: Vec<_> = endpoints.collect();
        // Any of them will do: not everybody's first choice is to be the same.
        if let Some(last) = endpoints.len().checked_sub(1) {
            let first = usize::try_from(random_up_to(last as u64)).unwrap_or(last);
            endpoints.rotate_left(first);
        }
        self.go_away = Some(GoAwayPlan {
            at: now + after,
            endpoints,
        });
        after
    }

    /// Whether the server's moment to leave has come: nothing more is asked of it.
    pub(crate) fn is_leaving(&self, now: Instant) -> bool {
        self.go_away.as_ref().is_some_and(|plan| plan.at <= now)
    }

    /// When to look again whether to leave a connection whose server wants that: at its moment, and then when there was time
    /// enough for what was under way.
    pub(crate) fn leave_due(&self, now: Instant) -> Option<Instant> {
        let at = self.go_away.as_ref()?.at;
        Some(if at <= now { at + LEAVE_PATIENCE } else { at })
    }

    /// Whether the time for what was under way is over too.
    pub(crate) fn is_to_leave(&self, now: Instant) -> bool {
        self.leave_due(now).is_some_and(|at| at <= now)
    }

    /// The next attempt: when, where, and its number; none when the policy has had enough.
    pub(crate) fn next(&mut self, now: Instant) -> Option<(Instant, Vec<Endpoint>, u32)> {
        if self
            .policy
            .attempts_max
            .is_some_and(|attempts_max| self.failed >= attempts_max)
        {
            return None;
        }
        let plan = self.go_away.take();
        let advised = std::mem::take(&mut self.advised);
        let backoff = jitter(self.policy.ceiling_ms(self.failed));
        let max = Duration::from_millis(self.policy.max_ms);
        let at = match &plan {
            // The connection broke long before that moment, which was for leaving it. Over all of the time, since many were told.
            Some(plan) if plan.at.saturating_duration_since(now) > max => {
                now + jitter(self.policy.max_ms)
            }
            Some(plan) if self.failed == 0 => plan.at.max(now),
            // It sends away whoever comes.
            Some(plan) => plan.at.max(now) + backoff,
            None => now + (advised + backoff).min(max),
        };
        self.failed = self.failed.saturating_add(1);
        let mut endpoints = plan.map(|plan| plan.endpoints).unwrap_or_default();
        for endpoint in &self.endpoints {
            if !endpoints.contains(endpoint) {
                endpoints.push(endpoint.clone());
            }
        }
        endpoints.retain(|endpoint| !self.shunned.contains(endpoint));
        Some((at, endpoints, self.failed))
    }

    /// Attempts that failed in a row.
    pub(crate) const fn failed(&self) -> u32 {
        self.failed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn assert_spread_over_a_second(waits: &[Duration; 200]) {
        assert!(
            waits
                .iter()
                .all(|wait| *wait <= Duration::from_millis(1_000))
        );
        // One in 2^200 runs has all of them on one side.
        assert!(waits.iter().any(|wait| *wait < Duration::from_millis(500)));
        assert!(waits.iter().any(|wait| *wait > Duration::from_millis(500)));
    }

    fn reconnect(endpoint: &str, attempts_max: Option<u32>) -> Reconnect {
        let policy = ReconnectPolicy {
            base_ms: 100,
            max_ms: 1_000,
            attempts_max,
        };
        Reconnect::new(policy, vec![endpoint.parse().unwrap()])
    }

    #[test]
    fn waits_are_spread_over_the_whole_range_and_never_beyond() {
        let now = Instant::now();
        let mut waits = [Duration::ZERO; 200];
        for wait in &mut waits {
            let mut reconnect = reconnect("tcp://h:1", None);
            for _ in 0..8 {
                *wait = reconnect.next(now).unwrap().0 - now;
            }
        }
        assert_spread_over_a_second(&waits);
    }

    #[test]
    fn the_range_doubles_with_each_failure_up_to_its_limit() {
        let policy = ReconnectPolicy {
            base_ms: 100,
            max_ms: 1_000,
            attempts_max: None,
        };
        assert_eq!(
            [0, 1, 2, 3, 4, 200].map(|failed| policy.ceiling_ms(failed)),
            [100, 200, 400, 800, 1_000, 1_000]
        );
        let huge = ReconnectPolicy {
            base_ms: u64::MAX,
            max_ms: u64::MAX,
            attempts_max: None,
        };
        assert_eq!(huge.ceiling_ms(5), u64::MAX);
        assert!(jitter(0).is_zero());
    }

    #[test]
    fn a_server_that_says_when_to_come_back_is_heard_once_and_within_the_policy() {
        let (mut reconnect, now) = (reconnect("tcp://h:1", None), Instant::now());
        let ms = Duration::from_millis;
        reconnect.refused(Some(ms(700)));
        let wait = reconnect.next(now).unwrap().0 - now;
        assert!(wait >= ms(700) && wait <= ms(800), "{wait:?}");
        assert!(reconnect.next(now).unwrap().0 - now <= ms(200));
        reconnect.refused(Some(Duration::MAX / 2));
        assert_eq!(reconnect.next(now).unwrap().0 - now, ms(1_000));
        reconnect.refused(None);
        assert!(reconnect.next(now).unwrap().0 - now <= ms(800));
    }

    #[test]
    fn only_a_connection_that_held_starts_the_count_anew() {
        let (mut reconnect, now) = (reconnect("tcp://h:1", Some(3)), Instant::now());
        for _ in 0..2 {
            assert!(reconnect.next(now).is_some());
            reconnect.connected(now);
            reconnect.disconnected(now + STABLE / 2);
        }
        reconnect.connected(now);
        reconnect.disconnected(now + STABLE);
        assert_eq!(reconnect.failed(), 0);
        assert_eq!((0..4).map_while(|_| reconnect.next(now)).count(), 3);
    }

    #[test]
    fn an_endpoint_that_refused_for_good_is_tried_again_when_another_one_has_held() {
        let (mut reconnect, now) = (reconnect("tcp://h:1", None), Instant::now());
        let parsed = |text: &str| text.parse::<Endpoint>().unwrap();
        let (one, other) = (parsed("tcp://h:1"), parsed("tcp://h:2"));
        reconnect.endpoints.push(other.clone());
        assert!(reconnect.shun(one.clone()));
        for _ in 0..2 {
            assert_eq!(reconnect.next(now).unwrap().1, std::slice::from_ref(&other));
            reconnect.connected(now);
            reconnect.disconnected(now + STABLE / 2);
        }
        reconnect.connected(now);
        reconnect.disconnected(now + STABLE);
        assert_eq!(reconnect.next(now).unwrap().1.len(), 2);
        assert!(reconnect.shun(other));
        assert!(!reconnect.shun(one), "there is none left");
    }

    #[test]
    fn a_server_that_sends_everybody_away_is_not_come_back_to_as_fast_as_it_does() {
        let (mut reconnect, now) = (reconnect("tcp://h:1", None), Instant::now());
        let mut waits = [Duration::ZERO; 100];
        for wait in &mut waits {
            reconnect.go_away(&v1::GoAway::default(), now);
            *wait = reconnect.next(now).unwrap().0 - now;
            reconnect.connected(now);
            reconnect.disconnected(now + STABLE / 2);
        }
        assert!(waits[0].is_zero(), "the first is believed");
        let sum: Duration = waits.iter().sum();
        assert!(sum > Duration::from_secs(10), "{sum:?}");
    }

    #[test]
    fn what_is_under_way_has_some_time_after_the_moment_to_leave_and_no_more() {
        let (mut reconnect, now) = (reconnect("tcp://h:1", None), Instant::now());
        assert_eq!(reconnect.leave_due(now), None);
        let push = v1::GoAway {
            reconnect_after_ms: 1_000,
            ..v1::GoAway::default()
        };
        reconnect.go_away(&push, now);
        let moment = now + Duration::from_secs(1);
        assert_eq!(reconnect.leave_due(now), Some(moment));
        assert!(!reconnect.is_leaving(now));
        let end = moment + LEAVE_PATIENCE;
        assert_eq!(reconnect.leave_due(moment), Some(end));
        assert!(reconnect.is_leaving(moment) && !reconnect.is_to_leave(moment));
        assert!(reconnect.is_to_leave(end));
        reconnect.connected(end);
        assert!(!reconnect.is_leaving(end) && !reconnect.is_to_leave(end));
    }

    #[test]
    fn a_moment_to_leave_that_is_far_off_keeps_nobody_away_whose_connection_broke_before() {
        let (mut reconnect, now) = (reconnect("tcp://h:1", None), Instant::now());
        let push = v1::GoAway {
            reconnect_after_ms: u32::MAX,
            endpoints: vec!["tcp://other:1".into()],
            ..v1::GoAway::default()
        };
        let mut waits = [Duration::ZERO; 200];
        for wait in &mut waits {
            reconnect.go_away(&push, now);
            let (at, endpoints, _) = reconnect.next(now).unwrap();
            assert_eq!(endpoints.len(), 2, "the place holds all the same");
            *wait = at - now;
        }
        assert_spread_over_a_second(&waits);
    }

    #[test]
    fn go_away_sets_the_time_and_the_place_but_not_the_encryption() {
        let (mut secure, now) = (reconnect("tls://h:1", None), Instant::now());
        let push = v1::GoAway {
            reconnect_after_ms: 400,
            reconnect_window_ms: 500,
            endpoints: vec![
                "tcp://other:1".into(),
                "quic://other:2".into(),
                "nonsense".into(),
            ],
            ..v1::GoAway::default()
        };
        let after = secure.go_away(&push, now);
        assert!(after >= Duration::from_millis(400) && after <= Duration::from_millis(900));
        let (at, endpoints, _) = secure.next(now).unwrap();
        assert_eq!(at, now + after);
        assert_eq!(
            endpoints
                .iter()
                .map(ToString::to_string)
                .collect::<Vec<_>>(),
            ["quic://other:2", "tls://h:1"]
        );
        assert_eq!(
            secure.next(now).unwrap().1.len(),
            1,
            "the advice is followed once"
        );
        let mut plain = reconnect("tcp://h:1", None);
        plain.go_away(&push, now);
        assert_eq!(plain.next(now).unwrap().1.len(), 3);
    }
}
