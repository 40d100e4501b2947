//! One connection, whatever carries it: bytes become frames for the core, the outbox becomes bytes.
//!
//! An idle connection owns no read buffer. A turn reads into the shard's buffer, hands all whole frames to the core as one
//! batch, and keeps only the beginning of a frame that is not whole yet.
//!
//! A connection is a future by hand: an `async fn` would keep it twice, as its argument and as its variable.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::{Buf, BytesMut};
use rialto_core::io::Input;
use rialto_protocol::{error::ErrorCode, frame};
use tokio::time::Sleep;

use super::Wire;
use crate::shard::{
    engine::Registration,
    figures::Stage,
    kept::{Kept, SMALL_BYTES},
    turns::{CLOSE_WORK, Turn},
};

/// Read of one connection before others have their turn, however little they want.
const READ_TURN_BYTES: usize = 64 << 10;
/// Bytes that are read in the time that a short message takes.
const READ_WORK_BYTES: usize = 512;
/// Written to one connection before others have their turn.
const WRITE_TURN_BYTES: usize = 1 << 20;
/// A frame's beginning up to this size is copied back into the shared buffer; a longer one is read on in its own.
const REST_COPIED_MAX: usize = SMALL_BYTES;
/// Most that waits for credit after it was read in a turn. A frame that is larger counts as begun until it is taken.
const HELD_BYTES_MAX: usize = 2 * READ_TURN_BYTES;
/// Room made at once for the rest of a frame: memory follows what has arrived, not what its length promises.
const REST_STEP_BYTES: usize = 16 << 10;

/// How a connection came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// The client is gone.
    Gone,
    /// The core wants it closed, after what is queued.
    Closing,
}

/// A connection with its session.
pub(crate) struct Connection<W: Wire> {
    registration: Registration,
    wire: W,
    /// What the core has not taken: the beginning of a frame as a rule.
    rest: BytesMut,
    /// In `rest` is a whole frame: the core had no credit or no time for it.
    held: bool,
    /// As it was counted last.
    kept: Kept,
    /// Bytes of frames that were taken below, and are not known to have left.
    unreported: usize,
    /// Something may be held back below.
    flush_due: bool,
    /// What arrives is not looked at any more: something in it was no frame.
    deaf: bool,
    /// The client is gone, and others have their turn before its connection is taken apart.
    gone: bool,
    /// It is being closed, until this is over at the latest: a client that does not read keeps it no longer.
    closing: Option<Pin<Box<Sleep>>>,
}

/// What a turn of reading found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Read {
    /// Nothing more has arrived, or others have their turn.
    Paused,
    /// The client has ended its side between two frames.
    Ended,
    /// Nothing more is taken from it, and the core is to tell it why.
    Refused(ErrorCode),
    /// It has sent something that is no frame, and was told.
    Broken,
}

impl<W: Wire> Future for Connection<W> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if self.closing.is_none() {
            if !self.gone {
                self.gone = ready!(self.poll_serve(cx)) == End::Gone;
            }
            if self.gone {
                return self.poll_leave(cx);
            }
        }
        let patience = self.registration.engine().close_timeout();
        self.poll_close(cx, patience)
    }
}

impl<W: Wire> Drop for Connection<W> {
    fn drop(&mut self) {
        let engine = self.registration.engine();
        engine.kept().change(self.kept, Kept::Begun(0));
    }
}

impl<W: Wire> Connection<W> {
    pub(crate) fn new(registration: Registration, wire: W) -> Self {
        Self {
            registration,
            wire,
            rest: BytesMut::new(),
            held: false,
            kept: Kept::Begun(0),
            unreported: 0,
            flush_due: false,
            deaf: false,
            gone: false,
            closing: None,
        }
    }

    fn poll_serve(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        let link = self.registration.link();
        link.bell().listen(cx);
        if link.is_closing() {
            return Poll::Ready(End::Closing);
        }
        let Some(turn) = self.registration.begin_turn() else {
            return Poll::Pending;
        };
        if self.write(cx, turn).is_err() {
            return Poll::Ready(End::Gone);
        }
        match self.read(cx, turn) {
            Ok(()) => Poll::Pending,
            Err(end) => Poll::Ready(end),
        }
    }

