//! Network namespaces and what is configured in them, by way of `ip`.

use std::fs;
use std::io::Write as _;
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use nix::sched::{CloneFlags, setns};

/// The file that stands for a named network namespace.
pub fn path_of(namespace: &str) -> PathBuf {
    Path::new("/run/netns").join(namespace)
}

/// Makes a named network namespace with its loopback up.
pub fn create(namespace: &str) -> Result<()> {
    ip(&["netns", "add", namespace], "")?;
    batch(namespace, "link set lo up\n")
}

/// Removes a named network namespace; one that is not there is fine.
pub fn remove(namespace: &str) -> Result<()> {
    if !path_of(namespace).exists() {
        return Ok(());
    }
    ip(&["netns", "del", namespace], "")
}

/// Runs lines of `ip` commands inside a namespace; the first that fails ends it.
pub fn batch(namespace: &str, lines: &str) -> Result<()> {
    ip(&["-n", namespace, "-batch", "-"], lines)
}

/// Sets a value below `/proc/sys/net`, such as `ipv4/ip_forward`, of a namespace.
pub fn sysctl(namespace: &str, name: &str, value: &str) -> Result<()> {
    within(namespace, || {
        let path = Path::new("/proc/sys/net").join(name);
        fs::write(&path, value)
            .with_context(|| format!("cannot write {value} to {}", path.display()))
    })?
}

/// Calls a function on a thread of its own that is in the namespace.
pub fn within<T: Send>(namespace: &str, call: impl FnOnce() -> T + Send) -> Result<T> {
    let path = path_of(namespace);
    let file = fs::File::open(&path)
        .with_context(|| format!("cannot open the network namespace {}", path.display()))?;
    std::thread::scope(|scope| {
        let inside = scope.spawn(move || {
            setns(file.as_fd(), CloneFlags::CLONE_NEWNET).with_context(|| {
                format!("cannot enter the network namespace {}", path.display())
            })?;
            Ok(call())
        });
        match inside.join() {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

fn ip(arguments: &[&str], input: &str) -> Result<()> {
    let mut child = Command::new("ip")
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .context("cannot start ip; the Debian package iproute2 has it")?;
    if let Some(mut stdin) = child.stdin.take() {
        // A command that failed early closes its input; its exit status tells more than EPIPE.
        let _ = stdin.write_all(input.as_bytes());
    }
    let output = child.wait_with_output().context("cannot wait for ip")?;
    if !output.status.success() {
        bail!(
            "ip {} failed: {}{}",
            arguments.join(" "),
            String::from_utf8_lossy(&output.stderr).trim(),
            if input.is_empty() {
                String::new()
            } else {
                format!("; its input was:\n{input}")
            }
        );
    }
    Ok(())
}
