//! `clusterlink status`.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::Args;
use clusterlink_agent::{
    admin::Status,
    control::{Condition, Problem, SourceState},
};

use comfy_table::Table;

use crate::{Output, admin, options::AdminArgs, show};

/// Flags of `clusterlink status`.
#[derive(Debug, Args)]
pub(crate) struct StatusArgs {
    #[command(flatten)]
    admin: AdminArgs,
    /// How to print.
    #[arg(long, short, value_name = "FORMAT", default_value = "table")]
    output: Output,
}

/// Prints the status of the running peer.
pub(crate) fn run(args: &StatusArgs) -> anyhow::Result<()> {
    let path = "/v1/status";
    match args.output {
        Output::Json => {
            let status: serde_json::Value = admin::block_on(admin::get(&args.admin.admin, path))?;
            println!("{status:#}");
        }
        Output::Table => print(&admin::block_on(admin::get(&args.admin.admin, path))?),
    }
    Ok(())
}

fn print(status: &Status) {
    println!("{}\n", heading(status));
    peers(status);
    imports(status);
    show::print("EXPORTS", &exports(status));
    policies(status);
    problems(status);
}

/// Who this is, and whether it works.
fn heading(status: &Status) -> String {
    let ready = match status.waiting_for.is_empty() {
        true => "ready".to_owned(),
        false => format!("waiting for {}", status.waiting_for.join(", ")),
    };
    let expires = UNIX_EPOCH + Duration::from_secs(status.peer.certificate.expires);
    let certificate = match expires.duration_since(SystemTime::now()) {
        Ok(left) => format!("certificate expires in {}", show::short(left)),
        Err(_) => {
            "certificate HAS EXPIRED; make a new one with `clusterlink create peer-cert`".to_owned()
        }
    };
    let steering = match (&status.steering.on, &status.steering.reason) {
        (true, _) => format!("steering on, {} open connections", status.open_flows),
        (false, reason) => format!("steering OFF: {}", show::or_dash(reason.as_deref())),
    };
    format!(
        "peer {} (clusterlink {}): {ready}\n{certificate}\n{steering}",
        status.peer.name, status.software
    )
}

fn peers(status: &Status) {
    let mut table = show::table(&["NAME", "REACHABLE", "SEEN", "RTT", "VERSION", "WHY"]);
    for peer in &status.peers {
        let rtt = peer.rtt_us.map(|us| format!("{:.1}ms", us as f64 / 1000.0));
        table.add_row([
            peer.name.to_string(),
            if peer.reachable { "yes" } else { "no" }.to_owned(),
            show::or_dash(peer.last_seen_ms.map(|ms| format!("{} ago", show::ago(ms)))),
            show::or_dash(rtt),
            show::or_dash(peer.version.as_deref()),
            why(&peer.conditions),
        ]);
    }
    show::print("PEERS", &table);
}

fn imports(status: &Status) {
    let mut table = show::table(&["IMPORT", "ADDRESS", "PORT", "SOURCES", "WHY"]);
    for import in &status.imports {
        let addresses: Vec<_> = import.addresses.iter().map(ToString::to_string).collect();
        let sources: Vec<_> = (import.sources.iter())
            .map(|source| {
                let state = match source.state {
                    SourceState::Reachable => "reachable",
                    SourceState::Unreachable => "unreachable",
                    SourceState::Denied => "denied",
                    SourceState::NoPeer => "no Peer",
                    SourceState::Invalid => source.invalid.as_deref().unwrap_or("not in force"),
                };
                format!(
                    "{}: {}/{} ({state})",
                    source.peer, source.export_namespace, source.export_name
                )
            })
            .collect();
        table.add_row([
            import.name.to_string(),
            addresses.join("\n"),
            import.port.to_string(),
            sources.join("\n"),
            why(&import.conditions),
        ]);
    }
    show::print("IMPORTS", &table);
}

