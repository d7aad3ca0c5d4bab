//! A marked block in a hosts file; nothing outside of the block is ever touched.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    net::IpAddr,
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use clusterlink_model::ObjectName;

/// The hosts file could not be read or written.
#[derive(Debug, thiserror::Error)]
#[error("cannot {what} the hosts file {path}; does it exist, and may this process write it?")]
pub struct HostsFileError {
    what: &'static str,
    path: PathBuf,
    #[source]
    source: io::Error,
}

/// One peer's block in a hosts file.
#[derive(Clone, Debug)]
pub struct HostsFile {
    path: PathBuf,
    begin: String,
    end: String,
}

impl HostsFile {
    /// The block of `peer` in the file at `path`.
    pub fn new(path: PathBuf, peer: &str) -> Self {
        Self {
            path,
            begin: format!("# BEGIN clusterlink {peer}"),
            end: format!("# END clusterlink {peer}"),
        }
    }

    /// Makes the block say exactly `names`.
    pub fn write(
        &self,
        names: impl IntoIterator<Item = (IpAddr, ObjectName)>,
    ) -> Result<(), HostsFileError> {
        use std::fmt::Write as _;
        let mut block = format!("{}\n", self.begin);
        for (address, ObjectName { namespace, name }) in names {
            // Writing into a String cannot fail.
            let _ = writeln!(
                block,
                "{address} {name}.{namespace}.svc.cluster.local {name}.{namespace} {name}"
            );
        }
        block.push_str(&self.end);
        block.push('\n');
        let old = self.read()?;
        let new = self.splice(&old, Some(block.as_bytes()));
        if new != old {
            self.replace(&new)
        } else {
            Ok(())
        }
    }

    /// Removes the block; returns whether there was one.
    pub fn remove(&self) -> Result<bool, HostsFileError> {
        let old = match self.read() {
            Err(error) if error.source.kind() == io::ErrorKind::NotFound => return Ok(false),
            other => other?,
        };
        let new = self.splice(&old, None);
        if new == old {
            return Ok(false);
        }
        self.replace(&new)?;
        Ok(true)
    }

    /// `old` with our block replaced, added or removed. Where the last line has no line feed the
    /// block goes to the top, so that taking it out again leaves every byte as it was. A begin
    /// marker without its end marks nothing but itself.
    fn splice(&self, old: &[u8], block: Option<&[u8]>) -> Vec<u8> {
        let lines: Vec<&[u8]> = old.split_inclusive(|&byte| byte == b'\n').collect();
        let is = |line: &[u8], marker: &str| line.trim_ascii_end() == marker.as_bytes();
        let mut new = Vec::with_capacity(old.len() + block.map_or(0, <[u8]>::len));
        let mut pending = block;
        let mut at = 0;
        while let Some(line) = lines.get(at) {
            if is(line, &self.begin) {
                let rest = lines[at + 1..].iter();
                let length = rest
                    .take_while(|line| !is(line, &self.begin))
                    .position(|line| is(line, &self.end))
                    .map_or(1, |position| position + 2);
                at += length;
                new.extend_from_slice(pending.take().unwrap_or_default());
            } else {
                new.extend_from_slice(line);
                at += 1;
            }
        }
        match pending {
            Some(block) if old.last().is_none_or(|&byte| byte == b'\n') => {
                new.extend_from_slice(block);
            }
            Some(block) => {
                new.splice(0..0, block.iter().copied());
            }
            None => {}
        }
        new
    }

    fn read(&self) -> Result<Vec<u8>, HostsFileError> {
        fs::read(&self.path).map_err(|source| self.error("read", source))
    }

    /// Replaces the file by rename, keeping mode and owner; where that is not possible (a bind
    /// mount, a directory that may not be written) the file is written in place.
    fn replace(&self, contents: &[u8]) -> Result<(), HostsFileError> {
        let target = fs::canonicalize(&self.path).map_err(|source| self.error("find", source))?;
        if replace_by_rename(&target, contents).is_ok() {
            return Ok(());
        }
        replace_in_place(&target, contents).map_err(|source| self.error("write", source))
    }

    fn error(&self, what: &'static str, source: io::Error) -> HostsFileError {
        HostsFileError {
            what,
            path: self.path.clone(),
            source,
        }
    }
}

fn replace_by_rename(target: &Path, contents: &[u8]) -> io::Result<()> {
    let metadata = fs::metadata(target)?;
    let mut temporary = target.as_os_str().to_owned();
    temporary.push(format!(".clusterlink-{}", std::process::id()));
    let temporary = PathBuf::from(temporary);
    let written = (|| {
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&temporary)?;
        file.write_all(contents)?;
        std::os::unix::fs::fchown(&file, Some(metadata.uid()), Some(metadata.gid()))?;
        file.set_permissions(fs::Permissions::from_mode(metadata.mode() & 0o7777))?;
        file.sync_data()?;
        fs::rename(&temporary, target)
    })();
    if written.is_err() {
        // The temporary file is all that is left of the attempt; the caller goes another way.
        let _ = fs::remove_file(&temporary);
    }
    written
}

