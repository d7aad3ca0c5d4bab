//! From flags to settings that cannot be wrong.

use std::{
    fs,
    net::{IpAddr, SocketAddr},
    ops::RangeInclusive,
    path::PathBuf,
    time::Duration,
};

use clusterlink_model::{Labels, PeerName};
use clusterlink_process::{
    logging::{self, LogFormat},
    settings::Problems,
};
use tracing_subscriber::EnvFilter;

use super::args::Args;
use crate::{leader::Timing, translate::syntax};

/// The system namespace where neither flag nor pod names one.
const NAMESPACE: &str = "clusterlink-system";
/// Where a pod finds its own namespace.
const NAMESPACE_FILE: &str = "/var/run/secrets/kubernetes.io/serviceaccount/namespace";
/// Where Linux tells the name of the host, which in a pod is the pod's.
const HOSTNAME_FILE: &str = "/proc/sys/kernel/hostname";

/// The settings of the controller's process.
#[derive(Debug)]
pub(crate) struct Settings {
    pub(crate) kubeconfig: Option<PathBuf>,
    pub(crate) namespace: String,
    pub(crate) peer_name: Option<PeerName>,
    pub(crate) labels: Labels,
    pub(crate) listen: SocketAddr,
    pub(crate) advertise: Option<IpAddr>,
    pub(crate) metrics: SocketAddr,
    pub(crate) target_ports: RangeInclusive<u16>,
    pub(crate) node_ports: RangeInclusive<u16>,
    pub(crate) identity: String,
    pub(crate) timing: Timing,
}

/// The settings, and how to log.
pub(super) struct Checked {
    pub(super) settings: Settings,
    pub(super) filter: EnvFilter,
    pub(super) log_format: LogFormat,
}

impl Settings {
    /// Checks all flags; every wrong value is named.
    pub(super) fn check(args: Args) -> Result<Checked, Vec<String>> {
        let mut problems = Problems::default();
        let filter = problems.keep(logging::filter(&args.log).map_err(|e| format!("{e:#}")));
        if let Some(file) = args.kubeconfig.as_ref().filter(|file| !file.is_file()) {
            problems.add(format!(
                "--kubeconfig {}: no such file; name one, or leave the flag out within a pod",
                file.display()
            ));
        }
        let namespace = problems.keep(namespace(args.namespace));
        let peer_name = args.peer_name.and_then(|text| {
            problems.parse::<PeerName>("--peer-name", &text, "the DNS name in its certificate")
        });
        let labels = problems.labels("--label", &args.label);
        let listen = problems.parse::<SocketAddr>(
            "--listen",
            &args.listen,
            "ADDR:PORT, such as 0.0.0.0:4445",
        );
        let advertise = args
            .advertise
            .and_then(|text| advertise(&mut problems, &text));
        let metrics = problems.parse::<SocketAddr>(
            "--metrics",
            &args.metrics,
            "ADDR:PORT, such as 0.0.0.0:9478",
        );
        let target_ports = problems.keep(ports("--target-ports", &args.target_ports));
        let node_ports = problems.keep(ports("--node-ports", &args.node_ports));
        let identity = problems.keep(identity(args.identity));
        let timing = timing(
            &mut problems,
            [
                &args.lease_duration,
                &args.renew_deadline,
                &args.retry_period,
            ],
        );
        let (
            Some(filter),
            Some(namespace),
            Some(listen),
            Some(metrics),
            Some(target_ports),
            Some(node_ports),
            Some(identity),
            Some(timing),
            true,
        ) = (
            filter,
            namespace,
            listen,
            metrics,
            target_ports,
            node_ports,
            identity,
            timing,
            problems.is_empty(),
        )
        else {
            return Err(problems.into_vec());
        };
        let settings = Self {
            kubeconfig: args.kubeconfig,
            namespace,
            peer_name,
            labels,
            listen,
            advertise,
            metrics,
            target_ports,
            node_ports,
            identity,
            timing,
        };
        Ok(Checked {
            settings,
            filter,
            log_format: args.log.log_format,
        })
    }
}

fn namespace(flag: Option<String>) -> Result<String, String> {
    let own = || fs::read_to_string(NAMESPACE_FILE).ok();
    let name = flag
        .or_else(own)
        .map_or_else(|| NAMESPACE.to_owned(), |name| name.trim().to_owned());
    if syntax::is_dns_label(&name) {
        Ok(name)
    } else {
        Err(format!(
            "--namespace {name:?}: no name of a namespace; write a-z, 0-9 and '-'"
        ))
    }
}

