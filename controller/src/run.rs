//! The index task: reads the streams, settles what they change, publishes it.

use std::{ops::RangeInclusive, sync::Arc, time::Duration};

use futures::{Stream, StreamExt, stream};
use jiff::Timestamp;
use tokio::{
    runtime,
    sync::watch,
    task::JoinHandle,
    time::{Instant, sleep_until},
};

mod currency;

use self::currency::{Currency, Known};
use crate::{
    agents::{AgentTable, Agents},
    cluster::{Cluster, ClusterConfig, Desired},
    config::Config,
    index::{Index, Input, Provider},
    leases::Leases,
    publish::{Publisher, Subscriber, Subscription},
    source::{Problem, Problems, Source, Streams},
    state_file::StateFileError,
    status::{ControllerStatus, SharedStatus},
    valid_denies::{DenyPort, Reading, ValidDenies},
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
    desired: Desired,
    denies: Option<DenyPort>,
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
    check_ports(&config.target_ports)?;
    if config.service_cidrs.is_empty() {
        return Err(Error::NoServiceCidr);
    }
    let denies = ValidDenies::open(config.state_dir.join("policies.json"))?;
    let leases = Leases::open(&config)?;
    tracing::debug!(peer = %config.peer.name, "the controller starts");
    let inquiry = Inquiry {
        agents: Agents::default().table(),
        desired: Desired::default(),
        collect_news: config.collect_news,
        denies: None,
    };
    Ok(spawn(
        Provider::Leases(Box::new(leases)),
        denies,
        inquiry,
        source,
    ))
}

/// Starts the controller of a cluster on the current tokio runtime: addresses and target ports of
/// Imports are what Services and Imports say, and [`Handle::desired`] is what makes them say it.
/// Nothing is published before [`Handle::denies`] was told of the valid denies of before.
///
/// # Errors
/// When the settings are contradictory.
#[expect(
    clippy::needless_pass_by_value,
    reason = "the settings are the controller's from here on"
)]
pub fn start_in_cluster(
    config: ClusterConfig,
    source: impl Source,
    agents: Agents,
) -> Result<Handle, Error> {
    check_ports(&config.target_ports)?;
    let (denies, port, readings) = ValidDenies::elsewhere();
    tracing::debug!(peer = %config.peer.name, "the controller of the cluster starts");
    let table = agents.table();
    let cluster = Cluster::new(&config, agents);
    let inquiry = Inquiry {
        agents: table,
        desired: cluster.desired().clone(),
        collect_news: true,
        denies: Some((port, readings)),
    };
    let provider = Provider::Cluster(Box::new(cluster));
    Ok(spawn(provider, denies, inquiry, source))
}

/// What is heard beside the source.
struct Inquiry {
    agents: watch::Receiver<Arc<AgentTable>>,
    desired: Desired,
    /// Whether what is found out about objects is collected for a writer of their status.
    collect_news: bool,
    /// Where the valid denies are told of, if they are not in a file.
    denies: Option<(DenyPort, watch::Receiver<Arc<Reading>>)>,
}

fn check_ports(range: &RangeInclusive<u16>) -> Result<(), Error> {
    let (start, end) = (*range.start(), *range.end());
    if start > end {
        return Err(Error::EmptyTargetPorts { start, end });
    }
    Ok(())
}

fn spawn(provider: Provider, denies: ValidDenies, inquiry: Inquiry, source: impl Source) -> Handle {
    let status = Arc::new(SharedStatus::default());
    let index = Index::new(provider, denies, Arc::clone(&status));
    status.set_missing(index.missing());
    if inquiry.collect_news {
        status.lock().news.begin();
    }
    let desired = inquiry.desired.clone();
    let denies = inquiry.denies.as_ref().map(|(port, _)| port.clone());
    let publisher = Publisher::new();
    let subscriber = publisher.subscriber();
    let (streams, problems) = Box::new(source).start();
    let (stop, stopped) = watch::channel(false);
    let runtime = runtime::Handle::current();
    let shared = Arc::clone(&status);
    let problems_too = problems.clone();
    // Settling is computation and file writes: a thread of its own keeps both off the runtime.
    let task = tokio::task::spawn_blocking(move || {
        let inputs = inputs(streams);
        runtime.block_on(run(
            index, &shared, publisher, inputs, problems, inquiry, stopped,
        ));
    });
    Handle {
        subscriber,
        status,
        problems: problems_too,
        desired,
        denies,
        stop,
        task,
    }
}

