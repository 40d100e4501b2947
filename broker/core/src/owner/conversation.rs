//! A conversation in memory: the end of its log, its profile, the members that were needed lately, and work that waits.

use std::{
    collections::{BTreeMap, HashMap, HashSet, VecDeque, hash_map::Entry},
    sync::LazyLock,
};

use bytes::Bytes;
use rialto_protocol::{
    error::ErrorCode,
    event::{self, EventHead},
    ids::{ClientId, ConversationId, Cursor, LaneId, Ordinal, Position, Seq, UserId},
    v1,
};

use crate::{
    advice::read_failure,
    io::{Answer, SentEvent, StoredConversation},
    message::Author,
};

use super::{
    desk::Desk,
    entry::LogEnd,
    member::Member,
    profile::Profile,
    remains::FREED_AT_ONCE,
    work::{Need, Target, Work},
};

/// Fewer members than these are not looked through for some that may be forgotten.
const TRIM_LEAST: usize = 16;

/// What stays in memory of one of the newest events.
#[derive(Clone, Copy, Debug)]
pub(super) struct Recent {
    pub(super) head: EventHead,
    /// The sender's event before it; 0: none.
    pub(super) before: Seq,
    pub(super) is_message: bool,
    pub(super) deleted: bool,
}

/// A place in the table of conversations.
#[derive(Debug)]
pub(super) enum Slot {
    /// Being read; what came meanwhile.
    Loading(Vec<Work>),
    /// In memory, be there such a conversation or not.
    Present(Box<Conversation>),
}

/// One conversation.
#[derive(Debug)]
pub(super) struct Conversation {
    pub(super) id: ConversationId,
    pub(super) lane: LaneId,
    /// `None`: nobody has created it.
    pub(super) profile: Option<Profile>,
    /// The log's end as numbered.
    pub(super) head: LogEnd,
    /// The log's end as anybody may see it.
    pub(super) durable: LogEnd,
    /// The oldest event that is kept, as it was last read.
    pub(super) oldest: Seq,
    /// How often events had been dropped when that was asked for; `None`: since then a read has shown that it is too low.
    oldest_known: Option<u64>,
    /// Entry of the last change of anything here.
    pub(super) last_position: Position,
    /// Where the last event stands in its entry.
    pub(super) touch: Option<(Position, usize)>,
    /// It was written to since it was last looked at for leaving memory.
    pub(super) in_use: bool,
    members: Members,
    /// How many members there must be before some are looked for that may be forgotten.
    trim_at: usize,
    recent: VecDeque<Recent>,
    /// Messages whose deletion storage may not know of, each with the seq of the delete event.
    deleted: BTreeMap<Seq, Seq>,
    queues: HashMap<UserId, VecDeque<Work>, ahash::RandomState>,
}

/// What is known of a user's relation to the conversation: nothing is allocated for one who has none, as most readers of a
/// public channel.
#[derive(Debug)]
pub(super) struct Known(Option<Box<Member>>);

/// Members in memory.
pub(super) type Members = HashMap<UserId, Known, ahash::RandomState>;

static STRANGER: LazyLock<Member> = LazyLock::new(Member::default);

impl Known {
    fn new(member: Member) -> Self {
        Self((member != *STRANGER).then(|| Box::new(member)))
    }

    fn member(&self) -> &Member {
        self.0.as_deref().unwrap_or(&STRANGER)
    }
}

impl Conversation {
    pub(super) fn new(
        id: ConversationId,
        lane: LaneId,
        stored: Option<(StoredConversation, Profile)>,
        drops: u64,
        durable: Position,
        hasher: ahash::RandomState,
    ) -> Self {
        let (stored, profile) = stored.unzip();
        let head = stored
            .as_ref()
            .map_or_else(LogEnd::default, |stored| LogEnd {
                cursor: stored.head,
                ordinal: stored.ordinal,
                time_ms: stored.time_ms,
            });
        let oldest = stored.map_or(Seq(1), |stored| stored.oldest);
        Self {
            id,
            lane,
            profile,
            head,
            durable: head,
            oldest,
            oldest_known: Some(drops),
            last_position: durable,
            touch: None,
            in_use: false,
            members: HashMap::with_hasher(hasher.clone()),
            trim_at: TRIM_LEAST,
            recent: VecDeque::new(),
            deleted: BTreeMap::new(),
            queues: HashMap::with_hasher(hasher),
        }
    }

