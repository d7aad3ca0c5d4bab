//! Decodes what can be decoded. An object that cannot, such as one that was stored under an older
//! schema, is reported; what was read of it before stays, unless it is a policy that allows: that
//! one is withdrawn, since nobody knows how its author meant to narrow it.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use kube::{
    Resource,
    api::ObjectMeta,
    core::DeserializeGuard,
    runtime::watcher::{self, Event},
};

use super::told::Told;

/// The state of one watch.
pub(super) struct Lenient<K> {
    told: Arc<Told>,
    is_allow: fn(&K) -> bool,
    /// What was decoded last, by name.
    good: HashMap<String, K>,
    /// The objects of the list that is being read; none outside of a list.
    listing: Option<Listing>,
}

#[derive(Default)]
struct Listing {
    seen: BTreeSet<String>,
    invalid: BTreeSet<String>,
}

impl<K: Resource<DynamicType = ()> + Clone> Lenient<K> {
    pub(super) fn new(told: Arc<Told>, is_allow: fn(&K) -> bool) -> Self {
        Self {
            told,
            is_allow,
            good: HashMap::new(),
            listing: None,
        }
    }

    /// What a watcher said, as far as it can be understood.
    pub(super) fn read(
        &mut self,
        event: Result<Event<DeserializeGuard<K>>, watcher::Error>,
    ) -> Option<Event<K>> {
        let kind = K::kind(&());
        let event = match event {
            Ok(event) => event,
            Err(error) => {
                self.told.watch_failed(&kind, &error);
                return None;
            }
        };
        self.told.watch_works(&kind);
        match event {
            Event::Init => {
                self.listing = Some(Listing::default());
                Some(Event::Init)
            }
            Event::InitApply(object) => self.initial(object).map(Event::InitApply),
            Event::InitDone => {
                let Listing { seen, invalid } = self.listing.take().unwrap_or_default();
                self.good.retain(|name, _| seen.contains(name));
                self.told.listed(&kind, &invalid);
                Some(Event::InitDone)
            }
            Event::Apply(object) => self.applied(object),
            Event::Delete(DeserializeGuard(object)) => {
                let metadata = match &object {
                    Ok(object) => object.meta(),
                    Err(invalid) => &invalid.metadata,
                };
                let name = name(metadata);
                self.told.valid(&kind, &name);
                let good = self.good.remove(&name);
                object.ok().or(good).map(Event::Delete)
            }
        }
    }

    fn initial(&mut self, DeserializeGuard(object): DeserializeGuard<K>) -> Option<K> {
        match object {
            Ok(object) => {
                let name = self.keep(&object);
                if let Some(listing) = &mut self.listing {
                    listing.seen.insert(name);
                }
                Some(object)
            }
            Err(invalid) => {
                let name = name(&invalid.metadata);
                let kept = self.reject(&name, &invalid.error).cloned();
                if let Some(listing) = &mut self.listing {
                    listing.seen.insert(name.clone());
                    listing.invalid.insert(name);
                }
                kept
            }
        }
    }

    fn applied(&mut self, DeserializeGuard(object): DeserializeGuard<K>) -> Option<Event<K>> {
        match object {
            Ok(object) => {
                self.keep(&object);
                Some(Event::Apply(object))
            }
            Err(invalid) => {
                let name = name(&invalid.metadata);
                let before = self.good.get(&name).cloned();
                match self.reject(&name, &invalid.error) {
                    Some(_) => None,
                    None => before.map(Event::Delete),
                }
            }
        }
    }

    fn keep(&mut self, object: &K) -> String {
        let name = name(object.meta());
        self.told.valid(&K::kind(&()), &name);
        self.good.insert(name.clone(), object.clone());
        name
    }

    /// Reports an object, and gives what stays in force of it.
    fn reject(&mut self, name: &str, error: &str) -> Option<&K> {
        let is_allow = self.is_allow;
        if self.good.get(name).is_some_and(is_allow) {
            self.good.remove(name);
        }
        let kept = self.good.get(name);
        self.told
            .invalid(&K::kind(&()), name, error, kept.is_some());
        kept
    }
}

