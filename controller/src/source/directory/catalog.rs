//! What is in force: the objects of all files, which of two of a name counts, and what stays when a
//! document cannot be used any more.
//!
//! An object whose document became unusable stays as it was read last, unless it is a policy that
//! allows: that one is withdrawn, since nobody knows how its author meant to narrow it.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    path::Path,
    sync::Arc,
};

use super::{
    kinds::{Key, Kind, Object},
    manifest::{Content, Item},
    node::shortened,
    schema::Fault,
};
use crate::source::{Place, Problem};

/// A change of what is in force.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Change {
    Apply(Object),
    Delete(Object),
}

/// What is known of all files.
#[derive(Debug, Default)]
pub(super) struct Catalog {
    files: BTreeMap<Arc<Path>, File>,
    /// Where each object is claimed, in the order in which claims count.
    claims: HashMap<Key, BTreeSet<Claim>>,
    in_force: HashMap<Key, InForce>,
    duplicates: BTreeMap<Key, Vec<Problem>>,
    touched: HashSet<Key>,
}

/// How many problems of one file are told in full; more than that nobody reads.
const MOST_TOLD: usize = 1_000;

#[derive(Debug, Default)]
struct File {
    objects: HashMap<Key, Known>,
    problems: Vec<Problem>,
    /// How many more there are.
    untold: usize,
}

impl File {
    /// Keeps a problem. Those that say why an object is not as its manifest has it are never left out.
    fn tell(&mut self, problem: Problem) {
        if problem.stale || self.problems.len() < MOST_TOLD {
            self.problems.push(problem);
        } else {
            self.untold += 1;
        }
    }

    /// Says how many problems were left out.
    fn finish(&mut self, path: &Path) {
        if self.untold > 0 {
            self.problems.push(Problem {
                place: Place {
                    file: path.display().to_string(),
                    document: None,
                    line: None,
                },
                kind: None,
                object: None,
                field: None,
                message: format!(
                    "has {} more problems that are not listed: correct those that are first",
                    self.untold
                ),
                stale: false,
            });
        }
    }
}

/// What a file says of one object.
#[derive(Debug)]
struct Known {
    claim: Claim,
    place: Place,
    /// None if the document is wrong and nothing earlier may stand for it.
    object: Option<Arc<Object>>,
}

/// A document's claim to an object. The first one counts: real documents before remembered ones,
/// then by path, then by position.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Claim {
    remembered: bool,
    file: Arc<Path>,
    position: usize,
}

#[derive(Debug)]
struct InForce {
    object: Arc<Object>,
    generation: i64,
}

impl Catalog {
    /// Takes in what was read from `path`.
    pub(super) fn update(&mut self, path: &Arc<Path>, items: Vec<Item>) {
        let mut before = self.files.remove(path).unwrap_or_default();
        let mut after = File::default();
        let mut unknown = Vec::new();
        for (position, item) in items.into_iter().enumerate() {
            // Document 0 is the file as a whole.
            let in_file = |value: u32| (item.document > 0).then_some(value);
            let place = |line: u32| Place {
                file: path.display().to_string(),
                document: in_file(item.document),
                line: in_file(item.line.saturating_add(line)),
            };
            let claim = Claim {
                remembered: false,
                file: Arc::clone(path),
                position,
            };
            let (key, place, object, faults) = match item.content {
                Content::Object(key, line, object) => (key, place(line), Some(object), Vec::new()),
                Content::Invalid(key, line, faults) => {
                    let earlier = before
                        .objects
                        .get(&key)
                        .and_then(|known| known.object.clone());
                    let earlier =
                        earlier.or_else(|| Some(Arc::clone(&self.in_force.get(&key)?.object)));
                    let kept = earlier.clone().filter(|object| !object.is_allow());
                    let note = note(earlier.as_deref());
                    let stale = kept.is_some();
                    let problems = faults.into_iter().map(|fault| Problem {
                        kind: Some(key.kind.name().to_owned()),
                        object: Some(shortened(&key.object())),
                        ..problem(place(fault.line), fault, note, stale)
                    });
                    let problems = problems.collect();
                    (key, place(line), kept, problems)
                }
                Content::Unknown(kind, fault) => {
                    let place = place(fault.line);
                    let problem = Problem {
                        kind: kind.map(|kind| kind.name().to_owned()),
                        ..problem(place.clone(), fault, "", false)
                    };
                    // One of each kind is needed below, however many are told.
                    let stands_for = |(other, ..): &(Option<Kind>, _, _)| *other == kind;
                    if unknown.len() < MOST_TOLD || !unknown.iter().any(stands_for) {
                        unknown.push((kind, place, problem));
                    } else {
                        after.untold += 1;
                    }
                    continue;
                }
                Content::Foreign(kind, name, fault) => {
                    let place = place(fault.line);
                    after.tell(Problem {
                        kind: Some(shortened(&kind)),
                        object: name.as_deref().map(shortened),
                        ..problem(place, fault, "", false)
                    });
                    continue;
                }
            };
            match after.objects.get(&key) {
                None => {
                    faults.into_iter().for_each(|fault| after.tell(fault));
                    after.objects.insert(
                        key,
                        Known {
                            claim,
                            place,
                            object,
                        },
                    );
                }
                Some(first) => {
                    let problem = duplicate(&key, &first.place, place);
                    after.tell(problem);
                }
            }
        }
        for (key, known) in before.objects.drain() {
            self.unclaim(&key, &known.claim);
            if !after.objects.contains_key(&key) {
                remember(path, key, known, &mut unknown, &mut after);
            }
        }
        (unknown.into_iter()).for_each(|(_, _, problem)| after.tell(problem));
        after.finish(path);
        for (key, known) in &after.objects {
            self.claims
                .entry(key.clone())
                .or_default()
                .insert(known.claim.clone());
            self.touched.insert(key.clone());
        }
        self.files.insert(Arc::clone(path), after);
    }

