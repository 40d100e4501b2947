//! TLS records of one connection. The cryptography is that of rustls, through its interface without buffers: those belong
//! to the shard, and a connection keeps only the beginning of a record that is not whole yet, and what its socket did not
//! take.

use std::{
    cell::RefCell,
    io,
    pin::{Pin, pin},
    rc::Rc,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::{Buf, BufMut, BytesMut};
use rustls::{
    ServerConfig,
    server::{ServerConnectionData, UnbufferedServerConnection},
    unbuffered::{ConnectionState, EncodeError, EncryptError, UnbufferedStatus, WriteTraffic},
};
use tokio::{
    io::{AsyncReadExt, AsyncWrite},
    net::TcpStream,
};

use crate::{
    shard::link::Outbox,
    transport::{Wire, socket::Parting},
};

/// Read from a socket at once; several of the largest records (RFC 8446, section 5.2).
const READ_BYTES: usize = 64 << 10;
/// Plaintext that is encrypted and written at once.
const WRITE_BYTES: usize = 64 << 10;
/// Plaintext of the largest record, and what each costs beside it.
const RECORD_BYTES: usize = 16 << 10;
const RECORD_OVERHEAD: usize = 64;
/// What [`WRITE_BYTES`] become, with a record to spare.
const ENCRYPTED_BYTES: usize = WRITE_BYTES + (WRITE_BYTES / RECORD_BYTES + 1) * RECORD_OVERHEAD;
/// Beginnings of records are moved together to the front at most this long: one record and a handshake message.
const RECEIVED_BYTES_MAX: usize = 2 * (RECORD_BYTES + RECORD_OVERHEAD) + (64 << 10);

/// The buffers of all TLS connections of a shard.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    /// As it came from the socket.
    received: BytesMut,
    /// Frames that are encrypted together.
    plain: Vec<u8>,
    /// For the socket.
    encrypted: Vec<u8>,
}

impl Scratch {
    pub(super) fn shared() -> Rc<RefCell<Self>> {
        Rc::default()
    }
}

/// A socket with encryption.
pub(crate) struct Encrypted {
    stream: TcpStream,
    session: Box<UnbufferedServerConnection>,
    scratch: Rc<RefCell<Scratch>>,
    /// The beginning of a record.
    received: Vec<u8>,
    /// Records that the socket has not taken.
    unsent: BytesMut,
    /// Sent with the end of the handshake.
    early: BytesMut,
    /// The client sends nothing more.
    ended: bool,
    /// It was told that nothing more follows.
    goodbye: bool,
    parting: Parting,
}

/// Where the session stands once it has no more to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    Handshake,
    Open,
}

impl Encrypted {
    pub(super) fn new(
        stream: TcpStream,
        config: &Arc<ServerConfig>,
        scratch: &Rc<RefCell<Scratch>>,
    ) -> Result<Self, rustls::Error> {
        Ok(Self {
            stream,
            session: Box::new(UnbufferedServerConnection::new(Arc::clone(config))?),
            scratch: Rc::clone(scratch),
            received: Vec::new(),
            unsent: BytesMut::new(),
            early: BytesMut::new(),
            ended: false,
            goodbye: false,
            parting: Parting::default(),
        })
    }

    /// What client and server agreed to speak.
    pub(super) fn alpn_protocol(&self) -> Option<&[u8]> {
        self.session.alpn_protocol()
    }

    /// Ready once the handshake is done and the client has been sent its end of it.
    pub(super) fn poll_handshake(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.session.is_handshaking() {
            let mut early = std::mem::take(&mut self.early);
            let received = self.poll_receive(cx, &mut early);
            self.early = early;
            ready!(received)?;
            if self.ended {
                return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
            }
        }
        self.poll_send(cx)
    }

    /// Reads once, and appends what it was in plain.
    fn poll_receive(&mut self, cx: &mut Context<'_>, buf: &mut BytesMut) -> Poll<io::Result<()>> {
        let scratch = Rc::clone(&self.scratch);
        let received = &mut scratch.borrow_mut().received;
        received.clear();
        received.reserve(READ_BYTES + self.received.len());
        received.extend_from_slice(&self.received);
        // The future keeps nothing between polls.
        let count = ready!(pin!(self.stream.read_buf(received)).poll(cx))?;
        self.ended |= count == 0;
        let processed = self.process(received, buf);
        // An alert, a ticket or the answer to a new key of the client's.
        let sent = self.poll_send(cx);
        let (_, used) = processed?;
        if let Poll::Ready(Err(error)) = sent {
            return Poll::Ready(Err(error));
        }
        let rest = &received[used..];
        if rest.len() > RECEIVED_BYTES_MAX {
            return Poll::Ready(Err(io::ErrorKind::InvalidData.into()));
        }
        self.received = rest.to_vec();
        Poll::Ready(Ok(()))
    }

