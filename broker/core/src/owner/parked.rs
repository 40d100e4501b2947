//! How much work may wait for a read, how much of it may be notices, and how much one user's.

use std::collections::HashMap;

use ahash::RandomState;
use rialto_protocol::ids::UserId;

use super::work::Work;
use crate::{config::CoreConfig, message::ToOwner};

/// What of the shard's budget may be work that waits, beside the limit on its pieces.
const BUDGET_PART: usize = 4;
/// Of that room, one part of so many is for notices: they come again until they are kept, and however many they are, they keep
/// nobody's requests out. The rest is for requests.
const NOTICES_PART: usize = 4;
/// Of the room for requests, one part of so many is for whoever comes. Past that a user has little, so that it takes very many
/// to keep the next one out.
const OPEN_PART: usize = 3;
/// A user's part of the room for requests where that is not enough, one of so many.
const USER_PART: usize = 512;
/// A usual request or two, however small the room is.
const USER_BYTES_MIN: usize = 4 << 10;
/// What a piece takes beside itself: its place in a queue, the read, and the conversation that is being read.
const OVERHEAD_BYTES: usize = 1 << 10;

/// Pieces of work that wait.
#[derive(Debug)]
pub(super) struct Parked {
    notices: Pile,
    requests: Pile,
    /// Of the requests, each user's.
    by_user: HashMap<UserId, Pile, RandomState>,
    /// The most that may wait.
    pub(super) room: Pile,
}

/// So many pieces, and so many bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Pile {
    pub(super) count: usize,
    pub(super) bytes: usize,
}

impl Pile {
    const fn is_within(self, room: Self) -> bool {
        self.count <= room.count && self.bytes <= room.bytes
    }

    const fn and(self, other: Self) -> Self {
        Self {
            count: self.count + other.count,
            bytes: self.bytes + other.bytes,
        }
    }

    const fn without(self, other: Self) -> Self {
        Self {
            count: self.count - other.count,
            bytes: self.bytes - other.bytes,
        }
    }

    /// One part of so many; of pieces there is always one.
    const fn part(self, parts: usize) -> Self {
        Self {
            count: self.count.div_ceil(parts),
            bytes: self.bytes / parts,
        }
    }
}

impl Parked {
    /// None yet.
    pub(super) fn new(config: &CoreConfig) -> Self {
        Self {
            notices: Pile::default(),
            requests: Pile::default(),
            by_user: HashMap::with_hasher(config.hasher()),
            room: Pile {
                count: config.parked_max,
                bytes: config.shard_bytes_max / BUDGET_PART,
            },
        }
    }

    /// How many wait.
    pub(super) const fn count(&self) -> usize {
        self.notices.count + self.requests.count
    }

    /// How many have something that waits.
    #[cfg(test)]
    pub(super) fn users(&self) -> usize {
        self.by_user.len()
    }

    /// Counts one more, unless too much waits; says whether it did.
    pub(super) fn add(&mut self, work: &Work) -> bool {
        let (piece, of_notices) = (weight(work), self.room.part(NOTICES_PART));
        if is_notice(work) {
            let notices = self.notices.and(piece);
            let has_room = notices.is_within(of_notices);
            if has_room {
                self.notices = notices;
            }
            return has_room;
        }
        let room = Pile {
            count: self.room.count.saturating_sub(of_notices.count).max(1),
            bytes: self.room.bytes - of_notices.bytes,
        };
        let open = room.part(OPEN_PART);
        let requests = self.requests.and(piece);
        let user = work.user();
        let of_user = self.by_user.get(&user).copied().unwrap_or_default();
        let of_user = of_user.and(piece);
        let mut part = room.part(USER_PART);
        part.bytes = part.bytes.max(USER_BYTES_MIN);
        let has_room =
            requests.is_within(open) || (requests.is_within(room) && of_user.is_within(part));
        if has_room {
            self.requests = requests;
            self.by_user.insert(user, of_user);
        }
        has_room
    }

    /// One that was counted waits no more.
    pub(super) fn remove(&mut self, work: &Work) {
        let piece = weight(work);
        if is_notice(work) {
            self.notices = self.notices.without(piece);
            return;
        }
        self.requests = self.requests.without(piece);
        let user = work.user();
        if let Some(of_user) = self.by_user.get_mut(&user) {
            *of_user = of_user.without(piece);
            if of_user.count == 0 {
                self.by_user.remove(&user);
            }
        }
    }
}

fn weight(work: &Work) -> Pile {
    Pile {
        count: 1,
        bytes: work.bytes() + OVERHEAD_BYTES,
    }
}

const fn is_notice(work: &Work) -> bool {
    matches!(work.ask, ToOwner::Notify { .. })
}
