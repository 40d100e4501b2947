//! Presence as the edge sees it: what its sessions say of their users, and whose presence they watch. The whole picture of
//! a user is kept at his home: [`super::home`].

use std::collections::{BTreeSet, HashMap};

use ahash::RandomState;
use rialto_protocol::{
    error::ErrorCode,
    frame::{self, FrameKind},
    ids::{RequestId, UserId},
    limits, v1,
};
use smallvec::{SmallVec, smallvec};

use super::{
    Edge, check,
    requests::{Call, Refusal},
    telling::Telling,
};
use crate::{
    config::CoreConfig,
    effects::Effects,
    io::{ConnId, Now},
    message::{Message, Origin, PresenceOf, ToHome},
    topology::ShardId,
};

/// What a Watch keeps of each of its users until it is answered: his id in its list, at his home, and in the read there, which
/// is there three times; and the answer.
const WAITING_BYTES: usize = 5 * size_of::<UserId>() + size_of::<PresenceOf>();
/// What it takes that a connection watches a user: a place in its list, and one among his watchers.
const WATCHER_BYTES: usize = 32;
/// What it takes that a user is watched, here and at his home, about.
const WATCHED_BYTES: usize = 384;
/// What of the shard's budget that may be, beside it. Half goes to whoever comes, and past that nobody has more than an equal part
/// of the other half.
const WATCHING_PART: usize = 4;

/// The sessions' users, and those they watch.
#[derive(Debug)]
pub(super) struct Presence {
    here: HashMap<UserId, Here, RandomState>,
    watched: HashMap<UserId, Watched, RandomState>,
    /// What those who are watched take, and may.
    watched_bytes: usize,
    watched_bytes_max: usize,
    pub(super) telling: Telling,
}

/// A user's sessions at this edge.
#[derive(Clone, Copy, Debug, Default)]
struct Here {
    sessions: u32,
    /// Of these, not away.
    online: u32,
}

/// A user whom sessions at this edge watch.
#[derive(Debug, Default)]
struct Watched {
    by: BTreeSet<ConnId>,
    /// As his home told it last; none: when he was last seen could not be read.
    last: Option<Shown>,
    /// As all who watch him were told last; none: they were told different things.
    told: Option<Shown>,
}

/// What others see of a user.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Shown {
    state: v1::PresenceState,
    last_seen_ms: u64,
}

/// A Watch that is not answered.
#[derive(Debug)]
pub(super) struct WaitingWatch {
    request: RequestId,
    cost: u32,
    /// Homes that have not answered.
    missing: usize,
    /// Rising.
    users: Box<[UserId]>,
    /// What the homes said; what they said last stands in [`Watched`], while the user is still watched.
    told: Vec<PresenceOf>,
}

impl WaitingWatch {
    /// The credit that it holds, and how many homes are still to answer it.
    pub(super) fn held(&self) -> (usize, usize) {
        (self.cost as usize, self.missing)
    }
}

impl Here {
    fn state(self) -> v1::PresenceState {
        match self {
            Self { sessions: 0, .. } => v1::PresenceState::Offline,
            Self { online: 0, .. } => v1::PresenceState::Away,
            _ => v1::PresenceState::Online,
        }
    }
}

impl Presence {
    pub(super) fn new(config: &CoreConfig) -> Self {
        let hasher = config.hasher();
        Self {
            here: HashMap::with_hasher(hasher.clone()),
            watched: HashMap::with_hasher(hasher.clone()),
            watched_bytes: 0,
            watched_bytes_max: config.shard_bytes_max / WATCHING_PART,
            telling: Telling::new(hasher),
        }
    }

    /// A session opened, online. As all changes: returns the user's state here if it is another now.
    pub(super) fn joined(&mut self, user: UserId) -> Option<v1::PresenceState> {
        self.change(user, |here| {
            here.sessions += 1;
            here.online += 1;
        })
    }

    /// A session is gone.
    pub(super) fn left(&mut self, user: UserId, was_away: bool) -> Option<v1::PresenceState> {
        self.change(user, |here| {
            here.sessions -= 1;
            here.online -= u32::from(!was_away);
        })
    }

    fn turned(&mut self, user: UserId, away: bool) -> Option<v1::PresenceState> {
        self.change(user, |here| {
            if away {
                here.online -= 1;
            } else {
                here.online += 1;
            }
        })
    }

    fn change(
        &mut self,
        user: UserId,
        change: impl FnOnce(&mut Here),
    ) -> Option<v1::PresenceState> {
        let here = self.here.entry(user).or_default();
        let before = here.state();
        change(here);
        let after = here.state();
        if after == v1::PresenceState::Offline {
            self.here.remove(&user);
        }
        (after != before).then_some(after)
    }

    /// Makes the connection one of the user's watchers; returns what his home told last.
    pub(super) fn watch(&mut self, conn: ConnId, user: UserId) -> Option<PresenceOf> {
        let watched = self.watched.entry(user).or_insert_with(|| {
            self.watched_bytes += WATCHED_BYTES;
            Watched::default()
        });
        if watched.by.insert(conn) {
            self.watched_bytes += WATCHER_BYTES;
        }
        watched.last.map(|last| last.of(user))
    }

