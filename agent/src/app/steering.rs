//! How connects get to the gateway: by the kernel's hooks, where the kernel lets us.

use std::{
    net::{IpAddr, SocketAddrV4, SocketAddrV6},
    path::PathBuf,
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread::JoinHandle,
    time::Duration,
};

use tracing::{info, warn};

use super::{AgentError, Config, Ebpf};
use crate::{
    admin::status::Steering,
    datapath::{self, Datapath, DatapathError, KernelDatapath, OffDatapath},
};

/// How often the kernel is told that the gateway is alive; it gives up after two seconds.
const HEARTBEAT: Duration = Duration::from_millis(500);

/// The datapath that was chosen.
pub(super) struct Chosen {
    pub(super) datapath: Arc<dyn Datapath>,
    /// The same, if it is the kernel's.
    pub(super) kernel: Option<Arc<KernelDatapath>>,
    /// Why the kernel has no part in it, neither at connects nor on the Service path, if so.
    pub(super) off: Option<String>,
}

/// Loads the kernel's programs, or finds out why that is not to be.
pub(super) fn choose(
    config: &Config,
    given: Option<Arc<dyn Datapath>>,
    addresses: &[IpAddr],
    cgroup: PathBuf,
) -> Result<Chosen, AgentError> {
    if let Some(datapath) = given {
        return Ok(Chosen {
            datapath,
            kernel: None,
            off: None,
        });
    }
    if config.ebpf == Ebpf::Off {
        return off(config, "switched off by --ebpf off".to_owned());
    }
    match load(config, addresses, cgroup) {
        Ok(kernel) => {
            let kernel = Arc::new(kernel);
            Ok(Chosen {
                datapath: kernel.clone(),
                kernel: Some(kernel),
                off: None,
            })
        }
        Err(error) if config.ebpf == Ebpf::Auto => off(config, crate::chain(&error)),
        Err(error) => Err(AgentError::Datapath(error)),
    }
}

/// Without the kernel a node of a cluster listens at target ports itself. What an earlier agent left
/// there would refuse these connections for ten minutes, so it goes first.
fn off(config: &Config, reason: String) -> Result<Chosen, AgentError> {
    if config.node().is_some() {
        let removed = datapath::remove_pins(&config.bpf_dir).map_err(AgentError::Leftovers)?;
        if !removed.links.is_empty() {
            info!(
                programs = removed.links.len(),
                pins = %config.bpf_dir.display(),
                "removed what an earlier agent left in the kernel"
            );
        }
    }
    warn!(
        reason,
        "connects are not steered in the kernel; the Service path serves alone"
    );
    Ok(Chosen {
        datapath: Arc::new(OffDatapath),
        kernel: None,
        off: Some(reason),
    })
}

fn load(
    config: &Config,
    addresses: &[IpAddr],
    cgroup: PathBuf,
) -> Result<KernelDatapath, DatapathError> {
    let port = config.steering_port;
    let v4 = addresses.iter().find_map(|address| match address {
        IpAddr::V4(address) => Some(SocketAddrV4::new(*address, port)),
        IpAddr::V6(_) => None,
    });
    let v6 = addresses.iter().find_map(|address| match address {
        IpAddr::V6(address) => Some(SocketAddrV6::new(*address, port, 0, 0)),
        IpAddr::V4(_) => None,
    });
    KernelDatapath::start(datapath::Config {
        bpf_dir: config.bpf_dir.clone(),
        cgroup,
        gateway_v4: v4,
        gateway_v6: v6,
        pass_when_stale: config.node().is_some(),
        service_path: config.node().is_some(),
        log_level: config.kernel_log_level,
    })
}

/// Finds out whether the hooks see our connects.
pub(super) fn probe(config: &Config, chosen: &Chosen) -> Result<Steering, AgentError> {
    if let Some(reason) = &chosen.off {
        return Ok(Steering {
            on: false,
            reason: Some(reason.clone()),
        });
    }
    match chosen.datapath.probe() {
        Ok(()) => Ok(Steering {
            on: true,
            reason: None,
        }),
        Err(error) if config.ebpf == Ebpf::Auto => {
            let reason = crate::chain(&error);
            warn!(
                reason,
                "connects are not steered in the kernel; the Service path serves alone"
            );
            Ok(Steering {
                on: false,
                reason: Some(reason),
            })
        }
        Err(error) => Err(AgentError::Datapath(error)),
    }
}

/// Tells the kernel that the gateway is alive, on a thread of its own: a busy runtime must not
/// stop connects. Cloning shares it.
#[derive(Clone, Default)]
pub(super) struct Heart(Arc<Mutex<Beating>>);

#[derive(Default)]
struct Beating {
    stopped: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Heart {
    /// Beats once, and then again and again until it is stopped or the datapath is dropped. A heart
    /// that was stopped stays so.
    pub(super) fn start(&self, datapath: &Arc<dyn Datapath>) -> Result<(), DatapathError> {
        let mut beating = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if beating.stopped.load(Relaxed) {
            return Ok(());
        }
        datapath.heartbeat()?;
        let (datapath, stopped) = (Arc::downgrade(datapath), beating.stopped.clone());
        beating.thread = std::thread::Builder::new()
            .name("heartbeat".to_owned())
            .spawn(move || beat(&datapath, &stopped))
            .inspect_err(|error| warn!(%error, "no thread for heartbeats; nothing is steered"))
            .ok();
        Ok(())
    }

    /// The last beat is over when this returns. Says whether there was any.
    pub(super) fn stop(&self) -> bool {
        let mut beating = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        beating.stopped.store(true, Relaxed);
        let Some(thread) = beating.thread.take() else {
            return false;
        };
        thread.thread().unpark();
        if thread.join().is_err() {
            warn!("the heartbeat's thread panicked");
        }
        true
    }
}

fn beat(datapath: &Weak<dyn Datapath>, stopped: &AtomicBool) {
    let mut failing = false;
    loop {
        std::thread::park_timeout(HEARTBEAT);
        let Some(datapath) = datapath.upgrade().filter(|_| !stopped.load(Relaxed)) else {
            return;
        };
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
    }
}
