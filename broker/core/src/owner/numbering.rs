//! Numbering: what was decided becomes the conversation's next event, and whoever it mentions is told.

use bytes::BytesMut;
use rialto_protocol::{
    event::{self, EventHead},
    ids::{ClientId, Cursor, Ordinal, Seq, UserId},
    v1::{self, event::Content},
};

use crate::{
    io::Now,
    message::{Author, Receipt},
};

use super::{
    conversation::{Conversation, Recent},
    desk::Desk,
    entry::LogEnd,
};

impl Desk {
    /// Gives an event the next number and writes it into the lane's open entry.
    pub(super) fn log(
        &mut self,
        now: Now,
        conversation: &mut Conversation,
        author: Author,
        client_id: ClientId,
        content: &Content,
    ) -> Receipt {
        let is_message = matches!(content, Content::Message(_));
        self.number(
            now,
            conversation,
            author,
            client_id,
            is_message,
            |buf, head| {
                event::encode_into(buf, head, content);
            },
        )
    }

    /// The same for a message that is encoded already; why inlined, [`Desk::write_message`] says.
    #[inline(always)]
    pub(super) fn log_message(
        &mut self,
        now: Now,
        conversation: &mut Conversation,
        author: Author,
        client_id: ClientId,
        message: &[u8],
    ) -> Receipt {
        self.number(now, conversation, author, client_id, true, |buf, head| {
            event::encode_message_into(buf, head, message);
        })
    }

    #[inline(always)]
    fn number(
        &mut self,
        now: Now,
        conversation: &mut Conversation,
        author: Author,
        client_id: ClientId,
        is_message: bool,
        encode: impl FnOnce(&mut BytesMut, &EventHead),
    ) -> Receipt {
        let lane = self.lanes.begin(conversation.lane, now);
        let seq = conversation.head.cursor.seq.next();
        let ordinal = Ordinal(conversation.head.ordinal.0 + u64::from(is_message));
        let (epoch, time_ms) = (lane.epoch(), lane.time_ms());
        let Author {
            user: sender,
            device,
        } = author;
        let head = EventHead {
            seq,
            epoch,
            time_ms,
            ordinal,
            sender,
            device,
            client_id,
        };
        lane.event(conversation.id, &mut conversation.touch, &head, |buf| {
            encode(buf, &head);
        });
        let position = lane.open_position();
        conversation.head = LogEnd {
            cursor: Cursor { epoch, seq },
            ordinal,
            time_ms,
        };
        conversation.last_position = position;
        let mut before = Seq(0);
        if let Some(member) = conversation.member_mut(&sender) {
            (before, _) = std::mem::replace(&mut member.last_sent, (seq, ordinal));
            member.note_device(device, client_id);
            member.position = position;
            if is_message {
                member.row.last_message_ms = now.unix_ms;
            }
        }
        let recent = Recent {
            head,
            before,
            is_message,
            deleted: false,
        };
        conversation.note_event(recent, self.config.recent_events_max);
        Receipt::Kept {
            epoch,
            seq,
            time_ms,
            duplicate: false,
        }
    }

    /// Tells members that they were mentioned at `seq`, and keeps it in their rows.
    pub(super) fn mention(
        &mut self,
        conversation: &mut Conversation,
        author: UserId,
        seq: Seq,
        mentioned: &[UserId],
    ) {
        for user in mentioned {
            let head = conversation.head.ordinal;
            let Some(member) = conversation.member_mut(user) else {
                continue;
            };
            if !member.mention(seq) {
                continue;
            }
            let (unread_mentions, unread) = (member.unread_mentions(), member.unread(head));
            self.write_member(conversation, user);
            let mentioned = v1::Mentioned {
                conversation: conversation.id.to_proto(),
                seq: seq.0,
                sender: author.to_proto(),
                unread_mentions,
                unread,
            };
            self.notify(
                conversation,
                author,
                *user,
                v1::notice::Notice::Mentioned(mentioned),
            );
        }
    }
}
