//! What follows an attempt at a source that failed: the next source, a reset or a refusal.
//!
//! The rule behind the table: payload is never delivered twice. As long as nothing that the client
//! sent can have reached a backend, and nothing from a backend has reached the client, the client
//! cannot tell one source from another.

/// Why an attempt at a source failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Failure {
    /// No session to its peer could be had.
    Unreachable,
    /// A local policy denies it.
    DeniedHere,
    /// The exporting peer denies it.
    DeniedThere,
    /// The exporting peer has no such Export.
    NoSuchExport,
    /// The session was lost, or the stream reset.
    TunnelFailed,
    /// The exporting peer could not reach a backend.
    DialFailed,
}

impl Failure {
    /// Whether it was the exporting peer that answered so: then nothing was delivered to a
    /// backend, whatever had been sent along with the request.
    pub fn is_refusal(self) -> bool {
        match self {
            Self::DeniedThere | Self::NoSuchExport | Self::DialFailed => true,
            Self::Unreachable | Self::DeniedHere | Self::TunnelFailed => false,
        }
    }
}

/// How far the payload of a connection got before an attempt failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Payload {
    /// Nothing was sent to the peer.
    Unsent,
    /// Some was sent to the peer, which had not accepted the stream yet.
    Sent,
    /// The peer accepted the stream: a backend may have it, or the client has some of its answer.
    Accepted,
}

/// What follows a failed attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Next {
    /// The next source is tried, with all that the client has sent so far.
    TryNext,
    /// No source is left: the client gets a connection error.
    Refuse,
    /// The connection is reset: another try might deliver something twice.
    Reset,
}

/// Decides what follows a failed attempt when `left` more sources could be tried.
pub fn after(failure: Failure, payload: Payload, left: usize) -> Next {
    let undelivered = match payload {
        Payload::Unsent => true,
        Payload::Sent => failure.is_refusal(),
        Payload::Accepted => false,
    };
    match (undelivered, left) {
        (false, _) => Next::Reset,
        (true, 0) => Next::Refuse,
        (true, _) => Next::TryNext,
    }
}

/// Whether the outcome may be remembered for the next clients: only when every source was tried
/// and its peer said that it is denied.
pub fn is_denied_everywhere(failures: impl IntoIterator<Item = Failure>) -> bool {
    let mut failures = failures.into_iter().peekable();
    failures.peek().is_some() && failures.all(|failure| failure == Failure::DeniedThere)
}
