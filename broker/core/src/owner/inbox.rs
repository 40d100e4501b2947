//! Inboxes: notices of what happened elsewhere become events; the user's list of conversations is made from them.

use bytes::Bytes;
use prost::Message as _;
use rialto_protocol::{
    error::ErrorCode,
    ids::{ClientId, UserId},
    record::Table,
    v1::{self, ConversationKind, event::Content},
};

use crate::{
    effects::Effects,
    io::{Now, Query},
    message::{Author, Message, ToOwner},
};

use super::{
    conversation::Conversation,
    desk::{Desk, Stop, require_member},
    outbox::device_of,
    read::ReadJob,
    work::{Load, Work},
};

impl Desk {
    /// Appends a notice, once, and tells the lane that passed it on when it is durable. One that says how a conversation stood
    /// before a later one said how it stands is not appended any more.
    pub(super) fn keep_notice(
        &mut self,
        now: Now,
        conversation: &mut Conversation,
        work: &Work,
        fx: &mut Effects,
    ) -> Result<(), Stop> {
        let ToOwner::Notify {
            from,
            lane,
            item,
            client_id,
            user,
            notice,
            is_outdated,
        } = &work.ask
        else {
            return Ok(());
        };
        let author = Author {
            user: UserId::SYSTEM,
            device: device_of(*lane),
        };
        if !conversation.exists() {
            self.open_own(now, conversation, *user, ConversationKind::Inbox);
        }
        require_member(conversation, &author.user)?;
        let before = match self.appended_before(now, conversation, author, *client_id, &work.known)
        {
            // However long it waited for its turn: refused, it would come for ever.
            Err(Stop::Refused(ErrorCode::ClientIdTooOld)) => None,
            before => before?,
        };
        if before.is_none() {
            // A notice that cannot be read was not written by this version: it is dropped, or it would come for ever.
            match v1::Notice::decode(notice.clone()) {
                // Behind the later one, whoever follows would take it for how the conversation stands.
                Ok(notice) if *is_outdated && listing_of(&notice).is_some() => {}
                Ok(notice) => self.log_notice(now, conversation, author, *client_id, notice),
                Err(_) => {}
            }
        }
        let done = ToOwner::PassedOn {
            lane: *lane,
            item: *item,
            kept: true,
        };
        self.reply(conversation, *from, Message::ToOwner(done), fx);
        Ok(())
    }

    /// Appends a notice; one of how a conversation stands goes into the user's list too.
    fn log_notice(
        &mut self,
        now: Now,
        conversation: &mut Conversation,
        author: Author,
        client_id: ClientId,
        notice: v1::Notice,
    ) {
        let listing = listing_of(&notice)
            .map(|listing| (listing.conversation.clone(), listing.encode_to_vec()));
        self.log(
            now,
            conversation,
            author,
            client_id,
            &Content::Notice(notice),
        );
        if let Some((key, row)) = listing {
            self.lanes
                .get_mut(conversation.lane)
                .row(&conversation.id, Table::Listing, &key, &row);
        }
    }

    /// A page of the user's own list.
    pub(super) fn conversations(
        &mut self,
        conversation: &mut Conversation,
        work: &Work,
        fx: &mut Effects,
    ) -> Result<(), Stop> {
        let ToOwner::Conversations {
            origin,
            after,
            limit,
            ..
        } = &work.ask
        else {
            return Ok(());
        };
        let after = after.map_or_else(Bytes::new, |after| after.to_proto());
        let limit = *limit as usize;
        let query = Query::Scan {
            conversation: conversation.id,
            table: Table::Listing,
            after,
            limit: limit + 1,
        };
        self.load(
            work.user(),
            conversation.id,
            Load::Read(ReadJob::Conversations {
                origin: *origin,
                limit,
            }),
            query,
            fx,
        );
        Ok(())
    }
}

/// How a conversation stands, if that is what a notice says.
fn listing_of(notice: &v1::Notice) -> Option<&v1::Listing> {
    match &notice.notice {
        Some(v1::notice::Notice::Listing(listing)) => Some(listing),
        _ => None,
    }
}
