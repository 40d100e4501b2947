//! The UDP socket of an endpoint. quinn's own asks the kernel again at once when it has an error instead of datagrams; one that
//! stays, as where a sandbox forbids the call, would keep the shard's thread for ever. This one tells of it.

use std::{
    fmt,
    io::{self, IoSliceMut},
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use quinn::{
    AsyncUdpSocket, UdpPoller,
    udp::{RecvMeta, Transmit, UdpSocketState},
};
use tokio::io::Interest;

/// See the module.
#[derive(Debug)]
pub(super) struct UdpSocket {
    socket: tokio::net::UdpSocket,
    state: UdpSocketState,
}

impl UdpSocket {
    pub(super) fn new(socket: std::net::UdpSocket) -> io::Result<Self> {
        let state = UdpSocketState::new((&socket).into())?;
        let socket = tokio::net::UdpSocket::from_std(socket)?;
        Ok(Self { socket, state })
    }
}

impl AsyncUdpSocket for UdpSocket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Box::pin(Writable {
            socket: self,
            waiting: None,
        })
    }

    /// What cannot be sent is lost on the way, as far as QUIC can tell; quinn's part of it says why in the log.
    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        self.socket.try_io(Interest::WRITABLE, || {
            self.state.send((&self.socket).into(), transmit)
        })
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        metas: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.socket.poll_recv_ready(cx))?;
            let received = self.socket.try_io(Interest::READABLE, || {
                self.state.recv((&self.socket).into(), bufs, metas)
            });
            match received {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                received => return Poll::Ready(received),
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    fn max_transmit_segments(&self) -> usize {
        self.state.max_gso_segments()
    }

    fn may_fragment(&self) -> bool {
        self.state.may_fragment()
    }
}

/// One who waits until the socket takes datagrams again.
struct Writable {
    socket: Arc<UdpSocket>,
    waiting: Option<Pin<Box<dyn Future<Output = io::Result<()>> + Send + Sync>>>,
}

impl fmt::Debug for Writable {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Writable").finish_non_exhaustive()
    }
}

impl UdpPoller for Writable {
    fn poll_writable(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Self { socket, waiting } = &mut *self;
        let writable = waiting.get_or_insert_with(|| {
            let socket = Arc::clone(socket);
            Box::pin(async move { socket.socket.writable().await })
        });
        let result = ready!(writable.as_mut().poll(cx));
        *waiting = None;
        Poll::Ready(result)
    }
}

#[cfg(test)]
mod tests {
    use std::{future::poll_fn, net::Ipv4Addr};

    use super::*;

    const HERE: (Ipv4Addr, u16) = (Ipv4Addr::LOCALHOST, 0);

    #[tokio::test]
    async fn an_error_of_the_kernel_is_told_and_what_comes_behind_it_is_received() {
        let socket = std::net::UdpSocket::bind(HERE).unwrap();
        // Where nobody else listens meanwhile.
        let gone = std::net::UdpSocket::bind(SocketAddr::from(([127, 0, 0, 9], 0))).unwrap();
        let address = gone.local_addr().unwrap();
        drop(gone);
        socket.connect(address).unwrap();
        let socket = UdpSocket::new(socket).unwrap();
        socket.socket.send(b"is nobody there?").await.unwrap();
        socket.socket.ready(Interest::ERROR).await.unwrap();
        let there = std::net::UdpSocket::bind(address).unwrap();
        let to = socket.local_addr().unwrap();
        there.send_to(b"somebody", to).unwrap();
        let (mut bytes, mut metas) = ([0; 100], [RecvMeta::default()]);
        let mut bufs = [IoSliceMut::new(&mut bytes)];
        let refused = poll_fn(|cx| socket.poll_recv(cx, &mut bufs, &mut metas)).await;
        assert_eq!(
            refused.unwrap_err().kind(),
            io::ErrorKind::ConnectionRefused
        );
        let count = poll_fn(|cx| socket.poll_recv(cx, &mut bufs, &mut metas)).await;
        assert_eq!((count.unwrap(), metas[0].len), (1, 8));
    }

    #[tokio::test]
    async fn one_who_waits_to_send_does_so_again_and_again() {
        let socket = std::net::UdpSocket::bind(HERE).unwrap();
        let mut poller = Arc::new(UdpSocket::new(socket).unwrap()).create_io_poller();
        for _ in 0..3 {
            poll_fn(|cx| poller.as_mut().poll_writable(cx))
                .await
                .unwrap();
        }
    }
}
