use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use proptest::prelude::*;

use super::*;
use crate::datapath::cgroup_id;

const UID: &str = "0f1e2d3c-4b5a-6978-8796-a5b4c3d2e1f0";
const OTHER: &str = "0f1e2d3c-4b5a-6978-8796-a5b4c3d2e1f1";
const HASH: &str = "2fc8e9b1c5a04d6f8e7a9b0c1d2e3f40";
const CONTAINER: &str = "5d0e8a61c2f94b7d";

/// The pod that a path belongs to: the first one from the top.
fn pod_of(path: &str) -> Option<PodDirectory> {
    let mut place = Place::Elsewhere;
    for name in path.split('/') {
        place = place.below(name);
    }
    match place {
        Place::Pod(pod) => Some(pod),
        Place::Elsewhere | Place::Above { .. } => None,
    }
}

/// Paths below the cgroup v2 root as nodes have them, with the UID of the pod that they are of.
fn layouts() -> Vec<(&'static str, String, &'static str)> {
    let escaped = UID.replace('-', "_");
    vec![
        (
            "systemd driver, burstable, containerd",
            format!(
                "kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{escaped}.slice/cri-containerd-{CONTAINER}.scope"
            ),
            UID,
        ),
        (
            "systemd driver, best effort, CRI-O",
            format!(
                "kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod{escaped}.slice/crio-{CONTAINER}.scope/container"
            ),
            UID,
        ),
        (
            "systemd driver, CRI-O's monitor",
            format!(
                "kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod{escaped}.slice/crio-conmon-{CONTAINER}.scope"
            ),
            UID,
        ),
        (
            "systemd driver, guaranteed",
            format!("kubepods.slice/kubepods-pod{escaped}.slice/cri-containerd-{CONTAINER}.scope"),
            UID,
        ),
        (
            "systemd driver, cri-dockerd",
            format!(
                "kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{escaped}.slice/docker-{CONTAINER}.scope"
            ),
            UID,
        ),
        (
            "systemd driver, static pod",
            format!("kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{HASH}.slice"),
            HASH,
        ),
        (
            "cgroupfs driver, burstable, containerd",
            format!("kubepods/burstable/pod{UID}/{CONTAINER}"),
            UID,
        ),
        (
            "cgroupfs driver, best effort, CRI-O",
            format!("kubepods/besteffort/pod{UID}/crio-{CONTAINER}"),
            UID,
        ),
        (
            "cgroupfs driver, guaranteed",
            format!("kubepods/pod{UID}"),
            UID,
        ),
        (
            "cgroupfs driver, static pod",
            format!("kubepods/burstable/pod{HASH}/{CONTAINER}"),
            HASH,
        ),
        (
            "kind, systemd driver, seen from the node",
            format!(
                "kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-burstable.slice/kubelet-kubepods-burstable-pod{escaped}.slice/cri-containerd-{CONTAINER}.scope"
            ),
            UID,
        ),
        (
            "kind, systemd driver, guaranteed, seen from the host",
            format!(
                "system.slice/docker-{CONTAINER}.scope/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-pod{escaped}.slice"
            ),
            UID,
        ),
        (
            "kind, cgroupfs driver, seen from the host",
            format!("docker/{CONTAINER}/kubelet/kubepods/burstable/pod{UID}/{CONTAINER}"),
            UID,
        ),
        (
            "rootless kind",
            format!(
                "user.slice/user-1000.slice/user@1000.service/user.slice/libpod-{CONTAINER}.scope/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-besteffort.slice/kubelet-kubepods-besteffort-pod{escaped}.slice"
            ),
            UID,
        ),
        (
            "Kubernetes in a pod: what is in there is that pod",
            format!(
                "kubepods/burstable/pod{UID}/{CONTAINER}/kubelet/kubepods/burstable/pod{OTHER}/{CONTAINER}"
            ),
            UID,
        ),
    ]
}

