//! A UDP socket that hands its datagrams out one by one, so that each has a buffer of its own, and first packets of clients after
//! all others.
//!
//! The kernel joins what one sender sends (UDP GRO), up to 64 KiB. quinn copies that into one buffer and cuts it up, and whatever
//! it keeps of a datagram, be it a byte of a stream with a gap before it, would keep all of that buffer.
//!
//! What looks like a first packet costs the keys that tell whether it is one, ten times what it takes to find that a packet
//! belongs to a connection. Anybody can send it, from any address: it is put aside until nothing else is there, and waits for its
//! part of a round ([`Intake`]).
//!
//! quinn would end the endpoint at an error of the socket, and with it all QUIC of the shard. It never learns of one: the socket is
//! read again after a pause, as listeners for TCP go on accepting.

use std::{
    collections::VecDeque,
    io::{self, IoSliceMut, Read as _},
    net::{IpAddr, SocketAddr},
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, ready},
    time::Duration,
};

use quinn::{
    AsyncUdpSocket, UdpPoller,
    udp::{RecvMeta, Transmit},
};
use rialto_core::counts::Counts;
use tokio::time::Sleep;

use super::runtime::{FIRST_PACKETS_MAX, Intake};
use crate::shard::complaints::Complaints;

/// Taken from the kernel at once, each of them one datagram or several joined.
const BATCHES: usize = 8;
/// The most that UDP over IPv4 or IPv6 carries, or that the kernel joins.
const BATCH_BYTES: usize = 64 << 10;
/// Longer datagrams are for programs of this machine: no usual network carries them whole.
const FAR_BYTES_MAX: usize = 1_500;
/// Clients make those that open a connection as long (RFC 9000, section 14.1).
const OPENING_BYTES_MIN: usize = 1_200;
/// How often the kernel is asked for datagrams that go before the first packets that it gives.
const FILLS_MAX: usize = 8;
/// First packets that are put aside, as many as come to quinn in some eight rounds, however short they are; and their bytes. What is
/// more is dropped, and sent again.
const ASIDE_MAX: usize = 8 * FIRST_PACKETS_MAX;
const ASIDE_BYTES_MAX: usize = 256 << 10;
/// Before the kernel is asked again that had an error for us.
const PAUSE: Duration = Duration::from_millis(10);

/// See the module.
#[derive(Debug)]
pub(super) struct OneByOne {
    socket: Arc<dyn AsyncUdpSocket>,
    intake: Arc<Intake>,
    received: Mutex<Received>,
}

impl OneByOne {
    pub(super) fn new(socket: Arc<dyn AsyncUdpSocket>, intake: Arc<Intake>) -> Arc<Self> {
        Arc::new(Self {
            socket,
            intake,
            received: Mutex::new(Received::new()),
        })
    }

    fn received(&self) -> MutexGuard<'_, Received> {
        // After a panic its bytes still are bytes.
        self.received.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl AsyncUdpSocket for OneByOne {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Arc::clone(&self.socket).create_io_poller()
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        self.socket.try_send(transmit)
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        metas: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        if !self.intake.is_open() {
            // The endpoint is polled again when it is.
            return Poll::Pending;
        }
        let mut received = self.received();
        let mut is_drained = false;
        for _ in 0..FILLS_MAX {
            if received.batches.is_empty() {
                is_drained = received.fill(&*self.socket, cx).is_pending();
            }
            if is_drained {
                break;
            }
            let count = received.hand_out(bufs, metas);
            if count > 0 {
                return Poll::Ready(Ok(count));
            }
        }
        let has_first = !received.aside.is_empty();
        if has_first && self.intake.take_first_packet() {
            return Poll::Ready(Ok(received.hand_out_first(bufs, metas)));
        }
        if has_first || !is_drained {
            cx.waker().wake_by_ref();
        }
        Poll::Pending
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    fn max_transmit_segments(&self) -> usize {
        self.socket.max_transmit_segments()
    }

    fn may_fragment(&self) -> bool {
        self.socket.may_fragment()
    }
}

/// What the kernel has handed over, and quinn has not been given.
struct Received {
    bytes: Box<[u8]>,
    /// The last of them first; where each stands in `bytes`, and what is left of it.
    batches: Vec<(usize, RecvMeta)>,
    aside: Aside,
    /// Since the last error.
    pause: Option<Pin<Box<Sleep>>>,
    complaints: Complaints,
}

/// First packets, and what came behind one from the same address, which may be of the same handshake; the oldest first.
#[derive(Default)]
struct Aside {
    bytes: VecDeque<u8>,
    metas: VecDeque<RecvMeta>,
    by_address: Counts<SocketAddr>,
}

impl std::fmt::Debug for Received {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Received")
            .field("batches", &self.batches)
            .finish_non_exhaustive()
    }
}

