//! Frames: `u32` length of what follows (little endian), `u8` kind, `u8` flags, `u16` 0, `u32` request id, body. Here they
//! are split off a buffer and encoded; [`crate::body`] decodes what is in them.

mod assemble;
mod compression;
mod kind;

use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::error::ErrorCode;
use crate::ids::RequestId;

pub use assemble::{ReceiptBatch, deliver, event_cost, history_page};
pub use compression::{compress, decompress};
pub use kind::{Flags, FrameKind, Sender};

/// Bytes before the body: length, kind, flags, reserved, request id.
pub const HEADER_BYTES: usize = 12;
/// Bytes of the length, which does not count itself.
pub const LENGTH_BYTES: usize = 4;

/// One frame, its body a slice of the buffer that it was read into.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// What the body is.
    pub kind: FrameKind,
    /// Its flags.
    pub flags: Flags,
    /// Which request it is or answers; 0: a push.
    pub request_id: RequestId,
    /// Protobuf, compressed if the flag says so.
    pub body: Bytes,
}

/// A frame was refused; nothing after it can be read either.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// Larger than this connection allows.
    #[error("a frame of {bytes} bytes, {bytes_max} are allowed")]
    TooLarge {
        /// Of the frame, its length field included.
        bytes: u64,
        /// The limit.
        bytes_max: usize,
    },
    /// Its length does not even hold the header.
    #[error("a length of {0} does not hold the header")]
    TooShort(u32),
    /// No kind of this version.
    #[error("unknown kind {0}")]
    UnknownKind(u8),
    /// A flag without a meaning.
    #[error("unknown flags {0:#010b}")]
    UnknownFlags(u8),
    /// The reserved bytes are not zero.
    #[error("reserved bytes are {0}, not 0")]
    ReservedNotZero(u16),
    /// The compressed body is not exactly one zstd frame that names its size.
    #[error("the compressed body is not one whole zstd frame that names its size")]
    NotOneZstdFrame,
    /// The body would become too large, or be far larger than what was sent.
    #[error("the body of {bytes} bytes would become {output_bytes}")]
    Inflates {
        /// Compressed.
        bytes: usize,
        /// As the zstd frame says.
        output_bytes: u64,
    },
    /// The window that decoding needs is beyond the limit.
    #[error("the compressed body needs a window of 2^{0} bytes")]
    Window(u8),
    /// zstd could not decode it.
    #[error("the compressed body is damaged")]
    Damaged,
}

impl FrameError {
    /// Its code on the wire.
    #[must_use]
    pub const fn code(&self) -> ErrorCode {
        match self {
            Self::TooLarge { .. } => ErrorCode::FrameTooLarge,
            Self::UnknownKind(_) => ErrorCode::UnknownKind,
            Self::TooShort(_) | Self::UnknownFlags(_) | Self::ReservedNotZero(_) => {
                ErrorCode::MalformedFrame
            }
            Self::NotOneZstdFrame | Self::Inflates { .. } | Self::Window(_) | Self::Damaged => {
                ErrorCode::DecompressionFailed
            }
        }
    }
}

/// Splits the first frame off `buf`, without copying it. `None`: more bytes are needed, as many as [`needed`] says.
///
/// `frame_bytes_max` bounds the whole frame, its header included. The header is judged as soon as it is there: a frame that
/// will be refused is not waited for, and nothing is reserved here.
///
/// # Errors
/// When the header is not valid or the frame is too large. The connection is then done for.
pub fn split(buf: &mut BytesMut, frame_bytes_max: usize) -> Result<Option<Frame>, FrameError> {
    let Some(FrameRef {
        kind,
        flags,
        request_id,
        body,
    }) = peek(buf, frame_bytes_max)?
    else {
        return Ok(None);
    };
    let mut frame = buf.split_to(HEADER_BYTES + body.len());
    frame.advance(HEADER_BYTES);
    Ok(Some(Frame {
        kind,
        flags,
        request_id,
        body: frame.freeze(),
    }))
}

