//! From flags to settings that cannot be wrong.

use std::{
    net::IpAddr,
    num::NonZeroU16,
    path::{Path, PathBuf},
};

use clusterlink_gateway::tls::Watcher;
use clusterlink_model::{HostPort, LocalPeer};
use clusterlink_process::{
    logging::{self, LogFormat},
    settings::Problems,
};
use ipnet::IpNet;
use tracing_subscriber::EnvFilter;

use super::{args::RunArgs, upstream::UpstreamSettings};
use crate::{
    app::{Config, Mode, Node, STEERING_PORT},
    host,
    settings::{cgroup, gateway_addresses, optional_address, workers},
};

/// The port of the controller's push server.
const CONTROLLER_PORT: u16 = 4445;

/// Everything that an agent needs to start.
pub(super) struct Settings {
    pub(super) filter: EnvFilter,
    pub(super) log_format: LogFormat,
    pub(super) agent: Config,
    pub(super) credentials: Watcher,
    pub(super) upstream: UpstreamSettings,
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
            let certs = args.certs.display();
            format!("--certs {certs}: {}", crate::chain(&error))
        }));
        if args.node_name.is_empty() {
            problems.add(
                "--node-name: none is given; set NODE_NAME from the pod's spec.nodeName".to_owned(),
            );
        }
        if !is_name(&args.namespace) {
            problems.add(format!(
                "--namespace {:?} is no namespace; write the one that the controller is in",
                args.namespace
            ));
        }
        let controller = controller(&mut problems, args.controller.as_deref(), &args.namespace);
        let listen = problems.parse("--listen", &args.listen, "ADDR:PORT, such as 0.0.0.0:4443");
        let metrics = optional_address(&mut problems, "--metrics", &args.metrics);
        let gateway_addresses_explicit = !args.gateway_address.is_empty();
        let gateway_addresses = gateway_addresses(&mut problems, &args.gateway_address);
        let node = Node {
            name: args.node_name.as_str().into(),
            addresses: node_addresses(&mut problems, &args.node_address),
            host_addresses: (host::addresses().into_iter())
                .filter(|address| !gateway_addresses.contains(address))
                .collect(),
            outside_ranges: ranges(&mut problems, "--outside-range", &args.outside_range),
            refused_backends: ranges(
                &mut problems,
                "--refuse-backend-range",
                &args.refuse_backend_range,
            ),
            allowed_backends: ranges(
                &mut problems,
                "--allow-backend-range",
                &args.allow_backend_range,
            ),
        };
        let labels = problems.labels("--label", &args.label);
        let workers = workers(&mut problems, args.workers.as_deref());
        let cgroup = args.cgroup.and_then(|path| problems.keep(cgroup(&path)));
        let (Some(filter), Some(credentials), Some(controller), Some(listen), Some(workers), true) = (
            filter,
            credentials,
            controller,
            listen,
            workers,
            problems.is_empty(),
        ) else {
            return Err(problems.into_vec());
        };
        let local = LocalPeer {
            name: credentials.current().name().clone(),
            labels,
        };
        let bpf_dir = (args.dirs.bpf_dir).unwrap_or_else(|| default_bpf_dir(local.name.as_str()));
        let software = env!("CARGO_PKG_VERSION").to_owned();
        Ok(Self {
            filter,
            log_format: args.log.log_format,
            upstream: UpstreamSettings {
                controller,
                ca: args.controller_ca,
                token: args.token,
                namespace: args.namespace,
                node: node.name.clone(),
                software: format!("clusterlink-agent {software}"),
            },
            agent: Config {
                local,
                listen,
                gateway_addresses_explicit,
                gateway_addresses,
                steering_port: STEERING_PORT,
                cgroup,
                bpf_dir,
                state_dir: args.dirs.state_dir,
                require_listed_peers: args.require_listed_peers,
                metrics,
                admin: args.dirs.admin,
                workers,
                software,
                random_seed: None,
                kernel_log_level: args.kernel_log.kernel_log_level.number(),
                ebpf: args.ebpf,
                mode: Mode::Node(node),
            },
            credentials,
        })
    }
}

fn default_bpf_dir(peer: &str) -> PathBuf {
    Path::new("/sys/fs/bpf/clusterlink").join(peer)
}

fn controller(problems: &mut Problems, text: Option<&str>, namespace: &str) -> Option<HostPort> {
    let Some(text) = text else {
        return Some(HostPort {
            host: format!("clusterlink-controller.{namespace}.svc").into(),
            port: const { NonZeroU16::new(CONTROLLER_PORT).expect("it is not 0") },
        });
    };
    let parsed = text.rsplit_once(':').and_then(|(host, port)| {
        let inner = host
            .strip_prefix('[')
            .and_then(|rest| rest.strip_suffix(']'));
        let host = inner.unwrap_or(host);
        let plain = !host.is_empty() && (inner.is_some() || !host.contains(':'));
        let port = port.parse().ok()?;
        plain.then(|| HostPort {
            host: host.into(),
            port,
        })
    });
    problems.keep(parsed.ok_or_else(|| {
        format!(
            "--controller {text:?}: write HOST:PORT, such as clusterlink-controller.{namespace}.svc:{CONTROLLER_PORT}"
        )
    }))
}