impl Received {
    fn new() -> Self {
        Self {
            bytes: vec![0; BATCHES * BATCH_BYTES].into(),
            batches: Vec::with_capacity(BATCHES),
            aside: Aside::default(),
            pause: None,
            complaints: Complaints::default(),
        }
    }

    /// Hands out what goes before first packets, of what the kernel has given; how many datagrams that were.
    fn hand_out(&mut self, bufs: &mut [IoSliceMut<'_>], metas: &mut [RecvMeta]) -> usize {
        let mut count = 0;
        for (buf, meta) in bufs.iter_mut().zip(metas) {
            let Some((datagram, its)) = self.next() else {
                break;
            };
            // What is longer than quinn has said that it takes, it cannot read anyway.
            let len = datagram.len().min(buf.len());
            buf[..len].copy_from_slice(&datagram[..len]);
            *meta = RecvMeta {
                len,
                stride: len,
                ..its
            };
            count += 1;
        }
        count
    }

    /// Hands out the next one that was put aside; how many that were.
    fn hand_out_first(&mut self, bufs: &mut [IoSliceMut<'_>], metas: &mut [RecvMeta]) -> usize {
        let mut count = 0;
        for (buf, meta) in bufs.iter_mut().zip(metas).take(1) {
            if let Some(its) = self.aside.pop(buf) {
                *meta = its;
                count += 1;
            }
        }
        count
    }

    /// Takes what the kernel has. Pending: it has nothing, or an error some moments ago.
    fn fill(&mut self, socket: &dyn AsyncUdpSocket, cx: &mut Context<'_>) -> Poll<()> {
        if let Some(pause) = &mut self.pause {
            ready!(pause.as_mut().poll(cx));
            self.pause = None;
        }
        let mut metas = [RecvMeta::default(); BATCHES];
        let mut chunks = self.bytes.chunks_mut(BATCH_BYTES);
        let mut bufs = metas.map(|_| IoSliceMut::new(chunks.next().unwrap_or_default()));
        match ready!(socket.poll_recv(cx, &mut bufs, &mut metas)) {
            Ok(count) => {
                let starts = (0..).step_by(BATCH_BYTES);
                self.batches.extend(starts.zip(metas).take(count));
                self.batches.reverse();
            }
            Err(error) => {
                if let Some(failures) = self.complaints.note() {
                    tracing::error!(%error, failures, "datagrams cannot be received");
                }
                self.pause = Some(Box::pin(tokio::time::sleep(PAUSE)));
            }
        }
        Poll::Ready(())
    }

    /// The next datagram that is taken and not put aside.
    fn next(&mut self) -> Option<(&[u8], RecvMeta)> {
        loop {
            let (at, left) = self.batches.last_mut()?;
            let (start, meta) = (*at, *left);
            let len = meta.stride.min(meta.len);
            *at += len;
            left.len -= len;
            if left.len == 0 || len == 0 {
                self.batches.pop();
            }
            let datagram = &self.bytes[start..start + len];
            if takes(meta.addr.ip(), datagram) && !self.aside.take(datagram, meta) {
                return Some((&self.bytes[start..start + len], meta));
            }
        }
    }
}

impl Aside {
    fn is_empty(&self) -> bool {
        self.metas.is_empty()
    }

    /// Takes a datagram in, if it is a first packet or comes behind one; whether it is not to be handed out otherwise.
    fn take(&mut self, datagram: &[u8], meta: RecvMeta) -> bool {
        let is_first = is_first_packet(datagram);
        if !is_first && (self.is_empty() || self.by_address.get(&meta.addr) == 0) {
            return false;
        }
        let has_room =
            self.metas.len() < ASIDE_MAX && self.bytes.len() + datagram.len() <= ASIDE_BYTES_MAX;
        if !has_room {
            return is_first;
        }
        self.bytes.extend(datagram);
        self.by_address.add(meta.addr);
        self.metas.push_back(RecvMeta {
            len: datagram.len(),
            ..meta
        });
        true
    }

    /// The oldest, as far as the buffer goes.
    fn pop(&mut self, buf: &mut [u8]) -> Option<RecvMeta> {
        let meta = self.metas.pop_front()?;
        self.by_address.remove(&meta.addr);
        let len = meta.len.min(buf.len());
        // There are as many bytes as its length tells.
        let _ = self.bytes.read_exact(&mut buf[..len]);
        self.bytes.drain(..meta.len - len);
        Some(RecvMeta {
            len,
            stride: len,
            ..meta
        })
    }
}

/// Whether it looks like a client's first packet: a long header of the type Initial (RFC 9000, section 17.2), neither of which is
/// protected. Later ones of a handshake may, those of a connection that is there do not.
fn is_first_packet(datagram: &[u8]) -> bool {
    const FORM_AND_TYPE: u8 = 0b1011_0000;
    const LONG_INITIAL: u8 = 0b1000_0000;
    datagram
        .first()
        .is_some_and(|first| first & FORM_AND_TYPE == LONG_INITIAL)
}

/// Whether a datagram is taken from there. Short ones that look as if they opened a connection are not, nor are those with data before
/// the handshake (0-RTT), to which nobody is invited: each would have the time of one that is as long as it has to be, and of those
/// for a client that waits to be accepted quinn counts the bytes alone.
fn takes(from: IpAddr, datagram: &[u8]) -> bool {
    const FORM_AND_KIND: u8 = 0b1010_0000;
    const LONG_OPENING: u8 = 0b1000_0000;
    let opens = datagram
        .first()
        .is_some_and(|first| first & FORM_AND_KIND == LONG_OPENING);
    let bytes_min = if opens { OPENING_BYTES_MIN } else { 1 };
    let fits = datagram.len() <= FAR_BYTES_MAX || from.to_canonical().is_loopback();
    datagram.len() >= bytes_min && fits
}

#[cfg(test)]
mod tests {
    use std::{
        future::poll_fn,
        net::Ipv4Addr,
        sync::atomic::{AtomicUsize, Ordering},
    };

    use futures_util::FutureExt as _;

    use super::{super::udp::UdpSocket, *};

    const DATAGRAMS: usize = 10;
    const BYTES: usize = 1_000;

    fn socket() -> Arc<dyn AsyncUdpSocket> {
        let socket = std::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        Arc::new(UdpSocket::new(socket).unwrap())
    }

    /// One that may receive.
    fn receiving() -> (Arc<OneByOne>, Arc<Intake>) {
        let intake = Arc::new(Intake::default());
        intake.open();
        (OneByOne::new(socket(), Arc::clone(&intake)), intake)
    }

    /// Says datagrams that begin with these bytes and go on with their numbers, those of first packets as long as they have to be.
    fn say(sender: &std::net::UdpSocket, socket: &OneByOne, first: u8, numbers: &[u8]) {
        for number in numbers {
            let mut datagram = vec![first, *number];
            if is_first_packet(&datagram) {
                datagram.resize(OPENING_BYTES_MIN, 0);
            }
            sender
                .send_to(&datagram, socket.local_addr().unwrap())
                .unwrap();
        }
    }

    /// The first bytes of the next datagram.
    async fn next(socket: &OneByOne) -> [u8; 2] {
        let (mut bytes, mut metas) = ([0; 2], [RecvMeta::default()]);
        let mut bufs = [IoSliceMut::new(&mut bytes)];
        let count = poll_fn(|cx| socket.poll_recv(cx, &mut bufs, &mut metas))
            .await
            .unwrap();
        assert_eq!((count, metas[0].len), (1, 2));
        bytes
    }

    /// The next datagrams, one at a time, as long as there are any.
    async fn hear(socket: &OneByOne) -> Vec<[u8; 2]> {
        let mut heard = vec![next(socket).await];
        while let Some(datagram) = next(socket).now_or_never() {
            heard.push(datagram);
        }
        heard
    }

    /// As a long header and a short one begin.
    const FIRST: u8 = 0xc3;
    const LATER: u8 = 0x43;

    fn client() -> std::net::UdpSocket {
        std::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap()
    }

    #[tokio::test]
    async fn first_packets_come_after_those_of_connections_and_before_what_follows_them() {
        let (socket, _) = receiving();
        let (one, other) = (client(), client());
        say(&one, &socket, FIRST, &[1, 2]);
        say(&one, &socket, LATER, &[3]);
        say(&other, &socket, LATER, &[4, 5]);
        let heard = hear(&socket).await;
        let numbers: Vec<u8> = heard.iter().map(|[_, number]| *number).collect();
        assert_eq!(numbers, [4, 5, 1, 2, 3]);
        say(&one, &socket, LATER, &[6]);
        assert_eq!(hear(&socket).await, [[LATER, 6]]);
        assert!(socket.received().aside.by_address.is_empty());
    }

    #[tokio::test]
    async fn a_round_has_time_for_some_first_packets_and_for_all_others() {
        let (socket, intake) = receiving();
        let (junk, honest) = (client(), client());
        let numbers: Vec<u8> = (0..=u8::MAX).take(FIRST_PACKETS_MAX + 8).collect();
        say(&junk, &socket, FIRST, &numbers);
        let heard = hear(&socket).await;
        assert_eq!(heard.len(), FIRST_PACKETS_MAX);
        say(&honest, &socket, LATER, &[1]);
        assert_eq!(hear(&socket).await, [[LATER, 1]]);
        intake.open();
        assert_eq!(hear(&socket).await.len(), 8);
    }

    #[test]
    fn first_packets_that_there_is_no_room_for_are_dropped_and_others_go_before_them() {
        let meta = |port: u16| RecvMeta {
            addr: (Ipv4Addr::LOCALHOST, port).into(),
            ..RecvMeta::default()
        };
        let mut aside = Aside::default();
        let mut datagram = [FIRST; 1_200];
        let room = ASIDE_BYTES_MAX / datagram.len();
        for _ in 0..2 * room {
            assert!(aside.take(&datagram, meta(1)));
        }
        assert_eq!(aside.metas.len(), room);
        datagram[0] = LATER;
        assert!(!aside.take(&datagram, meta(1)));
        let mut buf = [0; 1_000];
        let first = aside.pop(&mut buf).unwrap();
        assert_eq!((first.len, buf), (1_000, [FIRST; 1_000]));
        assert!(aside.take(&datagram, meta(1)) && !aside.take(&datagram, meta(2)));
        while aside.pop(&mut buf).is_some() {}
        assert!(aside.bytes.is_empty() && aside.by_address.is_empty());
        assert_eq!((buf[0], buf[1]), (LATER, FIRST), "the last one");
    }

    #[test]
    fn of_short_first_packets_no_more_are_put_aside_than_rounds_have_time_for() {
        let meta = RecvMeta {
            addr: (Ipv4Addr::LOCALHOST, 1).into(),
            ..RecvMeta::default()
        };
        let mut aside = Aside::default();
        for _ in 0..10 * ASIDE_MAX {
            assert!(aside.take(&[FIRST], meta));
        }
        assert_eq!(aside.metas.len(), ASIDE_MAX);
        assert!(!aside.take(&[LATER], meta));
    }

    /// Has errors, so many, before it has anything else.
    #[derive(Debug)]
    struct Failing {
        socket: Arc<dyn AsyncUdpSocket>,
        failures: AtomicUsize,
    }

    impl AsyncUdpSocket for Failing {
        fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
            Arc::clone(&self.socket).create_io_poller()
        }

        fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
            self.socket.try_send(transmit)
        }

        fn poll_recv(
            &self,
            cx: &mut Context<'_>,
            bufs: &mut [IoSliceMut<'_>],
            metas: &mut [RecvMeta],
        ) -> Poll<io::Result<usize>> {
            let left = self.failures.load(Ordering::Relaxed);
            if left == 0 {
                return self.socket.poll_recv(cx, bufs, metas);
            }
            self.failures.store(left - 1, Ordering::Relaxed);
            Poll::Ready(Err(io::ErrorKind::PermissionDenied.into()))
        }

        fn local_addr(&self) -> io::Result<SocketAddr> {
            self.socket.local_addr()
        }
    }

    #[tokio::test]
    async fn after_errors_of_the_socket_it_is_read_on() {
        let failing = Failing {
            socket: socket(),
            failures: AtomicUsize::new(3),
        };
        let intake = Arc::new(Intake::default());
        intake.open();
        let socket = OneByOne::new(Arc::new(failing), intake);
        say(&client(), &socket, LATER, &[1]);
        assert_eq!(next(&socket).await, [LATER, 1]);
    }

    #[tokio::test]
    async fn datagrams_that_the_kernel_joins_are_handed_out_one_by_one() {
        let (sender, (socket, _)) = (socket(), receiving());
        let mut poller = Arc::clone(&sender).create_io_poller();
        poll_fn(|cx| poller.as_mut().poll_writable(cx))
            .await
            .unwrap();
        let contents: Vec<u8> = (1..=10).flat_map(|number| [number; BYTES]).collect();
        let together = sender.max_transmit_segments().min(DATAGRAMS);
        for contents in contents.chunks(together * BYTES) {
            let transmit = Transmit {
                destination: socket.local_addr().unwrap(),
                ecn: None,
                contents,
                segment_size: Some(BYTES),
                src_ip: None,
            };
            sender.try_send(&transmit).unwrap();
        }
        let mut received = Vec::new();
        // Three at once: the others wait.
        let mut bytes = [[0; 2 * BYTES]; 3];
        while received.len() < contents.len() {
            let mut metas = [RecvMeta::default(); 3];
            let mut bufs = bytes.each_mut().map(|buf| IoSliceMut::new(buf));
            let count = poll_fn(|cx| socket.poll_recv(cx, &mut bufs, &mut metas))
                .await
                .unwrap();
            for (meta, bytes) in metas.iter().zip(&bytes).take(count) {
                assert_eq!((meta.len, meta.stride), (BYTES, BYTES));
                assert_eq!(meta.addr, sender.local_addr().unwrap());
                received.extend_from_slice(&bytes[..meta.len]);
            }
        }
        assert!(received == contents);
        assert_eq!(socket.max_receive_segments(), 1);
    }

    #[test]
    fn long_datagrams_are_taken_from_this_machine_alone() {
        let (near, mapped) = ("127.0.0.1", "::ffff:127.0.0.1");
        for (from, bytes, taken) in [
            (near, 6_500, true),
            (mapped, 6_500, true),
            ("10.0.0.1", 1_472, true),
            ("10.0.0.1", 6_500, false),
        ] {
            assert_eq!(
                takes(from.parse().unwrap(), &vec![LATER; bytes]),
                taken,
                "{bytes} of {from}"
            );
        }
    }

    #[test]
    fn short_datagrams_open_no_connection() {
        let takes = |first: u8, bytes: usize| takes([10, 0, 0, 1].into(), &vec![first; bytes]);
        let (early, handshake) = (0xd3, 0xe3);
        for first in [FIRST, early] {
            assert!(takes(first, 1_200) && !takes(first, 1_199) && !takes(first, 1));
        }
        for first in [handshake, LATER] {
            assert!(takes(first, 1));
        }
    }
}