    /// Takes the connection off the user's watchers; says whether it was the last.
    fn unwatch(&mut self, conn: ConnId, user: UserId) -> bool {
        let Some(watched) = self.watched.get_mut(&user) else {
            return false;
        };
        if watched.by.remove(&conn) {
            self.watched_bytes -= WATCHER_BYTES;
        }
        let was_last = watched.by.is_empty();
        if was_last {
            self.watched.remove(&user);
            self.watched_bytes -= WATCHED_BYTES;
        }
        was_last
    }

    /// Whether a connection's list may become another, both rising; there are so many sessions.
    fn has_room(
        &self,
        conn: ConnId,
        (former, users): (&[UserId], &[UserId]),
        sessions: u64,
    ) -> bool {
        let half = self.watched_bytes_max / 2;
        if self.watched_bytes + users.len() * (WATCHER_BYTES + WATCHED_BYTES) <= half {
            return true;
        }
        let missing_in = |list: &[UserId], users: &[UserId]| -> usize {
            let missing = users
                .iter()
                .filter(|user| list.binary_search(user).is_err());
            missing.map(|user| self.bytes_of(conn, *user)).sum()
        };
        let (more, less) = (missing_in(former, users), missing_in(users, former));
        let bytes = self.watched_bytes + more - less;
        let part = half / usize::try_from(sessions).unwrap_or(usize::MAX).max(1);
        more <= less
            || bytes <= half
            || (bytes <= self.watched_bytes_max && missing_in(&[], users) <= part)
    }

    /// What those who are watched take.
    #[cfg(test)]
    pub(super) fn watched_bytes(&self) -> usize {
        self.watched_bytes
    }

    /// What it takes that a connection watches a user, whom it does or does not.
    fn bytes_of(&self, conn: ConnId, user: UserId) -> usize {
        let others = self
            .watched
            .get(&user)
            .is_some_and(|watched| watched.by.len() > usize::from(watched.by.contains(&conn)));
        if others {
            WATCHER_BYTES
        } else {
            WATCHER_BYTES + WATCHED_BYTES
        }
    }

    /// What a home says of a user; by the first `answer` those are told who have asked.
    fn learn(&mut self, presence: PresenceOf, answer: bool) {
        let Some(watched) = self.watched.get_mut(&presence.user) else {
            return;
        };
        let Some(shown) = Shown::from(presence) else {
            return;
        };
        let former = watched.last.replace(shown);
        if answer && former.is_none() {
            watched.told = watched.last;
        }
        if watched.told != watched.last {
            self.telling.add(presence.user);
        }
    }

    /// How a user is, for one of his watchers alone.
    fn told_apart(&mut self, user: UserId) -> Option<PresenceOf> {
        let watched = self.watched.get_mut(&user)?;
        if watched.told != watched.last {
            // Should he be as the others know him again before they are told, this one has to be.
            watched.told = None;
        }
        watched.last.map(|last| last.of(user))
    }

    /// How a user is, if that is not what his watchers were told; and how many they are.
    pub(super) fn untold(&self, user: UserId) -> Option<(PresenceOf, usize)> {
        let watched = self.watched.get(&user)?;
        let last = watched.last.filter(|_| watched.told != watched.last)?;
        Some((last.of(user), watched.by.len()))
    }

    /// Takes in that a user's watchers are told, and says who they are.
    pub(super) fn told(&mut self, presence: PresenceOf) -> Option<&BTreeSet<ConnId>> {
        let watched = self.watched.get_mut(&presence.user)?;
        watched.told = Shown::from(presence);
        Some(&watched.by)
    }
}

impl Shown {
    fn of(self, user: UserId) -> PresenceOf {
        PresenceOf {
            user,
            state: self.state,
            last_seen_ms: Some(self.last_seen_ms),
        }
    }

    /// `None`: it is not known as a whole.
    fn from(presence: PresenceOf) -> Option<Self> {
        Some(Self {
            state: presence.state,
            last_seen_ms: presence.last_seen_ms?,
        })
    }
}

impl Edge {
    pub(super) fn set_presence(
        &mut self,
        now: Now,
        call: Call,
        body: v1::SetPresence,
        fx: &mut Effects,
    ) -> Result<(), Refusal> {
        let away = match v1::PresenceState::try_from(body.state) {
            Ok(v1::PresenceState::Online) => false,
            Ok(v1::PresenceState::Away) => true,
            _ => return Err(ErrorCode::InvalidField.into()),
        };
        if let Some(session) = self.conns.open_mut(call.conn)
            && session.away != away
        {
            session.away = away;
            let state = self.presence.turned(call.user, away);
            self.report(now, call.user, state, fx);
        }
        self.done(call.conn, call.request, fx);
        Ok(())
    }

