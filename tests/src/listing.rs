//! A listing of all that a peer or a scene could leave on a machine, for before and after.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};

use crate::cgroup;

/// What was found, one line each, sorted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listing {
    lines: BTreeSet<String>,
}

impl Listing {
    /// Lists namespaces, links, addresses, routes, nft rules, BPF objects and pins, cgroups, mounts, files of ours and processes of ours.
    pub fn take() -> Result<Self> {
        let mut lines = BTreeSet::new();
        for (what, command) in COMMANDS {
            lines.extend(run(what, command)?);
        }
        lines.extend(bpf("prog")?);
        lines.extend(bpf("map")?);
        lines.extend(bpf("link")?);
        for directory in [
            "/sys/fs/bpf",
            "/run/clusterlink",
            "/run/clusterlink-tests",
            "/var/lib/clusterlink",
        ] {
            files(Path::new(directory), &mut lines);
        }
        let cgroups = cgroup::subtree(&cgroup::root()?);
        lines.extend(
            cgroups
                .iter()
                .map(|path| format!("cgroup {}", path.display())),
        );
        lines.extend(mounts()?);
        lines.extend(processes());
        Ok(Self { lines })
    }

    /// The part of a listing that names one scene.
    pub fn of(scene: &str) -> Result<Self> {
        let mut all = Self::take()?;
        all.lines.retain(|line| line.contains(scene));
        Ok(all)
    }

    /// What is here and was not there before.
    pub fn added_since(&self, before: &Self) -> Vec<String> {
        self.lines.difference(&before.lines).cloned().collect()
    }

    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    /// Fails if there is anything in it.
    pub fn assert_empty(&self) -> Result<()> {
        ensure!(
            self.lines.is_empty(),
            "something was left behind: {:#?}",
            self.lines
        );
        Ok(())
    }

    /// Fails unless both are the same, and names the differences.
    pub fn assert_same(&self, before: &Self) -> Result<()> {
        let (added, gone) = (self.added_since(before), before.added_since(self));
        ensure!(
            added.is_empty() && gone.is_empty(),
            "the machine is not as it was before; new: {added:#?}, gone: {gone:#?}"
        );
        Ok(())
    }
}

const COMMANDS: [(&str, &[&str]); 7] = [
    ("namespace", &["ip", "netns", "list"]),
    ("link", &["ip", "-o", "link"]),
    ("address", &["ip", "-o", "-d", "address"]),
    ("route", &["ip", "route", "show", "table", "all"]),
    ("route6", &["ip", "-6", "route", "show", "table", "all"]),
    ("rule", &["ip", "rule"]),
    ("nft", &["nft", "list", "ruleset"]),
];

fn run(what: &str, command: &[&str]) -> Result<Vec<String>> {
    let output = Command::new(command[0])
        .args(&command[1..])
        .output()
        .with_context(|| format!("cannot run {}", command.join(" ")))?;
    // An absent table of routes or rules makes some of them fail, which is an empty list.
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    Ok(text
        .lines()
        .map(|line| format!("{what} {}", without_lifetimes(line)))
        .collect())
}

/// The lifetime of an address that a router announced counts down by itself.
fn without_lifetimes(line: &str) -> String {
    let mut words = Vec::new();
    let mut input = line.split_whitespace();
    while let Some(word) = input.next() {
        match word {
            "valid_lft" | "preferred_lft" | "expires" => drop(input.next()),
            word => words.push(word),
        }
    }
    words.join(" ")
}

/// Kernel objects without their numbers and times, which differ from one load to the next.
fn bpf(kind: &str) -> Result<Vec<String>> {
    let output = Command::new("bpftool")
        .args([kind, "show", "--json"])
        .output()
        .context("cannot run bpftool; the Debian package bpftool has it")?;
    let objects: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
    let objects = objects.as_array().cloned().unwrap_or_default();
    Ok(objects
        .iter()
        .enumerate()
        .map(|(index, object)| {
            let part = |key: &str| object.get(key).map(ToString::to_string).unwrap_or_default();
            let same_before = objects[..index]
                .iter()
                .filter(|other| {
                    other.get("name") == object.get("name")
                        && other.get("type") == object.get("type")
                })
                .count();
            format!(
                "bpf {kind} {} {} {} #{same_before}",
                part("type"),
                part("name"),
                part("attach_type")
            )
        })
        .collect())
}

fn files(directory: &Path, lines: &mut BTreeSet<String>) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        lines.insert(format!("file {}", entry.path().display()));
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            files(&entry.path(), lines);
        }
    }
}

fn mounts() -> Result<Vec<String>> {
    let text = fs::read_to_string("/proc/self/mounts").context("cannot read the mounts")?;
    // The first `ip netns add` after a boot makes this one, for all that come later.
    let lasting = |line: &&str| line.split(' ').nth(1) != Some("/run/netns");
    Ok(text
        .lines()
        .filter(lasting)
        .map(|line| format!("mount {line}"))
        .collect())
}

/// The processes of a scene or of a peer, by their command lines.
fn processes() -> Vec<String> {
    let mut lines = Vec::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Ok(bytes) = fs::read(entry.path().join("cmdline")) else {
            continue;
        };
        let command = String::from_utf8_lossy(&bytes).replace('\0', " ");
        let program = command.split(' ').next().unwrap_or_default();
        let name = program.rsplit('/').next().unwrap_or_default();
        let pid = entry.file_name();
        let own = pid.to_str() == Some(&std::process::id().to_string());
        if (name == "clt" || name == "clusterlink") && !own {
            lines.push(format!("process {} {}", pid.display(), command.trim()));
        }
    }
    lines
}
