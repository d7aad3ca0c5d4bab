//! A source that cannot serve is followed by the next one within the same connection, and where there
//! is none the flow log says why.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

use super::{Share, Side};
use crate::pod::Pod;
use crate::traffic::Client;
use crate::wait::wait_until;
use crate::world::{NAMESPACE, Verdict, verdict};

/// How soon a connection has to be in the flow log.
const LOGGED: Duration = Duration::from_secs(2);

/// The very first connection of a client to an Import is served by a peer, with what the client said
/// first, and so are more after it. Gives what the flow log of `west` says of the sources that were
/// tried before that peer in the first one, each as `peer: why it did not serve`.
pub fn the_first_connection_is_served_by(
    peer: &str,
    west: &dyn Side,
    client: &Pod,
    (import, target): (&str, SocketAddr),
) -> Result<Vec<String>> {
    let hello = Client::to(target).say("hello");
    let first = hello.once(client)?;
    ensure!(first.succeeded() && first.text == peer, "{first:?}");
    let tried = wait_until("the connection is in the flow log", LOGGED, || {
        let flow = first_flow(west, client, import)?;
        if flow["reason"] != "completed" || flow["peer"] != peer {
            bail!("{flow:#}");
        }
        Ok(Some(tried(&flow)))
    })?;
    let all = hello.count(20).parallel(4).run(client)?;
    for one in &all {
        ensure!(one.succeeded() && one.text == peer, "{one:?}");
    }
    ensure!(all.len() == 20, "{} of 20 connections", all.len());
    Ok(tried)
}

/// A connection to what only one peer exports is reset, because that peer cannot serve: the flow log of
/// `west` names peer and Export, and what came of it begins like that.
pub fn nobody_serves(
    west: &dyn Side,
    client: &Pod,
    share: &Share,
    (peer, outcome): (&str, &str),
) -> Result<()> {
    let before = flows(west, client, &share.name)?.len();
    let seen = verdict(client, share.address)?;
    ensure!(seen == Verdict::Reset, "{} saw {seen:?}", client.name());
    wait_until("the connection is in the flow log", LOGGED, || {
        let flows = flows(west, client, &share.name)?;
        let flow = flows.get(before..).and_then(<[Value]>::first);
        let flow = flow.context("it is not in the log yet")?;
        let tried = tried(flow);
        let [one] = tried.as_slice() else {
            bail!("{flow:#}")
        };
        let export = &flow["attempts"][0]["export"];
        ensure!(
            flow["reason"] == "no-source"
                && one.starts_with(&format!("{peer}: {outcome}"))
                && export["name"] == share.name.as_str()
                && export["namespace"] == NAMESPACE,
            "{flow:#}"
        );
        Ok(Some(()))
    })
}

/// The oldest flow of a client to an Import that has ended.
pub fn first_flow(west: &dyn Side, client: &Pod, import: &str) -> Result<Value> {
    let mut flows = flows(west, client, import)?.into_iter();
    flows
        .next()
        .with_context(|| format!("no flow to {import} has ended"))
}

/// What the flow log says of the connection that has ended last, for messages.
pub fn last_flow(side: &dyn Side) -> String {
    match side.flows() {
        Ok(flows) => {
            let last = flows["recent"].as_array().and_then(|all| all.last());
            last.map_or_else(|| "no flow has ended".to_owned(), Value::to_string)
        }
        Err(error) => format!("{error:#}"),
    }
}

/// The flows of a client to an Import that have ended, oldest first.
fn flows(west: &dyn Side, client: &Pod, import: &str) -> Result<Vec<Value>> {
    let flows = west.flows()?;
    let pod = format!("/{}", client.pod_name());
    let is = |flow: &&Value| {
        let client = flow["client"].as_str().unwrap_or_default();
        flow["import"]["name"] == import && client.ends_with(&pod)
    };
    let recent = flows["recent"].as_array().context("no recent flows")?;
    Ok(recent.iter().filter(is).cloned().collect())
}

/// What a flow says of the sources that did not serve it, each as `peer: why`.
pub fn tried(flow: &Value) -> Vec<String> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let attempts = flow["attempts"].as_array().into_iter().flatten();
    attempts
        .map(|one| format!("{}: {}", text(&one["peer"]), text(&one["outcome"])))
        .collect()
}