    pub(super) fn exists(&self) -> bool {
        self.profile.is_some()
    }

    /// It may not leave memory: something is not durable yet, or work waits.
    pub(super) fn is_busy(&self, desk: &Desk) -> bool {
        !self.queues.is_empty() || self.last_position > desk.lanes.durable_position(self.lane)
    }

    pub(super) fn member(&self, user: &UserId) -> Option<&Member> {
        self.members.get(user).map(Known::member)
    }

    pub(super) fn member_mut(&mut self, user: &UserId) -> Option<&mut Member> {
        let known = self.members.get_mut(user)?;
        Some(known.0.get_or_insert_default())
    }

    /// Puts a member in; `true`: it is one more in memory.
    pub(super) fn put_member(&mut self, user: UserId, member: Member) -> bool {
        self.members.insert(user, Known::new(member)).is_none()
    }

    /// Its members, once nothing else of it is needed.
    pub(super) fn into_members(self) -> Members {
        self.members
    }

    /// How many members are in memory.
    pub(super) fn members_in_memory(&self) -> usize {
        self.members.len()
    }

    /// Forgets members whose last change is durable and for whom no work waits, so many at once at most; returns how many. When all
    /// were looked at, they are looked through again only once there are twice as many as were left, so that it costs little a
    /// member.
    pub(super) fn trim_members(&mut self, durable: Position) -> usize {
        if self.members.len() < self.trim_at {
            return 0;
        }
        let mut wanted: HashSet<UserId, ahash::RandomState> =
            HashSet::with_hasher(self.members.hasher().clone());
        for (user, queue) in &self.queues {
            wanted.insert(*user);
            wanted.extend(
                queue
                    .front()
                    .into_iter()
                    .flat_map(|work| &work.known.wanted)
                    .copied(),
            );
        }
        let idle = self
            .members
            .extract_if(|user, known| known.member().position <= durable && !wanted.contains(user));
        let forgotten = idle.take(FREED_AT_ONCE).count();
        self.trim_at = TRIM_LEAST;
        if forgotten < FREED_AT_ONCE {
            self.members.shrink_to(self.members.len() * 2);
            self.trim_at = TRIM_LEAST.max(self.members.len() * 2);
        }
        forgotten
    }

    /// The last event that may be seen.
    pub(super) fn visible(&self) -> Cursor {
        self.durable.cursor
    }

    /// Whether the oldest event is known as of so many drops.
    pub(super) fn knows_oldest(&self, drops: u64) -> bool {
        self.oldest_known == Some(drops)
    }

    /// Has the oldest event read again before somebody goes by it: a read has shown that it is gone.
    pub(super) fn forget_oldest(&mut self) {
        self.oldest_known = None;
    }

    /// Keeps the essentials of an event that was just numbered. The oldest leave, but none that is not durable: storage
    /// would not find its `client_id` yet.
    pub(super) fn note_event(&mut self, recent: Recent, events_max: usize) {
        // They follow each other without a gap: the oldest one's number is known without a look at it, which would have to wait
        // for memory.
        let oldest = |kept: usize| recent.head.seq.0 - kept as u64;
        while self.recent.len() >= events_max
            && oldest(self.recent.len()) <= self.durable.cursor.seq.0
        {
            self.recent.pop_front();
        }
        self.recent.push_back(recent);
    }

