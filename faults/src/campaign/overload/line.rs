//! A connection over plain TCP whose bytes are the attacker's own business, and how a session begins on any other.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use bytes::{Buf, BytesMut};
use prost::Message;
use rialto_protocol::frame::{self, Flags, Frame, FrameKind};
use rialto_protocol::ids::{ClientId, ConversationId, DeviceId, RequestId, UserId};
use rialto_protocol::limits::FRAME_BYTES_MAX_CEILING;
use rialto_protocol::v1;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::sleep;

use super::site::{Site, Tally};

/// Connections from one address: far fewer than it has ports.
pub(super) const PER_SOURCE: usize = 1_000;
/// Before a connection that was turned away is tried again.
const AGAIN: Duration = Duration::from_millis(100);
/// The receive buffer of somebody who does not read, as small as the system allows.
const DEAF_BUFFER_BYTES: u32 = 4 << 10;

/// How well a connection listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Hearing {
    /// As usual.
    Usual,
    /// The system takes in as little as possible for it.
    Deaf,
}

/// Who speaks on a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Caller {
    /// A user, with the limits of one.
    User,
    /// A service, without.
    Service,
    /// A user whose frames are to be compressed.
    Compressing,
}

impl Caller {
    /// In half of the cases a service.
    pub(super) fn of(number: usize) -> Self {
        if number.is_multiple_of(2) {
            Self::Service
        } else {
            Self::User
        }
    }
}

/// A stream of the connection with this number.
pub(super) async fn open(
    site: &Site,
    port: u16,
    number: usize,
    hearing: Hearing,
) -> io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.set_nodelay(true)?;
    if hearing == Hearing::Deaf {
        socket.set_recv_buffer_size(DEAF_BUFFER_BYTES)?;
    }
    socket.bind(source(number))?;
    let stream = socket.connect(loopback(port)).await?;
    Tally::add(&site.tally.opened);
    Ok(stream)
}

/// Where the connection with this number comes from.
pub(super) fn source(number: usize) -> SocketAddr {
    let place = u16::try_from(number / PER_SOURCE).unwrap_or(0);
    let [third, fourth] = place.to_be_bytes();
    SocketAddr::from((Ipv4Addr::new(127, 9, third, fourth + 1), 0))
}

/// Where the broker listens.
pub(super) fn loopback(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}

/// What `open` gives, as soon as the broker lets the connection in.
pub(super) async fn until_in<T>(site: &Site, open: impl AsyncFn() -> io::Result<T>) -> T {
    loop {
        let opened = {
            let _turn = site.opening.acquire().await;
            open().await
        };
        match opened {
            Ok(opened) => return opened,
            Err(_) => turned_away(site).await,
        }
    }
}

/// Says Hello, and hears that it is welcome.
pub(super) async fn greet(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    user: UserId,
    caller: Caller,
) -> io::Result<()> {
    stream.write_all(&hello(user, caller)).await?;
    let mut buf = BytesMut::new();
    loop {
        let split = frame::split(&mut buf, FRAME_BYTES_MAX_CEILING);
        if let Some(frame) = split.map_err(io::Error::other)? {
            return if frame.kind == FrameKind::Welcome {
                Ok(())
            } else {
                Err(io::ErrorKind::ConnectionRefused.into())
            };
        }
        if stream.read_buf(&mut buf).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
}

/// A session.
pub(super) struct Line {
    pub(super) stream: TcpStream,
    pub(super) user: UserId,
}

impl Line {
    /// Who has this number.
    pub(super) fn user(number: usize) -> UserId {
        UserId::from_name(&format!("stranger {number}"))
    }

    /// A session, as soon as the broker lets the connection in.
    pub(super) async fn enter(
        site: &Site,
        number: usize,
        caller: Caller,
        hearing: Hearing,
    ) -> Self {
        until_in(site, async || {
            let user = Self::user(number);
            let mut stream = open(site, site.ports.tcp, number, hearing).await?;
            greet(&mut stream, user, caller).await?;
            Ok(Self { stream, user })
        })
        .await
    }

    pub(super) async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes).await
    }

    /// Writes what `next` makes, and takes what comes, until the connection ends.
    pub(super) async fn pour(self, tally: &Tally, mut next: impl FnMut(&mut u32) -> Vec<u8>) {
        let (mut read, mut write) = self.stream.into_split();
        let speak = async {
            let mut id = 2;
            while write.write_all(&next(&mut id)).await.is_ok() {}
        };
        tokio::select! {
            () = speak => {}
            () = Self::drain(&mut read, tally) => {}
        }
    }

    /// The same, but takes nothing.
    pub(super) async fn pour_deaf(mut self, mut next: impl FnMut(&mut u32) -> Vec<u8>) {
        let mut id = 2;
        while self.send(&next(&mut id)).await.is_ok() {}
    }

    /// Takes what comes, without looking at it, until the connection ends.
    pub(super) async fn drain(stream: &mut (impl AsyncRead + Unpin), tally: &Tally) {
        let mut buf = BytesMut::with_capacity(64 << 10);
        while stream.read_buf(&mut buf).await.is_ok_and(|count| count > 0) {
            while let Ok(Some(frame)) = frame::split(&mut buf, FRAME_BYTES_MAX_CEILING) {
                count(&frame, tally);
            }
            if buf.is_empty() {
                buf.clear();
            }
        }
        buf.advance(buf.len());
    }
}

