//! Which cgroup directories are pods: what kubelets and container runtimes call them, and where
//! they are on this node.
//!
//! ```text
//! kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod<uid with _>.slice   systemd driver
//! kubepods/burstable/pod<uid>                                                        cgroupfs driver
//! …/kubelet.slice/kubelet-kubepods.slice/…    docker/<id>/kubelet/kubepods/…         below --cgroup-root
//! ```
//! Pods of the guaranteed class have no directory for the class. What is below a pod's directory
//! (`cri-containerd-….scope`, `crio-….scope`, a bare id) belongs to the pod. A static pod's
//! directory carries the hash of its configuration instead of a UID.

mod tree;

#[cfg(test)]
mod tests;

pub(crate) use self::tree::PodTree;

/// The classes of service that have a directory of their own.
const CLASSES: [&str; 2] = ["burstable", "besteffort"];

/// What a cgroup directory is to Kubernetes, by its name and where it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// Nothing that we know.
    Elsewhere,
    /// Above pods: the root of all pods, or of a class of service.
    Above {
        naming: Naming,
        /// It is the root: below are classes of service too.
        root: bool,
    },
    /// A pod.
    Pod(PodDirectory),
}

/// How a kubelet names directories.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Naming {
    /// The cgroupfs driver: plain names.
    Plain,
    /// The systemd driver: every slice repeats the name of the one above, this one.
    Slices(String),
}

/// The name of a pod's directory.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct PodDirectory {
    uid: String,
    /// systemd has `-` for "below": the kubelet writes `_` for every `-` of the UID.
    escaped: bool,
}

impl Place {
    /// What a directory of this name is in this place.
    pub(crate) fn below(&self, name: &str) -> Self {
        match self {
            Self::Above { naming, root } => naming.below(name, *root).unwrap_or(Self::Elsewhere),
            Self::Elsewhere => root(name).unwrap_or(Self::Elsewhere),
            // Kubernetes within a pod is for the agent in there; to us it is all that pod.
            Self::Pod(_) => self.clone(),
        }
    }
}

impl Naming {
    fn below(&self, name: &str, root: bool) -> Option<Place> {
        let (rest, body) = match self {
            Self::Plain => (name, name),
            Self::Slices(above) => {
                let body = name.strip_suffix(".slice")?;
                (body.strip_prefix(above.as_str())?.strip_prefix('-')?, body)
            }
        };
        let escaped = *self != Self::Plain;
        if let Some(uid) = rest.strip_prefix("pod").filter(|uid| !uid.is_empty()) {
            let uid = uid.to_owned();
            return Some(Place::Pod(PodDirectory { uid, escaped }));
        }
        (root && CLASSES.contains(&rest)).then(|| Place::Above {
            naming: if escaped {
                Self::Slices(body.to_owned())
            } else {
                Self::Plain
            },
            root: false,
        })
    }
}

/// The root of all pods, if that is one's name.
fn root(name: &str) -> Option<Place> {
    let naming = match name.strip_suffix(".slice") {
        None => (name == "kubepods").then_some(Naming::Plain)?,
        Some(body) => {
            let last = body.rsplit('-').next();
            (last == Some("kubepods")).then(|| Naming::Slices(body.to_owned()))?
        }
    };
    Some(Place::Above { naming, root: true })
}

impl PodDirectory {
    /// Whether the directory is that of a pod with this UID, or hash of its configuration.
    pub(crate) fn is_of(&self, uid: &str) -> bool {
        if self.escaped {
            self.uid == escape(uid)
        } else {
            self.uid == uid
        }
    }

    /// The same for every UID that this directory may be of.
    fn key(&self) -> String {
        escape(&self.uid)
    }
}

fn escape(uid: &str) -> String {
    uid.replace('-', "_")
}
