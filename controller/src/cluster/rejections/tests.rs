use std::ops::Range;

use clusterlink_proto::Rejected;

use super::*;
use crate::agents::AgentStatus;

/// What the agents of some nodes say, and the time.
struct Scene {
    rejections: Rejections,
    table: AgentTable,
    now: Timestamp,
}

impl Scene {
    fn new() -> Self {
        Self {
            rejections: Rejections::default(),
            table: AgentTable::new(),
            now: Timestamp::UNIX_EPOCH,
        }
    }

    /// The agent of a node rejects these Imports; gives those that are to be looked at.
    fn says(&mut self, node: &str, imports: &[&str]) -> Vec<String> {
        self.reports(node, imports, &[])
    }

    fn reports(&mut self, node: &str, imports: &[&str], waits_for: &[&str]) -> Vec<String> {
        let rejected = imports.iter().map(|import| Rejected {
            key: ResourceKey::Import(name(import)),
            reason: format!("{node} cannot"),
        });
        let report = NodeReport {
            rejected: rejected.collect(),
            waits_for: waits_for.iter().map(ToString::to_string).collect(),
            ..NodeReport::default()
        };
        let agent = AgentStatus {
            pod: ObjectName::new("system", format!("agent-{node}")),
            report: Arc::new(report),
            let_go: BTreeSet::new(),
        };
        let before = self.table.clone();
        self.table.insert(node.into(), agent);
        texts(self.rejections.update(&before, &self.table))
    }

    fn leaves(&mut self, node: &str) {
        let before = self.table.clone();
        self.table.remove(node);
        assert!(self.rejections.update(&before, &self.table).is_empty());
    }

    /// Some time passes; gives the Imports that have got an agent back.
    fn passes(&mut self, time: SignedDuration) -> Vec<String> {
        self.now += time;
        texts(self.rejections.begin(self.now))
    }

    fn of(&self, import: &str) -> Vec<String> {
        let all = self.rejections.of(&name(import)).into_keys();
        all.map(|node| node.to_string()).collect()
    }

    fn follows(&mut self, import: &str, noted: &[&str], leads: bool) {
        let noted = noted.iter().map(|node| Arc::from(*node)).collect();
        let table = leads.then_some(&self.table);
        self.rejections.follow(&name(import), noted, table);
    }
}

fn name(import: &str) -> ObjectName {
    ObjectName::new("ns", import)
}

fn texts(names: BTreeSet<ObjectName>) -> Vec<String> {
    let names = names.into_iter();
    names.map(|name| name.name.to_string()).collect()
}

const NONE: [&str; 0] = [];
const INSTANT: SignedDuration = SignedDuration::ZERO;

#[test]
fn an_agent_is_left_out_of_what_it_rejects_until_a_pause_after_it_says_so_no_more() {
    let mut scene = Scene::new();
    assert_eq!(scene.says("n1", &[]), NONE);
    assert_eq!(scene.says("n1", &["web"]), ["web"]);
    assert_eq!(scene.says("n2", &["web", "api"]), ["api", "web"]);
    assert_eq!(scene.says("n2", &["web", "api"]), NONE, "nothing new");
    assert_eq!(scene.of("web"), ["n1", "n2"]);
    assert_eq!(scene.of("api"), ["n2"]);
    assert_eq!(scene.of("other"), NONE);
    let why = &scene.rejections.of(&name("web"))["n1"];
    assert_eq!(why.as_deref(), Some("n1 cannot"));

    assert_eq!(scene.says("n2", &["api"]), NONE);
    assert_eq!(
        scene.rejections.next_look(),
        None,
        "the next round dates it"
    );
    assert_eq!(scene.passes(INSTANT), NONE);
    assert_eq!(scene.rejections.next_look(), Some(scene.now + PAUSE));
    assert_eq!(scene.of("web"), ["n1", "n2"]);
    assert_eq!(scene.passes(PAUSE), ["web"]);
    assert_eq!(scene.of("web"), ["n1"]);
    assert_eq!(scene.of("api"), ["n2"]);
    assert_eq!(scene.rejections.next_look(), None);
}

