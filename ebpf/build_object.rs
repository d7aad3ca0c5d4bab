// Builds the object with the kernel programs. Included by `agent/build.rs` and by xtask, so that
// there is one way to build it; hence only the standard library is used.
//
// The programs are built by a nested cargo for the BPF target. `core` has to be built for it, which
// stable cargo does only with RUSTC_BOOTSTRAP, set for the nested cargo alone. It has a target
// directory of its own: so it never waits for the lock of the cargo that runs the build script, and
// `core` is built once for all profiles. Paths are remapped, so that the object does not depend on
// where it was built.

/// What the object is built from and with.
pub(crate) struct ObjectBuild {
    /// The workspace's root.
    pub(crate) root: std::path::PathBuf,
    /// The target directory of the nested build; shared by all callers of one workspace.
    pub(crate) target_dir: std::path::PathBuf,
    /// The cargo to call.
    pub(crate) cargo: std::ffi::OsString,
    /// The rustc whose sysroot holds the sources of `core`.
    pub(crate) rustc: std::ffi::OsString,
    /// The architecture of the machine that the object will be loaded on, such as `x86_64`.
    pub(crate) arch: String,
}

/// Why there is no object.
#[derive(Debug)]
pub(crate) enum ObjectError {
    /// bpf-linker is neither in PATH nor in our tools directory.
    LinkerMissing {
        /// Where it was expected besides PATH.
        tools: std::path::PathBuf,
    },
    /// The sources of `core` are not installed.
    SourcesMissing {
        /// Where they were expected.
        expected: std::path::PathBuf,
    },
    /// Cargo could not be run.
    Cargo(std::io::Error),
    /// The programs do not compile; cargo said why.
    Failed,
}

impl std::fmt::Display for ObjectError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::LinkerMissing { tools } => write!(
                f,
                "bpf-linker is neither in PATH nor in {}: run `cargo xtask setup`",
                tools.display()
            ),
            Self::SourcesMissing { expected } => write!(
                f,
                "rust-src is not installed ({} does not exist): run `cargo xtask setup`",
                expected.display()
            ),
            Self::Cargo(error) => write!(f, "cannot run cargo for the kernel programs: {error}"),
            Self::Failed => write!(f, "the kernel programs do not build; cargo said why above"),
        }
    }
}

impl std::error::Error for ObjectError {}

impl ObjectError {
    /// Whether a tool is missing, rather than the programs being wrong.
    #[allow(dead_code, reason = "not every includer asks")]
    pub(crate) fn is_tool_missing(&self) -> bool {
        matches!(
            self,
            Self::LinkerMissing { .. } | Self::SourcesMissing { .. }
        )
    }
}

/// Where `cargo xtask setup` installs tools: `${XDG_CACHE_HOME:-~/.cache}/clusterlink/tools/bin`.
pub(crate) fn tools_dir() -> std::path::PathBuf {
    let cache = std::env::var_os("XDG_CACHE_HOME")
        .filter(|dir| !dir.is_empty())
        .map(std::path::PathBuf::from)
        .or_else(|| {
            std::env::var_os("HOME").map(|home| std::path::PathBuf::from(home).join(".cache"))
        });
    cache.unwrap_or_default().join("clusterlink/tools/bin")
}

/// Where bpf-linker is searched: our tools directory before PATH.
fn search_path() -> Vec<std::path::PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::iter::once(tools_dir())
        .chain(std::env::split_paths(&path))
        .collect()
}

/// The bpf-linker that is used, if there is one.
pub(crate) fn linker() -> Option<std::path::PathBuf> {
    let mut candidates = search_path().into_iter().map(|dir| dir.join("bpf-linker"));
    candidates.find(|path| path.is_file())
}

/// The nested build's target directory: `ebpf` in `$CARGO_TARGET_DIR`, else in the workspace's
/// `target`.
pub(crate) fn object_target_dir(root: &std::path::Path) -> std::path::PathBuf {
    std::env::var_os("CARGO_TARGET_DIR")
        .filter(|dir| !dir.is_empty())
        .map_or_else(|| root.join("target"), |dir| root.join(dir))
        .join("ebpf")
}

/// The directories whose changes ask for another build.
#[allow(dead_code, reason = "not every includer asks")]
pub(crate) fn object_sources(root: &std::path::Path) -> [std::path::PathBuf; 2] {
    [root.join("ebpf"), root.join("ebpf-common")]
}

/// Builds the object and returns where it is.
pub(crate) fn build_object(build: &ObjectBuild) -> Result<std::path::PathBuf, ObjectError> {
    if linker().is_none() {
        return Err(ObjectError::LinkerMissing { tools: tools_dir() });
    }
    let sysroot = sysroot(&build.rustc).map_err(ObjectError::Cargo)?;
    let sources = sysroot.join("lib/rustlib/src/rust/library/core");
    if !sources.is_dir() {
        return Err(ObjectError::SourcesMissing { expected: sources });
    }
    // Entries of PATH that cannot be joined again contain a separator and could not be searched.
    let path = std::env::join_paths(search_path())
        .unwrap_or_else(|_| std::env::var_os("PATH").unwrap_or_default());

    let status = std::process::Command::new(&build.cargo)
        .current_dir(&build.root)
        .args([
            "build",
            "--quiet",
            "--package",
            "clusterlink-ebpf",
            "--bins",
            "--release",
        ])
        .args([
            "--target",
            "bpfel-unknown-none",
            "-Z",
            "build-std=core",
            "--target-dir",
        ])
        .arg(&build.target_dir)
        .env("PATH", path)
        .env("RUSTC_BOOTSTRAP", "1")
        .env("CARGO_ENCODED_RUSTFLAGS", rustflags(build, &sysroot))
        // What the outer cargo sets for build scripts must not reach the nested one.
        .env_remove("RUSTC")
        .env_remove("RUSTC_WRAPPER")
        .env_remove("RUSTC_WORKSPACE_WRAPPER")
        .env_remove("RUSTFLAGS")
        .env_remove("CARGO_BUILD_TARGET")
        .env_remove("CARGO_TARGET_DIR")
        .env_remove("CARGO_MAKEFLAGS")
        .status()
        .map_err(ObjectError::Cargo)?;
    if !status.success() {
        return Err(ObjectError::Failed);
    }
    Ok(build
        .target_dir
        .join("bpfel-unknown-none/release/clusterlink-ebpf"))
}

fn sysroot(rustc: &std::ffi::OsStr) -> std::io::Result<std::path::PathBuf> {
    let output = std::process::Command::new(rustc)
        .args(["--print", "sysroot"])
        .output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    Ok(std::path::PathBuf::from(text.trim()))
}

/// The flags of the nested rustc, separated as CARGO_ENCODED_RUSTFLAGS wants it.
fn rustflags(build: &ObjectBuild, sysroot: &std::path::Path) -> String {
    let cargo_home = std::env::var_os("CARGO_HOME")
        .map(std::path::PathBuf::from)
        .or_else(|| {
            std::env::var_os("HOME").map(|home| std::path::PathBuf::from(home).join(".cargo"))
        })
        .unwrap_or_default();
    [
        format!("--cfg=bpf_target_arch=\"{}\"", build.arch),
        "-Cdebuginfo=2".to_owned(),
        "-Clink-arg=--btf".to_owned(),
        format!("--remap-path-prefix={}=/clusterlink", build.root.display()),
        format!("--remap-path-prefix={}=/cargo", cargo_home.display()),
        format!("--remap-path-prefix={}=/rust", sysroot.display()),
    ]
    .join("\x1f")
}
