//! Opening conversations: asked for, or by themselves where a user's own are concerned.

use rialto_protocol::{
    error::ErrorCode,
    frame::FrameKind,
    ids::{ClientId, ConversationId, DeviceId, UserId},
    v1::{self, ConversationKind, MemberState, Role, Visibility, event::Content},
};

use crate::{
    effects::Effects,
    io::Now,
    message::{Author, ToOwner},
};

use super::{
    conversation::Conversation,
    desk::{Desk, Stop},
    member::Member,
    profile::Profile,
    rules,
    work::Work,
};

/// What a conversation begins with.
struct Opening<'a> {
    created: v1::Created,
    /// As in the profile.
    peer: bytes::Bytes,
    /// All of them, with their roles.
    members: &'a [(UserId, Role)],
}

impl Desk {
    /// Opens a conversation, or says that it is there.
    pub(super) fn create(
        &mut self,
        now: Now,
        conversation: &mut Conversation,
        work: &Work,
        fx: &mut Effects,
    ) -> Result<(), Stop> {
        let ToOwner::Create {
            origin,
            author,
            create,
            service,
            ..
        } = &work.ask
        else {
            return Ok(());
        };
        let existed = match &conversation.profile {
            Some(profile) if is_the_same(profile, author.user, create) => {
                let (profile, member) = conversation.parties(&author.user)?;
                rules::may_read(profile, member)?;
                true
            }
            Some(_) => return Err(ErrorCode::ConversationExists.into()),
            None => {
                let account = if *service {
                    UserId::SYSTEM
                } else {
                    author.user
                };
                self.open_asked(now, conversation, *author, account, create, fx)?;
                false
            }
        };
        let body = v1::CreatedConversation {
            conversation: conversation.id.to_proto(),
            head: Some(conversation.head.cursor.into()),
            existed,
        };
        self.answer(
            conversation,
            *origin,
            FrameKind::CreatedConversation,
            &body,
            fx,
        );
        Ok(())
    }

    fn open_asked(
        &mut self,
        now: Now,
        conversation: &mut Conversation,
        author: Author,
        account: UserId,
        create: &v1::Create,
        fx: &mut Effects,
    ) -> Result<(), ErrorCode> {
        let client_id =
            ClientId::from_slice(&create.client_id).map_err(|_| ErrorCode::ClientIdInvalid)?;
        let others = create.members.iter().map(|user| UserId::from_slice(user));
        let others = others
            .collect::<Result<Vec<UserId>, _>>()
            .map_err(|_| ErrorCode::InvalidField)?;
        let direct = create.kind() == ConversationKind::Direct;
        let first_role = if direct { Role::Member } else { Role::Owner };
        let mut members = vec![(author.user, first_role)];
        members.extend(others.iter().map(|user| (*user, Role::Member)));
        if members.len() > self.config.members_per_conversation_max as usize {
            return Err(ErrorCode::MemberLimit);
        }
        self.may_notify(account, members.len(), fx)?;
        let peer = if direct {
            others.first().map(UserId::to_proto).unwrap_or_default()
        } else {
            bytes::Bytes::new()
        };
        let created = v1::Created {
            kind: create.kind,
            visibility: create.visibility,
            title: create.title.clone(),
            members: others.iter().map(UserId::to_proto).collect(),
            parent: create.parent.clone(),
        };
        self.open(
            now,
            conversation,
            author,
            client_id,
            Opening {
                created,
                peer,
                members: &members,
            },
        );
        for (user, _) in members {
            self.list(conversation, account, &user);
        }
        Ok(())
    }

    /// Opens the conversation when it is the user's own inbox or notes.
    pub(super) fn open_if_own(
        &mut self,
        now: Now,
        conversation: &mut Conversation,
        user: UserId,
        fx: &mut Effects,
    ) -> Result<(), ErrorCode> {
        if conversation.id == ConversationId::of_inbox(user) {
            self.open_own(now, conversation, user, ConversationKind::Inbox);
        } else if conversation.id == ConversationId::of_self(user) {
            self.may_notify(user, 1, fx)?;
            self.open_own(now, conversation, user, ConversationKind::Self_);
        }
        Ok(())
    }

    /// Opens a user's inbox or notes, which are there as soon as somebody needs them.
    pub(super) fn open_own(
        &mut self,
        now: Now,
        conversation: &mut Conversation,
        user: UserId,
        kind: ConversationKind,
    ) {
        let role = if kind == ConversationKind::Inbox {
            Role::ReadOnly
        } else {
            Role::Owner
        };
        let created = v1::Created {
            kind: kind as i32,
            visibility: Visibility::Private as i32,
            title: String::new(),
            members: vec![user.to_proto()],
            parent: bytes::Bytes::new(),
        };
        let author = Author {
            user: UserId::SYSTEM,
            device: DeviceId::from_bytes([0; 16]),
        };
        let client_id = own_client_id(now, &conversation.id);
        let opening = Opening {
            created,
            peer: user.to_proto(),
            members: &[(user, role)],
        };
        self.open(now, conversation, author, client_id, opening);
        if kind == ConversationKind::Self_ {
            self.list(conversation, user, &user);
        }
    }

    fn open(
        &mut self,
        now: Now,
        conversation: &mut Conversation,
        author: Author,
        client_id: ClientId,
        Opening {
            created,
            peer,
            members,
        }: Opening<'_>,
    ) {
        let joined = u32::try_from(members.len()).unwrap_or(u32::MAX);
        let owners = members
            .iter()
            .filter(|(_, role)| *role == Role::Owner)
            .count();
        // Nobody was here before: who is put in has no row that would have to be read.
        for (user, role) in members {
            let mut member = Member::default();
            member.row.set_state(MemberState::Joined);
            member.row.set_role(*role);
            member.row.since_seq = 1;
            if conversation.put_member(*user, member) {
                self.members += 1;
            }
        }
        let profile = Profile {
            kind: created.kind,
            visibility: created.visibility,
            title: created.title.clone(),
            created_by: author.user.to_proto(),
            created_ms: now.unix_ms,
            parent: created.parent.clone(),
            members: joined,
            owners: u32::try_from(owners).unwrap_or(u32::MAX),
            peer,
            ..Profile::default()
        };
        self.log(
            now,
            conversation,
            author,
            client_id,
            &Content::Created(created),
        );
        conversation.profile = Some(profile);
        self.write_profile(conversation);
        for (user, _) in members {
            self.write_member(conversation, user);
        }
    }
}

/// Whether asking again means the conversation that is there.
fn is_the_same(profile: &Profile, user: UserId, create: &v1::Create) -> bool {
    profile.kind == create.kind
        && match profile.kind() {
            // The id follows from both users, whoever of them asks.
            ConversationKind::Direct | ConversationKind::Self_ => true,
            ConversationKind::Inbox => false,
            _ => profile.creator() == user,
        }
}

fn own_client_id(now: Now, conversation: &ConversationId) -> ClientId {
    let mut entropy = [0; 10];
    entropy.copy_from_slice(&conversation.as_bytes()[..10]);
    ClientId::v7(now.unix_ms, entropy)
}