impl Handle {
    /// A new reader of the resources: first all of them, then what changes.
    pub fn subscribe(&self) -> Subscription {
        self.subscriber.subscribe()
    }

    /// Makes readers, for those who serve others.
    pub fn subscriber(&self) -> Subscriber {
        self.subscriber.clone()
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

    /// What is to be written to the API server; nothing for a standalone peer.
    pub fn desired(&self) -> Desired {
        self.desired.clone()
    }

    /// Where valid denies are read and stored; nothing for a standalone peer, which has a file.
    pub fn denies(&self) -> Option<DenyPort> {
        self.denies.clone()
    }

    /// Stops, and waits until everything that was begun is written.
    pub async fn shutdown(self) {
        let Self {
            stop,
            task,
            subscriber: _,
            status: _,
            problems: _,
            desired: _,
            denies: _,
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
        nodes,
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
        nodes.map(|event| Input::Node(Box::new(event))).boxed(),
    ])
}

async fn run(
    mut index: Index,
    status: &SharedStatus,
    publisher: Publisher,
    inputs: impl Stream<Item = Input> + Unpin,
    mut problems: watch::Receiver<Arc<Vec<Problem>>>,
    inquiry: Inquiry,
    mut stopped: watch::Receiver<bool>,
) {
    let Inquiry {
        mut agents,
        desired,
        collect_news: _,
        denies,
    } = inquiry;
    // The port is held, too, so that the readings go on.
    let (_port, mut readings) = denies.unzip();
    let mut agents_open = true;
    let mut failures = desired.failures();
    let mut inputs = inputs.ready_chunks(BATCH);
    let mut inputs_open = true;
    let mut problems_open = true;
    let mut wake_at: Option<Instant> = None;
    let mut currency = Currency::default();
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
            changed = agents.changed(), if agents_open => {
                agents_open = changed.is_ok();
                index.apply(Input::Agents(agents.borrow_and_update().clone()));
            }
            reading = next(&mut readings) => index.apply(Input::Denies(reading)),
            // The sending end is that of `desired`, which is held here.
            _ = failures.changed() => index.apply(Input::Written(desired.take_failed())),
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
        // Before anything is decided upon it: what is wanted then is not to be written.
        let known = currency.check(index.old(), Index::DECIDING, Instant::now());
        if let Known::Old(until) = known {
            desired.hold(true);
            wake_at = wake_at.into_iter().chain(until).min();
        }
        if index.is_complete() {
            let start = Instant::now();
            let settled = index.settle(Timestamp::now());
            status.settle_times.observe(start.elapsed());
            publisher.publish(settled.changes);
            if settled.retry {
                wake_at.get_or_insert_with(|| Instant::now() + RETRY);
            }
            if let Some(time) = settled.wake {
                let pause = Duration::try_from(time.duration_since(Timestamp::now()));
                // What is due was done just now, or cannot be done: it is tried again a bit later.
                let wake = Instant::now() + pause.unwrap_or_default().max(RETRY);
                wake_at = Some(wake_at.map_or(wake, |at| at.min(wake)));
            }
        }
        if known == Known::Current {
            desired.hold(false);
        }
    }
}

/// What was stored before, as it is read; never, where it is in a file.
async fn next(readings: &mut Option<watch::Receiver<Arc<Reading>>>) -> Arc<Reading> {
    if let Some(readings) = readings
        && readings.changed().await.is_ok()
    {
        return Arc::clone(&readings.borrow_and_update());
    }
    std::future::pending().await
}

#[cfg(test)]
mod tests;
