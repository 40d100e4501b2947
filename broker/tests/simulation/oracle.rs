//! What is true: the durable log of every conversation, read off the entries as they become durable.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use prost::Message as _;
use rialto_core::io::Entry;
use rialto_protocol::{
    event::{self, EventHead},
    ids::{ConversationId, Seq, UserId},
    record::{Record, Records},
    v1::{self, MembershipAction, event::Content},
};

/// A guarantee was broken.
#[derive(Clone, Debug)]
pub(crate) struct Violation {
    pub(crate) guarantee: &'static str,
    pub(crate) what: String,
}

impl Violation {
    pub(crate) fn new(guarantee: &'static str, what: impl Into<String>) -> Self {
        Self {
            guarantee,
            what: what.into(),
        }
    }
}

#[derive(Default)]
pub(crate) struct Log {
    pub(crate) events: Vec<(EventHead, Bytes)>,
    /// Who was put out, and by which event.
    gone: BTreeMap<UserId, Seq>,
    pub(crate) members: BTreeSet<UserId>,
    ids: BTreeSet<(UserId, [u8; 16], [u8; 16])>,
}

/// The durable truth.
#[derive(Default)]
pub(crate) struct Oracle {
    pub(crate) logs: BTreeMap<ConversationId, Log>,
    /// Mentions that have to reach an inbox: who, where, by which event.
    pub(crate) mentions: BTreeSet<(UserId, ConversationId, Seq)>,
    pub(crate) appended: u64,
}

impl Oracle {
    /// Takes in an entry that has become durable.
    pub(crate) fn learn(&mut self, entry: &Entry, violations: &mut Vec<Violation>) {
        for record in Records::new(entry.records.clone()) {
            match record.expect("an owner writes whole records") {
                Record::Event {
                    conversation,
                    event,
                } => self.learn_event(conversation, event, violations),
                _ => continue,
            }
        }
    }

    fn learn_event(
        &mut self,
        conversation: ConversationId,
        bytes: Bytes,
        violations: &mut Vec<Violation>,
    ) {
        let head = event::peek(&bytes).expect("an owner writes whole events");
        self.appended += 1;
        let log = self.logs.entry(conversation).or_default();
        let expected = log.events.len() as u64 + 1;
        let epoch = log.events.last().map_or(head.epoch, |(last, _)| last.epoch);
        if head.seq.0 != expected || head.epoch < epoch {
            let what = format!(
                "{conversation}: {} of {} after {expected} of {epoch}",
                head.seq, head.epoch
            );
            violations.push(Violation::new("G2", what));
        }
        if !log.ids.insert((
            head.sender,
            *head.device.as_bytes(),
            *head.client_id.as_bytes(),
        )) {
            violations.push(Violation::new(
                "G3",
                format!("{conversation}: {} was appended again", head.client_id),
            ));
        }
        let content = v1::Event::decode(bytes.clone())
            .expect("an owner writes events")
            .content;
        match content {
            Some(Content::Created(created)) => {
                log.members = created
                    .members
                    .iter()
                    .filter_map(|user| UserId::from_slice(user).ok())
                    .collect();
                log.members.insert(head.sender);
            }
            Some(Content::Membership(membership)) => {
                let user = UserId::from_slice(&membership.user).expect("the owner fills it in");
                match membership.action() {
                    MembershipAction::Join => {
                        log.members.insert(user);
                        log.gone.remove(&user);
                    }
                    MembershipAction::Invite => {}
                    _ => {
                        log.members.remove(&user);
                        log.gone.insert(user, head.seq);
                    }
                }
            }
            Some(Content::Message(message)) => {
                let mentions = message
                    .mentions
                    .iter()
                    .filter_map(|user| UserId::from_slice(user).ok());
                for user in
                    mentions.filter(|user| *user != head.sender && log.members.contains(user))
                {
                    self.mentions.insert((user, conversation, head.seq));
                }
            }
            _ => {}
        }
        log.events.push((head, bytes));
    }

    pub(crate) fn event(
        &self,
        conversation: &ConversationId,
        seq: u64,
    ) -> Option<&(EventHead, Bytes)> {
        self.logs
            .get(conversation)?
            .events
            .get(usize::try_from(seq).ok()?.checked_sub(1)?)
    }

    /// The event after which a user may not read, as the durable log stands now.
    pub(crate) fn gone_at(&self, conversation: &ConversationId, user: &UserId) -> Option<Seq> {
        self.logs.get(conversation)?.gone.get(user).copied()
    }

    /// Every mention stands in its inbox exactly once.
    pub(crate) fn check_mentions(&self, violations: &mut Vec<Violation>) {
        let mut arrived: BTreeMap<(UserId, ConversationId, Seq), u32> = BTreeMap::new();
        let users: BTreeSet<UserId> = self.mentions.iter().map(|(user, ..)| *user).collect();
        for user in users {
            let Some(inbox) = self.logs.get(&ConversationId::of_inbox(user)) else {
                continue;
            };
            for (_, bytes) in &inbox.events {
                let content = v1::Event::decode(bytes.clone())
                    .expect("an owner writes events")
                    .content;
                if let Some(Content::Notice(v1::Notice {
                    notice: Some(v1::notice::Notice::Mentioned(mentioned)),
                })) = content
                {
                    let conversation =
                        ConversationId::from_slice(&mentioned.conversation).expect("an id");
                    *arrived
                        .entry((user, conversation, Seq(mentioned.seq)))
                        .or_default() += 1;
                }
            }
        }
        for mention in &self.mentions {
            match arrived.get(mention) {
                Some(1) => {}
                Some(count) => violations.push(Violation::new(
                    "G3",
                    format!("{mention:?} arrived {count} times"),
                )),
                None => violations.push(Violation::new("G4", format!("{mention:?} never arrived"))),
            }
        }
    }
}
