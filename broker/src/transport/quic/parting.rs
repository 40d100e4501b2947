//! Connections of an endpoint, served and parting: quinn keeps one that is closed until its client can have noticed. How long that
//! is, the client says; so those of one address leave room for others, as strangers do.
//!
//! quinn tells how many connections it has, and not whose. Those of an address have settings of their own, which quinn holds for
//! as long as it keeps them: by that they are counted.

use std::{collections::HashMap, net::IpAddr, rc::Rc, sync::Arc};

use quinn::ServerConfig;

use crate::admission::network;

/// Addresses without connections that may be in memory beside as many as there are with some.
const FORGOTTEN_MAX: usize = 64;

/// Connections by address.
pub(super) struct Addresses {
    /// For clients elsewhere, and on this machine.
    far: Arc<ServerConfig>,
    near: Arc<ServerConfig>,
    by_address: HashMap<IpAddr, Address, ahash::RandomState>,
    served: Rc<()>,
}

/// Connections of one of them.
struct Address {
    /// Every connection has a clone, from its handshake until quinn forgets it.
    settings: Arc<ServerConfig>,
    /// So has every one that is served.
    served: Rc<()>,
}

/// A connection that is served, for as long as it lives.
#[derive(Default)]
pub(super) struct Served {
    _all: Rc<()>,
    _of_address: Rc<()>,
}

/// Connections that are closed and kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Parting {
    pub(super) all: usize,
    pub(super) of_address: usize,
}

impl Address {
    fn parting(&self) -> usize {
        Arc::strong_count(&self.settings).saturating_sub(Rc::strong_count(&self.served))
    }

    fn has_some(&self) -> bool {
        Arc::strong_count(&self.settings) > 1
    }
}

impl Addresses {
    pub(super) fn new(far: Arc<ServerConfig>, near: Arc<ServerConfig>) -> Self {
        Self {
            far,
            near,
            by_address: HashMap::default(),
            served: Rc::default(),
        }
    }

    /// Those that part, of `open` connections that quinn has.
    pub(super) fn parting(&self, open: usize, address: IpAddr) -> Parting {
        let of_address = self.by_address.get(&network(address));
        Parting {
            all: open.saturating_sub(Rc::strong_count(&self.served) - 1),
            of_address: of_address.map_or(0, Address::parting),
        }
    }

    /// Takes in one more of the address, of `open` that quinn has; gives the settings that it is to be accepted with.
    pub(super) fn serve(&mut self, open: usize, address: IpAddr) -> (Arc<ServerConfig>, Served) {
        if self.by_address.len() > 2 * open + FORGOTTEN_MAX {
            self.by_address.retain(|_, address| address.has_some());
        }
        let base = match address.to_canonical().is_loopback() {
            true => &self.near,
            false => &self.far,
        };
        let of_address = self
            .by_address
            .entry(network(address))
            .or_insert_with(|| Address {
                settings: Arc::new((**base).clone()),
                served: Rc::default(),
            });
        let served = Served {
            _all: Rc::clone(&self.served),
            _of_address: Rc::clone(&of_address.served),
        };
        (Arc::clone(&of_address.settings), served)
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn settings() -> Arc<ServerConfig> {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let key = rustls_pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der());
        let chain = vec![made.cert.der().clone()];
        Arc::new(ServerConfig::with_single_cert(chain, key.unwrap()).unwrap())
    }

    #[test]
    fn connections_part_from_when_they_are_not_served_until_quinn_lets_go_of_them() {
        let mut addresses = Addresses::new(settings(), settings());
        let (one, other) = (IpAddr::from([10, 0, 0, 1]), IpAddr::from([10, 0, 0, 2]));
        let (kept, served) = addresses.serve(0, one);
        let (_stays, _served) = addresses.serve(1, other);
        let parting = |addresses: &Addresses, open, of| {
            let Parting { all, of_address } = addresses.parting(open, of);
            (all, of_address)
        };
        assert_eq!(parting(&addresses, 2, one), (0, 0));
        drop(served);
        assert_eq!(parting(&addresses, 2, one), (1, 1));
        assert_eq!(parting(&addresses, 2, other), (1, 0));
        drop(kept);
        assert_eq!(parting(&addresses, 1, one), (0, 0));
    }

    #[test]
    fn addresses_that_have_no_connections_are_forgotten() {
        let mut addresses = Addresses::new(settings(), settings());
        let stays = addresses.serve(0, [10, 0, 0, 1].into());
        for number in 0..10_000 {
            addresses.serve(1, Ipv4Addr::from_bits(number).into());
            assert!(addresses.by_address.len() <= FORGOTTEN_MAX + 3);
        }
        drop(stays.1);
        assert_eq!(addresses.parting(1, [10, 0, 0, 1].into()).of_address, 1);
    }
}
