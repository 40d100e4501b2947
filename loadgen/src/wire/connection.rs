//! A session on a stream: Hello, then frames in and out, and Ping when there is nothing to say.

use std::cell::RefCell;
use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use prost::Message;
use rialto_protocol::body;
use rialto_protocol::frame::{self, FrameError, FrameKind, HEADER_BYTES, LENGTH_BYTES};
use rialto_protocol::ids::{DeviceId, RequestId};
use rialto_protocol::limits::{
    FRAME_BYTES_MAX_CEILING, FRAME_BYTES_MAX_DEFAULT, KEEP_ALIVE_MS_DEFAULT,
};
use rialto_protocol::v1;
use tokio::time::{Instant, Sleep, sleep, timeout};

use super::dial::Dialer;
use super::lost::Lost;
use super::stream::Stream;

/// Most bytes that are read at once.
const READ_BYTES_MAX: usize = 256 * 1024;
const _: () = assert!(
    READ_BYTES_MAX >= rialto_tls::PLAIN_BYTES_MAX,
    "TLS hands over all of it at once"
);
/// What the broker's logs call us.
const NAME: &str = concat!("rialto-loadgen/", env!("CARGO_PKG_VERSION"));
/// Longest from the first packet to Welcome.
const HANDSHAKE_MAX: Duration = Duration::from_secs(20);
/// Between two Pings where none is asked for, because the transport keeps itself alive.
const FAR: Duration = Duration::from_secs(3_600);
/// Request id of Ping: those of everything else are chosen by its sender, below this.
pub(crate) const PING: u32 = u32::MAX;
/// First number of pushes: kinds beyond it that we do not know are skipped.
const PUSHES: u8 = 128;

/// What a frame is, with its body to be looked at while it is in the shared buffer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Arrived<'a> {
    pub(crate) kind: FrameKind,
    pub(crate) request_id: u32,
    pub(crate) body: &'a [u8],
}

/// The buffer into which the connections of a thread read, one after the other.
#[derive(Clone)]
pub(crate) struct Scratch(Rc<RefCell<Vec<u8>>>);

impl Scratch {
    /// Room for the largest frame that has begun, and for a read behind it.
    pub(crate) fn new() -> Self {
        Self(Rc::new(RefCell::new(vec![
            0;
            FRAME_BYTES_MAX_CEILING
                + READ_BYTES_MAX
        ])))
    }
}

/// Who a session is.
#[derive(Clone, Debug)]
pub(crate) struct Identity {
    pub(crate) token: String,
    pub(crate) device: DeviceId,
}

/// A session.
pub(crate) struct Connection {
    stream: Stream,
    scratch: Scratch,
    /// The beginning of a frame whose rest has not come.
    stash: Vec<u8>,
    /// Frames are appended here; what is before `written` has gone out.
    pub(crate) out: Vec<u8>,
    written: usize,
    unflushed: bool,
    limits: v1::Limits,
    keep_alive: Duration,
    ping: Pin<Box<Sleep>>,
    heard: bool,
    silent_pings: u32,
}

impl Connection {
    /// Connects and says Hello.
    pub(crate) async fn open(
        dialer: &Dialer,
        scratch: &Scratch,
        number: usize,
        identity: &Identity,
    ) -> Result<Self, Lost> {
        let opening = async {
            let stream = dialer.dial(number).await?;
            Self::greet(stream, scratch.clone(), identity).await
        };
        timeout(HANDSHAKE_MAX, opening)
            .await
            .map_err(|_| Lost::Silent)?
    }

    async fn greet(stream: Stream, scratch: Scratch, identity: &Identity) -> Result<Self, Lost> {
        let keep_alive = Duration::from_millis(KEEP_ALIVE_MS_DEFAULT);
        let mut connection = Self {
            stream,
            scratch,
            stash: Vec::new(),
            out: Vec::new(),
            written: 0,
            unflushed: false,
            limits: v1::Limits::default(),
            keep_alive,
            ping: Box::pin(sleep(keep_alive)),
            heard: false,
            silent_pings: 0,
        };
        let hello = v1::Hello {
            token: identity.token.clone(),
            device: identity.device.to_proto(),
            sdk: NAME.to_owned(),
            capabilities: Vec::new(),
        };
        connection.put(FrameKind::Hello, 1, &hello);
        let mut welcome = None;
        connection
            .until(|frame| match frame.kind {
                FrameKind::Welcome => {
                    welcome = Some(decode::<v1::Welcome>(frame.body)?);
                    Ok(true)
                }
                _ => Err(unexpected(frame)),
            })
            .await?;
        let welcome = welcome.unwrap_or_default();
        connection.limits = welcome.limits.unwrap_or_default();
        connection.keep_alive = match welcome.keep_alive_ms {
            0 => FAR,
            keep_alive_ms => Duration::from_millis(keep_alive_ms.into()),
        };
        let first = Instant::now() + connection.keep_alive;
        connection.ping.as_mut().reset(first);
        // Most connections of a crowd never say more.
        connection.out = Vec::new();
        Ok(connection)
    }

