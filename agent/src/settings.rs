//! The flags that every node has, from texts to values that cannot be wrong.

use std::{
    net::{IpAddr, SocketAddr},
    num::NonZeroUsize,
    path::{Path, PathBuf},
};

use clusterlink_process::settings::Problems;

use crate::datapath;

/// More workers than this do not help on the hosts that we measured.
const DEFAULT_WORKERS: usize = 4;
const MAX_WORKERS: usize = 64;

/// `--metrics` and the like: an address, or `off`.
pub fn optional_address(problems: &mut Problems, flag: &str, text: &str) -> Option<SocketAddr> {
    if text == "off" {
        return None;
    }
    problems.parse(flag, text, "ADDR:PORT, or off")
}

/// `--gateway-address`: one per family; the defaults if none is given.
pub fn gateway_addresses(problems: &mut Problems, texts: &[String]) -> Vec<IpAddr> {
    if texts.is_empty() {
        return vec![
            [169, 254, 77, 1].into(),
            [0xfd77, 0x636c, 0, 0, 0, 0, 0, 1].into(),
        ];
    }
    let mut addresses: Vec<IpAddr> = Vec::new();
    for text in texts {
        let Some(address) = problems.parse::<IpAddr>("--gateway-address", text, "an IP address")
        else {
            continue;
        };
        if address.is_loopback() || address.is_unspecified() || address.is_multicast() {
            problems.add(format!(
                "--gateway-address {address}: not reachable from containers; choose a private or link-local address"
            ));
        } else if addresses
            .iter()
            .any(|other| other.is_ipv4() == address.is_ipv4())
        {
            problems.add(format!(
                "--gateway-address {address}: the second of its family; give one"
            ));
        } else {
            addresses.push(address);
        }
    }
    addresses
}

/// `--workers`: as many as there are cores by default, but not more than are of use.
pub fn workers(problems: &mut Problems, text: Option<&str>) -> Option<NonZeroUsize> {
    let Some(text) = text else {
        let cores = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
        return NonZeroUsize::new(cores.min(DEFAULT_WORKERS));
    };
    let workers = problems.parse::<NonZeroUsize>("--workers", text, "a number from 1 to 64")?;
    if workers.get() > MAX_WORKERS {
        problems.add(format!(
            "--workers {workers}: write a number from 1 to {MAX_WORKERS}"
        ));
        return None;
    }
    Some(workers)
}

/// `--cgroup`: a path under the cgroup v2 mount, or relative to it.
pub fn cgroup(path: &Path) -> Result<PathBuf, String> {
    let mount = datapath::cgroup2_mount().map_err(|error| format!("--cgroup: {error}"))?;
    let inside = if path.starts_with(&mount) {
        path.to_owned()
    } else {
        mount.join(path.strip_prefix("/").unwrap_or(path))
    };
    match inside.canonicalize() {
        Ok(found) if found.is_dir() && found.starts_with(&mount) => Ok(found),
        _ => Err(format!(
            "--cgroup {}: {} is no cgroup; make it, or name a directory under {}",
            path.display(),
            inside.display(),
            mount.display()
        )),
    }
}