    /// Replaces the list of watched users; answered when the homes of those not watched before have told.
    pub(super) fn watch(
        &mut self,
        call: Call,
        body: &v1::Watch,
        fx: &mut Effects,
    ) -> Result<(), Refusal> {
        if body.users.len() > limits::WATCHED_USERS_MAX {
            return Err(ErrorCode::TooManyItems.into());
        }
        self.costs(call, body.users.len());
        let mut users = body
            .users
            .iter()
            .map(check::user)
            .collect::<Result<Vec<UserId>, ErrorCode>>()?;
        users.sort_unstable();
        users.dedup();
        let Some(session) = self.conns.open_mut(call.conn) else {
            return Ok(());
        };
        let lists = (&session.watched[..], &users[..]);
        if !self.presence.has_room(call.conn, lists, self.open) {
            return Err(ErrorCode::Overloaded.into());
        }
        let call = call.holding(users.len() * WAITING_BYTES);
        let former = std::mem::replace(&mut session.watched, users.clone().into_boxed_slice());
        let dropped: Vec<UserId> = former
            .iter()
            .filter(|user| users.binary_search(user).is_err())
            .copied()
            .collect();
        self.unwatch(call.conn, &dropped, fx);
        let mut unknown = Vec::new();
        for user in &users {
            if self.presence.watch(call.conn, *user).is_none() {
                unknown.push(*user);
            }
        }
        let asked = self.by_home(&unknown);
        let (request, cost) = (call.request, call.cost);
        let waiting = WaitingWatch {
            request,
            cost,
            missing: asked.len(),
            users: users.into_boxed_slice(),
            told: Vec::new(),
        };
        self.charge(call.conn, cost as usize);
        let origin = Origin {
            cost: 0,
            ..self.origin(call)
        };
        for (home, users) in asked {
            fx.send(home, Message::ToHome(ToHome::Watch { origin, users }));
        }
        if waiting.missing == 0 {
            self.answer_watch(call.conn, waiting, fx);
        } else if let Some(session) = self.conns.open_mut(call.conn) {
            session.work().watches.push(waiting);
        }
        Ok(())
    }

    /// The connection does not watch these users any more.
    pub(super) fn unwatch(&mut self, conn: ConnId, users: &[UserId], fx: &mut Effects) {
        let forgotten: Vec<UserId> = users
            .iter()
            .filter(|user| self.presence.unwatch(conn, **user))
            .copied()
            .collect();
        for (home, users) in self.by_home(&forgotten) {
            fx.send(
                home,
                Message::ToHome(ToHome::Unwatch {
                    edge: self.id,
                    users,
                }),
            );
        }
    }

    /// A home answers a Watch, or tells of a change.
    pub(super) fn presences(
        &mut self,
        now: Now,
        origin: Option<Origin>,
        presences: &[PresenceOf],
        fx: &mut Effects,
    ) {
        for presence in presences {
            self.presence.learn(*presence, origin.is_some());
        }
        match origin {
            Some(origin) => self.home_told(origin, presences, fx),
            None => self.tell_watchers(now, fx),
        }
    }

    fn home_told(&mut self, origin: Origin, presences: &[PresenceOf], fx: &mut Effects) {
        self.conns.part_answered(origin.conn, fx);
        let Some(session) = self.conns.open_mut(origin.conn) else {
            return;
        };
        let Some(work) = session.work_if_any() else {
            return;
        };
        let Some(place) = work
            .watches
            .iter()
            .position(|waiting| waiting.request == origin.request)
        else {
            return;
        };
        let waiting = &mut work.watches[place];
        waiting.told.extend_from_slice(presences);
        waiting.missing -= 1;
        if waiting.missing == 0 {
            let waiting = work.watches.remove(place);
            session.rest();
            self.answer_watch(origin.conn, waiting, fx);
        }
    }

    fn answer_watch(&mut self, conn: ConnId, mut waiting: WaitingWatch, fx: &mut Effects) {
        waiting.told.sort_unstable_by_key(|presence| presence.user);
        let presences = waiting.users.iter().map(|user| {
            let newest = self.presence.told_apart(*user);
            let told = || {
                let place = waiting
                    .told
                    .binary_search_by_key(user, |presence| presence.user);
                place.ok().map(|place| waiting.told[place])
            };
            let unknown = PresenceOf {
                user: *user,
                state: v1::PresenceState::Offline,
                last_seen_ms: None,
            };
            newest.or_else(told).unwrap_or(unknown).to_proto()
        });
        let answer = v1::Presences {
            presences: presences.collect(),
        };
        self.send_answer(
            conn,
            frame::encode(FrameKind::Presences, waiting.request, &answer),
            fx,
        );
        self.credit(conn, waiting.cost, fx);
    }

    fn by_home(&self, users: &[UserId]) -> SmallVec<[(ShardId, Vec<UserId>); 4]> {
        let mut homes: SmallVec<[(ShardId, Vec<UserId>); 4]> = smallvec![];
        for user in users {
            let home = self.topology.home_of(user);
            match homes.iter_mut().find(|(shard, _)| *shard == home) {
                Some((_, users)) => users.push(*user),
                None => homes.push((home, vec![*user])),
            }
        }
        homes
    }
}

impl PresenceOf {
    pub(super) fn to_proto(self) -> v1::Presence {
        v1::Presence {
            user: self.user.to_proto(),
            state: self.state as i32,
            last_seen_ms: self.last_seen_ms.unwrap_or(0),
        }
    }
}
