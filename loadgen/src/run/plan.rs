//! Who publishes where, and who follows what: made anew by every thread from the same few numbers.

use std::collections::BTreeSet;
use std::sync::Arc;

use rialto_protocol::ids::{ConversationId, UserId};
use rialto_protocol::v1::{ConversationKind, Create, Visibility};

use super::body::mix;
use super::choice::{Choice, Turn, Weighted};
use super::shape::{Part, Shape};

/// Random picks for each thread that a reader is to follow, before the most frequent ones are taken that are left.
const PICKS_PER_FOLLOWED: usize = 8;

/// The conversations of a run.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    run: u64,
    epoch_us: u64,
    publishers: usize,
    readers: usize,
    ranges: Vec<Range>,
}

/// The conversations of a part, which have places after each other.
#[derive(Clone, Debug)]
struct Range {
    start: usize,
    count: usize,
    part: Part,
    /// Of threads.
    law: Arc<Weighted>,
}

/// What a publisher does before the load: conversations by their place in the run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Duties {
    /// Conversations that it opens.
    pub(super) opens: Vec<usize>,
    /// Those that another one opens, and it enters.
    pub(super) joins: Vec<usize>,
}

impl Plan {
    /// Of the run with this number and epoch.
    pub(super) fn new(
        run: u64,
        epoch_us: u64,
        publishers: usize,
        readers: usize,
        parts: &[Part],
    ) -> Self {
        let mut start = 0;
        let ranges = parts.iter().map(|part| {
            let count = part.shape.count();
            let law = match part.shape {
                Shape::Threads { zipf, .. } => Weighted::zipf(count, zipf),
                _ => Weighted::default(),
            };
            start += count;
            Range {
                start: start - count,
                count,
                part: *part,
                law: Arc::new(law),
            }
        });
        Self {
            run,
            epoch_us,
            publishers,
            readers,
            ranges: ranges.collect(),
        }
    }

    /// How many conversations there are.
    pub(super) fn conversations(&self) -> usize {
        self.ranges.iter().map(|range| range.count).sum()
    }

    /// The id of a conversation.
    pub(super) fn id(&self, place: usize) -> ConversationId {
        let mut entropy = [0; 10];
        entropy[..8].copy_from_slice(&mix(mix(self.run) ^ place as u64).to_le_bytes());
        entropy[8..].copy_from_slice(&mix(self.run ^ !(place as u64)).to_le_bytes()[..2]);
        ConversationId::v7(self.epoch_us / 1000, entropy)
    }

    /// What a publisher opens and enters.
    pub(super) fn duties(&self, publisher: usize) -> Duties {
        let mut duties = Duties::default();
        for range in &self.ranges {
            let place = |number| range.start + number;
            let every = |first: usize| (first..range.count).step_by(self.publishers).map(place);
            match range.part.shape {
                Shape::Channels { .. } => {
                    duties.opens.extend(every(publisher));
                    if publisher >= range.count {
                        duties.joins.push(place(publisher % range.count));
                    }
                }
                Shape::Groups { .. } => duties.opens.extend(every(publisher)),
                Shape::Threads { .. } => {
                    let hot = self.hot(range);
                    duties
                        .opens
                        .extend((publisher < hot).then(|| place(publisher)));
                    duties.opens.extend(every(hot + publisher));
                    duties
                        .joins
                        .extend((0..hot).filter(|rank| *rank != publisher).map(place));
                }
            }
        }
        duties
    }

    /// The conversations that a publisher writes to, and how it chooses among them.
    pub(super) fn outlets(&self, publisher: usize) -> (Vec<usize>, Choice) {
        let (mut outlets, mut parts) = (Vec::new(), Vec::new());
        for range in &self.ranges {
            let before = outlets.len();
            let every = |first: usize| (first..range.count).step_by(self.publishers);
            let turn = if let Shape::Threads { .. } = range.part.shape {
                let hot = self.hot(range);
                outlets.extend((0..hot).chain(every(hot + publisher)));
                Turn::Law {
                    law: range.law.clone(),
                    hot,
                    stride: self.publishers,
                }
            } else {
                outlets.extend(every(publisher));
                if publisher >= range.count {
                    outlets.push(publisher % range.count);
                }
                Turn::Round { next: 0 }
            };
            for outlet in &mut outlets[before..] {
                *outlet += range.start;
            }
            parts.push((range.part.share, outlets.len() - before, turn));
        }
        (outlets, Choice::new(parts, self.run ^ publisher as u64))
    }