    /// Bytes of unanswered requests that the broker takes in before it stops reading.
    pub(crate) fn in_flight_bytes_max(&self) -> usize {
        match self.limits.in_flight_bytes_max as usize {
            0 => FRAME_BYTES_MAX_DEFAULT,
            bytes => bytes,
        }
    }

    /// Appends a request.
    pub(crate) fn put(&mut self, kind: FrameKind, request_id: u32, body: &impl Message) {
        let mut frame = BytesMut::new();
        frame::encode_into(&mut frame, kind, RequestId(request_id), body);
        self.out.put_slice(&frame);
    }

    /// Writes and reads until `each` says that it has what it wants.
    pub(crate) async fn until(
        &mut self,
        mut each: impl FnMut(Arrived<'_>) -> Result<bool, Lost>,
    ) -> Result<(), Lost> {
        let mut done = false;
        poll_fn(|context| {
            loop {
                self.poll_write(context)?;
                if done {
                    return Poll::Ready(Ok(()));
                }
                ready!(self.poll_frames(context, |frame| {
                    done |= each(frame)?;
                    Ok(())
                }))?;
            }
        })
        .await
    }

    /// Keeps the connection until it is lost, taking what comes without looking at it.
    pub(crate) async fn keep(&mut self) -> Lost {
        let lost = poll_fn(|context| {
            loop {
                self.poll_write(context)?;
                ready!(self.poll_frames(context, |_| Ok(())))?;
            }
        });
        let lost: Result<(), Lost> = lost.await;
        lost.err().unwrap_or(Lost::Closed)
    }

    /// Reads once, and has every whole frame handled. Pending: nothing has come. A Ping that is due is put into `out` here.
    pub(crate) fn poll_frames(
        &mut self,
        context: &mut Context<'_>,
        each: impl FnMut(Arrived<'_>) -> Result<(), Lost>,
    ) -> Poll<Result<(), Lost>> {
        let scratch = self.scratch.0.clone();
        let mut scratch = scratch.borrow_mut();
        let held = self.stash.len();
        let room = &mut scratch[held..held + READ_BYTES_MAX];
        let Poll::Ready(read) = self.stream.poll_read(context, room)? else {
            self.keep_alive(context)?;
            return Poll::Pending;
        };
        if read == 0 {
            return Poll::Ready(Err(Lost::Closed));
        }
        self.heard = true;
        scratch[..held].copy_from_slice(&self.stash);
        let filled = &scratch[..held + read];
        let taken = split(filled, each)?;
        let rest = &filled[taken..];
        if rest.is_empty() {
            // Given back only if a large frame has made it large.
            self.stash.clear();
            self.stash.shrink_to(4096);
        } else {
            self.stash.clear();
            self.stash.extend_from_slice(rest);
        }
        Poll::Ready(Ok(()))
    }

    /// Asks whether anybody is there, when it is time; gives up when nobody has answered twice.
    fn keep_alive(&mut self, context: &mut Context<'_>) -> Result<(), Lost> {
        while self.ping.as_mut().poll(context).is_ready() {
            self.silent_pings = if std::mem::take(&mut self.heard) {
                0
            } else {
                self.silent_pings + 1
            };
            if self.silent_pings > 2 {
                return Err(Lost::Silent);
            }
            self.put(FrameKind::Ping, PING, &v1::Ping {});
            let next = Instant::now() + self.keep_alive;
            self.ping.as_mut().reset(next);
            self.poll_write(context)?;
        }
        Ok(())
    }

    /// Writes what waits, as far as it is taken.
    pub(crate) fn poll_write(&mut self, context: &mut Context<'_>) -> Result<(), Lost> {
        while self.written < self.out.len() {
            match self.stream.poll_write(context, &self.out[self.written..])? {
                Poll::Ready(0) => return Err(Lost::Closed),
                Poll::Ready(written) => {
                    self.written += written;
                    self.unflushed = true;
                }
                Poll::Pending => return Ok(()),
            }
        }
        self.out.clear();
        self.written = 0;
        if self.unflushed && self.stream.poll_flush(context)?.is_ready() {
            self.unflushed = false;
        }
        Ok(())
    }

    /// Bytes that have not gone out.
    pub(crate) const fn unwritten(&self) -> usize {
        self.out.len() - self.written
    }
}

/// Has each whole frame handled; gives how many bytes they were.
fn split(
    mut rest: &[u8],
    mut each: impl FnMut(Arrived<'_>) -> Result<(), Lost>,
) -> Result<usize, Lost> {
    let bytes = rest.len();
    while let Some(length) = rest.first_chunk::<LENGTH_BYTES>() {
        let length = u32::from_le_bytes(*length);
        let whole = length as usize + LENGTH_BYTES;
        if whole < HEADER_BYTES {
            return Err(FrameError::TooShort(length).into());
        }
        if whole > FRAME_BYTES_MAX_CEILING {
            return Err(FrameError::TooLarge {
                bytes: whole as u64,
                bytes_max: FRAME_BYTES_MAX_CEILING,
            }
            .into());
        }
        let Some((frame, behind)) = rest.split_at_checked(whole) else {
            break;
        };
        rest = behind;
        let kind = match FrameKind::try_from(frame[4]) {
            Ok(kind) => kind,
            Err(later) if later >= PUSHES => continue,
            Err(unknown) => return Err(FrameError::UnknownKind(unknown).into()),
        };
        let request_id = u32::from_le_bytes([frame[8], frame[9], frame[10], frame[11]]);
        match kind {
            FrameKind::Pong | FrameKind::GoAway => {}
            FrameKind::Error if request_id == 0 => {
                return Err(Lost::Refused(decode(&frame[HEADER_BYTES..])?));
            }
            kind => each(Arrived {
                kind,
                request_id,
                body: &frame[HEADER_BYTES..],
            })?,
        }
    }
    Ok(bytes - rest.len())
}

/// The frame's body.
pub(crate) fn decode<T: body::Body>(bytes: &[u8]) -> Result<T, Lost> {
    body::decode(&Bytes::copy_from_slice(bytes)).map_err(|error| Lost::Protocol(error.to_string()))
}

/// What a frame is when nobody asked for it: the refusal of a request, or a fault of the broker.
pub(crate) fn unexpected(frame: Arrived<'_>) -> Lost {
    match frame.kind {
        FrameKind::Error => match decode(frame.body) {
            Ok(error) => Lost::Refused(error),
            Err(lost) => lost,
        },
        other => Lost::Protocol(format!("{other} was not expected")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_frames_are_handled_and_the_rest_is_kept() {
        let mut bytes = Vec::new();
        for id in [1, 2] {
            bytes.extend_from_slice(&frame::encode(FrameKind::Done, RequestId(id), &v1::Done {}));
        }
        let later = [8, 0, 0, 0, 200, 0, 0, 0, 0, 0, 0, 0];
        bytes.extend_from_slice(&later);
        let whole = bytes.len();
        for end in 0..=whole {
            let mut ids = Vec::new();
            let taken = split(&bytes[..end], |frame| {
                ids.push(frame.request_id);
                Ok(())
            })
            .unwrap();
            assert_eq!(taken, end / 12 * 12);
            assert_eq!(ids, [1, 2][..2.min(end / 12)]);
        }
    }

    #[test]
    fn what_is_no_frame_and_what_ends_the_connection_is_an_error() {
        let error = |bytes: &[u8]| split(bytes, |_| Ok(())).unwrap_err();
        assert!(matches!(
            error(&[7, 0, 0, 0]),
            Lost::Frame(FrameError::TooShort(7))
        ));
        assert!(matches!(
            error(&[0xff; 4]),
            Lost::Frame(FrameError::TooLarge { .. })
        ));
        assert!(matches!(
            error(&[8, 0, 0, 0, 17, 0, 0, 0, 0, 0, 0, 0]),
            Lost::Frame(FrameError::UnknownKind(17))
        ));
        let closing = frame::error(
            RequestId::PUSH,
            rialto_protocol::error::ErrorCode::IdleTimeout,
            250,
        );
        let lost = error(&closing);
        assert!(
            !lost.is_for_good() && lost.retry_after_ms() == 250,
            "{lost}"
        );
    }
}
