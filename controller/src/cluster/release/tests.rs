//! When an address is free, by a clock of the tests' own.

use clusterlink_model::ObjectName;

use super::*;
use crate::cluster::fleet::{
    Agent,
    tests::{a_fleet, an_agent},
};

/// A replica that began at minute 0, over the nodes `n0001` to `n000<nodes>`.
struct Scene {
    releases: Releases,
    roll: Roll,
    agents: Vec<Agent>,
    nodes: Vec<Arc<str>>,
    table: AgentTable,
    leading: Option<Timestamp>,
    now: Timestamp,
}

fn minute(number: i64) -> Timestamp {
    Timestamp::UNIX_EPOCH + SignedDuration::from_mins(1000 + number)
}

fn service() -> ObjectName {
    ObjectName::new("shop", "web")
}

fn address() -> IpAddr {
    "10.96.0.7".parse().unwrap()
}

impl Scene {
    /// Each node has an agent that is connected.
    fn new(nodes: u16) -> Self {
        let agents: Vec<_> = (1..=nodes).map(|one| an_agent(one, None, true)).collect();
        let mut scene = Self {
            releases: Releases::default(),
            roll: Roll::default(),
            nodes: agents.iter().map(|agent| agent.node.clone()).collect(),
            agents,
            table: AgentTable::new(),
            leading: Some(minute(0)),
            now: minute(0),
        };
        scene.pods_changed();
        (1..=nodes).for_each(|one| scene.says(one, false));
        scene
    }

    fn at(&mut self, number: i64) -> &mut Self {
        self.now = minute(number);
        self
    }

    fn pods_changed(&mut self) {
        let fleet = a_fleet(self.agents.clone());
        self.roll.set_fleet(&fleet, &self.nodes, self.now);
    }

    /// The Service, made at a time, is to be ours no more since another.
    fn release(&mut self, created: i64, since: i64) {
        let release = Release {
            uid: "u".to_owned(),
            addresses: [address()].into(),
            created: minute(created),
            since: minute(since),
        };
        self.releases.hold(&service(), release);
    }

    fn says(&mut self, number: u16, lets_go: bool) {
        let agent = an_agent(number, None, true);
        let pod = self.agents.iter().find(|one| one.node == agent.node);
        let said = AgentStatus {
            pod: pod.map_or(agent.pod, |agent| agent.pod.clone()),
            report: Arc::default(),
            let_go: lets_go.then(address).into_iter().collect(),
        };
        self.table.insert(agent.node, said);
        self.roll.meet(&self.table);
    }

    fn disconnects(&mut self, number: u16) {
        let node = an_agent(number, None, true).node;
        self.table.remove(&node);
        self.roll.lose([node]);
        self.roll.begin(self.now);
    }

    /// Its Pod is removed by force: nobody has seen its process end.
    fn vanishes(&mut self, number: u16) {
        let node = an_agent(number, None, true).node;
        self.agents.retain(|agent| agent.node != node);
        self.disconnects(number);
        self.pods_changed();
    }

    fn is_free(&mut self) -> bool {
        let asked = Asked {
            now: self.now,
            leading: self.leading,
            roll: &self.roll,
            table: &self.table,
        };
        self.releases.is_free(&service(), &asked)
    }

    /// The minute from which on it is free though nothing is heard any more, and not before.
    fn free_at(&mut self) -> Option<i64> {
        for _ in 0..10 {
            if self.is_free() {
                return Some(self.now.duration_since(minute(0)).as_mins());
            }
            self.now = self.releases.next_look()?;
        }
        panic!("it is looked at over and over");
    }
}

#[test]
fn an_address_is_free_once_every_agent_has_let_go_of_it() {
    let mut scene = Scene::new(2);
    scene.release(-500, 1);
    // Being asked again does not begin anew.
    scene.release(-500, 30);
    assert_eq!(scene.releases.addresses(), [address()].into());
    assert!(!scene.at(1).is_free());
    scene.says(1, true);
    assert!(!scene.is_free(), "one of two has let go");
    scene.says(2, true);
    assert!(scene.is_free());
    scene.says(2, false);
    assert!(!scene.is_free(), "it took it back");
    scene.releases.reclaim(&service(), &[address()]);
    assert!(scene.releases.addresses().is_empty());
    assert!(!scene.is_free(), "nobody asks");
}

