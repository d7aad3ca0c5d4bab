//! From flags to settings that cannot be wrong.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
};

use clusterlink_agent::{
    app::{self, Ebpf, Mode},
    settings::{cgroup, gateway_addresses, optional_address, workers},
};
use clusterlink_gateway::tls::Watcher;
use clusterlink_model::LocalPeer;
use clusterlink_process::{
    logging::{self, LogFormat},
    settings::Problems,
};
use ipnet::IpNet;
use tracing_subscriber::EnvFilter;

use super::args::{EbpfMode, RunArgs};

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
        let metrics = optional_address(&mut problems, "--metrics", &args.metrics);
        let gateway_addresses = gateway_addresses(&mut problems, &args.gateway_address);
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
        controller.own_ports = app::own_ports(listen, app::STEERING_PORT, metrics);
        Ok(Self {
            filter,
            log_format: args.log.log_format,
            agent: app::Config {
                local,
                listen,
                gateway_addresses_explicit: !args.gateway_address.is_empty(),
                gateway_addresses,
                steering_port: app::STEERING_PORT,
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
                ebpf: Ebpf::Require,
                mode: Mode::Standalone(app::Standalone {
                    service_cidrs,
                    hosts_file: args.hosts_file,
                }),
            },
            controller,
            credentials,
            manifests: args.manifests,
        })
    }
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
