//! The binary: what it says and how it ends.

#![expect(clippy::unwrap_used, reason = "a failed step fails the test")]

#[path = "node/agent.rs"]
#[expect(dead_code, reason = "most of it is for the tests of the wiring")]
mod agent;
#[path = "datapath/scene.rs"]
#[expect(dead_code, reason = "most of it is for the tests of the datapath")]
mod scene;

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    path::Path,
    process::{Child, Command, Output, Stdio},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use scene::{Scene, eventually, privileged};

fn binary() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_clusterlink-agent"));
    command.env_remove("NODE_NAME").stdin(Stdio::null());
    command
}

fn errors(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn wrong_flags_are_all_named_and_end_with_two() {
    let output = binary()
        .args([
            "--certs",
            "/nonexistent",
            "--listen",
            "here",
            "--controller",
            "x",
        ])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2));
    let text = errors(&output);
    for flag in ["--certs", "--node-name", "--listen", "--controller"] {
        assert!(
            text.contains(&format!("clusterlink-agent: {flag}")),
            "{flag}: {text}"
        );
    }
    let output = binary().arg("--no-such-flag").output().unwrap();
    assert_eq!(output.status.code(), Some(2));
}

#[test]
fn cleanup_where_nothing_is_removes_nothing_and_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join("state");
    let output = binary()
        .args([
            "cleanup",
            "--admin",
            "/nonexistent/admin.sock",
            "--state-dir",
        ])
        .arg(&state)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", errors(&output));
    assert_eq!(output.stdout, b"nothing to remove\n");
    assert!(!state.exists());
}

#[test]
fn the_agent_has_no_kubernetes_client() {
    let output = Command::new(env!("CARGO"))
        .args([
            "tree",
            "--package",
            "clusterlink-agent",
            "--edges",
            "normal,build",
        ])
        .args(["--prefix", "none", "--offline", "--locked"])
        .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", errors(&output));
    let tree = String::from_utf8(output.stdout).unwrap();
    assert!(tree.starts_with("clusterlink-agent "), "{tree}");
    for line in tree.lines() {
        let name = line.split(' ').next().unwrap();
        let kubernetes = name.starts_with("kube") || name.starts_with("k8s");
        assert!(!kubernetes && name != "clusterlink-crds", "{line}");
    }
}

/// Child processes run this one alone; by itself it does nothing.
#[test]
fn plays_its_role_in_another_process() {
    scene::play_role();
}

struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn an_agent_without_a_controller_waits_and_stops_in_order_and_cleanup_takes_the_rest() {
    if !privileged() {
        return;
    }
    let scene = Scene::new();
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    std::fs::create_dir(path("certs")).unwrap();
    agent::issue(&path("certs"));
    let dirs = |command: &mut Command| {
        command
            .arg("--state-dir")
            .arg(path("state"))
            .arg("--admin")
            .arg(path("admin.sock"));
    };
    let mut command = binary();
    command
        .env("NODE_NAME", "n1")
        .args(["--listen", "127.0.0.1:0", "--metrics", "127.0.0.1:9477"])
        .args(["--gateway-address", "169.254.77.3"])
        .arg("--certs")
        .arg(path("certs"))
        .arg("--cgroup")
        .arg(&scene.cgroup)
        .arg("--bpf-dir")
        .arg(&scene.bpf_dir);
    dirs(&mut command);
    let mut running = Running(command.stderr(Stdio::null()).spawn().unwrap());
    let text = eventually("it answers", || {
        assert_eq!(running.0.try_wait().unwrap(), None, "it ended");
        let mut stream = TcpStream::connect("127.0.0.1:9477").ok()?;
        write!(
            stream,
            "GET /readyz HTTP/1.1\r\nhost: t\r\nconnection: close\r\n\r\n"
        )
        .unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        Some(text)
    });
    assert!(text.starts_with("HTTP/1.1 503"), "{text}");
    assert!(text.contains("the first complete snapshot"), "{text}");
    let mut cleanup = binary();
    cleanup.arg("cleanup");
    dirs(&mut cleanup);
    let refused = cleanup.output().unwrap();
    assert_eq!(refused.status.code(), Some(1));
    assert!(
        errors(&refused).contains(&running.0.id().to_string()),
        "it names the process"
    );

    kill(
        Pid::from_raw(running.0.id().try_into().unwrap()),
        Signal::SIGTERM,
    )
    .unwrap();
    assert!(running.0.wait().unwrap().success());
    assert!(scene.bpf_dir.exists(), "pins are left to the next agent");
    let output = cleanup.output().unwrap();
    assert!(output.status.success(), "{}", errors(&output));
    let said = String::from_utf8(output.stdout).unwrap();
    for what in ["program link", "map", "address 169.254.77.3 on lo"] {
        assert!(said.contains(&format!("removed {what}")), "{what}: {said}");
    }
    assert!(!scene.bpf_dir.exists());
}
