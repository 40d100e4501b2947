//! Appending: drafts become events, one by one, each judged by the rules as they stand after the one before it.

use prost::Message as _;
use rialto_protocol::{
    error::ErrorCode,
    ids::{ClientId, Seq, UserId},
    planted::{self, Mistake},
    record::Table,
    v1::{self, draft::Content as DraftContent, event::Content},
};
use smallvec::SmallVec;

use crate::{
    advice::retry_hint_ms,
    effects::Effects,
    io::{Now, SentEvent},
    message::{Author, Draft, Message, Receipt, ToEdge, ToOwner},
};

use super::{
    conversation::Conversation,
    desk::{Desk, Stop, require_member},
    member::{Member, Novelty},
    profile::Profile,
    rules,
    work::{Known, Need, Outcome, Target, Work},
};

/// How long a `client_id` is remembered for certain, milliseconds (G3); an older one that is not found is refused.
const REMEMBERED_MS: u64 = 7 * 24 * 3_600 * 1_000;

impl Desk {
    /// Decides one draft after the other, until all are, or one needs a read.
    pub(super) fn append(
        &mut self,
        now: Now,
        conversation: &mut Conversation,
        work: &mut Work,
        fx: &mut Effects,
    ) -> Outcome {
        let Work {
            ask,
            receipts,
            known,
            ..
        } = work;
        let ToOwner::Append {
            origin,
            author,
            first,
            drafts,
            ..
        } = ask
        else {
            return Outcome::Done;
        };
        let (origin, author, first) = (*origin, *author, *first);
        for draft in &drafts[receipts.len()..] {
            let receipt = match self.append_draft(now, conversation, author, draft, known, fx) {
                Ok(receipt) => receipt,
                Err(Refusal::Code(code, retry_after_ms)) => Receipt::Refused {
                    code,
                    retry_after_ms,
                },
                Err(Refusal::Needs(needs)) => return Outcome::Needs(needs),
            };
            *known = Known::default();
            receipts.push(receipt);
        }
        let receipts = std::mem::take(receipts);
        self.reply(
            conversation,
            origin.edge,
            Message::ToEdge(ToEdge::Appended {
                origin,
                first,
                receipts,
            }),
            fx,
        );
        Outcome::Done
    }

    fn append_draft(
        &mut self,
        now: Now,
        conversation: &mut Conversation,
        author: Author,
        draft: &Draft,
        known: &Known,
        fx: &mut Effects,
    ) -> Result<Receipt, Refusal> {
        if !conversation.exists() {
            return Err(ErrorCode::ConversationNotFound.into());
        }
        require_member(conversation, &author.user)?;
        if let Some(event) =
            self.appended_before(now, conversation, author, draft.client_id, known)?
        {
            fx.counters.duplicates += 1;
            let SentEvent {
                epoch,
                seq,
                time_ms,
            } = event;
            return Ok(Receipt::Kept {
                epoch,
                seq,
                time_ms,
                duplicate: true,
            });
        }
        let notices = notices_of(&draft.content);
        if notices > 0 {
            self.may_notify(author.user, notices, fx)?;
        }
        match &draft.content {
            DraftContent::Message(message) => {
                let body = Body {
                    client_id: draft.client_id,
                    newest_reply: Seq(message.reply_to.iter().copied().max().unwrap_or(0)),
                    mentions: &message.mentions,
                    message: &message.encode_to_vec(),
                };
                self.append_message(now, conversation, author, &body, known)
            }
            DraftContent::Edit(edit) => {
                self.append_edit(now, conversation, author, draft, edit, known)
            }
            DraftContent::Delete(delete) => {
                self.append_delete(now, conversation, author, draft, delete, known)
            }
            DraftContent::Reaction(v1::Reaction { target, .. })
            | DraftContent::Vote(v1::Vote { target, .. })
            | DraftContent::Pin(v1::Pin { target, .. }) => {
                let (profile, member) = conversation.parties(&author.user)?;
                match &draft.content {
                    DraftContent::Pin(_) => rules::may_pin(profile, member)?,
                    _ => rules::may_take_part(profile, member)?,
                }
                find(conversation, known, Seq(*target))?;
                Ok(self.log(
                    now,
                    conversation,
                    author,
                    draft.client_id,
                    &content_of(&draft.content),
                ))
            }
            DraftContent::Membership(change) => {
                self.change_membership(now, conversation, author, draft.client_id, change)
            }
            DraftContent::Settings(settings) => {
                self.append_settings(now, conversation, author, draft, settings)
            }
        }
    }

