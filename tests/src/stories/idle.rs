//! What connections cost on which nothing happens.

use std::fs;
use std::process::Stdio;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use super::Stage;
use super::ends::Ends;
use crate::process::Process;
use crate::report::IdleEvent;

/// What a gateway has done within a while.
#[derive(Clone, Copy, Debug)]
struct Effort {
    /// Processor time in clock ticks.
    ticks: u64,
    /// How often any thread went to sleep: each wake-up ends so, while the other switches are what
    /// the rest of the machine does to it.
    sleeps: u64,
}

/// So many idle connections of each client cost the gateways of both sides nothing within a while,
/// and are there afterwards.
pub fn idle_connections_cost_nothing<S: Stage>(
    clients: &[&Ends<'_, S>],
    each: u64,
    window: Duration,
) -> Result<()> {
    let stage = clients.first().context("nobody holds connections")?.stage;
    let pids = [stage.west().pid()?, stage.east().pid()?];
    let none = over(window, pids)?;
    let mut holders = Vec::new();
    for client in clients {
        holders.push(hold(client, each)?);
    }
    for holder in &mut holders {
        let open = |event| match event {
            IdleEvent::Open { connections } => Some(connections),
            IdleEvent::Checked { .. } => None,
        };
        holder.wait_report("that all are open", Duration::from_secs(60), open)?;
    }
    let all = each * clients.len() as u64;
    let mut many = over(window, pids)?;
    if !alike(&none, &many) {
        // Something else may have been at work; idleness shows in one window of two.
        eprintln!("once more: {none:?} without and {many:?} with {all} connections");
        many = over(window, pids)?;
    }
    eprintln!(
        "west and east in {window:?}: {none:?} without and {many:?} with {all} idle connections"
    );
    ensure!(
        alike(&none, &many),
        "{none:?} without and {many:?} with {all} connections"
    );
    for holder in &mut holders {
        holder.tell("check")?;
        let checked = |event| match event {
            IdleEvent::Checked { alive, dead } => Some((alive, dead)),
            IdleEvent::Open { .. } => None,
        };
        let patience = Duration::from_secs(30);
        let (alive, dead) = holder.wait_report("how they are", patience, checked)?;
        ensure!((alive, dead) == (each, 0), "{alive} alive, {dead} dead");
        holder.kill9()?;
    }
    Ok(())
}

fn hold<S: Stage>(ends: &Ends<'_, S>, count: u64) -> Result<Process> {
    let (target, count) = (ends.echo.address.to_string(), count.to_string());
    let mut command = ends.client.clt(["idle", &target, "--count", &count]);
    command.stdin(Stdio::piped());
    ends.client.spawn("idle", command)
}

/// One wake-up for each of two thousand connections would be two thousand; what is let pass is the
/// jitter of the gateways' own timers.
fn alike(none: &[Effort; 2], many: &[Effort; 2]) -> bool {
    none.iter().zip(many).all(|(none, many)| {
        many.ticks <= none.ticks + 5 && many.sleeps <= none.sleeps + none.sleeps / 10 + 20
    })
}

fn over(window: Duration, pids: [u32; 2]) -> Result<[Effort; 2]> {
    let before = [effort(pids[0])?, effort(pids[1])?];
    // What is asked for is what happens within that time.
    thread::sleep(window);
    let after = [effort(pids[0])?, effort(pids[1])?];
    Ok(std::array::from_fn(|i| Effort {
        ticks: after[i].ticks - before[i].ticks,
        sleeps: after[i].sleeps - before[i].sleeps,
    }))
}

/// What a process has done since it started.
fn effort(pid: u32) -> Result<Effort> {
    let (mut ticks, mut sleeps) = (0, 0);
    for task in fs::read_dir(format!("/proc/{pid}/task"))? {
        let task = task?.path();
        let stat = fs::read_to_string(task.join("stat"))?;
        let fields = stat.rsplit(')').next().context("a stat without a name")?;
        let fields: Vec<&str> = fields.split_whitespace().collect();
        for field in [11, 12] {
            ticks += fields.get(field).context("a short stat")?.parse::<u64>()?;
        }
        for line in fs::read_to_string(task.join("status"))?.lines() {
            if line.starts_with("voluntary_ctxt_switches") {
                let count = line.split_whitespace().last().context("no count")?;
                sleeps += count.parse::<u64>()?;
            }
        }
    }
    Ok(Effort { ticks, sleeps })
}
