//! The list in the Secret of one cluster revokes the certificate of the other.

use anyhow::Result;
use clusterlink_tests::cluster::{Node, Pair};
use clusterlink_tests::stories::{Clusters, Stage as _, revocation};
use clusterlink_tests::{Fabric, Scene};

pub(crate) fn told(scene: &Scene, fabric: &Fabric, pair: &Pair, bare: &Node) -> Result<()> {
    let mut callers = Vec::new();
    for stage in [
        Clusters::steered(pair),
        Clusters::by_the_service_path(pair, bare),
    ] {
        let client = stage.workload("revoked", |pod| pod)?;
        callers.push((client, stage.share("held", "echo", &[])?));
    }
    revocation::a_revocation_cuts_its_peer_within_a_second_and_no_other(
        scene,
        fabric,
        [&pair.west, &pair.east],
        callers,
    )
}
