//! A large data set that comes out the same each time: who says what where, as an owner of all lanes would write it.

use std::collections::BTreeMap;

use bytes::{Bytes, BytesMut};
use rialto_protocol::{
    event::{self, EventHead},
    ids::{ClientId, ConversationId, DeviceId, Epoch, LaneId, Ordinal, Position, Seq, UserId},
    record::{self, Table},
    v1::{self, event::Content},
};
use rialto_storage::journal::{Claim, Entry};
use serde::{Deserialize, Serialize};

/// Journal time at which a data set begins, milliseconds since 1970.
const START_MS: u64 = 1_750_000_000_000;
const DAY_MS: u64 = 24 * 3600 * 1000;

/// What a data set looks like.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shape {
    /// How many conversations.
    pub conversations: u32,
    /// How many users, each with one device.
    pub users: u32,
    /// How many users write to each conversation.
    pub writers: u32,
    /// Bytes of each message's text.
    pub body_bytes: usize,
    /// Events, so that time passes evenly over them.
    pub events: u64,
    /// Days of journal time that they take.
    pub days: u64,
    /// Each conversation gets as many events as any other; otherwise a thousandth of them gets a tenth of all.
    pub even: bool,
}

/// Writes a data set, batch by batch.
#[derive(Debug)]
pub struct Dataset {
    shape: Shape,
    random: u64,
    /// Last seq of each conversation.
    seqs: Vec<u32>,
    written: u64,
    lanes: Vec<(Epoch, Position)>,
}

/// One step of `SplitMix64` (Steele, Lea, Flood 2014).
fn mix(number: u64) -> u64 {
    let mut x = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

fn entropy(kind: u64, number: u64) -> [u8; 10] {
    let mut bytes = [0; 10];
    bytes[..8].copy_from_slice(&mix(kind << 56 ^ number).to_le_bytes());
    bytes[8..].copy_from_slice(&mix(kind << 48 ^ number).to_le_bytes()[..2]);
    bytes
}

/// The conversation with this number.
#[must_use]
pub fn conversation(number: u32) -> ConversationId {
    ConversationId::v7(START_MS, entropy(1, u64::from(number)))
}

fn user(number: u32) -> UserId {
    UserId::from_name(&format!("user {number}"))
}

fn device(user: u32) -> DeviceId {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&mix(3 << 56 ^ u64::from(user)).to_le_bytes());
    bytes[8..].copy_from_slice(&mix(4 << 56 ^ u64::from(user)).to_le_bytes());
    DeviceId::v4(bytes)
}

impl Dataset {
    /// A data set of which nothing is written yet.
    #[must_use]
    pub fn new(shape: Shape) -> Self {
        let seqs = vec![0; shape.conversations.max(1) as usize];
        Self {
            shape,
            random: 1,
            seqs,
            written: 0,
            lanes: Vec::new(),
        }
    }

    /// Takes the lanes over that this store gave out.
    pub fn own(&mut self, claims: &[Claim]) {
        self.lanes = claims
            .iter()
            .map(|claim| (claim.epoch, claim.tail))
            .collect();
    }

    /// Goes on behind so many events, which were written before.
    pub fn skip(&mut self, events: u64) {
        for _ in 0..events {
            self.next();
        }
    }

    /// What it looks like.
    #[must_use]
    pub fn shape(&self) -> &Shape {
        &self.shape
    }

    /// Events so far.
    #[must_use]
    pub fn written(&self) -> u64 {
        self.written
    }

    /// Last seq of a conversation; 0: it has no event.
    #[must_use]
    pub fn last(&self, conversation: u32) -> Seq {
        Seq(u64::from(self.seqs[conversation as usize]))
    }

    fn random(&mut self) -> u64 {
        self.random = self.random.wrapping_add(1);
        mix(self.random)
    }

