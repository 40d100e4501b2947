//! Changes of membership: who comes, goes, is sent away, and with which role.

use rialto_protocol::{
    error::ErrorCode,
    ids::{ClientId, Seq, UserId},
    record::Table,
    v1::{self, MemberState, MembershipAction, Role, event::Content},
};

use crate::{
    io::Now,
    message::{Author, Receipt},
};

use super::{
    append::Refusal,
    conversation::Conversation,
    desk::{Desk, Stop, require_member},
    member::Member,
    profile::Profile,
    rules,
};

/// What becomes of the one whom a change is about.
struct Change {
    state: MemberState,
    role: Role,
}

impl Desk {
    /// Judges a membership draft and carries it out.
    pub(super) fn change_membership(
        &mut self,
        now: Now,
        conversation: &mut Conversation,
        author: Author,
        client_id: ClientId,
        asked: &v1::Membership,
    ) -> Result<Receipt, Refusal> {
        let subject = if asked.user.is_empty() {
            author.user
        } else {
            UserId::from_slice(&asked.user).map_err(|_| ErrorCode::InvalidField)?
        };
        require_member(conversation, &subject)?;
        let change = self.judge(conversation, &author.user, &subject, asked)?;
        let (_, member) = conversation.parties(&subject)?;
        // Invited by another, he would come and go as fast.
        let enters = matches!(
            asked.action(),
            MembershipAction::Join | MembershipAction::Invite
        );
        if enters
            && member.row.state() == MemberState::Left
            && let Some(wait_ms) = rules::wait_to_return_ms(member, now.unix_ms)
        {
            return Err(Refusal::Code(ErrorCode::SlowMode, wait_ms));
        }
        let mut said = asked.clone();
        said.user = subject.to_proto();
        said.set_role(change.role);
        let receipt = self.log(
            now,
            conversation,
            author,
            client_id,
            &Content::Membership(said),
        );
        if let Some(member) = conversation.member_mut(&subject) {
            let leaves = asked.action() == MembershipAction::Leave;
            member.row.left_ms = if leaves { now.unix_ms } else { 0 };
        }
        self.carry_out(conversation, author.user, subject, &change);
        Ok(receipt)
    }

    fn judge(
        &self,
        conversation: &Conversation,
        author: &UserId,
        subject: &UserId,
        asked: &v1::Membership,
    ) -> Result<Change, Stop> {
        let (profile, own) = conversation.parties(author)?;
        let (_, other) = conversation.parties(subject)?;
        rules::has_changes(profile, own)?;
        let oneself = author == subject;
        let change = match (asked.action(), oneself) {
            (MembershipAction::Join, true) => join(profile, own)?,
            (MembershipAction::Leave, true) => leave(profile, own)?,
            (MembershipAction::Invite, false) => invite(profile, own, other, asked.role())?,
            (MembershipAction::Remove, false) => {
                put_out(profile, own, other, MemberState::Removed)?
            }
            (MembershipAction::Ban, false) => put_out(profile, own, other, MemberState::Banned)?,
            (MembershipAction::Unban, false) => unban(profile, own, other)?,
            (MembershipAction::SetRole, _) => set_role(profile, own, other, asked.role(), oneself)?,
            _ => return Err(ErrorCode::InvalidField.into()),
        };
        let grows = change.state == MemberState::Joined && !other.is_joined();
        if grows && profile.members >= self.config.members_per_conversation_max {
            return Err(ErrorCode::MemberLimit.into());
        }
        Ok(change)
    }

