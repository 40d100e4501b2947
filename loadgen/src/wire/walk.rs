//! Bodies walked as bytes: receipts of Published, events of Deliver. Nothing is allocated and no text is looked at.

/// Tags of fields, as they stand on the wire: number × 8 + wire type.
mod tag {
    pub(super) const FIRST_BYTES: u64 = 1 << 3 | 2;
    pub(super) const FIRST_NUMBER: u64 = 1 << 3;
    pub(super) const EVENTS: u64 = 2 << 3 | 2;
    pub(super) const REQUEST_ID: u64 = 1 << 3;
    pub(super) const EPOCH: u64 = 3 << 3;
    pub(super) const SEQ: u64 = 4 << 3;
    pub(super) const DUPLICATE: u64 = 6 << 3;
    pub(super) const ERROR: u64 = 7 << 3 | 2;
    pub(super) const MESSAGE: u64 = 17 << 3 | 2;
}

/// Bytes of the event's fields 5 to 7: three ids, each with its tag and length.
const IDS_BYTES: usize = 3 * 18;

/// The bytes are not what the protocol says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a body of {0} is malformed")]
pub(crate) struct Malformed(pub(crate) &'static str);

/// What one draft came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Receipt<'a> {
    pub(crate) request_id: u32,
    pub(crate) epoch: u64,
    pub(crate) seq: u64,
    pub(crate) duplicate: bool,
    /// An encoded Error: the draft was refused.
    pub(crate) error: Option<&'a [u8]>,
}

/// One event, as far as a reader of load needs it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Event<'a> {
    pub(crate) seq: u64,
    pub(crate) epoch: u64,
    pub(crate) sender: &'a [u8],
    /// The body, if it is a message.
    pub(crate) message: Option<&'a [u8]>,
}

/// Reads from the front.
#[derive(Clone, Copy, Debug)]
struct Walk<'a> {
    rest: &'a [u8],
}

impl<'a> Walk<'a> {
    #[inline]
    fn varint(&mut self) -> Option<u64> {
        let (first, rest) = self.rest.split_first()?;
        if *first < 0x80 {
            self.rest = rest;
            return Some(u64::from(*first));
        }
        let mut value = 0;
        for (index, byte) in self.rest.iter().take(10).enumerate() {
            value |= u64::from(byte & 0x7f) << (7 * index);
            if *byte < 0x80 {
                self.rest = &self.rest[index + 1..];
                return Some(value);
            }
        }
        None
    }

    #[inline]
    fn bytes(&mut self) -> Option<&'a [u8]> {
        let bytes = usize::try_from(self.varint()?).ok()?;
        let (taken, rest) = self.rest.split_at_checked(bytes)?;
        self.rest = rest;
        Some(taken)
    }

    fn skip(&mut self, tag: u64) -> Option<()> {
        match tag & 7 {
            0 => self.varint().map(drop),
            1 => self
                .rest
                .split_at_checked(8)
                .map(|(_, rest)| self.rest = rest),
            2 => self.bytes().map(drop),
            5 => self
                .rest
                .split_at_checked(4)
                .map(|(_, rest)| self.rest = rest),
            _ => None,
        }
    }

    /// A number that has to stand here under this tag of one byte.
    #[inline]
    fn number(&mut self, tag: u8) -> Option<u64> {
        let (first, rest) = self.rest.split_first()?;
        if *first != tag {
            return None;
        }
        self.rest = rest;
        self.varint()
    }
}

/// Calls `each` for every receipt of a Published.
pub(crate) fn receipts<'a>(
    body: &'a [u8],
    mut each: impl FnMut(Receipt<'a>),
) -> Result<(), Malformed> {
    let mut walk = Walk { rest: body };
    let mut all = || {
        while !walk.rest.is_empty() {
            match walk.varint()? {
                tag::FIRST_BYTES => each(receipt(walk.bytes()?)?),
                other => walk.skip(other)?,
            }
        }
        Some(())
    };
    all().ok_or(Malformed("Published"))
}

fn receipt(bytes: &[u8]) -> Option<Receipt<'_>> {
    let mut walk = Walk { rest: bytes };
    let mut receipt = Receipt::default();
    while !walk.rest.is_empty() {
        match walk.varint()? {
            tag::REQUEST_ID => receipt.request_id = u32::try_from(walk.varint()?).ok()?,
            tag::EPOCH => receipt.epoch = walk.varint()?,
            tag::SEQ => receipt.seq = walk.varint()?,
            tag::DUPLICATE => receipt.duplicate = walk.varint()? != 0,
            tag::ERROR => receipt.error = Some(walk.bytes()?),
            other => walk.skip(other)?,
        }
    }
    Some(receipt)
}

/// Calls `each` for every event of a Deliver, once `handle` has been told whose they are. Gives how many there were.
pub(crate) fn deliver<'a>(
    body: &'a [u8],
    mut each: impl FnMut(u32, Event<'a>),
) -> Result<u64, Malformed> {
    let mut walk = Walk { rest: body };
    let mut handle = 0;
    let mut count = 0;
    let mut all = || {
        while !walk.rest.is_empty() {
            match walk.varint()? {
                // Generated code, and ours, write fields in rising order, so the handle comes first.
                tag::FIRST_NUMBER => handle = u32::try_from(walk.varint()?).ok()?,
                tag::EVENTS => {
                    each(handle, event(walk.bytes()?)?);
                    count += 1;
                }
                other => walk.skip(other)?,
            }
        }
        Some(())
    };
    all().ok_or(Malformed("Deliver"))?;
    Ok(count)
}

