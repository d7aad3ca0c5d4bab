//! The objects of one kind, as the watcher events of their stream tell.

use std::{collections::BTreeMap, sync::Arc};

use clusterlink_model::ObjectName;
use kube::{Resource, runtime::watcher::Event};

/// All objects of kind `K`. While a stream lists anew, the objects of before stay in force until
/// the list is complete.
#[derive(Debug)]
pub(crate) struct Store<K> {
    objects: BTreeMap<ObjectName, Arc<K>>,
    listing: Option<BTreeMap<ObjectName, Arc<K>>>,
    complete: bool,
}

/// One object that was added, replaced or removed.
#[derive(Debug)]
pub(crate) struct Changed<K> {
    pub(crate) name: ObjectName,
    pub(crate) old: Option<Arc<K>>,
    pub(crate) new: Option<Arc<K>>,
}

impl<K> Default for Store<K> {
    fn default() -> Self {
        Self {
            objects: BTreeMap::new(),
            listing: None,
            complete: false,
        }
    }
}

impl<K: Resource> Store<K> {
    /// Whether the stream has listed everything at least once.
    pub(crate) fn is_complete(&self) -> bool {
        self.complete
    }

    /// Whether a list was begun that is not complete: what is held may be old.
    pub(crate) fn is_old(&self) -> bool {
        self.listing.is_some()
    }

    /// The object of that name.
    pub(crate) fn get(&self, name: &ObjectName) -> Option<&Arc<K>> {
        self.objects.get(name)
    }

    /// All names, in order.
    pub(crate) fn names(&self) -> impl Iterator<Item = &ObjectName> {
        self.objects.keys()
    }

    /// All objects, in the order of their names.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&ObjectName, &Arc<K>)> {
        self.objects.iter()
    }

    /// Takes in one event and says what it changed.
    pub(crate) fn apply(&mut self, event: Event<K>) -> Vec<Changed<K>> {
        match event {
            Event::Apply(object) => {
                let Some(name) = name_of(&object) else {
                    return Vec::new();
                };
                let new = Arc::new(object);
                let old = self.objects.insert(name.clone(), Arc::clone(&new));
                vec![Changed {
                    name,
                    old,
                    new: Some(new),
                }]
            }
            Event::Delete(object) => {
                let Some(name) = name_of(&object) else {
                    return Vec::new();
                };
                let old = self.objects.remove(&name);
                vec![Changed {
                    name,
                    old,
                    new: None,
                }]
            }
            Event::Init => {
                self.listing = Some(BTreeMap::new());
                Vec::new()
            }
            Event::InitApply(object) => {
                if let Some(name) = name_of(&object) {
                    self.listing
                        .get_or_insert_default()
                        .insert(name, Arc::new(object));
                }
                Vec::new()
            }
            Event::InitDone => {
                self.complete = true;
                self.listing
                    .take()
                    .map_or_else(Vec::new, |listing| self.replace(listing))
            }
        }
    }

    fn replace(&mut self, listing: BTreeMap<ObjectName, Arc<K>>) -> Vec<Changed<K>> {
        let mut before = std::mem::replace(&mut self.objects, listing);
        let mut changed: Vec<Changed<K>> = Vec::with_capacity(self.objects.len());
        for (name, new) in &self.objects {
            let old = before.remove(name);
            changed.push(Changed {
                name: name.clone(),
                old,
                new: Some(Arc::clone(new)),
            });
        }
        changed.extend(before.into_iter().map(|(name, old)| Changed {
            name,
            old: Some(old),
            new: None,
        }));
        changed
    }
}

/// Namespace and name; the namespace of a cluster-scoped object is empty.
fn name_of<K: Resource>(object: &K) -> Option<ObjectName> {
    let meta = object.meta();
    let name = meta.name.as_deref().filter(|name| !name.is_empty());
    if name.is_none() {
        tracing::warn!(
            namespace = meta.namespace,
            "skipped an object without metadata.name"
        );
    }
    Some(ObjectName::new(
        meta.namespace.as_deref().unwrap_or_default(),
        name?,
    ))
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::Pod;

    use super::*;

    fn pod(name: &str, node: &str) -> Pod {
        let mut pod = Pod::default();
        pod.metadata.name = Some(name.to_owned());
        pod.metadata.namespace = Some("ns".to_owned());
        pod.spec.get_or_insert_default().node_name = Some(node.to_owned());
        pod
    }

    fn names(store: &Store<Pod>) -> Vec<String> {
        store.names().map(ToString::to_string).collect()
    }

    #[test]
    fn is_complete_only_after_the_first_list() {
        let mut store = Store::default();
        store.apply(Event::Init);
        store.apply(Event::InitApply(pod("a", "1")));
        assert!(!store.is_complete());
        assert!(names(&store).is_empty());
        let changed = store.apply(Event::InitDone);
        assert!(store.is_complete());
        assert_eq!(changed.len(), 1);
        assert_eq!(names(&store), ["ns/a"]);
    }

    #[test]
    fn a_second_list_keeps_the_old_objects_until_done_and_removes_the_unnamed() {
        let mut store = Store::default();
        store.apply(Event::Apply(pod("a", "1")));
        store.apply(Event::Apply(pod("b", "1")));
        store.apply(Event::Init);
        store.apply(Event::InitApply(pod("b", "2")));
        assert_eq!(names(&store), ["ns/a", "ns/b"]);
        assert!(store.is_old());
        let changed = store.apply(Event::InitDone);
        assert_eq!(names(&store), ["ns/b"]);
        assert!(!store.is_old());
        let gone: Vec<_> = changed
            .iter()
            .filter(|c| c.new.is_none())
            .map(|c| c.name.to_string())
            .collect();
        assert_eq!(gone, ["ns/a"]);
    }

    #[test]
    fn an_object_without_a_name_is_skipped() {
        let mut store = Store::default();
        assert!(store.apply(Event::Apply(Pod::default())).is_empty());
        assert!(names(&store).is_empty());
    }

    #[test]
    fn a_deletion_tells_what_was_there() {
        let mut store = Store::default();
        store.apply(Event::Apply(pod("a", "1")));
        let changed = store.apply(Event::Delete(pod("a", "1")));
        assert!(changed[0].old.is_some() && changed[0].new.is_none());
    }
}