    fn carry_out(
        &mut self,
        conversation: &mut Conversation,
        account: UserId,
        subject: UserId,
        change: &Change,
    ) {
        let seq = conversation.head.cursor.seq;
        let Some((before, after)) =
            conversation.change_state(&subject, seq, change.state, change.role)
        else {
            return;
        };
        let joined = |(state, _): (MemberState, Role)| u32::from(state == MemberState::Joined);
        let owns = |(state, role)| u32::from(state == MemberState::Joined && role == Role::Owner);
        let counts = (joined(before) != joined(after)) || (owns(before) != owns(after));
        if let Some(profile) = conversation.profile.as_mut().filter(|_| counts) {
            profile.members = (profile.members + joined(after)).saturating_sub(joined(before));
            profile.owners = (profile.owners + owns(after)).saturating_sub(owns(before));
            self.write_profile(conversation);
        }
        self.write_member(conversation, &subject);
        if let Some(member) = conversation.member_mut(&subject) {
            member.membership = member.position;
        }
        self.list(conversation, account, &subject);
        let code = match change.state {
            MemberState::Banned => ErrorCode::Banned,
            MemberState::Removed | MemberState::Left => ErrorCode::NotAMember,
            _ => return,
        };
        let touch = conversation.touch;
        self.lanes
            .get_mut(conversation.lane)
            .end_reader(touch, subject, seq, code);
    }

    /// Writes a member's row as it stands now.
    pub(super) fn write_member(&mut self, conversation: &mut Conversation, user: &UserId) {
        let id = conversation.id;
        let lane = self.lanes.get_mut(conversation.lane);
        let position = lane.open_position();
        conversation.last_position = position;
        if let Some(member) = conversation.member_mut(user) {
            member.position = position;
            lane.row(&id, Table::Member, user.as_bytes(), &member.encode());
        }
    }

    /// Writes the profile row as it stands now.
    pub(super) fn write_profile(&mut self, conversation: &mut Conversation) {
        let lane = self.lanes.get_mut(conversation.lane);
        conversation.last_position = lane.open_position();
        if let Some(profile) = &conversation.profile {
            lane.row(
                &conversation.id,
                Table::Profile,
                &[],
                &prost::Message::encode_to_vec(profile),
            );
        }
    }

    /// Passes how a member now stands on to the member's own list.
    pub(super) fn list(&mut self, conversation: &mut Conversation, account: UserId, user: &UserId) {
        let Ok((profile, member)) = conversation.parties(user) else {
            return;
        };
        let listing = member.listing(user, &conversation.id, profile);
        let listing = v1::notice::Notice::Listing(listing);
        self.notify(conversation, account, *user, listing);
    }

    /// Puts a notice into the lane's outbox, on the account of who caused it.
    pub(super) fn notify(
        &mut self,
        conversation: &mut Conversation,
        account: UserId,
        user: UserId,
        notice: v1::notice::Notice,
    ) {
        let notice = v1::Notice {
            notice: Some(notice),
        };
        conversation.last_position = self.lanes.get_mut(conversation.lane).open_position();
        let notice = prost::Message::encode_to_vec(&notice).into();
        self.lanes.notify(conversation.lane, account, user, notice);
    }
}

fn join(profile: &Profile, own: &Member) -> Result<Change, ErrorCode> {
    let role = match own.row.state() {
        MemberState::Joined => return Err(ErrorCode::MembershipUnchanged),
        MemberState::Banned => return Err(ErrorCode::Banned),
        // The last owner left it to those who had been invited. What is public he may not leave like that.
        MemberState::Invited
            if profile.owners == 0 && !profile.is_public() && own.row.role() > Role::ReadOnly =>
        {
            Role::Owner
        }
        MemberState::Invited => own.row.role(),
        _ if profile.is_public() => role_by_oneself(own),
        MemberState::Unspecified => return Err(ErrorCode::ConversationNotFound),
        _ => return Err(ErrorCode::NotAMember),
    };
    Ok(Change {
        state: MemberState::Joined,
        role,
    })
}

/// What somebody keeps of his role while he is not in: that he may only read is not undone by going and coming again.
fn role_kept(member: &Member) -> Role {
    match member.row.role() {
        Role::ReadOnly => Role::ReadOnly,
        _ => Role::Unspecified,
    }
}

/// The role of whoever enters what is public without being given one.
fn role_by_oneself(member: &Member) -> Role {
    match role_kept(member) {
        Role::Unspecified => Role::Member,
        role => role,
    }
}

