//! What runs beside the gateway. Each task returns its name when it ends, which it should not.

use std::{
    collections::BTreeMap,
    os::fd::OwnedFd,
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
    io::{Interest, unix::AsyncFd},
    sync::watch,
    time::{MissedTickBehavior, interval},
};
use tracing::{info, warn};

use crate::{
    boot,
    control::{Heard, Updates},
    datapath::Datapath,
    host::HostsFile,
    last_state::LastContact,
    lease::Lease,
    refusals,
    released::{Asked, Released, ReleasedFile},
    state::{NodeOrigins, State, StateReport},
};

/// How often cgroups are looked for.
const TICK: Duration = Duration::from_millis(250);
/// How often certificate files are looked at.
const RELOAD: Duration = Duration::from_millis(500);
/// How often refusals are fetched; the kernel keeps them until then.
const DRAIN: Duration = Duration::from_millis(150);

/// What a node of a cluster may steer: its lease, and where the last contact is written down; the
/// addresses that it was asked to let go of, and where they are.
pub(super) struct Leased {
    lease: Lease,
    heard: Heard,
    last_contact: LastContact,
    holds: Option<bool>,
    /// Whether the controller has told this process everything.
    was_told: bool,
    released: Released,
    asked: watch::Receiver<Asked>,
    file: ReleasedFile,
    /// The question that is in force.
    in_force: Option<u64>,
    failing: bool,
}

impl Leased {
    pub(super) fn new(
        heard: Heard,
        last_contact: LastContact,
        released: Released,
        file: ReleasedFile,
    ) -> Self {
        Self {
            lease: Lease::new(last_contact.last()),
            heard,
            last_contact,
            holds: None,
            was_told: false,
            asked: released.asked(),
            released,
            file,
            in_force: None,
            failing: false,
        }
    }

    /// Takes in what the node was asked to let go of. Before the next process knows it, too, it is not
    /// in force: that is tried again.
    fn let_go(&mut self, state: &mut State) {
        let Asked { number, addresses } = self.asked.borrow_and_update().clone();
        if self.in_force == Some(number) {
            return;
        }
        let kept = tokio::task::block_in_place(|| {
            state.set_released(addresses.clone());
            addresses.map_or(Ok(()), |addresses| self.file.keep(&addresses))
        });
        match kept {
            Ok(()) => {
                self.failing = false;
                self.in_force = Some(number);
                self.released.is_in_force(number);
            }
            Err(error) if !self.failing => {
                self.failing = true;
                warn!(
                    %error,
                    path = %self.file.path().display(),
                    "which addresses are released cannot be kept, so the controller is not told that they are not steered any more; is --state-dir writable?"
                );
            }
            Err(_) => {}
        }
    }

    /// Takes notice of contacts, and tells the state whether it may steer.
    fn check(&mut self, state: &mut State) {
        let now = boot::time();
        // Converted once: this clock goes on while the node sleeps, the other one does not.
        if let Some(heard) = self.heard.take() {
            let at = now.saturating_sub(heard.elapsed());
            self.lease.renew(at);
            self.last_contact.note(at);
            self.was_told = true;
        }
        let holds = self.lease.holds(now);
        if self.holds.replace(holds) != Some(holds) {
            if holds {
                info!("the controller was heard from lately: imported addresses may be steered");
            } else {
                warn!(
                    "the controller was not heard from for an hour: imported addresses are not steered until it is, since some may belong to others by now; the Service path goes on"
                );
            }
            tokio::task::block_in_place(|| state.set_lease(holds));
        }
    }
}

/// What the state's task works with.
pub(super) struct StateTask<U> {
    pub(super) state: State,
    pub(super) updates: U,
    pub(super) remote_labels: watch::Receiver<Arc<BTreeMap<PeerName, Arc<Labels>>>>,
    pub(super) report: watch::Sender<StateReport>,
    /// None for a standalone peer, whose addresses are its own.
    pub(super) leased: Option<Leased>,
    /// To be done once the first complete snapshot is in force.
    pub(super) first_snapshot: Box<dyn FnOnce() + Send>,
}

/// Applies what the controller says; the state has one writer, this task.
pub(super) async fn state<U: Updates>(task: StateTask<U>) -> &'static str {
    let StateTask {
        mut state,
        mut updates,
        mut remote_labels,
        report,
        mut leased,
        first_snapshot,
    } = task;
    let mut first_snapshot = Some(first_snapshot);
    let mut is_settled = false;
    let mut tick = interval(TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let pods = pod_notifications(&state);
    if let Some(leased) = &mut leased {
        leased.let_go(&mut state);
        leased.check(&mut state);
    }
    loop {
        let was_told = leased.as_ref().is_some_and(|leased| leased.was_told);
        let settles = !is_settled && was_told && first_snapshot.is_none();
        tokio::select! {
            // What the controller said comes before the notice that it said so.
            biased;
            update = updates.next() => {
                let Some(update) = update else { return "the controller" };
                let complete = update.complete;
                let start = Instant::now();
                if let Some(leased) = &mut leased {
                    leased.let_go(&mut state);
                }
                tokio::task::block_in_place(|| state.apply(update));
                if complete && let Some(then) = first_snapshot.take() {
                    info!(took = ?start.elapsed(), "the first complete snapshot is in force");
                    if let Some(leased) = &mut leased {
                        leased.check(&mut state);
                    }
                    then();
                }
            }
            // There was nothing left to apply of what came before that notice.
            () = std::future::ready(()), if settles => {
                is_settled = true;
                state.settle();
            }
            () = asked(leased.as_mut()) => {
                if let Some(leased) = &mut leased {
                    leased.let_go(&mut state);
                }
            }
            () = readable(pods.as_ref()) => {
                tokio::task::block_in_place(|| state.tick(Instant::now()));
            }
            changed = remote_labels.changed() => {
                if changed.is_err() {
                    return "the gateway";
                }
                let labels = BTreeMap::clone(&remote_labels.borrow_and_update());
                tokio::task::block_in_place(|| state.set_remote_labels(labels));
            }
            () = state.remember_denials() => {}
            _ = tick.tick() => {
                tokio::task::block_in_place(|| state.tick(Instant::now()));
                if let Some(leased) = &mut leased {
                    leased.let_go(&mut state);
                    leased.check(&mut state);
                }
            }
        }
        let now = state.report();
        report.send_if_modified(|report| {
            let changed = *report != now;
            *report = now;
            changed
        });
    }
}

/// Completes when the node is asked about released addresses.
async fn asked(leased: Option<&mut Leased>) {
    let Some(leased) = leased else {
        return std::future::pending().await;
    };
    // The sender is held beside the receiver.
    let _ = leased.asked.changed().await;
}

/// Readable when pods' cgroups come or go. Where that cannot be, the tick finds them.
#[expect(
    deprecated,
    reason = "its successor is unsafe for the sake of types that do not own their descriptor"
)]
fn pod_notifications(state: &State) -> Option<AsyncFd<OwnedFd>> {
    let notifications = state.pod_notifications()?;
    notifications
        .and_then(|fd| AsyncFd::with_interest(fd, Interest::READABLE))
        .inspect_err(|error| warn!(%error, "new pods' cgroups are found four times a second only"))
        .ok()
}

async fn readable(fd: Option<&AsyncFd<OwnedFd>>) {
    let Some(fd) = fd else {
        return std::future::pending().await;
    };
    match fd.readable().await {
        // Whoever is woken reads everything.
        Ok(mut ready) => ready.clear_ready(),
        Err(_) => std::future::pending().await,
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
