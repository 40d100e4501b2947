//! Streams that the server opens: one for each conversation that a client catches up with, so that long histories never
//! stand before live events. A stream ends when nothing was queued on it for a while.

use std::{
    cell::RefCell,
    collections::HashMap,
    future::poll_fn,
    io,
    rc::{Rc, Weak},
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use quinn::SendStream;
use rialto_core::io::Input;
use rialto_protocol::ids::ConversationId;

use super::{CLOSED, poll_write_chunks};
use crate::shard::{
    bell::Bell,
    engine::Engine,
    link::{Link, Outbox},
};

/// How long a stream without frames stays open: longer than the way of the next read from storage.
const QUIET: Duration = Duration::from_secs(2);

/// What a stream takes until it has ended, beside what it carries: its task, its queue, and what quinn knows of it.
const STREAM_BYTES: usize = 1 << 10;

/// The streams of one connection.
pub(crate) struct CatchUps {
    connection: quinn::Connection,
    streams: RefCell<HashMap<ConversationId, Rc<CatchUp>, ahash::RandomState>>,
}

/// What waits for one of them.
#[derive(Default)]
struct CatchUp {
    outbox: RefCell<Outbox>,
    bell: Bell,
}

impl CatchUps {
    pub(crate) fn new(connection: quinn::Connection) -> Self {
        Self {
            connection,
            streams: RefCell::default(),
        }
    }

    /// The connection, for datagrams.
    pub(crate) fn connection(&self) -> &quinn::Connection {
        &self.connection
    }

    /// Queues a frame on the conversation's stream, which is opened if there is none.
    pub(crate) fn send(
        &self,
        engine: &Rc<Engine>,
        link: &Rc<Link>,
        conversation: ConversationId,
        frame: Bytes,
    ) {
        let mut streams = self.streams.borrow_mut();
        let stream = streams.entry(conversation).or_insert_with(|| {
            let stream = Rc::new(CatchUp::default());
            let serving = Serving {
                engine: Rc::downgrade(engine),
                link: Rc::clone(link),
                stream: Rc::clone(&stream),
            };
            engine.handle(Input::Held {
                conn: link.id(),
                bytes: STREAM_BYTES,
            });
            tokio::task::spawn_local(serving.run(self.connection.clone(), conversation));
            stream
        });
        stream.outbox.borrow_mut().push(frame);
        stream.bell.ring();
    }

    /// Forgets a stream, unless something has been queued on it meanwhile.
    fn end(&self, conversation: &ConversationId) -> bool {
        let mut streams = self.streams.borrow_mut();
        let quiet = streams
            .get(conversation)
            .is_some_and(|stream| stream.outbox.borrow().is_empty());
        if quiet {
            streams.remove(conversation);
        }
        quiet
    }
}

/// What the client has of a stream that has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Arrived {
    All,
    Some,
}

/// The task of one stream.
struct Serving {
    engine: Weak<Engine>,
    link: Rc<Link>,
    stream: Rc<CatchUp>,
}

impl Serving {
    async fn run(self, connection: quinn::Connection, conversation: ConversationId) {
        self.carry(&connection, &conversation).await;
        self.tell_written(STREAM_BYTES);
    }

    async fn carry(&self, connection: &quinn::Connection, conversation: &ConversationId) {
        let Ok(mut send) = connection.open_uni().await else {
            return self.link.close();
        };
        match self.serve(&mut send, conversation).await {
            Ok(Arrived::All) => {}
            Ok(Arrived::Some) => drop(send.reset(CLOSED)),
            // The connection is gone, or the client has stopped the stream, and with it events that it asked for.
            Err(_) => {
                // What lies in the stream, quinn would keep for as long as the closed connection.
                let _ = send.reset(CLOSED);
                self.link.close();
            }
        }
    }

    /// Writes until the stream was quiet, and waits until the client has acknowledged all of it or does not want it.
    async fn serve(
        &self,
        send: &mut SendStream,
        conversation: &ConversationId,
    ) -> io::Result<Arrived> {
        loop {
            match tokio::time::timeout(QUIET, poll_fn(|cx| self.poll(cx, send))).await {
                Ok(written) => written?,
                Err(_) if self.forgotten(conversation) => {
                    let _ = send.finish();
                    return Ok(match send.stopped().await {
                        Ok(None) => Arrived::All,
                        Ok(Some(_)) | Err(_) => Arrived::Some,
                    });
                }
                // The client does not read.
                Err(_) => {}
            }
        }
    }

    /// Forgets the stream, unless something has been queued on it meanwhile.
    fn forgotten(&self, conversation: &ConversationId) -> bool {
        self.link
            .catch_ups()
            .is_none_or(|streams| streams.end(conversation))
    }

    /// Ready after something was written.
    fn poll(&self, cx: &mut Context<'_>, send: &mut SendStream) -> Poll<io::Result<()>> {
        self.stream.bell.listen(cx);
        let mut outbox = self.stream.outbox.borrow_mut();
        let mut bytes = 0;
        while !outbox.is_empty() {
            match poll_write_chunks(send, cx, &mut outbox)? {
                Poll::Ready(written) => bytes += written,
                Poll::Pending => break,
            }
        }
        drop(outbox);
        if bytes == 0 {
            return Poll::Pending;
        }
        self.tell_written(bytes);
        Poll::Ready(Ok(()))
    }

    fn tell_written(&self, bytes: usize) {
        if let Some(engine) = self.engine.upgrade() {
            engine.handle(Input::Written {
                conn: self.link.id(),
                bytes,
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use rialto_core::io::Transport;
    use tokio::task::LocalSet;

    use super::{super::tests::connected, *};
    use crate::shard::{
        engine::tests::{admitted, engine},
        figures::Carrier,
    };

    #[tokio::test]
    async fn a_stream_counts_as_queued_until_it_has_ended() {
        const STREAMS: u32 = 9_216;
        let (client, wire) = connected().await;
        let streams_take = async {
            let engine = engine();
            let streams = CatchUps::new(wire.connection.clone());
            let can = Transport::default();
            let registration = engine.open(Carrier::Quic, admitted(&engine), can, Some(streams));
            let conn = registration.link().id();
            let link = engine.link(conn).unwrap();
            let may_read = || engine.with_core(|core, _| core.may_read(conn));
            for number in 0..STREAMS {
                assert!(number > 0 || may_read());
                let mut id = [0; 16];
                id[..4].copy_from_slice(&number.to_be_bytes());
                let streams = link.catch_ups().unwrap();
                let conversation = ConversationId::from_bytes(id);
                streams.send(&engine, &link, conversation, Bytes::from_static(b"?"));
            }
            assert!(!may_read());
            drop(client);
            while !may_read() {
                tokio::task::yield_now().await;
            }
        };
        let patience = Duration::from_secs(60);
        let tasks = LocalSet::new();
        tokio::time::timeout(patience, tasks.run_until(streams_take))
            .await
            .unwrap();
    }
}