    /// Whether this `client_id` stands in the log already.
    pub(super) fn appended_before(
        &self,
        now: Now,
        conversation: &Conversation,
        author: Author,
        client_id: ClientId,
        known: &Known,
    ) -> Result<Option<SentEvent>, Stop> {
        if planted::strikes(Mistake::SkipDedupe) {
            return Ok(None);
        }
        let novelty = conversation
            .member(&author.user)
            .map(|member| member.novelty(author.device, client_id));
        if novelty == Some(Novelty::New) {
            return Ok(None);
        }
        if let Some(event) = conversation.sent_lately(author, client_id) {
            return Ok(Some(event));
        }
        match known.sent {
            Some((asked, Ok(event))) if asked == client_id => Ok(Some(event)),
            Some((asked, Err(as_of_ms))) if asked == client_id => {
                // Where the clock had leapt ids were forgotten that are not old by now.
                let now_ms = now.unix_ms.max(as_of_ms);
                if client_id.time_ms().saturating_add(REMEMBERED_MS) < now_ms {
                    return Err(ErrorCode::ClientIdTooOld.into());
                }
                Ok(None)
            }
            _ => Err(Need::Sent(author.device, client_id).into()),
        }
    }

    pub(super) fn append_message(
        &mut self,
        now: Now,
        conversation: &mut Conversation,
        author: Author,
        body: &Body<'_>,
        known: &Known,
    ) -> Result<Receipt, Refusal> {
        let (profile, member) = conversation.parties(&author.user)?;
        let pace = may_write(now, profile, member)?;
        look_up_mentioned(conversation, body.mentions, known)?;
        self.write_message(now, conversation, author, body, pace)
    }

    /// Appends a message whose author may write. A part of its caller: as a function of its own it hands its answer back through
    /// memory, and reading that waits until all that it wrote elsewhere is written.
    #[inline(always)]
    pub(super) fn write_message(
        &mut self,
        now: Now,
        conversation: &mut Conversation,
        author: Author,
        body: &Body<'_>,
        MayWrite { is_slowed }: MayWrite,
    ) -> Result<Receipt, Refusal> {
        if body.newest_reply > conversation.head.cursor.seq {
            return Err(ErrorCode::TargetNotFound.into());
        }
        let mentioned = mentioned_members(conversation, author.user, body.mentions)?;
        let receipt = self.log_message(now, conversation, author, body.client_id, body.message);
        if is_slowed {
            self.write_member(conversation, &author.user);
        }
        let seq = conversation.head.cursor.seq;
        self.mention(conversation, author.user, seq, &mentioned);
        Ok(receipt)
    }

    fn append_edit(
        &mut self,
        now: Now,
        conversation: &mut Conversation,
        author: Author,
        draft: &Draft,
        edit: &v1::Edit,
        known: &Known,
    ) -> Result<Receipt, Refusal> {
        let (profile, member) = conversation.parties(&author.user)?;
        rules::may_take_part(profile, member)?;
        let target = find(conversation, known, Seq(edit.target))?;
        if target.sender != author.user {
            return Err(ErrorCode::NotTheAuthor.into());
        }
        // Whoever was mentioned before is not told again: for that the old mentions have to be known.
        let before = match (&target.mentions, edit.mentions.is_empty()) {
            (Some(mentions), _) => mentions.clone(),
            (None, true) => Vec::new(),
            (None, false) => return Err(Refusal::from(Stop::from(Need::Target(target.seq)))),
        };
        look_up_mentioned(conversation, &edit.mentions, known)?;
        let mut mentioned = mentioned_members(conversation, author.user, &edit.mentions)?;
        mentioned.retain(|user| !before.contains(user));
        let seq = target.seq;
        let receipt = self.log(
            now,
            conversation,
            author,
            draft.client_id,
            &Content::Edit(edit.clone()),
        );
        self.mention(conversation, author.user, seq, &mentioned);
        Ok(receipt)
    }

    fn append_delete(
        &mut self,
        now: Now,
        conversation: &mut Conversation,
        author: Author,
        draft: &Draft,
        delete: &v1::Delete,
        known: &Known,
    ) -> Result<Receipt, Refusal> {
        let (profile, member) = conversation.parties(&author.user)?;
        rules::may_delete(profile, member)?;
        let moderates = member.role() >= v1::Role::Moderator;
        let target = find(conversation, known, Seq(delete.target))?;
        if target.sender != author.user && !moderates {
            return Err(ErrorCode::NotTheAuthor.into());
        }
        let dead = target.seq;
        let receipt = self.log(
            now,
            conversation,
            author,
            draft.client_id,
            &Content::Delete(delete.clone()),
        );
        let by = conversation.head.cursor.seq;
        let lane = self.lanes.get_mut(conversation.lane);
        lane.row(
            &conversation.id,
            Table::Tombstone,
            &dead.0.to_be_bytes(),
            &by.0.to_be_bytes(),
        );
        conversation.note_deleted(dead);
        Ok(receipt)
    }

    fn append_settings(
        &mut self,
        now: Now,
        conversation: &mut Conversation,
        author: Author,
        draft: &Draft,
        settings: &v1::Settings,
    ) -> Result<Receipt, Refusal> {
        let (profile, member) = conversation.parties(&author.user)?;
        rules::may_set(profile, member)?;
        let receipt = self.log(
            now,
            conversation,
            author,
            draft.client_id,
            &Content::Settings(settings.clone()),
        );
        if let Some(profile) = conversation.profile.as_mut() {
            if let Some(title) = &settings.title {
                profile.title.clone_from(title);
            }
            if let Some(topic) = &settings.topic {
                profile.topic.clone_from(topic);
            }
            profile.slow_mode_s = settings.slow_mode_s.unwrap_or(profile.slow_mode_s);
            profile.write_role = settings.write_role.unwrap_or(profile.write_role);
            profile.locked = settings.locked.unwrap_or(profile.locked);
        }
        self.write_profile(conversation);
        Ok(receipt)
    }
}

