//! The datapath of a real kernel.

use std::{
    io,
    net::SocketAddr,
    os::fd::{AsFd, BorrowedFd},
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};

use aya::maps::MapError;
use clusterlink_ebpf_common::{
    PROBE_PORT, address,
    layout::{self, Gateway, Service, VerdictKey, Verdicts},
    maps::{
        COUNTERS, FLOWS, GATEWAYS, IDENTITIES, LISTENERS, MAX_LISTENERS, MAX_TARGET_SOCKETS,
        TARGET_SOCKETS, VERDICTS,
    },
    reason, rule,
};
use clusterlink_gateway::view::Origin;
use socket2::{Domain, SockRef, Socket, Type};

use super::{
    Config, Datapath, DatapathError, KernelFlow, Refusal, Removed, VerdictBlock,
    attach::{self, Targets},
    bpffs::{self, HostLock, PinDirectory},
    cgroup::own_cgroup,
    cgroup2_mount, clock,
    log::KernelLog,
    object, overlap,
    pins::Pins,
    probe, sys,
    tables::{self, Tables, lock},
};

/// Programs in the kernel, and the maps that they share with us.
///
/// Dropping it leaves the programs attached, so that what was denied stays denied;
/// [`remove`](Self::remove) takes them away.
pub struct KernelDatapath {
    directory: PinDirectory,
    pins: Pins,
    targets: Targets,
    tables: Tables,
    log: Option<KernelLog>,
    probe_address: SocketAddr,
    /// The cookie of our network namespace.
    netns_cookie: AtomicU64,
}

impl KernelDatapath {
    /// Loads the programs and attaches them, taking over from an earlier process of this peer.
    ///
    /// Until listeners are named, connects to what is steered are refused.
    pub fn start(config: Config) -> Result<Self, DatapathError> {
        let Config {
            bpf_dir,
            cgroup,
            gateway_v4,
            gateway_v6,
            pass_when_stale,
            service_path,
            log_level,
        } = config;
        let Some(address) = gateway_v4
            .map(SocketAddr::V4)
            .or_else(|| gateway_v6.map(SocketAddr::V6))
        else {
            return Err(DatapathError::NoGatewayAddress);
        };
        object::check_kernel(service_path)?;
        let mount = cgroup2_mount()?;
        let targets = Targets {
            clients: under(&mount, &cgroup)?,
            gateway: own_cgroup(&mount)?,
            service_path,
        };

        let host = HostLock::acquire()?;
        let directory = PinDirectory::open(&bpf_dir, &host)?;
        let pins = Pins::new(&bpf_dir);
        overlap::check(&targets.clients, &mount, &pins)?;
        pins.prepare()?;
        let mut ebpf = object::load(&pins, log_level)?;
        let netns_cookie = own_netns_cookie().unwrap_or_default();
        let gateway = Gateway {
            v4: gateway_v4.map_or([0; 4], |v4| address::from_ip((*v4.ip()).into())),
            v6: gateway_v6.map_or([0; 4], |v6| address::from_ip((*v6.ip()).into())),
            port_v4: gateway_v4.map_or(0, |v4| v4.port().to_be()),
            port_v6: gateway_v6.map_or(0, |v6| v6.port().to_be()),
            flags: if pass_when_stale {
                Gateway::PASS_WHEN_STALE
            } else {
                0
            },
            netns_cookie,
            heartbeat_ns: if pass_when_stale {
                // Stale, and not inert: the ports of the Service path stay out of other hands.
                clock::now_ns().saturating_sub(rule::STALE_NS + 1)
            } else {
                clock::now_ns()
            },
            tgid: 0,
            listeners: 0,
            target_sockets_v4: 0,
            target_sockets_v6: 0,
        };
        let tables = Tables::take(&mut ebpf, gateway)?;
        let log = (log_level > 0)
            .then(|| KernelLog::take(&mut ebpf))
            .transpose()?;
        // What the last process allowed may no longer be: deny first, then come alive.
        tables::clear(&mut lock(&tables.verdicts), VERDICTS)?;
        let datapath = Self {
            directory,
            pins,
            targets,
            tables,
            log,
            probe_address: SocketAddr::new(address.ip(), PROBE_PORT),
            netns_cookie: AtomicU64::new(netns_cookie),
        };
        datapath.update_gateway(|_| {})?;
        attach::attach_all(&mut ebpf, &datapath.pins, &datapath.targets)?;
        Ok(datapath)
    }

    /// Detaches the programs and removes all pins, and the bpffs if it was mounted for us.
    pub fn remove(&self) -> Result<(), DatapathError> {
        let host = HostLock::acquire()?;
        self.pins.remove_all(&mut Removed::default())?;
        self.directory.remove(&host)?;
        bpffs::unmount_if_ours(&host)?;
        Ok(())
    }

    fn update_gateway(&self, change: impl FnOnce(&mut Gateway)) -> Result<(), DatapathError> {
        let (map, gateway) = &mut *lock(&self.tables.gateway);
        change(gateway);
        if gateway.flags & Gateway::PASS_WHEN_STALE == 0 {
            // Where another agent takes over, nothing but a heartbeat may say that this one is there:
            // connects would be refused while it starts.
            gateway.heartbeat_ns = clock::now_ns();
        }
        map.set(0, *gateway, 0)
            .map_err(|error| DatapathError::map("write", GATEWAYS, error))
    }
}