#[test]
fn pods_are_found_in_every_layout_of_the_field() {
    for (layout, path, uid) in layouts() {
        let pod = pod_of(&path).unwrap_or_else(|| panic!("{layout}: {path}"));
        assert!(pod.is_of(uid), "{layout}: {pod:?}");
        assert!(!pod.is_of(OTHER), "{layout}");
    }
}

#[test]
fn nothing_else_passes_for_a_pod() {
    let escaped = UID.replace('-', "_");
    for (what, path) in [
        ("the cgroup root", String::new()),
        ("a unit", "system.slice/kubelet.service".to_owned()),
        ("the root of pods", "kubepods.slice".to_owned()),
        (
            "a class of service",
            "kubepods.slice/kubepods-burstable.slice".to_owned(),
        ),
        ("a pod's name elsewhere", format!("system.slice/pod{UID}")),
        (
            "a slice that does not repeat the name of the one above",
            format!("kubepods.slice/kubepods-burstable.slice/kubepods-pod{escaped}.slice"),
        ),
        (
            "a slice of another root",
            format!("a-kubepods.slice/b-kubepods-pod{escaped}.slice"),
        ),
        ("a pod without a UID", "kubepods/burstable/pod".to_owned()),
        (
            "a unit whose name ends alike",
            "mykubepods.slice/mykubepods-pod1.slice".to_owned(),
        ),
        (
            "a class within a class",
            format!("kubepods/burstable/besteffort/pod{UID}"),
        ),
    ] {
        assert_eq!(pod_of(&path), None, "{what}");
    }
}

#[test]
fn underscores_stand_for_dashes_in_slices_only() {
    let slice = pod_of("kubepods.slice/kubepods-poda_b.slice").unwrap();
    assert!(slice.is_of("a-b") && slice.is_of("a_b"));
    let plain = pod_of("kubepods/poda_b").unwrap();
    assert!(!plain.is_of("a-b") && plain.is_of("a_b"));
}

fn uids(uid: &str) -> [Arc<str>; 1] {
    [uid.into()]
}

fn make(top: &Path, path: &str) -> u64 {
    fs::create_dir_all(top.join(path)).unwrap();
    cgroup_id(&top.join(path)).unwrap()
}

#[test]
fn every_layout_is_found_where_it_is_and_at_once() {
    for (layout, path, uid) in layouts() {
        let dir = tempfile::tempdir().unwrap();
        let start = Instant::now();
        let mut tree = PodTree::open(dir.path(), start);
        assert!(tree.of(&uids(uid)).is_empty());
        make(dir.path(), &path);
        // The root is new, so that it takes a search to find it; what is below tells of itself.
        assert!(tree.poll(start + Duration::from_secs(1)), "{layout}");
        let found = tree.of(&uids(uid));
        assert_eq!(found.len(), 1, "{layout}");
        let pod = (Path::new(&path).ancestors())
            .find(|path| {
                path.to_str().and_then(pod_of).is_some()
                    && path
                        .parent()
                        .and_then(Path::to_str)
                        .and_then(pod_of)
                        .is_none()
            })
            .unwrap();
        let id = cgroup_id(&dir.path().join(pod)).unwrap();
        assert_eq!(found, [id].into(), "{layout}");
        let sibling = pod.with_file_name(
            (pod.file_name().unwrap().to_str().unwrap())
                .replace("e1f0", "e1f1")
                .replace("f40", "f41"),
        );
        let id = make(dir.path(), sibling.to_str().unwrap());
        assert!(
            tree.poll(start + Duration::from_secs(1)),
            "{layout}: notified"
        );
        assert!(tree.pods().any(|pod| pod == id), "{layout}");
        fs::remove_dir(dir.path().join(&sibling)).unwrap();
        assert!(
            tree.poll(start + Duration::from_secs(1)),
            "{layout}: notified"
        );
        assert!(tree.pods().all(|pod| pod != id), "{layout}");
    }
}

