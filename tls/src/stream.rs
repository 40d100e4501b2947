//! The records of one connection, in and out of its socket.

use std::{
    io,
    pin::{Pin, pin},
    task::{Context, Poll, ready},
};

use bytes::{Buf, BufMut, BytesMut};
use rustls::{
    client::UnbufferedClientConnection,
    unbuffered::{ConnectionState, EncodeError, EncryptError, UnbufferedStatus, WriteTraffic},
};
use tokio::{
    io::{AsyncReadExt, AsyncWrite},
    net::TcpStream,
};

use crate::end::{End, RECORD_BYTES, RECORD_OVERHEAD};

/// Read from a socket at once; several of the largest records (RFC 8446, section 5.2).
const READ_BYTES: usize = 64 << 10;
/// Plaintext that is encrypted and written at once.
const WRITE_BYTES: usize = 64 << 10;
/// What [`WRITE_BYTES`] become: a piece that does not fit leaves a record before it that is not full, and two of those are more than
/// a full one.
const ENCRYPTED_BYTES: usize = WRITE_BYTES + (2 * WRITE_BYTES / RECORD_BYTES + 2) * RECORD_OVERHEAD;
/// Header of a record; its last two bytes are the length of what follows (RFC 8446, section 5.1).
const HEADER_BYTES: usize = 5;
/// Records in a row without content that a peer may send: those that only hide how much is said (RFC 8446, section 5.4), or change
/// keys. rustls takes 32 empty ones, as many as `BoringSSL`, but forgets them at each change of keys.
const CONTENTLESS_BYTES_MAX: usize = 32 * (HEADER_BYTES + RECORD_BYTES + 256);
/// Most bytes that [`TlsStream::poll_read`] and [`TlsStream::poll_receive`] hand over at once.
pub const PLAIN_BYTES_MAX: usize = UnbufferedClientConnection::RECEIVED_BYTES_MAX + READ_BYTES;

/// What the connections of a thread read into and encrypt into, one after the other.
#[derive(Debug, Default)]
pub struct Buffers {
    /// As it came from the socket.
    received: BytesMut,
    /// Small pieces that are encrypted together.
    gathered: Vec<u8>,
    /// For the socket.
    encrypted: Vec<u8>,
}

/// A socket with encryption.
pub struct TlsStream<E> {
    stream: TcpStream,
    session: Box<E>,
    /// The beginning of a record.
    received: Vec<u8>,
    /// Bytes of records since the last content.
    contentless: usize,
    /// Records that the socket has not taken.
    unsent: BytesMut,
    /// The peer sends nothing more.
    ended: bool,
}

/// Where the session stands once it has no more to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    Handshake,
    Open,
}

impl<E: End> TlsStream<E> {
    /// A connection that has not said anything yet.
    #[must_use]
    pub fn new(stream: TcpStream, session: E) -> Self {
        Self {
            stream,
            session: Box::new(session),
            received: Vec::new(),
            contentless: 0,
            unsent: BytesMut::new(),
            ended: false,
        }
    }

    /// What both ends agreed to speak.
    #[must_use]
    pub fn alpn_protocol(&self) -> Option<&[u8]> {
        self.session.alpn_protocol()
    }

    /// Whether the handshake is still to be done, its end not to be sent any more.
    #[must_use]
    pub fn is_handshaking(&self) -> bool {
        self.session.is_handshaking()
    }

    /// Bytes in memory that wait for the rest of a record or handshake message.
    #[must_use]
    pub const fn received_bytes(&self) -> usize {
        self.received.capacity()
    }

    /// Bytes of records that the socket has not taken.
    #[must_use]
    pub fn unsent_bytes(&self) -> usize {
        self.unsent.len()
    }

    /// The socket.
    pub const fn socket(&mut self) -> &mut TcpStream {
        &mut self.stream
    }

    /// Ready once the handshake is done and the peer has been sent its end of it. `plain` takes what the peer sent behind it.
    ///
    /// # Errors
    /// Those of the socket; whatever in the handshake is not as it should be.
    pub fn poll_handshake(
        &mut self,
        context: &mut Context<'_>,
        buffers: &mut Buffers,
        mut plain: impl FnMut(&[u8]),
    ) -> Poll<io::Result<()>> {
        while self.session.is_handshaking() {
            if self.received.is_empty() {
                // A client begins.
                self.process(&mut [], &mut plain)?;
            }
            ready!(self.poll_receive(context, buffers, READ_BYTES, &mut plain))?;
            if self.ended {
                return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
            }
        }
        self.poll_flush(context)
    }