#[test]
fn agents_are_asked_about_an_address_until_no_replica_can_name_it_any_more() {
    let mut scene = Scene::new(1);
    scene.release(-500, 1);
    scene.says(1, true);
    assert!(scene.at(1).is_free());
    scene.releases.forget(&service(), minute(1));
    assert_eq!(scene.releases.addresses(), [address()].into());
    assert_eq!(scene.releases.next_look(), Some(minute(6)));
    scene.releases.expire(minute(5));
    assert_eq!(scene.releases.addresses(), [address()].into());
    scene.releases.expire(minute(6));
    assert_eq!(scene.releases.addresses(), [].into());
    assert_eq!(scene.releases.next_look(), None);

    // It is given to an Import again.
    scene.release(-500, 7);
    scene.releases.forget(&service(), minute(7));
    let next = ObjectName::new("shop", "next");
    scene.releases.reclaim(&next, &[address()]);
    assert_eq!(scene.releases.addresses(), [].into());
}

#[test]
fn a_connected_agent_that_steers_is_waited_for_without_end() {
    let mut scene = Scene::new(1);
    scene.release(-500, 1);
    assert!(!scene.at(1).is_free());
    assert_eq!(scene.releases.keeping(), [].into(), "it had no time yet");
    assert_eq!(scene.free_at(), None);
    let keeping: Vec<_> = scene.releases.keeping().into_iter().collect();
    assert_eq!(keeping.len(), 1, "{keeping:?}");
    assert_eq!(&*keeping[0].node, "n0001");
    assert_eq!(keeping[0].agent, Some(scene.agents[0].pod.clone()));
    assert!(!scene.at(100_000).is_free());
    assert_eq!(scene.releases.keeping().len(), 1);
    scene.says(1, true);
    assert!(scene.is_free());
    assert_eq!(scene.releases.keeping(), [].into());
}

/// Each row: what happens after the release in minute 1, and from which minute on the address is
/// free if nothing more is heard.
#[test]
fn an_agent_that_is_not_heard_is_waited_for_as_long_as_it_may_steer() {
    type Act = fn(&mut Scene);
    let rows: [(&str, Act, Option<i64>); 12] = [
        ("not connected any more", |s| s.disconnects(1), Some(66)),
        (
            "connected for half an hour, steering",
            |s| s.at(31).disconnects(1),
            Some(96),
        ),
        (
            "its Pod is about to end",
            |s| {
                s.agents[0].terminating = true;
                s.pods_changed();
                s.disconnects(1);
            },
            Some(66),
        ),
        (
            "its containers have ended",
            |s| {
                s.agents[0].terminating = true;
                s.agents[0].stopped = true;
                s.pods_changed();
                s.disconnects(1);
                s.at(2);
            },
            Some(2),
        ),
        ("removed by force", |s| s.at(10).vanishes(1), Some(75)),
        (
            "removed by force after it had let go",
            |s| {
                s.says(1, true);
                s.is_free();
                s.at(10).vanishes(1);
            },
            Some(10),
        ),
        (
            "removed by force, and its successor does not come",
            |s| {
                s.at(10).vanishes(1);
                let mut next = an_agent(1, None, true);
                next.pod = ObjectName::new("clusterlink-system", "next");
                s.agents.push(next);
                s.pods_changed();
            },
            Some(75),
        ),
        (
            "its successor has let go",
            |s| {
                s.at(10).vanishes(1);
                let mut next = an_agent(1, None, true);
                next.pod = ObjectName::new("clusterlink-system", "next");
                s.agents.push(next);
                s.pods_changed();
                s.says(1, true);
            },
            Some(10),
        ),
        (
            "only its predecessor had let go",
            |s| {
                s.says(1, true);
                s.agents[0].pod = ObjectName::new("clusterlink-system", "next");
                s.at(10).pods_changed();
                s.disconnects(1);
            },
            Some(75),
        ),
        (
            "its node is gone",
            |s| {
                s.nodes.clear();
                s.vanishes(1);
            },
            Some(1),
        ),
        ("nobody leads here", |s| s.leading = None, None),
        (
            "this replica leads for a short time, and the agent does not come",
            |s| {
                s.leading = Some(minute(50));
                s.at(50).table.clear();
            },
            Some(115),
        ),
    ];
    for (what, act, wanted) in rows {
        let mut scene = Scene::new(1);
        scene.release(-500, 1);
        scene.at(1);
        act(&mut scene);
        assert_eq!(scene.free_at(), wanted, "{what}");
    }
}

#[test]
fn a_new_process_waits_for_nodes_that_it_knows_nothing_of() {
    let mut scene = Scene::new(2);
    // One node has no agent: there may have been one until just now.
    scene.roll = Roll::default();
    scene.agents.pop();
    scene.table.remove("n0002");
    scene.pods_changed();
    scene.says(1, true);
    scene.release(-500, 1);
    assert_eq!(scene.at(1).free_at(), Some(65));

    // A Service that was made since is known to the agents of this time only.
    scene.releases.forget(&service(), scene.now);
    scene.release(6, 7);
    assert_eq!(scene.at(7).free_at(), Some(7));

    // So is a node that was made since.
    scene.nodes.push("n0003".into());
    scene.at(8).pods_changed();
    assert!(scene.is_free());
}
