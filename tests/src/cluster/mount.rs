//! A Secret that is mounted into a pod, in the directories that a kubelet makes of it.
//!
//! ```text
//! cert.pem → ..data/cert.pem        ..data → ..2        ..2/cert.pem
//! ```
//! A change is a directory of its own and one rename of the link `..data`, so that nobody ever sees
//! a part of it; the directory before is removed then.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context as _, Result};

use crate::kubernetes::ControlPlane;

/// Numbers the directories.
static WRITTEN: AtomicU32 = AtomicU32::new(0);

/// Each name and content of a Secret, with a NUL after each.
const TEMPLATE: &str = r#"go-template={{range $name, $content := .data}}{{$name}}{{"\x00"}}{{base64decode $content}}{{"\x00"}}{{end}}"#;

/// Mounts a Secret as it is by now, or renews what was mounted before.
pub(super) fn secret(
    plane: &ControlPlane,
    namespace: &str,
    name: &str,
    directory: &Path,
) -> Result<()> {
    let printed = plane.run(&["get", "secret", name, "-n", namespace, "-o", TEMPLATE])?;
    let mut parts = printed.split_terminator('\0');
    let mut files = Vec::new();
    while let (Some(name), Some(content)) = (parts.next(), parts.next()) {
        files.push((name, content));
    }
    write(directory, &files)
        .with_context(|| format!("cannot mount the Secret {name} at {}", directory.display()))
}

fn write(directory: &Path, files: &[(&str, &str)]) -> Result<()> {
    let number = WRITTEN.fetch_add(1, Ordering::Relaxed);
    let (link, unfinished) = (directory.join("..data"), directory.join("..data_tmp"));
    let before = fs::read_link(&link).ok();
    let next = format!("..{number}");
    fs::create_dir(directory.join(&next))?;
    for (name, content) in files {
        fs::write(directory.join(&next).join(name), content)?;
    }
    symlink(&next, &unfinished)?;
    fs::rename(&unfinished, &link)?;
    for (name, _) in files {
        let visible = directory.join(name);
        if !visible.is_symlink() {
            symlink(Path::new("..data").join(name), visible)?;
        }
    }
    for visible in fs::read_dir(directory)? {
        let visible = visible?.path();
        // What leads nowhere is of a file that is no more.
        if visible.is_symlink() && !visible.exists() {
            fs::remove_file(visible)?;
        }
    }
    if let Some(before) = before {
        fs::remove_dir_all(directory.join(before))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_replaces_what_is_seen_by_each_name_and_leaves_nothing_behind() -> Result<()> {
        let directory = tempfile::tempdir()?;
        let mounted = directory.path();
        write(mounted, &[("cert.pem", "one"), ("key.pem", "first")])?;
        write(
            mounted,
            &[
                ("cert.pem", "two"),
                ("ca.pem", "new"),
                ("key.pem", "second"),
            ],
        )?;
        for (file, content) in [
            ("cert.pem", "two"),
            ("ca.pem", "new"),
            ("key.pem", "second"),
        ] {
            assert_eq!(fs::read_to_string(mounted.join(file))?, content, "{file}");
        }
        // Three links to files, the one that is renamed, and the directory that it leads to.
        assert_eq!(fs::read_dir(mounted)?.count(), 5);
        write(mounted, &[("cert.pem", "two"), ("key.pem", "second")])?;
        assert!(!mounted.join("ca.pem").is_symlink(), "it is gone");
        assert_eq!(fs::read_to_string(mounted.join("key.pem"))?, "second");
        assert_eq!(fs::read_dir(mounted)?.count(), 4);
        Ok(())
    }
}
