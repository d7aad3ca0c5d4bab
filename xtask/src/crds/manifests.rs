//! Writing and comparing the manifests.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};

use crate::workspace;

pub(super) fn write() -> Result<()> {
    let directory = directory();
    fs::create_dir_all(&directory)
        .with_context(|| format!("cannot make {}", directory.display()))?;
    for (file, content) in clusterlink_crds::manifests() {
        let path = directory.join(file);
        fs::write(&path, content).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}

pub(super) fn check() -> Result<()> {
    let directory = directory();
    let manifests = clusterlink_crds::manifests();
    let mut wrong = Vec::new();
    for (file, content) in &manifests {
        if fs::read_to_string(directory.join(file)).ok().as_ref() != Some(content) {
            wrong.push(file.clone());
        }
    }
    for entry in fs::read_dir(&directory).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if !manifests.iter().any(|(file, _)| *file == name) {
            wrong.push(name);
        }
    }
    if !wrong.is_empty() {
        bail!(
            "deploy/crds is not what the types say, see {}: run `cargo xtask crds`",
            wrong.join(", ")
        );
    }
    Ok(())
}

fn directory() -> PathBuf {
    workspace::root().join("deploy/crds")
}
