//! A socket that keeps to itself some of what is heard, and some of what is to be sent.

use std::collections::HashMap;
use std::io::{self, IoSliceMut};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use quinn::udp::{RecvMeta, Transmit};
use quinn::{AsyncUdpSocket, UdpPoller};

use crate::campaign::overload::site::Tally;

/// Datagrams that a handshake holds back at most.
const HELD_MAX: usize = 4;

/// Handshakes of which the first datagram was sent, by the connection id of the client: where the others go, and what they are.
type Begun = HashMap<Vec<u8>, Vec<(SocketAddr, Vec<u8>)>>;

/// What a socket hears.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Hears {
    All,
    /// Nothing but the demand for proof of its address, so that handshakes stay where they are then.
    Retries,
}

/// What a socket sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sends {
    All,
    /// The first datagram of a handshake; it keeps the next ones until it is told to let go, and drops all others.
    First,
}

/// A socket between quinn and the system's.
#[derive(Debug)]
pub(super) struct Held {
    socket: Arc<dyn AsyncUdpSocket>,
    hears: Hears,
    sends: Sends,
    begun: Mutex<Begun>,
}

impl Held {
    pub(super) fn new(socket: Arc<dyn AsyncUdpSocket>, hears: Hears, sends: Sends) -> Self {
        Self {
            socket,
            hears,
            sends,
            begun: Mutex::default(),
        }
    }

    fn begun(&self) -> MutexGuard<'_, Begun> {
        self.begun.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends what was held back, as far as the system takes it.
    pub(super) fn let_go(&self, tally: &Tally) {
        let begun = std::mem::take(&mut *self.begun());
        for (destination, datagram) in begun.into_values().flatten() {
            let sent = self.socket.try_send(&Transmit {
                destination,
                ecn: None,
                contents: &datagram,
                segment_size: None,
                src_ip: None,
            });
            if sent.is_ok() {
                Tally::add(&tally.let_go);
            }
        }
    }
}

impl AsyncUdpSocket for Held {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Arc::clone(&self.socket).create_io_poller()
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        let ids = match self.sends {
            Sends::All => None,
            Sends::First => connection_ids(transmit.contents),
        };
        let Some((_, own)) = ids else {
            return self.socket.try_send(transmit);
        };
        let mut begun = self.begun();
        if let Some(held) = begun.get_mut(own) {
            if held.len() < HELD_MAX {
                held.push((transmit.destination, transmit.contents.to_vec()));
            }
        } else {
            self.socket.try_send(transmit)?;
            begun.insert(own.to_vec(), Vec::new());
        }
        Ok(())
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        metas: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let count = ready!(self.socket.poll_recv(cx, bufs, metas))?;
        for (datagram, meta) in bufs.iter().zip(&mut metas[..count]) {
            if !is_retry(datagram) {
                if self.hears == Hears::Retries {
                    meta.len = 0;
                }
            } else if let Some((own, _)) = connection_ids(datagram) {
                // All is said again, with proof of the address.
                self.begun().remove(own);
            }
        }
        Poll::Ready(Ok(count))
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    fn max_receive_segments(&self) -> usize {
        self.socket.max_receive_segments()
    }

    fn may_fragment(&self) -> bool {
        self.socket.may_fragment()
    }
}

/// By its first byte (RFC 9000, section 17.2.5).
fn is_retry(datagram: &[u8]) -> bool {
    datagram.first().is_some_and(|first| first & 0xf0 == 0xf0)
}

/// The ids of whom a datagram goes to and of whom it comes from, if it belongs to a handshake (RFC 9000, section 17.2).
fn connection_ids(datagram: &[u8]) -> Option<(&[u8], &[u8])> {
    const LONG: u8 = 0x80;
    const VERSION_BYTES: usize = 4;
    let (first, rest) = datagram.split_first()?;
    if first & LONG == 0 {
        return None;
    }
    let (to, rest) = counted(rest.get(VERSION_BYTES..)?)?;
    let (from, _) = counted(rest)?;
    Some((to, from))
}

/// So many bytes as the first one says, and what follows them.
fn counted(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (count, rest) = bytes.split_first()?;
    rest.split_at_checked((*count).into())
}