    /// Takes in that `path` cannot be read at all.
    pub(super) fn unreadable(&mut self, path: &Arc<Path>, message: String) {
        let fault = Fault {
            field: String::new(),
            line: 0,
            message,
        };
        let item = Item {
            document: 0,
            line: 0,
            content: Content::Unknown(None, fault),
        };
        self.update(path, vec![item]);
    }

    /// The objects that `path` stands for now, in the order of its documents.
    pub(super) fn objects(&self, path: &Path) -> Vec<(&Key, &Object)> {
        let objects = self
            .files
            .get(path)
            .into_iter()
            .flat_map(|file| &file.objects);
        let mut known: Vec<_> = objects
            .filter_map(|(key, known)| Some((known.claim.position, key, &**known.object.as_ref()?)))
            .collect();
        known.sort_by_key(|(position, key, _)| (*position, *key));
        known
            .into_iter()
            .map(|(_, key, object)| (key, object))
            .collect()
    }

    /// Takes in that `path` is gone.
    pub(super) fn remove(&mut self, path: &Path) {
        for (key, known) in self.files.remove(path).unwrap_or_default().objects {
            self.unclaim(&key, &known.claim);
        }
    }

    /// What has changed since this was called last: first what closes, last what opens.
    pub(super) fn settle(&mut self) -> Vec<(Key, Change)> {
        let mut changes: Vec<_> = std::mem::take(&mut self.touched)
            .into_iter()
            .filter_map(|key| self.settle_one(&key).map(|change| (key, change)))
            .collect();
        changes.sort_by_cached_key(|(key, change)| {
            let is_policy = matches!(key.kind, Kind::AccessPolicy | Kind::PrivilegedAccessPolicy);
            let narrows = match change {
                Change::Apply(object) => !object.is_allow(),
                Change::Delete(object) => object.is_allow(),
            };
            let rank = match (is_policy, narrows) {
                (true, true) => 0,
                (false, _) => 1,
                (true, false) => 2,
            };
            (rank, key.clone())
        });
        changes
    }

    /// What is wrong, ordered by place.
    pub(super) fn problems(&self) -> Vec<Problem> {
        let of_files = self.files.values().flat_map(|file| &file.problems);
        let mut problems: Vec<_> = of_files
            .chain(self.duplicates.values().flatten())
            .cloned()
            .collect();
        problems.sort();
        problems
    }

    fn unclaim(&mut self, key: &Key, claim: &Claim) {
        self.touched.insert(key.clone());
        if let Some(claims) = self.claims.get_mut(key) {
            claims.remove(claim);
            if claims.is_empty() {
                self.claims.remove(key);
            }
        }
    }

