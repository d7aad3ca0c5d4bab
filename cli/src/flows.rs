//! `clusterlink flows`.

use std::io::Write as _;

use anyhow::Context as _;
use clap::Args;
use clusterlink_agent::admin::Flows;
use clusterlink_gateway::flow::{Direction, FlowRecord};
use http_body_util::BodyExt as _;

use crate::{Output, admin, options::AdminArgs, show};

/// Flags of `clusterlink flows`.
#[derive(Debug, Args)]
pub(crate) struct FlowsArgs {
    #[command(flatten)]
    admin: AdminArgs,
    /// How to print.
    #[arg(long, short, value_name = "FORMAT", default_value = "table")]
    output: Output,
    /// Print connections as they end, until interrupted.
    #[arg(long, short)]
    follow: bool,
    /// How many ended connections to print in a table.
    #[arg(long, value_name = "N", default_value_t = 20)]
    last: usize,
}

/// Prints the flow log of the running peer.
pub(crate) fn run(args: &FlowsArgs) -> anyhow::Result<()> {
    if args.follow {
        return admin::block_on(follow(args));
    }
    let path = "/v1/flows";
    match args.output {
        Output::Json => {
            let flows: serde_json::Value = admin::block_on(admin::get(&args.admin.admin, path))?;
            println!("{flows:#}");
        }
        Output::Table => {
            let flows: Flows = admin::block_on(admin::get(&args.admin.admin, path))?;
            let skip = flows.recent.len().saturating_sub(args.last);
            show::print("OPEN", &rows(&flows.live));
            show::print("ENDED", &rows(&flows.recent[skip..]));
            if flows.live.is_empty() && flows.recent.is_empty() {
                println!("no connections yet");
            }
        }
    }
    Ok(())
}

async fn follow(args: &FlowsArgs) -> anyhow::Result<()> {
    let mut body = admin::open(&args.admin.admin, "/v1/flows/follow")
        .await?
        .into_body();
    let mut pending = Vec::new();
    let mut out = std::io::stdout();
    while let Some(frame) = body.frame().await {
        let frame = frame.context("the peer has stopped")?;
        pending.extend_from_slice(frame.data_ref().map_or(&[], |data| data));
        while let Some(end) = pending.iter().position(|&byte| byte == b'\n') {
            let line: Vec<u8> = pending.drain(..=end).collect();
            match args.output {
                Output::Json => out.write_all(&line)?,
                Output::Table => {
                    let record = serde_json::from_slice(&line).context("another version")?;
                    writeln!(out, "{}", cells(&record).join("  "))?;
                }
            }
            out.flush()?;
        }
    }
    Ok(())
}

fn rows(records: &[FlowRecord]) -> comfy_table::Table {
    let mut table = show::table(&[
        "AGE", "WAY", "CLIENT", "TO", "VIA", "SENT", "RECEIVED", "END",
    ]);
    for record in records {
        table.add_row(cells(record));
    }
    table
}

fn cells(record: &FlowRecord) -> [String; 8] {
    let (way, to) = match record.direction {
        Direction::Egress => ("out", show::or_dash(record.import.as_ref())),
        Direction::Ingress => ("in", show::or_dash(record.export.as_ref())),
    };
    [
        format!("{} ago", show::ago(record.started_ms)),
        way.to_owned(),
        record.client.clone(),
        to,
        show::or_dash(record.peer.as_ref()),
        show::bytes(record.bytes_sent),
        show::bytes(record.bytes_received),
        end(record),
    ]
}

/// Why it ended: the reason, the policy that decided, what was tried.
fn end(record: &FlowRecord) -> String {
    let Some(reason) = record.reason else {
        return "open".to_owned();
    };
    let mut parts = vec![format!("{reason:?}")];
    let mut said = None;
    if let Some(decision) = record.decision.as_ref().filter(|said| !said.allowed) {
        let (part, denied) = match &decision.policy {
            Some(policy) => (format!("by {policy}"), format!("denied by {policy}")),
            None => {
                let part = "no policy allows it".to_owned();
                (part.clone(), format!("denied, {part}"))
            }
        };
        parts.push(part);
        said = Some(denied);
    }
    // What decided for all sources needs to be told once.
    let attempts = (record.attempts.iter()).filter(|one| Some(&one.outcome) != said.as_ref());
    parts.extend(attempts.map(|one| format!("{} {}: {}", one.peer, one.export, one.outcome)));
    parts.extend(record.detail.clone());
    parts.join("; ")
}
