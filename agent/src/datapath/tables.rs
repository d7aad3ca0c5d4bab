//! The maps, as user space sees them. Each has a lock of its own, except the one that is read for
//! every accepted connection.

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    ops::Range,
    os::fd::BorrowedFd,
    sync::{Mutex, MutexGuard, PoisonError},
};

use aya::{
    Ebpf, Pod,
    maps::{self, Map, MapData, MapError, PerCpuArray, RingBuf, SkStorage, SockMap},
};
use clusterlink_ebpf_common::{
    address,
    layout::{
        Flow, Gateway, Origin, Probe, Service, ServiceKey, Target, TargetKey, VerdictKey, Verdicts,
    },
    maps::{
        COUNTERS, FLOWS, GATEWAYS, IDENTITIES, LISTENERS, MAX_SERVICES, MAX_TARGETS, ORIGINS,
        PROBES, REFUSALS, SERVICES, TARGET_SOCKETS, TARGETS, VERDICTS,
    },
};

use super::DatapathError;

/// The maps.
pub(super) struct Tables {
    /// What is steered.
    pub(super) services: Mutex<Services>,
    /// The gateway; the copy is what was written last.
    pub(super) gateway: Mutex<(maps::Array<MapData, Gateway>, Gateway)>,
    /// The classes of cgroups.
    pub(super) identities: Mutex<maps::HashMap<MapData, u64, u32>>,
    /// What classes may reach.
    pub(super) verdicts: Mutex<maps::HashMap<MapData, VerdictKey, Verdicts>>,
    /// The gateway's listeners.
    pub(super) listeners: Mutex<SockMap<MapData>>,
    /// The ports of the Service path.
    pub(super) targets: Mutex<Targets>,
    /// The gateway's listeners of the Service path.
    pub(super) target_sockets: Mutex<SockMap<MapData>>,
    /// The records of accepted connections.
    pub(super) origins: SkStorage<MapData, Origin>,
    /// The open connections.
    pub(super) flows: Mutex<maps::HashMap<MapData, u64, Flow>>,
    /// The refusals.
    pub(super) refusals: Mutex<RingBuf<MapData>>,
    /// The probe.
    pub(super) probes: Mutex<maps::Array<MapData, Probe>>,
    /// The counters.
    pub(super) counters: PerCpuArray<MapData, u64>,
}

impl Tables {
    /// Takes the maps out of what was loaded.
    pub(super) fn take(ebpf: &mut Ebpf, gateway: Gateway) -> Result<Self, DatapathError> {
        Ok(Self {
            services: Mutex::new(Services::new(take(ebpf, SERVICES)?)?),
            gateway: Mutex::new((take(ebpf, GATEWAYS)?, gateway)),
            identities: Mutex::new(take(ebpf, IDENTITIES)?),
            verdicts: Mutex::new(take(ebpf, VERDICTS)?),
            listeners: Mutex::new(take(ebpf, LISTENERS)?),
            targets: Mutex::new(Targets(take(ebpf, TARGETS)?)),
            target_sockets: Mutex::new(take(ebpf, TARGET_SOCKETS)?),
            origins: take(ebpf, ORIGINS)?,
            flows: Mutex::new(take(ebpf, FLOWS)?),
            refusals: Mutex::new(take(ebpf, REFUSALS)?),
            probes: Mutex::new(take(ebpf, PROBES)?),
            counters: take(ebpf, COUNTERS)?,
        })
    }
}

/// Locks a table. A panic elsewhere leaves no half-written entry: each write is one system call.
pub(super) fn lock<T>(table: &Mutex<T>) -> MutexGuard<'_, T> {
    table.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What is steered, and how many services each address has.
pub(super) struct Services {
    map: maps::HashMap<MapData, ServiceKey, Service>,
    addresses: HashMap<IpAddr, usize>,
}

impl Services {
    fn new(map: maps::HashMap<MapData, ServiceKey, Service>) -> Result<Self, DatapathError> {
        let mut services = Self {
            map,
            addresses: HashMap::new(),
        };
        for (address, _) in services.all()? {
            *services.addresses.entry(address.ip()).or_default() += 1;
        }
        Ok(services)
    }

    /// Everything that is steered.
    pub(super) fn all(&self) -> Result<Vec<(SocketAddr, u32)>, DatapathError> {
        let mut all = Vec::new();
        for entry in self.map.iter() {
            let (key, service) = entry.map_err(|e| DatapathError::map("read", SERVICES, e))?;
            if key.protocol != 0 && service.flags & Service::PROBE == 0 {
                all.push((
                    address::to_socket_address(&key.address, key.port),
                    service.import,
                ));
            }
        }
        Ok(all)
    }

    /// Steers an address; other protocols are refused there before TCP is steered.
    pub(super) fn set(&mut self, to: SocketAddr, service: Service) -> Result<(), DatapathError> {
        let address = address::from_ip(to.ip());
        let key = ServiceKey::tcp(address, to.port().to_be());
        let known = match self.map.get(&key, 0) {
            Ok(old) if old == service => return Ok(()),
            Ok(_) => true,
            Err(MapError::KeyNotFound) => false,
            Err(error) => return Err(DatapathError::map("read", SERVICES, error)),
        };
        if service.flags & Service::PROBE == 0 {
            let marker = Service {
                import: service.import,
                flags: 0,
            };
            self.insert(to, ServiceKey::marker(address), marker)?;
        }
        self.insert(to, key, service)?;
        if !known && service.flags & Service::PROBE == 0 {
            *self.addresses.entry(to.ip()).or_default() += 1;
        }
        Ok(())
    }