    fn settle_one(&mut self, key: &Key) -> Option<Change> {
        let known = |claim: &Claim| self.files.get(&claim.file)?.objects.get(key);
        let mut claimants = self.claims.get(key).into_iter().flatten().filter_map(known);
        let first = claimants.next();
        let others = claimants.filter(|other| !other.claim.remembered);
        let problems: Vec<_> = first
            .map(|first| {
                others
                    .map(|other| duplicate(key, &first.place, other.place.clone()))
                    .collect()
            })
            .unwrap_or_default();
        let object = first.and_then(|first| first.object.clone());
        if problems.is_empty() {
            self.duplicates.remove(key);
        } else {
            self.duplicates.insert(key.clone(), problems);
        }
        match (object, self.in_force.get_mut(key)) {
            (None, None) => None,
            (None, Some(_)) => {
                let InForce { object, generation } = self.in_force.remove(key)?;
                Some(Change::Delete(object.stamped(key, generation)))
            }
            (Some(object), None) => {
                let applied = object.stamped(key, 1);
                self.in_force.insert(
                    key.clone(),
                    InForce {
                        object,
                        generation: 1,
                    },
                );
                Some(Change::Apply(applied))
            }
            (Some(object), Some(in_force)) => {
                if Arc::ptr_eq(&object, &in_force.object) || object == in_force.object {
                    in_force.object = object;
                    return None;
                }
                in_force.generation += 1;
                in_force.object = object;
                Some(Change::Apply(
                    in_force.object.stamped(key, in_force.generation),
                ))
            }
        }
    }
}

/// Decides on an object that the file does not name any more: it may be what an unreadable document
/// is about, and then it stays.
fn remember(
    path: &Arc<Path>,
    key: Key,
    known: Known,
    unknown: &mut [(Option<Kind>, Place, Problem)],
    after: &mut File,
) {
    let fits = |kind: &Option<Kind>| kind.is_none_or(|kind| kind == key.kind);
    let Some((_, place, cause)) = unknown.iter_mut().find(|(kind, ..)| fits(kind)) else {
        return;
    };
    let Some(object) = known.object else { return };
    let note = note(Some(&object));
    let kept = !object.is_allow();
    cause.stale |= kept;
    after.tell(Problem {
        place: place.clone(),
        kind: Some(key.kind.name().to_owned()),
        object: Some(shortened(&key.object())),
        field: None,
        message: format!("may be what cannot be read here: {}{note}", cause.message),
        stale: kept,
    });
    let claim = Claim {
        remembered: true,
        file: Arc::clone(path),
        position: known.claim.position,
    };
    let object = kept.then_some(object);
    let place = known.place;
    after.objects.insert(
        key,
        Known {
            claim,
            place,
            object,
        },
    );
}

fn note(earlier: Option<&Object>) -> &'static str {
    match earlier {
        None => "",
        Some(object) if object.is_allow() => "; the allow is withdrawn until this is corrected",
        Some(_) => "; what was last read of it stays in force",
    }
}

fn problem(place: Place, fault: Fault, note: &str, stale: bool) -> Problem {
    Problem {
        place,
        kind: None,
        object: None,
        field: Some(fault.field).filter(|field| !field.is_empty()),
        message: format!("{}{note}", fault.message),
        stale,
    }
}

fn duplicate(key: &Key, first: &Place, place: Place) -> Problem {
    Problem {
        place,
        kind: Some(key.kind.name().to_owned()),
        object: Some(shortened(&key.object())),
        field: None,
        message: format!("is given already at {first}, which counts: remove one of them"),
        stale: false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::directory::manifest::{self, Memory};

    const IMPORT: &str = "---
apiVersion: clusterlink.net/v1alpha1
kind: Import
metadata: {name: web}
spec: {port: 80, sources: []}
";

    #[test]
    fn a_file_full_of_mistakes_is_told_in_part_and_hides_no_stale_object() {
        let path: Arc<Path> = Path::new("m.yaml").into();
        let (mut catalog, mut memory) = (Catalog::default(), Memory::default());
        let mut update = |text: &str| {
            catalog.update(&path, manifest::read(&path, text, &mut memory));
            catalog.settle();
            catalog.problems()
        };
        assert_eq!(update(IMPORT), []);
        let count = MOST_TOLD + 500;
        let name = "x".repeat(1_000_000);
        let text = [
            format!("---\nkind: {name}\nmetadata: {{name: {name}}}\n"),
            "---\nkind: Deployment\n".repeat(count - 1),
            "--- no manifest\n".repeat(count),
            IMPORT.replace("80", "0"),
        ];
        let problems = update(&text.concat());
        let stale: Vec<_> = problems.iter().filter(|problem| problem.stale).collect();
        let [stale] = stale.as_slice() else {
            panic!("{stale:?}")
        };
        assert_eq!(stale.object.as_deref(), Some("default/web"));
        let last = format!("has {} more problems", 2 * count - MOST_TOLD);
        let told = problems.iter().filter(|one| one.message.starts_with(&last));
        assert_eq!((problems.len(), told.count()), (MOST_TOLD + 2, 1));
        assert!(problems.iter().all(|one| one.to_string().len() < 1_000));
    }
}
