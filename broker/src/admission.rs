//! How many connections may be open: in all, from one address and of one user; and how many of a shard may be strangers,
//! who have not shown yet who they are. Asked before anything is spent on a new one, or as soon as its user is known.

use std::{
    cell::RefCell,
    net::{IpAddr, Ipv6Addr},
    rc::Rc,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use rialto_core::counts::Counts;
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

/// What one address may have of the free places that are left to addresses with few strangers.
const ADDRESS_PART: usize = 32;

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
fn count_in<K: Eq + std::hash::Hash>(counts: &Mutex<Counts<K>>, key: K, max: usize) -> bool {
    let mut counts = lock(counts);
    if counts.get(&key) as usize >= max {
        return false;
    }
    counts.add(key);
    true
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
        lock(&self.admission.by_address).remove(&self.address);
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
        lock(&self.admission.by_user).remove(&self.user);
    }
}

/// Whether there is a place for one more of an address, when there are `count` in all. Whoever fills the `places` that are for all
/// leaves as many as half of them to other addresses: there an address may have a thirty-second of what is free, one at least, so
/// that hundreds of addresses do not fill them either.
pub(crate) fn find_place(
    count: usize,
    of_address: usize,
    places: usize,
) -> Result<(), StrangerRefusal> {
    if count < places {
        return Ok(());
    }
    let free = (places + places / 2).saturating_sub(count);
    if free == 0 {
        Err(StrangerRefusal::Pending)
    } else if of_address > free / ADDRESS_PART {
        Err(StrangerRefusal::Address)
    } else {
        Ok(())
    }
}

/// How many connections of a shard have not shown who they are: handshakes, and those whose token has not been accepted. See
/// [`find_place`].
#[derive(Clone, Debug, Default)]
pub(crate) struct Strangers(Rc<RefCell<Crowd>>);

#[derive(Debug, Default)]
struct Crowd {
    count: usize,
    by_address: Counts<IpAddr>,
}

/// Why a stranger is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StrangerRefusal {
    /// There is no place at all.
    Pending,
    /// What is left is for addresses that have fewer.
    Address,
}

impl StrangerRefusal {
    /// As it stands in metrics.
    pub(crate) fn reason(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Address => "address",
        }
    }
}

impl Strangers {
    pub(crate) fn count(&self) -> usize {
        self.0.borrow().count
    }

    /// One more from the address, if there is a place.
    pub(crate) fn admit(
        &self,
        address: IpAddr,
        places: usize,
    ) -> Result<Stranger, StrangerRefusal> {
        let address = network(address);
        let mut crowd = self.0.borrow_mut();
        let of_address = crowd.by_address.get(&address) as usize;
        find_place(crowd.count, of_address, places)?;
        crowd.count += 1;
        crowd.by_address.add(address);
        drop(crowd);
        Ok(Stranger {
            strangers: self.clone(),
            address,
        })
    }
}

/// One of them.
#[derive(Debug)]
pub(crate) struct Stranger {
    strangers: Strangers,
    address: IpAddr,
}

impl Drop for Stranger {
    fn drop(&mut self) {
        let mut crowd = self.strangers.0.borrow_mut();
        crowd.count -= 1;
        crowd.by_address.remove(&self.address);
    }
}

/// Who has one IPv6 address usually has the other 2^64 - 1 of its network too.
pub(crate) fn network(address: IpAddr) -> IpAddr {
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
    fn strangers_of_one_address_have_all_places_but_those_for_others() {
        let strangers = Strangers::default();
        let admit = |from: &str| strangers.admit(address(from), 64);
        let _many: Vec<_> = (0..64).map(|_| admit("10.0.0.1").unwrap()).collect();
        assert_eq!(admit("10.0.0.1").unwrap_err(), StrangerRefusal::Address);
        let first = admit("10.0.0.2").unwrap();
        assert_eq!(admit("10.0.0.2").unwrap_err(), StrangerRefusal::Address);
        drop(first);
        let _again = admit("10.0.0.2").unwrap();
        let others: Vec<_> = (3..34)
            .map(|last| admit(&format!("10.0.0.{last}")).unwrap())
            .collect();
        assert_eq!(strangers.count(), 96);
        assert_eq!(admit("10.0.0.34").unwrap_err(), StrangerRefusal::Pending);
        drop(others);
        assert!(admit("10.0.0.34").is_ok());
    }

    #[test]
    fn a_few_addresses_do_not_fill_the_places_for_others() {
        let strangers = Strangers::default();
        let admit = |number: u8| strangers.admit([10, 0, 0, number].into(), 2_048);
        let mut taken: Vec<_> = (0..2_048).map(|_| admit(0).unwrap()).collect();
        for _ in 0..100 {
            taken.extend((1..=200).filter_map(|number| admit(number).ok()));
        }
        let stays = strangers.count();
        assert!((2_048..2_048 + 1_024 - 100).contains(&stays), "{stays}");
        assert!(admit(201).is_ok());
        drop(taken);
        assert_eq!(strangers.count(), 0);
        assert!(strangers.0.borrow().by_address.is_empty());
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