/// Whether the member may write a message now.
pub(super) fn may_write(now: Now, profile: &Profile, member: &Member) -> Result<MayWrite, Refusal> {
    rules::may_write(profile, member, now.unix_ms).map_err(|(code, ms)| Refusal::Code(code, ms))?;
    let is_slowed = profile.slow_mode_s > 0 && member.role() < v1::Role::Moderator;
    Ok(MayWrite { is_slowed })
}

/// Its author may write the message.
#[derive(Clone, Copy, Debug)]
pub(super) struct MayWrite {
    /// And not again before some time is over, which has to be remembered.
    is_slowed: bool,
}

/// A message to be judged and appended.
pub(super) struct Body<'a> {
    pub(super) client_id: ClientId,
    /// The newest event that it answers; 0: none.
    pub(super) newest_reply: Seq,
    /// Users whom it mentions.
    pub(super) mentions: &'a [bytes::Bytes],
    /// The encoded `Message`.
    pub(super) message: &'a [u8],
}

/// Why a draft did not become an event.
pub(super) enum Refusal {
    Needs(SmallVec<[Need; 2]>),
    Code(ErrorCode, u32),
}

impl From<ErrorCode> for Refusal {
    fn from(code: ErrorCode) -> Self {
        Self::Code(code, retry_hint_ms(code))
    }
}

impl From<Stop> for Refusal {
    fn from(stop: Stop) -> Self {
        match stop {
            Stop::Needs(needs) => Self::Needs(needs),
            Stop::Refused(code) => code.into(),
        }
    }
}

/// How many inboxes may have to be told of it.
fn notices_of(content: &DraftContent) -> usize {
    match content {
        DraftContent::Message(message) => message.mentions.len(),
        DraftContent::Edit(edit) => edit.mentions.len(),
        DraftContent::Membership(_) => 1,
        _ => 0,
    }
}

/// The message that another event refers to: one of the newest, or as it was read.
fn find(conversation: &Conversation, known: &Known, seq: Seq) -> Result<Target, Stop> {
    if seq.0 == 0 || seq > conversation.head.cursor.seq {
        return Err(ErrorCode::TargetNotFound.into());
    }
    if conversation.is_deleted(seq) || known.deleted.contains(&seq) {
        return Err(ErrorCode::TargetDeleted.into());
    }
    let target = match known.target(seq) {
        Some(target) => target.clone(),
        None => match conversation.recent(seq) {
            Some(target) => Some(target),
            None => return Err(Need::Target(seq).into()),
        },
    };
    Ok(rules::is_message(target)?)
}

/// Of several who are mentioned and not in memory those are looked up who were ever members: whoever was not, or is nobody at all,
/// costs no read of his own.
fn look_up_mentioned(
    conversation: &Conversation,
    mentions: &[bytes::Bytes],
    known: &Known,
) -> Result<(), Stop> {
    if mentions.len() < 2 || known.rows_looked_up {
        return Ok(());
    }
    let mut missing: Vec<UserId> = mentions
        .iter()
        .filter_map(|user| UserId::from_slice(user).ok())
        .filter(|user| conversation.member(user).is_none())
        .collect();
    missing.sort_unstable();
    missing.dedup();
    if missing.len() < 2 {
        return Ok(());
    }
    Err(Need::Rows(missing).into())
}

/// Those of the mentioned who are in, each once, without the author. All of them must be in memory.
fn mentioned_members(
    conversation: &Conversation,
    author: UserId,
    mentions: &[bytes::Bytes],
) -> Result<Vec<UserId>, Stop> {
    if mentions.is_empty() {
        return Ok(Vec::new());
    }
    let mut users: Vec<UserId> = mentions
        .iter()
        .filter_map(|user| UserId::from_slice(user).ok())
        .collect();
    users.sort_unstable();
    users.dedup();
    users.retain(|user| *user != author);
    let missing: SmallVec<[Need; 2]> = users
        .iter()
        .filter(|user| conversation.member(user).is_none())
        .map(|user| Need::Member(*user))
        .collect();
    if !missing.is_empty() {
        return Err(Stop::Needs(missing));
    }
    users.retain(|user| conversation.member(user).is_some_and(Member::is_joined));
    Ok(users)
}

fn content_of(draft: &DraftContent) -> Content {
    match draft.clone() {
        DraftContent::Message(message) => Content::Message(message),
        DraftContent::Edit(edit) => Content::Edit(edit),
        DraftContent::Delete(delete) => Content::Delete(delete),
        DraftContent::Reaction(reaction) => Content::Reaction(reaction),
        DraftContent::Vote(vote) => Content::Vote(vote),
        DraftContent::Pin(pin) => Content::Pin(pin),
        DraftContent::Membership(membership) => Content::Membership(membership),
        DraftContent::Settings(settings) => Content::Settings(settings),
    }
}