    /// Hands over what has come, in plain, piece by piece, [`PLAIN_BYTES_MAX`] at most; gives how many bytes that were. 0: the peer
    /// sends nothing more.
    ///
    /// # Errors
    /// Those of [`Self::poll_receive`].
    pub fn poll_read(
        &mut self,
        context: &mut Context<'_>,
        buffers: &mut Buffers,
        mut plain: impl FnMut(&[u8]),
    ) -> Poll<io::Result<usize>> {
        let mut bytes = 0;
        while bytes == 0 && !self.ended {
            let mut counted = |piece: &[u8]| {
                bytes += piece.len();
                plain(piece);
            };
            ready!(self.poll_receive(context, buffers, READ_BYTES, &mut counted))?;
        }
        Poll::Ready(Ok(bytes))
    }

    /// Reads once, `bytes_max` or what is missing of a record, and hands over what that was in plain, which may be nothing. Gives
    /// how many bytes were read: what it took to decrypt them does not depend on how much they say. 0: the peer sends nothing more.
    ///
    /// # Errors
    /// Those of the socket; records that are none, that the peer does not end, or too many of them without content.
    pub fn poll_receive(
        &mut self,
        context: &mut Context<'_>,
        buffers: &mut Buffers,
        bytes_max: usize,
        mut plain: impl FnMut(&[u8]),
    ) -> Poll<io::Result<usize>> {
        if self.ended {
            return Poll::Ready(Ok(0));
        }
        // What is kept may be what the peer waits for.
        if let Poll::Ready(Err(error)) = self.poll_flush(context) {
            return Poll::Ready(Err(error));
        }
        let received = &mut buffers.received;
        received.clear();
        received.reserve(READ_BYTES + self.received.len());
        received.extend_from_slice(&self.received);
        let bytes_max = bytes_max.max(missing(received)).min(READ_BYTES);
        let mut room = (&mut *received).limit(bytes_max);
        // The future keeps nothing between polls.
        let count = ready!(pin!(self.stream.read_buf(&mut room)).poll(context))?;
        if count == 0 && !self.received.is_empty() {
            return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
        }
        self.ended |= count == 0;
        let mut bytes = 0;
        let processed = self.process(received, &mut |piece: &[u8]| {
            bytes += piece.len();
            plain(piece);
        });
        // A part of the handshake, or an alert.
        let sent = self.poll_flush(context);
        let (_, used) = processed?;
        if let Poll::Ready(Err(error)) = sent {
            return Poll::Ready(Err(error));
        }
        let rest = &received[used..];
        if rest.len() > E::RECEIVED_BYTES_MAX {
            return Poll::Ready(Err(io::ErrorKind::InvalidData.into()));
        }
        self.received = rest.to_vec();
        self.contentless = if bytes > 0 {
            0
        } else {
            self.contentless + used
        };
        if self.contentless > CONTENTLESS_BYTES_MAX {
            return Poll::Ready(Err(io::ErrorKind::InvalidData.into()));
        }
        Poll::Ready(Ok(count))
    }

