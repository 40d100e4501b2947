//! One user's relation to one conversation: a row, and what follows from the user's own events.

use bytes::Bytes;
use prost::Message as _;
use rialto_protocol::{
    ids::{ClientId, ConversationId, DeviceId, Ordinal, Position, Seq, UserId},
    limits,
    v1::{self, MemberState, Role},
};
use smallvec::SmallVec;

use crate::io::StoredSent;

use super::profile::Profile;

/// Unread mentions that are kept of one member, those of the newest messages; beyond it the count stands still.
pub(super) const MENTIONS_KEPT: usize = limits::UNREAD_MENTIONS_MAX;
/// Devices of one member of which the newest `client_id` is kept in memory; others are looked up.
const DEVICES_KEPT: usize = 16;

/// The row, as it is stored. Field numbers are on disk: never used again.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct MemberRow {
    #[prost(enumeration = "MemberState", tag = "1")]
    pub(super) state: i32,
    #[prost(enumeration = "Role", tag = "2")]
    pub(super) role: i32,
    #[prost(uint64, tag = "3")]
    pub(super) since_seq: u64,
    #[prost(uint64, tag = "4")]
    pub(super) read_seq: u64,
    #[prost(uint64, tag = "5")]
    pub(super) read_ordinal: u64,
    #[prost(uint64, tag = "6")]
    pub(super) delivered_seq: u64,
    /// Head at the last mark as unread: own events after it move the marker again, earlier ones do not.
    #[prost(uint64, tag = "7")]
    pub(super) unread_at_seq: u64,
    #[prost(bool, tag = "8")]
    pub(super) hidden: bool,
    #[prost(uint64, tag = "9")]
    pub(super) muted_until_ms: u64,
    /// Seqs of mentions not read, rising.
    #[prost(uint64, repeated, tag = "10")]
    pub(super) mentions: Vec<u64>,
    /// When the last message came by the clock, for slow mode; written with each message only while that is on.
    #[prost(uint64, tag = "11")]
    pub(super) last_message_ms: u64,
    /// When the member left of himself by the clock, milliseconds since 1970; 0: never, or he is in again.
    #[prost(uint64, tag = "12")]
    pub(super) left_ms: u64,
}

/// A member in memory.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Member {
    pub(super) row: MemberRow,
    /// The user's last event, and the ordinal there.
    pub(super) last_sent: (Seq, Ordinal),
    /// Newest `client_id` a device.
    devices: SmallVec<[(DeviceId, ClientId); 1]>,
    /// There are devices that `devices` does not hold.
    more_devices: bool,
    /// Entry of the last change.
    pub(super) position: Position,
    /// Entry of the last change of state or role.
    pub(super) membership: Position,
}

/// What is known of a `client_id` without a look-up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Novelty {
    /// It is newer than everything the device has sent here: new.
    New,
    /// It may have been here before.
    Unknown,
}

impl Member {
    pub(super) fn load(
        row: Option<&Bytes>,
        sent: &[StoredSent],
        more_devices: bool,
    ) -> Option<Self> {
        let row = match row {
            Some(row) => MemberRow::decode(row.clone()).ok()?,
            None => MemberRow::default(),
        };
        let mut member = Self {
            row,
            more_devices,
            ..Self::default()
        };
        for sent in sent {
            member.last_sent = member.last_sent.max((sent.seq, sent.ordinal));
            member.note_device(sent.device, sent.newest);
        }
        Some(member)
    }

    pub(super) fn is_joined(&self) -> bool {
        self.row.state() == MemberState::Joined
    }

    /// The role that counts: none for who is not in.
    pub(super) fn role(&self) -> Role {
        if self.is_joined() {
            self.row.role()
        } else {
            Role::Unspecified
        }
    }

    pub(super) fn novelty(&self, device: DeviceId, client_id: ClientId) -> Novelty {
        match self.devices.iter().find(|(known, _)| *known == device) {
            Some((_, newest)) if client_id > *newest => Novelty::New,
            Some(_) => Novelty::Unknown,
            None if self.more_devices => Novelty::Unknown,
            None => Novelty::New,
        }
    }

    /// The device has appended under this id.
    pub(super) fn note_device(&mut self, device: DeviceId, client_id: ClientId) {
        if let Some((_, newest)) = self.devices.iter_mut().find(|(known, _)| *known == device) {
            *newest = client_id.max(*newest);
            return;
        }
        if self.devices.len() == DEVICES_KEPT {
            let oldest = (0..self.devices.len())
                .min_by_key(|index| self.devices[*index].1)
                .unwrap_or(0);
            self.devices.swap_remove(oldest);
            self.more_devices = true;
        }
        self.devices.push((device, client_id));
    }

    /// How far the member has read: as marked, or up to the own last event, which counts as read.
    pub(super) fn read(&self) -> (Seq, Ordinal) {
        let marked = (Seq(self.row.read_seq), Ordinal(self.row.read_ordinal));
        if self.last_sent.0.0 > self.row.unread_at_seq {
            marked.max(self.last_sent)
        } else {
            marked
        }
    }

    pub(super) fn marker(&self) -> v1::Marker {
        let (seq, ordinal) = self.read();
        v1::Marker {
            read_seq: seq.0,
            read_ordinal: ordinal.0,
            delivered_seq: self.row.delivered_seq.max(seq.0),
        }
    }

