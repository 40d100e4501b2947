//! Frames made of events that are encoded already: nothing is decoded, and the frame is written once for all readers.

use bytes::{BufMut, Bytes, BytesMut};
use prost::Message as _;
use prost::encoding::{encode_varint, encoded_len_varint};

use super::{Flags, FrameKind, HEADER_BYTES, LENGTH_BYTES, flags_of, put_header};
use crate::ids::{Cursor, Handle, RequestId, Seq};
use crate::v1;

/// Tag of `Deliver.events`.
const DELIVER_EVENT: u8 = 2 << 3 | 2;
/// Tag of `Published.receipts`.
const PUBLISHED_RECEIPT: u8 = 1 << 3 | 2;
/// A receipt's length as a varint, at most.
const RECEIPT_LENGTH_BYTES_MAX: usize = 10;
/// Tag of `HistoryPage.events`.
const HISTORY_EVENT: u8 = 1 << 3 | 2;

/// A Deliver frame with these events, which are consecutive and encoded.
///
/// The caller keeps to [`crate::limits::DELIVER_EVENTS_MAX`] and to the frame limit; [`event_cost`] tells how much an event adds.
#[must_use]
pub fn deliver<'a>(handle: Handle, events: impl Iterator<Item = &'a Bytes> + Clone) -> Bytes {
    let head = v1::Deliver {
        handle: handle.0,
        events: Vec::new(),
    };
    let body_bytes = head.encoded_len() + events_bytes(events.clone());
    let mut buf = start(FrameKind::Deliver, RequestId::PUSH, body_bytes);
    head.encode_raw(&mut buf);
    put_events(&mut buf, DELIVER_EVENT, events);
    buf.freeze()
}

/// A HistoryPage frame with these events, which are encoded and in rising order.
///
/// The caller keeps to [`crate::limits::HISTORY_EVENTS_MAX`] and to the frame limit.
#[must_use]
pub fn history_page<'a>(
    request_id: RequestId,
    events: impl Iterator<Item = &'a Bytes> + Clone,
    head: Cursor,
    oldest_seq: Seq,
    end: bool,
) -> Bytes {
    let rest = v1::HistoryPage {
        events: Vec::new(),
        head: Some(head.into()),
        oldest_seq: oldest_seq.0,
        end,
    };
    let body_bytes = events_bytes(events.clone()) + rest.encoded_len();
    let mut buf = start(FrameKind::HistoryPage, request_id, body_bytes);
    put_events(&mut buf, HISTORY_EVENT, events);
    rest.encode_raw(&mut buf);
    buf.freeze()
}

/// A Published frame that is being written behind others in a buffer: receipts of many requests of one connection.
#[derive(Debug)]
pub struct ReceiptBatch {
    start: usize,
    receipts: usize,
}

impl ReceiptBatch {
    /// Begins a frame behind what `buf` holds.
    pub fn begin(buf: &mut BytesMut) -> Self {
        let start = buf.len();
        put_header(buf, FrameKind::Published, Flags::NONE, RequestId::PUSH, 0);
        Self { start, receipts: 0 }
    }

    /// Bytes of the frame so far.
    #[must_use]
    pub fn bytes(&self, buf: &BytesMut) -> usize {
        buf.len() - self.start
    }

    /// Receipts so far.
    #[must_use]
    pub fn receipts(&self) -> usize {
        self.receipts
    }

    /// Adds a receipt.
    pub fn push(&mut self, buf: &mut BytesMut, receipt: &v1::Receipt) {
        let bytes = receipt.encoded_len();
        buf.reserve(1 + RECEIPT_LENGTH_BYTES_MAX + bytes);
        buf.put_u8(PUBLISHED_RECEIPT);
        encode_varint(bytes as u64, buf);
        receipt.encode_raw(buf);
        self.receipts += 1;
    }

    /// Ends the frame.
    pub fn finish(self, buf: &mut BytesMut) {
        let length = buf.len() - self.start - LENGTH_BYTES;
        let length = u32::try_from(length).expect("a frame is far below 4 GiB");
        buf[self.start..self.start + LENGTH_BYTES].copy_from_slice(&length.to_le_bytes());
    }
}