fn node_addresses(problems: &mut Problems, texts: &[String]) -> Vec<IpAddr> {
    let mut addresses = Vec::new();
    for text in texts {
        let Some(address) = problems.parse::<IpAddr>("--node-address", text, "an IP address")
        else {
            continue;
        };
        if address.is_loopback() || address.is_unspecified() || address.is_multicast() {
            problems.add(format!(
                "--node-address {address}: no other node can reach it; write an address of this node's network"
            ));
        } else {
            addresses.push(address);
        }
    }
    addresses
}

fn ranges(problems: &mut Problems, flag: &str, texts: &[String]) -> Vec<IpNet> {
    let mut ranges = Vec::new();
    for text in texts {
        let Some(range) = problems.parse::<IpNet>(flag, text, "such as 192.0.2.0/24") else {
            continue;
        };
        if range == range.trunc() {
            ranges.push(range);
        } else {
            let trunc = range.trunc();
            problems.add(format!("{flag} {range}: has host bits; write {trunc}"));
        }
    }
    ranges
}

fn is_name(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    (1..=63).contains(&text.len()) && text.bytes().all(plain)
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory as _, Parser as _};

    use super::{super::args::Cli, *};
    use crate::{app::own_ports, node::args::Command};

    fn parse(flags: &[&str]) -> Cli {
        let line = ["clusterlink-agent"].iter().chain(flags);
        Cli::try_parse_from(line).unwrap_or_else(|e| panic!("{e}"))
    }

    fn problems_of(flags: &[&str]) -> Vec<String> {
        let required = ["--certs", "/nonexistent/c"];
        let flags: Vec<&str> = required.iter().chain(flags).copied().collect();
        Settings::check(parse(&flags).run).map(drop).unwrap_err()
    }

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
        let cli = parse(&["cleanup", "--state-dir", "/s"]);
        assert!(
            matches!(cli.command, Some(Command::Cleanup(args)) if args.dirs.state_dir == Path::new("/s"))
        );
    }

    #[test]
    fn all_wrong_values_are_reported_at_once() {
        let flags = [
            ("--node-name", ""),
            ("--controller", "nowhere"),
            ("--namespace", "Not/One"),
            ("--listen", "here"),
            ("--gateway-address", "127.0.0.1"),
            ("--node-address", "::1"),
            ("--outside-range", "10.0.0.1/8"),
            ("--metrics", "1"),
            ("--workers", "0"),
            ("--label", "nothing"),
            ("--log-level", "a=b=c"),
            ("--cgroup", "/no/such/cgroup"),
        ];
        let line: Vec<&str> = flags
            .iter()
            .flat_map(|(flag, value)| [*flag, *value])
            .collect();
        let problems = problems_of(&line);
        for (flag, _) in flags.iter().chain(&[("--certs", "")]) {
            let about = problems.iter().filter(|problem| problem.starts_with(*flag));
            assert_eq!(about.count(), 1, "{flag}: {problems:#?}");
        }
    }

    #[test]
    fn wrong_values_of_defaults_are_not_reported() {
        let problems = problems_of(&["--node-name", "n1"]);
        assert_eq!(problems.len(), 1, "only the directory: {problems:?}");
    }

    #[test]
    fn the_default_ports_are_those_that_the_controller_gives_to_no_import() {
        let RunArgs {
            listen, metrics, ..
        } = parse(&[]).run;
        let own = own_ports(
            listen.parse().unwrap(),
            STEERING_PORT,
            Some(metrics.parse().unwrap()),
        );
        let reserved = clusterlink_proto::ports::AGENT_PORTS;
        let reserved = reserved.map(|(port, purpose)| (port, purpose.to_owned()));
        assert_eq!(own, reserved.into());
    }

    #[test]
    fn the_controller_is_found_by_its_service_or_where_it_is_said() {
        for (text, expected) in [
            (None, Some("clusterlink-controller.links.svc:4445")),
            (Some("c.example:1"), Some("c.example:1")),
            (Some("192.0.2.1:2"), Some("192.0.2.1:2")),
            (Some("[2001:db8::1]:3"), Some("[2001:db8::1]:3")),
            (Some("2001:db8::1:3"), None),
            (Some("c.example"), None),
            (Some("c.example:0"), None),
            (Some(":1"), None),
        ] {
            let found = controller(&mut Problems::default(), text, "links");
            let found = found.map(|one| one.to_string());
            assert_eq!(found.as_deref(), expected, "{text:?}");
        }
    }
}