/// `namespace/name`, or `name` of an object without a namespace.
fn name(metadata: &ObjectMeta) -> String {
    let name = metadata.name.as_deref().unwrap_or_default();
    match &metadata.namespace {
        Some(namespace) => format!("{namespace}/{name}"),
        None => name.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use clusterlink_crds::{PolicyAction, PrivilegedAccessPolicy};
    use serde_json::{Value, json};
    use tokio::sync::watch;

    use super::*;
    use crate::source::Problems;

    fn lenient() -> (Lenient<PrivilegedAccessPolicy>, Problems) {
        let (sender, problems) = watch::channel(Arc::default());
        let is_allow =
            |policy: &PrivilegedAccessPolicy| policy.spec.0.action == PolicyAction::Allow;
        (
            Lenient::new(Arc::new(Told::new(sender)), is_allow),
            problems,
        )
    }

    fn policy(name: &str, action: &str) -> DeserializeGuard<PrivilegedAccessPolicy> {
        let all = json!([{"workloadSelector": {}}]);
        decode(
            json!({"metadata": {"name": name}, "spec": {"action": action, "from": all, "to": all}}),
        )
    }

    fn decode(mut value: Value) -> DeserializeGuard<PrivilegedAccessPolicy> {
        value["apiVersion"] = "clusterlink.net/v1alpha1".into();
        value["kind"] = "PrivilegedAccessPolicy".into();
        serde_json::from_value(value).expect("a guard decodes anything with metadata")
    }

    /// The events in short, `=` for one that applies and `-` for one that deletes.
    fn told(
        lenient: &mut Lenient<PrivilegedAccessPolicy>,
        event: Event<DeserializeGuard<PrivilegedAccessPolicy>>,
    ) -> String {
        let text = |sign: &str, policy: &PrivilegedAccessPolicy| {
            format!(
                "{sign}{}",
                policy.metadata.name.as_deref().unwrap_or_default()
            )
        };
        match lenient.read(Ok(event)) {
            None => String::new(),
            Some(Event::Init | Event::InitDone) => "list".to_owned(),
            Some(Event::Apply(policy) | Event::InitApply(policy)) => text("=", &policy),
            Some(Event::Delete(policy)) => text("-", &policy),
        }
    }

    fn stale(problems: &Problems) -> Vec<(Option<String>, bool)> {
        let problems = problems.borrow();
        let short = problems.iter().map(|one| (one.object.clone(), one.stale));
        short.collect()
    }

    #[test]
    fn an_object_that_cannot_be_decoded_withdraws_an_allow_and_keeps_a_deny() {
        let (mut lenient, problems) = lenient();
        for (event, wanted) in [
            (Event::Init, "list"),
            (Event::InitApply(policy("a", "allow")), "=a"),
            (Event::InitApply(policy("d", "deny")), "=d"),
            (Event::InitApply(policy("n", "nonsense")), ""),
            (Event::InitDone, "list"),
            (Event::Apply(policy("a", "nonsense")), "-a"),
            (Event::Apply(policy("d", "nonsense")), ""),
        ] {
            assert_eq!(told(&mut lenient, event), wanted);
        }
        let some = |name: &str| Some(name.to_owned());
        assert_eq!(
            stale(&problems),
            [(some("a"), false), (some("d"), true), (some("n"), false)]
        );
        // A new list, as after a watch that was cut for long, changes nothing of that.
        for (event, wanted) in [
            (Event::Init, "list"),
            (Event::InitApply(policy("a", "nonsense")), ""),
            (Event::InitApply(policy("d", "nonsense")), "=d"),
            (Event::InitDone, "list"),
        ] {
            assert_eq!(told(&mut lenient, event), wanted);
        }
        assert_eq!(stale(&problems), [(some("a"), false), (some("d"), true)]);
        assert_eq!(told(&mut lenient, Event::Apply(policy("a", "deny"))), "=a");
        assert_eq!(
            told(&mut lenient, Event::Delete(policy("d", "nonsense"))),
            "-d"
        );
        assert_eq!(stale(&problems), []);
    }

    #[test]
    fn what_is_missing_from_a_new_list_is_forgotten() {
        let (mut lenient, problems) = lenient();
        told(&mut lenient, Event::Init);
        told(&mut lenient, Event::InitApply(policy("d", "deny")));
        told(&mut lenient, Event::InitApply(policy("n", "nonsense")));
        told(&mut lenient, Event::InitDone);
        told(&mut lenient, Event::Init);
        told(&mut lenient, Event::InitDone);
        assert_eq!(stale(&problems), []);
        assert_eq!(
            told(&mut lenient, Event::Apply(policy("d", "nonsense"))),
            ""
        );
    }
}