impl Frame {
    /// The frame as if it stood in a buffer still.
    #[must_use]
    pub fn as_ref(&self) -> FrameRef<'_> {
        FrameRef {
            kind: self.kind,
            flags: self.flags,
            request_id: self.request_id,
            body: &self.body,
        }
    }
}

/// A frame where it was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameRef<'a> {
    /// What it is.
    pub kind: FrameKind,
    /// Its flags.
    pub flags: Flags,
    /// Which request it belongs to; 0: none.
    pub request_id: RequestId,
    /// The body, compressed if the flags say so.
    pub body: &'a [u8],
}

impl FrameRef<'_> {
    /// Bytes of the whole frame.
    #[must_use]
    pub fn bytes(&self) -> usize {
        HEADER_BYTES + self.body.len()
    }

    /// The frame with a body of its own.
    #[must_use]
    pub fn to_frame(&self) -> Frame {
        let Self {
            kind,
            flags,
            request_id,
            body,
        } = *self;
        Frame {
            kind,
            flags,
            request_id,
            body: Bytes::copy_from_slice(body),
        }
    }
}

/// The first frame of `buf`, if it is whole.
///
/// # Errors
/// As [`split`].
pub fn peek(buf: &[u8], frame_bytes_max: usize) -> Result<Option<FrameRef<'_>>, FrameError> {
    let Some(bytes) = total(buf) else {
        return Ok(None);
    };
    if bytes > frame_bytes_max as u64 {
        return Err(FrameError::TooLarge {
            bytes,
            bytes_max: frame_bytes_max,
        });
    }
    // Below `frame_bytes_max`, which is a usize.
    #[allow(clippy::cast_possible_truncation)]
    let bytes = bytes as usize;
    if bytes < HEADER_BYTES {
        // What follows the length is below 8 here.
        #[allow(clippy::cast_possible_truncation)]
        return Err(FrameError::TooShort((bytes - LENGTH_BYTES) as u32));
    }
    if buf.len() < HEADER_BYTES {
        return Ok(None);
    }
    let mut header = &buf[LENGTH_BYTES..HEADER_BYTES];
    let kind = FrameKind::try_from(header.get_u8()).map_err(FrameError::UnknownKind)?;
    let flags = header.get_u8();
    let flags = Flags::from_bits(flags).ok_or(FrameError::UnknownFlags(flags))?;
    match header.get_u16_le() {
        0 => {}
        reserved => return Err(FrameError::ReservedNotZero(reserved)),
    }
    let request_id = RequestId(header.get_u32_le());
    Ok(buf.get(HEADER_BYTES..bytes).map(|body| FrameRef {
        kind,
        flags,
        request_id,
        body,
    }))
}

/// How many more bytes the first frame of `buf` needs, as far as they tell: before the length is there, those of a header.
/// `None`: it is whole.
///
/// To be asked after [`split`] returned `None`, which has judged the length.
#[must_use]
pub fn needed(buf: &[u8]) -> Option<usize> {
    let bytes = match total(buf) {
        Some(bytes) => usize::try_from(bytes).unwrap_or(usize::MAX),
        None => HEADER_BYTES,
    };
    bytes.checked_sub(buf.len()).filter(|missing| *missing > 0)
}

/// Bytes of the first frame, once its length is there.
fn total(buf: &[u8]) -> Option<u64> {
    let length = buf.first_chunk::<LENGTH_BYTES>()?;
    Some(u64::from(u32::from_le_bytes(*length)) + LENGTH_BYTES as u64)
}

/// Encodes a frame. Answers get [`Flags::LAST`], because every answer is one frame today.
///
/// # Panics
/// When the body has 4 GiB or more; what we send is bounded far below.
#[must_use]
pub fn encode<M: prost::Message>(kind: FrameKind, request_id: RequestId, body: &M) -> Bytes {
    let mut buf = BytesMut::with_capacity(HEADER_BYTES + body.encoded_len());
    encode_into(&mut buf, kind, request_id, body);
    buf.freeze()
}

