//! The status of an Import: its conditions, its target port, and each of its sources.

use clusterlink_crds::{ImportSourceStatus, conditions::reasons};
use clusterlink_model::{ObjectName, PeerName, Source};

use super::{Context, MAX_MESSAGE, shortened};
use crate::status::{ImportStatus, SourceStatus};

/// What was found out about an Import and its sources.
pub(super) fn render(
    found: &ImportStatus,
    observed: &clusterlink_crds::ImportStatus,
    context: &Context<'_>,
) -> clusterlink_crds::ImportStatus {
    let sources = found.sources.iter().map(|source| {
        let before = observed.sources.iter().find(|before| {
            before.peer == source.peer
                && before.export_name == source.export_name
                && before.export_namespace == source.export_namespace
        });
        render_source(&found.name, source, before, context)
    });
    clusterlink_crds::ImportStatus {
        conditions: super::conditions(&found.conditions, &observed.conditions),
        sources: sources.collect(),
        target_port: found.target_port,
    }
}

fn render_source(
    import: &ObjectName,
    source: &SourceStatus,
    before: Option<&ImportSourceStatus>,
    context: &Context<'_>,
) -> ImportSourceStatus {
    let mut status = ImportSourceStatus {
        peer: source.peer.clone(),
        export_name: source.export_name.clone(),
        export_namespace: source.export_namespace.clone(),
        ..ImportSourceStatus::default()
    };
    let tell = |status: &mut ImportSourceStatus, reason: &str, message: String| {
        status.reason = reason.to_owned();
        status.message = shortened(message, MAX_MESSAGE);
    };
    if let Some(why) = &source.invalid {
        tell(&mut status, reasons::SOURCE_INVALID, why.clone());
        return status;
    }
    let known = PeerName::new(&source.peer)
        .ok()
        .filter(|name| context.peers.contains(name));
    let Some(peer) = known else {
        let message = format!(
            "no Peer {} is in namespace {}: create it; this source is left out until then",
            source.peer, context.system_namespace
        );
        tell(&mut status, reasons::PEER_NOT_FOUND, message);
        return status;
    };
    status.valid = true;
    let reach = context.reach.peer(&peer);
    let asked = context.reach.source(
        import,
        &Source {
            peer,
            export: ObjectName::new(&*source.export_namespace, &*source.export_name),
        },
    );
    let kept = before.filter(|_| !context.heard_all);
    status.reachable = match (reach.reachable > 0, kept.and_then(|kept| kept.reachable)) {
        (true, _) => Some(true),
        (false, Some(kept)) => Some(kept),
        (false, None) => (reach.told > 0).then_some(false),
    };
    status.accepted = match &asked {
        Some(answer) => Some(answer.is_ok()),
        None => kept.and_then(|kept| kept.accepted),
    };
    match (status.reachable, status.accepted, asked) {
        (Some(false), _, _) => tell(
            &mut status,
            reasons::UNREACHABLE,
            format!(
                "peer {0} cannot be reached: the status of Peer {1}/{0} says why",
                source.peer, context.system_namespace
            ),
        ),
        (_, Some(false), Some(Err(why))) => tell(
            &mut status,
            reasons::EXPORT_REFUSED,
            format!(
                "peer {} did not let us have Export {}/{} when it was last asked ({why}): see that it exists there and that a policy there allows it",
                source.peer, source.export_namespace, source.export_name
            ),
        ),
        (_, Some(false), _) => {
            let words = before.map_or_else(String::new, |before| before.message.clone());
            tell(&mut status, reasons::EXPORT_REFUSED, words);
        }
        (Some(true), _, _) => tell(&mut status, reasons::SOURCE_USABLE, String::new()),
        // Nobody has told of the peer yet.
        (None, _, _) => {}
    }
    status
}