/// Bytes that an encoded event adds to a Deliver or HistoryPage frame.
#[must_use]
pub fn event_cost(event_bytes: usize) -> usize {
    1 + encoded_len_varint(event_bytes as u64) + event_bytes
}

fn start(kind: FrameKind, request_id: RequestId, body_bytes: usize) -> BytesMut {
    let mut buf = BytesMut::with_capacity(HEADER_BYTES + body_bytes);
    put_header(
        &mut buf,
        kind,
        flags_of(kind, request_id),
        request_id,
        body_bytes,
    );
    buf
}

fn events_bytes<'a>(events: impl Iterator<Item = &'a Bytes>) -> usize {
    events.map(|event| event_cost(event.len())).sum()
}

fn put_events<'a>(buf: &mut BytesMut, tag: u8, events: impl Iterator<Item = &'a Bytes>) {
    for event in events {
        buf.put_u8(tag);
        encode_varint(event.len() as u64, buf);
        buf.put_slice(event);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame;
    use crate::ids::Epoch;

    fn events() -> Vec<v1::Event> {
        let sizes = [0, 1, 200, 20_000];
        let body = |size| Bytes::from(vec![b'x'; size]);
        sizes
            .into_iter()
            .zip(1..)
            .map(|(size, seq)| v1::Event {
                seq,
                content: Some(v1::event::Content::Message(v1::Message {
                    body: body(size),
                    ..Default::default()
                })),
                ..Default::default()
            })
            .collect()
    }

    fn encoded(events: &[v1::Event]) -> Vec<Bytes> {
        events
            .iter()
            .map(|event| Bytes::from(event.encode_to_vec()))
            .collect()
    }

    #[test]
    fn a_delivery_is_the_same_bytes_as_if_its_events_were_decoded() {
        for count in 0..=4 {
            let events = events()[..count].to_vec();
            let assembled = deliver(Handle(7), encoded(&events).iter());
            let generated = v1::Deliver { handle: 7, events };
            assert_eq!(
                assembled,
                frame::encode(FrameKind::Deliver, RequestId::PUSH, &generated)
            );
        }
    }

    #[test]
    fn receipts_one_by_one_are_the_same_bytes_as_all_at_once() {
        let receipt = |request_id, seq, duplicate| v1::Receipt {
            request_id,
            epoch: 3,
            seq,
            time_ms: 1_700_000_000_000,
            duplicate,
            ..Default::default()
        };
        let receipts = vec![receipt(1, 70_000, false), receipt(900, 2, true)];
        let mut buf = BytesMut::from(&b"before"[..]);
        let mut batch = ReceiptBatch::begin(&mut buf);
        receipts
            .iter()
            .for_each(|receipt| batch.push(&mut buf, receipt));
        assert_eq!((batch.receipts(), batch.bytes(&buf)), (2, buf.len() - 6));
        batch.finish(&mut buf);
        let generated = v1::Published { receipts };
        let whole = frame::encode(FrameKind::Published, RequestId::PUSH, &generated);
        assert_eq!(buf[6..], whole);
    }

    #[test]
    fn a_page_of_history_is_the_same_bytes_as_if_its_events_were_decoded() {
        let head = Cursor {
            epoch: Epoch(3),
            seq: Seq(9),
        };
        let request_id = RequestId(5);
        for (count, end) in [(0, true), (4, false)] {
            let events = events()[..count].to_vec();
            let assembled = history_page(request_id, encoded(&events).iter(), head, Seq(1), end);
            let generated = v1::HistoryPage {
                events,
                head: Some(head.into()),
                oldest_seq: 1,
                end,
            };
            assert_eq!(
                assembled,
                frame::encode(FrameKind::HistoryPage, request_id, &generated)
            );
        }
    }

    #[test]
    fn the_cost_of_an_event_is_what_it_adds() {
        let events = encoded(&events());
        let empty = deliver(Handle(7), std::iter::empty()).len();
        let costs: usize = events.iter().map(|event| event_cost(event.len())).sum();
        assert_eq!(deliver(Handle(7), events.iter()).len(), empty + costs);
    }
}
