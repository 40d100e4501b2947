//! A UDP socket that hands its datagrams out one by one, so that each has a buffer of its own.
//!
//! The kernel joins what one sender sends (UDP GRO), up to 64 KiB. quinn copies that into one buffer and cuts it up, and whatever
//! it keeps of a datagram, be it a byte of a stream with a gap before it, would keep all of that buffer.

use std::{
    io::{self, IoSliceMut},
    net::{IpAddr, SocketAddr},
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, ready},
};

use quinn::{
    AsyncUdpSocket, UdpPoller,
    udp::{RecvMeta, Transmit},
};

/// Taken from the kernel at once, each of them one datagram or several joined.
const BATCHES: usize = 8;
/// The most that UDP over IPv4 or IPv6 carries, or that the kernel joins.
const BATCH_BYTES: usize = 64 << 10;
/// Longer datagrams are for programs of this machine: no usual network carries them whole.
const FAR_BYTES_MAX: usize = 1_500;

/// See the module.
#[derive(Debug)]
pub(super) struct OneByOne {
    socket: Arc<dyn AsyncUdpSocket>,
    received: Mutex<Received>,
}

impl OneByOne {
    pub(super) fn new(socket: Arc<dyn AsyncUdpSocket>) -> Arc<Self> {
        Arc::new(Self {
            socket,
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
        let mut received = self.received();
        if received.batches.is_empty() {
            ready!(received.fill(&*self.socket, cx))?;
        }
        let mut count = 0;
        for (buf, meta) in bufs.iter_mut().zip(metas) {
            let Some((datagram, its)) = received.next() else {
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
        Poll::Ready(Ok(count))
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
        }
    }

    fn fill(&mut self, socket: &dyn AsyncUdpSocket, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut metas = [RecvMeta::default(); BATCHES];
        let mut chunks = self.bytes.chunks_mut(BATCH_BYTES);
        let mut bufs = metas.map(|_| IoSliceMut::new(chunks.next().unwrap_or_default()));
        let count = ready!(socket.poll_recv(cx, &mut bufs, &mut metas))?;
        let starts = (0..).step_by(BATCH_BYTES);
        self.batches.extend(starts.zip(metas).take(count));
        self.batches.reverse();
        Poll::Ready(Ok(()))
    }

    /// The next datagram that is taken.
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
            if len > 0 && takes(meta.addr.ip(), len) {
                return Some((&self.bytes[start..start + len], meta));
            }
        }
    }
}

/// Whether a datagram of that length is taken from there.
fn takes(from: IpAddr, bytes: usize) -> bool {
    bytes <= FAR_BYTES_MAX || from.to_canonical().is_loopback()
}

#[cfg(test)]
mod tests {
    use std::{future::poll_fn, net::Ipv4Addr};

    use quinn::{Runtime, TokioRuntime};

    use super::*;

    const DATAGRAMS: usize = 10;
    const BYTES: usize = 1_000;

    fn socket() -> Arc<dyn AsyncUdpSocket> {
        let socket = std::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        TokioRuntime.wrap_udp_socket(socket).unwrap()
    }

    #[tokio::test]
    async fn datagrams_that_the_kernel_joins_are_handed_out_one_by_one() {
        let (sender, socket) = (socket(), OneByOne::new(socket()));
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
                takes(from.parse().unwrap(), bytes),
                taken,
                "{bytes} of {from}"
            );
        }
    }
}