#[test]
fn an_agent_that_says_nothing_of_it_yet_or_is_not_there_is_left_out_as_before() {
    let mut scene = Scene::new();
    scene.says("n1", &["web"]);
    scene.leaves("n1");
    scene.passes(LONGEST_PAUSE);
    assert_eq!(scene.of("web"), ["n1"]);
    assert_eq!(scene.reports("n1", &[], &["the first snapshot"]), NONE);
    scene.passes(LONGEST_PAUSE);
    assert_eq!(scene.of("web"), ["n1"], "it has tried nothing yet");
    // Ready, it looks at its ports a moment later.
    scene.says("n1", &[]);
    scene.passes(INSTANT);
    assert_eq!(scene.says("n1", &["web"]), NONE);
    assert_eq!(scene.passes(LONGEST_PAUSE), NONE);
    assert_eq!(scene.of("web"), ["n1"]);
    scene.says("n1", &[]);
    scene.passes(INSTANT);
    assert_eq!(scene.passes(PAUSE), ["web"], "that was one time only");
    assert_eq!(scene.of("web"), NONE);
}

/// Says an Import to be rejected and not, a second each, and counts what there was to be done for it.
fn flaps(scene: &mut Scene, seconds: Range<u32>) -> usize {
    let turns = seconds.map(|second| {
        let said: &[&str] = if second % 2 == 0 { &["web"] } else { &[] };
        let said = scene.says("n1", said).len();
        said + scene.passes(SignedDuration::from_secs(1)).len()
    });
    turns.sum()
}

#[test]
fn an_agent_that_changes_its_mind_all_the_time_is_left_out_and_costs_nothing() {
    let mut scene = Scene::new();
    assert_eq!(flaps(&mut scene, 0..1000), 1);
    assert_eq!(scene.of("web"), ["n1"]);
}

#[test]
fn the_oftener_an_import_is_rejected_the_longer_is_the_pause() {
    let mut scene = Scene::new();
    let mut pauses = Vec::new();
    for _ in 0..7 {
        assert_eq!(scene.says("n1", &["web"]), ["web"]);
        scene.says("n1", &[]);
        scene.passes(INSTANT);
        let until = scene.rejections.next_look().unwrap();
        pauses.push(until.duration_since(scene.now).as_secs());
        let pause = until.duration_since(scene.now);
        assert_eq!(scene.passes(pause), ["web"]);
        assert_eq!(scene.of("web"), NONE);
    }
    assert_eq!(pauses, [3, 6, 12, 24, 48, 60, 60]);
    scene.passes(MEMORY);
    scene.says("n1", &["web"]);
    scene.says("n1", &[]);
    scene.passes(INSTANT);
    let first = Some(scene.now + PAUSE);
    assert_eq!(scene.rejections.next_look(), first, "that was long ago");
}

#[test]
fn a_leader_believes_what_is_noted_of_those_that_it_has_not_heard() {
    let mut scene = Scene::new();
    scene.says("n1", &[]);
    scene.reports("n2", &[], &["the first snapshot"]);
    scene.follows("web", &["n1", "n2", "n3"], true);
    assert_eq!(scene.of("web"), ["n2", "n3"]);
    assert_eq!(scene.rejections.of(&name("web"))["n2"], None);
    assert_eq!(scene.says("n2", &["web"]), ["web"], "now it is known why");
    assert_eq!(scene.says("n3", &[]), NONE);
    scene.passes(INSTANT);
    assert_eq!(scene.passes(PAUSE), ["web"]);
    // What it has written itself may come back late.
    scene.follows("web", &["n2", "n3"], true);
    scene.follows("web", &[], true);
    assert_eq!(scene.of("web"), ["n2"]);
}

#[test]
fn who_does_not_lead_follows_what_is_noted() {
    let mut scene = Scene::new();
    scene.says("n1", &["web"]);
    scene.follows("web", &["n2"], false);
    assert_eq!(scene.of("web"), ["n2"]);
    scene.follows("web", &[], false);
    assert_eq!(scene.of("web"), NONE);
}

#[test]
fn a_node_that_is_gone_is_forgotten() {
    let mut scene = Scene::new();
    scene.says("n1", &["web"]);
    scene.says("n2", &["web"]);
    scene.leaves("n1");
    scene.rejections.retain_nodes(|node| &**node != "n1");
    assert_eq!(scene.of("web"), ["n2"]);
    scene.says("n2", &[]);
    scene.passes(INSTANT);
    scene.passes(PAUSE);
    scene.passes(MEMORY);
    let Rejections {
        imports,
        by_node,
        passing,
    } = &scene.rejections;
    assert!(imports.is_empty() && by_node.is_empty() && passing.is_empty());
}