    /// Messages beyond the marker, the head's ordinal given; none of one who is not in.
    pub(super) fn unread(&self, head: Ordinal) -> u64 {
        if self.is_joined() {
            head.0.saturating_sub(self.read().1.0)
        } else {
            0
        }
    }

    /// Mentions beyond the marker; none of one who is not in.
    pub(super) fn unread_mentions(&self) -> u32 {
        if !self.is_joined() {
            return 0;
        }
        let read = self.read().0.0;
        let count = self.row.mentions.iter().filter(|seq| **seq > read).count();
        u32::try_from(count).unwrap_or(u32::MAX)
    }

    /// Adds a mention; read ones leave. `false`: it was there, as after an edit of an edit.
    pub(super) fn mention(&mut self, seq: Seq) -> bool {
        if self.row.mentions.contains(&seq.0) {
            return false;
        }
        let read = self.read().0.0;
        self.row.mentions.retain(|mention| *mention > read);
        // An edit may mention in a message that is older than those that are kept.
        self.row.mentions.push(seq.0);
        self.row.mentions.sort_unstable();
        let surplus = self.row.mentions.len().saturating_sub(MENTIONS_KEPT);
        self.row.mentions.drain(..surplus);
        true
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        self.row.encode_to_vec()
    }

    /// What the user's own list is to hold of the conversation.
    pub(super) fn listing(
        &self,
        user: &UserId,
        conversation: &ConversationId,
        profile: &Profile,
    ) -> v1::Listing {
        v1::Listing {
            conversation: conversation.to_proto(),
            kind: profile.kind,
            visibility: profile.visibility,
            title: profile.title.clone(),
            state: self.row.state,
            role: self.row.role,
            hidden: self.row.hidden,
            muted_until_ms: self.row.muted_until_ms,
            marker: Some(self.marker()),
            peer: profile.peer_of(user),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(time_ms: u64) -> ClientId {
        ClientId::v7(time_ms, [0; 10])
    }

    #[test]
    fn own_events_count_as_read_until_marked_unread() {
        let mut member = Member {
            last_sent: (Seq(9), Ordinal(7)),
            ..Member::default()
        };
        member.row.read_seq = 4;
        member.row.read_ordinal = 4;
        assert_eq!(member.read(), (Seq(9), Ordinal(7)));
        member.row.unread_at_seq = 9;
        assert_eq!(member.read(), (Seq(4), Ordinal(4)));
        member.last_sent = (Seq(10), Ordinal(8));
        assert_eq!(member.read(), (Seq(10), Ordinal(8)));
    }

    #[test]
    fn more_devices_than_are_kept_make_a_strange_one_uncertain() {
        let mut member = Member::default();
        for number in (0..=u8::MAX).take(DEVICES_KEPT + 1) {
            let device = DeviceId::from_bytes([number; 16]);
            assert_eq!(member.novelty(device, id(1)), Novelty::New);
            member.note_device(device, id(u64::from(number) + 1));
        }
        assert_eq!(
            member.novelty(DeviceId::from_bytes([0; 16]), id(99)),
            Novelty::Unknown
        );
        assert_eq!(
            member.novelty(DeviceId::from_bytes([9; 16]), id(99)),
            Novelty::New
        );
        assert_eq!(
            member.novelty(DeviceId::from_bytes([9; 16]), id(10)),
            Novelty::Unknown
        );
    }

    #[test]
    fn devices_that_were_not_read_make_a_strange_one_uncertain() {
        let device = |number| DeviceId::from_bytes([number; 16]);
        let sent = StoredSent {
            device: device(1),
            newest: id(5),
            seq: Seq(9),
            ordinal: Ordinal(7),
        };
        let load = |more_devices| Member::load(None, &[sent], more_devices).unwrap();
        assert_eq!(load(false).novelty(device(2), id(1)), Novelty::New);
        assert_eq!(load(true).novelty(device(2), id(99)), Novelty::Unknown);
        assert_eq!(load(true).novelty(device(1), id(6)), Novelty::New);
        assert_eq!(load(true).last_sent, (Seq(9), Ordinal(7)));
    }

    #[test]
    fn neither_read_mentions_count_nor_those_of_one_who_is_not_in() {
        let mut member = Member::default();
        member.row.set_state(MemberState::Joined);
        member.mention(Seq(3));
        member.mention(Seq(5));
        assert_eq!(member.unread_mentions(), 2);
        member.row.read_seq = 3;
        assert_eq!(member.unread_mentions(), 1);
        member.row.set_state(MemberState::Removed);
        assert_eq!(member.unread_mentions(), 0);
    }

    #[test]
    fn of_more_mentions_than_are_kept_those_of_the_newest_messages_are() {
        let mut member = Member::default();
        member.row.set_state(MemberState::Joined);
        for seq in (1..=149).chain([151, 150]) {
            assert!(member.mention(Seq(seq)));
        }
        assert!(member.mention(Seq(7)), "an old one is told of all the same");
        assert!(!member.mention(Seq(150)), "and one that is kept is not");
        assert_eq!(member.row.mentions, (52..=151).collect::<Vec<_>>());
        assert_eq!(member.unread_mentions(), 100);
        member.row.read_seq = 100;
        assert_eq!(member.unread_mentions(), 51);
    }
}
