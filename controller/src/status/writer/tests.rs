//! The writer as a whole, at a simulated time, against an API server that only stores.

use std::{
    collections::BTreeMap,
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use clusterlink_crds::{
    Export, ExportSpec, Import, ImportSpec, Peer, PeerSpec,
    conditions::{EXPORT_VALID, IMPORT_TARGET_PORT_VALID, reasons},
};
use clusterlink_model::ObjectName;
use clusterlink_proto::{NodeReport, PeerReport};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::Value;

use super::*;
use crate::{
    agents::AgentStatus,
    status::{ExportStatus, Finding, ImportStatus, PeerObjectStatus, dated},
};

/// Stores statuses, and gives them back as the watch would.
struct Store {
    status: Arc<SharedStatus>,
    bodies: Mutex<Vec<(Key, Value)>>,
    refusing: Mutex<Option<WriteError>>,
    echoes: AtomicBool,
    version: AtomicU64,
    /// What is found out about objects, to be judged again when they change.
    judged: Mutex<BTreeMap<Key, Judged>>,
}

#[derive(Clone)]
enum Judged {
    Export(Export, ExportStatus),
    Import(Import, ImportStatus),
    Peer(Peer, PeerObjectStatus),
}

impl Judged {
    fn metadata(&mut self) -> &mut ObjectMeta {
        match self {
            Self::Export(object, _) => &mut object.metadata,
            Self::Import(object, _) => &mut object.metadata,
            Self::Peer(object, _) => &mut object.metadata,
        }
    }
}

impl Store {
    fn show(&self, key: &Key) {
        let mut all = self.judged.lock().unwrap();
        if let Some(judged) = all.get_mut(key) {
            let version = self.version.fetch_add(1, Ordering::Relaxed).to_string();
            judged.metadata().resource_version = Some(version);
        }
        let judged = all.get(key).cloned();
        drop(all);
        let mut board = self.status.lock();
        let name = key.name().clone();
        match judged {
            Some(Judged::Export(object, status)) => {
                board.export(name, Some((status, &Arc::new(object))));
            }
            Some(Judged::Import(object, status)) => {
                board.import(name, Some((status, &Arc::new(object))));
            }
            Some(Judged::Peer(object, status)) => {
                board.peer(name, Some((status, &Arc::new(object))));
            }
            None => match key {
                Key::Export(_) => board.export(name, None),
                Key::Import(_) => board.import(name, None),
                Key::Peer(_) | Key::AccessPolicy(_) | Key::PrivilegedAccessPolicy(_) => {
                    board.peer(name, None);
                }
            },
        }
        drop(board);
        self.status.settled();
    }
}

impl Sink for Store {
    async fn apply(&self, key: &Key, body: Value) -> Result<(), WriteError> {
        tokio::time::sleep(Duration::from_millis(5)).await;
        self.bodies
            .lock()
            .unwrap()
            .push((key.clone(), body.clone()));
        if let Some(error) = self.refusing.lock().unwrap().clone() {
            return Err(error);
        }
        if !self.echoes.load(Ordering::Relaxed) {
            return Ok(());
        }
        if let Some(judged) = self.judged.lock().unwrap().get_mut(key) {
            let status = body["status"].clone();
            match judged {
                Judged::Export(object, _) => {
                    object.status = serde_json::from_value(status).unwrap();
                }
                Judged::Import(object, _) => {
                    object.status = serde_json::from_value(status).unwrap();
                }
                Judged::Peer(object, _) => object.status = serde_json::from_value(status).unwrap(),
            }
        }
        self.show(key);
        Ok(())
    }
}

#[derive(Clone, Default)]
struct Heard(Arc<Mutex<Vec<Happening>>>);

impl Teller for Heard {
    fn tell(&self, happening: Happening) {
        self.0.lock().unwrap().push(happening);
    }
}

struct Scene {
    store: Arc<Store>,
    agents: Agents,
    leads: watch::Sender<Leadership>,
    heard: Heard,
    writes: Writes,
    stop: CancellationToken,
}

impl Scene {
    fn start() -> Self {
        let status = Arc::new(SharedStatus::default());
        status.lock().news.begin();
        let store = Arc::new(Store {
            status: Arc::clone(&status),
            bodies: Mutex::default(),
            refusing: Mutex::default(),
            echoes: AtomicBool::new(true),
            version: AtomicU64::new(17),
            judged: Mutex::default(),
        });
        let leads = watch::Sender::new(Leadership {
            leading: true,
            holder: None,
        });
        let scene = Self {
            store: Arc::clone(&store),
            agents: Agents::default(),
            leads,
            heard: Heard::default(),
            writes: Writes::default(),
            stop: CancellationToken::new(),
        };
        let writer = Writer::new(Parts {
            status,
            agents: scene.agents.clone(),
            leadership: scene.leads.subscribe(),
            system_namespace: "clusterlink-system".to_owned(),
            sink: store,
            teller: scene.heard.clone(),
            writes: scene.writes.clone(),
        });
        tokio::spawn(writer.run(scene.stop.clone()));
        scene
    }

    fn put(&self, key: &Key, judged: Judged) {
        self.store
            .judged
            .lock()
            .unwrap()
            .insert(key.clone(), judged);
        self.store.show(key);
    }

    fn export(&self, number: usize, holds: bool) {
        let name = ObjectName::new("shop", format!("web-{number}"));
        let key = Key::Export(name.clone());
        let before = self.store.judged.lock().unwrap().get(&key).cloned();
        let object = match before {
            Some(Judged::Export(object, _)) => object,
            _ => Export::new(
                &name.name,
                ExportSpec {
                    host: None,
                    port: 80,
                },
            ),
        };
        self.put(&key, Judged::Export(object, export_status(name, holds)));
    }

    fn lead(&self, leading: bool) {
        self.leads.send_replace(Leadership {
            leading,
            holder: None,
        });
    }

    fn count(&self) -> usize {
        self.store.bodies.lock().unwrap().len()
    }

    fn last(&self) -> Value {
        self.store.bodies.lock().unwrap().last().unwrap().1.clone()
    }

    fn report(&self, node: &str, reachable: bool, rtt_ms: u64) {
        let report = NodeReport {
            peers: vec![PeerReport {
                name: "east".parse().unwrap(),
                reachable,
                rtt: reachable.then_some(Duration::from_millis(rtt_ms)),
                last_seen_ms: reachable
                    .then(|| u64::try_from(Timestamp::now().as_millisecond()).unwrap()),
                software: None,
                labels: Default::default(),
                error: None,
            }],
            ..NodeReport::default()
        };
        let agent = AgentStatus {
            pod: ObjectName::new("clusterlink-system", "agent"),
            report: Arc::new(report),
            let_go: Default::default(),
        };
        self.agents.set(&node.into(), Some(agent));
    }

    fn peer(&self) {
        let name = ObjectName::new("clusterlink-system", "east");
        let spec = PeerSpec {
            gateways: Vec::new(),
            labels: None,
            not_issued_before: None,
        };
        let status = PeerObjectStatus {
            name: name.clone(),
            peer: "east".parse().ok(),
            gateways: Vec::new(),
            labels: None,
            conditions: Vec::new(),
            stale: false,
        };
        self.put(
            &Key::Peer(name),
            Judged::Peer(Peer::new("east", spec), status),
        );
    }
}

fn export_status(name: ObjectName, holds: bool) -> ExportStatus {
    let finding = if holds {
        Finding::valid(EXPORT_VALID, "")
    } else {
        Finding::invalid(EXPORT_VALID, reasons::SERVICE_NOT_FOUND, "create it")
    };
    ExportStatus {
        host: name.name.to_string(),
        port: 80,
        backend: clusterlink_model::Backend::Unavailable("".into()),
        conditions: dated(vec![finding], &[], Timestamp::now(), Some(1)),
        name,
        stale: false,
    }
}

async fn pass(seconds: f64) {
    tokio::time::sleep(Duration::from_secs_f64(seconds)).await;
}

#[tokio::test(start_paused = true)]
async fn nothing_is_written_that_an_object_says_already() {
    let scene = Scene::start();
    for number in 0..50 {
        scene.export(number, true);
    }
    pass(30.0).await;
    assert_eq!(scene.count(), 50);
    // What was judged again, with the same result, is no reason to write, nor is a new leader.
    for number in 0..50 {
        scene.export(number, true);
    }
    scene.lead(false);
    pass(1.0).await;
    scene.lead(true);
    pass(120.0).await;
    assert_eq!(scene.count(), 50);
    assert!(scene.heard.0.lock().unwrap().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_condition_that_flaps_is_written_once_a_second_and_ends_right() {
    let scene = Scene::start();
    for flap in 0..200 {
        scene.export(1, flap % 2 == 0);
        pass(0.05).await;
    }
    scene.export(1, false);
    pass(5.0).await;
    assert!((5..=13).contains(&scene.count()), "{}", scene.count());
    assert_eq!(scene.last()["status"]["conditions"][0]["status"], "False");
}

#[tokio::test(start_paused = true)]
async fn who_does_not_lead_writes_nothing_and_begins_when_it_does() {
    let scene = Scene::start();
    scene.lead(false);
    pass(0.1).await;
    scene.export(1, false);
    pass(60.0).await;
    assert_eq!(scene.count(), 0);
    scene.lead(true);
    pass(1.0).await;
    assert_eq!(scene.count(), 1);
    let heard = scene.heard.0.lock().unwrap();
    assert_eq!(heard[0].reason, reasons::SERVICE_NOT_FOUND);
}

#[tokio::test(start_paused = true)]
async fn what_another_wrote_over_is_put_right() {
    let scene = Scene::start();
    scene.export(1, true);
    pass(10.0).await;
    let key = Key::Export(ObjectName::new("shop", "web-1"));
    if let Some(Judged::Export(object, _)) = scene.store.judged.lock().unwrap().get_mut(&key) {
        object.status.as_mut().unwrap().conditions[0].status = "False".to_owned();
    }
    scene.store.show(&key);
    pass(1.0).await;
    assert_eq!(scene.count(), 2);
    assert_eq!(scene.last()["status"]["conditions"][0]["status"], "True");
}

#[tokio::test(start_paused = true)]
async fn a_write_that_is_not_read_back_yet_is_not_repeated() {
    let scene = Scene::start();
    scene.store.echoes.store(false, Ordering::Relaxed);
    scene.export(1, true);
    // The watch is cut: nothing is told, and nothing is to be done.
    pass(100.0).await;
    assert_eq!(scene.count(), 1);
    scene.export(2, true);
    pass(0.5).await;
    // The object changes for another reason, and that is told before the write is.
    scene.export(2, true);
    pass(3.0).await;
    assert_eq!(scene.count(), 2);
    // The write is never told: somebody must have overwritten it.
    pass(4.0).await;
    assert_eq!(scene.count(), 3);
}

#[tokio::test(start_paused = true)]
async fn failures_are_tried_again_with_growing_pauses() {
    let scene = Scene::start();
    *scene.store.refusing.lock().unwrap() = Some(WriteError::Failed("no".to_owned()));
    scene.export(1, true);
    pass(300.0).await;
    let tried = scene.count();
    assert!((6..=14).contains(&tried), "{tried}");
    *scene.store.refusing.lock().unwrap() = None;
    pass(70.0).await;
    assert_eq!(scene.count(), tried + 1);
    pass(300.0).await;
    assert_eq!(scene.count(), tried + 1);
}

#[tokio::test(start_paused = true)]
async fn a_deleted_object_is_left_alone() {
    let scene = Scene::start();
    *scene.store.refusing.lock().unwrap() = Some(WriteError::Gone);
    scene.export(1, true);
    pass(0.5).await;
    let key = Key::Export(ObjectName::new("shop", "web-1"));
    scene.store.judged.lock().unwrap().clear();
    scene.store.show(&key);
    pass(300.0).await;
    assert_eq!(scene.count(), 1);
}

#[tokio::test(start_paused = true)]
async fn the_reports_of_a_thousand_agents_are_one_write_a_minute() {
    let scene = Scene::start();
    scene.peer();
    for node in 0..1000 {
        scene.report(&format!("n{node}"), true, 5);
    }
    pass(10.0).await;
    let first = scene.count();
    assert!((1..=2).contains(&first), "{first}");
    for second in 0..120_u64 {
        for node in 0..1000 {
            scene.report(&format!("n{node}"), true, 5 + (second * 7 + node) % 50);
        }
        pass(1.0).await;
    }
    let writes = scene.count() - first;
    assert!((1..=3).contains(&writes), "{writes}");
    // A lost session is told at once.
    let before = scene.count();
    for node in 0..1000 {
        scene.report(&format!("n{node}"), false, 0);
    }
    pass(2.0).await;
    assert_eq!(scene.count(), before + 1);
    assert_eq!(scene.last()["status"]["conditions"][0]["status"], "False");
    let heard = scene.heard.0.lock().unwrap();
    let reasons: Vec<_> = heard
        .iter()
        .map(|one| (one.warning, &*one.reason))
        .collect();
    assert_eq!(reasons, [(true, "InboundOnly")]);
}

#[tokio::test(start_paused = true)]
async fn a_target_port_is_written_only_into_the_version_that_was_judged() {
    let scene = Scene::start();
    let name = ObjectName::new("shop", "web");
    let spec = ImportSpec {
        port: 80,
        target_port: None,
        sources: Vec::new(),
        lb_scheme: Default::default(),
    };
    let mut object = Import::new("web", spec);
    object.metadata.namespace = Some("shop".to_owned());
    let status = |holds, port| {
        let finding = if holds {
            Finding::valid(IMPORT_TARGET_PORT_VALID, "")
        } else {
            Finding::invalid(
                IMPORT_TARGET_PORT_VALID,
                reasons::TARGET_PORT_CONFLICT,
                "taken",
            )
        };
        ImportStatus {
            name: name.clone(),
            port: 80,
            addresses: Vec::new(),
            scheme: Default::default(),
            target_port: port,
            sources: Vec::new(),
            conditions: dated(vec![finding], &[], Timestamp::now(), Some(1)),
            stale: false,
        }
    };
    let key = Key::Import(name.clone());
    scene.put(&key, Judged::Import(object, status(true, Some(12_000))));
    pass(3.0).await;
    assert_eq!(scene.last()["metadata"]["resourceVersion"], "17");
    assert_eq!(scene.last()["metadata"]["namespace"], "shop");
    assert_eq!(scene.last()["status"]["targetPort"], 12_000);
    // A write that leaves the port as it is needs no certain version.
    let written = scene.store.judged.lock().unwrap().get(&key).cloned();
    let Some(Judged::Import(object, _)) = written else {
        panic!("it is stored");
    };
    scene.put(&key, Judged::Import(object, status(false, Some(12_000))));
    pass(3.0).await;
    assert_eq!(scene.count(), 2);
    assert_eq!(scene.last()["metadata"]["resourceVersion"], Value::Null);
}

#[tokio::test(start_paused = true)]
async fn many_objects_are_written_at_a_bounded_rate() {
    let scene = Scene::start();
    for number in 0..2000 {
        scene.export(number, true);
    }
    pass(1.0).await;
    let limit = usize::try_from(BURST + RATE).unwrap();
    assert!(scene.count() <= limit + 10, "{}", scene.count());
    pass(12.0).await;
    assert_eq!(scene.count(), 2000);
}
