//! `clusterlink flows`.

use std::{io::Write as _, time::Duration};

use anyhow::Context as _;
use clap::Args;
use clusterlink_agent::admin::Flows;
use clusterlink_gateway::flow::{Direction, FlowRecord, now_ms};
use clusterlink_model::policy::Decision;
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
    if args.output == Output::Table {
        writeln!(
            out,
            "{}",
            aligned(&COLUMNS.map(|(name, _)| name.to_owned()))
        )?;
        out.flush()?;
    }
    while let Some(frame) = body.frame().await {
        let frame = frame.context("the peer has stopped")?;
        pending.extend_from_slice(frame.data_ref().map_or(&[], |data| data));
        while let Some(end) = pending.iter().position(|&byte| byte == b'\n') {
            let line: Vec<u8> = pending.drain(..=end).collect();
            match args.output {
                Output::Json => out.write_all(&line)?,
                Output::Table => {
                    let record = serde_json::from_slice(&line).context("another version")?;
                    writeln!(out, "{}", aligned(&cells(&record)))?;
                }
            }
            out.flush()?;
        }
    }
    Ok(())
}

/// The columns, with the widths that they have where what comes later is not known yet.
const COLUMNS: [(&str, usize); 10] = [
    ("AGE", 9),
    ("WAY", 3),
    ("CLIENT", 24),
    ("TO", 20),
    ("VIA", 24),
    ("VERDICT", 40),
    ("SENT", 9),
    ("RECEIVED", 9),
    ("DURATION", 8),
    ("END", 0),
];

/// A line of a table that grows.
fn aligned(cells: &[String; COLUMNS.len()]) -> String {
    let padded = cells.iter().zip(COLUMNS);
    let padded = padded.map(|(cell, (_, width))| format!("{cell:<width$}"));
    padded.collect::<Vec<_>>().join("  ").trim_end().to_owned()
}

fn rows(records: &[FlowRecord]) -> comfy_table::Table {
    let mut table = show::table(&COLUMNS.map(|(name, _)| name));
    for record in records {
        table.add_row(cells(record));
    }
    table
}

fn cells(record: &FlowRecord) -> [String; COLUMNS.len()] {
    let (way, to) = match record.direction {
        Direction::Egress => ("out", show::or_dash(record.import.as_ref())),
        Direction::Ingress => ("in", show::or_dash(record.export.as_ref())),
    };
    let until = record.ended_ms.unwrap_or_else(now_ms);
    let duration = Duration::from_millis(until.saturating_sub(record.started_ms));
    [
        format!("{} ago", show::ago(record.started_ms)),
        way.to_owned(),
        record.client.clone(),
        to,
        via(record),
        show::or_dash(record.decision.as_ref().map(verdict)),
        show::bytes(record.bytes_sent),
        show::bytes(record.bytes_received),
        show::short(duration),
        end(record),
    ]
}

/// The other peer, and which of its exports serves.
fn via(record: &FlowRecord) -> String {
    match (&record.peer, &record.export) {
        (Some(peer), Some(export)) if record.direction == Direction::Egress => {
            format!("{peer}: {export}")
        }
        (peer, _) => show::or_dash(peer.as_ref()),
    }
}

/// What this side's policies said last, and which of them.
fn verdict(decision: &Decision) -> String {
    let action = if decision.allowed { "allow" } else { "deny" };
    match &decision.policy {
        Some(policy) => format!("{action} by {policy}"),
        None => format!("{action} by default"),
    }
}

/// Why it ended: the reason, what was tried, and more for people.
fn end(record: &FlowRecord) -> String {
    let Some(reason) = record.reason else {
        return "open".to_owned();
    };
    let mut parts = vec![reason.as_str().to_owned()];
    // What decided for all sources stands in a column of its own.
    let said = (record.decision.as_ref())
        .filter(|decision| !decision.allowed)
        .map(|decision| match &decision.policy {
            Some(policy) => format!("denied by {policy}"),
            None => "denied, no policy allows it".to_owned(),
        });
    let attempts = (record.attempts.iter()).filter(|one| Some(&one.outcome) != said.as_ref());
    parts.extend(attempts.map(|one| format!("{} {}: {}", one.peer, one.export, one.outcome)));
    parts.extend(record.detail.clone());
    parts.join("; ")
}

#[cfg(test)]
mod tests {
    use clusterlink_gateway::flow::{Attempt, EndReason};
    use clusterlink_model::{ObjectName, PeerName, PolicyName};

    use super::*;

    fn record() -> FlowRecord {
        let name = ObjectName::new("shop", "web");
        FlowRecord {
            id: 1,
            direction: Direction::Egress,
            started_ms: now_ms() - 90_000,
            client: "pod shop/cart".to_owned(),
            client_address: None,
            import: Some(name.clone()),
            peer: PeerName::new("paris").ok(),
            export: Some(name),
            backend: None,
            decision: None,
            attempts: Vec::new(),
            bytes_sent: 10,
            bytes_received: 2048,
            ended_ms: Some(now_ms() - 86_000),
            reason: Some(EndReason::Completed),
            detail: None,
        }
    }

    #[test]
    fn the_verdict_names_the_policy_that_gave_it() {
        let by = |allowed, policy: Option<&str>| {
            let policy = policy.map(|name| PolicyName::Privileged(name.into()));
            verdict(&Decision { allowed, policy })
        };
        assert_eq!(by(true, Some("a")), "allow by PrivilegedAccessPolicy a");
        assert_eq!(by(false, Some("b")), "deny by PrivilegedAccessPolicy b");
        assert_eq!(by(false, None), "deny by default");
    }

    #[test]
    fn a_row_tells_way_verdict_and_duration() {
        let line = aligned(&cells(&record()));
        let words: Vec<_> = line.split_whitespace().collect();
        let wanted =
            "90s ago out pod shop/cart shop/web paris: shop/web - 10 B 2.0 KiB 4s completed";
        assert_eq!(words.join(" "), wanted);
        let header = aligned(&COLUMNS.map(|(name, _)| name.to_owned()));
        for column in ["CLIENT", "VIA", "VERDICT", "SENT", "DURATION", "END"] {
            let place = header.find(column).expect("each column is named");
            assert!(
                line[..place].ends_with("  "),
                "{column} begins elsewhere in\n{header}\n{line}"
            );
        }
        let open = FlowRecord {
            direction: Direction::Ingress,
            reason: None,
            ended_ms: None,
            ..record()
        };
        let cells = cells(&open);
        assert_eq!(
            (&*cells[1], &*cells[4], &*cells[8], &*cells[9]),
            ("in", "paris", "90s", "open")
        );
    }

    #[test]
    fn an_end_tells_what_the_verdict_does_not() {
        let attempt = |outcome: &str| Attempt {
            peer: PeerName::new("tokyo").expect("a name"),
            export: ObjectName::new("shop", "web"),
            outcome: outcome.to_owned(),
        };
        let mut record = record();
        record.reason = Some(EndReason::Denied);
        record.decision = Some(Decision::DEFAULT_DENY);
        record.attempts = vec![
            attempt("denied, no policy allows it"),
            attempt("remote: denied"),
        ];
        record.detail = Some("refused at connect of process 7".to_owned());
        assert_eq!(
            end(&record),
            "denied; tokyo shop/web: remote: denied; refused at connect of process 7"
        );
    }
}
