//! Two peers on one host need subtrees of their own: a connect must not be steered twice. This
//! finds out whether another live peer's subtree overlaps with ours, as far as the kernel tells us.

use std::{
    collections::HashMap,
    fs, io,
    os::unix::fs::{DirEntryExt, MetadataExt},
    path::{Path, PathBuf},
};

use aya::{
    maps::{Array, Map, MapData, MapInfo},
    programs::loaded_programs,
};
use clusterlink_ebpf_common::{
    layout::Gateway,
    maps::GATEWAYS,
    programs::CONNECT4,
    rule::{self, Liveness},
};

use super::{DatapathError, clock, pins::Pins, sys};

/// Fails if another peer that lives steers a cgroup that is ours, above ours or below ours. Called
/// under the host's lock, so that of two peers that start at once the second sees the first.
pub(super) fn check(cgroup: &Path, mount: &Path, pins: &Pins) -> Result<(), DatapathError> {
    let links = match sys::cgroup_links() {
        Ok(links) => links,
        // The kernel lists links to CAP_SYS_ADMIN alone, which the agent of a node does without.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            tracing::debug!(
                cgroup = %cgroup.display(),
                "without CAP_SYS_ADMIN nobody finds out whether another peer of this host steers the same cgroups"
            );
            return Ok(());
        }
        Err(source) => {
            return Err(DatapathError::path("list the BPF links on", cgroup, source));
        }
    };
    let own = MapData::from_pin(pins.map(GATEWAYS)).and_then(|map| map.info());
    let own = own.ok().map(|info| info.id());
    let programs = live_programs(own);
    let others: Vec<u64> = links
        .iter()
        .filter(|link| link.cgroup != 0 && programs.contains(&link.program))
        .map(|link| link.cgroup)
        .collect();
    if others.is_empty() {
        return Ok(());
    }
    match find(cgroup, mount, &others) {
        Ok(None) => Ok(()),
        Ok(Some(other)) => Err(DatapathError::Overlap {
            cgroup: cgroup.to_owned(),
            other,
        }),
        Err(source) => Err(DatapathError::path("walk", cgroup, source)),
    }
}

/// The connect programs of other peers whose gateway was heard of lately.
fn live_programs(own: Option<u32>) -> Vec<u32> {
    let mut live = Vec::new();
    let mut known = HashMap::new();
    for program in loaded_programs() {
        // Programs may go away while they are listed.
        let Ok(program) = program else { continue };
        if program.name_as_str() != Some(CONNECT4) {
            continue;
        }
        let Ok(Some(maps)) = program.map_ids() else {
            continue;
        };
        for id in maps {
            let alive = match known.get(&id) {
                Some(alive) => *alive,
                None => {
                    let alive = Some(id) != own && is_live_gateway(id);
                    known.insert(id, alive);
                    alive
                }
            };
            if alive {
                live.push(program.id());
            }
        }
    }
    live
}

fn is_live_gateway(map: u32) -> bool {
    let Ok(info) = MapInfo::from_id(map) else {
        return false;
    };
    if info.name_as_str() != Some(GATEWAYS) || info.value_size() as usize != size_of::<Gateway>() {
        return false;
    }
    let Ok(map) = MapData::from_id(map) else {
        return false;
    };
    let Ok(gateways) = Array::<_, Gateway>::try_from(Map::Array(map)) else {
        return false;
    };
    let Ok(gateway) = gateways.get(&0, 0) else {
        return false;
    };
    matches!(
        rule::liveness(clock::now_ns(), gateway.heartbeat_ns),
        Liveness::Fresh
    )
}

/// Which of `others` is `cgroup`, or above or below it.
fn find(cgroup: &Path, mount: &Path, others: &[u64]) -> io::Result<Option<PathBuf>> {
    for ancestor in cgroup
        .ancestors()
        .take_while(|path| path.starts_with(mount))
    {
        if others.contains(&fs::metadata(ancestor)?.ino()) {
            return Ok(Some(ancestor.to_owned()));
        }
    }
    let mut pending = vec![cgroup.to_owned()];
    while let Some(directory) = pending.pop() {
        let entries = match fs::read_dir(&directory) {
            Ok(entries) => entries,
            // Cgroups come and go.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        for entry in entries {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                if others.contains(&entry.ino()) {
                    return Ok(Some(entry.path()));
                }
                pending.push(entry.path());
            }
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_same_one_those_above_and_those_below() {
        let root = tempfile::tempdir().unwrap();
        let number = |path: &Path| fs::metadata(path).unwrap().ino();
        let ours = root.path().join("a/b");
        let below = ours.join("c/d");
        let beside = root.path().join("a/x");
        for directory in [&below, &beside] {
            fs::create_dir_all(directory).unwrap();
        }
        let above = root.path().join("a");
        for other in [&ours, &below, &above] {
            assert_eq!(
                find(&ours, root.path(), &[number(other)]).unwrap().as_ref(),
                Some(other)
            );
        }
        assert_eq!(find(&ours, root.path(), &[number(&beside)]).unwrap(), None);
    }
}
