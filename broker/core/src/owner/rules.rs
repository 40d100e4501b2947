//! Who may do what: pure decisions over a profile and members. The table stands in docs/PROTOCOL.md.

use rialto_protocol::{
    error::ErrorCode,
    v1::{ConversationKind, MemberState, Role},
};

use super::{member::Member, profile::Profile, work::Target};

/// Least time from leaving to entering again or being invited, milliseconds. Who left by mistake can wait as long; who comes
/// and goes on purpose, where he may not even write, must not be able to fill the log that all others read.
const RETURN_PACE_MS: u64 = 5_000;

/// May read: members, and everybody where it is public, but nobody who is banned.
pub(super) fn may_read(profile: &Profile, member: &Member) -> Result<(), ErrorCode> {
    match member.row.state() {
        MemberState::Joined => Ok(()),
        MemberState::Banned => Err(ErrorCode::Banned),
        _ if profile.is_public() => Ok(()),
        MemberState::Unspecified => Err(ErrorCode::ConversationNotFound),
        MemberState::Invited | MemberState::Left | MemberState::Removed => {
            Err(ErrorCode::NotAMember)
        }
    }
}

/// The role that a member's rights go by. Where nobody who is in is owner, admins have those of one: else nobody could ever make
/// one again.
pub(super) fn role_of(profile: &Profile, member: &Member) -> Role {
    match member.role() {
        Role::Admin if profile.owners == 0 => Role::Owner,
        role => role,
    }
}

/// Is in, with at least this role.
pub(super) fn has_role(profile: &Profile, member: &Member, least: Role) -> Result<(), ErrorCode> {
    if member.is_joined() {
        return if role_of(profile, member) >= least {
            Ok(())
        } else {
            Err(ErrorCode::RoleTooLow)
        };
    }
    // Who may not even read is told what a reader would be told; who may read is told that he is not in.
    may_read(profile, member).and(Err(ErrorCode::NotAMember))
}

/// Is not written by the system alone. Ids follow from users: who may not read must not learn that there is one.
fn is_for_users(profile: &Profile, member: &Member) -> Result<(), ErrorCode> {
    if profile.kind() == ConversationKind::Inbox {
        may_read(profile, member)?;
        return Err(ErrorCode::WrittenBySystemOnly);
    }
    Ok(())
}

/// May write a message now, which is `now_ms`.
pub(super) fn may_write(
    profile: &Profile,
    member: &Member,
    now_ms: u64,
) -> Result<(), (ErrorCode, u32)> {
    let plain = |code| (code, 0);
    is_for_users(profile, member).map_err(plain)?;
    has_role(profile, member, Role::Member.max(profile.least_writer())).map_err(plain)?;
    if profile.locked && member.role() < Role::Admin {
        return Err(plain(ErrorCode::ConversationLocked));
    }
    let pace_ms = u64::from(profile.slow_mode_s) * 1_000;
    if member.role() < Role::Moderator
        && let Some(wait_ms) = wait_ms(now_ms, member.row.last_message_ms, pace_ms)
    {
        return Err((ErrorCode::SlowMode, wait_ms));
    }
    Ok(())
}

/// How long somebody has to wait who may do something every `pace_ms` and did at `last_ms` (0: never); `None`: not at all.
/// That it was done in time to come shows that the clock had leapt: that counts as never, lest it be waited for.
fn wait_ms(now_ms: u64, last_ms: u64, pace_ms: u64) -> Option<u32> {
    let since_ms = now_ms.checked_sub(last_ms).filter(|_| last_ms > 0)?;
    let wait_ms = pace_ms
        .checked_sub(since_ms)
        .filter(|wait_ms| *wait_ms > 0)?;
    Some(u32::try_from(wait_ms).unwrap_or(u32::MAX))
}

/// How long one who left has to wait before he enters again or is invited, milliseconds; `None`: not at all.
pub(super) fn wait_to_return_ms(member: &Member, now_ms: u64) -> Option<u32> {
    wait_ms(now_ms, member.row.left_ms, RETURN_PACE_MS)
}

/// May delete what he himself wrote.
pub(super) fn may_delete(profile: &Profile, member: &Member) -> Result<(), ErrorCode> {
    is_for_users(profile, member)?;
    has_role(profile, member, Role::Member)
}

/// May edit what he himself wrote, react to others' messages and vote on them.
pub(super) fn may_take_part(profile: &Profile, member: &Member) -> Result<(), ErrorCode> {
    may_delete(profile, member)?;
    if profile.locked && member.role() < Role::Admin {
        Err(ErrorCode::ConversationLocked)
    } else {
        Ok(())
    }
}

/// The event can be referred to: it is a message that is still there.
pub(super) fn is_message(target: Option<Target>) -> Result<Target, ErrorCode> {
    match target {
        Some(target) if target.deleted => Err(ErrorCode::TargetDeleted),
        Some(target) if target.is_message => Ok(target),
        _ => Err(ErrorCode::TargetNotFound),
    }
}

/// May pin: moderators; in small private kinds every member.
pub(super) fn may_pin(profile: &Profile, member: &Member) -> Result<(), ErrorCode> {
    let least = match profile.kind() {
        ConversationKind::Direct | ConversationKind::Self_ => Role::Member,
        _ => Role::Moderator,
    };
    may_take_part(profile, member).and_then(|()| has_role(profile, member, least))
}

/// May change settings.
pub(super) fn may_set(profile: &Profile, member: &Member) -> Result<(), ErrorCode> {
    has_changes(profile, member)?;
    has_role(profile, member, Role::Admin)
}

/// Members and settings of this kind change at all; told only to who may know of the conversation.
pub(super) fn has_changes(profile: &Profile, member: &Member) -> Result<(), ErrorCode> {
    is_for_users(profile, member)?;
    match profile.kind() {
        ConversationKind::Direct | ConversationKind::Self_ => {
            may_read(profile, member).and(Err(ErrorCode::KindRefused))
        }
        _ => Ok(()),
    }
}

/// May give a role to somebody who has `current` now.
pub(super) fn may_give(
    profile: &Profile,
    author: &Member,
    current: Role,
    role: Role,
) -> Result<(), ErrorCode> {
    let own = role_of(profile, author);
    if own == Role::Owner || (own >= Role::Admin && current < own && role < own) {
        Ok(())
    } else {
        Err(ErrorCode::RoleTooLow)
    }
}

/// May remove or ban somebody who has `current` now.
pub(super) fn may_put_out(
    profile: &Profile,
    author: &Member,
    current: Role,
) -> Result<(), ErrorCode> {
    let own = role_of(profile, author);
    if own >= Role::Moderator && (current < own || own == Role::Owner) {
        Ok(())
    } else {
        Err(ErrorCode::RoleTooLow)
    }
}
