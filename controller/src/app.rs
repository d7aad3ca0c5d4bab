//! The wiring of the controller's process: what is built, in which order, and how it stops.
//!
//! ```text
//! flags ─▶ sockets ─▶ client ─▶ index (source: API server) ─▶ election ─▶ status writer, Events
//!                                   └─▶ writer of Services and EndpointSlices, push server
//! stop: not ready ─▶ writers ─▶ lease given back ─▶ index
//! ```

mod args;
mod client;
mod identity;
mod parts;
mod push;
mod settings;

use std::{net::SocketAddr, process::ExitCode, sync::Arc, time::Duration};

use anyhow::Context as _;
use clap::Parser as _;
use clusterlink_model::LocalPeer;
use clusterlink_process::{
    USAGE, limits, logging,
    readiness::{Blocker, Readiness},
    signals,
};
use kube::Client;
use prometheus_client::registry::Registry;
use tokio::{net::TcpListener, task::JoinSet, time::timeout};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

pub use self::identity::IdentityError;
pub(crate) use self::settings::Settings;
use self::{
    args::Args,
    parts::{Parts, cluster_config, plug_in},
    settings::Checked,
};
use crate::{
    Handle,
    admin::{self, Served},
    agents::Agents,
    leader::{Election, Holder},
    metrics::{ControllerMetrics, Writes},
    source::api_server::ApiServer,
    status::{
        events::{self, Events},
        writer::{self, ApiSink, Writer},
    },
};

/// How long parts may take to end in good order; shorter than a pod's grace period.
const GRACE: Duration = Duration::from_secs(5);

