//! The Kubernetes programs that tests start, built from Go modules with pinned checksums.
//!
//! They are kept in the cache under the hash of what they are built from; a checkout that pins the
//! same versions builds nothing.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::{step, workspace};

/// Packages, the programs that they make, and what building them after each other takes on two cores.
const CONTROL_PLANE: [(&str, &str, &str); 5] = [
    (
        "k8s.io/kubernetes/cmd/kube-apiserver",
        "kube-apiserver",
        "about 4 minutes",
    ),
    ("go.etcd.io/etcd/server/v3", "etcd", "about 10 seconds"),
    (
        "k8s.io/kubernetes/cmd/kube-controller-manager",
        "kube-controller-manager",
        "about 1 minute",
    ),
    (
        "k8s.io/kubernetes/cmd/kube-proxy",
        "kube-proxy",
        "about 10 seconds",
    ),
    (
        "k8s.io/kubernetes/cmd/kubectl",
        "kubectl",
        "about 20 seconds",
    ),
];

/// Fails where the control plane could not be built, and says why.
pub(crate) fn check() -> Result<()> {
    Go::find().map(drop)
}

/// Builds what is missing of a control plane, and gives the directory that the programs are in.
pub(crate) fn control_plane() -> Result<PathBuf> {
    let module = workspace::root().join("tests/kubernetes/control-plane");
    let go = Go::find()?;
    let key = go.key(&module)?;
    let directory = workspace::cache().join("kubernetes").join(key);
    fs::create_dir_all(&directory)
        .with_context(|| format!("cannot make {}", directory.display()))?;
    for (package, program, time) in CONTROL_PLANE {
        let path = directory.join(program);
        if !path.is_file() {
            go.build(&module, package, &path, time)?;
        }
    }
    Ok(directory)
}

/// The installed Go.
struct Go {
    program: PathBuf,
    version: String,
}

impl Go {
    fn find() -> Result<Self> {
        let cure = "install Go 1.26 or newer and put its bin directory on PATH; \
                    `cargo xtask test --fast` does without";
        let Some(program) = workspace::find("go") else {
            bail!(
                "the stories start a Kubernetes API server, which is built with Go, and there is no go here: {cure}"
            );
        };
        let output = Command::new(&program)
            .args(["env", "GOVERSION"])
            .output()
            .with_context(|| format!("cannot run {}", program.display()))?;
        let version = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        if !is_new_enough(&version) {
            bail!(
                "the stories start a Kubernetes API server, and {version:?} cannot build it: {cure}"
            );
        }
        Ok(Self { program, version })
    }

    /// What the programs depend on, in few letters.
    fn key(&self, module: &Path) -> Result<String> {
        let mut hash = Fnv::default();
        hash.add(self.version.as_bytes());
        for file in ["go.mod", "go.sum"] {
            let path = module.join(file);
            hash.add(&fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?);
        }
        Ok(format!("{:016x}", hash.0))
    }

    fn build(&self, module: &Path, package: &str, path: &Path, time: &str) -> Result<()> {
        let version = pinned(module, "k8s.io/kubernetes")?;
        let mut minor = version.trim_start_matches('v').split('.').skip(1);
        let minor = minor.next().unwrap_or_default();
        let mut flags = "-s -w".to_owned();
        for package in [
            "k8s.io/component-base/version",
            "k8s.io/client-go/pkg/version",
        ] {
            flags.push_str(&format!(
                " -X {package}.gitVersion={version} -X {package}.gitMajor=1 -X {package}.gitMinor={minor}"
            ));
        }
        let unfinished = path.with_extension("new");
        let mut command = Command::new(&self.program);
        command
            .args([
                "build",
                // Names each package that it compiles: otherwise minutes pass with the last download.
                "-v",
                "-mod=readonly",
                "-trimpath",
                "-ldflags",
                &flags,
                "-o",
            ])
            .arg(&unfinished)
            .arg(package)
            .current_dir(module)
            .env("CGO_ENABLED", "0");
        let program = path.file_name().unwrap_or_default().display();
        step::quietly(&format!("building {program} ({time})"), &mut command)?;
        fs::rename(&unfinished, path)
            .with_context(|| format!("cannot put {} in place", path.display()))
    }
}

/// The version that go.mod names for a module.
fn pinned(module: &Path, wanted: &str) -> Result<String> {
    let path = module.join("go.mod");
    let text =
        fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let version = text.lines().find_map(|line| {
        let mut words = line.split_whitespace();
        (words.next() == Some(wanted)).then(|| words.next().map(str::to_owned))?
    });
    version.with_context(|| format!("{} pins no {wanted}", path.display()))
}

/// Whether `go1.26.8` or the like is at least 1.26.
fn is_new_enough(version: &str) -> bool {
    let mut numbers = version
        .trim_start_matches("go")
        .split(['.', 'r', '-', ' '])
        .map(|part| part.parse().unwrap_or(0));
    (numbers.next(), numbers.next()) >= (Some(1), Some(26))
}

/// FNV-1a with 64 bits: short names for directories, the same on every machine.
struct Fnv(u64);

impl Default for Fnv {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Fnv {
    fn add(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_of_go_are_compared_as_numbers() {
        for (version, enough) in [
            ("go1.26.8", true),
            ("go1.26rc1", true),
            ("go1.100", true),
            ("go2.30.1", true),
            ("go1.25.9", false),
            ("go1.3", false),
            ("", false),
        ] {
            assert_eq!(is_new_enough(version), enough, "{version}");
        }
    }

    #[test]
    fn the_version_of_kubernetes_is_read_from_its_module() {
        let module = workspace::root().join("tests/kubernetes/control-plane");
        let version = pinned(&module, "k8s.io/kubernetes").expect("it is pinned");
        assert!(version.starts_with("v1."), "{version}");
        assert!(pinned(&module, "example.org/nothing").is_err());
    }
}
