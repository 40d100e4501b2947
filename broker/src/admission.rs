//! How many connections may be open: in all, from one address and of one user; and how many of a shard may be strangers,
//! who have not shown yet who they are. Asked before anything is spent on a new one, or as soon as its user is known.

use std::{
    cell::Cell,
    collections::HashMap,
    hash::Hash,
    net::{IpAddr, Ipv6Addr},
    rc::Rc,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use rialto_protocol::ids::UserId;

/// Counts the open connections of a node.
#[derive(Debug)]
pub struct Admission {
    open_max: usize,
    per_address_max: usize,
    per_user_max: usize,
    open: AtomicUsize,
    by_address: Mutex<Counts<IpAddr>>,
    by_user: Mutex<Counts<UserId>>,
}

type Counts<K> = HashMap<K, u32, ahash::RandomState>;

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
    /// At most `open_max` connections, at most `per_address_max` from one IPv4 address or one IPv6 network of 64 bits, and at
    /// most `per_user_max` of one user.
    #[must_use]
    pub fn new(open_max: usize, per_address_max: usize, per_user_max: usize) -> Arc<Self> {
        Arc::new(Self {
            open_max,
            per_address_max,
            per_user_max,
            open: AtomicUsize::new(0),
            by_address: Mutex::default(),
            by_user: Mutex::default(),
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
        if !count_in(&self.by_address, address, self.per_address_max) {
            self.open.fetch_sub(1, Ordering::Relaxed);
            return Err(Refusal::Address);
        }
        Ok(Permit {
            admission: Arc::clone(self),
            address,
        })
    }

    /// Room for one more connection of a user, until the permit is dropped. `None`: there is none.
    #[must_use]
    pub fn admit_user(self: &Arc<Self>, user: UserId) -> Option<UserPermit> {
        count_in(&self.by_user, user, self.per_user_max).then(|| UserPermit {
            admission: Arc::clone(self),
            user,
        })
    }

    /// Connections that are open now, handshakes included.
    #[must_use]
    pub fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }
}

fn lock<K>(counts: &Mutex<Counts<K>>) -> MutexGuard<'_, Counts<K>> {
    // Every change of the map is whole, so it is sound after a panic elsewhere.
    counts.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Counts one more, unless there are `max`; says whether it did.
fn count_in<K: Eq + Hash>(counts: &Mutex<Counts<K>>, key: K, max: usize) -> bool {
    let mut counts = lock(counts);
    if counts.get(&key).map_or(0, |count| *count as usize) >= max {
        return false;
    }
    *counts.entry(key).or_default() += 1;
    true
}

fn count_out<K: Eq + Hash>(counts: &Mutex<Counts<K>>, key: &K) {
    let mut counts = lock(counts);
    if let Some(count) = counts.get_mut(key) {
        *count -= 1;
        if *count == 0 {
            counts.remove(key);
        }
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
        count_out(&self.admission.by_address, &self.address);
    }
}

/// The right to one connection of a user.
#[derive(Debug)]
pub struct UserPermit {
    admission: Arc<Admission>,
    user: UserId,
}

impl Drop for UserPermit {
    fn drop(&mut self) {
        count_out(&self.admission.by_user, &self.user);
    }
}

/// How many connections of a shard have not shown who they are: handshakes, and those whose token has not been accepted.
#[derive(Clone, Debug, Default)]
pub(crate) struct Strangers(Rc<Cell<usize>>);

impl Strangers {
    pub(crate) fn count(&self) -> usize {
        self.0.get()
    }

    /// One more, unless there are `max`.
    pub(crate) fn admit(&self, max: usize) -> Option<Stranger> {
        let count = self.count();
        (count < max).then(|| {
            self.0.set(count + 1);
            Stranger(self.clone())
        })
    }
}

/// One of them.
#[derive(Debug)]
pub(crate) struct Stranger(Strangers);

impl Drop for Stranger {
    fn drop(&mut self) {
        self.0.0.set(self.0.count() - 1);
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
        let admission = Admission::new(2, 1, 1);
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
        assert!(lock(&admission.by_address).is_empty());
    }

    #[test]
    fn a_user_has_room_again_once_a_connection_ends() {
        let admission = Admission::new(2, 1, 1);
        let user = UserId::from_name("ann");
        let first = admission.admit_user(user);
        assert!(first.is_some() && admission.admit_user(user).is_none());
        assert!(admission.admit_user(UserId::from_name("bob")).is_some());
        drop(first);
        assert!(lock(&admission.by_user).is_empty());
        assert!(admission.admit_user(user).is_some());
    }

    #[test]
    fn addresses_of_one_ipv6_network_count_together_and_mapped_ones_as_ipv4() {
        let admission = Admission::new(10, 1, 1);
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
