//! What control frames say, in domain types, and the checks between them and the wire.

pub(crate) mod wire;

use clusterlink_model::{Labels, ObjectName, WorkloadAttributes};
use prost::Message;

use crate::tunnel::{frame::FrameType, violation::Violation};

/// The protocol version that this code speaks.
pub const VERSION: u32 = 1;

/// The longest text that is kept of what a peer says for people to read.
pub const MAX_TEXT: usize = 256;

/// How many features of a peer are remembered.
const MAX_FEATURES: usize = 64;

/// The longest name of an object, a namespace or a service account.
const MAX_NAME: usize = 253;

/// What a gateway says of itself at the start of a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    /// Protocol versions that it speaks.
    pub versions: Vec<u32>,
    /// Optional parts of the protocol that it offers.
    pub features: Vec<String>,
    /// Name and version of its software.
    pub software: String,
    /// The labels of its peer.
    pub labels: Labels,
    /// Its clock, milliseconds since the epoch.
    pub clock_ms: u64,
    /// What it grants the other side.
    pub limits: Limits,
    /// The association that this session belongs to; stream ids are unique in it.
    pub association: [u8; 16],
    /// The number of this session in the association.
    pub session: u32,
    /// Which process and worker it is: boot id and worker number.
    pub instance: String,
}

/// What one side grants the other, announced in HELLO.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Streams that the other side may have open.
    pub streams: u32,
    /// Of these, streams that were neither accepted nor rejected yet.
    pub pending_opens: u32,
    /// Credit that every stream starts with.
    pub initial_window: u32,
    /// Dictionary entries that the other side may have defined.
    pub dictionary_entries: u32,
    /// Their size: the payload of each DEFINE, and 64 for every label in it.
    pub dictionary_bytes: u32,
}

impl Limits {
    /// What everyone grants, so that a dialling gateway need not wait for the answer.
    pub const MINIMUM: Self = Self {
        streams: 128,
        pending_opens: 128,
        initial_window: 64 * 1024,
        dictionary_entries: 64,
        dictionary_bytes: 256 * 1024,
    };

    /// These limits, each raised to the protocol's minimum.
    pub fn at_least_minimum(self) -> Self {
        let least = Self::MINIMUM;
        Self {
            streams: self.streams.max(least.streams),
            pending_opens: self.pending_opens.max(least.pending_opens),
            initial_window: self.initial_window.max(least.initial_window),
            dictionary_entries: self.dictionary_entries.max(least.dictionary_entries),
            dictionary_bytes: self.dictionary_bytes.max(least.dictionary_bytes),
        }
    }
}

impl Limits {
    /// These limits, with the dictionary no larger than in `bound`: what one side grants is no
    /// reason for the other to remember that much.
    pub(crate) fn within_dictionary(self, bound: &Self) -> Self {
        Self {
            dictionary_entries: self.dictionary_entries.min(bound.dictionary_entries),
            dictionary_bytes: self.dictionary_bytes.min(bound.dictionary_bytes),
            ..self
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            streams: 4096,
            pending_opens: 1024,
            initial_window: 64 * 1024,
            dictionary_entries: 4096,
            dictionary_bytes: 1024 * 1024,
        }
    }
}

impl Default for Hello {
    fn default() -> Self {
        Self {
            versions: vec![VERSION],
            features: Vec::new(),
            software: String::new(),
            labels: Labels::new(),
            clock_ms: 0,
            limits: Limits::default(),
            association: [0; 16],
            session: 0,
            instance: String::new(),
        }
    }
}

/// What a DEFINE frame adds to the dictionary.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Definition {
    /// A workload's attributes, and whether another gateway attested them to the sender.
    Workload {
        attributes: WorkloadAttributes,
        relayed: bool,
    },
    /// An export.
    Export(ObjectName),
    /// Something of a newer version, which nothing that we understand refers to.
    Unknown,
}

/// Decodes a payload.
pub(crate) fn decode<M: Message + Default>(
    kind: FrameType,
    payload: &[u8],
) -> Result<M, Violation> {
    M::decode(payload).map_err(|_| Violation::Malformed(kind))
}

