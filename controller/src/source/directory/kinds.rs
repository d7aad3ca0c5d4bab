//! The kinds that a manifest directory may hold: how each is named, checked and decoded.

mod core;
mod ours;

use std::{
    fmt,
    sync::{Arc, LazyLock},
};

use clusterlink_crds::{AccessPolicy, Export, Import, Peer, PolicyAction, PrivilegedAccessPolicy};
use k8s_openapi::api::{
    core::v1::{Namespace, Pod, Service},
    discovery::v1::EndpointSlice,
};
use kube::Resource;
use serde::de::DeserializeOwned;
use serde_json::Value as Json;

use super::{
    node::Node,
    schema::{Fault, Schema},
};

macro_rules! kinds {
    ($($kind:ident $api_version:literal $namespaced:literal $schema:path,)*) => {
        /// A kind that is understood; policies come first, as they are to be told first.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub(super) enum Kind { $(#[doc = stringify!($kind)] $kind,)* }

        /// An object of any kind that is understood.
        #[derive(Clone, Debug, PartialEq)]
        pub(super) enum Object { $(#[doc = stringify!($kind)] $kind(Box<$kind>),)* }

        impl Kind {
            /// All of them.
            pub(super) const ALL: &[Self] = &[$(Self::$kind,)*];

            /// Its name in a manifest.
            pub(super) fn name(self) -> &'static str {
                match self { $(Self::$kind => stringify!($kind),)* }
            }

            /// The `apiVersion` that goes with it.
            pub(super) fn api_version(self) -> &'static str {
                match self { $(Self::$kind => $api_version,)* }
            }

            /// Whether its objects live in namespaces.
            pub(super) fn is_namespaced(self) -> bool {
                match self { $(Self::$kind => $namespaced,)* }
            }

            fn raw_schema(self) -> Json {
                match self { $(Self::$kind => $schema(stringify!($kind)),)* }
            }

            fn decode(self, json: Json) -> Result<Object, Undecodable> {
                match self { $(Self::$kind => decode(json).map(Box::new).map(Object::$kind),)* }
            }
        }

        impl Object {
            /// The object with its namespace and with `generation`.
            pub(super) fn stamped(&self, key: &Key, generation: i64) -> Self {
                let mut object = self.clone();
                let meta = match &mut object { $(Self::$kind(object) => object.meta_mut(),)* };
                meta.namespace = key.kind.is_namespaced().then(|| key.namespace.to_string());
                meta.generation = Some(generation);
                object
            }

            fn json(&self) -> serde_json::Result<Json> {
                match self { $(Self::$kind(object) => serde_json::to_value(object),)* }
            }
        }
    };
}

kinds! {
    PrivilegedAccessPolicy "clusterlink.net/v1alpha1" false ours::schema,
    AccessPolicy "clusterlink.net/v1alpha1" true ours::schema,
    Peer "clusterlink.net/v1alpha1" true ours::schema,
    Export "clusterlink.net/v1alpha1" true ours::schema,
    Import "clusterlink.net/v1alpha1" true ours::schema,
    Namespace "v1" false core::schema,
    Service "v1" true core::schema,
    EndpointSlice "discovery.k8s.io/v1" true core::schema,
    Pod "v1" true core::schema,
}

/// Which object.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Key {
    pub(super) kind: Kind,
    /// Empty for kinds without namespaces.
    pub(super) namespace: Arc<str>,
    pub(super) name: Arc<str>,
}

impl Key {
    /// The object as `namespace/name`, or `name`.
    pub(super) fn object(&self) -> String {
        if self.kind.is_namespaced() {
            format!("{}/{}", self.namespace, self.name)
        } else {
            self.name.to_string()
        }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind.name(), self.object())
    }
}

impl Kind {
    /// The kind of that name.
    pub(super) fn named(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|kind| kind.name() == name)
    }

    /// Checks `document`, which is of this kind, and makes an object of it.
    pub(super) fn read(self, document: &Node) -> Result<Object, Vec<Fault>> {
        let schema = self.schema();
        let mut faults = schema.check(document);
        faults.extend(core::check_labels(document));
        if !faults.is_empty() {
            return Err(faults);
        }
        self.decode(schema.prune(document)).map_err(|undecodable| {
            let Undecodable { path, error } = undecodable;
            let line = document.line_of(&path);
            let message = format!("cannot be read: {error}");
            vec![Fault {
                field: path.to_string(),
                line,
                message,
            }]
        })
    }

    fn schema(self) -> &'static Schema {
        static SCHEMAS: LazyLock<Vec<Schema>> = LazyLock::new(|| {
            Kind::ALL
                .iter()
                .map(|kind| core::with_metadata(&kind.raw_schema()))
                .collect()
        });
        &SCHEMAS[self as usize]
    }
}

impl Object {
    /// The object as a manifest that says the same.
    pub(super) fn document(&self, key: &Key) -> Option<Json> {
        let mut json = self.json().ok()?;
        json["apiVersion"] = key.kind.api_version().into();
        json["kind"] = key.kind.name().into();
        if key.kind.is_namespaced() {
            json["metadata"]["namespace"] = (*key.namespace).into();
        }
        // The status of our own kinds is not a manifest's to say.
        if json["status"].is_null() {
            json.as_object_mut()?.remove("status");
        }
        Some(json)
    }

    /// Whether it is a policy that lets connections pass.
    pub(super) fn is_allow(&self) -> bool {
        let action = match self {
            Self::AccessPolicy(policy) => policy.spec.action,
            Self::PrivilegedAccessPolicy(policy) => policy.spec.0.action,
            _ => return false,
        };
        action == PolicyAction::Allow
    }
}

struct Undecodable {
    path: serde_path_to_error::Path,
    error: serde_json::Error,
}

fn decode<K: DeserializeOwned>(json: Json) -> Result<K, Undecodable> {
    serde_path_to_error::deserialize(json).map_err(|error| Undecodable {
        path: error.path().clone(),
        error: error.into_inner(),
    })
}