#[test]
fn a_directory_that_is_made_anew_is_another_one() {
    let dir = tempfile::tempdir().unwrap();
    let now = Instant::now();
    let class = "kubepods/burstable";
    make(dir.path(), class);
    let mut tree = PodTree::open(dir.path(), now);
    let above: Vec<u64> = tree.above().collect();
    let pod = format!("{class}/pod{UID}");
    let first = make(dir.path(), &pod);
    assert!(tree.poll(now));
    assert_eq!(tree.of(&uids(UID)), [first].into());
    // A sibling takes the number of the directory that goes, where the file system gives it again.
    fs::rename(dir.path().join("kubepods"), dir.path().join("old")).unwrap();
    let second = make(dir.path(), &pod);
    tree.poll(now + Duration::from_secs(10));
    assert_eq!(tree.of(&uids(UID)), [second].into());
    assert!(tree.above().all(|id| !above.contains(&id)));
    fs::remove_dir_all(dir.path().join("kubepods")).unwrap();
    assert!(tree.poll(now + Duration::from_secs(10)));
    assert_eq!((tree.above().count(), tree.pods().count()), (0, 0));
}

#[test]
fn a_pod_of_two_kubelets_has_both_directories() {
    let dir = tempfile::tempdir().unwrap();
    let one = make(dir.path(), &format!("kubepods/pod{UID}"));
    let escaped = UID.replace('-', "_");
    let two = make(
        dir.path(),
        &format!("kubepods.slice/kubepods-pod{escaped}.slice"),
    );
    let tree = PodTree::open(dir.path(), Instant::now());
    assert_eq!(tree.of(&uids(UID)), [one, two].into());
    let both: [Arc<str>; 2] = [UID.into(), HASH.into()];
    assert_eq!(
        tree.of(&both),
        [one, two].into(),
        "the mirror of a static pod"
    );
}

/// A few UIDs that are easily confused.
const NAMES: [&str; 5] = ["a-b", "a_b", "a", "a-b-c", "ab"];
const PARENTS: [(&str, &str, bool); 5] = [
    ("kubepods", "pod", false),
    ("kubepods/burstable", "pod", false),
    ("kubepods.slice", "kubepods-pod", true),
    (
        "kubepods.slice/kubepods-besteffort.slice",
        "kubepods-besteffort-pod",
        true,
    ),
    (
        "x/kubelet.slice/kubelet-kubepods.slice",
        "kubelet-kubepods-pod",
        true,
    ),
];

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn a_uid_never_leads_to_the_directory_of_another_pod(
        steps in proptest::collection::vec((0..NAMES.len(), 0..PARENTS.len(), any::<bool>()), 1..20),
    ) {
        let dir = tempfile::tempdir().unwrap();
        let mut now = Instant::now();
        let mut tree = PodTree::open(dir.path(), now);
        let mut there: BTreeMap<String, u64> = BTreeMap::new();
        for (name, parent, present) in steps {
            let (parent, prefix, slices) = PARENTS[parent];
            let path = if slices {
                format!("{parent}/{prefix}{}.slice", escape(NAMES[name]))
            } else {
                format!("{parent}/{prefix}{}", NAMES[name])
            };
            if present {
                let id = make(dir.path(), &path);
                there.insert(path, id);
            } else if there.remove(&path).is_some() {
                fs::remove_dir(dir.path().join(&path)).unwrap();
            }
            now += Duration::from_secs(11);
            tree.poll(now);
            for uid in NAMES {
                let expected: BTreeSet<u64> = there.iter()
                    .filter(|(path, _)| {
                        let name = path.rsplit('/').next().unwrap();
                        match name.strip_suffix(".slice") {
                            Some(body) => body.ends_with(&format!("-pod{}", escape(uid))),
                            None => name == format!("pod{uid}"),
                        }
                    })
                    .map(|(_, id)| *id)
                    .collect();
                prop_assert_eq!(tree.of(&uids(uid)), expected, "{}", uid);
            }
        }
    }
}