fn replace_in_place(target: &Path, contents: &[u8]) -> io::Result<()> {
    let mut file: File = OpenOptions::new().write(true).open(target)?;
    file.write_all(contents)?;
    file.set_len(contents.len() as u64)?;
    file.sync_data()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn name(name: &str) -> ObjectName {
        ObjectName::new("shop", name)
    }

    fn block(text: &str) -> HostsFile {
        HostsFile::new(PathBuf::from(text), "west")
    }

    proptest! {
        #[test]
        fn taking_the_block_out_again_leaves_every_byte_as_it_was(
            before in "([a-z #.]{0,12}\r?\n){0,4}[a-z ]{0,6}",
            first in "[a-z0-9 .]{0,20}", second in "[a-z0-9 .]{0,20}",
        ) {
            let hosts = block("unused");
            let wrap = |text: &str| format!("{}\n{text}\n{}\n", hosts.begin, hosts.end).into_bytes();
            let one = hosts.splice(before.as_bytes(), Some(&wrap(&first)));
            let two = hosts.splice(&one, Some(&wrap(&second)));
            prop_assert_eq!(&hosts.splice(before.as_bytes(), Some(&wrap(&second))), &two);
            prop_assert_eq!(hosts.splice(&two, None), before.as_bytes());
        }

        #[test]
        fn lines_of_others_survive_whatever_markers_are_there(
            lines in proptest::collection::vec(0_usize..4, 0..12),
        ) {
            let hosts = block("unused");
            let texts = ["10.0.0.1 other", &hosts.begin, &hosts.end, "# BEGIN clusterlink east"];
            let mut file = lines.iter().map(|&line| texts[line]).collect::<Vec<_>>().join("\n");
            file.push('\n');
            let new = String::from_utf8(hosts.splice(file.as_bytes(), Some(b"OURS\n"))).unwrap();
            prop_assert_eq!(new.matches("OURS").count(), 1);
            prop_assert_eq!(
                new.matches("clusterlink east").count(),
                // Only what stands between a begin and its end is ours.
                outside(&lines, 3)
            );
            prop_assert_eq!(new.matches("10.0.0.1").count(), outside(&lines, 0));
        }
    }

    /// How many lines of one kind stand outside of all whole blocks.
    fn outside(lines: &[usize], kind: usize) -> usize {
        let mut count = 0;
        let mut within = None;
        for &line in lines {
            match (line, &mut within) {
                (1, open) => count += open.replace(0).unwrap_or(0),
                (2, open) => drop(open.take()),
                (line, Some(inside)) => *inside += usize::from(line == kind),
                (line, None) => count += usize::from(line == kind),
            }
        }
        count + within.unwrap_or(0)
    }

    #[test]
    fn writes_all_three_names_and_keeps_the_mode() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("hosts");
        fs::write(&path, "127.0.0.1 localhost\n").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        let hosts = HostsFile::new(path.clone(), "west");
        hosts
            .write([("10.114.0.7".parse().unwrap(), name("cart"))])
            .unwrap();
        assert_eq!(
            fs::read_to_string(&path).unwrap(),
            "127.0.0.1 localhost\n# BEGIN clusterlink west\n\
             10.114.0.7 cart.shop.svc.cluster.local cart.shop cart\n# END clusterlink west\n"
        );
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o640);
        assert!(hosts.remove().unwrap());
        assert!(!hosts.remove().unwrap());
        assert_eq!(fs::read_to_string(&path).unwrap(), "127.0.0.1 localhost\n");
        assert_eq!(
            fs::read_dir(dir.path()).unwrap().count(),
            1,
            "no temporary file stays"
        );
    }

    #[test]
    fn a_symbolic_link_stays_a_link() {
        let dir = tempfile::tempdir().unwrap();
        let (real, link) = (dir.path().join("real"), dir.path().join("link"));
        fs::write(&real, "").unwrap();
        std::os::unix::fs::symlink(&real, &link).unwrap();
        HostsFile::new(link.clone(), "west").write([]).unwrap();
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert!(
            fs::read_to_string(&real)
                .unwrap()
                .contains("BEGIN clusterlink west")
        );
    }

    #[test]
    fn writing_in_place_shortens_the_file_too() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("hosts");
        fs::write(&path, "a long old text").unwrap();
        replace_in_place(&path, b"new").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
    }

    #[test]
    fn a_missing_file_is_named() {
        let error = block("/nonexistent/hosts").write([]).unwrap_err();
        assert!(error.to_string().contains("/nonexistent/hosts"), "{error}");
        assert!(!block("/nonexistent/hosts").remove().unwrap());
    }
}
