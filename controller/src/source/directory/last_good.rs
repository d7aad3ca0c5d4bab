//! Copies of what was last read of each file, so that a restart in the middle of a mistake finds it
//! again. Policies are left out: an allow must not come back, and valid denies are kept elsewhere.
//!
//! A copy is a `List` in JSON, read like any manifest. It is written without waiting for the disk:
//! after a power failure the manifests themselves have to do.

use std::{
    collections::HashSet,
    ffi::OsString,
    fs, io,
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
};

use serde_json::{Value as Json, json};

use super::{
    kinds::{Key, Kind, Object},
    manifest::{self, Item, Memory},
};

/// The copies, in a directory of their own.
#[derive(Debug)]
pub(super) struct LastGood {
    directory: PathBuf,
}

impl LastGood {
    pub(super) fn new(directory: PathBuf) -> Self {
        Self { directory }
    }

    /// What was last read of a file; nothing if there is no copy that can be used.
    pub(super) fn read(&self, file: &Path) -> Vec<Item> {
        let path = self.copy_of(file);
        match fs::read_to_string(&path) {
            Ok(text) => manifest::read(&path, &text, &mut Memory::default()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => {
                tracing::warn!(copy = %path.display(), %error, "cannot read what was last read of a manifest");
                Vec::new()
            }
        }
    }

    /// Keeps what is in force of a file.
    pub(super) fn write(&self, file: &Path, objects: &[(&Key, &Object)]) {
        let kept = |key: &Key| match key.kind {
            Kind::AccessPolicy | Kind::PrivilegedAccessPolicy => false,
            Kind::Peer
            | Kind::Export
            | Kind::Import
            | Kind::Namespace
            | Kind::Service
            | Kind::EndpointSlice
            | Kind::Pod => true,
        };
        let items: Vec<Json> = (objects.iter())
            .filter(|(key, _)| kept(key))
            .filter_map(|(key, object)| object.document(key))
            .collect();
        if items.is_empty() {
            self.remove(&self.copy_of(file));
            return;
        }
        let list = json!({"apiVersion": "v1", "kind": "List", "file": file, "items": items});
        let bytes = list.to_string().into_bytes();
        let path = self.copy_of(file);
        if fs::read(&path).is_ok_and(|present| present == bytes) {
            return;
        }
        let temporary = path.with_extension("new");
        let written = fs::create_dir_all(&self.directory)
            .and_then(|()| fs::write(&temporary, bytes))
            .and_then(|()| fs::rename(&temporary, &path));
        if let Err(error) = written {
            tracing::warn!(
                copy = %path.display(),
                %error,
                "cannot keep what was read of a manifest: a mistake in it at the next start would withdraw it; check free space and permissions of --state-dir"
            );
        }
    }

    /// Forgets a file that is gone.
    pub(super) fn forget(&self, file: &Path) {
        self.remove(&self.copy_of(file));
    }

    /// Forgets the files that are gone by the first look, and gives those which may only be
    /// `hidden` in a directory that cannot be read.
    pub(super) fn sweep<'a>(
        &self,
        present: impl Iterator<Item = &'a Path>,
        hidden: impl Fn(&Path) -> bool,
    ) -> Vec<PathBuf> {
        let present: HashSet<OsString> = present.map(name_of).collect();
        let mut found = Vec::new();
        let copies = fs::read_dir(&self.directory)
            .into_iter()
            .flatten()
            .flatten();
        for copy in copies.filter(|copy| !present.contains(&copy.file_name())) {
            let list = fs::read(copy.path()).unwrap_or_default();
            let list: Json = serde_json::from_slice(&list).unwrap_or_default();
            match list["file"].as_str().map(PathBuf::from) {
                Some(file) if hidden(&file) => found.push(file),
                _ => self.remove(&copy.path()),
            }
        }
        found
    }

    fn remove(&self, copy: &Path) {
        match fs::remove_file(copy) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(copy = %copy.display(), %error, "cannot remove what is kept of a manifest");
            }
            Ok(()) | Err(_) => {}
        }
    }

    fn copy_of(&self, file: &Path) -> PathBuf {
        self.directory.join(name_of(file))
    }
}

/// The copy's name: the file's path by FNV-1a, since a path may be longer than a name.
fn name_of(file: &Path) -> OsString {
    let bytes = file.as_os_str().as_bytes().iter();
    let hash = bytes.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    });
    format!("{hash:016x}.json").into()
}