    /// Writes what is queued, as far as the client takes it now.
    fn write(&mut self, cx: &mut Context<'_>, turn: Turn) -> io::Result<()> {
        let mut outbox = self.registration.link().outbox();
        let mut bytes = 0;
        while !outbox.is_empty() && bytes < WRITE_TURN_BYTES {
            match self.wire.poll_write(cx, &mut outbox)? {
                Poll::Ready(0) => return Err(io::ErrorKind::WriteZero.into()),
                Poll::Ready(written) => bytes += written,
                Poll::Pending => break,
            }
        }
        if bytes >= WRITE_TURN_BYTES {
            cx.waker().wake_by_ref();
        }
        drop(outbox);
        self.flush_due |= bytes > 0;
        if self.flush_due && self.wire.poll_flush(cx)?.is_ready() {
            self.flush_due = false;
        }
        let (engine, link) = (self.registration.engine(), self.registration.link());
        engine.turns().was_written(link, turn, bytes);
        let conn = link.id();
        self.unreported += bytes;
        // Of a client that does not read, what is held back counts like what is queued.
        let bytes = self.unreported.saturating_sub(self.wire.held_back());
        if bytes > 0 {
            self.unreported -= bytes;
            engine.handle(Input::Written { conn, bytes });
        }
        Ok(())
    }

    /// What it keeps until its next turn.
    fn keeps(&self) -> Kept {
        let bytes = self.rest.capacity() + self.wire.kept();
        if self.held && bytes <= HELD_BYTES_MAX {
            Kept::Held(bytes)
        } else {
            Kept::Begun(bytes)
        }
    }

    /// Thousands may leave at the same moment.
    fn poll_leave(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.registration.link().bell().listen(cx);
        if self.registration.leave() {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    }

    /// Writes what is still queued, without the core, which has let go of the connection; then parts from the client.
    fn poll_close(&mut self, cx: &mut Context<'_>, patience: Duration) -> Poll<()> {
        if self.closing.is_none() {
            self.stop_reading();
        }
        let timer = self
            .closing
            .get_or_insert_with(|| Box::pin(tokio::time::sleep(patience)));
        if timer.as_mut().poll(cx).is_ready() {
            return Poll::Ready(());
        }
        self.registration.link().bell().listen(cx);
        let Some(turn) = self.registration.begin_turn() else {
            return Poll::Pending;
        };
        self.registration
            .engine()
            .turns()
            .was_read(self.registration.link(), turn, CLOSE_WORK);
        if ready!(self.poll_drain(cx)).is_err() {
            return Poll::Ready(());
        }
        self.wire.poll_close(cx)
    }

    fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut outbox = self.registration.link().outbox();
        while !outbox.is_empty() {
            match self.wire.poll_write(cx, &mut outbox)? {
                Poll::Ready(0) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Poll::Ready(_) => {}
                Poll::Pending => return Poll::Pending,
            }
        }
        self.wire.poll_flush(cx)
    }

    /// Reads what has arrived and hands it to the core.
    fn read(&mut self, cx: &mut Context<'_>, turn: Turn) -> Result<(), End> {
        if self.deaf || self.registration.waits_for_turn() || !self.registration.may_read() {
            return Ok(());
        }
        match self.read_frames(cx, turn).map_err(|_| End::Gone)? {
            Read::Paused => Ok(()),
            Read::Ended => Err(End::Gone),
            Read::Broken => {
                self.stop_reading();
                Ok(())
            }
            Read::Refused(code) => {
                self.stop_reading();
                let conn = self.registration.link().id();
                self.registration
                    .engine()
                    .handle(Input::Broken { conn, code });
                Ok(())
            }
        }
    }

    /// What was read is not needed any more, however long the client takes to leave.
    fn stop_reading(&mut self) {
        self.deaf = true;
        self.rest = BytesMut::new();
        let keeps = self.keeps();
        let engine = self.registration.engine();
        engine
            .kept()
            .change(std::mem::replace(&mut self.kept, keeps), keeps);
    }

