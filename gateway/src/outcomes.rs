//! What became of the sources of imports when they were last tried, for the status of Imports.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use clusterlink_model::{Import, ObjectName, Source};

/// A source that lets some clients in and denies others is one that accepts: a denial counts only
/// when nobody was let in for this long.
const DENIED_FOR_ALL_MS: u64 = 30_000;

/// What became of a source when it was last tried.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceOutcome {
    /// The import.
    pub import: ObjectName,
    /// The source of it.
    pub source: Source,
    /// Why it did not serve; `None` if it did.
    pub failure: Option<String>,
}

/// The outcomes of all workers. Where nothing new happens, a connection costs a shared lock and a
/// store.
#[derive(Debug, Default)]
pub(crate) struct Outcomes(RwLock<HashMap<ObjectName, HashMap<Source, Outcome>>>);

#[derive(Debug, Default)]
struct Outcome {
    accepted_ms: AtomicU64,
    failed_ms: AtomicU64,
    failure: String,
    denied: bool,
}

impl Outcomes {
    /// The peer let a client have it.
    pub(crate) fn accepted(&self, import: &ObjectName, source: &Source, now_ms: u64) {
        let all = self.0.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(outcome) = all.get(import).and_then(|sources| sources.get(source)) {
            outcome.accepted_ms.store(now_ms, Relaxed);
            return;
        }
        drop(all);
        self.change(import, source, |outcome| {
            *outcome.accepted_ms.get_mut() = now_ms;
        });
    }

    /// It did not serve, for policy's sake (`denied`) or for another reason.
    pub(crate) fn failed(
        &self,
        import: &ObjectName,
        source: &Source,
        denied: bool,
        failure: &str,
        now_ms: u64,
    ) {
        let all = self.0.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(outcome) = all.get(import).and_then(|sources| sources.get(source))
            && outcome.failure == failure
            && outcome.denied == denied
        {
            outcome.failed_ms.store(now_ms, Relaxed);
            return;
        }
        drop(all);
        self.change(import, source, |outcome| {
            *outcome.failed_ms.get_mut() = now_ms;
            outcome.failure = failure.to_owned();
            outcome.denied = denied;
        });
    }

    /// The outcomes of sources that still exist; the others are forgotten.
    pub(crate) fn of(
        &self,
        imports: &BTreeMap<ObjectName, Arc<Import>>,
        now_ms: u64,
    ) -> Vec<SourceOutcome> {
        let mut all = self.0.write().unwrap_or_else(PoisonError::into_inner);
        all.retain(|name, sources| {
            let import = imports.get(name);
            sources.retain(|source, _| import.is_some_and(|it| it.sources.contains(source)));
            !sources.is_empty()
        });
        let mut outcomes: Vec<_> = (all.iter())
            .flat_map(|(import, sources)| sources.iter().map(move |one| (import, one)))
            .map(|(import, (source, outcome))| SourceOutcome {
                import: import.clone(),
                source: source.clone(),
                failure: outcome.failure(now_ms),
            })
            .collect();
        outcomes.sort_by(|a, b| (&a.import, &a.source).cmp(&(&b.import, &b.source)));
        outcomes
    }

    fn change(&self, import: &ObjectName, source: &Source, change: impl FnOnce(&mut Outcome)) {
        let mut all = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let sources = all.entry(import.clone()).or_default();
        change(sources.entry(source.clone()).or_default());
    }
}

impl Outcome {
    fn failure(&self, now_ms: u64) -> Option<String> {
        let accepted = self.accepted_ms.load(Relaxed);
        let failed = self.failed_ms.load(Relaxed);
        let serves = accepted >= failed
            || (self.denied && accepted > 0 && now_ms.saturating_sub(accepted) < DENIED_FOR_ALL_MS);
        (!serves).then(|| self.failure.clone())
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU16;

    use clusterlink_model::{Labels, LbScheme};

    use super::*;

    #[test]
    fn the_last_outcome_counts_and_a_denial_only_if_it_is_for_all() {
        let import = ObjectName::new("shop", "web");
        let source = Source {
            peer: "east".parse().unwrap(),
            export: import.clone(),
        };
        let mut imports = BTreeMap::new();
        let object = Import {
            name: import.clone(),
            labels: Labels::new(),
            addresses: Vec::new(),
            port: NonZeroU16::MIN,
            target_port: None,
            sources: vec![source.clone()],
            scheme: LbScheme::Random,
        };
        imports.insert(import.clone(), Arc::new(object));
        let outcomes = Outcomes::default();
        let at = |now| {
            let of = outcomes.of(&imports, now);
            of.into_iter().map(|one| one.failure).collect::<Vec<_>>()
        };
        assert!(at(1).is_empty(), "it was never tried");
        let denied = |now| outcomes.failed(&import, &source, true, "remote: denied", now);
        denied(1);
        assert_eq!(at(2), [Some("remote: denied".to_owned())]);
        outcomes.accepted(&import, &source, 3);
        assert_eq!(at(4), [None]);
        denied(5);
        assert_eq!(at(6), [None], "another client is let in");
        denied(40_000);
        assert_eq!(at(40_000), [Some("remote: denied".to_owned())]);
        outcomes.accepted(&import, &source, 40_001);
        outcomes.failed(&import, &source, false, "no such export", 40_002);
        assert_eq!(at(40_003), [Some("no such export".to_owned())]);
        outcomes.accepted(&import, &source, 40_004);
        assert_eq!(at(40_005), [None]);
        assert!(outcomes.of(&BTreeMap::new(), 40_006).is_empty());
        assert!(at(40_007).is_empty(), "what is gone is forgotten");
    }
}
