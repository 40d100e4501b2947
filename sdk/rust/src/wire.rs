//! Frames in and out of byte buffers, as a client needs them: kinds of pushes that this version does not know are skipped.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use prost::Message;
use rialto_protocol::frame::{
    self, Flags, Frame, FrameError, FrameKind, HEADER_BYTES, LENGTH_BYTES,
};
use rialto_protocol::ids::RequestId;
use rialto_protocol::limits::FRAME_BYTES_MAX_CEILING;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};

/// Least and most bytes that are read at once.
const READ_BYTES_MIN: usize = 4 * 1024;
const READ_BYTES_MAX: usize = 128 * 1024;
/// First number of pushes.
const PUSHES: u8 = 128;

/// Appends the header of a request frame.
pub(crate) fn put_header(
    out: &mut BytesMut,
    kind: FrameKind,
    request_id: RequestId,
    body_bytes: usize,
) {
    let length = u32::try_from(HEADER_BYTES - LENGTH_BYTES + body_bytes)
        .expect("frames are far below 4 GiB");
    out.reserve(HEADER_BYTES + body_bytes);
    out.put_u32_le(length);
    out.put_slice(&[kind.number(), Flags::NONE.bits(), 0, 0]);
    out.put_u32_le(request_id.0);
}

/// Appends a request frame whose body is encoded.
pub(crate) fn put_frame(out: &mut BytesMut, kind: FrameKind, request_id: RequestId, body: &[u8]) {
    put_header(out, kind, request_id, body.len());
    out.put_slice(body);
}

/// A message's bytes.
pub(crate) fn encode(message: &impl Message) -> Bytes {
    Bytes::from(message.encode_to_vec())
}

/// Splits the next frame off that this version knows, decompressed. None: more bytes are needed.
pub(crate) fn split(buf: &mut BytesMut) -> Result<Option<Frame>, FrameError> {
    while let Some(bytes) = unknown_push(buf)? {
        if buf.len() < bytes {
            return Ok(None);
        }
        buf.advance(bytes);
    }
    match frame::split(buf, FRAME_BYTES_MAX_CEILING)? {
        Some(frame) => frame::decompress(frame, FRAME_BYTES_MAX_CEILING).map(Some),
        None => Ok(None),
    }
}

/// Bytes of the first frame, if it is a push of a kind that this version does not know.
fn unknown_push(buf: &[u8]) -> Result<Option<usize>, FrameError> {
    let (Some(length), Some(kind)) = (buf.first_chunk::<LENGTH_BYTES>(), buf.get(LENGTH_BYTES))
    else {
        return Ok(None);
    };
    if *kind < PUSHES || FrameKind::try_from(*kind).is_ok() {
        return Ok(None);
    }
    let bytes = u64::from(u32::from_le_bytes(*length)) + LENGTH_BYTES as u64;
    match usize::try_from(bytes) {
        Ok(total) if total < HEADER_BYTES => Err(FrameError::TooShort(u32::from_le_bytes(*length))),
        Ok(total) if total <= FRAME_BYTES_MAX_CEILING => Ok(Some(total)),
        _ => Err(FrameError::TooLarge {
            bytes,
            bytes_max: FRAME_BYTES_MAX_CEILING,
        }),
    }
}

/// The reading half of a connection, with its buffer.
pub(crate) struct FrameReader<R> {
    io: R,
    buf: BytesMut,
    read_bytes: usize,
}

impl<R: AsyncRead + Unpin> FrameReader<R> {
    pub(crate) fn new(io: R) -> Self {
        Self {
            io,
            buf: BytesMut::new(),
            read_bytes: READ_BYTES_MIN,
        }
    }

