//! What runs beside the gateway. Each task returns its name when it ends, which it should not.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use clusterlink_gateway::{
    flow::FlowLog,
    tls::{Credentials, Watcher},
    view::View,
};
use clusterlink_model::{Labels, PeerName};
use tokio::{
    sync::watch,
    time::{MissedTickBehavior, interval},
};
use tracing::{info, warn};

use crate::{
    control::Updates,
    datapath::Datapath,
    host::HostsFile,
    readiness::Blocker,
    refusals,
    state::{NodeOrigins, State, StateReport},
};

/// How often the kernel is told that the gateway is alive; it gives up after two seconds.
const HEARTBEAT: Duration = Duration::from_millis(500);
/// How often cgroups are looked for.
const TICK: Duration = Duration::from_millis(250);
/// How often certificate files are looked at.
const RELOAD: Duration = Duration::from_millis(500);
/// How often refusals are fetched; the kernel keeps them until then.
const DRAIN: Duration = Duration::from_millis(150);

/// Tells the kernel that the gateway is alive, on a thread of its own: a busy runtime must not
/// stop connects. The thread ends when the datapath is dropped.
pub(super) fn heartbeat(datapath: &Arc<dyn Datapath>) {
    let datapath = Arc::downgrade(datapath);
    let beat = move || {
        let mut failing = false;
        while let Some(datapath) = datapath.upgrade() {
            match datapath.heartbeat() {
                Ok(()) => failing = false,
                Err(error) if !failing => {
                    failing = true;
                    warn!(
                        error = crate::chain(&error),
                        "the kernel cannot be told that we live"
                    );
                }
                Err(_) => {}
            }
            drop(datapath);
            std::thread::park_timeout(HEARTBEAT);
        }
    };
    if let Err(error) = std::thread::Builder::new()
        .name("heartbeat".to_owned())
        .spawn(beat)
    {
        warn!(%error, "no thread for heartbeats; connects will be refused");
    }
}

/// Applies what the controller says; the state has one writer, this task.
pub(super) async fn state(
    mut state: State,
    mut updates: impl Updates,
    mut remote_labels: watch::Receiver<Arc<BTreeMap<PeerName, Arc<Labels>>>>,
    report: watch::Sender<StateReport>,
    first_snapshot: Blocker,
) -> &'static str {
    let mut first_snapshot = Some(first_snapshot);
    let mut tick = interval(TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            update = updates.next() => {
                let Some(update) = update else { return "the controller" };
                let complete = update.complete;
                let start = Instant::now();
                tokio::task::block_in_place(|| state.apply(update));
                if complete && first_snapshot.take().is_some() {
                    info!(took = ?start.elapsed(), "the first complete snapshot is in force");
                }
            }
            changed = remote_labels.changed() => {
                if changed.is_err() {
                    return "the gateway";
                }
                let labels = BTreeMap::clone(&remote_labels.borrow_and_update());
                tokio::task::block_in_place(|| state.set_remote_labels(labels));
            }
            () = state.remember_denials() => {}
            _ = tick.tick() => tokio::task::block_in_place(|| state.tick(Instant::now())),
        }
        let now = state.report();
        report.send_if_modified(|report| {
            let changed = *report != now;
            *report = now;
            changed
        });
    }
}

/// Loads certificate files again when they change; a set that cannot be used leaves the last good
/// one in force.
pub(super) async fn credentials(
    mut watcher: Watcher,
    sender: watch::Sender<Arc<Credentials>>,
) -> &'static str {
    let mut tick = interval(RELOAD);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        match watcher.poll() {
            Ok(None) => {}
            Ok(Some(credentials)) => {
                info!(
                    generation = credentials.generation(),
                    "new certificates are in force"
                );
                sender.send_replace(credentials);
            }
            Err(error) => warn!(
                error = crate::chain(&error),
                "the new certificate files cannot all be used; the earlier certificate stays in force"
            ),
        }
    }
}

/// Puts what the kernel refused into the flow log.
pub(super) async fn refusals(
    datapath: Arc<dyn Datapath>,
    origins: Arc<NodeOrigins>,
    flows: Arc<FlowLog>,
) -> &'static str {
    let mut tick = interval(DRAIN);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        let refused = datapath.refusals();
        let recent = origins.recent();
        for refusal in refused {
            flows.refused(refusals::record(&recent, &refusal));
        }
    }
}

/// Keeps the names in the hosts file.
pub(super) async fn names(hosts: HostsFile, mut view: watch::Receiver<Arc<View>>) -> &'static str {
    let mut written = None;
    loop {
        let current = view.borrow_and_update().clone();
        let imports = current.snapshot.imports.values();
        let names: Vec<_> = imports
            .flat_map(|import| import.addresses.iter().map(|ip| (*ip, import.name.clone())))
            .collect();
        if written.as_ref() != Some(&names) {
            match tokio::task::block_in_place(|| hosts.write(names.iter().cloned())) {
                Ok(()) => written = Some(names),
                Err(error) => {
                    warn!(
                        error = crate::chain(&error),
                        "the names of imports are not up to date"
                    );
                }
            }
        }
        if view.changed().await.is_err() {
            return "the hosts file";
        }
    }
}
