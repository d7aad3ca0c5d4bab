use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::{PermissionsExt, symlink},
    path::Path,
};

use clusterlink_crds::{AccessPolicy, Import, PolicyAction};
use futures::StreamExt;
use kube::{ResourceExt, runtime::watcher::Event};
use tempfile::TempDir;

use super::*;

/// How soon a change must be in force; more than the promised second only for busy test machines.
const SOON: Duration = Duration::from_secs(5);

fn import(name: &str, port: u16) -> String {
    format!(
        "apiVersion: clusterlink.net/v1alpha1\nkind: Import\nmetadata:\n  name: {name}\nspec:\n  port: {port}\n  sources: []\n"
    )
}

fn policy(name: &str, action: &str) -> String {
    format!(
        "apiVersion: clusterlink.net/v1alpha1\nkind: AccessPolicy\nmetadata:\n  name: {name}\nspec:\n  action: {action}\n  from: [{{workloadSelector: {{}}}}]\n  to: [{{workloadSelector: {{}}}}]\n"
    )
}

/// A running source over a temporary directory, with what its streams have said so far.
struct Scene {
    directory: TempDir,
    streams: Streams,
    problems: Problems,
    imports: BTreeMap<String, Import>,
    policies: BTreeMap<String, AccessPolicy>,
    ready: (bool, bool),
}

impl Scene {
    async fn start(files: &[(&str, &str)]) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        for (name, content) in files {
            fs::write(directory.path().join(name), content).expect("a file");
        }
        let root = directory.path().to_owned();
        Self::over(directory, &root).await
    }

    async fn over(directory: TempDir, root: &Path) -> Self {
        let source = Directory::open(root)
            .expect("a directory")
            .largest_file(1 << 20);
        let (streams, problems) = Box::new(source).start();
        let mut scene = Self {
            directory,
            streams,
            problems,
            imports: BTreeMap::new(),
            policies: BTreeMap::new(),
            ready: (false, false),
        };
        scene
            .until("the first reading is complete", |scene| {
                scene.ready == (true, true)
            })
            .await;
        scene
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn write(&self, name: &str, content: &str) {
        fs::write(self.path(name), content).expect("a file");
    }

    /// Follows the streams until `holds`.
    async fn until(&mut self, what: &str, holds: impl Fn(&Self) -> bool) {
        let deadline = Instant::now() + SOON;
        while !holds(self) {
            tokio::select! {
                Some(event) = self.streams.imports.next() => {
                    self.ready.0 |= matches!(event, Event::InitDone);
                    take(&mut self.imports, event);
                }
                Some(event) = self.streams.access_policies.next() => {
                    self.ready.1 |= matches!(event, Event::InitDone);
                    take(&mut self.policies, event);
                }
                changed = self.problems.changed() => changed.expect("the source runs"),
                () = sleep_until(deadline) => {
                    panic!("not in time: {what}\nimports: {:?}\nproblems: {:#?}", self.ports(), self.problems.borrow())
                }
            }
        }
    }

    fn ports(&self) -> Vec<(&str, u16)> {
        self.imports
            .iter()
            .map(|(name, import)| (name.as_str(), import.spec.port))
            .collect()
    }

    async fn until_ports(&mut self, ports: &[(&str, u16)]) {
        self.until(&format!("imports are {ports:?}"), |scene| {
            scene.ports() == ports
        })
        .await;
    }

    /// Waits for a problem whose text has `needle` in it.
    async fn until_problem(&mut self, needle: &str) -> Problem {
        let find = |scene: &Self| {
            let problems = scene.problems.borrow();
            problems
                .iter()
                .find(|problem| problem.to_string().contains(needle))
                .cloned()
        };
        self.until(&format!("a problem with {needle:?}"), |scene| {
            find(scene).is_some()
        })
        .await;
        find(self).expect("it was there a moment ago")
    }

    async fn until_well(&mut self) {
        self.until("no problem is left", |scene| {
            scene.problems.borrow().is_empty()
        })
        .await;
    }
}

