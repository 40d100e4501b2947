//! A relay of UDP datagrams between clients and a broker, with weather: datagrams are lost, late, doubled and out of order, and
//! clients' addresses change as they do behind a NAT.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::net::UdpSocket;
use tokio::task::{AbortHandle, JoinHandle};
use tokio::time::sleep;

use crate::random::Dice;

/// Longest datagram that UDP has.
const DATAGRAM_BYTES_MAX: usize = 65_535;

/// What happens to datagrams, in both directions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Weather {
    /// Of 1,000, how many are lost.
    pub(crate) lost: u64,
    /// Of 1,000, how many come twice.
    pub(crate) doubled: u64,
    /// How late all of them are, milliseconds.
    pub(crate) delay_ms: u64,
    /// By how much more some are, at most: they overtake each other then.
    pub(crate) jitter_ms: u64,
}

impl Weather {
    /// Nothing comes through.
    pub(crate) const DARK: Self = Self {
        lost: 1_000,
        doubled: 0,
        delay_ms: 0,
        jitter_ms: 0,
    };
}

/// A relay that works until it is dropped.
#[derive(Debug)]
pub(crate) struct Relay {
    address: SocketAddr,
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

#[derive(Debug)]
struct Shared {
    front: UdpSocket,
    broker: SocketAddr,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    weather: Weather,
    dice: Dice,
    ways: HashMap<SocketAddr, Way>,
    passed: u64,
    lost: u64,
}

/// A client's address on the broker's side.
#[derive(Debug)]
struct Way {
    socket: Arc<UdpSocket>,
    back: AbortHandle,
}

impl Drop for Way {
    fn drop(&mut self) {
        self.back.abort();
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.task.abort();
        self.shared.state().ways.clear();
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// When each copy of a datagram is to go on; none: it is lost.
    fn fate(&self) -> Vec<Duration> {
        let mut state = self.state();
        let Weather {
            lost,
            doubled,
            delay_ms,
            jitter_ms,
        } = state.weather;
        if state.dice.chance(lost) {
            state.lost += 1;
            return Vec::new();
        }
        state.passed += 1;
        let copies = if state.dice.chance(doubled) { 2 } else { 1 };
        (0..copies)
            .map(|_| state.dice.millis(delay_ms, delay_ms + jitter_ms))
            .collect()
    }
}

impl Relay {
    /// Stands before the broker at this address.
    pub(crate) async fn start(broker: SocketAddr, dice: Dice) -> std::io::Result<Self> {
        let front = UdpSocket::bind("127.0.0.1:0").await?;
        let address = front.local_addr()?;
        let state = State {
            weather: Weather::default(),
            dice,
            ways: HashMap::new(),
            passed: 0,
            lost: 0,
        };
        let shared = Arc::new(Shared {
            front,
            broker,
            state: Mutex::new(state),
        });
        let task = tokio::spawn(forth(shared.clone()));
        Ok(Self {
            address,
            shared,
            task,
        })
    }

    /// Where clients find it.
    pub(crate) const fn address(&self) -> SocketAddr {
        self.address
    }

    /// From now on.
    pub(crate) fn weather(&self, weather: Weather) {
        self.shared.state().weather = weather;
    }

    /// Every client gets another address on the broker's side, and what was on its way to the old one is gone.
    pub(crate) fn change_addresses(&self) {
        self.shared.state().ways.clear();
    }

    /// Datagrams that passed and that were lost, so far.
    pub(crate) fn counts(&self) -> (u64, u64) {
        let state = self.shared.state();
        (state.passed, state.lost)
    }
}

/// From clients to the broker.
async fn forth(shared: Arc<Shared>) {
    let mut datagram = vec![0; DATAGRAM_BYTES_MAX];
    loop {
        // A client that is gone is an error of its own datagram alone.
        let Ok((bytes, client)) = shared.front.recv_from(&mut datagram).await else {
            continue;
        };
        let Ok(socket) = way(&shared, client).await else {
            continue;
        };
        for delay in shared.fate() {
            let (socket, copy) = (socket.clone(), datagram[..bytes].to_vec());
            later(delay, async move {
                let _ = socket.send(&copy).await;
            })
            .await;
        }
    }
}

async fn later(delay: Duration, send: impl Future<Output = ()> + Send + 'static) {
    if delay.is_zero() {
        send.await;
    } else {
        tokio::spawn(async move {
            sleep(delay).await;
            send.await;
        });
    }
}

async fn way(shared: &Arc<Shared>, client: SocketAddr) -> std::io::Result<Arc<UdpSocket>> {
    if let Some(way) = shared.state().ways.get(&client) {
        return Ok(way.socket.clone());
    }
    let socket = UdpSocket::bind("127.0.0.1:0").await?;
    socket.connect(shared.broker).await?;
    let socket = Arc::new(socket);
    let back = tokio::spawn(back(shared.clone(), socket.clone(), client)).abort_handle();
    let way = Way {
        socket: socket.clone(),
        back,
    };
    shared.state().ways.insert(client, way);
    Ok(socket)
}

/// From the broker to a client.
async fn back(shared: Arc<Shared>, socket: Arc<UdpSocket>, client: SocketAddr) {
    let mut datagram = vec![0; DATAGRAM_BYTES_MAX];
    loop {
        let Ok(bytes) = socket.recv(&mut datagram).await else {
            // The broker is away: its port refuses.
            sleep(Duration::from_millis(5)).await;
            continue;
        };
        for delay in shared.fate() {
            let (shared, copy) = (shared.clone(), datagram[..bytes].to_vec());
            later(delay, async move {
                let _ = shared.front.send_to(&copy, client).await;
            })
            .await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn datagrams_pass_both_ways_under_an_address_that_changes() {
        let broker = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let relay = Relay::start(broker.local_addr().unwrap(), Dice::new(1))
            .await
            .unwrap();
        let client = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let mut addresses = Vec::new();
        let mut datagram = [0; 16];
        for _ in 0..2 {
            client.send_to(b"ping", relay.address()).await.unwrap();
            let (bytes, from) = broker.recv_from(&mut datagram).await.unwrap();
            assert_eq!(&datagram[..bytes], b"ping");
            broker.send_to(b"pong", from).await.unwrap();
            let (bytes, _) = client.recv_from(&mut datagram).await.unwrap();
            assert_eq!(&datagram[..bytes], b"pong");
            addresses.push(from);
            relay.change_addresses();
        }
        assert_ne!(addresses[0], addresses[1]);
    }

    #[tokio::test]
    async fn in_the_dark_nothing_passes_and_doubles_come_twice() {
        let broker = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let relay = Relay::start(broker.local_addr().unwrap(), Dice::new(1))
            .await
            .unwrap();
        let client = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        relay.weather(Weather::DARK);
        client.send_to(b"lost", relay.address()).await.unwrap();
        while relay.counts().1 == 0 {
            tokio::task::yield_now().await;
        }
        let doubled = Weather {
            doubled: 1_000,
            ..Weather::default()
        };
        relay.weather(doubled);
        client.send_to(b"twice", relay.address()).await.unwrap();
        let mut datagram = [0; 16];
        for _ in 0..2 {
            let (bytes, _) = broker.recv_from(&mut datagram).await.unwrap();
            assert_eq!(&datagram[..bytes], b"twice");
        }
    }
}