impl Hello {
    pub(crate) fn to_wire(&self) -> wire::Hello {
        wire::Hello {
            versions: self.versions.clone(),
            features: self.features.clone(),
            software: self.software.clone(),
            labels: self.labels.clone(),
            clock_ms: self.clock_ms,
            limits: Some(wire::Limits {
                streams: self.limits.streams,
                pending_opens: self.limits.pending_opens,
                initial_window: self.limits.initial_window,
                dictionary_entries: self.limits.dictionary_entries,
                dictionary_bytes: self.limits.dictionary_bytes,
            }),
            association: self.association.to_vec(),
            session: self.session,
            instance: self.instance.clone(),
        }
    }

    /// Decodes and checks the peer's HELLO.
    pub(crate) fn from_wire(payload: &[u8]) -> Result<Self, Violation> {
        let malformed = Violation::Malformed(FrameType::Hello);
        let mut hello: wire::Hello = decode(FrameType::Hello, payload)?;
        hello.features.truncate(MAX_FEATURES);
        if !hello.versions.contains(&VERSION) {
            return Err(Violation::NoCommonVersion);
        }
        let limits = hello.limits.ok_or(malformed)?;
        let limits = Limits {
            streams: limits.streams,
            pending_opens: limits.pending_opens,
            initial_window: limits.initial_window,
            dictionary_entries: limits.dictionary_entries,
            dictionary_bytes: limits.dictionary_bytes,
        };
        if limits != limits.at_least_minimum() {
            return Err(Violation::LimitsTooLow);
        }
        Ok(Self {
            versions: hello.versions,
            features: hello.features,
            software: readable(hello.software),
            labels: hello.labels,
            clock_ms: hello.clock_ms,
            limits,
            association: hello.association.try_into().map_err(|_| malformed)?,
            session: hello.session,
            instance: readable(hello.instance),
        })
    }
}

impl wire::Define {
    pub(crate) fn workload(id: u32, attributes: &WorkloadAttributes, relayed: bool) -> Self {
        let workload = wire::Workload {
            namespace: attributes.namespace.to_string(),
            service_account: attributes.service_account.to_string(),
            labels: attributes.labels.clone(),
            relayed,
        };
        Self {
            id,
            workload: Some(workload),
            export: None,
        }
    }

    pub(crate) fn export(id: u32, export: &ObjectName) -> Self {
        let export = wire::Export {
            namespace: export.namespace.to_string(),
            name: export.name.to_string(),
        };
        Self {
            id,
            workload: None,
            export: Some(export),
        }
    }

    /// What the entry counts against the limit on dictionary bytes, given its encoded length.
    pub(crate) fn cost(&self, encoded: usize) -> usize {
        encoded
            + 64 * self
                .workload
                .as_ref()
                .map_or(0, |workload| workload.labels.len())
    }

    /// Whether the peer will take the names in it.
    pub(crate) fn is_valid(&self) -> bool {
        let workload = self
            .workload
            .as_ref()
            .is_none_or(|workload| is_name(&workload.namespace));
        let export = self.export.as_ref();
        workload && export.is_none_or(|export| is_name(&export.namespace) && is_name(&export.name))
    }

    /// Checks what the peer defines.
    pub(crate) fn into_definition(self) -> Result<Definition, Violation> {
        let malformed = Violation::Malformed(FrameType::Define);
        if !self.is_valid() {
            return Err(malformed);
        }
        match (self.workload, self.export) {
            (Some(workload), None) => Ok(Definition::Workload {
                attributes: WorkloadAttributes {
                    namespace: workload.namespace.into(),
                    service_account: workload.service_account.into(),
                    labels: workload.labels,
                },
                relayed: workload.relayed,
            }),
            (None, Some(export)) => Ok(Definition::Export(ObjectName::new(
                export.namespace,
                export.name,
            ))),
            (None, None) => Ok(Definition::Unknown),
            (Some(_), Some(_)) => Err(malformed),
        }
    }
}

/// A peer's text, cut to a bounded length and without characters that could disturb a log.
pub(crate) fn readable(text: String) -> String {
    if text.len() <= MAX_TEXT && !text.contains(char::is_control) {
        return text;
    }
    cut(&text)
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect()
}

/// The longest prefix of a text that is sent or kept.
pub(crate) fn cut(text: &str) -> &str {
    &text[..text.floor_char_boundary(MAX_TEXT)]
}

/// Whether a text may name an object or a namespace.
fn is_name(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= MAX_NAME
        && !text.contains(|c: char| c == '/' || c.is_control() || c.is_whitespace())
}
