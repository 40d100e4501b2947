//! How many connections may be open, in all and from one address. Asked before anything is spent on a new one.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

/// Counts the open connections of a node.
#[derive(Debug)]
pub struct Admission {
    open_max: usize,
    per_address_max: usize,
    open: AtomicUsize,
    by_address: Mutex<HashMap<IpAddr, usize, ahash::RandomState>>,
}

/// Why a connection is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The node has as many as it may.
    Total,
    /// Its address has as many as it may.
    Address,
}

impl Refusal {
    /// As it stands in metrics.
    #[must_use]
    pub fn reason(self) -> &'static str {
        match self {
            Self::Total => "total",
            Self::Address => "address",
        }
    }
}

impl Admission {
    /// At most `open_max` connections, and at most `per_address_max` from one IPv4 address or one IPv6 network of 64 bits.
    #[must_use]
    pub fn new(open_max: usize, per_address_max: usize) -> Arc<Self> {
        let (open, by_address) = (AtomicUsize::new(0), Mutex::default());
        Arc::new(Self {
            open_max,
            per_address_max,
            open,
            by_address,
        })
    }

    /// Room for one connection, until the permit is dropped.
    ///
    /// # Errors
    /// When there is none.
    pub fn admit(self: &Arc<Self>, address: IpAddr) -> Result<Permit, Refusal> {
        let address = network(address);
        if self.open.fetch_add(1, Ordering::Relaxed) >= self.open_max {
            self.open.fetch_sub(1, Ordering::Relaxed);
            return Err(Refusal::Total);
        }
        let mut by_address = self.by_address();
        let count = by_address.entry(address).or_default();
        if *count >= self.per_address_max {
            drop(by_address);
            self.open.fetch_sub(1, Ordering::Relaxed);
            return Err(Refusal::Address);
        }
        *count += 1;
        drop(by_address);
        Ok(Permit {
            admission: Arc::clone(self),
            address,
        })
    }

    /// Connections that are open now, handshakes included.
    #[must_use]
    pub fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    fn by_address(&self) -> MutexGuard<'_, HashMap<IpAddr, usize, ahash::RandomState>> {
        // Every change of the map is whole, so it is sound after a panic elsewhere.
        self.by_address
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// The right to one connection.
#[derive(Debug)]
pub struct Permit {
    admission: Arc<Admission>,
    address: IpAddr,
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.admission.open.fetch_sub(1, Ordering::Relaxed);
        let mut by_address = self.admission.by_address();
        if let Some(count) = by_address.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                by_address.remove(&self.address);
            }
        }
    }
}

/// Who has one IPv6 address usually has the other 2^64 - 1 of its network too.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => IpAddr::V4(address),
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_refused_connection_leaves_no_trace() {
        let admission = Admission::new(2, 1);
        let first = admission.admit(address("10.0.0.1")).unwrap();
        assert_eq!(
            admission.admit(address("10.0.0.1")).unwrap_err(),
            Refusal::Address
        );
        let second = admission.admit(address("10.0.0.2")).unwrap();
        assert_eq!(
            admission.admit(address("10.0.0.3")).unwrap_err(),
            Refusal::Total
        );
        drop((first, second));
        assert_eq!(admission.open(), 0);
        assert!(admission.by_address().is_empty());
    }

    #[test]
    fn addresses_of_one_ipv6_network_count_together_and_mapped_ones_as_ipv4() {
        let admission = Admission::new(10, 1);
        let _first = admission.admit(address("2001:db8:0:1::1")).unwrap();
        assert_eq!(
            admission
                .admit(address("2001:db8:0:1:ffff::9"))
                .unwrap_err(),
            Refusal::Address
        );
        let _other_network = admission.admit(address("2001:db8:0:2::1")).unwrap();
        let _plain = admission.admit(address("10.0.0.1")).unwrap();
        assert_eq!(
            admission.admit(address("::ffff:10.0.0.1")).unwrap_err(),
            Refusal::Address
        );
    }
}
