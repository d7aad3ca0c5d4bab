//! Addresses of imports, one per family, from the configured ranges.

#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, HashSet, VecDeque},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::name::ObjectName;

/// Which import holds which addresses.
///
/// Where an import's search for a free address begins is derived from its name, so that a lost
/// state file most likely gives the same addresses again. An address that was given up is not
/// given to another import while there are others: a client may still hold on to it.
#[derive(Clone, Debug)]
pub struct AddressLeases {
    ranges: Vec<IpNet>,
    held: BTreeMap<ObjectName, Vec<IpAddr>>,
    /// Least recently freed first.
    freed: VecDeque<AddressLease>,
    /// The addresses of `held` and `freed`.
    known: HashSet<IpAddr>,
}

/// One import with its addresses.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AddressLease {
    /// The import.
    pub import: ObjectName,
    /// At most one address of each family, IPv4 first.
    pub addresses: Vec<IpAddr>,
}

/// How address leases are written down.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AddressLeaseState {
    /// The leases that are held.
    pub held: Vec<AddressLease>,
    /// Former leases, least recently freed first.
    pub freed: Vec<AddressLease>,
}

/// There is no free address for an import.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "no address is left for import {import} in {}; add a range with --service-cidr or delete an import",
    list(ranges)
)]
pub struct AddressesExhausted {
    /// The import.
    pub import: ObjectName,
    /// The ranges of the family that has none left.
    pub ranges: Vec<IpNet>,
}

/// How many former leases are remembered; the oldest ones are forgotten, which makes their
/// addresses as good as new.
const REMEMBERED: usize = 4096;

impl AddressLeases {
    /// No leases, from these ranges.
    pub fn new(ranges: impl IntoIterator<Item = IpNet>) -> Self {
        Self::restore(ranges, AddressLeaseState::default())
    }

    /// The leases that were written down, as far as the ranges still contain them; of two holders
    /// of one address the one named first keeps it.
    pub fn restore(ranges: impl IntoIterator<Item = IpNet>, state: AddressLeaseState) -> Self {
        let ranges = ranges.into_iter().map(|range| range.trunc()).collect();
        let mut leases = Self {
            ranges,
            held: BTreeMap::new(),
            freed: VecDeque::new(),
            known: HashSet::new(),
        };
        for AddressLease { import, addresses } in state.held {
            let addresses = leases.admit(addresses);
            if !addresses.is_empty() {
                leases.held.entry(import).or_default().extend(addresses);
            }
        }
        for addresses in leases.held.values_mut() {
            let mut seen = HashSet::new();
            let known = &mut leases.known;
            addresses.retain(|address| {
                seen.insert(address.is_ipv4()) || {
                    known.remove(address);
                    false
                }
            });
            addresses.sort_by_key(IpAddr::is_ipv6);
        }
        for AddressLease { import, addresses } in state.freed {
            let addresses = leases.admit(addresses);
            leases.remember(AddressLease { import, addresses });
        }
        leases
    }

    /// The leases as they are written down.
    pub fn state(&self) -> AddressLeaseState {
        let held = self.held.iter().map(|(import, addresses)| AddressLease {
            import: import.clone(),
            addresses: addresses.clone(),
        });
        AddressLeaseState {
            held: held.collect(),
            freed: self.freed.iter().cloned().collect(),
        }
    }

    /// Gives `import` an address of every family that there are ranges of, or leaves it with those
    /// that it holds already. An import without an address of some family gets none at all.
    pub fn lease(&mut self, import: &ObjectName) -> Result<&[IpAddr], AddressesExhausted> {
        let mut addresses = self.held.get(import).cloned().unwrap_or_default();
        let mut given = Vec::new();
        for v6 in [false, true] {
            let has_ranges = self.ranges_of(v6).next().is_some();
            if !has_ranges || addresses.iter().any(|address| address.is_ipv6() == v6) {
                continue;
            }
            let Some(address) = self.find(import, v6) else {
                return Err(AddressesExhausted {
                    import: import.clone(),
                    ranges: self.ranges_of(v6).copied().collect(),
                });
            };
            given.push(address);
        }
        for address in given {
            self.forget(address);
            self.known.insert(address);
            addresses.push(address);
        }
        addresses.sort_by_key(IpAddr::is_ipv6);
        let held = self.held.entry(import.clone()).or_default();
        *held = addresses;
        Ok(held)
    }

    /// The addresses of `import`, if it has any.
    pub fn addresses(&self, import: &ObjectName) -> &[IpAddr] {
        self.held.get(import).map_or(&[], Vec::as_slice)
    }