/// The head is fields 1 to 7, always written and in this order (docs/PROTOCOL.md, section 9).
#[inline]
fn event(bytes: &[u8]) -> Option<Event<'_>> {
    let mut walk = Walk { rest: bytes };
    let seq = walk.number(1 << 3)?;
    let epoch = walk.number(2 << 3)?;
    let _time_ms = walk.number(3 << 3)?;
    let _ordinal = walk.number(4 << 3)?;
    let (ids, rest) = walk.rest.split_at_checked(IDS_BYTES)?;
    let well_formed = ids[0] == 5 << 3 | 2
        && ids[18] == 6 << 3 | 2
        && ids[36] == 7 << 3 | 2
        && [ids[1], ids[19], ids[37]] == [16; 3];
    if !well_formed {
        return None;
    }
    walk.rest = rest;
    let mut message = None;
    while !walk.rest.is_empty() {
        match walk.varint()? {
            tag::MESSAGE => message = Some(message_body(walk.bytes()?)?),
            other => walk.skip(other)?,
        }
    }
    Some(Event {
        seq,
        epoch,
        sender: &ids[2..18],
        message,
    })
}

#[inline]
fn message_body(bytes: &[u8]) -> Option<&[u8]> {
    let mut walk = Walk { rest: bytes };
    let mut body: &[u8] = &[];
    while !walk.rest.is_empty() {
        match walk.varint()? {
            tag::FIRST_BYTES => body = walk.bytes()?,
            other => walk.skip(other)?,
        }
    }
    Some(body)
}

#[cfg(test)]
mod tests {
    use bytes::{Bytes, BytesMut};
    use prost::Message as _;
    use rialto_protocol::event::{EventHead, encode_into};
    use rialto_protocol::ids::{ClientId, DeviceId, Epoch, Ordinal, Seq, UserId};
    use rialto_protocol::v1;

    use super::*;

    #[test]
    fn receipts_are_those_that_were_encoded() {
        let refused = v1::Error {
            code: 500,
            retry_after_ms: 20,
            ..Default::default()
        };
        let published = v1::Published {
            receipts: vec![
                v1::Receipt {
                    request_id: 7,
                    epoch: 3,
                    seq: 1 << 40,
                    time_ms: 1_700_000_000_000,
                    duplicate: true,
                    ..Default::default()
                },
                v1::Receipt {
                    request_id: u32::MAX,
                    draft: 1,
                    error: Some(refused.clone()),
                    ..Default::default()
                },
            ],
        };
        let body = published.encode_to_vec();
        let mut found = Vec::new();
        receipts(&body, |receipt| found.push(receipt)).unwrap();
        assert_eq!(found.len(), 2);
        assert_eq!(
            found[0],
            Receipt {
                request_id: 7,
                epoch: 3,
                seq: 1 << 40,
                duplicate: true,
                error: None
            }
        );
        assert_eq!(found[1].request_id, u32::MAX);
        assert_eq!(v1::Error::decode(found[1].error.unwrap()).unwrap(), refused);
    }

    fn delivered(contents: &[v1::event::Content]) -> Vec<u8> {
        let events: Vec<Bytes> = (5..)
            .zip(contents)
            .map(|(seq, content)| {
                let head = EventHead {
                    seq: Seq(seq),
                    epoch: Epoch(2),
                    time_ms: 1_700_000_000_000,
                    ordinal: Ordinal(seq),
                    sender: UserId::from_name("ann"),
                    device: DeviceId::v4([5; 16]),
                    client_id: ClientId::v7(1, [6; 10]),
                };
                let mut buf = BytesMut::new();
                encode_into(&mut buf, &head, content);
                buf.freeze()
            })
            .collect();
        let frame =
            rialto_protocol::frame::deliver(rialto_protocol::ids::Handle(300), events.iter());
        frame[rialto_protocol::frame::HEADER_BYTES..].to_vec()
    }

    #[test]
    fn events_are_those_that_were_encoded() {
        let message = v1::Message {
            body: Bytes::from_static(b"hello"),
            reply_to: vec![1, 2],
            ..Default::default()
        };
        let body = delivered(&[
            v1::event::Content::Message(message),
            v1::event::Content::Pin(v1::Pin::default()),
        ]);
        let mut found = Vec::new();
        let count = deliver(&body, |handle, event| found.push((handle, event))).unwrap();
        let ann = UserId::from_name("ann");
        let event = |seq, message| Event {
            seq,
            epoch: 2,
            sender: ann.as_bytes(),
            message,
        };
        assert_eq!(count, 2);
        assert_eq!(
            found,
            [(300, event(5, Some(&b"hello"[..]))), (300, event(6, None))]
        );
    }

    #[test]
    fn bytes_that_are_cut_or_changed_never_panic() {
        let message = v1::Message {
            body: Bytes::from_static(b"hello"),
            ..Default::default()
        };
        let body = delivered(&[v1::event::Content::Message(message)]);
        for end in 1..body.len() {
            let _ = receipts(&body[..end], drop);
            let _ = deliver(&body[..end], |_, _| ());
            for byte in [0, 0x7f, 0xff] {
                let mut changed = body.clone();
                changed[end] = byte;
                let _ = receipts(&changed, drop);
                let _ = deliver(&changed, |_, _| ());
            }
        }
        assert_eq!(
            deliver(&body[..body.len() - 1], |_, _| ()),
            Err(Malformed("Deliver"))
        );
    }
}