    /// Stops steering an address.
    pub(super) fn remove(&mut self, to: SocketAddr) -> Result<(), DatapathError> {
        let address = address::from_ip(to.ip());
        if !remove(
            &mut self.map,
            SERVICES,
            &ServiceKey::tcp(address, to.port().to_be()),
        )? {
            return Ok(());
        }
        let Some(services) = self.addresses.get_mut(&to.ip()) else {
            return Ok(());
        };
        *services -= 1;
        if *services == 0 {
            self.addresses.remove(&to.ip());
            remove(&mut self.map, SERVICES, &ServiceKey::marker(address))?;
        }
        Ok(())
    }

    fn insert(
        &mut self,
        to: SocketAddr,
        key: ServiceKey,
        service: Service,
    ) -> Result<(), DatapathError> {
        self.map.insert(key, service, 0).map_err(|error| {
            if is_full(&error) {
                let (address, limit) = (to, MAX_SERVICES);
                return DatapathError::ServicesFull { address, limit };
            }
            DatapathError::map("write", SERVICES, error)
        })
    }
}

/// The ports of the Service path.
pub(super) struct Targets(maps::HashMap<MapData, TargetKey, Target>);

impl Targets {
    /// All of them, with the imports that they are leased to.
    pub(super) fn all(&self) -> Result<Vec<(SocketAddr, u32)>, DatapathError> {
        let entries = self.0.iter().map(|entry| {
            let (key, target) = entry.map_err(|e| DatapathError::map("read", TARGETS, e))?;
            let address = address::to_socket_address(&key.address, key.port);
            Ok((address, target.import))
        });
        entries.collect()
    }

    /// Makes a port the Service path's.
    pub(super) fn set(&mut self, at: SocketAddr, import: u32) -> Result<(), DatapathError> {
        self.0
            .insert(target_key(at), Target { import }, 0)
            .map_err(|error| {
                if is_full(&error) {
                    let (address, limit) = (at, MAX_TARGETS);
                    return DatapathError::TargetsFull { address, limit };
                }
                DatapathError::map("write", TARGETS, error)
            })
    }

    /// Makes a port like any other.
    pub(super) fn remove(&mut self, at: SocketAddr) -> Result<(), DatapathError> {
        remove(&mut self.0, TARGETS, &target_key(at)).map(drop)
    }
}

fn target_key(at: SocketAddr) -> TargetKey {
    TargetKey::new(address::from_ip(at.ip()), at.port().to_be())
}

fn is_full(error: &MapError) -> bool {
    matches!(error, MapError::SyscallError(error) if error.io_error.raw_os_error() == Some(libc::E2BIG))
}

/// Fills slots with sockets, from the first on, and empties the rest.
pub(super) fn fill(
    map: &mut SockMap<MapData>,
    name: &'static str,
    slots: Range<u32>,
    sockets: &[BorrowedFd<'_>],
) -> Result<(), DatapathError> {
    let mut sockets = sockets.iter();
    for slot in slots {
        if let Some(socket) = sockets.next() {
            map.set(slot, socket, 0)
                .map_err(|error| DatapathError::map("write", name, error))?;
            continue;
        }
        match map.clear_index(&slot) {
            Ok(()) | Err(MapError::KeyNotFound) => {}
            // The kernel says that the slot was empty.
            Err(MapError::SyscallError(error))
                if matches!(
                    error.io_error.raw_os_error(),
                    Some(libc::EINVAL | libc::ENOENT)
                ) => {}
            Err(error) => return Err(DatapathError::map("clear", name, error)),
        }
    }
    Ok(())
}

/// Removes an entry; `false` if there was none.
pub(super) fn remove<K: Pod, V: Pod>(
    map: &mut maps::HashMap<MapData, K, V>,
    name: &'static str,
    key: &K,
) -> Result<bool, DatapathError> {
    match map.remove(key) {
        Ok(()) => Ok(true),
        Err(MapError::KeyNotFound) => Ok(false),
        Err(MapError::SyscallError(error))
            if error.io_error.raw_os_error() == Some(libc::ENOENT) =>
        {
            Ok(false)
        }
        Err(error) => Err(DatapathError::map("remove from", name, error)),
    }
}

/// Removes all entries.
pub(super) fn clear<K: Pod, V: Pod>(
    map: &mut maps::HashMap<MapData, K, V>,
    name: &'static str,
) -> Result<(), DatapathError> {
    let keys: Result<Vec<K>, MapError> = map.keys().collect();
    for key in keys.map_err(|error| DatapathError::map("list", name, error))? {
        remove(map, name, &key)?;
    }
    Ok(())
}

fn take<T>(ebpf: &mut Ebpf, name: &'static str) -> Result<T, DatapathError>
where
    T: TryFrom<Map, Error = MapError>,
{
    ebpf.take_map(name)
        .ok_or_else(|| DatapathError::map("find", name, "the object does not have it"))?
        .try_into()
        .map_err(|error| DatapathError::map("use", name, error))
}
