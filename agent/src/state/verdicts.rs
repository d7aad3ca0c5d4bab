//! Which classes may reach which imports: the bits that the connect hook looks at.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use clusterlink_model::{
    Import, Labels, LocalPeer, ObjectName, PeerName, Snapshot, WorkloadAttributes,
    policy::{DestinationAttributes, DestinationBits, PolicySet, SourceAttributes, SourceBits},
};

use super::{
    numbers::ImportNumbers,
    tables::{Row, Touched},
};
use crate::datapath::BLOCK_IMPORTS;

/// What verdicts are computed from.
pub(super) struct Inputs<'a> {
    pub(super) local: &'a LocalPeer,
    pub(super) snapshot: &'a Snapshot,
    pub(super) policies: &'a PolicySet,
    pub(super) peer_labels: &'a BTreeMap<PeerName, Arc<Labels>>,
    pub(super) numbers: &'a ImportNumbers,
    /// The classes in use; `None` is the host.
    pub(super) classes: &'a BTreeMap<u32, Option<Arc<WorkloadAttributes>>>,
}

/// Computes the verdicts of every class on `imports`, and of the classes in `fresh` on all
/// imports; blocks that changed are added to `touched`.
pub(super) fn update(
    rows: &mut BTreeMap<u32, Row>,
    inputs: &Inputs<'_>,
    imports: &BTreeSet<ObjectName>,
    fresh: &BTreeSet<u32>,
    touched: &mut Touched,
) {
    let mut destinations = Destinations::default();
    let sources: Vec<(u32, bool, SourceBits)> = (inputs.classes.iter())
        .map(|(&class, attributes)| {
            let source = SourceAttributes {
                peer: &inputs.local.name,
                peer_labels: &inputs.local.labels,
                workload: attributes.as_deref(),
            };
            (
                class,
                fresh.contains(&class),
                inputs.policies.source_bits(&source),
            )
        })
        .collect();
    if fresh.is_empty() {
        for name in imports {
            if let Some(import) = inputs.snapshot.imports.get(name) {
                judge(
                    rows,
                    inputs,
                    import,
                    &sources,
                    true,
                    &mut destinations,
                    touched,
                );
            }
        }
    } else {
        for import in inputs.snapshot.imports.values() {
            let all = imports.contains(&import.name);
            judge(
                rows,
                inputs,
                import,
                &sources,
                all,
                &mut destinations,
                touched,
            );
        }
    }
}

/// Denies `number` to every class: its import is gone.
pub(super) fn clear(rows: &mut BTreeMap<u32, Row>, number: u32, touched: &mut Touched) {
    for (&class, row) in rows {
        set(class, row, number, false, touched);
    }
}

fn judge(
    rows: &mut BTreeMap<u32, Row>,
    inputs: &Inputs<'_>,
    import: &Import,
    sources: &[(u32, bool, SourceBits)],
    all: bool,
    destinations: &mut Destinations,
    touched: &mut Touched,
) {
    let Some(number) = inputs.numbers.number(&import.name) else {
        return;
    };
    destinations.find(inputs, import);
    for (class, fresh, source) in sources {
        if all || *fresh {
            let allowed = (destinations.current.iter())
                .any(|destination| inputs.policies.allows_bits(source, destination));
            set(
                *class,
                rows.entry(*class).or_default(),
                number,
                allowed,
                touched,
            );
        }
    }
}

/// The destinations of one import; the buffer is kept from import to import.
#[derive(Default)]
struct Destinations {
    current: Vec<DestinationBits>,
}

impl Destinations {
    /// A source without a Peer object is no destination.
    fn find(&mut self, inputs: &Inputs<'_>, import: &Import) {
        static NONE: Labels = Labels::new();
        self.current.clear();
        for source in &import.sources {
            if inputs.snapshot.peers.contains_key(&source.peer) {
                let labels = inputs
                    .peer_labels
                    .get(&source.peer)
                    .map_or(&NONE, |labels| labels);
                let destination = DestinationAttributes::egress(import, source, labels);
                let namespace = &import.name.namespace;
                self.current
                    .push(inputs.policies.destination_bits(namespace, &destination));
            }
        }
    }
}

fn set(class: u32, row: &mut Row, number: u32, allowed: bool, touched: &mut Touched) {
    let block = number / BLOCK_IMPORTS;
    let word = (number / 64 % 8) as usize;
    let bit = 1_u64 << (number % 64);
    if row.len() <= block as usize {
        if !allowed {
            return;
        }
        row.resize(block as usize + 1, [0; 8]);
    }
    let word = &mut row[block as usize][word];
    if (*word & bit != 0) != allowed {
        *word ^= bit;
        touched.blocks.insert((class, block));
    }
}