    /// Something of all that appending a message changes: it is worth nothing, looking at it is.
    pub(super) fn look(&self, author: &UserId) -> (u64, Option<u64>, Option<u64>) {
        let oldest = self.recent.front().map(|recent| recent.head.seq.0);
        let member = self.member(author).map(|member| member.position.0);
        (self.head.cursor.seq.0, oldest, member)
    }

    /// The event that this `client_id` became, if it is one of the newest. Only the author's own are looked at: while the disk
    /// stands still there may be very many, and all are sent again by who reconnects.
    pub(super) fn sent_lately(&self, author: Author, client_id: ClientId) -> Option<SentEvent> {
        self.recent_of(&author.user)
            .map(|recent| &recent.head)
            .find(|head| head.client_id == client_id && head.device == author.device)
            .map(|head| SentEvent {
                epoch: head.epoch,
                seq: head.seq,
                time_ms: head.time_ms,
            })
    }

    /// A user's events among the newest, the last first.
    pub(super) fn recent_of(&self, user: &UserId) -> impl Iterator<Item = &Recent> {
        let at = |seq| self.place(seq).map(|place| &self.recent[place]);
        let last = self.member(user).and_then(|member| at(member.last_sent.0));
        std::iter::successors(last, move |recent| at(recent.before))
    }

    /// Takes in that the event that was just numbered deletes a message.
    pub(super) fn note_deleted(&mut self, seq: Seq) {
        if let Some(place) = self.place(seq) {
            self.recent[place].deleted = true;
        }
        let durable = self.durable.cursor.seq;
        self.deleted.retain(|_, by| *by > durable);
        self.deleted.insert(seq, self.head.cursor.seq);
        let first = self.queues.values_mut().filter_map(VecDeque::front_mut);
        for work in first.filter(|work| work.known.asked.contains(&seq)) {
            work.known.deleted.push(seq);
        }
    }

    /// How many deletions are remembered for work that waits.
    #[cfg(test)]
    pub(super) fn deletions_remembered(&self) -> usize {
        let waiting = self.queues.values().flatten();
        waiting.map(|work| work.known.deleted.len()).sum()
    }

    /// Whether the message is deleted, be it that storage does not know of it yet.
    pub(super) fn is_deleted(&self, seq: Seq) -> bool {
        self.deleted.contains_key(&seq)
    }

    /// An event of the newest, without its mentions.
    pub(super) fn recent(&self, seq: Seq) -> Option<Target> {
        self.place(seq).map(|place| {
            let Recent {
                ref head,
                is_message,
                deleted,
                ..
            } = self.recent[place];
            Target {
                seq,
                ordinal: head.ordinal,
                sender: head.sender,
                is_message,
                deleted,
                mentions: None,
            }
        })
    }

    /// Where a number stands among the newest, which follow each other without a gap.
    fn place(&self, seq: Seq) -> Option<usize> {
        let first = self.recent.front()?.head.seq;
        let place = usize::try_from(seq.0.checked_sub(first.0)?).ok()?;
        (place < self.recent.len()).then_some(place)
    }

    /// Ordinal at an event, where it is known without a read.
    pub(super) fn ordinal_at(&self, seq: Seq) -> Option<Ordinal> {
        match seq {
            Seq(0) => Some(Ordinal(0)),
            seq if seq == self.head.cursor.seq => Some(self.head.ordinal),
            seq => self.recent(seq).map(|target| target.ordinal),
        }
    }

    pub(super) fn has_queue(&self, user: &UserId) -> bool {
        self.queues.contains_key(user)
    }

    pub(super) fn enqueue(&mut self, work: Work) {
        self.queues.entry(work.user()).or_default().push_back(work);
    }

    pub(super) fn enqueue_front(&mut self, user: UserId, work: Work) {
        self.queues.entry(user).or_default().push_front(work);
    }

    /// The user's next piece of work; an empty queue goes away.
    pub(super) fn dequeue(&mut self, user: &UserId) -> Option<Work> {
        let queue = self.queues.get_mut(user)?;
        let work = queue.pop_front();
        if queue.is_empty() {
            self.queues.remove(user);
        }
        work
    }

