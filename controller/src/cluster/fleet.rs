//! The agents as their Pods show them: every replica of the controller sees the same.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use clusterlink_model::ObjectName;
use k8s_openapi::api::core::v1::{ContainerStatus, Pod};

use crate::agents::AGENT;

/// The condition of a Pod that says whether it serves.
pub(crate) const READY: &str = "Ready";

/// The label of a Pod with the name of its program.
pub(crate) const NAME_LABEL: &str = "app.kubernetes.io/name";

/// The agent of one node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Agent {
    pub(crate) node: Arc<str>,
    pub(crate) pod: ObjectName,
    /// Those of its node, since it is in the host network; at most one of each family counts.
    pub(crate) addresses: Vec<IpAddr>,
    pub(crate) zone: Option<Arc<str>>,
    pub(crate) ready: bool,
    pub(crate) terminating: bool,
    /// Its containers have ended and are not started again.
    pub(crate) stopped: bool,
}

/// The agents by the names of their nodes.
pub(crate) type Fleet = BTreeMap<Arc<str>, Agent>;

/// Whether a Pod carries the agents' label. It counts in the system namespace only.
pub(crate) fn is_labelled(pod: &Pod) -> bool {
    let labels = pod.metadata.labels.as_ref();
    labels
        .and_then(|all| all.get(NAME_LABEL))
        .is_some_and(|value| value == AGENT)
}

/// The agents among `pods`. A node that does not exist has none, and during an update, when a node
/// has two Pods for a moment, the one that stays counts.
pub(crate) fn fleet<'a>(
    pods: impl IntoIterator<Item = (&'a ObjectName, &'a Pod)>,
    zone: impl Fn(&str) -> Option<Option<Arc<str>>>,
) -> Fleet {
    let mut fleet = Fleet::new();
    for (name, pod) in pods {
        let Some(agent) = agent(name, pod, &zone) else {
            continue;
        };
        let stays = |agent: &Agent| (!agent.terminating, agent.ready);
        let better = fleet
            .get(&agent.node)
            .is_none_or(|other| stays(other) < stays(&agent));
        if better {
            fleet.insert(Arc::clone(&agent.node), agent);
        }
    }
    fleet
}

impl Agent {
    /// Whether connections may be sent to it.
    pub(crate) fn serves(&self) -> bool {
        self.ready && !self.terminating
    }

    /// Its address of the family of `like`.
    pub(crate) fn address(&self, ipv4: bool) -> Option<IpAddr> {
        let mut all = self.addresses.iter();
        all.find(|address| address.is_ipv4() == ipv4).copied()
    }
}

fn agent(
    name: &ObjectName,
    pod: &Pod,
    zone: impl Fn(&str) -> Option<Option<Arc<str>>>,
) -> Option<Agent> {
    if !is_labelled(pod) {
        return None;
    }
    let node = pod.spec.as_ref()?.node_name.as_deref()?;
    let zone = zone(node)?;
    let status = pod.status.as_ref();
    let phase = status.and_then(|status| status.phase.as_deref());
    let over = matches!(phase, Some("Succeeded" | "Failed"));
    let terminating = over || pod.metadata.deletion_timestamp.is_some();
    let stopped = terminating && have_containers_ended(pod);
    // Others than its kubelet may say that it is over, of a node that does not answer.
    if over && !stopped {
        return None;
    }
    let conditions = status.and_then(|status| status.conditions.as_ref());
    let ready = conditions.into_iter().flatten();
    let ready = ready
        .filter(|one| one.type_ == READY)
        .any(|one| one.status == "True");
    Some(Agent {
        node: node.into(),
        pod: name.clone(),
        addresses: addresses(pod),
        zone,
        ready,
        terminating,
        stopped,
    })
}

/// Whether all containers of a Pod have ended. Nobody but its kubelet says so.
fn have_containers_ended(pod: &Pod) -> bool {
    let status = pod.status.as_ref();
    let containers = status.and_then(|status| status.container_statuses.as_deref());
    let ended = |container: &ContainerStatus| {
        let state = container.state.as_ref();
        state.is_some_and(|state| state.terminated.is_some())
    };
    containers.is_some_and(|all| !all.is_empty() && all.iter().all(ended))
}

fn addresses(pod: &Pod) -> Vec<IpAddr> {
    let Some(status) = &pod.status else {
        return Vec::new();
    };
    let pod_ips = status.pod_ips.iter().flatten().map(|ip| &ip.ip);
    let host_ips = status.host_ips.iter().flatten().map(|ip| &ip.ip);
    let mut seen = BTreeSet::new();
    pod_ips
        .chain(&status.pod_ip)
        .chain(host_ips)
        .chain(&status.host_ip)
        .filter_map(|text| text.parse::<IpAddr>().ok())
        .filter(|address| seen.insert(address.is_ipv4()))
        .collect()
}

