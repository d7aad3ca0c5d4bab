//! Attaching the programs to cgroups and to the network namespace, or putting them in the place of
//! what an earlier process attached.

use std::{
    fs::{self, File},
    os::{fd::AsFd, unix::fs::MetadataExt},
    path::{Path, PathBuf},
};

use aya::{
    Ebpf,
    programs::{
        CgroupAttachMode, CgroupSockAddr, Program, ProgramError, SkLookup, SockOps, links::FdLink,
    },
};
use clusterlink_ebpf_common::programs::{self, Scope};

use super::{DatapathError, pins::Pins, sys};

type AnyError = Box<dyn std::error::Error + Send + Sync>;

/// The network namespace of the calling thread.
const OWN_NETWORK: &str = "/proc/thread-self/ns/net";

/// What the programs are attached to.
#[derive(Clone, Debug)]
pub(super) struct Targets {
    /// The cgroup whose connects are steered.
    pub(super) clients: PathBuf,
    /// The gateway's own cgroup.
    pub(super) gateway: PathBuf,
    /// Whether the Service path is served in the network namespace of the calling thread.
    pub(super) service_path: bool,
}

impl Targets {
    /// Whether the gateway's own connects pass the hooks.
    pub(super) fn cover_gateway(&self) -> bool {
        self.gateway.starts_with(&self.clients)
    }

    /// Where programs of this scope go, with the name of each pin. A cgroup that contains the
    /// other is enough; so no event is seen twice. Nowhere means that the program is not wanted.
    fn of(&self, scope: Scope, name: &str) -> Vec<(&Path, String)> {
        let clients = (self.clients.as_path(), name.to_owned());
        let gateway = (self.gateway.as_path(), format!("{name}-gateway"));
        match scope {
            Scope::Clients => vec![clients],
            Scope::ClientsAndGateway if self.cover_gateway() => vec![clients],
            Scope::ClientsAndGateway if self.clients.starts_with(&self.gateway) => vec![gateway],
            Scope::ClientsAndGateway => vec![clients, gateway],
            Scope::Network if self.service_path => vec![(Path::new(OWN_NETWORK), name.to_owned())],
            Scope::Network => Vec::new(),
        }
    }
}

/// Loads and attaches all programs. What an earlier process attached to the same place is
/// replaced in one step, so that no connect goes by; what it attached elsewhere is detached.
pub(super) fn attach_all(
    ebpf: &mut Ebpf,
    pins: &Pins,
    targets: &Targets,
) -> Result<(), DatapathError> {
    for wanted in programs::ALL {
        let program = ebpf.program_mut(wanted.name).ok_or_else(|| {
            DatapathError::program("find", wanted.name, "the object does not have it")
        })?;
        let places = targets.of(wanted.scope, wanted.name);
        if !places.is_empty() {
            load(program).map_err(|source| DatapathError::program("load", wanted.name, source))?;
        }
        for (place, name) in &places {
            attach(program, &pins.link(name), place)?;
        }
        for name in [wanted.name.to_owned(), format!("{}-gateway", wanted.name)] {
            if !places.iter().any(|(_, used)| *used == name) {
                detach(&pins.link(&name))?;
            }
        }
    }
    Ok(())
}

fn load(program: &mut Program) -> Result<(), ProgramError> {
    match program {
        Program::CgroupSockAddr(program) => program.load(),
        Program::SockOps(program) => program.load(),
        Program::SkLookup(program) => program.load(),
        _ => Err(ProgramError::UnexpectedProgramType),
    }
}

