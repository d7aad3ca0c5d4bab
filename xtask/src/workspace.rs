//! Where things are, and the cargo that builds them.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The root of the checkout.
pub(crate) fn root() -> PathBuf {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    manifest
        .parent()
        .expect("xtask is a directory of the workspace")
        .to_owned()
}

/// Where cargo puts what it builds.
pub(crate) fn target() -> PathBuf {
    match env::var_os("CARGO_TARGET_DIR").filter(|directory| !directory.is_empty()) {
        Some(directory) => root().join(directory),
        None => root().join("target"),
    }
}

/// Where tools and logs are kept, outside of the checkout.
pub(crate) fn cache() -> PathBuf {
    let directory = |name: &str| {
        env::var_os(name)
            .filter(|value| !value.is_empty())
            .map(PathBuf::from)
    };
    let cache =
        directory("XDG_CACHE_HOME").or_else(|| directory("HOME").map(|home| home.join(".cache")));
    cache.unwrap_or_else(env::temp_dir).join("clusterlink")
}

/// The cargo that runs us, in the workspace's root.
pub(crate) fn cargo() -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root()).env("PATH", search_path());
    // Set by cargo for us; a nested cargo should not take them for its own.
    command
        .env_remove("CARGO_MANIFEST_DIR")
        .env_remove("CARGO_PKG_NAME");
    command
}

/// PATH with our own tools first, and with the directories of system tools that a plain `su` leaves out.
pub(crate) fn search_path() -> std::ffi::OsString {
    let old = env::var_os("PATH").unwrap_or_default();
    let mut all = vec![cache().join("tools/bin")];
    all.extend(env::split_paths(&old));
    all.extend(["/usr/sbin", "/sbin"].map(PathBuf::from));
    // A PATH that cannot be joined again has a quote in it, and is left as it is.
    env::join_paths(all).unwrap_or(old)
}

/// The file that a command's name stands for.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    env::split_paths(&search_path())
        .map(|directory| directory.join(program))
        .find(|path| path.is_file())
}