    /// Threads that every publisher writes to; the rest is shared out, or a run would begin with publishers × threads entries.
    fn hot(&self, range: &Range) -> usize {
        range.count.min(self.publishers)
    }

    /// The conversations that a reader follows.
    pub(super) fn follows(&self, reader: usize) -> Vec<usize> {
        let mut follows = Vec::new();
        for range in &self.ranges {
            let place = |number| range.start + number;
            match range.part.shape {
                Shape::Groups { .. } => {
                    let mine = (0..range.count)
                        .filter(|group| self.group_readers(range, *group).any(|one| one == reader));
                    follows.extend(mine.map(place));
                }
                Shape::Threads { follow, .. } if (1..range.count).contains(&follow) => {
                    let some = self.followed_threads(range, follow, reader);
                    follows.extend(some.into_iter().map(place));
                }
                _ => follows.extend((0..range.count).map(place)),
            }
        }
        follows
    }

    fn followed_threads(&self, range: &Range, follow: usize, reader: usize) -> BTreeSet<usize> {
        let seed = mix(self.run ^ (reader as u64) << 32);
        let mut picks = (0..(follow * PICKS_PER_FOLLOWED) as u64)
            .map(|pick| range.law.pick(mix(seed.wrapping_add(pick))));
        let mut threads = BTreeSet::new();
        while threads.len() < follow
            && let Some(rank) = picks.next()
        {
            threads.insert(rank);
        }
        let mut ranks = 0..range.count;
        while threads.len() < follow
            && let Some(rank) = ranks.next()
        {
            threads.insert(rank);
        }
        threads
    }

    /// How many conversations no reader follows: nobody looks at what is said there.
    pub(super) fn unread(&self) -> usize {
        let unread = self.ranges.iter().map(|range| {
            let followed = match range.part.shape {
                _ if self.readers == 0 => 0,
                // Its publisher alone.
                Shape::Groups { members: ..=1, .. } => 0,
                Shape::Threads { follow, .. } if (1..range.count).contains(&follow) => {
                    let threads = |reader| self.followed_threads(range, follow, reader);
                    let all: BTreeSet<usize> = (0..self.readers).flat_map(threads).collect();
                    all.len()
                }
                _ => range.count,
            };
            range.count - followed
        });
        unread.sum()
    }

    /// Members of a group that read.
    fn group_readers(&self, range: &Range, group: usize) -> impl Iterator<Item = usize> {
        let members = match range.part.shape {
            Shape::Groups { members, .. } => members,
            _ => 0,
        };
        let readers = self.readers;
        let some = members.saturating_sub(1).min(readers);
        (0..some).map(move |one| (group * some + one) % readers)
    }

    /// The request that opens a conversation.
    pub(super) fn create(&self, place: usize) -> Create {
        let mut create = Create {
            conversation: self.id(place).to_proto(),
            kind: ConversationKind::Channel.into(),
            visibility: Visibility::Public.into(),
            title: "load".to_owned(),
            ..Create::default()
        };
        let range = self
            .ranges
            .iter()
            .find(|range| (range.start..range.start + range.count).contains(&place));
        let Some(range) = range else { return create };
        match range.part.shape {
            Shape::Channels { .. } => {}
            Shape::Threads { .. } => create.kind = ConversationKind::Thread.into(),
            Shape::Groups { .. } => {
                let group = place - range.start;
                // Publishers without a group of their own write to those of others.
                let writers = (group + range.count..self.publishers).step_by(range.count);
                let users = writers
                    .map(publisher_user)
                    .chain(self.group_readers(range, group).map(reader_user));
                create.kind = ConversationKind::Group.into();
                create.visibility = Visibility::Private.into();
                create.members = users.map(|user| user.to_proto()).collect();
            }
        }
        create
    }
}

/// The user that a publisher is.
pub(super) fn publisher_user(index: usize) -> UserId {
    UserId::from_name(&format!("run publisher {index}"))
}