impl Datapath for KernelDatapath {
    fn set_listeners(&self, listeners: &[BorrowedFd<'_>]) -> Result<(), DatapathError> {
        let count = checked_count(listeners.len())?;
        let slots = 0..MAX_LISTENERS;
        tables::fill(
            &mut lock(&self.tables.listeners),
            LISTENERS,
            slots,
            listeners,
        )?;
        self.update_gateway(|gateway| gateway.listeners = count)
    }

    fn heartbeat(&self) -> Result<(), DatapathError> {
        self.update_gateway(|gateway| gateway.heartbeat_ns = clock::now_ns())
    }

    fn set_service(&self, address: SocketAddr, import: u32) -> Result<(), DatapathError> {
        lock(&self.tables.services).set(address, Service { import, flags: 0 })
    }

    fn remove_service(&self, address: SocketAddr) -> Result<(), DatapathError> {
        lock(&self.tables.services).remove(address)
    }

    fn services(&self) -> Result<Vec<(SocketAddr, u32)>, DatapathError> {
        lock(&self.tables.services).all()
    }

    fn set_target_listeners(&self, listeners: &[BorrowedFd<'_>]) -> Result<(), DatapathError> {
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        for listener in listeners {
            let address = SockRef::from(listener)
                .local_addr()
                .map_err(|source| DatapathError::map("write", TARGET_SOCKETS, source))?;
            if address.is_ipv4() {
                v4.push(*listener);
            } else {
                v6.push(*listener);
            }
        }
        let (count_v4, count_v6) = (checked_count(v4.len())?, checked_count(v6.len())?);
        let first_v6 = MAX_TARGET_SOCKETS / 2;
        let mut map = lock(&self.tables.target_sockets);
        tables::fill(&mut map, TARGET_SOCKETS, 0..first_v6, &v4)?;
        tables::fill(&mut map, TARGET_SOCKETS, first_v6..MAX_TARGET_SOCKETS, &v6)?;
        drop(map);
        self.update_gateway(|gateway| {
            gateway.target_sockets_v4 = count_v4;
            gateway.target_sockets_v6 = count_v6;
        })
    }

    fn set_target(&self, address: SocketAddr, import: u32) -> Result<(), DatapathError> {
        lock(&self.tables.targets).set(address, import)
    }

    fn remove_target(&self, address: SocketAddr) -> Result<(), DatapathError> {
        lock(&self.tables.targets).remove(address)
    }

    fn targets(&self) -> Result<Vec<(SocketAddr, u32)>, DatapathError> {
        lock(&self.tables.targets).all()
    }

    fn set_workload(&self, cgroup: u64, class: u32) -> Result<(), DatapathError> {
        lock(&self.tables.identities)
            .insert(cgroup, class, 0)
            .map_err(|error| DatapathError::map("write", IDENTITIES, error))
    }

    fn remove_workload(&self, cgroup: u64) -> Result<(), DatapathError> {
        tables::remove(&mut lock(&self.tables.identities), IDENTITIES, &cgroup).map(drop)
    }

    fn workloads(&self) -> Result<Vec<(u64, u32)>, DatapathError> {
        lock(&self.tables.identities)
            .iter()
            .collect::<Result<_, _>>()
            .map_err(|error| DatapathError::map("read", IDENTITIES, error))
    }

    fn set_verdicts(
        &self,
        class: u32,
        block: u32,
        verdicts: &VerdictBlock,
    ) -> Result<(), DatapathError> {
        let key = VerdictKey { class, block };
        let mut map = lock(&self.tables.verdicts);
        if *verdicts == [0; 8] {
            // A missing block denies as well, and takes no room.
            return tables::remove(&mut map, VERDICTS, &key).map(drop);
        }
        map.insert(key, Verdicts { bits: *verdicts }, 0)
            .map_err(|error| DatapathError::map("write", VERDICTS, error))
    }

    fn clear_verdicts(&self) -> Result<(), DatapathError> {
        tables::clear(&mut lock(&self.tables.verdicts), VERDICTS)
    }

    fn origin(&self, socket: BorrowedFd<'_>) -> io::Result<Option<Origin>> {
        match self.tables.origins.get(&socket, 0) {
            Ok(origin) => Ok(Some(Origin {
                import: origin.import,
                destination: address::to_socket_address(&origin.address, origin.port),
                cgroup: origin.cgroup,
                cookie: origin.socket_cookie,
                same_namespace: origin.netns_cookie == self.netns_cookie.load(Relaxed),
            })),
            Err(MapError::KeyNotFound) => Ok(None),
            Err(MapError::SyscallError(error)) => Err(error.io_error),
            Err(error) => Err(io::Error::other(error)),
        }
    }

    fn refusals(&self) -> Vec<Refusal> {
        if let Some(log) = &self.log {
            log.flush();
        }
        let mut ring = lock(&self.tables.refusals);
        let mut refusals = Vec::new();
        while let Some(item) = ring.next() {
            refusals.extend(
                sys::read_plain::<layout::Refusal>(&item).map(|refusal| Refusal {
                    import: refusal.import,
                    class: refusal.class,
                    cgroup: refusal.cgroup,
                    destination: address::to_socket_address(&refusal.address, refusal.port),
                    pid: refusal.pid,
                    kernel_time_ns: refusal.time_ns,
                }),
            );
        }
        refusals
    }

    fn flows(&self) -> Result<Vec<KernelFlow>, DatapathError> {
        let flows = lock(&self.tables.flows);
        let mut open = Vec::new();
        for entry in flows.iter() {
            let (cookie, flow) = entry.map_err(|e| DatapathError::map("read", FLOWS, e))?;
            open.push(KernelFlow {
                cookie,
                import: flow.import,
                cgroup: flow.cgroup,
                destination: address::to_socket_address(&flow.address, flow.port),
                state: state_name(flow.state),
                rtt_us: flow.rtt_us,
                bytes_sent: flow.bytes_sent,
                bytes_received: flow.bytes_received,
                retransmits: flow.retransmits,
            });
        }
        Ok(open)
    }

    fn probe(&self) -> Result<(), DatapathError> {
        let inside = self.targets.cover_gateway();
        let answer = if inside {
            probe::from_here(&self.tables, self.probe_address)?
        } else {
            probe::from_below(
                &self.tables,
                &self.pins,
                self.probe_address,
                &self.targets.clients,
            )?
        };
        if answer.seen == 0 {
            return Err(DatapathError::Probe {
                address: self.probe_address,
                cgroup: self.targets.clients.clone(),
            });
        }
        self.netns_cookie.store(answer.netns_cookie, Relaxed);
        self.update_gateway(|gateway| {
            gateway.netns_cookie = answer.netns_cookie;
            // A gateway outside of the subtree needs no exemption: its connects pass no hook.
            gateway.tgid = if inside { answer.tgid } else { 0 };
        })?;
        // From here on the new programs are known to work.
        self.pins.remove_outdated()
    }

    fn counters(&self) -> Result<Vec<(&'static str, u64)>, DatapathError> {
        reason::ALL
            .iter()
            .map(|reason| {
                let values = self
                    .tables
                    .counters
                    .get(&(*reason as u32), 0)
                    .map_err(|error| DatapathError::map("read", COUNTERS, error))?;
                Ok((reason.name(), values.iter().sum()))
            })
            .collect()
    }
}

/// Removes what a process that is gone left in a peer's directory of pins; refuses while a process
/// uses it.
pub fn cleanup(bpf_dir: &Path) -> Result<Removed, DatapathError> {
    let host = HostLock::acquire()?;
    let mut removed = remove_from(bpf_dir, &host)?;
    removed.unmounted = bpffs::unmount_if_ours(&host)?;
    Ok(removed)
}

/// [`cleanup`] for a process that may not unmount anything. Where no bpffs is, nothing is pinned.
pub fn remove_pins(bpf_dir: &Path) -> Result<Removed, DatapathError> {
    let host = HostLock::acquire()?;
    match remove_from(bpf_dir, &host) {
        Err(DatapathError::NotBpffs { .. }) => Ok(Removed::default()),
        removed => removed,
    }
}

fn remove_from(bpf_dir: &Path, host: &HostLock) -> Result<Removed, DatapathError> {
    let mut removed = Removed::default();
    if let Some(directory) = PinDirectory::existing(bpf_dir, host)? {
        Pins::new(bpf_dir).remove_all(&mut removed)?;
        removed.directories.extend(directory.remove(host)?);
    }
    Ok(removed)
}

/// How many listeners there are, if the tables have room for so many of one kind.
fn checked_count(count: usize) -> Result<u32, DatapathError> {
    u32::try_from(count)
        .ok()
        .filter(|count| *count <= MAX_LISTENERS)
        .ok_or(DatapathError::TooManyListeners {
            count,
            limit: MAX_LISTENERS,
        })
}

/// The cgroup's directory without symbolic links, if it is one.
fn under(mount: &Path, cgroup: &Path) -> Result<PathBuf, DatapathError> {
    match cgroup.canonicalize() {
        Ok(path) if path.is_dir() && path.starts_with(mount) => Ok(path),
        _ => Err(DatapathError::NotACgroup {
            path: cgroup.to_owned(),
            mount: mount.to_owned(),
        }),
    }
}

/// The cookie of our network namespace; the probe tells it where the kernel is too old to be asked.
fn own_netns_cookie() -> io::Result<u64> {
    sys::netns_cookie(Socket::new(Domain::UNIX, Type::DGRAM, None)?.as_fd())
}

/// The name of a TCP state, as `ss` writes it.
fn state_name(state: u32) -> &'static str {
    match state {
        1 => "established",
        2 => "syn-sent",
        3 => "syn-recv",
        4 => "fin-wait-1",
        5 => "fin-wait-2",
        6 => "time-wait",
        7 => "closed",
        8 => "close-wait",
        9 => "last-ack",
        10 => "listening",
        11 => "closing",
        _ => "unknown",
    }
}