fn take<K: ResourceExt>(objects: &mut BTreeMap<String, K>, event: Event<K>) {
    match event {
        Event::Init => objects.clear(),
        Event::InitDone => {}
        Event::InitApply(object) | Event::Apply(object) => {
            objects.insert(object.name_any(), object);
        }
        Event::Delete(object) => {
            objects.remove(&object.name_any());
        }
    }
}

#[tokio::test]
async fn changes_are_seen_however_they_are_made() {
    let mut scene = Scene::start(&[("a.yaml", &import("a", 1))]).await;
    assert_eq!(scene.ports(), [("a", 1)]);
    assert_eq!(scene.imports["a"].namespace().as_deref(), Some("default"));

    scene.write("a.yaml", &import("a", 2));
    scene.until_ports(&[("a", 2)]).await;
    assert_eq!(scene.imports["a"].metadata.generation, Some(2));

    scene.write("a.tmp", &import("a", 3));
    fs::rename(scene.path("a.tmp"), scene.path("a.yaml")).expect("a rename");
    scene.until_ports(&[("a", 3)]).await;

    fs::create_dir(scene.path("more")).expect("a directory");
    scene.write("more/b.yml", &import("b", 4));
    scene.until_ports(&[("a", 3), ("b", 4)]).await;
    scene.write("more/b.yml", &import("b", 5));
    scene.until_ports(&[("a", 3), ("b", 5)]).await;

    fs::remove_file(scene.path("a.yaml")).expect("a file");
    scene.until_ports(&[("b", 5)]).await;
    fs::rename(scene.path("more"), scene.path("less")).expect("a rename");
    scene.write("less/c.yaml", &import("c", 6));
    scene.until_ports(&[("b", 5), ("c", 6)]).await;
    fs::remove_dir_all(scene.path("less")).expect("a directory");
    scene.until_ports(&[]).await;
    scene.until_well().await;
}

#[tokio::test]
async fn a_mounted_config_map_is_followed_when_its_link_is_swapped() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let root = directory.path().join("mount");
    let version = |name: &str, port| {
        fs::create_dir_all(root.join(name)).expect("a directory");
        fs::write(root.join(name).join("a.yaml"), import("a", port)).expect("a file");
    };
    version("..one", 1);
    symlink("..one", root.join("..data")).expect("a link");
    symlink("..data/a.yaml", root.join("a.yaml")).expect("a link");
    let mut scene = Scene::over(directory, &root).await;
    assert_eq!(scene.ports(), [("a", 1)]);
    assert!(
        scene.problems.borrow().is_empty(),
        "hidden directories are not read"
    );
    version("..two", 2);
    symlink("..two", root.join("..data_tmp")).expect("a link");
    fs::rename(root.join("..data_tmp"), root.join("..data")).expect("a rename");
    scene.until_ports(&[("a", 2)]).await;
    fs::write(root.join("..two/a.yaml"), import("a", 3)).expect("a file");
    scene.until_ports(&[("a", 3)]).await;
}

#[tokio::test]
async fn the_directory_itself_may_be_a_link_that_is_swapped() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    for (name, port) in [("one", 1), ("two", 2)] {
        fs::create_dir(directory.path().join(name)).expect("a directory");
        fs::write(
            directory.path().join(name).join("a.yaml"),
            import("a", port),
        )
        .expect("a file");
    }
    let root = directory.path().join("current");
    symlink("one", &root).expect("a link");
    let mut scene = Scene::over(directory, &root).await;
    assert_eq!(scene.ports(), [("a", 1)]);
    symlink("two", scene.path("next")).expect("a link");
    fs::rename(scene.path("next"), &root).expect("a rename");
    scene.until_ports(&[("a", 2)]).await;
    fs::remove_file(&root).expect("a link");
    let problem = scene
        .until_problem("manifest directory cannot be read")
        .await;
    assert!(problem.stale);
    assert_eq!(scene.ports(), [("a", 2)], "what was read stays in force");
    symlink("one", &root).expect("a link");
    scene.until_ports(&[("a", 1)]).await;
    scene.until_well().await;
}