    /// The next event: conversation, its seq there, and who writes it.
    fn next(&mut self) -> (u32, u32, u32) {
        let conversations = u64::from(self.shape.conversations.max(1));
        let random = self.random();
        let number = if self.written < conversations {
            // Each begins with one event.
            self.written
        } else if self.shape.even {
            random % conversations
        } else {
            let squared = ((random >> 40) * (random >> 40)) >> 24;
            let cubed = (squared * (random >> 40)) >> 24;
            (cubed * conversations) >> 24
        };
        let number = u32::try_from(number).unwrap_or(0);
        self.written += 1;
        let seq = &mut self.seqs[number as usize];
        *seq += 1;
        let seq = *seq;
        let which = (self.random() >> 32) % u64::from(self.shape.writers.max(1));
        let writer = mix(u64::from(number) << 20 ^ which) % u64::from(self.shape.users.max(1));
        (number, seq, u32::try_from(writer).unwrap_or(0))
    }

    fn time_ms(&self) -> u64 {
        let events = self.shape.events.max(1);
        START_MS + self.shape.days * DAY_MS * self.written / events + self.written / 500
    }

    /// Entries with the next events, one a lane.
    ///
    /// # Panics
    /// Before [`Self::own`].
    pub fn batch(&mut self, events: u64) -> Vec<Entry> {
        let lanes = u16::try_from(self.lanes.len()).unwrap_or(u16::MAX);
        assert!(lanes > 0, "lanes are claimed first");
        let mut records: BTreeMap<LaneId, BytesMut> = BTreeMap::new();
        let time_ms = self.time_ms();
        for _ in 0..events {
            let (number, seq, writer) = self.next();
            let id = conversation(number);
            let lane = LaneId::of(&id, lanes);
            let epoch = self.lanes[usize::from(lane.0)].0;
            let records = records.entry(lane).or_default();
            self.put(records, (number, seq, writer), epoch, time_ms);
        }
        records
            .into_iter()
            .map(|(lane, records)| {
                let (epoch, position) = &mut self.lanes[usize::from(lane.0)];
                *position = position.next();
                Entry {
                    lane,
                    epoch: *epoch,
                    position: *position,
                    time_ms,
                    records: records.freeze(),
                }
            })
            .collect()
    }

    fn put(
        &self,
        records: &mut BytesMut,
        (number, seq, writer): (u32, u32, u32),
        epoch: Epoch,
        time_ms: u64,
    ) {
        let id = conversation(number);
        let head = EventHead {
            seq: Seq(u64::from(seq)),
            epoch,
            time_ms,
            ordinal: Ordinal(u64::from(seq)),
            sender: user(writer),
            device: device(writer),
            client_id: ClientId::v7(time_ms, entropy(5, self.written)),
        };
        let mut body = vec![b' '; self.shape.body_bytes];
        for (place, byte) in body.iter_mut().enumerate() {
            // Letters, about as compressible as talk.
            *byte = b'a' + (mix(self.written + (place / 4) as u64) % 16) as u8;
        }
        let content = Content::Message(v1::Message {
            body: Bytes::from(body),
            ..v1::Message::default()
        });
        record::put_event(records, &id, |buf| {
            event::encode_into(buf, &head, &content);
        });
        if seq == 1 {
            record::put_row(records, &id, Table::Profile, b"", &[7; 40]);
            for which in 0..self.shape.writers.min(16) {
                let member = mix(u64::from(number) << 20 ^ u64::from(which))
                    % u64::from(self.shape.users.max(1));
                let member = user(u32::try_from(member).unwrap_or(0));
                record::put_row(records, &id, Table::Member, member.as_bytes(), &[8; 24]);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_skipped_is_what_would_have_been_written() {
        let shape = Shape {
            conversations: 50,
            users: 10,
            writers: 3,
            body_bytes: 20,
            events: 1000,
            days: 3,
            even: false,
        };
        let mut written = Dataset::new(shape.clone());
        written.lanes = vec![(Epoch(1), Position(0)); 4];
        let mut skipped = Dataset::new(shape);
        skipped.lanes = written.lanes.clone();
        written.batch(300);
        skipped.skip(300);
        skipped.lanes.clone_from(&written.lanes);
        assert_eq!(written.batch(200), skipped.batch(200));
        assert_eq!(
            (0..50).map(|number| written.last(number).0).sum::<u64>(),
            500
        );
    }
}
