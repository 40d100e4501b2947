//! The form of what clients ask for: lengths, counts, ids, enums, UTF-8. Whether they may, the owner decides.

use bytes::Bytes;
use rialto_protocol::{
    error::ErrorCode,
    ids::{ClientId, ConversationId, UserId},
    limits, v1,
    v1::draft::Content,
};

use crate::message::Draft;

/// A size as the wire tells it.
pub(super) fn clamped(bytes: usize) -> u32 {
    u32::try_from(bytes).unwrap_or(u32::MAX)
}

pub(super) fn conversation(bytes: &Bytes) -> Result<ConversationId, ErrorCode> {
    ConversationId::from_slice(bytes).map_err(|_| ErrorCode::InvalidField)
}

/// A user other than the system.
pub(super) fn user(bytes: &Bytes) -> Result<UserId, ErrorCode> {
    match UserId::from_slice(bytes) {
        Ok(user) if user != UserId::SYSTEM => Ok(user),
        _ => Err(ErrorCode::InvalidField),
    }
}

/// Empty: absent.
pub(super) fn optional<T>(
    bytes: &Bytes,
    check: fn(&Bytes) -> Result<T, ErrorCode>,
) -> Result<Option<T>, ErrorCode> {
    if bytes.is_empty() {
        Ok(None)
    } else {
        check(bytes).map(Some)
    }
}

/// How many a page may have; 0: as many as usual.
pub(super) fn limit(asked: u32, usual: usize, max: usize) -> Result<u32, ErrorCode> {
    match asked {
        0 => Ok(clamped(usual)),
        asked if asked as usize <= max => Ok(asked),
        _ => Err(ErrorCode::InvalidField),
    }
}

/// A draft of `author`'s.
pub(super) fn draft(
    draft: v1::Draft,
    author: UserId,
    body_bytes_max: usize,
) -> Result<Draft, ErrorCode> {
    let client_id = client_id(&draft.client_id)?;
    let content = draft.content.ok_or(ErrorCode::InvalidField)?;
    match &content {
        Content::Message(message) => check_message(message, body_bytes_max)?,
        Content::Edit(edit) => check_edit(edit, body_bytes_max)?,
        Content::Delete(delete) => {
            target(delete.target)?;
            require(delete.reason.len() <= limits::REASON_BYTES_MAX)?;
        }
        Content::Reaction(reaction) => {
            target(reaction.target)?;
            require((1..=limits::EMOJI_BYTES_MAX).contains(&reaction.emoji.len()))?;
        }
        Content::Vote(vote) => {
            target(vote.target)?;
            require((-1..=1).contains(&vote.value))?;
        }
        Content::Pin(pin) => target(pin.target)?,
        Content::Membership(membership) => check_membership(membership, author)?,
        Content::Settings(settings) => check_settings(settings)?,
    }
    Ok(Draft { client_id, content })
}

/// Which conversation `creator` opens: its settled id, and the request with all of it filled in.
pub(super) fn create(
    mut create: v1::Create,
    creator: UserId,
) -> Result<(ConversationId, v1::Create), ErrorCode> {
    use v1::ConversationKind as Kind;

    client_id(&create.client_id)?;
    require(create.title.len() <= limits::TITLE_BYTES_MAX)?;
    // It stays in memory with the conversation, and the frame that it came in may be large.
    create.parent =
        optional(&create.parent, conversation)?.map_or_else(Bytes::new, |parent| parent.to_proto());
    create.members = others(&create.members, creator)?;
    let kind = Kind::try_from(create.kind).map_err(|_| ErrorCode::InvalidField)?;
    let id = match kind {
        Kind::Unspecified => return Err(ErrorCode::InvalidField),
        Kind::Inbox => return Err(ErrorCode::KindRefused),
        Kind::Self_ => {
            require(create.members.is_empty())?;
            derived(&create.conversation, ConversationId::of_self(creator))?
        }
        Kind::Direct => {
            require(create.members.len() == 1)?;
            derived(
                &create.conversation,
                ConversationId::of_direct(creator, user(&create.members[0])?),
            )?
        }
        Kind::Group | Kind::Family | Kind::Channel | Kind::Thread => {
            let id = conversation(&create.conversation)?;
            require(id.is_v7())?;
            id
        }
    };
    create.visibility = visibility(create.visibility, kind)? as i32;
    create.conversation = id.to_proto();
    Ok((id, create))
}

/// The members beside the creator, each named once.
fn others(members: &[Bytes], creator: UserId) -> Result<Vec<Bytes>, ErrorCode> {
    if members.len() > limits::MEMBERS_PER_CREATE_MAX {
        return Err(ErrorCode::TooManyItems);
    }
    let mut users = members.iter().map(user).collect::<Result<Vec<_>, _>>()?;
    users.sort_unstable();
    users.dedup();
    Ok(users
        .iter()
        .filter(|user| **user != creator)
        .map(UserId::to_proto)
        .collect())
}

/// The id that follows from the users; a client that names it must know it.
fn derived(named: &Bytes, id: ConversationId) -> Result<ConversationId, ErrorCode> {
    require(named.is_empty() || named[..] == id.as_bytes()[..])?;
    Ok(id)
}

