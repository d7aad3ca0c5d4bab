//! A connect of our own that the hooks must see: only then does steering count as on.
//!
//! Hooks run for sockets that were made in their cgroup. A gateway outside of the steered subtree
//! therefore sends a child process into it. The connect goes to a port of the gateway address
//! that is never connected to, bound to the loopback interface, so it cannot leave the host even
//! if no hook stops it.

use std::{
    fs::{self, OpenOptions},
    io,
    net::SocketAddr,
    os::fd::AsFd,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use clusterlink_ebpf_common::{
    layout::{Probe, Service},
    maps::PROBES,
};
use socket2::{Domain, Socket, Type};

use super::{
    DatapathError,
    pins::Pins,
    sys,
    tables::{Tables, lock},
};

/// Connects from this process.
pub(super) fn from_here(tables: &Tables, address: SocketAddr) -> Result<Probe, DatapathError> {
    let connect = || {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
        socket.set_nonblocking(true)?;
        socket.bind_device(Some(b"lo"))?;
        let probe = armed(rustix::net::sockopt::socket_cookie(&socket)?);
        lock(&tables.probes)
            .set(0, probe, 0)
            .map_err(io::Error::other)?;
        // How it ends is for the hook to say, not for the errno.
        let _ = socket.connect(&address.into());
        Ok(())
    };
    run(tables, address, connect)
}

/// Connects from a child process in a cgroup of its own below `cgroup`.
pub(super) fn from_below(
    tables: &Tables,
    pins: &Pins,
    address: SocketAddr,
    cgroup: &Path,
) -> Result<Probe, DatapathError> {
    let connect = || {
        let map = sys::open_pin(&pins.map(PROBES))?;
        // One of its own, because a cgroup with controllers for its children may hold no process.
        let scratch = Scratch::new(cgroup)?;
        let procs = OpenOptions::new()
            .write(true)
            .open(scratch.path.join("cgroup.procs"))?;
        sys::probe_from(&sys::RemoteProbe {
            procs: procs.as_fd(),
            map: map.as_fd(),
            address,
            arm: armed,
        })
    };
    run(tables, address, connect)
}

fn armed(socket_cookie: u64) -> Probe {
    Probe {
        socket_cookie,
        ..Probe::default()
    }
}

/// Makes the connect while the hooks know the probe's address, and reads their answer.
fn run(
    tables: &Tables,
    address: SocketAddr,
    connect: impl FnOnce() -> io::Result<()>,
) -> Result<Probe, DatapathError> {
    let unarmed = Probe::default();
    let failed = |error| DatapathError::map("use", PROBES, error);
    lock(&tables.probes).set(0, unarmed, 0).map_err(failed)?;
    lock(&tables.services).set(
        address,
        Service {
            import: 0,
            flags: Service::PROBE,
        },
    )?;
    let connected = connect();
    lock(&tables.services).remove(address)?;
    let mut probes = lock(&tables.probes);
    let answer = probes.get(&0, 0).map_err(failed)?;
    probes.set(0, unarmed, 0).map_err(failed)?;
    connected.map_err(|source| DatapathError::ProbeConnect { address, source })?;
    Ok(answer)
}

/// A cgroup that is removed again.
struct Scratch {
    path: PathBuf,
}

impl Scratch {
    fn new(parent: &Path) -> io::Result<Self> {
        let path = parent.join(format!("clusterlink-probe-{}", std::process::id()));
        match fs::create_dir(&path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
            _ => Ok(Self { path }),
        }
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // The kernel may still be busy with the end of the child.
        let deadline = Instant::now() + Duration::from_secs(1);
        while let Err(error) = fs::remove_dir(&self.path) {
            if error.kind() == io::ErrorKind::NotFound {
                return;
            }
            if Instant::now() > deadline {
                tracing::warn!(cgroup = %self.path.display(), %error, "cannot remove a cgroup");
                return;
            }
            std::thread::yield_now();
        }
    }
}
