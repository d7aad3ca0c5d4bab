//! From flags to settings that cannot be wrong.

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
    num::NonZeroUsize,
    path::{Path, PathBuf},
};

use clusterlink_agent::{app, datapath};
use clusterlink_gateway::tls::Watcher;
use clusterlink_model::LocalPeer;
use clusterlink_process::{
    logging::{self, LogFormat},
    settings::Problems,
};
use ipnet::IpNet;
use tracing_subscriber::EnvFilter;

use super::args::{EbpfMode, RunArgs};

/// More workers than this do not help on the hosts that we measured.
const DEFAULT_WORKERS: usize = 4;
const MAX_WORKERS: usize = 64;

/// Everything that a standalone peer needs to start.
pub(super) struct Settings {
    pub(super) filter: EnvFilter,
    pub(super) log_format: LogFormat,
    pub(super) agent: app::Config,
    pub(super) controller: clusterlink_controller::Config,
    pub(super) credentials: Watcher,
    pub(super) manifests: PathBuf,
}

impl Settings {
    /// Checks all flags; every wrong value is named.
    pub(super) fn check(args: RunArgs) -> Result<Self, Vec<String>> {
        let mut problems = Problems::default();
        let filter = problems.keep(
            logging::filter(&args.log)
                .and_then(|filter| logging::with_kernel(filter, &args.kernel_log))
                .map_err(|e| format!("{e:#}")),
        );
        let credentials = problems.keep(Watcher::open(&args.certs, 1).map_err(|error| {
            format!(
                "--certs {}: {}",
                args.certs.display(),
                clusterlink_agent::chain(&error)
            )
        }));
        if !args.manifests.is_dir() {
            problems.add(format!(
                "--manifests {}: no such directory; make it, or name another",
                args.manifests.display()
            ));
        }
        let listen = problems.parse::<SocketAddr>(
            "--listen",
            &args.listen,
            "ADDR:PORT, such as 0.0.0.0:4443",
        );
        let metrics = if args.metrics == "off" {
            None
        } else {
            problems.parse::<SocketAddr>("--metrics", &args.metrics, "ADDR:PORT, or off")
        };
        let gateway_addresses = addresses(&mut problems, &args.gateway_address);
        let service_cidrs = ranges(&mut problems, &args.service_cidr);
        for address in &gateway_addresses {
            if let Some(range) = service_cidrs.iter().find(|range| range.contains(address)) {
                problems.add(format!(
                    "--gateway-address {address} lies within --service-cidr {range}; choose another of the two"
                ));
            }
        }
        let labels = problems.labels("--label", &args.label);
        let workers = workers(&mut problems, args.workers.as_deref());
        let cgroup = args.cgroup.and_then(|path| problems.keep(cgroup(&path)));
        if args.ebpf == EbpfMode::Off {
            problems.add(
                "--ebpf off: steering without eBPF comes later; use auto or require".to_owned(),
            );
        }
        let (Some(filter), Some(credentials), Some(listen), Some(workers), true) =
            (filter, credentials, listen, workers, problems.is_empty())
        else {
            return Err(problems.into_vec());
        };
        let local = LocalPeer {
            name: credentials.current().name().clone(),
            labels,
        };
        let bpf_dir = args
            .bpf_dir
            .unwrap_or_else(|| Path::new("/sys/fs/bpf/clusterlink").join(local.name.as_str()));
        let state_dir = args.state.state_dir;
        let mut controller = clusterlink_controller::Config::new(
            local.clone(),
            service_cidrs.clone(),
            state_dir.clone(),
        );
        controller.own_ports = BTreeSet::from([listen.port(), app::STEERING_PORT]);
        controller
            .own_ports
            .extend(metrics.map(|address| address.port()));
        Ok(Self {
            filter,
            log_format: args.log.log_format,
            agent: app::Config {
                local,
                listen,
                gateway_addresses_explicit: !args.gateway_address.is_empty(),
                gateway_addresses,
                service_cidrs,
                hosts_file: args.hosts_file,
                cgroup,
                bpf_dir,
                state_dir,
                require_listed_peers: args.require_listed_peers,
                metrics,
                admin: args.admin.admin,
                workers,
                software: env!("CARGO_PKG_VERSION").to_owned(),
                random_seed: args.random_seed,
                kernel_log_level: args.kernel_log.kernel_log_level.number(),
            },
            controller,
            credentials,
            manifests: args.manifests,
        })
    }
}