/// The user that a reader is.
pub(super) fn reader_user(index: usize) -> UserId {
    UserId::from_name(&format!("run reader {index}"))
}

/// The user of a connection that does nothing.
pub(super) fn idle_user(index: usize) -> UserId {
    UserId::from_name(&format!("run bystander {index}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(publishers: usize, readers: usize, shapes: &[&str]) -> Plan {
        let parts: Vec<Part> = shapes
            .iter()
            .map(|shape| Part::of(shape.parse().unwrap()))
            .collect();
        Plan::new(7, 1_700_000_000_000_000, publishers, readers, &parts)
    }

    #[test]
    fn every_conversation_is_opened_once_and_publishers_write_only_where_they_are_members() {
        let shapes = ["channels:7", "groups:10:4", "threads:30"];
        for publishers in [1, 3, 7, 12, 40] {
            let plan = plan(publishers, 5, &shapes);
            let mut opened = Vec::new();
            for publisher in 0..publishers {
                let duties = plan.duties(publisher);
                let (outlets, mut choice) = plan.outlets(publisher);
                let entered: BTreeSet<usize> =
                    duties.opens.iter().chain(&duties.joins).copied().collect();
                for outlet in &outlets {
                    let user = publisher_user(publisher).to_proto();
                    let member =
                        entered.contains(outlet) || plan.create(*outlet).members.contains(&user);
                    assert!(member, "{publisher} of {publishers} writes to {outlet}");
                }
                let written: BTreeSet<usize> = (0..1000).map(|_| outlets[choice.next()]).collect();
                assert!(written.iter().any(|outlet| *outlet < 7));
                assert!(written.iter().any(|outlet| (7..17).contains(outlet)));
                assert!(written.iter().any(|outlet| *outlet >= 17));
                opened.extend(duties.opens);
            }
            opened.sort_unstable();
            assert_eq!(opened, (0..47).collect::<Vec<_>>(), "{publishers}");
        }
    }

    #[test]
    fn readers_follow_all_channels_their_groups_and_some_threads() {
        let plan = plan(2, 10, &["channels:3", "groups:20:4", "threads:50:1:5"]);
        let mut groups = 0;
        for reader in 0..10 {
            let follows = plan.follows(reader);
            assert_eq!(follows[..3], [0, 1, 2]);
            let mine = follows.iter().filter(|place| (3..23).contains(*place));
            for group in mine {
                let user = reader_user(reader).to_proto();
                assert!(plan.create(*group).members.contains(&user));
                groups += 1;
            }
            assert_eq!(follows.iter().filter(|place| **place >= 23).count(), 5);
        }
        assert_eq!(groups, 20 * 3);
        assert!(
            plan.create(3).kind() == ConversationKind::Group && plan.create(3).members.len() == 3
        );
        assert_eq!(plan.create(30).kind(), ConversationKind::Thread);
    }

    #[test]
    fn what_no_reader_follows_is_unread() {
        for (readers, shapes, unread) in [
            (0, vec!["channels:7"], Some(7)),
            (1, vec!["channels:7", "groups:5:2", "threads:9"], Some(0)),
            (3, vec!["channels:7", "groups:5:1"], Some(5)),
            (1, vec!["threads:50:1:5"], Some(45)),
            (9, vec!["groups:5:4", "threads:50:1:5"], None),
        ] {
            let plan = plan(2, readers, &shapes);
            let followed: BTreeSet<usize> = (0..readers)
                .flat_map(|reader| plan.follows(reader))
                .collect();
            let found = plan.unread();
            assert_eq!(found, plan.conversations() - followed.len(), "{shapes:?}");
            assert!(unread.is_none_or(|unread| unread == found), "{shapes:?}");
        }
    }

    #[test]
    fn conversations_of_all_runs_differ() {
        let parts = [Part::of("channels:100".parse().unwrap())];
        let ids: BTreeSet<_> = (0..4)
            .flat_map(|run| {
                let plan = Plan::new(run, 1_700_000_000_000_000, 1, 0, &parts);
                (0..100).map(move |place| plan.id(place))
            })
            .collect();
        assert_eq!(ids.len(), 400);
        assert!(ids.iter().all(ConversationId::is_v7));
    }
}