fn identity(flag: Option<String>) -> Result<String, String> {
    let name = match flag {
        Some(name) => name,
        None => fs::read_to_string(HOSTNAME_FILE).unwrap_or_default(),
    };
    let name = name.trim().to_owned();
    if syntax::is_dns_subdomain(&name) {
        Ok(name)
    } else {
        Err(format!(
            "--identity {name:?}: no name of a pod; write a-z, 0-9, '-' and '.', by default it is the name of the host"
        ))
    }
}

fn advertise(problems: &mut Problems, text: &str) -> Option<IpAddr> {
    let address = problems.parse::<IpAddr>("--advertise", text, "an IP address")?;
    if address.is_unspecified() || address.is_multicast() {
        problems.add(format!(
            "--advertise {address}: nobody can connect to that; write the address of the pod"
        ));
        return None;
    }
    Some(address)
}

fn ports(flag: &str, text: &str) -> Result<RangeInclusive<u16>, String> {
    let wrong =
        |why: &str| format!("{flag} {text:?}: {why}; write FIRST-LAST, such as 10000-29999");
    let (first, last) = text.split_once('-').ok_or_else(|| wrong("no range"))?;
    let port = |text: &str| {
        text.trim()
            .parse::<u16>()
            .map_err(|error| wrong(&error.to_string()))
    };
    let (first, last) = (port(first)?, port(last)?);
    if first == 0 || first > last {
        return Err(wrong("the range is empty or begins with 0"));
    }
    Ok(first..=last)
}

fn timing(problems: &mut Problems, texts: [&str; 3]) -> Option<Timing> {
    let flags = ["--lease-duration", "--renew-deadline", "--retry-period"];
    let mut times = flags
        .into_iter()
        .zip(texts)
        .map(|(flag, text)| problems.keep(time(flag, text)));
    let (duration, renew_deadline, retry) = (times.next()?, times.next()?, times.next()?);
    drop(times);
    let timing = Timing {
        duration: duration?,
        renew_deadline: renew_deadline?,
        retry: retry?,
    };
    problems.keep(timing.check().map(|()| timing))
}

fn time(flag: &str, text: &str) -> Result<Duration, String> {
    text.parse::<jiff::SignedDuration>()
        .map_err(|error| error.to_string())
        .and_then(|time| Duration::try_from(time).map_err(|error| error.to_string()))
        .map_err(|error| format!("{flag} {text:?}: {error}; write a time, such as 15s or 500ms"))
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    fn check(flags: &[&str]) -> Result<Settings, Vec<String>> {
        let line = ["clusterlink-controller", "--identity", "controller-1"];
        let args = Args::try_parse_from(line.iter().chain(flags)).unwrap_or_else(|e| panic!("{e}"));
        Settings::check(args).map(|checked| checked.settings)
    }

    #[test]
    fn the_defaults_are_those_of_the_help() {
        let settings = check(&[]).unwrap();
        assert_eq!(settings.namespace, "clusterlink-system");
        assert_eq!(settings.listen.to_string(), "0.0.0.0:4445");
        assert_eq!(settings.metrics.to_string(), "0.0.0.0:9478");
        assert_eq!(settings.target_ports, crate::Config::TARGET_PORTS);
        assert_eq!(settings.node_ports, crate::Config::NODE_PORTS);
        assert_eq!(settings.timing, Timing::default());
    }

    #[test]
    fn all_wrong_values_are_reported_at_once() {
        let wrong = [
            ("--kubeconfig", "/nonexistent"),
            ("--namespace", "No"),
            ("--peer-name", "a_b"),
            ("--label", "nothing"),
            ("--listen", "here"),
            ("--advertise", "0.0.0.0"),
            ("--metrics", "1"),
            ("--target-ports", "20000-10000"),
            ("--node-ports", "x-1"),
            ("--lease-duration", "soon"),
            ("--log-level", "a=b=c"),
        ];
        let flags: Vec<&str> = wrong
            .iter()
            .flat_map(|(flag, value)| [*flag, *value])
            .collect();
        let problems = check(&flags).unwrap_err();
        for (flag, _) in wrong {
            let about = problems.iter().filter(|problem| problem.contains(flag));
            assert_eq!(about.count(), 1, "{flag}: {problems:#?}");
        }
        assert_eq!(problems.len(), wrong.len());
    }

    #[test]
    fn times_that_do_not_fit_together_are_refused() {
        let problems = check(&["--lease-duration", "5s", "--renew-deadline", "5s"]).unwrap_err();
        assert!(problems[0].contains("not shorter"), "{problems:?}");
    }
}