fn addresses(problems: &mut Problems, texts: &[String]) -> Vec<IpAddr> {
    if texts.is_empty() {
        return vec![
            [169, 254, 77, 1].into(),
            [0xfd77, 0x636c, 0, 0, 0, 0, 0, 1].into(),
        ];
    }
    let mut addresses: Vec<IpAddr> = Vec::new();
    for text in texts {
        let Some(address) = problems.parse::<IpAddr>("--gateway-address", text, "an IP address")
        else {
            continue;
        };
        if address.is_loopback() || address.is_unspecified() || address.is_multicast() {
            problems.add(format!(
                "--gateway-address {address}: not reachable from containers; choose a private or link-local address"
            ));
        } else if addresses
            .iter()
            .any(|other| other.is_ipv4() == address.is_ipv4())
        {
            problems.add(format!(
                "--gateway-address {address}: the second of its family; give one"
            ));
        } else {
            addresses.push(address);
        }
    }
    addresses
}

fn ranges(problems: &mut Problems, texts: &[String]) -> Vec<IpNet> {
    let defaults = ["10.114.0.0/16".to_owned(), "fd77:636d::/112".to_owned()];
    let texts = if texts.is_empty() {
        &defaults[..]
    } else {
        texts
    };
    let mut ranges: Vec<IpNet> = Vec::new();
    for text in texts {
        let Some(range) = problems.parse::<IpNet>("--service-cidr", text, "such as 10.114.0.0/16")
        else {
            continue;
        };
        if range.prefix_len() == 0 {
            problems.add(format!(
                "--service-cidr {range}: would cut this host off; choose a smaller range"
            ));
        } else if range != range.trunc() {
            problems.add(format!(
                "--service-cidr {range}: has host bits; write {}",
                range.trunc()
            ));
        } else {
            ranges.push(range);
        }
    }
    ranges
}

fn workers(problems: &mut Problems, text: Option<&str>) -> Option<NonZeroUsize> {
    let Some(text) = text else {
        let cores = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
        return NonZeroUsize::new(cores.min(DEFAULT_WORKERS));
    };
    let workers = problems.parse::<NonZeroUsize>("--workers", text, "a number from 1 to 64")?;
    if workers.get() > MAX_WORKERS {
        problems.add(format!(
            "--workers {workers}: write a number from 1 to {MAX_WORKERS}"
        ));
        return None;
    }
    Some(workers)
}

/// A path under the cgroup v2 mount, or relative to it.
fn cgroup(path: &Path) -> Result<PathBuf, String> {
    let mount = datapath::cgroup2_mount().map_err(|error| format!("--cgroup: {error}"))?;
    let inside = if path.starts_with(&mount) {
        path.to_owned()
    } else {
        mount.join(path.strip_prefix("/").unwrap_or(path))
    };
    match inside.canonicalize() {
        Ok(found) if found.is_dir() && found.starts_with(&mount) => Ok(found),
        _ => Err(format!(
            "--cgroup {}: {} is no cgroup; make it, or name a directory under {}",
            path.display(),
            inside.display(),
            mount.display()
        )),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        run: RunArgs,
    }

    fn problems_of(flags: &[&str]) -> Vec<String> {
        let required = [
            "run",
            "--manifests",
            "/nonexistent/m",
            "--certs",
            "/nonexistent/c",
        ];
        let line =
            Line::try_parse_from(required.iter().chain(flags)).unwrap_or_else(|e| panic!("{e}"));
        Settings::check(line.run).map(drop).unwrap_err()
    }

    #[test]
    fn all_wrong_values_are_reported_at_once() {
        let problems = problems_of(&[
            "--listen",
            "here",
            "--metrics",
            "1",
            "--workers",
            "0",
            "--label",
            "nothing",
            "--gateway-address",
            "127.0.0.1",
            "--service-cidr",
            "10.0.0.1/8",
            "--log-level",
            "a=b=c",
            "--ebpf",
            "off",
        ]);
        for flag in [
            "--manifests",
            "--certs",
            "--listen",
            "--metrics",
            "--workers",
            "--label",
            "--gateway-address",
            "--service-cidr",
            "--log-level",
            "--ebpf",
        ] {
            let about = problems
                .iter()
                .filter(|problem| problem.contains(flag))
                .count();
            assert_eq!(about, 1, "{flag}: {problems:#?}");
        }
    }

    #[test]
    fn two_gateway_addresses_of_one_family_are_refused() {
        let problems = problems_of(&[
            "--gateway-address",
            "10.0.0.1",
            "--gateway-address",
            "10.0.0.2",
        ]);
        assert!(
            problems.iter().any(|p| p.contains("10.0.0.2: the second")),
            "{problems:?}"
        );
    }

    #[test]
    fn a_gateway_address_among_the_imports_addresses_is_refused() {
        let problems = problems_of(&["--gateway-address", "10.114.0.1"]);
        assert!(
            problems.iter().any(|p| p.contains("lies within")),
            "{problems:?}"
        );
    }

    #[test]
    fn wrong_values_of_defaults_are_not_reported() {
        let problems = problems_of(&[]);
        assert_eq!(problems.len(), 2, "only the two directories: {problems:?}");
    }
}
