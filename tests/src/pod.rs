//! A pod: a cgroup below its host's, and a network namespace if it wants one.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::Deref;
use std::path::Path;

use anyhow::{Result, ensure};

use crate::host::Host;
use crate::network;
use crate::place::Place;

/// A workload's processes on a [`Host`].
#[derive(Clone, Debug)]
pub struct Pod {
    place: Place,
    name: String,
    addresses: Vec<IpAddr>,
}

impl Pod {
    pub(crate) fn in_host_network(host: &Host, name: &str, cgroup: &Path) -> Result<Self> {
        let place = host.place_in(name, cgroup)?;
        Ok(Self {
            place,
            name: name.to_owned(),
            addresses: Vec::new(),
        })
    }

    pub(crate) fn with_own_network(
        host: &Host,
        name: &str,
        number: u8,
        cgroup: &Path,
    ) -> Result<Self> {
        ensure!(number < 250, "a host has room for 249 pods");
        let scene = &host.scene;
        let (node, namespace) = (host.number(), format!("{}-{name}", host.namespace()));
        scene.make_namespace(&namespace)?;
        let link = format!("pod{number}");
        let v4 = Ipv4Addr::new(10, 78, node, number);
        let v6 = Ipv6Addr::new(0xfd00, 0x78, node.into(), 0, 0, 0, 0, number.into());
        network::sysctl(host.namespace(), "ipv4/ip_forward", "1")?;
        network::sysctl(host.namespace(), "ipv6/conf/all/forwarding", "1")?;
        host.ip(&format!(
            "link add {link} type veth peer name eth0 netns {namespace}\n\
             link set {link} up\n\
             address add 10.78.{node}.254/32 dev {link}\n\
             address add fd00:78:{node:x}::fe/128 dev {link} nodad\n\
             route add {v4}/32 dev {link}\n\
             route add {v6}/128 dev {link}\n"
        ))?;
        network::batch(
            &namespace,
            &format!(
                "link set eth0 up\n\
                 address add {v4}/32 dev eth0\n\
                 address add {v6}/128 dev eth0 nodad\n\
                 route add 10.78.{node}.254/32 dev eth0\n\
                 route add fd00:78:{node:x}::fe/128 dev eth0\n\
                 route add default via 10.78.{node}.254\n\
                 route add default via fd00:78:{node:x}::fe\n"
            ),
        )?;
        network::batch(
            &scene.bridge(),
            &format!(
                "route replace {v4}/32 via {}\nroute replace {v6}/128 via {}\n",
                host.ipv4(),
                host.ipv6()
            ),
        )?;
        let cgroup = host.subtree().join(cgroup);
        scene.make_cgroup(&cgroup)?;
        let full = format!("{}/{name}", host.name());
        let place = Place::new(scene, &full, &namespace, cgroup, Some(host.hosts_file()))?;
        Ok(Self {
            place,
            name: name.to_owned(),
            addresses: vec![v4.into(), v6.into()],
        })
    }

    /// The name without the host's.
    pub fn pod_name(&self) -> &str {
        &self.name
    }

    /// Its own addresses, IPv4 first; none where it shares the host's network.
    pub fn addresses(&self) -> &[IpAddr] {
        &self.addresses
    }
}

impl Deref for Pod {
    type Target = Place;

    fn deref(&self) -> &Place {
        &self.place
    }
}