    /// Has the session take in records, until it has none that is whole; tells how many bytes it used up.
    fn process(
        &mut self,
        records: &mut [u8],
        plain: &mut impl FnMut(&[u8]),
    ) -> io::Result<(Standing, usize)> {
        let mut used = 0;
        let mut failed = None;
        loop {
            // A session that has failed is not shown anything more; only its alert is still to be had from it.
            if let Some(error) = failed.take_if(|_| !self.session.wants_write()) {
                return Err(error);
            }
            let UnbufferedStatus { mut discard, state } =
                self.session.process(&mut records[used..]);
            match state {
                Ok(ConnectionState::ReadTraffic(mut traffic)) => {
                    while let Some(record) = traffic.next_record() {
                        let record = record.map_err(io::Error::other)?;
                        discard += record.discard;
                        plain(record.payload);
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
    fn write_with<T>(
        &mut self,
        write: impl FnOnce(&mut WriteTraffic<'_, E::Data>) -> Result<T, EncryptError>,
    ) -> io::Result<T> {
        // The session wants to see the beginning of a record again, each time.
        let mut received = std::mem::take(&mut self.received);
        let (standing, used) = self.process(&mut received, &mut |_: &[u8]| {})?;
        received.drain(..used);
        self.received = received;
        match self.session.process(&mut self.received).state {
            Ok(ConnectionState::WriteTraffic(mut traffic)) if standing == Standing::Open => {
                write(&mut traffic).map_err(io::Error::other)
            }
            _ => Err(io::ErrorKind::NotConnected.into()),
        }
    }

    /// Encrypts what stands at the front of `pieces`, and writes it; gives how many bytes that were. What the
    /// socket does not take is kept, and goes first the next time: pending for as long as something is kept.
    ///
    /// # Errors
    /// Those of the socket; before the end of the handshake.
    pub fn poll_write<'a>(
        &mut self,
        context: &mut Context<'_>,
        buffers: &mut Buffers,
        pieces: impl Iterator<Item = &'a [u8]>,
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_flush(context))?;
        let Buffers {
            gathered,
            encrypted,
            ..
        } = buffers;
        encrypted.resize(ENCRYPTED_BYTES, 0);
        let (taken, bytes) =
            self.write_with(|traffic| encrypt(traffic, pieces, gathered, encrypted))?;
        // Should the session have had something of its own to say, that goes first.
        let direct = self.unsent.is_empty();
        let mut sent = 0;
        while direct && sent < bytes {
            match Pin::new(&mut self.stream).poll_write(context, &encrypted[sent..bytes])? {
                Poll::Ready(0) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Poll::Ready(count) => sent += count,
                Poll::Pending => break,
            }
        }
        self.unsent.put_slice(&encrypted[sent..bytes]);
        Poll::Ready(Ok(taken))
    }

    /// Ready once the socket has taken all.
    ///
    /// # Errors
    /// Those of the socket.
    pub fn poll_flush(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.unsent.is_empty() {
            let sent = ready!(Pin::new(&mut self.stream).poll_write(context, &self.unsent))?;
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

    /// Tells the peer that nothing more follows, with the next flush.
    ///
    /// # Errors
    /// When the session has failed, or its handshake is not over.
    pub fn end(&mut self) -> io::Result<()> {
        let mut alert = [0; 2 * RECORD_OVERHEAD];
        let bytes = self.write_with(|traffic| traffic.queue_close_notify(&mut alert))?;
        self.unsent.put_slice(&alert[..bytes]);
        Ok(())
    }
}

/// What is missing of the first record, as far as its header tells.
fn missing(received: &[u8]) -> usize {
    match received.first_chunk::<HEADER_BYTES>() {
        Some([.., high, low]) => {
            let length = usize::from(u16::from_be_bytes([*high, *low]));
            (HEADER_BYTES + length).saturating_sub(received.len())
        }
        None => 0,
    }
}

/// Encrypts the front of `pieces`: large ones where they are, small ones after they were gathered. Gives how many bytes were taken,
/// and how many they have become.
fn encrypt<'a, D>(
    traffic: &mut WriteTraffic<'_, D>,
    pieces: impl Iterator<Item = &'a [u8]>,
    gathered: &mut Vec<u8>,
    encrypted: &mut [u8],
) -> Result<(usize, usize), EncryptError> {
    let (mut taken, mut filled) = (0, 0);
    let mut put = |plain: &[u8]| {
        if !plain.is_empty() {
            filled += traffic.encrypt(plain, &mut encrypted[filled..])?;
        }
        Ok::<_, EncryptError>(())
    };
    gathered.clear();
    for piece in pieces {
        let piece = &piece[..piece.len().min(WRITE_BYTES - taken)];
        taken += piece.len();
        let is_large = piece.len() >= RECORD_BYTES;
        if is_large || gathered.len() + piece.len() > RECORD_BYTES {
            put(gathered)?;
            gathered.clear();
        }
        if is_large {
            put(piece)?;
        } else {
            gathered.extend_from_slice(piece);
        }
        if taken == WRITE_BYTES {
            break;
        }
    }
    put(gathered)?;
    Ok((taken, filled))
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