    /// Has the session take in records, until it has none that is whole; tells how many bytes it used up.
    fn process(
        &mut self,
        records: &mut [u8],
        plain: &mut BytesMut,
    ) -> io::Result<(Standing, usize)> {
        let mut used = 0;
        let mut failed = None;
        loop {
            // A session that has failed is not shown anything more; only its alert is still to be had from it.
            if let Some(error) = failed.take_if(|_| !self.session.wants_write()) {
                return Err(error);
            }
            let UnbufferedStatus { mut discard, state } =
                self.session.process_tls_records(&mut records[used..]);
            match state {
                Ok(ConnectionState::ReadTraffic(mut traffic)) => {
                    while let Some(record) = traffic.next_record() {
                        let record = record.map_err(io::Error::other)?;
                        discard += record.discard;
                        plain.extend_from_slice(record.payload);
                    }
                }
                Ok(ConnectionState::EncodeTlsData(mut data)) => {
                    append(&mut self.unsent, |out| data.encode(out))?;
                }
                // What waits to be sent is sent in its order, whatever else comes after it.
                Ok(ConnectionState::TransmitTlsData(data)) => data.done(),
                Ok(ConnectionState::PeerClosed | ConnectionState::Closed) => {
                    self.ended = true;
                    return Ok((Standing::Open, used + discard));
                }
                Ok(ConnectionState::WriteTraffic(_)) => {
                    return Ok((Standing::Open, used + discard));
                }
                Ok(ConnectionState::BlockedHandshake) => {
                    return Ok((Standing::Handshake, used + discard));
                }
                // Early data is not agreed to.
                Ok(_) => return Err(io::ErrorKind::InvalidData.into()),
                Err(error) => failed = Some(io::Error::other(error)),
            }
            used += discard;
        }
    }

    /// Has the session write; the handshake is over.
    fn write_with(
        &mut self,
        write: impl FnOnce(&mut WriteTraffic<'_, ServerConnectionData>) -> Result<usize, EncryptError>,
    ) -> io::Result<usize> {
        // The session wants to see the beginning of a record again, each time.
        let mut received = std::mem::take(&mut self.received);
        let (standing, used) = self.process(&mut received, &mut BytesMut::new())?;
        received.drain(..used);
        self.received = received;
        match self.session.process_tls_records(&mut self.received).state {
            Ok(ConnectionState::WriteTraffic(mut traffic)) if standing == Standing::Open => {
                write(&mut traffic).map_err(io::Error::other)
            }
            _ => Err(io::ErrorKind::NotConnected.into()),
        }
    }

    fn say_goodbye(&mut self) -> io::Result<()> {
        let mut alert = [0; 2 * RECORD_OVERHEAD];
        let bytes = self.write_with(|traffic| traffic.queue_close_notify(&mut alert))?;
        self.unsent.put_slice(&alert[..bytes]);
        Ok(())
    }

    /// Ready once the socket has taken all.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.unsent.is_empty() {
            let sent = ready!(Pin::new(&mut self.stream).poll_write(cx, &self.unsent))?;
            if sent == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.unsent.advance(sent);
        }
        if self.unsent.capacity() > 0 {
            self.unsent = BytesMut::new();
        }
        Poll::Ready(Ok(()))
    }
}

impl Wire for Encrypted {
    fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        buf: &mut BytesMut,
        _bytes_max: usize,
    ) -> Poll<io::Result<usize>> {
        let before = buf.len();
        if !self.early.is_empty() {
            let early = std::mem::take(&mut self.early);
            buf.extend_from_slice(&early);
            return Poll::Ready(Ok(early.len()));
        }
        while !self.ended {
            ready!(self.poll_receive(cx, buf))?;
            if buf.len() > before {
                return Poll::Ready(Ok(buf.len() - before));
            }
        }
        Poll::Ready(Ok(0))
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, outbox: &mut Outbox) -> Poll<io::Result<usize>> {
        ready!(self.poll_send(cx))?;
        let scratch = Rc::clone(&self.scratch);
        let Scratch {
            plain, encrypted, ..
        } = &mut *scratch.borrow_mut();
        plain.clear();
        outbox.copy_front(plain, WRITE_BYTES);
        encrypted.resize(ENCRYPTED_BYTES, 0);
        let bytes = self.write_with(|traffic| traffic.encrypt(plain, encrypted))?;
        outbox.consume(plain.len());
        // An answer of the session's own, should there be one, goes first: its keys are older.
        let direct = self.unsent.is_empty();
        let mut sent = 0;
        if direct {
            while sent < bytes {
                match Pin::new(&mut self.stream).poll_write(cx, &encrypted[sent..bytes])? {
                    Poll::Ready(0) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                    Poll::Ready(count) => sent += count,
                    Poll::Pending => break,
                }
            }
        }
        self.unsent.put_slice(&encrypted[sent..bytes]);
        Poll::Ready(Ok(plain.len()))
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_send(cx)
    }

    fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        // A session that has failed has no goodbye to say.
        if !std::mem::replace(&mut self.goodbye, true) && self.say_goodbye().is_err() {
            return Poll::Ready(());
        }
        if ready!(self.poll_send(cx)).is_err() {
            return Poll::Ready(());
        }
        self.parting.poll(&mut self.stream, cx)
    }
}

/// Appends what `encode` writes, which says how much room it needs when there is too little.
fn append(
    out: &mut BytesMut,
    mut encode: impl FnMut(&mut [u8]) -> Result<usize, EncodeError>,
) -> io::Result<()> {
    let room = match encode(&mut []) {
        Ok(_) => return Ok(()),
        Err(EncodeError::InsufficientSize(needed)) => needed.required_size,
        Err(error) => return Err(io::Error::other(error)),
    };
    let before = out.len();
    out.resize(before + room, 0);
    let written = encode(&mut out[before..]).map_err(io::Error::other)?;
    out.truncate(before + written);
    Ok(())
}
