use std::{collections::BTreeSet, net::IpAddr, sync::Arc};

use clusterlink_proto::NodeReport;
use tokio::{sync::watch, time::timeout};

use super::scene::{Node, SOON, Setup};
use crate::{
    agents::{AgentStatus, AgentTable, Question},
    push::Leadership,
};

fn addresses(last: &[u8]) -> BTreeSet<IpAddr> {
    last.iter().map(|&last| [10, 96, 0, last].into()).collect()
}

async fn wait(
    table: &mut watch::Receiver<Arc<AgentTable>>,
    node: &Node,
    condition: impl Fn(&AgentStatus) -> bool,
) {
    let holds = |table: &Arc<AgentTable>| table.get(&node.name).is_some_and(&condition);
    timeout(SOON, table.wait_for(holds)).await.unwrap().unwrap();
}

#[tokio::test]
async fn the_newest_report_of_a_node_counts_until_its_agent_leaves() {
    let server = Setup::new().start().await;
    let mut table = server.agents.table();
    let node = server.node("n1");
    wait(&mut table, &node, |agent| {
        agent.report.software == "agent of n1"
    })
    .await;
    assert_eq!(table.borrow()["n1"].pod.name.as_ref(), "agent-of-n1");
    for number in 0..20 {
        node.report.send_replace(Arc::new(NodeReport {
            software: format!("version {number}"),
            ..NodeReport::default()
        }));
    }
    wait(&mut table, &node, |agent| {
        agent.report.software == "version 19"
    })
    .await;
    drop(node);
    timeout(SOON, table.wait_for(|table| table.is_empty()))
        .await
        .unwrap()
        .unwrap();
}

fn question(last: &[u8], adds: bool) -> Question {
    Question {
        addresses: addresses(last),
        adds,
    }
}

/// Waits until a node is asked to steer none of these, and puts that in force.
async fn asked(node: &Node, last: &[u8]) {
    let mut asked = node.released.asked();
    let wanted = addresses(last);
    let these = asked.wait_for(|asked| asked.addresses.as_deref() == Some(&wanted));
    let number = timeout(SOON, these).await.unwrap().unwrap().number;
    node.released.is_in_force(number);
}

#[tokio::test]
async fn an_agent_says_which_released_addresses_it_has_let_go_of() {
    let server = Setup::new().start().await;
    let mut table = server.agents.table();
    server.agents.ask(question(&[1, 2], false));
    let node = server.node("n1");
    node.steered
        .send_replace(Some(Arc::new(addresses(&[1, 7]))));
    asked(&node, &[1, 2]).await;
    wait(&mut table, &node, |agent| agent.let_go == addresses(&[2])).await;
    node.steered.send_replace(Some(Arc::new(addresses(&[7]))));
    wait(&mut table, &node, |agent| {
        agent.let_go == addresses(&[1, 2])
    })
    .await;
    server.agents.ask(question(&[2, 7], false));
    asked(&node, &[2, 7]).await;
    wait(&mut table, &node, |agent| agent.let_go == addresses(&[2])).await;
    server.agents.ask(question(&[], false));
    asked(&node, &[]).await;
    wait(&mut table, &node, |agent| agent.let_go.is_empty()).await;
}

#[tokio::test]
async fn what_a_leader_has_asked_stays_asked_until_the_next_one_takes_it_back() {
    let leader = Setup::new().start().await;
    let mut next = Setup::new();
    next.authority = leader.authority.clone();
    next.tokens = leader.tokens.clone();
    let next = next.start().await;
    next.leadership
        .send_replace(Leadership::Following(leader.address));
    leader.agents.ask(question(&[1], false));
    let node = next.node("n1");
    asked(&node, &[1]).await;

    // The next leader has not read everything: that it knows of no released address says nothing.
    leader.leadership.send_replace(Leadership::Unknown);
    next.leadership.send_replace(Leadership::Leading);
    leader
        .leadership
        .send_replace(Leadership::Following(next.address));
    let mut table = next.agents.table();
    wait(&mut table, &node, |_| true).await;
    node.report.send_replace(Arc::new(NodeReport {
        software: "a second report".to_owned(),
        ..NodeReport::default()
    }));
    wait(&mut table, &node, |agent| {
        agent.report.software == "a second report"
    })
    .await;
    asked(&node, &[1]).await;
    next.agents.ask(question(&[2], true));
    asked(&node, &[1, 2]).await;
    wait(&mut table, &node, |agent| agent.let_go == addresses(&[2])).await;
    next.agents.ask(question(&[2], false));
    asked(&node, &[2]).await;
}

#[tokio::test]
async fn an_agent_finds_the_controller_that_takes_reports() {
    let leader = Setup::new().start().await;
    let mut follower = Setup::new();
    follower.authority = leader.authority.clone();
    follower.tokens = leader.tokens.clone();
    let follower = follower.start().await;
    follower
        .leadership
        .send_replace(Leadership::Following(leader.address));
    follower.put([]);
    let mut node = follower.node("n1");
    node.apply().await;
    let (mut at_leader, mut at_follower) = (leader.agents.table(), follower.agents.table());
    wait(&mut at_leader, &node, |_| true).await;
    assert!(at_follower.borrow().is_empty());

    // Leadership passes on: whoever was reporting is sent there.
    leader.leadership.send_replace(Leadership::Unknown);
    follower.leadership.send_replace(Leadership::Leading);
    leader
        .leadership
        .send_replace(Leadership::Following(follower.address));
    wait(&mut at_follower, &node, |_| true).await;
    timeout(SOON, at_leader.wait_for(|table| table.is_empty()))
        .await
        .unwrap()
        .unwrap();
    node.settle();
    assert!(
        node.handle.status().borrow().synced,
        "the subscription goes on all the while"
    );
}