    /// Reads some bytes; 0 at the end of the stream. Cancel safe.
    pub(crate) async fn read(&mut self) -> io::Result<usize> {
        let missing = frame::needed(&self.buf)
            .unwrap_or(0)
            .min(FRAME_BYTES_MAX_CEILING);
        if self.buf.capacity() - self.buf.len() < missing.max(self.read_bytes / 2) {
            self.buf.reserve(missing.max(self.read_bytes));
        }
        let bytes = self.io.read_buf(&mut self.buf).await?;
        // The busy get large buffers, the idle keep small ones.
        if bytes >= self.read_bytes / 2 {
            self.read_bytes = (self.read_bytes * 2).min(READ_BYTES_MAX);
        } else if bytes < self.read_bytes / 16 {
            self.read_bytes = (self.read_bytes / 2).max(READ_BYTES_MIN);
        }
        Ok(bytes)
    }

    /// The next frame of what was read.
    pub(crate) fn next(&mut self) -> Result<Option<Frame>, FrameError> {
        split(&mut self.buf)
    }
}

/// The writing half of a connection, with what waits to be written.
pub(crate) struct FrameWriter<W> {
    io: W,
    /// Frames are appended here.
    pub(crate) out: BytesMut,
    unflushed: bool,
}

impl<W: AsyncWrite + Unpin> FrameWriter<W> {
    pub(crate) fn new(io: W) -> Self {
        Self {
            io,
            out: BytesMut::new(),
            unflushed: false,
        }
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.out.is_empty() && !self.unflushed
    }

    /// Writes everything, as the connection takes it; ready when all is flushed. Cancel safe.
    pub(crate) async fn write(&mut self) -> io::Result<()> {
        std::future::poll_fn(|context| self.poll_write(context)).await
    }

    fn poll_write(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.out.is_empty() {
            let written = ready!(Pin::new(&mut self.io).poll_write(context, &self.out))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.out.advance(written);
            self.unflushed = true;
        }
        ready!(Pin::new(&mut self.io).poll_flush(context))?;
        self.unflushed = false;
        Poll::Ready(Ok(()))
    }

    /// Writes everything and says that nothing more will come.
    pub(crate) async fn finish(&mut self) -> io::Result<()> {
        self.write().await?;
        std::future::poll_fn(|context| Pin::new(&mut self.io).poll_shutdown(context)).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rialto_protocol::v1;

    fn unknown(kind: u8, body_bytes: u32) -> BytesMut {
        let mut buf = BytesMut::new();
        buf.put_u32_le(8 + body_bytes);
        buf.put_slice(&[kind, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]);
        buf.put_bytes(0xff, body_bytes as usize);
        buf
    }

    #[test]
    fn pushes_of_later_versions_are_skipped_and_answers_are_not() {
        let known = frame::encode(
            FrameKind::Pong,
            RequestId(3),
            &v1::Pong { server_time_ms: 1 },
        );
        let mut buf = unknown(255, 9);
        buf.unsplit(unknown(200, 0));
        buf.extend_from_slice(&known);
        let mut bytes = BytesMut::new();
        let mut frames = Vec::new();
        for byte in buf {
            bytes.put_u8(byte);
            frames.extend(split(&mut bytes).unwrap());
        }
        assert_eq!(frames.len(), 1);
        assert_eq!(
            (frames[0].kind, frames[0].request_id),
            (FrameKind::Pong, RequestId(3))
        );
        assert_eq!(
            split(&mut unknown(100, 0)),
            Err(FrameError::UnknownKind(100))
        );
        let mut huge = unknown(255, 4);
        huge[..4].copy_from_slice(&u32::MAX.to_le_bytes());
        assert!(matches!(split(&mut huge), Err(FrameError::TooLarge { .. })));
    }

    #[test]
    fn requests_are_framed_as_the_protocol_crate_does() {
        let body = v1::Describe {
            conversation: Bytes::from_static(&[7; 16]),
        };
        let mut out = BytesMut::new();
        put_frame(&mut out, FrameKind::Describe, RequestId(9), &encode(&body));
        assert_eq!(
            out.freeze(),
            frame::encode(FrameKind::Describe, RequestId(9), &body)
        );
    }
}
