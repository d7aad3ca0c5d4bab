//! What Imports hold: addresses and target ports, stored before anyone uses them.

use std::{
    collections::{BTreeSet, hash_map::RandomState},
    fs,
    hash::BuildHasher,
    io,
    net::IpAddr,
    num::NonZeroU16,
    path::{Path, PathBuf},
};

use clusterlink_model::{
    ObjectName,
    lease::{
        AddressLeaseState, AddressLeases, AddressesExhausted, PortClaim, PortLease, PortLeases,
        PortRefused, PortRules,
    },
};
use serde::{Deserialize, Serialize};

use crate::{
    config::Config,
    state_file::{self, StateFileError},
};

/// The leases of all Imports, and which of them are not stored yet.
#[derive(Debug)]
pub(crate) struct Leases {
    path: PathBuf,
    addresses: AddressLeases,
    ports: PortLeases,
    unsaved: Unsaved,
    /// Those that were read from the file, while no Import of that name was seen since.
    from_before: BTreeSet<ObjectName>,
    /// Imports for which nothing was left.
    starved: BTreeSet<ObjectName>,
    /// Imports that were given something, or may be now, because others gave it up.
    woken: BTreeSet<ObjectName>,
    random: RandomState,
}

/// What changed since the last time that the file was written.
#[derive(Debug, Default)]
pub(crate) struct Unsaved {
    /// Imports with new addresses.
    pub(crate) addresses: BTreeSet<ObjectName>,
    /// Imports with a new target port.
    pub(crate) ports: BTreeSet<ObjectName>,
    releases: bool,
}

/// The content of the file.
#[derive(Default, Serialize, Deserialize)]
struct Stored {
    addresses: AddressLeaseState,
    target_ports: Vec<PortLease>,
}

impl Leases {
    /// Reads the file. A damaged one is moved aside: most Imports get the same addresses again,
    /// since those are derived from their names.
    pub(crate) fn open(config: &Config) -> Result<Self, StateFileError> {
        let path = config.state_dir.join("leases.json");
        let stored: Stored = match state_file::read(&path) {
            Err(error @ StateFileError::Damaged { .. }) => {
                move_aside(&path, &error)?;
                Stored::default()
            }
            other => other?,
        };
        let rules = PortRules {
            allocation: config.target_ports.clone(),
            node_ports: config.node_ports.clone(),
            agent_ports: config.own_ports.clone(),
        };
        let addresses =
            AddressLeases::restore(config.service_cidrs.iter().copied(), stored.addresses);
        let ports = PortLeases::restore(rules, stored.target_ports);
        let mut leases = Self {
            path,
            addresses,
            ports,
            unsaved: Unsaved::default(),
            from_before: BTreeSet::new(),
            starved: BTreeSet::new(),
            woken: BTreeSet::new(),
            random: RandomState::new(),
        };
        leases.from_before = leases.holders();
        Ok(leases)
    }

    /// The Imports that hold anything.
    pub(crate) fn holders(&self) -> BTreeSet<ObjectName> {
        let with_address = self.addresses.iter().map(|(import, _)| import.clone());
        with_address
            .chain(self.ports.state().into_iter().map(|lease| lease.import))
            .collect()
    }

    /// Whether all that is known of an Import was stored by an earlier process.
    pub(crate) fn is_from_before(&self, import: &ObjectName) -> bool {
        self.from_before.contains(import)
    }

    /// Notes that this process has seen an Import of that name.
    pub(crate) fn seen(&mut self, import: &ObjectName) {
        self.from_before.remove(import);
    }

    /// The addresses of an Import, leased if need be. Where a family has none left, those that it
    /// has had so far are given with the reason.
    pub(crate) fn addresses(
        &mut self,
        import: &ObjectName,
    ) -> (Vec<IpAddr>, Result<(), AddressesExhausted>) {
        let before = self.addresses.addresses(import).len();
        match self.addresses.lease(import) {
            Ok(addresses) => {
                if addresses.len() != before {
                    self.unsaved.addresses.insert(import.clone());
                }
                (addresses.to_vec(), Ok(()))
            }
            Err(error) => {
                self.starved.insert(import.clone());
                (self.addresses.addresses(import).to_vec(), Err(error))
            }
        }
    }

    /// The target port of an Import, leased if need be.
    pub(crate) fn target_port(
        &mut self,
        import: &ObjectName,
        created: u64,
        requested: Option<NonZeroU16>,
    ) -> Result<NonZeroU16, PortRefused> {
        let before = self.ports.port(import);
        let claim = PortClaim {
            import: import.clone(),
            created,
            requested,
        };
        let random = self.random.hash_one(import);
        let mut promoted = Vec::new();
        // A standalone peer serves no target ports, so no listener can be in their way.
        let result = self.ports.claim(&claim, random, |_| false, &mut promoted);
        if self.ports.port(import) != before {
            self.unsaved.ports.insert(import.clone());
            if before.is_some() {
                self.woken.append(&mut self.starved);
            }
        }
        self.promote(promoted);
        if matches!(result, Err(PortRefused::Exhausted { .. })) {
            self.starved.insert(import.clone());
        }
        result
    }