#[cfg(test)]
pub(crate) mod tests {
    use serde_json::json;

    use super::*;

    /// An agent on node `n<number>`, dual stack.
    pub(crate) fn an_agent(number: u16, zone: Option<&str>, ready: bool) -> Agent {
        Agent {
            node: format!("n{number:04}").into(),
            pod: ObjectName::new("clusterlink-system", format!("agent-{number}")),
            addresses: vec![
                std::net::Ipv4Addr::new(192, 0, (number >> 8) as u8, number as u8).into(),
                std::net::Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, number).into(),
            ],
            zone: zone.map(Into::into),
            ready,
            terminating: false,
            stopped: false,
        }
    }

    pub(crate) fn a_fleet(agents: impl IntoIterator<Item = Agent>) -> Fleet {
        let agents = agents.into_iter();
        agents
            .map(|agent| (Arc::clone(&agent.node), agent))
            .collect()
    }

    fn pod(node: &str, ready: &str, terminating: bool, label: &str) -> Pod {
        let mut pod = json!({
            "metadata": {"labels": {"app.kubernetes.io/name": label}},
            "spec": {"nodeName": node, "hostNetwork": true},
            "status": {
                "conditions": [{"type": "Ready", "status": ready}],
                "podIPs": [{"ip": "192.0.2.1"}],
                "hostIPs": [{"ip": "192.0.2.1"}, {"ip": "fd00::1"}],
            },
        });
        if terminating {
            pod["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
        }
        serde_json::from_value(pod).unwrap()
    }

    #[test]
    fn a_pod_is_the_agent_of_its_node_if_label_node_and_phase_say_so() {
        let zone = |node: &str| (node == "n1").then(|| Some("z1".into()));
        let cases = [
            (
                "the agent",
                pod("n1", "True", false, AGENT),
                Some((true, false)),
            ),
            (
                "not ready",
                pod("n1", "False", false, AGENT),
                Some((false, false)),
            ),
            ("going", pod("n1", "True", true, AGENT), Some((true, true))),
            ("another program", pod("n1", "True", false, "web"), None),
            ("a node that is gone", pod("n2", "True", false, AGENT), None),
        ];
        for (what, pod, wanted) in cases {
            let name = ObjectName::new("clusterlink-system", "agent");
            let fleet = fleet([(&name, &pod)], zone);
            let found = fleet
                .get("n1")
                .map(|agent| (agent.ready, agent.terminating));
            assert_eq!(found, wanted, "{what}");
            for agent in fleet.values() {
                let addresses: Vec<String> =
                    agent.addresses.iter().map(ToString::to_string).collect();
                assert_eq!(addresses, ["192.0.2.1", "fd00::1"], "{what}");
                assert_eq!(agent.zone.as_deref(), Some("z1"), "{what}");
            }
        }
    }

    #[test]
    fn an_agent_has_stopped_when_its_kubelet_says_that_its_containers_have_ended() {
        let ended = json!([{"name": "agent", "state": {"terminated": {"exitCode": 0}}}]);
        let running = json!([{"name": "agent", "state": {"running": {}}}]);
        // Terminating, phase, containers; what is seen of the agent.
        let cases = [
            ("it drains", true, "Running", &running, Some(false)),
            ("it has drained", true, "Running", &ended, Some(true)),
            ("it is over", true, "Succeeded", &ended, Some(true)),
            ("it was evicted", false, "Failed", &ended, Some(true)),
            ("its node is silent", true, "Failed", &running, None),
            ("it starts again", false, "Running", &ended, Some(false)),
        ];
        for (what, terminating, phase, containers, wanted) in cases {
            let mut pod = json!(pod("n1", "False", terminating, AGENT));
            pod["status"]["phase"] = phase.into();
            pod["status"]["containerStatuses"] = containers.clone();
            let pod: Pod = serde_json::from_value(pod).unwrap();
            let name = ObjectName::new("clusterlink-system", "agent");
            let fleet = fleet([(&name, &pod)], |_| Some(None));
            let found = fleet.get("n1").map(|agent| agent.stopped);
            assert_eq!(found, wanted, "{what}");
            assert!(fleet.values().all(|agent| !agent.serves()), "{what}");
        }
    }

    #[test]
    fn of_two_pods_on_a_node_the_one_that_stays_counts() {
        let [old, new] = ["old", "new"].map(|name| ObjectName::new("clusterlink-system", name));
        let (going, coming) = (
            pod("n1", "True", true, AGENT),
            pod("n1", "False", false, AGENT),
        );
        for pods in [
            [(&old, &going), (&new, &coming)],
            [(&new, &coming), (&old, &going)],
        ] {
            let fleet = fleet(pods, |_| Some(None));
            assert_eq!(fleet.get("n1").map(|agent| &agent.pod), Some(&new));
        }
    }
}