fn attach(program: &mut Program, pin: &Path, place: &Path) -> Result<(), DatapathError> {
    let name = pin
        .file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned();
    let failed = |source| DatapathError::program("attach", &name, source);
    let target = File::open(place).map_err(|source| DatapathError::path("open", place, source))?;
    let inode = target
        .metadata()
        .map_err(|source| DatapathError::path("look at", place, source))?
        .ino();
    if replace(program, pin, inode)? {
        return Ok(());
    }
    let link = match program {
        Program::CgroupSockAddr(program) => attach_sock_addr(program, &target),
        Program::SockOps(program) => attach_sock_ops(program, &target),
        Program::SkLookup(program) => attach_sk_lookup(program, &target),
        _ => Err(AnyError::from(ProgramError::UnexpectedProgramType)),
    }
    .map_err(failed)?;
    // Pinned under another name first: an old link goes only when the new one has its place.
    let fresh = pin.with_file_name(format!("{name}-new"));
    detach(&fresh)?;
    link.pin(&fresh)
        .map_err(|source| DatapathError::program("pin", &name, source))?;
    fs::rename(&fresh, pin).map_err(|source| DatapathError::path("move a pin to", pin, source))
}

fn attach_sock_addr(program: &mut CgroupSockAddr, cgroup: &File) -> Result<FdLink, AnyError> {
    let id = program.attach(cgroup, CgroupAttachMode::Single)?;
    Ok(program.take_link(id)?.try_into()?)
}

fn attach_sock_ops(program: &mut SockOps, cgroup: &File) -> Result<FdLink, AnyError> {
    let id = program.attach(cgroup, CgroupAttachMode::Single)?;
    Ok(program.take_link(id)?.try_into()?)
}

fn attach_sk_lookup(program: &mut SkLookup, network: &File) -> Result<FdLink, AnyError> {
    let id = program.attach(network)?;
    Ok(program.take_link(id)?.into())
}

/// Puts a program in the place of the one that a pinned link has; `false` if the link is of no
/// use: missing, or attached to something else. A cgroup that is made anew under the same name is
/// another one, and a pinned link outlives its cgroup or network namespace.
fn replace(program: &Program, pin: &Path, target: u64) -> Result<bool, DatapathError> {
    let failed = |source| DatapathError::path("replace the program of link", pin, source);
    if !pin.exists() {
        return Ok(false);
    }
    let link = sys::open_pin(pin).map_err(failed)?;
    if sys::link_target(link.as_fd()).map_err(failed)? != Some(target) {
        return Ok(false);
    }
    let fd = program.fd().map_err(|source| {
        DatapathError::program(
            "use",
            &pin.file_name().unwrap_or_default().to_string_lossy(),
            source,
        )
    })?;
    match sys::update_link(link.as_fd(), fd.as_fd()) {
        Ok(()) => Ok(true),
        // What it was attached to went away just now.
        Err(error) if error.raw_os_error() == Some(libc::ENOLINK) => Ok(false),
        Err(source) => Err(failed(source)),
    }
}

fn detach(pin: &Path) -> Result<(), DatapathError> {
    match fs::remove_file(pin) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(source) => Err(DatapathError::path("remove", pin, source)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(clients: &str, gateway: &str) -> Vec<(String, String)> {
        let targets = Targets {
            clients: clients.into(),
            gateway: gateway.into(),
            service_path: false,
        };
        targets
            .of(Scope::ClientsAndGateway, "p")
            .into_iter()
            .map(|(path, name)| (path.display().to_string(), name))
            .collect()
    }

    #[test]
    fn no_event_is_seen_twice() {
        let pair = |path: &str, name: &str| (path.to_owned(), name.to_owned());
        assert_eq!(places("/c", "/c/agent"), [pair("/c", "p")]);
        assert_eq!(places("/c", "/c"), [pair("/c", "p")]);
        assert_eq!(places("/c/pods", "/c"), [pair("/c", "p-gateway")]);
        assert_eq!(
            places("/c/pods", "/c/agent"),
            [pair("/c/pods", "p"), pair("/c/agent", "p-gateway")]
        );
    }

    #[test]
    fn the_service_path_is_served_in_our_network_or_nowhere() {
        for (service_path, expected) in [(false, Vec::new()), (true, vec![OWN_NETWORK])] {
            let targets = Targets {
                clients: "/c/pods".into(),
                gateway: "/c/agent".into(),
                service_path,
            };
            let places = targets.of(Scope::Network, "p");
            let paths: Vec<_> = places.iter().map(|(path, _)| *path).collect();
            assert_eq!(paths, expected.iter().map(Path::new).collect::<Vec<_>>());
        }
    }
}
