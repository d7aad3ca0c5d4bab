//! What follows an attempt at a source that failed: the next source, or a reset.
//!
//! The rule behind the table: payload is never delivered twice. As long as nothing that the client
//! sent can have reached a backend, and nothing from a backend has reached the client, the client
//! cannot tell one source from another. Once the peer has accepted the stream there is no other
//! try, so only attempts that fail before are judged here.

/// Why an attempt at a source failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Failure {
    /// There is no Peer object, no session could be had, or it gives no sign of life.
    Unreachable,
    /// A local policy denies it.
    DeniedHere,
    /// The exporting peer denies it, or has no such Export: from here the two look the same.
    DeniedThere,
    /// The exporting peer said no for another reason: no backend, a limit, too many hops.
    Declined,
    /// The session was lost, or the stream reset, before the peer answered.
    TunnelFailed,
}

impl Failure {
    /// Whether it was the exporting peer that answered so: then nothing was delivered to a
    /// backend, whatever had been sent along with the request.
    pub fn is_refusal(self) -> bool {
        match self {
            Self::DeniedThere | Self::Declined => true,
            Self::Unreachable | Self::DeniedHere | Self::TunnelFailed => false,
        }
    }

    /// Whether policy said no, on either side.
    pub fn is_denial(self) -> bool {
        match self {
            Self::DeniedHere | Self::DeniedThere => true,
            Self::Unreachable | Self::Declined | Self::TunnelFailed => false,
        }
    }
}

/// How far the payload of a connection got before an attempt failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Payload {
    /// Nothing was sent to the peer.
    Unsent,
    /// Some was sent along with the request, which the peer had not accepted yet.
    Sent,
}

/// What follows a failed attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Next {
    /// The next source is tried, if there is one, with all that the client has sent so far.
    TryNext,
    /// The connection is reset: another try might deliver something twice.
    Reset,
}

/// Decides what follows a failed attempt.
pub fn after(failure: Failure, payload: Payload) -> Next {
    match payload {
        Payload::Unsent => Next::TryNext,
        Payload::Sent if failure.is_refusal() => Next::TryNext,
        Payload::Sent => Next::Reset,
    }
}

/// Whether the outcome may be remembered for the next clients: only when every source was tried
/// and its peer said that it is denied.
pub fn is_denied_everywhere(failures: impl IntoIterator<Item = Failure>) -> bool {
    let mut failures = failures.into_iter().peekable();
    failures.peek().is_some() && failures.all(|failure| failure == Failure::DeniedThere)
}