/// Appends a frame to `buf`, as [`encode`] makes it.
///
/// # Panics
/// As [`encode`].
pub fn encode_into<M: prost::Message>(
    buf: &mut BytesMut,
    kind: FrameKind,
    request_id: RequestId,
    body: &M,
) {
    let body_bytes = body.encoded_len();
    buf.reserve(HEADER_BYTES + body_bytes);
    put_header(
        buf,
        kind,
        flags_of(kind, request_id),
        request_id,
        body_bytes,
    );
    body.encode_raw(buf);
}

/// The frame with a body that is encoded already.
///
/// # Panics
/// As [`encode`].
#[must_use]
pub fn wrap(kind: FrameKind, request_id: RequestId, body: &[u8]) -> Bytes {
    let mut buf = BytesMut::with_capacity(HEADER_BYTES + body.len());
    put_header(
        &mut buf,
        kind,
        flags_of(kind, request_id),
        request_id,
        body.len(),
    );
    buf.put_slice(body);
    buf.freeze()
}

/// The frame that refuses a request, or with request id 0 the connection. `retry_after_ms` 0: no advice.
#[must_use]
pub fn error(request_id: RequestId, code: ErrorCode, retry_after_ms: u32) -> Bytes {
    encode(FrameKind::Error, request_id, &code.to_proto(retry_after_ms))
}

const fn flags_of(kind: FrameKind, request_id: RequestId) -> Flags {
    if kind.is_request() || request_id.0 == 0 {
        Flags::NONE
    } else {
        Flags::LAST
    }
}