/// Parses the command line, runs until a signal, and maps errors to exit codes.
pub fn main() -> ExitCode {
    let Checked {
        settings,
        filter,
        log_format,
    } = match Settings::check(Args::parse()) {
        Ok(checked) => checked,
        Err(problems) => {
            for problem in problems {
                eprintln!("clusterlink-controller: {problem}");
            }
            return ExitCode::from(USAGE);
        }
    };
    logging::start(filter, log_format);
    limits::raise_open_files();
    info!(?settings, "the effective settings");
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("cannot start the runtime");
    let result = runtime.and_then(|runtime| {
        let result = runtime.block_on(async {
            let stop = signals::stop_on_signals("the lease runs out by itself")?;
            run(settings, stop).await
        });
        // A call that the API server does not answer must not keep the process.
        runtime.shutdown_background();
        result
    });
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("clusterlink-controller: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(settings: Settings, stop: CancellationToken) -> anyhow::Result<()> {
    let listener = bind("--listen", settings.listen).await?;
    let admin = bind("--metrics", settings.metrics).await?;
    let config = client_config(&settings).await?;
    let push = SocketAddr::new(
        identity::advertised(settings.advertise, settings.listen, &config).await?,
        listener
            .local_addr()
            .context("no address to listen at")?
            .port(),
    );
    let client = client::client(config, settings.timing)?;
    let name = match &settings.peer_name {
        Some(name) => name.clone(),
        None => identity::peer_name(&client, &settings.namespace).await?,
    };
    let local = LocalPeer {
        name,
        labels: settings.labels.clone(),
    };
    let holder = Holder {
        identity: settings.identity.clone(),
        push,
    };
    info!(peer = %local.name, holder = %holder, "starting");
    let mut process = Process::new(stop);
    process
        .start(&settings, local, client, holder, (listener, admin))
        .await?;
    process.serve().await
}

/// Everything that runs.
struct Process {
    stop: CancellationToken,
    readiness: Readiness,
    stopping: Option<Blocker>,
    /// Tasks that end in good order when the process stops; nobody else may write before.
    tasks: JoinSet<&'static str>,
    /// Tasks that are ended with the process.
    background: JoinSet<&'static str>,
    election: JoinSet<()>,
    election_stop: CancellationToken,
    controller: Option<Handle>,
}

impl Process {
    fn new(stop: CancellationToken) -> Self {
        Self {
            stop,
            readiness: Readiness::default(),
            stopping: None,
            tasks: JoinSet::new(),
            background: JoinSet::new(),
            election: JoinSet::new(),
            election_stop: CancellationToken::new(),
            controller: None,
        }
    }

    async fn start(
        &mut self,
        settings: &Settings,
        local: LocalPeer,
        client: Client,
        holder: Holder,
        (listener, admin): (TcpListener, TcpListener),
    ) -> anyhow::Result<()> {
        let source = ApiServer::new(client.clone(), settings.namespace.clone());
        let agents = Agents::default();
        let config = cluster_config(settings, local.clone());
        let controller = crate::start_in_cluster(config, source, agents.clone())?;
        let election = Election::new(
            client.clone(),
            &settings.namespace,
            &holder,
            settings.timing,
        );
        let leadership = election.leadership();
        let mut registry = Registry::default();
        let writes = Writes::default();
        writes.register(&mut registry);
        ControllerMetrics {
            status: controller.shared_status(),
            problems: controller.problems(),
            leadership: leadership.clone(),
            agents: agents.table(),
        }
        .register(&mut registry);
        let (events, publishing) = Events::new(client.clone(), &settings.identity, writes.clone());
        self.spawn("the publisher of Events", publishing);
        let writer = Writer::new(writer::Parts {
            status: controller.shared_status(),
            agents: agents.clone(),
            leadership: leadership.clone(),
            system_namespace: settings.namespace.clone(),
            sink: Arc::new(ApiSink::new(client.clone())),
            teller: events.clone(),
            writes,
        });
        let stop = self.stop.clone();
        self.tasks.spawn(async move {
            writer.run(stop).await;
            "the status writer"
        });
        let undecodable =
            events::undecodable(controller.problems(), leadership.clone(), events.clone());
        self.spawn("the teller of undecodable objects", undecodable);
        let keeping = events::keeping(agents.keeping(), leadership.clone(), events.clone());
        self.spawn("the teller of kept addresses", keeping);
        plug_in(Parts {
            settings,
            client: &client,
            controller: &controller,
            agents: &agents,
            teller: Arc::new(events),
            leadership,
            listener,
            readiness: &self.readiness,
            registry: &mut registry,
            tasks: &mut self.tasks,
            background: &mut self.background,
            stop: &self.stop,
        });
        self.election
            .spawn(election.run(self.election_stop.clone()));
        let served = Served {
            readiness: self.readiness.clone(),
            missing: controller.missing(),
            registry: Arc::new(registry),
        };
        self.background.spawn(async move {
            let _ = axum::serve(admin, admin::router(served)).await;
            "the endpoint for metrics"
        });
        self.controller = Some(controller);
        Ok(())
    }

    /// A task that ends with the process.
    fn spawn(&mut self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        self.background.spawn(async move {
            task.await;
            name
        });
    }

    async fn serve(mut self) -> anyhow::Result<()> {
        let ended = tokio::select! {
            // Tasks end because of the stop, too.
            biased;
            () = self.stop.cancelled() => None,
            Some(ended) = self.tasks.join_next() => Some(ended),
            Some(ended) = self.background.join_next() => Some(ended),
        };
        info!("stopping");
        self.stopping = Some(self.readiness.block("the end of this process"));
        self.stop.cancel();
        // Writers have stopped before another replica may begin.
        let tasks = &mut self.tasks;
        let ends = async { while tasks.join_next().await.is_some() {} };
        if timeout(GRACE, ends).await.is_err() {
            warn!(?GRACE, "not everything has ended in time: it is ended now");
            self.tasks.shutdown().await;
        }
        self.election_stop.cancel();
        while self.election.join_next().await.is_some() {}
        if let Some(controller) = self.controller.take() {
            controller.shutdown().await;
        }
        self.background.shutdown().await;
        match ended {
            None => Ok(()),
            Some(ended) => {
                let name = ended.context("a part of this process has failed")?;
                anyhow::bail!(
                    "{name} has ended; this is a fault of this program, its log says more"
                )
            }
        }
    }
}

async fn bind(flag: &str, address: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address)
        .await
        .with_context(|| format!("cannot listen at {address}; choose another {flag}"))
}

async fn client_config(settings: &Settings) -> anyhow::Result<kube::Config> {
    let Some(file) = &settings.kubeconfig else {
        return kube::Config::infer()
            .await
            .context("not in a pod, and there is no kubeconfig; give --kubeconfig");
    };
    let read = kube::config::Kubeconfig::read_from(file)
        .with_context(|| format!("cannot read --kubeconfig {}", file.display()))?;
    kube::Config::from_custom_kubeconfig(read, &kube::config::KubeConfigOptions::default())
        .await
        .with_context(|| format!("cannot use --kubeconfig {}", file.display()))
}