    fn read_frames(&mut self, cx: &mut Context<'_>, turn: Turn) -> io::Result<Read> {
        let (engine, conn) = (self.registration.engine(), self.registration.link().id());
        let mut shared = engine.read_buffer();
        let own = self.rest.len() > REST_COPIED_MAX;
        let buf = if own {
            &mut self.rest
        } else {
            shared.extend_from_slice(&self.rest);
            self.rest.clear();
            &mut *shared
        };
        let (mut bytes, mut work, mut has_more) = (0, 0, false);
        let result = loop {
            if !std::mem::take(&mut self.held) {
                if own {
                    buf.reserve(frame::needed(buf).unwrap_or(0).min(REST_STEP_BYTES));
                }
                let filled = buf.len();
                match self.wire.poll_read(cx, buf, engine.turn_bytes()) {
                    Poll::Pending => break Ok(Read::Paused),
                    Poll::Ready(Err(error)) => break Err(error),
                    Poll::Ready(Ok(0)) if buf.is_empty() => break Ok(Read::Ended),
                    // It has not left, it has been cut off.
                    Poll::Ready(Ok(0)) => break Ok(Read::Refused(ErrorCode::MalformedFrame)),
                    Poll::Ready(Ok(count)) => {
                        bytes += count;
                        engine.count_read(buf.len() - filled);
                    }
                }
            }
            match engine.receive(conn, buf) {
                Ok(taken) => {
                    buf.advance(taken.bytes);
                    work += taken.work;
                }
                Err(_) => break Ok(Read::Broken),
            }
            self.held = !buf.is_empty() && frame::needed(buf).is_none();
            // An own buffer ends with its frame, so that it does not grow into a second shared one.
            if self.held
                || bytes >= READ_TURN_BYTES
                || work >= engine.turns().work()
                || (own && buf.len() <= REST_COPIED_MAX)
            {
                has_more = true;
                break Ok(Read::Paused);
            }
        };
        let took = work + bytes / READ_WORK_BYTES;
        if took > 0 || bytes > 0 || !matches!(result, Ok(Read::Paused)) {
            engine
                .turns()
                .was_read(self.registration.link(), turn, took);
        }
        if has_more {
            self.registration.wait_for_turn();
        }
        if !own {
            self.rest.extend_from_slice(&shared);
            shared.clear();
        }
        if self.rest.is_empty() {
            self.rest = BytesMut::new();
        } else if self.rest.len() <= REST_COPIED_MAX && self.rest.capacity() > REST_COPIED_MAX {
            self.rest = BytesMut::from(&self.rest[..]);
        }
        let keeps = self.keeps();
        engine
            .kept()
            .change(std::mem::replace(&mut self.kept, keeps), keeps);
        if !engine.kept().allow(keeps) && matches!(result, Ok(Read::Paused)) {
            engine.shed(Stage::PartialFrame, "shard_budget");
            return Ok(Read::Refused(ErrorCode::TooManyConnections));
        }
        result
    }
}

#[cfg(test)]
mod tests {
    use std::{
        panic::{AssertUnwindSafe, catch_unwind},
        task::Waker,
    };

    use bytes::Bytes;
    use rialto_core::{
        io::{Output, Transport},
        message::{Message, Origin, ToEdge},
    };
    use rialto_protocol::{frame::FrameKind, ids::RequestId, v1};

    use super::*;
    use crate::shard::{
        engine::tests::{admitted, engine},
        figures::Carrier,
        link::Outbox,
    };

    /// Takes all at once, and sends on what it is let.
    #[derive(Default)]
    struct Slow {
        taken: usize,
        sends: bool,
    }

    impl Wire for Slow {
        fn poll_read(
            &mut self,
            _: &mut Context<'_>,
            _: &mut BytesMut,
            _: usize,
        ) -> Poll<io::Result<usize>> {
            Poll::Pending
        }

        fn poll_write(
            &mut self,
            _: &mut Context<'_>,
            outbox: &mut Outbox,
        ) -> Poll<io::Result<usize>> {
            let bytes = outbox.bytes();
            outbox.consume(bytes);
            self.taken += bytes;
            Poll::Ready(Ok(bytes))
        }

        fn poll_flush(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            if !self.sends {
                return Poll::Pending;
            }
            self.taken = 0;
            Poll::Ready(Ok(()))
        }

