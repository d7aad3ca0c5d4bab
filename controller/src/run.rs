//! The index task: reads the streams, settles what they change, publishes it.

use std::{sync::Arc, time::Duration};

use futures::{Stream, StreamExt, stream};
use jiff::Timestamp;
use tokio::{
    runtime,
    sync::watch,
    task::JoinHandle,
    time::{Instant, sleep_until},
};

use crate::{
    config::Config,
    index::{Index, Input},
    leases::Leases,
    publish::{Publisher, Subscriber, Subscription},
    source::{Problem, Problems, Source, Streams},
    state_file::StateFileError,
    status::{ControllerStatus, SharedStatus},
    valid_denies::ValidDenies,
};

/// How many waiting events are taken in before what they change is published.
const BATCH: usize = 4096;
/// When to try again after a file of the state directory could not be written, and to look again
/// at what is kept for unreadable manifests.
const RETRY: Duration = Duration::from_secs(1);

/// Why the controller cannot start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// What it remembers cannot be used.
    #[error(transparent)]
    State(#[from] StateFileError),
    /// There is nowhere to take addresses from.
    #[error("no range for the imports' addresses is given: set --service-cidr")]
    NoServiceCidr,
    /// The settings contradict themselves.
    #[error("target port range {start}-{end} is empty: give the lower port first")]
    EmptyTargetPorts {
        /// Its first port.
        start: u16,
        /// Its last port.
        end: u16,
    },
}

/// A running controller; dropping it stops it.
#[derive(Debug)]
pub struct Handle {
    subscriber: Subscriber,
    status: Arc<SharedStatus>,
    problems: Problems,
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

/// Starts the controller on the current tokio runtime.
///
/// # Errors
/// When the state directory holds files that cannot be used, or the settings are contradictory.
#[expect(
    clippy::needless_pass_by_value,
    reason = "the settings are the controller's from here on"
)]
pub fn start(config: Config, source: impl Source) -> Result<Handle, Error> {
    let (start, end) = (*config.target_ports.start(), *config.target_ports.end());
    if start > end {
        return Err(Error::EmptyTargetPorts { start, end });
    }
    if config.service_cidrs.is_empty() {
        return Err(Error::NoServiceCidr);
    }
    let denies = ValidDenies::open(config.state_dir.join("policies.json"))?;
    let leases = Leases::open(&config)?;
    let status = Arc::new(SharedStatus::default());
    let index = Index::new(leases, denies, Arc::clone(&status));
    status.set_missing(index.missing());
    if config.collect_news {
        status.lock().news.begin();
    }
    let publisher = Publisher::new();
    let subscriber = publisher.subscriber();
    let (streams, problems) = Box::new(source).start();
    let (stop, stopped) = watch::channel(false);
    let runtime = runtime::Handle::current();
    let shared = Arc::clone(&status);
    let problems_too = problems.clone();
    tracing::debug!(peer = %config.peer.name, "the controller starts");
    // Settling is computation and file writes: a thread of its own keeps both off the runtime.
    let task = tokio::task::spawn_blocking(move || {
        let inputs = inputs(streams);
        runtime.block_on(run(index, &shared, publisher, inputs, problems, stopped));
    });
    Ok(Handle {
        subscriber,
        status,
        problems: problems_too,
        stop,
        task,
    })
}

impl Handle {
    /// A new reader of the resources: first all of them, then what changes.
    pub fn subscribe(&self) -> Subscription {
        self.subscriber.subscribe()
    }

    /// The status of every object, as of now.
    pub fn status(&self) -> Arc<ControllerStatus> {
        self.status.snapshot()
    }

    /// What is wrong with the manifests, as it changes.
    pub fn problems(&self) -> Problems {
        self.problems.clone()
    }

    /// The board, for the parts of this crate that run beside the index.
    #[cfg(feature = "api-server")]
    pub(crate) fn shared_status(&self) -> Arc<SharedStatus> {
        Arc::clone(&self.status)
    }

    /// The kinds that were not read completely yet, as they get fewer.
    pub fn missing(&self) -> watch::Receiver<Vec<&'static str>> {
        self.status.missing()
    }

    /// Stops, and waits until everything that was begun is written.
    pub async fn shutdown(self) {
        let Self {
            stop,
            task,
            subscriber: _,
            status: _,
            problems: _,
        } = self;
        drop(stop);
        if let Err(error) = task.await {
            tracing::error!(%error, "the controller's index task has failed");
        }
    }
}

fn inputs(streams: Streams) -> impl Stream<Item = Input> + Unpin {
    let Streams {
        exports,
        imports,
        peers,
        access_policies,
        privileged_access_policies,
        services,
        endpoint_slices,
        pods,
        namespaces,
    } = streams;
    stream::select_all([
        exports.map(Input::Export).boxed(),
        imports.map(Input::Import).boxed(),
        peers.map(Input::Peer).boxed(),
        access_policies.map(Input::AccessPolicy).boxed(),
        privileged_access_policies
            .map(Input::PrivilegedAccessPolicy)
            .boxed(),
        services.map(Input::Service).boxed(),
        endpoint_slices.map(Input::EndpointSlice).boxed(),
        pods.map(|event| Input::Pod(Box::new(event))).boxed(),
        namespaces.map(Input::Namespace).boxed(),
    ])
}

async fn run(
    mut index: Index,
    status: &SharedStatus,
    publisher: Publisher,
    inputs: impl Stream<Item = Input> + Unpin,
    mut problems: watch::Receiver<Arc<Vec<Problem>>>,
    mut stopped: watch::Receiver<bool>,
) {
    let mut inputs = inputs.ready_chunks(BATCH);
    let mut inputs_open = true;
    let mut problems_open = true;
    let mut wake_at: Option<Instant> = None;
    index.apply(Input::Problems(problems.borrow_and_update().clone()));
    loop {
        tokio::select! {
            // In this order: nothing may be waited for once the runtime shuts down, and a busy
            // source may not keep the others from their turn.
            biased;
            // The sending end is never used but only dropped.
            _ = stopped.changed() => return,
            () = sleep_until(wake_at.unwrap_or_else(Instant::now)), if wake_at.is_some() => {
                wake_at = None;
                index.recheck_held();
            }
            changed = problems.changed(), if problems_open => {
                problems_open = changed.is_ok();
                index.apply(Input::Problems(problems.borrow_and_update().clone()));
                wake_at.get_or_insert_with(|| Instant::now() + RETRY);
            }
            batch = inputs.next(), if inputs_open => match batch {
                Some(batch) => batch.into_iter().for_each(|input| index.apply(input)),
                None => {
                    tracing::error!(
                        missing = ?index.missing(),
                        "the manifest source has ended: what it said last stays in force"
                    );
                    inputs_open = false;
                }
            },
        }
        // Problems are read first: they say whether a missing object is only unreadable.
        if problems.has_changed().unwrap_or(false) {
            index.apply(Input::Problems(problems.borrow_and_update().clone()));
            wake_at.get_or_insert_with(|| Instant::now() + RETRY);
        }
        status.set_missing(index.missing());
        if index.is_complete() {
            let start = Instant::now();
            let settled = index.settle(Timestamp::now());
            status.settle_times.observe(start.elapsed());
            publisher.publish(settled.changes);
            if settled.retry {
                wake_at.get_or_insert_with(|| Instant::now() + RETRY);
            }
        }
    }
}

#[cfg(test)]
mod tests;