fn visibility(visibility: i32, kind: v1::ConversationKind) -> Result<v1::Visibility, ErrorCode> {
    use v1::ConversationKind as Kind;

    match v1::Visibility::try_from(visibility) {
        Ok(v1::Visibility::Unspecified | v1::Visibility::Private) => Ok(v1::Visibility::Private),
        Ok(v1::Visibility::Public) if matches!(kind, Kind::Channel | Kind::Thread) => {
            Ok(v1::Visibility::Public)
        }
        Ok(v1::Visibility::Public) => Err(ErrorCode::KindRefused),
        Err(_) => Err(ErrorCode::InvalidField),
    }
}

fn client_id(bytes: &Bytes) -> Result<ClientId, ErrorCode> {
    match ClientId::from_slice(bytes) {
        Ok(id) if id.is_v7() => Ok(id),
        _ => Err(ErrorCode::ClientIdInvalid),
    }
}

fn require(holds: bool) -> Result<(), ErrorCode> {
    if holds {
        Ok(())
    } else {
        Err(ErrorCode::InvalidField)
    }
}

/// Seqs begin with 1.
fn target(seq: u64) -> Result<(), ErrorCode> {
    require(seq != 0)
}

fn check_message(message: &v1::Message, body_bytes_max: usize) -> Result<(), ErrorCode> {
    check_text(&message.body, message.envelope.as_ref(), body_bytes_max)?;
    check_mentions(&message.mentions)?;
    if message.reply_to.len() > limits::REPLY_TO_MAX
        || message.attachments.len() > limits::ATTACHMENTS_MAX
    {
        return Err(ErrorCode::TooManyItems);
    }
    require(!message.reply_to.contains(&0))?;
    message.attachments.iter().try_for_each(|attachment| {
        require((1..=limits::FILE_BYTES_MAX).contains(&attachment.file.len()))?;
        require(attachment.media_type.len() <= limits::MEDIA_TYPE_BYTES_MAX)?;
        require(attachment.name.len() <= limits::FILE_NAME_BYTES_MAX)
    })
}

fn check_edit(edit: &v1::Edit, body_bytes_max: usize) -> Result<(), ErrorCode> {
    target(edit.target)?;
    check_text(&edit.body, edit.envelope.as_ref(), body_bytes_max)?;
    check_mentions(&edit.mentions)
}

/// Text, or with an envelope whatever its protocol makes.
fn check_text(
    body: &[u8],
    envelope: Option<&v1::Envelope>,
    body_bytes_max: usize,
) -> Result<(), ErrorCode> {
    if body.len() > body_bytes_max {
        return Err(ErrorCode::BodyTooLarge);
    }
    match envelope {
        None if std::str::from_utf8(body).is_err() => Err(ErrorCode::BodyNotUtf8),
        None => Ok(()),
        Some(envelope) => {
            require((1..=limits::ENVELOPE_PROTOCOL_BYTES_MAX).contains(&envelope.protocol.len()))?;
            require(envelope.header.len() <= limits::ENVELOPE_HEADER_BYTES_MAX)
        }
    }
}

fn check_mentions(mentions: &[Bytes]) -> Result<(), ErrorCode> {
    if mentions.len() > limits::MENTIONS_MAX {
        return Err(ErrorCode::TooManyItems);
    }
    mentions
        .iter()
        .try_for_each(|mention| user(mention).map(|_| ()))
}

fn check_membership(membership: &v1::Membership, author: UserId) -> Result<(), ErrorCode> {
    use v1::MembershipAction as Action;

    let action = Action::try_from(membership.action).map_err(|_| ErrorCode::InvalidField)?;
    let other = optional(&membership.user, user)?.filter(|user| *user != author);
    let role = v1::Role::try_from(membership.role).map_err(|_| ErrorCode::InvalidField)?;
    require(membership.reason.len() <= limits::REASON_BYTES_MAX)?;
    match action {
        Action::Unspecified => Err(ErrorCode::InvalidField),
        // Of oneself, and of nobody else.
        Action::Join | Action::Leave => require(other.is_none() && role == v1::Role::Unspecified),
        Action::Invite => require(other.is_some()),
        // Also one's own, which may be lowered.
        Action::SetRole => require(!membership.user.is_empty()),
        Action::Remove | Action::Ban | Action::Unban => {
            require(other.is_some() && role == v1::Role::Unspecified)
        }
    }
}

fn check_settings(settings: &v1::Settings) -> Result<(), ErrorCode> {
    let v1::Settings {
        title,
        topic,
        slow_mode_s,
        write_role,
        locked,
    } = settings;
    require(
        title.is_some()
            || topic.is_some()
            || slow_mode_s.is_some()
            || write_role.is_some()
            || locked.is_some(),
    )?;
    require(
        title
            .as_ref()
            .is_none_or(|title| title.len() <= limits::TITLE_BYTES_MAX),
    )?;
    require(
        topic
            .as_ref()
            .is_none_or(|topic| topic.len() <= limits::TOPIC_BYTES_MAX),
    )?;
    require(slow_mode_s.is_none_or(|slow_mode_s| slow_mode_s as usize <= limits::SLOW_MODE_S_MAX))?;
    require(write_role.is_none_or(|role| v1::Role::try_from(role).is_ok()))
}