    /// Whether the user's first piece of work has all that it asked for.
    pub(super) fn first_is_ready(&self, user: &UserId) -> bool {
        self.queues
            .get(user)
            .and_then(VecDeque::front)
            .is_some_and(|work| work.outstanding == 0)
    }

    /// All work that waits, each user's in order.
    pub(super) fn take_queues(&mut self) -> Vec<Work> {
        let mut queues: Vec<_> = std::mem::take(&mut self.queues).into_iter().collect();
        queues.sort_by_key(|(user, _)| *user);
        queues.into_iter().flat_map(|(_, queue)| queue).collect()
    }

    /// Takes in what was read for the user's first piece of work, or that the read failed.
    pub(super) fn learn(
        &mut self,
        user: UserId,
        need: &Need,
        answer: Option<Answer>,
        desk: &mut Desk,
    ) {
        let failed = match (need, answer) {
            (
                Need::Member(member),
                Some(Answer::Member {
                    row,
                    sent,
                    more_devices,
                }),
            ) => match Member::load(row.as_ref(), &sent, more_devices) {
                Some(loaded) if !self.members.contains_key(member) => {
                    self.members.insert(*member, Known::new(loaded));
                    desk.members += 1;
                    None
                }
                Some(_) => None,
                None => Some(ErrorCode::Damaged),
            },
            (Need::Rows(users), Some(Answer::Rows(rows))) => {
                for (stranger, _) in users.iter().zip(&rows).filter(|(_, row)| row.is_none()) {
                    if let Entry::Vacant(place) = self.members.entry(*stranger) {
                        place.insert(Known(None));
                        desk.members += 1;
                    }
                }
                if let Some(work) = self.first(&user) {
                    work.known.rows_looked_up = true;
                }
                None
            }
            (Need::Sent(_, client_id), Some(Answer::Sent { event, as_of_ms })) => {
                if let Some(work) = self.first(&user) {
                    work.known.sent = Some((*client_id, event.ok_or(as_of_ms)));
                }
                None
            }
            (Need::Target(seq), Some(Answer::Events { events, tombstones })) => {
                let deleted = tombstones.iter().any(|(dead, _)| dead == seq);
                let target = events
                    .first()
                    .and_then(|event| parse_target(event, *seq, deleted));
                if let Some(work) = self.first(&user) {
                    work.known.targets.push((*seq, target));
                }
                None
            }
            (Need::Oldest(drops), Some(Answer::Conversation(stored))) => {
                // Where nothing is stored yet, nothing was dropped.
                let oldest = stored.map_or(self.oldest, |stored| stored.oldest);
                self.oldest = self.oldest.max(oldest);
                self.oldest_known = Some(*drops);
                None
            }
            (_, answer) => Some(read_failure(answer.as_ref())),
        };
        if let Some(work) = self.first(&user) {
            work.outstanding = work.outstanding.saturating_sub(1);
            work.failed = work.failed.or(failed);
        }
    }

    fn first(&mut self, user: &UserId) -> Option<&mut Work> {
        self.queues.get_mut(user)?.front_mut()
    }
}

fn parse_target(bytes: &Bytes, seq: Seq, deleted: bool) -> Option<Target> {
    let head = event::peek(bytes).ok().filter(|head| head.seq == seq)?;
    let content = <v1::Event as prost::Message>::decode(bytes.clone())
        .ok()?
        .content;
    let mentions = match &content {
        Some(v1::event::Content::Message(message)) => message
            .mentions
            .iter()
            .filter_map(|user| UserId::from_slice(user).ok())
            .collect(),
        _ => Vec::new(),
    };
    let is_message = matches!(content, Some(v1::event::Content::Message(_)));
    Some(Target {
        seq,
        ordinal: head.ordinal,
        sender: head.sender,
        is_message,
        deleted,
        mentions: Some(mentions),
    })
}