    /// All holders with their addresses, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&ObjectName, &[IpAddr])> + '_ {
        self.held
            .iter()
            .map(|(import, addresses)| (import, addresses.as_slice()))
    }

    /// Frees the addresses of an import that is gone, and says which.
    pub fn release(&mut self, import: &ObjectName) -> Vec<IpAddr> {
        let addresses = self.held.remove(import).unwrap_or_default();
        self.remember(AddressLease {
            import: import.clone(),
            addresses: addresses.clone(),
        });
        addresses
    }

    /// Frees the addresses of all imports that `exists` does not hold for, and says which imports.
    pub fn retain(&mut self, exists: impl Fn(&ObjectName) -> bool) -> Vec<ObjectName> {
        let gone: Vec<_> = self
            .held
            .keys()
            .filter(|import| !exists(import))
            .cloned()
            .collect();
        for import in &gone {
            self.release(import);
        }
        gone
    }

    fn ranges_of(&self, v6: bool) -> impl Iterator<Item = &IpNet> + '_ {
        self.ranges
            .iter()
            .filter(move |range| matches!(range, IpNet::V6(_)) == v6)
    }

    /// Its own former address first, then one that nobody had, then the least recently freed.
    fn find(&self, import: &ObjectName, v6: bool) -> Option<IpAddr> {
        let of_family = |lease: &AddressLease| {
            lease
                .addresses
                .iter()
                .find(|address| address.is_ipv6() == v6)
                .copied()
        };
        (self
            .freed
            .iter()
            .rev()
            .filter(|lease| lease.import == *import)
            .find_map(of_family))
        .or_else(|| {
            self.ranges_of(v6)
                .find_map(|range| self.search(import, range))
        })
        .or_else(|| self.freed.iter().find_map(of_family))
    }

    /// The first address at or after the import's preferred one that nobody has had.
    fn search(&self, import: &ObjectName, range: &IpNet) -> Option<IpAddr> {
        let usable = Usable::of(range)?;
        let preferred = u128::from(preference(import)) % usable.count;
        // One more step than there are known addresses cannot meet known ones only.
        (0..usable.count.min(self.known.len() as u128 + 1))
            .map(|step| usable.address((preferred + step) % usable.count))
            .find(|address| !self.known.contains(address))
    }

    /// Those of the addresses that may be given and are nobody's; they count as known from now on.
    fn admit(&mut self, addresses: Vec<IpAddr>) -> Vec<IpAddr> {
        let (ranges, known) = (&self.ranges, &mut self.known);
        let usable = |address: &IpAddr| {
            ranges
                .iter()
                .filter_map(Usable::of)
                .any(|usable| usable.contains(*address))
        };
        addresses
            .into_iter()
            .filter(|a| usable(a) && known.insert(*a))
            .collect()
    }

    fn remember(&mut self, lease: AddressLease) {
        if lease.addresses.is_empty() {
            return;
        }
        self.freed.push_back(lease);
        if self.freed.len() > REMEMBERED
            && let Some(oldest) = self.freed.pop_front()
        {
            for address in oldest.addresses {
                self.known.remove(&address);
            }
        }
    }

    /// Takes an address out of the former leases.
    fn forget(&mut self, address: IpAddr) {
        if !self.known.contains(&address) {
            return;
        }
        for lease in &mut self.freed {
            lease.addresses.retain(|freed| *freed != address);
        }
        self.freed.retain(|lease| !lease.addresses.is_empty());
    }
}

/// The addresses of a range that can be given: neither the network's own, nor the first (usually a
/// gateway's), nor the last (broadcast).
struct Usable {
    first: u128,
    count: u128,
    v6: bool,
}

impl Usable {
    fn of(range: &IpNet) -> Option<Self> {
        let (network, last) = (to_number(range.network()), to_number(range.broadcast()));
        let first = network.checked_add(2)?;
        let count = last.checked_sub(first)?;
        (count > 0).then_some(Self {
            first,
            count,
            v6: matches!(range, IpNet::V6(_)),
        })
    }

    fn address(&self, offset: u128) -> IpAddr {
        let number = self.first + offset;
        if self.v6 {
            Ipv6Addr::from_bits(number).into()
        } else {
            // An IPv4 range ends below 2^32.
            Ipv4Addr::from_bits(number as u32).into()
        }
    }

    fn contains(&self, address: IpAddr) -> bool {
        address.is_ipv6() == self.v6
            && to_number(address)
                .checked_sub(self.first)
                .is_some_and(|offset| offset < self.count)
    }
}

fn to_number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => address.to_bits().into(),
        IpAddr::V6(address) => address.to_bits(),
    }
}

/// FNV-1a over the name, which stays the same over releases, with the bits spread at the end.
fn preference(import: &ObjectName) -> u64 {
    let bytes = import
        .namespace
        .bytes()
        .chain([b'/'])
        .chain(import.name.bytes());
    let hash = bytes.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    (hash ^ (hash >> 32)).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 16
}

fn list(ranges: &[IpNet]) -> String {
    let texts: Vec<_> = ranges.iter().map(ToString::to_string).collect();
    texts.join(", ")
}