fn put_header(
    buf: &mut BytesMut,
    kind: FrameKind,
    flags: Flags,
    request_id: RequestId,
    body_bytes: usize,
) {
    let length = u32::try_from(HEADER_BYTES - LENGTH_BYTES + body_bytes)
        .expect("a frame is far below 4 GiB");
    buf.put_u32_le(length);
    buf.put_u8(kind.number());
    buf.put_u8(flags.bits());
    buf.put_u16_le(0);
    buf.put_u32_le(request_id.0);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::v1;

    fn ping() -> Bytes {
        encode(FrameKind::Ping, RequestId(7), &v1::Ping {})
    }

    /// Splits `ping` with one byte of it changed.
    fn changed(index: usize, byte: u8) -> Result<Option<Frame>, FrameError> {
        let mut buf = BytesMut::from(&ping()[..]);
        buf[index] = byte;
        split(&mut buf, 1000)
    }

    #[test]
    fn a_frame_comes_whole_however_its_bytes_arrive() {
        let pong = v1::Pong {
            server_time_ms: 1_700_000_000_000,
        };
        let whole = encode(FrameKind::Pong, RequestId(7), &pong);
        let mut buf = BytesMut::new();
        for (index, byte) in whole.iter().enumerate() {
            assert_eq!(
                split(&mut buf, whole.len()),
                Ok(None),
                "after {index} bytes"
            );
            let expected = if index < LENGTH_BYTES {
                HEADER_BYTES
            } else {
                whole.len()
            } - index;
            assert_eq!(needed(&buf), Some(expected));
            buf.put_u8(*byte);
        }
        assert_eq!(needed(&buf), None);
        buf.put_slice(&ping());
        let frame = split(&mut buf, whole.len()).unwrap().unwrap();
        assert_eq!(
            (frame.kind, frame.flags, frame.request_id),
            (FrameKind::Pong, Flags::LAST, RequestId(7))
        );
        assert_eq!(crate::body::decode::<v1::Pong>(&frame.body), Ok(pong));
        assert_eq!(buf, ping(), "the next frame stays");
    }

    #[test]
    fn a_body_is_a_slice_of_the_buffer_it_was_read_into() {
        let hello = v1::Hello {
            device: Bytes::from_static(&[9; 16]),
            ..Default::default()
        };
        let mut buf = BytesMut::from(&encode(FrameKind::Hello, RequestId(1), &hello)[..]);
        let range = buf.as_ptr_range();
        let frame = split(&mut buf, 1000).unwrap().unwrap();
        let decoded: v1::Hello = crate::body::decode(&frame.body).unwrap();
        assert!(range.contains(&frame.body.as_ptr()) && range.contains(&decoded.device.as_ptr()));
    }

    #[test]
    fn only_whole_answers_carry_the_flag_last() {
        let flags = |kind, id| {
            split(
                &mut BytesMut::from(&encode(kind, RequestId(id), &v1::Done {})[..]),
                99,
            )
        };
        let flags = |kind, id| flags(kind, id).unwrap().unwrap().flags;
        assert_eq!(flags(FrameKind::Done, 1), Flags::LAST);
        assert_eq!(flags(FrameKind::Published, 0), Flags::NONE);
        assert_eq!(flags(FrameKind::Ping, 1), Flags::NONE);
    }

    #[test]
    fn length_is_judged_to_the_byte_and_before_anything_else_arrives() {
        let whole = ping();
        assert!(split(&mut BytesMut::from(&whole[..]), whole.len()).is_ok());
        let bytes_max = whole.len() - 1;
        let refused = FrameError::TooLarge {
            bytes: 12,
            bytes_max,
        };
        assert_eq!(
            split(&mut BytesMut::from(&whole[..4]), bytes_max),
            Err(refused)
        );
        let huge = FrameError::TooLarge {
            bytes: u64::from(u32::MAX) + 4,
            bytes_max: 4096,
        };
        assert_eq!(split(&mut BytesMut::from(&[0xff; 4][..]), 4096), Err(huge));
        assert_eq!(split(&mut BytesMut::from(&[0xff; 3][..]), 4096), Ok(None));
    }

    #[test]
    fn a_length_that_does_not_hold_the_header_is_refused() {
        for length in 0..8 {
            assert_eq!(
                changed(0, length),
                Err(FrameError::TooShort(u32::from(length)))
            );
        }
    }

    #[test]
    fn unknown_kinds_flags_and_reserved_bits_are_refused_before_the_body_is_there() {
        assert_eq!(changed(4, 0), Err(FrameError::UnknownKind(0)));
        assert_eq!(changed(4, 255), Err(FrameError::UnknownKind(255)));
        assert_eq!(changed(5, 4), Err(FrameError::UnknownFlags(4)));
        assert_eq!(changed(6, 1), Err(FrameError::ReservedNotZero(1)));
        assert_eq!(changed(7, 1), Err(FrameError::ReservedNotZero(256)));
        let mut waiting = BytesMut::from(&[200, 0, 0, 0, 17, 0, 0, 0, 1, 0, 0, 0][..]);
        assert_eq!(split(&mut waiting, 1000), Err(FrameError::UnknownKind(17)));
    }

    #[test]
    fn appended_frames_are_those_encoded_alone() {
        let mut buf = BytesMut::from(&b"before"[..]);
        encode_into(&mut buf, FrameKind::Ping, RequestId(7), &v1::Ping {});
        assert_eq!(buf, [&b"before"[..], &ping()].concat());
    }

    #[test]
    fn a_body_that_is_encoded_already_is_framed_as_if_it_were_not() {
        let pong = v1::Pong { server_time_ms: 9 };
        let body = prost::Message::encode_to_vec(&pong);
        for id in [0, 7] {
            let wrapped = wrap(FrameKind::Pong, RequestId(id), &body);
            assert_eq!(wrapped, encode(FrameKind::Pong, RequestId(id), &pong));
        }
    }

    #[test]
    fn an_error_frame_says_what_its_code_says() {
        let mut buf = BytesMut::from(&error(RequestId(3), ErrorCode::RateLimited, 250)[..]);
        let frame = split(&mut buf, 1000).unwrap().unwrap();
        let error: v1::Error = crate::body::decode(&frame.body).unwrap();
        assert_eq!(
            (frame.request_id, error),
            (RequestId(3), ErrorCode::RateLimited.to_proto(250))
        );
    }
}