        fn held_back(&self) -> usize {
            self.taken
        }

        fn poll_close(&mut self, _: &mut Context<'_>) -> Poll<()> {
            Poll::Ready(())
        }
    }

    #[test]
    fn what_is_held_back_below_counts_as_queued_until_it_has_left() {
        let engine = engine();
        let registration = engine.open(Carrier::Tls, admitted(&engine), Transport::default(), None);
        let conn = registration.link().id();
        let answer = ToEdge::Answered {
            origin: Origin {
                edge: engine.id(),
                conn,
                request: RequestId(1),
                cost: 0,
            },
            kind: FrameKind::HistoryPage,
            body: Bytes::from(vec![0; 9 << 20]),
        };
        let mut outputs = Vec::new();
        engine.with_core(|core, now| {
            let messages = vec![Message::ToEdge(answer)];
            core.handle(now, Input::Messages { messages });
            core.take_outputs(&mut outputs);
        });
        let may_read = || engine.with_core(|core, _| core.may_read(conn));
        let [Output::Send { frame, .. }] = &outputs[..] else {
            panic!("{outputs:?}")
        };
        registration.link().push(frame.clone());
        let mut connection = Connection::new(registration, Slow::default());
        let poll = |connection: &mut Connection<Slow>| {
            let mut cx = Context::from_waker(Waker::noop());
            assert!(Pin::new(connection).poll(&mut cx).is_pending());
        };
        poll(&mut connection);
        assert!(connection.wire.taken > 9 << 20 && !may_read());
        connection.wire.sends = true;
        engine.turns().call();
        poll(&mut connection);
        assert!(connection.wire.taken == 0 && may_read());
    }

    /// Says what it is told to, and hears nothing.
    struct Says<F>(F);

    impl<F: FnMut(&mut BytesMut) -> usize + Unpin> Wire for Says<F> {
        fn poll_read(
            &mut self,
            _: &mut Context<'_>,
            buf: &mut BytesMut,
            _: usize,
        ) -> Poll<io::Result<usize>> {
            Poll::Ready(Ok((self.0)(buf)))
        }

        fn poll_write(&mut self, _: &mut Context<'_>, _: &mut Outbox) -> Poll<io::Result<usize>> {
            Poll::Pending
        }

        fn poll_flush(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_close(&mut self, _: &mut Context<'_>) -> Poll<()> {
            Poll::Ready(())
        }
    }

    #[test]
    fn what_was_begun_is_not_kept_once_it_is_refused() {
        let engine = engine();
        let registration = engine.open(Carrier::Tcp, admitted(&engine), Transport::default(), None);
        let hello = v1::Hello {
            token: "?".repeat(12_000),
            ..v1::Hello::default()
        };
        let hello = frame::encode(FrameKind::Hello, RequestId(1), &hello);
        // The beginning of a frame, and then the end.
        let mut begun = &hello[..10_000];
        let cut_off = |buf: &mut BytesMut| {
            buf.extend_from_slice(begun);
            std::mem::take(&mut begun).len()
        };
        let mut connection = Connection::new(registration, Says(cut_off));
        let mut cx = Context::from_waker(Waker::noop());
        assert!(Pin::new(&mut connection).poll(&mut cx).is_pending());
        assert!(connection.deaf);
        assert_eq!(connection.rest.capacity(), 0);
        assert_eq!(connection.kept, Kept::Begun(0));
        drop(connection);
        assert!(begun.is_empty(), "it was said");
    }

    #[test]
    fn what_a_connection_that_panics_has_read_is_not_taken_for_what_the_next_one_says() {
        let engine = engine();
        let registration = engine.open(Carrier::Tls, admitted(&engine), Transport::default(), None);
        let panicked = catch_unwind(AssertUnwindSafe(move || {
            let mut cx = Context::from_waker(Waker::noop());
            let broken = |buf: &mut BytesMut| -> usize {
                buf.extend_from_slice(b"what somebody said");
                panic!("a planted mistake");
            };
            let _ = Pin::new(&mut Connection::new(registration, Says(broken))).poll(&mut cx);
        }));
        assert!(panicked.is_err() && engine.open_count() == 0);
        assert!(engine.read_buffer().is_empty());
    }
}