    /// Frees what an Import holds.
    pub(crate) fn release(&mut self, import: &ObjectName) {
        self.from_before.remove(import);
        self.starved.remove(import);
        let had_port = self.ports.port(import).is_some();
        let had_address = !self.addresses.release(import).is_empty();
        let promoted = self.ports.release(import);
        self.promote(promoted);
        if had_port || had_address {
            self.unsaved.releases = true;
            self.woken.append(&mut self.starved);
        }
    }

    /// The Imports that are worth another look since the last call.
    pub(crate) fn take_woken(&mut self) -> BTreeSet<ObjectName> {
        std::mem::take(&mut self.woken)
    }

    /// Stores what changed since the last success.
    pub(crate) fn save(&mut self) -> Result<(), StateFileError> {
        let Unsaved {
            addresses,
            ports,
            releases,
        } = &self.unsaved;
        if addresses.is_empty() && ports.is_empty() && !releases {
            return Ok(());
        }
        let stored = Stored {
            addresses: self.addresses.state(),
            target_ports: self.ports.state(),
        };
        state_file::write_json(&self.path, &stored)?;
        self.unsaved = Unsaved::default();
        Ok(())
    }

    /// What the file does not say yet.
    pub(crate) fn unsaved(&self) -> &Unsaved {
        &self.unsaved
    }

    fn promote(&mut self, promoted: impl IntoIterator<Item = PortLease>) {
        for lease in promoted {
            self.unsaved.ports.insert(lease.import.clone());
            // The others wait for another holder now.
            self.woken.extend(self.ports.waiting(lease.port).cloned());
            self.woken.insert(lease.import);
        }
    }
}

fn move_aside(path: &Path, error: &StateFileError) -> Result<(), StateFileError> {
    let aside = path.with_extension("json.damaged");
    tracing::error!(
        error = error as &dyn std::error::Error,
        "moved it to {}; leases are given anew",
        aside.display()
    );
    let moved: io::Result<()> = fs::rename(path, &aside);
    moved.map_err(|source| StateFileError::Write {
        path: aside,
        source,
    })
}

#[cfg(test)]
mod tests {
    use clusterlink_model::{LocalPeer, PeerName};

    use super::*;

    fn config(directory: &Path) -> Config {
        let peer = LocalPeer {
            name: PeerName::new("here").unwrap(),
            labels: Default::default(),
        };
        let ranges = vec![
            "10.1.0.0/24".parse().unwrap(),
            "fd00::/120".parse().unwrap(),
        ];
        Config::new(peer, ranges, directory.to_owned())
    }

    fn name(name: &str) -> ObjectName {
        ObjectName::new("ns", name)
    }

    #[test]
    fn leases_outlive_the_process() {
        let directory = tempfile::tempdir().unwrap();
        let config = config(directory.path());
        let mut leases = Leases::open(&config).unwrap();
        let (addresses, result) = leases.addresses(&name("a"));
        let port = leases.target_port(&name("a"), 0, None).unwrap();
        assert!(result.is_ok() && addresses.len() == 2);
        assert!(leases.unsaved().addresses.contains(&name("a")));
        leases.save().unwrap();
        assert!(leases.unsaved().addresses.is_empty());

        let mut restarted = Leases::open(&config).unwrap();
        assert!(restarted.is_from_before(&name("a")));
        assert_eq!(restarted.addresses(&name("a")).0, addresses);
        assert_eq!(restarted.target_port(&name("a"), 0, None).unwrap(), port);
        assert!(restarted.unsaved().addresses.is_empty() && restarted.unsaved().ports.is_empty());
    }

    #[test]
    fn a_released_port_wakes_the_import_that_waits_for_it() {
        let directory = tempfile::tempdir().unwrap();
        let mut leases = Leases::open(&config(directory.path())).unwrap();
        let wanted = NonZeroU16::new(20_000);
        leases.target_port(&name("a"), 0, wanted).unwrap();
        assert!(leases.target_port(&name("b"), 0, wanted).is_err());
        assert!(leases.take_woken().is_empty());
        leases.release(&name("a"));
        assert!(leases.take_woken().contains(&name("b")));
        assert_eq!(leases.target_port(&name("b"), 0, wanted).ok(), wanted);
    }

    #[test]
    fn who_still_waits_for_a_port_is_told_of_its_new_holder() {
        let directory = tempfile::tempdir().unwrap();
        let mut leases = Leases::open(&config(directory.path())).unwrap();
        let wanted = NonZeroU16::new(20_000);
        leases.target_port(&name("a"), 0, wanted).unwrap();
        for later in ["b", "c"] {
            leases.target_port(&name(later), 1, wanted).unwrap_err();
        }
        leases.release(&name("a"));
        assert_eq!(leases.take_woken(), [name("b"), name("c")].into());
        let why = leases.target_port(&name("c"), 1, wanted).unwrap_err();
        assert!(why.to_string().contains("ns/b"), "{why}");
    }

    #[test]
    fn a_damaged_file_is_moved_aside_and_gives_the_same_addresses() {
        let directory = tempfile::tempdir().unwrap();
        let config = config(directory.path());
        let mut leases = Leases::open(&config).unwrap();
        let (addresses, _) = leases.addresses(&name("a"));
        leases.save().unwrap();
        fs::write(directory.path().join("leases.json"), "{").unwrap();
        let mut leases = Leases::open(&config).unwrap();
        assert_eq!(leases.addresses(&name("a")).0, addresses);
        assert!(directory.path().join("leases.json.damaged").exists());
    }
}
