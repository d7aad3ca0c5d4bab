//! Who an agent is, and why one is refused.

use std::{future::Future, sync::Arc, time::SystemTime};

use clusterlink_model::ObjectName;
use tonic::{Code, Status};

/// Checks the token of an agent.
pub trait Authenticator: Send + Sync + 'static {
    /// Who shows this token.
    fn authenticate(&self, token: &str) -> impl Future<Output = Result<Identity, Refusal>> + Send;
}

/// What a token says of an agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The pod that it is bound to.
    pub pod: ObjectName,
    /// The UID of that pod.
    pub pod_uid: Arc<str>,
    /// The node that the pod runs on.
    pub node: Arc<str>,
    /// When the token ends, and the stream with it.
    pub expires: SystemTime,
}

/// Why an agent is not served.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// It shows none.
    #[error("no token was shown: send \"authorization: Bearer …\"")]
    NoToken,
    /// The token is not what it should be.
    #[error("the token is not valid: {0}")]
    NotValid(String),
    /// The token is for somebody else.
    #[error("the token is for the audience {0:?}, not for clusterlink-controller")]
    WrongAudience(Vec<String>),
    /// The token is somebody else's.
    #[error("the token belongs to {found}, not to {expected}")]
    WrongServiceAccount {
        /// Whose it is.
        found: String,
        /// Whose it should be.
        expected: String,
    },
    /// The token's time is over.
    #[error("the token has expired: read the projected file again")]
    Expired,
    /// The token is not bound to a pod on a node.
    #[error("the token is not bound to a pod and its node: use a projected one")]
    Unbound,
    /// The agent says that it runs elsewhere.
    #[error("the agent says that it runs on node {said:?}, its token says {bound:?}")]
    OtherNode {
        /// What the agent says.
        said: String,
        /// What the token says.
        bound: Arc<str>,
    },
    /// The first message was something else.
    #[error("the first message was no greeting, or came too late")]
    NoGreeting,
    /// The agent speaks another version of the protocol.
    #[error(
        "the agent speaks version {0} of the push protocol, this controller version 1: update the older one"
    )]
    Protocol(u32),
    /// Nobody can say who the agent is.
    #[error("the token could not be checked: {0}")]
    NotChecked(String),
}

impl Refusal {
    /// One word for metrics.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::NoToken => "no-token",
            Self::NotValid(_) => "not-valid",
            Self::WrongAudience(_) => "wrong-audience",
            Self::WrongServiceAccount { .. } => "wrong-service-account",
            Self::Expired => "expired",
            Self::Unbound => "unbound",
            Self::OtherNode { .. } => "other-node",
            Self::NoGreeting => "no-greeting",
            Self::Protocol(_) => "protocol",
            Self::NotChecked(_) => "not-checked",
        }
    }
}

impl From<&Refusal> for Status {
    fn from(refusal: &Refusal) -> Self {
        let code = match refusal {
            Refusal::NoToken
            | Refusal::NotValid(_)
            | Refusal::WrongAudience(_)
            | Refusal::Expired => Code::Unauthenticated,
            Refusal::WrongServiceAccount { .. } | Refusal::Unbound | Refusal::OtherNode { .. } => {
                Code::PermissionDenied
            }
            Refusal::NoGreeting => Code::InvalidArgument,
            Refusal::Protocol(_) => Code::Unimplemented,
            Refusal::NotChecked(_) => Code::Unavailable,
        };
        Self::new(code, refusal.to_string())
    }
}
