//! Removing what a process that is gone left.

use std::path::Path;

use super::AgentError;
use crate::{
    admin, datapath,
    host::{HostError, Record},
};

/// Removes what a crashed process of this peer left, and says what that was.
pub async fn cleanup(
    state_dir: &Path,
    bpf_dir: Option<&Path>,
    admin: &Path,
) -> Result<Vec<String>, AgentError> {
    let mut removed = Vec::new();
    let record = Record::open(state_dir).map_err(HostError::from)?;
    let recorded = record.contents().clone();
    let sockets = [Some(admin.to_owned()), recorded.admin];
    for socket in sockets.into_iter().flatten() {
        if admin::socket::remove_stale(&socket)? {
            removed.push(format!("admin socket {}", socket.display()));
        }
    }
    if let Some(bpf_dir) = bpf_dir.map(Path::to_owned).or(recorded.bpf_dir) {
        let pins = datapath::cleanup(&bpf_dir).map_err(AgentError::Datapath)?;
        let links = pins.links.iter().map(|path| ("program link", path));
        let maps = pins.maps.iter().map(|path| ("map", path));
        let rest = pins.directories.iter().map(|path| ("directory", path));
        removed.extend(
            links
                .chain(maps)
                .chain(rest)
                .map(|(kind, path)| format!("{kind} {}", path.display())),
        );
        removed.extend(
            pins.unmounted
                .map(|path| format!("mount of bpffs at {}", path.display())),
        );
    }
    removed.extend(crate::host::remove_leftovers(state_dir).await?);
    Ok(removed)
}
