//! Finding our way in the cgroup v2 tree.

use std::{
    fs, io,
    os::unix::{ffi::OsStringExt, fs::MetadataExt},
    path::{Path, PathBuf},
};

use super::DatapathError;

/// Where cgroup v2 is mounted; on hybrid hosts that is `/sys/fs/cgroup/unified`.
pub fn cgroup2_mount() -> Result<PathBuf, DatapathError> {
    let path = "/proc/self/mountinfo";
    let mounts = fs::read(path).map_err(|source| DatapathError::path("read", path, source))?;
    find_cgroup2(&mounts).ok_or(DatapathError::CgroupMount)
}

/// The kernel's number of a cgroup: the inode of its directory.
pub fn cgroup_id(path: &Path) -> io::Result<u64> {
    let metadata = fs::metadata(path)?;
    if !metadata.is_dir() {
        return Err(io::Error::from(io::ErrorKind::NotADirectory));
    }
    Ok(metadata.ino())
}

/// The cgroup of this process, as a directory under the mount; the mount itself if it cannot be seen
/// from here (as in a container with a cgroup namespace of its own).
pub(super) fn own_cgroup(mount: &Path) -> Result<PathBuf, DatapathError> {
    let path = "/proc/self/cgroup";
    let text =
        fs::read_to_string(path).map_err(|source| DatapathError::path("read", path, source))?;
    let own = text
        .lines()
        .find_map(|line| line.strip_prefix("0::"))
        .unwrap_or("/");
    let directory = mount.join(own.trim_start_matches('/'));
    Ok(if directory.is_dir() {
        directory
    } else {
        mount.to_owned()
    })
}

/// One line of mountinfo, in so far as we need it.
pub(super) struct Mount {
    /// The directory.
    pub(super) point: PathBuf,
    /// The type of the file system.
    pub(super) kind: Vec<u8>,
    /// What was given as the source.
    pub(super) source: Vec<u8>,
}

/// The mounts that this process sees, in the order of mounting.
pub(super) fn mounts(mountinfo: &[u8]) -> impl Iterator<Item = Mount> {
    mountinfo.split(|byte| *byte == b'\n').filter_map(|line| {
        let mut fields = line.split(|byte| *byte == b' ');
        let point = unescape(fields.nth(4)?);
        // Optional fields come before a single dash.
        fields.find(|field| *field == b"-")?;
        let kind = fields.next()?.to_vec();
        let source = fields.next()?.to_vec();
        Some(Mount {
            point: PathBuf::from(std::ffi::OsString::from_vec(point)),
            kind,
            source,
        })
    })
}

fn find_cgroup2(mountinfo: &[u8]) -> Option<PathBuf> {
    mounts(mountinfo)
        .find(|mount| mount.kind == b"cgroup2")
        .map(|mount| mount.point)
}

/// Undoes the kernel's octal escapes (space, tab, newline, backslash).
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((first, tail)) = rest.split_first() {
        if *first == b'\\'
            && let [a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', ..] = tail
        {
            plain.push((a - b'0') << 6 | (b - b'0') << 3 | (c - b'0'));
            rest = &tail[3..];
        } else {
            plain.push(*first);
            rest = tail;
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    const HYBRID: &[u8] = b"31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu rw shared:4 master:1 - cgroup cgroup rw,cpu
41 31 0:31 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
";

    #[test]
    fn finds_the_unified_mount_of_a_hybrid_host() {
        assert_eq!(
            find_cgroup2(HYBRID),
            Some(PathBuf::from("/sys/fs/cgroup/unified"))
        );
    }

    #[test]
    fn finds_nothing_where_only_version_one_is_mounted() {
        let version_one: Vec<u8> = HYBRID
            .split_inclusive(|b| *b == b'\n')
            .take(2)
            .flatten()
            .copied()
            .collect();
        assert_eq!(find_cgroup2(&version_one), None);
    }

    #[test]
    fn optional_fields_and_escapes_are_understood() {
        let line = b"9 1 0:3 / /mnt/a\\040b rw shared:1 propagate_from:2 - cgroup2 none rw";
        assert_eq!(find_cgroup2(line), Some(PathBuf::from("/mnt/a b")));
    }

    #[test]
    fn a_file_is_not_a_cgroup() {
        let file = tempfile::NamedTempFile::new().unwrap();
        assert!(cgroup_id(file.path()).is_err());
    }
}