fn exports(status: &Status) -> Table {
    let mut table = show::table(&["EXPORT", "HOST", "PORT", "BACKENDS", "WHY"]);
    for export in &status.exports {
        table.add_row([
            export.name.to_string(),
            export.host.clone(),
            export.port.to_string(),
            export.backends.to_string(),
            why(&export.conditions),
        ]);
    }
    table
}

fn policies(status: &Status) {
    let mut table = show::table(&["POLICY", "IN FORCE", "WHY"]);
    for policy in &status.policies {
        let action = policy
            .in_force
            .map(|action| format!("{action:?}").to_lowercase());
        let mut reasons = policy.warnings.clone();
        reasons.extend(Some(why(&policy.conditions)).filter(|why| !why.is_empty()));
        let in_force = action.unwrap_or_else(|| "nothing".to_owned());
        table.add_row([policy.name.to_string(), in_force, reasons.join("; ")]);
    }
    show::print("POLICIES", &table);
}

fn problems(status: &Status) {
    if !status.problems.is_empty() {
        println!("PROBLEMS");
        for problem in &status.problems {
            println!("  {}", sentence(problem));
        }
    }
}

fn sentence(problem: &Problem) -> String {
    let mut text = String::new();
    if let Some(place) = &problem.place {
        text.push_str(&place.file);
        if let Some(line) = place.line {
            text.push_str(&format!(":{line}"));
        }
        if let Some(document) = place.document {
            text.push_str(&format!(" (document {document})"));
        }
        text.push_str(": ");
    }
    for part in [&problem.kind, &problem.object, &problem.field]
        .into_iter()
        .flatten()
    {
        text.push_str(part);
        text.push(' ');
    }
    text.push_str(&problem.message);
    if problem.stale {
        text.push_str(" (what was read before stays in force)");
    }
    text
}

/// The messages of everything that does not hold.
fn why(conditions: &[Condition]) -> String {
    let failing = conditions
        .iter()
        .filter(|condition| condition.status == "False");
    failing
        .map(|condition| condition.message.as_str())
        .collect::<Vec<_>>()
        .join("; ")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn status(steering: &serde_json::Value) -> Status {
        let condition = json!({"type": "ExportValid", "status": "False", "reason": "ServiceNotFound",
                               "message": "Service shop/db is missing: create it"});
        let export = |name: &str, backends: usize, conditions| {
            json!({"name": {"namespace": "shop", "name": name}, "host": format!("shop/{name}"), "port": 80,
                   "backend": null, "backends": backends, "conditions": conditions, "stale": false})
        };
        let status = json!({
            "ready": true, "waitingFor": [], "software": "0.1.0", "generation": 1,
            "peer": {"name": "paris", "labels": {}, "certificate": {"expires": 0, "generation": 1}},
            "steering": steering, "peers": [], "imports": [], "policies": [], "workloads": [],
            "exports": [export("web", 2, json!([])), export("db", 0, json!([condition]))],
            "problems": [], "openFlows": 3, "counters": {},
        });
        serde_json::from_value(status).expect("a status")
    }

    #[test]
    fn the_heading_says_whether_connects_are_steered_and_why_not() {
        let on = heading(&status(&json!({"on": true, "reason": null})));
        assert!(
            on.contains("peer paris (clusterlink 0.1.0): ready\n"),
            "{on}"
        );
        assert!(on.contains("certificate HAS EXPIRED"), "{on}");
        assert!(on.ends_with("steering on, 3 open connections"), "{on}");
        let off = heading(&status(
            &json!({"on": false, "reason": "no hook saw the probe"}),
        ));
        assert!(
            off.ends_with("steering OFF: no hook saw the probe"),
            "{off}"
        );
    }

    #[test]
    fn exports_are_shown_with_their_backends_and_what_is_wrong() {
        let table = exports(&status(&json!({"on": true, "reason": null})));
        let lines: Vec<_> = table
            .lines()
            .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
            .collect();
        assert_eq!(
            lines,
            [
                "EXPORT HOST PORT BACKENDS WHY",
                "shop/web shop/web 80 2",
                "shop/db shop/db 80 0 Service shop/db is missing: create it"
            ]
        );
    }
}
