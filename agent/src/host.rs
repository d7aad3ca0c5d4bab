//! What a standalone peer puts on its host: `unreachable` routes for the imports' ranges, the
//! gateway addresses on `lo`, and a block in a hosts file.
//!
//! Everything is written down in a [`Record`] *before* it is added, so that the next start or
//! `clusterlink cleanup` can remove exactly that after a crash. What was on the host already is
//! used, and left alone.
//!
//! Besides, [`cgroup_of`] tells whose a socket of the host is, and [`original_of`] what a connection was
//! before the host translated it.

use std::{
    net::IpAddr,
    path::{Path, PathBuf},
};

use ipnet::IpNet;

mod addresses;
mod conntrack;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
pub mod hosts_file;
pub mod net;
pub mod record;
mod sockets;

pub use addresses::addresses;
pub use conntrack::{Ends, original_of};
pub use hosts_file::{HostsFile, HostsFileError};
pub use net::{NetError, Network};
pub use record::{Record, RecordError};
pub use sockets::cgroup_of;

/// What could not be put on the host, or taken off it.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// The kernel refused an address or a route.
    #[error(transparent)]
    Net(#[from] NetError),
    /// The record could not be kept.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// The hosts file could not be changed.
    #[error(transparent)]
    HostsFile(#[from] HostsFileError),
}

/// The host's network as this peer changes it.
#[derive(Debug)]
pub struct Host {
    network: Network,
    record: Record,
    hosts: Option<HostsFile>,
}

impl Host {
    /// Opens the record in `state_dir` and a netlink socket.
    pub fn open(state_dir: &Path, peer: &str) -> Result<Self, HostError> {
        let mut record = Record::open(state_dir)?;
        record.change(|contents| contents.peer = Some(peer.to_owned()))?;
        Ok(Self {
            network: Network::open()?,
            record,
            hosts: None,
        })
    }

    /// Writes down where the kernel's pins and the admin socket are, for `cleanup`.
    pub fn note_paths(&mut self, bpf_dir: &Path, admin: &Path) -> Result<(), HostError> {
        self.record.change(|contents| {
            contents.bpf_dir = Some(bpf_dir.to_owned());
            contents.admin = Some(admin.to_owned());
        })?;
        Ok(())
    }

    /// Makes the ranges unreachable by any other way, and drops recorded ranges that are no
    /// longer configured.
    pub async fn set_routes(&mut self, ranges: &[IpNet]) -> Result<(), HostError> {
        for old in self.record.contents().routes.clone() {
            if !ranges.contains(&old) {
                self.network.remove_unreachable(old).await?;
                self.record
                    .change(|contents| contents.routes.retain(|route| *route != old))?;
            }
        }
        for &range in ranges {
            let recorded = self.record.contents().routes.contains(&range);
            if !recorded {
                if self.network.has_unreachable(range).await? {
                    continue;
                }
                self.record.change(|contents| contents.routes.push(range))?;
            }
            if let Err(error) = self.network.add_unreachable(range).await {
                if !recorded {
                    self.record
                        .change(|contents| contents.routes.retain(|route| *route != range))?;
                }
                return Err(error.into());
            }
        }
        Ok(())
    }

    /// Puts the gateway's addresses on `lo`, and takes off recorded ones that are no longer
    /// configured.
    pub async fn set_addresses(&mut self, addresses: &[IpAddr]) -> Result<(), HostError> {
        self.network.require_loopback_up().await?;
        for old in self.record.contents().addresses.clone() {
            if !addresses.contains(&old) {
                self.network.remove_address(old).await?;
                self.record
                    .change(|contents| contents.addresses.retain(|a| *a != old))?;
            }
        }
        for &address in addresses {
            if !self.record.contents().addresses.contains(&address) {
                if self.network.has_address(address).await? {
                    continue;
                }
                self.record
                    .change(|contents| contents.addresses.push(address))?;
            }
            self.network.add_address(address).await?;
        }
        Ok(())
    }

    /// Keeps a block of names in `file` from now on.
    pub fn use_hosts_file(&mut self, file: PathBuf, peer: &str) -> Result<(), HostError> {
        if let Some((old, name)) = self.record.contents().hosts_block()
            && (old != file || name != peer)
        {
            HostsFile::new(old, &name).remove()?;
        }
        self.record
            .change(|contents| contents.hosts_file = Some(file.clone()))?;
        self.hosts = Some(HostsFile::new(file, peer));
        Ok(())
    }

    /// The hosts file that carries our block.
    pub fn hosts_file(&self) -> Option<HostsFile> {
        self.hosts.clone()
    }

    /// Takes everything recorded off the host: names first, routes last, so that nothing for an
    /// import leaves by the default route while its name is still known. Returns what was removed.
    pub async fn remove(mut self) -> Result<Vec<String>, HostError> {
        remove_recorded(&self.network, &mut self.record).await
    }
}

/// Removes what an earlier process recorded in `state_dir`, except pins and sockets, and returns
/// what that was.
pub async fn remove_leftovers(state_dir: &Path) -> Result<Vec<String>, HostError> {
    let mut record = Record::open(state_dir)?;
    remove_recorded(&Network::open()?, &mut record).await
}

async fn remove_recorded(network: &Network, record: &mut Record) -> Result<Vec<String>, HostError> {
    let mut removed = Vec::new();
    if let Some((file, peer)) = record.contents().hosts_block() {
        if HostsFile::new(file.clone(), &peer).remove()? {
            removed.push(format!("the block of peer {peer} in {}", file.display()));
        }
        record.change(|contents| contents.hosts_file = None)?;
    }
    for address in record.contents().addresses.clone() {
        if network.remove_address(address).await? {
            removed.push(format!("address {address} on lo"));
        }
        record.change(|contents| contents.addresses.retain(|a| *a != address))?;
    }
    for route in record.contents().routes.clone() {
        if network.remove_unreachable(route).await? {
            removed.push(format!("unreachable route {route}"));
        }
        record.change(|contents| contents.routes.retain(|r| *r != route))?;
    }
    record.remove()?;
    Ok(removed)
}