fn leave(profile: &Profile, own: &Member) -> Result<Change, ErrorCode> {
    match own.row.state() {
        // Others enter what is public when he is gone, whoever they are: somebody must be there to moderate.
        MemberState::Joined
            if own.role() == Role::Owner
                && profile.owners == 1
                && (profile.members > 1 || profile.is_public()) =>
        {
            Err(ErrorCode::LastOwner)
        }
        MemberState::Joined | MemberState::Invited => Ok(Change {
            state: MemberState::Left,
            role: role_kept(own),
        }),
        _ => rules::may_read(profile, own).and(Err(ErrorCode::NotAMember)),
    }
}

fn invite(
    profile: &Profile,
    own: &Member,
    other: &Member,
    role: Role,
) -> Result<Change, ErrorCode> {
    rules::has_role(profile, own, Role::Member)?;
    let role = if role == Role::Unspecified {
        Role::Member
    } else {
        role
    };
    let role = match rules::may_give(profile, own, Role::Unspecified, role) {
        Ok(()) => role,
        // What is public anybody may enter: there every member may invite to the place that the other has by himself.
        Err(_) if profile.is_public() && role == Role::Member => role_by_oneself(other),
        Err(code) => return Err(code),
    };
    match other.row.state() {
        MemberState::Joined | MemberState::Invited => Err(ErrorCode::MembershipUnchanged),
        MemberState::Banned => Err(ErrorCode::Banned),
        _ => Ok(Change {
            state: MemberState::Invited,
            role,
        }),
    }
}

fn put_out(
    profile: &Profile,
    own: &Member,
    other: &Member,
    state: MemberState,
) -> Result<Change, ErrorCode> {
    rules::has_role(profile, own, Role::Moderator)?;
    rules::may_put_out(profile, own, other.role())?;
    let gone = !matches!(
        other.row.state(),
        MemberState::Joined | MemberState::Invited
    );
    let unchanged = if state == MemberState::Removed {
        gone
    } else {
        other.row.state() == state
    };
    if unchanged {
        return Err(ErrorCode::MembershipUnchanged);
    }
    if other.role() == Role::Owner && profile.owners == 1 {
        return Err(ErrorCode::LastOwner);
    }
    Ok(Change {
        state,
        role: role_kept(other),
    })
}

fn unban(profile: &Profile, own: &Member, other: &Member) -> Result<Change, ErrorCode> {
    rules::has_role(profile, own, Role::Moderator)?;
    if other.row.state() != MemberState::Banned {
        return Err(ErrorCode::MembershipUnchanged);
    }
    Ok(Change {
        state: MemberState::Left,
        role: role_kept(other),
    })
}

fn set_role(
    profile: &Profile,
    own: &Member,
    other: &Member,
    role: Role,
    oneself: bool,
) -> Result<Change, ErrorCode> {
    let role = if role == Role::Unspecified {
        Role::Member
    } else {
        role
    };
    let steps_down = oneself && role < own.role();
    rules::has_role(
        profile,
        own,
        if steps_down {
            Role::ReadOnly
        } else {
            Role::Admin
        },
    )?;
    if !other.is_joined() {
        return Err(ErrorCode::NotAMember);
    }
    if other.role() == role {
        return Err(ErrorCode::MembershipUnchanged);
    }
    if !steps_down {
        rules::may_give(profile, own, other.role(), role)?;
    }
    if other.role() == Role::Owner && profile.owners == 1 {
        return Err(ErrorCode::LastOwner);
    }
    Ok(Change {
        state: MemberState::Joined,
        role,
    })
}

impl Conversation {
    /// The profile and a member who is in memory.
    pub(super) fn parties(&self, user: &UserId) -> Result<(&Profile, &Member), Stop> {
        let profile = self
            .profile
            .as_ref()
            .ok_or(ErrorCode::ConversationNotFound)?;
        match self.member(user) {
            Some(member) => Ok((profile, member)),
            None => Err(super::work::Need::Member(*user).into()),
        }
    }

    /// Sets a member's state; returns state and role before and after.
    fn change_state(
        &mut self,
        user: &UserId,
        seq: Seq,
        state: MemberState,
        role: Role,
    ) -> Option<((MemberState, Role), (MemberState, Role))> {
        let member = self.member_mut(user)?;
        let before = (member.row.state(), member.row.role());
        member.row.set_state(state);
        member.row.set_role(role);
        member.row.since_seq = seq.0;
        Some((before, (state, role)))
    }
}
