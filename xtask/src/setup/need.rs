//! The single needs, and how to tell whether they are met.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use crate::workspace;

/// The version of bpf-linker that reads what the pinned toolchain writes.
pub(super) const BPF_LINKER_VERSION: &str = "0.10.4";

/// Something that can be installed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Need {
    /// What it is called.
    pub(super) name: &'static str,
    /// What it is for.
    pub(super) purpose: &'static str,
    /// How to tell and how to get it.
    pub(super) kind: Kind,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Kind {
    /// The sources of the standard library, a component of the toolchain.
    RustSources,
    /// The linker for kernel programs, built into our cache.
    BpfLinker,
    /// A program out of the Debian package of the need's name.
    Package { program: &'static str },
}

pub(super) const RUST_SRC: Need = Need {
    name: "rust-src",
    purpose: "the sources of core, which is built for the kernel programs",
    kind: Kind::RustSources,
};
pub(super) const BPF_LINKER: Need = Need {
    name: "bpf-linker",
    purpose: "links the kernel programs",
    kind: Kind::BpfLinker,
};
pub(super) const IPROUTE: Need = package(
    "iproute2",
    "ip",
    "makes the network namespaces of the hosts",
);
pub(super) const NFTABLES: Need =
    package("nftables", "nft", "tells whether rules were left behind");
pub(super) const BPFTOOL: Need =
    package("bpftool", "bpftool", "looks into the kernel programs' maps");
pub(super) const CURL: Need = package("curl", "curl", "the client that the demo types");

const fn package(name: &'static str, program: &'static str, purpose: &'static str) -> Need {
    Need {
        name,
        purpose,
        kind: Kind::Package { program },
    }
}

impl Need {
    /// Whether it is met.
    pub(super) fn is_there(&self) -> bool {
        match self.kind {
            Kind::RustSources => sysroot()
                .is_some_and(|root| root.join("lib/rustlib/src/rust/library/core").is_dir()),
            Kind::BpfLinker => has_linker(),
            Kind::Package { program } => workspace::find(program).is_some(),
        }
    }
}

/// Where the toolchain is.
pub(super) fn sysroot() -> Option<PathBuf> {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let output = Command::new(rustc)
        .args(["--print", "sysroot"])
        .current_dir(workspace::root())
        .output()
        .ok()?;
    Some(PathBuf::from(String::from_utf8(output.stdout).ok()?.trim()))
}

fn has_linker() -> bool {
    let Some(path) = workspace::find("bpf-linker") else {
        return false;
    };
    let output = Command::new(path).arg("--version").output();
    output.is_ok_and(|output| String::from_utf8_lossy(&output.stdout).contains(BPF_LINKER_VERSION))
}

/// Every privilege that the stories need: whether it is there, and its name with the cure.
pub(super) fn privileges() -> [(bool, &'static str); 3] {
    let file = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let (status, mounts) = (file("/proc/self/status"), file("/proc/self/mounts"));
    [
        (nix::unistd::geteuid().is_root(), "root (run it with sudo)"),
        (
            has_capabilities(&status),
            "CAP_SYS_ADMIN, CAP_NET_ADMIN, CAP_BPF and CAP_PERFMON (in a container: --privileged)",
        ),
        (
            mounts
                .lines()
                .any(|line| line.split(' ').nth(2) == Some("cgroup2")),
            "a cgroup v2 mount (mount -t cgroup2 none /sys/fs/cgroup)",
        ),
    ]
}

/// What bpftool calls the kernel's features that steering cannot do without, and what they need.
const FEATURES: [(&str, &str); 6] = [
    (
        "bpf() syscall is available",
        "BPF (CONFIG_BPF_SYSCALL, and in a container a seccomp profile that allows bpf())",
    ),
    (
        "program_type cgroup_sock_addr is available",
        "BPF programs at connect (CONFIG_CGROUP_BPF, Linux 4.17)",
    ),
    (
        "program_type sock_ops is available",
        "BPF programs on TCP events (CONFIG_CGROUP_BPF, Linux 4.13)",
    ),
    (
        "map_type sk_storage is available",
        "BPF storage on sockets (Linux 5.2)",
    ),
    (
        "map_type ringbuf is available",
        "BPF ring buffers (Linux 5.8)",
    ),
    (
        "map_type sockmap is available",
        "BPF maps of sockets (CONFIG_BPF_STREAM_PARSER)",
    ),
];

/// What this kernel lacks, asked by loading small programs and maps; needs root and bpftool.
pub(super) fn missing_features() -> Vec<&'static str> {
    let probed = workspace::find("bpftool").and_then(|bpftool| {
        Command::new(bpftool)
            .args(["feature", "probe", "kernel"])
            .output()
            .ok()
    });
    let text = probed.map(|output| output.stdout).unwrap_or_default();
    missing_in(&String::from_utf8_lossy(&text))
}

/// The features that bpftool did not find. Without the system call none of the others counts.
fn missing_in(probed: &str) -> Vec<&'static str> {
    // The words are separated as the width of a column has it.
    let probed: Vec<_> = probed.split_whitespace().collect();
    let probed = probed.join(" ");
    let mut missing = FEATURES
        .iter()
        .filter(|(found, _)| !probed.contains(found))
        .map(|(_, name)| *name);
    match missing.next() {
        Some(first) if first == FEATURES[0].1 => vec![first],
        first => first.into_iter().chain(missing).collect(),
    }
}

/// Whether the effective set has CAP_NET_ADMIN (12), CAP_SYS_ADMIN (21), CAP_PERFMON (38) and CAP_BPF (39).
fn has_capabilities(status: &str) -> bool {
    let wanted = [12, 21, 38, 39]
        .iter()
        .fold(0_u64, |set, bit| set | 1 << bit);
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let effective = effective.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok());
    effective.is_some_and(|effective| effective & wanted == wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_wanted_capability_is_needed() {
        assert!(has_capabilities("Name:\tx\nCapEff:\t000001ffffffffff\n"));
        for bit in [12, 21, 38, 39] {
            let without = 0x1ff_ffff_ffff_u64 & !(1 << bit);
            assert!(
                !has_capabilities(&format!("CapEff:\t{without:016x}\n")),
                "{bit}"
            );
        }
        assert!(!has_capabilities(""));
    }

    #[test]
    fn each_missing_feature_of_the_kernel_is_named() {
        let all: Vec<_> = FEATURES
            .iter()
            .map(|(found, _)| format!("eBPF {found}\n"))
            .collect();
        assert_eq!(missing_in(&all.concat()), Vec::<&str>::new());
        for (place, (_, name)) in FEATURES.iter().enumerate() {
            let mut without = all.clone();
            without[place] = without[place].replace("is available", "is NOT available");
            assert_eq!(missing_in(&without.concat()), [*name]);
        }
        assert_eq!(
            missing_in(""),
            [FEATURES[0].1],
            "the cause of all the others"
        );
    }
}
