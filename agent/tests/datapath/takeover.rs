//! One process takes over from another: the links stay, and nothing goes by them meanwhile.

use std::{
    collections::BTreeMap,
    net::TcpListener,
    path::Path,
    process::Command,
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    thread,
};

use clusterlink_agent::datapath::Datapath;

use super::{REFUSED, at, scene};

/// How often the programs are replaced under the client's connects.
const TAKEOVERS: usize = 20;

/// The links that are pinned with the numbers of link and program.
fn links(pins: &Path) -> BTreeMap<String, (u64, u64)> {
    let pins = std::fs::read_dir(pins.join("links")).unwrap();
    pins.map(|pin| {
        let pin = pin.unwrap();
        let output = Command::new("bpftool")
            .args(["--json", "link", "show", "pinned"])
            .arg(pin.path())
            .output()
            .unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let link: serde_json::Value = serde_json::from_str(&text).unwrap();
        let number = |key: &str| {
            link[key]
                .as_u64()
                .unwrap_or_else(|| panic!("no {key} in {text}"))
        };
        let name = pin.file_name().into_string().unwrap();
        (name, (number("id"), number("prog_id")))
    })
    .collect()
}

#[test]
fn a_successor_replaces_the_programs_of_the_same_links() {
    if !scene::privileged() {
        return;
    }
    let scene = scene::Scene::new();
    drop(scene.start());
    let before = links(&scene.pins());
    assert!(before.len() >= clusterlink_ebpf_common::programs::ALL.len());
    let datapath = scene.start();
    let after = links(&scene.pins());
    let names = |links: &BTreeMap<_, _>| links.keys().cloned().collect::<Vec<String>>();
    assert_eq!(names(&before), names(&after));
    for (name, (link, program)) in &before {
        assert_eq!(*link, after[name].0, "{name} was attached anew");
        assert_ne!(*program, after[name].1, "{name} has its program of before");
    }
    datapath.remove().unwrap();
}

#[test]
fn no_connect_goes_by_while_one_process_takes_over_from_another() {
    if !scene::privileged() {
        return;
    }
    const DENIED: &str = "10.114.0.20:80";
    let scene = scene::Scene::new();
    scene::ip("addr add 10.114.0.20/32 dev lo");
    let decoy = TcpListener::bind(DENIED).unwrap();
    decoy.set_nonblocking(true).unwrap();
    let mut datapath = scene.start();
    datapath.set_service(at(DENIED), 3).unwrap();
    let mut client = scene.client("pod");
    let done = AtomicBool::new(false);
    let (answers, datapath) = thread::scope(|scope| {
        let connects = scope.spawn(|| {
            let mut answers = BTreeMap::new();
            while !done.load(Relaxed) {
                let answer = client.tell(&format!("connect {DENIED}"));
                *answers.entry(answer).or_insert(0_u32) += 1;
            }
            answers
        });
        for _ in 0..TAKEOVERS {
            // As a process that is killed leaves it.
            drop(datapath);
            datapath = scene.start();
        }
        done.store(true, Relaxed);
        (connects.join().unwrap(), datapath)
    });
    assert!(decoy.accept().is_err(), "the decoy was connected to");
    let refused = answers.get(REFUSED).copied().unwrap_or_default();
    assert!(answers.len() == 1 && refused > 100, "{answers:?}");
    println!("{refused} connects during {TAKEOVERS} takeovers were refused");

    datapath.remove().unwrap();
    // The kernel detaches a program some time after its last link is gone.
    scene::eventually("without programs the decoy is what is reached", || {
        (client.tell(&format!("connect {DENIED}")) == format!("peer {DENIED}")).then_some(())
    });
}