/// What a frame brings an attacker.
fn count(frame: &Frame, tally: &Tally) {
    if frame.flags.contains(Flags::COMPRESSED) {
        Tally::add(&tally.compressed);
    }
    match frame.kind {
        FrameKind::Deliver => Tally::add(&tally.told),
        FrameKind::Presences if frame.request_id == RequestId::PUSH => Tally::add(&tally.told),
        FrameKind::Error
            if v1::Error::decode(frame.body.clone())
                .is_ok_and(|error| error.retry_after_ms > 0) =>
        {
            Tally::add(&tally.advised);
        }
        _ => {}
    }
}

/// The Hello of a user, or of a service.
pub(super) fn hello(user: UserId, caller: Caller) -> Vec<u8> {
    let (prefix, capabilities) = match caller {
        Caller::User => ("dev", Vec::new()),
        Caller::Service => ("dev-service", Vec::new()),
        Caller::Compressing => ("dev", vec![v1::Capability::Zstd as i32]),
    };
    let hello = v1::Hello {
        token: format!("{prefix}:{user}"),
        device: DeviceId::from_bytes(*user.as_bytes()).to_proto(),
        sdk: "attacker".to_owned(),
        capabilities,
    };
    request(FrameKind::Hello, 1, &hello)
}

/// A frame.
pub(super) fn request(kind: FrameKind, id: u32, body: &impl Message) -> Vec<u8> {
    frame::encode(kind, RequestId(id), body).to_vec()
}

/// A message of so many bytes, with the idempotency key of this number.
pub(super) fn publish(conversation: ConversationId, id: u32, bytes: usize) -> Vec<u8> {
    let message = v1::Message {
        body: vec![b'x'; bytes].into(),
        ..v1::Message::default()
    };
    say(conversation, id, message)
}

/// This message, with the idempotency key of this number.
pub(super) fn say(conversation: ConversationId, id: u32, message: v1::Message) -> Vec<u8> {
    let publish = v1::Publish {
        target: Some(v1::publish::Target::Conversation(conversation.to_proto())),
        drafts: vec![v1::Draft {
            client_id: client_id(id).to_proto(),
            content: Some(v1::draft::Content::Message(message)),
        }],
        ..v1::Publish::default()
    };
    request(FrameKind::Publish, id, &publish)
}

/// The idempotency key of this number.
pub(super) fn client_id(id: u32) -> ClientId {
    let [a, b, c, d] = id.to_be_bytes();
    ClientId::v7(now_ms(), [a, b, c, d, 7, 7, 7, 7, 7, 7])
}

/// Milliseconds since 1970.
pub(super) fn now_ms() -> u64 {
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(0))
}

/// Waits before another attempt, and counts that one was ended.
pub(super) async fn turned_away(site: &Site) {
    Tally::add(&site.tally.turned_away);
    sleep(AGAIN).await;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Dice;

    #[test]
    fn what_attackers_are_told_is_counted_and_no_answer_is() {
        let tally = Tally::default();
        let presences = v1::Presences::default();
        for id in [RequestId::PUSH, RequestId(7)] {
            let mut buf = BytesMut::from(&frame::encode(FrameKind::Presences, id, &presences)[..]);
            let whole = frame::split(&mut buf, FRAME_BYTES_MAX_CEILING).unwrap();
            count(&whole.unwrap(), &tally);
        }
        let mut page = [0; 2_000];
        Dice::new(1).fill(&mut page);
        page.iter_mut().for_each(|byte| *byte %= 16);
        let page = frame::wrap(FrameKind::Deliver, RequestId::PUSH, &page);
        for frame in [page.clone(), frame::compress(&page).unwrap()] {
            let whole = frame::split(&mut BytesMut::from(&frame[..]), FRAME_BYTES_MAX_CEILING);
            count(&whole.unwrap().unwrap(), &tally);
        }
        let found = [&tally.told, &tally.compressed, &tally.advised].map(Tally::of);
        assert_eq!(found, [3, 1, 0]);
    }
}