#[tokio::test]
async fn a_broken_document_leaves_the_last_good_content_in_force() {
    let all = |middle: &str| format!("{}---\n{middle}---\n{}", import("a", 1), import("c", 3));
    let mut scene = Scene::start(&[("m.yaml", &all(&import("b", 2)))]).await;
    assert_eq!(scene.ports(), [("a", 1), ("b", 2), ("c", 3)]);

    scene.write(
        "m.yaml",
        &all(&import("b", 2).replace("port: 2", "port: 0")),
    );
    let problem = scene.until_problem("spec.port").await;
    assert_eq!(
        (problem.place.document, problem.place.line),
        (Some(2), Some(14))
    );
    assert_eq!(
        (problem.object.as_deref(), problem.stale),
        (Some("default/b"), true)
    );
    assert_eq!(scene.ports(), [("a", 1), ("b", 2), ("c", 3)]);

    let broken = all("kind: Import\n metadata: {\n").replace("port: 3", "port: 4");
    scene.write("m.yaml", &broken);
    scene.until_ports(&[("a", 1), ("b", 2), ("c", 4)]).await;
    let problem = scene.until_problem("may be what cannot be read here").await;
    assert_eq!(
        (problem.object.as_deref(), problem.stale),
        (Some("default/b"), true)
    );

    scene.write("m.yaml", &all("# nothing\n"));
    scene.until_ports(&[("a", 1), ("c", 4)]).await;
    scene.until_ports(&[("a", 1), ("c", 3)]).await;
    scene.until_well().await;
}

#[tokio::test]
async fn an_invalid_policy_is_never_wider_than_it_was() {
    let mut scene = Scene::start(&[
        ("allow.yaml", &policy("open", "allow")),
        ("deny.yaml", &policy("shut", "deny")),
    ])
    .await;
    assert_eq!(scene.policies.len(), 2);
    scene.write("deny.yaml", &policy("shut", "alow"));
    let problem = scene.until_problem("stays in force").await;
    assert!(problem.stale);
    scene.write(
        "allow.yaml",
        &policy("open", "allow").replace("workloadSelector", "workload"),
    );
    let problem = scene.until_problem("the allow is withdrawn").await;
    assert!(!problem.stale);
    scene
        .until("only the deny is left", |scene| scene.policies.len() == 1)
        .await;
    assert_eq!(scene.policies["shut"].spec.action, PolicyAction::Deny);

    scene.write("allow.yaml", &policy("open", "allow"));
    scene
        .until("the allow is back", |scene| scene.policies.len() == 2)
        .await;
    scene.write("allow.yaml", "{ not: [yaml\n");
    scene
        .until("an unreadable document withdraws it", |scene| {
            scene.policies.len() == 1
        })
        .await;
    scene.write("deny.yaml", "\0\0");
    scene.until_problem("deny.yaml").await;
    assert_eq!(scene.policies.len(), 1);
}

#[tokio::test]
async fn of_two_documents_for_one_object_the_first_counts() {
    let mut scene = Scene::start(&[
        ("a.yaml", &import("x", 1)),
        (
            "b.yaml",
            &format!("{}---\n{}", import("x", 2), import("x", 3)),
        ),
    ])
    .await;
    assert_eq!(scene.ports(), [("x", 1)]);
    let problem = scene.until_problem("is given already at").await;
    assert!(problem.place.file.ends_with("b.yaml"), "{problem}");
    scene.until_problem("a.yaml:1 (document 1)").await;
    fs::remove_file(scene.path("a.yaml")).expect("a file");
    scene.until_ports(&[("x", 2)]).await;
    scene.write("b.yaml", &import("x", 3));
    scene.until_ports(&[("x", 3)]).await;
    scene.until_well().await;
}

#[tokio::test]
async fn files_that_cannot_be_read_are_told_and_disturb_nothing() {
    let mut scene = Scene::start(&[("a.yaml", &import("a", 1)), ("b.yaml", &import("b", 2))]).await;
    fs::write(scene.path("c.yaml"), b"kind: \xff\xfe\n").expect("a file");
    scene
        .until_problem("is not UTF-8 text (first wrong byte on line 1)")
        .await;
    symlink("nowhere", scene.path("d.yaml")).expect("a link");
    scene.until_problem("the link leads nowhere").await;
    scene.write("e.yaml", &"#".repeat((1 << 20) + 1));
    scene
        .until_problem("has 1048577 bytes, which is more than the 1048576 bytes")
        .await;
    make_fifo(&scene.path("f.yaml"));
    scene.until_problem("is no regular file").await;
    symlink(".", scene.path("loop")).expect("a link");
    scene.write("a.yaml", &import("a", 3));
    scene.until_ports(&[("a", 3), ("b", 2)]).await;
    scene.write("b.yaml", &"#".repeat((1 << 20) + 1));
    let problem = scene.until_problem("default/b").await;
    assert!(problem.stale, "{problem}");
    assert_eq!(scene.ports(), [("a", 3), ("b", 2)]);
    for name in ["c.yaml", "d.yaml", "e.yaml", "f.yaml", "b.yaml"] {
        fs::remove_file(scene.path(name)).expect("a file");
    }
    scene.until_ports(&[("a", 3)]).await;
    scene.until_well().await;
}

#[tokio::test]
async fn a_file_without_permission_is_read_once_it_is_given() {
    let mut scene = Scene::start(&[("a.yaml", &import("a", 1))]).await;
    let set = |mode| fs::set_permissions(scene.path("a.yaml"), fs::Permissions::from_mode(mode));
    set(0o000).expect("permissions");
    if fs::read(scene.path("a.yaml")).is_ok() {
        eprintln!(
            "root reads every file: only that a change of permissions harms nothing is shown"
        );
    } else {
        scene.until_problem("cannot be read").await;
        assert_eq!(scene.ports(), [("a", 1)]);
    }
    let set = |mode| fs::set_permissions(scene.path("a.yaml"), fs::Permissions::from_mode(mode));
    set(0o644).expect("permissions");
    scene.until_well().await;
    assert_eq!(scene.ports(), [("a", 1)]);
}

#[test]
fn a_directory_that_is_not_there_is_an_error() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let missing = Directory::open(directory.path().join("none")).expect_err("it is missing");
    assert!(
        missing.to_string().contains("does not exist: create it"),
        "{missing}"
    );
    let file = directory.path().join("file");
    fs::write(&file, "").expect("a file");
    let wrong = Directory::open(&file).expect_err("it is a file");
    assert!(wrong.to_string().contains("is not a directory"), "{wrong}");
}

#[tokio::test]
async fn ten_thousand_imports_are_read_fast_and_one_change_faster() {
    let all = |port: u16| -> String {
        let one = |n: u16| {
            format!(
                "{}---\n",
                import(&format!("i{n}"), if n == 5000 { port } else { 80 })
            )
        };
        (0..10_000).map(one).collect()
    };
    let text = all(80);
    let before = std::time::Instant::now();
    let mut memory = manifest::Memory::default();
    let items = manifest::read(Path::new("m.yaml"), &text, &mut memory);
    println!(
        "10,000 documents ({} bytes) read in {:?}",
        text.len(),
        before.elapsed()
    );
    assert_eq!(items.len(), 10_000);
    let changed = all(81);
    let before = std::time::Instant::now();
    manifest::read(Path::new("m.yaml"), &changed, &mut memory);
    println!("read again with one change in {:?}", before.elapsed());

    let directory = tempfile::tempdir().expect("a temporary directory");
    fs::write(directory.path().join("m.yaml"), &text).expect("a file");
    let mut reader = Reader::new(directory.path().to_owned(), LARGEST_FILE, None);
    let before = std::time::Instant::now();
    assert_eq!(reader.look().changes.len(), 10_000);
    println!("first look in {:?}", before.elapsed());
    fs::write(directory.path().join("m.yaml"), &changed).expect("a file");
    let before = std::time::Instant::now();
    assert_eq!(reader.look().changes.len(), 1);
    println!("look after one change in {:?}", before.elapsed());
}

fn make_fifo(path: &Path) {
    let made = std::process::Command::new("mkfifo")
        .arg(path)
        .status()
        .expect("mkfifo runs");
    assert!(made.success());
}
